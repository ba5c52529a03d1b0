//! One seed's world: a cluster, a broker, the replicas between them, all in virtual time on one thread.
//!
//! ```text
//!  lives of pods ──▶ etcd ◀──── API server ◀──wire──┐
//!                     │                             ├── processes (whole replicas) ◀── faults
//!                     ▼                  Kafka ◀──wire──┘
//!                   truth ──▶ oracle ◀── transactions
//! ```
//! The servers refuse what the real ones refuse. Nothing here judges: the oracle does.

pub mod api;
pub mod broker;
pub mod etcd;
pub mod journal;
pub mod lives;
pub mod logs;
pub mod process;
pub mod replica;
pub mod watching;
pub mod wire;

use std::{
    collections::BTreeMap,
    future::Future,
    num::NonZeroU32,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use jiff::Timestamp;
use pod_monitor::leadership::tenure::Tenure;
use tokio::{
    sync::Notify,
    time::{Instant, sleep_until},
};
use tokio_util::task::TaskTracker;

use self::{broker::Broker, etcd::Etcd, process::Process};
use crate::{oracle::Gap, plants::Plant, random::Random, trace::Trace};

/// The wall clocks' beginning: 2026-03-01.
const EPOCH_SECOND: i64 = 1_772_323_200;

/// What differs from seed to seed besides chance itself.
#[derive(Debug, Clone, Copy)]
pub struct Setting {
    pub shards: NonZeroU32,
    pub lease_seconds: u64,
    pub renew_deadline: Duration,
    pub retry_period: Duration,
    pub reconcile_interval: Duration,
    pub page_pods: usize,
    pub pods: u64,
    pub chaos: Duration,
    /// How many of a hundred ends of transactions break off and arrive late, on a connection that the client has left.
    pub straggling_percent: u64,
    /// Largest record that the broker takes, in bytes.
    pub record_bytes_max: usize,
}

/// Everything that is shared. All of it runs on one thread: the locks are never contended.
pub struct World {
    pub setting: Setting,
    pub plant: Option<Plant>,
    pub began: Instant,
    pub tasks: TaskTracker,
    pub etcd: Mutex<Etcd>,
    pub broker: Mutex<Broker>,
    random: Mutex<Random>,
    trace: Mutex<Trace>,
    observed: Mutex<Observed>,
}

/// What the world noticed for the oracle.
#[derive(Default)]
pub struct Observed {
    /// What no watch could show any more.
    pub gaps: Vec<Gap>,
    /// Wrong by themselves: two permits at once, a part that panicked.
    pub wrongs: Vec<String>,
    /// A wrong notice or an edited Lease excuses two permits at once.
    pub permits_excused: bool,
    permits: Vec<(Arc<Process>, Tenure)>,
    /// Gaps that a process met and has not watched behind yet: (from, newest LIST since).
    open_gaps: BTreeMap<String, (u64, u64)>,
}

impl Observed {
    /// A watch of pods from here on was refused: 410.
    pub fn expired(&mut self, who: &str, from: u64) {
        let gap = self.open_gaps.entry(who.to_owned()).or_insert((from, from));
        gap.0 = gap.0.min(from);
    }

    /// A LIST of pods was answered.
    pub fn listed(&mut self, who: &str, version: u64) {
        if let Some(gap) = self.open_gaps.get_mut(who) {
            gap.1 = gap.1.max(version);
        }
    }

    /// A watch of pods was opened.
    pub fn watches(&mut self, who: &str) {
        if let Some((after, until)) = self.open_gaps.remove(who) {
            self.gaps.push(Gap { after, until });
        }
    }

    /// Every gap until now.
    pub fn all_gaps(&self) -> Vec<Gap> {
        let open = self.open_gaps.values().map(|(after, until)| Gap { after: *after, until: *until });
        self.gaps.iter().copied().chain(open).collect()
    }
}

impl World {
    pub fn new(seed: u64, setting: Setting, plant: Option<Plant>, trace: Trace) -> Arc<Self> {
        Arc::new(Self {
            setting,
            plant,
            began: Instant::now(),
            tasks: TaskTracker::new(),
            etcd: Mutex::new(Etcd::new()),
            broker: Mutex::new(Broker::new(setting.record_bytes_max)),
            random: Mutex::new(Random::new(seed).fork(1)),
            trace: Mutex::new(trace),
            observed: Mutex::new(Observed::default()),
        })
    }

    /// Runs beside everything else, until the world ends.
    pub fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        drop(self.tasks.spawn(task));
    }

    /// Draws from the world's own chance.
    pub fn draw<T>(&self, draw: impl FnOnce(&mut Random) -> T) -> T {
        draw(&mut lock(&self.random))
    }

    pub fn etcd(&self) -> MutexGuard<'_, Etcd> {
        lock(&self.etcd)
    }

    pub fn broker(&self) -> MutexGuard<'_, Broker> {
        lock(&self.broker)
    }

    pub fn observed(&self) -> MutexGuard<'_, Observed> {
        lock(&self.observed)
    }

    pub fn planted(&self, plant: Plant) -> bool {
        self.plant == Some(plant)
    }

    /// True time.
    pub fn now(&self) -> Timestamp {
        wall(self.began, 0)
    }

    /// Notes what happened, for replay and for people.
    pub fn note(&self, who: &str, what: std::fmt::Arguments<'_>) {
        lock(&self.trace).note(self.began.elapsed(), who, what);
    }

    pub fn trace(&self) -> Trace {
        lock(&self.trace).clone()
    }

    pub fn wrong(&self, what: String) {
        self.note("world", format_args!("wrong: {what}"));
        self.observed().wrongs.push(what);
    }

    /// Looks whether more than one replica has a permit that is not over.
    pub fn acts(&self, process: &Arc<Process>, tenure: &Tenure) {
        let now = Instant::now();
        let mut observed = self.observed();
        observed.permits.retain(|(process, tenure)| !process.is_dead() && !tenure.is_over(now));
        observed.permits.retain(|(known, _)| known.identity != process.identity);
        if !tenure.is_over(now) {
            observed.permits.push((Arc::clone(process), tenure.clone()));
        }
        if observed.permits.len() > 1 && !observed.permits_excused {
            let who: Vec<&str> = observed.permits.iter().map(|(process, _)| process.identity.as_str()).collect();
            let what = format!("two permits at once: {}", who.join(", "));
            observed.permits.clear();
            drop(observed);
            self.wrong(what);
        }
    }
}

/// A wall clock that is `skew_ms` ahead.
pub fn wall(began: Instant, skew_ms: i64) -> Timestamp {
    let elapsed = i64::try_from(began.elapsed().as_millis()).expect("a world is short");
    Timestamp::from_millisecond(EPOCH_SECOND * 1000 + elapsed + skew_ms).expect("a time of this century")
}

/// Lets virtual time pass.
pub async fn after(pause: Duration) {
    sleep_until(Instant::now() + pause).await;
}

/// Waits until `holds`, which is looked at whenever `notify` says so. Unlike tokio's watch, whose waiters are woken in an
/// order drawn at random, this wakes in the order of waiting: a seed replays.
pub async fn until(notify: &Notify, holds: impl Fn() -> bool) {
    loop {
        let notified = notify.notified();
        if holds() {
            return;
        }
        notified.await;
    }
}

pub fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
