//! What is lost of Kafka, or set back, or changed by hand: what the monitor says, what it tells again (with the same ids),
//! and what nobody can tell any more. docs/operating.md says the same to operators.

use std::{
    collections::{BTreeMap, BTreeSet},
    process::{Command, Stdio},
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use rdkafka::{
    ClientConfig,
    admin::{AdminClient, AdminOptions, NewPartitions},
    client::DefaultClientContext,
    producer::{BaseProducer, BaseRecord, Producer},
};
use testkit::clients::{
    history::{History, Record, create_topic},
    monitor::{Launch, Monitor},
    until,
};

use crate::support::{
    Bench, LIMIT,
    changelog::{newest, plant},
    expect, faultless, ready, told, truth, unready,
};

const COMPLETED: [&str; 4] = ["pod_scheduled", "execution_running", "execution_completed", "pod_terminated"];
const ADMIN_MAX: Duration = Duration::from_secs(10);

fn changelog(bench: &Bench) -> String {
    format!("{}.changelog", bench.app)
}

fn events(bench: &Bench) -> String {
    format!("{}.events", bench.app)
}

fn admin(bench: &Bench) -> Result<AdminClient<DefaultClientContext>> {
    Ok(ClientConfig::new().set("bootstrap.servers", &bench.endpoints.kafka).create()?)
}

fn patient() -> AdminOptions {
    AdminOptions::new().operation_timeout(Some(ADMIN_MAX)).request_timeout(Some(ADMIN_MAX))
}

/// Deletes a topic, and waits until the broker has forgotten it.
async fn delete_topic(bench: &Bench, topic: &str) -> Result<()> {
    let admin = admin(bench)?;
    for result in admin.delete_topics(&[topic], &patient()).await? {
        result.map_err(|(topic, code)| anyhow::anyhow!("delete topic {topic}: {code}"))?;
    }
    let look = async || {
        let metadata = admin.inner().fetch_metadata(None, ADMIN_MAX)?;
        Ok(metadata.topics().iter().all(|known| known.name() != topic).then_some(()))
    };
    until(LIMIT, "the topic is gone", look).await
}

/// An empty changelog as the monitor makes it.
async fn make_changelog(bench: &Bench) -> Result<()> {
    create_topic(&bench.endpoints.kafka, &changelog(bench), 1, &[("cleanup.policy", "compact")]).await
}

async fn raise_partitions(bench: &Bench, topic: &str, count: usize) -> Result<()> {
    for result in admin(bench)?.create_partitions(&[NewPartitions::new(topic, count)], &patient()).await? {
        result.map_err(|(topic, code)| anyhow::anyhow!("raise partitions of {topic}: {code}"))?;
    }
    Ok(())
}

/// The newest records of the only shard.
fn shard(bench: &Bench) -> BTreeMap<String, Vec<u8>> {
    newest(&bench.endpoints.kafka, &changelog(bench)).remove(0)
}

/// Writes records as a backup's tool would.
fn write_back(bench: &Bench, records: &BTreeMap<String, Vec<u8>>) -> Result<()> {
    for (key, value) in records {
        plant(&bench.endpoints.kafka, &changelog(bench), 0, key, std::str::from_utf8(value)?);
    }
    Ok(())
}

/// Writes a tombstone.
fn bury(bench: &Bench, key: &str) -> Result<()> {
    let producer: BaseProducer = ClientConfig::new().set("bootstrap.servers", &bench.endpoints.kafka).create()?;
    let topic = changelog(bench);
    let record = BaseRecord::<str, [u8]>::to(&topic).partition(0).key(key);
    producer.send(record).map_err(|(error, _)| error)?;
    Ok(producer.flush(ADMIN_MAX)?)
}

fn without_create(launch: &Launch) -> Launch {
    let mut launch = launch.clone();
    launch.arguments.retain(|argument| argument != "--create-topics");
    launch
}

/// It ends with this exit code; gives what it said.
async fn ends(bench: &Bench, mut monitor: Monitor, code: i32) -> Result<String> {
    let status = monitor.ended(LIMIT).await?;
    ensure!(status.code() == Some(code), "{status}: {}", monitor.log_end());
    let said = bench.log()?.into_iter().rfind(|line| line["message"] == "cannot go on").context("it says why")?;
    Ok(said["error"].as_str().unwrap_or_default().to_owned())
}

/// Waits until a pod has this many events.
async fn counts(history: &mut History, uid: &str, count: usize) -> Result<()> {
    let enough =
        |records: &[Record]| (records.iter().filter(|r| r.text("pod_uid") == uid).count() >= count).then_some(());
    let seen = history.until(LIMIT, &format!("{count} events of pod {uid}"), enough).await;
    seen.with_context(|| format!("told so far: {:?}", told(history, uid)))
}

/// What was told of a pod, each event once: number, type, id. Fails where a second telling differs from the first.
fn told_alike(history: &History, uid: &str) -> Result<Vec<(u64, String)>> {
    let mut by_id: BTreeMap<String, BTreeSet<(u64, String)>> = BTreeMap::new();
    for record in history.of_pod(uid) {
        let number = record.value["sequence"].as_u64().unwrap_or_default();
        let event = (number, record.event_type().to_owned());
        by_id.entry(record.text("event_id").to_owned()).or_default().insert(event);
    }
    ensure!(by_id.values().all(|told| told.len() == 1), "one id, two events: {by_id:#?}");
    let mut all: Vec<_> = by_id.into_values().flatten().collect();
    all.sort();
    Ok(all)
}

/// Each of these events was told, under one id each, however often.
fn alike(history: &History, uid: &str, types: &[&str]) -> Result<()> {
    let expected: Vec<_> = (1..).zip(types).map(|(number, name)| (number, (*name).to_owned())).collect();
    let found = told_alike(history, uid)?;
    ensure!(found == expected, "pod {uid}: {found:?} instead of {expected:?}");
    Ok(())
}

#[tokio::test]
async fn a_changelog_lost_while_nobody_ran_is_told_again_with_the_same_ids() -> Result<()> {
    let bench = Bench::new("lost-changelog").await?;
    bench.empty_node()?;
    let monitor = bench.monitor(&[]).await?;
    let mut history = bench.history()?;
    let (ended, runs) = (bench.running_there("ended").await?, bench.running_there("runs").await?);
    let (gone, goes) = (bench.running_there("gone").await?, bench.running_there("goes").await?);
    for id in ["ended", "gone"] {
        bench.end(id, 0).await?;
    }
    for uid in [&ended, &gone] {
        expect(&mut history, uid, &COMPLETED[..3]).await?;
    }
    bench.delete("gone").await?;
    expect(&mut history, &gone, &COMPLETED).await?;
    for uid in [&runs, &goes] {
        expect(&mut history, uid, &COMPLETED[..2]).await?;
    }
    monitor.stop(LIMIT).await?;
    delete_topic(&bench, &changelog(&bench)).await?;
    bench.delete("goes").await?;

    let said = ends(&bench, without_create(&bench.launch).start()?, 2).await?;
    ensure!(said.contains(&format!("topic {} does not exist", changelog(&bench))), "{said}");
    ensure!(said.contains("--create-topics") && said.contains("cleanup.policy=compact"), "{said}");
    // Whoever lets it be made takes the installation for new.
    let monitor = bench.monitor(&[]).await?;
    counts(&mut history, &ended, 6).await?;
    counts(&mut history, &runs, 4).await?;
    bench.end("runs", 0).await?;
    counts(&mut history, &runs, 5).await?;
    bench.flush(&mut history, "flush").await?;
    alike(&history, &ended, &COMPLETED[..3])?;
    alike(&history, &runs, &COMPLETED[..3])?;
    ensure!(history.of_pod(&ended).len() == 6 && history.of_pod(&runs).len() == 5, "twice, and the new one once");
    ensure!(told(&history, &gone) == COMPLETED, "its pod is gone: there is nothing to tell it by");
    ensure!(told(&history, &goes) == COMPLETED[..2], "that it went was known to the lost changelog only");
    monitor.stop(LIMIT).await?;
    let report = bench.launch.verify().expect_err("five events stand there twice").to_string();
    ensure!(report.contains("doubled 5"), "{report}");
    bench.close().await
}

#[tokio::test]
async fn a_changelog_set_back_to_a_backup_tells_again_what_came_after_it_and_loses_nothing() -> Result<()> {
    let bench = Bench::new("old-changelog").await?;
    bench.empty_node()?;
    let monitor = bench.monitor(&[]).await?;
    let mut history = bench.history()?;
    let (runs, ended) = (bench.running_there("runs").await?, bench.running_there("ended").await?);
    for uid in [&runs, &ended] {
        expect(&mut history, uid, &COMPLETED[..2]).await?;
    }
    let backup = shard(&bench);
    bench.end("ended", 0).await?;
    let late = bench.running_there("late").await?;
    expect(&mut history, &ended, &COMPLETED[..3]).await?;
    expect(&mut history, &late, &COMPLETED[..2]).await?;
    monitor.stop(LIMIT).await?;
    delete_topic(&bench, &changelog(&bench)).await?;
    make_changelog(&bench).await?;
    write_back(&bench, &backup)?;
    bench.end("runs", 0).await?;

    let monitor = bench.monitor(&[]).await?;
    counts(&mut history, &ended, 4).await?;
    counts(&mut history, &late, 4).await?;
    expect(&mut history, &runs, &COMPLETED[..3]).await?;
    bench.delete("ended").await?;
    counts(&mut history, &ended, 5).await?;
    bench.flush(&mut history, "flush").await?;
    expect(&mut history, &runs, &COMPLETED[..3]).await?;
    alike(&history, &ended, &COMPLETED)?;
    alike(&history, &late, &COMPLETED[..2])?;
    ensure!(history.of_pod(&ended).len() == 5 && history.of_pod(&late).len() == 4, "what came after the backup, twice");
    monitor.stop(LIMIT).await?;
    bench.close().await
}

#[tokio::test]
async fn partitions_added_to_the_changelog_are_refused_until_they_are_taken_away_by_hand() -> Result<()> {
    let bench = Bench::new("more-shards").await?;
    bench.empty_node()?;
    let monitor = bench.monitor(&[]).await?;
    let mut history = bench.history()?;
    let (runs, ended) = (bench.running_there("runs").await?, bench.running_there("ended").await?);
    bench.end("ended", 0).await?;
    expect(&mut history, &ended, &COMPLETED[..3]).await?;
    expect(&mut history, &runs, &COMPLETED[..2]).await?;
    raise_partitions(&bench, &changelog(&bench), 2).await?;
    // Who runs goes on.
    let first = bench.flush(&mut history, "first").await?;
    monitor.stop(LIMIT).await?;

    let said = ends(&bench, bench.launch.start()?, 2).await?;
    ensure!(said.contains("it has 2 partitions, but there are 1 shards"), "{said}");
    let said = ends(&bench, bench.launch.clone().with(&["--shards", "2"]).start()?, 2).await?;
    ensure!(said.contains("shards is \"2\" here, but \"1\" in the changelog"), "{said}");
    let mut reshard = Command::new(&bench.launch.program);
    reshard.args(["reshard", "--create-topics", "--shards", "2"]).stdin(Stdio::null());
    for flag in ["--kafka", "--events-topic", "--changelog-topic", "--lease-name", "--lease-namespace"] {
        reshard.args([flag, bench.launch.argument(flag).context("the launch sets it")?]);
    }
    reshard.envs(bench.launch.variables.iter().map(|(name, value)| (name, value)));
    let output = reshard.output()?;
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    ensure!(output.status.code() == Some(2) && said.contains("not ours to reshard"), "{}: {said}", output.status);

    let records = shard(&bench);
    delete_topic(&bench, &changelog(&bench)).await?;
    make_changelog(&bench).await?;
    write_back(&bench, &records)?;
    bench.end("runs", 0).await?;
    let monitor = bench.monitor(&[]).await?;
    expect(&mut history, &runs, &COMPLETED[..3]).await?;
    let last = bench.flush(&mut history, "last").await?;
    faultless(&history, &[truth(&ended, &COMPLETED[..3]), truth(&runs, &COMPLETED[..3]), first, last])?;
    monitor.stop(LIMIT).await?;
    bench.close().await
}

#[tokio::test]
async fn partitions_added_to_the_events_lose_and_double_nothing() -> Result<()> {
    let bench = Bench::new("more-partitions").await?;
    bench.empty_node()?;
    let monitor = bench.monitor(&[]).await?;
    let mut history = bench.history()?;
    let names: Vec<String> = (0..12).map(|n| format!("n{n}")).collect();
    let mut uids = Vec::new();
    for name in &names {
        uids.push(bench.running_there(name).await?);
    }
    for uid in &uids {
        expect(&mut history, uid, &COMPLETED[..2]).await?;
    }
    raise_partitions(&bench, &events(&bench), 3).await?;
    for name in &names[..6] {
        bench.end(name, 0).await?;
    }
    // Begun anew, it knows of the new partitions at once.
    monitor.stop(LIMIT).await?;
    let monitor = bench.monitor(&[]).await?;
    for name in &names[6..] {
        bench.end(name, 0).await?;
    }
    let mut all = bench.history()?;
    let enough = |records: &[Record]| (records.iter().filter(|r| r.is_end()).count() >= names.len()).then_some(());
    all.until(LIMIT, "every end", enough).await?;
    for uid in &uids {
        alike(&all, uid, &COMPLETED[..3])?;
        ensure!(all.of_pod(uid).len() == 3, "each once");
    }
    let used: BTreeSet<i32> = all.records.iter().map(|record| record.partition).collect();
    ensure!(used.len() == 3, "the new ones are used: {used:?}");
    monitor.stop(LIMIT).await?;
    bench.close().await
}

#[tokio::test]
async fn an_events_topic_deleted_under_a_leader_is_waited_for() -> Result<()> {
    let bench = Bench::new("no-events").await?;
    bench.empty_node()?;
    let mut monitor = bench.monitor(&[]).await?;
    let runs = bench.running_there("runs").await?;
    expect(&mut bench.history()?, &runs, &COMPLETED[..2]).await?;
    delete_topic(&bench, &events(&bench)).await?;
    bench.end("runs", 0).await?;
    unready(&monitor, &["[-]kafka"]).await?;
    // Which of the two Kafka says depends on what the producer had told before.
    let said = bench.log_line("transaction not committed, taking over anew").await?.to_string();
    ensure!(said.contains("Unknown topic or partition") || said.contains("MessageTimedOut"), "{said}");
    println!("says: {said}");
    ensure!(monitor.get("/livez")?.0 == 200, "waiting is no reason to be killed");

    create_topic(&bench.endpoints.kafka, &events(&bench), 1, &[]).await?;
    let mut history = bench.history()?;
    counts(&mut history, &runs, 1).await?;
    ready(&mut monitor).await?;
    let flush = bench.flush(&mut history, "flush").await?;
    ensure!(told(&history, &runs) == COMPLETED[2..3], "what is told is told: {:?}", told(&history, &runs));
    let later: Vec<Record> = history.of_pod(&flush.uid).into_iter().cloned().collect();
    ensure!(later.iter().map(Record::event_type).eq(flush.expected), "each once: {later:#?}");
    ensure!(monitor.stop(LIMIT).await?.code() == Some(0), "asked to stop");
    let report = bench.launch.verify().expect_err("two events are lost with the topic").to_string();
    ensure!(report.contains("lost: sequence 1, 2 of 3"), "{report}");
    bench.close().await
}

#[tokio::test]
async fn a_changelog_deleted_under_a_leader_is_told_again_once_it_is_made_anew() -> Result<()> {
    let bench = Bench::new("no-changelog").await?;
    bench.empty_node()?;
    let mut monitor = bench.monitor(&[]).await?;
    let mut history = bench.history()?;
    let runs = bench.running_there("runs").await?;
    expect(&mut history, &runs, &COMPLETED[..2]).await?;
    let mut standby = bench.launch.clone().relocated()?.start()?;
    standby.ready(LIMIT).await?;
    delete_topic(&bench, &changelog(&bench)).await?;
    bench.end("runs", 0).await?;
    // Whoever leads by then cannot commit, and whoever stands by cannot read on.
    let look = async || {
        let said = [monitor.get("/readyz?verbose")?, standby.get("/readyz?verbose")?];
        let says = |words: &str| said.iter().any(|(code, text)| *code == 503 && text.contains(words));
        Ok((says("transaction of shard 0 was aborted") && says("[-]kafka: read the changelog")).then_some(()))
    };
    until(LIMIT, "both say what they lack", look).await?;
    // Who is started now says what is missing.
    let mut launch = without_create(&bench.launch).relocated()?;
    launch.log.set_extension("third");
    let mut third = launch.start()?;
    ensure!(third.ended(LIMIT).await?.code() == Some(2), "{}", third.log_end());
    ensure!(third.log_end().contains("does not exist"), "{}", third.log_end());
    ensure!(told(&history, &runs) == COMPLETED[..2], "nothing is told meanwhile");
    for replica in [&monitor, &standby] {
        ensure!(replica.get("/livez")?.0 == 200, "waiting is no reason to be killed");
    }

    make_changelog(&bench).await?;
    counts(&mut history, &runs, 5).await?;
    for replica in [&mut monitor, &mut standby] {
        ready(replica).await?;
    }
    bench.flush(&mut history, "flush").await?;
    alike(&history, &runs, &COMPLETED[..3])?;
    ensure!(history.of_pod(&runs).len() == 5, "two twice, and the end once: {:?}", told(&history, &runs));
    ensure!(shard(&bench).contains_key("meta/identity"), "it is claimed again");
    ensure!(standby.stop(LIMIT).await?.code() == Some(0), "asked to stop");
    ensure!(monitor.stop(LIMIT).await?.code() == Some(0), "asked to stop");
    bench.close().await
}

#[tokio::test]
async fn a_record_that_cannot_be_read_silences_its_pod_alone_until_it_is_written_back_or_buried() -> Result<()> {
    let bench = Bench::new("garbled-record").await?;
    bench.empty_node()?;
    let monitor = bench.monitor(&[]).await?;
    let mut history = bench.history()?;
    let (a, b) = (bench.running_there("a").await?, bench.running_there("b").await?);
    for uid in [&a, &b] {
        expect(&mut history, uid, &COMPLETED[..2]).await?;
    }
    monitor.stop(LIMIT).await?;
    let (key, kept) = (format!("pod/{a}"), shard(&bench));
    let garble = || plant(&bench.endpoints.kafka, &changelog(&bench), 0, &key, "no json");
    garble();
    let monitor = bench.monitor(&[]).await?;
    let said = bench.log_line("changelog record cannot be read: nothing more is told of its pod").await?;
    ensure!(said["level"] == "ERROR" && said.to_string().contains(&a), "{said}");
    for id in ["a", "b"] {
        bench.end(id, 0).await?;
    }
    expect(&mut history, &b, &COMPLETED[..3]).await?;
    bench.flush(&mut history, "flush").await?;
    ensure!(told(&history, &a) == COMPLETED[..2], "nobody knows what was told: {:?}", told(&history, &a));
    monitor.stop(LIMIT).await?;

    plant(&bench.endpoints.kafka, &changelog(&bench), 0, &key, std::str::from_utf8(&kept[&key])?);
    let monitor = bench.monitor(&[]).await?;
    expect(&mut history, &a, &COMPLETED[..3]).await?;
    monitor.stop(LIMIT).await?;

    garble();
    bury(&bench, &key)?;
    let monitor = bench.monitor(&[]).await?;
    counts(&mut history, &a, 6).await?;
    alike(&history, &a, &COMPLETED[..3])?;
    ensure!(told(&history, &b) == COMPLETED[..3], "it concerns no other");
    monitor.stop(LIMIT).await?;
    bench.close().await
}
