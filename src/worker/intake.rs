//! What comes from the API server: watch notices and LISTs.

use std::{collections::BTreeSet, time::Duration};

use tokio::{sync::mpsc, task::AbortHandle, time::Instant};

use tracing::Instrument as _;

use super::{
    NOTICES_A_TURN, Worker,
    listing::{Listing, Whole},
    pending::Source,
    position::Stream,
    table::Table,
};
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
        reconcile::{self, Leaf, Reason, Suspects},
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
    /// LISTs under way, or whole and waiting for the watch.
    listings: Vec<Listing>,
    /// The first LIST of this tenure has been worked through.
    listed: bool,
    open: bool,
    /// Since when its watch is not open.
    pub(super) down_since: Option<Instant>,
}

impl Feed {
    /// A snapshot is being taken or waits: it may still show pods that are gone since this version.
    pub(super) fn listing_since(&self) -> Option<ResourceVersion> {
        self.listings.iter().map(Listing::floor).min()
    }
}

/// A page of a LIST that has come.
pub(super) struct ListPage {
    stream: usize,
    listing: u64,
    leaf: Leaf,
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
            listings: Vec::new(),
            listed: false,
            open: false,
            down_since: None,
        };
        position.inspect(|position| feed.start(*position));
        feed
    }

    fn list(&mut self, stream: usize, reason: Reason) {
        let inherited = self.inherited.as_ref().map(Inherited::furthest).unwrap_or_default();
        let floor = self.table.streams[stream].seen().max(inherited);
        self.lists_begun += 1;
        let (listing, feed) = (self.lists_begun, &mut self.feeds[stream]);
        feed.listings.push(Listing::new(listing, reason, floor));
        let (pods, scope, pages) = (self.parts.pods.clone(), feed.scope.clone(), self.pages_in.clone());
        let (metrics, cluster) = (self.parts.metrics.clone(), self.parts.cluster.clone());
        let span = tracing::info_span!(parent: &self.tenure.take_over_span(), "list", ?reason);
        let list = async move {
            let wrap = |leaf| ListPage { stream, listing, leaf };
            let trouble = |error| {
                metrics.listed(ListResult::Failed);
                cluster.not_yet(chain(&error));
            };
            reconcile::list(&pods, &scope, pages, wrap, trouble).await;
        };
        self.lists.spawn(list.instrument(span));
    }

    /// The periodic reconciliation.
    pub(super) fn reconcile(&mut self) {
        for stream in 0..self.feeds.len() {
            if self.feeds[stream].listings.is_empty() && self.feeds[stream].listed {
                self.list(stream, Reason::Periodic);
            }
        }
    }

    /// Takes in a page of a LIST.
    pub(super) fn listed(&mut self, page: ListPage) {
        let ListPage { stream, listing: id, leaf } = page;
        let listings = &mut self.feeds[stream].listings;
        // Asked for before the store's reset was noticed: the LIST that was asked for since is in use.
        let Some(at) = listings.iter().position(|listing| listing.id == id) else { return };
        let mut listing = listings.swap_remove(at);
        if listing.shows_reset(&self.table, &leaf) {
            self.store_was_reset(stream, leaf.version);
            return;
        }
        if leaf.first {
            listing.begin(leaf.version);
        }
        let (arrived, now) = (Instant::now(), self.parts.wall.now());
        for decoded in leaf.pods {
            let Some(pod) = self.readable(decoded) else { continue };
            self.consider(&pod);
            if let Some(pod) = listing.take(pod, &self.table, now, &self.parts.rules) {
                self.table.observe(stream, pod, arrived, Source::List);
            }
        }
        if leaf.last {
            self.parts.metrics.listed(ListResult::Ok);
            listing.ends(arrived);
        }
        // A watch that is still behind the snapshot has not missed what it is about to tell.
        let behind = self.table.streams[stream].seen() < listing.version;
        if !leaf.last || (listing.reason == Reason::Periodic && behind) {
            self.feeds[stream].listings.push(listing);
        } else {
            self.compare(stream, listing.into_whole());
        }
    }

    /// Works through snapshots that waited, once the watch has passed them or has had time enough.
    pub(super) fn release_held(&mut self) {
        for stream in 0..self.feeds.len() {
            let seen = self.table.streams[stream].seen();
            let ripe = |listing: &mut Listing| {
                listing.whole_since().is_some_and(|since| listing.version <= seen || since.elapsed() > HOLD_MAX)
            };
            let released: Vec<Listing> = self.feeds[stream].listings.extract_if(.., ripe).collect();
            released.into_iter().for_each(|listing| self.compare(stream, listing.into_whole()));
        }
    }

    fn compare(&mut self, stream: usize, whole: Whole) {
        let Whole { reason, version, listed, kept } = whole;
        let arrived = Instant::now();
        let periodic = reason == Reason::Periodic;
        let source = if periodic { Source::Comparison } else { Source::List };
        self.feeds[stream].suspects.note(version, reason, &listed, self.table.present(stream));
        for pod in kept {
            self.table.observe(stream, pod, arrived, source);
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
        self.spare = true;
        if self.feeds.iter().all(|feed| feed.listed) {
            self.position_due |= !self.claimed;
            self.tenure.reached(Leg::Reconciled);
            self.taken_over();
        }
        tracing::info!(stream = self.table.streams[stream].name, pods = listed.len(), %version, ?reason, "reconciled");
        self.check_suspects(stream);
        self.show_cluster();
    }

    fn store_was_reset(&mut self, stream: usize, version: ResourceVersion) {
        self.inherited = None;
        tracing::error!(
            %version, position = %self.table.streams[stream].seen(),
            "the cluster's store was reset: a consistent LIST is older than what was seen, or shows a pod that is; \
             going on by what was told"
        );
        self.table.streams[stream].reset(version);
        self.table.forget_versions(stream);
        // Asked by old versions, and found missing by the comparison if they still are.
        self.refused.retain(|_, asked| asked.stream != stream);
        self.feeds[stream].watch.abort();
        // As a take-over from here: what came of this LIST, and of others under way, was compared with old versions.
        let scope = self.feeds[stream].scope.clone();
        self.feeds[stream] = self.feed(stream, scope, Some(version));
        self.list(stream, Reason::Start);
        self.position_due = true;
    }

    /// What the watches brought, and more of it if it is there: the loop turns once for all of these.
    pub(super) fn noticed(&mut self, first: Notice) {
        self.notice(first);
        for _ in 1..NOTICES_A_TURN {
            let Ok(next) = self.notices.try_recv() else { return };
            self.notice(next);
        }
    }

    fn notice(&mut self, notice: Notice) {
        let Notice { stream, era, kind } = notice;
        if era != self.table.streams[stream].era() {
            return;
        }
        match kind {
            NoticeKind::Applied { pod, arrived } => {
                self.parts.metrics.watch_delivered(WatchEvent::Applied);
                let version = pod.metadata.resource_version;
                self.feeds[stream].suspects.clear(&pod.metadata.uid);
                if !self.is_inherited(stream, &pod) {
                    self.observe(stream, pod, arrived);
                }
                self.passed(stream, version);
            }
            NoticeKind::Deleted { pod, arrived } => {
                self.parts.metrics.watch_delivered(WatchEvent::Deleted);
                let version = pod.metadata.resource_version;
                self.feeds[stream].suspects.clear(&pod.metadata.uid);
                if !self.is_inherited(stream, &pod) {
                    self.deleted(stream, pod, arrived);
                }
                self.passed(stream, version);
            }
            NoticeKind::Progress(version) => {
                self.parts.metrics.watch_delivered(WatchEvent::Bookmark);
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
