//! The fence: makes every earlier producer of a shard unable to publish.
//!
//! ```text
//!  Warm (standby): pre-connected instances ── fence(tenure) ──▶ init_transactions on the 1st, 15 ms
//!                                                                 │ refused: its predecessor has an open transaction,
//!                                                                 │ which the broker now aborts; the 1st is discarded
//!                                                                 ▼
//!                                                               2nd, 30 ms ──▶ Fenced
//! ```
//! One instance alone would ask again only after librdkafka's fixed 500 ms. An instance that was refused or timed out
//! must not live on: its timer would fence us half a second later.
//!
//! INV-4: fence before restore. Until older producers are refused, the end of the changelog can still move under us;
//! so a journal can only be had through [`Fenced`] → `Barrier` → `restore`.

use std::{
    collections::hash_map::RandomState,
    sync::{
        Arc, LazyLock, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
        mpsc,
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use rdkafka::{
    error::{KafkaError, RDKafkaErrorCode},
    producer::Producer,
};
use tokio::sync::oneshot;
use tracing::{debug, warn};

use super::{
    error::Class,
    producer::{self, Instance, Live},
    rights::{Asked, to_mend},
    settings::Settings,
    topics::Topics,
    transaction::{self, Line},
};
use crate::leadership::tenure::{ShardId, Tenure};

/// Instances that a standby keeps connected: two shots are usual, a third is for slow aborts.
const INSTANCES: usize = 3;
/// How long the first shot waits; each further one waits twice as long, up to [`SHOT_MAX`].
const SHOT: Duration = Duration::from_millis(15);
/// Longest shot. Beyond librdkafka's own 500 ms timer, so that a broker that needs that long still lets us in.
const SHOT_MAX: Duration = Duration::from_millis(1600);
/// After this a fence fails, and the caller tries again while the tenure lasts.
const FENCE_MAX: Duration = Duration::from_secs(8);
/// How often a connection is used, each in turn: far below the broker's `connections.max.idle.ms` of 10 minutes, and
/// often enough to know whether Kafka answers.
const KEEP_WARM: Duration = Duration::from_secs(1);
/// Kafka answers if it did within this time: two looks may fail.
const ANSWERED_MAX: Duration = Duration::from_millis(2500);
/// Longest look at the metadata while keeping warm: below librdkafka's 500 ms timer, see [`producer::discard`].
const METADATA_MAX: Duration = Duration::from_millis(250);

/// Differs between any two starts of a process: hash keys are the one source of randomness at hand.
static PROCESS: LazyLock<u64> = LazyLock::new(|| std::hash::BuildHasher::hash_one(&RandomState::new(), 0));
/// Fences of this process so far.
static FENCES: AtomicU64 = AtomicU64::new(0);

/// Why a shard could not be fenced.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The tenure ended first.
    #[error("tenure of shard {shard} ended before the fence")]
    Ended {
        /// Which shard.
        shard: ShardId,
    },
    /// Kafka did not let us in within the time given.
    #[error("no answer from the transaction coordinator")]
    Timeout(#[source] Option<KafkaError>),
    /// Kafka refuses us for good: rights, an id that is not ours, a timeout that it does not allow.
    #[error("the transaction coordinator refuses us{mend}")]
    Refused {
        /// `; to mend it: ` and a command, where one is known.
        mend: String,
        /// What it said.
        #[source]
        source: KafkaError,
    },
    /// No producer could be made.
    #[error("create a producer")]
    Create(#[source] super::settings::Error),
    /// The operating system gave no thread.
    #[error("start a publishing thread")]
    Thread(#[source] std::io::Error),
    /// The publishing thread is gone: a bug.
    #[error("publishing thread ended without an answer")]
    Lost,
}

impl Error {
    /// What the caller may do.
    pub fn class(&self) -> Class {
        match self {
            Self::Ended { .. } => Class::Fenced,
            Self::Timeout(_) | Self::Thread(_) => Class::Transient,
            Self::Refused { .. } | Self::Create(_) | Self::Lost => Class::Fatal,
        }
    }
}

type Shelf = Arc<Mutex<Kept>>;

#[derive(Default)]
struct Kept {
    instances: Vec<Arc<Instance>>,
    /// When Kafka last answered one of them.
    answered: Option<Instant>,
}

/// Pre-connected producers of one shard, kept warm by a thread of their own.
pub struct Warm {
    settings: Arc<Settings>,
    topics: Topics,
    shard: ShardId,
    shelf: Shelf,
    refill: Option<mpsc::SyncSender<()>>,
    keeper: Option<JoinHandle<()>>,
}

impl Warm {
    /// Starts keeping producers warm. `topics` proves that the topics were looked at.
    pub fn start(settings: Arc<Settings>, topics: Topics, shard: ShardId) -> Result<Self, Error> {
        let shelf = Shelf::default();
        let (refill, asked) = mpsc::sync_channel(1);
        let (kept, of, limits) = (Arc::clone(&shelf), Arc::clone(&settings), topics.clone());
        let keeper = thread::Builder::new()
            .name(format!("kafka-warm-{shard}"))
            .spawn(move || keep_warm(&of, &limits, shard, &kept, &asked))
            .map_err(Error::Thread)?;
        Ok(Self { settings, topics, shard, shelf, refill: Some(refill), keeper: Some(keeper) })
    }

    /// How many producers are connected now.
    pub fn connected(&self) -> usize {
        lock(&self.shelf).instances.len()
    }

    /// Whether Kafka answered a moment ago.
    pub fn is_answered(&self) -> bool {
        lock(&self.shelf).answered.is_some_and(|at| at.elapsed() < ANSWERED_MAX)
    }

    /// Which shard these are for.
    pub fn shard(&self) -> ShardId {
        self.shard
    }

    /// Settings, for those who open what belongs to this shard.
    pub fn settings(&self) -> &Arc<Settings> {
        &self.settings
    }

    /// Fences the shard: when this returns, every earlier producer is refused and none of its transactions is open.
    pub async fn fence(&self, tenure: &Tenure) -> Result<Fenced, Error> {
        assert_eq!(tenure.shard, self.shard, "INV-4: a tenure fences its own shard only");
        let (commands, orders) = mpsc::sync_channel(1);
        let (answer, answered) = oneshot::channel();
        let shots = Shots {
            settings: Arc::clone(&self.settings),
            topics: self.topics.clone(),
            tenure: tenure.clone(),
            shelf: Arc::clone(&self.shelf),
        };
        thread::Builder::new()
            .name(format!("kafka-publish-{}", self.shard))
            .spawn(move || publish(shots, answer, &orders))
            .map_err(Error::Thread)?;
        let result = answered.await.map_err(|_| Error::Lost)?;
        // The keeper may be refilling already; one wish waiting is enough.
        if let Some(refill) = &self.refill
            && let Err(mpsc::TrySendError::Disconnected(())) = refill.try_send(())
        {
            return Err(Error::Lost);
        }
        result.map(|()| Fenced {
            line: Line::new(self.shard, commands),
            settings: Arc::clone(&self.settings),
            nonce: format!("{}#{:x}#{}", tenure.holder, *PROCESS, FENCES.fetch_add(1, Ordering::Relaxed)),
            holder: tenure.holder.clone(),
        })
    }
}

impl Drop for Warm {
    fn drop(&mut self) {
        drop(self.refill.take());
        if let Some(keeper) = self.keeper.take() {
            // The keeper ends within one look at the metadata; waiting for it is not the caller's business.
            producer::discard(JoinOnDrop(Some(keeper)));
        }
    }
}

struct JoinOnDrop(Option<JoinHandle<()>>);

impl Drop for JoinOnDrop {
    fn drop(&mut self) {
        if self.0.take().is_some_and(|handle| handle.join().is_err()) {
            warn!("thread that keeps producers warm panicked");
        }
    }
}

fn lock(shelf: &Shelf) -> std::sync::MutexGuard<'_, Kept> {
    shelf.lock().unwrap_or_else(PoisonError::into_inner)
}

fn keep_warm(settings: &Settings, topics: &Topics, shard: ShardId, shelf: &Shelf, asked: &mpsc::Receiver<()>) {
    let config = settings.producer(shard, topics.wire_bytes_max);
    for turn in 0_usize.. {
        let next = {
            let kept = lock(shelf);
            kept.instances.get(turn % kept.instances.len().max(1)).cloned()
        };
        if next.is_some_and(|instance| connect(&instance, settings)) {
            lock(shelf).answered = Some(crate::clock::monotonic());
        }
        while lock(shelf).instances.len() < INSTANCES {
            match producer::create(&config) {
                Ok(instance) => {
                    let answered = connect(&instance, settings);
                    let mut kept = lock(shelf);
                    kept.instances.push(Arc::new(instance));
                    kept.answered = if answered { Some(crate::clock::monotonic()) } else { kept.answered };
                }
                Err(error) => {
                    warn!(%shard, error = %settings.client_error(error), "cannot create a producer");
                    break;
                }
            }
        }
        if let Err(mpsc::RecvTimeoutError::Disconnected) = asked.recv_timeout(KEEP_WARM) {
            return;
        }
    }
}

/// Uses the connection, so that neither side closes it, and serves what the client has to say.
fn connect(instance: &Instance, settings: &Settings) -> bool {
    let answered = instance.client().fetch_metadata(Some(settings.changelog_topic()), METADATA_MAX);
    instance.poll(Duration::ZERO);
    answered.inspect_err(|error| debug!(%error, "kafka does not answer a warm producer")).is_ok()
}

/// A shard whose earlier producers are refused. Its changelog's end is final once the barrier is committed.
pub struct Fenced {
    pub(super) line: Line,
    pub(super) settings: Arc<Settings>,
    pub(super) holder: String,
    /// Unique per fence, whatever `--identity` says: a restore that took an older barrier for its own would know too
    /// little.
    pub(super) nonce: String,
}

struct Shots {
    settings: Arc<Settings>,
    topics: Topics,
    tenure: Tenure,
    shelf: Shelf,
}

/// The publishing thread of one tenure: fences, then commits what it is given until its [`Line`] is dropped.
fn publish(shots: Shots, answer: oneshot::Sender<Result<(), Error>>, orders: &mpsc::Receiver<transaction::Order>) {
    let result = shots.fire();
    let (verdict, live) = match result {
        Ok(live) => (Ok(()), Some(live)),
        Err(error) => (Err(error), None),
    };
    if answer.send(verdict).is_err() {
        debug!("nobody waits for the fence any more");
    }
    if let Some(live) = live {
        transaction::serve(live, shots.tenure.shard, &shots.settings, orders);
    }
}

impl Shots {
    fn fire(&self) -> Result<Live, Error> {
        let (started, mut slice, mut last) = (crate::clock::monotonic(), SHOT, None);
        while started.elapsed() < FENCE_MAX {
            // By the clock as well: a process that was frozen here is over before anybody could tell it so.
            if self.tenure.is_over(tokio::time::Instant::now()) {
                return Err(Error::Ended { shard: self.tenure.shard });
            }
            let instance = self.next()?;
            match instance.init_transactions(slice) {
                Ok(()) => {
                    debug!(shard = %self.tenure.shard, took = ?started.elapsed(), "fenced");
                    return Live::start(instance).map_err(Error::Thread);
                }
                Err(error) => {
                    debug!(shard = %self.tenure.shard, %error, ?slice, "fencing again with another producer");
                    crate::failpoint::reached("shot");
                    producer::discard(instance);
                    if refused_for_good(&error) {
                        return Err(refused(&self.settings, self.tenure.shard, error));
                    }
                    last = Some(error);
                }
            }
            slice = (slice * 2).min(SHOT_MAX);
        }
        Err(Error::Timeout(last))
    }

    fn next(&self) -> Result<Arc<Instance>, Error> {
        // The keeper may hold it for one look at the metadata more: shorter than the timer of a refused instance.
        let kept = lock(&self.shelf).instances.pop();
        if let Some(instance) = kept {
            return Ok(instance);
        }
        let config = self.settings.producer(self.tenure.shard, self.topics.wire_bytes_max);
        let instance = producer::create(&config).map_err(|error| Error::Create(self.settings.client_error(error)))?;
        connect(&instance, &self.settings);
        Ok(Arc::new(instance))
    }
}

fn refused(settings: &Settings, shard: ShardId, source: KafkaError) -> Error {
    let grant = source.rdkafka_error_code().and_then(|code| settings.grant(shard, Asked::Produce, code));
    Error::Refused { mend: to_mend(grant), source }
}

/// Whether asking again cannot help. Whoever loses a race of two fences is told `Fenced`, and may well win the next.
fn refused_for_good(error: &KafkaError) -> bool {
    matches!(
        error.rdkafka_error_code(),
        Some(
            RDKafkaErrorCode::TransactionalIdAuthorizationFailed
                | RDKafkaErrorCode::ClusterAuthorizationFailed
                | RDKafkaErrorCode::InvalidTransactionTimeout
                | RDKafkaErrorCode::UnsupportedVersion
                | RDKafkaErrorCode::UnsupportedFeature
                | RDKafkaErrorCode::NotConfigured
                | RDKafkaErrorCode::SaslAuthenticationFailed
                | RDKafkaErrorCode::Authentication
        )
    )
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;
    use crate::publish::rights::tests::settings;

    #[test]
    fn fence_that_is_refused_for_want_of_rights_says_what_mends_it() {
        use RDKafkaErrorCode as Code;
        let cases = [
            (Code::TransactionalIdAuthorizationFailed, "; to mend it: kafka-acls.sh --bootstrap-server k:9092"),
            (Code::ClusterAuthorizationFailed, "--operation IdempotentWrite --cluster"),
            (Code::InvalidTransactionTimeout, "refuses us"),
        ];
        for (code, part) in cases {
            let error = KafkaError::ClientCreation(String::new());
            assert!(!refused_for_good(&error), "no answer of a coordinator");
            let error = KafkaError::MetadataFetch(code);
            assert!(refused_for_good(&error), "{code:?}");
            let text = refused(&settings(), ShardId(1), error).to_string();
            assert!(text.contains(part), "{text}");
            assert_eq!(text.contains("kafka-acls.sh"), code != Code::InvalidTransactionTimeout, "{text}");
        }
    }
}
