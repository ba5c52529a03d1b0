//! The permit to act for a shard. Handing it to a function is what allows that function to fence, publish or release.

use tokio_util::sync::CancellationToken;

/// A slice of executions with one leader.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ShardId(pub u32);

impl std::fmt::Display for ShardId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

/// The permit to act for one shard, from taking over until `ended` is cancelled.
#[derive(Debug, Clone)]
pub struct Tenure {
    /// Which shard.
    pub shard: ShardId,
    /// Unique per start of this process: who writes barriers and positions.
    pub holder: String,
    /// Cancelled when the permit is over, for whatever reason.
    pub ended: CancellationToken,
}
