//! One LIST of a stream, page by page: what is looked at as its page comes, and what waits for the last one. Pure.
//!
//! Pages are given up one by one, so that a LIST of 100 000 pods costs the room of a few thousand. What waits:
//! - pods that were never told of, since of two pods of one execution the earlier one comes first, and pages go by name;
//! - all that a periodic LIST has to say, until the watch has passed it: what the watch is about to tell was not missed.

use std::collections::HashSet;

use jiff::Timestamp;
use tokio::time::Instant;

use super::table::Table;
use crate::{
    lifecycle::rules::Rules,
    watch::{
        pod::{Pod, PodUid, ResourceVersion},
        reconcile::{Leaf, Reason},
    },
};

/// A LIST under way.
#[expect(clippy::vec_box, reason = "a vector that grows moves pointers, and each pod goes on in its box")]
#[derive(Debug)]
pub(super) struct Listing {
    pub(super) id: u64,
    pub(super) reason: Reason,
    /// What the watch had delivered when it was asked for: a consistent LIST is never older.
    floor: ResourceVersion,
    pub(super) version: ResourceVersion,
    /// All pods on the pages so far.
    listed: HashSet<PodUid>,
    /// Pods to be looked at when it is whole.
    kept: Vec<Box<Pod>>,
    /// Since when it is.
    whole: Option<Instant>,
}

/// A LIST that has come whole and is compared now.
#[expect(clippy::vec_box, reason = "each goes on in its box")]
#[derive(Debug)]
pub(super) struct Whole {
    pub(super) reason: Reason,
    pub(super) version: ResourceVersion,
    pub(super) listed: HashSet<PodUid>,
    /// As they were made, and not by their names.
    pub(super) kept: Vec<Box<Pod>>,
}

impl Listing {
    /// Asked for, when the watch had come to `floor`.
    pub(super) fn new(id: u64, reason: Reason, floor: ResourceVersion) -> Self {
        let version = ResourceVersion::default();
        Self { id, reason, floor, version, listed: HashSet::new(), kept: Vec::new(), whole: None }
    }

    /// It shows no pod that had gone by then.
    pub(super) fn floor(&self) -> ResourceVersion {
        self.floor
    }

    /// Whether a page can only come from a store that was reset.
    pub(super) fn shows_reset(&self, table: &Table, leaf: &Leaf) -> bool {
        leaf.version < self.floor || leaf.pods.iter().any(|pod| table.contradicts(leaf.version, pod))
    }

    /// A page comes: the first one, perhaps not for the first time.
    pub(super) fn begin(&mut self, version: ResourceVersion) {
        *self = Self { version, ..Self::new(self.id, self.reason, self.floor) };
    }

    /// Takes a pod of a page in; gives it back where it is to be looked at now.
    pub(super) fn take(&mut self, pod: Box<Pod>, table: &Table, now: Timestamp, rules: &Rules) -> Option<Box<Pod>> {
        let uid = table.shared(&pod.metadata.uid);
        let is_periodic = self.reason == Reason::Periodic;
        if !is_periodic && table.is_told_of(&uid) {
            self.listed.insert(uid);
            return Some(pod);
        }
        self.listed.insert(uid);
        if !is_periodic || table.is_news(&pod, now, rules) {
            self.kept.push(pod);
        }
        None
    }

    /// The last page was taken in.
    pub(super) fn ends(&mut self, now: Instant) {
        self.whole = Some(now);
    }

    /// Since when it waits for the watch.
    pub(super) fn whole_since(&self) -> Option<Instant> {
        self.whole
    }

    pub(super) fn into_whole(self) -> Whole {
        let Self { reason, version, listed, mut kept, .. } = self;
        kept.sort_by_key(|pod| pod.metadata.creation_timestamp);
        Whole { reason, version, listed, kept }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet as Set;

    use super::*;
    use crate::{
        lifecycle::{
            decide::{Input, step},
            identity::IdSources,
            tracked::Tracked,
        },
        watch::pod::{ByUid, Decoded, decode},
        worker::position::Stream,
    };

    fn rules() -> Rules {
        Rules { cluster_id: "c".into(), ids: IdSources::default(), ..Rules::default() }
    }

    fn now() -> Timestamp {
        Timestamp::from_second(1_700_000_100).expect("a time")
    }

    fn pod(n: u64, version: u64, phase: &str, made: u64) -> Box<Pod> {
        let json = format!(
            r#"{{"metadata":{{"uid":"u-{n}","name":"exec-{n}","namespace":"runs","resourceVersion":"{version}",
            "creationTimestamp":"2023-11-14T22:13:{made:02}Z"}},
            "spec":{{"nodeName":"n","restartPolicy":"Never","containers":[{{"name":"main"}}]}},
            "status":{{"phase":"{phase}","containerStatuses":[]}}}}"#
        );
        let Decoded::Whole(pod) = decode(&json) else { panic!("a pod") };
        Box::new(pod)
    }

    /// A table that knows pods 0..n, scheduled and pending at version 5.
    fn table(n: u64) -> Table {
        let mut table = Table::new(vec![Stream::new("", Some(ResourceVersion(5)))]);
        let told = (0..n).map(|n| {
            let pod = pod(n, 5, "Pending", 0);
            let input = Input::Observed { pod: &pod, earlier: None, now: now() };
            let tracked = step(&pod.metadata.uid, None, input, &rules()).tracked.expect("it is told of");
            (pod.metadata.uid.clone(), tracked)
        });
        let told: ByUid<Tracked> = told.collect();
        table.restore(told, Set::new());
        table
    }

    fn take(listing: &mut Listing, table: &Table, pod: Box<Pod>) -> bool {
        listing.take(pod, table, now(), &rules()).is_some()
    }

    #[test]
    fn a_take_over_keeps_only_pods_that_were_never_told_of() {
        let table = table(3);
        let mut listing = Listing::new(1, Reason::Start, ResourceVersion(5));
        listing.begin(ResourceVersion(9));
        assert!(take(&mut listing, &table, pod(0, 5, "Pending", 0)), "its clocks begin anew with each leader");
        assert!(take(&mut listing, &table, pod(1, 8, "Running", 0)));
        assert!(
            !take(&mut listing, &table, pod(7, 8, "Running", 9))
                && !take(&mut listing, &table, pod(8, 8, "Running", 3))
        );
        let whole = listing.into_whole();
        let kept: Vec<&str> = whole.kept.iter().map(|pod| &*pod.metadata.name).collect();
        assert_eq!(kept, ["exec-8", "exec-7"], "as they were made");
        assert_eq!(whole.listed.len(), 4);
    }

    #[test]
    fn a_periodic_one_keeps_only_what_was_not_told() {
        let table = table(3);
        let mut listing = Listing::new(1, Reason::Periodic, ResourceVersion(5));
        listing.begin(ResourceVersion(9));
        let pods =
            [pod(0, 5, "Pending", 0), pod(1, 8, "Pending", 0), pod(2, 8, "Succeeded", 0), pod(7, 8, "Pending", 0)];
        assert!(pods.into_iter().all(|pod| !take(&mut listing, &table, pod)), "nothing is looked at before its end");
        let whole = listing.into_whole();
        let kept: Vec<&str> = whole.kept.iter().map(|pod| &*pod.metadata.name).collect();
        assert_eq!(kept, ["exec-2", "exec-7"]);
        assert_eq!(whole.listed.len(), 4, "those that say nothing new are there all the same");
    }

    #[test]
    fn one_that_begins_anew_forgets_its_pages() {
        let table = table(1);
        let mut listing = Listing::new(1, Reason::Expired, ResourceVersion(5));
        listing.begin(ResourceVersion(9));
        take(&mut listing, &table, pod(7, 8, "Pending", 0));
        listing.begin(ResourceVersion(12));
        take(&mut listing, &table, pod(8, 11, "Pending", 0));
        let whole = listing.into_whole();
        assert_eq!((whole.version, whole.kept.len(), whole.listed.len()), (ResourceVersion(12), 1, 1));
    }

    #[test]
    fn a_page_that_is_older_than_what_was_seen_shows_a_reset() {
        let table = table(1);
        let listing = Listing::new(1, Reason::Start, ResourceVersion(7));
        let leaf = |version, pods| Leaf { version: ResourceVersion(version), pods, first: true, last: true };
        assert!(listing.shows_reset(&table, &leaf(6, Vec::new())));
        assert!(!listing.shows_reset(&table, &leaf(7, vec![Decoded::Whole(*pod(0, 5, "Pending", 0))])));
        assert!(listing.shows_reset(&table, &leaf(7, vec![Decoded::Whole(*pod(0, 4, "Pending", 0))])));
    }
}
