//! Pods that a finalizer holds until their end is told, and pods that are deleted after it.

use std::time::Duration;

use anyhow::{Result, ensure};
use serde_json::{Value, json};
use testkit::{clients::until, stack::Endpoints};

use crate::{
    kafka::Kafka,
    support::{Bench, LIMIT, expect, faultless, status, truth, unready},
};

const OURS: &str = "pod-monitor/captured";
const FLAGS: [&str; 2] = ["--finalizer", OURS];
const WHOLE: [&str; 4] = ["pod_scheduled", "execution_running", "execution_completed", "pod_terminated"];

/// A pod that runs and carries these finalizers; gives its UID.
async fn held(bench: &Bench, id: &str, finalizers: &[&str]) -> Result<String> {
    let uid = bench.running_there(id).await?;
    bench.cluster.patch(&format!("exec-{id}"), json!({ "metadata": { "finalizers": finalizers } })).await?;
    Ok(uid)
}

async fn finalizers(bench: &Bench, id: &str) -> Result<Option<Vec<String>>> {
    let Some(pod) = bench.cluster.pod(&format!("exec-{id}")).await? else { return Ok(None) };
    let names = pod["metadata"]["finalizers"].as_array().cloned().unwrap_or_default();
    Ok(Some(names.iter().filter_map(Value::as_str).map(str::to_owned).collect()))
}

/// Waits until a pod carries just these; `None`: is gone.
async fn carries(bench: &Bench, id: &str, expected: Option<&[&str]>) -> Result<()> {
    let look = async || {
        let found = finalizers(bench, id).await?;
        let same = match (&found, expected) {
            (Some(found), Some(expected)) => found.iter().map(String::as_str).eq(expected.iter().copied()),
            (found, expected) => found.is_none() && expected.is_none(),
        };
        Ok(same.then_some(()))
    };
    until(LIMIT, &format!("pod {id} carries {expected:?}"), look).await
}

#[tokio::test]
async fn a_finalizer_is_taken_off_once_the_end_is_told_and_no_other_is() -> Result<()> {
    let bench = Bench::new("held").await?;
    bench.empty_node()?;
    let monitor = bench.monitor(&FLAGS).await?;
    let mut history = bench.history()?;
    let uid = held(&bench, "a", &["example.com/first", OURS, "example.com/last"]).await?;
    let other = held(&bench, "b", &[OURS]).await?;
    expect(&mut history, &uid, &WHOLE[..2]).await?;
    // A deletion does not get past it while the pod runs.
    bench.cluster.delete("exec-b", None).await?;
    bench.end("a", 0).await?;
    expect(&mut history, &uid, &WHOLE[..3]).await?;
    carries(&bench, "a", Some(&["example.com/first", "example.com/last"])).await?;
    ensure!(finalizers(&bench, "b").await? == Some(vec![OURS.to_owned()]), "its end is not told yet");
    bench.end("b", 0).await?;
    bench.delete("b").await?;
    let told = expect(&mut history, &other, &WHOLE).await?;
    ensure!(told[3].value["observed"] == true, "{:#?}", told[3].value);
    carries(&bench, "b", None).await?;
    let released = || monitor.metric(r#"pod_monitor_cleanups_total{deed="release",result="done"}"#);
    until(LIMIT, "two are counted", async || Ok((released()? == 2.0).then_some(()))).await?;
    bench.cluster.patch("exec-a", json!({ "metadata": { "finalizers": null } })).await?;
    faultless(&history, &[truth(&uid, &WHOLE[..3]), truth(&other, &WHOLE)])?;
    drop(monitor);
    bench.close().await
}

#[tokio::test]
async fn what_a_dead_leader_did_not_let_go_its_successor_does() -> Result<()> {
    let bench = Bench::new("swept").await?;
    bench.empty_node()?;
    // Without the flag it tells the ends and lets nothing go: as one that dies in between.
    let first = bench.monitor(&[]).await?;
    let mut history = bench.history()?;
    let (told, left) = (held(&bench, "told", &[OURS]).await?, held(&bench, "left", &[OURS]).await?);
    bench.end("told", 0).await?;
    expect(&mut history, &told, &WHOLE[..3]).await?;
    expect(&mut history, &left, &WHOLE[..2]).await?;
    bench.delete("told").await?;
    drop(first);
    let gone = held(&bench, "meanwhile", &[OURS]).await?;
    bench.end("meanwhile", 0).await?;
    bench.delete("meanwhile").await?;
    let second = bench.monitor(&FLAGS).await?;
    expect(&mut history, &told, &WHOLE).await?;
    expect(&mut history, &gone, &WHOLE).await?;
    // Nobody tells anything more of what leaves the selection: it is not held either.
    bench.cluster.patch("exec-left", json!({ "metadata": { "labels": { "app": "other" } } })).await?;
    carries(&bench, "left", Some(&[])).await?;
    faultless(&history, &[truth(&told, &WHOLE), truth(&gone, &WHOLE), truth(&left, &WHOLE[..2])])?;
    drop(second);
    bench.close().await
}

#[tokio::test]
async fn pods_that_only_the_finalizer_holds_are_told_and_their_namespace_goes() -> Result<()> {
    let bench = Bench::new("ending").await?;
    bench.empty_node()?;
    let monitor = bench.monitor(&[&FLAGS[..], &["--settle-grace", "1s"]].concat()).await?;
    let mut history = bench.history()?;
    let mut pod = status::unscheduled(&bench.app, "pending");
    pod["metadata"]["finalizers"] = json!([OURS]);
    let pending = bench.cluster.create(pod).await?;
    let running = held(&bench, "running", &[OURS]).await?;
    expect(&mut history, &running, &WHOLE[..2]).await?;
    // Forced: nobody will ever write how it ended.
    bench.delete("pending").await?;
    bench.delete("running").await?;
    let told = expect(&mut history, &pending, &["execution_failed", "pod_terminated"]).await?;
    let end = &told[0].value;
    ensure!(end["attempt_started"] == false && end["retryable"] == true && end.get("exit_code").is_none(), "{end}");
    let failed = ["pod_scheduled", "execution_running", "execution_failed", "pod_terminated"];
    let told = expect(&mut history, &running, &failed).await?;
    let end = &told[2].value;
    ensure!(end["cause"] == "lost" && end["attempt_started"] == true, "{end}");
    carries(&bench, "running", None).await?;
    faultless(&history, &[truth(&running, &failed), truth(&pending, &["execution_failed", "pod_terminated"])])?;
    ensure!(monitor.stop(LIMIT).await?.code() == Some(0), "asked to stop");
    bench.close().await
}

#[tokio::test]
async fn a_deletion_is_not_held_up_for_longer_than_the_deadline_when_nothing_can_be_told() -> Result<()> {
    let kafka = Kafka::take().await?;
    let endpoints = Endpoints { kafka: kafka.endpoints().kafka.clone(), ..Endpoints::from_env()? };
    let bench = Bench::on(endpoints, "overdue").await?;
    bench.empty_node()?;
    let monitor = bench.monitor(&[&FLAGS[..], &["--finalizer-deadline", "1s"]].concat()).await?;
    let mut history = bench.history()?;
    let uid = held(&bench, "a", &[OURS]).await?;
    expect(&mut history, &uid, &WHOLE[..2]).await?;
    kafka.kill().await?;
    bench.end("a", 0).await?;
    bench.delete("a").await?;
    unready(&monitor, &["[-]kafka"]).await?;
    carries(&bench, "a", None).await?;
    let overdue = monitor.metric(r#"pod_monitor_cleanups_total{deed="release",result="overdue"}"#)?;
    ensure!(overdue == 1.0, "counted: {overdue}");
    let loud = |line: &Value| {
        line["level"] == "ERROR" && line["message"].as_str().is_some_and(|m| m.contains("finalizer-deadline"))
    };
    ensure!(bench.log()?.iter().any(loud), "it says so, loudly");
    kafka.restart().await?;
    // This process still knows how it ended.
    expect(&mut history, &uid, &WHOLE).await?;
    drop(monitor);
    bench.close().await
}

#[tokio::test]
async fn finished_pods_are_deleted_after_their_time_and_told_as_gone() -> Result<()> {
    let bench = Bench::new("deleted").await?;
    bench.empty_node()?;
    let monitor = bench.monitor(&[&FLAGS[..], &["--delete-finished", "1s"]].concat()).await?;
    let mut history = bench.history()?;
    let (ends, runs) = (held(&bench, "ends", &[OURS]).await?, bench.running_there("runs").await?);
    bench.end("ends", 0).await?;
    let told = expect(&mut history, &ends, &WHOLE[..3]).await?;
    let asked = async || {
        // No kubelet lives on this node: whoever is to confirm a deletion is the test.
        let Some(pod) = bench.cluster.pod("exec-ends").await? else { return Ok(Some(())) };
        Ok(pod["metadata"]["deletionTimestamp"].is_string().then_some(()))
    };
    until(LIMIT, "its deletion is asked for", asked).await?;
    #[allow(clippy::disallowed_methods, reason = "how long ago the end was told is a question to the real clock")]
    let age = jiff::Timestamp::now().duration_since(told[2].text("observed_at").parse()?);
    ensure!(age >= Duration::from_secs(1).try_into()?, "not before its time: {age}");
    if bench.cluster.pod("exec-ends").await?.is_some() {
        bench.delete("ends").await?;
    }
    expect(&mut history, &ends, &WHOLE).await?;
    ensure!(
        bench.cluster.pod("exec-runs").await?.is_some_and(|pod| pod["metadata"]["deletionTimestamp"].is_null()),
        "runs"
    );
    faultless(&history, &[truth(&ends, &WHOLE), truth(&runs, &WHOLE[..2])])?;
    drop(monitor);
    bench.close().await
}
