//! What each word of Kubernetes means: reasons of waiting, of a kubelet's refusal, of pods, of disruptions.

use crate::{
    lifecycle::{
        container::{self, never_ran},
        event::Cause,
    },
    watch::pod::{Condition, ContainerStatus, Pod},
};

/// How long a reason of waiting may stand before it means that the pod is stuck.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Patience {
    /// It never gets better by itself.
    AtOnce,
    /// It may get better: an image may be pushed, a ConfigMap made.
    Normal,
    /// It gets better by itself: others are served first.
    Transient,
}

/// What a container's `state.waiting` means; `None` where nothing is wrong, only not yet done.
pub fn waiting(reason: &str, message: Option<&str>) -> Option<(Cause, Patience)> {
    let cause = match reason {
        "" | "ContainerCreating" | "PodInitializing" | "RestartingAllContainers" => return None,
        "ErrImagePull"
        | "ImagePullBackOff"
        | "ErrImageNeverPull"
        | "InvalidImageName"
        | "ImageInspectError"
        | "RegistryUnavailable"
        | "SignatureValidationFailed" => Cause::Image,
        "CreateContainerConfigError"
        | "CreateContainerError"
        | "RunContainerError"
        | "PreCreateHookError"
        | "PreStartHookError"
        | "PostStartHookError"
        | "KillContainerError"
        | "CreatePodSandboxError"
        | "ConfigPodSandboxError"
        | "VerifyNonRootError" => Cause::Config,
        // It ran and failed; why is in lastState.
        "CrashLoopBackOff" => Cause::ExitCode,
        _ => Cause::Unknown,
    };
    let busy = |m: &str| m.contains("429 Too Many Requests") || m.contains("pull QPS exceeded");
    let patience = match reason {
        "InvalidImageName" => Patience::AtOnce,
        "RegistryUnavailable" => Patience::Transient,
        _ if message.is_some_and(busy) => Patience::Transient,
        _ => Patience::Normal,
    };
    Some((cause, patience))
}

/// Why a pod does not get on, where its status says so: remembered, in case it vanishes before it starts.
pub fn waiting_cause(pod: &Pod) -> Option<Cause> {
    let inits = pod.status.init_container_statuses.iter().filter_map(|c| init_waiting(pod, c));
    let ordinary = pod.status.container_statuses.iter().filter_map(container_waiting);
    inits.chain(ordinary).next().or_else(|| {
        // A gate is no lack of nodes: somebody holds the pod back on purpose.
        let stuck = |c: &&Condition| {
            &*c.kind == "PodScheduled" && &*c.status == "False" && c.reason.as_deref() != Some("SchedulingGated")
        };
        pod.status.conditions.iter().find(stuck)?;
        Some(Cause::Unschedulable)
    })
}

fn container_waiting(c: &ContainerStatus) -> Option<Cause> {
    let state = c.state.waiting.as_ref()?;
    match waiting(state.reason.as_deref()?, state.message.as_deref())?.0 {
        // It would start again if it could start at all.
        Cause::ExitCode => c.last_state.terminated.as_ref().filter(|t| never_ran(t)).map(|_| Cause::Config),
        Cause::Unknown => None,
        cause => Some(cause),
    }
}

fn init_waiting(pod: &Pod, c: &ContainerStatus) -> Option<Cause> {
    let failed = |t: &&_| container::failed(t) && !never_ran(t);
    let again = c.last_state.terminated.as_ref().filter(failed).is_some();
    let cause = container_waiting(c);
    // A sidecar that has started holds nothing back, however often it restarts.
    cause.or_else(|| (again && !c.started && !container::is_sidecar(pod, &c.name)).then_some(Cause::Init))
}

/// Reasons with which a kubelet refuses a pod (pkg/kubelet/lifecycle/predicate.go).
pub(super) fn admission(reason: &str) -> bool {
    reason.starts_with("OutOf")
        || matches!(
            reason,
            "NodeAffinity"
                | "UnexpectedAdmissionError"
                | "InvalidNodeInfo"
                | "PodOSNotSupported"
                | "PodOSSelectorNodeLabelDoesNotMatch"
                | "PodFeatureUnsupported"
                | "InitContainerRestartPolicyForbidden"
                | "SupplementalGroupsPolicyNotSupported"
                | "UnknownReason"
                | "UnexpectedPredicateFailureType"
                // A virtual kubelet whose provider could not make the pod.
                | "ProviderFailed"
        )
}

/// What ended a pod that was in the way: said before Kubernetes' own words, with what to do about it.
pub(super) struct Disruption {
    pub(super) said: &'static str,
    pub(super) hint: Option<&'static str>,
}

/// What a reason of the condition DisruptionTarget means; `pod_reason` tells a kubelet's doings apart.
pub(super) fn disruption(reason: &str, pod_reason: Option<&str>) -> Disruption {
    let (said, hint) = match (reason, pod_reason) {
        ("PreemptionByScheduler", _) => {
            ("preempted by a pod of higher priority", Some("give the pod a higher priority, or the cluster more room"))
        }
        ("DeletionByTaintManager", _) => {
            ("its node got a taint that it does not tolerate", Some("look at the node: it may be lost or drained"))
        }
        ("EvictionByEvictionAPI", _) => {
            ("evicted through the API, as a drain does", Some("protect it from drains by a PodDisruptionBudget"))
        }
        ("DeletionByPodGC", _) => ("its node is gone", None),
        ("TerminationByKubelet", Some("Preempting")) => ("preempted by its kubelet for a critical pod", None),
        ("TerminationByKubelet", Some("Terminated" | "NodeShutdown" | "Shutdown")) => ("its node shut down", None),
        ("TerminationByKubelet", _) => ("ended by its kubelet", None),
        _ => ("disrupted", None),
    };
    Disruption { said, hint }
}

/// Reasons of a pod by which a kubelet says that it was in the way.
pub(super) fn disrupted(reason: &str) -> Option<Disruption> {
    matches!(reason, "Preempting" | "Terminated" | "NodeShutdown" | "Shutdown")
        .then(|| disruption("TerminationByKubelet", Some(reason)))
}
