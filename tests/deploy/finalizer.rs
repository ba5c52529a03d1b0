//! The policy that puts the finalizer on execution pods as they are created, and what becomes of pods that have it.

use std::{process::Command, time::Duration};

use kube::{
    Api,
    api::{Patch, PatchParams, PostParams},
};
use serde_json::{Value, json};
use testkit::clients::{
    checker::{Truth, judge},
    cluster::{Cluster, execution},
    history::{History, Record},
    installation::{FINALIZER, Installation, LIMIT, Plan},
    until,
};

use crate::support::{kubectl, kustomize, stack};

type Pod = k8s_openapi::api::core::v1::Pod;

/// Id of the pod, where it is created, its label, its finalizers as it was written and as it was created.
type Case<'a> = (&'a str, &'a Cluster, &'a str, &'a [&'a str], &'a [&'a str]);

const OTHER: &str = "example.com/other";
const WHOLE: [&str; 4] = ["pod_scheduled", "execution_running", "execution_failed", "pod_terminated"];

/// An installation with the policy; where it has no replica, nobody takes a finalizer off.
async fn install(test: &str, replicas: usize) -> Installation {
    let name = format!("held-{test}-{}", std::process::id());
    let plan = Plan { finalizer: true, replicas: Some(replicas), ..Plan::new(&name) };
    let installed = Installation::install(stack().endpoints(), &kustomize(), &plan).await.unwrap();
    in_force(&installed).await;
    installed
}

/// Waits until the API server asks the policy: it learns of a new one a moment later.
async fn in_force(installed: &Installation) {
    let pods: Api<Pod> = Api::namespaced(installed.watched.client(), installed.watched.namespace());
    let trial = PostParams { dry_run: true, ..PostParams::default() };
    let probe: Pod = serde_json::from_value(gated(&installed.name, "probe", &[])).unwrap();
    let look = async || Ok(pods.create(&trial, &probe).await?.metadata.finalizers.map(drop));
    until(LIMIT, "the policy is in force", look).await.unwrap();
}

/// A pod that no scheduler takes, as its creator writes it.
fn gated(app: &str, id: &str, finalizers: &[&str]) -> Value {
    let mut pod = execution(app, id, "true");
    pod["spec"]["schedulingGates"] = json!([{ "name": "example.com/never" }]);
    pod["metadata"]["finalizers"] = json!(finalizers);
    pod
}

async fn finalizers(cluster: &Cluster, id: &str) -> Vec<String> {
    let pod = cluster.pod(&format!("exec-{id}")).await.unwrap().expect("the pod is there");
    serde_json::from_value(pod["metadata"]["finalizers"].clone()).unwrap_or_default()
}

/// An execution that runs and says so; ended from outside, it has a last word, and fails.
async fn running(installed: &Installation, history: &mut History, id: &str) -> String {
    let script = "trap 'echo last; exit 3' TERM; echo first; while true; do sleep 0.1; done";
    let mut pod = execution(&installed.name, id, script);
    pod["spec"]["terminationGracePeriodSeconds"] = 20.into();
    let uid = installed.watched.create(pod).await.unwrap();
    let runs = |records: &[Record]| {
        records.iter().any(|r| r.text("pod_uid") == uid && r.event_type() == "execution_running").then_some(())
    };
    history.until(LIMIT, "the execution runs", runs).await.unwrap();
    let said = async || {
        let log = installed.watched.log(&format!("exec-{id}"), "Stdout").await?;
        Ok((log == "first\n").then_some(()))
    };
    until(LIMIT, "it has said its first word", said).await.unwrap();
    uid
}

/// Waits until this was told of a pod; its end.
async fn told(history: &mut History, uid: &str, expected: &[&str]) -> Value {
    let last = *expected.last().expect("something is told");
    let is =
        |records: &[Record]| records.iter().any(|r| r.text("pod_uid") == uid && r.event_type() == last).then_some(());
    history.until(LIMIT, &format!("{last} of {uid}"), is).await.unwrap();
    let of_pod = history.of_pod(uid);
    assert_eq!(of_pod.iter().map(|r| r.event_type()).collect::<Vec<_>>(), expected);
    of_pod.iter().find(|record| record.is_end()).expect("an end").value.clone()
}

/// The command of deploy/README.md that lets everything go by hand, for this installation.
fn by_hand(installed: &Installation) -> String {
    let page = std::fs::read_to_string(kustomize().join("../README.md")).unwrap();
    let section = page.split("**Let go by hand**").nth(1).expect("the section of the page");
    let block = section.split("```console\n").nth(1).and_then(|rest| rest.split("```").next()).expect("a command");
    assert!(block.contains("-n executions") && block.contains("app=executor"), "{block}");
    block
        .replace("-n executions", &format!("-n {}", installed.watched.namespace()))
        .replace("app=executor", &format!("app={}", installed.name))
}

#[tokio::test]
async fn pods_get_the_finalizer_as_they_are_created_if_they_are_executions() {
    let installed = install("marked", 0).await;
    let (app, watched) = (installed.name.as_str(), &installed.watched);
    let elsewhere = Cluster::connect(stack().endpoints(), &format!("{app}-elsewhere")).await.unwrap();
    let cases: [Case<'_>; 5] = [
        ("plain", watched, app, &[], &[FINALIZER]),
        ("held-by-others", watched, app, &[OTHER], &[OTHER, FINALIZER]),
        ("has-it", watched, app, &[FINALIZER, OTHER], &[FINALIZER, OTHER]),
        ("no-execution", watched, "other", &[], &[]),
        ("not-watched", &elsewhere, app, &[], &[]),
    ];
    for (id, cluster, app, written, expected) in cases {
        cluster.create(gated(app, id, written)).await.unwrap();
        assert_eq!(finalizers(cluster, id).await, expected, "{id}");
    }
    // What was taken off stays off, whoever changes the pod after that.
    for patch in [json!({ "finalizers": null }), json!({ "annotations": { "a": "b" } })] {
        watched.patch("exec-plain", json!({ "metadata": patch })).await.unwrap();
        assert_eq!(finalizers(watched, "plain").await, [""; 0]);
    }
    for id in ["held-by-others", "has-it"] {
        watched.patch(&format!("exec-{id}"), json!({ "metadata": { "finalizers": null } })).await.unwrap();
    }
    elsewhere.remove_namespace().await.unwrap();
}

#[tokio::test]
async fn a_policy_that_fails_keeps_nobodys_pods_from_being_created() {
    let installed = install("broken", 0).await;
    // Well-formed, and fails whenever it is evaluated: there is no eighth part.
    let policy = format!("pod-monitor-finalizer-{}", installed.name);
    let broken = r#"[{"op":"replace","path":"/spec/variables/0/expression","value":"'a/b/c'.split('/')[7]"}]"#;
    let patch = ["patch", "mutatingadmissionpolicy", &policy, "--type=json", "--patch", broken];
    kubectl(stack().endpoints(), &patch).unwrap();
    let pods: Api<Pod> = Api::namespaced(installed.watched.client(), installed.watched.namespace());
    let trial = PostParams { dry_run: true, ..PostParams::default() };
    let probe: Pod = serde_json::from_value(gated(&installed.name, "probe", &[])).unwrap();
    let look = async || Ok(pods.create(&trial, &probe).await?.metadata.finalizers.is_none().then_some(()));
    until(LIMIT, "pods are created without it", look).await.unwrap();
}

#[tokio::test]
async fn a_pod_deleted_while_it_runs_is_told_whole_and_then_let_go() {
    let installed = install("deleted", 3).await;
    installed.ready().await.unwrap();
    let mut history = installed.history().unwrap();
    let uid = running(&installed, &mut history, "a").await;
    assert_eq!(finalizers(&installed.watched, "a").await, [FINALIZER]);
    installed.watched.delete("exec-a", None).await.unwrap();
    installed.watched.wait_gone("exec-a", LIMIT).await.unwrap();
    // Who sees the pod gone finds its end told: it was let go after the commit.
    let mut now = installed.history().unwrap();
    now.read(Duration::from_secs(1)).unwrap();
    assert!(now.of_pod(&uid).iter().any(|record| record.is_end()), "{:#?}", now.of_pod(&uid));
    let end = told(&mut history, &uid, &WHOLE).await;
    assert_eq!((end["exit_code"].as_i64(), end["stdout"].as_str()), (Some(3), Some("first\nlast\n")), "{end}");
    assert_eq!(end["logs"]["status"], "complete", "{end}");
    installed.stop(Duration::from_secs(20)).await.unwrap();
}

#[tokio::test]
async fn a_namespace_that_is_deleted_under_a_running_monitor_goes_and_its_pods_are_told() {
    let installed = install("ending", 3).await;
    installed.ready().await.unwrap();
    let mut history = installed.history().unwrap();
    let runs = running(&installed, &mut history, "runs").await;
    let waits = installed.watched.create(gated(&installed.name, "waits", &[])).await.unwrap();
    installed.watched.remove_namespace().await.unwrap();
    // The Role by which the monitor lets go is of this namespace, too: it must not go before the pods.
    gone(&installed).await;
    let end = told(&mut history, &runs, &WHOLE).await;
    assert_eq!((end["exit_code"].as_i64(), end["stdout"].as_str()), (Some(3), Some("first\nlast\n")), "{end}");
    let unstarted = ["execution_failed", "pod_terminated"];
    let end = told(&mut history, &waits, &unstarted).await;
    assert_eq!(end["attempt_started"], false, "{end}");
    history.read(Duration::from_millis(300)).unwrap();
    let truths = [(runs, WHOLE.to_vec()), (waits, unstarted.to_vec())];
    assert_eq!(judge(&truths.map(|(uid, expected)| Truth { uid, expected }), &history.records), []);
}

#[tokio::test]
async fn while_no_monitor_runs_a_namespace_waits_until_its_pods_are_let_go_by_hand() {
    let installed = install("stuck", 0).await;
    let watched = &installed.watched;
    for id in ["one", "two"] {
        watched.create(gated(&installed.name, id, &[])).await.unwrap();
    }
    watched.create(gated(&installed.name, "three", &[OTHER])).await.unwrap();
    watched.remove_namespace().await.unwrap();
    let waiting = async || {
        let pod = watched.pod("exec-one").await?;
        Ok(pod.filter(|pod| pod["metadata"]["deletionTimestamp"].is_string()))
    };
    until(LIMIT, "its pods are asked to go", waiting).await.unwrap();
    let command = by_hand(&installed);
    let output = Command::new("sh").args(["-c", &command]).envs(stack().endpoints().variables().unwrap()).output();
    let output = output.unwrap();
    assert!(output.status.success(), "{command}: {output:?}");
    for id in ["one", "two"] {
        watched.wait_gone(&format!("exec-{id}"), LIMIT).await.unwrap();
    }
    assert_eq!(finalizers(watched, "three").await, [OTHER], "what others hold stays held");
    let pods: Api<Pod> = Api::namespaced(watched.client(), watched.namespace());
    let release = Patch::Merge(json!({ "metadata": { "finalizers": null } }));
    pods.patch("exec-three", &PatchParams::default(), &release).await.unwrap();
    gone(&installed).await;
}

/// Waits until the watched namespace is gone.
async fn gone(installed: &Installation) {
    let namespace = installed.watched.namespace();
    let look = async || {
        let get = ["get", "namespace", namespace, "--ignore-not-found", "--output=yaml"];
        Ok(kubectl(stack().endpoints(), &get)?.0.is_empty().then_some(()))
    };
    if let Err(error) = until(LIMIT, "the namespace is gone", look).await {
        let left = ["get", "pods,roles,rolebindings", "--namespace", namespace, "--output=yaml"];
        let left = kubectl(stack().endpoints(), &left).map(|said| said.0);
        panic!("{error:#}: {left:?}\n{}", installed.story().await);
    }
}
