//! How long shards are without a leader in calm weather, measured in virtual time: no message takes longer than 3 ms.

use std::{
    collections::BTreeMap,
    num::NonZeroU32,
    sync::{Arc, Mutex},
    time::Duration,
};

use tokio::task::JoinSet;

use crate::{
    cluster::{Cluster, Ended},
    random::Random,
    run::{self, Play, Size, Weather},
    settled::Settled,
    trace::Trace,
    world::{Setting, World, after, lives, lock},
};

const SEEDS: u64 = 4;
/// A cluster of this size is settled after this.
const SETTLED_MAX: Duration = Duration::from_secs(60);
const SECOND: Duration = Duration::from_secs(1);
const SAMPLE: Duration = Duration::from_millis(1);
/// From the end of a permit to the next one, where the last leader let go of the Lease: one transaction, which waits for
/// those before it, and three calls.
const HAND_OVER_MAX: Duration = Duration::from_millis(100);
/// From the death of the leader, which the others notice within 10 ms.
const TAKE_OVER_MAX: Duration = Duration::from_millis(200);

/// How long shards had no leader.
#[derive(Default)]
struct Vacancies {
    now: BTreeMap<u32, Duration>,
    longest: Duration,
    total: BTreeMap<u32, Duration>,
}

struct Calm {
    cluster: Arc<Cluster>,
    replicas: JoinSet<Ended>,
    vacancies: Arc<Mutex<Vacancies>>,
}

impl Calm {
    async fn begin(seed: u64, size: Size, founders: usize) -> Self {
        let random = Random::new(seed);
        let setting = run::setting(&mut random.fork(2), Play::new(size, Weather::Calm));
        let chaos = Duration::from_secs(20);
        let setting = Setting { founders, steady: true, chaos, ..setting };
        let world = World::new(seed, setting, None, Trace::default());
        lives::begin(&world, &random.fork(4), "exec", setting.pods * 4, Duration::from_secs(100));
        let cluster = Arc::new(Cluster::new(Arc::clone(&world), random.fork(3)));
        Self { cluster, replicas: JoinSet::new(), vacancies: Arc::default() }
    }

    async fn settle(&mut self) {
        let mut settled = Settled::default();
        let began = self.cluster.world.began.elapsed();
        while !settled.is_still() {
            self.cluster.supervise(&mut self.replicas, SECOND).await;
            settled.look(&self.cluster, SECOND);
            let passed = self.cluster.world.began.elapsed() - began;
            assert!(passed < SETTLED_MAX, "not settled: {:?}", settled.amiss);
        }
    }

    /// From now on.
    fn watch(&self) {
        let (world, vacancies) = (Arc::clone(&self.cluster.world), Arc::clone(&self.vacancies));
        self.cluster.spawn(async move {
            loop {
                after(SAMPLE).await;
                let mut vacancies = lock(&vacancies);
                for shard in 0..world.setting.shards.get() {
                    if world.observed().permitted(shard).is_empty() {
                        *vacancies.total.entry(shard).or_default() += SAMPLE;
                        let now = vacancies.now.entry(shard).or_default();
                        *now += SAMPLE;
                        vacancies.longest = vacancies.longest.max(vacancies.now[&shard]);
                    } else {
                        vacancies.now.remove(&shard);
                    }
                }
            }
        });
    }

    /// The longest, and the sum for the shard that had it worst.
    fn measured(&self) -> (Duration, Duration) {
        let vacancies = lock(&self.vacancies);
        (vacancies.longest, vacancies.total.values().max().copied().unwrap_or_default())
    }
}

#[test]
fn a_rolling_restart_leaves_no_shard_without_a_leader_for_longer_than_hand_overs() {
    for seed in 0..SEEDS {
        run::in_virtual_time(async {
            let mut calm = Calm::begin(seed, Size::EIGHT_SHARDS, 4).await;
            calm.settle().await;
            calm.watch();
            for place in 0..4 {
                calm.cluster.stop(place);
                calm.settle().await;
            }
            let (longest, total) = calm.measured();
            eprintln!("seed {seed}: rolling restart, longest {longest:?}, a shard's sum {total:?}");
            assert!(longest <= HAND_OVER_MAX, "seed {seed}: {longest:?}");
            assert!(total <= HAND_OVER_MAX * 4, "seed {seed}: {total:?}");
            assert_eq!(calm.cluster.world.observed().wrongs, Vec::<String>::new());
        });
    }
}

#[test]
fn the_shards_of_a_killed_replica_are_led_again_within_a_moment() {
    for seed in 0..SEEDS {
        run::in_virtual_time(async {
            let mut calm = Calm::begin(seed, Size::EIGHT_SHARDS, 4).await;
            calm.settle().await;
            calm.watch();
            calm.cluster.crash(seed as usize % 4);
            calm.settle().await;
            let (longest, _) = calm.measured();
            eprintln!("seed {seed}: killed, longest {longest:?}");
            assert!(longest <= TAKE_OVER_MAX, "seed {seed}: {longest:?}");
            assert_eq!(calm.cluster.world.observed().wrongs, Vec::<String>::new());
        });
    }
}

#[test]
fn one_shard_never_moves_without_a_reason() {
    let size = Size { replicas: 4, shards: NonZeroU32::MIN };
    for seed in 0..SEEDS {
        run::in_virtual_time(async {
            let mut calm = Calm::begin(seed, size, 1).await;
            calm.settle().await;
            let holders = || calm.cluster.world.etcd().holders();
            let first = holders();
            let standby = calm.cluster.living().into_iter().find(|(_, p)| Some(&p.identity) != first.get(&0));
            let (standby, _) = standby.expect("others have joined");
            calm.cluster.stop(standby);
            for _ in 0..60 {
                calm.cluster.supervise(&mut calm.replicas, SECOND).await;
                assert_eq!(calm.cluster.world.etcd().holders(), first, "seed {seed}");
            }
        });
    }
}
