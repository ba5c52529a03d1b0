//! What would be told of a pod that is seen once, and why: [`step`] itself, asked step by step. Pure.

use jiff::Timestamp;
use serde::Serialize;

use super::{
    cause,
    container::main_container,
    decide::{Input, step},
    event::{Body, Captured, Cause, EarlierEnd, Event, Failure, Outcome, Owner, Verdict},
    identity::{self, Source},
    rules::Rules,
    stall::Clock,
    tracked::Tracked,
    user_rules::Ruling,
};
use crate::watch::pod::Pod;

/// `logs.reason` of an end that was only explained.
const NOT_READ: &str = "not_read";

/// What would be told of a pod, and why.
#[derive(Debug, Clone, PartialEq)]
pub struct Explained {
    /// Where its execution id comes from.
    pub source: Source,
    /// The container whose end is the execution's end; empty where the pod names none.
    pub container: Box<str>,
    /// Why that one.
    pub chosen: Chosen,
    /// What would be told, in this order. Output is not captured.
    pub events: Vec<Event>,
    /// How it ended, as it would be told; `None`: it has not.
    pub verdict: Option<Verdict>,
    /// The Job that is asked before that is told: it may know better.
    pub job: Option<Box<Owner>>,
    /// What the rules of the user make of that end; `None`: it did not fail, or there are none.
    pub ruling: Option<Box<Ruling>>,
    /// It failed, and its final phase is waited for until then.
    pub settles_at: Option<Timestamp>,
    /// The stall clock that runs.
    pub clock: Option<Clock>,
    /// What would be remembered of it.
    pub tracked: Option<Tracked>,
}

/// Why a container is the main one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Chosen {
    /// `--container` names it.
    Setting,
    /// The annotation `kubectl.kubernetes.io/default-container` names it.
    Annotation,
    /// The pod has no other.
    Only,
    /// The pod names it first.
    First,
    /// The pod's spec names none; its status does.
    Status,
    /// There is none at all.
    Nothing,
}

impl Chosen {
    /// For people.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Setting => "--container names it",
            Self::Annotation => "its annotation kubectl.kubernetes.io/default-container names it",
            Self::Only => "the pod has no other",
            Self::First => "the pod names it first",
            Self::Status => "only the pod's status names one",
            Self::Nothing => "the pod names none",
        }
    }
}

/// Explains a pod as it would be seen at `now` by who has never seen it before. `earlier`: how another pod of its
/// execution ended.
pub fn explain(pod: &Pod, earlier: Option<&EarlierEnd>, now: Timestamp, rules: &Rules) -> Explained {
    let uid = &pod.metadata.uid;
    let seen = step(uid, None, Input::Observed { pod, earlier, now }, rules);
    let (mut events, mut tracked) = (seen.events, seen.tracked);
    // Before the capture, which settles it; of an end that captures nothing it is settled already.
    let mut ruling = tracked.as_ref().and_then(|tracked| tracked.ruling.clone());
    let captured = Captured::unavailable(NOT_READ);
    let after = [Input::Tick { now }, Input::Captured { captured, now }];
    for input in after {
        let then = step(uid, tracked.as_ref(), input, rules);
        events.extend(then.events);
        tracked = then.tracked.or(tracked);
    }
    let verdict = events.iter().find_map(|event| match &event.body {
        Body::Ended(ended) => Some(ended.verdict.clone()),
        _ => None,
    });
    if let Some(verdict) = verdict.as_ref().filter(|_| ruling.is_none()) {
        ruling = rules.user.ruling(verdict, Some(pod));
    }
    let owner = tracked.as_ref().and_then(|tracked| tracked.owner.as_ref());
    let job = owner.zip(verdict.as_ref()).filter(|(owner, verdict)| cause::may_know_better(owner, verdict));
    let job = job.map(|(owner, _)| owner.clone());
    let main = main_container(pod, rules);
    Explained {
        source: identity::source(&pod.metadata, &rules.ids),
        container: main.name.into(),
        chosen: chosen(pod, main.name, rules),
        events,
        verdict,
        job,
        ruling,
        settles_at: seen.settle_until,
        clock: tracked.as_ref().and_then(|tracked| tracked.clock.as_deref().cloned()),
        tracked,
    }
}

fn chosen(pod: &Pod, name: &str, rules: &Rules) -> Chosen {
    let annotated = pod.metadata.annotations.get("kubectl.kubernetes.io/default-container");
    match pod.spec.containers.as_slice() {
        _ if name.is_empty() => Chosen::Nothing,
        [] => Chosen::Status,
        _ if rules.container.as_deref() == Some(name) => Chosen::Setting,
        _ if annotated.is_some_and(|annotated| **annotated == *name) => Chosen::Annotation,
        [_] => Chosen::Only,
        _ => Chosen::First,
    }
}

/// What a verdict without a rule of the user rests on, for people: the steps of `cause.rs` in its order.
pub fn rests_on(verdict: &Verdict) -> &'static str {
    match (verdict.outcome, verdict.failure.as_ref().map(|Failure { cause, .. }| *cause)) {
        (Outcome::Completed, _) | (_, None) => "its main container ended with exit code 0",
        (_, Some(Cause::OomKilled)) => "the container's reason OOMKilled",
        (_, Some(Cause::Disrupted)) => "a condition or reason of the pod that tells of a disruption",
        (_, Some(Cause::Deadline)) => "the pod's reason DeadlineExceeded",
        (_, Some(Cause::Evicted | Cause::Admission | Cause::NodeLost)) => "the pod's reason",
        (_, Some(Cause::Init)) => "the end of an init container",
        (_, Some(Cause::Image | Cause::Config)) => "why its container could not start",
        (_, Some(Cause::ExitCode | Cause::Signal | Cause::Killed)) => "the container's exit code",
        (_, Some(Cause::Deleted)) => "the pod's deletion",
        (_, Some(Cause::Unschedulable | Cause::Gated | Cause::Starting | Cause::Terminating)) => {
            "what the pod waited for"
        }
        (_, Some(Cause::Lost)) => "nothing: nobody saw how it ended",
        (_, Some(Cause::Unknown)) => "nothing that its status says",
    }
}
