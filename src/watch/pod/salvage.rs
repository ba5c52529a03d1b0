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
        /// The parts left at their default: `spec`, `status`, `status.containerStatuses`, ...
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
    let serde_json::Value::Array(items) = list else {
        return Vec::new();
    };
    let count = items.len();
    let read: Vec<T> = items.into_iter().filter_map(part).filter(keep).collect();
    if read.len() < count {
        lost.push(what);
    }
    read
}
