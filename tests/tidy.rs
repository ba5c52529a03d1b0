//! House rules that neither the compiler nor clippy can hold: lengths, pure folders, nothing left open, no machine's
//! own paths.

#![allow(clippy::unwrap_used, reason = "a test may stop at the first surprise")]

use std::{
    fs,
    path::{Path, PathBuf},
};

const FILE_LINES_MAX: usize = 500;
const FUNCTION_LINES_MAX: usize = 70;

/// Files that take data and give data: no clock, no task, no client, no logging, no environment.
const PURE: [&str; 28] = [
    "src/lifecycle",
    "src/watch/pod.rs",
    "src/watch/pod",
    "src/watch/frame.rs",
    "src/logs/limits.rs",
    "src/logs/report.rs",
    "src/logs/report",
    "src/logs/reason.rs",
    "src/publish/record.rs",
    "src/publish/wire.rs",
    "src/schema",
    "src/publish/changelog.rs",
    "src/publish/sound.rs",
    "src/publish/identity.rs",
    "src/worker/position.rs",
    "src/config/selector.rs",
    "src/config/duration.rs",
    "src/leadership/election.rs",
    "src/leadership/sighting.rs",
    "src/verify/judge.rs",
    "src/verify/schema.rs",
    "src/leadership/record.rs",
    "src/publish/generation.rs",
    "src/reshard/plan.rs",
    "src/reshard/held.rs",
    "src/http/page.rs",
    "src/http/page",
    "src/worker/told.rs",
];

/// What a pure file must not name.
const IMPURE: [&str; 12] = [
    "async fn",
    ".await",
    "tokio::",
    "tracing::",
    "rdkafka",
    "kube::",
    "std::env",
    "std::fs",
    "std::net",
    "Timestamp::now",
    "Instant::now",
    "crate::clock",
];

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn files(below: &Path, endings: &[&str], found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(below).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        if path.is_dir() {
            if !(name.starts_with(".git") || name == "target" || name == "node_modules") {
                files(&path, endings, found);
            }
        } else if endings.iter().any(|ending| name.ends_with(ending)) {
            found.push(path);
        }
    }
}

/// Every file of ours with one of these endings: (path from the root, text). Never empty.
fn sources(endings: &[&str]) -> Vec<(String, String)> {
    let mut found = Vec::new();
    files(&root(), endings, &mut found);
    assert!(!found.is_empty(), "nothing to look at for {endings:?}");
    let read = |path: PathBuf| {
        let name = path.strip_prefix(root()).unwrap().display().to_string();
        (name, fs::read_to_string(&path).unwrap())
    };
    found.into_iter().map(read).collect()
}

#[test]
fn files_stay_short() {
    for (name, text) in sources(&[".rs"]) {
        let lines = text.lines().count();
        assert!(lines <= FILE_LINES_MAX, "{name} has {lines} lines: a room with too many jobs");
    }
}

/// Length of each function of a file formatted by rustfmt: from `fn` to the brace at the same depth.
fn functions(text: &str) -> Vec<(String, usize)> {
    let lines: Vec<&str> = text.lines().collect();
    let mut found = Vec::new();
    for (start, line) in lines.iter().enumerate() {
        let code = line.trim_start();
        let head = code.split('(').next().unwrap_or_default();
        let is_fn = head.split_whitespace().rev().nth(1) == Some("fn") && !code.starts_with("//");
        if !is_fn || code.ends_with(';') {
            continue;
        }
        let close = format!("{}}}", " ".repeat(line.len() - code.len()));
        let end = lines[start..].iter().position(|l| *l == close).unwrap_or(0);
        found.push((head.to_owned(), end + 1));
    }
    found
}

#[test]
fn functions_stay_short() {
    let mut seen = 0;
    for (name, text) in sources(&[".rs"]) {
        for (head, lines) in functions(&text) {
            seen += 1;
            assert!(lines <= FUNCTION_LINES_MAX, "{name}: {head} has {lines} lines");
        }
    }
    assert!(seen > 300, "only {seen} functions found: the search is broken");
}

#[test]
fn pure_files_name_nothing_impure() {
    let sources = sources(&[".rs"]);
    for pure in PURE {
        let of = |name: &str| name == pure || name.starts_with(&format!("{pure}/"));
        let mut files = sources.iter().filter(|(name, _)| of(name)).peekable();
        assert!(files.peek().is_some(), "{pure} is gone: adjust the list");
        for (name, text) in files {
            let code = text.split("#[cfg(test)]").next().unwrap();
            for line in code.lines().filter(|line| !line.trim_start().starts_with("//")) {
                let impure = IMPURE.iter().find(|word| line.contains(**word));
                assert!(impure.is_none(), "{name} is pure and must not name {}: {line}", impure.unwrap());
            }
        }
    }
}

#[test]
fn nothing_is_left_open_or_switched_off() {
    let words = [concat!("TO", "DO"), concat!("FIX", "ME"), concat!("XX", "X "), concat!("#[ig", "nore")];
    for (name, text) in sources(&[".rs", ".md", ".yaml", ".toml"]) {
        for word in words {
            assert!(!text.contains(word), "{name} contains {word}");
        }
    }
}

#[test]
fn no_placeholder_is_left_in_the_documentation() {
    for (name, text) in sources(&[".md"]) {
        let open = |line: &&str| line.len() > 3 && line.chars().all(|c| c.is_ascii_uppercase() || c == '_');
        assert_eq!(text.lines().find(open), None, "{name}");
    }
}

#[test]
fn tests_do_not_sleep() {
    let sleeps = [concat!("thread::", "sleep"), concat!("time::", "sleep")];
    for (name, text) in sources(&[".rs"]).iter().filter(|(name, _)| name.starts_with("tests/")) {
        for word in sleeps {
            assert!(!text.contains(word), "{name} sleeps: poll for a state with a limit");
        }
    }
}

#[test]
fn no_path_of_a_machine_is_in_the_repository() {
    let own = [concat!("/ro", "ot/"), concat!("/wo", "rk/"), concat!("/ho", "me/")];
    for (name, text) in sources(&[".rs", ".md", ".toml", ".yaml", ".yml", ".sh", ".lock", ".txt", "Dockerfile"]) {
        for path in own {
            assert!(!text.contains(path), "{name} contains {path}");
        }
    }
}

/// A promise names its test, a page names its file: both must be there.
#[test]
fn files_that_the_documentation_names_exist() {
    let folders = ["src/", "tests/", "benches/", "docs/", "deploy/", "testkit/", "xtask/", "chaos/", "fuzz/"];
    let mut seen = 0;
    for (name, text) in sources(&[".md"]) {
        for path in text.split('`').skip(1).step_by(2).filter(|p| folders.iter().any(|f| p.starts_with(f))) {
            let plain = path.chars().all(|c| c.is_ascii_alphanumeric() || "/._-".contains(c));
            assert!(!plain || root().join(path).exists(), "{name} names {path}, which is not there");
            seen += usize::from(plain);
        }
    }
    assert!(seen > 20, "only {seen} names found: the search is broken");
}

/// After each file of tests, at least one test that is in there.
#[test]
fn each_promise_of_the_readme_names_tests_that_are_there() {
    let readme = fs::read_to_string(root().join("README.md")).unwrap();
    let table = readme.split("| promise | test |").nth(1).and_then(|rest| rest.split("\n\n").next()).unwrap();
    let promises: Vec<&str> =
        table.lines().filter_map(|line| line.trim_end_matches(" |").rsplit(" | ").next()).collect();
    for tests in promises.iter().skip(2) {
        for of_file in tests.split("; ") {
            let mut names = of_file.split('`').skip(1).step_by(2);
            let text = fs::read_to_string(root().join(names.next().expect(tests))).expect(of_file);
            let tests: Vec<&str> = names.collect();
            assert!(!tests.is_empty(), "a file of tests, and none of them: {of_file}");
            for test in tests {
                assert!(text.contains(&format!("fn {test}()")), "{of_file}: no such test");
            }
        }
    }
    assert!(promises.len() > 8, "only {} rows found: the search is broken", promises.len());
}

#[test]
fn what_the_readme_shows_of_the_demo_is_what_it_printed() {
    let text = |file: &str| fs::read_to_string(root().join(file)).unwrap();
    let (readme, printed) = (text("README.md"), text("docs/demo-output.txt"));
    let shown = readme.split("```text\n✓").nth(1).and_then(|rest| rest.split("```").next()).unwrap();
    for part in shown.split("\n...\n").flat_map(|part| part.split("\n\n")) {
        assert!(printed.contains(part.trim()), "docs/demo-output.txt does not contain the README's\n{part}");
    }
}

/// What people read first they read in a terminal, too.
#[test]
fn lines_of_the_readme_are_short_but_for_tables() {
    let readme = fs::read_to_string(root().join("README.md")).unwrap();
    let is_long = |line: &&str| line.chars().count() > 160 && !line.starts_with('|');
    assert_eq!(readme.lines().find(is_long), None);
}

/// Numbers of invariants in comments must be explained in docs/invariants.md, and those there must be held somewhere.
#[test]
fn invariants_are_numbered_alike_in_code_and_docs() {
    let numbers = |text: &str| -> Vec<u32> {
        text.split("INV-")
            .skip(1)
            .filter_map(|rest| rest.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok())
            .collect()
    };
    let docs = fs::read_to_string(root().join("docs/invariants.md")).unwrap();
    let explained: std::collections::BTreeSet<u32> = numbers(&docs).into_iter().collect();
    let mut held = std::collections::BTreeSet::new();
    for (name, text) in sources(&[".rs"]).iter().filter(|(name, _)| name.starts_with("src/")) {
        for number in numbers(text) {
            assert!(explained.contains(&number), "{name} speaks of INV-{number}, docs/invariants.md does not");
            held.insert(number);
        }
    }
    assert_eq!(held, explained, "docs/invariants.md explains what no code holds");
}
