//! `pod-monitor check` against a real Kafka, without a cluster: what is wrong there does not hide what is wrong here.

use std::{
    process::{Command, Output},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use testkit::{
    clients::{
        access::{Operation, Resource, Right},
        history::create_topic,
        monitor::Launch,
        proxy::Proxy,
    },
    stack::Endpoints,
};

use crate::{
    bench::{Bench, expect},
    kafka::lasts,
    secure::{Guarded, Way, topics_of},
    security::{allow, process},
    support::*,
};

/// What a check says: its exit code, and findings of one kind, each with its verdict.
pub(crate) struct Checked {
    code: Option<i32>,
    pub(crate) all: Vec<Value>,
}

impl Checked {
    pub(crate) fn of(launch: &Launch, more: &[&str]) -> Result<Self> {
        let mut command = Command::new(&launch.program);
        command.arg("check").args(&launch.arguments).args(["--output", "json"]).args(more);
        // There is no cluster: each of these has to fail for that alone, or for what else is wrong.
        let Output { status, stdout, stderr } = command.env("KUBECONFIG", "absent.yaml").output()?;
        let said: Value = serde_json::from_slice(&stdout)
            .with_context(|| format!("{}{}", String::from_utf8_lossy(&stdout), String::from_utf8_lossy(&stderr)))?;
        Ok(Self { code: status.code(), all: said["checks"].as_array().cloned().unwrap_or_default() })
    }

    pub(crate) fn find(&self, check: &str, part: &str) -> Vec<&Value> {
        let is =
            |found: &&Value| found["check"] == check && found["said"].as_str().is_some_and(|said| said.contains(part));
        self.all.iter().filter(is).collect()
    }

    fn failed(&self) -> Vec<&Value> {
        self.all.iter().filter(|found| found["verdict"] == "failed").collect()
    }
}

fn endpoints() -> Endpoints {
    Endpoints::from_env().unwrap()
}

/// Its flags as those of a monitor of this place.
fn launch(guarded: &Guarded, bench: &Bench) -> Launch {
    guarded.launch(&bench.launch)
}

#[tokio::test(flavor = "multi_thread")]
async fn with_the_documented_rights_all_of_kafka_is_well_and_each_that_is_missing_is_named() -> Result<()> {
    let (bench, guarded) = process("check-rights", Way::Password).await?;
    let (events, changelog) = topics_of(&bench.app);
    let id = format!("secure.{}.{}.g1.0", bench.cluster.namespace(), bench.app);
    let launch = launch(&guarded, &bench);
    let well = Checked::of(&launch, &[])?;
    ensure!(well.code == Some(1), "there is no cluster");
    ensure!(well.failed().len() == 1 && well.failed()[0]["check"] == "api-server", "{:#?}", well.all);
    for (check, part) in [
        ("kafka", "answers"),
        ("topic", events.as_str()),
        ("topic", changelog.as_str()),
        ("kafka-rights", "write to"),
        ("kafka-rights", id.as_str()),
        ("changelog", "is new"),
    ] {
        ensure!(well.find(check, part).iter().any(|found| found["verdict"] == "ok"), "{check} {part}: {:#?}", well.all);
    }
    // Nothing was written by any of that.
    ensure!(written(&events).is_empty() && written(&changelog).is_empty(), "it writes nothing");

    let mut access = guarded.access();
    let topic = |operation, name: &str| Right::new(operation, Resource::Topic, name);
    // Whoever may do anything with a topic sees it, but for writing: Describe stands in for what that implies.
    access.allow(&bench.app, &[topic(Operation::Describe, &events), topic(Operation::Describe, &changelog)])?;
    let rights = [
        (topic(Operation::Write, &events), "kafka-rights", format!("--operation Write --topic {events}")),
        (topic(Operation::DescribeConfigs, &events), "topic", format!("--operation DescribeConfigs --topic {events}")),
        (topic(Operation::Write, &changelog), "kafka-rights", format!("--operation Write --topic {changelog}")),
        (topic(Operation::Read, &changelog), "changelog", format!("--operation Read --topic {changelog}")),
        (
            Right::new(Operation::Write, Resource::TransactionalId, &id),
            "kafka-rights",
            format!("--operation Write --transactional-id {id}"),
        ),
    ];
    for (right, check, mend) in rights {
        access.take_away(&bench.app, Some(&right))?;
        let began = Instant::now();
        // A right that is taken away is gone a moment later.
        loop {
            let checked = Checked::of(&launch, &[])?;
            let named = checked.find(check, "").into_iter().filter(|found| found["verdict"] == "failed");
            if named.into_iter().any(|found| found.to_string().contains(&mend)) {
                ensure!(checked.failed().len() == 2, "that, and the cluster: {:#?}", checked.failed());
                break;
            }
            ensure!(began.elapsed() < LIMIT, "without {right:?} it does not name {mend}: {:#?}", checked.all);
        }
        access.allow(&bench.app, std::slice::from_ref(&right))?;
    }
    bench.close().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leader_is_not_disturbed_and_its_changelog_is_known() -> Result<()> {
    let (bench, guarded) = process("check-leader", Way::Password).await?;
    let launch = launch(&guarded, &bench);
    let mut monitor = launch.start()?;
    monitor.leading(LIMIT).await?;
    let mut history = bench.history()?;
    let term = |monitor: &testkit::clients::monitor::Monitor| -> Result<Value> {
        let status: Value = serde_json::from_str(&monitor.get("/api/status")?.1)?;
        Ok(status["shards"][0]["term"].clone())
    };
    let before = term(&monitor)?;
    let uid = bench.running("a").await?;
    expect(&mut history, &uid, &["pod_scheduled", "execution_running"]).await?;
    let checked = Checked::of(&launch, &[])?;
    let known = checked.find("changelog", "is this installation's, and remembers 1 pods");
    ensure!(known.len() == 1 && checked.failed().len() == 1, "{:#?}", checked.all);
    bench.end("a", 0).await?;
    expect(&mut history, &uid, &["pod_scheduled", "execution_running", "execution_completed"]).await?;
    ensure!(term(&monitor)? == before && monitor.is_leading(), "it leads on, by the same take-over");
    ensure!(
        bench.count("fenced: a newer producer exists, or our transaction timed out")? == 0
            && bench.count("lease acquired")? == 1,
        "nobody fenced it"
    );
    // Another installation's settings.
    for (flag, value, part) in [
        ("--lease-name", "another", "lease-name is"),
        ("--shard-by", "execution", "shard-by is"),
        ("--cluster-id", "elsewhere", "cluster-id is"),
    ] {
        let other = Checked::of(&launch.clone().set(flag, value), &[])?;
        let named = other.find("changelog", part);
        ensure!(named.iter().any(|found| found["verdict"] == "failed"), "{flag}: {:#?}", other.all);
    }
    let more = Checked::of(&launch.clone().set("--shards", "2"), &[])?;
    ensure!(more.find("topic", "but there are 2 shards").len() == 1, "{:#?}", more.all);
    monitor.stop(LIMIT).await?;
    bench.close().await
}

#[tokio::test(flavor = "multi_thread")]
async fn topics_that_are_missing_or_wrong_are_named_one_by_one() -> Result<()> {
    let bench = Bench::new("check-topics").await?;
    let mut launch = bench.launch.clone().set("--cluster-id", "c");
    let (events, changelog) = topics_of(&bench.app);
    let made = Checked::of(&launch, &[])?;
    ensure!(made.find("topic", "is not there, and may be made").len() == 2, "{:#?}", made.all);
    launch.arguments.retain(|argument| argument != "--create-topics");
    let missing = Checked::of(&launch, &[])?;
    for topic in [&events, &changelog] {
        let found = missing.find("topic", &format!("topic {topic} does not exist"));
        ensure!(found.len() == 1 && found[0]["verdict"] == "failed", "{topic}: {:#?}", missing.all);
    }
    ensure!(seen_topics(&events).is_empty(), "it makes nothing");
    create_topic(&bench.endpoints.kafka, &events, 1, &[("cleanup.policy", "compact")]).await?;
    create_topic(&bench.endpoints.kafka, &changelog, 1, &[("cleanup.policy", "delete")]).await?;
    let wrong = Checked::of(&launch, &[])?;
    for (topic, part) in [(&events, "compaction would drop events"), (&changelog, "must be compacted")] {
        let found = wrong.find("topic", part);
        ensure!(
            found.len() == 1 && found[0]["said"].as_str().is_some_and(|said| said.contains(topic.as_str())),
            "{:#?}",
            wrong.all
        );
        ensure!(
            found[0]["mend"].as_str().is_some_and(|mend| mend.starts_with("kafka-configs.sh ")),
            "{:#?}",
            wrong.all
        );
    }
    bench.close().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_that_is_busy_for_some_seconds_is_asked_again_and_one_that_stays_silent_is_not_reached() -> Result<()>
{
    let bench = Bench::new("check-busy").await?;
    // Connections are taken, and nothing is answered: longer than one request may take.
    let way = Proxy::open("127.0.0.1:0", &bench.endpoints.kafka)?;
    way.cut();
    let launch = bench.launch.clone().set("--cluster-id", "c").set("--kafka", &way.address.to_string());
    let ask = |launch: Launch| tokio::task::spawn_blocking(move || Checked::of(&launch, &[]));
    let busy = ask(launch.clone());
    lasts(Duration::from_secs(11)).await;
    way.heal();
    let busy = busy.await??;
    ensure!(busy.find("kafka", "answers").len() == 1 && busy.failed().len() == 1, "{:#?}", busy.all);
    way.cut();
    let silent = ask(launch).await??;
    let found = silent.find("kafka", "does not answer");
    ensure!(found.len() == 1 && found[0].to_string().contains("whether --kafka names a broker"), "{:#?}", silent.all);
    bench.close().await
}

fn seen_topics(name: &str) -> Vec<String> {
    use rdkafka::consumer::{BaseConsumer, Consumer as _};
    let consumer: BaseConsumer = rdkafka::ClientConfig::new().set("bootstrap.servers", servers()).create().unwrap();
    let metadata = consumer.fetch_metadata(None, LIMIT).unwrap();
    metadata.topics().iter().map(|topic| topic.name().to_owned()).filter(|topic| topic == name).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn who_is_not_let_in_and_what_is_away_is_said_with_the_mend() -> Result<()> {
    let bench = Bench::new("check-away").await?;
    let mut guarded = Guarded::new(endpoints(), Way::Password, &bench.app);
    allow(&bench, &guarded, &bench.app)?;
    guarded.mount_password("not the password");
    let refused = Checked::of(&launch(&guarded, &bench), &[])?;
    let found = refused.find("kafka", "to mend it: give sasl.username, sasl.password");
    ensure!(
        found.len() == 1 && !refused.all.iter().any(|found| found.to_string().contains("not the password")),
        "{:#?}",
        refused.all
    );
    let away = Checked::of(&bench.launch.clone().set("--kafka", "127.0.0.1:1"), &[])?;
    ensure!(away.find("kafka", "does not answer").len() == 1 && away.failed().len() == 2, "{:#?}", away.all);
    bench.close().await
}
