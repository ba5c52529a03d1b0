//! Whose changelog this is: the record `meta/identity`. The record is the truth, not the flags: a replica whose flags
//! do not fit must neither contend nor write. Pure.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};

use super::generation::{self, Moved};

/// The format of changelogs that this release writes.
pub const FORMAT: u16 = crate::lifecycle::tracked::FORMAT;

/// The installation that a changelog belongs to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    /// UID of the namespace kube-system, or `--cluster-id`.
    pub cluster_id: String,
    /// `--lease-namespace`
    pub lease_namespace: String,
    /// `--lease-name`: the installation's name.
    pub lease_name: String,
    /// `--generation`: raised by each `reshard`.
    pub generation: u32,
    /// `--shards`
    pub shards: u32,
    /// `--shard-by`
    pub shard_by: String,
    /// `--selector`. May change from one start to the next: it only says which pods are asked for.
    pub selector: String,
    /// `--namespace`; empty for all. May change like the selector.
    pub namespaces: Vec<String>,
    /// Format of the changelog's records.
    pub format: u16,
}

/// A changelog that belongs to another installation.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{key} is {ours:?} here, but {theirs:?} in the changelog: {mend}")]
pub struct Mismatch {
    /// Which setting differs.
    pub key: &'static str,
    /// The value that this replica was started with.
    pub ours: String,
    /// The value in the changelog.
    pub theirs: String,
    /// What to do about it.
    pub mend: Cow<'static, str>,
}

impl Identity {
    /// Whether this replica (`self`) may work with a changelog that says this of itself, read to its end.
    pub fn may_use(&self, found: Option<&Self>, moved: Option<&Moved>) -> Result<(), Mismatch> {
        let wrong = |theirs: String, mend: String| {
            Err(Mismatch { key: "generation", ours: self.generation.to_string(), theirs, mend: mend.into() })
        };
        match (moved, found) {
            (Some(moved), _) => wrong(
                moved.generation.to_string(),
                format!(
                    "this changelog was resharded to generation {} with {} shards: start with {}",
                    moved.generation,
                    moved.shards,
                    moved.flags()
                ),
            ),
            (None, Some(found)) => self.fits(found),
            // Whoever took it for new would tell everything anew.
            (None, None) if self.generation > generation::FIRST => wrong(
                "none".to_owned(),
                "`pod-monitor reshard` has not ended yet: run it to its end, or start with the --shards and the \
                 --generation that it begins from"
                    .to_owned(),
            ),
            (None, None) => Ok(()),
        }
    }

    /// Whether this replica (`self`) may work with a changelog written by `other`. Selector and namespaces may differ.
    pub fn fits(&self, other: &Self) -> Result<(), Mismatch> {
        const OTHER_TOPIC: &str =
            "use the settings of the installation that owns this changelog, or another --changelog-topic";
        const RESHARD: &str = "start with the old value, or run `pod-monitor reshard`";
        let pairs = [
            ("cluster-id", self.cluster_id.clone(), other.cluster_id.clone(), OTHER_TOPIC),
            ("lease-namespace", self.lease_namespace.clone(), other.lease_namespace.clone(), OTHER_TOPIC),
            ("lease-name", self.lease_name.clone(), other.lease_name.clone(), OTHER_TOPIC),
            ("shards", self.shards.to_string(), other.shards.to_string(), RESHARD),
            ("shard-by", self.shard_by.clone(), other.shard_by.clone(), RESHARD),
            (
                "generation",
                self.generation.to_string(),
                other.generation.to_string(),
                "restart all replicas with the settings that the last `pod-monitor reshard` printed",
            ),
        ];
        for (key, ours, theirs, mend) in pairs {
            if ours != theirs {
                return Err(Mismatch { key, ours, theirs, mend: mend.into() });
            }
        }
        // An older format is read and then rewritten in ours; a newer one may mean things that we do not know.
        if other.format > self.format {
            let (ours, theirs) = (self.format.to_string(), other.format.to_string());
            return Err(Mismatch {
                key: "format",
                ours,
                theirs,
                mend: "run the release that wrote it, or a later one".into(),
            });
        }
        Ok(())
    }

    /// The transactional id of a shard: `<cluster id>.<lease namespace>.<lease name>.g<generation>.<shard>`.
    pub fn transactional_id(&self, shard: crate::leadership::tenure::ShardId) -> String {
        format!("{}.{}.{}.g{}.{shard}", self.cluster_id, self.lease_namespace, self.lease_name, self.generation)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    fn identity() -> Identity {
        Identity {
            cluster_id: "c".into(),
            lease_namespace: "ns".into(),
            lease_name: "pod-monitor".into(),
            generation: 1,
            shards: 2,
            shard_by: "uid".into(),
            selector: "app=x".into(),
            namespaces: vec!["default".into()],
            format: FORMAT,
        }
    }

    #[test]
    fn identity_names_the_key_that_differs_and_its_mend() {
        type Change = fn(&mut Identity);
        let cases: [(&str, Change); 7] = [
            ("cluster-id", |i| i.cluster_id = "d".into()),
            ("lease-namespace", |i| i.lease_namespace = "d".into()),
            ("lease-name", |i| i.lease_name = "d".into()),
            ("generation", |i| i.generation = 2),
            ("shards", |i| i.shards = 3),
            ("shard-by", |i| i.shard_by = "execution".into()),
            ("format", |i| i.format += 1),
        ];
        for (key, change) in cases {
            let mut other = identity();
            change(&mut other);
            let mismatch = identity().fits(&other).expect_err(key);
            assert_eq!(mismatch.key, key);
            assert!(!mismatch.mend.is_empty() && mismatch.to_string().contains(key), "{mismatch}");
        }
        let selector = Identity { selector: "other".into(), namespaces: vec![], ..identity() };
        assert_eq!(identity().fits(&selector), Ok(()));
        assert_eq!(identity().fits(&Identity { format: 0, ..identity() }), Ok(()));
    }

    #[test]
    fn a_generation_is_used_from_its_reshard_on_until_the_next() {
        let moved = Moved { generation: 2, shards: 4, shard_by: "execution".into(), topic: "log.g2".into() };
        let said = identity().may_use(Some(&identity()), Some(&moved)).expect_err("moved").to_string();
        for part in
            ["generation", "resharded to generation 2 with 4 shards", "--shards 4 --shard-by execution --generation 2"]
        {
            assert!(said.contains(part), "{part}: {said}");
        }
        assert_eq!(identity().may_use(Some(&identity()), None), Ok(()));
        assert_eq!(identity().may_use(None, None), Ok(()), "a new installation");
        let second = Identity { generation: 2, ..identity() };
        let said = second.may_use(None, None).expect_err("nobody made it").to_string();
        assert!(said.contains("`pod-monitor reshard` has not ended yet"), "{said}");
        assert_eq!(second.may_use(Some(&second), None), Ok(()));
        assert_eq!(second.may_use(Some(&identity()), None).expect_err("another").key, "generation");
    }

    #[test]
    fn transactional_id_names_installation_generation_and_shard() {
        assert_eq!(identity().transactional_id(crate::leadership::tenure::ShardId(3)), "c.ns.pod-monitor.g1.3");
    }
}
