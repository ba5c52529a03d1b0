//! Pods that print far more than is kept: the memory that a monitor needs for them is bounded.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use testkit::clients::history::Record;

use crate::{
    Watched,
    support::{LIMIT, expect},
};

const PODS: usize = 8;
/// Printed by each, in bytes.
const PRINTED: u64 = 100_000_000;
/// What a monitor may need at most beyond its base while it reads all of that, in MiB: for each pod what is kept and what
/// is on its way.
const MORE_MIB_MAX: u64 = 30;
/// Of what they print, in bytes, this much must have gone through, else nothing is shown: a busy node rotates logs at 10
/// MiB, and who follows misses files that come and go while it reads.
const READ_MIN: u64 = 100_000_000;

/// Largest resident set so far, in MiB.
fn peak_mib(pid: u32) -> Result<u64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).context("VmHWM")?;
    let kib: u64 = line.trim().trim_end_matches("kB").trim().parse()?;
    Ok(kib / 1024)
}

#[tokio::test]
async fn pods_that_print_a_hundred_megabytes_need_little_memory() -> Result<()> {
    let mut w = Watched::new("memory", &[]).await?;
    // Printed while it is being deleted, so that it is followed; in lines long enough that what a node writes beside each
    // does not count.
    let script = format!(
        "trap 'yes $(printf %01000d 7) | head -c {PRINTED}; exit 0' TERM; echo up; while true; do sleep 0.1; done"
    );
    let mut uids = Vec::new();
    for n in 0..PODS {
        let patient = |pod: &mut serde_json::Value| pod["spec"]["terminationGracePeriodSeconds"] = 600.into();
        uids.push(w.pod(&n.to_string(), &script, patient).await?);
    }
    for (n, uid) in uids.iter().enumerate() {
        expect(&mut w.history, uid, &["pod_scheduled", "execution_running"]).await?;
        let log = async || Ok((w.bench.cluster.log(&format!("exec-{n}"), "Stdout").await? == "up\n").then_some(()));
        testkit::clients::until(LIMIT, "it listens", log).await?;
    }
    let base = peak_mib(w.monitor.pid())?;
    for n in 0..PODS {
        w.bench.cluster.delete(&format!("exec-{n}"), None).await?;
    }
    let mut read = Vec::new();
    for uid in &uids {
        let find = |records: &[Record]| records.iter().find(|r| r.text("pod_uid") == uid && r.is_end()).cloned();
        let end = w.history.until(Duration::from_secs(400), "a large end", find).await?;
        let (logs, text) = (&end.value["logs"], end.text("stdout"));
        ensure!(text.len() <= 262_144 && text.starts_with("up\n00000"), "{logs}");
        ensure!(text.contains("bytes cut") && logs["status"] != "complete", "{logs}");
        read.push(logs["stdout_bytes"].as_u64().unwrap_or_default());
    }
    let peak = peak_mib(w.monitor.pid())?;
    println!("{PODS} pods, bytes read of each: {read:?}; resident at most: {peak} MiB, before: {base} MiB");
    ensure!(read.iter().sum::<u64>() >= READ_MIN, "{read:?}");
    ensure!(peak <= base + MORE_MIB_MAX, "{peak} MiB, before {base} MiB");
    w.close().await
}
