//! Which shard a pod belongs to. Pure.
//!
//! ```text
//!   by uid:        FNV-1a(64) of metadata.uid ──▶ one of N equal, contiguous ranges of [0, 2^64)
//!   by execution:  FNV-1a(64) of the execution id, mixed ──▶ the same ranges
//! ```
//! By uid these are exactly the ranges of Kubernetes' server-side sharded LIST and WATCH (KEP-5866, `shardSelector`), so
//! that the API server can send each shard its own pods only. What belongs to a shard is decided here all the same,
//! whatever the server sent.

use std::num::NonZeroU32;

use crate::{
    leadership::tenure::ShardId,
    lifecycle::{
        identity::{IdSources, ids},
        rules::ShardBy,
    },
    watch::pod::{Metadata, PodUid},
};

const FNV_OFFSET: u64 = 0xcbf2_9ce4_8422_2325;
const FNV_PRIME: u64 = 0x0000_0100_0000_01b3;

/// FNV-1a, 64 bits: what Kubernetes hashes by.
pub fn fnv1a(bytes: &[u8]) -> u64 {
    bytes.iter().fold(FNV_OFFSET, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(FNV_PRIME))
}

/// The finalizer of MurmurHash3: each bit of the input reaches each bit of the output. FNV-1a leaves the upper bits of
/// short texts nearly alike, and ranges go by the upper bits: executions 1 to 9 would all be in one shard.
fn mixed(hash: u64) -> u64 {
    let hash = (hash ^ (hash >> 33)).wrapping_mul(0xff51_afd7_ed55_8ccd);
    let hash = (hash ^ (hash >> 33)).wrapping_mul(0xc4ce_b9fe_1a85_ec53);
    hash ^ (hash >> 33)
}

/// How the pods are shared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Shards {
    /// `--shards`
    pub count: NonZeroU32,
    /// `--shard-by`
    pub by: ShardBy,
}

impl Shards {
    /// One shard, with every pod in it.
    pub const ONE: Self = Self { count: NonZeroU32::MIN, by: ShardBy::Uid };

    /// All of them.
    pub fn all(self) -> impl Iterator<Item = ShardId> {
        (0..self.count.get()).map(ShardId)
    }

    /// The shard of a pod with this UID, of this execution.
    pub fn of(self, uid: &PodUid, execution_id: &str) -> ShardId {
        let hash = match self.by {
            ShardBy::Uid => fnv1a(uid.0.as_bytes()),
            ShardBy::Execution => mixed(fnv1a(execution_id.as_bytes())),
        };
        let shard = (u128::from(hash) * u128::from(self.count.get())) >> 64;
        ShardId(u32::try_from(shard).expect("a hash below 2^64 times a count, over 2^64, is below the count"))
    }

    /// The first hash of a shard; of the one after the last it is 2^64.
    fn start(self, shard: u32) -> u128 {
        (u128::from(shard) << 64).div_ceil(u128::from(self.count.get()))
    }

    /// What the API server is asked for, to send the pods of one shard only; `None` where it could not tell them apart, or
    /// there is nothing to leave out.
    pub fn selector(self, shard: ShardId) -> Option<String> {
        let (from, to) = (self.start(shard.0), self.start(shard.0 + 1));
        let splits = self.by == ShardBy::Uid && self.count.get() > 1;
        splits.then(|| format!("shardRange(object.metadata.uid, '0x{from:016x}', '0x{to:016x}')"))
    }
}

/// The pods of one shard.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Share {
    /// How the pods are shared.
    pub shards: Shards,
    /// Which part this is.
    pub shard: ShardId,
    /// Where execution ids come from.
    pub ids: IdSources,
}

impl Share {
    /// Every pod there is.
    pub fn whole() -> Self {
        Self { shards: Shards::ONE, shard: ShardId(0), ids: IdSources::default() }
    }

    /// Whether a pod belongs to it.
    pub fn holds(&self, metadata: &Metadata) -> bool {
        if self.shards.count == NonZeroU32::MIN {
            return true;
        }
        let of = |execution_id: &str| self.shards.of(&metadata.uid, execution_id) == self.shard;
        match self.shards.by {
            ShardBy::Uid => of(""),
            ShardBy::Execution => of(&ids(metadata, &self.ids).execution_id),
        }
    }

    /// What the API server is asked for: see [`Shards::selector`].
    pub fn selector(&self) -> Option<String> {
        self.shards.selector(self.shard)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    fn shards(count: u32, by: ShardBy) -> Shards {
        Shards { count: NonZeroU32::new(count).unwrap(), by }
    }

    #[test]
    fn hash_is_that_of_kubernetes() {
        // Vectors of the algorithm's authors, and of apimachinery/pkg/sharding/hash_test.go's kind: 16 hex digits.
        for (text, hash) in
            [("", 0xcbf2_9ce4_8422_2325), ("a", 0xaf63_dc4c_8601_ec8c), ("foobar", 0x8594_4171_f739_67e8)]
        {
            assert_eq!(fnv1a(text.as_bytes()), hash, "{text:?}");
        }
    }

    #[test]
    fn selectors_are_written_as_the_server_reads_them() {
        let two = shards(2, ShardBy::Uid);
        let selector = |k| two.selector(ShardId(k)).unwrap();
        assert_eq!(selector(0), "shardRange(object.metadata.uid, '0x0000000000000000', '0x8000000000000000')");
        assert_eq!(selector(1), "shardRange(object.metadata.uid, '0x8000000000000000', '0x10000000000000000')");
        assert_eq!(shards(1, ShardBy::Uid).selector(ShardId(0)), None, "nothing to leave out");
        assert_eq!(shards(2, ShardBy::Execution).selector(ShardId(0)), None, "the server knows no executions");
    }

    #[test]
    fn pods_and_short_execution_ids_are_shared_evenly() {
        for (count, by) in [(2, ShardBy::Uid), (8, ShardBy::Uid), (2, ShardBy::Execution), (8, ShardBy::Execution)] {
            let shards = shards(count, by);
            let mut counts = vec![0_u32; usize::try_from(count).unwrap()];
            for n in 0..8000_u32 {
                let uid = PodUid(uuid::Uuid::new_v5(&uuid::Uuid::NAMESPACE_OID, &n.to_be_bytes()).to_string().into());
                counts[usize::try_from(shards.of(&uid, &n.to_string()).0).unwrap()] += 1;
            }
            let even = 8000 / count;
            assert!(counts.iter().all(|n| n.abs_diff(even) < even / 5), "{by:?}: {counts:?}");
        }
    }

    proptest::proptest! {
        #[test]
        fn each_pod_is_in_the_one_range_that_the_server_would_choose(uid: String, execution: String, count in 1u32..300) {
            let shards = shards(count, ShardBy::Uid);
            let hash = u128::from(fnv1a(uid.as_bytes()));
            let within = |shard: &ShardId| hash >= shards.start(shard.0) && hash < shards.start(shard.0 + 1);
            let ranges: Vec<ShardId> = shards.all().filter(within).collect();
            proptest::prop_assert_eq!(ranges, [shards.of(&PodUid(uid.as_str().into()), &execution)]);
            proptest::prop_assert_eq!((shards.start(0), shards.start(count)), (0, 1 << 64));
        }
    }
}
