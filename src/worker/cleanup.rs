//! Pods that are held or to be deleted, and the requests under way that let them go. Only the worker knows when an end is
//! committed; this keeps the deeds bounded, repeats what failed, and raises its voice when a deadline passes.

use std::{
    collections::{HashSet, VecDeque},
    time::Duration,
};

use jiff::Timestamp;
use tokio::task::{JoinError, JoinSet};
use tokio_util::time::DelayQueue;

use crate::{
    cleanup::{self, Done, Settings},
    cli::chain,
    lifecycle::tracked::Tracked,
    telemetry::metrics::{Deed, DeedResult, Metrics},
    watch::{
        api::{Error, Pods},
        pod::{ByUid, Pod, PodUid},
    },
};

/// Requests at the same time.
const DEEDS_MAX: usize = 16;
/// After a request that failed; after one that was refused for want of a right.
const AGAIN: Duration = Duration::from_secs(2);
const AGAIN_REFUSED: Duration = Duration::from_secs(30);

/// A pod that carries our finalizer.
struct Held {
    namespace: Box<str>,
    name: Box<str>,
    at: usize,
    deletion: Option<Timestamp>,
}

/// One request, with all that it needs.
#[derive(Clone)]
struct Order {
    deed: Deed,
    uid: PodUid,
    namespace: Box<str>,
    name: Box<str>,
    at: usize,
    overdue: bool,
}

/// What one worker cleans up.
pub(super) struct Cleanup {
    settings: Settings,
    pods: Pods,
    metrics: Metrics,
    held: ByUid<Held>,
    /// Asked for and not done: no second request for the same.
    ordered: HashSet<(Deed, PodUid)>,
    later: DelayQueue<Order>,
    ready: VecDeque<Order>,
    running: JoinSet<(Order, Result<Done, Error>)>,
}

impl Cleanup {
    pub(super) fn new(settings: Settings, pods: Pods, metrics: Metrics) -> Self {
        Self {
            settings,
            pods,
            metrics,
            held: ByUid::default(),
            ordered: HashSet::new(),
            later: DelayQueue::new(),
            ready: VecDeque::new(),
            running: JoinSet::new(),
        }
    }

    /// A state of a pod was seen; `told` is what is committed of it. This is also the sweep after a take-over: its LIST
    /// shows every pod whose release or deletion a predecessor did not get to.
    pub(super) fn observed(&mut self, pod: &Pod, told: Option<&Tracked>, now: Timestamp) {
        let m = &pod.metadata;
        match self.settings.position(m) {
            Some(at) => {
                let (namespace, name, deletion) =
                    (m.namespace.as_str().into(), m.name.as_str().into(), m.deletion_timestamp);
                self.held.insert(m.uid.clone(), Held { namespace, name, at, deletion });
            }
            None => drop(self.held.remove(&m.uid)),
        }
        if let Some(told) = told {
            self.committed(&m.uid, told, now);
        }
    }

    /// This stands in the changelog. INV-15: before that nothing may be let go, a successor could not tell the end any more.
    pub(super) fn committed(&mut self, uid: &PodUid, told: &Tracked, now: Timestamp) {
        if told.gone.is_some() {
            self.held.remove(uid);
            // By somebody else, mostly: nobody need be asked any more.
            self.ordered.remove(&(Deed::Release, uid.clone()));
            self.ordered.remove(&(Deed::Delete, uid.clone()));
            return;
        }
        // Who left the selection is nobody's to hold.
        if told.end.is_some() || told.left {
            self.release(uid, false);
        }
        let Some((end, delay)) = told.end.zip(self.settings.delete_finished).filter(|_| !told.left) else { return };
        // What comes back with its deletion under way is on its way out.
        if told.deletion_timestamp.is_some() || !self.ordered.insert((Deed::Delete, uid.clone())) {
            return;
        }
        let passed = end.told_at.map_or(Duration::ZERO, |told| now.duration_since(told).try_into().unwrap_or_default());
        let (namespace, name) = (told.namespace.clone(), told.pod_name.clone());
        let order = Order { deed: Deed::Delete, uid: uid.clone(), namespace, name, at: 0, overdue: false };
        self.later.insert(order, delay.saturating_sub(passed));
    }

    fn release(&mut self, uid: &PodUid, overdue: bool) {
        let Some(held) = self.held.get(uid) else { return };
        if self.ordered.insert((Deed::Release, uid.clone())) {
            let (namespace, name) = (held.namespace.clone(), held.name.clone());
            self.ready.push_back(Order {
                deed: Deed::Release,
                uid: uid.clone(),
                namespace,
                name,
                at: held.at,
                overdue,
            });
        }
    }

    /// Lets go of pods whose deletion has been waiting for us for too long, told or not: nothing holds up a namespace for
    /// ever.
    pub(super) fn sweep(&mut self, now: Timestamp) {
        let deadline =
            jiff::SignedDuration::try_from(self.settings.finalizer_deadline).unwrap_or(jiff::SignedDuration::MAX);
        let over = |held: &Held| held.deletion.is_some_and(|due| now.duration_since(due) > deadline);
        let overdue: Vec<PodUid> = self.held.iter().filter(|(_, h)| over(h)).map(|(uid, _)| uid.clone()).collect();
        for uid in overdue {
            if self.ordered.contains(&(Deed::Release, uid.clone())) {
                continue;
            }
            if let Some(held) = self.held.get(&uid) {
                let pod = format!("{}/{}", held.namespace, held.name);
                tracing::error!(
                    pod, pod_uid = %uid,
                    "its end could not be told within finalizer-deadline: its finalizer is taken off all the same, and what \
                     happened to it may be lost. See why nothing is committed: readyz?verbose"
                );
            }
            self.metrics.deed_done(Deed::Release, DeedResult::Overdue);
            self.release(&uid, true);
        }
    }

    /// Begins what there is room for.
    pub(super) fn begin(&mut self) {
        while self.running.len() < DEEDS_MAX {
            let Some(order) = self.ready.pop_front() else { return };
            if !self.ordered.contains(&(order.deed, order.uid.clone())) {
                // It went meanwhile.
                continue;
            }
            let (pods, finalizer) = (self.pods.clone(), self.settings.finalizer.clone().unwrap_or_default());
            self.running.spawn(async move {
                let pod = (&*order.namespace, &*order.name);
                let done = match order.deed {
                    Deed::Release => cleanup::release(&pods, pod, &order.uid, &finalizer, order.at).await,
                    Deed::Delete => pods.delete(pod.0, pod.1, &order.uid).await.map(|found| match found {
                        Some(()) => Done::Done,
                        None => Done::Needless,
                    }),
                };
                (order, done)
            });
        }
    }

    /// Waits for the next request to end or to become due; for ever where there is none. Cancelling loses nothing.
    pub(super) async fn next(&mut self) -> Result<(), JoinError> {
        tokio::select! {
            Some(ended) = self.running.join_next() => {
                let (order, done) = ended?;
                self.ended(order, done);
            }
            Some(due) = std::future::poll_fn(|cx| self.later.poll_expired(cx)), if !self.later.is_empty() => {
                self.ready.push_back(due.into_inner());
            }
            else => std::future::pending().await,
        }
        self.begin();
        Ok(())
    }

    fn ended(&mut self, order: Order, done: Result<Done, Error>) {
        let result = match &done {
            Ok(Done::Done) => DeedResult::Done,
            Ok(Done::Needless) => DeedResult::Needless,
            Err(_) => DeedResult::Failed,
        };
        self.metrics.deed_done(order.deed, result);
        match done {
            Ok(_) => {
                self.ordered.remove(&(order.deed, order.uid.clone()));
                if order.deed == Deed::Release {
                    self.held.remove(&order.uid);
                }
            }
            Err(error) => {
                let pod = format!("{}/{}", order.namespace, order.name);
                let pause = if matches!(error, Error::Forbidden { .. }) { AGAIN_REFUSED } else { AGAIN };
                let deed = order.deed.as_str();
                tracing::warn!(pod, deed, overdue = order.overdue, error = %chain(&error), "not done yet, trying again");
                self.later.insert(order, pause);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{
        convert::Infallible,
        sync::{Arc, Mutex},
    };

    use tokio::time::Instant;

    use super::*;
    use crate::{
        lifecycle::{
            decide::{Input, step},
            event::Captured,
        },
        watch::pod::{Pod, ResourceVersion, decode},
    };

    /// A clean-up whose API server never answers, and what it was asked for.
    fn unanswered(settings: Settings) -> (Cleanup, Arc<Mutex<Vec<String>>>) {
        let asked = Arc::new(Mutex::new(Vec::new()));
        let into = Arc::clone(&asked);
        let service = tower::service_fn(move |request: http::Request<kube::client::Body>| {
            into.lock().expect("nobody panics").push(format!("{} {}", request.method(), request.uri().path()));
            std::future::pending::<Result<http::Response<kube::client::Body>, Infallible>>()
        });
        let pods = Pods::new(kube::Client::new(service, "default"));
        (Cleanup::new(settings, pods, Metrics::new()), asked)
    }

    fn now() -> Timestamp {
        Timestamp::from_second(1_700_000_000).expect("a time")
    }

    /// Pod `n`, whose end has been told.
    fn ended(n: usize) -> (Pod, Tracked) {
        let text = format!(
            r#"{{"metadata":{{"uid":"u-{n}","name":"p-{n}","namespace":"n","finalizers":["example.com/told"]}},"status":{{"phase":"Failed"}}}}"#
        );
        let (Some(pod), _) = decode(&text).split() else { panic!("a pod") };
        let rules = crate::lifecycle::rules::Rules::default();
        let observed = Input::Observed { pod: &pod, earlier: None, now: now() };
        let judged = step(&pod.metadata.uid, None, observed, &rules).tracked;
        let captured = Input::Captured { captured: Captured::default(), now: now() };
        let told = step(&pod.metadata.uid, judged.as_ref(), captured, &rules).tracked.expect("its end");
        (*pod, told)
    }

    /// Lets it do what can be done within this time.
    async fn goes_on(cleanup: &mut Cleanup, limit: Duration) {
        let goes = async {
            loop {
                cleanup.next().await.expect("no task dies");
            }
        };
        assert!(tokio::time::timeout(limit, goes).await.is_err(), "it waits for the API server");
    }

    #[tokio::test(start_paused = true)]
    async fn a_pod_that_is_gone_is_not_asked_for_any_more() {
        let settings = Settings { delete_finished: Some(Duration::from_secs(60)), ..Settings::default() };
        let (mut cleanup, asked) = unanswered(settings);
        let [(_, gone), (_, stays)] = [ended(1), ended(2)];
        for (n, told) in [(1, &gone), (2, &stays)] {
            cleanup.committed(&PodUid(format!("u-{n}").into()), told, now());
        }
        let gone = Tracked { gone: Some(ResourceVersion(7)), ..gone };
        cleanup.committed(&PodUid("u-1".into()), &gone, now());
        goes_on(&mut cleanup, Duration::from_secs(61)).await;
        assert_eq!(*asked.lock().expect("nobody panics"), ["DELETE /api/v1/namespaces/n/pods/p-2"]);
    }

    #[tokio::test(start_paused = true)]
    async fn who_has_waited_longest_is_let_go_first() {
        let settings = Settings { finalizer: Some("example.com/told".into()), ..Settings::default() };
        let (mut cleanup, asked) = unanswered(settings);
        for n in 0..2 * DEEDS_MAX {
            let (pod, told) = ended(n);
            cleanup.observed(&pod, Some(&told), now());
        }
        cleanup.begin();
        goes_on(&mut cleanup, Duration::from_secs(1)).await;
        let first: Vec<_> = (0..DEEDS_MAX).map(|n| format!("PATCH /api/v1/namespaces/n/pods/p-{n}")).collect();
        assert_eq!(*asked.lock().expect("nobody panics"), first);
    }

    #[tokio::test(start_paused = true)]
    async fn a_pod_is_deleted_when_it_was_promised_however_far_away_that_is() {
        let two_days = Duration::from_secs(48 * 3600);
        let settings = Settings { delete_finished: Some(two_days), ..Settings::default() };
        // Nobody is asked: nothing is due.
        let config = kube::Config::new(http::Uri::from_static("http://127.0.0.1:1"));
        let client = kube::Client::try_from(config).expect("a client");
        let mut cleanup = Cleanup::new(settings, Pods::new(client), Metrics::new());
        let ended = r#"{"metadata":{"uid":"u","name":"p","namespace":"n"},"status":{"phase":"Failed"}}"#;
        let (Some(pod), _) = decode(ended).split() else { panic!("a pod") };
        let (uid, now) = (PodUid("u".into()), Timestamp::from_second(1_700_000_000).expect("a time"));
        let input = Input::Observed { pod: &pod, earlier: None, now };
        let rules = crate::lifecycle::rules::Rules::default();
        let judged = step(&uid, None, input, &rules).tracked;
        let input = Input::Captured { captured: Captured::default(), now };
        let told = step(&uid, judged.as_ref(), input, &rules).tracked.expect("its end");
        cleanup.committed(&uid, &told, now);
        let key = cleanup.later.peek().expect("its deletion is ordered");
        assert!(cleanup.later.deadline(&key) >= Instant::now() + two_days, "not before its time");
    }
}
