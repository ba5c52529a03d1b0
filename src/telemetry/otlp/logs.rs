//! Log lines by OTLP, beside those on standard error: the same lines, with the trace that they belong to.

use std::time::Duration;

use opentelemetry_appender_tracing::layer::OpenTelemetryTracingBridge;
use opentelemetry_otlp::{Protocol, WithExportConfig as _};
use opentelemetry_sdk::{Resource, logs::SdkLoggerProvider};
use tracing::Subscriber;
use tracing_subscriber::{EnvFilter, Layer, registry::LookupSpan};

use super::{Error, Signal, counted::Counted};
use crate::telemetry::Metrics;

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
        let counted = Counted::new(exporter, Signal::Logs, metrics);
        let provider = SdkLoggerProvider::builder().with_resource(resource.clone()).with_batch_exporter(counted);
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
