//! A replica, as its Pod object tells it.

use serde_json::Value;

/// A pod of the Deployment.
#[derive(Debug, Clone)]
pub struct Replica {
    /// `metadata.name`
    pub name: String,
    /// `spec.nodeName`
    pub node: String,
    /// `status.podIP`; reachable from the machine.
    pub address: String,
    /// Its container is ready.
    pub ready: bool,
    /// It ends.
    pub going: bool,
    /// How often its container was started again.
    pub restarts: u64,
    /// The container's id, without its scheme; empty before its first start.
    pub container: String,
}

impl Replica {
    pub(super) fn of(pod: &Value) -> Self {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let status = &pod["status"]["containerStatuses"][0];
        Self {
            name: text(&pod["metadata"]["name"]),
            node: text(&pod["spec"]["nodeName"]),
            address: text(&pod["status"]["podIP"]),
            ready: status["ready"] == true,
            going: pod["metadata"]["deletionTimestamp"].is_string(),
            restarts: status["restartCount"].as_u64().unwrap_or(0),
            container: text(&status["containerID"]).trim_start_matches("containerd://").to_owned(),
        }
    }
}
