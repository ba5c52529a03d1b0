//! What operators and accidents do to the monitor as users run it, during a churn of execution pods: nothing is lost or
//! doubled.
//!
//! ```text
//!  a churn of pods --------------------------------------------------------------------> what must have been told
//!  delete leader - by force - crash - rolling update - scale to 1 and 3 - drain       after each, all of it is judged
//! ```

use std::{
    cell::Cell,
    path::Path,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use serde_json::json;
use testkit::{
    clients::{
        installation::{Installation, LIMIT, Plan},
        lives::{Life, complete, faults, live},
        until,
    },
    monitor_image,
    stack::{NODE_TAINT, Node, Stack},
};

/// Execution pods at the same time: probes and roll-outs need the machine, too.
const AT_ONCE: usize = 4;
/// Fewer during a fault would show little.
const PODS_MIN: usize = 4;
const REPLICAS: usize = 3;

#[tokio::test(flavor = "multi_thread")]
async fn whatever_is_done_to_the_deployment_nothing_is_lost_or_doubled() {
    let mut deployed = Deployed::new().await.unwrap();
    deployed.during_churn("the leader's pod is deleted", async |d| d.delete_leader(false).await).await;
    deployed.during_churn("the leader's pod is deleted by force", async |d| d.delete_leader(true).await).await;
    deployed.during_churn("the leader's container crashes", async |d| d.crash_leader().await).await;
    deployed.during_churn("a rolling update", async |d| d.update().await).await;
    deployed.during_churn("scaled to one and back", async |d| d.scale_down_and_up().await).await;
    deployed.during_churn("the leader's node is drained", async |d| d.drain().await).await;
    // Each ends by itself, well within its grace period.
    deployed.installed.stop(Duration::from_secs(20)).await.unwrap();
}

/// The Deployment on two nodes, and the lives of all execution pods so far.
struct Deployed {
    installed: Installation,
    stack: Stack,
    /// The node that may be drained; taken away when this is dropped, also by a failure.
    node: Option<Node>,
    second: String,
    lives: Vec<Life>,
}

impl Drop for Deployed {
    fn drop(&mut self) {
        let removed = self.node.take().map_or(Ok(()), Node::remove);
        // A failure before this one is what is to be read.
        assert!(removed.is_ok() || std::thread::panicking(), "{removed:?}");
    }
}

impl Deployed {
    async fn new() -> Result<Self> {
        let repository = Path::new(env!("CARGO_MANIFEST_DIR"));
        let (stack, built) = monitor_image::on_stack(repository)?;
        let node = stack.add_node()?;
        node.load_image(&built.archive)?;
        let plan = Plan::new(&format!("deployment-{}", std::process::id()));
        let kustomize = repository.join("deploy/kustomize");
        let installed = Installation::install(stack.endpoints(), &kustomize, &plan).await?;
        // As shipped, but that it may go to the node that only this test uses.
        let tolerations = json!([{ "key": NODE_TAINT, "operator": "Exists" }]);
        installed
            .patch(&json!({ "spec": { "template": { "spec": { "tolerations": tolerations } } } }).to_string())
            .await?;
        installed.settled(REPLICAS).await?;
        Ok(Self { installed, stack, second: node.name(), node: Some(node), lives: Vec::new() })
    }

    /// Does this while execution pods come and go, then judges everything that was told since the beginning.
    async fn during_churn(&mut self, what: &str, act: impl AsyncFnOnce(&Self) -> Result<()>) {
        let (begun, first, over) = (Instant::now(), self.lives.len(), Cell::new(false));
        let pods = (first..).take_while(|_| !over.get());
        let acted = async {
            // What takes over must find pods in the middle of their lives.
            let acted = match self.living(first).await {
                Ok(()) => act(self).await,
                Err(error) => Err(error),
            };
            over.set(true);
            acted
        };
        let (acted, lives) = tokio::join!(acted, live(&self.installed.watched, &self.installed.name, pods, AT_ONCE));
        if let Err(error) = acted {
            panic!("{what}: {error:#}");
        }
        let lives = lives.unwrap();
        println!("{what}: {} pods lived within {:.1?}", lives.len(), begun.elapsed());
        assert!(lives.len() >= PODS_MIN, "{what}: only {} pods", lives.len());
        self.lives.extend(lives);
        let told = complete(self.stack.endpoints(), &self.installed.topic(), &self.lives).await;
        let wrong = faults(&self.lives, &told.with_context(|| what.to_owned()).unwrap());
        assert!(wrong.is_empty(), "{what}:\n{}", wrong.join("\n"));
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
        let leader = self.installed.leader("").await?;
        self.installed.delete(&leader, at_once).await?;
        self.installed.leader(&leader).await?;
        let left = self.installed.settled(REPLICAS).await?;
        ensure!(left.iter().all(|replica| replica.name != leader), "{leader} is still there");
        Ok(())
    }

    async fn crash_leader(&self) -> Result<()> {
        let leader = self.installed.crash_leader(&self.stack).await?;
        self.installed.restarted(&leader).await?;
        self.installed.settled(REPLICAS).await.map(drop)
    }

    async fn update(&self) -> Result<()> {
        let old = self.installed.settled(REPLICAS).await?;
        self.installed.update().await?;
        let new = self.installed.settled(REPLICAS).await?;
        let stayed = new.iter().find(|replica| old.iter().any(|before| before.name == replica.name));
        ensure!(stayed.is_none(), "not updated: {stayed:?}");
        Ok(())
    }

    async fn scale_down_and_up(&self) -> Result<()> {
        self.installed.scale(1).await?;
        let alone = self.installed.settled(1).await?.remove(0).name;
        let leads = async || Ok((self.installed.leader("").await? == alone).then_some(()));
        until(LIMIT, "the only replica leads", leads).await?;
        self.installed.scale(REPLICAS).await?;
        self.installed.settled(REPLICAS).await.map(drop)
    }

    async fn drain(&self) -> Result<()> {
        let leader = self.leader_on_second_node().await?;
        self.installed.drain(&self.second).await?;
        self.installed.leader(&leader).await?;
        let left = self.installed.settled(REPLICAS).await?;
        ensure!(left.iter().all(|replica| replica.node != self.second), "not drained: {left:#?}");
        Ok(())
    }

    /// Deletes leaders until one leads from there: replicas are spread, so each that goes makes it likelier.
    async fn leader_on_second_node(&self) -> Result<String> {
        for _ in 0..10 {
            let leader = self.installed.replica(&self.installed.leader("").await?).await?;
            if leader.node == self.second {
                return Ok(leader.name);
            }
            self.delete_leader(false).await?;
        }
        anyhow::bail!("no replica on {} ever led: {:#?}", self.second, self.installed.replicas().await?)
    }
}
