//! What the replicas tell one another over the connections of the death notice: who stands by, and whether they reach
//! Kafka, and by which rules of the user they would tell failures. A holder that is cut off from Kafka gives up only where somebody else would get on.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::time::Instant;

use super::tenure::ShardId;

/// A report that is older says nothing any more.
const FRESH: Duration = Duration::from_secs(2);
/// Standbys that are remembered; more of them than any installation has.
const PEERS_MAX: usize = 64;
/// How the line of a report begins that says how far behind its replica is.
const LAG: &str = "lag=";

/// How many shards a replica could lead.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reach {
    /// None, or less than half.
    Few,
    /// At least half of them.
    Most,
    /// Every one.
    All,
}

/// What this replica knows of the others, and what it tells them of itself. Clones share it.
#[derive(Debug, Clone, Default)]
pub struct Peers(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    reports: Mutex<BTreeMap<Box<str>, Report>>,
    /// For which shards we reach Kafka and have read the changelog, as far as that was looked at.
    warm: Mutex<BTreeMap<ShardId, bool>>,
    /// Shards that we gave up, and until when we leave them to others.
    back: Mutex<BTreeMap<ShardId, Instant>>,
    /// Records of the changelog that we have not read, where that is known and we stand by.
    lags: Mutex<BTreeMap<ShardId, u64>>,
    /// Hash of our rules of the user; empty: we have none.
    rules: Box<str>,
}

/// What a standby said of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Heard {
    /// Who.
    pub peer: Box<str>,
    /// Whether it reaches Kafka and has read the changelog, for most shards.
    pub able: bool,
    /// Records of the changelog that it has not read, for the shard for which these are most.
    pub lag_records: Option<u64>,
}

#[derive(Debug, Clone)]
struct Report {
    at: Instant,
    kafka: bool,
    lag_records: Option<u64>,
    /// Shards that it could not lead now.
    cold: BTreeSet<ShardId>,
    /// Whether it said that it has other rules than we; earlier releases say nothing.
    other_rules: bool,
}

impl Peers {
    /// For a replica with these rules of the user.
    pub fn of(rules_hash: Option<&str>) -> Self {
        Self(Arc::new(Inner { rules: rules_hash.unwrap_or_default().into(), ..Inner::default() }))
    }

    /// We reach Kafka for this shard and have read its changelog, or not.
    pub fn reach_kafka(&self, shard: ShardId, reach: bool) {
        self.warm().insert(shard, reach);
    }

    /// Whether we reach Kafka for this shard and have read its changelog, as far as we know.
    pub fn is_warm(&self, shard: ShardId) -> bool {
        self.warm().get(&shard).is_some_and(|warm| *warm)
    }

    /// For how many shards that is so.
    pub fn reach(&self) -> Reach {
        let warm = self.warm();
        match (warm.values().filter(|warm| **warm).count(), warm.len()) {
            (0, _) => Reach::Few,
            (count, all) if count == all => Reach::All,
            (count, all) if 2 * count >= all => Reach::Most,
            _ => Reach::Few,
        }
    }

    /// The same for at least half of the shards: one whose partition has no leader is no reason to count for nothing.
    pub fn reaches_kafka(&self) -> bool {
        self.reach() != Reach::Few
    }

    /// We gave this shard up and do not contend for it before then.
    pub fn stands_back(&self, shard: ShardId, until: Instant) {
        self.back().insert(shard, until);
    }

    /// How many records of this shard's changelog we have not read; `None`: it is not known, or we lead.
    pub fn lags(&self, shard: ShardId, records: Option<u64>) {
        let mut lags = self.own_lags();
        match records {
            Some(records) => drop(lags.insert(shard, records)),
            None => drop(lags.remove(&shard)),
        }
    }

    /// Shards that we could not lead now. Two who each gave up for the other would leave the shard to nobody.
    fn cold(&self, now: Instant) -> String {
        let (warm, back) = (self.warm(), self.back());
        let stands_back = |shard: &ShardId| back.get(shard).is_some_and(|until| now < *until);
        let cold = warm.iter().filter(|(shard, warm)| !**warm || stands_back(shard));
        let cold: Vec<String> = cold.map(|(shard, _)| shard.to_string()).collect();
        if cold.is_empty() { String::new() } else { format!(" cold={}", cold.join(",")) }
    }

    fn warm(&self) -> MutexGuard<'_, BTreeMap<ShardId, bool>> {
        self.0.warm.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn own_lags(&self) -> MutexGuard<'_, BTreeMap<ShardId, u64>> {
        self.0.lags.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn back(&self) -> MutexGuard<'_, BTreeMap<ShardId, Instant>> {
        self.0.back.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What we say of ourselves, once in a while: a line, and one before it where we know how far behind we are.
    pub fn report(&self, me: &str, now: Instant) -> String {
        let lag = self.own_lags().values().max().map_or_else(String::new, |records| format!("{LAG}{records}\n"));
        // Earlier releases leave out that line, and take all that follows the name for a part of it, which does no harm.
        format!("{lag}kafka={} peer={me} rules={}{}\n", u8::from(self.reaches_kafka()), self.0.rules, self.cold(now))
    }

    /// Takes in what another said. Lines that it cannot read say nothing.
    pub fn heard(&self, report: &str, now: Instant) {
        let lag_records = report.lines().find_map(|line| line.strip_prefix(LAG)?.parse().ok());
        report.lines().for_each(|line| self.heard_line(line, lag_records, now));
    }

    fn heard_line(&self, line: &str, lag_records: Option<u64>, now: Instant) {
        let Some((kafka, peer)) = line.trim_end().split_once(" peer=") else { return };
        let kafka = kafka == "kafka=1";
        let (peer, cold) = peer.split_once(" cold=").unwrap_or((peer, ""));
        let cold = cold.split(',').filter_map(|shard| shard.parse().ok()).map(ShardId).collect();
        let (peer, rules) = peer.split_once(" rules=").map_or((peer, None), |(peer, rules)| (peer, Some(rules)));
        let other_rules = rules.is_some_and(|rules| *rules != *self.0.rules);
        let mut reports = self.0.reports.lock().unwrap_or_else(PoisonError::into_inner);
        reports.retain(|_, report| now.saturating_duration_since(report.at) <= FRESH);
        let known = reports.get(peer).is_some_and(|report| report.other_rules);
        if other_rules && !known {
            let ours = &*self.0.rules;
            tracing::warn!(
                peer,
                theirs = rules,
                ours,
                "a standby has other rules: after a change of hands failures are told by those"
            );
        }
        if reports.len() < PEERS_MAX {
            reports.insert(peer.into(), Report { at: now, kafka, lag_records, cold, other_rules });
        }
    }

    /// Standbys that said so a moment ago, and whether they could lead.
    pub fn heard_of(&self, now: Instant) -> Vec<Heard> {
        let reports = self.0.reports.lock().unwrap_or_else(PoisonError::into_inner);
        let fresh = reports.iter().filter(|(_, report)| now.saturating_duration_since(report.at) <= FRESH);
        fresh
            .map(|(peer, said)| Heard { peer: peer.clone(), able: said.kafka, lag_records: said.lag_records })
            .collect()
    }

    /// Standbys that said a moment ago that they reach Kafka, and could lead this shard.
    pub fn reaching_kafka(&self, shard: ShardId, now: Instant) -> usize {
        self.fresh(now, |report| report.kafka && !report.cold.contains(&shard))
    }

    /// Standbys that said a moment ago that they have other rules of the user than we.
    pub fn with_other_rules(&self, now: Instant) -> usize {
        self.fresh(now, |report| report.other_rules)
    }

    fn fresh(&self, now: Instant, counts: impl Fn(&Report) -> bool) -> usize {
        let reports = self.0.reports.lock().unwrap_or_else(PoisonError::into_inner);
        let fresh = |report: &&Report| now.saturating_duration_since(report.at) <= FRESH && counts(report);
        reports.values().filter(fresh).count()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn only_fresh_reports_count() {
        let (holder, standby) = (Peers::default(), Peers::default());
        let now = Instant::now();
        assert_eq!((holder.heard_of(now).len(), holder.reaching_kafka(ShardId(0), now)), (0, 0));
        holder.heard(&standby.report("b", now), now);
        holder.heard("nonsense\n", now);
        assert_eq!((holder.heard_of(now).len(), holder.reaching_kafka(ShardId(0), now)), (1, 0));
        standby.reach_kafka(ShardId(0), true);
        standby.reach_kafka(ShardId(1), false);
        assert!(standby.is_warm(ShardId(0)) && !standby.is_warm(ShardId(1)));
        let later = now + Duration::from_millis(1500);
        holder.heard(&standby.report("b", later), later);
        holder.heard(&standby.report("c", now), now);
        assert_eq!((holder.heard_of(later).len(), holder.reaching_kafka(ShardId(0), later)), (2, 2));
        assert_eq!(
            holder.heard_of(later).iter().map(|h| (&*h.peer, h.able)).collect::<Vec<_>>(),
            [("b", true), ("c", true)]
        );
        let late = now + Duration::from_millis(2500);
        assert_eq!((holder.heard_of(late).len(), holder.reaching_kafka(ShardId(0), late)), (1, 1));
        assert_eq!(holder.reaching_kafka(ShardId(1), late), 0, "it said that it could not lead that one");
        assert_eq!(standby.reach(), Reach::Most);
        standby.reach_kafka(ShardId(2), false);
        assert!(!standby.reaches_kafka(), "for most it does not");
    }

    #[tokio::test(start_paused = true)]
    async fn who_gave_a_shard_up_could_not_lead_it_until_it_contends_again() {
        let (holder, standby, now) = (Peers::default(), Peers::default(), Instant::now());
        [0, 1].into_iter().for_each(|shard| standby.reach_kafka(ShardId(shard), true));
        standby.stands_back(ShardId(0), now + Duration::from_secs(10));
        let able = |after| {
            let then = now + Duration::from_secs(after);
            holder.heard(&standby.report("b", then), then);
            [0, 1].map(|shard| holder.reaching_kafka(ShardId(shard), then))
        };
        assert_eq!([able(0), able(9), able(10)], [[0, 1], [0, 1], [1, 1]]);
        assert!(standby.is_warm(ShardId(0)), "what it is to contend by is another matter");
    }

    #[tokio::test(start_paused = true)]
    async fn who_has_other_rules_is_counted_and_who_does_not_say_is_not() {
        let (holder, now) = (Peers::of(Some("aa")), Instant::now());
        holder.heard(&Peers::of(Some("aa")).report("same", now), now);
        holder.heard("kafka=1 peer=earlier-release\n", now);
        assert_eq!((holder.heard_of(now).len(), holder.with_other_rules(now)), (2, 0));
        holder.heard(&Peers::of(Some("bb")).report("other", now), now);
        holder.heard(&Peers::of(None).report("none", now), now);
        assert_eq!((holder.heard_of(now).len(), holder.with_other_rules(now)), (4, 2));
        assert_eq!(Peers::default().report("b", now), "kafka=0 peer=b rules=\n");
    }

    #[tokio::test(start_paused = true)]
    async fn who_stands_by_says_how_far_behind_it_is_until_it_leads() {
        let (holder, standby, now) = (Peers::default(), Peers::default(), Instant::now());
        let heard = |records: &[Option<u64>]| {
            (0..).zip(records).for_each(|(shard, records)| standby.lags(ShardId(shard), *records));
            holder.heard(&standby.report("b", now), now);
            holder.heard_of(now)[0].lag_records
        };
        assert_eq!(heard(&[None]), None);
        assert_eq!(heard(&[Some(0)]), Some(0));
        assert_eq!(heard(&[Some(7), Some(3)]), Some(7), "where it is furthest behind");
        assert_eq!(heard(&[None, Some(3)]), Some(3), "it leads the other");
        assert_eq!(standby.report("b", now), "lag=3\nkafka=0 peer=b rules=\n");
        holder.heard("lag=many\nkafka=1 peer=b rules=\n", now);
        assert_eq!(holder.heard_of(now)[0].lag_records, None);
    }

    #[tokio::test(start_paused = true)]
    async fn a_crowd_of_strangers_takes_no_more_than_its_place() {
        let peers = Peers::default();
        for n in 0..1000 {
            peers.heard(&format!("kafka=1 peer={n}\n"), Instant::now());
        }
        assert_eq!(peers.heard_of(Instant::now()).len(), PEERS_MAX);
    }
}
