//! Captures from a scripted source, under virtual time.

use std::{collections::HashMap, sync::Mutex};

use bytes::Bytes;
use futures::{StreamExt, stream};
use http::StatusCode;

use super::*;
use crate::{
    lifecycle::event::{LogsStatus, ResourceUsage},
    logs::streams::{Chunks, Holder, LogRequest, Stream},
    watch::pod::PodUid,
};

/// What a read of a log meets.
enum Answer {
    Status(u16),
    /// Never answers.
    Hang,
    Body(Vec<Step>),
}

#[derive(Clone)]
enum Step {
    Bytes(Bytes),
    Wait(Duration),
    Hang,
    Break,
}

type Lines = dyn Fn(&LogRequest<'_>) -> Answer + Send + Sync;
type Script = dyn Fn(&LogRequest<'_>, u32) -> Answer + Send + Sync;

struct Fake {
    script: Box<Script>,
    uid: Box<dyn Fn() -> Result<Option<PodUid>, Error> + Send + Sync>,
    /// What a read of the last line meets; `None`: it says nothing.
    lines: Option<Box<Lines>>,
    /// Of the container, as the pod's status has it.
    restarts: std::sync::atomic::AtomicU32,
    /// Whole reads so far, by pod and stream.
    reads: Mutex<HashMap<(String, Stream), u32>>,
}

impl Fake {
    fn count(&self, pod: &str, stream: Stream) -> u32 {
        self.reads.lock().expect("not poisoned").get(&(pod.to_owned(), stream)).copied().unwrap_or_default()
    }
}

fn status(code: u16) -> Error {
    Error::Status { status: StatusCode::from_u16(code).expect("a status"), what: "pods/log" }
}

fn text(text: &str) -> Answer {
    Answer::Body(vec![Step::Bytes(Bytes::copy_from_slice(text.as_bytes()))])
}

impl LogSource for Arc<Fake> {
    async fn read(&self, request: &LogRequest<'_>) -> Result<Chunks, Error> {
        // Who asks for the last line is answered by none, unless the script has a word on it: then nothing contradicts.
        let nth = if request.part != Part::Whole {
            0
        } else {
            let mut reads = self.reads.lock().expect("not poisoned");
            let count = reads.entry((request.pod_name.to_owned(), request.stream)).or_default();
            *count += 1;
            *count
        };
        let answer = match (request.part, &self.lines) {
            (Part::LastLine, None) => Answer::Body(Vec::new()),
            (Part::LastLine, Some(lines)) => lines(request),
            _ => (self.script)(request, nth),
        };
        match answer {
            Answer::Status(code) => Err(status(code)),
            Answer::Hang => std::future::pending().await,
            Answer::Body(steps) => Ok(stream::iter(steps).filter_map(run).boxed()),
        }
    }

    async fn holder(&self, _: &str, _: &str, _: &str) -> Result<Option<Holder>, Error> {
        let restart_count = self.restarts.load(std::sync::atomic::Ordering::SeqCst);
        Ok((self.uid)()?.map(|uid| Holder { uid, restart_count: Some(restart_count) }))
    }
}

async fn run(step: Step) -> Option<Result<Bytes, Error>> {
    match step {
        Step::Bytes(bytes) => Some(Ok(bytes)),
        Step::Wait(time) => {
            sleep(time).await;
            None
        }
        Step::Hang => std::future::pending().await,
        Step::Break => Some(Err(Error::Body { what: "pods/log", source: "connection reset".into() })),
    }
}

fn fake(script: impl Fn(&LogRequest<'_>, u32) -> Answer + Send + Sync + 'static) -> Arc<Fake> {
    fake_with_uid(script, || Ok(Some(PodUid("uid".into()))))
}

fn fake_with_uid(
    script: impl Fn(&LogRequest<'_>, u32) -> Answer + Send + Sync + 'static,
    uid: impl Fn() -> Result<Option<PodUid>, Error> + Send + Sync + 'static,
) -> Arc<Fake> {
    Arc::new(Fake {
        script: Box::new(script),
        uid: Box::new(uid),
        lines: None,
        restarts: Default::default(),
        reads: Mutex::default(),
    })
}

pub(in crate::logs) const LIMITS: Limits = Limits {
    log_bytes_max: 1000,
    encoded_bytes_max: 4000,
    capture_deadline: Duration::from_secs(30),
    captures_max: 4,
    captures_per_node_max: 2,
};

pub(in crate::logs) fn target(pod: &str, node: &str) -> Target {
    Target {
        uid: PodUid("uid".into()),
        namespace: "ns".into(),
        pod_name: pod.into(),
        node_name: Some(node.into()),
        container: "main".into(),
        restart_count: 0,
        termination_message: None,
    }
}

async fn capture(source: &Arc<Fake>) -> Captured {
    Capturer::new(Arc::clone(source), LIMITS).capture(&target("pod", "node"), Report::Auto).await
}

fn told(captured: &Captured) -> (Option<&str>, Option<&str>, LogsStatus, Option<&str>) {
    let logs = &captured.logs;
    (captured.stdout.as_deref(), captured.stderr.as_deref(), logs.status, logs.reason.as_deref())
}

/// A server that splits streams.
fn split(request: &LogRequest<'_>) -> Answer {
    match request.stream {
        Stream::All => text("out\nerror\n"),
        Stream::Stdout => text("out\n"),
        Stream::Stderr => text("error\n"),
    }
}

#[tokio::test(start_paused = true)]
async fn split_streams_are_told_apart() {
    let source = fake(|request, _| split(request));
    let captured = capture(&source).await;
    assert_eq!(told(&captured), (Some("out\n"), Some("error\n"), LogsStatus::Complete, None));
    assert_eq!((captured.logs.stdout_bytes, captured.logs.stderr_bytes), (Some(4), Some(6)));
    assert_eq!(source.count("pod", Stream::All), 0);
}

#[tokio::test(start_paused = true)]
async fn equally_long_streams_are_proved_to_be_two() {
    let source = fake(|request, _| match request.stream {
        Stream::All => text("abab"),
        Stream::Stdout | Stream::Stderr => text("ab"),
    });
    let capturer = Capturer::new(Arc::clone(&source), LIMITS);
    for _ in 0..2 {
        let captured = capturer.capture(&target("pod", "node"), Report::Auto).await;
        assert_eq!(told(&captured), (Some("ab"), Some("ab"), LogsStatus::Complete, None));
    }
    assert_eq!(source.count("pod", Stream::All), 1, "once proved is remembered");
}

#[tokio::test(start_paused = true)]
async fn servers_that_cannot_split_double_nothing_and_are_remembered() {
    for (name, code, reads_of_stdout) in [("ignored", 200, 1), ("gate off", 422, 1), ("kubelet's gate off", 400, 1)] {
        let source = fake(move |request, _| match (request.stream, code) {
            (Stream::All, _) | (_, 200) => text("everything\n"),
            (_, code) => Answer::Status(code),
        });
        let capturer = Capturer::new(Arc::clone(&source), LIMITS);
        for _ in 0..3 {
            let captured = capturer.capture(&target("pod", "node"), Report::Auto).await;
            assert_eq!(told(&captured), (Some("everything\n"), None, LogsStatus::Complete, None), "{name}");
        }
        assert_eq!(source.count("pod", Stream::Stdout), reads_of_stdout, "{name}");
        assert_eq!(source.count("pod", Stream::All), 3, "{name}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_copy_is_not_told_when_the_proof_fails() {
    let source = fake(|request, _| match request.stream {
        Stream::All => Answer::Hang,
        Stream::Stdout | Stream::Stderr => text("everything\n"),
    });
    let captured = capture(&source).await;
    assert_eq!(told(&captured), (Some("everything\n"), None, LogsStatus::Partial, Some(reason::DEADLINE)));
}

#[tokio::test(start_paused = true)]
async fn no_output_is_empty_not_absent() {
    let captured = capture(&fake(|_, _| Answer::Body(vec![]))).await;
    assert_eq!(told(&captured), (Some(""), Some(""), LogsStatus::Complete, None));
    assert_eq!((captured.logs.stdout_bytes, captured.logs.stderr_bytes), (Some(0), Some(0)));
}

#[tokio::test(start_paused = true)]
async fn the_deadline_keeps_what_was_read() {
    let source = fake(|_, _| {
        Answer::Body(vec![
            Step::Bytes(Bytes::from_static(b"first ")),
            Step::Wait(Duration::from_secs(5)),
            Step::Bytes(Bytes::from_static(b"second")),
            Step::Hang,
        ])
    });
    let begun = Instant::now();
    let captured = capture(&source).await;
    assert_eq!(told(&captured), (Some("first second"), None, LogsStatus::Partial, Some(reason::DEADLINE)));
    assert!(begun.elapsed() <= LIMITS.capture_deadline, "{:?}", begun.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_hung_node_delays_only_itself() {
    let source = fake(|request, _| if request.pod_name.starts_with("hung") { Answer::Hang } else { split(request) });
    let capturer = Capturer::new(source, LIMITS);
    let begun = Instant::now();
    let mut hung = tokio::task::JoinSet::new();
    for i in 0..20 {
        let capturer = capturer.clone();
        hung.spawn(async move { capturer.capture(&target(&format!("hung-{i}"), "a"), Report::Auto).await });
    }
    tokio::task::yield_now().await;
    for _ in 0..10 {
        let captured = capturer.capture(&target("pod", "b"), Report::Auto).await;
        assert_eq!(captured.logs.status, LogsStatus::Complete);
    }
    assert_eq!(begun.elapsed(), Duration::ZERO, "node b waits for nothing");
    for captured in hung.join_all().await {
        assert_eq!(told(&captured), (None, None, LogsStatus::Unavailable, Some(reason::DEADLINE)));
    }
    assert!(begun.elapsed() <= LIMITS.capture_deadline, "waiting for permits counts: {:?}", begun.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_kubelets_failure_is_not_output() {
    for failure in [
        "unable to retrieve container logs for containerd://0123",
        "failed to try resolving symlinks in path \"/var/log/pods/x/0.log\": lstat: no such file or directory",
    ] {
        let captured = capture(&fake(move |_, _| text(failure))).await;
        assert_eq!(told(&captured), (None, None, LogsStatus::Unavailable, Some(reason::LOG_GONE)));
        let quoted = format!("it said: {failure}\n");
        let captured = capture(&fake({
            let quoted = quoted.clone();
            move |request, _| text(if request.stream == Stream::Stderr { "" } else { &quoted })
        }))
        .await;
        assert_eq!(told(&captured), (Some(quoted.as_str()), Some(""), LogsStatus::Complete, None));
    }
}

#[tokio::test(start_paused = true)]
async fn transient_failures_are_tried_again() {
    let source = fake(|request, nth| match (request.stream, nth) {
        (Stream::Stdout, 1) => Answer::Status(500),
        (Stream::Stdout, 2) => Answer::Body(vec![Step::Bytes(Bytes::from_static(b"half and more")), Step::Break]),
        _ => split(request),
    });
    let begun = Instant::now();
    let captured = capture(&source).await;
    assert_eq!(told(&captured), (Some("out\n"), Some("error\n"), LogsStatus::Complete, None));
    assert!(begun.elapsed() < Duration::from_secs(1), "{:?}", begun.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_node_that_stays_away_is_given_up_at_the_deadline() {
    let source = fake(|_, _| Answer::Status(504));
    let begun = Instant::now();
    let captured = capture(&source).await;
    assert_eq!(captured.logs.status, LogsStatus::Unavailable);
    assert_eq!(captured.logs.reason.as_deref(), Some(reason::DEADLINE));
    assert!(begun.elapsed() <= LIMITS.capture_deadline);
    assert!((10..ATTEMPTS_MAX).contains(&source.count("pod", Stream::Stdout)));
}

#[tokio::test(start_paused = true)]
async fn what_is_refused_or_gone_is_not_tried_again() {
    for (code, expected) in [
        (404, reason::POD_GONE),
        (400, reason::CONTAINER_NOT_STARTED),
        (403, reason::FORBIDDEN),
        (204, reason::CONTAINER_NOT_STARTED),
    ] {
        let source = fake(move |_, _| Answer::Status(code));
        let captured = capture(&source).await;
        assert_eq!(told(&captured), (None, None, LogsStatus::Unavailable, Some(expected)), "{code}");
        assert_eq!(source.count("pod", Stream::Stdout), 1, "{code}");
    }
}

#[tokio::test(start_paused = true)]
async fn the_output_of_another_pod_is_never_told() {
    let other = || Ok(Some(PodUid("other".into())));
    let captured = capture(&fake_with_uid(|request, _| split(request), other)).await;
    assert_eq!(told(&captured), (None, None, LogsStatus::Unavailable, Some(reason::POD_REPLACED)));
    let broken =
        |_: &LogRequest<'_>, _: u32| Answer::Body(vec![Step::Bytes(Bytes::from_static(b"secret")), Step::Hang]);
    let captured = capture(&fake_with_uid(broken, other)).await;
    assert_eq!(told(&captured), (None, None, LogsStatus::Unavailable, Some(reason::POD_REPLACED)));
}

#[tokio::test(start_paused = true)]
async fn a_pod_deleted_since_is_fine_and_an_unknown_one_is_said() {
    let captured = capture(&fake_with_uid(|request, _| split(request), || Ok(None))).await;
    assert_eq!(captured.logs.status, LogsStatus::Complete);
    let begun = Instant::now();
    let captured = capture(&fake_with_uid(|request, _| split(request), || Err(status(503)))).await;
    assert_eq!(told(&captured), (Some("out\n"), Some("error\n"), LogsStatus::Partial, Some(reason::UNVERIFIED)));
    assert!(begun.elapsed() <= LIMITS.capture_deadline);
}

#[tokio::test(start_paused = true)]
async fn a_frame_that_is_flushed_late_is_waited_for() {
    let source = fake(|request, nth| match (request.stream, nth) {
        (Stream::Stderr, _) => text(""),
        (_, 1) => text("STDOUT 5\nhel"),
        _ => text("STDOUT 5\nhelloSTDERR 2\nno"),
    });
    let captured = capture(&source).await;
    assert_eq!(told(&captured), (Some("hello"), Some("no"), LogsStatus::Complete, None));

    let source = fake(|request, _| text(if request.stream == Stream::Stderr { "" } else { "STDOUT 5\nhel" }));
    let begun = Instant::now();
    let captured = capture(&source).await;
    assert_eq!(told(&captured), (Some("hel"), Some(""), LogsStatus::Partial, Some(reason::FRAME_INCOMPLETE)));
    assert_eq!(source.count("pod", Stream::Stdout), FRAME_ATTEMPTS_MAX);
    assert!(begun.elapsed() < Duration::from_secs(2));
}

#[tokio::test(start_paused = true)]
async fn a_forged_report_is_only_a_claim() {
    let forged = r#"{"exit_code":0,"stdout":"all fine","resource_usage":{"peak_memory_kb":-1}}"#;
    let source = fake(move |request, _| text(if request.stream == Stream::Stderr { "Traceback" } else { forged }));
    let captured = capture(&source).await;
    assert_eq!(told(&captured), (Some("all fine"), Some("Traceback"), LogsStatus::Complete, None));
    assert_eq!((captured.claimed_exit_code, captured.resource_usage), (Some(0), None));
}

#[tokio::test(start_paused = true)]
async fn numbers_survive_the_loss_of_the_log() {
    let source = fake(|_, _| Answer::Status(404));
    let target = Target { termination_message: Some("exit_code=3\nclk_tck=100".into()), ..target("pod", "node") };
    let captured = Capturer::new(source, LIMITS).capture(&target, Report::Auto).await;
    let usage = ResourceUsage { clk_tck_hertz: Some(100), ..ResourceUsage::default() };
    assert_eq!((captured.claimed_exit_code, captured.resource_usage), (Some(3), Some(usage)));
    assert_eq!(captured.logs.status, LogsStatus::Unavailable);
}

#[tokio::test(start_paused = true)]
async fn a_hundred_megabytes_are_captured() {
    let chunk = Bytes::from(vec![b'x'; 1 << 20]);
    let source = fake(move |request, _| match request.stream {
        Stream::Stderr => text("why"),
        Stream::All | Stream::Stdout => Answer::Body(vec![Step::Bytes(chunk.clone()); 100]),
    });
    let captured = capture(&source).await;
    assert_eq!((captured.logs.status, captured.logs.stdout_bytes), (LogsStatus::Truncated, Some(100 << 20)));
    assert!(captured.stdout.is_some_and(|text| text.len() <= LIMITS.log_bytes_max && text.contains("bytes cut")));
    assert_eq!(captured.stderr.as_deref(), Some("why"));
}

fn line(source: &mut Arc<Fake>, lines: impl Fn(&LogRequest<'_>) -> Answer + Send + Sync + 'static) {
    Arc::get_mut(source).expect("not shared yet").lines = Some(Box::new(lines));
}

#[tokio::test(start_paused = true)]
async fn an_empty_answer_is_believed_only_when_the_last_line_is_empty_too() {
    // The runtime has not written yet, or the API server lost the kubelet and ended its answer as if that were all.
    let mut source = fake(|request, nth| match (request.stream, nth) {
        (Stream::Stdout, 1) => text(""),
        (Stream::Stdout, _) => text("late\n"),
        _ => text(""),
    });
    line(&mut source, |_| text("late\n"));
    let captured = capture(&source).await;
    assert_eq!(told(&captured), (Some("late\n"), Some(""), LogsStatus::Complete, None));
    // Nobody confirms it: that there was no output is not told.
    for (code, expected) in [(404, reason::POD_GONE), (400, reason::CONTAINER_NOT_STARTED)] {
        let mut source = fake(|_, _| text(""));
        line(&mut source, move |_| Answer::Status(code));
        let captured = capture(&source).await;
        assert_eq!(told(&captured), (None, None, LogsStatus::Unavailable, Some(expected)), "{code}");
    }
    let mut source = fake(|_, _| text(""));
    line(&mut source, |_| text("unable to retrieve container logs for containerd://0123"));
    let captured = capture(&source).await;
    assert_eq!(told(&captured), (None, None, LogsStatus::Unavailable, Some(reason::LOG_GONE)));
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_ends_before_the_log_does_is_read_again() {
    let mut source = fake(|request, nth| match (request.stream, nth) {
        (Stream::Stdout, 1) => text("one\ntw"),
        (Stream::Stdout, _) => text("one\ntwo\n"),
        _ => text(""),
    });
    line(&mut source, |_| text("two\n"));
    let captured = capture(&source).await;
    assert_eq!(told(&captured), (Some("one\ntwo\n"), Some(""), LogsStatus::Complete, None));
    // Each time: what there is, and that it is not all.
    let mut source = fake(|request, _| text(if request.stream == Stream::Stdout { "one\n" } else { "" }));
    line(&mut source, |_| text("two\n"));
    let captured = capture(&source).await;
    assert_eq!(told(&captured), (Some("one\n"), Some(""), LogsStatus::Partial, Some(reason::CUT_SHORT)));
    assert_eq!(source.count("pod", Stream::Stdout), CUT_ATTEMPTS_MAX);
    // The last line may be one of standard error, and longer than what is compared.
    let long = "x".repeat(5000);
    let mut source = fake({
        let long = long.clone();
        move |request, _| text(if request.stream == Stream::Stderr { &long } else { "out\n" })
    });
    line(&mut source, move |_| text(&long));
    assert_eq!(capture(&source).await.logs.status, LogsStatus::Truncated, "standard error is longer than the limit");
    assert_eq!(source.count("pod", Stream::Stdout), 1);
}

#[tokio::test(start_paused = true)]
async fn the_output_of_the_attempt_that_ended_is_told() {
    // (restarts in the verdict, restarts now, what is told)
    let previous = (Some("previous\n"), Some(""), LogsStatus::Complete, None);
    let latest = (Some("latest\n"), Some(""), LogsStatus::Complete, None);
    let gone = (None, None, LogsStatus::Unavailable, Some(reason::ATTEMPT_GONE));
    for (verdict, now, expected) in [(0, 0, latest), (3, 3, latest), (0, 1, previous), (3, 4, previous), (0, 2, gone)] {
        let source = fake(|request, _| match (request.stream, request.run) {
            (Stream::Stderr, _) => text(""),
            (_, Run::Latest) => text("latest\n"),
            (_, Run::Previous) => text("previous\n"),
        });
        source.restarts.store(now, std::sync::atomic::Ordering::SeqCst);
        let target = Target { restart_count: verdict, ..target("pod", "node") };
        let captured = Capturer::new(Arc::clone(&source), LIMITS).capture(&target, Report::Auto).await;
        assert_eq!(told(&captured), expected, "{verdict} then {now}");
    }
}
