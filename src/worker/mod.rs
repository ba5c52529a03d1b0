//! Where the steps of one shard meet: the only file that knows watch, lifecycle, logs and publish.
//!
//! ```text
//!  watch streams ─Notice─▶ ┌────────────────────── worker (one task) ──────────────────────┐
//!  LIST, GET tasks ──────▶ │ Table: told, pending per pod ──form──▶ Batch ──▶ Publishing    │──▶ journal
//!  capture tasks ────────▶ │   ▲                                                │          │
//!                          │   └── committed: captures begin ◀── verdict ◀──────┘          │
//!                          └────────────────────────────────────────────────────────────────┘
//! ```
//! It takes notices and pages of LISTs also while Kafka is away: they coalesce by pod. It acts only after the journal was
//! opened (fenced, restored), and nothing outside Kafka happens before the commit that remembers it.

mod captures;
mod cleanup;
mod confirm;
mod executions;
mod following;
mod intake;
mod listing;
mod notable;
mod parts;
pub mod pending;
pub mod position;
mod publishing;
mod steps;
pub mod table;
mod tenure;
mod told;

use std::{sync::Arc, time::Duration};

use jiff::Timestamp;
use tokio::{
    sync::{Semaphore, mpsc},
    task::{JoinError, JoinSet},
    time::{Instant, Interval, MissedTickBehavior, interval_at},
};
use tokio_util::time::DelayQueue;

pub use self::parts::Parts;
use self::{
    captures::Captures,
    cleanup::Cleanup,
    confirm::Confirmed,
    intake::{Feed, ListPage},
    publishing::{Happened, Publishing, Ticket},
    table::Table,
};
use crate::{
    cli::chain,
    http::health::Heartbeat,
    leadership::{takeover::Leg, tenure::Tenure},
    lifecycle::{event::Captured, wanted::Wanted},
    logs::streams::LogSource,
    memory,
    ports::Journals,
    publish::{
        Position,
        changelog::Unreadable,
        error::{Class, CommitError, OpenError},
        generation::Inherited,
        restore::Restored,
    },
    telemetry::metrics::{FenceResult, PodPart, Role, Verdict},
    watch::{
        pod::{ByUid, PodUid},
        stream::{NOTICES_MAX, Notice},
    },
};

/// How often an idle position is written: well within the minute or so for which the API server keeps events.
const POSITION_INTERVAL: Duration = Duration::from_secs(10);
/// How often the loop says that it turns.
const BEAT_INTERVAL: Duration = Duration::from_secs(1);
/// How long Kafka may keep a LIST waiting.
const PAGES_WAIT_MAX: Duration = Duration::from_secs(1);
/// What watches brought that is taken in by one turn of the loop: so few that nothing else waits for a tenth of a millisecond.
const NOTICES_A_TURN: usize = 32;
/// GETs at the same time that confirm goings.
const CONFIRMS_MAX: usize = 32;
/// A transaction that has not been answered by then is told to whoever asks whether we are ready.
const COMMIT_SLOW: Duration = Duration::from_secs(3);
/// A clock is looked at after this long at the latest: a node's own may be years ahead.
const TICK_MAX: Duration = Duration::from_secs(3600);
/// How long a stop waits for the transaction that is on its way.
const DRAIN_MAX: Duration = Duration::from_secs(10);

/// What is to be looked at again when its time has come.
enum Look {
    /// A settle grace is over.
    Settle(PodUid),
    /// A stall clock has run down.
    Tick(PodUid),
}

/// Why a worker cannot go on.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The journal will never open as configured.
    #[error("take the shard over")]
    Open(#[source] OpenError),
    /// Trying again cannot help.
    #[error("publish")]
    Commit(#[source] CommitError),
    /// A task of ours died: a bug.
    #[error("a {task} task ended unexpectedly")]
    Task {
        /// Which.
        task: &'static str,
        /// How.
        #[source]
        source: JoinError,
    },
}

/// The worker of one shard during one tenure.
pub struct Worker<J: Journals, S> {
    parts: Parts<J, S>,
    /// The permit.
    tenure: Tenure,
    /// This loop's sign of life.
    beat: Heartbeat,
    publishing: Publishing<J>,
    table: Table,
    term: u64,
    /// The position in the changelog when it was last read.
    told_until: Option<Position>,
    feeds: Vec<Feed>,
    /// What earlier generations of the changelog had worked through, while the watch may show it again.
    inherited: Option<Inherited>,
    watches: JoinSet<()>,
    notices: mpsc::Receiver<Notice>,
    notices_in: mpsc::Sender<Notice>,
    lists: JoinSet<()>,
    lists_begun: u64,
    /// A LIST was taken in: what it needed is free once its pods are decided.
    spare: bool,
    pages: mpsc::Receiver<ListPage>,
    pages_in: mpsc::Sender<ListPage>,
    confirms: JoinSet<Confirmed>,
    confirm_permits: Arc<Semaphore>,
    /// Goings that could not be confirmed for want of the right to ask.
    refused: ByUid<Confirmed>,
    captures: Captures<S>,
    cleanup: Cleanup,
    clocks: DelayQueue<Look>,
    reconcile: Interval,
    position: Interval,
    position_due: bool,
    /// Kafka does not answer us.
    gave_up: bool,
    /// A position with our term is committed.
    claimed: bool,
    /// It was said that we are.
    live: bool,
}

impl<J: Journals + 'static, S: LogSource> Worker<J, S> {
    /// A worker that has not begun.
    pub fn new(parts: Parts<J, S>, tenure: Tenure, beat: Heartbeat) -> Self {
        let (notices_in, notices) = mpsc::channel(NOTICES_MAX);
        let (pages_in, pages) = pages(&parts);
        let publishing = Publishing::new(Arc::clone(&parts.journals), tenure.clone());
        let captures = captures(&parts);
        let cleanup = cleanup(&parts);
        parts.kafka.not_yet("the journal is being opened");
        Self {
            publishing,
            table: Table::new(Vec::new()),
            term: 0,
            told_until: None,
            feeds: Vec::new(),
            inherited: None,
            watches: JoinSet::new(),
            notices,
            notices_in,
            lists: JoinSet::new(),
            lists_begun: 0,
            spare: false,
            pages,
            pages_in,
            confirms: JoinSet::new(),
            confirm_permits: Arc::new(Semaphore::new(CONFIRMS_MAX)),
            refused: ByUid::default(),
            captures,
            cleanup,
            clocks: DelayQueue::new(),
            reconcile: every(parts.reconcile_interval),
            position: every(POSITION_INTERVAL),
            position_due: false,
            gave_up: false,
            claimed: false,
            live: false,
            parts,
            tenure,
            beat,
        }
    }

    /// Runs until the tenure ends or nothing more can be done.
    ///
    /// # Errors
    /// As [`Error`] says; the process should end.
    pub async fn run(mut self) -> Result<(), Error> {
        let ended = self.tenure.ended.clone();
        let mut beat = every(BEAT_INTERVAL);
        self.show(Role::Fencing);
        loop {
            self.publish();
            tokio::select! {
                // In this order: what may be plenty comes last, so that it holds nothing else back, and the rest is rare.
                biased;
                () = ended.cancelled() => return self.drain().await,
                happened = self.publishing.next() => self.happened(happened)?,
                Some(done) = self.lists.join_next() => joined("LIST", done)?,
                Some(page) = self.pages.recv(), if self.takes_pages() => self.listed(page),
                Some(confirmed) = self.confirms.join_next() => self.confirmed(joined("GET", confirmed)?),
                Some(captured) = self.captures.next() => self.captured(joined("capture", captured)?),
                Some(watch) = self.watches.join_next() => watch_ended(watch)?,
                done = self.cleanup.next() => joined("clean-up", done)?,
                Some(due) = std::future::poll_fn(|cx| self.clocks.poll_expired(cx)), if !self.clocks.is_empty() => {
                    self.look(due.into_inner());
                }
                _ = self.reconcile.tick() => self.reconcile(),
                _ = self.position.tick() => {
                    self.position_due = true;
                    self.ask_again();
                    self.now_and_then();
                }
                _ = beat.tick() => self.turned(),
                Some(notice) = self.notices.recv() => self.noticed(notice),
            }
        }
    }

    /// A LIST waits while many pods wait to be decided, unless it is Kafka that keeps them waiting: the watch may wait for
    /// the LIST, and what comes and goes meanwhile is seen by nobody.
    fn takes_pages(&self) -> bool {
        self.table.has_room(self.parts.ready_max)
            || self.publishing.waits_since().is_some_and(|since| since.elapsed() > PAGES_WAIT_MAX)
    }

    fn turned(&mut self) {
        self.beat.beat();
        if self.publishing.is_idle() && !self.table.has_ready() {
            self.publishing.nothing_to_tell();
        }
        self.consider_giving_up();
        self.parts.metrics.set_tracked_pods(self.table.len() - self.table.remembered());
        self.parts.metrics.set_remembered_pods(self.table.remembered());
        self.show_load();
        let counted = self.parts.pods.traffic().take();
        self.parts.metrics.watched_bytes(counted.bytes);
        self.parts.metrics.foreign_pods(counted.foreign);
        self.parts.metrics.set_server_side(counted.server_side);
        let (peers, now) = (&self.parts.peers, Instant::now());
        let able = peers.reaching_kafka(self.tenure.shard, now);
        self.parts.metrics.set_standbys(able, peers.with_other_rules(now));
        self.release_held();
        if self.spare && !self.table.has_ready() && self.publishing.is_idle() {
            memory::give_back();
            self.spare = false;
        }
        if self.publishing.committing_since().is_some_and(|since| since.elapsed() > COMMIT_SLOW) {
            self.parts.kafka.not_yet("kafka does not answer: a transaction waits for its end");
        }
        self.publishing.renew();
        for (uid, captured) in self.captures.overdue() {
            self.table.captured(&uid, captured);
        }
        self.captures.begin(self.table.captures_held());
    }

    /// Group commit: what gathered while the last transaction committed goes into the next one, at once when idle.
    fn publish(&mut self) {
        // INV-13: a process that was frozen cannot have noticed that its time is over.
        if self.tenure.is_over(Instant::now())
            || !self.publishing.is_idle()
            || !(self.table.has_ready() || self.position_due)
        {
            return;
        }
        self.tell_ready();
    }

    /// One transaction of what is ready. Call it only when the journal is idle.
    fn tell_ready(&mut self) {
        let now = self.parts.wall.now();
        let listing: Vec<_> = self.feeds.iter().map(Feed::listing_since).collect();
        let formed = self.table.form(now, &self.parts.rules, &listing);
        for (until, uid) in formed.settle {
            // A node's clock may be years ahead; the grace is what was promised.
            let grace = Duration::try_from(self.parts.rules.settle_grace).unwrap_or(BEAT_INTERVAL);
            self.clocks.insert(Look::Settle(uid), until_then(now, until).min(grace));
        }
        for (at, uid) in formed.ticks {
            self.clocks.insert(Look::Tick(uid), until_then(now, at).min(TICK_MAX));
        }
        formed.claims.iter().for_each(|(pod, execution, earlier)| self.claim(pod, execution, earlier));
        formed.odd.iter().for_each(|(pod, odd)| self.odd(pod, *odd));
        formed.drift.iter().for_each(|(pod, drift)| self.drift(pod, *drift));
        // A new holder writes its term at once: the next one counts from it.
        let moved = !self.claimed || self.table.streams.iter().any(|s| s.after_commit() > s.committed());
        if formed.batch.records.is_empty() && !(self.position_due && moved) {
            self.position_due = false;
            return;
        }
        self.position_due = false;
        let mut batch = formed.batch;
        let told = batch.events.iter().map(|e| e.body.event_type()).collect();
        let causes = batch.events.iter().filter_map(|e| e.body.cause()).collect();
        let ends = told::Ends::of(&batch.events, self.tenure.shard.0);
        let holder = self.tenure.holder.clone();
        batch.position = Some(Position { term: self.term, holder, streams: self.table.positions() });
        let (in_flight, oldest, begun) = (formed.in_flight, formed.oldest, Instant::now());
        let ticket = Ticket { in_flight, told, causes, ends, oldest, begun };
        self.publishing.commit(batch, ticket);
    }

    fn happened(&mut self, happened: Happened) -> Result<(), Error> {
        match happened {
            Happened::Opening => self.show(Role::Fencing),
            Happened::Opened(restored) => self.opened(restored),
            Happened::NotOpened(error) if error.class() == Class::Fatal => return Err(Error::Open(error)),
            Happened::NotOpened(error) => {
                self.parts.metrics.fenced(FenceResult::Failed);
                if error.class() == Class::Fenced {
                    self.fenced(&error);
                }
                // Spent by a late answer: ours to open anew, and no word about Kafka, which did answer.
                if !error.is_spent() {
                    self.parts.kafka.not_yet(chain(&error));
                }
            }
            Happened::Ended(ticket, Ok(())) => self.committed(ticket),
            Happened::Ended(ticket, Err(error)) => self.not_committed(ticket, error)?,
        }
        Ok(())
    }

    fn opened(&mut self, restored: Restored) {
        self.parts.metrics.fenced(FenceResult::Ok);
        self.parts.metrics.set_restored_pods(restored.told.len());
        let foreign = self.is_foreign(restored.position.as_ref());
        (self.term, self.told_until) = (restored.next_term(), restored.position.clone());
        for odd in &restored.unreadable {
            tracing::error!(record = ?odd, "changelog record cannot be read: nothing more is told of its pod");
            self.parts.metrics.pod_unreadable(PodPart::Record);
        }
        self.show_untold(|_| restored.unreadable.len() as u64);
        self.tenure.take_over_span().in_scope(|| {
            tracing::info!(shard = %self.tenure.shard, term = self.term, pods = restored.told.len(), "shard taken over");
        });
        if foreign && !self.feeds.is_empty() {
            tracing::info!(shard = %self.tenure.shard, "another holder has told meanwhile, beginning anew");
            self.forget();
        }
        if self.feeds.is_empty() {
            self.begin_feeds(&restored);
        }
        self.table.reached(restored.position.as_ref().filter(|_| self.knows_selection(&restored)));
        let unreadable = restored.unreadable.iter().filter_map(Unreadable::pod).collect();
        let wanted = self.table.restore(restored.told, unreadable);
        self.queue_captures(wanted);
        self.parts.kafka.ok();
        self.live = self.sees_everything();
        self.show(if self.live { Role::Live } else { Role::Reconciling });
    }

    /// Whether someone else has told something since the changelog was last read: whatever is told has a position beside it.
    fn is_foreign(&self, found: Option<&Position>) -> bool {
        let ours = |p: &Position| p.holder == self.tenure.holder && p.term == self.term;
        found != self.told_until.as_ref() && !found.is_some_and(ours)
    }

    /// INV-7: what another holder told it may have forgotten too, and its position may be ahead of ours. What waits here
    /// would be told again, so that everything is looked at anew, as after a start.
    fn forget(&mut self) {
        self.feeds.clear();
        (self.notices_in, self.notices) = mpsc::channel(NOTICES_MAX);
        (self.pages_in, self.pages) = pages(&self.parts);
        (self.watches, self.lists, self.confirms) = (JoinSet::new(), JoinSet::new(), JoinSet::new());
        self.captures = captures(&self.parts);
        self.cleanup = cleanup(&self.parts);
        self.refused.clear();
        self.clocks.clear();
    }

    fn committed(&mut self, ticket: Ticket) {
        let metrics = &self.parts.metrics;
        metrics.transaction_ended(Verdict::Committed, ticket.begun.elapsed());
        ticket.told.iter().for_each(|event_type| metrics.events_committed(*event_type, 1));
        ticket.causes.iter().for_each(|cause| metrics.failure_committed(*cause));
        ticket.oldest.inspect(|oldest| metrics.observed_to_committed(oldest.elapsed()));
        self.show_ends(ticket.ends, &ticket.causes);
        // As many as one transaction buries: there are more, and nothing else may be to tell for a while.
        self.position_due |= ticket.in_flight.is_full_of_tombstones();
        let moved = ticket.in_flight.pods();
        let wanted = self.table.committed(ticket.in_flight);
        self.clean_up(&moved);
        self.claimed = true;
        self.queue_captures(wanted);
        self.parts.kafka.ok();
        self.tenure.reached(Leg::FirstCommit);
        self.taken_over();
    }

    fn not_committed(&mut self, ticket: Ticket, error: CommitError) -> Result<(), Error> {
        if let CommitError::Spent { .. } = error {
            // Nothing was tried: the last commit was, and its verdict was heard.
            tracing::info!(shard = %self.tenure.shard, "last answer of kafka came late, taking over anew");
            self.table.aborted(ticket.in_flight);
            return Ok(());
        }
        let verdict = match &error {
            CommitError::Fenced { .. } => Verdict::Fenced,
            CommitError::Unknown { .. } | CommitError::Outdated { .. } => Verdict::Unknown,
            _ => Verdict::Aborted,
        };
        self.parts.metrics.transaction_ended(verdict, ticket.begun.elapsed());
        self.table.aborted(ticket.in_flight);
        match (&error, error.class()) {
            (CommitError::TooLarge { pod_uid, .. }, _) if self.table.shrink(pod_uid) => {
                tracing::warn!(%pod_uid, error = %chain(&error), "output left out of its event");
                return Ok(());
            }
            (
                CommitError::TooLarge { pod_uid, exact: true, .. }
                | CommitError::Refused { pod_uid: Some(pod_uid), .. },
                _,
            ) => {
                // A bug of ours, and no reason to tell nothing of all others.
                tracing::error!(%pod_uid, error = %chain(&error), "nothing can be written of this pod: nothing more is told of it");
                self.parts.metrics.pod_unreadable(PodPart::Record);
                self.table.set_aside(pod_uid);
                self.show_untold(|pods| pods + 1);
                return Ok(());
            }
            // The topic takes less than it did when we started: begun anew, what is captured is cut to that.
            (CommitError::TooLarge { .. }, _) => return Err(Error::Commit(error)),
            (_, Class::Fatal) => return Err(Error::Commit(error)),
            (_, Class::Fenced) => self.fenced(&error),
            (_, Class::Transient) => {
                tracing::warn!(error = %chain(&error), "transaction not committed, taking over anew")
            }
        }
        if !error.is_spent() {
            self.parts.kafka.not_yet(chain(&error));
        }
        Ok(())
    }

    fn queue_captures(&mut self, wanted: Vec<Wanted>) {
        wanted.iter().for_each(|wanted| self.table.capturing(&wanted.target.uid));
        self.captures.ask(wanted);
        self.captures.begin(self.table.captures_held());
    }

    fn captured(&mut self, (uid, captured): (PodUid, Captured)) {
        self.table.captured(&uid, captured);
        self.captures.begin(self.table.captures_held());
    }
}

/// One page of each stream waits to be looked at, or is being asked for.
fn pages<J, S>(parts: &Parts<J, S>) -> (mpsc::Sender<ListPage>, mpsc::Receiver<ListPage>) {
    mpsc::channel(parts.scopes.len().max(1))
}

fn captures<J, S: LogSource>(parts: &Parts<J, S>) -> Captures<S> {
    let (capturer, evidence) = (parts.capturer.clone(), parts.evidence.clone());
    Captures::new(capturer, evidence, parts.report, parts.metrics.clone(), parts.capture_deadline)
}

fn cleanup<J, S>(parts: &Parts<J, S>) -> Cleanup {
    Cleanup::new(parts.cleanup.clone(), parts.pods.clone(), parts.metrics.clone())
}

fn joined<T>(task: &'static str, result: Result<T, JoinError>) -> Result<T, Error> {
    result.map_err(|source| Error::Task { task, source })
}

/// A watch that we aborted is cancelled; any other end of one is a bug.
fn watch_ended(result: Result<(), JoinError>) -> Result<(), Error> {
    match result {
        Err(error) if error.is_cancelled() => Ok(()),
        other => joined("watch", other),
    }
}

fn every(period: Duration) -> Interval {
    let mut interval = interval_at(Instant::now() + period, period);
    interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
    interval
}

fn until_then(now: Timestamp, until: Timestamp) -> Duration {
    Duration::try_from(until.duration_since(now)).unwrap_or_default()
}
