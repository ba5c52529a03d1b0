//! What happened while nobody looked, and what a quiet system finds: nothing.

use anyhow::{Result, ensure};
use testkit::clients::until;

use crate::support::{Bench, LIMIT, expect, faultless, status::NODE, truth};

const COMPLETED: [&str; 4] = ["pod_scheduled", "execution_running", "execution_completed", "pod_terminated"];
const FAILED: [&str; 4] = ["pod_scheduled", "execution_running", "execution_failed", "pod_terminated"];

#[tokio::test]
async fn what_happened_while_nobody_ran_is_told_once_after_the_restart() -> Result<()> {
    let bench = Bench::new("away").await?;
    let monitor = bench.monitor(&[]).await?;
    let mut history = bench.history()?;
    let ends = bench.running("ends").await?;
    let goes = bench.running("goes").await?;
    let lost = bench.running("lost").await?;
    let waits = bench.unscheduled("waits").await?;
    expect(&mut history, &lost, &COMPLETED[..2]).await?;
    expect(&mut history, &goes, &COMPLETED[..2]).await?;
    expect(&mut history, &ends, &COMPLETED[..2]).await?;
    monitor.stop(LIMIT).await?;

    bench.end("ends", 0).await?;
    bench.end("goes", 3).await?;
    bench.delete("goes").await?;
    bench.delete("lost").await?;
    let unseen = bench.running("unseen").await?;
    bench.end("unseen", 0).await?;
    bench.delete("unseen").await?;
    bench.cluster.bind("exec-waits", NODE).await?;
    let monitor = bench.monitor(&[]).await?;

    expect(&mut history, &ends, &COMPLETED[..3]).await?;
    // The watch goes on from the recorded position: the last states come, and the going was seen.
    let told = expect(&mut history, &goes, &FAILED).await?;
    ensure!(told[2].value["exit_code"] == 3 && told[3].value["observed"] == true, "{told:#?}");
    let told = expect(&mut history, &lost, &FAILED).await?;
    ensure!(told[2].value["cause"] == "lost" && told[2].value.get("exit_code").is_none(), "{told:#?}");
    ensure!(told[3].value["observed"] == true, "{told:#?}");
    let told = expect(&mut history, &unseen, &COMPLETED).await?;
    ensure!(told[3].value["observed"] == true, "{told:#?}");
    expect(&mut history, &waits, &COMPLETED[..1]).await?;
    monitor.stop(LIMIT).await?;

    // Once more, and killed: nothing new happened, so nothing is told.
    bench.monitor(&[]).await?.kill()?;
    let monitor = bench.monitor(&[]).await?;
    let flush = bench.flush(&mut history, "flush").await?;
    let truths = [
        truth(&ends, &COMPLETED[..3]),
        truth(&goes, &FAILED),
        truth(&lost, &FAILED),
        truth(&unseen, &COMPLETED),
        truth(&waits, &COMPLETED[..1]),
        flush,
    ];
    faultless(&history, &truths)?;
    drop(monitor);
    bench.close().await
}

#[tokio::test]
async fn a_periodic_reconciliation_of_a_quiet_system_finds_no_drift() -> Result<()> {
    let bench = Bench::new("quiet").await?;
    let monitor = bench.monitor(&["--reconcile-interval", "1s"]).await?;
    let mut history = bench.history()?;
    let runs = || monitor.metric("pod_monitor_reconcile_runs_total");
    let (a, b) = (bench.running("a").await?, bench.running("b").await?);
    bench.end("a", 0).await?;
    expect(&mut history, &a, &COMPLETED[..3]).await?;
    bench.delete("a").await?;
    let before = runs()?;
    let look = async || Ok((runs()? >= before + 2.0).then_some(()));
    // Each waits until the watch has passed its LIST: in a quiet namespace that is the watch's end, every 15 s.
    until(2 * LIMIT, "two comparisons after the last change", look).await?;
    for kind in ["missed", "behind", "vanished"] {
        let found = monitor.metric(&format!("pod_monitor_reconcile_drift_total{{kind=\"{kind}\"}}"))?;
        ensure!(found == 0.0, "{kind}: {found}");
    }
    expect(&mut history, &a, &COMPLETED).await?;
    faultless(&history, &[truth(&a, &COMPLETED), truth(&b, &COMPLETED[..2])])?;
    drop(monitor);
    bench.close().await
}
