//! The journal as the worker sees it: being opened, idle, committing, or resting after trouble.
//!
//! ```text
//!   Opening ──▶ Idle ──batch──▶ Committing ──▶ Idle
//!      ▲                            │ not clean
//!      └──────── Resting ◀──────────┘        (a journal whose last answer was not clean is never used again)
//!
//!   Idle, outdated, Lease renewed since ──▶ Resting    (secrets were rotated: nothing is on its way to be given back)
//! ```

use std::{
    hash::{DefaultHasher, Hash as _, Hasher as _},
    pin::Pin,
    sync::Arc,
    time::Duration,
};

use tokio::time::{Instant, sleep};

use super::{table::InFlight, told::Ends};
use crate::{
    leadership::tenure::Tenure,
    ports::{Journal as _, Journals},
    publish::{
        Batch,
        error::{Class, CommitError, OpenError},
        restore::Restored,
        settings::TRANSACTION_TIMEOUT,
    },
    watch::stream::Backoff,
};

/// After being fenced by another producer: long enough that a rightful holder gets on. Twice as long each time, since
/// where two believe in themselves, each fences the other when it comes back.
const FENCED_REST: Duration = Duration::from_secs(1);
/// Longest rest: what the other one may not have told by then waits for us.
const FENCED_REST_MAX: Duration = Duration::from_secs(16);
/// Fences further apart than this have nothing to do with one another; those of two believers come sooner, at the latest
/// after both have rested, where there is anything to tell.
const FENCES_APART: Duration = Duration::from_secs(60);
/// Fences in a row that call for a person.
pub(super) const FENCES_ALARMING: u32 = 3;

type Boxed<T> = Pin<Box<dyn Future<Output = T> + Send>>;
type Opened<J> = Result<(<J as Journals>::Journal, Restored), OpenError>;

enum State<J: Journals> {
    Opening(Boxed<Opened<J>>),
    Idle(J::Journal),
    Committing(Boxed<(J::Journal, Result<(), CommitError>)>, Ticket),
    Resting(Boxed<()>),
}

/// What a commit is about.
#[derive(Debug)]
pub(super) struct Ticket {
    /// To be given back to the table.
    pub(super) in_flight: InFlight,
    /// Events by type, for counting.
    pub(super) told: Vec<crate::lifecycle::event::EventType>,
    /// Causes of the failures among them, for counting.
    pub(super) causes: Vec<crate::lifecycle::event::Cause>,
    /// Ends among them, for the status page.
    pub(super) ends: Option<Box<Ends>>,
    /// When the oldest observation in it was read.
    pub(super) oldest: Option<Instant>,
    /// When the commit was asked for.
    pub(super) begun: Instant,
}

/// What happened to the journal.
#[derive(Debug)]
pub(super) enum Happened {
    /// It is open: this is what has been told.
    Opened(Restored),
    /// It could not be opened; it is tried again.
    NotOpened(OpenError),
    /// A commit ended. After an error the journal is opened anew.
    Ended(Ticket, Result<(), CommitError>),
    /// A rest is over; the journal is being opened.
    Opening,
}

/// The journal of one tenure.
pub(super) struct Publishing<J: Journals> {
    journals: Arc<J>,
    tenure: Tenure,
    state: Option<State<J>>,
    backoff: Backoff,
    fences: Fences,
    /// Since when an answer of Kafka is awaited.
    waits_since: Option<Instant>,
    /// Since when there has been something to tell and nothing was committed, over as many batches as came to nothing.
    stuck_since: Option<Instant>,
    /// Since when the journal is known to be outdated.
    outdated_since: Option<Instant>,
}

/// How often in a row we were fenced by another producer. A commit between does not end the row: two believers take the
/// shard from one another, and each commits until the other is back.
#[derive(Debug, Default)]
struct Fences {
    in_a_row: u32,
    last: Option<Instant>,
}

impl Fences {
    /// One more, now; gives how long to rest.
    fn another(&mut self, who: &str, now: Instant) -> Duration {
        if self.last.is_none_or(|last| now.duration_since(last) > FENCES_APART) {
            self.in_a_row = 0;
        }
        (self.in_a_row, self.last) = (self.in_a_row + 1, Some(now));
        let full = FENCED_REST.saturating_mul(1 << (self.in_a_row - 1).min(8)).min(FENCED_REST_MAX);
        // Two that rest equally long would meet again and again.
        let mut hasher = DefaultHasher::new();
        (who, self.in_a_row).hash(&mut hasher);
        full.mul_f64(0.5 + (hasher.finish() % 1024) as f64 / 2048.0)
    }
}

impl<J: Journals + 'static> Publishing<J> {
    /// Begins to open.
    pub(super) fn new(journals: Arc<J>, tenure: Tenure) -> Self {
        let (backoff, fences) = (Backoff::of(&tenure.holder), Fences::default());
        let (waits_since, stuck_since, outdated_since) = (None, None, None);
        let mut new = Self { journals, tenure, state: None, backoff, fences, waits_since, stuck_since, outdated_since };
        new.open();
        new
    }

    /// Since when Kafka owes an answer, over as many tries as it took; `None`: it owes none.
    pub(super) fn waits_since(&self) -> Option<Instant> {
        self.waits_since
    }

    /// Since when nothing was committed although there was something to tell. An answer that is no commit ends it not: a
    /// journal that opens may be one that no batch gets through.
    pub(super) fn stuck_since(&self) -> Option<Instant> {
        self.stuck_since
    }

    /// All that there was to tell is told.
    pub(super) fn nothing_to_tell(&mut self) {
        self.stuck_since = None;
    }

    fn open(&mut self) {
        self.waits_since.get_or_insert_with(Instant::now);
        // It will be of the newest properties: what the next rotation needs is asked for then.
        self.outdated_since = None;
        let (journals, tenure) = (Arc::clone(&self.journals), self.tenure.clone());
        self.state = Some(State::Opening(Box::pin(async move { journals.open(&tenure).await })));
    }

    /// Whether the shard is taken over: the journal is idle or at work.
    pub(super) fn is_open(&self) -> bool {
        matches!(self.state, Some(State::Idle(_) | State::Committing(..)))
    }

    /// Has the journal opened anew if it is idle and outdated; whether it was. Until the Lease says once more that it is
    /// ours, the old one stays in use: who does not know yet that he was deposed would fence his successor.
    pub(super) fn renew(&mut self) -> bool {
        if !matches!(&self.state, Some(State::Idle(journal)) if journal.is_outdated()) {
            return false;
        }
        let since = *self.outdated_since.get_or_insert_with(Instant::now);
        let ours = self.tenure.is_reaffirmed(since);
        if ours {
            self.state = Some(State::Resting(Box::pin(std::future::ready(()))));
        }
        ours
    }

    /// Whether a batch may be given.
    pub(super) fn is_idle(&self) -> bool {
        matches!(self.state, Some(State::Idle(_)))
    }

    /// Whether a batch is on its way.
    pub(super) fn is_committing(&self) -> bool {
        matches!(self.state, Some(State::Committing(..)))
    }

    /// Since when a batch has been waiting for its verdict, if one is.
    pub(super) fn committing_since(&self) -> Option<Instant> {
        match &self.state {
            Some(State::Committing(_, ticket)) => Some(ticket.begun),
            _ => None,
        }
    }

    /// How often in a row we were fenced by another producer.
    pub(super) fn fences(&self) -> u32 {
        self.fences.in_a_row
    }

    /// Sends a batch on its way. Call it only when idle.
    pub(super) fn commit(&mut self, batch: Batch, ticket: Ticket) {
        let Some(State::Idle(mut journal)) = self.state.take() else {
            unreachable!("a batch is formed only while the journal is idle");
        };
        let commit = async move {
            let ended = journal.commit(batch).await;
            (journal, ended)
        };
        self.state = Some(State::Committing(Box::pin(commit), ticket));
        let now = Instant::now();
        self.waits_since = Some(now);
        self.stuck_since.get_or_insert(now);
    }

    /// Waits for what happens next; for ever when idle. Cancelling loses nothing.
    pub(super) async fn next(&mut self) -> Happened {
        match self.state.as_mut() {
            Some(State::Opening(opening)) => {
                let opened = opening.await;
                self.opened(opened)
            }
            Some(State::Committing(commit, _)) => {
                let (journal, ended) = commit.await;
                self.ended(journal, ended)
            }
            Some(State::Resting(rest)) => {
                rest.await;
                self.open();
                Happened::Opening
            }
            Some(State::Idle(_)) | None => std::future::pending().await,
        }
    }

    fn opened(&mut self, opened: Opened<J>) -> Happened {
        match opened {
            Ok((journal, restored)) => {
                self.waits_since = None;
                self.state = Some(State::Idle(journal));
                Happened::Opened(restored)
            }
            Err(error) => {
                match error.class() {
                    Class::Fenced => self.fenced(),
                    Class::Transient | Class::Fatal => self.rest(),
                }
                Happened::NotOpened(error)
            }
        }
    }

    fn ended(&mut self, journal: J::Journal, ended: Result<(), CommitError>) -> Happened {
        let Some(State::Committing(_, ticket)) = self.state.take() else {
            unreachable!("only a commit ends");
        };
        match &ended {
            Ok(()) => {
                self.backoff.reset();
                self.answered();
                self.state = Some(State::Idle(journal));
                // Where there is always something to tell, it is idle at no other time.
                self.renew();
            }
            // The journal says by its next answer whether it is still good.
            Err(CommitError::TooLarge { .. } | CommitError::Refused { .. }) => {
                self.answered();
                self.state = Some(State::Idle(journal));
            }
            // Later than that it may have been our own transaction that timed out: no rival, but no less refused.
            Err(CommitError::Fenced { .. }) if ticket.begun.elapsed() >= TRANSACTION_TIMEOUT => {
                self.answered();
                self.ask_the_lease(Duration::ZERO);
            }
            Err(CommitError::Fenced { .. }) => self.fenced(),
            // Who was held up may have been deposed meanwhile.
            Err(CommitError::Outdated { .. }) => self.ask_the_lease(Duration::ZERO),
            Err(_) => self.rest(),
        }
        Happened::Ended(ticket, ended)
    }

    fn fenced(&mut self) {
        let rest = self.fences.another(&self.tenure.holder, Instant::now());
        self.answered();
        self.ask_the_lease(rest);
    }

    /// Kafka has said what became of a batch, or that we are not the one to tell it.
    fn answered(&mut self) {
        (self.waits_since, self.stuck_since) = (None, None);
    }

    /// Being fenced does not prove a successor: the Lease decides between fencing anew and standing by.
    fn ask_the_lease(&mut self, rest: Duration) {
        let (tenure, fenced_at, pause) = (self.tenure.clone(), Instant::now(), self.backoff.pause().max(rest));
        self.state = Some(State::Resting(Box::pin(async move {
            sleep(pause).await;
            tenure.reaffirmed(fenced_at).await;
        })));
    }

    fn rest(&mut self) {
        let pause = self.backoff.pause();
        self.state = Some(State::Resting(Box::pin(sleep(pause))));
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

    use tokio_util::sync::CancellationToken;

    use super::*;
    use crate::{
        leadership::tenure::{
            ShardId,
            tests::{Renewals, renewable},
        },
        ports::{Journal, Readiness},
    };

    /// Journals that are outdated when this says so, and how many were opened.
    #[derive(Default)]
    struct Aging {
        outdated: Arc<AtomicBool>,
        held_up: Arc<AtomicBool>,
        opened: AtomicU32,
    }

    struct Aged {
        outdated: Arc<AtomicBool>,
        held_up: Arc<AtomicBool>,
    }

    impl Journal for Aged {
        async fn commit(&mut self, _: Batch) -> Result<(), CommitError> {
            let held_up = self.held_up.swap(false, Ordering::SeqCst);
            if held_up { Err(CommitError::Outdated { shard: ShardId(0) }) } else { Ok(()) }
        }

        fn is_outdated(&self) -> bool {
            self.outdated.load(Ordering::SeqCst)
        }
    }

    impl Journals for Aging {
        type Journal = Aged;

        fn is_answered(&self, _: ShardId) -> bool {
            true
        }

        fn lag_records(&self, _: ShardId) -> Option<u64> {
            None
        }

        fn stand_by(&self, _: ShardId) -> Result<(), OpenError> {
            Ok(())
        }

        fn readiness(&self, _: ShardId) -> Result<Readiness, OpenError> {
            Ok(Readiness::Warm)
        }

        async fn open(&self, _: &Tenure) -> Result<(Aged, Restored), OpenError> {
            self.opened.fetch_add(1, Ordering::SeqCst);
            // Anew with what was rotated.
            self.outdated.store(false, Ordering::SeqCst);
            let (outdated, held_up) = (Arc::clone(&self.outdated), Arc::clone(&self.held_up));
            Ok((Aged { outdated, held_up }, Restored::default()))
        }
    }

    fn ticket() -> Ticket {
        let (told, causes, ends) = (Vec::new(), Vec::new(), None);
        Ticket { in_flight: InFlight::default(), told, causes, ends, oldest: None, begun: Instant::now() }
    }

    /// One whose journal is open and outdated, and that has heard nothing of its Lease since.
    async fn rotated() -> (Arc<Aging>, Publishing<Aging>, Renewals) {
        let journals = Arc::new(Aging::default());
        let (tenure, renewals) = renewable(ShardId(0), "me");
        let mut publishing = Publishing::new(Arc::clone(&journals), tenure);
        assert!(matches!(publishing.next().await, Happened::Opened(_)));
        journals.outdated.store(true, Ordering::SeqCst);
        assert!(!publishing.renew(), "nothing was heard of the Lease since");
        (journals, publishing, renewals)
    }

    #[tokio::test]
    async fn an_outdated_journal_is_opened_anew_between_two_batches_and_no_batch_fails() {
        let journals = Arc::new(Aging::default());
        let tenure = Tenure::unconditional(ShardId(0), "me", CancellationToken::new());
        let mut publishing = Publishing::new(Arc::clone(&journals), tenure);
        assert!(matches!(publishing.next().await, Happened::Opened(_)));
        assert!(!publishing.renew() && publishing.is_idle(), "nothing was rotated");
        // While it is idle.
        journals.outdated.store(true, Ordering::SeqCst);
        assert!(publishing.renew() && !publishing.is_idle());
        assert!(matches!(publishing.next().await, Happened::Opening));
        assert!(matches!(publishing.next().await, Happened::Opened(_)));
        // While a batch is on its way: that one has its verdict first.
        publishing.commit(Batch::default(), ticket());
        journals.outdated.store(true, Ordering::SeqCst);
        assert!(!publishing.renew() && publishing.is_committing());
        assert!(matches!(publishing.next().await, Happened::Ended(_, Ok(()))));
        assert!(matches!(publishing.next().await, Happened::Opening));
        assert!(matches!(publishing.next().await, Happened::Opened(_)));
        assert_eq!(journals.opened.load(Ordering::SeqCst), 3);
    }

    #[tokio::test(start_paused = true)]
    async fn an_outdated_journal_stays_in_use_until_the_lease_is_ours_once_more() {
        let (journals, mut publishing, renewals) = rotated().await;
        publishing.commit(Batch::default(), ticket());
        assert!(matches!(publishing.next().await, Happened::Ended(_, Ok(()))));
        assert!(publishing.is_idle(), "events go on meanwhile");
        tokio::time::advance(Duration::from_secs(1)).await;
        assert!(!publishing.renew(), "time is no answer");
        renewals.renewed();
        assert!(publishing.renew() && !publishing.is_idle());
        assert!(matches!(publishing.next().await, Happened::Opening));
        assert!(matches!(publishing.next().await, Happened::Opened(_)));
        assert_eq!(journals.opened.load(Ordering::SeqCst), 2);
    }

    #[tokio::test(start_paused = true)]
    async fn a_journal_that_was_opened_anew_by_another_way_asks_the_lease_anew_at_the_next_rotation() {
        let (journals, mut publishing, renewals) = rotated().await;
        journals.held_up.store(true, Ordering::SeqCst);
        publishing.commit(Batch::default(), ticket());
        assert!(matches!(publishing.next().await, Happened::Ended(_, Err(CommitError::Outdated { .. }))));
        assert!(publishing.waits_since().is_some(), "Kafka has not answered");
        tokio::time::advance(Duration::from_millis(1)).await;
        renewals.renewed();
        assert!(matches!(publishing.next().await, Happened::Opening));
        assert!(matches!(publishing.next().await, Happened::Opened(_)));
        // Hours later.
        journals.outdated.store(true, Ordering::SeqCst);
        assert!(!publishing.renew(), "that renewal was before this rotation");
    }

    #[tokio::test(start_paused = true)]
    async fn a_batch_that_comes_to_nothing_again_and_again_is_waited_for_since_the_first_try() {
        let journals = Arc::new(Aging::default());
        let tenure = Tenure::unconditional(ShardId(0), "me", CancellationToken::new());
        let mut publishing = Publishing::new(Arc::clone(&journals), tenure);
        assert!(matches!(publishing.next().await, Happened::Opened(_)) && publishing.stuck_since().is_none());
        let begun = Instant::now();
        for _ in 0..3 {
            journals.held_up.store(true, Ordering::SeqCst);
            publishing.commit(Batch::default(), ticket());
            tokio::time::advance(Duration::from_secs(20)).await;
            assert!(matches!(publishing.next().await, Happened::Ended(_, Err(CommitError::Outdated { .. }))));
            assert!(matches!(publishing.next().await, Happened::Opening));
            assert!(matches!(publishing.next().await, Happened::Opened(_)));
            assert_eq!(
                (publishing.waits_since(), publishing.stuck_since()),
                (None, Some(begun)),
                "it opens, and no more"
            );
        }
        publishing.commit(Batch::default(), ticket());
        assert!(matches!(publishing.next().await, Happened::Ended(_, Ok(()))) && publishing.stuck_since().is_none());
        publishing.commit(Batch::default(), ticket());
        publishing.nothing_to_tell();
        assert!(publishing.stuck_since().is_none());
    }

    #[test]
    fn fences_in_a_row_are_counted_over_commits_and_rest_longer_each_time() {
        let (mut fences, mut now) = (Fences::default(), Instant::now());
        for (n, full) in [1_u32, 2, 4, 8, 16, 16, 16].into_iter().enumerate() {
            let (rest, full) = (fences.another("me", now), Duration::from_secs(full.into()));
            assert!(rest >= full / 2 && rest <= full, "fence {n}: {rest:?} of {full:?}");
            assert_eq!(fences.in_a_row as usize, n + 1);
            now += rest + FENCED_REST_MAX;
        }
        now += FENCES_APART;
        assert!(fences.another("me", now) <= FENCED_REST, "another story");
        assert_eq!(fences.in_a_row, 1);
    }
}
