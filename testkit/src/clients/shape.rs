//! Every record that a test reads is held to the documents that users get: docs/schema/. Strictly: a field that they do
//! not describe fails the test that sees it.

use std::sync::LazyLock;

use anyhow::{Context, Result, bail};
use jsonschema::{Draft, Validator};
use serde_json::{Map, Value, json};

const EVENTS: &str = include_str!("../../../docs/schema/events.schema.json");
const ASYNCAPI: &str = include_str!("../../../docs/schema/asyncapi.json");

static SHAPES: LazyLock<Result<Shapes>> = LazyLock::new(Shapes::read);

struct Shapes {
    /// By event type, so that a misfit names the field and not all the alternatives.
    events: Vec<(String, Validator)>,
    headers: Validator,
}

impl Shapes {
    fn read() -> Result<Self> {
        let mut schema: Value = serde_json::from_str(EVENTS).context("docs/schema/events.schema.json")?;
        strict(&mut schema["$defs"]);
        let types = schema["discriminator"]["mapping"].as_object().context("a mapping of event types")?;
        let events = types.iter().map(|(name, reference)| {
            let one = json!({ "$ref": reference, "$defs": &schema["$defs"] });
            Ok((name.clone(), build(&one)?))
        });
        let mut asyncapi: Value = serde_json::from_str(ASYNCAPI).context("docs/schema/asyncapi.json")?;
        let mut headers = asyncapi["components"]["messageTraits"]["cloudEvent"]["headers"]["schema"].take();
        strict(&mut headers);
        Ok(Self { events: events.collect::<Result<_>>()?, headers: build(&headers)? })
    }
}

fn build(schema: &Value) -> Result<Validator> {
    let options = jsonschema::options().with_draft(Draft::Draft202012).should_validate_formats(true);
    options.build(schema).map_err(|error| anyhow::anyhow!("{}: {error}", error.instance_path()))
}

/// Consumers ignore fields that they do not know; after this each must be described.
pub fn strict(schema: &mut Value) {
    match schema {
        Value::Array(several) => several.iter_mut().for_each(strict),
        Value::Object(object) => {
            object.values_mut().for_each(strict);
            if object.get("properties").is_some_and(Value::is_object) && object.contains_key("type") {
                object.insert("additionalProperties".into(), false.into());
            }
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

/// Holds the value of a record to the schema.
///
/// # Errors
/// Names every field that does not fit, by its path.
pub fn check_event(event: &Value) -> Result<()> {
    let shapes = SHAPES.as_ref().map_err(|error| anyhow::anyhow!("{error:#}"))?;
    let name = event["event_type"].as_str().unwrap_or_default();
    let Some((_, shape)) = shapes.events.iter().find(|(known, _)| known == name) else {
        bail!("event_type {name:?} is not in docs/schema/events.schema.json");
    };
    fits(shape, event, "docs/schema/events.schema.json")
}

/// Holds the headers of a record to the AsyncAPI document.
///
/// # Errors
/// Names every header that does not fit.
pub fn check_headers<'a>(headers: impl IntoIterator<Item = (&'a String, &'a String)>) -> Result<()> {
    let shapes = SHAPES.as_ref().map_err(|error| anyhow::anyhow!("{error:#}"))?;
    let headers: Map<String, Value> =
        headers.into_iter().map(|(name, text)| (name.clone(), text.as_str().into())).collect();
    fits(&shapes.headers, &headers.into(), "docs/schema/asyncapi.json")
}

fn fits(shape: &Validator, value: &Value, document: &str) -> Result<()> {
    let wrong: Vec<String> =
        shape.iter_errors(value).map(|error| format!("{}: {error}", error.instance_path())).collect();
    anyhow::ensure!(wrong.is_empty(), "does not match {document}: {}; it is {value}", wrong.join("; "));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn example(event_type: &str) -> Value {
        let asyncapi: Value = serde_json::from_str(ASYNCAPI).expect("the document is JSON");
        asyncapi["components"]["messages"][event_type]["examples"][0].clone()
    }

    #[test]
    fn what_is_documented_fits_and_anything_else_is_named_by_its_path() {
        let event = example("execution_failed")["payload"].clone();
        check_event(&event).expect("an example of the document itself");
        let cases = [
            ("cause", json!(null), "/cause: "),
            ("cause", json!("Not a name"), "/cause: "),
            ("surprise", json!(1), "surprise"),
            ("logs", json!({ "status": "complete", "surprise": 1 }), "/logs: "),
            ("timestamp", json!("yesterday"), "/timestamp: "),
            ("event_type", json!("execution_exploded"), "execution_exploded"),
        ];
        for (field, value, expected) in cases {
            let mut event = event.clone();
            event[field] = value;
            let error = check_event(&event).expect_err(field).to_string();
            assert!(error.contains(expected), "{field}: {error}");
        }
    }

    #[test]
    fn headers_are_held_to_their_document_too() {
        let headers = example("pod_scheduled")["headers"].clone();
        let headers: std::collections::BTreeMap<String, String> = serde_json::from_value(headers).expect("texts");
        check_headers(&headers).expect("an example of the document itself");
        for (name, value) in [("ce_id", "7"), ("ce_type", "other"), ("content-type", "text/plain"), ("x-other", "1")] {
            let mut headers = headers.clone();
            headers.insert(name.into(), value.into());
            let error = check_headers(&headers).expect_err(name).to_string();
            assert!(error.contains(name), "{name}: {error}");
        }
    }
}
