//! What it printed: capture of a container's output when an execution ended.

mod attempt;
pub mod capture;
pub mod follow;
pub mod limits;
mod nodes;
mod read;
pub mod reason;
pub mod report;
pub mod streams;

use std::time::Duration;

use crate::watch::pod::PodUid;

/// Whose output to capture. Everything the capture needs comes from the verdict, so that a restarted monitor can
/// repeat it without the pod.
#[derive(Debug, Clone, PartialEq)]
pub struct Target {
    /// Identity; the log API knows only names, so the capture checks afterwards that the name was still this pod.
    pub uid: PodUid,
    /// Namespace.
    pub namespace: Box<str>,
    /// Pod name.
    pub pod_name: Box<str>,
    /// Node, for the limit per node.
    pub node_name: Option<Box<str>>,
    /// The main container.
    pub container: Box<str>,
    /// Which attempt: how often the container had been restarted when it ended.
    pub restart_count: u32,
    /// What the container wrote to its termination log.
    pub termination_message: Option<Box<str>>,
}

/// What pods print (`--report`).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Report {
    /// Framed if it looks framed, else the last JSON report line, else raw.
    #[default]
    Auto,
    /// JSON report line.
    Json,
    /// Length-framed streams.
    Framed,
    /// Everything is output.
    Raw,
}

/// Bounds of captures.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Limits {
    /// Kept per stream, in bytes of UTF-8 (`--log-bytes-max`).
    pub log_bytes_max: usize,
    /// Both streams together, in bytes as JSON strings, so that the record stays below what the broker takes.
    pub encoded_bytes_max: usize,
    /// From the start of the capture (including the wait for a permit) to its end (`--capture-deadline`).
    pub capture_deadline: Duration,
    /// Captures at the same time.
    pub captures_max: usize,
    /// Captures at the same time from one node, so that one hung kubelet delays only its own pods.
    pub captures_per_node_max: usize,
}

#[cfg(test)]
mod tests {
    use super::reason;

    #[test]
    fn every_reason_is_explained_to_users() {
        let page = include_str!("../../docs/logs.md");
        for reason in reason::ALL {
            assert!(page.contains(&format!("| `{reason}` |")), "docs/logs.md does not explain {reason}");
        }
    }
}
