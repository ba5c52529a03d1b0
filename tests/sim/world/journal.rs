//! `Journals` over the simulated broker: what the Kafka client does, step by step, each step through the network.
//!
//! A commit goes on beside its caller, as librdkafka's threads do: dropping the call does not stop it, death does.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use pod_monitor::{
    leadership::tenure::{ShardId, Tenure},
    ports::{Journal, Journals, Readiness},
    publish::{
        Batch, Position, changelog,
        error::{CommitError, OpenError},
        fence,
        generation::Inherited,
        identity::Identity,
        record::{self, Service},
        restore::{self, Restored},
    },
    watch::pod::PodUid,
};
use tokio::{
    sync::oneshot,
    time::{Instant, timeout},
};

use super::{
    World, after,
    broker::{Item, Refusal, TRANSACTION_TIMEOUT},
    lock,
    process::Process,
    wire::{To, Way, Wire},
};
use crate::plants::Plant;

/// `socket.timeout.ms`
const SOCKET_TIMEOUT: Duration = Duration::from_secs(3);
const FENCE_MAX: Duration = Duration::from_secs(20);
const RESTORE_MAX: Duration = Duration::from_secs(10);
/// Every third epoch sees secrets rotated after this time.
const ROTATED_AFTER: Duration = Duration::from_secs(7);
/// Until a changelog is read to its end once.
const CATCHING_UP: Duration = Duration::from_millis(50);
/// What the client waits before it asks again after "concurrent transactions".
const AGAIN: Duration = Duration::from_millis(20);

/// One process's clients.
pub struct Kafka {
    wire: Wire,
    identity: Identity,
    /// Since when.
    following: std::sync::Mutex<BTreeMap<ShardId, Instant>>,
}

/// Told through by one producer epoch.
pub struct Told {
    line: Line,
    tenure: Tenure,
    /// Written with the first commit where the changelog is new.
    identity: Option<Identity>,
    /// What was last told of how far we are, and what was inherited until that is of no use.
    position: Option<Position>,
    inherited: Option<Inherited>,
    spent: bool,
    opened: Instant,
}

/// One producer.
#[derive(Clone)]
struct Line {
    wire: Wire,
    generation: u32,
    shard: ShardId,
    epoch: u32,
    sequence: u64,
}

struct Verdict {
    result: Result<(), CommitError>,
    clean: bool,
    sequence: u64,
}

impl Kafka {
    pub fn new(world: Arc<World>, process: Arc<Process>, identity: Identity) -> Self {
        Self { wire: Wire { world, process, to: To::Kafka }, identity, following: std::sync::Mutex::default() }
    }

    /// `init_transactions`.
    async fn fence(&self, tenure: &Tenure) -> Result<Line, OpenError> {
        let shard = tenure.shard;
        let refused = |source| OpenError::Fence { shard, source };
        let (begun, generation) = (Instant::now(), self.identity.generation);
        loop {
            if tenure.is_over(Instant::now()) {
                return Err(refused(fence::Error::Ended { shard }));
            }
            let world = Arc::clone(&self.wire.world);
            let fenced = timeout(SOCKET_TIMEOUT, self.wire.call(move || world.broker(generation, shard).fence())).await;
            match fenced {
                Ok(Ok(Ok(epoch))) if !tenure.is_over(Instant::now()) => {
                    self.wire.world.note(&self.wire.process.identity, format_args!("{shard} fenced: epoch {epoch}"));
                    return Ok(Line { wire: self.wire.clone(), generation, shard, epoch, sequence: 0 });
                }
                _ if begun.elapsed() > FENCE_MAX => return Err(refused(fence::Error::Timeout(None))),
                _ => after(AGAIN).await,
            }
        }
    }

    async fn read(&self, shard: ShardId) -> Option<Vec<(String, String)>> {
        let (world, generation) = (Arc::clone(&self.wire.world), self.identity.generation);
        let read = move || -> Vec<(String, String)> {
            world.broker(generation, shard).read().iter().map(|(key, value)| (key.clone(), value.clone())).collect()
        };
        timeout(SOCKET_TIMEOUT, self.wire.call(read)).await.ok()?.ok()
    }

    /// Everything up to the barrier with this nonce; where there is none, what is there.
    async fn restore(&self, shard: ShardId, nonce: Option<&str>) -> Result<Restored, OpenError> {
        let begun = Instant::now();
        loop {
            let read = self.read(shard).await.unwrap_or_default();
            let barrier = read.iter().find(|(key, _)| key == changelog::BARRIER);
            if nonce.is_none_or(|nonce| barrier.is_some_and(|(_, value)| value.contains(nonce))) {
                return Ok(decoded(&read));
            }
            if begun.elapsed() > RESTORE_MAX {
                return Err(OpenError::Restore { shard, source: restore::Error::Timeout });
            }
            after(Duration::from_millis(2)).await;
        }
    }

    async fn take_over(&self, tenure: &Tenure) -> Result<(Told, Restored), OpenError> {
        let shard = tenure.shard;
        lock(&self.following).remove(&shard);
        let planted = self.wire.world.planted(Plant::FenceAfterRestore);
        let early = if planted { Some(self.restore(shard, None).await?) } else { None };
        let mut line = self.fence(tenure).await?;
        let process = &self.wire.process;
        let nonce = format!("{}#{}", process.identity, line.epoch);
        let barrier = changelog::Barrier { nonce: nonce.clone(), holder: process.identity.clone() };
        let verdict = line.transact(vec![vec![Item::meta(changelog::BARRIER, &barrier)]]).await;
        line.sequence = verdict.sequence;
        verdict.result.map_err(|source| OpenError::Barrier { shard, source })?;
        let restored = self.restore(shard, Some(&nonce)).await?;
        let restored = early.unwrap_or(restored);
        let suits = self.identity.may_use(restored.identity.as_ref(), restored.moved.as_ref());
        suits.map_err(|source| OpenError::Identity { shard, source })?;
        let identity = (restored.identity.as_ref() != Some(&self.identity)).then(|| self.identity.clone());
        let (position, inherited) = (restored.position.clone(), restored.inherited.clone());
        let (tenure, spent, opened) = (tenure.clone(), !verdict.clean, Instant::now());
        Ok((Told { line, tenure, identity, position, inherited, spent, opened }, restored))
    }
}

fn decoded(read: &[(String, String)]) -> Restored {
    let mut restored = Restored::default();
    for (key, value) in read {
        match changelog::decode(Some(key.as_bytes()), Some(value.as_bytes())) {
            changelog::Entry::Pod(uid, Some(tracked)) => drop(restored.told.insert(uid, (*tracked).into())),
            changelog::Entry::Identity(identity) => restored.identity = Some(identity),
            changelog::Entry::Position(position) => restored.position = Some(position),
            changelog::Entry::Moved(moved) => restored.moved = Some(moved),
            changelog::Entry::Inherited(inherited) => restored.inherited = inherited,
            changelog::Entry::Barrier(_) | changelog::Entry::Pod(_, None) => {}
            changelog::Entry::Unreadable(unreadable) => restored.unreadable.push(unreadable),
        }
    }
    restored
}

impl Journals for Kafka {
    type Journal = Told;

    fn stand_by(&self, shard: ShardId) -> Result<(), OpenError> {
        lock(&self.following).entry(shard).or_insert_with(Instant::now);
        Ok(())
    }

    fn readiness(&self, shard: ShardId) -> Result<Readiness, OpenError> {
        if !self.is_answered(shard) {
            return Ok(Readiness::NotYet("no producer is connected".into()));
        }
        let following = lock(&self.following).get(&shard).copied();
        let caught_up = following.is_some_and(|since| since.elapsed() > CATCHING_UP);
        let behind = || Readiness::NotYet("the changelog has not been read to its end".into());
        Ok(if caught_up { Readiness::Warm } else { behind() })
    }

    fn is_answered(&self, _: ShardId) -> bool {
        let link = self.wire.link();
        link.requests == Way::Open && link.answers == Way::Open
    }

    fn lag_records(&self, _: ShardId) -> Option<u64> {
        None
    }

    async fn open(&self, tenure: &Tenure) -> Result<(Told, Restored), OpenError> {
        self.wire.world.acts(&self.wire.process, tenure);
        let (mut told, restored) = self.take_over(tenure).await?;
        if restored.identity.is_some() {
            return Ok((told, restored));
        }
        let claimed = told.commit(Batch::default()).await;
        claimed.map_err(|source| OpenError::Barrier { shard: tenure.shard, source })?;
        if told.spent { self.take_over(tenure).await } else { Ok((told, restored)) }
    }
}

impl Journal for Told {
    async fn commit(&mut self, batch: Batch) -> Result<(), CommitError> {
        let world = Arc::clone(&self.line.wire.world);
        world.acts(&self.line.wire.process, &self.tenure);
        if self.spent && !world.planted(Plant::UncleanProducer) {
            return Err(CommitError::Spent { shard: self.tenure.shard });
        }
        let parts = self.encode(&batch)?;
        let spends = self.spends(batch.position.as_ref());
        self.spent = true;
        let (answer, answered) = oneshot::channel();
        let mut line = self.line.clone();
        let planted = world.planted(Plant::OutsideTransaction);
        world.spawn(async move {
            // Planted: events in one transaction, what remembers them in another.
            let halves = if planted { parts.into_iter().map(|part| vec![part]).collect() } else { vec![parts] };
            let mut verdict = Verdict { result: Ok(()), clean: true, sequence: line.sequence };
            for half in halves {
                verdict = line.transact(half).await;
                if verdict.result.is_err() {
                    break;
                }
            }
            drop(answer.send(verdict));
        });
        let Ok(verdict) = answered.await else { std::future::pending().await };
        self.line.sequence = verdict.sequence;
        self.spent = !verdict.clean;
        let text = verdict.result.as_ref().map_or_else(ToString::to_string, |()| "committed".to_owned());
        let (events, records, clean) = (batch.events.len(), batch.records.len(), verdict.clean);
        let position = batch.position.as_ref().and_then(|p| p.streams.get("")).map_or(0, |version| version.0);
        world.note(
            &self.line.wire.process.identity,
            format_args!(
                "{} {events} events, {records} records, up to {position}: {text}, clean {clean}",
                self.line.shard
            ),
        );
        if verdict.result.is_ok() {
            self.identity = None;
            self.inherited.take_if(|_| spends);
            self.position = batch.position.or_else(|| self.position.take());
        }
        verdict.result
    }

    fn is_outdated(&self) -> bool {
        self.line.epoch.is_multiple_of(3) && self.opened.elapsed() > ROTATED_AFTER
    }
}

/// The pod of which nothing can be written ([`Plant::UnsoundPod`]).
pub const UNSOUND: &str = "exec-3";

fn refused(pod_uid: &PodUid, key: String, reason: String) -> CommitError {
    CommitError::Refused { pod_uid: Some(pod_uid.clone()), key, reason }
}

impl Told {
    /// As the real journal: whether this position makes of no use what was inherited.
    fn spends(&self, next: Option<&Position>) -> bool {
        let planted = self.line.wire.world.planted(Plant::HeritageSpentAtOnce);
        let inherited = self.inherited.as_ref().zip(next);
        inherited.is_some_and(|(inherited, next)| planted || inherited.is_spent(self.position.as_ref(), next))
    }

    /// Events, then what remembers them: each part is one request.
    fn encode(&self, batch: &Batch) -> Result<Vec<Vec<Item>>, CommitError> {
        let world = &self.line.wire.world;
        let limit = world.setting.record_bytes_max;
        let service = Service { name: "pod-monitor".into(), version: "0".into(), environment: None };
        let mut events = Vec::new();
        for event in &batch.events {
            let mut value = Vec::new();
            record::write_value(&mut value, event, &service)
                .map_err(|e| refused(&event.pod_uid, event.event_id.to_string(), e.to_string()))?;
            if world.planted(Plant::UnsoundPod) && &*event.pod_name == UNSOUND {
                return Err(refused(&event.pod_uid, event.event_id.to_string(), "as planted".into()));
            }
            if value.len() > limit {
                let (pod_uid, event_id) = (event.pod_uid.clone(), Some(event.event_id));
                return Err(CommitError::TooLarge { pod_uid, event_id, exact: true });
            }
            let mut text = String::from_utf8(value).expect("JSON is UTF-8");
            if world.planted(Plant::RandomIds) {
                let random = world.draw(|random| format!("{:032x}", u128::from(random.next())));
                let random = uuid::Uuid::parse_str(&random).expect("32 digits").to_string();
                text = text.replace(&event.event_id.to_string(), &random);
            }
            events.push(Item::Event(text));
        }
        let mut records = Vec::new();
        for (uid, tracked) in &batch.records {
            let mut value = Vec::new();
            if let Some(tracked) = tracked {
                changelog::write_tracked(&mut value, uid, tracked)
                    .map_err(|e| refused(uid, e.key, e.reason.to_string()))?;
            }
            let value = tracked.as_ref().map(|_| String::from_utf8(value).expect("JSON is UTF-8"));
            records.push(Item::Record(changelog::pod_key(uid), value));
        }
        if let Some(identity) = &self.identity {
            records.push(Item::meta(changelog::IDENTITY, identity));
        }
        if self.spends(batch.position.as_ref()) {
            records.push(Item::Record(changelog::INHERITED.into(), None));
        }
        if let Some(position) = &batch.position {
            records.push(Item::meta(changelog::POSITION, position));
        }
        Ok([events, records].into_iter().filter(|part| !part.is_empty()).collect())
    }
}

impl Line {
    /// One transaction.
    async fn transact(&mut self, parts: Vec<Vec<Item>>) -> Verdict {
        let begun = Instant::now();
        for part in parts {
            self.sequence += 1;
            if let Err(verdict) = self.produce(part, begun).await {
                return verdict;
            }
        }
        self.end(begun).await
    }

    fn verdict(&self, result: Result<(), CommitError>, clean: bool) -> Verdict {
        Verdict { result, clean, sequence: self.sequence }
    }

    fn fenced(&self, source: Refusal) -> Verdict {
        self.verdict(Err(CommitError::Fenced { shard: self.shard, source: source.into() }), false)
    }

    async fn produce(&self, part: Vec<Item>, begun: Instant) -> Result<(), Verdict> {
        let (generation, shard, epoch, sequence) = (self.generation, self.shard, self.epoch, self.sequence);
        while begun.elapsed() < TRANSACTION_TIMEOUT * 9 / 10 {
            let (world, part) = (Arc::clone(&self.wire.world), part.clone());
            let call = self.wire.call(move || world.broker(generation, shard).produce(epoch, sequence, part));
            match timeout(SOCKET_TIMEOUT, call).await {
                Ok(Ok(Ok(()))) => return Ok(()),
                Ok(Ok(Err(refusal @ Refusal::Fenced))) => return Err(self.fenced(refusal)),
                Ok(Ok(Err(Refusal::Concurrent | Refusal::State)) | Err(_)) => after(AGAIN).await,
                Err(_) => {}
            }
        }
        // Its commit was never asked for: nothing of it becomes visible, whatever becomes of the abort.
        let world = Arc::clone(&self.wire.world);
        let abort = self.wire.call(move || world.broker(generation, shard).end(epoch, false, Duration::ZERO));
        drop(timeout(SOCKET_TIMEOUT, abort).await);
        Err(self.verdict(
            Err(CommitError::Aborted { shard: self.shard, source: "no acknowledgement in time".into() }),
            false,
        ))
    }

    async fn end(&self, begun: Instant) -> Verdict {
        let (generation, shard, epoch) = (self.generation, self.shard, self.epoch);
        let mut clean = true;
        let limit = TRANSACTION_TIMEOUT.max(begun.elapsed() + Duration::from_secs(1));
        while begun.elapsed() < limit {
            let world = Arc::clone(&self.wire.world);
            let marker = world.draw(|random| random.ms(0, 6));
            if self.straggles(marker) {
                // The connection broke: the client asks again, and does not know that the first one is still on its way.
                clean = false;
                after(AGAIN).await;
                continue;
            }
            let call = self.wire.call(move || world.broker(generation, shard).end(epoch, true, marker));
            match timeout(SOCKET_TIMEOUT, call).await {
                Ok(Ok(Ok(()))) => return self.verdict(Ok(()), clean),
                Ok(Ok(Err(refusal @ Refusal::Fenced))) => return self.fenced(refusal),
                Ok(Ok(Err(Refusal::Concurrent))) => after(AGAIN).await,
                Ok(Ok(Err(refusal @ Refusal::State))) => return self.unknown(refusal.into()),
                // Perhaps it arrived, perhaps it arrives late: the client asks again.
                Ok(Err(_)) => {
                    clean = false;
                    after(AGAIN).await;
                }
                Err(_) => clean = false,
            }
        }
        self.unknown("no answer to the commit".into())
    }

    /// Whether this end of the transaction arrives late, in which case it is on its way now.
    fn straggles(&self, marker: Duration) -> bool {
        let world = &self.wire.world;
        let percent = world.setting.straggling_percent;
        let late = world.draw(|random| random.percent(percent).then(|| random.ms(20, 3000)));
        let Some(late) = late.filter(|_| world.began.elapsed() < world.setting.chaos) else { return false };
        let (generation, shard, epoch, at) = (self.generation, self.shard, self.epoch, Arc::clone(world));
        world.spawn(async move {
            after(late).await;
            // Nobody who asked hears the answer.
            let answer = at.broker(generation, shard).end(epoch, true, marker);
            at.note("broker", format_args!("{shard} a straggling end: {answer:?}"));
        });
        true
    }

    fn unknown(&self, source: pod_monitor::publish::error::Source) -> Verdict {
        self.verdict(Err(CommitError::Unknown { shard: self.shard, source }), false)
    }
}
