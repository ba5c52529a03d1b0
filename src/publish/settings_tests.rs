use super::*;

fn identity() -> Identity {
    Identity {
        cluster_id: "c".into(),
        lease_namespace: "ns".into(),
        lease_name: "pod-monitor".into(),
        generation: 1,
        shards: 1,
        shard_by: "uid".into(),
        selector: "app=x".into(),
        namespaces: vec![],
        format: 1,
    }
}

fn settings(properties: &[(&str, &str)]) -> Result<Settings, Error> {
    let properties = properties.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
    let service = Service { name: "s".into(), version: "1".into(), environment: None };
    Settings::new("127.0.0.1:1", properties, "events.{event_type}", "changelog", identity(), service)
}

#[test]
fn property_that_the_promise_rests_on_is_refused_by_name() {
    let cases = [
        ("transactional.id", "x"),
        ("enable.idempotence", "false"),
        ("acks", "1"),
        ("request.required.acks", "1"),
        ("isolation.level", "read_uncommitted"),
        ("max.in.flight.requests.per.connection", "6"),
        ("max.in.flight", "6"),
        ("message.timeout.ms", "20000"),
        ("message.timeout.ms", "0"),
        ("delivery.timeout.ms", "60000"),
        ("transaction.timeout.ms", "60000"),
        ("retry.backoff.ms", "20"),
        ("partitioner", "random"),
        ("group.id", "g"),
        ("message.max.bytes", "1"),
        ("test.mock.num.brokers", "3"),
    ];
    for (key, value) in cases {
        let error = settings(&[(key, value)]).expect_err(key);
        assert!(matches!(&error, Error::Forbidden { key: named, .. } if named == key), "{key}: {error}");
        assert!(error.to_string().contains(key));
    }
}

#[test]
fn other_properties_reach_the_client() {
    let settings = settings(&[("compression.type", "zstd"), ("message.timeout.ms", "5000")]).unwrap();
    let config = settings.producer(ShardId(4), 500_000);
    let expected = [
        ("compression.type", "zstd"),
        ("message.timeout.ms", "5000"),
        ("transactional.id", "c.ns.pod-monitor.g1.4"),
        ("message.max.bytes", "500000"),
        ("partitioner", "murmur2_random"),
        ("transaction.timeout.ms", "20000"),
        ("retry.backoff.ms", "1000"),
        ("retry.backoff.max.ms", "1000"),
    ];
    for (key, value) in expected {
        assert_eq!(config.get(key), Some(value), "{key}");
    }
    assert_eq!(settings.consumer(ShardId(0)).get("isolation.level"), Some("read_committed"));
}

#[test]
fn secrets_are_in_no_debug_text_and_no_error() {
    let secret = "hunter2-very-secret";
    let fine = settings(&[("sasl.password", secret), ("sasl.username", "u")]).unwrap();
    assert!(!format!("{fine:?}").contains(secret));
    assert!(format!("{fine:?}").contains("sasl.password"));
    for key in ["sasl.mechanismz", "security.protocol", "ssl.key.password.typo"] {
        let error = settings(&[(key, secret)]).expect_err(key);
        assert!(error.to_string().contains(key), "{error}");
        assert!(!format!("{error} {error:?}").contains(secret), "{error:?}");
    }
}

#[test]
fn a_reader_is_refused_without_the_values_of_its_properties() {
    let secret = "hunter2-very-secret";
    for key in ["sasl.mechanismz", "security.protocol", "ssl.key.password.typo", "ssl.key.pem"] {
        let properties = BTreeMap::from([(key.to_owned(), secret.to_owned())]);
        let properties = if key == "ssl.key.pem" {
            properties.into_iter().chain([("security.protocol".to_owned(), "ssl".to_owned())]).collect()
        } else {
            properties
        };
        let error = reader("127.0.0.1:1", &properties).expect_err(key);
        assert!(!format!("{error} {error:?}").contains(secret), "{error:?}");
    }
}

#[test]
fn topics_that_cannot_be_are_refused() {
    let make = |events: &str, changelog: &str| {
        let service = Service { name: "s".into(), version: "1".into(), environment: None };
        Settings::new("127.0.0.1:1", BTreeMap::new(), events, changelog, identity(), service)
    };
    let key = |result: Result<Settings, Error>| match result {
        Err(Error::Setting { key, .. }) => key,
        other => panic!("{other:?}"),
    };
    assert_eq!(key(make("same", "same")), "changelog-topic");
    assert_eq!(key(make("a b", "c")), "events-topic");
    assert_eq!(key(make("a", "")), "changelog-topic");
    let one_each = make("events.{event_type}", "c").unwrap();
    assert_eq!(one_each.events_topics().len(), EventType::ALL.len());
    assert_eq!(make("events", "c").unwrap().events_topics(), ["events"]);
}
