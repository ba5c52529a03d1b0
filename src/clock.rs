//! The one place that reads clocks. Pure code gets times as arguments.

use std::sync::Arc;

use jiff::Timestamp;

/// A wall clock to hand around: this machine's, or one that a test sets.
#[derive(Clone)]
pub struct Wall(Arc<dyn Fn() -> Timestamp + Send + Sync>);

impl Default for Wall {
    fn default() -> Self {
        Self::by(now)
    }
}

impl Wall {
    /// A clock that shows what `read` says.
    pub fn by(read: impl Fn() -> Timestamp + Send + Sync + 'static) -> Self {
        Self(Arc::new(read))
    }

    /// What it shows now.
    pub fn now(&self) -> Timestamp {
        (self.0)()
    }
}

impl std::fmt::Debug for Wall {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Wall")
    }
}

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
