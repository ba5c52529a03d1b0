//! Which container is the execution, and how far it is.

use jiff::Timestamp;

use super::{
    event::{ContainerEnd, ContainerSummary},
    rules::Rules,
};
use crate::watch::pod::{ContainerState, ContainerStatus, Pod, Terminated};

const DEFAULT_CONTAINER: &str = "kubectl.kubernetes.io/default-container";

/// The container whose end is the execution's end.
#[derive(Debug, Clone, Copy)]
pub struct Main<'a> {
    /// Its name; empty where the pod names no container at all.
    pub name: &'a str,
    /// Its status, once the kubelet has written one.
    pub status: Option<&'a ContainerStatus>,
}

/// Chooses the main container: the configured name, else the annotation that kubectl uses, else the first one. A name
/// that the pod does not have is passed over.
pub fn main_container<'a>(pod: &'a Pod, rules: &'a Rules) -> Main<'a> {
    let has = |name: &&str| pod.spec.containers.iter().any(|c| &*c.name == *name);
    let annotated = pod.metadata.annotations.get(DEFAULT_CONTAINER).map(|n| &**n);
    let first = || pod.spec.containers.first().map(|c| &*c.name);
    let from_status = || pod.status.container_statuses.first().map(|c| &*c.name);
    let name = rules.container.as_deref().filter(has).or(annotated.filter(has)).or_else(first).or_else(from_status);
    let name = name.unwrap_or_default();
    Main { name, status: pod.status.container_statuses.iter().find(|c| *c.name == *name) }
}

impl<'a> Main<'a> {
    /// Its present end, if it is not running, waiting or restarting.
    pub fn ended(&self) -> Option<&'a Terminated> {
        self.status?.state.terminated.as_ref().filter(|t| !restarting(t))
    }

    /// Its present end, else that of the attempt before: what is known when the pod's phase is final.
    pub fn last_ended(&self) -> Option<&'a Terminated> {
        self.ended().or_else(|| self.status?.last_state.terminated.as_ref())
    }

    /// When its first known attempt started: that it ran is told once, by this time.
    pub fn started_at(&self) -> Option<Timestamp> {
        let status = self.status?;
        started(&status.last_state).or_else(|| started(&status.state))
    }

    /// How often the kubelet restarted it.
    pub fn restart_count(&self) -> u32 {
        self.status.map_or(0, |s| s.restart_count)
    }
}

fn started(state: &ContainerState) -> Option<Timestamp> {
    let ran = state.running.as_ref().and_then(|r| r.started_at);
    ran.or_else(|| state.terminated.as_ref().filter(|t| process_exited(t))?.started_at)
}

/// `RestartAllContainers` ends containers that are about to start again.
fn restarting(t: &Terminated) -> bool {
    t.reason.as_deref() == Some("RestartingAllContainers")
}

/// Whether a process ran and exited: no exit code may be told of one that never started or that nobody found.
pub fn process_exited(t: &Terminated) -> bool {
    !never_ran(t) && t.reason.as_deref() != Some("ContainerStatusUnknown")
}

/// Whether no process was ever started, whatever times the status gives.
pub fn never_ran(t: &Terminated) -> bool {
    matches!(t.reason.as_deref(), Some("StartError" | "ContainerCannotRun" | "CreateContainerError"))
}

/// The ordinary containers, for `execution_running`.
pub fn summaries(pod: &Pod) -> Vec<ContainerSummary> {
    let state = |s: &ContainerState| match s {
        ContainerState { terminated: Some(_), .. } => "terminated",
        ContainerState { running: Some(_), .. } => "running",
        _ => "waiting",
    };
    let summary = |c: &ContainerStatus| ContainerSummary {
        name: c.name.clone(),
        ready: c.ready,
        restart_count: c.restart_count,
        state: state(&c.state),
    };
    pod.status.container_statuses.iter().map(summary).collect()
}

/// Every container that ended, init containers first.
pub fn ends(pod: &Pod) -> Vec<ContainerEnd> {
    let all = pod.status.init_container_statuses.iter().chain(&pod.status.container_statuses);
    let end = |c: &ContainerStatus| {
        let t = c.state.terminated.as_ref()?;
        Some(ContainerEnd {
            name: c.name.clone(),
            exit_code: process_exited(t).then_some(t.exit_code),
            reason: t.reason.clone(),
            restart_count: c.restart_count,
        })
    };
    all.filter_map(end).collect()
}

/// Whether this is a native sidecar: an init container that runs on beside the main one.
pub fn is_sidecar(pod: &Pod, name: &str) -> bool {
    pod.spec.init_containers.iter().any(|c| &*c.name == name && c.restart_policy.as_deref() == Some("Always"))
}

/// The first init container that failed for good; native sidecars do not count.
pub fn failed_init(pod: &Pod) -> Option<(&ContainerStatus, &Terminated)> {
    let failed = |c: &'_ &ContainerStatus| !is_sidecar(pod, &c.name);
    let mut inits = pod.status.init_container_statuses.iter().filter(failed);
    inits.find_map(|c| Some((c, c.state.terminated.as_ref().filter(|t| t.exit_code != 0)?)))
}
