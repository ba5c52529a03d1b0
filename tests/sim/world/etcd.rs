//! What the API server stores: objects, the log of their changes, and how far back it goes.

use std::{collections::BTreeMap, sync::Arc};

use serde_json::{Value, json};
use tokio::sync::Notify;

use crate::oracle::Fact;

/// Pods and Leases share the count of versions; each kind has its own log.
pub struct Etcd {
    pub version: u64,
    pub pods: Kind,
    pub leases: Kind,
    /// What truly happened to pods.
    pub truth: Vec<Fact>,
    /// Tells watches that there is news.
    changed: Arc<Notify>,
    /// Tokens of LISTs that go on: (version, items left).
    pub pages: BTreeMap<u64, (u64, Vec<Arc<str>>)>,
    pub tokens: u64,
    /// For the planted stale LIST: how pods stood some time ago.
    pub stale: Vec<Arc<str>>,
}

#[derive(Default)]
pub struct Kind {
    /// By name.
    pub objects: BTreeMap<String, Object>,
    /// In order of version.
    pub log: Vec<Change>,
    /// A watch from below this version is refused.
    pub compacted: u64,
}

#[derive(Clone)]
pub struct Object {
    pub version: u64,
    pub value: Value,
    pub text: Arc<str>,
    /// Whether the selector takes it.
    pub selected: bool,
}

/// One change as a watch with the selector tells it.
pub struct Change {
    pub version: u64,
    pub line: Arc<str>,
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
            changed: Arc::default(),
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

    pub fn changes(&self) -> Arc<Notify> {
        Arc::clone(&self.changed)
    }

    /// Writes an object; gives it back with its new version.
    pub fn put(&mut self, which: Which, name: &str, mut value: Value) -> Object {
        self.version += 1;
        let version = self.version;
        value["metadata"]["resourceVersion"] = json!(version.to_string());
        let selected = which == Which::Leases || value["metadata"]["labels"]["app"] == "exec";
        let object = Object { version, text: value.to_string().into(), value, selected };
        let kind = self.kind_mut(which);
        let before = kind.objects.insert(name.to_owned(), object.clone());
        let event = match (before.as_ref().is_some_and(|b| b.selected), selected) {
            (false, true) => Some(("ADDED", Arc::clone(&object.text))),
            (true, true) => Some(("MODIFIED", Arc::clone(&object.text))),
            // Left the selection: the last state that was in it, with the version of the leaving.
            (true, false) => before.map(|b| ("DELETED", with_version(b.value, version))),
            (false, false) => None,
        };
        self.log(which, version, event);
        object
    }

    /// Removes an object. A watch tells its last state, with the version of the going.
    pub fn remove(&mut self, which: Which, name: &str) -> Option<u64> {
        let before = self.kind_mut(which).objects.remove(name)?;
        self.version += 1;
        let version = self.version;
        let event = before.selected.then(|| ("DELETED", with_version(before.value, version)));
        self.log(which, version, event);
        Some(version)
    }

    fn log(&mut self, which: Which, version: u64, event: Option<(&str, Arc<str>)>) {
        if let Some((kind, object)) = event {
            let line = format!("{{\"type\":\"{kind}\",\"object\":{object}}}\n").into();
            self.kind_mut(which).log.push(Change { version, line });
        }
        self.changed.notify_waiters();
    }

    /// Forgets the log of pods up to a version, and every LIST that goes on from before.
    pub fn compact(&mut self, version: u64) {
        let version = version.min(self.version);
        self.pods.compacted = self.pods.compacted.max(version);
        self.pages.retain(|_, (of, _)| *of >= version);
        self.changed.notify_waiters();
    }

    /// Who holds the Lease.
    pub fn holder(&self) -> Option<String> {
        let lease = self.leases.objects.values().next()?;
        lease.value["spec"]["holderIdentity"].as_str().filter(|holder| !holder.is_empty()).map(str::to_owned)
    }

    /// Selected pods as they stand.
    pub fn selected(&self) -> Vec<Arc<str>> {
        self.pods.objects.values().filter(|o| o.selected).map(|o| Arc::clone(&o.text)).collect()
    }
}

fn with_version(mut value: Value, version: u64) -> Arc<str> {
    value["metadata"]["resourceVersion"] = json!(version.to_string());
    value.to_string().into()
}

impl Kind {
    /// The first change after `version`.
    pub fn after(&self, version: u64) -> Option<&Change> {
        self.log.get(self.log.partition_point(|change| change.version <= version))
    }
}
