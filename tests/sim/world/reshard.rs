//! `pod-monitor reshard` in this world: its steps in earnest, over simulated brokers and Leases.
//!
//! Its transactions span partitions, and it can die at any moment: what it had written stays undecided until the next one
//! begins, or until it has been open for too long.

use std::{sync::Arc, time::Duration};

use jiff::Timestamp;
use pod_monitor::{
    leadership::tenure::ShardId,
    publish::{
        changelog::{self, Barrier},
        generation::Inherited,
        identity::Identity,
    },
    reshard::{
        Books,
        held::Held,
        plan::{Switch, Wish, Write},
    },
};
use serde_json::json;
use tokio::{sync::oneshot, time::Instant};

use super::{
    Generation, World, after,
    api::merge,
    broker::{Item, TRANSACTION_TIMEOUT},
    etcd::{SHARD_LEASES, Which},
    lock,
    replica::identity,
};
use crate::plants::Plant;

/// `--changelog-topic`
const BASE: &str = "pod-monitor.changelog";
/// How long a barrier may take to become visible, and how often a shard is fenced until its barrier stands there.
const VISIBLE_MAX: Duration = Duration::from_secs(10);
const SEALS_MAX: u32 = 5;
/// Until it gives up waiting for a Lease.
const TAKE_MAX: Duration = Duration::from_secs(30);

/// The coordinator's view of its transactional id.
#[derive(Default)]
pub struct Producer {
    epoch: u64,
    begun: Option<Instant>,
}

/// Why it cannot go on; begun anew it may.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Stuck {
    #[error("shard {0} is led")]
    Led(u32),
    #[error("something was written to shard {0} after it was fenced")]
    Disturbed(u32),
    #[error("shard {0} cannot be fenced")]
    Unfenced(u32),
    #[error("the transaction came to nothing")]
    Aborted,
}

/// One run's books.
pub struct SimBooks {
    world: Arc<World>,
    who: String,
    old: Generation,
    new: Generation,
    epoch: u64,
    barriers: Vec<Barrier>,
    /// What producers of its own had put into each old shard when its barrier stood there.
    sealed: Vec<u64>,
}

type Entry = (u32, ShardId, Vec<Item>);

impl SimBooks {
    pub fn new(world: &Arc<World>, who: &str, new: Generation) -> Self {
        let (world, old) = (Arc::clone(world), world.generation());
        Self { world, who: who.into(), old, new, epoch: 0, barriers: Vec::new(), sealed: Vec::new() }
    }

    pub fn wish(&self) -> Wish {
        let (ours, count) = (identity(self.old), self.new.shards);
        Wish { ours, base: BASE.into(), count, by: None, from: None, holder: self.who.clone() }
    }

    async fn step(&self) {
        after(self.world.draw(|random| random.ms(0, 5))).await;
    }

    /// `init_transactions`: what an earlier run left open is aborted.
    async fn open(&mut self) {
        self.step().await;
        let mut producer = lock(&self.world.resharder);
        *producer = Producer { epoch: producer.epoch + 1, begun: None };
        self.epoch = producer.epoch;
        for generation in [self.old, self.new] {
            generation.all().for_each(|shard| self.world.broker(generation.number, shard).abort_foreign());
        }
    }

    /// Writes, asks `check`, and commits. The end of it arrives although we may be dead by then.
    async fn transact(&self, entries: Vec<Entry>, check: impl Fn() -> Result<(), Stuck>) -> Result<(), Stuck> {
        let begun = Instant::now();
        lock(&self.world.resharder).begun = Some(begun);
        for (generation, shard, items) in entries {
            self.step().await;
            self.world.broker(generation, shard).enter(items, begun);
        }
        self.step().await;
        check()?;
        let (answer, answered) = oneshot::channel();
        let (world, epoch, generations) = (Arc::clone(&self.world), self.epoch, [self.old, self.new]);
        let late = world.draw(|random| if random.percent(5) { random.ms(20, 3000) } else { random.ms(0, 5) });
        self.world.spawn(async move {
            after(late).await;
            let committed = commit(&world, epoch, generations);
            world.note("broker", format_args!("reshard, epoch {epoch}: committed {committed}"));
            // Whoever asked may be dead.
            answer.send(committed).unwrap_or_default();
        });
        match answered.await {
            Ok(true) => Ok(()),
            _ => Err(Stuck::Aborted),
        }
    }

    async fn seal(&self, shard: ShardId) -> Result<(Barrier, u64), Stuck> {
        for _ in 0..SEALS_MAX {
            self.step().await;
            let fenced = self.world.broker(self.old.number, shard).fence();
            let Ok(epoch) = fenced else { continue };
            self.step().await;
            let barrier = Barrier { nonce: format!("{}#{epoch}", self.who), holder: self.who.clone() };
            let record = Item::meta(changelog::BARRIER, &barrier);
            let marker = self.world.draw(|random| random.ms(0, 6));
            let mut broker = self.world.broker(self.old.number, shard);
            let written = broker.produce(epoch, 1, vec![record]).and_then(|()| broker.end(epoch, true, marker));
            if written.is_ok() {
                return Ok((barrier, broker.written()));
            }
        }
        Err(Stuck::Unfenced(shard.0))
    }

    /// As `Extent::of` waits for the last stable offset: what stands there now is decided and visible.
    async fn settled(&self, of: Generation) {
        self.step().await;
        while !of.all().all(|shard| self.world.broker(of.number, shard).is_settled()) {
            after(Duration::from_millis(5)).await;
        }
    }

    /// What a shard holds, as anybody reads it.
    fn held(&self, generation: u32, shard: ShardId) -> Held {
        let mut held = Held::default();
        let mut broker = self.world.broker(generation, shard);
        let records = broker.visible().filter_map(|item| match item {
            Item::Record(key, value) => Some((key, value)),
            Item::Event(_) => None,
        });
        for (offset, (key, value)) in (0..).zip(records) {
            held.take(offset, Some(key.as_bytes()), value.as_ref().map(String::as_bytes));
        }
        held
    }

    /// Takes a Lease that nobody holds, or whose holder has not renewed it for as long as it lasts.
    async fn take_one(&self, shard: u32) -> Result<(), Stuck> {
        let (name, began) = (format!("{SHARD_LEASES}{shard}"), Instant::now());
        let lasts = Duration::from_secs(self.world.setting.lease_seconds) + Duration::from_millis(50);
        let mut seen: Option<(String, Instant)> = None;
        while began.elapsed() < TAKE_MAX {
            {
                let mut etcd = self.world.etcd();
                let known = etcd.leases.objects.get(&name).map(|lease| (*lease.value).clone());
                let holder =
                    known.as_ref().and_then(|lease| lease["spec"]["holderIdentity"].as_str()).unwrap_or_default();
                let text = known.as_ref().map(ToString::to_string).unwrap_or_default();
                let free = holder.is_empty()
                    || seen.as_ref().is_some_and(|(as_of, since)| *as_of == text && since.elapsed() > lasts);
                if free || holder == self.who {
                    let mut lease = known.unwrap_or_else(|| unheld(&name));
                    merge(&mut lease, &held_by(&self.who, self.world.now()));
                    etcd.put(Which::Leases, &name, lease);
                    return Ok(());
                }
                if seen.as_ref().is_none_or(|(as_of, _)| *as_of != text) {
                    seen = Some((text, Instant::now()));
                }
            }
            after(Duration::from_millis(100)).await;
        }
        Err(Stuck::Led(shard))
    }
}

fn unheld(name: &str) -> serde_json::Value {
    json!({ "apiVersion": "coordination.k8s.io/v1", "kind": "Lease",
        "metadata": { "name": name, "namespace": "monitor" }, "spec": {} })
}

fn held_by(who: &str, now: Timestamp) -> serde_json::Value {
    json!({ "spec": { "holderIdentity": who, "renewTime": format!("{now:.6}") } })
}

/// Keeps the Leases that `who` holds, for as long as it is polled.
pub async fn renew(world: &World, who: &str) {
    loop {
        after(world.setting.retry_period).await;
        change_leases(world, who, &held_by(who, world.now()));
    }
}

/// Lets them go.
pub fn release(world: &World, who: &str) {
    change_leases(world, who, &json!({ "spec": { "holderIdentity": "" } }));
}

fn change_leases(world: &World, who: &str, change: &serde_json::Value) {
    let mut etcd = world.etcd();
    let ours: Vec<(Arc<str>, serde_json::Value)> = {
        let leases = etcd.leases.objects.values().filter(|lease| lease.value["spec"]["holderIdentity"] == who);
        leases.map(|lease| (lease.name.clone(), (*lease.value).clone())).collect()
    };
    for (name, mut lease) in ours {
        merge(&mut lease, change);
        etcd.put(Which::Leases, &name, lease);
    }
}

/// The coordinator decides: in all partitions alike.
fn commit(world: &World, epoch: u64, generations: [Generation; 2]) -> bool {
    let mut producer = lock(&world.resharder);
    let begun = producer.begun.filter(|begun| begun.elapsed() < TRANSACTION_TIMEOUT);
    let commits = producer.epoch == epoch && begun.is_some();
    if commits {
        producer.begun = None;
        for generation in generations {
            for shard in generation.all() {
                let marker = world.draw(|random| random.ms(0, 6));
                world.broker(generation.number, shard).commit_foreign(marker);
            }
        }
    }
    commits
}

impl Books for SimBooks {
    type Error = Stuck;

    async fn read_old(&mut self) -> Result<Vec<Held>, Stuck> {
        let began = Instant::now();
        loop {
            self.settled(self.old).await;
            let old: Vec<Held> = self.old.all().map(|shard| self.held(self.old.number, shard)).collect();
            let stands = |(held, ours): (&Held, &Barrier)| {
                held.barrier.as_ref().is_some_and(|(found, at)| found == ours && held.last == Some(*at))
            };
            match old.iter().zip(&self.barriers).position(|sealed| !stands(sealed)) {
                None => return Ok(old),
                Some(shard) if began.elapsed() > VISIBLE_MAX => return Err(Stuck::Disturbed(shard as u32)),
                Some(_) => after(Duration::from_millis(20)).await,
            }
        }
    }

    async fn read_new(&mut self) -> Result<Vec<Held>, Stuck> {
        self.settled(self.new).await;
        Ok(self.new.all().map(|shard| self.held(self.new.number, shard)).collect())
    }

    async fn prepare(&mut self, _: &Identity, _: &Identity) -> Result<(), Stuck> {
        self.step().await;
        Ok(())
    }

    async fn take(&mut self, shards: u32) -> Result<(), Stuck> {
        for shard in 0..shards {
            self.take_one(shard).await?;
        }
        Ok(())
    }

    async fn fence(&mut self) -> Result<(), Stuck> {
        self.open().await;
        self.barriers.clear();
        self.sealed.clear();
        if self.world.planted(Plant::UnfencedReshard) {
            return Ok(());
        }
        for shard in self.old.all() {
            let (barrier, written) = self.seal(shard).await?;
            self.barriers.push(barrier);
            self.sealed.push(written);
        }
        Ok(())
    }

    fn go_on(&mut self) -> Result<(), Stuck> {
        Ok(())
    }

    async fn write(&mut self, writes: &[Write<'_>]) -> Result<(), Stuck> {
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).expect("JSON is UTF-8");
        let item = |write: &Write<'_>| Item::Record(write.key.into(), write.value.map(text));
        let entries = writes.iter().map(|write| (self.new.number, write.shard, vec![item(write)])).collect();
        self.transact(entries, || Ok(())).await
    }

    async fn switch(&mut self, switch: &Switch) -> Result<(), Stuck> {
        let Switch { identity, position, inherited, moved } = switch;
        let inherited: Option<&Inherited> =
            inherited.as_ref().filter(|_| !self.world.planted(Plant::ForgottenHeritage));
        let old = self.old.all().map(|shard| (self.old.number, shard, vec![Item::meta(changelog::MOVED, moved)]));
        let new = self.new.all().map(|shard| {
            let items = [Item::meta(changelog::IDENTITY, identity), Item::meta(changelog::POSITION, position)];
            let inherited = inherited.map(|inherited| Item::meta(changelog::INHERITED, inherited));
            (self.new.number, shard, items.into_iter().chain(inherited).collect())
        });
        let undisturbed = || {
            let mut sealed = self.old.all().zip(&self.sealed);
            let other = sealed.find(|(shard, sealed)| self.world.broker(self.old.number, *shard).written() != **sealed);
            other.map_or(Ok(()), |(shard, _)| Err(Stuck::Disturbed(shard.0)))
        };
        self.transact(old.chain(new).collect(), undisturbed).await
    }
}
