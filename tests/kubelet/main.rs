//! The monitor as a process against real pods on a real node: what they print, how they end, what is told of it.
//!
//! Needs the stack that the environment names; a missing server fails. Each test starts several pods at once, since
//! starting and ending them is what takes time.
#![allow(clippy::unwrap_used, reason = "tests")]

#[path = "../support/mod.rs"]
mod support;

mod check;
mod deleting;
mod ends;
mod fields;
mod going;
mod lives;
mod memory;
mod output;
mod rotation;
mod secrets;
mod traces;

use anyhow::{Context, Result};
use serde_json::Value;
use testkit::clients::{
    cluster::execution,
    history::{History, Record},
    monitor::Monitor,
};

use support::{Bench, LIMIT, told};

/// Every pod that ran to an end.
const COMPLETED: [&str; 3] = ["pod_scheduled", "execution_running", "execution_completed"];
const FAILED: [&str; 3] = ["pod_scheduled", "execution_running", "execution_failed"];

/// A monitor at work, and what it tells.
struct Watched {
    bench: Bench,
    monitor: Monitor,
    history: History,
}

impl Watched {
    async fn new(test: &str, arguments: &[&str]) -> Result<Self> {
        Self::started(Bench::new(test).await?, arguments).await
    }

    async fn with_variables(test: &str, variables: &[(&str, &str)]) -> Result<Self> {
        let mut bench = Bench::new(test).await?;
        bench.launch = variables.iter().fold(bench.launch, |launch, (key, value)| launch.variable(key, value));
        Self::started(bench, &[]).await
    }

    async fn started(bench: Bench, arguments: &[&str]) -> Result<Self> {
        bench.cluster.ready_for_pods().await?;
        // Real logs take longer than none: the default again.
        let own = arguments.contains(&"--capture-deadline");
        let deadline = if own { arguments.to_vec() } else { [&["--capture-deadline", "30s"], arguments].concat() };
        let bench = Bench { launch: without_deadline(bench.launch), ..bench };
        let monitor = bench.monitor(&deadline).await?;
        let history = bench.history()?;
        Ok(Self { bench, monitor, history })
    }

    /// Starts a pod that runs a shell script; gives its UID.
    async fn script(&self, id: &str, script: &str) -> Result<String> {
        self.pod(id, script, |_| {}).await
    }

    /// Starts a pod that is not quite like all others.
    async fn pod(&self, id: &str, script: &str, change: impl FnOnce(&mut Value)) -> Result<String> {
        let mut pod = execution(&self.bench.app, id, script);
        change(&mut pod);
        self.bench.cluster.create(pod).await
    }

    /// Waits for the end of an execution; gives its event.
    async fn end(&mut self, uid: &str) -> Result<Record> {
        let find = |records: &[Record]| records.iter().find(|r| r.text("pod_uid") == uid && r.is_end()).cloned();
        let end = self.history.until(LIMIT, &format!("the end of pod {uid}"), find).await;
        end.with_context(|| format!("told so far: {:?}", told(&self.history, uid)))
    }

    async fn close(self) -> Result<()> {
        self.monitor.stop(LIMIT).await?;
        self.bench.close().await
    }
}

fn without_deadline(mut launch: testkit::clients::monitor::Launch) -> testkit::clients::monitor::Launch {
    let at = launch.arguments.iter().position(|a| a == "--capture-deadline").expect("the bench sets it");
    launch.arguments.drain(at..at + 2);
    launch
}
