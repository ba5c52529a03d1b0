//! What is counted. Label values come from the enums of `labels.rs` only, so the number of series has a bound; the one
//! hash that is a label is fixed for the life of a process.
//!
//! Other modules call small methods with meaning; how a metric is called and bucketed is decided here.

use std::{fmt, sync::Arc, time::Duration};

use prometheus_client::{
    metrics::{counter::Counter, family::Family, gauge::Gauge, histogram::Histogram, info::Info},
    registry::Registry,
};

use crate::{
    leadership::takeover::Leg,
    lifecycle::event::{Cause, EventType},
};

use super::labels::{
    ByCause, ByDeed, ByDrift, ByEventType, ByEvidence, ByFenceResult, ByHash, ById, ByLeg, ByListResult, ByPart,
    ByReason, ByRole, ByStatus, ByTaken, ByTenureEnd, ByVerdict, ByWatchEvent, CauseLabel, EventLabel, LegLabel,
};
pub use super::labels::{
    CaptureStatus, Deed, DeedResult, Drift, EvidenceResult, FenceResult, ListResult, MissingId, PodPart, Role, Taken,
    TenureEnd, Verdict, WatchEvent, WatchRestart, Witness,
};

/// Content type of [`Metrics::text`].
pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Everything that is counted. Clones count together.
#[derive(Clone)]
pub struct Metrics(Arc<Inner>);

struct Inner {
    registry: Registry,
    events: Family<ByEventType, Counter>,
    failures: Family<ByCause, Counter>,
    stalled: Family<ByCause, Gauge>,
    claims: Family<ByEventType, Counter>,
    deeds: Family<ByDeed, Counter>,
    transactions: Family<ByVerdict, Counter>,
    transaction_duration: Histogram,
    captures: Family<ByStatus, Counter>,
    capture_duration: Histogram,
    evidence: Family<ByEvidence, Counter>,
    tracked_pods: Gauge,
    restored_pods: Gauge,
    watch_restarts: Family<ByReason, Counter>,
    watch_events: Family<ByWatchEvent, Counter>,
    lists: Family<ByListResult, Counter>,
    unreadable_pods: Family<ByPart, Counter>,
    missing_ids: Family<ById, Counter>,
    reconcile_drift: Family<ByDrift, Counter>,
    reconcile_runs: Counter,
    observed_to_committed: Histogram,
    fences: Family<ByFenceResult, Counter>,
    leases_taken: Family<ByTaken, Counter>,
    tenures_ended: Family<ByTenureEnd, Counter>,
    role: Family<ByRole, Gauge>,
    term: Gauge,
    standbys: Gauge,
    other_rules: Gauge,
    rules: Family<ByHash, Gauge>,
    standby_lag: Gauge,
    takeover_gap: Histogram,
    takeover_duration: Family<ByLeg, Histogram, fn() -> Histogram>,
    otlp_export_failures: Counter,
}

/// From half a millisecond to half a minute.
const SECONDS: [f64; 15] = [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0];

impl Metrics {
    /// All metrics at zero, every series present.
    pub fn new() -> Self {
        let mut inner = Inner {
            registry: Registry::with_prefix("pod_monitor"),
            events: Family::default(),
            failures: Family::default(),
            stalled: Family::default(),
            claims: Family::default(),
            deeds: Family::default(),
            transactions: Family::default(),
            transaction_duration: Histogram::new(SECONDS),
            captures: Family::default(),
            capture_duration: Histogram::new(SECONDS),
            evidence: Family::default(),
            tracked_pods: Gauge::default(),
            restored_pods: Gauge::default(),
            watch_restarts: Family::default(),
            watch_events: Family::default(),
            lists: Family::default(),
            unreadable_pods: Family::default(),
            missing_ids: Family::default(),
            reconcile_drift: Family::default(),
            reconcile_runs: Counter::default(),
            observed_to_committed: Histogram::new(SECONDS),
            fences: Family::default(),
            leases_taken: Family::default(),
            tenures_ended: Family::default(),
            role: Family::default(),
            term: Gauge::default(),
            standbys: Gauge::default(),
            other_rules: Gauge::default(),
            rules: Family::default(),
            standby_lag: Gauge::default(),
            takeover_gap: Histogram::new(SECONDS),
            takeover_duration: Family::new_with_constructor(|| Histogram::new(SECONDS)),
            otlp_export_failures: Counter::default(),
        };
        inner.register();
        inner.create_all_series();
        Self(Arc::new(inner))
    }

    /// The text of `/metrics` ([`CONTENT_TYPE`]).
    pub fn text(&self) -> Result<String, fmt::Error> {
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &self.0.registry)?;
        Ok(text)
    }

    /// Events of one type became visible.
    pub fn events_committed(&self, event_type: EventType, count: u64) {
        self.0.events.get_or_create(&ByEventType { event_type: EventLabel(event_type) }).inc_by(count);
    }

    /// An end became visible that was no success.
    pub fn failure_committed(&self, cause: Cause) {
        self.0.failures.get_or_create(&ByCause { cause: CauseLabel(cause) }).inc();
    }

    /// A pod turned up whose execution another pod had ended.
    pub fn execution_claimed(&self, earlier: EventType) {
        self.0.claims.get_or_create(&ByEventType { event_type: EventLabel(earlier) }).inc();
    }

    /// A finalizer was taken off, a pod deleted, or not.
    pub fn deed_done(&self, deed: Deed, result: DeedResult) {
        self.0.deeds.get_or_create(&ByDeed { deed, result }).inc();
    }

    /// How many executions have been told as stalled and have not got on since.
    pub fn set_stalled(&self, cause: Cause, executions: usize) {
        self.0.stalled.get_or_create(&ByCause { cause: CauseLabel(cause) }).set(gauge(executions));
    }

    /// A transaction ended after `took`.
    pub fn transaction_ended(&self, verdict: Verdict, took: Duration) {
        self.0.transactions.get_or_create(&ByVerdict { verdict }).inc();
        self.0.transaction_duration.observe(took.as_secs_f64());
    }

    /// A capture ended after `took`.
    pub fn capture_ended(&self, status: CaptureStatus, took: Duration) {
        self.0.captures.get_or_create(&ByStatus { status }).inc();
        self.0.capture_duration.observe(took.as_secs_f64());
    }

    /// Somebody was asked what else is known of an end.
    pub fn evidence(&self, witness: Witness, result: EvidenceResult) {
        self.0.evidence.get_or_create(&ByEvidence { witness, result }).inc();
    }

    /// So many pods are tracked now.
    pub fn set_tracked_pods(&self, pods: usize) {
        self.0.tracked_pods.set(gauge(pods));
    }

    /// So many pods came from the changelog at the last take-over.
    pub fn set_restored_pods(&self, pods: usize) {
        self.0.restored_pods.set(gauge(pods));
    }

    /// A watch began anew.
    pub fn watch_restarted(&self, reason: WatchRestart) {
        self.0.watch_restarts.get_or_create(&ByReason { reason }).inc();
    }

    /// A watch delivered something.
    pub fn watch_delivered(&self, kind: WatchEvent) {
        self.0.watch_events.get_or_create(&ByWatchEvent { kind }).inc();
    }

    /// A LIST ended.
    pub fn listed(&self, result: ListResult) {
        self.0.lists.get_or_create(&ByListResult { result }).inc();
    }

    /// A part of a pod could not be read.
    pub fn pod_unreadable(&self, part: PodPart) {
        self.0.unreadable_pods.get_or_create(&ByPart { part }).inc();
    }

    /// A pod lacks an id.
    pub fn id_missing(&self, id: MissingId) {
        self.0.missing_ids.get_or_create(&ById { id }).inc();
    }

    /// A periodic comparison ended.
    pub fn reconciled(&self) {
        self.0.reconcile_runs.inc();
    }

    /// A periodic comparison found a difference.
    pub fn drifted(&self, kind: Drift) {
        self.0.reconcile_drift.get_or_create(&ByDrift { kind }).inc();
    }

    /// From the moment an observation arrived until its events were visible.
    pub fn observed_to_committed(&self, took: Duration) {
        self.0.observed_to_committed.observe(took.as_secs_f64());
    }

    /// A fence was tried.
    pub fn fenced(&self, result: FenceResult) {
        self.0.fences.get_or_create(&ByFenceResult { result }).inc();
    }

    /// This replica took a Lease.
    pub fn lease_taken(&self, reason: Taken) {
        self.0.leases_taken.get_or_create(&ByTaken { reason }).inc();
    }

    /// A tenure of this replica ended.
    pub fn tenure_ended(&self, reason: TenureEnd) {
        self.0.tenures_ended.get_or_create(&ByTenureEnd { reason }).inc();
    }

    /// This replica is this, and nothing else.
    pub fn set_role(&self, role: Role) {
        for one in Role::ALL {
            self.0.role.get_or_create(&ByRole { role: *one }).set(i64::from(*one == role));
        }
    }

    /// The shard's count of changes of hands, as far as this replica knows it.
    pub fn set_term(&self, term: u64) {
        self.0.term.set(i64::try_from(term).unwrap_or(i64::MAX));
    }

    /// So many replicas stand by, as they say themselves, and so many of these have other rules of the user.
    pub fn set_standbys(&self, standbys: usize, other_rules: usize) {
        self.0.standbys.set(gauge(standbys));
        self.0.other_rules.set(gauge(other_rules));
    }

    /// The rules of the user that this process has.
    pub fn set_rules(&self, hash: Option<&str>) {
        self.0.rules.get_or_create(&ByHash { hash: hash.unwrap_or("none").into() }).set(1);
    }

    /// This replica has so many records of the changelog yet to read.
    pub fn set_standby_lag(&self, records: u64) {
        self.0.standby_lag.set(i64::try_from(records).unwrap_or(i64::MAX));
    }

    /// So long nobody told anything around a change of hands.
    pub fn gap(&self, took: Duration) {
        self.0.takeover_gap.observe(took.as_secs_f64());
    }

    /// A leg of a take-over was reached so long after its beginning.
    pub fn taken_over(&self, leg: Leg, took: Duration) {
        self.0.takeover_duration.get_or_create(&ByLeg { leg: LegLabel(leg) }).observe(took.as_secs_f64());
    }

    /// A batch of spans did not arrive.
    pub fn otlp_export_failed(&self) {
        self.0.otlp_export_failures.inc();
    }
}

#[allow(missing_docs)]
impl Metrics {
    pub fn of_shard(&self, _: crate::leadership::tenure::ShardId) -> Self {
        self.clone()
    }
    pub fn set_shards(&self, _: usize) {}
    pub fn set_members(&self, _: usize) {}
    pub fn set_shards_held(&self, _: usize) {}
    pub fn set_holder_seen(&self, _: bool) {}
    pub fn watched_bytes(&self, _: u64) {}
    pub fn foreign_pods(&self, _: u64) {}
    pub fn set_server_side(&self, _: bool) {}
    pub fn given_away(&self) {}
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

impl Inner {
    /// Names and helps; the client adds `_total` to counters.
    fn register(&mut self) {
        let r = &mut self.registry;
        r.register("events", "Events that became visible", self.events.clone());
        r.register("stalled_executions", "Executions told as stalled that do not get on", self.stalled.clone());
        r.register("claims", "Pods of an execution that another pod had ended, by how", self.claims.clone());
        r.register("cleanups", "Finalizers taken off and pods deleted after their end was told", self.deeds.clone());
        r.register("failures", "Ends that were no success, by cause", self.failures.clone());
        r.register("transactions", "Transactions by how they ended", self.transactions.clone());
        r.register("transaction_duration_seconds", "From begin to verdict", self.transaction_duration.clone());
        r.register("captures", "Captures of output by how much was had", self.captures.clone());
        r.register("capture_duration_seconds", "Duration of captures", self.capture_duration.clone());
        r.register(
            "evidence_reads",
            "Who was asked what else is known of an end, and how it went",
            self.evidence.clone(),
        );
        r.register("tracked_pods", "Pods whose story is not over", self.tracked_pods.clone());
        r.register("restored_pods", "Pods restored at the last take-over", self.restored_pods.clone());
        r.register("watch_restarts", "Watches begun anew", self.watch_restarts.clone());
        r.register("watch_events", "What watches delivered", self.watch_events.clone());
        r.register("lists", "LISTs by how they went", self.lists.clone());
        r.register("unreadable_pods", "Pods of which a part could not be read", self.unreadable_pods.clone());
        r.register("missing_ids", "Pods without an id of their own", self.missing_ids.clone());
        r.register("reconcile_drift", "Differences found by comparing", self.reconcile_drift.clone());
        r.register("reconcile_runs", "Comparisons with a LIST", self.reconcile_runs.clone());
        r.register(
            "observed_to_committed_seconds",
            "From an observation to its visible events",
            self.observed_to_committed.clone(),
        );
        r.register("fences", "Fences of older producers", self.fences.clone());
        r.register("leases_taken", "Leases taken by this replica", self.leases_taken.clone());
        r.register("tenures_ended", "Tenures of this replica that ended", self.tenures_ended.clone());
        r.register("role", "What this replica does: 1 for its role", self.role.clone());
        r.register("term", "The shard's count of changes of hands", self.term.clone());
        r.register("standbys", "Replicas that stand by, as they tell this leader", self.standbys.clone());
        r.register(
            "standbys_with_other_rules",
            "Replicas that stand by with other rules of the user than this leader's",
            self.other_rules.clone(),
        );
        r.register("rules", "Which rules of the user this process has: 1 for their hash", self.rules.clone());
        r.register(
            "standby_lag_records",
            "Records of the changelog that this standby has not read yet",
            self.standby_lag.clone(),
        );
        r.register(
            "takeover_gap_seconds",
            "From the last sign of a holder until its successor's first commit",
            self.takeover_gap.clone(),
        );
        r.register(
            "takeover_duration_seconds",
            "From the moment when the Lease could be had until each leg was reached",
            self.takeover_duration.clone(),
        );
        r.register("otlp_export_failures", "Batches of spans that did not arrive", self.otlp_export_failures.clone());
        r.register("build", "Which build this is", Info::new(vec![("version", env!("CARGO_PKG_VERSION"))]));
    }

    /// A series that exists at 0 makes `rate` and alerts see the very first count.
    fn create_all_series(&self) {
        for event_type in EventType::ALL {
            drop(self.events.get_or_create(&ByEventType { event_type: EventLabel(event_type) }));
        }
        for (deed, result) in Deed::ALL.iter().flat_map(|d| DeedResult::ALL.iter().map(move |r| (*d, *r))) {
            drop(self.deeds.get_or_create(&ByDeed { deed, result }));
        }
        for (witness, result) in Witness::ALL.iter().flat_map(|w| EvidenceResult::ALL.iter().map(move |r| (*w, *r))) {
            drop(self.evidence.get_or_create(&ByEvidence { witness, result }));
        }
        for cause in Cause::ALL {
            drop(self.stalled.get_or_create(&ByCause { cause: CauseLabel(cause) }));
            drop(self.failures.get_or_create(&ByCause { cause: CauseLabel(cause) }));
        }
        Verdict::ALL.iter().for_each(|&verdict| drop(self.transactions.get_or_create(&ByVerdict { verdict })));
        CaptureStatus::ALL.iter().for_each(|&status| drop(self.captures.get_or_create(&ByStatus { status })));
        WatchRestart::ALL.iter().for_each(|&reason| drop(self.watch_restarts.get_or_create(&ByReason { reason })));
        WatchEvent::ALL.iter().for_each(|&kind| drop(self.watch_events.get_or_create(&ByWatchEvent { kind })));
        ListResult::ALL.iter().for_each(|&result| drop(self.lists.get_or_create(&ByListResult { result })));
        PodPart::ALL.iter().for_each(|&part| drop(self.unreadable_pods.get_or_create(&ByPart { part })));
        MissingId::ALL.iter().for_each(|&id| drop(self.missing_ids.get_or_create(&ById { id })));
        Drift::ALL.iter().for_each(|&kind| drop(self.reconcile_drift.get_or_create(&ByDrift { kind })));
        Role::ALL.iter().for_each(|&role| drop(self.role.get_or_create(&ByRole { role })));
        Taken::ALL.iter().for_each(|&reason| drop(self.leases_taken.get_or_create(&ByTaken { reason })));
        TenureEnd::ALL.iter().for_each(|&reason| drop(self.tenures_ended.get_or_create(&ByTenureEnd { reason })));
        FenceResult::ALL.iter().for_each(|&result| drop(self.fences.get_or_create(&ByFenceResult { result })));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metrics_have_their_promised_names_from_the_start() {
        let text = Metrics::new().text().expect("metrics can be written");
        for series in [
            "pod_monitor_events_total{event_type=\"pod_scheduled\"} 0",
            "pod_monitor_failures_total{cause=\"oom_killed\"} 0",
            "pod_monitor_transactions_total{verdict=\"committed\"} 0",
            "pod_monitor_transaction_duration_seconds_bucket{le=\"0.005\"} 0",
            "pod_monitor_captures_total{status=\"complete\"} 0",
            "pod_monitor_capture_duration_seconds_count 0",
            "pod_monitor_tracked_pods 0",
            "pod_monitor_restored_pods 0",
            "pod_monitor_watch_restarts_total{reason=\"expired\"} 0",
            "pod_monitor_watch_events_total{kind=\"bookmark\"} 0",
            "pod_monitor_lists_total{result=\"ok\"} 0",
            "pod_monitor_unreadable_pods_total{part=\"status\"} 0",
            "pod_monitor_missing_ids_total{id=\"execution\"} 0",
            "pod_monitor_reconcile_drift_total{kind=\"vanished\"} 0",
            "pod_monitor_reconcile_runs_total 0",
            "pod_monitor_observed_to_committed_seconds_sum 0.0",
            "pod_monitor_fences_total{result=\"ok\"} 0",
            "pod_monitor_standby_lag_records 0",
            "pod_monitor_takeover_gap_seconds_count 0",
            "pod_monitor_otlp_export_failures_total 0",
            concat!("pod_monitor_build_info{version=\"", env!("CARGO_PKG_VERSION"), "\"} 1"),
        ] {
            assert!(text.lines().any(|line| line == series), "{series} is not in\n{text}");
        }
        assert!(text.ends_with("# EOF\n"));
    }

    #[test]
    fn what_is_counted_is_told() {
        let metrics = Metrics::new();
        let clone = metrics.clone();
        clone.events_committed(EventType::PodTerminated, 3);
        clone.failure_committed(Cause::NodeLost);
        clone.transaction_ended(Verdict::Fenced, Duration::from_millis(4));
        clone.capture_ended(CaptureStatus::Partial, Duration::from_secs(60));
        clone.set_tracked_pods(7);
        clone.drifted(Drift::Behind);
        let text = metrics.text().expect("metrics can be written");
        for series in [
            "pod_monitor_events_total{event_type=\"pod_terminated\"} 3",
            "pod_monitor_failures_total{cause=\"node_lost\"} 1",
            "pod_monitor_transactions_total{verdict=\"fenced\"} 1",
            "pod_monitor_transaction_duration_seconds_bucket{le=\"0.0025\"} 0",
            "pod_monitor_transaction_duration_seconds_bucket{le=\"0.005\"} 1",
            "pod_monitor_capture_duration_seconds_bucket{le=\"30.0\"} 0",
            "pod_monitor_capture_duration_seconds_bucket{le=\"+Inf\"} 1",
            "pod_monitor_tracked_pods 7",
            "pod_monitor_reconcile_drift_total{kind=\"behind\"} 1",
        ] {
            assert!(text.lines().any(|line| line == series), "{series} is not in\n{text}");
        }
    }
}
