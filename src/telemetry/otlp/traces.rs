//! Traces: every piece of work has a W3C trace context; whether spans are sent anywhere is another question.
//!
//! Only this crate's own spans are exported, so that exporting (which makes HTTP spans itself) cannot feed itself.

use std::{sync::Arc, time::Duration};

use opentelemetry::{
    Context,
    trace::{SpanContext, TraceContextExt as _, TracerProvider as _},
};
use opentelemetry_otlp::{Protocol, WithExportConfig as _};
use opentelemetry_sdk::{
    Resource,
    error::OTelSdkResult,
    trace::{BatchConfigBuilder, BatchSpanProcessor, SdkTracerProvider, Span, SpanData, SpanProcessor},
};
use tracing::Subscriber;
use tracing_opentelemetry::OpenTelemetrySpanExt as _;
use tracing_subscriber::{Layer, filter::filter_fn, registry::LookupSpan};

use super::{
    Error, Export, SERVICE_NAME, Signal,
    counted::{Counted, Room, queue_max},
    stories::Stories,
};
use crate::{lifecycle::trace::Sampling, telemetry::Metrics};

/// How long spans gather before they are sent, where OTEL_BSP_SCHEDULE_DELAY does not say otherwise: what a killed leader
/// has not sent is lost.
const DELAY: Duration = Duration::from_secs(1);
/// Spans that wait to be sent, where OTEL_BSP_MAX_QUEUE_SIZE does not say otherwise; more are dropped.
const QUEUE_MAX: usize = 16 * 1024;

/// The tracer provider of this process.
#[derive(Debug)]
pub struct Traces {
    provider: SdkTracerProvider,
    stories: Stories,
}

impl Traces {
    /// Makes the provider. Call it outside an async runtime.
    pub fn start(export: &Export, resource: &Resource, sampling: Sampling, metrics: &Metrics) -> Result<Self, Error> {
        let mut provider = SdkTracerProvider::builder().with_resource(resource.clone());
        let mut stories = Stories::unsent(sampling);
        if let Export::To(url) = export {
            let exporter = opentelemetry_otlp::SpanExporter::builder()
                .with_http()
                .with_protocol(Protocol::HttpBinary)
                .with_endpoint(url)
                .build()
                .map_err(|source| Error::Exporter { signal: Signal::Traces, source })?;
            let room = Room::new(Signal::Traces, metrics, queue_max("OTEL_BSP_MAX_QUEUE_SIZE", QUEUE_MAX));
            let counted = Counted::new(exporter, &room);
            let config = batching().with_max_queue_size(room.max()).build();
            let mut batching = BatchSpanProcessor::builder(counted).with_batch_config(config).build();
            batching.set_resource(resource);
            let shared = Shared(Arc::new(batching), room);
            stories = Stories::sent(sampling, shared.clone());
            provider = provider.with_span_processor(shared);
        }
        Ok(Self { provider: provider.build(), stories })
    }

    /// What is told of executions, as spans.
    pub fn stories(&self) -> &Stories {
        &self.stories
    }

    /// The layer that gives each of this crate's spans its OpenTelemetry span.
    pub fn layer<S>(&self) -> Box<dyn Layer<S> + Send + Sync>
    where
        S: Subscriber + for<'a> LookupSpan<'a> + Send + Sync,
    {
        let tracer = self.provider.tracer(SERVICE_NAME);
        // Independent of the log level: a quiet log must not take the trace context from the events.
        let own = filter_fn(|metadata| {
            metadata.target().starts_with("pod_monitor") && *metadata.level() <= tracing::Level::DEBUG
        });
        tracing_opentelemetry::layer().with_tracer(tracer).with_filter(own).boxed()
    }

    /// Sends what is left, for at most `limit`.
    pub fn shutdown(self, limit: Duration) {
        if let Err(error) = self.provider.shutdown_with_timeout(limit) {
            tracing::warn!(%error, "the last spans may not have been sent");
        }
    }
}

/// The OpenTelemetry context of a span; not valid where none is recorded.
pub fn context(span: &tracing::Span) -> SpanContext {
    span.context().span().span_context().clone()
}

/// Ours; the variables of OpenTelemetry win.
fn batching() -> BatchConfigBuilder {
    let config = BatchConfigBuilder::default();
    if std::env::var("OTEL_BSP_SCHEDULE_DELAY").is_ok_and(|value| !value.is_empty()) {
        return config;
    }
    config.with_scheduled_delay(DELAY)
}

/// One queue for spans of tracing and of stories.
#[derive(Debug, Clone)]
pub(super) struct Shared(Arc<BatchSpanProcessor>, Room);

impl SpanProcessor for Shared {
    fn on_start(&self, span: &mut Span, context: &Context) {
        self.0.on_start(span, context);
    }

    fn on_end(&self, span: SpanData) {
        if span.span_context.is_sampled() && self.1.enter() {
            self.0.on_end(span);
        }
    }

    fn force_flush(&self) -> OTelSdkResult {
        self.0.force_flush()
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.0.shutdown_with_timeout(timeout)
    }
}

#[cfg(test)]
mod tests {
    use tracing_subscriber::layer::SubscriberExt as _;

    use super::*;

    fn start(export: &Export, metrics: &Metrics) -> Traces {
        let resource = super::super::resource("test");
        Traces::start(export, &resource, Sampling::default(), metrics).expect("an exporter")
    }

    #[test]
    fn every_span_has_a_context_even_when_nothing_is_exported() {
        let traces = start(&Export::Off, &Metrics::new());
        let subscriber = tracing_subscriber::registry().with(traces.layer());
        tracing::subscriber::with_default(subscriber, || {
            assert!(!context(&tracing::Span::current()).is_valid(), "outside of a span");
            let outer = tracing::info_span!("outer");
            let outer = outer.enter();
            let parent = context(&tracing::Span::current());
            assert!(parent.is_valid() && parent.is_sampled(), "inside of a span");
            let child = context(&tracing::debug_span!("child"));
            assert_eq!(child.trace_id(), parent.trace_id());
            assert_ne!(child.span_id(), parent.span_id());
            drop(outer);
        });
    }

    #[test]
    fn a_receiver_that_is_down_costs_a_count_and_nothing_else() {
        // Bound and closed again: nobody listens there.
        let gone =
            std::net::TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("a port");
        let metrics = Metrics::new();
        let traces = start(&Export::To(format!("http://{gone}/v1/traces")), &metrics);
        let subscriber = tracing_subscriber::registry().with(traces.layer());
        tracing::subscriber::with_default(subscriber, || tracing::info_span!("lost").in_scope(|| ()));
        traces.provider.force_flush().expect_err("nobody listens");
        let text = metrics.text().expect("metrics can be written");
        assert!(text.contains("pod_monitor_otlp_export_failures_total{signal=\"traces\"} 1\n"), "{text}");
        traces.shutdown(Duration::from_secs(1));
    }
}
