//! What one replica knows of all of them and of all shards, and what follows from it for its own elections.
//!
//! ```text
//!   elections ──who holds shard k, who is dead──▶ ┌─ Fleet ─┐ ──is it our turn?──▶ elections
//!   members   ──who lives───────────────────────▶ └─ plan ──┘ ──cues: look, give──▶ elections
//! ```
//! Nothing here is relied on for exactly-once delivery, nor for one leader a shard: Lease and fence are. A wrong plan costs
//! balance, or a retry period.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio::sync::mpsc;

use super::{
    assignment::{Member, Plan, Seen, plan},
    ranges::Shards,
};
use crate::{
    http::Board,
    leadership::{elector::Cue, record::Version, tenure::ShardId},
    telemetry::Metrics,
};

/// Cues that may wait for one election; more say the same.
const CUES_MAX: usize = 8;

/// One replica's view. Clones share it.
#[derive(Debug, Clone)]
pub struct Fleet(Arc<Mutex<Inner>>);

#[derive(Debug)]
struct Inner {
    me: Member,
    shards: Vec<Seen>,
    /// Shards that this replica leads, whatever their Leases say.
    led: BTreeSet<ShardId>,
    /// Members that live, by their Leases, and the versions of these.
    living: BTreeMap<Member, Version>,
    /// Members that are said to be dead although their Leases do not show it yet.
    dead: BTreeMap<Member, Death>,
    plan: Plan,
    cues: Vec<mpsc::Sender<Cue>>,
    metrics: Metrics,
    /// Where the members are shown.
    board: Option<Board>,
}

/// A death that was heard of. Whoever writes its Lease once since may have done so before; twice, and it lives.
#[derive(Debug)]
struct Death {
    /// Of its Lease, when last looked at.
    version: Version,
    /// It has written since, once.
    straggled: bool,
}

impl Death {
    /// Whether that may still be true, now that its Lease has this version.
    fn holds(&mut self, version: Version) -> bool {
        let wrote = version > self.version;
        let holds = !(wrote && self.straggled);
        (self.version, self.straggled) = (version.max(self.version), self.straggled || wrote);
        holds
    }
}

impl Fleet {
    /// Of a replica that takes part in all these shards, and where the cues for each of their elections come from.
    pub fn new(me: &str, shards: Shards, metrics: Metrics) -> (Self, Vec<mpsc::Receiver<Cue>>) {
        let (cues, received) = shards.all().map(|_| mpsc::channel(CUES_MAX)).unzip();
        let shards = shards.all().map(|_| Seen::default()).collect();
        // Alone until others are seen: where there are no members (one shard), it is always its turn.
        let (living, dead) = (BTreeMap::from([(me.into(), Version::default())]), BTreeMap::new());
        let (me, led, plan) = (me.into(), BTreeSet::new(), Plan::default());
        let mut inner = Inner { me, shards, led, living, dead, plan, cues, metrics, board: None };
        inner.plan = inner.planned();
        (Self(Arc::new(Mutex::new(inner))), received)
    }

    /// Shows the members on this board from now on.
    pub fn shown_on(&self, board: Board) {
        let mut inner = self.inner();
        inner.board = Some(board);
        inner.replan();
    }

    /// A shard is held by this replica now, or by nobody.
    pub fn holder(&self, shard: ShardId, holder: Option<&str>) {
        let mut inner = self.inner();
        let seen = &mut inner.shards[index(shard)];
        if seen.holder.as_deref() != holder {
            let before = std::mem::replace(&mut seen.holder, holder.map(Member::from));
            seen.last = before.or_else(|| seen.last.take());
            inner.replan();
        }
    }

    /// This replica leads the shard from now on.
    pub fn leads(&self, shard: ShardId) {
        let mut inner = self.inner();
        inner.led.insert(shard);
        inner.replan();
    }

    /// It leads it no more, whatever the Lease still says. `let_go`: another is to have it.
    pub fn ended(&self, shard: ShardId, let_go: bool) {
        let mut inner = self.inner();
        inner.led.remove(&shard);
        if let_go {
            inner.shards[index(shard)].last = Some(inner.me.clone());
        }
        inner.replan();
    }

    /// Whether this replica is to give the shard away.
    pub fn is_to_give(&self, shard: ShardId) -> bool {
        let inner = self.inner();
        inner.plan.gift.as_ref().is_some_and(|(giver, given)| *giver == inner.me && *given == shard)
    }

    /// These live, by their Leases, which have these versions. Whoever is not among them any more need not be remembered
    /// as dead.
    pub fn members(&self, living: BTreeMap<Member, Version>) {
        let mut inner = self.inner();
        inner.dead.retain(|dead, death| living.get(dead).is_some_and(|version| death.holds(*version)));
        if !inner.living.keys().eq(living.keys()) {
            let members: Vec<&Member> = living.keys().collect();
            tracing::info!(?members, "members of the fleet");
        }
        inner.living = living;
        inner.replan();
    }

    /// This one is dead: its Leases will show it later.
    pub fn dead(&self, member: &str) {
        let mut inner = self.inner();
        if !inner.dead.contains_key(member) {
            let version = inner.living.get(member).copied().unwrap_or_default();
            inner.dead.insert(member.into(), Death { version, straggled: false });
            inner.replan();
        }
    }

    /// Whether this one is said to be dead, and has not shown otherwise.
    pub fn is_dead(&self, member: &str) -> bool {
        self.inner().dead.contains_key(member)
    }

    /// Whether this replica takes the shard if nobody leads it.
    pub fn is_next(&self, shard: ShardId) -> bool {
        let inner = self.inner();
        // Where its holder counts as living, the Lease says otherwise (it was silent for too long): anybody may.
        inner.plan.heirs.get(&shard).is_none_or(|heir| *heir == inner.me)
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    fn live(&self) -> BTreeSet<Member> {
        self.living.keys().filter(|member| !self.dead.contains_key(*member)).cloned().collect()
    }

    /// By what is seen; a Lease that still names us where our tenure is over says nothing.
    fn planned(&self) -> Plan {
        let leads = |(shard, seen): (usize, &Seen)| match &seen.holder {
            Some(holder) if *holder == self.me && !self.led.iter().any(|led| index(*led) == shard) => {
                Seen { holder: None, last: seen.last.clone() }
            }
            _ => seen.clone(),
        };
        plan(&self.live(), &self.shards.iter().enumerate().map(leads).collect::<Vec<_>>())
    }

    fn replan(&mut self) {
        let new = self.planned();
        if new != self.plan {
            tracing::debug!(heirs = ?new.heirs, gift = ?new.gift, "who is to lead which shard");
        }
        let old = std::mem::replace(&mut self.plan, new);
        let cue = |shard: ShardId, cue| {
            if let Err(error) = self.cues[index(shard)].try_send(cue) {
                // Full: one that waits says as much. Closed: the election is over.
                tracing::debug!(%shard, %error, "the election does not take a cue now");
            }
        };
        for (shard, heir) in &self.plan.heirs {
            if *heir == self.me && old.heirs.get(shard) != Some(heir) {
                cue(*shard, Cue::Look);
            }
        }
        if let Some((giver, shard)) = &self.plan.gift
            && *giver == self.me
        {
            cue(*shard, Cue::Give);
        }
        let live = self.live();
        self.metrics.set_members(live.len());
        if let Some(board) = &self.board {
            board.update(|shown| shown.fleet = live.iter().map(|member| member.to_string()).collect());
        }
        self.metrics.set_shards_held(self.led.len());
    }
}

fn index(shard: ShardId) -> usize {
    usize::try_from(shard.0).expect("usize has at least 32 bits on all targets that tokio runs on")
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use std::num::NonZeroU32;

    use super::*;
    use crate::lifecycle::rules::ShardBy;

    fn fleet(count: u32) -> (Fleet, Vec<mpsc::Receiver<Cue>>) {
        let shards = Shards { count: NonZeroU32::new(count).unwrap(), by: ShardBy::Uid };
        Fleet::new("b", shards, Metrics::default())
    }

    fn cues(received: &mut [mpsc::Receiver<Cue>]) -> Vec<Option<Cue>> {
        let cues = received.iter_mut().map(|cues| {
            let last = cues.try_recv().ok();
            std::iter::from_fn(|| cues.try_recv().ok()).last().or(last)
        });
        cues.collect()
    }

    /// With Leases of this version.
    fn members(names: &[&str], version: u64) -> BTreeMap<Member, Version> {
        names.iter().map(|name| (Member::from(*name), Version(version))).collect()
    }

    fn lead(fleet: &Fleet, shard: u32) {
        fleet.leads(ShardId(shard));
        fleet.holder(ShardId(shard), Some("b"));
    }

    #[test]
    fn nothing_is_given_away_while_a_shard_of_ours_is_without_us_although_its_lease_still_names_us() {
        let (fleet, mut received) = fleet(3);
        fleet.members(members(&["a", "b"], 7));
        (0..3).for_each(|shard| lead(&fleet, shard));
        cues(&mut received);
        fleet.ended(ShardId(0), false);
        assert!(!fleet.is_to_give(ShardId(2)), "the API server did not answer in time: first somebody leads it again");
        assert_eq!(cues(&mut received)[2], None);
        fleet.leads(ShardId(0));
        assert!(fleet.is_to_give(ShardId(2)));
    }

    #[test]
    fn one_shard_is_always_the_turn_of_whoever_sees_it_free() {
        let (fleet, mut received) = fleet(1);
        assert!(fleet.is_next(ShardId(0)));
        fleet.holder(ShardId(0), Some("a"));
        fleet.holder(ShardId(0), None);
        assert!(fleet.is_next(ShardId(0)));
        fleet.holder(ShardId(0), Some("b"));
        fleet.holder(ShardId(0), None);
        assert!(fleet.is_next(ShardId(0)), "also after we let it go: we know of nobody else");
        assert!(!cues(&mut received).contains(&Some(Cue::Give)));
    }

    #[test]
    fn the_shards_of_a_dead_leader_are_taken_by_the_living_at_once_each_by_one() {
        let (fleet, mut received) = fleet(4);
        fleet.members(members(&["a", "b", "c"], 7));
        for (shard, holder) in [(0, "a"), (1, "a"), (3, "c")] {
            fleet.holder(ShardId(shard), Some(holder));
        }
        lead(&fleet, 2);
        cues(&mut received);
        fleet.dead("a");
        assert_eq!(cues(&mut received), [Some(Cue::Look), None, None, None], "the other one is c's");
        assert!(fleet.is_next(ShardId(0)) && !fleet.is_next(ShardId(1)));
        fleet.members(members(&["a", "b", "c"], 7));
        assert!(fleet.is_next(ShardId(0)), "its Lease is not out of date yet: it is dead all the same");
    }

    #[test]
    fn what_is_too_much_is_given_away_one_at_a_time() {
        let (fleet, mut received) = fleet(3);
        (0..3).for_each(|shard| lead(&fleet, shard));
        cues(&mut received);
        fleet.members(members(&["a", "b"], 7));
        assert_eq!(cues(&mut received), [None, None, Some(Cue::Give)]);
        assert!(fleet.is_to_give(ShardId(2)) && !fleet.is_to_give(ShardId(1)));
        fleet.ended(ShardId(2), true);
        assert!(!fleet.is_to_give(ShardId(1)) && !fleet.is_next(ShardId(2)), "one at a time, and not back to us");
        fleet.holder(ShardId(2), None);
        assert!(!fleet.is_next(ShardId(2)), "it is the other's");
        assert_eq!(cues(&mut received), [None, None, None]);
        fleet.holder(ShardId(2), Some("a"));
        assert_eq!(cues(&mut received), [None, None, None], "2 and 1 is even");
    }

    #[test]
    fn who_writes_its_lease_twice_after_its_death_lives() {
        let (fleet, mut received) = fleet(2);
        fleet.members(members(&["a", "b"], 7));
        lead(&fleet, 0);
        fleet.dead("a");
        fleet.holder(ShardId(1), None);
        assert!(fleet.is_next(ShardId(1)), "who else");
        lead(&fleet, 1);
        fleet.members(members(&["a", "b"], 8));
        fleet.members(members(&["a", "b"], 8));
        assert!(fleet.is_dead("a"), "that write may have been on its way");
        cues(&mut received);
        fleet.members(members(&["a", "b"], 9));
        assert!(!fleet.is_dead("a"));
        assert_eq!(cues(&mut received), [None, Some(Cue::Give)], "it gets its share again");
    }
}
