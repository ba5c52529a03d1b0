//! A broker that pauses or dies while transactions are on their way. It is one of these tests' own.
//!
//! Faults at exact moments come from a relay that holds the request which ends a transaction; those at random moments
//! hit several installations at once, each at another point of its commit.

use std::{sync::OnceLock, time::Duration};

use crate::{
    fleet::Fleet,
    kafka::{Kafka, lasts},
    relay::{Fate, Held, Relay},
    story::{Kind, Story},
};

/// Nobody takes such a pause for an outage.
const SHORT: Duration = Duration::from_millis(300);
/// Within the time of a transaction, and longer than an answer may take that was surely asked for once.
const LONG: Duration = Duration::from_millis(2500);
/// Beyond the time of a transaction.
const TOO_LONG: Duration = Duration::from_secs(22);

/// The relay in front of the broker.
fn relay(kafka: &Kafka) -> &'static Relay {
    static RELAY: OnceLock<Relay> = OnceLock::new();
    RELAY.get_or_init(|| Relay::open(kafka.relay(), kafka.relayed()))
}

async fn behind_the_relay(kafka: &Kafka, name: &str) -> Story {
    Story::begin(name, &kafka.relay().local_addr().unwrap().to_string(), &kafka.endpoints().kafka).await
}

/// Tells one batch. When the request to commit it is on its way, `fault` says what happens.
async fn told_with(story: &mut Story, relay: &Relay, fault: impl AsyncFnOnce(Held)) -> Kind {
    let mut held = relay.hold();
    let (ended, ()) = tokio::join!(story.tell(), async {
        held.arrived().await;
        fault(held).await;
    });
    story.settle(ended).await
}

#[tokio::test(flavor = "multi_thread")]
async fn commit_whose_answer_is_late_or_lost_is_told_once_and_spends_its_journal() {
    let kafka = Kafka::take().await.unwrap();
    let relay = relay(&kafka);
    let mut story = behind_the_relay(&kafka, "late").await;
    let passed = told_with(&mut story, relay, async |held| held.meets(Fate::PassedOn)).await;
    assert_eq!(passed, Kind::Committed, "the relay alone changes nothing");
    // INV-10: the client asks again below us, and what it asked first may be on its way for long.
    for round in 0..3 {
        let cut = told_with(&mut story, relay, async |held| held.meets(Fate::CutBefore)).await;
        assert_eq!(cut, Kind::CommittedAndSpent, "round {round}: the request was lost, and asked again");
        let cut = told_with(&mut story, relay, async |held| held.meets(Fate::CutAfter)).await;
        assert_eq!(cut, Kind::CommittedAndSpent, "round {round}: the answer was lost, and asked for again");
    }
    let late = told_with(&mut story, relay, async |held| {
        kafka.pause().await.unwrap();
        held.meets(Fate::PassedOn);
        lasts(LONG).await;
        kafka.resume().await.unwrap();
    });
    assert_eq!(late.await, Kind::CommittedAndSpent);
    let killed = told_with(&mut story, relay, async |held| {
        kafka.kill().await.unwrap();
        held.meets(Fate::PassedOn);
        kafka.restart().await.unwrap();
    });
    assert_ne!(killed.await, Kind::Committed, "such an answer cannot be clean");
    println!("verdicts: {:?}", story.verdicts);
    story.is_whole();
}

#[tokio::test(flavor = "multi_thread")]
async fn broker_that_pauses_or_dies_at_any_moment_doubles_and_loses_nothing() {
    let kafka = Kafka::take().await.unwrap();
    let mut fleet = Fleet::begin(&kafka.endpoints().kafka).await;
    for _ in 0..5 {
        fleet.round("short pause", kafka.pause_for(SHORT)).await;
    }
    fleet.round("long pause", kafka.pause_for(LONG)).await;
    for _ in 0..3 {
        let dies = async {
            kafka.kill().await?;
            kafka.restart().await
        };
        fleet.round("death", dies).await;
    }
    fleet.ends();
}

#[tokio::test(flavor = "multi_thread")]
async fn commit_that_outlasts_its_transaction_is_all_or_nothing() {
    let kafka = Kafka::take().await.unwrap();
    let relay = relay(&kafka);
    let mut fleet = Fleet::begin(&kafka.endpoints().kafka).await;
    let mut asked = behind_the_relay(&kafka, "asked").await;
    let mut unsent = Story::begin("unsent", &kafka.endpoints().kafka, &kafka.endpoints().kafka).await;
    let mut held = relay.hold();
    let mut ended = None;
    fleet
        .round("too long a pause", async {
            ended = Some(tokio::join!(asked.tell(), async {
                held.arrived().await;
                kafka.pause().await?;
                held.meets(Fate::PassedOn);
                let (ended, resumed) = tokio::join!(unsent.tell(), async {
                    lasts(TOO_LONG).await;
                    kafka.resume().await
                });
                resumed.map(|()| ended)
            }));
            Ok(())
        })
        .await;
    let (asked_ended, unsent_ended) = ended.unwrap();
    assert_eq!(asked.settle(asked_ended).await, Kind::Unknown, "the commit was asked for, and never answered");
    assert_eq!(unsent.settle(unsent_ended.unwrap()).await, Kind::Aborted, "not even the records were answered");
    asked.is_whole();
    unsent.is_whole();
    fleet.ends();
}
