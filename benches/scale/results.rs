//! What was measured, target beside it: a table for people, a JSON file for plots and programs.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};
use testkit::machine;

/// On which side of its target a value is good.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Target {
    AtMost(f64),
    AtLeast(f64),
    /// Measured beside the others, to compare.
    None,
}

/// One line of the table.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Row {
    /// What.
    pub(crate) what: String,
    pub(crate) target: Target,
    pub(crate) measured: f64,
    pub(crate) unit: String,
    /// Under which conditions.
    pub(crate) note: String,
    /// When, of which commit, and who else was at work.
    #[serde(default)]
    pub(crate) at: String,
    #[serde(default)]
    pub(crate) commit: String,
    #[serde(default)]
    pub(crate) load: f64,
}

impl Row {
    pub(crate) fn new(what: &str, target: Target, measured: f64, unit: &str, note: impl Into<String>) -> Self {
        let (what, unit) = (what.into(), unit.into());
        let (at, commit) = (jiff::Timestamp::now().strftime("%Y-%m-%d %H:%M").to_string(), commit());
        Self { what, target, measured, unit, note: note.into(), at, commit, load: machine::load() }
    }

    pub(crate) fn verdict(&self) -> &'static str {
        let holds = match self.target {
            Target::AtMost(limit) => self.measured <= limit,
            Target::AtLeast(limit) => self.measured >= limit,
            Target::None => return "",
        };
        if holds { "PASS" } else { "MISS" }
    }

    fn target(&self) -> String {
        match self.target {
            Target::AtMost(limit) => format!("<= {} {}", number(limit), self.unit),
            Target::AtLeast(limit) => format!(">= {} {}", number(limit), self.unit),
            Target::None => String::new(),
        }
    }
}

/// Everything measured so far, on disk: a part that is measured again replaces what it said before.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct Results {
    #[serde(skip)]
    path: PathBuf,
    #[serde(default)]
    pub(crate) machine: String,
    /// By the part that measured them.
    #[serde(default)]
    parts: BTreeMap<String, Vec<Row>>,
    /// Points (x, y) of the plots, by line.
    #[serde(default)]
    pub(crate) series: BTreeMap<String, Vec<(f64, f64)>>,
}

impl Results {
    pub(crate) fn open(path: &Path) -> Result<Self> {
        let read = fs::read_to_string(path).ok().and_then(|text| serde_json::from_str(&text).ok());
        Ok(Self { path: path.to_owned(), machine: machine::describe(), ..read.unwrap_or_default() })
    }

    /// What one part says now.
    pub(crate) fn set(&mut self, part: &str, rows: Vec<Row>) -> Result<()> {
        self.parts.insert(part.into(), rows);
        self.write()
    }

    /// Points of one line of a plot.
    pub(crate) fn line(&mut self, name: &str, points: Vec<(f64, f64)>) -> Result<()> {
        self.series.insert(name.into(), points);
        self.write()
    }

    fn write(&self) -> Result<()> {
        fs::write(&self.path, serde_json::to_string_pretty(self)?).context("write the results")
    }

    /// A table in Markdown, of one part or of all.
    pub(crate) fn markdown(&self, part: Option<&str>) -> String {
        let mut text = String::from("| what | target | measured | | conditions | when, commit, load |\n");
        text.push_str("| --- | --- | --- | --- | --- | --- |\n");
        for row in self.parts.iter().filter(|(name, _)| part.is_none_or(|p| p == *name)).flat_map(|(_, rows)| rows) {
            text.push_str(&format!(
                "| {} | {} | **{} {}** | {} | {} | {}, {}, {:.1} |\n",
                row.what,
                row.target(),
                number(row.measured),
                row.unit,
                row.verdict(),
                row.note,
                row.at,
                row.commit,
                row.load
            ));
        }
        text
    }

    /// How many targets are missed.
    pub(crate) fn missed(&self) -> usize {
        self.parts.values().flatten().filter(|row| row.verdict() == "MISS").count()
    }
}

/// With three digits that count, and thousands apart.
pub(crate) fn number(value: f64) -> String {
    let digits = match value.abs() {
        size if size >= 100.0 => 0,
        size if size >= 10.0 => 1,
        size if size >= 1.0 => 2,
        _ => 3,
    };
    let text = format!("{value:.digits$}");
    let (whole, rest) = text.split_once('.').map_or((text.as_str(), ""), |(whole, rest)| (whole, rest));
    let mut spaced = String::new();
    for (n, digit) in whole.chars().enumerate() {
        if n > 0 && (whole.len() - n).is_multiple_of(3) && whole.len() > 4 {
            spaced.push(' ');
        }
        spaced.push(digit);
    }
    let rest = rest.trim_end_matches('0');
    if rest.is_empty() { spaced } else { format!("{spaced}.{rest}") }
}

/// The value at a share of the values; `NAN` of none.
pub(crate) fn percentile(values: &[f64], share: f64) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let rank = (sorted.len() as f64 * share).ceil() as usize;
    sorted.get(rank.max(1) - 1).copied().unwrap_or(f64::NAN)
}

pub(crate) fn median(values: &[f64]) -> f64 {
    percentile(values, 0.5)
}

fn commit() -> String {
    static COMMIT: std::sync::OnceLock<String> = std::sync::OnceLock::new();
    COMMIT.get_or_init(|| machine::commit(Path::new(env!("CARGO_MANIFEST_DIR")))).clone()
}
