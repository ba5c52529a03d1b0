//! The AsyncAPI document: topics, keys, headers and one message for each event type. Pure.

use schemars::{JsonSchema as _, SchemaGenerator, generate::SchemaSettings};
use serde_json::{Map, Value, json};

use super::{Definitions, definitions, never_null, samples};
use crate::{
    lifecycle::event::EventType,
    publish::record::{self, EVENT_VERSION, Envelope, Record},
};

/// The topic where nothing else is configured.
pub(super) const TOPIC: &str = "pod-monitor.events";

const ABOUT: &str = "Life-cycle events of execution pods in Kafka, each exactly once for consumers with \
`isolation.level=read_committed`, in order per pod. The key is the execution id: all events of an execution stand in one \
partition. Headers are CloudEvents 1.0, Kafka protocol binding, binary mode. The topic is that of `--events-topic`; with \
`{event_type}` in its name there is one topic for each event type, and `sequence` gives the order between them.";

/// The AsyncAPI 3.0 document; complete in itself.
pub fn asyncapi() -> Value {
    let Definitions { all, events } = definitions("/components/schemas");
    let names: Vec<&str> = events.iter().map(|(event_type, _)| event_type.as_str()).collect();
    let of_all = |at: &str| -> Value {
        let by_name = |name: &&str| ((*name).to_owned(), json!({ "$ref": format!("{at}{name}") }));
        names.iter().map(by_name).collect::<Map<_, _>>().into()
    };
    let messages: Map<String, Value> = events
        .iter()
        .map(|(event_type, schema)| (event_type.as_str().to_owned(), message(*event_type, schema)))
        .collect();
    let list = |channel: &str| -> Value {
        names.iter().map(|name| json!({ "$ref": format!("#/channels/{channel}/messages/{name}") })).collect()
    };
    json!({
        "asyncapi": "3.0.0",
        "id": format!("urn:pod-monitor:events:{EVENT_VERSION}"),
        "info": {
            "title": "pod-monitor",
            "version": EVENT_VERSION,
            "description": ABOUT,
            "license": { "name": "Apache-2.0", "url": "https://www.apache.org/licenses/LICENSE-2.0" },
        },
        "defaultContentType": "application/json",
        "channels": {
            "events": {
                "address": TOPIC,
                "description": "All event types in one topic: the default.",
                "messages": of_all("#/components/messages/"),
                "bindings": { "kafka": { "topic": TOPIC, "bindingVersion": "0.5.0" } },
            },
            "eventsByType": {
                "address": format!("{TOPIC}.{{event_type}}"),
                "description": "One topic for each event type, where `--events-topic` says so.",
                "parameters": { "event_type": { "description": "`event_type` of the events in it.", "enum": names } },
                "messages": of_all("#/components/messages/"),
            },
        },
        "operations": {
            "tell": { "action": "send", "channel": { "$ref": "#/channels/events" }, "messages": list("events") },
            "tellByType": {
                "action": "send",
                "channel": { "$ref": "#/channels/eventsByType" },
                "messages": list("eventsByType"),
            },
        },
        "components": { "messages": messages, "schemas": all, "messageTraits": { "cloudEvent": cloud_event() } },
    })
}

/// Key and headers, alike for all.
fn cloud_event() -> Value {
    json!({
        "headers": { "schemaFormat": SCHEMA_FORMAT, "schema": headers() },
        "correlationId": { "description": "The execution.", "location": "$message.header#/ce_subject" },
        "bindings": { "kafka": {
            "key": { "type": "string", "minLength": 1, "description": "`execution_id` of the event, UTF-8." },
            "bindingVersion": "0.5.0",
        } },
    })
}

const SCHEMA_FORMAT: &str = "application/schema+json;version=draft-2020-12";

/// The schema of the headers.
pub(super) fn headers() -> Value {
    let settings = SchemaSettings::draft2020_12().for_serialize().with(|settings| settings.inline_subschemas = true);
    let mut generator: SchemaGenerator = settings.into_generator();
    let mut schema = Envelope::json_schema(&mut generator).to_value();
    never_null(&mut schema);
    schema
}

fn message(event_type: EventType, schema: &str) -> Value {
    let event = samples::event(event_type);
    let examples: Vec<Value> =
        record::encode(&event, &samples::service(), samples::CLUSTER, Some(samples::TRACEPARENT))
            .iter()
            .map(|record| example(event_type, record))
            .collect();
    json!({
        "name": event_type.as_str(),
        "title": event_type.as_str(),
        "contentType": "application/json",
        "traits": [{ "$ref": "#/components/messageTraits/cloudEvent" }],
        "payload": {
            "schemaFormat": SCHEMA_FORMAT,
            "schema": { "$ref": format!("#/components/schemas/{schema}") },
        },
        "examples": examples,
    })
}

/// What really goes out for an event.
fn example(event_type: EventType, record: &Record<'_>) -> Value {
    let headers: Map<String, Value> =
        record.headers.iter().map(|(name, value)| ((*name).to_owned(), (**value).into())).collect();
    json!({
        "name": event_type.as_str(),
        "headers": headers,
        "payload": serde_json::from_slice::<Value>(&record.value).expect("an event is JSON"),
    })
}
