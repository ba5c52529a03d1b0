//! Several leaders at once: which pods belong to which shard, and which replica is to lead it.
//!
//! ```text
//!   pod ──ranges (pure)──▶ shard k ──▶ its own Lease, transactional id, changelog partition, worker, metrics
//! ```

pub mod assignment;
pub mod fleet;
pub mod members;
pub mod ranges;
pub mod seats;
