//! What there is to do: from what two generations' changelogs hold. Pure.
//!
//! ```text
//!   old shards ──each record to the shard that it belongs to──▶ wanted
//!   wanted, new shards as they are ──▶ differences (records, tombstones), to be written in any number of goes
//!   old shards' positions ──▶ Switch: lowest position, what was inherited, where the truth is from now on
//! ```
//! Laws (`plan_laws.rs`): every record stands in the new shards once, at its place, byte by byte, and nothing else does;
//! written twice changes nothing; stopped anywhere and planned anew ends alike.

use std::{
    collections::{BTreeMap, BTreeSet},
    num::NonZeroU32,
};

use super::held::{Held, Raw};
use crate::{
    leadership::tenure::ShardId,
    lifecycle::rules::ShardBy,
    publish::{
        Position,
        changelog::{self, Reason},
        generation::{self, Former, Inherited, Moved},
        identity::{Identity, Mismatch},
    },
    sharding::ranges::Shards,
};

/// What is asked for.
#[derive(Debug, Clone)]
pub struct Wish {
    /// Whose changelog it must be: cluster, installation, and the generation that is the truth now. Its shards, selector
    /// and namespaces count for nothing.
    pub ours: Identity,
    /// `--changelog-topic`
    pub base: String,
    /// How many shards there are to be.
    pub count: NonZeroU32,
    /// What they are to be shared by, if by something else than now.
    pub by: Option<ShardBy>,
    /// How many shards there are now, where that was said.
    pub from: Option<u32>,
    /// Who asks: unique per start of the process.
    pub holder: String,
}

/// Why it is not done.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// Nobody ever used it.
    #[error(
        "topic {topic} belongs to no installation yet: there is nothing to reshard. Start the replicas with {flags} at once"
    )]
    Unused {
        /// The changelog.
        topic: String,
        /// What to start with.
        flags: String,
    },
    /// A reshard to it was begun, and has not ended.
    #[error(
        "generation {generation} has not begun: a reshard to it has not ended. End that first: pod-monitor reshard \
         --generation {former} --shards ..., and start no replica before"
    )]
    Unfinished {
        /// The generation that was named.
        generation: u32,
        /// The one that is the truth.
        former: u32,
    },
    /// It is another installation's.
    #[error("topic {topic} is not ours to reshard: {mismatch}")]
    Foreign {
        /// The changelog.
        topic: String,
        /// What differs.
        mismatch: Mismatch,
    },
    /// `--from-shards` says otherwise.
    #[error("from-shards is {said}, but topic {topic} has {found}: leave --from-shards out, or name the right topic")]
    OtherCount {
        /// What was said.
        said: u32,
        /// The changelog.
        topic: String,
        /// What stands there.
        found: u32,
    },
    /// Nothing would change.
    #[error("there are {count} shards by {by} already: nothing to do")]
    Same {
        /// `--shards`
        count: u32,
        /// `--shard-by`
        by: &'static str,
    },
    /// It was resharded to something else.
    #[error(
        "generation {generation} was resharded already: its replicas are started with {flags}. To reshard that: \
         pod-monitor reshard --generation {next} --shards ..."
    )]
    Moved {
        /// The generation that was named.
        generation: u32,
        /// What stands in its changelog.
        flags: String,
        /// The generation that is the truth.
        next: u32,
    },
    /// It says something of itself that only a later release knows.
    #[error("record {key} of shard {shard} cannot be read ({reason}): use the release that wrote it, or a later one")]
    Odd {
        /// Where.
        shard: ShardId,
        /// Which.
        key: String,
        /// Why.
        reason: Reason,
    },
    /// Nobody can tell which execution it is about.
    #[error(
        "record {key} of shard {shard} cannot be read ({reason}), so that nobody can tell which execution it belongs to: \
         use the release that wrote it, or --shard-by uid, by which it is copied as it is"
    )]
    Unreadable {
        /// Where.
        shard: ShardId,
        /// Which.
        key: String,
        /// Why.
        reason: Reason,
    },
    /// The new changelog is in use.
    #[error(
        "topic {topic} is in use already, although generation {generation} was not resharded: give another \
         --changelog-topic its own installation, or delete the topic if nobody uses it"
    )]
    InUse {
        /// The new changelog.
        topic: String,
        /// The old generation.
        generation: u32,
    },
}

/// How things stand.
#[derive(Debug, Clone, PartialEq)]
pub enum Standing {
    /// To be done: from this identity, which every old shard fits.
    Due(Identity),
    /// Done, as asked for.
    Done(Moved),
}

/// One record to be written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Write<'a> {
    /// To which new shard.
    pub shard: ShardId,
    /// Its key.
    pub key: &'a str,
    /// Its bytes; `None`: a tombstone.
    pub value: Option<&'a [u8]>,
}

/// What makes the new generation the truth, in one transaction.
#[derive(Debug, Clone, PartialEq)]
pub struct Switch {
    /// `meta/identity` of the new shards.
    pub identity: Identity,
    /// `meta/position` of the new shards.
    pub position: Position,
    /// `meta/inherited` of the new shards, where it is of use.
    pub inherited: Option<Inherited>,
    /// `meta/moved` of the old shards.
    pub moved: Moved,
}

/// What is to stand in the new shards.
#[derive(Debug)]
pub struct Plan<'a> {
    /// Per new shard.
    pub wanted: Vec<BTreeMap<&'a str, &'a [u8]>>,
    /// Records that two old shards had; the one that told more was taken.
    pub doubled: usize,
    /// Records that this release cannot read, copied as they are.
    pub unreadable: usize,
}

impl Wish {
    fn topic(&self) -> String {
        generation::changelog_topic(&self.base, self.ours.generation)
    }

    /// How the pods are to be shared.
    pub fn to(&self, found: &Identity) -> Shards {
        Shards { count: self.count, by: self.by.unwrap_or_else(|| by(found)) }
    }

    /// What is to stand in the old changelog.
    pub fn moved(&self, found: &Identity) -> Moved {
        let generation = self.ours.generation.saturating_add(1);
        Moved {
            generation,
            shards: self.count.get(),
            shard_by: self.to(found).by.as_str().to_owned(),
            topic: generation::changelog_topic(&self.base, generation),
        }
    }

    /// Whether it is to be done, given what the old shards hold.
    ///
    /// # Errors
    /// When it must not be.
    pub fn standing(&self, old: &[Held]) -> Result<Standing, Refusal> {
        if let Some(found) = old.iter().find_map(|held| held.moved.as_ref()) {
            let by_now = ShardBy::of(&found.shard_by);
            if found.shards == self.count.get() && self.by.is_none_or(|by| Some(by) == by_now) {
                return Ok(Standing::Done(found.clone()));
            }
            let (generation, flags, next) = (self.ours.generation, found.flags(), found.generation);
            return Err(Refusal::Moved { generation, flags, next });
        }
        for (shard, held) in (0..).map(ShardId).zip(old) {
            if let Some((key, reason)) = held.odd.first_key_value() {
                return Err(Refusal::Odd { shard, key: key.clone(), reason: reason.clone() });
            }
        }
        let Some(found) = old.iter().find_map(|held| held.identity.as_ref()) else {
            let flags = format!("--shards {}", self.count);
            return Err(match self.ours.generation {
                0 | 1 => Refusal::Unused { topic: self.topic(), flags },
                // Its topic was made, and nothing says that it is the truth.
                generation => Refusal::Unfinished { generation, former: generation - 1 },
            });
        };
        let Some(by_now) = ShardBy::of(&found.shard_by) else {
            let reason = Reason::Rule("shard-by is none that this release knows");
            return Err(Refusal::Odd { shard: ShardId(0), key: changelog::IDENTITY.to_owned(), reason });
        };
        let partitions = u32::try_from(old.len()).unwrap_or(u32::MAX);
        let expected = Identity { shards: partitions, shard_by: found.shard_by.clone(), ..self.ours.clone() };
        for identity in old.iter().filter_map(|held| held.identity.as_ref()) {
            let foreign = |mismatch| Refusal::Foreign { topic: self.topic(), mismatch };
            expected.fits(identity).map_err(foreign)?;
        }
        let to = self.to(found);
        match self.from {
            Some(said) if said != partitions => {
                Err(Refusal::OtherCount { said, topic: self.topic(), found: partitions })
            }
            _ if (to.count.get(), to.by) == (partitions, by_now) => {
                Err(Refusal::Same { count: partitions, by: to.by.as_str() })
            }
            _ => Ok(Standing::Due(found.clone())),
        }
    }

    /// Where each record belongs. `found`: what [`Wish::standing`] gave.
    ///
    /// # Errors
    /// When that cannot be said of one.
    pub fn plan<'a>(&self, found: &Identity, old: &'a [Held]) -> Result<Plan<'a>, Refusal> {
        let mut newest: BTreeMap<&str, (ShardId, &Raw)> = BTreeMap::new();
        let (mut doubled, mut unreadable) = (0, 0);
        for (shard, held) in (0..).map(ShardId).zip(old) {
            for (key, raw) in &held.pods {
                let told = |raw: &Raw| raw.about.as_ref().map(|about| about.told).ok();
                match newest.get(key.as_str()) {
                    Some((_, known)) => {
                        doubled += 1;
                        if told(raw) > told(known) {
                            newest.insert(key, (shard, raw));
                        }
                    }
                    None => drop(newest.insert(key, (shard, raw))),
                }
            }
        }
        let to = self.to(found);
        let shards = usize::try_from(to.count.get()).unwrap_or(usize::MAX);
        let mut wanted = vec![BTreeMap::new(); shards];
        for (key, (shard, raw)) in newest {
            let execution_id = match (&raw.about, to.by) {
                (Ok(about), _) => &*about.execution_id,
                (Err(_), ShardBy::Uid) => {
                    unreadable += 1;
                    ""
                }
                (Err(reason), ShardBy::Execution) => {
                    return Err(Refusal::Unreadable { shard, key: key.to_owned(), reason: reason.clone() });
                }
            };
            let uid = changelog::pod_of_key(key).unwrap_or_default();
            let ShardId(place) = to.of(&uid, execution_id);
            let place = usize::try_from(place).ok().and_then(|place| wanted.get_mut(place));
            place.expect("a pod's shard is below their count").insert(key, raw.value.as_slice());
        }
        Ok(Plan { wanted, doubled, unreadable })
    }

    /// What makes the new generation the truth. `found`: what [`Wish::standing`] gave.
    pub fn switch(&self, found: &Identity, old: &[Held]) -> Switch {
        let moved = self.moved(found);
        let identity = Identity {
            generation: moved.generation,
            shards: moved.shards,
            shard_by: moved.shard_by.clone(),
            format: self.ours.format,
            ..found.clone()
        };
        let term = old.iter().filter_map(|held| held.position.as_ref()).map(|position| position.term).max();
        let position =
            Position { term: term.unwrap_or_default(), holder: self.holder.clone(), streams: lowest(found, old) };
        let inherited = inherited(by(found), old, &position);
        Switch { identity, position, inherited, moved }
    }
}

/// As [`Wish::standing`] has found that it can be read.
fn by(found: &Identity) -> ShardBy {
    ShardBy::of(&found.shard_by).expect("no reshard is due from an identity that cannot be read")
}

/// Per watch stream the lowest position, where every shard has one: of the same selection, or it means nothing.
fn lowest(found: &Identity, old: &[Held]) -> BTreeMap<String, crate::watch::pod::ResourceVersion> {
    let same = |identity: &Identity| (&identity.selector, &identity.namespaces) == (&found.selector, &found.namespaces);
    if !old.iter().all(|held| held.identity.as_ref().is_some_and(same)) {
        return BTreeMap::new();
    }
    let streams = |held: &Held| held.position.as_ref().map(|position| position.streams.clone()).unwrap_or_default();
    let all = old.iter().map(streams).reduce(|mut all, next| {
        all.retain(|name, lowest| match next.get(name) {
            Some(reached) => {
                *lowest = (*lowest).min(*reached);
                true
            }
            None => false,
        });
        all
    });
    all.unwrap_or_default()
}

/// What the new shards will see again and must not tell. Those of earlier generations count as long as no old shard can
/// have dropped them for a reset of the cluster's store: whoever dropped one has passed it.
fn inherited(by: ShardBy, old: &[Held], position: &Position) -> Option<Inherited> {
    let count = u32::try_from(old.len()).ok().and_then(NonZeroU32::new)?;
    let positions =
        old.iter().map(|held| held.position.as_ref().map(|position| position.streams.clone()).unwrap_or_default());
    let last = Former { shards: Shards { count, by }, positions: positions.collect() };
    let of = |held: &Held| held.inherited.clone().unwrap_or_default().generations;
    let mut generations = vec![last];
    for former in old.iter().flat_map(of) {
        let stands = |held: &Held| {
            of(held).contains(&former) || held.position.as_ref().is_some_and(|position| former.is_passed(position))
        };
        if !generations.contains(&former) && old.iter().all(stands) {
            generations.push(former);
        }
    }
    generations.retain(|former| !former.is_passed(position));
    (!generations.is_empty()).then_some(Inherited { generations })
}

impl Plan<'_> {
    /// Pods per new shard.
    pub fn counts(&self) -> Vec<usize> {
        self.wanted.iter().map(BTreeMap::len).collect()
    }

    /// What is to be written to the new shards, as they are.
    pub fn differences<'b>(&'b self, new: &'b [Held]) -> Vec<Write<'b>> {
        let mut writes = Vec::new();
        for (index, wanted) in self.wanted.iter().enumerate() {
            let found = new.get(index).map(|held| &held.pods);
            let shard = ShardId(u32::try_from(index).unwrap_or(u32::MAX));
            let keys: BTreeSet<&str> =
                wanted.keys().copied().chain(found.into_iter().flatten().map(|(key, _)| key.as_str())).collect();
            for key in keys {
                let value = wanted.get(key).copied();
                if value != found.and_then(|pods| pods.get(key)).map(|raw| raw.value.as_slice()) {
                    writes.push(Write { shard, key, value });
                }
            }
        }
        writes
    }
}

/// Cuts what is to be written into goes of bounded size: records, and bytes of keys and values unless one alone is larger.
pub fn chunks<'a>(
    writes: &'a [Write<'a>],
    records_max: usize,
    bytes_max: usize,
) -> impl Iterator<Item = &'a [Write<'a>]> {
    let mut rest = writes;
    std::iter::from_fn(move || {
        let mut bytes = 0_usize;
        let fits = |write: &&Write<'_>| {
            bytes += write.key.len() + write.value.map_or(0, <[u8]>::len);
            bytes <= bytes_max
        };
        let count = rest.iter().take(records_max.max(1)).take_while(fits).count().max(1).min(rest.len());
        let (chunk, left) = rest.split_at(count);
        rest = left;
        (!chunk.is_empty()).then_some(chunk)
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
#[path = "plan_laws.rs"]
mod tests;
