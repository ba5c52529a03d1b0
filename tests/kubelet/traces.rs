//! What a publication and a capture look like in the traces, at a receiver that speaks OTLP over HTTP.

use std::{
    collections::BTreeSet,
    io::{BufRead, BufReader, Read, Write},
    net::{TcpListener, TcpStream},
    sync::{Arc, Mutex},
    thread,
    time::Duration,
};

use anyhow::{Context, Result};
use testkit::clients::until;

use super::{Watched, support::LIMIT};

/// Keeps the bodies of all requests; ends with the process.
#[derive(Clone, Default)]
pub(crate) struct Receiver(Arc<Mutex<Vec<u8>>>);

impl Receiver {
    pub(crate) fn start() -> Result<(Self, String)> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let (receiver, endpoint) = (Self::default(), format!("http://{}", listener.local_addr()?));
        let kept = receiver.clone();
        thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let kept = kept.clone();
                thread::spawn(move || while kept.one_request(&stream).is_ok() {});
            }
        });
        Ok((receiver, endpoint))
    }

    fn one_request(&self, mut stream: &TcpStream) -> Result<()> {
        let mut reader = BufReader::new(stream);
        let mut length = 0;
        loop {
            let mut line = String::new();
            anyhow::ensure!(reader.read_line(&mut line)? > 0, "the connection is closed");
            if line == "\r\n" {
                break;
            }
            if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
                length = value.trim().parse()?;
            }
        }
        let mut body = vec![0; length];
        reader.read_exact(&mut body)?;
        self.0.lock().unwrap().extend(body);
        stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-type: application/x-protobuf\r\ncontent-length: 0\r\n\r\n")?;
        Ok(())
    }

    /// The trace ids of all spans of this name: field 1 of a Span, 16 bytes, a little before its name.
    fn traces_of(&self, name: &str) -> BTreeSet<Vec<u8>> {
        const FIELD: [u8; 2] = [0x0a, 16];
        /// Between them: the span's own id, its parent's, flags and state.
        const BETWEEN_MAX: usize = 64;
        let (bytes, name) = (self.0.lock().unwrap(), span_name(name));
        let found = bytes.windows(name.len()).enumerate().filter(|(_, window)| *window == name).map(|(at, _)| at);
        let trace = |at: usize| {
            let from = at.saturating_sub(BETWEEN_MAX);
            let field = bytes[from..at].windows(2).rposition(|window| window == FIELD)? + from + 2;
            Some(bytes.get(field..field + 16)?.to_vec())
        };
        found.filter_map(trace).collect()
    }

    pub(crate) fn has(&self, wanted: &[u8]) -> bool {
        self.0.lock().unwrap().windows(wanted.len()).any(|window| window == wanted)
    }
}

/// The trace id of a W3C `traceparent`, as bytes.
fn trace_id(traceparent: &str) -> Result<Vec<u8>> {
    let hex = traceparent.split('-').nth(1).context("version-traceid-spanid-flags")?;
    (0..hex.len()).step_by(2).map(|at| Ok(u8::from_str_radix(&hex[at..at + 2], 16)?)).collect()
}

/// A span's name as OTLP has it: field 5 of a Span, a string. The bare word would also stand in the paths of source files.
pub(crate) fn span_name(name: &str) -> Vec<u8> {
    let length = u8::try_from(name.len()).expect("short names");
    [&[0x2a, length], name.as_bytes()].concat()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_publication_and_a_capture_are_spans_and_events_name_their_trace() -> Result<()> {
    let (receiver, endpoint) = Receiver::start()?;
    let variables = [("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint.as_str()), ("OTEL_BSP_SCHEDULE_DELAY", "100")];
    let mut watched = Watched::with_variables("traces", &variables).await?;
    let uid = watched.script("traced", "echo hello").await?;
    let end = watched.end(&uid).await?;
    let trace = trace_id(&end.headers["traceparent"])?;
    assert_eq!(trace.len(), 16);
    for name in ["publish", "capture"] {
        let look = async || Ok(receiver.has(&span_name(name)).then_some(()));
        until(LIMIT, &format!("the span {name} of the end event has arrived"), look).await?;
    }
    until(LIMIT, "the event's trace has arrived", async || Ok(receiver.has(&trace).then_some(()))).await?;
    // It took its shard over: one trace, a span for each leg.
    let legs = ["noticed", "acquire", "fence", "barrier", "restore", "list", "reconcile", "first commit"];
    let look = async || Ok(receiver.traces_of("take over").pop_first());
    let take_over = until(LIMIT, "the span of the take-over has arrived", look).await?;
    for name in legs {
        let look = async || Ok(receiver.traces_of(name).contains(&take_over).then_some(()));
        until(LIMIT, &format!("the span {name} has arrived in the trace of the take-over"), look).await?;
    }
    assert!(!receiver.traces_of("capture").contains(&take_over), "another trace");
    // Bodies of logs never reach a span.
    until(Duration::from_secs(5), "the pod's uid has arrived", async || Ok(receiver.has(uid.as_bytes()).then_some(())))
        .await?;
    assert!(!receiver.has(b"hello"));
    watched.close().await
}
