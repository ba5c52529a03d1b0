//! Measures commits against a real broker: `POD_MONITOR_TEST_KAFKA=host:port cargo bench --bench commit`.
//!
//! Each event is about 1 KB with a changelog record beside it. "paced" begins 20 ms after the last acknowledgement, as a
//! worker that is seldom busy; "at once" begins right after it, as a worker under load.
//!
//! Fences are measured after a leader that died inside a transaction, by turns: ours, which shoots again with another
//! warm producer, and librdkafka's own, one connected producer that is told to wait.

#![allow(clippy::disallowed_methods, reason = "a measuring program")]

#[allow(dead_code, clippy::unwrap_used, reason = "shared with the broker tests")]
#[path = "../tests/broker/support.rs"]
mod support;

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use pod_monitor::{
    leadership::tenure::ShardId,
    ports::{Journal, Journals},
    publish::{Batch, fence::Warm, journal::KafkaJournals, settings::Settings, topics::Topics},
};
use rdkafka::producer::{BaseProducer, Producer};

fn main() -> anyhow::Result<()> {
    tokio::runtime::Runtime::new()?.block_on(run())
}

async fn run() -> anyhow::Result<()> {
    let (settings, topics) = support::installation("bench").await;
    let journals = KafkaJournals::start(settings.clone(), &topics)?;
    while !journals.warm() {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let started = Instant::now();
    let (mut journal, _) = journals.open(&support::tenure("bench")).await?;
    println!("open (fence, barrier, restore), warm: {:?}", started.elapsed());
    for (events, rounds) in [(1, 200), (10, 200), (100, 200), (1000, 60)] {
        measure(&mut journal, events, rounds, Duration::from_millis(20), "paced").await?;
    }
    for (events, rounds) in [(1, 200), (10, 200), (100, 200), (1000, 60), (3000, 20)] {
        measure(&mut journal, events, rounds, Duration::ZERO, "at once").await?;
    }
    restore(&mut journal, KafkaJournals::start(settings, &topics)?).await?;
    fence().await
}

/// How long a take-over from a leader that died inside a transaction waits for the fence.
async fn fence() -> anyhow::Result<()> {
    const ROUNDS: usize = 40;
    let (settings, topics) = support::installation("fence").await;
    let warm = Warm::start(Arc::new(settings.clone()), topics.clone(), ShardId(0))?;
    let (mut shots, mut one_shot) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        support::dies_inside_a_transaction(&settings, &topics);
        while warm.connected() < 3 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        let started = Instant::now();
        drop(warm.fence(&support::tenure("bench")).await?);
        shots.push(started.elapsed());
        support::dies_inside_a_transaction(&settings, &topics);
        one_shot.push(fence_by_one_shot(&settings, &topics)?);
    }
    for (times, how) in [(&mut shots, "two shots"), (&mut one_shot, "one shot (librdkafka's own)")] {
        times.sort_unstable();
        let (p50, p99) = (times[ROUNDS / 2], times[ROUNDS * 99 / 100]);
        println!("fence after a death inside a transaction, {how}: p50 {p50:.2?} p99 {p99:.2?}");
    }
    Ok(())
}

fn fence_by_one_shot(settings: &Settings, topics: &Topics) -> anyhow::Result<Duration> {
    let mut config = settings.producer(ShardId(0), topics.wire_bytes_max);
    // librdkafka's defaults; our own pause is there for another reason, and would double the time.
    let producer: BaseProducer = config.set("retry.backoff.ms", "100").set("retry.backoff.max.ms", "1000").create()?;
    // As warm as ours.
    producer.client().fetch_metadata(Some(settings.changelog_topic()), support::LIMIT)?;
    let started = Instant::now();
    producer.init_transactions(support::LIMIT)?;
    Ok(started.elapsed())
}

/// How long a take-over of many pods takes: by a replica that reads everything first, and by one that has done so.
async fn restore<J: Journal>(journal: &mut J, standby: KafkaJournals) -> anyhow::Result<()> {
    const PODS: u32 = 100_000;
    for first in (0..PODS).step_by(5000) {
        let records = (first..first + 5000).map(|n| (support::uid(n), Some(support::tracked(n)))).collect();
        journal.commit(Batch { records, ..Batch::default() }).await?;
    }
    for how in ["by a warm standby", "by a cold tail"] {
        let started = Instant::now();
        let (_journal, restored) = standby.open(&support::tenure(how)).await?;
        println!("open with {} pods {how}: {:?}", restored.told.len(), started.elapsed());
    }
    Ok(())
}

async fn measure<J: Journal>(
    journal: &mut J,
    events: u32,
    rounds: usize,
    pause: Duration,
    how: &str,
) -> anyhow::Result<()> {
    let batch = Batch { events: (0..events).map(|n| support::event(n, 450)).collect(), ..support::batch(0..events) };
    let mut times = Vec::with_capacity(rounds);
    let batches = vec![batch; rounds];
    for batch in batches {
        let started = Instant::now();
        journal.commit(batch).await?;
        times.push(started.elapsed());
        if !pause.is_zero() {
            tokio::time::sleep(pause).await;
        }
    }
    let total: Duration = times.iter().sum();
    times.sort_unstable();
    println!(
        "{events:>5} events {how:>8}: p50 {:>9.2?} p99 {:>9.2?} max {:>9.2?}  {:>8.0} events/s",
        times[rounds / 2],
        times[rounds * 99 / 100],
        times[rounds - 1],
        f64::from(events) * rounds as f64 / total.as_secs_f64()
    );
    Ok(())
}
