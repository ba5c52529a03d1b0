//! Why an execution failed: the first of these that knows an answer, in this order.

use jiff::{SignedDuration, Timestamp};

use super::reasons::{self, Disruption, waiting_cause};
use crate::{
    lifecycle::{
        container::{self, Main, will_restart},
        event::{Cause, ErrorType, Failure, bounded},
        rules::Rules,
    },
    watch::pod::{Condition, Pod, Terminated},
};

/// Cause, class, retryable, what is said.
pub(super) struct Finding {
    pub(super) cause: Cause,
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

    fn hint(mut self, hint: impl Into<Option<&'static str>>) -> Self {
        self.hint = hint.into();
        self
    }

    /// As it is told.
    pub(super) fn into_failure(self, attempt_started: bool, pod: &Pod) -> Failure {
        let deadline = (self.cause == Cause::Deadline).then_some(pod.spec.active_deadline_seconds).flatten();
        Failure {
            error_type: self.error_type,
            cause: self.cause,
            message: self.message.as_deref().map(bounded),
            hint: self.hint.map(Into::into),
            retryable: self.retryable,
            attempt_started,
            timeout_seconds: deadline,
            ruled: None,
        }
    }
}

/// Why. `t`: the main container's newest end, where it has one.
pub(super) fn find(pod: &Pod, main: Main<'_>, t: Option<&Terminated>, rules: &Rules) -> Finding {
    // Its own and its last end: what came later than the grace explains nothing.
    let own = main.ended().filter(|t| !will_restart(pod, main, t)).and_then(|t| t.finished_at);
    let settled = own.and_then(|at| at.checked_add(rules.settle_grace).ok());
    by_deadline(pod, own)
        .or_else(|| by_oom(t))
        .or_else(|| by_disruption(pod, settled))
        .or_else(|| by_pod_reason(pod))
        .or_else(|| by_init(pod, main))
        .or_else(|| t.map(|t| by_container(pod, t)))
        .unwrap_or_else(|| unexplained(pod, main))
}

/// Before an OOM kill: a container that was ended by its own would not have lived until the deadline, so it was a child
/// that was killed.
fn by_deadline(pod: &Pod, own: Option<Timestamp>) -> Option<Finding> {
    pod.status.reason.as_deref().filter(|reason| *reason == "DeadlineExceeded")?;
    let seconds = pod.spec.active_deadline_seconds.map(SignedDuration::from_secs);
    let due = pod.status.start_time.zip(seconds).and_then(|(start, seconds)| start.checked_add(seconds).ok());
    // Over by itself before: another container kept the pod alive until then.
    if own.zip(due).is_some_and(|(finished, due)| finished < due) {
        return None;
    }
    let message = pod.status.message.as_deref().unwrap_or("DeadlineExceeded");
    let hint = "raise activeDeadlineSeconds, or make the execution quicker";
    Some(finding(Cause::Deadline, ErrorType::Timeout, false).say(Some(message)).hint(hint))
}

fn by_oom(t: Option<&Terminated>) -> Option<Finding> {
    // OOMKilled with 143: a child was killed once, SIGTERM ended the container later.
    let t = t.filter(|t| t.reason.as_deref() == Some("OOMKilled") && t.exit_code != 143)?;
    let said = match t.exit_code {
        137 => "the container exceeded its memory limit".to_owned(),
        code => {
            format!("a process in the container exceeded its memory limit; the program ended with exit code {code}")
        }
    };
    let hint = "raise resources.limits.memory, or use less";
    Some(finding(Cause::OomKilled, ErrorType::ResourceLimit, false).say(Some(said)).hint(hint))
}

fn by_disruption(pod: &Pod, settled: Option<Timestamp>) -> Option<Finding> {
    let in_time =
        |c: &Condition| settled.zip(c.last_transition_time).is_none_or(|(settled, changed)| changed <= settled);
    let named = |kind: &str| {
        let target = |c: &&Condition| &*c.kind == kind && &*c.status == "True" && in_time(c);
        pod.status.conditions.iter().find(target)
    };
    // Kueue and its like have a condition of their own.
    let condition = named("DisruptionTarget").or_else(|| named("TerminationTarget"))?;
    if pod.status.reason.as_deref() == Some("Evicted") {
        return Some(evicted(pod));
    }
    let meant = reasons::disruption(condition.reason.as_deref().unwrap_or_default(), pod.status.reason.as_deref());
    Some(disrupted(meant, condition.message.as_deref().or(condition.reason.as_deref())))
}

fn disrupted(meant: Disruption, message: Option<&str>) -> Finding {
    let said = message.map_or_else(|| meant.said.to_owned(), |message| format!("{}: {message}", meant.said));
    finding(Cause::Disrupted, ErrorType::SystemError, true).say(Some(said)).hint(meant.hint)
}

fn evicted(pod: &Pod) -> Finding {
    let message = pod.status.message.as_deref();
    // The pod's own limit (emptyDir, ephemeral storage), as against a node under pressure.
    let limits =
        ["exceeds the limit", "exceeds the total limit", "usage exceeds", "exceeded its local ephemeral storage"];
    let own = message.is_some_and(|m| limits.iter().any(|words| m.contains(words)));
    let (error_type, hint) = match own {
        true => (ErrorType::ResourceLimit, "raise sizeLimit or resources.limits.ephemeral-storage, or write less"),
        false => (ErrorType::SystemError, "set requests as high as what it uses: who exceeds its requests goes first"),
    };
    finding(Cause::Evicted, error_type, !own).say(message.or(Some("evicted"))).hint(hint)
}

fn by_pod_reason(pod: &Pod) -> Option<Finding> {
    let reason = pod.status.reason.as_deref()?;
    let message = pod.status.message.as_deref();
    let found = match reason {
        "Evicted" => return Some(evicted(pod)),
        "NodeLost" => finding(Cause::NodeLost, ErrorType::SystemError, true),
        _ if reasons::admission(reason) => finding(Cause::Admission, ErrorType::SystemError, true),
        _ => return reasons::disrupted(reason).map(|meant| disrupted(meant, message)),
    };
    Some(found.say(message.or(Some(reason))))
}

fn by_init(pod: &Pod, main: Main<'_>) -> Option<Finding> {
    if main.told_running().is_some() {
        return None;
    }
    let (status, t) = container::failed_init(pod)?;
    let name = &status.name;
    if container::never_ran(t) {
        let why = t.message.as_deref().unwrap_or("its program could not be started");
        let found = finding(Cause::Config, ErrorType::SystemError, false).hint(START_HINT);
        return Some(found.say(Some(format!("init container {name}: {why}"))));
    }
    if matches!(t.exit_code, 137 | 143) && deleted_before(pod, t) {
        return Some(deleted("the pod was deleted before its container started"));
    }
    if t.reason.as_deref() == Some("OOMKilled") {
        let found = finding(Cause::Init, ErrorType::ResourceLimit, false);
        let found = found.hint("raise resources.limits.memory of the init container, or use less");
        return Some(found.say(Some(format!("init container {name} exceeded its memory limit"))));
    }
    let said = match container::process_exited(t) {
        true => format!("init container {name} ended with exit code {}", t.exit_code),
        false => format!("init container {name} was lost"),
    };
    let hint = "look at the output of the init container";
    Some(finding(Cause::Init, ErrorType::SystemError, false).say(Some(said)).hint(hint))
}

const START_HINT: &str = "check command, args and mounts of the container";

fn by_container(pod: &Pod, t: &Terminated) -> Finding {
    let message = t.message.as_deref().filter(|m| !m.is_empty());
    match t.reason.as_deref() {
        Some("ContainerStatusUnknown") if pod.metadata.deletion_timestamp.is_some() => deleted(WHILE_IT_RAN),
        Some("ContainerStatusUnknown") => finding(Cause::Unknown, ErrorType::SystemError, true).say(message),
        Some("StartError" | "ContainerCannotRun" | "CreateContainerError") => {
            finding(Cause::Config, ErrorType::SystemError, false).say(message).hint(START_HINT)
        }
        _ if matches!(t.exit_code, 137 | 143) && deleted_before(pod, t) => deleted(WHILE_IT_RAN),
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
            .say(Some(format!("signal {signal} from outside ended the container")))
            .hint("look for failed liveness probes, a node out of memory, or somebody's kill"),
        Some(signal @ 1..=31) => finding(Cause::Signal, ErrorType::ScriptError, false)
            .say(Some(format!("the program died of signal {signal}"))),
        _ => finding(Cause::ExitCode, ErrorType::ScriptError, false)
            .say(Some(format!("the program ended with exit code {}", t.exit_code))),
    }
}

const WHILE_IT_RAN: &str = "the pod was deleted while it ran";

fn deleted(said: &'static str) -> Finding {
    finding(Cause::Deleted, ErrorType::SystemError, true).say(Some(said))
}

/// Whether the deletion was asked for before the container ended. The timestamp is when the grace *ends*; the kubelet's
/// last word before the object goes sets both anew (grace 0, at that moment), and says no more when it was asked for.
fn deleted_before(pod: &Pod, t: &Terminated) -> bool {
    let grace = SignedDuration::from_secs(pod.metadata.deletion_grace_period_seconds.unwrap_or(0));
    let asked = pod.metadata.deletion_timestamp.and_then(|at| at.checked_sub(grace).ok());
    asked.is_some_and(|asked| t.finished_at.is_none_or(|finished| finished >= asked))
}

fn unexplained(pod: &Pod, main: Main<'_>) -> Finding {
    let message = pod.status.message.as_deref().or(pod.status.reason.as_deref());
    if let Some(cause) = waiting_cause(pod) {
        return finding(cause, ErrorType::SystemError, super::retryable_after(cause)).say(message);
    }
    // Only a controller marks a pod failed whose container is said to run: its kubelet did not answer any more.
    if main.runs() {
        let said = message.unwrap_or("the pod was given up while its container ran: its node does not answer");
        return finding(Cause::NodeLost, ErrorType::SystemError, true).say(Some(said));
    }
    if pod.metadata.deletion_timestamp.is_some() && pod.status.reason.is_none() {
        let said = match main.told_running() {
            Some(_) => WHILE_IT_RAN,
            None => "the pod was deleted before its container started",
        };
        return deleted(said);
    }
    finding(Cause::Unknown, ErrorType::SystemError, true).say(message)
}
