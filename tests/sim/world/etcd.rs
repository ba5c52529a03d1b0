//! What the API server stores: objects, the log of their changes, and how far back it goes.

use std::{collections::BTreeMap, sync::Arc};

use serde_json::{Value, json};
use tokio::sync::Notify;

use super::selection::{MEMBERS_OF, Selection, fnv1a};
use crate::oracle::Fact;

/// Pods and Leases share the count of versions; each kind has its own log.
pub struct Etcd {
    pub version: u64,
    pub pods: Kind,
    pub leases: Kind,
    /// What truly happened to pods.
    pub truth: Vec<Fact>,
    /// Tokens of LISTs that go on: (version, items left).
    pub pages: BTreeMap<u64, (u64, Vec<Object>)>,
    pub tokens: u64,
    /// For the planted stale LIST: how pods stood some time ago.
    pub stale: Vec<Object>,
}

#[derive(Default)]
pub struct Kind {
    /// By name.
    pub objects: BTreeMap<String, Object>,
    /// In order of version.
    pub log: Vec<Change>,
    /// A watch from below this version is refused.
    pub compacted: u64,
    /// Tells watches that there is news.
    changed: Arc<Notify>,
}

#[derive(Clone)]
pub struct Object {
    pub name: Arc<str>,
    pub version: u64,
    pub value: Arc<Value>,
    pub text: Arc<str>,
    /// Whether the label selector takes it: that of the pods, or that of the member Leases.
    pub labelled: bool,
    /// Of its UID.
    pub hash: u64,
}

/// One change. What a watch tells of it depends on what it selects.
pub struct Change {
    pub version: u64,
    before: Option<Object>,
    after: Option<Object>,
}

impl Change {
    /// The line of a watch: one whose object leaves the selection tells its last state in it, with the version of the
    /// leaving.
    pub fn line(&self, selection: &Selection) -> Option<String> {
        let taken = |object: &&Object| selection.takes(object);
        let (kind, text) = match (self.before.as_ref().filter(taken), self.after.as_ref().filter(taken)) {
            (None, Some(now)) => ("ADDED", Arc::clone(&now.text)),
            (Some(_), Some(now)) => ("MODIFIED", Arc::clone(&now.text)),
            (Some(last), None) => ("DELETED", with_version(&last.value, self.version)),
            (None, None) => return None,
        };
        Some(format!("{{\"type\":\"{kind}\",\"object\":{text}}}\n"))
    }

    pub fn concerns(&self, selection: &Selection) -> bool {
        [&self.before, &self.after].into_iter().flatten().any(|object| selection.takes(object))
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Which {
    Pods,
    Leases,
}

impl Etcd {
    pub fn new() -> Self {
        Self {
            version: 1000,
            pods: Kind::default(),
            leases: Kind::default(),
            truth: Vec::new(),
            pages: BTreeMap::new(),
            tokens: 0,
            stale: Vec::new(),
        }
    }

    pub fn kind(&self, which: Which) -> &Kind {
        match which {
            Which::Pods => &self.pods,
            Which::Leases => &self.leases,
        }
    }

    fn kind_mut(&mut self, which: Which) -> &mut Kind {
        match which {
            Which::Pods => &mut self.pods,
            Which::Leases => &mut self.leases,
        }
    }

    /// Writes an object; gives it back with its new version.
    pub fn put(&mut self, which: Which, name: &str, mut value: Value) -> Object {
        self.version += 1;
        let version = self.version;
        value["metadata"]["resourceVersion"] = json!(version.to_string());
        let labels = &value["metadata"]["labels"];
        let labelled = match which {
            Which::Pods => labels["app"] == "exec",
            Which::Leases => labels[MEMBERS_OF] == "pod-monitor",
        };
        let hash = fnv1a(value["metadata"]["uid"].as_str().unwrap_or_default());
        let text = value.to_string().into();
        let object = Object { name: name.into(), version, text, value: Arc::new(value), labelled, hash };
        let kind = self.kind_mut(which);
        let before = kind.objects.insert(name.to_owned(), object.clone());
        kind.changed(Change { version, before, after: Some(object.clone()) });
        object
    }

    /// Removes an object. A watch tells its last state, with the version of the going.
    pub fn remove(&mut self, which: Which, name: &str) -> Option<u64> {
        let before = self.kind_mut(which).objects.remove(name)?;
        self.version += 1;
        let version = self.version;
        self.kind_mut(which).changed(Change { version, before: Some(before), after: None });
        Some(version)
    }

    /// Forgets the log of pods up to a version, and every LIST that goes on from before.
    pub fn compact(&mut self, version: u64) {
        let version = version.min(self.version);
        self.pods.compacted = self.pods.compacted.max(version);
        self.pages.retain(|_, (of, _)| *of >= version);
        self.pods.changed.notify_waiters();
    }

    /// Who holds the Lease of each shard that somebody holds.
    pub fn holders(&self) -> BTreeMap<u32, String> {
        let held = |(name, lease): (&String, &Object)| {
            let shard = name.strip_prefix(SHARD_LEASES)?.parse().ok()?;
            let holder = lease.value["spec"]["holderIdentity"].as_str().filter(|holder| !holder.is_empty())?;
            Some((shard, holder.to_owned()))
        };
        self.leases.objects.iter().filter_map(held).collect()
    }

    /// Pods with the label, as they stand.
    pub fn labelled(&self) -> Vec<Object> {
        self.pods.objects.values().filter(|o| o.labelled).cloned().collect()
    }
}

/// Names of the Leases of shards begin so.
pub const SHARD_LEASES: &str = "pod-monitor-";

fn with_version(value: &Value, version: u64) -> Arc<str> {
    let mut value = value.clone();
    value["metadata"]["resourceVersion"] = json!(version.to_string());
    value.to_string().into()
}

impl Kind {
    /// The first change after `version` that such a watch tells.
    pub fn after(&self, version: u64, selection: &Selection) -> Option<&Change> {
        let later = &self.log[self.log.partition_point(|change| change.version <= version)..];
        later.iter().find(|change| change.concerns(selection))
    }

    pub fn changes(&self) -> Arc<Notify> {
        Arc::clone(&self.changed)
    }

    fn changed(&mut self, change: Change) {
        self.log.push(change);
        self.changed.notify_waiters();
    }
}
