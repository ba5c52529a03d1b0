//! How pods end, case by case: the verdict over a status as a kubelet or a controller leaves it.

use serde_json::{Value, json};

use super::*;
use crate::{
    lifecycle::identity::IdSources,
    watch::pod::{Decoded, decode},
};

const STARTED: &str = "2026-11-25T10:00:00Z";
const ENDED: &str = "2026-11-25T10:01:00Z";

fn rules() -> Rules {
    let settle_grace = SignedDuration::from_secs(10);
    Rules { cluster_id: "c".into(), ids: IdSources::default(), settle_grace, ..Rules::default() }
}

/// A pod of one container, `main`, that is never started again, with what differs merged in.
fn pod(differs: Value) -> Pod {
    let mut pod = json!({
        "metadata": { "name": "p", "namespace": "n", "uid": "u", "resourceVersion": "7", "creationTimestamp": STARTED },
        "spec": { "nodeName": "node-1", "restartPolicy": "Never", "containers": [{ "name": "main" }] },
        "status": { "phase": "Failed" },
    });
    merge(&mut pod, differs);
    match decode(&pod.to_string()) {
        Decoded::Whole(pod) => pod,
        other => panic!("{other:?}"),
    }
}

fn merge(into: &mut Value, from: Value) {
    match (into, from) {
        (Value::Object(into), Value::Object(from)) => {
            from.into_iter().for_each(|(key, value)| merge(into.entry(key).or_insert(Value::Null), value));
        }
        (into, from) => *into = from,
    }
}

fn ended(exit_code: i32, reason: &str) -> Value {
    json!({ "terminated": { "exitCode": exit_code, "reason": reason, "startedAt": STARTED, "finishedAt": ENDED } })
}

fn container(name: &str, state: Value) -> Value {
    json!({ "name": name, "ready": false, "restartCount": 0, "state": state })
}

/// A status of this phase whose container `main` is in this state.
fn of_main(phase: &str, state: Value) -> Value {
    json!({ "status": { "phase": phase, "containerStatuses": [container("main", state)] } })
}

fn with(mut what: Value, more: Value) -> Value {
    merge(&mut what, more);
    what
}

fn condition(kind: &str, reason: &str, message: &str) -> Value {
    let condition =
        json!({ "type": kind, "status": "True", "reason": reason, "message": message, "lastTransitionTime": ENDED });
    json!({ "status": { "conditions": [condition] } })
}

fn because(reason: &str, message: &str) -> Value {
    json!({ "status": { "phase": "Failed", "reason": reason, "message": message } })
}

/// The verdict in a line: outcome, cause and category, exit code, and what an executor does about it.
fn verdict(pod: &Pod) -> String {
    let late = "2026-11-25T12:00:00Z".parse().expect("a time");
    let verdict = match judge(pod, late, &rules()) {
        Judged::Ended(verdict) => verdict,
        other => return format!("{other:?}"),
    };
    let exit = verdict.exit_code.map_or("no exit code".to_owned(), |code| format!("exit {code}"));
    let Some(failure) = &verdict.failure else { return format!("{:?}, {exit}", verdict.outcome) };
    let retry = if failure.retryable { ", retry" } else { "" };
    let never = if failure.attempt_started { "" } else { ", never started" };
    format!("{:?}, {:?}, {:?}, {exit}{retry}{never}", verdict.outcome, failure.cause, failure.error_type)
}

fn check(cases: &[(&str, Value, &str)]) {
    for (name, differs, expected) in cases {
        assert_eq!(verdict(&pod(differs.clone())), *expected, "{name}");
    }
}

#[test]
fn ends_by_the_program_itself() {
    let with_signal = json!({ "terminated": { "exitCode": 139, "signal": 11, "reason": "Error", "startedAt": STARTED, "finishedAt": ENDED } });
    check(&[
        ("exit 0", of_main("Succeeded", ended(0, "Completed")), "Completed, exit 0"),
        ("exit 3", of_main("Failed", ended(3, "Error")), "Failed, ExitCode, ScriptError, exit 3"),
        ("exit 128 is no signal", of_main("Failed", ended(128, "Error")), "Failed, ExitCode, ScriptError, exit 128"),
        ("exit 255 is no signal", of_main("Failed", ended(255, "Error")), "Failed, ExitCode, ScriptError, exit 255"),
        ("segmentation fault", of_main("Failed", ended(139, "Error")), "Failed, Signal, ScriptError, exit 139"),
        ("signal by its own field", of_main("Failed", with_signal), "Failed, Signal, ScriptError, exit 139"),
        (
            "killed by nobody knows whom",
            of_main("Failed", ended(137, "Error")),
            "Failed, Killed, SystemError, exit 137, retry",
        ),
        (
            "SIGTERM by nobody knows whom",
            of_main("Failed", ended(143, "Error")),
            "Failed, Killed, SystemError, exit 143, retry",
        ),
        (
            "still Running, but the container is over and the grace has passed",
            of_main("Running", ended(3, "Error")),
            "Failed, ExitCode, ScriptError, exit 3",
        ),
        ("still Running and over with 0", of_main("Running", ended(0, "Completed")), "Completed, exit 0"),
    ]);
}

#[test]
fn memory_limits_and_what_only_looks_like_them() {
    let disrupted = condition("DisruptionTarget", "EvictionByEvictionAPI", "evicted by an API call");
    check(&[
        ("OOMKilled", of_main("Failed", ended(137, "OOMKilled")), "Failed, OomKilled, ResourceLimit, exit 137"),
        (
            "a child was killed, SIGTERM ended the container later",
            of_main("Failed", ended(143, "OOMKilled")),
            "Failed, Killed, SystemError, exit 143, retry",
        ),
        (
            "a child was killed, the program went on to its end",
            of_main("Succeeded", ended(0, "OOMKilled")),
            "Completed, exit 0",
        ),
        (
            "its own OOM kill stays its own in a disruption",
            with(of_main("Failed", ended(137, "OOMKilled")), disrupted),
            "Failed, OomKilled, ResourceLimit, exit 137",
        ),
    ]);
}

#[test]
fn disruptions_are_nobodys_fault() {
    let killed = || of_main("Failed", ended(137, "Error"));
    let reasons = [
        "PreemptionByScheduler",
        "DeletionByTaintManager",
        "EvictionByEvictionAPI",
        "DeletionByPodGC",
        "TerminationByKubelet",
    ];
    for reason in reasons {
        let pod = pod(with(killed(), condition("DisruptionTarget", reason, "why")));
        assert_eq!(verdict(&pod), "Failed, Disrupted, SystemError, exit 137, retry", "{reason}");
    }
    let target = || condition("DisruptionTarget", "TerminationByKubelet", "node is low");
    check(&[
        (
            "announced, and yet ended by itself with 0",
            with(of_main("Succeeded", ended(0, "Completed")), target()),
            "Completed, exit 0",
        ),
        (
            "graceful",
            with(of_main("Failed", ended(143, "Error")), target()),
            "Failed, Disrupted, SystemError, exit 143, retry",
        ),
        (
            "garbage collection after the node's death: the container is still said to run",
            with(of_main("Failed", json!({ "running": { "startedAt": STARTED } })), target()),
            "Failed, Disrupted, SystemError, no exit code, retry",
        ),
        (
            "no statuses at all",
            with(json!({ "status": { "phase": "Failed" } }), target()),
            "Failed, Disrupted, SystemError, no exit code, retry, never started",
        ),
        (
            "preempted by a critical pod",
            with(killed(), because("Preempting", "x")),
            "Failed, Disrupted, SystemError, exit 137, retry",
        ),
        (
            "node shutdown",
            with(killed(), because("Terminated", "x")),
            "Failed, Disrupted, SystemError, exit 137, retry",
        ),
        (
            "node shutdown, older",
            with(killed(), because("Shutdown", "x")),
            "Failed, Disrupted, SystemError, exit 137, retry",
        ),
        ("node lost", with(killed(), because("NodeLost", "x")), "Failed, NodeLost, SystemError, exit 137, retry"),
    ]);
}

#[test]
fn evictions_tell_whose_resources_they_were() {
    let killed = || of_main("Failed", ended(137, "Error"));
    let target = || condition("DisruptionTarget", "TerminationByKubelet", "x");
    check(&[
        (
            "the node was low on memory",
            with(with(killed(), because("Evicted", "The node was low on resource: memory.")), target()),
            "Failed, Evicted, SystemError, exit 137, retry",
        ),
        (
            "its own volume was full",
            with(killed(), because("Evicted", "Usage of EmptyDir volume \"tmp\" exceeds the total limit \"1Mi\".")),
            "Failed, Evicted, ResourceLimit, exit 137",
        ),
        (
            "its own ephemeral storage",
            with(
                killed(),
                because("Evicted", "Pod ephemeral local storage usage exceeds the total limit of containers 1Mi."),
            ),
            "Failed, Evicted, ResourceLimit, exit 137",
        ),
        (
            "before it started",
            because("Evicted", "The node had condition: [DiskPressure]."),
            "Failed, Evicted, SystemError, no exit code, retry, never started",
        ),
    ]);
}

#[test]
fn deadlines_are_timeouts_unless_the_program_was_done() {
    let limited = json!({ "spec": { "activeDeadlineSeconds": 5 } });
    let exceeded = || because("DeadlineExceeded", "Pod was active on the node longer than the specified deadline");
    check(&[
        (
            "killed by it",
            with(with(of_main("Failed", ended(137, "Error")), exceeded()), limited.clone()),
            "TimedOut, Deadline, Timeout, exit 137",
        ),
        (
            "done in the same moment",
            with(with(of_main("Failed", ended(0, "Completed")), exceeded()), limited.clone()),
            "Completed, exit 0",
        ),
        ("before it started", with(exceeded(), limited), "TimedOut, Deadline, Timeout, no exit code, never started"),
    ]);
    let pod = pod(with(
        with(of_main("Failed", ended(137, "Error")), exceeded()),
        json!({ "spec": { "activeDeadlineSeconds": 5 } }),
    ));
    let Judged::Ended(verdict) = judge(&pod, ENDED.parse().expect("a time"), &rules()) else { panic!("it is over") };
    assert_eq!(verdict.failure.expect("a failure").timeout_seconds, Some(5));
}

#[test]
fn a_kubelet_that_refuses_a_pod() {
    let reasons = [
        "OutOfcpu",
        "OutOfmemory",
        "OutOfpods",
        "OutOfephemeral-storage",
        "OutOfnvidia.com/gpu",
        "NodeAffinity",
        "UnexpectedAdmissionError",
        "InvalidNodeInfo",
        "PodOSNotSupported",
        "PodOSSelectorNodeLabelDoesNotMatch",
        "InitContainerRestartPolicyForbidden",
        "SupplementalGroupsPolicyNotSupported",
        "UnknownReason",
        "UnexpectedPredicateFailureType",
    ];
    for reason in reasons {
        let expected = "Failed, Admission, SystemError, no exit code, retry, never started";
        assert_eq!(verdict(&pod(because(reason, "Pod was rejected"))), expected, "{reason}");
    }
    let shut_down = "Failed, Disrupted, SystemError, no exit code, retry, never started";
    assert_eq!(verdict(&pod(because("NodeShutdown", "Pod was rejected as the node is shutting down."))), shut_down);
}

#[test]
fn containers_that_never_ran() {
    let waiting = |reason: &str| of_main("Failed", json!({ "waiting": { "reason": reason } }));
    let init = |exit: i32| {
        let statuses = [container("prepare", ended(exit, "Error"))];
        let waits = json!({ "waiting": { "reason": "PodInitializing" } });
        json!({
            "spec": { "initContainers": [{ "name": "prepare" }] },
            "status": { "phase": "Failed", "initContainerStatuses": statuses, "containerStatuses": [container("main", waits)] },
        })
    };
    check(&[
        (
            "its command is not there",
            of_main("Failed", ended(128, "StartError")),
            "Failed, Config, SystemError, no exit code, never started",
        ),
        (
            "older name of that",
            of_main("Failed", ended(127, "ContainerCannotRun")),
            "Failed, Config, SystemError, no exit code, never started",
        ),
        ("an init container failed", init(5), "Failed, Init, SystemError, no exit code, never started"),
        (
            "a virtual kubelet's own reason",
            with(waiting("ContainerCreating"), because("ProviderFailed", "no quota")),
            "Failed, Unknown, SystemError, no exit code, retry, never started",
        ),
        (
            "nothing at all",
            json!({ "status": { "phase": "Failed" } }),
            "Failed, Unknown, SystemError, no exit code, retry, never started",
        ),
    ]);
}

#[test]
fn sidecars_and_other_containers_do_not_decide() {
    let sidecar = |state: Value| {
        json!({
            "spec": { "initContainers": [{ "name": "proxy", "restartPolicy": "Always" }] },
            "status": { "initContainerStatuses": [container("proxy", state)] },
        })
    };
    let helper = |phase: &str, main: Value, helper: Value| {
        json!({
            "spec": { "containers": [{ "name": "main" }, { "name": "helper" }] },
            "status": { "phase": phase, "containerStatuses": [container("helper", helper), container("main", main)] },
        })
    };
    let runs = || json!({ "running": { "startedAt": STARTED } });
    check(&[
        (
            "a sidecar killed at the end",
            with(of_main("Succeeded", ended(0, "Completed")), sidecar(ended(137, "Error"))),
            "Completed, exit 0",
        ),
        (
            "a sidecar that runs on after a failure",
            with(of_main("Running", ended(4, "Error")), sidecar(runs())),
            "Failed, ExitCode, ScriptError, exit 4",
        ),
        ("a helper that runs on", helper("Running", ended(0, "Completed"), runs()), "Completed, exit 0"),
        ("a helper that failed", helper("Failed", ended(0, "Completed"), ended(1, "Error")), "Completed, exit 0"),
        (
            "statuses in another order",
            helper("Failed", ended(3, "Error"), ended(0, "Completed")),
            "Failed, ExitCode, ScriptError, exit 3",
        ),
        ("main runs while a helper is over", helper("Running", runs(), ended(1, "Error")), "Open"),
    ]);
    let debugged = json!({ "status": { "ephemeralContainerStatuses": [container("debug", ended(137, "OOMKilled"))] } });
    let pod = pod(with(of_main("Failed", ended(3, "Error")), debugged));
    assert_eq!(
        verdict(&pod),
        "Failed, ExitCode, ScriptError, exit 3",
        "an OOM kill of a debugger is not the program's"
    );
}

#[test]
fn restarts_are_not_ends() {
    let crashed = |phase: &str, policy: &str| {
        let mut main = container("main", json!({ "waiting": { "reason": "CrashLoopBackOff" } }));
        merge(&mut main, json!({ "restartCount": 2, "lastState": ended(1, "Error") }));
        json!({ "spec": { "restartPolicy": policy }, "status": { "phase": phase, "containerStatuses": [main] } })
    };
    check(&[
        ("crashes and is started again", crashed("Running", "OnFailure"), "Open"),
        (
            "always started again, over with 0 for now",
            with(of_main("Running", ended(0, "Completed")), json!({ "spec": { "restartPolicy": "Always" } })),
            "Open",
        ),
        ("all containers restart", of_main("Running", ended(3, "RestartingAllContainers")), "Open"),
        (
            "given up between two attempts: the exit is in lastState",
            crashed("Failed", "OnFailure"),
            "Failed, ExitCode, ScriptError, exit 1",
        ),
    ]);
}

#[test]
fn deleted_and_unknown_ends() {
    let deleting =
        json!({ "metadata": { "deletionTimestamp": "2026-11-25T10:00:58Z", "deletionGracePeriodSeconds": 1 } });
    let later = json!({ "metadata": { "deletionTimestamp": "2026-11-25T10:30:00Z", "deletionGracePeriodSeconds": 1 } });
    let lost = || of_main("Failed", ended(137, "ContainerStatusUnknown"));
    let unseen = json!({ "terminated": { "exitCode": 137, "reason": "ContainerStatusUnknown" } });
    check(&[
        (
            "deleted while it ran",
            with(of_main("Failed", ended(137, "Error")), deleting.clone()),
            "Failed, Deleted, SystemError, exit 137, retry",
        ),
        (
            "deleted after it was killed",
            with(of_main("Failed", ended(137, "Error")), later),
            "Failed, Killed, SystemError, exit 137, retry",
        ),
        (
            "deleted, and yet done with 0",
            with(of_main("Succeeded", ended(0, "Completed")), deleting.clone()),
            "Completed, exit 0",
        ),
        (
            "deleted, but failed by itself",
            with(of_main("Failed", ended(3, "Error")), deleting.clone()),
            "Failed, ExitCode, ScriptError, exit 3",
        ),
        ("the container could not be found", lost(), "Failed, Unknown, SystemError, no exit code, retry"),
        ("nor after a deletion", with(lost(), deleting), "Failed, Deleted, SystemError, no exit code, retry"),
        (
            "nor is it known whether it ever ran",
            of_main("Failed", unseen),
            "Failed, Unknown, SystemError, no exit code, retry, never started",
        ),
    ]);
}

#[test]
fn a_failure_waits_for_the_pods_own_reason() {
    let early = "2026-11-25T10:01:03Z".parse().expect("a time");
    let pod = pod(of_main("Running", ended(137, "Error")));
    let until = "2026-11-25T10:01:10Z".parse().expect("a time");
    assert_eq!(judge(&pod, early, &rules()), Judged::Settling { until });
}
