//! The verdict: whether an execution is over, how it ended and whose doing that was.
//!
//! ```text
//!  judge -- over? --> completed (main container exited 0)
//!                \--> failed --> failure: OOM > disruption > pod's reason > init > container's reason > exit code
//!                                reasons: what each word of Kubernetes means
//! ```
//! A main container that exited 0 is completed, whatever reason the pod gets later; the pod's reason is told with its
//! going. A reason that came only after the container's own end, and later than its settle grace, explains nothing: who
//! watched had told the end by then, and who comes late must tell the same. Pure and total: a status that explains
//! nothing gives [`Cause::Unknown`].

mod failure;
mod owner;
pub(super) mod reasons;

use jiff::Timestamp;

use super::{
    container::{self, Main, main_container, process_exited, will_restart},
    event::{Cause, ErrorType, Failure, Outcome, Verdict},
    rules::Rules,
};
use crate::watch::pod::{Phase, Pod, Terminated};

pub use owner::{OwnerEnd, OwnerSays, explain_by_owner, may_know_better};
pub use reasons::{Patience, waiting, waiting_cause};

/// As `now`: nothing newer will ever come of this pod.
pub const LAST_WORD: Timestamp = Timestamp::MAX;

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
    let terminal = pod.status.phase.is_terminal();
    match main.ended() {
        Some(t) if succeeded(t) && (terminal || now == LAST_WORD || !will_restart(pod, main, t)) => {
            Judged::Ended(completed(pod, main, Some(t)))
        }
        // A pod that goes away starts nothing again, but its kubelet may have begun to just before.
        Some(t) if !terminal && !succeeded(t) && (!will_restart(pod, main, t) || going(pod) || now == LAST_WORD) => {
            settle(pod, main, t.finished_at.unwrap_or_else(|| last_change(pod)), now, rules)
        }
        None if now == LAST_WORD && !terminal => between_attempts(pod, main, rules),
        _ if !terminal => Judged::Open,
        ended if pod.status.phase == Phase::Succeeded && ended.is_none_or(|t| !process_exited(t)) => {
            Judged::Ended(completed(pod, main, None))
        }
        // A kubelet that is slow writes a status of before the end with the phase of after it, and the container's end with the
        // next one: what ended by itself at its deadline or eviction is not to be told as killed.
        None if main.runs() => settle(pod, main, last_change(pod), now, rules),
        _ => Judged::Ended(failed(pod, main, rules)),
    }
}

fn going(pod: &Pod) -> bool {
    pod.metadata.deletion_timestamp.is_some()
}

fn succeeded(t: &Terminated) -> bool {
    t.exit_code == 0 && process_exited(t)
}

/// The pod is gone while its container waited to be started again: the last attempt's end is the execution's.
fn between_attempts(pod: &Pod, main: Main<'_>, rules: &Rules) -> Judged {
    match main.last_ended() {
        Some(t) if succeeded(t) => Judged::Ended(completed(pod, main, Some(t))),
        Some(_) => Judged::Ended(failed(pod, main, rules)),
        None => Judged::Open,
    }
}

/// Failed, once the settle grace since then is over.
fn settle(pod: &Pod, main: Main<'_>, since: Timestamp, now: Timestamp, rules: &Rules) -> Judged {
    let until = since.checked_add(rules.settle_grace).unwrap_or(now);
    if now >= until { Judged::Ended(failed(pod, main, rules)) } else { Judged::Settling { until } }
}

fn completed(pod: &Pod, main: Main<'_>, t: Option<&Terminated>) -> Box<Verdict> {
    Box::new(Verdict { outcome: Outcome::Completed, failure: None, ..base(pod, main, t) })
}

fn failed(pod: &Pod, main: Main<'_>, rules: &Rules) -> Box<Verdict> {
    let t = main.last_ended();
    let found = failure::find(pod, main, t, rules);
    // An earlier attempt's success is not how this failure ended: the next attempt never did.
    let mut verdict = base(pod, main, t.filter(|t| !succeeded(t) || main.ended().is_some()));
    if found.cause == Cause::Deadline {
        verdict.outcome = Outcome::TimedOut;
    }
    // A pod that never started has no process whose exit could be told; an exit without times is a start all the same.
    let attempt_started = verdict.started_at.is_some() || verdict.exit_code.is_some() || main.told_running().is_some();
    if found.cause == Cause::Init {
        verdict.failed_init = container::failed_init(pod).map(|(c, _)| (c.name.as_str().into(), c.restart_count));
    }
    verdict.failure = Some(found.into_failure(attempt_started, pod));
    Box::new(verdict)
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
        failed_init: None,
        termination_message: t.and_then(|t| t.message.clone()),
    }
}

/// The newest time that the status itself holds: when an end happened that left no finishedAt.
pub(super) fn last_change(pod: &Pod) -> Timestamp {
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
        failure.retryable = retryable_after(waiting);
    }
}

fn never_started(waiting: Cause) -> &'static str {
    match waiting {
        Cause::Image => "the pod went away before its image could be had",
        Cause::Config => "the pod went away before its container could be created",
        Cause::Init => "the pod went away before its init containers were done",
        Cause::Unschedulable => "the pod went away before a node could take it",
        _ => "the pod went away before its container could start",
    }
}

fn hint_for_waiting(waiting: Cause) -> Option<Box<str>> {
    match waiting {
        Cause::Image => Some("check the image name, its tag and the pull secret".into()),
        Cause::Config => Some("check the ConfigMaps, Secrets and mounts that the container refers to".into()),
        Cause::Init => Some("look at the output of the init container".into()),
        Cause::Unschedulable => Some("check requests, node selectors, taints and free capacity".into()),
        _ => None,
    }
}

/// What is wrong with the pod itself is as wrong the next time.
fn retryable_after(waiting: Cause) -> bool {
    !matches!(waiting, Cause::Image | Cause::Config | Cause::Init)
}

/// Completes a verdict over a pod that no longer shows how its container ended by the end that was seen before: a kubelet
/// that lost sight of a container, or a controller that marks pods of lost nodes, writes over it.
pub fn recall(verdict: &mut Verdict, seen: &Verdict) {
    let of = |v: &Verdict| (v.container.clone(), v.restart_count);
    if verdict.exit_code.is_some() || verdict.outcome == Outcome::Completed || of(verdict) != of(seen) {
        return;
    }
    verdict.exit_code = seen.exit_code;
    (verdict.started_at, verdict.finished_at) = (seen.started_at, seen.finished_at);
    (verdict.containers, verdict.termination_message) = (seen.containers.clone(), seen.termination_message.clone());
    verdict.at = seen.at;
    // Who gives a better reason than that nobody knows keeps it.
    if verdict.failure.as_ref().is_some_and(|f| matches!(f.cause, Cause::Unknown | Cause::Deleted | Cause::Lost)) {
        verdict.failure = seen.failure.clone();
    }
}

/// What was last seen of a pod that is gone.
#[derive(Debug, Clone, Copy, Default)]
pub struct LastSeen {
    /// What it waited for.
    pub waiting: Option<Cause>,
    /// Whether its container had started.
    pub attempt_started: bool,
    /// Whether it was being deleted.
    pub deleting: bool,
    /// Whether its node was silent.
    pub node_lost: bool,
}

/// The verdict over a pod that is gone without an end that anybody saw. `at`: its deletionTimestamp, else when its
/// absence was noticed.
pub fn vanished(seen: LastSeen, at: Timestamp) -> Box<Verdict> {
    let LastSeen { waiting, attempt_started, deleting, node_lost } = seen;
    let (cause, message) = match (attempt_started, waiting) {
        _ if node_lost => (Cause::NodeLost, "its node was lost, and the pod was given up with it"),
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
        retryable: retryable_after(cause),
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
        failed_init: None,
        termination_message: None,
    })
}

#[cfg(test)]
mod tests;
