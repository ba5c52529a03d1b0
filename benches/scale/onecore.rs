//! What is measured on the replay rig: how many watch events one core takes, how a churn of short lives lags, and taking
//! over apart from the API server.

use std::{sync::atomic::Ordering, time::Duration};

use anyhow::{Context as _, Result};
use jiff::SignedDuration;
use pod_monitor::{lifecycle::event::EventType, telemetry::Metrics};

use crate::{
    SIZES, bar,
    pods::{ENDED, LIFE_LINES, Life, RUNNING},
    replay::{self, Case, Run, Told},
    results::{Results, Row, Target, median, percentile},
    rig::{Pace, Script},
    told,
};

const ROUNDS: usize = 5;
/// Lives of one round: 9 watch events and 4 domain events each.
const LIVES: usize = 20_000;
const EVENTS_PER_LIFE: usize = 4;
/// Lives a second of the churn.
const CHURN: usize = 1000;
const CHURN_SECONDS: usize = 20;
/// What is remembered for ten minutes, as by default.
const REMEMBERED_SECONDS: usize = 600;
/// The first of them are not counted: everything gets warm.
const CHURN_WARM_UP: usize = 2000;
const BETWEEN_LINES: Duration = Duration::from_millis(150);
const LIMIT: Duration = Duration::from_secs(180);

fn script(listed: usize, lives: usize, pace: Option<Pace>) -> Result<Script> {
    Ok(Script { life: Life::recorded()?, listed, line: RUNNING, lives, first: listed, pace })
}

fn all_told(lives: usize) -> impl Fn(&Told, &Metrics) -> bool {
    move |told, _| told.events.load(Ordering::Relaxed) >= lives * EVENTS_PER_LIFE
}

/// As fast as the rig is read.
pub(crate) fn throughput(results: &mut Results) -> Result<()> {
    let bar = bar(ROUNDS as u64, "rounds");
    let (mut per_core, mut wall) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        let run = replay::run(Case::new(script(0, LIVES, None)?), LIMIT, all_told(LIVES))?;
        let events = (LIVES * LIFE_LINES) as f64;
        per_core.push(events / run.cpu.as_secs_f64());
        wall.push(events / run.wall.as_secs_f64());
        bar.inc(1);
    }
    bar.finish_and_clear();
    let note = format!(
        "{LIVES} recorded lives over loopback HTTP through client, decode, decide, captures and encode, kernel and all; \
         {:.0} events/s by the wall clock; median of {ROUNDS}",
        median(&wall)
    );
    let target = Target::AtLeast(60_000.0);
    results.set(
        "replay",
        vec![Row::new("watch events a second and core, whole worker", target, median(&per_core), "/s", note)],
    )
}

/// A thousand short lives a second: of which each is forgotten as soon as its pod is gone, and beside as many that are gone
/// and remembered as the defaults leave at that rate.
pub(crate) fn churn(results: &mut Results) -> Result<()> {
    let mut rows = churned("1 000 pod lives a second", 0)?;
    rows.extend(churned("the same beside 600 000 that are gone and remembered", CHURN * REMEMBERED_SECONDS)?);
    results.set("churn", rows)
}

fn churned(what: &str, remembered: usize) -> Result<Vec<Row>> {
    let lives = CHURN * CHURN_SECONDS;
    let pace = Pace { per_second: CHURN, between_lines: BETWEEN_LINES };
    let life = Life::recorded()?;
    let record = told::record_of_gone(&life)?;
    let script = Script { first: remembered, ..script(0, lives, Some(pace))? };
    let mut case = Case { keeps_times: true, ..Case::new(script) };
    if remembered > 0 {
        case.restored = Some((&record, remembered));
        // All ended at the same time, long ago: none is to fall due meanwhile.
        case.rules.remember_ended = SignedDuration::from_hours(24 * 365);
    }
    let run = replay::run(case, LIMIT, all_told(lives))?;
    let due = |n: usize, event_type: EventType| {
        let line = match event_type {
            EventType::PodScheduled => 1,
            EventType::ExecutionRunning => RUNNING,
            EventType::PodTerminated => LIFE_LINES - 1,
            // By now the settle grace of its container's end is over.
            EventType::ExecutionCompleted | EventType::ExecutionFailed | EventType::ExecutionTimeout => ENDED,
            EventType::ExecutionStalled | EventType::ExecutionResumed => return None,
        };
        (n >= CHURN_WARM_UP).then(|| Script::due(pace, n, line))
    };
    let lags = replay::lags(&run, remembered..remembered + lives, due)?;
    anyhow::ensure!(lags.len() == (lives - CHURN_WARM_UP) * EVENTS_PER_LIFE, "{} events have a lag", lags.len());
    let Run { wall, cpu, .. } = run;
    let note = format!(
        "{CHURN} lives a second for {CHURN_SECONDS} s: {} watch events, {} captures and {} events a second; N {}",
        CHURN * LIFE_LINES,
        CHURN,
        CHURN * EVENTS_PER_LIFE,
        lags.len()
    );
    let share = 100.0 * cpu.as_secs_f64() / wall.as_secs_f64();
    let row = |of: &str, target, value, unit| Row::new(&format!("{what}: {of}"), target, value, unit, note.clone());
    let lag = "lag from due line to committed event";
    Ok(vec![
        row(&format!("{lag}, p50"), Target::None, percentile(&lags, 0.5), "ms"),
        row(&format!("{lag}, p99"), Target::AtMost(100.0), percentile(&lags, 0.99), "ms"),
        row("of one core", Target::AtMost(100.0), share, "%"),
    ])
}

/// With many pods of which none changed.
pub(crate) fn take_over(results: &mut Results) -> Result<()> {
    let bar = bar((SIZES.len() * ROUNDS) as u64, "take-overs");
    let record = told::record(&Life::recorded()?, RUNNING)?;
    let (mut rows, mut points) = (Vec::new(), Vec::new());
    for pods in SIZES {
        let (mut wall, mut cpu, mut again) = (Vec::new(), Vec::new(), 0);
        for _ in 0..ROUNDS {
            let compared = |_: &Told, metrics: &Metrics| {
                metrics.text().is_ok_and(|text| text.contains("pod_monitor_lists_total{shard=\"0\",result=\"ok\"} 1"))
            };
            let case = Case { restored: Some((&record, pods)), ..Case::new(script(pods, 0, None)?) };
            let run = replay::run(case, LIMIT, compared)?;
            wall.push(run.wall.as_secs_f64());
            cpu.push(run.cpu.as_secs_f64());
            again += run.told.events.load(Ordering::Relaxed);
            bar.inc(1);
        }
        points.push((pods as f64, median(&wall)));
        let target = match pods {
            10_000 => Target::AtMost(0.8),
            100_000 => Target::AtMost(8.0),
            _ => Target::None,
        };
        let note =
            format!("median of {ROUNDS}, one core; {:.2} s of processor time; {again} events told again", median(&cpu));
        rows.push(Row::new(
            &format!("take-over on the replay rig, {pods} unchanged pods"),
            target,
            median(&wall),
            "s",
            note,
        ));
        anyhow::ensure!(again == 0, "{again} events were told again");
    }
    bar.finish_and_clear();
    results.line("take-over: on the replay rig", points)?;
    results.set("reconcile", rows).context("write")
}
