//! Where the parts are put together into the running monitor.
//!
//! Order: HTTP first (so that probes see what is missing), then the cluster's name, then Kafka's topics, then what each
//! shard needs (`shards.rs`). Each waits for its server with back-off, says so once, and gives up only for what waiting
//! cannot mend.

mod files;
mod shards;

use std::{sync::Arc, time::Duration};

use tokio::{
    task::{JoinError, JoinSet},
    time::sleep,
};
use tokio_util::sync::CancellationToken;

use self::shards::Shared;
use crate::{
    cli::{chain, signals::Signals},
    clock,
    config::{Config, Kafka, Namespaces, Sink},
    http::{self, Board, Health, Server, health::Component, status::Shown},
    leadership::peers::Peers,
    logs::{
        Limits,
        streams::{self, KubeLogs},
    },
    ports::Journals,
    publish::{
        error::{Class, OpenError},
        identity::{FORMAT, Identity},
        journal::KafkaJournals,
        record::{REST_BYTES_MAX, Service},
        settings::{self, Settings},
        stdout::Stdout,
        topics::{self, Topics},
    },
    sharding::seats,
    telemetry::{Telemetry, otlp::stories::Stories},
    watch::{
        api::{self, Pods},
        stream::Backoff,
    },
    worker,
};

/// How long a stop may take altogether: 10 s of the transaction under way, the release, HTTP (2 s), with room to spare, and
/// below the 30 s after which Kubernetes kills.
const STOP_MAX: Duration = Duration::from_secs(20);
/// How long the process goes on after the Lease was let go: standbys see the release before they see it die. Otherwise
/// each of them writes first on the version that it saw before the release, in vain.
const LINGER: Duration = Duration::from_millis(100);

/// Why the monitor cannot go on.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// HTTP.
    #[error(transparent)]
    Http(#[from] http::Error),
    /// The system does not let us handle signals.
    #[error("take over SIGTERM and SIGINT")]
    Signals(#[source] std::io::Error),
    /// Neither a kubeconfig nor a ServiceAccount.
    #[error("find the cluster: run inside a pod with a ServiceAccount, or set KUBECONFIG")]
    Cluster(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The cluster's name could not be read.
    #[error("cluster-id: {0}")]
    ClusterId(api::Error),
    /// A reader of logs could not be made.
    #[error("make a client for logs")]
    Logs(#[source] streams::Error),
    /// Kafka settings.
    #[error(transparent)]
    Settings(#[from] settings::Error),
    /// Topics that waiting cannot mend.
    #[error(transparent)]
    Topics(topics::Error),
    /// Kafka clients could not be started.
    #[error("start Kafka clients")]
    Journals(#[source] OpenError),
    /// Fewer open files than the shards need.
    #[error(transparent)]
    Files(#[from] files::TooFew),
    /// A shard's part gave up.
    #[error(transparent)]
    Seats(#[from] seats::Error),
    /// Asked to stop, and still there.
    #[error("did not end within {STOP_MAX:?} of being asked to: what was on its way is told by the next leader")]
    Overdue,
    /// A part died: a bug.
    #[error("a part of the monitor ended unexpectedly")]
    Part(#[source] JoinError),
}

impl Error {
    /// Whether the mend is another configuration (exit code 2), not another try.
    pub fn is_configuration(&self) -> bool {
        match self {
            Self::Cluster(_)
            | Self::ClusterId(_)
            | Self::Settings(_)
            | Self::Topics(_)
            | Self::Journals(_)
            | Self::Files(_) => true,
            Self::Seats(seats::Error::Worker(worker::Error::Open(error))) => {
                matches!(error, OpenError::Identity { .. })
            }
            Self::Http(_) | Self::Signals(_) | Self::Logs(_) | Self::Seats(_) | Self::Overdue | Self::Part(_) => false,
        }
    }
}

/// Runs everything until SIGTERM or SIGINT.
///
/// # Errors
/// As [`Error`] says; the process ends with exit code 1 or 2.
pub async fn run(config: Config, telemetry: &Telemetry, health: Health) -> Result<(), Error> {
    files::allow(config.shards.get())?;
    let stop = CancellationToken::new();
    // Before anything else: from here on a signal is a wish, not a kill.
    let mut signals = JoinSet::new();
    signals.spawn(Signals::install().map_err(Error::Signals)?.run(stop.clone()));
    let board = Board::new(shown(&config));
    let monitor = Monitor {
        cluster: health.component("kubernetes"),
        kafka: health.component("kafka"),
        health: health.clone(),
        board: board.clone(),
        metrics: telemetry.metrics().clone(),
        stories: telemetry.stories(),
        peers: Peers::of(config.rules.hash()),
        stop: stop.clone(),
    };
    monitor.metrics.set_rules(config.rules.hash());
    let peers = monitor.peers.clone();
    let server = Server::bind(config.listen, health, telemetry.metrics().clone(), board, peers).await?;
    // HTTP outlives the worker, so that a draining replica still answers its probes.
    let http_stop = CancellationToken::new();
    let elects = config.lease_times.is_some();
    let mut parts: JoinSet<Result<(), Error>> = JoinSet::new();
    let (serving, working) = (server.run(http_stop.clone()), monitor.work(config));
    let serving = parts.spawn(async move { Ok(serving.await?) }).id();
    parts.spawn(working);
    let mut outcome = Ok(());
    let mut overdue = std::pin::pin!(async {
        stop.cancelled().await;
        sleep(STOP_MAX).await;
    });
    loop {
        let ended = tokio::select! {
            ended = parts.join_next_with_id() => ended,
            () = &mut overdue => return Err(Error::Overdue),
        };
        let Some(ended) = ended else { break };
        let (id, result) = ended.map_err(Error::Part)?;
        if id != serving {
            outcome = result;
            if elects && outcome.is_ok() {
                sleep(LINGER).await;
            }
        } else if result.is_err() {
            return result;
        }
        http_stop.cancel();
    }
    outcome
}

fn shown(config: &Config) -> Shown {
    Shown {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        identity: config.identity.clone(),
        started_at: Some(clock::now()),
        selector: config.selector.as_str().to_owned(),
        sink: match &config.sink {
            Sink::Kafka(kafka) => format!("kafka {} topic {}", kafka.bootstrap_servers, kafka.events_topic),
            Sink::Stdout => "stdout".to_owned(),
        },
        elects: config.lease_times.is_some() && config.advertise.is_some(),
        ..Shown::default()
    }
}

struct Monitor {
    cluster: Component,
    kafka: Component,
    health: Health,
    board: Board,
    metrics: crate::telemetry::Metrics,
    stories: Stories,
    peers: Peers,
    stop: CancellationToken,
}

impl Monitor {
    async fn work(self, config: Config) -> Result<(), Error> {
        let stop = self.stop.clone();
        let Some(started) = stop.run_until_cancelled(self.start(&config)).await else { return Ok(()) };
        match started? {
            Started::Kafka(journals, cluster, limits, identity) => {
                Box::pin(self.watch(config, journals, cluster, limits, Some(identity))).await
            }
            Started::Stdout(journals, cluster, limits) => {
                Box::pin(self.watch(config, journals, cluster, limits, None)).await
            }
        }
    }

    /// Waits for the servers.
    async fn start(&self, config: &Config) -> Result<Started, Error> {
        let cluster = Cluster::find(&config.identity).await?;
        let cluster_id = match &config.cluster_id {
            Some(id) => id.clone(),
            None => self.cluster_id(&cluster.pods).await?,
        };
        let cluster = Cluster { id: cluster_id, ..cluster };
        let service = service(config);
        match &config.sink {
            Sink::Stdout => Ok(Started::Stdout(Arc::new(Stdout::new(service)), cluster, config.limits)),
            Sink::Kafka(kafka) => {
                let identity = identity(config, kafka.generation, &cluster.id);
                let mut settings = settings(kafka, identity.clone(), service)?;
                settings.stories = self.stories.clone();
                let topics = self.topics(&config.identity, &settings, kafka.create_topics).await?;
                topics.advice.iter().for_each(|advice| tracing::warn!("{advice}"));
                let limits = limits(config.limits, &topics);
                let journals = KafkaJournals::start(settings, &topics).map_err(Error::Journals)?;
                Ok(Started::Kafka(Arc::new(journals), cluster, limits, identity))
            }
        }
    }

    async fn cluster_id(&self, pods: &Pods) -> Result<String, Error> {
        let mut backoff = Backoff::of(pods.who());
        loop {
            match pods.cluster_uid().await {
                Ok(uid) => return Ok(uid),
                Err(error @ api::Error::Nameless { .. }) => return Err(Error::ClusterId(error)),
                Err(error) => self.cluster.not_yet(chain(&error)),
            }
            sleep(backoff.pause()).await;
        }
    }

    async fn topics(&self, who: &str, settings: &Settings, create: bool) -> Result<Topics, Error> {
        let mut backoff = Backoff::of(who);
        loop {
            // Who is not let in may be after a rotation.
            let reread = settings.clone();
            tokio::task::spawn_blocking(move || reread.reload()).await.map_err(Error::Part)?;
            match topics::ensure(settings, create).await {
                Ok(topics) => return Ok(topics),
                Err(error) if error.class() == Class::Transient => self.kafka.not_yet(chain(&error)),
                Err(error) => return Err(Error::Topics(error)),
            }
            sleep(backoff.pause()).await;
        }
    }

    async fn watch<J: Journals + 'static>(
        self,
        config: Config,
        journals: Arc<J>,
        cluster: Cluster,
        limits: Limits,
        identity: Option<Identity>,
    ) -> Result<(), Error> {
        if config.shards.get() > 1 {
            // From here on each shard speaks for itself.
            self.cluster.ok();
            self.kafka.ok();
        }
        let shared = Shared {
            logs: KubeLogs::new(cluster.config.clone()).map_err(Error::Logs)?,
            journals,
            cluster,
            limits,
            identity,
            peers: self.peers,
            health: self.health,
            board: self.board,
            metrics: self.metrics,
        };
        shared.run(&config, self.stop).await.map_err(Error::from)
    }
}

enum Started {
    Kafka(Arc<KafkaJournals>, Cluster, Limits, Identity),
    Stdout(Arc<Stdout>, Cluster, Limits),
}

struct Cluster {
    id: String,
    config: kube::Config,
    client: kube::Client,
    /// For Leases only: nothing else's traffic delays them.
    leases: kube::Client,
    pods: Pods,
}

impl Cluster {
    async fn find(who: &str) -> Result<Self, Error> {
        let mut config = kube::Config::infer().await.map_err(|e| Error::Cluster(Box::new(e)))?;
        // Our own limits decide how long a call may take and how often it is tried.
        config.default_retry = false;
        let client = || kube::Client::try_from(config.clone()).map_err(|e| Error::Cluster(Box::new(e)));
        let (client, leases) = (client()?, client()?);
        let pods = Pods::new(client.clone()).at(config.cluster_url.to_string().trim_end_matches('/')).by(who);
        Ok(Self { id: String::new(), config, client, leases, pods })
    }
}

pub(crate) fn service(config: &Config) -> Service {
    Service {
        name: env!("CARGO_PKG_NAME").into(),
        version: env!("CARGO_PKG_VERSION").into(),
        environment: config.environment.as_deref().map(Into::into),
    }
}

pub(crate) fn identity(config: &Config, generation: u32, cluster_id: &str) -> Identity {
    Identity {
        cluster_id: cluster_id.to_owned(),
        lease_namespace: config.lease_namespace.clone(),
        lease_name: config.lease_name.clone(),
        generation,
        shards: config.shards.get(),
        shard_by: config.shard_by.as_str().into(),
        selector: config.selector.as_str().to_owned(),
        namespaces: match &config.namespaces {
            Namespaces::All => Vec::new(),
            Namespaces::Named(names) => names.iter().cloned().collect(),
        },
        format: FORMAT,
    }
}

pub(crate) fn settings(kafka: &Kafka, identity: Identity, service: Service) -> Result<Settings, settings::Error> {
    let properties = kafka.properties.to_map_with_secrets();
    let (servers, sources) = (&kafka.bootstrap_servers, kafka.sources.clone());
    let settings = Settings::new(servers, properties, &kafka.events_topic, &kafka.changelog_topic, identity, service)?;
    Ok(settings.rereading(Arc::new(move || match sources.read() {
        Ok(properties) => Ok(properties.to_map_with_secrets()),
        Err(error) => Err(error.to_string()),
    })))
}

/// Captured output must fit the record that the broker takes, beside everything else in it.
fn limits(limits: Limits, topics: &Topics) -> Limits {
    let room = topics.record_bytes_max.saturating_sub(REST_BYTES_MAX);
    Limits { encoded_bytes_max: limits.encoded_bytes_max.min(room), ..limits }
}
