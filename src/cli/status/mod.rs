//! `status`: who holds each shard, from the Leases and from the replicas. The tables go to standard output, errors to
//! standard error.

mod leases;
mod replicas;
mod report;

use std::{
    io::{self, IsTerminal as _, Write as _},
    process::ExitCode,
};

use clap::{ArgAction, Args, ValueEnum};

use self::{leases::Leases, report::Report};
use super::{
    EXIT_CONFIG, EXIT_FAILED, chain, cluster,
    screen::{Paint, ScreenArgs},
};
use crate::{
    clock,
    config::{self, InstallationArgs, Surroundings},
};
use tokio::runtime::Builder;

pub(super) const EXAMPLES: &str = "\
Reads the Leases of the installation and asks its replicas where they can be reached, by the address that they wrote
there. Of an installation with one shard only the holder is known by its Lease, and it tells of those who stand by; what
they say themselves is asked with --replica.
Settings may also come from the variables and the file of 'run'.

HOLDER   who holds the Lease; a holder that stopped renewing it is watched for its whole duration first
TERM     how often the shard was taken over, as its changelog counts; CHANGES: as its Lease does
LAG      records of the changelog that the standby which is furthest behind has not read
TRACKED  pods whose story is not over
SINCE    the last change of hands

Examples:
  pod-monitor status --lease-namespace pod-monitor
  pod-monitor status --config pod-monitor.yaml --output json
  From outside the cluster, where the addresses of pods do not lead anywhere:
    kubectl --namespace pod-monitor port-forward pod/<the holder> 8080 &
    pod-monitor status --lease-namespace pod-monitor --replica 127.0.0.1:8080

Exit codes: 0 each shard has a holder, 1 one has none or it could not be read, 2 configuration.";

/// How the status looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Output {
    /// For people
    #[value(aliases = ["text", "pretty"])]
    Table,
    /// One JSON object
    Json,
}

/// Flags of `status`.
#[derive(Args)]
pub struct StatusArgs {
    /// How many shards there should be [default: as many as replicas or Leases say]
    #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(u32).range(1..=128))]
    shards: Option<u32>,
    /// A further replica to ask; repeatable
    #[arg(long, value_name = "HOST:PORT", action = ArgAction::Append, value_parser = replica)]
    replica: Vec<String>,
    /// How it looks
    #[arg(long, value_name = "FORM", default_value = "table")]
    output: Output,
    /// How it is shown
    #[command(flatten)]
    screen: ScreenArgs,
    /// YAML file of 'run': its settings of the installation are taken
    #[arg(long, value_name = "FILE")]
    config: Option<std::path::PathBuf>,
    /// Where the Leases are
    #[command(flatten)]
    installation: InstallationArgs,
}

/// Whose status.
#[derive(Debug)]
pub struct Status {
    namespace: String,
    name: String,
    shards: Option<u32>,
    replicas: Vec<String>,
    output: Output,
    paint: Paint,
}

fn replica(text: &str) -> Result<String, String> {
    config::args::advertise(text).map_err(|_| {
        format!(
            "'{}' is not host:port: write where a replica is reached, for instance 127.0.0.1:8080",
            text.escape_debug()
        )
    })
}

/// Reads the settings.
pub(super) fn parse(
    given: &clap::ArgMatches,
    variables: config::Variables<'_>,
    around: &Surroundings,
) -> Result<Status, config::Error> {
    let args = config::load_own::<StatusArgs>(given, variables, |_, _| None)?;
    let InstallationArgs { lease_name, lease_namespace } = args.installation;
    Ok(Status {
        namespace: lease_namespace.or(around.own_namespace.clone()).unwrap_or_else(|| "default".to_owned()),
        name: lease_name,
        shards: args.shards,
        replicas: args.replica,
        output: args.output,
        paint: Paint::of(&args.screen, variables, io::stdout().is_terminal()),
    })
}

/// Why there is none.
#[derive(Debug, thiserror::Error)]
enum Error {
    #[error(transparent)]
    Cluster(#[from] cluster::Unknown),
    #[error(transparent)]
    Leases(#[from] leases::Error),
}

/// Does it. Call it outside an async runtime.
pub fn run(status: &Status) -> ExitCode {
    let outcome = match super::block_on(Builder::new_current_thread(), look(status)) {
        Ok(outcome) => outcome,
        Err(code) => return code,
    };
    match outcome {
        Ok(report) => {
            let said = match status.output {
                Output::Table => report.text(status.paint, clock::now()),
                Output::Json => format!("{:#}\n", report.json()),
            };
            // A reader that has gone away wanted no more of it; the exit code still says what was found.
            drop(io::stdout().write_all(said.as_bytes()));
            if report.is_held() { ExitCode::SUCCESS } else { ExitCode::from(EXIT_FAILED) }
        }
        Err(error) => {
            eprintln!("error: {}", chain(&error));
            ExitCode::from(if matches!(error, Error::Cluster(_)) { EXIT_CONFIG } else { EXIT_FAILED })
        }
    }
}

async fn look(status: &Status) -> Result<Report, Error> {
    let (_, client) = cluster::connect(None).await?;
    let found = Leases::of(&client, &status.namespace, &status.name, status.shards).await?;
    let mut addresses: Vec<String> = found.addresses().chain(status.replicas.iter().cloned()).collect();
    addresses.sort();
    addresses.dedup();
    // Those that are silent are watched meanwhile.
    let (found, asked) = tokio::join!(found.settled(&client), replicas::ask(addresses));
    Ok(Report::of(&status.namespace, &status.name, status.shards, &found?, asked))
}
