//! Short real pods, what a consumer must see of them, and whether it did.

use std::{collections::HashMap, time::Duration};

use anyhow::{Context, Result};
use futures::{StreamExt, stream};
use serde_json::json;
use testkit::{
    clients::{
        checker::{Truth, judge},
        cluster::{Cluster, execution},
        history::{History, Record},
        until,
    },
    stack::Endpoints,
};

/// How a pod's life goes on after its script has ended.
#[derive(Clone, Copy, PartialEq)]
pub(crate) enum After {
    Kept,
    /// Deleted as soon as it has ended, whoever has seen that.
    Deleted,
    /// Deleted with grace period 0.
    Forced,
}

pub(crate) struct Plan {
    id: String,
    script: String,
    exit: i64,
    after: After,
}

pub(crate) fn plan(n: usize) -> Plan {
    let exit = [0, 0, 3, 0, 42][n % 5];
    let after = [After::Kept, After::Kept, After::Deleted, After::Forced][n % 4];
    let script = format!("echo out-{n}; echo err-{n} >&2; exit {exit}");
    Plan { id: format!("churn-{n}"), script, exit, after }
}

/// All these pods live their lives, some at a time.
pub(crate) async fn live(
    cluster: &Cluster,
    app: &str,
    pods: impl Iterator<Item = usize>,
    at_once: usize,
) -> Result<Vec<(Truth, Plan)>> {
    let lives = stream::iter(pods.map(plan)).map(|plan| one_life(cluster, app, plan));
    lives.buffer_unordered(at_once).collect::<Vec<_>>().await.into_iter().collect()
}

async fn one_life(cluster: &Cluster, app: &str, plan: Plan) -> Result<(Truth, Plan)> {
    let name = format!("exec-{}", plan.id);
    let uid = cluster.create(execution(app, &plan.id, &plan.script)).await?;
    cluster.wait_phase(&name, &["Succeeded", "Failed"], Duration::from_secs(120)).await?;
    let end = if plan.exit == 0 { "execution_completed" } else { "execution_failed" };
    let mut expected = vec!["pod_scheduled", "execution_running", end];
    if plan.after != After::Kept {
        cluster.delete(&name, (plan.after == After::Forced).then_some(0)).await?;
        expected.push("pod_terminated");
    }
    Ok((Truth { uid, expected }, plan))
}

/// The history once every expected event is there.
pub(crate) async fn complete(endpoints: &Endpoints, topic: &str, truth: &[(Truth, Plan)]) -> Result<Vec<Record>> {
    let mut history = History::open(&endpoints.kafka, &[topic])?;
    let expected: usize = truth.iter().map(|t| t.0.expected.len()).sum();
    let look = async || {
        history.read(Duration::from_millis(50))?;
        Ok((history.records.len() >= expected).then_some(()))
    };
    let waited = until(Duration::from_secs(60), "all events are visible", look).await;
    // A doubled event comes late or not at all: whatever is there after a quiet second is judged.
    history.read(Duration::from_secs(1))?;
    let faults = || {
        let all: Vec<Truth> = truth.iter().map(|t| t.0.clone()).collect();
        judge(&all, &history.records).iter().map(|f| format!("{f}\n")).collect::<String>()
    };
    waited.with_context(|| format!("{topic} has {} of {expected}\n{}", history.records.len(), faults()))?;
    Ok(history.records)
}

/// Pods that were kept still have their logs: the killed monitor's events carry all of it.
pub(crate) fn outputs_are_right(truth: &[(Truth, Plan)], records: &[Record]) {
    let ends: HashMap<&str, &Record> = records.iter().filter(|r| r.is_end()).map(|r| (r.text("pod_uid"), r)).collect();
    for (truth, plan) in truth.iter().filter(|(_, plan)| plan.after == After::Kept) {
        let end = ends[truth.uid.as_str()];
        let n = plan.id.trim_start_matches("churn-");
        assert_eq!(end.text("stdout"), format!("out-{n}\n"), "{}", end.value);
        assert_eq!(end.text("stderr"), format!("err-{n}\n"), "{}", end.value);
        assert_eq!(end.value["logs"]["status"], json!("complete"), "{}", end.value);
        assert_eq!(end.value["exit_code"], json!(plan.exit), "{}", end.value);
    }
}
