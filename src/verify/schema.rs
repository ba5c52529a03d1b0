//! What one record of an events topic must look like: as the generated schema says, and what no schema can say (the key
//! is the execution id, `ce_id` the event id, nothing is null). Pure: any bytes give a value, none panics.

use jsonschema::{Draft, ValidationError, Validator, error::ValidationErrorKind};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::{
    lifecycle::event::EventType,
    schema::{Definitions, definitions},
};

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

/// The schema that `pod-monitor schema` prints, ready to be held against records.
pub struct Shapes(Vec<(EventType, Validator)>);

impl Default for Shapes {
    fn default() -> Self {
        let Definitions { all, events } = definitions("/$defs");
        // Each type by itself: told that none of eight alternatives fits, nobody knows what to mend.
        let of_type = |(event_type, name): (EventType, String)| {
            let schema = json!({ "$ref": format!("#/$defs/{name}"), "$defs": &all });
            let options = jsonschema::options().with_draft(Draft::Draft202012).should_validate_formats(true);
            (event_type, options.build(&schema).expect("our own schema, which a test of its own builds as well"))
        };
        Self(events.into_iter().map(of_type).collect())
    }
}

/// Reads one record. Everything that does not match is pushed to `wrong`; `None` where it cannot be told whose it is.
///
/// `ce_id`: that header, where there is one.
pub fn read(
    shapes: &Shapes,
    key: Option<&[u8]>,
    value: Option<&[u8]>,
    ce_id: Option<&[u8]>,
    wrong: &mut Vec<String>,
) -> Option<Told> {
    let Some(value) = value else {
        wrong.push("has no value".into());
        return None;
    };
    let event: Value = match serde_json::from_slice(value) {
        Ok(event @ Value::Object(_)) => event,
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
    let text = |key: &str| event[key].as_str().unwrap_or_default();
    match shapes.0.iter().find(|(known, _)| known.as_str() == text("event_type")) {
        // What captured output says is nobody's business here: no value is quoted.
        Some((_, shape)) => wrong.extend(shape.iter_errors(&event).map(|error| at(&error))),
        None => wrong.push("event_type is not one that this release knows".into()),
    }
    // Also those that this release does not know: absent, never null.
    nulls("", &event, wrong);
    if text("aggregate_id") != text("execution_id") {
        wrong.push("aggregate_id is not the execution_id".into());
    }
    if key != Some(text("execution_id").as_bytes()) {
        wrong.push("the key is not the execution_id".into());
    }
    if ce_id != Some(text("event_id").as_bytes()) {
        wrong.push("the header ce_id is not the event_id".into());
    }
    if text("pod_uid").is_empty() {
        return None;
    }
    Some(Told {
        pod: text("pod_uid").into(),
        execution: text("execution_id").into(),
        event_id: Uuid::try_parse(text("event_id")).ok()?,
        event_type: EventType::ALL.into_iter().find(|known| known.as_str() == text("event_type"))?,
        sequence: event["sequence"].as_u64().and_then(|n| u32::try_from(n).ok()).filter(|n| *n > 0)?,
    })
}

fn at(error: &ValidationError<'_>) -> String {
    let path = error.instance_path().as_str();
    if let ValidationErrorKind::Required { property } = error.kind() {
        return format!("{path}/{} is missing", property.as_str().unwrap_or_default());
    }
    // Double quotes are escaped on their way to a terminal, where they only get in the way of reading.
    format!("{path}: {}", error.masked()).replace('"', "'")
}

fn nulls(path: &str, value: &Value, wrong: &mut Vec<String>) {
    match value {
        Value::Null => wrong.push(format!("{path} is null")),
        Value::Array(list) => list.iter().enumerate().for_each(|(n, item)| nulls(&format!("{path}/{n}"), item, wrong)),
        Value::Object(fields) => {
            fields.iter().for_each(|(name, value)| nulls(&format!("{path}/{}", name.escape_debug()), value, wrong));
        }
        Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use std::sync::LazyLock;

    use serde_json::json;

    use super::*;

    static SHAPES: LazyLock<Shapes> = LazyLock::new(Shapes::default);

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
        read(&SHAPES, Some(b"7"), Some(value.to_string().as_bytes()), Some(ID.as_bytes()), &mut wrong);
        wrong
    }

    #[test]
    fn what_the_monitor_writes_fits() {
        let mut found = Vec::new();
        let told =
            read(&SHAPES, Some(b"7"), Some(good().to_string().as_bytes()), Some(ID.as_bytes()), &mut found).unwrap();
        assert_eq!((found, &*told.pod, told.sequence), (vec![], "u", 3));
        assert_eq!(told.event_type, EventType::ExecutionFailed);
    }

    #[test]
    fn each_misfit_is_named() {
        let cases = [
            ("retryable", json!("no"), "/retryable: value is not of type 'boolean'"),
            ("timestamp", json!("yesterday"), "/timestamp: value is not a 'date-time'"),
            ("error_type", json!("bad_luck"), "/error_type: "),
            ("node_name", json!(null), "/node_name: value is not of type 'string'"),
            ("a_later_field", json!({ "list": [1, null] }), "/a_later_field/list/1 is null"),
            ("cause", json!("No Good"), "/cause: "),
            ("exit_code", json!("3"), "/exit_code: value is not of type 'integer'"),
            ("event_type", json!("pod_exploded"), "event_type is not one that this release knows"),
            ("event_id", json!("7"), "/event_id: value is not a 'uuid'"),
            ("sequence", json!(0), "/sequence: value is less than the minimum of 1"),
            ("execution_id", json!(""), "/execution_id: value is shorter than 1 character"),
            ("logs", json!({ "status": "gone" }), "/logs/status: "),
            ("containers", json!([{ "name": "main" }]), "/containers/0/restart_count is missing"),
            ("aggregate_id", json!("8"), "aggregate_id is not the execution_id"),
            ("execution_id", json!("8"), "the key is not the execution_id"),
        ];
        for (field, value, expected) in cases {
            let mut event = good();
            event[field] = value;
            let found = wrong(&event);
            assert!(found.iter().any(|found| found.starts_with(expected)), "{field}: {found:?}");
        }
        for field in ["metadata", "logs", "cause", "pod_uid", "observed_at"] {
            let mut event = good();
            event.as_object_mut().unwrap().remove(field);
            assert!(wrong(&event).contains(&format!("/{field} is missing")), "{field}");
        }
    }

    #[test]
    fn no_output_is_quoted() {
        let mut event = good();
        event["stdout"] = json!(["hunter2"]);
        event["logs"]["reason"] = json!({ "hunter2": 1 });
        let found = wrong(&event);
        assert!(found.len() == 2 && !found.concat().contains("hunter2"), "{found:?}");
    }

    #[test]
    fn what_is_no_event_at_all_is_told_too() {
        for (value, expected) in
            [(None, "has no value"), (Some(&b"[]"[..]), "is not a JSON object"), (Some(b"{"), "is not JSON: ")]
        {
            let mut wrong = Vec::new();
            assert_eq!(read(&SHAPES, None, value, None, &mut wrong), None);
            assert!(wrong[0].starts_with(expected), "{wrong:?}");
        }
    }

    proptest::proptest! {
        #[test]
        fn no_bytes_panic_it(key: Option<Vec<u8>>, value: Vec<u8>, id: Option<Vec<u8>>) {
            read(&SHAPES, key.as_deref(), Some(&value), id.as_deref(), &mut Vec::new());
        }
    }
}
