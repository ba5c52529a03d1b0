//! From an object's JSON to a pod: whole, or as far as it can be read.

use serde::de::DeserializeOwned;

use super::{ContainerStatus, Metadata, Pod, Spec, Status};

/// What [`decode`] made of one object.
#[derive(Debug, PartialEq)]
pub enum Decoded {
    /// Read whole.
    Whole(Pod),
    /// Read as far as possible; `lost` names the parts that were not readable.
    Partly {
        /// What could be read; metadata is whole.
        pod: Pod,
        /// The parts left at their default, at least one: `spec`, `status`, `status.containerStatuses`, ...
        lost: Vec<&'static str>,
    },
    /// Not even the metadata could be read, so that nothing can be told.
    Unreadable {
        /// Namespace and name if they could be found, for the log line.
        name: Option<String>,
        /// What serde said.
        error: String,
    },
}

/// What is to be counted and logged of an object that could not be read whole.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Odd {
    /// `namespace/name` where known.
    pub name: Option<String>,
    /// Which parts are lost, or why nothing could be read.
    pub lost: String,
}

impl Decoded {
    /// Its metadata, where that could be read.
    pub fn metadata(&self) -> Option<&Metadata> {
        match self {
            Self::Whole(pod) | Self::Partly { pod, .. } => Some(&pod.metadata),
            Self::Unreadable { .. } => None,
        }
    }

    /// What can be told of it, and what is lost.
    pub fn split(self) -> (Option<Box<Pod>>, Option<Odd>) {
        match self {
            Self::Whole(pod) => (Some(Box::new(pod)), None),
            Self::Partly { pod, lost } => {
                let name = Some(format!("{}/{}", pod.metadata.namespace, pod.metadata.name));
                (Some(Box::new(pod)), Some(Odd { name, lost: lost.join(", ") }))
            }
            Self::Unreadable { name, error } => (None, Some(Odd { name, lost: error })),
        }
    }
}

/// Decodes one Pod object. Total: any bytes give an answer.
pub fn decode(json: &str) -> Decoded {
    let error = match serde_json::from_str::<Pod>(json) {
        Ok(pod) => match pod.odd() {
            None => return Decoded::Whole(pod),
            Some(odd) => odd.to_owned(),
        },
        Err(error) => error.to_string(),
    };
    match serde_json::from_str::<serde_json::Value>(json) {
        Ok(serde_json::Value::Object(fields)) => salvage(fields, error),
        // An array, a text, a number: no object at all.
        _ => Decoded::Unreadable { name: None, error },
    }
}

fn salvage(mut fields: serde_json::Map<String, serde_json::Value>, error: String) -> Decoded {
    let mut take = |key: &str| fields.remove(key).unwrap_or_default();
    let metadata = take("metadata");
    let name = metadata["name"].as_str().map(|n| format!("{}/{n}", metadata["namespace"].as_str().unwrap_or("?")));
    let Some(metadata) = part::<Metadata>(metadata).filter(|m| m.lacks().is_none()) else {
        return Decoded::Unreadable { name, error };
    };
    let mut lost = Vec::new();
    let spec = part::<Option<Spec>>(take("spec")).unwrap_or_else(|| {
        lost.push("spec");
        None
    });
    let status = salvage_status(take("status"), &mut lost);
    if lost.is_empty() {
        // Each part can be read by itself, so that its text is at odds, not what it says.
        lost.push("a key that stands twice");
    }
    Decoded::Partly { pod: Pod { metadata, spec: spec.unwrap_or_default(), status, incomplete: true }, lost }
}

fn salvage_status(mut status: serde_json::Value, lost: &mut Vec<&'static str>) -> Status {
    let lists = [
        ("containerStatuses", "status.containerStatuses"),
        ("initContainerStatuses", "status.initContainerStatuses"),
        ("conditions", "status.conditions"),
    ];
    let mut taken = lists.map(|(key, _)| status.get_mut(key).map(serde_json::Value::take).unwrap_or_default());
    let read: Option<Status> = part(status).unwrap_or_else(|| {
        lost.push("status");
        None
    });
    let mut read = read.unwrap_or_default();
    read.container_statuses = each(taken[0].take(), lists[0].1, lost, ContainerStatus::is_named);
    read.init_container_statuses = each(taken[1].take(), lists[1].1, lost, ContainerStatus::is_named);
    read.conditions = each(taken[2].take(), lists[2].1, lost, |_| true);
    read
}

fn part<T: DeserializeOwned>(value: serde_json::Value) -> Option<T> {
    serde_json::from_value(value).ok()
}

/// Those items that can be read and that `keep`.
fn each<T: DeserializeOwned>(
    list: serde_json::Value,
    what: &'static str,
    lost: &mut Vec<&'static str>,
    keep: fn(&T) -> bool,
) -> Vec<T> {
    let items = match list {
        serde_json::Value::Array(items) => items,
        serde_json::Value::Null => return Vec::new(),
        // No list: whatever it says of containers is lost.
        _ => {
            lost.push(what);
            return Vec::new();
        }
    };
    let count = items.len();
    let read: Vec<T> = items.into_iter().filter_map(part).filter(keep).collect();
    if read.len() < count {
        lost.push(what);
    }
    read
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    /// A pod with every field that is read.
    fn full() -> Value {
        let time = "2026-11-25T10:00:00Z";
        let ended = json!({ "exitCode": 137, "signal": 9, "reason": "OOMKilled", "message": "m", "startedAt": time, "finishedAt": time });
        let state = json!({ "waiting": { "reason": "r", "message": "m" }, "running": { "startedAt": time }, "terminated": ended });
        let container = json!({ "name": "main", "ready": true, "started": true, "restartCount": 2, "state": state, "lastState": state });
        let rule = json!({ "action": "Restart", "exitCodes": { "operator": "In", "values": [42] } });
        let declared = json!({ "name": "main", "restartPolicy": "Never", "restartPolicyRules": [rule] });
        json!({
            "metadata": { "uid": "u", "name": "p", "namespace": "n", "resourceVersion": "7", "labels": { "a": "b" },
                "annotations": { "a": "b" }, "creationTimestamp": time, "deletionTimestamp": time,
                "deletionGracePeriodSeconds": 30, "finalizers": ["f"],
                "ownerReferences": [{ "kind": "Job", "name": "j", "uid": "o", "controller": true }] },
            "spec": { "nodeName": "n", "activeDeadlineSeconds": 60, "restartPolicy": "Never", "containers": [declared],
                "initContainers": [declared], "schedulingGates": [{ "name": "g" }], "terminationGracePeriodSeconds": 30 },
            "status": { "phase": "Failed", "reason": "r", "message": "m", "startTime": time,
                "conditions": [{ "type": "Ready", "status": "True", "reason": "r", "message": "m", "lastTransitionTime": time }],
                "containerStatuses": [container], "initContainerStatuses": [container],
                "ephemeralContainerStatuses": [container] },
        })
    }

    /// Pointers to every field of every object.
    fn fields(at: &str, value: &Value, into: &mut Vec<String>) {
        match value {
            Value::Object(object) => object.iter().for_each(|(key, value)| {
                into.push(format!("{at}/{key}"));
                fields(&format!("{at}/{key}"), value, into);
            }),
            Value::Array(items) => {
                items.iter().enumerate().for_each(|(n, item)| fields(&format!("{at}/{n}"), item, into))
            }
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
        }
    }

    fn without_error(decoded: Decoded) -> Decoded {
        match decoded {
            Decoded::Unreadable { name, .. } => Decoded::Unreadable { name, error: String::new() },
            read => read,
        }
    }

    #[test]
    fn null_is_absent_in_every_field() {
        let full = full();
        assert!(matches!(decode(&full.to_string()), Decoded::Whole(_)));
        let mut all = Vec::new();
        fields("", &full, &mut all);
        assert!(all.len() > 80, "{}", all.len());
        for pointer in all {
            let (parent, key) = pointer.rsplit_once('/').expect("a pointer");
            let (mut null, mut absent) = (full.clone(), full.clone());
            *null.pointer_mut(&pointer).expect("the field") = Value::Null;
            let parent = absent.pointer_mut(parent).and_then(Value::as_object_mut).expect("its object");
            parent.remove(key);
            let (null, absent) = (decode(&null.to_string()), decode(&absent.to_string()));
            assert_eq!(without_error(null), without_error(absent), "{pointer}");
        }
    }

    #[test]
    fn nothing_is_lost_without_being_named() {
        let json =
            |status: &str| format!(r#"{{"metadata":{{"uid":"u","name":"p","namespace":"n"}},"status":{status}}}"#);
        for (status, expected) in [
            (r#"{"containerStatuses":"none"}"#, "status.containerStatuses"),
            (r#"{"containerStatuses":{"name":"main"}}"#, "status.containerStatuses"),
            (r#"{"initContainerStatuses":7,"conditions":true}"#, "status.initContainerStatuses, status.conditions"),
            (r#"{"phase":"Failed","phase":"Failed"}"#, "a key that stands twice"),
            ("7", "status"),
        ] {
            let (pod, odd) = decode(&json(status)).split();
            assert!(pod.expect("its metadata can be read").incomplete, "{status}");
            assert_eq!(odd.expect("something is lost").lost, expected, "{status}");
        }
    }
}
