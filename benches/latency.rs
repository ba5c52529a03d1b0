//! Measures status write -> visible event, without logs, on an otherwise idle stack:
//! `cargo xtask bench latency` (needs the stack of POD_MONITOR_TEST_STACK).
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
        history::{History, Record},
        monitor::Launch,
    },
    stack::Endpoints,
};
use tokio::sync::mpsc;

const PODS: usize = 200;
/// Pods before that: the broker's and the API server's code gets warm.
const WARM_UP: usize = 50;

/// Between two pods: the stack is to be idle when the clock starts, and what follows a deletion is not our business.
const PAUSE: Duration = Duration::from_millis(50);
/// Longest wait for an event.
const EVENT_MAX: Duration = Duration::from_secs(10);

type Arrivals = mpsc::Receiver<(Instant, Record)>;

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
    let mut arrivals = History::open(&endpoints.kafka, &[&format!("{app}.events")])?.arrivals()?;
    let (mut from_send, mut from_answer, mut write) = (Vec::new(), Vec::new(), Vec::new());
    for n in 0..WARM_UP + PODS {
        let (sent, answered, seen) = one(&cluster, &app, n, &mut arrivals).await?;
        if n >= WARM_UP {
            from_send.push(seen - sent);
            from_answer.push(seen.saturating_duration_since(answered));
            write.push(answered - sent);
        }
        tokio::time::sleep(PAUSE).await;
    }
    report("status write sent -> visible event", from_send);
    report("status write answered -> visible event", from_answer);
    report("status write sent -> answered", write);
    monitor.stop(Duration::from_secs(15)).await?;
    cluster.remove_namespace().await
}

async fn one(cluster: &Cluster, app: &str, n: usize, arrivals: &mut Arrivals) -> Result<(Instant, Instant, Instant)> {
    let id = format!("latency-{n}");
    let mut pod = execution(app, &id, "true");
    pod["spec"]["nodeName"] = json!("no-such-node");
    let uid = cluster.create(pod).await?;
    seen(arrivals, &uid, "pod_scheduled").await?;
    tokio::time::sleep(PAUSE).await;
    let started = json!([{ "name": "main", "ready": true, "restartCount": 0, "image": "i", "imageID": "i",
        "state": { "running": { "startedAt": "2026-01-01T00:00:00Z" } } }]);
    let name = format!("exec-{id}");
    let sent = Instant::now();
    cluster.patch_status(&name, json!({ "phase": "Running", "containerStatuses": started })).await?;
    let answered = Instant::now();
    // May be before the answer: the thread that reads notes when it was.
    let seen = seen(arrivals, &uid, "execution_running").await?;
    cluster.delete(&name, Some(0)).await?;
    Ok((sent, answered, seen))
}

async fn seen(arrivals: &mut Arrivals, uid: &str, event: &str) -> Result<Instant> {
    let found = async {
        loop {
            let (at, record) = arrivals.recv().await.context("the events topic can be read")?;
            if record.text("pod_uid") == uid && record.event_type() == event {
                return Ok(at);
            }
        }
    };
    tokio::time::timeout(EVENT_MAX, found).await.with_context(|| format!("{event} of {uid}"))?
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
