//! Which topics there are, and on how many brokers each of their records stands. Pure.

use std::collections::HashMap;

use rdkafka::{error::RDKafkaErrorCode, metadata::Metadata, types::RDKafkaRespErr};

/// On how many brokers a topic should be: one may be lost while another is restarted.
const REPLICAS: usize = 3;

/// A Kafka as its metadata shows it to this user.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Layout {
    /// How many brokers are up.
    pub(super) brokers: usize,
    /// Each topic that may be seen.
    pub(super) topics: HashMap<String, Shape>,
}

/// The shape of a topic.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Shape {
    /// How many partitions it has.
    pub(super) partitions: usize,
    /// On how many brokers each of them stands, or the one with the fewest.
    pub(super) replicas: usize,
}

impl Layout {
    pub(super) fn of(metadata: &Metadata) -> Self {
        let usable = metadata.topics().iter().filter(|topic| topic.error().is_none_or(still_there));
        let shape = |topic: &rdkafka::metadata::MetadataTopic| Shape {
            partitions: topic.partitions().len(),
            replicas: topic.partitions().iter().map(|partition| partition.replicas().len()).min().unwrap_or(0),
        };
        let topics = usable.map(|topic| (topic.name().to_owned(), shape(topic))).collect();
        Self { brokers: metadata.brokers().len(), topics }
    }

    pub(super) fn partitions(&self, topic: &str) -> Option<usize> {
        self.topics.get(topic).map(|shape| shape.partitions)
    }

    /// On how many of these brokers a topic should be.
    pub(super) fn replicas_wanted(&self) -> usize {
        self.brokers.min(REPLICAS)
    }
}

/// What is wrong with how often a topic's records are kept, if anything: the settings as they are and as they should be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Copies {
    /// Its records are on fewer brokers than they could be.
    Few {
        /// On how many.
        replicas: usize,
        /// How many brokers there are.
        brokers: usize,
        /// On how many it should be.
        wanted: usize,
    },
    /// A record is acknowledged once so many have it: with one of them it may be lost.
    Unconfirmed,
    /// So many must have it that none may be away.
    NoneMayBeAway {
        /// How many do.
        in_sync: usize,
    },
}

impl Copies {
    /// `in_sync`: its `min.insync.replicas`, where that is told.
    pub(super) fn of(layout: &Layout, topic: &str, in_sync: Option<usize>) -> Option<Self> {
        let (wanted, replicas) = (layout.replicas_wanted(), layout.topics.get(topic)?.replicas);
        match in_sync {
            _ if replicas < wanted => Some(Self::Few { replicas, brokers: layout.brokers, wanted }),
            // With two there is no good choice.
            Some(1) if replicas > 2 => Some(Self::Unconfirmed),
            Some(in_sync) if in_sync >= replicas && replicas > 2 => Some(Self::NoneMayBeAway { in_sync }),
            _ => None,
        }
    }
}

/// A topic that has an error of its partitions' leaders exists all the same.
fn still_there(error: RDKafkaRespErr) -> bool {
    !matches!(RDKafkaErrorCode::from(error), RDKafkaErrorCode::UnknownTopicOrPartition | RDKafkaErrorCode::UnknownTopic)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_topic_should_stand_on_three_brokers_of_which_one_may_be_away() {
        let copies = |brokers, replicas, in_sync| {
            let topics = [("t".to_owned(), Shape { partitions: 1, replicas })].into();
            Copies::of(&Layout { brokers, topics }, "t", Some(in_sync))
        };
        let few = |replicas, brokers| Some(Copies::Few { replicas, brokers, wanted: brokers });
        for (brokers, replicas, in_sync, expected) in [
            (1, 1, 1, None),
            (2, 1, 1, few(1, 2)),
            (3, 1, 1, few(1, 3)),
            (3, 2, 2, few(2, 3)),
            (5, 3, 2, None),
            (5, 5, 3, None),
            (3, 3, 1, Some(Copies::Unconfirmed)),
            (2, 2, 1, None),
            (2, 2, 2, None),
            (3, 3, 3, Some(Copies::NoneMayBeAway { in_sync: 3 })),
            (3, 3, 4, Some(Copies::NoneMayBeAway { in_sync: 4 })),
        ] {
            assert_eq!(copies(brokers, replicas, in_sync), expected, "{brokers} {replicas} {in_sync}");
        }
        assert_eq!(Copies::of(&Layout::default(), "t", Some(1)), None, "it is not there");
        let topics = [("t".to_owned(), Shape { partitions: 1, replicas: 3 })].into();
        assert_eq!(Copies::of(&Layout { brokers: 3, topics }, "t", None), None, "it is not told");
    }
}
