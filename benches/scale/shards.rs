//! Committed events a second with 1, 2, 4 and 8 shards: one journal each, in one process, against one broker. What they
//! commit is the recorded life, told: its four events a pod and the changelog records beside them.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail, ensure};
use pod_monitor::{
    leadership::tenure::{ShardId, Tenure},
    lifecycle::{
        decide::{Decision, Input, step},
        event::{Captured, Event},
        tracked::Tracked,
    },
    ports::{Journal as _, Journals as _},
    publish::{Batch, journal::KafkaJournals, settings::Settings, topics},
    watch::{
        frame::{Frame, read_frame},
        pod::{Decoded, PodUid},
    },
};
use testkit::clients::until;
use tokio::{sync::Barrier, task::JoinSet};
use tokio_util::sync::CancellationToken;

use crate::{
    bar,
    pods::{LIFE_LINES, Life},
    results::{Results, Row, Target, median},
    support, told,
};

const SHARDS: [u32; 4] = [1, 2, 4, 8];
const ROUNDS: usize = 5;
/// A broker that was just started compiles its own code for a while, on the same cores: so long it is kept busy before.
const WARM_UP: Duration = Duration::from_secs(60);
/// Events of each shard in a round, whatever the size of its transactions.
const EVENTS: usize = 24_000;
/// What the recorded life tells.
const EVENTS_EACH: usize = 4;
/// Pods of each shard.
const PODS: usize = EVENTS / EVENTS_EACH;
/// Events of the transactions that are asked about, and of full ones.
const SIZES: [usize; 2] = [200, 1000];
const WARM_MAX: Duration = Duration::from_secs(30);

/// A pod, what is remembered of it, and what is told.
type Told = (PodUid, Tracked, Vec<Event>);

pub(crate) async fn run(results: &mut Results) -> Result<()> {
    let pods = told(&Life::recorded()?)?;
    let mut rates: BTreeMap<(usize, u32), Vec<f64>> = BTreeMap::new();
    let mut busy: BTreeMap<(usize, u32), Vec<f64>> = BTreeMap::new();
    let mut settings = Vec::new();
    for shards in SHARDS {
        settings.push((shards, installation(shards).await?));
    }
    warm_up(&pods, &settings).await?;
    let bar = bar((SHARDS.len() * SIZES.len() * ROUNDS) as u64, "rounds");
    for _ in 0..ROUNDS {
        // By turns, so that what else the machine does falls on all of them.
        for (shards, journals) in &settings {
            for size in SIZES {
                let (rate, share) = rate(&pods, journals, *shards, size).await?;
                rates.entry((size, *shards)).or_default().push(rate);
                busy.entry((size, *shards)).or_default().push(share);
                bar.inc(1);
            }
        }
    }
    bar.finish_and_clear();
    let rate = |size: usize, shards: u32| rates.get(&(size, shards)).map_or(f64::NAN, |rates| median(rates));
    let mut rows = Vec::new();
    for size in SIZES {
        let points = SHARDS.map(|shards| (f64::from(shards), rate(size, shards))).to_vec();
        results.line(&format!("shards: {size} events a transaction"), points)?;
        // Of one round each: what the machine did meanwhile was the same.
        let ratios: Vec<f64> = rates[&(size, 1)].iter().zip(&rates[&(size, 4)]).map(|(one, four)| four / one).collect();
        let target = if size == SIZES[0] { Target::AtLeast(3.0) } else { Target::None };
        let all = SHARDS.map(|shards| format!("{:.0} k", rate(size, shards) / 1000.0)).join(" / ");
        let cores = SHARDS.map(|shards| format!("{:.0}", 100.0 * median(&busy[&(size, shards)]))).join(" / ");
        let note = format!(
            "committed events/s with 1 / 2 / 4 / 8 shards: {all}, while all cores, ours and the broker's, were busy for \
             {cores} % of the time; median of {ROUNDS} ratios"
        );
        rows.push(Row::new(
            &format!("1 -> 4 shards, {size} events a transaction"),
            target,
            median(&ratios),
            "times",
            note,
        ));
    }
    results.set("shards", rows)
}

/// All sizes in turn, as they are measured later.
async fn warm_up(pods: &[Told], settings: &[(u32, KafkaJournals)]) -> Result<()> {
    let (begun, bar) = (Instant::now(), bar(WARM_UP.as_secs(), "s of warming up"));
    while begun.elapsed() < WARM_UP {
        for (shards, journals) in settings {
            for size in SIZES {
                rate(pods, journals, *shards, size).await?;
                bar.set_position(begun.elapsed().as_secs());
            }
        }
    }
    bar.finish_and_clear();
    Ok(())
}

async fn installation(shards: u32) -> Result<KafkaJournals> {
    let identity = support::identity(&support::unique("shards"), shards);
    let (events, changelog) = (format!("{}.events", identity.lease_name), format!("{}.changelog", identity.lease_name));
    let service = told::service();
    let settings = Settings::new(&support::servers(), BTreeMap::new(), &events, &changelog, identity, service)?;
    let topics = topics::ensure(&settings, true).await?;
    let journals = KafkaJournals::start(settings, &topics)?;
    until(WARM_MAX, "every shard has warm producers", async || Ok(journals.warm().then_some(()))).await?;
    Ok(journals)
}

/// Committed events a second of all shards together, and the part of their time for which all cores were busy.
async fn rate(pods: &[Told], journals: &KafkaJournals, shards: u32, size: usize) -> Result<(f64, f64)> {
    let start = std::sync::Arc::new(Barrier::new(shards as usize + 1));
    let mut tasks = JoinSet::new();
    for shard in 0..shards {
        let tenure = Tenure::unconditional(ShardId(shard), &support::unique("shards"), CancellationToken::new());
        let (mut journal, _) = journals.open(&tenure).await?;
        let batches = batches(pods, shard as usize, size);
        let start = std::sync::Arc::clone(&start);
        tasks.spawn(async move {
            start.wait().await;
            for batch in batches {
                journal.commit(batch).await?;
            }
            Ok::<_, anyhow::Error>(())
        });
    }
    start.wait().await;
    let (begun, before) = (Instant::now(), Cores::now()?);
    while let Some(done) = tasks.join_next().await {
        done??;
    }
    Ok(((EVENTS * shards as usize) as f64 / begun.elapsed().as_secs_f64(), before.busy_since()?))
}

/// What all cores of the machine have done since it was started, in ticks.
struct Cores {
    idle: u64,
    all: u64,
}

impl Cores {
    fn now() -> Result<Self> {
        let text = std::fs::read_to_string("/proc/stat")?;
        let line = text.lines().next().context("the line of all cores")?;
        let ticks: Vec<u64> = line.split_whitespace().skip(1).map_while(|ticks| ticks.parse().ok()).collect();
        // user nice system idle iowait irq softirq steal; guests are counted as users already.
        let idle = ticks.get(3..5).context("idle and iowait")?.iter().sum();
        Ok(Self { idle, all: ticks.iter().take(8).sum() })
    }

    fn busy_since(&self) -> Result<f64> {
        let now = Self::now()?;
        Ok(1.0 - (now.idle - self.idle) as f64 / (now.all - self.all).max(1) as f64)
    }
}

/// The same pods in every round: the changelog of a shard does not grow.
fn batches(pods: &[Told], shard: usize, size: usize) -> Vec<Batch> {
    let of_shard = &pods[shard * PODS..(shard + 1) * PODS];
    let batch = |pods: &[Told]| Batch {
        events: pods.iter().flat_map(|(_, _, events)| events.clone()).collect(),
        records: pods.iter().map(|(uid, tracked, _)| (uid.clone(), Some(tracked.clone()))).collect(),
        position: Some(support::position(1)),
    };
    of_shard.chunks(size / EVENTS_EACH).map(batch).collect()
}

/// What is told of every pod of every shard.
fn told(life: &Life) -> Result<Vec<Told>> {
    let pods = PODS * SHARDS[SHARDS.len() - 1] as usize;
    let bar = bar(pods as u64, "pods decided");
    let told = (0..pods).map(|n| {
        bar.inc(1);
        told_of(life, n)
    });
    let told = told.collect();
    bar.finish_and_clear();
    told
}

/// Everything that the life of one pod gives to tell.
fn told_of(life: &Life, n: usize) -> Result<Told> {
    let (rules, now, uid) = (told::rules(), told::now(), PodUid(crate::pods::uid(n).into()));
    let (mut tracked, mut events, mut text) = (None, Vec::new(), String::new());
    for line in 0..LIFE_LINES {
        text.clear();
        life.line(&mut text, line, n, line as u64 + 1);
        let (pod, gone) = match read_frame(&text) {
            Frame::Applied(Decoded::Whole(pod)) => (pod, false),
            Frame::Deleted(Decoded::Whole(pod)) => (pod, true),
            other => bail!("{other:?}"),
        };
        let version = pod.metadata.resource_version;
        let input = match gone {
            true => Input::Gone { last: Some(&pod), observed: true, followed: None, version, now },
            false => Input::Observed { pod: &pod, earlier: None, now },
        };
        let mut decision = step(&uid, tracked.as_ref(), input, &rules);
        loop {
            let Decision { events: new, tracked: more, capture, .. } = decision;
            events.extend(new);
            tracked = more.or(tracked);
            if capture.is_none() {
                break;
            }
            let captured = Captured { stdout: Some("hello\n".into()), ..Captured::default() };
            decision = step(&uid, tracked.as_ref(), Input::Captured { captured, now }, &rules);
        }
    }
    ensure!(events.len() == EVENTS_EACH, "the recorded life tells {} events", events.len());
    Ok((uid, tracked.context("something was told")?, events))
}
