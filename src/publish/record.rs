//! How an event is written: one JSON object with a fixed order of fields, and the CloudEvents headers beside it.
//!
//! Promises: the same event gives the same bytes; a field without a value is absent, never null. Pure: no clock, no
//! client, no logging. Must not know topics' settings or transactions.

use std::borrow::Cow;

use serde::{
    Serialize, Serializer,
    ser::{Error as _, SerializeMap},
};

use crate::lifecycle::event::{Body, Ended, Event, EventType};

/// `event_version` of every event.
pub const EVENT_VERSION: &str = "1.0";

/// Bytes that key, headers and framing of one record may need beside its value: five names of at most 253 characters,
/// the fixed headers and the batch frame, rounded up.
pub const OVERHEAD_BYTES_MAX: usize = 4096;

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
    serde_json::to_writer(into, &Wire { event, service })
}

/// The headers of one event.
pub fn headers<'a>(event: &'a Event, cluster_id: &str, traceparent: Option<&'a str>) -> Headers<'a> {
    let mut headers: Headers<'a> = Vec::with_capacity(8);
    headers.push(("ce_specversion", Cow::Borrowed("1.0")));
    headers.push(("ce_id", Cow::Owned(event.event_id.to_string())));
    headers.push(("ce_type", Cow::Borrowed(ce_type(event.body.event_type()))));
    headers.push(("ce_source", Cow::Owned(["/kubernetes/", cluster_id, "/", &event.namespace].concat())));
    headers.push(("ce_subject", Cow::Borrowed(&*event.execution_id)));
    headers.push(("ce_time", Cow::Owned(event.timestamp.to_string())));
    headers.push(("content-type", Cow::Borrowed("application/json")));
    if let Some(traceparent) = traceparent {
        headers.push(("traceparent", Cow::Borrowed(traceparent)));
    }
    headers
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

/// Serialises straight from the borrowed event: no intermediate tree, no copies of captured output.
struct Wire<'a> {
    event: &'a Event,
    service: &'a Service,
}

impl Serialize for Wire<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let event = self.event;
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("event_id", &event.event_id)?;
        map.serialize_entry("event_type", event.body.event_type().as_str())?;
        map.serialize_entry("event_version", EVENT_VERSION)?;
        map.serialize_entry("timestamp", &event.timestamp)?;
        map.serialize_entry("aggregate_id", &event.execution_id)?;
        map.serialize_entry("execution_id", &event.execution_id)?;
        map.serialize_entry(
            "metadata",
            &Metadata {
                service_name: &self.service.name,
                service_version: &self.service.version,
                user_id: event.user_id.as_deref(),
                environment: self.service.environment.as_deref(),
            },
        )?;
        map.serialize_entry("pod_name", &event.pod_name)?;
        map.serialize_entry("namespace", &event.namespace)?;
        map.serialize_entry("pod_uid", &event.pod_uid)?;
        put(&mut map, "node_name", &event.node_name)?;
        map.serialize_entry("observed_at", &event.observed_at)?;
        map.serialize_entry("sequence", &event.sequence)?;
        put(&mut map, "owner", &event.owner)?;
        put(&mut map, "earlier_end", &event.earlier_end)?;
        match &event.body {
            Body::Scheduled => {}
            Body::Running { container_statuses } => map.serialize_entry("container_statuses", container_statuses)?,
            Body::Stalled { cause, message, since } => {
                map.serialize_entry("cause", cause.as_str())?;
                put(&mut map, "message", message)?;
                map.serialize_entry("since", since)?;
            }
            Body::Resumed { cause, stalled_since } => {
                map.serialize_entry("cause", cause.as_str())?;
                map.serialize_entry("stalled_since", stalled_since)?;
            }
            Body::Ended(ended) => put_end(&mut map, ended)?,
            Body::Terminated { exit_code, reason, message, observed } => {
                put(&mut map, "exit_code", exit_code)?;
                put(&mut map, "reason", reason)?;
                put(&mut map, "message", message)?;
                map.serialize_entry("observed", observed)?;
            }
        }
        map.end()
    }
}

#[derive(Serialize)]
struct Metadata<'a> {
    service_name: &'a str,
    service_version: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    user_id: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    environment: Option<&'a str>,
}

fn put<M: SerializeMap, T: Serialize>(map: &mut M, key: &'static str, value: &Option<T>) -> Result<(), M::Error> {
    match value {
        Some(value) => map.serialize_entry(key, value),
        None => Ok(()),
    }
}

fn put_end<M: SerializeMap>(map: &mut M, ended: &Ended) -> Result<(), M::Error> {
    let Ended { verdict, captured } = ended;
    put(map, "exit_code", &verdict.exit_code)?;
    put(map, "stdout", &captured.stdout)?;
    put(map, "stderr", &captured.stderr)?;
    if let Some(usage) = &captured.resource_usage {
        // serde_json writes NaN and infinities as null, and a field of ours is never null.
        if usage.execution_time_wall_seconds.is_some_and(|seconds| !seconds.is_finite()) {
            return Err(M::Error::custom("execution_time_wall_seconds is not a finite number"));
        }
        map.serialize_entry("resource_usage", usage)?;
    }
    map.serialize_entry("logs", &captured.logs)?;
    put(map, "started_at", &verdict.started_at)?;
    put(map, "finished_at", &verdict.finished_at)?;
    put(map, "containers", &some_of(&verdict.containers))?;
    put(map, "kubernetes_events", &some_of(&captured.kubernetes_events))?;
    if captured.claimed_exit_code.is_some_and(|claimed| Some(claimed) != verdict.exit_code.map(i64::from)) {
        map.serialize_entry("claims_conflict", &true)?;
    }
    if let Some(failure) = &verdict.failure {
        map.serialize_entry("error_type", &failure.error_type)?;
        map.serialize_entry("cause", failure.cause_name())?;
        put(map, "message", &failure.message)?;
        put(map, "hint", &failure.hint)?;
        map.serialize_entry("retryable", &failure.retryable)?;
        map.serialize_entry("attempt_started", &failure.attempt_started)?;
        put(map, "timeout_seconds", &failure.timeout_seconds)?;
        if let Some(ruled) = &failure.ruled {
            map.serialize_entry("rule", &ruled.rule)?;
            put(map, "category", &ruled.category)?;
        }
    }
    Ok(())
}

fn some_of<T>(list: &[T]) -> Option<&[T]> {
    (!list.is_empty()).then_some(list)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
#[path = "record_tests.rs"]
mod tests;
