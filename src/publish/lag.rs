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

/// No number of records.
const UNKNOWN: u64 = u64::MAX;

/// How far a tail is behind.
pub(super) struct Behind {
    /// Nothing has come since the end of the partition was told.
    at_end: AtomicBool,
    records: AtomicU64,
}

impl Behind {
    /// What is left to read, as it was last told.
    pub(super) fn records(&self) -> Option<u64> {
        Some(self.records.load(Ordering::Relaxed)).filter(|records| *records != UNKNOWN)
    }

    /// Says whether nothing has come since the end of the partition was told.
    pub(super) fn set_at_end(&self, at_end: bool) {
        self.at_end.store(at_end, Ordering::Relaxed);
    }
}

impl Default for Behind {
    fn default() -> Self {
        Self { at_end: AtomicBool::new(false), records: AtomicU64::new(UNKNOWN) }
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
