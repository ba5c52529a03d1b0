//! What a user of Kafka lacks when Kafka refuses, as the command that gives it. Pure.

use std::fmt;

use rdkafka::error::RDKafkaErrorCode;

use super::settings::Settings;
use crate::leadership::tenure::ShardId;

/// What was asked of Kafka.
#[derive(Debug, Clone, Copy)]
pub(super) enum Asked<'a> {
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
            (Code::TopicAuthorizationFailed, asked) => asked.of_topic()?,
            _ => return None,
        };
        Some(self.command(&[operation], &on))
    }

    /// The command that gives every right that is needed on a topic: who sees nothing of it may lack all of them.
    pub(super) fn grant_all(&self, topic: &str) -> String {
        let operations: &[&str] = match topic == self.changelog_topic() {
            true => &["Read", "Write", "DescribeConfigs"],
            false => &["Write", "DescribeConfigs"],
        };
        self.command(operations, &format!("--topic {topic}"))
    }

    /// The command that lets us produce under this id.
    pub(super) fn grant_producing_as(&self, id: &str) -> String {
        self.command(&["Write"], &format!("--transactional-id {id}"))
    }

    fn command(&self, operations: &[&str], on: &str) -> String {
        let properties = self.properties();
        // What goes into a command as it is must not end its word.
        let is_word = |name: &&String| name.bytes().all(|b| b.is_ascii_alphanumeric() || b"._@-".contains(&b));
        let (user, who) = match properties.get("sasl.username").filter(is_word) {
            Some(user) => (user.as_str(), ""),
            None => ("NAME", " (NAME: as whom this monitor logs in)"),
        };
        let is_open = |protocol: &String| protocol.eq_ignore_ascii_case("plaintext");
        let admin = match properties.get("security.protocol").is_none_or(is_open) {
            true => "",
            false => " --command-config ADMIN.properties",
        };
        let operations: String = operations.iter().map(|operation| format!(" --operation {operation}")).collect();
        let servers = self.bootstrap_servers();
        format!(
            "kafka-acls.sh --bootstrap-server {servers}{admin} --add --allow-principal User:{user}{operations} {on}{who}"
        )
    }
}

impl fmt::Display for Asked<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
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
        settings_with(&[])
    }

    fn settings_with(properties: &[(&str, &str)]) -> Settings {
        made(properties, 1)
    }

    pub(in crate::publish) fn of_generation(generation: u32) -> Settings {
        made(&[], generation)
    }

    fn made(properties: &[(&str, &str)], generation: u32) -> Settings {
        let identity = Identity {
            cluster_id: "c".into(),
            lease_namespace: "ns".into(),
            lease_name: "pod-monitor".into(),
            generation,
            shards: 3,
            shard_by: "uid".into(),
            selector: "app=x".into(),
            namespaces: vec![],
            format: FORMAT,
        };
        let service = Service { name: "s".into(), version: "1".into(), environment: None };
        let properties = properties.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        Settings::new("k:9092", properties, "events", "changelog", identity, service).unwrap()
    }

    #[test]
    fn refusal_for_want_of_rights_names_the_command_that_mends_it() {
        use RDKafkaErrorCode as Code;
        let cases = [
            (Asked::DescribeConfigs("events"), Code::TopicAuthorizationFailed, "DescribeConfigs --topic events"),
            (Asked::Create("changelog"), Code::TopicAuthorizationFailed, "Create --topic changelog"),
            (Asked::Create("changelog"), Code::ClusterAuthorizationFailed, "Create --topic changelog"),
            (Asked::Read("changelog"), Code::TopicAuthorizationFailed, "Read --topic changelog"),
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
    fn command_names_whom_the_monitor_logs_in_as_and_asks_for_an_admin() {
        let command = |user: &str| {
            let properties = [("sasl.username", user), ("security.protocol", "sasl_ssl"), ("sasl.mechanism", "PLAIN")];
            settings_with(&properties).grant_all("changelog")
        };
        assert_eq!(
            command("monitor-1"),
            "kafka-acls.sh --bootstrap-server k:9092 --command-config ADMIN.properties --add --allow-principal \
             User:monitor-1 --operation Read --operation Write --operation DescribeConfigs --topic changelog"
        );
        let odd = command("x; rm -r /");
        assert!(!odd.contains("rm -r") && odd.contains("User:NAME") && odd.ends_with("logs in)"), "{odd}");
    }

    #[test]
    fn refusal_for_another_reason_names_no_right() {
        for code in [RDKafkaErrorCode::InvalidTransactionTimeout, RDKafkaErrorCode::MessageSizeTooLarge] {
            assert_eq!(settings().grant(ShardId(0), Asked::Write("events"), code), None);
            assert_eq!(to_mend(None), "");
        }
    }
}
