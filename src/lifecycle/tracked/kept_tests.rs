//! Everything that can stand in a record comes out of memory as it went in.

#![allow(clippy::unwrap_used, reason = "a test may stop at the first surprise")]

use proptest::prelude::*;

use super::*;

/// A record with every field, as text, so that a field that is added is added here by whoever sees this fail.
const FULL: &str = r#"{"format":3,"oldest_reader":1,"resource_version":7,"namespace":"ns","pod_name":"exec-1","execution_id":"1",
    "user_id":"u","owner":{"kind":"Job","name":"j","uid":"o"},
    "earlier_end":{"pod_uid":"e","event_type":"execution_failed","timestamp":"2026-01-01T00:00:00.123456789Z"},
    "node_name":"n","parent":"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01","sequence":9,"told":{"scheduled":true,"running":true},"waiting":"image",
    "clock":{"cause":"image","since":"2026-01-01T00:00:00Z","due":"2026-01-01T00:01:00Z"},
    "stalls":[{"cause":"unschedulable","since":"2026-01-01T00:00:00Z","resumed":true}],
    "deletion_timestamp":"2026-01-01T00:00:01Z",
    "end":{"exit_code":1,"cause":"exit_code","event_type":"execution_failed","at":"2026-01-01T00:00:02.5Z","told_at":"2026-01-01T00:00:03Z"},
    "gone":12,"left":true,"later":{"a":[1]}}"#;

fn kept(tracked: &Tracked) -> Tracked {
    Kept::from(tracked).unpack()
}

#[test]
fn nothing_of_a_record_is_lost_in_memory() {
    let full: Tracked = serde_json::from_str(FULL).unwrap();
    assert_eq!(kept(&full), full);
    // And of each by itself: what is there does not depend on what else is.
    let json: serde_json::Value = serde_json::from_str(FULL).unwrap();
    let needed = ["format", "oldest_reader", "resource_version", "namespace", "pod_name", "execution_id"];
    for (field, value) in json.as_object().unwrap() {
        let mut one: serde_json::Map<_, _> =
            needed.map(|field| (field.to_owned(), json[field].clone())).into_iter().collect();
        one.insert("format".into(), 1.into());
        one.insert(field.clone(), value.clone());
        let one: Tracked = serde_json::from_value(one.into()).unwrap();
        assert_eq!(kept(&one), one, "{field}");
    }
}

#[test]
fn what_is_asked_without_unpacking_is_what_was_told() {
    let full: Tracked = serde_json::from_str(FULL).unwrap();
    let uid = PodUid("u".into());
    let packed = Kept::from(&full);
    assert_eq!((packed.namespace(), packed.execution_id()), (&*full.namespace, &*full.execution_id));
    assert_eq!((packed.end(), packed.gone(), packed.left()), (full.end, full.gone, full.left));
    assert_eq!((packed.ended(&uid), packed.stalled()), (full.ended(&uid), full.stalled()));
    assert_eq!(packed.verdict(), full.verdict.as_deref());
}

#[test]
fn a_time_that_nobody_could_mean_is_kept_too() {
    let mut full: Tracked = serde_json::from_str(FULL).unwrap();
    full.deletion_timestamp = Some("-009999-01-02T01:59:59Z".parse().unwrap());
    assert_eq!(kept(&full), full);
    assert_eq!((Kept::from(&full).end(), Kept::from(&full).gone()), (full.end, full.gone));
}

#[test]
fn a_pod_that_runs_takes_two_small_pieces_of_memory() {
    assert!(size_of::<Kept>() <= 56, "{} bytes", size_of::<Kept>());
    let mut full: Tracked = serde_json::from_str(FULL).unwrap();
    (full.format, full.oldest_reader) = (FORMAT, FORMAT);
    (full.earlier_end, full.clock, full.end, full.gone, full.deletion_timestamp) = (None, None, None, None, None);
    (full.stalls, full.unknown) = (Vec::new(), serde_json::Map::new());
    let packed = Kept::from(&full);
    assert!(packed.late.is_none() && packed.rare.is_none());
}

proptest! {
    #[test]
    fn texts_of_any_length_are_kept(
        texts in prop::collection::vec("\\PC{0,300}", 8),
        present in any::<[bool; 3]>(),
    ) {
        let mut full: Tracked = serde_json::from_str(FULL).unwrap();
        let text = |n: usize| -> Box<str> { texts[n].as_str().into() };
        (full.namespace, full.pod_name, full.execution_id) = (text(0), text(1), text(2));
        full.user_id = present[0].then(|| text(3));
        full.node_name = present[1].then(|| text(4));
        full.owner = present[2].then(|| Box::new(Owner { kind: text(5), name: text(6), uid: text(7) }));
        prop_assert_eq!(kept(&full), full);
    }
}
