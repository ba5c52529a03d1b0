//! How Kafka is reached, and its topics: the settings that all commands share.

use super::{
    Error, Properties, Sources,
    args::{KafkaArgs, StreamArgs},
    effective::at,
    layers::Origins,
};
use crate::publish::generation;

/// The settings of Kafka.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kafka {
    /// `bootstrap.servers`.
    pub bootstrap_servers: String,
    /// Further librdkafka properties as they are at start; may hold secrets, which Debug does not show.
    pub properties: Properties,
    /// Where they stand, to be read again when secrets are rotated.
    pub sources: Sources,
    /// Topic of events, may contain [`super::names::EVENT_TYPE`].
    pub events_topic: String,
    /// Topic of the first generation's changelog.
    pub changelog_topic: String,
    /// Which generation's changelog is the truth.
    pub generation: u32,
    /// Make missing topics.
    pub create_topics: bool,
}

impl Kafka {
    /// Topic of this generation's changelog.
    pub fn changelog(&self) -> String {
        generation::changelog_topic(&self.changelog_topic, self.generation)
    }
}

/// Where the events are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stream {
    /// `bootstrap.servers`.
    pub bootstrap_servers: String,
    /// Further librdkafka properties; may hold secrets, which Debug does not show.
    pub properties: Properties,
    /// Where they stand.
    pub sources: Sources,
    /// Topic of events, may contain [`super::names::EVENT_TYPE`].
    pub events_topic: String,
}

/// Checks the settings against one another. `mend`: what to do where no server is named.
pub(super) fn build(args: &KafkaArgs, origins: &Origins, mend: &'static str) -> Result<Kafka, Error> {
    let Stream { bootstrap_servers, properties, sources, events_topic } = stream(&args.stream, origins, mend)?;
    if events_topic == args.changelog_topic {
        return Err(Error::Conflict {
            why: format!(
                "events-topic and changelog-topic are both '{}': give {} another name",
                events_topic,
                at(origins, "events-topic")
            ),
        });
    }
    Ok(Kafka {
        bootstrap_servers,
        properties,
        sources,
        events_topic,
        changelog_topic: args.changelog_topic.clone(),
        generation: args.generation,
        create_topics: false,
    })
}

/// The settings of a command that reads events and nothing else. `mend`: what to do where no server is named.
pub(super) fn stream(args: &StreamArgs, origins: &Origins, mend: &'static str) -> Result<Stream, Error> {
    let bootstrap_servers = args.kafka.clone().ok_or(Error::Missing { key: "kafka", mend })?;
    let sources = sources(args, origins)?;
    let events_topic = args.events_topic.clone();
    Ok(Stream { bootstrap_servers, properties: sources.read()?, sources, events_topic })
}

fn sources(args: &StreamArgs, origins: &Origins) -> Result<Sources, Error> {
    let mut given = Properties::default();
    for entry in &args.kafka_config {
        given.add(entry).map_err(|why| Error::Conflict { why: format!("{}: {why}", at(origins, "kafka-config")) })?;
    }
    Ok(Sources { file: args.kafka_config_file.clone(), given })
}
