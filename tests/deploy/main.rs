//! The image and deploy/ on a real cluster: the monitor as a Deployment with the Roles of deploy/kustomize, and as a
//! release of the chart.
//!
//! Needs the whole local stack; run by `cargo xtask test --suite deploy`. Builds the image itself.
#![allow(clippy::unwrap_used, reason = "a test's helpers fail the test, like the test itself")]

mod alerts;
mod chart;
mod explained;
mod finalizer;
mod newcomer;
mod release;
mod reshard;
mod rules;
mod same;
mod sbom;
mod secrets;
mod support;

use std::{fs, path::Path, time::Duration};

use serde_json::json;
use testkit::clients::{
    checker::{Truth, judge},
    cluster::execution,
    history::Record,
    installation::{LIMIT, Rights, relative},
};

use support::{ended, install, kubectl, not_ready, stack};

/// Rules of a Role with these verbs.
fn rules(pods: &[&str], logs: &[&str]) -> serde_json::Value {
    let rule = |resource: &str, verbs: &[&str]| json!({ "apiGroups": [""], "resources": [resource], "verbs": verbs });
    let of = [("pods", pods), ("pods/log", logs)];
    // A rule without verbs is not a legal one.
    of.iter().filter(|(_, verbs)| !verbs.is_empty()).map(|(resource, verbs)| rule(resource, verbs)).collect()
}

fn types(records: &[&Record]) -> Vec<String> {
    records.iter().map(|record| record.event_type().to_owned()).collect()
}

#[tokio::test]
async fn the_deployment_tells_an_executions_story() {
    let installed = install("story", Rights::All).await;
    installed.ready().await.unwrap();
    let uid = installed.watched.create(execution(&installed.name, "told", "echo hello")).await.unwrap();
    let mut history = installed.history().unwrap();
    let ended = |records: &[Record]| records.iter().any(Record::is_end).then_some(());
    history.until(LIMIT, "the execution's end is told", ended).await.unwrap();
    let told = history.of_pod(&uid);
    assert_eq!(types(&told), ["pod_scheduled", "execution_running", "execution_completed"]);
    let end = &told[2].value;
    assert_eq!((end["stdout"].as_str(), end["logs"]["status"].as_str()), (Some("hello\n"), Some("complete")), "{end}");
    assert_eq!(end["namespace"], installed.watched.namespace());
    // With the settings and the rights of what is installed, as the page says.
    let said = reshard::verified(&installed.name);
    assert!(said.contains("all is well") && said.contains("job.batch/pod-monitor-verify"), "{said}");
    // SIGTERM reaches the monitor as the container's first process, and there is time for its drain.
    installed.stop(Duration::from_secs(20)).await.unwrap();
}

#[tokio::test]
async fn the_leaders_pod_is_deleted_and_a_standby_goes_on() {
    let installed = install("leader", Rights::All).await;
    installed.ready().await.unwrap();
    let mut truths = Vec::new();
    for round in 0..3 {
        let leader = installed.leader("").await.unwrap();
        // One begins under the old leader and ends under the new one.
        let pod = execution(&installed.name, &format!("across-{round}"), "echo begun; sleep 3; echo ended");
        let uid = installed.watched.create(pod).await.unwrap();
        let mut history = installed.history().unwrap();
        let runs = |records: &[Record]| {
            records.iter().any(|r| r.text("pod_uid") == uid && r.event_type() == "execution_running").then_some(())
        };
        history.until(LIMIT, "the execution runs", runs).await.unwrap();
        // As an operator does, and once without grace.
        installed.delete(&leader, round == 1).await.unwrap();
        let next = installed.leader(&leader).await.unwrap();
        assert_ne!(next, leader, "another pod leads");
        truths.push(Truth { uid, expected: vec!["pod_scheduled", "execution_running", "execution_completed"] });
    }
    let mut history = installed.history().unwrap();
    let ends = |records: &[Record]| (records.iter().filter(|r| r.is_end()).count() >= truths.len()).then_some(());
    history.until(LIMIT, "all executions have ended", ends).await.unwrap();
    history.read(Duration::from_millis(300)).unwrap();
    assert_eq!(judge(&truths, &history.records), []);
    installed.stop(Duration::from_secs(20)).await.unwrap();
}

#[tokio::test]
async fn missing_rights_on_leases_are_named_by_readyz() {
    let installed = install("leases", Rights::NoLeases).await;
    not_ready(&installed, &["lease", "list lease", "kubectl create role pod-monitor-leases"]).await;
}

#[tokio::test]
async fn a_missing_verb_list_is_named_by_readyz() {
    let installed = install("list", Rights::Watched(rules(&["get", "watch"], &["get"]))).await;
    not_ready(&installed, &["kubernetes", "list pods", "cannot list resource"]).await;
}

#[tokio::test]
async fn a_missing_verb_watch_is_named_by_readyz() {
    let installed = install("watch", Rights::Watched(rules(&["get", "list"], &["get"]))).await;
    not_ready(&installed, &["kubernetes", "watch pods", "cannot watch resource"]).await;
}

#[tokio::test]
async fn without_the_right_to_read_logs_the_end_is_told_and_says_so() {
    let installed = install("logs", Rights::Watched(rules(&["get", "list", "watch"], &[]))).await;
    installed.ready().await.unwrap();
    let uid = installed.watched.create(execution(&installed.name, "unread", "echo hidden; exit 3")).await.unwrap();
    let mut history = installed.history().unwrap();
    let ended = |records: &[Record]| records.iter().find(|record| record.is_end()).cloned();
    let end = history.until(LIMIT, "the execution's end is told", ended).await.unwrap();
    assert_eq!((end.text("pod_uid"), end.event_type()), (uid.as_str(), "execution_failed"));
    assert_eq!(end.value["exit_code"], 3);
    let logs = &end.value["logs"];
    assert_eq!((&logs["status"], &logs["reason"]), (&json!("unavailable"), &json!("forbidden")), "{}", end.value);
    assert_eq!(end.value.get("stdout"), None, "absent, never invented");
}

#[tokio::test]
async fn a_cluster_whose_id_may_not_be_read_ends_it_with_the_mend() {
    let installed = install("cluster-id", Rights::NoClusterId).await;
    ended(&installed, 2, "kubectl create clusterrole pod-monitor-cluster-id --verb=get --resource=namespaces").await;
}

#[test]
fn the_example_overlay_is_complete() {
    let example = concat!(env!("CARGO_MANIFEST_DIR"), "/deploy/kustomize/overlays/example");
    let (rendered, _) = kubectl(stack().endpoints(), &["kustomize", example]).unwrap();
    let kinds: Vec<&str> = rendered.lines().filter_map(|line| line.strip_prefix("kind: ")).collect();
    for (kind, count) in [("Namespace", 1), ("ServiceAccount", 1), ("Role", 2), ("RoleBinding", 2), ("ConfigMap", 1)] {
        assert_eq!(kinds.iter().filter(|found| **found == kind).count(), count, "{kind} in\n{rendered}");
    }
    assert!(kinds.contains(&"Service") && kinds.contains(&"Deployment"), "{kinds:?}");
    for text in ["namespace: executions", "selector: app=executor", "kafka: kafka.kafka.svc:9092"] {
        assert!(rendered.contains(text), "{text} in\n{rendered}");
    }
}

/// The file with everything below `# components:` said, not commented, and the bases where they are.
fn said(text: &str, from: &Path) -> String {
    let bases = relative(from, &support::kustomize()).unwrap().display().to_string();
    let (mut lines, mut below) = (Vec::new(), false);
    for line in text.lines() {
        below = line.starts_with('#') && (below || line == "# components:");
        lines.push(if below { line.trim_start_matches('#').strip_prefix(' ').unwrap_or_default() } else { line });
    }
    lines.iter().map(|line| format!("{}\n", line.replace("../../../", "../../").replace("../..", &bases))).collect()
}

#[test]
fn what_the_example_has_as_comments_works_when_it_is_said() {
    let (example, copy) = (support::kustomize().join("overlays/example"), Path::new(env!("CARGO_TARGET_TMPDIR")));
    let copy = copy.join("example-said");
    for part in ["", "monitor", "watched"] {
        let (from, to) = (example.join(part), copy.join(part));
        fs::create_dir_all(&to).unwrap();
        for file in fs::read_dir(from).unwrap().map(|entry| entry.unwrap().path()).filter(|path| path.is_file()) {
            let text = said(&fs::read_to_string(&file).unwrap(), &to);
            fs::write(to.join(file.file_name().unwrap()), text).unwrap();
        }
    }
    let (rendered, _) = kubectl(stack().endpoints(), &["kustomize", &copy.display().to_string()]).unwrap();
    let all = chart::objects(&rendered);
    let of =
        |name: &str| all.iter().find(|o| chart::name_of(o) == name).unwrap_or_else(|| panic!("{name}: {rendered}"));
    let policy = "pod-monitor-finalizer-pod-monitor";
    of(&format!("MutatingAdmissionPolicy /{policy}"));
    let bound = &of(&format!("MutatingAdmissionPolicyBinding /{policy}"))["spec"];
    assert_eq!(bound["policyName"], policy, "renamed with it");
    assert_eq!(bound["matchResources"]["objectSelector"], json!({ "matchLabels": { "app": "executor" } }));
    of("PodMonitor pod-monitor/pod-monitor");
    let leases = &of("Role pod-monitor/pod-monitor-leases")["rules"][1]["resourceNames"];
    assert_eq!(*leases, json!(["pod-monitor-0", "pod-monitor-1", "pod-monitor-2", "pod-monitor-3"]));
    let verbs = &of("Role executions/pod-monitor")["rules"][0]["verbs"];
    assert_eq!(*verbs, json!(["get", "list", "watch", "patch", "delete"]));
}
