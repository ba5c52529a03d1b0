//! `cargo xtask bench`: the measurements behind docs/benchmarks.md. Never part of a test: times do not fail a build.

use std::process::Command;

use anyhow::{Result, ensure};
use clap::{Args, ValueEnum};
use testkit::stack::{Options, Packages, Profile, Stack};

use crate::{claim, suites};

/// Measure, on this machine, with a stack booted for it.
#[derive(Args)]
#[command(after_help = "Examples:\n  \
    cargo xtask bench                            # all that takes minutes\n  \
    cargo xtask bench pipeline commit\n  \
    cargo xtask bench handover                   # an hour or two; broken off, it goes on where it stopped\n  \
    cargo xtask bench handover --trials 5        # a shorter look\n  \
    cargo xtask bench handover --fresh --case graceful --case kill\n  \
    cargo xtask bench steady --minutes 30")]
pub(crate) struct Bench {
    /// Which ones; all but the long ones when none is named.
    #[arg(value_enum)]
    names: Vec<Which>,
    /// Only this one: the same as its name alone.
    #[arg(long, value_name = "NAME", conflicts_with = "names")]
    only: Option<Which>,
    /// handover: trials of each case; the baselines' kills, which take 15 s each, get a fifth of it.
    #[arg(long, value_name = "COUNT", default_value_t = 100)]
    trials: usize,
    /// handover: forget the trials of earlier runs.
    #[arg(long)]
    fresh: bool,
    /// handover: only this case; repeatable. A wrong name lists them.
    #[arg(long, value_name = "CASE")]
    case: Vec<String>,
    /// steady: how long.
    #[arg(long, value_name = "COUNT", default_value_t = 30)]
    minutes: u64,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Which {
    /// decode + decide + encode on one core, beside kube's typed decode. Needs no server.
    Pipeline,
    /// Commits to a real broker: percentiles and events/s.
    Commit,
    /// Status write -> visible event on an idle stack.
    Latency,
    /// Gaps around a change of hands, beside kube-leader-election and client-go. Long.
    Handover,
    /// Three replicas beside busy loops: no false death notice, no lost Lease. Long.
    Steady,
}

impl Which {
    const ALL: [Self; 5] = [Self::Pipeline, Self::Commit, Self::Latency, Self::Handover, Self::Steady];

    fn name(self) -> &'static str {
        match self {
            Self::Pipeline => "pipeline",
            Self::Commit => "commit",
            Self::Latency => "latency",
            Self::Handover => "handover",
            Self::Steady => "steady",
        }
    }

    fn is_long(self) -> bool {
        matches!(self, Self::Handover | Self::Steady)
    }

    fn needs_stack(self) -> bool {
        self != Self::Pipeline
    }
}

impl Bench {
    pub(crate) fn run(&self) -> Result<()> {
        Packages::ensure()?;
        claim::target_dir()?;
        let named: Vec<Which> = self.names.iter().copied().chain(self.only).collect();
        let wanted = |which: &Which| if named.is_empty() { !which.is_long() } else { named.contains(which) };
        for which in Which::ALL.into_iter().filter(wanted) {
            println!("== {}", which.name());
            // One for each: what one bench leaves behind is not measured by the next.
            let stack = which.needs_stack().then(|| Stack::boot(Options::new(Profile::Full))).transpose()?;
            let mut command = suites::cargo(&["bench", "--locked", "--quiet", "--bench"]);
            command.args(self.arguments(which));
            command.current_dir(suites::workspace()).env("CARGO_TARGET_DIR", suites::target_dir()?);
            if let Some(stack) = &stack {
                command.envs(stack.endpoints().variables()?);
            }
            run(&mut command, which.name())?;
        }
        Ok(())
    }

    /// The bench target and what it is told.
    fn arguments(&self, which: Which) -> Vec<String> {
        let mut arguments = match which {
            Which::Handover => {
                vec!["handover".to_owned(), "--".into(), "--trials".into(), self.trials.to_string()]
            }
            Which::Steady => vec!["handover".to_owned(), "--".into(), "--steady".into(), self.minutes.to_string()],
            Which::Pipeline | Which::Commit | Which::Latency => vec![which.name().to_owned()],
        };
        if which == Which::Handover {
            arguments.extend(self.fresh.then(|| "--fresh".to_owned()));
            arguments.extend(self.case.iter().flat_map(|case| ["--case".to_owned(), case.clone()]));
        }
        arguments
    }
}

fn run(command: &mut Command, name: &str) -> Result<()> {
    let status = command.status()?;
    ensure!(status.success(), "bench {name} failed: {status}");
    Ok(())
}
