//! One Lease at the API server: read, watched, taken, renewed, released. Taking and renewing go through
//! kube-leader-election, behind the guard.
//!
//! Has a client of its own, so that nothing else's traffic delays it, without the client's retries and with a limit on
//! each call that leaves time for a second try within the renew deadline.

use std::{
    sync::{Arc, PoisonError},
    time::Duration,
};

use futures::{StreamExt as _, TryStreamExt as _};
use http::Request;
use k8s_openapi::api::coordination::v1::Lease;
use kube::{
    Api, Client,
    api::{ListParams, WatchEvent, WatchParams},
};
use kube_leader_election::{LeaseLock, LeaseLockParams, LeaseLockResult};
use serde_json::json;
use tokio::{sync::mpsc, time::timeout};

use super::{
    election::{Answer, Times},
    guard::{Decided, Guard, Slot},
    record::{self, Record, Version},
};
use crate::watch::stream::Backoff;

/// How much longer than the server keeps a watch open it may be silent: then it is half-open.
const SPARE: Duration = Duration::from_secs(5);

/// Why the API server did not let us read or write the Lease.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// 401 or 403.
    #[error(
        "{verb} lease {namespace}/{name}: the API server refuses ({said}). Grant it: kubectl create role pod-monitor-leases --verb=list,watch,create,patch --resource=leases.coordination.k8s.io --namespace {namespace}, and bind it to this ServiceAccount"
    )]
    Forbidden {
        /// The RBAC verb that is missing.
        verb: &'static str,
        /// `--lease-namespace`
        namespace: String,
        /// The Lease.
        name: String,
        /// The server's words.
        said: String,
    },
    /// No answer in time.
    #[error("{verb} lease {namespace}/{name}: no answer within {limit:?}")]
    Timeout {
        /// What was asked.
        verb: &'static str,
        /// `--lease-namespace`
        namespace: String,
        /// The Lease.
        name: String,
        /// The limit.
        limit: Duration,
    },
    /// Anything else.
    #[error("{verb} lease {namespace}/{name}")]
    Failed {
        /// What was asked.
        verb: &'static str,
        /// `--lease-namespace`
        namespace: String,
        /// The Lease.
        name: String,
        /// What the client or the crate says.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

/// The Lease of one shard.
pub struct Leases {
    client: Client,
    lock: LeaseLock,
    slot: Slot,
    namespace: String,
    name: String,
    me: String,
    call_max: Duration,
    watch_seconds: u32,
}

/// A Lease as it was read: `None` where there is none, as of that version.
pub type Seen = (Option<Record>, Version);

impl Leases {
    /// Over a client of its own, without retries. `address`: where the other replicas reach us, as host:port.
    pub fn new(client: Client, namespace: &str, name: &str, me: &str, address: Option<&str>, times: Times) -> Self {
        let slot = Slot::default();
        let decided = Decided { me: me.to_owned(), address: address.map(str::to_owned), ..Decided::default() };
        *slot.lock().unwrap_or_else(PoisonError::into_inner) = decided;
        let guarded = Client::new(Guard::new(client.clone(), Arc::clone(&slot)), namespace);
        let params =
            LeaseLockParams { lease_name: name.to_owned(), holder_id: me.to_owned(), lease_ttl: times.lease_duration };
        Self {
            lock: LeaseLock::new(guarded, namespace, params),
            client,
            slot,
            namespace: namespace.to_owned(),
            name: name.to_owned(),
            me: me.to_owned(),
            call_max: call_max(times),
            watch_seconds: watch_seconds(times),
        }
    }

    /// Labels it as a member Lease of this installation.
    #[must_use]
    pub fn member_of(self, installation: &str) -> Self {
        self.slot.lock().unwrap_or_else(PoisonError::into_inner).installation = Some(installation.to_owned());
        self
    }

    fn api(&self) -> Api<Lease> {
        Api::namespaced(self.client.clone(), &self.namespace)
    }

    /// Writes that we hold it, if it still is as `seen` says (`None`: if there is none).
    pub async fn take(&self, seen: Option<&Record>) -> (Answer, Option<Error>) {
        match seen {
            // An answer that we never heard made it ours.
            Some(record) if *record.holder == *self.me => self.renew(record.version).await,
            Some(record) => {
                let presented = record::expired(&self.name, record.transitions);
                self.write("patch", Some(presented), Some(record.version)).await
            }
            None => self.write("create", None, None).await,
        }
    }

    /// Writes that we still hold it, if it still has this version.
    pub async fn renew(&self, version: Version) -> (Answer, Option<Error>) {
        self.write("patch", Some(record::own(&self.name, &self.me)), Some(version)).await
    }

    async fn write(
        &self,
        verb: &'static str,
        presented: Option<Lease>,
        version: Option<Version>,
    ) -> (Answer, Option<Error>) {
        {
            let mut decided = self.slot.lock().unwrap_or_else(PoisonError::into_inner);
            (decided.presented, decided.version) = (presented, version);
        }
        match timeout(self.call_max, self.lock.try_acquire_or_renew()).await {
            Err(_) => (Answer::Failed, Some(self.late(verb))),
            Ok(Ok(LeaseLockResult::Acquired(lease))) => (Answer::Ours(record::version(&lease)), None),
            // What we present is ours, expired or absent: the crate has no reason to decline.
            Ok(Ok(LeaseLockResult::NotAcquired(_))) => (Answer::Conflict, None),
            Ok(Err(error)) => self.refused(verb, crate_error(error)),
        }
    }

    /// Writes that nobody holds it, if it still has this version, so that a successor may take it at once.
    pub async fn release(&self, version: Version) -> (Answer, Option<Error>) {
        let annotations = json!({ record::ADDRESS: null, record::INSTANCE: null });
        let patch = json!({
            "metadata": { "resourceVersion": version.0.to_string(), "annotations": annotations },
            "spec": { "holderIdentity": "", "leaseDurationSeconds": 1 },
        });
        let path = format!("/apis/coordination.k8s.io/v1/namespaces/{}/leases/{}", self.namespace, self.name);
        let request = Request::patch(format!("{path}?fieldManager=pod-monitor"))
            .header(http::header::CONTENT_TYPE, "application/merge-patch+json")
            .body(patch.to_string().into_bytes())
            .expect("names of namespaces and Leases are legal in URLs");
        match timeout(self.call_max, self.client.request::<Lease>(request)).await {
            Err(_) => (Answer::Failed, Some(self.late("patch"))),
            Ok(Ok(lease)) => {
                crate::failpoint::reached("released");
                (Answer::Ours(record::version(&lease)), None)
            }
            Ok(Err(error)) => self.refused("patch", Box::new(error)),
        }
    }

    /// Reads it now.
    ///
    /// # Errors
    /// When the server does not answer in time or refuses.
    pub async fn look(&self) -> Result<Seen, Error> {
        // A LIST of one: where there is no Lease, it still says as of which version.
        let params = ListParams::default().fields(&format!("metadata.name={}", self.name));
        let api = self.api();
        let listed = timeout(self.call_max, api.list(&params)).await.map_err(|_| self.late("list"))?;
        let list = listed.map_err(|error| self.error("list", Box::new(error)))?;
        let version = list.metadata.resource_version.as_deref().and_then(|v| v.parse().ok()).unwrap_or_default();
        Ok((list.items.first().map(Record::read), Version(version)))
    }

    /// Tells every change until nobody listens any more. `trouble` hears of each failure.
    pub async fn watch(&self, out: mpsc::Sender<Seen>, trouble: impl Fn(Error)) {
        let mut backoff = Backoff::of(&self.me);
        while !out.is_closed() {
            match self.follow(&out).await {
                Ok(()) => backoff.reset(),
                Err(error) => trouble(error),
            }
            tokio::time::sleep(backoff.pause()).await;
        }
    }

    /// One look, and one watch from there to its end.
    async fn follow(&self, out: &mpsc::Sender<Seen>) -> Result<(), Error> {
        let (record, version) = self.look().await?;
        if out.send((record, version)).await.is_err() {
            return Ok(());
        }
        let params = WatchParams::default().fields(&format!("metadata.name={}", self.name)).timeout(self.watch_seconds);
        let (api, from) = (self.api(), version.0.to_string());
        let opened = timeout(self.call_max, api.watch(&params, &from)).await.map_err(|_| self.late("watch"))?;
        let mut events = opened.map_err(|error| self.error("watch", Box::new(error)))?.boxed();
        // The watch took the connection of the look before it. This one opens another, which a write then finds open
        // instead of waiting for a TLS handshake; what it brings, or why it fails, the watch tells as well.
        drop(self.look().await);
        loop {
            let limit = silence_max(self.watch_seconds);
            let next = timeout(limit, events.try_next()).await.map_err(|_| self.late("watch"))?;
            let seen = match next.map_err(|error| self.error("watch", Box::new(error)))? {
                Some(WatchEvent::Added(lease) | WatchEvent::Modified(lease)) => {
                    (Some(Record::read(&lease)), record::version(&lease))
                }
                Some(WatchEvent::Deleted(lease)) => (None, record::version(&lease)),
                Some(WatchEvent::Bookmark(_)) => continue,
                // Too old, or a server in trouble: looked at anew.
                Some(WatchEvent::Error(status)) => return Err(self.error("watch", status.message.into())),
                None => return Ok(()),
            };
            if out.send(seen).await.is_err() {
                return Ok(());
            }
        }
    }

    fn refused(&self, verb: &'static str, error: Box<dyn std::error::Error + Send + Sync>) -> (Answer, Option<Error>) {
        match code(&*error) {
            // Changed since, or gone.
            Some(404 | 409) => (Answer::Conflict, None),
            _ => (Answer::Failed, Some(self.error(verb, error))),
        }
    }

    fn late(&self, verb: &'static str) -> Error {
        Error::Timeout { verb, namespace: self.namespace.clone(), name: self.name.clone(), limit: self.call_max }
    }

    fn error(&self, verb: &'static str, source: Box<dyn std::error::Error + Send + Sync>) -> Error {
        failed(verb, &self.namespace, &self.name, source)
    }
}

/// What an answer means that is no success, of one Lease or of all that `name` stands for.
pub(super) fn failed(
    verb: &'static str,
    namespace: &str,
    name: &str,
    source: Box<dyn std::error::Error + Send + Sync>,
) -> Error {
    let (namespace, name) = (namespace.to_owned(), name.to_owned());
    match source.downcast_ref::<kube::Error>() {
        Some(kube::Error::Api(status)) if matches!(status.code, 401 | 403) => {
            Error::Forbidden { verb, namespace, name, said: status.message.clone() }
        }
        _ => Error::Failed { verb, namespace, name, source },
    }
}

/// How long the server keeps a watch of Leases open: as long as a living holder may be silent. One that is half-open, and
/// what is planned by what it does not show, is found soon after.
pub(super) fn watch_seconds(times: Times) -> u32 {
    u32::try_from(times.lease_duration.as_secs()).unwrap_or(u32::MAX).clamp(1, 30)
}

/// A watch that is silent for longer is half-open.
pub(super) fn silence_max(watch_seconds: u32) -> Duration {
    Duration::from_secs(watch_seconds.into()) + SPARE
}

/// How long one call may take: two tries fit into the deadline, with the pause between them.
pub(super) fn call_max(times: Times) -> Duration {
    (times.renew_deadline - times.retry_period.min(times.renew_deadline / 2)) / 2
}

/// The client's error, out of its wrapping by the crate.
fn crate_error(error: kube_leader_election::Error) -> Box<dyn std::error::Error + Send + Sync> {
    use kube_leader_election::Error as Crate;
    match error {
        Crate::GetLease(error)
        | Crate::CreateLease(error)
        | Crate::AcquireLease(error)
        | Crate::RenewLease(error)
        | Crate::ReleaseLease(error)
        | Crate::Kube(error) => Box::new(error),
        Crate::ApiError { response } => Box::new(kube::Error::Api(response)),
        other => Box::new(other),
    }
}

fn code(error: &(dyn std::error::Error + Send + Sync + 'static)) -> Option<u16> {
    match error.downcast_ref::<kube::Error>() {
        Some(kube::Error::Api(status)) => Some(status.code),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_half_open_watch_is_found_soon_after_a_holder_may_be_silent() {
        let silence = |lease_seconds| {
            let lease_duration = Duration::from_secs(lease_seconds);
            let times = Times { lease_duration, renew_deadline: lease_duration / 2, retry_period: lease_duration / 8 };
            (watch_seconds(times), silence_max(watch_seconds(times)).as_secs())
        };
        assert_eq!(silence(15), (15, 20));
        assert_eq!(silence(0), (1, 6), "the server takes 0 for its own default");
        assert_eq!(silence(3600), (30, 35));
    }
}
