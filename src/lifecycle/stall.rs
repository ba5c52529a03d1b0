//! Stall clocks: what keeps an execution from getting on, since when, and when that is long enough to be told. Pure.
//!
//! A clock runs per cause and its beginning, both read from the status alone, never from a message: the scheduler counts
//! its nodes anew in each of them. One cause at a time, the one nearest to the root: a pod whose node is silent is not
//! told as overdue as well.

use std::{collections::BTreeMap, fmt};

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use super::{
    cause::reasons::{Patience, waiting},
    container::{Main, is_sidecar, main_container, never_ran},
    event::{Cause, bounded},
    rules::Rules,
};
use crate::watch::pod::{Condition, ContainerStatus, Phase, Pod};

/// How long each cause may last before it is told, `--stall-grace`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Graces(BTreeMap<Cause, SignedDuration>);

impl Graces {
    /// The causes that have clocks, with the grace that each has unless the user says otherwise, in seconds.
    pub const DEFAULTS: [(Cause, u32); 10] = [
        (Cause::Unschedulable, 60),
        // Queues (Kueue) hold pods back by gates for as long as it takes.
        (Cause::Gated, 600),
        (Cause::Image, 60),
        (Cause::Config, 60),
        (Cause::Init, 300),
        (Cause::Starting, 120),
        (Cause::NodeLost, 60),
        // Counted from when the kubelet should have ended it, its grace included.
        (Cause::Deadline, 30),
        (Cause::Terminating, 60),
        (Cause::Unknown, 120),
    ];

    /// What holds where nothing is configured.
    pub fn standard() -> Self {
        Self(Self::DEFAULTS.iter().map(|(cause, grace)| (*cause, SignedDuration::from_secs((*grace).into()))).collect())
    }

    /// Sets the grace of a cause; `None`: it is never told.
    pub fn set(&mut self, cause: Cause, grace: Option<SignedDuration>) {
        match grace {
            Some(grace) => self.0.insert(cause, grace),
            None => self.0.remove(&cause),
        };
    }

    /// The grace of a cause; `None`: it is never told.
    pub fn of(&self, cause: Cause) -> Option<SignedDuration> {
        self.0.get(&cause).copied()
    }
}

impl fmt::Display for Graces {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut between = "";
        for (cause, _) in Self::DEFAULTS {
            match self.of(cause) {
                Some(grace) => write!(f, "{between}{}={}s", cause.as_str(), grace.as_secs_f64())?,
                None => write!(f, "{between}{}=off", cause.as_str())?,
            }
            between = " ";
        }
        Ok(())
    }
}

/// A clock that runs: kept in the changelog, so that a successor's goes on where this one was.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Clock {
    /// What keeps it from getting on.
    pub cause: Cause,
    /// Since when.
    pub since: Timestamp,
    /// When that is told.
    pub due: Timestamp,
    /// What Kubernetes said when the clock began.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "super::event::message")]
    pub message: Option<Box<str>>,
}

/// A stall that was told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stalled {
    /// What kept it from getting on.
    pub cause: Cause,
    /// Since when.
    pub since: Timestamp,
    /// Whether it was told as resolved.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub resumed: bool,
}

/// The clock that a status sets going, of a pod that has not ended; `None`: it gets on, or nobody wants to know.
pub fn clock(pod: &Pod, rules: &Rules) -> Option<Clock> {
    // It may run for all that could be read of it.
    if pod.incomplete {
        return None;
    }
    let trouble = trouble(pod, rules)?;
    let grace = rules.stall_graces.of(trouble.cause)?;
    let grace = if trouble.at_once { SignedDuration::ZERO } else { grace };
    let due = trouble.since.checked_add(grace).ok()?;
    let message = trouble.message.as_deref().map(bounded);
    Some(Clock { cause: trouble.cause, since: trouble.since, due, message })
}

struct Trouble {
    cause: Cause,
    since: Timestamp,
    message: Option<String>,
    /// It cannot resolve itself: waiting for its grace tells nothing more.
    at_once: bool,
}

fn trouble(pod: &Pod, rules: &Rules) -> Option<Trouble> {
    let main = main_container(pod, rules);
    let found = |cause, since: Option<Timestamp>, message: Option<String>| {
        Some(Trouble { cause, since: since?, message, at_once: false })
    };
    if let Some(due) = pod.metadata.deletion_timestamp {
        let finalizers = pod.metadata.finalizers.join(", ");
        let held =
            if finalizers.is_empty() { String::new() } else { format!("; it holds the finalizers {finalizers}") };
        return found(Cause::Terminating, Some(due), Some(format!("its deletion was due and has not happened{held}")));
    }
    if let Some(lost) = silent_node(pod) {
        return found(Cause::NodeLost, lost.last_transition_time.or(since_bound(pod)), Some(silence(pod, lost)));
    }
    if pod.spec.node_name.as_deref().is_none_or(str::is_empty) {
        return unscheduled(pod);
    }
    if main.started_at().is_none() {
        return unstarted(pod, main);
    }
    let after_restart = main.status.and_then(|s| Some((s, s.last_state.terminated.as_ref()?.finished_at)));
    if let Some((status, ended)) = after_restart
        && let Some(trouble) = waits(status, ended.or(since_bound(pod))?).filter(|t| t.cause != Cause::Starting)
    {
        return Some(trouble);
    }
    let limit = pod.spec.active_deadline_seconds?;
    let grace = pod.spec.termination_grace_period_seconds.unwrap_or(30);
    let over = SignedDuration::from_secs(limit.checked_add(grace)?);
    let since = pod.status.start_time?.checked_add(over).ok();
    found(
        Cause::Deadline,
        since,
        Some(format!("activeDeadlineSeconds ({limit} s) has passed and its node did not end it")),
    )
}

/// The condition by which the node's silence shows. A kubelet writes Ready and ContainersReady alike; the node lifecycle
/// controller takes back Ready alone.
fn silent_node(pod: &Pod) -> Option<&Condition> {
    let condition =
        |kind: &str, status: &str| pod.status.conditions.iter().find(|c| &*c.kind == kind && &*c.status == status);
    let ready = condition("Ready", "False").or_else(|| condition("Ready", "Unknown"))?;
    let told = ready.reason.as_deref() == Some("NodeLost") || matches!(pod.status.phase, Phase::Unknown(_));
    let alone =
        &*ready.status == "Unknown" || (ready.reason.is_none() && condition("ContainersReady", "True").is_some());
    (told || alone).then_some(ready)
}

fn silence(pod: &Pod, lost: &Condition) -> String {
    let node = pod.spec.node_name.as_deref().unwrap_or("?");
    lost.message.as_deref().map_or_else(|| format!("node {node} does not answer"), ToOwned::to_owned)
}

fn unscheduled(pod: &Pod) -> Option<Trouble> {
    let refused = pod.status.conditions.iter().find(|c| &*c.kind == "PodScheduled" && &*c.status == "False");
    let reason = refused.and_then(|c| c.reason.as_deref());
    let gates = || pod.spec.scheduling_gates.iter().map(|g| &*g.name).collect::<Vec<_>>().join(", ");
    let since = refused.and_then(|c| c.last_transition_time).or(pod.metadata.creation_timestamp)?;
    let (cause, message) = match (reason, refused) {
        (Some("SchedulingGated"), _) => (Cause::Gated, format!("held back by its scheduling gates: {}", gates())),
        (_, None) if !pod.spec.scheduling_gates.is_empty() => {
            (Cause::Gated, format!("held back by its scheduling gates: {}", gates()))
        }
        (_, None) => (Cause::Unschedulable, "no scheduler has looked at it yet".to_owned()),
        (reason, Some(c)) => {
            let said = c.message.as_deref().or(reason).unwrap_or("the scheduler gives no reason");
            (Cause::Unschedulable, said.to_owned())
        }
    };
    Some(Trouble { cause, since, message: Some(message), at_once: false })
}

fn since_bound(pod: &Pod) -> Option<Timestamp> {
    let bound = pod.status.conditions.iter().find(|c| &*c.kind == "PodScheduled" && &*c.status == "True");
    bound.and_then(|c| c.last_transition_time).or(pod.metadata.creation_timestamp)
}

/// On a node, and its main container has never run.
fn unstarted(pod: &Pod, main: Main<'_>) -> Option<Trouble> {
    let status = &pod.status;
    if status.start_time.is_none() && status.container_statuses.is_empty() && status.init_container_statuses.is_empty()
    {
        let node = pod.spec.node_name.as_deref().unwrap_or("?");
        let message = Some(format!("the kubelet of node {node} has not reported about it"));
        return Some(Trouble { cause: Cause::NodeLost, since: since_bound(pod)?, message, at_once: false });
    }
    let begun = status.start_time.or_else(|| since_bound(pod))?;
    let unfinished = |c: &&ContainerStatus| match &c.state {
        s if s.terminated.as_ref().is_some_and(|t| t.exit_code == 0) => false,
        s => !(s.running.is_some() && is_sidecar(pod, &c.name)),
    };
    if let Some(init) = status.init_container_statuses.iter().find(unfinished) {
        let first = waits(init, begun).filter(|t| matches!(t.cause, Cause::Image | Cause::Config));
        let state = match &init.state {
            s if s.running.is_some() => "runs",
            s if s.terminated.is_some() => "failed",
            _ if init.restart_count > 0 => "fails again and again",
            _ => "has not started",
        };
        let message = Some(format!("init container {} {state}", init.name));
        return first.or(Some(Trouble { cause: Cause::Init, since: begun, message, at_once: false }));
    }
    let initialized = status.conditions.iter().find(|c| &*c.kind == "Initialized" && &*c.status == "True");
    let since = initialized.and_then(|c| c.last_transition_time).unwrap_or(begun);
    match main.status {
        Some(status) => waits(status, since),
        None => Some(starting(since)),
    }
}

fn starting(since: Timestamp) -> Trouble {
    let message = Some("its node prepares it: volumes, network, image".to_owned());
    Trouble { cause: Cause::Starting, since, message, at_once: false }
}

/// What a container waits for, by its waiting reason.
fn waits(status: &ContainerStatus, since: Timestamp) -> Option<Trouble> {
    let Some(state) = &status.state.waiting else {
        // Neither waiting nor running: the kubelet has not written a state yet.
        let nothing = status.state.running.is_none() && status.state.terminated.is_none();
        return nothing.then(|| starting(since));
    };
    let reason = state.reason.as_deref().unwrap_or_default();
    let said = state.message.as_deref().filter(|m| !m.is_empty()).unwrap_or("no details");
    let Some((cause, patience)) = waiting(reason, state.message.as_deref()) else { return Some(starting(since)) };
    let cause = match cause {
        // What an attempt did is told when the last one ends; one that could not even start is another matter.
        Cause::ExitCode if status.last_state.terminated.as_ref().is_some_and(never_ran) => Cause::Config,
        Cause::ExitCode => return None,
        cause => cause,
    };
    let message = Some(format!("container {} waits: {reason}: {said}", status.name));
    Some(Trouble { cause, since, message, at_once: patience == Patience::AtOnce })
}

#[cfg(test)]
#[path = "stall_tests.rs"]
mod tests;
