//! What holds for every changelog record of a pod, before it is written and after it is read: of what it holds, events are
//! made, and those must be as the schema says and fit their record. Pure.

use crate::{
    lifecycle::{
        container::CONTAINERS_BYTES_MAX,
        event::{EarlierEnd, EventType, Failure, MESSAGE_CHARS_MAX, Owner, Verdict},
        tracked::{STALLS_MAX, Tracked},
        user_rules::{EVENT_RULES_MAX, Ruling, Says},
    },
    logs::limits::encoded_len,
    watch::pod::{MESSAGE_BYTES_MAX, NAME_BYTES_MAX, PodUid},
};

/// Longest termination message as JSON, in bytes: each byte may take six.
const TERMINATION_MESSAGE_BYTES_MAX: usize = 6 * MESSAGE_BYTES_MAX + 2;
/// More events than any pod has: one that stalls as often as is told has 68.
const SEQUENCE_MAX: u32 = 1 << 20;

/// An owner can say three things that rules are asked about.
const OWNER_RULINGS_MAX: usize = 3;

type Rule = Result<(), &'static str>;

fn all<const N: usize>(rules: [(bool, &'static str); N]) -> Rule {
    rules.into_iter().find(|(holds, _)| !holds).map_or(Ok(()), |(_, broken)| Err(broken))
}

fn is_name(text: &str) -> bool {
    !text.is_empty() && text.len() <= NAME_BYTES_MAX && !text.chars().any(char::is_control)
}

pub(super) fn check_uid(uid: &PodUid) -> Rule {
    all([(!uid.0.is_empty(), "uid is empty"), (is_name(&uid.0), "uid is no name")])
}

pub(super) fn check(tracked: &Tracked) -> Rule {
    let t = tracked;
    all([
        (t.format > 0, "format is 0"),
        (t.oldest_reader <= t.format, "oldest_reader is later than format"),
        (!t.execution_id.is_empty(), "execution_id is empty"),
        (!t.pod_name.is_empty() && !t.namespace.is_empty(), "the pod has no name or namespace"),
        (is_name(&t.execution_id), "execution_id is no id"),
        (is_name(&t.pod_name) && is_name(&t.namespace), "the pod's name or namespace is none"),
        (t.user_id.as_deref().is_none_or(is_name), "user_id is no id"),
        (t.node_name.as_deref().is_none_or(is_name), "node_name is no name"),
        (t.owner.as_deref().is_none_or(is_owner), "owner is none"),
        (t.earlier_end.as_deref().is_none_or(is_earlier_end), "earlier_end is none"),
        (t.sequence <= SEQUENCE_MAX, "sequence is larger than any pod's"),
        (t.owner_rulings.len() <= OWNER_RULINGS_MAX, "more rulings than an owner's ends"),
        (t.stalls.len() <= STALLS_MAX, "more stalls than are told"),
        (t.end.is_none() || t.verdict.is_none(), "a verdict beside an end"),
    ])?;
    for verdict in [&t.verdict, &t.seen_end] {
        verdict.as_deref().map_or(Ok(()), check_verdict)?;
    }
    for (_, ruling) in &t.owner_rulings {
        check_ruling(ruling)?;
    }
    t.ruling.as_deref().map_or(Ok(()), check_ruling)
}

fn is_owner(owner: &Owner) -> bool {
    [&owner.kind, &owner.name, &owner.uid].into_iter().all(|text| is_name(text))
}

fn is_earlier_end(end: &EarlierEnd) -> bool {
    let ends = [EventType::ExecutionCompleted, EventType::ExecutionFailed, EventType::ExecutionTimeout];
    is_name(&end.pod_uid.0) && ends.contains(&end.event_type)
}

fn check_verdict(verdict: &Verdict) -> Rule {
    let bytes = |name: &str, reason: Option<&str>| encoded_len(name) + reason.map_or(0, encoded_len);
    let containers: usize = verdict.containers.iter().map(|end| bytes(&end.name, end.reason.as_deref())).sum();
    let said = verdict.termination_message.as_deref().map_or(0, encoded_len);
    all([
        (verdict.container.is_empty() || is_name(&verdict.container), "container is no name"),
        (verdict.failed_init.as_ref().is_none_or(|(name, _)| is_name(name)), "failed_init is no name"),
        (verdict.containers.iter().all(|end| is_name(&end.name)), "a container has no name"),
        (containers <= CONTAINERS_BYTES_MAX, "more containers than one event has room for"),
        (said <= TERMINATION_MESSAGE_BYTES_MAX, "termination_message is longer than any"),
        (verdict.failure.as_ref().is_none_or(is_failure), "failure says what no event may say"),
    ])
}

fn is_failure(failure: &Failure) -> bool {
    let ruled = failure.ruled.as_deref().is_none_or(|ruled| {
        let texts = [Some(&ruled.rule), ruled.category.as_ref()];
        texts.into_iter().flatten().all(|text| is_name(text)) && ruled.cause.as_deref().is_none_or(is_cause)
    });
    failure.hint.as_deref().is_none_or(is_hint) && ruled
}

fn check_ruling(ruling: &Ruling) -> Rule {
    let says = |says: &Says| {
        says.cause.as_deref().is_none_or(is_cause)
            && says.category.as_deref().is_none_or(is_name)
            && says.hint.as_deref().is_none_or(is_hint)
    };
    all([
        (ruling.candidates.len() <= EVENT_RULES_MAX + 1, "more rules wait than may"),
        (ruling.candidates.iter().all(|c| is_name(&c.rule) && says(&c.says)), "a rule says what no event may say"),
    ])
}

fn is_hint(hint: &str) -> bool {
    !hint.is_empty() && hint.chars().count() <= MESSAGE_CHARS_MAX
}

/// As the schema has it: `^[a-z][a-z0-9_]{0,62}$`.
fn is_cause(cause: &str) -> bool {
    let legal = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
    cause.starts_with(|c: char| c.is_ascii_lowercase()) && cause.len() <= 63 && cause.chars().all(legal)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn broken(field: &str, value: Value) -> Rule {
        let mut record = json!({ "format": 1, "oldest_reader": 1, "resource_version": 7, "namespace": "ns",
            "pod_name": "p", "execution_id": "1" });
        record[field] = value;
        check(&serde_json::from_value(record).unwrap())
    }

    #[test]
    fn what_no_event_may_hold_is_in_no_record() {
        let verdict = |more: Value| {
            let mut verdict = json!({ "outcome": "failed", "at": "2026-01-02T03:04:05Z", "container": "main" });
            verdict.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            verdict
        };
        let failure = |more: Value| {
            let mut failure = json!({ "error_type": "script_error", "cause": "exit_code", "retryable": false,
                "attempt_started": true });
            failure.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            verdict(json!({ "failure": failure }))
        };
        let many: Vec<Value> =
            (0..2000).map(|n| json!({ "name": format!("container-{n}"), "restart_count": 0 })).collect();
        let candidate = json!({ "rule": "r", "says": { "cause": "No Cause" } });
        for (field, value) in [
            ("execution_id", json!("i".repeat(254))),
            ("pod_name", json!("a\u{0}")),
            ("node_name", json!("")),
            ("user_id", json!("")),
            ("owner", json!({ "kind": "Job", "name": "", "uid": "j" })),
            (
                "earlier_end",
                json!({ "pod_uid": "p", "event_type": "pod_scheduled", "timestamp": "2026-01-02T03:04:05Z" }),
            ),
            ("sequence", json!(u32::MAX)),
            ("verdict", verdict(json!({ "containers": [{ "name": "", "restart_count": 0 }] }))),
            ("verdict", verdict(json!({ "containers": many }))),
            ("verdict", verdict(json!({ "termination_message": "m".repeat(100_000) }))),
            ("verdict", failure(json!({ "hint": "" }))),
            ("verdict", failure(json!({ "ruled": { "rule": "" } }))),
            ("seen_end", failure(json!({ "hint": "" }))),
            ("ruling", json!({ "rules_hash": "h", "candidates": [candidate] })),
        ] {
            assert!(broken(field, value.clone()).is_err(), "{field}: {value}");
        }
        for (field, value) in [
            ("sequence", json!(68)),
            // Earlier releases wrote it; it is read as none.
            ("verdict", failure(json!({ "message": "", "hint": "look" }))),
            ("verdict", failure(json!({ "ruled": { "rule": "r", "cause": "mine" } }))),
        ] {
            assert_eq!(broken(field, value.clone()), Ok(()), "{field}: {value}");
        }
    }
}
