//! Ends by the program itself, and by limits that it was given.

use super::*;

#[test]
fn ends_by_the_program_itself() {
    let with_signal = json!({ "terminated": { "exitCode": 139, "signal": 11, "reason": "Error", "startedAt": STARTED, "finishedAt": ENDED } });
    check(&[
        ("exit 0", of_main("Succeeded", ended(0, "Completed")), "Completed, exit 0"),
        ("exit 3", of_main("Failed", ended(3, "Error")), "Failed, ExitCode, ScriptError, exit 3"),
        ("exit 128 is no signal", of_main("Failed", ended(128, "Error")), "Failed, ExitCode, ScriptError, exit 128"),
        ("exit 255 is no signal", of_main("Failed", ended(255, "Error")), "Failed, ExitCode, ScriptError, exit 255"),
        (
            "a child's SIGKILL passed on by its parent",
            of_main("Failed", ended(247, "Error")),
            "Failed, Killed, SystemError, exit 247, retry",
        ),
        (
            "an exit without any time is a start all the same",
            of_main("Failed", json!({ "terminated": { "exitCode": 3, "reason": "Error", "startedAt": null } })),
            "Failed, ExitCode, ScriptError, exit 3",
        ),
        (
            "times of the year one",
            of_main(
                "Failed",
                json!({ "terminated": { "exitCode": 3, "startedAt": "0001-01-01T00:00:00Z", "finishedAt": "0001-01-01T00:00:00Z" } }),
            ),
            "Failed, ExitCode, ScriptError, exit 3",
        ),
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
            "a child was killed, the program failed by it",
            of_main("Failed", ended(3, "OOMKilled")),
            "Failed, OomKilled, ResourceLimit, exit 3",
        ),
        (
            "137 without the reason is no proof",
            of_main("Failed", ended(137, "Error")),
            "Failed, Killed, SystemError, exit 137, retry",
        ),
        (
            "a child was killed, the deadline ended the container",
            with(of_main("Failed", ended(137, "OOMKilled")), because("DeadlineExceeded", "x")),
            "TimedOut, Deadline, Timeout, exit 137",
        ),
        (
            "its own OOM kill stays its own in a disruption",
            with(of_main("Failed", ended(137, "OOMKilled")), disrupted),
            "Failed, OomKilled, ResourceLimit, exit 137",
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
        (
            "failed before it; another container kept the pod alive",
            with(
                with(of_main("Failed", ended(3, "Error")), exceeded()),
                json!({ "spec": { "activeDeadlineSeconds": 90 }, "status": { "startTime": STARTED } }),
            ),
            "Failed, ExitCode, ScriptError, exit 3",
        ),
        (
            "failed at it",
            with(
                with(of_main("Failed", ended(3, "Error")), exceeded()),
                json!({ "spec": { "activeDeadlineSeconds": 60 }, "status": { "startTime": STARTED } }),
            ),
            "TimedOut, Deadline, Timeout, exit 3",
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
fn a_failure_waits_for_the_pods_own_reason() {
    let early = "2026-11-25T10:01:03Z".parse().expect("a time");
    let pod = pod(of_main("Running", ended(137, "Error")));
    let until = "2026-11-25T10:01:10Z".parse().expect("a time");
    assert_eq!(judge(&pod, early, &rules()), Judged::Settling { until });
}

#[test]
fn an_oom_kill_of_a_child_is_told_of_a_completed_pod() {
    let late = "2026-11-25T12:00:00Z".parse().expect("a time");
    let Judged::Ended(verdict) = judge(&pod(of_main("Succeeded", ended(0, "OOMKilled"))), late, &rules()) else {
        panic!("it is over")
    };
    assert_eq!(verdict.containers[0].reason.as_deref(), Some("OOMKilled"));
}

/// The status manager of a kubelet takes the status that it writes first, and asks afterwards whether containers may still
/// run: where they end in between, it writes the phase of after their end beside their state of before it.
#[test]
fn the_phase_of_after_the_end_waits_for_the_status_of_after_it() {
    let running = json!({ "running": { "startedAt": STARTED } });
    let changed =
        json!({ "status": { "conditions": [{ "type": "Ready", "status": "False", "lastTransitionTime": ENDED }] } });
    for (reason, outcome) in [("DeadlineExceeded", Outcome::TimedOut), ("Evicted", Outcome::Failed)] {
        let early = pod(with(with(of_main("Failed", running.clone()), because(reason, "why")), changed.clone()));
        let at = |time: &str| judge(&early, time.parse().expect("a time"), &rules());
        let until = "2026-11-25T10:01:10Z".parse().expect("a time");
        assert_eq!(at("2026-11-25T10:01:09Z"), Judged::Settling { until }, "{reason}");
        let Judged::Ended(told) = at("2026-11-25T10:01:10Z") else { panic!("{reason}: nothing more comes") };
        assert_eq!((told.outcome, told.exit_code), (outcome, None), "{reason}");
        let done = pod(with(of_main("Failed", ended(0, "Completed")), because(reason, "why")));
        assert_eq!(super::verdict(&done), "Completed, exit 0", "{reason}");
    }
}
