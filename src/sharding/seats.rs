//! One replica's part in all shards: for each an election and what acts by it, beside one another.
//!
//! ```text
//!   member ─▶ shard k is warm ─▶ ┌ election k ──Tenure──▶ replica k (its worker) ┐ for each shard k
//!                                └ … a shard that fails leaves the others alone  ┘
//!   stop ─▶ no member any more ─▶ every election lets its Lease go
//! ```

use std::{future::Future, pin::Pin};

use tokio::{sync::mpsc, task::JoinError, task::JoinSet};
use tokio_util::sync::CancellationToken;

use super::members::Members;
use crate::{
    leadership::elector::{Elector, Granted},
    logs::streams::LogSource,
    ports::Journals,
    replica::{Replica, Watcher},
    worker,
};

/// A part that runs for itself.
pub type Running = Pin<Box<dyn Future<Output = Result<(), Error>> + Send>>;

/// One shard's.
pub struct Seat<J, S> {
    /// What acts.
    pub replica: Replica<J, S>,
    /// Who may.
    pub elector: Elector<Watcher>,
    /// From the one to the other.
    pub tenures: mpsc::Receiver<Granted>,
}

/// Why no shard can go on.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A worker, or the changelog does not fit.
    #[error(transparent)]
    Worker(#[from] worker::Error),
    /// A task died: a bug.
    #[error("a part of the monitor ended unexpectedly")]
    Part(#[source] JoinError),
}

/// Runs until `stop`, or until one of them cannot go on. `spawned`: what each part is run in.
///
/// # Errors
/// As [`Error`] says; the process should end.
pub async fn run<J: Journals + 'static, S: LogSource + Clone>(
    seats: Vec<Seat<J, S>>,
    members: Option<Members>,
    stop: CancellationToken,
    spawned: impl Fn(Running) -> Running,
) -> Result<(), Error> {
    let (electors_stop, mut parts) = (CancellationToken::new(), JoinSet::new());
    let joined = CancellationToken::new();
    match members {
        Some(members) => {
            let (stop, joined, electors_stop) = (stop.clone(), joined.clone(), electors_stop.clone());
            parts.spawn(spawned(Box::pin(async move {
                members.run(stop, joined).await;
                // Only now: nobody takes us for the next one of what we let go.
                electors_stop.cancel();
                Ok(())
            })));
        }
        None => {
            let (stop, electors_stop) = (stop.clone(), electors_stop.clone());
            joined.cancel();
            parts.spawn(spawned(Box::pin(async move {
                stop.cancelled().await;
                electors_stop.cancel();
                Ok(())
            })));
        }
    }
    for seat in seats {
        parts.spawn(spawned(Box::pin(seat.run(joined.clone(), electors_stop.clone()))));
    }
    while let Some(ended) = parts.join_next().await {
        ended.map_err(Error::Part)??;
    }
    Ok(())
}

impl<J: Journals + 'static, S: LogSource + Clone> Seat<J, S> {
    /// Each shard by itself: one whose changelog cannot be read keeps no other one waiting. The first of the two to fail
    /// ends both; an orderly end of one is waited for by the other.
    async fn run(self, joined: CancellationToken, stop: CancellationToken) -> Result<(), Error> {
        let prepared = async {
            self.replica.prepare().await?;
            joined.cancelled().await;
            Ok(())
        };
        let Some(prepared) = stop.run_until_cancelled(prepared).await else { return Ok(()) };
        prepared.map_err(worker::Error::Open)?;
        let election = async { self.elector.run(stop).await.map_err(Error::Part) };
        let acting = async { self.replica.run(self.tenures).await.map_err(Error::Worker) };
        tokio::try_join!(biased; election, acting).map(|_| ())
    }
}
