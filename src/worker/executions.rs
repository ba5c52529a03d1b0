//! Which pods of which execution have ended: another pod that claims such an execution is found out. Pure.
//!
//! It knows what the table knows: an execution is remembered as long as the record of its pod, `--remember-ended` beyond
//! the pod itself.

use std::collections::HashMap;

use crate::{
    lifecycle::{event::EarlierEnd, identity, rules::Rules, tracked::Tracked},
    watch::pod::{Pod, PodUid},
};

/// Ends by execution id. One execution has few pods: its retries.
#[derive(Debug, Default)]
pub(super) struct Executions(HashMap<Box<str>, Vec<EarlierEnd>>);

impl Executions {
    /// Takes in what is, or is about to be, told of a pod. An end that was decided never changes, so that a transaction
    /// which came to nothing leaves nothing wrong here.
    pub(super) fn note(&mut self, uid: &PodUid, tracked: &Tracked) {
        let Some(end) = tracked.ended(uid) else { return };
        let ends = self.0.entry(tracked.execution_id.clone()).or_default();
        if !ends.iter().any(|known| known.pod_uid == *uid) {
            ends.push(end);
        }
    }

    /// Forgets a pod.
    pub(super) fn forget(&mut self, uid: &PodUid, tracked: &Tracked) {
        if let Some(ends) = self.0.get_mut(&tracked.execution_id) {
            ends.retain(|end| end.pod_uid != *uid);
            if ends.is_empty() {
                self.0.remove(&tracked.execution_id);
            }
        }
    }

    /// The last end of this pod's execution before the pod was made.
    pub(super) fn earlier_end(&self, pod: &Pod, rules: &Rules) -> Option<&EarlierEnd> {
        let ids = identity::ids(&pod.metadata, &rules.ids);
        let made = pod.metadata.creation_timestamp?;
        let earlier = self.0.get(&ids.execution_id)?.iter();
        earlier.filter(|end| end.timestamp <= made && end.pod_uid != pod.metadata.uid).max_by_key(|end| end.timestamp)
    }
}
