//! LIST and compare: what a consistent snapshot says against what has been told.
//!
//! [`list`] fetches the snapshot; [`Suspects`] is the pure half of finding what vanished unseen. A pod is only suspected
//! if the snapshot is newer than the record of it, and only judged once the watch has passed the snapshot: a DELETED on
//! its way brings the last state, which is better than "it is not there".

use std::collections::BTreeMap;

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

/// A whole, consistent LIST.
#[derive(Debug)]
pub struct Snapshot {
    /// Its resourceVersion.
    pub version: ResourceVersion,
    /// The pods.
    pub pods: Vec<Decoded>,
}

/// LISTs all pages, retrying until it works. `trouble` hears of each failure. Cancel by dropping.
pub async fn list(pods: &Pods, scope: &Scope, mut trouble: impl FnMut(Error)) -> Snapshot {
    let mut backoff = Backoff::of((pods.who(), scope.stream()));
    loop {
        match pages(pods, scope).await {
            Ok(snapshot) => return snapshot,
            // Between pages the token can expire: only a LIST from the beginning is a snapshot. Not every time, though.
            Err(Error::Expired { .. }) if backoff.is_fresh() => {}
            Err(error) => trouble(error),
        }
        tokio::time::sleep(backoff.pause()).await;
    }
}

async fn pages(pods: &Pods, scope: &Scope) -> Result<Snapshot, Error> {
    let mut all = Vec::new();
    let mut token: Option<String> = None;
    loop {
        let Page { version, next, pods: page, .. } = pods.list_page(scope, token.as_deref()).await?;
        // Whatever the server left out already.
        all.extend(page.into_iter().filter(|decoded| pods.is_ours(scope, decoded)));
        match next {
            Some(next) => token = Some(next),
            None => return Ok(Snapshot { version, pods: all }),
        }
    }
}

/// Pods that a snapshot lacks although they were told of, until the watch has passed that snapshot.
#[derive(Debug, Default)]
pub struct Suspects {
    by_uid: BTreeMap<PodUid, (ResourceVersion, Reason)>,
}

impl Suspects {
    /// Notes every tracked pod that is absent from a snapshot of `version` and whose record is not newer than it.
    pub fn note<'a>(
        &mut self,
        version: ResourceVersion,
        reason: Reason,
        listed: &std::collections::HashSet<&PodUid>,
        tracked: impl Iterator<Item = (&'a PodUid, ResourceVersion)>,
    ) {
        // INV-8: a stale LIST never says "gone".
        let absent = tracked.filter(|(uid, known)| *known <= version && !listed.contains(uid));
        self.by_uid.extend(absent.map(|(uid, _)| (uid.clone(), (version, reason))));
    }

    /// The pod was seen, or its going was: no longer a suspect.
    pub fn clear(&mut self, uid: &PodUid) {
        self.by_uid.remove(uid);
    }

    /// Takes out those whose snapshot the watch has passed at `seen`: their DELETED is not coming any more.
    pub fn due(&mut self, seen: ResourceVersion) -> Vec<(PodUid, ResourceVersion, Reason)> {
        let passed = self.by_uid.iter().filter(|(_, (version, _))| *version <= seen);
        let due: Vec<_> = passed.map(|(uid, (version, reason))| (uid.clone(), *version, *reason)).collect();
        for (uid, ..) in &due {
            self.by_uid.remove(uid);
        }
        due
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    fn uid(name: &str) -> PodUid {
        PodUid(name.into())
    }

    #[test]
    fn a_pod_is_missing_only_by_a_newer_list_that_the_watch_has_passed() {
        let (listed, old, newer) = (uid("listed"), uid("old"), uid("newer"));
        let tracked = [(&listed, 5), (&old, 7), (&newer, 11)];
        let mut suspects = Suspects::default();
        let tracked = tracked.iter().map(|(uid, v)| (*uid, ResourceVersion(*v)));
        suspects.note(ResourceVersion(10), Reason::Start, &HashSet::from([&listed]), tracked);
        assert_eq!(suspects.due(ResourceVersion(9)), [], "the watch has not come so far");
        assert_eq!(suspects.due(ResourceVersion(10)), [(old.clone(), ResourceVersion(10), Reason::Start)]);
        assert_eq!(suspects.due(ResourceVersion(99)), [], "told once");
        suspects.note(ResourceVersion(10), Reason::Start, &HashSet::new(), [(&old, ResourceVersion(7))].into_iter());
        suspects.clear(&old);
        assert_eq!(suspects.due(ResourceVersion(99)), [], "its DELETED came");
    }
}
