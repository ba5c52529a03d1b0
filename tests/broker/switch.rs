//! INV-17: what keeps two generations from both being the truth, whatever the Leases say.

use std::{sync::Arc, time::Duration};

use kube::{Client, Config};
use pod_monitor::{
    config::{Kafka, Properties, Sources},
    leadership::election::Times,
    publish::{error::OpenError, identity::Identity},
    reshard::{
        Books,
        holds::Place,
        kafka::{self, KafkaBooks, Progress, Setup},
        plan::{Standing, Wish},
    },
};
use rdkafka::{
    ClientConfig,
    producer::{BaseProducer, BaseRecord, Producer},
};
use tokio_util::sync::CancellationToken;

use crate::{
    reshard::{Generation, NAMESPACE, installed, newest, some_pods},
    support::*,
};

/// The books as the command opens them.
async fn books(base: &Identity) -> KafkaBooks {
    let kafka = Kafka {
        bootstrap_servers: servers(),
        properties: Properties::default(),
        sources: Sources::default(),
        events_topic: format!("{}.events", base.lease_name),
        changelog_topic: format!("{}.changelog", base.lease_name),
        generation: 1,
        create_topics: true,
    };
    let seconds = |n| Duration::from_secs(n);
    let times = Times { lease_duration: seconds(4), renew_deadline: seconds(3), retry_period: seconds(1) };
    let (namespace, name, me) = (NAMESPACE.into(), base.lease_name.clone(), "reshard".into());
    let client = Client::try_from(Config::infer().await.unwrap()).unwrap();
    let (place, stop) = (Place { namespace, name, me, times }, CancellationToken::new());
    let progress: Progress = Arc::new(|_, _, _| ());
    KafkaBooks::new(Setup { kafka, client, place, service: service(), stop, progress }).unwrap()
}

/// INV-17: whatever the Leases say. The one who writes may have been started without an election.
#[tokio::test(flavor = "multi_thread")]
async fn who_writes_behind_a_barrier_makes_the_switch_fail() {
    let base = installed("reshard-behind");
    let first = Generation::of(&base, 1, 2, "uid").await;
    drop(first.told(&some_pods(0..20)).await);
    let wish = Wish {
        ours: base.clone(),
        base: format!("{}.changelog", base.lease_name),
        count: 3.try_into().unwrap(),
        by: None,
        from: None,
        holder: "reshard".into(),
    };
    for disturbed in [true, false] {
        let mut books = books(&base).await;
        let old = books.read_old().await.unwrap();
        let Ok(Standing::Due(found)) = wish.standing(&old) else { panic!("it is to be done") };
        books.prepare(&found, &wish.switch(&found, &old).identity).await.unwrap();
        books.take(2).await.unwrap();
        books.fence().await.unwrap();
        let old = books.read_old().await.unwrap();
        if disturbed {
            drop(first.told(&some_pods(30..31)).await);
        }
        let switched = books.switch(&wish.switch(&found, &old)).await;
        assert_eq!(matches!(switched, Err(kafka::Error::Disturbed { .. })), disturbed, "{switched:?}");
        let moved = newest(first.settings.changelog_topic());
        assert!(moved.iter().all(|records| records.contains_key("meta/moved") != disturbed), "all or nothing");
        books.close().await;
    }
}

/// INV-17: a reader of committed records, as every restore is, does not come past the switch before it is decided.
#[tokio::test(flavor = "multi_thread")]
async fn who_takes_a_shard_over_while_the_switch_is_open_waits_for_it() {
    let base = installed("reshard-open");
    let first = Generation::of(&base, 1, 1, "uid").await;
    drop(first.told(&some_pods(0..5)).await);
    for committed in [false, true] {
        let switching: BaseProducer = ClientConfig::new()
            .set("bootstrap.servers", servers())
            .set("transactional.id", unique("reshard-open"))
            .create()
            .unwrap();
        switching.init_transactions(LIMIT).unwrap();
        switching.begin_transaction().unwrap();
        let moved = r#"{"generation":2,"shards":3,"shard_by":"uid","topic":"t"}"#;
        let record = BaseRecord::to(first.settings.changelog_topic()).partition(0).key("meta/moved").payload(moved);
        switching.send(record).map_err(|(error, _)| error).unwrap();
        switching.flush(LIMIT).unwrap();
        let journals = first.journals();
        let mut taking =
            tokio::spawn(async move { taken_over(&journals, &tenure("next")).await.map(|(_, restored)| restored) });
        let early = tokio::time::timeout(Duration::from_secs(2), &mut taking).await;
        assert!(early.is_err(), "it acts although the switch may be committed at any moment: {early:?}");
        match committed {
            true => switching.commit_transaction(LIMIT).unwrap(),
            false => switching.abort_transaction(LIMIT).unwrap(),
        }
        match taking.await.unwrap() {
            Ok(restored) => assert!(!committed && restored.told.len() == 5 && restored.moved.is_none()),
            Err(OpenError::Identity { source, .. }) => {
                assert!(committed && source.to_string().contains("--generation 2"))
            }
            Err(other) => panic!("{other:?}"),
        }
    }
}
