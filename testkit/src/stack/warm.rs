//! Work done once at build time so that each boot of Kafka is short.
//!
//! A log directory formatted ahead saves one start of Java; a class archive (AppCDS) made by a
//! broker's trial run saves half of the other.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result};

use super::build::{Artifacts, fresh_dir};
use super::files;
use super::process::{ProcessId, Signal, checked, log_tail};
use super::readiness::until;

/// Any fixed id: stacks share nothing by which they could meet.
const CLUSTER_ID: &str = "dg95RfTOQlSb4qHAjTw_jA";

/// The broker's class path, in a fixed order: the class archive holds only for the same one.
pub(crate) fn class_path(artifacts: &Artifacts) -> Result<String> {
    let mut jars = Vec::new();
    for entry in fs::read_dir(artifacts.kafka_libs()).context("list Kafka's libraries")? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "jar") {
            jars.push(path.display().to_string());
        }
    }
    anyhow::ensure!(!jars.is_empty(), "no library in {}", artifacts.kafka_libs().display());
    jars.sort();
    Ok(jars.join(":"))
}

/// Formats an empty log directory at `out`.
pub(crate) fn format(artifacts: &Artifacts, out: &Path) -> Result<()> {
    fresh_dir(out)?;
    let properties = out.with_file_name("format.properties");
    fs::write(&properties, files::kafka_properties("127.0.0.1", "127.0.0.1", out, None))?;
    checked(
        Command::new("java")
            .args(["-cp", &class_path(artifacts)?, "kafka.tools.StorageTool", "format", "-t", CLUSTER_ID, "-c"])
            .arg(&properties),
    )?;
    fs::remove_file(properties)?;
    Ok(())
}

/// Starts a broker in a network namespace without a way out, ends it once it serves, and
/// keeps the classes that it loaded.
pub(crate) fn archive(artifacts: &Artifacts, out: &Path) -> Result<()> {
    let scratch = fresh_dir(&out.with_file_name("trial"))?;
    let data = scratch.join("data");
    copy_dir(&artifacts.kafka_formatted(), &data)?;
    let properties = scratch.join("trial.properties");
    fs::write(&properties, files::kafka_properties("127.0.0.1", "127.0.0.1", &data, None))?;
    let log = scratch.join("log");
    let log_file = fs::File::create(&log)?;
    let mut broker = Command::new("unshare")
        .args(["--net", "--kill-child", "--fork", "--", "sh", "-c", "ip link set lo up && exec \"$@\"", "sh", "java"])
        .arg(format!("-XX:ArchiveClassesAtExit={}", out.display()))
        .args(files::JAVA_QUICK)
        .args(files::JAVA_FLAGS)
        .args(["-cp", &class_path(artifacts)?, "kafka.Kafka"])
        .arg(&properties)
        .stdin(Stdio::null())
        .stdout(log_file.try_clone()?)
        .stderr(log_file)
        .spawn()?;
    let outcome = trial(&mut broker, &log);
    if outcome.is_err() {
        // `--kill-child` takes the broker along.
        broker.kill().context("end the trial broker")?;
    }
    broker.wait()?;
    outcome.with_context(|| format!("trial run of Kafka:\n{}", log_tail(&log, 20)))?;
    anyhow::ensure!(out.exists(), "the trial run left no class archive:\n{}", log_tail(&log, 20));
    fs::remove_dir_all(scratch)?;
    Ok(())
}

fn trial(broker: &mut std::process::Child, log: &Path) -> Result<()> {
    let limit = Duration::from_secs(60);
    until("Kafka's start", limit, || {
        anyhow::ensure!(broker.try_wait()?.is_none(), "the broker ended");
        Ok(fs::read_to_string(log)?.contains("Kafka Server started").then_some(()))
    })?;
    let parent = ProcessId::of(broker.id().cast_signed()).context("the broker's parent ended")?;
    for java in super::process::children(parent.pid)? {
        java.signal(Signal::TERM)?;
    }
    until("Kafka's end", limit, || Ok(broker.try_wait()?.map(|_| ())))
}

/// Copies a directory of plain files and directories.
pub(crate) fn copy_dir(from: &Path, to: &Path) -> Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from).with_context(|| format!("list {}", from.display()))? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            copy_dir(&entry.path(), &target)?;
        } else {
            fs::copy(entry.path(), &target).with_context(|| format!("copy to {}", target.display()))?;
        }
    }
    Ok(())
}
