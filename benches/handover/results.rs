//! Trials on disk, one JSON object a line, so that a run that was broken off goes on where it stopped.

use std::{
    fs::{self, File},
    io::Write as _,
    path::{Path, PathBuf},
    sync::OnceLock,
};

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use crate::{cases::Case, legs::Legs};

/// One trial.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Trial {
    pub(crate) case: Case,
    pub(crate) at: String,
    pub(crate) commit: String,
    /// Largest distance between visible events around the fault, minus the usual one.
    pub(crate) gap_ms: f64,
    /// From the fault to the first event of a status that was written after it; for fences, how long they took.
    pub(crate) first_ms: f64,
    pub(crate) steady_ms: f64,
    pub(crate) lost: usize,
    pub(crate) doubled: usize,
    pub(crate) legs: Legs,
    /// The machine's load average of the last minute: who else was at work.
    pub(crate) load: f64,
}

/// All trials so far.
pub(crate) struct Results {
    path: PathBuf,
    pub(crate) trials: Vec<Trial>,
}

impl Results {
    pub(crate) fn open(path: &Path, fresh: bool) -> Result<Self> {
        if fresh && path.exists() {
            fs::remove_file(path).context("begin anew")?;
        }
        let text = if path.exists() { fs::read_to_string(path)? } else { String::new() };
        // A last line that was cut off by a kill is measured again.
        let trials = text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
        Ok(Self { path: path.to_owned(), trials })
    }

    pub(crate) fn add(&mut self, trial: Trial) -> Result<()> {
        let mut file = File::options().create(true).append(true).open(&self.path).context("open the results")?;
        writeln!(file, "{}", serde_json::to_string(&trial)?)?;
        self.trials.push(trial);
        Ok(())
    }

    pub(crate) fn of(&self, case: Case) -> Vec<&Trial> {
        self.trials.iter().filter(|trial| trial.case == case).collect()
    }

    pub(crate) fn count(&self, case: Case) -> usize {
        self.of(case).len()
    }

    /// Commits that were measured.
    pub(crate) fn commits(&self) -> Vec<&str> {
        let mut commits: Vec<&str> = self.trials.iter().map(|trial| trial.commit.as_str()).collect();
        commits.sort_unstable();
        commits.dedup();
        commits
    }
}

/// The value at a share of the sorted ones; `NAN` of none.
pub(crate) fn percentile(values: &[f64], share: f64) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let rank = (sorted.len() as f64 * share).ceil() as usize;
    sorted.get(rank.max(1) - 1).copied().unwrap_or(f64::NAN)
}

/// The commit of the working tree when this was first asked: what is measured was copied then.
pub(crate) fn commit() -> String {
    static COMMIT: OnceLock<String> = OnceLock::new();
    COMMIT.get_or_init(|| testkit::machine::commit(Path::new(env!("CARGO_MANIFEST_DIR")))).clone()
}
