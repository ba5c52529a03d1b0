//! GETs that confirm a going: a DELETED event may only mean that a pod left the selection, and a LIST only lacks it.

use std::sync::Arc;

use tokio::time::{Instant, sleep};

use super::{Worker, pending::Gone};
use crate::{
    cli::chain,
    logs::streams::LogSource,
    ports::Journals,
    watch::{
        api::{Error as ApiError, Pods, Scope},
        pod::{Decoded, Pod, PodUid, ResourceVersion},
        reconcile::Reason,
        stream::Backoff,
    },
};

/// What a GET by name says about a pod that seems to be gone.
pub(super) struct Confirmed {
    pub(super) stream: usize,
    era: u32,
    uid: PodUid,
    last: Option<Box<Pod>>,
    gone: Gone,
    /// Whether it holds the position until there is an answer.
    holds: bool,
    found: Found,
}

impl<J: Journals + 'static, S: LogSource> Worker<J, S> {
    /// A DELETED event: gone for sure, or perhaps only out of the selection.
    pub(super) fn deleted(&mut self, stream: usize, pod: Box<Pod>, arrived: Instant) {
        let version = pod.metadata.resource_version;
        let gone = Gone { observed: true, version, as_of: version, listed: false };
        let uid = pod.metadata.uid.clone();
        if pod.metadata.surely_deleted() {
            self.gone(stream, &uid, Some(pod), gone, arrived);
        } else {
            // Until the GET has answered, the position stays below: a successor would have to ask again.
            self.table.streams[stream].opened(version);
            let era = self.table.streams[stream].era();
            self.feeds[stream].judged.insert(uid.clone());
            let (namespace, name) = (pod.metadata.namespace.clone(), pod.metadata.name.clone());
            self.confirm(
                Confirmed { stream, era, uid, last: Some(pod), gone, holds: true, found: Found::Unknown },
                &namespace,
                &name,
            );
        }
    }

    pub(super) fn check_suspects(&mut self, stream: usize) {
        let (era, seen) = (self.table.streams[stream].era(), self.table.streams[stream].seen());
        for (uid, version, reason) in self.feeds[stream].suspects.due(seen) {
            let Some(tracked) = self.table.tracked(&uid) else { continue };
            let (namespace, name) = (tracked.namespace.clone(), tracked.pod_name.clone());
            let gone = Gone { observed: false, version, as_of: version, listed: reason == Reason::Periodic };
            self.table.streams[stream].opened(version);
            self.confirm(
                Confirmed { stream, era, uid, last: None, gone, holds: true, found: Found::Unknown },
                &namespace,
                &name,
            );
        }
    }

    /// INV-9: gone only after a GET by name, where the event itself is no proof.
    fn confirm(&mut self, asked: Confirmed, namespace: &str, name: &str) {
        let (pods, cluster) = (self.parts.pods.clone(), self.parts.cluster.clone());
        let (namespace, name) = (namespace.to_owned(), name.to_owned());
        let (permits, scope) = (Arc::clone(&self.confirm_permits), self.feeds[asked.stream].scope.clone());
        self.confirms.spawn(async move {
            let _permit = permits.acquire_owned().await.expect("the semaphore is never closed");
            let trouble = |error| cluster.not_yet(chain(&error));
            let found = still_there(&pods, &scope, &namespace, &name, &asked.uid, trouble).await;
            Confirmed { found, ..asked }
        });
    }

    pub(super) fn confirmed(&mut self, confirmed: Confirmed) {
        let Confirmed { stream, era, uid, last, gone, holds, found } = confirmed;
        if era != self.table.streams[stream].era() {
            // Its versions mean nothing any more; the LIST by which that was noticed lacks the pod too, if it is gone.
            return;
        }
        if holds {
            self.table.streams[stream].settled(gone.version);
        }
        // Who saw it go knows more than a LIST that lacks it, even if its GET is answered later.
        let judged = if gone.observed { self.feeds[stream].judged.remove(&uid) } else { false };
        if !judged && self.feeds[stream].judged.contains(&uid) {
            return;
        }
        match found {
            // Every LIST asks again about pods that left: said once.
            Found::Exists if self.table.left(&uid, gone.version, Instant::now()) => {
                tracing::info!(pod_uid = %uid, "pod left the selection, no longer followed");
            }
            Found::Exists => {}
            // INV-7: to be forgotten only once the watch has come as far as the GET was.
            Found::Gone(version) => {
                let gone = Gone { as_of: version.max(gone.version), ..gone };
                self.gone(stream, &uid, last, gone, Instant::now());
            }
            // Kept, and asked again; the position goes on without it, since a later LIST lacks it too.
            Found::Unknown => {
                self.refused.insert(uid.clone(), Confirmed { stream, era, uid, last, gone, holds: false, found });
                return;
            }
        }
        self.show_cluster();
    }

    /// Asks again what was refused.
    pub(super) fn ask_again(&mut self) {
        for (uid, asked) in std::mem::take(&mut self.refused) {
            let Some(tracked) = self.table.tracked(&uid) else { continue };
            let (namespace, name) = (tracked.namespace.clone(), tracked.pod_name.clone());
            self.confirm(asked, &namespace, &name);
        }
    }
}

/// What a GET by name says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Found {
    /// A pod of this name and UID.
    Exists,
    /// None, as of this version: whatever the watch has still to bring of it is older.
    Gone(ResourceVersion),
    /// It may not be asked.
    Unknown,
}

/// Whether a pod of this name and UID exists, asked until there is an answer or a refusal.
async fn still_there(
    pods: &Pods,
    scope: &Scope,
    namespace: &str,
    name: &str,
    uid: &PodUid,
    mut trouble: impl FnMut(ApiError),
) -> Found {
    let mut backoff = Backoff::of((pods.who(), uid));
    loop {
        match found(pods, scope, namespace, name, uid).await {
            Ok(found) => return found,
            Err(error) => {
                let refused = matches!(error, ApiError::Forbidden { .. });
                trouble(error);
                if refused {
                    return Found::Unknown;
                }
            }
        }
        sleep(backoff.pause()).await;
    }
}

async fn found(pods: &Pods, scope: &Scope, namespace: &str, name: &str, uid: &PodUid) -> Result<Found, ApiError> {
    match pods.get(namespace, name).await? {
        Some(Decoded::Whole(pod) | Decoded::Partly { pod, .. }) if pod.metadata.uid == *uid => Ok(Found::Exists),
        Some(Decoded::Unreadable { .. }) => Ok(Found::Exists),
        // A 404 does not say as of when.
        Some(_) | None => Ok(Found::Gone(pods.version(scope).await?)),
    }
}
