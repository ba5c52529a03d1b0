//! Which container is the execution, and how far it is.

use jiff::Timestamp;

use super::{
    event::{ContainerEnd, ContainerSummary},
    rules::Rules,
};
use crate::logs::limits::encoded_len;
use crate::watch::pod::{Condition, Container, ContainerState, ContainerStatus, Pod, RestartRule, Terminated};

const DEFAULT_CONTAINER: &str = "kubectl.kubernetes.io/default-container";

/// Room for all containers of a pod in one event and in its changelog record, in bytes of JSON: some two hundred.
pub const CONTAINERS_BYTES_MAX: usize = 16 << 10;
/// What one takes besides its texts: names of fields and numbers.
const CONTAINER_REST_BYTES: usize = 80;

/// The container whose end is the execution's end.
#[derive(Debug, Clone, Copy)]
pub struct Main<'a> {
    /// Its name; empty where the pod names no container at all.
    pub name: &'a str,
    /// Its status, once the kubelet has written one.
    pub status: Option<&'a ContainerStatus>,
    /// Since when the pod is known at all: when a start happened that left no time.
    known_since: Option<Timestamp>,
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
    let status = pod.status.container_statuses.iter().find(|c| *c.name == *name);
    Main { name, status, known_since: pod.status.start_time.or(pod.metadata.creation_timestamp) }
}

impl<'a> Main<'a> {
    /// Whether its kubelet says that it runs.
    pub fn runs(&self) -> bool {
        self.status.is_some_and(|status| status.state.running.is_some())
    }

    /// Its present end, if it is not running, waiting or restarting.
    pub fn ended(&self) -> Option<&'a Terminated> {
        self.status?.state.terminated.as_ref().filter(|t| !restarting(t))
    }

    /// Its newest end, be it of the attempt before: what is known when the pod's phase is final.
    pub fn last_ended(&self) -> Option<&'a Terminated> {
        let status = self.status?;
        let before = status.last_state.terminated.as_ref().filter(|t| !restarting(t));
        match self.ended() {
            // A container that could not be found, and never ran but once: its true end may have been seen before.
            Some(t) if !process_exited(t) && !never_ran(t) && status.restart_count == 0 => {
                before.filter(|t| process_exited(t)).or(Some(t))
            }
            Some(t) => Some(before.filter(|b| b.finished_at > t.finished_at && t.finished_at.is_some()).unwrap_or(t)),
            // The attempt that still runs has no end; that of another one is not its end.
            None if self.runs() => None,
            None => before,
        }
    }

    /// When its first known attempt started, where its status says so.
    pub fn started_at(&self) -> Option<Timestamp> {
        let status = self.status?;
        started(&status.last_state).or_else(|| started(&status.state))
    }

    /// Since when it is known to have run: that is told once, by this time. Statuses may lack any time.
    pub fn told_running(&self) -> Option<Timestamp> {
        let status = self.status?;
        let ran = |s: &ContainerState| s.running.is_some() || s.terminated.as_ref().is_some_and(process_exited);
        let finished = |s: &ContainerState| s.terminated.as_ref()?.finished_at;
        self.started_at().or_else(|| {
            let state = [&status.last_state, &status.state].into_iter().find(|s| ran(s))?;
            finished(state).or(self.known_since)
        })
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

/// Whether the kubelet starts a container again after this end, as far as the pod's own policies say: the container's
/// rules first, then its policy, then the pod's. The rules of other containers may restart them all.
pub fn will_restart(pod: &Pod, main: Main<'_>, t: &Terminated) -> bool {
    let container = pod.spec.containers.iter().find(|c| *c.name == *main.name);
    if container.is_some_and(|c| c.restart_policy_rules.iter().any(|rule| speaks_of(rule, t.exit_code))) {
        return true;
    }
    let policy = container.and_then(|c| c.restart_policy.as_deref()).or(pod.spec.restart_policy.as_deref());
    let own = match policy {
        Some("Never") => false,
        Some("OnFailure") => t.exit_code != 0,
        _ => true,
    };
    own || all_restart(pod, main.name)
}

fn speaks_of(rule: &RestartRule, exit_code: i32) -> bool {
    match &*rule.exit_codes.operator {
        "In" => rule.exit_codes.values.contains(&exit_code),
        "NotIn" => !rule.exit_codes.values.contains(&exit_code),
        _ => false,
    }
}

/// Whether all containers are restarting, or a rule of another container that still runs may make them.
fn all_restart(pod: &Pod, main: &str) -> bool {
    let restarting = |c: &Condition| &*c.kind == "AllContainersRestarting" && &*c.status == "True";
    let may = |c: &&Container| c.restart_policy_rules.iter().any(|rule| &*rule.action == "RestartAllContainers");
    let over = |c: &Container| {
        let status = pod.status.container_statuses.iter().chain(&pod.status.init_container_statuses);
        let mut ended = status.filter(|s| s.name == c.name).filter_map(|s| s.state.terminated.as_ref());
        // Over for good, unless its own end is one that a rule speaks of.
        ended.any(|t| !c.restart_policy_rules.iter().any(|rule| speaks_of(rule, t.exit_code)))
    };
    let others = pod.spec.containers.iter().chain(&pod.spec.init_containers).filter(|c| *c.name != *main);
    pod.status.conditions.iter().any(restarting) || others.filter(may).any(|c| !over(c))
}

/// Whether a process ran and exited: no exit code may be told of one that never started or that nobody found.
pub fn process_exited(t: &Terminated) -> bool {
    !never_ran(t) && t.reason.as_deref() != Some("ContainerStatusUnknown")
}

/// Whether no process was ever started, whatever times the status gives.
pub fn never_ran(t: &Terminated) -> bool {
    matches!(t.reason.as_deref(), Some("StartError" | "ContainerCannotRun" | "CreateContainerError"))
}

/// The ordinary containers, for `execution_running`, as far as there is room.
pub fn summaries(pod: &Pod) -> Vec<ContainerSummary> {
    let state = |s: &ContainerState| match s {
        ContainerState { terminated: Some(_), .. } => "terminated",
        ContainerState { running: Some(_), .. } => "running",
        _ => "waiting",
    };
    let summary = |c: &ContainerStatus| ContainerSummary {
        name: c.name.as_str().into(),
        ready: c.ready,
        restart_count: c.restart_count,
        state: state(&c.state),
    };
    within(pod.status.container_statuses.iter().map(summary), |told| encoded_len(&told.name))
}

/// As many as fit. Nobody has more containers than that; who does would hold up everybody's events.
fn within<T>(all: impl Iterator<Item = T>, text_bytes: impl Fn(&T) -> usize) -> Vec<T> {
    let mut left = CONTAINERS_BYTES_MAX;
    let mut fits =
        |told: &T| left.checked_sub(text_bytes(told) + CONTAINER_REST_BYTES).inspect(|rest| left = *rest).is_some();
    all.take_while(|told| fits(told)).collect()
}

/// Every container that ended, init containers first, as far as there is room.
pub fn ends(pod: &Pod) -> Vec<ContainerEnd> {
    let all = pod.status.init_container_statuses.iter().chain(&pod.status.container_statuses);
    let end = |c: &ContainerStatus| {
        let t = c.state.terminated.as_ref()?;
        Some(ContainerEnd {
            name: c.name.as_str().into(),
            exit_code: process_exited(t).then_some(t.exit_code),
            reason: t.reason.as_deref().map(Into::into),
            restart_count: c.restart_count,
        })
    };
    let text_bytes = |told: &ContainerEnd| encoded_len(&told.name) + told.reason.as_deref().map_or(0, encoded_len);
    within(all.filter_map(end), text_bytes)
}

/// Whether a container's end is a failure.
pub fn failed(t: &Terminated) -> bool {
    t.exit_code != 0 && !restarting(t)
}

/// A native sidecar: an init container that runs beside the ordinary ones, and never decides how an execution ended.
pub fn is_sidecar(pod: &Pod, name: &str) -> bool {
    pod.spec.init_containers.iter().any(|c| &*c.name == name && c.restart_policy.as_deref() == Some("Always"))
}

/// The init container that failed for good; of native sidecars, one that could not be started.
pub fn failed_init(pod: &Pod) -> Option<(&ContainerStatus, &Terminated)> {
    let ended = |c| Some((c, ended_or_before(c).filter(|t| failed(t))?));
    let mut inits = pod.status.init_container_statuses.iter().filter(|c| !is_sidecar(pod, &c.name)).filter_map(ended);
    let mut sidecars = pod.status.init_container_statuses.iter().filter(|c| is_sidecar(pod, &c.name)).filter_map(ended);
    inits.next().or_else(|| sidecars.find(|(_, t)| never_ran(t)))
}

fn ended_or_before(c: &ContainerStatus) -> Option<&Terminated> {
    c.state.terminated.as_ref().or_else(|| c.last_state.terminated.as_ref().filter(|_| c.state.waiting.is_some()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::watch::pod::Waiting;

    #[test]
    fn of_more_containers_than_there_is_room_for_the_first_are_told() {
        let ended = Terminated { exit_code: 3, reason: Some("Error".into()), ..Terminated::default() };
        let state = ContainerState { terminated: Some(ended), waiting: None::<Waiting>, running: None };
        let status = |n| ContainerStatus { name: format!("c-{n}").into(), state: state.clone(), ..Default::default() };
        let mut pod = Pod::default();
        pod.status.container_statuses = (0..50).map(status).collect();
        assert_eq!((ends(&pod).len(), summaries(&pod).len()), (50, 50), "more than anybody has");
        pod.status.container_statuses = (0..100_000).map(status).collect();
        for bytes in [serde_json::to_vec(&ends(&pod)), serde_json::to_vec(&summaries(&pod))] {
            let bytes = bytes.expect("they can be written").len();
            assert!((CONTAINERS_BYTES_MAX / 2..=CONTAINERS_BYTES_MAX).contains(&bytes), "{bytes}");
        }
        assert_eq!(&*ends(&pod)[0].name, "c-0");
    }
}
