//! The shards are changed: replicas are stopped, one of them perhaps not; `reshard` is run until it has come to its end,
//! killed on its way; replicas of the new generation are started.

use std::{sync::Arc, time::Duration};

use pod_monitor::{
    publish::changelog,
    reshard::{self, Error, Outcome},
};
use tokio::task::JoinSet;

use crate::{
    cluster::{Cluster, Ended},
    random::Random,
    world::{
        Generation, World, after,
        reshard::{SimBooks, release, renew},
    },
};

const SECOND: Duration = Duration::from_secs(1);
/// Until each shard has told how far it has come: before, a reshard would find an installation that never worked.
const BEGUN_MAX: u32 = 30;
/// Until replicas that were asked to stop have.
const STOPPED_MAX: u32 = 15;
/// One that is not killed has come to its end by then, or somebody was in its way.
const RUN_MAX: Duration = Duration::from_secs(60);
const RUNS_MAX: u32 = 20;

/// Whether it was done; not where the shards had never begun.
pub async fn reshard(
    cluster: &Arc<Cluster>,
    replicas: &mut JoinSet<Ended>,
    mut random: Random,
    to: Generation,
) -> bool {
    let world = &cluster.world;
    for _ in 0..BEGUN_MAX {
        if has_begun(world) {
            break;
        }
        cluster.supervise(replicas, SECOND).await;
    }
    if !has_begun(world) {
        return false;
    }
    let spared = stop_replicas(cluster, replicas, &mut random).await;
    let runs = run_until_done(cluster, spared, &mut random, to);
    tokio::select! {
        biased;
        () = runs => {}
        () = cluster.supervise(replicas, RUN_MAX * RUNS_MAX * 2) => world.wrong("reshard: it never ends".into()),
    }
    world.set_generation(to);
    cluster.halt(false);
    // Whoever was overlooked is replaced at last.
    if let Some(place) = spared {
        cluster.supervise(replicas, random.ms(0, 5000)).await;
        cluster.stop(place);
    }
    true
}

fn has_begun(world: &World) -> bool {
    let generation = world.generation();
    generation.all().all(|shard| {
        let mut broker = world.broker(generation.number, shard);
        let position = broker.read().get(changelog::POSITION).cloned().unwrap_or_default();
        let position: serde_json::Value = serde_json::from_str(&position).unwrap_or_default();
        position["streams"][""].as_u64().is_some_and(|version| version > 0)
    })
}

/// Gives the place of one that was frozen when it should have stopped, if there is one.
async fn stop_replicas(cluster: &Cluster, replicas: &mut JoinSet<Ended>, random: &mut Random) -> Option<usize> {
    cluster.halt(true);
    let living = cluster.living();
    let spared = random.percent(30).then(|| living.get(random.below(living.len() as u64) as usize)).flatten();
    for (place, process) in &living {
        if spared.is_some_and(|(spared, _)| spared == place) {
            process.freeze(true);
            let (process, lasts) = (Arc::clone(process), random.ms(1000, 15_000));
            cluster.spawn(async move {
                after(lasts).await;
                process.freeze(false);
            });
        } else if random.percent(50) {
            cluster.stop(*place);
        } else {
            cluster.crash(*place);
        }
    }
    let spared = spared.map(|(place, _)| *place);
    for _ in 0..STOPPED_MAX {
        if cluster.living().iter().all(|(place, _)| Some(*place) == spared) {
            break;
        }
        cluster.supervise(replicas, SECOND).await;
    }
    let left = cluster.living().into_iter().filter(|(place, _)| Some(*place) != spared);
    left.for_each(|(place, _)| cluster.crash(place));
    spared
}

/// Killed a few times, anywhere on its way, and run again.
async fn run_until_done(cluster: &Cluster, spared: Option<usize>, random: &mut Random, to: Generation) {
    let world = &cluster.world;
    let deaths = random.below(4) as u32;
    let lease_ms = world.setting.lease_seconds * 1000;
    for run in 1..=RUNS_MAX {
        let who = format!("reshard-{run}");
        let spans = [random.ms(0, 1000), random.ms(lease_ms, lease_ms + 800)];
        let lives = if run <= deaths { random.pick(&spans) } else { RUN_MAX };
        let mut books = SimBooks::new(world, &who, to);
        let (wish, records_max) = (books.wish(), 1 + random.below(7) as usize);
        let ended = tokio::select! {
            biased;
            ended = reshard::run(&mut books, &wish, records_max, &|_| {}) => Some(ended),
            () = renew(world, &who) => None,
            () = after(lives) => None,
        };
        world.note(&who, format_args!("{ended:?}"));
        match ended {
            Some(Ok(outcome)) => {
                release(world, &who);
                let again = reshard::run(&mut SimBooks::new(world, "again", to), &wish, records_max, &|_| {}).await;
                release(world, "again");
                let (Outcome::Switched(reshard::Summary { moved, .. }) | Outcome::Already(moved)) = outcome;
                if again.as_ref().ok() != Some(&Outcome::Already(moved)) {
                    world.wrong(format!("reshard: done, and then {again:?}"));
                }
                return;
            }
            // A replica that was not stopped is in its way, and whoever reads that stops it.
            Some(Err(Error::Books(_))) => {
                release(world, &who);
                spared.into_iter().for_each(|place| cluster.stop(place));
                after(SECOND).await;
            }
            Some(Err(error)) => return world.wrong(format!("reshard: {error}")),
            None => after(random.ms(0, 3000)).await,
        }
    }
    world.wrong(format!("reshard: not done after {RUNS_MAX} runs"));
}
