//! The journal as the worker sees it: being opened, idle, committing, or resting after trouble.
//!
//! ```text
//!   Opening ──▶ Idle ──batch──▶ Committing ──▶ Idle
//!      ▲                            │ not clean
//!      └──────── Resting ◀──────────┘        (a journal whose last answer was not clean is never used again)
//! ```

use std::{pin::Pin, sync::Arc, time::Duration};

use tokio::time::{Instant, sleep};

use super::table::InFlight;
use crate::{
    leadership::tenure::Tenure,
    ports::{Journal as _, Journals},
    publish::{
        Batch,
        error::{CommitError, OpenError},
        restore::Restored,
    },
    watch::stream::Backoff,
};

/// After being fenced: long enough that a rightful holder gets on, short enough to be back when it was our own time-out.
const FENCED_REST: Duration = Duration::from_secs(1);
/// Fences in a row, without a commit between, that call for a person.
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
    fences: u32,
}

impl<J: Journals + 'static> Publishing<J> {
    /// Begins to open.
    pub(super) fn new(journals: Arc<J>, tenure: Tenure) -> Self {
        let backoff = Backoff::of(&tenure.holder);
        let mut new = Self { journals, tenure, state: None, backoff, fences: 0 };
        new.open();
        new
    }

    fn open(&mut self) {
        let (journals, tenure) = (Arc::clone(&self.journals), self.tenure.clone());
        self.state = Some(State::Opening(Box::pin(async move { journals.open(&tenure).await })));
    }

    /// Whether a batch may be given.
    pub(super) fn is_idle(&self) -> bool {
        matches!(self.state, Some(State::Idle(_)))
    }

    /// Whether a batch is on its way.
    pub(super) fn is_committing(&self) -> bool {
        matches!(self.state, Some(State::Committing(..)))
    }

    /// How often in a row we were fenced.
    pub(super) fn fences(&self) -> u32 {
        self.fences
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
                self.state = Some(State::Idle(journal));
                Happened::Opened(restored)
            }
            Err(error) => {
                self.rest();
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
                self.fences = 0;
                self.state = Some(State::Idle(journal));
            }
            // The journal says by its next answer whether it is still good.
            Err(CommitError::TooLarge { .. }) => self.state = Some(State::Idle(journal)),
            Err(CommitError::Fenced { .. }) => {
                self.fences += 1;
                // Fenced is not deposed, our own late transaction is refused alike: the Lease says who is to act. Only
                // where it keeps saying that it is we, although somebody else fences us, do we rest first.
                let again = self.fences.saturating_sub(1).min(5);
                let rest = if again == 0 { Duration::ZERO } else { FENCED_REST.saturating_mul(1 << again) };
                let (tenure, fenced_at, pause) = (self.tenure.clone(), Instant::now(), self.backoff.pause().max(rest));
                self.state = Some(State::Resting(Box::pin(async move {
                    sleep(pause).await;
                    tenure.reaffirmed(fenced_at).await;
                })));
            }
            Err(_) => self.rest(),
        }
        Happened::Ended(ticket, ended)
    }

    fn rest(&mut self) {
        let pause = self.backoff.pause();
        self.state = Some(State::Resting(Box::pin(sleep(pause))));
    }
}
