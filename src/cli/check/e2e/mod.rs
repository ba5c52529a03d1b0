//! `check --e2e`: a pod of our own, from its making to its end on Kafka. The one thing of `check` that writes.
//!
//! Promises: the pod is deleted whatever happens to us but a kill: after its end, after the time limit, after Ctrl-C; a
//! kill leaves a pod that ends by itself.

mod plan;

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use clap::{ArgAction, Args};
use http::Request;
use indicatif::ProgressBar;
use serde_json::Value;
use tokio::{
    sync::mpsc,
    time::{Instant, MissedTickBehavior, interval, sleep_until, timeout},
};
use tokio_util::sync::CancellationToken;

use self::plan::{Asked, Plan, Stage, stage, stuck};
use super::finding::Finding;
use crate::{
    cli::{chain, events::tail},
    config::{Config, Kafka, Sink, duration},
    lifecycle::event::EventType,
    publish::record,
    verify::read,
};

/// How long one call to the API server may take.
const CALL_MAX: Duration = Duration::from_secs(10);
/// Between two looks at the pod.
const LOOK_EVERY: Duration = Duration::from_millis(200);
/// Events that may wait to be looked at.
const WAITING_MAX: usize = 64;
const CHECK: &str = "e2e";

/// Flags of the pod that goes all the way.
#[derive(Args)]
pub(super) struct E2eArgs {
    /// Make a pod that the selector takes, wait for its events on Kafka, and delete it; the monitor must run, and
    /// consumers get these events, too (execution id check-...)
    #[arg(long, action = ArgAction::Set, num_args = 0..=1, require_equals = true, default_value = "false",
        default_missing_value = "true", hide_possible_values = true, hide_default_value = true)]
    e2e: bool,
    /// Its image, which must have 'echo'
    #[arg(long, value_name = "IMAGE", default_value = "busybox")]
    e2e_image: String,
    /// A label that it has besides those that follow from the selector; repeatable
    #[arg(long, value_name = "KEY=VALUE", action = ArgAction::Append, value_parser = plan::label)]
    e2e_label: Vec<(String, String)>,
    /// How long its end may take
    #[arg(long, value_name = "DURATION", default_value = "60s", value_parser = duration::parse)]
    e2e_timeout: Duration,
}

/// What is to be made.
#[derive(Debug)]
pub(super) struct Wish {
    image: String,
    labels: BTreeMap<String, String>,
    limit: Duration,
}

impl E2eArgs {
    /// What does not go together.
    pub(super) fn wrong(&self, at: &dyn Fn(&str) -> String) -> Option<String> {
        let idle = !self.e2e && !self.e2e_label.is_empty();
        idle.then(|| format!("{} has no effect without e2e: add --e2e, or leave it out", at("e2e-label")))
    }

    /// What is to be made, if anything.
    pub(super) fn wish(self) -> Option<Wish> {
        let labels = self.e2e_label.into_iter().collect();
        self.e2e.then_some(Wish { image: self.e2e_image, labels, limit: self.e2e_timeout })
    }
}

/// Makes the pod, tells of each step, and takes it away.
pub(super) async fn run(
    client: &kube::Client,
    config: &Config,
    wish: &Wish,
    stop: &CancellationToken,
    mut show: impl FnMut(Finding),
) {
    let Sink::Kafka(kafka) = &config.sink else {
        return show(
            Finding::failed(CHECK, "events go to standard output: there is no topic to look at").mend("--sink kafka"),
        );
    };
    let nonce = config.identity.rsplit('_').next().unwrap_or_default();
    let asked = Asked { image: &wish.image, labels: &wish.labels, limit_seconds: wish.limit.as_secs(), nonce };
    let plan = match Plan::of(config, &asked) {
        Ok(plan) => plan,
        Err(why) => return show(Finding::failed(CHECK, why)),
    };
    let (heard, mut hearing) = mpsc::channel(WAITING_MAX);
    let done = stop.child_token();
    let (ears, execution_id) = (done.clone(), plan.execution_id.clone());
    let patience = look_ups_max(kafka);
    let kafka: Kafka = kafka.clone();
    let listening = tokio::task::spawn_blocking(move || {
        let tell = |event: Option<Value>| heard.blocking_send(event).is_ok();
        tail(&kafka, &execution_id, &ears, tell)
    });
    // The first message says that the end of the topic is known: what is told from now on is heard.
    let first = stop.run_until_cancelled(timeout(patience, hearing.recv())).await;
    let outcome = match first {
        None => Err(Finding::failed(CHECK, "asked to stop")),
        Some(Ok(Some(None))) => {
            let bar = ProgressBar::new_spinner();
            let walk = Walk { client, plan: &plan, limit: wish.limit, bar: &bar };
            let shown = |finding| bar.suspend(|| show(finding));
            let outcome = Box::pin(walk.go(stop, &mut hearing, shown)).await;
            bar.finish_and_clear();
            outcome
        }
        _ => Err(Finding::failed(CHECK, "the events topics cannot be read")
            .mend("grant Read on them to whoever runs this: docs/kafka.md")),
    };
    done.cancel();
    drop(hearing);
    let told = timeout(CALL_MAX, listening).await;
    match (outcome, told) {
        (Err(finding), Ok(Ok(Err(why)))) => {
            show(Finding { said: format!("{}: {}", finding.said, chain(&why)), ..finding })
        }
        (Err(finding), _) => show(finding),
        (Ok(()), _) => {}
    }
}

/// How long the ends of all events topics may take to be found: of each its partitions, then the end of one of them.
fn look_ups_max(kafka: &Kafka) -> Duration {
    let topics: BTreeSet<String> =
        EventType::ALL.iter().map(|kind| record::topic(&kafka.events_topic, *kind)).collect();
    let look_ups = 2 * u32::try_from(topics.len()).unwrap_or(u32::MAX / 2);
    CALL_MAX + read::ASK_MAX.saturating_mul(look_ups)
}

/// What the API server did not do.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error("it is not there")]
    Gone,
    #[error("{0}")]
    Other(String),
}

/// One pod on its way.
struct Walk<'a> {
    client: &'a kube::Client,
    plan: &'a Plan,
    limit: Duration,
    bar: &'a ProgressBar,
}

impl Walk<'_> {
    async fn go(
        &self,
        stop: &CancellationToken,
        hearing: &mut mpsc::Receiver<Option<Value>>,
        mut show: impl FnMut(Finding),
    ) -> Result<(), Finding> {
        let Plan { namespace, name, pod, .. } = self.plan;
        let made = Instant::now();
        let place = format!("/api/v1/namespaces/{namespace}/pods");
        let body = Request::post(&place).header("content-type", "application/json").body(pod.to_string().into_bytes());
        self.call(body).await.map_err(|error| {
            let why = error.to_string();
            let mend = format!("grant create, get and delete on pods in namespace {namespace} to whoever runs this");
            Finding::failed(CHECK, format!("the pod cannot be made in namespace {namespace}: {why}")).mend(mend)
        })?;
        show(Finding::ok(CHECK, format!("pod {namespace}/{name} made in {}", seconds(made.elapsed()))));
        let outcome = self.follow(made, stop, hearing, &mut show).await;
        let one = format!("{place}/{name}");
        match self.call(Request::delete(format!("{one}?gracePeriodSeconds=1")).body(Vec::new())).await {
            Ok(_) => show(Finding::ok(CHECK, format!("pod {namespace}/{name} deleted"))),
            // Somebody was faster.
            Err(Failure::Gone) => {}
            Err(why) => show(
                Finding::failed(CHECK, format!("pod {namespace}/{name} cannot be deleted: {why}"))
                    .mend(format!("kubectl --namespace {namespace} delete pod {name}")),
            ),
        }
        outcome
    }

    async fn call(&self, request: Result<Request<Vec<u8>>, http::Error>) -> Result<Value, Failure> {
        let request = request.map_err(|error| Failure::Other(error.to_string()))?;
        match timeout(CALL_MAX, self.client.request::<Value>(request)).await {
            Err(_) => Err(Failure::Other(format!("no answer within {CALL_MAX:?}"))),
            Ok(Err(kube::Error::Api(status))) if status.code == 404 => Err(Failure::Gone),
            Ok(answer) => answer.map_err(|error| Failure::Other(chain(&error))),
        }
    }

    /// Until its end is on Kafka.
    async fn follow(
        &self,
        made: Instant,
        stop: &CancellationToken,
        hearing: &mut mpsc::Receiver<Option<Value>>,
        show: &mut impl FnMut(Finding),
    ) -> Result<(), Finding> {
        let (mut pod, mut told, mut shown) = (Some(Value::Null), BTreeSet::new(), Stage::Made);
        let mut looks = interval(LOOK_EVERY);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            self.bar.set_message(format!("{} since it was made", seconds(made.elapsed())));
            tokio::select! {
                biased;
                () = stop.cancelled() => return Err(Finding::failed(CHECK, "asked to stop")),
                Some(Some(event)) = hearing.recv() => {
                    let kind = event["event_type"].as_str().unwrap_or_default().to_owned();
                    show(Finding::ok(CHECK, format!("{kind} is on Kafka after {}", seconds(made.elapsed()))));
                    match kind.as_str() {
                        "execution_completed" => return Ok(()),
                        "execution_failed" | "execution_timeout" => {
                            let why = event["message"].as_str().unwrap_or_default();
                            show(Finding::warning(CHECK, format!("its end was told, but it failed: {why}")));
                            return Ok(());
                        }
                        _ => drop(told.insert(kind)),
                    }
                }
                () = sleep_until(made + self.limit) => {
                    let (why, mend) = stuck(pod.as_ref(), &told);
                    let said = format!("its end did not come within {}: {why}", duration::format(self.limit));
                    return Err(Finding::failed(CHECK, said).mend(mend));
                }
                _ = looks.tick() => {
                    let Plan { namespace, name, .. } = self.plan;
                    match self.call(Request::get(format!("/api/v1/namespaces/{namespace}/pods/{name}")).body(Vec::new())).await {
                        Ok(seen) => {
                            self.steps(&seen, &mut shown, made, show);
                            pod = Some(seen);
                        }
                        // A look that fails says nothing; one that finds nothing does.
                        Err(Failure::Gone) => pod = None,
                        Err(Failure::Other(_)) => {}
                    }
                }
            }
        }
    }

    /// What is new of the pod.
    fn steps(&self, pod: &Value, shown: &mut Stage, made: Instant, show: &mut impl FnMut(Finding)) {
        let stage = stage(pod);
        for next in [Stage::Bound, Stage::Started, Stage::Ended] {
            if next <= *shown || next > stage {
                continue;
            }
            let said = match next {
                Stage::Bound => format!("it is on node {}", pod["spec"]["nodeName"].as_str().unwrap_or_default()),
                Stage::Started => "its container started".to_owned(),
                Stage::Made | Stage::Ended => "its container ended".to_owned(),
            };
            show(Finding::ok(CHECK, format!("{said} after {}", seconds(made.elapsed()))));
            *shown = next;
        }
    }
}

fn seconds(duration: Duration) -> String {
    format!("{:.1} s", duration.as_secs_f64())
}
