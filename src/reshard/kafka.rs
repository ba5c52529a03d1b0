//! The books in earnest: topics of Kafka, and Leases of a cluster.
//!
//! INV-17: after its barrier nothing but the switch is written to an old shard. The switch's records are written first;
//! then each old partition must end right behind them, two offsets after its barrier (the barrier's mark, then ours); only
//! then is it committed. Whoever takes a shard over after that writes his barrier behind these records, and a reader of
//! committed records does not come to it before they are committed, which tells him to stop, or aborted, which fails us.

use std::{sync::Arc, time::Duration};

use rdkafka::{
    ClientConfig, Message,
    config::FromClientConfig,
    consumer::{BaseConsumer, Consumer},
    error::KafkaError,
};
use tokio::task::{JoinError, spawn_blocking};
use tokio_util::sync::CancellationToken;

use super::{
    Books,
    held::Held,
    holds::{self, Holds, Place},
    plan::{Switch, Write},
};
use crate::{
    clock,
    config::Kafka,
    leadership::{lease, tenure::ShardId},
    publish::{
        changelog::{self, Barrier},
        error::{Class, CommitError},
        fence::{self, Warm},
        identity::Identity,
        raw::{self, Record, Writer},
        record::Service,
        settings::{self, Settings},
        topics::{self, Topics},
    },
    verify::read::{self, Extent},
};

/// How long a barrier may take to become visible, and a producer to be connected.
const VISIBLE_MAX: Duration = Duration::from_secs(10);
/// Between two looks at it.
const LOOK: Duration = Duration::from_millis(20);
/// How often a shard is fenced until its barrier stands there, and the pause after which a producer that was thrown away
/// has gone for good.
const SEALS_MAX: u32 = 5;
const SEAL_PAUSE: Duration = Duration::from_secs(1);
/// Producers that make a fence short.
const CONNECTED: usize = 2;
/// Longest question about the end of a partition.
const ASK_MAX: Duration = Duration::from_secs(3);
/// From a barrier to the end of its partition when the switch is written: itself, its mark, and `meta/moved`.
const BARRIER_TO_END: i64 = 3;

/// Why something could not be done.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Kafka settings.
    #[error(transparent)]
    Settings(#[from] settings::Error),
    /// Topics.
    #[error(transparent)]
    Topics(#[from] topics::Error),
    /// The new topic is of no use.
    #[error(
        "topic {topic}: {wrong}; if it was made by an earlier try: go on with the number of shards that it was made for, \
         or delete it, kafka-topics.sh --bootstrap-server {servers} --delete --topic {topic}"
    )]
    LeftOver {
        /// Which.
        topic: String,
        /// What is wrong with it.
        wrong: String,
        /// Bootstrap servers.
        servers: String,
    },
    /// A topic could not be read.
    #[error(transparent)]
    Read(#[from] read::Error),
    /// Leases.
    #[error(transparent)]
    Holds(#[from] holds::Error),
    /// An old shard could not be fenced.
    #[error("fence shard {shard}")]
    Fence {
        /// Which.
        shard: ShardId,
        /// Why.
        #[source]
        source: fence::Error,
    },
    /// The barrier of an old shard could not be committed.
    #[error("commit the barrier of shard {shard}")]
    Barrier {
        /// Which.
        shard: ShardId,
        /// Why.
        #[source]
        source: CommitError,
    },
    /// Somebody still writes.
    #[error(
        "something was written to old shard {shard} after it was fenced: a replica is at work there. Stop all replicas"
    )]
    Disturbed {
        /// Which.
        shard: ShardId,
    },
    /// A transaction came to nothing.
    #[error("write to topic {topic}")]
    Write {
        /// Where.
        topic: String,
        /// Why.
        #[source]
        source: raw::Error,
    },
    /// A record could not be encoded: a bug.
    #[error("encode a record")]
    Encode(#[from] serde_json::Error),
    /// Asked to stop.
    #[error("asked to stop: nothing was switched, run it again to go on")]
    Stopped,
    /// A step was asked for before what it needs: a bug.
    #[error("the topics were not looked at")]
    Order,
    /// A part died: a bug.
    #[error("a part ended unexpectedly")]
    Part(#[from] JoinError),
}

impl Error {
    /// Whether another try alone does not help: something is to be changed first.
    pub fn is_configuration(&self) -> bool {
        match self {
            Self::Settings(_) | Self::LeftOver { .. } | Self::Read(read::Error::NoTopic { .. }) => true,
            Self::Topics(error) => error.class() == Class::Fatal,
            Self::Holds(holds::Error::Led { .. } | holds::Error::Lease(lease::Error::Forbidden { .. })) => true,
            Self::Fence { source, .. } => source.class() == Class::Fatal,
            _ => false,
        }
    }
}

/// Hears how far reading a topic has come: its name, offsets done, of so many.
pub type Progress = Arc<dyn Fn(&str, u64, u64) + Send + Sync>;

/// What the books are opened with.
pub struct Setup {
    /// How Kafka is reached, and the old generation.
    pub kafka: Kafka,
    /// A client for the Leases, without retries.
    pub client: kube::Client,
    /// Where the Leases are.
    pub place: Place,
    /// Who tells.
    pub service: Service,
    /// Asked to stop.
    pub stop: CancellationToken,
    /// Hears of progress.
    pub progress: Progress,
}

/// Topics and Leases.
pub struct KafkaBooks {
    setup: Setup,
    reader: ClientConfig,
    holds: Holds,
    prepared: Option<Prepared>,
    writer: Option<Writer>,
    barriers: Vec<Barrier>,
    /// Offset of each barrier.
    sealed: Vec<i64>,
}

struct Prepared {
    old: Arc<Settings>,
    new: Arc<Settings>,
    topics: Topics,
}

impl KafkaBooks {
    /// Connects to nothing yet.
    ///
    /// # Errors
    /// When a property cannot be used.
    pub fn new(setup: Setup) -> Result<Self, Error> {
        let properties = setup.kafka.properties.to_map_with_secrets();
        let reader = settings::reader(&setup.kafka.bootstrap_servers, &properties)?;
        let (barriers, sealed, holds) = (Vec::new(), Vec::new(), Holds::new(&setup.stop));
        Ok(Self { setup, reader, holds, prepared: None, writer: None, barriers, sealed })
    }

    /// Lets the Leases go.
    pub async fn close(self) {
        self.holds.release().await;
    }

    fn settings(&self, identity: &Identity) -> Result<Settings, Error> {
        let Kafka { bootstrap_servers, properties, events_topic, changelog_topic, .. } = &self.setup.kafka;
        let (properties, service) = (properties.to_map_with_secrets(), self.setup.service.clone());
        Ok(Settings::new(bootstrap_servers, properties, events_topic, changelog_topic, identity.clone(), service)?)
    }

    fn prepared(&self) -> Result<&Prepared, Error> {
        self.prepared.as_ref().ok_or(Error::Order)
    }

    async fn read(&self, topic: String, flag: &'static str) -> Result<Vec<Held>, Error> {
        let (reader, progress) = (self.reader.clone(), Arc::clone(&self.setup.progress));
        let read = spawn_blocking(move || {
            let extent = Extent::of(&reader, &topic, flag)?;
            let (all, mut shards) = (extent.left(), vec![Held::default(); extent.partitions]);
            let each = |message: &rdkafka::message::BorrowedMessage<'_>| {
                let shard = usize::try_from(message.partition()).ok().and_then(|shard| shards.get_mut(shard));
                shard.into_iter().for_each(|shard| shard.take(message.offset(), message.key(), message.payload()));
            };
            extent.read(each, |left| progress(&topic, all.saturating_sub(left), all))?;
            progress(&topic, all, all);
            Ok(shards)
        });
        read.await?.map_err(Error::Read)
    }

    /// Runs something that blocks with the writer.
    async fn writing<T: Send + 'static>(
        &mut self,
        topic: &str,
        work: impl FnOnce(&mut Writer) -> Result<T, raw::Error> + Send + 'static,
    ) -> Result<T, Error> {
        let mut writer = match self.writer.take() {
            Some(writer) => writer,
            None => {
                let Prepared { new, topics, .. } = self.prepared()?;
                let Identity { cluster_id, lease_namespace, lease_name, .. } = new.identity();
                let id = format!("{cluster_id}.{lease_namespace}.{lease_name}.reshard");
                Writer::new(new.as_ref().clone(), id, topics.wire_bytes_max)
            }
        };
        let (writer, result) = spawn_blocking(move || {
            let result = work(&mut writer);
            (writer, result)
        })
        .await?;
        self.writer = Some(writer);
        result.map_err(|source| Error::Write { topic: topic.to_owned(), source })
    }

    async fn seal(&self, shard: ShardId) -> Result<Barrier, Error> {
        let Prepared { old, topics, .. } = self.prepared()?;
        let tenure = self.holds.tenure(shard).ok_or(Error::Order)?;
        let fence = |source| Error::Fence { shard, source };
        let warm = Warm::start(Arc::clone(old), topics.clone(), shard).map_err(fence)?;
        let began = clock::monotonic();
        while warm.connected() < CONNECTED && began.elapsed() < VISIBLE_MAX {
            tokio::time::sleep(LOOK).await;
        }
        let mut tries = 0;
        loop {
            tries += 1;
            let (error, class) = match warm.fence(tenure).await {
                Ok(fenced) => match fenced.seal().await {
                    Ok(barrier) => return Ok(barrier),
                    Err(source) => {
                        let class = source.class();
                        (Error::Barrier { shard, source }, class)
                    }
                },
                Err(source) => {
                    let class = source.class();
                    (fence(source), class)
                }
            };
            // A producer that died a moment ago, one of ours that was late among them, may fence once more.
            if class == Class::Fatal || tries == SEALS_MAX || self.go_on_now().is_err() {
                return Err(error);
            }
            tokio::time::sleep(SEAL_PAUSE).await;
        }
    }

    fn go_on_now(&self) -> Result<(), Error> {
        if self.setup.stop.is_cancelled() {
            return Err(Error::Stopped);
        }
        Ok(self.holds.check()?)
    }
}

impl Books for KafkaBooks {
    type Error = Error;

    async fn read_old(&mut self) -> Result<Vec<Held>, Error> {
        let began = clock::monotonic();
        loop {
            let old = self.read(self.setup.kafka.changelog(), "--changelog-topic and --generation").await?;
            let sealed: Vec<_> = old.iter().zip(&self.barriers).map(|(held, barrier)| sealed(held, barrier)).collect();
            match sealed.iter().position(Option::is_none) {
                None => {
                    self.sealed = sealed.into_iter().flatten().collect();
                    return Ok(old);
                }
                Some(shard) if began.elapsed() > VISIBLE_MAX => {
                    return Err(Error::Disturbed { shard: ShardId(u32::try_from(shard).unwrap_or(u32::MAX)) });
                }
                Some(_) => tokio::time::sleep(LOOK).await,
            }
        }
    }

    async fn read_new(&mut self) -> Result<Vec<Held>, Error> {
        let topic = self.prepared()?.new.changelog_topic().to_owned();
        self.read(topic, "--changelog-topic").await
    }

    async fn prepare(&mut self, old: &Identity, new: &Identity) -> Result<(), Error> {
        let (old, new) = (self.settings(old)?, self.settings(new)?);
        let found = topics::prepare(&old, false).await?;
        let servers = self.setup.kafka.bootstrap_servers.clone();
        let made = topics::prepare(&new, self.setup.kafka.create_topics).await.map_err(|error| match error {
            topics::Error::Wrong { topic, wrong, .. } if topic == new.changelog_topic() => {
                Error::LeftOver { topic, wrong, servers }
            }
            error => error.into(),
        })?;
        let wire_bytes_max = found.wire_bytes_max.min(made.wire_bytes_max);
        self.prepared =
            Some(Prepared { old: Arc::new(old), new: Arc::new(new), topics: Topics { wire_bytes_max, ..found } });
        Ok(())
    }

    async fn take(&mut self, shards: u32) -> Result<(), Error> {
        let Setup { client, place, stop, .. } = &self.setup;
        match self.holds.take(client, place, shards).await {
            Err(_) if stop.is_cancelled() => Err(Error::Stopped),
            taken => Ok(taken?),
        }
    }

    async fn fence(&mut self) -> Result<(), Error> {
        // First: an earlier try may have died with its switch written, and its end would be marked in the old shards.
        let topic = self.prepared()?.new.changelog_topic().to_owned();
        self.writing(&topic, Writer::open).await?;
        self.barriers.clear();
        let shards = self.prepared()?.old.identity().shards;
        for shard in (0..shards).map(ShardId) {
            self.go_on()?;
            let barrier = self.seal(shard).await?;
            self.barriers.push(barrier);
        }
        Ok(())
    }

    fn go_on(&mut self) -> Result<(), Error> {
        self.go_on_now()
    }

    async fn write(&mut self, writes: &[Write<'_>]) -> Result<(), Error> {
        let topic = self.prepared()?.new.changelog_topic().to_owned();
        let record = |write: &Write<'_>| Record {
            topic: topic.clone(),
            shard: write.shard,
            key: write.key.to_owned(),
            value: write.value.map(<[u8]>::to_vec),
        };
        let records: Vec<Record> = writes.iter().map(record).collect();
        self.writing(&topic, move |writer| writer.commit(&records, "reshard-chunk-sent", || Ok(()))).await
    }

    async fn switch(&mut self, switch: &Switch) -> Result<(), Error> {
        let records = records(self.prepared()?, switch)?;
        let (topic, sealed) = (self.prepared()?.old.changelog_topic().to_owned(), self.sealed.clone());
        if sealed.len() != self.barriers.len() || sealed.is_empty() {
            return Err(Error::Order);
        }
        let mut uncommitted = self.reader.clone();
        // What others have written and not committed counts as well.
        uncommitted.set("isolation.level", "read_uncommitted");
        let (of, disturbed) = (topic.clone(), Arc::new(std::sync::OnceLock::new()));
        let found = Arc::clone(&disturbed);
        let check = move || {
            let ask = |error: KafkaError| format!("ask where topic {of} ends: {error}");
            let consumer: BaseConsumer = BaseConsumer::from_config(&uncommitted).map_err(ask)?;
            for (partition, barrier) in (0_i32..).zip(&sealed) {
                let (_, end) = consumer.fetch_watermarks(&of, partition, ASK_MAX).map_err(ask)?;
                if end != barrier + BARRIER_TO_END {
                    let shard = ShardId(partition.unsigned_abs());
                    let why = format!("shard {shard} ends at {end}, its barrier is at {barrier}");
                    return Err(if found.set(shard).is_ok() { why } else { String::new() });
                }
            }
            Ok(())
        };
        let switched = self.writing(&topic, move |writer| writer.commit(&records, "reshard-switch-sent", check)).await;
        match (switched, disturbed.get()) {
            (Err(_), Some(shard)) => Err(Error::Disturbed { shard: *shard }),
            (switched, _) => switched,
        }
    }
}

/// The barrier's offset, if it is ours and the last record.
fn sealed(held: &Held, ours: &Barrier) -> Option<i64> {
    held.barrier.as_ref().filter(|(found, offset)| found == ours && held.last == Some(*offset)).map(|(_, at)| *at)
}

/// What the switch is made of.
fn records(Prepared { old, new, .. }: &Prepared, switch: &Switch) -> Result<Vec<Record>, Error> {
    let meta = |settings: &Settings, shard, key: &str, value: Vec<u8>| Record {
        topic: settings.changelog_topic().to_owned(),
        shard,
        key: key.to_owned(),
        value: Some(value),
    };
    let mut records = Vec::new();
    for shard in (0..old.identity().shards).map(ShardId) {
        records.push(meta(old, shard, changelog::MOVED, serde_json::to_vec(&switch.moved)?));
    }
    for shard in (0..new.identity().shards).map(ShardId) {
        records.push(meta(new, shard, changelog::IDENTITY, serde_json::to_vec(&switch.identity)?));
        records.push(meta(new, shard, changelog::POSITION, serde_json::to_vec(&switch.position)?));
        if let Some(inherited) = &switch.inherited {
            records.push(meta(new, shard, changelog::INHERITED, serde_json::to_vec(inherited)?));
        }
    }
    Ok(records)
}
