//! Which pods of which execution have ended: another pod that claims such an execution is found out, and, where executions
//! keep one order (`--shard-by execution`), waits until that end is told. Pure.
//!
//! It knows what the table knows: an execution is remembered as long as the record of its pod, `--remember-ended` beyond
//! the pod itself.

use std::collections::HashMap;

use crate::{
    lifecycle::{
        event::EarlierEnd,
        identity,
        rules::{Rules, ShardBy},
        tracked::Tracked,
    },
    watch::pod::{Pod, PodUid},
};

/// Pods of one execution that are known here: beyond them nobody is looked for. It has few, its retries; but an id may be
/// one that all pods bear.
const PODS_MAX: usize = 64;

/// By execution id.
#[derive(Debug, Default)]
pub(super) struct Executions(HashMap<Box<str>, Execution>);

#[derive(Debug, Default)]
struct Execution {
    /// Pods of it that were told of and have not ended.
    live: Vec<PodUid>,
    ended: Vec<Ended>,
    /// Pods of it that wait for the end of another one to be told.
    waiting: Vec<PodUid>,
}

#[derive(Debug)]
struct Ended {
    end: EarlierEnd,
    /// Else it is decided, and its output still to come.
    told: bool,
}

/// What a pod that was never told of finds.
pub(super) enum Found<'a> {
    /// How another pod of its execution had ended before this one was made, if one had.
    Earlier(Option<&'a EarlierEnd>),
    /// That end comes first; this pod is given back by [`Executions::note`] when it is told.
    ToWait,
}

impl Executions {
    /// Takes in what is, or is about to be, told of a pod; gives the pods that waited for it. An end that was decided never
    /// changes, so that a transaction which came to nothing leaves no wrong end here.
    pub(super) fn note(&mut self, uid: &PodUid, tracked: &Tracked) -> Vec<PodUid> {
        let execution = self.0.entry(tracked.execution_id.clone()).or_default();
        let Some(end) = tracked.ended(uid) else {
            if execution.live.len() < PODS_MAX && !execution.live.contains(uid) {
                execution.live.push(uid.clone());
            }
            return Vec::new();
        };
        execution.live.retain(|live| live != uid);
        let told = tracked.end.is_some();
        match execution.ended.iter_mut().find(|known| known.end.pod_uid == *uid) {
            Some(known) => known.told |= told,
            None => execution.ended.push(Ended { end, told }),
        }
        if execution.ended.len() > PODS_MAX {
            execution.ended.remove(0);
        }
        if told { std::mem::take(&mut execution.waiting) } else { Vec::new() }
    }

    /// Pods of this one's execution that have not ended as far as was told: what is known of them by now comes first.
    pub(super) fn siblings(&self, pod: &Pod, rules: &Rules) -> Vec<PodUid> {
        let ids = identity::ids(&pod.metadata, &rules.ids);
        self.0.get(&ids.execution_id).map(|execution| execution.live.clone()).unwrap_or_default()
    }

    /// What was to be told of this pod came to nothing: whoever waits for its end goes on waiting.
    pub(super) fn untold(&mut self, uid: &PodUid, tracked: &Tracked) {
        let execution = self.0.get_mut(&tracked.execution_id);
        let known = execution.and_then(|e| e.ended.iter_mut().find(|known| known.end.pod_uid == *uid));
        known.into_iter().for_each(|known| known.told = false);
    }

    /// Forgets a pod; gives the pods that waited for it.
    pub(super) fn forget(&mut self, uid: &PodUid, tracked: &Tracked) -> Vec<PodUid> {
        let waited = self.0.get_mut(&tracked.execution_id).map(|execution| execution.forget(uid)).unwrap_or_default();
        if self.0.get(&tracked.execution_id).is_some_and(Execution::is_empty) {
            self.0.remove(&tracked.execution_id);
        }
        waited
    }

    /// The same for a pod of which nothing is told, so that nobody knows its execution: looks through all.
    pub(super) fn forget_untold(&mut self, uid: &PodUid) -> Vec<PodUid> {
        let knows = |e: &&mut Execution| e.live.contains(uid) || e.ended.iter().any(|known| known.end.pod_uid == *uid);
        let waited = self.0.values_mut().filter(knows).flat_map(|execution| execution.forget(uid)).collect();
        self.0.retain(|_, execution| !execution.is_empty());
        waited
    }

    /// The last end of this pod's execution before the pod was made, or that it has to wait for one.
    pub(super) fn look(&mut self, pod: &Pod, rules: &Rules) -> Found<'_> {
        let (ids, uid) = (identity::ids(&pod.metadata, &rules.ids), &pod.metadata.uid);
        let Some(made) = pod.metadata.creation_timestamp else { return Found::Earlier(None) };
        let Some(execution) = self.0.get_mut(&ids.execution_id) else { return Found::Earlier(None) };
        let is_earlier = |known: &&Ended| known.end.timestamp <= made && known.end.pod_uid != *uid;
        let in_order = rules.shard_by == ShardBy::Execution;
        if in_order && execution.ended.iter().filter(is_earlier).any(|known| !known.told) {
            execution.waiting.push(uid.clone());
            return Found::ToWait;
        }
        let earlier = execution.ended.iter().filter(is_earlier).map(|known| &known.end);
        Found::Earlier(earlier.max_by_key(|end| end.timestamp))
    }
}

impl Execution {
    fn forget(&mut self, uid: &PodUid) -> Vec<PodUid> {
        self.live.retain(|live| live != uid);
        self.ended.retain(|known| known.end.pod_uid != *uid);
        std::mem::take(&mut self.waiting)
    }

    fn is_empty(&self) -> bool {
        self.live.is_empty() && self.ended.is_empty() && self.waiting.is_empty()
    }
}
