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

/// By execution id.
#[derive(Debug, Default)]
pub(super) struct Executions(HashMap<Box<str>, Execution>);

/// What is known of one. Nearly all have one pod, which lives: there are as many of these as pods.
#[derive(Debug)]
enum Execution {
    /// A pod that was told of and has not ended, and nothing else.
    One(PodUid),
    /// A pod that has ended, and nothing else.
    Ended(Box<Ended>),
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
    /// Takes in what is, or is about to be, told of a pod of this execution: that it lives, or how it ended and whether that
    /// is told; gives the pods that waited for it. An end that was decided never changes, so that a transaction which came
    /// to nothing leaves no wrong end here.
    pub(super) fn note(&mut self, uid: &PodUid, id: &str, end: Option<EarlierEnd>, told: bool) -> Vec<PodUid> {
        let Some(execution) = self.0.get_mut(id) else {
            let new =
                end.map_or_else(|| Execution::One(uid.clone()), |end| Execution::Ended(Box::new(Ended { end, told })));
            self.0.insert(id.into(), new);
            return Vec::new();
        };
        match (&mut *execution, end) {
            (Execution::One(live), None) if *live == *uid => Vec::new(),
            (Execution::One(live), Some(end)) if *live == *uid => {
                *execution = Execution::Ended(Box::new(Ended { end, told }));
                Vec::new()
            }
            (Execution::Ended(known), Some(_)) if known.end.pod_uid == *uid => {
                known.told |= told;
                Vec::new()
            }
            (execution, end) => execution.several().note(uid, end, told),
        }
    }

    /// Pods of this one's execution that have not ended as far as was told: what is known of them by now comes first.
    pub(super) fn siblings(&self, pod: &Pod, rules: &Rules) -> Vec<PodUid> {
        let ids = identity::ids(&pod.metadata, &rules.ids);
        self.0.get(&ids.execution_id).map(|execution| execution.live().to_vec()).unwrap_or_default()
    }

    /// What was to be told of this pod came to nothing: whoever waits for its end goes on waiting.
    pub(super) fn untold(&mut self, uid: &PodUid, id: &str) {
        let ended = self.0.get_mut(id).map(Execution::ended_mut).unwrap_or_default();
        ended.iter_mut().filter(|known| known.end.pod_uid == *uid).for_each(|known| known.told = false);
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

    /// The last end of this pod's execution before the pod was made, or that it has to wait for one.
    pub(super) fn look(&mut self, pod: &Pod, rules: &Rules) -> Found<'_> {
        let (ids, uid) = (identity::ids(&pod.metadata, &rules.ids), &pod.metadata.uid);
        let Some(made) = pod.metadata.creation_timestamp else { return Found::Earlier(None) };
        let Some(execution) = self.0.get_mut(&ids.execution_id) else { return Found::Earlier(None) };
        let is_earlier = |known: &&Ended| known.end.timestamp <= made && known.end.pod_uid != *uid;
        let in_order = rules.shard_by == ShardBy::Execution;
        if in_order && execution.ended().iter().filter(is_earlier).any(|known| !known.told) {
            execution.several().waiting.push(uid.clone());
            return Found::ToWait;
        }
        let earlier = execution.ended().iter().filter(is_earlier).map(|known| &known.end);
        Found::Earlier(earlier.max_by_key(|end| end.timestamp))
    }
}

impl Execution {
    fn live(&self) -> &[PodUid] {
        match self {
            Self::One(live) => std::slice::from_ref(live),
            Self::Ended(_) => &[],
            Self::Several(several) => &several.live,
        }
    }

    fn ended(&self) -> &[Ended] {
        match self {
            Self::One(_) => &[],
            Self::Ended(ended) => std::slice::from_ref(&**ended),
            Self::Several(several) => &several.ended,
        }
    }

    fn ended_mut(&mut self) -> &mut [Ended] {
        match self {
            Self::One(_) => &mut [],
            Self::Ended(ended) => std::slice::from_mut(&mut **ended),
            Self::Several(several) => &mut several.ended,
        }
    }

    /// Whether this pod lives in it or has ended in it.
    fn is_of(&self, uid: &PodUid) -> bool {
        self.live().contains(uid) || self.ended().iter().any(|known| known.end.pod_uid == *uid)
    }

    /// With room for more.
    fn several(&mut self) -> &mut Several {
        if !matches!(self, Self::Several(_)) {
            let known = std::mem::replace(self, Self::Several(Box::default()));
            if let Self::Several(several) = self {
                match known {
                    Self::One(live) => several.live.push(live),
                    Self::Ended(ended) => several.ended.push(*ended),
                    Self::Several(_) => {}
                }
            }
        }
        match self {
            Self::Several(several) => several,
            Self::One(_) | Self::Ended(_) => unreachable!("it has just been made one of several"),
        }
    }

    /// Gives who waited, and whether nothing is left.
    fn forget(&mut self, uid: &PodUid) -> (Vec<PodUid>, bool) {
        match self {
            Self::One(live) => (Vec::new(), live == uid),
            Self::Ended(ended) => (Vec::new(), ended.end.pod_uid == *uid),
            Self::Several(several) => {
                several.live.retain(|live| live != uid);
                several.ended.retain(|known| known.end.pod_uid != *uid);
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
        match self.ended.iter_mut().find(|known| known.end.pod_uid == *uid) {
            Some(known) => known.told |= told,
            None => self.ended.push(Ended { end, told }),
        }
        if self.ended.len() > PODS_MAX {
            self.ended.remove(0);
        }
        if told { std::mem::take(&mut self.waiting) } else { Vec::new() }
    }
}
