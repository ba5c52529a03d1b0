//! The Leases of an installation, as `status` looks at them.
//!
//! That a holder lives is judged as the election does it: by whether its Lease changes while we look, on the monotonic
//! clock. Only where the times that it wrote look fresh is that not waited for.

use std::{collections::BTreeMap, time::Duration};

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::coordination::v1::Lease;
use kube::{Api, Client, api::ListParams};
use tokio::time::{Instant, sleep, timeout};

use crate::{
    clock,
    leadership::record::{INSTALLATION, Record},
};

/// How long one call may take.
const CALL_MAX: Duration = Duration::from_secs(10);
/// Between two looks at Leases that look stale.
const LOOK_EVERY: Duration = Duration::from_millis(250);
/// Longest watch of one that looks stale, whatever duration it names.
const WATCH_MAX: Duration = Duration::from_secs(60);

/// Why they could not be read.
#[derive(Debug, thiserror::Error)]
pub(super) enum Error {
    #[error(
        "list leases in namespace {namespace}: the API server refuses ({said}). Grant it: kubectl create role \
         pod-monitor-status --verb=list --resource=leases.coordination.k8s.io --namespace {namespace}, and bind it to this user"
    )]
    Forbidden { namespace: String, said: String },
    #[error("list leases in namespace {namespace}: no answer within {CALL_MAX:?}")]
    Timeout { namespace: String },
    #[error("list leases in namespace {namespace}")]
    Failed {
        namespace: String,
        #[source]
        source: Box<kube::Error>,
    },
}

/// One Lease.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Seen {
    pub(super) record: Record,
    pub(super) acquired_at: Option<Timestamp>,
    pub(super) renewed_at: Option<Timestamp>,
    /// It did not change for its whole duration while we looked.
    pub(super) silent: bool,
}

impl Seen {
    fn of(lease: &Lease) -> Self {
        let spec = lease.spec.as_ref();
        Self {
            record: Record::read(lease),
            acquired_at: spec.and_then(|spec| spec.acquire_time.as_ref()).map(|time| time.0),
            renewed_at: spec.and_then(|spec| spec.renew_time.as_ref()).map(|time| time.0),
            silent: false,
        }
    }

    /// Who holds it, as far as that can be known.
    pub(super) fn holder(&self) -> Option<&str> {
        Some(&*self.record.holder).filter(|holder| !holder.is_empty())
    }

    /// Whether its times do not show that its holder lives.
    fn is_doubtful(&self, now: Timestamp) -> bool {
        let Some(renewed_at) = self.renewed_at else { return self.holder().is_some() };
        let age = now.duration_since(renewed_at);
        let fresh = SignedDuration::try_from(self.record.lease_duration).unwrap_or(SignedDuration::ZERO);
        self.holder().is_some() && !(SignedDuration::ZERO..=fresh).contains(&age)
    }
}

/// All of them.
#[derive(Debug, Clone)]
pub(super) struct Leases {
    namespace: String,
    name: String,
    asked: Option<u32>,
    pub(super) shards: BTreeMap<u32, Seen>,
    pub(super) members: Vec<Seen>,
}

impl Leases {
    /// Looks once.
    pub(super) async fn of(client: &Client, namespace: &str, name: &str, shards: Option<u32>) -> Result<Self, Error> {
        let api: Api<Lease> = Api::namespaced(client.clone(), namespace);
        let all = match list(&api, namespace, &ListParams::default()).await {
            // The monitor's own role names its Leases one by one.
            Err(Error::Forbidden { .. }) => {
                let mut named = Vec::new();
                for shard in 0..shards.unwrap_or(1) {
                    let only = ListParams::default().fields(&format!("metadata.name={name}-{shard}"));
                    named.extend(list(&api, namespace, &only).await?);
                }
                named
            }
            all => all?,
        };
        Ok(Self::among(namespace, name, shards, &all))
    }

    fn among(namespace: &str, name: &str, asked: Option<u32>, all: &[Lease]) -> Self {
        let mut found = Self {
            namespace: namespace.to_owned(),
            name: name.to_owned(),
            asked,
            shards: BTreeMap::new(),
            members: Vec::new(),
        };
        for lease in all {
            let (seen, label) =
                (Seen::of(lease), lease.metadata.labels.as_ref().and_then(|labels| labels.get(INSTALLATION)));
            if label.is_some_and(|of| of == name) {
                found.members.push(seen);
            } else if let Some(shard) = lease.metadata.name.as_deref().and_then(|lease| shard(lease, name)) {
                found.shards.insert(shard, seen);
            }
        }
        found
    }

    /// Where replicas say that they are reached.
    pub(super) fn addresses(&self) -> impl Iterator<Item = String> {
        let all = self.shards.values().chain(&self.members).filter(|seen| seen.holder().is_some());
        all.filter_map(|seen| seen.record.address.as_deref().map(str::to_owned))
    }

    /// Watches those whose times look stale, until they change or are silent.
    pub(super) async fn settled(mut self, client: &Client) -> Result<Self, Error> {
        let now = clock::now();
        let mut doubtful: Vec<u32> =
            self.shards.iter().filter(|(_, seen)| seen.is_doubtful(now)).map(|(shard, _)| *shard).collect();
        let began = Instant::now();
        while !doubtful.is_empty() {
            sleep(LOOK_EVERY).await;
            let next = Self::of(client, &self.namespace, &self.name, self.asked).await?;
            doubtful.retain(|shard| match (self.shards.get_mut(shard), next.shards.get(shard)) {
                (Some(seen), Some(next)) if seen.record.version == next.record.version => {
                    seen.silent = began.elapsed() >= seen.record.lease_duration.min(WATCH_MAX);
                    !seen.silent
                }
                (Some(seen), Some(next)) => {
                    *seen = next.clone();
                    false
                }
                // Deleted meanwhile.
                _ => {
                    self.shards.remove(shard);
                    false
                }
            });
        }
        Ok(self)
    }
}

/// Which shard's Lease that is, if it is one.
fn shard(lease: &str, name: &str) -> Option<u32> {
    let number = lease.strip_prefix(name)?.strip_prefix('-')?;
    number.parse().ok().filter(|shard: &u32| shard.to_string() == number)
}

async fn list(api: &Api<Lease>, namespace: &str, params: &ListParams) -> Result<Vec<Lease>, Error> {
    let namespace = namespace.to_owned();
    match timeout(CALL_MAX, api.list(params)).await {
        Err(_) => Err(Error::Timeout { namespace }),
        Ok(Err(kube::Error::Api(status))) if matches!(status.code, 401 | 403) => {
            Err(Error::Forbidden { namespace, said: status.message.clone() })
        }
        Ok(Err(source)) => Err(Error::Failed { namespace, source: Box::new(source) }),
        Ok(Ok(list)) => Ok(list.items),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use serde_json::json;

    use super::*;

    fn lease(name: &str, holder: &str, member: bool) -> Lease {
        let labels = if member { json!({ INSTALLATION: "runs" }) } else { json!({}) };
        serde_json::from_value(json!({ "metadata": { "name": name, "resourceVersion": "1", "labels": labels,
            "annotations": { "pod-monitor.dev/address": "10.0.0.1:8080", "pod-monitor.dev/instance": holder } },
            "spec": { "holderIdentity": holder, "leaseDurationSeconds": 5, "renewTime": "2026-01-02T03:04:05.000000Z" } }))
        .unwrap()
    }

    #[test]
    fn leases_of_shards_and_of_members_are_told_apart() {
        let all = [
            lease("runs-0", "a", false),
            lease("runs-12", "", false),
            lease("runs-member-3", "b", true),
            lease("runs-07", "c", false),
            lease("runs-2-0", "c", false),
            lease("other-0", "c", false),
        ];
        let found = Leases::among("ns", "runs", None, &all);
        assert_eq!(found.shards.keys().copied().collect::<Vec<_>>(), [0, 12]);
        assert_eq!((found.members.len(), found.shards[&12].holder()), (1, None));
        assert_eq!(found.addresses().count(), 2, "who holds nothing is not asked");
    }

    #[test]
    fn only_a_holder_whose_times_are_fresh_is_believed_at_once() {
        let seen = Seen::of(&lease("runs-0", "a", false));
        let at = |seconds: i64| seen.renewed_at.unwrap() + SignedDuration::from_secs(seconds);
        for (seconds, doubtful) in [(0, false), (5, false), (6, true), (-1, true)] {
            assert_eq!(seen.is_doubtful(at(seconds)), doubtful, "{seconds}");
        }
        assert!(!Seen::of(&lease("runs-0", "", false)).is_doubtful(at(60)), "there is nobody to be doubted");
        assert!(Seen { renewed_at: None, ..seen.clone() }.is_doubtful(at(0)), "a Lease edited by hand");
    }
}
