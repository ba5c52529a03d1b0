//! The permit to act for a shard. Handing it to a function is what allows that function to fence, publish or release.

use tokio::{
    sync::{mpsc, watch},
    time::Instant,
};
use tokio_util::sync::CancellationToken;

use tracing::Span;

use super::{
    election::GiveUp,
    takeover::{Leg, Report, TakeOver},
};

/// A slice of executions with one leader.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ShardId(pub u32);

impl std::fmt::Display for ShardId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

/// The permit to act for one shard, from taking over until `ended` is cancelled.
#[derive(Debug, Clone)]
pub struct Tenure {
    /// Which shard.
    pub shard: ShardId,
    /// Unique per start of this process: who writes barriers and positions.
    pub holder: String,
    /// Cancelled when the permit is over, for whatever reason.
    pub ended: CancellationToken,
    /// The Lease that it rests on; `None` where there is no election.
    lease: Option<Grant>,
    /// How it began; `None` where there is no election.
    take_over: Option<TakeOver>,
}

/// The Lease's side of a permit.
#[derive(Debug, Clone)]
pub(super) struct Grant {
    pub(super) renewed: watch::Receiver<Renewed>,
    pub(super) wishes: mpsc::Sender<Wish>,
}

/// The last renewal that was granted.
#[derive(Debug, Clone, Copy)]
pub(super) struct Renewed {
    /// When it was asked for.
    pub(super) asked_at: Instant,
    /// When the permit is over, whatever any call is doing then.
    pub(super) deadline: Instant,
}

/// What the holder wants of the election.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Wish {
    /// To know whether it still holds the Lease.
    Confirm,
    /// To be relieved.
    GiveUp(GiveUp),
}

impl Tenure {
    /// A permit without a Lease: where there is one process only, and in tests.
    pub fn unconditional(shard: ShardId, holder: &str, ended: CancellationToken) -> Self {
        Self { shard, holder: holder.to_owned(), ended, lease: None, take_over: None }
    }

    pub(super) fn granted(
        shard: ShardId,
        holder: &str,
        ended: CancellationToken,
        lease: Grant,
        take_over: Option<TakeOver>,
    ) -> Self {
        Self { shard, holder: holder.to_owned(), ended, lease: Some(lease), take_over }
    }

    /// A leg of the take-over that this permit began with is reached.
    pub fn reached(&self, leg: Leg) {
        if let Some(take_over) = &self.take_over {
            take_over.reached(leg);
        }
    }

    /// The parent of the spans of its legs.
    pub fn take_over_span(&self) -> Span {
        self.take_over.as_ref().map_or_else(Span::none, TakeOver::span)
    }

    /// The whole take-over, once, when it is over.
    pub fn taken_over(&self) -> Option<Report> {
        self.take_over.as_ref()?.finish()
    }

    /// Whether the permit is over at `now`. Asked before each transaction: a process that was frozen cannot have
    /// noticed its own deadline.
    pub fn is_over(&self, now: Instant) -> bool {
        self.ended.is_cancelled() || self.is_expired(now)
    }

    /// Whether the Lease's time is over at `now`. Until then whoever was asked to stop may still finish what it has.
    pub fn is_expired(&self, now: Instant) -> bool {
        let deadline = self.lease.as_ref().map(|lease| lease.renewed.borrow().deadline);
        deadline.is_some_and(|deadline| now >= deadline)
    }

    /// Waits until a renewal that was asked for after `moment` is granted: whoever was fenced asks the Lease before it
    /// fences anew. Never returns where the permit ends first.
    pub async fn reaffirmed(&self, moment: Instant) {
        let Some(lease) = &self.lease else { return };
        let mut renewed = lease.renewed.clone();
        lease.wish(Wish::Confirm);
        if renewed.wait_for(|renewed| renewed.asked_at > moment).await.is_err() {
            std::future::pending().await
        }
    }

    /// Whether a renewal that was asked for after `moment` is granted; asks for one if not. For whoever goes on meanwhile.
    pub fn is_reaffirmed(&self, moment: Instant) -> bool {
        let Some(lease) = &self.lease else { return true };
        let is_reaffirmed = lease.renewed.borrow().asked_at > moment;
        if !is_reaffirmed {
            lease.wish(Wish::Confirm);
        }
        is_reaffirmed
    }

    /// Asks to be relieved: this replica cannot get on. The permit ends a moment later.
    pub fn give_up(&self, why: GiveUp) {
        if let Some(lease) = &self.lease {
            lease.wish(Wish::GiveUp(why));
        }
    }
}

impl Grant {
    fn wish(&self, wish: Wish) {
        if let Err(error) = self.wishes.try_send(wish) {
            // Full: wishes wait already, and whoever has one says so again. Closed: the tenure is over.
            tracing::debug!(%error, "the election does not take a wish now");
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use std::time::Duration;

    use super::*;

    /// Far longer than a test.
    const DEADLINE: Duration = Duration::from_secs(3600);

    /// The election's side of a permit.
    pub(crate) struct Renewals {
        renewed: watch::Sender<Renewed>,
        wishes: mpsc::Receiver<Wish>,
    }

    impl Renewals {
        /// The Lease is ours, asked for now.
        pub(crate) fn renewed(&self) {
            let asked_at = Instant::now();
            self.renewed.send_replace(Renewed { asked_at, deadline: asked_at + DEADLINE });
        }
    }

    /// A permit on a Lease that is renewed by hand.
    pub(crate) fn renewable(shard: ShardId, holder: &str) -> (Tenure, Renewals) {
        let asked_at = Instant::now();
        let (renewed, granted) = watch::channel(Renewed { asked_at, deadline: asked_at + DEADLINE });
        let (wish, wishes) = mpsc::channel(1);
        let grant = Grant { renewed: granted, wishes: wish };
        (Tenure::granted(shard, holder, CancellationToken::new(), grant, None), Renewals { renewed, wishes })
    }

    #[tokio::test(start_paused = true)]
    async fn who_asks_whether_the_lease_is_still_ours_is_answered_by_a_later_renewal_only() {
        let (tenure, mut renewals) = renewable(ShardId(0), "me");
        let asked = Instant::now();
        assert!(!tenure.is_reaffirmed(asked), "the renewal was asked for before");
        assert_eq!(renewals.wishes.try_recv(), Ok(Wish::Confirm), "the election is asked at once");
        tokio::time::advance(Duration::from_millis(1)).await;
        renewals.renewed();
        assert!(tenure.is_reaffirmed(asked));
        assert!(renewals.wishes.try_recv().is_err(), "nothing is to be asked any more");
        assert!(Tenure::unconditional(ShardId(0), "me", CancellationToken::new()).is_reaffirmed(asked));
    }
}
