//! The command line of chaos.
#![allow(clippy::disallowed_methods, reason = "a seed is taken from the clock")]

use std::{
    path::{Path, PathBuf},
    process::ExitCode,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use anyhow::{Context, Result, bail, ensure};
use chaos::{Kind, Plan, html, report};
use clap::{Parser, ValueEnum as _};
use testkit::clients::asked_to_stop;

/// Break the monitor and what it depends on while pods live and end, and judge what a consumer saw.
///
/// Each kind of fault comes once, in an order that the seed decides; then leaders are killed most of the time. Exit code 1
/// when an event is lost, doubled, out of order or torn. The stack is found by the variables that `cargo xtask up` prints;
/// `cargo xtask chaos` boots one.
#[derive(Debug, Parser)]
#[command(
    name = "chaos",
    after_help = "Examples:\n  \
    cargo xtask chaos\n  \
    cargo xtask chaos --kills 100 --report chaos.html\n  \
    cargo xtask chaos --minutes 30 --every 10\n  \
    cargo xtask chaos --fault kill-kafka --fault pause-etcd --seed 42"
)]
struct Arguments {
    /// The monitor's program.
    #[arg(long, value_name = "PROGRAM")]
    monitor: PathBuf,
    /// What is installed beside its processes: deploy/kustomize of the repository.
    #[arg(long, value_name = "DIRECTORY")]
    deploy: PathBuf,
    /// How long faults go on, at least; each kind comes once in any case.
    #[arg(long, default_value_t = 1.0)]
    minutes: f64,
    /// Leaders to be killed, at least.
    #[arg(long, default_value_t = 0)]
    kills: usize,
    /// Seconds between two faults, at most: each waits for a random part of it.
    #[arg(long, default_value_t = 1.0)]
    every: f64,
    /// Only this kind of fault; repeatable.
    #[arg(long, value_enum)]
    fault: Vec<Kind>,
    /// Pods at the same time.
    #[arg(long, default_value_t = 6)]
    pods: usize,
    /// Repeats the order of faults of an earlier run.
    #[arg(long)]
    seed: Option<u64>,
    /// Write a page with a timeline to this file.
    #[arg(long, value_name = "FILE.html")]
    report: Option<PathBuf>,
    /// Only look whether the arguments are right: before minutes are spent on a stack.
    #[arg(long, hide = true)]
    check: bool,
    /// What the page says about where and when it was made.
    #[arg(long, value_name = "TEXT", default_value = "")]
    about: String,
}

#[tokio::main]
async fn main() -> ExitCode {
    match chaos(Arguments::parse()).await {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn chaos(arguments: Arguments) -> Result<bool> {
    if let Some(directory) = arguments.report.as_deref().and_then(Path::parent).filter(|dir| *dir != Path::new("")) {
        ensure!(directory.is_dir(), "--report: there is no directory {}", directory.display());
    }
    if arguments.check {
        return Ok(true);
    }
    let clock = SystemTime::now().duration_since(UNIX_EPOCH).context("a clock after 1970")?;
    let plan = Plan {
        monitor: arguments.monitor,
        deploy: arguments.deploy,
        kinds: if arguments.fault.is_empty() { Kind::value_variants().to_vec() } else { arguments.fault },
        lasts: Duration::from_secs_f64(arguments.minutes * 60.0),
        kills: arguments.kills,
        every: Duration::from_secs_f64(arguments.every),
        pods_at_once: arguments.pods,
        seed: arguments.seed.unwrap_or(u64::try_from(clock.as_millis()).unwrap_or_default()),
    };
    println!("seed {}", plan.seed);
    let outcome = tokio::select! {
        outcome = chaos::run(&plan) => outcome?,
        // Dropping what runs ends the replicas.
        signal = asked_to_stop() => bail!("{}", signal?),
    };
    println!("{}", report::text(&outcome));
    if let Some(file) = &arguments.report {
        write(file, &html::page(&outcome, &arguments.about))?;
        println!("The timeline: {}", file.display());
    }
    Ok(outcome.is_good())
}

fn write(file: &Path, page: &str) -> Result<()> {
    std::fs::write(file, page).with_context(|| format!("write the report to {}", file.display()))
}
