//! One seed from beginning to end: three replicas, pods, faults, then peace, then the verdict.

use std::{
    num::NonZeroU32,
    sync::{Arc, Mutex},
    time::Duration,
};

use tokio::task::{AbortHandle, JoinSet};
use tokio_util::sync::CancellationToken;

use crate::{
    faults,
    oracle::{Oracle, Part},
    plants::Plant,
    random::Random,
    trace::Trace,
    world::{Setting, World, after, api, broker::Item, lives, lock, process::Process, replica},
};

const REPLICAS: usize = 3;
/// Once nothing goes wrong any more, everything must be told within this.
const PEACE_MAX: Duration = Duration::from_secs(90);
/// Watched on when everything is told: what comes twice comes late.
const QUIET: Duration = Duration::from_secs(20);

/// How a seed ended.
pub struct Outcome {
    pub wrongs: Vec<String>,
    pub fingerprint: u64,
    pub lines: Vec<String>,
    /// Events told, changes of hands, faults: a run in which nothing happened shows nothing.
    pub events: usize,
    pub virtual_time: Duration,
}

/// Whether anything goes wrong in the world.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Weather {
    Calm,
    Rough,
}

/// Replicas and the world around them.
pub struct Cluster {
    pub world: Arc<World>,
    slots: Mutex<Vec<Slot>>,
    random: Mutex<Random>,
}

struct Slot {
    starts: u32,
    process: Arc<Process>,
    stop: CancellationToken,
    task: AbortHandle,
}

/// Runs one seed.
pub fn seed(seed: u64, weather: Weather, plant: Option<Plant>, lines: bool) -> Outcome {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
    let runtime = runtime.expect("a runtime without I/O");
    runtime.block_on(Box::pin(play(seed, weather, plant, lines)))
}

/// Late ends of transactions, in rough weather.
const STRAGGLING_PERCENT: u64 = 4;

fn setting(random: &mut Random) -> Setting {
    let (lease_seconds, deadline_ms, retry_ms) = random.pick(&[(3, 2000, 500), (5, 3000, 1000), (2, 1500, 250)]);
    Setting {
        shards: NonZeroU32::MIN,
        lease_seconds,
        renew_deadline: Duration::from_millis(deadline_ms),
        retry_period: Duration::from_millis(retry_ms),
        reconcile_interval: random.ms(3000, 20_000),
        page_pods: random.pick(&[1, 3, 1000]),
        pods: 5 + random.below(15),
        chaos: random.ms(5000, 40_000),
        straggling_percent: 0,
        record_bytes_max: random.pick(&[2000, 1 << 20]),
    }
}

async fn play(seed: u64, weather: Weather, plant: Option<Plant>, lines: bool) -> Outcome {
    let random = Random::new(seed);
    let straggling_percent = if weather == Weather::Rough { STRAGGLING_PERCENT } else { 0 };
    let setting = Setting { straggling_percent, ..setting(&mut random.fork(2)) };
    let trace = if lines { Trace::with_lines() } else { Trace::default() };
    let world = World::new(seed, setting, plant, trace);
    if plant == Some(Plant::StaleList) {
        world.spawn(api::keep_stale(Arc::clone(&world)));
    }
    let cluster =
        Arc::new(Cluster { world: Arc::clone(&world), slots: Mutex::default(), random: Mutex::new(random.fork(3)) });
    let mut replicas = JoinSet::new();
    for slot in 0..REPLICAS {
        cluster.start(slot, 0, &mut replicas);
    }
    lives::begin(&world, &random.fork(4), "exec", setting.pods, setting.chaos);
    if weather == Weather::Rough {
        world.spawn(faults::run(Arc::clone(&cluster), random.fork(5), setting.chaos));
    }
    cluster.supervise(&mut replicas, setting.chaos).await;
    world.note("world", format_args!("peace"));
    cluster.living().iter().for_each(|(_, process)| process.heal());
    lives::begin(&world, &random.fork(6), "late", 2, Duration::from_secs(1));
    let mut oracle = Oracle::new(replica::CLUSTER);
    let (mut read, mut told_since) = (0, Duration::ZERO);
    let peace = world.began.elapsed();
    while world.began.elapsed() - peace < PEACE_MAX && told_since < QUIET && oracle.wrongs().is_empty() {
        cluster.supervise(&mut replicas, Duration::from_secs(1)).await;
        take_in(&world, &mut oracle, &mut read);
        let lost = oracle.judge(&world.etcd().truth, &world.observed().all_gaps()).lost;
        told_since = if lost.is_empty() { told_since + Duration::from_secs(1) } else { Duration::ZERO };
    }
    end(&world, &oracle, read)
}

fn take_in(world: &World, oracle: &mut Oracle, read: &mut usize) {
    let broker = world.broker();
    for transaction in &broker.committed()[*read..] {
        let part = |item: &Item| match item {
            Item::Event(event) => Part::Event(event.clone()),
            Item::Record(key, value) => Part::Record(key.clone(), value.clone()),
        };
        oracle.read(*read, &transaction.items.iter().map(part).collect::<Vec<_>>());
        *read += 1;
    }
}

fn end(world: &World, oracle: &Oracle, transactions: usize) -> Outcome {
    let judgement = oracle.judge(&world.etcd().truth, &world.observed().all_gaps());
    let mut wrongs = world.observed().wrongs.clone();
    wrongs.extend_from_slice(oracle.wrongs());
    wrongs.extend(judgement.untrue);
    wrongs.extend(judgement.lost);
    world.note("world", format_args!("the end: {transactions} transactions, {} wrongs", wrongs.len()));
    let trace = world.trace();
    Outcome {
        wrongs,
        fingerprint: trace.fingerprint(),
        lines: trace.lines().to_vec(),
        events: oracle.events(),
        virtual_time: world.began.elapsed(),
    }
}

type Ended = (usize, Result<(), String>);

impl Cluster {
    pub fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        self.world.spawn(task);
    }

    fn start(&self, slot: usize, starts: u32, replicas: &mut JoinSet<Ended>) {
        let skew_ms = lock(&self.random).below(7_200_000) as i64 - 3_600_000;
        let process = Arc::new(Process::new(format!("pod-{slot}_{starts}"), skew_ms));
        let stop = CancellationToken::new();
        self.world.note(&process.identity, format_args!("starts"));
        let running = Box::pin(replica::run(Arc::clone(&self.world), Arc::clone(&process), stop.clone()));
        let task = replicas.spawn(async move { (slot, running.await) });
        let started = Slot { starts, process, stop, task };
        let mut slots = lock(&self.slots);
        match slots.get_mut(slot) {
            Some(place) => *place = started,
            None => slots.push(started),
        }
    }

    /// Starts again what has ended, as the kubelet does, for so long.
    async fn supervise(&self, replicas: &mut JoinSet<Ended>, lasts: Duration) {
        let over = after(lasts);
        tokio::pin!(over);
        loop {
            tokio::select! {
                biased;
                () = &mut over => return,
                Some(ended) = replicas.join_next_with_id() => {
                    let slot = match ended {
                        Ok((_, (slot, result))) => {
                            self.ended(slot, &result);
                            slot
                        }
                        Err(error) => {
                            let slot = self.slot_of(error.id());
                            if error.is_panic() {
                                self.world.wrong(format!("panic: {error}"));
                            }
                            slot
                        }
                    };
                    let pause = lock(&self.random).ms(10, 2000);
                    after(pause).await;
                    let starts = lock(&self.slots)[slot].starts + 1;
                    self.start(slot, starts, replicas);
                }
            }
        }
    }

    fn ended(&self, slot: usize, result: &Result<(), String>) {
        let process = Arc::clone(&lock(&self.slots)[slot].process);
        self.world.note(&process.identity, format_args!("ends: {result:?}"));
        if let Err(why) = result
            && (why.contains("panic") || why.contains("unexpectedly"))
        {
            self.world.wrong(format!("panic: {why}"));
        }
        self.obituary(&process);
        process.die();
    }

    fn slot_of(&self, id: tokio::task::Id) -> usize {
        lock(&self.slots).iter().position(|slot| slot.task.id() == id).expect("it was one of ours")
    }

    /// Those that run, by place.
    pub fn living(&self) -> Vec<(usize, Arc<Process>)> {
        let slots = lock(&self.slots);
        let living = slots.iter().enumerate().filter(|(_, slot)| !slot.process.is_dead());
        living.map(|(index, slot)| (index, Arc::clone(&slot.process))).collect()
    }

    /// Nothing of it runs on.
    pub fn crash(&self, slot: usize, _: &mut Random) {
        let (process, task) = {
            let slots = lock(&self.slots);
            (Arc::clone(&slots[slot].process), slots[slot].task.clone())
        };
        process.die();
        task.abort();
        self.obituary(&process);
    }

    /// SIGTERM.
    pub fn stop(&self, slot: usize) {
        lock(&self.slots)[slot].stop.cancel();
    }

    /// The others notice: at once, late or never.
    fn obituary(&self, dead: &Process) {
        for (_, process) in self.living() {
            let (heard, late) = {
                let mut random = lock(&self.random);
                let late = if random.percent(80) { random.ms(1, 10) } else { random.ms(10, 5000) };
                (random.percent(85), late)
            };
            let who = dead.identity.clone();
            if heard && who != process.identity {
                self.spawn(async move {
                    after(late).await;
                    process.hear_of_death(&who);
                });
            }
        }
    }
}
