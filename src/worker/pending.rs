//! What waits to be decided of one pod. Pure.

use tokio::time::Instant;

use super::position::Stream;
use crate::watch::pod::{Pod, ResourceVersion};

/// What waits to be decided.
#[derive(Debug)]
pub struct Pending {
    /// The newest state.
    pub pod: Option<Box<Pod>>,
    /// The pod is gone.
    pub gone: Option<Gone>,
    /// After that state it left the selection: the version of that.
    pub left: Option<ResourceVersion>,
    /// The lowest version that is settled with this; `None` where nothing holds the position back for it.
    pub holds: Option<ResourceVersion>,
    /// When the newest part of this was read.
    pub arrived: Instant,
    /// Found by a periodic LIST: telling something then means that the watch had missed it.
    pub listed: bool,
}

impl Pending {
    /// Nothing yet.
    pub(super) fn new(arrived: Instant) -> Self {
        Self { pod: None, gone: None, left: None, holds: None, arrived, listed: false }
    }

    /// The position stays below this version until it is decided.
    ///
    /// INV-1: what the watch brings must hold it, since a successor's watch begins there. What a LIST shows need not: the
    /// successor's LIST shows it again, and if it goes before that, its DELETED is above the position.
    pub(super) fn hold(&mut self, version: ResourceVersion, stream: &mut Stream) {
        if self.holds.is_none() {
            stream.opened(version);
            self.holds = Some(version);
        }
    }

    /// The cluster's store was reset: what was seen stands, but its versions compare with nothing any more.
    pub(super) fn forget_versions(&mut self) {
        self.holds = None;
        if let Some(pod) = &mut self.pod {
            pod.metadata.resource_version = ResourceVersion::default();
        }
        self.left = self.left.map(|_| ResourceVersion::default());
    }

    /// Whether a state of this version says nothing new. Also of a pod that is gone: a GET may be ahead of the watch, which
    /// still brings its last states.
    pub(super) fn is_newer(&self, version: ResourceVersion) -> bool {
        let known = self.pod.as_ref().map(|p| p.metadata.resource_version);
        known.max(self.left).is_some_and(|known| known >= version)
    }
}

/// Where a state was seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    /// The watch brought it.
    Watch,
    /// The LIST of a take-over, or of a watch that had to begin anew.
    List,
    /// The LIST of a periodic reconciliation: telling something from it means that the watch had missed it.
    Comparison,
}

/// How a pod went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Gone {
    /// False: found missing by a LIST.
    pub observed: bool,
    /// Of the going: the position stays below it until it is told.
    pub version: ResourceVersion,
    /// Nothing of the pod is newer than this: it may be forgotten once the watch has come so far.
    pub as_of: ResourceVersion,
    /// Found by a periodic LIST.
    pub listed: bool,
}

/// An older and a newer pending become one, which holds the position where the older did.
pub(super) fn merge(
    older: Option<Box<Pending>>,
    newer: Option<Box<Pending>>,
    stream: &mut Stream,
) -> Option<Box<Pending>> {
    match (older, newer) {
        (Some(older), Some(newer)) => {
            let (older, newer) = (*older, *newer);
            let holds = match (older.holds, newer.holds) {
                (Some(low), Some(high)) => {
                    stream.settled(low.max(high));
                    Some(low.min(high))
                }
                (low, high) => low.or(high),
            };
            let left = newer.left.or(older.left.filter(|_| newer.pod.is_none()));
            // Who saw it go knows more than a LIST that lacks it.
            let gone = older.gone.filter(|gone| gone.observed).or(newer.gone).or(older.gone);
            Some(Box::new(Pending { pod: newer.pod.or(older.pod), gone, left, holds, ..newer }))
        }
        (older, newer) => newer.or(older),
    }
}
