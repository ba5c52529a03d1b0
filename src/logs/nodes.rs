//! What a capture remembers of each node: its permits, and whether its log streams can be told apart.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU8, Ordering},
    },
};

use tokio::sync::Semaphore;

use super::follow::FOLLOWS_PER_NODE_MAX;

/// Nodes remembered at the same time; beyond it, idle ones are forgotten (a Kubernetes cluster has at most 5000).
pub(super) const NODES_MAX: usize = 8192;

/// Whether a server honours `stream=Stdout|Stderr`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Split {
    /// Not asked yet.
    Unknown,
    /// It was seen to.
    Works,
    /// It refused or ignored it.
    Missing,
}

/// A [`Split`] that many captures share.
pub(super) struct SplitMemory(AtomicU8);

impl SplitMemory {
    pub(super) fn new() -> Self {
        Self(AtomicU8::new(Split::Unknown as u8))
    }

    pub(super) fn get(&self) -> Split {
        match self.0.load(Ordering::Relaxed) {
            known if known == Split::Works as u8 => Split::Works,
            known if known == Split::Missing as u8 => Split::Missing,
            _ => Split::Unknown,
        }
    }

    pub(super) fn set(&self, split: Split) {
        self.0.store(split as u8, Ordering::Relaxed);
    }
}

/// One node.
pub(super) struct Node {
    pub(super) permits: Semaphore,
    /// For what is followed.
    pub(super) follows: Arc<Semaphore>,
    pub(super) split: SplitMemory,
}

impl Node {
    fn new(permits: usize) -> Self {
        let follows = Arc::new(Semaphore::new(FOLLOWS_PER_NODE_MAX));
        Self { permits: Semaphore::new(permits), follows, split: SplitMemory::new() }
    }
}

/// The nodes that captures read from; bounded.
pub(super) struct Nodes {
    permits_per_node: usize,
    nodes: Mutex<HashMap<Box<str>, Arc<Node>>>,
}

impl Nodes {
    pub(super) fn new(permits_per_node: usize) -> Self {
        Self { permits_per_node: permits_per_node.max(1), nodes: Mutex::new(HashMap::new()) }
    }

    /// The node of this name. Pods without a node share one.
    pub(super) fn get(&self, name: Option<&str>) -> Arc<Node> {
        let name = name.unwrap_or_default();
        // Every state of the map is a valid one, so that of a thread that panicked is too.
        let mut nodes = self.nodes.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(node) = nodes.get(name) {
            return Arc::clone(node);
        }
        if nodes.len() >= NODES_MAX {
            nodes.retain(|_, node| Arc::strong_count(node) > 1);
        }
        // With every place taken by a busy node, the rest share the nameless one: slower, but still bounded.
        let name = if nodes.len() >= NODES_MAX { "" } else { name };
        let permits = self.permits_per_node;
        let node = nodes.entry(name.into()).or_insert_with(|| Arc::new(Node::new(permits)));
        Arc::clone(node)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn idle_nodes_are_forgotten_and_busy_ones_kept() {
        let nodes = Nodes::new(1);
        let busy = nodes.get(Some("busy"));
        busy.split.set(Split::Works);
        for i in 0..2 * NODES_MAX {
            drop(nodes.get(Some(&i.to_string())));
            assert!(nodes.nodes.lock().expect("not poisoned").len() <= NODES_MAX + 1);
        }
        assert_eq!(nodes.get(Some("busy")).split.get(), Split::Works);
    }
}
