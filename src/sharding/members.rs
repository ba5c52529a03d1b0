//! Which replicas live: each holds one of a few member Leases, and watches them all.
//!
//! ```text
//!   Leases <lease-name>-member-0 .. 15 ──LIST, WATCH by label──▶ who changed its Lease lately ──▶ Fleet
//!            ▲                                                  └─▶ a connection to each: death notices ──▶ Fleet
//!            └── take a free one, renew, release
//! ```
//! Fixed names, so that a role can name them and replicas that are gone leave nothing behind. A replica that could not
//! lead (it does not reach Kafka) lets its own go: nobody counts on it then. Where there is one shard, there are no members.

use std::{
    collections::BTreeMap,
    hash::{BuildHasher as _, BuildHasherDefault, DefaultHasher},
    sync::Arc,
    time::Duration,
};

use tokio::{
    sync::mpsc,
    task::{AbortHandle, JoinSet},
    time::{Instant, MissedTickBehavior, interval, sleep_until},
};
use tokio_util::sync::CancellationToken;

use super::{assignment::Member, fleet::Fleet};
use crate::{
    cli::chain,
    http::health::Component,
    leadership::{
        election::{Answer, Times},
        elector::Attend,
        lease::Leases,
        peers::Reach,
        record::{Record, Version},
        roll::{Roll, Sighting},
    },
};

/// Member Leases of one installation: more replicas than that stand by without being counted on.
pub const MEMBERS_MAX: u32 = 16;
/// Sightings that may wait.
const WAITING_MAX: usize = 64;

/// What taking part needs.
pub struct Members {
    /// All member Leases at the API server.
    pub roll: Roll,
    /// Identity of this replica.
    pub me: Member,
    /// As for the Leases of shards.
    pub times: Times,
    /// Who is told.
    pub fleet: Fleet,
    /// How others are attended.
    pub attend: Attend,
    /// How many shards this replica could lead.
    pub able: Arc<dyn Fn() -> Reach + Send + Sync>,
    /// Health of the Leases.
    pub health: Component,
}

/// A member Lease as it was seen.
struct Slot {
    record: Record,
    /// Since when it has not changed.
    since: Instant,
    /// It has changed since it was first listed: whoever died long ago has left one that is held, too.
    lives: bool,
}

/// The Lease that is ours.
struct Own {
    slot: u32,
    leases: Leases,
    version: Version,
}

struct Part {
    members: Members,
    slots: BTreeMap<u32, Slot>,
    own: Option<Own>,
    attended: BTreeMap<Member, AbortHandle>,
    notices: JoinSet<Member>,
    /// Since when this replica could not lead, or not all shards.
    unable_since: Option<Instant>,
    /// Tries to take one that another was faster with, or that we cannot see.
    conflicts: u32,
    /// It was said that there is no free Lease.
    told_full: bool,
}

impl Members {
    /// Takes part until `stop`, and lets the own Lease go then. `joined` is cancelled once it is known who else lives, and
    /// the others know of us, or never will.
    pub async fn run(self, stop: CancellationToken, joined: CancellationToken) {
        let (seen_in, mut seen) = mpsc::channel(WAITING_MAX);
        let mut watching = JoinSet::new();
        let (roll, health) = (self.roll.clone(), self.health.clone());
        watching.spawn(async move { roll.watch(seen_in, |error| health.not_yet(chain(&error))).await });
        let mut renewals = interval(self.times.retry_period);
        renewals.set_missed_tick_behavior(MissedTickBehavior::Delay);
        // In that time each member that lives writes its Lease.
        let look = self.times.retry_period * 3 / 2;
        let (mut part, mut known_at) = (Part::of(self), None);
        loop {
            let (stale_at, listed) = (part.stale_at(), known_at.is_some());
            let known = known_at.is_some_and(|at| at <= Instant::now());
            tokio::select! {
                biased;
                () = stop.cancelled() => break,
                Some(sighting) = seen.recv() => {
                    let first = !listed && matches!(sighting, Sighting::All(_));
                    part.saw(sighting, first);
                    part.members.health.ok();
                    if first {
                        known_at = Some(Instant::now() + look);
                    }
                }
                // Not before: others count on a member from its first moment on.
                _ = renewals.tick(), if known => part.keep().await,
                Some(Ok(dead)) = part.notices.join_next() => {
                    part.attended.remove(&dead);
                    part.members.fleet.dead(&dead);
                }
                () = sleep_until(stale_at.unwrap_or_else(Instant::now)), if stale_at.is_some() => {}
                () = sleep_until(known_at.unwrap_or_else(Instant::now)), if listed && !known => renewals.reset_immediately(),
            }
            if known_at.is_some() {
                part.tell();
            }
            if part.own.is_some() || part.told_full {
                joined.cancel();
            }
        }
        part.leave().await;
    }
}

impl Part {
    fn of(members: Members) -> Self {
        let (slots, attended) = (BTreeMap::new(), BTreeMap::new());
        let notices = JoinSet::new();
        Self { members, slots, own: None, attended, notices, unable_since: None, conflicts: 0, told_full: false }
    }

    /// A member that did not change its Lease for so long is not counted on. Sooner than a shard of it may be taken: by
    /// then it is planned who takes it.
    fn fresh(&self) -> Duration {
        let Times { lease_duration, renew_deadline, .. } = self.members.times;
        (lease_duration + renew_deadline) / 2
    }

    /// When the next member is not counted on any more.
    fn stale_at(&self) -> Option<Instant> {
        let (fresh, now) = (self.fresh(), Instant::now());
        let held = self.slots.values().filter(|slot| !slot.record.holder.is_empty());
        held.map(|slot| slot.since + fresh).filter(|at| *at > now).min()
    }

    /// `first`: nothing was seen before.
    fn saw(&mut self, sighting: Sighting, first: bool) {
        match sighting {
            Sighting::All(mut records) => {
                let name = |slot| self.members.roll.name(slot);
                let records: Vec<_> =
                    (0..MEMBERS_MAX).map(|slot| (slot, records.remove(name(slot).as_str()))).collect();
                records.into_iter().for_each(|(slot, record)| self.saw_one(slot, record, !first));
            }
            Sighting::One(name, record) => {
                if let Some(slot) = (0..MEMBERS_MAX).find(|slot| self.members.roll.name(*slot) == *name) {
                    self.saw_one(slot, record, true);
                }
            }
        }
    }

    /// `changed`: it is news, and not only to us.
    fn saw_one(&mut self, slot: u32, record: Option<Record>, changed: bool) {
        if let Some(own) = self.own.as_mut().filter(|own| own.slot == slot) {
            match &record {
                Some(record) if record.version <= own.version => {}
                // The answer to a renewal never came, or somebody wrote a note on it.
                Some(record) if record.holder == self.members.me => own.version = record.version,
                // Somebody took it for free, or deleted it: another is taken at the next renewal.
                Some(_) | None => self.own = None,
            }
        }
        let Some(record) = record else {
            self.slots.remove(&slot);
            return;
        };
        // The same one again, by a LIST, is no sign of life.
        if self.slots.get(&slot).is_none_or(|known| known.record.version < record.version) {
            self.slots.insert(slot, Slot { record, since: Instant::now(), lives: changed });
        }
    }

    /// Holds a Lease while this replica could lead, and none while it could not.
    async fn keep(&mut self) {
        if !self.is_able() {
            return self.leave().await;
        }
        let Some(own) = &mut self.own else { return self.take().await };
        match own.leases.renew(own.version).await {
            (Answer::Ours(version), _) => own.version = version,
            (Answer::Conflict, _) => self.own = None,
            (Answer::Failed, error) => self.trouble(error),
        }
    }

    /// A member stays one for a while although it could not lead: a changelog that is read anew, after a shard was given
    /// away, is no reason to go. Who is none yet waits as long for the last of the shards: others count on it for each.
    fn is_able(&mut self) -> bool {
        let reach = (self.members.able)();
        if reach == Reach::All {
            self.unable_since = None;
            return true;
        }
        let waited = self.unable_since.get_or_insert_with(Instant::now).elapsed() >= self.members.times.lease_duration;
        if reach == Reach::Most { self.own.is_some() || waited } else { self.own.is_some() && !waited }
    }

    /// Takes a free one: not the first, so that replicas that start together seldom want the same.
    async fn take(&mut self) {
        let me = &self.members.me;
        let hash = BuildHasherDefault::<DefaultHasher>::default().hash_one(me);
        let first = u32::try_from(hash % u64::from(MEMBERS_MAX)).unwrap_or_default().wrapping_add(self.conflicts);
        let Some(slot) = choose(&self.slots, me, first, self.members.times.lease_duration) else {
            if !std::mem::replace(&mut self.told_full, true) {
                tracing::warn!(max = MEMBERS_MAX, "every member Lease is held: this replica stands by, not counted on");
            }
            return;
        };
        let leases = self.members.roll.lease(slot);
        let seen = self.slots.get(&slot).map(|slot| slot.record.clone());
        match leases.take(seen.as_ref()).await {
            (Answer::Ours(version), _) => {
                tracing::info!(lease = self.members.roll.name(slot), "member of the fleet");
                self.own = Some(Own { slot, leases, version });
            }
            // Another was faster, or it has lost its label and no watch shows it: the next tick tries another.
            (Answer::Conflict, _) => self.conflicts = self.conflicts.wrapping_add(1),
            (Answer::Failed, error) => self.trouble(error),
        }
    }

    async fn leave(&mut self) {
        let Some(own) = self.own.take() else { return };
        if let (Answer::Failed, error) = own.leases.release(own.version).await {
            self.trouble(error);
        }
    }

    fn trouble(&self, error: Option<crate::leadership::lease::Error>) {
        error.iter().for_each(|error| self.members.health.not_yet(chain(error)));
    }

    /// Who lives: those who changed their Leases lately, and we, if we hold one.
    fn tell(&mut self) {
        let fresh = self.fresh();
        let me = &self.members.me;
        let lives = |slot: &&Slot| slot.lives && !slot.record.holder.is_empty() && slot.since.elapsed() < fresh;
        let others = self.slots.values().filter(lives).filter(|slot| slot.record.holder != *me);
        let mut living: BTreeMap<Member, Version> = BTreeMap::new();
        for Slot { record, .. } in others {
            let version = living.entry(record.holder.clone()).or_default();
            *version = record.version.max(*version);
            // Not again where it is dead already: whoever answers at its address now says so at once.
            let known = self.attended.contains_key(&record.holder) || self.members.fleet.is_dead(&record.holder);
            let Some(address) = record.address.clone().filter(|_| !known) else { continue };
            let (holder, dead) = (record.holder.clone(), (self.members.attend)(address, record.holder.clone()));
            let notice = self.notices.spawn(async move {
                dead.await;
                holder
            });
            self.attended.insert(record.holder.clone(), notice);
        }
        self.attended.retain(|member, notice| {
            let lives = living.contains_key(member);
            if !lives {
                notice.abort();
            }
            lives
        });
        living.extend(self.own.iter().map(|own| (me.clone(), own.version)));
        self.members.fleet.members(living);
    }
}

/// The Lease to take: one that is ours already although nobody told us, else the first free one from `first` on.
fn choose(slots: &BTreeMap<u32, Slot>, me: &str, first: u32, silence: Duration) -> Option<u32> {
    let free = |slot: &u32| match slots.get(slot) {
        Some(Slot { record, since, .. }) => record.holder.is_empty() || since.elapsed() >= silence,
        None => true,
    };
    let ours = slots.iter().find(|(_, slot)| *slot.record.holder == *me).map(|(slot, _)| *slot);
    ours.or_else(|| (0..MEMBERS_MAX).map(|n| first.wrapping_add(n) % MEMBERS_MAX).find(free))
}

#[cfg(test)]
mod tests {
    use std::{
        num::NonZeroU32,
        task::{Context, Poll},
    };

    use kube::client::Body;
    use tower::Service;

    use super::*;
    use crate::{
        http::Health, leadership::tenure::ShardId, lifecycle::rules::ShardBy, sharding::ranges::Shards,
        telemetry::Metrics,
    };

    /// An API server that is away.
    #[derive(Clone)]
    struct Away;

    impl Service<http::Request<Body>> for Away {
        type Response = http::Response<Body>;
        type Error = std::io::Error;
        type Future = std::future::Ready<Result<Self::Response, Self::Error>>;

        fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
            Poll::Ready(Ok(()))
        }

        fn call(&mut self, _: http::Request<Body>) -> Self::Future {
            std::future::ready(Err(std::io::Error::other("away")))
        }
    }

    /// One that takes part in two shards.
    fn part() -> Part {
        let seconds = Duration::from_secs;
        let times = Times { lease_duration: seconds(15), renew_deadline: seconds(10), retry_period: seconds(2) };
        let client = kube::Client::new(Away, "ns");
        let shards = Shards { count: NonZeroU32::new(2).expect("it is not 0"), by: ShardBy::Uid };
        Part::of(Members {
            roll: Roll::new(client, "ns", "runs", "us", None, times),
            me: "us".into(),
            times,
            fleet: Fleet::new("us", shards, Metrics::default()).0,
            attend: Arc::new(|_, _| Box::pin(std::future::pending())),
            able: Arc::new(|| Reach::All),
            health: Health::default().component("members"),
        })
    }

    #[tokio::test(start_paused = true)]
    async fn who_died_long_ago_takes_no_turn_and_who_writes_its_lease_does() {
        let mut part = part();
        let name: Box<str> = part.members.roll.name(5).into();
        part.saw(Sighting::All(BTreeMap::from([(name.clone(), slot("other").record)])), true);
        part.tell();
        assert!(part.members.fleet.is_next(ShardId(0)), "its Lease is held, and nobody writes it");
        let newer = Record { version: Version(2), ..slot("other").record };
        part.saw(Sighting::One(name, Some(newer)), false);
        part.tell();
        assert!(!part.members.fleet.is_next(ShardId(0)), "it lives, and is the first by name");
    }

    fn slot(holder: &str) -> Slot {
        let (version, lease_duration) = (Version(1), Duration::from_secs(15));
        let record = Record { version, holder: holder.into(), lease_duration, transitions: 0, address: None };
        Slot { record, since: Instant::now(), lives: true }
    }

    #[tokio::test(start_paused = true)]
    async fn a_lease_that_is_ours_already_comes_before_a_free_one() {
        let mut slots: BTreeMap<u32, Slot> = (0..MEMBERS_MAX).map(|n| (n, slot("other"))).collect();
        let silence = Duration::from_secs(15);
        assert_eq!(choose(&slots, "me", 14, silence), None);
        slots.insert(3, slot(""));
        slots.remove(&1);
        assert_eq!(choose(&slots, "me", 14, silence), Some(1), "the first after 14, beginning anew after 15");
        assert_eq!(choose(&slots, "me", 2, silence), Some(3), "after a conflict the next one");
        slots.insert(7, slot("me"));
        assert_eq!(choose(&slots, "me", 14, silence), Some(7), "the answer never came");
        tokio::time::advance(silence).await;
        slots.insert(7, slot("other"));
        assert_eq!(choose(&slots, "me", 4, silence), Some(4), "silent for long enough");
    }
}
