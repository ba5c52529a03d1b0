//! INV-2 and the unity of a transaction: events and what is remembered of them are visible together or not at all.

use pod_monitor::{
    ports::Journal,
    publish::{
        Batch,
        error::{Class, CommitError},
        journal::KafkaJournals,
    },
};

use crate::support::*;

#[tokio::test(flavor = "multi_thread")]
async fn committed_batch_is_visible_once_and_together_with_its_changelog() {
    let (settings, topics) = installation("once").await;
    let (events, changelog) = (settings.events_topics()[0].clone(), settings.changelog_topic().to_owned());
    let journals = KafkaJournals::start(settings, &topics).unwrap();
    let (mut journal, restored) = opened(&journals, "a").await;
    assert!(restored.told.is_empty() && restored.position.is_none(), "a new changelog: {restored:?}");
    journal.commit(batch(0..10)).await.unwrap();
    journal.commit(batch(10..20)).await.unwrap();
    journal.commit(Batch::default()).await.unwrap();

    let seen_events = seen_until(&events, |seen| seen.len() >= 20);
    assert_eq!(keys(&seen_events), (0..20).collect::<Vec<_>>());
    let value: serde_json::Value = serde_json::from_str(seen_events[0].value.as_ref().unwrap()).unwrap();
    assert_eq!(value["event_type"], "execution_completed");
    let counts = |seen: &[Seen]| {
        ["meta/identity", "pod/", "meta/position", "meta/barrier"]
            .map(|prefix| seen.iter().filter(|record| record.key.starts_with(prefix)).count())
    };
    let counted = counts(&seen_until(&changelog, |seen| counts(seen)[2] >= 2));
    assert_eq!(counted[..3], [1, 20, 2], "the identity once, each pod, each position");
    assert!(counted[3] >= 1, "one barrier for each attempt to take over");
}

#[tokio::test(flavor = "multi_thread")]
async fn journal_commits_again_and_again() {
    let (settings, topics) = installation("again").await;
    let events = settings.events_topics()[0].clone();
    let journals = KafkaJournals::start(settings, &topics).unwrap();
    let (mut journal, _) = opened(&journals, "a").await;
    for first in 0..30 {
        // The publishing thread asserts that nothing is in flight when it commits.
        journal.commit(batch(first * 10..first * 10 + 10)).await.unwrap();
    }
    let seen = seen_until(&events, |seen| seen.len() >= 300);
    assert_eq!(keys(&seen), (0..300).collect::<Vec<_>>());
}

#[tokio::test(flavor = "multi_thread")]
async fn record_that_is_too_large_is_named_and_nothing_of_its_batch_is_visible() {
    let (settings, topics) = installation("large").await;
    let (events, record_bytes_max) = (settings.events_topics()[0].clone(), topics.record_bytes_max);
    let journals = KafkaJournals::start(settings, &topics).unwrap();
    let (mut journal, _) = opened(&journals, "a").await;
    let mut large = batch(0..3);
    large.events[1] = event(1, topics.wire_bytes_max + 1);
    let error = journal.commit(large).await.unwrap_err();
    assert_eq!(error.class(), Class::Transient);
    match error {
        CommitError::TooLarge { pod_uid, event_id, .. } => {
            assert_eq!((pod_uid, event_id), (uid(1), Some(event(1, 0).event_id)));
        }
        other => panic!("{other:?}"),
    }
    // The journal is still fit, and the largest record that is promised to fit does fit.
    let fits = event(7, record_bytes_max - 1000);
    journal.commit(Batch { events: vec![fits], ..Batch::default() }).await.unwrap();
    assert_eq!(keys(&seen_until(&events, |seen| !seen.is_empty())), [7]);
}

#[tokio::test(flavor = "multi_thread")]
async fn aborted_batch_is_never_visible() {
    let (settings, topics) = installation("aborted").await;
    let events = settings.events_topics()[0].clone();
    let journals = KafkaJournals::start(settings, &topics).unwrap();
    let (mut journal, _) = opened(&journals, "a").await;
    // Refused on its last record: everything before it has been handed to the client, and must be taken back.
    let mut refused = batch(0..500);
    refused.records[499].1.as_mut().unwrap().execution_id = "".into();
    let error = journal.commit(refused).await.unwrap_err();
    assert!(matches!(&error, CommitError::Refused { key, .. } if key.starts_with("pod/")), "{error:?}");
    assert_eq!(error.class(), Class::Fatal);
    journal.commit(batch(1000..1001)).await.unwrap();
    assert_eq!(keys(&seen_until(&events, |seen| !seen.is_empty())), [1000]);
}

#[tokio::test(flavor = "multi_thread")]
async fn journal_whose_commit_was_abandoned_sends_nothing_more() {
    let (settings, topics) = installation("abandoned").await;
    let events = settings.events_topics()[0].clone();
    let journals = KafkaJournals::start(settings, &topics).unwrap();
    let (mut journal, _) = opened(&journals, "a").await;
    {
        let mut commit = std::pin::pin!(journal.commit(batch(0..5)));
        // Polled once: the order is on its way, its verdict is not awaited.
        assert!(futures::poll!(&mut commit).is_pending());
    }
    let error = journal.commit(batch(5..10)).await.unwrap_err();
    assert!(matches!(error, CommitError::Spent { .. }), "{error:?}");
    // Opened anew, the changelog says what became of the first; the second was never sent.
    let (mut journal, restored) = opened(&journals, "a").await;
    assert!(restored.told.is_empty() || restored.told.len() == 5, "all of it or nothing: {}", restored.told.len());
    let told = u32::try_from(restored.told.len()).unwrap();
    journal.commit(batch(20..21)).await.unwrap();
    let seen = seen_until(&events, |seen| seen.iter().any(|record| record.key == "20"));
    assert_eq!(keys(&seen), (0..told).chain([20]).collect::<Vec<_>>());
}
