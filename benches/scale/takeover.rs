//! Taking over with many pods of which none changed: a leader that is asked to stop, a standby beside it, a real API server
//! that answers the LIST. How long until everything was compared, and that nothing is told again.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use jiff::Timestamp;
use testkit::{
    clients::{cluster::Cluster, monitor::Monitor, until},
    stack::Endpoints,
};

use crate::{
    bar, live,
    results::{Results, Row, Target, median},
};

/// Sizes, and the most that each may take, in seconds.
const SIZES: [(usize, Option<f64>); 4] = [(1000, None), (10_000, Some(0.8)), (50_000, None), (100_000, Some(8.0))];
const ROUNDS: usize = 5;
const START_MAX: Duration = Duration::from_secs(120);
const TELL_MAX: Duration = Duration::from_secs(300);
const TAKE_MAX: Duration = Duration::from_secs(120);

/// What one take-over took, in seconds.
struct Took {
    /// From the Lease to the last pod compared.
    reconciled: f64,
    /// From SIGTERM on.
    whole: f64,
}

pub(crate) async fn run(results: &mut Results, sizes_max: usize) -> Result<()> {
    let stack = live::stack()?;
    let endpoints = stack.endpoints().clone();
    let app = format!("takeover-{}", std::process::id());
    let cluster = Cluster::connect(&endpoints, &app).await?;
    let mut number = 0;
    let mut leader = start(&endpoints, &app, &mut number).await?;
    leader.leading(START_MAX).await?;
    let seen = live::arrivals(&endpoints.kafka, &format!("{app}.events"))?;
    let (mut rows, mut points, mut made) = (Vec::new(), Vec::new(), 0);
    for (pods, target) in SIZES.into_iter().filter(|(pods, _)| *pods <= sizes_max) {
        live::create(&cluster, &app, made..pods).await?;
        made = pods;
        live::tracks(&leader, pods, TELL_MAX).await?;
        let all = async || Ok((live::count(&seen, "pod_scheduled") >= pods).then_some(()));
        until(TELL_MAX, "all pods are told", all).await?;
        let bar = bar(ROUNDS as u64, "take-overs");
        let mut took = Vec::new();
        for _ in 0..ROUNDS {
            let standby = start(&endpoints, &app, &mut number).await?;
            took.push(take_over(leader, &standby).await?);
            leader = standby;
            bar.inc(1);
        }
        bar.finish_and_clear();
        let resident = live::memory(leader.pid())? / f64::from(1 << 20);
        let again = live::count(&seen, "pod_scheduled") - pods;
        let reconciled: Vec<f64> = took.iter().map(|took| took.reconciled).collect();
        let whole: Vec<f64> = took.iter().map(|took| took.whole).collect();
        points.push((pods as f64, median(&reconciled)));
        let what = format!("take-over with {pods} unchanged pods: Lease to everything compared");
        let note = format!(
            "median of {ROUNDS}; {:.2} s from SIGTERM on; the new leader's RSS then {resident:.0} MiB",
            median(&whole)
        );
        rows.push(Row::new(&what, target.map_or(Target::None, Target::AtMost), median(&reconciled), "s", note));
        let what = format!("events told again in these take-overs with {pods} pods");
        rows.push(Row::new(&what, Target::AtMost(0.0), again as f64, "events", format!("{ROUNDS} take-overs")));
    }
    leader.stop(START_MAX).await?;
    results.line("take-over: Lease to everything compared", points)?;
    results.set("takeover", rows)
}

async fn start(endpoints: &Endpoints, app: &str, number: &mut usize) -> Result<Monitor> {
    let mut monitor = live::launch(endpoints, app, *number).with(&["--reconcile-interval", "3600s"]).start()?;
    *number += 1;
    monitor.ready(START_MAX).await?;
    Ok(monitor)
}

async fn take_over(leader: Monitor, standby: &Monitor) -> Result<Took> {
    let (asked, begun) = (Timestamp::now(), Instant::now());
    leader.stop(START_MAX).await?;
    let look = async || {
        let log = std::fs::read_to_string(&standby.log)?;
        let at = |message: &str| {
            let wanted = format!("\"message\":\"{message}\"");
            let line = log.lines().find(|line| line.contains(&wanted))?;
            let line: serde_json::Value = serde_json::from_str(line).ok()?;
            line["timestamp"].as_str()?.parse::<Timestamp>().ok()
        };
        Ok(at("lease acquired").zip(at("reconciled")))
    };
    let (acquired, reconciled) = until(TAKE_MAX, "the standby has taken over", look).await.context("take over")?;
    ensure!(begun.elapsed() < TAKE_MAX, "it took too long");
    let seconds = |from: Timestamp| reconciled.duration_since(from).as_secs_f64();
    Ok(Took { reconciled: seconds(acquired), whole: seconds(asked) })
}
