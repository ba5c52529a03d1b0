//! Pods that are gone and remembered.

use super::*;

/// A life told now, of which is to be remembered for ten minutes.
fn gone() -> Rig {
    let mut rig = Rig::new();
    rig.rules.remember_ended = SignedDuration::from_mins(10);
    whole_life(&mut rig);
    assert_eq!(rig.story(), STORY);
    rig
}

/// What is told so long after it was told.
fn after(rig: &mut Rig, told: SignedDuration) -> Formed {
    rig.table.form(now() + told, &rig.rules, &[rig.listing])
}

const LATER: SignedDuration = SignedDuration::from_mins(10);

#[test]
fn a_pod_that_is_gone_is_remembered_for_a_while_after_its_end() {
    let mut rig = gone();
    assert_eq!(after(&mut rig, SignedDuration::from_secs(599)).batch.records, []);
    assert_eq!(rig.table.remembered(), 1);
    let formed = after(&mut rig, LATER);
    assert_eq!(formed.batch.records, [(uid(), None)]);
    rig.table.aborted(formed.in_flight);
    let formed = after(&mut rig, LATER);
    assert_eq!(formed.batch.records, [(uid(), None)], "what came to nothing is due again");
    rig.table.committed(formed.in_flight);
    assert_eq!((rig.table.len(), rig.table.remembered()), (0, 0));
    assert_eq!(after(&mut rig, LATER).batch.records, [], "and once only");
}

#[test]
fn a_list_keeps_only_those_that_it_may_still_show() {
    let mut rig = gone();
    rig.listing = Some(ResourceVersion(3));
    assert_eq!(after(&mut rig, LATER).batch.records, [], "it went at 4, and the LIST may be of 3");
    rig.listing = Some(ResourceVersion(4));
    assert_eq!(after(&mut rig, LATER).batch.records, [(uid(), None)], "the LIST is not older than its going");
}

#[test]
fn a_clock_that_goes_back_forgets_nothing_early_and_nothing_never() {
    let mut rig = gone();
    rig.listing = Some(ResourceVersion(3));
    assert_eq!(after(&mut rig, SignedDuration::from_mins(11)).batch.records, []);
    rig.listing = None;
    assert_eq!(after(&mut rig, SignedDuration::from_mins(9)).batch.records, []);
    assert_eq!(after(&mut rig, LATER).batch.records, [(uid(), None)]);
}

#[test]
fn how_long_one_is_remembered_does_not_hang_on_its_nodes_clock() {
    for node in [SignedDuration::from_hours(24 * 365), -SignedDuration::from_hours(24 * 365)] {
        let rig = gone();
        let mut told = rig.told.clone();
        for tracked in told.values_mut() {
            let end = tracked.end.as_mut().expect("it ended");
            assert_eq!(end.told_at, Some(now()));
            end.at = Some(now() + node);
        }
        let mut next = successor(rig, told);
        assert_eq!(after(&mut next, SignedDuration::from_secs(599)).batch.records, [], "{node}");
        assert_eq!(after(&mut next, LATER).batch.records, [(uid(), None)], "{node}");
    }
}

#[test]
fn nothing_is_forgotten_where_it_is_to_be_remembered_for_ever() {
    let mut rig = gone();
    rig.rules.remember_ended = SignedDuration::MAX;
    assert_eq!(after(&mut rig, SignedDuration::from_hours(24 * 365)).batch.records, []);
}

/// Who takes over from it, with a watch that has come as far.
fn successor(rig: Rig, told: ByUid<Tracked>) -> Rig {
    let mut next = Rig { table: Table::new(vec![Stream::new("runs", None)]), ..rig };
    next.table.restore(told, HashSet::new());
    next.table.streams[0].progress(ResourceVersion(4));
    next
}

#[test]
fn a_successor_remembers_as_long() {
    let rig = gone();
    let told = rig.told.clone();
    let mut next = successor(rig, told);
    assert_eq!(after(&mut next, SignedDuration::from_secs(599)).batch.records, []);
    assert_eq!(after(&mut next, LATER).batch.records, [(uid(), None)]);
}

/// The record of a pod that went at version 4, in another namespace and under another name.
fn another(rig: &Rig, namespace: &str, name: &str) -> (PodUid, Tracked) {
    let tracked = Tracked { namespace: namespace.into(), execution_id: name.into(), ..rig.told[&uid()].clone() };
    (PodUid(name.into()), tracked)
}

#[test]
fn each_stream_forgets_those_of_its_own() {
    let rig = gone();
    let told = ByUid::from_iter([another(&rig, "runs", "a"), another(&rig, "jobs", "b")]);
    let mut table = Table::new(vec![Stream::new("runs", None), Stream::new("jobs", None)]);
    table.restore(told, HashSet::new());
    let records = |table: &mut Table, listing: [Option<ResourceVersion>; 2]| {
        let formed = table.form(now() + LATER, &rig.rules, &listing);
        let records = formed.batch.records.iter().map(|(uid, tracked)| (uid.0.to_string(), tracked.is_none()));
        records.collect::<Vec<_>>()
    };
    assert_eq!(records(&mut table, [None, None]), [], "no watch has come so far");
    table.streams[1].progress(ResourceVersion(4));
    assert_eq!(records(&mut table, [None, None]), [("b".to_owned(), true)]);
    table.streams[0].progress(ResourceVersion(4));
    assert_eq!(records(&mut table, [None, Some(ResourceVersion(1))]), [("a".to_owned(), true)]);
    assert_eq!(records(&mut table, [None, None]), [("a".to_owned(), true), ("b".to_owned(), true)]);
}

#[test]
fn of_very_many_each_transaction_forgets_a_part_and_says_that_there_are_more() {
    let rig = gone();
    let told = (0..=TOMBSTONES_MAX).map(|n| another(&rig, "runs", &format!("p-{n}"))).collect();
    let mut next = successor(rig, told);
    let formed = after(&mut next, LATER);
    assert_eq!(formed.batch.records.len(), TOMBSTONES_MAX);
    assert!(formed.in_flight.is_full_of_tombstones());
    next.table.committed(formed.in_flight);
    let formed = after(&mut next, LATER);
    assert_eq!((formed.batch.records.len(), next.table.remembered()), (1, 1));
    assert!(!formed.in_flight.is_full_of_tombstones());
}

#[test]
fn one_of_which_something_waits_is_not_forgotten() {
    let mut rig = gone();
    rig.table.capturing(&uid());
    assert_eq!(after(&mut rig, LATER).batch.records, [], "its output is still to come");
    rig.table.captured(&uid(), Captured::default());
    assert_eq!(after(&mut rig, LATER).batch.records, [(uid(), None)], "it came too late to be told");
}
