//! What was seen of an end is kept, whatever is written over it.

use serde_json::{Value, json};

use super::*;
use crate::{
    lifecycle::{event::Cause, stall::Graces},
    watch::pod::{Decoded, decode},
};

const SETTLED: i64 = 3600;

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(1_700_000_000 + second).expect("a time")
}

fn rules() -> Rules {
    Rules { settle_grace: SignedDuration::from_secs(10), stall_graces: Graces::standard(), ..Rules::default() }
}

fn pod(version: u64, status: Value) -> Pod {
    let metadata = json!({ "uid": "u", "name": "exec-1", "namespace": "runs", "resourceVersion": version.to_string(),
        "creationTimestamp": at(0).to_string() });
    let spec = json!({ "restartPolicy": "Never", "nodeName": "node-1", "containers": [{ "name": "main" }] });
    match decode(&json!({ "metadata": metadata, "spec": spec, "status": status }).to_string()) {
        Decoded::Whole(pod) => pod,
        other => panic!("{other:?}"),
    }
}

fn main_is(phase: &str, state: Value) -> Value {
    json!({ "phase": phase, "startTime": at(1).to_string(),
        "containerStatuses": [{ "name": "main", "restartCount": 0, "ready": false, "state": state }] })
}

fn ended(code: i32, reason: &str) -> Value {
    json!({ "terminated": { "exitCode": code, "reason": reason, "startedAt": at(5).to_string(), "finishedAt": at(9).to_string() } })
}

/// A monitor that sees these, in this order, at these seconds, and is restarted each time; what it remembers.
fn seen(states: &[(Value, i64)]) -> Tracked {
    let mut told = None;
    for (version, (status, second)) in states.iter().enumerate() {
        let pod = pod(version as u64 + 1, status.clone());
        let input = Input::Observed { pod: &pod, earlier: None, now: at(*second) };
        told = step(&PodUid("u".into()), told.as_ref(), input, &rules()).tracked.or(told);
        let written = serde_json::to_string(&told).expect("a record");
        told = serde_json::from_str(&written).expect("the same record");
    }
    told.expect("it was seen")
}

fn verdict(tracked: &Tracked) -> (Option<i32>, Cause, Timestamp) {
    let verdict = tracked.verdict.as_deref().expect("a verdict");
    (verdict.exit_code, verdict.failure.as_ref().expect("it failed").cause, verdict.at)
}

#[test]
fn an_exit_code_outlives_a_kubelet_that_lost_sight_of_the_container() {
    let runs = (main_is("Running", json!({ "running": { "startedAt": at(5).to_string() } })), 6);
    let failed = (main_is("Running", ended(3, "Error")), 10);
    let unknown = (main_is("Failed", ended(137, "ContainerStatusUnknown")), 12);
    assert_eq!(verdict(&seen(&[runs.clone(), failed.clone(), unknown.clone()])), (Some(3), Cause::ExitCode, at(9)));
    // Nobody had seen the code: nobody tells one.
    let (exit_code, cause, _) = verdict(&seen(&[runs.clone(), unknown]));
    assert_eq!((exit_code, cause), (None, Cause::Unknown));
    // A better reason stays, and so does the code.
    let evicted = json!({ "phase": "Failed", "reason": "Evicted", "message": "The node was low on resource: memory." });
    let killed = (main_is("Running", ended(137, "Error")), 10);
    assert_eq!(verdict(&seen(&[runs, killed, (evicted, SETTLED)])), (Some(137), Cause::Evicted, at(9)));
}

#[test]
fn another_attempt_is_another_end() {
    let mut again = main_is("Failed", ended(137, "ContainerStatusUnknown"));
    again["containerStatuses"][0]["restartCount"] = 1.into();
    let failed = (main_is("Running", ended(3, "Error")), 10);
    let (exit_code, cause, _) = verdict(&seen(&[failed, (again, SETTLED)]));
    assert_eq!((exit_code, cause), (None, Cause::Unknown));
}

fn gone(tracked: &Tracked) -> (Option<i32>, Cause) {
    let version = ResourceVersion(1000);
    let input = Input::Gone { last: None, observed: false, followed: None, version, now: at(SETTLED) };
    let decision = step(&PodUid("u".into()), Some(tracked), input, &rules());
    let end = decision.events.into_iter().find_map(|event| match event.body {
        Body::Ended(ended) => Some(ended.verdict),
        _ => None,
    });
    let end = end.expect("an end");
    (end.exit_code, end.failure.expect("it failed").cause)
}

#[test]
fn a_pod_that_vanishes_ends_by_what_was_seen_of_it_last() {
    let runs = (main_is("Running", json!({ "running": { "startedAt": at(5).to_string() } })), 6);
    let failed = (main_is("Running", ended(3, "Error")), 10);
    assert_eq!(gone(&seen(&[runs.clone(), failed])), (Some(3), Cause::ExitCode));
    assert_eq!(gone(&seen(std::slice::from_ref(&runs))), (None, Cause::Lost));
    let mut silent = runs.0.clone();
    silent["conditions"] = json!([{ "type": "Ready", "status": "Unknown", "lastTransitionTime": at(20).to_string() }]);
    assert_eq!(gone(&seen(&[runs.clone(), (silent.clone(), 21)])), (None, Cause::NodeLost), "its node was silent");
    // The node came back, and then the pod went: that was not the node.
    let back = (runs.0.clone(), 40);
    assert_eq!(gone(&seen(&[runs, (silent, 21), back])), (None, Cause::Lost));
}
