//! One transactional producer: librdkafka's instance, what its callbacks tell, and the thread that serves them.
//!
//! ```text
//!  publishing thread ──send──▶ librdkafka ──▶ broker
//!        ▲ unpark                   │
//!        └── Reports ◀── polling thread (delivery reports, errors, logs)
//! ```
//! librdkafka's transactional calls block until delivery reports are served, so a second thread serves them. Dropping
//! an instance may take half a second: [`discard`] does it on a thread of its own.

use std::{
    sync::{
        Arc, Mutex, OnceLock, PoisonError,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread::{self, JoinHandle, Thread},
    time::{Duration, Instant},
};

use rdkafka::{
    ClientConfig, ClientContext,
    config::{FromClientConfigAndContext, RDKafkaLogLevel},
    error::{KafkaError, KafkaResult, RDKafkaErrorCode},
    message::DeliveryResult,
    producer::{BaseProducer, Producer, ProducerContext},
};
use tracing::{debug, warn};

use super::reach::Reach;

/// How long a thread waits for librdkafka before it looks whether to stop. Not whole milliseconds: rdkafka waits for those
/// that are left and turns in circles for the rest, which after 100 ms is almost one more, a hundredth of a core.
pub(super) const POLL: Duration = Duration::from_micros(100_050);

/// How long an instance is listened to at a time, and how often: each line takes some ten microseconds.
const LISTEN: Duration = Duration::from_millis(5);
const LISTENS_MAX: usize = 40;

/// An instance that has not been initialised for transactions yet.
pub(super) type Instance = BaseProducer<Reports>;

/// What librdkafka's callbacks told since the last [`Reports::reset`].
#[derive(Default)]
pub(super) struct Reports {
    delivered: AtomicUsize,
    /// How many deliveries the publishing thread waits for; `usize::MAX` while it still sends.
    awaited: AtomicUsize,
    failed: AtomicBool,
    /// The first record that failed: its number in the batch, and why.
    first_failure: Mutex<Option<(usize, RDKafkaErrorCode)>>,
    /// Any transport error: the answer to a transactional request may be a retried one (INV-10).
    disturbed: AtomicBool,
    publisher: OnceLock<Thread>,
    /// Where the reasons of such errors are kept.
    reach: Reach,
}

impl Reports {
    /// Forgets the last transaction. Only while nothing is in flight.
    pub(super) fn reset(&self) {
        self.delivered.store(0, Ordering::SeqCst);
        self.awaited.store(usize::MAX, Ordering::SeqCst);
        self.failed.store(false, Ordering::SeqCst);
        self.disturbed.store(false, Ordering::SeqCst);
        *self.first_failure.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    /// Waits until `sent` records were reported, or one failed, or `deadline` passed (then false).
    pub(super) fn wait(&self, sent: usize, deadline: Instant) -> bool {
        self.awaited.store(sent, Ordering::SeqCst);
        loop {
            if self.delivered.load(Ordering::SeqCst) >= sent || self.failed.load(Ordering::SeqCst) {
                return true;
            }
            let now = crate::clock::monotonic();
            if now >= deadline {
                return false;
            }
            thread::park_timeout(deadline - now);
        }
    }

    /// How many records were reported, delivered or not.
    pub(super) fn delivered(&self) -> usize {
        self.delivered.load(Ordering::SeqCst)
    }

    /// The first record that failed.
    pub(super) fn failure(&self) -> Option<(usize, RDKafkaErrorCode)> {
        *self.first_failure.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether a connection had trouble since the last reset.
    pub(super) fn disturbed(&self) -> bool {
        self.disturbed.load(Ordering::SeqCst)
    }
}

impl ClientContext for Reports {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, text: &str) {
        log(level, facility, text);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        // Being fenced is a change of role; the transactional call that follows reports it.
        debug!(%error, reason, "kafka producer error");
        self.reach.heard(&error, reason);
        self.disturbed.store(true, Ordering::SeqCst);
    }
}

impl ProducerContext for Reports {
    /// Number of the record in its batch.
    type DeliveryOpaque = usize;

    fn delivery(&self, result: &DeliveryResult<'_>, number: usize) {
        if let Err((error, _)) = result {
            let code = error.rdkafka_error_code().unwrap_or(RDKafkaErrorCode::Unknown);
            self.first_failure.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert((number, code));
            self.failed.store(true, Ordering::SeqCst);
        }
        let delivered = self.delivered.fetch_add(1, Ordering::SeqCst) + 1;
        if result.is_err() || delivered >= self.awaited.load(Ordering::SeqCst) {
            self.publisher.get().inspect(|thread| thread.unpark());
        }
    }
}

/// librdkafka's log lines as ours. Its warnings about options that only the other kind of client uses are not news.
pub(super) fn log(level: RDKafkaLogLevel, facility: &str, text: &str) {
    match level {
        _ if facility == "CONFWARN" => debug!(facility, text, "librdkafka"),
        RDKafkaLogLevel::Emerg | RDKafkaLogLevel::Alert | RDKafkaLogLevel::Critical | RDKafkaLogLevel::Error => {
            warn!(facility, text, "librdkafka");
        }
        _ => debug!(facility, text, "librdkafka"),
    }
}

/// Creates an instance, whose troubles are told to `reach`. No connection is made yet.
pub(super) fn create(config: &ClientConfig, reach: &Reach) -> KafkaResult<Instance> {
    BaseProducer::from_config_and_context(config, Reports { reach: reach.clone(), ..Reports::default() })
}

/// Hears what an instance without a polling thread has to say: errors of connections, log lines.
pub(super) fn listen(instance: &Instance) {
    // Bounded, since it may go on talking.
    for _ in 0..LISTENS_MAX {
        if instance.in_flight_count() == 0 {
            return;
        }
        instance.poll(LISTEN);
    }
}

/// Drops an instance on a thread of its own: its timers must end soon, and our caller must not wait for it.
pub(super) fn discard<T: Send + 'static>(instance: T) {
    // If no thread can be had, the closure (and the instance with it) is dropped here: late, but never left running.
    if let Err(error) = thread::Builder::new().name("kafka-discard".into()).spawn(move || drop(instance)) {
        warn!(%error, "no thread to drop a kafka client on");
    }
}

/// The live producer of one shard: served by its polling thread, used by the thread that made it.
pub(super) struct Live {
    instance: Arc<Instance>,
    stop: Arc<AtomicBool>,
    poller: Option<JoinHandle<()>>,
}

impl Live {
    /// Starts the polling thread. Call on the thread that will publish.
    pub(super) fn start(instance: Arc<Instance>) -> std::io::Result<Self> {
        instance.context().publisher.get_or_init(thread::current);
        let stop = Arc::new(AtomicBool::new(false));
        let (served, asked) = (Arc::clone(&instance), Arc::clone(&stop));
        let poller = thread::Builder::new().name("kafka-poll".into()).spawn(move || {
            while !asked.load(Ordering::Relaxed) {
                served.poll(POLL);
            }
        })?;
        Ok(Self { instance, stop, poller: Some(poller) })
    }

    /// What the callbacks told.
    pub(super) fn reports(&self) -> &Reports {
        self.instance.context()
    }
}

impl std::ops::Deref for Live {
    type Target = Instance;

    fn deref(&self) -> &Instance {
        &self.instance
    }
}

impl Drop for Live {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(poller) = self.poller.take()
            && poller.join().is_err()
        {
            warn!("kafka polling thread panicked");
        }
    }
}
