//! Names, helps and series of the metrics.
//!
//! ```text
//!   Telling, Watching, Leading   what one shard's work counts: each series has the label `shard`
//!   Process                      what there is once per process
//! ```
//! The number of series has a bound: shards, times the enums of `labels.rs`. Families carry the shard as a label rather
//! than a registry each, since a family may stand in the text only once.

use std::{hash::Hash, sync::atomic::AtomicU64};

use prometheus_client::{
    encoding::{EncodeLabelSet, EncodeMetric},
    metrics::{TypedMetric, counter::Counter, family::Family, gauge::Gauge, histogram::Histogram, info::Info},
    registry::{Metric, Registry},
};

use crate::lifecycle::event::{Cause, EventType};

use super::labels::{
    ByCause, ByDeed, ByDrift, ByEventType, ByEvidence, ByFenceResult, ByHash, ById, ByLeg, ByListResult, ByPart,
    ByReason, ByRole, ByShard, BySignal, ByStatus, ByTaken, ByTenureEnd, ByVerdict, ByWatchEvent, CaptureStatus,
    CauseLabel, Deed, DeedResult, Drift, EventLabel, EvidenceResult, FenceResult, ListResult, MissingId, PodPart, Role,
    SignalLabel, Taken, TenureEnd, Verdict, WatchEvent, WatchRestart, Witness,
};
use super::otlp::Signal;

/// One metric for each shard.
pub(super) type Per<M> = Family<ByShard, M>;
/// One metric for each shard and each value of further labels.
pub(super) type PerAnd<L, M> = Family<(ByShard, L), M>;

/// A time in seconds.
type SecondsGauge = Gauge<f64, AtomicU64>;

/// From half a millisecond to half a minute.
const SECONDS: [f64; 15] = [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0];

/// The ways in which an execution that another pod claims can have ended.
const ENDS: [EventType; 3] = [EventType::ExecutionCompleted, EventType::ExecutionFailed, EventType::ExecutionTimeout];

/// Everything that is counted.
pub(super) struct Families {
    pub(super) registry: Registry,
    /// What the system says of the process.
    pub(super) system: Registry,
    pub(super) telling: Telling,
    pub(super) watching: Watching,
    pub(super) leading: Leading,
    pub(super) process: Process,
}

/// What becomes of pods: captured, told, cleaned up.
pub(super) struct Telling {
    pub(super) events: PerAnd<ByEventType, Counter>,
    pub(super) failures: PerAnd<ByCause, Counter>,
    pub(super) stalled: PerAnd<ByCause, Gauge>,
    pub(super) claims: PerAnd<ByEventType, Counter>,
    pub(super) deeds: PerAnd<ByDeed, Counter>,
    pub(super) transactions: PerAnd<ByVerdict, Counter>,
    pub(super) transaction_duration: Per<Histogram>,
    pub(super) observed_to_committed: Per<Histogram>,
    pub(super) captures: PerAnd<ByStatus, Counter>,
    pub(super) capture_duration: Per<Histogram>,
    pub(super) evidence: PerAnd<ByEvidence, Counter>,
    pub(super) missing_ids: PerAnd<ById, Counter>,
    pub(super) tracked_pods: Per<Gauge>,
    pub(super) remembered_pods: Per<Gauge>,
}

/// What came from the API server.
pub(super) struct Watching {
    pub(super) watch_restarts: PerAnd<ByReason, Counter>,
    pub(super) watch_events: PerAnd<ByWatchEvent, Counter>,
    pub(super) watch_bytes: Per<Counter>,
    pub(super) lists: PerAnd<ByListResult, Counter>,
    pub(super) unreadable_pods: PerAnd<ByPart, Counter>,
    pub(super) foreign_pods: Per<Counter>,
    pub(super) server_side_sharding: Per<Gauge>,
    pub(super) reconcile_drift: PerAnd<ByDrift, Counter>,
    pub(super) reconcile_runs: Per<Counter>,
}

/// Who leads, and how hands changed.
pub(super) struct Leading {
    pub(super) role: PerAnd<ByRole, Gauge>,
    pub(super) term: Per<Gauge>,
    pub(super) holder_seen: Per<Gauge>,
    pub(super) given_away: Per<Counter>,
    pub(super) standbys: Per<Gauge>,
    pub(super) other_rules: Per<Gauge>,
    pub(super) standby_lag: Per<Gauge>,
    pub(super) leases_taken: PerAnd<ByTaken, Counter>,
    pub(super) tenures_ended: PerAnd<ByTenureEnd, Counter>,
    pub(super) fences: PerAnd<ByFenceResult, Counter>,
    pub(super) restored_pods: Per<Gauge>,
    pub(super) takeover_gap: Per<Histogram>,
    pub(super) takeover_duration: PerAnd<ByLeg, Histogram>,
    pub(super) last_gap: Per<SecondsGauge>,
    pub(super) last_takeover: PerAnd<ByLeg, SecondsGauge>,
}

/// What there is once per process, however many shards it leads.
pub(super) struct Process {
    pub(super) shards: Gauge,
    pub(super) members: Gauge,
    pub(super) shards_held: Gauge,
    pub(super) rules: Family<ByHash, Gauge>,
    pub(super) otlp_export_failures: Family<BySignal, Counter>,
    pub(super) otlp_dropped: Family<BySignal, Counter>,
}

impl Families {
    /// Every family, without any shard's series.
    pub(super) fn new() -> Self {
        let mut registry = Registry::with_prefix("pod_monitor");
        let telling = Telling::new(&mut registry);
        let watching = Watching::new(&mut registry);
        let leading = Leading::new(&mut registry);
        let process = Process::new(&mut registry);
        Self { registry, system: super::process::registry(), telling, watching, leading, process }
    }

    /// A series that exists at 0 makes `rate` and alerts see the very first count. Only the legs of take-overs come with
    /// the first take-over. Those that exist already keep their values.
    pub(super) fn create_series(&self, shard: ByShard) {
        self.telling.create_series(shard);
        self.watching.create_series(shard);
        self.leading.create_series(shard);
    }
}

impl Telling {
    fn new(r: &mut Registry) -> Self {
        let events = metric(r, "events", "Events that became visible");
        let stalled = metric(r, "stalled_executions", "Executions told as stalled that do not get on");
        let claims = metric(r, "claims", "Pods of an execution that another pod had ended, by how");
        let deeds = metric(r, "cleanups", "Finalizers taken off and pods deleted after their end was told");
        let failures = metric(r, "failures", "Ends that were no success, by cause");
        let transactions = metric(r, "transactions", "Transactions by how they ended");
        let transaction_duration = seconds(r, "transaction_duration_seconds", "From begin to verdict");
        let captures = metric(r, "captures", "Captures of output by how much was had");
        let capture_duration = seconds(r, "capture_duration_seconds", "Duration of captures");
        let evidence = metric(r, "evidence_reads", "Who was asked what else is known of an end, and how it went");
        let missing_ids = metric(r, "missing_ids", "Pods without an id of their own");
        let tracked_pods = metric(r, "tracked_pods", "Pods whose story is not over");
        let remembered_pods = metric(r, "remembered_pods", "Pods that are gone and whose execution is remembered");
        let observed_to_committed =
            seconds(r, "observed_to_committed_seconds", "From an observation to its visible events");
        Self {
            events,
            failures,
            stalled,
            claims,
            deeds,
            transactions,
            transaction_duration,
            observed_to_committed,
            captures,
            capture_duration,
            evidence,
            missing_ids,
            tracked_pods,
            remembered_pods,
        }
    }

    fn create_series(&self, shard: ByShard) {
        let deeds = Deed::ALL.iter().flat_map(|d| DeedResult::ALL.iter().map(move |r| (*d, *r)));
        let asked = Witness::ALL.iter().flat_map(|w| EvidenceResult::ALL.iter().map(move |r| (*w, *r)));
        let event = |event_type| ByEventType { event_type: EventLabel(event_type) };
        let cause = |cause| ByCause { cause: CauseLabel(cause) };
        at_zero(&self.events, shard, EventType::ALL.map(event));
        at_zero(&self.failures, shard, Cause::ALL.into_iter().map(cause));
        at_zero(&self.stalled, shard, Cause::ALL.into_iter().map(cause));
        at_zero(&self.claims, shard, ENDS.map(event));
        at_zero(&self.deeds, shard, deeds.map(|(deed, result)| ByDeed { deed, result }));
        at_zero(&self.transactions, shard, Verdict::ALL.iter().map(|&verdict| ByVerdict { verdict }));
        at_zero(&self.captures, shard, CaptureStatus::ALL.iter().map(|&status| ByStatus { status }));
        at_zero(&self.evidence, shard, asked.map(|(witness, result)| ByEvidence { witness, result }));
        at_zero(&self.missing_ids, shard, MissingId::ALL.iter().map(|&id| ById { id }));
        for duration in [&self.transaction_duration, &self.observed_to_committed, &self.capture_duration] {
            drop(duration.get_or_create(&shard));
        }
        drop(self.tracked_pods.get_or_create(&shard));
        drop(self.remembered_pods.get_or_create(&shard));
    }
}

impl Watching {
    fn new(r: &mut Registry) -> Self {
        Self {
            watch_restarts: metric(r, "watch_restarts", "Watches begun anew"),
            watch_events: metric(r, "watch_events", "What watches delivered of a shard's pods"),
            watch_bytes: metric(r, "watch_bytes", "Bytes of the lines that watches delivered"),
            lists: metric(r, "lists", "LISTs by how they went"),
            unreadable_pods: metric(r, "unreadable_pods", "Pods of which a part could not be read"),
            foreign_pods: metric(r, "foreign_pods", "Pods that the API server sent and another shard has"),
            server_side_sharding: metric(
                r,
                "server_side_sharding",
                "1 if the last LIST said that the API server leaves out the pods of other shards",
            ),
            reconcile_drift: metric(r, "reconcile_drift", "Differences found by comparing"),
            reconcile_runs: metric(r, "reconcile_runs", "Comparisons with a LIST"),
        }
    }

    fn create_series(&self, shard: ByShard) {
        at_zero(&self.watch_restarts, shard, WatchRestart::ALL.iter().map(|&reason| ByReason { reason }));
        at_zero(&self.watch_events, shard, WatchEvent::ALL.iter().map(|&kind| ByWatchEvent { kind }));
        at_zero(&self.lists, shard, ListResult::ALL.iter().map(|&result| ByListResult { result }));
        at_zero(&self.unreadable_pods, shard, PodPart::ALL.iter().map(|&part| ByPart { part }));
        at_zero(&self.reconcile_drift, shard, Drift::ALL.iter().map(|&kind| ByDrift { kind }));
        for count in [&self.watch_bytes, &self.foreign_pods, &self.reconcile_runs] {
            drop(count.get_or_create(&shard));
        }
        drop(self.server_side_sharding.get_or_create(&shard));
    }
}

impl Leading {
    fn new(r: &mut Registry) -> Self {
        Self {
            fences: metric(r, "fences", "Fences of older producers"),
            leases_taken: metric(r, "leases_taken", "Leases taken by this replica"),
            tenures_ended: metric(r, "tenures_ended", "Tenures of this replica that ended"),
            given_away: metric(r, "shards_given_away", "Times this replica gave a shard away to share the load"),
            role: metric(r, "role", "What this replica does for a shard: 1 for its role"),
            term: metric(r, "term", "The shard's count of changes of hands"),
            holder_seen: metric(r, "shard_holder_seen", "1 while this replica sees somebody hold the shard's Lease"),
            standbys: metric(
                r,
                "standbys",
                "Replicas that could take over, as they tell this leader: they reach Kafka, have read the changelog and did not give the shard up a moment ago",
            ),
            other_rules: metric(
                r,
                "standbys_with_other_rules",
                "Replicas that stand by with other rules of the user than this leader's",
            ),
            standby_lag: metric(
                r,
                "standby_lag_records",
                "Records of the changelog that this standby has not read yet",
            ),
            restored_pods: metric(r, "restored_pods", "Pods restored at the last take-over"),
            takeover_gap: seconds(
                r,
                "takeover_gap_seconds",
                "From the last sign of a holder until its successor's first commit",
            ),
            takeover_duration: seconds(
                r,
                "takeover_duration_seconds",
                "From the moment when the Lease could be had until each leg was reached",
            ),
            last_gap: metric(r, "last_takeover_gap_seconds", "The same gap of the last take-over by this replica"),
            last_takeover: metric(
                r,
                "last_takeover_seconds",
                "The same until each leg of the last take-over by this replica",
            ),
        }
    }

    fn create_series(&self, shard: ByShard) {
        at_zero(&self.role, shard, Role::ALL.iter().map(|&role| ByRole { role }));
        at_zero(&self.leases_taken, shard, Taken::ALL.iter().map(|&reason| ByTaken { reason }));
        at_zero(&self.tenures_ended, shard, TenureEnd::ALL.iter().map(|&reason| ByTenureEnd { reason }));
        at_zero(&self.fences, shard, FenceResult::ALL.iter().map(|&result| ByFenceResult { result }));
        let gauges =
            [&self.term, &self.holder_seen, &self.standbys, &self.other_rules, &self.standby_lag, &self.restored_pods];
        gauges.into_iter().for_each(|gauge| drop(gauge.get_or_create(&shard)));
        drop(self.given_away.get_or_create(&shard));
        drop(self.takeover_gap.get_or_create(&shard));
    }
}

impl Process {
    fn new(r: &mut Registry) -> Self {
        r.register("build", "Which build this is", Info::new(vec![("version", env!("CARGO_PKG_VERSION"))]));
        Self {
            shards: metric(r, "shards", "How many shards there are"),
            members: metric(r, "members", "Replicas that live, as this one sees it"),
            shards_held: metric(r, "shards_held", "Shards that this replica leads"),
            rules: metric(r, "rules", "Which rules of the user this process has: 1 for their hash"),
            otlp_export_failures: by_signal(
                r,
                "otlp_export_failures",
                "Batches that did not arrive by OTLP, by signal",
            ),
            otlp_dropped: by_signal(r, "otlp_dropped", "Spans and log lines that found no room to wait in, by signal"),
        }
    }
}

/// A metric or a family, under its name; the client adds `_total` to counters.
fn metric<M: Metric + Clone + Default>(r: &mut Registry, name: &str, help: &str) -> M {
    registered(r, name, help, M::default())
}

/// A family of durations.
fn seconds<S>(r: &mut Registry, name: &str, help: &str) -> Family<S, Histogram>
where
    Family<S, Histogram>: Metric,
    S: Clone + Hash + Eq,
{
    registered(r, name, help, Family::new_with_constructor(|| Histogram::new(SECONDS)))
}

/// Every series of it is there from the beginning: an alert on its increase needs the 0 before.
fn by_signal(r: &mut Registry, name: &str, help: &str) -> Family<BySignal, Counter> {
    let family: Family<BySignal, Counter> = metric(r, name, help);
    for signal in Signal::ALL {
        drop(family.get_or_create(&BySignal { signal: SignalLabel(signal) }));
    }
    family
}

fn registered<M: Metric + Clone>(r: &mut Registry, name: &str, help: &str, metric: M) -> M {
    r.register(name, help, metric.clone());
    metric
}

fn at_zero<L, M>(family: &PerAnd<L, M>, shard: ByShard, labels: impl IntoIterator<Item = L>)
where
    L: Clone + Hash + Eq + EncodeLabelSet,
    M: EncodeMetric + TypedMetric,
{
    labels.into_iter().for_each(|label| drop(family.get_or_create(&(shard, label))));
}
