//! The program from outside: what it says, where, and with which exit code.
//!
//! Golden files in tests/golden/ are compared exactly; POD_MONITOR_GOLDEN=write writes them anew.

#![allow(clippy::unwrap_used, reason = "a test")]

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Output},
};

/// The program in an environment that says nothing, with `directory` as its own.
fn program(directory: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_pod-monitor"));
    command.env_clear().env("COLUMNS", "120").current_dir(directory);
    command
}

/// A directory of this test, empty.
fn directory(test: &str) -> PathBuf {
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("cli-{test}"));
    if path.exists() {
        fs::remove_dir_all(&path).unwrap();
    }
    fs::create_dir_all(&path).unwrap();
    path
}

fn golden(name: &str, said: &str) {
    kept(&format!("tests/golden/{name}"), said);
}

/// A file of the repository that is what the program says.
fn kept(name: &str, said: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(name);
    if std::env::var("POD_MONITOR_GOLDEN").is_ok_and(|value| value == "write") {
        fs::write(&path, said).unwrap();
    }
    let expected = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    assert!(said == expected, "{name} differs.\n--- expected\n{expected}\n--- said\n{said}");
}

fn utf8(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap()
}

fn refused(output: &Output, name: &str) -> String {
    let said = utf8(&output.stderr).to_owned();
    assert_eq!(output.status.code(), Some(2), "{name}: {said}");
    assert!(output.stdout.is_empty(), "{name}: messages belong on standard error");
    said
}

#[test]
fn help_is_as_reviewed() {
    let here = directory("help");
    let commands = [
        ("help.txt", &["--help"][..]),
        ("help-run.txt", &["run", "--help"]),
        ("help-verify.txt", &["verify", "--help"]),
        ("help-schema.txt", &["schema", "--help"]),
    ];
    for (name, arguments) in commands {
        let output = program(&here).args(arguments).output().unwrap();
        assert_eq!(output.status.code(), Some(0), "{name}");
        golden(name, utf8(&output.stdout));
    }
}

#[test]
fn schema_is_what_stands_in_docs() {
    let here = directory("schema");
    let documents = [
        ("docs/schema/events.schema.json", &["schema"][..]),
        ("docs/schema/asyncapi.json", &["schema", "--asyncapi"]),
        ("docs/causes.md", &["schema", "--causes"]),
    ];
    for (name, arguments) in documents {
        let output = program(&here).args(arguments).output().unwrap();
        assert_eq!((output.status.code(), utf8(&output.stderr)), (Some(0), ""), "{name}");
        kept(name, utf8(&output.stdout));
    }
    let both = program(&here).args(["schema", "--asyncapi", "--causes"]).output().unwrap();
    assert!(refused(&both, "both").contains("cannot be used with"));
}

#[test]
fn help_does_not_show_values_of_the_environment() {
    let output = program(&directory("help-env"))
        .args(["run", "--help"])
        .env("POD_MONITOR_KAFKA_CONFIG", "sasl.password=hunter2")
        .output()
        .unwrap();
    assert!(!utf8(&output.stdout).contains("hunter2"));
}

#[test]
fn without_arguments_it_shows_its_help() {
    let output = program(&directory("bare")).output().unwrap();
    assert!(refused(&output, "bare").contains("Usage: pod-monitor"));
}

#[test]
fn it_tells_its_version() {
    let output = program(&directory("version")).arg("--version").output().unwrap();
    assert_eq!(utf8(&output.stdout), concat!("pod-monitor ", env!("CARGO_PKG_VERSION"), "\n"));
}

/// Flags, variables, the file, and what is said about them.
type Case = (&'static str, &'static [&'static str], &'static [(&'static str, &'static str)], &'static str);

const BASE: &str = "selector: app=x\nkafka: k:9092\n";

#[rustfmt::skip]
const CASES: &[Case] = &[
    ("flag-unknown", &["--selctor", "a"], &[], BASE),
    ("finalizer-without-domain", &["--finalizer", "captured"], &[], BASE),
    ("finalizer-deadline-alone", &["--finalizer-deadline", "5m"], &[], BASE),
    ("stall-grace-of-an-end", &["--stall-grace", "oom_killed=5s"], &[], BASE),
    ("stall-grace-variable", &[], &[("POD_MONITOR_STALL_GRACE", "image=1m,gated=soon")], BASE),
    ("duration-flag", &["--capture-deadline", "5x"], &[], BASE),
    ("duration-without-unit", &["--settle-grace", "5"], &[], BASE),
    ("duration-variable", &[], &[("POD_MONITOR_CAPTURE_DEADLINE", "5x")], BASE),
    ("duration-file", &[], &[], "selector: app=x\n\n# a comment\ncapture-deadline: 5x\n"),
    ("duration-file-hidden-by-flag", &["--capture-deadline", "5s"], &[], "selector: app=x\ncapture-deadline: 5x\n"),
    ("duration-zero", &["--reconcile-interval", "0s"], &[], BASE),
    ("selector-flag", &["--selector", "a=b,c in x"], &[], BASE),
    ("selector-file", &[], &[], "kafka: k:9092\nselector: 'a=b c'\n"),
    ("selector-missing", &["--kafka", "k:9092"], &[], ""),
    ("kafka-missing", &["--selector", "a"], &[], ""),
    ("kafka-without-port", &["--kafka", "a:9092,b"], &[], BASE),
    ("kafka-config-refused", &["--kafka-config", "acks=1"], &[], BASE),
    ("kafka-config-no-value", &["--kafka-config", "hunter2"], &[], BASE),
    ("kafka-config-in-file-refused", &[], &[], "selector: a\nkafka: k:9092\nkafka-config:\n  transactional.id: x\n"),
    ("kafka-config-file-unreadable", &["--kafka-config-file", "absent.properties"], &[], BASE),
    ("kafka-config-value-unreadable", &["--kafka-config", "sasl.password=@/absent/password"], &[], BASE),
    ("file-unknown-key", &[], &[], "selector: app=x\nkafka: k:9092\nselctor: app=y\n"),
    ("file-unknown-key-far", &[], &[], "selector: app=x\nentirely: {other: [1, 2]}\n"),
    ("file-names-a-file", &[], &[], "config: other.yaml\n"),
    ("file-list-for-a-scalar", &[], &[], "kafka: k:9092\nselector: [a, b]\n"),
    ("file-scalar-for-a-list", &[], &[], "selector: a\nnamespace: b\n"),
    ("file-scalar-for-a-map", &[], &[], "selector: a\nkafka-config: b=c\n"),
    ("file-nested-too-deep", &[], &[], "selector: a\nkafka-config:\n  x.password: {hunter2: y}\n"),
    ("file-scalar-not-in-quotes", &[], &[], "kafka: k:9092\ncluster-id: a b\nselector: a\n"),
    ("file-key-twice", &[], &[], "selector: a\nselector: b\n"),
    ("file-null", &[], &[], "kafka: k:9092\nselector:\n"),
    ("file-no-map", &[], &[], "- a\n- b\n"),
    ("file-broken", &[], &[], "selector: a\nkafka: 'k\n"),
    ("number-out-of-range", &["--log-bytes-max", "1"], &[], BASE),
    ("choice-unknown", &["--sink", "pulsar"], &[], BASE),
    ("choice-unknown-variable", &[], &[("POD_MONITOR_REPORT", "xml")], BASE),
    ("switch-variable", &[], &[("POD_MONITOR_CREATE_TOPICS", "maybe")], BASE),
    ("namespaces-contradict", &["--all-namespaces"], &[("POD_MONITOR_NAMESPACE", "a,b")], BASE),
    ("namespace-illegal", &["--namespace", "A_b"], &[], BASE),
    ("shards-many", &["--shards", "4"], &[], BASE),
    ("shards-none", &["--shards", "0"], &[], BASE),
    ("stdout-with-kafka", &["--sink", "stdout", "--kafka", "k:9092"], &[], "selector: a\n"),
    ("topics-equal", &["--events-topic", "t", "--changelog-topic", "t"], &[], BASE),
    ("topic-placeholder", &["--events-topic", "t.{pod}"], &[], BASE),
    ("captures-per-node", &["--captures-max", "4", "--captures-per-node-max", "5"], &[], BASE),
    ("log-level", &["--log-level", "x=loud"], &[], BASE),
    ("listen", &["--listen", "8080"], &[], BASE),
    ("otlp-endpoint", &[], &[("OTEL_EXPORTER_OTLP_ENDPOINT", "collector:4318")], BASE),
];

#[test]
fn wrong_settings_end_with_2_and_one_clear_message() {
    let here = directory("refused");
    let mut said = String::new();
    for (name, flags, variables, file) in CASES {
        let mut command = program(&here);
        command.arg("run").args(*flags).envs(variables.iter().copied());
        if !file.is_empty() {
            fs::write(here.join("c.yaml"), file).unwrap();
            command.args(["--config", "c.yaml"]);
        }
        let message = refused(&command.output().unwrap(), name);
        assert!(message.starts_with("error: "), "{name}: {message}");
        assert!(!message.contains("hunter2"), "{name} tells a secret: {message}");
        said.push_str(&format!("== {name}\n{message}"));
    }
    golden("errors.txt", &said);
}

#[test]
fn verify_reads_the_file_of_run_and_refuses_like_it() {
    let here = directory("verify");
    let cases = [
        ("selector: app=x\nreconcile-interval: 5s\n", "kafka is missing: name the bootstrap servers"),
        ("kafka: k:9092\nkafka-config: {acks: '1'}\n", "c.yaml:2: kafka-config: acks is set by the monitor"),
        ("kafka: k:9092\nreconcile-interval: 5\n", "c.yaml:2: reconcile-interval: "),
        ("kafka: k:9092\nno-changelog: true\n", "c.yaml:2: no-changelog: is not a key"),
    ];
    for (file, expected) in cases {
        fs::write(here.join("c.yaml"), file).unwrap();
        let said = refused(&program(&here).args(["verify", "--config", "c.yaml"]).output().unwrap(), file);
        assert!(said.starts_with("error: ") && said.contains(expected), "{file}: {said}");
    }
}

#[test]
fn an_unreadable_file_is_named_with_its_mend() {
    let here = directory("unreadable");
    for (flags, variable) in [(&["--config", "absent.yaml"][..], None), (&[], Some("absent.yaml"))] {
        let mut command = program(&here);
        command.arg("run").args(flags).envs(variable.map(|path| ("POD_MONITOR_CONFIG", path)));
        let said = refused(&command.output().unwrap(), "absent");
        assert!(said.starts_with("error: config: cannot read absent.yaml: "), "{said}");
        assert!(said.contains("--config or POD_MONITOR_CONFIG"), "{said}");
    }
}
