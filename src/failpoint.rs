//! Deaths at named steps. A process that was started with `POD_MONITOR_DIE_AT=<step>` aborts when it first comes to that
//! step; `chaos/` kills replicas in each step of a change of hands by it.
//!
//! Steps: the legs of a take-over (`acquired` to `first_commit`, `leadership/takeover.rs`), and
//!
//! | step | dies |
//! | --- | --- |
//! | `shot` | between two shots of a fence |
//! | `sent` | with every record of a transaction with events delivered, and no commit asked for |
//! | `committed` | with its commit acknowledged, and nobody told of it |
//! | `drained` | with its transaction settled, before the Lease is released |
//! | `released` | after the release, before the process ends |
//! | `reshard-taken` | `pod-monitor reshard`: every Lease is held |
//! | `reshard-fenced` | every old shard is fenced and has its barrier |
//! | `reshard-read` | the old shards were read up to their barriers |
//! | `reshard-chunk-sent` | a part of the records is written, and no commit asked for |
//! | `reshard-chunk` | it is committed |
//! | `reshard-copied` | all are |
//! | `reshard-switch-sent` | the switch is written, and no commit asked for |
//! | `reshard-switched` | the new generation is the truth, and nobody was told of it |
//!
//! In builds with debug assertions only: what is released contains none of it.

/// A step is reached.
#[cfg(debug_assertions)]
pub fn reached(step: &'static str) {
    static DIE_AT: std::sync::OnceLock<Option<std::ffi::OsString>> = std::sync::OnceLock::new();
    let die_at = DIE_AT.get_or_init(|| std::env::var_os("POD_MONITOR_DIE_AT"));
    if die_at.as_deref().is_some_and(|die_at| die_at == step) {
        eprintln!("dying at {step}, as POD_MONITOR_DIE_AT says");
        // Nothing is closed, flushed or told, as by SIGKILL.
        std::process::abort();
    }
}

/// A step is reached.
#[cfg(not(debug_assertions))]
pub fn reached(_: &'static str) {}
