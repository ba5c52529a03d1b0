//! What has been told so far: a standby's tail of one shard's changelog, and its end at the barrier.
//!
//! ```text
//!  Tail (standby): reads from the beginning, keeps the newest record of each key
//!  take over:  Fenced ── barrier(tail) ──▶ Barrier ── restore() ──▶ (Journal, Restored)
//!              the barrier is committed, and the tail is followed until it delivers it
//! ```
//! INV-4: only the barrier's own delivery ends a restore, never an end of partition: a commit is acknowledged before it
//! is visible. A tail that heard nothing for 12 h starts anew, since tombstones are kept for 24 h only.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use rdkafka::{
    Message, Offset, TopicPartitionList,
    config::FromClientConfigAndContext,
    consumer::{BaseConsumer, Consumer},
    error::{KafkaError, RDKafkaErrorCode},
};
use tokio::sync::oneshot;
use tracing::debug;

use super::{
    Batch, Position,
    changelog::{self, Entry, Unreadable},
    error::{Class, CommitError},
    fence::Fenced,
    generation::{Inherited, Moved},
    identity::{Identity, Mismatch},
    journal::KafkaJournal,
    lag::{Behind, Told},
    producer,
    rights::{Asked, to_mend},
    settings::Settings,
};
use crate::{
    cli::chain,
    leadership::tenure::ShardId,
    lifecycle::tracked::Kept,
    ports::Followed,
    watch::pod::{ByUid, PodUid},
};

/// A restore that takes longer fails, and the caller opens anew while the tenure lasts.
///
/// A reshard that died with its switch open holds it up until the broker ends that: 20 to 30 s.
const RESTORE_MAX: Duration = Duration::from_secs(40);
/// Longest look at the metadata before reading begins.
const METADATA_MAX: Duration = Duration::from_secs(1);
/// Half of `delete.retention.ms`: a tail that was cut off for longer may have missed tombstones.
const SILENT_MAX: Duration = Duration::from_secs(12 * 3600);

/// How long a tail that failed is left alone: what it lacks may be mended meanwhile.
const FAILED_REST: Duration = Duration::from_secs(1);

/// Why a changelog could not be read.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No consumer could be made.
    #[error("create a consumer")]
    Create(#[source] super::settings::Error),
    /// The operating system gave no thread.
    #[error("start a changelog thread")]
    Thread(#[source] std::io::Error),
    /// Kafka refuses for good: no rights, no such topic, records gone.
    #[error("read the changelog{mend}")]
    Read {
        /// `; to mend it: ` and a command, where one is known.
        mend: String,
        /// What it said.
        #[source]
        source: KafkaError,
    },
    /// The barrier did not arrive in time.
    #[error("the barrier did not arrive within {RESTORE_MAX:?}")]
    Timeout,
    /// A record that says whose changelog it is, or was, cannot be understood.
    #[error("nobody can tell whose changelog this is")]
    Identity(#[source] Unreadable),
}

impl Error {
    /// What the caller may do.
    pub fn class(&self) -> Class {
        match self {
            Self::Timeout | Self::Thread(_) => Class::Transient,
            Self::Create(_) | Self::Read { .. } | Self::Identity(_) => Class::Fatal,
        }
    }
}

/// What the changelog of one shard says.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Restored {
    /// Whose changelog it is; `None` if it is new.
    pub identity: Option<Identity>,
    /// How far the last holder had come.
    pub position: Option<Position>,
    /// Where the truth is now, if it is here no more.
    pub moved: Option<Moved>,
    /// How far the shards of earlier generations had come, while that is of use.
    pub inherited: Option<Inherited>,
    /// What has been told, per pod that is not forgotten yet.
    pub told: ByUid<Kept>,
    /// Records that this release cannot act on: their pods are in `told` no more, and must not be acted on.
    pub unreadable: Vec<Unreadable>,
}

impl Restored {
    /// What these records say, read one after the other.
    pub fn of(records: impl IntoIterator<Item = Entry>) -> Self {
        let mut state = State::default();
        for record in records {
            state.apply(record);
        }
        state.finish()
    }

    /// The term that the next holder writes into its positions.
    pub fn next_term(&self) -> u64 {
        self.position.as_ref().map_or(0, |position| position.term).saturating_add(1)
    }
}

/// The changelog as far as it was read: the newest record of each key.
#[derive(Default)]
struct State {
    restored: Restored,
    unreadable: BTreeMap<String, Unreadable>,
}

impl State {
    /// Takes in one record; says which barrier it was, if it was one.
    fn apply(&mut self, entry: Entry) -> Option<changelog::Barrier> {
        match entry {
            Entry::Pod(uid, tracked) => {
                if !self.unreadable.is_empty() {
                    self.unreadable.remove(&changelog::pod_key(&uid));
                }
                match tracked {
                    Some(tracked) => drop(self.restored.told.insert(uid, (*tracked).into())),
                    None => drop(self.restored.told.remove(&uid)),
                }
            }
            Entry::Identity(identity) => {
                self.unreadable.remove(changelog::IDENTITY);
                self.restored.identity = Some(identity);
            }
            Entry::Position(position) => {
                self.unreadable.remove(changelog::POSITION);
                self.restored.position = Some(position);
            }
            Entry::Moved(moved) => {
                self.unreadable.remove(changelog::MOVED);
                self.restored.moved = Some(moved);
            }
            Entry::Inherited(inherited) => {
                self.unreadable.remove(changelog::INHERITED);
                self.restored.inherited = inherited;
            }
            Entry::Barrier(barrier) => return Some(barrier),
            Entry::Unreadable(unreadable) => self.apply_unreadable(unreadable),
        }
        None
    }

    /// An older record of the same key is out of date, and acting on it would tell events anew.
    fn apply_unreadable(&mut self, unreadable: Unreadable) {
        match unreadable.key.as_str() {
            changelog::IDENTITY => self.restored.identity = None,
            changelog::POSITION => self.restored.position = None,
            changelog::INHERITED => self.restored.inherited = None,
            key => {
                if let Some(uid) = key.strip_prefix(changelog::POD) {
                    self.restored.told.remove(&PodUid(uid.into()));
                }
            }
        }
        self.unreadable.insert(unreadable.key.clone(), unreadable);
    }

    fn finish(self) -> Restored {
        Restored { unreadable: self.unreadable.into_values().collect(), ..self.restored }
    }
}

type Answer = Result<Restored, Error>;

#[derive(Default)]
struct Wish {
    /// The barrier that ends the tail, and who waits for what was read until then.
    wanted: Option<(changelog::Barrier, oneshot::Sender<Answer>)>,
    /// Why the tail ended before anyone asked, and when.
    failed: Option<(Error, Instant)>,
    /// Whose changelog it is, as far as it was read.
    identity: Option<Identity>,
    /// Where the truth is now, as far as it was read.
    moved: Option<Moved>,
    /// The end of the partition was reached once.
    caught_up: bool,
}

/// Follows one shard's changelog on a thread of its own, from the beginning.
pub struct Tail {
    shard: ShardId,
    wish: Arc<Mutex<Wish>>,
    stop: Arc<AtomicBool>,
    behind: Arc<Behind>,
}

impl Tail {
    /// Starts reading. Kafka need not answer yet.
    pub fn start(settings: &Settings, shard: ShardId) -> Result<Self, Error> {
        // The generation first: properties that change in between are newer than it says, and made use of once more.
        let generation = settings.generation();
        let behind = Arc::new(Behind::default());
        let consumer = consumer(settings, shard, &behind)?;
        let wish = Arc::new(Mutex::new(Wish::default()));
        let stop = Arc::new(AtomicBool::new(false));
        let mut reader = Reader {
            consumer,
            generation,
            next: Offset::Beginning,
            settings: settings.clone(),
            topic: settings.changelog_topic().to_owned(),
            shard,
            state: State::default(),
            wish: Arc::clone(&wish),
            stop: Arc::clone(&stop),
        };
        thread::Builder::new()
            .name(format!("kafka-tail-{shard}"))
            .spawn(move || {
                reader.run();
                producer::discard(reader);
            })
            .map_err(Error::Thread)?;
        Ok(Self { shard, wish, stop, behind })
    }

    /// Whether this replica may use the changelog, as far as it was read: one that does not fit must not even contend.
    pub fn suits(&self, ours: &Identity) -> Result<(), Mismatch> {
        let wish = self.wish.lock().unwrap_or_else(PoisonError::into_inner);
        match (&wish.identity, &wish.moved) {
            (None, None) if !wish.caught_up => Ok(()),
            (found, moved) => ours.may_use(found.as_ref(), moved.as_ref()),
        }
    }

    /// Whether everything that stood there when it began has been read.
    pub fn has_caught_up(&self) -> bool {
        self.wish.lock().unwrap_or_else(PoisonError::into_inner).caught_up
    }

    /// Records that are written and not read yet, as of a second ago; marks of transactions count. `None`: not known yet.
    pub fn lag_records(&self) -> Option<u64> {
        self.behind.records()
    }

    /// What has been read so far, for people.
    pub fn followed(&self) -> Followed {
        self.behind.followed()
    }

    /// Why it ended, if it did by an error that reading on does not mend.
    pub fn failure(&self) -> Option<String> {
        let wish = self.wish.lock().unwrap_or_else(PoisonError::into_inner);
        wish.failed.as_ref().map(|(error, _)| chain(error))
    }

    /// Whether it failed long enough ago to be begun anew.
    pub fn has_rested(&self) -> bool {
        let wish = self.wish.lock().unwrap_or_else(PoisonError::into_inner);
        wish.failed.as_ref().is_some_and(|(_, at)| at.elapsed() > FAILED_REST)
    }

    /// Ends the tail when it delivers this barrier. To be called before the barrier is committed.
    fn end_at(&self, barrier: changelog::Barrier) -> oneshot::Receiver<Answer> {
        let (sender, receiver) = oneshot::channel();
        let mut wish = self.wish.lock().unwrap_or_else(PoisonError::into_inner);
        match wish.failed.take() {
            Some((error, _)) => drop(sender.send(Err(error))),
            None => wish.wanted = Some((barrier, sender)),
        }
        receiver
    }
}

impl Drop for Tail {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

/// One that tells `behind` how far it is.
fn consumer(settings: &Settings, shard: ShardId, behind: &Arc<Behind>) -> Result<BaseConsumer<Told>, Error> {
    let made = BaseConsumer::from_config_and_context(&settings.consumer(shard), Told(Arc::clone(behind)));
    made.map_err(|error| Error::Create(settings.client_error(error)))
}

struct Reader {
    consumer: BaseConsumer<Told>,
    /// Of the properties that the consumer was made with.
    generation: u64,
    /// Where to read on.
    next: Offset,
    settings: Settings,
    topic: String,
    shard: ShardId,
    state: State,
    wish: Arc<Mutex<Wish>>,
    stop: Arc<AtomicBool>,
}

impl Reader {
    fn run(&mut self) {
        if let Err(error) = self.begin().and_then(|()| self.follow()) {
            self.answer(Err(error));
        }
    }

    fn refused(&self, source: KafkaError) -> Error {
        let asked = Asked::Read(&self.topic);
        let grant = source.rdkafka_error_code().and_then(|code| self.settings.grant(self.shard, asked, code));
        Error::Read { mend: to_mend(grant), source }
    }

    fn begin(&mut self) -> Result<(), Error> {
        self.state = State::default();
        self.next = Offset::Beginning;
        self.read_on()
    }

    /// With another consumer where the properties changed; what was read stays read.
    fn renew(&mut self) -> Result<(), Error> {
        self.generation = self.settings.generation();
        let new = consumer(&self.settings, self.shard, &self.consumer.context().0)?;
        producer::discard(std::mem::replace(&mut self.consumer, new));
        self.read_on()
    }

    fn read_on(&self) -> Result<(), Error> {
        // Where the partition's leader is not known yet when reading begins, librdkafka looks again only after a fixed
        // 500 ms. If Kafka does not answer now, those do not matter.
        if let Err(error) = self.consumer.fetch_metadata(Some(&self.topic), METADATA_MAX) {
            debug!(shard = %self.shard, %error, "kafka does not answer the tail yet");
        }
        let partition = i32::try_from(self.shard.0).expect("Kafka counts partitions in i32, and shards are checked");
        let mut assignment = TopicPartitionList::with_capacity(1);
        let added = assignment.add_partition_offset(&self.topic, partition, self.next);
        added.and_then(|()| self.consumer.assign(&assignment)).map_err(|error| self.refused(error))
    }

    /// Reads until the wanted barrier or until stopped; an error only where reading on cannot help.
    fn follow(&mut self) -> Result<(), Error> {
        let mut heard = crate::clock::monotonic();
        while !self.stop.load(Ordering::Relaxed) {
            if self.generation < self.settings.generation() {
                self.renew()?;
            }
            let entry = match self.consumer.poll(producer::POLL) {
                None if heard.elapsed() > SILENT_MAX => {
                    self.begin()?;
                    heard = crate::clock::monotonic();
                    continue;
                }
                None => continue,
                Some(Err(KafkaError::PartitionEOF(_))) => {
                    self.wish().caught_up = true;
                    self.consumer.context().0.set_at_end(true);
                    continue;
                }
                Some(Err(error)) if cannot_help(&error) => return Err(self.refused(error)),
                Some(Err(error)) => {
                    debug!(shard = %self.shard, %error, "reading the changelog goes on");
                    continue;
                }
                Some(Ok(message)) => {
                    self.next = Offset::Offset(message.offset() + 1);
                    changelog::decode(message.key(), message.payload())
                }
            };
            heard = crate::clock::monotonic();
            self.consumer.context().0.set_at_end(false);
            match &entry {
                Entry::Identity(identity) => self.wish().identity = Some(identity.clone()),
                Entry::Moved(moved) => self.wish().moved = Some(moved.clone()),
                _ => {}
            }
            let barrier = self.state.apply(entry);
            let Restored { position, told, .. } = &self.state.restored;
            self.consumer.context().0.read(position.as_ref().map(|position| position.term), told.len());
            if let Some(barrier) = barrier
                && self.is_wanted(&barrier)
            {
                let state = std::mem::take(&mut self.state);
                self.answer(Ok(state.finish()));
                return Ok(());
            }
        }
        Ok(())
    }

    fn wish(&self) -> MutexGuard<'_, Wish> {
        self.wish.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_wanted(&self, barrier: &changelog::Barrier) -> bool {
        let wish = self.wish();
        wish.wanted.as_ref().is_some_and(|(wanted, _)| wanted == barrier)
    }

    fn answer(&self, answer: Answer) {
        let mut wish = self.wish();
        match (wish.wanted.take(), answer) {
            (Some((_, waiting)), answer) => {
                if waiting.send(answer).is_err() {
                    debug!(shard = %self.shard, "nobody waits for the restore any more");
                }
            }
            (None, Err(error)) => wish.failed = Some((error, crate::clock::monotonic())),
            (None, Ok(_)) => debug!(shard = %self.shard, "nobody asked for the restore"),
        }
    }
}

/// Errors that reading on does not mend. Everything about connections does mend itself. The client asks for its group's
/// coordinator, and may be refused: no group is ever joined.
fn cannot_help(error: &KafkaError) -> bool {
    match error {
        KafkaError::MessageConsumptionFatal(_) => true,
        error => matches!(
            error.rdkafka_error_code(),
            Some(
                RDKafkaErrorCode::UnknownTopicOrPartition
                    | RDKafkaErrorCode::UnknownTopic
                    | RDKafkaErrorCode::UnknownPartition
                    | RDKafkaErrorCode::TopicAuthorizationFailed
                    | RDKafkaErrorCode::OffsetOutOfRange
                    | RDKafkaErrorCode::AutoOffsetReset
            )
        ),
    }
}

/// A fenced shard whose barrier is committed: everything that earlier holders ever told lies before it.
pub struct Barrier {
    fenced: Fenced,
    /// Dropped when the restore is over: that stops the thread.
    _tail: Tail,
    restored: oneshot::Receiver<Answer>,
}

impl Fenced {
    /// Commits the barrier, with the tail waiting for it.
    pub async fn barrier(mut self, tail: Tail) -> Result<Barrier, CommitError> {
        let barrier = changelog::Barrier { nonce: self.nonce.clone(), holder: self.holder.clone() };
        let restored = tail.end_at(barrier.clone());
        let value = serde_json::to_vec(&barrier).map_err(|error| CommitError::Refused {
            pod_uid: None,
            key: changelog::BARRIER.into(),
            reason: error.to_string(),
        })?;
        self.line.commit(Batch::default(), vec![(changelog::BARRIER, Some(value))]).await?;
        if self.line.is_spent() {
            // INV-10: a journal on it could not commit anything.
            return Err(CommitError::Spent { shard: tail.shard });
        }
        Ok(Barrier { fenced: self, _tail: tail, restored })
    }
}

impl Barrier {
    /// Waits until the tail has delivered the barrier: what it holds then is all that was ever told.
    pub async fn restore(self) -> Result<(KafkaJournal, Restored), Error> {
        let answer = tokio::time::timeout(RESTORE_MAX, self.restored).await.map_err(|_| Error::Timeout)?;
        let restored = answer.map_err(|_| Error::Timeout)??;
        // Without the last one, what was told to its end would be told anew.
        let own = [changelog::IDENTITY, changelog::MOVED, changelog::INHERITED];
        if let Some(unreadable) = restored.unreadable.iter().find(|u| own.contains(&u.key.as_str())) {
            return Err(Error::Identity(unreadable.clone()));
        }
        let journal = KafkaJournal::new(self.fenced, &restored);
        Ok((journal, restored))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
#[path = "restore_tests.rs"]
mod tests;
