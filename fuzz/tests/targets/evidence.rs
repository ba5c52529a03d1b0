//! What others say of an end, as the API server could answer: an `EventList` and a Job. Part of the target `statuses`:
//! what is read of them stands in the ends of its pods.

use pod_monitor::{
    evidence::read,
    lifecycle::{
        cause::OwnerSays,
        event::{Captured, KUBERNETES_EVENT_MESSAGE_CHARS_MAX, KUBERNETES_EVENTS_MAX, KubernetesEvent},
    },
};
use serde_json::{Value, json};

/// As much as is read of a line `{"do":"asked","events":...,"job":...}`.
#[derive(Default)]
pub(super) struct Answers {
    events: Vec<KubernetesEvent>,
    owner_says: Option<OwnerSays>,
}

impl Answers {
    /// Reads both, and holds what it read to its bounds.
    pub(super) fn read(line: &Value) -> Self {
        let text = line["events"].to_string();
        let events = read::events(&text);
        assert_eq!(events, read::events(&text), "the same answer reads the same");
        assert!(events.is_some() || !is_list(&line["events"]), "a list is one whatever stands in it: {text}");
        let events = events.unwrap_or_default();
        assert!(events.len() <= KUBERNETES_EVENTS_MAX, "{} events", events.len());
        assert!(events.is_sorted_by_key(|event| event.last_seen), "oldest first: {events:?}");
        for event in &events {
            assert!(!event.reason.trim().is_empty() && !event.kind.trim().is_empty() && event.count > 0, "{event:?}");
            let said = event.message.as_deref().unwrap_or("something");
            let chars = said.chars().count();
            assert!((1..=KUBERNETES_EVENT_MESSAGE_CHARS_MAX).contains(&chars), "a message of {chars} characters");
        }
        let job = line["job"].to_string();
        let uid = line["job"]["metadata"]["uid"].as_str().unwrap_or_default();
        let owner_says = read::owner_says(&job, uid);
        assert_eq!(owner_says, read::owner_says(&job, uid), "the same answer reads the same");
        assert_eq!(read::owner_says(&job, &format!("{uid}?")), None, "another Job of that name says nothing");
        Self { events, owner_says }
    }

    /// A capture that brings them.
    pub(super) fn with(&self, captured: Captured) -> Captured {
        Captured { kubernetes_events: self.events.clone(), owner_says: self.owner_says, ..captured }
    }
}

/// Whether it is one that has to be read: with items, or with nothing in their place.
fn is_list(value: &Value) -> bool {
    value.as_object().is_some_and(|fields| fields.get("items").is_none_or(Value::is_array))
}

/// A line, different with the number: what Kubernetes says of a pod, and one way in which a Job ends.
pub(super) fn seed(n: usize) -> String {
    let at = |minute: usize| format!("2026-11-25T10:{minute:02}:00Z");
    let mut items: Vec<Value> = (0..KUBERNETES_EVENTS_MAX + n % 3)
        .map(|n| json!({ "type": "Normal", "reason": format!("Pulled{n}"), "message": "m", "count": n, "lastTimestamp": at(n) }))
        .collect();
    items.push(json!({ "type": "Warning", "reason": "FailedMount", "eventTime": at(30),
        "message": "é".repeat(KUBERNETES_EVENT_MESSAGE_CHARS_MAX + n % 2),
        "series": { "count": 7, "lastObservedTime": at(40) } }));
    let endings = [
        ("FailureTarget", "DeadlineExceeded"),
        ("Failed", "BackoffLimitExceeded"),
        ("Suspended", "JobSuspended"),
        ("Complete", "CompletionsReached"),
    ];
    let (kind, reason) = endings[n % endings.len()];
    let mut condition = json!({ "type": kind, "status": "True", "reason": reason });
    if !n.is_multiple_of(3) {
        condition["lastTransitionTime"] = at(n % 60).into();
    }
    let job = json!({ "metadata": { "uid": "job-1" },
        "spec": { "activeDeadlineSeconds": 5, "completions": 1, "suspend": kind == "Suspended" },
        "status": { "conditions": [condition], "succeeded": 1, "failed": 0 } });
    json!({ "do": "asked", "events": { "kind": "EventList", "items": items }, "job": job }).to_string()
}
