//! What the monitor tells about itself: log lines, traces, metrics.
//!
//! Promises: nothing here can hold up or end the work; a receiver that is down costs telemetry, never events. Must be
//! started and ended outside an async runtime (the OTLP exporters bring blocking HTTP clients).

mod families;
mod labels;
pub mod logs;
pub mod metrics;
pub mod otlp;
mod process;

use std::time::Duration;

use tracing_subscriber::{EnvFilter, Layer as _, layer::SubscriberExt as _, util::SubscriberInitExt as _};

pub use metrics::Metrics;
use otlp::{Export, Signal, logs::Logs, readings::Readings, stories::Stories, traces::Traces};

use crate::config::LogSettings;

/// How long the end of the process waits for the last of each signal.
const FLUSH_MAX: Duration = Duration::from_secs(2);

/// Everything that is told about this process. Lives as long as the process works.
#[derive(Debug)]
pub struct Telemetry {
    metrics: Metrics,
    traces: Traces,
    logs: Option<Logs>,
    readings: Option<Readings>,
}

/// Why telemetry cannot start: all of it is configuration (exit code 2).
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The OTEL_* variables do not make an exporter.
    #[error(transparent)]
    Otlp(#[from] otlp::Error),
    /// Somebody installed a subscriber before.
    #[error("start logging")]
    Logs(#[source] tracing_subscriber::util::TryInitError),
    /// The log filter does not parse, although the configuration checked it.
    #[error("log-level")]
    Filter(#[from] tracing_subscriber::filter::ParseError),
}

impl Telemetry {
    /// Starts logging to standard error and, where the OTEL_* variables ask for it, sending by OTLP.
    pub fn start(settings: &LogSettings, instance: &str) -> Result<Self, Error> {
        let metrics = Metrics::new();
        let read: otlp::Variables<'_> = &|name| std::env::var(name).ok();
        let resource = otlp::resource(instance);
        let to = |signal| Export::from_variables(signal, read);
        let (spans, lines, counts) = (to(Signal::Traces)?, to(Signal::Logs)?, to(Signal::Metrics)?);
        let traces = Traces::start(&spans, &resource, otlp::sampling(read)?, &metrics)?;
        let sent = match &lines {
            Export::To(url) => Some(Logs::start(url, &resource, &metrics)?),
            Export::Off => None,
        };
        let readings = match counts {
            Export::To(url) => Some(Readings::start(url, otlp::push(read)?, &resource, &metrics)?),
            Export::Off => None,
        };
        let filter = || EnvFilter::builder().parse(&settings.filter);
        let logs = logs::layer(settings.format, std::io::stderr).with_filter(filter()?);
        let sending = sent.as_ref().map(|logs| Ok::<_, Error>(logs.layer(filter()?))).transpose()?;
        let registry = tracing_subscriber::registry().with(traces.layer()).with(sending).with(logs);
        registry.try_init().map_err(Error::Logs)?;
        let signals =
            [(&spans, Signal::Traces), (&lines, Signal::Logs)].into_iter().filter(|(to, _)| **to != Export::Off);
        let signals = signals.map(|(_, signal)| signal).chain(readings.as_ref().map(|_| Signal::Metrics));
        match signals.map(Signal::as_str).collect::<Vec<_>>() {
            none if none.is_empty() => {
                tracing::info!("nothing is sent by OTLP: OTEL_EXPORTER_OTLP_ENDPOINT is not set")
            }
            signals => tracing::info!(signals = signals.join(", "), "telemetry is sent by OTLP"),
        }
        Ok(Self { metrics, traces, logs: sent, readings })
    }

    /// What is counted; clones count together.
    pub fn metrics(&self) -> &Metrics {
        &self.metrics
    }

    /// What is told of executions, as spans.
    pub fn stories(&self) -> Stories {
        self.traces.stories().clone()
    }

    /// Sends what is left, for at most four seconds. Call it after the async runtime has ended.
    pub fn shutdown(self) {
        let Self { traces, readings, .. } = self;
        std::thread::scope(|scope| {
            scope.spawn(|| readings.map(|readings| readings.shutdown(FLUSH_MAX)));
            traces.shutdown(FLUSH_MAX);
        });
        // Last: what went wrong before is a line, too.
        if let Some(logs) = self.logs {
            logs.shutdown(FLUSH_MAX);
        }
    }
}
