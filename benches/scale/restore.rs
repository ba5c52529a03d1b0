//! How long a standby takes to know what was told: decoding alone, a cold tail through a real broker, a warm take-over.

use std::{
    collections::HashSet,
    time::{Duration, Instant},
};

use anyhow::Result;
use pod_monitor::{
    ports::{Journal as _, Journals as _, Readiness},
    publish::{Batch, journal::KafkaJournals},
    worker::{position::Stream, table::Table},
};
use testkit::clients::until;

use crate::{
    SIZES, bar,
    memory::read,
    pods::{Life, RUNNING},
    results::{Results, Row, Target, median},
    support, told,
};

const ROUNDS: usize = 5;
const PODS: usize = 100_000;
const BATCH: usize = 5000;
const WARM_MAX: Duration = Duration::from_secs(60);

/// Milliseconds.
#[derive(Default)]
struct Times {
    cold: Vec<f64>,
    warm: Vec<f64>,
    table: Vec<f64>,
}

pub(crate) async fn run(results: &mut Results) -> Result<()> {
    let life = Life::recorded()?;
    let record = told::record(&life, RUNNING)?;
    let bar = bar((SIZES.len() * (ROUNDS + 1) + ROUNDS) as u64, "rounds");
    let mut decode = Vec::new();
    for _ in 0..ROUNDS {
        let begun = Instant::now();
        let told = read(&record, PODS)?;
        decode.push(milliseconds(begun));
        drop(told);
        bar.inc(1);
    }
    let (mut cold, mut warm, mut last) = (Vec::new(), Vec::new(), Times::default());
    for pods in SIZES {
        let times = size(&life, pods, &bar).await?;
        cold.push((pods as f64, median(&times.cold)));
        warm.push((pods as f64, median(&times.warm)));
        last = times;
    }
    bar.finish_and_clear();
    results.line("restore: from the start of the changelog", cold)?;
    results.line("restore: by a standby that followed it", warm)?;
    let rounds = format!("median of {ROUNDS}, 100 000 pods that run");
    results.set(
        "restore",
        vec![
            Row::new(
                "restore by a standby that followed the changelog (fence, barrier, the table)",
                Target::AtMost(300.0),
                median(&last.warm) + median(&last.table),
                "ms",
                rounds.clone(),
            ),
            Row::new(
                "restore from the start of the changelog, connections and all",
                Target::AtMost(300.0),
                median(&last.cold),
                "ms",
                rounds.clone(),
            ),
            Row::new("of these, decoding 100 000 records", Target::None, median(&decode), "ms", rounds.clone()),
            Row::new("of these, making them the worker's table", Target::None, median(&last.table), "ms", rounds),
        ],
    )
}

async fn size(life: &Life, pods: usize, bar: &indicatif::ProgressBar) -> Result<Times> {
    let (settings, topics) = support::installation("restore").await;
    let writer = KafkaJournals::start(settings.clone(), &topics)?;
    let (mut journal, _) = writer.open(&support::tenure("writer")).await?;
    let told: Vec<_> = (0..pods).map(|n| told::tracked(life, RUNNING, n)).collect::<Result<_>>()?;
    for some in told.chunks(BATCH) {
        let records = some.iter().map(|(uid, tracked)| (uid.clone(), Some(tracked.clone()))).collect();
        journal.commit(Batch { records, position: Some(support::position(1)), ..Batch::default() }).await?;
    }
    drop((journal, writer, told));
    bar.inc(1);
    let mut times = Times::default();
    for round in 0..ROUNDS {
        let begun = Instant::now();
        let standby = KafkaJournals::start(settings.clone(), &topics)?;
        let read = async || {
            let readiness = standby.readiness(support::tenure("standby").shard)?;
            Ok((readiness == Readiness::Warm && standby.connected(support::tenure("standby").shard) > 2).then_some(()))
        };
        until(WARM_MAX, "the standby has read everything", read).await?;
        times.cold.push(milliseconds(begun));
        let begun = Instant::now();
        let (_journal, restored) = standby.open(&support::tenure(&format!("standby-{round}"))).await?;
        times.warm.push(milliseconds(begun));
        anyhow::ensure!(restored.told.len() == pods, "{} pods were restored", restored.told.len());
        let begun = Instant::now();
        let mut table = Table::new(vec![Stream::new("", None)]);
        table.restore(restored.told, HashSet::new());
        times.table.push(milliseconds(begun));
        bar.inc(1);
    }
    Ok(times)
}

fn milliseconds(since: Instant) -> f64 {
    since.elapsed().as_secs_f64() * 1000.0
}
