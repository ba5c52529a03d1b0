//! The one place that reads the wall clock. Pure code gets times as arguments.

use jiff::Timestamp;

/// Now, by this machine's wall clock: for `observed_at` and log lines, never for deciding who leads.
#[allow(clippy::disallowed_methods, reason = "the named place for the wall clock")]
pub fn now() -> Timestamp {
    Timestamp::now()
}
