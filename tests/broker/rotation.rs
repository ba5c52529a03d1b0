//! Secrets that are rotated while a monitor leads: nothing is lost or told twice, and the process stays.

use std::{path::Path, time::Duration};

use anyhow::{Result, ensure};
use testkit::clients::{checker::Truth, history::History, monitor::Monitor, until};
use tokio::sync::watch;

use crate::{
    bench::{Bench, LIMIT, faultless, truth, unready},
    kafka::lasts,
    secure::{Guarded, Way},
    security::{allow, another, process},
};

/// Between two pods.
const PACE: Duration = Duration::from_millis(100);
/// The stack's broker lets no connection live longer that does not show its password again (5 s).
const SHOWN_AGAIN: Duration = Duration::from_secs(6);
/// What is told of a pod that runs.
const RUNNING: [&str; 2] = ["pod_scheduled", "execution_running"];

const NOT_YET: &str = "changed kafka properties do not let us in yet";
const NOT_YET_USED: &str = "changed kafka properties do not let us in yet, the old ones stay in use";
pub(crate) const LET_IN: &str = "kafka lets clients with the changed properties in";
pub(crate) const TAKEN: &str = "shard taken over";
const NOT_COMMITTED: &str = "transaction not committed, taking over anew";

/// Pods that begin to run, one after the other, until it is enough.
async fn stream(bench: &Bench, enough: watch::Receiver<bool>) -> Result<Vec<Truth>> {
    let mut truths = Vec::new();
    while !*enough.borrow() {
        let uid = bench.running_there(&format!("n{}", truths.len())).await?;
        truths.push(truth(&uid, &RUNNING));
        lasts(PACE).await;
    }
    Ok(truths)
}

/// Does this while pods begin to run; then everything is told once.
pub(crate) async fn under_a_stream<T>(
    bench: &Bench,
    history: &mut History,
    rotate: impl AsyncFnOnce(&mut History) -> Result<T>,
) -> Result<T> {
    bench.empty_node()?;
    let (stop, stopped) = watch::channel(false);
    let (truths, rotated) = tokio::join!(stream(bench, stopped), async {
        let rotated = rotate(history).await;
        stop.send_replace(true);
        rotated
    });
    let rotated = rotated?;
    let mut truths = truths?;
    truths.push(bench.flush(history, "flush").await?);
    println!("{} pods", truths.len());
    faultless(history, &truths)?;
    Ok(rotated)
}

/// Events go on.
pub(crate) async fn told_on(history: &mut History) -> Result<()> {
    history.read(Duration::from_millis(1))?;
    let told = history.records.len();
    history.until(LIMIT, "events go on", |records| (records.len() > told + 10).then_some(())).await
}

/// How often a log holds this message.
pub(crate) fn times(log: &Path, message: &str) -> Result<usize> {
    Ok(std::fs::read_to_string(log)?.matches(&format!("\"message\":\"{message}")).count())
}

/// Waits until a log holds this message more than so often.
pub(crate) async fn said(log: &Path, message: &str, before: usize) -> Result<()> {
    let look = async || Ok((times(log, message)? > before).then_some(()));
    until(LIMIT, &format!("'{message}', more often than {before} times, in {}", log.display()), look).await
}

/// A monitor that leads, its process, and what it tells.
async fn leading(bench: &Bench, guarded: &Guarded) -> Result<(Monitor, u32, History)> {
    let mut monitor = guarded.launch(&bench.launch).start()?;
    monitor.leading(LIMIT).await?;
    let (pid, history) = (monitor.pid(), bench.history()?);
    Ok((monitor, pid, history))
}

fn same(monitor: &mut Monitor, pid: u32) -> Result<()> {
    ensure!(monitor.try_ended()?.is_none() && monitor.pid() == pid, "the process is the same");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_password_is_rotated_while_a_leader_tells_and_nothing_is_lost_or_doubled() -> Result<()> {
    let (bench, mut guarded) = process("rotated", Way::Password).await?;
    let launch = guarded.launch(&bench.launch);
    let (mut monitor, pid, mut history) = leading(&bench, &guarded).await?;
    let (mut access, user) = (guarded.access(), guarded.user.clone());
    let monitor = under_a_stream(&bench, &mut history, async |history| {
        told_on(history).await?;
        // The broker first: connections go on until they have to show their password again.
        access.set_password(&user, "second")?;
        unready(&monitor, &["[-]kafka", "sasl.password"]).await?;
        guarded.mount_password("second\n");
        monitor.leading(LIMIT).await?;
        told_on(history).await?;
        same(&mut monitor, pid)?;
        // The file first, with another replica standing by.
        let mut standby = another(launch.clone(), "standby")?.start()?;
        standby.ready(LIMIT).await?;
        let before = [NOT_YET, LET_IN, TAKEN].map(|message| times(&monitor.log, message).unwrap());
        guarded.mount_password("third");
        said(&monitor.log, NOT_YET, before[0]).await?;
        said(&standby.log, NOT_YET, 0).await?;
        told_on(history).await?;
        ensure!(monitor.is_leading(), "what works stays in use");
        access.set_password(&user, "third")?;
        said(&monitor.log, LET_IN, before[1]).await?;
        said(&monitor.log, TAKEN, before[2]).await?;
        said(&standby.log, LET_IN, 0).await?;
        lasts(SHOWN_AGAIN).await;
        told_on(history).await?;
        ensure!(monitor.is_leading(), "it never stopped to lead");
        same(&mut monitor, pid)?;
        // What stands by was renewed, too.
        monitor.kill()?;
        standby.leading(LIMIT).await?;
        told_on(history).await?;
        Ok(standby)
    })
    .await?;
    ensure!(monitor.stop(LIMIT).await?.code() == Some(0), "asked to stop");
    bench.close().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_transaction_that_is_held_up_on_an_old_password_is_given_up_and_told_once() -> Result<()> {
    let (bench, mut guarded) = process("held-up", Way::Password).await?;
    let (mut monitor, pid, mut history) = leading(&bench, &guarded).await?;
    let (mut access, user) = (guarded.access(), guarded.user.clone());
    under_a_stream(&bench, &mut history, async |history| {
        told_on(history).await?;
        // Connections show the old password again within seconds, with a transaction on its way.
        access.set_password(&user, "second")?;
        unready(&monitor, &["[-]kafka", "a transaction waits for its end"]).await?;
        guarded.mount_password("second");
        said(&monitor.log, TAKEN, 1).await?;
        told_on(history).await?;
        same(&mut monitor, pid)
    })
    .await?;
    // One that waited until the time of its records was over would say that.
    let all = bench.log()?;
    let given_up: Vec<_> = all.iter().filter(|line| line["message"] == NOT_COMMITTED).collect();
    let why = given_up.iter().map(|line| line["error"].to_string()).collect::<String>();
    ensure!(given_up.len() == 1 && why.contains("outdated kafka properties"), "given up once, for that: {why}");
    ensure!(monitor.stop(LIMIT).await?.code() == Some(0), "asked to stop");
    bench.close().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_is_rotated_while_a_leader_tells_and_nothing_is_lost_or_doubled() -> Result<()> {
    let (bench, mut guarded) = process("renewed", Way::Certificate).await?;
    let successor = format!("{}-next", guarded.user);
    allow(&bench, &guarded, &successor)?;
    let next = guarded.authority().issue(&successor, &[])?;
    let (mut monitor, pid, mut history) = leading(&bench, &guarded).await?;
    under_a_stream(&bench, &mut history, async |history| {
        told_on(history).await?;
        guarded.mount_certificate(&next);
        said(&monitor.log, LET_IN, 0).await?;
        said(&monitor.log, TAKEN, 1).await?;
        // Whoever still came by the old one could do nothing any more.
        guarded.access().take_away(&guarded.user, None)?;
        told_on(history).await?;
        told_on(history).await?;
        ensure!(monitor.is_leading(), "it never stopped to lead");
        same(&mut monitor, pid)
    })
    .await?;
    ensure!(bench.count(NOT_COMMITTED)? == 0, "it was opened anew between two batches");
    ensure!(monitor.stop(LIMIT).await?.code() == Some(0), "asked to stop");
    bench.close().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_successor_without_rights_is_not_made_use_of_until_it_has_them() -> Result<()> {
    let (bench, mut guarded) = process("no-rights", Way::Certificate).await?;
    let successor = format!("{}-next", guarded.user);
    let next = guarded.authority().issue(&successor, &[])?;
    let (mut monitor, pid, mut history) = leading(&bench, &guarded).await?;
    under_a_stream(&bench, &mut history, async |history| {
        told_on(history).await?;
        guarded.mount_certificate(&next);
        // The broker lets it in by TLS; that says nothing of what it may do.
        let why = bench.log_line(NOT_YET_USED).await?["why"].to_string();
        ensure!(why.contains("changelog") && why.contains("kafka-acls.sh"), "it says what mends it: {why}");
        told_on(history).await?;
        ensure!(monitor.is_leading() && times(&monitor.log, TAKEN)? == 1, "what works stays in use");
        allow(&bench, &guarded, &successor)?;
        said(&monitor.log, LET_IN, 0).await?;
        said(&monitor.log, TAKEN, 1).await?;
        told_on(history).await?;
        same(&mut monitor, pid)
    })
    .await?;
    ensure!(bench.count(NOT_COMMITTED)? == 0, "no batch failed for it");
    ensure!(monitor.stop(LIMIT).await?.code() == Some(0), "asked to stop");
    bench.close().await
}
