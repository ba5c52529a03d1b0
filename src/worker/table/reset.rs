//! A cluster whose store was reset: an operator restored a backup, and versions begin anew below what was seen. Pure.
//!
//! What was told stays told. What was seen stands, but its versions compare with nothing any more: left in place, they
//! would make everything that the new store says look stale.

use super::Table;
use crate::watch::pod::{Decoded, ResourceVersion};

impl Table {
    /// Whether a pod of a consistent LIST of this version is older than the record of it, which the LIST is not: versions
    /// of one store never do that.
    pub fn contradicts(&self, version: ResourceVersion, listed: &Decoded) -> bool {
        let (Decoded::Whole(pod) | Decoded::Partly { pod, .. }) = listed else { return false };
        let seen = pod.metadata.resource_version;
        let tracked = self.slots.get(&pod.metadata.uid).and_then(|slot| slot.tracked.as_ref());
        let known = tracked.map_or(seen, |tracked| tracked.resource_version);
        // 0: it could not be read.
        seen > ResourceVersion::default() && seen < known && known <= version
    }

    /// The cluster's store was reset: versions that records and observations rest on mean nothing any more. What is in
    /// flight is told so by the era.
    pub fn forget_versions(&mut self, stream: usize) {
        for (uid, slot) in self.slots.iter_mut().filter(|(_, s)| s.stream as usize == stream) {
            if let Some(tracked) = &mut slot.tracked {
                tracked.resource_version = ResourceVersion::default();
            }
            slot.pending.iter_mut().for_each(|pending| pending.forget_versions());
            if let Some(pod) = &mut slot.settling {
                pod.metadata.resource_version = ResourceVersion::default();
            }
            if slot.tracked.is_some() || slot.busy {
                // In the changelog too: read again with its old version, it would take everything for stale.
                self.rewrites.insert(uid.clone());
            }
        }
    }
}
