//! Chaos: a workload of real pods with known truth, the monitor and everything it depends on broken again and again, and a
//! report.
//!
//! ```text
//!   pods live and end ──▶ three replicas ──▶ Kafka ──▶ a consumer of its own ──▶ verdict.rs (testkit's checker) ──▶ report
//!                            ▲ strikes/: processes, links, servers, the Lease           ▲
//!   plan.rs: which comes next┘     timeline.rs: faults, holders, arrivals ──────────────┘──▶ report.rs, html.rs
//! ```
//! Run by `cargo xtask chaos`, which boots the stack, and by `tests/chaos`. Shares no code with the monitor.
#![allow(clippy::disallowed_methods, reason = "it measures on the real clock, and faults have a duration")]

mod crew;
pub mod html;
mod kind;
mod plan;
pub mod report;
mod run;
mod strikes;
mod timeline;
mod verdict;

pub use kind::Kind;
pub use run::{Outcome, Plan, run};
