//! Producers of one shard that a standby keeps connected, and the thread that keeps them so.
//!
//! ```text
//!  keeper, each second: use a connection, fill the shelf
//!                       properties changed? ──▶ one producer with them; Kafka lets it in ──▶ the others go
//!  fence ── take() ──▶ a producer
//! ```
//! Promises: what is on the shelf stays there until Kafka has let its successor in (`rotation.rs`).

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError, mpsc},
    time::{Duration, Instant},
};

use rdkafka::{
    error::{KafkaError, KafkaResult, RDKafkaErrorCode},
    producer::Producer,
};
use tracing::{debug, info, warn};

use super::{
    producer::{self, Instance},
    reach::Reach,
    rights::to_mend,
    settings::{self, Settings},
    topics::Topics,
};
use crate::leadership::tenure::ShardId;

/// Instances that a standby keeps connected: two shots are usual, a third is for slow aborts.
const INSTANCES: usize = 3;
/// How often a connection is used, each in turn: far below the broker's `connections.max.idle.ms` of 10 minutes, and
/// often enough to know whether Kafka answers. Also how often it is looked whether properties changed.
const KEEP_WARM: Duration = Duration::from_secs(1);
/// Kafka answers if it did within this time: two looks may fail.
const ANSWERED_MAX: Duration = Duration::from_millis(2500);
/// Longest look at the metadata while keeping warm: below librdkafka's 500 ms timer, see [`producer::discard`].
const METADATA_MAX: Duration = Duration::from_millis(250);

/// Connected producers of one shard.
pub(super) struct Shelf {
    settings: Arc<Settings>,
    topics: Topics,
    shard: ShardId,
    kept: Mutex<Kept>,
    reach: Reach,
}

struct Kept {
    instances: Vec<Arc<Instance>>,
    /// Of which generation of the properties they are.
    generation: u64,
    /// When Kafka last answered one of them.
    answered: Option<Instant>,
}

/// A producer and the generation of the properties that it was made with.
pub(super) struct Made {
    pub(super) instance: Arc<Instance>,
    pub(super) generation: u64,
}

impl Shelf {
    /// An empty one.
    pub(super) fn new(settings: Arc<Settings>, topics: Topics, shard: ShardId) -> Self {
        let generation = settings.generation();
        let kept = Mutex::new(Kept { instances: Vec::new(), generation, answered: None });
        Self { settings, topics, shard, kept, reach: Reach::default() }
    }

    /// How many are connected now.
    pub(super) fn connected(&self) -> usize {
        self.kept().instances.len()
    }

    /// Whether Kafka answered a moment ago.
    pub(super) fn is_answered(&self) -> bool {
        self.kept().answered.is_some_and(|at| at.elapsed() < ANSWERED_MAX)
    }

    /// Why Kafka does not answer, where that was heard: to be put behind a sentence.
    pub(super) fn why(&self) -> String {
        self.reach.why()
    }

    /// The generation of the properties that take-overs use.
    pub(super) fn generation(&self) -> u64 {
        self.kept().generation
    }

    /// A producer to fence with.
    pub(super) fn take(&self) -> Result<Made, settings::Error> {
        let kept = {
            let mut kept = self.kept();
            let generation = kept.generation;
            // The keeper may hold one for a look at the metadata: rather another. One that is refused and lives on would
            // fence us by its timer.
            let free = kept.instances.iter().rposition(|instance| Arc::strong_count(instance) == 1);
            let one = free.map(|index| kept.instances.remove(index)).or_else(|| kept.instances.pop());
            one.map(|instance| Made { instance, generation })
        };
        if let Some(made) = kept {
            return Ok(made);
        }
        // The generation first: properties that change in between are newer than it says, and made use of once more.
        let generation = self.settings.generation();
        let instance = self.make(&self.settings).map_err(|error| self.settings.client_error(error))?;
        self.connect(&instance);
        Ok(Made { instance, generation })
    }

    fn make(&self, settings: &Settings) -> Result<Arc<Instance>, KafkaError> {
        producer::create(&settings.producer(self.shard, self.topics.wire_bytes_max), &self.reach).map(Arc::new)
    }

    /// Uses the connection, so that neither side closes it, and serves what the client has to say.
    fn connect(&self, instance: &Instance) -> bool {
        self.look(instance).is_ok()
    }

    /// As [`Shelf::connect`]; what Kafka answered, if it did: an error, where it does not show the changelog.
    fn look(&self, instance: &Instance) -> KafkaResult<Option<RDKafkaErrorCode>> {
        let changelog = self.settings.changelog_topic();
        let answered = instance.client().fetch_metadata(Some(changelog), METADATA_MAX);
        producer::listen(instance);
        let metadata = answered.inspect_err(|error| debug!(%error, "kafka does not answer a warm producer"))?;
        let topic = metadata.topics().iter().find(|topic| topic.name() == changelog);
        Ok(topic.and_then(|topic| topic.error()).map(RDKafkaErrorCode::from))
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn answered(&self) {
        self.kept().answered = Some(crate::clock::monotonic());
        self.reach.answered();
    }
}

/// Keeps the shelf full and warm until `asked` is closed; asked, it fills it at once.
pub(super) fn keep_warm(shelf: &Shelf, asked: &mpsc::Receiver<()>) {
    let mut renewal = Renewal::default();
    for turn in 0_usize.. {
        shelf.settings.refresh();
        shelf.use_one(turn);
        renewal.go_on(shelf);
        shelf.fill();
        if let Err(mpsc::RecvTimeoutError::Disconnected) = asked.recv_timeout(KEEP_WARM) {
            return;
        }
    }
}

impl Shelf {
    fn use_one(&self, turn: usize) {
        let next = {
            let kept = self.kept();
            kept.instances.get(turn % kept.instances.len().max(1)).cloned()
        };
        if next.is_some_and(|instance| self.connect(&instance)) {
            self.answered();
        }
    }

    fn fill(&self) {
        // Another shard's keeper may have renewed the properties: ours is to take part in it first.
        while self.connected() < INSTANCES && self.settings.generation() == self.generation() {
            match self.make(&self.settings) {
                Ok(instance) => {
                    let answered = self.connect(&instance);
                    self.kept().instances.push(instance);
                    if answered {
                        self.answered();
                    }
                }
                Err(error) => {
                    warn!(shard = %self.shard, error = %self.settings.client_error(error), "cannot create a producer");
                    return;
                }
            }
        }
    }

    /// Kafka has let this one in: it takes the place of all that are older.
    fn renewed(&self, Made { instance, generation }: Made) {
        self.settings.prove(generation);
        let old = {
            let mut kept = self.kept();
            kept.generation = generation;
            std::mem::replace(&mut kept.instances, vec![instance])
        };
        old.into_iter().for_each(producer::discard);
        self.answered();
        info!(shard = %self.shard, generation, "kafka lets clients with the changed properties in");
    }

    /// The settings that are to be used next, and their generation.
    fn next(&self) -> Option<(u64, Settings)> {
        let of_others = || {
            let generation = self.settings.generation();
            (generation != self.generation()).then(|| (generation, self.settings.as_ref().clone()))
        };
        self.settings.candidate().or_else(of_others)
    }
}

/// The way of changed properties into use.
#[derive(Default)]
struct Renewal {
    /// The one that is to be let in.
    candidate: Option<Made>,
    /// Why the newest generation cannot be used, as it was told.
    told: Option<(u64, String)>,
}

impl Renewal {
    fn go_on(&mut self, shelf: &Shelf) {
        let Some((wanted, settings)) = shelf.next() else {
            self.give_up();
            return;
        };
        if self.candidate.as_ref().is_none_or(|made| made.generation != wanted) {
            self.give_up();
            match shelf.make(&settings) {
                Ok(instance) => self.candidate = Some(Made { instance, generation: wanted }),
                Err(error) => return self.tell(wanted, settings.client_error(error).to_string()),
            }
        }
        let Some(made) = self.candidate.take() else { return };
        let why = match shelf.look(&made.instance) {
            Ok(None) => return shelf.renewed(made),
            // Who it is now may do less than who it was: to use it would end what works.
            Ok(Some(RDKafkaErrorCode::TopicAuthorizationFailed)) => {
                let grant = settings.grant_all(settings.changelog_topic());
                format!("kafka does not show us the changelog topic{}", to_mend(Some(grant)))
            }
            // A leader that is being chosen and the like: that passes.
            Ok(Some(code)) => format!("kafka does not show us the changelog topic: {code}"),
            Err(_) => format!("kafka does not answer{}", shelf.why()),
        };
        self.candidate = Some(made);
        self.tell(wanted, why);
    }

    /// What was to be let in was taken back, or changed again.
    fn give_up(&mut self) {
        self.candidate.take().into_iter().for_each(|made| producer::discard(made.instance));
    }

    /// Once for each reason: it is tried again each second.
    fn tell(&mut self, generation: u64, why: String) {
        let news = Some((generation, why));
        if news != self.told
            && let Some((_, why)) = &news
        {
            warn!(why, "changed kafka properties do not let us in yet, the old ones stay in use");
        }
        self.told = news;
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;
    use crate::publish::rights::tests::settings;

    #[test]
    fn a_producer_that_the_keeper_holds_is_taken_last() {
        let max = settings::RECORD_BYTES_MAX;
        let topics =
            Topics { wire_bytes_max: max, record_bytes_max: settings::record_bytes_max(max), advice: Vec::new() };
        let shelf = Shelf::new(Arc::new(settings()), topics, ShardId(0));
        let made = [(); 3].map(|()| shelf.make(&shelf.settings).unwrap());
        shelf.kept().instances.extend(made.iter().cloned());
        let [first, second, third] = made.each_ref().map(Arc::as_ptr);
        let held = made.into_iter().next_back();
        // As one that is being looked at: refused, it would live on and fence us half a second later.
        let order = [(); 3].map(|()| Arc::as_ptr(&shelf.take().unwrap().instance));
        assert_eq!(order, [second, first, third]);
        drop(held);
    }
}
