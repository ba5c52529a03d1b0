//! `schema`: prints what the events look like, for programs and for people who write them.

use std::{io::Write as _, process::ExitCode};

use clap::{Args, FromArgMatches as _};

use super::EXIT_FAILED;
use crate::{config, lifecycle::cause_docs, schema};

pub(super) const EXAMPLES: &str = "\
Needs neither Kafka nor Kubernetes: it prints what this very release writes. The same documents stand in docs/.

Examples:
  JSON Schema (draft 2020-12) of the events, one definition for each event type:
    pod-monitor schema > events.schema.json
  AsyncAPI 3.0: topics, keys, headers and messages, with examples, for generators of code and documentation:
    pod-monitor schema --asyncapi > asyncapi.json
  What each cause of a failure means and what to do about it, as a table:
    pod-monitor schema --causes

Exit codes: 0 printed, 1 could not print.";

/// Flags of `schema`.
#[derive(Debug, Args)]
pub struct SchemaArgs {
    /// The AsyncAPI document in place of the JSON Schema
    #[arg(long)]
    asyncapi: bool,
    /// The table of causes, in Markdown, in place of the JSON Schema
    #[arg(long, conflicts_with = "asyncapi")]
    causes: bool,
}

/// Reads the flags.
pub(super) fn parse(given: &clap::ArgMatches) -> Result<SchemaArgs, config::Error> {
    SchemaArgs::from_arg_matches(given).map_err(config::layers::refused)
}

/// Prints.
pub fn run(args: &SchemaArgs) -> ExitCode {
    let text = match args {
        SchemaArgs { causes: true, .. } => cause_docs::page(),
        SchemaArgs { asyncapi: true, .. } => schema::text(&schema::asyncapi()),
        SchemaArgs { .. } => schema::text(&schema::events()),
    };
    match std::io::stdout().write_all(text.as_bytes()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: cannot write to standard output: {error}");
            ExitCode::from(EXIT_FAILED)
        }
    }
}
