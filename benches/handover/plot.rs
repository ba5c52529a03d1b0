//! The plot of docs/: each trial a dot on a logarithmic axis of time. Readable on light and dark pages.

use std::fmt::Write as _;

use clap::ValueEnum as _;

use crate::{
    cases::Case,
    results::{Results, percentile},
};

const WIDTH: f64 = 860.0;
const LEFT: f64 = 250.0;
const RIGHT: f64 = 30.0;
const TOP: f64 = 64.0;
const ROW: f64 = 34.0;
/// Ends of the axis in milliseconds.
const AXIS: (f64, f64) = (1.0, 30_000.0);
const TICKS: [(f64, &str); 9] = [
    (1.0, "1 ms"),
    (3.0, "3"),
    (10.0, "10 ms"),
    (30.0, "30"),
    (100.0, "100 ms"),
    (300.0, "300"),
    (1_000.0, "1 s"),
    (3_000.0, "3"),
    (10_000.0, "10 s"),
];
const STYLE: &str = "
  text { font: 13px system-ui, sans-serif; fill: #24292f }
  .small { font-size: 11px; fill: #57606a }
  .title { font-weight: 600; font-size: 15px }
  .grid { stroke: #d0d7de } .ours { fill: #0969da } .peer { fill: #bc4c00 }
  .median { stroke: #24292f; stroke-width: 2 } .target { stroke: #1a7f37; stroke-width: 2; stroke-dasharray: 3 2 }
  @media (prefers-color-scheme: dark) {
    text { fill: #e6edf3 } .small { fill: #9198a1 } .grid { stroke: #3d444d }
    .ours { fill: #58a6ff } .peer { fill: #f0883e } .median { stroke: #e6edf3 } .target { stroke: #3fb950 }
  }
";

/// All cases with trials, one row each.
pub(crate) fn svg(results: &Results) -> String {
    let cases: Vec<Case> = Case::value_variants().iter().copied().filter(|case| results.count(*case) > 0).collect();
    let height = TOP + ROW * cases.len() as f64 + 46.0;
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" role=\"img\" \
         aria-label=\"Gaps between visible events around a change of hands\">\n<style>{STYLE}</style>\n\
         <text class=\"title\" x=\"12\" y=\"24\">How long nothing is told when the leader goes</text>\n\
         <text class=\"small\" x=\"12\" y=\"44\">Each dot is one trial: the gap between events as a read_committed \
         consumer sees them (10 000 pods: until the first new event; fences: how long).</text>\n"
    );
    axis(&mut svg, TOP + ROW * cases.len() as f64);
    for (row, case) in cases.iter().enumerate() {
        self::row(&mut svg, results, *case, TOP + ROW * (row as f64 + 0.5));
    }
    svg.push_str("</svg>\n");
    svg
}

fn x(milliseconds: f64) -> f64 {
    let (low, high) = AXIS;
    let share = (milliseconds.clamp(low, high) / low).ln() / (high / low).ln();
    LEFT + share * (WIDTH - LEFT - RIGHT)
}

// Writing to a String cannot fail, so its results are dropped below.
fn axis(svg: &mut String, bottom: f64) {
    for (at, label) in TICKS {
        let x = x(at);
        let _ = writeln!(
            svg,
            "<line class=\"grid\" x1=\"{x:.1}\" x2=\"{x:.1}\" y1=\"{TOP}\" y2=\"{bottom:.1}\"/>\
             <text class=\"small\" x=\"{x:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{label}</text>",
            bottom + 16.0
        );
    }
    let _ = writeln!(
        svg,
        "<text class=\"small\" x=\"12\" y=\"{:.1}\">bar: median; dashed: target of the highest percentile; N: trials</text>",
        bottom + 36.0
    );
}

fn row(svg: &mut String, results: &Results, case: Case, y: f64) {
    let trials = results.of(case);
    let value = |trial: &&crate::results::Trial| if case.aims_at_first() { trial.first_ms } else { trial.gap_ms };
    let values: Vec<f64> = trials.iter().map(value).collect();
    let class = if case.is_exact() || case == Case::FenceTwoShot { "ours" } else { "peer" };
    let _ = writeln!(svg, "<text x=\"12\" y=\"{:.1}\">{}</text>", y + 1.0, case.title());
    let _ = writeln!(svg, "<text class=\"small\" x=\"12\" y=\"{:.1}\">N {}</text>", y + 13.0, values.len());
    for (number, value) in values.iter().enumerate() {
        // Spread over the row, in the order of measuring.
        let offset = (number % 7) as f64 * 3.0 - 9.0;
        let _ = writeln!(
            svg,
            "<circle class=\"{class}\" cx=\"{:.1}\" cy=\"{:.1}\" r=\"2.4\" fill-opacity=\"0.55\"/>",
            x(*value),
            y + offset
        );
    }
    let mut line = |class: &str, at: f64| {
        let (x, high, low) = (x(at), y - 13.0, y + 13.0);
        let _ = writeln!(svg, "<line class=\"{class}\" x1=\"{x:.1}\" x2=\"{x:.1}\" y1=\"{high:.1}\" y2=\"{low:.1}\"/>");
    };
    line("median", percentile(&values, 0.5));
    if let Some((_, limit)) = case.targets().last() {
        line("target", *limit);
    }
}
