//! Pods that somebody else ends: a Job, an eviction, a node, a deletion.

use serde_json::{Value, json};

use super::super::{
    steps::{Case, Needs, Step, pod},
    story::Story,
};

pub(super) fn all() -> Vec<Case> {
    let mut cases = deletions();
    cases.extend(jobs());
    cases.extend(limits());
    cases.extend(disruptions());
    cases.extend(second_node());
    cases.extend(doomed_node());
    cases
}

const DELETE: [&str; 4] = ["delete", "pods", "--all", "--wait=false"];
const GRACEFUL: &str = "trap 'exit 0' TERM; touch /tmp/listens; while true; do sleep 0.1; done";
const OBEDIENT: &str = "trap 'exit 143' TERM; touch /tmp/listens; while true; do sleep 0.1; done";

/// Deleted while it ran. The kubelet's last word sets the time of the deletion anew, so that nobody who sees only that
/// can tell which came first.
fn deleted(exit_code: i32) -> Story {
    Story::disturbed(Some(exit_code), "deleted").last_alone("killed", Some(exit_code))
}

/// Is ready once it listens to SIGTERM: a shell that gets it sooner is deaf to it, and killed.
fn listening(pod: &mut Value) {
    pod["spec"]["terminationGracePeriodSeconds"] = 20.into();
    pod["spec"]["containers"][0]["readinessProbe"] =
        json!({ "exec": { "command": ["test", "-e", "/tmp/listens"] }, "periodSeconds": 1 });
}

fn listens() -> Step {
    Step::Until { pod: "exec-", path: "status.containerStatuses.*.ready", one_of: vec![json!(true)] }
}

fn deletions() -> Vec<Case> {
    let held = |pod: &mut Value| pod["metadata"]["finalizers"] = json!(["pod-monitor.test/held"]);
    let release = ["patch", "pods", "exec-deleted-held", "--type=merge", "-p", r#"{"metadata":{"finalizers":null}}"#];
    let deleting = "metadata.deletionTimestamp";
    vec![
        Case::of("deleted", "deleted while it runs, deaf to SIGTERM", "exec sleep 600", |_| {})
            .phase("Running")
            .kubectl(&DELETE)
            .tells(deleted(137)),
        Case::of("deleted-obeys", "deleted while it runs, ends at SIGTERM with 143", OBEDIENT, listening)
            .step(listens())
            .kubectl(&DELETE)
            .tells(deleted(143)),
        Case::of("deleted-done", "deleted while it runs, ends at SIGTERM with 0", GRACEFUL, listening)
            .step(listens())
            .kubectl(&DELETE)
            .tells(Story::completed()),
        Case::of("deleted-forced", "forced away while it runs", "exec sleep 600", |_| {})
            .phase("Running")
            .kubectl(&["delete", "pods", "--all", "--force", "--grace-period=0", "--wait=false"])
            .tells(Story::disturbed(None, "lost")),
        Case::of("deleted-held", "deleted after its end while a finalizer holds it", "exit 3", held)
            .phase("Failed")
            .kubectl(&DELETE)
            .until("exec-", deleting, &[])
            .kubectl(&release)
            .tells(Story::failed(3, "exit_code", "script_error")),
        Case::of("deleted-starting", "deleted before its container was made", "true", |pod| {
            pod["spec"]["volumes"] = json!([{ "name": "x", "configMap": { "name": "nobody-made-this" } }]);
            pod["spec"]["containers"][0]["volumeMounts"] = json!([{ "name": "x", "mountPath": "/x" }]);
        })
        .waiting("ContainerCreating")
        .kubectl(&DELETE)
        .tells(Story::never_ran("deleted", true)),
    ]
}

fn job(name: &str, script: &str, change: impl FnOnce(&mut Value)) -> Value {
    let mut template = pod(name, script);
    template["metadata"].as_object_mut().map(|metadata| metadata.remove("name"));
    let spec = json!({ "metadata": template["metadata"], "spec": template["spec"] });
    let mut job = json!({ "apiVersion": "batch/v1", "kind": "Job", "metadata": { "name": name },
        "spec": { "backoffLimit": 0, "template": spec } });
    change(&mut job);
    job
}

fn jobs() -> Vec<Case> {
    let phase = "status.phase";
    let policy = json!({ "rules": [{ "action": "FailJob", "onExitCodes": { "operator": "In", "values": [42] } }] });
    // Once it runs: on a busy node a container may start later than that.
    let deadline = ["patch", "job", "job-deadline", "-p", r#"{"spec":{"activeDeadlineSeconds":3}}"#];
    let suspend = ["patch", "job", "job-suspended", "--type=merge", "-p", r#"{"spec":{"suspend":true}}"#];
    let first_fails_late = "[ $JOB_COMPLETION_INDEX = 0 ] && sleep 3 && exit 42; exec sleep 600";
    vec![
        Case::new("job-deadline", "its Job's activeDeadlineSeconds pass")
            .make(job("job-deadline", "exec sleep 600", |_| {}))
            .until("job-deadline", phase, &["Running"])
            .kubectl(&deadline)
            .step(Step::AllGone)
            .tells(deleted(137)),
        Case::new("job-retries", "its Job tries twice, and both fail")
            .make(job("job-retries", "exit 1", |job| job["spec"]["backoffLimit"] = 1.into()))
            .step(Step::Kubectl(vec!["wait", "--for=condition=Failed", "job/job-retries", "--timeout=60s"], None))
            .tells(Story::failed(1, "exit_code", "script_error"))
            .tells(Story::failed(1, "exit_code", "script_error")),
        Case::new("job-failure-policy", "one of two fails with 42, and by its podFailurePolicy the Job ends the other")
            .make(job("job-failure-policy", first_fails_late, |job| {
                for (key, value) in [("parallelism", json!(2)), ("completions", json!(2))] {
                    job["spec"][key] = value;
                }
                job["spec"]["completionMode"] = "Indexed".into();
                job["spec"]["podFailurePolicy"] = policy;
            }))
            .until("job-failure-policy-0", phase, &["Failed"])
            .until("job-failure-policy-1", "metadata.deletionTimestamp", &[])
            .tells(Story::failed(42, "exit_code", "script_error"))
            .tells(deleted(137)),
        Case::new("job-suspended", "its Job is suspended while it runs")
            .make(job("job-suspended", "exec sleep 600", |_| {}))
            .until("job-suspended", phase, &["Running"])
            .kubectl(&suspend)
            .step(Step::AllGone)
            .tells(deleted(137)),
        Case::new("job-ttl", "its Job is done, and goes by itself with all its pods")
            .make(job("job-ttl", "exit 0", |job| job["spec"]["ttlSecondsAfterFinished"] = 1.into()))
            .step(Step::AllGone)
            .tells(Story::completed()),
    ]
}

fn limits() -> Vec<Case> {
    let memory = |pod: &mut Value| {
        pod["spec"]["containers"][0]["resources"] = json!({ "limits": { "memory": "32Mi" } });
        pod["spec"]["terminationGracePeriodSeconds"] = 20.into();
    };
    // Counted from the pod's start: over as soon as it is set.
    let deadline = ["patch", "pod", "exec-pod-deadline-done", "-p", r#"{"spec":{"activeDeadlineSeconds":1}}"#];
    let probe = json!({ "exec": { "command": ["false"] }, "periodSeconds": 1, "failureThreshold": 1 });
    let child = "sh -c 'exec tail /dev/zero'";
    vec![
        Case::of(
            "oom-child",
            "a child takes too much memory, it goes on and ends with 0",
            &format!("{child}; exit 0"),
            memory,
        )
        .until("exec-", "status.phase", &["Succeeded", "Failed"])
        .tells(Story::completed()),
        Case::of(
            "oom-child-then-deleted",
            "a child takes too much memory, it goes on and is deleted",
            &format!("trap 'exit 143' TERM; {child}; touch /tmp/listens; while true; do sleep 0.1; done"),
            |pod| {
                memory(pod);
                listening(pod);
            },
        )
        .step(listens())
        .kubectl(&DELETE)
        .tells(deleted(143)),
        Case::of("liveness", "its livenessProbe fails", "exec sleep 600", |pod| {
            pod["spec"]["containers"][0]["livenessProbe"] = probe;
        })
        .phase("Failed")
        .tells(Story::disturbed(Some(137), "killed")),
        Case::of("pod-deadline-done", "at its deadline it ends with 0", GRACEFUL, listening)
            .step(listens())
            .kubectl(&deadline)
            .ended_by_its_node()
            .tells(Story::completed()),
    ]
}

fn eviction(name: &str) -> Step {
    let object = json!({ "apiVersion": "policy/v1", "kind": "Eviction", "metadata": { "name": name } });
    let path = match name {
        "exec-evicted-by-api" => "/api/v1/namespaces/{namespace}/pods/exec-evicted-by-api/eviction",
        _ => "/api/v1/namespaces/{namespace}/pods/exec-evicted-by-api-done/eviction",
    };
    Step::Kubectl(vec!["create", "--raw", path, "-f", "-"], Some(object))
}

fn disruptions() -> Vec<Case> {
    let full = "head -c 8000000 /dev/zero > /scratch/x; exec sleep 600";
    let scratch = |limit: Value| {
        move |pod: &mut Value| {
            pod["spec"]["volumes"] = json!([{ "name": "scratch", "emptyDir": limit }]);
            pod["spec"]["containers"][0]["volumeMounts"] = json!([{ "name": "scratch", "mountPath": "/scratch" }]);
        }
    };
    vec![
        Case::of("evicted-volume", "fills its emptyDir over its limit", full, scratch(json!({ "sizeLimit": "1Mi" })))
            .ended_by_its_node()
            .tells(Story::failed(137, "evicted", "resource_limit").says("EmptyDir")),
        Case::of("evicted-storage", "writes more than its limit of ephemeral-storage", full, |pod| {
            scratch(json!({}))(pod);
            pod["spec"]["containers"][0]["resources"] = json!({ "limits": { "ephemeral-storage": "1Mi" } });
        })
        .ended_by_its_node()
        .tells(Story::failed(137, "evicted", "resource_limit").says("ephemeral")),
        Case::of("evicted-by-api", "the eviction API takes it away, as a drain does", OBEDIENT, listening)
            .step(listens())
            .step(eviction("exec-evicted-by-api"))
            .step(Step::AllGone)
            .tells(Story::disturbed(Some(143), "disrupted").says("evicted through the API")),
        Case::of("evicted-by-api-done", "the eviction API takes it away, it ends with 0", GRACEFUL, listening)
            .step(listens())
            .step(eviction("exec-evicted-by-api-done"))
            .step(Step::AllGone)
            .tells(Story::completed()),
    ]
}

const NODE: &str = "node-2";

/// Bound to the second node, whatever its taints but those of a node that is lost.
fn there(pod: &mut Value) {
    pod["spec"]["nodeName"] = NODE.into();
    pod["spec"]["tolerations"] = json!([{ "key": "pod-monitor.test/further-node", "operator": "Exists" }]);
}

fn second_node() -> Vec<Case> {
    let slot = r#"{"status":{"capacity":{"pod-monitor.test/slot":"1"}}}"#;
    let offer = ["patch", "node", NODE, "--subresource=status", "--type=merge", "-p", slot];
    let requests = || json!({ "limits": { "pod-monitor.test/slot": "1" } });
    let low = |pod: &mut Value| {
        there(pod);
        pod["spec"].as_object_mut().map(|spec| spec.remove("nodeName"));
        pod["spec"]["containers"][0]["resources"] = requests();
    };
    let mut urgent = pod("urgent", "exit 0");
    low(&mut urgent);
    urgent["spec"]["priorityClassName"] = "system-cluster-critical".into();
    let mut critical = pod("critical", "exit 0");
    there(&mut critical);
    critical["spec"]["priorityClassName"] = "system-node-critical".into();
    critical["spec"]["containers"][0]["resources"] = json!({ "requests": { "cpu": "1500m" } });
    let on_two = |name, does, script, change: &dyn Fn(&mut Value)| {
        Case::of(name, does, script, |pod| {
            listening(pod);
            change(pod);
        })
        .needs(Needs::SecondNode)
        .step(listens())
    };
    let taint = ["taint", "node", NODE, "pod-monitor.test/out=now:NoExecute"];
    vec![
        on_two("tainted", "its node gets a taint that it does not tolerate", OBEDIENT, &there)
            .kubectl(&taint)
            .step(Step::AllGone)
            .kubectl(&["taint", "node", NODE, "pod-monitor.test/out-"])
            .tells(Story::disturbed(Some(143), "disrupted").says("a taint that it does not tolerate")),
        Case::of("preempted", "a pod of higher priority takes its place", OBEDIENT, |pod| {
            listening(pod);
            low(pod);
        })
        .needs(Needs::SecondNode)
        .kubectl(&offer)
        .step(listens())
        .make(urgent)
        .until("exec-urgent", "status.phase", &["Succeeded"])
        .tells(Story::disturbed(Some(143), "disrupted").says("preempted by a pod of higher priority"))
        .tells(Story::completed()),
        on_two("preempted-by-kubelet", "its kubelet makes room for a critical pod", OBEDIENT, &|pod: &mut Value| {
            there(pod);
            pod["spec"]["containers"][0]["resources"] = json!({ "requests": { "cpu": "1500m" } });
        })
        .make(critical)
        .until("exec-critical", "status.phase", &["Succeeded"])
        .tells(Story::disturbed(Some(143), "disrupted").says("preempted by its kubelet"))
        .tells(Story::completed()),
    ]
}

fn doomed_node() -> Vec<Case> {
    let stays = |pod: &mut Value| {
        there(pod);
        pod["spec"]["tolerations"] = json!([{ "operator": "Exists" }]);
    };
    let leaves = |pod: &mut Value| {
        there(pod);
        let tolerations = pod["spec"]["tolerations"].as_array_mut().expect("just made");
        tolerations.push(json!({ "key": "node.kubernetes.io/unreachable", "operator": "Exists", "effect": "NoExecute",
            "tolerationSeconds": 5 }));
    };
    let (mut stayed, mut left) = (pod("lost-stays", "exec sleep 600"), pod("lost-leaves", "exec sleep 600"));
    stays(&mut stayed);
    leaves(&mut left);
    vec![
        Case::new("node-lost", "their node falls silent, one is evicted, then the node is taken out of the cluster")
            .needs(Needs::DoomedNode)
            .make(stayed)
            .until("exec-lost-stays", "status.phase", &["Running"])
            .make(left)
            .until("exec-lost-leaves", "status.phase", &["Running"])
            .step(Step::Kubelet { runs: false })
            .until("exec-lost-leaves", "metadata.deletionTimestamp", &[])
            .kubectl(&["delete", "node", NODE, "--wait=false"])
            .step(Step::AllGone)
            .tells(Story::disturbed(None, "disrupted").says("its node is gone"))
            .tells(Story::disturbed(None, "disrupted").says("its node is gone")),
    ]
}
