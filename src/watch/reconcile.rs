//! LIST and compare: what a consistent snapshot says against what has been told.
//!
//! [`list`] fetches the snapshot, page by page; [`Suspects`] is the pure half of finding what vanished unseen. A pod is only suspected
//! if the snapshot is newer than the record of it, and only judged once the watch has passed the snapshot: a DELETED on
//! its way brings the last state, which is better than "it is not there".

use std::collections::{BTreeMap, BTreeSet, HashSet};

use tokio::sync::mpsc;

use super::{
    api::{Error, Pods, Scope},
    frame::Page,
    pod::{Decoded, PodUid, ResourceVersion},
    stream::Backoff,
};

/// Why a LIST was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reason {
    /// Taking over.
    Start,
    /// The watch's version was of no use any more.
    Expired,
    /// The interval was over.
    Periodic,
}

/// One page of a consistent LIST, without the pods of other shards.
#[derive(Debug)]
pub struct Leaf {
    /// resourceVersion of the whole LIST.
    pub version: ResourceVersion,
    /// The pods.
    pub pods: Vec<Decoded>,
    /// What came before belongs to a LIST that was begun in vain.
    pub first: bool,
    /// The LIST is whole.
    pub last: bool,
}

/// LISTs page by page, retrying until it is whole. The next page is asked for when `to` has room. `trouble` hears of each
/// failure. Cancel by dropping; ends also when nobody takes pages any more.
pub async fn list<T>(
    pods: &Pods,
    scope: &Scope,
    to: mpsc::Sender<T>,
    wrap: impl Fn(Leaf) -> T,
    mut trouble: impl FnMut(Error),
) {
    let mut backoff = Backoff::of((pods.who(), scope.stream()));
    loop {
        match pages(pods, scope, &to, &wrap).await {
            Ok(()) => return,
            // Between pages the token can expire: only a LIST from the beginning is a snapshot. Not every time, though.
            Err(Error::Expired { .. }) if backoff.is_fresh() => {}
            Err(error) => trouble(error),
        }
        tokio::time::sleep(backoff.pause()).await;
    }
}

async fn pages<T>(pods: &Pods, scope: &Scope, to: &mpsc::Sender<T>, wrap: impl Fn(Leaf) -> T) -> Result<(), Error> {
    let (mut token, mut first) = (None::<String>, true);
    loop {
        let Ok(room) = to.reserve().await else { return Ok(()) };
        let Page { version, next, pods: mut page, .. } = pods.list_page(scope, token.as_deref()).await?;
        // Whatever the server left out already.
        page.retain(|decoded| pods.is_ours(scope, decoded));
        room.send(wrap(Leaf { version, pods: page, first, last: next.is_none() }));
        match next {
            Some(next) => (token, first) = (Some(next), false),
            None => return Ok(()),
        }
    }
}

/// Pods that a snapshot lacks although they were told of, until the watch has passed that snapshot. After a long outage these
/// are many, and each thing that the watch brings asks which are due: only those are looked at.
#[derive(Debug, Default)]
pub struct Suspects {
    by_uid: BTreeMap<PodUid, (ResourceVersion, Reason)>,
    /// The same, by the version of the snapshot.
    by_version: BTreeSet<(ResourceVersion, PodUid)>,
}

impl Suspects {
    /// Notes every tracked pod that is absent from a snapshot of `version` and whose record is not newer than it.
    pub fn note<'a>(
        &mut self,
        version: ResourceVersion,
        reason: Reason,
        listed: &HashSet<PodUid>,
        tracked: impl Iterator<Item = (&'a PodUid, ResourceVersion)>,
    ) {
        // INV-8: a stale LIST never says "gone".
        for (uid, _) in tracked.filter(|(uid, known)| *known <= version && !listed.contains(uid)) {
            self.clear(uid);
            self.by_uid.insert(uid.clone(), (version, reason));
            self.by_version.insert((version, uid.clone()));
        }
    }

    /// The pod was seen, or its going was: no longer a suspect.
    pub fn clear(&mut self, uid: &PodUid) {
        if let Some((version, _)) = self.by_uid.remove(uid) {
            self.by_version.remove(&(version, uid.clone()));
        }
    }

    /// Takes out those whose snapshot the watch has passed at `seen`: their DELETED is not coming any more.
    pub fn due(&mut self, seen: ResourceVersion) -> Vec<(PodUid, ResourceVersion, Reason)> {
        let mut due = Vec::new();
        while self.by_version.first().is_some_and(|(version, _)| *version <= seen) {
            let Some((version, uid)) = self.by_version.pop_first() else { break };
            due.extend(self.by_uid.remove(&uid).map(|(_, reason)| (uid, version, reason)));
        }
        due
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::SeqCst},
    };

    use http::{Request, Response};
    use kube::client::Body;

    use super::*;
    use crate::sharding::ranges::Share;

    /// An API server of three pages with a pod each, whose second token is good from the second time on.
    fn three_pages(asked: &Arc<AtomicUsize>) -> Pods {
        let asked = Arc::clone(asked);
        let service = tower::service_fn(move |request: Request<Body>| {
            let (query, nth) = (request.uri().query().unwrap_or_default().to_owned(), asked.fetch_add(1, SeqCst));
            let page = |name: &str, next: &str| {
                let pod = format!(r#"{{"metadata":{{"uid":"{name}","name":"{name}","namespace":"runs"}}}}"#);
                format!(r#"{{"metadata":{{"resourceVersion":"{}","continue":"{next}"}},"items":[{pod}]}}"#, 10 + nth)
            };
            let (code, body) = match query.split("continue=").nth(1) {
                None => (200, page("a", "b")),
                Some("b") if nth < 3 => (410, r#"{"kind":"Status","code":410,"message":"too old"}"#.into()),
                Some("b") => (200, page("b", "c")),
                Some(_) => (200, page("c", "")),
            };
            let answer = Response::builder().status(code).body(Body::from(body.into_bytes()));
            std::future::ready(answer)
        });
        Pods::new(kube::Client::new(service, "runs"))
    }

    #[tokio::test(start_paused = true)]
    async fn a_page_is_asked_for_when_there_is_room_and_a_lost_token_begins_anew() {
        let asked = Arc::new(AtomicUsize::new(0));
        let pods = three_pages(&asked);
        let scope = Scope { namespace: Some("runs".into()), selector: String::new(), share: Share::whole() };
        let (to, mut pages) = mpsc::channel(1);
        let mut listing = tokio::task::JoinSet::new();
        listing.spawn(async move { list(&pods, &scope, to, |leaf| leaf, |error| panic!("{error}")).await });
        // In virtual time: whatever can go on has gone on by then.
        let told = async || tokio::time::sleep(std::time::Duration::from_secs(60)).await;
        told().await;
        assert_eq!(asked.load(SeqCst), 1, "nobody takes a page");
        let mut leaves = Vec::new();
        while let Some(leaf) = pages.recv().await {
            leaves.push((leaf.version.0, leaf.first, leaf.last));
            let before = asked.load(SeqCst);
            told().await;
            assert!(asked.load(SeqCst) - before <= 2, "a page ahead, and the one that begins anew");
        }
        listing.join_next().await.expect("it was spawned").expect("it ends");
        assert_eq!(leaves, [(10, true, false), (12, true, false), (13, false, false), (14, false, true)]);
    }

    fn uid(name: &str) -> PodUid {
        PodUid(name.into())
    }

    #[test]
    fn a_pod_is_missing_only_by_a_newer_list_that_the_watch_has_passed() {
        let (listed, old, newer) = (uid("listed"), uid("old"), uid("newer"));
        let tracked = [(&listed, 5), (&old, 7), (&newer, 11)];
        let mut suspects = Suspects::default();
        let tracked = tracked.iter().map(|(uid, v)| (*uid, ResourceVersion(*v)));
        suspects.note(ResourceVersion(10), Reason::Start, &HashSet::from([listed.clone()]), tracked);
        assert_eq!(suspects.due(ResourceVersion(9)), [], "the watch has not come so far");
        assert_eq!(suspects.due(ResourceVersion(10)), [(old.clone(), ResourceVersion(10), Reason::Start)]);
        assert_eq!(suspects.due(ResourceVersion(99)), [], "told once");
        suspects.note(ResourceVersion(10), Reason::Start, &HashSet::new(), [(&old, ResourceVersion(7))].into_iter());
        suspects.clear(&old);
        assert_eq!(suspects.due(ResourceVersion(99)), [], "its DELETED came");
    }

    #[test]
    fn a_suspect_is_due_once_when_the_watch_has_passed_the_last_list_that_lacked_it() {
        let (a, b) = (PodUid("a".into()), PodUid("b".into()));
        let (version, none) = (ResourceVersion, HashSet::new());
        let mut suspects = Suspects::default();
        suspects.note(version(5), Reason::Start, &none, [(&a, version(1)), (&b, version(6))].into_iter());
        suspects.note(version(9), Reason::Periodic, &none, [(&a, version(1)), (&b, version(6))].into_iter());
        assert_eq!(suspects.due(version(8)), [], "the later LIST was newer");
        suspects.clear(&b);
        assert_eq!(suspects.due(version(9)), [(a, version(9), Reason::Periodic)], "and the other one was seen");
        assert_eq!(suspects.due(version(99)), []);
    }
}
