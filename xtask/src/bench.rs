//! `cargo xtask bench`: the measurements behind docs/benchmarks.md. Never part of a test: times do not fail a build.

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Result, ensure};
use clap::{Args, ValueEnum};
use testkit::stack::{Broker, Options, Packages, Profile, Stack};

use crate::{claim, suites};

/// Measure, on this machine, with a stack booted for it.
#[derive(Args)]
#[command(after_help = "Examples:\n  \
    cargo xtask bench                            # all that takes minutes\n  \
    cargo xtask bench pipeline commit\n  \
    cargo xtask bench handover                   # an hour or two; broken off, it goes on where it stopped\n  \
    cargo xtask bench handover --trials 5        # a shorter look\n  \
    cargo xtask bench handover --fresh --case graceful --case kill\n  \
    cargo xtask bench steady --minutes 30\n  \
    cargo xtask bench scale                      # what size costs, and the plots of docs/; half an hour\n  \
    cargo xtask bench scale --only memory --only replay")]
pub(crate) struct Bench {
    /// Which ones; all but the long ones when none is named.
    #[arg(value_enum)]
    names: Vec<Which>,
    /// Only this one: the same as its name alone. scale: only this part of it; repeatable. A wrong name lists them.
    #[arg(long, value_name = "NAME")]
    only: Vec<String>,
    /// scale: draw its plots into this directory; without --only, into docs.
    #[arg(long, value_name = "DIRECTORY")]
    plots: Option<PathBuf>,
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
    /// A killed leader of eight shards beside one of one, and how often Leases are written.
    Moves,
    /// Three replicas beside busy loops: no false death notice, no lost Lease. Long.
    Steady,
    /// What size costs: memory, take-overs, restores, shards, and watch events without an API server. Long.
    Scale,
}

/// Parts of `scale`, and what each needs. A broker as it is shipped compiles its own code for minutes, on the cores that are
/// measured: it is for parts that wait until it is warm.
const SCALE: [(&str, Option<(Profile, Broker)>); 9] = [
    ("memory", None),
    ("replay", None),
    ("churn", None),
    ("reconcile", None),
    ("restore", Some((Profile::Kafka, Broker::AsShipped))),
    ("shards", Some((Profile::Kafka, Broker::AsShipped))),
    ("live", Some((Profile::Full, Broker::Quick))),
    ("takeover", Some((Profile::Full, Broker::Quick))),
    ("otlp", Some((Profile::Full, Broker::Quick))),
];

impl Which {
    const ALL: [Self; 7] =
        [Self::Pipeline, Self::Commit, Self::Latency, Self::Handover, Self::Moves, Self::Steady, Self::Scale];

    fn name(self) -> &'static str {
        match self {
            Self::Pipeline => "pipeline",
            Self::Commit => "commit",
            Self::Latency => "latency",
            Self::Handover => "handover",
            Self::Moves => "moves",
            Self::Steady => "steady",
            Self::Scale => "scale",
        }
    }

    fn is_long(self) -> bool {
        matches!(self, Self::Handover | Self::Moves | Self::Steady | Self::Scale)
    }

    fn needs_stack(self) -> bool {
        self != Self::Pipeline
    }
}

impl Bench {
    pub(crate) fn run(&self) -> Result<()> {
        Packages::ensure()?;
        claim::target_dir()?;
        let named = self.named()?;
        let wanted = |which: &Which| if named.is_empty() { !which.is_long() } else { named.contains(which) };
        for which in Which::ALL.into_iter().filter(wanted) {
            println!("== {}", which.name());
            if which == Which::Scale {
                self.scale()?;
                continue;
            }
            // One for each: what one bench leaves behind is not measured by the next.
            let stack = which.needs_stack().then(|| Stack::boot(Options::new(Profile::Full))).transpose()?;
            run(&mut cargo_bench(self.arguments(which), stack.as_ref())?, which.name())?;
        }
        Ok(())
    }

    /// The benches that were asked for.
    fn named(&self) -> Result<Vec<Which>> {
        if !self.names.is_empty() {
            let of_scale = self.only.is_empty() || self.names.contains(&Which::Scale);
            ensure!(of_scale, "--only beside a name is for a part of scale");
            return Ok(self.names.clone());
        }
        self.only.iter().map(|name| Which::from_str(name, false).map_err(anyhow::Error::msg)).collect()
    }

    /// Its parts one after the other, each with as much of a stack as it needs; then everything that was measured.
    fn scale(&self) -> Result<()> {
        let only: &[String] = if self.names.is_empty() { &[] } else { &self.only };
        for name in only {
            let known: Vec<&str> = SCALE.iter().map(|(part, _)| *part).collect();
            ensure!(known.contains(&name.as_str()), "no part {name:?} of scale; there are: {}", known.join(", "));
        }
        for (part, needs) in SCALE.iter().filter(|(part, _)| only.is_empty() || only.iter().any(|name| name == part)) {
            println!("-- {part}");
            let options = needs.map(|(profile, broker)| Options { broker, ..Options::new(profile) });
            let stack = options.map(Stack::boot).transpose()?;
            let arguments = ["scale", "--", "--only", part].map(String::from).to_vec();
            run(&mut cargo_bench(arguments, stack.as_ref())?, part)?;
        }
        let mut arguments = ["scale", "--", "--summary"].map(String::from).to_vec();
        let plots = self.plots.clone().or_else(|| only.is_empty().then(|| suites::workspace().join("docs")));
        if let Some(plots) = plots {
            let plots = std::path::absolute(plots)?;
            arguments.extend(["--plots".to_owned(), plots.display().to_string()]);
        }
        run(&mut cargo_bench(arguments, None)?, "scale")
    }

    /// The bench target and what it is told.
    fn arguments(&self, which: Which) -> Vec<String> {
        let mut arguments = match which {
            Which::Handover => {
                vec!["handover".to_owned(), "--".into(), "--trials".into(), self.trials.to_string()]
            }
            Which::Steady => vec!["handover".to_owned(), "--".into(), "--steady".into(), self.minutes.to_string()],
            Which::Pipeline | Which::Commit | Which::Latency | Which::Moves | Which::Scale => {
                vec![which.name().to_owned()]
            }
        };
        if which == Which::Handover {
            arguments.extend(self.fresh.then(|| "--fresh".to_owned()));
            arguments.extend(self.case.iter().flat_map(|case| ["--case".to_owned(), case.clone()]));
        }
        arguments
    }
}

fn cargo_bench(arguments: Vec<String>, stack: Option<&Stack>) -> Result<Command> {
    let mut command = suites::cargo(&["bench", "--locked", "--quiet", "--bench"]);
    command.args(arguments).current_dir(suites::workspace()).env("CARGO_TARGET_DIR", suites::target_dir()?);
    if let Some(stack) = stack {
        command.envs(stack.endpoints().variables()?);
    }
    Ok(command)
}

fn run(command: &mut Command, name: &str) -> Result<()> {
    let status = command.status()?;
    ensure!(status.success(), "bench {name} failed: {status}");
    Ok(())
}
