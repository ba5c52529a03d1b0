//! The sample executions and the story that each must have, as data.
//!
//! An expectation says what contract.md promises for this pod. Where the monitor tells something else, the monitor is
//! to be mended, not the line here.

use serde_json::{Value, json};

use super::story::{Act, Field, Made, Sample, Want};
use crate::clients::cluster::execution;

const COMPLETED: &[&str] = &["pod_scheduled", "execution_running", "execution_completed"];
const FAILED: &[&str] = &["pod_scheduled", "execution_running", "execution_failed"];
const TIMED_OUT: &[&str] = &["pod_scheduled", "execution_running", "execution_timeout"];
const NEVER_RAN: &[&str] = &["pod_scheduled", "execution_failed"];
/// Pods start within seconds, also on a busy machine.
const JOB_DEADLINE_S: u32 = 12;
const TIMED_OUT_AND_GONE: &[&str] = &["pod_scheduled", "execution_running", "execution_timeout", "pod_terminated"];
const STALLED: &[&str] =
    &["pod_scheduled", "execution_stalled", "execution_resumed", "execution_running", "execution_completed"];
const NEVER_RAN_AND_GONE: &[&str] = &["pod_scheduled", "execution_failed", "pod_terminated"];
const FAILED_AND_GONE: &[&str] = &["pod_scheduled", "execution_running", "execution_failed", "pod_terminated"];
const COMPLETED_AND_GONE: &[&str] = &["pod_scheduled", "execution_running", "execution_completed", "pod_terminated"];

/// A report in one line of JSON, as an executor prints it.
const JSON_REPORT: &str = r#"echo starting
echo '{"exit_code":0,"resource_usage":{"execution_time_wall_seconds":0.25,"cpu_time_jiffies":12,"clk_tck_hertz":100,"peak_memory_kb":2048},"stdout":"42\n","stderr":"one warning\n"}'"#;

/// Framed streams; the numbers are in the termination message.
const FRAMED_REPORT: &str = r#"printf 'exit_code=0\ncpu_jiffies=7\nclk_tck=100\npeak_memory_kb=1024\nwall_seconds=0.5\n' > /dev/termination-log
printf 'STDOUT 22\n{"exit_code":1} forged\n'
printf 'STDERR 4\nhmm\n'"#;

/// User code that claims success.
const FORGED_REPORT: &str = r#"echo '{"exit_code":0,"stdout":"all is well\n"}'; exit 7"#;

/// All samples, in the order of the show.
pub(super) fn all(app: &str) -> Vec<Sample> {
    let mut samples = printing(app);
    samples.extend(limits(app));
    samples.extend(never_running(app));
    samples.extend(deleted(app));
    samples.extend(odd(app));
    samples.extend(explained(app));
    samples
}

fn printing(app: &str) -> Vec<Sample> {
    vec![
        Sample::new(app, "success", "prints a line and ends with 0", "echo hello", COMPLETED)
            .is("exit_code", 0)
            .is("stdout", "hello\n")
            .is("logs.status", "complete")
            .is("logs.stdout_bytes", 6)
            .none("cause")
            .none("resource_usage"),
        Sample::new(app, "exit-3", "ends with exit code 3", "echo half of it; exit 3", FAILED)
            .is("exit_code", 3)
            .is("error_type", "script_error")
            .is("cause", "exit_code")
            .is("retryable", false)
            .is("attempt_started", true)
            .is("stdout", "half of it\n"),
        Sample::new(app, "stderr", "prints to both streams and fails", "echo result; echo problem >&2; exit 1", FAILED)
            .is("exit_code", 1)
            .is("stdout", "result\n")
            .is("stderr", "problem\n")
            .is("logs.stderr_bytes", 8),
        Sample::new(app, "json-report", "an executor that prints its report as JSON", JSON_REPORT, COMPLETED)
            .is("stdout", "42\n")
            .is("stderr", "one warning\n")
            .is("resource_usage.cpu_time_jiffies", 12)
            .is("resource_usage.peak_memory_kb", 2048)
            .none("claims_conflict"),
        Sample::new(app, "framed-report", "an executor that frames its streams by length", FRAMED_REPORT, COMPLETED)
            .is("stdout", "{\"exit_code\":1} forged")
            .is("stderr", "hmm\n")
            .is("logs.status", "complete")
            .is("resource_usage.cpu_time_jiffies", 7)
            .is("resource_usage.execution_time_wall_seconds", 0.5)
            .none("claims_conflict"),
        Sample::new(
            app,
            "forged-report",
            "user code that prints a report of success, then fails",
            FORGED_REPORT,
            FAILED,
        )
        .is("exit_code", 7)
        .is("cause", "exit_code")
        .is("claims_conflict", true)
        .is("stdout", "all is well\n"),
        Sample::new(app, "binary", "prints bytes that are no text", r"printf '\377\376\033[2J\a\000end\n'", COMPLETED)
            .contains("stdout", "end\n")
            .contains("stdout", "\u{fffd}")
            .is("logs.status", "complete")
            .is("logs.stdout_bytes", 12),
        Sample::new(app, "big-output", "prints 2 MB", "yes 0123456789abcde | head -c 2000000", COMPLETED)
            .is("logs.status", "truncated")
            .is("logs.stdout_bytes", 2_000_000)
            .contains("stdout", "0123456789abcde\n"),
    ]
}

fn limits(app: &str) -> Vec<Sample> {
    vec![
        Sample::new(app, "oom", "takes more memory than its limit", "exec tail /dev/zero", FAILED)
            .container("resources", json!({ "limits": { "memory": "32Mi" } }))
            .is("exit_code", 137)
            .is("error_type", "resource_limit")
            .is("cause", "oom_killed")
            .contains("hint", "memory"),
        Sample::new(app, "deadline", "runs longer than activeDeadlineSeconds", "echo begun; exec sleep 600", TIMED_OUT)
            .spec("activeDeadlineSeconds", json!(3))
            .is("error_type", "timeout")
            .is("cause", "deadline")
            .is("timeout_seconds", 3)
            .is("attempt_started", true),
        Sample::new(app, "segfault", "dies of SIGSEGV", "echo going; kill -SEGV $$; sleep 600", FAILED)
            // As process 1 of its own namespace the kernel would shield it from its own signals.
            .spec("shareProcessNamespace", json!(true))
            .is("exit_code", 139)
            .is("error_type", "script_error")
            .is("cause", "signal")
            .is("stdout", "going\n"),
    ]
}

fn never_running(app: &str) -> Vec<Sample> {
    let init =
        json!([{ "name": "prepare", "image": "localhost/busybox:1", "command": ["sh", "-c", "echo no disk; exit 5"] }]);
    vec![
        Sample::new(
            app,
            "no-image",
            "names an image that nobody has; the platform deletes it",
            "true",
            NEVER_RAN_AND_GONE,
        )
        .container("image", json!("localhost/nobody-has-this:1"))
        .act(Act::DeleteWaiting(&["ErrImagePull", "ImagePullBackOff"]))
        .is("error_type", "system_error")
        .is("cause", "image")
        .is("attempt_started", false)
        .is("retryable", false)
        // What `kubectl describe` would have said.
        .any("kubernetes_events.0.reason", &["Scheduled", "Pulling", "Failed", "BackOff"])
        .none("exit_code")
        .none("started_at")
        .is("logs.status", "unavailable"),
        Sample::new(app, "no-program", "names a program that its image does not have", "true", NEVER_RAN)
            .container("command", json!(["/does/not/exist"]))
            .is("error_type", "system_error")
            .is("cause", "config")
            .is("attempt_started", false)
            .none("exit_code")
            .field("execution_failed", "timestamp", Want::NotEpoch),
        Sample::new(app, "init-fails", "its init container fails", "echo never", NEVER_RAN)
            .spec("initContainers", init)
            .is("error_type", "system_error")
            .is("cause", "init")
            .is("attempt_started", false)
            .none("exit_code")
            .is("stdout", "no disk\n")
            .is("logs.container", "prepare")
            .contains("message", "prepare"),
    ]
}

fn deleted(app: &str) -> Vec<Sample> {
    vec![
        Sample::new(app, "deleted", "is deleted while it runs", "echo working; exec sleep 600", FAILED_AND_GONE)
            .act(Act::DeleteAfter("execution_running"))
            .is("error_type", "system_error")
            .is("cause", "deleted")
            .is("attempt_started", true)
            // Its output goes with the pod, within seconds: what can be had is told, and how much that is.
            .any("logs.status", &["complete", "partial", "unavailable"]),
        Sample::new(app, "deleted-after", "ends well and is deleted then", "echo kept", COMPLETED_AND_GONE)
            .act(Act::DeleteAfter("execution_completed"))
            .is("exit_code", 0)
            .is("stdout", "kept\n")
            .is("logs.status", "complete")
            .field("pod_terminated", "exit_code", Want::Is(json!(0)))
            .field("pod_terminated", "observed", Want::Is(json!(true))),
    ]
}

fn odd(app: &str) -> Vec<Sample> {
    let flaky = "if [ -e /state/ran ]; then echo second try; else touch /state/ran; exit 1; fi";
    let mut nameless = Sample::new(app, "no-label", "carries no execution id", "echo who am I", COMPLETED).field(
        "execution_completed",
        "execution_id",
        Want::PodUid,
    );
    nameless.pod["metadata"] = json!({ "name": "nameless", "labels": { "app": app } });
    let sidecar = json!([{ "name": "proxy", "image": "localhost/busybox:1", "restartPolicy": "Always",
        "command": ["sh", "-c", "exec sleep 600"] }]);
    vec![
        nameless,
        Sample::new(app, "retried", "fails once and is restarted by the kubelet", flaky, COMPLETED)
            .spec("restartPolicy", json!("OnFailure"))
            .spec("volumes", json!([{ "name": "state", "emptyDir": {} }]))
            .container("volumeMounts", json!([{ "name": "state", "mountPath": "/state" }]))
            .is("exit_code", 0)
            .is("stdout", "second try\n")
            .is("containers.0.restart_count", 1),
        Sample::new(app, "sidecar", "ends while its sidecar runs on", "echo done; exit 4", FAILED)
            .spec("initContainers", sidecar)
            .is("exit_code", 4)
            .is("cause", "exit_code")
            .is("stdout", "done\n"),
    ]
}

/// What needs more than one look at one pod.
fn explained(app: &str) -> Vec<Sample> {
    let late = json!([{ "configMapRef": { "name": "late" } }]);
    let obedient = "trap 'exit 143' TERM; echo working; while true; do sleep 0.1; done";
    let mut again = Sample::new(
        app,
        "again",
        "another pod of the execution exit-3, made after its end",
        "echo once more",
        COMPLETED,
    );
    again.pod["metadata"]["labels"]["execution-id"] = "exit-3".into();
    vec![
        Sample::new(
            app,
            "stalled",
            "needs a ConfigMap that is made only after the stall was told",
            "echo $LATE",
            STALLED,
        )
        .container("envFrom", late)
        .act(Act::ProvideAfter("execution_stalled", "late"))
        .field("execution_stalled", "cause", Want::Is(json!("config")))
        .field("execution_stalled", "message", Want::Contains("late"))
        .field("execution_resumed", "cause", Want::Is(json!("config")))
        .is("stdout", "at last\n"),
        Sample::new(app, "job-deadline", "its Job's activeDeadlineSeconds pass", obedient, TIMED_OUT_AND_GONE)
            .made(Made::ByJob(json!({ "activeDeadlineSeconds": JOB_DEADLINE_S })))
            .is("error_type", "timeout")
            .is("cause", "deadline")
            .is("timeout_seconds", JOB_DEADLINE_S)
            .is("owner.kind", "Job")
            .is("stdout", "working\n"),
        Sample::new(app, "refused", "asks for a node that its node is not: the kubelet refuses it", "true", NEVER_RAN)
            .spec("nodeName", json!("node-1"))
            .spec("nodeSelector", json!({ "no-node": "has-this" }))
            .is("error_type", "system_error")
            .is("cause", "admission")
            .is("attempt_started", false)
            .none("exit_code"),
        Sample::new(
            app,
            "licence",
            "fails in a way that a rule of the user names",
            "echo no seat >&2; exit 43",
            FAILED,
        )
        .is("cause", "no_licence")
        .is("category", "licence")
        .is("rule", "no-licence")
        .is("error_type", "script_error")
        .is("retryable", true)
        .is("exit_code", 43),
        again.made(Made::After("exit-3")).is("earlier_end.event_type", "execution_failed").is("exit_code", 0).field(
            "pod_scheduled",
            "execution_id",
            Want::Is(json!("exit-3")),
        ),
    ]
}

impl Sample {
    fn new(app: &str, name: &'static str, does: &'static str, script: &str, events: &'static [&'static str]) -> Self {
        // Kubernetes takes $$ and $(NAME) in a command for its own: doubled, a dollar sign reaches the shell.
        let pod = execution(app, name, &script.replace('$', "$$"));
        Self { name, does, pod, made: Made::AtOnce, act: Act::Leave, events: events.to_vec(), fields: Vec::new() }
    }

    /// Sets a key of the pod's spec.
    fn spec(mut self, key: &str, value: Value) -> Self {
        self.pod["spec"][key] = value;
        self
    }

    /// Sets a key of the main container.
    fn container(mut self, key: &str, value: Value) -> Self {
        self.pod["spec"]["containers"][0][key] = value;
        self
    }

    fn made(mut self, made: Made) -> Self {
        self.made = made;
        self
    }

    fn act(mut self, act: Act) -> Self {
        self.act = act;
        self
    }

    fn field(mut self, event: &'static str, path: &'static str, want: Want) -> Self {
        self.fields.push(Field { event, path, want });
        self
    }

    /// The end has this value.
    fn is(self, path: &'static str, value: impl Into<Value>) -> Self {
        let end = self.end();
        self.field(end, path, Want::Is(value.into()))
    }

    fn any(self, path: &'static str, values: &[&str]) -> Self {
        let end = self.end();
        self.field(end, path, Want::OneOf(values.iter().map(|value| json!(value)).collect()))
    }

    fn contains(self, path: &'static str, part: &'static str) -> Self {
        let end = self.end();
        self.field(end, path, Want::Contains(part))
    }

    /// The end has no such field.
    fn none(self, path: &'static str) -> Self {
        let end = self.end();
        self.field(end, path, Want::Absent)
    }

    fn end(&self) -> &'static str {
        let ends = ["execution_completed", "execution_failed", "execution_timeout"];
        self.events.iter().find(|event| ends.contains(event)).copied().expect("every sample's story has an end")
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn samples_have_names_of_their_own_and_are_pods() {
        let samples = all("demo");
        let names: BTreeSet<_> = samples.iter().map(|sample| sample.name).collect();
        assert!(samples.len() >= 24 && names.len() == samples.len(), "{names:?}");
        for sample in samples {
            let pod: k8s_openapi::api::core::v1::Pod = serde_json::from_value(sample.pod).unwrap();
            assert_eq!(pod.metadata.labels.unwrap()["app"], "demo", "{}", sample.name);
            assert!(!sample.fields.is_empty(), "{}", sample.name);
        }
    }
}
