//! One run: pods, replicas, faults, and what a consumer saw in the end.

use std::{
    cell::Cell,
    path::PathBuf,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::Value;
use testkit::{
    clients::{
        cluster::Cluster,
        fault::Random,
        lives::{complete, faults, live},
        monitor::Launch,
        replicas::{Fault, Replicas},
    },
    stack::Endpoints,
};

const LIMIT: Duration = Duration::from_secs(30);
/// Of the replicas, as by default: only silence waits for it, and these faults are no silence.
const LEASE_DURATION: Duration = Duration::from_secs(5);

/// What to do.
#[derive(Debug)]
pub(crate) struct Plan {
    pub(crate) monitor: PathBuf,
    pub(crate) lasts: Duration,
    pub(crate) every: Duration,
    pub(crate) pods_at_once: usize,
}

/// What happened.
#[derive(Debug)]
pub(crate) struct Outcome {
    pub(crate) took: Duration,
    pub(crate) pods: usize,
    pub(crate) events: usize,
    /// In their order, each with the time until all replicas were ready again.
    pub(crate) changes: Vec<(Fault, Duration)>,
    /// The monitors' own account of each take-over.
    pub(crate) take_overs: Vec<Value>,
    /// Everything that is wrong.
    pub(crate) faults: Vec<String>,
}

pub(crate) async fn run(plan: &Plan) -> Result<Outcome> {
    let endpoints = Endpoints::from_env()?;
    let app = format!("chaos-{}", std::process::id());
    let cluster = Cluster::connect(&endpoints, &app).await?;
    cluster.ready_for_pods().await?;
    let launch = Launch::new(&plan.monitor, &endpoints, &app, &app);
    let mut replicas = Replicas::start(&launch, &cluster)?;
    replicas.ready(LIMIT).await?;
    replicas.leader("").await?;

    let (begun, over) = (Instant::now(), Cell::new(false));
    let killing = async {
        let killed = kill(plan, &mut replicas).await;
        over.set(true);
        killed
    };
    let pods = (0..).take_while(|_| !over.get());
    let (changes, lives) = tokio::join!(killing, live(&cluster, &app, pods, plan.pods_at_once));
    let (changes, lives) = (changes?, lives?);
    let took = begun.elapsed();
    let history = complete(&endpoints, &format!("{app}.events"), &lives).await?;
    let take_overs = replicas.said("took over")?;
    replicas.stop(LIMIT).await.context("stop the replicas")?;
    cluster.remove_namespace().await?;
    let faults = faults(&lives, &history);
    Ok(Outcome { took, pods: lives.len(), events: history.len(), changes, take_overs, faults })
}

/// Kills and stops leaders in turns that the seed decides, until the time is over.
async fn kill(plan: &Plan, replicas: &mut Replicas) -> Result<Vec<(Fault, Duration)>> {
    let mut random = Random::from_variable("CHAOS_SEED")?;
    let (begun, mut changes) = (Instant::now(), Vec::new());
    let style = ProgressStyle::with_template("{bar:40} {msg}")?;
    let bar = ProgressBar::new(plan.lasts.as_secs()).with_style(style);
    while begun.elapsed() < plan.lasts {
        random.pause(plan.every).await;
        let fault = if random.number().is_multiple_of(3) { Fault::Terminate } else { Fault::Kill };
        let at = Instant::now();
        replicas.change_hands(fault, LEASE_DURATION).await?;
        changes.push((fault, at.elapsed()));
        bar.set_position(begun.elapsed().as_secs());
        bar.set_message(format!("{} leaders killed or stopped", changes.len()));
    }
    bar.finish_and_clear();
    Ok(changes)
}
