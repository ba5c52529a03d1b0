//! Measures what size costs: `cargo xtask bench scale`, or one part of it by `--only memory` and so on.
//!
//! ```text
//!   pods: one recorded life, by the hundred thousand ──▶ the monitor's own code, or the whole monitor ──▶ results.json
//!                                                                                                            │
//!                                                          a table with targets beside, docs/scaling-*.svg ◀─┘
//! ```
//! Each part can be run by itself and replaces what it said before; plots are drawn from all that was ever measured here.

#![allow(clippy::disallowed_methods, reason = "a measuring program")]

mod live;
mod memory;
mod onecore;
mod otlp;
mod plot;
mod pods;
mod replay;
mod restore;
mod results;
mod rig;
mod shards;
#[allow(dead_code, clippy::unwrap_used, reason = "shared with the broker tests")]
#[path = "../../tests/broker/support.rs"]
mod support;
mod takeover;
mod told;

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::Result;
use clap::{Parser, ValueEnum};
use indicatif::{ProgressBar, ProgressStyle};
use testkit::counting::{self, Counting};

use crate::{
    memory::Holder,
    results::{Results, Row, Target, median},
};

/// Counts in the processes that hold pods only.
#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Sizes that are plotted.
pub(crate) const SIZES: [usize; 4] = [1000, 10_000, 50_000, 100_000];

/// Measure what size costs.
#[derive(Parser)]
#[command(after_help = "Examples:\n  \
    cargo xtask bench scale                       # all parts; half an hour\n  \
    cargo xtask bench scale --only memory\n  \
    cargo xtask bench scale --only restore --only shards --plots docs\n  \
    cargo bench --workspace --bench scale -- --summary")]
struct Arguments {
    /// Only this part; repeatable
    #[arg(long, value_enum)]
    only: Vec<Part>,
    /// Draw scaling-*.svg into this directory, from all that was measured so far
    #[arg(long, value_name = "DIRECTORY")]
    plots: Option<PathBuf>,
    /// Measure nothing: print what was measured so far
    #[arg(long)]
    summary: bool,
    /// How we start ourselves: measure one holder of pods and print what it costs
    #[arg(long, hide = true)]
    child: Option<Holder>,
    /// takeover: no more pods than this
    #[arg(long, value_name = "COUNT", default_value_t = 100_000)]
    pods_max: usize,
    #[arg(long, hide = true, default_value_t = 0)]
    pods: usize,
    /// What `cargo bench` says
    #[arg(long, hide = true)]
    bench: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Part {
    /// What a tracked pod costs, beside kube's `reflector<Pod>`. Needs no server
    Memory,
    /// Watch events a second on one core, from a recorded stream. Needs no server
    Replay,
    /// A thousand pod lives a second on one core. Needs no server
    Churn,
    /// Taking over with many unchanged pods, apart from the API server. Needs no server
    Reconcile,
    /// How long a standby takes to know 100 000 pods. Needs Kafka
    Restore,
    /// Committed events a second with 1, 2, 4 and 8 shards. Needs Kafka
    Shards,
    /// The highest rate of status writes, processor time, Lease writes, base RSS. Needs a whole stack
    Live,
    /// Taking over with up to 100 000 unchanged pods. Needs a whole stack
    Takeover,
    /// What traces, metrics and log lines cost that are sent by OTLP. Needs a whole stack
    Otlp,
}

fn main() -> Result<()> {
    if std::env::args().any(|argument| argument == "--child") {
        counting::start();
    }
    let arguments = Arguments::parse();
    if let Some(holder) = arguments.child {
        return memory::child(holder, arguments.pods);
    }
    let mut results = Results::open(&Path::new(env!("CARGO_TARGET_TMPDIR")).join("scale.json"))?;
    if !arguments.summary {
        let chosen = if arguments.only.is_empty() { Part::value_variants() } else { arguments.only.as_slice() };
        tokio::runtime::Runtime::new()?.block_on(measure(chosen, &arguments, &mut results))?;
    }
    if let Some(into) = &arguments.plots {
        println!("Plots: {}", plot::write(&results, into)?.join(", "));
    }
    if arguments.summary || arguments.only.is_empty() {
        println!("Machine: {}\n\n{}", results.machine, results.markdown(None));
    }
    if results.missed() > 0 {
        println!("{} of all targets measured so far are missed", results.missed());
    }
    Ok(())
}

async fn measure(parts: &[Part], arguments: &Arguments, results: &mut Results) -> Result<()> {
    for part in parts {
        match part {
            Part::Memory => memory(results)?,
            Part::Replay => onecore::throughput(results)?,
            Part::Churn => onecore::churn(results)?,
            Part::Reconcile => onecore::take_over(results)?,
            Part::Restore => restore::run(results).await?,
            Part::Shards => shards::run(results).await?,
            Part::Live => live::run(results).await?,
            Part::Takeover => takeover::run(results, arguments.pods_max).await?,
            Part::Otlp => otlp::run(results).await?,
        }
        let name = format!("{part:?}").to_lowercase();
        println!("{}", results.markdown(Some(&name)));
    }
    Ok(())
}

fn memory(results: &mut Results) -> Result<()> {
    const ROUNDS: usize = 3;
    let bar = bar((SIZES.len() * 3 * ROUNDS) as u64, "processes");
    let mut rows = Vec::new();
    let mut largest = Vec::new();
    for (holder, line) in [
        (Holder::Running, "tracked pod that runs"),
        (Holder::Finished, "tracked pod that has ended"),
        (Holder::Reflector, "kube's reflector<Pod>"),
    ] {
        let (mut held, mut rss) = (Vec::new(), Vec::new());
        for pods in SIZES {
            let mut costs = Vec::new();
            for _ in 0..ROUNDS {
                costs.push(memory::measure(holder, pods)?);
                bar.inc(1);
            }
            held.push((pods as f64, costs[0].per_pod()));
            rss.push((pods as f64, median(&costs.iter().map(memory::Cost::rss_per_pod).collect::<Vec<_>>())));
            if pods == SIZES[SIZES.len() - 1] {
                largest.push(costs.swap_remove(0));
            }
        }
        let target = if holder == Holder::Reflector { Target::None } else { Target::AtMost(512.0) };
        let (bytes, grown) = (held[held.len() - 1].1, rss[rss.len() - 1].1);
        let note = "100 000 pods, after a restore and a LIST";
        rows.push(Row::new(&format!("{line}: bytes asked for"), target, bytes, "B", note));
        rows.push(Row::new(
            &format!("{line}: RSS"),
            target,
            grown,
            "B",
            format!("{note}, median of {ROUNDS} processes"),
        ));
        results.line(&format!("memory: {line}"), held)?;
        results.line(&format!("memory: {line}, RSS"), rss)?;
    }
    bar.finish_and_clear();
    let ratio = largest[2].held as f64 / largest[0].held as f64;
    rows.push(Row::new(
        "kube's reflector<Pod> by ours, bytes asked for",
        Target::AtLeast(40.0),
        ratio,
        "times",
        "100 000 pods that run",
    ));
    for (cost, who) in largest.iter().zip(["ours, running", "ours, ended", "kube's reflector"]) {
        let peak = (cost.peak - cost.held) as f64 / f64::from(1 << 20);
        let rss = cost.rss_peak as f64 / f64::from(1 << 20);
        let note = format!("RSS at most {rss:.0} MiB more than before");
        rows.push(Row::new(&format!("peak of the LIST above what stays: {who}"), Target::None, peak, "MiB", note));
    }
    results.set("memory", rows)
}

/// Hidden where there is no terminal.
pub(crate) fn bar(length: u64, unit: &str) -> ProgressBar {
    let bar = ProgressBar::new(length);
    let template = format!("{{wide_bar}} {{pos}}/{{len}} {unit}, about {{eta}} left  {{msg}}");
    if let Ok(style) = ProgressStyle::with_template(&template) {
        bar.set_style(style);
    }
    bar.enable_steady_tick(Duration::from_millis(500));
    bar
}
