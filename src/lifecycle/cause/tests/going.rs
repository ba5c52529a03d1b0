//! Pods that are deleted, lost or unknown.

use super::*;

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
fn nodes_that_are_lost() {
    let runs = || json!({ "running": { "startedAt": STARTED } });
    let unready = json!({ "status": { "conditions": [{ "type": "Ready", "status": "False", "reason": "NodeLost" }] } });
    let waits = json!({ "waiting": { "reason": "ContainerCreating" } });
    check(&[
        ("phase Unknown is no end", of_main("Unknown", runs()), "Open"),
        ("nor is a node that does not answer", with(of_main("Running", runs()), unready), "Open"),
        (
            "given up by a controller: said to run, and failed",
            of_main("Failed", runs()),
            "Failed, NodeLost, SystemError, no exit code, retry",
        ),
        ("said to run, and succeeded", of_main("Succeeded", runs()), "Completed, no exit code"),
        (
            "terminal without any status",
            json!({ "status": { "phase": "Failed" } }),
            "Failed, Unknown, SystemError, no exit code, retry, never started",
        ),
        (
            "a virtual kubelet failed before anything started",
            with(of_main("Failed", waits), because("ProviderFailed", "no quota")),
            "Failed, Admission, SystemError, no exit code, retry, never started",
        ),
    ]);
}

#[test]
fn the_last_word_of_a_pod_decides_what_is_open() {
    let judged = |differs: Value| match judge(&pod(differs), LAST_WORD, &rules()) {
        Judged::Ended(verdict) => (verdict.outcome, verdict.exit_code),
        other => panic!("{other:?}"),
    };
    let on_failure = || json!({ "spec": { "restartPolicy": "OnFailure" } });
    let backing_off = |code: i32| {
        let main = with(
            container("main", json!({ "waiting": { "reason": "CrashLoopBackOff" } })),
            json!({ "restartCount": 1, "lastState": ended(code, "Error") }),
        );
        json!({ "spec": { "restartPolicy": "Always" }, "status": { "phase": "Running", "containerStatuses": [main] } })
    };
    let cases = [
        ("between two attempts", backing_off(3), (Outcome::Failed, Some(3))),
        ("between two attempts, the last with 0", backing_off(0), (Outcome::Completed, Some(0))),
        ("just over", with(of_main("Running", ended(3, "Error")), on_failure()), (Outcome::Failed, Some(3))),
    ];
    for (name, pod, expected) in cases {
        assert_eq!(judged(pod), expected, "{name}");
    }
    let runs = of_main("Running", json!({ "running": { "startedAt": STARTED } }));
    assert_eq!(judge(&pod(runs), LAST_WORD, &rules()), Judged::Open, "nobody saw how it ended");
}

#[test]
fn a_pod_that_goes_away_starts_nothing_again() {
    let deleting = json!({ "metadata": { "deletionTimestamp": "2026-11-25T10:02:00Z", "deletionGracePeriodSeconds": 1 },
        "spec": { "restartPolicy": "OnFailure" } });
    check(&[(
        "its failure is its last",
        with(of_main("Running", ended(3, "Error")), deleting),
        "Failed, ExitCode, ScriptError, exit 3",
    )]);
}
