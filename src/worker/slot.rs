//! One pod in the table: what has been told of it, what waits, and the steps that it is due. Pure.

use jiff::Timestamp;
use tokio::time::Instant;

use super::position::Stream;
use crate::{
    lifecycle::{
        decide::{Decision, Input, step},
        event::Captured,
        rules::Rules,
        tracked::Tracked,
    },
    watch::pod::{Pod, PodUid, ResourceVersion},
};

/// One pod.
#[derive(Debug, Default)]
pub(super) struct Slot {
    pub(super) stream: usize,
    pub(super) tracked: Option<Tracked>,
    pub(super) pending: Option<Pending>,
    pub(super) captured: Option<Captured>,
    pub(super) capturing: bool,
    pub(super) busy: bool,
    pub(super) queued: bool,
    /// Kept for a look at the same state when its settle grace is over.
    pub(super) settling: Option<Box<Pod>>,
}

/// What waits to be decided.
#[derive(Debug)]
pub struct Pending {
    /// The newest state.
    pub pod: Option<Box<Pod>>,
    /// The pod is gone.
    pub gone: Option<Gone>,
    /// The lowest version that is settled with this; `None` where nothing holds the position back for it.
    pub holds: Option<ResourceVersion>,
    /// When the newest part of this was read.
    pub arrived: Instant,
    /// Found by a periodic LIST: telling something then means that the watch had missed it.
    pub listed: bool,
}

/// How a pod went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Gone {
    /// False: found missing by a LIST.
    pub observed: bool,
    /// Of the going.
    pub version: ResourceVersion,
    /// Found by a periodic LIST.
    pub listed: bool,
}

impl Slot {
    /// The going of a pod waits for its capture; nothing else does.
    pub(super) fn runnable(&self) -> bool {
        let goes = self.pending.as_ref().is_some_and(|p| p.gone.is_some());
        if self.busy || (goes && self.capturing) {
            return false;
        }
        self.pending.is_some() || self.captured.is_some()
    }
}

/// An older and a newer pending become one, which holds the position where the older did.
pub(super) fn merge(older: Option<Pending>, newer: Option<Pending>, stream: &mut Stream) -> Option<Pending> {
    match (older, newer) {
        (Some(older), Some(newer)) => {
            let holds = match (older.holds, newer.holds) {
                (Some(low), Some(high)) if low != high => {
                    stream.settled(low.max(high));
                    Some(low.min(high))
                }
                (low, high) => low.or(high),
            };
            Some(Pending { pod: newer.pod.or(older.pod), gone: newer.gone.or(older.gone), holds, ..newer })
        }
        (older, newer) => newer.or(older),
    }
}

/// The steps that one slot is due: its capture, then its newest state, then its going. Their events are told in one
/// transaction, their last record is what is remembered.
pub(super) fn chain(
    uid: &PodUid,
    told: Option<&Tracked>,
    pending: Option<&Pending>,
    captured: Option<&Captured>,
    now: Timestamp,
    rules: &Rules,
) -> Decision {
    let first = match captured {
        Some(captured) => step(uid, told, Input::Captured { captured: captured.clone(), now }, rules),
        None => Decision::default(),
    };
    let between = first.tracked.as_ref().or(told);
    let second = match pending {
        Some(Pending { pod: last, gone: Some(gone), .. }) => {
            let (observed, version) = (gone.observed, gone.version);
            step(uid, between, Input::Gone { last: last.as_deref(), observed, version, now }, rules)
        }
        Some(Pending { pod: Some(pod), .. }) => step(uid, between, Input::Observed { pod, now }, rules),
        _ => Decision::default(),
    };
    let mut events = first.events;
    events.extend(second.events);
    Decision { events, tracked: second.tracked.or(first.tracked), ..second }
}

pub(super) fn size(captured: &Captured) -> usize {
    captured.stdout.as_ref().map_or(0, String::len) + captured.stderr.as_ref().map_or(0, String::len)
}
