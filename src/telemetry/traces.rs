//! Traces: every piece of work has a W3C trace context; whether spans are sent anywhere is another question.
//!
//! ```text
//!   tracing span ─▶ OpenTelemetry span ─▶ traceparent of the published events   (always)
//!                                     └─▶ OTLP over HTTP, batched by a thread   (only where an endpoint is set)
//! ```
//!
//! Promises: without an endpoint nothing is sent, with one that is down failures are counted and logged once. Only this
//! crate's own spans are exported, so that exporting (which makes HTTP spans itself) cannot feed itself.

use std::{
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use opentelemetry::{KeyValue, trace::TracerProvider as _};
use opentelemetry_otlp::{Protocol, WithExportConfig as _};
use opentelemetry_sdk::{
    Resource,
    error::OTelSdkResult,
    trace::{SdkTracerProvider, SpanData, SpanExporter},
};
use tracing::Subscriber;
use tracing_subscriber::{Layer, filter::filter_fn, registry::LookupSpan};

use super::Metrics;

/// `service.name` where OTEL_SERVICE_NAME does not say otherwise.
const SERVICE_NAME: &str = "pod-monitor";

/// Where spans go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Export {
    /// Nowhere.
    Off,
    /// By OTLP (HTTP, protobuf) to this URL.
    To(String),
}

/// What is wrong with the OTEL_* variables (exit code 2).
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Not an URL that can be sent to.
    #[error("{variable}: {why}")]
    Endpoint {
        /// The variable.
        variable: &'static str,
        /// What is wrong, and the mend.
        why: String,
    },
    /// The exporter refuses its variables.
    #[error("the OTEL_EXPORTER_OTLP_* variables make no exporter")]
    Exporter(#[source] opentelemetry_otlp::ExporterBuildError),
}

impl Export {
    /// What the OTEL_* variables ask for. Empty variables count as absent, as OpenTelemetry has it.
    pub fn from_variables(variables: &dyn Fn(&str) -> Option<String>) -> Result<Self, Error> {
        let set = |name: &str| variables(name).filter(|value| !value.trim().is_empty());
        let disabled = set("OTEL_SDK_DISABLED").is_some_and(|value| value.eq_ignore_ascii_case("true"));
        if disabled || set("OTEL_TRACES_EXPORTER").is_some_and(|value| value == "none") {
            return Ok(Self::Off);
        }
        const OWN: &str = "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT";
        const ALL: &str = "OTEL_EXPORTER_OTLP_ENDPOINT";
        let (variable, url) = match (set(OWN), set(ALL)) {
            (Some(url), _) => (OWN, url),
            (None, Some(base)) => (ALL, format!("{}/v1/traces", base.trim_end_matches('/'))),
            (None, None) => return Ok(Self::Off),
        };
        let protocol = set("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL").or_else(|| set("OTEL_EXPORTER_OTLP_PROTOCOL"));
        if protocol.is_some_and(|protocol| protocol != "http/protobuf") {
            let why = "only http/protobuf is spoken: set it so, and the endpoint to the receiver's HTTP port (4318)";
            return Err(Error::Endpoint { variable: "OTEL_EXPORTER_OTLP_PROTOCOL", why: why.to_owned() });
        }
        let uri = url.parse::<http::Uri>().ok().filter(|uri| uri.host().is_some());
        match uri.as_ref().and_then(http::Uri::scheme_str) {
            Some("http") => Ok(Self::To(url)),
            Some("https") => {
                let why = "https is not built in: send to a collector over http, for instance http://localhost:4318";
                Err(Error::Endpoint { variable, why: why.to_owned() })
            }
            _ => {
                let why = "is not an http URL: write for instance http://collector:4318";
                Err(Error::Endpoint { variable, why: why.to_owned() })
            }
        }
    }
}

/// The tracer provider of this process.
#[derive(Debug)]
pub struct Traces {
    provider: SdkTracerProvider,
}

impl Traces {
    /// Makes the provider. Call it outside an async runtime.
    pub fn start(export: &Export, instance: &str, metrics: &Metrics) -> Result<Self, Error> {
        // The service's name from the environment wins over ours; the detectors of the builder read it.
        let named = |name: &str| std::env::var(name).is_ok_and(|value| !value.is_empty());
        let in_attributes = std::env::var("OTEL_RESOURCE_ATTRIBUTES").is_ok_and(|all| all.contains("service.name="));
        let mut resource = Resource::builder().with_attributes([
            KeyValue::new("service.version", env!("CARGO_PKG_VERSION")),
            KeyValue::new("service.instance.id", instance.to_owned()),
        ]);
        if !named("OTEL_SERVICE_NAME") && !in_attributes {
            resource = resource.with_service_name(SERVICE_NAME);
        }
        let mut provider = SdkTracerProvider::builder().with_resource(resource.build());
        if let Export::To(url) = export {
            let exporter = opentelemetry_otlp::SpanExporter::builder()
                .with_http()
                .with_protocol(Protocol::HttpBinary)
                .with_endpoint(url)
                .build()
                .map_err(Error::Exporter)?;
            let failing = AtomicBool::new(false);
            provider = provider.with_batch_exporter(Counted { exporter, metrics: metrics.clone(), failing });
        }
        Ok(Self { provider: provider.build() })
    }

    /// The layer that gives each of this crate's spans its OpenTelemetry span.
    pub fn layer<S>(&self) -> Box<dyn Layer<S> + Send + Sync>
    where
        S: Subscriber + for<'a> LookupSpan<'a> + Send + Sync,
    {
        let tracer = self.provider.tracer(SERVICE_NAME);
        // Independent of the log level: a quiet log must not take the trace context from the events.
        let own = filter_fn(|metadata| {
            metadata.target().starts_with("pod_monitor") && *metadata.level() <= tracing::Level::DEBUG
        });
        tracing_opentelemetry::layer().with_tracer(tracer).with_filter(own).boxed()
    }

    /// Sends what is left, for at most `limit`.
    pub fn shutdown(self, limit: Duration) {
        if let Err(error) = self.provider.shutdown_with_timeout(limit) {
            tracing::warn!(%error, "the last spans may not have been sent");
        }
    }
}

/// An exporter whose failures are counted, and logged once until it works again.
#[derive(Debug)]
struct Counted<E> {
    exporter: E,
    metrics: Metrics,
    failing: AtomicBool,
}

impl<E: SpanExporter> SpanExporter for Counted<E> {
    async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
        let spans = batch.len();
        let result = self.exporter.export(batch).await;
        let failed = result.is_err();
        let failed_before = self.failing.swap(failed, Ordering::Relaxed);
        if let Err(error) = &result {
            self.metrics.otlp_export_failed();
            if !failed_before {
                tracing::warn!(%error, spans, "traces are not arriving; further failures are only counted");
            }
        } else if failed_before {
            tracing::info!("traces are arriving again");
        }
        result
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.exporter.shutdown_with_timeout(timeout)
    }

    fn force_flush(&self) -> OTelSdkResult {
        self.exporter.force_flush()
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.exporter.set_resource(resource);
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use tracing_subscriber::layer::SubscriberExt as _;

    use super::*;
    use crate::publish::trace::traceparent;

    fn export(variables: &[(&str, &str)]) -> Result<Export, String> {
        let variables: BTreeMap<&str, &str> = variables.iter().copied().collect();
        Export::from_variables(&|name| variables.get(name).map(ToString::to_string)).map_err(|error| error.to_string())
    }

    #[test]
    fn traces_are_exported_only_where_an_endpoint_is_set() {
        const ALL: &str = "OTEL_EXPORTER_OTLP_ENDPOINT";
        const OWN: &str = "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT";
        let to = |url: &str| Ok(Export::To(url.to_owned()));
        type Case<'a> = (&'a [(&'a str, &'a str)], Result<Export, String>);
        let cases: [Case<'_>; 7] = [
            (&[], Ok(Export::Off)),
            (&[(ALL, "")], Ok(Export::Off)),
            (&[(ALL, "http://c:4318")], to("http://c:4318/v1/traces")),
            (&[(ALL, "http://c:4318/")], to("http://c:4318/v1/traces")),
            (&[(ALL, "http://c:4318"), (OWN, "http://d:1/x")], to("http://d:1/x")),
            (&[(ALL, "http://c:4318"), ("OTEL_SDK_DISABLED", "true")], Ok(Export::Off)),
            (&[(ALL, "http://c:4318"), ("OTEL_TRACES_EXPORTER", "none")], Ok(Export::Off)),
        ];
        for (variables, expected) in cases {
            assert_eq!(export(variables), expected, "{variables:?}");
        }
        for bad in ["c:4318", "https://c:4318", "grpc://c", "/x", "http://"] {
            let error = export(&[(ALL, bad)]).expect_err(bad);
            assert!(error.starts_with(ALL) && error.contains("http"), "{bad}: {error}");
        }
        let grpc = export(&[(ALL, "http://c:4317"), ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc")]);
        assert!(grpc.is_err_and(|error| error.contains("http/protobuf")));
    }

    #[test]
    fn every_span_has_a_traceparent_even_when_nothing_is_exported() {
        let traces = Traces::start(&Export::Off, "test", &Metrics::new()).expect("no exporter to build");
        let subscriber = tracing_subscriber::registry().with(traces.layer());
        tracing::subscriber::with_default(subscriber, || {
            assert_eq!(traceparent(&tracing::Span::current()), None, "outside of a span");
            let outer = tracing::info_span!("outer");
            let outer = outer.enter();
            let parent = traceparent(&tracing::Span::current()).expect("inside of a span");
            let parts: Vec<&str> = parent.split('-').collect();
            assert_eq!(parts.iter().map(|part| part.len()).collect::<Vec<_>>(), [2, 32, 16, 2], "{parent}");
            assert_eq!((parts[0], parts[3]), ("00", "01"), "{parent}");
            let child = traceparent(&tracing::debug_span!("child")).expect("inside of a span");
            assert_eq!(child[..35], parent[..35], "the same trace");
            assert_ne!(child, parent, "another span");
            drop(outer);
        });
    }

    #[test]
    fn a_receiver_that_is_down_costs_a_count_and_nothing_else() {
        // Bound and closed again: nobody listens there.
        let gone =
            std::net::TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("a port");
        let metrics = Metrics::new();
        let export = Export::To(format!("http://{gone}/v1/traces"));
        let traces = Traces::start(&export, "test", &metrics).expect("an exporter");
        let subscriber = tracing_subscriber::registry().with(traces.layer());
        tracing::subscriber::with_default(subscriber, || tracing::info_span!("lost").in_scope(|| ()));
        traces.provider.force_flush().expect_err("nobody listens");
        let text = metrics.text().expect("metrics can be written");
        assert!(text.contains("pod_monitor_otlp_export_failures_total 1\n"), "{text}");
        traces.shutdown(Duration::from_secs(1));
    }
}
