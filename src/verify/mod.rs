//! `pod-monitor verify`: reads what was told, as any consumer would, and says whether it keeps the promise.
//!
//! ```text
//!  changelog topic ──▶ read.rs ──▶ told: Tracked per pod ─────┐
//!  events topics   ──▶ read.rs ──▶ schema.rs ──▶ Told ──▶ judge.rs ──▶ Report ──▶ cli/verify.rs
//!                       read_committed   one record's shape      per pod: lost, doubled, out of order
//! ```
//! The changelog is read first: what it says was told must then stand on the events topics, also while a monitor goes
//! on telling. Reads only: no consumer group, no transaction, nothing is written.
//!
//! It shares types with the monitor, so it is a second opinion; the first is testkit's checker, which shares nothing.

pub mod judge;
pub mod read;
pub mod schema;

pub use judge::{Fault, Finding, Judge, Report};
