//! What `cargo xtask record` runs against the stack that it booted.

use std::process::ExitCode;

use anyhow::{Context, Result, bail, ensure};
use testkit::{
    recorded::{self, play},
    stack::Stack,
};

const HELP: &str = "\
Run by `cargo xtask record`, which boots the stack and builds what is needed.

Usage: record --root DIRECTORY [--only CASE]... [--missing]

The stack is found by the variables that `cargo xtask up --quiet-exports` prints.";

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

#[tokio::main]
async fn run() -> Result<()> {
    let (mut root, mut only, mut missing) = (None, Vec::new(), false);
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        let mut value = || arguments.next().with_context(|| format!("{argument} needs a value"));
        match argument.as_str() {
            "--root" => root = Some(std::path::PathBuf::from(value()?)),
            "--only" => only.push(value()?),
            "--missing" => missing = true,
            "--help" | "-h" => {
                println!("{HELP}");
                return Ok(());
            }
            other => bail!("unknown argument {other}; see --help"),
        }
    }
    let root = root.context("--root is missing; see --help")?;
    let mut cases = recorded::all();
    let known: Vec<&str> = cases.iter().map(|case| case.name).collect();
    for name in &only {
        ensure!(known.contains(&name.as_str()), "no case {name}; there are: {}", known.join(", "));
    }
    cases.retain(|case| only.is_empty() || only.iter().any(|name| name == case.name));
    cases.retain(|case| !missing || recorded::Recording::read(&root, case.name).is_err());
    play::record(&Stack::from_env()?, &root, cases).await
}
