//! Pods whose ids are not what their maker meant.

use anyhow::{Result, ensure};
use serde_json::json;

use crate::support::{Bench, expect, status};

#[tokio::test]
async fn the_pod_uid_stands_in_for_missing_and_illegal_ids() -> Result<()> {
    let bench = Bench::new("ids").await?;
    let monitor = bench.monitor(&[]).await?;
    let mut history = bench.history()?;
    let missing = || monitor.metric(r#"pod_monitor_missing_ids_total{id="execution"}"#);
    let mut pod = status::unscheduled(&bench.app, "x");
    pod["metadata"] = json!({ "name": "no-id", "labels": { "app": bench.app } });
    let none = bench.cluster.create(pod.clone()).await?;
    bench.cluster.bind("no-id", status::NODE).await?;
    let told = expect(&mut history, &none, &["pod_scheduled"]).await?;
    ensure!(told[0].key == none && told[0].text("aggregate_id") == none, "{told:#?}");
    ensure!(missing()? == 1.0, "counted once: {}", missing()?);

    pod["metadata"] = json!({ "name": "escape", "labels": { "app": bench.app },
        "annotations": { "execution-id": "a\u{1b}[2J\u{1b}]0;owned\u{7}b" } });
    let escape = bench.cluster.create(pod).await?;
    bench.cluster.bind("escape", status::NODE).await?;
    bench.cluster.patch_status("escape", status::running()).await?;
    let told = expect(&mut history, &escape, &["pod_scheduled", "execution_running"]).await?;
    ensure!(told.iter().all(|r| r.key == escape && r.text("execution_id") == escape), "{told:#?}");
    ensure!(missing()? == 2.0, "counted once more: {}", missing()?);
    let warnings = bench.count("illegal execution id: the pod UID stands in")?;
    ensure!(warnings == 1, "warned {warnings} times");
    let log = std::fs::read(&bench.launch.log)?;
    ensure!(!log.contains(&0x1b), "an ESC byte is in the log");
    drop(monitor);
    bench.close().await
}
