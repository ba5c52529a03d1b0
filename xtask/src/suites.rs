//! The test suites, in their order: what each runs and how long it may take.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use anyhow::{Result, bail};
use testkit::stack::Endpoints;

use crate::deny;

/// A suite.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Suite {
    Fmt,
    Clippy,
    Deny,
    Core,
    /// Each fuzz target for a short time, from its seeds.
    Fuzz,
    /// Whole replicas under virtual time: needs no server.
    Sim,
    Stack,
    /// A test target of the root package that needs the booted stack.
    Target(&'static str),
}

impl Suite {
    pub(crate) const ALL: [Self; 14] = [
        Self::Fmt,
        Self::Clippy,
        Self::Deny,
        Self::Core,
        Self::Fuzz,
        Self::Sim,
        Self::Stack,
        Self::Target("apiserver"),
        Self::Target("broker"),
        Self::Target("kubelet"),
        Self::Target("browser"),
        Self::Target("deploy"),
        Self::Target("system"),
        Self::Target("chaos"),
    ];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Fmt => "fmt",
            Self::Clippy => "clippy",
            Self::Deny => "deny",
            Self::Core => "core",
            Self::Fuzz => "fuzz",
            Self::Sim => "sim",
            Self::Stack => "stack",
            Self::Target(name) => name,
        }
    }

    /// Seconds that it should take at most with warm caches, on two cores. Printed, not enforced.
    pub(crate) fn budget_s(self) -> u64 {
        match self {
            Self::Fmt => 5,
            Self::Deny => 10,
            Self::Clippy | Self::Core | Self::Stack => 90,
            // Half a minute of it is fuzzing, the rest compiling pod-monitor with coverage.
            Self::Fuzz => 180,
            Self::Target("system") => 300,
            Self::Sim => 240,
            // A hundred killed leaders, and every other fault once.
            Self::Target("chaos") => 360,
            // Chromium takes seconds to start beside three replicas.
            Self::Target("browser") => 90,
            // The image is built in it, too.
            Self::Target("deploy") => 300,
            // A node passes on 800 MB of output.
            Self::Target("kubelet") => 150,
            // Three brokers die one after the other, and Kafka takes 9 to 12 s over each.
            Self::Target("broker") => 270,
            // Tests that break a server of their own take turns; a broker is paused beyond the time of a transaction.
            Self::Target("apiserver") => 220,
            Self::Target(_) => 60,
        }
    }

    pub(crate) fn needs_stack(self) -> bool {
        matches!(self, Self::Target(_))
    }

    /// Whether its exit status is all that counts: a check counts as one passed or failed.
    pub(crate) fn is_check(self) -> bool {
        matches!(self, Self::Fmt | Self::Clippy | Self::Deny)
    }

    /// Whether its sources are there.
    pub(crate) fn exists(self) -> bool {
        match self {
            Self::Target(name) => has_target(&workspace().join("tests"), name),
            Self::Sim => has_target(&workspace().join("tests"), "sim"),
            Self::Stack => has_target(&workspace().join("testkit/tests"), "stack"),
            _ => true,
        }
    }

    /// The suite of this name. Fails when there is none or its sources are not there.
    pub(crate) fn named(name: &str) -> Result<Self> {
        let known: Vec<&str> = Self::ALL.iter().map(|suite| suite.name()).collect();
        let Some(suite) = Self::ALL.into_iter().find(|suite| suite.name() == name) else {
            bail!("no suite {name:?}; there are: {}", known.join(", "));
        };
        anyhow::ensure!(suite.exists(), "the suite {name} has no test target (tests/{name}.rs)");
        Ok(suite)
    }

    /// The commands, run in order.
    pub(crate) fn commands(self, options: &Options) -> Result<Vec<Command>> {
        let threads = format!("--test-threads={}", options.threads);
        Ok(match self {
            Self::Fmt => vec![cargo(&["fmt", "--all", "--check"])],
            Self::Clippy => {
                vec![cargo(&["clippy", "--workspace", "--all-targets", "--locked", "--", "-D", "warnings"])]
            }
            Self::Deny => {
                let mut checks = vec!["bans", "licenses", "sources"];
                if options.advisories {
                    checks.push("advisories");
                }
                let mut command = Command::new(deny::ensure()?);
                command.args(["--locked", "check", "--hide-inclusion-graph"]).args(checks);
                vec![command]
            }
            Self::Core => {
                let mut commands = vec![cargo_test(&["--lib", "--bins", "--no-fail-fast"])];
                commands.extend(
                    ["laws", "recorded", "checklist", "tidy", "cli", "run", "monitoring", "allocations"]
                        .map(|name| cargo_test(&["--test", name])),
                );
                commands.push(cargo_test(&["--test", "replay"]));
                commands
            }
            Self::Fuzz => {
                let mut command = Command::new(std::env::current_exe()?);
                command.args(["fuzz", "--for", "10s", "--fresh", "--seed", "1"]);
                vec![command]
            }
            Self::Sim => vec![cargo_test(&["--test", "sim"])],
            // Stacks side by side already fill the machine: one test at a time.
            Self::Stack => {
                vec![cargo_test(&["--test", "stack", "--", "--test-threads=1"])]
            }
            // Each of their tests keeps the whole machine busy.
            Self::Target(name @ ("browser" | "system")) => {
                vec![cargo_test(&["--test", name, "--", "--test-threads=1"])]
            }
            // A node that passes on hundreds of megabytes is slow to tell anything else.
            Self::Target("kubelet") => vec![
                cargo_test(&["--test", "kubelet", "--", &threads, "--skip", "memory::"]),
                cargo_test(&["--test", "kubelet", "--", "memory::"]),
            ],
            // One of its tests runs the example, which cargo builds only where no target is named.
            Self::Target(name @ "broker") => vec![
                cargo(&["build", "--locked", "--workspace", "--profile", "test", "--example", "result_processor"]),
                cargo_test(&["--test", name, "--", &threads]),
            ],
            Self::Target(name) => {
                vec![cargo_test(&["--test", name, "--", &threads])]
            }
        })
    }
}

/// What the command line chose.
pub(crate) struct Options {
    pub(crate) threads: usize,
    pub(crate) advisories: bool,
}

/// The repository: that of the `cargo xtask` which was typed. A checkout that shares our target directory may have
/// compiled this program.
pub(crate) fn workspace() -> &'static Path {
    static XTASK: OnceLock<PathBuf> = OnceLock::new();
    let xtask = XTASK.get_or_init(|| {
        let typed = std::env::var_os("CARGO_MANIFEST_DIR").filter(|dir| !dir.is_empty());
        typed.map_or_else(|| env!("CARGO_MANIFEST_DIR").into(), PathBuf::from)
    });
    xtask.parent().unwrap_or(Path::new("."))
}

/// Where cargo builds: as told, else in the user's cache, so that a fresh clone finds its dependencies built.
pub(crate) fn target_dir() -> Result<PathBuf> {
    match std::env::var_os("CARGO_TARGET_DIR").filter(|dir| !dir.is_empty()) {
        Some(dir) => Ok(dir.into()),
        None => Ok(testkit::stack::versions::cache_dir()?.join("target")),
    }
}

/// Adds what finds the stack to a command's environment.
pub(crate) fn with_stack(command: &mut Command, endpoints: &Endpoints) -> Result<()> {
    command.envs(endpoints.variables()?);
    Ok(())
}

/// A cargo that knows nothing of the one that runs us: build scripts (ring's) watch what that set about xtask, and
/// much would be compiled anew whenever a developer's own `cargo build` alternates with `cargo xtask`.
pub(crate) fn cargo(arguments: &[&str]) -> Command {
    let mut command = Command::new("cargo");
    command.args(arguments);
    for (name, _) in std::env::vars_os() {
        if name.to_str().is_some_and(|name| name.starts_with("CARGO_PKG_") || name.starts_with("CARGO_MANIFEST_")) {
            command.env_remove(name);
        }
    }
    command
}

/// Always of the whole workspace: another choice of packages is another choice of their dependencies'
/// features, and everything would be compiled once more.
pub(crate) fn cargo_test(arguments: &[&str]) -> Command {
    let mut command = cargo(&["test", "--locked", "--workspace"]);
    command.args(arguments);
    command
}

fn has_target(tests: &Path, name: &str) -> bool {
    tests.join(format!("{name}.rs")).exists() || tests.join(name).join("main.rs").exists()
}
