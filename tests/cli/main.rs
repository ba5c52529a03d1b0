//! The program from outside: what it says, where, and with which exit code.
//!
//! Golden files in tests/golden/ are compared exactly; POD_MONITOR_GOLDEN=write writes them anew.

#![allow(clippy::unwrap_used, reason = "a test")]

mod commands;

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
        ("help-explain.txt", &["explain", "--help"]),
        ("help-reshard.txt", &["reshard", "--help"]),
        ("help-check.txt", &["check", "--help"]),
        ("help-status.txt", &["status", "--help"]),
        ("help-events.txt", &["events", "--help"]),
        ("help-completions.txt", &["completions", "--help"]),
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
}

#[test]
fn schema_takes_its_flags_from_the_environment_as_well() {
    let here = directory("schema-variables");
    let program = |flags: &[&str], variables: &[(&str, &str)]| {
        program(&here).arg("schema").args(flags).envs(variables.iter().copied()).output().unwrap()
    };
    let asyncapi = program(&["--asyncapi"], &[]);
    assert_eq!(utf8(&program(&[], &[("POD_MONITOR_ASYNCAPI", "true")]).stdout), utf8(&asyncapi.stdout));
    assert_eq!(program(&["--asyncapi=false"], &[("POD_MONITOR_ASYNCAPI", "true")]).stdout, program(&[], &[]).stdout);
    assert!(utf8(&program(&[], &[("POD_MONITOR_CAUSES", "true")]).stdout).starts_with("# "));
    let both = refused(&program(&["--asyncapi", "--causes"], &[]), "both");
    assert_eq!(both, "error: --asyncapi and --causes are two documents: ask for one\n");
    let both = refused(&program(&["--asyncapi"], &[("POD_MONITOR_CAUSES", "true")]), "flag and variable");
    assert!(both.contains("--asyncapi and POD_MONITOR_CAUSES are two"), "{both}");
    let wrong = refused(&program(&[], &[("POD_MONITOR_CAUSES", "maybe")]), "wrong");
    assert!(wrong.starts_with("error: POD_MONITOR_CAUSES: "), "{wrong}");
}

#[test]
fn the_help_of_every_command_names_the_variable_of_each_flag() {
    let here = directory("variables");
    let overview = program(&here).arg("--help").output().unwrap();
    let listed = utf8(&overview.stdout).split("Commands:\n").nth(1).unwrap().split("\n\n").next().unwrap();
    let commands = listed.lines().filter(|line| line.starts_with("  ") && !line.starts_with("   "));
    let commands: Vec<&str> = commands.filter_map(|line| line.split_whitespace().next()).collect();
    assert!(commands.contains(&"schema") && commands.len() >= 4, "{commands:?}");
    let mut seen = 0;
    for command in commands.into_iter().filter(|command| *command != "help") {
        let output = program(&here).args([command, "--help"]).output().unwrap();
        let unwrapped = utf8(&output.stdout).split_whitespace().collect::<Vec<_>>().join(" ");
        for (indented, flag) in utf8(&output.stdout).lines().filter_map(|line| line.split_once("--")) {
            let name =
                flag.split(|c: char| !(c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-')).next().unwrap();
            // Flags stand in the first columns, alone or behind their short form.
            if indented.len() > 6 || !indented.starts_with("  ") || name == "help" {
                continue;
            }
            let variable = format!("[env: POD_MONITOR_{}]", name.replace('-', "_").to_uppercase());
            assert!(unwrapped.contains(&variable), "{command} --{name}: no {variable} in its help");
            seen += 1;
        }
    }
    assert!(seen > 50, "only {seen} flags found: the search is broken");
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
    ("shards-many", &["--shards", "129"], &[], BASE),
    ("shards-stdout", &["--shards", "4", "--sink", "stdout"], &[], "selector: app=x\n"),
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

/// Rules that are refused; each is `r.yaml` of `run`.
const RULES: &[(&str, &str)] = &[
    ("rules-unknown-key", "rules:\n  - name: a\n    match: {exit-code: 42}\n    hint: h\n"),
    ("rules-bad-pattern", "rules:\n  - name: a\n    match:\n      message: 'disk (full'\n    hint: h\n"),
    ("rules-empty-match", "rules:\n  - name: a\n    match: {}\n    hint: h\n"),
    (
        "rules-name-twice",
        "rules:\n  - {name: a, match: {exit-codes: 1}, hint: h}\n  - {name: a, match: any, hint: h}\n",
    ),
    (
        "rules-never-asked",
        "rules:\n  - {name: a, match: any, hint: h}\n  - name: b\n    match: {exit-codes: 1}\n    hint: h\n",
    ),
    ("rules-exit-code-0", "rules:\n  - name: a\n    match: {exit-codes: [3, 0]}\n    hint: h\n"),
    ("rules-no-yaml", "rules:\n  - name: 'a\n"),
];

#[test]
fn wrong_rules_end_with_2_and_show_the_place() {
    let here = directory("rules");
    let mut said = String::new();
    for (name, file) in RULES {
        fs::write(here.join("r.yaml"), file).unwrap();
        let run = ["run", "--selector", "a", "--sink", "stdout", "--rules", "r.yaml"];
        let message = refused(&program(&here).args(run).output().unwrap(), name);
        assert!(message.starts_with("error: r.yaml:"), "{name}: {message}");
        let explain = program(&here).args(["explain", "-f", "p.yaml"]).env("POD_MONITOR_RULES", "r.yaml").output();
        assert_eq!(refused(&explain.unwrap(), name), message, "the same from a variable");
        said.push_str(&format!("== {name}\n{message}"));
    }
    golden("errors-rules.txt", &said);
    let absent = program(&here).args(["explain", "-f", "p.yaml", "--rules", "absent.yaml"]).output().unwrap();
    assert!(refused(&absent, "absent").starts_with("error: rules: cannot read absent.yaml: "));
}

/// The fenced blocks of a page: their language, and what stands in them.
fn blocks(page: &str) -> Vec<(&str, &str)> {
    let fences: Vec<&str> = page.split("```").collect();
    let inside = fences.iter().skip(1).step_by(2);
    inside.filter_map(|block| block.split_once('\n')).collect()
}

#[test]
fn the_examples_of_the_page_about_rules_print_what_stands_there() {
    let here = directory("rules-page");
    let page = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/rules.md")).unwrap();
    let blocks = blocks(&page);
    let mut seen = 0;
    for triple in blocks.windows(3) {
        let [("yaml", rules), ("yaml", pod), ("text", expected)] = triple else { continue };
        fs::write(here.join("rules.yaml"), rules).unwrap();
        fs::write(here.join("pod.yaml"), pod).unwrap();
        let output = program(&here).args(["explain", "-f", "pod.yaml", "--rules", "rules.yaml"]).output().unwrap();
        assert_eq!(utf8(&output.stderr), "");
        assert_eq!(utf8(&output.stdout), *expected, "of\n{rules}{pod}");
        seen += 1;
    }
    assert_eq!(seen, blocks.iter().filter(|(language, _)| *language == "text").count());
    assert!(seen >= 4, "{seen} examples: the search is broken");
}

const WAITING: &str = r#"{"kind": "Pod", "metadata": {"name": "exec-9", "namespace": "runs", "uid": "u9",
 "creationTimestamp": "2026-11-25T10:00:00Z", "annotations": {"kubectl.kubernetes.io/default-container": "b"}},
 "spec": {"nodeName": "n", "containers": [{"name": "a"}, {"name": "b"}]},
 "status": {"phase": "Pending", "startTime": "2026-11-25T10:00:01Z",
  "conditions": [{"type": "PodScheduled", "status": "True", "lastTransitionTime": "2026-11-25T10:00:01Z"}],
  "containerStatuses": [{"name": "b", "state": {"waiting": {"reason": "ErrImagePull", "message": "no \u001b[2J"}}}]}}"#;

#[test]
fn explain_tells_clocks_retries_and_where_settings_come_from() {
    let here = directory("explain");
    let failed = WAITING.replace("u9", "u8").replace(r#""phase": "Pending""#, r#""phase": "Failed""#).replace(
        r#"{"waiting": {"reason": "ErrImagePull", "message": "no \u001b[2J"}}"#,
        r#"{"terminated": {"exitCode": 3, "startedAt": "2026-11-25T10:00:02Z", "finishedAt": "2026-11-25T10:00:09Z"}}"#,
    )
        .replace("10:00:0", "09:59:0");
    let list = format!(r#"{{"kind": "List", "items": [{WAITING}, {failed}]}}"#);
    fs::write(here.join("list.json"), list).unwrap();
    fs::write(
        here.join("c.yaml"),
        "selector: app=x\ncontainer: a\nexecution-name-prefix: ex\nstall-grace: [gated=1s, starting=1m]\n",
    )
    .unwrap();
    let mut said = String::new();
    let cases: [(&str, &[&str]); 4] = [
        ("before the clock has run down", &["--at", "2026-11-25T10:00:30Z"]),
        ("after it", &["--at", "2026-11-25T11:00:00Z"]),
        (
            "its grace from a flag, the rest from the file",
            &["--at", "2026-11-25T10:00:30Z", "--stall-grace", "image=10s", "--config", "c.yaml"],
        ),
        ("as JSON", &["--at", "2026-11-25T11:00:00Z", "--output", "json", "--cluster-id", "c"]),
    ];
    for (name, flags) in cases {
        let output = program(&here).args(["explain", "-f", "list.json"]).args(flags).output().unwrap();
        assert_eq!((output.status.code(), utf8(&output.stderr)), (Some(0), ""), "{name}");
        assert!(!output.stdout.contains(&0x1b), "{name}: steers the terminal");
        said.push_str(&format!("== {name}\n{}", utf8(&output.stdout)));
    }
    golden("explain.txt", &said.replace(env!("CARGO_PKG_VERSION"), "<version>"));
}

#[test]
fn explain_says_that_a_job_is_asked_of_a_pod_that_was_deleted() {
    let here = directory("explain-job");
    let pod = |kind: &str, deleted: &str| {
        let code = if deleted.is_empty() { 3 } else { 143 };
        format!(
            "kind: Pod\nmetadata: {{name: exec-3, namespace: runs, uid: u3, creationTimestamp: '2026-11-25T10:00:00Z', {deleted}\n\
             \x20 ownerReferences: [{{kind: {kind}, name: report-3, uid: j3, controller: true}}]}}\n\
             spec: {{nodeName: n, restartPolicy: Never, containers: [{{name: main}}]}}\n\
             status:\n\x20 phase: Failed\n\x20 containerStatuses:\n\x20 - name: main\n\x20   state: {{terminated: {{exitCode: {code}, reason: Error,\n\
             \x20     startedAt: '2026-11-25T10:00:02Z', finishedAt: '2026-11-25T10:01:00Z'}}}}\n"
        )
    };
    let deleted = "deletionTimestamp: '2026-11-25T10:01:20Z', deletionGracePeriodSeconds: 30,";
    let asked = "job        report-3 is asked first: it may say that its deadline passed, that it failed, or that it was suspended\n";
    for (kind, deleted, is_asked) in [("Job", deleted, true), ("ReplicaSet", deleted, false), ("Job", "", false)] {
        fs::write(here.join("pod.yaml"), pod(kind, deleted)).unwrap();
        let explain = |output: &str| {
            program(&here).args(["explain", "-f", "pod.yaml", "--output", output]).output().unwrap().stdout
        };
        let (text, json) = (explain("text"), explain("json"));
        let (text, json) = (utf8(&text), utf8(&json));
        assert_eq!(text.contains("cause deleted"), !deleted.is_empty(), "{text}");
        assert_eq!(text.contains(asked), is_asked, "{text}");
        assert_eq!(json.contains(r#""job_asked": "report-3""#), is_asked, "{json}");
    }
}

#[test]
fn explain_reads_standard_input_and_ends_with_1_where_there_is_no_pod() {
    let here = directory("explain-input");
    for (input, code, expected) in [
        (WAITING, 0, "execution  9, from its name, after exec-"),
        ("kind: Job\nmetadata: {uid: u}\n", 1, "error: -: is a Job, not a Pod: give it what"),
        ("kind: Pod\nmetadata: {name: p}\n", 1, "metadata.uid is absent"),
        ("{", 1, "error: -: "),
        ("", 1, "holds no pod"),
    ] {
        fs::write(here.join("input"), input).unwrap();
        let input_file = fs::File::open(here.join("input")).unwrap();
        let output = program(&here).args(["explain", "-f", "-"]).stdin(input_file).output().unwrap();
        assert_eq!(output.status.code(), Some(code), "{input}");
        let said = if code == 0 { utf8(&output.stdout) } else { utf8(&output.stderr) };
        assert!(said.contains(expected), "{input}: {said}");
    }
    let absent = program(&here).args(["explain", "-f", "absent.yaml"]).output().unwrap();
    assert_eq!(absent.status.code(), Some(1));
    assert!(utf8(&absent.stderr).starts_with("error: cannot read absent.yaml: "));
    let nothing = program(&here).arg("explain").output().unwrap();
    assert!(refused(&nothing, "no file").starts_with("error: file is missing: name the file with the pod"));
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
