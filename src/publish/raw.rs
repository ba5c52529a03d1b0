//! Records as they stand elsewhere, to any partition, in transactions: what `reshard` copies and switches by.
//!
//! Nothing of this is in the way of a change of hands, so that it is simple rather than quick: one thread, one transaction
//! after the other. INV-10 holds here too: a producer whose answer was not clean is replaced by a new one.

use std::time::{Duration, Instant};

use rdkafka::{
    error::{KafkaError, RDKafkaErrorCode},
    producer::{BaseRecord, Producer as _},
};

use super::{
    Batch,
    changelog::{self, Barrier},
    error::CommitError,
    fence::Fenced,
    kind::Kind,
    producer::{self, Live},
    reach::Reach,
    rights::to_mend,
    settings::{self, Settings, TRANSACTION_TIMEOUT},
};
use crate::{clock, leadership::tenure::ShardId};

/// How long the coordinator may take to let us in: a predecessor's transaction is ended first.
const INIT_MAX: Duration = Duration::from_secs(30);
/// As for a leader's transactions: an answer that came later may have been asked for twice.
const ACK_MAX: Duration = Duration::from_millis(750);
/// Between two looks at what was delivered.
const LOOK: Duration = Duration::from_millis(1);

/// Why a transaction came to nothing.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No producer could be made.
    #[error("create a producer")]
    Create(#[source] settings::Error),
    /// The operating system gave no thread.
    #[error("start a thread")]
    Thread(#[source] std::io::Error),
    /// Kafka did not let us in.
    #[error("be let in by the transaction coordinator as {id}{why}")]
    Init {
        /// The transactional id.
        id: String,
        /// `: ` and what was heard.
        why: String,
        /// What it said.
        #[source]
        source: Box<KafkaError>,
    },
    /// Another process does the same.
    #[error("another process uses the transactional id {id}")]
    Fenced {
        /// The transactional id.
        id: String,
    },
    /// A record was refused, or the transaction was.
    #[error("a transaction was aborted: {why}")]
    Aborted {
        /// Why.
        why: String,
    },
    /// Committed or not: what stands in the topics says so.
    #[error("the outcome of a transaction is unknown")]
    Unknown(#[source] Box<KafkaError>),
}

/// A record as it is to stand there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// Where.
    pub topic: String,
    /// Which partition.
    pub shard: ShardId,
    /// Its key.
    pub key: String,
    /// Its bytes; `None`: a tombstone.
    pub value: Option<Vec<u8>>,
}

/// A producer of records as they are. Its calls block.
pub struct Writer {
    settings: Settings,
    id: String,
    wire_bytes_max: usize,
    live: Option<Live>,
}

impl Writer {
    /// As this transactional id, which nobody else uses; made when it is first needed.
    pub fn new(settings: Settings, id: String, wire_bytes_max: usize) -> Self {
        Self { settings, id, wire_bytes_max, live: None }
    }

    /// Whoever used the id before is refused from now on, and its open transaction is ended.
    ///
    /// # Errors
    /// When Kafka does not let us in.
    pub fn open(&mut self) -> Result<(), Error> {
        self.live = Some(self.taken()?);
        Ok(())
    }

    fn taken(&mut self) -> Result<Live, Error> {
        self.live.take().map_or_else(|| self.connect(), Ok)
    }

    fn connect(&self) -> Result<Live, Error> {
        let mut config = self.settings.producer(ShardId(0), self.wire_bytes_max);
        config.set("transactional.id", &self.id).set("client.id", "pod-monitor-reshard");
        let reach = Reach::default();
        let made = producer::create(&config, &reach);
        let instance = made.map_err(|error| Error::Create(self.settings.client_error(error)))?;
        let live = Live::start(instance.into()).map_err(Error::Thread)?;
        let init = |source: KafkaError| {
            let refused = source.rdkafka_error_code() == Some(RDKafkaErrorCode::TransactionalIdAuthorizationFailed);
            let mend = to_mend(refused.then(|| self.settings.grant_producing_as(&self.id)));
            Error::Init { id: self.id.clone(), why: reach.why() + &mend, source: Box::new(source) }
        };
        live.init_transactions(INIT_MAX).map_err(init)?;
        Ok(live)
    }

    /// Makes all of it visible, or nothing. `check` is asked when everything is written, right before the commit: if it
    /// says no, nothing becomes visible. `step`: the fail point between the two.
    ///
    /// # Errors
    /// As [`Error`] says; [`Error::Unknown`] only if the commit was asked for.
    pub fn commit(
        &mut self,
        records: &[Record],
        step: &'static str,
        check: impl FnOnce() -> Result<(), String>,
    ) -> Result<(), Error> {
        let id = self.id.clone();
        let live = self.taken()?;
        live.reports().reset();
        let began = clock::monotonic();
        let begun = live.begin_transaction().map_err(|error| Error::Aborted { why: error.to_string() });
        let deadline = began + TRANSACTION_TIMEOUT * 9 / 10;
        let ready =
            begun.and_then(|()| send(&live, records, deadline)).and_then(|()| delivered(&live, records, deadline));
        if let Err(error) = ready.and_then(|()| check().map_err(|why| Error::Aborted { why })) {
            // What it cannot end now the next one does, by being let in.
            drop(live.abort_transaction(ACK_MAX));
            producer::discard(live);
            return Err(error);
        }
        crate::failpoint::reached(step);
        let asked = clock::monotonic();
        let mut clean = true;
        loop {
            match live.commit_transaction(TRANSACTION_TIMEOUT) {
                Ok(()) => break,
                Err(error) => match Kind::of(&error) {
                    Kind::Again if asked.elapsed() < TRANSACTION_TIMEOUT => clean = false,
                    Kind::Fenced => return Err(Error::Fenced { id }),
                    Kind::Abort => {
                        drop(live.abort_transaction(ACK_MAX));
                        return Err(Error::Aborted { why: error.to_string() });
                    }
                    Kind::Again | Kind::Unknown => return Err(Error::Unknown(Box::new(error))),
                },
            }
        }
        if clean && asked.elapsed() < ACK_MAX && !live.reports().disturbed() {
            self.live = Some(live);
        } else {
            producer::discard(live);
        }
        Ok(())
    }
}

fn send(live: &Live, records: &[Record], deadline: Instant) -> Result<(), Error> {
    for (number, record) in records.iter().enumerate() {
        let partition = i32::try_from(record.shard.0).expect("Kafka counts partitions in i32, and shards are checked");
        let mut next = BaseRecord::with_opaque_to(&record.topic, number).key(&record.key).partition(partition);
        next.payload = record.value.as_deref();
        loop {
            match live.send(next) {
                Ok(()) => break,
                Err((error, back)) => match error.rdkafka_error_code() {
                    Some(RDKafkaErrorCode::QueueFull) if clock::monotonic() < deadline => {
                        next = back;
                        clock::pause(LOOK);
                    }
                    _ => return Err(Error::Aborted { why: format!("record {}: {error}", record.key) }),
                },
            }
        }
    }
    Ok(())
}

/// Waits until all were reported and librdkafka holds nothing any more.
fn delivered(live: &Live, records: &[Record], deadline: Instant) -> Result<(), Error> {
    loop {
        if let Some((number, code)) = live.reports().failure() {
            let key = records.get(number).map_or("?", |record| record.key.as_str());
            return Err(Error::Aborted { why: format!("record {key}: {code}") });
        }
        if live.reports().delivered() >= records.len() && live.in_flight_count() == 0 {
            return Ok(());
        }
        if clock::monotonic() >= deadline {
            return Err(Error::Aborted { why: "no acknowledgement within the transaction's time".into() });
        }
        clock::pause(LOOK);
    }
}

impl Fenced {
    /// Commits a barrier that no tail waits for, and closes the shard's producer: everything that was ever told stands
    /// before it.
    ///
    /// # Errors
    /// When it could not be committed.
    pub async fn seal(mut self) -> Result<Barrier, CommitError> {
        let barrier = Barrier { nonce: self.nonce.clone(), holder: self.holder.clone() };
        let refused = |error: serde_json::Error| CommitError::Refused {
            pod_uid: None,
            key: changelog::BARRIER.into(),
            reason: error.to_string(),
        };
        let value = serde_json::to_vec(&barrier).map_err(refused)?;
        self.line.commit(Batch::default(), vec![(changelog::BARRIER, Some(value))]).await?;
        Ok(barrier)
    }
}
