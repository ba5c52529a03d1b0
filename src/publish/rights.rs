//! What a user of Kafka lacks when Kafka refuses, as the command that gives it. Pure.

use std::fmt;

use rdkafka::error::RDKafkaErrorCode;

use super::settings::Settings;
use crate::leadership::tenure::ShardId;

/// What was asked of Kafka.
#[derive(Debug, Clone, Copy)]
pub(super) enum Asked<'a> {
    /// To show that this topic is there.
    Describe(&'a str),
    /// To show how this topic is configured.
    DescribeConfigs(&'a str),
    /// To make this topic.
    Create(&'a str),
    /// To read this topic.
    Read(&'a str),
    /// To take a record into this topic.
    Write(&'a str),
    /// To let us be the producer of this shard.
    Produce,
}

impl Settings {
    /// The command that gives the right for want of which Kafka answered `code`; `None` if that is about something else.
    pub(super) fn grant(&self, shard: ShardId, asked: Asked<'_>, code: RDKafkaErrorCode) -> Option<String> {
        use RDKafkaErrorCode as Code;
        let id = self.identity().transactional_id(shard);
        let (operation, on) = match (code, asked) {
            // Kafka asks for the right on the cluster first; the one on the topic is enough, and smaller.
            (Code::ClusterAuthorizationFailed, Asked::Create(topic)) => ("Create", format!("--topic {topic}")),
            (Code::ClusterAuthorizationFailed, _) => ("IdempotentWrite", "--cluster".to_owned()),
            // Whoever may write may describe.
            (Code::TransactionalIdAuthorizationFailed, _) => ("Write", format!("--transactional-id {id}")),
            (Code::GroupAuthorizationFailed, _) => ("Read", format!("--group {}", self.restore_group(shard))),
            (Code::TopicAuthorizationFailed, asked) => asked.of_topic()?,
            _ => return None,
        };
        let servers = self.bootstrap_servers();
        Some(format!(
            "kafka-acls.sh --bootstrap-server {servers} --add --allow-principal User:NAME --operation {operation} {on} \
             (NAME: as whom this monitor logs in)"
        ))
    }
}

impl fmt::Display for Asked<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Describe(topic) => write!(f, "show topic {topic}"),
            Self::DescribeConfigs(topic) => write!(f, "show the configuration of topic {topic}"),
            Self::Create(topic) => write!(f, "create topic {topic}"),
            Self::Read(topic) => write!(f, "read topic {topic}"),
            Self::Write(topic) => write!(f, "write to topic {topic}"),
            Self::Produce => f.write_str("produce"),
        }
    }
}

impl Asked<'_> {
    fn of_topic(self) -> Option<(&'static str, String)> {
        let (operation, topic) = match self {
            Self::Describe(topic) => ("Describe", topic),
            Self::DescribeConfigs(topic) => ("DescribeConfigs", topic),
            Self::Create(topic) => ("Create", topic),
            Self::Read(topic) => ("Read", topic),
            Self::Write(topic) => ("Write", topic),
            Self::Produce => return None,
        };
        Some((operation, format!("--topic {topic}")))
    }
}

/// For the end of an error: what mends it, if anything is known to.
pub(super) fn to_mend(command: Option<String>) -> String {
    command.map(|command| format!("; to mend it: {command}")).unwrap_or_default()
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
pub(super) mod tests {
    use super::*;
    use crate::publish::{
        identity::{FORMAT, Identity},
        record::Service,
    };

    pub(in crate::publish) fn settings() -> Settings {
        let identity = Identity {
            cluster_id: "c".into(),
            lease_namespace: "ns".into(),
            lease_name: "pod-monitor".into(),
            generation: 1,
            shards: 3,
            shard_by: "uid".into(),
            selector: "app=x".into(),
            namespaces: vec![],
            format: FORMAT,
        };
        let service = Service { name: "s".into(), version: "1".into(), environment: None };
        Settings::new("k:9092", [].into(), "events", "changelog", identity, service).unwrap()
    }

    #[test]
    fn refusal_for_want_of_rights_names_the_command_that_mends_it() {
        use RDKafkaErrorCode as Code;
        let cases = [
            (Asked::Describe("events"), Code::TopicAuthorizationFailed, "Describe --topic events"),
            (Asked::DescribeConfigs("events"), Code::TopicAuthorizationFailed, "DescribeConfigs --topic events"),
            (Asked::Create("changelog"), Code::TopicAuthorizationFailed, "Create --topic changelog"),
            (Asked::Create("changelog"), Code::ClusterAuthorizationFailed, "Create --topic changelog"),
            (Asked::Read("changelog"), Code::TopicAuthorizationFailed, "Read --topic changelog"),
            (Asked::Read("changelog"), Code::GroupAuthorizationFailed, "Read --group c.ns.pod-monitor.g1.2.restore"),
            (Asked::Write("events"), Code::TopicAuthorizationFailed, "Write --topic events"),
            (Asked::Write("events"), Code::ClusterAuthorizationFailed, "IdempotentWrite --cluster"),
            (Asked::Produce, Code::ClusterAuthorizationFailed, "IdempotentWrite --cluster"),
            (
                Asked::Produce,
                Code::TransactionalIdAuthorizationFailed,
                "Write --transactional-id c.ns.pod-monitor.g1.2",
            ),
        ];
        for (asked, code, expected) in cases {
            let command = settings().grant(ShardId(2), asked, code).unwrap();
            let expected = format!(
                "kafka-acls.sh --bootstrap-server k:9092 --add --allow-principal User:NAME --operation {expected} \
                 (NAME: as whom this monitor logs in)"
            );
            assert_eq!(command, expected, "{asked:?} {code:?}");
        }
    }

    #[test]
    fn refusal_for_another_reason_names_no_right() {
        for code in [RDKafkaErrorCode::InvalidTransactionTimeout, RDKafkaErrorCode::MessageSizeTooLarge] {
            assert_eq!(settings().grant(ShardId(0), Asked::Write("events"), code), None);
            assert_eq!(to_mend(None), "");
        }
    }
}
