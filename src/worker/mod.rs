//! Where the steps of one shard meet.

pub mod position;
pub mod table;
