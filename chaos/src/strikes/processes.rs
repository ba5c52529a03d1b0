//! Faults of the monitor's own processes.

use std::time::Duration;

use anyhow::{Result, bail, ensure};
use testkit::stack::Signal;

use crate::crew::{Crew, JUMPER, LIMIT};

/// Steps of a take-over at which a successor dies (src/failpoint.rs).
pub(crate) const TAKING_OVER: [&str; 10] = [
    "acquired",
    "shot",
    "fenced",
    "barrier",
    "restored",
    "watching",
    "reconciled",
    "first_commit",
    "sent",
    "committed",
];
/// Steps of a hand-over at which the leader dies.
pub(crate) const HANDING_OVER: [&str; 2] = ["drained", "released"];
/// How often a leader is killed at most until a certain replica leads.
const TRIES_MAX: usize = 12;
/// All replicas are down for so long: pods end and are deleted meanwhile.
const ALL_DOWN: Duration = Duration::from_millis(1500);
/// A clock stays wrong for so long: several renewals of the Lease.
const CLOCK_WRONG: Duration = Duration::from_secs(3);

pub(super) async fn kill(crew: &mut Crew) -> Result<String> {
    let (index, holder) = crew.leader().await?;
    crew.kill(index).await?;
    crew.leader_but(&holder).await?;
    crew.replicas.restart(index)?;
    Ok(holder)
}

pub(super) async fn terminate(crew: &mut Crew) -> Result<String> {
    let (index, holder) = crew.leader().await?;
    crew.strikes_now();
    let monitor = crew.monitor(index)?;
    monitor.signal(Signal::TERM)?;
    let status = monitor.ended(LIMIT).await?;
    ensure!(status.code() == Some(0), "asked to stop, it ended with {status}\n{}", monitor.log_end());
    crew.leader_but(&holder).await?;
    crew.replicas.restart(index)?;
    Ok(holder)
}

pub(super) async fn freeze(crew: &mut Crew) -> Result<String> {
    let (index, holder) = crew.leader().await?;
    crew.strikes_now();
    crew.monitor(index)?.signal(Signal::STOP)?;
    let next = crew.leader_but(&holder).await;
    // Whatever came of it: a process that stands still cannot be ended.
    crew.monitor(index)?.signal(Signal::CONT)?;
    next.map(|_| holder)
}

pub(super) async fn kill_all(crew: &mut Crew) -> Result<String> {
    let (_, holder) = crew.leader().await?;
    crew.strikes_now();
    crew.kill_all().await?;
    crew.lasts(ALL_DOWN).await;
    crew.restart_all()?;
    crew.leader_but(&holder).await?;
    Ok(format!("{holder} and its standbys, for {ALL_DOWN:?}"))
}

/// The leader is killed, and each of its successors dies at the same step.
pub(super) async fn die_taking_over(crew: &mut Crew) -> Result<String> {
    let (leader, _) = crew.leader().await?;
    let step = crew.decks.taking_over.deal(&mut crew.random);
    // A second shot is needed only where a predecessor died inside a transaction.
    let armed = if step == "shot" { "sent" } else { step };
    let standbys = crew.others(leader);
    for index in &standbys {
        crew.arm(*index, armed)?;
    }
    crew.settle().await?;
    crew.kill(leader).await?;
    for index in &standbys {
        crew.dies(*index, armed).await?;
    }
    if step == "shot" {
        crew.arm(leader, step)?;
        crew.dies(leader, step).await?;
    }
    crew.restart_all()?;
    crew.leader().await?;
    Ok(format!("two successors at {armed}, {step}"))
}

/// A replica that will die while it hands over is made the leader, and asked to stop.
pub(super) async fn die_handing_over(crew: &mut Crew) -> Result<String> {
    let (leader, _) = crew.leader().await?;
    let step = crew.decks.handing_over.deal(&mut crew.random);
    let armed = crew.others(leader)[0];
    crew.arm(armed, step)?;
    crew.settle().await?;
    let holder = lead_by_kills(crew, armed).await?;
    crew.settle().await?;
    crew.strikes_now();
    crew.monitor(armed)?.signal(Signal::TERM)?;
    crew.dies(armed, step).await?;
    crew.leader_but(&holder).await?;
    crew.replicas.restart(armed)?;
    Ok(format!("{holder} at {step}"))
}

/// Kills leaders until this replica leads; its identity.
async fn lead_by_kills(crew: &mut Crew, wanted: usize) -> Result<String> {
    for _ in 0..TRIES_MAX {
        let (leader, holder) = crew.leader().await?;
        if leader == wanted {
            return Ok(holder);
        }
        crew.kill(leader).await?;
        crew.leader_but(&holder).await?;
        crew.replicas.restart(leader)?;
        crew.settle().await?;
    }
    bail!("replica {wanted} never led in {TRIES_MAX} changes of hands")
}

/// An hour ahead for some renewals, and back: a jump in each direction.
pub(super) async fn clock_jump(crew: &mut Crew) -> Result<String> {
    crew.strikes_now();
    crew.set_clock("+3600")?;
    crew.lasts(CLOCK_WRONG).await;
    // It does believe it: a clock that nobody looks at would prove nothing.
    let ahead = crew.monitor(JUMPER)?.clock_ahead()?;
    ensure!(ahead > CLOCK_WRONG * 100, "the clock of r{JUMPER} is ahead by {ahead:?} only");
    crew.set_clock("+0")?;
    crew.lasts(CLOCK_WRONG / 3).await;
    let (leader, _) = crew.leader().await?;
    Ok(format!("of r{JUMPER}, an hour ahead for {CLOCK_WRONG:?}, while r{leader} led"))
}
