//! Measures changes of hands: `cargo xtask bench handover` (needs the stack of POD_MONITOR_TEST_STACK).
//!
//! ```text
//!   field: pods whose status is written at a steady rate ──▶ API server ──▶ three replicas (ours, or a baseline) ──▶ Kafka
//!   fault: at a random moment, to the one that leads                                                                  │
//!   seen: a separate read_committed consumer notes when each event arrives ◀──────────────────────────────────────────┘
//! ```
//! Cases take turns in blocks; each trial is appended to a file at once, and a run goes on where the last one stopped.
//! What a trial takes is in `trial.rs`, what is run beside ours in `kle.rs` and benches/baseline-client-go.

#![allow(clippy::disallowed_methods, reason = "a measuring program")]

mod cases;
mod crew;
mod fence;
mod field;
mod kle;
mod legs;
mod plot;
mod report;
mod results;
mod seen;
mod steady;
mod trial;

use std::{
    collections::HashMap,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context, Result, bail, ensure};
use clap::{Parser, ValueEnum as _};
use indicatif::{ProgressBar, ProgressStyle};
use testkit::{
    clients::{cluster::Cluster, fault::Random},
    stack::{Component, Endpoints, Signal, Stack},
};
use tokio::signal::{
    ctrl_c,
    unix::{SignalKind, signal},
};

use crate::{
    cases::{Case, Plan, Who},
    crew::{Crew, Programs},
    fence::Fences,
    field::Field,
    results::{Results, commit},
    seen::Seen,
};

/// Tries for each trial, where the machine is too busy.
const TRIES_MAX: usize = 3;

/// Measure changes of hands.
#[derive(Parser)]
struct Arguments {
    /// Trials of each case; the baselines' kills get a fifth of it
    #[arg(long, default_value_t = 100)]
    trials: usize,
    /// Forget the trials of earlier runs
    #[arg(long)]
    fresh: bool,
    /// Only this case; repeatable
    #[arg(long, value_enum)]
    case: Vec<Case>,
    /// Instead: three replicas for so long beside busy loops, none of which may be declared dead
    #[arg(long, value_name = "MINUTES")]
    steady: Option<u64>,
    /// Measure this build of the monitor, not the one of the working tree
    #[arg(long, value_name = "PROGRAM")]
    program: Option<PathBuf>,
    /// What `cargo bench` says
    #[arg(long, hide = true)]
    bench: bool,
}

#[tokio::main]
async fn main() -> Result<()> {
    // Started by ourselves in place of a monitor: the baseline takes the same command line.
    if std::env::args().nth(1).as_deref() == Some("run") {
        return kle::run(kle::Arguments::parse_from(std::env::args().skip(1))).await;
    }
    let arguments = Arguments::parse();
    let stack = Stack::from_env()?;
    // Pods on nodes that do not exist are left alone, and the machine is the monitors'.
    for component in
        [Component::KubeControllerManager, Component::KubeScheduler, Component::Kubelet, Component::Containerd]
    {
        if stack.service(component)?.process.is_alive() {
            stack.kill(component, Signal::KILL)?;
        }
    }
    let endpoints = stack.endpoints().clone();
    let programs = Programs::find(&endpoints, arguments.program.as_deref())?;
    let mut bench = Bench {
        endpoints,
        programs,
        fields: HashMap::new(),
        fences: None,
        random: Random::from_variable("BENCH_SEED")?,
    };
    let mut terminated = signal(SignalKind::terminate())?;
    // Broken off: replicas end by being dropped, in process groups of their own they hear of no Ctrl-C.
    tokio::select! {
        measured = bench.measure(&arguments) => measured,
        _ = terminated.recv() => bail!("broken off by SIGTERM"),
        interrupted = ctrl_c() => interrupted.map_err(Into::into).and_then(|()| bail!("broken off")),
    }
}

struct Bench {
    endpoints: Endpoints,
    programs: Programs,
    fields: HashMap<(Who, usize), Field>,
    fences: Option<Fences>,
    random: Random,
}

impl Bench {
    async fn measure(&mut self, arguments: &Arguments) -> Result<()> {
        match arguments.steady {
            Some(minutes) => self.steady(minutes).await,
            None => self.handovers(arguments).await,
        }
    }

    async fn handovers(&mut self, arguments: &Arguments) -> Result<()> {
        let file = Path::new(env!("CARGO_TARGET_TMPDIR")).join("handover.jsonl");
        let mut results = Results::open(&file, arguments.fresh)?;
        let earlier = results.commits();
        if earlier.iter().any(|earlier| *earlier != commit()) {
            eprintln!("going on with trials of {}; --fresh forgets them", earlier.join(", "));
        }
        let all = Case::value_variants();
        let chosen = if arguments.case.is_empty() { all.to_vec() } else { arguments.case.clone() };
        let missing =
            |results: &Results, case: &Case| case.trials(arguments.trials).saturating_sub(results.count(*case));
        let bar = bar(chosen.iter().map(|case| missing(&results, case)).sum::<usize>() as u64, "trials");
        // The case that is furthest behind is next: all of them advance together.
        let behind = |results: &Results| {
            let left = chosen.iter().copied().filter(|case| missing(results, case) > 0);
            left.min_by(|a, b| {
                let share = |case: &Case| results.count(*case) as f64 / case.trials(arguments.trials) as f64;
                share(a).total_cmp(&share(b))
            })
        };
        while let Some(case) = behind(&results) {
            bar.set_message(case.title());
            if !bar.is_hidden() || results.count(case) == 0 {
                bar.tick();
            }
            let trials = case.block().min(missing(&results, &case));
            self.block(case, trials, &mut results, &bar).await.with_context(|| case.title().to_owned())?;
        }
        bar.finish_and_clear();
        let plot = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/handover.svg");
        std::fs::write(&plot, plot::svg(&results)).context("write the plot")?;
        println!("{}\nPlot: docs/handover.svg. Trials: {}", report::markdown(&results), file.display());
        Ok(())
    }

    /// Some trials of one case with replicas of their own.
    async fn block(&mut self, case: Case, trials: usize, results: &mut Results, bar: &ProgressBar) -> Result<()> {
        let Some(plan) = case.plan() else { return self.fences(case, trials, results, bar).await };
        let mut field = self.field(&plan).await?;
        field.refill().await?;
        let mut crew = Crew::start(&self.endpoints, &self.programs, &plan, &field).await?;
        let seen = Seen::open(&self.endpoints.kafka, &crew.topic)?;
        let mut left = trials;
        for _ in 0..trials * TRIES_MAX {
            if left == 0 {
                break;
            }
            let measured = trial::run(case, &plan, &mut crew, &mut field, &seen, &mut self.random).await?;
            let Some(trial) = measured else { continue };
            left -= 1;
            if !bar.is_hidden() {
                bar.inc(1);
            } else {
                eprintln!("{}: gap {:.1} ms, first {:.1} ms", case.name(), trial.gap_ms, trial.first_ms);
            }
            results.add(trial)?;
        }
        ensure!(left < trials, "the machine is too busy for a steady stream of events");
        crew.stop().await?;
        self.fields.insert((plan.who, plan.pods), field);
        Ok(())
    }

    async fn field(&mut self, plan: &Plan) -> Result<Field> {
        if let Some(field) = self.fields.remove(&(plan.who, plan.pods)) {
            return Ok(field);
        }
        let who = match plan.who {
            Who::Ours => "ours",
            Who::KubeLeaderElection => "kle",
            Who::ClientGo => "client-go",
        };
        let app = format!("{who}-{}-{}", plan.pods, std::process::id());
        Field::new(Cluster::connect(&self.endpoints, &app).await?, &app, plan.pods).await
    }

    async fn fences(&mut self, case: Case, trials: usize, results: &mut Results, bar: &ProgressBar) -> Result<()> {
        let fences = match self.fences.take() {
            Some(fences) => fences,
            None => Fences::open(&self.endpoints.kafka).await?,
        };
        for _ in 0..trials {
            results.add(fences.measure(case).await?)?;
            bar.inc(1);
        }
        self.fences = Some(fences);
        Ok(())
    }

    async fn steady(&mut self, minutes: u64) -> Result<()> {
        let plan = Case::Kill.plan().context("a plan")?;
        let mut field = self.field(&plan).await?;
        let bar = bar(minutes * 60, "s");
        steady::run(&self.endpoints, &self.programs, &mut field, minutes, &bar).await?;
        bar.finish_and_clear();
        Ok(())
    }
}

/// Hidden where there is no terminal.
fn bar(length: u64, unit: &str) -> ProgressBar {
    let bar = ProgressBar::new(length);
    let template = format!("{{wide_bar}} {{pos}}/{{len}} {unit}, about {{eta}} left  {{msg}}");
    if let Ok(style) = ProgressStyle::with_template(&template) {
        bar.set_style(style);
    }
    bar.enable_steady_tick(Duration::from_millis(500));
    bar
}
