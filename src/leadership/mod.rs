//! Who may act. The rest of the program knows of leadership only [`tenure::Tenure`], the permit.
//!
//! ```text
//!   Lease ──watch──▶ elector ──▶ election (pure step) ──▶ lease ──▶ kube-leader-election ──▶ guard ──▶ API server
//!   holder's connection ──notice──▲         └──▶ Tenure ──▶ replica: fence, restore, act
//! ```
//! A Lease says who should act; Kafka's fence is what makes the others unable to. Nothing here is relied on for
//! exactly-once delivery: wrong guesses cost a change of hands.

pub mod election;
pub mod elector;
mod guard;
pub mod lease;
pub mod notice;
pub mod peers;
pub mod record;
pub mod roll;
pub mod sighting;
pub mod takeover;
pub mod tenure;
