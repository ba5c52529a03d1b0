//! A churn of short real pods, what a consumer must see of each, and whether it did.

use std::{
    collections::{HashMap, HashSet},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use futures::{StreamExt, stream};
use serde_json::Value;

use super::{
    checker::{Truth, judge},
    cluster::{Cluster, execution},
    history::{History, Record},
    until,
};
use crate::stack::Endpoints;

/// Longest life of a pod, on a machine at its limit.
const LIFE_MAX: Duration = Duration::from_secs(120);
/// How long servers may be away that are killed on purpose.
const AWAY_MAX: Duration = Duration::from_secs(60);
/// How long to wait for the last events.
const COMPLETE_MAX: Duration = Duration::from_secs(60);
/// A doubled event comes late or not at all: how long to listen for it.
const AFTERWARDS: Duration = Duration::from_secs(1);

/// How a pod's life goes on after its script has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum After {
    Kept,
    /// Deleted as soon as it has ended, whoever has seen that.
    Deleted,
    /// Deleted with grace period 0.
    Forced,
}

/// A life that was lived.
#[derive(Debug, Clone)]
pub struct Life {
    /// What a consumer must see of it.
    pub truth: Truth,
    number: usize,
    exit: i64,
    after: After,
    /// When it had ended and nothing had been deleted yet, and when its deletion was granted.
    pub ending: (Instant, Option<Instant>),
    /// Nobody saw its end: there is no exit code to be told.
    unseen: bool,
    /// What the node has kept of its output, where that is not what it printed.
    kept: Option<[String; 2]>,
}

/// All these pods live their lives, `at_once` at the same time.
///
/// # Errors
/// When the API server refuses something, or a pod does not end.
pub async fn live(
    cluster: &Cluster,
    app: &str,
    pods: impl Iterator<Item = usize>,
    at_once: usize,
) -> Result<Vec<Life>> {
    let lives = stream::iter(pods).map(|number| one(cluster, app, number));
    lives.buffer_unordered(at_once).collect::<Vec<_>>().await.into_iter().collect()
}

async fn one(cluster: &Cluster, app: &str, number: usize) -> Result<Life> {
    let exit = [0, 0, 3, 0, 42][number % 5];
    let after = [After::Kept, After::Kept, After::Deleted, After::Forced][number % 4];
    let script = format!("echo out-{number}; echo err-{number} >&2; exit {exit}");
    let id = format!("churn-{number}");
    let name = format!("exec-{id}");
    let uid =
        patiently(AWAY_MAX, "a pod is made", async || created(cluster, &name, execution(app, &id, &script)).await);
    let uid = uid.await?;
    let ended = async || {
        let pod = cluster.pod(&name).await?.with_context(|| format!("{name} is there until it is deleted"))?;
        let phase = pod["status"]["phase"].as_str().unwrap_or_default();
        ensure!(["Succeeded", "Failed"].contains(&phase), "{name} is {phase:?}");
        Ok(())
    };
    patiently(LIFE_MAX, "a pod ends", ended).await?;
    let (ended, mut deleted) = (Instant::now(), None);
    let end = if exit == 0 { "execution_completed" } else { "execution_failed" };
    let mut expected = vec!["pod_scheduled", "execution_running", end];
    if after != After::Kept {
        let delete = async || cluster.delete(&name, (after == After::Forced).then_some(0)).await;
        patiently(AWAY_MAX, "a pod is deleted", delete).await?;
        deleted = Some(Instant::now());
        expected.push("pod_terminated");
    }
    Ok(Life {
        truth: Truth { uid, expected },
        number,
        exit,
        after,
        ending: (ended, deleted),
        unseen: false,
        kept: None,
    })
}

/// Makes a pod and gives its UID; one that an answer was lost about is there already.
async fn created(cluster: &Cluster, name: &str, pod: Value) -> Result<String> {
    match cluster.create(pod).await {
        Ok(uid) => Ok(uid),
        Err(error) => {
            let there = cluster.pod(name).await?;
            let uid = there.and_then(|pod| pod["metadata"]["uid"].as_str().map(str::to_owned));
            uid.ok_or(error)
        }
    }
}

/// Asks again what is refused, since servers are killed on purpose; the error is the last one.
async fn patiently<T>(limit: Duration, what: &str, ask: impl AsyncFn() -> Result<T>) -> Result<T> {
    let mut last = None;
    let look = async || match ask().await {
        Ok(answer) => Ok(Some(answer)),
        Err(error) => {
            last = Some(error);
            Ok(None)
        }
    };
    let waited = until(limit, what, look).await;
    waited.map_err(|late| match last {
        Some(error) => error.context(late.to_string()),
        None => late,
    })
}

/// The history once every expected event is there.
///
/// # Errors
/// When that takes too long: with everything that is wrong until then.
pub async fn complete(endpoints: &Endpoints, topic: &str, lives: &[Life]) -> Result<Vec<Record>> {
    let mut history = History::open(&endpoints.kafka, &[topic])?;
    let look = async || {
        history.read(Duration::from_millis(50))?;
        Ok(all_are_over(lives, &history.records).then_some(()))
    };
    let waited = until(COMPLETE_MAX, "all events are visible", look).await;
    history.read(AFTERWARDS)?;
    waited.with_context(|| {
        let wrong = faults(lives, &history.records).join("\n");
        format!("{topic} has {} events of {} lives\n{wrong}", history.records.len(), lives.len())
    })?;
    Ok(history.records)
}

/// The end of each pod that has one.
fn ends(records: &[Record]) -> HashMap<&str, &Record> {
    records.iter().filter(|record| record.is_end()).map(|record| (record.text("pod_uid"), record)).collect()
}

/// Whether the last thing that is expected of each life is there: its end, or that it is gone.
fn all_are_over(lives: &[Life], records: &[Record]) -> bool {
    let over = |life: &Life, record: &Record| match life.after {
        After::Kept => record.is_end(),
        After::Deleted | After::Forced => record.event_type() == "pod_terminated",
    };
    let by_pod: HashMap<&str, &Life> = lives.iter().map(|life| (life.truth.uid.as_str(), life)).collect();
    let told =
        records.iter().filter(|record| by_pod.get(record.text("pod_uid")).is_some_and(|life| over(life, record)));
    told.map(|record| record.text("pod_uid")).collect::<HashSet<_>>().len() == lives.len()
}

/// What is expected of a life that may have ended and gone while nobody could see it: where it is told like that, without
/// a claim that anybody saw it go, that is right. Says whether it is told like that.
pub fn told_unseen(life: &mut Life, records: &[Record]) -> bool {
    let told: Vec<&Record> = records.iter().filter(|r| r.text("pod_uid") == life.truth.uid).collect();
    let gone = told.iter().find(|r| r.event_type() == "pod_terminated");
    let unseen = gone.is_some_and(|gone| gone.value["observed"] == false)
        && told.iter().any(|r| r.event_type() == "execution_failed" && r.value.get("exit_code").is_none());
    if unseen {
        // How far it had come when it was last seen.
        life.truth.expected.retain(|expected| {
            let before_its_end = ["pod_scheduled", "execution_running"].contains(expected);
            !before_its_end || told.iter().any(|record| record.event_type() == *expected)
        });
        for expected in &mut life.truth.expected {
            if expected.starts_with("execution_completed") {
                *expected = "execution_failed";
            }
        }
        life.unseen = true;
    }
    unseen
}

/// Everything that is wrong with a history of these lives; empty for a good one.
pub fn faults(lives: &[Life], records: &[Record]) -> Vec<String> {
    let truths: Vec<Truth> = lives.iter().map(|life| life.truth.clone()).collect();
    let mut faults: Vec<String> = judge(&truths, records).iter().map(ToString::to_string).collect();
    let ends = ends(records);
    for life in lives {
        if let Some(end) = ends.get(life.truth.uid.as_str()) {
            faults.extend(life.wrong_end(end));
        }
    }
    faults
}

/// Looks at the logs of pods whose output was told otherwise than they printed it: a runtime that is starved may lose
/// what a container writes, and then the node has no more than what was told. How many such pods there are.
///
/// # Errors
/// When the API server does not answer.
pub async fn compare_with_nodes(cluster: &Cluster, lives: &mut [Life], records: &[Record]) -> Result<usize> {
    let ends = ends(records);
    let mut lost = 0;
    for life in lives.iter_mut().filter(|life| life.after == After::Kept) {
        let Some(end) = ends.get(life.truth.uid.as_str()) else { continue };
        let told = [end.text("stdout").to_owned(), end.text("stderr").to_owned()];
        if told != life.printed() {
            let name = format!("exec-churn-{}", life.number);
            let kept = [cluster.log(&name, "Stdout").await?, cluster.log(&name, "Stderr").await?];
            lost += usize::from(kept != life.printed());
            life.kept = Some(kept);
        }
    }
    Ok(lost)
}

impl Life {
    /// Standard output and standard error of its script.
    fn printed(&self) -> [String; 2] {
        [format!("out-{}\n", self.number), format!("err-{}\n", self.number)]
    }

    /// The exit code is that of the script; pods that were kept still have their logs, and the event carries all of it.
    fn wrong_end(&self, end: &Record) -> Vec<String> {
        if self.unseen {
            return Vec::new();
        }
        let n = self.number;
        let mut fields = vec![("exit_code", end.value["exit_code"].to_string(), self.exit.to_string())];
        if self.after == After::Kept {
            let [out, err] = self.kept.clone().unwrap_or_else(|| self.printed());
            fields.push(("stdout", end.text("stdout").to_owned(), out));
            fields.push(("stderr", end.text("stderr").to_owned(), err));
            fields.push(("logs", end.value["logs"]["status"].to_string(), "\"complete\"".to_owned()));
        }
        let wrong = fields.into_iter().filter(|(_, found, expected)| found != expected);
        let told = |(field, found, expected)| format!("torn: {field} of pod {n} is {found:?}, not {expected:?}");
        wrong.map(told).collect()
    }
}
