//! Measures status write -> visible event, without logs, on an otherwise idle stack:
//! `cargo xtask bench --only latency` (needs the stack of POD_MONITOR_TEST_STACK).
//!
//! A pod is bound by hand to a node that does not exist and its status patched to Running; the clock runs from just
//! before the PATCH is sent until a read_committed consumer in this process has the event, so the API server's own
//! write is in it; the time from the PATCH's answer on is printed too.

#![allow(clippy::unwrap_used, clippy::disallowed_methods, reason = "a measuring program")]

use std::{
    path::Path,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use serde_json::json;
use testkit::{
    clients::{
        cluster::{Cluster, execution},
        history::History,
        monitor::Launch,
    },
    stack::Endpoints,
};

const PODS: usize = 200;

#[tokio::main]
async fn main() -> Result<()> {
    let endpoints = Endpoints::from_env()?;
    let app = format!("latency-{}", std::process::id());
    let cluster = Cluster::connect(&endpoints, &app).await?;
    cluster.ready_for_pods().await?;
    let program = Path::new(env!("CARGO_BIN_EXE_pod-monitor"));
    let mut launch = Launch::new(program, &endpoints, &app, &app);
    // Debug lines would be measured too.
    let level = launch.arguments.iter().position(|a| a == "--log-level").context("the launch sets a log level")?;
    launch.arguments[level + 1] = "warn".into();
    let mut monitor = launch.start()?;
    monitor.ready(Duration::from_secs(30)).await?;
    let mut history = History::open(&endpoints.kafka, &[&format!("{app}.events")])?;
    let (mut from_send, mut from_answer) = (Vec::new(), Vec::new());
    for n in 0..PODS {
        let (sent, answered, seen) = one(&cluster, &app, n, &mut history).await?;
        from_send.push(seen - sent);
        from_answer.push(seen.saturating_duration_since(answered));
    }
    report("status write sent -> visible event", from_send);
    report("status write answered -> visible event", from_answer);
    monitor.stop(Duration::from_secs(15)).await?;
    cluster.remove_namespace().await
}

async fn one(cluster: &Cluster, app: &str, n: usize, history: &mut History) -> Result<(Instant, Instant, Instant)> {
    let id = format!("latency-{n}");
    let mut pod = execution(app, &id, "true");
    pod["spec"]["nodeName"] = json!("no-such-node");
    let uid = cluster.create(pod).await?;
    wait(history, &uid, "pod_scheduled").await?;
    let started = json!([{ "name": "main", "ready": true, "restartCount": 0, "image": "i", "imageID": "i",
        "state": { "running": { "startedAt": "2026-01-01T00:00:00Z" } } }]);
    let sent = Instant::now();
    let status = json!({ "phase": "Running", "containerStatuses": started });
    // The event may be visible before the PATCH is answered, and waiting for it blocks: a task of its own.
    let name = format!("exec-{id}");
    let (patching, of) = (cluster.clone(), name.clone());
    let patch = tokio::spawn(async move {
        patching.patch_status(&of, status).await?;
        Ok::<_, anyhow::Error>(Instant::now())
    });
    let seen = wait(history, &uid, "execution_running").await?;
    let answered = patch.await??;
    cluster.delete(&name, Some(0)).await?;
    Ok((sent, answered, seen))
}

async fn wait(history: &mut History, uid: &str, event: &str) -> Result<Instant> {
    let limit = Instant::now() + Duration::from_secs(10);
    loop {
        history.read(Duration::from_micros(200))?;
        let found = history.records.iter().rev().take(20).any(|r| r.text("pod_uid") == uid && r.event_type() == event);
        if found {
            return Ok(Instant::now());
        }
        Some(()).filter(|()| Instant::now() < limit).with_context(|| format!("no {event} of {uid} within 10 s"))?;
        tokio::task::yield_now().await;
    }
}

fn report(what: &str, mut times: Vec<Duration>) {
    times.sort();
    let at = |share: f64| times[((times.len() - 1) as f64 * share) as usize].as_secs_f64() * 1000.0;
    println!(
        "{what:<40} p50 {:>6.1} ms  p90 {:>6.1} ms  p99 {:>6.1} ms  (N {})",
        at(0.5),
        at(0.9),
        at(0.99),
        times.len()
    );
}
