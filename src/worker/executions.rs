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
    },
    watch::pod::{Pod, PodUid},
};

/// Pods of one execution that are known here: beyond them nobody is looked for. It has few, its retries; but an id may be
/// one that all pods bear.
const PODS_MAX: usize = 64;

/// By execution id. Says how a pod ended only as long as no record says it.
#[derive(Debug, Default)]
pub(super) struct Executions(HashMap<Box<str>, Execution>);

/// What is known of one. Nearly all have one pod, which lives: there are as many of these as pods.
#[derive(Debug)]
enum Execution {
    /// A pod that was told of and has not ended, and nothing else.
    One(PodUid),
    /// A pod that has ended as its record says, and nothing else.
    Over(PodUid),
    /// Anything else.
    Several(Box<Several>),
}

#[derive(Debug, Default)]
struct Several {
    /// Pods of it that were told of and have not ended.
    live: Vec<PodUid>,
    ended: Vec<Ended>,
    /// Pods of it that wait for the end of another one to be told.
    waiting: Vec<PodUid>,
}

#[derive(Debug, Clone)]
enum Ended {
    /// As its record says: there are nearly as many of these as pods that have ended.
    Recorded(PodUid),
    /// It is decided: about to be told, or its output is still to come.
    Decided { end: EarlierEnd, told: bool },
}

/// What a pod that was never told of finds.
pub(super) enum Found {
    /// How another pod of its execution had ended before this one was made, if one had.
    Earlier(Option<EarlierEnd>),
    /// That end comes first; this pod is given back by [`Executions::note`] when it is told.
    ToWait,
}

impl Executions {
    /// Takes in what is, or is about to be, told of a pod of this execution: that it lives, or how it ended and whether that
    /// is told; gives the pods that waited for it. An end that was decided never changes, so that a transaction which came
    /// to nothing leaves no wrong end here.
    pub(super) fn note(&mut self, uid: &PodUid, id: &str, end: Option<EarlierEnd>, told: bool) -> Vec<PodUid> {
        let Some(execution) = self.0.get_mut(id) else {
            let mut new = Execution::One(uid.clone());
            if end.is_some() {
                new.several().note(uid, end, told);
            }
            self.0.insert(id.into(), new);
            return Vec::new();
        };
        match (&mut *execution, end) {
            (Execution::One(live), None) if *live == *uid => Vec::new(),
            (Execution::Over(over), Some(_)) if *over == *uid => Vec::new(),
            (execution, end) => execution.several().note(uid, end, told),
        }
    }

    /// Pods of this one's execution that have not ended as far as was told: what is known of them by now comes first.
    pub(super) fn siblings(&self, pod: &Pod, rules: &Rules) -> Vec<PodUid> {
        let ids = identity::ids(&pod.metadata, &rules.ids);
        self.0.get(&ids.execution_id).map(|execution| execution.live().to_vec()).unwrap_or_default()
    }

    /// The record of this pod says how it ended: that is where it is looked up from now on.
    pub(super) fn recorded(&mut self, uid: &PodUid, id: &str) {
        let Some(execution) = self.0.get_mut(id) else { return };
        let Execution::Several(several) = execution else { return };
        let ended = several.ended.iter_mut().filter(|known| known.pod_uid() == uid);
        ended.for_each(|known| *known = Ended::Recorded(uid.clone()));
        let alone = several.live.is_empty() && several.waiting.is_empty();
        if alone && matches!(&*several.ended, [Ended::Recorded(_)]) {
            *execution = Execution::Over(uid.clone());
        }
    }

    /// What was to be told of this pod came to nothing: whoever waits for its end goes on waiting.
    pub(super) fn untold(&mut self, uid: &PodUid, id: &str) {
        if let Some(Execution::Several(several)) = self.0.get_mut(id) {
            several.ended.iter_mut().filter(|known| known.pod_uid() == uid).for_each(|known| known.is_told(false));
        }
    }

    /// Forgets a pod; gives the pods that waited for it.
    pub(super) fn forget(&mut self, uid: &PodUid, id: &str) -> Vec<PodUid> {
        let (waited, empty) = self.0.get_mut(id).map(|execution| execution.forget(uid)).unwrap_or_default();
        if empty {
            self.0.remove(id);
        }
        waited
    }

    /// The same for a pod of which nothing is told, so that nobody knows its execution: looks through all.
    pub(super) fn forget_untold(&mut self, uid: &PodUid) -> Vec<PodUid> {
        let mut waited = Vec::new();
        self.0.retain(|_, execution| {
            let (waiting, empty) = if execution.is_of(uid) { execution.forget(uid) } else { (Vec::new(), false) };
            waited.extend(waiting);
            !empty
        });
        waited
    }

    /// The last end of this pod's execution before the pod was made, or that it has to wait for one. `record` says how a
    /// pod ended whose record says it.
    pub(super) fn look(&mut self, pod: &Pod, rules: &Rules, record: impl Fn(&PodUid) -> Option<EarlierEnd>) -> Found {
        let (ids, uid) = (identity::ids(&pod.metadata, &rules.ids), &pod.metadata.uid);
        let Some(made) = pod.metadata.creation_timestamp else { return Found::Earlier(None) };
        let Some(execution) = self.0.get_mut(&ids.execution_id) else { return Found::Earlier(None) };
        let mut earlier = execution.ends(record);
        earlier.retain(|(end, _)| end.timestamp <= made && end.pod_uid != *uid);
        if rules.shard_by == ShardBy::Execution && earlier.iter().any(|(_, told)| !told) {
            execution.several().waiting.push(uid.clone());
            return Found::ToWait;
        }
        Found::Earlier(earlier.into_iter().map(|(end, _)| end).max_by_key(|end| end.timestamp))
    }
}

impl Ended {
    fn pod_uid(&self) -> &PodUid {
        match self {
            Self::Recorded(uid) => uid,
            Self::Decided { end, .. } => &end.pod_uid,
        }
    }

    fn is_told(&mut self, is: bool) {
        if let Self::Decided { told, .. } = self {
            *told = is;
        }
    }

    /// And whether it was told.
    fn end(&self, record: impl Fn(&PodUid) -> Option<EarlierEnd>) -> Option<(EarlierEnd, bool)> {
        match self {
            Self::Recorded(uid) => Some((record(uid)?, true)),
            Self::Decided { end, told } => Some((end.clone(), *told)),
        }
    }
}

impl Execution {
    fn live(&self) -> &[PodUid] {
        match self {
            Self::One(live) => std::slice::from_ref(live),
            Self::Over(_) => &[],
            Self::Several(several) => &several.live,
        }
    }

    /// How its pods ended, and whether that was told.
    fn ends(&self, record: impl Fn(&PodUid) -> Option<EarlierEnd>) -> Vec<(EarlierEnd, bool)> {
        match self {
            Self::One(_) => Vec::new(),
            Self::Over(uid) => record(uid).map(|end| (end, true)).into_iter().collect(),
            Self::Several(several) => several.ended.iter().filter_map(|known| known.end(&record)).collect(),
        }
    }

    /// Whether this pod lives in it or has ended in it.
    fn is_of(&self, uid: &PodUid) -> bool {
        match self {
            Self::One(pod) | Self::Over(pod) => pod == uid,
            Self::Several(several) => {
                several.live.contains(uid) || several.ended.iter().any(|known| known.pod_uid() == uid)
            }
        }
    }

    /// With room for more.
    fn several(&mut self) -> &mut Several {
        let (mut live, mut ended) = (Vec::new(), Vec::new());
        match self {
            Self::One(pod) => live.push(pod.clone()),
            Self::Over(pod) => ended.push(Ended::Recorded(pod.clone())),
            Self::Several(several) => return several,
        }
        *self = Self::Several(Box::new(Several { live, ended, waiting: Vec::new() }));
        let Self::Several(several) = self else { unreachable!("it has just been made one of several") };
        several
    }

    /// Gives who waited, and whether nothing is left.
    fn forget(&mut self, uid: &PodUid) -> (Vec<PodUid>, bool) {
        match self {
            Self::One(pod) | Self::Over(pod) => (Vec::new(), pod == uid),
            Self::Several(several) => {
                several.live.retain(|live| live != uid);
                several.ended.retain(|known| known.pod_uid() != uid);
                (std::mem::take(&mut several.waiting), several.live.is_empty() && several.ended.is_empty())
            }
        }
    }
}

impl Several {
    fn note(&mut self, uid: &PodUid, end: Option<EarlierEnd>, told: bool) -> Vec<PodUid> {
        let Some(end) = end else {
            if self.live.len() < PODS_MAX && !self.live.contains(uid) {
                self.live.push(uid.clone());
            }
            return Vec::new();
        };
        self.live.retain(|live| live != uid);
        match self.ended.iter_mut().find(|known| known.pod_uid() == uid) {
            Some(known) if told => known.is_told(true),
            Some(_) => {}
            None => self.ended.push(Ended::Decided { end, told }),
        }
        if self.ended.len() > PODS_MAX {
            self.ended.remove(0);
        }
        if told { std::mem::take(&mut self.waiting) } else { Vec::new() }
    }
}
