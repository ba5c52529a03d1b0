//! Label values of the metrics. They come from the enums in this file only, so the number of series has a bound.

use std::fmt;

use prometheus_client::encoding::{EncodeLabelSet, EncodeLabelValue, LabelValueEncoder};

use crate::{
    leadership::{
        election::{Ended, GiveUp, Why},
        takeover::Leg,
    },
    lifecycle::event::{Cause, EventType},
    telemetry::otlp::Signal,
};

/// An enum of label values: `Name { Variant = "text" }`.
macro_rules! label_values {
    ($($(#[$doc:meta])* $name:ident { $($(#[$vdoc:meta])* $variant:ident = $text:literal),+ $(,)? })+) => {$(
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum $name { $($(#[$vdoc])* $variant),+ }

        impl $name {
            /// Every value, so that each series exists from the start.
            pub const ALL: &'static [Self] = &[$(Self::$variant),+];

            /// As it stands in the label.
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $text),+ }
            }
        }

        impl EncodeLabelValue for $name {
            fn encode(&self, encoder: &mut LabelValueEncoder<'_>) -> fmt::Result {
                EncodeLabelValue::encode(&self.as_str(), encoder)
            }
        }
    )+};
}

label_values! {
    /// How a transaction ended.
    Verdict {
        /// Committed.
        Committed = "committed",
        /// Aborted; its decisions are made anew.
        Aborted = "aborted",
        /// A newer producer took over.
        Fenced = "fenced",
        /// Nobody can say; the changelog will.
        Unknown = "unknown",
    }
    /// What is done to a pod whose end was told.
    Deed {
        /// Our finalizer is taken off.
        Release = "release",
        /// It is deleted.
        Delete = "delete",
    }
    /// What came of a deed.
    DeedResult {
        /// Done.
        Done = "done",
        /// There was nothing to do.
        Needless = "needless",
        /// Tried again later.
        Failed = "failed",
        /// Done although the end was not told in time.
        Overdue = "overdue",
    }
    /// Who is asked what else is known of an end.
    Witness {
        /// LIST of Kubernetes Events.
        Events = "events",
        /// GET of the owner Job.
        Job = "job",
    }
    /// How it went.
    EvidenceResult {
        /// Answered.
        Ok = "ok",
        /// There is none any more.
        Gone = "gone",
        /// For want of a right.
        Refused = "refused",
        /// No answer in time, or an error.
        Failed = "failed",
        /// Not asked: it failed or refused lately.
        Skipped = "skipped",
    }
    /// What was captured of an output.
    CaptureStatus {
        /// All of it.
        Complete = "complete",
        /// Head and tail.
        Truncated = "truncated",
        /// Only a part arrived.
        Partial = "partial",
        /// Nothing.
        Unavailable = "unavailable",
    }
    /// Why a watch began anew.
    WatchRestart {
        /// The server ended it in time.
        Ended = "ended",
        /// The resourceVersion is too old (410).
        Expired = "expired",
        /// The connection broke.
        Broken = "broken",
        /// Silent for too long.
        Silent = "silent",
        /// Unreadable again and again at the same resourceVersion.
        Garbled = "garbled",
        /// Refused (403 and the like).
        Refused = "refused",
    }
    /// What a watch delivered.
    WatchEvent {
        /// ADDED or MODIFIED
        Applied = "applied",
        /// DELETED
        Deleted = "deleted",
        /// BOOKMARK
        Bookmark = "bookmark",
    }
    /// How a LIST went.
    ListResult {
        /// Complete.
        Ok = "ok",
        /// Older than what is known already: asked again.
        Stale = "stale",
        /// Failed.
        Failed = "failed",
    }
    /// What of a pod could not be read.
    PodPart {
        /// The whole object.
        Object = "object",
        /// Its metadata.
        Metadata = "metadata",
        /// Its spec.
        Spec = "spec",
        /// Its status.
        Status = "status",
        /// What would be told of it breaks a rule: nothing more is.
        Record = "record",
    }
    /// Which id a pod does not carry.
    MissingId {
        /// The execution's.
        Execution = "execution",
        /// The user's.
        User = "user",
    }
    /// A difference that a periodic comparison found; 0 in a healthy system.
    Drift {
        /// A pod nobody had told us of.
        Missed = "missed",
        /// A pod that is further than what was told.
        Behind = "behind",
        /// A pod that vanished unseen.
        Vanished = "vanished",
    }
    /// Why this replica took a Lease.
    Taken {
        /// There was none.
        Absent = "absent",
        /// Its last holder let it go.
        Released = "released",
        /// Its holder was found dead.
        Dead = "dead",
        /// Its holder was silent for a whole lease duration.
        Silent = "silent",
        /// It was ours already, by a write that was never answered.
        Ours = "ours",
    }
    /// Why a tenure of this replica ended.
    TenureEnd {
        /// Another holds the Lease, or it was deleted.
        Lost = "lost",
        /// No renewal was granted in time.
        Deadline = "deadline",
        /// Asked to stop.
        Stop = "stop",
        /// The watch of pods could not be kept open.
        Watch = "watch",
        /// Kafka answered others and not us.
        Kafka = "kafka",
        /// Its work failed in this process.
        Fault = "fault",
        /// Given to a replica with fewer shards.
        Share = "share",
    }
    /// What this replica does.
    Role {
        /// Follows, warm.
        Standby = "standby",
        /// Fences, restores.
        Fencing = "fencing",
        /// Acts, and compares what is there with what was told.
        Reconciling = "reconciling",
        /// Acts.
        Live = "live",
        /// Settles what is on its way.
        Draining = "draining",
    }
    /// How a fence went.
    FenceResult {
        /// Older producers are refused now.
        Ok = "ok",
        /// Refused or failed.
        Failed = "failed",
    }
}

impl From<Why> for Taken {
    fn from(why: Why) -> Self {
        match why {
            Why::Absent => Self::Absent,
            Why::Released => Self::Released,
            Why::Dead => Self::Dead,
            Why::Silent => Self::Silent,
            Why::Ours => Self::Ours,
        }
    }
}

impl From<Ended> for TenureEnd {
    fn from(why: Ended) -> Self {
        match why {
            Ended::Lost => Self::Lost,
            Ended::Deadline => Self::Deadline,
            Ended::Stop => Self::Stop,
            Ended::GaveUp(GiveUp::Watch) => Self::Watch,
            Ended::GaveUp(GiveUp::Kafka) => Self::Kafka,
            Ended::GaveUp(GiveUp::Fault) => Self::Fault,
            Ended::GaveUp(GiveUp::Share) => Self::Share,
        }
    }
}

/// Whose count it is. There are as many as `--shards` says, and no more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct ByShard {
    pub(super) shard: u32,
}

/// One label called `$label`.
macro_rules! label_sets {
    ($($name:ident { $label:ident: $value:ty })+) => {$(
        #[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
        pub(super) struct $name { pub(super) $label: $value }
    )+};
}

label_sets! {
    ByEventType { event_type: EventLabel }
    ByCause { cause: CauseLabel }
    ByVerdict { verdict: Verdict }
    ByStatus { status: CaptureStatus }
    ByReason { reason: WatchRestart }
    ByWatchEvent { kind: WatchEvent }
    ByListResult { result: ListResult }
    ByPart { part: PodPart }
    ById { id: MissingId }
    ByDrift { kind: Drift }
    ByFenceResult { result: FenceResult }
    ByTaken { reason: Taken }
    ByTenureEnd { reason: TenureEnd }
    ByRole { role: Role }
    ByLeg { leg: LegLabel }
    ByHash { hash: Box<str> }
    BySignal { signal: SignalLabel }
}

/// A deed and what came of it.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct ByDeed {
    pub(super) deed: Deed,
    pub(super) result: DeedResult,
}

/// Who was asked, and how it went.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct ByEvidence {
    pub(super) witness: Witness,
    pub(super) result: EvidenceResult,
}

/// [`EventType`] as a label; the event types themselves know nothing of metrics.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct EventLabel(pub(super) EventType);

impl EncodeLabelValue for EventLabel {
    fn encode(&self, encoder: &mut LabelValueEncoder<'_>) -> fmt::Result {
        EncodeLabelValue::encode(&self.0.as_str(), encoder)
    }
}

/// [`Cause`] as a label.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct CauseLabel(pub(super) Cause);

impl EncodeLabelValue for CauseLabel {
    fn encode(&self, encoder: &mut LabelValueEncoder<'_>) -> fmt::Result {
        EncodeLabelValue::encode(&self.0.as_str(), encoder)
    }
}

/// [`Signal`] as a label.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct SignalLabel(pub(super) Signal);

impl EncodeLabelValue for SignalLabel {
    fn encode(&self, encoder: &mut LabelValueEncoder<'_>) -> fmt::Result {
        EncodeLabelValue::encode(&self.0.as_str(), encoder)
    }
}

/// [`Leg`] as a label.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct LegLabel(pub(super) Leg);

impl EncodeLabelValue for LegLabel {
    fn encode(&self, encoder: &mut LabelValueEncoder<'_>) -> fmt::Result {
        EncodeLabelValue::encode(&self.0.as_str(), encoder)
    }
}
