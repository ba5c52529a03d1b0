//! The report as a page: a timeline of faults, holders and events to look at, and the figures below it. One file, no
//! script, no outside assets. Pure.

use std::fmt::Write as _;

use crate::{
    kind::{Kind, Part},
    report::{at, headline, legs, reasons, remarks, rows},
    run::Outcome,
    timeline::Strike,
};

/// Pixels a second.
const SCALE: f64 = 9.0;
/// Left of the timeline: names of its rows.
const MARGIN: f64 = 90.0;
/// Seconds between two marks of the axis.
const MARK_EVERY: usize = 10;
/// One bar of events spans so many seconds.
const BIN: f64 = 0.5;
/// A silence from here on is drawn, in seconds.
const SILENCE_MIN: f64 = 1.0;

const STYLE: &str = "
:root { color-scheme: light dark; --ink: #1d2430; --soft: #66707f; --line: #d5dae2; --ground: #fff;
  --replicas: #c2410c; --links: #7c3aed; --servers: #0369a1; --lease: #b45309; --good: #15803d; --bad: #b91c1c;
  --r0: #4f86c6; --r1: #57a773; --r2: #d19a3f; --other: #9aa3af; --events: #8fa3bf; --silent: #e11d48; }
@media (prefers-color-scheme: dark) { :root { --ink: #e6e9ee; --soft: #9aa4b2; --line: #333b47; --ground: #12161c;
  --events: #556b8a; } }
body { font: 15px/1.5 system-ui, sans-serif; color: var(--ink); background: var(--ground); margin: 2rem auto;
  max-width: 72rem; padding: 0 1rem; }
h1 { font-size: 1.4rem; } h2 { font-size: 1.1rem; margin-top: 2rem; }
.verdict { font-size: 1.1rem; font-weight: 600; border-left: .4rem solid; padding: .4rem .8rem; }
.good { border-color: var(--good); } .bad { border-color: var(--bad); color: var(--bad); }
.scroll { overflow-x: auto; border: 1px solid var(--line); border-radius: .4rem; }
table { border-collapse: collapse; } td, th { padding: .2rem .8rem .2rem 0; text-align: left; }
td.n { text-align: right; font-variant-numeric: tabular-nums; } tr { border-bottom: 1px solid var(--line); }
.soft, svg text { fill: var(--soft); color: var(--soft); font-size: 12px; }
pre { white-space: pre-wrap; }
";

/// The page. `about`: where and when it was made.
pub fn page(outcome: &Outcome, about: &str) -> String {
    let class = if outcome.is_good() { "good" } else { "bad" };
    let mut page = format!(
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><title>pod-monitor: chaos</title>\
         <meta name=\"viewport\" content=\"width=device-width\"><style>{STYLE}</style></head><body>\n\
         <h1>Chaos: what a consumer saw while leaders died</h1>\n<p class=\"soft\">{}</p>\n\
         <p class=\"verdict {class}\">{}</p>\n<ul>\n",
        escape(about),
        escape(&headline(outcome))
    );
    for remark in remarks(outcome) {
        add(&mut page, format_args!("<li>{}</li>\n", escape(&remark)));
    }
    page.push_str("</ul>\n");
    if !outcome.verdict.faults.is_empty() {
        add(&mut page, format_args!("<pre>{}</pre>\n", escape(&outcome.verdict.faults.join("\n"))));
    }
    page.push_str("<h2>Timeline</h2>\n<p class=\"soft\">Point at anything to read what it is; it scrolls.</p>\n");
    add(&mut page, format_args!("<div class=\"scroll\" tabindex=\"0\">{}</div>\n", timeline(outcome)));
    page.push_str(&figures(outcome));
    page.push_str("</body></html>\n");
    page
}

fn add(page: &mut String, args: std::fmt::Arguments<'_>) {
    page.write_fmt(args).expect("a String takes everything");
}

fn x(seconds: f64) -> f64 {
    MARGIN + seconds * SCALE
}

fn timeline(outcome: &Outcome) -> String {
    let end = outcome.took.as_secs_f64();
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{:.0}\" height=\"210\" role=\"img\" \
         aria-label=\"Timeline of faults, holders of the Lease, and visible events\">\n",
        x(end) + 20.0
    );
    for (name, y) in [("faults", 40), ("holder", 85), ("events", 140), ("silence", 180)] {
        add(&mut svg, format_args!("<text x=\"8\" y=\"{y}\">{name}</text>\n"));
    }
    for mark in (0..=end as usize).step_by(MARK_EVERY) {
        let x = x(mark as f64);
        add(
            &mut svg,
            format_args!(
                "<line x1=\"{x:.0}\" y1=\"14\" x2=\"{x:.0}\" y2=\"195\" stroke=\"var(--line)\"/>\
                 <text x=\"{x:.0}\" y=\"11\">{mark} s</text>\n"
            ),
        );
    }
    for strike in outcome.timeline.strikes.borrow().iter() {
        let what = format!(
            "{}: {} ({}), at {:.1} s; somebody leads after {:.2} s",
            strike.kind.name(),
            strike.kind.help(),
            strike.note,
            strike.at,
            strike.led - strike.at
        );
        let colour = colour(strike.kind);
        bar(&mut svg, (strike.at, strike.led), (24.0, 18.0), colour, 1.0, &what);
        bar(&mut svg, (strike.led, strike.settled), (24.0, 18.0), colour, 0.3, &what);
    }
    let holders = outcome.timeline.holders.borrow();
    for (index, (from, holder)) in holders.iter().enumerate() {
        let to = holders.get(index + 1).map_or(end, |(to, _)| *to);
        let colour = match holder.as_bytes() {
            [b'r', digit @ b'0'..=b'2', ..] => format!("var(--r{})", char::from(*digit)),
            _ => "var(--other)".to_owned(),
        };
        if !holder.is_empty() {
            bar(&mut svg, (*from, to), (70.0, 18.0), &colour, 1.0, &format!("{holder}, {:.1} s", to - from));
        }
    }
    events(&mut svg, &outcome.timeline.arrivals.borrow(), end);
    svg.push_str("</svg>");
    svg
}

fn events(svg: &mut String, arrivals: &[f64], end: f64) {
    let mut bins = vec![0_usize; (end / BIN) as usize + 1];
    for at in arrivals {
        if let Some(bin) = bins.get_mut((at / BIN) as usize) {
            *bin += 1;
        }
    }
    let most = bins.iter().copied().max().unwrap_or_default().max(1) as f64;
    for (index, count) in bins.iter().enumerate().filter(|(_, count)| **count > 0) {
        let (from, height) = (index as f64 * BIN, *count as f64 / most * 40.0);
        let what = format!("{count} events from {from:.1} s on");
        bar(svg, (from, from + BIN * 0.9), (148.0 - height, height), "var(--events)", 1.0, &what);
    }
    for pair in arrivals.windows(2).filter(|pair| pair[1] - pair[0] >= SILENCE_MIN) {
        let what = format!("nothing became visible for {:.2} s", pair[1] - pair[0]);
        bar(svg, (pair[0], pair[1]), (172.0, 8.0), "var(--silent)", 1.0, &what);
    }
}

fn bar(svg: &mut String, (from, to): (f64, f64), (y, height): (f64, f64), colour: &str, opacity: f64, what: &str) {
    let width = ((to - from) * SCALE).max(1.0);
    add(
        svg,
        format_args!(
            "<rect x=\"{:.1}\" y=\"{y:.1}\" width=\"{width:.1}\" height=\"{height:.1}\" fill=\"{colour}\" \
             opacity=\"{opacity}\"><title>{}</title></rect>\n",
            x(from),
            escape(what)
        ),
    );
}

fn colour(kind: Kind) -> &'static str {
    match kind.hits() {
        Part::Replicas => "var(--replicas)",
        Part::Links => "var(--links)",
        Part::Servers => "var(--servers)",
        Part::Lease => "var(--lease)",
    }
}

fn figures(outcome: &Outcome) -> String {
    let mut page = "<h2>Each kind of fault</h2>\n<table><tr><th>fault</th><th></th><th>times</th>\
        <th>somebody leads after, p50 / max s</th><th>longest silence around it, p50 / max s</th></tr>\n"
        .to_owned();
    for (kind, row) in rows(outcome) {
        add(
            &mut page,
            format_args!(
                "<tr><td><span style=\"color:{}\">&#9632;</span> {}</td><td class=\"soft\">{}</td>\
                 <td class=\"n\">{}</td><td class=\"n\">{:.2} / {:.2}</td><td class=\"n\">{}</td></tr>\n",
                colour(kind),
                kind.name(),
                escape(&kind.help()),
                row.count,
                row.led.0,
                row.led.1,
                row.silence()
            ),
        );
    }
    page.push_str(
        "</table>\n<h2>Legs of the take-overs</h2>\n<table><tr><th>from the moment when the Lease could be \
        had until</th><th>p50 ms</th><th>p99 ms</th><th>max ms</th></tr>\n",
    );
    for (name, reached) in legs(outcome) {
        let [p50, p99, max] = [0.5, 0.99, 1.0].map(|share| at(&reached, share));
        add(
            &mut page,
            format_args!(
                "<tr><td>{name}</td><td class=\"n\">{p50:.1}</td><td class=\"n\">{p99:.1}</td>\
                 <td class=\"n\">{max:.1}</td></tr>\n"
            ),
        );
    }
    let reasons = reasons(&outcome.take_overs);
    add(&mut page, format_args!("</table>\n<p>{} take-overs, by reason: {reasons}</p>\n", outcome.take_overs.len()));
    page.push_str(
        "<h2>Every fault</h2>\n<table><tr><th>at s</th><th>fault</th><th>in particular</th>\
        <th>leads after s</th><th>ready after s</th></tr>\n",
    );
    for Strike { kind, note, at, led, settled } in outcome.timeline.strikes.borrow().iter() {
        add(
            &mut page,
            format_args!(
                "<tr><td class=\"n\">{at:.1}</td><td>{}</td><td>{}</td><td class=\"n\">{:.2}</td>\
                 <td class=\"n\">{:.2}</td></tr>\n",
                kind.name(),
                escape(note),
                led - at,
                settled - at
            ),
        );
    }
    page.push_str("</table>\n");
    page
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::tests::outcome;

    #[test]
    fn the_page_draws_every_strike_holder_and_silence_and_escapes_what_it_shows() {
        let page = page(&outcome(), "2026-01-01 <machine>");
        assert_eq!(page.matches("fill=\"var(--replicas)\"").count(), 2, "the kill, and until all were ready");
        assert_eq!(page.matches("fill=\"var(--servers)\"").count(), 2);
        assert_eq!(page.matches("fill=\"var(--r0)\"").count() + page.matches("fill=\"var(--r1)\"").count(), 2);
        assert_eq!(page.matches("nothing became visible for").count(), 2, "1.9 s and 4 s");
        assert!(page.contains("r0_&lt;a&gt;") && page.contains("2026-01-01 &lt;machine&gt;"), "{page}");
        assert!(page.contains("class=\"verdict good\"") && !page.contains("<script"));
    }
}
