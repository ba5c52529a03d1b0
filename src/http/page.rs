//! The status page: one HTML document, whole without JavaScript; with it, its parts are replaced as they change. Pure.
//!
//! ```text
//!   Status ──parts()──▶ [(id, html)] ──render()──▶ the page, each part in the element of its id
//!                            └────────live.rs────▶ those that changed, as server-sent events ──▶ script.js puts them in
//! ```
//! Promises: text from outside stays text ([`escape`]); nothing is loaded from anywhere ([`policy`]); colour is never the
//! only sign. What each part says: docs/status-page.md.

mod executions;
mod hand_overs;
mod replicas;
mod shards;
mod verdict;

use std::fmt::Write as _;

use jiff::{Timestamp, tz::TimeZone};

use super::status::Status;

const STYLE: &str = include_str!("page/style.css");
const SCRIPT: &str = include_str!("page/script.js");

/// Digests of [`STYLE`] and [`SCRIPT`]: the browser applies and runs these two and nothing else. A test computes them.
const STYLE_SHA256: &str = "OgxsLRM0T11vD/fKUFEM9vHKpzDgjrarw18oD+1jbjY=";
const SCRIPT_SHA256: &str = "gljDor2f1gTepjm37RaCDKYN0lbK/xMrZQBv6D9sRi0=";

/// A part of the page: the id of its element, and what stands in it.
pub(super) type Part = (&'static str, String);

/// The part that stands in the head of the page, the others follow.
const ABOUT: &str = "about";

/// The parts in the order of the page.
pub(super) fn parts(status: &Status) -> Vec<Part> {
    vec![
        (ABOUT, about(status)),
        ("verdict", verdict::word(status)),
        ("numbers", verdict::numbers(status)),
        ("shards", shards::section(status)),
        ("hand-overs", hand_overs::section(status)),
        ("executions", executions::section(status)),
        ("replicas", replicas::section(status)),
        ("checks", replicas::checks(status)),
    ]
}

/// The page for this status.
pub(super) fn render(status: &Status) -> String {
    let identity = escape(&status.shown.identity);
    let mut page = String::with_capacity(24 << 10);
    page.push_str("<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n");
    page.push_str("<meta name=\"viewport\" content=\"width=device-width,initial-scale=1\">\n");
    // Without scripts the page is brought up to date by loading it again.
    page.push_str("<noscript><meta http-equiv=\"refresh\" content=\"5\"></noscript>\n");
    page.push_str("<link rel=\"icon\" href=\"data:,\">\n");
    write(&mut page, format_args!("<title>pod-monitor {identity}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n"));
    page.push_str("<a class=\"skip\" href=\"#shards\">Skip to the shards</a>\n<header>\n<h1>pod-monitor</h1>\n");
    write(&mut page, format_args!("<p class=\"about\" id=\"{ABOUT}\">{}</p>\n", about(status)));
    page.push_str(
        "<p id=\"link\" role=\"status\"><noscript>Loaded anew every 5 s, without JavaScript.</noscript></p>\n",
    );
    page.push_str("</header>\n<main>\n");
    for (id, html) in parts(status).into_iter().filter(|(id, _)| *id != ABOUT) {
        let live = if id == "verdict" { " aria-live=\"polite\"" } else { "" };
        // The skip link goes there.
        let focus = if id == "shards" { " tabindex=\"-1\"" } else { "" };
        write(&mut page, format_args!("<section id=\"{id}\"{live}{focus}>{html}</section>\n"));
    }
    // Relative, so that they work behind a prefix, kubectl proxy's for instance.
    page.push_str("</main>\n<footer><a href=\"api/status\">Status as JSON</a> <a href=\"metrics\">Metrics</a> ");
    page.push_str("<a href=\"readyz?verbose\">Readiness</a> <a href=\"livez\">Liveness</a></footer>\n");
    write(&mut page, format_args!("<script>{SCRIPT}</script>\n</body>\n</html>\n"));
    page
}

/// What the browser may do with the page: apply its style, run its script, ask this server for news.
pub(super) fn policy() -> String {
    format!(
        "default-src 'none'; style-src 'sha256-{STYLE_SHA256}'; script-src 'sha256-{SCRIPT_SHA256}'; connect-src 'self'; \
         img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )
}

/// Who is asked: fixed for the life of the process. A page of another version loads itself anew.
fn about(status: &Status) -> String {
    let shown = &status.shown;
    let (identity, version) = (escape(&shown.identity), escape(&shown.version));
    let mut text = format!("<b>{identity}</b> version <span id=\"version\">{version}</span>");
    if let Some(started) = shown.started_at {
        write(&mut text, format_args!(", started {}", time(started, status.at, "")));
    }
    write(&mut text, format_args!(", pods <code>{}</code>, to {}", escape(&shown.selector), escape(&shown.sink)));
    text
}

/// A table that may scroll by itself on narrow screens, also by keyboard. `rows` is HTML.
fn table(id: &str, caption: &str, heads: &[&str], rows: &str) -> String {
    let mut text =
        format!("<div class=\"scroll\" id=\"{id}-table\" role=\"region\" aria-label=\"{caption}\" tabindex=\"0\">");
    write(&mut text, format_args!("<table><caption>{caption}</caption><thead><tr>"));
    for head in heads {
        write(&mut text, format_args!("<th scope=\"col\">{head}</th>"));
    }
    write(&mut text, format_args!("</tr></thead><tbody>{rows}</tbody></table></div>"));
    text
}

/// A moment in UTC, and for programs. `class` as HTML has it, or nothing.
fn time(at: Timestamp, now: Timestamp, class: &str) -> String {
    let class = if class.is_empty() { String::new() } else { format!(" class=\"{class}\"") };
    format!("<time datetime=\"{}\"{class}>{}</time>", at.strftime("%Y-%m-%dT%H:%M:%SZ"), clock(at, now))
}

/// A moment in UTC; its date only where it is not today's.
fn clock(at: Timestamp, now: Timestamp) -> String {
    let (at, now) = (at.to_zoned(TimeZone::UTC), now.to_zoned(TimeZone::UTC));
    at.strftime(if at.date() == now.date() { "%H:%M:%S" } else { "%Y-%m-%d %H:%M:%S" }).to_string()
}

/// A number with what it counts.
fn count(number: u64, one: &str, many: &str) -> String {
    format!("{number} {}", if number == 1 { one } else { many })
}

/// Milliseconds for people: `3.2 ms`, `105 ms`, `4.51 s`.
fn took(ms: f64) -> String {
    match ms {
        ms if ms < 10.0 => format!("{ms:.1} ms"),
        ms if ms < 1000.0 => format!("{ms:.0} ms"),
        ms => format!("{:.2} s", ms / 1000.0),
    }
}

fn write(text: &mut String, arguments: std::fmt::Arguments<'_>) {
    // Writing to a String cannot fail.
    text.write_fmt(arguments).expect("strings grow");
}

/// Text for HTML, also inside quoted attributes. Control characters are shown as code points, and so is what turns the
/// direction of writing: they have no business in names and reasons.
fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            c if c.is_control()
                || matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}') =>
            {
                write(&mut escaped, format_args!("U+{:04X}", u32::from(c)));
            }
            c => escaped.push(c),
        }
    }
    escaped
}

#[cfg(test)]
#[path = "page/tests.rs"]
mod tests;
