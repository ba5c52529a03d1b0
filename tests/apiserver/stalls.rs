//! Executions that make no headway, and pods that claim an execution which is over.

use anyhow::{Result, ensure};
use http::Request;
use serde_json::{Value, json};
use testkit::clients::{cluster::execution, until};

use crate::support::{
    Bench, LIMIT, expect, faultless,
    status::{self, BOUND_AT, NODE},
    truth,
};

const GRACES: [&str; 4] = ["--stall-grace", "unschedulable=1s", "--stall-grace", "image=1s"];

#[tokio::test]
async fn a_stall_is_told_once_and_so_is_its_end_also_across_a_change_of_hands() -> Result<()> {
    let bench = Bench::new("stalls").await?;
    let first = bench.monitor(&GRACES).await?;
    let mut history = bench.history()?;
    let uid = bench.unscheduled("a").await?;
    let refused = |nodes: u32| {
        json!({ "conditions": [{ "type": "PodScheduled", "status": "False", "reason": "Unschedulable",
            "message": format!("0/{nodes} nodes are available"), "lastTransitionTime": BOUND_AT }] })
    };
    bench.cluster.patch_status("exec-a", refused(3)).await?;
    let told = expect(&mut history, &uid, &["execution_stalled"]).await?;
    let stall = &told[0].value;
    ensure!(stall["cause"] == "unschedulable" && stall["since"] == BOUND_AT, "{stall}");
    let gauge = r#"pod_monitor_stalled_executions{cause="unschedulable"}"#;
    until(LIMIT, "it is shown as stalled", async || Ok((first.metric(gauge)? == 1.0).then_some(()))).await?;
    // Other numbers are no news, nor is a successor's look at them.
    bench.cluster.patch_status("exec-a", refused(4)).await?;
    drop(first);
    let second = bench.monitor(&GRACES).await?;
    bench.cluster.patch_status("exec-a", refused(5)).await?;
    let flush = bench.flush(&mut history, "flush").await?;
    expect(&mut history, &uid, &["execution_stalled"]).await?;
    bench.cluster.bind("exec-a", NODE).await?;
    let mut waits = status::scheduled();
    (waits["startTime"], waits["containerStatuses"]) = (
        BOUND_AT.into(),
        json!([{ "name": "main", "image": "i", "imageID": "",
        "ready": false, "restartCount": 0, "state": { "waiting": { "reason": "ImagePullBackOff", "message": "no such image" } } }]),
    );
    bench.cluster.patch_status("exec-a", waits).await?;
    let stalled = ["execution_stalled", "execution_resumed", "pod_scheduled", "execution_stalled"];
    let told = expect(&mut history, &uid, &stalled).await?;
    ensure!(told[1].value["stalled_since"] == BOUND_AT && told[3].value["cause"] == "image", "{told:#?}");
    let message = told[3].text("message");
    ensure!(message.contains("no such image"), "{message}");
    bench.cluster.patch_status("exec-a", status::running()).await?;
    bench.end("a", 0).await?;
    let whole = [&stalled[..], &["execution_resumed", "execution_running", "execution_completed"]].concat();
    expect(&mut history, &uid, &whole).await?;
    faultless(&history, &[truth(&uid, &whole), flush])?;
    drop(second);
    bench.close().await
}

#[tokio::test]
async fn each_pod_of_an_execution_is_told_whole_and_says_whose_it_is_and_what_came_before() -> Result<()> {
    let bench = Bench::new("attempts").await?;
    let monitor = bench.monitor(&[]).await?;
    let mut history = bench.history()?;
    // An owner that exists: the garbage collector takes away what belongs to nobody.
    let account = format!("/api/v1/namespaces/{}/serviceaccounts/default", bench.cluster.namespace());
    let account: Value = bench.cluster.client().request(Request::get(account).body(Vec::new())?).await?;
    let attempt = |name: &str| {
        let mut pod = execution(&bench.app, "one", "true");
        (pod["metadata"]["name"], pod["spec"]["nodeName"]) = (name.into(), NODE.into());
        pod["metadata"]["labels"]["execution-id"] = "one".into();
        pod["metadata"]["ownerReferences"] = json!([{ "apiVersion": "v1", "kind": "ServiceAccount", "name": "default",
            "uid": account["metadata"]["uid"], "controller": true }]);
        pod
    };
    let first = bench.cluster.create(attempt("try-1")).await?;
    bench.cluster.patch_status("try-1", status::ended(0)).await?;
    let whole = ["pod_scheduled", "execution_running", "execution_completed"];
    let told = expect(&mut history, &first, &whole).await?;
    ensure!(told.iter().all(|r| r.key == "one" && r.value["owner"]["uid"] == account["metadata"]["uid"]), "{told:#?}");
    ensure!(told.iter().all(|r| r.value.get("earlier_end").is_none()), "{told:#?}");
    // Forgotten by the API server, not by us.
    bench.cluster.delete("try-1", Some(0)).await?;
    expect(&mut history, &first, &[&whole[..], &["pod_terminated"]].concat()).await?;
    let second = bench.cluster.create(attempt("try-2")).await?;
    bench.cluster.patch_status("try-2", status::ended(3)).await?;
    let failed = ["pod_scheduled", "execution_running", "execution_failed"];
    let told = expect(&mut history, &second, &failed).await?;
    for record in &told {
        let earlier = &record.value["earlier_end"];
        ensure!(earlier["pod_uid"] == *first && earlier["event_type"] == "execution_completed", "{record:#?}");
    }
    let claims = monitor.metric(r#"pod_monitor_claims_total{event_type="execution_completed"}"#)?;
    ensure!(claims == 1.0, "counted once: {claims}");
    bench.log_line("pod claims a finished execution").await?;
    drop(monitor);
    bench.close().await
}

#[tokio::test]
async fn sharded_by_execution_a_retry_is_told_after_the_end_of_what_it_retries() -> Result<()> {
    // Their node answers nobody: an end waits for its output until the deadline.
    let bench = Bench::new("in-order").await?;
    let monitor = bench.monitor(&["--shard-by", "execution"]).await?;
    let mut history = bench.history()?;
    let attempt = |name: &str| {
        let mut pod = execution(&bench.app, "one", "true");
        (pod["metadata"]["name"], pod["spec"]["nodeName"]) = (name.into(), NODE.into());
        pod["metadata"]["labels"]["execution-id"] = "one".into();
        pod
    };
    let first = bench.cluster.create(attempt("try-1")).await?;
    bench.cluster.patch_status("try-1", status::ended(3)).await?;
    let failed = ["pod_scheduled", "execution_running", "execution_failed"];
    expect(&mut history, &first, &failed[..2]).await?;
    let second = bench.cluster.create(attempt("try-2")).await?;
    bench.cluster.patch_status("try-2", status::ended(0)).await?;
    let completed = ["pod_scheduled", "execution_running", "execution_completed"];
    expect(&mut history, &second, &completed).await?;
    let of_execution: Vec<&str> =
        history.records.iter().filter(|r| r.key == "one").map(|r| r.text("event_type")).collect();
    ensure!(of_execution == [failed, completed].concat(), "{of_execution:?}");
    faultless(&history, &[truth(&first, &failed), truth(&second, &completed)])?;
    monitor.stop(LIMIT).await?;
    // Another choice does not fit what this one has told.
    let mut other = bench.launch.clone().with(&["--shard-by", "uid"]).start()?;
    ensure!(other.ended(LIMIT).await?.code() == Some(2), "{}", other.log_end());
    ensure!(other.log_end().contains("shard-by"), "{}", other.log_end());
    bench.close().await
}
