//! Kafka that dies and pauses while the monitor runs. It is one of these tests' own.

use std::time::Duration;

use anyhow::{Result, ensure};
use serde_json::Value;
use testkit::{clients::monitor::Monitor, stack::Endpoints};

use crate::{
    kafka::{Kafka, lasts},
    support::{Bench, LIMIT, expect, faultless, ready, truth, unready},
};

const COMPLETED: [&str; 4] = ["pod_scheduled", "execution_running", "execution_completed", "pod_terminated"];
/// Beyond the time of a transaction.
const TOO_LONG: Duration = Duration::from_secs(22);

/// What is logged of Kafka's readiness, split at each return to being ready: one part for each outage.
fn outages(log: &[Value]) -> Vec<Vec<&str>> {
    let mut outages = vec![Vec::new()];
    for line in log.iter().filter(|line| line["component"] == "kafka") {
        match (line["message"].as_str(), outages.last_mut()) {
            (Some("component is ok"), _) => outages.push(Vec::new()),
            (Some("component is not ready"), Some(outage)) => outage.push(line["why"].as_str().unwrap_or_default()),
            _ => {}
        }
    }
    outages.retain(|outage| !outage.is_empty());
    outages
}

/// `/readyz` names Kafka and nothing else, and the process lives on.
async fn names_kafka(monitor: &Monitor) -> Result<()> {
    let said = unready(monitor, &["[-]kafka"]).await?;
    ensure!(said.contains("[+]kubernetes ok"), "{said}");
    ensure!(monitor.get("/livez")?.0 == 200, "an outage is no reason to be killed");
    Ok(())
}

#[tokio::test]
async fn kafka_that_dies_and_pauses_in_mid_run_is_named_once_and_nothing_is_lost() -> Result<()> {
    let kafka = Kafka::take().await?;
    let endpoints = Endpoints { kafka: kafka.endpoints().kafka.clone(), ..Endpoints::from_env()? };
    let bench = Bench::on(endpoints, "kafka-dies").await?;
    bench.empty_node()?;
    let mut monitor = bench.monitor(&[]).await?;
    let mut history = bench.history()?;
    let before = bench.log()?.len();
    let mut truths = Vec::new();
    for round in 0..4 {
        let [ends, goes, born] = ["ends", "goes", "born"].map(|name| format!("{name}-{round}"));
        let (ends_uid, goes_uid) = (bench.running_there(&ends).await?, bench.running_there(&goes).await?);
        expect(&mut history, &ends_uid, &COMPLETED[..2]).await?;
        expect(&mut history, &goes_uid, &COMPLETED[..2]).await?;
        let pauses = round == 3;
        if pauses {
            kafka.pause().await?
        } else {
            kafka.kill().await?
        }
        bench.end(&ends, 0).await?;
        let born_uid = bench.running_there(&born).await?;
        bench.end(&goes, 0).await?;
        bench.delete(&goes).await?;
        if pauses {
            let (named, ()) = tokio::join!(names_kafka(&monitor), lasts(TOO_LONG));
            named?;
            kafka.resume().await?;
        } else {
            names_kafka(&monitor).await?;
            kafka.restart().await?;
        }
        ready(&mut monitor).await?;
        bench.end(&born, 0).await?;
        expect(&mut history, &ends_uid, &COMPLETED[..3]).await?;
        expect(&mut history, &goes_uid, &COMPLETED).await?;
        expect(&mut history, &born_uid, &COMPLETED[..3]).await?;
        truths.extend([truth(&ends_uid, &COMPLETED[..3]), truth(&goes_uid, &COMPLETED)]);
        truths.push(truth(&born_uid, &COMPLETED[..3]));
    }
    truths.push(bench.flush(&mut history, "flush").await?);
    faultless(&history, &truths)?;
    let log = &bench.log()?[before..];
    let outages = outages(log);
    ensure!(outages.len() == 4, "four outages, and no more: {outages:#?}");
    for outage in &outages {
        let mut reasons = outage.clone();
        reasons.sort_unstable();
        reasons.dedup();
        ensure!(reasons.len() == outage.len() && reasons.len() <= 4, "logged again and again: {outage:#?}");
    }
    let ours = |line: &&Value| line["target"].as_str().is_some_and(|target| target.starts_with("pod_monitor"));
    let errors: Vec<&Value> = log.iter().filter(ours).filter(|line| line["level"] == "ERROR").collect();
    ensure!(errors.is_empty(), "an outage mends itself: {errors:#?}");
    ensure!(monitor.stop(LIMIT).await?.code() == Some(0), "asked to stop");
    bench.close().await
}
