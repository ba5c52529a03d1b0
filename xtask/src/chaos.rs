//! `chaos`: boots a stack, builds the monitor and the killer, and lets it kill.

use std::process::Command;

use anyhow::{Context, Result};
use clap::Args;
use testkit::stack::{Options, Packages, Profile, Stack};

use crate::{claim, suites};

/// Kill leaders on the local stack while pods live and end, and judge what a consumer saw.
///
/// Exit code 1 when an event is lost, doubled, out of order or torn.
#[derive(Args)]
#[command(after_help = "Examples:\n  \
    cargo xtask chaos\n  \
    cargo xtask chaos --minutes 30 --every 10\n  \
    cargo xtask chaos --report chaos-report.md")]
pub(crate) struct Chaos {
    /// How long faults go on.
    #[arg(long, default_value_t = 1.0)]
    minutes: f64,
    /// Seconds between two faults, at most.
    #[arg(long, default_value_t = 3.0)]
    every: f64,
    /// Write the report to this file, too.
    #[arg(long, value_name = "FILE")]
    report: Option<std::path::PathBuf>,
    /// The monitor as it is released; its build takes minutes.
    #[arg(long)]
    release: bool,
}

impl Chaos {
    pub(crate) fn run(self) -> Result<()> {
        Packages::ensure()?;
        claim::target_dir()?;
        let profile = if self.release { "release" } else { "debug" };
        let mut build = suites::cargo(&["build", "--locked", "--workspace", "--bins", "--features", "testkit/clients"]);
        if self.release {
            build.arg("--release");
        }
        build.current_dir(suites::workspace()).env("CARGO_TARGET_DIR", suites::target_dir()?);
        anyhow::ensure!(build.status().context("run cargo")?.success(), "it does not compile");
        let stack = Stack::boot(Options::new(Profile::Full))?;
        let programs = suites::target_dir()?.join(profile);
        let mut chaos = Command::new(programs.join("chaos"));
        chaos.arg("--monitor").arg(programs.join("pod-monitor"));
        chaos.args(["--minutes", &self.minutes.to_string(), "--every", &self.every.to_string()]);
        if let Some(report) = &self.report {
            chaos.arg("--report").arg(report);
        }
        suites::with_stack(&mut chaos, stack.endpoints())?;
        let status = chaos.status().context("run chaos")?;
        drop(stack);
        // Not by an error: what is wrong was said already.
        if !status.success() {
            std::process::exit(1);
        }
        Ok(())
    }
}
