//! What the monitor tells about itself: log lines, traces, metrics.
//!
//! Promises: nothing here can hold up or end the work; a receiver that is down costs spans, never events. Must be
//! started and ended outside an async runtime (the OTLP exporter brings a blocking HTTP client).

mod families;
mod labels;
pub mod logs;
pub mod metrics;
pub mod traces;

use std::time::Duration;

use tracing_subscriber::{Layer as _, layer::SubscriberExt as _, util::SubscriberInitExt as _};

pub use metrics::Metrics;

use crate::config::LogSettings;

/// How long the end of the process waits for the last spans.
const FLUSH_MAX: Duration = Duration::from_secs(2);

/// Everything that is told about this process. Lives as long as the process works.
#[derive(Debug)]
pub struct Telemetry {
    metrics: Metrics,
    traces: traces::Traces,
}

/// Why telemetry cannot start: all of it is configuration (exit code 2).
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The OTEL_* variables do not make an exporter.
    #[error(transparent)]
    Traces(#[from] traces::Error),
    /// Somebody installed a subscriber before.
    #[error("start logging")]
    Logs(#[source] tracing_subscriber::util::TryInitError),
    /// The log filter does not parse, although the configuration checked it.
    #[error("log-level")]
    Filter(#[from] tracing_subscriber::filter::ParseError),
}

impl Telemetry {
    /// Starts logging to standard error and, where the OTEL_* variables ask for it, the export of traces.
    pub fn start(settings: &LogSettings, instance: &str) -> Result<Self, Error> {
        let metrics = Metrics::new();
        let export = traces::Export::from_variables(&|name| std::env::var(name).ok())?;
        let traces = traces::Traces::start(&export, instance, &metrics)?;
        let logs = logs::layer(settings.format, std::io::stderr)
            .with_filter(tracing_subscriber::EnvFilter::builder().parse(&settings.filter)?);
        tracing_subscriber::registry().with(traces.layer()).with(logs).try_init().map_err(Error::Logs)?;
        match &export {
            traces::Export::Off => tracing::info!("traces are not exported: OTEL_EXPORTER_OTLP_ENDPOINT is not set"),
            traces::Export::To(url) => tracing::info!(%url, "traces are exported"),
        }
        Ok(Self { metrics, traces })
    }

    /// What is counted; clones count together.
    pub fn metrics(&self) -> &Metrics {
        &self.metrics
    }

    /// Sends the last spans, for at most two seconds. Call it after the async runtime has ended.
    pub fn shutdown(self) {
        self.traces.shutdown(FLUSH_MAX);
    }
}
