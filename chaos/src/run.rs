//! One run: pods, replicas, strikes, and what a consumer saw in the end.

use std::{
    cell::Cell,
    path::PathBuf,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use indicatif::{ProgressBar, ProgressStyle};
use kube::Api;
use serde_json::Value;
use testkit::{
    clients::{
        cluster::Cluster,
        fault::Random,
        lives::{compare_with_nodes, complete, live},
        monitor::Launch,
    },
    stack::Endpoints,
};

use crate::{
    crew::{Crew, LIMIT},
    kind::Kind,
    plan::Schedule,
    strikes::strike,
    timeline::{self, Strike, Timeline},
    verdict::{self, Verdict},
};

/// What to do.
#[derive(Debug)]
pub struct Plan {
    /// The monitor's program, a debug build: only those die at named steps.
    pub monitor: PathBuf,
    /// The kinds of faults.
    pub kinds: Vec<Kind>,
    /// Faults go on for so long, at least.
    pub lasts: Duration,
    /// Leaders to be killed, at least.
    pub kills: usize,
    /// Longest pause between two faults.
    pub every: Duration,
    /// Pods at the same time.
    pub pods_at_once: usize,
    /// Decides the order of faults.
    pub seed: u64,
}

/// What happened.
#[derive(Debug)]
pub struct Outcome {
    pub(crate) seed: u64,
    pub(crate) took: Duration,
    pub(crate) pods: usize,
    pub(crate) events: usize,
    /// Leaders that were killed.
    pub kills: usize,
    pub(crate) timeline: Timeline,
    /// The monitors' own account of each take-over.
    pub(crate) take_overs: Vec<Value>,
    pub(crate) verdict: Verdict,
    /// What `pod-monitor verify` says; its error where it disagrees.
    pub(crate) second_opinion: Result<String, String>,
}

impl Outcome {
    /// Nothing is wrong, by both opinions.
    pub fn is_good(&self) -> bool {
        self.verdict.faults.is_empty() && self.second_opinion.is_ok()
    }
}

/// Runs it on the stack of the environment.
///
/// # Errors
/// When something could not be done, nobody takes over, or the checker misses a planted fault.
pub async fn run(plan: &Plan) -> Result<Outcome> {
    let endpoints = Endpoints::from_env()?;
    let app = format!("chaos-{}", std::process::id());
    let cluster = Cluster::connect(&endpoints, &app).await?;
    cluster.ready_for_pods().await?;
    let launch = Launch::new(&plan.monitor, &endpoints, &app, &app);
    let mut crew = Crew::start(&launch, &endpoints, &cluster, Random::new(plan.seed)).await?;
    let topic = format!("{app}.events");
    let arrivals = timeline::arrivals(&endpoints.kafka, &topic).await?;
    let leases = Api::namespaced(cluster.client(), cluster.namespace());
    let (timeline, lease) = (Timeline::begin(), crew.lease.clone());

    let (begun, over) = (Instant::now(), Cell::new(false));
    let striking = async {
        let struck = strike_all(plan, &mut crew, &timeline).await;
        over.set(true);
        struck
    };
    let pods = (0..).take_while(|_| !over.get());
    let work = async { tokio::join!(striking, live(&cluster, &app, pods, plan.pods_at_once)) };
    let (struck, lives) = tokio::select! {
        done = work => done,
        () = timeline.watch_holders(leases, &lease) => unreachable!("it watches until it is dropped"),
        () = timeline.watch_events(arrivals) => unreachable!("it watches until it is dropped"),
    };
    struck?;
    let (lives, took) = (lives?, begun.elapsed());
    let history = complete(&endpoints, &topic, &lives).await?;
    let mut lives = lives;
    let lost_by_node = compare_with_nodes(&cluster, &mut lives, &history).await?;
    let verdict = Verdict { lost_by_node, ..verdict::judge(&lives, &history, &timeline)? };
    let second_opinion = launch.verify().map_err(|error| format!("{error:#}"));
    let take_overs = crew.replicas.said("took over")?;
    crew.replicas.stop(LIMIT).await.context("stop the replicas")?;
    cluster.remove_namespace().await?;
    Ok(Outcome {
        seed: plan.seed,
        took,
        pods: lives.len(),
        events: history.len(),
        kills: crew.kills,
        timeline,
        take_overs,
        verdict,
        second_opinion,
    })
}

/// Strikes until the time is over, enough leaders were killed, and each kind has come.
async fn strike_all(plan: &Plan, crew: &mut Crew, timeline: &Timeline) -> Result<()> {
    let mut schedule = Schedule::new(&plan.kinds, &mut crew.random);
    let begun = Instant::now();
    let bar = bar(plan)?;
    while begun.elapsed() < plan.lasts || crew.kills < plan.kills || !schedule.came_round() {
        crew.random.pause(plan.every).await;
        let kind = schedule.next(&mut crew.random);
        bar.set_message(format!("{} leaders killed; now: {}", crew.kills, kind.name()));
        let at = timeline.now();
        let note = strike(crew, kind).await.with_context(|| format!("{}: {}", kind.name(), kind.help()))?;
        crew.leader().await.with_context(|| format!("after {}", kind.name()))?;
        let (at, led) = (crew.struck_at().map_or(at, |moment| timeline.place(moment)), timeline.now());
        crew.settle().await.with_context(|| format!("after {}", kind.name()))?;
        timeline.strikes.borrow_mut().push(Strike { kind, note, at, led, settled: timeline.now() });
        let share = if plan.kills > 0 {
            crew.kills as f64 / plan.kills as f64
        } else {
            begun.elapsed().as_secs_f64() / plan.lasts.as_secs_f64().max(1.0)
        };
        bar.set_position((share * 100.0) as u64);
        if bar.is_hidden() {
            let took = timeline.now() - at;
            eprintln!("{:>4} kills  {} ({took:.1} s)", crew.kills, kind.name());
        }
    }
    bar.finish_and_clear();
    Ok(())
}

fn bar(plan: &Plan) -> Result<ProgressBar> {
    let bar = ProgressBar::new(100).with_style(ProgressStyle::with_template("{bar:40} {percent} %  {msg}")?);
    bar.set_message(format!("seed {}", plan.seed));
    Ok(bar)
}
