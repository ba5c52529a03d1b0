//! The pure core over lives of pods that a real cluster wrote: tests/fixtures/recorded, made by `cargo xtask record`.
//!
//! Each recording is replayed whole, up to each of its lines, from each of its lines on, with a restore between any two
//! lines, and by its last line alone. What each case must tell stands beside what is done in it (testkit's `recorded`).

#![allow(clippy::unwrap_used, reason = "a test may stop at the first surprise")]

#[path = "support/shape.rs"]
mod shape;

use std::{collections::BTreeSet, fs, path::Path};

use jiff::{SignedDuration, Timestamp};
use pod_monitor::{
    lifecycle::{
        decide::{Decision, Input, step},
        event::{Body, Captured, Ended, Event},
        rules::Rules,
        tracked::Tracked,
    },
    watch::pod::{Decoded, Pod, PodUid, decode},
};
use testkit::recorded::{self, Case, FOLDER, Line, Recording, Story};

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn rules() -> Rules {
    let settle_grace = SignedDuration::from_secs(10);
    Rules { cluster_id: "cluster-1".into(), settle_grace, ..Rules::default() }
}

/// One event of the watch, as the core takes it.
struct Seen {
    at: Timestamp,
    gone: bool,
    pod: Pod,
}

fn seen(line: &Line) -> Seen {
    let pod = match decode(&line.object.to_string()) {
        Decoded::Whole(pod) => pod,
        other => panic!("not read whole: {other:?}"),
    };
    Seen { at: line.at.parse().unwrap(), gone: line.kind == "DELETED", pod }
}

/// A monitor without I/O: captures succeed at once.
#[derive(Default)]
struct Monitor {
    told: Option<Tracked>,
    events: Vec<Event>,
    settle_until: Option<Timestamp>,
    reread: bool,
}

impl Monitor {
    fn replay<'a>(lines: impl IntoIterator<Item = &'a Seen>, reread: bool) -> Self {
        let mut monitor = Self { reread, ..Self::default() };
        let mut last: Option<&Seen> = None;
        for line in lines {
            if let (Some(last), Some(until)) = (last, monitor.settle_until.filter(|until| *until <= line.at)) {
                monitor.step(&last.pod, Input::Observed { pod: &last.pod, earlier: None, now: until });
            }
            let version = line.pod.metadata.resource_version;
            let input = match line.gone {
                false => Input::Observed { pod: &line.pod, earlier: None, now: line.at },
                true => Input::Gone { last: Some(&line.pod), observed: true, followed: None, version, now: line.at },
            };
            monitor.step(&line.pod, input);
            last = Some(line);
        }
        monitor
    }

    fn step(&mut self, pod: &Pod, input: Input<'_>) {
        let uid = PodUid(pod.metadata.uid.0.clone());
        let now = match &input {
            Input::Observed { now, .. }
            | Input::Tick { now }
            | Input::Captured { now, .. }
            | Input::Gone { now, .. } => *now,
            Input::Left { .. } => unreachable!("no recording leaves the selection"),
        };
        let decision = step(&uid, self.told.as_ref(), input, &rules());
        let Decision { events, tracked, capture, settle_until, .. } = decision;
        events.iter().for_each(shape::assert_fits);
        self.events.extend(events);
        self.told = tracked.or(self.told.take());
        if self.reread {
            let text = self.told.as_ref().map(|t| serde_json::to_string(t).unwrap());
            self.told = text.map(|t| serde_json::from_str(&t).unwrap());
        }
        self.settle_until = settle_until;
        if capture.is_some() {
            self.step(pod, Input::Captured { captured: Captured::default(), now });
        }
    }

    fn ended(&self) -> Option<(&Event, &Ended)> {
        let mut ends = self.events.iter().filter_map(|event| match &event.body {
            Body::Ended(ended) => Some((event, &**ended)),
            _ => None,
        });
        let end = ends.next();
        assert!(ends.next().is_none(), "a second end: {:#?}", self.events);
        end
    }

    fn types(&self) -> Vec<&'static str> {
        self.events.iter().map(|event| event.body.event_type().as_str()).collect()
    }
}

/// What of an end must be as its case has it.
fn told(ended: &Ended) -> String {
    let verdict = &ended.verdict;
    let mut told = format!("exit_code {:?}", verdict.exit_code);
    if let Some(failure) = &verdict.failure {
        let error_type = serde_json::to_value(failure.error_type).unwrap();
        let (cause, error_type) = (failure.cause.as_str(), error_type.as_str().unwrap());
        let (retryable, started) = (failure.retryable, failure.attempt_started);
        told += &format!(", {cause}, {error_type}, retryable {retryable}, attempt_started {started}");
    }
    told
}

fn expected(story: &Story) -> String {
    let mut told = format!("exit_code {:?}", story.exit_code);
    if let Some(failed) = &story.failed {
        let recorded::Failed { cause, error_type, retryable, attempt_started } = failed;
        told += &format!(", {cause}, {error_type}, retryable {retryable}, attempt_started {attempt_started}");
    }
    told
}

fn check(case: &Case, story: &Story, lines: &[Seen], faults: &mut Vec<String>) {
    let name = case.name;
    let whole = Monitor::replay(lines, false);
    let mut fault = |what: &str, told: String, expected: String| {
        if told != expected {
            faults.push(format!("{name}, {what}:\n  told     {told}\n  expected {expected}"));
        }
    };
    fault("events", whole.types().join(" "), story.events().join(" "));
    let (_, end) = whole.ended().unwrap();
    fault("end", told(end), expected(story));
    let failure = end.verdict.failure.as_ref();
    if let Some(part) = story.says {
        let message = failure.and_then(|f| f.message.as_deref()).unwrap_or_default();
        let found = if message.contains(part) { part } else { message };
        fault("message", found.to_owned(), part.to_owned());
    }
    if let Some(begin) = story.termination_message {
        let message = end.verdict.termination_message.as_deref().unwrap_or_default();
        fault("termination message", message.chars().take(begin.chars().count()).collect(), begin.to_owned());
    }
    let restored = Monitor::replay(lines, true);
    fault("restored after each line", format!("{:?}", restored.events), format!("{:?}", whole.events));
    for until in 1..lines.len() {
        let part = Monitor::replay(&lines[..until], false);
        part.ended();
        let same = whole.events.starts_with(&part.events);
        fault(&format!("first {until} lines"), same.to_string(), "true".to_owned());
    }
    for from in 1..lines.len() {
        late(story, &lines[from..], &whole, &mut fault);
    }
}

/// Who comes late tells the same events with the same ids, and the same end as far as the last state knows it.
fn late(story: &Story, lines: &[Seen], whole: &Monitor, fault: &mut impl FnMut(&str, String, String)) {
    let late = Monitor::replay(lines, false);
    let what = format!("last {} lines", lines.len());
    let ids = |m: &Monitor| m.events.iter().map(|e| (e.event_id, e.sequence)).collect::<Vec<_>>();
    let (_, end) = late.ended().unwrap();
    match story.last_alone {
        Some((cause, exit_code)) if lines.len() == 1 => {
            let failure = end.verdict.failure.as_ref();
            let told = (failure.map(|f| f.cause.as_str()), end.verdict.exit_code);
            // By whole seconds it may be right all the same.
            let right = failure.map(|f| f.cause.as_str()) == story.failed.as_ref().map(|f| f.cause);
            let alone = if right { told.0 } else { Some(cause) };
            fault(&what, format!("{told:?}"), format!("{:?}", (alone, exit_code)));
        }
        Some(_) => {}
        None => {
            fault(&what, late.types().join(" "), story.events().join(" "));
            fault(&what, format!("{:?}", ids(&late)), format!("{:?}", ids(whole)));
            fault(&what, told(end), expected(story));
        }
    }
}

#[test]
fn every_recorded_life_tells_its_story() {
    let mut faults = Vec::new();
    for case in recorded::all() {
        let recording = match Recording::read(root(), case.name) {
            Ok(recording) => recording,
            Err(error) => {
                faults.push(format!("{}: {error:#}", case.name));
                continue;
            }
        };
        let pods = recording.pods();
        if (pods.len(), &*recording.header.case) != (case.stories.len(), case.name) {
            faults.push(format!("{}: {} pods in the recording of {}", case.name, pods.len(), recording.header.case));
            continue;
        }
        for (uid, story) in pods.into_iter().zip(&case.stories) {
            let lines: Vec<Seen> = recording.of(uid).map(seen).collect();
            assert!(lines.last().unwrap().gone, "{}: the recording stops before the pod is gone", case.name);
            check(&case, story, &lines, &mut faults);
        }
    }
    assert!(faults.is_empty(), "{} faults:\n{}", faults.len(), faults.join("\n"));
}

#[test]
fn every_recording_has_its_case() {
    let known: BTreeSet<String> = recorded::all().iter().map(|case| format!("{}.jsonl", case.name)).collect();
    let found = fs::read_dir(root().join(FOLDER)).unwrap();
    let found: BTreeSet<String> = found.map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    assert_eq!(found, known);
}
