//! Out to Kafka: events and the changelog that remembers them, in one transaction.
//!
//! ```text
//!  standby:   Warm (connected producers)   Tail (follows the changelog)
//!  take over: Warm ── fence(tenure) ──▶ Fenced ── barrier(tail) ──▶ Barrier ── restore() ──▶ Journal + Restored
//!  live:      Batch ──▶ Journal ──▶ one transaction ──▶ events topics, changelog[shard]
//! ```

pub mod changelog;
pub mod error;
pub mod fence;
pub mod generation;
pub mod identity;
pub mod journal;
mod kind;
mod lag;
pub mod probe;
mod producer;
pub mod raw;
mod reach;
pub mod record;
pub mod restore;
mod rights;
mod rotation;
pub mod settings;
mod shelf;
mod sound;
pub mod stdout;
pub mod topics;
pub mod transaction;
pub mod wire;

use crate::{
    lifecycle::{event::Event, tracked::Tracked},
    watch::pod::{PodUid, ResourceVersion},
};

/// Events and what to remember of them. INV-2: visible together or not at all.
#[derive(Debug, Default, Clone, PartialEq)]
pub struct Batch {
    /// Events, in the order in which they are to be seen.
    pub events: Vec<Event>,
    /// Changelog records `pod/<uid>`; `None` is a tombstone.
    pub records: Vec<(PodUid, Option<Tracked>)>,
    /// Changelog record `meta/position`, where it moved.
    pub position: Option<Position>,
}

impl Batch {
    /// The pod of a changelog record, by its key, or of an event, by its id.
    pub fn pod_of(&self, key: &str) -> Option<PodUid> {
        let of_event =
            || self.events.iter().find(|event| event.event_id.to_string() == key).map(|event| &event.pod_uid);
        changelog::pod_of_key(key).or_else(|| of_event().cloned())
    }
}

/// How far the watch streams have been worked through.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Position {
    /// Our count of the shard's changes of hands; one more than the last barrier's.
    pub term: u64,
    /// Who wrote it: unique per process start.
    pub holder: String,
    /// Per watch stream (a namespace, or "" for all): every observation up to here is committed or needed nothing.
    pub streams: std::collections::BTreeMap<String, ResourceVersion>,
}
