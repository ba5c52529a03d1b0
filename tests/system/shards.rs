//! Four replicas and eight shards, a churn of real pods: replicas join, leave, are killed by halves, frozen and updated one
//! after the other; then the number of shards is changed, by a command that dies on the way and is begun anew. Nothing is
//! lost, doubled or out of order; the shards are shared evenly, and stay so.

use std::{
    cell::Cell,
    collections::BTreeMap,
    path::Path,
    process::{Command, ExitStatus, Stdio},
    time::{Duration, Instant},
};

use k8s_openapi::api::coordination::v1::Lease;
use kube::Api;
use serde_json::Value;
use testkit::{
    clients::{
        cluster::Cluster,
        fault::lasts,
        lives::{complete, faults, live},
        monitor::{Launch, Monitor},
        until,
    },
    stack::{Endpoints, Signal},
};

const REPLICAS: usize = 4;
const SHARDS: usize = 8;
/// After that.
const FEWER: usize = 3;
/// Where the command that changes it dies: with nothing done yet, with records copied, with the switch on its way.
const DEATHS: [&str; 3] = ["reshard-fenced", "reshard-chunk", "reshard-switch-sent"];
const AT_ONCE: usize = 5;
const LEASE_DURATION: Duration = Duration::from_secs(3);
const LEASE: [&str; 6] = ["--lease-duration", "3s", "--renew-deadline", "2s", "--retry-period", "500ms"];
const LIMIT: Duration = Duration::from_secs(60);
/// Nothing may change hands for so long, once all is even.
const CALM: Duration = Duration::from_secs(6);

struct Crew {
    leases: Api<Lease>,
    name: String,
    launches: Vec<Launch>,
    running: Vec<Option<Monitor>>,
    shards: usize,
}

/// Of each shard: its holder, and how often it changed hands.
type Holders = Vec<(String, i32)>;

impl Crew {
    fn new(endpoints: &Endpoints, cluster: &Cluster, app: &str) -> Self {
        let program = Path::new(env!("CARGO_BIN_EXE_pod-monitor"));
        let launch = |index: usize| {
            let launch = Launch::new(program, endpoints, app, app).with(&LEASE).set("--shards", &SHARDS.to_string());
            let mut launch = launch.variable("POD_NAME", &format!("r{index}")).relocated().unwrap();
            launch.log = launch.log.with_file_name(format!("monitor-{app}-{index}.log"));
            launch
        };
        let leases = Api::namespaced(cluster.client(), cluster.namespace());
        let (launches, running) = (0..REPLICAS).map(|index| (launch(index), None)).unzip();
        Self { leases, name: app.to_owned(), launches, running, shards: SHARDS }
    }

    fn start(&mut self, index: usize) {
        self.running[index] = Some(self.launches[index].start().unwrap());
    }

    async fn ready(&mut self) {
        for monitor in self.running.iter_mut().flatten() {
            monitor.ready(LIMIT).await.unwrap();
        }
    }

    async fn holders(&self) -> anyhow::Result<Holders> {
        let mut holders = Vec::new();
        for shard in 0..self.shards {
            let lease = self.leases.get_opt(&format!("{}-{shard}", self.name)).await?.and_then(|lease| lease.spec);
            let holder = lease.as_ref().and_then(|spec| spec.holder_identity.clone()).unwrap_or_default();
            holders.push((holder, lease.and_then(|spec| spec.lease_transitions).unwrap_or_default()));
        }
        Ok(holders)
    }

    /// Shards that say of themselves that they are live, by replica.
    fn live(&self) -> Vec<f64> {
        let live = |monitor: &Monitor| monitor.metric(r#"pod_monitor_role{role="live"}"#).unwrap_or_default();
        self.running.iter().map(|monitor| monitor.as_ref().map_or(0.0, live)).collect()
    }

    /// Waits until every shard is live at one of those that run, none of which leads more than its share.
    async fn even(&self) -> Duration {
        let begun = Instant::now();
        let share = self.shards.div_ceil(self.running.iter().flatten().count()) as f64;
        let look = async || {
            let live = self.live();
            let even = live.iter().sum::<f64>() == self.shards as f64 && live.iter().all(|live| *live <= share);
            Ok(even.then_some(()))
        };
        let waited = until(LIMIT, "every shard is led, evenly", look).await;
        waited.unwrap_or_else(|error| panic!("{error:#}: {:?}\n{}", self.live(), self.views()));
        begun.elapsed()
    }

    /// What each says of the fleet.
    fn views(&self) -> String {
        let view = |monitor: &Monitor| {
            let (_, metrics) = monitor.get("/metrics").unwrap_or_default();
            let of_fleet = |line: &&str| line.starts_with("pod_monitor_members") || line.contains("holder_seen{");
            let (_, status) = monitor.get("/api/status").unwrap_or_default();
            format!("{}\n{status}", metrics.lines().filter(of_fleet).collect::<Vec<_>>().join(" "))
        };
        self.running.iter().flatten().map(view).collect::<Vec<_>>().join("\n\n")
    }

    /// Waits until every shard is live somewhere.
    async fn all_led(&self) -> Duration {
        let begun = Instant::now();
        let look = async || Ok((self.live().iter().sum::<f64>() == self.shards as f64).then_some(()));
        until(LIMIT, "every shard is led", look).await.unwrap_or_else(|error| panic!("{error:#}: {:?}", self.live()));
        begun.elapsed()
    }

    async fn kill(&mut self, index: usize) {
        self.running[index].take().unwrap().kill().unwrap();
    }

    async fn stop(&mut self, index: usize) {
        let status = self.running[index].take().unwrap().stop(LIMIT).await.unwrap();
        assert_eq!(status.code(), Some(0), "asked to stop");
    }

    /// `pod-monitor reshard` to fewer shards, dying at this step.
    fn reshard(&self, dies_at: Option<&str>) -> (ExitStatus, String) {
        let launch = &self.launches[0];
        let mut command = Command::new(&launch.program);
        command.args(["reshard", "--create-topics", "--shards", &FEWER.to_string()]).stdin(Stdio::null());
        for flag in ["--kafka", "--events-topic", "--changelog-topic", "--lease-name", "--lease-namespace"] {
            command.args([flag, launch.argument(flag).unwrap()]);
        }
        command.args(&LEASE[..]).envs(launch.variables.iter().map(|(name, value)| (name, value)));
        command.envs(dies_at.map(|step| ("POD_MONITOR_DIE_AT", step)));
        let output = command.output().unwrap();
        (
            output.status,
            format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr)),
        )
    }

    /// All stop, the number of shards is changed by a command that dies again and again, and all start with it.
    async fn fewer(&mut self) {
        let (status, said) = self.reshard(None);
        assert!(!status.success() && said.contains("led by"), "while replicas lead: {status}: {said}");
        for index in 0..REPLICAS {
            self.stop(index).await;
        }
        for step in DEATHS {
            let (status, said) = self.reshard(Some(step));
            assert!(status.code().is_none() && said.contains("dying at"), "{step}: {status}: {said}");
        }
        let (status, said) = self.reshard(None);
        assert!(status.success(), "begun anew: {status}: {said}");
        println!("{said}");
        self.shards = FEWER;
        for index in 0..REPLICAS {
            let launch = self.launches[index].clone().set("--shards", &FEWER.to_string());
            self.launches[index] = launch.set("--generation", "2");
            self.start(index);
        }
        self.ready().await;
        println!("{FEWER} shards: even after {:?}", self.even().await);
    }

    /// What was logged of changes of hands, oldest first.
    fn took_over(&self) -> Vec<Value> {
        let mut lines = Vec::new();
        for launch in &self.launches {
            let log = std::fs::read_to_string(&launch.log).unwrap_or_default();
            let parsed = log.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
            lines.extend(parsed.filter(|line| line["message"] == "took over"));
        }
        lines
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn four_replicas_share_eight_shards_whoever_comes_goes_or_dies() {
    let endpoints = Endpoints::from_env().unwrap();
    let app = format!("shards-{}", std::process::id());
    let cluster = Cluster::connect(&endpoints, &app).await.unwrap();
    cluster.ready_for_pods().await.unwrap();
    let mut crew = Crew::new(&endpoints, &cluster, &app);
    crew.start(0);
    crew.ready().await;
    println!("one replica leads all shards after {:?}", crew.even().await);

    let over = Cell::new(false);
    let pods = (0..).take_while(|_| !over.get());
    let story = async {
        let story = whole_story(&mut crew).await;
        over.set(true);
        story
    };
    let ((), truth) = tokio::join!(story, live(&cluster, &app, pods, AT_ONCE));
    let truth = truth.unwrap();
    println!("{} pods lived", truth.len());
    assert!(truth.len() >= 30, "only {} pods: the test would show little", truth.len());
    let history = complete(&endpoints, &format!("{app}.events"), &truth).await.unwrap();
    let wrong = faults(&truth, &history);
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    by_the_fast_ways(&crew);
    println!("{}", crew.launches[0].verify().unwrap());
    for index in 0..REPLICAS {
        crew.stop(index).await;
    }
    cluster.remove_namespace().await.unwrap();
}

async fn whole_story(crew: &mut Crew) {
    for index in 1..REPLICAS {
        crew.start(index);
    }
    crew.ready().await;
    println!("three join: even after {:?}", crew.even().await);
    for round in 0..3 {
        let half = if round % 2 == 0 { [0, 1] } else { [2, 3] };
        for index in half {
            crew.kill(index).await;
        }
        println!("half are killed: all led after {:?}, even after {:?} more", crew.all_led().await, crew.even().await);
        half.into_iter().for_each(|index| crew.start(index));
        crew.ready().await;
        println!("they join again: even after {:?}", crew.even().await);
    }
    for index in 0..REPLICAS {
        crew.stop(index).await;
        let led = crew.all_led().await;
        crew.start(index);
        crew.ready().await;
        println!("replica {index} is updated: all led after {led:?}, even after {:?}", crew.even().await);
    }
    let frozen = crew.running[2].as_ref().unwrap();
    frozen.signal(Signal::STOP).unwrap();
    lasts(3 * LEASE_DURATION).await;
    frozen.signal(Signal::CONT).unwrap();
    crew.ready().await;
    println!("one was frozen: even after {:?}", crew.even().await);
    let before = crew.holders().await.unwrap();
    lasts(CALM).await;
    assert_eq!(crew.holders().await.unwrap(), before, "nothing moves once it is even");
    crew.fewer().await;
}

/// The shards of killed leaders were taken by notice, those of stopped ones and gifts by their release; each in time.
fn by_the_fast_ways(crew: &Crew) {
    let mut gaps: BTreeMap<String, Vec<f64>> = BTreeMap::new();
    for line in crew.took_over() {
        let why = line["why"].as_str().unwrap_or("?").to_owned();
        gaps.entry(why).or_default().push(line["gap_ms"].as_f64().unwrap_or(f64::MAX));
    }
    for (why, gaps) in &mut gaps {
        gaps.sort_by(f64::total_cmp);
        let at = |percent: usize| gaps[(gaps.len() * percent / 100).min(gaps.len() - 1)];
        println!("taken {why}: {} times, gap p50 {} ms, p90 {} ms, most {} ms", gaps.len(), at(50), at(90), at(100));
    }
    let count = |why: &str| gaps.get(why).map_or(0, Vec::len);
    assert!(count("Dead") >= 8, "of 12 shards of killed leaders {} were taken by notice", count("Dead"));
    assert!(count("Released") >= 12, "{} were handed over", count("Released"));
}
