//! One replica's life for one shard: standing by, and being its worker while a tenure lasts.
//!
//! ```text
//!   prepare: the changelog was read and fits ──▶ contend
//!   standby ──Tenure──▶ worker (fence, restore, reconcile, live, drain) ──drained──▶ standby
//!      warm: producers, tail of the changelog, connection to the API server
//! ```
//! INV-14: a replica that does not fit the changelog does not contend; one that has not read it leaves a free Lease to
//! others for a retry period.

use std::time::Duration;

use tokio::{
    sync::mpsc,
    time::{Instant, MissedTickBehavior, interval},
};

use crate::{
    cli::chain,
    clock, failpoint,
    http::{Board, Health, health::Component, status::ShardStatus},
    leadership::{
        election::{Ended, GiveUp, Times, Why},
        elector::{Granted, Observer},
        lease,
        peers::Peers,
        tenure::ShardId,
    },
    logs::streams::LogSource,
    ports::{Followed, Journals, Readiness},
    publish::error::OpenError,
    sharding::fleet::Fleet,
    telemetry::{Metrics, metrics::Role},
    watch::api::{Pods, Scope},
    worker::{self, Parts, Worker},
};

/// How often a standby says how it is.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);
/// How often it uses its connection to the API server, so that it stays open: below common idle limits of a minute.
const PROBE_LOOKS: u32 = 5;
/// While it prepares: how often it looks whether it may contend.
const PREPARE_INTERVAL: Duration = Duration::from_millis(20);
/// Failures of one shard's workers that a process outlives, within [`FAULTS_WITHIN`].
const FAULTS_MAX: usize = 3;
const FAULTS_WITHIN: Duration = Duration::from_secs(600);
const STANDBY: &str = Role::Standby.as_str();
/// The worker's loop turns every second; longer than this it is stuck.
const BEAT_AGE_MAX: Duration = Duration::from_secs(30);

/// What a replica works with for one shard.
pub struct Replica<J, S> {
    /// Which shard.
    pub shard: ShardId,
    /// What a worker gets, except for its tenure.
    pub parts: Parts<J, S>,
    /// Where loops say that they turn.
    pub health: Health,
}

impl<J: Journals + 'static, S: LogSource + Clone> Replica<J, S> {
    /// Waits until this replica may contend.
    ///
    /// # Errors
    /// When it does not fit the changelog.
    pub async fn prepare(&self) -> Result<(), OpenError> {
        let mut looks = interval(PREPARE_INTERVAL);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            looks.tick().await;
            if self.warm()? {
                return Ok(());
            }
        }
    }

    /// Whether it is warm; says so.
    fn warm(&self) -> Result<bool, OpenError> {
        self.parts.journals.stand_by(self.shard)?;
        let readiness = self.parts.journals.readiness(self.shard)?;
        self.parts.peers.reach_kafka(self.shard, readiness == Readiness::Warm);
        self.show_lag(self.parts.journals.lag_records(self.shard));
        match readiness {
            Readiness::Warm => {
                self.parts.kafka.ok();
                Ok(true)
            }
            Readiness::NotYet(why) => {
                self.parts.kafka.not_yet(why);
                Ok(false)
            }
        }
    }

    /// Stands by and acts, until no tenure can come any more.
    ///
    /// # Errors
    /// When the worker cannot go on, or the changelog does not fit any more.
    pub async fn run(self, mut tenures: mpsc::Receiver<Granted>) -> Result<(), worker::Error> {
        let mut faults = Faults::of(&self);
        loop {
            let Some(granted) = self.stand_by(&mut tenures).await? else { return Ok(()) };
            // Whoever leads speaks for itself: what was looked at last, standing by, holds no longer.
            self.parts.peers.reach_kafka(self.shard, true);
            self.parts.peers.lags(self.shard, None);
            let beat = self.health.heartbeat("worker", BEAT_AGE_MAX);
            let worker = Worker::new(self.parts.clone(), granted.tenure.clone(), beat);
            if let Err(error) = worker.run().await {
                faults.another(error)?;
                granted.tenure.give_up(GiveUp::Fault);
                granted.tenure.ended.cancelled().await;
            }
            failpoint::reached("drained");
            // At once: a successor waits for nothing else.
            granted.drained().await;
        }
    }

    /// `None`: no tenure can come any more.
    async fn stand_by(&self, tenures: &mut mpsc::Receiver<Granted>) -> Result<Option<Granted>, worker::Error> {
        let mut looks = interval(LOOK_INTERVAL);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut turn: u32 = 0;
        self.show();
        loop {
            tokio::select! {
                biased;
                granted = tenures.recv() => return Ok(granted),
                _ = looks.tick() => {
                    self.warm().map_err(worker::Error::Open)?;
                    if turn.is_multiple_of(PROBE_LOOKS) && let Some(granted) = self.probe(tenures).await {
                        return Ok(granted);
                    }
                    turn = turn.wrapping_add(1);
                }
            }
        }
    }

    /// Uses the connection that a take-over will use. A tenure that comes meanwhile does not wait for it.
    async fn probe(&self, tenures: &mut mpsc::Receiver<Granted>) -> Option<Option<Granted>> {
        let scope = self.parts.scopes.first()?;
        tokio::select! {
            biased;
            granted = tenures.recv() => Some(granted),
            () = probe(&self.parts.pods, scope, &self.parts.cluster) => None,
        }
    }

    /// How well it follows.
    fn show_lag(&self, lag_records: Option<u64>) {
        lag_records.iter().for_each(|records| self.parts.metrics.set_standby_lag(*records));
        self.parts.peers.lags(self.shard, lag_records);
        let Followed { term, tracked_pods } = self.parts.journals.followed(self.shard);
        self.parts.board.shard(self.shard.0, |known| {
            if known.role == STANDBY {
                (known.lag_records, known.tracked_pods) = (lag_records, tracked_pods);
                known.term = term.or(known.term);
            }
        });
    }

    fn show(&self) {
        self.parts.metrics.set_role(Role::Standby);
        // Only who leads is told.
        self.parts.metrics.set_standbys(0, 0);
        let shard = self.shard.0;
        let standby = |term| ShardStatus { shard, role: STANDBY, term, ..ShardStatus::default() };
        self.parts.board.shard(shard, |known| known.becomes(standby(known.term)));
    }
}

/// Failures of the workers of one shard. Where the process leads others beside it, they go on: the shard is given up. One
/// whose work fails again and again ends the process, as the failure of an only shard does: begun anew, it looks at
/// everything anew. One that Kafka does not let open is tried on, for what the others do works.
struct Faults {
    shard: ShardId,
    alone: bool,
    lately: Vec<Instant>,
}

impl Faults {
    fn of<J, S>(replica: &Replica<J, S>) -> Self {
        let others = replica.parts.identity.as_ref().is_some_and(|identity| identity.shards > 1);
        // Without an election there is nobody to give it to.
        let alone = !others || replica.parts.renew_deadline.is_none();
        Self { shard: replica.shard, alone, lately: Vec::new() }
    }

    fn another(&mut self, error: worker::Error) -> Result<(), worker::Error> {
        let now = Instant::now();
        self.lately.retain(|at| now.saturating_duration_since(*at) < FAULTS_WITHIN);
        let opens = !matches!(error, worker::Error::Open(_));
        self.lately.extend(opens.then_some(now));
        // A changelog that does not fit fits no replica of this configuration.
        let misfit = matches!(error, worker::Error::Open(OpenError::Identity { .. }));
        if self.alone || misfit || self.lately.len() > FAULTS_MAX {
            return Err(error);
        }
        tracing::error!(shard = %self.shard, error = %chain(&error), "shard given up, the others of this replica go on");
        Ok(())
    }
}

/// Twice at once: a take-over opens a watch and asks for a LIST at the same time, each on a connection of its own.
async fn probe(pods: &Pods, scope: &Scope, cluster: &Component) {
    let (one, other) = tokio::join!(pods.version(scope), pods.version(scope));
    match one.and(other) {
        Ok(_) => cluster.ok(),
        Err(error) => cluster.not_yet(chain(&error)),
    }
}

/// What the election of a shard tells to health, metrics and the status page.
pub struct Watcher {
    shard: ShardId,
    times: Times,
    lease: Component,
    metrics: Metrics,
    board: Board,
    peers: Peers,
    fleet: Fleet,
    me: String,
}

impl Watcher {
    /// For one shard.
    pub fn new(
        shard: ShardId,
        times: Times,
        lease: Component,
        metrics: Metrics,
        board: Board,
        peers: Peers,
        fleet: Fleet,
    ) -> Self {
        let me = board.identity();
        Self { shard, times, lease, metrics, board, peers, fleet, me }
    }
}

impl Observer for Watcher {
    fn holder(&self, holder: Option<&str>) {
        self.lease.ok();
        self.fleet.holder(self.shard, holder);
        self.metrics.set_holder_seen(holder.is_some());
        let now = clock::now();
        self.board.shard(self.shard.0, |known| known.held_by(holder, &self.me, now));
    }

    fn taken(&self, why: Why) {
        tracing::info!(shard = %self.shard, ?why, "lease acquired");
        self.metrics.lease_taken(why.into());
        self.fleet.leads(self.shard);
    }

    fn is_warm(&self) -> bool {
        self.peers.is_warm(self.shard)
    }

    fn is_next(&self) -> bool {
        self.fleet.is_next(self.shard)
    }

    fn is_to_give(&self) -> bool {
        self.fleet.is_to_give(self.shard)
    }

    fn dead(&self, holder: &str) {
        self.fleet.dead(holder);
    }

    fn ended(&self, why: Ended) {
        tracing::info!(shard = %self.shard, ?why, "tenure ended");
        self.metrics.tenure_ended(why.into());
        let let_go = matches!(why, Ended::GaveUp(_) | Ended::Stop);
        self.fleet.ended(self.shard, let_go);
        if let Ended::GaveUp(why) = why {
            self.peers.stands_back(self.shard, Instant::now() + self.times.stands_back(why));
        }
        if why == Ended::GaveUp(GiveUp::Share) {
            self.metrics.given_away();
        }
    }

    fn trouble(&self, error: lease::Error) {
        self.lease.not_yet(chain(&error));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::publish::{error::CommitError, fence};

    fn refused() -> worker::Error {
        worker::Error::Open(OpenError::Fence { shard: ShardId(1), source: fence::Error::Lost })
    }

    fn failed() -> worker::Error {
        worker::Error::Commit(CommitError::Spent { shard: ShardId(1) })
    }

    #[tokio::test(start_paused = true)]
    async fn a_shard_that_fails_leaves_the_others_alone_unless_its_work_fails_again_and_again() {
        let mut faults = Faults { shard: ShardId(1), alone: false, lately: Vec::new() };
        for _ in 0..20 {
            assert!(faults.another(refused()).is_ok(), "it cannot be opened: it is tried on");
        }
        for _ in 0..FAULTS_MAX {
            assert!(faults.another(failed()).is_ok());
        }
        assert!(faults.another(failed()).is_err(), "again and again");
        tokio::time::advance(FAULTS_WITHIN).await;
        assert!(faults.another(failed()).is_ok(), "another story");
        let mut only = Faults { shard: ShardId(0), alone: true, lately: Vec::new() };
        assert!(only.another(refused()).is_err() && only.another(failed()).is_err(), "an only shard ends the process");
    }
}
