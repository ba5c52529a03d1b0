//! What a developer runs: `cargo xtask --help`.
//!
//! Builds without any C library, because it installs the packages that those need.
#![allow(clippy::disallowed_methods, reason = "a developer's tool measures on the real clock")]

mod bench;
mod chaos;
mod chart;
mod claim;
mod coverage;
mod demo;
mod deny;
mod fuzz;
mod image;
mod libtest;
mod record;
mod screenshot;
mod sim;
mod stack;
mod suites;
mod test;

use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};

/// Developer commands of pod-monitor.
#[derive(Parser)]
#[command(name = "cargo xtask", max_term_width = 100)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Boot a local Kubernetes and Kafka that stay up until `down`.
    Up(stack::Up),
    /// End a local stack. Nothing of it stays behind; without one, does nothing.
    Down(stack::Down),
    /// Show the local stacks: components, addresses, logs, and whether they answer.
    Status(stack::Status),
    /// Show what the monitor tells: sample executions as real pods, and their stories as read back from Kafka.
    Demo(demo::Demo),
    /// Take the pictures of the status page anew: docs/status-page.png, docs/status-page-dark.png.
    Screenshot(screenshot::Screenshot),
    /// Install the packages and build the local stack's programs into the cache. `up` and `test` do it too.
    BuildStack,
    /// Record anew how pods live and end on a real kubelet: tests/fixtures/recorded.
    Record(record::Record),
    /// Build the image of the monitor with its bill of materials, and load it into a local stack.
    Image(image::Image),
    /// Write the files of deploy/ that are made of others: the chart's README, alerts and dashboard in chart and kustomize.
    Chart,
    /// Run the test suites, those against real servers on a stack booted for the run.
    Test(test::Test),
    /// Kill leaders while pods live and end, and judge what a consumer saw.
    Chaos(chaos::Chaos),
    /// Run more seeds of the simulation than the suite does: docs/simulation.md.
    Sim(sim::Sim),
    /// Feed inputs that nobody would write to what reads them: docs/fuzzing.md.
    Fuzz(fuzz::Fuzz),
    /// Measure speed: the numbers of docs/benchmarks.md.
    Bench(bench::Bench),
    /// Write testkit/stack-modules anew after a change in testkit's versions.rs. Needs the Go module proxy.
    PinStack,
}

fn main() -> ExitCode {
    if let Err(error) = coverage::stand_in() {
        eprintln!("error: {error:#}");
        return ExitCode::FAILURE;
    }
    match run(Arguments::parse().command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(command: Command) -> Result<()> {
    match command {
        Command::Up(up) => up.run(),
        Command::Down(down) => down.run(),
        Command::Status(status) => status.run(),
        Command::Demo(demo) => demo.run(),
        Command::Screenshot(screenshot) => screenshot.run(),
        Command::BuildStack => stack::build(),
        Command::Record(record) => record.run(),
        Command::Image(image) => image.run(),
        Command::Chart => chart::write(),
        Command::Test(test) => test.run(),
        Command::Sim(sim) => sim.run(),
        Command::Fuzz(fuzz) => fuzz.run(),
        Command::Bench(bench) => bench.run(),
        Command::Chaos(chaos) => chaos.run(),
        Command::PinStack => testkit::stack::modules::regenerate(&suites::workspace().join("testkit/stack-modules")),
    }
}
