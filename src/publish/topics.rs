//! Whether the topics are there and configured as the promise needs, and their making where that is asked for.
//!
//! Promises: an error names the topic and the command that mends it; a broker that does not answer is never taken for
//! a wrong topic.

mod each;
mod layout;

use std::{
    collections::HashMap,
    sync::Arc,
    time::{Duration, Instant},
};

use rdkafka::{
    ClientContext,
    admin::{AdminClient, AdminOptions, ConfigResource, NewTopic, ResourceSpecifier, TopicReplication},
    config::{FromClientConfigAndContext, RDKafkaLogLevel},
    error::{KafkaError, RDKafkaErrorCode},
    producer::Producer as _,
};
use tracing::{debug, info, warn};

use super::{
    error::Class,
    generation,
    producer::{self, Instance},
    reach::Reach,
    rights::{Asked, to_mend},
    settings::{RECORD_BYTES_MAX, RECORD_BYTES_MIN, Settings, record_bytes_max},
};
use crate::leadership::tenure::ShardId;

pub use each::{Found, Single, each};

use layout::{Copies, Layout};

/// How long one request to the broker may take.
const REQUEST_MAX: Duration = Duration::from_secs(5);
/// How often, and after which pause, new topics are looked for: brokers learn of them one after the other.
const NEW_TOPIC_LOOKS_MAX: u32 = 100;
const NEW_TOPIC_PAUSE: Duration = Duration::from_millis(50);

/// How a changelog is set up: only the newest record of each key is kept, compaction is prompt so that restores stay
/// short, and tombstones outlive any standby's nap (`delete.retention.ms`, 24 h).
pub const CHANGELOG_CONFIG: [(&str, &str); 5] = [
    ("cleanup.policy", "compact"),
    ("segment.ms", "600000"),
    ("segment.bytes", "67108864"),
    ("min.cleanable.dirty.ratio", "0.1"),
    ("delete.retention.ms", "86400000"),
];

/// What was found: the topics are fit for use.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Topics {
    /// The smallest `max.message.bytes` of all topics, in bytes, and at most what librdkafka takes by default.
    pub wire_bytes_max: usize,
    /// The largest value of a record that surely fits, in bytes.
    pub record_bytes_max: usize,
    /// What works, but should be otherwise; each with its mend.
    pub advice: Vec<String>,
}

/// Why the topics cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No broker answers: try again.
    #[error("kafka at {servers} does not answer{why}")]
    Unreachable {
        /// Bootstrap servers.
        servers: String,
        /// `: ` and the reason with its mend.
        why: String,
    },
    /// Kafka answers, and says no.
    #[error("kafka refuses to {what}: {code}{mend}")]
    Refused {
        /// What was asked.
        what: String,
        /// Its answer.
        code: RDKafkaErrorCode,
        /// `; to mend it: ` and a command, where one is known.
        mend: String,
    },
    /// A topic is not there.
    #[error(
        "topic {topic} does not exist: start with --create-topics, or run: {command}; if it is there, this user may not \
         see it{mend}"
    )]
    Missing {
        /// Which.
        topic: String,
        /// Makes it.
        command: String,
        /// `; to mend it: ` and the command that lets us see it.
        mend: String,
    },
    /// A topic is there and cannot be used as it is.
    #[error("topic {topic}: {wrong}; to mend it: {mend}")]
    Wrong {
        /// Which.
        topic: String,
        /// What is wrong.
        wrong: String,
        /// A command, or what else to do.
        mend: String,
    },
    /// The client's settings.
    #[error("create a kafka client")]
    Create(#[source] super::settings::Error),
}

impl Error {
    /// What the caller may do.
    pub fn class(&self) -> Class {
        match self {
            Self::Unreachable { .. } => Class::Transient,
            Self::Refused { .. } | Self::Missing { .. } | Self::Wrong { .. } | Self::Create(_) => Class::Fatal,
        }
    }
}

struct Logs;

impl ClientContext for Logs {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, text: &str) {
        producer::log(level, facility, text);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        debug!(%error, reason, "kafka admin error");
    }
}

/// A topic as it should be.
struct Wanted {
    name: String,
    /// `None`: the broker's default.
    partitions: Option<u32>,
    changelog: bool,
}

/// Looks at all topics; makes the missing ones if `create`, but never the changelog of a generation that others follow or
/// go before: those are made by `reshard`.
pub async fn ensure(settings: &Settings, create: bool) -> Result<Topics, Error> {
    look(settings, create, true).await
}

/// As [`ensure`], for the one who makes a new generation.
pub async fn prepare(settings: &Settings, create: bool) -> Result<Topics, Error> {
    look(settings, create, false).await
}

async fn look(settings: &Settings, create: bool, settled: bool) -> Result<Topics, Error> {
    let looker = Looker::new(settings)?;
    let wanted = wanted(settings);
    let mut found = looker.layout().await?;
    if settled {
        check_generation(settings, &found)?;
    }
    let missing: Vec<_> = wanted.iter().filter(|topic| !found.topics.contains_key(&topic.name)).collect();
    if let Some(first) = missing.first() {
        if !create {
            return Err(first.missing(settings, &found));
        }
        looker.create(&missing, false).await?;
        found = looker.wait_for(&missing).await?;
    }
    for topic in &wanted {
        topic.check_partitions(settings, &found)?;
    }
    let configs = looker.configs(&wanted).await?;
    check_configs(settings, &wanted, &found, &configs)
}

fn wanted(settings: &Settings) -> Vec<Wanted> {
    let events = settings.events_topics().into_iter().map(|name| Wanted { name, partitions: None, changelog: false });
    let changelog = Wanted {
        name: settings.changelog_topic().to_owned(),
        partitions: Some(settings.identity().shards),
        changelog: true,
    };
    events.chain([changelog]).collect()
}

impl Wanted {
    fn create_command(&self, settings: &Settings, layout: &Layout) -> String {
        let (servers, name) = (settings.bootstrap_servers(), &self.name);
        let partitions = self.partitions.map(|n| format!(" --partitions {n}")).unwrap_or_default();
        let config: String = self.config().iter().map(|(key, value)| format!(" --config {key}={value}")).collect();
        // Where there is one broker nothing is said of it, so that the command is good for a Kafka that grows.
        let replicas = match layout.replicas_wanted() {
            0 | 1 => String::new(),
            2 => " --replication-factor 2".to_owned(),
            replicas => format!(" --replication-factor {replicas} --config min.insync.replicas=2"),
        };
        format!("kafka-topics.sh --bootstrap-server {servers} --create --topic {name}{partitions}{replicas}{config}")
    }

    fn alter_command(&self, settings: &Settings, key: &str, value: &str) -> String {
        let (servers, name) = (settings.bootstrap_servers(), &self.name);
        format!(
            "kafka-configs.sh --bootstrap-server {servers} --alter --entity-type topics --entity-name {name} \
             --add-config {key}={value}"
        )
    }

    fn config(&self) -> &'static [(&'static str, &'static str)] {
        if self.changelog { &CHANGELOG_CONFIG } else { &[("cleanup.policy", "delete")] }
    }

    fn missing(&self, settings: &Settings, layout: &Layout) -> Error {
        let mend = to_mend(Some(settings.grant_all(&self.name)));
        Error::Missing { topic: self.name.clone(), command: self.create_command(settings, layout), mend }
    }

    fn wrong(&self, wrong: String, mend: String) -> Error {
        Error::Wrong { topic: self.name.clone(), wrong, mend }
    }

    fn check_partitions(&self, settings: &Settings, all: &Layout) -> Result<(), Error> {
        let Some(shards) = self.partitions else { return Ok(()) };
        let (servers, name) = (settings.bootstrap_servers(), &self.name);
        let found = all.partitions(name).unwrap_or(0);
        let later = generations(settings, all).pop().filter(|(later, _)| *later > settings.identity().generation);
        let after = later.map_or_else(String::new, |(later, partitions)| {
            format!(", and generation {later}, which has {partitions}, begins with a finished `pod-monitor reshard`")
        });
        let wrong = format!("it has {found} partitions, but there are {shards} shards (one partition each){after}");
        match found.cmp(&usize::try_from(shards).unwrap_or(usize::MAX)) {
            std::cmp::Ordering::Equal => Ok(()),
            std::cmp::Ordering::Less => Err(self.wrong(
                wrong,
                format!(
                    "if the topic is new: kafka-topics.sh --bootstrap-server {servers} --alter --topic {name} \
                     --partitions {shards}; else start with --shards {found}, or run pod-monitor reshard"
                ),
            )),
            std::cmp::Ordering::Greater => Err(self.wrong(
                wrong,
                format!(
                    "start with --shards {found}, or run pod-monitor reshard: partitions cannot be taken away; were they \
                     added by hand, the records have to move to a topic of {shards} (docs/operating.md)"
                ),
            )),
        }
    }

    fn copies(&self, settings: &Settings, copies: Copies) -> String {
        let (name, alter) = (&self.name, |value| self.alter_command(settings, "min.insync.replicas", value));
        match copies {
            Copies::Few { replicas, brokers, wanted } => format!(
                "topic {name}: each record stands on {replicas} of {brokers} brokers, better {wanted}, else what \
                 only one of them has is lost with it: docs/operating.md, Replicas raised"
            ),
            Copies::Unconfirmed => format!(
                "topic {name}: min.insync.replicas is 1, better 2, else a record that one broker has counts as \
                 written and is lost with it: {}",
                alter("2")
            ),
            Copies::NoneMayBeAway { in_sync } => format!(
                "topic {name}: min.insync.replicas is {in_sync}, better 2, else nothing can be told while one \
                 broker is away: {}",
                alter("2")
            ),
        }
    }

    fn check_cleanup(&self, settings: &Settings, found: &str) -> Result<(), Error> {
        let mend = |value| self.alter_command(settings, "cleanup.policy", value);
        let wrong = |why| format!("cleanup.policy is {found}, {why}");
        match (self.changelog, found) {
            (true, "compact") => Ok(()),
            (true, _) => {
                Err(self.wrong(wrong("but the changelog must be compacted and never deleted"), mend("compact")))
            }
            (false, policy) if policy.contains("compact") => {
                Err(self.wrong(wrong("but compaction would drop events of an execution"), mend("delete")))
            }
            (false, _) => Ok(()),
        }
    }
}

fn check_configs(
    settings: &Settings,
    wanted: &[Wanted],
    layout: &Layout,
    configs: &HashMap<String, HashMap<String, String>>,
) -> Result<Topics, Error> {
    let mut wire_bytes_max = RECORD_BYTES_MAX;
    let mut advice = Vec::new();
    for topic in wanted {
        let config = configs.get(&topic.name);
        let value = |key: &str| config.and_then(|config| config.get(key)).map(String::as_str);
        topic.check_cleanup(settings, value("cleanup.policy").unwrap_or("unknown"))?;
        if let Some(bytes) = value("max.message.bytes").and_then(|bytes| bytes.parse::<usize>().ok()) {
            if bytes < RECORD_BYTES_MIN {
                let mend = topic.alter_command(settings, "max.message.bytes", &RECORD_BYTES_MAX.to_string());
                let wrong = format!("max.message.bytes is {bytes}, but events need {RECORD_BYTES_MIN} at least");
                return Err(topic.wrong(wrong, mend));
            }
            wire_bytes_max = wire_bytes_max.min(bytes);
        }
        for (key, wanted) in topic.config().iter().filter(|(key, _)| topic.changelog && *key != "cleanup.policy") {
            match value(key) {
                Some(found) if found != *wanted => advice.push(format!(
                    "topic {}: {key} is {found}, better {wanted}: {}",
                    topic.name,
                    topic.alter_command(settings, key, wanted)
                )),
                _ => {}
            }
        }
        let in_sync = value("min.insync.replicas").and_then(|replicas| replicas.parse().ok());
        advice.extend(Copies::of(layout, &topic.name, in_sync).map(|copies| topic.copies(settings, copies)));
    }
    advice.iter().for_each(|advice| warn!(advice, "topic works, but is not set up as recommended"));
    Ok(Topics { wire_bytes_max, record_bytes_max: record_bytes_max(wire_bytes_max), advice })
}

/// The generations whose changelogs there are, with their partitions; the last one last.
fn generations(settings: &Settings, found: &Layout) -> Vec<(u32, usize)> {
    let of = |(topic, shape): (&String, &layout::Shape)| {
        Some((generation::of_topic(settings.changelog_base(), topic)?, shape.partitions))
    };
    let mut generations: Vec<_> = found.topics.iter().filter_map(of).collect();
    generations.sort_unstable();
    generations
}

/// A changelog that is missing is new only where no other generation has one: else everything would be told anew.
fn check_generation(settings: &Settings, found: &Layout) -> Result<(), Error> {
    let (ours, topic) = (settings.identity().generation, settings.changelog_topic());
    if found.topics.contains_key(topic) {
        return Ok(());
    }
    let wrong = |mend: String| {
        Err(Error::Wrong { topic: topic.to_owned(), wrong: format!("generation {ours} has no changelog"), mend })
    };
    match generations(settings, found).last() {
        Some((last, partitions)) if *last > ours => wrong(format!(
            "start with --shards {partitions} --generation {last}, which a later `pod-monitor reshard` made"
        )),
        Some((last, partitions)) => wrong(format!(
            "start with --shards {partitions} --generation {last}, or run `pod-monitor reshard` first, which makes \
             generation {ours}"
        )),
        None if ours > generation::FIRST => wrong(format!(
            "a new installation starts with --generation 1; if it is not new, this user may not see the topic: {}",
            settings.grant_all(topic)
        )),
        None => Ok(()),
    }
}

struct Looker<'a> {
    settings: &'a Settings,
    admin: AdminClient<Logs>,
    /// Looks at the metadata: nobody hears what an admin client has to say of its connections.
    look: Arc<Instance>,
    reach: Reach,
    began: Instant,
}

impl<'a> Looker<'a> {
    fn new(settings: &'a Settings) -> Result<Self, Error> {
        let refused = |error| Error::Create(settings.client_error(error));
        let admin = AdminClient::from_config_and_context(&settings.admin(), Logs).map_err(refused)?;
        let reach = Reach::default();
        let look = producer::create(&settings.admin(), &reach).map_err(refused)?;
        Ok(Self { settings, admin, look: Arc::new(look), reach, began: crate::clock::monotonic() })
    }

    fn unreachable(&self, source: KafkaError) -> Error {
        let servers = self.settings.bootstrap_servers().to_owned();
        Error::Unreachable { servers, why: self.reach.why_or(&source) }
    }

    /// Every topic that this user may see. All topics are asked for, since asking for one by name would make it on
    /// brokers that create topics by themselves.
    async fn layout(&self) -> Result<Layout, Error> {
        let (client, reach, settings) = (Arc::clone(&self.look), self.reach.clone(), self.settings.clone());
        let look = move || {
            let metadata = client.client().fetch_metadata(None, REQUEST_MAX);
            // Hears the reason of a failure.
            producer::listen(&client);
            match &metadata {
                // Of several brokers one may be away: that is not why another is silent later.
                Ok(_) => reach.answered(),
                Err(_) => reach.look_closer(&settings),
            }
            metadata.map(|metadata| Layout::of(&metadata))
        };
        let found: Result<Layout, KafkaError> =
            tokio::task::spawn_blocking(look).await.map_err(|_| self.unreachable(KafkaError::Canceled))?;
        found.map_err(|error| self.unreachable(error))
    }

    /// `only_ask`: whether it could be done.
    async fn create(&self, missing: &[&Wanted], only_ask: bool) -> Result<(), Error> {
        let topics: Vec<_> = missing
            .iter()
            .map(|topic| {
                let partitions = topic.partitions.map_or(-1, |n| i32::try_from(n).unwrap_or(i32::MAX));
                // -1: the broker's default, which knows how many brokers there are.
                let new = NewTopic::new(&topic.name, partitions, TopicReplication::Fixed(-1));
                topic.config().iter().fold(new, |new, (key, value)| new.set(key, value))
            })
            .collect();
        let results = self
            .admin
            .create_topics(&topics, &options().validate_only(only_ask))
            .await
            .map_err(|error| self.unreachable(error))?;
        for result in results {
            match result {
                Ok(_) if only_ask => {}
                Ok(topic) => info!(topic, "topic created"),
                // Another replica was faster.
                Err((topic, RDKafkaErrorCode::TopicAlreadyExists)) => debug!(topic, "topic exists by now"),
                Err((topic, code)) => {
                    return Err(refused(self.settings, Asked::Create(&topic), code));
                }
            }
        }
        Ok(())
    }

    async fn wait_for(&self, missing: &[&Wanted]) -> Result<Layout, Error> {
        for _ in 0..NEW_TOPIC_LOOKS_MAX {
            let found = self.layout().await?;
            if missing.iter().all(|topic| found.partitions(&topic.name).is_some_and(|partitions| partitions > 0)) {
                return Ok(found);
            }
            tokio::time::sleep(NEW_TOPIC_PAUSE).await;
        }
        Err(self.unreachable(KafkaError::MetadataFetch(RDKafkaErrorCode::UnknownTopicOrPartition)))
    }

    async fn configs(&self, wanted: &[Wanted]) -> Result<HashMap<String, HashMap<String, String>>, Error> {
        let mut looks = 0;
        loop {
            looks += 1;
            let resources: Vec<_> = wanted.iter().map(|topic| ResourceSpecifier::Topic(&topic.name)).collect();
            let answers = self.admin.describe_configs(&resources, &options()).await;
            let answers = answers.map_err(|error| self.unreachable(error))?;
            match answers.into_iter().zip(wanted).map(|(answer, topic)| config_of(answer, topic)).collect() {
                // A broker that has not heard of a new topic yet, if that does not last.
                Err((_, RDKafkaErrorCode::TopicAuthorizationFailed)) if looks < NEW_TOPIC_LOOKS_MAX => {
                    tokio::time::sleep(NEW_TOPIC_PAUSE).await;
                }
                Err((topic, code)) => {
                    return Err(refused(self.settings, Asked::DescribeConfigs(&topic), code));
                }
                Ok(configs) => return Ok(configs),
            }
        }
    }
}

fn refused(settings: &Settings, asked: Asked<'_>, code: RDKafkaErrorCode) -> Error {
    Error::Refused { what: asked.to_string(), code, mend: to_mend(settings.grant(ShardId(0), asked, code)) }
}

type Config = (String, HashMap<String, String>);

/// A topic that is there has a configuration, so that none at all is a refusal: rust-rdkafka leaves out why.
fn config_of(
    answer: Result<ConfigResource, RDKafkaErrorCode>,
    topic: &Wanted,
) -> Result<Config, (String, RDKafkaErrorCode)> {
    let config = answer.map_err(|code| (topic.name.clone(), code))?;
    if config.entries.is_empty() {
        return Err((topic.name.clone(), RDKafkaErrorCode::TopicAuthorizationFailed));
    }
    let entries = config.entries.into_iter().filter_map(|entry| Some((entry.name, entry.value?)));
    Ok((topic.name.clone(), entries.collect()))
}

fn options() -> AdminOptions {
    AdminOptions::new().request_timeout(Some(REQUEST_MAX)).operation_timeout(Some(REQUEST_MAX))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
#[path = "topics_tests.rs"]
mod tests;
