//! An API server that goes away, comes back, or is not there yet. It is one of these tests' own.

use std::{collections::BTreeMap, time::Duration};

use anyhow::{Result, ensure};
use serde_json::Value;
use testkit::clients::{monitor::Monitor, until};

use crate::{
    breakable::Breakable,
    support::{Bench, LIMIT, expect, faultless, proxy::Proxy, ready, truth, unready},
};

const COMPLETED: [&str; 4] = ["pod_scheduled", "execution_running", "execution_completed", "pod_terminated"];
const LOST: [&str; 4] = ["pod_scheduled", "execution_running", "execution_failed", "pod_terminated"];

async fn failed_lists(monitor: &Monitor, at_least: f64) -> Result<()> {
    let failed = || monitor.metric(r#"pod_monitor_lists_total{result="failed"}"#);
    until(LIMIT, "LISTs fail", async || Ok((failed()? >= at_least).then_some(()))).await
}

/// How often each reason for not being ready was logged of the API server.
fn reasons(log: &[Value]) -> BTreeMap<String, usize> {
    let mut reasons = BTreeMap::new();
    let ours = |line: &&Value| line["message"] == "component is not ready" && line["component"] == "kubernetes";
    for line in log.iter().filter(ours) {
        *reasons.entry(line["why"].to_string()).or_default() += 1;
    }
    reasons
}

#[tokio::test]
async fn an_api_server_killed_in_mid_run_is_named_once_and_nothing_is_lost() -> Result<()> {
    let own = Breakable::take().await?;
    let bench = own.bench("killed").await?;
    // LISTs and the watch fail side by side: the worst case for repeated log lines.
    let mut monitor = bench.monitor(&["--reconcile-interval", "1s"]).await?;
    let mut history = bench.history()?;
    let (a, b) = (bench.running("a").await?, bench.running("b").await?);
    expect(&mut history, &a, &COMPLETED[..2]).await?;
    expect(&mut history, &b, &COMPLETED[..2]).await?;
    let before = bench.log()?.len();
    own.kill().await?;
    let said = unready(&monitor, &["[-]kubernetes", "pods"]).await?;
    ensure!(said.contains("[+]kafka ok"), "{said}");
    failed_lists(&monitor, 8.0).await?;
    ensure!(monitor.get("/livez")?.0 == 200, "it lives on");
    own.restart().await?;
    ready(&mut monitor).await?;
    bench.end("a", 0).await?;
    expect(&mut history, &a, &COMPLETED[..3]).await?;
    bench.delete("b").await?;
    let told = expect(&mut history, &b, &LOST).await?;
    ensure!(told[3].value["observed"] == true, "{told:#?}");
    faultless(&history, &[truth(&a, &COMPLETED[..3]), truth(&b, &LOST)])?;
    let log = &bench.log()?[before..];
    let reasons = reasons(log);
    ensure!(reasons.values().all(|times| *times == 1), "logged again and again: {reasons:#?}");
    // Watch and LIST: the connection breaks, is reset, is refused.
    ensure!(reasons.len() <= 6, "too many words for one outage: {reasons:#?}");
    let drift: f64 = ["missed", "behind", "vanished"]
        .iter()
        .map(|kind| monitor.metric(&format!("pod_monitor_reconcile_drift_total{{kind=\"{kind}\"}}")))
        .sum::<Result<f64>>()?;
    ensure!(drift == 0.0, "drift {drift}");
    monitor.stop(LIMIT).await?;
    bench.close().await
}

#[tokio::test]
async fn a_position_that_is_too_old_is_answered_by_a_list() -> Result<()> {
    let own = Breakable::take().await?;
    let bench = own.bench("expired").await?;
    let monitor = bench.monitor(&[]).await?;
    let mut history = bench.history()?;
    let (ends, goes) = (bench.running("ends").await?, bench.running("goes").await?);
    expect(&mut history, &ends, &COMPLETED[..2]).await?;
    expect(&mut history, &goes, &COMPLETED[..2]).await?;
    monitor.stop(LIMIT).await?;
    bench.end("ends", 0).await?;
    bench.end("goes", 0).await?;
    bench.delete("goes").await?;
    let unseen = bench.running("unseen").await?;
    bench.delete("unseen").await?;
    // Its watch cache begins anew: what was before is too old for it.
    own.restart().await?;
    let late = bench.running("late").await?;
    let monitor = bench.monitor(&[]).await?;
    expect(&mut history, &late, &COMPLETED[..2]).await?;
    expect(&mut history, &ends, &COMPLETED[..3]).await?;
    let told = expect(&mut history, &goes, &LOST).await?;
    ensure!(told[2].value["cause"] == "lost" && told[3].value["observed"] == false, "{told:#?}");
    let expired = monitor.metric(r#"pod_monitor_watch_restarts_total{reason="expired"}"#)?;
    ensure!(expired >= 1.0, "this test is about 410, and there was none");
    let flush = bench.flush(&mut history, "flush").await?;
    let truths =
        [truth(&ends, &COMPLETED[..3]), truth(&goes, &LOST), truth(&unseen, &[]), truth(&late, &COMPLETED[..2]), flush];
    faultless(&history, &truths)?;
    monitor.stop(LIMIT).await?;
    bench.close().await
}

#[tokio::test]
async fn an_api_server_that_comes_later_is_waited_for() -> Result<()> {
    let bench = Bench::new("later").await?;
    let proxy = Proxy::closed()?;
    let kubeconfig = proxy.kubeconfig(&bench.endpoints, &bench.app)?;
    let launch = bench.launch.clone().variable("KUBECONFIG", &kubeconfig);
    let mut monitor = launch.start()?;
    let said = unready(&monitor, &["[-]kubernetes", "cannot be reached"]).await?;
    ensure!(said.contains(&proxy.address.to_string()), "does not name the address: {said}");
    ensure!(monitor.get("/livez")?.0 == 200, "waiting is no reason to be killed");
    proxy.open(bench.endpoints.api_server.trim_start_matches("https://"))?;
    ready(&mut monitor).await?;
    let mut history = bench.history()?;
    bench.flush(&mut history, "a").await?;
    let reasons = reasons(&bench.log()?);
    ensure!(reasons.values().all(|times| *times == 1), "logged again and again: {reasons:#?}");
    ensure!(monitor.stop(Duration::from_secs(10)).await?.code() == Some(0), "asked to stop");
    bench.close().await
}

#[tokio::test]
async fn a_monitor_without_api_server_stops_when_asked() -> Result<()> {
    let bench = Bench::new("never").await?;
    let proxy = Proxy::closed()?;
    let kubeconfig = proxy.kubeconfig(&bench.endpoints, &bench.app)?;
    let monitor = bench.launch.clone().variable("KUBECONFIG", &kubeconfig).start()?;
    unready(&monitor, &["[-]kubernetes"]).await?;
    ensure!(monitor.stop(Duration::from_secs(5)).await?.code() == Some(0), "asked to stop");
    bench.close().await
}
