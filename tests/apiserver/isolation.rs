//! What goes wrong in one shard leaves the others alone. Executions are shared by their ids, so that a test chooses who
//! belongs where.

use std::{sync::mpsc, time::Duration};

use anyhow::{Context, Result, ensure};
use rdkafka::{
    ClientConfig,
    producer::{BaseProducer, Producer as _},
};
use serde_json::json;
use testkit::clients::{
    checker::Truth,
    cluster::execution,
    history::{History, Record},
    monitor::Monitor,
    until,
};
use tokio::{net::TcpListener, task::spawn_blocking, time::Instant};

use crate::support::{Bench, LIMIT, expect, faultless, status, told};

const STORY: [&str; 3] = ["pod_scheduled", "execution_running", "execution_completed"];
/// How soon a shard tells an end, whatever another one does.
const SOON: Duration = Duration::from_secs(5);
/// Between two fences by a rival.
const PAUSE: Duration = Duration::from_millis(100);
/// Nodes that hang, and pods of each: as many captures as one shard may begin.
const NODES: usize = 4;
const PODS_EACH: usize = 8;

/// The shard of an execution, of two: FNV-1a and the finalizer of MurmurHash3, on their own.
fn shard(id: &str) -> u64 {
    let fnv = id
        .bytes()
        .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3));
    let mixed = (fnv ^ (fnv >> 33)).wrapping_mul(0xff51_afd7_ed55_8ccd);
    let mixed = (mixed ^ (mixed >> 33)).wrapping_mul(0xc4ce_b9fe_1a85_ec53);
    (mixed ^ (mixed >> 33)) >> 63
}

/// Ids of executions of one shard.
fn ids(of: u64, prefix: &'static str) -> impl Iterator<Item = String> {
    (0..).map(move |n| format!("{prefix}{n}")).filter(move |id| shard(id) == of)
}

/// One replica that leads both shards.
async fn both(bench: &Bench, arguments: &[&str]) -> Result<Monitor> {
    let launch = bench.launch.clone().with(&["--shards", "2", "--shard-by", "execution"]);
    let launch = arguments.chunks(2).fold(launch, |launch, pair| launch.set(pair[0], pair[1]));
    let mut monitor = launch.start()?;
    monitor.ready(LIMIT).await?;
    let look = async || Ok((monitor.metric(r#"pod_monitor_role{role="live"}"#)? == 2.0).then_some(()));
    until(LIMIT, "both shards are live", look).await?;
    Ok(monitor)
}

/// An execution of the other shard begins and ends; gives how long it took until that was told.
async fn tells(bench: &Bench, history: &mut History, id: &str) -> Result<(Truth, Duration)> {
    let uid = bench.running(id).await?;
    let begun = Instant::now();
    bench.end(id, 0).await?;
    expect(history, &uid, &STORY).await?;
    Ok((Truth { uid, expected: STORY.to_vec() }, begun.elapsed()))
}

/// A node whose kubelet takes connections and never says a word.
async fn hung_node(bench: &Bench, name: &str) -> Result<TcpListener> {
    let listener = TcpListener::bind((bench.endpoints.host_address.as_str(), 0)).await?;
    let port = listener.local_addr()?.port();
    let status = json!({ "addresses": [{ "type": "InternalIP", "address": bench.endpoints.host_address }],
        "daemonEndpoints": { "kubeletEndpoint": { "Port": port } } });
    let node = json!({ "apiVersion": "v1", "kind": "Node", "metadata": { "name": name }, "status": status });
    bench.cluster.node(node).await.context("make a node that hangs")?;
    Ok(listener)
}

#[tokio::test(flavor = "multi_thread")]
async fn nodes_that_hang_for_one_shard_hold_up_no_other() -> Result<()> {
    let bench = Bench::new("hung").await?;
    let monitor = both(&bench, &["--capture-deadline", "20s"]).await?;
    let mut history = bench.history()?;
    let (mut held, mut nodes, mut names) = (Vec::new(), Vec::new(), ids(0, "held"));
    for node in 0..NODES {
        let node = format!("{}-{node}", bench.app);
        nodes.push(hung_node(&bench, &node).await?);
        for id in names.by_ref().take(PODS_EACH) {
            let mut pod = execution(&bench.app, &id, "true");
            pod["spec"]["nodeName"] = node.as_str().into();
            held.push(bench.cluster.create(pod).await?);
            bench.cluster.patch_status(&format!("exec-{id}"), status::ended(0)).await?;
        }
    }
    for uid in &held {
        expect(&mut history, uid, &STORY[..2]).await?;
    }
    let mut truth = Vec::new();
    for id in ids(1, "free").take(10) {
        let (one, took) = tells(&bench, &mut history, &id).await?;
        ensure!(took < SOON, "an end of the other shard was told after {took:?}");
        truth.push(one);
    }
    let early: Vec<&String> = held.iter().filter(|uid| told(&history, uid).len() > 2).collect();
    ensure!(early.is_empty(), "those whose nodes hang were told already: nothing was shown");
    let ends = |records: &[Record]| records.iter().filter(|r| r.is_end()).count();
    let all = held.len() + truth.len();
    history.until(2 * LIMIT, "the held ones are told", |records| (ends(records) == all).then_some(())).await?;
    truth.extend(held.into_iter().map(|uid| Truth { uid, expected: STORY.to_vec() }));
    faultless(&history, &truth)?;
    drop((monitor, nodes));
    for node in 0..NODES {
        bench.cluster.remove_node(&format!("{}-{node}", bench.app)).await?;
    }
    bench.close().await
}

/// Fences the producers of a transactional id again and again, until told to stop.
fn rival(servers: &str, id: &str) -> (mpsc::Sender<()>, tokio::task::JoinHandle<u32>) {
    let (servers, id, (stop, stopped)) = (servers.to_owned(), id.to_owned(), mpsc::channel());
    let fencing = spawn_blocking(move || {
        let mut fences = 0;
        // What is fenced learns it when it tells something.
        while stopped.recv_timeout(PAUSE) == Err(mpsc::RecvTimeoutError::Timeout) {
            let mut config = ClientConfig::new();
            config.set("bootstrap.servers", &servers).set("transactional.id", &id);
            let producer: BaseProducer = config.create().expect("a producer");
            if producer.init_transactions(Duration::from_secs(2)).is_ok() {
                fences += 1;
            }
        }
        fences
    });
    (stop, fencing)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_shard_that_is_fenced_again_and_again_holds_up_no_other() -> Result<()> {
    let bench = Bench::new("one-fenced").await?;
    let monitor = both(&bench, &["--cluster-id", "isolation"]).await?;
    let mut history = bench.history()?;
    let id = format!("isolation.{app}.{app}.g1.0", app = bench.app);
    let (stop, rival) = rival(&bench.endpoints.kafka, &id);
    let (mut truth, mut fenced) = (Vec::new(), Vec::new());
    let mut others = ids(0, "fenced");
    let refused = || monitor.metric(r#"pod_monitor_transactions_total{shard="0",verdict="fenced"}"#);
    // Twenty at least; more where the rival is slow to fence.
    for id in ids(1, "free").take(200) {
        if truth.len() >= 20 && refused()? >= 2.0 {
            break;
        }
        let other = others.next().expect("there is no end of them");
        fenced.push(bench.running(&other).await?);
        bench.end(&other, 0).await?;
        let (one, took) = tells(&bench, &mut history, &id).await?;
        ensure!(took < SOON, "an end of the other shard was told after {took:?}");
        truth.push(one);
    }
    drop(stop);
    let fences = rival.await?;
    let refused = refused()?;
    println!("fenced {fences} times, {refused} transactions were refused");
    ensure!(refused >= 2.0, "{fences} fences, but only {refused} transactions were refused: nothing was shown");
    let unhurt = monitor.metric(r#"pod_monitor_transactions_total{shard="1",verdict="fenced"}"#)?;
    ensure!(unhurt == 0.0, "the other shard was fenced {unhurt} times");
    for uid in &fenced {
        expect(&mut history, uid, &STORY).await?;
    }
    truth.extend(fenced.into_iter().map(|uid| Truth { uid, expected: STORY.to_vec() }));
    faultless(&history, &truth)?;
    ensure!(monitor.stop(LIMIT).await?.code() == Some(0), "asked to stop");
    bench.close().await
}

/// As large as the API server takes: annotations of 250 KB, and a message of its end of a megabyte.
#[tokio::test(flavor = "multi_thread")]
async fn an_oversized_pod_holds_up_no_other() -> Result<()> {
    let bench = Bench::new("oversized").await?;
    let monitor = both(&bench, &[]).await?;
    let mut history = bench.history()?;
    let (mut truth, mut large) = (Vec::new(), Vec::new());
    for (id, other) in ids(0, "large").zip(ids(1, "free")).take(5) {
        let mut pod = execution(&bench.app, &id, "true");
        pod["spec"]["nodeName"] = status::NODE.into();
        pod["metadata"]["annotations"] = json!({ "notes": "x".repeat(250_000) });
        large.push(bench.cluster.create(pod).await?);
        let mut ended = status::ended(3);
        ended["containerStatuses"][0]["state"]["terminated"]["message"] = "m".repeat(900_000).into();
        bench.cluster.patch_status(&format!("exec-{id}"), ended).await?;
        let (one, took) = tells(&bench, &mut history, &other).await?;
        ensure!(took < SOON, "an end of the other shard was told after {took:?}");
        truth.push(one);
    }
    let story = ["pod_scheduled", "execution_running", "execution_failed"];
    for uid in &large {
        expect(&mut history, uid, &story).await?;
    }
    truth.extend(large.into_iter().map(|uid| Truth { uid, expected: story.to_vec() }));
    faultless(&history, &truth)?;
    ensure!(monitor.stop(LIMIT).await?.code() == Some(0), "asked to stop");
    bench.close().await
}
