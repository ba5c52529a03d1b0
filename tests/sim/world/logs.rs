//! What containers print, read through the same network as everything else of the cluster.

use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt as _;
use http::StatusCode;
use pod_monitor::{
    logs::streams::{Chunks, Error, Holder, LogRequest, LogSource, Part, Stream},
    watch::pod::PodUid,
};

use super::{etcd::Which, wire::Wire};

/// How often a kubelet looks whether a container that is followed still runs.
const FOLLOW_POLL: Duration = Duration::from_secs(1);

#[derive(Clone)]
pub struct Logs(pub Wire);

impl Logs {
    /// The UID behind a name.
    async fn uid(&self, name: &str, what: &'static str) -> Result<Option<String>, Error> {
        let (wire, name) = (self.0.clone(), name.to_owned());
        let ask = move || {
            let refused = wire.refused();
            let etcd = wire.world.etcd();
            let uid = etcd.kind(Which::Pods).objects.get(&name).map(|o| o.value["metadata"]["uid"].clone());
            if refused { Err(()) } else { Ok(uid.and_then(|uid| uid.as_str().map(str::to_owned))) }
        };
        match self.0.call(ask).await {
            Ok(Ok(uid)) => Ok(uid),
            Ok(Err(())) => Err(Error::Status { status: StatusCode::SERVICE_UNAVAILABLE, what }),
            Err(broken) => Err(Error::Body { what, source: broken.into() }),
        }
    }

    /// Whether the container of this pod still runs.
    async fn runs(&self, name: &str, uid: &str) -> Result<bool, Error> {
        let (wire, name, uid) = (self.0.clone(), name.to_owned(), uid.to_owned());
        let ask = move || {
            let etcd = wire.world.etcd();
            let pod = etcd.kind(Which::Pods).objects.get(&name).map(|o| &o.value);
            let pod = pod.filter(|pod| pod["metadata"]["uid"].as_str() == Some(uid.as_str()));
            pod.is_some_and(|pod| pod["status"]["containerStatuses"][0]["state"].get("running").is_some())
        };
        self.0.call(ask).await.map_err(|broken| Error::Body { what: "pods/log", source: broken.into() })
    }
}

impl LogSource for Logs {
    async fn read(&self, request: &LogRequest<'_>) -> Result<Chunks, Error> {
        let what = "pods/log";
        let Some(uid) = self.uid(request.pod_name, what).await? else {
            return Err(Error::Status { status: StatusCode::NOT_FOUND, what });
        };
        let text = match request.stream {
            Stream::All => format!("printed by {uid}, both streams"),
            Stream::Stdout => format!("printed by {uid}"),
            Stream::Stderr => String::new(),
        };
        // Some print more than the broker takes.
        let text = if uid.ends_with('7') { text.repeat(100) } else { text };
        let printed = futures::stream::iter([Ok(Bytes::from(text))]);
        if !matches!(request.part, Part::Followed | Part::LastLineFollowed) {
            return Ok(printed.boxed());
        }
        // Open until the container has ended, or its pod is gone; a network that fails meanwhile breaks it.
        let (logs, name) = (self.clone(), request.pod_name.to_owned());
        let ended = async move {
            loop {
                match logs.runs(&name, &uid).await {
                    Ok(true) => super::after(FOLLOW_POLL).await,
                    Ok(false) => return None,
                    Err(error) => return Some(Err(error)),
                }
            }
        };
        Ok(printed.chain(futures::stream::once(ended).filter_map(std::future::ready)).boxed())
    }

    async fn holder(&self, _: &str, name: &str, _: &str) -> Result<Option<Holder>, Error> {
        let uid = self.uid(name, "pods").await?;
        Ok(uid.map(|uid| Holder { uid: PodUid(uid.into()), restart_count: Some(0) }))
    }
}
