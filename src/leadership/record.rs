//! What a Lease says, as far as the election needs it, and what is presented to the crate that writes it. Pure.

use std::{collections::BTreeMap, time::Duration};

use jiff::Timestamp;
use k8s_openapi::{
    api::coordination::v1::{Lease, LeaseSpec},
    apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta},
};

/// Where the holder is reached by the other replicas, as host:port.
pub const ADDRESS: &str = "pod-monitor.dev/address";
/// Which instance listens there. A notice of its death counts only while this is the holder: they are written together.
pub const INSTANCE: &str = "pod-monitor.dev/instance";

/// Label of member Leases: the installation that they belong to.
pub const INSTALLATION: &str = "pod-monitor.dev/members-of";

/// A Lease's resourceVersion: an ordered integer (KEP-5504).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Version(pub u64);

/// What a Lease says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// `metadata.resourceVersion`
    pub version: Version,
    /// `spec.holderIdentity`; empty where nobody holds it.
    pub holder: Box<str>,
    /// `spec.leaseDurationSeconds`; zero where absent or negative.
    pub lease_duration: Duration,
    /// `spec.leaseTransitions`; 0 where absent.
    pub transitions: i32,
    /// Where its holder is reached, where the holder itself wrote it.
    pub address: Option<Box<str>>,
}

impl Record {
    /// Reads a Lease. Total: it may have been edited by hand.
    pub fn read(lease: &Lease) -> Self {
        let spec = lease.spec.as_ref();
        let holder: Box<str> = spec.and_then(|s| s.holder_identity.as_deref()).unwrap_or_default().into();
        let seconds = spec.and_then(|s| s.lease_duration_seconds).unwrap_or_default();
        let annotation = |key: &str| lease.metadata.annotations.as_ref().and_then(|a| a.get(key));
        let address = annotation(ADDRESS).filter(|_| annotation(INSTANCE).is_some_and(|i| **i == *holder));
        Self {
            version: version(lease),
            lease_duration: Duration::from_secs(u64::try_from(seconds).unwrap_or_default()),
            transitions: spec.and_then(|s| s.lease_transitions).unwrap_or_default(),
            address: address.map(|address| address.as_str().into()),
            holder,
        }
    }
}

/// The Lease's resourceVersion; 0 where it cannot be read.
pub fn version(lease: &Lease) -> Version {
    Version(lease.metadata.resource_version.as_deref().and_then(|v| v.parse().ok()).unwrap_or_default())
}

/// The annotations that a holder writes beside its identity.
pub fn annotations(me: &str, address: Option<&str>) -> BTreeMap<&'static str, Option<String>> {
    // A null removes the annotation of an earlier holder.
    BTreeMap::from([(ADDRESS, address.map(str::to_owned)), (INSTANCE, Some(me.to_owned()))])
}

/// A Lease that the crate takes for expired, whatever the real one says: with every field that it insists on.
pub fn expired(name: &str, transitions: i32) -> Lease {
    let spec = LeaseSpec {
        holder_identity: Some(String::new()),
        renew_time: Some(MicroTime(Timestamp::UNIX_EPOCH)),
        lease_duration_seconds: Some(1),
        // The crate adds 1 to it.
        lease_transitions: Some(transitions.clamp(0, i32::MAX - 1)),
        ..LeaseSpec::default()
    };
    presented(name, spec)
}

/// A Lease that the crate takes for its own.
pub fn own(name: &str, me: &str) -> Lease {
    presented(name, LeaseSpec { holder_identity: Some(me.to_owned()), ..LeaseSpec::default() })
}

fn presented(name: &str, spec: LeaseSpec) -> Lease {
    Lease { metadata: ObjectMeta { name: Some(name.to_owned()), ..ObjectMeta::default() }, spec: Some(spec) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lease(json: serde_json::Value) -> Record {
        Record::read(&serde_json::from_value(json).expect("a Lease"))
    }

    #[test]
    fn a_lease_edited_by_hand_is_read_all_the_same() {
        let empty = lease(serde_json::json!({ "metadata": { "resourceVersion": "7" } }));
        assert_eq!((empty.version, &*empty.holder, empty.transitions), (Version(7), "", 0));
        let odd = lease(serde_json::json!({ "metadata": { "resourceVersion": "x" },
            "spec": { "holderIdentity": null, "leaseDurationSeconds": -5, "leaseTransitions": 3 } }));
        assert_eq!((odd.version, odd.lease_duration, odd.transitions), (Version(0), Duration::ZERO, 3));
    }

    #[test]
    fn an_address_counts_only_for_the_holder_that_wrote_it() {
        let of = |instance: &str| {
            lease(serde_json::json!({ "spec": { "holderIdentity": "a" },
                "metadata": { "annotations": { ADDRESS: "10.0.0.1:8080", INSTANCE: instance } } }))
        };
        assert_eq!(of("a").address.as_deref(), Some("10.0.0.1:8080"));
        assert_eq!(of("b").address, None, "another client took the Lease and left our annotations");
    }
}
