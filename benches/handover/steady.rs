//! Three replicas beside two busy loops: nobody may be declared dead, and no Lease lost.

use std::{
    hint::spin_loop,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use anyhow::{Result, ensure};
use indicatif::ProgressBar;
use testkit::stack::Endpoints;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use crate::{
    cases::{Fault, Plan, Who},
    crew::{Crew, Programs},
    field::{Field, Written},
    legs, results,
};

/// One for each core of the machine that the targets are about.
const LOOPS: usize = 2;
const PLAN: Plan = Plan { who: Who::Ours, fault: Fault::Kill, pods: 1_000, every: Duration::from_millis(100) };
/// Between two looks whether all replicas still run.
const LOOK: Duration = Duration::from_secs(20);

/// Fails when anything changed hands.
pub(crate) async fn run(
    endpoints: &Endpoints,
    programs: &Programs,
    field: &mut Field,
    minutes: u64,
    bar: &ProgressBar,
) -> Result<()> {
    let mut crew = Crew::start(endpoints, programs, &PLAN, field).await?;
    let stop = Arc::new(AtomicBool::new(false));
    let loops: Vec<_> = (0..LOOPS).map(|_| spin(&stop)).collect();
    let (began, limit) = (Instant::now(), Duration::from_secs(minutes * 60));
    while began.elapsed() < limit {
        field.refill().await?;
        let done = CancellationToken::new();
        let (_, written) = tokio::join!(
            async {
                sleep(LOOK.min(limit.saturating_sub(began.elapsed()))).await;
                done.cancel();
            },
            field.write_steadily(PLAN.every, Written::default(), done.clone())
        );
        written?;
        crew.all_run()?;
        bar.set_position(began.elapsed().as_secs());
    }
    stop.store(true, Ordering::Relaxed);
    for busy in loops {
        ensure!(busy.join().is_ok(), "a busy loop panicked");
    }
    let logs = crew.logs()?;
    let (notices, ended) = (legs::count(&logs, "holder is dead"), legs::count(&logs, "tenure ended"));
    let acquired = legs::count(&logs, "lease acquired");
    println!(
        "{minutes} minutes beside {LOOPS} busy loops, commit {}: {notices} false death notices, {ended} lost Leases, \
         {acquired} acquired (the first is the start)",
        results::commit()
    );
    crew.stop().await?;
    ensure!(notices == 0 && ended == 0 && acquired == 1, "the Lease must not change hands without a reason");
    Ok(())
}

fn spin(stop: &Arc<AtomicBool>) -> thread::JoinHandle<()> {
    let stop = Arc::clone(stop);
    thread::spawn(move || {
        while !stop.load(Ordering::Relaxed) {
            spin_loop();
        }
    })
}
