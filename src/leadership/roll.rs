//! The member Leases of an installation at the API server: all of them in one LIST and one WATCH, by their label.

use std::{collections::BTreeMap, time::Duration};

use futures::{StreamExt as _, TryStreamExt as _};
use k8s_openapi::api::coordination::v1::Lease;
use kube::{
    Api, Client,
    api::{ListParams, WatchEvent, WatchParams},
};
use tokio::{sync::mpsc, time::timeout};

use super::{
    election::Times,
    lease::{Error, Leases, call_max, failed, silence_max, watch_seconds},
    record::{self, Record},
};
use crate::watch::stream::Backoff;

/// What is seen of member Leases.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Sighting {
    /// All there are, by name.
    All(BTreeMap<Box<str>, Record>),
    /// One has changed; `None`: it was deleted.
    One(Box<str>, Option<Record>),
}

/// All member Leases of one installation.
#[derive(Clone)]
pub struct Roll {
    client: Client,
    namespace: String,
    installation: String,
    me: String,
    address: Option<String>,
    times: Times,
}

impl Roll {
    /// Over a client of its own, without retries. `address`: where the other replicas reach us.
    pub fn new(
        client: Client,
        namespace: &str,
        installation: &str,
        me: &str,
        address: Option<&str>,
        times: Times,
    ) -> Self {
        let (namespace, installation, me) = (namespace.to_owned(), installation.to_owned(), me.to_owned());
        Self { client, namespace, installation, me, address: address.map(str::to_owned), times }
    }

    /// The name of a member Lease.
    pub fn name(&self, slot: u32) -> String {
        format!("{}-member-{slot}", self.installation)
    }

    /// One member Lease, to be taken, renewed and released.
    pub fn lease(&self, slot: u32) -> Leases {
        let address = self.address.as_deref();
        let leases = Leases::new(self.client.clone(), &self.namespace, &self.name(slot), &self.me, address, self.times);
        leases.member_of(&self.installation)
    }

    /// Tells every change until nobody listens any more. `trouble` hears of each failure.
    pub async fn watch(&self, out: mpsc::Sender<Sighting>, trouble: impl Fn(Error)) {
        let mut backoff = Backoff::of((&self.me, "members"));
        while !out.is_closed() {
            match self.follow(&out).await {
                Ok(()) => backoff.reset(),
                Err(error) => trouble(error),
            }
            tokio::time::sleep(backoff.pause()).await;
        }
    }

    async fn follow(&self, out: &mpsc::Sender<Sighting>) -> Result<(), Error> {
        let api: Api<Lease> = Api::namespaced(self.client.clone(), &self.namespace);
        let label = format!("{}={}", record::INSTALLATION, self.installation);
        let limit = call_max(self.times);
        let params = ListParams::default().labels(&label);
        let listed = timeout(limit, api.list(&params)).await.map_err(|_| self.late("list", limit))?;
        let list = listed.map_err(|error| self.error("list", error))?;
        let version = list.metadata.resource_version.clone().unwrap_or_default();
        let all = list.items.iter().map(|lease| (name(lease), Record::read(lease))).collect();
        if out.send(Sighting::All(all)).await.is_err() {
            return Ok(());
        }
        let seconds = watch_seconds(self.times);
        let (params, silence) = (WatchParams::default().labels(&label).timeout(seconds), silence_max(seconds));
        let opened = timeout(limit, api.watch(&params, &version)).await.map_err(|_| self.late("watch", limit))?;
        let mut events = opened.map_err(|error| self.error("watch", error))?.boxed();
        loop {
            let next = timeout(silence, events.try_next()).await.map_err(|_| self.late("watch", silence))?;
            let sighting = match next.map_err(|error| self.error("watch", error))? {
                Some(WatchEvent::Added(lease) | WatchEvent::Modified(lease)) => {
                    Sighting::One(name(&lease), Some(Record::read(&lease)))
                }
                Some(WatchEvent::Deleted(lease)) => Sighting::One(name(&lease), None),
                Some(WatchEvent::Bookmark(_)) => continue,
                Some(WatchEvent::Error(status)) => return Err(self.error("watch", kube::Error::Api(status))),
                None => return Ok(()),
            };
            if out.send(sighting).await.is_err() {
                return Ok(());
            }
        }
    }

    fn late(&self, verb: &'static str, limit: Duration) -> Error {
        Error::Timeout { verb, namespace: self.namespace.clone(), name: self.all(), limit }
    }

    fn error(&self, verb: &'static str, error: kube::Error) -> Error {
        failed(verb, &self.namespace, &self.all(), Box::new(error))
    }

    /// How errors name them.
    fn all(&self) -> String {
        format!("{}-member-*", self.installation)
    }
}

fn name(lease: &Lease) -> Box<str> {
    lease.metadata.name.as_deref().unwrap_or_default().into()
}
