//! Fencing a leader that died inside a transaction: the monitor's way, and with one producer that asks until it gets in.

use std::{
    collections::BTreeMap,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Result, anyhow};
use jiff::Timestamp;
use pod_monitor::{
    leadership::tenure::{ShardId, Tenure},
    publish::{
        fence::Warm,
        identity::{FORMAT, Identity},
        record::Service,
        settings::Settings,
        topics::{self, Topics},
    },
};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer as _};
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use crate::{
    cases::Case,
    results::{Trial, commit},
};

const LIMIT: Duration = Duration::from_secs(10);
const SHARD: ShardId = ShardId(0);
/// Instances that a standby keeps.
const WARM: usize = 3;

/// An installation without monitors.
pub(crate) struct Fences {
    settings: Settings,
    topics: Topics,
    warm: Warm,
}

impl Fences {
    pub(crate) async fn open(kafka: &str) -> Result<Self> {
        let name = format!("fence-{}", std::process::id());
        let identity = Identity {
            cluster_id: "bench".into(),
            lease_namespace: "bench".into(),
            lease_name: name.clone(),
            generation: 1,
            shards: 1,
            shard_by: "uid".into(),
            selector: "app=bench".into(),
            namespaces: vec!["bench".into()],
            format: FORMAT,
        };
        let service = Service { name: "bench".into(), version: "0".into(), environment: None };
        let (events, changelog) = (format!("{name}.events"), format!("{name}.changelog"));
        let settings = Settings::new(kafka, BTreeMap::new(), &events, &changelog, identity, service)?;
        let topics = topics::ensure(&settings, true).await?;
        let warm = Warm::start(settings.clone().into(), topics.clone(), SHARD)?;
        Ok(Self { settings, topics, warm })
    }

    fn producer(&self) -> Result<BaseProducer> {
        Ok(self.settings.producer(SHARD, self.topics.wire_bytes_max).create()?)
    }

    /// A leader that dies inside a transaction: its record is at the broker, and it does nothing more.
    fn open_transaction(&self) -> Result<BaseProducer> {
        let leader = self.producer()?;
        leader.init_transactions(LIMIT)?;
        leader.begin_transaction()?;
        let topic = self.settings.changelog_topic();
        leader.send(BaseRecord::to(topic).partition(0).key("bench").payload("x")).map_err(|(error, _)| error)?;
        let began = Instant::now();
        while leader.in_flight_count() > 0 {
            leader.poll(Duration::from_millis(1));
            if began.elapsed() > LIMIT {
                return Err(anyhow!("the record was not delivered"));
            }
        }
        Ok(leader)
    }

    pub(crate) async fn measure(&self, case: Case) -> Result<Trial> {
        while self.warm.connected() < WARM {
            sleep(Duration::from_millis(10)).await;
        }
        let standby = self.producer()?;
        standby.client().fetch_metadata(Some(self.settings.changelog_topic()), LIMIT)?;
        let zombie = self.open_transaction()?;
        // Standbys are connected for a while when a leader dies, and do not look at the metadata right then.
        sleep(Duration::from_millis(300)).await;
        let wall = Timestamp::now();
        let took = if case == Case::FenceTwoShot { self.ours(&wall).await? } else { one_shot(&standby)? };
        later(standby);
        later(zombie);
        Ok(Trial {
            case,
            at: wall.to_string(),
            commit: commit(),
            gap_ms: 0.0,
            first_ms: took.as_secs_f64() * 1000.0,
            steady_ms: 0.0,
            lost: 0,
            doubled: 0,
            legs: BTreeMap::new(),
            load: testkit::machine::load(),
        })
    }

    async fn ours(&self, wall: &Timestamp) -> Result<Duration> {
        let tenure = Tenure::unconditional(SHARD, &wall.to_string(), CancellationToken::new());
        let began = Instant::now();
        let fenced = self.warm.fence(&tenure).await?;
        let took = began.elapsed();
        drop(fenced);
        Ok(took)
    }
}

fn one_shot(standby: &BaseProducer) -> Result<Duration> {
    let began = Instant::now();
    standby.init_transactions(LIMIT)?;
    Ok(began.elapsed())
}

/// Dropping a client waits for its threads; that is no part of a measurement.
fn later(producer: BaseProducer) {
    thread::spawn(move || drop(producer));
}
