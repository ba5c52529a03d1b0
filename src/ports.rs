//! The edges to the outside as traits, so that the simulation can stand in for all of them.

use std::{borrow::Cow, future::Future};

use crate::{
    leadership::tenure::{ShardId, Tenure},
    publish::{
        Batch,
        error::{CommitError, OpenError},
        restore::Restored,
    },
};

/// How warm a standby is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Readiness {
    /// Producers are connected and the changelog was read to its end once.
    Warm,
    /// Not yet, or no longer.
    NotYet(Cow<'static, str>),
}

/// What following a shard's changelog has shown so far.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Followed {
    /// The term of the last position.
    pub term: Option<u64>,
    /// Pods whose story is not over.
    pub tracked_pods: Option<u64>,
}

/// What one tenure tells through.
pub trait Journal: Send {
    /// Makes the whole batch visible, or nothing of it. After an error that is not [`CommitError::TooLarge`] or
    /// [`CommitError::Refused`], and after a commit whose future was dropped, the journal answers
    /// [`CommitError::Spent`]: open it anew, and let what is restored say what was told.
    fn commit(&mut self, batch: Batch) -> impl Future<Output = Result<(), CommitError>> + Send;

    /// Whether it still works, but should be opened anew when nothing is on its way: secrets were rotated, and the
    /// server will not take its old ones for ever.
    fn is_outdated(&self) -> bool {
        false
    }
}

/// Where journals come from.
pub trait Journals: Send + Sync {
    /// What this opens.
    type Journal: Journal;

    /// Follows what the shard's holder tells, so that taking over is short; does nothing where it follows already.
    ///
    /// # Errors
    /// When the clients cannot be made.
    fn stand_by(&self, shard: ShardId) -> Result<(), OpenError>;

    /// Whether taking the shard over would be short now, and may be tried at all.
    ///
    /// # Errors
    /// When this replica does not fit the shard's changelog: it must not contend.
    fn readiness(&self, shard: ShardId) -> Result<Readiness, OpenError>;

    /// Whether Kafka answered a moment ago, whatever else it owes: who waits and hears that is not cut off from it.
    fn is_answered(&self, shard: ShardId) -> bool;

    /// Records of the shard's changelog that are written and not read yet; marks of transactions count. `None` where that
    /// is not known, or nothing is followed.
    fn lag_records(&self, shard: ShardId) -> Option<u64>;

    /// What has been read of what its holder tells; nothing, where nothing is followed.
    fn followed(&self, _: ShardId) -> Followed {
        Followed::default()
    }

    /// Takes a shard over: when this returns, earlier holders cannot tell anything any more, and `Restored` is
    /// everything they told.
    fn open(&self, tenure: &Tenure) -> impl Future<Output = Result<(Self::Journal, Restored), OpenError>> + Send;
}
