//! The monitor as a process against a real API server and a real broker; statuses are written by the tests.
//!
//! Needs the stack that the environment names; a missing server fails. Tests that stop an API server or a broker use one
//! of their own, so that the others run beside them.
#![allow(clippy::unwrap_used, reason = "tests")]

#[path = "../support/kafka.rs"]
mod kafka;
#[path = "../support/mod.rs"]
mod support;

mod breakable;
mod check;
mod cleanup;
mod disaster;
mod evidence;
mod garbage;
mod giving_up;
mod ids;
mod isolation;
mod kafka_outage;
mod lease;
mod otlp;
mod outage;
mod reconcile;
mod reset;
mod reshard;
mod rights;
mod rivals;
mod shards;
mod stalls;
mod start;
mod status;
mod stopping;
mod story;
mod tampered;
