//! Kafka that is not there, or not as it must be, when the monitor starts.

use std::time::Duration;

use anyhow::{Result, ensure};
use testkit::clients::{history::create_topic, monitor::Launch};

use crate::support::{Bench, LIMIT, proxy::Proxy, ready, unready};

fn without(launch: &Launch, flag: &str) -> Launch {
    let mut launch = launch.clone();
    launch.arguments.retain(|argument| argument != flag);
    launch
}

/// With another value of a flag that the launch has.
fn with(launch: &Launch, flag: &str, value: &str) -> Launch {
    let mut launch = launch.clone();
    let at = launch.arguments.iter().position(|a| a == flag).expect("Launch::new sets it");
    launch.arguments[at + 1] = value.to_owned();
    launch
}

/// It ends with exit code 2; gives what it said.
async fn refused(bench: &Bench, launch: &Launch) -> Result<String> {
    let mut monitor = launch.start()?;
    let status = monitor.ended(LIMIT).await?;
    ensure!(status.code() == Some(2), "{status}: {}", monitor.log_end());
    Ok(bench.log_line("cannot go on").await?["error"].as_str().unwrap_or_default().to_owned())
}

#[tokio::test]
async fn kafka_that_comes_later_is_waited_for() -> Result<()> {
    let bench = Bench::new("kafka-later").await?;
    let proxy = Proxy::closed()?;
    let launch = with(&bench.launch, "--kafka", &proxy.address.to_string());
    let mut monitor = launch.start()?;
    unready(&monitor, &["[-]kafka", &proxy.address.to_string(), "does not answer"]).await?;
    ensure!(monitor.get("/livez")?.0 == 200, "waiting is no reason to be killed");
    proxy.open(&bench.endpoints.kafka)?;
    ready(&mut monitor).await?;
    let mut history = bench.history()?;
    bench.flush(&mut history, "a").await?;
    ensure!(monitor.stop(Duration::from_secs(5)).await?.code() == Some(0), "asked to stop");
    bench.close().await
}

#[tokio::test]
async fn a_monitor_without_kafka_stops_when_asked() -> Result<()> {
    let bench = Bench::new("kafka-never").await?;
    let proxy = Proxy::closed()?;
    let monitor = with(&bench.launch, "--kafka", &proxy.address.to_string()).start()?;
    unready(&monitor, &["[-]kafka", "does not answer"]).await?;
    ensure!(monitor.stop(Duration::from_secs(8)).await?.code() == Some(0), "asked to stop");
    bench.close().await
}

#[tokio::test]
async fn a_missing_topic_is_an_error_with_the_command_that_makes_it() -> Result<()> {
    let bench = Bench::new("no-topic").await?;
    let said = refused(&bench, &without(&bench.launch, "--create-topics")).await?;
    let command =
        format!("kafka-topics.sh --bootstrap-server {} --create --topic {}.", bench.endpoints.kafka, bench.app);
    ensure!(said.contains(&command) && said.contains("--create-topics"), "{said}");
    bench.close().await
}

#[tokio::test]
async fn a_changelog_that_deletes_is_refused_with_its_mend() -> Result<()> {
    let bench = Bench::new("deletes").await?;
    create_topic(&bench.endpoints.kafka, &format!("{}.changelog", bench.app), 1, &[("cleanup.policy", "delete")])
        .await?;
    let said = refused(&bench, &bench.launch).await?;
    ensure!(said.contains("kafka-configs.sh") && said.contains("cleanup.policy=compact"), "{said}");
    bench.close().await
}

#[tokio::test]
async fn the_changelog_of_another_installation_is_refused() -> Result<()> {
    let bench = Bench::new("foreign").await?;
    let monitor = bench.monitor(&[]).await?;
    ensure!(monitor.stop(Duration::from_secs(5)).await?.code() == Some(0), "asked to stop");
    let said = refused(&bench, &with(&bench.launch, "--lease-name", "somebody-else")).await?;
    ensure!(said.contains("lease-name") && said.contains("somebody-else") && said.contains(&bench.app), "{said}");
    bench.close().await
}
