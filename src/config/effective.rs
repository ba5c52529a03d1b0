//! The effective configuration: what the rest of the program gets. Values here fit together.

use std::{collections::BTreeSet, net::SocketAddr, num::NonZeroU32, path::Path, sync::Arc, time::Duration};

use jiff::SignedDuration;

use super::{
    At, Error, Kafka, LogFormat, Origin, Selector,
    args::{RunArgs, SinkKind, StoryArgs},
    duration, kafka,
    layers::Origins,
    lease, names, rules_file, stalls,
};
use crate::{
    cleanup,
    leadership::election::Times,
    lifecycle::{
        identity::IdSources,
        rules::{FollowLogs, Rules, ShardBy},
        stall::Graces,
        user_rules::UserRules,
    },
    logs::{Limits, Report},
};

/// Both captured streams of one event as JSON strings, in bytes: the rest of the record's 1 MiB (Kafka's default
/// `message.max.bytes`) is for its other fields and headers.
const ENCODED_BYTES_MAX: usize = 900_000;

/// Where Kubernetes puts the namespace of a pod's service account.
const OWN_NAMESPACE_FILE: &str = "/var/run/secrets/kubernetes.io/serviceaccount/namespace";

/// The checked settings of `run`.
#[derive(Debug, Clone)]
pub struct Config {
    /// Which pods are executions.
    pub selector: Selector,
    /// Where they are.
    pub namespaces: Namespaces,
    /// The container whose end is the execution's end, where it is not the obvious one.
    pub container: Option<String>,
    /// Between two comparisons with a LIST.
    pub reconcile_interval: Duration,
    /// How long a failed container's end waits for the pod's final phase.
    pub settle_grace: Duration,
    /// How long each kind of stall may last before it is told.
    pub stall_graces: Graces,
    /// How long after its end an execution is remembered although its pod is gone.
    pub remember_ended: Duration,
    /// What is done to pods whose end was told.
    pub cleanup: cleanup::Settings,
    /// What the user says of failures.
    pub rules: Arc<UserRules>,
    /// Where ids come from.
    pub ids: IdSources,
    /// Names the cluster in ids; `None`: the uid of namespace kube-system.
    pub cluster_id: Option<String>,
    /// `metadata.environment` of events.
    pub environment: Option<String>,
    /// What pods print.
    pub report: Report,
    /// Which logs are followed.
    pub follow: FollowLogs,
    /// Whether Kubernetes Events are told with failures.
    pub kubernetes_events: bool,
    /// Bounds of captures.
    pub limits: Limits,
    /// Where events go.
    pub sink: Sink,
    /// Into how many shards the pods are parted.
    pub shards: NonZeroU32,
    /// What they are shared by.
    pub shard_by: ShardBy,
    /// Name of the installation.
    pub lease_name: String,
    /// Namespace of the installation.
    pub lease_namespace: String,
    /// This process among the replicas; unique per start unless the user set it.
    pub identity: String,
    /// How the Lease is held and contended for; `None`: no election.
    pub lease_times: Option<Times>,
    /// Address of the HTTP server.
    pub listen: SocketAddr,
    /// Where the other replicas reach it; `None`: they do not.
    pub advertise: Option<String>,
    /// How the monitor logs.
    pub log: LogSettings,
}

/// Whose pods are watched.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Namespaces {
    /// All there are.
    All,
    /// These, none twice; never empty.
    Named(BTreeSet<String>),
}

/// Where events go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Sink {
    /// Exactly once, to Kafka.
    Kafka(Kafka),
    /// To standard output, nothing kept.
    Stdout,
}

/// How the monitor logs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogSettings {
    /// `None`: pretty on a terminal, else JSON.
    pub format: Option<LogFormat>,
    /// A level or filter that parses.
    pub filter: String,
}

/// What the place where the process runs says about it.
#[derive(Debug, Clone, Default)]
pub struct Surroundings {
    /// Namespace of the pod that this process runs in.
    pub own_namespace: Option<String>,
    /// Pod or host name.
    pub host_name: Option<String>,
    /// The pod's address.
    pub pod_ip: Option<String>,
    /// Differs between any two starts.
    pub random: u64,
}

impl Surroundings {
    /// Looks around.
    pub fn of_this_process() -> Self {
        use std::hash::{BuildHasher, Hasher};
        let read = |path: &str| std::fs::read_to_string(Path::new(path)).ok();
        let trimmed = |text: String| Some(text.trim().to_owned()).filter(|text| !text.is_empty());
        let host_name = ["POD_NAME", "HOSTNAME"].iter().find_map(|name| std::env::var(name).ok().and_then(trimmed));
        Self {
            own_namespace: read(OWN_NAMESPACE_FILE).and_then(trimmed),
            pod_ip: std::env::var("POD_IP").ok().and_then(trimmed),
            host_name: host_name.or_else(|| read("/proc/sys/kernel/hostname").and_then(trimmed)),
            // The standard library's hash keys are the one source of randomness at hand.
            random: std::collections::hash_map::RandomState::new().build_hasher().finish(),
        }
    }
}

/// A finalizer without a domain is refused by the API server, and a deadline without one says nothing.
fn cleanup(args: &RunArgs, origins: &Origins) -> Result<cleanup::Settings, Error> {
    if let Some(name) = args.finalizer.as_deref().filter(|name| !name.contains('/')) {
        let why = format!(
            "{}: '{name}' is no finalizer: write domain/name, for instance pod-monitor/captured",
            at(origins, "finalizer")
        );
        return Err(Error::Conflict { why });
    }
    if args.finalizer.is_none() && origins.contains_key("finalizer-deadline") {
        let why = format!(
            "{} has no effect without finalizer: set finalizer, or leave it out",
            at(origins, "finalizer-deadline")
        );
        return Err(Error::Conflict { why });
    }
    Ok(cleanup::Settings {
        finalizer: args.finalizer.as_deref().map(Into::into),
        finalizer_deadline: args.finalizer_deadline,
        delete_finished: args.delete_finished,
    })
}

/// Longest label value: members of an installation with several shards are found by its name.
const LABEL_BYTES_MAX: usize = 63;

fn shards(args: &RunArgs, origins: &Origins) -> Result<NonZeroU32, Error> {
    let shards = NonZeroU32::new(args.shards).unwrap_or(NonZeroU32::MIN);
    let several = shards > NonZeroU32::MIN;
    let conflict = |why: String| Err(Error::Conflict { why });
    if several && args.sink == SinkKind::Stdout {
        return conflict(format!(
            "{} has no effect with the sink stdout, which one process writes alone: leave it out",
            at(origins, "shards")
        ));
    }
    if several && args.lease.installation.lease_name.len() > LABEL_BYTES_MAX {
        return conflict(format!(
            "{} is longer than {LABEL_BYTES_MAX} characters: with several shards the replicas find one another by it as a \
             label: choose a shorter one",
            at(origins, "lease-name")
        ));
    }
    Ok(shards)
}

/// Checks the settings against one another.
pub(super) fn build(args: RunArgs, origins: &Origins, around: &Surroundings) -> Result<Config, Error> {
    let selector = args.selector.clone().ok_or(Error::Missing {
        key: "selector",
        mend: "say which pods are executions with --selector, POD_MONITOR_SELECTOR or the key selector in the file, \
               for instance --selector app=executor",
    })?;
    let shards = shards(&args, origins)?;
    for (key, value) in [("reconcile-interval", args.reconcile_interval), ("capture-deadline", args.capture_deadline)] {
        if value.is_zero() {
            return Err(Error::Conflict { why: format!("{}: must be longer than 0s", at(origins, key)) });
        }
    }
    if args.captures_per_node_max > args.captures_max && origins.contains_key("captures-per-node-max") {
        return Err(Error::Conflict {
            why: format!(
                "{} ({}) is more than captures-max ({}), so it has no effect: lower it or raise captures-max",
                at(origins, "captures-per-node-max"),
                args.captures_per_node_max,
                args.captures_max
            ),
        });
    }
    let lease_times = lease::of(&args.lease)?;
    let elects = args.sink == SinkKind::Kafka && !args.no_election;
    let cleanup = cleanup(&args, origins)?;
    let story = story(args.story.clone())?;
    let own_namespace = around.own_namespace.clone().unwrap_or_else(|| "default".to_owned());
    Ok(Config {
        selector,
        namespaces: namespaces(&args, origins, &own_namespace)?,
        report: args.report.into(),
        follow: args.follow.into(),
        kubernetes_events: args.kubernetes_events,
        limits: Limits {
            log_bytes_max: bytes(args.log_bytes_max),
            encoded_bytes_max: ENCODED_BYTES_MAX,
            capture_deadline: args.capture_deadline,
            captures_max: bytes(args.captures_max),
            captures_per_node_max: bytes(args.captures_per_node_max.min(args.captures_max)),
        },
        sink: sink(&args, origins)?,
        shards,
        shard_by: args.shard_by.into(),
        container: story.container,
        reconcile_interval: args.reconcile_interval,
        settle_grace: args.story.settle_grace,
        stall_graces: story.stall_graces,
        remember_ended: args.remember_ended,
        cleanup,
        rules: story.user,
        ids: story.ids,
        cluster_id: args.story.cluster_id,
        environment: args.story.environment,
        lease_name: args.lease.installation.lease_name,
        lease_namespace: args.lease.installation.lease_namespace.unwrap_or(own_namespace),
        identity: identity(args.identity.as_deref().or(around.host_name.as_deref()), around.random),
        lease_times: elects.then_some(lease_times),
        advertise: args.advertise.or_else(|| advertise(args.listen, around.pod_ip.as_deref())),
        listen: args.listen,
        log: LogSettings { format: args.log_format, filter: args.log_level },
    })
}

/// What the core decides by, as far as the settings say it.
pub(super) fn story(args: StoryArgs) -> Result<Rules, Error> {
    Ok(Rules {
        cluster_id: args.cluster_id.unwrap_or_default(),
        ids: IdSources {
            execution_label: args.execution_label,
            execution_annotation: args.execution_annotation,
            execution_name_prefix: args.execution_name_prefix,
            user_label: args.user_label,
        },
        container: args.container,
        settle_grace: SignedDuration::try_from(args.settle_grace).unwrap_or(SignedDuration::MAX),
        stall_graces: stalls::graces(&args.stall_grace),
        user: Arc::new(args.rules.as_deref().map(rules_file::read).transpose()?.unwrap_or_default()),
        ..Rules::default()
    })
}

fn bytes(count: u32) -> usize {
    usize::try_from(count).expect("usize has at least 32 bits on all targets that tokio runs on")
}

/// Where others reach a server that listens there, as far as that can be known.
fn advertise(listen: SocketAddr, pod_ip: Option<&str>) -> Option<String> {
    let ip = if listen.ip().is_unspecified() { pod_ip?.parse().ok()? } else { listen.ip() };
    Some(SocketAddr::new(ip, listen.port()).to_string())
}

/// Unique per start of the process: with the identity of its dead self a restarted replica would walk into its Lease.
pub(super) fn identity(name: Option<&str>, random: u64) -> String {
    let host = name.unwrap_or("pod-monitor");
    // Host names are not ours: only what an id may contain is taken over.
    let host: String = host.chars().filter(char::is_ascii_graphic).take(63).collect();
    format!("{host}_{:08x}", random & 0xffff_ffff)
}

fn namespaces(args: &RunArgs, origins: &Origins, own: &str) -> Result<Namespaces, Error> {
    let given = args.namespace.iter().flat_map(|names| names.split(',')).map(str::to_owned);
    let given: BTreeSet<String> = given.collect();
    if let Some((name, why)) = given.iter().find_map(|name| names::dns_label(name).err().map(|why| (name, why))) {
        return Err(Error::Conflict { why: format!("{}: '{}': {why}", at(origins, "namespace"), name.escape_debug()) });
    }
    match (args.all_namespaces, given.is_empty()) {
        (true, true) => Ok(Namespaces::All),
        (true, false) => Err(Error::Conflict {
            why: format!(
                "{} and {} contradict each other: leave one of them out",
                at(origins, "namespace"),
                at(origins, "all-namespaces")
            ),
        }),
        (false, true) => Ok(Namespaces::Named(BTreeSet::from([own.to_owned()]))),
        (false, false) => Ok(Namespaces::Named(given)),
    }
}

fn sink(args: &RunArgs, origins: &Origins) -> Result<Sink, Error> {
    if args.sink == SinkKind::Stdout {
        // In a file or variable the Kafka settings may stay while somebody tries stdout; on the same command line
        // they are a mistake.
        let kafka = [
            "kafka",
            "kafka-config",
            "kafka-config-file",
            "events-topic",
            "changelog-topic",
            "create-topics",
            "generation",
            "lease-duration",
            "renew-deadline",
            "retry-period",
            "advertise",
            "no-election",
        ];
        if let Some(key) = kafka.iter().find(|key| origins.get(**key) == Some(&Origin::Flag)) {
            return Err(Error::Conflict {
                why: format!("--{key} has no effect with the sink stdout: leave it out, or use --sink kafka"),
            });
        }
        return Ok(Sink::Stdout);
    }
    let mend = "name the bootstrap servers with --kafka, POD_MONITOR_KAFKA or the key kafka in the file, for instance \
                --kafka kafka:9092; or try the monitor without Kafka: --sink stdout";
    Ok(Sink::Kafka(Kafka { create_topics: args.create_topics, ..kafka::build(&args.kafka, origins, mend)? }))
}

/// How an error names a key: with its place where it has one.
pub(super) fn at(origins: &Origins, key: &str) -> String {
    origins.get(key).map_or_else(|| key.to_owned(), |origin| At { origin, key }.to_string())
}

impl Config {
    /// Logs the effective configuration once, secrets masked.
    pub fn log(&self) {
        let Self { selector, namespaces, ids, limits, sink, log, .. } = self;
        tracing::info!(
            %selector,
            ?namespaces,
            ?sink,
            shards = self.shards,
            shard_by = self.shard_by.as_str(),
            lease_name = self.lease_name,
            lease_namespace = self.lease_namespace,
            lease_times = ?self.lease_times,
            advertise = self.advertise,
            identity = self.identity,
            cluster_id = self.cluster_id,
            environment = self.environment,
            container = self.container,
            rules = self.rules.len(),
            rules_hash = self.rules.hash(),
            ?ids,
            report = ?self.report,
            follow = ?self.follow,
            kubernetes_events = self.kubernetes_events,
            log_bytes_max = limits.log_bytes_max,
            capture_deadline = duration::format(limits.capture_deadline),
            captures_max = limits.captures_max,
            captures_per_node_max = limits.captures_per_node_max,
            reconcile_interval = duration::format(self.reconcile_interval),
            settle_grace = duration::format(self.settle_grace),
            stall_graces = %self.stall_graces,
            remember_ended = duration::format(self.remember_ended),
            finalizer = self.cleanup.finalizer,
            finalizer_deadline = duration::format(self.cleanup.finalizer_deadline),
            delete_finished = self.cleanup.delete_finished.map(duration::format),
            listen = %self.listen,
            log_format = ?log.format,
            log_level = log.filter,
            "effective configuration"
        );
    }
}
