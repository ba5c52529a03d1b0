//! What others know of an end: Kubernetes Events about a failed pod, and rules of the user that ask for them.

use anyhow::{Context, Result, ensure};
use http::Request;
use serde_json::{Value, json};
use testkit::clients::cluster::execution;

use crate::{
    breakable::Breakable,
    support::{Bench, LIMIT, expect, faultless, status, truth},
};

const FAILED: [&str; 3] = ["pod_scheduled", "execution_running", "execution_failed"];
const COMPLETED: [&str; 3] = ["pod_scheduled", "execution_running", "execution_completed"];

/// Writes a Kubernetes Event about a pod, as a kubelet would.
async fn report(bench: &Bench, uid: &str, pod: &str, reason: &str, second: u32) -> Result<()> {
    let namespace = bench.cluster.namespace();
    let at = format!("2026-01-02T03:04:{second:02}Z");
    let event = json!({ "metadata": { "generateName": format!("{pod}.") }, "type": "Warning", "reason": reason,
        "message": format!("{reason} of {pod}"), "count": second, "firstTimestamp": at, "lastTimestamp": at,
        "involvedObject": { "apiVersion": "v1", "kind": "Pod", "namespace": namespace, "name": pod, "uid": uid } });
    bench.cluster.post("/api/v1", "events", event).await.map(drop)
}

#[tokio::test]
async fn a_failure_tells_what_kubernetes_reported_of_its_pod_and_a_success_does_not() -> Result<()> {
    let bench = Bench::new("evidence").await?;
    let monitor = bench.monitor(&[]).await?;
    let mut history = bench.history()?;
    let mut uids = Vec::new();
    for id in ["failed", "completed", "forced"] {
        let uid = bench.running(id).await?;
        // The newest are told, whatever their order; of another pod, none.
        for second in [12, 3, 1, 2, 4, 5, 6, 7, 8, 9, 10, 11] {
            report(&bench, &uid, &format!("exec-{id}"), &format!("R{second}"), second).await?;
        }
        uids.push(uid);
    }
    bench.end("failed", 3).await?;
    bench.end("completed", 0).await?;
    expect(&mut history, &uids[2], &FAILED[..2]).await?;
    bench.delete("forced").await?;

    let told = expect(&mut history, &uids[0], &FAILED).await?;
    let events = told[2].value["kubernetes_events"].as_array().context("events")?;
    let reasons: Vec<&str> = events.iter().filter_map(|event| event["reason"].as_str()).collect();
    ensure!(reasons == ["R3", "R4", "R5", "R6", "R7", "R8", "R9", "R10", "R11", "R12"], "{reasons:?}");
    let last = json!({ "type": "Warning", "reason": "R12", "message": "R12 of exec-failed", "count": 12,
        "last_seen": "2026-01-02T03:04:12Z" });
    ensure!(events[9] == last, "{}", events[9]);

    let told = expect(&mut history, &uids[1], &COMPLETED).await?;
    ensure!(told[2].value.get("kubernetes_events").is_none(), "{}", told[2].value);

    // The object is gone, and with it all that a GET could say; what was reported of it is not.
    let gone = [&FAILED[..], &["pod_terminated"]].concat();
    let told = expect(&mut history, &uids[2], &gone).await?;
    let end = &told[2].value;
    ensure!(end["cause"] == "lost" && end["logs"]["reason"] == "pod_gone", "{end}");
    ensure!(end["kubernetes_events"].as_array().is_some_and(|events| events.len() == 10), "{end}");

    // Nothing ran: there is no log to wait for, and all the more to be reported.
    let refused = bench.unscheduled("refused").await?;
    report(&bench, &refused, "exec-refused", "OutOfcpu", 1).await?;
    let status = json!({ "phase": "Failed", "reason": "OutOfcpu", "message": "Node didn't have enough resource: cpu" });
    bench.cluster.patch_status("exec-refused", status).await?;
    let told = expect(&mut history, &refused, &["execution_failed"]).await?;
    let end = &told[0].value;
    ensure!(end["cause"] == "admission" && end["logs"]["reason"] == "container_not_started", "{end}");
    ensure!(end["kubernetes_events"][0]["reason"] == "OutOfcpu", "{end}");

    let reads = monitor.metric(r#"pod_monitor_evidence_reads_total{witness="events",result="ok"}"#)?;
    ensure!(reads == 3.0, "only failures are asked about: {reads}");
    let truths = [truth(&uids[0], &FAILED), truth(&uids[1], &COMPLETED), truth(&uids[2], &gone)];
    faultless(&history, &[&truths[..], &[truth(&refused, &["execution_failed"])]].concat())?;
    monitor.stop(LIMIT).await?;
    bench.close().await
}

#[tokio::test]
async fn a_rule_of_the_user_decides_by_a_kubernetes_event_and_without_them_it_does_not() -> Result<()> {
    let bench = Bench::new("event-rules").await?;
    let rules = "rules:\n  - name: mount\n    match: {event: {reason: FailedMount}}\n    cause: volume_lost\n    retryable: true";
    let path = bench.launch.log.with_extension("rules.yaml");
    std::fs::write(&path, rules)?;
    let path = path.to_str().context("a path")?;
    let fails = async |id: &str| {
        let uid = bench.running(id).await?;
        report(&bench, &uid, &format!("exec-{id}"), "FailedMount", 1).await?;
        bench.end(id, 1).await?;
        anyhow::Ok(uid)
    };
    let monitor = bench.monitor(&["--rules", path]).await?;
    let mut history = bench.history()?;
    let uid = fails("asked").await?;
    let end = expect(&mut history, &uid, &FAILED).await?.remove(2).value;
    ensure!(end["cause"] == "volume_lost" && end["rule"] == "mount" && end["retryable"] == true, "{end}");
    monitor.stop(LIMIT).await?;

    let monitor = bench.monitor(&["--rules", path, "--kubernetes-events=false"]).await?;
    let uid = fails("unasked").await?;
    let end = expect(&mut history, &uid, &FAILED).await?.remove(2).value;
    ensure!(end["cause"] == "exit_code" && end.get("kubernetes_events").is_none(), "{end}");
    let reads =
        |result| monitor.metric(&format!("pod_monitor_evidence_reads_total{{witness=\"events\",result=\"{result}\"}}"));
    ensure!(reads("ok")? == 0.0 && reads("skipped")? == 0.0, "nobody is asked");
    monitor.stop(LIMIT).await?;
    bench.close().await
}

#[tokio::test]
async fn the_job_of_a_pod_that_ended_unseen_knows_that_it_succeeded() -> Result<()> {
    let own = Breakable::take().await?;
    let bench = own.bench("unseen").await?;
    let (client, namespace) = (bench.cluster.client(), bench.cluster.namespace());
    let jobs = format!("/apis/batch/v1/namespaces/{namespace}/jobs");
    let pod = json!({ "restartPolicy": "Never", "containers": [{ "name": "main", "image": "i" }] });
    let job = json!({ "metadata": { "name": "one" }, "spec": { "template": { "spec": pod } } });
    let job = bench.cluster.post("/apis/batch/v1", "jobs", job).await?;
    let monitor = bench.monitor(&[]).await?;
    let mut history = bench.history()?;
    let mut uids = Vec::new();
    for name in ["one", "another"] {
        let mut pod = execution(&bench.app, name, "true");
        pod["spec"]["nodeName"] = status::NODE.into();
        // Of a Job that is gone nobody knows anything: another of that name is not asked.
        let uid = if name == "one" { job["metadata"]["uid"].clone() } else { "another".into() };
        pod["metadata"]["ownerReferences"] = json!([{ "apiVersion": "batch/v1", "kind": "Job", "name": "one", "uid": uid,
            "controller": true }]);
        uids.push(bench.cluster.create(pod).await?);
        bench.cluster.patch_status(&format!("exec-{name}"), status::running()).await?;
    }
    for uid in &uids {
        expect(&mut history, uid, &FAILED[..2]).await?;
    }
    monitor.stop(LIMIT).await?;

    let condition = |kind: &str| json!({ "type": kind, "status": "True", "reason": "CompletionsReached" });
    let ended = json!({ "status": { "succeeded": 1, "startTime": status::BOUND_AT, "completionTime": status::FINISHED_AT,
        "conditions": [condition("SuccessCriteriaMet"), condition("Complete")] } });
    let request = Request::patch(format!("{jobs}/one/status")).header("content-type", "application/merge-patch+json");
    client.request::<Value>(request.body(serde_json::to_vec(&ended)?)?).await.context("the Job is complete")?;
    bench.delete("one").await?;
    bench.delete("another").await?;
    // Its watch cache begins anew: nobody can say any more what was before.
    own.restart().await?;
    let monitor = bench.monitor(&[]).await?;
    let gone = [&COMPLETED[..], &["pod_terminated"]].concat();
    let told = expect(&mut history, &uids[0], &gone).await?;
    let end = &told[2].value;
    ensure!(end["exit_code"] == 0 && end["logs"]["reason"] == "pod_gone", "{end}");
    ensure!(told[3].value["observed"] == false && told[3].value["exit_code"] == 0, "{}", told[3].value);
    let lost = [&FAILED[..], &["pod_terminated"]].concat();
    let told = expect(&mut history, &uids[1], &lost).await?;
    ensure!(told[2].value["cause"] == "lost", "{}", told[2].value);
    faultless(&history, &[truth(&uids[0], &gone), truth(&uids[1], &lost)])?;
    monitor.stop(LIMIT).await?;
    bench.close().await
}
