//! One seed from beginning to end: replicas, pods, faults, then peace, then the verdict.

use std::{collections::BTreeMap, num::NonZeroU32, sync::Arc, time::Duration};

use pod_monitor::{
    leadership::tenure::ShardId,
    publish::{changelog, generation::FIRST},
};
use tokio::task::JoinSet;

use crate::{
    cluster::Cluster,
    faults, offline,
    oracle::{Oracle, Part},
    plants::Plant,
    random::Random,
    settled::Settled,
    trace::Trace,
    world::{
        Filters, Generation, ServerSide, Setting, World, api,
        broker::{Item, compact},
        lives, replica,
    },
};

/// Once nothing goes wrong any more, everything must be told within this.
const PEACE_MAX: Duration = Duration::from_secs(90);
/// Watched on when everything is told: what comes twice comes late.
const QUIET: Duration = Duration::from_secs(20);
const SECOND: Duration = Duration::from_secs(1);
/// How often it is looked whether everything is told.
const LOOK: Duration = Duration::from_secs(1);

/// How a seed ended.
pub struct Outcome {
    pub wrongs: Vec<String>,
    pub fingerprint: u64,
    pub lines: Vec<String>,
    /// Events told, changes of hands, faults: a run in which nothing happened shows nothing.
    pub events: usize,
    /// The shards were changed.
    pub resharded: bool,
    pub virtual_time: Duration,
}

/// Whether anything goes wrong in the world.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Weather {
    Calm,
    Rough,
}

/// How many there are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Size {
    pub replicas: usize,
    pub shards: NonZeroU32,
}

impl Size {
    /// Plain leader election.
    pub const ONE_SHARD: Self = Self { replicas: 3, shards: NonZeroU32::MIN };
    /// Two for each.
    pub const EIGHT_SHARDS: Self = Self { replicas: 4, shards: NonZeroU32::new(8).unwrap() };
}

/// What is played besides the seed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Play {
    pub size: Size,
    pub weather: Weather,
    pub plant: Option<Plant>,
    /// The shards are changed to so many in mid run.
    pub reshard_to: Option<NonZeroU32>,
}

impl Play {
    pub const fn new(size: Size, weather: Weather) -> Self {
        Self { size, weather, plant: None, reshard_to: None }
    }

    pub const fn resharded(self, to: NonZeroU32) -> Self {
        Self { reshard_to: Some(to), ..self }
    }

    pub const fn planted(self, plant: Plant) -> Self {
        Self { plant: Some(plant), ..self }
    }
}

/// Runs one seed.
pub fn seed(seed: u64, play: Play, lines: bool) -> Outcome {
    in_virtual_time(run(seed, play, lines))
}

pub fn in_virtual_time<T>(run: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
    runtime.expect("a runtime without I/O").block_on(Box::pin(run))
}

/// Late ends of transactions, in rough weather.
const STRAGGLING_PERCENT: u64 = 4;

pub fn setting(random: &mut Random, Play { size, weather, reshard_to, .. }: Play) -> Setting {
    let (lease_seconds, deadline_ms, retry_ms) = random.pick(&[(3, 2000, 500), (5, 3000, 1000), (2, 1500, 250)]);
    let several = size.shards > NonZeroU32::MIN;
    let reconcile_interval = random.ms(3000, 20_000);
    let page_pods = random.pick(&[1, 3, 1000]);
    let pods = if several { 10 + random.below(25) } else { 5 + random.below(15) };
    let chaos = random.ms(5000, if several { 30_000 } else { 40_000 });
    Setting {
        replicas: size.replicas,
        shards: size.shards,
        reshard_to,
        founders: if several && random.percent(50) {
            1 + random.below(size.replicas as u64) as usize
        } else {
            size.replicas
        },
        server_side: server_side(random, chaos),
        steady: false,
        lease_seconds,
        renew_deadline: Duration::from_millis(deadline_ms),
        retry_period: Duration::from_millis(retry_ms),
        reconcile_interval,
        page_pods,
        pods,
        chaos,
        straggling_percent: if weather == Weather::Rough { STRAGGLING_PERCENT } else { 0 },
        record_bytes_max: random.pick(&[2000, 1 << 20]),
    }
}

fn server_side(random: &mut Random, chaos: Duration) -> ServerSide {
    use Filters::{Honours, Ignores, Refuses};
    if random.percent(70) {
        return ServerSide::Always(random.pick(&[Ignores, Refuses, Honours]));
    }
    let (old, new) = random.pick(&[(Ignores, Honours), (Refuses, Honours), (Honours, Ignores), (Honours, Refuses)]);
    let span = chaos.as_millis() as u64;
    let (from, until) = (random.ms(0, span / 2), random.ms(span / 2, span));
    ServerSide::Rolling { old, new, from, until }
}

async fn run(seed: u64, play: Play, lines: bool) -> Outcome {
    let random = Random::new(seed);
    let setting = setting(&mut random.fork(2), play);
    let trace = if lines { Trace::with_lines() } else { Trace::default() };
    let world = World::new(seed, setting, play.plant, trace);
    if world.planted(Plant::StaleList) {
        world.spawn(api::keep_stale(Arc::clone(&world)));
    }
    let cluster = Arc::new(Cluster::new(Arc::clone(&world), random.fork(3)));
    let mut replicas = JoinSet::new();
    lives::begin(&world, &random.fork(4), "exec", setting.pods, setting.chaos);
    if play.weather == Weather::Rough {
        world.spawn(faults::run(Arc::clone(&cluster), random.fork(5), setting.chaos));
    }
    let resharded = match setting.reshard_to {
        None => {
            cluster.supervise(&mut replicas, setting.chaos).await;
            false
        }
        Some(shards) => {
            cluster.supervise(&mut replicas, setting.chaos / 2).await;
            let to = Generation { number: FIRST + 1, shards };
            let resharded = offline::reshard(&cluster, &mut replicas, random.fork(7), to).await;
            cluster.supervise(&mut replicas, setting.chaos.saturating_sub(world.began.elapsed()) + SECOND).await;
            resharded
        }
    };
    world.note("world", format_args!("peace"));
    cluster.living().iter().for_each(|(_, process)| process.heal());
    lives::begin(&world, &random.fork(6), "late", 2, Duration::from_secs(1));
    let (mut verdict, mut told_since) = (Verdict::new(&world), Duration::ZERO);
    let mut settled = Settled::default();
    let peace = world.began.elapsed();
    while world.began.elapsed() - peace < PEACE_MAX
        && (told_since < QUIET || !settled.is_still())
        && verdict.oracle.wrongs().is_empty()
    {
        cluster.supervise(&mut replicas, LOOK).await;
        let lost = verdict.take_in(&world);
        told_since = if lost { Duration::ZERO } else { told_since + LOOK };
        settled.look(&cluster, LOOK);
    }
    Outcome { resharded, ..verdict.end(&world, settled) }
}

/// The oracle, and how far it has read.
pub struct Verdict {
    oracle: Oracle,
    /// Per generation and shard.
    read: Vec<Vec<Reading>>,
    /// The second generation is the truth.
    moved: bool,
}

/// How far one shard was read.
#[derive(Default)]
struct Reading {
    transactions: usize,
    /// What it holds.
    held: BTreeMap<String, String>,
    /// The record that ended the generation, or began it, was read.
    switched: bool,
}

impl Verdict {
    pub fn new(world: &World) -> Self {
        let Setting { shards, reshard_to, .. } = world.setting;
        let generations = [Some(shards), reshard_to].into_iter().flatten();
        let read = generations.map(|shards| (0..shards.get()).map(|_| Reading::default()).collect()).collect();
        Self { oracle: Oracle::new(replica::CLUSTER, shards.get()), read, moved: false }
    }

    /// Reads on. Whether something is still to be told.
    fn take_in(&mut self, world: &World) -> bool {
        let first = self.read_on(world, FIRST, changelog::MOVED, !self.moved);
        if let Some(second) = self.read.get(1).filter(|_| first > 0 && !self.moved) {
            let shards = second.len();
            // In one transaction: there is nothing between.
            let (old, new) = (self.read[0].len() == first, self.read_on(world, FIRST + 1, changelog::IDENTITY, false));
            if !old || new != shards {
                world.wrong(format!("torn: {first} shards are over, {new} have begun"));
            }
            let held = |read: &[Reading]| read.iter().map(|reading| reading.held.clone()).collect::<Vec<_>>();
            self.oracle.moves(&held(&self.read[0]), &held(&self.read[1]));
            for (shard, reading) in (0..).zip(&self.read[1]) {
                self.oracle.begins(shard, reading.held.get(changelog::POSITION).map(String::as_str));
            }
            self.moved = true;
        }
        if self.moved {
            self.read_on(world, FIRST + 1, changelog::IDENTITY, true);
        }
        !self.oracle.judge(&world.etcd().truth, &world.observed().all_gaps()).lost.is_empty()
    }

    /// Reads a generation's shards on, those that are not `tells` up to the record of its switch; in how many that was found.
    fn read_on(&mut self, world: &World, generation: u32, switch: &str, tells: bool) -> usize {
        let readings = &mut self.read[(generation - FIRST) as usize];
        for (shard, reading) in (0..).zip(readings.iter_mut()) {
            let broker = world.broker(generation, ShardId(shard));
            for transaction in &broker.committed()[reading.transactions..] {
                if !tells && generation > FIRST && reading.switched {
                    break;
                }
                let number = reading.transactions;
                reading.transactions += 1;
                compact(&mut reading.held, &transaction.items);
                let part = |item: &Item| match item {
                    Item::Event(event) => Part::Event(event.clone()),
                    Item::Record(key, value) => Part::Record(key.clone(), value.clone()),
                };
                let parts: Vec<Part> = transaction.items.iter().map(part).collect();
                let switches = parts.iter().any(|part| matches!(part, Part::Record(key, _) if key == switch));
                match generation {
                    FIRST if reading.switched => self.oracle.read_late(shard, &parts),
                    _ if tells => self.oracle.read(shard, number, &parts),
                    _ => {}
                }
                // Of the first generation each shard begins with its identity, and `switch` is its end.
                reading.switched |= switches;
            }
        }
        readings.iter().filter(|reading| reading.switched).count()
    }

    fn end(self, world: &World, settled: Settled) -> Outcome {
        let judgement = self.oracle.judge(&world.etcd().truth, &world.observed().all_gaps());
        let mut wrongs = world.observed().wrongs.clone();
        wrongs.extend_from_slice(self.oracle.wrongs());
        wrongs.extend(judgement.untrue);
        wrongs.extend(judgement.lost);
        // Whoever told something wrong was not watched to the end.
        if wrongs.is_empty() {
            wrongs.extend(settled.wrongs());
        }
        let transactions: usize = self.read.iter().flatten().map(|reading| reading.transactions).sum();
        world.note("world", format_args!("the end: {transactions} transactions, {} wrongs", wrongs.len()));
        let trace = world.trace();
        Outcome {
            wrongs,
            fingerprint: trace.fingerprint(),
            lines: trace.lines().to_vec(),
            events: self.oracle.events(),
            resharded: false,
            virtual_time: world.began.elapsed(),
        }
    }
}
