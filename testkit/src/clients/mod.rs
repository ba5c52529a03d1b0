//! What tests, the demo and chaos use against a running stack: pods in, the monitor as a process, events out.
//!
//! Nothing here uses code of the monitor: what is judged is what a consumer of its topic would see.

pub mod access;
pub mod browser;
pub mod checker;
pub mod cluster;
pub mod collector;
pub mod distance;
pub mod fault;
pub mod history;
pub mod installation;
pub mod lives;
mod metrics;
pub mod monitor;
pub mod proxy;
pub mod replicas;
pub mod shape;

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use tokio::signal::unix::{SignalKind, signal};

/// How long to wait between two looks at a state.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// Looks until there is something to see, or `limit` is over; the error says what was waited for.
///
/// # Errors
/// When the limit is over, or when looking fails.
pub async fn until<T>(limit: Duration, what: &str, mut look: impl AsyncFnMut() -> Result<Option<T>>) -> Result<T> {
    let begun = Instant::now();
    loop {
        if let Some(seen) = look().await? {
            return Ok(seen);
        }
        if begun.elapsed() > limit {
            bail!("{what}: not within {limit:?}");
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

/// Waits for the signals that end a program at a terminal; says which one came.
///
/// # Errors
/// When the system does not tell of signals.
pub async fn asked_to_stop() -> Result<&'static str> {
    let (mut terminate, mut hangup) = (signal(SignalKind::terminate())?, signal(SignalKind::hangup())?);
    tokio::select! {
        interrupt = tokio::signal::ctrl_c() => interrupt.map(|()| "interrupted").context("wait for Ctrl-C"),
        _ = terminate.recv() => Ok("asked to end"),
        _ = hangup.recv() => Ok("the terminal is gone"),
    }
}
