//! Tests against a real Kafka. They need `POD_MONITOR_TEST_KAFKA=host:port` (`cargo xtask test` sets it); without it they
//! fail. Each test uses topics and transactional ids of its own; those that break a broker use one of their own.
#![allow(clippy::unwrap_used, clippy::disallowed_methods, reason = "tests measure, and stop at the first surprise")]

#[path = "../support/mod.rs"]
mod bench;
#[path = "../support/kafka.rs"]
mod kafka;

mod brokers;
mod canary;
mod check;
mod events;
mod fencing;
mod fleet;
mod outage;
mod processor;
mod relay;
mod reshard;
mod restoring;
mod rotation;
mod secure;
mod security;
mod story;
mod support;
mod switch;
mod topics;
mod transactions;
mod verify;
