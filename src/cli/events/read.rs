//! Reads the events topics, committed records only, outside of any consumer group: what stands there in the order of its
//! record times, then what is told from now on.
//!
//! ```text
//!  topic, partition ──queue──▶ head ─┐
//!  topic, partition ──queue──▶ head ─┼─ the oldest of the heads ──▶ Next::Told
//!  ...                               ┘
//! ```
//! Promises: the order within a partition is kept, whatever the times say. Without following it ends where the topics
//! ended when it began. Call it outside an async runtime: it blocks.

use std::{collections::VecDeque, sync::Arc, time::Duration};

use jiff::Timestamp;
use rdkafka::{
    ClientConfig, Message, Offset, TopicPartitionList,
    config::FromClientConfigAndContext as _,
    consumer::{BaseConsumer, Consumer, base_consumer::PartitionQueue},
    error::{KafkaError, KafkaResult},
    message::BorrowedMessage,
};

use super::partition;
use crate::{
    clock,
    verify::read::{ASK_MAX, Error, Quiet, SILENT_MAX, is_refused},
};

/// Where to begin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Begin {
    /// With the first record that is there.
    Beginning,
    /// With the next one that comes.
    End,
    /// With the first one written at this time or later.
    At(Timestamp),
}

/// One record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Told {
    /// Record time, in milliseconds since 1970.
    pub(super) at_ms: i64,
    pub(super) topic: Arc<str>,
    pub(super) partition: i32,
    pub(super) offset: i64,
    pub(super) key: Vec<u8>,
    pub(super) value: Vec<u8>,
}

/// What came.
#[derive(Debug)]
pub(super) enum Next {
    Told(Told),
    /// Nothing within the patience given.
    Nothing,
    /// All that stood there was given.
    End,
}

/// One partition of one topic.
struct Lane {
    topic: Arc<str>,
    partition: i32,
    queue: Option<PartitionQueue<Quiet>>,
    heads: VecDeque<Told>,
    /// Where it ended when it was looked at.
    end: i64,
    /// All up to there was read.
    through: bool,
}

/// What is to be read.
pub(super) struct Wish<'a> {
    pub(super) topics: &'a [String],
    pub(super) begin: Begin,
    /// Only what has this key.
    pub(super) key: Option<&'a str>,
    /// Go on after the end.
    pub(super) follow: bool,
}

/// A reader of all partitions at once.
pub(super) struct Reader {
    consumer: Arc<BaseConsumer<Quiet>>,
    lanes: Vec<Lane>,
    follow: bool,
    heard: std::time::Instant,
    /// The last error of a connection.
    trouble: Option<KafkaError>,
}

impl Reader {
    /// Looks where the topics begin and end.
    pub(super) fn open(config: &ClientConfig, wish: &Wish<'_>) -> Result<Self, Error> {
        let consumer = BaseConsumer::from_config_and_context(config, Quiet).map_err(Error::Create)?;
        let consumer = Arc::new(consumer);
        let (mut lanes, mut assigned) = (Vec::new(), TopicPartitionList::new());
        for topic in wish.topics {
            look(&consumer, topic, wish, &mut lanes, &mut assigned)?;
        }
        let refused = |source| Error::Read { topic: wish.topics.join(", "), source };
        consumer.assign(&assigned).map_err(refused)?;
        for lane in &mut lanes {
            lane.queue = consumer.split_partition_queue(&lane.topic, lane.partition);
        }
        let mut reader = Self { consumer, lanes, follow: wish.follow, heard: clock::monotonic(), trouble: None };
        // What came between assigning and splitting is in the common queue, before all that comes to the others.
        while reader.serve(Duration::ZERO)? {}
        Ok(reader)
    }

    /// What keeps the brokers from answering, once each.
    pub(super) fn trouble(&mut self) -> Option<KafkaError> {
        self.trouble.take()
    }

    /// The next record, if one comes before the patience is over.
    pub(super) fn next(&mut self, patience: Duration) -> Result<Next, Error> {
        while let Some(behind) = self.lanes.iter().position(|lane| !lane.through && lane.heads.is_empty()) {
            if !self.fill(behind, patience)? {
                return self.patient();
            }
        }
        // Only now is it known which is the oldest of all that stood there.
        let backlog = |lane: &Lane| lane.heads.front().filter(|told| told.offset < lane.end).map(|told| told.at_ms);
        if let Some(told) = self.oldest(backlog) {
            return Ok(Next::Told(told));
        }
        if !self.follow {
            return Ok(Next::End);
        }
        for n in 0..self.lanes.len() {
            if self.lanes[n].heads.is_empty() {
                self.fill(n, Duration::ZERO)?;
            }
        }
        if let Some(told) = self.oldest(|lane| lane.heads.front().map(|told| told.at_ms)) {
            return Ok(Next::Told(told));
        }
        self.serve(patience)?;
        Ok(Next::Nothing)
    }

    fn patient(&mut self) -> Result<Next, Error> {
        self.serve(Duration::ZERO)?;
        if self.heard.elapsed() <= SILENT_MAX {
            return Ok(Next::Nothing);
        }
        let last = self.trouble.take().map(|error| format!("; the last error of a connection: {error}"));
        let behind = self.lanes.iter().filter(|lane| !lane.through);
        let left = behind.clone().map(|lane| lane.heads.back().map_or(lane.end, |told| lane.end - told.offset));
        let left = left.map(|left| u64::try_from(left).unwrap_or_default()).sum();
        let topics: Vec<&str> = behind.map(|lane| &*lane.topic).collect();
        Err(Error::Silent { topic: topics.join(", "), left, last: last.unwrap_or_default() })
    }

    fn oldest(&mut self, time: impl Fn(&Lane) -> Option<i64>) -> Option<Told> {
        let lanes = self.lanes.iter_mut().filter_map(|lane| Some((time(lane)?, lane)));
        let (_, lane) = lanes.min_by_key(|(at_ms, _)| *at_ms)?;
        let told = lane.heads.pop_front()?;
        lane.through |= told.offset + 1 >= lane.end;
        Some(told)
    }

    /// Gets one record of this lane, or learns that there is none; false: nothing came.
    fn fill(&mut self, n: usize, patience: Duration) -> Result<bool, Error> {
        let lane = &mut self.lanes[n];
        let polled = lane.queue.as_ref().and_then(|queue| queue.poll(patience).map(owned));
        match polled {
            None => return Ok(false),
            Some(Ok(told)) => lane.take(told),
            Some(Err(KafkaError::PartitionEOF(_))) => lane.through = true,
            Some(Err(source)) if is_refused(&source) => {
                return Err(Error::Read { topic: lane.topic.to_string(), source });
            }
            Some(Err(error)) => {
                self.trouble = Some(error);
                return Ok(false);
            }
        }
        self.heard = clock::monotonic();
        Ok(true)
    }

    /// Serves the common queue, which has news of connections; false: there was nothing.
    fn serve(&mut self, patience: Duration) -> Result<bool, Error> {
        let Some(polled) = self.consumer.poll(patience).map(owned) else { return Ok(false) };
        match polled {
            Ok(told) => {
                let of = |lane: &&mut Lane| lane.topic == told.topic && lane.partition == told.partition;
                if let Some(lane) = self.lanes.iter_mut().find(of) {
                    lane.take(told);
                }
            }
            // Whose it is is not said: its own queue says it again, or its records come.
            Err(KafkaError::PartitionEOF(_)) => {}
            Err(source) if is_refused(&source) => {
                let mut topics: Vec<&str> = self.lanes.iter().map(|lane| &*lane.topic).collect();
                topics.dedup();
                return Err(Error::Read { topic: topics.join(", "), source });
            }
            Err(error) => self.trouble = Some(error),
        }
        Ok(true)
    }
}

impl Lane {
    fn take(&mut self, told: Told) {
        // The last offsets before the end may be markers of transactions.
        self.through |= told.offset >= self.end;
        self.heads.push_back(told);
    }
}

fn owned(polled: KafkaResult<BorrowedMessage<'_>>) -> KafkaResult<Told> {
    polled.map(|message| Told {
        at_ms: message.timestamp().to_millis().unwrap_or_default(),
        topic: message.topic().into(),
        partition: message.partition(),
        offset: message.offset(),
        key: message.key().unwrap_or_default().to_vec(),
        value: message.payload().unwrap_or_default().to_vec(),
    })
}

/// Adds the partitions of a topic that are to be read.
fn look(
    consumer: &BaseConsumer<Quiet>,
    topic: &str,
    wish: &Wish<'_>,
    lanes: &mut Vec<Lane>,
    assigned: &mut TopicPartitionList,
) -> Result<(), Error> {
    let ask = |source| Error::Ask { topic: topic.to_owned(), source };
    let metadata = consumer.fetch_metadata(Some(topic), ASK_MAX).map_err(ask)?;
    let known = metadata.topics().iter().find(|known| known.name() == topic);
    let mut partitions: Vec<i32> =
        known.map(|topic| topic.partitions().iter().map(|partition| partition.id()).collect()).unwrap_or_default();
    if partitions.is_empty() {
        return Err(Error::NoTopic { topic: topic.to_owned(), flag: "--events-topic" });
    }
    if let Some(key) = wish.key {
        let only = partition::of_key(key.as_bytes(), partitions.len());
        partitions.retain(|partition| Some(*partition) == only);
    }
    let mut times = TopicPartitionList::new();
    for partition in partitions {
        // A reader of committed records is told up to where it may read.
        let (low, end) = consumer.fetch_watermarks(topic, partition, ASK_MAX).map_err(ask)?;
        let begin = match wish.begin {
            Begin::Beginning => low,
            Begin::End => end,
            Begin::At(at) => {
                times.add_partition_offset(topic, partition, Offset::Offset(at.as_millisecond())).map_err(ask)?;
                end
            }
        };
        assigned.add_partition_offset(topic, partition, Offset::Offset(begin)).map_err(ask)?;
        let (topic, heads) = (topic.into(), VecDeque::new());
        lanes.push(Lane { topic, partition, queue: None, heads, end, through: begin >= end });
    }
    if times.count() == 0 {
        return Ok(());
    }
    for found in consumer.offsets_for_times(times, ASK_MAX).map_err(ask)?.elements() {
        // Without one there is none so late: its end, as it was looked at.
        let Offset::Offset(begin) = found.offset() else { continue };
        assigned.set_partition_offset(topic, found.partition(), Offset::Offset(begin)).map_err(ask)?;
        let lane = lanes.iter_mut().find(|lane| *lane.topic == *topic && lane.partition == found.partition());
        lane.into_iter().for_each(|lane| lane.through = begin >= lane.end);
    }
    Ok(())
}
