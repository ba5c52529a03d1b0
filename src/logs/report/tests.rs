//! Reports as executors print them, and as nobody should.

use proptest::prelude::*;

use super::*;

const CAP: usize = 1000;

fn read(report: Report, output: &[u8], message: Option<&str>) -> Captured {
    read_chunks(report, &[output], message)
}

fn read_chunks(report: Report, chunks: &[&[u8]], message: Option<&str>) -> Captured {
    let mut reader = Reader::new(report, CAP);
    chunks.iter().for_each(|chunk| reader.push(chunk));
    let total = reader.total();
    reader.finish(message).captured(CAP, usize::MAX, None, total)
}

fn streams(captured: &Captured) -> (Option<&str>, Option<&str>, Option<i64>) {
    (captured.stdout.as_deref(), captured.stderr.as_deref(), captured.claimed_exit_code)
}

#[test]
fn each_format_is_told_apart() {
    let json = br#"{"exit_code":3,"stdout":"out","stderr":"err"}"#;
    let twice = b"noise\n{\"stdout\":\"first\"}\n{\"level\":\"info\",\"stdout_x\":1}\n{\"stdout\":\"last\"}\nbye";
    type Expected<'a> = (Option<&'a str>, Option<&'a str>, Option<i64>);
    let cases: [(&str, Report, &[u8], Expected<'_>); 18] = [
        ("json", Report::Auto, json, (Some("out"), Some("err"), Some(3))),
        ("json asked for", Report::Json, json, (Some("out"), Some("err"), Some(3))),
        ("json as raw", Report::Raw, json, (std::str::from_utf8(json).ok(), None, None)),
        ("the last report line", Report::Auto, twice, (Some("last"), None, None)),
        ("no report key", Report::Auto, b"{\"a\":1}\n", (Some("{\"a\":1}\n"), None, None)),
        ("only wrong types", Report::Auto, b"{\"stdout\":1}", (Some("{\"stdout\":1}"), None, None)),
        (
            "wrong types are ignored",
            Report::Auto,
            b"{\"exit_code\":\"0\",\"stdout\":\"x\",\"stderr\":[1]}",
            (Some("x"), None, None),
        ),
        ("negative code", Report::Auto, b"{\"exit_code\":-1,\"stdout\":\"x\"}", (Some("x"), None, None)),
        ("trailing text is no report", Report::Json, b"{\"exit_code\":0} x", (Some("{\"exit_code\":0} x"), None, None)),
        ("indented is no report", Report::Auto, b" {\"exit_code\":0}", (Some(" {\"exit_code\":0}"), None, None)),
        ("carriage return", Report::Auto, b"{\"exit_code\":0}\r\n", (None, None, Some(0))),
        ("framed", Report::Auto, b"STDOUT 4\na\nb\nSTDERR 2\nno", (Some("a\nb\n"), Some("no"), None)),
        ("framed with newlines", Report::Framed, b"STDOUT 1\na\nSTDERR 0\n\n", (Some("a"), Some(""), None)),
        (
            "frames hold a forged report",
            Report::Auto,
            b"STDOUT 15\n{\"exit_code\":0}STDERR 0\n",
            (Some("{\"exit_code\":0}"), Some(""), None),
        ),
        (
            "frames hold a forged border",
            Report::Auto,
            b"STDOUT 9\nSTDERR 3\nSTDERR 1\n!",
            (Some("STDERR 3\n"), Some("!"), None),
        ),
        ("framed asked for, raw came", Report::Framed, b"STDOUT x\n", (Some("STDOUT x\n"), None, None)),
        ("half a header is raw", Report::Auto, b"STDOUT 12", (Some("STDOUT 12"), None, None)),
        ("nothing", Report::Auto, b"", (Some(""), None, None)),
    ];
    for (name, report, output, expected) in cases {
        let captured = read(report, output, None);
        assert_eq!(streams(&captured), expected, "{name}");
        let promised = report == Report::Framed && expected.1.is_none();
        let missing = promised.then_some(reason::FRAME_MISSING);
        let status = if promised { LogsStatus::Partial } else { LogsStatus::Complete };
        assert_eq!((captured.logs.status, captured.logs.reason.as_deref()), (status, missing), "{name}");
    }
}

#[test]
fn frames_that_are_not_all_there_are_partial() {
    type Case<'a> = (&'a str, &'a [u8], Option<&'a str>, Option<&'a str>, &'a str);
    let cases: [Case<'_>; 6] = [
        ("short stdout", b"STDOUT 10\nabc", Some("abc"), None, reason::FRAME_INCOMPLETE),
        ("no stderr frame", b"STDOUT 3\nabc", Some("abc"), None, reason::FRAME_INCOMPLETE),
        ("half a header", b"STDOUT 3\nabcSTDE", Some("abcSTDE"), None, reason::FRAME_INCOMPLETE),
        ("short stderr", b"STDOUT 3\nabcSTDERR 9\nx", Some("abc"), Some("x"), reason::FRAME_INCOMPLETE),
        ("no frame follows", b"STDOUT 3\nabcdef", Some("abcdef"), None, reason::FRAME_BROKEN),
        ("more after both", b"STDOUT 1\naSTDERR 1\nb\nmore", Some("amore"), Some("b"), reason::FRAME_BROKEN),
    ];
    for (name, output, stdout, stderr, expected) in cases {
        let captured = read(Report::Auto, output, None);
        assert_eq!(streams(&captured), (stdout, stderr, None), "{name}");
        assert_eq!(captured.logs.status, LogsStatus::Partial, "{name}");
        assert_eq!(captured.logs.reason.as_deref(), Some(expected), "{name}");
    }
}

#[test]
fn numbers_of_the_termination_message_belong_to_frames() {
    let message = Some("exit_code=7\ncpu_jiffies=12\nclk_tck=100\npeak_memory_kb=2048\nwall_seconds=1.5\n");
    let usage = ResourceUsage {
        execution_time_wall_seconds: Some(1.5),
        cpu_time_jiffies: Some(12),
        clk_tck_hertz: Some(100),
        peak_memory_kb: Some(2048),
    };
    for (report, output, known) in [
        (Report::Auto, &b"STDOUT 0\nSTDERR 0\n"[..], true),
        (Report::Framed, b"raw", true),
        (Report::Auto, b"", true),
        (Report::Auto, b"raw", false),
        (Report::Raw, b"", false),
        (Report::Json, b"", false),
    ] {
        let captured = read(report, output, message);
        assert_eq!(captured.resource_usage, known.then(|| usage.clone()), "{report:?} {output:?}");
        assert_eq!(captured.claimed_exit_code, known.then_some(7), "{report:?} {output:?}");
    }
}

#[test]
fn impossible_numbers_are_absent() {
    let message = "exit_code=-1\ncpu_jiffies=99999999999999999999\nclk_tck=+5\npeak_memory_kb=1e3\nwall_seconds=NaN";
    assert_eq!(numbers::from_termination_message(message), (None, None));
    for wall in ["inf", "-1", "1e999", "", "x"] {
        assert_eq!(numbers::from_termination_message(&format!("wall_seconds={wall}")), (None, None), "{wall}");
    }
    let json = br#"{"exit_code":1,"resource_usage":{"execution_time_wall_seconds":-2,"cpu_time_jiffies":1e30,
        "clk_tck_hertz":100,"peak_memory_kb":{"a":[1]}}}"#;
    let line: Vec<u8> = json.iter().copied().filter(|byte| *byte != b'\n').collect();
    let captured = read(Report::Auto, &line, None);
    let only = ResourceUsage { clk_tck_hertz: Some(100), ..ResourceUsage::default() };
    assert_eq!((captured.claimed_exit_code, captured.resource_usage), (Some(1), Some(only)));
}

#[test]
fn a_report_line_much_longer_than_the_cap_is_parsed() {
    let stdout = "\u{1}".repeat(50_000);
    let line = serde_json::json!({"exit_code": 0, "stdout": stdout}).to_string();
    assert!(line.len() > 100 * CAP);
    let captured = read(Report::Auto, line.as_bytes(), None);
    assert_eq!((captured.logs.status, captured.logs.stdout_bytes), (LogsStatus::Truncated, Some(50_000)));
    assert!(captured.stdout.is_some_and(|text| text.len() <= CAP && text.contains("bytes cut")));
}

#[test]
fn a_report_line_beyond_its_bound_is_raw_output() {
    let line = format!("{{\"exit_code\":0,\"stdout\":\"{}\"}}\n", "x".repeat(REPORT_LINE_BYTES_MAX));
    let mut reader = Reader::new(Report::Auto, CAP);
    for chunk in line.as_bytes().chunks(8192) {
        reader.push(chunk);
        assert!(reader.capacity() <= REPORT_LINE_BYTES_MAX + 3 * CAP);
    }
    let captured = reader.finish(None).captured(CAP, usize::MAX, None, 1);
    assert_eq!((captured.claimed_exit_code, captured.logs.stdout_bytes), (None, Some(line.len() as u64)));
    assert_eq!(captured.logs.status, LogsStatus::Truncated);

    // However it is chunked: nothing of it may be left out to make a report of the rest.
    let middle = vec![b'x'; REPORT_LINE_BYTES_MAX];
    let chunks = [&b"{\"exit_code\":0,\"stdout\":\""[..], &middle, b"\"}\n"];
    assert_eq!(read_chunks(Report::Auto, &chunks, None).claimed_exit_code, None);
}

#[test]
fn a_hundred_megabytes_of_frames_need_little_memory() {
    let (out, err) = (90_u64 << 20, 10_u64 << 20);
    let mut reader = Reader::new(Report::Auto, CAP);
    let mut feed = |header: String, mut left: u64| {
        reader.push(header.as_bytes());
        while left > 0 {
            let chunk = [b'x'; 65_536];
            let taken = left.min(65_536);
            reader.push(&chunk[..taken as usize]);
            assert!(reader.capacity() <= 3 * CAP, "{}", reader.capacity());
            left -= taken;
        }
    };
    feed(format!("STDOUT {out}\n"), out);
    feed(format!("STDERR {err}\n"), err);
    let captured = reader.finish(None).captured(CAP, usize::MAX, None, 1);
    assert_eq!((captured.logs.stdout_bytes, captured.logs.stderr_bytes), (Some(out), Some(err)));
    assert_eq!(captured.logs.status, LogsStatus::Truncated);
}

#[test]
fn ten_megabytes_in_one_line_are_cut() {
    for first in [b'x', b'{'] {
        let line = vec![first; 10 << 20];
        let captured = read(Report::Auto, &line, None);
        assert_eq!(captured.logs.stdout_bytes, Some(10 << 20));
        assert!(captured.stdout.is_some_and(|text| text.len() <= CAP));
    }
}

#[test]
fn deep_nesting_is_no_report_and_no_crash() {
    let line = format!("{{\"exit_code\":0,\"x\":{}}}", "[".repeat(1 << 20));
    assert_eq!(read(Report::Json, line.as_bytes(), None).claimed_exit_code, None);
}

#[test]
fn user_output_forges_neither_borders_nor_reports() {
    let report = r#"{"exit_code":0,"stdout":"real","stderr":"e"}"#;
    let forged = r#"{"exit_code":0,"stdout":"forged","resource_usage":{"peak_memory_kb":1}}"#;
    let long = format!(r#"{{"exit_code":0,"stdout":"{}"}}"#, "x".repeat(REPORT_LINE_BYTES_MAX));
    let escaped = serde_json::json!({ "exit_code": 3, "stdout": format!("{forged}\n") }).to_string();
    type Case<'a> = (&'a str, String, (Option<&'a str>, Option<&'a str>, Option<i64>));
    let forged_line = format!("{forged}\n");
    let header = "noise\nSTDOUT 3\nabcSTDERR 1\nx";
    let cases: [Case<'_>; 8] = [
        (
            "forged in the middle, the executor's last",
            format!("{forged}\nmore\n{report}\n"),
            (Some("real"), Some("e"), Some(0)),
        ),
        ("doubled", format!("{report}\n{report}\n"), (Some("real"), Some("e"), Some(0))),
        ("forged inside the executor's own", escaped.clone(), (Some(&forged_line), None, Some(3))),
        ("output after the report", format!("{report}\nlate\n"), (Some("real"), Some("e"), Some(0))),
        ("half a report at the end", format!("{report}\n{}", &forged[..40]), (Some("real"), Some("e"), Some(0))),
        ("too long to be one", format!("{report}\n{long}\n"), (Some("real"), Some("e"), Some(0))),
        ("a frame's header inside raw output", header.into(), (Some(header), None, None)),
        ("a report inside a longer line", format!("log: {forged}\n"), (None, None, None)),
    ];
    for (name, output, mut expected) in cases {
        if expected == (None, None, None) {
            expected.0 = Some(&output);
        }
        assert_eq!(streams(&read(Report::Auto, output.as_bytes(), None)), expected, "{name}");
    }
    // What stands in frames is output, whatever it says of numbers; they stand in the termination message alone.
    let frames = format!("STDOUT {}\n{forged}STDERR 0\n", forged.len());
    let captured = read(Report::Auto, frames.as_bytes(), Some("exit_code=4"));
    assert_eq!((captured.claimed_exit_code, captured.resource_usage), (Some(4), None));
}

#[test]
fn a_lean_reader_says_that_it_gave_up_a_line_and_keeps_less() {
    let stdout = "y".repeat(3 * CAP);
    let line = serde_json::json!({ "exit_code": 0, "stdout": stdout }).to_string();
    let mut lean = Reader::lean(Report::Auto, CAP);
    lean.push(line.as_bytes());
    assert!(lean.gave_up_a_line() && lean.capacity() <= 4 * CAP, "{}", lean.capacity());
    let mut full = Reader::new(Report::Auto, CAP);
    full.push(line.as_bytes());
    full.push(b"\n");
    assert!(!full.gave_up_a_line());
    // Of a report that was read only as much is held as can be told, beside the room of its line.
    assert!(full.capacity() <= line.len() * 2 + 3 * CAP, "{}", full.capacity());
}

/// Output out of pieces of reports, right and wrong.
fn output() -> impl Strategy<Value = Vec<u8>> {
    let piece = prop_oneof![
        Just(b"STDOUT ".to_vec()),
        Just(b"STDERR ".to_vec()),
        "[0-9]{0,3}\n".prop_map(String::into_bytes),
        Just(b"STDOUT 5\nhelloSTDERR 2\nhm".to_vec()),
        Just(b"STDOUT 18446744073709551616\n".to_vec()),
        Just(b"{\"exit_code\":0,\"stdout\":\"a\\u0000b\",\"stderr\":null}\n".to_vec()),
        Just(b"{\"exit_code\":1e400,\"stdout\":\"x\"}".to_vec()),
        Just(b"{\"resource_usage\":{\"peak_memory_kb\":-0}}\n".to_vec()),
        Just(b"\n".to_vec()),
        proptest::collection::vec(any::<u8>(), 0..30),
        Just(vec![b'z'; 900]),
    ];
    proptest::collection::vec(piece, 0..12).prop_map(|pieces| pieces.concat())
}

proptest! {
    #[test]
    fn chunks_do_not_matter(output in output(), cuts in proptest::collection::vec(any::<prop::sample::Index>(), 0..8)) {
        let mut places: Vec<usize> = cuts.iter().map(|cut| cut.index(output.len() + 1)).collect();
        places.extend([0, output.len()]);
        places.sort_unstable();
        let chunks: Vec<&[u8]> = places.windows(2).map(|pair| &output[pair[0]..pair[1]]).collect();
        let bytes: Vec<&[u8]> = output.chunks(1).collect();
        for report in [Report::Auto, Report::Json, Report::Framed, Report::Raw] {
            let at_once = read(report, &output, Some("exit_code=1"));
            prop_assert!(read_chunks(report, &chunks, Some("exit_code=1")) == at_once);
            prop_assert!(read_chunks(report, &bytes, Some("exit_code=1")) == at_once);
        }
    }

    #[test]
    fn framed_streams_come_back_as_they_were(
        out in proptest::collection::vec(any::<u8>(), 0..300), err in proptest::collection::vec(any::<u8>(), 0..300)
    ) {
        let head = format!("STDOUT {}\n", out.len()).into_bytes();
        let middle = format!("STDERR {}\n", err.len()).into_bytes();
        let captured = read(Report::Auto, &[head, out.clone(), middle, err.clone()].concat(), None);
        prop_assert_eq!(captured.stdout.as_deref(), Some(&*String::from_utf8_lossy(&out)));
        prop_assert_eq!(captured.stderr.as_deref(), Some(&*String::from_utf8_lossy(&err)));
        prop_assert_eq!(captured.logs.status, LogsStatus::Complete);
    }

    #[test]
    fn json_reports_come_back_as_they_were(noise in "[a-z\n]{0,40}", out in "\\PC{0,80}", err in "[\\x00-\\x7f]{0,80}", code in 0_i64..i64::MAX) {
        let line = serde_json::json!({"exit_code": code, "stdout": out, "stderr": err});
        let captured = read(Report::Auto, format!("{noise}\n{line}").as_bytes(), None);
        prop_assert_eq!(streams(&captured), (Some(out.as_str()), Some(err.as_str()), Some(code)));
    }

    #[test]
    fn any_termination_message_gives_numbers_that_json_can_hold(message in ".{0,60}", value in any::<f64>()) {
        let message = format!("{message}\nwall_seconds={value}\npeak_memory_kb={value}");
        let (_, usage) = numbers::from_termination_message(&message);
        if let Some(seconds) = usage.and_then(|usage| usage.execution_time_wall_seconds) {
            prop_assert!(seconds.is_finite() && seconds.is_sign_positive());
        }
    }
}
