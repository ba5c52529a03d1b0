//! A whole replica as `compose.rs` puts it together, on simulated ports.

use std::{sync::Arc, time::Duration};

use pod_monitor::{
    clock::Wall,
    evidence::Evidence,
    http::{Board, Health, status::Shown},
    leadership::{
        election::Times,
        elector::{Attend, Cue, Elector},
        lease::Leases,
        peers::Peers,
        roll::Roll,
        tenure::ShardId,
    },
    lifecycle::{
        identity::IdSources,
        rules::{Rules, ShardBy},
    },
    logs::{Limits, Report, capture::Capturer},
    publish::identity::{FORMAT, Identity},
    replica::{Replica, Watcher},
    sharding::{
        fleet::Fleet,
        members::Members,
        ranges::{Shards, Share},
        seats::{self, Running, Seat},
    },
    telemetry::Metrics,
    watch::api::{Pods, Scope},
    worker::Parts,
};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::{
    Generation, Setting, World,
    api::ApiServer,
    journal::Kafka,
    logs::Logs,
    process::{Process, freezable},
    wall,
    wire::{To, Wire},
};
use crate::{oracle::Range, plants::Plant};

/// `--cluster-id`
pub const CLUSTER: &str = "cluster-1";

/// Runs until `stop`, or until it gives up and says why.
pub async fn run(world: Arc<World>, process: Arc<Process>, stop: CancellationToken) -> Result<(), String> {
    let frozen = Arc::clone(&process);
    Box::pin(freezable(&frozen, live(world, process, stop))).await
}

async fn live(world: Arc<World>, process: Arc<Process>, stop: CancellationToken) -> Result<(), String> {
    let (setting, generation) = (world.setting, world.generation());
    let wire = Wire { world: Arc::clone(&world), process: Arc::clone(&process), to: To::Cluster };
    let range = |shard: u32| Range { shard, of: generation.shards.get() };
    let client = |shard: u32| kube::Client::new(ApiServer { wire: wire.clone(), range: range(shard) }, "monitor");
    let me = process.identity.as_str();
    let (metrics, board, health) = (Metrics::new(), Board::new(Shown::default()), Health::default());
    let (began, skew) = (world.began, process.skew_ms);
    let shards = Shards { count: generation.shards, by: ShardBy::Uid };
    let (identity, peers) = (identity(generation), Peers::default());
    let journals = Arc::new(Kafka::new(Arc::clone(&world), Arc::clone(&process), identity.clone()));
    let (limits, times) = (limits(), times(setting));
    let parts = |shard: ShardId| Parts {
        journals: Arc::clone(&journals),
        identity: Some(identity.clone()),
        pods: Pods::new(client(shard.0)).by(me),
        scopes: vec![Scope {
            namespace: None,
            selector: "app=exec".into(),
            share: Share { shards, shard: share(&world, shards, shard), ids: IdSources::default() },
        }],
        capturer: Capturer::new(Logs(wire.clone()), limits),
        evidence: Evidence::none(),
        report: Report::Raw,
        capture_deadline: limits.capture_deadline,
        rules: Arc::new(rules()),
        reconcile_interval: setting.reconcile_interval,
        ready_max: setting.page_pods,
        wall: Wall::by(move || wall(began, skew)),
        cleanup: pod_monitor::cleanup::Settings::default(),
        metrics: metrics.clone(),
        board: board.clone(),
        cluster: health.component(format!("kubernetes/{shard}")),
        kafka: health.component(format!("kafka/{shard}")),
        // Nobody reports to anybody here: whoever is cut off keeps trying, until its Lease is lost.
        peers: peers.clone(),
        renew_deadline: Some(setting.renew_deadline),
    };
    let (fleet, cues) = Fleet::new(me, shards, metrics.clone());
    let attend = attend(Arc::clone(&process));
    let seat = |(shard, cues): (ShardId, mpsc::Receiver<Cue>)| {
        let cues = if world.planted(Plant::NobodyGives) { mpsc::channel(1).1 } else { cues };
        let replica = Replica { shard, parts: parts(shard), health: health.clone() };
        let leases = Leases::new(client(shard.0), "monitor", &format!("pod-monitor-{shard}"), me, Some(me), times);
        let lease = health.component(format!("lease/{shard}"));
        let watcher = Watcher::new(shard, times, lease, metrics.clone(), board.clone(), peers.clone(), fleet.clone());
        let leases = Arc::new(leases);
        let (elector, tenures) = Elector::new(shard, leases, me, times, Arc::new(watcher), Arc::clone(&attend), cues);
        Seat { replica, elector, tenures }
    };
    let able = {
        let peers = peers.clone();
        Arc::new(move || peers.reach())
    };
    let members = (shards.count.get() > 1).then(|| Members {
        roll: Roll::new(client(0), "monitor", "pod-monitor", me, Some(me), times),
        me: me.into(),
        times,
        fleet: fleet.clone(),
        attend: Arc::clone(&attend),
        able,
        health: health.component("members"),
    });
    let seats: Vec<_> = shards.all().zip(cues).map(seat).collect();
    let spawned = |part: Running| -> Running {
        let frozen = Arc::clone(&process);
        Box::pin(async move { freezable(&frozen, part).await })
    };
    seats::run(seats, members, stop, spawned).await.map_err(|error| chain(&error))
}

fn limits() -> Limits {
    Limits {
        log_bytes_max: 1 << 14,
        encoded_bytes_max: 1 << 15,
        capture_deadline: Duration::from_secs(5),
        captures_max: 8,
        captures_per_node_max: 4,
    }
}

fn times(setting: Setting) -> Times {
    Times {
        lease_duration: Duration::from_secs(setting.lease_seconds),
        renew_deadline: setting.renew_deadline,
        retry_period: setting.retry_period,
    }
}

/// Which pods a shard tells of.
fn share(world: &World, shards: Shards, shard: ShardId) -> ShardId {
    let last = shards.count.get() - 1;
    // Planted: off by one range.
    if world.planted(Plant::WrongShare) && shard.0 == 3 { ShardId(4.min(last)) } else { shard }
}

/// Notices of death come from the world, which knows who died, and lies at times.
fn attend(process: Arc<Process>) -> Attend {
    Arc::new(move |_, identity| {
        let process = Arc::clone(&process);
        Box::pin(async move { process.heard_of_death(&identity).await })
    })
}

fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        text = format!("{text}: {error}");
        source = error.source();
    }
    text
}

/// Whose changelog it is.
pub fn identity(Generation { number, shards }: Generation) -> Identity {
    Identity {
        cluster_id: CLUSTER.into(),
        lease_namespace: "monitor".into(),
        lease_name: "pod-monitor".into(),
        generation: number,
        shards: shards.get(),
        shard_by: "uid".into(),
        selector: "app=exec".into(),
        namespaces: Vec::new(),
        format: FORMAT,
    }
}

fn rules() -> Rules {
    let settle_grace = jiff::SignedDuration::from_secs(4);
    Rules { cluster_id: CLUSTER.into(), ids: IdSources::default(), settle_grace, ..Rules::default() }
}
