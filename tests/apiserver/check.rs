//! `pod-monitor check` as a ServiceAccount: each right that is missing is named with what grants it, and what it names is
//! what a monitor needs.

use std::{
    process::{Command, Output},
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};
use testkit::clients::{monitor::Launch, until};

use crate::{
    rights::{account, grant_rules},
    support::{Bench, LIMIT},
};

/// Rights that were granted are there a moment later.
const SOON: Duration = Duration::from_secs(20);

async fn check(launch: &Launch, more: &[&str]) -> Result<(Option<i32>, Vec<Value>)> {
    let mut command = Command::new(&launch.program);
    command.arg("check").args(&launch.arguments).args(["--output", "json"]).args(more);
    command.envs(launch.variables.iter().map(|(key, value)| (key, value)));
    let Output { status, stdout, stderr } = command.output()?;
    let said: Value = serde_json::from_slice(&stdout)
        .with_context(|| format!("{}{}", String::from_utf8_lossy(&stdout), String::from_utf8_lossy(&stderr)))?;
    Ok((status.code(), said["checks"].as_array().cloned().unwrap_or_default()))
}

fn failed(all: &[Value]) -> Vec<String> {
    let failed = all.iter().filter(|found| found["verdict"] == "failed");
    failed.map(|found| format!("{}: {} MEND {}", found["check"], found["said"], found["mend"])).collect()
}

fn rule(group: &str, resource: &str, verbs: &[&str], names: &[String]) -> Value {
    let mut rule = json!({ "apiGroups": [group], "resources": [resource], "verbs": verbs });
    if !names.is_empty() {
        rule["resourceNames"] = json!(names);
    }
    rule
}

/// As deploy/kustomize grants them, in one Role.
fn shipped(app: &str) -> Vec<Value> {
    vec![
        rule("", "pods", &["get", "list", "watch"], &[]),
        rule("", "pods/log", &["get"], &[]),
        rule("", "events", &["list"], &[]),
        rule("batch", "jobs", &["get"], &[]),
        rule("coordination.k8s.io", "leases", &["create"], &[]),
        rule("coordination.k8s.io", "leases", &["list", "watch", "patch"], &[format!("{app}-0")]),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn the_shipped_rights_pass_and_each_one_taken_away_is_named_with_its_mend() -> Result<()> {
    let bench = Bench::new("check").await?;
    let kubeconfig = account(&bench).await?;
    let launch = bench.launch.clone().with(&["--cluster-id", "c-1"]).variable("KUBECONFIG", &kubeconfig);
    let all = shipped(&bench.app);
    grant_rules(&bench, all.clone()).await?;
    let passes = async || Ok((check(&launch, &[]).await?.0 == Some(0)).then_some(()));
    until(SOON, "it passes with the shipped rights", passes).await?;
    let namespace = format!("--namespace {}", bench.app);
    let lease = format!("--resource-name={}-0", bench.app);
    let mends: [(&[&str], &str, &[&str]); 6] = [
        (&["get", "list", "watch"], "pods in namespace", &["--verb=get,list,watch --resource=pods ", &namespace]),
        (&["get"], "pods/log in namespace", &["--verb=get --resource=pods/log ", &namespace]),
        (&["list"], "events in namespace", &["--verb=list --resource=events ", &namespace]),
        (&["get"], "jobs in namespace", &["--verb=get --resource=jobs.batch ", &namespace]),
        (&["create"], "leases in namespace", &["--verb=create --resource=leases.coordination.k8s.io ", &namespace]),
        (
            &["list", "watch", "patch"],
            "leases/",
            &["--verb=list,watch,patch --resource=leases.coordination.k8s.io", &lease],
        ),
    ];
    for (n, (verbs, object, mend)) in mends.iter().enumerate() {
        let mut fewer = all.clone();
        fewer.remove(n);
        grant_rules(&bench, fewer).await?;
        let named = async || {
            let (code, found) = check(&launch, &[]).await?;
            let failed = failed(&found);
            let said =
                failed.len() == 1 && failed[0].contains(object) && mend.iter().all(|part| failed[0].contains(part));
            Ok((code == Some(1) && said).then_some(()))
        };
        until(SOON, &format!("{verbs:?} on {object} is named, alone"), named).await?;
    }
    bench.close().await
}

#[tokio::test(flavor = "multi_thread")]
async fn what_settings_need_besides_is_asked_for_too() -> Result<()> {
    let bench = Bench::new("check-more").await?;
    let kubeconfig = account(&bench).await?;
    grant_rules(&bench, shipped(&bench.app)).await?;
    let launch = bench.launch.clone().variable("KUBECONFIG", &kubeconfig);
    let more = ["--finalizer", "a/b", "--delete-finished", "1m", "--namespace", "nowhere"];
    let found = async || {
        let failed = failed(&check(&launch.clone().set("--shards", "2"), &more).await?.1);
        // The rights of the Role are there by then.
        let known = !failed.iter().any(|f| f.contains(&format!("jobs in namespace {}", bench.app)));
        Ok(known.then_some(failed))
    };
    let failed = until(SOON, "the Role counts", found).await?;
    for expected in [
        format!("pods in namespace {}: may not patch", bench.app),
        format!("pods in namespace {}: may not delete", bench.app),
        format!("leases/{}-0 to {}-1 in namespace {}: may not list, watch, patch", bench.app, bench.app, bench.app),
        format!("leases/{}-member-0 to {}-member-15 in namespace {}: may not patch", bench.app, bench.app, bench.app),
        format!("leases in namespace {}: may not list, watch", bench.app),
        "pods in namespace nowhere: may not get, list, watch".to_owned(),
        "namespaces/kube-system of the cluster: may not get".to_owned(),
    ] {
        ensure!(failed.iter().any(|said| said.contains(&expected)), "{expected} is not in {failed:#?}");
    }
    // As somebody who may do everything: only the namespace is missing.
    let launch = bench.launch.clone();
    let (code, all) = check(&launch, &more).await?;
    let failed = self::failed(&all);
    ensure!(code == Some(1) && failed.len() == 1, "{failed:#?}");
    ensure!(
        failed[0].contains("nowhere is not there") && failed[0].contains("kubectl create namespace nowhere"),
        "{failed:#?}"
    );
    let of = |check: &str| all.iter().filter(|found| found["check"] == check).cloned().collect::<Vec<_>>();
    ensure!(of("api-server")[0]["said"].as_str().is_some_and(|said| said.contains("Kubernetes v1.")), "{all:#?}");
    ensure!(of("clock")[0]["verdict"] == "ok", "{all:#?}");
    // And as the ServiceAccount, by impersonation.
    let account = format!("system:serviceaccount:{}:monitor", bench.app);
    let (code, all) = check(&launch, &["--as", &account]).await?;
    let failed = self::failed(&all);
    ensure!(code == Some(1) && failed.len() == 1 && failed[0].contains("kube-system"), "{failed:#?}");
    bench.close().await
}

#[tokio::test(flavor = "multi_thread")]
async fn what_check_passes_a_monitor_runs_with() -> Result<()> {
    let bench = Bench::new("check-run").await?;
    let (code, all) = check(&bench.launch, &[]).await?;
    ensure!(code == Some(0), "{:#?}", failed(&all));
    let mut monitor = bench.monitor(&[]).await?;
    let (code, all) = check(&bench.launch, &[]).await?;
    ensure!(code == Some(0), "beside a leader: {:#?}", failed(&all));
    ensure!(monitor.is_leading() && monitor.try_ended()?.is_none(), "it leads on");
    monitor.stop(LIMIT).await?;
    let nowhere = bench.launch.clone().variable("KUBECONFIG", "absent.kubeconfig");
    let (code, all) = check(&nowhere, &[]).await?;
    let failed = failed(&all);
    ensure!(code == Some(1) && failed.len() == 1 && failed[0].contains("set KUBECONFIG"), "{failed:#?}");
    ensure!(
        all.iter().any(|found| found["check"] == "topic" && found["verdict"] == "ok"),
        "Kafka all the same: {all:#?}"
    );
    bench.close().await
}
