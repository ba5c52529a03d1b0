//! What the broker tests share: settings with names of their own, sample batches, and a read_committed reader that
//! knows nothing of the code under test.

use std::{
    collections::BTreeMap,
    sync::atomic::{AtomicU32, Ordering},
    time::{Duration, Instant, SystemTime},
};

use pod_monitor::{
    leadership::tenure::{ShardId, Tenure},
    lifecycle::{
        event::{Body, Captured, Ended, Event, Logs, LogsStatus, Outcome, Verdict},
        tracked::{FORMAT, Told, Tracked},
    },
    ports::Journals,
    publish::{
        Batch, Position,
        error::{Class, OpenError},
        identity::Identity,
        journal::{KafkaJournal, KafkaJournals},
        record::Service,
        restore::Restored,
        settings::Settings,
        topics,
    },
    watch::pod::{PodUid, ResourceVersion},
};
use rdkafka::{
    ClientConfig, Message, Offset, TopicPartitionList,
    consumer::{BaseConsumer, Consumer},
    producer::{BaseProducer, BaseRecord, Producer},
};
use uuid::Uuid;

/// Longest wait for anything.
pub(crate) const LIMIT: Duration = Duration::from_secs(60);

/// `host:port` of a real broker.
pub(crate) fn servers() -> String {
    std::env::var("POD_MONITOR_TEST_KAFKA")
        .expect("POD_MONITOR_TEST_KAFKA=host:port must name a real broker: run `cargo xtask test`, which starts one")
}

/// A name that no other test and no earlier run has.
pub(crate) fn unique(name: &str) -> String {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap();
    format!("{name}-{}-{}", since.as_micros(), COUNT.fetch_add(1, Ordering::Relaxed))
}

pub(crate) fn identity(name: &str, shards: u32) -> Identity {
    Identity {
        cluster_id: "test-cluster".into(),
        lease_namespace: "tests".into(),
        lease_name: name.into(),
        generation: 1,
        shards,
        shard_by: "uid".into(),
        selector: "app=test".into(),
        namespaces: vec!["default".into()],
        format: FORMAT,
    }
}

pub(crate) fn service() -> Service {
    Service { name: "pod-monitor".into(), version: "0.0.0".into(), environment: None }
}

pub(crate) fn settings_of(identity: Identity) -> Settings {
    settings_at(&servers(), identity)
}

/// Settings by which these servers are asked.
pub(crate) fn settings_at(servers: &str, identity: Identity) -> Settings {
    let events = format!("{}.events", identity.lease_name);
    settings_telling(servers, identity, &events)
}

/// The same, with events in the topics of this pattern.
pub(crate) fn settings_telling(servers: &str, identity: Identity, events: &str) -> Settings {
    let changelog = format!("{}.changelog", identity.lease_name);
    Settings::new(servers, BTreeMap::new(), events, &changelog, identity, service()).unwrap()
}

/// Settings of an installation of its own, whose topics exist.
pub(crate) async fn installation(name: &str) -> (Settings, topics::Topics) {
    let settings = settings_of(identity(&unique(name), 1));
    let topics = topics::ensure(&settings, true).await.unwrap();
    (settings, topics)
}

pub(crate) fn tenure(holder: &str) -> Tenure {
    Tenure::unconditional(ShardId(0), holder, tokio_util::sync::CancellationToken::new())
}

/// As a standby does: waits until the producers of the shard are connected.
pub(crate) async fn warm(settings: Settings, topics: &topics::Topics) -> KafkaJournals {
    let journals = KafkaJournals::start(settings, topics).unwrap();
    connected(&journals).await;
    journals
}

/// How often a broker that is well may have to be asked. Once, but for a busy machine: there a producer that was thrown away
/// may be let in late, and fences once more.
const TRIES_MAX: usize = 3;

/// Takes a shard over as a worker does: again, where the attempt failed for the moment, but not for ever.
pub(crate) async fn taken_over(
    journals: &KafkaJournals,
    tenure: &Tenure,
) -> Result<(KafkaJournal, Restored), OpenError> {
    for _ in 1..TRIES_MAX {
        match journals.open(tenure).await {
            Err(error) if error.class() != Class::Fatal => eprintln!("taken over once more, after {error:?}"),
            ended => return ended,
        }
    }
    journals.open(tenure).await
}

/// As [`taken_over`], by this holder of the first shard, who is let in.
pub(crate) async fn opened(journals: &KafkaJournals, holder: &str) -> (KafkaJournal, Restored) {
    taken_over(journals, &tenure(holder)).await.unwrap()
}

/// Waits until the producers of the shard are connected again.
pub(crate) async fn connected(journals: &KafkaJournals) {
    let started = Instant::now();
    while journals.connected(ShardId(0)) < 3 {
        assert!(started.elapsed() < LIMIT, "producers do not get warm");
        tokio::task::yield_now().await;
    }
}

/// Key of what a dead leader wrote.
pub(crate) const DEAD: &str = "999";

/// A leader that dies with records written and neither committed nor aborted: leaked, so that not even its end says so.
pub(crate) fn dies_inside_a_transaction(settings: &Settings, topics: &topics::Topics) {
    let dead: BaseProducer = settings.producer(ShardId(0), topics.wire_bytes_max).create().unwrap();
    dead.init_transactions(LIMIT).unwrap();
    dead.begin_transaction().unwrap();
    for topic in [settings.events_topics()[0].as_str(), settings.changelog_topic()] {
        dead.send(BaseRecord::to(topic).partition(0).key(DEAD).payload("{}")).map_err(|(e, _)| e).unwrap();
    }
    let sent = Instant::now();
    while dead.in_flight_count() > 0 {
        assert!(sent.elapsed() < LIMIT, "records of the dead leader were not written");
        dead.poll(Duration::from_millis(5));
    }
    std::mem::forget(dead);
}

pub(crate) fn event(number: u32, output_bytes: usize) -> Event {
    let at = "2026-01-02T03:04:05Z".parse().unwrap();
    let verdict = Verdict {
        failed_init: None,
        outcome: Outcome::Completed,
        exit_code: Some(0),
        failure: None,
        started_at: Some(at),
        finished_at: Some(at),
        at,
        containers: vec![],
        container: "main".into(),
        restart_count: 0,
        termination_message: None,
    };
    let logs = Logs { status: LogsStatus::Complete, ..Logs::default() };
    let captured = Captured { stdout: Some("x".repeat(output_bytes)), logs, ..Captured::default() };
    Event {
        event_id: Uuid::from_u128(u128::from(number)),
        timestamp: at,
        observed_at: at,
        execution_id: number.to_string().into(),
        user_id: None,
        pod_name: format!("exec-{number}").into(),
        namespace: "default".into(),
        pod_uid: uid(number),
        node_name: Some("node-1".into()),
        sequence: 1,
        owner: None,
        earlier_end: None,
        parent: None,
        body: Body::Ended(Box::new(Ended { verdict, captured })),
    }
}

pub(crate) fn uid(number: u32) -> PodUid {
    PodUid(format!("00000000-0000-0000-0000-{number:012}").into())
}

pub(crate) fn tracked(number: u32) -> Tracked {
    Tracked {
        format: FORMAT,
        oldest_reader: FORMAT,
        resource_version: ResourceVersion(u64::from(number)),
        namespace: "default".into(),
        pod_name: format!("exec-{number}").into(),
        execution_id: number.to_string().into(),
        user_id: None,
        owner: None,
        earlier_end: None,
        parent: None,
        clock: None,
        stalls: Vec::new(),
        node_name: Some("node-1".into()),
        sequence: 1,
        told: Told { scheduled: true, running: true },
        waiting: None,
        deletion_timestamp: None,
        seen_end: None,
        verdict: None,
        ruling: None,
        owner_rulings: Vec::new(),
        end: None,
        gone: None,
        left: false,
        unknown: serde_json::Map::new(),
    }
}

/// One event and one record for each number, and a position.
pub(crate) fn batch(numbers: std::ops::Range<u32>) -> Batch {
    Batch {
        events: numbers.clone().map(|n| event(n, 400)).collect(),
        records: numbers.map(|n| (uid(n), Some(tracked(n)))).collect(),
        position: Some(position(1)),
    }
}

pub(crate) fn position(term: u64) -> Position {
    Position { term, holder: "h".into(), streams: [("default".to_owned(), ResourceVersion(7))].into() }
}

/// A record as a separate consumer sees it.
#[derive(Debug, Clone)]
pub(crate) struct Seen {
    pub(crate) key: String,
    pub(crate) value: Option<String>,
}

/// Everything in a topic of this broker that a read_committed consumer sees, up to its present end.
pub(crate) fn seen_at(servers: &str, topic: &str) -> Vec<Seen> {
    read(servers, topic, "read_committed")
}

/// Everything in a topic, aborted records too.
pub(crate) fn written(topic: &str) -> Vec<Seen> {
    read(&servers(), topic, "read_uncommitted")
}

fn read(servers: &str, topic: &str, isolation: &str) -> Vec<Seen> {
    let consumer: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", servers)
        .set("group.id", unique("reader"))
        .set("isolation.level", isolation)
        .set("enable.partition.eof", "true")
        // The end is told by the next fetch.
        .set("fetch.wait.max.ms", "10")
        // A broker that comes back is seen soon.
        .set("reconnect.backoff.max.ms", "500")
        .set("enable.auto.commit", "false")
        .create()
        .unwrap();
    let metadata = consumer.fetch_metadata(Some(topic), LIMIT).unwrap();
    let partitions = metadata.topics()[0].partitions().len();
    let mut assignment = TopicPartitionList::new();
    for partition in 0..partitions {
        let partition = i32::try_from(partition).unwrap();
        assignment.add_partition_offset(topic, partition, Offset::Beginning).unwrap();
    }
    consumer.assign(&assignment).unwrap();
    let (mut seen, mut ended, started) = (Vec::new(), 0, Instant::now());
    while ended < partitions {
        assert!(started.elapsed() < LIMIT, "{topic} was not read in time");
        match consumer.poll(Duration::from_millis(100)) {
            Some(Ok(message)) => seen.push(Seen {
                key: String::from_utf8(message.key().unwrap().to_vec()).unwrap(),
                value: message.payload().map(|value| String::from_utf8(value.to_vec()).unwrap()),
            }),
            Some(Err(rdkafka::error::KafkaError::PartitionEOF(_))) => ended += 1,
            // A broker that was paused or killed a moment ago is asked again by the client itself.
            Some(Err(error)) if is_down(&error) => {}
            Some(Err(error)) => panic!("{topic}: {error}"),
            None => {}
        }
    }
    seen
}

fn is_down(error: &rdkafka::error::KafkaError) -> bool {
    use rdkafka::types::RDKafkaErrorCode::{AllBrokersDown, BrokerTransportFailure};
    matches!(error.rdkafka_error_code(), Some(AllBrokersDown | BrokerTransportFailure))
}

/// Reads again and again until `enough`: a commit is acknowledged a moment before it is visible.
pub(crate) fn seen_until(topic: &str, enough: impl Fn(&[Seen]) -> bool) -> Vec<Seen> {
    seen_until_at(&servers(), topic, enough)
}

/// As [`seen_until`], at another broker.
pub(crate) fn seen_until_at(servers: &str, topic: &str, enough: impl Fn(&[Seen]) -> bool) -> Vec<Seen> {
    let started = Instant::now();
    loop {
        let seen = seen_at(servers, topic);
        if enough(&seen) {
            return seen;
        }
        assert!(started.elapsed() < LIMIT, "{topic} holds {} records: {:?}", seen.len(), seen.first());
    }
}

pub(crate) fn keys(seen: &[Seen]) -> Vec<u32> {
    let mut keys: Vec<_> = seen.iter().map(|record| record.key.parse().unwrap()).collect();
    keys.sort_unstable();
    keys
}
