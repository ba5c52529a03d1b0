//! INV-4: the fence. Whoever fenced last is the only one who can publish.

use std::time::{Duration, Instant};

use pod_monitor::{
    leadership::tenure::ShardId,
    ports::{Journal, Journals},
    publish::{
        error::{Class, CommitError, OpenError},
        journal::KafkaJournals,
        settings::Settings,
        topics::Topics,
    },
};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};

use crate::support::*;

/// As a standby does: waits until the producers of the shard are connected.
async fn warm(settings: Settings, topics: &Topics) -> KafkaJournals {
    let journals = KafkaJournals::start(settings, topics).unwrap();
    let started = Instant::now();
    while journals.connected(ShardId(0)) < 3 {
        assert!(started.elapsed() < LIMIT, "producers do not get warm");
        tokio::task::yield_now().await;
    }
    journals
}

#[tokio::test(flavor = "multi_thread")]
async fn older_producer_is_fenced_and_nothing_of_its_commit_is_visible() {
    let (settings, topics) = installation("older").await;
    let events = settings.events_topics()[0].clone();
    let first = warm(settings.clone(), &topics).await;
    let second = warm(settings, &topics).await;
    let (mut old, _) = first.open(&tenure("old")).await.unwrap();
    old.commit(batch(0..3)).await.unwrap();
    let (mut new, restored) = second.open(&tenure("new")).await.unwrap();
    assert_eq!(restored.told.len(), 3, "all that the old holder told");

    let error = old.commit(batch(10..13)).await.unwrap_err();
    assert!(matches!(error, CommitError::Fenced { .. }), "{error:?}");
    assert_eq!(error.class(), Class::Fenced);
    let error = old.commit(batch(13..14)).await.unwrap_err();
    assert!(matches!(error, CommitError::Spent { .. }), "{error:?}");

    new.commit(batch(20..21)).await.unwrap();
    let seen = seen_until(&events, |seen| seen.iter().any(|record| record.key == "20"));
    assert_eq!(keys(&seen), [0, 1, 2, 20]);
}

#[tokio::test(flavor = "multi_thread")]
async fn leader_that_died_inside_a_transaction_is_fenced_quickly() {
    let (settings, topics) = installation("died").await;
    let events = settings.events_topics()[0].clone();
    let journals = warm(settings.clone(), &topics).await;
    let mut times = Vec::new();
    for round in 0..5 {
        // Dies with records written and neither committed nor aborted: leaked, so that not even its end says so.
        let dead: BaseProducer = settings.producer(ShardId(0), topics.wire_bytes_max).create().unwrap();
        dead.init_transactions(LIMIT).unwrap();
        dead.begin_transaction().unwrap();
        for topic in [&events, settings.changelog_topic()] {
            dead.send(BaseRecord::to(topic).partition(0).key("999").payload("{}")).map_err(|(e, _)| e).unwrap();
        }
        let sent = Instant::now();
        while dead.in_flight_count() > 0 {
            assert!(sent.elapsed() < LIMIT, "records of the dead leader were not written");
            dead.poll(Duration::from_millis(5));
        }
        std::mem::forget(dead);

        let started = Instant::now();
        while journals.connected(ShardId(0)) < 3 {
            assert!(started.elapsed() < LIMIT, "producers do not get warm");
            tokio::task::yield_now().await;
        }
        let started = Instant::now();
        let (mut journal, _) = journals.open(&tenure("next")).await.unwrap();
        times.push(started.elapsed());
        journal.commit(batch(round..round + 1)).await.unwrap();
    }
    println!("fence, barrier and restore after a death inside a transaction: {times:?}");
    times.sort_unstable();
    assert!(times[2] < Duration::from_millis(300), "one shot alone takes 505 ms: {times:?}");
    let seen = seen_until(&events, |seen| seen.len() >= 5);
    assert_eq!(keys(&seen), [0, 1, 2, 3, 4]);
    assert!(written(&events).iter().any(|record| record.key == "999"), "the dead leader's records were written");
}

#[tokio::test(flavor = "multi_thread")]
async fn producers_that_were_thrown_away_do_not_fence_their_successor() {
    let (settings, topics) = installation("thrown").await;
    let journals = warm(settings.clone(), &topics).await;
    let dead: BaseProducer = settings.producer(ShardId(0), topics.wire_bytes_max).create().unwrap();
    dead.init_transactions(LIMIT).unwrap();
    dead.begin_transaction().unwrap();
    let record = BaseRecord::to(settings.changelog_topic()).partition(0).key("999").payload("{}");
    dead.send(record).map_err(|(e, _)| e).unwrap();
    dead.flush(LIMIT).unwrap();
    std::mem::forget(dead);

    let (mut journal, _) = journals.open(&tenure("next")).await.unwrap();
    // Beyond the 500 ms timer of an instance that was refused.
    let (started, mut commits) = (Instant::now(), 0);
    while started.elapsed() < Duration::from_millis(1500) {
        journal.commit(batch(commits..commits + 1)).await.unwrap();
        commits += 1;
    }
    println!("{commits} commits, none of them fenced");
}

#[tokio::test(flavor = "multi_thread")]
async fn tenure_that_is_over_fences_nobody() {
    let (settings, topics) = installation("over").await;
    let journals = warm(settings.clone(), &topics).await;
    let (mut holder, _) = journals.open(&tenure("holder")).await.unwrap();
    let over = tenure("late");
    over.ended.cancel();
    let error = journals.open(&over).await.err().unwrap();
    assert!(matches!(error, OpenError::Fence { .. }), "{error:?}");
    assert_eq!(error.class(), Class::Fenced);
    holder.commit(batch(0..1)).await.unwrap();
}
