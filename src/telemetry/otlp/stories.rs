//! What was told of executions, as spans: made when a transaction is committed, by whoever committed it. Their ids are
//! those of [`lifecycle::trace`](crate::lifecycle::trace), so that two leaders write one trace.
//!
//! Sources: OpenTelemetry's semantic conventions for messaging (Kafka) and for Kubernetes resources.

use std::{borrow::Cow, time::SystemTime};

use jiff::Timestamp;
use opentelemetry::{
    InstrumentationScope, KeyValue, SpanId, TraceFlags, TraceId,
    trace::{Link, SpanContext, SpanKind, Status, TraceState},
};
use opentelemetry_sdk::trace::{SpanData, SpanEvents, SpanLinks, SpanProcessor as _};

use super::{SERVICE_NAME, traces::Shared};
use crate::lifecycle::{
    event::{Body, Ended, Event, EventType},
    trace::{ExecutionTrace, Sampling, TraceParent},
};

/// The way of stories to where spans go; clones share it.
#[derive(Debug, Clone, Default)]
pub struct Stories {
    sampling: Sampling,
    to: Option<Shared>,
}

/// What a transaction made visible.
#[derive(Debug)]
pub struct Told<'a> {
    /// In the order in which they were sent.
    pub events: &'a [Event],
    /// Which topic holds each type, in the order of [`EventType::ALL`].
    pub topics: &'a [String],
    /// When it was begun.
    pub began: Timestamp,
    /// When its commit was acknowledged.
    pub committed: Timestamp,
    /// The span of the transaction itself.
    pub transaction: SpanContext,
}

impl Stories {
    /// Ids are derived and nothing is sent.
    pub(super) fn unsent(sampling: Sampling) -> Self {
        Self { sampling, to: None }
    }

    pub(super) fn sent(sampling: Sampling, to: Shared) -> Self {
        Self { sampling, to: Some(to) }
    }

    /// The `traceparent` of an event's record.
    pub fn traceparent(&self, event: &Event) -> TraceParent {
        ExecutionTrace::of_event(event, self.sampling).sending(event)
    }

    /// Sends the spans of these events: one for each, and that of each execution that ended.
    pub fn tell(&self, told: &Told<'_>) {
        let Some(to) = &self.to else { return };
        for event in told.events {
            let trace = ExecutionTrace::of_event(event, self.sampling);
            if !trace.own.sampled {
                continue;
            }
            to.on_end(sending(&trace, event, told));
            if let Body::Ended(ended) = &event.body {
                to.on_end(execution(&trace, event, ended));
            }
        }
    }
}

fn context(of: TraceParent, is_remote: bool) -> SpanContext {
    let flags = if of.sampled { TraceFlags::SAMPLED } else { TraceFlags::default() };
    let (trace, span) = (TraceId::from(of.trace_id), SpanId::from(of.span_id));
    SpanContext::new(trace, span, flags, is_remote, TraceState::default())
}

fn text(key: &'static str, value: &str) -> KeyValue {
    KeyValue::new(key, value.to_owned())
}

/// Whose pod it is.
fn of_pod(event: &Event) -> Vec<KeyValue> {
    let mut attributes = vec![
        text("pod_monitor.execution.id", &event.execution_id),
        text("pod_monitor.event.type", event.body.event_type().as_str()),
        text("k8s.namespace.name", &event.namespace),
        text("k8s.pod.name", &event.pod_name),
        text("k8s.pod.uid", &event.pod_uid.0),
    ];
    attributes.extend(event.node_name.as_deref().map(|node| text("k8s.node.name", node)));
    attributes
}

fn span(own: TraceParent, parent: Option<u64>, name: Cow<'static, str>, times: (Timestamp, Timestamp)) -> SpanData {
    SpanData {
        span_context: context(own, false),
        parent_span_id: parent.map_or(SpanId::INVALID, SpanId::from),
        parent_span_is_remote: false,
        span_kind: SpanKind::Internal,
        name,
        start_time: SystemTime::from(times.0),
        // A node's clock may have been set back: an end before the beginning is none that tools can draw.
        end_time: SystemTime::from(times.1.max(times.0)),
        attributes: Vec::new(),
        dropped_attributes_count: 0,
        events: SpanEvents::default(),
        links: SpanLinks::default(),
        status: Status::Unset,
        instrumentation_scope: InstrumentationScope::builder(SERVICE_NAME)
            .with_version(env!("CARGO_PKG_VERSION"))
            .build(),
    }
}

/// One event on its way into its topic: from the transaction's beginning until all can read it.
fn sending(trace: &ExecutionTrace, event: &Event, told: &Told<'_>) -> SpanData {
    let event_type: EventType = event.body.event_type();
    let topic = told.topics.get(event_type as usize).map_or("", String::as_str);
    let name = Cow::Owned(format!("send {topic}"));
    let mut span = span(trace.sending(event), Some(trace.own.span_id), name, (told.began, told.committed));
    span.span_kind = SpanKind::Producer;
    span.attributes = of_pod(event);
    span.attributes.extend([
        KeyValue::new("messaging.system", "kafka"),
        KeyValue::new("messaging.operation.name", "send"),
        KeyValue::new("messaging.operation.type", "send"),
        text("messaging.destination.name", topic),
        text("messaging.kafka.message.key", &event.execution_id),
        text("messaging.message.id", &event.event_id.to_string()),
        KeyValue::new("pod_monitor.event.sequence", i64::from(event.sequence)),
    ]);
    if told.transaction.is_valid() {
        span.links.links.push(Link::with_context(told.transaction.clone()));
    }
    span
}

/// An execution, by the kubelet's times; one that never started is as long as the moment in which that was sure.
fn execution(trace: &ExecutionTrace, event: &Event, ended: &Ended) -> SpanData {
    let verdict = &ended.verdict;
    let finished = verdict.finished_at.unwrap_or(verdict.at);
    let times = (verdict.started_at.unwrap_or(finished), finished);
    let mut span = span(trace.own, trace.parent, Cow::Borrowed("execution"), times);
    span.parent_span_is_remote = trace.parent.is_some();
    span.attributes = of_pod(event);
    span.attributes.extend(verdict.exit_code.map(|code| KeyValue::new("process.exit.code", i64::from(code))));
    if !verdict.container.is_empty() {
        span.attributes.push(text("k8s.container.name", &verdict.container));
    }
    if let Some(failure) = &verdict.failure {
        span.attributes.push(text("pod_monitor.cause", failure.cause.as_str()));
        span.attributes.push(text("error.type", failure.cause.as_str()));
        span.status = Status::error(failure.message.as_deref().unwrap_or(failure.cause.as_str()).to_owned());
    }
    span
}
