//! The sink for trying the monitor without Kafka: one JSON event a line on standard output, nothing kept.
//!
//! Promises what a pipe can: each batch is written and flushed before its commit returns. After a restart the story of
//! living pods is told anew, with the same event ids.

use std::{
    io::Write,
    sync::{Arc, Mutex, PoisonError},
};

use super::{Batch, error::CommitError, error::OpenError, record, record::Service, restore::Restored};
use crate::{
    leadership::tenure::Tenure,
    ports::{Journal, Journals},
};

/// Writes to standard output, or to what a test gives.
pub struct Stdout<W = std::io::Stdout> {
    out: Arc<Mutex<W>>,
    service: Arc<Service>,
}

impl Stdout {
    /// The process's standard output.
    pub fn new(service: Service) -> Self {
        Self::to(std::io::stdout(), service)
    }
}

impl<W> Stdout<W> {
    /// Any other output.
    pub fn to(out: W, service: Service) -> Self {
        Self { out: Arc::new(Mutex::new(out)), service: Arc::new(service) }
    }
}

impl<W: Write + Send + 'static> Journals for Stdout<W> {
    type Journal = Self;

    async fn open(&self, _: &Tenure) -> Result<(Self, Restored), OpenError> {
        let journal = Self { out: Arc::clone(&self.out), service: Arc::clone(&self.service) };
        Ok((journal, Restored::default()))
    }
}

impl<W: Write + Send + 'static> Journal for Stdout<W> {
    async fn commit(&mut self, batch: Batch) -> Result<(), CommitError> {
        let (out, service) = (Arc::clone(&self.out), Arc::clone(&self.service));
        // A reader that does not read blocks us: not on a thread of the runtime.
        let written = tokio::task::spawn_blocking(move || write(&out, &service, &batch)).await;
        written.unwrap_or_else(|error| Err(CommitError::Output(std::io::Error::other(error))))
    }
}

fn write<W: Write>(out: &Mutex<W>, service: &Service, batch: &Batch) -> Result<(), CommitError> {
    let mut lines = Vec::with_capacity(batch.events.len() * 1024);
    for event in &batch.events {
        record::write_value(&mut lines, event, service)
            .map_err(|e| CommitError::Refused { key: event.event_id.to_string(), reason: e.to_string() })?;
        lines.push(b'\n');
    }
    let mut out = out.lock().unwrap_or_else(PoisonError::into_inner);
    out.write_all(&lines).and_then(|()| out.flush()).map_err(CommitError::Output)
}
