//! What one shard's changelog holds, with each pod's record as it stands there. Pure.

use std::collections::BTreeMap;

use crate::{
    publish::{
        Position,
        changelog::{self, Barrier, Entry, Reason},
        generation::{Inherited, Moved},
        identity::Identity,
    },
    watch::pod::ResourceVersion,
};

/// The newest record of each key.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Held {
    /// By key (`pod/<uid>`): records that are no tombstones.
    pub pods: BTreeMap<String, Raw>,
    /// Whose it is.
    pub identity: Option<Identity>,
    /// How far its holder had come.
    pub position: Option<Position>,
    /// Where the truth is now, if it is here no more.
    pub moved: Option<Moved>,
    /// How far earlier generations had come.
    pub inherited: Option<Inherited>,
    /// The last barrier, with its offset.
    pub barrier: Option<(Barrier, i64)>,
    /// Offset of the last record.
    pub last: Option<i64>,
    /// Records of no pod that this release does not understand.
    pub odd: BTreeMap<String, Reason>,
}

/// A pod's record as it stands there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Raw {
    /// Its bytes, with all that this release does not know.
    pub value: Vec<u8>,
    /// What of it decides where it belongs, or why that cannot be read.
    pub about: Result<About, Reason>,
}

/// What decides where a record belongs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct About {
    /// Of the pod.
    pub execution_id: Box<str>,
    /// Events told, then the state that was seen: where two shards remember a pod, the one counts that told more.
    pub told: (u32, ResourceVersion),
}

impl Held {
    /// Takes in the next record.
    pub fn take(&mut self, offset: i64, key: Option<&[u8]>, value: Option<&[u8]>) {
        self.last = Some(offset);
        match changelog::decode(key, value) {
            Entry::Pod(uid, tracked) => {
                let about = tracked.map(|tracked| About {
                    execution_id: tracked.execution_id.as_ref().into(),
                    told: (tracked.sequence, tracked.resource_version),
                });
                self.remember(changelog::pod_key(&uid), value.zip(about.map(Ok)));
            }
            Entry::Identity(identity) => self.meta(changelog::IDENTITY).identity = Some(identity),
            Entry::Position(position) => self.meta(changelog::POSITION).position = Some(position),
            Entry::Moved(moved) => self.meta(changelog::MOVED).moved = Some(moved),
            Entry::Inherited(inherited) => self.meta(changelog::INHERITED).inherited = inherited,
            Entry::Barrier(barrier) => self.meta(changelog::BARRIER).barrier = Some((barrier, offset)),
            Entry::Unreadable(unreadable) if unreadable.reason != Reason::Key && unreadable.pod().is_some() => {
                self.remember(unreadable.key, value.zip(Some(Err(unreadable.reason))));
            }
            Entry::Unreadable(unreadable) => drop(self.odd.insert(unreadable.key, unreadable.reason)),
        }
    }

    fn remember(&mut self, key: String, record: Option<(&[u8], Result<About, Reason>)>) {
        match record {
            Some((value, about)) => drop(self.pods.insert(key, Raw { value: value.to_vec(), about })),
            None => drop(self.pods.remove(&key)),
        }
    }

    fn meta(&mut self, key: &str) -> &mut Self {
        self.odd.remove(key);
        self
    }
}
