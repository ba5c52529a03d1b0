//! Stories as text for a terminal. Pure: what pods printed is escaped, so that it can neither colour nor clear anything.

use std::io::IsTerminal;

use k8s_openapi::jiff::{SignedDuration, Timestamp};
use serde_json::Value;

use super::drive::Execution;
use crate::clients::history::Record;

/// Lines shown of a stream.
const LINES_MAX: usize = 2;

/// Characters shown of a line of output.
const LINE_CHARS_MAX: usize = 70;

/// Characters shown of a text in evidence.
const EVIDENCE_CHARS_MAX: usize = 200;

/// Colours, where they are welcome.
#[derive(Debug, Clone, Copy)]
pub(super) struct Style {
    colours: bool,
}

impl Style {
    /// Colours on a terminal, unless NO_COLOR says no.
    pub(super) fn of_stdout() -> Self {
        let unwanted = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        Self { colours: std::io::stdout().is_terminal() && !unwanted }
    }

    fn paint(self, code: &str, text: &str) -> String {
        if self.colours { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
    }

    pub(super) fn good(self, text: &str) -> String {
        self.paint("32", text)
    }

    pub(super) fn bad(self, text: &str) -> String {
        self.paint("31", text)
    }

    pub(super) fn strong(self, text: &str) -> String {
        self.paint("1", text)
    }

    fn soft(self, text: &str) -> String {
        self.paint("2", text)
    }
}

/// The story of one execution; `wrong` is what is not as expected.
pub(super) fn block(style: Style, execution: &Execution, records: &[&Record], wrong: &[String]) -> String {
    let sample = &execution.sample;
    let mark = if wrong.is_empty() { style.good("✓") } else { style.bad("✗") };
    let mut text = format!("{mark} {}  {}\n", style.strong(sample.name), style.soft(sample.does));
    let events: Vec<String> = records.iter().map(|record| event(record, execution.created)).collect();
    line(&mut text, style, "events", &events.join(", "));
    if let Some(end) = records.iter().find(|record| record.is_end()) {
        verdict(&mut text, style, &end.value);
        reported(&mut text, style, &end.value);
        output(&mut text, style, &end.value);
        usage(&mut text, style, &end.value["resource_usage"]);
    }
    for fault in wrong {
        text.push_str(&format!("  {}\n", style.bad(&escaped(fault, EVIDENCE_CHARS_MAX))));
    }
    text.push('\n');
    text
}

/// What happened when the leader was killed: from its death to the first transaction of the next one.
pub(super) fn change_of_hands(style: Style, killed: &str, took_over: Option<&Value>) -> String {
    let Some(legs) = took_over else { return String::new() };
    let by = |line: &Value| line["holder"].as_str().map(str::to_owned).unwrap_or_default();
    let head = format!("The leader {killed} was killed in the middle of it, and {} took over:", by(legs));
    let mut text = format!("{}\n", style.strong(&escaped(&head, EVIDENCE_CHARS_MAX)));
    let names = [
        ("acquired_ms", "the Lease is acquired"),
        ("fenced_ms", "older producers are refused"),
        ("barrier_ms", "the barrier is committed"),
        ("restored_ms", "all that was told is known"),
        ("watching_ms", "the watch is open again"),
        ("reconciled_ms", "everything is listed and compared"),
        ("first_commit_ms", "the first transaction is committed"),
    ];
    let reached = names.iter().filter_map(|(field, name)| Some((legs[field].as_f64()?, *name)));
    let mut reached: Vec<(f64, &str)> = reached.collect();
    reached.sort_by(|a, b| a.0.total_cmp(&b.0));
    let longest = reached.last().map_or(1.0, |(ms, _)| ms.max(1.0));
    for (ms, name) in reached {
        let bar = "▇".repeat((ms / longest * 30.0).round().max(1.0) as usize);
        text.push_str(&format!("  {ms:>7.1} ms  {name:<36} {}\n", style.soft(&bar)));
    }
    text.push('\n');
    text
}

fn line(text: &mut String, style: Style, label: &str, value: &str) {
    text.push_str(&format!("  {} {value}\n", style.soft(&format!("{label:<8}"))));
}

fn event(record: &Record, created: Timestamp) -> String {
    let observed = record.text("observed_at").parse::<Timestamp>();
    let offset = observed.map(|at| at.duration_since(created)).unwrap_or(SignedDuration::ZERO);
    format!("{} {:+.1} s", record.event_type(), offset.as_secs_f64())
}

fn verdict(text: &mut String, style: Style, end: &Value) {
    let word = |field: &str| end[field].as_str().unwrap_or_default();
    let mut parts = Vec::new();
    let outcome = word("event_type").trim_start_matches("execution_");
    parts.push(if outcome == "completed" { style.good(outcome) } else { style.bad(outcome) });
    if !word("cause").is_empty() {
        parts.push(format!("cause {} ({})", word("cause"), word("error_type")));
    }
    match end["exit_code"].as_i64() {
        Some(code) => parts.push(format!("exit code {code}")),
        None => parts.push("no exit code".into()),
    }
    if end["claims_conflict"] == true {
        parts.push("its report claims otherwise".into());
    }
    if end["attempt_started"] == false {
        parts.push("never started".into());
    }
    if end["retryable"] == true {
        parts.push("worth a retry".into());
    }
    line(text, style, "verdict", &parts.join(", "));
    for (label, field) in [("why", "message"), ("hint", "hint"), ("rule", "rule")] {
        if !word(field).is_empty() {
            line(text, style, label, &escaped(word(field), LINE_CHARS_MAX * 2));
        }
    }
}

/// What Kubernetes reported of the pod.
fn reported(text: &mut String, style: Style, end: &Value) {
    let times =
        |event: &Value| event["count"].as_u64().filter(|n| *n > 1).map(|n| format!(" x{n}")).unwrap_or_default();
    let reason = |event: &Value| Some(format!("{}{}", event["reason"].as_str()?, times(event)));
    let reasons: Vec<String> = end["kubernetes_events"].as_array().into_iter().flatten().filter_map(reason).collect();
    if !reasons.is_empty() {
        line(text, style, "reported", &escaped(&reasons.join(", "), LINE_CHARS_MAX * 2));
    }
}

fn output(text: &mut String, style: Style, end: &Value) {
    let logs = &end["logs"];
    let status = logs["status"].as_str().unwrap_or("not told");
    for stream in ["stdout", "stderr"] {
        let Some(printed) = end[stream].as_str() else { continue };
        if printed.is_empty() {
            continue;
        }
        let bytes = logs[format!("{stream}_bytes")].as_u64().map(|n| format!("{n} bytes")).unwrap_or_default();
        line(text, style, stream, &format!("{} {}", lines(printed), style.soft(&format!("({bytes}, {status})"))));
    }
    if end["stdout"].is_null() && end["stderr"].is_null() {
        let reason = logs["reason"].as_str().map(|reason| format!(": {reason}")).unwrap_or_default();
        line(text, style, "output", &format!("{status}{reason}"));
    }
}

fn usage(text: &mut String, style: Style, usage: &Value) {
    let numbers = [
        ("execution_time_wall_seconds", " s"),
        ("cpu_time_jiffies", " jiffies"),
        ("clk_tck_hertz", " Hz"),
        ("peak_memory_kb", " kB at most"),
    ];
    let known = numbers.iter().filter(|(key, _)| !usage[*key].is_null());
    let parts: Vec<String> = known.map(|(key, unit)| format!("{}{unit}", usage[*key])).collect();
    if !parts.is_empty() {
        line(text, style, "usage", &parts.join(", "));
    }
}

/// The first lines of a text.
fn lines(text: &str) -> String {
    let total = text.lines().count();
    let shown: Vec<String> = text.lines().take(LINES_MAX).map(|line| escaped(line, LINE_CHARS_MAX)).collect();
    let more = total - shown.len();
    let rest = if more > 0 { format!(" ⏎ {more} more lines") } else { String::new() };
    format!("{}{rest}", shown.join(" ⏎ "))
}

/// Cut to a length; control and formatting characters as their names, so that a terminal obeys none of them.
fn escaped(text: &str, chars_max: usize) -> String {
    let mut out = String::new();
    for char in text.chars().take(chars_max) {
        // Marks that are not seen and turn the direction of what follows.
        let hidden =
            matches!(char, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{2069}' | '\u{feff}');
        if char.is_control() || hidden {
            out.extend(char.escape_default());
        } else {
            out.push(char);
        }
    }
    if text.chars().nth(chars_max).is_some() {
        out.push('…');
    }
    out
}

/// Everything that was read of a pod, and its status, for whoever looks for the fault.
pub(super) fn evidence(records: &[&Record], status: Option<&Value>) -> String {
    let mut text = String::new();
    for record in records {
        text.push_str(&format!("  event   {}\n", shortened(&record.value)));
    }
    match status {
        Some(status) => text.push_str(&format!("  status  {}\n\n", shortened(status))),
        None => text.push_str("  status  the pod is gone\n\n"),
    }
    text
}

/// With long texts cut. JSON escapes control characters by itself.
fn shortened(value: &Value) -> Value {
    match value {
        Value::String(text) => Value::String(escaped(text, EVIDENCE_CHARS_MAX)),
        Value::Array(values) => values.iter().map(shortened).collect(),
        Value::Object(object) => object.iter().map(|(key, value)| (key.clone(), shortened(value))).collect(),
        other => other.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_pod_prints_cannot_act_on_the_terminal() {
        let cases = [
            ("plain", "hello\n", "hello"),
            ("clear screen", "\x1b[2Jx", "\\u{1b}[2Jx"),
            ("carriage return", "good\rbad", "good\\rbad"),
            ("reversed", "a\u{202e}b", "a\\u{202e}b"),
            ("one byte controls", "a\u{9b}31m", "a\\u{9b}31m"),
            ("many lines", "1\n2\n3\n4\n", "1 ⏎ 2 ⏎ 2 more lines"),
        ];
        for (name, text, shown) in cases {
            assert_eq!(lines(text), shown, "{name}");
        }
        assert_eq!(escaped(&"é".repeat(LINE_CHARS_MAX + 1), LINE_CHARS_MAX).chars().count(), LINE_CHARS_MAX + 1);
    }
}
