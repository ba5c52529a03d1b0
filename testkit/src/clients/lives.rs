//! A churn of short real pods, what a consumer must see of each, and whether it did.

use std::{collections::HashMap, time::Duration};

use anyhow::{Context, Result};
use futures::{StreamExt, stream};

use super::{
    checker::{Truth, judge},
    cluster::{Cluster, execution},
    history::{History, Record},
    until,
};
use crate::stack::Endpoints;

/// Longest life of a pod, on a machine at its limit.
const LIFE_MAX: Duration = Duration::from_secs(120);
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
    let uid = cluster.create(execution(app, &id, &script)).await?;
    let name = format!("exec-{id}");
    cluster.wait_phase(&name, &["Succeeded", "Failed"], LIFE_MAX).await?;
    let end = if exit == 0 { "execution_completed" } else { "execution_failed" };
    let mut expected = vec!["pod_scheduled", "execution_running", end];
    if after != After::Kept {
        cluster.delete(&name, (after == After::Forced).then_some(0)).await?;
        expected.push("pod_terminated");
    }
    Ok(Life { truth: Truth { uid, expected }, number, exit, after })
}

/// The history once every expected event is there.
///
/// # Errors
/// When that takes too long: with everything that is wrong until then.
pub async fn complete(endpoints: &Endpoints, topic: &str, lives: &[Life]) -> Result<Vec<Record>> {
    let mut history = History::open(&endpoints.kafka, &[topic])?;
    let expected: usize = lives.iter().map(|life| life.truth.expected.len()).sum();
    let look = async || {
        history.read(Duration::from_millis(50))?;
        Ok((history.records.len() >= expected).then_some(()))
    };
    let waited = until(COMPLETE_MAX, "all events are visible", look).await;
    history.read(AFTERWARDS)?;
    waited.with_context(|| {
        let wrong = faults(lives, &history.records).join("\n");
        format!("{topic} has {} of {expected}\n{wrong}", history.records.len())
    })?;
    Ok(history.records)
}

/// Everything that is wrong with a history of these lives; empty for a good one.
pub fn faults(lives: &[Life], records: &[Record]) -> Vec<String> {
    let truths: Vec<Truth> = lives.iter().map(|life| life.truth.clone()).collect();
    let mut faults: Vec<String> = judge(&truths, records).iter().map(ToString::to_string).collect();
    let ends: HashMap<&str, &Record> = records.iter().filter(|r| r.is_end()).map(|r| (r.text("pod_uid"), r)).collect();
    for life in lives {
        if let Some(end) = ends.get(life.truth.uid.as_str()) {
            faults.extend(life.wrong_end(end));
        }
    }
    faults
}

impl Life {
    /// The exit code is that of the script; pods that were kept still have their logs, and the event carries all of it.
    fn wrong_end(&self, end: &Record) -> Vec<String> {
        let n = self.number;
        let mut fields = vec![("exit_code", end.value["exit_code"].to_string(), self.exit.to_string())];
        if self.after == After::Kept {
            fields.push(("stdout", end.text("stdout").to_owned(), format!("out-{n}\n")));
            fields.push(("stderr", end.text("stderr").to_owned(), format!("err-{n}\n")));
            fields.push(("logs", end.value["logs"]["status"].to_string(), "\"complete\"".to_owned()));
        }
        let wrong = fields.into_iter().filter(|(_, found, expected)| found != expected);
        let told = |(field, found, expected)| format!("torn: {field} of pod {n} is {found:?}, not {expected:?}");
        wrong.map(told).collect()
    }
}
