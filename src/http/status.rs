//! What `/api/status` and the status page show. The worker writes it, requests read it.

use std::{
    sync::{Arc, PoisonError, RwLock},
    time::Instant,
};

use jiff::Timestamp;
use serde::Serialize;

use super::health::{Health, Name, State};

/// The parts of the status that the worker keeps up to date. Clones share it.
#[derive(Debug, Clone)]
pub struct Board(Arc<RwLock<Shown>>);

/// What the board shows. Fields without a value are absent from the JSON.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Shown {
    /// Version of this build.
    pub version: String,
    /// This process among the replicas.
    pub identity: String,
    /// When it started, by its own clock.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub started_at: Option<Timestamp>,
    /// The normalised selector.
    pub selector: String,
    /// Where events go.
    pub sink: String,
    /// What this replica does for each shard.
    pub shards: Vec<ShardStatus>,
}

/// One shard as this replica sees it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct ShardStatus {
    /// Which.
    pub shard: u32,
    /// This replica's role: standby, fencing, restoring, reconciling, live, draining, fenced.
    pub role: &'static str,
    /// Who holds it, where known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub holder: Option<String>,
    /// Its count of changes of hands.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub term: Option<u64>,
    /// Pods whose story is not over.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tracked_pods: Option<u64>,
    /// Records of the changelog not read yet (standby).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lag_records: Option<u64>,
    /// Last change of hands.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub since: Option<Timestamp>,
}

/// One component in a [`Status`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Check {
    /// Component.
    pub name: Name,
    /// Whether it does its part.
    pub ok: bool,
    /// Why not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
}

/// The whole answer of `/api/status`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Status {
    /// The board.
    #[serde(flatten)]
    pub shown: Shown,
    /// As `/readyz`.
    pub ready: bool,
    /// As `/livez`.
    pub live: bool,
    /// Components by name.
    pub checks: Vec<Check>,
    /// Loops that do not turn.
    pub stuck: Vec<&'static str>,
}

impl Board {
    /// A board that shows this.
    pub fn new(shown: Shown) -> Self {
        Self(Arc::new(RwLock::new(shown)))
    }

    /// This process among the replicas.
    pub fn identity(&self) -> String {
        self.0.read().unwrap_or_else(PoisonError::into_inner).identity.clone()
    }

    /// Changes what is shown.
    pub fn update(&self, change: impl FnOnce(&mut Shown)) {
        change(&mut self.0.write().unwrap_or_else(PoisonError::into_inner));
    }

    /// Board and health together at `now`.
    pub fn status(&self, health: &Health, now: Instant) -> Status {
        let shown = self.0.read().unwrap_or_else(PoisonError::into_inner).clone();
        let check = |(name, state)| match state {
            State::Ok => Check { name, ok: true, why: None },
            State::Waiting { why } => Check { name, ok: false, why: Some(why) },
        };
        let stuck: Vec<_> = health.stuck(now).into_iter().map(|stuck| stuck.name).collect();
        Status {
            shown,
            ready: health.is_ready(),
            live: stuck.is_empty(),
            checks: health.components().into_iter().map(check).collect(),
            stuck,
        }
    }
}
