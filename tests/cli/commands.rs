//! `check`, `status`, `events` and `completions`, as far as they need no server.

use std::{fs, process::Command};

use crate::{directory, golden, program, refused, utf8};

/// Flags, the file, and what is said about them.
type Case = (&'static str, &'static [&'static str], &'static [(&'static str, &'static str)], &'static str);

#[rustfmt::skip]
const CASES: &[Case] = &[
    ("events-kafka-missing", &["events"], &[], ""),
    ("events-from", &["events", "--kafka", "k:1", "--from", "yesterday"], &[], ""),
    ("events-from-variable", &["events"], &[("POD_MONITOR_FROM", "5")], "kafka: k:1\n"),
    ("events-end-alone", &["events", "--kafka", "k:1", "--from", "end"], &[], ""),
    ("events-follow-of-run", &["events", "--kafka", "k:1", "--follow=running"], &[], ""),
    ("events-follow", &["events", "--kafka", "k:1", "--follow=maybe"], &[], ""),
    ("events-execution-empty", &["events", "--kafka", "k:1", "--execution="], &[], ""),
    ("events-output", &["events", "--kafka", "k:1", "--output", "yaml"], &[], ""),
    ("events-changelog", &["events", "--kafka", "k:1", "--changelog-topic", "x"], &[], ""),
    ("events-kafka-config-refused", &["events"], &[], "kafka: k:1\nkafka-config: {acks: '1'}\n"),
    ("status-shards", &["status", "--shards", "0"], &[], ""),
    ("status-replica", &["status", "--replica", "8080"], &[], ""),
    ("status-no-cluster", &["status"], &[], ""),
    ("status-color", &["status", "--color", "sometimes"], &[], ""),
    ("check-label", &["check", "--e2e", "--e2e-label", "a"], &[], ""),
    ("check-label-alone", &["check", "--e2e-label", "a=b"], &[], "selector: a\nkafka: k:1\n"),
    ("check-timeout", &["check", "--e2e-timeout", "5"], &[], ""),
    ("check-flag-of-run", &["check", "--lease-duration", "5x"], &[], ""),
    ("completions-shell", &["completions", "tcsh"], &[], ""),
    ("completions-none", &["completions"], &[], ""),
];

#[test]
fn what_cannot_be_read_ends_with_2_and_one_clear_message() {
    let here = directory("commands");
    let mut said = String::new();
    for (name, arguments, variables, file) in CASES {
        let mut command = program(&here);
        command.args(*arguments).envs(variables.iter().copied()).env("KUBECONFIG", "absent.yaml");
        if !file.is_empty() {
            fs::write(here.join("c.yaml"), file).unwrap();
            command.args(["--config", "c.yaml"]);
        }
        let message = refused(&command.output().unwrap(), name);
        assert!(message.starts_with("error: "), "{name}: {message}");
        said.push_str(&format!("== {name}\n{message}"));
    }
    golden("errors-commands.txt", &said);
}

#[test]
fn the_file_of_run_serves_events_although_follow_means_something_else_there() {
    let here = directory("events-file");
    fs::write(here.join("c.yaml"), "selector: a\nfollow: running\nkafka: k:1\n").unwrap();
    let events = |more: &[&str]| {
        let mut command = program(&here);
        command.args(["events", "--config", "c.yaml", "--from", "end"]).args(more).env("POD_MONITOR_FOLLOW", "deleted");
        refused(&command.output().unwrap(), "it follows nothing")
    };
    assert!(events(&[]).contains("--from end shows nothing by itself: add --follow"));
}

/// What `check` says of settings by themselves: sink stdout, and no cluster.
#[test]
fn check_names_everything_that_is_wrong_at_once() {
    let here = directory("check");
    fs::write(here.join("wrong.yaml"), "rules:\n  - name: a\n    match: {exit-codes: [0]}\n    hint: h\n").unwrap();
    fs::write(here.join("right.yaml"), "rules:\n  - name: a\n    match: {exit-codes: [3]}\n    hint: h\n").unwrap();
    fs::write(here.join("unknown.yaml"), "selector: a\nselctor: b\n").unwrap();
    let cases: [(&str, &[&str]); 5] = [
        ("right", &["--selector", "a", "--sink", "stdout", "--rules", "right.yaml"]),
        (
            "three-wrong",
            &[
                "--selector",
                "a",
                "--sink",
                "stdout",
                "--retry-period",
                "4s",
                "--rules",
                "wrong.yaml",
                "--captures-max",
                "4",
                "--captures-per-node-max",
                "5",
            ],
        ),
        ("selector-missing", &["--sink", "stdout"]),
        ("unknown-key", &["--config", "unknown.yaml"]),
        ("e2e-skipped", &["--selector", "a", "--sink", "stdout", "--e2e"]),
    ];
    let mut said = String::new();
    for (name, flags) in cases {
        let mut command = program(&here);
        let output = command.arg("check").args(flags).env("KUBECONFIG", "absent.yaml").output().unwrap();
        assert_eq!((output.status.code(), utf8(&output.stderr)), (Some(1), ""), "{name}: there is no cluster");
        said.push_str(&format!("== {name}\n{}", utf8(&output.stdout)));
        let json = command.args(["--output", "json"]).output().unwrap();
        let json: serde_json::Value = serde_json::from_slice(&json.stdout).unwrap();
        let lines = utf8(&output.stdout).lines().filter(|line| line.starts_with("FAIL")).count();
        let failed = json["checks"].as_array().unwrap().iter().filter(|check| check["verdict"] == "failed").count();
        assert_eq!((json["passed"].clone(), failed), (false.into(), lines), "{name}: {json:#}");
    }
    golden("check.txt", &said);
}

#[test]
fn completions_name_every_command_for_every_shell() {
    let here = directory("completions");
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let output = program(&here).args(["completions", shell]).output().unwrap();
        assert_eq!((output.status.code(), utf8(&output.stderr)), (Some(0), ""), "{shell}");
        let said = utf8(&output.stdout);
        for part in
            ["check", "status", "events", "explain", "verify", "reshard", "schema", "completions", "create-topics"]
        {
            assert!(said.contains(part), "{shell} does not complete {part}");
        }
    }
}

/// What a user's bash makes of it.
#[test]
fn bash_completes_commands_flags_and_values() {
    let here = directory("bash");
    let output = program(&here).args(["completions", "bash"]).output().unwrap();
    fs::write(here.join("pod-monitor.bash"), &output.stdout).unwrap();
    for (words, expected) in [
        ("pod-monitor ev", "events"),
        ("pod-monitor events --fol", "--follow"),
        ("pod-monitor events --output ", "json"),
    ] {
        let script = format!(
            "source pod-monitor.bash; COMP_WORDS=({words} {last}); COMP_CWORD=$((${{#COMP_WORDS[@]}}-1)); \
             $(complete -p pod-monitor | sed 's/.*-F \\([^ ]*\\).*/\\1/') pod-monitor \"${{COMP_WORDS[COMP_CWORD]}}\" \"${{COMP_WORDS[COMP_CWORD-1]}}\"; echo \"${{COMPREPLY[@]}}\"",
            last = if words.ends_with(' ') { "''" } else { "" }
        );
        let completed = Command::new("bash").args(["-c", &script]).current_dir(&here).output().unwrap();
        assert!(utf8(&completed.stdout).split_whitespace().any(|word| word == expected), "{words}: {completed:?}");
    }
}
