//! From one generation of the changelog to the next, with another number of shards: offline, and begun anew after a death
//! at any step.
//!
//! ```text
//!   read ──▶ done already? ──▶ say so
//!     │ due
//!     ▼
//!   take every Lease ─▶ prepare topics ─▶ fence every old shard, a barrier in each ─▶ read up to the barriers
//!                                                                                          │
//!   switch, in one transaction over both topics ◀── until nothing differs ◀── copy, in many transactions
//!     meta/moved in each old shard, meta/identity, meta/position, meta/inherited in each new one
//! ```
//! Before the switch the old generation is the truth, after it the new one. The Leases only keep replicas from getting in
//! the way; what makes it safe is INV-17: nothing was written to an old shard after its barrier, and whoever takes one over
//! while the switch is on its way cannot read past it before it is decided.
//!
//! [`Books`] is the edge to the outside, so that a death after each step can be played through.

pub mod held;
pub mod holds;
pub mod kafka;
pub mod plan;

use self::{
    held::Held,
    plan::{Plan, Refusal, Standing, Switch, Wish, Write, chunks},
};
use crate::{
    failpoint,
    publish::{generation::Moved, identity::Identity},
};

/// Bytes of keys and values in one transaction, unless one record alone is larger.
const CHUNK_BYTES_MAX: usize = 8 << 20;
/// Looks at the new shards until nothing differs: the first finds what is to be done, the second that it was.
const LOOKS_MAX: u32 = 3;

/// Both generations' changelogs and the Leases.
pub trait Books: Send {
    /// Why something could not be done.
    type Error: std::error::Error + Send + Sync + 'static;

    /// What the old shards hold. Once they are fenced: at least up to the barriers, and nothing stands behind those.
    fn read_old(&mut self) -> impl Future<Output = Result<Vec<Held>, Self::Error>> + Send;

    /// What the new shards hold.
    fn read_new(&mut self) -> impl Future<Output = Result<Vec<Held>, Self::Error>> + Send;

    /// Looks at the topics of both generations; makes what is missing of the new one, where that is wished.
    fn prepare(&mut self, old: &Identity, new: &Identity) -> impl Future<Output = Result<(), Self::Error>> + Send;

    /// Takes the Leases of this many shards, old and new; they are held from then on.
    fn take(&mut self, shards: u32) -> impl Future<Output = Result<(), Self::Error>> + Send;

    /// Makes every earlier producer of the old shards unable to write, and writes a barrier to each.
    fn fence(&mut self) -> impl Future<Output = Result<(), Self::Error>> + Send;

    /// Whether to go on: nobody asked to stop, and no Lease was lost.
    ///
    /// # Errors
    /// If not.
    fn go_on(&mut self) -> Result<(), Self::Error>;

    /// Writes to the new shards, all or nothing.
    fn write(&mut self, writes: &[Write<'_>]) -> impl Future<Output = Result<(), Self::Error>> + Send;

    /// Makes the new generation the truth, all or nothing; not if anything was written behind a barrier.
    fn switch(&mut self, switch: &Switch) -> impl Future<Output = Result<(), Self::Error>> + Send;
}

/// Why it did not come to its end.
#[derive(Debug, thiserror::Error)]
pub enum Error<E: std::error::Error + 'static> {
    /// It must not be done.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// Something could not be done; begun anew it may be.
    #[error(transparent)]
    Books(E),
    /// What was written is not what is found.
    #[error("{left} records of the new shards still differ after they were written: somebody else writes to them")]
    Restless {
        /// How many.
        left: usize,
    },
}

/// What is done, or would be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Summary {
    /// Pods per old shard.
    pub from: Vec<usize>,
    /// Pods per new shard.
    pub to: Vec<usize>,
    /// Records that no release of this format can read, copied as they are.
    pub unreadable: usize,
    /// Records that two old shards had.
    pub doubled: usize,
    /// Records written to the new shards by this run, tombstones among them.
    pub written: usize,
    /// Where the truth is then.
    pub moved: Moved,
}

/// How it ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// It had been done before.
    Already(Moved),
    /// It is done.
    Switched(Summary),
}

/// What is heard of while it works.
pub type Tell<'a> = &'a (dyn Fn(Step) + Send + Sync);

/// What is begun.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// The topics are looked at.
    Prepare,
    /// The Leases are taken.
    Take,
    /// The old shards are fenced.
    Fence,
    /// This many records are written to the new shards.
    Copy {
        /// So far.
        done: usize,
        /// Of so many.
        all: usize,
    },
    /// The new generation becomes the truth.
    Switch,
}

/// What would be done; nothing is touched.
///
/// # Errors
/// When it must not be, or the changelog cannot be read.
pub async fn survey<B: Books>(books: &mut B, wish: &Wish) -> Result<Outcome, Error<B::Error>> {
    Ok(match due(books, wish).await? {
        Err(moved) => Outcome::Already(moved),
        Ok((old, found)) => {
            let plan = wish.plan(&found, &old)?;
            Outcome::Switched(summary(wish.moved(&found), &old, &plan, 0))
        }
    })
}

fn summary(moved: Moved, old: &[Held], plan: &Plan<'_>, written: usize) -> Summary {
    Summary {
        from: old.iter().map(|held| held.pods.len()).collect(),
        to: plan.counts(),
        unreadable: plan.unreadable,
        doubled: plan.doubled,
        written,
        moved,
    }
}

/// Does it, or what is left of it.
///
/// # Errors
/// When it must not be done, or something could not be.
pub async fn run<B: Books>(
    books: &mut B,
    wish: &Wish,
    records_max: usize,
    tell: Tell<'_>,
) -> Result<Outcome, Error<B::Error>> {
    // Before anything is touched: replicas of the new generation may be at work.
    let (found, identity) = match due(books, wish).await? {
        Ok((old, found)) => {
            wish.plan(&found, &old)?;
            let switch = wish.switch(&found, &old);
            (found, switch.identity)
        }
        Err(moved) => return Ok(Outcome::Already(moved)),
    };
    tell(Step::Take);
    books.take(found.shards.max(identity.shards)).await.map_err(Error::Books)?;
    // Where a replica leads, nothing is left behind.
    tell(Step::Prepare);
    books.prepare(&found, &identity).await.map_err(Error::Books)?;
    failpoint::reached("reshard-taken");
    tell(Step::Fence);
    books.fence().await.map_err(Error::Books)?;
    failpoint::reached("reshard-fenced");
    books.go_on().map_err(Error::Books)?;
    // Another one may have done it while we waited for the Leases.
    let (old, found) = match due(books, wish).await? {
        Ok(due) => due,
        Err(moved) => return Ok(Outcome::Already(moved)),
    };
    failpoint::reached("reshard-read");
    let plan = wish.plan(&found, &old)?;
    let moved = wish.moved(&found);
    let written = copy(books, &moved, &plan, records_max, tell).await?;
    failpoint::reached("reshard-copied");
    books.go_on().map_err(Error::Books)?;
    tell(Step::Switch);
    books.switch(&wish.switch(&found, &old)).await.map_err(Error::Books)?;
    failpoint::reached("reshard-switched");
    Ok(Outcome::Switched(summary(moved, &old, &plan, written)))
}

/// What the old shards hold and whose they are, if it is to be done; else where the truth is.
async fn due<B: Books>(books: &mut B, wish: &Wish) -> Result<Result<(Vec<Held>, Identity), Moved>, Error<B::Error>> {
    let old = books.read_old().await.map_err(Error::Books)?;
    Ok(match wish.standing(&old)? {
        Standing::Done(moved) => Err(moved),
        Standing::Due(found) => Ok((old, found)),
    })
}

/// Writes what differs until nothing does; gives how many records that were.
async fn copy<B: Books>(
    books: &mut B,
    moved: &Moved,
    plan: &Plan<'_>,
    records_max: usize,
    tell: Tell<'_>,
) -> Result<usize, Error<B::Error>> {
    let (mut written, mut left) = (0, 0);
    for _ in 0..LOOKS_MAX {
        let new = books.read_new().await.map_err(Error::Books)?;
        if new.iter().any(|held| held.identity.is_some()) {
            let (topic, generation) = (moved.topic.clone(), moved.generation.saturating_sub(1));
            return Err(Refusal::InUse { topic, generation }.into());
        }
        let writes = plan.differences(&new);
        if writes.is_empty() {
            return Ok(written);
        }
        let mut done = 0;
        for chunk in chunks(&writes, records_max, CHUNK_BYTES_MAX) {
            tell(Step::Copy { done, all: writes.len() });
            books.go_on().map_err(Error::Books)?;
            books.write(chunk).await.map_err(Error::Books)?;
            done += chunk.len();
            failpoint::reached("reshard-chunk");
        }
        (written, left) = (written + done, writes.len());
    }
    Err(Error::Restless { left })
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
#[path = "steps_tests.rs"]
mod tests;
