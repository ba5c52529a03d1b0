//! `schema`: prints what the events look like, for programs and for people who write them.

use std::{io::Write as _, process::ExitCode};

use clap::{ArgAction, Args};

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

Exit codes: 0 printed, 1 could not print, 2 configuration.";

/// Flags of `schema`.
#[derive(Debug, Args)]
pub struct SchemaArgs {
    /// The AsyncAPI document in place of the JSON Schema
    #[arg(long, action = ArgAction::Set, num_args = 0..=1, require_equals = true, default_value = "false",
        default_missing_value = "true", hide_possible_values = true, hide_default_value = true)]
    asyncapi: bool,
    /// The table of causes, in Markdown, in place of the JSON Schema
    #[arg(long, action = ArgAction::Set, num_args = 0..=1, require_equals = true, default_value = "false",
        default_missing_value = "true", hide_possible_values = true, hide_default_value = true)]
    causes: bool,
}

/// Reads the flags and their variables.
pub(super) fn parse(given: &clap::ArgMatches, variables: config::Variables<'_>) -> Result<SchemaArgs, config::Error> {
    config::load_own(given, variables, |args: &SchemaArgs, at| {
        let both = args.asyncapi && args.causes;
        both.then(|| format!("{} and {} are two documents: ask for one", at("asyncapi"), at("causes")))
    })
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
