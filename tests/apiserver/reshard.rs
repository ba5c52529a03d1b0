//! Another number of shards for a monitor that has told something: the story goes on where it was.

use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use testkit::clients::until;

use crate::support::{
    Bench, LIMIT,
    changelog::{newest, plant},
    expect, faultless, truth,
};

const COMPLETED: [&str; 4] = ["pod_scheduled", "execution_running", "execution_completed", "pod_terminated"];

fn reshard(bench: &Bench, arguments: &[&str]) -> Result<Value> {
    let mut command = Command::new(&bench.launch.program);
    command.arg("reshard").args(["--create-topics", "--output", "json"]).args(arguments);
    for flag in ["--kafka", "--events-topic", "--changelog-topic", "--lease-name", "--lease-namespace"] {
        command.args([flag, bench.launch.argument(flag).with_context(|| format!("the launch sets {flag}"))?]);
    }
    command.envs(bench.launch.variables.iter().map(|(name, value)| (name, value))).stdin(Stdio::null());
    let output = command.output().context("run reshard")?;
    ensure!(output.status.success(), "{}: {}", output.status, String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).context("JSON")
}

/// The monitor ends with exit code 2; gives what it said.
async fn refused(bench: &Bench, arguments: &[&str]) -> Result<String> {
    let mut monitor = bench.launch.clone().with(arguments).start()?;
    let status = monitor.ended(LIMIT).await?;
    ensure!(status.code() == Some(2), "{status}: {}", monitor.log_end());
    let said = bench.log()?.into_iter().rfind(|line| line["message"] == "cannot go on").context("it says why")?;
    Ok(said["error"].as_str().unwrap_or_default().to_owned())
}

#[tokio::test]
async fn a_story_goes_on_in_another_number_of_shards_and_back() -> Result<()> {
    let bench = Bench::new("reshard").await?;
    let monitor = bench.monitor(&[]).await?;
    let mut history = bench.history()?;
    let (runs, ends, gone) = (bench.running("runs").await?, bench.running("ends").await?, bench.running("gone").await?);
    bench.end("gone", 0).await?;
    expect(&mut history, &gone, &COMPLETED[..3]).await?;
    bench.delete("gone").await?;
    expect(&mut history, &gone, &COMPLETED).await?;
    for uid in [&runs, &ends] {
        expect(&mut history, uid, &COMPLETED[..2]).await?;
    }
    monitor.stop(LIMIT).await?;
    let said = reshard(&bench, &["--shards", "2"])?;
    ensure!(said["flags"] == "--shards 2 --generation 2", "{said}");
    bench.end("ends", 0).await?;
    let unseen = bench.running("unseen").await?;

    let said = refused(&bench, &[]).await?;
    ensure!(said.contains("resharded to generation 2 with 2 shards: start with --shards 2 --generation 2"), "{said}");
    let said = refused(&bench, &["--generation", "2"]).await?;
    ensure!(said.contains("it has 2 partitions, but there are 1 shards"), "{said}");
    let said = refused(&bench, &["--generation", "3"]).await?;
    ensure!(said.contains("generation 3 has no changelog") && said.contains("--shards 2 --generation 2"), "{said}");

    let monitor = bench.monitor(&["--shards", "2", "--generation", "2"]).await?;
    expect(&mut history, &ends, &COMPLETED[..3]).await?;
    expect(&mut history, &unseen, &COMPLETED[..2]).await?;
    let meanwhile = bench.flush(&mut history, "meanwhile").await?;
    monitor.stop(LIMIT).await?;

    let said = reshard(&bench, &["--shards", "1", "--generation", "2"])?;
    ensure!(said["flags"] == "--shards 1 --generation 3", "{said}");
    let monitor = bench.monitor(&["--generation", "3"]).await?;
    let flush = bench.flush(&mut history, "flush").await?;
    let truths = [
        truth(&runs, &COMPLETED[..2]),
        truth(&ends, &COMPLETED[..3]),
        truth(&gone, &COMPLETED),
        truth(&unseen, &COMPLETED[..2]),
        meanwhile,
        flush,
    ];
    faultless(&history, &truths)?;
    monitor.stop(LIMIT).await?;
    bench.close().await
}

/// As where two shards become one and the other one was behind: the watch begins before what is forgotten.
#[tokio::test]
async fn what_an_old_shard_told_to_the_end_and_forgot_is_not_told_anew() -> Result<()> {
    let bench = Bench::new("reshard-forgotten").await?;
    let forgetful = ["--remember-ended", "0s"];
    let monitor = bench.monitor(&forgetful).await?;
    let mut history = bench.history()?;
    let kept = bench.running("kept").await?;
    let pod = bench.cluster.pod("exec-kept").await?.context("it is there")?;
    let behind: u64 = pod["metadata"]["resourceVersion"].as_str().context("a version")?.parse()?;
    expect(&mut history, &kept, &COMPLETED[..2]).await?;
    let gone = bench.running("gone").await?;
    bench.end("gone", 0).await?;
    expect(&mut history, &gone, &COMPLETED[..3]).await?;
    bench.delete("gone").await?;
    expect(&mut history, &gone, &COMPLETED).await?;
    let (servers, topic) = (bench.endpoints.kafka.clone(), format!("{}.changelog", bench.app));
    let key = format!("pod/{gone}");
    let forgotten = async || Ok((!newest(&servers, &topic)[0].contains_key(&key)).then_some(()));
    until(LIMIT, "it is forgotten", forgotten).await?;
    monitor.stop(LIMIT).await?;

    let mut position: Value = serde_json::from_slice(&newest(&servers, &topic)[0]["meta/position"])?;
    let former = json!({ "shards": { "count": 1, "by": "uid" }, "positions": [position["streams"].clone()] });
    let inherited = json!({ "generations": [former] });
    position["streams"][bench.cluster.namespace()] = json!(behind);
    plant(&servers, &topic, 0, "meta/position", &position.to_string());
    plant(&servers, &topic, 0, "meta/inherited", &inherited.to_string());
    let monitor = bench.monitor(&forgetful).await?;
    let flush = bench.flush(&mut history, "flush").await?;
    faultless(&history, &[truth(&kept, &COMPLETED[..2]), truth(&gone, &COMPLETED), flush])?;
    let spent = async || Ok((!newest(&servers, &topic)[0].contains_key("meta/inherited")).then_some(()));
    until(LIMIT, "what was passed is of no use any more", spent).await?;
    monitor.stop(LIMIT).await?;
    bench.close().await
}
