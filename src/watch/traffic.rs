//! What came over the watches of one shard, counted where it is read. Clones count together.

use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicU64, Ordering},
};

/// Counts of one shard.
#[derive(Debug, Clone, Default)]
pub struct Traffic(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    bytes: AtomicU64,
    foreign: AtomicU64,
    /// The last LIST said that the server leaves out what is not ours.
    server_side: AtomicBool,
    /// The server refuses to be asked for it.
    declined: AtomicBool,
}

/// What was counted since it was last looked at.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counted {
    /// Bytes of watch lines.
    pub bytes: u64,
    /// Pods of other shards.
    pub foreign: u64,
    /// Whether the server leaves out what is not ours.
    pub server_side: bool,
}

impl Traffic {
    /// A line of a watch was read.
    pub(super) fn read(&self, bytes: usize) {
        self.0.bytes.fetch_add(u64::try_from(bytes).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    /// A pod of another shard was left out here.
    pub(super) fn foreign(&self) {
        self.0.foreign.fetch_add(1, Ordering::Relaxed);
    }

    /// A LIST said whether the server leaves out what is not ours.
    pub(super) fn server_side(&self, yes: bool) {
        if self.0.server_side.swap(yes, Ordering::Relaxed) != yes {
            let by = if yes { "by the API server" } else { "here" };
            tracing::info!(by, "pods of other shards are left out");
        }
    }

    /// The server does not take the question; it is not asked again. Whether that is news.
    pub(super) fn decline(&self) -> bool {
        !self.0.declined.swap(true, Ordering::Relaxed)
    }

    /// Whether the server does not take the question.
    pub(super) fn is_declined(&self) -> bool {
        self.0.declined.load(Ordering::Relaxed)
    }

    /// What was counted since the last call.
    pub fn take(&self) -> Counted {
        Counted {
            bytes: self.0.bytes.swap(0, Ordering::Relaxed),
            foreign: self.0.foreign.swap(0, Ordering::Relaxed),
            server_side: self.0.server_side.load(Ordering::Relaxed),
        }
    }
}
