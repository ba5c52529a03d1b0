//! What one record of an events topic must look like (contract.md, "Events"). Pure: any bytes give a value, none panics.

use serde_json::{Map, Value};
use uuid::Uuid;

use crate::lifecycle::event::EventType;

/// What the judge needs to know of one record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Told {
    /// `pod_uid`
    pub pod: Box<str>,
    /// `execution_id`
    pub execution: Box<str>,
    /// `event_id`
    pub event_id: Uuid,
    /// `event_type`
    pub event_type: EventType,
    /// `sequence`
    pub sequence: u32,
}

/// The forms that a field can have.
#[derive(Debug, Clone, Copy)]
enum Form {
    Text,
    Time,
    Flag,
    Whole,
    List,
    Object,
    /// One of these words.
    OneOf(&'static [&'static str]),
}

type Field = (&'static str, Form);

const ALWAYS: &[Field] = &[
    ("event_id", Form::Text),
    ("event_type", Form::Text),
    ("event_version", Form::OneOf(&["1.0"])),
    ("timestamp", Form::Time),
    ("aggregate_id", Form::Text),
    ("execution_id", Form::Text),
    ("metadata", Form::Object),
    ("pod_name", Form::Text),
    ("namespace", Form::Text),
    ("pod_uid", Form::Text),
    ("observed_at", Form::Time),
    ("sequence", Form::Whole),
];
const FAILURE: &[Field] = &[
    ("logs", Form::Object),
    ("error_type", Form::OneOf(&["script_error", "resource_limit", "timeout", "system_error"])),
    ("cause", Form::Text),
    ("retryable", Form::Flag),
    ("attempt_started", Form::Flag),
];
/// Where they are there, they have these forms.
const OPTIONAL: &[Field] = &[
    ("node_name", Form::Text),
    ("exit_code", Form::Whole),
    ("stdout", Form::Text),
    ("stderr", Form::Text),
    ("resource_usage", Form::Object),
    ("started_at", Form::Time),
    ("finished_at", Form::Time),
    ("containers", Form::List),
    ("message", Form::Text),
    ("hint", Form::Text),
    ("reason", Form::Text),
    ("timeout_seconds", Form::Whole),
    ("claims_conflict", Form::Flag),
];

/// Fields that this kind of event has besides.
fn besides(event_type: EventType) -> &'static [Field] {
    match event_type {
        EventType::PodScheduled => &[("node_name", Form::Text)],
        EventType::ExecutionRunning => &[("container_statuses", Form::List)],
        EventType::ExecutionStalled => &[("cause", Form::Text), ("since", Form::Time)],
        EventType::ExecutionResumed => &[("cause", Form::Text), ("stalled_since", Form::Time)],
        EventType::ExecutionCompleted => &[("logs", Form::Object), ("exit_code", Form::Whole)],
        EventType::ExecutionFailed | EventType::ExecutionTimeout => FAILURE,
        EventType::PodTerminated => &[("observed", Form::Flag)],
    }
}

/// Reads one record. Everything that does not match is pushed to `wrong`; `None` where it cannot be told whose it is.
///
/// `headers`: the header `ce_id`, where there is one.
pub fn read(key: Option<&[u8]>, value: Option<&[u8]>, ce_id: Option<&[u8]>, wrong: &mut Vec<String>) -> Option<Told> {
    let Some(value) = value else {
        wrong.push("has no value".into());
        return None;
    };
    let object: Map<String, Value> = match serde_json::from_slice(value) {
        Ok(Value::Object(object)) => object,
        Ok(_) => {
            wrong.push("is not a JSON object".into());
            return None;
        }
        Err(error) => {
            // The parser's message quotes nothing of the value but single characters.
            wrong.push(format!("is not JSON: {error}"));
            return None;
        }
    };
    let text = |key: &str| object.get(key).and_then(Value::as_str).unwrap_or_default();
    let event_type = EventType::ALL.into_iter().find(|known| known.as_str() == text("event_type"));
    shape(&object, event_type, wrong);
    if event_type.is_none() {
        wrong.push("event_type is not one that this release knows".into());
    }
    if text("aggregate_id") != text("execution_id") {
        wrong.push("aggregate_id is not the execution_id".into());
    }
    if key != Some(text("execution_id").as_bytes()) {
        wrong.push("the key is not the execution_id".into());
    }
    if ce_id != Some(text("event_id").as_bytes()) {
        wrong.push("the header ce_id is not the event_id".into());
    }
    let event_id = Uuid::try_parse(text("event_id")).ok();
    if event_id.is_none() {
        wrong.push("event_id is not a UUID".into());
    }
    let sequence = object.get("sequence").and_then(Value::as_u64).and_then(|n| u32::try_from(n).ok());
    let sequence = sequence.filter(|n| *n > 0);
    if sequence.is_none() {
        wrong.push("sequence is not a number from 1 on".into());
    }
    if text("pod_uid").is_empty() {
        return None;
    }
    Some(Told {
        pod: text("pod_uid").into(),
        execution: text("execution_id").into(),
        event_id: event_id?,
        event_type: event_type?,
        sequence: sequence?,
    })
}

fn shape(object: &Map<String, Value>, event_type: Option<EventType>, wrong: &mut Vec<String>) {
    let required = ALWAYS.iter().chain(event_type.map(besides).unwrap_or_default());
    for (name, form) in required {
        match object.get(*name) {
            None => wrong.push(format!("{name} is missing")),
            Some(value) => wrong.extend(misshapen(name, *form, value)),
        }
    }
    for (name, form) in OPTIONAL {
        wrong.extend(object.get(*name).and_then(|value| misshapen(name, *form, value)));
    }
    // Also those that this release does not know: absent, never null.
    let nulls = object.iter().filter(|(_, value)| value.is_null());
    wrong.extend(nulls.map(|(name, _)| format!("{} is null", name.escape_debug())));
}

fn misshapen(name: &str, form: Form, value: &Value) -> Option<String> {
    let (fits, form) = match form {
        // Output may be empty; names and ids may not.
        Form::Text => (value.as_str().is_some_and(|t| !t.is_empty() || matches!(name, "stdout" | "stderr")), "text"),
        Form::Time => (value.as_str().is_some_and(|t| t.parse::<jiff::Timestamp>().is_ok()), "an RFC 3339 time"),
        Form::Flag => (value.is_boolean(), "true or false"),
        Form::Whole => (value.is_i64() || value.is_u64(), "a whole number"),
        Form::List => (value.is_array(), "a list"),
        Form::Object => (value.is_object(), "an object"),
        Form::OneOf(words) => (value.as_str().is_some_and(|t| words.contains(&t)), "one of the known words"),
    };
    (!fits && !value.is_null()).then(|| format!("{name} is not {form}"))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use serde_json::json;

    use super::*;

    const ID: &str = "6ba7b810-9dad-11d1-80b4-00c04fd430c8";

    fn good() -> Value {
        json!({ "event_id": ID, "event_type": "execution_failed", "event_version": "1.0",
            "timestamp": "2026-03-01T00:00:00Z", "aggregate_id": "7", "execution_id": "7",
            "metadata": { "service_name": "pod-monitor", "service_version": "0" }, "pod_name": "exec-7",
            "namespace": "ns", "pod_uid": "u", "observed_at": "2026-03-01T00:00:01Z", "sequence": 3, "stdout": "",
            "logs": { "status": "complete" }, "error_type": "script_error", "cause": "exit_code", "exit_code": 3,
            "retryable": false, "attempt_started": true, "a_later_field": 1 })
    }

    fn wrong(value: &Value) -> Vec<String> {
        let mut wrong = Vec::new();
        read(Some(b"7"), Some(value.to_string().as_bytes()), Some(ID.as_bytes()), &mut wrong);
        wrong
    }

    #[test]
    fn what_the_monitor_writes_fits() {
        let mut found = Vec::new();
        let told = read(Some(b"7"), Some(good().to_string().as_bytes()), Some(ID.as_bytes()), &mut found).unwrap();
        assert_eq!((found, &*told.pod, told.sequence), (vec![], "u", 3));
        assert_eq!(told.event_type, EventType::ExecutionFailed);
    }

    #[test]
    fn each_misfit_is_named() {
        let cases = [
            ("retryable", json!("no"), "retryable is not true or false"),
            ("timestamp", json!("yesterday"), "timestamp is not an RFC 3339 time"),
            ("error_type", json!("bad_luck"), "error_type is not one of the known words"),
            ("node_name", json!(null), "node_name is null"),
            ("cause", json!(null), "cause is null"),
            ("exit_code", json!("3"), "exit_code is not a whole number"),
            ("event_type", json!("pod_exploded"), "event_type is not one that this release knows"),
            ("event_id", json!("7"), "event_id is not a UUID"),
            ("sequence", json!(0), "sequence is not a number from 1 on"),
            ("aggregate_id", json!("8"), "aggregate_id is not the execution_id"),
            ("execution_id", json!("8"), "the key is not the execution_id"),
        ];
        for (field, value, expected) in cases {
            let mut event = good();
            event[field] = value;
            let found = wrong(&event);
            assert!(found.iter().any(|found| found == expected), "{field}: {found:?}");
        }
        for field in ["metadata", "logs", "cause", "pod_uid", "observed_at"] {
            let mut event = good();
            event.as_object_mut().unwrap().remove(field);
            assert!(wrong(&event).contains(&format!("{field} is missing")), "{field}");
        }
    }

    #[test]
    fn what_is_no_event_at_all_is_told_too() {
        for (value, expected) in
            [(None, "has no value"), (Some(&b"[]"[..]), "is not a JSON object"), (Some(b"{"), "is not JSON: ")]
        {
            let mut wrong = Vec::new();
            assert_eq!(read(None, value, None, &mut wrong), None);
            assert!(wrong[0].starts_with(expected), "{wrong:?}");
        }
    }

    proptest::proptest! {
        #[test]
        fn no_bytes_panic_it(key: Option<Vec<u8>>, value: Vec<u8>, id: Option<Vec<u8>>) {
            read(key.as_deref(), Some(&value), id.as_deref(), &mut Vec::new());
        }
    }
}
