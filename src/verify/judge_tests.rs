use serde_json::json;

use super::*;

const TYPES: [EventType; 4] =
    [EventType::PodScheduled, EventType::ExecutionRunning, EventType::ExecutionFailed, EventType::PodTerminated];

fn told(pod: &str, sequence: u32, event_type: EventType) -> Told {
    let event_id = Uuid::new_v5(&Uuid::NAMESPACE_OID, format!("{pod}/{event_type}").as_bytes());
    Told { pod: pod.into(), execution: "7".into(), event_id, event_type, sequence }
}

fn good() -> Vec<Told> {
    TYPES.iter().zip(1..).map(|(event_type, sequence)| told("u", sequence, *event_type)).collect()
}

fn topic(cut: bool) -> Topic {
    Topic { name: "events".into(), partitions: 1, cut: cut.then_some(0).into_iter().collect(), records: 0 }
}

fn judge_with(cut: bool, events: Vec<Told>, changelog: Option<&ByUid<Tracked>>) -> Report {
    let mut judge = Judge::default();
    judge.begin(topic(cut));
    for (offset, told) in (10..).zip(events) {
        judge.take(Place { topic: 0, partition: 0, offset }, Some(told), Vec::new());
    }
    judge.finish(changelog)
}

fn tracked(sequence: u32) -> ByUid<Tracked> {
    let tracked = json!({ "format": 1, "oldest_reader": 1, "resource_version": 7, "namespace": "ns", "pod_name": "p",
        "execution_id": "7", "sequence": sequence });
    ByUid::from_iter([(PodUid("u".into()), serde_json::from_value(tracked).unwrap())])
}

/// The faults with what is said of them.
fn said(report: &Report) -> Vec<String> {
    report.findings.iter().map(|finding| format!("{}: {}", finding.fault, finding.what)).collect()
}

#[test]
fn a_whole_story_is_clean() {
    let report = judge_with(false, good(), Some(&tracked(4)));
    assert!(report.is_clean(), "{:?}", report.findings);
    assert_eq!((report.events, report.pods, report.executions, report.open, report.unjudged), (4, 1, 1, 0, 0));
    let begun = judge_with(false, good()[..2].to_vec(), Some(&tracked(2)));
    assert!(begun.is_clean() && begun.open == 1, "a story that goes on is no fault: {:?}", begun.findings);
}

#[test]
fn each_planted_fault_is_found_by_its_name() {
    type Plant = fn(&mut Vec<Told>);
    let cases: [(&str, Plant); 9] = [
        ("lost: sequence 2 of 4", |h| drop(h.remove(1))),
        ("lost: sequence 1 of 4", |h| drop(h.remove(0))),
        ("lost: sequence 4 of 4, which the changelog says were told", |h| drop(h.pop())),
        ("lost: its end: pod_terminated at events[0]@12 comes without one", |h| {
            h.remove(2);
            h[2].sequence = 3;
        }),
        ("doubled: event ", |h| h.push(h[1].clone())),
        ("doubled: sequence 2 names two events: at events[0]@11 and events[0]@14", |h| {
            h.push(Told { event_id: Uuid::nil(), ..h[1].clone() });
        }),
        ("doubled: execution_failed (sequence 3)", |h| {
            h[3].event_type = EventType::ExecutionTimeout;
        }),
        ("out of order: pod_scheduled (sequence 1) at events[0]@11 and then execution_running", |h| h.swap(0, 1)),
        ("out of order: execution_failed (sequence 2) at events[0]@11 and then execution_running", |h| {
            (h[1].event_type, h[2].event_type) = (h[2].event_type, h[1].event_type);
        }),
    ];
    for (expected, plant) in cases {
        let mut history = good();
        plant(&mut history);
        let report = judge_with(false, history, Some(&tracked(4)));
        let said = said(&report);
        assert!(said.iter().any(|said| said.starts_with(expected)), "{expected}: {said:?}");
        assert!(!report.is_clean());
    }
}

/// A life with two stalls; the second is never resolved, and the pod is deleted.
fn stalling() -> Vec<Told> {
    let types = [
        EventType::ExecutionStalled,
        EventType::ExecutionResumed,
        EventType::PodScheduled,
        EventType::ExecutionRunning,
        EventType::ExecutionFailed,
        EventType::ExecutionStalled,
        EventType::PodTerminated,
    ];
    let told = |(event_type, sequence): (&EventType, u32)| Told {
        event_id: Uuid::from_u128(u128::from(sequence)),
        ..told("u", sequence, *event_type)
    };
    types.iter().zip(1..).map(told).collect()
}

#[test]
fn stalls_come_at_any_time_before_the_going_and_hide_no_fault() {
    let report = judge_with(false, stalling(), Some(&tracked(7)));
    assert!(report.is_clean(), "{:?}", report.findings);
    let mut cases = [
        ("doubled: execution_failed (sequence 5) at events[0]@14 and execution_completed", stalling()),
        ("out of order: pod_terminated (sequence 6) at events[0]@15 and then execution_stalled", stalling()),
        ("out of order: execution_failed (sequence 5) at events[0]@15 and then execution_stalled", stalling()),
    ];
    cases[0].1[6].event_type = EventType::ExecutionCompleted;
    (cases[1].1[5].event_type, cases[1].1[6].event_type) = (EventType::PodTerminated, EventType::ExecutionStalled);
    cases[2].1.swap(4, 5);
    for (expected, history) in cases {
        let said = said(&judge_with(false, history, None));
        assert!(said.iter().any(|said| said.starts_with(expected)), "{expected}: {said:?}");
    }
}

#[test]
fn a_pod_that_only_the_changelog_knows_is_lost() {
    let report = judge_with(false, Vec::new(), Some(&tracked(2)));
    assert_eq!(said(&report), ["lost: all of its 2 events, which the changelog says were told"]);
    assert!(judge_with(false, Vec::new(), Some(&tracked(0))).is_clean(), "seen, and nothing told yet");
}

#[test]
fn what_retention_took_is_counted_and_no_loss() {
    let report = judge_with(true, good()[2..].to_vec(), Some(&tracked(4)));
    assert!(report.is_clean() && report.unjudged == 1, "{:?}", report.findings);
    let vanished = judge_with(true, Vec::new(), Some(&tracked(2)));
    assert!(vanished.is_clean() && vanished.unjudged == 1, "said, since nobody can tell");
    let mut elsewhere = Judge::default();
    elsewhere.begin(Topic { cut: vec![1], ..topic(false) });
    for (offset, told) in (0..).zip(good().split_off(2)) {
        elsewhere.take(Place { topic: 0, partition: 0, offset }, Some(told), Vec::new());
    }
    assert!(!elsewhere.finish(None).is_clean(), "another partition was cut, not its own");
    let mut holed = good();
    holed.remove(1);
    assert!(!judge_with(true, holed, None).is_clean(), "retention takes no middle");
    assert!(!judge_with(false, good()[2..].to_vec(), None).is_clean(), "nothing was cut here");
}

#[test]
fn partitions_have_no_order_between_them() {
    let mut judge = Judge::default();
    judge.begin(topic(false));
    for (n, told) in (0..).zip(good()) {
        judge.take(Place { topic: 0, partition: n, offset: 10 - i64::from(n) }, Some(told), Vec::new());
    }
    assert!(judge.finish(None).is_clean());
}

#[test]
fn misshapen_records_are_told_with_their_place() {
    let mut judge = Judge::default();
    judge.begin(topic(false));
    judge.take(Place { topic: 0, partition: 2, offset: 5 }, None, vec!["is not JSON".into(), "more".into()]);
    let mut strange = good();
    strange[1].execution = "8".into();
    for (offset, told) in (0..).zip(strange) {
        judge.take(Place { topic: 0, partition: 0, offset }, Some(told), Vec::new());
    }
    let report = judge.finish(None);
    let expected =
        ["schema: events[2]@5: is not JSON; more", "schema: events[0]@1: belongs to 7 in the pod's earlier events"];
    assert_eq!(said(&report), expected);
    assert_eq!((report.faults[&Fault::Schema], report.topics[0].records), (2, 5));
}

proptest::proptest! {
    /// The law: a whole story told once in order is clean; drop, repeat or swap anything, and it is not.
    #[test]
    fn any_single_damage_is_found(at in 0usize..4, damage in 0u8..3) {
        let mut history = good();
        match damage {
            0 => drop(history.remove(at)),
            1 => history.push(history[at].clone()),
            _ => history.swap(at, (at + 1) % 4),
        }
        proptest::prop_assert!(!judge_with(false, history, Some(&tracked(4))).is_clean());
    }
}
