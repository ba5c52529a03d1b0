//! How the last executions ended.

use super::{clock, count, escape, table, write};
use crate::http::status::{Execution, Status};

const HEADS: [&str; 7] = ["Ended (UTC)", "Verdict", "Cause", "Exit", "Ran", "Execution", "Pod"];

pub(super) fn section(status: &Status) -> String {
    let shown = &status.shown;
    let mut text = "<h2>Executions</h2>".to_owned();
    if shown.executions.is_empty() {
        text.push_str("<p>This replica has told no end since it started. Each shard's holder shows its own.</p>");
        return text;
    }
    let ends = &shown.ends;
    text.push_str("<p>Since it started this replica told ");
    let (completed, failed, timeout) = (ends.completed, ends.failed, count(ends.timeout, "timeout", "timeouts"));
    write(&mut text, format_args!("{completed} completed, {failed} failed, {timeout}."));
    if !ends.causes.is_empty() {
        let mut causes: Vec<_> = ends.causes.iter().collect();
        causes.sort_by_key(|(cause, number)| (std::cmp::Reverse(**number), **cause));
        text.push_str(" Causes: ");
        let causes: Vec<String> = causes.iter().map(|(cause, number)| format!("{cause} <b>{number}</b>")).collect();
        write(&mut text, format_args!("{}.", causes.join(", ")));
    }
    text.push_str("</p>");
    let rows: String = shown.executions.iter().map(|execution| row(execution, status)).collect();
    let caption = format!(
        "The last {}, in the order in which they were told, newest first",
        count(shown.executions.len() as u64, "end", "ends")
    );
    text.push_str(&table("executions", &caption, &HEADS, &rows));
    text
}

fn row(execution: &Execution, status: &Status) -> String {
    let (class, sign) = match execution.verdict {
        "completed" => ("ok", "\u{2713}"),
        "timeout" => ("look", "\u{25f7}"),
        _ => ("bad", "\u{2717}"),
    };
    let dash = || "–".to_owned();
    let mut row = format!("<tr id=\"e{}\"><td>{}", execution.number, clock(execution.at, status.at));
    write(&mut row, format_args!("<td class=\"{class}\">{sign} {}", execution.verdict));
    if matches!(execution.logs, "partial" | "unavailable") {
        write(&mut row, format_args!(" <small>output {}</small>", execution.logs));
    }
    let cause = execution.cause.as_deref().map_or_else(dash, escape);
    let exit = execution.exit_code.map_or_else(dash, |code| code.to_string());
    let ran = execution.duration_seconds.map_or_else(dash, ran);
    write(&mut row, format_args!("<td>{cause}<td>{exit}<td>{ran}"));
    let (namespace, pod) = (escape(&execution.namespace), escape(&execution.pod_name));
    write(&mut row, format_args!("<td>{}<td>{namespace}/{pod}", escape(&execution.execution_id)));
    row
}

fn ran(seconds: f64) -> String {
    match seconds {
        seconds if seconds < 60.0 => format!("{seconds:.0} s"),
        seconds if seconds < 3600.0 => format!("{:.0} min {:.0} s", (seconds / 60.0).floor(), (seconds % 60.0).floor()),
        seconds => format!("{:.0} h {:.0} min", (seconds / 3600.0).floor(), (seconds % 3600.0 / 60.0).floor()),
    }
}
