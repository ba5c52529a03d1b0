//! The slim pod: only the fields that this service reads, decoded from the API server's JSON.
//!
//! A full `k8s_openapi` Pod costs 277 allocations and 45 KB; this one costs what it holds. Decoding is lenient: an
//! absent or null field is its default, an unreadable time is `None`, and [`decode`] falls back to a field-by-field
//! reading before it gives a pod up, so that one odd object never blinds the watch. Pure: no clock, no I/O.

use std::{
    collections::{BTreeMap, HashMap},
    fmt,
    sync::Arc,
};

use compact_str::CompactString;
use foldhash::fast::FixedState;
use jiff::Timestamp;
use serde::{Deserialize, Deserializer, Serialize};

mod env;
mod few;
mod salvage;
mod text;

pub use salvage::{Decoded, Odd, decode};
pub use text::{MESSAGE_BYTES_MAX, NAME_BYTES_MAX};

/// A pod's `metadata.uid`: the identity that everything is keyed by (names come back, UIDs do not). Shared, since every
/// place that knows of a pod keeps it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct PodUid(pub Arc<str>);

impl fmt::Display for PodUid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Something per pod. Walked in the same order by every process with the same history, so that a simulated run replays;
/// keys that nobody outside knows are not needed, since UIDs are made up by the API server.
pub type ByUid<T> = HashMap<PodUid, T, FixedState>;

/// A resourceVersion. Ordered integers within one resource type since Kubernetes 1.35 (KEP-5504).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ResourceVersion(pub u64);

impl fmt::Display for ResourceVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The fields of a v1 Pod that decisions rest on.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct Pod {
    /// `metadata`
    pub metadata: Metadata,
    /// `spec`
    #[serde(deserialize_with = "nullable")]
    pub spec: Spec,
    /// `status`
    #[serde(deserialize_with = "nullable")]
    pub status: Status,
    /// Not all of it could be read: what is not there may be there all the same.
    #[serde(skip)]
    pub incomplete: bool,
}

impl Pod {
    /// What makes it one that cannot be told of as it is, though every field can be read.
    pub(super) fn odd(&self) -> Option<&'static str> {
        let statuses = [&self.status.container_statuses, &self.status.init_container_statuses];
        let nameless = statuses.into_iter().flatten().any(|status| !status.is_named());
        self.metadata.lacks().or_else(|| nameless.then_some("a container's status has no name"))
    }
}

/// `metadata` of a pod.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Metadata {
    /// `metadata.uid`
    #[serde(deserialize_with = "text::uid")]
    pub uid: PodUid,
    /// `metadata.name`
    #[serde(deserialize_with = "text::name")]
    pub name: CompactString,
    /// `metadata.namespace`
    #[serde(deserialize_with = "text::name")]
    pub namespace: CompactString,
    /// `metadata.resourceVersion`; 0 where absent.
    #[serde(deserialize_with = "version")]
    pub resource_version: ResourceVersion,
    /// `metadata.labels`
    #[serde(deserialize_with = "text::map")]
    pub labels: BTreeMap<CompactString, CompactString>,
    /// `metadata.annotations`
    #[serde(deserialize_with = "text::map")]
    pub annotations: BTreeMap<CompactString, CompactString>,
    /// `metadata.creationTimestamp`
    #[serde(deserialize_with = "time")]
    pub creation_timestamp: Option<Timestamp>,
    /// `metadata.deletionTimestamp`: when the grace period ends, not when the deletion was asked for.
    #[serde(deserialize_with = "time")]
    pub deletion_timestamp: Option<Timestamp>,
    /// `metadata.deletionGracePeriodSeconds`
    pub deletion_grace_period_seconds: Option<i64>,
    /// `metadata.finalizers`
    #[serde(deserialize_with = "nullable")]
    pub finalizers: Vec<CompactString>,
    /// `metadata.ownerReferences`
    #[serde(deserialize_with = "bounded")]
    pub owner_references: Vec<Owner>,
}

/// One of `metadata.ownerReferences`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct Owner {
    /// `kind`: `Job` for instance.
    #[serde(deserialize_with = "text::name")]
    pub kind: CompactString,
    /// `name`
    #[serde(deserialize_with = "text::name")]
    pub name: CompactString,
    /// `uid`
    #[serde(deserialize_with = "text::name")]
    pub uid: CompactString,
    /// `controller`: whether this owner makes and deletes the pod.
    #[serde(deserialize_with = "nullable")]
    pub controller: bool,
}

impl Metadata {
    /// Whether it would be gone but for finalizers: whoever runs containers is done with it, or never had it.
    pub fn held_by_finalizers(&self) -> bool {
        let over = self.deletion_timestamp.is_some() && self.deletion_grace_period_seconds == Some(0);
        over && !self.finalizers.is_empty()
    }

    /// The owner that makes and deletes the pod, where one does.
    pub fn controller(&self) -> Option<&Owner> {
        let is_known = |owner: &&Owner| ![&owner.kind, &owner.name, &owner.uid].into_iter().any(|text| text.is_empty());
        self.owner_references.iter().find(|owner| owner.controller).filter(is_known)
    }

    /// What every object has that an API server keeps, and without which nothing can be told of one.
    fn lacks(&self) -> Option<&'static str> {
        match self {
            m if m.uid.0.is_empty() => Some("metadata.uid is absent"),
            m if m.name.is_empty() => Some("metadata.name is absent"),
            m if m.namespace.is_empty() => Some("metadata.namespace is absent"),
            _ => None,
        }
    }

    /// Whether a DELETED event with this last state proves that the object is gone. Without these signs the pod may
    /// merely have left the selection (its labels changed), which only a GET can tell.
    pub fn surely_deleted(&self) -> bool {
        let over = self.deletion_timestamp.is_some() && self.deletion_grace_period_seconds == Some(0);
        over && self.finalizers.is_empty()
    }
}

/// `spec` of a pod.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Spec {
    /// `spec.nodeName`
    #[serde(deserialize_with = "text::name_or_none")]
    pub node_name: Option<CompactString>,
    /// `spec.activeDeadlineSeconds`
    pub active_deadline_seconds: Option<i64>,
    /// `spec.restartPolicy`; `Always` where absent, as the API server defaults it.
    pub restart_policy: Option<CompactString>,
    /// `spec.containers`
    #[serde(deserialize_with = "nullable")]
    pub containers: Vec<Container>,
    /// `spec.initContainers`
    #[serde(deserialize_with = "nullable")]
    pub init_containers: Vec<Container>,
    /// `spec.schedulingGates`: while there is one, no scheduler looks at the pod.
    #[serde(deserialize_with = "bounded")]
    pub scheduling_gates: Vec<Gate>,
    /// `spec.terminationGracePeriodSeconds`
    pub termination_grace_period_seconds: Option<i64>,
}

/// One of `spec.schedulingGates`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct Gate {
    /// `name`
    #[serde(deserialize_with = "nullable")]
    pub name: CompactString,
}

/// A container of `spec.containers` or `spec.initContainers`.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Container {
    /// `name`
    #[serde(deserialize_with = "text::name")]
    pub name: CompactString,
    /// `restartPolicy`: `Always` on an init container makes it a native sidecar; on an ordinary one it overrules the
    /// pod's.
    pub restart_policy: Option<CompactString>,
    /// `restartPolicyRules`: exit codes after which the kubelet starts it, or all, again.
    #[serde(deserialize_with = "bounded")]
    pub restart_policy_rules: Vec<RestartRule>,
    /// `env`: the value of the variable `TRACEPARENT`, where it stands there itself.
    #[serde(rename = "env", deserialize_with = "env::traceparent")]
    pub traceparent: Option<Box<str>>,
}

/// One of a container's `restartPolicyRules`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct RestartRule {
    /// `action`: `Restart` or `RestartAllContainers`.
    #[serde(deserialize_with = "nullable")]
    pub action: CompactString,
    /// `exitCodes`
    #[serde(deserialize_with = "nullable")]
    pub exit_codes: ExitCodes,
}

/// `exitCodes` of a restart rule.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct ExitCodes {
    /// `operator`: `In` or `NotIn`.
    #[serde(deserialize_with = "nullable")]
    pub operator: CompactString,
    /// `values`: at most 255, as the API server has it.
    #[serde(deserialize_with = "exit_codes")]
    pub values: Vec<i32>,
}

/// `status.phase`. Unknown phases are kept, not refused.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(from = "CompactString")]
pub enum Phase {
    /// Not all containers have started.
    #[default]
    Pending,
    /// At least one container runs, starts or restarts.
    Running,
    /// All containers ended with exit code 0 and will not restart.
    Succeeded,
    /// All containers ended, at least one in failure.
    Failed,
    /// The node does not answer, or a phase of a later Kubernetes.
    Unknown(CompactString),
}

impl From<CompactString> for Phase {
    fn from(text: CompactString) -> Self {
        match text.as_str() {
            "" | "Pending" => Self::Pending,
            "Running" => Self::Running,
            "Succeeded" => Self::Succeeded,
            "Failed" => Self::Failed,
            _ => Self::Unknown(text),
        }
    }
}

impl Phase {
    /// Succeeded or Failed: phases that the kubelet never leaves again.
    pub fn is_terminal(&self) -> bool {
        matches!(self, Self::Succeeded | Self::Failed)
    }
}

/// `status` of a pod.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Status {
    /// `status.phase`
    #[serde(deserialize_with = "nullable")]
    pub phase: Phase,
    /// `status.reason`
    #[serde(deserialize_with = "text::reason")]
    pub reason: Option<CompactString>,
    /// `status.message`
    #[serde(deserialize_with = "text::message")]
    pub message: Option<Box<str>>,
    /// `status.startTime`
    #[serde(deserialize_with = "time")]
    pub start_time: Option<Timestamp>,
    /// `status.conditions`
    #[serde(deserialize_with = "nullable")]
    pub conditions: Vec<Condition>,
    /// `status.containerStatuses`
    #[serde(deserialize_with = "nullable")]
    pub container_statuses: Vec<ContainerStatus>,
    /// `status.initContainerStatuses`
    #[serde(deserialize_with = "nullable")]
    pub init_container_statuses: Vec<ContainerStatus>,
    /// `status.ephemeralContainerStatuses`: debuggers; they never decide how an execution ended.
    #[serde(deserialize_with = "bounded")]
    pub ephemeral_container_statuses: Vec<ContainerStatus>,
}

/// A pod condition.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Condition {
    /// `type`
    #[serde(rename = "type")]
    #[serde(deserialize_with = "nullable")]
    pub kind: CompactString,
    /// `status`: `True`, `False` or `Unknown`.
    #[serde(deserialize_with = "nullable")]
    pub status: CompactString,
    /// `reason`
    #[serde(deserialize_with = "text::reason")]
    pub reason: Option<CompactString>,
    /// `message`
    #[serde(deserialize_with = "text::message")]
    pub message: Option<Box<str>>,
    /// `lastTransitionTime`
    #[serde(deserialize_with = "time")]
    pub last_transition_time: Option<Timestamp>,
}

/// Status of one container.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct ContainerStatus {
    /// `name`
    #[serde(deserialize_with = "text::name")]
    pub name: CompactString,
    /// `ready`
    #[serde(deserialize_with = "nullable")]
    pub ready: bool,
    /// `started`: it has passed its startup probe; of a native sidecar, the next container may start.
    #[serde(deserialize_with = "nullable")]
    pub started: bool,
    /// `restartCount`
    #[serde(deserialize_with = "nullable")]
    pub restart_count: u32,
    /// `state`
    #[serde(deserialize_with = "nullable")]
    pub state: ContainerState,
    /// `lastState`
    #[serde(deserialize_with = "nullable")]
    pub last_state: ContainerState,
}

impl ContainerStatus {
    fn is_named(&self) -> bool {
        !self.name.is_empty()
    }
}

/// State of a container: at most one of the three is set.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct ContainerState {
    /// Not started, with the reason.
    pub waiting: Option<Waiting>,
    /// Running.
    pub running: Option<Running>,
    /// Ended.
    pub terminated: Option<Terminated>,
}

/// `state.waiting`
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Waiting {
    /// `reason`
    #[serde(deserialize_with = "text::reason")]
    pub reason: Option<CompactString>,
    /// `message`
    #[serde(deserialize_with = "text::message")]
    pub message: Option<Box<str>>,
}

/// `state.running`
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Running {
    /// `startedAt`
    #[serde(deserialize_with = "time")]
    pub started_at: Option<Timestamp>,
}

/// `state.terminated`
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Terminated {
    /// `exitCode`
    #[serde(deserialize_with = "nullable")]
    pub exit_code: i32,
    /// `signal`
    pub signal: Option<i32>,
    /// `reason`
    #[serde(deserialize_with = "text::reason")]
    pub reason: Option<CompactString>,
    /// `message`: what the container wrote to its termination log, at most 4096 bytes.
    #[serde(deserialize_with = "text::message")]
    pub message: Option<Box<str>>,
    /// `startedAt`; `None` where the container never started (the kubelet writes the Unix epoch then).
    #[serde(deserialize_with = "time")]
    pub started_at: Option<Timestamp>,
    /// `finishedAt`
    #[serde(deserialize_with = "time")]
    pub finished_at: Option<Timestamp>,
}

fn nullable<'de, D: Deserializer<'de>, T: Default + Deserialize<'de>>(d: D) -> Result<T, D::Error> {
    Ok(Option::<T>::deserialize(d)?.unwrap_or_default())
}

fn bounded<'de, D: Deserializer<'de>, T: Deserialize<'de>>(d: D) -> Result<Vec<T>, D::Error> {
    few::list(d, few::KEPT_MAX)
}

fn exit_codes<'de, D: Deserializer<'de>>(d: D) -> Result<Vec<i32>, D::Error> {
    few::list(d, few::EXIT_CODES_MAX)
}

fn version<'de, D: Deserializer<'de>>(d: D) -> Result<ResourceVersion, D::Error> {
    text::read(d, |text| Ok(ResourceVersion(text.parse().unwrap_or(0))))
}

/// Times are facts about the pod, not conditions for telling of it: what cannot be read is absent, and so is the Unix
/// epoch, which the kubelet writes for "never".
fn time<'de, D: Deserializer<'de>>(d: D) -> Result<Option<Timestamp>, D::Error> {
    text::read(d, |text| Ok(text.parse::<Timestamp>().ok().filter(|t| t.as_second() > 0)))
}
