//! What operators and accidents do to the Deployment, during a churn of execution pods: nothing is lost or doubled.
//!
//! ```text
//!  a churn of pods (thread of its own) --------------------------------------------> what must have been told
//!  delete leader - by force - crash - rolling update - scale to 1 and 3 - drain       after each, all of it is judged
//! ```
#![allow(clippy::disallowed_methods, reason = "a test measures how long things take")]

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use testkit::{
    clients::{
        lives::{Life, complete, faults, live},
        until,
    },
    stack::{NODE_TAINT, Node, Signal},
};
use tokio::runtime::Handle;

use crate::support::{Installation, LIMIT, Lacking, image, kubectl, stack};

/// Execution pods at the same time: probes, roll-outs and the other tests need the machine, too.
const AT_ONCE: usize = 4;
/// Fewer during a fault would show little.
const PODS_MIN: usize = 4;
const REPLICAS: usize = 3;
/// For what is done to all replicas, one after the other.
const ROLLOUT: &str = "--timeout=120s";

#[tokio::test(flavor = "multi_thread")]
async fn whatever_is_done_to_the_deployment_nothing_is_lost_or_doubled() {
    let mut rolling = Rolling::new().await;
    rolling.during_churn("the leader's pod is deleted", async |r| r.delete_leader(false).await).await;
    rolling.during_churn("the leader's pod is deleted by force", async |r| r.delete_leader(true).await).await;
    rolling.during_churn("the leader's container crashes", async |r| r.crash_leader().await).await;
    rolling.during_churn("a rolling update", async |r| r.update().await).await;
    rolling.during_churn("scaled to one and back", async |r| r.scale_down_and_up().await).await;
    rolling.during_churn("the leader's node is drained", async |r| r.drain().await).await;
    rolling.node.remove().unwrap();
    rolling.deployed.installed.stop(Duration::from_secs(20));
}

/// The Deployment on two nodes, and the lives of all execution pods so far.
struct Rolling {
    deployed: Deployed,
    node: Node,
    lives: Vec<Life>,
}

impl Rolling {
    async fn new() -> Self {
        let node = stack().add_node().unwrap();
        node.load_image(image()).unwrap();
        let deployed = Deployed { installed: Installation::new("rolling", Lacking::Nothing).await, node: node.name() };
        // As shipped, but that it may go to the node that only this test uses.
        let tolerations = json!([{ "key": NODE_TAINT, "operator": "Exists" }]);
        let patch = json!({ "spec": { "template": { "spec": { "tolerations": tolerations } } } }).to_string();
        deployed.kubectl(&["patch", "deployment/pod-monitor", "--patch", &patch]).unwrap();
        deployed.kubectl(&["rollout", "status", "deployment/pod-monitor", ROLLOUT]).unwrap();
        deployed.settled(REPLICAS).await.unwrap();
        Self { deployed, node, lives: Vec::new() }
    }

    /// Does this while execution pods come and go, then judges everything that was told since the beginning.
    async fn during_churn(&mut self, what: &str, act: impl AsyncFnOnce(&Deployed) -> Result<()>) {
        let begun = Instant::now();
        let churn = Churn::start(&self.deployed.installed, self.lives.len());
        // What takes over must find pods in the middle of their lives.
        self.deployed.living(self.lives.len()).await.unwrap();
        if let Err(error) = act(&self.deployed).await {
            panic!("{what}: {error:#}");
        }
        let lives = churn.end();
        println!("{what}: {} pods lived within {:.1?}", lives.len(), begun.elapsed());
        assert!(lives.len() >= PODS_MIN, "{what}: only {} pods", lives.len());
        self.lives.extend(lives);
        let topic = format!("{}.events", self.deployed.installed.name);
        let told = complete(stack().endpoints(), &topic, &self.lives).await;
        let wrong = faults(&self.lives, &told.with_context(|| what.to_owned()).unwrap());
        assert!(wrong.is_empty(), "{what}:\n{}", wrong.join("\n"));
    }
}

/// Execution pods that come and go until it ends.
struct Churn {
    over: Arc<AtomicBool>,
    thread: Option<JoinHandle<Result<Vec<Life>>>>,
}

impl Churn {
    /// Pods are numbered from `first`. On a thread of its own, since kubectl blocks ours.
    fn start(installed: &Installation, first: usize) -> Self {
        let over = Arc::new(AtomicBool::new(false));
        let (told, runtime) = (Arc::clone(&over), Handle::current());
        let (cluster, app) = (installed.watched.clone(), installed.name.clone());
        let pods = (first..).take_while(move |_| !told.load(Ordering::SeqCst));
        let thread = thread::spawn(move || runtime.block_on(live(&cluster, &app, pods, AT_ONCE)));
        Self { over, thread: Some(thread) }
    }

    fn end(mut self) -> Vec<Life> {
        self.over.store(true, Ordering::SeqCst);
        self.thread.take().unwrap().join().unwrap().unwrap()
    }
}

impl Drop for Churn {
    /// After a failure it ends by itself.
    fn drop(&mut self) {
        self.over.store(true, Ordering::SeqCst);
    }
}

/// A pod of the Deployment.
#[derive(Debug)]
struct Replica {
    name: String,
    node: String,
    ready: bool,
    /// It ends.
    going: bool,
    restarts: u64,
    container: String,
}

impl Replica {
    fn of(pod: &Value) -> Self {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let status = &pod["status"]["containerStatuses"][0];
        Self {
            name: text(&pod["metadata"]["name"]),
            node: text(&pod["spec"]["nodeName"]),
            ready: status["ready"] == true,
            going: pod["metadata"]["deletionTimestamp"].is_string(),
            restarts: status["restartCount"].as_u64().unwrap_or(0),
            container: text(&status["containerID"]).trim_start_matches("containerd://").to_owned(),
        }
    }
}

/// The Deployment, and what can be done to it.
struct Deployed {
    installed: Installation,
    /// The node that may be drained.
    node: String,
}

impl Deployed {
    fn kubectl(&self, arguments: &[&str]) -> Result<String> {
        let all = [&["--namespace", self.installed.name.as_str()], arguments].concat();
        kubectl(stack().endpoints(), &all).map(|(out, _)| out)
    }

    fn replicas(&self) -> Result<Vec<Replica>> {
        let list: Value = serde_json::from_str(&self.kubectl(&["get", "pods", "--output=json"])?)?;
        Ok(list["items"].as_array().context("a list of pods")?.iter().map(Replica::of).collect())
    }

    fn replica(&self, name: &str) -> Result<Replica> {
        let found = self.replicas()?.into_iter().find(|replica| replica.name == name);
        found.with_context(|| format!("there is no pod {name}"))
    }

    /// Waits until there are this many pods, all ready and none going.
    async fn settled(&self, count: usize) -> Result<Vec<Replica>> {
        let mut last = Vec::new();
        let look = async || {
            last = self.replicas()?;
            let settled = last.len() == count && last.iter().all(|replica| replica.ready && !replica.going);
            Ok(settled.then_some(()))
        };
        let waited = until(LIMIT, &format!("{count} ready replicas"), look).await;
        waited.with_context(|| format!("there are {last:#?}"))?;
        Ok(last)
    }

    /// Waits until one of the execution pods from number `first` on is there.
    async fn living(&self, first: usize) -> Result<()> {
        let look = async || {
            let names = self.installed.watched.names().await?;
            let number = |name: &String| name.strip_prefix("exec-churn-")?.parse::<usize>().ok();
            Ok(names.iter().filter_map(number).any(|number| number >= first).then_some(()))
        };
        until(LIMIT, "a churn of pods", look).await
    }

    async fn delete_leader(&self, at_once: bool) -> Result<()> {
        let leader = self.installed.leader("").await;
        self.installed.delete(&leader, at_once);
        self.installed.leader(&leader).await;
        let left = self.settled(REPLICAS).await?;
        ensure!(left.iter().all(|replica| replica.name != leader), "{leader} is still there");
        Ok(())
    }

    async fn crash_leader(&self) -> Result<()> {
        let leader = self.replica(&self.installed.leader("").await)?;
        let processes = stack().container(&leader.container)?;
        ensure!(!processes.is_empty(), "no process of {leader:?} is found");
        for process in processes {
            process.signal(Signal::KILL)?;
        }
        self.installed.leader(&leader.name).await;
        let again = async || Ok((self.replica(&leader.name)?.restarts > leader.restarts).then_some(()));
        until(LIMIT, "the container's restart", again).await?;
        self.settled(REPLICAS).await?;
        Ok(())
    }

    async fn update(&self) -> Result<()> {
        let old = self.settled(REPLICAS).await?;
        self.kubectl(&["rollout", "restart", "deployment/pod-monitor"])?;
        self.kubectl(&["rollout", "status", "deployment/pod-monitor", ROLLOUT])?;
        let new = self.settled(REPLICAS).await?;
        let stayed = new.iter().find(|replica| old.iter().any(|before| before.name == replica.name));
        ensure!(stayed.is_none(), "not updated: {stayed:?}");
        Ok(())
    }

    async fn scale_down_and_up(&self) -> Result<()> {
        self.kubectl(&["scale", "deployment/pod-monitor", "--replicas=1"])?;
        let alone = self.settled(1).await?.remove(0).name;
        let leads = async || Ok((self.installed.leader("").await == alone).then_some(()));
        until(LIMIT, "the only replica leads", leads).await?;
        self.kubectl(&["scale", "deployment/pod-monitor", &format!("--replicas={REPLICAS}")])?;
        self.settled(REPLICAS).await?;
        Ok(())
    }

    async fn drain(&self) -> Result<()> {
        let leader = self.leader_on_further_node().await?;
        self.kubectl(&["drain", &self.node, "--ignore-daemonsets", "--delete-emptydir-data", ROLLOUT])?;
        self.installed.leader(&leader).await;
        let left = self.settled(REPLICAS).await?;
        ensure!(left.iter().all(|replica| replica.node != self.node), "not drained: {left:#?}");
        Ok(())
    }

    /// Deletes leaders until one leads from there: replicas are spread, so each that goes makes it likelier.
    async fn leader_on_further_node(&self) -> Result<String> {
        for _ in 0..10 {
            let leader = self.replica(&self.installed.leader("").await)?;
            if leader.node == self.node {
                return Ok(leader.name);
            }
            self.delete_leader(false).await?;
        }
        anyhow::bail!("no replica on {} ever led: {:#?}", self.node, self.replicas()?)
    }
}
