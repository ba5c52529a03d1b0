//! Lives of pods as a real kubelet, scheduler and controllers wrote them: the cases as data, and how they are recorded.
//!
//! ```text
//!  cases (data) --play--> a real stack --watch--> tests/fixtures/recorded/<case>.jsonl --replay--> the pure core
//!       |                                                                                             |
//!       +--- the story that each must have ------------------------------------------------ compared -+
//! ```
//! Promises: what is in a recording is what the API server sent, less `managedFields` and paths of the machine. Where the
//! core tells another story than the case has, one of both is wrong, never the recording.

mod cases;
pub mod play;
mod steps;
mod story;

use std::{fs, path::Path};

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};
use serde_json::Value;

pub use cases::all;
pub use steps::{Case, Needs, Step, matches};
pub use story::{Failed, Story};

/// Where recordings lie, from the root of the repository.
pub const FOLDER: &str = "tests/fixtures/recorded";

/// The first line of a recording.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Header {
    /// The case's name.
    pub case: String,
    /// Of the API server, as it says itself.
    pub kubernetes: String,
    /// What the pod does and what was done to it.
    pub does: String,
}

/// One event of the watch.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Line {
    /// When it arrived, RFC 3339.
    pub at: String,
    /// `ADDED`, `MODIFIED` or `DELETED`.
    #[serde(rename = "type")]
    pub kind: String,
    /// The pod.
    pub object: Value,
}

impl Line {
    /// `metadata.name`
    pub fn name(&self) -> &str {
        self.object["metadata"]["name"].as_str().unwrap_or_default()
    }

    /// `metadata.uid`
    pub fn uid(&self) -> &str {
        self.object["metadata"]["uid"].as_str().unwrap_or_default()
    }
}

/// What was recorded of a case.
#[derive(Debug, Clone, PartialEq)]
pub struct Recording {
    /// What it is.
    pub header: Header,
    /// All pods of the case, in the order of arrival.
    pub lines: Vec<Line>,
}

impl Recording {
    /// Reads the recording of a case.
    ///
    /// # Errors
    /// When there is none, or it cannot be understood.
    pub fn read(root: &Path, case: &str) -> Result<Self> {
        let file = root.join(FOLDER).join(format!("{case}.jsonl"));
        let text = fs::read_to_string(&file)
            .with_context(|| format!("no recording of {case}; make it by: cargo xtask record --only {case}"))?;
        let mut lines = text.lines();
        let header =
            serde_json::from_str(lines.next().unwrap_or_default()).with_context(|| format!("header of {case}"))?;
        let lines = lines.map(|line| Ok(serde_json::from_str(line)?)).collect::<Result<_>>();
        Ok(Self { header, lines: lines.with_context(|| format!("a line of {case}"))? })
    }

    /// Writes it.
    ///
    /// # Errors
    /// When the folder cannot be written to.
    pub fn write(&self, root: &Path) -> Result<()> {
        let mut text = serde_json::to_string(&self.header)? + "\n";
        for line in &self.lines {
            text += &(serde_json::to_string(line)? + "\n");
        }
        let folder = root.join(FOLDER);
        fs::create_dir_all(&folder)?;
        fs::write(folder.join(format!("{}.jsonl", self.header.case)), text).context("write a recording")
    }

    /// The UIDs of its pods, in the order in which they came to be.
    pub fn pods(&self) -> Vec<&str> {
        let mut uids = Vec::new();
        for line in &self.lines {
            if !uids.contains(&line.uid()) {
                uids.push(line.uid());
            }
        }
        uids
    }

    /// What was seen of one pod.
    pub fn of<'a>(&'a self, uid: &'a str) -> impl Iterator<Item = &'a Line> {
        self.lines.iter().filter(move |line| line.uid() == uid)
    }
}
