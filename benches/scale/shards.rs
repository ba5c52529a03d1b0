//! Committed events a second with 1, 2, 4 and 8 shards: one journal each, in one process, against one broker. What they
//! commit is the recorded life, told: its four events a pod and the changelog records beside them.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};
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
/// Events of each shard in a round, whatever the size of its transactions.
const EVENTS: usize = 24_000;
/// Events of the transactions that are asked about, and of full ones.
const SIZES: [usize; 2] = [200, 1000];
const WARM_MAX: Duration = Duration::from_secs(30);

pub(crate) async fn run(results: &mut Results) -> Result<()> {
    let life = Life::recorded()?;
    let bar = bar((SHARDS.len() * SIZES.len() * ROUNDS) as u64, "rounds");
    let mut rates: BTreeMap<(usize, u32), Vec<f64>> = BTreeMap::new();
    let mut busy: BTreeMap<(usize, u32), Vec<f64>> = BTreeMap::new();
    let mut settings = Vec::new();
    for shards in SHARDS {
        settings.push((shards, installation(shards).await?));
    }
    for _ in 0..ROUNDS {
        // By turns, so that what else the machine does falls on all of them.
        for (shards, journals) in &settings {
            for size in SIZES {
                let (rate, share) = rate(&life, journals, *shards, size).await?;
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
async fn rate(life: &Life, journals: &KafkaJournals, shards: u32, size: usize) -> Result<(f64, f64)> {
    let start = std::sync::Arc::new(Barrier::new(shards as usize + 1));
    let mut tasks = JoinSet::new();
    for shard in 0..shards {
        let tenure = Tenure::unconditional(ShardId(shard), &support::unique("shards"), CancellationToken::new());
        let (mut journal, _) = journals.open(&tenure).await?;
        let batches = batches(life, shard as usize, size)?;
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
fn batches(life: &Life, shard: usize, size: usize) -> Result<Vec<Batch>> {
    let pods = EVENTS / 4;
    let (mut events, mut records) = (Vec::new(), Vec::new());
    for n in shard * pods..(shard + 1) * pods {
        let (uid, tracked, new) = told_of(life, n)?;
        events.extend(new);
        records.push((uid, tracked));
    }
    let (mut events, mut records) = (events.into_iter(), records.into_iter());
    let mut batches = Vec::new();
    for _ in 0..EVENTS / size {
        let events = events.by_ref().take(size).collect();
        let records = records.by_ref().take(size / 4).map(|(uid, tracked)| (uid, Some(tracked))).collect();
        batches.push(Batch { events, records, position: Some(support::position(1)) });
    }
    Ok(batches)
}

/// Everything that the life of one pod gives to tell.
fn told_of(life: &Life, n: usize) -> Result<(PodUid, Tracked, Vec<Event>)> {
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
    Ok((uid, tracked.context("something was told")?, events))
}
