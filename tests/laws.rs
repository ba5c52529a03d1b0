//! Laws of `step`, over generated lives of pods: what no single example can show.

#![allow(clippy::unwrap_used, reason = "a test may stop at the first surprise")]

#[path = "support/shape.rs"]
mod shape;

use jiff::{SignedDuration, Timestamp};
use pod_monitor::{
    lifecycle::{
        decide::{Decision, Input, step},
        event::{Body, Captured, Event},
        rules::Rules,
        stall::Graces,
        tracked::Tracked,
        wanted,
    },
    watch::pod::{Decoded, Phase, Pod, PodUid, ResourceVersion, decode},
};
use proptest::{collection::vec, prelude::*, sample::subsequence, test_runner::FileFailurePersistence};
use serde_json::{Value, json};

fn rules() -> Rules {
    let settle_grace = SignedDuration::from_secs(10);
    Rules { cluster_id: "cluster-1".into(), settle_grace, stall_graces: Graces::standard(), ..Rules::default() }
}

fn uid() -> PodUid {
    PodUid("uid-1".into())
}

fn at(second: u64) -> String {
    Timestamp::from_second(1_700_000_000 + second as i64).unwrap().to_string()
}

/// Late enough that no settle grace is open.
fn late() -> Timestamp {
    Timestamp::from_second(1_800_000_000).unwrap()
}

fn pod(value: Value) -> Pod {
    match decode(&value.to_string()) {
        Decoded::Whole(pod) => pod,
        other => panic!("{other:?}"),
    }
}

/// How a generated pod lives.
#[derive(Debug, Clone)]
struct Life {
    image_problem: bool,
    starts: bool,
    exit: Option<(i32, &'static str)>,
    pod_reason: Option<&'static str>,
    deleted_while_running: bool,
    removed: bool,
}

fn life() -> impl Strategy<Value = Life> {
    let exit = prop_oneof![
        Just(Some((0, "Completed"))),
        Just(Some((3, "Error"))),
        Just(Some((137, "OOMKilled"))),
        Just(Some((137, "Error"))),
        Just(Some((139, "Error"))),
        Just(None),
    ];
    let reason = prop_oneof![3 => Just(None), 1 => Just(Some("DeadlineExceeded")), 1 => Just(Some("Evicted"))];
    let flags = (any::<bool>(), prop::bool::weighted(0.8), prop::bool::weighted(0.2), any::<bool>());
    (flags, exit, reason).prop_map(|((image_problem, starts, deleted_while_running, removed), exit, pod_reason)| Life {
        image_problem,
        starts,
        exit: if starts { exit } else { None },
        pod_reason,
        deleted_while_running,
        removed,
    })
}

impl Life {
    /// Every state that the API server shows of this life, oldest first.
    fn states(&self) -> Vec<Value> {
        let mut states = vec![json!({ "phase": "Pending" })];
        let bound = json!([{ "type": "PodScheduled", "status": "True", "lastTransitionTime": at(1) }]);
        let waiting = if self.image_problem { "ErrImagePull" } else { "ContainerCreating" };
        let status = |phase: &str, state: Value| {
            let containers = json!([{ "name": "main", "restartCount": 0, "ready": false, "state": state }]);
            json!({ "phase": phase, "conditions": bound, "startTime": at(1), "containerStatuses": containers })
        };
        states.push(status("Pending", json!({ "waiting": { "reason": waiting } })));
        if self.starts {
            states.push(status("Running", json!({ "running": { "startedAt": at(5) } })));
        }
        if let Some((code, reason)) = self.exit {
            let ended = json!({ "terminated": { "exitCode": code, "reason": reason, "startedAt": at(5), "finishedAt": at(9) } });
            states.push(status("Running", ended.clone()));
            let mut last = status(if code == 0 { "Succeeded" } else { "Failed" }, ended);
            if let Some(reason) = self.pod_reason.filter(|_| code != 0) {
                last["reason"] = reason.into();
            }
            states.push(last);
        }
        states
    }

    fn history(&self) -> Vec<Pod> {
        let states = self.states();
        let last = states.len() - 1;
        let whole = |(index, status): (usize, Value)| {
            let mut metadata = json!({ "uid": "uid-1", "name": "exec-1", "namespace": "runs",
                "resourceVersion": (100 + index).to_string(), "creationTimestamp": at(0) });
            if self.deleted_while_running && index == last {
                metadata["deletionTimestamp"] = at(8).into();
                metadata["deletionGracePeriodSeconds"] = 1.into();
            }
            let mut spec =
                json!({ "restartPolicy": "Never", "activeDeadlineSeconds": 8, "containers": [{ "name": "main" }] });
            if index > 0 {
                spec["nodeName"] = "node-1".into();
            }
            pod(json!({ "metadata": metadata, "spec": spec, "status": status }))
        };
        states.into_iter().enumerate().map(whole).collect()
    }

    /// Whether the final state alone says all that is told, without memory of earlier ones.
    fn explains_itself(&self) -> bool {
        self.exit.is_some()
    }
}

/// A monitor without I/O: captures succeed at once.
#[derive(Default)]
struct Monitor {
    told: Option<Tracked>,
    events: Vec<Event>,
    reread: bool,
}

impl Monitor {
    fn take(&mut self, decision: Decision) {
        let Decision { events, tracked, capture, .. } = decision;
        events.iter().for_each(shape::assert_fits);
        self.events.extend(events);
        self.told = tracked.or(self.told.take());
        if self.reread {
            let text = self.told.as_ref().map(|t| serde_json::to_string(t).unwrap());
            self.told = text.map(|t| serde_json::from_str(&t).unwrap());
        }
        if capture.is_some() {
            let captured = Captured { stdout: Some("out".into()), ..Captured::default() };
            let next = step(&uid(), self.told.as_ref(), Input::Captured { captured, now: late() }, &rules());
            self.take(next);
        }
    }

    fn see(&mut self, pod: &Pod) {
        // A second after the end: the settle grace is open, as it is whenever the kubelet is alive.
        let now = Timestamp::from_second(1_700_000_010).unwrap();
        let decision = step(&uid(), self.told.as_ref(), Input::Observed { pod, earlier: None, now }, &rules());
        self.take(decision);
    }

    fn leave(&mut self, pod: &Pod) {
        let version = pod.metadata.resource_version;
        let decision = step(&uid(), self.told.as_ref(), Input::Left { version }, &rules());
        self.take(decision);
    }

    fn lose(&mut self, last: Option<&Pod>) {
        let version = ResourceVersion(1000);
        let input = Input::Gone { last, observed: last.is_some(), followed: None, version, now: late() };
        let decision = step(&uid(), self.told.as_ref(), input, &rules());
        self.take(decision);
    }

    fn live(life: &Life, seen: &[Pod], reread: bool) -> Self {
        let mut monitor = Self { reread, ..Self::default() };
        for pod in seen {
            monitor.see(pod);
        }
        if life.removed {
            monitor.lose(seen.last());
        }
        monitor
    }

    fn ends(&self) -> Vec<&Event> {
        self.events.iter().filter(|e| matches!(e.body, Body::Ended(_))).collect()
    }
}

/// An event without what depends on when it was seen.
fn essence(event: &Event) -> (uuid::Uuid, &'static str, String) {
    let verdict = match &event.body {
        Body::Ended(ended) => format!("{:?}", ended.verdict),
        _ => String::new(),
    };
    (event.event_id, event.body.event_type().as_str(), verdict)
}

fn config() -> ProptestConfig {
    // A failing seed is to be committed: beside this file, wherever the test runs.
    let file = FileFailurePersistence::Direct(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/laws.regressions"));
    ProptestConfig { cases: 1024, failure_persistence: Some(Box::new(file)), ..ProptestConfig::default() }
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn telling_twice_adds_nothing(life in life()) {
        let history = life.history();
        let mut monitor = Monitor::live(&life, &history, false);
        let told = monitor.events.len();
        for pod in &history {
            monitor.see(pod);
        }
        if life.removed {
            monitor.lose(history.last());
        }
        prop_assert_eq!(monitor.events.len(), told);
    }

    #[test]
    fn stopping_anywhere_and_restoring_tells_the_same_story(life in life()) {
        let history = life.history();
        let (whole, restored) = (Monitor::live(&life, &history, false), Monitor::live(&life, &history, true));
        prop_assert_eq!(whole.events, restored.events);
    }

    #[test]
    fn any_missed_middle_leaves_the_same_story(
        (life, seen) in life().prop_flat_map(|life| {
            let history = life.history();
            let middle = history.len() - 1;
            let seen = subsequence(history[..middle].to_vec(), 0..=middle);
            (Just(life), seen)
        })
    ) {
        let history = life.history();
        let mut seen = seen;
        seen.push(history.last().unwrap().clone());
        let (whole, part) = (Monitor::live(&life, &history, false), Monitor::live(&life, &seen, false));
        let ids = |m: &Monitor| m.events.iter().map(|e| (e.event_id, e.sequence)).collect::<Vec<_>>();
        prop_assert_eq!(ids(&whole), ids(&part));
        if life.explains_itself() {
            let story = |m: &Monitor| m.events.iter().map(essence).collect::<Vec<_>>();
            prop_assert_eq!(story(&whole), story(&part));
        }
    }

    #[test]
    fn leaving_the_selection_and_returning_leaves_the_same_story(
        life in life(), pick in any::<prop::sample::Index>(), restored in any::<bool>()
    ) {
        let history = life.history();
        let left = pick.index(history.len() - 1);
        let whole = Monitor::live(&life, &history, false);
        let mut away = Monitor { reread: restored, ..Monitor::default() };
        for (index, pod) in history.iter().enumerate() {
            away.see(pod);
            if index == left {
                away.leave(pod);
                // A stale LIST is no return, and leaving twice is leaving once.
                away.see(&history[index.saturating_sub(1)]);
                away.leave(pod);
            }
        }
        if life.removed {
            away.lose(history.last());
        }
        prop_assert_eq!(&whole.events, &away.events);
        prop_assert!(!away.told.unwrap().left);
    }

    #[test]
    fn going_outside_the_selection_tells_nothing(life in life()) {
        let history = life.history();
        let mut monitor = Monitor::live(&Life { removed: false, ..life }, &history, false);
        let told = monitor.events.len();
        monitor.leave(history.last().unwrap());
        monitor.lose(None);
        prop_assert_eq!(monitor.events.len(), told);
        prop_assert!(monitor.told.unwrap().gone.is_some(), "its record can go");
    }

    #[test]
    fn an_older_observation_changes_nothing(life in life(), pick in any::<prop::sample::Index>()) {
        let history = life.history();
        let mut monitor = Monitor::live(&life, &history, false);
        let stale = pick.get(&history);
        prop_assume!(stale.metadata.resource_version < monitor.told.as_ref().unwrap().resource_version);
        let decision = step(&uid(), monitor.told.as_ref(), Input::Observed { pod: stale, earlier: None, now: late() }, &rules());
        prop_assert_eq!(&decision, &Decision::default());
        monitor.take(decision);
    }

    #[test]
    fn an_older_observation_does_not_bring_back_a_pod_that_left(life in life(), pick in any::<prop::sample::Index>()) {
        let history = life.history();
        let mut monitor = Monitor::default();
        history.iter().for_each(|pod| monitor.see(pod));
        let left = step(&uid(), monitor.told.as_ref(), Input::Left { version: ResourceVersion(1000) }, &rules());
        monitor.take(left);
        let input = Input::Observed { pod: pick.get(&history), earlier: None, now: late() };
        prop_assert_eq!(step(&uid(), monitor.told.as_ref(), input, &rules()), Decision::default());
    }

    #[test]
    fn there_is_one_end_at_most_and_sequences_have_no_gap(life in life()) {
        let history = life.history();
        let monitor = Monitor::live(&life, &history, false);
        let over = life.exit.is_some() || life.removed;
        prop_assert_eq!(monitor.ends().len(), usize::from(over));
        let sequences: Vec<u32> = monitor.events.iter().map(|e| e.sequence).collect();
        prop_assert_eq!(sequences, (1..=monitor.events.len() as u32).collect::<Vec<_>>());
        let gone = monitor.events.iter().position(|e| matches!(e.body, Body::Terminated { .. }));
        prop_assert_eq!(gone, life.removed.then(|| monitor.events.len() - 1));
        let ids: std::collections::HashSet<_> = monitor.events.iter().map(|e| e.event_id).collect();
        prop_assert_eq!(ids.len(), monitor.events.len());
    }

    #[test]
    fn a_node_that_cannot_be_read_changes_no_order(life in life(), odd in vec(any::<bool>(), 8)) {
        let whole = Monitor::live(&life, &life.history(), false);
        let mut history = life.history();
        for (pod, _) in history.iter_mut().zip(odd).filter(|(_, odd)| *odd) {
            pod.spec.node_name = None;
        }
        let types = |monitor: &Monitor| monitor.events.iter().map(|e| e.body.event_type()).collect::<Vec<_>>();
        prop_assert_eq!(types(&Monitor::live(&life, &history, false)), types(&whole));
    }

    #[test]
    fn exit_code_zero_is_completed_whatever_the_pod_is_called_later(life in life(), reason in "[A-Z][a-zA-Z]{0,12}") {
        let mut life = life;
        (life.starts, life.exit) = (true, Some((0, "Completed")));
        let mut last = life.history().pop().unwrap();
        (last.status.phase, last.status.reason) = (Phase::Failed, Some(reason.into()));
        let monitor = Monitor::live(&life, &[last], false);
        prop_assert_eq!(monitor.ends()[0].body.event_type().as_str(), "execution_completed");
    }

    #[test]
    fn no_pod_panics_it(
        words in vec("[a-zA-Z0-9:.\\-]{0,24}", 12),
        numbers in vec(any::<i32>(), 4),
        shape in 0_usize..6,
    ) {
        let terminated = json!({ "exitCode": numbers[0], "signal": numbers[1], "reason": words[0],
            "startedAt": words[1], "finishedAt": at(numbers[2].unsigned_abs().into()), "message": words[2] });
        let state = [json!({ "terminated": terminated }), json!({ "running": { "startedAt": words[3] } }),
            json!({ "waiting": { "reason": words[4] } }), json!({}), json!(null), json!({ "odd": words[5] })][shape].clone();
        let value = json!({
            "metadata": { "uid": "uid-1", "name": words[6], "namespace": words[7], "resourceVersion": words[8],
                "deletionTimestamp": at(numbers[3].unsigned_abs().into()), "deletionGracePeriodSeconds": numbers[0] },
            "spec": { "nodeName": words[9], "restartPolicy": words[10], "containers": [{ "name": "main" }] },
            "status": { "phase": words[11], "reason": words[0],
                "conditions": [{ "type": "DisruptionTarget", "status": words[1] }],
                "containerStatuses": [{ "name": "main", "state": state, "restartCount": numbers[1] }] },
        });
        let pod = match decode(&value.to_string()) {
            Decoded::Whole(pod) | Decoded::Partly { pod, .. } => pod,
            Decoded::Unreadable { .. } => return Ok(()),
        };
        let mut monitor = Monitor::default();
        monitor.see(&pod);
        monitor.lose(Some(&pod));
        prop_assert!(monitor.ends().len() == 1);
    }

    #[test]
    fn a_going_within_the_settle_grace_keeps_the_exit_code(life in life(), early in any::<bool>()) {
        let mut life = life;
        (life.starts, life.exit, life.pod_reason, life.removed) = (true, Some((3, "Error")), None, true);
        let history = life.history();
        let settling = &history[..history.len() - 1];
        let mut monitor = Monitor::default();
        settling.iter().for_each(|pod| monitor.see(pod));
        let now = if early { Timestamp::from_second(1_700_000_010).unwrap() } else { late() };
        let input = Input::Gone { last: settling.last(), observed: true, followed: None, version: ResourceVersion(1000), now };
        let decision = step(&uid(), monitor.told.as_ref(), input, &rules());
        monitor.take(decision);
        let Body::Ended(ended) = &monitor.ends()[0].body else { unreachable!() };
        prop_assert_eq!(ended.verdict.exit_code, Some(3));
    }
}

/// A pod of one container with this phase, status of the container, and deletion.
fn with(phase: &str, container: Value, deleting: bool) -> Pod {
    let mut metadata = json!({ "uid": "uid-1", "name": "exec-1", "namespace": "runs", "resourceVersion": "7" });
    if deleting {
        metadata["deletionTimestamp"] = at(9).into();
    }
    let spec = json!({ "restartPolicy": "Never", "nodeName": "node-1", "containers": [{ "name": "main" }] });
    pod(json!({ "metadata": metadata, "spec": spec, "status": { "phase": phase, "containerStatuses": [container] } }))
}

#[test]
fn a_pod_is_followed_while_it_runs_and_is_deleted() {
    let running = json!({ "name": "main", "restartCount": 2, "state": { "running": { "startedAt": at(5) } } });
    let ended = json!({ "exitCode": 3, "startedAt": at(5), "finishedAt": at(8) });
    let terminated = json!({ "name": "main", "restartCount": 2, "state": { "terminated": ended } });
    let deleted = with("Running", running.clone(), true);
    let target = wanted::to_follow(None, &deleted, &rules()).expect("it runs and is deleted").target;
    assert_eq!((&*target.container, target.restart_count), ("main", 2));
    assert_eq!(wanted::to_follow(None, &with("Running", running, false), &rules()), None, "nobody deletes it");
    assert_eq!(wanted::to_follow(None, &with("Failed", terminated.clone(), true), &rules()), None, "it has ended");
    let over = with("Failed", terminated, false);
    let told = step(&uid(), None, Input::Observed { pod: &over, earlier: None, now: late() }, &rules()).tracked;
    assert_eq!(wanted::to_follow(told.as_ref(), &deleted, &rules()), None, "its end is decided");
}

#[test]
fn the_output_of_the_attempt_that_ended_is_asked_for() {
    let ended = json!({ "terminated": { "exitCode": 3, "startedAt": at(5), "finishedAt": at(8) } });
    let runs = json!({ "running": { "startedAt": at(9) } });
    let waits = json!({ "waiting": { "reason": "CrashLoopBackOff" } });
    // Whether its state or its last one is the end, and whether it runs again.
    for (state, last, expected) in [(ended.clone(), json!({}), 3), (waits, ended.clone(), 3), (runs, ended, 2)] {
        let container = json!({ "name": "main", "restartCount": 3, "state": state, "lastState": last });
        let pod = with("Failed", container, false);
        let decision = step(&uid(), None, Input::Observed { pod: &pod, earlier: None, now: late() }, &rules());
        assert_eq!(decision.capture.map(|wanted| wanted.target.restart_count), Some(expected), "{state}");
    }
}
