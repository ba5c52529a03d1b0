//! An exporter whose failures are counted, and logged once until it works again.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use opentelemetry_sdk::{
    Resource,
    error::OTelSdkResult,
    logs::{LogBatch, LogExporter},
    trace::{SpanData, SpanExporter},
};

use super::Signal;
use crate::telemetry::Metrics;

/// Whether one signal arrives.
#[derive(Debug)]
pub(super) struct Arrival {
    signal: Signal,
    metrics: Metrics,
    failing: AtomicBool,
}

impl Arrival {
    pub(super) fn new(signal: Signal, metrics: &Metrics) -> Self {
        Self { signal, metrics: metrics.clone(), failing: AtomicBool::new(false) }
    }

    /// Takes the outcome of one batch.
    pub(super) fn note<E: std::fmt::Display>(&self, result: &Result<(), E>) {
        let failed_before = self.failing.swap(result.is_err(), Ordering::Relaxed);
        match result {
            Err(error) => {
                self.metrics.otlp_export_failed(self.signal);
                if !failed_before {
                    tracing::warn!(signal = %self.signal, %error, "telemetry is not arriving; further failures are only counted");
                }
            }
            Ok(()) if failed_before => tracing::info!(signal = %self.signal, "telemetry is arriving again"),
            Ok(()) => {}
        }
    }
}

/// What a variable of OpenTelemetry's says of a queue; what is no number above 0 says nothing.
pub(super) fn queue_max(variable: &str, default: usize) -> usize {
    let given = std::env::var(variable).ok().and_then(|value| value.trim().parse::<usize>().ok());
    given.filter(|max| *max > 0).unwrap_or(default)
}

/// Where spans or log lines wait to be sent: as many as the SDK's queue holds, so that it is never full. What finds no
/// room is counted, as the SDK does not.
#[derive(Debug, Clone)]
pub(super) struct Room {
    signal: Signal,
    metrics: Metrics,
    max: usize,
    waiting: Arc<AtomicUsize>,
}

impl Room {
    pub(super) fn new(signal: Signal, metrics: &Metrics, max: usize) -> Self {
        Self { signal, metrics: metrics.clone(), max, waiting: Arc::default() }
    }

    /// Whether one more may wait.
    pub(super) fn enter(&self) -> bool {
        let more = |waiting| (waiting < self.max).then_some(waiting + 1);
        let entered = self.waiting.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more).is_ok();
        if !entered {
            self.metrics.otlp_dropped(self.signal);
        }
        entered
    }

    pub(super) fn max(&self) -> usize {
        self.max
    }

    fn leave(&self, sent: usize) {
        self.waiting.fetch_sub(sent, Ordering::Relaxed);
    }
}

/// An exporter, and whether it arrives.
#[derive(Debug)]
pub(super) struct Counted<E> {
    exporter: E,
    arrival: Arrival,
    room: Room,
}

impl<E> Counted<E> {
    pub(super) fn new(exporter: E, room: &Room) -> Self {
        Self { exporter, arrival: Arrival::new(room.signal, &room.metrics), room: room.clone() }
    }
}

impl<E: SpanExporter> SpanExporter for Counted<E> {
    async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
        self.room.leave(batch.len());
        let result = self.exporter.export(batch).await;
        self.arrival.note(&result);
        result
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.exporter.shutdown_with_timeout(timeout)
    }

    fn force_flush(&self) -> OTelSdkResult {
        self.exporter.force_flush()
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.exporter.set_resource(resource);
    }
}

impl<E: LogExporter> LogExporter for Counted<E> {
    async fn export(&self, batch: LogBatch<'_>) -> OTelSdkResult {
        self.room.leave(batch.iter().count());
        let result = self.exporter.export(batch).await;
        self.arrival.note(&result);
        result
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.exporter.shutdown_with_timeout(timeout)
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.exporter.set_resource(resource);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_finds_no_room_is_counted_and_room_comes_back() {
        let metrics = Metrics::new();
        let room = Room::new(Signal::Logs, &metrics, 2);
        let entered: Vec<bool> = (0..4).map(|_| room.enter()).collect();
        assert_eq!(entered, [true, true, false, false]);
        room.leave(1);
        assert!(room.enter() && !room.enter());
        let text = metrics.text().expect("metrics can be written");
        assert!(text.contains("pod_monitor_otlp_dropped_total{signal=\"logs\"} 3\n"), "{text}");
    }
}
