use jsonschema::{Draft, Validator};
use testkit::clients::shape::strict;

use super::*;
use crate::publish::record;

/// With formats, which the draft leaves to whoever validates.
fn built(schema: &Value) -> Validator {
    let options = jsonschema::options().with_draft(Draft::Draft202012).should_validate_formats(true);
    options.build(schema).unwrap()
}

fn encoded(event_type: EventType) -> Value {
    let mut value = Vec::new();
    record::write_value(&mut value, &samples::event(event_type), &samples::service()).unwrap();
    serde_json::from_slice(&value).unwrap()
}

#[test]
fn every_sample_fits_its_own_type_and_no_other() {
    let mut schema = events();
    schema["$defs"].as_object_mut().unwrap().values_mut().for_each(strict);
    let all = built(&schema);
    for told in EventType::ALL {
        let event = encoded(told);
        let errors: Vec<String> = all.iter_errors(&event).map(|error| error.to_string()).collect();
        assert_eq!(errors, [""; 0], "{told}");
        for (other, name) in definitions("/$defs").events {
            let one = built(&json!({ "$ref": format!("#/$defs/{name}"), "$defs": &schema["$defs"] }));
            assert_eq!(one.is_valid(&event), told == other, "{told} as {other}");
        }
    }
}

#[test]
fn the_example_of_the_readme_is_a_whole_event() {
    let readme = include_str!("../../README.md");
    let example = readme.split("```json\n").nth(1).and_then(|rest| rest.split("```").next()).unwrap();
    let example: Value = serde_json::from_str(example).unwrap();
    let mut schema = events();
    schema["$defs"].as_object_mut().unwrap().values_mut().for_each(strict);
    let errors: Vec<String> = built(&schema).iter_errors(&example).map(|error| error.to_string()).collect();
    assert_eq!(errors, [""; 0]);
    let sample = encoded(EventType::ExecutionFailed);
    assert_eq!(example["event_type"], sample["event_type"]);
    for field in sample.as_object().unwrap().keys() {
        assert!(example.get(field).is_some(), "{field} is not in the example of the README");
    }
}

#[test]
fn later_fields_fit_and_wrong_ones_do_not() {
    let schema = built(&events());
    let mut event = encoded(EventType::ExecutionFailed);
    event["a_later_field"] = json!([1]);
    event["logs"]["a_later_field"] = json!(true);
    event["cause"] = "gpu_missing".into();
    assert!(schema.is_valid(&event));
    let cases = [
        ("cause", json!("No Good")),
        ("cause", json!("")),
        ("node_name", json!(null)),
        ("message", json!("x".repeat(1025))),
        ("event_version", json!("2.0")),
        ("event_type", json!("execution_exploded")),
        ("timestamp", json!("2026-01-02 03:04:05")),
        ("kubernetes_events", json!([{ "type": "Normal" }])),
    ];
    for (field, value) in cases {
        let mut event = event.clone();
        event[field] = value;
        assert!(!schema.is_valid(&event), "{field} may be {}", event[field]);
    }
}

/// Each property with where it is; objects within objects too.
fn properties<'a>(at: &str, schema: &'a Value, found: &mut Vec<(String, &'a Value)>) {
    match schema {
        Value::Array(several) => several.iter().for_each(|one| properties(at, one, found)),
        Value::Object(object) => {
            for (key, value) in object {
                if key == "properties" {
                    for (name, property) in value.as_object().unwrap() {
                        found.push((format!("{at}.{name}"), property));
                    }
                }
                properties(&format!("{at}.{key}"), value, found);
            }
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

#[test]
fn every_field_is_described_and_none_may_be_null() {
    let (schema, headers) = (events(), asyncapi::headers());
    let mut found = Vec::new();
    properties("", &schema, &mut found);
    properties("headers", &headers, &mut found);
    assert!(found.len() > 100, "{}", found.len());
    for (name, property) in found {
        let about = property["description"].as_str().unwrap_or_default();
        assert!(about.len() > 5, "{name} is not described: {property}");
        assert!(!about.contains("[`"), "{name} refers to code: {about}");
    }
    let text = schema.to_string();
    assert!(!text.contains(r#""null""#) && !text.contains(":null"), "{text}");
}

#[test]
fn asyncapi_is_whole_and_its_examples_are_what_goes_out() {
    let document = asyncapi();
    let mut references = Vec::new();
    fn refer(value: &Value, into: &mut Vec<String>) {
        match value {
            Value::Array(list) => list.iter().for_each(|item| refer(item, into)),
            Value::Object(object) => {
                into.extend(object.get("$ref").and_then(Value::as_str).map(str::to_owned));
                object.values().for_each(|value| refer(value, into));
            }
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
        }
    }
    refer(&document, &mut references);
    assert!(references.len() > 50);
    for reference in references {
        let pointer = reference.strip_prefix('#').unwrap();
        assert!(document.pointer(pointer).is_some(), "{reference} leads nowhere");
    }
    let run = <crate::config::RunArgs as clap::Args>::augment_args(clap::Command::new("run"));
    let flag = run.get_arguments().find(|flag| flag.get_long() == Some("events-topic")).unwrap();
    assert_eq!(flag.get_default_values(), [asyncapi::TOPIC]);
    let headers = &document["components"]["messageTraits"]["cloudEvent"]["headers"]["schema"];
    let mut headers = headers.clone();
    strict(&mut headers);
    let headers = built(&headers);
    let messages = document["components"]["messages"].as_object().unwrap();
    assert_eq!(messages.len(), EventType::ALL.len());
    for event_type in EventType::ALL {
        let message = &messages[event_type.as_str()];
        let example = &message["examples"][0];
        assert_eq!(example["payload"], encoded(event_type), "{event_type}");
        let errors: Vec<String> = headers.iter_errors(&example["headers"]).map(|error| error.to_string()).collect();
        assert_eq!(errors, [""; 0], "{event_type}");
        assert_eq!(example["headers"].as_object().unwrap().len(), 8, "all headers: {example}");
    }
}
