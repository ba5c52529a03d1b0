//! Says of each pod's events whether they keep the promise: each once, in order, none missing. Pure.
//!
//! | found | when |
//! | --- | --- |
//! | lost | a number between 1 and the last told `sequence` stands nowhere; a pod is gone without an end |
//! | doubled | one `event_id` or one `sequence` stands there twice; a pod has two ends |
//! | out of order | in one partition a lower `sequence` comes after a higher one; an end before a beginning |
//! | schema | a record is not as contract.md says (`schema.rs`) |
//!
//! What retention may have taken from the beginning of a partition is no loss, and such pods are counted as not judged
//! whole: the first events of a pod whose partition is cut; with a topic for each type any events of it; pods that only
//! the changelog knows. Memory: about 100 bytes an event and 200 a pod.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    fmt,
};

use serde::Serialize;
use uuid::Uuid;

use super::schema::Told;
use crate::{
    lifecycle::{event::EventType, tracked::Tracked},
    watch::pod::{ByUid, PodUid},
};

/// Findings that are kept; the rest is counted.
pub const FINDINGS_MAX: usize = 10_000;

/// What can be wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Fault {
    /// Told according to the numbers or the changelog, and not there.
    Lost,
    /// There more than once.
    Doubled,
    /// Not in the order in which it happened.
    OutOfOrder,
    /// Not of the promised shape.
    Schema,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Lost => "lost",
            Self::Doubled => "doubled",
            Self::OutOfOrder => "out of order",
            Self::Schema => "schema",
        })
    }
}

/// One thing that is wrong.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Finding {
    /// Whose; empty where it cannot be told.
    pub execution_id: Box<str>,
    /// Whose; empty where it cannot be told.
    pub pod_uid: Box<str>,
    /// What kind.
    pub fault: Fault,
    /// For people; names the places.
    pub what: String,
}

/// An events topic.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Topic {
    /// Its name.
    pub name: String,
    /// How many partitions it has.
    pub partitions: usize,
    /// Partitions from whose beginning retention has taken records.
    pub cut: Vec<i32>,
    /// Committed records that were read.
    pub records: u64,
}

/// Where a record stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    /// Index of the topic.
    pub topic: usize,
    /// Partition.
    pub partition: i32,
    /// Offset.
    pub offset: i64,
}

/// What was found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Report {
    /// What was read.
    pub topics: Vec<Topic>,
    /// Whether the changelog was read too: only it knows that a story's last events are missing.
    pub changelog: bool,
    /// Events that could be read.
    pub events: u64,
    /// Executions.
    pub executions: u64,
    /// Pods.
    pub pods: u64,
    /// Pods whose end is not told yet.
    pub open: u64,
    /// Pods that are not judged whole: what is missing of them may be what retention has taken.
    pub unjudged: u64,
    /// How often each fault was found.
    pub faults: BTreeMap<Fault, u64>,
    /// The first [`FINDINGS_MAX`] of them, by execution.
    pub findings: Vec<Finding>,
}

impl Report {
    /// Nothing is wrong.
    pub fn is_clean(&self) -> bool {
        self.faults.values().all(|count| *count == 0)
    }
}

struct Event {
    place: Place,
    event_id: Uuid,
    event_type: EventType,
    sequence: u32,
}

#[derive(Default)]
struct Pod {
    execution: Box<str>,
    events: Vec<Event>,
}

/// Takes in records in any order of partitions, each partition in its own order.
pub struct Judge {
    topics: Vec<Topic>,
    pods: HashMap<Box<str>, Pod>,
    found: Found,
    events: u64,
}

#[derive(Default)]
struct Found {
    counts: BTreeMap<Fault, u64>,
    findings: Vec<Finding>,
}

impl Found {
    fn add(&mut self, fault: Fault, execution: &str, pod: &str, what: String) {
        *self.counts.entry(fault).or_default() += 1;
        if self.findings.len() < FINDINGS_MAX {
            self.findings.push(Finding { execution_id: execution.into(), pod_uid: pod.into(), fault, what });
        }
    }
}

impl Default for Judge {
    fn default() -> Self {
        let counts = [Fault::Lost, Fault::Doubled, Fault::OutOfOrder, Fault::Schema].map(|fault| (fault, 0));
        let found = Found { counts: counts.into(), findings: Vec::new() };
        Self { topics: Vec::new(), pods: HashMap::new(), found, events: 0 }
    }
}

impl Judge {
    /// One more topic is read; its index in the places of its records.
    pub fn begin(&mut self, topic: Topic) -> usize {
        self.topics.push(topic);
        self.topics.len() - 1
    }

    /// Takes in one record: what it tells, and what is wrong with its shape.
    pub fn take(&mut self, place: Place, told: Option<Told>, wrong: Vec<String>) {
        if let Some(topic) = self.topics.get_mut(place.topic) {
            topic.records += 1;
        }
        let (execution, pod) = told.as_ref().map(|told| (&*told.execution, &*told.pod)).unwrap_or_default();
        if !wrong.is_empty() {
            let what = format!("{}: {}", at(&self.topics, place), wrong.join("; "));
            self.found.add(Fault::Schema, execution, pod, what);
        }
        let Some(Told { pod, execution, event_id, event_type, sequence }) = told else { return };
        self.events += 1;
        let of = self.pods.entry(pod.clone()).or_insert_with(|| Pod { execution: execution.clone(), ..Pod::default() });
        if of.execution != execution {
            let what = format!("{}: belongs to {} in the pod's earlier events", at(&self.topics, place), of.execution);
            self.found.add(Fault::Schema, &execution, &pod, what);
        }
        of.events.push(Event { place, event_id, event_type, sequence });
    }

    /// The verdict. `told`: what the changelog says was told, as read before the events.
    pub fn finish(mut self, told: Option<&ByUid<Tracked>>) -> Report {
        let (mut open, mut unjudged) = (0, 0);
        for (uid, pod) in &mut self.pods {
            let promised =
                told.and_then(|told| told.get(&PodUid((**uid).into()))).map_or(0, |tracked| tracked.sequence);
            let once = once(uid, pod, &self.topics, &mut self.found);
            in_order(uid, pod, &once, &self.topics, &mut self.found);
            unjudged += u64::from(complete(uid, pod, &once, promised, &self.topics, &mut self.found));
            open += u64::from(!once.iter().any(|index| stage(pod.events[*index].event_type) == END));
        }
        let missing = |(uid, tracked): &(&PodUid, &Tracked)| tracked.sequence > 0 && !self.pods.contains_key(&*uid.0);
        for (uid, tracked) in told.into_iter().flatten().filter(missing) {
            // Nobody knows in which partition it stood.
            if is_cut(&self.topics) {
                unjudged += 1;
                continue;
            }
            let what = format!("all of its {} events, which the changelog says were told", tracked.sequence);
            self.found.add(Fault::Lost, &tracked.execution_id, &uid.0, what);
        }
        self.found.findings.sort();
        Report {
            changelog: told.is_some(),
            events: self.events,
            executions: self.pods.values().map(|pod| &pod.execution).collect::<HashSet<_>>().len() as u64,
            pods: self.pods.len() as u64,
            open,
            unjudged,
            faults: self.found.counts,
            findings: self.found.findings,
            topics: self.topics,
        }
    }
}

fn is_cut(topics: &[Topic]) -> bool {
    topics.iter().any(|topic| !topic.cut.is_empty())
}

fn at(topics: &[Topic], place: Place) -> String {
    let name = topics.get(place.topic).map_or("?", |topic| &topic.name);
    format!("{name}[{}]@{}", place.partition, place.offset)
}

/// The order of a life: each stage at most once, none after a later one. A stall is none: it may come at any time before
/// the going, and again.
fn stage(event_type: EventType) -> Option<u8> {
    match event_type {
        EventType::PodScheduled => Some(1),
        EventType::ExecutionRunning => Some(2),
        EventType::ExecutionStalled | EventType::ExecutionResumed => None,
        EventType::ExecutionCompleted | EventType::ExecutionFailed | EventType::ExecutionTimeout => END,
        EventType::PodTerminated => GONE,
    }
}

const END: Option<u8> = Some(3);
const GONE: Option<u8> = Some(4);

/// The first record of each event, in the order of the numbers; tells of all others.
fn once(uid: &str, pod: &Pod, topics: &[Topic], found: &mut Found) -> Vec<usize> {
    let mut by_id: BTreeMap<Uuid, Vec<usize>> = BTreeMap::new();
    for (index, event) in pod.events.iter().enumerate() {
        by_id.entry(event.event_id).or_default().push(index);
    }
    for (id, copies) in by_id.iter().filter(|(_, copies)| copies.len() > 1) {
        let places: Vec<String> = copies.iter().map(|index| at(topics, pod.events[*index].place)).collect();
        let what = format!("event {id} stands at {}", places.join(" and "));
        found.add(Fault::Doubled, &pod.execution, uid, what);
    }
    let mut first: Vec<usize> = by_id.values().map(|copies| copies[0]).collect();
    first.sort_by_key(|index| (pod.events[*index].sequence, *index));
    let mut by_number: Vec<usize> = Vec::with_capacity(first.len());
    for index in first {
        let (event, last) = (&pod.events[index], by_number.last().map(|last: &usize| &pod.events[*last]));
        match last.filter(|last| last.sequence == event.sequence) {
            Some(last) => {
                let (one, other) = (at(topics, last.place), at(topics, event.place));
                let what = format!("sequence {} names two events: at {one} and {other}", event.sequence);
                found.add(Fault::Doubled, &pod.execution, uid, what);
            }
            None => by_number.push(index),
        }
    }
    by_number
}

fn in_order(uid: &str, pod: &Pod, once: &[usize], topics: &[Topic], found: &mut Found) {
    let name =
        |event: &Event| format!("{} (sequence {}) at {}", event.event_type, event.sequence, at(topics, event.place));
    // The newest event so far that is a stage of the life, where stalls lie between two of them.
    let mut reached: Option<&Event> = None;
    let pairs = once.iter().enumerate().map(|(n, index)| (n.checked_sub(1), &pod.events[*index]));
    for (previous, later) in pairs {
        let displaced = previous.map(|n| &pod.events[once[n]]).filter(|earlier| {
            let same_place = |e: &Event| (e.place.topic, e.place.partition);
            same_place(earlier) == same_place(later) && earlier.place.offset > later.place.offset
        });
        let after = stage(later.event_type);
        let passed = reached.filter(|earlier| stage(earlier.event_type) >= after.or(GONE));
        if let Some(twin) = passed.filter(|earlier| stage(earlier.event_type) == after) {
            let what = format!("{} and {}", name(twin), name(later));
            found.add(Fault::Doubled, &pod.execution, uid, what);
        } else if let Some(earlier) = passed.or(displaced) {
            let what = format!("{} and then {}", name(earlier), name(later));
            found.add(Fault::OutOfOrder, &pod.execution, uid, what);
        }
        if after.is_some() {
            reached = Some(later);
        }
    }
}

/// Tells what is missing; whether retention has taken the beginning.
fn complete(uid: &str, pod: &Pod, once: &[usize], promised: u32, topics: &[Topic], found: &mut Found) -> bool {
    let seen: Vec<u32> = once.iter().map(|index| pod.events[*index].sequence).collect();
    let (lowest, highest) = (seen.first().copied().unwrap_or(1), seen.last().copied().unwrap_or(0));
    let taken = |number: u32| match topics {
        // All of a pod's events have one key, and so one partition.
        [topic] => number < lowest && pod.events.iter().any(|event| topic.cut.contains(&event.place.partition)),
        // Each type in a topic of its own: retention may have taken any of them.
        several => is_cut(several),
    };
    // Numbers are not believed beyond reason: a forged one must not make millions of findings.
    let missing: Vec<u32> = (1..=highest.max(promised)).filter(|n| seen.binary_search(n).is_err()).take(1000).collect();
    let lost: Vec<String> = missing.iter().filter(|n| !taken(**n)).map(u32::to_string).collect();
    if !lost.is_empty() {
        let source = if promised > highest { ", which the changelog says were told" } else { "" };
        let what = format!("sequence {} of {}{source}", lost.join(", "), highest.max(promised));
        found.add(Fault::Lost, &pod.execution, uid, what);
    }
    let gone = once.iter().map(|i| &pod.events[*i]).find(|event| stage(event.event_type) == GONE);
    let ended = once.iter().any(|index| stage(pod.events[*index].event_type) == END);
    if let Some(gone) = gone.filter(|gone| !ended && missing.iter().all(|number| *number > gone.sequence)) {
        let what = format!("its end: pod_terminated at {} comes without one", at(topics, gone.place));
        found.add(Fault::Lost, &pod.execution, uid, what);
    }
    missing.iter().any(|number| taken(*number))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
#[path = "judge_tests.rs"]
mod tests;
