//! The running process: its configuration from all layers, its HTTP, its traces, its end.

#![allow(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "a test measures, and may stop at the first surprise"
)]

use std::{
    fs,
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::{TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::mpsc::{Receiver, channel},
    thread,
    time::{Duration, Instant},
};

use pod_monitor::config::Surroundings;
use serde_json::Value;

/// Nothing here takes longer on the slowest machine.
const LIMIT: Duration = Duration::from_secs(30);

const KUBECONFIG: &str = r#"{"apiVersion": "v1", "kind": "Config", "current-context": "none",
    "clusters": [{"name": "none", "cluster": {"server": "http://127.0.0.1:1"}}],
    "users": [{"name": "none", "user": {}}],
    "contexts": [{"name": "none", "context": {"cluster": "none", "user": "none"}}]}"#;

/// The program at work; its log lines come through a channel. Killed if the test ends before it does.
struct Running {
    child: Child,
    lines: Receiver<Value>,
}

impl Running {
    fn start(flags: &[&str], variables: &[(&str, &str)], directory: &Path) -> Self {
        // A cluster that does not answer: what is shown here needs none, and waiting for it is part of running.
        let kubeconfig = directory.join("kubeconfig");
        fs::write(&kubeconfig, KUBECONFIG).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_pod-monitor"));
        command.env_clear().env("KUBECONFIG", &kubeconfig).envs(variables.iter().copied()).current_dir(directory);
        command.args(["run", "--log-format", "json"]).args(flags);
        if !flags.contains(&"--listen") {
            command.args(["--listen", "127.0.0.1:0"]);
        }
        let mut child = command.stderr(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
        let stderr = child.stderr.take().unwrap();
        let (send, lines) = channel();
        thread::spawn(move || {
            for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                let line = serde_json::from_str(&line).unwrap_or(Value::String(line));
                if send.send(line).is_err() {
                    break;
                }
            }
        });
        Self { child, lines }
    }

    /// The next log line with this message.
    fn line(&self, message: &str) -> Value {
        let until = Instant::now() + LIMIT;
        loop {
            let left = until.saturating_duration_since(Instant::now());
            let line = self.lines.recv_timeout(left).unwrap_or_else(|_| panic!("no line '{message}' came"));
            if line["message"] == message {
                return line;
            }
        }
    }

    fn signal(&self, name: &str) {
        let status = Command::new("kill").args([name, &self.child.id().to_string()]).status().unwrap();
        assert!(status.success());
    }

    /// Waits for the end; the exit code.
    fn end(mut self) -> Option<i32> {
        let until = Instant::now() + LIMIT;
        // Its standard error closes when it ends.
        while self.lines.recv_timeout(until.saturating_duration_since(Instant::now())).is_ok() {}
        assert!(Instant::now() < until, "it does not end");
        self.child.wait().unwrap().code()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // Already ended is fine.
        if self.child.kill().is_ok() {
            self.child.wait().unwrap();
        }
    }
}

fn directory(test: &str) -> PathBuf {
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("run-{test}"));
    fs::create_dir_all(&path).unwrap();
    path
}

fn get(address: &str, path: &str) -> String {
    let mut stream = TcpStream::connect(address).unwrap();
    write!(stream, "GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

#[test]
fn a_flag_wins_over_a_variable_that_over_the_file_that_over_the_default() {
    let here = directory("layers");
    let file = "selector: app=file\nsettle-grace: 1s\nenvironment: file\ncaptures-max: 7\nnamespace: [f, g]\n\
                cluster-id: 1.10\nkafka: file:1\nkafka-config: {sasl.password: hunter2, security.protocol: ssl}\n";
    fs::write(here.join("c.yaml"), file).unwrap();
    fs::write(here.join("secrets"), "sasl.username=me\nsecurity.protocol=plain\nssl.key.password=hunter2\n").unwrap();
    let flags = ["--settle-grace", "3s", "--create-topics"];
    let variables = [
        ("POD_MONITOR_CONFIG", "c.yaml"),
        ("POD_MONITOR_SETTLE_GRACE", "2s"),
        ("POD_MONITOR_ENVIRONMENT", "variable"),
        ("POD_MONITOR_KAFKA_CONFIG_FILE", "secrets"),
        // What Kubernetes sets where a Service is called pod-monitor.
        ("POD_MONITOR_PORT", "tcp://10.0.0.1:8080"),
    ];
    let running = Running::start(&flags, &variables, &here);
    let line = running.line("effective configuration");
    let cases = [
        ("settle_grace", "3s"),
        ("environment", "variable"),
        ("selector", "app=file"),
        ("reconcile_interval", "5m"),
        ("cluster_id", "1.10"),
        ("namespaces", r#"Named({"f", "g"})"#),
        ("lease_namespace", "default"),
    ];
    for (key, value) in cases {
        assert_eq!(line[key], value, "{key}: {line}");
    }
    assert_eq!(line["captures_max"], 7);
    let sink = line["sink"].as_str().unwrap();
    assert!(!line.to_string().contains("hunter2"), "{line}");
    for part in [
        "sasl.password=***",
        "ssl.key.password=***",
        "sasl.username=me",
        "security.protocol=ssl",
        "create_topics: true",
    ] {
        assert!(sink.contains(part), "{part}: {sink}");
    }
    running.line("serving HTTP");
    running.signal("-TERM");
    assert_eq!(running.end(), Some(0));
}

#[test]
fn secrets_stand_in_nothing_that_it_tells_while_kafka_is_away() {
    let here = directory("canary");
    let secrets = here.join("secrets");
    fs::write(&secrets, "sasl.password=canary-file\nsasl.username=u\n").unwrap();
    fs::write(here.join("one"), "canary-one\n").unwrap();
    let one = format!("ssl.key.password=@{}", here.join("one").display());
    let flags = [
        ["--selector", "a", "--cluster-id", "c", "--kafka", "127.0.0.1:1", "--log-level", "trace"].as_slice(),
        &[
            "--kafka-config",
            "debug=all",
            "--kafka-config",
            one.as_str(),
            "--kafka-config",
            "ssl.keystore.password=canary-flag",
        ],
        &["--kafka-config-file", secrets.to_str().unwrap()],
    ]
    .concat();
    let arguments = [["pod-monitor", "run"].as_slice(), flags.as_slice()].concat();
    let parsed = pod_monitor::cli::parse(arguments.iter().map(Into::into), &|_| None, &Surroundings::default());
    let mut told = vec![format!("{:?}", parsed.unwrap())];
    assert!(told[0].contains("sasl.password"), "{}", told[0]);

    let running = Running::start(&flags, &[], &here);
    let mut until = |message: &str| loop {
        let line = running.lines.recv_timeout(LIMIT).unwrap_or_else(|_| panic!("no line '{message}' came"));
        told.push(line.to_string());
        if line["message"] == message {
            return line;
        }
    };
    let address = until("serving HTTP")["address"].as_str().unwrap().to_owned();
    assert!(until("component is not ready")["why"].as_str().unwrap().contains("Connection refused"));
    // A rotation that cannot be used.
    fs::write(&secrets, "sasl.password=canary-next\nacks=canary-next\n").unwrap();
    let why = until("changed kafka properties cannot be used, the old ones stay in use")["why"].to_string();
    assert!(why.contains("secrets:2") && why.contains("acks"), "{why}");
    for path in ["/api/status", "/metrics", "/readyz?verbose", "/"] {
        told.push(get(&address, path));
    }
    running.signal("-TERM");
    told.extend(std::iter::from_fn(|| running.lines.recv_timeout(LIMIT).ok()).map(|line| line.to_string()));
    assert!(told.iter().filter(|line| line.contains("\"librdkafka\"")).count() > 20, "librdkafka is heard");
    let canary = told.iter().find(|line| line.contains("canary-"));
    assert_eq!(canary, None);
    assert_eq!(running.end(), Some(0));
}

#[test]
fn lists_and_maps_can_stand_in_variables() {
    let here = directory("lists");
    let variables = [
        ("POD_MONITOR_SELECTOR", "b=2, a==1"),
        ("POD_MONITOR_NAMESPACE", "x, y\nz"),
        ("POD_MONITOR_KAFKA", "k:9092"),
        ("POD_MONITOR_KAFKA_CONFIG", "ssl.cipher.suites=a,b\nclient.id=c\n"),
    ];
    let running = Running::start(&[], &variables, &here);
    let line = running.line("effective configuration");
    assert_eq!(line["selector"], "a=1,b=2");
    assert_eq!(line["namespaces"], r#"Named({"x", "y", "z"})"#);
    assert!(line["sink"].as_str().unwrap().contains("client.id=c, ssl.cipher.suites=a,b"), "{line}");
    running.line("serving HTTP");
    running.signal("-INT");
    assert_eq!(running.end(), Some(0));
}

#[test]
fn it_serves_http_until_it_is_asked_to_stop() {
    let here = directory("http");
    let running = Running::start(&["--selector", "a", "--sink", "stdout"], &[], &here);
    let address = running.line("serving HTTP")["address"].as_str().unwrap().to_owned();
    assert!(get(&address, "/livez").starts_with("HTTP/1.1 200"));
    assert!(get(&address, "/metrics").contains("pod_monitor_build_info"));
    assert!(get(&address, "/api/status").contains("\"selector\": \"a\""));
    assert!(get(&address, "/").contains("<!doctype html>"));
    // Somebody else cannot have the same address, and learns why.
    let second = Running::start(&["--selector", "a", "--sink", "stdout", "--listen", &address], &[], &here);
    let error = second.line("cannot go on")["error"].as_str().unwrap().to_owned();
    assert!(error.contains(&address) && error.contains("--listen"), "{error}");
    assert_eq!(second.end(), Some(1));
    running.signal("-TERM");
    running.line("stopped as asked");
    assert_eq!(running.end(), Some(0));
}

#[test]
fn a_second_signal_ends_it_at_once() {
    let here = directory("twice");
    let running = Running::start(&["--selector", "a", "--sink", "stdout"], &[], &here);
    let address = running.line("serving HTTP")["address"].as_str().unwrap().to_owned();
    // Half a request keeps the first signal from ending it.
    let mut busy = TcpStream::connect(&address).unwrap();
    busy.write_all(b"GET / HTTP/1.1\r\n").unwrap();
    // Answered only after the server took the connection above over.
    get(&address, "/livez");
    running.signal("-TERM");
    running.line("asked to stop; a second signal ends at once");
    running.signal("-TERM");
    running.line("second signal: ending at once");
    assert_eq!(running.end(), Some(1));
}

/// Takes one HTTP request and answers 200; head and body.
fn one_request(listener: &TcpListener) -> (String, Vec<u8>) {
    let (stream, _) = listener.accept().unwrap();
    let mut reader = BufReader::new(stream);
    let (mut head, mut length) = (String::new(), 0);
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).unwrap();
        if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
            length = value.trim().parse().unwrap();
        }
        if line.trim().is_empty() {
            break;
        }
        head.push_str(&line);
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).unwrap();
    reader.get_mut().write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: close\r\n\r\n").unwrap();
    (head, body)
}

fn has(body: &[u8], text: &str) -> bool {
    body.windows(text.len()).any(|window| window == text.as_bytes())
}

#[test]
fn spans_arrive_at_an_otlp_receiver_where_one_is_set() {
    let here = directory("otlp");
    for (name, service) in [(None, "pod-monitor"), (Some(("OTEL_SERVICE_NAME", "other-name")), "other-name")] {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let endpoint = format!("http://{}", listener.local_addr().unwrap());
        let (send, receive) = channel();
        thread::spawn(move || send.send(one_request(&listener)));
        let mut variables = vec![("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint.as_str())];
        variables.extend([("OTEL_METRICS_EXPORTER", "none"), ("OTEL_LOGS_EXPORTER", "none")]);
        variables.extend(name);
        let flags = ["--selector", "a", "--sink", "stdout", "--identity", "me-1", "--log-level", "info"];
        let running = Running::start(&flags, &variables, &here);
        running.line("serving HTTP");
        running.signal("-TERM");
        assert_eq!(running.end(), Some(0));
        let (head, body) = receive.recv_timeout(LIMIT).expect("spans arrive at the latest when the process ends");
        assert!(head.starts_with("POST /v1/traces "), "{head}");
        assert!(head.contains("application/x-protobuf"), "{head}");
        for text in ["service.name", service, "service.instance.id", "me-1", "start"] {
            assert!(has(&body, text), "'{text}' is not in the spans");
        }
    }
}

#[test]
fn without_an_endpoint_no_export_is_attempted() {
    let here = directory("otlp-off");
    let running = Running::start(&["--selector", "a", "--sink", "stdout"], &[], &here);
    running.line("nothing is sent by OTLP: OTEL_EXPORTER_OTLP_ENDPOINT is not set");
    running.line("serving HTTP");
    // The exporters' threads are the only ones that could send.
    let threads = fs::read_dir(format!("/proc/{}/task", running.child.id())).unwrap();
    let names: Vec<_> =
        threads.map(|thread| fs::read_to_string(thread.unwrap().path().join("comm")).unwrap()).collect();
    assert!(!names.iter().any(|name| name.starts_with("OpenTelemetry") || name.starts_with("otlp")), "{names:?}");
    running.signal("-TERM");
    assert_eq!(running.end(), Some(0));
}

#[test]
fn a_receiver_that_is_down_neither_stops_nor_holds_the_process() {
    let here = directory("otlp-down");
    let gone = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let endpoint = format!("http://{gone}");
    let variables = [
        ("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint.as_str()),
        ("OTEL_BSP_SCHEDULE_DELAY", "50"),
        ("OTEL_LOGS_EXPORTER", "none"),
    ];
    let running = Running::start(&["--selector", "a", "--sink", "stdout"], &variables, &here);
    let address = running.line("serving HTTP")["address"].as_str().unwrap().to_owned();
    running.line("telemetry is not arriving; further failures are only counted");
    assert!(get(&address, "/metrics").contains("pod_monitor_otlp_export_failures_total{signal=\"traces\"} 1\n"));
    assert!(get(&address, "/livez").starts_with("HTTP/1.1 200"));
    running.signal("-TERM");
    assert_eq!(running.end(), Some(0));
}
