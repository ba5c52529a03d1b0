//! Pods that are deleted while they run: the node forgets what they printed 1-3 s after their end, so it is followed.

use anyhow::{Result, ensure};
use serde_json::Value;

use crate::{
    Watched,
    support::{LIMIT, expect},
};

/// Deleted at once.
const PODS: usize = 100;
/// Of them, whose whole output must be told.
const WHOLE_MIN: usize = 99;
/// At the same time on the node: it takes 110, and some are not ours.
const WAVE: usize = 50;

/// Prints before it is asked to end and after, then ends by itself: what is printed last is the hardest to get.
fn script(id: &str) -> String {
    format!(
        "trap 'echo last of {id}; echo why >&2; exit 3' TERM; \
         i=0; while [ $i -lt 200 ]; do echo line $i of {id}; i=$((i+1)); done; while true; do sleep 0.1; done"
    )
}

fn printed(id: &str) -> String {
    let lines: String = (0..200).map(|i| format!("line {i} of {id}\n")).collect();
    format!("{lines}last of {id}\n")
}

#[tokio::test]
async fn output_of_pods_deleted_while_they_run_is_told_whole() -> Result<()> {
    let mut w = Watched::new("deleting", &[]).await?;
    let (mut whole, mut broken) = (0, Vec::new());
    for wave in 0..PODS / WAVE {
        let ids: Vec<String> = (0..WAVE).map(|n| format!("{wave}-{n}")).collect();
        let mut uids = Vec::new();
        for id in &ids {
            uids.push(w.pod(id, &script(id), |pod| pod["spec"]["terminationGracePeriodSeconds"] = 20.into()).await?);
        }
        for (id, uid) in ids.iter().zip(&uids) {
            expect(&mut w.history, uid, &["pod_scheduled", "execution_running"]).await?;
            // It has printed what it prints before it is asked to end.
            let last = format!("line 199 of {id}\n");
            let look = async || {
                let log = w.bench.cluster.log(&format!("exec-{id}"), "Stdout").await?;
                Ok(log.ends_with(&last).then_some(()))
            };
            testkit::clients::until(LIMIT, &format!("{id} has printed"), look).await?;
        }
        for id in &ids {
            w.bench.cluster.delete(&format!("exec-{id}"), None).await?;
        }
        for (id, uid) in ids.iter().zip(&uids) {
            let end: Value = w.end(uid).await?.value;
            let told = end["stdout"] == printed(id) && end["stderr"] == "why\n" && end["logs"]["status"] == "complete";
            if told {
                whole += 1;
            } else {
                broken.push(format!("{id}: {} {}", end["logs"], end["cause"]));
            }
        }
    }
    println!("deleted while running: {whole} of {PODS} told whole; the others: {broken:?}");
    ensure!(whole >= WHOLE_MIN, "only {whole} of {PODS} are told whole: {broken:#?}");
    w.close().await
}

#[tokio::test]
async fn killed_pods_tell_what_they_printed() -> Result<()> {
    let mut w = Watched::new("killed", &[]).await?;
    // Does not mind SIGTERM, and prints until it is killed.
    let stubborn = "trap '' TERM; i=0; while true; do echo $i; i=$((i+1)); sleep 0.05; done";
    let uid = w.pod("a", stubborn, |pod| pod["spec"]["terminationGracePeriodSeconds"] = 2.into()).await?;
    expect(&mut w.history, &uid, &["pod_scheduled", "execution_running"]).await?;
    w.bench.cluster.delete("exec-a", None).await?;
    let end = w.end(&uid).await?.value;
    let lines: Vec<&str> = end["stdout"].as_str().unwrap_or_default().lines().collect();
    ensure!(end["exit_code"] == 137 && lines.len() > 20, "{end}");
    ensure!(lines.iter().enumerate().all(|(n, line)| *line == n.to_string()), "{lines:?}");
    ensure!(end["logs"]["status"] == "complete", "{}", end["logs"]);
    w.close().await
}
