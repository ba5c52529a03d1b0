//! What comes from the API server: watch notices and LISTs.

use std::{
    collections::{BTreeSet, HashSet},
    time::Duration,
};

use tokio::{sync::mpsc, task::AbortHandle, time::Instant};

use tracing::Instrument as _;

use super::{Worker, pending::Source, position::Stream, table::Table};
use crate::{
    cli::chain,
    leadership::takeover::Leg,
    lifecycle::identity::ids,
    logs::streams::LogSource,
    ports::Journals,
    publish::{generation::Inherited, restore::Restored},
    telemetry::metrics::{ListResult, PodPart, Role, WatchEvent, WatchRestart},
    watch::{
        api::{Error as ApiError, Scope},
        pod::{Decoded, Odd, Pod, PodUid, ResourceVersion},
        reconcile::{self, Reason, Snapshot, Suspects},
        stream::{self, Down, Expiry, Notice, NoticeKind},
    },
};

/// How long a periodic snapshot waits for the watch to pass it, before it is believed anyway: a watch lasts 15 s and
/// brings a bookmark before its end.
const HOLD_MAX: Duration = Duration::from_secs(30);

/// One watch stream as the worker sees it.
pub(super) struct Feed {
    pub(super) scope: Scope,
    starts: mpsc::Sender<ResourceVersion>,
    watch: AbortHandle,
    pub(super) suspects: Suspects,
    /// Pods whose DELETED is being judged by a GET.
    pub(super) judged: BTreeSet<PodUid>,
    /// LISTs under way.
    listing: usize,
    held: Option<Listed>,
    /// The first LIST of this tenure has been worked through.
    listed: bool,
    open: bool,
    /// Since when its watch is not open.
    pub(super) down_since: Option<Instant>,
}

impl Feed {
    /// A snapshot is being taken or waits: it may still show pods that are gone since.
    pub(super) fn is_listing(&self) -> bool {
        self.listing > 0 || self.held.is_some()
    }
}

/// A LIST that has come.
pub(super) struct Listed {
    stream: usize,
    era: u32,
    reason: Reason,
    snapshot: Snapshot,
    /// What the watch had delivered when it was asked for: a consistent LIST is never older.
    floor: ResourceVersion,
    since: Instant,
}

impl<J: Journals + 'static, S: LogSource> Worker<J, S> {
    /// Another selection makes the recorded positions meaningless: pods may have entered it without any event.
    pub(super) fn knows_selection(&self, restored: &Restored) -> bool {
        let same = |ours: &crate::publish::identity::Identity| {
            let found = restored.identity.as_ref();
            found.is_some_and(|f| f.selector == ours.selector && f.namespaces == ours.namespaces)
        };
        self.parts.identity.as_ref().is_some_and(same)
    }

    /// Begins to watch from the recorded positions, with the LISTs beside it.
    pub(super) fn begin_feeds(&mut self, restored: &Restored) {
        let valid = self.knows_selection(restored);
        let known = |name: &str| restored.position.as_ref().filter(|_| valid)?.streams.get(name).copied();
        let streams =
            self.parts.scopes.iter().map(|scope| Stream::new(scope.stream(), known(scope.stream()))).collect();
        self.table = Table::new(streams);
        self.inherited = restored.inherited.clone().filter(|_| valid);
        for (index, scope) in self.parts.scopes.clone().into_iter().enumerate() {
            let position = known(scope.stream());
            let feed = self.feed(index, scope, position);
            self.feeds.push(feed);
            self.list(index, if position.is_some() { Reason::Start } else { Reason::Expired });
        }
    }

    fn feed(&mut self, index: usize, scope: Scope, position: Option<ResourceVersion>) -> Feed {
        // One start at a time: the stream takes it before it can ask for the next.
        let (starts, receive) = mpsc::channel(2);
        let (pods, out) = (self.parts.pods.clone(), self.notices_in.clone());
        let who = (index, self.table.streams[index].era());
        let watch = self.watches.spawn(stream::run(pods, scope.clone(), who, receive, out));
        let feed = Feed {
            scope,
            starts,
            watch,
            suspects: Suspects::default(),
            judged: BTreeSet::new(),
            listing: 0,
            held: None,
            listed: false,
            open: false,
            down_since: None,
        };
        position.inspect(|position| feed.start(*position));
        feed
    }

    fn list(&mut self, stream: usize, reason: Reason) {
        let feed = &mut self.feeds[stream];
        let era = self.table.streams[stream].era();
        let inherited = self.inherited.as_ref().map(Inherited::furthest).unwrap_or_default();
        let floor = self.table.streams[stream].seen().max(inherited);
        feed.listing += 1;
        let (pods, scope) = (self.parts.pods.clone(), feed.scope.clone());
        let (metrics, cluster) = (self.parts.metrics.clone(), self.parts.cluster.clone());
        let span = tracing::info_span!(parent: &self.tenure.take_over_span(), "list", ?reason);
        let list = async move {
            let snapshot = reconcile::list(&pods, &scope, |error| {
                metrics.listed(ListResult::Failed);
                cluster.not_yet(chain(&error));
            });
            Listed { stream, era, reason, snapshot: snapshot.await, floor, since: Instant::now() }
        };
        self.lists.spawn(list.instrument(span));
    }

    /// The periodic reconciliation.
    pub(super) fn reconcile(&mut self) {
        for stream in 0..self.feeds.len() {
            if !self.feeds[stream].is_listing() && self.feeds[stream].listed {
                self.list(stream, Reason::Periodic);
            }
        }
    }

    pub(super) fn listed(&mut self, mut listed: Listed) {
        self.parts.metrics.listed(ListResult::Ok);
        let stream = listed.stream;
        self.feeds[stream].listing = self.feeds[stream].listing.saturating_sub(1);
        if listed.era != self.table.streams[stream].era() {
            // Asked for before the store's reset was noticed: the LIST by which it was is in use.
            return;
        }
        let older = listed.snapshot.pods.iter().any(|pod| self.table.contradicts(listed.snapshot.version, pod));
        if listed.snapshot.version < listed.floor || older {
            self.store_was_reset(&listed);
            listed.reason = Reason::Expired;
        }
        // A watch that is still behind the snapshot has not missed what it is about to tell.
        let behind = self.table.streams[stream].seen() < listed.snapshot.version;
        if listed.reason == Reason::Periodic && behind {
            self.feeds[stream].held = Some(listed);
        } else {
            self.compare(listed);
        }
    }

    /// Works through a snapshot that waited, once the watch has passed it or has had time enough.
    pub(super) fn release_held(&mut self) {
        for stream in 0..self.feeds.len() {
            let seen = self.table.streams[stream].seen();
            let ripe = |held: &mut Listed| held.snapshot.version <= seen || held.since.elapsed() > HOLD_MAX;
            if let Some(listed) = self.feeds[stream].held.take_if(ripe) {
                self.compare(listed);
            }
        }
    }

    fn compare(&mut self, listed: Listed) {
        let Listed { stream, reason, snapshot, .. } = listed;
        let version = snapshot.version;
        let arrived = Instant::now();
        let periodic = reason == Reason::Periodic;
        let source = if periodic { Source::Comparison } else { Source::List };
        let mut pods: Vec<Box<Pod>> = snapshot.pods.into_iter().filter_map(|decoded| self.readable(decoded)).collect();
        // As they were made, and not by their names: of two pods of one execution the earlier one comes first.
        pods.sort_by_key(|pod| pod.metadata.creation_timestamp);
        let uids: HashSet<&PodUid> = pods.iter().map(|pod| &pod.metadata.uid).collect();
        self.feeds[stream].suspects.note(version, reason, &uids, self.table.present(stream));
        let count = pods.len();
        for pod in pods {
            self.observe(stream, pod, arrived, source);
        }
        if reason == Reason::Expired {
            self.table.streams[stream].progress(version);
            self.feeds[stream].start(version);
            // At once: from now on nothing that comes and goes while nobody runs is missed.
            self.position_due = true;
        }
        if periodic {
            self.parts.metrics.reconciled();
        }
        self.feeds[stream].listed = true;
        if self.feeds.iter().all(|feed| feed.listed) {
            self.position_due |= !self.claimed;
            self.tenure.reached(Leg::Reconciled);
            self.taken_over();
        }
        tracing::info!(stream = self.table.streams[stream].name, pods = count, %version, ?reason, "reconciled");
        self.check_suspects(stream);
        self.show_cluster();
    }

    fn store_was_reset(&mut self, listed: &Listed) {
        self.inherited = None;
        let Listed { stream, snapshot, floor, .. } = listed;
        let version = snapshot.version;
        tracing::error!(
            %version, position = %floor,
            "the cluster's store was reset: a consistent LIST is older than what was seen, or shows a pod that is; \
             going on by what was told"
        );
        self.table.streams[*stream].reset(version);
        self.table.forget_versions(*stream);
        // Asked by old versions, and found missing by the comparison if they still are.
        self.refused.retain(|_, asked| asked.stream != *stream);
        self.feeds[*stream].watch.abort();
        // It is started when this LIST has been worked through, as after any version that is of no use.
        let (scope, listing) = (self.feeds[*stream].scope.clone(), self.feeds[*stream].listing);
        self.feeds[*stream] = Feed { listing, ..self.feed(*stream, scope, None) };
    }

    pub(super) fn notice(&mut self, notice: Notice) {
        let Notice { stream, era, kind } = notice;
        if era != self.table.streams[stream].era() {
            return;
        }
        let metrics = self.parts.metrics.clone();
        match kind {
            NoticeKind::Applied { pod, arrived } => {
                metrics.watch_delivered(WatchEvent::Modified);
                let version = pod.metadata.resource_version;
                self.feeds[stream].suspects.clear(&pod.metadata.uid);
                if !self.is_inherited(stream, &pod) {
                    self.observe(stream, pod, arrived, Source::Watch);
                }
                self.passed(stream, version);
            }
            NoticeKind::Deleted { pod, arrived } => {
                metrics.watch_delivered(WatchEvent::Deleted);
                let version = pod.metadata.resource_version;
                self.feeds[stream].suspects.clear(&pod.metadata.uid);
                if !self.is_inherited(stream, &pod) {
                    self.deleted(stream, pod, arrived);
                }
                self.passed(stream, version);
            }
            NoticeKind::Progress(version) => {
                metrics.watch_delivered(WatchEvent::Bookmark);
                self.passed(stream, version);
            }
            NoticeKind::Odd(odd) => self.unreadable(&odd),
            NoticeKind::Expired(expiry) => self.expired(stream, &expiry),
            NoticeKind::Open => {
                self.feeds[stream].open = true;
                self.feeds[stream].down_since = None;
                if self.feeds.iter().all(|feed| feed.open) {
                    self.tenure.reached(Leg::Watching);
                }
                self.show_cluster();
            }
            NoticeKind::Down(down) => self.down(stream, down),
        }
    }

    /// Whether a shard of an earlier generation has worked through this already. INV-7: what it had forgotten by then
    /// would be told anew.
    fn is_inherited(&self, stream: usize, pod: &Pod) -> bool {
        let Some(inherited) = &self.inherited else { return false };
        let (metadata, stream) = (&pod.metadata, self.table.streams[stream].name.as_str());
        let execution = ids(metadata, &self.parts.rules.ids).execution_id;
        inherited.covers(&metadata.uid, &execution, stream, metadata.resource_version)
    }

    fn expired(&mut self, stream: usize, expiry: &Expiry) {
        let name = self.table.streams[stream].name.as_str();
        let restart = match expiry {
            Expiry::TooOld => {
                tracing::info!(stream = name, "watch position is too old, listing");
                WatchRestart::Expired
            }
            Expiry::Garbled(why) => {
                let position = self.table.streams[stream].seen();
                tracing::warn!(stream = name, %position, why, "what follows the watch position stays unreadable, listing");
                WatchRestart::Garbled
            }
            Expiry::Ahead => {
                tracing::info!(stream = name, "watch position is ahead of the cluster's store, listing");
                WatchRestart::Expired
            }
        };
        self.parts.metrics.watch_restarted(restart);
        self.feeds[stream].open = false;
        self.list(stream, Reason::Expired);
    }

    fn passed(&mut self, stream: usize, version: ResourceVersion) {
        self.table.streams[stream].progress(version);
        self.check_suspects(stream);
    }

    fn down(&mut self, stream: usize, down: Down) {
        self.feeds[stream].open = false;
        self.feeds[stream].down_since.get_or_insert_with(Instant::now);
        let (reason, why) = match down {
            Down::Ended => (WatchRestart::Ended, None),
            Down::Garbled(why) => (WatchRestart::Broken, Some(format!("watch pods: unreadable line: {why}"))),
            Down::Refused { code, message } => {
                (WatchRestart::Refused, Some(format!("watch pods: the API server answers {code}: {message}")))
            }
            Down::Failed(error) => {
                let reason = match &error {
                    ApiError::Timeout { .. } => WatchRestart::Silent,
                    ApiError::Forbidden { .. } | ApiError::Refused { .. } => WatchRestart::Refused,
                    _ => WatchRestart::Broken,
                };
                (reason, Some(chain(&error)))
            }
        };
        self.parts.metrics.watch_restarted(reason);
        if let Some(why) = why {
            self.parts.cluster.not_yet(why);
        }
    }

    pub(super) fn show_cluster(&mut self) {
        if self.sees_everything() {
            self.parts.cluster.ok();
            if !self.live && self.publishing.is_open() {
                self.live = true;
                self.show(Role::Live);
            }
        }
    }

    /// Whether every watch is open and everything was listed once.
    pub(super) fn sees_everything(&self) -> bool {
        !self.feeds.is_empty() && self.feeds.iter().all(|feed| feed.open && feed.listed)
    }

    fn readable(&self, decoded: Decoded) -> Option<Box<Pod>> {
        let (pod, odd) = decoded.split();
        odd.inspect(|odd| self.unreadable(odd));
        pod
    }

    fn unreadable(&self, odd: &Odd) {
        let Odd { name, lost } = odd;
        let part = match lost.as_str() {
            lost if lost.starts_with("status") => PodPart::Status,
            lost if lost.starts_with("spec") => PodPart::Spec,
            _ => PodPart::Object,
        };
        self.parts.metrics.pod_unreadable(part);
        let pod = name.as_deref().unwrap_or("?");
        tracing::warn!(pod, lost, "pod cannot be read whole, told as far as possible");
    }
}

impl Feed {
    fn start(&self, from: ResourceVersion) {
        // The stream takes one start per Expired; a full channel means that it has not taken the last one yet.
        if self.starts.try_send(from).is_err() {
            tracing::error!(%from, "watch stream did not take its start: it will ask again");
        }
    }
}
