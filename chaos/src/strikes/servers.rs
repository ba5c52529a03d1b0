//! Faults of the servers that the monitor depends on.

use std::time::Duration;

use anyhow::{Context, Result, bail};
use testkit::stack::{Component, Signal, Stack};

use crate::crew::Crew;

/// A killed server stays away for so long.
const AWAY: Duration = Duration::from_secs(1);
/// etcd stands still for so long: longer than a leader waits for a renewal.
const STILL: Duration = Duration::from_secs(4);
/// How often the store is compacted until that has an effect.
const COMPACTIONS_MAX: usize = 5;
/// Watches that were told that their position is too old.
const EXPIRED: &str = "pod_monitor_watch_restarts_total{reason=\"expired\"}";
/// etcd's JSON gateway, from inside the stack.
const ETCD: &str = "http://127.0.0.1:2379/v3/kv";

async fn restart(crew: &mut Crew, component: Component) -> Result<()> {
    crew.with_stack(move |stack| stack.kill(component, Signal::KILL)).await?;
    crew.lasts(AWAY).await;
    crew.with_stack(move |stack| stack.restart(component)).await
}

pub(super) async fn kill_api_server(crew: &mut Crew) -> Result<String> {
    restart(crew, Component::KubeApiserver).await?;
    Ok(format!("away for {AWAY:?}"))
}

pub(super) async fn kill_kafka(crew: &mut Crew) -> Result<String> {
    restart(crew, Component::Kafka).await?;
    Ok(format!("away for {AWAY:?}"))
}

pub(super) async fn pause_etcd(crew: &mut Crew) -> Result<String> {
    crew.with_stack(|stack| stack.pause(Component::Etcd)).await?;
    crew.lasts(STILL).await;
    crew.with_stack(|stack| stack.resume(Component::Etcd)).await?;
    Ok(format!("for {STILL:?}"))
}

/// Old versions are forgotten by etcd, and then by the API server: watches that go on from their position are refused.
pub(super) async fn compact(crew: &mut Crew) -> Result<String> {
    for _ in 0..COMPACTIONS_MAX {
        let before = crew.replicas.sum(EXPIRED);
        let revision = crew.with_stack(forget).await?;
        restart(crew, Component::KubeApiserver).await?;
        crew.settle().await?;
        // A watch that is as far as the store just then may go on.
        if crew.replicas.sum(EXPIRED) > before {
            return Ok(format!("up to revision {revision}"));
        }
    }
    bail!("{COMPACTIONS_MAX} compactions, and no watch was told that its position is too old")
}

fn forget(stack: &Stack) -> Result<String> {
    let ask = |call: &str, body: &str| {
        stack.run_inside(&["busybox", "wget", "-q", "-O", "-", "--post-data", body, &format!("{ETCD}/{call}")])
    };
    // Any read tells the present revision.
    let answer: serde_json::Value =
        serde_json::from_str(&ask("range", r#"{"key":"AA=="}"#)?).context("etcd's answer")?;
    let revision = answer["header"]["revision"].as_str().context("etcd tells its revision")?.to_owned();
    ask("compaction", &format!(r#"{{"revision":"{revision}","physical":true}}"#))?;
    Ok(revision)
}
