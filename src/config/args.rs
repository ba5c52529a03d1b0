//! The flags of `pod-monitor run`: names, defaults, help. The one place of the defaults that users see.
//!
//! Variables and file keys are derived from the flags' names (`layers.rs`), so none can be forgotten. There is no
//! `Debug` here on purpose: `kafka_config` may hold secrets.

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use clap::{ArgAction, Args, ValueEnum};

use super::{
    Selector, duration, names,
    stalls::{self, StallGrace},
};
use crate::{
    lifecycle::rules::{FollowLogs, ShardBy},
    logs::Report,
};

/// Where events go.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum SinkKind {
    /// Exactly once, to Kafka
    Kafka,
    /// One JSON event a line, nothing kept: to try the monitor on a cluster without Kafka
    Stdout,
}

/// How log lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// For people
    Pretty,
    /// One JSON object a line
    Json,
}

/// What pods print, as a flag.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum ReportKind {
    /// Framed if it looks framed, else the last JSON report line, else raw
    Auto,
    /// A JSON report line
    Json,
    /// Length-framed streams
    Framed,
    /// Everything is output
    Raw,
}

/// `--follow` as clap reads it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum FollowKind {
    /// Of pods that are being deleted
    Deleted,
    /// Of all that run, at most 128, of a node 64
    Running,
}

impl From<FollowKind> for FollowLogs {
    fn from(kind: FollowKind) -> Self {
        match kind {
            FollowKind::Deleted => Self::Deleted,
            FollowKind::Running => Self::Running,
        }
    }
}

/// `--shard-by` as clap reads it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum ShardByKind {
    /// The pod's UID
    Uid,
    /// The execution id
    Execution,
}

impl From<ShardByKind> for ShardBy {
    fn from(kind: ShardByKind) -> Self {
        match kind {
            ShardByKind::Uid => Self::Uid,
            ShardByKind::Execution => Self::Execution,
        }
    }
}

impl From<ReportKind> for Report {
    fn from(kind: ReportKind) -> Self {
        match kind {
            ReportKind::Auto => Self::Auto,
            ReportKind::Json => Self::Json,
            ReportKind::Framed => Self::Framed,
            ReportKind::Raw => Self::Raw,
        }
    }
}

/// Flags of `run`.
#[derive(Args)]
pub struct RunArgs {
    /// YAML file with any of these settings, keys without the dashes
    #[arg(long, value_name = "FILE", help_heading = "Configuration")]
    pub config: Option<PathBuf>,

    /// Label selector of execution pods, as kubectl takes it; required
    #[arg(long, value_name = "SELECTOR", help_heading = "Pods")]
    pub selector: Option<Selector>,
    /// Namespace to watch; repeatable [default: the pod's own, else 'default']
    #[arg(long, value_name = "NAME", action = ArgAction::Append, help_heading = "Pods")]
    pub namespace: Vec<String>,
    /// Watch the pods of all namespaces
    #[arg(long, help_heading = "Pods", action = ArgAction::Set, num_args = 0..=1, require_equals = true,
        default_value = "false", default_missing_value = "true", hide_possible_values = true, hide_default_value = true)]
    pub all_namespaces: bool,
    /// What decides over a pod's story
    #[command(flatten)]
    pub story: StoryArgs,
    /// Compare everything with a list this often
    #[arg(long, value_name = "DURATION", default_value = "300s", help_heading = "Pods", value_parser = duration::parse)]
    pub reconcile_interval: Duration,
    /// How long after its end an execution is remembered although its pod is gone: another pod that claims it is found out
    #[arg(long, value_name = "DURATION", default_value = "10m", help_heading = "Pods", value_parser = duration::parse)]
    pub remember_ended: Duration,

    /// Finalizer that pods carry until their end has been told; taken off after that, by us
    #[arg(long, value_name = "NAME", help_heading = "Clean-up", value_parser = checked(names::label_key))]
    pub finalizer: Option<String>,
    /// The finalizer is taken off this long after a deletion was due, even if the end could not be told
    #[arg(long, value_name = "DURATION", default_value = "15m", help_heading = "Clean-up", value_parser = duration::parse)]
    pub finalizer_deadline: Duration,
    /// Delete pods this long after their end was told [default: they are not deleted]
    #[arg(long, value_name = "DURATION", help_heading = "Clean-up", value_parser = duration::parse)]
    pub delete_finished: Option<Duration>,

    /// What pods print; auto: framed if it looks framed, else the last JSON report line, else raw
    #[arg(long, value_name = "FORM", default_value = "auto", help_heading = "Captured output")]
    pub report: ReportKind,
    /// Which logs are read while their containers run: a node keeps only the last of what one prints
    #[arg(long, value_name = "WHICH", default_value = "deleted", help_heading = "Captured output")]
    pub follow: FollowKind,
    /// Bytes kept per stream; head and tail are kept, the cut is marked
    #[arg(long, value_name = "BYTES", default_value = "262144", help_heading = "Captured output",
        value_parser = clap::value_parser!(u32).range(1024..=16_777_216))]
    pub log_bytes_max: u32,
    /// An end is told at the latest this long after it was seen, with or without its output
    #[arg(long, value_name = "DURATION", default_value = "30s", help_heading = "Captured output", value_parser = duration::parse)]
    pub capture_deadline: Duration,
    /// Tell with a failure what Kubernetes reported of its pod; each asks the API server for it once
    #[arg(long, help_heading = "Captured output", action = ArgAction::Set, num_args = 0..=1, require_equals = true,
        default_value = "true", default_missing_value = "true", hide_possible_values = true)]
    pub kubernetes_events: bool,
    /// Captures at the same time, of each shard
    #[arg(long, value_name = "COUNT", default_value = "32", help_heading = "Captured output",
        value_parser = clap::value_parser!(u32).range(1..=1024))]
    pub captures_max: u32,
    /// Captures at the same time from one node, of each shard
    #[arg(long, value_name = "COUNT", default_value = "8", help_heading = "Captured output",
        value_parser = clap::value_parser!(u32).range(1..=1024))]
    pub captures_per_node_max: u32,

    /// Where events go; stdout: one JSON event a line, nothing kept
    #[arg(long, value_name = "SINK", default_value = "kafka", help_heading = "Events")]
    pub sink: SinkKind,
    /// How Kafka is reached, and its topics
    #[command(flatten)]
    pub kafka: KafkaArgs,
    /// Make missing topics
    #[arg(long, help_heading = "Events", action = ArgAction::Set, num_args = 0..=1, require_equals = true,
        default_value = "false", default_missing_value = "true", hide_possible_values = true, hide_default_value = true)]
    pub create_topics: bool,

    /// Parts that the pods are shared into, each with a leader of its own; changed by 'pod-monitor reshard' only
    #[arg(long, value_name = "COUNT", default_value = "1", help_heading = "Installation",
        value_parser = clap::value_parser!(u32).range(1..=128))]
    pub shards: u32,
    /// What the pods are shared by; with execution, a pod that was made after another one of its execution had ended is
    /// told of after that end
    #[arg(long, value_name = "WHAT", default_value = "uid", help_heading = "Installation")]
    pub shard_by: ShardByKind,
    /// The Leases of the installation
    #[command(flatten)]
    pub lease: LeaseArgs,
    /// Act without holding the Lease: for tests that show what two leaders at once do
    #[arg(long, hide = true, action = ArgAction::Set, num_args = 0..=1, require_equals = true,
        default_value = "false", default_missing_value = "true")]
    pub no_election: bool,
    /// This process among the replicas; a random part is added, so that it is never the same twice [default: pod or host
    /// name]
    #[arg(long, value_name = "ID", help_heading = "Installation", value_parser = checked(names::id))]
    pub identity: Option<String>,

    /// Address of /livez, /readyz, /metrics, /api/status and the status page
    #[arg(long, value_name = "ADDRESS", default_value = "0.0.0.0:8080", help_heading = "Watching the monitor",
        value_parser = listen)]
    pub listen: SocketAddr,
    /// Address by which the other replicas reach --listen; without it they notice a dead leader only when its Lease runs
    /// out [default: $POD_IP and the port of --listen, or --listen where that names an address]
    #[arg(long, value_name = "HOST:PORT", help_heading = "Watching the monitor", value_parser = advertise)]
    pub advertise: Option<String>,
    /// How log lines look [default: pretty on a terminal, else json]
    #[arg(long, value_name = "FORMAT", help_heading = "Watching the monitor")]
    pub log_format: Option<LogFormat>,
    /// error, warn, info, debug, trace, or per module, for instance warn,pod_monitor=debug
    #[arg(long, value_name = "LEVEL", default_value = "info", help_heading = "Watching the monitor", value_parser = log_level)]
    pub log_level: String,
}

/// Where an installation's Leases are: shared by all commands that look at them.
#[derive(Clone, Args)]
pub struct InstallationArgs {
    /// Name of the installation: of its Leases and its transactional ids
    #[arg(long, value_name = "NAME", default_value = "pod-monitor", help_heading = "Installation",
        value_parser = checked(names::dns_subdomain))]
    pub lease_name: String,
    /// Namespace of the installation [default: the pod's own, else 'default']
    #[arg(long, value_name = "NAME", help_heading = "Installation", value_parser = checked(names::dns_label))]
    pub lease_namespace: Option<String>,
}

/// The Leases of an installation: shared by all commands that take them.
#[derive(Clone, Args)]
pub struct LeaseArgs {
    /// Where they are
    #[command(flatten)]
    pub installation: InstallationArgs,
    /// After so long without a change a Lease may be taken by another replica; whole seconds
    #[arg(long, value_name = "DURATION", default_value = "5s", help_heading = "Installation", value_parser = duration::parse)]
    pub lease_duration: Duration,
    /// A leader stops when no renewal was granted for so long
    #[arg(long, value_name = "DURATION", default_value = "3s", help_heading = "Installation", value_parser = duration::parse)]
    pub renew_deadline: Duration,
    /// Between two renewals, and between two tries
    #[arg(long, value_name = "DURATION", default_value = "1s", help_heading = "Installation", value_parser = duration::parse)]
    pub retry_period: Duration,
}

/// Flags of `reshard`.
#[derive(Args)]
pub struct ReshardArgs {
    /// YAML file of 'run': its settings of Kafka and of the installation are taken
    #[arg(long, value_name = "FILE", help_heading = "Configuration")]
    pub config: Option<PathBuf>,

    /// How many shards there are to be; required
    #[arg(long, value_name = "COUNT", help_heading = "Shards", value_parser = clap::value_parser!(u32).range(1..=128))]
    pub shards: Option<u32>,
    /// What the pods are to be shared by [default: as now]
    #[arg(long, value_name = "WHAT", help_heading = "Shards")]
    pub shard_by: Option<ShardByKind>,
    /// How many shards there are now, to be sure [default: as the changelog says]
    #[arg(long, value_name = "COUNT", help_heading = "Shards", value_parser = clap::value_parser!(u32).range(1..=128))]
    pub from_shards: Option<u32>,
    /// Say what would be done, and do nothing
    #[arg(long, help_heading = "Shards", action = ArgAction::Set, num_args = 0..=1, require_equals = true,
        default_value = "false", default_missing_value = "true", hide_possible_values = true, hide_default_value = true)]
    pub dry_run: bool,
    /// How the result is told
    #[arg(long, value_name = "FORM", default_value = "text", help_heading = "Shards")]
    pub output: ResultKind,
    /// Records in one transaction: for tests that end it between two
    #[arg(long, hide = true, default_value = "1000", value_parser = clap::value_parser!(u32).range(1..))]
    pub records_max: u32,

    /// How Kafka is reached, and its topics
    #[command(flatten)]
    pub kafka: KafkaArgs,
    /// Make the topic of the next generation
    #[arg(long, help_heading = "Events", action = ArgAction::Set, num_args = 0..=1, require_equals = true,
        default_value = "false", default_missing_value = "true", hide_possible_values = true, hide_default_value = true)]
    pub create_topics: bool,

    /// The Leases of the installation
    #[command(flatten)]
    pub lease: LeaseArgs,
    /// Names the cluster in ids [default: uid of namespace kube-system]
    #[arg(long, value_name = "ID", help_heading = "Installation", value_parser = checked(names::id))]
    pub cluster_id: Option<String>,
    /// This process as the holder of the Leases; a random part is added [default: pod or host name]
    #[arg(long, value_name = "ID", help_heading = "Installation", value_parser = checked(names::id))]
    pub identity: Option<String>,
}

/// How a command tells its one result.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum ResultKind {
    /// For people
    #[value(aliases = ["table", "pretty"])]
    Text,
    /// One JSON object
    Json,
}

/// What decides over a pod's story: the same for `run` and `explain`.
#[derive(Clone, Args)]
pub struct StoryArgs {
    /// The container whose end is the execution's end [default: found by the pod's own facts]
    #[arg(long, value_name = "NAME", help_heading = "Pods", value_parser = checked(names::dns_label))]
    pub container: Option<String>,
    /// How long a failed container's end waits for the pod's final phase, which may say more
    #[arg(long, value_name = "DURATION", default_value = "10s", help_heading = "Pods", value_parser = duration::parse)]
    pub settle_grace: Duration,
    /// How long an execution may make no headway before that is told, per cause; repeatable; off: never
    /// [default: unschedulable=1m gated=10m image=1m config=1m init=5m starting=2m node_lost=1m deadline=30s
    /// terminating=1m unknown=2m]
    #[arg(long, value_name = "CAUSE=DURATION", action = ArgAction::Append, help_heading = "Pods", value_parser = stalls::parse)]
    pub stall_grace: Vec<StallGrace>,
    /// YAML file that says what failures of yours are called and what is to be done about them: docs/rules.md
    #[arg(long, value_name = "FILE", help_heading = "Pods")]
    pub rules: Option<PathBuf>,

    /// Label that holds the execution id
    #[arg(long, value_name = "KEY", default_value = "execution-id", help_heading = "Ids", value_parser = checked(names::label_key))]
    pub execution_label: String,
    /// Annotation that holds the execution id where the label does not
    #[arg(long, value_name = "KEY", default_value = "execution-id", help_heading = "Ids", value_parser = checked(names::label_key))]
    pub execution_annotation: String,
    /// Prefix of pod names whose rest is the execution id where neither does
    #[arg(long, value_name = "PREFIX", default_value = "exec-", help_heading = "Ids")]
    pub execution_name_prefix: String,
    /// Label that holds the user id
    #[arg(long, value_name = "KEY", default_value = "user-id", help_heading = "Ids", value_parser = checked(names::label_key))]
    pub user_label: String,
    /// Names the cluster in ids [default: uid of namespace kube-system]
    #[arg(long, value_name = "ID", help_heading = "Ids", value_parser = checked(names::id))]
    pub cluster_id: Option<String>,
    /// metadata.environment of events, for instance production
    #[arg(long, value_name = "NAME", help_heading = "Ids", value_parser = checked(names::id))]
    pub environment: Option<String>,
}

/// Flags of `explain`.
#[derive(Args)]
pub struct ExplainArgs {
    /// Pods as 'kubectl get pod -o yaml' (or json) prints them; - reads standard input; required
    #[arg(short, long, value_name = "FILE")]
    pub file: Option<PathBuf>,
    /// Explain it as of this time, RFC 3339 [default: now]
    #[arg(long, value_name = "TIME", value_parser = time)]
    pub at: Option<jiff::Timestamp>,
    /// How it is told
    #[arg(long, value_name = "FORM", default_value = "text")]
    pub output: OutputKind,
    /// YAML file of 'run': the settings below are taken from it
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// What decides over a pod's story
    #[command(flatten)]
    pub story: StoryArgs,
}

/// How a command tells its result.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum OutputKind {
    /// For people
    Text,
    /// One JSON object a pod
    Json,
}

/// How Kafka is reached, and where the events are: shared by all commands that do.
#[derive(Args)]
pub struct StreamArgs {
    /// Bootstrap servers, comma-separated; required (by 'run' only for the sink kafka)
    #[arg(long, value_name = "HOST:PORT,...", help_heading = "Events", value_parser = bootstrap)]
    pub kafka: Option<String>,
    /// Any librdkafka property; repeatable; NAME=@/PATH takes the value from a file
    #[arg(long, value_name = "NAME=VALUE", action = ArgAction::Append, help_heading = "Events")]
    pub kafka_config: Vec<String>,
    /// File with name=value lines, for secrets; --kafka-config wins; `run` reads it again when it changes
    #[arg(long, value_name = "FILE", help_heading = "Events")]
    pub kafka_config_file: Option<PathBuf>,
    /// Topic of events; with {event_type} in it, one topic per type
    #[arg(long, value_name = "TOPIC", default_value = "pod-monitor.events", help_heading = "Events",
        value_parser = checked(names::topic_pattern))]
    pub events_topic: String,
}

/// The same with the changelog: shared by all commands that read or write it.
#[derive(Args)]
pub struct KafkaArgs {
    /// How Kafka is reached, and where the events are
    #[command(flatten)]
    pub stream: StreamArgs,
    /// Topic that remembers what was told: compacted, partitions = shards
    #[arg(long, value_name = "TOPIC", default_value = "pod-monitor.changelog", help_heading = "Events",
        value_parser = checked(names::topic))]
    pub changelog_topic: String,
    /// Counts the changes of the number of shards: 'pod-monitor reshard' prints the next one. Beyond 1 the changelog is
    /// the topic '<changelog-topic>.g<generation>'
    #[arg(long, value_name = "NUMBER", default_value = "1", help_heading = "Installation",
        value_parser = clap::value_parser!(u32).range(1..))]
    pub generation: u32,
}

/// A value parser from a rule of names.rs.
fn checked(
    rule: fn(&str) -> Result<(), String>,
) -> impl Fn(&str) -> Result<String, String> + Clone + Send + Sync + 'static {
    move |text| rule(text).map(|()| text.to_owned()).map_err(|why| format!("'{}': {why}", text.escape_debug()))
}

fn bootstrap(text: &str) -> Result<String, String> {
    let legal = |server: &str| {
        let port = server.rsplit_once(':').map(|(host, port)| !host.is_empty() && port.parse::<u16>().is_ok());
        port == Some(true) && server.bytes().all(|byte| byte.is_ascii_graphic())
    };
    match text.split(',').find(|server| !legal(server)) {
        None => Ok(text.to_owned()),
        Some(server) => Err(format!(
            "'{}' is not host:port: write the bootstrap servers comma-separated, for instance kafka-0:9092,kafka-1:9092",
            server.escape_debug()
        )),
    }
}

/// An address that others are reached by.
pub(crate) fn advertise(text: &str) -> Result<String, String> {
    let port =
        text.rsplit_once(':').filter(|(host, _)| !host.is_empty()).and_then(|(_, port)| port.parse::<u16>().ok());
    if port.is_some_and(|port| port > 0) && text.bytes().all(|byte| byte.is_ascii_graphic() && byte != b',') {
        return Ok(text.to_owned());
    }
    Err(format!(
        "'{}' is not host:port: write the address by which the other replicas reach this one, for instance 10.1.2.3:8080",
        text.escape_debug()
    ))
}

fn listen(text: &str) -> Result<SocketAddr, String> {
    text.parse().map_err(|_| {
        format!("'{}' is not an address and port: write for instance 0.0.0.0:8080 or [::]:8080", text.escape_debug())
    })
}

fn time(text: &str) -> Result<jiff::Timestamp, String> {
    text.parse().map_err(|_| format!("'{}' is no time: write for instance 2026-11-25T12:00:00Z", text.escape_debug()))
}

fn log_level(text: &str) -> Result<String, String> {
    match tracing_subscriber::EnvFilter::builder().parse(text) {
        Ok(_) if !text.trim().is_empty() => Ok(text.to_owned()),
        _ => Err(format!(
            "'{}' is not a level or filter: write error, warn, info, debug, trace, or for instance warn,pod_monitor=debug",
            text.escape_debug()
        )),
    }
}
