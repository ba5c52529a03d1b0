//! What it costs to send traces, metrics and log lines: two leaders of the same pods, of which one sends to a real
//! collector. Both see every write, so whatever else the machine does falls on both.

use std::{collections::HashMap, time::Duration};

use anyhow::{Context as _, Result, ensure};
use testkit::{
    clients::{
        cluster::Cluster,
        collector::Site,
        monitor::{Launch, Monitor},
        until,
    },
    stack::Endpoints,
};

use crate::{
    live::{self, Arrivals, Load, Write},
    results::{Results, Row, Target, percentile},
};

const PODS: usize = 6000;
/// Writes a second: about half of what the API server takes.
const RATE: f64 = 200.0;
const START_MAX: Duration = Duration::from_secs(60);
const TELL_MAX: Duration = Duration::from_secs(120);
const STOP_MAX: Duration = Duration::from_secs(20);

struct Leader {
    monitor: Monitor,
    seen: Arrivals,
}

impl Leader {
    async fn start(launch: &Launch, endpoints: &Endpoints) -> Result<Self> {
        let mut monitor = launch.start()?;
        monitor.leading(START_MAX).await?;
        let topic = launch.argument("--events-topic").context("the launch sets its topic")?;
        Ok(Self { monitor, seen: live::arrivals(&endpoints.kafka, topic)? })
    }

    async fn told(&self, event: &str) -> Result<()> {
        let all = async || Ok((live::count(&self.seen, event) >= PODS).then_some(()));
        until(TELL_MAX, &format!("all pods have told {event}"), all).await
    }

    fn seconds(&self) -> Result<f64> {
        live::cpu_seconds(self.monitor.pid())
    }

    /// Milliseconds from when a write was due to its event: p50 and p99.
    fn latency(&self, written: &HashMap<String, Write>) -> [f64; 2] {
        let times = live::latencies(&self.seen, written);
        [0.5, 0.99].map(|share| percentile(&times, share))
    }
}

pub(crate) async fn run(results: &mut Results) -> Result<()> {
    let stack = live::stack()?;
    let endpoints = stack.endpoints().clone();
    let app = format!("otlp-{}", std::process::id());
    let cluster = Cluster::connect(&endpoints, &app).await?;
    let site = Site::new(&endpoints.run_dir.join(&app))?;
    let collector = site.start().await?;
    let silent = live::launch(&endpoints, &app, 0);
    let mut sending = live::launch(&endpoints, &app, 1).variable("OTEL_EXPORTER_OTLP_ENDPOINT", &site.endpoint());
    for flag in ["--lease-name", "--events-topic", "--changelog-topic"] {
        let other = format!("sending-{}", silent.argument(flag).context("the launch sets it")?);
        sending = sending.set(flag, &other);
    }
    let silent = Leader::start(&silent, &endpoints).await?;
    let sending = Leader::start(&sending, &endpoints).await?;
    let pods = live::create(&cluster, &app, 0..PODS).await?;
    for leader in [&silent, &sending] {
        leader.told("pod_scheduled").await?;
    }
    let before = [silent.seconds()?, sending.seconds()?];
    let (written, _) = live::write(&cluster, &pods, Load::Rate(RATE)).await?;
    for leader in [&silent, &sending] {
        leader.told("execution_running").await?;
    }
    let took = [silent.seconds()? - before[0], sending.seconds()? - before[1]];
    for signal in ["traces", "logs"] {
        let dropped = sending.monitor.metric(&format!("pod_monitor_otlp_dropped_total{{signal=\"{signal}\"}}"))?;
        ensure!(dropped == 0.0, "{dropped} of the {signal} found no room: what they would cost is not measured");
    }
    let sent = async || {
        let spans = site.spans()?.iter().filter(|span| span.name.starts_with("send ")).count();
        Ok((spans >= 2 * PODS).then_some(()))
    };
    until(TELL_MAX, "the span of each event has arrived", sent).await?;
    let [[p50, p99], [p50_sending, p99_sending]] = [silent.latency(&written), sending.latency(&written)];
    for leader in [silent, sending] {
        leader.monitor.stop(STOP_MAX).await?;
    }
    collector.kill()?;
    cluster.remove_namespace().await?;
    let per_event = took.map(|seconds| 1e6 * seconds / PODS as f64);
    let note = format!(
        "{RATE:.0} writes/s, one event each; {:.0} and {:.0} us of processor time an event; write -> visible event p50 \
         {p50_sending:.1} and {p50:.1} ms, p99 {p99_sending:.1} and {p99:.1} ms",
        per_event[1], per_event[0]
    );
    let what = "processor time of a leader that sends OTLP by that of one that does not, same writes";
    results.set("otlp", vec![Row::new(what, Target::None, took[1] / took[0], "times", note)])
}
