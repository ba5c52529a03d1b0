//! The plots of docs/: cost against size. Readable on light and dark pages.

use std::{collections::BTreeMap, fmt::Write as _, fs, path::Path};

use anyhow::{Context as _, Result};

use crate::results::{Results, number};

const WIDTH: f64 = 860.0;
const HEIGHT: f64 = 400.0;
const LEFT: f64 = 76.0;
const RIGHT: f64 = 300.0;
const TOP: f64 = 64.0;
const BOTTOM: f64 = 56.0;
const COLOURS: [&str; 6] = ["a", "b", "c", "d", "e", "f"];
/// Values nearer to another one are left out.
const APART: (f64, f64) = (40.0, 13.0);
const STYLE: &str = "
  text { font: 13px system-ui, sans-serif; fill: #24292f }
  .small { font-size: 11px; fill: #57606a }
  .title { font-weight: 600; font-size: 15px }
  .grid { stroke: #d0d7de } path { fill: none; stroke-width: 2 }
  .a { stroke: #0969da } .b { stroke: #1a7f37 } .c { stroke: #bc4c00 } .d { stroke: #8250df } .e { stroke: #9a6700 } .f { stroke: #1b7c83 }
  .target { stroke: #cf222e; stroke-width: 1.5; stroke-dasharray: 4 3 } circle { fill: #ffffff; stroke-width: 2 }
  @media (prefers-color-scheme: dark) {
    text { fill: #e6edf3 } .small { fill: #9198a1 } .grid { stroke: #3d444d } circle { fill: #0d1117 }
    .a { stroke: #58a6ff } .b { stroke: #3fb950 } .c { stroke: #f0883e } .d { stroke: #bc8cff } .e { stroke: #d29922 } .f { stroke: #39c5cf }
    .target { stroke: #ff7b72 }
  }
";

struct Plot {
    file: &'static str,
    title: &'static str,
    below: &'static str,
    /// What lines are called in the results, and in the legend without that.
    prefixes: &'static [&'static str],
    unit: &'static str,
    /// Of the axes: both, or only the one of sizes, or none.
    log_y: bool,
    /// A line across, with its name.
    target: Option<(f64, &'static str)>,
    /// Points of targets, with their unit and name.
    targets: &'static [(f64, f64)],
}

const PLOTS: [Plot; 5] = [
    Plot {
        file: "scaling-memory.svg",
        title: "What a tracked pod costs",
        below: "Bytes a pod against pods that are tracked, after a restore and a LIST.",
        prefixes: &["memory: "],
        unit: "B",
        log_y: true,
        target: Some((512.0, "target 512 B")),
        targets: &[],
    },
    Plot {
        file: "scaling-takeover.svg",
        title: "How long a take-over compares what did not change",
        below: "Seconds from the Lease to the last pod compared, against pods. Crosses: targets.",
        prefixes: &["take-over: "],
        unit: "s",
        log_y: true,
        target: None,
        targets: &[(10_000.0, 0.8), (100_000.0, 8.0)],
    },
    Plot {
        file: "scaling-restore.svg",
        title: "How long a restore takes",
        below: "Milliseconds until everything that was told is known, against pods. Cross: target.",
        prefixes: &["restore: "],
        unit: "ms",
        log_y: true,
        target: None,
        targets: &[(100_000.0, 300.0)],
    },
    Plot {
        file: "scaling-shards.svg",
        title: "Committed events a second",
        below: "Of all shards together against shards, one journal each, clients and broker on the same cores.",
        prefixes: &["shards: "],
        unit: "/s",
        log_y: false,
        target: None,
        targets: &[],
    },
    Plot {
        file: "scaling-latency.svg",
        title: "How long a status write takes to its event",
        below: "Milliseconds from when a write was due to the visible event, against status writes a second; all on the same cores.",
        prefixes: &["latency: "],
        unit: "ms",
        log_y: true,
        target: Some((100.0, "target 100 ms (p99)")),
        targets: &[],
    },
];

/// Writes those of which something was measured; gives their names.
pub(crate) fn write(results: &Results, into: &Path) -> Result<Vec<&'static str>> {
    let mut written = Vec::new();
    for plot in PLOTS {
        let of = |name: &str| plot.prefixes.iter().find_map(|prefix| name.strip_prefix(prefix).map(str::to_owned));
        let lines: BTreeMap<String, &Vec<(f64, f64)>> =
            results.series.iter().filter_map(|(name, points)| Some((of(name)?, points))).collect();
        if lines.is_empty() {
            continue;
        }
        let file = into.join(plot.file);
        fs::write(&file, svg(&plot, &lines)).with_context(|| format!("write {}", file.display()))?;
        written.push(plot.file);
    }
    Ok(written)
}

/// One axis: values to places.
struct Axis {
    from: f64,
    to: f64,
    log: bool,
    places: (f64, f64),
}

impl Axis {
    fn place(&self, value: f64) -> f64 {
        let share = if self.log {
            (value.max(self.from) / self.from).ln() / (self.to / self.from).ln()
        } else {
            (value - self.from) / (self.to - self.from)
        };
        self.places.0 + share * (self.places.1 - self.places.0)
    }

    /// Where lines of the grid are drawn.
    fn ticks(&self) -> Vec<f64> {
        if self.log {
            let first = self.from.log10().floor() as i32;
            let last = self.to.log10().ceil() as i32;
            let all = (first..=last).map(|power| 10_f64.powi(power));
            all.filter(|tick| *tick >= self.from * 0.999 && *tick <= self.to * 1.001).collect()
        } else {
            (0..=4).map(|n| self.from + (self.to - self.from) * f64::from(n) / 4.0).collect()
        }
    }
}

fn axes(plot: &Plot, lines: &BTreeMap<String, &Vec<(f64, f64)>>) -> (Axis, Axis) {
    let points = || lines.values().flat_map(|points| points.iter().copied()).chain(plot.targets.iter().copied());
    let extremes = |of: fn((f64, f64)) -> f64| {
        points().map(of).fold((f64::MAX, f64::MIN), |(low, high), value| (low.min(value), high.max(value)))
    };
    let (x, mut y) = (extremes(|p| p.0), extremes(|p| p.1));
    if let Some((target, _)) = plot.target {
        y = (y.0.min(target), y.1.max(target));
    }
    let decade = |value: f64, up: bool| 10_f64.powf(if up { value.log10().ceil() } else { value.log10().floor() });
    let (low, high) = if plot.log_y { (decade(y.0, false), decade(y.1, true)) } else { (0.0, nice(y.1)) };
    let horizontal = Axis { from: x.0, to: x.1, log: true, places: (LEFT, WIDTH - RIGHT) };
    let vertical = Axis { from: low, to: high, log: plot.log_y, places: (HEIGHT - BOTTOM, TOP) };
    (horizontal, vertical)
}

/// The next number above that people like.
fn nice(value: f64) -> f64 {
    let power = 10_f64.powf(value.log10().floor());
    [1.0, 2.0, 4.0, 8.0, 10.0].iter().map(|n| n * power).find(|nice| *nice >= value).unwrap_or(value)
}

// Writing to a String cannot fail, so its results are dropped below.
fn svg(plot: &Plot, lines: &BTreeMap<String, &Vec<(f64, f64)>>) -> String {
    let (x, y) = axes(plot, lines);
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\" aria-label=\"{}\">\n\
         <style>{STYLE}</style>\n<text class=\"title\" x=\"12\" y=\"24\">{}</text>\n\
         <text class=\"small\" x=\"12\" y=\"44\">{}</text>\n",
        plot.title, plot.title, plot.below
    );
    for tick in y.ticks() {
        let (at, label) = (y.place(tick), format!("{} {}", number(tick), plot.unit));
        let _ = writeln!(
            svg,
            "<line class=\"grid\" x1=\"{LEFT}\" x2=\"{:.1}\" y1=\"{at:.1}\" y2=\"{at:.1}\"/>\
             <text class=\"small\" x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{label}</text>",
            WIDTH - RIGHT,
            LEFT - 8.0,
            at + 4.0
        );
    }
    let mut sizes: Vec<f64> = lines.values().flat_map(|points| points.iter().map(|point| point.0)).collect();
    sizes.sort_by(f64::total_cmp);
    sizes.dedup();
    for size in sizes {
        let (at, low) = (x.place(size), HEIGHT - BOTTOM + 18.0);
        let _ = writeln!(
            svg,
            "<text class=\"small\" x=\"{at:.1}\" y=\"{low:.1}\" text-anchor=\"middle\">{}</text>",
            number(size)
        );
    }
    if let Some((target, name)) = plot.target {
        let (at, right) = (y.place(target), WIDTH - RIGHT);
        let _ = writeln!(svg, "<line class=\"target\" x1=\"{LEFT}\" x2=\"{right:.1}\" y1=\"{at:.1}\" y2=\"{at:.1}\"/>");
        let _ = writeln!(svg, "<text class=\"small\" x=\"{:.1}\" y=\"{:.1}\">{name}</text>", right + 8.0, at + 4.0);
    }
    let mut valued = Vec::new();
    for (number, (name, points)) in lines.iter().enumerate() {
        line(&mut svg, (&x, &y), number, (name, points), &mut valued);
    }
    for (size, most) in plot.targets {
        let (across, up) = (x.place(*size), y.place(*most));
        let (left, right, low, high) = (across - 6.0, across + 6.0, up - 6.0, up + 6.0);
        let _ = writeln!(
            svg,
            "<path class=\"target\" d=\"M{left:.1} {low:.1}L{right:.1} {high:.1}M{left:.1} {high:.1}L{right:.1} {low:.1}\"/>"
        );
    }
    svg.push_str("</svg>\n");
    svg
}

/// One line with its points, and its name in the legend.
fn line(
    svg: &mut String,
    (x, y): (&Axis, &Axis),
    number: usize,
    (name, points): (&str, &[(f64, f64)]),
    valued: &mut Vec<(f64, f64)>,
) {
    let colour = COLOURS[number % COLOURS.len()];
    let name = name.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
    let places: Vec<(f64, f64)> = points.iter().map(|(size, cost)| (x.place(*size), y.place(*cost))).collect();
    let path: Vec<String> = places.iter().map(|(across, up)| format!("{across:.1} {up:.1}")).collect();
    let _ = writeln!(svg, "<path class=\"{colour}\" d=\"M{}\"/>", path.join("L"));
    for ((across, up), (_, cost)) in places.iter().zip(points) {
        let _ = writeln!(svg, "<circle class=\"{colour}\" cx=\"{across:.1}\" cy=\"{up:.1}\" r=\"3.5\"/>");
        let near = |(x, y): &(f64, f64)| (x - across).abs() < APART.0 && (y - up).abs() < APART.1;
        if !valued.iter().any(near) {
            let value = crate::results::number(*cost);
            let above = up - 8.0;
            let _ = writeln!(
                svg,
                "<text class=\"small\" x=\"{across:.1}\" y=\"{above:.1}\" text-anchor=\"middle\">{value}</text>"
            );
            valued.push((*across, *up));
        }
    }
    let (left, at) = (WIDTH - RIGHT + 24.0, TOP + 22.0 * number as f64);
    let _ = writeln!(
        svg,
        "<path class=\"{colour}\" d=\"M{left:.1} {at:.1}h18\"/><text class=\"small\" x=\"{:.1}\" y=\"{:.1}\">{name}</text>",
        left + 24.0,
        at + 4.0
    );
}
