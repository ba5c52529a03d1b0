//! Chaos: a workload of real pods with known truth, leaders killed every few seconds, and a report.
//!
//! ```text
//!   pods live and end ──▶ three replicas ──▶ Kafka ──▶ a consumer of its own ──▶ checker (testkit) ──▶ report
//!                            ▲ kill the leader, again and again
//! ```
//! Run by `cargo xtask chaos`, which boots the stack. Shares no code with the monitor.
#![allow(clippy::disallowed_methods, reason = "a program that measures on the real clock")]

mod report;
mod run;

use std::{path::PathBuf, process::ExitCode, time::Duration};

use anyhow::Result;
use clap::Parser;

/// Kill the leader every few seconds while pods live and end, and judge what a consumer saw.
///
/// Exit code 1 when an event is lost, doubled, out of order or torn. The stack is found by the variables that
/// `cargo xtask up --quiet-exports` prints; `cargo xtask chaos` boots one.
#[derive(Debug, Parser)]
#[command(
    name = "chaos",
    after_help = "Examples:\n  \
    cargo xtask chaos\n  \
    cargo xtask chaos --minutes 30 --every 10\n  \
    cargo xtask chaos --report chaos-report.md"
)]
struct Arguments {
    /// The monitor's program.
    #[arg(long, value_name = "PROGRAM")]
    monitor: PathBuf,
    /// How long faults go on.
    #[arg(long, default_value_t = 1.0)]
    minutes: f64,
    /// Seconds between two faults, at most: each waits for a random part of it.
    #[arg(long, default_value_t = 3.0)]
    every: f64,
    /// Pods at the same time.
    #[arg(long, default_value_t = 6)]
    pods: usize,
    /// Write the report to this file, too.
    #[arg(long, value_name = "FILE")]
    report: Option<PathBuf>,
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
    let plan = run::Plan {
        monitor: arguments.monitor,
        lasts: Duration::from_secs_f64(arguments.minutes * 60.0),
        every: Duration::from_secs_f64(arguments.every),
        pods_at_once: arguments.pods,
    };
    let outcome = tokio::select! {
        outcome = run::run(&plan) => outcome?,
        // Dropping what runs ends the replicas.
        _ = tokio::signal::ctrl_c() => anyhow::bail!("interrupted"),
    };
    let text = report::text(&outcome);
    println!("{text}");
    if let Some(file) = &arguments.report {
        std::fs::write(file, &text)?;
    }
    Ok(outcome.faults.is_empty())
}
