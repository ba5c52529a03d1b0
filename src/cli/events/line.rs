//! One event as one line for people. Pure.
//!
//! Promises: any JSON gives a line; nothing in it steers the terminal, since most of it comes from pods.

use jiff::Timestamp;
use serde_json::Value;

use crate::cli::screen::{Ink, Paint, plain};

/// Longest id that has its column to itself: a UUID.
const ID_CHARS_MAX: usize = 36;
/// Characters of what a pod printed.
const OUTPUT_CHARS_MAX: usize = 60;
/// Characters of a message.
const MESSAGE_CHARS_MAX: usize = 160;
/// As wide as the longest event type.
const TYPE_CHARS: usize = 19;
/// As wide as a time in whole seconds.
const TIME_CHARS: usize = 20;

/// Writes lines one below the other: the column of ids grows with the ids.
pub(super) struct Lines {
    paint: Paint,
    id_chars: usize,
}

impl Lines {
    pub(super) fn new(paint: Paint) -> Self {
        Self { paint, id_chars: 8 }
    }

    /// The line of this event, without its end.
    pub(super) fn of(&mut self, event: &Value) -> String {
        let id = head(&plain(text(event, "execution_id")), ID_CHARS_MAX);
        self.id_chars = self.id_chars.max(id.chars().count());
        let time = filled(&self.time(event), TIME_CHARS);
        let kind = plain(text(event, "event_type"));
        let kind = self.paint.with(ink(&kind), &filled(&kind, TYPE_CHARS));
        let said: Vec<String> = self.said(event).into_iter().filter(|part| !part.is_empty()).collect();
        let line = format!(
            "{}  {}  {kind}  {}",
            self.paint.with(Ink::Dim, &time),
            filled(&id, self.id_chars),
            said.join(", ")
        );
        line.trim_end().to_owned()
    }

    /// The line of a record that is no event.
    pub(super) fn unreadable(&self, place: &str) -> String {
        self.paint.with(Ink::Red, &format!("no event: {place} is not a JSON object"))
    }

    fn time(&self, event: &Value) -> String {
        let text = text(event, "timestamp");
        text.parse::<Timestamp>().map_or_else(|_| plain(text), |at| format!("{at:.0}"))
    }

    fn said(&self, event: &Value) -> Vec<String> {
        let cause = self.cause(event);
        let message = head(&one_line(text(event, "message")), MESSAGE_CHARS_MAX);
        match text(event, "event_type") {
            "pod_scheduled" => {
                let pod = plain(&format!("{}/{}", text(event, "namespace"), text(event, "pod_name")));
                vec![pod, labelled("node", &plain(text(event, "node_name")))]
            }
            "execution_running" => {
                let containers = event["container_statuses"].as_array().map(Vec::as_slice).unwrap_or_default();
                let names: Vec<String> = containers.iter().map(|container| plain(text(container, "name"))).collect();
                vec![labelled("container", &names.join(" "))]
            }
            "execution_stalled" => vec![cause, labelled("since", &plain(text(event, "since"))), message],
            "execution_resumed" => vec![cause, labelled("stalled since", &plain(text(event, "stalled_since")))],
            "pod_terminated" => {
                let unseen = if event["observed"] == false { "nobody saw it go" } else { "" };
                vec![plain(text(event, "reason")), message, unseen.to_owned()]
            }
            _ => self.ended(event, cause, message),
        }
    }

    fn cause(&self, event: &Value) -> String {
        let (cause, kind) = (plain(text(event, "cause")), plain(text(event, "error_type")));
        let ink = if text(event, "event_type") == "execution_stalled" { Ink::Yellow } else { Ink::Red };
        match (cause.is_empty(), kind.is_empty()) {
            (true, _) => kind,
            (false, true) => self.paint.with(ink, &cause),
            (false, false) => format!("{} ({kind})", self.paint.with(ink, &cause)),
        }
    }

    fn ended(&self, event: &Value, cause: String, message: String) -> Vec<String> {
        let code = event["exit_code"].as_i64().map(|code| format!("exit code {code}")).unwrap_or_default();
        let conflict = if event["claims_conflict"] == true { "its report claims otherwise" } else { "" };
        let hint = labelled("hint:", &head(&one_line(text(event, "hint")), MESSAGE_CHARS_MAX));
        // What comes first of a result, and what comes last of complaints.
        let stdout = self.output("stdout", &head(&one_line(text(event, "stdout")), OUTPUT_CHARS_MAX));
        let stderr = self.output("stderr", &tail(&one_line(text(event, "stderr")), OUTPUT_CHARS_MAX));
        let status = match text(&event["logs"], "status") {
            "" | "complete" => String::new(),
            status => format!("output {}", plain(status)),
        };
        vec![cause, code, message, conflict.to_owned(), hint, stdout, stderr, status]
    }

    fn output(&self, name: &str, shown: &str) -> String {
        if shown.is_empty() { String::new() } else { format!("{name} {}", self.paint.with(Ink::Dim, shown)) }
    }
}

fn ink(kind: &str) -> Ink {
    match kind {
        "execution_completed" => Ink::Green,
        "execution_failed" | "execution_timeout" => Ink::Red,
        "execution_stalled" => Ink::Yellow,
        "execution_running" | "execution_resumed" => Ink::Cyan,
        _ => Ink::Dim,
    }
}

fn text<'a>(event: &'a Value, field: &str) -> &'a str {
    event[field].as_str().unwrap_or_default()
}

fn labelled(label: &str, text: &str) -> String {
    if text.is_empty() { String::new() } else { format!("{label} {text}") }
}

fn filled(text: &str, chars: usize) -> String {
    format!("{text:<chars$}")
}

/// Lines as one, each end shown.
fn one_line(text: &str) -> String {
    let trimmed = text.trim_end_matches(['\n', '\r']);
    plain(&trimmed.replace("\r\n", "⏎").replace('\n', "⏎"))
}

/// At most so many characters, the first ones.
fn head(text: &str, chars_max: usize) -> String {
    if text.chars().count() <= chars_max {
        return text.to_owned();
    }
    text.chars().take(chars_max.saturating_sub(1)).chain(['…']).collect()
}

/// At most so many characters, the last ones.
fn tail(text: &str, chars_max: usize) -> String {
    let count = text.chars().count();
    if count <= chars_max {
        return text.to_owned();
    }
    let kept = text.chars().skip(count - chars_max.saturating_sub(1));
    std::iter::once('…').chain(kept).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;
    use crate::cli::screen::is_steering;

    fn event(kind: &str, more: Value) -> Value {
        let mut event = json!({ "event_type": kind, "timestamp": "2026-01-02T03:04:05.678Z", "execution_id": "17",
            "namespace": "runs", "pod_name": "exec-17", "node_name": "node-1" });
        if let (Some(event), Value::Object(more)) = (event.as_object_mut(), more) {
            event.extend(more);
        }
        event
    }

    #[test]
    fn each_kind_of_event_is_one_line() {
        let cases = [
            ("pod_scheduled", json!({}), "runs/exec-17, node node-1"),
            ("execution_running", json!({ "container_statuses": [{ "name": "main" }] }), "container main"),
            (
                "execution_completed",
                json!({ "exit_code": 0, "stdout": "a\nb\r\n", "stderr": "", "logs": { "status": "complete" } }),
                "exit code 0, stdout a⏎b",
            ),
            (
                "execution_failed",
                json!({ "exit_code": 3, "cause": "exit_code", "error_type": "script_error", "message": "it failed",
                    "hint": "look", "claims_conflict": true, "stderr": "oh", "logs": { "status": "truncated" } }),
                "exit_code (script_error), exit code 3, it failed, its report claims otherwise, hint: look, stderr oh, output truncated",
            ),
            ("execution_timeout", json!({ "cause": "deadline", "error_type": "timeout" }), "deadline (timeout)"),
            (
                "execution_stalled",
                json!({ "cause": "image", "since": "2026-01-02T03:04:00Z", "message": "no such image" }),
                "image, since 2026-01-02T03:04:00Z, no such image",
            ),
            (
                "execution_resumed",
                json!({ "cause": "image", "stalled_since": "2026-01-02T03:04:00Z" }),
                "image, stalled since 2026-01-02T03:04:00Z",
            ),
            ("pod_terminated", json!({ "reason": "Deleted", "observed": false }), "Deleted, nobody saw it go"),
            // Of a later release.
            ("execution_paused", json!({ "message": "for a while" }), "for a while"),
        ];
        for (kind, more, said) in cases {
            let line = Lines::new(Paint::none()).of(&event(kind, more));
            assert_eq!(line, format!("2026-01-02T03:04:05Z  17        {kind:<19}  {said}"));
        }
    }

    #[test]
    fn columns_grow_with_the_ids_and_long_texts_are_cut() {
        let mut lines = Lines::new(Paint::none());
        let of = |id: &str| event("pod_scheduled", json!({ "execution_id": id }));
        let long = lines.of(&of(&"x".repeat(50)));
        let short = lines.of(&of("1"));
        assert_eq!(
            long.find("pod_scheduled").map(|at| at - '…'.len_utf8() + 1),
            short.find("pod_scheduled"),
            "{long}\n{short}"
        );
        let output: String = (0..50).map(|n| format!("{n:03}")).collect();
        let ended = lines.of(&event("execution_failed", json!({ "stdout": output, "stderr": output })));
        assert!(ended.contains("stdout 000001") && ended.contains('…') && ended.ends_with("048049"), "{ended}");
    }

    #[test]
    fn what_is_no_event_is_said_and_coloured_texts_end_their_colour() {
        assert!(Lines::new(Paint::none()).unreadable("t/0@7").contains("t/0@7"));
        assert_eq!(Lines::new(Paint::none()).of(&json!([1])), "");
    }

    proptest! {
        #[test]
        fn nothing_of_a_pod_steers_the_terminal(said in "(?s).{0,120}", kind in 0_usize..5) {
            let kinds = ["pod_scheduled", "execution_failed", "execution_stalled", "pod_terminated", &said];
            let more = json!({ "execution_id": said, "stdout": said, "stderr": said, "message": said, "hint": said,
                "cause": said, "reason": said, "since": said, "node_name": said, "timestamp": said });
            let line = Lines::new(Paint::none()).of(&event(kinds[kind], more));
            prop_assert!(!line.chars().any(is_steering), "{line:?}");
        }
    }
}
