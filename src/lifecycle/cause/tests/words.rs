//! What the words of Kubernetes mean, and what an owner knows better.

use super::*;

#[test]
fn reasons_of_waiting_have_a_cause_and_a_patience() {
    use Cause::{Config, ExitCode, Image, Unknown};
    use Patience::{AtOnce, Normal, Transient};
    let cases = [
        ("", None, None),
        ("ContainerCreating", None, None),
        ("PodInitializing", None, None),
        ("ErrImagePull", None, Some((Image, Normal))),
        ("ImagePullBackOff", None, Some((Image, Normal))),
        ("ErrImageNeverPull", None, Some((Image, Normal))),
        ("InvalidImageName", None, Some((Image, AtOnce))),
        ("ImageInspectError", None, Some((Image, Normal))),
        ("RegistryUnavailable", None, Some((Image, Transient))),
        ("SignatureValidationFailed", None, Some((Image, Normal))),
        ("ErrImagePull", Some("toomanyrequests: 429 Too Many Requests"), Some((Image, Transient))),
        ("ErrImagePull", Some("pull QPS exceeded"), Some((Image, Transient))),
        ("ErrImagePull", Some("not found"), Some((Image, Normal))),
        ("CreateContainerConfigError", None, Some((Config, Normal))),
        ("CreateContainerError", None, Some((Config, Normal))),
        ("PreCreateHookError", None, Some((Config, Normal))),
        ("PreStartHookError", None, Some((Config, Normal))),
        ("PostStartHookError", None, Some((Config, Normal))),
        ("RunContainerError", None, Some((Config, Normal))),
        ("CrashLoopBackOff", None, Some((ExitCode, Normal))),
        ("SomethingOfTheFuture", None, Some((Unknown, Normal))),
    ];
    for (reason, message, expected) in cases {
        assert_eq!(waiting(reason, message), expected, "{reason} {message:?}");
    }
}

#[test]
fn what_a_pod_waits_for_is_found_in_its_status() {
    let of = |status: Value| {
        waiting_cause(&pod(json!({ "spec": { "initContainers": [{ "name": "prepare" },
        { "name": "proxy", "restartPolicy": "Always" }] }, "status": status })))
    };
    let waits = |name: &str, reason: &str| container(name, json!({ "waiting": { "reason": reason } }));
    let again = |name: &str, last: Value| with(waits(name, "CrashLoopBackOff"), json!({ "lastState": last }));
    let unbound = |reason: &str| json!({ "phase": "Pending", "conditions": [{ "type": "PodScheduled", "status": "False", "reason": reason }] });
    let cases = [
        ("no node fits", unbound("Unschedulable"), Some(Cause::Unschedulable)),
        ("the scheduler fails", unbound("SchedulerError"), Some(Cause::Unschedulable)),
        ("held back by a gate", unbound("SchedulingGated"), None),
        ("its image", json!({ "containerStatuses": [waits("main", "ErrImagePull")] }), Some(Cause::Image)),
        ("being made", json!({ "containerStatuses": [waits("main", "ContainerCreating")] }), None),
        ("a word of the future", json!({ "containerStatuses": [waits("main", "Whatever")] }), None),
        ("it ran and failed", json!({ "containerStatuses": [again("main", ended(1, "Error"))] }), None),
        (
            "it cannot start",
            json!({ "containerStatuses": [again("main", ended(128, "StartError"))] }),
            Some(Cause::Config),
        ),
        ("init fails", json!({ "initContainerStatuses": [again("prepare", ended(1, "Error"))] }), Some(Cause::Init)),
        (
            "init cannot start",
            json!({ "initContainerStatuses": [again("prepare", ended(128, "StartError"))] }),
            Some(Cause::Config),
        ),
        ("init's image", json!({ "initContainerStatuses": [waits("prepare", "ErrImagePull")] }), Some(Cause::Image)),
        ("a sidecar restarts", json!({ "initContainerStatuses": [again("proxy", ended(1, "Error"))] }), None),
    ];
    for (name, status, expected) in cases {
        assert_eq!(of(status), expected, "{name}");
    }
}

#[test]
fn a_job_knows_why_its_pods_were_deleted() {
    let deleting =
        json!({ "metadata": { "deletionTimestamp": "2026-11-25T10:00:58Z", "deletionGracePeriodSeconds": 1 } });
    let judged = |differs: Value, kind: &str, reason: &str, since: Option<&str>| {
        let late = "2026-11-25T12:00:00Z".parse().expect("a time");
        let Judged::Ended(mut verdict) = judge(&pod(differs), late, &rules()) else { panic!("it is over") };
        if let Some(end) = OwnerEnd::by_condition(kind, reason, Some(60)) {
            let since = since.and_then(|since: &str| since.parse().ok());
            explain_by_owner(&mut verdict, OwnerSays { end, since });
        }
        let failure = verdict.failure.expect("a failure");
        (verdict.outcome, failure.cause, failure.retryable, failure.timeout_seconds)
    };
    let deleted = || with(of_main("Failed", ended(137, "Error")), deleting.clone());
    let own = || of_main("Failed", ended(3, "Error"));
    let cases = [
        (
            "its deadline",
            deleted(),
            "Failed",
            "DeadlineExceeded",
            (Outcome::TimedOut, Cause::Deadline, false, Some(60)),
        ),
        (
            "soon to fail",
            deleted(),
            "FailureTarget",
            "DeadlineExceeded",
            (Outcome::TimedOut, Cause::Deadline, false, Some(60)),
        ),
        ("another pod", deleted(), "Failed", "PodFailurePolicy", (Outcome::Failed, Cause::Deleted, true, None)),
        ("suspended", deleted(), "Suspended", "JobSuspended", (Outcome::Failed, Cause::Disrupted, true, None)),
        ("nothing known", deleted(), "Complete", "", (Outcome::Failed, Cause::Deleted, true, None)),
        ("an end of its own", own(), "Failed", "DeadlineExceeded", (Outcome::Failed, Cause::ExitCode, false, None)),
    ];
    for (name, pod, kind, reason, expected) in cases {
        assert_eq!(judged(pod, kind, reason, None), expected, "{name}");
    }
    // It was killed, and not by its Job: nobody deleted it.
    let killed = of_main("Failed", ended(137, "Error"));
    assert_eq!(judged(killed, "Failed", "BackoffLimitExceeded", None), (Outcome::Failed, Cause::Killed, true, None));
    // Deleted by somebody long before its Job's deadline: another attempt met that.
    let late = judged(deleted(), "Failed", "DeadlineExceeded", Some("2026-11-25T10:30:00Z"));
    assert_eq!(late, (Outcome::Failed, Cause::Deleted, true, None));
    let soon = judged(deleted(), "Failed", "DeadlineExceeded", Some("2026-11-25T10:01:00Z"));
    assert_eq!(soon.1, Cause::Deadline);
}
