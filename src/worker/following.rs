//! The worker and logs that are followed: of which pods, and what becomes of them when a pod goes or we do.

use tokio::time::Instant;

use super::{DRAIN_MAX, Worker, pending::Gone};
use crate::{
    lifecycle::wanted,
    logs::streams::LogSource,
    ports::Journals,
    telemetry::metrics::Role,
    watch::pod::{Pod, PodUid},
};

impl<J: Journals + 'static, S: LogSource> Worker<J, S> {
    /// A pod that is deleted while it runs is followed at once, whatever Kafka does meanwhile; others where that is wanted.
    pub(super) fn consider_following(&mut self, pod: &Pod) {
        // By far most are not to be followed, and need not be unpacked to know that.
        if !wanted::may_follow(pod, &self.parts.rules) {
            return;
        }
        let told = self.table.tracked(&pod.metadata.uid);
        if let Some(log) = wanted::to_follow(told.as_ref(), pod, &self.parts.rules) {
            self.captures.follow(log);
        }
    }

    /// A pod is gone; its going waits for what was followed of it, and for what others know of how it went.
    pub(super) fn gone(&mut self, stream: usize, uid: &PodUid, last: Option<Box<Pod>>, gone: Gone, arrived: Instant) {
        let wanted = wanted::when_gone(uid, self.table.tracked(uid).as_ref(), last.as_deref());
        self.table.gone(stream, uid, last, gone, arrived);
        if !self.table.is_capturing(uid) && self.captures.ask_gone(wanted) {
            self.table.capturing(uid);
            self.captures.begin(self.table.captures_held());
        }
    }

    /// Stop: no new intake, and the transaction that is on its way gets its verdict.
    pub(super) async fn drain(mut self) -> Result<(), super::Error> {
        self.show(Role::Draining);
        self.watches.abort_all();
        // Without an answer until now there will be none: the successor's fence ends that transaction.
        let until = Instant::now() + if self.gave_up { std::time::Duration::ZERO } else { DRAIN_MAX };
        self.settle_commit(until).await?;
        // A release waits for no capture. But what was followed to its end is here now, and gone from its node soon.
        let table = &self.table;
        let ended = self.captures.take_ended(|uid| wanted::outstanding(uid, &table.tracked(uid)?));
        let ended = self.captures.explained(ended).await;
        if !ended.is_empty() && self.publishing.is_idle() && !self.tenure.is_expired(Instant::now()) {
            for (uid, captured) in ended {
                self.table.captured(&uid, captured);
            }
            self.tell_ready();
            self.settle_commit(until).await?;
        }
        Ok(())
    }

    async fn settle_commit(&mut self, until: Instant) -> Result<(), super::Error> {
        if self.publishing.is_committing() {
            match tokio::time::timeout_at(until, self.publishing.next()).await {
                Ok(happened) => self.happened(happened)?,
                Err(_) => tracing::warn!("stopped without the verdict on the last transaction; the changelog has it"),
            }
        }
        Ok(())
    }
}
