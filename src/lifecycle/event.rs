//! What is told: the events of contract.md as data. How they are written as JSON is `publish/record.rs`'s business.

use std::fmt;

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

pub use super::captured::{
    Captured, KUBERNETES_EVENT_MESSAGE_CHARS_MAX, KUBERNETES_EVENTS_MAX, KubernetesEvent, Logs, LogsStatus,
    ResourceUsage,
};
use super::trace::TraceParent;
use crate::watch::pod::{Metadata, PodUid};

/// One domain event of one pod.
#[derive(Debug, Clone, PartialEq)]
pub struct Event {
    /// UUIDv5 of (cluster id, pod UID, restart count, slot): the same for everyone who ever tells this event.
    pub event_id: Uuid,
    /// When it happened, by the clocks of the cluster.
    pub timestamp: Timestamp,
    /// When this replica saw it, by its own clock.
    pub observed_at: Timestamp,
    /// Which execution; the key of the Kafka record.
    pub execution_id: Box<str>,
    /// Whose execution, where a label says so.
    pub user_id: Option<Box<str>>,
    /// `metadata.name` of the pod.
    pub pod_name: Box<str>,
    /// `metadata.namespace` of the pod.
    pub namespace: Box<str>,
    /// `metadata.uid` of the pod.
    pub pod_uid: PodUid,
    /// `spec.nodeName`, once bound.
    pub node_name: Option<Box<str>>,
    /// 1, 2, ... per pod.
    pub sequence: u32,
    /// The span that the pod names as its execution's parent.
    pub parent: Option<TraceParent>,
    /// What controls the pod, where its ownerReferences say so.
    pub owner: Option<Box<Owner>>,
    /// How another pod of the same execution had ended before this one was created.
    pub earlier_end: Option<Box<EarlierEnd>>,
    /// What happened.
    pub body: Body,
}

/// What controls a pod: the ownerReference with `controller: true`, for instance its Job.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Owner {
    /// Kind of the owner, for instance `Job`.
    #[schemars(length(min = 1))]
    pub kind: Box<str>,
    /// `metadata.name` of the owner.
    #[schemars(length(min = 1))]
    pub name: Box<str>,
    /// `metadata.uid` of the owner.
    #[schemars(length(min = 1))]
    pub uid: Box<str>,
}

impl Owner {
    /// The controller of a pod.
    pub fn of(metadata: &Metadata) -> Option<Self> {
        let owner = metadata.controller()?;
        let [kind, name, uid] = [&owner.kind, &owner.name, &owner.uid].map(|text| text.as_str().into());
        Some(Self { kind, name, uid })
    }

    /// Whether it is a Job of Kubernetes' own.
    pub fn is_job(&self) -> bool {
        &*self.kind == "Job"
    }
}

/// The end of an earlier pod of the same execution.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct EarlierEnd {
    /// `metadata.uid` of that pod.
    #[schemars(with = "String", length(min = 1))]
    pub pod_uid: PodUid,
    /// How it ended: the type of its end event.
    #[schemars(with = "String", extend("enum" = ["execution_completed", "execution_failed", "execution_timeout"]))]
    pub event_type: EventType,
    /// When it ended: the timestamp of its end event.
    pub timestamp: Timestamp,
}

/// What happened, with the fields that only this kind of event has.
#[derive(Debug, Clone, PartialEq)]
pub enum Body {
    /// The pod is bound to a node.
    Scheduled,
    /// Its container runs, or ran.
    Running {
        /// All ordinary containers at that moment.
        container_statuses: Vec<ContainerSummary>,
    },
    /// It does not get on: not an end, but somebody may want to look.
    Stalled {
        /// Why.
        cause: Cause,
        /// What Kubernetes says of it, for people; bounded to [`MESSAGE_CHARS_MAX`].
        message: Option<Box<str>>,
        /// Since when, by the clocks of the cluster.
        since: Timestamp,
    },
    /// A stall is over: the execution gets on again.
    Resumed {
        /// Why it had stalled.
        cause: Cause,
        /// `since` of that stall.
        stalled_since: Timestamp,
    },
    /// The execution is over: completed, failed or timed out.
    Ended(Box<Ended>),
    /// The Pod object is gone.
    Terminated {
        /// Of the execution, 0 where it completed; `None` if unknown.
        exit_code: Option<i32>,
        /// The pod's last `status.reason`, or the cause of its end.
        reason: Option<Box<str>>,
        /// For people.
        message: Option<Box<str>>,
        /// False: nobody saw it go, its absence was found by a LIST.
        observed: bool,
    },
}

/// The names of events that consumers see in `event_type`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EventType {
    /// `pod_scheduled`
    PodScheduled,
    /// `execution_running`
    ExecutionRunning,
    /// `execution_stalled`
    ExecutionStalled,
    /// `execution_resumed`
    ExecutionResumed,
    /// `execution_completed`
    ExecutionCompleted,
    /// `execution_failed`
    ExecutionFailed,
    /// `execution_timeout`
    ExecutionTimeout,
    /// `pod_terminated`
    PodTerminated,
}

impl EventType {
    /// Every event type, in the order of a pod's life (stalls may come at any time before its going).
    pub const ALL: [Self; 8] = [
        Self::PodScheduled,
        Self::ExecutionRunning,
        Self::ExecutionStalled,
        Self::ExecutionResumed,
        Self::ExecutionCompleted,
        Self::ExecutionFailed,
        Self::ExecutionTimeout,
        Self::PodTerminated,
    ];

    /// The name on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::PodScheduled => "pod_scheduled",
            Self::ExecutionRunning => "execution_running",
            Self::ExecutionStalled => "execution_stalled",
            Self::ExecutionResumed => "execution_resumed",
            Self::ExecutionCompleted => "execution_completed",
            Self::ExecutionFailed => "execution_failed",
            Self::ExecutionTimeout => "execution_timeout",
            Self::PodTerminated => "pod_terminated",
        }
    }
}

impl fmt::Display for EventType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl Body {
    /// The event type that this body makes.
    pub fn event_type(&self) -> EventType {
        match self {
            Self::Scheduled => EventType::PodScheduled,
            Self::Running { .. } => EventType::ExecutionRunning,
            Self::Stalled { .. } => EventType::ExecutionStalled,
            Self::Resumed { .. } => EventType::ExecutionResumed,
            Self::Ended(ended) => ended.verdict.outcome.event_type(),
            Self::Terminated { .. } => EventType::PodTerminated,
        }
    }

    /// Why the execution did not complete, where this says so.
    pub fn cause(&self) -> Option<Cause> {
        match self {
            Self::Ended(ended) => ended.verdict.failure.as_ref().map(|failure| failure.cause),
            // A stall is no end: it may yet complete.
            Self::Scheduled
            | Self::Running { .. }
            | Self::Stalled { .. }
            | Self::Resumed { .. }
            | Self::Terminated { .. } => None,
        }
    }
}

/// One container in `execution_running`.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub struct ContainerSummary {
    /// Container name.
    #[schemars(length(min = 1))]
    pub name: Box<str>,
    /// Passed its readiness probe.
    pub ready: bool,
    /// How often the kubelet restarted it.
    pub restart_count: u32,
    /// `waiting`, `running` or `terminated`.
    #[schemars(extend("enum" = ["waiting", "running", "terminated"]))]
    pub state: &'static str,
}

/// An end: the verdict, and what the container printed.
#[derive(Debug, Clone, PartialEq)]
pub struct Ended {
    /// How it ended and why.
    pub verdict: Verdict,
    /// What was captured of its output.
    pub captured: Captured,
}

/// How an execution ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// Exit code 0.
    Completed,
    /// Any other end.
    Failed,
    /// A deadline ended it.
    TimedOut,
}

impl Outcome {
    /// The event that tells it.
    pub fn event_type(self) -> EventType {
        match self {
            Self::Completed => EventType::ExecutionCompleted,
            Self::Failed => EventType::ExecutionFailed,
            Self::TimedOut => EventType::ExecutionTimeout,
        }
    }
}

/// Coarse, stable class of a failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ErrorType {
    /// The user's program.
    ScriptError,
    /// A limit that the pod was given.
    ResourceLimit,
    /// A deadline.
    Timeout,
    /// The platform.
    SystemError,
}

/// Fine cause of a failure; grows with time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Cause {
    /// The program ended with an exit code other than 0.
    ExitCode,
    /// The program died of a signal of its own making (SIGSEGV, SIGABRT, ...).
    Signal,
    /// SIGKILL or SIGTERM from outside, nobody says whose.
    Killed,
    /// The container exceeded its memory limit.
    OomKilled,
    /// The kubelet evicted the pod.
    Evicted,
    /// Preemption, drain, taint, node shutdown.
    Disrupted,
    /// `activeDeadlineSeconds` passed.
    Deadline,
    /// The image could not be had.
    Image,
    /// The container could not be created or started as configured.
    Config,
    /// An init container failed.
    Init,
    /// The node refused the pod.
    Admission,
    /// No node fitted.
    Unschedulable,
    /// Held back by its scheduling gates.
    Gated,
    /// Its node prepared it and got no further.
    Starting,
    /// Its deletion was due, and it is still there.
    Terminating,
    /// The node went away.
    NodeLost,
    /// Somebody deleted the pod.
    Deleted,
    /// The pod vanished and nobody saw its end.
    Lost,
    /// Nothing says why.
    Unknown,
}

impl Cause {
    /// Every cause.
    pub const ALL: [Self; 19] = [
        Self::ExitCode,
        Self::Signal,
        Self::Killed,
        Self::OomKilled,
        Self::Evicted,
        Self::Disrupted,
        Self::Deadline,
        Self::Image,
        Self::Config,
        Self::Init,
        Self::Admission,
        Self::Unschedulable,
        Self::Gated,
        Self::Starting,
        Self::Terminating,
        Self::NodeLost,
        Self::Deleted,
        Self::Lost,
        Self::Unknown,
    ];

    /// The name on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::ExitCode => "exit_code",
            Self::Signal => "signal",
            Self::Killed => "killed",
            Self::OomKilled => "oom_killed",
            Self::Evicted => "evicted",
            Self::Disrupted => "disrupted",
            Self::Deadline => "deadline",
            Self::Image => "image",
            Self::Config => "config",
            Self::Init => "init",
            Self::Admission => "admission",
            Self::Unschedulable => "unschedulable",
            Self::Gated => "gated",
            Self::Starting => "starting",
            Self::Terminating => "terminating",
            Self::NodeLost => "node_lost",
            Self::Deleted => "deleted",
            Self::Lost => "lost",
            Self::Unknown => "unknown",
        }
    }
}

/// The failure half of a verdict; absent where the execution completed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Failure {
    /// Coarse class.
    pub error_type: ErrorType,
    /// Fine cause.
    pub cause: Cause,
    /// What Kubernetes said, for people; bounded to [`MESSAGE_CHARS_MAX`].
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "message")]
    pub message: Option<Box<str>>,
    /// What to do about it, for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hint: Option<Box<str>>,
    /// Whether the same execution may succeed when tried again.
    pub retryable: bool,
    /// Whether the main container ever started.
    pub attempt_started: bool,
    /// `activeDeadlineSeconds`, where a deadline ended it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout_seconds: Option<i64>,
    /// What a rule of the user made of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ruled: Option<Box<Ruled>>,
}

impl Failure {
    /// The cause as consumers see it: a rule's own name for it, else the known one.
    pub fn cause_name(&self) -> &str {
        self.ruled.as_ref().and_then(|ruled| ruled.cause.as_deref()).unwrap_or_else(|| self.cause.as_str())
    }
}

/// What a rule of the user said of a failure.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ruled {
    /// The rule's name.
    pub rule: Box<str>,
    /// A name of the user's own for the cause, told instead of the known one: `^[a-z][a-z0-9_]{0,62}$`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cause: Option<Box<str>>,
    /// What the user files such failures under.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub category: Option<Box<str>>,
}

/// Longest `message` that is told, in characters.
pub const MESSAGE_CHARS_MAX: usize = 1024;

/// A message as it is remembered. Earlier releases wrote empty ones, which no event may have.
pub(super) fn message<'de, D: serde::Deserializer<'de>>(d: D) -> Result<Option<Box<str>>, D::Error> {
    let text = Option::<std::borrow::Cow<'de, str>>::deserialize(d)?;
    Ok(text.filter(|text| !text.is_empty()).map(|text| bounded(&text)))
}

/// A message as it is told: cut to [`MESSAGE_CHARS_MAX`].
pub fn bounded(message: &str) -> Box<str> {
    message.chars().take(MESSAGE_CHARS_MAX).collect()
}

/// What was decided about an end, before its output is captured. Goes into the changelog first, so that whoever
/// finishes the job tells the same verdict.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Verdict {
    /// How it ended.
    pub outcome: Outcome,
    /// Of the main container; absent where no process exited.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exit_code: Option<i32>,
    /// Why, where it did not complete.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure: Option<Failure>,
    /// When the main container started.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub started_at: Option<Timestamp>,
    /// When the main container finished.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub finished_at: Option<Timestamp>,
    /// When the end happened: the event's `timestamp`.
    pub at: Timestamp,
    /// All ordinary and init containers that ended.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub containers: Vec<ContainerEnd>,
    /// The main container's name.
    pub container: Box<str>,
    /// The main container's restart count at its end.
    #[serde(default)]
    pub restart_count: u32,
    /// The init container that failed, and how often it was restarted: its output says why, the main one never ran.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failed_init: Option<(Box<str>, u32)>,
    /// The main container's termination message: where framed reports put their numbers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub termination_message: Option<Box<str>>,
}

/// How one container ended.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ContainerEnd {
    /// Container name.
    #[schemars(length(min = 1))]
    pub name: Box<str>,
    /// Absent where no process exited.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exit_code: Option<i32>,
    /// The kubelet's reason.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<Box<str>>,
    /// How often the kubelet restarted it.
    pub restart_count: u32,
}
