//! What the API server's answers say: Kubernetes Events about a pod, and a Job. Pure and total: what cannot be read is
//! left out.

use jiff::Timestamp;
use serde::Deserialize;

use crate::lifecycle::{
    cause::{OwnerEnd, OwnerSays},
    event::{KUBERNETES_EVENT_MESSAGE_CHARS_MAX, KUBERNETES_EVENTS_MAX, KubernetesEvent},
};

/// Longest word that a component may use for what happened, in characters: the API server takes no longer ones.
const WORD_CHARS_MAX: usize = 128;

#[derive(Deserialize)]
struct List {
    #[serde(default)]
    items: Vec<serde_json::Value>,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Event {
    #[serde(rename = "type")]
    kind: Option<Box<str>>,
    reason: Option<Box<str>>,
    message: Option<Box<str>>,
    count: Option<u32>,
    first_timestamp: Option<Timestamp>,
    last_timestamp: Option<Timestamp>,
    event_time: Option<Timestamp>,
    series: Option<Series>,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Series {
    count: Option<u32>,
    last_observed_time: Option<Timestamp>,
}

/// The last of the events of an `EventList`, oldest first. `None`: it is no such list.
pub fn events(text: &str) -> Option<Vec<KubernetesEvent>> {
    let list: List = serde_json::from_str(text).ok()?;
    let mut events: Vec<KubernetesEvent> = list.items.into_iter().filter_map(event).collect();
    // A stable sort: what says no time stays in front, in the server's order.
    events.sort_by_key(|event| event.last_seen);
    events.drain(..events.len().saturating_sub(KUBERNETES_EVENTS_MAX));
    Some(events)
}

fn event(value: serde_json::Value) -> Option<KubernetesEvent> {
    let event: Event = serde_json::from_value(value).ok()?;
    let series = event.series.unwrap_or_default();
    let word = |text: Option<Box<str>>| cut(text, WORD_CHARS_MAX);
    Some(KubernetesEvent {
        kind: word(event.kind).unwrap_or_else(|| "Normal".into()),
        reason: word(event.reason)?,
        message: cut(event.message, KUBERNETES_EVENT_MESSAGE_CHARS_MAX),
        count: series.count.or(event.count).unwrap_or(1).max(1),
        last_seen: series.last_observed_time.or(event.last_timestamp).or(event.event_time).or(event.first_timestamp),
    })
}

/// At most this many characters; `None` for nothing.
fn cut(text: Option<Box<str>>, chars_max: usize) -> Option<Box<str>> {
    let text = text?;
    let text = text.trim();
    let end = text.char_indices().nth(chars_max).map_or(text.len(), |(at, _)| at);
    (!text.is_empty()).then(|| text[..end].into())
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Job {
    metadata: Metadata,
    spec: Spec,
    status: Status,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Metadata {
    uid: Box<str>,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Spec {
    active_deadline_seconds: Option<i64>,
    completions: Option<i64>,
    parallelism: Option<i64>,
    suspend: Option<bool>,
    pod_failure_policy: Option<serde_json::Value>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Status {
    conditions: Vec<Condition>,
    succeeded: i64,
    failed: i64,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Condition {
    #[serde(rename = "type")]
    kind: Box<str>,
    status: Box<str>,
    reason: Box<str>,
    last_transition_time: Option<Timestamp>,
}

impl Job {
    /// Whether it can have had one pod only. Pods that a failure policy ignores, or that a suspension took away, are not
    /// counted; one that was deleted is.
    fn had_one_pod(&self) -> bool {
        let Self { spec, status, .. } = self;
        let one = spec.completions == Some(1) && spec.parallelism.unwrap_or(1) == 1;
        let counted = (status.succeeded, status.failed) == (1, 0) && spec.pod_failure_policy.is_none();
        one && counted && spec.suspend != Some(true) && !status.conditions.iter().any(|c| &*c.kind == "Suspended")
    }
}

/// What a Job says of the end of its pods. `uid`: that of the owner; a Job of the same name says nothing.
pub fn owner_says(text: &str, uid: &str) -> Option<OwnerSays> {
    let job: Job = serde_json::from_str(text).ok()?;
    if *job.metadata.uid != *uid {
        return None;
    }
    let deadline = job.spec.active_deadline_seconds;
    let says = |c: &Condition| {
        let complete = (&*c.kind == "Complete" && job.had_one_pod()).then_some(OwnerEnd::Complete);
        let end = OwnerEnd::by_condition(&c.kind, &c.reason, deadline).or(complete)?;
        Some(OwnerSays { end, since: c.last_transition_time })
    };
    let holds = job.status.conditions.iter().filter(|c| &*c.status == "True");
    // An end for good says more than a pause; its first sign is the nearest to what it did.
    let rank = |says: &OwnerSays| (says.end == OwnerEnd::Suspended, says.since);
    let known = holds.filter_map(says).min_by_key(rank);
    // A condition is written only after the pods were deleted; the wish is there before.
    known.or_else(|| (job.spec.suspend == Some(true)).then_some(OwnerSays { end: OwnerEnd::Suspended, since: None }))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_last_events_are_kept_oldest_first() {
        let at = |second: usize| format!("2026-11-25T12:00:{second:02}Z");
        let mut items: Vec<_> = (0..15)
            .map(|n| json!({ "type": "Warning", "reason": format!("R{n}"), "message": "m", "count": n, "lastTimestamp": at(n) }))
            .collect();
        items.reverse();
        let read = events(&json!({ "kind": "EventList", "items": items }).to_string()).expect("a list");
        let reasons: Vec<&str> = read.iter().map(|event| &*event.reason).collect();
        assert_eq!(reasons, ["R5", "R6", "R7", "R8", "R9", "R10", "R11", "R12", "R13", "R14"]);
        assert_eq!((read[0].count, read[9].count), (5, 14));
    }

    #[test]
    fn both_kinds_of_series_are_read() {
        let items = json!([
            // events.k8s.io as the core API shows it.
            { "type": "Warning", "reason": "FailedScheduling", "eventTime": "2026-11-25T12:00:00.000001Z",
              "series": { "count": 7, "lastObservedTime": "2026-11-25T12:05:00.000002Z" }, "lastTimestamp": null, "count": null },
            { "type": "Normal", "reason": "Pulling", "firstTimestamp": "2026-11-25T12:00:01Z" },
        ]);
        let read = events(&json!({ "items": items }).to_string()).expect("a list");
        assert_eq!((&*read[0].reason, read[0].count), ("Pulling", 1));
        assert_eq!((&*read[1].reason, read[1].count), ("FailedScheduling", 7));
        assert_eq!(read[1].last_seen, "2026-11-25T12:05:00.000002Z".parse().ok());
    }

    #[test]
    fn messages_are_cut_between_characters_and_what_is_no_event_is_left_out() {
        let long = "é".repeat(KUBERNETES_EVENT_MESSAGE_CHARS_MAX + 1);
        let items = json!([
            { "reason": "Long", "message": long },
            { "reason": "", "message": "no word for it" },
            { "message": "none either" },
            { "reason": 7 },
            "nonsense",
            { "reason": "Bare", "message": "  " },
        ]);
        let read = events(&json!({ "items": items }).to_string()).expect("a list");
        assert_eq!(read.len(), 2);
        let message = read[0].message.as_deref().expect("a message");
        assert_eq!(message.chars().count(), KUBERNETES_EVENT_MESSAGE_CHARS_MAX);
        assert_eq!((read[1].message.as_deref(), &*read[1].kind), (None, "Normal"));
        assert!(events("<html>").is_none() && events(r#"{"items":7}"#).is_none());
    }

    fn job(conditions: serde_json::Value, status: (i64, i64), spec: &serde_json::Value) -> String {
        let status = json!({ "conditions": conditions, "succeeded": status.0, "failed": status.1 });
        let mut whole = json!({ "activeDeadlineSeconds": 5, "completions": 1, "parallelism": 1, "suspend": false });
        for (key, value) in spec.as_object().into_iter().flatten() {
            whole[key] = value.clone();
        }
        json!({ "metadata": { "uid": "u" }, "spec": whole, "status": status }).to_string()
    }

    #[test]
    fn a_job_says_how_it_ended() {
        let when = |kind: &str, reason: &str| json!([{ "type": kind, "status": "True", "reason": reason }]);
        let deadline = Some(OwnerEnd::DeadlineExceeded { seconds: Some(5) });
        let (complete, none) = (when("Complete", "CompletionsReached"), json!({}));
        let resumed = json!([{ "type": "Complete", "status": "True", "reason": "CompletionsReached" },
            { "type": "Suspended", "status": "False", "reason": "JobResumed" }]);
        let cases = [
            (when("Failed", "DeadlineExceeded"), (0, 1), none.clone(), deadline),
            (when("FailureTarget", "DeadlineExceeded"), (0, 0), none.clone(), deadline),
            (when("Failed", "BackoffLimitExceeded"), (0, 1), none.clone(), Some(OwnerEnd::Failed)),
            (when("Suspended", "JobSuspended"), (0, 0), none.clone(), Some(OwnerEnd::Suspended)),
            (json!([]), (0, 0), json!({ "suspend": true }), Some(OwnerEnd::Suspended)),
            (complete.clone(), (1, 0), none.clone(), Some(OwnerEnd::Complete)),
            // One of its pods succeeded: perhaps not this one.
            (complete.clone(), (1, 1), none.clone(), None),
            (complete.clone(), (1, 0), json!({ "podFailurePolicy": { "rules": [] } }), None),
            (complete.clone(), (1, 0), json!({ "parallelism": 2 }), None),
            (complete, (1, 0), json!({ "completions": 2 }), None),
            (resumed, (1, 0), none.clone(), None),
            (
                json!([{ "type": "Failed", "status": "False", "reason": "DeadlineExceeded" }]),
                (0, 0),
                none.clone(),
                None,
            ),
            (json!([]), (0, 0), none.clone(), None),
        ];
        for (conditions, counts, spec, expected) in cases {
            let said = owner_says(&job(conditions.clone(), counts, &spec), "u");
            assert_eq!(said.map(|says| says.end), expected, "{conditions} {spec}");
        }
        let failed = job(when("Failed", "DeadlineExceeded"), (0, 1), &none);
        assert_eq!(owner_says(&failed, "another"), None, "another Job of that name");
        assert_eq!(owner_says("[]", "u"), None);
    }

    #[test]
    fn the_first_sign_of_an_end_is_when_it_came() {
        let at = |second: &str| format!("2026-11-25T12:00:{second}Z");
        let failed = |kind: &str, second: &str| json!({ "type": kind, "status": "True", "reason": "DeadlineExceeded", "lastTransitionTime": at(second) });
        let both = json!([failed("Failed", "09"), failed("FailureTarget", "03")]);
        let said = owner_says(&job(both, (0, 1), &json!({})), "u").expect("it says something");
        assert_eq!(said.since, at("03").parse().ok());
    }
}
