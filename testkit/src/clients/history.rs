//! The events topic as a consumer with isolation.level read_committed sees it.

use std::{
    collections::BTreeMap,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use rdkafka::{
    ClientConfig, Message, Offset, TopicPartitionList,
    admin::{AdminClient, AdminOptions, NewTopic, TopicReplication},
    consumer::{BaseConsumer, Consumer},
    error::{KafkaError, RDKafkaErrorCode},
    message::Headers,
};
use serde_json::Value;
use tokio::sync::mpsc;

use super::{shape, until};

/// Arrivals that may wait for who measures.
const ARRIVALS_MAX: usize = 4096;
/// How long the reading thread of [`History::arrivals`] waits for a record before it looks whether to stop.
const ARRIVAL_POLL: Duration = Duration::from_millis(100);

/// One event as it was read.
#[derive(Debug, Clone, PartialEq)]
pub struct Record {
    /// Topic.
    pub topic: String,
    /// Partition.
    pub partition: i32,
    /// Offset in the partition.
    pub offset: i64,
    /// Key: the execution id.
    pub key: String,
    /// Headers, as text.
    pub headers: BTreeMap<String, String>,
    /// The event.
    pub value: Value,
}

impl Record {
    /// A text field of the event; empty if absent.
    pub fn text(&self, field: &str) -> &str {
        self.value[field].as_str().unwrap_or_default()
    }

    /// `event_type`
    pub fn event_type(&self) -> &str {
        self.text("event_type")
    }

    /// Whether this is the end of an execution.
    pub fn is_end(&self) -> bool {
        matches!(self.event_type(), "execution_completed" | "execution_failed" | "execution_timeout")
    }
}

/// A reader of one or more topics from their beginning, without a consumer group.
pub struct History {
    consumer: BaseConsumer,
    /// What has been read.
    pub records: Vec<Record>,
}

impl History {
    /// Opens the topics at their beginning; they must exist.
    ///
    /// # Errors
    /// When the broker does not answer or a topic is missing.
    pub fn open(bootstrap: &str, topics: &[&str]) -> Result<Self> {
        Self::open_at(bootstrap, topics, Offset::Beginning)
    }

    /// Opens the topics at their present end; they must exist.
    ///
    /// # Errors
    /// When the broker does not answer or a topic is missing.
    pub fn from_now(bootstrap: &str, topics: &[&str]) -> Result<Self> {
        Self::open_at(bootstrap, topics, Offset::End)
    }

    fn open_at(bootstrap: &str, topics: &[&str], offset: Offset) -> Result<Self> {
        let consumer: BaseConsumer = ClientConfig::new()
            .set("bootstrap.servers", bootstrap)
            .set("group.id", "testkit")
            .set("isolation.level", "read_committed")
            .set("enable.auto.commit", "false")
            .set("enable.partition.eof", "true")
            .set("fetch.wait.max.ms", "20")
            // A broker that froze is left for the next leader; by default a consumer stays with it for a minute.
            .set("socket.timeout.ms", "6000")
            .create()
            .context("create a consumer")?;
        let mut assignment = TopicPartitionList::new();
        for topic in topics {
            let metadata = consumer.fetch_metadata(Some(topic), Duration::from_secs(10)).context("ask the broker")?;
            let partitions = metadata.topics()[0].partitions();
            if partitions.is_empty() {
                bail!("topic {topic} does not exist");
            }
            for partition in partitions {
                assignment.add_partition_offset(topic, partition.id(), offset)?;
            }
        }
        consumer.assign(&assignment)?;
        Ok(Self { consumer, records: Vec::new() })
    }

    /// Reads on, for at most `patience` of silence.
    ///
    /// # Errors
    /// When reading fails or a record does not match docs/schema/.
    pub fn read(&mut self, patience: Duration) -> Result<()> {
        while let Some(message) = self.consumer.poll(patience) {
            let message = match message {
                Ok(message) => message,
                Err(KafkaError::PartitionEOF(_)) => continue,
                // It comes back, or whoever waits for a record runs into a limit.
                Err(error) if is_away(&error) => continue,
                Err(error) => return Err(error).context("read the events topic"),
            };
            let record = record(&message)?;
            self.records.push(record);
        }
        Ok(())
    }

    /// Reads on until `enough` gives something, or the limit is over.
    ///
    /// # Errors
    /// When the limit is over or reading fails.
    pub async fn until<T>(
        &mut self,
        limit: Duration,
        what: &str,
        mut enough: impl FnMut(&[Record]) -> Option<T>,
    ) -> Result<T> {
        let look = async || {
            self.read(Duration::from_millis(1))?;
            Ok(enough(&self.records))
        };
        until(limit, what, look).await
    }

    /// Reads on from here on a thread of its own, each record with the moment of its arrival, until the receiver is
    /// dropped. It waits inside the client and so costs next to nothing of what is measured.
    ///
    /// # Errors
    /// When the system gives no thread.
    pub fn arrivals(self) -> Result<mpsc::Receiver<(Instant, Record)>> {
        let (arrived, arrivals) = mpsc::channel(ARRIVALS_MAX);
        let follow = move || {
            while !arrived.is_closed() {
                let polled = self.consumer.poll(ARRIVAL_POLL);
                // Before it is read and judged: that is no part of what is measured.
                let at = Instant::now();
                let read = match polled {
                    None | Some(Err(KafkaError::PartitionEOF(_))) => continue,
                    Some(Err(error)) if is_away(&error) => continue,
                    Some(Ok(message)) => record(&message),
                    Some(Err(error)) => Err(error.into()),
                };
                let record = match read {
                    Ok(record) => record,
                    Err(error) => return eprintln!("read the events topic: {error:#}"),
                };
                if arrived.blocking_send((at, record)).is_err() {
                    // Nobody measures any more.
                    return;
                }
            }
        };
        thread::Builder::new().name("arrivals".into()).spawn(follow).context("start a reading thread")?;
        Ok(arrivals)
    }

    /// The events of one pod, in the order of their partition.
    pub fn of_pod(&self, uid: &str) -> Vec<&Record> {
        self.records.iter().filter(|r| r.text("pod_uid") == uid).collect()
    }
}

/// The broker is away: reading goes on by itself when it is back.
fn is_away(error: &KafkaError) -> bool {
    use RDKafkaErrorCode as Code;
    let code = error.rdkafka_error_code();
    matches!(code, Some(Code::AllBrokersDown | Code::BrokerTransportFailure | Code::OperationTimedOut))
}

/// Reads one record, and holds it to what users are promised: whatever test reads it fails where it does not fit.
fn record(message: &impl Message) -> Result<Record> {
    let record = parse(message)?;
    let fits = shape::check_event(&record.value).and_then(|()| shape::check_headers(&record.headers));
    fits.with_context(|| format!("{}[{}]@{}", record.topic, record.partition, record.offset))?;
    Ok(record)
}

fn parse(message: &impl Message) -> Result<Record> {
    let payload = message.payload().unwrap_or_default();
    let value = serde_json::from_slice(payload).context("an event is not JSON")?;
    let header = |h: rdkafka::message::Header<'_, &[u8]>| {
        let text = String::from_utf8_lossy(h.value.unwrap_or_default()).into_owned();
        (h.key.to_owned(), text)
    };
    Ok(Record {
        topic: message.topic().to_owned(),
        partition: message.partition(),
        offset: message.offset(),
        key: String::from_utf8_lossy(message.key().unwrap_or_default()).into_owned(),
        headers: message.headers().map(|h| h.iter().map(header).collect()).unwrap_or_default(),
        value,
    })
}

/// Makes a topic.
///
/// # Errors
/// When the broker refuses.
pub async fn create_topic(bootstrap: &str, topic: &str, partitions: i32, config: &[(&str, &str)]) -> Result<()> {
    create_topic_on(1, bootstrap, topic, partitions, config).await
}

/// As [`create_topic`], each record on so many brokers.
///
/// # Errors
/// As [`create_topic`].
pub async fn create_topic_on(
    brokers: i32,
    bootstrap: &str,
    topic: &str,
    partitions: i32,
    config: &[(&str, &str)],
) -> Result<()> {
    let admin: AdminClient<_> = ClientConfig::new().set("bootstrap.servers", bootstrap).create()?;
    let new = NewTopic::new(topic, partitions, TopicReplication::Fixed(brokers));
    let new = config.iter().fold(new, |new, (key, value)| new.set(key, value));
    for result in admin.create_topics([&new], &AdminOptions::new()).await? {
        result.map_err(|(topic, code)| anyhow::anyhow!("create topic {topic}: {code}"))?;
    }
    Ok(())
}
