//! `record`: boots a stack or takes a running one, and lets testkit's `record` play the cases there.

use std::process::Command;

use anyhow::{Context, Result};
use clap::Args;
use testkit::stack::{Options, Packages, Profile, Stack, build};

use crate::claim;
use crate::suites;

/// Record anew how pods live and end on a real kubelet: tests/fixtures/recorded.
///
/// Boots a local Kubernetes (needs root), plays each case there and keeps what the API server's watch sends. Takes some
/// minutes: evictions, lost nodes and garbage collection have clocks of their own.
#[derive(Args)]
#[command(after_help = "Examples:\n  \
    cargo xtask record --only exit-3\n  \
    cargo xtask record --missing --name dev        on the stack of `cargo xtask up`")]
pub(crate) struct Record {
    /// Only this case; may be given more than once.
    #[arg(long)]
    only: Vec<String>,
    /// Only cases that have no recording yet.
    #[arg(long)]
    missing: bool,
    /// A stack that is up, to be used and left up.
    #[arg(long)]
    name: Option<String>,
}

impl Record {
    pub(crate) fn run(self) -> Result<()> {
        Packages::ensure()?;
        claim::target_dir()?;
        build::ensure()?;
        let mut command = suites::cargo(&["build", "--locked", "--package", "testkit", "--bin", "record"]);
        command.args(["--features", "testkit/clients"]);
        command.current_dir(suites::workspace()).env("CARGO_TARGET_DIR", suites::target_dir()?);
        anyhow::ensure!(command.status().context("run cargo")?.success(), "the recorder does not compile");
        let stack = match &self.name {
            Some(name) => Stack::attach(name)?,
            None => Stack::boot(Options::new(Profile::Full))?,
        };
        let mut command = Command::new(suites::target_dir()?.join("debug/record"));
        command.arg("--root").arg(suites::workspace());
        for case in &self.only {
            command.args(["--only", case]);
        }
        if self.missing {
            command.arg("--missing");
        }
        suites::with_stack(&mut command, stack.endpoints())?;
        anyhow::ensure!(command.status().context("run the recorder")?.success(), "not all cases were recorded");
        Ok(())
    }
}
