//! What is worth a word to the operator, clocks that ran down, and pods that may be let go.

use tokio::time::Instant;

use super::{BEAT_INTERVAL, Look, Worker, pending::Source, table::Drift};
use crate::{
    lifecycle::{
        event::{Cause, EarlierEnd, EventType},
        identity::OddId,
    },
    logs::streams::LogSource,
    ports::Journals,
    telemetry::metrics::{self, MissingId},
    watch::pod::{Pod, PodUid},
};

impl<J: Journals + 'static, S: LogSource> Worker<J, S> {
    pub(super) fn odd(&self, pod: &str, odd: OddId) {
        let (id, what) = match odd {
            OddId::ExecutionAbsent => (MissingId::Execution, "no execution id: the pod UID stands in"),
            OddId::ExecutionIllegal => (MissingId::Execution, "illegal execution id: the pod UID stands in"),
            OddId::UserIllegal => (MissingId::User, "illegal user id: left out"),
        };
        self.parts.metrics.id_missing(id);
        tracing::warn!(pod, "{what}");
    }

    pub(super) fn look(&mut self, look: Look) {
        match look {
            Look::Settle(uid) => self.table.settle(&uid, Instant::now()),
            // What a watch replays after a take-over is long past: until the present is known, nothing is overdue.
            Look::Tick(uid) if !self.sees_everything() => {
                self.clocks.insert(Look::Tick(uid), BEAT_INTERVAL);
            }
            Look::Tick(uid) => self.table.tick(&uid),
        }
    }

    /// A retry by the same Job is how Jobs work, and told without ado; an execution that has completed, or was ended by
    /// a deadline, is claimed by mistake.
    pub(super) fn claim(&self, pod: &str, execution: &str, earlier: &EarlierEnd) {
        self.parts.metrics.execution_claimed(earlier.event_type);
        if earlier.event_type == EventType::ExecutionFailed {
            tracing::info!(pod, execution, earlier_pod_uid = %earlier.pod_uid, "another attempt of an execution");
        } else {
            let ended = earlier.event_type.as_str();
            tracing::warn!(pod, execution, earlier_pod_uid = %earlier.pod_uid, ended, "pod claims a finished execution");
        }
    }

    pub(super) fn drift(&self, pod: &str, drift: Drift) {
        self.parts.metrics.drifted(match drift {
            Drift::Missed => metrics::Drift::Missed,
            Drift::Behind => metrics::Drift::Behind,
            Drift::Vanished => metrics::Drift::Vanished,
        });
        let now = self.parts.wall.now();
        self.show_missing(|missing| (missing.drift, missing.drift_at) = (missing.drift + 1, Some(now)));
        tracing::warn!(pod, ?drift, "reconciliation found what the watch had not told");
    }

    /// Takes in a state of a pod that the watch brought.
    pub(super) fn observe(&mut self, stream: usize, pod: Box<Pod>, arrived: Instant) {
        self.consider(&pod);
        self.table.observe(stream, pod, arrived, Source::Watch);
    }

    /// What a state of a pod asks for beside being told, from wherever it was seen.
    pub(super) fn consider(&mut self, pod: &Pod) {
        if self.parts.cleanup.is_wanted() {
            let told = self.table.tracked(&pod.metadata.uid);
            self.cleanup.observed(pod, told.as_ref(), self.parts.wall.now());
            self.cleanup.begin();
        }
        self.consider_following(pod);
    }

    /// What these pods are remembered by is committed.
    pub(super) fn clean_up(&mut self, moved: &[PodUid]) {
        if !self.parts.cleanup.is_wanted() {
            return;
        }
        let now = self.parts.wall.now();
        for uid in moved {
            if let Some(told) = self.table.tracked(uid) {
                self.cleanup.committed(uid, &told, now);
            }
        }
        self.cleanup.begin();
    }

    /// What need not be looked at more often than a position is written.
    pub(super) fn now_and_then(&mut self) {
        self.cleanup.sweep(self.parts.wall.now());
        self.cleanup.begin();
        let stalled = self.table.stalled();
        Cause::ALL.iter().for_each(|c| self.parts.metrics.set_stalled(*c, stalled.get(c).copied().unwrap_or(0)));
    }
}
