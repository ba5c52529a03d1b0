//! What each cause means and what to do about it: the source of docs/causes.md and of the descriptions in the JSON
//! Schema. Hints of events are worded where the case is found (`cause/failure.rs`), which knows more of it than its
//! cause. Pure.

use super::event::{Cause, ErrorType};

/// One cause for people.
struct About {
    what: &'static str,
    /// Class of such a failure, and whether another try may help; `None`: it is only ever told of a stall.
    end: Option<(ErrorType, bool)>,
    advice: &'static str,
}

const fn about(what: &'static str, error_type: ErrorType, retryable: bool, advice: &'static str) -> About {
    About { what, end: Some((error_type, retryable)), advice }
}

const fn stall(what: &'static str, advice: &'static str) -> About {
    About { what, end: None, advice }
}

impl Cause {
    /// What happened, in a sentence.
    pub fn what(self) -> &'static str {
        self.about().what
    }

    /// What the user should do about it.
    pub fn advice(self) -> &'static str {
        self.about().advice
    }

    /// The class that such failures have and whether trying again as it is may help, where nothing particular says
    /// otherwise. `None`: no execution ends by it, it is only ever told of a stall.
    pub fn usual_end(self) -> Option<(ErrorType, bool)> {
        self.about().end
    }

    #[rustfmt::skip]
    const fn about(self) -> About {
        use ErrorType::{ResourceLimit, ScriptError, SystemError, Timeout};
        match self {
            Self::ExitCode => about("The program ended with an exit code other than 0.", ScriptError, false,
                "read `stderr`: the program itself says what is wrong"),
            Self::Signal => about("The program died of a signal of its own making (SIGSEGV, SIGABRT, ...).", ScriptError, false,
                "mend the program: it crashed"),
            Self::Killed => about("SIGKILL or SIGTERM ended the container from outside, and nobody says whose.", SystemError, true,
                "try again; if it comes back, look for what kills it on the node"),
            Self::OomKilled => about("The container exceeded its memory limit.", ResourceLimit, false,
                "raise resources.limits.memory, or use less"),
            Self::Evicted => about("The kubelet evicted the pod: its node ran short of something, or the pod exceeded its own limit of ephemeral storage.", SystemError, true,
                "try again; where the pod exceeded its own limit (`error_type` resource_limit, not retryable), raise that limit or write less"),
            Self::Disrupted => about("Preemption, a drain, a taint, a node's shutdown or the suspension of its Job ended the pod.", SystemError, true,
                "try again; a suspended Job does so by itself when it is resumed"),
            Self::Deadline => about("`activeDeadlineSeconds` of the pod or of its Job passed. As a stall: that of the pod passed, and its node has not ended it.", Timeout, false,
                "raise activeDeadlineSeconds, or make the execution quicker; as a stall: look at the node"),
            Self::Image => about("The image could not be had.", SystemError, false,
                "check the image name, its tag and the pull secret"),
            Self::Config => about("The container could not be created or started as configured.", SystemError, false,
                "check command, args and mounts of the container, and the ConfigMaps and Secrets that it refers to"),
            Self::Init => about("An init container failed.", SystemError, false,
                "read the log of the init container that `message` names"),
            Self::Admission => about("The node refused the pod after it was bound to it.", SystemError, true,
                "try again; if it comes back, compare the pod's requests and affinity with what the node has"),
            Self::Unschedulable => about("No node fitted.", SystemError, true,
                "check requests, node selectors, taints and free capacity"),
            Self::Gated => stall("The pod is held back by its scheduling gates.",
                "look at the controller that should remove spec.schedulingGates"),
            Self::Starting => stall("The node prepares the pod and gets no further.",
                "look at the node: volumes, network and container runtime (kubectl describe pod)"),
            Self::Terminating => stall("The deletion of the pod was due, and it is still there.",
                "look for finalizers on the pod, and whether its node still answers"),
            Self::NodeLost => about("The node went away. As a stall: it does not answer.", SystemError, true,
                "try again; the node needs looking after"),
            Self::Deleted => about("Somebody deleted the pod.", SystemError, true,
                "try again, if nobody meant to stop it"),
            Self::Lost => about("The pod vanished, and nobody saw its end.", SystemError, true,
                "try again, if running it twice does no harm: it may have completed"),
            Self::Unknown => about("Nothing says why. As a stall: a container waits for a reason that this release does not know; `message` has it.", SystemError, true,
                "read the output and `message`; the kubelet's log on the node may say more"),
        }
    }
}

impl ErrorType {
    /// The name on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::ScriptError => "script_error",
            Self::ResourceLimit => "resource_limit",
            Self::Timeout => "timeout",
            Self::SystemError => "system_error",
        }
    }
}

const HEAD: &str = "\
# Causes

What `cause` of `execution_failed`, `execution_timeout`, `execution_stalled` and `execution_resumed` means. The list grows
with time, and rules of the user may name causes of their own: a program treats a name that it does not know like
`unknown`. `error_type` is coarse and stable. Both columns in the middle say what is usual of an end: the event
itself says what holds (an eviction for the pod's own limit is a `resource_limit` and not retryable, for instance). A dash:
no execution ends by it, it is only ever the cause of a stall.

Printed by `pod-monitor schema --causes`, from the same source as the schema.

| cause | what happened | error_type | retryable | what to do |
| --- | --- | --- | --- | --- |
";

/// docs/causes.md.
pub fn page() -> String {
    let row = |cause: Cause| {
        let About { what, end, advice } = cause.about();
        let (error_type, retryable) = match end {
            Some((error_type, true)) => (format!("`{}`", error_type.as_str()), "yes"),
            Some((error_type, false)) => (format!("`{}`", error_type.as_str()), "no"),
            None => ("-".to_owned(), "-"),
        };
        format!("| `{}` | {what} | {error_type} | {retryable} | {advice} |\n", cause.as_str())
    };
    std::iter::once(HEAD.to_owned()).chain(Cause::ALL.map(row)).collect()
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use jiff::{SignedDuration, Timestamp};
    use serde_json::{Value, json};

    use super::*;
    use crate::lifecycle::{
        cause::{Judged, LastSeen, judge, vanished},
        event::Failure,
        identity::IdSources,
        rules::Rules,
        stall::Graces,
    };

    fn of(status: Value, reason: &str) -> Failure {
        let mut pod = json!({ "metadata": { "uid": "u", "name": "p", "namespace": "n", "resourceVersion": "1" },
            "spec": { "restartPolicy": "Never", "containers": [{ "name": "main" }] },
            "status": { "phase": "Failed", "reason": reason, "message": reason } });
        let kept = status.as_object().unwrap().clone();
        pod["status"].as_object_mut().unwrap().extend(kept);
        let rules = Rules {
            cluster_id: "c".into(),
            ids: IdSources::default(),
            settle_grace: SignedDuration::ZERO,
            ..Rules::default()
        };
        let Judged::Ended(verdict) = judge(&serde_json::from_value(pod).unwrap(), Timestamp::MAX, &rules) else {
            panic!("{status} is no end")
        };
        verdict.failure.unwrap()
    }

    fn exited(code: i32, reason: &str) -> Value {
        let times = ("2026-01-02T03:04:05Z", "2026-01-02T03:04:06Z");
        let t = json!({ "exitCode": code, "reason": reason, "startedAt": times.0, "finishedAt": times.1 });
        json!({ "containerStatuses": [{ "name": "main", "restartCount": 0, "ready": false, "state": { "terminated": t } }] })
    }

    fn gone(waiting: Option<Cause>, attempt_started: bool, deleting: bool) -> Failure {
        let seen = LastSeen { waiting, attempt_started, deleting, node_lost: false };
        vanished(seen, Timestamp::UNIX_EPOCH).failure.unwrap()
    }

    #[test]
    fn the_page_says_what_the_judge_does() {
        let cases = [
            of(exited(3, "Error"), ""),
            of(exited(139, "Error"), ""),
            of(exited(137, "Error"), ""),
            of(exited(137, "OOMKilled"), ""),
            of(json!({}), "Evicted"),
            of(json!({}), "Preempting"),
            of(json!({}), "DeadlineExceeded"),
            of(exited(128, "StartError"), ""),
            of(json!({}), "OutOfcpu"),
            of(json!({}), "NodeLost"),
            gone(Some(Cause::Image), false, false),
            gone(Some(Cause::Unschedulable), false, false),
            gone(None, false, true),
            gone(None, true, false),
            of(exited(137, "ContainerStatusUnknown"), ""),
        ];
        let mut seen = std::collections::BTreeSet::new();
        for Failure { cause, error_type, retryable, .. } in cases {
            assert_eq!(Some((error_type, retryable)), cause.usual_end(), "{cause:?}");
            seen.insert(cause);
        }
        assert_eq!(seen.len(), 15, "each case is a cause of its own: {seen:?}");
    }

    #[test]
    fn every_cause_is_explained_in_one_row() {
        for cause in Cause::ALL {
            assert!(cause.what().ends_with('.') && cause.what().len() > 10, "{cause:?}: {}", cause.what());
            assert!(!cause.advice().is_empty() && !cause.advice().ends_with('.'), "{cause:?}: {}", cause.advice());
            assert!(![cause.what(), cause.advice()].concat().contains(['|', '\n']), "{cause:?} breaks the table");
        }
        let page = page();
        let row =
            |cause: Cause| page.lines().find(|line| line.starts_with(&format!("| `{}` |", cause.as_str()))).unwrap();
        for cause in [Cause::Gated, Cause::Starting, Cause::Terminating] {
            assert!(Graces::standard().of(cause).is_some() && row(cause).contains("| - | - |"), "{}", row(cause));
        }
        for cause in [Cause::Deadline, Cause::Unknown, Cause::NodeLost] {
            assert!(Graces::standard().of(cause).is_some() && row(cause).contains("As a stall: "), "{}", row(cause));
        }
        let ends = Cause::ALL.into_iter().filter(|cause| cause.usual_end().is_some()).count();
        assert_eq!(ends, Cause::ALL.len() - 3);
        assert!(row(Cause::Deadline).contains("Job") && row(Cause::Disrupted).contains("Job"));
        assert_eq!(page.matches("\n| `").count(), Cause::ALL.len());
    }
}
