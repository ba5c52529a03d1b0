//! Metrics by OTLP: what `/metrics` shows, read at intervals and sent as it stands there. One source of truth: a number
//! that a scrape finds and one that was pushed are the same. All sums are cumulative, so that a reading which did not
//! arrive is made good by the next one, and nothing is kept for it.

use std::{
    collections::BTreeMap,
    sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel},
    thread::{self, JoinHandle},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use opentelemetry_proto::tonic::{
    collector::metrics::v1::ExportMetricsServiceRequest,
    common::v1::{AnyValue, InstrumentationScope, KeyValue, any_value::Value},
    metrics::v1::{
        AggregationTemporality, Gauge, Histogram, HistogramDataPoint, Metric, NumberDataPoint, ResourceMetrics,
        ScopeMetrics, Sum, metric::Data, number_data_point,
    },
    resource::v1::Resource,
};
use prost::Message as _;

use super::{Error, SERVICE_NAME, Signal, counted::Arrival, endpoint::Push};
use crate::telemetry::Metrics;

/// The thread that sends. Ended by [`Readings::shutdown`].
#[derive(Debug)]
pub struct Readings {
    stop: Sender<()>,
    thread: JoinHandle<()>,
    ended: Receiver<()>,
}

impl Readings {
    /// Begins to send. Call it outside an async runtime.
    pub(in crate::telemetry) fn start(
        url: String,
        push: Push,
        resource: &opentelemetry_sdk::Resource,
        metrics: &Metrics,
    ) -> Result<Self, Error> {
        let client = reqwest::blocking::Client::builder().timeout(push.timeout).build().map_err(Error::Client)?;
        let (stop, stopped) = channel();
        let (end, ended) = channel();
        let reader = Reader {
            resource: resource_of(resource),
            began: nanoseconds(SystemTime::from(crate::clock::now())),
            arrival: Arrival::new(Signal::Metrics, metrics),
            metrics: metrics.clone(),
            client,
            url,
            push,
        };
        let run = move || {
            reader.run(&stopped);
            drop(end);
        };
        let thread = thread::Builder::new().name("otlp-metrics".into()).spawn(run).map_err(Error::Thread)?;
        Ok(Self { stop, thread, ended })
    }

    /// Sends a last reading, for at most `limit`.
    pub fn shutdown(self, limit: Duration) {
        drop(self.stop);
        // Nothing is ever sent through it: it ends with the thread.
        if self.ended.recv_timeout(limit) == Err(RecvTimeoutError::Timeout) {
            tracing::warn!("the last reading of metrics may not have been sent");
        } else if self.thread.join().is_err() {
            tracing::warn!("the thread that sends metrics panicked");
        }
    }
}

struct Reader {
    metrics: Metrics,
    resource: Resource,
    /// Nanoseconds since 1970.
    began: u64,
    client: reqwest::blocking::Client,
    url: String,
    push: Push,
    arrival: Arrival,
}

impl Reader {
    fn run(&self, stopped: &Receiver<()>) {
        loop {
            let last = stopped.recv_timeout(self.push.interval) != Err(RecvTimeoutError::Timeout);
            self.arrival.note(&self.send());
            if last {
                return;
            }
        }
    }

    fn send(&self) -> Result<(), String> {
        let text = self.metrics.text().map_err(|error| error.to_string())?;
        let now = nanoseconds(SystemTime::from(crate::clock::now()));
        let request = request(&text, self.resource.clone(), (self.began, now));
        let post = self.client.post(&self.url).header("content-type", "application/x-protobuf");
        let post = self.push.headers.iter().fold(post, |post, (name, value)| post.header(name, value));
        let answer = post.body(request.encode_to_vec()).send().map_err(|error| error.without_url().to_string())?;
        answer.error_for_status().map(|_| ()).map_err(|error| error.without_url().to_string())
    }
}

fn nanoseconds(at: SystemTime) -> u64 {
    at.duration_since(UNIX_EPOCH).map_or(0, |since| u64::try_from(since.as_nanos()).unwrap_or(u64::MAX))
}

fn text_value(text: &str) -> Option<AnyValue> {
    Some(AnyValue { value: Some(Value::StringValue(text.to_owned())) })
}

fn attribute(key: &str, value: &str) -> KeyValue {
    KeyValue { key: key.to_owned(), value: text_value(value), ..KeyValue::default() }
}

fn resource_of(resource: &opentelemetry_sdk::Resource) -> Resource {
    let attributes = resource.iter().map(|(key, value)| attribute(key.as_str(), &value.as_str())).collect();
    Resource { attributes, ..Resource::default() }
}

/// One line of the text, taken apart.
struct Sample<'a> {
    name: &'a str,
    labels: Vec<(&'a str, String)>,
    value: f64,
}

impl<'a> Sample<'a> {
    fn read(line: &'a str) -> Option<Self> {
        let (series, value) = match line.find('}') {
            // Label values may hold anything, a brace and a space too: the last one ends them.
            Some(_) => line.rsplit_once("} ")?,
            None => line.split_once(' ')?,
        };
        let value = value.split(' ').next()?.parse().ok()?;
        let (name, labels) = series.split_once('{').unwrap_or((series, ""));
        Some(Self { name, labels: read_labels(labels), value })
    }

    fn attributes(&self) -> Vec<KeyValue> {
        let own = self.labels.iter().filter(|(name, _)| *name != "le");
        own.map(|(name, value)| attribute(name, value)).collect()
    }

    /// The same for all lines of one histogram.
    fn series(&self) -> String {
        let own = self.labels.iter().filter(|(name, _)| *name != "le");
        own.map(|(name, value)| format!("{name}={value:?},")).collect()
    }
}

/// `a="b",c="d"`, with the escapes of OpenMetrics.
fn read_labels(mut rest: &str) -> Vec<(&str, String)> {
    let mut labels = Vec::new();
    while let Some((name, after)) = rest.split_once("=\"") {
        let (mut value, mut chars) = (String::new(), after.char_indices());
        let mut end = after.len();
        while let Some((at, c)) = chars.next() {
            match c {
                '"' => {
                    end = at + 1;
                    break;
                }
                '\\' => value.push(match chars.next() {
                    Some((_, 'n')) => '\n',
                    Some((_, other)) => other,
                    None => '\\',
                }),
                other => value.push(other),
            }
        }
        labels.push((name.trim_start_matches(','), value));
        rest = &after[end..];
    }
    labels
}

/// What the text says, as one request. `times`: since when sums count, and now.
fn request(text: &str, resource: Resource, times: (u64, u64)) -> ExportMetricsServiceRequest {
    let mut metrics = Vec::new();
    let mut lines = text.lines().peekable();
    let (mut help, mut kind) = (BTreeMap::new(), BTreeMap::new());
    while let Some(line) = lines.next() {
        if let Some((name, said)) = line.strip_prefix("# HELP ").and_then(|rest| rest.split_once(' ')) {
            help.insert(name, said);
        } else if let Some((name, said)) = line.strip_prefix("# TYPE ").and_then(|rest| rest.split_once(' ')) {
            kind.insert(name, said);
            let mut samples = Vec::new();
            while let Some(line) = lines.next_if(|line| !line.starts_with('#')) {
                samples.extend(Sample::read(line));
            }
            metrics.extend(metric(name, said, help.get(name).copied(), &samples, times));
        }
    }
    let scope = InstrumentationScope {
        name: SERVICE_NAME.into(),
        version: env!("CARGO_PKG_VERSION").into(),
        ..InstrumentationScope::default()
    };
    let scope_metrics = vec![ScopeMetrics { scope: Some(scope), metrics, ..ScopeMetrics::default() }];
    let of_resource = ResourceMetrics { resource: Some(resource), scope_metrics, ..ResourceMetrics::default() };
    ExportMetricsServiceRequest { resource_metrics: vec![of_resource] }
}

fn metric(name: &str, kind: &str, help: Option<&str>, samples: &[Sample<'_>], times: (u64, u64)) -> Option<Metric> {
    let cumulative = AggregationTemporality::Cumulative.into();
    let data = match kind {
        "gauge" | "info" => Data::Gauge(Gauge { data_points: numbers(samples, (0, times.1)) }),
        "counter" => Data::Sum(Sum {
            data_points: numbers(samples, times),
            aggregation_temporality: cumulative,
            is_monotonic: true,
        }),
        "histogram" => {
            Data::Histogram(Histogram { data_points: histograms(samples, times), aggregation_temporality: cumulative })
        }
        _ => return None,
    };
    // As a scrape names it, so that one dashboard serves both ways.
    let name = if kind == "counter" { format!("{name}_total") } else { name.to_owned() };
    let unit = if name.ends_with("_seconds") { "s" } else { "" };
    let description = help.unwrap_or_default().to_owned();
    Some(Metric { name, description, unit: unit.into(), data: Some(data), ..Metric::default() })
}

fn numbers(samples: &[Sample<'_>], (began, now): (u64, u64)) -> Vec<NumberDataPoint> {
    let number = |sample: &Sample<'_>| NumberDataPoint {
        attributes: sample.attributes(),
        start_time_unix_nano: began,
        time_unix_nano: now,
        value: Some(number_data_point::Value::AsDouble(sample.value)),
        ..NumberDataPoint::default()
    };
    samples.iter().map(number).collect()
}

fn histograms(samples: &[Sample<'_>], (began, now): (u64, u64)) -> Vec<HistogramDataPoint> {
    let mut of_series: BTreeMap<String, HistogramDataPoint> = BTreeMap::new();
    for sample in samples {
        let point = of_series.entry(sample.series()).or_insert_with(|| HistogramDataPoint {
            attributes: sample.attributes(),
            start_time_unix_nano: began,
            time_unix_nano: now,
            ..HistogramDataPoint::default()
        });
        match sample.labels.iter().find(|(name, _)| *name == "le") {
            Some((_, bound)) => {
                // The text counts up from bucket to bucket; OTLP counts each by itself.
                let below: u64 = point.bucket_counts.iter().sum();
                point.bucket_counts.push((sample.value as u64).saturating_sub(below));
                point.explicit_bounds.extend(bound.parse::<f64>().ok().filter(|bound| bound.is_finite()));
            }
            None if sample.name.ends_with("_sum") => point.sum = Some(sample.value),
            None => point.count = sample.value as u64,
        }
    }
    of_series.into_values().collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{leadership::takeover::Leg, lifecycle::event::EventType};

    fn reading(metrics: &Metrics) -> Vec<Metric> {
        let text = metrics.text().expect("metrics can be written");
        let mut request = request(&text, Resource::default(), (1, 2));
        request.resource_metrics.remove(0).scope_metrics.remove(0).metrics
    }

    fn named<'a>(metrics: &'a [Metric], name: &str) -> &'a Data {
        let found = metrics.iter().find(|metric| metric.name == name).unwrap_or_else(|| panic!("{name}"));
        assert!(!found.description.is_empty(), "{name} says what it is");
        found.data.as_ref().expect("data")
    }

    fn has(attributes: &[KeyValue], key: &str, value: &str) -> bool {
        attributes.contains(&attribute(key, value))
    }

    #[test]
    fn every_series_of_the_text_is_sent_with_its_value() {
        let metrics = Metrics::new();
        metrics.events_committed(EventType::PodScheduled, 3);
        metrics.set_tracked_pods(7);
        for took in [1, 30, 40_000] {
            metrics.taken_over(Leg::Reconciled, Duration::from_millis(took));
        }
        let sent = reading(&metrics);
        let Data::Sum(events) = named(&sent, "pod_monitor_events_total") else { panic!("a counter is a sum") };
        let scheduled = events.data_points.iter().find(|p| has(&p.attributes, "event_type", "pod_scheduled"));
        let scheduled = scheduled.expect("its series");
        assert_eq!(scheduled.value, Some(number_data_point::Value::AsDouble(3.0)));
        assert_eq!((scheduled.start_time_unix_nano, scheduled.time_unix_nano, events.is_monotonic), (1, 2, true));
        let Data::Gauge(tracked) = named(&sent, "pod_monitor_tracked_pods") else { panic!("a gauge") };
        assert_eq!(tracked.data_points[0].value, Some(number_data_point::Value::AsDouble(7.0)));
        let Data::Histogram(legs) = named(&sent, "pod_monitor_takeover_duration_seconds") else {
            panic!("a histogram")
        };
        let leg = legs.data_points.iter().find(|p| has(&p.attributes, "leg", "reconciled")).expect("its series");
        assert_eq!((leg.count, leg.bucket_counts.iter().sum::<u64>()), (3, 3));
        assert_eq!(leg.bucket_counts.len(), leg.explicit_bounds.len() + 1, "one bucket beyond the last bound");
        assert_eq!(leg.sum, Some(40.031));
        assert_eq!(leg.bucket_counts.iter().max(), Some(&1), "each bucket counts its own");

        let text = metrics.text().expect("metrics can be written");
        let kinds = text.lines().filter(|line| line.starts_with("# TYPE ")).count();
        assert_eq!(sent.len(), kinds, "nothing is left out");
    }

    #[test]
    fn labels_may_hold_anything() {
        let sample = Sample::read(r#"a{b="} \"x\", c=\"",d="\\n\n"} 1.5"#).expect("a sample");
        let labels: Vec<(&str, &str)> = sample.labels.iter().map(|(name, value)| (*name, value.as_str())).collect();
        assert_eq!((sample.name, labels, sample.value), ("a", vec![("b", "} \"x\", c=\""), ("d", "\\n\n")], 1.5));
    }
}
