//! Output, as the log API sends it: any bytes in any chunks, through the keeper, the cut, and whole captures.
//!
//! Five bytes choose the bounds, the chunks, what the servers do and how much of the output is standard error; then comes
//! the output.

use std::{future::Future, time::Duration};

use bytes::Bytes;
use futures::{StreamExt, stream};
use http::StatusCode;
use pod_monitor::{
    lifecycle::event::{Captured, LogsStatus},
    logs::{
        Limits, Report, Target,
        capture::Capturer,
        follow::Follow,
        limits::{Fitted, Keeper, Kept, encoded_len, fit, fit_both},
        reason,
        streams::{
            self, Chunks, Error, Holder, LogRequest, LogSource, Part, Stream, is_kubelet_failure,
            kubelet_failure_at_end,
        },
    },
    watch::pod::PodUid,
};
use tokio::time::Instant;

/// Bytes before the output.
const HEAD: usize = 5;
const DEADLINE: Duration = Duration::from_secs(30);

/// What the input's first bytes choose.
#[derive(Clone, Copy)]
struct Chosen {
    /// Kept per stream, in bytes.
    kept: usize,
    /// Both streams as JSON, in bytes.
    encoded: usize,
    /// Sizes of chunks follow from it.
    chunks: u8,
    servers: Servers,
    /// Of 255 parts of the output, those that are standard output.
    stdout_share: u8,
}

#[derive(Clone, Copy)]
struct Servers {
    /// Standard output and standard error can be asked for.
    split: bool,
    /// The connection breaks in the midst of the first reads.
    breaks: bool,
    /// The last line is not what was read.
    cut_short: bool,
    /// Another pod has the name.
    replaced: bool,
    report: Report,
}

pub(super) fn run(data: &[u8]) {
    let Some((head, output)) = data.split_at_checked(HEAD) else { return };
    let flags = head[3];
    let servers = Servers {
        split: flags & 1 != 0,
        breaks: flags & 2 != 0,
        cut_short: flags & 4 != 0,
        replaced: flags & 0xe0 == 0xe0,
        report: [Report::Raw, Report::Auto, Report::Framed, Report::Json][usize::from(flags >> 3 & 3)],
    };
    let (kept, encoded) = (usize::from(head[0]) * 4, 4 + usize::from(head[1]) * 8);
    let chosen = Chosen { kept, encoded, chunks: head[2], servers, stdout_share: head[4] };
    keeping(output, chosen);
    kubelet_words(output);
    capturing(output, chosen);
}

/// Chunks of sizes that repeat and differ.
fn chunks(bytes: &[u8], chosen: u8) -> Vec<&[u8]> {
    let (mut rest, mut parts, mut size) = (bytes, Vec::new(), usize::from(chosen).max(1));
    while !rest.is_empty() {
        let (part, after) = rest.split_at(size.min(rest.len()));
        parts.push(part);
        rest = after;
        // Few chunks of a long output, or there would be as many as bytes.
        size = (size * 5 + 3) % 509 + 1 + bytes.len() / 256;
    }
    parts
}

fn keep(cap: usize, parts: &[&[u8]]) -> Kept {
    let mut keeper = Keeper::new(cap);
    for part in parts {
        keeper.push(part);
        assert!(keeper.capacity() <= cap, "{} of {cap} bytes", keeper.capacity());
    }
    keeper.finish()
}

fn keeping(output: &[u8], chosen: Chosen) {
    let (out, err) = split(output, chosen);
    let whole = keep(chosen.kept, &[out]);
    let fitted = fit(&whole, chosen.kept, chosen.encoded);
    let chunked = keep(chosen.kept, &chunks(out, chosen.chunks));
    assert_eq!(fitted, fit(&chunked, chosen.kept, chosen.encoded), "chunks do not matter");
    assert_eq!(whole.total(), out.len() as u64);
    bounded(&fitted, out, chosen.kept);
    let errors = keep(chosen.kept, &chunks(err, chosen.chunks));
    let (both_out, both_err) = fit_both(Some(&whole), Some(&errors), chosen.kept, chosen.encoded);
    let (both_out, both_err) = (both_out.expect("given"), both_err.expect("given"));
    bounded(&both_out, out, chosen.kept);
    bounded(&both_err, err, chosen.kept);
    let encoded = both_out.encoded_bytes + both_err.encoded_bytes;
    assert!(encoded <= chosen.encoded, "{encoded} of {} bytes", chosen.encoded);
}

fn bounded(fitted: &Fitted, raw: &[u8], cap: usize) {
    assert!(fitted.text.len() <= cap, "{} of {cap} bytes", fitted.text.len());
    let encoded = serde_json::to_string(&fitted.text).expect("strings encode").len();
    assert_eq!((fitted.encoded_bytes, encoded_len(&fitted.text)), (encoded, encoded));
    match fitted.cut {
        false => assert_eq!(fitted.text, String::from_utf8_lossy(raw)),
        true => assert!(is_cut_of(&fitted.text, raw), "{:?} is no cut of {raw:?}", fitted.text),
    }
}

/// Whether a text is the head of what was printed, the mark, and its tail, with the right number in the mark where that can
/// be told. Output may contain marks: every place is tried.
pub(super) fn is_cut_of(text: &str, raw: &[u8]) -> bool {
    let original = String::from_utf8_lossy(raw);
    let valid = std::str::from_utf8(raw).is_ok();
    text.is_empty()
        || text.match_indices("\n[... ").any(|(at, opening)| {
            let Some((number, suffix)) = text[at + opening.len()..].split_once(" bytes cut ...]\n") else {
                return false;
            };
            let (prefix, Ok(cut)) = (&text[..at], number.parse::<usize>()) else { return false };
            let shown = prefix.len() + suffix.len();
            original.starts_with(prefix)
                && original.ends_with(suffix)
                && shown <= original.len()
                && cut <= raw.len()
                && (!valid || cut == raw.len() - shown)
        })
}

/// What is taken for a kubelet's own words is one of the texts that kubelets write, and nothing besides.
fn kubelet_words(output: &[u8]) {
    if is_kubelet_failure(output) {
        assert!(output.len() <= streams::KUBELET_FAILURE_BYTES_MAX);
        let line = output.strip_suffix(b"\n").unwrap_or(output);
        assert!(!line.contains(&b'\n') && (line.starts_with(b"unable to ") || line.starts_with(b"failed to ")));
    }
    if let Some(at) = kubelet_failure_at_end(output) {
        let said = &output[at..];
        assert!(said.len() <= streams::KUBELET_APPENDS_MAX, "{} bytes", said.len());
        assert!(said.starts_with(b"rpc error: ") && said.ends_with(b"\": not found"));
    }
}

fn split(output: &[u8], chosen: Chosen) -> (&[u8], &[u8]) {
    output.split_at(output.len() * usize::from(chosen.stdout_share) / 255)
}

/// A cluster in which one container has printed something.
struct Fake {
    out: Bytes,
    err: Bytes,
    chosen: Chosen,
    chunks: u8,
    breaks_left: std::sync::atomic::AtomicU32,
}

fn status(code: StatusCode) -> Error {
    Error::Status { status: code, what: "pods/log" }
}

impl Fake {
    fn new(output: &[u8], chosen: Chosen, chunks: u8) -> Self {
        let (out, err) = split(output, chosen);
        let breaks = if chosen.servers.breaks { u32::from(chosen.stdout_share % 4) + 1 } else { 0 };
        let (out, err) = (Bytes::copy_from_slice(out), Bytes::copy_from_slice(err));
        Self { out, err, chosen, chunks, breaks_left: breaks.into() }
    }

    fn body(&self, stream: Stream) -> Vec<u8> {
        match stream {
            Stream::All => [&self.out[..], &self.err[..]].concat(),
            Stream::Stdout => self.out.to_vec(),
            Stream::Stderr => self.err.to_vec(),
        }
    }

    fn answer(&self, request: &LogRequest<'_>) -> Result<Chunks, Error> {
        if request.stream != Stream::All && !self.chosen.servers.split {
            return Err(status(StatusCode::UNPROCESSABLE_ENTITY));
        }
        let mut body = self.body(request.stream);
        if matches!(request.part, Part::LastLine | Part::LastLineFollowed) {
            let without_end = body.strip_suffix(b"\n").unwrap_or(&body);
            let begin = without_end.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
            body.drain(..begin);
            if self.chosen.servers.cut_short {
                body.push(b'x');
            }
        }
        let mut parts: Vec<Result<Bytes, Error>> =
            chunks(&body, self.chunks).into_iter().map(|part| Ok(Bytes::copy_from_slice(part))).collect();
        let left = &self.breaks_left;
        use std::sync::atomic::Ordering::Relaxed;
        if request.part == Part::Whole && left.load(Relaxed) > 0 {
            left.fetch_sub(1, Relaxed);
            // By bytes, so that it breaks at the same place whatever the chunks.
            let half = Bytes::copy_from_slice(&body[..body.len() / 2]);
            parts = vec![Ok(half), Err(Error::Body { what: "pods/log", source: "connection reset".into() })];
        }
        Ok(stream::iter(parts).boxed())
    }
}

impl LogSource for Fake {
    fn read(&self, request: &LogRequest<'_>) -> impl Future<Output = Result<Chunks, Error>> + Send {
        let answer = self.answer(request);
        async move { answer }
    }

    async fn holder(&self, _: &str, _: &str, _: &str) -> Result<Option<Holder>, Error> {
        let uid = if self.chosen.servers.replaced { "another" } else { "uid" };
        Ok(Some(Holder { uid: PodUid(uid.into()), restart_count: Some(0) }))
    }
}

fn capturing(output: &[u8], chosen: Chosen) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
    runtime.expect("a runtime without I/O").block_on(async {
        let at_once = captured(output, chosen, u8::MAX).await;
        let chunked = captured(output, chosen, chosen.chunks).await;
        assert_eq!(at_once, chunked, "chunks do not matter to a capture");
        honest(&at_once, output, chosen, false);
        let followed = followed(output, chosen, u8::MAX).await;
        let in_chunks = self::followed(output, chosen, chosen.chunks).await;
        assert_eq!(followed, in_chunks, "chunks do not matter to what is followed");
        honest(&followed, output, chosen, true);
    });
}

fn target() -> Target {
    Target {
        uid: PodUid("uid".into()),
        namespace: "runs".into(),
        pod_name: "exec-1".into(),
        node_name: Some("node-1".into()),
        container: "main".into(),
        restart_count: 0,
        termination_message: Some("exit_code=3\ncpu_jiffies=7".into()),
    }
}

fn limits(chosen: Chosen) -> Limits {
    Limits {
        log_bytes_max: chosen.kept,
        encoded_bytes_max: chosen.encoded,
        capture_deadline: DEADLINE,
        captures_max: 4,
        captures_per_node_max: 2,
    }
}

async fn captured(output: &[u8], chosen: Chosen, chunks: u8) -> Captured {
    let capturer = Capturer::new(Fake::new(output, chosen, chunks), limits(chosen));
    let began = Instant::now();
    let captured = capturer.capture(&target(), chosen.servers.report).await;
    assert!(began.elapsed() <= DEADLINE, "a capture of {:?}", began.elapsed());
    captured
}

async fn followed(output: &[u8], chosen: Chosen, chunks: u8) -> Captured {
    let capturer = Capturer::new(Fake::new(output, chosen, chunks), limits(chosen));
    let follow = Follow::new(target(), chosen.servers.report, limits(chosen));
    let _ = tokio::time::timeout(DEADLINE, capturer.follow(&follow)).await;
    capturer.capture_gone(&target(), &follow).await
}

/// What is told of output is what was printed, as far as it says so. `followed`: a log that is followed is read once, so that
/// two streams with the same words look like one that a server which cannot split them sent twice, and are told as one.
fn honest(captured: &Captured, output: &[u8], chosen: Chosen, followed: bool) {
    let texts = [&captured.stdout, &captured.stderr];
    let encoded: usize = texts.into_iter().flatten().map(|text| encoded_len(text)).sum();
    assert!(encoded <= chosen.encoded, "{encoded} of {} bytes", chosen.encoded);
    assert!(texts.into_iter().flatten().all(|text| text.len() <= chosen.kept));
    let logs = &captured.logs;
    if let Some(why) = &logs.reason {
        assert!(reason::ALL.contains(&&**why), "no known reason: {why}");
    }
    let whole = matches!(logs.status, LogsStatus::Complete | LogsStatus::Truncated);
    assert_eq!(whole, logs.reason.is_none(), "{logs:?}");
    if chosen.servers.replaced {
        assert!(captured.stdout.is_none() && captured.stderr.is_none(), "another's output: {logs:?}");
    }
    if !whole || chosen.servers.report != Report::Raw {
        return;
    }
    // Raw and whole: each stream is what was printed there, or all is in one.
    let (out, err) = split(output, chosen);
    let doubled = followed && out == err;
    let expected: &[u8] = if captured.stderr.is_some() || doubled && chosen.servers.split { out } else { output };
    assert_eq!(logs.stdout_bytes, Some(expected.len() as u64));
    if let Some(text) = &captured.stderr {
        assert_eq!(logs.stderr_bytes, Some(err.len() as u64));
        let same = *text == String::from_utf8_lossy(err);
        assert!(same || is_cut_of(text, err), "{text:?}");
    }
    let text = captured.stdout.as_deref().unwrap_or_default();
    let same = text == String::from_utf8_lossy(expected);
    assert!(same || (logs.status == LogsStatus::Truncated && is_cut_of(text, expected)), "{text:?}");
}

pub(super) fn seeds() -> Vec<Vec<u8>> {
    let not_found =
        "rpc error: code = NotFound desc = an error occurred when try to find container \"4f0c\": not found";
    let bodies = [
        String::new(),
        "hello\nworld\n".to_owned(),
        "💩ä€".repeat(60),
        "line\n".repeat(300),
        "\u{0}\u{1b}[31m\"\\\t".repeat(40),
        "unable to retrieve container logs for containerd://4f0c".to_owned(),
        "failed to open log file \"/var/log/pods/x\": no such file\n".to_owned(),
        format!("output\n{not_found}"),
        "STDOUT 5\nhelloSTDERR 4\nwhy\n".to_owned(),
        "out\n{\"exit_code\":1,\"stdout\":\"a\",\"stderr\":\"b\"}\n".to_owned(),
        "\n[... 3 bytes cut ...]\n".repeat(9),
    ];
    let heads =
        [[255, 255, 255, 0, 255], [20, 30, 7, 1, 128], [40, 9, 3, 11, 200], [16, 60, 1, 6, 90], [60, 90, 2, 18, 250]];
    let mut seeds = Vec::new();
    for (n, body) in bodies.iter().enumerate() {
        for head in [heads[n % heads.len()], heads[(n + 1) % heads.len()]] {
            seeds.push([&head[..], body.as_bytes()].concat());
        }
    }
    seeds.push([&heads[1][..], &[0xff, 0x80, 0xf0, 0x9f, 0xc3].repeat(40)].concat());
    seeds
}
