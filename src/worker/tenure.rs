//! The worker and its permit: what it says of its role, and when it asks to be relieved.

use std::time::Duration;

use tokio::time::Instant;

use super::{Worker, publishing::FENCES_ALARMING, told::Ends};
use crate::{
    cli::chain,
    http::status::{Measured, Missing, Reached, ShardStatus},
    leadership::{
        election::GiveUp,
        takeover::{Leg, Report},
    },
    lifecycle::event::Cause,
    logs::streams::LogSource,
    ports::Journals,
    telemetry::metrics::{Role, Taken},
};

/// A watch that is down for so long, while the Lease can be renewed, will not come back to us. More than a silent one
/// needs to be found and opened anew.
const BLIND_MAX: Duration = Duration::from_secs(30);

/// How long Kafka may owe an answer while it answers us otherwise: then a broker has died, and what it led others lead once
/// its session is over (`broker.session.timeout.ms`, 9 s). Nobody would get on sooner. Longer than a transaction that comes
/// to nothing, and another try.
const BROKER_AWAY_MAX: Duration = Duration::from_secs(30);

/// Kafka answers within milliseconds; a wait that is worth showing is longer than this.
const WAITS_SHOWN: Duration = Duration::from_secs(1);

/// Whether another replica would get on sooner. `waits`: for one answer of Kafka. `stuck`: with something to tell.
/// `answered`: whether Kafka answers our other clients.
fn waits_in_vain(waits: Duration, stuck: Duration, cut_off_max: Duration, answered: impl FnOnce() -> bool) -> bool {
    waits > cut_off_max && (waits.max(stuck) > BROKER_AWAY_MAX || !answered())
}

impl<J: Journals + 'static, S: LogSource> Worker<J, S> {
    /// Gives the shard up where it cannot get on and somebody else might; else leadership would spin.
    pub(super) fn consider_giving_up(&mut self) {
        let (Some(cut_off_max), now) = (self.parts.renew_deadline, Instant::now()) else { return };
        let [waits, stuck] = [self.publishing.waits_since(), self.publishing.stuck_since()]
            .map(|since| since.map_or(Duration::ZERO, |since| now - since));
        let waits = waits_in_vain(waits, stuck, cut_off_max, || self.parts.journals.is_answered(self.tenure.shard));
        let able = self.parts.peers.reaching_kafka(self.tenure.shard, now) > 0;
        if waits && able {
            self.gave_up = true;
            return self.tenure.give_up(GiveUp::Kafka);
        }
        let blind = self.feeds.iter().filter_map(|feed| feed.down_since).any(|since| now - since > BLIND_MAX);
        if blind && able {
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
        self.show_take_over(&report);
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

    pub(super) fn show(&self, role: Role) {
        self.parts.metrics.set_role(role);
        // Whoever leads has read all there is.
        self.parts.metrics.set_standby_lag(0);
        self.parts.metrics.set_term(self.term);
        let load = self.load(role);
        let (me, now) = (&self.tenure.holder, self.parts.wall.now());
        self.parts.board.shard(self.tenure.shard.0, |known| {
            known.becomes(load);
            if known.is_changing() {
                known.changing_since = known.changing_since.or(Some(now));
            }
            // Until the Lease was seen again. Of one that drains, another may hold it already.
            if role == Role::Fencing {
                known.held_by(Some(me), me, now);
            }
        });
    }

    fn load(&self, role: Role) -> ShardStatus {
        let waits = self.publishing.waits_since().map(|since| since.elapsed()).filter(|waits| *waits >= WAITS_SHOWN);
        ShardStatus {
            shard: self.tenure.shard.0,
            role: role.as_str(),
            // Known once the changelog was read.
            term: Some(self.term).filter(|term| *term > 0),
            tracked_pods: u64::try_from(self.table.len() - self.table.remembered()).ok(),
            waiting_pods: u64::try_from(self.table.waiting()).ok(),
            kafka_waits_ms: waits.and_then(|waits| u64::try_from(waits.as_millis()).ok()),
            ..ShardStatus::default()
        }
    }

    /// How much there is to do, each second.
    pub(super) fn show_load(&self) {
        let load = self.load(Role::Live);
        self.parts.board.shard(self.tenure.shard.0, |known| {
            let role = known.role;
            known.becomes(ShardStatus { role, ..load });
        });
    }

    /// The ends of a transaction that was committed.
    pub(super) fn show_ends(&self, ends: Option<Box<Ends>>, causes: &[Cause]) {
        if let Some(ends) = ends {
            self.parts.board.update(|shown| ends.show(causes, shown));
        }
    }

    pub(super) fn show_missing(&self, change: impl FnOnce(&mut Missing)) {
        self.parts.board.update(|shown| change(&mut shown.missing));
    }

    /// Pods of the shard of which nothing more is told, from what they were until now.
    pub(super) fn show_untold(&self, pods: impl FnOnce(u64) -> u64) {
        self.parts.board.shard(self.tenure.shard.0, |known| {
            known.untold_pods = Some(pods(known.untold_pods.unwrap_or_default()));
        });
    }

    fn show_take_over(&self, report: &Report) {
        let ms = |took: Duration| (took.as_secs_f64() * 10_000.0).round() / 10.0;
        let legs = report.legs.iter().map(|(leg, took)| Reached { leg: leg.as_str(), ms: ms(*took) });
        let measured = Measured {
            term: self.term,
            why: Taken::from(report.why).as_str(),
            gap_ms: report.gap_ms(),
            silence_ms: ms(report.silence),
            legs: legs.collect(),
        };
        let (me, now) = (&self.tenure.holder, self.parts.wall.now());
        self.parts.board.shard(self.tenure.shard.0, |known| known.measured(me, now, measured));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_is_answered_by_other_brokers_waits_for_one_that_died_and_who_is_cut_off_does_not() {
        let in_vain = |waits: u64, stuck: u64, answered| {
            let [waits, stuck, cut_off_max] = [waits, stuck, 3].map(Duration::from_secs);
            waits_in_vain(waits, stuck, cut_off_max, || answered)
        };
        for (waits, stuck, answered, expected) in [
            (0, 0, false, false),
            (3, 3, false, false),
            (4, 4, false, true),
            (4, 4, true, false),
            (15, 15, true, false),
            (30, 30, true, false),
            (31, 31, true, true),
            // The journal was opened anew meanwhile, and the batch comes to nothing once more.
            (4, 31, true, true),
            (1, 99, true, false),
            // Not even that.
            (31, 0, true, true),
        ] {
            assert_eq!(in_vain(waits, stuck, answered), expected, "{waits} {stuck} {answered}");
        }
    }
}
