//! What others know of an end: the Kubernetes Events about a failed pod, and the Job that owned it.
//!
//! ```text
//!  verdict ─▶ Wanted ─▶ ┌ capture of its output ┐
//!                       └ Evidence: LIST events, GET job ┘─▶ Captured ─▶ end
//! ```
//! Promises: no question takes longer than [`PATIENCE`]; a server that refuses, fails or is slow is left alone for a
//! while, and the ends are told without; only failures ask. Each LIST of events makes the API server look through all
//! events of the namespace, since they have no index by pod (about 10 µs each: docs/evidence.md): that is why few are asked for
//! at a time, and why what they may cost altogether has a budget ([`budget`]).

pub mod budget;
pub mod read;

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use http::Request;
use kube::Client;
use tokio::{
    sync::Semaphore,
    time::{Instant, timeout_at},
};

use self::budget::Budget;
use crate::{
    lifecycle::{cause::OwnerSays, event::KubernetesEvent, wanted::Wanted},
    telemetry::metrics::{EvidenceResult, Metrics, Witness},
    watch::{pod::PodUid, url::percent},
};

/// Longest time that a question takes, with the wait for its permit.
const PATIENCE: Duration = Duration::from_secs(2);
/// Requests at the same time, of each kind.
const READS_MAX: usize = 4;
/// A server that failed, was slow, or refused is left alone for so long.
const PAUSE_FAILED: Duration = Duration::from_secs(5);
const PAUSE_REFUSED: Duration = Duration::from_secs(60);
/// Events of one pod that are looked through; repeated ones are one. The newest of them are told.
const EVENTS_READ_MAX: usize = 500;

/// What was found.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Found {
    /// The last Kubernetes Events about the pod, oldest first.
    pub events: Vec<KubernetesEvent>,
    /// What its Job says.
    pub owner_says: Option<OwnerSays>,
}

/// Asks for it. Clones share their bounds and what they learnt of the server.
#[derive(Clone)]
pub struct Evidence(Option<Arc<Asker>>);

struct Asker {
    client: Client,
    metrics: Metrics,
    events: Option<Line>,
    jobs: Line,
}

/// One kind of question.
struct Line {
    what: Witness,
    permits: Semaphore,
    paused_until: Mutex<Option<Instant>>,
    /// `None`: it costs the server next to nothing.
    budget: Option<Mutex<Budget>>,
}

impl std::fmt::Debug for Evidence {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Evidence")
    }
}

impl Evidence {
    /// Asks through a client without retries. `events`: whether Kubernetes Events are wanted (`--kubernetes-events`).
    pub fn new(client: Client, events: bool, metrics: Metrics) -> Self {
        let events = events.then(|| Line::new(Witness::Events));
        Self(Some(Arc::new(Asker { client, metrics, events, jobs: Line::new(Witness::Job) })))
    }

    /// Asks nobody.
    pub fn none() -> Self {
        Self(None)
    }

    /// Whether anybody would be asked.
    pub fn is_wanted(&self, wanted: &Wanted) -> bool {
        let Some(asker) = &self.0 else { return false };
        wanted.job.is_some() || (wanted.failed && asker.events.is_some())
    }

    /// What is known of this end, within [`PATIENCE`].
    pub async fn of(&self, wanted: &Wanted) -> Found {
        match &self.0 {
            Some(asker) => asker.of(wanted).await,
            None => Found::default(),
        }
    }
}

impl Asker {
    async fn of(&self, wanted: &Wanted) -> Found {
        let (events, owner_says) = tokio::join!(self.events(wanted), self.owner_says(wanted));
        Found { events: events.unwrap_or_default(), owner_says }
    }

    async fn events(&self, wanted: &Wanted) -> Option<Vec<KubernetesEvent>> {
        let line = self.events.as_ref().filter(|_| wanted.failed)?;
        let target = &wanted.target;
        let of_pod = format!("involvedObject.kind=Pod,involvedObject.uid={}", target.uid);
        let url = format!(
            "/api/v1/namespaces/{}/events?fieldSelector={}&limit={EVENTS_READ_MAX}",
            percent(&target.namespace),
            percent(&of_pod)
        );
        read::events(&self.ask(line, &target.uid, &url).await?)
    }

    async fn owner_says(&self, wanted: &Wanted) -> Option<OwnerSays> {
        let job = wanted.job.as_deref()?;
        let url =
            format!("/apis/batch/v1/namespaces/{}/jobs/{}", percent(&wanted.target.namespace), percent(&job.name));
        read::owner_says(&self.ask(&self.jobs, &wanted.target.uid, &url).await?, &job.uid)
    }

    async fn ask(&self, line: &Line, pod_uid: &PodUid, url: &str) -> Option<String> {
        let until = Instant::now() + PATIENCE;
        // Who waits for others that ask has not been let down by the server.
        let permit = timeout_at(until, line.permits.acquire()).await;
        let permit = permit.ok().map(|permit| permit.expect("the semaphore is never closed"));
        let Some(_permit) = permit.filter(|_| !line.is_paused() && line.has_budget()) else {
            // Why an end lacks them is asked later, of one pod.
            let (witness, paused) = (line.what, line.is_paused());
            tracing::debug!(%pod_uid, ?witness, paused, "not asked: paused, too many questions wait, or the budget is spent");
            self.metrics.evidence(line.what, EvidenceResult::Skipped);
            return None;
        };
        let request = Request::get(url).body(Vec::new()).expect("the URL is made of percent-encoded parts");
        let begun = Instant::now();
        let asked = timeout_at(until, self.client.request_text(request)).await;
        // An answer that did not come in time has cost the server as much.
        line.spend(begun.elapsed());
        let result = match asked {
            Ok(Ok(text)) => {
                self.metrics.evidence(line.what, EvidenceResult::Ok);
                return Some(text);
            }
            Ok(Err(kube::Error::Api(status))) if status.code == 404 => EvidenceResult::Gone,
            Ok(Err(kube::Error::Api(status))) if matches!(status.code, 401 | 403) => EvidenceResult::Refused,
            Ok(Err(_)) | Err(_) => EvidenceResult::Failed,
        };
        self.metrics.evidence(line.what, result);
        line.pause(result);
        None
    }
}

impl Line {
    fn new(what: Witness) -> Self {
        let budget = (what == Witness::Events).then(|| Mutex::new(Budget::full(Instant::now())));
        Self { what, permits: Semaphore::new(READS_MAX), paused_until: Mutex::new(None), budget }
    }

    fn budget(&self) -> Option<MutexGuard<'_, Budget>> {
        self.budget.as_ref().map(|budget| budget.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn has_budget(&self) -> bool {
        self.budget().is_none_or(|mut budget| budget.has_some(Instant::now()))
    }

    fn spend(&self, took: Duration) {
        if let Some(mut budget) = self.budget() {
            budget.spend(took, Instant::now());
        }
    }

    fn is_paused(&self) -> bool {
        let until = *self.paused_until.lock().unwrap_or_else(PoisonError::into_inner);
        until.is_some_and(|until| Instant::now() < until)
    }

    fn pause(&self, result: EvidenceResult) {
        let (pause, why) = match result {
            EvidenceResult::Refused => (PAUSE_REFUSED, self.what.right()),
            EvidenceResult::Failed => (PAUSE_FAILED, "the API server did not answer in time, or with an error"),
            EvidenceResult::Ok | EvidenceResult::Gone | EvidenceResult::Skipped => return,
        };
        let mut until = self.paused_until.lock().unwrap_or_else(PoisonError::into_inner);
        // Several may fail at once: said once.
        if until.is_none_or(|until| until <= Instant::now()) {
            tracing::warn!(why, for_s = pause.as_secs(), "ends are told without {}", self.what.name());
        }
        *until = Some(Instant::now() + pause);
    }
}

impl Witness {
    fn name(self) -> &'static str {
        match self {
            Self::Events => "their Kubernetes Events",
            Self::Job => "what their Job says",
        }
    }

    /// The right that is missing, and how it is given.
    fn right(self) -> &'static str {
        match self {
            Self::Events => {
                "the role lacks the verb `list` on `events`: kubectl create role pod-monitor-events --verb=list --resource=events, and bind it to this ServiceAccount; or set --kubernetes-events=false"
            }
            Self::Job => {
                "the role lacks the verb `get` on `jobs.batch`: kubectl create role pod-monitor-jobs --verb=get --resource=jobs.batch, and bind it to this ServiceAccount"
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use http::Response;
    use kube::client::Body;

    use super::*;
    use crate::{logs::Target, watch::pod::PodUid};

    fn wanted(n: usize) -> Wanted {
        let target = Target {
            uid: PodUid(n.to_string().into()),
            namespace: "runs".into(),
            pod_name: "p".into(),
            node_name: None,
            container: "main".into(),
            restart_count: 0,
            termination_message: None,
        };
        Wanted { target, no_log: None, is_init: false, failed: true, job: None }
    }

    /// A server that answers the first question never, and all others with an empty list; it counts them.
    fn server(asked: &Arc<AtomicUsize>) -> Client {
        let asked = Arc::clone(asked);
        let service = tower::util::service_fn(move |_: Request<Body>| {
            let first = asked.fetch_add(1, Ordering::Relaxed) == 0;
            async move {
                if first {
                    std::future::pending::<()>().await;
                }
                Ok::<_, std::io::Error>(Response::new(Body::from(br#"{"items":[{"reason":"R"}]}"#.to_vec())))
            }
        });
        Client::new(service, "runs")
    }

    #[tokio::test(start_paused = true)]
    async fn a_server_that_does_not_answer_delays_ends_once_and_is_then_left_alone_for_a_while() {
        let asked = Arc::new(AtomicUsize::new(0));
        let evidence = Evidence::new(server(&asked), true, Metrics::new());
        let begun = Instant::now();
        assert_eq!(evidence.of(&wanted(0)).await, Found::default());
        assert_eq!(begun.elapsed(), PATIENCE);
        let line = evidence.0.as_ref().and_then(|asker| asker.events.as_ref()).expect("events are asked for");
        assert!(!line.has_budget(), "the time that it took the server is spent");
        for n in 1..100 {
            assert_eq!(evidence.of(&wanted(n)).await, Found::default());
        }
        assert_eq!((begun.elapsed(), asked.load(Ordering::Relaxed)), (PATIENCE, 1), "the others did not wait for it");
        tokio::time::advance(PAUSE_FAILED).await;
        assert_eq!(evidence.of(&wanted(100)).await.events.len(), 1);
    }

    #[tokio::test]
    async fn only_failures_ask_and_nobody_does_where_it_is_not_wanted() {
        let asked = Arc::new(AtomicUsize::new(1));
        let completed = Wanted { failed: false, ..wanted(0) };
        let evidence = Evidence::new(server(&asked), true, Metrics::new());
        assert!(evidence.is_wanted(&wanted(0)) && !evidence.is_wanted(&completed));
        assert_eq!(evidence.of(&completed).await, Found::default());
        let off = Evidence::new(server(&asked), false, Metrics::new());
        assert!(!off.is_wanted(&wanted(0)) && !Evidence::none().is_wanted(&wanted(0)));
        assert_eq!(off.of(&wanted(0)).await, Found::default());
        assert_eq!(asked.load(Ordering::Relaxed), 1);
    }
}
