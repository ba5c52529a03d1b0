//! Two replicas, and a leader that is declared dead although it lives, or that cannot get on although it may.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use http::StatusCode;
use testkit::clients::{
    monitor::{Launch, Monitor},
    proxy::Proxy,
    until,
};

use tokio::{io::AsyncWriteExt as _, net::TcpStream, time::interval};

use crate::support::{
    Bench, LIMIT, expect, faultless,
    tamper::{Kind, Tamper},
    truth,
};

const COMPLETED: [&str; 3] = ["pod_scheduled", "execution_running", "execution_completed"];

/// Two replicas; the first of them leads.
async fn two(bench: &Bench, first: &Launch, second: &Launch) -> Result<(Monitor, Monitor)> {
    bench.empty_node()?;
    let mut leader = first.start()?;
    leader.leading(LIMIT).await?;
    let mut standby = second.clone().relocated()?.start()?;
    standby.ready(LIMIT).await?;
    // It attends the leader: what it reports has arrived.
    hears_of(&leader, 1.0).await?;
    Ok((leader, standby))
}

async fn hears_of(leader: &Monitor, standbys: f64) -> Result<()> {
    let attends = async || Ok((leader.metric("pod_monitor_standbys")? == standbys).then_some(()));
    until(LIMIT, &format!("the leader hears of {standbys} standbys"), attends).await
}

async fn leads(monitor: &Monitor, who: &str) -> Result<()> {
    until(3 * LIMIT, who, async || Ok(monitor.is_leading().then_some(()))).await.with_context(|| monitor.log_end())
}

#[tokio::test]
async fn a_wrong_death_notice_costs_a_change_of_hands_and_nothing_else() -> Result<()> {
    let bench = Bench::new("wrong-notice").await?;
    // The others reach it through something that dies in its place.
    let launch = bench.launch.clone();
    let between = Proxy::open("127.0.0.1:0", &launch.address.to_string())?;
    let first = launch.clone().with(&["--advertise", &between.address.to_string()]);
    let (leader, standby) = two(&bench, &first, &launch).await?;
    let mut history = bench.history()?;
    let across = bench.running_there("across").await?;
    expect(&mut history, &across, &COMPLETED[..2]).await?;
    between.die()?;
    leads(&standby, "the other takes over").await?;
    bench.end("across", 0).await?;
    expect(&mut history, &across, &COMPLETED).await?;
    let after = bench.running_there("after").await?;
    bench.end("after", 0).await?;
    expect(&mut history, &after, &COMPLETED).await?;
    ensure!(standby.metric("pod_monitor_leases_taken_total{reason=\"dead\"}")? == 1.0, "by a notice");
    ensure!(leader.metric("pod_monitor_tenures_ended_total{reason=\"lost\"}")? == 1.0, "it was deposed");
    ensure!(leader.get("/livez")?.0 == 200 && !leader.is_leading(), "it lives, and stands by");
    let flush = bench.flush(&mut history, "flush").await?;
    faultless(&history, &[truth(&across, &COMPLETED), truth(&after, &COMPLETED), flush])?;
    for monitor in [standby, leader] {
        ensure!(monitor.stop(LIMIT).await?.code() == Some(0), "asked to stop");
    }
    bench.close().await
}

#[tokio::test]
async fn a_leader_that_cannot_watch_gives_up_to_one_that_can() -> Result<()> {
    let bench = Bench::new("blind").await?;
    let tamper = Tamper::before(&bench.endpoints).await?;
    let kubeconfig = tamper.kubeconfig(&bench.endpoints, &bench.app)?;
    let first = bench.launch.clone().variable("KUBECONFIG", &kubeconfig);
    let (leader, standby) = two(&bench, &first, &bench.launch).await?;
    let mut history = bench.history()?;
    let uid = bench.running_there("a").await?;
    expect(&mut history, &uid, &COMPLETED[..2]).await?;
    // Its Lease can be renewed all the while.
    tamper.refuse(&[Kind::Watch], StatusCode::SERVICE_UNAVAILABLE);
    tamper.close();
    bench.end("a", 0).await?;
    leads(&standby, "the other takes over").await?;
    expect(&mut history, &uid, &COMPLETED).await?;
    ensure!(leader.metric("pod_monitor_tenures_ended_total{reason=\"watch\"}")? == 1.0, "it gave up");
    let flush = bench.flush(&mut history, "flush").await?;
    faultless(&history, &[truth(&uid, &COMPLETED), flush])?;
    for monitor in [standby, leader] {
        ensure!(monitor.stop(LIMIT).await?.code() == Some(0), "asked to stop");
    }
    bench.close().await
}

/// Somebody who is no replica, and reports to this monitor as one that could lead. Ends with the connection only.
async fn pretends(monitor: &Monitor) -> Result<()> {
    let mut stream = TcpStream::connect(monitor.address).await?;
    stream.write_all(b"POST /instance HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n").await?;
    let mut reports = interval(Duration::from_millis(500));
    loop {
        reports.tick().await;
        let report = "lag=0\nkafka=1 peer=nobody rules=\n";
        stream.write_all(format!("{:x}\r\n{report}\r\n", report.len()).as_bytes()).await?;
    }
}

#[tokio::test]
async fn a_stranger_that_pretends_to_stand_by_costs_changes_of_hands_and_no_event() -> Result<()> {
    let bench = Bench::new("stranger").await?;
    bench.empty_node()?;
    // Another than in the test below, which may run beside this one.
    let [_, (at, target), _] = bench.endpoints.kafka_cuts();
    let way = Proxy::open(&at, &target)?;
    let mut leader = bench.launch.clone().set("--kafka", &way.address.to_string()).start()?;
    leader.leading(LIMIT).await?;
    let mut history = bench.history()?;
    let body = async {
        hears_of(&leader, 1.0).await.context("it is believed")?;
        let uid = bench.running_there("a").await?;
        expect(&mut history, &uid, &COMPLETED[..2]).await?;
        ensure!(leader.is_leading(), "who can work goes on");
        // Who cannot gives up to the one that is not there.
        way.cut();
        bench.end("a", 0).await?;
        let gave_up = async || {
            let count = leader.metric("pod_monitor_tenures_ended_total{reason=\"kafka\"}")?;
            Ok((count >= 1.0).then_some(()))
        };
        until(LIMIT, "it gives up", gave_up).await?;
        way.heal();
        leads(&leader, "it takes its shard again, since nobody else does").await?;
        expect(&mut history, &uid, &COMPLETED).await?;
        let flush = bench.flush(&mut history, "flush").await?;
        faultless(&history, &[truth(&uid, &COMPLETED), flush])
    };
    tokio::select! {
        done = body => done?,
        ended = pretends(&leader) => ended.context("its connection ended")?,
    }
    ensure!(leader.stop(LIMIT).await?.code() == Some(0), "asked to stop");
    bench.close().await
}

#[tokio::test]
async fn a_standby_that_does_not_reach_kafka_is_none() -> Result<()> {
    let bench = Bench::new("cut-standby").await?;
    let [(at, target), ..] = bench.endpoints.kafka_cuts();
    let way = Proxy::open(&at, &target)?;
    let second = bench.launch.clone().set("--kafka", &way.address.to_string());
    let (leader, standby) = two(&bench, &bench.launch, &second).await?;
    way.cut();
    hears_of(&leader, 0.0).await.context("cut off")?;
    way.heal();
    hears_of(&leader, 1.0).await.context("healed")?;
    ensure!(leader.is_leading(), "whatever its standby reaches");
    for monitor in [standby, leader] {
        ensure!(monitor.stop(LIMIT).await?.code() == Some(0), "asked to stop");
    }
    bench.close().await
}
