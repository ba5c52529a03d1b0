//! Generations: between two of them `pod-monitor reshard` changes how many shards there are. Pure.
//!
//! ```text
//!   generation 1: topic pod-monitor.changelog ──reshard──▶ generation 2: topic pod-monitor.changelog.g2
//!     meta/moved in each partition                           meta/identity, meta/position, meta/inherited in each
//! ```
//! Both are written in one transaction: before it the first is the truth, after it the second.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::Position;
use crate::{
    leadership::tenure::ShardId,
    sharding::ranges::Shards,
    watch::pod::{PodUid, ResourceVersion},
};

/// The first one: that of an installation that was never resharded.
pub const FIRST: u32 = 1;

/// The changelog topic of a generation. `base`: `--changelog-topic`.
pub fn changelog_topic(base: &str, generation: u32) -> String {
    if generation <= FIRST { base.to_owned() } else { format!("{base}.g{generation}") }
}

/// Which generation's changelog a topic is, if it is one of this `base`.
pub fn of_topic(base: &str, topic: &str) -> Option<u32> {
    let rest = topic.strip_prefix(base)?;
    let generation = if rest.is_empty() { FIRST } else { rest.strip_prefix(".g")?.parse().ok()? };
    (changelog_topic(base, generation) == topic).then_some(generation)
}

/// The record `meta/moved`: this changelog is no longer the truth, another one is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Moved {
    /// The generation that is.
    pub generation: u32,
    /// Its `--shards`.
    pub shards: u32,
    /// Its `--shard-by`.
    pub shard_by: String,
    /// Its changelog.
    pub topic: String,
}

impl Moved {
    /// The settings that a replica is started with.
    pub fn flags(&self) -> String {
        let by = if self.shard_by == "uid" { String::new() } else { format!(" --shard-by {}", self.shard_by) };
        format!("--shards {}{by} --generation {}", self.shards, self.generation)
    }
}

/// The record `meta/inherited`: how far the shards of earlier generations had come.
///
/// A new shard watches from the lowest of their positions, and so sees again what some of them had worked through. What
/// they know of a pod they handed on; but of one that they had told to its end and forgotten nothing was left to hand on,
/// and it would be told anew.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Inherited {
    /// Of the last generation first; earlier ones where nobody had passed them yet.
    pub generations: Vec<Former>,
}

/// How far the shards of one generation had come.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Former {
    /// How the pods were shared.
    pub shards: Shards,
    /// Of each shard, per watch stream: every observation up to here is committed or needed nothing.
    pub positions: Vec<BTreeMap<String, ResourceVersion>>,
}

impl Former {
    /// Whether the shard of this pod had worked through this version of the stream.
    fn covers(&self, uid: &PodUid, execution_id: &str, stream: &str, version: ResourceVersion) -> bool {
        let ShardId(shard) = self.shards.of(uid, execution_id);
        let of_shard = usize::try_from(shard).ok().and_then(|shard| self.positions.get(shard));
        of_shard.and_then(|streams| streams.get(stream)).is_some_and(|reached| *reached >= version)
    }

    /// The furthest of its positions.
    pub fn furthest(&self) -> ResourceVersion {
        self.positions.iter().flat_map(BTreeMap::values).copied().max().unwrap_or_default()
    }

    /// Whether whoever stands there sees nothing of it again. All streams count alike: they count the changes of one
    /// store.
    pub fn is_passed(&self, position: &Position) -> bool {
        let furthest = self.furthest();
        !position.streams.is_empty() && position.streams.values().all(|reached| *reached >= furthest)
    }
}

impl Inherited {
    /// Whether an earlier generation had worked through this observation of a pod: it is nothing to tell of.
    pub fn covers(&self, uid: &PodUid, execution_id: &str, stream: &str, version: ResourceVersion) -> bool {
        self.generations.iter().any(|former| former.covers(uid, execution_id, stream, version))
    }

    /// No consistent LIST is older, unless the cluster's store was reset.
    pub fn furthest(&self) -> ResourceVersion {
        self.generations.iter().map(Former::furthest).max().unwrap_or_default()
    }

    /// Whether it is of no use once `next` is committed after `last`: all of it was passed, or the cluster's store was
    /// reset, so that its versions mean nothing any more.
    pub fn is_spent(&self, last: Option<&Position>, next: &Position) -> bool {
        let back = |(stream, reached): (&String, &ResourceVersion)| {
            last.and_then(|last| last.streams.get(stream)).is_some_and(|last| reached < last)
        };
        next.streams.iter().any(back) || self.generations.iter().all(|former| former.is_passed(next))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use std::num::NonZeroU32;

    use super::*;
    use crate::lifecycle::rules::ShardBy;

    fn position(versions: &[(&str, u64)]) -> Position {
        Position { term: 1, holder: "h".into(), streams: streams(versions) }
    }

    fn streams(versions: &[(&str, u64)]) -> BTreeMap<String, ResourceVersion> {
        versions.iter().map(|(name, version)| ((*name).to_owned(), ResourceVersion(*version))).collect()
    }

    fn uid(text: &str) -> PodUid {
        PodUid(text.into())
    }

    fn two(by: ShardBy) -> Shards {
        Shards { count: NonZeroU32::new(2).unwrap(), by }
    }

    /// A text that two shards put into this one.
    fn in_shard(shard: u32, by: ShardBy) -> String {
        let of = |text: &String| two(by).of(&uid(text), text) == ShardId(shard);
        (0..100).map(|n: u32| format!("{n}{n}")).find(of).unwrap()
    }

    #[test]
    fn each_generation_has_a_changelog_of_its_own() {
        assert_eq!(changelog_topic("log", 1), "log");
        assert_eq!(changelog_topic("log", 2), "log.g2");
        for (topic, generation) in [
            ("log", Some(1)),
            ("log.g2", Some(2)),
            ("log.g17", Some(17)),
            ("log.g1", None),
            ("log.g02", None),
            ("log.g", None),
            ("logs", None),
            ("other", None),
        ] {
            assert_eq!(of_topic("log", topic), generation, "{topic}");
        }
    }

    #[test]
    fn moved_says_what_replicas_are_started_with() {
        let moved = |by: &str| Moved { generation: 3, shards: 4, shard_by: by.into(), topic: "t".into() };
        assert_eq!(moved("uid").flags(), "--shards 4 --generation 3");
        assert_eq!(moved("execution").flags(), "--shards 4 --shard-by execution --generation 3");
    }

    #[test]
    fn what_the_old_shard_of_a_pod_had_worked_through_is_covered() {
        for by in [ShardBy::Uid, ShardBy::Execution] {
            let former = Former { shards: two(by), positions: vec![streams(&[("a", 10)]), streams(&[("a", 20)])] };
            let inherited = Inherited { generations: vec![former] };
            let (slow, quick) = (in_shard(0, by), in_shard(1, by));
            let covers = |text: &str, stream: &str, version| {
                let (by_uid, other) = (by == ShardBy::Uid, in_shard(0, ShardBy::Uid));
                let uid = if by_uid { uid(text) } else { uid(&other) };
                inherited.covers(&uid, if by_uid { "" } else { text }, stream, ResourceVersion(version))
            };
            assert_eq!([9, 10, 11].map(|version| covers(&slow, "a", version)), [true, true, false], "{by:?}");
            assert_eq!([10, 20, 21].map(|version| covers(&quick, "a", version)), [true, true, false], "{by:?}");
            assert!(!covers(&quick, "b", 1), "a stream that it did not watch");
        }
        assert!(!Inherited::default().covers(&uid("u"), "e", "a", ResourceVersion(0)));
    }

    #[test]
    fn what_was_inherited_is_spent_once_it_was_passed_or_the_store_was_reset() {
        let former = Former {
            shards: two(ShardBy::Uid),
            positions: vec![streams(&[("a", 10), ("b", 12)]), streams(&[("a", 20)])],
        };
        let inherited = Inherited { generations: vec![former] };
        assert_eq!(inherited.furthest(), ResourceVersion(20));
        let spent =
            |last: &[(&str, u64)], next: &[(&str, u64)]| inherited.is_spent(Some(&position(last)), &position(next));
        assert!(!spent(&[("a", 10)], &[("a", 19)]));
        assert!(spent(&[("a", 10)], &[("a", 20)]));
        assert!(!spent(&[("a", 10), ("b", 12)], &[("a", 20), ("b", 13)]), "one stream is behind");
        assert!(spent(&[("a", 10), ("b", 12)], &[("a", 25), ("b", 9)]), "only a reset store goes back");
        assert!(!inherited.is_spent(None, &position(&[])), "nowhere yet");
        assert!(inherited.is_spent(None, &position(&[("", 20)])), "another selection begins with a newer LIST");
    }
}
