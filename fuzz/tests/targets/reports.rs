//! Reports: what executors print, and what programs print to look like one.
//!
//! Three bytes choose the format, how much is kept and the chunks; then come the termination message, up to a NUL, and the
//! output.

use pod_monitor::{
    lifecycle::event::{Body, Captured, Ended, Event, EventType, LogsStatus, Outcome, Verdict},
    logs::{
        Report,
        report::{FrameState, Printed, REPORT_LINE_BYTES_MAX, Reader},
    },
    watch::pod::PodUid,
};
use serde_json::json;

use super::told;

const HEAD: usize = 3;
/// Streams that a reader holds at most: all of it, two frames, two of the last report; each as head and tail.
const STREAMS_MAX: usize = 5;

#[derive(Clone, Copy)]
struct Chosen {
    report: Report,
    lean: bool,
    kept: usize,
    chunk: usize,
}

pub(super) fn run(data: &[u8]) {
    let Some((head, rest)) = data.split_at_checked(HEAD) else { return };
    let report = [Report::Auto, Report::Json, Report::Framed, Report::Raw][usize::from(head[0] & 3)];
    let chosen =
        Chosen { report, lean: head[0] & 4 != 0, kept: usize::from(head[1]) * 8, chunk: usize::from(head[2]).max(1) };
    let at = rest.iter().position(|byte| *byte == 0);
    let (message, output) = at.map_or((&[][..], rest), |at| (&rest[..at], &rest[at + 1..]));
    let message = String::from_utf8_lossy(message);
    let message = (!message.is_empty()).then_some(&*message);
    let printed = told_of(output, chosen, usize::MAX, message);
    assert_eq!(printed, told_of(output, chosen, chosen.chunk, message), "chunks do not matter");
    honest(&printed, output, chosen);
    tell(printed);
    framed(output, chosen);
    in_json(output, chosen);
}

fn read(output: &[u8], chosen: Chosen, chunk: usize) -> Reader {
    let new = if chosen.lean { Reader::lean } else { Reader::new };
    let mut reader = new(chosen.report, chosen.kept);
    for part in output.chunks(chunk) {
        reader.push(part);
        // What is kept of a report was put together from head and tail, with room for twice as much.
        let line_bytes_max = if chosen.lean { 2 * chosen.kept } else { REPORT_LINE_BYTES_MAX };
        let bytes_max = 2 * STREAMS_MAX * chosen.kept + line_bytes_max;
        assert!(reader.capacity() <= bytes_max, "{} of {bytes_max} bytes", reader.capacity());
    }
    assert_eq!(reader.total(), output.len() as u64);
    reader
}

fn told_of(output: &[u8], chosen: Chosen, chunk: usize, message: Option<&str>) -> Captured {
    let printed = read(output, chosen, chunk).finish(message);
    numbers(&printed);
    printed.captured(chosen.kept, 4 + 2 * chosen.kept, None, output.len() as u64)
}

fn numbers(printed: &Printed) {
    let seconds = printed.usage.as_ref().and_then(|usage| usage.execution_time_wall_seconds);
    assert!(seconds.is_none_or(|seconds| seconds.is_finite() && seconds >= 0.0 && seconds.is_sign_positive()));
}

fn honest(captured: &Captured, output: &[u8], chosen: Chosen) {
    let texts = [&captured.stdout, &captured.stderr];
    assert!(texts.into_iter().flatten().all(|text| text.len() <= chosen.kept));
    if chosen.report == Report::Raw {
        assert!(captured.claimed_exit_code.is_none() && captured.resource_usage.is_none(), "nobody asked for a report");
        assert_eq!(captured.logs.stdout_bytes, Some(output.len() as u64));
    }
    if let (LogsStatus::Complete, Some(text), Some(bytes)) =
        (captured.logs.status, &captured.stdout, captured.logs.stdout_bytes)
        && std::str::from_utf8(output).is_ok()
        && !text.contains(char::REPLACEMENT_CHARACTER)
    {
        assert_eq!(text.len() as u64, bytes, "complete, and of another size");
    }
}

/// The event of an execution that failed with exit code 3, whatever its report claims.
fn tell(captured: Captured) {
    let at = "2026-11-25T10:00:00Z".parse().unwrap();
    let verdict = Verdict {
        failed_init: None,
        outcome: Outcome::Completed,
        exit_code: Some(3),
        failure: None,
        started_at: None,
        finished_at: None,
        at,
        containers: Vec::new(),
        container: "main".into(),
        restart_count: 0,
        termination_message: None,
    };
    let event = Event {
        event_id: uuid::Uuid::nil(),
        timestamp: at,
        observed_at: at,
        execution_id: "1".into(),
        user_id: None,
        pod_name: "exec-1".into(),
        namespace: "runs".into(),
        pod_uid: PodUid("uid".into()),
        node_name: None,
        sequence: 1,
        owner: None,
        earlier_end: None,
        parent: None,
        body: Body::Ended(Box::new(Ended { verdict, captured })),
    };
    assert_eq!(event.body.event_type(), EventType::ExecutionCompleted);
    told::check(&event);
}

/// Two streams in frames come back as they were, whatever they hold: no output can forge a border.
fn framed(output: &[u8], chosen: Chosen) {
    let (out, err) = output.split_at(output.len() / 2);
    let header = |name: &str, bytes: &[u8]| format!("{name} {}\n", bytes.len()).into_bytes();
    let text = [&header("STDOUT", out)[..], out, &header("STDERR", err), err].concat();
    let whole = text.len();
    for report in [Report::Auto, Report::Framed] {
        let chosen = Chosen { report, lean: chosen.lean, kept: whole, chunk: chosen.chunk };
        let printed = read(&text, chosen, chosen.chunk).finish(None);
        assert_eq!(printed.frame, Some(FrameState::Complete));
        // A byte that is no text takes three.
        let captured = printed.captured(3 * whole, usize::MAX, None, whole as u64);
        assert_eq!(captured.stdout.as_deref(), Some(&*String::from_utf8_lossy(out)));
        assert_eq!(captured.stderr.as_deref(), Some(&*String::from_utf8_lossy(err)));
        assert_eq!(captured.logs.status, LogsStatus::Complete);
    }
}

/// The last report counts, and its streams come back as they were, whatever was printed before it.
fn in_json(output: &[u8], chosen: Chosen) {
    let text = String::from_utf8_lossy(output);
    let half = text.floor_char_boundary(text.len() / 2);
    let (out, err) = text.split_at(half);
    let report = json!({ "exit_code": 7, "stdout": out, "stderr": err, "resource_usage": { "cpu_time_jiffies": 5 } });
    let printed_before = [output, b"\n", report.to_string().as_bytes()].concat();
    let kept = text.len();
    let chosen = Chosen { report: Report::Json, lean: false, kept, chunk: chosen.chunk };
    let printed = read(&printed_before, chosen, chosen.chunk).finish(Some("exit_code=9"));
    assert_eq!(printed.claimed_exit_code, Some(7));
    let captured = printed.captured(kept, usize::MAX, None, kept as u64);
    assert_eq!((captured.stdout.as_deref(), captured.stderr.as_deref()), (Some(out), Some(err)));
    assert_eq!(captured.resource_usage.and_then(|usage| usage.cpu_time_jiffies), Some(5));
}

pub(super) fn seeds() -> Vec<Vec<u8>> {
    let usage = r#""resource_usage":{"execution_time_wall_seconds":1.5,"cpu_time_jiffies":7,"clk_tck_hertz":100,"peak_memory_kb":9}"#;
    let numbers = "exit_code=3\ncpu_jiffies=7\nclk_tck=100\npeak_memory_kb=9\nwall_seconds=1.5\n";
    let outputs = [
        (String::new(), String::new()),
        (String::new(), format!("hello\n{{\"exit_code\":0,{usage},\"stdout\":\"a\",\"stderr\":\"b\"}}\n")),
        (String::new(), format!("{{\"stdout\":\"a\"}}\n{{\"exit_code\":-1,{usage}}}")),
        (String::new(), "{\"exit_code\":\"x\",\"stdout\":[1,{\"a\":null}],\"stderr\":1e999}\n".to_owned()),
        (numbers.to_owned(), "STDOUT 5\nhello\nSTDERR 4\nwhy\n".to_owned()),
        (numbers.to_owned(), "STDOUT 99\nhello".to_owned()),
        (numbers.to_owned(), "STDOUT 5\nhelloSTDERR 4\nwhy\nand more".to_owned()),
        (numbers.to_owned(), "STDOUT 18446744073709551615\nx".to_owned()),
        ("wall_seconds=-0\nexit_code=+5\nclk_tck=99999999999999999999".to_owned(), String::new()),
        ("wall_seconds=1e999\nexit_code=9223372036854775808".to_owned(), String::new()),
        (String::new(), "{\"stdout\":\"\\ud83d\\udca9\\u0000\"}\n".to_owned()),
    ];
    let mut seeds = Vec::new();
    for (n, (message, output)) in outputs.iter().enumerate() {
        for mode in 0..4_u8 {
            let head = [mode | (n as u8 & 1) << 2, [0, 2, 40, 255][n % 4], [1, 3, 255][n % 3]];
            seeds.push([&head[..], message.as_bytes(), b"\0", output.as_bytes()].concat());
        }
    }
    seeds
}
