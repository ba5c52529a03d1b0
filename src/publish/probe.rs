//! Whether Kafka lets this user do what a monitor does, found out without doing it.
//!
//! Each question is a request that a broker refuses whoever asks, and looks at the asker's rights before it does:
//!
//! | right | asked by | refused because |
//! | --- | --- | --- |
//! | to write to the events | a record larger than the topic takes | it is too large |
//! | to write to the changelog | a record without a key | a compacted topic takes none |
//! | to produce as a shard | `InitProducerId` with the longest timeout there is | brokers allow a quarter of an hour |
//!
//! Promises: nothing is written, and no producer is fenced, by a broker that refuses as Apache Kafka does. Where one allows
//! transactions of 24 days, the leader of the shard is fenced once, and goes on; where one takes what Apache Kafka refuses,
//! that is said ([`Error::Taken`]). Blocks: call it outside the async threads.

use std::{
    collections::BTreeMap,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use rdkafka::{
    ClientConfig, ClientContext, Offset, TopicPartitionList,
    config::{FromClientConfigAndContext as _, RDKafkaLogLevel},
    consumer::{BaseConsumer, Consumer as _},
    error::{KafkaError, RDKafkaErrorCode},
    message::{BorrowedMessage, DeliveryResult, Message as _},
    producer::{BaseProducer, BaseRecord, Producer as _, ProducerContext},
};

use super::{
    changelog::{self, Entry, Reason, Unreadable},
    generation::Moved,
    identity::Identity,
    producer,
    reach::Reach,
    rights::{Asked, to_mend},
    settings::{self, RECORD_BYTES_MAX, Settings},
};
use crate::{
    clock,
    leadership::tenure::ShardId,
    verify::read::{self, Extent},
};

/// How long one question may take.
const ASK_MAX: Duration = Duration::from_secs(8);
/// How long a client is listened to at a time.
const LISTEN: Duration = Duration::from_millis(20);
/// Larger records are not sent only to be refused.
const REFUSED_BYTES_MAX: usize = 16 << 20;
/// What `transaction.timeout.ms` is asked for: librdkafka adds a little to it, and counts in 32 bits.
const REFUSED_TIMEOUT_MS: i32 = i32::MAX - 10_000;

/// Why that could not be found out, or what the answer was.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No client could be made.
    #[error("create a kafka client")]
    Create(#[source] settings::Error),
    /// Kafka says no.
    #[error("kafka refuses to {what}: {code}{mend}")]
    Refused {
        /// What was asked.
        what: String,
        /// Its answer.
        code: RDKafkaErrorCode,
        /// `; to mend it: ` and a command, where one is known.
        mend: String,
    },
    /// No answer, or one that says nothing of rights.
    #[error("{what}: {said}")]
    Unanswered {
        /// What was asked.
        what: String,
        /// What was heard.
        said: String,
    },
    /// The topic takes records so large that none is sent only to be refused.
    #[error(
        "{what}: not known how large a record it takes, or more than {REFUSED_BYTES_MAX} bytes: none is sent to be refused"
    )]
    NotAsked {
        /// What was to be asked.
        what: String,
    },
    /// A record that Apache Kafka refuses was written.
    #[error(
        "{what}: this broker took a record that Apache Kafka refuses, {refused}: it stands in partition {partition} at \
         offset {offset}, and is to be ignored"
    )]
    Taken {
        /// What was asked.
        what: String,
        /// What is wrong with it, and how it is recognised.
        refused: &'static str,
        /// Where it is.
        partition: i32,
        /// Where it is.
        offset: i64,
    },
    /// The changelog cannot be read.
    #[error(transparent)]
    Read(#[from] read::Error),
    /// A record that says whose changelog it is cannot be understood.
    #[error("nobody can tell whose changelog this is")]
    Identity(#[source] Unreadable),
}

/// Where a record was written: its partition and its offset.
type Place = (i32, i64);

/// What the answer to the one record was.
#[derive(Default)]
struct Refusal(Mutex<Option<Result<Place, KafkaError>>>);

impl ClientContext for Refusal {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, text: &str) {
        producer::log(level, facility, text);
    }
}

impl ProducerContext for Refusal {
    type DeliveryOpaque = ();

    fn delivery(&self, result: &DeliveryResult<'_>, (): ()) {
        let place = |message: &BorrowedMessage<'_>| (message.partition(), message.offset());
        let answer = result.as_ref().map(place).map_err(|(error, _)| error.clone());
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(answer);
    }
}

/// Whether records may be written to an events topic. `message_bytes_max`: its `max.message.bytes`.
///
/// # Errors
/// When they may not, or nobody knows.
pub fn may_write_events(settings: &Settings, topic: &str, message_bytes_max: Option<usize>) -> Result<(), Error> {
    let Some(bytes_max) = message_bytes_max.filter(|bytes| *bytes < REFUSED_BYTES_MAX) else {
        return Err(Error::NotAsked { what: Asked::Write(topic).to_string() });
    };
    let payload = incompressible(bytes_max + 1);
    let refused = "noise with the key \"\", larger than max.message.bytes";
    may_write(settings, topic, BaseRecord::to(topic).partition(0).key("").payload(&payload), refused)
}

/// Bytes that stay as many, whoever compresses them.
fn incompressible(bytes: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()[0]
    };
    (0..bytes).map(|_| next()).collect()
}

/// Whether records may be written to the changelog, which must be compacted.
///
/// # Errors
/// When they may not, or nobody knows.
pub fn may_write_changelog(settings: &Settings) -> Result<(), Error> {
    let topic = settings.changelog_topic();
    // Taken all the same, it is passed over by every reader of ours, as any key that it does not know.
    may_write(settings, topic, BaseRecord::<(), str>::to(topic).partition(0).payload("{}"), "{} without a key")
}

fn may_write<K: rdkafka::message::ToBytes + ?Sized, P: rdkafka::message::ToBytes + ?Sized>(
    settings: &Settings,
    topic: &str,
    record: BaseRecord<'_, K, P>,
    refused_for: &'static str,
) -> Result<(), Error> {
    let asked = Asked::Write(topic);
    let mut config = settings.admin();
    // No idempotence: that would ask for a producer id first. One try: it is refused anyway.
    for (key, value) in [("enable.idempotence", "false"), ("acks", "all"), ("retries", "0"), ("linger.ms", "0")] {
        config.set(key, value);
    }
    // Refused by the broker, not here; and as large there as it is here, by whichever of its names the user sets that.
    config.remove("compression.codec");
    config.set("message.max.bytes", "1000000000").set("compression.type", "none");
    config.set("message.timeout.ms", ASK_MAX.as_millis().to_string());
    let producer = create(settings, &config)?;
    let unanswered = |said: String| Error::Unanswered { what: asked.to_string(), said };
    producer.send(record).map_err(|(error, _)| unanswered(error.to_string()))?;
    let began = clock::monotonic();
    let answer = loop {
        producer.poll(LISTEN);
        let answer = producer.context().0.lock().unwrap_or_else(PoisonError::into_inner).take();
        match answer {
            Some(answer) => break answer,
            None if began.elapsed() > ASK_MAX + LISTEN => break Err(KafkaError::Canceled),
            None => {}
        }
    };
    producer::discard(producer);
    match answer.map_err(|error| (error.rdkafka_error_code(), error)) {
        Ok((partition, offset)) => {
            Err(Error::Taken { what: asked.to_string(), refused: refused_for, partition, offset })
        }
        Err((Some(RDKafkaErrorCode::MessageSizeTooLarge | RDKafkaErrorCode::InvalidRecord), _)) => Ok(()),
        Err((code, error)) => {
            Err(refused(settings, ShardId(0), asked, code).unwrap_or_else(|| unanswered(error.to_string())))
        }
    }
}

fn create(settings: &Settings, config: &ClientConfig) -> Result<BaseProducer<Refusal>, Error> {
    BaseProducer::from_config_and_context(config, Refusal::default())
        .map_err(|error| Error::Create(settings.client_error(error)))
}

/// The refusal for want of rights that this code is, if it is one.
fn refused(settings: &Settings, shard: ShardId, asked: Asked<'_>, code: Option<RDKafkaErrorCode>) -> Option<Error> {
    let code = code?;
    let command = settings.grant(shard, asked, code)?;
    Some(Error::Refused { what: asked.to_string(), code, mend: to_mend(Some(command)) })
}

/// Whether this user may be the producer of a shard.
///
/// # Errors
/// When it may not, or nobody knows.
pub fn may_produce(settings: &Settings, shard: ShardId) -> Result<(), Error> {
    let mut config = settings.producer(shard, RECORD_BYTES_MAX);
    // A broker looks at rights first, then at this, and only then at what else there is to the id.
    config.set("transaction.timeout.ms", REFUSED_TIMEOUT_MS.to_string());
    let reach = Reach::default();
    let producer = producer::create(&config, &reach).map_err(|error| Error::Create(settings.client_error(error)))?;
    let answer = producer.init_transactions(ASK_MAX);
    producer::listen(&producer);
    // Its timers would ask again.
    producer::discard(producer);
    let Err(error) = answer else { return Ok(()) };
    match error.rdkafka_error_code() {
        Some(RDKafkaErrorCode::InvalidTransactionTimeout) => Ok(()),
        code => Err(refused(settings, shard, Asked::Produce, code).unwrap_or_else(|| {
            let what = format!("{} as {}", Asked::Produce, settings.identity().transactional_id(shard));
            Error::Unanswered { what, said: format!("{error}{}", reach.why()) }
        })),
    }
}

/// Whether the changelog may be read: asked by a fetch, since of an empty one nothing else is.
fn may_read(settings: &Settings, reader: &ClientConfig) -> Result<(), Error> {
    let topic = settings.changelog_topic();
    let asked = Asked::Read(topic);
    let unanswered = |said: String| Error::Unanswered { what: asked.to_string(), said };
    let consumer: BaseConsumer<read::Quiet> = BaseConsumer::from_config_and_context(reader, read::Quiet)
        .map_err(|error| Error::Create(settings.client_error(error)))?;
    let mut end = TopicPartitionList::new();
    end.add_partition_offset(topic, 0, Offset::End)
        .and_then(|()| consumer.assign(&end))
        .map_err(|error| unanswered(error.to_string()))?;
    let (began, mut last) = (clock::monotonic(), String::new());
    while began.elapsed() < ASK_MAX {
        match consumer.poll(LISTEN) {
            None => {}
            Some(Ok(_) | Err(KafkaError::PartitionEOF(_))) => return Ok(()),
            Some(Err(error)) => match refused(settings, ShardId(0), asked, error.rdkafka_error_code()) {
                Some(refused) => return Err(refused),
                None => last = format!(": {error}"),
            },
        }
    }
    Err(unanswered(format!("no answer within {ASK_MAX:?}{last}")))
}

/// What a changelog says of itself.
#[derive(Debug, Default)]
pub struct Written {
    /// Whose it is; `None` if it is new.
    pub identity: Option<Identity>,
    /// Where the truth is now, if it is here no more.
    pub moved: Option<Moved>,
    /// Pods that it remembers.
    pub pods: usize,
}

/// Reads the changelog to its end.
///
/// # Errors
/// When it cannot be read, or is not understood.
pub fn read_changelog(settings: &Settings) -> Result<Written, Error> {
    let properties: BTreeMap<String, String> = settings.properties().as_ref().clone();
    let reader = settings::reader(settings.bootstrap_servers(), &properties).map_err(Error::Create)?;
    let topic = settings.changelog_topic();
    may_read(settings, &reader)?;
    let (mut written, mut pods, mut wrong) = (Written::default(), std::collections::BTreeSet::new(), None);
    let mut each = |entry: Entry| match entry {
        Entry::Pod(uid, Some(_)) => drop(pods.insert(uid.0)),
        Entry::Pod(uid, None) => drop(pods.remove(&uid.0)),
        Entry::Identity(identity) => written.identity = Some(identity),
        Entry::Moved(moved) => written.moved = Some(moved),
        Entry::Position(_) | Entry::Barrier(_) | Entry::Inherited(_) => {}
        // Of a pod: a later release's, which that one will read. Of an unknown key: monitors pass over it, too.
        Entry::Unreadable(unreadable) if unreadable.pod().is_some() || unreadable.reason == Reason::Key => {}
        Entry::Unreadable(unreadable) => wrong = Some(unreadable),
    };
    let read = Extent::of(&reader, topic, "--changelog-topic and --generation").and_then(|extent| {
        extent.read(
            |message| each(changelog::decode(rdkafka::Message::key(message), rdkafka::Message::payload(message))),
            |_| {},
        )
    });
    if let Err(read::Error::Read { source, .. } | read::Error::Ask { source, .. }) = &read
        && let Some(error) = refused(settings, ShardId(0), Asked::Read(topic), source.rdkafka_error_code())
    {
        return Err(error);
    }
    read?;
    written.pods = pods.len();
    wrong.map_or(Ok(written), |unreadable| Err(Error::Identity(unreadable)))
}
