//! The worker and its permit: what it says of its role, and when it asks to be relieved.

use std::time::Duration;

use tokio::time::Instant;

use super::{Worker, publishing::FENCES_ALARMING};
use crate::{
    cli::chain,
    http::status::ShardStatus,
    leadership::{election::GiveUp, takeover::Leg},
    logs::streams::LogSource,
    ports::Journals,
    telemetry::metrics::Role,
};

/// A watch that is down for so long, while the Lease can be renewed, will not come back to us. More than a silent one
/// needs to be found and opened anew.
const BLIND_MAX: Duration = Duration::from_secs(30);

impl<J: Journals + 'static, S: LogSource> Worker<J, S> {
    /// Gives the shard up where it cannot get on and somebody else might; else leadership would spin.
    pub(super) fn consider_giving_up(&mut self) {
        let (Some(kafka_max), now) = (self.parts.renew_deadline, Instant::now()) else { return };
        let waits = self.publishing.waits_since().is_some_and(|since| now - since > kafka_max);
        if waits && self.parts.peers.reaching_kafka(self.tenure.shard, now) > 0 {
            self.gave_up = true;
            return self.tenure.give_up(GiveUp::Kafka);
        }
        let blind = self.feeds.iter().filter_map(|feed| feed.down_since).any(|since| now - since > BLIND_MAX);
        if blind && self.parts.peers.standing_by(now) > 0 {
            self.tenure.give_up(GiveUp::Watch);
        }
    }

    pub(super) fn fenced(&self, error: &dyn std::error::Error) {
        let fences = self.publishing.fences();
        let id = self.parts.identity.as_ref().map(|i| i.transactional_id(self.tenure.shard));
        let transactional_id = id.unwrap_or_default();
        if fences >= FENCES_ALARMING {
            let error = chain(error);
            tracing::error!(
                transactional_id,
                fences,
                error,
                "fenced again and again: does another monitor run with this id?"
            );
        } else {
            tracing::info!(transactional_id, "fenced: a newer producer exists, or our transaction timed out");
        }
    }

    /// Tells of a take-over once it is over.
    pub(super) fn taken_over(&self) {
        let span = self.tenure.take_over_span();
        let Some(report) = self.tenure.taken_over() else { return };
        // So that the line, wherever it is sent, leads to the trace.
        let _inside = span.enter();
        for (leg, took) in &report.legs {
            self.parts.metrics.taken_over(*leg, *took);
        }
        self.parts.metrics.gap(report.gap());
        let ms = |leg| report.ms(leg);
        tracing::info!(
            shard = %self.tenure.shard,
            holder = self.tenure.holder,
            term = self.term,
            why = ?report.why,
            gap_ms = report.gap_ms(),
            acquired_ms = ms(Leg::Acquired),
            fenced_ms = ms(Leg::Fenced),
            barrier_ms = ms(Leg::Barrier),
            restored_ms = ms(Leg::Restored),
            watching_ms = ms(Leg::Watching),
            reconciled_ms = ms(Leg::Reconciled),
            first_commit_ms = ms(Leg::FirstCommit),
            "took over"
        );
    }

    /// How many pods it follows: for metrics, and for the status, which says more often than its role changes.
    pub(super) fn count_tracked(&self) {
        let (shard, tracked) = (self.tenure.shard.0, self.table.len());
        self.parts.metrics.set_tracked_pods(tracked);
        self.parts.board.update(|shown| {
            let known = shown.shards.iter_mut().find(|known| known.shard == shard);
            known.into_iter().for_each(|known| known.tracked_pods = u64::try_from(tracked).ok());
        });
    }

    pub(super) fn show(&self, role: Role) {
        self.parts.metrics.set_role(role);
        // Whoever leads has read all there is.
        self.parts.metrics.set_standby_lag(0);
        self.parts.metrics.set_term(self.term);
        let shard = ShardStatus {
            shard: self.tenure.shard.0,
            role: role.as_str(),
            holder: Some(self.tenure.holder.clone()),
            term: Some(self.term),
            tracked_pods: u64::try_from(self.table.len()).ok(),
            lag_records: None,
            since: Some(self.parts.wall.now()),
        };
        crate::replica::show(&self.parts.board, shard);
    }
}
