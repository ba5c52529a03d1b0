//! A sample execution, what a consumer must read of it, and the comparison. Pure.

use std::fmt;

use serde_json::Value;

use crate::clients::history::Record;

/// A pod, what is done to it, and the story that follows.
#[derive(Debug, Clone)]
pub(super) struct Sample {
    /// Short name.
    pub(super) name: &'static str,
    /// What the pod does, for people.
    pub(super) does: &'static str,
    /// The Pod object, without namespace.
    pub(super) pod: Value,
    /// How it comes to be.
    pub(super) made: Made,
    /// What is done to it from outside.
    pub(super) act: Act,
    /// Event types, in order.
    pub(super) events: Vec<&'static str>,
    /// What the events must hold.
    pub(super) fields: Vec<Field>,
}

/// How a pod comes to be.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Made {
    /// At once, by us.
    AtOnce,
    /// By a Job with this spec beside its template, which bears the sample's name.
    ByJob(Value),
    /// Once the story of this sample is told.
    After(&'static str),
}

/// What is done to a pod from outside, once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Act {
    /// Nothing.
    Leave,
    /// It is deleted once this event was read.
    DeleteAfter(&'static str),
    /// It is deleted once the kubelet says that its container waits for one of these reasons.
    DeleteWaiting(&'static [&'static str]),
    /// This ConfigMap is made once this event was read.
    ProvideAfter(&'static str, &'static str),
}

/// One field of one event.
#[derive(Debug, Clone)]
pub(super) struct Field {
    /// Event type.
    pub(super) event: &'static str,
    /// Path of JSON keys, separated by dots.
    pub(super) path: &'static str,
    /// What must be there.
    pub(super) want: Want,
}

/// What must stand in a field.
#[derive(Debug, Clone)]
pub(super) enum Want {
    /// This value.
    Is(Value),
    /// One of these.
    OneOf(Vec<Value>),
    /// A text with this in it.
    Contains(&'static str),
    /// Nothing: the field must not be there.
    Absent,
    /// The pod's UID.
    PodUid,
    /// A time of this pod's life, not the zero that Kubernetes writes where it knows none.
    NotEpoch,
}

impl fmt::Display for Want {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Is(value) => write!(f, "{value}"),
            Self::OneOf(values) => {
                let values: Vec<String> = values.iter().map(Value::to_string).collect();
                f.write_str(&values.join(" or "))
            }
            Self::Contains(part) => write!(f, "a text with {part:?}"),
            Self::Absent => f.write_str("nothing"),
            Self::PodUid => f.write_str("the pod's UID"),
            Self::NotEpoch => f.write_str("a time of this pod's life"),
        }
    }
}

/// What is not as expected, one sentence each; empty for a good story.
pub(super) fn compare(sample: &Sample, uid: &str, records: &[&Record]) -> Vec<String> {
    let mut wrong = Vec::new();
    let seen: Vec<&str> = records.iter().map(|record| record.event_type()).collect();
    if seen != sample.events {
        wrong.push(format!("the events are {}, not {}", seen.join(", "), sample.events.join(", ")));
    }
    for field in &sample.fields {
        let Some(record) = records.iter().find(|record| record.event_type() == field.event) else { continue };
        let found = field.path.split('.').try_fold(&record.value, |value, key| match key.parse::<usize>() {
            Ok(index) => value.get(index),
            Err(_) => value.get(key),
        });
        if !meets(&field.want, found, uid) {
            let found = found.map_or_else(|| "nothing".to_owned(), Value::to_string);
            wrong.push(format!("{} of {} is {found}, not {}", field.path, field.event, field.want));
        }
    }
    wrong
}

fn meets(want: &Want, found: Option<&Value>, uid: &str) -> bool {
    let text = found.and_then(Value::as_str);
    match want {
        Want::Is(value) => found == Some(value),
        Want::OneOf(values) => found.is_some_and(|found| values.contains(found)),
        Want::Contains(part) => text.is_some_and(|text| text.contains(part)),
        Want::Absent => found.is_none(),
        Want::PodUid => text == Some(uid),
        Want::NotEpoch => text.is_some_and(|text| !text.starts_with("19") && !text.starts_with("0")),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use serde_json::json;

    use super::*;

    fn record(value: Value) -> Record {
        let headers = BTreeMap::new();
        Record { topic: "t".into(), partition: 0, offset: 0, key: "e".into(), headers, value }
    }

    fn sample(want: Want) -> Sample {
        let field = Field { event: "execution_failed", path: "containers.0.exit_code", want };
        let events = vec!["pod_scheduled", "execution_failed"];
        Sample {
            name: "s",
            does: "d",
            pod: json!({}),
            made: Made::AtOnce,
            act: Act::Leave,
            events,
            fields: vec![field],
        }
    }

    #[test]
    fn a_story_must_be_as_expected_in_events_and_fields() {
        let first = record(json!({ "event_type": "pod_scheduled" }));
        let end = record(json!({ "event_type": "execution_failed", "containers": [{ "exit_code": 3 }] }));
        let good = [&first, &end];
        let cases: [(&str, Want, &[&Record], usize); 8] = [
            ("good", Want::Is(json!(3)), &good, 0),
            ("another value", Want::Is(json!(4)), &good, 1),
            ("one of two", Want::OneOf(vec![json!(4), json!(3)]), &good, 0),
            ("none of them", Want::OneOf(vec![json!(4)]), &good, 1),
            ("not absent", Want::Absent, &good, 1),
            ("no text", Want::Contains("3"), &good, 1),
            ("an event is missing", Want::Is(json!(3)), &good[1..], 1),
            ("the wrong order", Want::Is(json!(3)), &[&end, &first], 1),
        ];
        for (name, want, records, faults) in cases {
            let wrong = compare(&sample(want), "u", records);
            assert_eq!(wrong.len(), faults, "{name}: {wrong:?}");
        }
    }
}
