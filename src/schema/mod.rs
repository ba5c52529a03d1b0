//! What the events look like, for programs: JSON Schema (draft 2020-12) and AsyncAPI 3.0.
//!
//! ```text
//!  publish/wire.rs ──JsonSchema──▶ events() ──▶ docs/schema/events.schema.json ──▶ testkit: each record that a test reads
//!                                     │    └──▶ verify/schema.rs: each record that `verify` reads
//!  samples.rs ──record::encode──▶ asyncapi() ──▶ docs/schema/asyncapi.json
//! ```
//! Nothing here lists a field: fields, types and descriptions come from the structs that are serialised. Pure.

mod asyncapi;
mod samples;

use schemars::{JsonSchema, SchemaGenerator, generate::SchemaSettings};
use serde_json::{Map, Value, json};

pub use asyncapi::asyncapi;

use crate::{
    lifecycle::event::EventType,
    publish::{
        record::EVENT_VERSION,
        wire::{
            ExecutionCompleted, ExecutionFailed, ExecutionResumed, ExecutionRunning, ExecutionStalled,
            ExecutionTimeout, Kind, PodScheduled, PodTerminated, Wire,
        },
    },
};

/// The schema of one event type, and what all of them refer to.
#[derive(Debug, Clone, PartialEq)]
pub struct Definitions {
    /// By name; references among them begin with the path that was asked for.
    pub all: Map<String, Value>,
    /// Event types with the names of their definitions, in the order of [`EventType::ALL`].
    pub events: Vec<(EventType, String)>,
}

/// The schemas of all event types. `path`: where the document that they go into keeps its definitions.
pub fn definitions(path: &'static str) -> Definitions {
    let settings = SchemaSettings::draft2020_12().for_serialize().with(|settings| {
        settings.definitions_path = path.into();
    });
    let mut generator = settings.into_generator();
    let events = EventType::ALL.into_iter().map(|event_type| {
        let name = match event_type {
            EventType::PodScheduled => define::<PodScheduled>(&mut generator),
            EventType::ExecutionRunning => define::<ExecutionRunning<'_>>(&mut generator),
            EventType::ExecutionStalled => define::<ExecutionStalled<'_>>(&mut generator),
            EventType::ExecutionResumed => define::<ExecutionResumed<'_>>(&mut generator),
            EventType::ExecutionCompleted => define::<ExecutionCompleted<'_>>(&mut generator),
            EventType::ExecutionFailed => define::<ExecutionFailed<'_>>(&mut generator),
            EventType::ExecutionTimeout => define::<ExecutionTimeout<'_>>(&mut generator),
            EventType::PodTerminated => define::<PodTerminated<'_>>(&mut generator),
        };
        (event_type, name)
    });
    let events = events.collect();
    let mut all = generator.take_definitions(true);
    all.values_mut().for_each(never_null);
    Definitions { all, events }
}

/// Adds the definition of one event type; its name.
fn define<K: Kind>(generator: &mut SchemaGenerator) -> String {
    let name = <Wire<'_, K>>::schema_name().into_owned();
    generator.subschema_for::<Wire<'_, K>>();
    // What the comment on the kind says counts for the whole event; the comment on all events says nothing of it.
    let about = K::json_schema(generator).get("description").cloned();
    if let Some(Value::Object(definition)) = generator.definitions_mut().get_mut(&name) {
        definition.insert("title".into(), K::TYPE.as_str().into());
        definition.insert("description".into(), about.unwrap_or_default());
    }
    name
}

/// A field without a value is absent, never null: an optional field has the type of its value.
fn never_null(schema: &mut Value) {
    match schema {
        Value::Array(several) => several.iter_mut().for_each(never_null),
        Value::Object(object) => {
            object.values_mut().for_each(never_null);
            if let Some(Value::Array(types)) = object.get_mut("type") {
                types.retain(|name| name != "null");
                if let [only] = &types[..] {
                    let only = only.clone();
                    object.insert("type".into(), only);
                }
            }
            if let Some(Value::Array(choices)) = object.get_mut("anyOf") {
                choices.retain(|choice| *choice != json!({ "type": "null" }));
                if let [Value::Object(only)] = &choices[..] {
                    let only = only.clone();
                    object.remove("anyOf");
                    object.extend(only);
                }
            }
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

const ABOUT: &str = "One life-cycle event of one execution pod, as the value of a Kafka record. A field without a value \
is absent, never null. Fields may be added without notice: a consumer ignores what it does not know, event types too.";

/// The JSON Schema of all events.
pub fn events() -> Value {
    let Definitions { all, events } = definitions("/$defs");
    let reference = |(_, name): &(EventType, String)| json!({ "$ref": format!("#/$defs/{name}") });
    let mapping: Map<String, Value> = events
        .iter()
        .map(|(event_type, name)| (event_type.as_str().to_owned(), format!("#/$defs/{name}").into()))
        .collect();
    json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": format!("urn:pod-monitor:events:{EVENT_VERSION}"),
        "title": "Events of pod-monitor",
        "description": ABOUT,
        "type": "object",
        "required": ["event_type"],
        "discriminator": { "propertyName": "event_type", "mapping": mapping },
        "oneOf": events.iter().map(reference).collect::<Vec<_>>(),
        "$defs": all,
    })
}

/// A document as it is printed and kept: indented, with a line end.
pub fn text(document: &Value) -> String {
    format!("{document:#}\n")
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests;
