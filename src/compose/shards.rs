//! What each shard gets: a worker with everything it works with, and an election.

use std::sync::Arc;

use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::Cluster;
use crate::{
    config::{Config, Namespaces, Sink},
    evidence::Evidence,
    http::{Board, Health, health::Name},
    leadership::{
        election::Times,
        elector::{self, Attend, Cue, Elector, Granted},
        lease::Leases,
        notice,
        peers::Peers,
        roll::Roll,
        tenure::{ShardId, Tenure},
    },
    lifecycle::rules::Rules,
    logs::{Limits, capture::Capturer, streams::KubeLogs},
    ports::Journals,
    publish::identity::Identity,
    replica::{Replica, Watcher},
    sharding::{
        fleet::Fleet,
        members::Members,
        ranges::{Shards, Share},
        seats::{self, Seat},
    },
    telemetry::Metrics,
    watch::api::Scope,
    worker::{Parts, table::READY_MAX},
};

/// What all shards of a process share.
pub(super) struct Shared<J> {
    pub(super) journals: Arc<J>,
    pub(super) cluster: Cluster,
    pub(super) logs: KubeLogs,
    pub(super) limits: Limits,
    pub(super) identity: Option<Identity>,
    pub(super) peers: Peers,
    pub(super) health: Health,
    pub(super) board: Board,
    pub(super) metrics: Metrics,
}

/// How Leases are held and watched by this process.
struct Elections<'a> {
    config: &'a Config,
    client: kube::Client,
    times: Times,
    fleet: Fleet,
    attend: Attend,
}

impl<J: Journals + 'static> Shared<J> {
    /// Runs all shards until `stop`.
    pub(super) async fn run(self, config: &Config, stop: CancellationToken) -> Result<(), seats::Error> {
        let shards = Shards { count: config.shards, by: config.shard_by };
        self.metrics.set_shards(shards.all().count());
        let (fleet, cues) = Fleet::new(&config.identity, shards, self.metrics.clone());
        fleet.shown_on(self.board.clone());
        let election = config.lease_times.map(|times| self.elections(config, times, fleet.clone()));
        let Some(elections) = election else { return Box::pin(self.alone(config, shards, stop)).await };
        let seats = shards.all().zip(cues).map(|(shard, cues)| self.seat(&elections, shards, shard, cues)).collect();
        let members = (shards.count.get() > 1).then(|| self.members(&elections));
        Box::pin(seats::run(seats, members, stop, |part| part)).await
    }

    /// Acts for every shard without asking anybody.
    async fn alone(self, config: &Config, shards: Shards, stop: CancellationToken) -> Result<(), seats::Error> {
        if matches!(config.sink, Sink::Kafka(_)) {
            tracing::warn!(
                "acting without holding the Lease (no-election): two of these fence one another again and again"
            );
        }
        let mut parts = tokio::task::JoinSet::new();
        for shard in shards.all() {
            let tenure = Tenure::unconditional(shard, &config.identity, stop.clone());
            // No Lease says so.
            self.metrics.of_shard(shard).set_holder_seen(true);
            parts.spawn(self.replica(config, shards, shard).run(elector::alone(tenure)));
        }
        while let Some(ended) = parts.join_next().await {
            ended.map_err(seats::Error::Part)??;
        }
        Ok(())
    }

    fn elections<'a>(&self, config: &'a Config, times: Times, fleet: Fleet) -> Elections<'a> {
        if config.advertise.is_none() {
            tracing::warn!(
                "no address for the other replicas: they notice our death only when the Lease runs out. Set --advertise or POD_IP"
            );
        }
        let us = notice::Attendant { me: config.identity.as_str().into(), peers: self.peers.clone() };
        let attend = notice::shared(notice::by_connection(us));
        Elections { config, client: self.cluster.leases.clone(), times, fleet, attend }
    }

    fn seat(
        &self,
        elections: &Elections<'_>,
        shards: Shards,
        shard: ShardId,
        cues: mpsc::Receiver<Cue>,
    ) -> Seat<J, KubeLogs> {
        let (elector, tenures) = self.elector(elections, shards, shard, cues);
        Seat { replica: self.replica(elections.config, shards, shard), elector, tenures }
    }

    fn elector(
        &self,
        elections: &Elections<'_>,
        shards: Shards,
        shard: ShardId,
        cues: mpsc::Receiver<Cue>,
    ) -> (Elector<Watcher>, mpsc::Receiver<Granted>) {
        let Elections { config, client, times, fleet, attend } = elections;
        let name = format!("{}-{shard}", config.lease_name);
        let (me, address) = (config.identity.as_str(), config.advertise.as_deref());
        let leases = Leases::new(client.clone(), &config.lease_namespace, &name, me, address, *times);
        let health = self.health.component(component("lease", shards, shard));
        let (metrics, board, peers) = (self.metrics.of_shard(shard), self.board.clone(), self.peers.clone());
        let watcher = Arc::new(Watcher::new(shard, *times, health, metrics, board, peers, fleet.clone()));
        Elector::new(shard, Arc::new(leases), me, *times, watcher, Arc::clone(attend), cues)
    }

    fn members(&self, elections: &Elections<'_>) -> Members {
        let Elections { config, client, times, fleet, attend } = elections;
        let (me, address) = (config.identity.as_str(), config.advertise.as_deref());
        let peers = self.peers.clone();
        Members {
            roll: Roll::new(client.clone(), &config.lease_namespace, &config.lease_name, me, address, *times),
            me: me.into(),
            times: *times,
            fleet: fleet.clone(),
            attend: Arc::clone(attend),
            able: Arc::new(move || peers.reach()),
            health: self.health.component("members"),
        }
    }

    fn replica(&self, config: &Config, shards: Shards, shard: ShardId) -> Replica<J, KubeLogs> {
        let metrics = self.metrics.of_shard(shard);
        let cluster = &self.cluster;
        let parts = Parts {
            journals: Arc::clone(&self.journals),
            identity: self.identity.clone(),
            pods: cluster.pods.counted_apart(),
            scopes: scopes(config, shards, shard),
            // Of its own: a node that hangs for one shard takes no place from the others.
            capturer: Capturer::new(self.logs.clone(), self.limits),
            evidence: Evidence::new(cluster.client.clone(), config.kubernetes_events, metrics.clone()),
            report: config.report,
            capture_deadline: self.limits.capture_deadline,
            rules: Arc::new(rules(config, cluster.id.clone())),
            reconcile_interval: config.reconcile_interval,
            ready_max: READY_MAX,
            wall: crate::clock::Wall::default(),
            cleanup: config.cleanup.clone(),
            board: self.board.clone(),
            cluster: self.health.component(component("kubernetes", shards, shard)),
            kafka: self.health.component(component("kafka", shards, shard)),
            peers: self.peers.clone(),
            renew_deadline: config.lease_times.map(|times| times.renew_deadline),
            metrics,
        };
        Replica { shard, parts, health: self.health.clone() }
    }
}

/// The name of a shard's component: only where there are several does it say which.
fn component(name: &'static str, shards: Shards, shard: ShardId) -> Name {
    if shards.count.get() == 1 { name.into() } else { format!("{name}/{shard}").into() }
}

fn scopes(config: &Config, shards: Shards, shard: ShardId) -> Vec<Scope> {
    let selector = config.selector.as_str().to_owned();
    let share = Share { shards, shard, ids: config.ids.clone() };
    let scope = |namespace| Scope { namespace, selector: selector.clone(), share: share.clone() };
    match &config.namespaces {
        Namespaces::All => vec![scope(None)],
        Namespaces::Named(names) => names.iter().map(|name| scope(Some(name.clone()))).collect(),
    }
}

fn rules(config: &Config, cluster_id: String) -> Rules {
    Rules {
        cluster_id,
        ids: config.ids.clone(),
        container: config.container.clone(),
        settle_grace: config.settle_grace.try_into().unwrap_or(jiff::SignedDuration::MAX),
        stall_graces: config.stall_graces.clone(),
        remember_ended: config.remember_ended.try_into().unwrap_or(jiff::SignedDuration::MAX),
        shard_by: config.shard_by,
        follow: config.follow,
        user: Arc::clone(&config.rules),
    }
}
