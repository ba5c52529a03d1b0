//! What the Role lets the monitor ask of others about an end: the pod's Kubernetes Events, and the Job that owned it.

use serde_json::{Value, json};
use testkit::clients::{
    cluster::execution,
    history::Record,
    installation::{FINALIZER, Installation, LIMIT, Plan, Rights},
    until,
};

use crate::{
    release::apply,
    rules,
    support::{kustomize, stack},
};

async fn install(test: &str, rights: Rights) -> Installation {
    let name = format!("explained-{test}-{}", std::process::id());
    let plan = Plan { rights, finalizer: true, replicas: Some(1), ..Plan::new(&name) };
    let installed = Installation::install(stack().endpoints(), &kustomize(), &plan).await.unwrap();
    installed.ready().await.unwrap();
    installed
}

/// Makes a Job whose deadline ends its pod; the pod, as it was created.
async fn overdue(installed: &Installation) -> Value {
    let template = execution(&installed.name, "overdue", "exec sleep 600");
    let metadata = json!({ "name": "overdue", "namespace": installed.watched.namespace() });
    let template = json!({ "metadata": { "labels": template["metadata"]["labels"] }, "spec": template["spec"] });
    let spec = json!({ "activeDeadlineSeconds": 3, "backoffLimit": 0, "template": template });
    let job = json!({ "apiVersion": "batch/v1", "kind": "Job", "metadata": metadata, "spec": spec });
    apply(&format!("{}-job", installed.name), &job, &[]);
    let made = async || {
        let names = installed.watched.names().await?;
        let Some(name) = names.iter().find(|name| name.starts_with("overdue-")) else { return Ok(None) };
        installed.watched.pod(name).await
    };
    until(LIMIT, "the Job makes its pod", made).await.unwrap()
}

/// The end of this pod.
async fn end(installed: &Installation, pod: &Value) -> Value {
    let uid = pod["metadata"]["uid"].as_str().unwrap();
    let mut history = installed.history().unwrap();
    let is = |records: &[Record]| records.iter().find(|r| r.is_end() && r.text("pod_uid") == uid).cloned();
    history.until(LIMIT, "its end is told", is).await.unwrap().value
}

#[tokio::test]
async fn with_the_shipped_role_an_end_tells_what_its_job_and_its_events_know() {
    let installed = install("all", Rights::All).await;
    let pod = overdue(&installed).await;
    let finalizers: Vec<String> = serde_json::from_value(pod["metadata"]["finalizers"].clone()).unwrap_or_default();
    assert!(finalizers.iter().any(|name| name == FINALIZER), "beside the Job's own: {finalizers:?}");
    let end = end(&installed, &pod).await;
    assert_eq!((&end["event_type"], &end["cause"]), (&json!("execution_timeout"), &json!("deadline")), "{end}");
    let reasons: Vec<&str> =
        end["kubernetes_events"].as_array().unwrap().iter().filter_map(|event| event["reason"].as_str()).collect();
    assert!(reasons.contains(&"Started"), "{reasons:?}");
    installed.watched.wait_gone(pod["metadata"]["name"].as_str().unwrap(), LIMIT).await.unwrap();
}

#[tokio::test]
async fn without_the_rights_to_events_and_jobs_the_end_is_told_without_what_they_know() {
    // With patch, by which its pod is let go.
    let installed = install("none", Rights::Watched(rules(&["get", "list", "watch", "patch"], &["get"]))).await;
    let pod = overdue(&installed).await;
    let end = end(&installed, &pod).await;
    assert_eq!((&end["event_type"], &end["cause"]), (&json!("execution_failed"), &json!("deleted")), "{end}");
    assert_eq!(end.get("kubernetes_events"), None, "{end}");
    for without in ["ends are told without their Kubernetes Events", "ends are told without what their Job says"] {
        let said = installed.said(without).await.unwrap();
        assert!(
            said.len() == 1 && said[0]["why"].as_str().unwrap().contains("kubectl create role"),
            "{without}: {said:?}"
        );
    }
    installed.watched.wait_gone(pod["metadata"]["name"].as_str().unwrap(), LIMIT).await.unwrap();
}
