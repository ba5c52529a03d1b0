//! Pods that are deleted: while they run, after their end, by force.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use testkit::clients::{cluster::execution, until};

use crate::{
    COMPLETED, Watched,
    support::{LIMIT, expect, faultless, truth},
};

const DELETED: [&str; 4] = ["pod_scheduled", "execution_running", "execution_failed", "pod_terminated"];
const TIMED_OUT: [&str; 4] = ["pod_scheduled", "execution_running", "execution_timeout", "pod_terminated"];
const GONE: [&str; 4] = ["pod_scheduled", "execution_running", "execution_completed", "pod_terminated"];

#[tokio::test]
async fn deleted_pods_tell_how_they_went() -> Result<()> {
    let mut w = Watched::new("going", &[]).await?;
    let running = w.script("running", "echo before; sleep 600").await?;
    let forced = w.script("forced", "echo before; sleep 600").await?;
    let graceful = w
        .pod("graceful", "trap 'echo bye; exit 0' TERM; echo before; while true; do sleep 0.1; done", |pod| {
            pod["spec"]["terminationGracePeriodSeconds"] = 20.into();
        })
        .await?;
    let after = w.script("after", "echo all").await?;
    for uid in [&running, &forced, &graceful] {
        expect(&mut w.history, uid, &DELETED[..2]).await?;
    }
    let cluster = w.bench.cluster.clone();
    cluster.delete("exec-running", None).await?;
    cluster.delete("exec-forced", Some(0)).await?;
    cluster.delete("exec-graceful", None).await?;

    // Nobody can see how a forced one ends: its object goes first.
    let told = expect(&mut w.history, &forced, &DELETED).await?;
    let end = &told[2].value;
    ensure!(end["event_type"] == "execution_failed" && end.get("exit_code").is_none(), "{end}");
    ensure!(end["cause"] == "lost" && told[3].value["observed"] == true, "{told:#?}");

    let told = expect(&mut w.history, &running, &DELETED).await?;
    let end = &told[2].value;
    ensure!(end["cause"] == "deleted" && end["exit_code"] == 137, "{end}");
    ensure!(told[3].value["observed"] == true && told[3].value["exit_code"] == 137, "{}", told[3].value);

    // It was asked to go and ended by itself with 0: that is what it says.
    let told = expect(&mut w.history, &graceful, &GONE).await?;
    ensure!(told[2].value["exit_code"] == 0 && told[3].value["exit_code"] == 0, "{told:#?}");

    let end = w.end(&after).await?.value;
    ensure!(end["stdout"] == "all\n" && end["logs"]["status"] == "complete", "{end}");
    cluster.delete("exec-after", None).await?;
    let told = expect(&mut w.history, &after, &GONE).await?;
    ensure!(told[3].value["exit_code"] == 0 && told[3].value["observed"] == true, "{}", told[3].value);
    let truths = [truth(&running, &DELETED), truth(&forced, &DELETED), truth(&graceful, &GONE), truth(&after, &GONE)];
    faultless(&w.history, &truths)?;
    w.close().await
}

#[tokio::test]
async fn a_monitor_that_was_away_captures_the_output_that_is_still_there() -> Result<()> {
    let mut w = Watched::new("away", &[]).await?;
    let uid =
        w.script("a", "echo one; while [ ! -e /tmp/x ]; do sleep 0.1; [ $((n+=1)) -gt 20 ] && exit 0; done").await?;
    expect(&mut w.history, &uid, &COMPLETED[..2]).await?;
    let Watched { bench, monitor, mut history } = w;
    monitor.kill()?;
    bench.cluster.wait_phase("exec-a", &["Succeeded"], LIMIT).await?;
    let monitor = bench.monitor(&[]).await?;
    let told = expect(&mut history, &uid, &COMPLETED).await?;
    ensure!(told[2].value["stdout"] == "one\n" && told[2].value["logs"]["status"] == "complete", "{}", told[2].value);
    ensure!(monitor.stop(Duration::from_secs(5)).await?.code() == Some(0), "asked to stop");
    bench.close().await
}

/// Makes a Job whose pod runs a script; gives the pod's UID.
async fn job(w: &Watched, name: &str, script: &str, spec: Value) -> Result<String> {
    let mut template = execution(&w.bench.app, name, script);
    template["metadata"].as_object_mut().context("metadata")?.remove("name");
    let mut job = json!({ "apiVersion": "batch/v1", "kind": "Job", "metadata": { "name": name }, "spec": spec });
    job["spec"]["backoffLimit"] = 0.into();
    job["spec"]["template"] = json!({ "metadata": template["metadata"], "spec": template["spec"] });
    let cluster = &w.bench.cluster;
    cluster.post("/apis/batch/v1", "jobs", job).await?;
    let made = async || {
        let names = cluster.names().await?;
        Ok(names.into_iter().find(|pod| pod.starts_with(&format!("{name}-"))))
    };
    let pod = until(LIMIT, "the Job makes its pod", made).await?;
    Ok(cluster.pod(&pod).await?.context("the pod")?["metadata"]["uid"].as_str().context("a uid")?.to_owned())
}

#[tokio::test]
async fn a_job_knows_why_its_pod_was_deleted() -> Result<()> {
    let mut w = Watched::new("jobs", &[]).await?;
    let overdue = job(&w, "overdue", "exec sleep 600", json!({})).await?;
    // Once it runs: on a busy node a container may start later than its Job's deadline, and be killed while it is made.
    expect(&mut w.history, &overdue, &TIMED_OUT[..2]).await?;
    let deadline = ["--namespace", w.bench.cluster.namespace(), "patch", "job", "overdue", "--patch"];
    let deadline =
        w.bench.endpoints.kubectl().args(deadline).arg(r#"{"spec":{"activeDeadlineSeconds":3}}"#).output()?;
    ensure!(deadline.status.success(), "{}", String::from_utf8_lossy(&deadline.stderr));
    // A pod says only that it was deleted; its Job says why.
    let told = expect(&mut w.history, &overdue, &TIMED_OUT).await?;
    let end = &told[2].value;
    ensure!(end["cause"] == "deadline" && end["error_type"] == "timeout" && end["timeout_seconds"] == 3, "{end}");
    ensure!(end["retryable"] == false && end["owner"]["name"] == "overdue", "{end}");

    faultless(&w.history, &[truth(&overdue, &TIMED_OUT)])?;
    w.close().await
}
