//! The pod that `check --e2e` makes, and what it says about where it got stuck. Pure.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};

use crate::config::{
    Config, Namespaces, Selector, names,
    selector::{Operator, Requirement},
};

/// What is made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Plan {
    pub(super) namespace: String,
    pub(super) name: String,
    pub(super) execution_id: String,
    pub(super) pod: Value,
}

/// What is asked of the pod.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Asked<'a> {
    pub(super) image: &'a str,
    pub(super) labels: &'a BTreeMap<String, String>,
    pub(super) limit_seconds: u64,
    /// Differs between any two runs.
    pub(super) nonce: &'a str,
}

impl Plan {
    /// A pod that a monitor with these settings takes for an execution.
    pub(super) fn of(config: &Config, asked: &Asked<'_>) -> Result<Self, String> {
        let (key, own) = (&config.ids.execution_label, format!("check-{}", asked.nonce));
        let mut given = asked.labels.clone();
        // A selector that asks for any execution id at all gets ours.
        if config.selector.requirements().iter().any(|wish| wish.key == *key && wish.operator == Operator::Exists) {
            given.entry(key.clone()).or_insert_with(|| own.clone());
        }
        let mut labels = labels(&config.selector, &given)?;
        let execution_id = labels.entry(key.clone()).or_insert(own).clone();
        if !selects(&config.selector, &labels) {
            return Err(format!(
                "the selector {} does not take a pod with the label {key}, which holds its execution id: say its labels by \
                 --e2e-label KEY=VALUE",
                config.selector
            ));
        }
        let namespace = match &config.namespaces {
            Namespaces::All => config.lease_namespace.clone(),
            Namespaces::Named(names) => names.first().cloned().unwrap_or_else(|| config.lease_namespace.clone()),
        };
        let name = format!("pod-monitor-check-{}", asked.nonce);
        let container = config.container.as_deref().unwrap_or("main");
        let pod = pod(&name, &labels, container, asked);
        Ok(Self { namespace, name, execution_id, pod })
    }
}

/// As small as it can be, and admitted under Pod Security `restricted`.
fn pod(name: &str, labels: &BTreeMap<String, String>, container: &str, asked: &Asked<'_>) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": { "name": name, "labels": labels },
        "spec": {
            "restartPolicy": "Never", "terminationGracePeriodSeconds": 1, "activeDeadlineSeconds": asked.limit_seconds.max(1),
            "automountServiceAccountToken": false, "enableServiceLinks": false,
            "securityContext": { "runAsNonRoot": true, "runAsUser": 65532, "seccompProfile": { "type": "RuntimeDefault" } },
            "containers": [{
                "name": container, "image": asked.image, "imagePullPolicy": "IfNotPresent",
                "command": ["echo", "pod-monitor check"],
                "resources": { "requests": { "cpu": "10m", "memory": "16Mi" }, "limits": { "cpu": "100m", "memory": "64Mi" } },
                "securityContext": { "allowPrivilegeEscalation": false, "capabilities": { "drop": ["ALL"] } },
            }],
        },
    })
}

/// Labels that the selector takes: those given, and for the rest what it asks for itself.
fn labels(selector: &Selector, given: &BTreeMap<String, String>) -> Result<BTreeMap<String, String>, String> {
    let mut labels = given.clone();
    for Requirement { key, operator } in selector.requirements() {
        let value = match operator {
            Operator::Equals(value) => value.clone(),
            Operator::In(values) => values.first().cloned().unwrap_or_default(),
            Operator::Exists => "check".to_owned(),
            Operator::Greater(bound) => bound.saturating_add(1).to_string(),
            Operator::Less(bound) => bound.saturating_sub(1).to_string(),
            // Without the label they hold.
            Operator::Absent | Operator::Differs(_) | Operator::NotIn(_) => continue,
        };
        labels.entry(key.clone()).or_insert(value);
    }
    if selects(selector, &labels) {
        return Ok(labels);
    }
    Err(format!("no labels are found that the selector {selector} takes: say them by --e2e-label KEY=VALUE"))
}

/// Whether the selector takes a pod with these labels, as the API server would judge.
fn selects(selector: &Selector, labels: &BTreeMap<String, String>) -> bool {
    selector.requirements().iter().all(|Requirement { key, operator }| {
        let value = labels.get(key);
        let number = || value.and_then(|value| value.parse::<i64>().ok());
        match operator {
            Operator::Exists => value.is_some(),
            Operator::Absent => value.is_none(),
            Operator::Equals(wanted) => value == Some(wanted),
            Operator::Differs(other) => value != Some(other),
            Operator::In(values) => value.is_some_and(|value| values.contains(value)),
            Operator::NotIn(values) => value.is_none_or(|value| !values.contains(value)),
            Operator::Greater(bound) => number().is_some_and(|value| value > *bound),
            Operator::Less(bound) => number().is_some_and(|value| value < *bound),
        }
    })
}

/// A label as it is written on the command line.
pub(in crate::cli::check) fn label(text: &str) -> Result<(String, String), String> {
    let shown = text.escape_debug();
    let (key, value) = text.split_once('=').ok_or_else(|| format!("'{shown}' is no label: write KEY=VALUE"))?;
    names::label_key(key).and_then(|()| names::label_value(value)).map_err(|why| format!("'{shown}': {why}"))?;
    Ok((key.to_owned(), value.to_owned()))
}

/// How far a pod is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Stage {
    Made,
    Bound,
    Started,
    Ended,
}

/// How far this pod is.
pub(super) fn stage(pod: &Value) -> Stage {
    let state = &pod["status"]["containerStatuses"][0]["state"];
    if matches!(pod["status"]["phase"].as_str(), Some("Succeeded" | "Failed")) || state.get("terminated").is_some() {
        Stage::Ended
    } else if state.get("running").is_some() {
        Stage::Started
    } else if pod["spec"]["nodeName"].as_str().is_some_and(|node| !node.is_empty()) {
        Stage::Bound
    } else {
        Stage::Made
    }
}

/// Where it got stuck, and what to look at. `pod`: as it was seen last, if it is there; `told`: the events that came.
pub(super) fn stuck(pod: Option<&Value>, told: &BTreeSet<String>) -> (String, &'static str) {
    let Some(pod) = pod else {
        return ("the pod is gone: somebody deleted it".to_owned(), "look who deletes pods with these labels");
    };
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    match stage(pod) {
        Stage::Made => {
            let conditions = pod["status"]["conditions"].as_array().map(Vec::as_slice).unwrap_or_default();
            let why = conditions.iter().find(|condition| condition["type"] == "PodScheduled");
            let why = why.map(|condition| text(&condition["message"])).filter(|why| !why.is_empty());
            let why = why.unwrap_or_else(|| "the scheduler says nothing of it".to_owned());
            (format!("it was not scheduled: {why}"), "kubectl describe pod says more; see whether nodes have room")
        }
        Stage::Bound => {
            let waiting = &pod["status"]["containerStatuses"][0]["state"]["waiting"];
            let (reason, message) = (text(&waiting["reason"]), text(&waiting["message"]));
            let node = text(&pod["spec"]["nodeName"]);
            (
                format!("it did not start on node {node}: {reason} {message}"),
                "where the image cannot be pulled, name another by --e2e-image",
            )
        }
        Stage::Started => ("its container runs on and on".to_owned(), "name an image that has 'echo' by --e2e-image"),
        Stage::Ended if told.is_empty() => (
            "it ended, and none of its events came".to_owned(),
            "see whether a monitor with this selector, namespace and topic leads: pod-monitor status",
        ),
        Stage::Ended => {
            let told: Vec<&str> = told.iter().map(String::as_str).collect();
            (
                format!("it ended, and of its events only these came: {}", told.join(", ")),
                "an end waits for its output at most --capture-deadline; /readyz?verbose of the leader says what it lacks",
            )
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    fn given(labels: &[(&str, &str)]) -> BTreeMap<String, String> {
        labels.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn labels_follow_from_the_selector_or_are_asked_for() {
        let cases = [
            ("app=executor", &[][..], Some(&[("app", "executor")][..])),
            ("app in (b,a),!paused,tier!=system", &[], Some(&[("app", "a")])),
            ("app", &[], Some(&[("app", "check")])),
            ("n>3,m<0,k notin (x)", &[], Some(&[("m", "-1"), ("n", "4")])),
            ("app=executor", &[("team", "x")], Some(&[("app", "executor"), ("team", "x")])),
            ("app in (a,b)", &[("app", "b")], Some(&[("app", "b")])),
            ("app=a", &[("app", "b")], None),
            ("app=a,app in (b)", &[], None),
            ("app,app!=check", &[], None),
            ("app,app!=check", &[("app", "other")], Some(&[("app", "other")])),
        ];
        for (selector, labels_given, expected) in cases {
            let found = labels(&selector.parse().unwrap(), &given(labels_given));
            assert_eq!(found.clone().ok(), expected.map(given), "{selector}");
            assert!(found.is_ok() || found.unwrap_err().contains("--e2e-label KEY=VALUE"));
        }
        assert_eq!(label("a/b=c"), Ok(("a/b".to_owned(), "c".to_owned())));
        for wrong in ["a", "=b", "a=b c", "A_=-"] {
            assert!(label(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn it_is_said_where_it_got_stuck() {
        let told = |kinds: &[&str]| kinds.iter().map(|kind| (*kind).to_owned()).collect::<BTreeSet<_>>();
        let bound = |status: Value| json!({ "spec": { "nodeName": "n" }, "status": status });
        let state = |state: Value| bound(json!({ "containerStatuses": [{ "state": state }] }));
        let unschedulable = json!({ "status": { "conditions": [{ "type": "PodScheduled", "message": "no room" }] } });
        let cases = [
            (None, &[][..], "somebody deleted it"),
            (Some(unschedulable), &[], "not scheduled: no room"),
            (Some(json!({})), &[], "the scheduler says nothing"),
            (Some(bound(json!({}))), &[], "did not start on node n"),
            (Some(state(json!({ "waiting": { "reason": "ErrImagePull", "message": "m" } }))), &[], "ErrImagePull m"),
            (Some(state(json!({ "running": {} }))), &[], "runs on"),
            (Some(state(json!({ "terminated": {} }))), &[], "none of its events"),
            (Some(bound(json!({ "phase": "Failed" }))), &["pod_scheduled"], "only these came: pod_scheduled"),
        ];
        for (pod, kinds, expected) in cases {
            let (said, mend) = stuck(pod.as_ref(), &told(kinds));
            assert!(said.contains(expected) && !mend.is_empty(), "{pod:?}: {said}");
        }
    }
}
