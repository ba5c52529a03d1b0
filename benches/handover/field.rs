//! Pods to be told of: a pool of them, each of whose status is written once, at a steady rate.

use std::{
    collections::{HashMap, VecDeque},
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use futures::{StreamExt as _, TryStreamExt as _, stream};
use serde_json::json;
use testkit::clients::cluster::{Cluster, execution};
use tokio::{
    task::JoinSet,
    time::{MissedTickBehavior, interval},
};
use tokio_util::sync::CancellationToken;

/// Pods made or deleted at the same time.
const AT_ONCE: usize = 12;

/// When each pod's status was sent, by UID.
pub(crate) type Written = Arc<Mutex<HashMap<String, Instant>>>;

/// The pods of one installation.
pub(crate) struct Field {
    pub(crate) cluster: Cluster,
    app: String,
    size: usize,
    /// Name and UID; bound to a node that does not exist, never written to.
    fresh: VecDeque<(String, String)>,
    used: Vec<String>,
    made: usize,
}

impl Field {
    pub(crate) async fn new(cluster: Cluster, app: &str, size: usize) -> Result<Self> {
        let mut field = Self { cluster, app: app.to_owned(), size, fresh: VecDeque::new(), used: Vec::new(), made: 0 };
        field.refill().await?;
        Ok(field)
    }

    pub(crate) fn app(&self) -> &str {
        &self.app
    }

    pub(crate) fn size(&self) -> usize {
        self.size
    }

    /// Used pods go, new ones come.
    pub(crate) async fn refill(&mut self) -> Result<()> {
        let cluster = &self.cluster;
        stream::iter(self.used.drain(..).map(Ok::<_, anyhow::Error>))
            .try_for_each_concurrent(AT_ONCE, |name| async move { cluster.delete(&name, Some(0)).await })
            .await?;
        let missing = self.size.saturating_sub(self.fresh.len());
        let (app, first) = (&self.app, self.made);
        let made = stream::iter(first..first + missing).map(|n| async move {
            let id = format!("{n}");
            let mut pod = execution(app, &id, "true");
            pod["spec"]["nodeName"] = json!("no-such-node");
            Ok::<_, anyhow::Error>((format!("exec-{id}"), cluster.create(pod).await?))
        });
        let made: Vec<_> = made.buffer_unordered(AT_ONCE).try_collect().await?;
        self.fresh.extend(made);
        self.made += missing;
        Ok(())
    }

    /// Writes one pod's status and gives its UID.
    pub(crate) async fn write_one(&mut self) -> Result<String> {
        let (name, uid) = self.fresh.pop_front().context("a fresh pod")?;
        write(&self.cluster, &name).await?;
        self.used.push(name);
        Ok(uid)
    }

    /// Writes one status after the other, until it is told to stop.
    pub(crate) async fn write_steadily(
        &mut self,
        every: Duration,
        written: Written,
        stop: CancellationToken,
    ) -> Result<()> {
        let mut ticks = interval(every);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut writes = JoinSet::new();
        loop {
            tokio::select! {
                _ = ticks.tick() => {}
                () = stop.cancelled() => break,
            }
            let (name, uid) = self.fresh.pop_front().context("more pods are needed than there are")?;
            self.used.push(name.clone());
            let cluster = self.cluster.clone();
            lock(&written).insert(uid, Instant::now());
            writes.spawn(async move { write(&cluster, &name).await });
            while let Some(ended) = writes.try_join_next() {
                ended??;
            }
        }
        while let Some(ended) = writes.join_next().await {
            ended??;
        }
        Ok(())
    }
}

pub(crate) fn lock<T>(shared: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn write(cluster: &Cluster, name: &str) -> Result<()> {
    let started = json!([{ "name": "main", "ready": true, "restartCount": 0, "image": "i", "imageID": "i",
        "state": { "running": { "startedAt": "2026-01-01T00:00:00Z" } } }]);
    cluster.patch_status(name, json!({ "phase": "Running", "containerStatuses": started })).await
}
