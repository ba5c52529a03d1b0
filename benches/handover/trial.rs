//! One change of hands under a steady stream of status writes.

use std::{
    collections::HashMap,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use jiff::Timestamp;
use testkit::clients::fault::Random;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use crate::{
    cases::{Case, Fault, Plan},
    crew::Crew,
    field::{Field, Written, lock},
    legs,
    results::{self, Trial},
    seen::{Seen, gap},
};

/// Status writes before the fault; the fault comes at a random moment after that.
const STEADY: usize = 60;
const FAULT_WITHIN: Duration = Duration::from_millis(300);
/// The stream goes on so long after the first new event.
const AFTER: Duration = Duration::from_millis(400);
/// Longest gap.
const GAP_MAX: Duration = Duration::from_secs(60);
/// Longest wait for the rest of the events.
const REST_MAX: Duration = Duration::from_secs(10);
/// Longest wait for a quiet topic.
const QUIET_MAX: Duration = Duration::from_secs(60);

/// What was seen around the fault.
struct Struck {
    fault: Instant,
    /// The same moment on the wall clock, which log lines carry.
    wall: Timestamp,
    /// The first event of a status that was written when the leader was gone.
    first: Instant,
}

/// Measures one, and leaves three replicas that are ready for the next. `None`: the machine was too busy for a steady
/// stream before the fault.
pub(crate) async fn run(
    case: Case,
    plan: &Plan,
    crew: &mut Crew,
    field: &mut Field,
    seen: &Seen,
    random: &mut Random,
) -> Result<Option<Trial>> {
    field.refill().await?;
    seen.quiet(QUIET_MAX).await?;
    let canary = field.write_one().await?;
    seen.first_of(GAP_MAX, |arrival| arrival.uid == canary).await.context("the canary")?;
    seen.clear();
    // Any moment between two renewals, and between two looks of a standby, is as likely as any other.
    sleep(random.between(Duration::ZERO, plan.who.period())).await;
    let leader = crew.leader().await?;
    let load = testkit::machine::load();
    let (written, stop) = (Written::default(), CancellationToken::new());
    let striking = async {
        let struck = strike(plan, crew, leader, (&written, seen), random).await;
        stop.cancel();
        struck
    };
    let (written_all, struck) =
        tokio::join!(field.write_steadily(plan.every, Arc::clone(&written), stop.clone()), striking);
    written_all.context("write statuses")?;
    let struck = struck?;
    let told: HashMap<String, Instant> = lock(&written).clone();
    // Where nothing is remembered, what is missing stays so.
    let rest = if case.is_exact() { REST_MAX } else { Duration::ZERO };
    let (lost, doubled) = seen.complete(&told, rest).await;
    crew.mend(leader, plan.fault).await?;
    let Some(gap) = gap(&seen.all(), struck.fault, struck.first) else { return Ok(None) };
    // Who is asked to stop may tell a little more first.
    let first = if plan.fault == Fault::Term { gap.ended } else { struck.first };
    let first_ms = (first - struck.fault).as_secs_f64() * 1000.0;
    let found = if case.is_exact() { legs::of(&crew.logs_but(leader)?, struck.wall, first_ms)? } else { None };
    Ok(Some(Trial {
        case,
        at: struck.wall.to_string(),
        commit: results::commit(),
        gap_ms: gap.largest.saturating_sub(gap.steady).as_secs_f64() * 1000.0,
        first_ms,
        steady_ms: gap.steady.as_secs_f64() * 1000.0,
        lost,
        doubled,
        legs: found.unwrap_or_default(),
        load,
    }))
}

async fn strike(
    plan: &Plan,
    crew: &mut Crew,
    leader: usize,
    (written, seen): (&Written, &Seen),
    random: &mut Random,
) -> Result<Struck> {
    sleep(plan.every * u32::try_from(STEADY)? + random.between(Duration::ZERO, FAULT_WITHIN)).await;
    let (fault, wall) = (Instant::now(), Timestamp::now());
    crew.strike(leader, plan.fault)?;
    let gone = if plan.fault == Fault::Term { crew.ended(leader).await? } else { fault };
    let new = |uid: &String| lock(written).get(uid).is_some_and(|sent| *sent > gone);
    let first = seen.first_of(GAP_MAX, |arrival| new(&arrival.uid)).await?;
    sleep(AFTER).await;
    Ok(Struck { fault, wall, first })
}
