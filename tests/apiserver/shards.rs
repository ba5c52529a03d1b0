//! Several shards against a real API server, with and without server-side sharding.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use testkit::clients::{
    checker::Truth,
    history::History,
    monitor::{Launch, Monitor},
    until,
};
use tokio::time::Instant;

use crate::{
    breakable::Breakable,
    support::{Bench, LIMIT, expect, faultless, ready},
};

const SHARDS: u32 = 4;
const GATE_OFF: &str = "--feature-gates=ShardedListAndWatch=false,PodLogsQuerySplitStreams=true";
const GATE_ON: &str = "--feature-gates=ShardedListAndWatch=true,PodLogsQuerySplitStreams=true";
const STORY: [&str; 3] = ["pod_scheduled", "execution_running", "execution_completed"];
/// Bytes of a shard may differ so much from those of its pods: bookmarks, and pods that differ in size.
const TOLERANCE: f64 = 0.12;
/// Counts that did not change for so long are up to date.
const STILL: Duration = Duration::from_millis(2200);

/// The shard of a UID: by FNV-1a, on its own.
fn shard(uid: &str) -> usize {
    let hash = uid
        .bytes()
        .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3));
    usize::try_from((u128::from(hash) * u128::from(SHARDS)) >> 64).unwrap()
}

/// An installation with topics of its own beside the one of the bench.
fn beside(bench: &Bench, name: &str, shards: u32) -> Launch {
    let own = format!("{name}-{}", bench.app);
    let launch = bench.launch.clone().set("--lease-name", &own).set("--shards", &shards.to_string());
    let launch = launch.set("--events-topic", &format!("{own}.events"));
    let mut launch = launch.set("--changelog-topic", &format!("{own}.changelog")).set("--reconcile-interval", "2s");
    launch.log = launch.log.with_file_name(format!("monitor-{own}.log"));
    launch.relocated().expect("a free port")
}

/// Every shard is live here.
async fn leads_all(monitor: &mut Monitor, shards: u32) -> Result<()> {
    monitor.ready(LIMIT).await?;
    let look = async || Ok((monitor.metric(r#"pod_monitor_role{role="live"}"#)? == f64::from(shards)).then_some(()));
    until(LIMIT, "every shard is live", look).await.with_context(|| monitor.log_end())
}

/// One series, by shard.
fn by_shard(monitor: &Monitor, name: &str) -> Result<Vec<f64>> {
    (0..SHARDS).map(|shard| monitor.metric(&format!("{name}{{shard=\"{shard}\"}}"))).collect()
}

/// Pods live from their running to their end; gives what must be told of them.
async fn live(bench: &Bench, ids: std::ops::Range<u32>) -> Result<Vec<Truth>> {
    let mut truth = Vec::new();
    for id in ids.clone() {
        let uid = bench.running(&id.to_string()).await?;
        truth.push(Truth { uid, expected: STORY.to_vec() });
    }
    for id in ids {
        bench.end(&id.to_string(), 0).await?;
    }
    Ok(truth)
}

async fn told(history: &mut History, truth: &[Truth]) -> Result<()> {
    for Truth { uid, .. } in truth {
        expect(history, uid, &STORY).await?;
    }
    Ok(())
}

/// Bytes of the watches of both monitors since the last look: of the one with one shard, and of each of the four.
struct Bytes {
    whole: f64,
    parts: Vec<f64>,
}

impl Bytes {
    fn of(one: &Monitor, four: &Monitor) -> Result<Self> {
        let whole = one.metric("pod_monitor_watch_bytes_total")?;
        Ok(Self { whole, parts: by_shard(four, "pod_monitor_watch_bytes_total")? })
    }

    /// The share of the bytes that each shard's watch brought.
    fn shares_since(&self, before: &Self) -> Vec<f64> {
        let whole = self.whole - before.whole;
        self.parts.iter().zip(&before.parts).map(|(now, then)| (now - then) / whole).collect()
    }
}

fn share_of_pods(truth: &[Truth]) -> Vec<f64> {
    let mut counts = vec![0.0; SHARDS as usize];
    truth.iter().for_each(|truth| counts[shard(&truth.uid)] += 1.0);
    counts.iter().map(|count| count / truth.len() as f64).collect()
}

fn near(found: &[f64], wanted: &[f64]) -> Result<()> {
    let off = found.iter().zip(wanted).map(|(found, wanted)| (found - wanted).abs()).fold(0.0, f64::max);
    println!("shares of bytes {found:.3?}, wanted {wanted:.3?}");
    ensure!(off <= TOLERANCE, "shares of bytes {found:.3?} instead of {wanted:.3?}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn each_shard_tells_its_own_pods_whether_or_not_the_server_leaves_the_others_out() -> Result<()> {
    let server = Breakable::take().await?;
    let bench = server.bench("shards").await?;
    let (launch_one, launch_four) = (beside(&bench, "one", 1), beside(&bench, "four", SHARDS));
    let (mut one, mut four) = (launch_one.start()?, launch_four.start()?);
    leads_all(&mut one, 1).await?;
    leads_all(&mut four, SHARDS).await?;
    let open = |launch: &Launch| History::open(&bench.endpoints.kafka, &[launch.argument("--events-topic").unwrap()]);
    let (mut history_one, mut history_four) = (open(&launch_one)?, open(&launch_four)?);

    let before = Bytes::of(&one, &four)?;
    let mut truth = live(&bench, 0..60).await?;
    told(&mut history_one, &truth).await?;
    told(&mut history_four, &truth).await?;
    settled(&one, &four).await?;
    near(&Bytes::of(&one, &four)?.shares_since(&before), &share_of_pods(&truth))?;
    ensure!(by_shard(&four, "pod_monitor_server_side_sharding")? == [1.0; 4], "the server says so");
    ensure!(by_shard(&four, "pod_monitor_foreign_pods_total")? == [0.0; 4], "it leaves out what is not ours");

    server.restart_with(&[GATE_OFF]).await?;
    ready(&mut one).await?;
    ready(&mut four).await?;
    let off = async || Ok((by_shard(&four, "pod_monitor_server_side_sharding")? == [0.0; 4]).then_some(()));
    until(LIMIT, "the next LIST says that nothing is left out", off).await?;
    let before = Bytes::of(&one, &four)?;
    let more = live(&bench, 60..120).await?;
    told(&mut history_one, &more).await?;
    told(&mut history_four, &more).await?;
    settled(&one, &four).await?;
    near(&Bytes::of(&one, &four)?.shares_since(&before), &[1.0; 4])?;
    ensure!(by_shard(&four, "pod_monitor_foreign_pods_total")?.iter().all(|pods| *pods > 0.0), "left out on our side");

    truth.extend(more);
    let counts: Vec<f64> = share_of_pods(&truth).iter().map(|share| share * truth.len() as f64).collect();
    let tracked = by_shard(&four, "pod_monitor_tracked_pods")?;
    ensure!(tracked.iter().zip(&counts).all(|(a, b)| (a - b).abs() < 0.5), "{tracked:?} tracked, {counts:?} are there");
    for history in [&history_one, &history_four] {
        faultless(history, &truth)?;
    }
    server.restart_with(&[GATE_ON]).await?;
    for monitor in [one, four] {
        ensure!(monitor.stop(LIMIT).await?.code() == Some(0), "asked to stop");
    }
    println!("{}", launch_four.verify()?);
    bench.close().await
}

/// The counts of bytes are brought up to date each second: until they stood still for two of them.
async fn settled(one: &Monitor, four: &Monitor) -> Result<()> {
    let (mut last, mut since) = (-1.0, Instant::now());
    let look = async || {
        let bytes = Bytes::of(one, four)?;
        let sum = bytes.whole + bytes.parts.iter().sum::<f64>();
        if sum != last {
            (last, since) = (sum, Instant::now());
        }
        Ok((since.elapsed() > STILL).then_some(()))
    };
    until(LIMIT, "the counts stand still", look).await
}

#[tokio::test(flavor = "multi_thread")]
async fn pods_of_one_execution_are_told_of_by_one_shard_where_it_is_shared_by_execution() -> Result<()> {
    let bench = Bench::new("by-execution").await?;
    let arguments = ["--shards", "4", "--shard-by", "execution"];
    let mut monitor = bench.launch.clone().with(&arguments).start()?;
    leads_all(&mut monitor, SHARDS).await?;
    let mut history = bench.history()?;
    let truth = live(&bench, 0..24).await?;
    told(&mut history, &truth).await?;
    faultless(&history, &truth)?;
    // Brought up to date each second.
    let counted = async || {
        let tracked = by_shard(&monitor, "pod_monitor_tracked_pods")?;
        Ok((tracked.iter().sum::<f64>() == 24.0).then_some(tracked))
    };
    let tracked = until(LIMIT, "all are counted", counted).await?;
    ensure!(tracked.iter().all(|pods| *pods > 0.0), "{tracked:?}");
    ensure!(by_shard(&monitor, "pod_monitor_server_side_sharding")? == [0.0; 4], "the server knows no executions");
    drop(monitor);
    bench.close().await
}
