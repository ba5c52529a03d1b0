//! The status page: one HTML document without scripts or outside assets. Pure.

use std::fmt::Write as _;

use super::status::{ShardStatus, Status};
use crate::telemetry::metrics::Role;

const STYLE: &str = "\
:root{color-scheme:light dark;--text:#1b1f24;--soft:#59636e;--line:#d8dee4;--back:#fff;--ok:#116329;--bad:#a40e26}\
@media(prefers-color-scheme:dark){:root{--text:#e6edf3;--soft:#9198a1;--line:#30363d;--back:#0d1117;--ok:#3fb950;--bad:#ff7b72}}\
body{margin:0 auto;padding:1.5rem;max-width:60rem;font:1rem/1.5 system-ui,sans-serif;color:var(--text);background:var(--back)}\
h1{font-size:1.4rem;margin:0 0 .25rem}h2{font-size:1.1rem;margin:2rem 0 .5rem}\
p,dl{margin:0}dl{display:grid;grid-template-columns:max-content 1fr;gap:.25rem 1rem}dt,caption,th{color:var(--soft)}\
dd{margin:0;overflow-wrap:anywhere}.scroll{overflow-x:auto}table{border-collapse:collapse;width:100%}\
th,td{text-align:left;padding:.35rem .75rem .35rem 0;border-bottom:1px solid var(--line);font-weight:inherit;vertical-align:top}\
th{font-size:.9rem}.ok{color:var(--ok)}.bad{color:var(--bad)}a{color:inherit}";

/// The page for this status.
pub(super) fn render(status: &Status) -> String {
    let mut page = String::with_capacity(4096);
    let word = match (status.live, status.ready) {
        (false, _) => "<strong class=\"bad\">stuck</strong>",
        (true, true) => "<strong class=\"ok\">ready</strong>",
        (true, false) => "<strong class=\"bad\">not ready</strong>",
    };
    let shown = &status.shown;
    page.push_str("<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n");
    page.push_str("<meta name=\"viewport\" content=\"width=device-width,initial-scale=1\">\n");
    // Without scripts the page is brought up to date by loading it again.
    page.push_str("<meta http-equiv=\"refresh\" content=\"5\">\n<link rel=\"icon\" href=\"data:,\">\n");
    page.push_str(&format!(
        "<title>pod-monitor {}</title>\n<style>{STYLE}</style>\n</head>\n",
        escape(&shown.identity)
    ));
    page.push_str(&format!("<body>\n<main>\n<h1>pod-monitor</h1>\n<p>This replica is {word}.</p>\n"));
    page.push_str("<h2>Replica</h2>\n<dl>\n");
    let started = shown.started_at.map(|at| at.to_string());
    let facts = [
        ("Identity", Some(&shown.identity)),
        ("Version", Some(&shown.version)),
        ("Started", started.as_ref()),
        ("Selector", Some(&shown.selector)),
        ("Sink", Some(&shown.sink)),
    ];
    for (name, value) in facts {
        if let Some(value) = value.filter(|value| !value.is_empty()) {
            page.push_str(&format!("<dt>{name}</dt><dd>{}</dd>\n", escape(value)));
        }
    }
    page.push_str("</dl>\n");
    page.push_str(&shards(&shown.shards, &shown.identity));
    page.push_str(&checks(status));
    page.push_str("<h2>More</h2>\n<p><a href=\"/api/status\">Status as JSON</a>, <a href=\"/metrics\">metrics</a>, ");
    page.push_str("<a href=\"/readyz?verbose\">readiness</a>, <a href=\"/livez\">liveness</a></p>\n");
    page.push_str("</main>\n</body>\n</html>\n");
    page
}

/// The column of the holder.
const HOLDER: usize = 2;
const STANDBY: &str = Role::Standby.as_str();

fn shards(shards: &[ShardStatus], me: &str) -> String {
    if shards.is_empty() {
        return "<h2>Shards</h2>\n<p>This replica takes part in no shard yet.</p>\n".to_owned();
    }
    let mut text = "<h2>Shards</h2>\n<div class=\"scroll\"><table>\n<thead><tr>".to_owned();
    for head in ["Shard", "Role here", "Holder", "Term", "Tracked pods", "Lag", "Since"] {
        text.push_str(&format!("<th scope=\"col\">{head}</th>"));
    }
    text.push_str("</tr></thead>\n<tbody>\n");
    for shard in shards {
        let number = |value: Option<u64>| value.map_or_else(|| "–".to_owned(), |value| value.to_string());
        let holder = shard.holder.as_deref();
        let (class, holder) = match holder {
            None => ("bad", "nobody".to_owned()),
            // We act, and the Lease names another: one of us will find out by the fence.
            Some(other) if other != me && shard.role != STANDBY => {
                ("bad", format!("{other}, and this replica acts too"))
            }
            Some(holder) => ("", holder.to_owned()),
        };
        let cells = [
            shard.shard.to_string(),
            shard.role.to_owned(),
            holder,
            number(shard.term),
            number(shard.tracked_pods),
            number(shard.lag_records),
            shard.since.map_or_else(|| "–".to_owned(), |at| at.to_string()),
        ];
        let cell = |(index, cell): (usize, &String)| match (index, class) {
            (HOLDER, "bad") => format!("<td class=\"bad\">{}</td>", escape(cell)),
            _ => format!("<td>{}</td>", escape(cell)),
        };
        let cells: String = cells.iter().enumerate().map(cell).collect();
        text.push_str(&format!("<tr>{cells}</tr>\n"));
    }
    text.push_str("</tbody>\n</table></div>\n");
    text
}

fn checks(status: &Status) -> String {
    let mut text = "<h2>Checks</h2>\n".to_owned();
    if status.checks.is_empty() {
        text.push_str("<p>No component has started yet.</p>\n");
        return text;
    }
    text.push_str("<div class=\"scroll\"><table>\n<thead><tr><th scope=\"col\">Component</th><th scope=\"col\">State</th></tr></thead>\n<tbody>\n");
    for check in &status.checks {
        let (class, state) = if check.ok { ("ok", "ok") } else { ("bad", check.why.as_deref().unwrap_or("waiting")) };
        text.push_str(&format!("<tr><td>{}</td><td class=\"{class}\">{}</td></tr>\n", check.name, escape(state)));
    }
    for name in &status.stuck {
        text.push_str(&format!("<tr><td>{name}</td><td class=\"bad\">its loop does not turn</td></tr>\n"));
    }
    text.push_str("</tbody>\n</table></div>\n");
    text
}

/// Text for HTML, also inside quoted attributes. Control characters are shown as code points: they have no business
/// in names and reasons.
fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            c if c.is_control() => {
                // Writing to a String cannot fail.
                write!(escaped, "U+{:04X}", u32::from(c)).expect("strings grow");
            }
            c => escaped.push(c),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::status::{Check, Shown};

    #[test]
    fn a_shard_without_a_leader_and_one_with_two_stand_out() {
        let shard = |role, holder: Option<&str>| ShardStatus {
            role,
            holder: holder.map(str::to_owned),
            ..ShardStatus::default()
        };
        let page = |one| shards(&[one], "me");
        let standby = Role::Standby.as_str();
        assert!(page(shard(standby, None)).contains("<td class=\"bad\">nobody</td>"));
        assert!(page(shard("live", Some("other"))).contains("<td class=\"bad\">other, and this replica acts too</td>"));
        for fine in [shard(standby, Some("other")), shard("live", Some("me"))] {
            assert!(!page(fine).contains("bad"));
        }
    }

    #[test]
    fn foreign_text_stays_text() {
        let shown = Shown {
            identity: "<script>alert('x')</script>\u{1b}".to_owned(),
            shards: vec![ShardStatus { holder: Some("\"><img src=x>".to_owned()), ..ShardStatus::default() }],
            ..Shown::default()
        };
        let check = Check { name: "kafka".into(), ok: false, why: Some("<b>&".to_owned()) };
        let page = render(&Status { shown, ready: false, live: true, checks: vec![check], stuck: vec![] });
        assert!(!page.contains("<script") && !page.contains("<img") && !page.contains("<b>"), "{page}");
        assert!(page.contains("&lt;b&gt;&amp;") && page.contains("U+001B"), "{page}");
    }
}
