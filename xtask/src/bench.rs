//! `cargo xtask bench`: the measurements behind docs/benchmarks.md. Never part of a test: times do not fail a build.

use std::process::Command;

use anyhow::{Result, ensure};
use clap::{Args, ValueEnum};
use testkit::stack::{Options, Packages, Profile, Stack};

use crate::suites;

/// Measure, on this machine, with a stack booted for it.
#[derive(Args)]
#[command(after_help = "Examples:\n  cargo xtask bench\n  cargo xtask bench --only pipeline")]
pub(crate) struct Bench {
    /// Only this one.
    #[arg(long)]
    only: Option<Which>,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Which {
    /// decode + decide + encode on one core, beside kube's typed decode. Needs no server.
    Pipeline,
    /// Commits to a real broker: percentiles and events/s.
    Commit,
    /// Status write -> visible event on an idle stack.
    Latency,
}

impl Bench {
    pub(crate) fn run(&self) -> Result<()> {
        Packages::ensure()?;
        let wanted = |which| self.only.is_none_or(|only| only == which);
        let servers = wanted(Which::Commit) || wanted(Which::Latency);
        let stack = if servers { Some(Stack::boot(Options::new(Profile::Full))?) } else { None };
        let benches = [(Which::Pipeline, "pipeline"), (Which::Commit, "commit"), (Which::Latency, "latency")];
        for (_, name) in benches.into_iter().filter(|(which, _)| wanted(*which)) {
            println!("== {name}");
            let mut command = suites::cargo(&["bench", "--locked", "--quiet", "--bench", name]);
            command.current_dir(suites::workspace()).env("CARGO_TARGET_DIR", suites::target_dir()?);
            if let Some(stack) = &stack {
                command.envs(stack.endpoints().variables()?);
            }
            run(&mut command, name)?;
        }
        Ok(())
    }
}

fn run(command: &mut Command, name: &str) -> Result<()> {
    let status = command.status()?;
    ensure!(status.success(), "bench {name} failed: {status}");
    Ok(())
}
