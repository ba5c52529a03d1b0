//! `reshard`: takes the Leases, moves the changelog, says what the replicas are to be started with. The result goes to
//! standard output, progress and errors to standard error.

use std::{
    io::Write as _,
    process::ExitCode,
    sync::{Arc, Mutex, PoisonError},
};

use indicatif::{ProgressBar, ProgressStyle};
use serde_json::json;
use tokio_util::sync::CancellationToken;

use super::{EXIT_CONFIG, EXIT_FAILED, chain, signals::Signals};
use crate::{
    config::{Reshard, ResultKind},
    publish::{
        generation,
        identity::{FORMAT, Identity},
        record::Service,
    },
    reshard::{
        self, Outcome, Step, Summary,
        holds::Place,
        kafka::{self, KafkaBooks, Progress, Setup},
        plan::Wish,
    },
    watch::api::{self, Pods},
};
use tokio::runtime::Builder;

pub(super) const EXAMPLES: &str = "\
Stop all replicas first. It takes their Leases, makes every earlier producer of theirs unable to write, copies what was
told of each pod to the changelog of the next generation, and makes that the truth in one transaction. Killed at any
moment before that, nothing has changed; run again, it goes on. At its end it prints what to start the replicas with.
Settings may also come from the variables and the file of 'run'.

Examples:
  What would it do?
    pod-monitor reshard --kafka kafka:9092 --shards 4 --dry-run
  From however many shards to 4:
    kubectl scale deployment pod-monitor --replicas=0
    pod-monitor reshard --kafka kafka:9092 --shards 4 --create-topics
    (start the replicas with --shards 4 --generation 2)
  Keep all pods of one execution on one shard from now on:
    pod-monitor reshard --config pod-monitor.yaml --shards 4 --shard-by execution --create-topics

Exit codes: 0 done, also if it was done before, 1 could not go on: run it again, 2 refused or configuration.";

/// Why it was not done.
#[derive(Debug, thiserror::Error)]
enum Error {
    #[error("take over SIGTERM and SIGINT")]
    Signals(#[source] std::io::Error),
    #[error("find the cluster: run inside a pod with a ServiceAccount, or set KUBECONFIG")]
    Cluster(#[source] Box<dyn std::error::Error + Send + Sync>),
    #[error("cluster-id")]
    ClusterId(#[source] api::Error),
    #[error(transparent)]
    Books(#[from] kafka::Error),
    #[error(transparent)]
    Reshard(#[from] reshard::Error<kafka::Error>),
    #[error("asked to stop: nothing was done")]
    Stopped,
}

impl Error {
    fn code(&self) -> u8 {
        let is_configuration = match self {
            Self::Cluster(_) | Self::Reshard(reshard::Error::Refused(_)) => true,
            Self::ClusterId(error) => matches!(error, api::Error::Nameless { .. } | api::Error::Forbidden { .. }),
            Self::Books(error) | Self::Reshard(reshard::Error::Books(error)) => error.is_configuration(),
            Self::Signals(_) | Self::Stopped | Self::Reshard(reshard::Error::Restless { .. }) => false,
        };
        if is_configuration { EXIT_CONFIG } else { EXIT_FAILED }
    }
}

/// Does it. Call it outside an async runtime.
pub fn run(settings: Reshard) -> ExitCode {
    let outcome = match super::block_on(Builder::new_multi_thread(), Box::pin(work(&settings))) {
        Ok(outcome) => outcome,
        Err(code) => return code,
    };
    match outcome {
        Ok(outcome) => {
            let said = match settings.output {
                ResultKind::Text => text(&settings, &outcome),
                ResultKind::Json => format!("{:#}\n", json(&settings, &outcome)),
            };
            // A reader that has gone away wanted no more of it.
            drop(std::io::stdout().write_all(said.as_bytes()));
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("error: {}", chain(&error));
            ExitCode::from(error.code())
        }
    }
}

async fn work(settings: &Reshard) -> Result<Outcome, Error> {
    let stop = CancellationToken::new();
    let signals = Signals::install().map_err(Error::Signals)?.run(stop.clone());
    tokio::select! {
        () = signals => Err(Error::Stopped),
        outcome = Box::pin(reshard(settings, stop.clone())) => outcome,
    }
}

async fn reshard(settings: &Reshard, stop: CancellationToken) -> Result<Outcome, Error> {
    let mut cluster = kube::Config::infer().await.map_err(|error| Error::Cluster(Box::new(error)))?;
    // Its own limits decide how long a call may take and how often it is tried.
    cluster.default_retry = false;
    let client = kube::Client::try_from(cluster).map_err(|error| Error::Cluster(Box::new(error)))?;
    let cluster_id = match &settings.cluster_id {
        Some(id) => id.clone(),
        None => {
            let asked = stop.run_until_cancelled(Pods::new(client.clone()).cluster_uid()).await;
            asked.ok_or(Error::Stopped)?.map_err(Error::ClusterId)?
        }
    };
    let screen = Screen::default();
    let wish = wish(settings, cluster_id);
    let place = Place {
        namespace: settings.lease_namespace.clone(),
        name: settings.lease_name.clone(),
        me: settings.identity.clone(),
        times: settings.lease_times,
    };
    let service =
        Service { name: env!("CARGO_PKG_NAME").into(), version: env!("CARGO_PKG_VERSION").into(), environment: None };
    let (kafka, progress) = (settings.kafka.clone(), screen.reading());
    let mut books = KafkaBooks::new(Setup { kafka, client, place, service, stop, progress })?;
    let outcome = if settings.dry_run {
        Box::pin(reshard::survey(&mut books, &wish)).await
    } else {
        Box::pin(reshard::run(&mut books, &wish, settings.records_max, &|step| screen.tell(&step))).await
    };
    screen.clear();
    // Whatever became of it.
    books.close().await;
    Ok(outcome?)
}

fn wish(settings: &Reshard, cluster_id: String) -> Wish {
    let ours = Identity {
        cluster_id,
        lease_namespace: settings.lease_namespace.clone(),
        lease_name: settings.lease_name.clone(),
        generation: settings.kafka.generation,
        // What the changelog says of these counts.
        shards: 0,
        shard_by: String::new(),
        selector: String::new(),
        namespaces: Vec::new(),
        format: FORMAT,
    };
    let (base, holder) = (settings.kafka.changelog_topic.clone(), settings.identity.clone());
    Wish { ours, base, count: settings.shards, by: settings.shard_by, from: settings.from_shards, holder }
}

/// A bar on a terminal, lines elsewhere.
#[derive(Default)]
struct Screen(Arc<Mutex<Option<ProgressBar>>>);

impl Screen {
    fn reading(&self) -> Progress {
        let bar = Self(Arc::clone(&self.0));
        Arc::new(move |topic, done, all| bar.advance(&format!("reading {topic}"), done, all))
    }

    fn tell(&self, step: &Step) {
        let said = match step {
            Step::Prepare => "looking at the topics",
            Step::Take => "taking the Leases",
            Step::Fence => "fencing the old shards",
            Step::Copy { done, all } => {
                let count = |n: &usize| u64::try_from(*n).unwrap_or(u64::MAX);
                return self.advance("copying", count(done), count(all));
            }
            Step::Switch => "switching",
        };
        self.clear();
        eprintln!("{said}");
    }

    fn advance(&self, what: &str, done: u64, all: u64) {
        let mut bar = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let bar = bar.get_or_insert_with(|| {
            let bar = ProgressBar::new(all);
            match ProgressStyle::with_template("{msg} {wide_bar} {human_pos}/{human_len}, about {eta} left") {
                Ok(style) => bar.with_style(style),
                Err(_) => bar,
            }
        });
        if bar.message() != what {
            bar.set_message(what.to_owned());
        }
        bar.set_length(all);
        bar.set_position(done);
    }

    fn clear(&self) {
        if let Some(bar) = self.0.lock().unwrap_or_else(PoisonError::into_inner).take() {
            bar.finish_and_clear();
        }
    }
}

fn delete_command(settings: &Reshard) -> String {
    let (servers, topic) = (&settings.kafka.bootstrap_servers, settings.kafka.changelog());
    format!("kafka-topics.sh --bootstrap-server {servers} --delete --topic {topic}")
}

fn text(settings: &Reshard, outcome: &Outcome) -> String {
    let (generation, topic) = (settings.kafka.generation, settings.kafka.changelog());
    let (before, moved, end) = match outcome {
        Outcome::Already(moved) => (String::new(), moved, format!("generation {generation} was resharded already")),
        Outcome::Switched(summary) if settings.dry_run => {
            (table(summary), &summary.moved, "nothing was done (dry run)".to_owned())
        }
        Outcome::Switched(summary) => {
            let end = format!(
                "done: {} records written, generation {} is the truth now",
                summary.written, summary.moved.generation
            );
            (table(summary), &summary.moved, end)
        }
    };
    let start = match settings.dry_run && matches!(outcome, Outcome::Switched(_)) {
        true => "Afterwards the replicas are",
        false => "The replicas are",
    };
    format!(
        "{before}{end}\n\n{start} to be started with: {}\n\
         Topic {topic} is of no use then: keep it until they run, and delete it by\n  {}\n",
        moved.flags(),
        delete_command(settings)
    )
}

fn table(summary: &Summary) -> String {
    let Summary { from, to, moved, .. } = summary;
    let old = moved.generation.saturating_sub(generation::FIRST);
    let head = format!(
        "pods per shard\n{:>8} {:>14} {:>14}\n",
        "shard",
        format!("generation {old}"),
        format!("generation {}", moved.generation)
    );
    let cell = |pods: &[usize], shard| pods.get(shard).map_or_else(|| "-".to_owned(), usize::to_string);
    let row = |name: String, before: String, after: String| format!("{name:>8} {before:>14} {after:>14}\n");
    let rows = (0..from.len().max(to.len())).map(|shard| row(shard.to_string(), cell(from, shard), cell(to, shard)));
    let all = row("all".to_owned(), from.iter().sum::<usize>().to_string(), to.iter().sum::<usize>().to_string());
    let mut notes = String::new();
    if summary.doubled > 0 {
        notes += &format!("{} records stood in two shards: the one that told more counts\n", summary.doubled);
    }
    if summary.unreadable > 0 {
        notes += &format!("{} records cannot be read by this release and are copied as they are\n", summary.unreadable);
    }
    format!("{head}{}{all}{notes}\n", rows.collect::<String>())
}

fn json(settings: &Reshard, outcome: &Outcome) -> serde_json::Value {
    let (state, moved) = match outcome {
        Outcome::Already(moved) => ("already", moved),
        Outcome::Switched(summary) if settings.dry_run => ("planned", &summary.moved),
        Outcome::Switched(summary) => ("switched", &summary.moved),
    };
    let mut said = json!({ "state": state, "generation": moved.generation, "shards": moved.shards,
        "shard_by": moved.shard_by, "topic": moved.topic, "flags": moved.flags(),
        "old_topic": settings.kafka.changelog() });
    if let Outcome::Switched(Summary { from, to, unreadable, doubled, written, .. }) = outcome {
        said["pods_before"] = json!(from);
        said["pods_after"] = json!(to);
        (said["written"], said["unreadable"], said["doubled"]) = (json!(written), json!(unreadable), json!(doubled));
    }
    said
}
