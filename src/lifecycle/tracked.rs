//! What has been told of a pod: the value of its changelog record, and all that a standby knows of it.
//!
//! A format number guards readers against records of a later release; fields that this release does not know survive a
//! rewrite. One per living pod is the memory that the monitor needs: it is held packed, as [`Kept`].

mod kept;
mod late;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{
    cause::OwnerEnd,
    event::{Cause, EarlierEnd, EventType, Owner, Verdict},
    stall::{Clock, Stalled},
    trace::{self, TraceParent},
    user_rules::Ruling,
};
use crate::watch::pod::{PodUid, ResourceVersion};

pub use kept::Kept;

/// The format that this release writes.
pub const FORMAT: u16 = 1;

/// Most stalls that are told of one pod: one that flaps for days must not fill its record.
pub const STALLS_MAX: usize = 32;

/// What has been told of one pod.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Tracked {
    /// Format of this record.
    pub format: u16,
    /// The oldest format whose readers may act on this record.
    pub oldest_reader: u16,
    /// Of the newest observation that this record rests on.
    pub resource_version: ResourceVersion,
    /// `metadata.namespace`
    pub namespace: Box<str>,
    /// `metadata.name`
    pub pod_name: Box<str>,
    /// The execution id that every event of this pod carries, fixed when it was first seen.
    pub execution_id: Box<str>,
    /// The user id, fixed like the execution id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user_id: Option<Box<str>>,
    /// What controls it, for instance a Job; fixed like the execution id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub owner: Option<Box<Owner>>,
    /// How another pod of the same execution had ended before this one was made.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub earlier_end: Option<Box<EarlierEnd>>,
    /// The span that the pod named as its execution's parent; fixed like the execution id. One that cannot be read is none.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "trace::lenient")]
    pub parent: Option<TraceParent>,
    /// `spec.nodeName`, once bound.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node_name: Option<Box<str>>,
    /// Sequence of the last event told; 0 before the first.
    #[serde(default)]
    pub sequence: u32,
    /// Which events have been told.
    #[serde(default)]
    pub told: Told,
    /// Why it does not start, as last seen: the cause of the end, should it vanish before it starts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub waiting: Option<Cause>,
    /// What keeps it from getting on, and is not told yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub clock: Option<Box<Clock>>,
    /// Stalls that were told, the newest last: at most [`STALLS_MAX`], beyond which nothing more is told.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub stalls: Vec<Stalled>,
    /// When the deletion was due (`metadata.deletionTimestamp`), once seen.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deletion_timestamp: Option<Timestamp>,
    /// How the main container ended while its pod was not over yet: later statuses may not show it any more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seen_end: Option<Box<Verdict>>,
    /// Decided and not yet told: its capture is under way.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub verdict: Option<Box<Verdict>>,
    /// What the rules of the user make of that verdict, with the hash of these rules; `None`: there are none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ruling: Option<Box<Ruling>>,
    /// The same, should the pod's owner know better: by what it says.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub owner_rulings: Vec<(OwnerEnd, Box<Ruling>)>,
    /// The end that was told.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub end: Option<End>,
    /// Set once `pod_terminated` was told: the resourceVersion of the going. Kept until the watch position has passed
    /// it (INV-7), so that a replayed watch cannot tell the story anew; then the record becomes a tombstone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gone: Option<ResourceVersion>,
    /// It left the selection, and nothing is told until it returns; then its story goes on where it stopped.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub left: bool,
    /// Fields of later releases.
    #[serde(flatten)]
    pub unknown: serde_json::Map<String, serde_json::Value>,
}

/// Which of the once-only events have been told (the end has its own field).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Told {
    /// `pod_scheduled`
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub scheduled: bool,
    /// `execution_running`
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub running: bool,
}

/// What later events need to know of an end that was told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct End {
    /// Of the main container; absent where no process exited.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exit_code: Option<i32>,
    /// Why, where it did not complete.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cause: Option<Cause>,
    /// The end as it was told: completed, failed or timed out. Absent in records of earlier releases.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub event_type: Option<EventType>,
    /// When it ended. Absent in records of earlier releases.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub at: Option<Timestamp>,
    /// When that was told, by the clock of the replica that told it. Absent in records of earlier releases.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub told_at: Option<Timestamp>,
}

impl Tracked {
    /// The stall that was told and is not resolved.
    pub fn stalled(&self) -> Option<Stalled> {
        self.stalls.last().copied().filter(|s| !s.resumed)
    }

    /// Whether nothing was heard from its node lately.
    pub fn node_lost(&self) -> bool {
        let by_clock = self.clock.as_ref().is_some_and(|clock| clock.cause == Cause::NodeLost);
        by_clock || self.stalled().is_some_and(|stalled| stalled.cause == Cause::NodeLost)
    }

    /// How this pod's execution ended, told or decided, for another pod of it that comes later.
    pub fn ended(&self, uid: &PodUid) -> Option<EarlierEnd> {
        ended(uid, self.end.as_ref(), self.verdict.as_deref())
    }
}

fn ended(uid: &PodUid, end: Option<&End>, verdict: Option<&Verdict>) -> Option<EarlierEnd> {
    let (event_type, timestamp) = match (end, verdict) {
        (Some(end), _) => (end.event_type?, end.at?),
        (None, Some(verdict)) => (verdict.outcome.event_type(), verdict.at),
        (None, None) => return None,
    };
    Some(EarlierEnd { pod_uid: uid.clone(), event_type, timestamp })
}
