//! Reads a whole topic up to its present end, committed records only, outside of any consumer group.
//!
//! Promises: ends where the topic ended when it was looked at, also while more is written. A transaction that was open
//! then is waited for, so that what a reader of another topic saw committed is not missing here. Gives up when Kafka
//! says nothing for [`SILENT_MAX`]. Call it outside an async runtime: it blocks.

use std::{collections::BTreeMap, time::Duration};

use rdkafka::{
    ClientConfig, ClientContext, Message, Offset, TopicPartitionList,
    config::{FromClientConfigAndContext, RDKafkaLogLevel},
    consumer::{BaseConsumer, Consumer, ConsumerContext},
    error::{KafkaError, RDKafkaErrorCode},
    message::BorrowedMessage,
};

use crate::clock;

/// Longest silence of Kafka.
pub const SILENT_MAX: Duration = Duration::from_secs(15);
/// Longest wait for transactions that were open at the look: the broker ends ours after 20 s, and looks every 10 s.
const OPEN_MAX: Duration = Duration::from_secs(40);
/// Longest wait for metadata and offsets.
pub(crate) const ASK_MAX: Duration = Duration::from_secs(10);
/// How long one poll waits, and the pause between two looks at open transactions.
const POLL: Duration = Duration::from_millis(100);
/// Records between two reports of progress.
const PROGRESS_EVERY: u64 = 1000;

/// Why a topic could not be read.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No client.
    #[error("create a consumer")]
    Create(#[source] KafkaError),
    /// There is none.
    #[error("topic {topic} is not there: name it by {flag}")]
    NoTopic {
        /// Its name.
        topic: String,
        /// What to change.
        flag: &'static str,
    },
    /// Nobody remembers anything there any more.
    #[error("topic {topic} was left behind by a reshard, and says nothing of what was told since: add {flags}")]
    LeftBehind {
        /// Its name.
        topic: String,
        /// The settings of the generation that took its place.
        flags: String,
    },
    /// Kafka does not say what is there.
    #[error("ask kafka about topic {topic}")]
    Ask {
        /// Its name.
        topic: String,
        /// What it said.
        #[source]
        source: KafkaError,
    },
    /// Readers are held back.
    #[error(
        "topic {topic}, partition {partition}: a transaction has been open for {OPEN_MAX:?} and holds back all readers: find it by kafka-transactions.sh --bootstrap-server ... find-hanging --broker-id ..."
    )]
    Open {
        /// Its name.
        topic: String,
        /// Where.
        partition: i32,
    },
    /// Kafka refuses.
    #[error("read topic {topic}")]
    Read {
        /// Its name.
        topic: String,
        /// What it said.
        #[source]
        source: KafkaError,
    },
    /// Nothing came any more.
    #[error("read topic {topic}: kafka said nothing for {SILENT_MAX:?} and {left} offsets were left{last}")]
    Silent {
        /// Its name.
        topic: String,
        /// How much was left.
        left: u64,
        /// The last error of a connection.
        last: String,
    },
}

/// One topic, from its present beginning to its present end.
pub struct Extent {
    consumer: BaseConsumer<Quiet>,
    topic: String,
    /// Partitions that it has.
    pub partitions: usize,
    /// Partitions from whose beginning retention has taken records.
    pub cut: Vec<i32>,
    /// Per partition: the next offset, and the one to stop at.
    left: BTreeMap<i32, (i64, i64)>,
}

/// What librdkafka logs is not for people who read a report; errors come as values.
pub(crate) struct Quiet;

impl ClientContext for Quiet {
    fn log(&self, _: RDKafkaLogLevel, facility: &str, text: &str) {
        tracing::debug!(facility, text, "librdkafka");
    }

    fn error(&self, error: KafkaError, reason: &str) {
        tracing::debug!(%error, reason, "kafka consumer error");
    }
}

impl ConsumerContext for Quiet {}

impl Extent {
    /// Looks where the topic begins and ends. `flag`: what names it on the command line.
    ///
    /// # Errors
    /// When Kafka does not answer, there is no such topic, or a transaction stays open.
    pub fn of(config: &ClientConfig, topic: &str, flag: &'static str) -> Result<Self, Error> {
        let client = |config: &ClientConfig| BaseConsumer::from_config_and_context(config, Quiet);
        let ask = |source| Error::Ask { topic: topic.to_owned(), source };
        let consumer = client(config).map_err(Error::Create)?;
        // What is written and not committed yet counts, too: only this client sees it.
        let mut uncommitted = config.clone();
        uncommitted.set("isolation.level", "read_uncommitted");
        let uncommitted = client(&uncommitted).map_err(Error::Create)?;
        let metadata = consumer.fetch_metadata(Some(topic), ASK_MAX).map_err(ask)?;
        let partitions = metadata.topics().iter().find(|known| known.name() == topic).map(|t| t.partitions());
        let Some(partitions) = partitions.filter(|partitions| !partitions.is_empty()) else {
            return Err(Error::NoTopic { topic: topic.to_owned(), flag });
        };
        let (mut left, mut assigned, mut cut) = (BTreeMap::new(), TopicPartitionList::new(), Vec::new());
        for partition in partitions {
            let (low, high) = uncommitted.fetch_watermarks(topic, partition.id(), ASK_MAX).map_err(ask)?;
            if low > 0 {
                cut.push(partition.id());
            }
            if low < high {
                settled(&consumer, topic, partition.id(), high)?;
                left.insert(partition.id(), (low, high));
                assigned.add_partition_offset(topic, partition.id(), Offset::Offset(low)).map_err(ask)?;
            }
        }
        consumer.assign(&assigned).map_err(|source| Error::Read { topic: topic.to_owned(), source })?;
        Ok(Self { consumer, topic: topic.to_owned(), partitions: partitions.len(), cut, left })
    }

    /// Offsets that are left; some hold no record of ours.
    pub fn left(&self) -> u64 {
        self.left.values().map(|(next, end)| u64::try_from(end - next).unwrap_or_default()).sum()
    }

    /// Reads all of it. `progress` is told how many offsets are left, now and then.
    ///
    /// # Errors
    /// When Kafka refuses or falls silent.
    pub fn read(
        mut self,
        mut each: impl FnMut(&BorrowedMessage<'_>),
        mut progress: impl FnMut(u64),
    ) -> Result<(), Error> {
        let (mut heard, mut last, mut records) = (clock::monotonic(), String::new(), 0_u64);
        while !self.left.is_empty() {
            match self.consumer.poll(POLL) {
                None if heard.elapsed() > SILENT_MAX => {
                    return Err(Error::Silent { left: self.left(), topic: self.topic, last });
                }
                None => continue,
                Some(Ok(message)) => {
                    // What comes from a partition that is done with says nothing about the others.
                    if let Some((next, end)) = self.left.get_mut(&message.partition()) {
                        heard = clock::monotonic();
                        // What came after the look is not taken: it is not known whether all that belongs to it is here.
                        if message.offset() < *end {
                            each(&message);
                        }
                        *next = message.offset() + 1;
                        if next >= end {
                            self.left.remove(&message.partition());
                        }
                    }
                }
                // The last offsets are markers of transactions; none was open below them.
                Some(Err(KafkaError::PartitionEOF(partition))) => {
                    if self.left.remove(&partition).is_some() {
                        heard = clock::monotonic();
                    }
                }
                Some(Err(source)) if is_refused(&source) => return Err(Error::Read { topic: self.topic, source }),
                Some(Err(error)) => {
                    last = format!("; the last error of a connection: {error}");
                    continue;
                }
            }
            records += 1;
            if records.is_multiple_of(PROGRESS_EVERY) {
                progress(self.left());
            }
        }
        Ok(())
    }
}

/// Waits until nothing below `end` is in an open transaction.
fn settled(consumer: &BaseConsumer<Quiet>, topic: &str, partition: i32, end: i64) -> Result<(), Error> {
    let began = clock::monotonic();
    loop {
        let ask = |source| Error::Ask { topic: topic.to_owned(), source };
        // Asked by a reader of committed records, the broker gives the offset up to which it may read.
        let (_, stable) = consumer.fetch_watermarks(topic, partition, ASK_MAX).map_err(ask)?;
        if stable >= end {
            return Ok(());
        }
        if began.elapsed() > OPEN_MAX {
            return Err(Error::Open { topic: topic.to_owned(), partition });
        }
        clock::pause(POLL);
    }
}

/// Errors that waiting does not mend. A missing right on the group is none: no group is joined.
pub(crate) fn is_refused(error: &KafkaError) -> bool {
    matches!(
        error.rdkafka_error_code(),
        Some(
            RDKafkaErrorCode::UnknownTopicOrPartition
                | RDKafkaErrorCode::UnknownTopic
                | RDKafkaErrorCode::UnknownPartition
                | RDKafkaErrorCode::TopicAuthorizationFailed
                | RDKafkaErrorCode::Authentication
        )
    )
}
