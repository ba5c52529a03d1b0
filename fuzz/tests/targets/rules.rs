//! Files of `--rules`, and the pods that they are asked about.
//!
//! A file up to a line `===`, then lines of a watch: the pods. Each pod's story is told twice, with the rules and without.

use std::{path::Path, sync::Arc};

use pod_monitor::{
    config::rules_file,
    lifecycle::{
        event::{Body, Captured, Event, KubernetesEvent, Logs, LogsStatus},
        user_rules::{EVENT_RULES_MAX, RULES_MAX, UserRules},
    },
    logs::reason,
    publish::settings::RECORD_BYTES_MAX,
    watch::{
        frame::{Frame, read_frame},
        pod::Pod,
    },
};

use super::{
    life::{self, Life, late},
    recordings,
};

const BORDER: &str = "\n===\n";
/// Most pods that are asked about.
const PODS_MAX: usize = 3;

pub(super) fn run(data: &[u8]) {
    // A file that is no text is refused by whoever opens it.
    let Ok(text) = std::str::from_utf8(data) else { return };
    let (file, pods) = text.split_once(BORDER).unwrap_or((text, ""));
    let path = Path::new("rules.yaml");
    let read = rules_file::parse(path, file);
    let again = rules_file::parse(path, file);
    let rules = match (read, again) {
        (Ok(rules), Ok(again)) => {
            assert_eq!((&rules, rules.hash()), (&again, again.hash()), "the same file makes the same rules");
            rules
        }
        (Err(error), Err(again)) => {
            let said = error.to_string();
            assert_eq!(said, again.to_string());
            let steers = said.chars().find(|c| c.is_control() && *c != '\n');
            assert_eq!(steers, None, "a refusal may not steer the terminal: {said:?}");
            return;
        }
        (read, again) => panic!("once {read:?}, then {again:?}"),
    };
    assert!(!rules.is_empty() && rules.len() <= RULES_MAX && rules.hash().is_some_and(|hash| hash.len() == 16));
    let rules = Arc::new(rules);
    for pod in pods.lines().filter_map(pod).take(PODS_MAX) {
        ask(&rules, &pod);
    }
}

fn pod(line: &str) -> Option<Pod> {
    match read_frame(line) {
        Frame::Applied(decoded) | Frame::Deleted(decoded) => decoded.split().0.map(|pod| *pod),
        _ => None,
    }
}

fn ask(rules: &Arc<UserRules>, pod: &Pod) {
    let ruled = story(Arc::clone(rules), pod);
    let plain = story(Arc::default(), pod);
    assert_eq!(ruled.len(), plain.len(), "rules tell no more and no less");
    for (ruled, plain) in ruled.iter().zip(&plain) {
        let same = |event: &Event| (event.event_id, event.body.event_type(), event.timestamp, event.sequence);
        assert_eq!(same(ruled), same(plain), "rules never choose what happened");
        let (Body::Ended(ruled), Body::Ended(plain)) = (&ruled.body, &plain.body) else { continue };
        let (ruled, plain) = (&ruled.verdict, &plain.verdict);
        assert_eq!((ruled.exit_code, ruled.outcome, ruled.at), (plain.exit_code, plain.outcome, plain.at));
        let known = |v: &pod_monitor::lifecycle::event::Verdict| v.failure.as_ref().map(|f| (f.cause, f.error_type));
        assert_eq!(known(ruled), known(plain), "the built-in cause stays known");
    }
}

/// All that is told of a pod that is seen once and then gone.
fn story(rules: Arc<UserRules>, pod: &Pod) -> Vec<Event> {
    let rules = life::rules(rules);
    // The file of rules is as large as a record may be; what of it stands in one is less.
    let mut life = Life::with_record_of(pod.metadata.uid.clone(), RECORD_BYTES_MAX);
    life.see(pod, None, late(), &rules);
    if let Some(ruling) = life.told.as_ref().and_then(|told| told.ruling.as_ref()) {
        let waiting = ruling.candidates.iter().filter(|candidate| candidate.event.is_some()).count();
        assert!(waiting <= EVENT_RULES_MAX && ruling.candidates.len() <= waiting + 1, "{ruling:?}");
    }
    if life.is_capturing() {
        life.captured(captured(pod), late(), &rules);
    }
    life.lose(Some(pod), late(), &rules);
    life.events
}

/// Kubernetes Events such as a capture brings, from the pod's own words.
fn captured(pod: &Pod) -> Captured {
    let logs = Logs { status: LogsStatus::Unavailable, reason: Some(reason::POD_GONE.into()), ..Logs::default() };
    let said = pod.status.conditions.iter().take(4).map(|condition| KubernetesEvent {
        kind: "Warning".into(),
        reason: condition.reason.clone().unwrap_or_else(|| condition.kind.clone()).into_string().into(),
        message: condition.message.as_deref().map(|said| said.chars().take(200).collect::<String>().into()),
        count: 1,
        last_seen: condition.last_transition_time,
    });
    let events = said.filter(|event| event.message.as_deref() != Some("")).collect();
    Captured { logs, kubernetes_events: events, ..Captured::default() }
}

pub(super) fn seeds() -> Vec<Vec<u8>> {
    let page = std::fs::read_to_string(recordings::root().join("docs/rules.md")).unwrap();
    let mut files: Vec<&str> = page.split("```yaml\n").skip(1).filter_map(|rest| rest.split("```").next()).collect();
    files.retain(|file| file.contains("rules:"));
    assert!(files.len() > 3, "docs/rules.md has {} files of rules", files.len());
    let all = r#"{"rules":[{"name":"a","match":{"cause":["exit_code","oom_killed"],"reason":"Error","exit-codes":[1,"-5--2","100-110"],"container":"main","termination-message":"x+","message":"(?i)evict","condition":{"type":"Ready","status":"False","reason":["A","B"]},"event":{"reason":"FailedMount","message":"x"}},"cause":"mine","category":"infra/disk","hint":"look","retryable":true},{"name":"b","match":"any","retryable":false}]}"#;
    let anchors = "rules:\n- &one {name: one, match: &m {reason: &r [Error, Evicted]}, retryable: true}\n- {name: two, match: {reason: *r, cause: unknown}, hint: x}\n";
    files.extend([all, anchors]);
    let recordings = recordings::all();
    let ends: Vec<&str> = recordings.iter().filter_map(|lines| lines.lines().next_back()).collect();
    let seed = |(n, file): (usize, &&str)| {
        let pods = [ends[n * 7 % ends.len()], ends[(n * 7 + 3) % ends.len()]].join("\n");
        [*file, BORDER, &pods].concat().into_bytes()
    };
    files.iter().enumerate().map(seed).collect()
}
