//! The verdict: whether an execution is over, how it ended and whose doing that was.
//!
//! Precedence: a main container that exited 0 is completed, whatever reason the pod gets later. Else: the container's
//! own OOM kill, then a disruption, then the pod's reason, then the container's reason, then the exit code. Pure and
//! total: a status that explains nothing gives [`Cause::Unknown`].

use jiff::{SignedDuration, Timestamp};

use super::{
    container::{self, Main, main_container, process_exited},
    event::{Cause, ErrorType, Failure, MESSAGE_CHARS_MAX, Outcome, Verdict},
    rules::Rules,
};
use crate::watch::pod::{Condition, Phase, Pod, Terminated};

/// What a status says about the end.
#[derive(Debug, PartialEq)]
pub enum Judged {
    /// Not over.
    Open,
    /// The container failed, but the pod's phase is not final yet and may bring the better reason.
    Settling {
        /// Judge by what is known then.
        until: Timestamp,
    },
    /// Over.
    Ended(Box<Verdict>),
}

/// Judges a pod by one status. `now` only decides whether a settle grace has passed.
pub fn judge(pod: &Pod, now: Timestamp, rules: &Rules) -> Judged {
    let main = main_container(pod, rules);
    let never_restarts = matches!(pod.spec.restart_policy.as_deref(), Some("Never"));
    let restarts_always = matches!(pod.spec.restart_policy.as_deref(), None | Some("Always"));
    let terminal = pod.status.phase.is_terminal();
    match main.ended() {
        Some(t) if succeeded(t) && (terminal || !restarts_always) => Judged::Ended(completed(pod, main, Some(t))),
        Some(t) if !terminal && never_restarts => settle(pod, main, t, now, rules),
        _ if !terminal => Judged::Open,
        ended if pod.status.phase == Phase::Succeeded && ended.is_none_or(|t| !process_exited(t)) => {
            Judged::Ended(completed(pod, main, None))
        }
        _ => Judged::Ended(failed(pod, main)),
    }
}

/// Why a pod does not get on, where its status says so: remembered, in case it vanishes before it starts.
pub fn waiting_cause(pod: &Pod) -> Option<Cause> {
    let statuses = pod.status.init_container_statuses.iter().chain(&pod.status.container_statuses);
    let reasons = statuses.filter_map(|c| c.state.waiting.as_ref()?.reason.as_deref());
    let unschedulable = |c: &&Condition| &*c.kind == "PodScheduled" && &*c.status == "False";
    reasons.filter_map(waiting_reason).next().or_else(|| {
        pod.status.conditions.iter().find(unschedulable)?;
        Some(Cause::Unschedulable)
    })
}

fn waiting_reason(reason: &str) -> Option<Cause> {
    match reason {
        "ErrImagePull"
        | "ImagePullBackOff"
        | "ErrImageNeverPull"
        | "InvalidImageName"
        | "ImageInspectError"
        | "RegistryUnavailable"
        | "SignatureValidationFailed" => Some(Cause::Image),
        "CreateContainerConfigError"
        | "CreateContainerError"
        | "RunContainerError"
        | "PreCreateHookError"
        | "PreStartHookError"
        | "PostStartHookError" => Some(Cause::Config),
        _ => None,
    }
}

fn succeeded(t: &Terminated) -> bool {
    t.exit_code == 0 && process_exited(t)
}

fn settle(pod: &Pod, main: Main<'_>, t: &Terminated, now: Timestamp, rules: &Rules) -> Judged {
    let finished = t.finished_at.unwrap_or_else(|| last_change(pod));
    let until = finished.checked_add(rules.settle_grace).unwrap_or(now);
    if now >= until { Judged::Ended(failed(pod, main)) } else { Judged::Settling { until } }
}

fn completed(pod: &Pod, main: Main<'_>, t: Option<&Terminated>) -> Box<Verdict> {
    Box::new(Verdict { outcome: Outcome::Completed, failure: None, ..base(pod, main, t) })
}

fn base(pod: &Pod, main: Main<'_>, t: Option<&Terminated>) -> Verdict {
    let finished_at = t.and_then(|t| t.finished_at);
    Verdict {
        outcome: Outcome::Failed,
        exit_code: t.filter(|t| process_exited(t)).map(|t| t.exit_code),
        failure: None,
        started_at: t.filter(|t| !container::never_ran(t)).and_then(|t| t.started_at).or_else(|| main.started_at()),
        finished_at,
        at: finished_at.unwrap_or_else(|| last_change(pod)),
        containers: container::ends(pod),
        container: main.name.into(),
        restart_count: main.restart_count(),
        termination_message: t.and_then(|t| t.message.clone()),
    }
}

/// The newest time that the status itself holds: when an end happened that left no finishedAt.
fn last_change(pod: &Pod) -> Timestamp {
    let conditions = pod.status.conditions.iter().filter_map(|c| c.last_transition_time);
    let known = conditions.chain(pod.status.start_time).max().or(pod.metadata.creation_timestamp);
    known.or(pod.metadata.deletion_timestamp).unwrap_or(Timestamp::UNIX_EPOCH)
}

/// Replaces the cause of a pod that never started by what it was seen waiting for: while a pod goes away the kubelet
/// overwrites that.
pub fn explain_by_waiting(verdict: &mut Verdict, waiting: Option<Cause>) {
    let (Some(failure), Some(waiting)) = (&mut verdict.failure, waiting) else { return };
    if matches!(failure.cause, Cause::Unknown | Cause::Deleted | Cause::Killed) {
        failure.cause = waiting;
        failure.message = Some(never_started(waiting).into());
        failure.hint = hint_for_waiting(waiting);
        failure.retryable = !matches!(waiting, Cause::Image | Cause::Config);
    }
}

fn never_started(waiting: Cause) -> &'static str {
    match waiting {
        Cause::Image => "the pod went away before its image could be had",
        Cause::Config => "the pod went away before its container could be created",
        Cause::Unschedulable => "the pod went away before a node could take it",
        _ => "the pod went away before its container could start",
    }
}

fn hint_for_waiting(waiting: Cause) -> Option<Box<str>> {
    match waiting {
        Cause::Image => Some("check the image name, its tag and the pull secret".into()),
        Cause::Config => Some("check the ConfigMaps, Secrets and mounts that the container refers to".into()),
        Cause::Unschedulable => Some("check requests, node selectors, taints and free capacity".into()),
        _ => None,
    }
}

/// Cause, class, retryable, what is said.
struct Finding {
    cause: Cause,
    error_type: ErrorType,
    retryable: bool,
    message: Option<String>,
    hint: Option<&'static str>,
}

fn finding(cause: Cause, error_type: ErrorType, retryable: bool) -> Finding {
    Finding { cause, error_type, retryable, message: None, hint: None }
}

impl Finding {
    fn say(mut self, message: Option<impl Into<String>>) -> Self {
        self.message = message.map(Into::into).or(self.message);
        self
    }

    fn hint(mut self, hint: &'static str) -> Self {
        self.hint = Some(hint);
        self
    }
}

fn failed(pod: &Pod, main: Main<'_>) -> Box<Verdict> {
    let t = main.last_ended();
    let found = by_oom(t)
        .or_else(|| by_disruption(pod))
        .or_else(|| by_pod_reason(pod))
        .or_else(|| by_init(pod, main))
        .or_else(|| t.map(|t| by_container(pod, t)))
        .unwrap_or_else(|| unexplained(pod));
    let mut verdict = base(pod, main, t);
    if found.cause == Cause::Deadline {
        verdict.outcome = Outcome::TimedOut;
    }
    // A pod that never started has no process whose exit could be told.
    let attempt_started = verdict.started_at.is_some();
    verdict.failure = Some(failure(found, attempt_started, pod));
    Box::new(verdict)
}

fn failure(found: Finding, attempt_started: bool, pod: &Pod) -> Failure {
    let deadline = (found.cause == Cause::Deadline).then_some(pod.spec.active_deadline_seconds).flatten();
    Failure {
        error_type: found.error_type,
        cause: found.cause,
        message: found.message.map(|m| m.chars().take(MESSAGE_CHARS_MAX).collect()),
        hint: found.hint.map(Into::into),
        retryable: found.retryable,
        attempt_started,
        timeout_seconds: deadline,
        ruled: None,
    }
}

fn by_oom(t: Option<&Terminated>) -> Option<Finding> {
    // OOMKilled with 143: a child was killed once, SIGTERM ended the container later.
    t.filter(|t| t.reason.as_deref() == Some("OOMKilled") && t.exit_code != 143)?;
    let found = finding(Cause::OomKilled, ErrorType::ResourceLimit, false);
    Some(found.say(Some("the container exceeded its memory limit")).hint("raise resources.limits.memory, or use less"))
}

fn by_disruption(pod: &Pod) -> Option<Finding> {
    let target = |c: &&Condition| &*c.kind == "DisruptionTarget" && &*c.status == "True";
    let condition = pod.status.conditions.iter().find(target)?;
    if pod.status.reason.as_deref() == Some("Evicted") {
        return Some(evicted(pod));
    }
    let message = condition.message.as_deref().or(condition.reason.as_deref());
    Some(finding(Cause::Disrupted, ErrorType::SystemError, true).say(message))
}

fn evicted(pod: &Pod) -> Finding {
    let message = pod.status.message.as_deref();
    // The pod's own limit (emptyDir, ephemeral storage), as against a node under pressure.
    let own = message.is_some_and(|m| m.contains("exceeds the total limit") || m.contains("usage exceeds"));
    let error_type = if own { ErrorType::ResourceLimit } else { ErrorType::SystemError };
    finding(Cause::Evicted, error_type, !own).say(message)
}

fn by_pod_reason(pod: &Pod) -> Option<Finding> {
    let reason = pod.status.reason.as_deref()?;
    let message = pod.status.message.as_deref().unwrap_or(reason);
    let found = match reason {
        "DeadlineExceeded" => finding(Cause::Deadline, ErrorType::Timeout, false)
            .hint("raise activeDeadlineSeconds, or make the execution quicker"),
        "Evicted" => evicted(pod),
        "Preempting" | "Terminated" | "NodeShutdown" | "Shutdown" => {
            finding(Cause::Disrupted, ErrorType::SystemError, true)
        }
        "NodeLost" => finding(Cause::NodeLost, ErrorType::SystemError, true),
        reason if admission(reason) => finding(Cause::Admission, ErrorType::SystemError, true),
        _ => return None,
    };
    Some(found.say(Some(message)))
}

/// Reasons with which a kubelet refuses a pod (pkg/kubelet/lifecycle/predicate.go).
fn admission(reason: &str) -> bool {
    reason.starts_with("OutOf")
        || matches!(
            reason,
            "NodeAffinity"
                | "UnexpectedAdmissionError"
                | "InvalidNodeInfo"
                | "PodOSNotSupported"
                | "PodOSSelectorNodeLabelDoesNotMatch"
                | "InitContainerRestartPolicyForbidden"
                | "SupplementalGroupsPolicyNotSupported"
                | "UnknownReason"
                | "UnexpectedPredicateFailureType"
        )
}

fn by_init(pod: &Pod, main: Main<'_>) -> Option<Finding> {
    if main.started_at().is_some() {
        return None;
    }
    let (container, t) = container::failed_init(pod)?;
    let said = format!("init container {} ended with exit code {}", container.name, t.exit_code);
    Some(finding(Cause::Init, ErrorType::SystemError, false).say(Some(said)))
}

fn by_container(pod: &Pod, t: &Terminated) -> Finding {
    let message = t.message.as_deref().filter(|m| !m.is_empty());
    match t.reason.as_deref() {
        Some("ContainerStatusUnknown") if pod.metadata.deletion_timestamp.is_some() => deleted(),
        Some("ContainerStatusUnknown") => finding(Cause::Unknown, ErrorType::SystemError, true).say(message),
        Some("StartError" | "ContainerCannotRun" | "CreateContainerError") => {
            let hint = "check command, args and mounts of the container";
            finding(Cause::Config, ErrorType::SystemError, false).say(message).hint(hint)
        }
        _ if matches!(t.exit_code, 137 | 143) && deleted_before(pod, t) => deleted(),
        _ => by_exit_code(t),
    }
}

fn by_exit_code(t: &Terminated) -> Finding {
    let by_code = || match t.exit_code {
        // A parent that passes on the -9 of its killed child.
        247 => Some(9),
        code => (code > 128).then(|| code - 128),
    };
    let signal = t.signal.filter(|s| *s > 0).or_else(by_code);
    match signal {
        Some(signal @ (9 | 15)) => finding(Cause::Killed, ErrorType::SystemError, true)
            .say(Some(format!("signal {signal} from outside ended the container"))),
        Some(signal @ 1..=31) => finding(Cause::Signal, ErrorType::ScriptError, false)
            .say(Some(format!("the program died of signal {signal}"))),
        _ => finding(Cause::ExitCode, ErrorType::ScriptError, false)
            .say(Some(format!("the program ended with exit code {}", t.exit_code))),
    }
}

fn deleted() -> Finding {
    finding(Cause::Deleted, ErrorType::SystemError, true).say(Some("the pod was deleted while it ran"))
}

/// Whether the deletion was asked for before the container ended. The timestamp is when the grace *ends*.
fn deleted_before(pod: &Pod, t: &Terminated) -> bool {
    let grace = SignedDuration::from_secs(pod.metadata.deletion_grace_period_seconds.unwrap_or(0));
    let asked = pod.metadata.deletion_timestamp.and_then(|at| at.checked_sub(grace).ok());
    asked.is_some_and(|asked| t.finished_at.is_none_or(|finished| finished >= asked))
}

fn unexplained(pod: &Pod) -> Finding {
    let message = pod.status.message.as_deref().or(pod.status.reason.as_deref());
    let cause = waiting_cause(pod).unwrap_or(Cause::Unknown);
    finding(cause, ErrorType::SystemError, true).say(message)
}

/// The verdict over a pod that is gone without an end that anybody saw. `at`: its deletionTimestamp, else when its
/// absence was noticed.
pub fn vanished(waiting: Option<Cause>, attempt_started: bool, deleting: bool, at: Timestamp) -> Box<Verdict> {
    let (cause, message) = match (attempt_started, waiting) {
        (true, _) => (Cause::Lost, "the pod vanished while it ran; nobody saw how it ended"),
        (false, Some(cause)) => (cause, never_started(cause)),
        (false, None) if deleting => (Cause::Deleted, "the pod was deleted before its container started"),
        (false, None) => (Cause::Lost, "the pod vanished before its container started"),
    };
    let failure = Failure {
        error_type: ErrorType::SystemError,
        cause,
        message: Some(message.into()),
        hint: hint_for_waiting(cause),
        retryable: !matches!(cause, Cause::Image | Cause::Config),
        attempt_started,
        timeout_seconds: None,
        ruled: None,
    };
    Box::new(Verdict {
        outcome: Outcome::Failed,
        exit_code: None,
        failure: Some(failure),
        started_at: None,
        finished_at: None,
        at,
        containers: Vec::new(),
        container: Box::default(),
        restart_count: 0,
        termination_message: None,
    })
}

#[cfg(test)]
#[path = "cause_tests.rs"]
mod tests;
