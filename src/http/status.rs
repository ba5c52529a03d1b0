//! What `/api/status` and the status page show. The worker writes it, requests read it.
//!
//! ```text
//!   election: who holds which shard ──┐
//!   worker:   role, load, hand-overs, ├──▶ Board ──status()──▶ Status ──▶ /api/status, / and /api/live
//!             ends that were told  ───┘      ▲ health, reports of other replicas are added when somebody asks
//! ```
//! Promises: writing is a few assignments under a short lock, whoever reads; all that grows has a bound
//! ([`EXECUTIONS_MAX`], [`HAND_OVERS_MAX`]). It decides nothing: whoever shows something wrong misleads, and loses nothing.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::{Arc, PoisonError, RwLock},
    time::Instant,
};

use jiff::Timestamp;
use serde::Serialize;

use super::health::{Health, Name, State};
use crate::{leadership::peers::Heard, telemetry::metrics::Role};

/// Ended executions that are remembered.
pub const EXECUTIONS_MAX: usize = 50;
/// Hand-overs of one shard that are remembered.
pub const HAND_OVERS_MAX: usize = 5;

/// The parts of the status that the worker keeps up to date. Clones share it.
#[derive(Debug, Clone)]
pub struct Board(Arc<RwLock<Shown>>);

/// What the board shows. Fields without a value are absent from the JSON.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Shown {
    /// Version of this build.
    pub version: String,
    /// This process among the replicas.
    pub identity: String,
    /// When it started, by its own clock.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub started_at: Option<Timestamp>,
    /// The normalised selector.
    pub selector: String,
    /// Where events go.
    pub sink: String,
    /// What this replica does for each shard.
    pub shards: Vec<ShardStatus>,
    /// Whether others are to stand by: Leases are contended for, and this replica can be reached.
    #[serde(skip)]
    pub elects: bool,
    /// Replicas that live, by their member Leases; none where there is one shard.
    #[serde(skip)]
    pub fleet: Vec<String>,
    /// How executions ended, as this replica told since it started.
    pub ends: Ends,
    /// What this replica could not tell whole, or only found by comparing, since it started: zeros in a healthy system.
    pub missing: Missing,
    /// The last ends that this replica told, newest first; at most [`EXECUTIONS_MAX`].
    pub executions: VecDeque<Execution>,
}

/// How many executions ended how.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Ends {
    /// Exit code 0.
    pub completed: u64,
    /// Any other end.
    pub failed: u64,
    /// A deadline.
    pub timeout: u64,
    /// Those that did not complete, by cause.
    pub causes: BTreeMap<&'static str, u64>,
}

/// What is not whole. Each is told in its event, logged and counted; here it is for one look.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Missing {
    /// Ends of which output is missing, in whole or in part (`logs.status`).
    pub output: u64,
    /// What the periodic comparison found and the watch had not told.
    pub drift: u64,
    /// When it last did.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub drift_at: Option<Timestamp>,
    /// Pods of which nothing more is told now, since their records cannot be read or written: those of the shards.
    pub pods: u64,
}

/// An end that was told.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Execution {
    /// Which of all ends that this replica told: its row on the page.
    #[serde(skip)]
    pub number: u64,
    /// When it ended, by the clocks of the cluster.
    pub at: Timestamp,
    /// Whose it is.
    pub shard: u32,
    /// `metadata.namespace` of its pod.
    pub namespace: Box<str>,
    /// `metadata.name` of its pod.
    pub pod_name: Box<str>,
    /// `metadata.uid` of its pod.
    pub pod_uid: Arc<str>,
    /// Which execution.
    pub execution_id: Box<str>,
    /// `completed`, `failed` or `timeout`.
    pub verdict: &'static str,
    /// Why it did not complete.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cause: Option<Box<str>>,
    /// Of the main container.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub exit_code: Option<i32>,
    /// How long its main container ran.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub duration_seconds: Option<f64>,
    /// Whether its output is there: `logs.status` of the event.
    pub logs: &'static str,
}

/// One shard as this replica sees it.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct ShardStatus {
    /// Which.
    pub shard: u32,
    /// This replica's role: standby, fencing, reconciling, live, draining.
    pub role: &'static str,
    /// Who holds it, where known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub holder: Option<String>,
    /// Its count of changes of hands.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub term: Option<u64>,
    /// Pods whose story is not over.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tracked_pods: Option<u64>,
    /// Records of the changelog not read yet (standby).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lag_records: Option<u64>,
    /// Pods that have news which is not decided and told yet (leader).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub waiting_pods: Option<u64>,
    /// For how long Kafka has owed an answer (leader); absent: for less than a second.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kafka_waits_ms: Option<u64>,
    /// Pods of which nothing more is told now, since their records cannot be read or written (leader).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub untold_pods: Option<u64>,
    /// Since when this replica has neither stood by nor been live.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub changing_since: Option<Timestamp>,
    /// Last change of hands; absent: before this replica looked.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub since: Option<Timestamp>,
    /// Changes of hands that this replica saw or made, newest first; at most [`HAND_OVERS_MAX`].
    #[serde(skip_serializing_if = "VecDeque::is_empty")]
    pub hand_overs: VecDeque<HandOver>,
    /// Who held it before nobody did.
    #[serde(skip)]
    pub last_holder: Option<String>,
}

/// One change of hands. Only who took the shard over knows why, and what it took.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct HandOver {
    /// When the new holder was seen.
    pub at: Timestamp,
    /// The new holder.
    pub holder: String,
    /// The one before, where this replica saw it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub from: Option<String>,
    /// The measured half, on the replica that took over.
    #[serde(flatten)]
    pub measured: Option<Measured>,
}

/// What a take-over took.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Measured {
    /// Count of changes of hands.
    pub term: u64,
    /// Why the Lease was taken: absent, released, dead, silent, ours.
    pub why: &'static str,
    /// From the last sign of the old holder until the first commit of the new one.
    pub gap_ms: f64,
    /// Of that, what passed before the Lease could be taken.
    pub silence_ms: f64,
    /// When each leg was reached, from the moment when the Lease could be had.
    pub legs: Vec<Reached>,
}

/// A leg of a take-over.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub struct Reached {
    /// `acquired`, `fenced`, `barrier`, `restored`, `watching`, `reconciled`, `first_commit`.
    pub leg: &'static str,
    /// Milliseconds from the beginning of the take-over.
    pub ms: f64,
}

/// One component in a [`Status`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Check {
    /// Component.
    pub name: Name,
    /// Whether it does its part.
    pub ok: bool,
    /// Why not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
    /// For how long not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub waits_ms: Option<u64>,
}

/// A replica that this one knows of.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Member {
    /// Who.
    pub identity: String,
    /// Whether it is this one.
    pub this: bool,
    /// Shards that it holds.
    pub holds: Vec<u32>,
    /// Whether it could lead, where it said so a moment ago; a holder hears its standbys, and they hear nobody.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub able: Option<bool>,
    /// Records of the changelog that it has not read, where it said so, for the shard for which these are most.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lag_records: Option<u64>,
}

/// The whole answer of `/api/status`.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Status {
    /// When this was so, by this replica's clock.
    pub at: Timestamp,
    /// The board.
    #[serde(flatten)]
    pub shown: Shown,
    /// As `/readyz`.
    pub ready: bool,
    /// As `/livez`.
    pub live: bool,
    /// Components by name.
    pub checks: Vec<Check>,
    /// Loops that do not turn.
    pub stuck: Vec<&'static str>,
    /// Replicas that this one knows of, itself among them.
    pub members: Vec<Member>,
}

impl ShardStatus {
    /// Notes who holds the shard. The first holder that is seen is no change of hands, unless it is `me`.
    pub fn held_by(&mut self, holder: Option<&str>, me: &str, now: Timestamp) {
        if self.holder.as_deref() == holder {
            return;
        }
        let before = std::mem::replace(&mut self.holder, holder.map(str::to_owned));
        self.last_holder = before.or_else(|| self.last_holder.take());
        let Some(holder) = holder else {
            self.since = Some(now);
            return;
        };
        // The same one again, for instance after its Lease was deleted: nothing changed hands.
        if self.last_holder.as_deref() != Some(holder) && (self.last_holder.is_some() || holder == me) {
            self.since = Some(now);
            let from = self.last_holder.clone();
            self.hand_overs.push_front(HandOver { at: now, holder: holder.to_owned(), from, measured: None });
            self.hand_overs.truncate(HAND_OVERS_MAX);
        }
    }

    /// What this replica does for it; who holds it, since when and what was before stay as they are known. What only a
    /// holder knows goes with the tenure.
    pub fn becomes(&mut self, role: Self) {
        let Self { holder, since, hand_overs, last_holder, untold_pods, changing_since, .. } = std::mem::take(self);
        let untold_pods = untold_pods.filter(|_| role.role != Role::Standby.as_str());
        let changing_since = changing_since.filter(|_| role.is_changing());
        *self = Self { holder, since, hand_overs, last_holder, untold_pods, changing_since, ..role };
    }

    /// Whether this replica is on its way to lead it, or away from that.
    pub fn is_changing(&self) -> bool {
        self.role != Role::Standby.as_str() && self.role != Role::Live.as_str()
    }

    /// The take-over that made `holder` the holder is over.
    pub fn measured(&mut self, holder: &str, now: Timestamp, measured: Measured) {
        let open = self.hand_overs.iter_mut().find(|known| known.holder == holder && known.measured.is_none());
        match open {
            Some(known) => known.measured = Some(measured),
            None => {
                let holder = holder.to_owned();
                self.hand_overs.push_front(HandOver { at: now, holder, from: None, measured: Some(measured) });
                self.hand_overs.truncate(HAND_OVERS_MAX);
            }
        }
    }
}

impl Board {
    /// A board that shows this.
    pub fn new(shown: Shown) -> Self {
        Self(Arc::new(RwLock::new(shown)))
    }

    /// This process among the replicas.
    pub fn identity(&self) -> String {
        self.0.read().unwrap_or_else(PoisonError::into_inner).identity.clone()
    }

    /// Changes what is shown.
    pub fn update(&self, change: impl FnOnce(&mut Shown)) {
        change(&mut self.0.write().unwrap_or_else(PoisonError::into_inner));
    }

    /// Changes what is shown of one shard, which is there from then on.
    pub fn shard(&self, shard: u32, change: impl FnOnce(&mut ShardStatus)) {
        self.update(|shown| {
            let place = shown.shards.partition_point(|known| known.shard < shard);
            if shown.shards.get(place).is_none_or(|known| known.shard != shard) {
                // Whoever does not act stands by.
                let role = Role::Standby.as_str();
                shown.shards.insert(place, ShardStatus { shard, role, ..ShardStatus::default() });
            }
            change(&mut shown.shards[place]);
        });
    }

    /// Board, health, and what other replicas said of themselves, together at `now`.
    pub fn status(&self, health: &Health, heard: Vec<Heard>, now: Instant) -> Status {
        let mut shown = self.0.read().unwrap_or_else(PoisonError::into_inner).clone();
        shown.missing.pods = shown.shards.iter().filter_map(|shard| shard.untold_pods).sum();
        let waits = health.waits(now);
        let waits_ms = |name: &Name| waits.get(name).and_then(|waits| u64::try_from(waits.as_millis()).ok());
        let check = |(name, state): (Name, State)| match state {
            State::Ok => Check { name, ok: true, why: None, waits_ms: None },
            State::Waiting { why } => Check { waits_ms: waits_ms(&name), name, ok: false, why: Some(why) },
        };
        let stuck: Vec<_> = health.stuck(now).into_iter().map(|stuck| stuck.name).collect();
        let ready = health.is_ready();
        Status {
            at: crate::clock::now(),
            members: members(&shown, ready, heard),
            shown,
            ready,
            live: stuck.is_empty(),
            checks: health.components().into_iter().map(check).collect(),
            stuck,
        }
    }
}

/// Whoever is known: by a member Lease, by holding a shard, by a report. This replica comes first.
fn members(shown: &Shown, ready: bool, heard: Vec<Heard>) -> Vec<Member> {
    let me = &shown.identity;
    let holders = shown.shards.iter().filter_map(|shard| shard.holder.as_ref());
    let reports: BTreeMap<&str, &Heard> = heard.iter().map(|heard| (&*heard.peer, heard)).collect();
    let named = shown.fleet.iter().chain(holders).map(String::as_str).chain(reports.keys().copied());
    let others: BTreeSet<&str> = named.filter(|name| name != me).collect();
    let member = |identity: &str| Member {
        identity: identity.to_owned(),
        this: identity == me,
        holds: shown.shards.iter().filter(|s| s.holder.as_deref() == Some(identity)).map(|s| s.shard).collect(),
        able: if identity == me { Some(ready) } else { reports.get(identity).map(|heard| heard.able) },
        lag_records: reports.get(identity).filter(|_| identity != me).and_then(|heard| heard.lag_records),
    };
    std::iter::once(me.as_str()).chain(others).map(member).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).expect("a time")
    }

    #[test]
    fn changes_of_hands_are_noted_whether_the_lease_was_free_between_or_not() {
        let mut shard = ShardStatus::default();
        shard.held_by(None, "me", at(1));
        shard.held_by(Some("a"), "me", at(2));
        assert_eq!((shard.since, shard.hand_overs.len()), (None, 0), "who knows since when");
        shard.held_by(Some("a"), "me", at(3));
        shard.held_by(Some("b"), "me", at(4));
        shard.held_by(None, "me", at(5));
        shard.held_by(Some("b"), "me", at(5));
        shard.held_by(None, "me", at(5));
        shard.held_by(Some("me"), "me", at(6));
        let seen: Vec<_> = shard.hand_overs.iter().map(|h| (h.from.as_deref(), h.holder.as_str(), h.at)).collect();
        assert_eq!(seen, [(Some("b"), "me", at(6)), (Some("a"), "b", at(4))]);
        shard.becomes(ShardStatus { role: "live", term: Some(7), ..ShardStatus::default() });
        assert_eq!((shard.holder.as_deref(), shard.since, shard.hand_overs.len()), (Some("me"), Some(at(6)), 2));
        for n in 0..20 {
            shard.held_by(Some(if n % 2 == 0 { "a" } else { "me" }), "me", at(10 + n));
        }
        assert_eq!(shard.hand_overs.len(), HAND_OVERS_MAX);
    }

    #[test]
    fn what_a_take_over_took_stands_beside_the_change_that_it_made() {
        let mut shard = ShardStatus::default();
        let took = |gap_ms| Measured { gap_ms, ..Measured::default() };
        shard.measured("me", at(1), took(1.0));
        assert_eq!(shard.hand_overs[0].measured, Some(took(1.0)), "also where nobody saw the change");
        shard.held_by(Some("a"), "me", at(2));
        shard.held_by(Some("me"), "me", at(3));
        shard.held_by(Some("a"), "me", at(4));
        shard.measured("me", at(5), took(2.0));
        let seen: Vec<_> = shard.hand_overs.iter().map(|h| (h.at, h.measured.as_ref().map(|m| m.gap_ms))).collect();
        // The first holder that was seen is no change of hands.
        assert_eq!(seen, [(at(4), None), (at(3), Some(2.0)), (at(1), Some(1.0))]);
    }

    #[test]
    fn pods_of_which_nothing_is_told_are_those_of_the_tenures_that_last() {
        let (board, health) = (Board::new(Shown::default()), Health::default());
        let untold = || board.status(&health, Vec::new(), crate::clock::monotonic()).shown.missing.pods;
        let becomes = |role| board.shard(1, |shard| shard.becomes(ShardStatus { shard: 1, role, ..shard.clone() }));
        becomes("fencing");
        board.shard(1, |shard| (shard.untold_pods, shard.changing_since) = (Some(2), Some(at(1))));
        board.shard(2, |shard| shard.untold_pods = Some(1));
        becomes("reconciling");
        assert_eq!(untold(), 3, "each is counted once, however often the journal is opened");
        board.shard(1, |shard| assert_eq!(shard.changing_since, Some(at(1)), "one take-over"));
        becomes("live");
        assert_eq!(untold(), 3);
        board.shard(1, |shard| assert_eq!(shard.changing_since, None));
        becomes("standby");
        assert_eq!(untold(), 1, "whoever leads it now knows");
    }

    #[test]
    fn a_check_that_waits_says_for_how_long() {
        let (board, health) = (Board::new(Shown::default()), Health::default());
        health.component("kafka").not_yet("no broker");
        health.component("watch").ok();
        let now = crate::clock::monotonic() + std::time::Duration::from_secs(70);
        let checks = board.status(&health, Vec::new(), now).checks;
        assert!(checks[0].waits_ms >= Some(70_000), "{checks:?}");
        assert_eq!(checks[1], Check { name: "watch".into(), ok: true, why: None, waits_ms: None });
    }

    #[test]
    fn members_are_known_by_lease_by_holding_and_by_report() {
        let shard = |shard, holder: &str| ShardStatus { shard, holder: Some(holder.into()), ..ShardStatus::default() };
        let shards = vec![shard(0, "b"), shard(1, "me"), shard(2, "b")];
        let shown = Shown { identity: "me".into(), fleet: vec!["c".into(), "me".into()], shards, ..Shown::default() };
        let says = |peer: &str, able, lag_records| Heard { peer: peer.into(), able, lag_records };
        let known = members(&shown, true, vec![says("d", false, Some(9)), says("c", true, None)]);
        let seen: Vec<_> =
            known.iter().map(|m| (m.identity.as_str(), m.this, m.holds.as_slice(), (m.able, m.lag_records))).collect();
        let expected: [(&str, bool, &[u32], _); 4] = [
            ("me", true, &[1], (Some(true), None)),
            ("b", false, &[0, 2], (None, None)),
            ("c", false, &[], (Some(true), None)),
            ("d", false, &[], (Some(false), Some(9))),
        ];
        assert_eq!(seen, expected);
    }
}
