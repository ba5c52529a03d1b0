//! Real processes on the real stack: what a consumer sees when the monitor is killed while pods come and go.

#![allow(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "a test measures, and may stop at the first surprise"
)]

mod churn;
mod deployment;
mod handover;
mod shards;
