//! A changelog read and written past the monitor.

use std::{collections::BTreeMap, time::Duration};

use rdkafka::{
    ClientConfig, Message, Offset, TopicPartitionList,
    consumer::{BaseConsumer, Consumer},
    error::KafkaError,
    producer::{BaseProducer, BaseRecord, Producer},
};

use super::LIMIT;

/// How long one poll waits.
const POLL: Duration = Duration::from_millis(100);

/// The newest record of each key, per partition, as a reader of committed records sees it.
pub(crate) fn newest(servers: &str, topic: &str) -> Vec<BTreeMap<String, Vec<u8>>> {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", servers).set("group.id", "newest").set("enable.partition.eof", "true");
    config.set("isolation.level", "read_committed").set("fetch.wait.max.ms", "10").set("enable.auto.commit", "false");
    let consumer: BaseConsumer = config.create().unwrap();
    let metadata = consumer.fetch_metadata(Some(topic), LIMIT).unwrap();
    let partitions = metadata.topics()[0].partitions().len();
    let mut assignment = TopicPartitionList::new();
    for partition in 0..i32::try_from(partitions).unwrap() {
        assignment.add_partition_offset(topic, partition, Offset::Beginning).unwrap();
    }
    consumer.assign(&assignment).unwrap();
    let (mut found, mut ends, mut silent) = (vec![BTreeMap::new(); partitions], 0, Duration::ZERO);
    while ends < partitions {
        assert!(silent < LIMIT, "{topic} was not read in time");
        match consumer.poll(POLL) {
            Some(Ok(message)) => {
                let key = String::from_utf8(message.key().unwrap().to_vec()).unwrap();
                let shard: &mut BTreeMap<_, _> = &mut found[usize::try_from(message.partition()).unwrap()];
                match message.payload() {
                    Some(value) => drop(shard.insert(key, value.to_vec())),
                    None => drop(shard.remove(&key)),
                }
            }
            Some(Err(KafkaError::PartitionEOF(_))) => ends += 1,
            Some(Err(error)) => panic!("{topic}: {error}"),
            None => silent += POLL,
        }
    }
    found
}

/// Writes one record.
pub(crate) fn plant(servers: &str, topic: &str, partition: i32, key: &str, value: &str) {
    let mut config = ClientConfig::new();
    let producer: BaseProducer = config.set("bootstrap.servers", servers).create().unwrap();
    let record = BaseRecord::to(topic).partition(partition).key(key).payload(value);
    producer.send(record).map_err(|(error, _)| error).unwrap();
    producer.flush(LIMIT).unwrap();
}
