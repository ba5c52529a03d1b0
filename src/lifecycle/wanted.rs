//! What is to be asked of the cluster about a pod: its output, and what else is known of a failure. Pure.

use super::{
    cause,
    container::main_container,
    event::{Outcome, Owner},
    rules::{FollowLogs, Rules},
    tracked::Tracked,
};
use crate::{
    logs::{Target, reason},
    watch::pod::{Pod, PodUid},
};

/// What is to be asked for one end.
#[derive(Debug, Clone, PartialEq)]
pub struct Wanted {
    /// Whose output.
    pub target: Target,
    /// Why it has none that could be read, as `logs.reason` tells it; `None`: it is to be read.
    pub no_log: Option<&'static str>,
    /// It is an init container's: no report of an execution.
    pub is_init: bool,
    /// It failed: what Kubernetes reported of the pod belongs to its end.
    pub failed: bool,
    /// The Job that may know better how this pod came to its end.
    pub job: Option<Box<Owner>>,
}

/// What the verdict of a pod still waits for, also after a restore.
pub fn outstanding(uid: &PodUid, tracked: &Tracked) -> Option<Wanted> {
    let verdict = tracked.verdict.as_deref()?;
    let ran = tracked.told.running || verdict.outcome == Outcome::Completed;
    let (container, restart_count) = match &verdict.failed_init {
        Some((init, restart_count)) => (init, *restart_count),
        None => (&verdict.container, verdict.restart_count),
    };
    let has_log = (ran || verdict.failed_init.is_some()) && !container.is_empty();
    let target = Target {
        uid: uid.clone(),
        namespace: tracked.namespace.clone(),
        pod_name: tracked.pod_name.clone(),
        node_name: tracked.node_name.clone(),
        container: container.clone(),
        restart_count,
        termination_message: verdict.termination_message.clone(),
    };
    Some(Wanted {
        target,
        no_log: (!has_log).then_some(reason::CONTAINER_NOT_STARTED),
        is_init: verdict.failed_init.is_some(),
        failed: verdict.failure.is_some(),
        job: tracked.owner.as_ref().filter(|owner| cause::may_know_better(owner, verdict)).cloned(),
    })
}

/// What is to be asked of a pod that is gone before its end was decided. Its log went with it, what others know did not.
pub fn when_gone(uid: &PodUid, told: Option<&Tracked>, last: Option<&Pod>) -> Option<Wanted> {
    if told.is_some_and(|t| t.end.is_some() || t.verdict.is_some() || t.gone.is_some() || t.left) {
        return None;
    }
    let (namespace, pod_name) = match (told, last) {
        (Some(told), _) => (&*told.namespace, &*told.pod_name),
        (None, Some(last)) => (&*last.metadata.namespace, &*last.metadata.name),
        (None, None) => return None,
    };
    let owner = told.and_then(|t| t.owner.clone()).or_else(|| Owner::of(&last?.metadata).map(Box::new));
    let target = Target {
        uid: uid.clone(),
        namespace: namespace.into(),
        pod_name: pod_name.into(),
        node_name: told.and_then(|t| t.node_name.clone()),
        container: "".into(),
        restart_count: 0,
        termination_message: None,
    };
    let job = owner.filter(|owner| owner.is_job());
    Some(Wanted { target, no_log: Some(reason::POD_GONE), is_init: false, failed: true, job })
}

/// A log to be followed.
#[derive(Debug, Clone, PartialEq)]
pub struct ToFollow {
    /// Whose.
    pub target: Target,
    /// Its pod is being deleted: who only rotates can wait, this one cannot.
    pub deleting: bool,
}

/// Whether a log of this pod may be one that is to be followed, whatever was told of it.
pub fn may_follow(pod: &Pod, rules: &Rules) -> bool {
    pod.metadata.deletion_timestamp.is_some() || rules.follow != FollowLogs::Deleted
}

/// What is to be followed: the log of a pod that is deleted while it runs is gone 1-3 s after its container ends, and of
/// what one prints that runs on a node keeps only the last. A read, so that it needs no commit; the same pod gives the same
/// answer as often as it is shown.
pub fn to_follow(told: Option<&Tracked>, pod: &Pod, rules: &Rules) -> Option<ToFollow> {
    if !may_follow(pod, rules) {
        return None;
    }
    let deleting = pod.metadata.deletion_timestamp.is_some();
    let main = main_container(pod, rules);
    let runs = main.runs();
    let is_over = told.is_some_and(|t| t.end.is_some() || t.verdict.is_some() || t.gone.is_some());
    let target = || Target {
        uid: pod.metadata.uid.clone(),
        namespace: pod.metadata.namespace.as_str().into(),
        pod_name: pod.metadata.name.as_str().into(),
        node_name: pod.spec.node_name.as_deref().map(Into::into),
        container: main.name.into(),
        restart_count: main.restart_count(),
        termination_message: None,
    };
    (runs && !is_over).then(|| ToFollow { target: target(), deleting })
}
