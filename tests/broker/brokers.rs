//! Three brokers, as in a production: one of them dies, freezes, is away, comes back or is restarted in an orderly way.
//! Leaders of partitions, coordinators of transactions and the controller change hands with that.

use std::{
    collections::BTreeSet,
    path::Path,
    sync::{Arc, OnceLock},
    time::{Duration, Instant},
};

use anyhow::{Result, ensure};
use rdkafka::{
    ClientConfig,
    consumer::{BaseConsumer, Consumer as _},
};
use testkit::{
    clients::{
        fault::Random,
        history::{History, create_topic, create_topic_on},
        monitor::{Launch, Monitor},
        until,
    },
    stack::{Brokers, Signal},
};
use tokio::{
    sync::{Mutex, MutexGuard},
    task::spawn_blocking,
};

use crate::{
    bench::Bench,
    check::Checked,
    fleet::Fleet,
    rotation::{TAKEN, times, told_on, under_a_stream},
    secure::topics_of,
    security::another,
    support::LIMIT,
};

const BROKERS: u8 = 3;
/// How long it may take until events go on after a broker's death. Until its session is over nobody leads what it led: 9 s
/// by Kafka's own settings, 12 s where another controller is to be chosen. A coordinator that gave up waiting for its own
/// log goes on after 30 s.
const OVER: Duration = Duration::from_secs(25);

/// How long it may take until a leader gives its shard up to others who cannot commit either: half a minute by itself.
const GIVEN_UP: Duration = Duration::from_secs(60);

/// What becomes of a broker.
#[derive(Debug, Clone, Copy)]
enum Fault {
    /// Its connections are refused from then on.
    Dies,
    /// They stay open.
    Freezes,
    /// It hands over first.
    Stops,
}

impl Fault {
    fn comes(self, all: &Brokers, number: u8) -> Result<()> {
        match self {
            Self::Dies => all.end(number, Signal::KILL),
            Self::Freezes => all.freeze(number),
            Self::Stops => all.end(number, Signal::TERM),
        }
    }

    fn goes(self, all: &Brokers, number: u8) -> Result<()> {
        match self {
            Self::Dies | Self::Stops => all.start_again(number),
            Self::Freezes => all.thaw(number),
        }
    }
}

/// One of the brokers, which the seed chooses: each takes Kafka ten seconds.
fn any_of_them() -> Result<u8> {
    let number = Random::from_variable("BROKER_SEED")?.number() % u64::from(BROKERS);
    Ok(u8::try_from(number)? + 1)
}

/// How often a leader gave up for want of Kafka.
fn gave_up(log: &Path) -> Result<usize> {
    let log = std::fs::read_to_string(log)?;
    Ok(log.lines().filter(|line| line.contains("tenure ended") && line.contains("GaveUp(Kafka)")).count())
}

/// Brokers of these tests' own, which they take in turns. They end with this process.
struct Three {
    brokers: Arc<Brokers>,
    servers: String,
    _turn: MutexGuard<'static, ()>,
}

impl Three {
    /// Boots them if they are not up yet, and waits for their turn.
    async fn take() -> Result<Self> {
        static TURN: Mutex<()> = Mutex::const_new(());
        static OWN: OnceLock<Arc<Brokers>> = OnceLock::new();
        let turn = TURN.lock().await;
        let booted = || OWN.get_or_init(|| Arc::new(Brokers::boot(BROKERS).expect("boot three brokers")));
        let brokers = Arc::clone(spawn_blocking(booted).await?);
        let three = Self { servers: brokers.servers(), brokers, _turn: turn };
        three.are_whole().await?;
        Ok(three)
    }

    /// Waits until all of them know each other, and hold everything that they are to hold.
    async fn are_whole(&self) -> Result<()> {
        let consumer: BaseConsumer = ClientConfig::new().set("bootstrap.servers", &self.servers).create()?;
        let looks = async || {
            let Ok(metadata) = consumer.fetch_metadata(None, Duration::from_secs(5)) else { return Ok(None) };
            let brokers: BTreeSet<i32> = metadata.brokers().iter().map(|broker| broker.id()).collect();
            let mut partitions = metadata.topics().iter().flat_map(|topic| topic.partitions());
            let in_sync = partitions.all(|partition| partition.isr().len() == partition.replicas().len());
            Ok((brokers.len() == usize::from(BROKERS) && in_sync).then_some(()))
        };
        until(LIMIT, "all brokers hold everything", looks).await
    }

    /// A leader and a standby that tell these brokers of the bench's pods, and what they tell.
    async fn monitored(&self, name: &str) -> Result<(Bench, [Monitor; 2], History)> {
        let bench = Bench::new(name).await?;
        let launch = bench.launch.clone().set("--kafka", &self.servers);
        let mut leader = launch.start()?;
        leader.leading(LIMIT).await?;
        let mut standby = another(launch, "standby")?.start()?;
        standby.ready(LIMIT).await?;
        let history = History::open(&self.servers, &[&format!("{}.events", bench.app)])?;
        Ok((bench, [leader, standby], history))
    }

    async fn on(&self, what: impl FnOnce(&Brokers) -> Result<()> + Send + 'static) -> Result<()> {
        let brokers = Arc::clone(&self.brokers);
        spawn_blocking(move || what(&brokers)).await?
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn brokers_that_die_and_are_restarted_one_after_the_other_double_and_lose_nothing() -> Result<()> {
    let three = Three::take().await?;
    let mut fleet = Fleet::begin(&three.servers).await;
    let dies = any_of_them()?;
    fleet.round("a broker dies", three.on(move |all| all.end(dies, Signal::KILL))).await;
    fleet.round("one is away", async { Ok(()) }).await;
    fleet.round("it comes back", three.on(move |all| all.start_again(dies))).await;
    three.are_whole().await?;
    for number in 1..=BROKERS {
        let restart = move |all: &Brokers| {
            all.end(number, Signal::TERM)?;
            all.start_again(number)
        };
        fleet.round("it is restarted", three.on(restart)).await;
        three.are_whole().await?;
    }
    fleet.ends();
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leader_waits_for_brokers_that_die_and_stays_the_leader() -> Result<()> {
    let three = Three::take().await?;
    let (bench, [leader, standby], mut history) = three.monitored("brokers-die").await?;
    under_a_stream(&bench, &mut history, async |history| {
        told_on(history).await?;
        let of_each = |fault| (1..=BROKERS).map(move |number| (fault, number));
        let freezes = [(Fault::Freezes, any_of_them()?)];
        for (fault, number) in of_each(Fault::Dies).chain(freezes).chain(of_each(Fault::Stops)) {
            let begun = Instant::now();
            let (came, told) = tokio::join!(three.on(move |all| fault.comes(all, number)), told_on(history));
            came.and(told)?;
            let took = begun.elapsed();
            println!("broker {number} {fault:?}: told on after {took:?}");
            ensure!(took < OVER, "broker {number} {fault:?}: told on after {took:?}, at most {OVER:?}");
            three.on(move |all| fault.goes(all, number)).await?;
            three.are_whole().await?;
            told_on(history).await?;
        }
        Ok(())
    })
    .await?;
    let gave_up = [&leader, &standby].map(|monitor| gave_up(&monitor.log).unwrap());
    ensure!(gave_up == [0, 0], "another replica gets on no sooner: {gave_up:?}");
    println!("the leader opened its journal {} times", times(&leader.log, TAKEN)?);
    leader.stop(LIMIT).await?;
    standby.stop(LIMIT).await?;
    bench.close().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_majority_of_brokers_that_is_lost_costs_changes_of_hands_and_no_event() -> Result<()> {
    let three = Three::take().await?;
    let (bench, [leader, standby], mut history) = three.monitored("brokers-lost").await?;
    let stays = any_of_them()?;
    let others = move || (1..=BROKERS).filter(move |number| *number != stays);
    under_a_stream(&bench, &mut history, async |history| {
        told_on(history).await?;
        let lost = Instant::now();
        three.on(move |all| others().try_for_each(|number| all.end(number, Signal::KILL))).await?;
        // The one that stays answers, so that it takes until the leader has waited long enough for a commit.
        let each = || anyhow::Ok([gave_up(&leader.log)?, gave_up(&standby.log)?]);
        let given = until(GIVEN_UP, "the shard is given up", async || Ok(Some(each()?).filter(|all| *all != [0, 0])));
        println!("broker {stays} stays: given up {:?} times after {:?}", given.await?, lost.elapsed());
        let back = Instant::now();
        three.on(move |all| others().try_for_each(|number| all.start_again(number))).await?;
        three.are_whole().await?;
        told_on(history).await?;
        println!("told on {:?} after the first began to come back, given up {:?} times", back.elapsed(), each()?);
        Ok(())
    })
    .await?;
    leader.stop(LIMIT).await?;
    standby.stop(LIMIT).await?;
    bench.close().await
}

#[tokio::test(flavor = "multi_thread")]
async fn topics_that_a_lost_broker_would_take_along_are_named() -> Result<()> {
    let three = Three::take().await?;
    let bench = Bench::new("check-replicas").await?;
    let launch = bench.launch.clone().set("--cluster-id", "c").set("--kafka", &three.servers);
    let (events, changelog) = topics_of(&bench.app);
    create_topic(&three.servers, &events, 1, &[]).await?;
    let config = [("cleanup.policy", "compact"), ("min.insync.replicas", "1")];
    create_topic_on(3, &three.servers, &changelog, 1, &config).await?;
    three.are_whole().await?;
    let warned = Checked::of(&launch, &[])?;
    for (topic, part) in [(&events, "on 1 of 3 brokers, better 3"), (&changelog, "min.insync.replicas is 1, better 2")]
    {
        let found = warned.find("topic", part);
        ensure!(
            found.len() == 1 && found[0]["verdict"] == "warning" && found[0].to_string().contains(topic.as_str()),
            "{topic}: {:#?}",
            warned.all
        );
    }
    // Those that the monitor makes there are as they should be, and the command that makes one by hand says how many.
    let (events, changelog) = (format!("{events}.new"), format!("{changelog}.new"));
    let launch = launch.set("--events-topic", &events).set("--changelog-topic", &changelog);
    let without: Vec<String> = launch.arguments.iter().filter(|flag| *flag != "--create-topics").cloned().collect();
    let missing = Checked::of(&Launch { arguments: without, ..launch.clone() }, &[])?;
    ensure!(missing.find("topic", "--partitions 1 --replication-factor 3 ").len() == 1, "{:#?}", missing.all);
    let mut monitor = launch.start()?;
    monitor.leading(LIMIT).await?;
    monitor.stop(LIMIT).await?;
    let well = Checked::of(&launch, &[])?;
    ensure!(well.find("topic", "").iter().all(|found| found["verdict"] == "ok"), "{:#?}", well.all);
    bench.close().await
}
