//! Restore: everything that was told before the fence, and nothing that was not.

use std::time::Instant;

use pod_monitor::{
    leadership::tenure::ShardId,
    ports::{Journal, Journals},
    publish::{
        Batch,
        error::{Class, OpenError},
        identity::Identity,
        journal::KafkaJournals,
    },
};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};

use crate::support::*;

#[tokio::test(flavor = "multi_thread")]
async fn restore_sees_what_was_committed_just_before_the_fence() {
    let (settings, topics) = installation("before").await;
    // Two replicas that take the shard from one another without a pause.
    let replicas = [
        KafkaJournals::start(settings.clone(), &topics).unwrap(),
        KafkaJournals::start(settings.clone(), &topics).unwrap(),
    ];
    for round in 0..10_u32 {
        let journals = &replicas[round as usize % 2];
        let (mut journal, restored) = opened(journals, "h").await;
        assert_eq!(restored.told.len(), round as usize * 5, "round {round}");
        assert_eq!(restored.next_term(), u64::from(round) + 1);
        if round > 0 {
            assert_eq!(restored.identity.as_ref(), Some(settings.identity()));
            assert_eq!(restored.position, Some(position(u64::from(round))));
        }
        let batch = Batch { position: Some(position(restored.next_term())), ..batch(round * 5..round * 5 + 5) };
        journal.commit(batch).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn tombstone_forgets_a_pod_and_the_newest_record_counts() {
    let (settings, topics) = installation("tombstone").await;
    let journals = KafkaJournals::start(settings, &topics).unwrap();
    let (mut journal, _) = opened(&journals, "a").await;
    journal.commit(batch(0..3)).await.unwrap();
    let mut newer = tracked(2);
    newer.sequence = 9;
    let change = Batch { records: vec![(uid(0), None), (uid(2), Some(newer.clone()))], ..Batch::default() };
    journal.commit(change).await.unwrap();
    let (_journal, restored) = opened(&journals, "b").await;
    let mut told: Vec<_> = restored.told.into_iter().map(|(uid, kept)| (uid, kept.unpack())).collect();
    told.sort_by(|a, b| a.0.cmp(&b.0));
    assert_eq!(told, [(uid(1), tracked(1)), (uid(2), newer)]);
    assert_eq!(restored.unreadable, []);
}

#[tokio::test(flavor = "multi_thread")]
async fn unreadable_and_later_records_are_facts() {
    let (settings, topics) = installation("unreadable").await;
    let producer: BaseProducer = settings.producer(ShardId(0), topics.wire_bytes_max).create().unwrap();
    producer.init_transactions(LIMIT).unwrap();
    producer.begin_transaction().unwrap();
    let mut later = tracked(2);
    (later.format, later.oldest_reader) = (99, 99);
    let later = serde_json::to_string(&later).unwrap();
    let keys = [format!("pod/{}", uid(1)), format!("pod/{}", uid(2)), "meta/later".to_owned()];
    for (key, value) in keys.iter().zip(["no json", &later, "{}"]) {
        let record = BaseRecord::to(settings.changelog_topic()).partition(0).key(key).payload(value);
        producer.send(record).map_err(|(e, _)| e).unwrap();
    }
    producer.commit_transaction(LIMIT).unwrap();
    let journals = KafkaJournals::start(settings, &topics).unwrap();
    let (mut journal, restored) = opened(&journals, "a").await;
    assert!(restored.told.is_empty());
    let mut found: Vec<_> = restored.unreadable.iter().map(|unreadable| unreadable.key.clone()).collect();
    found.sort();
    let mut expected = keys.to_vec();
    expected.sort();
    assert_eq!(found, expected);
    journal.commit(batch(5..6)).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn changelog_of_another_installation_is_refused() {
    let (settings, topics) = installation("other").await;
    let journals = KafkaJournals::start(settings.clone(), &topics).unwrap();
    let (mut journal, _) = opened(&journals, "a").await;
    journal.commit(batch(0..1)).await.unwrap();
    let changed = Identity { shard_by: "execution".into(), ..settings.identity().clone() };
    let journals = KafkaJournals::start(settings_of(changed), &topics).unwrap();
    // A standby learns it from its tail, before it contends.
    let started = Instant::now();
    while journals.readiness(ShardId(0)).is_ok() {
        assert!(started.elapsed() < LIMIT, "the standby does not learn whose changelog it is");
        tokio::task::yield_now().await;
    }
    let error = journals.open(&tenure("b")).await.err().unwrap();
    assert_eq!(error.class(), Class::Fatal);
    match error {
        OpenError::Identity { source, .. } => assert_eq!(source.key, "shard-by"),
        other => panic!("{other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hundred_thousand_pods_are_restored() {
    const PODS: u32 = 100_000;
    let (settings, topics) = installation("many").await;
    let journals = KafkaJournals::start(settings.clone(), &topics).unwrap();
    let (mut journal, _) = opened(&journals, "a").await;
    for first in (0..PODS).step_by(5000) {
        let records = (first..first + 5000).map(|n| (uid(n), Some(tracked(n)))).collect();
        journal.commit(Batch { records, ..Batch::default() }).await.unwrap();
    }
    // A cold replica reads everything; a standby has done so already.
    let cold = KafkaJournals::start(settings, &topics).unwrap();
    let (_journal, restored) = opened(&cold, "b").await;
    assert_eq!(restored.told.len(), PODS as usize);
}
