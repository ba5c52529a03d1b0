//! The one place that reads clocks. Pure code gets times as arguments.

use jiff::Timestamp;

/// Now, by this machine's wall clock: for `observed_at` and log lines, never for deciding who leads.
#[allow(clippy::disallowed_methods, reason = "the named place for the wall clock")]
pub fn now() -> Timestamp {
    Timestamp::now()
}

/// Now, by the monotonic clock, on threads of our own (tasks use tokio's, which tests can turn).
#[allow(clippy::disallowed_methods, reason = "the named place for the monotonic clock")]
pub fn monotonic() -> std::time::Instant {
    std::time::Instant::now()
}

/// Pauses a thread of our own. Never call it on a thread of the async runtime.
#[allow(clippy::disallowed_methods, reason = "the named place; only dedicated threads come here")]
pub fn pause(duration: std::time::Duration) {
    std::thread::sleep(duration);
}
