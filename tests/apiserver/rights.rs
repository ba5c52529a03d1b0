//! A ServiceAccount with too few rights: what the monitor says, and that it goes on once they are granted.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::{
    authentication::v1::TokenRequest,
    core::v1::ServiceAccount,
    rbac::v1::{Role, RoleBinding},
};
use kube::{
    Api,
    api::{Patch, PatchParams, PostParams},
};
use serde_json::{Value, json};
use testkit::clients::{monitor::Monitor, until};

use crate::support::{Bench, LIMIT, expect, faultless, proxy::kubeconfig_with_token, ready, truth, unready};

/// What was refused for want of a right is tried again after half a minute.
const AGAIN: Duration = Duration::from_secs(60);

/// A ServiceAccount with a role that grants nothing yet; gives the path of its kubeconfig.
pub(crate) async fn account(bench: &Bench) -> Result<String> {
    let (client, namespace) = (bench.cluster.client(), bench.cluster.namespace().to_owned());
    let accounts: Api<ServiceAccount> = Api::namespaced(client.clone(), &namespace);
    let account = serde_json::from_value(json!({ "metadata": { "name": "monitor" } }))?;
    accounts.create(&PostParams::default(), &account).await.context("create a ServiceAccount")?;
    let bindings: Api<RoleBinding> = Api::namespaced(client, &namespace);
    let binding = serde_json::from_value(json!({
        "metadata": { "name": "monitor" },
        "roleRef": { "apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "monitor" },
        "subjects": [{ "kind": "ServiceAccount", "name": "monitor", "namespace": namespace }],
    }))?;
    bindings.create(&PostParams::default(), &binding).await.context("create a RoleBinding")?;
    let request: TokenRequest = serde_json::from_value(json!({ "spec": { "audiences": [] } }))?;
    let token = accounts.create_token_request("monitor", &PostParams::default(), &request).await;
    let token = token.context("ask for a token")?.status.and_then(|status| status.token).context("a token")?;
    kubeconfig_with_token(&bench.endpoints, &bench.app, &token)
}

/// What the shipped Role grants on Leases, in the order in which they are needed.
const LEASES: [&str; 4] = ["list", "watch", "create", "patch"];

async fn grant(bench: &Bench, verbs: &[&str], resources: &[&str]) -> Result<()> {
    grant_with(bench, verbs, resources, &LEASES).await
}

pub(crate) async fn grant_with(bench: &Bench, verbs: &[&str], resources: &[&str], leases: &[&str]) -> Result<()> {
    let mut rules = vec![json!({ "apiGroups": [""], "resources": resources, "verbs": verbs })];
    // A rule without verbs is not a legal one.
    if !leases.is_empty() {
        rules.push(json!({ "apiGroups": ["coordination.k8s.io"], "resources": ["leases"], "verbs": leases }));
    }
    grant_rules(bench, rules).await
}

/// From now on the ServiceAccount has these rights and no others.
pub(crate) async fn grant_rules(bench: &Bench, rules: Vec<Value>) -> Result<()> {
    let roles: Api<Role> = Api::namespaced(bench.cluster.client(), bench.cluster.namespace());
    let role = json!({ "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "Role",
        "metadata": { "name": "monitor" }, "rules": rules });
    roles.patch("monitor", &PatchParams::apply("tests").force(), &Patch::Apply(role)).await.context("grant")?;
    Ok(())
}

#[tokio::test]
async fn each_missing_right_is_named_with_its_mend_and_none_needs_a_restart() -> Result<()> {
    let bench = Bench::new("rights").await?;
    let kubeconfig = account(&bench).await?;
    let launch = bench.launch.clone().with(&["--cluster-id", "c-1"]).variable("KUBECONFIG", &kubeconfig);
    let mut monitor = launch.start()?;
    let command = format!(
        "kubectl create role pod-monitor --verb=get,list,watch --resource=pods,pods/log --namespace {}",
        bench.app
    );
    unready(&monitor, &["kubernetes", "list pods", &command]).await?;
    let leases = format!("--resource=leases.coordination.k8s.io --namespace {}", bench.app);
    unready(&monitor, &["lease", "list lease", "--verb=list,watch,create,patch", &leases]).await?;
    grant(&bench, &["list"], &["pods"]).await?;
    unready(&monitor, &["kubernetes", "watch pods", &command]).await?;
    grant(&bench, &["list", "watch"], &["pods"]).await?;
    ready(&mut monitor).await?;
    let mut history = bench.history()?;

    // Without get on pods/log the end is told, and says why it has no output.
    let uid = bench.running("a").await?;
    bench.end("a", 0).await?;
    let whole = ["pod_scheduled", "execution_running", "execution_completed"];
    let told = expect(&mut history, &uid, &whole).await?;
    let logs = &told[2].value["logs"];
    ensure!(logs["status"] == "unavailable" && logs["reason"] == "forbidden", "{logs}");

    // Without list on events a failure is told, and our log says what it lacks.
    let failed_uid = bench.running("failed").await?;
    bench.end("failed", 1).await?;
    let failed = ["pod_scheduled", "execution_running", "execution_failed"];
    let told = expect(&mut history, &failed_uid, &failed).await?;
    ensure!(told[2].value.get("kubernetes_events").is_none(), "{}", told[2].value);
    let line = bench.log_line("ends are told without their Kubernetes Events").await?;
    let mend = "kubectl create role pod-monitor-events --verb=list --resource=events";
    ensure!(line["why"].as_str().is_some_and(|why| why.contains(mend)), "{line}");

    // Only a GET tells whether a pod went or left: without the right nothing is told, with it the monitor goes on.
    let left = bench.running("left").await?;
    expect(&mut history, &left, &whole[..2]).await?;
    bench.cluster.patch("exec-left", json!({ "metadata": { "labels": { "app": "other" } } })).await?;
    unready(&monitor, &["kubernetes", "get pods", &command]).await?;
    grant(&bench, &["get", "list", "watch"], &["pods", "pods/log"]).await?;
    ready(&mut monitor).await?;
    bench.log_line("pod left the selection, no longer followed").await?;
    let flush = bench.flush(&mut history, "flush").await?;
    bench.end("flush", 0).await?;
    let told = expect(&mut history, &flush.uid, &whole).await?;
    ensure!(told[2].value["logs"]["reason"] != "forbidden", "{}", told[2].value);
    let truths =
        [truth(&uid, &whole), truth(&failed_uid, &failed), truth(&left, &whole[..2]), truth(&flush.uid, &whole)];
    faultless(&history, &truths)?;
    monitor.stop(LIMIT).await?;
    bench.close().await
}

#[tokio::test]
async fn each_right_on_leases_is_needed_and_named_until_it_is_granted() -> Result<()> {
    let bench = Bench::new("lease-rights").await?;
    let kubeconfig = account(&bench).await?;
    let launch = bench.launch.clone().with(&["--cluster-id", "c-1"]).variable("KUBECONFIG", &kubeconfig);
    let mut monitor = launch.start()?;
    for granted in 0..LEASES.len() {
        grant_with(&bench, &["get", "list", "watch"], &["pods", "pods/log"], &LEASES[..granted]).await?;
        let missing = format!("{} lease {}/{}-0: the API server refuses", LEASES[granted], bench.app, bench.app);
        unready(&monitor, &["lease", &missing, "kubectl create role pod-monitor-leases"]).await?;
    }
    grant(&bench, &["get", "list", "watch"], &["pods", "pods/log"]).await?;
    ready(&mut monitor).await?;
    let mut history = bench.history()?;
    let uid = bench.running("a").await?;
    bench.end("a", 0).await?;
    let whole = ["pod_scheduled", "execution_running", "execution_completed"];
    expect(&mut history, &uid, &whole).await?;
    monitor.stop(LIMIT).await?;
    bench.close().await
}

/// A monitor with these flags, that may read pods and their logs; it leads.
async fn reader(bench: &Bench, flags: &[&str]) -> Result<Monitor> {
    bench.empty_node()?;
    let kubeconfig = account(bench).await?;
    grant(bench, &["get", "list", "watch"], &["pods", "pods/log"]).await?;
    let launch = bench.launch.clone().with(&["--cluster-id", "c-1"]).with(flags).variable("KUBECONFIG", &kubeconfig);
    let mut monitor = launch.start()?;
    monitor.leading(LIMIT).await?;
    Ok(monitor)
}

/// Waits until this deed has been refused, and says so in the log and in the metrics.
async fn refused(bench: &Bench, monitor: &Monitor, deed: &str, verb: &str) -> Result<()> {
    let line = bench.log_line("not done yet, trying again").await?;
    let error = line["error"].as_str().unwrap_or_default();
    ensure!(line["level"] == "WARN" && line["deed"] == deed, "{line}");
    ensure!(error.contains(&format!("cannot {verb} resource \"pods\"")), "{line}");
    ensure!(cleanups(monitor, deed, "failed")? >= 1.0, "it is counted");
    ensure!(monitor.get("/readyz")?.0 == 200, "it tells events all the same");
    Ok(())
}

fn cleanups(monitor: &Monitor, deed: &str, result: &str) -> Result<f64> {
    monitor.metric(&format!(r#"pod_monitor_cleanups_total{{deed="{deed}",result="{result}"}}"#))
}

#[tokio::test]
async fn without_patch_the_end_is_told_and_the_finalizer_stays_until_it_is_granted() -> Result<()> {
    let bench = Bench::new("patch-right").await?;
    let monitor = reader(&bench, &["--finalizer", "pod-monitor/captured"]).await?;
    let mut history = bench.history()?;
    let uid = bench.running_there("a").await?;
    bench.cluster.patch("exec-a", json!({ "metadata": { "finalizers": ["pod-monitor/captured"] } })).await?;
    bench.end("a", 0).await?;
    let whole = ["pod_scheduled", "execution_running", "execution_completed", "pod_terminated"];
    expect(&mut history, &uid, &whole[..3]).await?;
    refused(&bench, &monitor, "release", "patch").await?;
    bench.delete("a").await?;
    ensure!(bench.cluster.pod("exec-a").await?.is_some(), "its finalizer holds it");
    grant(&bench, &["get", "list", "watch", "patch"], &["pods", "pods/log"]).await?;
    bench.cluster.wait_gone("exec-a", AGAIN).await?;
    expect(&mut history, &uid, &whole).await?;
    ensure!(cleanups(&monitor, "release", "done")? == 1.0, "once");
    faultless(&history, &[truth(&uid, &whole)])?;
    monitor.stop(LIMIT).await?;
    bench.close().await
}

#[tokio::test]
async fn without_delete_the_end_is_told_and_the_pod_stays_until_it_is_granted() -> Result<()> {
    let bench = Bench::new("delete-right").await?;
    let monitor = reader(&bench, &["--delete-finished", "1s"]).await?;
    let mut history = bench.history()?;
    let uid = bench.running_there("a").await?;
    bench.end("a", 0).await?;
    let whole = ["pod_scheduled", "execution_running", "execution_completed"];
    expect(&mut history, &uid, &whole).await?;
    refused(&bench, &monitor, "delete", "delete").await?;
    let asked = |pod: Option<Value>| pod.is_none_or(|pod| pod["metadata"]["deletionTimestamp"].is_string());
    ensure!(!asked(bench.cluster.pod("exec-a").await?), "nobody else deletes it");
    grant(&bench, &["get", "list", "watch", "delete"], &["pods", "pods/log"]).await?;
    let look = async || Ok(asked(bench.cluster.pod("exec-a").await?).then_some(()));
    until(AGAIN, "its deletion is asked for", look).await?;
    faultless(&history, &[truth(&uid, &whole)])?;
    monitor.stop(LIMIT).await?;
    bench.close().await
}

#[tokio::test]
async fn a_cluster_whose_name_may_not_be_read_needs_a_flag_or_a_right() -> Result<()> {
    let bench = Bench::new("nameless").await?;
    let kubeconfig = account(&bench).await?;
    let mut monitor = bench.launch.clone().variable("KUBECONFIG", &kubeconfig).start()?;
    ensure!(monitor.ended(LIMIT).await?.code() == Some(2), "{}", monitor.log_end());
    let error = bench.log_line("cannot go on").await?["error"].as_str().unwrap_or_default().to_owned();
    let command = "kubectl create clusterrole pod-monitor-cluster-id --verb=get --resource=namespaces \
                   --resource-name=kube-system";
    ensure!(error.contains("--cluster-id") && error.contains(command), "{error}");
    bench.close().await
}

#[tokio::test]
async fn rights_for_all_namespaces_are_a_cluster_role() -> Result<()> {
    let bench = Bench::new("all-rights").await?;
    let kubeconfig = account(&bench).await?;
    let mut launch = bench.launch.clone().with(&["--cluster-id", "c-1"]).variable("KUBECONFIG", &kubeconfig);
    let at = launch.arguments.iter().position(|a| a == "--namespace").expect("Launch::new names one");
    launch.arguments.splice(at..at + 2, ["--all-namespaces".to_owned()]);
    let monitor = launch.start()?;
    let command = "kubectl create clusterrole pod-monitor --verb=get,list,watch --resource=pods,pods/log";
    unready(&monitor, &["list pods", command]).await?;
    drop(monitor);
    bench.close().await
}
