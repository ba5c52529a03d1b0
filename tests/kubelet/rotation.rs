//! Output that a node rotates away while its container runs: who follows has read it before.

use anyhow::{Result, ensure};
use testkit::clients::{history::Record, until};

use crate::{Watched, support::expect};

/// A kubelet looks every 10 s whether a log has become larger than 10 MiB.
const PATIENCE: std::time::Duration = std::time::Duration::from_secs(60);

#[tokio::test]
async fn output_that_is_rotated_away_was_read_before_where_running_logs_are_followed() -> Result<()> {
    let mut w = Watched::new("rotation", &["--follow", "running"]).await?;
    // 12 MB in long lines, and then silence: the node begins a new file meanwhile, perhaps in the midst of it, and its answer
    // would be that little or nothing was printed.
    // Not before somebody reads: what is rotated away sooner is nobody's promise.
    let print = "echo first; until [ -e /tmp/go ]; do sleep 0.1; done; yes $(printf %01000d 7) | head -c 12000000; touch /tmp/printed";
    let script = format!("trap 'exit 0' TERM; {print}; while [ ! -e /tmp/end ]; do sleep 0.2; done");
    let uid = w.pod("rotated", &script, |_| {}).await?;
    expect(&mut w.history, &uid, &["pod_scheduled", "execution_running"]).await?;
    let cluster = w.bench.cluster.clone();
    let endpoints = w.bench.endpoints.clone();
    let exec = |command: &[&str]| {
        let mut kubectl = endpoints.kubectl();
        kubectl.args(["-n", cluster.namespace(), "exec", "exec-rotated", "--"]).args(command).status()
    };
    w.bench.log_line("a log is followed").await?;
    ensure!(exec(&["touch", "/tmp/go"])?.success(), "it was not let go on");
    let printed = async || Ok(exec(&["test", "-e", "/tmp/printed"])?.success().then_some(()));
    until(PATIENCE, "all is printed", printed).await?;
    let rotated = async || Ok((!cluster.log("exec-rotated", "Stdout").await?.contains("first")).then_some(()));
    until(PATIENCE, "its log is rotated", rotated).await?;
    ensure!(exec(&["touch", "/tmp/end"])?.success(), "its end was not asked for");
    let find = |records: &[Record]| records.iter().find(|r| r.text("pod_uid") == uid && r.is_end()).cloned();
    let end = w.history.until(PATIENCE, "its end", find).await?;
    let (text, logs) = (end.text("stdout"), &end.value["logs"]);
    ensure!(text.starts_with("first\n0000") && text.contains("bytes cut"), "{logs}");
    // All that was there when the new file was begun, at 10 MiB with what the runtime writes beside each line.
    let read = logs["stdout_bytes"].as_u64().unwrap_or_default();
    ensure!((9_000_000..=12_000_006).contains(&read), "{logs}");
    w.close().await
}
