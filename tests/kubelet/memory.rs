//! Pods that print far more than is kept: the memory that a monitor needs for them is bounded.

use anyhow::{Context, Result, ensure};

use crate::Watched;

const PODS: usize = 8;
/// Printed by each, in bytes.
const PRINTED: u64 = 100_000_000;
/// What a monitor may need at most while it captures them, in MiB: its base of some 30, and 5 each.
const PEAK_MIB_MAX: u64 = 100;

/// Largest resident set so far, in MiB.
fn peak_mib(pid: u32) -> Result<u64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).context("VmHWM")?;
    let kib: u64 = line.trim().trim_end_matches("kB").trim().parse()?;
    Ok(kib / 1024)
}

#[tokio::test]
async fn pods_that_print_a_hundred_megabytes_need_little_memory() -> Result<()> {
    let mut w = Watched::new("memory", &["--capture-deadline", "120s"]).await?;
    let base = peak_mib(w.monitor.pid())?;
    // A line of 9 bytes and a newline; quick enough that the node begins no new file meanwhile, mostly.
    let script = format!("yes 123456789 | head -c {PRINTED}");
    let mut uids = Vec::new();
    for n in 0..PODS {
        uids.push(w.script(&n.to_string(), &script).await?);
    }
    let mut sizes = Vec::new();
    for uid in &uids {
        let find = |records: &[testkit::clients::history::Record]| {
            records.iter().find(|r| r.text("pod_uid") == uid && r.is_end()).cloned()
        };
        let end = w.history.until(std::time::Duration::from_secs(240), "a large end", find).await?;
        let logs = &end.value["logs"];
        // What was rotated away meanwhile is not there any more.
        ensure!(logs["status"] == "truncated" && logs["stdout_bytes"].as_u64() <= Some(PRINTED), "{logs}");
        ensure!(end.text("stdout").len() <= 262_144 && end.text("stdout").contains("bytes cut"), "{logs}");
        sizes.push(logs["stdout_bytes"].as_u64().unwrap_or_default() / 1_000_000);
    }
    let peak = peak_mib(w.monitor.pid())?;
    println!("{PODS} pods, MB read of each: {sizes:?}; resident at most: {peak} MiB, before: {base} MiB");
    ensure!(peak <= PEAK_MIB_MAX, "{peak} MiB, before {base} MiB");
    w.close().await
}
