//! Tests of what records add up to.

use super::*;
use crate::{lifecycle::tracked::Tracked, publish::changelog::Reason};

fn tracked() -> Box<Tracked> {
    let text =
        r#"{"format":1,"oldest_reader":1,"resource_version":7,"namespace":"ns","pod_name":"p","execution_id":"1"}"#;
    serde_json::from_str(text).unwrap()
}

#[test]
fn newest_record_of_each_key_counts() {
    let uid = |n: &str| PodUid(n.into());
    let broken = |key: &str| Entry::Unreadable(Unreadable { key: key.into(), reason: Reason::Key });
    let mut state = State::default();
    for entry in [
        Entry::Pod(uid("kept"), Some(tracked())),
        Entry::Pod(uid("gone"), Some(tracked())),
        Entry::Pod(uid("gone"), None),
        Entry::Pod(uid("later-unreadable"), Some(tracked())),
        broken("pod/later-unreadable"),
        broken("pod/mended"),
        Entry::Pod(uid("mended"), Some(tracked())),
        broken("pod/forgotten"),
        Entry::Pod(uid("forgotten"), None),
        Entry::Position(Position { term: 4, ..Position::default() }),
    ] {
        assert_eq!(state.apply(entry), None);
    }
    let restored = state.finish();
    let mut told: Vec<_> = restored.told.keys().map(|uid| &*uid.0).collect();
    told.sort_unstable();
    assert_eq!(told, ["kept", "mended"]);
    assert_eq!(restored.unreadable.len(), 1);
    assert_eq!(restored.unreadable[0].key, "pod/later-unreadable");
    assert_eq!(restored.next_term(), 5);
    assert_eq!(Restored::default().next_term(), 1);
}
