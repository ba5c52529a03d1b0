//! The whole monitor beside a real API server and a real broker: status writes at the highest rate that the API server
//! holds, its processor time beside the API server's, Lease writes, and what it takes by itself.

use std::{
    collections::HashMap,
    path::Path,
    sync::{Arc, Mutex, PoisonError},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use futures::{StreamExt as _, TryStreamExt as _, stream};
use k8s_openapi::api::coordination::v1::Lease;
use kube::{
    Api,
    api::{WatchEvent, WatchParams},
};
use rdkafka::{
    ClientConfig, Message as _, Offset, TopicPartitionList,
    consumer::{BaseConsumer, Consumer as _},
};
use serde_json::json;
use testkit::{
    clients::{
        cluster::{Cluster, execution},
        monitor::{Launch, Monitor},
        until,
    },
    stack::{Component, Endpoints, Stack},
};

use crate::{
    bar,
    results::{Results, Row, Target, median, percentile},
};

/// Pods that are made at the same time.
const AT_ONCE: usize = 16;
/// Writers, each one write after the other. Where more of them get no more writes through, they wait for one another.
const WRITERS: [usize; 5] = [2, 4, 8, 16, 32];
/// The API server holds the highest rate with the fewest writers that reach this part of it: rounds differ by as much.
const REACHED: f64 = 0.95;
/// Of the highest rate, each write at its time.
const PARTS: [f64; 6] = [0.1, 0.2, 0.4, 0.6, 0.8, 0.9];
/// Of each number of writers, by turns.
const ROUNDS: usize = 5;
/// Writes that are due and not answered, at most.
const WAITING_MAX: usize = 512;
/// Pods whose status is written once by each load, and how many of these are not measured: all gets warm.
const PODS_EACH: usize = 700;
const WARM_UP: usize = 100;
const PODS: usize = PODS_EACH * (WRITERS.len() * ROUNDS + PARTS.len());
const REPLICAS: usize = 3;
const START_MAX: Duration = Duration::from_secs(60);
const TELL_MAX: Duration = Duration::from_secs(120);
const LEASES_FOR: Duration = Duration::from_secs(30);
const STOP_MAX: Duration = Duration::from_secs(20);

/// One record of the events topic: when it was visible, what it says of whom.
pub(crate) struct Seen {
    pub(crate) at: Instant,
    pub(crate) uid: String,
    pub(crate) event: String,
}

pub(crate) type Arrivals = Arc<Mutex<Vec<Seen>>>;

/// Reads a topic from its present end on a thread of its own, and nothing of a record but two fields: who measures should
/// cost little.
pub(crate) fn arrivals(kafka: &str, topic: &str) -> Result<Arrivals> {
    let consumer: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", kafka)
        .set("group.id", "scale")
        .set("isolation.level", "read_committed")
        .set("enable.auto.commit", "false")
        .set("fetch.wait.max.ms", "20")
        .create()?;
    let metadata = consumer.fetch_metadata(Some(topic), START_MAX)?;
    let mut assignment = TopicPartitionList::new();
    for partition in metadata.topics()[0].partitions() {
        assignment.add_partition_offset(topic, partition.id(), Offset::Beginning)?;
    }
    ensure!(assignment.count() > 0, "topic {topic} does not exist");
    consumer.assign(&assignment)?;
    let seen = Arrivals::default();
    let into = Arc::downgrade(&seen);
    let follow = move || {
        // Who takes the time must not wait behind those who write.
        if let Err(error) = rustix::process::nice(-10) {
            eprintln!("the consumer takes the time late where writers are busy: {error}");
        }
        while let Some(into) = into.upgrade() {
            let Some(Ok(message)) = consumer.poll(Duration::from_millis(100)) else { continue };
            let at = Instant::now();
            let value = String::from_utf8_lossy(message.payload().unwrap_or_default());
            let text = |field: &str| {
                let from = value.find(field)? + field.len();
                value[from..].split('"').next().map(str::to_owned)
            };
            let (uid, event) =
                (text("\"pod_uid\":\"").unwrap_or_default(), text("\"event_type\":\"").unwrap_or_default());
            into.lock().unwrap_or_else(PoisonError::into_inner).push(Seen { at, uid, event });
        }
    };
    thread::Builder::new().name("arrivals".into()).spawn(follow)?;
    Ok(seen)
}

pub(crate) fn count(arrivals: &Arrivals, event: &str) -> usize {
    arrivals.lock().unwrap_or_else(PoisonError::into_inner).iter().filter(|seen| seen.event == event).count()
}

/// A stack on which nobody but us acts on pods.
pub(crate) fn stack() -> Result<Stack> {
    let stack = Stack::from_env()?;
    for component in
        [Component::KubeControllerManager, Component::KubeScheduler, Component::Kubelet, Component::Containerd]
    {
        if stack.service(component)?.process.is_alive() {
            stack.kill(component, testkit::stack::Signal::KILL)?;
        }
    }
    Ok(stack)
}

pub(crate) fn launch(endpoints: &Endpoints, app: &str, number: usize) -> Launch {
    let program = Path::new(env!("CARGO_BIN_EXE_pod-monitor"));
    let mut launch = Launch::new(program, endpoints, app, app).set("--log-level", "info");
    launch = launch.with(&["--identity", &format!("{app}-{number}-{}", std::process::id())]);
    launch.log = endpoints.run_dir.join(format!("scale-{app}-{number}.log"));
    launch
}

/// Makes pods that are bound to a node that does not exist; gives name and UID of each.
pub(crate) async fn create(
    cluster: &Cluster,
    app: &str,
    numbers: std::ops::Range<usize>,
) -> Result<Vec<(String, String)>> {
    let bar = bar(numbers.len() as u64, "pods made");
    let made = stream::iter(numbers).map(|n| {
        let bar = &bar;
        async move {
            let id = format!("{n:06}");
            let mut pod = execution(app, &id, "true");
            pod["spec"]["nodeName"] = json!("no-such-node");
            let uid = cluster.create(pod).await?;
            bar.inc(1);
            Ok::<_, anyhow::Error>((format!("exec-{id}"), uid))
        }
    });
    let made = made.buffer_unordered(AT_ONCE).try_collect().await;
    bar.finish_and_clear();
    made
}

pub(crate) async fn tracks(monitor: &Monitor, pods: usize, limit: Duration) -> Result<()> {
    let look = async || {
        let tracked = monitor.metric("pod_monitor_tracked_pods").unwrap_or_default();
        Ok((tracked >= pods as f64).then_some(()))
    };
    until(limit, "the leader tracks all pods", look).await
}

pub(crate) async fn run(results: &mut Results) -> Result<()> {
    let stack = stack()?;
    let endpoints = stack.endpoints().clone();
    let app = format!("live-{}", std::process::id());
    let cluster = Cluster::connect(&endpoints, &app).await?;
    let mut first = launch(&endpoints, &app, 0).start()?;
    first.leading(START_MAX).await?;
    // What a start leaves behind is given back by then.
    tokio::time::sleep(Duration::from_secs(5)).await;
    let base = memory(first.pid())? / f64::from(1 << 20);
    let mut standbys = Vec::new();
    for number in 1..REPLICAS {
        let mut standby = launch(&endpoints, &app, number).start()?;
        standby.ready(START_MAX).await?;
        standbys.push(standby);
    }
    let leases = lease_writes(&cluster).await?;
    let pods = create(&cluster, &app, 0..PODS).await?;
    let seen = arrivals(&endpoints.kafka, &format!("{app}.events"))?;
    let told = async || Ok((count(&seen, "pod_scheduled") >= PODS).then_some(()));
    until(TELL_MAX, "all pods are told as scheduled", told).await?;
    let server = u32::try_from(stack.service(Component::KubeApiserver)?.process.pid)?;
    let sweep = Sweep::measure(&cluster, &pods, (first.pid(), server), &seen).await?;
    for monitor in standbys.into_iter().chain([first]) {
        monitor.stop(STOP_MAX).await?;
    }
    cluster.remove_namespace().await?;
    sweep.lines(results)?;
    results.set(
        "live",
        [
            sweep.rows()?,
            vec![
                Row::new(
                    "Lease writes a second, all three replicas and one shard",
                    Target::AtMost(1.0),
                    leases,
                    "/s",
                    format!("at defaults, {} s", LEASES_FOR.as_secs()),
                ),
                Row::new(
                    "base RSS: a leader without pods",
                    Target::AtMost(30.0),
                    base,
                    "MiB",
                    "5 s after it became ready",
                ),
            ],
        ]
        .concat(),
    )
}

/// How writes come.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Load {
    /// So many writers, each one write after the other: the highest rate that the API server holds.
    Writers(usize),
    /// So many a second, each at its time, whether or not those before it are answered.
    Rate(f64),
}

/// What one load made.
struct Pace {
    /// Writes a second that were answered.
    rate: f64,
    /// Milliseconds from when a write was due to its answer, to its event, and from its answer to its event.
    answered: Vec<f64>,
    due_to_event: Vec<f64>,
    answered_to_event: Vec<f64>,
}

impl Pace {
    async fn measure(cluster: &Cluster, pods: &[(String, String)], load: Load, seen: &Arrivals) -> Result<Self> {
        let before = count(seen, "execution_running");
        let (written, took) = write(cluster, pods, load).await?;
        let all = async || Ok((count(seen, "execution_running") >= before + pods.len()).then_some(()));
        until(TELL_MAX, "all writes are told", all).await?;
        let answered = written.values().map(|write| milliseconds(write.answered, write.due)).collect();
        let told = told(seen, &written);
        ensure!(told.len() == pods.len() - WARM_UP, "{} of {} writes were told once", told.len(), pods.len() - WARM_UP);
        Ok(Self {
            rate: pods.len() as f64 / took.as_secs_f64(),
            answered,
            due_to_event: told.iter().map(|(at, write)| milliseconds(*at, write.due)).collect(),
            answered_to_event: told.iter().map(|(at, write)| milliseconds(*at, write.answered)).collect(),
        })
    }

    fn row(&self) -> Row {
        let [p50, p99] = [0.5, 0.99].map(|share| percentile(&self.due_to_event, share));
        let note = format!(
            "p50 {p50:.1} ms; p99 of the API server's own answer {:.1} ms; each write at its time, from when it was due",
            percentile(&self.answered, 0.99)
        );
        Row::new(
            &format!("{:>3.0} writes/s: status write -> visible event, p99", self.rate),
            Target::None,
            p99,
            "ms",
            note,
        )
    }
}

/// So many writers, [`ROUNDS`] times.
struct Writers {
    number: usize,
    rounds: Vec<Pace>,
    /// Processor time of the leader by that of kube-apiserver, of each round.
    shares: Vec<f64>,
}

impl Writers {
    fn median(&self, of: impl Fn(&Pace) -> f64) -> f64 {
        median(&self.rounds.iter().map(of).collect::<Vec<_>>())
    }

    fn rate(&self) -> f64 {
        self.median(|pace| pace.rate)
    }

    fn row(&self, target: Target) -> Row {
        let p99 = |pace: &Pace| percentile(&pace.due_to_event, 0.99);
        let each: Vec<f64> = self.rounds.iter().map(p99).collect();
        let [least, most] = [0.0, 1.0].map(|share| percentile(&each, share));
        let [p50, own, after] = [
            self.median(|pace| percentile(&pace.due_to_event, 0.5)),
            self.median(|pace| percentile(&pace.answered, 0.99)),
            self.median(|pace| percentile(&pace.answered_to_event, 0.99)),
        ];
        let note = format!(
            "median of {ROUNDS} rounds of {} ({least:.0} to {most:.0} ms); p50 {p50:.1} ms; p99 of the API server's own \
             answer {own:.1} ms, from there to the event {after:.1} ms",
            PODS_EACH - WARM_UP
        );
        let what = match target {
            Target::None => "",
            _ => "the highest rate that the API server holds, ",
        };
        let (rate, number) = (self.rate(), self.number);
        let what =
            format!("{what}{rate:.0} writes/s by {number} writers without pause: status write -> visible event, p99");
        Row::new(&what, target, median(&each), "ms", note)
    }
}

/// All numbers of writers, and lower rates.
struct Sweep {
    writers: Vec<Writers>,
    parts: Vec<Pace>,
    /// Processor time of the leader by that of kube-apiserver, over all of it.
    share: f64,
}

impl Sweep {
    async fn measure(
        cluster: &Cluster,
        pods: &[(String, String)],
        (ours, theirs): (u32, u32),
        seen: &Arrivals,
    ) -> Result<Self> {
        let mut pods = pods.chunks(PODS_EACH);
        let mut next = || pods.next().context("pods for each load");
        let now = || Ok::<_, anyhow::Error>((cpu_seconds(ours)?, cpu_seconds(theirs)?));
        let share = |(ours, theirs): (f64, f64)| now().map(|now| 100.0 * (now.0 - ours) / (now.1 - theirs));
        let first = now()?;
        let none = |number| Writers { number, rounds: Vec::new(), shares: Vec::new() };
        let mut writers = WRITERS.map(none);
        for _ in 0..ROUNDS {
            for of in &mut writers {
                let begun = now()?;
                of.rounds.push(Pace::measure(cluster, next()?, Load::Writers(of.number), seen).await?);
                of.shares.push(share(begun)?);
            }
        }
        let highest = highest(&writers);
        let mut parts = Vec::new();
        for part in PARTS {
            parts.push(Pace::measure(cluster, next()?, Load::Rate((part * highest).round()), seen).await?);
        }
        Ok(Self { writers: writers.into(), parts, share: share(first)? })
    }

    fn rows(&self) -> Result<Vec<Row>> {
        let enough = REACHED * highest(&self.writers);
        let holds = self.writers.iter().find(|writers| writers.rate() >= enough).context("a highest rate")?;
        let target = |of: &Writers| if of.number == holds.number { Target::AtMost(100.0) } else { Target::None };
        let mut rows: Vec<Row> = self.writers.iter().map(|writers| writers.row(target(writers))).collect();
        rows.extend(self.parts.iter().map(Pace::row));
        let note = format!(
            "over all rates {:.1} %: small transactions cost as much as large ones; median of {ROUNDS}",
            self.share
        );
        let what = format!("processor time of the leader by kube-apiserver's, {} writers", holds.number);
        rows.push(Row::new(&what, Target::AtMost(15.0), median(&holds.shares), "%", note));
        Ok(rows)
    }

    fn lines(&self, results: &mut Results) -> Result<()> {
        let line = |of: &dyn Fn(&Pace) -> f64| self.parts.iter().map(|pace| (pace.rate.round(), of(pace))).collect();
        results.line("latency: p50", line(&|pace| percentile(&pace.due_to_event, 0.5)))?;
        results.line("latency: p99", line(&|pace| percentile(&pace.due_to_event, 0.99)))?;
        results.line("latency: of it the API server's answer, p99", line(&|pace| percentile(&pace.answered, 0.99)))
    }
}

/// Milliseconds from when a status write was due to when its event was visible.
pub(crate) fn latencies(seen: &Arrivals, written: &HashMap<String, Write>) -> Vec<f64> {
    told(seen, written).into_iter().map(|(at, write)| milliseconds(at, write.due)).collect()
}

/// When each write's event was visible.
/// Status writes per second of those who write the most.
fn highest(writers: &[Writers]) -> f64 {
    writers.iter().map(Writers::rate).fold(0.0, f64::max)
}

fn told<'a>(seen: &Arrivals, written: &'a HashMap<String, Write>) -> Vec<(Instant, &'a Write)> {
    let seen = seen.lock().unwrap_or_else(PoisonError::into_inner);
    let running = seen.iter().filter(|seen| seen.event == "execution_running");
    running.filter_map(|seen| Some((seen.at, written.get(&seen.uid)?))).collect()
}

fn milliseconds(later: Instant, earlier: Instant) -> f64 {
    later.saturating_duration_since(earlier).as_secs_f64() * 1000.0
}

/// When a status write was due, and when the API server had taken it.
pub(crate) struct Write {
    due: Instant,
    answered: Instant,
}

/// Writes every pod's status once; by UID.
pub(crate) async fn write(
    cluster: &Cluster,
    pods: &[(String, String)],
    load: Load,
) -> Result<(HashMap<String, Write>, Duration)> {
    let begun = Instant::now();
    let bar = bar(pods.len() as u64, "writes");
    let at_once = match load {
        Load::Writers(writers) => writers,
        Load::Rate(_) => WAITING_MAX,
    };
    let writes = stream::iter(pods.iter().enumerate()).map(|(number, (name, uid))| {
        let bar = &bar;
        async move {
            let started = json!([{ "name": "main", "ready": true, "restartCount": 0, "image": "i", "imageID": "i",
                "state": { "running": { "startedAt": "2026-01-01T00:00:00Z" } } }]);
            let due = match load {
                Load::Writers(_) => Instant::now(),
                Load::Rate(rate) => begun + Duration::from_secs_f64(number as f64 / rate),
            };
            tokio::time::sleep_until(due.into()).await;
            cluster.patch_status(name, json!({ "phase": "Running", "containerStatuses": started })).await?;
            bar.inc(1);
            let write = Write { due, answered: Instant::now() };
            Ok::<_, anyhow::Error>((number >= WARM_UP).then(|| (uid.clone(), write)))
        }
    });
    let written: Vec<_> = writes.buffer_unordered(at_once).try_collect().await?;
    bar.finish_and_clear();
    Ok((written.into_iter().flatten().collect(), begun.elapsed()))
}

/// Changes of all Leases of the namespace, a second.
async fn lease_writes(cluster: &Cluster) -> Result<f64> {
    let leases: Api<Lease> = Api::namespaced(cluster.client(), cluster.namespace());
    let version = leases.list(&Default::default()).await?.metadata.resource_version.context("a version")?;
    let mut changes = Box::pin(leases.watch(&WatchParams::default(), &version).await?);
    let (mut writes, until) = (0, tokio::time::Instant::now() + LEASES_FOR);
    while let Ok(Some(change)) = tokio::time::timeout_at(until, changes.next()).await {
        writes += usize::from(matches!(change?, WatchEvent::Added(_) | WatchEvent::Modified(_)));
    }
    Ok(writes as f64 / LEASES_FOR.as_secs_f64())
}

/// Resident bytes of a process.
pub(crate) fn memory(pid: u32) -> Result<f64> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("its size")?;
    let kib: f64 = line.split_whitespace().next().context("a number")?.parse()?;
    Ok(kib * 1024.0)
}

/// Processor time of a process, in seconds; the clock ticks 100 times in one.
pub(crate) fn cpu_seconds(pid: u32) -> Result<f64> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
    let fields = text.rsplit(')').next().context("the fields behind the name")?;
    let ticks = |at: usize| fields.split_whitespace().nth(at).and_then(|ticks| ticks.parse::<f64>().ok());
    Ok((ticks(11).context("utime")? + ticks(12).context("stime")?) / 100.0)
}
