//! Pods that are gone and remembered.

use super::*;

/// When the pod of these tests ended.
fn ended() -> Timestamp {
    Timestamp::from_second(1_700_000_000).expect("a time")
}

/// A life told, of which is to be remembered for ten minutes.
fn gone() -> Rig {
    let mut rig = Rig::new();
    rig.rules.remember_ended = SignedDuration::from_mins(10);
    whole_life(&mut rig);
    assert_eq!(rig.story(), STORY);
    rig
}

fn records(rig: &mut Rig, after_end: SignedDuration) -> Formed {
    rig.table.form(ended() + after_end, &rig.rules, &[rig.listing])
}

#[test]
fn a_pod_that_is_gone_is_remembered_for_a_while_after_its_end() {
    let mut rig = gone();
    assert_eq!(records(&mut rig, SignedDuration::from_secs(599)).batch.records, []);
    rig.listing = true;
    assert_eq!(records(&mut rig, SignedDuration::from_mins(10)).batch.records, [], "a LIST may still show it");
    rig.listing = false;
    let formed = records(&mut rig, SignedDuration::from_mins(10));
    assert_eq!(formed.batch.records, [(uid(), None)]);
    rig.table.aborted(formed.in_flight);
    let formed = records(&mut rig, SignedDuration::from_mins(10));
    assert_eq!(formed.batch.records, [(uid(), None)], "what came to nothing is due again");
    rig.table.committed(formed.in_flight);
    assert!(rig.table.is_empty());
    assert_eq!(records(&mut rig, SignedDuration::from_mins(10)).batch.records, [], "and once only");
}

#[test]
fn a_clock_that_goes_back_forgets_nothing_early_and_nothing_never() {
    let mut rig = gone();
    rig.listing = true;
    assert_eq!(records(&mut rig, SignedDuration::from_mins(11)).batch.records, []);
    rig.listing = false;
    assert_eq!(records(&mut rig, SignedDuration::from_mins(9)).batch.records, []);
    assert_eq!(records(&mut rig, SignedDuration::from_mins(10)).batch.records, [(uid(), None)]);
}

#[test]
fn nothing_is_forgotten_where_it_is_to_be_remembered_for_ever() {
    let mut rig = gone();
    rig.rules.remember_ended = SignedDuration::MAX;
    assert_eq!(records(&mut rig, SignedDuration::from_hours(24 * 365)).batch.records, []);
}

#[test]
fn a_successor_remembers_as_long() {
    let rig = gone();
    let mut next = Rig { table: Table::new(vec![Stream::new("runs", None)]), ..rig };
    next.table.restore(next.told.clone(), HashSet::new());
    next.table.streams[0].progress(ResourceVersion(4));
    assert_eq!(records(&mut next, SignedDuration::from_secs(599)).batch.records, []);
    assert_eq!(records(&mut next, SignedDuration::from_mins(10)).batch.records, [(uid(), None)]);
}
