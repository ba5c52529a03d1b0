//! How far the reader of a changelog is behind, from the client's own statistics.

use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicU64, Ordering},
};

use rdkafka::{
    ClientContext, config::RDKafkaLogLevel, consumer::ConsumerContext, error::KafkaError, statistics::Statistics,
};
use tracing::debug;

use super::producer;
use crate::ports::Followed;

/// No number of records.
const UNKNOWN: u64 = u64::MAX;

/// How far a tail is behind.
pub(super) struct Behind {
    /// Nothing has come since the end of the partition was told.
    at_end: AtomicBool,
    records: AtomicU64,
    /// Of the last position that was read.
    term: AtomicU64,
    /// Pods of which something is remembered, by what was read.
    pods: AtomicU64,
}

impl Behind {
    /// What is left to read, as it was last told.
    pub(super) fn records(&self) -> Option<u64> {
        Some(self.records.load(Ordering::Relaxed)).filter(|records| *records != UNKNOWN)
    }

    /// What was read so far.
    pub(super) fn followed(&self) -> Followed {
        let known = |number: &AtomicU64| Some(number.load(Ordering::Relaxed)).filter(|number| *number != UNKNOWN);
        Followed { term: known(&self.term), tracked_pods: known(&self.pods) }
    }

    /// Says what was read so far: two plain stores, since a busy leader writes tens of thousands of records a second.
    pub(super) fn read(&self, term: Option<u64>, pods: usize) {
        self.term.store(term.unwrap_or(UNKNOWN), Ordering::Relaxed);
        self.pods.store(u64::try_from(pods).unwrap_or(UNKNOWN), Ordering::Relaxed);
    }

    /// Says whether nothing has come since the end of the partition was told.
    pub(super) fn set_at_end(&self, at_end: bool) {
        self.at_end.store(at_end, Ordering::Relaxed);
    }
}

impl Default for Behind {
    fn default() -> Self {
        let unknown = || AtomicU64::new(UNKNOWN);
        Self { at_end: AtomicBool::new(false), records: unknown(), term: unknown(), pods: unknown() }
    }
}

/// What librdkafka tells beside records.
pub(super) struct Told(pub(super) Arc<Behind>);

impl ClientContext for Told {
    fn stats(&self, statistics: Statistics) {
        let partitions = statistics.topics.values().flat_map(|topic| topic.partitions.values());
        // Of the one that is assigned: of others no offset is known.
        let Some(ours) = partitions.filter(|partition| partition.ls_offset >= 0).max_by_key(|p| p.app_offset) else {
            return;
        };
        // At the end, the marks of transactions behind the last record have been read as well.
        let read = if self.0.at_end.load(Ordering::Relaxed) { ours.next_offset } else { ours.app_offset };
        self.0.records.store(u64::try_from(ours.ls_offset - read.max(0)).unwrap_or_default(), Ordering::Relaxed);
    }

    fn log(&self, level: RDKafkaLogLevel, facility: &str, text: &str) {
        producer::log(level, facility, text);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        debug!(%error, reason, "kafka consumer error");
    }
}

impl ConsumerContext for Told {}
