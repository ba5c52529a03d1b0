//! Log lines by OTLP, beside those on standard error: the same lines, with the trace that they belong to.

use std::time::Duration;

use opentelemetry::InstrumentationScope;
use opentelemetry_appender_tracing::layer::OpenTelemetryTracingBridge;
use opentelemetry_otlp::{Protocol, WithExportConfig as _};
use opentelemetry_sdk::{
    Resource,
    error::OTelSdkResult,
    logs::{BatchConfigBuilder, BatchLogProcessor, LogProcessor, SdkLogRecord, SdkLoggerProvider},
};
use tracing::Subscriber;
use tracing_subscriber::{EnvFilter, Layer, registry::LookupSpan};

use super::{
    Error, Signal,
    counted::{Counted, Room, queue_max},
};
use crate::telemetry::Metrics;

/// Log lines that wait to be sent, where OTEL_BLRP_MAX_QUEUE_SIZE does not say otherwise: OpenTelemetry's own default.
const QUEUE_MAX: usize = 2048;

/// The logger provider of this process.
#[derive(Debug)]
pub struct Logs {
    provider: SdkLoggerProvider,
}

impl Logs {
    /// Makes the provider. Call it outside an async runtime.
    pub fn start(url: &str, resource: &Resource, metrics: &Metrics) -> Result<Self, Error> {
        let exporter = opentelemetry_otlp::LogExporter::builder()
            .with_http()
            .with_protocol(Protocol::HttpBinary)
            .with_endpoint(url)
            .build()
            .map_err(|source| Error::Exporter { signal: Signal::Logs, source })?;
        let room = Room::new(Signal::Logs, metrics, queue_max("OTEL_BLRP_MAX_QUEUE_SIZE", QUEUE_MAX));
        let config = BatchConfigBuilder::default().with_max_queue_size(room.max()).build();
        let batching = BatchLogProcessor::builder(Counted::new(exporter, &room)).with_batch_config(config).build();
        let bounded = Bounded { batching, room };
        let provider = SdkLoggerProvider::builder().with_resource(resource.clone()).with_log_processor(bounded);
        Ok(Self { provider: provider.build() })
    }

    /// The layer that sends the lines which `filter` lets through. Of what exporting itself logs (its HTTP client) nothing
    /// is sent, or it would feed itself.
    pub fn layer<S>(&self, filter: EnvFilter) -> Box<dyn Layer<S> + Send + Sync>
    where
        S: Subscriber + for<'a> LookupSpan<'a> + Send + Sync,
    {
        let own = tracing_subscriber::filter::filter_fn(|metadata| {
            !["opentelemetry", "hyper", "reqwest", "h2", "tonic"].iter().any(|of| metadata.target().starts_with(of))
        });
        OpenTelemetryTracingBridge::new(&self.provider).with_filter(own).with_filter(filter).boxed()
    }

    /// Sends what is left, for at most `limit`.
    pub fn shutdown(self, limit: Duration) {
        if let Err(error) = self.provider.shutdown_with_timeout(limit) {
            tracing::warn!(%error, "the last log lines may not have been sent");
        }
    }
}

/// A queue that counts what finds no room in it.
#[derive(Debug)]
struct Bounded {
    batching: BatchLogProcessor,
    room: Room,
}

impl LogProcessor for Bounded {
    fn emit(&self, record: &mut SdkLogRecord, scope: &InstrumentationScope) {
        if self.room.enter() {
            self.batching.emit(record, scope);
        }
    }

    fn force_flush(&self) -> OTelSdkResult {
        self.batching.force_flush()
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.batching.shutdown_with_timeout(timeout)
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.batching.set_resource(resource);
    }
}
