//! What operators and accidents do to an installation.

use std::time::Duration;

use anyhow::{Result, ensure};

use super::{DEPLOYMENT, Installation, LIMIT, Replica, pod_of};
use crate::{
    clients::until,
    stack::{Signal, Stack},
};

/// For what is done to all replicas, one after the other.
const ROLLOUT: &str = "--timeout=120s";

impl Installation {
    /// Deletes a replica's pod, without waiting for its end; `at_once` as `kubectl delete --force` does: the object is gone
    /// before the process is.
    ///
    /// # Errors
    /// When there is no such pod.
    pub async fn delete(&self, pod: &str, at_once: bool) -> Result<()> {
        let mut delete = vec!["delete", "pod", pod, "--wait=false"];
        if at_once {
            delete.extend(["--grace-period=0", "--force"]);
        }
        self.kubectl(&delete).await.map(drop)
    }

    /// SIGKILL to the leader's process, from outside of the cluster; waits until somebody else holds the Lease. The replica
    /// that was killed.
    ///
    /// # Errors
    /// When it has no process, or nobody takes over within [`LIMIT`].
    pub async fn crash_leader(&self, stack: &Stack) -> Result<Replica> {
        let holder = self.held_by("a leader", |_| true).await?;
        let leader = self.replica(pod_of(&holder)).await?;
        let processes = stack.container(&leader.container)?;
        ensure!(!processes.is_empty(), "no process of {leader:?} is found");
        for process in processes {
            process.signal(Signal::KILL)?;
        }
        // The same pod, too, once it was started again.
        self.held_by(&format!("a holder other than {holder:?}"), |now| now != holder).await?;
        Ok(leader)
    }

    /// Waits until the container of this replica was started again.
    ///
    /// # Errors
    /// When it is not, within [`LIMIT`].
    pub async fn restarted(&self, before: &Replica) -> Result<()> {
        let again = async || Ok((self.replica(&before.name).await?.restarts > before.restarts).then_some(()));
        let waited = until(LIMIT, "the container's restart", again).await;
        self.explained(waited).await
    }

    /// A rolling update to the same image; waits for its end.
    ///
    /// # Errors
    /// When it does not come to its end.
    pub async fn update(&self) -> Result<()> {
        self.kubectl(&["rollout", "restart", DEPLOYMENT]).await?;
        self.rolled_out().await
    }

    /// Merges this into the Deployment, and waits for the end of the update that follows.
    ///
    /// # Errors
    /// When it does not come to its end.
    pub async fn patch(&self, patch: &str) -> Result<()> {
        self.kubectl(&["patch", DEPLOYMENT, "--patch", patch]).await?;
        self.rolled_out().await
    }

    async fn rolled_out(&self) -> Result<()> {
        let waited = self.kubectl(&["rollout", "status", DEPLOYMENT, ROLLOUT]).await;
        self.explained(waited.map(drop)).await
    }

    /// Asks for this many replicas, without waiting for them.
    ///
    /// # Errors
    /// When the API server does not answer.
    pub async fn scale(&self, count: usize) -> Result<()> {
        self.kubectl(&["scale", DEPLOYMENT, &format!("--replicas={count}")]).await.map(drop)
    }

    /// Asks for no replica, and waits until their processes have ended by themselves: within `limit`, which should be less
    /// than their grace period.
    ///
    /// # Errors
    /// When they do not.
    pub async fn stop(&self, limit: Duration) -> Result<()> {
        self.scale(0).await?;
        let timeout = format!("--timeout={}s", limit.as_secs());
        let waited = self.kubectl(&["wait", "pods", "--all", "--for=delete", &timeout]).await;
        self.explained(waited.map(drop)).await
    }

    /// Drains a node: evicts what runs there, as far as disruption budgets let it.
    ///
    /// # Errors
    /// When something stays.
    pub async fn drain(&self, node: &str) -> Result<()> {
        let drain = ["drain", node, "--ignore-daemonsets", "--delete-emptydir-data", ROLLOUT];
        let waited = self.kubectl(&drain).await;
        self.explained(waited.map(drop)).await
    }
}
