//! The checklist of how a pod can live and end: each line names the tests and recorded lives that show it.
//!
//! The lines stand in tests/checklist/lines.txt; docs/pod-lifecycle.md is made of them and compared exactly.
//! POD_MONITOR_GOLDEN=write writes it anew.

#![allow(clippy::unwrap_used, reason = "a test may stop at the first surprise")]

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write,
    fs,
    path::Path,
};

use testkit::recorded;

const LINES: &str = "tests/checklist/lines.txt";
const PAGE: &str = "docs/pod-lifecycle.md";

/// One line of the checklist.
#[derive(Debug, Default)]
struct Item {
    section: String,
    text: String,
    shown: Vec<Shown>,
    open: Vec<String>,
}

#[derive(Debug)]
enum Shown {
    Test { file: String, function: String },
    Recorded(String),
}

fn read(file: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(file);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{file}: {error}"))
}

fn items() -> Vec<Item> {
    let (mut items, mut section) = (Vec::<Item>::new(), String::new());
    for line in read(LINES).lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
        if let Some(name) = line.strip_prefix("== ") {
            section = name.to_owned();
        } else if let Some(text) = line.strip_prefix("* ") {
            items.push(Item { section: section.clone(), text: text.to_owned(), ..Item::default() });
        } else {
            let item = items.last_mut().unwrap();
            match line.trim().split(' ').collect::<Vec<_>>()[..] {
                ["test", file, function] => {
                    item.shown.push(Shown::Test { file: file.to_owned(), function: function.to_owned() });
                }
                ["recorded", case] => item.shown.push(Shown::Recorded(case.to_owned())),
                ["open", ..] => item.open.push(line.trim()["open ".len()..].to_owned()),
                _ => panic!("not understood: {line}"),
            }
        }
    }
    items
}

/// The tests of a file: functions with an attribute that makes them one, or within `proptest!`, where each has it too.
fn tests_of(file: &str) -> BTreeSet<String> {
    let (mut found, mut is_test) = (BTreeSet::new(), false);
    for line in read(file).lines().map(str::trim) {
        if line.starts_with("#[test]") || line.starts_with("#[tokio::test") {
            is_test = true;
        } else if let Some(name) = line.strip_prefix("async ").unwrap_or(line).strip_prefix("fn ") {
            if is_test {
                found.insert(name.split(['(', '<']).next().unwrap_or_default().to_owned());
            }
            is_test = false;
        }
    }
    found
}

#[test]
fn every_test_that_the_checklist_names_is_there() {
    let mut known = BTreeMap::new();
    let cases: BTreeSet<&str> = recorded::all().iter().map(|case| case.name).collect();
    for item in items() {
        assert!(!item.shown.is_empty() || !item.open.is_empty(), "nothing shows: {}", item.text);
        for shown in item.shown {
            match shown {
                Shown::Test { file, function } => {
                    let tests = known.entry(file.clone()).or_insert_with_key(|file| tests_of(file));
                    assert!(
                        tests.contains(&function),
                        "{file} has no test {function}, which is to show: {}",
                        item.text
                    );
                }
                Shown::Recorded(case) => {
                    assert!(
                        cases.contains(&*case),
                        "there is no recorded case {case}, which is to show: {}",
                        item.text
                    );
                }
            }
        }
    }
}

#[test]
fn every_recorded_case_shows_a_line_of_the_checklist() {
    let items = items();
    let shows =
        |case: &str| items.iter().flat_map(|item| &item.shown).any(|s| matches!(s, Shown::Recorded(c) if c == case));
    let idle: Vec<_> = recorded::all().iter().map(|case| case.name).filter(|case| !shows(case)).collect();
    assert_eq!(idle, Vec::<&str>::new());
}

#[test]
fn no_line_is_open() {
    let open: Vec<String> = items().into_iter().filter(|item| !item.open.is_empty()).map(|item| item.text).collect();
    assert!(open.is_empty(), "{} lines lack something:\n{}", open.len(), open.join("\n"));
}

const HEAD: &str = "\
# How a pod can live and end
The cases that the monitor handles, and what shows it. This page is made of `tests/checklist/lines.txt` by
`POD_MONITOR_GOLDEN=write cargo test --test checklist`, which also finds that every test named here exists.

*Recorded* cases are lives of pods as a real kubelet, scheduler and controllers wrote them: `tests/fixtures/recorded`,
made by `cargo xtask record` and replayed by `tests/recorded.rs` whole, up to each line, from each line on, with a
restart between any two, and by the last line alone. What was done in each stands in its first line.

Precedence for an end: a main container that exited 0 is completed, whatever reason the pod gets later. Else a deadline
of the pod that had passed when the container ended; the container's own OOM kill; a disruption; the pod's reason; a
failed init container; the container's reason; its exit code. A disruption later than the settle grace after the
container's own end explains nothing. Where a pod is Failed although its main container exited 0, the execution is
completed, and the pod's reason is told with its going.

All disruptions have the cause `disrupted`; what they were (preempted, drained, a taint, a node that is gone or shut
down) begins the message. An OOM kill of a child in a pod that completed is told by its container's reason `OOMKilled`
in `containers`.
";

fn page() -> String {
    let (mut page, mut section) = (HEAD.to_owned(), String::new());
    for item in items() {
        if item.section != section {
            section.clone_from(&item.section);
            write!(page, "\n## {section}\n| case | shown by |\n| --- | --- |\n").unwrap();
        }
        writeln!(page, "| {} | {} |", item.text.replace('|', "\\|"), shown(&item)).unwrap();
    }
    page
}

fn shown(item: &Item) -> String {
    let mut files: Vec<(&str, Vec<&str>)> = Vec::new();
    let mut cases = Vec::new();
    for shown in &item.shown {
        match shown {
            Shown::Recorded(case) => cases.push(case.as_str()),
            Shown::Test { file, function } => match files.iter_mut().find(|(known, _)| known == file) {
                Some((_, functions)) => functions.push(function),
                None => files.push((file, vec![function])),
            },
        }
    }
    let mut parts: Vec<String> = files.iter().map(|(file, names)| format!("`{file}`: {}", names.join(", "))).collect();
    if !cases.is_empty() {
        parts.push(format!("recorded: {}", cases.join(", ")));
    }
    parts.extend(item.open.iter().map(|open| format!("**open**: {open}")));
    parts.join("<br>")
}

#[test]
fn the_page_is_made_of_the_checklist() {
    let made = page();
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(PAGE);
    if std::env::var("POD_MONITOR_GOLDEN").is_ok_and(|value| value == "write") {
        fs::write(&path, &made).unwrap();
    }
    let checked_in = fs::read_to_string(&path).unwrap_or_default();
    let differs = made.lines().zip(checked_in.lines()).find(|(made, is)| made != is);
    assert!(checked_in == made, "{PAGE} is stale: POD_MONITOR_GOLDEN=write cargo test --test checklist; {differs:?}");
}
