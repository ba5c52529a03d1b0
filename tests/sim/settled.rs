//! Whether the shards are led as they should be once nothing goes wrong, and stay where they are.

use std::{collections::BTreeMap, time::Duration};

use crate::cluster::Cluster;

/// Nothing may move for so long.
pub const STILL: Duration = Duration::from_secs(10);

/// Looks every now and then.
#[derive(Default)]
pub struct Settled {
    holders: BTreeMap<u32, String>,
    /// Since when everything is right and nothing moved.
    still_for: Duration,
    /// What is not right yet.
    pub amiss: Option<String>,
    /// It was right for long enough, and then a shard moved.
    pub moved: Option<String>,
}

impl Settled {
    /// Looks, so long after the last time.
    pub fn look(&mut self, cluster: &Cluster, passed: Duration) {
        let holders = cluster.world.etcd().holders();
        self.amiss = amiss(cluster, &holders);
        let same = holders == self.holders;
        if self.is_still() && !same {
            let from = &self.holders;
            self.moved.get_or_insert_with(|| format!("moved: without a reason, from {from:?} to {holders:?}"));
        }
        let right = self.amiss.is_none() && same;
        self.still_for = if right { self.still_for + passed } else { Duration::ZERO };
        self.holders = holders;
    }

    pub fn is_still(&self) -> bool {
        self.still_for >= STILL
    }

    /// What is wrong at the end.
    pub fn wrongs(self) -> impl Iterator<Item = String> {
        let unsettled = (!self.is_still()).then(|| self.amiss.unwrap_or_else(|| "balance: shards keep moving".into()));
        self.moved.into_iter().chain(unsettled)
    }
}

/// Each shard has one leader, who holds its Lease and lives; none leads more than its share.
fn amiss(cluster: &Cluster, holders: &BTreeMap<u32, String>) -> Option<String> {
    let (setting, living) = (cluster.world.setting, cluster.living());
    let shards = cluster.world.generation().shards.get();
    if living.len() < setting.replicas {
        return Some(format!("owner: of {} replicas {} run", setting.replicas, living.len()));
    }
    let observed = cluster.world.observed();
    for shard in 0..shards {
        let permitted = observed.permitted(shard);
        if permitted.len() != 1 || holders.get(&shard).map(String::as_str) != permitted.first().copied() {
            let holder = holders.get(&shard);
            return Some(format!("owner: shard {shard} is led by {permitted:?}, its Lease is held by {holder:?}"));
        }
    }
    let share = (shards as usize).div_ceil(living.len());
    let load = |who: &str| holders.values().filter(|holder| *holder == who).count();
    let busy = living.iter().find(|(_, process)| load(&process.identity) > share);
    busy.map(|(_, process)| {
        format!("balance: {} leads {} shards, its share is {share}", process.identity, load(&process.identity))
    })
}
