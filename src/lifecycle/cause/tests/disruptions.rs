//! Ends by the platform: disruptions, evictions, refusals.

use super::*;

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
            "its own volume, in the words of 1.36",
            with(killed(), because("Evicted", "Usage of EmptyDir volume \"tmp\" exceeds the limit \"1Mi\".")),
            "Failed, Evicted, ResourceLimit, exit 137",
        ),
        (
            "a container's own ephemeral storage",
            with(killed(), because("Evicted", "Container main exceeded its local ephemeral storage limit \"1Mi\". ")),
            "Failed, Evicted, ResourceLimit, exit 137",
        ),
        (
            "processes of the node",
            with(killed(), because("Evicted", "The node was low on resource: pids.")),
            "Failed, Evicted, SystemError, exit 137, retry",
        ),
        (
            "before it started",
            because("Evicted", "The node had condition: [DiskPressure]."),
            "Failed, Evicted, SystemError, no exit code, retry, never started",
        ),
    ]);
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
        "PodFeatureUnsupported",
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

fn message(differs: Value) -> String {
    let late = "2026-11-25T12:00:00Z".parse().expect("a time");
    let Judged::Ended(verdict) = judge(&pod(differs), late, &rules()) else { panic!("it is over") };
    verdict.failure.and_then(|failure| failure.message).unwrap_or_default().into()
}

#[test]
fn disruptions_are_told_apart_in_the_message() {
    let killed =
        |reason: &str| with(of_main("Failed", ended(137, "Error")), condition("DisruptionTarget", reason, "why"));
    let by_kubelet = |reason: &str| with(killed("TerminationByKubelet"), because(reason, "x"));
    let cases = [
        (killed("PreemptionByScheduler"), "preempted by a pod of higher priority: why"),
        (killed("DeletionByTaintManager"), "its node got a taint that it does not tolerate: why"),
        (killed("EvictionByEvictionAPI"), "evicted through the API, as a drain does: why"),
        (killed("DeletionByPodGC"), "its node is gone: why"),
        (killed("TerminationByKubelet"), "ended by its kubelet: why"),
        (by_kubelet("Preempting"), "preempted by its kubelet for a critical pod: why"),
        (by_kubelet("Terminated"), "its node shut down: why"),
        (killed("OfTheFuture"), "disrupted: why"),
        (
            with(of_main("Failed", ended(137, "Error")), because("Terminated", "imminent node shutdown")),
            "its node shut down: imminent node shutdown",
        ),
        (
            with(of_main("Failed", ended(143, "Error")), condition("TerminationTarget", "WorkloadEvicted", "quota")),
            "disrupted: quota",
        ),
    ];
    for (pod, expected) in cases {
        assert_eq!(message(pod), expected);
    }
}

#[test]
fn a_disruption_after_the_end_explains_nothing() {
    let at = |time: &str, status: &str| {
        let condition = json!({ "type": "DisruptionTarget", "status": status, "reason": "EvictionByEvictionAPI",
            "lastTransitionTime": time });
        with(of_main("Failed", ended(3, "Error")), json!({ "status": { "conditions": [condition] } }))
    };
    check(&[
        (
            "within the settle grace",
            at("2026-11-25T10:01:09Z", "True"),
            "Failed, Disrupted, SystemError, exit 3, retry",
        ),
        (
            "later: who watched had told the end by then",
            at("2026-11-25T10:01:11Z", "True"),
            "Failed, ExitCode, ScriptError, exit 3",
        ),
        ("taken back", at("2026-11-25T10:01:00Z", "False"), "Failed, ExitCode, ScriptError, exit 3"),
        (
            "later, of a container that would have been started again",
            with(at("2026-11-25T10:01:11Z", "True"), json!({ "spec": { "restartPolicy": "OnFailure" } })),
            "Failed, Disrupted, SystemError, exit 3, retry",
        ),
    ]);
}
