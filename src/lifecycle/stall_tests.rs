//! What stalls, since when, and how it is told: once, after its grace, whatever the scheduler's numbers do.

use serde_json::{Value, json};

use super::*;
use crate::{
    lifecycle::{
        captured::Captured,
        decide::{Decision, Input, step},
        event::{Body, Event},
        tracked::{STALLS_MAX, Tracked},
    },
    watch::pod::{Decoded, PodUid, ResourceVersion, decode},
};

fn rules() -> Rules {
    Rules { settle_grace: SignedDuration::from_secs(10), stall_graces: Graces::standard(), ..Rules::default() }
}

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(1_700_000_000 + second).expect("a time")
}

fn time(second: i64) -> Value {
    at(second).to_string().into()
}

fn pod(version: u64, spec: Value, status: Value) -> Pod {
    let metadata = json!({ "name": "p", "namespace": "n", "uid": "u", "resourceVersion": version.to_string(),
        "creationTimestamp": time(0) });
    read(json!({ "metadata": metadata, "spec": spec, "status": status }))
}

fn read(pod: Value) -> Pod {
    match decode(&pod.to_string()) {
        Decoded::Whole(pod) => pod,
        other => panic!("{other:?}"),
    }
}

fn refused(reason: &str, message: &str) -> Value {
    json!({ "phase": "Pending", "conditions": [{ "type": "PodScheduled", "status": "False", "reason": reason,
        "message": message, "lastTransitionTime": time(1) }] })
}

fn bound() -> Value {
    json!({ "nodeName": "node-1", "restartPolicy": "Never", "containers": [{ "name": "main" }],
        "initContainers": [{ "name": "prepare" }, { "name": "helper", "restartPolicy": "Always" }] })
}

/// On its node since second 2, seen by its kubelet at second 3.
fn on_node(differs: Value) -> Value {
    let mut status = json!({ "phase": "Pending", "startTime": time(3), "conditions": [
        { "type": "PodScheduled", "status": "True", "lastTransitionTime": time(2) }] });
    for (key, value) in differs.as_object().expect("an object") {
        status[key] = value.clone();
    }
    status
}

fn main_waits(reason: &str) -> Value {
    on_node(
        json!({ "containerStatuses": [{ "name": "main", "state": { "waiting": { "reason": reason, "message": "why" } } }] }),
    )
}

fn runs(differs: Value) -> Value {
    let running = json!([{ "name": "main", "state": { "running": { "startedAt": time(5) } } }]);
    let mut status = on_node(json!({ "phase": "Running", "containerStatuses": running }));
    for (key, value) in differs.as_object().expect("an object") {
        status[key] = value.clone();
    }
    status
}

/// The clock of a status: cause, since, due, in seconds.
fn seen(pod: &Pod) -> Option<(&'static str, i64, i64)> {
    let clock = clock(pod, &rules())?;
    let second = |t: Timestamp| t.as_second() - 1_700_000_000;
    Some((clock.cause.as_str(), second(clock.since), second(clock.due)))
}

#[test]
fn before_it_is_on_a_node() {
    let gated = json!({ "schedulingGates": [{ "name": "kueue" }], "containers": [{ "name": "main" }] });
    let plain = json!({ "containers": [{ "name": "main" }] });
    let cases = [
        ("no node fits", plain.clone(), refused("Unschedulable", "0/3 nodes"), Some(("unschedulable", 1, 61))),
        ("the scheduler failed", plain.clone(), refused("SchedulerError", "x"), Some(("unschedulable", 1, 61))),
        ("no scheduler looked", plain.clone(), json!({}), Some(("unschedulable", 0, 60))),
        ("gated", gated.clone(), refused("SchedulingGated", "x"), Some(("gated", 1, 601))),
        ("gated, no condition yet", gated, json!({}), Some(("gated", 0, 600))),
    ];
    for (name, spec, status, expected) in cases {
        assert_eq!(seen(&pod(1, spec, status)), expected, "{name}");
    }
}

#[test]
fn on_its_node_and_not_started() {
    let init = |state: Value| on_node(json!({ "initContainerStatuses": [{ "name": "prepare", "state": state }] }));
    let silent = json!({ "phase": "Pending", "conditions": [
        { "type": "PodScheduled", "status": "True", "lastTransitionTime": time(2) }] });
    let initialized = |mut status: Value| {
        let done = json!({ "type": "Initialized", "status": "True", "lastTransitionTime": time(20) });
        status["conditions"].as_array_mut().expect("a list").push(done);
        status
    };
    let cases = [
        ("its kubelet says nothing", silent, Some(("node_lost", 2, 62))),
        ("being prepared", main_waits("ContainerCreating"), Some(("starting", 3, 123))),
        ("prepared after its init containers", initialized(main_waits("PodInitializing")), Some(("starting", 20, 140))),
        ("image cannot be pulled", main_waits("ErrImagePull"), Some(("image", 3, 63))),
        ("nor a second later", main_waits("ImagePullBackOff"), Some(("image", 3, 63))),
        ("a name that no time mends", main_waits("InvalidImageName"), Some(("image", 3, 3))),
        // Somebody may load it onto the node.
        ("an image that is never pulled", main_waits("ErrImageNeverPull"), Some(("image", 3, 63))),
        ("a ConfigMap is missing", main_waits("CreateContainerConfigError"), Some(("config", 3, 63))),
        ("a reason of a later Kubernetes", main_waits("MoonPhase"), Some(("unknown", 3, 123))),
        ("an init container runs", init(json!({ "running": {} })), Some(("init", 3, 303))),
        ("an init container fails", init(json!({ "terminated": { "exitCode": 3 } })), Some(("init", 3, 303))),
        ("an init container's image", init(json!({ "waiting": { "reason": "ErrImagePull" } })), Some(("image", 3, 63))),
    ];
    for (name, status, expected) in cases {
        assert_eq!(seen(&pod(1, bound(), status)), expected, "{name}");
    }
    let helper = on_node(json!({ "initContainerStatuses": [{ "name": "helper", "state": { "running": {} } }],
        "containerStatuses": [{ "name": "main", "state": { "waiting": { "reason": "PodInitializing" } } }] }));
    assert_eq!(seen(&pod(1, bound(), helper)).map(|s| s.0), Some("starting"), "a sidecar that runs holds nothing up");
}

#[test]
fn while_it_runs() {
    let ready = |status: &str, reason: Option<&str>, containers: &str| {
        let mut ready = json!({ "type": "Ready", "status": status, "lastTransitionTime": time(50) });
        if let Some(reason) = reason {
            ready["reason"] = reason.into();
        }
        json!({ "conditions": [ready, { "type": "ContainersReady", "status": containers, "lastTransitionTime": time(6) }] })
    };
    let crashed = |reason: &str| {
        json!({ "containerStatuses": [{ "name": "main", "state": { "waiting": { "reason": reason } },
            "lastState": { "terminated": { "exitCode": 1, "startedAt": time(5), "finishedAt": time(9) } } }] })
    };
    let cases = [
        ("it runs", runs(json!({})), None),
        ("its node was lost", runs(ready("False", None, "True")), Some(("node_lost", 50, 110))),
        (
            "as an older Kubernetes says it",
            runs(ready("False", Some("NodeLost"), "False")),
            Some(("node_lost", 50, 110)),
        ),
        ("it is not ready", runs(ready("False", Some("ContainersNotReady"), "False")), None),
        ("it crashes and is started again", runs(crashed("CrashLoopBackOff")), None),
        ("its image is gone at the second start", runs(crashed("ErrImagePull")), Some(("image", 9, 69))),
    ];
    for (name, status, expected) in cases {
        assert_eq!(seen(&pod(1, bound(), status)), expected, "{name}");
    }
    let mut limited = bound();
    (limited["activeDeadlineSeconds"], limited["terminationGracePeriodSeconds"]) = (10.into(), 5.into());
    assert_eq!(seen(&pod(1, limited, runs(json!({})))), Some(("deadline", 18, 48)), "start 3, limit 10, grace 5");
}

#[test]
fn a_deletion_that_does_not_come_about_names_the_finalizers() {
    let mut pod = pod(1, bound(), runs(json!({})));
    pod.metadata.deletion_timestamp = Some(at(40));
    pod.metadata.finalizers = vec!["batch.kubernetes.io/job-tracking".into()];
    assert_eq!(seen(&pod), Some(("terminating", 40, 100)));
    let message = clock(&pod, &rules()).and_then(|c| c.message).expect("a message");
    assert!(message.contains("batch.kubernetes.io/job-tracking"), "{message}");
}

#[test]
fn a_cause_that_is_off_has_no_clock() {
    let mut rules = rules();
    rules.stall_graces.set(Cause::Image, None);
    assert_eq!(clock(&pod(1, bound(), main_waits("ErrImagePull")), &rules), None);
}

#[test]
fn of_a_pod_that_cannot_be_read_whole_nobody_knows_whether_it_stalls() {
    let mut pod = pod(1, bound(), main_waits("ErrImagePull"));
    pod.incomplete = true;
    assert_eq!(seen(&pod), None);
}

/// One pod's story, told by steps at given seconds.
#[derive(Default)]
struct Story {
    told: Option<Tracked>,
    events: Vec<Event>,
    tick_at: Option<Timestamp>,
}

impl Story {
    fn take(&mut self, decision: Decision) {
        self.events.extend(decision.events);
        // As a successor reads it.
        let reread = |t: Tracked| serde_json::from_str(&serde_json::to_string(&t).expect("json")).expect("a record");
        self.told = decision.tracked.map(reread).or(self.told.take());
        self.tick_at = decision.tick_at;
    }

    fn see(&mut self, pod: &Pod, second: i64) {
        let input = Input::Observed { pod, earlier: None, now: at(second) };
        self.take(step(&PodUid("u".into()), self.told.as_ref(), input, &rules()));
    }

    fn capture(&mut self, second: i64) {
        let input = Input::Captured { captured: Captured::default(), now: at(second) };
        self.take(step(&PodUid("u".into()), self.told.as_ref(), input, &rules()));
    }

    fn tick(&mut self, second: i64) {
        self.take(step(&PodUid("u".into()), self.told.as_ref(), Input::Tick { now: at(second) }, &rules()));
    }

    fn types(&self) -> Vec<&'static str> {
        self.events.iter().map(|e| e.body.event_type().as_str()).collect()
    }
}

#[test]
fn a_stall_is_told_once_after_its_grace_although_its_message_changes() {
    let mut story = Story::default();
    for (version, message) in ["0/3 nodes are available", "0/4 nodes are available"].into_iter().enumerate() {
        let spec = json!({ "containers": [{ "name": "main" }] });
        story.see(&pod(version as u64 + 1, spec, refused("Unschedulable", message)), 10 + version as i64);
        assert_eq!((story.tick_at, story.types().len()), (Some(at(61)), 0));
    }
    let before = story.told.clone();
    story.see(&pod(3, json!({}), refused("Unschedulable", "0/5 nodes are available")), 20);
    assert_eq!(story.told, before, "another number is not written");
    story.tick(60);
    assert_eq!((story.tick_at, story.types().len()), (Some(at(61)), 0), "its grace is not over");
    story.tick(61);
    assert_eq!(story.types(), ["execution_stalled"]);
    let Body::Stalled { cause, since, message } = &story.events[0].body else { panic!("{:?}", story.events) };
    assert_eq!((*cause, *since, story.events[0].timestamp), (Cause::Unschedulable, at(1), at(61)));
    assert_eq!(message.as_deref(), Some("0/3 nodes are available"));
    story.tick(70);
    story.see(&pod(4, json!({}), refused("Unschedulable", "0/6 nodes are available")), 80);
    story.tick(200);
    assert_eq!(story.types(), ["execution_stalled"], "once");
}

#[test]
fn a_stall_that_resolves_itself_is_told_as_resumed_before_what_follows() {
    let mut story = Story::default();
    story.see(&pod(1, json!({}), refused("Unschedulable", "0/3 nodes")), 10);
    story.tick(61);
    story.see(&pod(2, bound(), main_waits("ErrImagePull")), 70);
    story.tick(130);
    story.see(&pod(3, bound(), runs(json!({}))), 140);
    let expected = [
        "execution_stalled",
        "execution_resumed",
        "pod_scheduled",
        "execution_stalled",
        "execution_resumed",
        "execution_running",
    ];
    assert_eq!(story.types(), expected);
    let Body::Resumed { cause, stalled_since } = story.events[4].body else { panic!("{:?}", story.events) };
    assert_eq!((cause, stalled_since), (Cause::Image, at(3)));
    let ids: std::collections::BTreeSet<_> = story.events.iter().map(|e| e.event_id).collect();
    assert_eq!(ids.len(), expected.len(), "an id each");
    // It flaps back to the very same trouble, which cannot be told by another id.
    story.see(&pod(4, bound(), main_waits("ErrImagePull")), 150);
    story.tick(250);
    assert_eq!(story.types(), expected);
}

#[test]
fn nothing_that_was_seen_tells_a_stall_by_itself() {
    // After a take-over the watch replays what is long past.
    let mut story = Story::default();
    story.see(&pod(1, bound(), main_waits("ErrImagePull")), 5000);
    assert_eq!((story.types(), story.tick_at), (vec!["pod_scheduled"], Some(at(63))));
    story.see(&pod(2, bound(), runs(json!({}))), 5000);
    story.tick(5001);
    assert_eq!(story.types(), ["pod_scheduled", "execution_running"]);
}

#[test]
fn an_end_closes_a_stall_and_nothing_stalls_after_it() {
    let mut story = Story::default();
    story.see(&pod(1, bound(), main_waits("ErrImagePull")), 10);
    story.tick(63);
    let failed = json!({ "phase": "Failed", "reason": "OutOfcpu", "startTime": time(3) });
    story.see(&pod(2, bound(), failed.clone()), 70);
    story.capture(71);
    story.see(&pod(3, bound(), failed), 7000);
    story.tick(8000);
    assert_eq!(story.types(), ["pod_scheduled", "execution_stalled", "execution_failed"]);
}

#[test]
fn a_pod_that_flaps_for_days_tells_no_more_than_its_bound() {
    let mut story = Story::default();
    for round in 0..100_i64 {
        let lost = json!({ "conditions": [{ "type": "Ready", "status": "Unknown", "lastTransitionTime": time(1000 * round) }] });
        story.see(&pod(2 * round as u64 + 1, bound(), runs(lost)), 1000 * round + 10);
        story.tick(1000 * round + 100);
        story.see(&pod(2 * round as u64 + 2, bound(), runs(json!({}))), 1000 * round + 200);
    }
    let stalled = story.types().iter().filter(|t| **t == "execution_stalled").count();
    assert_eq!(stalled, STALLS_MAX);
    assert_eq!(story.told.expect("it is tracked").resource_version, ResourceVersion(64), "and writes no more");
}
