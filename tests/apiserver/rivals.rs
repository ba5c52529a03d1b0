//! Two monitors that both believe to be the only one: they share a transactional id.

use std::time::Duration;

use anyhow::{Result, ensure};
use futures::future::try_join_all;
use tokio::time::Instant;

use crate::support::{Bench, LIMIT, expect, faultless, ready, truth};

const COMPLETED: [&str; 4] = ["pod_scheduled", "execution_running", "execution_completed", "pod_terminated"];
/// The alarm comes with the third fence of one of them: after rests of a second, two and four at most, and only where
/// there is something to tell.
const ALARM_MAX: Duration = Duration::from_secs(60);
const ALARM: &str = "fenced again and again: does another monitor run with this id?";

#[tokio::test]
async fn two_monitors_with_one_transactional_id_both_get_on_and_call_for_a_person() -> Result<()> {
    let bench = Bench::new("rivals").await?;
    bench.empty_node()?;
    let launch = bench.launch.clone().with(&["--no-election"]);
    let mut monitors = [launch.start()?, launch.clone().relocated()?.start()?];
    for monitor in &mut monitors {
        ready(monitor).await?;
    }
    let mut history = bench.history()?;
    let mut truths = Vec::new();
    // Whoever is fenced learns it only when there is something to tell.
    let begun = Instant::now();
    for round in 0.. {
        let names: Vec<String> = (0..3).map(|n| format!("{round}-{n}")).collect();
        let uids = try_join_all(names.iter().map(|name| bench.running_there(name))).await?;
        try_join_all(names.iter().map(|name| bench.end(name, 0))).await?;
        try_join_all(names.iter().map(|name| bench.delete(name))).await?;
        for uid in &uids {
            expect(&mut history, uid, &COMPLETED).await?;
            truths.push(truth(uid, &COMPLETED));
        }
        if bench.count(ALARM)? > 0 || begun.elapsed() > ALARM_MAX {
            break;
        }
    }
    ensure!(bench.count(ALARM)? > 0, "nobody was called; {} pods were told", truths.len());
    let alarm = bench.log_line(ALARM).await?;
    let id = alarm["transactional_id"].as_str().unwrap_or_default();
    ensure!(alarm["level"] == "ERROR" && id.contains(&format!(".{}.g1.0", bench.app)), "{alarm:#}");
    let last = bench.flush(&mut history, "last").await?;
    truths.push(last);
    faultless(&history, &truths)?;
    for monitor in monitors {
        ensure!(monitor.get("/livez")?.0 == 200, "it lives on");
        ensure!(monitor.stop(LIMIT).await?.code() == Some(0), "asked to stop");
    }
    bench.close().await
}
