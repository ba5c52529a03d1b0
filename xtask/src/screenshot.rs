//! `screenshot`: boots a stack, and has testkit's `screenshot` take the pictures of the status page that the README shows.

use std::process::Command;

use anyhow::{Context, Result};
use clap::Args;
use testkit::stack::{Options, Packages, Profile, Stack, build};

use crate::claim;
use crate::suites;

/// Take the pictures of the status page anew: docs/status-page.png and docs/status-page-dark.png.
///
/// Boots a local Kubernetes and Kafka (needs root), runs three replicas and sample executions, kills a leader, and opens
/// the page of its successor in Debian's Chromium. Ends all of it.
#[derive(Args)]
#[command(
    after_help = "Examples:\n  cargo xtask screenshot\n  cargo xtask screenshot --name dev   on a stack that is up"
)]
pub(crate) struct Screenshot {
    /// A stack that is up and runs pods; it stays up.
    #[arg(long)]
    name: Option<String>,
}

impl Screenshot {
    pub(crate) fn run(self) -> Result<()> {
        Packages::ensure()?;
        Packages::ensure_browser()?;
        claim::target_dir()?;
        build::ensure()?;
        build_both()?;
        // One that we booted ends with this value.
        let stack = match &self.name {
            Some(name) => Stack::attach(name)?,
            None => {
                eprintln!("booting Kubernetes and Kafka ...");
                Stack::boot(Options::new(Profile::Full))?
            }
        };
        let (built, docs) = (suites::target_dir()?.join("debug"), suites::workspace().join("docs"));
        let mut command = Command::new(built.join("screenshot"));
        command.arg(built.join("pod-monitor")).arg(&docs);
        suites::with_stack(&mut command, stack.endpoints())?;
        let status = command.status().context("run the screenshot")?;
        anyhow::ensure!(status.success(), "no pictures were taken");
        eprintln!("written: {}/status-page.png, status-page-dark.png", docs.display());
        Ok(())
    }
}

fn build_both() -> Result<()> {
    let mut command =
        suites::cargo(&["build", "--locked", "--workspace", "--bin", "pod-monitor", "--bin", "screenshot"]);
    command.current_dir(suites::workspace()).env("CARGO_TARGET_DIR", suites::target_dir()?);
    anyhow::ensure!(command.status().context("run cargo")?.success(), "the monitor does not compile");
    Ok(())
}
