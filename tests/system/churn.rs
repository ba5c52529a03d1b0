//! kill -9 at random moments during a churn of short pods: the history equals that of a monitor that nobody disturbed.
//!
//! Both monitors watch the same pods at the same time, each as an installation of its own with its own topics. The ids
//! of events derive from what happened to the pods alone, so both histories must be the same.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
    time::{Duration, Instant},
};

use serde_json::Value;
use testkit::{
    clients::{
        cluster::Cluster,
        fault::{Random, kill_again_and_again},
        history::Record,
        lives::{complete, faults, live},
        monitor::Launch,
        until,
    },
    stack::Endpoints,
};
use tokio::sync::watch;

/// Short pods altogether.
const PODS: usize = 200;
/// At the same time, about what the node can start on two cores.
const AT_ONCE: usize = 16;
/// How long a killed monitor lives: from within its start to well within its work.
const LIFE: (Duration, Duration) = (Duration::from_millis(150), Duration::from_millis(2500));

#[tokio::test(flavor = "multi_thread")]
async fn killed_at_random_moments_it_tells_the_same_story() {
    let endpoints = Endpoints::from_env().unwrap();
    let program = Path::new(env!("CARGO_BIN_EXE_pod-monitor"));
    let app = format!("churn-{}", std::process::id());
    let cluster = Cluster::connect(&endpoints, &app).await.unwrap();
    cluster.ready_for_pods().await.unwrap();
    let launch = |name: &str| {
        let one = Launch::new(program, &endpoints, &app, &app);
        let topics = [format!("{name}-{app}.events"), format!("{name}-{app}.changelog"), format!("{name}-{app}")];
        let own = ["--events-topic", &topics[0], "--changelog-topic", &topics[1], "--lease-name", &topics[2]];
        let mut one = replace(one, &own);
        one.log = endpoints.run_dir.join(format!("{name}-{app}.log"));
        (one, topics[0].clone())
    };
    let ((quiet, quiet_topic), (killed, killed_topic)) = (launch("quiet"), launch("killed"));
    let mut undisturbed = quiet.start().unwrap();
    undisturbed.ready(Duration::from_secs(20)).await.unwrap();

    // Its first position is in the changelog: before, nobody could know of pods that come and go while it is down.
    let mut first = killed.start().unwrap();
    first.ready(Duration::from_secs(20)).await.unwrap();
    let committed = "pod_monitor_transactions_total{verdict=\"committed\"}";
    let look = async || Ok(first.metric(committed).is_ok_and(|count| count >= 1.0).then_some(()));
    until(Duration::from_secs(20), "the first position is committed", look).await.unwrap();
    first.kill().unwrap();

    let (stop, stopped) = watch::channel(false);
    let random = Random::from_variable("CHURN_SEED").unwrap();
    let killer = kill_again_and_again(&killed, LIFE, random, stopped);
    let begun = Instant::now();
    let live = async {
        let truth = live(&cluster, &app, 0..PODS, AT_ONCE).await;
        stop.send_replace(true);
        truth
    };
    let (kills, truth) = tokio::join!(killer, live);
    let (kills, truth) = (kills.unwrap(), truth.unwrap());
    println!("{PODS} pods lived within {:?}; {kills} kills", begun.elapsed());
    assert!(kills >= 20, "only {kills} kills: the test would show nothing");
    let log = std::fs::read_to_string(&killed.log).unwrap();
    let took_over = log.matches("\"shard taken over\"").count();
    println!("{took_over} of them had taken over");
    assert!(took_over >= 10, "only {took_over} had taken over: the survivor alone would have told the rest");

    // Left alone, it must catch up with everything.
    let mut survivor = killed.start().unwrap();
    survivor.ready(Duration::from_secs(30)).await.unwrap();
    let quiet_history = complete(&endpoints, &quiet_topic, &truth).await.unwrap();
    let killed_history = complete(&endpoints, &killed_topic, &truth).await.unwrap();
    undisturbed.stop(Duration::from_secs(15)).await.unwrap();
    survivor.stop(Duration::from_secs(15)).await.unwrap();

    for (run, history) in [("quiet", &quiet_history), ("killed", &killed_history)] {
        let wrong = faults(&truth, history);
        assert!(wrong.is_empty(), "the {run} run:\n{}", wrong.join("\n"));
    }
    for launch in [&quiet, &killed] {
        println!("{}", launch.verify().unwrap());
    }
    let differing = differences(&stories(&quiet_history), &stories(&killed_history));
    assert!(differing.is_empty(), "ids, order and verdicts per execution differ:\n{}", differing.join("\n"));
    cluster.remove_namespace().await.unwrap();
}

/// `--flag value` pairs take the place of those that are there.
fn replace(mut launch: Launch, own: &[&str]) -> Launch {
    for pair in own.chunks(2) {
        let at = launch.arguments.iter().position(|a| a == pair[0]).unwrap();
        launch.arguments[at + 1] = pair[1].to_owned();
    }
    launch
}

/// What is asked for at a moment, and may be answered differently at another one: which logs are left, what others know
/// of a failure by then and whether there is budget to ask them (docs/evidence.md).
const MOMENTARY: [&str; 7] =
    ["observed_at", "container_statuses", "logs", "stdout", "stderr", "resource_usage", "kubernetes_events"];

/// Per execution: what was told, in order, without what may differ.
fn stories(records: &[Record]) -> BTreeMap<String, Vec<Value>> {
    let mut stories: BTreeMap<String, Vec<Value>> = BTreeMap::new();
    for record in records {
        let mut event = record.value.clone();
        let fields = event.as_object_mut().unwrap();
        for momentary in MOMENTARY {
            fields.remove(momentary);
        }
        stories.entry(record.key.clone()).or_default().push(event);
    }
    stories
}

/// Fields that differ, one line each: execution, event, field, undisturbed value, killed value.
fn differences(quiet: &BTreeMap<String, Vec<Value>>, killed: &BTreeMap<String, Vec<Value>>) -> Vec<String> {
    let mut lines = Vec::new();
    for (id, story) in quiet {
        let other = killed.get(id).map(Vec::as_slice).unwrap_or_default();
        if story.len() != other.len() {
            lines.push(format!("{id}: {} events, killed {}", story.len(), other.len()));
        }
        for (a, b) in story.iter().zip(other) {
            let (a, b) = (a.as_object().unwrap(), b.as_object().unwrap());
            let keys: BTreeSet<&String> = a.keys().chain(b.keys()).collect();
            for key in keys.into_iter().filter(|key| a.get(*key) != b.get(*key)) {
                lines.push(format!("{id} {} {key}: {:?}, killed {:?}", a["event_type"], a.get(key), b.get(key)));
            }
        }
    }
    lines.extend(killed.keys().filter(|id| !quiet.contains_key(*id)).map(|id| format!("{id}: only when killed")));
    lines
}
