//! What can go wrong on the way out, and what the caller may do about it.

use std::error::Error as StdError;

use uuid::Uuid;

use super::identity::Mismatch;
use crate::{leadership::tenure::ShardId, watch::pod::PodUid};

/// What the caller may do about an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Class {
    /// Try again: open anew with a pause, and let what is restored say what was told.
    Transient,
    /// Someone else may act for the shard, or our own transaction timed out: the Lease decides which.
    Fenced,
    /// Trying again cannot help: end the process and say why.
    Fatal,
}

/// Where an error came from. Boxed, so that simulated journals can raise the same errors as Kafka.
pub type Source = Box<dyn StdError + Send + Sync>;

/// Why a batch was not (certainly) committed.
#[derive(Debug, thiserror::Error)]
pub enum CommitError {
    /// Aborted: nothing of the batch is or will be visible. The journal is spent.
    #[error("transaction of shard {shard} was aborted")]
    Aborted {
        /// Whose journal.
        shard: ShardId,
        /// Why.
        #[source]
        source: Source,
    },
    /// A newer producer of this shard exists, or our transaction timed out. Nothing of the batch is visible, unless a
    /// straggling commit of it was already on its way. The journal is spent.
    #[error("producer of shard {shard} is fenced")]
    Fenced {
        /// Whose journal.
        shard: ShardId,
        /// What Kafka said.
        #[source]
        source: Source,
    },
    /// Committed or not: only reading the changelog after a new fence can tell. The journal is spent.
    #[error("outcome of a transaction of shard {shard} is unknown")]
    Unknown {
        /// Whose journal.
        shard: ShardId,
        /// What Kafka said.
        #[source]
        source: Source,
    },
    /// Held up on a producer whose properties were changed meanwhile: given up, committed or not. Only reading the
    /// changelog after a new fence can tell (INV-10). The journal is spent.
    #[error(
        "a transaction of shard {shard} was held up on a producer with outdated kafka properties, its outcome is unknown"
    )]
    Outdated {
        /// Whose journal.
        shard: ShardId,
    },
    /// A record is larger than the broker takes. Nothing of the batch is visible; shrink it and commit again (on the
    /// same journal, unless that answers [`CommitError::Spent`]).
    #[error("record of pod {pod_uid} is too large for the broker")]
    TooLarge {
        /// Whose record.
        pod_uid: PodUid,
        /// Which event; `None` if it is the changelog record.
        event_id: Option<Uuid>,
        /// It is this record for sure, and by the limit that was asked for when we started. Else the broker refused a batch,
        /// and this is the largest record in it.
        exact: bool,
    },
    /// A record breaks a rule that readers rely on: a bug. Nothing of the batch was sent; the journal can be used on.
    #[error("record {key} must not be written: {reason}")]
    Refused {
        /// Whose record or event; `None`: of no pod.
        pod_uid: Option<PodUid>,
        /// Key of the changelog record, or id of the event.
        key: String,
        /// Which rule.
        reason: String,
    },
    /// An earlier answer on this journal was not clean, so that nothing more is sent through it (INV-10). Nothing of this
    /// batch was sent: open the journal anew.
    #[error("journal of shard {shard} is spent")]
    Spent {
        /// Whose journal.
        shard: ShardId,
    },
    /// Standard output is closed or full.
    #[error("write events to standard output")]
    Output(#[source] std::io::Error),
}

impl CommitError {
    /// Whether nothing is wrong but an earlier answer that was not clean.
    pub fn is_spent(&self) -> bool {
        matches!(self, Self::Spent { .. })
    }

    /// What the caller may do.
    pub fn class(&self) -> Class {
        match self {
            Self::Aborted { .. }
            | Self::Unknown { .. }
            | Self::Outdated { .. }
            | Self::TooLarge { .. }
            | Self::Spent { .. } => Class::Transient,
            Self::Fenced { .. } => Class::Fenced,
            Self::Refused { .. } | Self::Output(_) => Class::Fatal,
        }
    }
}

/// Why a journal could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The shard could not be fenced.
    #[error("fence shard {shard}")]
    Fence {
        /// Which shard.
        shard: ShardId,
        /// Why.
        #[source]
        source: super::fence::Error,
    },
    /// The barrier could not be committed.
    #[error("commit the barrier of shard {shard}")]
    Barrier {
        /// Which shard.
        shard: ShardId,
        /// Why.
        #[source]
        source: CommitError,
    },
    /// The changelog could not be read.
    #[error("restore shard {shard}")]
    Restore {
        /// Which shard.
        shard: ShardId,
        /// Why.
        #[source]
        source: super::restore::Error,
    },
    /// The changelog belongs to another installation or generation.
    #[error("changelog of shard {shard} does not fit")]
    Identity {
        /// Which shard.
        shard: ShardId,
        /// What differs.
        #[source]
        source: Mismatch,
    },
}

impl OpenError {
    /// Whether nothing is wrong but an answer to the barrier that was not clean.
    pub fn is_spent(&self) -> bool {
        matches!(self, Self::Barrier { source, .. } if source.is_spent())
    }

    /// What the caller may do.
    pub fn class(&self) -> Class {
        match self {
            Self::Fence { source, .. } => source.class(),
            Self::Barrier { source, .. } => source.class(),
            Self::Restore { source, .. } => source.class(),
            Self::Identity { .. } => Class::Fatal,
        }
    }
}
