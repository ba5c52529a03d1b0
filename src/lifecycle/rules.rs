//! What the decisions rest on besides the pod: fixed for the life of a process.

use std::sync::Arc;

use jiff::SignedDuration;

use super::{identity::IdSources, stall::Graces, user_rules::UserRules};

/// The settings of the pure core.
#[derive(Debug, Clone, PartialEq, Default)]
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
    /// How long each kind of stall may last before it is told; empty: none is told.
    pub stall_graces: Graces,
    /// How long after its end an execution is remembered although its pod is gone, so that another pod that claims it is
    /// found out.
    pub remember_ended: SignedDuration,
    /// `--rules`: what the user says of failures.
    pub user: Arc<UserRules>,
}
