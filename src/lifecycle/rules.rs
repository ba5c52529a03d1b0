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
    /// What the pods are shared by, and so what keeps one order.
    pub shard_by: ShardBy,
    /// Which logs are followed while their containers run.
    pub follow: FollowLogs,
    /// `--rules`: what the user says of failures.
    pub user: Arc<UserRules>,
}

/// `--shard-by`: what decides in which shard a pod is told of.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ShardBy {
    /// The pod's UID, as Kubernetes shares watches. Pods of one execution are told of side by side.
    #[default]
    Uid,
    /// The execution id. Pods of one execution are told of one after the other: the first event of one that was made after
    /// another had ended comes after that end.
    Execution,
}

impl ShardBy {
    /// As flags and the changelog's identity write it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Uid => "uid",
            Self::Execution => "execution",
        }
    }

    /// What [`ShardBy::as_str`] wrote.
    pub fn of(text: &str) -> Option<Self> {
        [Self::Uid, Self::Execution].into_iter().find(|by| by.as_str() == text)
    }
}

/// `--follow`: which logs are read while their containers still print.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum FollowLogs {
    /// Of pods that are being deleted: their logs are gone soon after their end.
    #[default]
    Deleted,
    /// Of all that run, as far as the bounds of followers go: what a node rotates away was read before.
    Running,
}
