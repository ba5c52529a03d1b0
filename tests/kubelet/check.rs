//! `pod-monitor check --e2e`: a real pod, all the way to Kafka.

use std::{
    io::{BufRead as _, BufReader},
    process::{Child, Command, Output, Stdio},
    sync::mpsc,
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use rustix::process::{Pid, Signal, kill_process};
use testkit::clients::until;

use crate::{
    Watched,
    support::{Bench, LIMIT},
};

fn command(bench: &Bench, more: &[&str]) -> Command {
    let mut command = Command::new(&bench.launch.program);
    command.arg("check").args(&bench.launch.arguments).arg("--e2e").args(more);
    if !more.contains(&"--e2e-image") {
        command.args(["--e2e-image", "localhost/busybox:1"]);
    }
    command.envs(bench.launch.variables.iter().map(|(key, value)| (key, value)));
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

async fn check(bench: &Bench, more: &[&str]) -> Result<(Option<i32>, String)> {
    let Output { status, stdout, stderr } = command(bench, more).output()?;
    ensure!(stderr.is_empty(), "no spinner where there is no terminal: {}", String::from_utf8_lossy(&stderr));
    Ok((status.code(), String::from_utf8(stdout)?))
}

/// Waits until the test's namespace has no pod.
async fn no_pods(bench: &Bench) -> Result<()> {
    let look = async || Ok(bench.cluster.names().await?.is_empty().then_some(()));
    until(LIMIT, "its pod is gone", look).await
}

/// Lines of its output, as they come.
fn lines(child: &mut Child) -> Result<mpsc::Receiver<String>> {
    let (send, lines) = mpsc::sync_channel(1000);
    let output = BufReader::new(child.stdout.take().context("its output is a pipe")?);
    std::thread::spawn(move || output.lines().map_while(Result::ok).try_for_each(|line| send.send(line)));
    Ok(lines)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_goes_all_the_way_to_kafka_and_away_again() -> Result<()> {
    let w = Watched::new("e2e", &[]).await?;
    let (code, said) = check(&w.bench, &[]).await?;
    ensure!(code == Some(0), "{said}");
    for step in ["made in", "it is on node", "pod_scheduled is on Kafka", "execution_completed is on Kafka", "deleted"]
    {
        ensure!(
            said.lines().any(|line| line.starts_with("ok    e2e") && line.contains(step)),
            "{step} is not in {said}"
        );
    }
    println!("{said}");
    no_pods(&w.bench).await?;
    // Of a selector that names no values, with a label of one's own.
    let (code, said) = check(&w.bench, &["--e2e-label", "team=x"]).await?;
    ensure!(code == Some(0), "{said}");
    no_pods(&w.bench).await?;
    w.close().await
}

#[tokio::test(flavor = "multi_thread")]
async fn it_says_where_the_pod_got_stuck_and_takes_it_away() -> Result<()> {
    let mut bench = Bench::new("e2e-stuck").await?;
    bench.cluster.ready_for_pods().await?;
    // The topics are there, and nobody tells anything.
    bench.monitor(&[]).await?.stop(LIMIT).await?;
    let (code, said) = check(&bench, &["--e2e-timeout", "15s"]).await?;
    ensure!(code == Some(1) && said.contains("it ended, and none of its events came"), "{said}");
    ensure!(said.contains("to mend it: see whether a monitor") && said.contains("deleted"), "{said}");
    no_pods(&bench).await?;
    let (code, said) = check(&bench, &["--e2e-timeout", "5s", "--e2e-image", "localhost/absent:1"]).await?;
    ensure!(code == Some(1) && said.contains("it did not start on node") && said.contains("--e2e-image"), "{said}");
    no_pods(&bench).await?;
    let at = bench.launch.arguments.iter().position(|argument| argument == "--namespace").context("it is set")?;
    bench.launch.arguments[at + 1] = "nowhere".to_owned();
    let (code, said) = check(&bench, &["--e2e-timeout", "5s"]).await?;
    ensure!(code == Some(1) && said.contains("the pod cannot be made in namespace nowhere"), "{said}");
    bench.close().await
}

#[tokio::test(flavor = "multi_thread")]
async fn ctrl_c_takes_the_pod_away_too() -> Result<()> {
    let bench = Bench::new("e2e-stop").await?;
    bench.cluster.ready_for_pods().await?;
    bench.monitor(&[]).await?.stop(LIMIT).await?;
    let mut child = command(&bench, &[]).spawn()?;
    let lines = lines(&mut child)?;
    loop {
        let line = lines.recv_timeout(Duration::from_secs(60)).context("the pod is made")?;
        if line.contains("made in") {
            break;
        }
    }
    ensure!(bench.cluster.names().await?.len() == 1, "its pod is there");
    kill_process(i32::try_from(child.id()).ok().and_then(Pid::from_raw).context("a pid")?, Signal::INT)?;
    let ended = async || Ok(child.try_wait()?);
    let status = until(LIMIT, "it ends", ended).await?;
    let rest: Vec<String> = lines.iter().collect();
    ensure!(status.code() == Some(1) && rest.iter().any(|line| line.contains("asked to stop")), "{rest:?}");
    no_pods(&bench).await?;
    bench.close().await
}
