//! Programs that end by themselves, and limits that end them.

use serde_json::{Value, json};

use super::super::{steps::Case, story::Story};

pub(super) fn all() -> Vec<Case> {
    let mut cases = exits();
    cases.extend(messages());
    cases.extend(limits());
    cases
}

fn exits() -> Vec<Case> {
    let plain = |_: &mut Value| {};
    vec![
        Case::of("exit-0", "prints a line and ends with 0", "echo hello", plain)
            .phase("Succeeded")
            .tells(Story::completed()),
        Case::of("exit-3", "ends with exit code 3", "exit 3", plain)
            .phase("Failed")
            .tells(Story::failed(3, "exit_code", "script_error").says("exit code 3")),
        Case::of(
            "exit-130",
            "ends with exit code 130, as a shell does whose command died of SIGINT",
            "exit 130",
            plain,
        )
        .phase("Failed")
        .tells(Story::failed(130, "signal", "script_error").says("signal 2")),
        Case::of("exit-137", "ends by itself with exit code 137, as if it were killed", "exit 137", plain)
            .phase("Failed")
            .tells(Story::disturbed(Some(137), "killed")),
        Case::of("exit-247", "ends with exit code 247: a parent that passes on the -9 of its child", "exit 247", plain)
            .phase("Failed")
            .tells(Story::disturbed(Some(247), "killed")),
        Case::of("segfault", "dies of SIGSEGV", "kill -SEGV $$; sleep 600", |pod| {
            // As process 1 of its own namespace the kernel would shield it from its own signals.
            pod["spec"]["shareProcessNamespace"] = true.into();
        })
        .phase("Failed")
        .tells(Story::failed(139, "signal", "script_error").says("signal 11")),
    ]
}

fn messages() -> Vec<Case> {
    let policy = |pod: &mut Value| {
        pod["spec"]["containers"][0]["terminationMessagePolicy"] = "FallbackToLogsOnError".into();
    };
    vec![
        Case::of(
            "termination-message",
            "leaves a termination message and fails",
            "echo 'exit_code=3' > /dev/termination-log; exit 3",
            |_| {},
        )
        .phase("Failed")
        .tells(Story::failed(3, "exit_code", "script_error").termination_message("exit_code=3\n")),
        Case::of(
            "termination-message-from-logs",
            "fails with FallbackToLogsOnError",
            "echo first; echo last words; exit 4",
            policy,
        )
        .phase("Failed")
        .tells(Story::failed(4, "exit_code", "script_error").termination_message("first\nlast words\n")),
        Case::of(
            "termination-message-huge",
            "leaves a termination message of 100 KB",
            "yes 0123456789abcde | head -c 100000 > /dev/termination-log; exit 5",
            |_| {},
        )
        .phase("Failed")
        .tells(Story::failed(5, "exit_code", "script_error").termination_message("0123456789abcde\n")),
    ]
}

fn limits() -> Vec<Case> {
    let memory = |pod: &mut Value| {
        pod["spec"]["containers"][0]["resources"] = json!({ "limits": { "memory": "32Mi" } });
    };
    // Once it runs: on a busy node a container may start later than that.
    let deadline = ["patch", "pod", "exec-pod-deadline", "-p", r#"{"spec":{"activeDeadlineSeconds":3}}"#];
    vec![
        Case::of("oom", "takes more memory than its limit", "exec tail /dev/zero", memory)
            .phase("Failed")
            .tells(Story::failed(137, "oom_killed", "resource_limit")),
        Case::of("pod-deadline", "runs longer than activeDeadlineSeconds", "exec sleep 600", |_| {})
            .phase("Running")
            .kubectl(&deadline)
            .ended_by_its_node()
            .tells(Story::failed(137, "deadline", "timeout")),
    ]
}
