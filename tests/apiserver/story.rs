//! Stories of pods as the watch tells them.

use std::{fs, process::Command};

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use testkit::clients::{cluster::Cluster, monitor::Launch, until};

use crate::support::{
    Bench, LIMIT, expect, faultless,
    status::{self, BOUND_AT, FINISHED_AT, NODE, STARTED_AT},
    truth, unique,
};

const WHOLE: [&str; 4] = ["pod_scheduled", "execution_running", "execution_completed", "pod_terminated"];

#[tokio::test]
async fn each_status_is_told_when_it_is_written() -> Result<()> {
    let bench = Bench::new("story").await?;
    let monitor = bench.monitor(&[]).await?;
    let mut history = bench.history()?;
    let uid = bench.unscheduled("a").await?;
    bench.cluster.bind("exec-a", NODE).await?;
    expect(&mut history, &uid, &WHOLE[..1]).await?;
    bench.cluster.patch_status("exec-a", status::running()).await?;
    expect(&mut history, &uid, &WHOLE[..2]).await?;
    bench.end("a", 0).await?;
    let told = expect(&mut history, &uid, &WHOLE[..3]).await?;
    let end = &told[2].value;
    ensure!(end["exit_code"] == 0 && end["finished_at"] == FINISHED_AT && end["started_at"] == STARTED_AT, "{end}");
    // The node does not exist: the end is told all the same, and says what is missing.
    ensure!(end["logs"]["status"] == "unavailable" && end["logs"]["reason"].is_string(), "{end}");
    ensure!(end.get("stdout").is_none() && end.get("cause").is_none(), "{end}");
    bench.delete("a").await?;
    let told = expect(&mut history, &uid, &WHOLE).await?;
    ensure!(told[3].value["observed"] == true && told[3].value["exit_code"] == 0, "{}", told[3].value);
    ensure!(told.iter().all(|r| r.key == "a" && r.value["node_name"] == NODE), "{told:#?}");
    faultless(&history, &[truth(&uid, &WHOLE)])?;
    ensure!(monitor.stop(LIMIT).await?.code() == Some(0), "asked to stop");
    bench.close().await
}

#[tokio::test]
async fn a_pod_first_seen_at_its_end_tells_the_whole_story_with_its_times() -> Result<()> {
    let bench = Bench::new("late").await?;
    let (ok, bad) = (bench.running("ok").await?, bench.running("bad").await?);
    bench.end("ok", 0).await?;
    bench.end("bad", 3).await?;
    let monitor = bench.monitor(&[]).await?;
    let mut history = bench.history()?;
    let told = expect(&mut history, &ok, &WHOLE[..3]).await?;
    let times: Vec<&str> = told.iter().map(|r| r.text("timestamp")).collect();
    ensure!(times == [BOUND_AT, STARTED_AT, FINISHED_AT], "{times:?}");
    let told = expect(&mut history, &bad, &["pod_scheduled", "execution_running", "execution_failed"]).await?;
    let end = &told[2].value;
    ensure!(end["exit_code"] == 3 && end["cause"] == "exit_code" && end["error_type"] == "script_error", "{end}");
    ensure!(end["attempt_started"] == true && end["retryable"] == false, "{end}");
    // Counted when the commit is answered, which may be after others see it.
    let failures = || monitor.metric(r#"pod_monitor_failures_total{cause="exit_code"}"#);
    until(LIMIT, "the failure is counted by its cause", async || Ok((failures()? == 1.0).then_some(()))).await?;
    drop(monitor);
    bench.close().await
}

#[tokio::test]
async fn the_same_name_with_another_uid_is_another_story() -> Result<()> {
    let bench = Bench::new("again").await?;
    let monitor = bench.monitor(&[]).await?;
    let mut history = bench.history()?;
    let first = bench.running("a").await?;
    bench.end("a", 3).await?;
    bench.delete("a").await?;
    let second = bench.running("a").await?;
    bench.end("a", 0).await?;
    let failed = ["pod_scheduled", "execution_running", "execution_failed", "pod_terminated"];
    let told = expect(&mut history, &first, &failed).await?;
    ensure!(told[2].value["exit_code"] == 3 && told[3].value["observed"] == true, "{told:#?}");
    let told = expect(&mut history, &second, &WHOLE[..3]).await?;
    ensure!(told[2].value["exit_code"] == 0, "{told:#?}");
    faultless(&history, &[truth(&first, &failed), truth(&second, &WHOLE[..3])])?;
    drop(monitor);
    bench.close().await
}

#[tokio::test]
async fn a_pod_that_leaves_the_selection_and_returns_tells_nothing_twice() -> Result<()> {
    let bench = Bench::new("leave").await?;
    let mut monitor = bench.monitor(&[]).await?;
    let mut history = bench.history()?;
    let stays = bench.running("stays").await?;
    let never_back = bench.running("never-back").await?;
    expect(&mut history, &stays, &WHOLE[..2]).await?;
    expect(&mut history, &never_back, &WHOLE[..2]).await?;
    let label = |value: &str| serde_json::json!({ "metadata": { "labels": { "app": value } } });
    bench.cluster.patch("exec-stays", label("other")).await?;
    bench.cluster.patch("exec-never-back", label("other")).await?;
    let left = "pod left the selection, no longer followed";
    until(LIMIT, "both have left", async || Ok((bench.count(left)? == 2).then_some(()))).await?;
    let flush = bench.flush(&mut history, "one").await?;
    expect(&mut history, &stays, &WHOLE[..2]).await?;
    // A restart in between must not make it forget either.
    monitor.stop(LIMIT).await?;
    monitor = bench.monitor(&[]).await?;
    bench.cluster.patch("exec-stays", label(&bench.app)).await?;
    bench.end("stays", 0).await?;
    expect(&mut history, &stays, &WHOLE[..3]).await?;
    // What goes outside the selection is nobody's news.
    bench.delete("never-back").await?;
    let other = bench.flush(&mut history, "two").await?;
    let truths = [truth(&stays, &WHOLE[..3]), truth(&never_back, &WHOLE[..2]), flush, other];
    faultless(&history, &truths)?;
    drop(monitor);
    bench.close().await
}

/// A namespace beside the bench's own.
async fn beside(bench: &Bench, name: &str) -> Result<(Cluster, String)> {
    let name = unique(name);
    Ok((Cluster::connect(&bench.endpoints, &name).await?, name))
}

async fn scheduled_in(cluster: &Cluster, app: &str, id: &str) -> Result<String> {
    let mut pod = status::unscheduled(app, id);
    pod["spec"]["nodeName"] = NODE.into();
    cluster.create(pod).await
}

#[tokio::test]
async fn several_namespaces_are_watched_and_no_others() -> Result<()> {
    let bench = Bench::new("two").await?;
    let (second, name) = beside(&bench, "two-second").await?;
    let (third, _) = beside(&bench, "two-third").await?;
    let monitor = bench.monitor(&["--namespace", &name]).await?;
    let mut history = bench.history()?;
    let not_ours = scheduled_in(&third, &bench.app, "c").await?;
    let a = scheduled_in(&bench.cluster, &bench.app, "a").await?;
    let b = scheduled_in(&second, &bench.app, "b").await?;
    let told = expect(&mut history, &b, &WHOLE[..1]).await?;
    ensure!(told[0].text("namespace") == name, "{told:#?}");
    expect(&mut history, &a, &WHOLE[..1]).await?;
    faultless(&history, &[truth(&a, &WHOLE[..1]), truth(&b, &WHOLE[..1]), truth(&not_ours, &[])])?;
    monitor.stop(LIMIT).await?;
    // The selection widens: what was told stays told, what was not is told now.
    let launch = all_namespaces(&bench.launch);
    let mut monitor = launch.start()?;
    monitor.ready(LIMIT).await?;
    expect(&mut history, &not_ours, &WHOLE[..1]).await?;
    faultless(&history, &[truth(&a, &WHOLE[..1]), truth(&b, &WHOLE[..1]), truth(&not_ours, &WHOLE[..1])])?;
    drop(monitor);
    for (cluster, pod) in [(&second, "exec-b"), (&third, "exec-c")] {
        cluster.delete(pod, Some(0)).await?;
        cluster.remove_namespace().await?;
    }
    bench.close().await
}

fn all_namespaces(launch: &Launch) -> Launch {
    let mut launch = launch.clone();
    let at = launch.arguments.iter().position(|a| a == "--namespace").expect("Launch::new names one");
    launch.arguments.splice(at..at + 2, ["--all-namespaces".to_owned()]);
    launch
}

#[tokio::test]
async fn standard_output_carries_one_event_a_line_and_nothing_else() -> Result<()> {
    let bench = Bench::new("stdout").await?;
    let output = bench.endpoints.run_dir.join(format!("{}.out", bench.app));
    let mut launch = bench.launch.clone();
    launch.arguments = vec!["--selector".into(), format!("app={}", bench.app), "--namespace".into()];
    launch.arguments.push(bench.app.clone());
    launch = launch.with(&["--sink", "stdout", "--log-format", "json", "--capture-deadline", "2s"]);
    launch.output = Some(output.clone());
    let mut monitor = launch.start()?;
    monitor.ready(LIMIT).await?;
    let uid = bench.running("a").await?;
    bench.end("a", 0).await?;
    let look = async || {
        let text = fs::read_to_string(&output)?;
        Ok((text.lines().count() >= 3).then_some(text))
    };
    let text = until(LIMIT, "three lines", look).await?;
    let events: Vec<Value> =
        text.lines().map(serde_json::from_str).collect::<Result<_, _>>().context("one JSON a line")?;
    let types: Vec<&str> = events.iter().filter_map(|e| e["event_type"].as_str()).collect();
    ensure!(types == WHOLE[..3] && events.iter().all(|e| e["pod_uid"] == uid.as_str()), "{text}");
    ensure!(monitor.stop(LIMIT).await?.code() == Some(0), "asked to stop");
    bench.close().await
}

#[test]
fn a_run_without_a_selector_says_which_flag_is_missing() {
    let out = Command::new(env!("CARGO_BIN_EXE_pod-monitor")).args(["run", "--sink", "stdout"]).output().unwrap();
    let text = String::from_utf8_lossy(&out.stderr).into_owned();
    assert!(out.status.code() == Some(2) && text.contains("--selector"), "{text}");
}
