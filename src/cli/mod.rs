//! The command line: sub-commands, exit codes, signals.
//!
//! Exit codes: 0 asked to stop, 1 could not go on, 2 configuration. One message for people goes to standard error
//! before any of the latter two.

pub mod check;
mod cluster;
pub mod completions;
pub mod events;
pub mod explain;
pub mod reshard;
pub mod schema;
pub mod screen;
pub mod signals;
pub mod status;
pub mod verify;

use std::{ffi::OsString, process::ExitCode};

use clap::{CommandFactory as _, Parser, Subcommand};
use tokio::runtime::Builder;

use crate::{
    compose,
    config::{self, Config, ExplainArgs, ReshardArgs, RunArgs, Surroundings, Variables, layers},
    http::Health,
    telemetry::Telemetry,
};

/// Could not go on.
pub const EXIT_FAILED: u8 = 1;
/// Cannot start as configured.
pub const EXIT_CONFIG: u8 = 2;

const RUN_EXAMPLES: &str = "\
Every flag can also stand in the environment (POD_MONITOR_ and its name in capitals) or in the file of --config
(its name without the dashes). A flag wins over a variable, that over the file, that over the default.
Lists and maps: in the file as YAML lists and maps; --namespace in its variable separated by commas or newlines,
--kafka-config by newlines where there are any, else by commas.
Durations: 300ms, 5s, 2m, 1h. Traces: the standard OTEL_* variables.

Examples:
  Try it on a cluster without Kafka, one JSON event a line:
    pod-monitor run --selector app=executor --sink stdout
  Two namespaces, to Kafka, making its topics:
    pod-monitor run --selector app=executor --namespace a --namespace b --kafka kafka:9092 --create-topics
  Everything from a file but the secrets:
    pod-monitor run --config pod-monitor.yaml --kafka-config-file /run/secrets/kafka.properties

Exit codes: 0 asked to stop, 1 could not go on, 2 configuration.";

/// Tells what happens to execution pods to Kafka, exactly once.
#[derive(Parser)]
#[command(name = "pod-monitor", version, arg_required_else_help = true, max_term_width = 120)]
struct Cli {
    #[command(subcommand)]
    command: Subcommands,
}

#[derive(Subcommand)]
enum Subcommands {
    /// Watch execution pods and tell what happens to them
    #[command(after_help = RUN_EXAMPLES)]
    Run(Box<RunArgs>),
    /// Say what is wrong before a roll-out: settings, rights, topics, each with its mend
    #[command(after_help = check::EXAMPLES)]
    Check(Box<check::CheckArgs>),
    /// Show who holds each shard, and how its replicas are
    #[command(after_help = status::EXAMPLES)]
    Status(Box<status::StatusArgs>),
    /// Show events as they are told, or the story of one execution
    #[command(after_help = events::EXAMPLES)]
    Events(Box<events::EventsArgs>),
    /// Read what was told and say whether anything is lost, doubled, out of order or misshapen
    #[command(after_help = verify::EXAMPLES)]
    Verify(Box<verify::VerifyArgs>),
    /// Change how many shards there are, while no replica runs; begun anew after a death, it goes on
    #[command(after_help = reshard::EXAMPLES)]
    Reshard(Box<ReshardArgs>),
    /// Print what the events look like, for programs: JSON Schema, AsyncAPI, the table of causes
    #[command(after_help = schema::EXAMPLES)]
    Schema(schema::SchemaArgs),
    /// Say what run would tell for a pod, and why
    #[command(after_help = explain::EXAMPLES)]
    Explain(Box<ExplainArgs>),
    /// Print what a shell needs to complete commands and flags
    #[command(after_help = completions::EXAMPLES)]
    Completions(completions::CompletionsArgs),
}

/// What to do.
#[derive(Debug)]
pub enum Command {
    /// Be the monitor.
    Run(Box<Config>),
    /// Judge what was told.
    Verify(verify::Verify),
    /// Change the number of shards.
    Reshard(Box<config::Reshard>),
    /// Print what events look like.
    Schema(schema::SchemaArgs),
    /// Say what would be told.
    Explain(Box<explain::Explain>),
    /// Say what is wrong before a roll-out.
    Check(Box<check::Check>),
    /// Show who holds each shard.
    Status(Box<status::Status>),
    /// Show events.
    Events(Box<events::Events>),
    /// Print completions.
    Completions(completions::Completions),
}

/// Reads the command line with the environment and the file it names.
pub fn parse(
    arguments: impl IntoIterator<Item = OsString>,
    variables: Variables<'_>,
    surroundings: &Surroundings,
) -> Result<Command, config::Error> {
    // The variables stand in the help, but are read by config, which knows their place among the layers.
    let command = Cli::command().mut_subcommands(layers::with_variables);
    let whole = command.clone();
    let matches = command.try_get_matches_from(arguments).map_err(layers::refused)?;
    match matches.subcommand() {
        Some(("run", given)) => Ok(Command::Run(Box::new(config::load(given, variables, surroundings)?))),
        Some(("verify", given)) => Ok(Command::Verify(verify::parse(given, variables)?)),
        Some(("reshard", given)) => {
            Ok(Command::Reshard(Box::new(config::reshard::load(given, variables, surroundings)?)))
        }
        Some(("schema", given)) => Ok(Command::Schema(schema::parse(given, variables)?)),
        Some(("check", given)) => Ok(Command::Check(Box::new(check::parse(given, variables, surroundings)?))),
        Some(("status", given)) => Ok(Command::Status(Box::new(status::parse(given, variables, surroundings)?))),
        Some(("events", given)) => Ok(Command::Events(Box::new(events::parse(given, variables)?))),
        Some(("completions", given)) => Ok(Command::Completions(completions::of(given, whole))),
        Some(("explain", given)) => Ok(Command::Explain(Box::new(explain::parse(given, variables)?))),
        other => unreachable!("clap lets only known sub-commands through, not {other:?}"),
    }
}

/// Tells people why there is nothing to run; the exit code for that.
pub fn refuse(error: &config::Error) -> ExitCode {
    if let config::Error::Clap(error) = error {
        // Also the way of --help and --version. A closed standard output is nobody's concern at this point.
        if error.print().is_err() {
            return ExitCode::from(EXIT_FAILED);
        }
        return ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(EXIT_CONFIG));
    }
    eprintln!("error: {error}");
    ExitCode::from(EXIT_CONFIG)
}

/// Runs the monitor to its end. Call it outside an async runtime.
pub fn run(config: Config, telemetry: &Telemetry) -> ExitCode {
    tracing::info_span!("start").in_scope(|| config.log());
    let runtime = match Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            tracing::error!(%error, "cannot start the async runtime");
            return ExitCode::from(EXIT_FAILED);
        }
    };
    let outcome = runtime.block_on(compose::run(config, telemetry, Health::default()));
    // Its deadline is over where something hangs: waiting for that here would have none.
    runtime.shutdown_background();
    match outcome {
        Ok(()) => {
            tracing::info!("stopped as asked");
            ExitCode::SUCCESS
        }
        Err(error) => {
            tracing::error!(error = %chain(&error), "cannot go on");
            ExitCode::from(if error.is_configuration() { EXIT_CONFIG } else { EXIT_FAILED })
        }
    }
}

/// Runs what a command does; where there is no runtime for it, people are told, and the code is given. What still asks a
/// server that does not answer goes on and ends with the process.
fn block_on<F: Future>(mut runtime: Builder, work: F) -> Result<F::Output, ExitCode> {
    let runtime = runtime.enable_all().build().map_err(|error| {
        eprintln!("error: cannot start the async runtime: {error}");
        ExitCode::from(EXIT_FAILED)
    })?;
    let outcome = runtime.block_on(work);
    runtime.shutdown_background();
    Ok(outcome)
}

/// An error with its sources, outermost first.
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(inner) = source {
        text = format!("{text}: {inner}");
        source = inner.source();
    }
    text
}
