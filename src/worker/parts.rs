//! What a worker is given.

use std::{sync::Arc, time::Duration};

use crate::{
    clock::Wall,
    evidence::Evidence,
    http::{Board, health::Component},
    leadership::peers::Peers,
    lifecycle::rules::Rules,
    logs::{Report, capture::Capturer},
    publish::identity::Identity,
    telemetry::metrics::Metrics,
    watch::api::{Pods, Scope},
};

/// What a worker works with.
pub struct Parts<J, S> {
    /// Where events go.
    pub journals: Arc<J>,
    /// Who this installation is; `None` where nothing is kept (stdout).
    pub identity: Option<Identity>,
    /// The API server.
    pub pods: Pods,
    /// The watch streams.
    pub scopes: Vec<Scope>,
    /// For output.
    pub capturer: Capturer<S>,
    /// What else is known of ends.
    pub evidence: Evidence,
    /// What pods print.
    pub report: Report,
    /// How long an end waits for its output at most.
    pub capture_deadline: Duration,
    /// Settings of the pure core.
    pub rules: Arc<Rules>,
    /// Between two reconciliations.
    pub reconcile_interval: Duration,
    /// While so many pods wait to be decided, a LIST brings no further page.
    pub ready_max: usize,
    /// What events call now; decides nothing but whether a settle grace is over.
    pub wall: Wall,
    /// What is done to pods whose end was told.
    pub cleanup: crate::cleanup::Settings,
    /// What is counted.
    pub metrics: Metrics,
    /// What the status page shows.
    pub board: Board,
    /// Health of the API server side.
    pub cluster: Component,
    /// Health of the Kafka side.
    pub kafka: Component,
    /// Who stands by, and whether they would get on.
    pub peers: Peers,
    /// How long Kafka may leave us without an answer before somebody else is to try; `None`: there is nobody else.
    pub renew_deadline: Option<Duration>,
}

impl<J, S: Clone> Clone for Parts<J, S> {
    fn clone(&self) -> Self {
        Self {
            journals: Arc::clone(&self.journals),
            identity: self.identity.clone(),
            pods: self.pods.clone(),
            scopes: self.scopes.clone(),
            capturer: self.capturer.clone(),
            evidence: self.evidence.clone(),
            report: self.report,
            capture_deadline: self.capture_deadline,
            rules: Arc::clone(&self.rules),
            reconcile_interval: self.reconcile_interval,
            ready_max: self.ready_max,
            wall: self.wall.clone(),
            cleanup: self.cleanup.clone(),
            metrics: self.metrics.clone(),
            board: self.board.clone(),
            cluster: self.cluster.clone(),
            kafka: self.kafka.clone(),
            peers: self.peers.clone(),
            renew_deadline: self.renew_deadline,
        }
    }
}
