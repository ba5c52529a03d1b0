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
        Arc, LazyLock,
        atomic::{AtomicU64, Ordering},
        mpsc,
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use rdkafka::{
    error::{KafkaError, RDKafkaErrorCode},
    producer::Producer as _,
};
use tokio::sync::oneshot;
use tracing::{debug, warn};

use super::{
    error::Class,
    producer::{self, Live},
    rights::{Asked, to_mend},
    settings::Settings,
    shelf::{Made, Shelf, keep_warm},
    topics::Topics,
    transaction::{self, Line},
};
use crate::leadership::tenure::{ShardId, Tenure};

/// How long the first shot waits; each further one waits twice as long, up to [`SHOT_MAX`].
const SHOT: Duration = Duration::from_millis(15);
/// Longest shot. Beyond librdkafka's own 500 ms timer, so that a broker that needs that long still lets us in.
const SHOT_MAX: Duration = Duration::from_millis(1600);
/// After this a fence fails, and the caller tries again while the tenure lasts.
const FENCE_MAX: Duration = Duration::from_secs(8);
/// How long a transaction may take on a producer with outdated properties: far more than one that works needs.
const HELD_UP: Duration = Duration::from_secs(1);
/// How often it is looked whether the properties are outdated, while a transaction takes longer than that.
const HELD_UP_LOOK: Duration = Duration::from_millis(100);
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
    /// As before, and the reason was heard: a broker that is away, or does not let us in.
    #[error("no answer from the transaction coordinator{why}")]
    Unreachable {
        /// `: ` and what was heard, with what mends it.
        why: String,
    },
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
            Self::Timeout(_) | Self::Unreachable { .. } | Self::Thread(_) => Class::Transient,
            Self::Refused { .. } | Self::Create(_) | Self::Lost => Class::Fatal,
        }
    }
}

/// Pre-connected producers of one shard, kept warm by a thread of their own.
pub struct Warm {
    settings: Arc<Settings>,
    shard: ShardId,
    shelf: Arc<Shelf>,
    refill: Option<mpsc::SyncSender<()>>,
    keeper: Option<JoinHandle<()>>,
}

impl Warm {
    /// Starts keeping producers warm. `topics` proves that the topics were looked at.
    pub fn start(settings: Arc<Settings>, topics: Topics, shard: ShardId) -> Result<Self, Error> {
        let shelf = Arc::new(Shelf::new(Arc::clone(&settings), topics, shard));
        let (refill, asked) = mpsc::sync_channel(1);
        let kept = Arc::clone(&shelf);
        let keeper = thread::Builder::new()
            .name(format!("kafka-warm-{shard}"))
            .spawn(move || keep_warm(&kept, &asked))
            .map_err(Error::Thread)?;
        Ok(Self { settings, shard, shelf, refill: Some(refill), keeper: Some(keeper) })
    }

    /// How many producers are connected now.
    pub fn connected(&self) -> usize {
        self.shelf.connected()
    }

    /// Whether Kafka answered a moment ago.
    pub fn is_answered(&self) -> bool {
        self.shelf.is_answered()
    }

    /// Why it does not, where that was heard: to be put behind a sentence.
    pub(super) fn why(&self) -> String {
        self.shelf.why()
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
        let shots =
            Shots { settings: Arc::clone(&self.settings), tenure: tenure.clone(), shelf: Arc::clone(&self.shelf) };
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
        result.map(|generation| Fenced {
            line: Line::new(self.shard, commands),
            age: Age { shelf: Arc::clone(&self.shelf), generation },
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

/// How old the properties are that a producer was made with.
pub(super) struct Age {
    shelf: Arc<Shelf>,
    generation: u64,
}

impl Age {
    /// Whether take-overs use newer ones by now.
    pub(super) fn is_outdated(&self) -> bool {
        self.generation < self.shelf.generation()
    }

    /// Returns once a transaction that begins now has no more to hope for: it should have ended long ago, and Kafka lets
    /// others in by now, but perhaps not this one any more. It would only try until its time is over.
    pub(super) async fn holds_up(&self) {
        tokio::time::sleep(HELD_UP).await;
        while !self.is_outdated() {
            tokio::time::sleep(HELD_UP_LOOK).await;
        }
    }
}

/// A shard whose earlier producers are refused. Its changelog's end is final once the barrier is committed.
pub struct Fenced {
    pub(super) line: Line,
    pub(super) age: Age,
    pub(super) settings: Arc<Settings>,
    pub(super) holder: String,
    /// Unique per fence, whatever `--identity` says: a restore that took an older barrier for its own would know too
    /// little.
    pub(super) nonce: String,
}

struct Shots {
    settings: Arc<Settings>,
    tenure: Tenure,
    shelf: Arc<Shelf>,
}

/// The publishing thread of one tenure: fences, then commits what it is given until its [`Line`] is dropped.
fn publish(shots: Shots, answer: oneshot::Sender<Result<u64, Error>>, orders: &mpsc::Receiver<transaction::Order>) {
    let result = shots.fire();
    let (verdict, live) = match result {
        Ok((live, generation)) => (Ok(generation), Some(live)),
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
    /// The producer that was let in, and the generation of its properties.
    fn fire(&self) -> Result<(Live, u64), Error> {
        let (started, mut slice, mut last) = (crate::clock::monotonic(), SHOT, None);
        while started.elapsed() < FENCE_MAX {
            let Made { instance, generation } = self.shelf.take().map_err(Error::Create)?;
            // By the clock as well: a process that was frozen here is over before anybody could tell it so. Right before
            // the shot, since making a producer takes its time, and who is over must not fence his successor.
            if self.tenure.is_over(tokio::time::Instant::now()) {
                producer::discard(instance);
                return Err(Error::Ended { shard: self.tenure.shard });
            }
            match instance.init_transactions(slice) {
                Ok(()) => {
                    debug!(shard = %self.tenure.shard, took = ?started.elapsed(), "fenced");
                    return Live::start(instance).map(|live| (live, generation)).map_err(Error::Thread);
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
        match self.shelf.why() {
            why if why.is_empty() => Err(Error::Timeout(last)),
            why => Err(Error::Unreachable { why }),
        }
    }
}

fn refused(settings: &Settings, shard: ShardId, source: KafkaError) -> Error {
    let grant = source.rdkafka_error_code().and_then(|code| settings.grant(shard, Asked::Produce, code));
    Error::Refused { mend: to_mend(grant), source }
}

/// Whether asking again cannot help. Whoever loses a race of two fences is told `Fenced`, and may well win the next;
/// whoever is not let in may be after its secrets are rotated.
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
