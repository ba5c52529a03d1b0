//! Measures what a killed leader costs that leads eight shards beside one that leads the only one, both with a thousand
//! tracked pods, side by side in one run, and how often Leases are written: `cargo xtask bench moves` (needs the stack of
//! POD_MONITOR_TEST_STACK).
//!
//! Two replicas share sixteen shards, eight each; one is killed, and the gap of each of its shards is what its successor
//! logs: from the last sign of the dead leader to the first commit. Trials of both kinds take turns.

#![allow(clippy::unwrap_used, clippy::disallowed_methods, reason = "a measuring program")]

use std::{
    path::Path,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use futures::{StreamExt as _, TryStreamExt as _, stream};
use serde_json::{Value, json};
use testkit::{
    clients::{
        cluster::{Cluster, execution},
        monitor::{Launch, Monitor},
        until,
    },
    stack::Endpoints,
};

const PODS: usize = 1000;
const TRIALS: usize = 25;
/// Shards of two replicas, so that a killed one leads eight.
const SHARDS: u32 = 16;
const LIMIT: Duration = Duration::from_secs(60);
/// How long writes to Leases are counted.
const COUNTED: Duration = Duration::from_secs(20);

/// Two replicas of one installation.
struct Pair {
    launches: [Launch; 2],
    running: Vec<Monitor>,
    shards: u32,
    /// Of each trial: the gap of the shard that waited longest, in ms.
    gaps: Vec<f64>,
}

impl Pair {
    async fn start(endpoints: &Endpoints, app: &str, shards: u32) -> Result<Self> {
        let name = format!("{app}-of-{shards}");
        let launch = |index: usize| -> Result<Launch> {
            let launch = Launch::new(Path::new(env!("CARGO_BIN_EXE_pod-monitor")), endpoints, app, app);
            let launch = launch.set("--lease-name", &name).set("--shards", &shards.to_string());
            let launch = launch.set("--events-topic", &format!("{name}.events"));
            let launch = launch.set("--changelog-topic", &format!("{name}.changelog")).set("--log-level", "info");
            let mut launch = launch.variable("POD_NAME", &format!("r{index}")).relocated()?;
            launch.log = launch.log.with_file_name(format!("monitor-{name}-{index}.log"));
            Ok(launch)
        };
        let launches = [launch(0)?, launch(1)?];
        let running = launches.iter().map(Launch::start).collect::<Result<_>>()?;
        let mut pair = Self { launches, running, shards, gaps: Vec::new() };
        pair.shared().await?;
        Ok(pair)
    }

    fn live(&self) -> Vec<f64> {
        let live = |monitor: &Monitor| monitor.metric(r#"pod_monitor_role{role="live"}"#).unwrap_or_default();
        self.running.iter().map(live).collect()
    }

    /// Both are ready, and no replica leads more than its share.
    async fn shared(&mut self) -> Result<()> {
        for monitor in &mut self.running {
            monitor.ready(LIMIT).await?;
        }
        let share = f64::from(self.shards.div_ceil(2));
        let look = async || {
            let live = self.live();
            Ok((live.iter().sum::<f64>() == f64::from(self.shards) && live.iter().all(|l| *l <= share)).then_some(()))
        };
        until(LIMIT, "the shards are shared", look).await
    }

    fn took_over(&self) -> Vec<Value> {
        let logs = self.launches.iter().map(|launch| std::fs::read_to_string(&launch.log).unwrap_or_default());
        let lines = logs.flat_map(|log| log.lines().map(str::to_owned).collect::<Vec<_>>());
        let parsed = lines.filter_map(|line| serde_json::from_str::<Value>(&line).ok());
        parsed.filter(|line| line["message"] == "took over" && line["why"] == "Dead").collect()
    }

    /// Kills the one that leads most, waits until the other leads all, and starts it anew.
    async fn trial(&mut self) -> Result<()> {
        let live = self.live();
        let victim = usize::from(live[1] > live[0]);
        let (before, lost) = (self.took_over().len(), live[victim] as usize);
        // What attends it has to stand: its standby connected long ago, its own last start is a moment old.
        tokio::time::sleep(Duration::from_millis(1500)).await;
        self.running.remove(victim).kill()?;
        let look = async || Ok((self.took_over().len() >= before + lost).then_some(()));
        until(LIMIT, "every shard was taken over from the dead", look).await?;
        let gaps = self.took_over()[before..].iter().filter_map(|line| line["gap_ms"].as_f64()).fold(0.0, f64::max);
        self.gaps.push(gaps);
        let again = self.launches[victim].start()?;
        self.running.insert(victim, again);
        self.shared().await
    }

    fn report(&mut self) -> (f64, f64) {
        self.gaps.sort_by(f64::total_cmp);
        let at = |share: f64| self.gaps[((self.gaps.len() - 1) as f64 * share) as usize];
        let held = self.shards.div_ceil(2);
        println!(
            "killed leader of {held} shard(s), the slowest of them: p50 {:>6.1} ms  p90 {:>6.1} ms  p99 {:>6.1} ms  (N {})",
            at(0.5),
            at(0.9),
            at(0.99),
            self.gaps.len()
        );
        (at(0.5), at(0.99))
    }
}

#[tokio::main]
async fn main() -> Result<()> {
    let endpoints = Endpoints::from_env()?;
    let app = format!("moves-{}", std::process::id());
    let cluster = Cluster::connect(&endpoints, &app).await?;
    cluster.ready_for_pods().await?;
    stream::iter(0..PODS).map(|n| running(&cluster, &app, n)).buffer_unordered(16).try_collect::<Vec<_>>().await?;
    println!("{PODS} pods run");
    let mut pairs = [Pair::start(&endpoints, &app, 1).await?, Pair::start(&endpoints, &app, SHARDS).await?];
    lease_writes(&cluster, &pairs).await?;
    for trial in 0..TRIALS {
        for pair in &mut pairs {
            pair.trial().await.with_context(|| format!("trial {trial}"))?;
        }
    }
    let [(one, one_most), (eight, eight_most)] = pairs.each_mut().map(Pair::report);
    println!(
        "eight shards cost {:.1} ms more at the median, {:.1} ms at p99 (target: 50 ms)",
        eight - one,
        eight_most - one_most
    );
    for pair in pairs {
        for monitor in pair.running {
            monitor.stop(LIMIT).await?;
        }
    }
    cluster.remove_namespace().await
}

async fn running(cluster: &Cluster, app: &str, n: usize) -> Result<()> {
    let id = format!("moves-{n}");
    let mut pod = execution(app, &id, "true");
    pod["spec"]["nodeName"] = json!("no-such-node");
    cluster.create(pod).await?;
    let started = json!([{ "name": "main", "ready": true, "restartCount": 0, "image": "i", "imageID": "i",
        "state": { "running": { "startedAt": "2026-01-01T00:00:00Z" } } }]);
    cluster.patch_status(&format!("exec-{id}"), json!({ "phase": "Running", "containerStatuses": started })).await
}

/// Writes to Leases by both pairs, as the API server counts them.
async fn lease_writes(cluster: &Cluster, pairs: &[Pair]) -> Result<()> {
    let begun = (Instant::now(), patches(cluster).await?);
    tokio::time::sleep(COUNTED).await;
    let rate = (patches(cluster).await? - begun.1) / begun.0.elapsed().as_secs_f64();
    // Where there is one shard, there are no members.
    let owned: u32 = pairs.iter().map(|pair| pair.shards).sum();
    let members: u32 = pairs.iter().filter(|pair| pair.shards > 1).map(|_| 2).sum();
    let allowed = f64::from(owned + members);
    println!("Lease writes: {rate:.2}/s for {owned} shards and {members} members (target: at most {allowed:.0}/s)");
    Ok(())
}

/// PATCHes of Leases so far.
async fn patches(cluster: &Cluster) -> Result<f64> {
    let request = http::Request::get("/metrics").body(Vec::new())?;
    let text = cluster.client().request_text(request).await.context("read the API server's metrics")?;
    let ours = |line: &&str| {
        line.starts_with("apiserver_request_total{")
            && line.contains("resource=\"leases\"")
            && line.contains("verb=\"PATCH\"")
    };
    Ok(text.lines().filter(ours).filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum())
}
