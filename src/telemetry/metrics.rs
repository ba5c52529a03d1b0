//! What is counted. Label values come from the enums of `labels.rs` and the number of shards only, so the number of series
//! has a bound; the one hash that is a label is fixed for the life of a process.
//!
//! Other modules call small methods with meaning; how a metric is called and bucketed is decided in `families.rs`.

use std::{fmt, sync::Arc, time::Duration};

use prometheus_client::{encoding, metrics::counter::Counter};

use crate::{
    leadership::{takeover::Leg, tenure::ShardId},
    lifecycle::event::{Cause, EventType},
};

pub use super::labels::{
    CaptureStatus, Deed, DeedResult, Drift, EvidenceResult, FenceResult, ListResult, MissingId, PodPart, Role, Taken,
    TenureEnd, Verdict, WatchEvent, WatchRestart, Witness,
};
use super::{
    families::Families,
    labels::{
        ByCause, ByDeed, ByDrift, ByEventType, ByEvidence, ByFenceResult, ByHash, ById, ByLeg, ByListResult, ByPart,
        ByReason, ByRole, ByShard, BySignal, ByStatus, ByTaken, ByTenureEnd, ByVerdict, ByWatchEvent, CauseLabel,
        EventLabel, LegLabel, SignalLabel,
    },
    otlp::Signal,
};

/// Content type of [`Metrics::text`].
pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Everything that is counted, by one shard's work. Clones count together, and so do those of other shards: what there is
/// once per process is the same for all of them.
#[derive(Clone)]
pub struct Metrics {
    families: Arc<Families>,
    shard: ByShard,
    /// By kind: each thing that a watch brings counts here, so that they are looked up once.
    watch_events: Arc<[Counter]>,
}

impl Metrics {
    /// All metrics at zero, for shard 0, every series of it present.
    pub fn new() -> Self {
        Self::counting(Arc::new(Families::new()), ShardId(0))
    }

    /// The same metrics, counting for this shard, of which every series is present from now on.
    #[must_use]
    pub fn of_shard(&self, shard: ShardId) -> Self {
        Self::counting(self.families.clone(), shard)
    }

    fn counting(families: Arc<Families>, ShardId(shard): ShardId) -> Self {
        let shard = ByShard { shard };
        families.create_series(shard);
        let of = |kind: &WatchEvent| {
            let label = (shard, ByWatchEvent { kind: *kind });
            families.watching.watch_events.get_or_create(&label).clone()
        };
        let watch_events = WatchEvent::ALL.iter().map(of).collect();
        Self { families, shard, watch_events }
    }

    fn and<L>(&self, label: L) -> (ByShard, L) {
        (self.shard, label)
    }

    /// The text of `/metrics` ([`CONTENT_TYPE`]).
    pub fn text(&self) -> Result<String, fmt::Error> {
        let mut text = String::new();
        encoding::text::encode_registry(&mut text, &self.families.system)?;
        encoding::text::encode(&mut text, &self.families.registry)?;
        Ok(text)
    }

    /// Events of one type became visible.
    pub fn events_committed(&self, event_type: EventType, count: u64) {
        self.families
            .telling
            .events
            .get_or_create(&self.and(ByEventType { event_type: EventLabel(event_type) }))
            .inc_by(count);
    }

    /// An end became visible that was no success.
    pub fn failure_committed(&self, cause: Cause) {
        self.families.telling.failures.get_or_create(&self.and(ByCause { cause: CauseLabel(cause) })).inc();
    }

    /// A pod turned up whose execution another pod had ended.
    pub fn execution_claimed(&self, earlier: EventType) {
        self.families.telling.claims.get_or_create(&self.and(ByEventType { event_type: EventLabel(earlier) })).inc();
    }

    /// A finalizer was taken off, a pod deleted, or not.
    pub fn deed_done(&self, deed: Deed, result: DeedResult) {
        self.families.telling.deeds.get_or_create(&self.and(ByDeed { deed, result })).inc();
    }

    /// How many executions have been told as stalled and have not got on since.
    pub fn set_stalled(&self, cause: Cause, executions: usize) {
        self.families
            .telling
            .stalled
            .get_or_create(&self.and(ByCause { cause: CauseLabel(cause) }))
            .set(gauge(executions));
    }

    /// A transaction ended after `took`.
    pub fn transaction_ended(&self, verdict: Verdict, took: Duration) {
        self.families.telling.transactions.get_or_create(&self.and(ByVerdict { verdict })).inc();
        self.families.telling.transaction_duration.get_or_create(&self.shard).observe(took.as_secs_f64());
    }

    /// A capture ended after `took`.
    pub fn capture_ended(&self, status: CaptureStatus, took: Duration) {
        self.families.telling.captures.get_or_create(&self.and(ByStatus { status })).inc();
        self.families.telling.capture_duration.get_or_create(&self.shard).observe(took.as_secs_f64());
    }

    /// Somebody was asked what else is known of an end.
    pub fn evidence(&self, witness: Witness, result: EvidenceResult) {
        self.families.telling.evidence.get_or_create(&self.and(ByEvidence { witness, result })).inc();
    }

    /// So many pods are tracked now.
    pub fn set_tracked_pods(&self, pods: usize) {
        self.families.telling.tracked_pods.get_or_create(&self.shard).set(gauge(pods));
    }

    /// So many pods are gone, and remembered all the same.
    pub fn set_remembered_pods(&self, pods: usize) {
        self.families.telling.remembered_pods.get_or_create(&self.shard).set(gauge(pods));
    }

    /// So many pods came from the changelog at the last take-over.
    pub fn set_restored_pods(&self, pods: usize) {
        self.families.leading.restored_pods.get_or_create(&self.shard).set(gauge(pods));
    }

    /// A watch began anew.
    pub fn watch_restarted(&self, reason: WatchRestart) {
        self.families.watching.watch_restarts.get_or_create(&self.and(ByReason { reason })).inc();
    }

    /// A watch delivered something of this shard: what is another's is a [foreign pod](Self::foreign_pods) instead, or
    /// the deletions that somebody else tells would look like ones that nobody tells.
    pub fn watch_delivered(&self, kind: WatchEvent) {
        self.watch_events[kind as usize].inc();
    }

    /// Lines of a watch arrived, of so many bytes, whoever's pods they are of.
    pub fn watched_bytes(&self, bytes: u64) {
        self.families.watching.watch_bytes.get_or_create(&self.shard).inc_by(bytes);
    }

    /// The API server sent a pod that belongs to another shard, and it was left out here.
    pub fn foreign_pods(&self, pods: u64) {
        self.families.watching.foreign_pods.get_or_create(&self.shard).inc_by(pods);
    }

    /// Whether the last LIST said that the server leaves out what is not this shard's.
    pub fn set_server_side(&self, sharded: bool) {
        self.families.watching.server_side_sharding.get_or_create(&self.shard).set(i64::from(sharded));
    }

    /// A LIST ended.
    pub fn listed(&self, result: ListResult) {
        self.families.watching.lists.get_or_create(&self.and(ByListResult { result })).inc();
    }

    /// A part of a pod could not be read.
    pub fn pod_unreadable(&self, part: PodPart) {
        self.families.watching.unreadable_pods.get_or_create(&self.and(ByPart { part })).inc();
    }

    /// A pod lacks an id.
    pub fn id_missing(&self, id: MissingId) {
        self.families.telling.missing_ids.get_or_create(&self.and(ById { id })).inc();
    }

    /// A periodic comparison ended.
    pub fn reconciled(&self) {
        self.families.watching.reconcile_runs.get_or_create(&self.shard).inc();
    }

    /// A periodic comparison found a difference.
    pub fn drifted(&self, kind: Drift) {
        self.families.watching.reconcile_drift.get_or_create(&self.and(ByDrift { kind })).inc();
    }

    /// From the moment an observation arrived until its events were visible.
    pub fn observed_to_committed(&self, took: Duration) {
        self.families.telling.observed_to_committed.get_or_create(&self.shard).observe(took.as_secs_f64());
    }

    /// A fence was tried.
    pub fn fenced(&self, result: FenceResult) {
        self.families.leading.fences.get_or_create(&self.and(ByFenceResult { result })).inc();
    }

    /// This replica took a Lease.
    pub fn lease_taken(&self, reason: Taken) {
        self.families.leading.leases_taken.get_or_create(&self.and(ByTaken { reason })).inc();
    }

    /// A tenure of this replica ended.
    pub fn tenure_ended(&self, reason: TenureEnd) {
        self.families.leading.tenures_ended.get_or_create(&self.and(ByTenureEnd { reason })).inc();
    }

    /// The shard was given to another replica, to share the load.
    pub fn given_away(&self) {
        self.families.leading.given_away.get_or_create(&self.shard).inc();
    }

    /// Whether this replica sees somebody hold the shard's Lease, itself included.
    pub fn set_holder_seen(&self, seen: bool) {
        self.families.leading.holder_seen.get_or_create(&self.shard).set(i64::from(seen));
    }

    /// For this shard, this replica is this, and nothing else.
    pub fn set_role(&self, role: Role) {
        for one in Role::ALL {
            self.families.leading.role.get_or_create(&self.and(ByRole { role: *one })).set(i64::from(*one == role));
        }
    }

    /// The shard's count of changes of hands, as far as this replica knows it.
    pub fn set_term(&self, term: u64) {
        self.families.leading.term.get_or_create(&self.shard).set(i64::try_from(term).unwrap_or(i64::MAX));
    }

    /// So many replicas stand by, as they say themselves, and so many of these have other rules of the user.
    pub fn set_standbys(&self, standbys: usize, other_rules: usize) {
        self.families.leading.standbys.get_or_create(&self.shard).set(gauge(standbys));
        self.families.leading.other_rules.get_or_create(&self.shard).set(gauge(other_rules));
    }

    /// How many shards there are. Of the process.
    pub fn set_shards(&self, shards: usize) {
        self.families.process.shards.set(gauge(shards));
    }

    /// How many replicas live, as this one sees it, itself included. Of the process.
    pub fn set_members(&self, members: usize) {
        self.families.process.members.set(gauge(members));
    }

    /// How many shards this replica leads. Of the process.
    pub fn set_shards_held(&self, shards: usize) {
        self.families.process.shards_held.set(gauge(shards));
    }

    /// The rules of the user that this process has.
    pub fn set_rules(&self, hash: Option<&str>) {
        self.families.process.rules.get_or_create(&ByHash { hash: hash.unwrap_or("none").into() }).set(1);
    }

    /// This replica has so many records of the changelog yet to read.
    pub fn set_standby_lag(&self, records: u64) {
        self.families.leading.standby_lag.get_or_create(&self.shard).set(i64::try_from(records).unwrap_or(i64::MAX));
    }

    /// So long nobody told anything around a change of hands.
    pub fn gap(&self, took: Duration) {
        let leading = &self.families.leading;
        leading.takeover_gap.get_or_create(&self.shard).observe(took.as_secs_f64());
        leading.last_gap.get_or_create(&self.shard).set(took.as_secs_f64());
    }

    /// A leg of a take-over was reached so long after its beginning.
    pub fn taken_over(&self, leg: Leg, took: Duration) {
        let (leading, of) = (&self.families.leading, self.and(ByLeg { leg: LegLabel(leg) }));
        leading.takeover_duration.get_or_create(&of).observe(took.as_secs_f64());
        leading.last_takeover.get_or_create(&of).set(took.as_secs_f64());
    }

    /// A span or a log line found no room to wait in.
    pub fn otlp_dropped(&self, signal: Signal) {
        self.families.process.otlp_dropped.get_or_create(&BySignal { signal: SignalLabel(signal) }).inc();
    }

    /// A batch of this signal did not arrive.
    pub fn otlp_export_failed(&self, signal: Signal) {
        self.families.process.otlp_export_failures.get_or_create(&BySignal { signal: SignalLabel(signal) }).inc();
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Metrics")
    }
}

fn gauge(count: usize) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

#[cfg(test)]
#[path = "metrics_tests.rs"]
mod tests;
