//! How an event is written: one JSON object with a fixed order of fields, and the CloudEvents headers beside it.
//!
//! Which fields there are stands in [`super::wire`]. Promises: the same event gives the same bytes; a field without a value is absent, never null. Pure: no clock, no
//! client, no logging. Must not know topics' settings or transactions.

use std::borrow::Cow;

use schemars::JsonSchema;

use super::wire::{
    ExecutionCompleted, ExecutionFailed, ExecutionResumed, ExecutionRunning, ExecutionStalled, ExecutionTimeout, Kind,
    PodScheduled, PodTerminated, Wire,
};
use crate::lifecycle::event::{Body, Event, EventType, Outcome};

/// `event_version` of every event.
pub const EVENT_VERSION: &str = "1.0";

/// Bytes that key, headers and framing of one record may need beside its value: five names of at most 253 characters,
/// the fixed headers and the batch frame, rounded up.
pub const OVERHEAD_BYTES_MAX: usize = 4096;

/// What a record holds besides captured output, at most, in bytes: ids, messages, containers.
pub const REST_BYTES_MAX: usize = 64 << 10;

/// Who tells: `metadata` of every event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Service {
    /// `service_name`
    pub name: Box<str>,
    /// `service_version`
    pub version: Box<str>,
    /// `environment`, where one is configured.
    pub environment: Option<Box<str>>,
}

/// One event as Kafka gets it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record<'a> {
    /// Key: the execution id.
    pub key: &'a str,
    /// Value: one JSON object, UTF-8.
    pub value: Vec<u8>,
    /// CloudEvents 1.0 binary mode, and W3C `traceparent` where there is a trace.
    pub headers: Headers<'a>,
}

/// Header names and values, in a fixed order.
pub type Headers<'a> = Vec<(&'static str, Cow<'a, str>)>;

/// Encodes one event. `cluster_id` names the cluster in `ce_source`.
pub fn encode<'a>(
    event: &'a Event,
    service: &Service,
    cluster_id: &str,
    traceparent: Option<&'a str>,
) -> Result<Record<'a>, serde_json::Error> {
    let mut value = Vec::with_capacity(1024);
    write_value(&mut value, event, service)?;
    Ok(Record { key: &event.execution_id, value, headers: headers(event, cluster_id, traceparent) })
}

/// Appends the JSON object of one event, without a line end. Fails only on numbers that JSON cannot say (NaN).
pub fn write_value(into: &mut Vec<u8>, event: &Event, service: &Service) -> Result<(), serde_json::Error> {
    let told = (event, service);
    match &event.body {
        Body::Scheduled => write(into, told, PodScheduled {}),
        Body::Running { container_statuses } => write(into, told, ExecutionRunning::of(container_statuses)),
        Body::Stalled { cause, message, since } => {
            write(into, told, ExecutionStalled::of(*cause, message.as_deref(), *since))
        }
        Body::Resumed { cause, stalled_since } => write(into, told, ExecutionResumed::of(*cause, *stalled_since)),
        Body::Ended(ended) => match ended.verdict.outcome {
            Outcome::Completed => write(into, told, ExecutionCompleted::of(ended)?),
            Outcome::Failed => write(into, told, ExecutionFailed::of(ended)?),
            Outcome::TimedOut => write(into, told, ExecutionTimeout::of(ended)?),
        },
        Body::Terminated { exit_code, reason, message, observed } => {
            let (reason, message) = (reason.as_deref(), message.as_deref());
            write(into, told, PodTerminated { exit_code: *exit_code, reason, message, observed: *observed })
        }
    }
}

/// Straight from the borrowed event: no intermediate tree, no copies of captured output.
fn write<K: Kind>(into: &mut Vec<u8>, (event, service): (&Event, &Service), kind: K) -> Result<(), serde_json::Error> {
    serde_json::to_writer(into, &Wire::of(event, service, kind))
}

/// The headers of one event: CloudEvents 1.0, Kafka protocol binding, binary mode.
#[derive(JsonSchema)]
pub struct Envelope<'a> {
    /// Version of the CloudEvents specification.
    #[schemars(extend("const" = "1.0"))]
    pub ce_specversion: &'static str,
    /// `event_id` of the event.
    #[schemars(with = "uuid::Uuid")]
    pub ce_id: String,
    /// `dev.pod-monitor.<event_type>.v1`
    #[schemars(regex(pattern = r"^dev\.pod-monitor\.[a-z_]+\.v1$"))]
    pub ce_type: &'static str,
    /// `/kubernetes/<cluster id>/<namespace of the pod>`; the cluster id is the UID of the namespace kube-system, or what
    /// `--cluster-id` says.
    #[schemars(regex(pattern = r"^/kubernetes/[^/]+/[^/]+$"))]
    pub ce_source: String,
    /// `execution_id` of the event.
    #[schemars(length(min = 1))]
    pub ce_subject: &'a str,
    /// `timestamp` of the event.
    #[schemars(with = "jiff::Timestamp")]
    pub ce_time: String,
    /// What the value is.
    #[schemars(rename = "content-type", extend("const" = "application/json"))]
    pub content_type: &'static str,
    /// W3C trace context, where the monitor traces.
    #[schemars(regex(pattern = r"^[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}$"))]
    pub traceparent: Option<&'a str>,
}

/// The headers of one event.
pub fn headers<'a>(event: &'a Event, cluster_id: &str, traceparent: Option<&'a str>) -> Headers<'a> {
    let envelope = Envelope {
        ce_specversion: "1.0",
        ce_id: event.event_id.to_string(),
        ce_type: ce_type(event.body.event_type()),
        ce_source: ["/kubernetes/", cluster_id, "/", &event.namespace].concat(),
        ce_subject: &event.execution_id,
        ce_time: event.timestamp.to_string(),
        content_type: "application/json",
        traceparent,
    };
    envelope.into_headers()
}

impl<'a> Envelope<'a> {
    fn into_headers(self) -> Headers<'a> {
        // Taken apart whole: a field that is not put into the list does not compile.
        let Self { ce_specversion, ce_id, ce_type, ce_source, ce_subject, ce_time, content_type, traceparent } = self;
        let mut headers: Headers<'a> = Vec::with_capacity(8);
        headers.push(("ce_specversion", Cow::Borrowed(ce_specversion)));
        headers.push(("ce_id", Cow::Owned(ce_id)));
        headers.push(("ce_type", Cow::Borrowed(ce_type)));
        headers.push(("ce_source", Cow::Owned(ce_source)));
        headers.push(("ce_subject", Cow::Borrowed(ce_subject)));
        headers.push(("ce_time", Cow::Owned(ce_time)));
        headers.push(("content-type", Cow::Borrowed(content_type)));
        if let Some(traceparent) = traceparent {
            headers.push(("traceparent", Cow::Borrowed(traceparent)));
        }
        headers
    }
}

/// The topic of an event type: `{event_type}` in the pattern is replaced.
pub fn topic(pattern: &str, event_type: EventType) -> String {
    pattern.replace("{event_type}", event_type.as_str())
}

fn ce_type(event_type: EventType) -> &'static str {
    match event_type {
        EventType::PodScheduled => "dev.pod-monitor.pod_scheduled.v1",
        EventType::ExecutionRunning => "dev.pod-monitor.execution_running.v1",
        EventType::ExecutionStalled => "dev.pod-monitor.execution_stalled.v1",
        EventType::ExecutionResumed => "dev.pod-monitor.execution_resumed.v1",
        EventType::ExecutionCompleted => "dev.pod-monitor.execution_completed.v1",
        EventType::ExecutionFailed => "dev.pod-monitor.execution_failed.v1",
        EventType::ExecutionTimeout => "dev.pod-monitor.execution_timeout.v1",
        EventType::PodTerminated => "dev.pod-monitor.pod_terminated.v1",
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
#[path = "record_tests.rs"]
mod tests;
