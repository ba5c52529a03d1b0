//! Judges a history: is anything lost, doubled, out of order, torn? Shares no code with the monitor.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
};

use super::history::Record;

/// What was done to one pod, as the test knows it.
#[derive(Debug, Clone)]
pub struct Truth {
    /// `metadata.uid`
    pub uid: String,
    /// The event types that a consumer must see of it, in order.
    pub expected: Vec<&'static str>,
}

/// What is wrong with a history.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fault {
    /// An expected event of this pod is missing.
    Lost {
        /// Pod UID.
        pod: String,
        /// Event type.
        event: String,
    },
    /// An event id was seen more than once.
    Doubled {
        /// The id.
        event_id: String,
        /// How often.
        times: usize,
    },
    /// The pod's events are not 1, 2, 3, ... in the order of their partition.
    OutOfOrder {
        /// Pod UID.
        pod: String,
        /// The sequences as read.
        sequences: Vec<u64>,
    },
    /// The pod has several ends, or an event that nobody expected.
    Unexpected {
        /// Pod UID.
        pod: String,
        /// Event type.
        event: String,
    },
    /// Fields that every event has are absent or contradict the record.
    Torn {
        /// Topic, partition and offset.
        place: String,
        /// What is wrong.
        what: String,
    },
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Lost { pod, event } => write!(f, "lost: {event} of pod {pod}"),
            Self::Doubled { event_id, times } => write!(f, "doubled: event {event_id} seen {times} times"),
            Self::OutOfOrder { pod, sequences } => write!(f, "out of order: pod {pod} has sequences {sequences:?}"),
            Self::Unexpected { pod, event } => write!(f, "unexpected: {event} of pod {pod}"),
            Self::Torn { place, what } => write!(f, "torn: {what} at {place}"),
        }
    }
}

/// Everything that is wrong, in a stable order; empty for a good history.
pub fn judge(truth: &[Truth], records: &[Record]) -> Vec<Fault> {
    let mut faults = torn(records);
    faults.extend(doubled(records));
    let mut by_pod: BTreeMap<&str, Vec<&Record>> = BTreeMap::new();
    for record in records {
        by_pod.entry(record.text("pod_uid")).or_default().push(record);
    }
    for (pod, records) in &by_pod {
        faults.extend(out_of_order(pod, records));
    }
    let known_pods: BTreeSet<&str> = truth.iter().map(|known| known.uid.as_str()).collect();
    for (pod, records) in by_pod.iter().filter(|(pod, _)| !known_pods.contains(**pod)) {
        let stranger = |r: &&Record| Fault::Unexpected { pod: (*pod).to_owned(), event: r.event_type().to_owned() };
        faults.extend(records.iter().map(stranger));
    }
    for known in truth {
        let seen = by_pod.get(known.uid.as_str()).map(Vec::as_slice).unwrap_or_default();
        faults.extend(against(known, seen));
    }
    faults.sort();
    faults
}

fn torn(records: &[Record]) -> Vec<Fault> {
    const ALWAYS: [&str; 9] = [
        "event_id",
        "event_type",
        "event_version",
        "timestamp",
        "aggregate_id",
        "execution_id",
        "pod_name",
        "namespace",
        "pod_uid",
    ];
    let mut faults = Vec::new();
    for record in records {
        let place = format!("{}[{}]@{}", record.topic, record.partition, record.offset);
        let mut wrong = |what: String| faults.push(Fault::Torn { place: place.clone(), what });
        for field in ALWAYS.iter().filter(|field| record.text(field).is_empty()) {
            wrong(format!("no {field}"));
        }
        if record.key != record.text("execution_id") {
            wrong("the key is not the execution id".into());
        }
        if record.headers.get("ce_id").map(String::as_str) != Some(record.text("event_id")) {
            wrong("the header ce_id is not the event id".into());
        }
        if record.value.as_object().is_none_or(|object| object.values().any(serde_json::Value::is_null)) {
            wrong("a field is null".into());
        }
    }
    faults
}

fn doubled(records: &[Record]) -> Vec<Fault> {
    let mut seen: BTreeMap<&str, usize> = BTreeMap::new();
    for record in records {
        *seen.entry(record.text("event_id")).or_default() += 1;
    }
    let several = seen.into_iter().filter(|(_, times)| *times > 1);
    several.map(|(id, times)| Fault::Doubled { event_id: id.to_owned(), times }).collect()
}

fn out_of_order(pod: &str, records: &[&Record]) -> Option<Fault> {
    let sequences: Vec<u64> = records.iter().map(|r| r.value["sequence"].as_u64().unwrap_or(0)).collect();
    let one_place = records.iter().map(|r| (&r.topic, r.partition)).collect::<BTreeSet<_>>().len() == 1;
    let mut read = sequences.clone();
    if !one_place {
        // Spread over topics, order is what `sequence` says.
        read.sort_unstable();
    }
    let right = read.iter().copied().eq(1..=read.len() as u64);
    (!right).then(|| Fault::OutOfOrder { pod: pod.to_owned(), sequences })
}

fn against(known: &Truth, seen: &[&Record]) -> Vec<Fault> {
    let told: Vec<&str> = seen.iter().map(|r| r.event_type()).collect();
    let mut rest = told.clone();
    let mut faults = Vec::new();
    for expected in &known.expected {
        match rest.iter().position(|event| event == expected) {
            Some(index) => drop(rest.remove(index)),
            None => faults.push(Fault::Lost { pod: known.uid.clone(), event: (*expected).to_owned() }),
        }
    }
    faults.extend(rest.iter().map(|event| Fault::Unexpected { pod: known.uid.clone(), event: (*event).to_owned() }));
    // By what was done to the pod, not by the numbers that the monitor gave its events.
    let one_place = seen.iter().map(|r| (&r.topic, r.partition)).collect::<BTreeSet<_>>().len() <= 1;
    if faults.is_empty() && one_place && told != known.expected {
        let sequences = seen.iter().map(|r| r.value["sequence"].as_u64().unwrap_or(0)).collect();
        faults.push(Fault::OutOfOrder { pod: known.uid.clone(), sequences });
    }
    faults
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn record(offset: i64, sequence: u64, event_type: &str) -> Record {
        let id = format!("id-{sequence}");
        Record {
            topic: "t".into(),
            partition: 0,
            offset,
            key: "e".into(),
            headers: BTreeMap::from([("ce_id".into(), id.clone())]),
            value: json!({ "event_id": id, "event_type": event_type, "event_version": "1.0", "timestamp": "t",
                "aggregate_id": "e", "execution_id": "e", "pod_name": "p", "namespace": "n", "pod_uid": "u",
                "sequence": sequence }),
        }
    }

    fn good() -> Vec<Record> {
        let types = ["pod_scheduled", "execution_running", "execution_completed"];
        types.iter().zip(1..).map(|(kind, n)| record(n as i64, n, kind)).collect()
    }

    fn truth() -> Vec<Truth> {
        vec![Truth { uid: "u".into(), expected: vec!["pod_scheduled", "execution_running", "execution_completed"] }]
    }

    #[test]
    fn a_good_history_has_no_fault() {
        assert_eq!(judge(&truth(), &good()), []);
    }

    #[test]
    fn every_planted_fault_is_found() {
        type Plant = fn(&mut Vec<Record>);
        let swapped: Plant = |h| {
            // Numbered as they were told: only the truth knows that the end came first.
            let (first, last) = (h[0].value["event_type"].clone(), h[2].value["event_type"].clone());
            (h[0].value["event_type"], h[2].value["event_type"]) = (last, first);
        };
        let stranger: Plant = |h| {
            let mut other = record(9, 1, "pod_scheduled");
            other.value["pod_uid"] = json!("nobody");
            other.value["event_id"] = json!("other");
            other.headers.insert("ce_id".into(), "other".into());
            h.push(other);
        };
        let cases: [(&str, Plant); 9] = [
            ("out of order", swapped),
            ("unexpected", stranger),
            ("lost", |h| drop(h.pop())),
            ("lost", |h| drop(h.remove(0))),
            ("doubled", |h| h.push(h[1].clone())),
            ("out of order", |h| h.swap(0, 1)),
            ("unexpected", |h| h.push(record(9, 4, "execution_failed"))),
            ("torn", |h| h[1].value["timestamp"] = json!(null)),
            ("torn", |h| h[1].key = "other".into()),
        ];
        for (fault, plant) in cases {
            let mut history = good();
            plant(&mut history);
            let found: Vec<String> = judge(&truth(), &history).iter().map(ToString::to_string).collect();
            assert!(found.iter().any(|f| f.starts_with(fault)), "{fault} not found in {found:?}");
        }
    }
}
