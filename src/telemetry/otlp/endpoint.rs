//! Where each signal goes, by the standard variables. Pure.

use std::{fmt, time::Duration};

use crate::lifecycle::trace::Sampling;

/// One of the three kinds of telemetry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Signal {
    /// Spans.
    Traces,
    /// Readings of what `/metrics` shows.
    Metrics,
    /// Log lines.
    Logs,
}

impl Signal {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Traces, Self::Metrics, Self::Logs];

    /// As OpenTelemetry calls it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Traces => "traces",
            Self::Metrics => "metrics",
            Self::Logs => "logs",
        }
    }

    /// `OTEL_EXPORTER_OTLP_<signal>_<what>`
    fn own(self, what: &str) -> String {
        format!("OTEL_EXPORTER_OTLP_{}_{what}", self.as_str().to_uppercase())
    }
}

impl fmt::Display for Signal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Where a signal goes.
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
    /// Not what can be worked with.
    #[error("{variable}: {why}")]
    Variable {
        /// The variable.
        variable: String,
        /// What is wrong, and the mend.
        why: String,
    },
    /// The exporter refuses its variables.
    #[error("the OTEL_EXPORTER_OTLP_* variables make no exporter for {signal}")]
    Exporter {
        /// Of what.
        signal: Signal,
        /// What OpenTelemetry says.
        source: opentelemetry_otlp::ExporterBuildError,
    },
    /// No thread to send metrics from.
    #[error("start the thread that sends metrics")]
    Thread(#[source] std::io::Error),
    /// The HTTP client of the metrics cannot be made.
    #[error("make an HTTP client for metrics")]
    Client(#[source] reqwest::Error),
}

fn wrong<T>(variable: impl Into<String>, why: impl Into<String>) -> Result<T, Error> {
    Err(Error::Variable { variable: variable.into(), why: why.into() })
}

/// How variables are asked for. Empty ones count as absent, as OpenTelemetry has it.
pub(in crate::telemetry) type Variables<'a> = &'a dyn Fn(&str) -> Option<String>;

fn set(variables: Variables<'_>, name: &str) -> Option<String> {
    variables(name).filter(|value| !value.trim().is_empty())
}

impl Export {
    /// What the OTEL_* variables ask for.
    pub fn from_variables(signal: Signal, variables: Variables<'_>) -> Result<Self, Error> {
        const ALL: &str = "OTEL_EXPORTER_OTLP_ENDPOINT";
        let set = |name: &str| set(variables, name);
        let disabled = set("OTEL_SDK_DISABLED").is_some_and(|value| value.eq_ignore_ascii_case("true"));
        let exporter = format!("OTEL_{}_EXPORTER", signal.as_str().to_uppercase());
        match set(&exporter).as_deref() {
            _ if disabled => return Ok(Self::Off),
            Some("none") => return Ok(Self::Off),
            None | Some("otlp") => {}
            Some(other) => return wrong(exporter, format!("{other:?} is not built in: otlp, or none")),
        }
        let own = signal.own("ENDPOINT");
        let (variable, url) = match (set(&own), set(ALL)) {
            (Some(url), _) => (own, url),
            (None, Some(base)) => (ALL.to_owned(), format!("{}/v1/{signal}", base.trim_end_matches('/'))),
            (None, None) => return Ok(Self::Off),
        };
        let protocol = set(&signal.own("PROTOCOL")).or_else(|| set("OTEL_EXPORTER_OTLP_PROTOCOL"));
        if protocol.is_some_and(|protocol| protocol != "http/protobuf") {
            let why = "only http/protobuf is spoken: set it so, and the endpoint to the receiver's HTTP port (4318)";
            return wrong("OTEL_EXPORTER_OTLP_PROTOCOL", why);
        }
        let uri = url.parse::<http::Uri>().ok().filter(|uri| uri.host().is_some());
        match uri.as_ref().and_then(http::Uri::scheme_str) {
            Some("http") => Ok(Self::To(url)),
            Some("https") => wrong(
                variable,
                "https is not built in: send to a collector over http, for instance http://localhost:4318",
            ),
            _ => wrong(variable, "is not an http URL: write for instance http://collector:4318"),
        }
    }
}

/// Which traces are recorded: `OTEL_TRACES_SAMPLER` and its `_ARG`.
pub(in crate::telemetry) fn sampling(variables: Variables<'_>) -> Result<Sampling, Error> {
    const SAMPLER: &str = "OTEL_TRACES_SAMPLER";
    const ARGUMENT: &str = "OTEL_TRACES_SAMPLER_ARG";
    let Some(name) = set(variables, SAMPLER) else { return Ok(Sampling::default()) };
    let (parent_based, root) = name.strip_prefix("parentbased_").map_or((false, &*name), |root| (true, root));
    let ratio = match root {
        "always_on" => 1.0,
        "always_off" => 0.0,
        "traceidratio" => match set(variables, ARGUMENT).map_or(Ok(1.0), |ratio| ratio.trim().parse::<f64>()) {
            Ok(ratio) if (0.0..=1.0).contains(&ratio) => ratio,
            _ => return wrong(ARGUMENT, "is not a number from 0 to 1"),
        },
        _ => {
            let known = "always_on, always_off, traceidratio, and each of them with parentbased_ before it";
            return wrong(SAMPLER, format!("{name:?} is not known: {known}"));
        }
    };
    Ok(Sampling { parent_based, ratio })
}

/// How readings of metrics are sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::telemetry) struct Push {
    /// From one to the next.
    pub(super) interval: Duration,
    /// How long one may take.
    pub(super) timeout: Duration,
    /// Names and values; values may be secrets.
    pub(super) headers: Vec<(String, String)>,
}

/// What the OTEL_* variables say of metrics; the SDK reads those of the other signals itself.
pub(in crate::telemetry) fn push(variables: Variables<'_>) -> Result<Push, Error> {
    let milliseconds = |names: [&str; 2], default: u64| {
        let Some((name, value)) = names.into_iter().find_map(|name| Some((name, set(variables, name)?))) else {
            return Ok(Duration::from_millis(default));
        };
        match value.trim().parse::<u64>() {
            Ok(value) if value > 0 => Ok(Duration::from_millis(value)),
            _ => wrong(name, "is not a number of milliseconds above 0"),
        }
    };
    let own = |what| Signal::Metrics.own(what);
    let interval = milliseconds(["OTEL_METRIC_EXPORT_INTERVAL"; 2], 60_000)?;
    let timeout = milliseconds([&own("TIMEOUT"), "OTEL_EXPORTER_OTLP_TIMEOUT"], 10_000)?;
    let mut headers = Vec::new();
    for name in ["OTEL_EXPORTER_OTLP_HEADERS", &own("HEADERS")] {
        let given = set(variables, name).unwrap_or_default();
        for pair in given.split(',').filter(|pair| !pair.trim().is_empty()) {
            // The value is left out of the error: it may be a secret.
            let Some((key, value)) = pair.split_once('=') else {
                return wrong(name, "is not a list of name=value, separated by commas");
            };
            // As OpenTelemetry has it: what has no place in such a list is percent-encoded.
            let Ok(value) = percent_encoding::percent_decode_str(value.trim()).decode_utf8() else {
                return wrong(name, "holds a percent-encoded value that is not UTF-8");
            };
            let (key, value) = (key.trim().to_lowercase(), value.into_owned());
            headers.retain(|(known, _)| *known != key);
            headers.push((key, value));
        }
    }
    Ok(Push { interval, timeout, headers })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn with<T>(variables: &[(&str, &str)], read: impl Fn(Variables<'_>) -> Result<T, Error>) -> Result<T, String> {
        let variables: BTreeMap<&str, &str> = variables.iter().copied().collect();
        read(&|name| variables.get(name).map(ToString::to_string)).map_err(|error| error.to_string())
    }

    fn export(signal: Signal, variables: &[(&str, &str)]) -> Result<Export, String> {
        with(variables, |variables| Export::from_variables(signal, variables))
    }

    const ALL: &str = "OTEL_EXPORTER_OTLP_ENDPOINT";

    #[test]
    fn a_signal_is_exported_only_where_an_endpoint_is_set() {
        for signal in Signal::ALL {
            let own = signal.own("ENDPOINT");
            let off = format!("OTEL_{}_EXPORTER", signal.as_str().to_uppercase());
            let to = |url: &str| Ok(Export::To(url.to_owned()));
            let default = format!("http://c:4318/v1/{signal}");
            type Case<'a> = (&'a [(&'a str, &'a str)], Result<Export, String>);
            let cases: [Case<'_>; 8] = [
                (&[], Ok(Export::Off)),
                (&[(ALL, "")], Ok(Export::Off)),
                (&[(ALL, "http://c:4318")], to(&default)),
                (&[(ALL, "http://c:4318/"), (&off, "otlp")], to(&default)),
                (&[(ALL, "http://c:4318"), (&own, "http://d:1/x")], to("http://d:1/x")),
                (&[(&own, "http://d:1/x")], to("http://d:1/x")),
                (&[(ALL, "http://c:4318"), ("OTEL_SDK_DISABLED", "true")], Ok(Export::Off)),
                (&[(ALL, "http://c:4318"), (&off, "none")], Ok(Export::Off)),
            ];
            for (variables, expected) in cases {
                assert_eq!(export(signal, variables), expected, "{signal}: {variables:?}");
            }
            let error = export(signal, &[(ALL, "http://c:4318"), (&off, "console")]).expect_err("not built in");
            assert!(error.starts_with(&off) && error.contains("otlp, or none"), "{error}");
        }
    }

    #[test]
    fn what_cannot_be_sent_to_is_refused_with_its_mend() {
        for bad in ["c:4318", "https://c:4318", "grpc://c", "/x", "http://"] {
            let error = export(Signal::Traces, &[(ALL, bad)]).expect_err(bad);
            assert!(error.starts_with(ALL) && error.contains("http"), "{bad}: {error}");
        }
        let grpc = export(Signal::Logs, &[(ALL, "http://c:4317"), ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc")]);
        assert!(grpc.is_err_and(|error| error.contains("http/protobuf")));
    }

    #[test]
    fn samplers_are_those_of_opentelemetry() {
        let of = |name: &str, argument: &str| {
            with(&[("OTEL_TRACES_SAMPLER", name), ("OTEL_TRACES_SAMPLER_ARG", argument)], sampling)
        };
        let known = |parent_based, ratio| Ok(Sampling { parent_based, ratio });
        assert_eq!(of("", ""), known(true, 1.0));
        assert_eq!(of("always_off", ""), known(false, 0.0));
        assert_eq!(of("parentbased_traceidratio", "0.25"), known(true, 0.25));
        assert_eq!(of("traceidratio", ""), known(false, 1.0));
        assert!(of("traceidratio", "2").is_err_and(|error| error.starts_with("OTEL_TRACES_SAMPLER_ARG")));
        assert!(of("jaeger_remote", "").is_err_and(|error| error.contains("always_on")));
    }

    #[test]
    fn readings_follow_their_variables() {
        let push = |variables: &[(&str, &str)]| with(variables, push);
        let seconds = Duration::from_secs;
        assert_eq!(push(&[]), Ok(Push { interval: seconds(60), timeout: seconds(10), headers: Vec::new() }));
        let all = push(&[
            ("OTEL_METRIC_EXPORT_INTERVAL", "1000"),
            ("OTEL_EXPORTER_OTLP_TIMEOUT", "2000"),
            ("OTEL_EXPORTER_OTLP_METRICS_TIMEOUT", "3000"),
            ("OTEL_EXPORTER_OTLP_HEADERS", "Authorization=Bearer%20a=b, x=1"),
            ("OTEL_EXPORTER_OTLP_METRICS_HEADERS", "X=2"),
        ]);
        let headers = [("authorization", "Bearer a=b"), ("x", "2")].map(|(key, value)| (key.into(), value.into()));
        assert_eq!(all, Ok(Push { interval: seconds(1), timeout: seconds(3), headers: headers.to_vec() }));
        assert!(push(&[("OTEL_METRIC_EXPORT_INTERVAL", "1s")]).is_err_and(|error| error.contains("milliseconds")));
        let error = push(&[("OTEL_EXPORTER_OTLP_HEADERS", "secret")]).expect_err("no pair");
        assert!(!error.contains("secret"), "{error}");
    }
}
