//! `fuzz`: libFuzzer over the five inputs that anybody may write (docs/fuzzing.md).
//!
//! ```text
//!  cargo test --no-run --test libfuzzer, pod-monitor with coverage (coverage.rs)
//!      └─▶ one process a target, as many at a time as there are cores ──stderr──▶ status.rs ──▶ show.rs
//!                └─ a broken promise ─▶ minimised ─▶ where it lies, how to run it again, how to keep it
//! ```
//! Promises: a target that ran too little fails; what was found is kept in the cache and never overwritten.

mod fuzzer;
mod show;
mod status;

use std::collections::VecDeque;
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, bail, ensure};
use clap::Args;
use testkit::stack::Packages;

use self::fuzzer::{Ended, Fuzzer, Places};
use self::show::Show;
use crate::claim;

/// The targets, in the order in which they run: the slowest first.
const TARGETS: [&str; 5] = ["statuses", "changelog", "rules", "logs", "reports"];
/// Fewer executions are no fuzzing: per second, and at most this many in all.
const EXECUTIONS_PER_SECOND_MIN: u64 = 100;
const EXECUTIONS_MIN: u64 = 1000;

/// Feed inputs that nobody would write to what reads them, until one breaks a promise.
///
/// Targets: statuses, logs, reports, rules, changelog. What was found to lead somewhere new is kept in the user's cache, and
/// the next run begins from it. Exit code 1 when something was found.
#[derive(Args)]
#[command(after_help = "Examples:\n  \
    cargo xtask fuzz\n  \
    cargo xtask fuzz --target logs --target reports --for 1h\n  \
    cargo xtask fuzz --for 10s --fresh --seed 1           # what `cargo xtask test --suite fuzz` does\n  \
    cargo xtask fuzz --target rules --input crash-0a1b    # one input, once, with a backtrace")]
pub(crate) struct Fuzz {
    /// Only this target; may be given more than once.
    #[arg(long = "target", value_name = "NAME", value_parser = TARGETS)]
    targets: Vec<String>,
    /// How long each target runs: 30s, 10m, 2h.
    #[arg(long = "for", value_name = "TIME", default_value = "5m", value_parser = duration)]
    time: Duration,
    /// Where the fuzzer's dice begin; another one each time if absent.
    #[arg(long, value_name = "N")]
    seed: Option<u32>,
    /// Begin from the seeds alone, and keep nothing but what breaks a promise.
    #[arg(long)]
    fresh: bool,
    /// Run the target over this file, once.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["time", "seed", "fresh"])]
    input: Option<PathBuf>,
}

impl Fuzz {
    pub(crate) fn run(self) -> Result<()> {
        Packages::ensure()?;
        claim::target_dir()?;
        let program = fuzzer::build()?;
        if let Some(input) = &self.input {
            let [target] = &self.targets[..] else { bail!("which one reads it? add --target NAME") };
            let input = input.canonicalize().with_context(|| format!("open {}", input.display()))?;
            let held = fuzzer::replay(&program, target, &input)?;
            return if held { Ok(()) } else { std::process::exit(1) };
        }
        let chosen: Vec<&str> = TARGETS
            .into_iter()
            .filter(|name| self.targets.is_empty() || self.targets.iter().any(|target| target == name))
            .collect();
        let seed = self.seed.unwrap_or_else(new_seed);
        let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get).min(chosen.len());
        eprintln!("{} targets, {cores} at a time, {:?} each, --seed {seed}", chosen.len(), self.time);
        let ended = self.all(&program, &chosen, seed, cores)?;
        conclude(&ended, self.time)
    }

    fn all(&self, program: &std::path::Path, chosen: &[&'static str], seed: u32, cores: usize) -> Result<Vec<Ended>> {
        let places = Places::new(self.fresh)?;
        let show = Show::new(self.time);
        let waiting = Mutex::new(chosen.iter().copied().collect::<VecDeque<_>>());
        let ended = Mutex::new(Vec::new());
        std::thread::scope(|scope| {
            let worker = || -> Result<()> {
                loop {
                    let next = waiting.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
                    let Some(target) = next else { return Ok(()) };
                    let fuzzer = Fuzzer { program, target, places: &places, time: self.time, seed };
                    let end = fuzzer.run(&show)?;
                    ended.lock().unwrap_or_else(PoisonError::into_inner).push(end);
                }
            };
            let workers: Vec<_> = (0..cores).map(|_| scope.spawn(worker)).collect();
            workers.into_iter().try_for_each(|worker| worker.join().expect("a worker does not panic"))
        })?;
        places.clean()?;
        Ok(ended.into_inner().unwrap_or_else(PoisonError::into_inner))
    }
}

fn new_seed() -> u32 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(1, |since| since.subsec_nanos())
}

/// Says what was found. The last line is one that `cargo xtask test` counts.
fn conclude(ended: &[Ended], time: Duration) -> Result<()> {
    let enough = (time.as_secs() * EXECUTIONS_PER_SECOND_MIN).clamp(1, EXECUTIONS_MIN);
    let mut failed = 0;
    for end in ended {
        let executions = end.status.executions;
        let verdict = match &end.found {
            Some(found) => {
                println!("{found}");
                "FAILED"
            }
            None if executions < enough => {
                println!("{} made {executions} executions, at least {enough} are expected", end.target);
                "FAILED"
            }
            None => "ok",
        };
        failed += usize::from(verdict != "ok");
        println!("test fuzz::{} ... {verdict} ({})", end.target, end.status);
    }
    ensure!(!ended.is_empty(), "no target ran");
    let verdict = if failed == 0 { "ok" } else { "FAILED" };
    println!("test result: {verdict}. {} passed; {failed} failed", ended.len() - failed);
    if failed > 0 {
        std::process::exit(1);
    }
    Ok(())
}

/// A time as `30s`, `10m`, `2h`.
fn duration(text: &str) -> Result<Duration, String> {
    let wrong = || format!("'{text}' is no time: write for instance 30s, 10m or 2h");
    let unit = text.chars().next_back().ok_or_else(wrong)?;
    let seconds = match unit {
        's' => 1,
        'm' => 60,
        'h' => 3600,
        _ => return Err(wrong()),
    };
    let count: u32 = text[..text.len() - 1].parse().map_err(|_| wrong())?;
    let whole = Duration::from_secs(u64::from(count) * seconds);
    // libFuzzer takes 0 for "no end".
    if whole.is_zero() { Err(wrong()) } else { Ok(whole) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_with_their_unit() {
        let cases = [("30s", Some(30)), ("10m", Some(600)), ("2h", Some(7200))];
        let wrong = ["", "s", "10", "0s", "1d", "-1s", "1ä"].map(|text| (text, None));
        for (text, seconds) in cases.into_iter().chain(wrong) {
            assert_eq!(duration(text).ok().map(|time| time.as_secs()), seconds, "{text}");
        }
    }
}
