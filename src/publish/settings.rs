//! How this process speaks to Kafka: one place that sets every client option, each with its reason.
//!
//! Promises: a property that the delivery promise rests on cannot be changed from outside (INV-11), and a wrong one is
//! refused at start with its name. Values of the user's properties never appear in errors, logs or `Debug`.

use std::{collections::BTreeMap, fmt, sync::Arc, time::Duration};

use rdkafka::{
    ClientConfig,
    config::{FromClientConfig as _, RDKafkaLogLevel},
    consumer::{BaseConsumer, DefaultConsumerContext},
    error::KafkaError,
    util::get_rdkafka_version,
};
use tracing::{info, warn};

pub use super::rotation::Reread;
use super::{
    generation,
    identity::Identity,
    record::{self, OVERHEAD_BYTES_MAX, Service},
    rotation::{Looked, Properties, Rotation, Version},
};
use crate::{leadership::tenure::ShardId, lifecycle::event::EventType, telemetry::otlp::stories::Stories};

/// How long a transaction may stay open before the broker aborts it: longer than brokers need to get over the death of one
/// of them (docs/decisions/0011-a-broker-may-die.md). Bounds a commit, and how long a dead leader can hold back readers
/// where nobody takes over.
pub const TRANSACTION_TIMEOUT: Duration = Duration::from_secs(20);

/// How long a record may wait for its acknowledgement; must be below [`TRANSACTION_TIMEOUT`].
const MESSAGE_TIMEOUT: Duration = Duration::from_secs(17);

/// How long librdkafka waits before it sends a producer's request again; it varies that by 20 %. INV-10 is told by it:
/// an answer that came sooner answers the only request there was. Leaders of partitions are seldom back sooner either.
pub(super) const RETRY_PAUSE: Duration = Duration::from_millis(1000);

/// Largest record that is asked for where no topic allows less, in bytes: librdkafka's and the broker's own default.
pub const RECORD_BYTES_MAX: usize = 1_000_000;

/// Smallest limit of a topic that events fit into with cut logs, in bytes.
pub const RECORD_BYTES_MIN: usize = 64 * 1024;

/// 2.12.0 as librdkafka counts; older ones lost or doubled records in corners that 2.5 and later closed.
const LIBRDKAFKA_MIN: i32 = 0x020c_0000;

/// Everything that opening a journal needs to know.
#[derive(Clone)]
pub struct Settings {
    /// `--kafka`
    bootstrap_servers: String,
    /// `--kafka-config`: librdkafka properties; secrets among them, which may be rotated.
    rotation: Rotation,
    /// `--events-topic`; may contain `{event_type}`.
    events_topic: String,
    /// `--changelog-topic`: that of the first generation.
    changelog_base: String,
    /// That of this generation.
    changelog_topic: String,
    /// Whose changelog it is: cluster id, installation, generation, shards.
    identity: Identity,
    /// Who tells.
    service: Service,
    /// What is told, as spans; none is sent as made here.
    pub stories: Stories,
}

impl fmt::Debug for Settings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Values may be secrets; names are enough to know what was set.
        let Self { bootstrap_servers, rotation, events_topic, changelog_topic, identity, service, .. } = self;
        f.debug_struct("Settings")
            .field("bootstrap_servers", bootstrap_servers)
            .field("properties", &rotation.properties().keys())
            .field("events_topic", events_topic)
            .field("changelog_topic", changelog_topic)
            .field("identity", identity)
            .field("service", service)
            .finish()
    }
}

/// Settings that cannot work. All are fatal: exit code 2.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum Error {
    /// Exactly-once delivery rests on this property.
    #[error("kafka-config {key}: {reason}; remove it")]
    Forbidden {
        /// The property.
        key: String,
        /// Why it is not the user's to set.
        reason: &'static str,
    },
    /// librdkafka does not take it. The value is left out: it may be a secret.
    #[error("kafka-config {key}: {reason}")]
    Property {
        /// The property.
        key: String,
        /// What librdkafka said, without the value.
        reason: String,
    },
    /// A setting of ours.
    #[error("{key}: {reason}")]
    Setting {
        /// The flag, without dashes.
        key: &'static str,
        /// What is wrong and how to mend it.
        reason: String,
    },
    /// The linked library.
    #[error("librdkafka {found} is linked, at least 2.12.0 is needed: older ones lost records in transactions")]
    Library {
        /// The version found.
        found: String,
    },
}

impl Settings {
    /// Checks everything that can be checked without a broker.
    pub fn new(
        bootstrap_servers: &str,
        properties: BTreeMap<String, String>,
        events_topic: &str,
        changelog_topic: &str,
        identity: Identity,
        service: Service,
    ) -> Result<Self, Error> {
        let settings = Self {
            bootstrap_servers: bootstrap_servers.to_owned(),
            rotation: Rotation::new(properties),
            events_topic: events_topic.to_owned(),
            changelog_base: changelog_topic.to_owned(),
            changelog_topic: generation::changelog_topic(changelog_topic, identity.generation),
            identity,
            service,
            stories: Stories::default(),
        };
        settings.check()?;
        Ok(settings)
    }

    /// With properties that are read anew by [`Settings::refresh`].
    #[must_use]
    pub fn rereading(self, reread: Reread) -> Self {
        Self { rotation: self.rotation.rereading(reread), ..self }
    }

    /// Looks whether the properties changed where they stand: then there is a candidate. What cannot be used changes
    /// nothing. Reads files.
    pub(super) fn refresh(&self) {
        let usable = |properties: &Properties| {
            Self { rotation: Rotation::new(properties.clone()), ..self.clone() }
                .check_properties()
                .map_err(|error| error.to_string())
        };
        match self.rotation.refresh(usable) {
            Looked::Same => {}
            Looked::Changed(names) => info!(?names, "kafka properties changed"),
            Looked::Unusable(why) => warn!(why, "changed kafka properties cannot be used, the old ones stay in use"),
        }
    }

    /// Uses from now on what the files say: for as long as Kafka has let nothing in that could stay in use.
    pub fn reload(&self) {
        self.refresh();
        if let Some(candidate) = self.rotation.candidate() {
            self.rotation.prove(candidate.generation);
        }
    }

    /// How often the properties in use changed.
    pub(super) fn generation(&self) -> u64 {
        self.rotation.generation()
    }

    /// Settings with changed properties that Kafka has not let in yet, and their generation.
    pub(super) fn candidate(&self) -> Option<(u64, Self)> {
        let Version { properties, generation, .. } = self.rotation.candidate()?;
        Some((generation, Self { rotation: Rotation::new(properties.as_ref().clone()), ..self.clone() }))
    }

    /// Kafka let in a client of the candidate of this generation: it is what clients are made of from now on.
    pub(super) fn prove(&self, generation: u64) {
        self.rotation.prove(generation);
    }

    fn check(&self) -> Result<(), Error> {
        let wrong = |key, reason: String| Err(Error::Setting { key, reason });
        if self.bootstrap_servers.trim().is_empty() {
            return wrong("kafka", "name at least one bootstrap server as host:port".into());
        }
        if self.identity.shards == 0 {
            return wrong("shards", "must be at least 1".into());
        }
        if self.identity.generation < generation::FIRST {
            return wrong("generation", "must be at least 1".into());
        }
        let mut topics = self.events_topics();
        topics.push(self.changelog_topic.clone());
        for (n, topic) in topics.iter().enumerate() {
            let key = if n + 1 == topics.len() { "changelog-topic" } else { "events-topic" };
            let legal = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
            if topic.is_empty() || topic.len() > 249 || !topic.chars().all(legal) {
                return wrong(key, format!("{topic:?} is no topic name: 1 to 249 of a-z A-Z 0-9 . _ -"));
            }
        }
        if self.events_topics().contains(&self.changelog_topic) {
            return wrong(
                "changelog-topic",
                format!("{} is the events topic too: give it its own", self.changelog_topic),
            );
        }
        self.check_properties()
    }

    fn check_properties(&self) -> Result<(), Error> {
        check_all(&self.rotation.properties())?;
        let configs = [self.producer(ShardId(0), RECORD_BYTES_MAX), self.consumer(ShardId(0)), self.admin()];
        configs
            .iter()
            .try_for_each(|config| config.create_native_config().map(|_| ()).map_err(|error| self.client_error(error)))
    }

    /// An error of a client's creation, without the values of the user's properties.
    pub fn client_error(&self, error: KafkaError) -> Error {
        client_error(&self.rotation.properties(), error)
    }

    /// The user's properties as they are now; secrets in the clear.
    pub(super) fn properties(&self) -> Arc<Properties> {
        self.rotation.properties()
    }

    /// Bootstrap servers, for commands shown to people.
    pub fn bootstrap_servers(&self) -> &str {
        &self.bootstrap_servers
    }

    /// The topic of each event type.
    pub fn event_topic(&self, event_type: EventType) -> String {
        record::topic(&self.events_topic, event_type)
    }

    /// All events topics, each once.
    pub fn events_topics(&self) -> Vec<String> {
        let mut topics: Vec<_> = EventType::ALL.into_iter().map(|t| self.event_topic(t)).collect();
        topics.dedup();
        topics
    }

    /// `--changelog-topic`: what the topics of all generations are named by.
    pub fn changelog_base(&self) -> &str {
        &self.changelog_base
    }

    /// The changelog topic of this generation: partition = shard.
    pub fn changelog_topic(&self) -> &str {
        &self.changelog_topic
    }

    /// Whose changelog it is.
    pub fn identity(&self) -> &Identity {
        &self.identity
    }

    /// Who tells.
    pub fn service(&self) -> &Service {
        &self.service
    }

    /// The producer of one shard. `wire_bytes_max`: the smallest `max.message.bytes` of the topics, in bytes.
    pub fn producer(&self, shard: ShardId, wire_bytes_max: usize) -> ClientConfig {
        let mut config = self.common("producer", shard);
        // Records of a transaction are gathered by us, so waiting for more of them only delays the commit.
        config.set("linger.ms", "0");
        // Output and JSON compress well, and lz4 costs least per byte.
        config.set("compression.type", "lz4");
        // A batch of the worker is far below these; they bound memory where the broker is slow.
        config.set("queue.buffering.max.messages", "200000");
        config.set("queue.buffering.max.kbytes", "262144");
        config.set("batch.num.messages", "10000");
        // Give up on a record before the broker gives up on its transaction, so that the error names the record.
        config.set("message.timeout.ms", MESSAGE_TIMEOUT.as_millis().to_string());
        // From here on nothing may be overridden: INV-11.
        self.apply_user(&mut config);
        // The fence: whoever initialises this id last refuses all earlier ones.
        config.set("transactional.id", self.identity.transactional_id(shard));
        // Both are implied by transactional.id; said here so that a later default cannot change them.
        config.set("enable.idempotence", "true");
        config.set("acks", "all");
        // More in flight would lose the broker's duplicate detection.
        config.set("max.in.flight.requests.per.connection", "5");
        // Bounds how long a transaction can hold back readers, and how long a commit can take.
        config.set("transaction.timeout.ms", TRANSACTION_TIMEOUT.as_millis().to_string());
        // What Java clients use: consumers that join topics by key find equal keys in equal partitions.
        config.set("partitioner", "murmur2_random");
        // INV-10: by this it is known whether a commit was asked for once. Both, or the second would cap the first.
        config.set("retry.backoff.ms", RETRY_PAUSE.as_millis().to_string());
        config.set("retry.backoff.max.ms", RETRY_PAUSE.as_millis().to_string());
        // A record larger than the topic takes must fail here, by name, and not as a whole batch at the broker.
        config.set("message.max.bytes", wire_bytes_max.to_string());
        config.set("batch.size", wire_bytes_max.to_string());
        // Delivery reports of all records, not only of failures: the commit waits for them.
        config.set("delivery.report.only.error", "false");
        config
    }

    /// The reader of one shard's changelog: assigned by hand, never in a consumer group.
    pub fn consumer(&self, shard: ShardId) -> ClientConfig {
        let mut config = self.common("restore", shard);
        // The barrier is waited for: an idle fetch must come back at once when it arrives, and be asked again at once.
        config.set("fetch.wait.max.ms", "20");
        config.set("fetch.min.bytes", "1");
        config.set("fetch.error.backoff.ms", "20");
        config.set("fetch.queue.backoff.ms", "5");
        // Replays run faster with large fetches; a partition of 100 000 pods is some 60 MB.
        config.set("fetch.message.max.bytes", "8388608");
        config.set("queued.min.messages", "200000");
        config.set("queued.max.messages.kbytes", "131072");
        // How far a standby is behind is told by these.
        config.set("statistics.interval.ms", "1000");
        self.apply_user(&mut config);
        // The end of a partition tells a standby that it is warm. It never ends a restore, which only the barrier does.
        read_alone(&mut config, &self.restore_group(shard));
        // An offset out of range means that records vanished under us: that is an error, never a jump.
        config.set("auto.offset.reset", "error");
        config
    }

    /// The name that a reader of the changelog gives itself.
    fn restore_group(&self, shard: ShardId) -> String {
        format!("{}.restore", self.identity.transactional_id(shard))
    }

    /// The client that looks at topics, and makes them.
    pub fn admin(&self) -> ClientConfig {
        let mut config = self.common("admin", ShardId(0));
        self.apply_user(&mut config);
        config
    }

    fn common(&self, role: &str, shard: ShardId) -> ClientConfig {
        common(&self.bootstrap_servers, &format!("pod-monitor-{role}-{shard}"))
    }

    fn apply_user(&self, config: &mut ClientConfig) {
        apply(config, &self.rotation.properties());
    }
}

/// A reader of whole topics that never joins a group: what `verify` sees is what any consumer may see.
///
/// # Errors
/// When a property is not the user's to set, or librdkafka does not take one.
pub fn reader(bootstrap_servers: &str, properties: &BTreeMap<String, String>) -> Result<ClientConfig, Error> {
    check_all(properties)?;
    let mut config = common(bootstrap_servers, VERIFY);
    // The end of a partition is told by the fetch after the last record.
    config.set("fetch.wait.max.ms", "20");
    // It may run beside a monitor, in the same container: what waits to be read is bounded, per partition too.
    config.set("queued.max.messages.kbytes", "16384");
    apply(&mut config, properties);
    read_alone(&mut config, VERIFY);
    // Retention may take records while they are read: what is there then begins later.
    config.set("auto.offset.reset", "earliest");
    // Made once here, for nothing: whoever makes it in earnest knows of no property whose value must not be told.
    let made = BaseConsumer::<DefaultConsumerContext>::from_config(&config);
    made.map(|_| config).map_err(|error| client_error(properties, error))
}

fn client_error(properties: &Properties, error: KafkaError) -> Error {
    match error {
        KafkaError::ClientConfig(_, description, key, _) => {
            Error::Property { reason: redact(properties, &key, &description), key }
        }
        other => Error::Setting { key: "kafka", reason: redact(properties, "", &other.to_string()) },
    }
}

fn redact(properties: &Properties, key: &str, text: &str) -> String {
    let secrets = properties.iter().filter(|(k, v)| !v.is_empty() && (*k == key || v.len() >= 4));
    secrets.fold(text.to_owned(), |text, (_, value)| text.replace(value.as_str(), "***"))
}

/// What `verify` calls itself.
const VERIFY: &str = "pod-monitor-verify";

/// A reader of committed records that is told the ends of its partitions, and leaves no trace at the broker.
fn read_alone(config: &mut ClientConfig, name: &str) {
    // Uncommitted records are not what was told.
    config.set("isolation.level", "read_committed");
    // librdkafka wants a name before it lets partitions be assigned; no group is ever joined.
    config.set("group.id", name);
    // Nothing is stored at the broker: reading always begins where we say.
    config.set("enable.auto.commit", "false");
    config.set("enable.auto.offset.store", "false");
    // Comes with the fetch after the last record.
    config.set("enable.partition.eof", "true");
    config.set("allow.auto.create.topics", "false");
    // A flipped bit must be an error, not a story.
    config.set("check.crcs", "true");
}

fn apply(config: &mut ClientConfig, properties: &Properties) {
    for (key, value) in properties {
        config.set(key, value);
    }
    // Who asks for librdkafka's debug lines wants to see them; ours are filtered by --log-level.
    if properties.contains_key("debug") {
        config.set_log_level(RDKafkaLogLevel::Debug);
    }
}

fn common(bootstrap_servers: &str, client_id: &str) -> ClientConfig {
    let mut config = ClientConfig::new();
    // Logs go through our context to tracing; librdkafka's info level is start-up chatter.
    config.set_log_level(RDKafkaLogLevel::Warning);
    config.set("bootstrap.servers", bootstrap_servers);
    // Shown in the broker's logs, metrics and quotas.
    config.set("client.id", client_id);
    // A black-holed broker must not stall a commit for the default minute.
    config.set("socket.timeout.ms", "3000");
    config.set("socket.connection.setup.timeout.ms", "3000");
    // Firewalls forget idle connections silently; keep-alive notices.
    config.set("socket.keepalive.enable", "true");
    // Small requests must leave at once.
    config.set("socket.nagle.disable", "true");
    // Dead connections come back in milliseconds first, then politely.
    config.set("reconnect.backoff.ms", "20");
    config.set("reconnect.backoff.max.ms", "1000");
    config.set("retry.backoff.ms", "20");
    config.set("retry.backoff.max.ms", "500");
    // A moved leader or coordinator is learned from errors; this only bounds how stale an idle client gets.
    config.set("topic.metadata.refresh.interval.ms", "60000");
    // The broker closes idle connections; that is no news.
    config.set("log.connection.close", "false");
    // Numbers come from our own measurements.
    config.set("statistics.interval.ms", "0");
    config
}

/// What no client may be made without.
fn check_all(properties: &Properties) -> Result<(), Error> {
    check_library()?;
    properties.iter().try_for_each(|(key, value)| check_property(key, value))
}

fn check_library() -> Result<(), Error> {
    // Before librdkafka does it, and unlike it without OpenSSL's exit handler: that frees what clients that are still
    // connecting use, whose threads outlive `main`, and a process that had settled everything ended by SIGSEGV.
    openssl_sys::init();
    let (number, text) = get_rdkafka_version();
    if number < LIBRDKAFKA_MIN { Err(Error::Library { found: text }) } else { Ok(()) }
}

/// INV-11: what exactly-once delivery rests on is not for users to change.
fn check_property(key: &str, value: &str) -> Result<(), Error> {
    let reason = match key {
        "transactional.id" => "derived from cluster, installation, generation and shard: it is the fence",
        "enable.idempotence" | "acks" | "request.required.acks" => "transactions need idempotence and acks=all",
        "max.in.flight.requests.per.connection" | "max.in.flight" => "more than 5 in flight lose duplicate detection",
        "retries" | "message.send.max.retries" => "a record is retried until its transaction ends",
        "retry.backoff.ms" | "retry.backoff.max.ms" => "an answer sooner than this is known to be the only one",
        "transaction.timeout.ms" => "take-over and commit bounds are built on 20000",
        "message.timeout.ms" | "delivery.timeout.ms" => match value.trim().parse::<u128>() {
            Ok(ms) if ms > 0 && ms < TRANSACTION_TIMEOUT.as_millis() => return Ok(()),
            _ => "must be above 0 and below the transaction timeout of 20000",
        },
        "isolation.level" => "restoring from uncommitted records would tell events twice or never",
        "partitioner" | "partitioner_cb" | "sticky.partitioning.linger.ms" => {
            "order per execution rests on murmur2_random, as in Java clients"
        }
        "bootstrap.servers" | "metadata.broker.list" => "use --kafka",
        "message.max.bytes" | "batch.size" => "follows from max.message.bytes of the topics",
        "group.id"
        | "group.instance.id"
        | "group.protocol"
        | "enable.auto.commit"
        | "enable.auto.offset.store"
        | "auto.offset.reset"
        | "enable.partition.eof"
        | "allow.auto.create.topics"
        | "check.crcs" => "the changelog is read whole, outside of consumer groups",
        "delivery.report.only.error" | "dr_cb" | "dr_msg_cb" => "a commit waits for every delivery report",
        "enable.gapless.guarantee" | "queuing.strategy" => "experimental, and changes the order of failures",
        key if key.starts_with("test.") => "a mock broker does not fence",
        _ => return Ok(()),
    };
    Err(Error::Forbidden { key: key.to_owned(), reason })
}

/// The largest value of a record that surely fits, given the smallest `max.message.bytes` of the topics, in bytes.
pub fn record_bytes_max(wire_bytes_max: usize) -> usize {
    wire_bytes_max.saturating_sub(OVERHEAD_BYTES_MAX)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
#[path = "settings_tests.rs"]
mod tests;
