//! Judges a run from what truly happened to pods and what Kafka holds. Shares no code with `src/`: events and records
//! are read as JSON, event ids are derived anew.
//!
//! Not everything can be promised: what came and went while no watch reached back so far (a [`Gap`]) nobody could see.
//! The oracle knows each gap, and what of each pod's life it hides.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;
use testkit::clients::shape;
use uuid::Uuid;

/// One change of a pod as the API server stored it.
#[derive(Debug, Clone)]
pub struct Fact {
    pub version: u64,
    pub uid: String,
    /// Whether the selector takes it.
    pub selected: bool,
    pub bound: bool,
    pub started: bool,
    pub exit: Option<i32>,
    pub terminal: bool,
    pub deleted: bool,
}

impl std::fmt::Display for Fact {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { version, uid, selected, bound, started, exit, terminal, .. } = self;
        let flag = |on: bool, name| if on { name } else { "" };
        let exit = exit.map(|code| format!(" exit {code}")).unwrap_or_default();
        write!(f, "{uid} at {version}:{}{}{}", flag(*bound, " bound"), flag(*started, " started"), exit)?;
        write!(f, "{}{}", flag(*terminal, " terminal"), flag(!selected, " not selected"))
    }
}

/// Versions that no watch showed: after the first, up to the last.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Gap {
    pub after: u64,
    pub until: u64,
}

impl Gap {
    fn holds(self, version: u64) -> bool {
        self.after < version && version <= self.until
    }
}

/// A part of a transaction.
#[derive(Debug, Clone)]
pub enum Part {
    Event(String),
    Record(String, Option<String>),
}

const SLOTS: [&str; 4] = ["scheduled", "running", "end", "gone"];

/// What was told of one pod.
#[derive(Debug, Default)]
struct Story {
    /// Slot and the event, in order.
    told: Vec<(usize, Value)>,
    sequence: u64,
    /// Its record became a tombstone.
    forgotten: bool,
}

/// Reads transactions as they come.
#[derive(Default)]
pub struct Oracle {
    cluster: String,
    stories: BTreeMap<String, Story>,
    ids: BTreeSet<String>,
    position: u64,
    /// The first position that was ever told.
    first_position: Option<u64>,
    holders: BTreeMap<u64, String>,
    term: u64,
    wrongs: Vec<String>,
}

impl Oracle {
    pub fn new(cluster: &str) -> Self {
        Self { cluster: cluster.to_owned(), ..Self::default() }
    }

    /// Takes in the next committed transaction.
    pub fn read(&mut self, number: usize, parts: &[Part]) {
        let mut touched = BTreeSet::new();
        for part in parts {
            if let Part::Event(text) = part {
                touched.insert(self.event(text));
            }
        }
        for part in parts {
            let Part::Record(key, value) = part else { continue };
            match (key.as_str(), key.strip_prefix("pod/"), value) {
                (_, Some(uid), value) => {
                    touched.remove(uid);
                    self.record(number, uid, value.as_deref());
                }
                ("meta/position", _, Some(value)) => self.position(value),
                _ => {}
            }
        }
        for uid in touched {
            self.wrong(format!("torn: transaction {number} tells of {uid} and does not remember it"));
        }
    }

    fn wrong(&mut self, what: String) {
        self.wrongs.push(what);
    }

    fn event(&mut self, text: &str) -> String {
        let event: Value = serde_json::from_str(text).unwrap_or_default();
        let uid = event["pod_uid"].as_str().unwrap_or_default().to_owned();
        if let Err(error) = shape::check_event(&event) {
            self.wrong(format!("shape: an event of {uid} {error}"));
        }
        let kind = event["event_type"].as_str().unwrap_or_default().to_owned();
        let slot = match kind.as_str() {
            "pod_scheduled" => 0,
            "execution_running" => 1,
            "execution_completed" | "execution_failed" | "execution_timeout" => 2,
            _ => 3,
        };
        let id = event["event_id"].as_str().unwrap_or_default().to_owned();
        if id != event_id(&self.cluster, &uid, SLOTS[slot]) {
            self.wrong(format!("id: {kind} of {uid} has id {id}, which does not derive from it"));
        }
        if !self.ids.insert(id) {
            self.wrong(format!("doubled: {kind} of {uid}, the same id twice"));
        }
        let story = self.stories.entry(uid.clone()).or_default();
        let mut wrongs = Vec::new();
        if story.told.iter().any(|(told, _)| *told == slot) {
            wrongs.push(format!("doubled: {} of {uid}", SLOTS[slot]));
        } else if story.told.iter().any(|(told, _)| *told > slot) {
            wrongs.push(format!("reordered: {} of {uid} after a later event", SLOTS[slot]));
        }
        if story.forgotten {
            wrongs.push(format!("doubled: {uid} is told anew after it was forgotten"));
        }
        let sequence = event["sequence"].as_u64().unwrap_or_default();
        if sequence != story.sequence + 1 {
            wrongs.push(format!("sequence: {kind} of {uid} is {sequence} after {}", story.sequence));
        }
        story.sequence = story.sequence.max(sequence);
        story.told.push((slot, event));
        self.wrongs.extend(wrongs);
        uid
    }

    /// What is remembered must be what was told: no more, no less.
    fn record(&mut self, number: usize, uid: &str, value: Option<&str>) {
        let story = self.stories.get(uid);
        let told = story.map_or(0, |story| story.sequence);
        match value {
            Some(value) => {
                let value: Value = serde_json::from_str(value).unwrap_or_default();
                let remembered = value["sequence"].as_u64().unwrap_or_default();
                if remembered != told {
                    let what =
                        format!("torn: transaction {number} remembers {remembered} events of {uid}, told {told}");
                    self.wrong(what);
                }
            }
            None => self.stories.entry(uid.to_owned()).or_default().forgotten = true,
        }
    }

    fn position(&mut self, value: &str) {
        let value: Value = serde_json::from_str(value).unwrap_or_default();
        let (term, holder) = (value["term"].as_u64().unwrap_or_default(), value["holder"].as_str().unwrap_or("?"));
        let position = value["streams"][""].as_u64().unwrap_or_default();
        if position < self.position {
            self.wrong(format!("position: went back from {} to {position}", self.position));
        }
        if term < self.term {
            self.wrong(format!("fence: term {term} of {holder} after term {}", self.term));
        }
        let known = self.holders.entry(term).or_insert_with(|| holder.to_owned());
        if known != holder {
            let what = format!("fence: term {term} is {holder}'s and {known}'s");
            self.wrong(what);
        }
        self.term = self.term.max(term);
        self.position = self.position.max(position);
        // One that names no version covers nothing: its writer has not listed yet.
        if position > 0 {
            self.first_position.get_or_insert(position);
        }
    }

    /// Events that were told.
    pub fn events(&self) -> usize {
        self.ids.len()
    }

    /// What is wrong with what was told so far.
    pub fn wrongs(&self) -> &[String] {
        &self.wrongs
    }

    /// What should have been told by now and was not; and what was told and is not true.
    pub fn judge(&self, truth: &[Fact], gaps: &[Gap]) -> Judgement {
        let mut gaps = gaps.to_vec();
        // Before the first position nobody watched.
        gaps.push(Gap { after: 0, until: self.first_position.unwrap_or(u64::MAX) });
        let mut lives: BTreeMap<&str, Vec<&Fact>> = BTreeMap::new();
        for fact in truth {
            lives.entry(&fact.uid).or_default().push(fact);
        }
        let mut judgement = Judgement::default();
        let nothing = Story::default();
        for (uid, facts) in &lives {
            let story = self.stories.get(*uid).unwrap_or(&nothing);
            Life { uid, facts, gaps: &gaps }.judge(story, &mut judgement);
        }
        for uid in self.stories.keys().filter(|uid| !lives.contains_key(uid.as_str())) {
            judgement.untrue.push(format!("invented: {uid} never lived"));
        }
        judgement
    }
}

/// What the truth says of what was told.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Judgement {
    pub lost: Vec<String>,
    pub untrue: Vec<String>,
}

/// One pod's true life.
struct Life<'a> {
    uid: &'a str,
    facts: &'a [&'a Fact],
    gaps: &'a [Gap],
}

impl Life<'_> {
    /// Whether everybody who watched could see this state: not if it came and went within a gap.
    fn certain(&self, index: usize) -> bool {
        let (fact, next) = (self.facts[index], self.facts.get(index + 1));
        let hidden = |gap: &Gap| match next {
            _ if !gap.holds(fact.version) => false,
            // The last of a life stays to be seen by a LIST, unless it is the going.
            None => fact.deleted,
            Some(next) => gap.holds(next.version),
        };
        if self.gaps.iter().any(hidden) {
            // The event of the going or leaving carries the last state.
            return next.is_some_and(|next| self.shown(next) && (next.deleted || !next.selected));
        }
        true
    }

    /// Whether a watch showed this change.
    fn shown(&self, fact: &Fact) -> bool {
        !self.gaps.iter().any(|gap| gap.holds(fact.version))
    }

    /// Never left the selection.
    fn stayed(&self) -> bool {
        self.facts.iter().all(|fact| fact.selected)
    }

    fn judge(&self, story: &Story, judgement: &mut Judgement) {
        let told = |slot: usize| story.told.iter().find(|(told, _)| *told == slot).map(|(_, event)| event);
        let lives = || self.facts.iter().filter(|fact| !fact.deleted);
        let seen: Vec<&&Fact> = (0..self.facts.len())
            .filter(|index| self.facts[*index].selected && !self.facts[*index].deleted && self.certain(*index))
            .map(|index| &self.facts[index])
            .collect();
        let going = self.facts.last().filter(|fact| fact.deleted);
        // Told as gone only while it was selected: how it went outside is nobody's news.
        // Nor is it where its return to the selection and its going fell into one gap.
        let known = |going: &&&Fact| going.selected && (self.stayed() || self.shown(going));
        let goes = going.filter(known).is_some() && !seen.is_empty();
        let ends = seen.iter().any(|fact| fact.terminal || fact.exit == Some(0));
        // A GET that is ahead of the watch can find a pod gone that had left and returned: its last states come too late.
        let early = going.is_some() && !self.stayed();
        let musts = [
            !early && seen.iter().any(|fact| fact.bound),
            !early && seen.iter().any(|fact| fact.started),
            ends || goes,
            goes,
        ];
        let mays = [
            lives().any(|fact| fact.bound),
            lives().any(|fact| fact.started),
            going.is_some() || lives().any(|fact| fact.exit.is_some()),
            going.is_some(),
        ];
        for (slot, name) in SLOTS.iter().enumerate() {
            if musts[slot] && told(slot).is_none() {
                judgement.lost.push(format!("lost: {name} of {}", self.uid));
            }
            if !mays[slot] && told(slot).is_some() {
                judgement.untrue.push(format!("untrue: {name} of {} was told and did not happen", self.uid));
            }
        }
        if let Some(end) = told(2) {
            self.verdict(end, &seen, judgement);
        }
        if let (Some(gone), Some(going)) = (told(3), going)
            && gone["observed"] == false
            && going.selected
            && self.shown(going)
            && self.stayed()
        {
            judgement.untrue.push(format!("unseen: {} is told as vanished, but the watch showed its going", self.uid));
        }
    }

    fn verdict(&self, end: &Value, seen: &[&&Fact], judgement: &mut Judgement) {
        let truth = self.facts.iter().find_map(|fact| fact.exit);
        let must = seen
            .iter()
            .filter(|_| self.stayed())
            .find(|fact| fact.terminal || fact.exit == Some(0))
            .and_then(|f| f.exit);
        let kind = end["event_type"].as_str().unwrap_or_default();
        let code = end["exit_code"].as_i64();
        let right = match (kind, code) {
            ("execution_completed", _) => truth == Some(0),
            (_, Some(code)) => code != 0 && truth.map(i64::from) == Some(code),
            (_, None) => must.is_none(),
        };
        if !right {
            let what = format!("verdict: {} is told as {kind}, exit code {code:?}; in truth {truth:?}", self.uid);
            judgement.untrue.push(what);
        }
    }
}

/// As the contract has it: UUIDv5 over cluster, pod, attempt and slot, in the namespace of pod-monitor.dev.
fn event_id(cluster: &str, uid: &str, slot: &str) -> String {
    let namespace = Uuid::new_v5(&Uuid::NAMESPACE_DNS, b"pod-monitor.dev");
    Uuid::new_v5(&namespace, format!("{cluster}/{uid}/0/{slot}").as_bytes()).to_string()
}
