//! What is done in a case, as data.

use serde_json::{Value, json};

use super::story::Story;
use crate::clients::cluster::execution;

/// A life of a pod, or of a few, that a real cluster can play.
#[derive(Debug, Clone)]
pub struct Case {
    /// Names the recording; also the namespace, with a prefix.
    pub name: &'static str,
    /// What the pod does and what is done to it.
    pub does: &'static str,
    /// What the stack must have.
    pub needs: Needs,
    /// In this order. Afterwards everything of the case is deleted, and the recording ends with the last pod's going.
    pub steps: Vec<Step>,
    /// What is to be told, one story per pod, in the order in which the pods came to be.
    pub stories: Vec<Story>,
}

/// What a case needs of the stack.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Needs {
    /// The usual node.
    OneNode,
    /// A second node that the case may disturb: such cases take turns.
    SecondNode,
    /// A second node that the case destroys: the last case of all.
    DoomedNode,
}

/// One thing that is done, or waited for.
#[derive(Debug, Clone)]
pub enum Step {
    /// Makes an object; of any kind.
    Make(Value),
    /// Waits until a pod whose name begins so was seen with one of these values there: `status.phase`,
    /// `status.conditions.*.reason`.
    Until {
        /// How its name begins.
        pod: &'static str,
        /// Where, with `*` for any item of a list.
        path: &'static str,
        /// One of these; none: any value that is not null.
        one_of: Vec<Value>,
    },
    /// Runs kubectl in the namespace of the case, with this on its standard input.
    Kubectl(Vec<&'static str>, Option<Value>),
    /// Freezes the second node's kubelet, or lets it go on.
    Kubelet {
        /// Whether it is to run.
        runs: bool,
    },
    /// Waits until all pods of the case are gone.
    AllGone,
}

impl Case {
    /// A case on the usual node.
    pub fn new(name: &'static str, does: &'static str) -> Self {
        Self { name, does, needs: Needs::OneNode, steps: Vec::new(), stories: Vec::new() }
    }

    /// A case with one pod that runs a shell script, and is not quite like all others.
    pub fn of(name: &'static str, does: &'static str, script: &str, change: impl FnOnce(&mut Value)) -> Self {
        let mut pod = pod(name, script);
        change(&mut pod);
        Self::new(name, does).make(pod)
    }

    /// Needs more than the usual node.
    pub fn needs(mut self, needs: Needs) -> Self {
        self.needs = needs;
        self
    }

    /// Makes an object.
    pub fn make(self, object: Value) -> Self {
        self.step(Step::Make(object))
    }

    /// Waits until a pod of the case was seen in this phase.
    pub fn phase(self, phase: &'static str) -> Self {
        self.until("exec-", "status.phase", &[phase])
    }

    /// Waits until a pod of the case was seen failed, with the end of a container. Where the kubelet itself ends it, at its
    /// deadline or for its limits, one that is slow writes the phase first, and a pod that is deleted then has no end.
    pub fn ended_by_its_node(self) -> Self {
        self.phase("Failed").until("exec-", "status.containerStatuses.*.state.terminated.exitCode", &[])
    }

    /// Waits until a pod whose name begins so was seen with one of these texts there.
    pub fn until(self, pod: &'static str, path: &'static str, one_of: &[&str]) -> Self {
        self.step(Step::Until { pod, path, one_of: one_of.iter().map(|text| json!(text)).collect() })
    }

    /// Waits until the first container waits for this reason.
    pub fn waiting(self, reason: &'static str) -> Self {
        self.until("exec-", "status.containerStatuses.*.state.waiting.reason", &[reason])
    }

    /// Runs kubectl in the namespace of the case.
    pub fn kubectl(self, arguments: &[&'static str]) -> Self {
        self.step(Step::Kubectl(arguments.to_vec(), None))
    }

    /// Does this next.
    pub fn step(mut self, step: Step) -> Self {
        self.steps.push(step);
        self
    }

    /// With another value of the label `app` on its pods.
    pub(super) fn labelled(mut self, app: &str) -> Self {
        for step in &mut self.steps {
            let Step::Make(object) = step else { continue };
            for labels in ["/metadata/labels/app", "/spec/template/metadata/labels/app"] {
                if let Some(label) = object.pointer_mut(labels) {
                    *label = app.into();
                }
            }
        }
        self
    }

    /// One more pod tells this.
    pub fn tells(mut self, story: Story) -> Self {
        self.stories.push(story);
        self
    }
}

/// An execution pod that runs a shell script.
pub(super) fn pod(id: &str, script: &str) -> Value {
    // Kubernetes takes $$ and $(NAME) in a command for its own: doubled, a dollar sign reaches the shell.
    execution("recorded", id, &script.replace('$', "$$"))
}

/// A further container that runs a shell script.
pub(super) fn container(name: &str, script: &str) -> Value {
    json!({ "name": name, "image": "localhost/busybox:1", "imagePullPolicy": "IfNotPresent",
        "command": ["sh", "-c", script.replace('$', "$$")] })
}

/// Whether an object has one of these values at a path; with no values, anything but null.
pub fn matches(object: &Value, path: &str, one_of: &[Value]) -> bool {
    let Some((key, rest)) = path.split_once('.').or((!path.is_empty()).then_some((path, ""))) else {
        return if one_of.is_empty() { !object.is_null() } else { one_of.contains(object) };
    };
    if key == "*" {
        return object.as_array().is_some_and(|items| items.iter().any(|item| matches(item, rest, one_of)));
    }
    matches(&object[key], rest, one_of)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_finds_values_within_lists() {
        let object = json!({ "a": [{ "b": 1 }, { "b": 2, "c": "x" }], "d": null });
        assert!(matches(&object, "a.*.b", &[json!(2)]) && matches(&object, "a.*.c", &[]));
        assert!(
            !matches(&object, "a.*.b", &[json!(3)]) && !matches(&object, "d", &[]) && !matches(&object, "a.*.e", &[])
        );
    }
}
