//! What the decisions rest on besides the pod: fixed for the life of a process.

use jiff::SignedDuration;

use super::identity::IdSources;

/// The settings of the pure core.
#[derive(Debug, Clone, PartialEq)]
pub struct Rules {
    /// Names the cluster in event ids: UID of namespace kube-system, or `--cluster-id`.
    pub cluster_id: String,
    /// Where ids come from.
    pub ids: IdSources,
    /// `--container`: the container whose end is the execution's end, where pods have several.
    pub container: Option<String>,
    /// How long a failed container's end waits for the pod's final phase, which may bring the better reason: a 137
    /// can precede its `Evicted`.
    pub settle_grace: SignedDuration,
}
