//! Whole replicas in one process under virtual time, with faults drawn from a seed: docs/simulation.md.

#![allow(clippy::unwrap_used, reason = "a test may stop at the first surprise")]
#![allow(unreachable_pub, reason = "nothing outside this test target can reach in")]

mod cluster;
mod faults;
mod measures;
mod offline;
mod oracle;
mod plants;
mod random;
mod run;
mod settled;
mod trace;
mod world;

use std::{
    num::NonZeroU32,
    sync::atomic::{AtomicU64, Ordering},
    thread,
};

use plants::Plant;
use run::{Outcome, Play, Size, Weather};

/// Seeds of one run of the suite.
const SEEDS: u64 = 2000;
/// With several shards: each takes as long as ten of the others.
const SEEDS_SHARDED: u64 = 200;
const ROUGH: Play = Play::new(Size::ONE_SHARD, Weather::Rough);
const SHARDED: Play = Play::new(Size::EIGHT_SHARDS, Weather::Rough);
/// Lines of a failing seed that are shown.
const LINES: usize = 200;

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

/// What `cargo xtask sim` asks for.
fn size() -> Size {
    let known = Size::ONE_SHARD;
    let shards = number("SIM_SHARDS").and_then(|n| NonZeroU32::new(u32::try_from(n).ok()?));
    let replicas = number("SIM_REPLICAS").map_or(known.replicas, |n| n as usize);
    Size { replicas, shards: shards.unwrap_or(known.shards) }
}

/// Runs seeds on two threads until one is wrong; gives the lowest wrong one, if any.
fn first_wrong(seeds: std::ops::Range<u64>, play: Play) -> Option<(u64, Outcome)> {
    let (next, wrong) = (AtomicU64::new(seeds.start), AtomicU64::new(u64::MAX));
    thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= seeds.end || seed >= wrong.load(Ordering::Relaxed) {
                        return;
                    }
                    if !run::seed(seed, play, false).wrongs.is_empty() {
                        wrong.fetch_min(seed, Ordering::Relaxed);
                    }
                    progress(seed + 1 - seeds.start, seeds.end - seeds.start);
                }
            });
        }
    });
    let seed = wrong.into_inner();
    // Again, with its lines.
    (seed != u64::MAX).then(|| (seed, run::seed(seed, play, true)))
}

/// `cargo xtask sim` asks for a bar.
fn progress(done: u64, of: u64) {
    if std::env::var_os("SIM_PROGRESS").is_some() && (done.is_multiple_of(10) || done == of) {
        let bar = "#".repeat((done * 40 / of) as usize);
        eprint!("\r[{bar:<40}] {done} of {of} seeds");
    }
}

fn show(seed: u64, play: Play, outcome: &Outcome) {
    for line in &outcome.lines[outcome.lines.len().saturating_sub(number("SIM_LINES").map_or(LINES, |n| n as usize))..]
    {
        eprintln!("{line}");
    }
    eprintln!("seed {seed}, after {:?} of virtual time:", outcome.virtual_time);
    outcome.wrongs.iter().for_each(|wrong| eprintln!("  {wrong}"));
    let Size { replicas, shards } = play.size;
    let to = play.reshard_to.map(|to| format!(" SIM_RESHARD_TO={to}")).unwrap_or_default();
    let size = format!("SIM_REPLICAS={replicas} SIM_SHARDS={shards}{to}");
    eprintln!("again: SIM_SEED={seed} {size} cargo test --locked --workspace --test sim every_story");
}

#[test]
fn every_story_is_told_once_whoever_fails() {
    let from = number("SIM_SEED").or(number("SIM_FROM")).unwrap_or(0);
    let seeds = if number("SIM_SEED").is_some() { 1 } else { number("SIM_SEEDS").unwrap_or(SEEDS) };
    eprintln!("seeds {from} to {}", from + seeds - 1);
    let reshard_to = number("SIM_RESHARD_TO").and_then(|n| NonZeroU32::new(u32::try_from(n).ok()?));
    all_right(from..from + seeds, Play { reshard_to, ..Play::new(size(), Weather::Rough) });
}

fn all_right(seeds: std::ops::Range<u64>, play: Play) {
    if let Some((seed, outcome)) = first_wrong(seeds, play) {
        show(seed, play, &outcome);
        panic!("seed {seed} is wrong: {:?}", outcome.wrongs);
    }
}

#[test]
fn without_faults_every_story_is_told() {
    all_right(0..50, Play::new(Size::ONE_SHARD, Weather::Calm));
}

#[test]
fn several_shards_are_told_once_and_shared_evenly_whoever_fails() {
    all_right(0..SEEDS_SHARDED, SHARDED);
}

#[test]
fn without_faults_several_shards_are_told_and_shared_evenly() {
    all_right(0..10, Play::new(Size::EIGHT_SHARDS, Weather::Calm));
}

/// Replicas, shards, shards then.
const RESHARDS: [(usize, u32, u32); 4] = [(3, 1, 4), (3, 4, 1), (4, 8, 3), (3, 2, 5)];
/// Of each.
const SEEDS_RESHARDED: u64 = 40;

fn resharded((replicas, from, to): (usize, u32, u32)) -> Play {
    let shards = |n| NonZeroU32::new(n).expect("there are some");
    Play::new(Size { replicas, shards: shards(from) }, Weather::Rough).resharded(shards(to))
}

#[test]
fn a_reshard_loses_and_doubles_nothing_wherever_it_is_killed() {
    for of in RESHARDS {
        all_right(0..SEEDS_RESHARDED, resharded(of));
        let done = (0..5).filter(|seed| run::seed(*seed, resharded(of), false).resharded).count();
        assert!(done >= 4, "{of:?}: {done} of 5 seeds changed their shards: the others show nothing");
    }
}

#[test]
fn a_heritage_that_is_not_handed_on_is_found() {
    is_found_in(0..SEEDS_RESHARDED, resharded(RESHARDS[2]), Plant::ForgottenHeritage, &["doubled"]);
}

#[test]
fn a_heritage_that_is_forgotten_too_early_is_found() {
    let seeds = 0..SEEDS_RESHARDED * 10;
    is_found_in(seeds, resharded(RESHARDS[2]), Plant::HeritageSpentAtOnce, &["doubled", "sequence", "reordered"]);
}

#[test]
fn a_reshard_that_fences_nobody_is_found() {
    is_found_in(
        0..SEEDS_RESHARDED * 10,
        resharded(RESHARDS[0]),
        Plant::UnfencedReshard,
        &["moved", "heritage", "lost"],
    );
}

#[test]
fn a_seed_replays_exactly() {
    let plays = (0..20).map(|seed| (seed, ROUGH)).chain((0..4).map(|seed| (seed, SHARDED)));
    for (seed, play) in plays.chain((0..4).map(|seed| (seed, resharded(RESHARDS[2])))) {
        let (first, again) = (run::seed(seed, play, true), run::seed(seed, play, true));
        let differ = first.lines.iter().zip(&again.lines).find(|(a, b)| a != b);
        assert_eq!(differ, None, "seed {seed}");
        assert_eq!(first.fingerprint, again.fingerprint, "seed {seed}");
        assert!(first.events > 0, "seed {seed} told nothing");
    }
}

/// The plant is found, for one of these reasons, and the same seed is right without it.
fn is_found(plant: Plant, reasons: &[&str]) {
    is_found_in(0..SEEDS, ROUGH, plant, reasons);
}

fn is_found_in(seeds: std::ops::Range<u64>, play: Play, plant: Plant, reasons: &[&str]) {
    let (seed, outcome) = first_wrong(seeds, play.planted(plant)).expect("the plant is found");
    let named = outcome.wrongs.iter().any(|wrong| reasons.iter().any(|reason| wrong.starts_with(reason)));
    eprintln!("{plant:?}: seed {seed}, {:?}", outcome.wrongs.first());
    assert!(named, "{plant:?}, seed {seed}: {:?}", outcome.wrongs);
    let without = run::seed(seed, play, false).wrongs;
    assert!(without.is_empty(), "seed {seed} is wrong without the plant: {without:?}");
}

#[test]
fn a_fence_after_the_restore_is_found() {
    is_found(Plant::FenceAfterRestore, &["doubled", "torn", "fence", "position"]);
}

#[test]
fn a_lease_written_without_its_version_is_found() {
    is_found(Plant::PatchWithoutVersion, &["two permits at once"]);
}

#[test]
fn random_event_ids_are_found() {
    is_found(Plant::RandomIds, &["id"]);
}

#[test]
fn events_outside_the_transaction_are_found() {
    is_found(Plant::OutsideTransaction, &["torn"]);
}

#[test]
fn an_unclean_producer_that_is_used_on_is_found() {
    is_found(Plant::UncleanProducer, &["torn"]);
}

#[test]
fn a_stale_list_that_says_it_is_new_is_found() {
    is_found(Plant::StaleList, &["doubled", "lost", "torn", "sequence", "untrue", "unseen"]);
}

#[test]
fn pods_told_by_another_shard_are_found() {
    is_found_in(0..SEEDS_SHARDED, SHARDED, Plant::WrongShare, &["share"]);
}

#[test]
fn a_replica_that_keeps_too_many_shards_is_found() {
    is_found_in(0..SEEDS_SHARDED, SHARDED, Plant::NobodyGives, &["balance"]);
}

#[test]
fn a_pod_of_which_nothing_can_be_written_holds_up_no_other() {
    for (seed, weather) in (0..40).zip([Weather::Calm, Weather::Rough].into_iter().cycle()) {
        let play = Play::new(Size::ONE_SHARD, weather).planted(Plant::UnsoundPod);
        let outcome = run::seed(seed, play, true);
        // Its name may be given again: to another pod of which nothing can be written.
        let is_planted = |wrong: &String| {
            let uid = wrong.strip_prefix("lost: ").and_then(|wrong| wrong.split(" of ").nth(1));
            let name = uid.map(|uid| format!("{} {uid}", world::journal::UNSOUND));
            name.is_some_and(|name| outcome.lines.iter().any(|line| line.contains(&name)))
        };
        // In rough weather it may live and go while nobody looks, and then nobody misses it.
        if !outcome.wrongs.iter().all(is_planted) || (weather == Weather::Calm && outcome.wrongs.is_empty()) {
            show(seed, play, &outcome);
            panic!("seed {seed}: it alone is not told: {:?}", outcome.wrongs);
        }
    }
}
