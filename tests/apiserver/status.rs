//! `pod-monitor status` of real monitors.

use std::{
    process::{Command, Output},
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use rustix::process::Signal;
use serde_json::Value;
use testkit::clients::{
    monitor::{Launch, Monitor},
    until,
};

use crate::{
    rights::{account, grant_with},
    support::{Bench, LIMIT, expect},
};

/// What it says: exit code, standard output, standard error.
async fn status(launch: &Launch, more: &[&str]) -> Result<(Option<i32>, String, String)> {
    let mut command = Command::new(&launch.program);
    command.arg("status").envs(launch.variables.iter().map(|(key, value)| (key, value)));
    for flag in ["--lease-name", "--lease-namespace"] {
        command.args([flag, launch.argument(flag).context("the bench sets it")?]);
    }
    let Output { status, stdout, stderr } = command.args(more).output()?;
    Ok((status.code(), String::from_utf8(stdout)?, String::from_utf8(stderr)?))
}

async fn json(launch: &Launch, more: &[&str]) -> Result<(Option<i32>, Value)> {
    let (code, said, errors) = status(launch, &[&["--output", "json"], more].concat()).await?;
    Ok((code, serde_json::from_str(&said).with_context(|| format!("{said}{errors}"))?))
}

/// One of several monitors of a place.
fn another(launch: &Launch, name: &str) -> Result<Launch> {
    let log = launch.log.with_extension(format!("{name}.log"));
    Ok(Launch { log, ..launch.clone().relocated()? })
}

fn advertised(launch: Launch) -> Launch {
    let address = launch.address.to_string();
    launch.set("--advertise", &address)
}

async fn identity(monitor: &Monitor) -> Result<String> {
    let status: Value = serde_json::from_str(&monitor.get("/api/status")?.1)?;
    Ok(status["identity"].as_str().context("it has one")?.to_owned())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_holder_is_shown_with_what_it_says_and_a_dead_one_is_found_out() -> Result<()> {
    let bench = Bench::new("status").await?;
    bench.empty_node()?;
    let launch = advertised(bench.launch.clone());
    let (code, said, _) = status(&launch, &[]).await?;
    ensure!(
        code == Some(1) && said.contains("nobody: there is no Lease") && said.contains("--lease-namespace"),
        "{said}"
    );
    let mut monitor = launch.start()?;
    monitor.leading(LIMIT).await?;
    let mut history = bench.history()?;
    let uid = bench.running_there("a").await?;
    expect(&mut history, &uid, &["pod_scheduled", "execution_running"]).await?;
    let me = identity(&monitor).await?;
    // It counts its pods now and then.
    let counted = async || {
        let (code, found) = json(&launch, &[]).await?;
        Ok((found["shards"][0]["tracked_pods"] == 1).then_some((code, found)))
    };
    let (code, found) = until(LIMIT, "the pod is counted", counted).await?;
    let shard = &found["shards"][0];
    ensure!(code == Some(0) && found["held"] == true && shard["holder"] == me.as_str(), "{found:#}");
    ensure!(shard["role"] == "live" && shard["tracked_pods"] == 1 && shard["term"] == 1, "{found:#}");
    ensure!(shard["since"].is_string() && shard.get("lag_records").is_none(), "{found:#}");
    ensure!(found["replicas"][0]["ready"] == true, "{found:#}");
    let mut standby = another(&launch, "standby")?.start()?;
    standby.ready(LIMIT).await?;
    let (address, second) = (standby.address.to_string(), identity(&standby).await?);
    // No Lease names it where there is one shard, but the holder hears of it, and how far behind it is.
    let heard = async || {
        let (_, said, _) = status(&launch, &[]).await?;
        let lag = said.lines().nth(1).and_then(|row| row.split_whitespace().nth(5));
        let known = said.lines().any(|line| line.starts_with(&second) && line.contains("stands by"));
        Ok((known && lag == Some("0")).then_some(()))
    };
    until(LIMIT, "the holder has heard of the standby", heard).await?;
    // Named by hand it says all of it; how far behind it is it learns once a second.
    let behind = async || {
        let (code, said, errors) = status(&launch, &["--replica", &address]).await?;
        ensure!(code == Some(0) && errors.is_empty(), "{said}{errors}");
        let row = said.lines().nth(1).unwrap_or_default().split_whitespace().take(7).map(str::to_owned);
        Ok((row.collect::<Vec<_>>() == ["0", me.as_str(), "live", "1", "0", "0", "1"]).then_some(said))
    };
    let said = until(LIMIT, "the row says all of it", behind).await?;
    ensure!(said.contains(&address) && said.matches("ready").count() == 2, "{said}");
    // Frozen, and the standby too: nobody renews, although the Lease still names somebody.
    standby.signal(Signal::STOP)?;
    monitor.signal(Signal::STOP)?;
    // For as long as its last renewal is fresh it is the holder.
    let silent = async || {
        let (code, found) = json(&launch, &[]).await?;
        Ok((code == Some(1) && found["shards"][0]["silent"] == true).then_some(found))
    };
    let found = until(LIMIT, "it is found out", silent).await?;
    ensure!(found["shards"][0]["holder"] == me.as_str() && found["held"] == false, "{found:#}");
    ensure!(found["replicas"][0]["error"].is_string(), "{found:#}");
    monitor.signal(Signal::CONT)?;
    standby.signal(Signal::CONT)?;
    let held = async || Ok(json(&launch, &[]).await?.1["held"].as_bool().filter(|held| *held));
    until(LIMIT, "somebody leads again", held).await?;
    monitor.stop(LIMIT).await?;
    standby.stop(LIMIT).await?;
    let (code, said, _) = status(&launch, &[]).await?;
    ensure!(code == Some(1) && said.contains("nobody") && said.contains("1 of 1 shards have no holder"), "{said}");
    bench.close().await
}

#[tokio::test(flavor = "multi_thread")]
async fn several_shards_are_shown_with_all_replicas_that_their_leases_name() -> Result<()> {
    let bench = Bench::new("status-shards").await?;
    let launch = advertised(bench.launch.clone().set("--shards", "3"));
    let mut monitors = vec![launch.start()?];
    monitors[0].ready(LIMIT).await?;
    let second = another(&launch, "second")?;
    monitors.push(advertised(second).start()?);
    monitors[1].ready(LIMIT).await?;
    let shared = async || {
        let (code, found) = json(&launch, &[]).await?;
        let shards = found["shards"].as_array().cloned().unwrap_or_default();
        let holders: std::collections::BTreeSet<&str> = shards.iter().filter_map(|s| s["holder"].as_str()).collect();
        let live = shards.iter().filter(|shard| shard["role"] == "live" && shard["lag_records"].is_u64()).count();
        let replicas = found["replicas"].as_array().map_or(0, Vec::len);
        Ok((code == Some(0) && holders.len() == 2 && live == 3 && replicas == 2).then_some(found.clone()))
    };
    let found = until(LIMIT, "both lead some of three shards, and are shown", shared).await?;
    ensure!(found["replicas"].as_array().is_some_and(|all| all.iter().all(|r| r["ready"] == true)), "{found:#}");
    let (_, more) = json(&launch, &["--shards", "4"]).await?;
    ensure!(more["held"] == false && more["shards"][3]["held"] == false, "{more:#}");
    for monitor in monitors {
        monitor.stop(LIMIT).await?;
    }
    bench.close().await
}

#[tokio::test(flavor = "multi_thread")]
async fn the_monitors_own_rights_are_enough_and_fewer_are_named() -> Result<()> {
    let bench = Bench::new("status-rights").await?;
    let kubeconfig = account(&bench).await?;
    let launch = bench.launch.clone();
    let mut monitor = launch.start()?;
    monitor.leading(LIMIT).await?;
    let launch = launch.variable("KUBECONFIG", &kubeconfig);
    let (code, _, errors) = status(&launch, &[]).await?;
    ensure!(
        code == Some(1) && errors.contains("the API server refuses") && errors.contains("kubectl create role"),
        "{errors}"
    );
    grant_with(&bench, &["get"], &["pods"], &["list"]).await?;
    let look = async || Ok((status(&launch, &[]).await?.0 == Some(0)).then_some(()));
    until(Duration::from_secs(20), "the right is there", look).await?;
    // As deploy/kustomize gives it: by name.
    grant_named(&bench).await?;
    let named = async || {
        let (code, said, _) = status(&launch, &[]).await?;
        Ok((code == Some(0) && said.contains(&identity(&monitor).await?)).then_some(()))
    };
    until(Duration::from_secs(20), "one Lease by its name", named).await?;
    monitor.stop(LIMIT).await?;
    bench.close().await
}

/// Nothing but `list` on the Lease of shard 0.
async fn grant_named(bench: &Bench) -> Result<()> {
    let rule = serde_json::json!({ "apiGroups": ["coordination.k8s.io"], "resources": ["leases"], "verbs": ["list"],
        "resourceNames": [format!("{}-0", bench.app)] });
    crate::rights::grant_rules(bench, vec![rule]).await
}
