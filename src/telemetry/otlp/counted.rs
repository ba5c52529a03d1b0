//! An exporter whose failures are counted, and logged once until it works again.

use std::{
    sync::atomic::{AtomicBool, Ordering},
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

/// An exporter, and whether it arrives.
#[derive(Debug)]
pub(super) struct Counted<E> {
    exporter: E,
    arrival: Arrival,
}

impl<E> Counted<E> {
    pub(super) fn new(exporter: E, signal: Signal, metrics: &Metrics) -> Self {
        Self { exporter, arrival: Arrival::new(signal, metrics) }
    }
}

impl<E: SpanExporter> SpanExporter for Counted<E> {
    async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
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
