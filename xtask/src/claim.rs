//! Two checkouts that build in one target directory: cargo tells their packages apart neither by place nor by content, and
//! takes what the other built later than our files were written for built from ours.

use std::{fs, path::Path, time::SystemTime};

use anyhow::{Context, Result};

use crate::suites;

/// Names the checkout that built here last.
const MARKER: &str = ".pod-monitor-checkout";
/// Where our packages have their sources.
const SOURCES: [&str; 7] = ["src", "tests", "benches", "testkit", "chaos", "fuzz", "xtask"];

/// Makes cargo compile our own packages anew if another checkout built here last; dependencies stay as they are.
pub(crate) fn target_dir() -> Result<()> {
    let dir = suites::target_dir()?;
    fs::create_dir_all(&dir).with_context(|| format!("create {}", dir.display()))?;
    let (marker, ours) = (dir.join(MARKER), suites::workspace().display().to_string());
    if fs::read_to_string(&marker).is_ok_and(|theirs| theirs != ours) {
        eprintln!("another checkout built in {} last: compiling our own packages anew", dir.display());
        for sources in SOURCES {
            touch(&suites::workspace().join(sources))?;
        }
    }
    fs::write(&marker, ours).with_context(|| format!("write {}", marker.display()))
}

/// Cargo goes by times of modification.
fn touch(below: &Path) -> Result<()> {
    for entry in fs::read_dir(below).with_context(|| format!("read {}", below.display()))? {
        let path = entry?.path();
        if path.is_dir() {
            touch(&path)?;
        } else if path.extension().is_some_and(|ending| ending == "rs") {
            fs::File::options().write(true).open(&path)?.set_modified(SystemTime::now())?;
        }
    }
    Ok(())
}
