//! The replicas, and what this one says of its parts.

use super::{count, escape, table, write};
use crate::http::status::{Member, Status};

pub(super) fn section(status: &Status) -> String {
    let rows: String = status.members.iter().map(row).collect();
    let mut text = format!(
        "<h2>Replicas</h2>{}",
        table("replicas", "Replicas that this one knows of", &["Replica", "Leads shards", "Could lead"], &rows)
    );
    let leads = status.members.iter().any(|member| member.this && !member.holds.is_empty());
    if !leads && status.shown.shards.len() == 1 {
        text.push_str("<p>A holder hears all that stand by; a standby hears nobody.</p>");
    }
    text
}

fn row(member: &Member) -> String {
    let this = if member.this { " <small>(this replica)</small>" } else { "" };
    let mut row = format!("<tr><th scope=\"row\" class=\"name\">{}{this}</th>", escape(&member.identity));
    let holds: Vec<String> = member.holds.iter().map(u32::to_string).collect();
    let holds = if holds.is_empty() { "–, stands by".to_owned() } else { holds.join(", ") };
    let behind = member.lag_records.filter(|records| *records > 0);
    let behind = behind.map_or_else(String::new, |records| format!(", {} behind", count(records, "record", "records")));
    let able = match member.able {
        Some(true) => "<span class=\"ok\">\u{2713} yes</span>",
        Some(false) => "<span class=\"bad\">\u{2717} no</span>",
        None if member.holds.is_empty() => "–",
        None => "leads",
    };
    write(&mut row, format_args!("<td>{holds}</td><td>{able}{behind}</td></tr>"));
    row
}

/// What waits, in full; the rest on request.
pub(super) fn checks(status: &Status) -> String {
    let mut text = "<h2>Checks</h2>".to_owned();
    if status.checks.is_empty() {
        text.push_str("<p>No component has started yet.</p>");
        return text;
    }
    let (mut good, mut waiting) = (Vec::new(), String::new());
    for check in &status.checks {
        let name = escape(&check.name);
        if check.ok {
            good.push(name);
        } else {
            let why = escape(check.why.as_deref().unwrap_or("waiting"));
            write(&mut waiting, format_args!("<li class=\"bad\">\u{2717} {name}: {why}</li>"));
        }
    }
    for name in &status.stuck {
        write(&mut waiting, format_args!("<li class=\"bad\">\u{2717} {name}: its loop does not turn</li>"));
    }
    if !waiting.is_empty() {
        write(&mut text, format_args!("<ul>{waiting}</ul>"));
    }
    let number = count(good.len() as u64, "check is ok", "checks are ok");
    write(
        &mut text,
        format_args!(
            "<details id=\"good\"><summary class=\"ok\">\u{2713} {number}</summary><p>{}</p></details>",
            good.join(", ")
        ),
    );
    text
}
