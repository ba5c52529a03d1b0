//! INV-4: the fence. Whoever fenced last is the only one who can publish.

use std::time::{Duration, Instant};

use crate::support::*;
use pod_monitor::{
    ports::{Journal, Journals},
    publish::error::{Class, CommitError, OpenError},
};

#[tokio::test(flavor = "multi_thread")]
async fn older_producer_is_fenced_and_nothing_of_its_commit_is_visible() {
    let (settings, topics) = installation("older").await;
    let events = settings.events_topics()[0].clone();
    let first = warm(settings.clone(), &topics).await;
    let second = warm(settings, &topics).await;
    let (mut old, _) = opened(&first, "old").await;
    old.commit(batch(0..3)).await.unwrap();
    let (mut new, restored) = opened(&second, "new").await;
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
async fn leader_that_died_inside_a_transaction_is_fenced_and_its_records_stay_hidden() {
    let (settings, topics) = installation("died").await;
    let events = settings.events_topics()[0].clone();
    let journals = warm(settings.clone(), &topics).await;
    for round in 0..3 {
        dies_inside_a_transaction(&settings, &topics);
        connected(&journals).await;
        let (mut journal, restored) = opened(&journals, "next").await;
        assert_eq!(restored.told.len(), round as usize);
        journal.commit(batch(round..round + 1)).await.unwrap();
    }
    let seen = seen_until(&events, |seen| seen.len() >= 3);
    assert_eq!(keys(&seen), [0, 1, 2]);
    let dead = written(&events).iter().filter(|record| record.key == DEAD).count();
    assert_eq!(dead, 3, "the dead leaders' records were written");
}

#[tokio::test(flavor = "multi_thread")]
async fn producers_that_were_thrown_away_do_not_fence_their_successor() {
    let (settings, topics) = installation("thrown").await;
    let journals = warm(settings.clone(), &topics).await;
    dies_inside_a_transaction(&settings, &topics);

    let (mut journal, _) = opened(&journals, "next").await;
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
    let (mut holder, _) = opened(&journals, "holder").await;
    let over = tenure("late");
    over.ended.cancel();
    let error = journals.open(&over).await.err().unwrap();
    assert!(matches!(error, OpenError::Fence { .. }), "{error:?}");
    assert_eq!(error.class(), Class::Fenced);
    holder.commit(batch(0..1)).await.unwrap();
}
