//! What `cargo xtask demo` runs against the stack that it booted; by hand only to read events.

use std::process::ExitCode;

use anyhow::{Context, Result, bail};
use testkit::{
    demo::{self, Demo},
    stack::Endpoints,
};

const HELP: &str = "\
Run by `cargo xtask demo`, which boots the stack and builds what is needed.

Usage: demo --deploy DIRECTORY --app NAME [--keep]
       demo --read TOPIC      print the events of a topic, one JSON object a line

The stack is found by the variables that `cargo xtask up --quiet-exports` prints.";

fn main() -> ExitCode {
    match run() {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

#[tokio::main]
async fn run() -> Result<bool> {
    let (mut deploy, mut app, mut keep) = (None, None, false);
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        let mut value = || arguments.next().with_context(|| format!("{argument} needs a value"));
        match argument.as_str() {
            "--deploy" => deploy = Some(value()?),
            "--app" => app = Some(value()?),
            "--keep" => keep = true,
            "--read" => return demo::read(&Endpoints::from_env()?, &value()?).map(|()| true),
            "--help" | "-h" => {
                println!("{HELP}");
                return Ok(true);
            }
            other => bail!("unknown argument {other}; see --help"),
        }
    }
    let demo = Demo {
        deploy: deploy.context("--deploy is missing; see --help")?.into(),
        app: app.context("--app is missing; see --help")?,
        keep,
    };
    demo.run(&Endpoints::from_env()?).await
}
