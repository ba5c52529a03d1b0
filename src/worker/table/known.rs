//! What the table knows, asked by who changes nothing. Pure.

use std::collections::BTreeMap;

use jiff::Timestamp;

use super::Table;
use crate::{
    lifecycle::{
        decide::{Input, step},
        event::Cause,
        rules::Rules,
        tracked::{Kept, Tracked},
    },
    watch::pod::{Pod, PodUid, ResourceVersion},
};

impl Table {
    /// Pods of a stream that were told of and not told as gone, with the version that the record rests on.
    pub fn present(&self, stream: usize) -> impl Iterator<Item = (&PodUid, ResourceVersion)> {
        let of_stream =
            self.slots.iter().filter(move |(_, s)| s.stream as usize == stream && s.pending.is_none() && !s.busy);
        of_stream.filter_map(|(uid, s)| {
            let tracked = s.tracked.as_ref()?;
            tracked.gone().is_none().then_some((uid, tracked.resource_version))
        })
    }

    /// How many of the known pods are gone, and remembered.
    pub fn remembered(&self) -> usize {
        self.gone.len().min(self.slots.len())
    }

    /// How many pods have been told as stalled and have not got on, by cause.
    pub fn stalled(&self) -> BTreeMap<Cause, usize> {
        let mut stalled = BTreeMap::new();
        let open = self.slots.values().filter_map(|s| {
            // Few are, and all others need not be unpacked to know that.
            let tracked = s.tracked.as_ref()?;
            tracked.stalled().filter(|_| tracked.end().is_none())
        });
        open.for_each(|s| *stalled.entry(s.cause).or_default() += 1);
        stalled
    }

    /// Whether anything was told of a pod.
    pub fn is_told_of(&self, uid: &PodUid) -> bool {
        self.slots.get(uid).is_some_and(|slot| slot.tracked.is_some())
    }

    /// The same UID, sharing the text that is kept here where the pod is known.
    pub fn shared(&self, uid: &PodUid) -> PodUid {
        self.slots.get_key_value(uid).map_or(uid, |(known, _)| known).clone()
    }

    /// Whether a state of a pod says anything that has not been told. What waits to be told is not told yet.
    pub fn is_news(&self, pod: &Pod, now: Timestamp, rules: &Rules) -> bool {
        let uid = &pod.metadata.uid;
        let Some(tracked) = self.slots.get(uid).and_then(|slot| slot.tracked.as_ref()) else { return true };
        let observed = Input::Observed { pod, earlier: None, now };
        step(uid, Some(&tracked.unpack()), observed, rules).tracked.is_some()
    }

    /// What has been told of a pod.
    pub fn tracked(&self, uid: &PodUid) -> Option<Tracked> {
        self.slots.get(uid)?.tracked.as_ref().map(Kept::unpack)
    }
}
