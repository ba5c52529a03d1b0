//! Tests against a real Kafka. They need `POD_MONITOR_TEST_KAFKA=host:port` (`cargo xtask test` sets it); without it they
//! fail. Each test uses topics and transactional ids of its own.
#![allow(clippy::unwrap_used, clippy::disallowed_methods, reason = "tests measure, and stop at the first surprise")]

mod fencing;
mod restoring;
mod support;
mod topics;
mod transactions;
