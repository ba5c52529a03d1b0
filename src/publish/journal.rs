//! The journal in Kafka: opening it is taking a shard over, committing to it is telling.

use std::sync::{Arc, PoisonError};

use tracing::{Instrument as _, info_span};

use super::{
    Batch, Position, changelog,
    error::{CommitError, OpenError},
    fence::{Age, Fenced, Warm},
    generation::Inherited,
    identity::Identity,
    restore::{Restored, Tail},
    settings::Settings,
    topics::Topics,
    transaction::Line,
};
use crate::{
    leadership::{
        takeover::Leg,
        tenure::{ShardId, Tenure},
    },
    ports::{Followed, Journal, Journals, Readiness},
};

/// What a tenure publishes through. Had only by fencing, barrier and restore, in this order.
pub struct KafkaJournal {
    line: Line,
    age: Age,
    /// `meta/identity` as this replica would write it, until it is written.
    identity: Option<Identity>,
    /// The last position in the changelog.
    position: Option<Position>,
    /// Until it is of no use any more.
    inherited: Option<Inherited>,
}

impl KafkaJournal {
    pub(super) fn new(fenced: Fenced, restored: &Restored) -> Self {
        let ours = fenced.settings.identity();
        let identity = (restored.identity.as_ref() != Some(ours)).then(|| ours.clone());
        let (position, inherited) = (restored.position.clone(), restored.inherited.clone());
        Self { line: fenced.line, age: fenced.age, identity, position, inherited }
    }

    /// Whether this position makes of no use what was inherited.
    fn spends(&self, next: Option<&Position>) -> bool {
        let inherited = self.inherited.as_ref().zip(next);
        inherited.is_some_and(|(inherited, next)| inherited.is_spent(self.position.as_ref(), next))
    }
}

impl Journal for KafkaJournal {
    async fn commit(&mut self, batch: Batch) -> Result<(), CommitError> {
        let mut meta = Vec::new();
        if let Some(identity) = &self.identity {
            let value = serde_json::to_vec(identity).map_err(|error| CommitError::Refused {
                pod_uid: None,
                key: changelog::IDENTITY.into(),
                reason: error.to_string(),
            })?;
            meta.push((changelog::IDENTITY, Some(value)));
        }
        let spends = self.spends(batch.position.as_ref());
        if spends {
            meta.push((changelog::INHERITED, None));
        }
        let position = batch.position.clone();
        let shard = self.line.shard();
        // INV-10: giving up spends the line, so that no other producer takes this batch for one that was not committed.
        tokio::select! {
            biased;
            ended = self.line.commit(batch, meta) => ended?,
            () = self.age.holds_up() => return Err(CommitError::Outdated { shard }),
        }
        self.identity = None;
        self.inherited.take_if(|_| spends);
        self.position = position.or_else(|| self.position.take());
        Ok(())
    }

    fn is_outdated(&self) -> bool {
        self.age.is_outdated()
    }
}

/// Warm clients of all shards, so that opening one of them is short.
pub struct KafkaJournals {
    settings: Arc<Settings>,
    shards: Vec<Standby>,
}

struct Standby {
    warm: Warm,
    /// Follows the changelog from the start of the process; a take-over consumes it.
    tail: std::sync::Mutex<Option<Tail>>,
}

impl KafkaJournals {
    /// Starts a standby of every shard. `topics` proves that the topics were looked at.
    pub fn start(settings: Settings, topics: &Topics) -> Result<Self, OpenError> {
        let settings = Arc::new(settings);
        let shards = (0..settings.identity().shards).map(|shard| {
            let shard = ShardId(shard);
            let warm = Warm::start(Arc::clone(&settings), topics.clone(), shard)
                .map_err(|source| OpenError::Fence { shard, source })?;
            let tail = Tail::start(&settings, shard).map_err(|source| OpenError::Restore { shard, source })?;
            Ok(Standby { warm, tail: std::sync::Mutex::new(Some(tail)) })
        });
        Ok(Self { shards: shards.collect::<Result<_, _>>()?, settings })
    }

    /// Whether every shard has a producer to fence with: part of being ready.
    pub fn warm(&self) -> bool {
        self.shards.iter().all(|standby| standby.warm.connected() > 0)
    }

    /// How many producers are ready to fence a shard.
    pub fn connected(&self, shard: ShardId) -> usize {
        self.standby(shard).warm.connected()
    }

    fn tail(&self, shard: ShardId) -> Result<Tail, OpenError> {
        Tail::start(&self.settings, shard).map_err(|source| OpenError::Restore { shard, source })
    }

    fn standby(&self, shard: ShardId) -> &Standby {
        &self.shards[usize::try_from(shard.0).expect("u32 fits")]
    }

    fn take_tail(&self, shard: ShardId) -> Result<Tail, OpenError> {
        let kept = self.standby(shard).tail.lock().unwrap_or_else(PoisonError::into_inner).take();
        kept.map_or_else(|| self.tail(shard), Ok)
    }
}

impl KafkaJournals {
    /// Fence, barrier, restore.
    async fn take_over(&self, tenure: &Tenure) -> Result<(KafkaJournal, Restored), OpenError> {
        let shard = tenure.shard;
        let tail = self.take_tail(shard)?;
        let parent = tenure.take_over_span();
        let leg = |name| info_span!(parent: &parent, "leg", otel.name = name, %shard);
        let fence = self.standby(shard).warm.fence(tenure).instrument(leg("fence")).await;
        let fenced = fence.map_err(|source| OpenError::Fence { shard, source })?;
        tenure.reached(Leg::Fenced);
        if tenure.is_over(tokio::time::Instant::now()) {
            return Err(OpenError::Fence { shard, source: super::fence::Error::Ended { shard } });
        }
        let barrier = fenced.barrier(tail).instrument(leg("barrier")).await;
        let barrier = barrier.map_err(|source| OpenError::Barrier { shard, source })?;
        tenure.reached(Leg::Barrier);
        let restored = barrier.restore().instrument(leg("restore")).await;
        let (journal, restored) = restored.map_err(|source| OpenError::Restore { shard, source })?;
        tenure.reached(Leg::Restored);
        let suits = self.settings.identity().may_use(restored.identity.as_ref(), restored.moved.as_ref());
        suits.map_err(|source| OpenError::Identity { shard, source })?;
        Ok((journal, restored))
    }
}

impl Journals for KafkaJournals {
    type Journal = KafkaJournal;

    fn stand_by(&self, shard: ShardId) -> Result<(), OpenError> {
        let mut tail = self.standby(shard).tail.lock().unwrap_or_else(PoisonError::into_inner);
        if tail.is_none() {
            *tail = Some(self.tail(shard)?);
        }
        Ok(())
    }

    fn readiness(&self, shard: ShardId) -> Result<Readiness, OpenError> {
        let standby = self.standby(shard);
        let mut following = standby.tail.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(tail) = following.as_ref() else {
            return Ok(Readiness::NotYet("the changelog is not followed".into()));
        };
        if let Some(failure) = tail.failure() {
            // One that failed a while ago is begun anew by the next look.
            following.take_if(|tail| tail.has_rested());
            return Ok(Readiness::NotYet(failure.into()));
        }
        tail.suits(self.settings.identity()).map_err(|source| OpenError::Identity { shard, source })?;
        Ok(match (standby.warm.is_answered(), tail.has_caught_up()) {
            (false, _) => Readiness::NotYet(format!("kafka does not answer{}", standby.warm.why()).into()),
            (true, false) => Readiness::NotYet("the changelog has not been read to its end".into()),
            (true, true) => Readiness::Warm,
        })
    }

    fn is_answered(&self, shard: ShardId) -> bool {
        self.standby(shard).warm.is_answered()
    }

    fn lag_records(&self, shard: ShardId) -> Option<u64> {
        self.standby(shard).tail.lock().unwrap_or_else(PoisonError::into_inner).as_ref()?.lag_records()
    }

    fn followed(&self, shard: ShardId) -> Followed {
        let tail = self.standby(shard).tail.lock().unwrap_or_else(PoisonError::into_inner);
        tail.as_ref().map(Tail::followed).unwrap_or_default()
    }

    async fn open(&self, tenure: &Tenure) -> Result<(KafkaJournal, Restored), OpenError> {
        let shard = tenure.shard;
        let (mut journal, restored) = self.take_over(tenure).await?;
        if restored.identity.is_some() {
            return Ok((journal, restored));
        }
        // At once, not beside the first event: until it stands there, another installation takes the changelog for new.
        let claimed = journal.commit(Batch::default()).await;
        claimed.map_err(|source| OpenError::Barrier { shard, source })?;
        // Claimed, but not answered cleanly: such a journal takes no batch any more (INV-10).
        if journal.line.is_spent() { self.take_over(tenure).await } else { Ok((journal, restored)) }
    }
}
