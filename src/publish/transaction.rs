//! One transaction: events, and the changelog records that remember them, visible together or not at all.
//!
//! ```text
//!  async worker ── Order{batch, traceparent} ──▶ publishing thread: begin, send all, await every delivery, commit
//!               ◀────────── Verdict ───────────
//! ```
//! The thread encodes too, so that the worker's thread stays free.
//!
//! INV-10: a producer whose last transactional request was not cleanly answered never begins another transaction. The
//! client retries requests by itself, and without KIP-890 a late one would end a later transaction. Its journal is
//! spent: [`CommitError::Spent`].
//!
//! Must not: keep a batch after its verdict, send a record twice, or decide what happened after an unknown outcome.

use std::{
    sync::mpsc,
    thread,
    time::{Duration, Instant},
};

use rdkafka::{
    error::{KafkaError, RDKafkaErrorCode},
    message::{Header, OwnedHeaders},
    producer::{BaseRecord, Producer},
};
use tokio::sync::oneshot;
use tracing::{Span, debug, info_span};

use super::{
    Batch, changelog,
    error::CommitError,
    kind::{Kind, is_fenced},
    producer::Live,
    record,
    rights::{Asked, to_mend},
    settings::{RETRY_PAUSE, Settings, TRANSACTION_TIMEOUT},
};
use crate::{
    failpoint,
    leadership::tenure::ShardId,
    lifecycle::event::EventType,
    telemetry::otlp::{stories::Told, traces},
    watch::pod::PodUid,
};

/// A commit or abort that was answered later than this may have been asked for twice: not clean. librdkafka asks again
/// by itself when a connection breaks, and tells nobody; but never within 80 % of its pause.
const ACK_MAX: Duration = RETRY_PAUSE.checked_sub(Duration::from_millis(250)).expect("the pause is longer");
/// What ending a transaction may take at least, however late it is asked for: a broker may have answered the records late.
const END_MIN: Duration = Duration::from_secs(1);
/// From an acknowledgement to the next transaction. Measured back to back, one event each: p99 28 ms without, 8 ms with
/// 1 ms, and longer ones only add themselves.
const DISTANCE: Duration = Duration::from_millis(1);
/// Pause while librdkafka's queue is full.
const QUEUE_FULL_PAUSE: Duration = Duration::from_millis(1);

/// A record `meta/...`, encoded; without a value a tombstone.
pub(super) type Meta = (&'static str, Option<Vec<u8>>);

/// What the publishing thread is asked to commit.
pub(super) struct Order {
    batch: Batch,
    /// Records `meta/...` beside the batch's position, already encoded.
    meta: Vec<Meta>,
    span: Span,
    answer: oneshot::Sender<Verdict>,
}

struct Verdict {
    result: Result<(), CommitError>,
    /// Whether the producer may begin another transaction (INV-10).
    clean: bool,
}

/// The way to a publishing thread. Dropping it ends the thread and its producer.
pub(super) struct Line {
    shard: ShardId,
    orders: mpsc::SyncSender<Order>,
    spent: bool,
}

impl Line {
    pub(super) fn new(shard: ShardId, orders: mpsc::SyncSender<Order>) -> Self {
        Self { shard, orders, spent: false }
    }

    /// Whose it is.
    pub(super) fn shard(&self) -> ShardId {
        self.shard
    }

    /// Whether an answer was not clean, so that nothing more is sent through it (INV-10).
    pub(super) fn is_spent(&self) -> bool {
        self.spent
    }

    /// Commits in one transaction. If this future is dropped before its end, the outcome is unknown and the line spent.
    pub(super) async fn commit(&mut self, batch: Batch, meta: Vec<Meta>) -> Result<(), CommitError> {
        let shard = self.shard;
        if std::mem::replace(&mut self.spent, true) {
            return Err(CommitError::Spent { shard });
        }
        let span = info_span!(
            "publish",
            otel.kind = "producer",
            %shard,
            events = batch.events.len(),
            bytes = tracing::field::Empty,
            messaging.system = "kafka",
            messaging.operation.name = "send",
            messaging.operation.type = "send",
            messaging.batch.message_count = batch.events.len(),
        );
        let (answer, answered) = oneshot::channel();
        if self.orders.try_send(Order { batch, meta, span, answer }).is_err() {
            return Err(CommitError::Spent { shard });
        }
        let lost = |_| CommitError::Unknown { shard, source: "publishing thread ended without an answer".into() };
        let verdict = answered.await.map_err(lost)?;
        self.spent = !verdict.clean;
        verdict.result
    }
}

/// Commits one order after the other until the line is dropped or an answer was not clean.
pub(super) fn serve(live: Live, shard: ShardId, settings: &Settings, orders: &mpsc::Receiver<Order>) {
    let mut publisher = Publisher {
        topics: EventType::ALL.map(|event_type| settings.event_topic(event_type)),
        live,
        shard,
        settings,
        value: Vec::with_capacity(64 * 1024),
        sizes: Vec::new(),
        acknowledged: None,
    };
    while let Ok(order) = orders.recv() {
        let Order { batch, meta, span, answer } = order;
        let began = crate::clock::now();
        let verdict = span.in_scope(|| publisher.transact(&batch, &meta));
        let (committed, is_told) = (crate::clock::now(), verdict.result.is_ok());
        span.record("bytes", publisher.sizes.iter().sum::<usize>());
        let (clean, transaction) = (verdict.clean, traces::context(&span));
        drop(span);
        if answer.send(verdict).is_err() {
            debug!(%shard, "nobody waits for the verdict any more");
        }
        if is_told {
            // After the answer: nobody waits for spans.
            let topics = publisher.topics.as_slice();
            settings.stories.tell(&Told { events: &batch.events, topics, began, committed, transaction });
        }
        if !clean {
            return;
        }
    }
}

struct Publisher<'a> {
    live: Live,
    shard: ShardId,
    settings: &'a Settings,
    /// Of [`EventType::ALL`], in its order.
    topics: [String; EventType::ALL.len()],
    /// Where values are encoded; librdkafka copies.
    value: Vec<u8>,
    /// Bytes of each value sent in this transaction.
    sizes: Vec<usize>,
    /// When the last transaction was acknowledged.
    acknowledged: Option<Instant>,
}

/// librdkafka holds no record any more. A commit takes it, since `commit_transaction` flushes what it finds in flight in
/// slices of 100 ms. Not asserted by the queue's length: errors of connections stand in the same queue.
struct Drained(());

/// Why a transaction could not be committed, before it is decided what that means.
enum Failure {
    /// librdkafka or the broker refused something.
    Kafka(KafkaError),
    /// A record, by its number in the batch.
    Record(usize, RDKafkaErrorCode),
    /// Nothing was answered within the transaction's time.
    Late,
    /// A record breaks a rule of ours.
    Rule { key: String, reason: String },
}

impl Publisher<'_> {
    fn transact(&mut self, batch: &Batch, meta: &[Meta]) -> Verdict {
        self.sizes.clear();
        self.live.reports().reset();
        self.keep_distance();
        let began = crate::clock::monotonic();
        if let Err(error) = self.live.begin_transaction() {
            // Nothing was sent; but a producer that cannot begin is of no use any more.
            return self.failed(batch, &Failure::Kafka(error), None);
        }
        // Leaves time for the commit itself.
        let deadline = began + TRANSACTION_TIMEOUT * 9 / 10;
        let sent = self.send_all(batch, meta, deadline).and_then(|()| self.await_deliveries(deadline));
        match sent {
            Ok(drained) => self.commit(batch, began, drained),
            Err(failure) => self.failed(batch, &failure, Some(began)),
        }
    }

    /// The broker writes a transaction's markers after it acknowledged the commit. Until it has, it answers the next
    /// transaction with "concurrent transactions", and librdkafka asks again only after 20 ms.
    fn keep_distance(&self) {
        let passed = self.acknowledged.map_or(DISTANCE, |at| at.elapsed());
        if let Some(rest) = DISTANCE.checked_sub(passed) {
            crate::clock::pause(rest);
        }
    }

    fn send_all(&mut self, batch: &Batch, meta: &[Meta], deadline: Instant) -> Result<(), Failure> {
        for event in &batch.events {
            self.value.clear();
            let refused = |reason: String| Failure::Rule { key: event.event_id.to_string(), reason };
            if event.execution_id.is_empty() || event.sequence == 0 {
                return Err(refused("execution_id is empty or sequence is 0".into()));
            }
            record::write_value(&mut self.value, event, self.settings.service()).map_err(|e| refused(e.to_string()))?;
            let traceparent = self.settings.stories.traceparent(event).to_string();
            let headers = record::headers(event, &self.settings.identity().cluster_id, Some(&traceparent));
            let topic = event.body.event_type() as usize;
            self.send(&self.topics[topic], None, &event.execution_id, Some(&self.value), Some(&headers), deadline)?;
            self.sizes.push(self.value.len());
        }
        for (uid, tracked) in &batch.records {
            self.value.clear();
            if let Some(tracked) = tracked {
                changelog::write_tracked(&mut self.value, uid, tracked)
                    .map_err(|e| Failure::Rule { reason: e.reason.to_string(), key: e.key })?;
            }
            let value = tracked.as_ref().map(|_| self.value.as_slice());
            self.remember(&changelog::pod_key(uid), value, deadline)?;
            self.sizes.push(value.map_or(0, <[u8]>::len));
        }
        for (key, value) in meta {
            self.remember(key, value.as_deref(), deadline)?;
            self.sizes.push(value.as_ref().map_or(0, Vec::len));
        }
        if let Some(position) = &batch.position {
            let value = serde_json::to_vec(position)
                .map_err(|e| Failure::Rule { key: changelog::POSITION.into(), reason: e.to_string() })?;
            self.remember(changelog::POSITION, Some(&value), deadline)?;
            self.sizes.push(value.len());
        }
        Ok(())
    }

    fn remember(&self, key: &str, value: Option<&[u8]>, deadline: Instant) -> Result<(), Failure> {
        let partition = i32::try_from(self.shard.0).expect("Kafka counts partitions in i32, and shards are checked");
        self.send(self.settings.changelog_topic(), Some(partition), key, value, None, deadline)
    }

    /// Hands one record to librdkafka, as number `sizes.len()` of the batch.
    fn send(
        &self,
        topic: &str,
        partition: Option<i32>,
        key: &str,
        value: Option<&[u8]>,
        headers: Option<&record::Headers<'_>>,
        deadline: Instant,
    ) -> Result<(), Failure> {
        let number = self.sizes.len();
        let mut record = BaseRecord::with_opaque_to(topic, number).key(key);
        record.partition = partition;
        record.payload = value;
        record.headers = headers.map(|headers| {
            headers.iter().fold(OwnedHeaders::new_with_capacity(headers.len()), |into, (key, value)| {
                into.insert(Header { key, value: Some(value.as_bytes()) })
            })
        });
        loop {
            match self.live.send(record) {
                Ok(()) => return Ok(()),
                Err((error, back)) => match error.rdkafka_error_code() {
                    Some(RDKafkaErrorCode::QueueFull) if crate::clock::monotonic() < deadline => {
                        record = back;
                        crate::clock::pause(QUEUE_FULL_PAUSE);
                    }
                    Some(code @ RDKafkaErrorCode::MessageSizeTooLarge) => return Err(Failure::Record(number, code)),
                    _ => return Err(Failure::Kafka(error)),
                },
            }
        }
    }

    /// Waits until librdkafka holds nothing any more: the reports alone arrive a moment before its queue is empty.
    fn await_deliveries(&self, deadline: Instant) -> Result<Drained, Failure> {
        let in_time = self.live.reports().wait(self.sizes.len(), deadline);
        if let Some((number, code)) = self.live.reports().failure() {
            return Err(self.reason_of(number, code));
        }
        if !in_time {
            return Err(Failure::Late);
        }
        self.drained_by(deadline).ok_or(Failure::Late)
    }

    /// A record that librdkafka threw away failed for its transaction's reason. Beginning another one is refused then, for
    /// just that reason, and changes nothing.
    fn reason_of(&self, number: usize, code: RDKafkaErrorCode) -> Failure {
        let is_purged = matches!(code, RDKafkaErrorCode::PurgeQueue | RDKafkaErrorCode::PurgeInflight);
        match is_purged.then(|| self.live.begin_transaction()) {
            Some(Err(error)) if error.rdkafka_error_code() != Some(RDKafkaErrorCode::State) => Failure::Kafka(error),
            _ => Failure::Record(number, code),
        }
    }

    fn drained_by(&self, deadline: Instant) -> Option<Drained> {
        while self.live.in_flight_count() > 0 {
            if crate::clock::monotonic() >= deadline {
                return None;
            }
            thread::yield_now();
        }
        Some(Drained(()))
    }

    fn commit(&mut self, batch: &Batch, began: Instant, Drained(()): Drained) -> Verdict {
        assert_eq!(
            self.live.reports().delivered(),
            self.sizes.len(),
            "INV-2: every record of a transaction is delivered before its commit is asked for"
        );
        // Not of a barrier or a position: with events at stake.
        let tells = !batch.events.is_empty();
        if tells {
            failpoint::reached("sent");
        }
        let asked = crate::clock::monotonic();
        let mut clean = true;
        loop {
            // On the same call: a shorter limit would only leave the commit running in the background.
            match self.live.commit_transaction(left_of(began)) {
                Ok(()) => {
                    if tells {
                        failpoint::reached("committed");
                    }
                    self.acknowledged = Some(crate::clock::monotonic());
                    clean &= asked.elapsed() < ACK_MAX && !self.live.reports().disturbed();
                    return Verdict { result: Ok(()), clean };
                }
                Err(error) => match Kind::of(&error) {
                    // The commit goes on in the background; only the same call again may follow.
                    Kind::Again if began.elapsed() < TRANSACTION_TIMEOUT => clean = false,
                    Kind::Abort => return self.failed(batch, &Failure::Kafka(error), Some(began)),
                    Kind::Fenced => return self.fenced(error),
                    Kind::Again | Kind::Unknown => return self.unknown(error),
                },
            }
        }
    }

    /// Ends a transaction, if it `began`, whose commit was never asked for, or was answered with "abort".
    fn failed(&mut self, batch: &Batch, failure: &Failure, began: Option<Instant>) -> Verdict {
        let fenced = match failure {
            Failure::Kafka(error) => Kind::of(error) == Kind::Fenced,
            Failure::Record(_, code) => is_fenced(*code),
            Failure::Late | Failure::Rule { .. } => false,
        };
        let shard = self.shard;
        if fenced {
            let source = failure.text().into();
            return Verdict { result: Err(CommitError::Fenced { shard, source }), clean: false };
        }
        match began.map_or(Ok(false), |began| self.abort(began)) {
            Err(error) => self.fenced(error),
            Ok(clean) => {
                // Refused before anything went wrong at the broker: a clean abort leaves the producer usable.
                let ours = matches!(failure, Failure::Rule { .. }) || self.refused_locally(failure);
                Verdict { result: Err(self.explain(batch, failure)), clean: clean && ours }
            }
        }
    }

    /// Whether the record was refused before it was handed to librdkafka: those that were have their size noted.
    fn refused_locally(&self, failure: &Failure) -> bool {
        matches!(failure, Failure::Record(number, _) if *number == self.sizes.len())
    }

    fn explain(&self, batch: &Batch, failure: &Failure) -> CommitError {
        match failure {
            Failure::Record(number, RDKafkaErrorCode::MessageSizeTooLarge) => {
                let number = if self.refused_locally(failure) { *number } else { self.largest() };
                match name(batch, number) {
                    Some((pod_uid, event_id)) => {
                        CommitError::TooLarge { pod_uid, event_id, exact: self.refused_locally(failure) }
                    }
                    None => CommitError::Aborted { shard: self.shard, source: failure.text().into() },
                }
            }
            Failure::Rule { key, reason } => {
                CommitError::Refused { pod_uid: batch.pod_of(key), key: key.clone(), reason: reason.clone() }
            }
            _ => {
                let of = match failure {
                    Failure::Record(number, _) => format!("topic {}, ", self.topic_of(batch, *number)),
                    _ => String::new(),
                };
                let source = format!("{of}{}{}", failure.text(), to_mend(self.grant(batch, failure))).into();
                CommitError::Aborted { shard: self.shard, source }
            }
        }
    }

    fn grant(&self, batch: &Batch, failure: &Failure) -> Option<String> {
        let (number, code) = match failure {
            Failure::Record(number, code) => (*number, *code),
            // Of which topic is not said. The changelog could be written to a moment ago, when the barrier was committed.
            Failure::Kafka(error) => (0, error.rdkafka_error_code()?),
            Failure::Late | Failure::Rule { .. } => return None,
        };
        self.settings.grant(self.shard, Asked::Write(self.topic_of(batch, number)), code)
    }

    /// Where the record with this number goes.
    fn topic_of(&self, batch: &Batch, number: usize) -> &str {
        let event = batch.events.get(number).map(|event| self.topics[event.body.event_type() as usize].as_str());
        event.unwrap_or_else(|| self.settings.changelog_topic())
    }

    /// The broker refuses batches, not records: the largest record is the one to shrink.
    fn largest(&self) -> usize {
        self.sizes.iter().enumerate().max_by_key(|(_, size)| **size).map_or(0, |(number, _)| number)
    }

    /// Aborts. `Ok(clean)`; an error only if fenced. Nothing of the batch becomes visible whatever the answer: its
    /// commit was never asked for, and the next fence or the timeout ends the transaction.
    fn abort(&self, began: Instant) -> Result<bool, KafkaError> {
        let asked = crate::clock::monotonic();
        // Aborting purges the queues, and so has reports to be served.
        match self.live.abort_transaction(left_of(began)) {
            // Late reports of purged records must not be taken for those of the next transaction.
            Ok(()) => {
                let drained = self.drained_by(asked + ACK_MAX);
                Ok(drained.is_some() && asked.elapsed() < ACK_MAX && !self.live.reports().disturbed())
            }
            Err(error) if Kind::of(&error) == Kind::Fenced => Err(error),
            Err(error) => {
                debug!(shard = %self.shard, %error, "abort was not answered cleanly");
                Ok(false)
            }
        }
    }

    fn fenced(&self, error: KafkaError) -> Verdict {
        Verdict { result: Err(CommitError::Fenced { shard: self.shard, source: Box::new(error) }), clean: false }
    }

    fn unknown(&self, error: KafkaError) -> Verdict {
        Verdict { result: Err(CommitError::Unknown { shard: self.shard, source: Box::new(error) }), clean: false }
    }
}

impl Failure {
    fn text(&self) -> String {
        match self {
            Self::Kafka(error) => error.to_string(),
            Self::Record(number, code) => format!("record {number}: {code}"),
            Self::Late => "no acknowledgement within the transaction's time".into(),
            Self::Rule { key, reason } => format!("{key}: {reason}"),
        }
    }
}

/// All that is left of a transaction's time.
fn left_of(began: Instant) -> Duration {
    TRANSACTION_TIMEOUT.saturating_sub(began.elapsed()).max(END_MIN)
}

/// Whose record has this number: events first, then changelog records.
fn name(batch: &Batch, number: usize) -> Option<(PodUid, Option<uuid::Uuid>)> {
    match batch.events.get(number) {
        Some(event) => Some((event.pod_uid.clone(), Some(event.event_id))),
        None => batch.records.get(number - batch.events.len()).map(|(uid, _)| (uid.clone(), None)),
    }
}
