//! What an end tells besides its verdict: the output and the numbers that were captured, and what Kubernetes reported.

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::cause::OwnerSays;

/// What was captured of a container's output. A field without a value is absent, never invented.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Captured {
    /// Standard output (everything, where streams cannot be told apart).
    pub stdout: Option<String>,
    /// Standard error.
    pub stderr: Option<String>,
    /// Numbers that the executor reported.
    pub resource_usage: Option<ResourceUsage>,
    /// The exit code that the output claims; the kubelet's wins.
    pub claimed_exit_code: Option<i64>,
    /// How complete all this is.
    pub logs: Logs,
    /// The last Kubernetes Events about the pod, oldest first; at most [`KUBERNETES_EVENTS_MAX`].
    pub kubernetes_events: Vec<KubernetesEvent>,
    /// What the pod's owner says of its end. Not told by itself: the verdict takes it up.
    pub owner_says: Option<OwnerSays>,
}

impl Captured {
    /// No output, and why: a word of [`crate::logs::reason`].
    pub fn unavailable(reason: &str) -> Self {
        let logs = Logs { status: LogsStatus::Unavailable, reason: Some(reason.into()), ..Logs::default() };
        Self { logs, ..Self::default() }
    }
}

/// Most Kubernetes Events that an end tells.
pub const KUBERNETES_EVENTS_MAX: usize = 10;

/// Longest message of one of them, in characters: all of them must fit beside the captured output.
pub const KUBERNETES_EVENT_MESSAGE_CHARS_MAX: usize = 256;

/// One Kubernetes Event about the pod.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub struct KubernetesEvent {
    /// `Normal` or `Warning`.
    #[serde(rename = "type")]
    #[schemars(length(min = 1))]
    pub kind: Box<str>,
    /// The reporting component's word for it, for instance `BackOff`.
    pub reason: Box<str>,
    /// For people, bounded.
    #[schemars(length(min = 1, max = KUBERNETES_EVENT_MESSAGE_CHARS_MAX))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub message: Option<Box<str>>,
    /// How often it happened.
    pub count: u32,
    /// When it happened last.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_seen: Option<Timestamp>,
}

/// `logs` of an end event.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Logs {
    /// How complete the streams are.
    pub status: LogsStatus,
    /// Whose output it is, where it is not the main container's: the init container that failed.
    #[schemars(length(min = 1))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub container: Option<Box<str>>,
    /// Why they are not complete: a short stable word.
    #[schemars(length(min = 1))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<Box<str>>,
    /// Size of standard output before any cut, in bytes; absent if unknown.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stdout_bytes: Option<u64>,
    /// Size of standard error before any cut, in bytes; absent if unknown.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stderr_bytes: Option<u64>,
}

/// How complete captured logs are.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum LogsStatus {
    /// All of it.
    Complete,
    /// Head and tail, the middle was cut to fit.
    Truncated,
    /// The beginning only: the source went away or the deadline passed.
    Partial,
    /// Nothing could be had.
    #[default]
    Unavailable,
}

/// `resource_usage`: only where an executor reported it; each number by itself may be absent.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ResourceUsage {
    /// Wall-clock time of the execution, in seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub execution_time_wall_seconds: Option<f64>,
    /// CPU time, in clock ticks.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpu_time_jiffies: Option<u64>,
    /// Clock ticks per second.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub clk_tck_hertz: Option<u64>,
    /// Peak resident memory, in kilobytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub peak_memory_kb: Option<u64>,
}
