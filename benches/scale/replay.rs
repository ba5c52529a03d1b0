//! The monitor's own watch, worker and captures on the replay rig, with a journal that encodes what it is given and
//! answers at once: what the monitor costs apart from the API server and Kafka.

use std::{
    collections::HashMap,
    ops::Range,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, anyhow};
use futures::StreamExt as _;
use pod_monitor::{
    clock::Wall,
    evidence::Evidence,
    http::{Board, Health, status::Shown},
    leadership::{
        peers::Peers,
        tenure::{ShardId, Tenure},
    },
    lifecycle::{event::EventType, rules::Rules},
    logs::{
        Limits, Report,
        capture::Capturer,
        streams::{Chunks, Error as LogError, Holder, LogRequest, LogSource, Stream},
    },
    ports::{Journal, Journals, Readiness},
    publish::{
        Batch, Position,
        changelog::write_tracked,
        error::{CommitError, OpenError},
        identity::{FORMAT, Identity},
        record::{Service, write_value},
        restore::Restored,
    },
    sharding::ranges::Share,
    telemetry::Metrics,
    watch::{
        api::{Pods, Scope},
        pod::{PodUid, ResourceVersion},
    },
    worker::{Parts, Worker, table::READY_MAX},
};
use tokio_util::sync::CancellationToken;

use crate::{
    memory::read,
    pods::{LIST_VERSION, Record},
    rig::{Rig, Script},
    told,
};

const HEARTBEAT_MAX: Duration = Duration::from_secs(30);
const LOOK_EVERY: Duration = Duration::from_millis(1);
/// The node answers a log at once.
const OUTPUT: &str = "hello\n";

/// What was told through the journal, and when.
#[derive(Default)]
pub(crate) struct Told {
    pub(crate) events: AtomicUsize,
    pub(crate) records: AtomicUsize,
    bytes: AtomicU64,
    /// By pod and type of event, where they are kept.
    pub(crate) at: Option<Mutex<Vec<(PodUid, EventType, Instant)>>>,
}

/// Journals that remember nothing but what the changelog held.
struct Books {
    told: Arc<Told>,
    service: Service,
    restored: Mutex<Option<Restored>>,
}

struct Book {
    told: Arc<Told>,
    service: Service,
    out: Vec<u8>,
}

impl Journals for Books {
    type Journal = Book;

    fn stand_by(&self, _: ShardId) -> Result<(), OpenError> {
        Ok(())
    }

    fn readiness(&self, _: ShardId) -> Result<Readiness, OpenError> {
        Ok(Readiness::Warm)
    }

    fn is_answered(&self, _: ShardId) -> bool {
        true
    }

    fn lag_records(&self, _: ShardId) -> Option<u64> {
        None
    }

    async fn open(&self, _: &Tenure) -> Result<(Book, Restored), OpenError> {
        let restored = self.restored.lock().unwrap_or_else(PoisonError::into_inner).take();
        let book = Book { told: Arc::clone(&self.told), service: self.service.clone(), out: Vec::new() };
        Ok((book, restored.unwrap_or_default()))
    }
}

impl Journal for Book {
    /// Encodes as the publishing thread does; here that is on the one core that is measured.
    async fn commit(&mut self, batch: Batch) -> Result<(), CommitError> {
        let refused = |reason: String| CommitError::Refused { pod_uid: None, key: String::new(), reason };
        let mut bytes = 0;
        for event in &batch.events {
            self.out.clear();
            write_value(&mut self.out, event, &self.service).map_err(|error| refused(error.to_string()))?;
            bytes += self.out.len();
        }
        for (uid, tracked) in &batch.records {
            self.out.clear();
            if let Some(tracked) = tracked {
                write_tracked(&mut self.out, uid, tracked).map_err(|error| refused(error.to_string()))?;
            }
            bytes += self.out.len();
        }
        // A broker's answer takes a turn of the loop at least.
        tokio::task::yield_now().await;
        if let Some(at) = &self.told.at {
            let now = Instant::now();
            let mut at = at.lock().unwrap_or_else(PoisonError::into_inner);
            at.extend(batch.events.iter().map(|event| (event.pod_uid.clone(), event.body.event_type(), now)));
        }
        self.told.bytes.fetch_add(bytes as u64, Ordering::Relaxed);
        self.told.records.fetch_add(batch.records.len(), Ordering::Relaxed);
        self.told.events.fetch_add(batch.events.len(), Ordering::Relaxed);
        Ok(())
    }
}

#[derive(Clone)]
struct Logs;

impl LogSource for Logs {
    async fn read(&self, request: &LogRequest<'_>) -> Result<Chunks, LogError> {
        let text = if request.stream == Stream::Stderr { "" } else { OUTPUT };
        Ok(futures::stream::iter([Ok(text.into())]).boxed())
    }

    async fn holder(&self, _: &str, name: &str, _: &str) -> Result<Option<Holder>, LogError> {
        let number = name.rsplit('-').next().and_then(|number| number.parse().ok());
        let uid = number.map(crate::pods::uid).unwrap_or_default();
        Ok(Some(Holder { uid: PodUid(uid.into()), restart_count: Some(0) }))
    }
}

/// What the worker's core did until everything was told.
pub(crate) struct Run {
    /// From when the worker was started.
    pub(crate) wall: Duration,
    /// Of the one thread on which everything of the monitor ran.
    pub(crate) cpu: Duration,
    pub(crate) told: Arc<Told>,
    /// When the rig's watch began.
    pub(crate) begun: Option<Instant>,
}

/// What a worker is run on.
pub(crate) struct Case<'a> {
    pub(crate) script: Script,
    /// So many pods of this record are in its changelog.
    pub(crate) restored: Option<(&'a Record, usize)>,
    pub(crate) rules: Rules,
    /// When each event was told is kept.
    pub(crate) keeps_times: bool,
}

impl Case<'_> {
    pub(crate) fn new(script: Script) -> Self {
        Self { script, restored: None, rules: told::rules(), keeps_times: false }
    }
}

/// Runs a worker on one core until `enough`.
pub(crate) fn run(case: Case<'_>, limit: Duration, enough: impl Fn(&Told, &Metrics) -> bool + Send) -> Result<Run> {
    let restored = case.restored.map(|(record, pods)| before(record, pods)).transpose()?;
    let at = case.keeps_times.then(Mutex::default);
    let told = Arc::new(Told { at, ..Told::default() });
    let rig = Rig::start(case.script)?;
    let (telling, address, rules) = (Arc::clone(&told), rig.address, case.rules);
    let measured = thread::scope(|scope| {
        let worker = move || one_core(address, (restored, rules), telling, limit, enough);
        let worker = thread::Builder::new().name("monitor".into()).spawn_scoped(scope, worker)?;
        worker.join().map_err(|_| anyhow!("the monitor's thread died"))?
    });
    let (wall, cpu) = measured?;
    Ok(Run { wall, cpu, told, begun: rig.begun.get().copied() })
}

/// What the changelog of an earlier holder held.
fn before(record: &Record, pods: usize) -> Result<Restored> {
    let streams = [(String::new(), ResourceVersion(LIST_VERSION - 1))].into();
    let position = Position { term: 1, holder: "earlier".into(), streams };
    Ok(Restored { position: Some(position), identity: Some(identity()), ..read(record, pods)? })
}

fn identity() -> Identity {
    Identity {
        cluster_id: told::rules().cluster_id,
        lease_namespace: "bench".into(),
        lease_name: "bench".into(),
        generation: 1,
        shards: 1,
        shard_by: "uid".into(),
        selector: "app=fixture".into(),
        namespaces: Vec::new(),
        format: FORMAT,
    }
}

fn one_core(
    address: std::net::SocketAddr,
    known: (Option<Restored>, Rules),
    told: Arc<Told>,
    limit: Duration,
    enough: impl Fn(&Told, &Metrics) -> bool,
) -> Result<(Duration, Duration)> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let metrics = Metrics::new();
        let (parts, health) = parts(address, known, &told, &metrics)?;
        let ended = CancellationToken::new();
        let tenure = Tenure::unconditional(ShardId(0), "bench", ended.clone());
        let worker = Worker::new(parts, tenure, health.heartbeat("worker", HEARTBEAT_MAX));
        let (begun, cpu) = (Instant::now(), thread_cpu()?);
        let mut worker = tokio::spawn(worker.run());
        while !enough(&told, &metrics) {
            tokio::select! {
                ended = &mut worker => return Err(anyhow!("the worker ended: {ended:?}")),
                () = tokio::time::sleep(LOOK_EVERY) => {}
            }
            anyhow::ensure!(
                begun.elapsed() < limit,
                "told {} events in {limit:?}",
                told.events.load(Ordering::Relaxed)
            );
        }
        let (wall, cpu) = (begun.elapsed(), thread_cpu()?.saturating_sub(cpu));
        ended.cancel();
        worker.await?.context("the worker")?;
        Ok((wall, cpu))
    })
}

fn parts(
    address: std::net::SocketAddr,
    (restored, rules): (Option<Restored>, Rules),
    told: &Arc<Told>,
    metrics: &Metrics,
) -> Result<(Parts<Books, Logs>, Health)> {
    let mut config = kube::Config::new(format!("http://{address}").parse()?);
    config.default_retry = false;
    let client = kube::Client::try_from(config)?;
    let health = Health::default();
    // As the defaults of `run`.
    let limits = Limits {
        log_bytes_max: 64 << 10,
        encoded_bytes_max: 256 << 10,
        capture_deadline: Duration::from_secs(30),
        captures_max: 64,
        captures_per_node_max: 64,
    };
    let journals = Books { told: Arc::clone(told), service: told::service(), restored: Mutex::new(restored) };
    let parts = Parts {
        journals: Arc::new(journals),
        identity: Some(identity()),
        pods: Pods::new(client),
        scopes: vec![Scope { namespace: None, selector: "app=fixture".into(), share: Share::whole() }],
        capturer: Capturer::new(Logs, limits),
        evidence: Evidence::none(),
        report: Report::Raw,
        capture_deadline: limits.capture_deadline,
        rules: Arc::new(rules),
        reconcile_interval: Duration::from_secs(3600),
        ready_max: READY_MAX,
        wall: Wall::by(told::now),
        cleanup: pod_monitor::cleanup::Settings::default(),
        metrics: metrics.clone(),
        board: Board::new(Shown::default()),
        cluster: health.component("kubernetes"),
        kafka: health.component("kafka"),
        peers: Peers::default(),
        renew_deadline: None,
    };
    Ok((parts, health))
}

/// Time that this thread spent on a core, kernel and all.
fn thread_cpu() -> Result<Duration> {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat")?;
    let on_core = text.split(' ').next().context("the time on a core")?;
    Ok(Duration::from_nanos(on_core.parse()?))
}

/// Milliseconds from when a line was due to when its event was told, of the pods of these numbers.
pub(crate) fn lags(
    run: &Run,
    pods: Range<usize>,
    due: impl Fn(usize, EventType) -> Option<Duration>,
) -> Result<Vec<f64>> {
    let begun = run.begun.context("the watch was opened")?;
    let numbers: HashMap<String, usize> = pods.enumerate().map(|(nth, n)| (crate::pods::uid(n), nth)).collect();
    let at = run.told.at.as_ref().context("times were kept")?.lock().unwrap_or_else(PoisonError::into_inner);
    let lag = |(uid, event_type, told): &(PodUid, EventType, Instant)| {
        let due = begun + due(*numbers.get(&*uid.0)?, *event_type)?;
        Some(told.saturating_duration_since(due).as_secs_f64() * 1000.0)
    };
    Ok(at.iter().filter_map(lag).collect())
}
