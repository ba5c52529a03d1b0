//! From one generation of the changelog to the next, with another number of shards.

pub mod held;
pub mod plan;
