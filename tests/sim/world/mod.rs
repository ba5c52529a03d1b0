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
pub mod observed;
pub mod process;
pub mod replica;
pub mod reshard;
pub mod selection;
pub mod watching;
pub mod wire;

use std::{
    future::Future,
    num::NonZeroU32,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use jiff::Timestamp;
use pod_monitor::{
    leadership::tenure::{ShardId, Tenure},
    publish::generation::FIRST,
};
use tokio::{
    sync::Notify,
    time::{Instant, sleep_until},
};
use tokio_util::task::TaskTracker;

use self::{broker::Broker, etcd::Etcd, observed::Observed, process::Process};
use crate::{plants::Plant, random::Random, trace::Trace};

/// The wall clocks' beginning: 2026-03-01.
const EPOCH_SECOND: i64 = 1_772_323_200;

/// What differs from seed to seed besides chance itself.
#[derive(Debug, Clone, Copy)]
pub struct Setting {
    pub replicas: usize,
    /// Of the first generation of the changelog.
    pub shards: NonZeroU32,
    /// Of the second one, where there is to be one.
    pub reshard_to: Option<NonZeroU32>,
    /// Replicas that start together with the world; the others join later.
    pub founders: usize,
    pub server_side: ServerSide,
    /// No message takes long: for measurements.
    pub steady: bool,
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

/// What an API server does about `shardSelector`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Filters {
    /// Does not know it: sends everything, and does not say that it left anything out.
    Ignores,
    /// Does not allow it.
    Refuses,
    Honours,
}

/// The same of all API servers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ServerSide {
    Always(Filters),
    /// They are replaced one after the other within this time: each request may meet an old or a new one.
    Rolling {
        old: Filters,
        new: Filters,
        from: Duration,
        until: Duration,
    },
}

/// `--generation` and `--shards`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Generation {
    pub number: u32,
    pub shards: NonZeroU32,
}

impl Generation {
    pub fn all(self) -> impl Iterator<Item = ShardId> {
        (0..self.shards.get()).map(ShardId)
    }
}

/// Everything that is shared. All of it runs on one thread: the locks are never contended.
pub struct World {
    pub setting: Setting,
    pub plant: Option<Plant>,
    pub began: Instant,
    pub tasks: TaskTracker,
    pub etcd: Mutex<Etcd>,
    /// Per generation, one for each shard.
    brokers: Vec<Vec<Mutex<Broker>>>,
    /// What replicas are started with.
    generation: Mutex<Generation>,
    pub resharder: Mutex<reshard::Producer>,
    random: Mutex<Random>,
    trace: Mutex<Trace>,
    observed: Mutex<Observed>,
}

impl World {
    pub fn new(seed: u64, setting: Setting, plant: Option<Plant>, trace: Trace) -> Arc<Self> {
        Arc::new(Self {
            setting,
            plant,
            began: Instant::now(),
            tasks: TaskTracker::new(),
            etcd: Mutex::new(Etcd::new()),
            brokers: Some(setting.shards).into_iter().chain(setting.reshard_to).map(brokers).collect(),
            generation: Mutex::new(Generation { number: FIRST, shards: setting.shards }),
            resharder: Mutex::default(),
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

    pub fn broker(&self, generation: u32, shard: ShardId) -> MutexGuard<'_, Broker> {
        lock(&self.brokers[(generation - FIRST) as usize][shard.0 as usize])
    }

    /// What replicas are started with now.
    pub fn generation(&self) -> Generation {
        *lock(&self.generation)
    }

    /// From now on replicas are started with this.
    pub fn set_generation(&self, generation: Generation) {
        self.note("world", format_args!("{generation:?}"));
        *lock(&self.generation) = generation;
    }

    /// What the API server that is asked now does about `shardSelector`.
    pub fn filters(&self) -> Filters {
        match self.setting.server_side {
            ServerSide::Always(filters) => filters,
            ServerSide::Rolling { old, new, from, until } => {
                let now = self.began.elapsed();
                let moment = self.draw(|random| random.ms(from.as_millis() as u64, until.as_millis() as u64));
                if now < moment { old } else { new }
            }
        }
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

    /// Looks whether more than one replica has a permit for this shard that is not over.
    pub fn acts(&self, process: &Arc<Process>, tenure: &Tenure) {
        let what = self.observed().acts(process, tenure);
        what.into_iter().for_each(|what| self.wrong(what));
    }
}

fn brokers(shards: NonZeroU32) -> Vec<Mutex<Broker>> {
    (0..shards.get()).map(|_| Mutex::default()).collect()
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
