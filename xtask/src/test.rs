//! `test`: the suites in order, each with its time and budget, and one line of counts at the end.
//!
//! Promises: a suite that ran nothing fails; the stack ends with the command, also by Ctrl-C (its first
//! process holds a pipe of ours); the last line is `N passed, N failed`.

use std::io::{BufRead, BufReader, IsTerminal};
use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::{Context, Result};
use clap::Args;
use testkit::stack::{Options as StackOptions, Packages, Profile, Stack, build, collector, helm, promtool};

use crate::claim;
use crate::libtest::Counts;
use crate::suites::{self, Options, Suite};

/// Run the test suites, those against real servers on a stack booted for the run.
///
/// Order: fmt, clippy, deny, core, fuzz, sim, stack, apiserver, broker, kubelet, browser, deploy, system, chaos. The last seven run against
/// one local stack, booted for them and ended with them; needs root. Ends with `N passed, N failed`.
/// Without CARGO_TARGET_DIR, builds in the user's cache, so that a fresh clone reuses what was compiled.
#[derive(Args)]
#[command(after_help = "Examples:\n  \
    cargo xtask test\n  \
    cargo xtask test --suite core\n  \
    cargo xtask test --suite apiserver --suite broker --threads 1")]
pub(crate) struct Test {
    /// Only this suite; may be given more than once. Fails when it does not exist.
    #[arg(long = "suite", value_name = "NAME")]
    suites: Vec<String>,
    /// Tests at the same time, in the suites against the stack.
    #[arg(long, default_value_t = 4)]
    threads: usize,
    /// Let `deny` look up advisories as well. Their database is a git repository, which CI machines that
    /// reach only package registries cannot clone.
    #[arg(long)]
    advisories: bool,
}

struct Outcome {
    suite: Suite,
    counts: Counts,
    seconds: f64,
}

impl Test {
    pub(crate) fn run(self) -> Result<()> {
        let chosen = self.chosen()?;
        let options = Options { threads: self.threads, advisories: self.advisories };
        Packages::ensure()?;
        claim::target_dir()?;
        if chosen.iter().any(|suite| suite.needs_stack() || *suite == Suite::Stack) {
            build::ensure()?;
        }
        if chosen.contains(&Suite::Target("browser")) {
            Packages::ensure_browser()?;
        }
        if chosen.contains(&Suite::Target("apiserver")) {
            // Built beside tests it would take their time.
            collector::program()?;
        }
        if chosen.contains(&Suite::Target("deploy")) {
            // Before the stack is up and the clock of the suite runs.
            helm::ensure()?;
            promtool::ensure()?;
        }
        let mut stack = None;
        let mut outcomes = Vec::new();
        for suite in chosen {
            if suite.needs_stack() && stack.is_none() {
                stack = Some(boot());
            }
            let booted = match &stack {
                Some(Err(_)) if suite.needs_stack() => None,
                Some(Ok(stack)) => Some(Some(stack)),
                _ => Some(None),
            };
            let outcome = match booted {
                Some(stack) => run(suite, &options, stack)?,
                // A missing server fails the suites that need it; the boot's error was shown.
                None => Outcome { suite, counts: Counts { passed: 0, failed: 1 }, seconds: 0.0 },
            };
            outcomes.push(outcome);
        }
        drop(stack);
        summarise(&outcomes)
    }

    fn chosen(&self) -> Result<Vec<Suite>> {
        if self.suites.is_empty() {
            return Ok(Suite::ALL.to_vec());
        }
        let named = self.suites.iter().map(|name| Suite::named(name)).collect::<Result<Vec<_>>>()?;
        Ok(Suite::ALL.into_iter().filter(|suite| named.contains(suite)).collect())
    }
}

fn boot() -> Result<Stack> {
    let started = Instant::now();
    let booted = Stack::boot(StackOptions::new(Profile::Full));
    match &booted {
        Ok(_) => eprintln!("== the stack is up ({:.1} s)", started.elapsed().as_secs_f64()),
        Err(error) => eprintln!("== no stack: {error:#}"),
    }
    booted
}

fn run(suite: Suite, options: &Options, stack: Option<&Stack>) -> Result<Outcome> {
    eprintln!("== {}", suite.name());
    let started = Instant::now();
    let mut counts = Counts::default();
    let mut success = true;
    for mut command in suite.commands(options)? {
        command.current_dir(suites::workspace()).env("CARGO_TARGET_DIR", suites::target_dir()?);
        if let Some(stack) = stack.filter(|_| suite.needs_stack()) {
            suites::with_stack(&mut command, stack.endpoints())?;
        }
        success &= execute(&mut command, &mut counts)?;
    }
    if suite.is_check() {
        counts = if success { Counts { passed: 1, failed: 0 } } else { Counts { passed: 0, failed: 1 } };
    } else if counts.failed == 0 && (!success || counts.passed == 0) {
        // It did not compile, crashed, or ran nothing.
        counts.failed = 1;
    }
    let outcome = Outcome { suite, counts, seconds: started.elapsed().as_secs_f64() };
    eprintln!("{}", outcome.line());
    Ok(outcome)
}

/// Runs a command, passes its output on and counts results. Returns whether it succeeded.
fn execute(command: &mut Command, counts: &mut Counts) -> Result<bool> {
    if std::io::stdout().is_terminal() {
        command.env("CARGO_TERM_COLOR", "always");
    }
    let shown = command.get_program().to_string_lossy().into_owned();
    let mut child =
        command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().with_context(|| format!("run {shown}"))?;
    let output = child.stdout.take().context("the child's standard output is a pipe")?;
    for line in BufReader::new(output).split(b'\n') {
        let line = line?;
        let line = String::from_utf8_lossy(&line);
        println!("{line}");
        counts.add_line(&line);
    }
    Ok(child.wait()?.success())
}

impl Outcome {
    fn line(&self) -> String {
        let Self { suite, counts, seconds } = self;
        let over = if *seconds > suite.budget_s() as f64 { "  OVER BUDGET" } else { "" };
        let verdict = if counts.failed == 0 { "ok" } else { "FAILED" };
        format!(
            "{:<10} {verdict:<6} {seconds:>6.1} / {} s  {} passed, {} failed{over}",
            suite.name(),
            suite.budget_s(),
            counts.passed,
            counts.failed
        )
    }
}

fn summarise(outcomes: &[Outcome]) -> Result<()> {
    println!();
    let mut total = Counts::default();
    for outcome in outcomes {
        println!("{}", outcome.line());
        total.passed += outcome.counts.passed;
        total.failed += outcome.counts.failed;
    }
    println!("{} passed, {} failed", total.passed, total.failed);
    // Not by an error: its message would come after the counts, which are the last line.
    if total.failed > 0 || total.passed == 0 {
        std::process::exit(1);
    }
    Ok(())
}
