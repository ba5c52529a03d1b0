//! What a real OpenTelemetry Collector is sent.

use std::collections::BTreeSet;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use testkit::clients::{
    cluster::execution,
    collector::{Site, Span},
    history::Record,
    monitor::Launch,
    until,
};

use crate::support::{
    Bench, LIMIT, expect,
    status::{self, FINISHED_AT, NODE, STARTED_AT},
};

const PARENTS: [&str; 2] = [
    "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
    "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
];

fn sending(bench: &Bench, site: &Site, instance: &str) -> Result<Launch> {
    let launch = bench.launch.clone().relocated()?.set("--identity", &format!("{}-{instance}", bench.app));
    Ok(launch
        .variable("OTEL_EXPORTER_OTLP_ENDPOINT", &site.endpoint())
        .variable("OTEL_METRIC_EXPORT_INTERVAL", "200")
        .variable("OTEL_BLRP_SCHEDULE_DELAY", "200"))
}

fn site(bench: &Bench) -> Result<Site> {
    Site::new(&bench.endpoints.run_dir.join(format!("{}-collector", bench.app)))
}

/// A pod that runs, whose maker may have named a span.
async fn traced(bench: &Bench, id: &str, variable: Option<&str>, annotation: Option<&str>) -> Result<String> {
    let mut pod = execution(&bench.app, id, "true");
    pod["spec"]["nodeName"] = NODE.into();
    if let Some(parent) = variable {
        pod["spec"]["containers"][0]["env"] =
            json!([{ "name": "HOME", "value": "/" }, { "name": "TRACEPARENT", "value": parent }]);
    }
    if let Some(parent) = annotation {
        pod["metadata"]["annotations"] = json!({ "traceparent": parent });
    }
    let uid = bench.cluster.create(pod).await?;
    bench.cluster.patch_status(&format!("exec-{id}"), status::running()).await?;
    Ok(uid)
}

fn nanoseconds(time: &str) -> Result<i128> {
    Ok(time.parse::<k8s_openapi::jiff::Timestamp>()?.as_nanosecond())
}

/// Waits until the spans of these pods, as many as are told, have come.
async fn sent(site: &Site, uid: &str, spans: usize) -> Result<Vec<Span>> {
    let look = async || {
        let of_pod = |span: &Span| span.attribute("k8s.pod.uid") == uid && span.name != "capture";
        let found: Vec<Span> = site.spans()?.into_iter().filter(of_pod).collect();
        Ok((found.len() >= spans).then_some(found))
    };
    until(LIMIT, &format!("{spans} spans of pod {uid} arrive"), look).await
}

/// One span for the execution, below the parent that its pod named, and below it one for each event, whose id stands in
/// the event's header.
fn whole(spans: &[Span], told: &[Record], parent: Option<&str>) -> Result<()> {
    let own: Vec<&Span> = spans.iter().filter(|span| span.name == "execution").collect();
    let [own] = own[..] else { anyhow::bail!("{} spans of the execution", own.len()) };
    let times = (nanoseconds(STARTED_AT)?, nanoseconds(FINISHED_AT)?);
    ensure!(own.times == times, "the kubelet's times: {own:?}");
    let parts: Vec<&str> = parent.map(|parent| parent.split('-').collect()).unwrap_or_default();
    let of_parent = |at: usize| parts.get(at).copied();
    ensure!(own.parent_span_id == of_parent(2).unwrap_or_default(), "{own:?}");
    ensure!(of_parent(1).is_none_or(|trace| trace == own.trace_id), "{own:?}");
    for record in told {
        let header = record.headers.get("traceparent").context("a traceparent in the header")?;
        let of_event: Vec<&Span> =
            spans.iter().filter(|s| *header == format!("00-{}-{}-01", s.trace_id, s.span_id)).collect();
        let [span] = of_event[..] else { anyhow::bail!("{header} names {} spans", of_event.len()) };
        ensure!(span.parent_span_id == own.span_id && span.trace_id == own.trace_id, "{span:?} is not below {own:?}");
        ensure!(span.name == format!("send {}", record.topic) && span.json["kind"] == 4, "{span:?}");
        let told = [
            ("messaging.system", "kafka"),
            ("messaging.destination.name", &record.topic),
            ("messaging.operation.type", "send"),
            ("messaging.kafka.message.key", &record.key),
            ("messaging.message.id", record.text("event_id")),
        ];
        for (key, value) in told {
            ensure!(span.attribute(key) == value, "{key}: {span:?}");
        }
    }
    Ok(())
}

#[tokio::test]
async fn an_execution_is_one_trace_whole_across_a_killed_leader() -> Result<()> {
    let bench = Bench::new("traced").await?;
    let site = site(&bench)?;
    let _collector = site.start().await?;
    let mut first = sending(&bench, &site, "first")?.start()?;
    first.leading(LIMIT).await?;
    let mut second = sending(&bench, &site, "second")?.start()?;
    second.ready(LIMIT).await?;
    let mut history = bench.history()?;
    // A variable wins over an annotation, a pod without either begins a trace.
    let pods = [
        ("a", traced(&bench, "a", Some(PARENTS[0]), Some(PARENTS[1])).await?, Some(PARENTS[0])),
        ("b", traced(&bench, "b", Some("nonsense"), Some(PARENTS[1])).await?, Some(PARENTS[1])),
        ("c", traced(&bench, "c", None, None).await?, None),
    ];
    for (_, uid, _) in &pods {
        expect(&mut history, uid, &["pod_scheduled", "execution_running"]).await?;
        sent(&site, uid, 2).await?;
    }
    first.kill()?;
    second.leading(LIMIT).await?;
    for (id, ..) in &pods {
        bench.end(id, i32::from(*id == "c")).await?;
    }
    for (id, uid, parent) in &pods {
        let end = if *id == "c" { "execution_failed" } else { "execution_completed" };
        let told = expect(&mut history, uid, &["pod_scheduled", "execution_running", end]).await?;
        let spans = sent(&site, uid, 4).await?;
        whole(&spans, &told, *parent).with_context(|| format!("pod {id}: {spans:#?}"))?;
        let by: BTreeSet<&str> = spans.iter().map(|span| span.instance.as_str()).collect();
        ensure!(by.len() == 2, "both leaders' spans stand in it: {by:?}");
        let failed = spans.iter().any(|span| span.json["status"]["code"] == 2);
        ensure!(failed == (*id == "c"), "what failed is an error, and nothing else is: {spans:#?}");
    }
    hand_over(&site, &format!("{}-second", bench.app)).await?;
    ensure!(second.stop(LIMIT).await?.code() == Some(0), "asked to stop");
    bench.close().await
}

/// The successor's take-over is a trace of its own, with its legs below it.
async fn hand_over(site: &Site, instance: &str) -> Result<()> {
    let look = async || {
        let spans: Vec<Span> = site.spans()?.into_iter().filter(|span| span.instance.starts_with(instance)).collect();
        let Some(whole) = spans.iter().find(|span| span.name == "take over") else { return Ok(None) };
        let below = |span: &&Span| span.trace_id == whole.trace_id && span.parent_span_id == whole.span_id;
        let legs: BTreeSet<&str> = spans.iter().filter(below).map(|span| span.name.as_str()).collect();
        let wanted = ["noticed", "acquire", "fence", "barrier", "restore", "reconcile", "first commit"];
        Ok(wanted.iter().all(|leg| legs.contains(leg)).then_some(()))
    };
    until(LIMIT, "the take-over's trace is whole", look).await
}

#[tokio::test]
async fn metrics_and_log_lines_arrive_as_they_stand_here() -> Result<()> {
    let bench = Bench::new("signals").await?;
    let site = site(&bench)?;
    let _collector = site.start().await?;
    let mut monitor = sending(&bench, &site, "one")?.start()?;
    monitor.leading(LIMIT).await?;
    let mut history = bench.history()?;
    let uid = bench.running("a").await?;
    expect(&mut history, &uid, &["pod_scheduled", "execution_running"]).await?;
    let name = |line: &str| {
        Some(line.strip_prefix("# TYPE ")?.split_once(' ').map(|(name, kind)| (name.to_owned(), kind == "counter")))
    };
    let (_, text) = monitor.get("/metrics")?;
    let shown: BTreeSet<String> = text
        .lines()
        .filter_map(name)
        .flatten()
        .map(|(name, counter)| if counter { format!("{name}_total") } else { name })
        .collect();
    let counted = async || {
        let sent = site.metrics()?;
        let names: BTreeSet<String> = sent.iter().filter_map(|(_, m)| Some(m["name"].as_str()?.to_owned())).collect();
        let told = |metric: &Value| {
            metric["name"] == "pod_monitor_events_total"
                && metric["sum"]["dataPoints"]
                    .as_array()
                    .is_some_and(|points| points.iter().any(|p| p["asDouble"].as_f64() == Some(1.0)))
        };
        Ok((names == shown && sent.iter().any(|(_, metric)| told(metric))).then_some(sent))
    };
    let sent = until(LIMIT, "every metric of /metrics arrives, with the event that was told", counted).await?;
    ensure!(
        sent.iter().all(|(instance, _)| instance.starts_with(&format!("{}-one", bench.app))),
        "each says who sent it"
    );
    let said = async || {
        let logs = site.logs()?;
        let line = |message: &str| logs.iter().find(|(_, line)| line["body"]["stringValue"] == message).cloned();
        Ok(line("serving HTTP").zip(line("took over")))
    };
    let ((_, plain), (_, traced)) = until(LIMIT, "log lines arrive", said).await?;
    ensure!(plain["severityText"] == "INFO" && plain["attributes"].to_string().contains("address"), "{plain}");
    let trace =
        traced["traceId"].as_str().filter(|id| !id.is_empty()).context("a line of a take-over has its trace")?;
    let sent = async || Ok(site.spans()?.into_iter().find(|span| span.name == "take over"));
    let span = until(LIMIT, "the take-over's span arrives", sent).await?;
    ensure!(span.trace_id == trace, "it is the take-over's own: {span:?}");
    ensure!(monitor.stop(LIMIT).await?.code() == Some(0), "asked to stop");
    bench.close().await
}

#[tokio::test]
async fn a_collector_that_goes_away_is_noticed_and_nothing_else_is_lost() -> Result<()> {
    let bench = Bench::new("dark").await?;
    let site = site(&bench)?;
    let collector = site.start().await?;
    let launch = sending(&bench, &site, "one")?;
    let mut monitor = launch.start()?;
    monitor.leading(LIMIT).await?;
    let mut history = bench.history()?;
    collector.kill()?;
    let uid = bench.running("a").await?;
    expect(&mut history, &uid, &["pod_scheduled", "execution_running"]).await?;
    for signal in ["traces", "metrics", "logs"] {
        let failures = format!("pod_monitor_otlp_export_failures_total{{signal=\"{signal}\"}}");
        let look = async || Ok((monitor.metric(&failures)? > 0.0).then_some(()));
        until(LIMIT, &format!("failures of {signal} are counted"), look).await?;
    }
    bench.log_line("telemetry is not arriving; further failures are only counted").await?;
    let _collector = site.start().await?;
    bench.log_line("telemetry is arriving again").await?;
    // What is told from now on arrives; readings of metrics make good what did not.
    let later = bench.running("b").await?;
    expect(&mut history, &later, &["pod_scheduled", "execution_running"]).await?;
    sent(&site, &later, 2).await?;
    let made_good = async || {
        let whole = |metric: &Value| {
            metric["name"] == "pod_monitor_events_total"
                && metric["sum"]["dataPoints"]
                    .as_array()
                    .is_some_and(|points| points.iter().any(|p| p["asDouble"].as_f64() == Some(2.0)))
        };
        Ok(site.metrics()?.iter().any(|(_, metric)| whole(metric)).then_some(()))
    };
    until(LIMIT, "the count of both pods arrives", made_good).await?;
    ensure!(monitor.get("/livez")?.0 == 200, "alive");
    ensure!(monitor.stop(LIMIT).await?.code() == Some(0), "asked to stop");
    bench.close().await
}
