//! A real OpenTelemetry Collector: what it was sent, as it wrote that down.

use std::{
    fs::{self, File},
    net::{Ipv4Addr, SocketAddr, TcpStream},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

use anyhow::{Context, Result, bail};
use serde_json::Value;

use super::{monitor::free_address, until};
use crate::stack::collector;

/// How long one may take to start; the build, where there is none yet, comes before.
const START_MAX: Duration = Duration::from_secs(30);

/// Where a collector runs, and keeps what it was sent, also while none runs.
#[derive(Debug, Clone)]
pub struct Site {
    program: PathBuf,
    address: SocketAddr,
    dir: PathBuf,
}

/// A running collector; killed when dropped.
#[derive(Debug)]
pub struct Collector(Child);

/// One span.
#[derive(Debug, Clone)]
pub struct Span {
    /// Trace, span and parent in hexadecimal digits; no parent: empty.
    pub trace_id: String,
    /// Its own id.
    pub span_id: String,
    /// Empty where it has none.
    pub parent_span_id: String,
    /// What it is called.
    pub name: String,
    /// Nanoseconds since 1970, of its start and its end.
    pub times: (i128, i128),
    /// `service.instance.id` of whoever sent it.
    pub instance: String,
    /// As it stands in the file.
    pub json: Value,
}

impl Span {
    /// An attribute as text; empty where there is none.
    pub fn attribute(&self, key: &str) -> String {
        attribute(&self.json["attributes"], key)
    }
}

/// An attribute of a list of them, as text.
fn attribute(attributes: &Value, key: &str) -> String {
    let found = attributes.as_array().into_iter().flatten().find(|attribute| attribute["key"] == key);
    let value = found.and_then(|attribute| attribute["value"].as_object()?.values().next().cloned());
    match value {
        Some(Value::String(text)) => text,
        Some(other) => other.to_string(),
        None => String::new(),
    }
}

impl Site {
    /// A place for a collector, with what it writes below `dir`. Builds the program if it is not there yet.
    ///
    /// # Errors
    /// When Go cannot build it, or there is no free port.
    pub fn new(dir: &Path) -> Result<Self> {
        let (program, address) = (collector::program()?, free_address(Ipv4Addr::LOCALHOST.into())?);
        fs::create_dir_all(dir).context("make the collector's directory")?;
        Ok(Self { program, address, dir: dir.to_owned() })
    }

    /// What OTEL_EXPORTER_OTLP_ENDPOINT is to say.
    pub fn endpoint(&self) -> String {
        format!("http://{}", self.address)
    }

    /// A file for each collector that ran here: the last line of one that was killed may be torn.
    fn sent(&self) -> impl Iterator<Item = PathBuf> {
        (0..).map(|number| self.dir.join(format!("sent-{number}.jsonl")))
    }

    /// Starts a collector that adds to what earlier ones wrote down, and waits until it listens.
    ///
    /// # Errors
    /// When it ends, or does not listen in time; with its log.
    pub async fn start(&self) -> Result<Collector> {
        let config = self.dir.join("collector.yaml");
        let sent = self.sent().find(|file| !file.exists()).context("an unending count ended")?;
        let text = format!(
            "receivers: {{otlp: {{protocols: {{http: {{endpoint: '{}'}}}}}}}}\n\
             exporters: {{file: {{path: '{}', flush_interval: 50ms}}}}\n\
             service:\n  telemetry: {{metrics: {{level: none}}, logs: {{level: warn}}}}\n  pipelines:\n    \
             traces: {{receivers: [otlp], exporters: [file]}}\n    \
             metrics: {{receivers: [otlp], exporters: [file]}}\n    \
             logs: {{receivers: [otlp], exporters: [file]}}\n",
            self.address,
            sent.display()
        );
        fs::write(&config, text).context("write the collector's configuration")?;
        let log = self.dir.join("collector.log");
        let file = File::options().create(true).append(true).open(&log).context("open the collector's log")?;
        let mut command = Command::new(&self.program);
        command.arg("--config").arg(format!("file:{}", config.display()));
        command.stdin(Stdio::null()).stdout(file.try_clone()?).stderr(file);
        let mut collector = Collector(command.spawn().context("start the collector")?);
        let look = async || {
            if let Some(status) = collector.0.try_wait()? {
                bail!("the collector has ended: {status}");
            }
            Ok(TcpStream::connect(self.address).is_ok().then_some(()))
        };
        let waited = until(START_MAX, "the collector listens", look).await;
        waited.with_context(|| fs::read_to_string(&log).unwrap_or_default())?;
        Ok(collector)
    }

    /// All of `resourceSpans`, `resourceMetrics` or `resourceLogs` that were written down.
    fn all(&self, of: &str) -> Result<Vec<Value>> {
        let mut found = Vec::new();
        for file in self.sent().take_while(|file| file.exists()) {
            let text = fs::read_to_string(file).context("read what the collector wrote")?;
            // The last line may be half written.
            let whole = text.rsplit_once('\n').map_or("", |(whole, _)| whole);
            for line in whole.lines() {
                let mut line: Value = serde_json::from_str(line).context("a line of the collector's is not JSON")?;
                if let Value::Array(entries) = line[of].take() {
                    found.extend(entries);
                }
            }
        }
        Ok(found)
    }

    /// The spans that it was sent.
    ///
    /// # Errors
    /// When what it wrote down cannot be read.
    pub fn spans(&self) -> Result<Vec<Span>> {
        let mut spans = Vec::new();
        for (instance, span) in self.items("resourceSpans", "scopeSpans", "spans")? {
            let text = |field: &str| span[field].as_str().unwrap_or_default().to_owned();
            let time = |field: &str| text(field).parse::<i128>().context("a time of a span");
            spans.push(Span {
                trace_id: text("traceId"),
                span_id: text("spanId"),
                parent_span_id: text("parentSpanId"),
                name: text("name"),
                times: (time("startTimeUnixNano")?, time("endTimeUnixNano")?),
                instance,
                json: span,
            });
        }
        Ok(spans)
    }

    /// The metrics that it was sent, each with `service.instance.id` of whoever sent it.
    ///
    /// # Errors
    /// When what it wrote down cannot be read.
    pub fn metrics(&self) -> Result<Vec<(String, Value)>> {
        self.items("resourceMetrics", "scopeMetrics", "metrics")
    }

    /// The log records that it was sent, each with `service.instance.id` of whoever sent it.
    ///
    /// # Errors
    /// When what it wrote down cannot be read.
    pub fn logs(&self) -> Result<Vec<(String, Value)>> {
        self.items("resourceLogs", "scopeLogs", "logRecords")
    }

    fn items(&self, of: &str, scopes: &str, items: &str) -> Result<Vec<(String, Value)>> {
        let mut found = Vec::new();
        for mut entry in self.all(of)? {
            let instance = attribute(&entry["resource"]["attributes"], "service.instance.id");
            for scope in entry[scopes].as_array_mut().into_iter().flatten() {
                let Value::Array(of_scope) = scope[items].take() else { continue };
                found.extend(of_scope.into_iter().map(|item| (instance.clone(), item)));
            }
        }
        Ok(found)
    }
}

impl Collector {
    /// SIGKILL, and waits for the end.
    ///
    /// # Errors
    /// When the process is gone.
    pub fn kill(mut self) -> Result<()> {
        self.0.kill()?;
        self.0.wait()?;
        Ok(())
    }
}

impl Drop for Collector {
    fn drop(&mut self) {
        // Already ended is fine: what matters is that nothing is left running.
        drop(self.0.kill());
        drop(self.0.wait());
    }
}
