//! `pod-monitor events` on topics that a journal wrote.

use std::{
    io::{BufRead as _, BufReader},
    process::{Child, Command, Output, Stdio},
    sync::mpsc,
};

use pod_monitor::{
    ports::Journal as _,
    publish::{journal::KafkaJournal, settings::Settings, topics},
};
use rdkafka::producer::Producer as _;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use testkit::clients::history::create_topic;

use crate::{
    support::*,
    verify::{installed, plant, producer, told},
};

fn command(settings: &Settings, pattern: &str, more: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_pod-monitor"));
    command.arg("events").args(["--kafka", settings.bootstrap_servers(), "--events-topic", pattern]).args(more);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// Its standard output; it must end well and say nothing else.
fn events(settings: &Settings, pattern: &str, more: &[&str]) -> String {
    let Output { status, stdout, stderr } = command(settings, pattern, more).output().unwrap();
    let errors = String::from_utf8(stderr).unwrap();
    assert_eq!((status.code(), errors.as_str()), (Some(0), ""), "{more:?}");
    String::from_utf8(stdout).unwrap()
}

/// Its lines, as they come.
fn lines(child: &mut Child) -> mpsc::Receiver<String> {
    let (send, lines) = mpsc::sync_channel(1000);
    let output = BufReader::new(child.stdout.take().unwrap());
    std::thread::spawn(move || output.lines().map_while(Result::ok).try_for_each(|line| send.send(line)));
    lines
}

fn next(lines: &mpsc::Receiver<String>, count: usize) -> Vec<String> {
    (0..count)
        .map(|n| lines.recv_timeout(LIMIT).unwrap_or_else(|_| panic!("line {n} of {count} did not come")))
        .collect()
}

fn signal(child: &Child, signal: Signal) {
    let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw).unwrap();
    kill_process(pid, signal).unwrap();
}

/// An installation whose events topic has six partitions.
async fn parted(name: &str) -> (Settings, KafkaJournal, String) {
    let identity = identity(&unique(name), 1);
    let topic = format!("{}.events", identity.lease_name);
    create_topic(&servers(), &topic, 6, &[]).await.unwrap();
    let settings = settings_telling(&servers(), identity, &topic);
    let found = topics::ensure(&settings, true).await.unwrap();
    let (mut journal, _) = opened(&warm(settings.clone(), &found).await, "teller").await;
    for number in 0..12 {
        journal.commit(told(number)).await.unwrap();
    }
    seen_until(&topic, |seen| seen.len() >= 36);
    (settings, journal, topic)
}

#[tokio::test]
async fn events_of_all_topics_come_as_one_story_in_the_order_of_their_telling() {
    for suffix in ["", ".{event_type}"] {
        let (settings, _journal, pattern) = installed("events-order", suffix).await;
        let last = format!(
            "{}.events{}",
            settings.identity().lease_name,
            suffix.replace("{event_type}", "execution_completed")
        );
        seen_until(&last, |seen| seen.iter().any(|record| record.key == "4"));
        let said = events(&settings, &pattern, &[]);
        let found: Vec<(&str, &str)> = said
            .lines()
            .map(|line| line.split_whitespace().collect::<Vec<_>>())
            .map(|words| (words[1], words[2]))
            .collect();
        let kinds = ["pod_scheduled", "execution_running", "execution_completed"];
        let whole: Vec<(String, &str)> =
            (0..5).flat_map(|number: u32| kinds.map(|kind| (number.to_string(), kind))).collect();
        let whole: Vec<(&str, &str)> = whole.iter().map(|(id, kind)| (id.as_str(), *kind)).collect();
        assert_eq!(found, whole, "{said}");
        assert!(
            said.contains("2026-01-02T03:04:05Z  0         pod_scheduled        default/exec-0, node node-1\n"),
            "{said}"
        );
        assert!(!said.contains('\x1b'), "no colours where there is no terminal");
        let coloured = events(&settings, &pattern, &["--color", "always"]);
        assert!(coloured.contains("\x1b[32mexecution_completed\x1b[0m"), "{coloured}");
    }
}

#[tokio::test]
async fn one_execution_is_found_in_its_partition_and_json_is_what_stands_there() {
    let (settings, _journal, topic) = parted("events-one").await;
    let records = seen_at(&servers(), &topic);
    for number in 0..12_u32 {
        let said = events(&settings, &topic, &["--execution", &number.to_string(), "--output", "json"]);
        let found: Vec<Value> = said.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        let of_it = records.iter().filter(|record| record.key == number.to_string());
        let expected: Vec<Value> =
            of_it.map(|record| serde_json::from_str(record.value.as_deref().unwrap()).unwrap()).collect();
        assert_eq!((found.len(), &found), (3, &expected), "execution {number}");
    }
    assert_eq!(events(&settings, &topic, &["--execution", "no such"]), "");
    assert_eq!(events(&settings, &topic, &[]).lines().count(), 36);
}

#[tokio::test]
async fn it_begins_where_it_is_told_to() {
    let (settings, mut journal, topic) = parted("events-from").await;
    // A millisecond of its own, after all that was told.
    let first = jiff::Timestamp::now();
    crate::kafka::lasts(std::time::Duration::from_millis(20)).await;
    journal.commit(told(90)).await.unwrap();
    seen_until(&topic, |seen| seen.len() >= 39);
    let said = events(&settings, &topic, &["--from", &first.to_string()]);
    assert_eq!(said.lines().count(), 3, "{said}");
    assert!(said.lines().all(|line| line.split_whitespace().nth(1) == Some("90")), "{said}");
    assert_eq!(events(&settings, &topic, &["--from", "1h"]).lines().count(), 39);
    assert_eq!(events(&settings, &topic, &["--from", "2099-01-01T00:00:00Z"]), "");
}

#[tokio::test]
async fn it_follows_until_ctrl_c_and_ends_well() {
    let (settings, mut journal, topic) = parted("events-follow").await;
    for (asked, more) in [(Signal::INT, &[][..]), (Signal::TERM, &["--execution", "91"])] {
        let mut child =
            command(&settings, &topic, &[&["--follow", "--from", "beginning"], more].concat()).spawn().unwrap();
        let lines = lines(&mut child);
        let all = more.is_empty();
        let before = next(&lines, if all { 36 } else { 3 });
        let number = if all { 91 } else { 92 };
        journal.commit(told(number)).await.unwrap();
        if all {
            let after = next(&lines, 3);
            assert!(after.iter().all(|line| line.contains("  91        ")), "{after:?}");
        } else {
            assert!(before.iter().all(|line| line.contains("  91        ")), "{before:?}");
        }
        signal(&child, asked);
        let output = child.wait_with_output().unwrap();
        assert_eq!((output.status.code(), output.stderr.as_slice()), (Some(0), &b""[..]), "{asked:?}");
    }
}

#[tokio::test]
async fn a_reader_that_goes_away_ends_it_in_silence() {
    let (settings, mut journal, topic) = parted("events-pipe").await;
    let mut child = command(&settings, &topic, &["--follow", "--from", "beginning"]).spawn().unwrap();
    drop(child.stdout.take());
    let (began, mut number) = (std::time::Instant::now(), 200);
    // It learns so by what it writes.
    while child.try_wait().unwrap().is_none() {
        assert!(began.elapsed() < LIMIT, "it does not end");
        journal.commit(told(number)).await.unwrap();
        number += 1;
    }
    let output = child.wait_with_output().unwrap();
    assert_eq!((output.status.code(), output.stderr.as_slice()), (Some(0), &b""[..]));
}

#[tokio::test]
async fn neither_what_is_not_committed_nor_what_steers_a_terminal_is_shown() {
    let (settings, _journal, topic) = installed("events-odd", "").await;
    let planter = producer(None);
    plant(
        &planter,
        &topic,
        "odd",
        r#"{"event_type":"execution_failed","execution_id":"\u001b[2J","message":"\u001b]0;x\u0007"}"#,
    );
    plant(&planter, &topic, "odd", "not an event");
    let open = producer(Some(&unique("events-open")));
    open.init_transactions(LIMIT).unwrap();
    open.begin_transaction().unwrap();
    plant(&open, &topic, "open", r#"{"event_type":"execution_failed","execution_id":"uncommitted"}"#);
    let said = events(&settings, &topic, &[]);
    assert!(said.chars().all(|c| c == '\n' || !c.is_control()), "{said:?}");
    assert!(said.contains("no event: ") && said.contains("is not a JSON object"), "{said}");
    assert!(said.lines().count() == 17 && !said.contains("uncommitted"), "{said}");
    let Output { status, stdout, stderr } = command(&settings, &topic, &["--output", "json"]).output().unwrap();
    let (said, errors) = (String::from_utf8(stdout).unwrap(), String::from_utf8(stderr).unwrap());
    assert!(status.success() && errors.contains("is not a JSON object: left out"), "{errors}");
    assert!(said.lines().count() == 16 && said.contains(r"\u001b[2J"), "{said}");
    open.abort_transaction(LIMIT).unwrap();
}

#[tokio::test]
async fn a_wrong_topic_and_a_broker_that_is_away_are_named() {
    let (settings, _journal, _) = installed("events-wrong", "").await;
    let output = command(&settings, "no.such.topic", &[]).output().unwrap();
    let errors = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{errors}");
    assert!(errors.contains("topic no.such.topic is not there: name it by --events-topic"), "{errors}");
    let mut command = Command::new(env!("CARGO_BIN_EXE_pod-monitor"));
    let output = command.args(["events", "--kafka", "127.0.0.1:1"]).output().unwrap();
    let errors = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{errors}");
    assert!(errors.contains("ask kafka about topic pod-monitor.events"), "{errors}");
}
