//! `pod-monitor verify` on topics that a journal wrote, and on the same with something planted.

use std::{
    path::Path,
    process::{Child, Command, Output, Stdio},
    time::{Duration, Instant},
};

use pod_monitor::{
    lifecycle::event::{Body, ContainerSummary, Event},
    ports::Journal,
    publish::{Batch, journal::KafkaJournal, settings::Settings, topics},
};
use rdkafka::{
    ClientConfig,
    message::{Header, OwnedHeaders},
    producer::{BaseProducer, BaseRecord, Producer},
};
use serde_json::Value;
use uuid::Uuid;

use crate::support::*;

/// A whole life of one pod: scheduled, running, ended.
fn life(number: u32) -> Vec<Event> {
    let end = event(number, 100);
    let summary = ContainerSummary { name: "main".into(), ready: true, restart_count: 0, state: "running" };
    let bodies = [Body::Scheduled, Body::Running { container_statuses: vec![summary] }, end.body.clone()];
    let events = bodies.into_iter().zip(1..).map(|(body, sequence)| Event {
        event_id: Uuid::from_u128(u128::from(number) << 8 | u128::from(sequence)),
        sequence,
        body,
        ..end.clone()
    });
    events.collect()
}

pub(crate) fn told(number: u32) -> Batch {
    let mut record = tracked(number);
    record.sequence = 3;
    Batch { events: life(number), records: vec![(uid(number), Some(record))], position: Some(position(1)) }
}

/// An installation that has told five lives, its journal, and the pattern of its events topics.
pub(crate) async fn installed(name: &str, suffix: &str) -> (Settings, KafkaJournal, String) {
    let identity = identity(&unique(name), 1);
    let pattern = format!("{}.events{suffix}", identity.lease_name);
    let settings = settings_telling(&servers(), identity, &pattern);
    let topics = topics::ensure(&settings, true).await.unwrap();
    let journals = warm(settings.clone(), &topics).await;
    let (mut journal, _) = opened(&journals, "teller").await;
    for number in 0..5 {
        journal.commit(told(number)).await.unwrap();
    }
    (settings, journal, pattern)
}

fn start(settings: &Settings, pattern: &str, more: &[&str]) -> Child {
    let mut command = Command::new(env!("CARGO_BIN_EXE_pod-monitor"));
    command.arg("verify").args(["--kafka", settings.bootstrap_servers(), "--events-topic", pattern]);
    command.args(["--changelog-topic", settings.changelog_topic()]).args(more);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
}

fn verify(settings: &Settings, pattern: &str, more: &[&str]) -> (Option<i32>, String, String) {
    let Output { status, stdout, stderr } = start(settings, pattern, more).wait_with_output().unwrap();
    (status.code(), String::from_utf8(stdout).unwrap(), String::from_utf8(stderr).unwrap())
}

/// Writes past the journal, as a defect would.
pub(crate) fn plant(producer: &BaseProducer, topic: &str, key: &str, value: &str) {
    let id = serde_json::from_str::<Value>(value).unwrap_or_default()["event_id"].as_str().unwrap_or("none").to_owned();
    let headers = OwnedHeaders::new().insert(Header { key: "ce_id", value: Some(&id) });
    let record = BaseRecord::to(topic).partition(0).key(key).payload(value).headers(headers);
    producer.send(record).map_err(|(error, _)| error).unwrap();
    let sent = Instant::now();
    while producer.in_flight_count() > 0 {
        assert!(sent.elapsed() < LIMIT, "the planted record was not written");
        producer.poll(Duration::from_millis(5));
    }
}

pub(crate) fn producer(transactional_id: Option<&str>) -> BaseProducer {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", servers());
    if let Some(id) = transactional_id {
        config.set("transactional.id", id);
    }
    config.create().unwrap()
}

#[tokio::test]
async fn what_a_journal_told_is_clean() {
    let (settings, journal, pattern) = installed("verify-clean", "").await;
    let (code, said, errors) = verify(&settings, &pattern, &[]);
    assert_eq!(code, Some(0), "{said}{errors}");
    assert!(said.contains("15 events of 5 pods in 5 executions; 0 pods have no end yet"), "{said}");
    assert!(said.contains("lost 0, doubled 0, out of order 0, schema 0: all is well"), "{said}");
    assert_eq!(errors, "", "no bar where there is no terminal");
    assert!(!said.contains('\x1b'), "and no colours");
    let (_, said, _) = verify(&settings, &pattern, &["--color", "always"]);
    assert!(said.contains("\x1b[32mall is well\x1b[0m"), "{said}");
    let (code, said, _) = verify(&settings, &pattern, &["--output", "json"]);
    let report: Value = serde_json::from_str(&said).unwrap();
    assert_eq!((code, &report["events"], &report["faults"]["lost"]), (Some(0), &15.into(), &0.into()), "{report}");
    // As in the pod: the file of `run` says where everything is.
    let file = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("{pattern}.yaml"));
    let (kafka, changelog) = (settings.bootstrap_servers(), settings.changelog_topic());
    let text = format!("selector: app=x\nkafka: {kafka}\nevents-topic: {pattern}\nchangelog-topic: {changelog}\n");
    std::fs::write(&file, text).unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_pod-monitor")).arg("verify").arg("--config").arg(&file).output();
    assert_eq!(output.unwrap().status.code(), Some(0));
    drop(journal);
}

#[tokio::test]
async fn a_topic_for_each_type_is_read_like_one() {
    let (settings, _journal, pattern) = installed("verify-types", ".{event_type}").await;
    let (code, said, errors) = verify(&settings, &pattern, &[]);
    assert_eq!(code, Some(0), "{said}{errors}");
    assert!(said.contains("execution_running: ") && said.contains("15 events of 5 pods"), "{said}");
}

#[tokio::test]
async fn each_planted_fault_is_named_with_its_place() {
    let (settings, mut journal, topic) = installed("verify-faults", "").await;
    // Lost: the changelog says that all three were told, and one was not.
    let mut holed = told(5);
    holed.events.remove(1);
    journal.commit(holed).await.unwrap();
    let silent = Batch { events: vec![], ..told(6) };
    journal.commit(silent).await.unwrap();
    let records = seen_until(&topic, |seen| seen.len() >= 17);
    let of = |key: &str, sequence: u64| {
        let value = records.iter().filter(|record| record.key == key).filter_map(|record| record.value.clone());
        value.into_iter().find(|value| serde_json::from_str::<Value>(value).unwrap()["sequence"] == sequence).unwrap()
    };
    let planter = producer(None);
    plant(&planter, &topic, "0", &of("0", 2));
    plant(&planter, &topic, "1", &of("1", 2).replace("\"observed_at\"", "\"seen_at\""));
    plant(&planter, &topic, "x", "not an event");
    let late = of("2", 1).replace("\"sequence\":1", "\"sequence\":4").replace("-000000000002\"", "-00000000000a\"");
    plant(&planter, &topic, "2", &late);
    let (code, said, errors) = verify(&settings, &topic, &[]);
    assert_eq!(code, Some(1), "{said}{errors}");
    for expected in [
        "lost: sequence 2 of 3",
        "lost: all of its 3 events, which the changelog says were told",
        "doubled: event 00000000-0000-0000-0000-000000000002 stands at",
        "schema: ",
        "/observed_at is missing",
        "is not JSON",
        "lost: sequence 1, 2, 3 of 4",
        ": the promise is broken",
    ] {
        assert!(said.contains(expected), "{expected} is not in\n{said}");
    }
    assert!(said.contains("execution 5, pod 00000000-0000-0000-0000-000000000005"), "{said}");
    let (_, coloured, _) = verify(&settings, &topic, &["--color", "always", "--output", "table"]);
    for expected in ["\x1b[31mlost\x1b[0m: sequence 2 of 3", "\x1b[31mthe promise is broken\x1b[0m"] {
        assert!(coloured.contains(expected), "{expected} is not in\n{coloured}");
    }
    let (code, alone, _) = verify(&settings, &topic, &["--no-changelog"]);
    assert!(code == Some(1) && alone.contains("not compared with the changelog"), "{alone}");
    assert!(!alone.contains("which the changelog says"), "{alone}");
}

#[tokio::test]
async fn a_transaction_that_is_open_is_waited_for() {
    let (settings, _journal, topic) = installed("verify-open", "").await;
    let other = producer(Some(&unique("verify-open")));
    other.init_transactions(LIMIT).unwrap();
    other.begin_transaction().unwrap();
    let [first, ..] = &life(9)[..] else { panic!("a life begins") };
    let mut value = Vec::new();
    pod_monitor::publish::record::write_value(&mut value, first, settings.service()).unwrap();
    plant(&other, &topic, "9", std::str::from_utf8(&value).unwrap());
    let mut child = start(&settings, &topic, &["--output", "json"]);
    // A whole run takes a fraction of this.
    let began = Instant::now();
    while began.elapsed() < Duration::from_secs(2) {
        assert_eq!(child.try_wait().unwrap(), None, "it ends although a transaction is open");
        tokio::task::yield_now().await;
    }
    other.commit_transaction(LIMIT).unwrap();
    let output = child.wait_with_output().unwrap();
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(
        (output.status.code(), &report["events"], &report["open"]),
        (Some(0), &16.into(), &1.into()),
        "{report}"
    );
}

#[tokio::test]
async fn a_wrong_topic_is_named_with_the_flag() {
    let (settings, _journal, _) = installed("verify-wrong", "").await;
    let (code, said, errors) = verify(&settings, "no.such.topic", &[]);
    assert_eq!((code, said.as_str()), (Some(1), ""), "{errors}");
    assert!(errors.contains("topic no.such.topic is not there: name it by --events-topic"), "{errors}");
}

#[tokio::test]
async fn a_changelog_that_a_reshard_left_behind_is_not_compared_with() {
    let (settings, journal, topic) = installed("verify-moved", "").await;
    drop(journal);
    let moved = r#"{"generation":2,"shards":4,"shard_by":"uid","topic":"x.g2"}"#;
    plant(&producer(None), settings.changelog_topic(), "meta/moved", moved);
    let (code, said, errors) = verify(&settings, &topic, &[]);
    assert_eq!((code, said.as_str()), (Some(1), ""), "{errors}");
    assert!(errors.contains("left behind by a reshard") && errors.contains("--shards 4 --generation 2"), "{errors}");
    assert_eq!(verify(&settings, &topic, &["--no-changelog"]).0, Some(0));
}
