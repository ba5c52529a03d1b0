//! `chaos`: boots a stack, builds the monitor and the killer, and lets it kill.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};
use clap::Args;
use testkit::monitor_image;
use testkit::stack::{Options, Packages, Profile, Stack};

use crate::{claim, suites};

/// Break the monitor and what it depends on, on the local stack, while pods live and end; judge what a consumer saw.
///
/// Each kind of fault comes once, then leaders are killed most of the time. Exit code 1 when an event is lost, doubled, out
/// of order or torn.
#[derive(Args)]
#[command(after_help = "Examples:\n  \
    cargo xtask chaos\n  \
    cargo xtask chaos --kills 100 --report chaos.html\n  \
    cargo xtask chaos --minutes 30 --every 10\n  \
    cargo xtask chaos --fault kill-kafka --fault pause-etcd --seed 42    # a wrong name lists them")]
pub(crate) struct Chaos {
    /// How long faults go on, at least.
    #[arg(long, default_value_t = 1.0)]
    minutes: f64,
    /// Leaders to be killed, at least.
    #[arg(long, default_value_t = 0)]
    kills: usize,
    /// Seconds between two faults, at most.
    #[arg(long, default_value_t = 1.0)]
    every: f64,
    /// Only this kind of fault; repeatable.
    #[arg(long, value_name = "KIND")]
    fault: Vec<String>,
    /// Repeats the order of faults of an earlier run.
    #[arg(long)]
    seed: Option<u64>,
    /// Write a page with a timeline to this file.
    #[arg(long, value_name = "FILE.html")]
    report: Option<std::path::PathBuf>,
}

impl Chaos {
    pub(crate) fn run(self) -> Result<()> {
        Packages::ensure()?;
        claim::target_dir()?;
        let mut build = suites::cargo(&["build", "--locked", "--workspace", "--bins", "--features", "testkit/clients"]);
        build.current_dir(suites::workspace()).env("CARGO_TARGET_DIR", suites::target_dir()?);
        anyhow::ensure!(build.status().context("run cargo")?.success(), "it does not compile");
        let programs = suites::target_dir()?.join("debug");
        let mut chaos = self.command(&programs)?;
        // Its own words about a wrong argument, before a stack is booted.
        if !self.command(&programs)?.arg("--check").status().context("run chaos")?.success() {
            std::process::exit(2);
        }
        // Only this kind runs the monitor as pods.
        let image = (self.fault.is_empty() || self.fault.iter().any(|kind| kind == "force-delete"))
            .then(|| monitor_image::build(suites::workspace(), monitor_image::TEST_PROFILE))
            .transpose()?;
        let stack = Stack::boot(Options::new(Profile::Full))?;
        if let Some(image) = image {
            stack.load_image(&image.archive)?;
        }
        chaos.args(["--about", &about()?]);
        suites::with_stack(&mut chaos, stack.endpoints())?;
        let status = chaos.status().context("run chaos")?;
        drop(stack);
        // Not by an error: what is wrong was said already.
        if !status.success() {
            std::process::exit(1);
        }
        Ok(())
    }

    fn command(&self, programs: &Path) -> Result<Command> {
        let mut chaos = Command::new(programs.join("chaos"));
        chaos.arg("--monitor").arg(programs.join("pod-monitor"));
        chaos.arg("--deploy").arg(suites::workspace().join("deploy/kustomize"));
        chaos.args(["--minutes", &self.minutes.to_string(), "--every", &self.every.to_string()]);
        chaos.args(["--kills", &self.kills.to_string()]);
        chaos.args(self.fault.iter().flat_map(|kind| ["--fault", kind]));
        chaos.args(self.seed.iter().flat_map(|seed| ["--seed".to_owned(), seed.to_string()]));
        if let Some(report) = &self.report {
            chaos.arg("--report").arg(report);
        }
        Ok(chaos)
    }
}

/// When, which commit, which machine.
fn about() -> Result<String> {
    let said = |program: &str, arguments: &[&str]| -> Result<String> {
        let output = Command::new(program).args(arguments).current_dir(suites::workspace()).output()?;
        Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
    };
    let date = said("date", &["--utc", "+%Y-%m-%d %H:%M UTC"])?;
    let commit = said("git", &["rev-parse", "--short", "HEAD"])?;
    let cores = std::thread::available_parallelism().map_or(0, std::num::NonZero::get);
    Ok(format!("{date}, commit {commit}, {cores} cores, debug build, everything on one machine"))
}
