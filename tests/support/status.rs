//! Statuses of pods as a kubelet would write them, at fixed times.

use serde_json::{Value, json};
use testkit::clients::cluster::execution;

/// A node that does not exist.
pub(crate) const NODE: &str = "nowhere";
/// When pods were bound.
pub(crate) const BOUND_AT: &str = "2026-01-02T03:04:01Z";
/// When their containers started.
pub(crate) const STARTED_AT: &str = "2026-01-02T03:04:02Z";
/// When they ended.
pub(crate) const FINISHED_AT: &str = "2026-01-02T03:04:05Z";

/// An execution pod that no scheduler takes.
pub(crate) fn unscheduled(app: &str, id: &str) -> Value {
    let mut pod = execution(app, id, "true");
    pod["spec"]["schedulerName"] = "nobody".into();
    pod
}

fn conditions() -> Value {
    json!([{ "type": "PodScheduled", "status": "True", "lastTransitionTime": BOUND_AT }])
}

fn container(state: &Value) -> Value {
    json!([{ "name": "main", "image": "i", "imageID": "i", "ready": state.get("running").is_some(),
        "restartCount": 0, "state": state }])
}

/// Bound, not started.
pub(crate) fn scheduled() -> Value {
    json!({ "phase": "Pending", "conditions": conditions() })
}

/// The container runs.
pub(crate) fn running() -> Value {
    let state = json!({ "running": { "startedAt": STARTED_AT } });
    json!({ "phase": "Running", "startTime": BOUND_AT, "conditions": conditions(), "containerStatuses": container(&state) })
}

/// The container ended.
pub(crate) fn ended(exit_code: i32) -> Value {
    let (phase, reason) = if exit_code == 0 { ("Succeeded", "Completed") } else { ("Failed", "Error") };
    let state = json!({ "terminated": { "exitCode": exit_code, "reason": reason, "startedAt": STARTED_AT,
        "finishedAt": FINISHED_AT, "containerID": "containerd://x" } });
    json!({ "phase": phase, "startTime": BOUND_AT, "conditions": conditions(), "containerStatuses": container(&state) })
}
