//! Topics: an error names the topic and the command that mends it.

use std::collections::BTreeMap;

use pod_monitor::publish::{
    error::Class,
    settings::Settings,
    topics::{self, CHANGELOG_CONFIG, Error},
};
use rdkafka::{
    admin::{AdminClient, AdminOptions, NewTopic, ResourceSpecifier, TopicReplication},
    client::DefaultClientContext,
};

use crate::support::*;

async fn create(settings: &Settings, name: &str, partitions: i32, config: &[(&str, &str)]) {
    let admin: AdminClient<DefaultClientContext> = settings.admin().create().unwrap();
    let topic = NewTopic::new(name, partitions, TopicReplication::Fixed(1));
    let topic = config.iter().fold(topic, |topic, (key, value)| topic.set(key, value));
    admin.create_topics([&topic], &AdminOptions::new().operation_timeout(Some(LIMIT))).await.unwrap()[0]
        .clone()
        .unwrap();
}

fn assert_mends(error: &Error, parts: &[&str]) {
    assert_eq!(error.class(), Class::Fatal);
    for part in parts {
        assert!(error.to_string().contains(part), "{part} is not in: {error}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn missing_topic_is_an_error_with_the_command_that_makes_it() {
    let settings = settings_of(identity(&unique("missing"), 3));
    let error = topics::ensure(&settings, false).await.unwrap_err();
    let events = &settings.events_topics()[0];
    let create_events = format!("kafka-topics.sh --bootstrap-server {} --create --topic {events}", servers());
    assert_mends(&error, &[&create_events, "--create-topics"]);
    create(&settings, events, 1, &[]).await;
    let error = topics::ensure(&settings, false).await.unwrap_err();
    let changelog = format!("--topic {} --partitions 3 --config cleanup.policy=compact", settings.changelog_topic());
    assert_mends(&error, &[&changelog, "--config segment.ms=600000", "--create-topics"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn create_topics_sets_every_option() {
    let settings = settings_of(identity(&unique("created"), 3));
    let topics = topics::ensure(&settings, true).await.unwrap();
    assert_eq!(topics.advice, Vec::<String>::new());
    assert!((900_000..1_000_000).contains(&topics.record_bytes_max), "{topics:?}");
    let admin: AdminClient<DefaultClientContext> = settings.admin().create().unwrap();
    let resource = ResourceSpecifier::Topic(settings.changelog_topic());
    let found = admin.describe_configs([&resource], &AdminOptions::new()).await.unwrap().remove(0).unwrap();
    for (key, value) in CHANGELOG_CONFIG {
        assert_eq!(found.get(key).unwrap().value.as_deref(), Some(value), "{key}");
    }
    let metadata = admin.inner().fetch_metadata(Some(settings.changelog_topic()), LIMIT).unwrap();
    assert_eq!(metadata.topics()[0].partitions().len(), 3);
    assert_eq!(topics::ensure(&settings, true).await.unwrap(), topics, "the second time there is nothing to do");
}

#[tokio::test(flavor = "multi_thread")]
async fn changelog_that_is_deleted_by_time_is_refused() {
    for policy in ["delete", "compact,delete"] {
        let settings = settings_of(identity(&unique("policy"), 1));
        create(&settings, &settings.events_topics()[0], 1, &[]).await;
        create(&settings, settings.changelog_topic(), 1, &[("cleanup.policy", policy)]).await;
        let error = topics::ensure(&settings, true).await.unwrap_err();
        let mend = format!("--entity-name {} --add-config cleanup.policy=compact", settings.changelog_topic());
        assert_mends(&error, &["kafka-configs.sh --bootstrap-server", "--alter", &mend, policy]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn events_topic_that_is_compacted_is_refused() {
    let settings = settings_of(identity(&unique("compacted"), 1));
    create(&settings, &settings.events_topics()[0], 1, &[("cleanup.policy", "compact")]).await;
    let error = topics::ensure(&settings, true).await.unwrap_err();
    let mend = format!("--entity-name {} --add-config cleanup.policy=delete", settings.events_topics()[0]);
    assert_mends(&error, &["kafka-configs.sh", &mend]);
}

#[tokio::test(flavor = "multi_thread")]
async fn changelog_with_other_partitions_than_shards_is_refused() {
    for (partitions, mend) in [(1, "--partitions 2"), (4, "--shards 4")] {
        let settings = settings_of(identity(&unique("partitions"), 2));
        create(&settings, &settings.events_topics()[0], 1, &[]).await;
        create(&settings, settings.changelog_topic(), partitions, &[("cleanup.policy", "compact")]).await;
        let error = topics::ensure(&settings, true).await.unwrap_err();
        assert_mends(&error, &[settings.changelog_topic(), mend, &format!("has {partitions} partitions")]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn limit_of_a_topic_bounds_records_and_odd_settings_are_advice() {
    let settings = settings_of(identity(&unique("limits"), 1));
    create(&settings, &settings.events_topics()[0], 1, &[("max.message.bytes", "300000")]).await;
    create(&settings, settings.changelog_topic(), 1, &[("cleanup.policy", "compact")]).await;
    let topics = topics::ensure(&settings, false).await.unwrap();
    assert_eq!(topics.wire_bytes_max, 300_000);
    assert!(topics.record_bytes_max < 300_000 && topics.record_bytes_max > 290_000);
    assert!(topics.advice.iter().any(|a| a.contains("--add-config segment.ms=600000")), "{:?}", topics.advice);
}

#[tokio::test(flavor = "multi_thread")]
async fn broker_that_does_not_answer_is_not_a_wrong_topic() {
    let service = service();
    let settings =
        Settings::new("127.0.0.1:9", BTreeMap::new(), "e", "c", identity("unreachable", 1), service).unwrap();
    let error = topics::ensure(&settings, true).await.unwrap_err();
    assert_eq!(error.class(), Class::Transient, "{error}");
}
