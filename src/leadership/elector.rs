//! Runs the election of one shard: takes what is seen and heard to the pure step, and carries out what it commands.
//!
//! ```text
//!   watch of the Lease ─Seen─▶ ┌───────── elector (one task) ─────────┐ ──Tenure──▶ who acts
//!   writes ──────────Answered─▶│ Election::step ─▶ Take, Renew, ...    │ ◀──wishes── (doubts, gives up)
//!   notice of the holder ─Dead▶│   at most one write on its way        │ ◀──drained─
//!                              └───────────────────────────────────────┘
//! ```
//! `leadership/` knows neither pods nor Kafka. INV-13: whoever acts stops at `asked_at + renew_deadline`, whatever the
//! calls to the API server are doing.

use std::{future::Future, pin::Pin, sync::Arc, time::Duration};

use tokio::{
    sync::{mpsc, watch},
    task::{JoinError, JoinSet},
    time::{Instant, sleep_until},
};
use tokio_util::sync::CancellationToken;
use tracing::Instrument as _;

use super::{
    election::{Answer, At, Command, Election, Ended, GiveUp, Input, State, Times, Why},
    lease::{Error, Leases, Seen},
    record::Record,
    takeover::{Leg, TakeOver},
    tenure::{Grant, Renewed, ShardId, Tenure, Wish},
};

/// Sightings, wishes and grants that may wait.
const WAITING_MAX: usize = 16;

type Boxed<T> = Pin<Box<dyn Future<Output = T> + Send>>;

/// What the election tells those who watch over it. Must not block.
pub trait Observer: Send + Sync + 'static {
    /// The Lease is held by this identity now, or by nobody.
    fn holder(&self, holder: Option<&str>);
    /// We took it.
    fn taken(&self, why: Why);
    /// Whether taking over would be short now.
    fn is_warm(&self) -> bool;
    /// Whether this replica is the next in turn, if the shard has no leader.
    fn is_next(&self) -> bool;
    /// Whether this replica is to give the shard away, still.
    fn is_to_give(&self) -> bool;
    /// This holder is dead.
    fn dead(&self, holder: &str);
    /// Our tenure ended.
    fn ended(&self, why: Ended);
    /// The API server did not let us read or write the Lease.
    fn trouble(&self, error: Error);
}

/// What those who share the shards among the replicas have to say to one election.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cue {
    /// It may be another's turn now: see [`Observer::is_next`].
    Look,
    /// Another replica has fewer shards: to be given up, if it is ours.
    Give,
}

/// A tenure that was granted, and the way to say that it was drained.
#[derive(Debug)]
pub struct Granted {
    /// The permit.
    pub tenure: Tenure,
    drained: mpsc::Sender<()>,
}

impl Granted {
    /// Everything that was on its way is settled: the Lease may be released.
    pub async fn drained(self) {
        if self.drained.send(()).await.is_err() {
            tracing::debug!("the election is over already: there is nothing left to release");
        }
    }
}

/// Attends a holder: given its address and identity, ends when that instance is dead. Cancelled by dropping.
pub type Attend = Arc<dyn Fn(Box<str>, Box<str>) -> Pin<Box<dyn Future<Output = ()> + Send>> + Send + Sync>;

/// The election of one shard, to be run beside what acts.
pub struct Elector<O> {
    shard: ShardId,
    leases: Arc<Leases>,
    election: Election,
    observer: Arc<O>,
    attend: Attend,
    cues: mpsc::Receiver<Cue>,
    started: Instant,
    grants: mpsc::Sender<Granted>,
    wishes: (mpsc::Sender<Wish>, mpsc::Receiver<Wish>),
    drained: (mpsc::Sender<()>, mpsc::Receiver<()>),
    /// The tenure that is going on: how it is ended and extended.
    tenure: Option<(CancellationToken, watch::Sender<Renewed>)>,
    /// At most one write on its way.
    write: Option<Boxed<(Answer, Option<Error>)>>,
    /// The take-over that the write begins, if it takes the Lease.
    taking: Option<(Why, TakeOver)>,
    look: Option<Boxed<Result<Seen, Error>>>,
    /// Who is attended, and the end of it.
    notice: Option<(Record, Boxed<()>)>,
}

impl<O: Observer> Elector<O> {
    /// An election that has not begun, and where its tenures come from; those end with the election.
    pub fn new(
        shard: ShardId,
        leases: Arc<Leases>,
        me: &str,
        times: Times,
        observer: Arc<O>,
        attend: Attend,
        cues: mpsc::Receiver<Cue>,
    ) -> (Self, mpsc::Receiver<Granted>) {
        let (grants, granted) = mpsc::channel(1);
        let elector = Self {
            shard,
            leases,
            election: Election::new(me, times),
            observer,
            attend,
            cues,
            started: Instant::now(),
            grants,
            wishes: mpsc::channel(WAITING_MAX),
            drained: mpsc::channel(1),
            tenure: None,
            write: None,
            taking: None,
            look: None,
            notice: None,
        };
        (elector, granted)
    }

    /// Runs until it was asked to stop and has let the Lease go.
    ///
    /// # Errors
    /// When the task that watches the Lease dies: a bug.
    pub async fn run(mut self, stop: CancellationToken) -> Result<(), JoinError> {
        let (seen_in, mut seen) = mpsc::channel(WAITING_MAX);
        let mut watching = JoinSet::new();
        let (leases, observer) = (Arc::clone(&self.leases), Arc::clone(&self.observer));
        watching.spawn(async move { leases.watch(seen_in, |error| observer.trouble(error)).await });
        let mut stopping = false;
        while self.election.state != State::Stopped {
            let wake = self.election.wake_at().map(|at| self.started + at);
            let input = tokio::select! {
                // In this order: the deadline and the wish to stop come before everything that may be plenty.
                biased;
                () = sleep_until(wake.unwrap_or(self.started)), if wake.is_some() => Input::Wake,
                () = stop.cancelled(), if !stopping => {
                    stopping = true;
                    Input::Stop
                }
                (answer, trouble) = ready_or_never(&mut self.write) => {
                    self.write = None;
                    trouble.into_iter().for_each(|error| self.observer.trouble(error));
                    match (&answer, &self.taking) {
                        (Answer::Ours(_), Some((_, take_over))) => take_over.reached(Leg::Acquired),
                        _ => self.taking = None,
                    }
                    Input::Answered(answer)
                }
                looked = ready_or_never(&mut self.look) => {
                    self.look = None;
                    match looked {
                        Ok((record, version)) => self.seen(record, version),
                        Err(error) => {
                            self.observer.trouble(error);
                            continue;
                        }
                    }
                }
                Some((record, version)) = seen.recv() => self.seen(record, version),
                who = dead(&mut self.notice) => {
                    self.notice = None;
                    tracing::info!(shard = %self.shard, holder = %who, "holder is dead");
                    // Before it is decided what that means for this shard.
                    self.observer.dead(&who);
                    Input::Dead(who)
                }
                Some(wish) = self.wishes.1.recv() => match wish {
                    Wish::Confirm => Input::Doubted,
                    Wish::GiveUp(why) => Input::GiveUp(why),
                },
                Some(()) = self.drained.1.recv() => Input::Drained,
                Some(cue) = self.cues.recv() => match cue {
                    Cue::Look => Input::Wake,
                    // What was planned before it waited here may be out of date.
                    Cue::Give if self.observer.is_to_give() => Input::GiveUp(GiveUp::Share),
                    Cue::Give => Input::Wake,
                },
                Some(ended) = watching.join_next() => return ended,
            };
            self.take_in(input).await;
        }
        Ok(())
    }

    fn seen(&mut self, record: Option<Record>, version: super::record::Version) -> Input {
        let holder = record.as_ref().map(|record| &*record.holder).filter(|holder| !holder.is_empty());
        self.observer.holder(holder);
        self.attend(record.as_ref());
        Input::Seen(record, version)
    }

    /// Keeps a connection to the holder, if it is another and says where it is.
    fn attend(&mut self, record: Option<&Record>) {
        let other = record.filter(|record| !record.holder.is_empty() && record.holder != self.election.me);
        let Some((record, address)) = other.and_then(|record| Some((record, record.address.clone()?))) else {
            self.notice = None;
            return;
        };
        let same = |(known, _): &(Record, _)| known.holder == record.holder && known.address == record.address;
        if !self.notice.as_ref().is_some_and(same) {
            self.notice = Some((record.clone(), (self.attend)(address, record.holder.clone())));
        }
    }

    async fn take_in(&mut self, input: Input) {
        let election = Election { handicap: self.handicap(), ..self.election.clone() };
        let (next, commands) = election.step(input, self.started.elapsed());
        self.election = next;
        for command in commands {
            self.carry_out(command).await;
        }
    }

    /// One that is cold, or not the next in turn, leaves a Lease that may be taken to others for a while.
    fn handicap(&self) -> Duration {
        let first = self.observer.is_warm() && self.observer.is_next();
        if first { Duration::ZERO } else { self.election.times.retry_period }
    }

    async fn carry_out(&mut self, command: Command) {
        let leases = Arc::clone(&self.leases);
        match command {
            Command::Take(record, why) => {
                tracing::debug!(shard = %self.shard, ?why, "taking the lease");
                let silence = self.election.vacant_for(why, self.started.elapsed());
                let take_over = TakeOver::begin(self.shard, &self.election.me, why, silence);
                let span = tracing::info_span!(parent: &take_over.span(), "acquire");
                self.taking = Some((why, take_over));
                self.write = Some(Box::pin(async move { leases.take(record.as_ref()).await }.instrument(span)));
            }
            Command::Renew(version) => self.write = Some(Box::pin(async move { leases.renew(version).await })),
            Command::Release(version) => self.write = Some(Box::pin(async move { leases.release(version).await })),
            Command::Look => self.look = Some(Box::pin(async move { leases.look().await })),
            Command::Grant(asked_at, deadline) => self.grant(asked_at, deadline).await,
            Command::Extend(asked_at, deadline) => {
                if let Some((_, renewed)) = &self.tenure {
                    renewed.send_replace(self.renewed(asked_at, deadline));
                }
            }
            Command::Revoke(why) => {
                if let Some((ended, _)) = self.tenure.take() {
                    ended.cancel();
                }
                self.observer.ended(why);
            }
            Command::Done => {}
        }
    }

    fn renewed(&self, asked_at: At, deadline: At) -> Renewed {
        Renewed { asked_at: self.started + asked_at, deadline: self.started + deadline }
    }

    async fn grant(&mut self, asked_at: At, deadline: At) {
        let (renewed_in, renewed) = watch::channel(self.renewed(asked_at, deadline));
        let ended = CancellationToken::new();
        let grant = Grant { renewed, wishes: self.wishes.0.clone() };
        // A wish of an earlier tenure must not end this one.
        while self.wishes.1.try_recv().is_ok() {}
        let taken = self.taking.take();
        taken.iter().for_each(|(why, _)| self.observer.taken(*why));
        let take_over = taken.map(|(_, take_over)| take_over);
        let tenure = Tenure::granted(self.shard, &self.election.me, ended.clone(), grant, take_over);
        self.tenure = Some((ended, renewed_in));
        let granted = Granted { tenure, drained: self.drained.0.clone() };
        // The one who acts has drained the last tenure before this one could begin: there is room.
        drop(self.grants.send(granted).await);
    }
}

/// The one tenure of a process that is alone: nothing is elected and nothing released.
pub fn alone(tenure: Tenure) -> mpsc::Receiver<Granted> {
    let ((grants, granted), (drained, _)) = (mpsc::channel(1), mpsc::channel(1));
    grants.try_send(Granted { tenure, drained }).expect("a new channel has room for one");
    granted
}

/// The output of a future that is under way; never, where none is.
async fn ready_or_never<T>(future: &mut Option<Boxed<T>>) -> T {
    match future {
        Some(future) => future.as_mut().await,
        None => std::future::pending().await,
    }
}

/// The identity of the attended holder, once it is dead.
async fn dead(notice: &mut Option<(Record, Boxed<()>)>) -> Box<str> {
    match notice {
        Some((record, dead)) => {
            dead.as_mut().await;
            record.holder.clone()
        }
        None => std::future::pending().await,
    }
}
