//! What the world noticed for the oracle: gaps that no watch could bridge, permits, and what is wrong by itself.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use pod_monitor::leadership::tenure::Tenure;
use tokio::time::Instant;

use super::process::Process;
use crate::oracle::{Gap, Range};

#[derive(Default)]
pub struct Observed {
    /// What no watch could show any more.
    gaps: Vec<Gap>,
    /// Wrong by themselves: two permits at once, a part that panicked.
    pub wrongs: Vec<String>,
    /// Of these shards a wrong notice or an edited Lease excuses two permits at once.
    excused: BTreeSet<u32>,
    permits: Vec<(Arc<Process>, Tenure)>,
    /// Gaps that a process met for a shard and has not watched behind yet: (from, newest LIST since).
    open_gaps: BTreeMap<(String, Range), (u64, u64)>,
}

impl Observed {
    /// A watch of pods from here on was refused: 410.
    pub fn expired(&mut self, who: &str, range: Range, from: u64) {
        let gap = self.open_gaps.entry((who.to_owned(), range)).or_insert((from, from));
        gap.0 = gap.0.min(from);
    }

    /// A LIST of pods was answered.
    pub fn listed(&mut self, who: &str, range: Range, version: u64) {
        if let Some(gap) = self.open_gaps.get_mut(&(who.to_owned(), range)) {
            gap.1 = gap.1.max(version);
        }
    }

    /// A watch of pods was opened.
    pub fn watches(&mut self, who: &str, range: Range) {
        if let Some((after, until)) = self.open_gaps.remove(&(who.to_owned(), range)) {
            self.gaps.push(Gap { range, after, until });
        }
    }

    /// Every gap until now.
    pub fn all_gaps(&self) -> Vec<Gap> {
        let open = self.open_gaps.iter();
        let open = open.map(|((_, range), (after, until))| Gap { range: *range, after: *after, until: *until });
        self.gaps.iter().copied().chain(open).collect()
    }

    /// Two permits at once are no wonder from now on.
    pub fn excuse(&mut self, shards: impl IntoIterator<Item = u32>) {
        self.excused.extend(shards);
    }

    /// Whoever has a permit for a shard now.
    pub fn permitted(&self, shard: u32) -> Vec<&str> {
        let now = Instant::now();
        let of_shard = self.permits.iter().filter(|(_, tenure)| tenure.shard.0 == shard);
        let live = of_shard.filter(|(process, tenure)| !process.is_dead() && !tenure.is_over(now));
        live.map(|(process, _)| process.identity.as_str()).collect()
    }

    /// Says what is wrong, if somebody else has a permit for the same shard, too.
    pub(super) fn acts(&mut self, process: &Arc<Process>, tenure: &Tenure) -> Option<String> {
        let (now, shard) = (Instant::now(), tenure.shard);
        self.permits.retain(|(process, tenure)| !process.is_dead() && !tenure.is_over(now));
        self.permits.retain(|(known, of)| of.shard != shard || known.identity != process.identity);
        if !tenure.is_over(now) {
            self.permits.push((Arc::clone(process), tenure.clone()));
        }
        let who = self.permitted(shard.0);
        if who.len() < 2 || self.excused.contains(&shard.0) {
            return None;
        }
        let what = format!("two permits at once: {} for shard {shard}", who.join(", "));
        self.permits.retain(|(_, tenure)| tenure.shard != shard);
        Some(what)
    }
}
