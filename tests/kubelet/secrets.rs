//! What pods print may hold secrets: it reaches Kafka, and neither our log lines nor spans nor pages.

use anyhow::{Result, ensure};
use testkit::clients::until;

use crate::{
    Watched,
    support::{Bench, LIMIT, expect},
    traces::{Receiver, span_name},
};

/// Printed by no line of ours. Put together by the pod's shell, so that it does not stand in the pod's spec either.
const CANARY: &str = "canary-of-the-mine-4711";
const SHELL: &str = "c=canary-of; c=$c-the-mine; c=$c-4711; ";

#[tokio::test(flavor = "multi_thread")]
async fn output_reaches_no_log_line_no_span_and_no_page() -> Result<()> {
    let (receiver, endpoint) = Receiver::start()?;
    let mut bench = Bench::new("secrets").await?;
    let variables = [("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint.as_str()), ("OTEL_BSP_SCHEDULE_DELAY", "100")];
    bench.launch = variables.iter().fold(bench.launch, |launch, (key, value)| launch.variable(key, value));
    bench.launch = bench.launch.set("--log-level", "trace");
    let mut w = Watched::started(bench, &[]).await?;
    let script = |rest: &str| format!("{SHELL}{rest}");
    let raw = w.script("raw", &script("echo $c; echo $c >&2; exit 3")).await?;
    // Reports that cannot be read: what is said of them must not quote them.
    let json = w.script("json", &script(r#"echo "{\"exit_code\":\"$c\",\"stdout\":[\"$c\"}""#)).await?;
    let framed = w.script("framed", &script(r#"printf "STDOUT 99\n$c""#)).await?;
    let until_asked = script("trap 'echo $c; exit 1' TERM; echo $c; while true; do sleep 0.1; done");
    let deleted = w.script("deleted", &until_asked).await?;
    expect(&mut w.history, &deleted, &["pod_scheduled", "execution_running"]).await?;
    w.bench.cluster.delete("exec-deleted", None).await?;
    for uid in [&raw, &json, &framed, &deleted] {
        let end = w.end(uid).await?.value;
        ensure!(end["stdout"].as_str().is_some_and(|text| text.contains(CANARY)), "else nothing is shown: {end}");
    }
    for name in ["publish", "capture", "follow"] {
        let look = async || Ok(receiver.has(&span_name(name)).then_some(()));
        until(LIMIT, &format!("the span {name} has arrived"), look).await?;
    }
    ensure!(!receiver.has(CANARY.as_bytes()), "a span holds output");
    for path in ["/api/status", "/metrics", "/readyz?verbose", "/livez?verbose", "/"] {
        ensure!(!w.monitor.get(path)?.1.contains(CANARY), "{path} holds output");
    }
    let log = std::fs::read_to_string(&w.bench.launch.log)?;
    ensure!(log.lines().count() > 200 && log.contains("\"level\":\"TRACE\""), "nothing was told at trace level");
    let line = log.lines().find(|line| line.contains(CANARY));
    ensure!(line.is_none(), "a log line holds output: {}", line.unwrap_or_default());
    w.close().await
}
