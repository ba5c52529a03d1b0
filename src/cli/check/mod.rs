//! `check`: says what is wrong before a roll-out. Findings go to standard output as they come, one a line; progress and
//! errors to standard error.
//!
//! ```text
//!  settings ─▶ API server ─▶ namespaces, rights ─▶ Kafka ─▶ topics, rights, changelog ─▶ a pod (--e2e)
//! ```
//! Promises: each check is by itself and bounded in time; nothing is written but with `--e2e`.

mod api;
mod e2e;
mod finding;
mod kafka;
mod rights;

use std::{
    io::{self, IsTerminal as _, Write as _},
    process::ExitCode,
};

use clap::{Args, ValueEnum};
use serde_json::json;
use tokio_util::sync::CancellationToken;

use self::{
    e2e::E2eArgs,
    finding::{Finding, is_passed, summary},
};
use super::{
    EXIT_FAILED, chain, cluster,
    screen::{Paint, ScreenArgs},
    signals::Signals,
};
use crate::{
    config::{self, Config, RunArgs, Sink, Surroundings, check::Judged, duration},
    watch::api::Pods,
};
use tokio::runtime::Builder;

pub(super) const EXAMPLES: &str = "\
Takes the settings of 'run' and says, one line a check, whether a monitor would work with them: the settings themselves,
the API server and each right that these settings need, the namespaces, Kafka, its topics and the rights to them, and
whether the changelog is this installation's. One that fails names its mend, and does not keep the others from being
made. What is asked and not answered is a failure.
It writes nothing, and disturbs no running monitor, with one exception: a broker whose transaction.max.timeout.ms allows
transactions of 24 days fences the leader of each shard that is asked for once, and that one takes over from itself.
With --e2e it makes a pod, waits for its events on Kafka, and deletes it. Consumers get these events, too: they are of
an execution whose id begins with 'check-', unless the selector or --e2e-label says the id's label, and of a pod whose
name begins with 'pod-monitor-check-'.

Examples:
  pod-monitor check --config pod-monitor.yaml
  With the rights of the monitor rather than one's own:
    pod-monitor check --config pod-monitor.yaml --as system:serviceaccount:pod-monitor:pod-monitor
  With a pod that goes all the way to Kafka, while the monitor runs:
    pod-monitor check --config pod-monitor.yaml --e2e

Exit codes: 0 all is well, 1 a check failed, 2 a flag that cannot be read.";

/// How findings look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Output {
    /// One line a check, for people
    #[value(aliases = ["text", "pretty"])]
    Table,
    /// One JSON object
    Json,
}

/// Flags of `check`: those of `run`, and its own.
#[derive(Args)]
pub struct CheckArgs {
    /// How findings look
    #[arg(long, value_name = "FORM", default_value = "table")]
    output: Output,
    /// How it is shown
    #[command(flatten)]
    screen: ScreenArgs,
    /// Ask the API server as this user, for instance system:serviceaccount:pod-monitor:pod-monitor; needs the right to
    /// impersonate it
    #[arg(long = "as", id = "as", value_name = "USER")]
    as_user: Option<String>,
    /// The pod that goes all the way
    #[command(flatten)]
    e2e: E2eArgs,
    /// The settings of run
    #[command(flatten)]
    run: RunArgs,
}

/// What to check.
#[derive(Debug)]
pub struct Check {
    /// What could be read of the settings, or why nothing could.
    judged: Result<Judged, config::Error>,
    e2e: Option<e2e::Wish>,
    as_user: Option<String>,
    output: Output,
    paint: Paint,
}

/// Reads the settings. What is wrong with those of `run` is found by the check, unless it stands on the command line.
pub(super) fn parse(
    given: &clap::ArgMatches,
    variables: config::Variables<'_>,
    around: &Surroundings,
) -> Result<Check, config::Error> {
    let split = |args: CheckArgs| {
        let CheckArgs { output, screen, as_user, e2e, run } = args;
        (run, (output, screen, as_user, e2e))
    };
    let terminal = io::stdout().is_terminal();
    let loaded = config::check::load::<CheckArgs, _>(given, variables, around, split, |args, at| args.e2e.wrong(at));
    match loaded {
        Ok((judged, (output, screen, as_user, e2e))) => {
            let paint = Paint::of(&screen, variables, terminal);
            Ok(Check { judged: Ok(judged), e2e: e2e.wish(), as_user, output, paint })
        }
        Err(error @ (config::Error::Clap(_) | config::Error::Conflict { .. })) => Err(error),
        Err(error) => {
            // Its own flags as they stand on the command line.
            let own = <CheckArgs as clap::FromArgMatches>::from_arg_matches(given).map_err(config::Error::Clap)?;
            let paint = Paint::of(&own.screen, variables, terminal);
            Ok(Check { judged: Err(error), e2e: own.e2e.wish(), as_user: own.as_user, output: own.output, paint })
        }
    }
}

/// Does it. Call it outside an async runtime.
pub fn run(check: &Check) -> ExitCode {
    let findings = match super::block_on(Builder::new_multi_thread(), Box::pin(work(check))) {
        Ok(findings) => findings,
        Err(code) => return code,
    };
    if check.output == Output::Json {
        let said = json!({ "passed": is_passed(&findings), "checks": findings });
        // A reader that has gone away wanted no more of it; the exit code still says what was found.
        drop(io::stdout().write_all(format!("{said:#}\n").as_bytes()));
    } else {
        drop(io::stdout().write_all(format!("\n{}\n", summary(&findings)).as_bytes()));
    }
    if is_passed(&findings) { ExitCode::SUCCESS } else { ExitCode::from(EXIT_FAILED) }
}

/// Findings as they come.
struct Found<'a> {
    check: &'a Check,
    all: Vec<Finding>,
}

impl Found<'_> {
    fn add(&mut self, findings: impl IntoIterator<Item = Finding>) {
        for finding in findings {
            if self.check.output == Output::Table {
                drop(io::stdout().write_all(format!("{}\n", finding.line(self.check.paint)).as_bytes()));
            }
            self.all.push(finding);
        }
    }
}

async fn work(check: &Check) -> Vec<Finding> {
    let stop = CancellationToken::new();
    let mut found = Found { check, all: Vec::new() };
    let signals = match Signals::install() {
        Ok(signals) => signals.run(stop.clone()),
        Err(error) => {
            found.add([Finding::failed("check", format!("take over SIGTERM and SIGINT: {error}"))]);
            return found.all;
        }
    };
    tokio::select! {
        () = signals => {}
        () = all(&mut found, &stop) => {}
    }
    found.all
}

async fn all(found: &mut Found<'_>, stop: &CancellationToken) {
    let Check { judged, as_user, e2e, .. } = found.check;
    found.add(settings(judged));
    let config = judged.as_ref().ok().and_then(|judged| judged.config.as_ref().ok());
    // Asked to stop: what is under way is given up, what follows is not begun. The pod is taken away all the same.
    let Some(reached) = stop.run_until_cancelled(Box::pin(servers(found, config, as_user.as_deref()))).await else {
        found.add([Finding::failed("check", "asked to stop")]);
        return;
    };
    let Some(wish) = e2e else { return };
    match (config, reached) {
        (Some(config), Some(client)) => {
            // Making pods is no right of the monitor's.
            let own = match as_user {
                Some(_) => cluster::connect(None).await.map(|(_, own)| own).unwrap_or(client),
                None => client,
            };
            let show = |finding| found.add([finding]);
            Box::pin(e2e::run(&own, config, wish, stop, show)).await;
        }
        _ => {
            found.add([Finding::skipped("e2e", "no pod was made: mend what is wrong with settings and servers first")])
        }
    }
}

fn settings(judged: &Result<Judged, config::Error>) -> Vec<Finding> {
    let judged = match judged {
        Ok(judged) => judged,
        Err(error) => return vec![Finding::failed("configuration", chain(error))],
    };
    let configuration = match &judged.config {
        Ok(config) => {
            let sink = match &config.sink {
                Sink::Kafka(kafka) => format!("kafka {}", kafka.bootstrap_servers),
                Sink::Stdout => "stdout".to_owned(),
            };
            Finding::ok("configuration", format!("selector {}, shards {}, to {sink}", config.selector, config.shards))
        }
        Err(error) => Finding::failed("configuration", chain(error)),
    };
    let durations = match &judged.durations {
        Ok(times) => {
            let [lease, renew, retry] =
                [times.lease_duration, times.renew_deadline, times.retry_period].map(duration::format);
            let said = format!("lease-duration {lease} > renew-deadline {renew} > 1.2 x retry-period {retry}");
            Finding::ok("durations", said)
        }
        Err(error) => Finding::failed("durations", chain(error)),
    };
    let rules = match &judged.rules {
        None => Finding::ok("rules", "none"),
        Some(Ok(rules)) => Finding::ok("rules", format!("{} of them", rules.len())),
        Some(Err(error)) => Finding::failed("rules", chain(error)),
    };
    vec![configuration, durations, rules]
}

/// The API server and Kafka; a client, where both are reached.
async fn servers(found: &mut Found<'_>, config: Option<&Config>, as_user: Option<&str>) -> Option<kube::Client> {
    let connected = cluster::connect(as_user).await;
    let client = match connected {
        Ok((cluster, client)) => {
            let (findings, reached) = api::reach(&client, cluster.cluster_url.to_string().trim_end_matches('/')).await;
            found.add(findings);
            Some(client).filter(|_| reached)
        }
        Err(error) => {
            found.add([Finding::failed("api-server", chain(&error))]);
            None
        }
    };
    let Some(config) = config else {
        found.add(["rights", "kafka"].map(|check| Finding::skipped(check, "what is needed follows from the settings")));
        return None;
    };
    let mut cluster_id = config.cluster_id.clone();
    match &client {
        Some(client) => {
            let (namespaces, rights) =
                tokio::join!(api::namespaces(client, config), rights::check(client, rights::wanted(config)));
            found.add(namespaces.into_iter().chain(rights));
            if cluster_id.is_none() {
                match Pods::new(client.clone()).cluster_uid().await {
                    Ok(uid) => cluster_id = Some(uid),
                    // That it may not be read is a right above.
                    Err(error) if is_passed(&found.all) => {
                        let said = format!("kube-system, whose uid names the cluster: {}", chain(&error));
                        found.add([Finding::failed("namespace", said).mend("run it again, or set --cluster-id")]);
                    }
                    Err(_) => {}
                }
            }
        }
        None => found.add([Finding::skipped("rights", "the API server is not reached")]),
    }
    let Sink::Kafka(kafka) = &config.sink else { return client };
    let (findings, reached) = Box::pin(kafka::check(config, kafka, cluster_id.as_deref())).await;
    found.add(findings);
    client.filter(|_| reached)
}
