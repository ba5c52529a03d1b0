//! The monitor as users install it: three replicas of its image, as the Deployment of deploy/kustomize with its Roles.
//!
//! ```text
//!  Plan ──▶ overlay: kustomization in the shape of overlays/example ──▶ kubectl apply -k ──▶ Installation
//!                                                                                              │ replicas, leader, logs
//!                                                               deeds: delete, crash, update, scale, drain
//! ```
//! Promises: everything is admitted under Pod Security `restricted` without a warning, or it is an error; errors tell what
//! the cluster knows of the pods; what was installed is taken away. Must not: use a right that the shipped Roles lack.

mod deeds;
mod overlay;
mod replica;

use std::{
    fmt::Write as _,
    fs,
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use super::{cluster::Cluster, history::History, until};
use crate::stack::Endpoints;
pub use overlay::{FINALIZER, KAFKA_SECRETS, Plan, Rights, relative, restricted_namespace};
pub use replica::Replica;

/// Longest wait for anything: on a machine at its limit.
pub const LIMIT: Duration = Duration::from_secs(60);
/// Name of the Deployment and of its container.
const DEPLOYMENT: &str = "deployment/pod-monitor";

/// An installation in a namespace of its own, which watches another. Taken away when dropped, unless it is left.
pub struct Installation {
    /// Of the monitor's namespace, of the label `app` of its pods, of its Lease and topics.
    pub name: String,
    /// The watched namespace.
    pub watched: Cluster,
    endpoints: Endpoints,
    overlay: PathBuf,
    /// It stays when this is dropped.
    left: bool,
}

impl Installation {
    /// Installs it, by the bases in `deploy` (deploy/kustomize). The image must be on the stack.
    ///
    /// # Errors
    /// When the cluster refuses something or warns of it.
    pub async fn install(endpoints: &Endpoints, deploy: &Path, plan: &Plan) -> Result<Self> {
        let overlay = endpoints.run_dir.join(format!("overlay-{}", plan.name));
        overlay::write(&overlay, deploy, plan, endpoints).context("write the kustomization")?;
        let watched = Cluster::connect(endpoints, &plan.watched()).await?;
        let endpoints = endpoints.clone();
        let installed = Self { name: plan.name.clone(), watched, endpoints, overlay, left: false };
        let applied = kubectl(&installed.endpoints, &["apply", "-k", &installed.overlay.display().to_string()]).await?;
        ensure!(applied.warnings.is_empty(), "Pod Security or the API server warns: {}", applied.warnings);
        installed.watched.ready_for_pods().await?;
        Ok(installed)
    }

    /// What kubectl says, run in the monitor's namespace.
    ///
    /// # Errors
    /// When it fails; with what it said.
    pub async fn kubectl(&self, arguments: &[&str]) -> Result<String> {
        let all = [&["--namespace", self.name.as_str()], arguments].concat();
        Ok(kubectl(&self.endpoints, &all).await?.output)
    }

    /// Waits until the Deployment is available.
    ///
    /// # Errors
    /// When it is not, within [`LIMIT`].
    pub async fn ready(&self) -> Result<()> {
        let timeout = format!("--timeout={}s", LIMIT.as_secs());
        let waited = self.kubectl(&["wait", DEPLOYMENT, "--for=condition=Available", &timeout]).await;
        self.explained(waited.map(drop)).await
    }

    /// The pods of the Deployment.
    ///
    /// # Errors
    /// When the API server does not answer.
    pub async fn replicas(&self) -> Result<Vec<Replica>> {
        let list: Value = serde_json::from_str(&self.kubectl(&["get", "pods", "--output=json"]).await?)?;
        Ok(list["items"].as_array().context("a list of pods")?.iter().map(Replica::of).collect())
    }

    /// The replica whose pod has this name.
    ///
    /// # Errors
    /// When there is none.
    pub async fn replica(&self, name: &str) -> Result<Replica> {
        let found = self.replicas().await?.into_iter().find(|replica| replica.name == name);
        found.with_context(|| format!("there is no pod {name}"))
    }

    /// Waits until there are this many replicas, all ready and none going.
    ///
    /// # Errors
    /// When it does not come to that within [`LIMIT`].
    pub async fn settled(&self, count: usize) -> Result<Vec<Replica>> {
        let look = async || {
            let all = self.replicas().await?;
            let settled = all.len() == count && all.iter().all(|replica| replica.ready && !replica.going);
            Ok(settled.then_some(all))
        };
        let waited = until(LIMIT, &format!("{count} ready replicas"), look).await;
        self.explained(waited).await
    }

    /// Waits until another pod than `not` holds the Lease; its name.
    ///
    /// # Errors
    /// When there is none within [`LIMIT`].
    pub async fn leader(&self, not: &str) -> Result<String> {
        let holder = self.held_by(&format!("a leader other than {not:?}"), |holder| pod_of(holder) != not).await?;
        Ok(pod_of(&holder).to_owned())
    }

    /// Waits until the Lease is held by an identity that will do.
    async fn held_by(&self, whom: &str, will_do: impl Fn(&str) -> bool) -> Result<String> {
        let waited = until(LIMIT, whom, async || Ok(self.holder().await?.filter(|holder| will_do(holder)))).await;
        self.explained(waited).await
    }

    /// `spec.holderIdentity` of the Lease, if somebody holds it.
    async fn holder(&self) -> Result<Option<String>> {
        let lease = format!("{}-0", self.name);
        let get = ["get", "lease", &lease, "--ignore-not-found", "--output=jsonpath={.spec.holderIdentity}"];
        Ok(Some(self.kubectl(&get).await?).filter(|holder| !holder.is_empty()))
    }

    /// The events topic.
    pub fn topic(&self) -> String {
        format!("{}.events", self.name)
    }

    /// The events that it told, from the beginning.
    ///
    /// # Errors
    /// When the topic is not there: it never was ready.
    pub fn history(&self) -> Result<History> {
        History::open(&self.endpoints.kafka, &[&self.topic()])
    }

    /// The log lines with this message of all containers that the node still knows, oldest first.
    ///
    /// # Errors
    /// When the API server does not answer.
    pub async fn said(&self, message: &str) -> Result<Vec<Value>> {
        let mut lines = Vec::new();
        for replica in self.replicas().await? {
            for of in [&["--previous"][..], &[]] {
                // The container before the present one is there only if it crashed.
                let log = self.kubectl(&[&["logs", &replica.name], of].concat()).await.unwrap_or_default();
                let parsed = log.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
                lines.extend(parsed.filter(|line| line["message"] == message));
            }
        }
        lines.sort_by_key(|line| line["timestamp"].to_string());
        Ok(lines)
    }

    /// Lets it be when this is dropped.
    pub fn leave(mut self) {
        self.left = true;
    }

    /// The error, with what there is to know of the pods.
    async fn explained<T>(&self, result: Result<T>) -> Result<T> {
        match result {
            Ok(value) => Ok(value),
            Err(error) => Err(error.context(self.story().await)),
        }
    }

    /// What there is to know after a failure.
    pub async fn story(&self) -> String {
        let mut story = String::new();
        let logs = ["logs", "--selector=app.kubernetes.io/name=pod-monitor", "--prefix", "--tail=50"];
        for what in [&["describe", "pods"][..], &["get", "events"], &logs] {
            let told = self.kubectl(what).await.unwrap_or_else(|error| format!("{error:#}"));
            writeln!(story, "== {}\n{told}", what.join(" ")).expect("a string takes everything");
        }
        story
    }
}

impl Drop for Installation {
    fn drop(&mut self) {
        if self.left {
            return;
        }
        let overlay = self.overlay.display().to_string();
        let ask = |arguments: &[&str]| kubectl_blocking(&self.endpoints, arguments);
        let taken = ask(&["delete", "--ignore-not-found", "--wait=false", "-k", &overlay]);
        let emptied = ask(&["delete", "namespace", "--ignore-not-found", "--wait=false", self.watched.namespace()]);
        if let Err(error) = taken.and(emptied).and_then(|_| Ok(fs::remove_dir_all(&self.overlay)?)) {
            eprintln!("{}: not taken away: {error:#}", self.name);
        }
    }
}

/// Identities are the pod's name and a random part.
fn pod_of(identity: &str) -> &str {
    identity.rsplit_once('_').map_or(identity, |(pod, _)| pod)
}

/// What kubectl said.
#[derive(Debug)]
pub struct Said {
    /// Its standard output.
    pub output: String,
    /// Its standard error: warnings of the API server, when it succeeds.
    pub warnings: String,
}

/// Runs kubectl without holding up others on this thread.
///
/// # Errors
/// When it fails; with what it said.
pub async fn kubectl(endpoints: &Endpoints, arguments: &[&str]) -> Result<Said> {
    let endpoints = endpoints.clone();
    let arguments: Vec<String> = arguments.iter().map(|argument| (*argument).to_owned()).collect();
    let run = move || kubectl_blocking(&endpoints, &arguments.iter().map(String::as_str).collect::<Vec<_>>());
    tokio::task::spawn_blocking(run).await.context("run kubectl")?
}

/// Runs kubectl; this thread waits for it.
///
/// # Errors
/// When it fails; with what it said.
pub fn kubectl_blocking(endpoints: &Endpoints, arguments: &[&str]) -> Result<Said> {
    let output = endpoints.kubectl().args(arguments).stdin(Stdio::null()).output().context("run kubectl")?;
    let text = |bytes| String::from_utf8_lossy(bytes).into_owned();
    let (out, err) = (text(&output.stdout), text(&output.stderr));
    ensure!(output.status.success(), "kubectl {}: {out}{err}", arguments.join(" "));
    Ok(Said { output: out, warnings: err })
}
