//! Output that a node rotates away while its container runs: who follows has read it before.

use anyhow::{Context, Result, ensure};
use testkit::clients::{history::Record, until};

use crate::{Watched, support::expect};

/// A kubelet looks every 10 s whether a log has become larger than 10 MiB.
const PATIENCE: std::time::Duration = std::time::Duration::from_secs(60);

#[tokio::test]
async fn output_that_is_rotated_away_was_read_before_where_running_logs_are_followed() -> Result<()> {
    let mut w = Watched::new("rotation", &["--follow", "running"]).await?;
    // 12 MB in long lines, and then silence until the node has begun a new file: its answer would be that nothing was
    // printed.
    let script = "echo first; yes $(printf %01000d 7) | head -c 12000000; while [ ! -e /tmp/end ]; do sleep 0.2; done";
    let uid = w.pod("rotated", &format!("trap 'exit 0' TERM; {script}"), |_| {}).await?;
    expect(&mut w.history, &uid, &["pod_scheduled", "execution_running"]).await?;
    let cluster = w.bench.cluster.clone();
    let empty = async || Ok((!cluster.log("exec-rotated", "Stdout").await?.contains("first")).then_some(()));
    let printed = async || Ok((cluster.log("exec-rotated", "Stdout").await?.len() >= 12_000_000).then_some(()));
    until(PATIENCE, "all is printed", printed).await?;
    until(PATIENCE, "its log is rotated", empty).await?;
    let exec = w
        .bench
        .endpoints
        .kubectl()
        .args(["-n", cluster.namespace(), "exec", "exec-rotated", "--", "touch", "/tmp/end"])
        .status();
    ensure!(exec.context("kubectl exec")?.success(), "its end was not asked for");
    let find = |records: &[Record]| records.iter().find(|r| r.text("pod_uid") == uid && r.is_end()).cloned();
    let end = w.history.until(PATIENCE, "its end", find).await?;
    let (text, logs) = (end.text("stdout"), &end.value["logs"]);
    ensure!(text.starts_with("first\n0000") && text.contains("bytes cut"), "{logs}");
    ensure!(logs["stdout_bytes"] == 12_000_006_u64, "{logs}");
    w.close().await
}
