//! Tests of what is said of topics.

use super::*;
use crate::publish::rights::tests::{of_generation, settings};

#[test]
fn refusal_says_what_was_asked_and_what_mends_it() {
    use RDKafkaErrorCode as Code;
    let text = |asked, code| refused(&settings(), asked, code).to_string();
    let said = text(Asked::Create("events"), Code::TopicAuthorizationFailed);
    assert!(said.starts_with("kafka refuses to create topic events: "), "{said}");
    assert!(
        said.contains("; to mend it: kafka-acls.sh") && said.contains("--operation Create --topic events"),
        "{said}"
    );
    let said = text(Asked::DescribeConfigs("changelog"), Code::TopicAuthorizationFailed);
    assert!(
        said.contains("configuration of topic changelog") && said.contains("--operation DescribeConfigs"),
        "{said}"
    );
    let said = text(Asked::Create("events"), Code::InvalidReplicationFactor);
    assert!(!said.contains("kafka-acls.sh"), "{said}");
}

#[test]
fn changelog_of_another_generation_is_never_taken_for_a_new_installation() {
    let found = |topics: &[(&str, usize)]| {
        let shape = |partitions: usize| layout::Shape { partitions, replicas: 1 };
        let topics = topics.iter().map(|(name, n)| ((*name).to_owned(), shape(*n))).collect();
        Layout { brokers: 1, topics }
    };
    let said = |generation: u32, topics: &[(&str, usize)]| {
        let settings = of_generation(generation);
        check_generation(&settings, &found(topics)).map_err(|error| error.to_string())
    };
    assert_eq!(said(1, &[("events", 3)]), Ok(()), "a new installation");
    assert_eq!(said(1, &[("changelog", 3), ("changelog.g2", 4)]), Ok(()), "a reshard that has not ended");
    for (generation, topics, part) in [
        (1, &[("changelog.g2", 4), ("changelog.g3", 5)][..], "start with --shards 5 --generation 3, which a later"),
        (2, &[("changelog", 3)], "start with --shards 3 --generation 1, or run `pod-monitor reshard` first"),
        (2, &[("changelogs.g1", 3)], "a new installation starts with --generation 1"),
    ] {
        let said = said(generation, topics).unwrap_err();
        assert!(said.contains(part) && said.contains(&format!("generation {generation} has no")), "{said}");
    }
    let settings = of_generation(1);
    let changelog = &wanted(&settings)[1];
    let error = changelog.check_partitions(&settings, &found(&[("changelog", 1), ("changelog.g2", 3)])).unwrap_err();
    assert!(error.to_string().contains("generation 2, which has 3, begins with a finished"), "{error}");
    assert!(changelog.check_partitions(&settings, &found(&[("changelog", 3)])).is_ok());
}

#[test]
fn topic_that_is_not_seen_may_be_hidden_by_missing_rights() {
    let said = wanted(&settings())[0].missing(&settings(), &Layout::default()).to_string();
    let rights = "--operation Write --operation DescribeConfigs --topic events";
    assert!(said.contains("kafka-topics.sh") && said.contains(rights), "{said}");
    assert!(!said.contains("--replication-factor"), "{said}");
    let many = Layout { brokers: 5, ..Layout::default() };
    let said = wanted(&settings())[0].missing(&settings(), &many).to_string();
    assert!(said.contains("--create --topic events --replication-factor 3 --config min.insync.replicas=2 "), "{said}");
}
