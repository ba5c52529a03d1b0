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

/// The pods of one of so many shards.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Range {
    pub shard: u32,
    pub of: u32,
}

/// Versions that no watch of a shard showed: after the first, up to the last.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Gap {
    pub range: Range,
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

/// What was told of one shard.
#[derive(Debug, Default)]
struct Shard {
    position: u64,
    /// The first position that was ever told.
    first_position: Option<u64>,
    holders: BTreeMap<u64, String>,
    term: u64,
}

/// Reads transactions as they come.
#[derive(Default)]
pub struct Oracle {
    cluster: String,
    stories: BTreeMap<String, Story>,
    ids: BTreeSet<String>,
    /// Of the generation that is the truth.
    shards: Vec<Shard>,
    /// Of the first one, where that is over.
    first: Option<Vec<Shard>>,
    wrongs: Vec<String>,
}

impl Oracle {
    pub fn new(cluster: &str, shards: u32) -> Self {
        let shards = (0..shards).map(|_| Shard::default()).collect();
        Self { cluster: cluster.to_owned(), shards, ..Self::default() }
    }

    /// Takes in the next transaction that a shard committed.
    pub fn read(&mut self, shard: u32, number: usize, parts: &[Part]) {
        let mut touched = BTreeSet::new();
        for part in parts {
            if let Part::Event(text) = part {
                let uid = self.event(text);
                self.belongs(shard, &uid, "tells of");
                touched.insert(uid);
            }
        }
        for part in parts {
            let Part::Record(key, value) = part else { continue };
            match (key.as_str(), key.strip_prefix("pod/"), value) {
                (_, Some(uid), value) => {
                    touched.remove(uid);
                    self.belongs(shard, uid, "remembers");
                    self.record(number, uid, value.as_deref());
                }
                ("meta/position", _, Some(value)) => self.position(shard, value),
                _ => {}
            }
        }
        for uid in touched {
            self.wrong(format!("torn: transaction {number} of shard {shard} tells of {uid} and does not remember it"));
        }
    }

    /// From now on another generation is the truth: it has to remember what the former one did, each record in its shard.
    pub fn moves(&mut self, old: &[BTreeMap<String, String>], new: &[BTreeMap<String, String>]) {
        let pods = |shard: &BTreeMap<String, String>| -> Vec<(String, String)> {
            shard.iter().filter(|(key, _)| key.starts_with("pod/")).map(|(k, v)| (k.clone(), v.clone())).collect()
        };
        let mut left: BTreeMap<String, String> = old.iter().flat_map(pods).collect();
        let former = std::mem::replace(&mut self.shards, new.iter().map(|_| Shard::default()).collect());
        self.first.get_or_insert(former);
        for (shard, (key, value)) in
            (0..).zip(new).flat_map(|(shard, held)| pods(held).into_iter().map(move |r| (shard, r)))
        {
            self.belongs(shard, key.trim_start_matches("pod/"), "inherits");
            if left.remove(&key).as_ref() != Some(&value) {
                self.wrong(format!("heritage: shard {shard} has a {key} that nobody left"));
            }
        }
        for key in left.keys() {
            self.wrong(format!("heritage: nobody has {key}"));
        }
    }

    /// What the switch says of how far a shard had come: nothing goes back behind it.
    pub fn begins(&mut self, shard: u32, position: Option<&str>) {
        match position {
            Some(position) => self.position(shard, position),
            None => self.wrong(format!("heritage: shard {shard} begins without a position")),
        }
    }

    /// Something is committed to a shard of a generation that is over.
    pub fn read_late(&mut self, shard: u32, parts: &[Part]) {
        let tells = |part: &Part| match part {
            Part::Event(_) => true,
            Part::Record(key, _) => key.starts_with("pod/") || key == "meta/position",
        };
        if parts.iter().any(tells) {
            self.wrong(format!("moved: shard {shard} tells on in a generation that is over"));
        }
    }

    /// The one shard of a pod, by its UID: ranges of equal length.
    fn shard_of(&self, uid: &str) -> u32 {
        shard_of(uid, self.shards.len() as u32)
    }

    fn belongs(&mut self, shard: u32, uid: &str, what: &str) {
        let right = self.shard_of(uid);
        if right != shard {
            self.wrong(format!("share: shard {shard} {what} {uid}, which belongs to shard {right}"));
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

    fn position(&mut self, shard: u32, value: &str) {
        let value: Value = serde_json::from_str(value).unwrap_or_default();
        let (term, holder) = (value["term"].as_u64().unwrap_or_default(), value["holder"].as_str().unwrap_or("?"));
        let position = value["streams"][""].as_u64().unwrap_or_default();
        let known = &mut self.shards[shard as usize];
        let mut wrongs = Vec::new();
        if position < known.position {
            wrongs.push(format!("position: shard {shard} went back from {} to {position}", known.position));
        }
        if term < known.term {
            wrongs.push(format!("fence: term {term} of {holder} for shard {shard} after term {}", known.term));
        }
        let first = known.holders.entry(term).or_insert_with(|| holder.to_owned());
        if first != holder {
            wrongs.push(format!("fence: term {term} of shard {shard} is {holder}'s and {first}'s"));
        }
        known.term = known.term.max(term);
        known.position = known.position.max(position);
        // One that names no version covers nothing: its writer has not listed yet.
        if position > 0 {
            known.first_position.get_or_insert(position);
        }
        self.wrongs.extend(wrongs);
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
        let first = self.first.as_ref().unwrap_or(&self.shards);
        // Before the first position nobody watched.
        let unwatched = |uid: &str| {
            let range = Range { shard: shard_of(uid, first.len() as u32), of: first.len() as u32 };
            Gap { range, after: 0, until: first[range.shard as usize].first_position.unwrap_or(u64::MAX) }
        };
        let hides = |uid: &str, gap: &&Gap| shard_of(uid, gap.range.of) == gap.range.shard;
        let mut lives: BTreeMap<&str, Vec<&Fact>> = BTreeMap::new();
        for fact in truth {
            lives.entry(&fact.uid).or_default().push(fact);
        }
        let mut judgement = Judgement::default();
        let nothing = Story::default();
        for (uid, facts) in &lives {
            let story = self.stories.get(*uid).unwrap_or(&nothing);
            let gaps: Vec<Gap> = gaps.iter().filter(|gap| hides(uid, gap)).copied().chain([unwatched(uid)]).collect();
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

/// As Kubernetes shares them: FNV-1a (64 bits) of the UID, equal ranges.
fn shard_of(uid: &str, shards: u32) -> u32 {
    let mut hash: u64 = 14_695_981_039_346_656_037;
    for byte in uid.bytes() {
        hash ^= u64::from(byte);
        hash = hash.wrapping_mul(1_099_511_628_211);
    }
    // Range k begins at the first hash that is at least k / shards of 2^64.
    let begins = |k: u32| (u128::from(k) << 64).div_ceil(u128::from(shards));
    (0..shards).rev().find(|k| u128::from(hash) >= begins(*k)).unwrap_or_default()
}
