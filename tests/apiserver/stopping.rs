//! A stop that cannot be finished has an end all the same.

use std::{fs::File, process::Command};

use anyhow::{Context, Result, ensure};
use testkit::{clients::until, stack::Signal};

use crate::support::{Bench, LIMIT};

/// Two events of each fill a pipe's 64 KiB more than once.
const PODS: usize = 120;

#[tokio::test]
async fn a_transaction_that_hangs_holds_up_a_stop_for_ten_seconds_and_no_longer() -> Result<()> {
    let bench = Bench::new("stop-hangs").await?;
    let pipe = bench.endpoints.run_dir.join(format!("{}.pipe", bench.app));
    ensure!(Command::new("mkfifo").arg(&pipe).status().context("run mkfifo")?.success(), "no pipe");
    // Held open, and never read: writing to it stands still when it is full.
    let _reader = File::options().read(true).write(true).open(&pipe).context("open the pipe")?;
    let mut launch = bench.launch.clone();
    for flag in ["--kafka", "--events-topic", "--changelog-topic"] {
        let at = launch.arguments.iter().position(|argument| argument == flag).context("the launch sets it")?;
        launch.arguments.drain(at..at + 2);
    }
    launch.arguments.retain(|argument| argument != "--create-topics");
    let mut launch = launch.with(&["--sink", "stdout"]);
    launch.output = Some(pipe);
    let mut monitor = launch.start()?;
    monitor.ready(LIMIT).await?;
    for number in 0..PODS {
        bench.running(&format!("{number}")).await?;
    }
    let came = "pod_monitor_watch_events_total{kind=\"applied\"}";
    let look = async || Ok(monitor.metric(came).is_ok_and(|count| count >= PODS as f64).then_some(()));
    until(LIMIT, "all pods were seen", look).await?;
    monitor.signal(Signal::TERM)?;
    let status = monitor.ended(LIMIT).await.context("it hangs")?;
    ensure!(status.code() == Some(0), "{status}: {}", monitor.log_end());
    // It ended although a thread of it still stood in the write, and it says what it did not wait for.
    bench.log_line("stopped without the verdict on the last transaction; the changelog has it").await?;
    bench.close().await
}
