//! Rules of the user in the cluster: a file beside the settings decides what a failure is called.

use std::collections::BTreeSet;

use serde_json::{Value, json};
use testkit::clients::{
    checker::{Truth, judge},
    cluster::execution,
    history::Record,
    installation::{Installation, LIMIT, Plan, Replica},
    until,
};

use crate::support::{kustomize, stack};

/// As shipped.
const REPLICAS: usize = 3;

fn plan(test: &str, rules: Value) -> Plan {
    Plan { rules: Some(rules), ..Plan::new(&format!("rules-{test}-{}", std::process::id())) }
}

/// The rules of the first example of docs/rules.md.
fn example() -> Value {
    let page = std::fs::read_to_string(kustomize().join("../../docs/rules.md")).unwrap();
    let file = page.split("```yaml\n").nth(1).and_then(|rest| rest.split("```").next()).unwrap();
    serde_saphyr::from_str(file).unwrap()
}

#[tokio::test]
async fn a_failing_pod_gets_the_users_cause_in_the_cluster() {
    let installed = Installation::install(stack().endpoints(), &kustomize(), &plan("cause", example())).await.unwrap();
    installed.ready().await.unwrap();
    let mut truths = Vec::new();
    let fallen = "echo 'fatal: GPU 3 has fallen off the bus' > /dev/termination-log; exit 104";
    for (id, script) in [("fallen", fallen), ("other", "exit 1")] {
        let uid = installed.watched.create(execution(&installed.name, id, script)).await.unwrap();
        truths.push(Truth { uid, expected: vec!["pod_scheduled", "execution_running", "execution_failed"] });
    }
    let mut history = installed.history().unwrap();
    let ends = |records: &[Record]| (records.iter().filter(|record| record.is_end()).count() == 2).then_some(());
    history.until(LIMIT, "both are told", ends).await.unwrap();
    assert_eq!(judge(&truths, &history.records), []);
    let end =
        |truth: &Truth| history.of_pod(&truth.uid).into_iter().find(|record| record.is_end()).unwrap().value.clone();
    let (fallen, other) = (end(&truths[0]), end(&truths[1]));
    assert_eq!(
        (&fallen["rule"], &fallen["cause"], &fallen["category"], &fallen["retryable"]),
        (&json!("gpu-lost"), &json!("gpu_lost"), &json!("hardware"), &json!(true)),
        "{fallen}"
    );
    assert_eq!((other.get("rule"), &other["cause"]), (None, &json!("exit_code")), "{other}");
}

#[tokio::test]
async fn an_update_to_wrong_rules_goes_no_further_than_one_replica_which_names_the_place() {
    let before = Installation::install(stack().endpoints(), &kustomize(), &plan("wrong", example())).await.unwrap();
    let old = before.settled(REPLICAS).await.unwrap();
    before.leave();
    let rules = json!({ "rules": [{ "name": "a", "match": { "exit-code": 1 }, "hint": "h" }] });
    let installed = Installation::install(stack().endpoints(), &kustomize(), &plan("wrong", rules)).await.unwrap();
    let crashed = async || {
        let mut all = installed.replicas().await?;
        all.retain(|replica| replica.restarts > 0);
        let Some(new) = all.first() else { return Ok(None) };
        let log = installed.kubectl(&["logs", &new.name, "--previous"]).await.unwrap_or_default();
        Ok(log.contains("error: /etc/pod-monitor/rules.yaml:1: ").then_some(log))
    };
    let log = until(LIMIT, "the new replica has ended and says why", crashed).await.unwrap();
    assert!(log.contains("exit-code"), "{log}");
    let mut now = installed.replicas().await.unwrap();
    now.retain(|replica| replica.ready && !replica.going);
    let names = |replicas: &[Replica]| replicas.iter().map(|replica| replica.name.clone()).collect::<BTreeSet<_>>();
    assert_eq!(names(&now), names(&old), "those of before stay");
    let uid = installed.watched.create(execution(&installed.name, "meanwhile", "exit 1")).await.unwrap();
    let mut history = installed.history().unwrap();
    let ends = |records: &[Record]| records.iter().any(|r| r.is_end() && r.text("pod_uid") == uid).then_some(());
    history.until(LIMIT, "they tell on", ends).await.unwrap();
}
