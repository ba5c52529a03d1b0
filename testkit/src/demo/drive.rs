//! Creates the sample pods, does to them what their samples say, and reads until every story is told.

use std::time::{Duration, Instant};

use anyhow::Result;
use k8s_openapi::jiff::Timestamp;
use serde_json::{Value, json};

use super::{
    progress::Progress,
    samples,
    story::{Act, Made, Sample},
};
use crate::clients::{
    checker::Truth,
    cluster::Cluster,
    history::History,
    installation::{Installation, Replica},
};
use crate::stack::Stack;

/// All stories must be told within this; a warm machine needs a third of it.
const TOLD_MAX: Duration = Duration::from_secs(75);

/// The leader is killed when so many events were seen: in the middle of most stories.
const EVENTS_BEFORE_THE_KILL: usize = 25;

/// How long to read on after the last story: what comes then is one event too many.
const AFTERWARDS: Duration = Duration::from_millis(1500);

const LOOK_EVERY: Duration = Duration::from_millis(50);

/// A sample that was created.
#[derive(Debug)]
pub(super) struct Execution {
    pub(super) sample: Sample,
    /// `metadata.name`
    pub(super) name: String,
    /// `metadata.uid`; empty until it is there.
    pub(super) uid: String,
    /// When it was created, by our clock, which knows more than whole seconds.
    pub(super) created: Timestamp,
    acted: bool,
    told: bool,
}

impl Execution {
    /// What a judge must know of it.
    pub(super) fn truth(&self) -> Truth {
        Truth { uid: self.uid.clone(), expected: self.sample.events.clone() }
    }
}

/// Runs all samples at the same time, and kills the leader in the middle of it. Stories that are not told in time are
/// returned as they are; so is a leader that was not killed, since too few events came.
pub(super) async fn run(
    installed: &Installation,
    stack: &Stack,
    history: &mut History,
) -> Result<(Vec<Execution>, Option<Replica>)> {
    let mut executions = create(&installed.name, &installed.watched).await?;
    let mut progress = Progress::new(executions.len());
    let (began, mut killed) = (Instant::now(), None);
    while began.elapsed() < TOLD_MAX && !executions.iter().all(|execution| execution.told) {
        history.read(Duration::from_millis(1))?;
        if killed.is_none() && history.records.len() >= EVENTS_BEFORE_THE_KILL {
            killed = Some(installed.crash_leader(stack).await?);
        }
        let told: Vec<&str> = executions.iter().filter(|e| e.told).map(|e| e.sample.name).collect();
        for execution in &mut executions {
            if execution.uid.is_empty() {
                make(execution, &installed.watched, &told).await?;
            } else {
                look(execution, &installed.watched, history).await?;
            }
        }
        let waiting = executions.iter().filter(|e| !e.told).map(|e| e.sample.name);
        progress.show(&waiting.collect::<Vec<_>>());
        tokio::time::sleep(LOOK_EVERY).await;
    }
    let all_told = Instant::now();
    while all_told.elapsed() < AFTERWARDS {
        history.read(Duration::from_millis(1))?;
        tokio::time::sleep(LOOK_EVERY).await;
    }
    progress.finish();
    Ok((executions, killed))
}

async fn create(app: &str, cluster: &Cluster) -> Result<Vec<Execution>> {
    let mut executions = Vec::new();
    for sample in samples::all(app) {
        let name = sample.pod["metadata"]["name"].as_str().unwrap_or_default().to_owned();
        let mut execution =
            Execution { sample, name, uid: String::new(), created: Timestamp::now(), acted: false, told: false };
        if let Made::ByJob(spec) = &execution.sample.made {
            cluster.post("/apis/batch/v1", "jobs", job(&execution.sample, spec)).await?;
        }
        make(&mut execution, cluster, &[]).await?;
        executions.push(execution);
    }
    Ok(executions)
}

/// Makes the pod when its time has come, or finds the one that was made for it.
async fn make(execution: &mut Execution, cluster: &Cluster, told: &[&str]) -> Result<()> {
    let Execution { sample, name, uid, created, .. } = execution;
    match sample.made {
        Made::After(other) if !told.contains(&other) => {}
        Made::AtOnce | Made::After(_) => {
            *created = Timestamp::now();
            *uid = cluster.create(sample.pod.clone()).await?;
        }
        Made::ByJob(_) => {
            let prefix = format!("{}-", sample.name);
            let Some(found) = cluster.names().await?.into_iter().find(|pod| pod.starts_with(&prefix)) else {
                return Ok(());
            };
            let pod = cluster.pod(&found).await?.unwrap_or_default();
            *uid = pod["metadata"]["uid"].as_str().unwrap_or_default().to_owned();
            *name = found;
        }
    }
    Ok(())
}

fn job(sample: &Sample, spec: &Value) -> Value {
    let mut template =
        json!({ "metadata": { "labels": sample.pod["metadata"]["labels"] }, "spec": sample.pod["spec"] });
    template["spec"]["restartPolicy"] = "Never".into();
    let mut job = json!({ "metadata": { "name": sample.name }, "spec": spec });
    (job["spec"]["template"], job["spec"]["backoffLimit"]) = (template, 0.into());
    job
}

/// Does what is due, and notes whether the story is told.
async fn look(execution: &mut Execution, cluster: &Cluster, history: &History) -> Result<()> {
    let Execution { sample, name, .. } = execution;
    let records = history.of_pod(&execution.uid);
    let due = !execution.acted
        && match sample.act {
            Act::Leave => false,
            Act::DeleteAfter(event) | Act::ProvideAfter(event, _) => {
                records.iter().any(|record| record.event_type() == event)
            }
            Act::DeleteWaiting(reasons) => cluster.pod(name).await?.is_some_and(|pod| waits_for(&pod, reasons)),
        };
    if due {
        match sample.act {
            Act::ProvideAfter(_, name) => {
                let map = json!({ "metadata": { "name": name }, "data": { "LATE": "at last" } });
                cluster.post("/api/v1", "configmaps", map).await?;
            }
            _ => cluster.delete(name, None).await?,
        }
        execution.acted = true;
    }
    execution.told = records.len() >= sample.events.len();
    Ok(())
}

fn waits_for(pod: &Value, reasons: &[&str]) -> bool {
    let reason = &pod["status"]["containerStatuses"][0]["state"]["waiting"]["reason"];
    reason.as_str().is_some_and(|reason| reasons.contains(&reason))
}
