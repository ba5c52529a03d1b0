//! A cluster whose store was set back to a backup: what was told stays told, and all that comes after is told.

use anyhow::{Result, ensure};
use serde_json::json;
use testkit::clients::{checker::Truth, history::History, until};

use crate::{
    breakable::{Backup, Breakable},
    support::{Bench, LIMIT, expect, faultless, truth},
};

const COMPLETED: [&str; 4] = ["pod_scheduled", "execution_running", "execution_completed", "pod_terminated"];
const FAILED: [&str; 4] = ["pod_scheduled", "execution_running", "execution_failed", "pod_terminated"];
/// Writes after the backup: more than an API server makes when it starts, so that the store set back is behind.
const WRITES: usize = 400;

/// Pods before and after a backup.
struct Pods {
    /// Runs, in the backup and after it.
    runs: String,
    /// Runs in the backup, and ended after it.
    ends: String,
    /// Ended, in the backup and after it.
    ended: String,
    /// Was made after the backup, and runs.
    lacked: String,
    /// Was made after the backup, and ended.
    lacked_ended: String,
}

/// All of the life before the restore, told by a monitor.
async fn before(own: &Breakable, bench: &Bench, history: &mut History) -> Result<(Pods, Backup)> {
    let (runs, ends, ended) =
        (bench.running("runs").await?, bench.running("ends").await?, bench.running("ended").await?);
    bench.end("ended", 3).await?;
    expect(history, &ended, &FAILED[..3]).await?;
    let backup = own.back_up().await?;
    let (lacked, lacked_ended) = (bench.running("lacked").await?, bench.running("lacked-ended").await?);
    bench.end("ends", 0).await?;
    bench.end("lacked-ended", 0).await?;
    for write in 0..WRITES {
        bench.cluster.patch("exec-runs", json!({ "metadata": { "annotations": { "n": write.to_string() } } })).await?;
    }
    for uid in [&runs, &lacked] {
        expect(history, uid, &COMPLETED[..2]).await?;
    }
    for uid in [&ends, &lacked_ended] {
        expect(history, uid, &COMPLETED[..3]).await?;
    }
    Ok((Pods { runs, ends, ended, lacked, lacked_ended }, backup))
}

/// What must have been told once the monitor has seen the restored store; gives the whole truth.
async fn after(bench: &Bench, history: &mut History, pods: &Pods) -> Result<Vec<Truth>> {
    let told = expect(history, &pods.lacked, &FAILED).await?;
    ensure!(told[2].value["cause"] == "lost" && told[3].value["observed"] == false, "{told:#?}");
    let told = expect(history, &pods.lacked_ended, &COMPLETED).await?;
    ensure!(told[3].value["observed"] == false, "{told:#?}");
    // The backup's pods go on, from versions that are below those they were told at.
    bench.end("runs", 7).await?;
    let told = expect(history, &pods.runs, &FAILED[..3]).await?;
    ensure!(told[2].value["exit_code"] == 7, "{told:#?}");
    bench.end("ends", 0).await?;
    for (id, uid, types) in
        [("runs", &pods.runs, &FAILED), ("ends", &pods.ends, &COMPLETED), ("ended", &pods.ended, &FAILED)]
    {
        bench.delete(id).await?;
        let told = expect(history, uid, types).await?;
        ensure!(told[3].value["observed"] == true, "{told:#?}");
    }
    let fresh = bench.running("fresh").await?;
    bench.end("fresh", 0).await?;
    expect(history, &fresh, &COMPLETED[..3]).await?;
    bench.delete("fresh").await?;
    expect(history, &fresh, &COMPLETED).await?;
    let Pods { runs, ends, ended, lacked, lacked_ended } = pods;
    Ok(vec![
        truth(runs, &FAILED),
        truth(ends, &COMPLETED),
        truth(ended, &FAILED),
        truth(lacked, &FAILED),
        truth(lacked_ended, &COMPLETED),
        truth(&fresh, &COMPLETED),
    ])
}

/// How often it was said that the store was reset.
fn alarms(bench: &Bench) -> Result<usize> {
    let ours = |line: &&serde_json::Value| {
        let said = line["message"].as_str().is_some_and(|text| text.starts_with("the cluster's store was reset"));
        said && line["level"] == "ERROR"
    };
    Ok(bench.log()?.iter().filter(ours).count())
}

#[tokio::test]
async fn a_store_set_back_under_a_running_monitor_is_noticed_and_nothing_is_doubled() -> Result<()> {
    let own = Breakable::take().await?;
    let bench = own.bench("set-back").await?;
    let monitor = bench.monitor(&[]).await?;
    let mut history = bench.history()?;
    let (pods, backup) = before(&own, &bench, &mut history).await?;
    own.restore(backup).await?;
    // Long before the next periodic reconciliation, and before the new store has come as far as the old one.
    let mut truths = after(&bench, &mut history, &pods).await?;
    ensure!(alarms(&bench)? == 1, "said {} times", alarms(&bench)?);
    // It is remembered: nobody says it again.
    monitor.stop(LIMIT).await?;
    let monitor = bench.monitor(&[]).await?;
    truths.push(bench.flush(&mut history, "flush").await?);
    faultless(&history, &truths)?;
    ensure!(alarms(&bench)? == 1, "said {} times", alarms(&bench)?);
    monitor.stop(LIMIT).await?;
    bench.close().await
}

#[tokio::test]
async fn a_store_set_back_while_nobody_ran_is_noticed_at_the_start() -> Result<()> {
    let own = Breakable::take().await?;
    let bench = own.bench("set-back-away").await?;
    let monitor = bench.monitor(&[]).await?;
    let mut history = bench.history()?;
    let (pods, backup) = before(&own, &bench, &mut history).await?;
    monitor.stop(LIMIT).await?;
    own.restore(backup).await?;
    let monitor = bench.monitor(&[]).await?;
    let truths = after(&bench, &mut history, &pods).await?;
    let look = async || Ok((alarms(&bench)? == 1).then_some(()));
    until(LIMIT, "the reset is said once", look).await?;
    // Killed: what the next one reads is what was remembered.
    monitor.kill()?;
    let monitor = bench.monitor(&[]).await?;
    let flush = bench.flush(&mut history, "flush").await?;
    faultless(&history, &[truths, vec![flush]].concat())?;
    ensure!(alarms(&bench)? == 1, "said {} times", alarms(&bench)?);
    monitor.stop(LIMIT).await?;
    bench.close().await
}
