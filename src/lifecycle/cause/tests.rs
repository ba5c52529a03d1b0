//! How pods end, case by case: the verdict over a status as a kubelet or a controller leaves it.

mod containers;
mod disruptions;
mod going;
mod programs;
mod words;

use jiff::SignedDuration;
use serde_json::{Value, json};

use super::*;
use crate::watch::pod::{Decoded, decode};

const STARTED: &str = "2026-11-25T10:00:00Z";
const ENDED: &str = "2026-11-25T10:01:00Z";

fn rules() -> Rules {
    let settle_grace = SignedDuration::from_secs(10);
    Rules { cluster_id: "c".into(), settle_grace, ..Rules::default() }
}

/// A pod of one container, `main`, that is never started again, with what differs merged in.
fn pod(differs: Value) -> Pod {
    let mut pod = json!({
        "metadata": { "name": "p", "namespace": "n", "uid": "u", "resourceVersion": "7", "creationTimestamp": STARTED },
        "spec": { "nodeName": "node-1", "restartPolicy": "Never", "containers": [{ "name": "main" }] },
        "status": { "phase": "Failed" },
    });
    merge(&mut pod, differs);
    match decode(&pod.to_string()) {
        Decoded::Whole(pod) => pod,
        other => panic!("{other:?}"),
    }
}

fn merge(into: &mut Value, from: Value) {
    match (into, from) {
        (Value::Object(into), Value::Object(from)) => {
            from.into_iter().for_each(|(key, value)| merge(into.entry(key).or_insert(Value::Null), value));
        }
        (into, from) => *into = from,
    }
}

fn ended(exit_code: i32, reason: &str) -> Value {
    json!({ "terminated": { "exitCode": exit_code, "reason": reason, "startedAt": STARTED, "finishedAt": ENDED } })
}

fn container(name: &str, state: Value) -> Value {
    json!({ "name": name, "ready": false, "restartCount": 0, "state": state })
}

/// A status of this phase whose container `main` is in this state.
fn of_main(phase: &str, state: Value) -> Value {
    json!({ "status": { "phase": phase, "containerStatuses": [container("main", state)] } })
}

fn with(mut what: Value, more: Value) -> Value {
    merge(&mut what, more);
    what
}

fn condition(kind: &str, reason: &str, message: &str) -> Value {
    let condition =
        json!({ "type": kind, "status": "True", "reason": reason, "message": message, "lastTransitionTime": ENDED });
    json!({ "status": { "conditions": [condition] } })
}

fn because(reason: &str, message: &str) -> Value {
    json!({ "status": { "phase": "Failed", "reason": reason, "message": message } })
}

/// The verdict in a line: outcome, cause and category, exit code, and what an executor does about it.
fn verdict(pod: &Pod) -> String {
    let late = "2026-11-25T12:00:00Z".parse().expect("a time");
    let verdict = match judge(pod, late, &rules()) {
        Judged::Ended(verdict) => verdict,
        other => return format!("{other:?}"),
    };
    let exit = verdict.exit_code.map_or("no exit code".to_owned(), |code| format!("exit {code}"));
    let Some(failure) = &verdict.failure else { return format!("{:?}, {exit}", verdict.outcome) };
    let retry = if failure.retryable { ", retry" } else { "" };
    let never = if failure.attempt_started { "" } else { ", never started" };
    format!("{:?}, {:?}, {:?}, {exit}{retry}{never}", verdict.outcome, failure.cause, failure.error_type)
}

fn check(cases: &[(&str, Value, &str)]) {
    for (name, differs, expected) in cases {
        assert_eq!(verdict(&pod(differs.clone())), *expected, "{name}");
    }
}
