//! Committed events a second with 1, 2, 4 and 8 shards: one journal each, in one process, against one broker, on this machine
//! and some way off. What they commit is the recorded life, told: its four events a pod and the changelog records beside them.

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
use testkit::{
    clients::{distance, until},
    stack::Endpoints,
};
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
/// From here to a broker in another zone of the same region, there and back: 1 ms.
const ONE_WAY: Duration = Duration::from_micros(500);

/// A pod, what is remembered of it, and what is told.
type Told = (PodUid, Tracked, Vec<Event>);

/// What a round is about: how far off the broker is, and how many events a transaction has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Kind {
    is_far: bool,
    size: usize,
}

const KINDS: [Kind; 3] = [
    Kind { is_far: false, size: SIZES[0] },
    Kind { is_far: false, size: SIZES[1] },
    Kind { is_far: true, size: SIZES[0] },
];

impl Kind {
    fn name(self) -> String {
        let far = if self.is_far { ", broker 1 ms away" } else { "" };
        format!("{} events a transaction{far}", self.size)
    }

    fn target(self) -> Target {
        if self.size == SIZES[0] { Target::AtLeast(3.0) } else { Target::None }
    }
}

/// An installation of so many shards, by the ways to the broker.
struct Installation {
    shards: u32,
    near: KafkaJournals,
    far: KafkaJournals,
}

impl Installation {
    async fn new(shards: u32, far: &str) -> Result<Self> {
        Ok(Self { shards, near: journals(shards, &support::servers()).await?, far: journals(shards, far).await? })
    }

    fn journals(&self, kind: Kind) -> &KafkaJournals {
        if kind.is_far { &self.far } else { &self.near }
    }
}

pub(crate) async fn run(results: &mut Results) -> Result<()> {
    let pods = told(&Life::recorded()?)?;
    let (at, target) = Endpoints::from_env()?.kafka_cuts()[0].clone();
    distance::open(&at, &target, ONE_WAY)?;
    let mut installations = Vec::new();
    for shards in SHARDS {
        installations.push(Installation::new(shards, &at).await?);
    }
    warm_up(&pods, &installations).await?;
    // By kind and number of shards: events a second, and the part of the time for which all cores were busy.
    let mut rounds: BTreeMap<(Kind, u32), Vec<(f64, f64)>> = BTreeMap::new();
    let bar = bar((SHARDS.len() * KINDS.len() * ROUNDS) as u64, "rounds");
    for _ in 0..ROUNDS {
        // By turns, so that what else the machine does falls on all of them.
        for installation in &installations {
            for kind in KINDS {
                let round = rate(&pods, installation.journals(kind), installation.shards, kind.size).await?;
                rounds.entry((kind, installation.shards)).or_default().push(round);
                bar.inc(1);
            }
        }
    }
    bar.finish_and_clear();
    let mut rows = Vec::new();
    for kind in KINDS {
        let of = |shards| &rounds[&(kind, shards)];
        let all = |value: fn(&(f64, f64)) -> f64| {
            SHARDS.map(|shards| median(&of(shards).iter().map(value).collect::<Vec<_>>()))
        };
        let (rates, busy) = (all(|round| round.0), all(|round| round.1));
        let points = SHARDS.iter().zip(rates).map(|(shards, rate)| (f64::from(*shards), rate)).collect();
        results.line(&format!("shards: {}", kind.name()), points)?;
        // Of one round each: what the machine did meanwhile was the same.
        let ratios: Vec<f64> = of(1).iter().zip(of(4)).map(|(one, four)| four.0 / one.0).collect();
        let note = format!(
            "committed events/s with 1 / 2 / 4 / 8 shards: {}, while all cores, ours and the broker's, were busy for \
             {} % of the time; median of {ROUNDS} ratios",
            rates.map(|rate| format!("{:.0} k", rate / 1000.0)).join(" / "),
            busy.map(|share| format!("{:.0}", 100.0 * share)).join(" / ")
        );
        rows.push(Row::new(&format!("1 -> 4 shards, {}", kind.name()), kind.target(), median(&ratios), "times", note));
    }
    results.set("shards", rows)
}

/// All kinds in turn, as they are measured later.
async fn warm_up(pods: &[Told], installations: &[Installation]) -> Result<()> {
    let (begun, bar) = (Instant::now(), bar(WARM_UP.as_secs(), "s of warming up"));
    while begun.elapsed() < WARM_UP {
        for installation in installations {
            for kind in KINDS {
                rate(pods, installation.journals(kind), installation.shards, kind.size).await?;
                bar.set_position(begun.elapsed().as_secs());
            }
        }
    }
    bar.finish_and_clear();
    Ok(())
}

async fn journals(shards: u32, servers: &str) -> Result<KafkaJournals> {
    let identity = support::identity(&support::unique("shards"), shards);
    let (events, changelog) = (format!("{}.events", identity.lease_name), format!("{}.changelog", identity.lease_name));
    let settings = Settings::new(servers, BTreeMap::new(), &events, &changelog, identity, told::service())?;
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
