//! The pod garbage collector of Kubernetes takes finished pods away as soon as there are too many: each is told whole.

use std::{
    fs::File,
    process::{Child, Command, Stdio},
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use testkit::{
    clients::until,
    stack::{Endpoints, Options, Profile, Stack},
};
use tokio::task::spawn_blocking;

use crate::support::{Bench, expect, faultless, truth};

/// Finished pods that are left alone.
const THRESHOLD: usize = 2;
const PODS: usize = 8;
/// It looks every 20 s.
const PATIENCE: Duration = Duration::from_secs(60);

/// A controller manager that does nothing else. Ends with this.
struct Collector(Child);

impl Collector {
    fn start(endpoints: &Endpoints) -> Result<Self> {
        let log = File::create(endpoints.log_dir.join("garbage-collector.log"))?;
        let child = Command::new(endpoints.bin_dir.join("kube-controller-manager"))
            .arg("--kubeconfig")
            .arg(&endpoints.kubeconfig)
            .args(["--controllers=pod-garbage-collector-controller", "--leader-elect=false"])
            .arg(format!("--terminated-pod-gc-threshold={THRESHOLD}"))
            .args(["--bind-address=127.0.0.1", "--secure-port=0"])
            .arg("--cert-dir")
            .arg(&endpoints.run_dir)
            .stdout(Stdio::null())
            .stderr(log)
            .spawn();
        Ok(Self(child.context("start kube-controller-manager")?))
    }
}

impl Drop for Collector {
    fn drop(&mut self) {
        // Both fail only where it has ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[tokio::test]
async fn finished_pods_that_are_collected_are_told_whole() -> Result<()> {
    let kafka = Endpoints::from_env()?.kafka;
    let stack = spawn_blocking(|| Stack::boot(Options::new(Profile::ApiServer))).await??;
    let bench = Bench::on(Endpoints { kafka, ..stack.endpoints().clone() }, "collected").await?;
    let monitor = bench.monitor(&[]).await?;
    let mut history = bench.history()?;
    let collector = Collector::start(stack.endpoints())?;
    let mut uids = Vec::new();
    for n in 0..PODS {
        uids.push(bench.running(&n.to_string()).await?);
        bench.end(&n.to_string(), i32::try_from(n % 2)?).await?;
    }
    let few = async || Ok((bench.cluster.names().await?.len() <= THRESHOLD).then_some(()));
    until(PATIENCE, "finished pods are collected", few).await?;
    let mut left = bench.cluster.names().await?;
    left.retain(|name| name.starts_with("exec-"));
    ensure!(left.len() == THRESHOLD, "{left:?}");
    let mut truths = Vec::new();
    for (n, uid) in uids.iter().enumerate() {
        let end = if n % 2 == 0 { "execution_completed" } else { "execution_failed" };
        let mut whole = vec!["pod_scheduled", "execution_running", end];
        if !left.contains(&format!("exec-{n}")) {
            whole.push("pod_terminated");
        }
        let told = expect(&mut history, uid, &whole).await?;
        ensure!(told[2].value["exit_code"] == n % 2, "{}", told[2].value);
        truths.push(truth(uid, &whole));
    }
    faultless(&history, &truths)?;
    monitor.stop(crate::support::LIMIT).await?;
    drop(collector);
    bench.close().await
}
