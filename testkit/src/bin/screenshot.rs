//! What `cargo xtask screenshot` runs against the stack that it booted.

use std::process::ExitCode;

use anyhow::{Context, Result};
use testkit::{screenshot::Screenshot, stack::Endpoints};

#[tokio::main]
async fn main() -> ExitCode {
    match run().await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn run() -> Result<()> {
    let usage = "run by `cargo xtask screenshot`: screenshot MONITOR DIRECTORY";
    let mut arguments = std::env::args_os().skip(1);
    let program = arguments.next().context(usage)?.into();
    let to = arguments.next().context(usage)?.into();
    Screenshot { program, to }.take(&Endpoints::from_env()?).await
}
