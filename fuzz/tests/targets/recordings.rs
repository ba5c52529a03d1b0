//! tests/fixtures/recorded as seeds: what a real kubelet wrote. Read when they are asked for, never copied.

use std::{fs, path::PathBuf};

/// The root of the repository.
pub(super) fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// Every recording as lines of a watch, without its header; by name.
pub(super) fn all() -> Vec<String> {
    let folder = root().join("tests/fixtures/recorded");
    let mut files: Vec<_> = fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    let lines = |file: PathBuf| {
        let text = fs::read_to_string(file).unwrap();
        text.split_once('\n').map(|(_, lines)| lines.to_owned()).unwrap_or_default()
    };
    let all: Vec<String> = files.into_iter().map(lines).collect();
    assert!(all.len() > 20, "only {} recordings: the search is broken", all.len());
    all
}
