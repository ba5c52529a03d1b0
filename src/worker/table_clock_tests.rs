//! Clocks that run down.

use super::*;
use crate::lifecycle::stall::Graces;

/// No scheduler has looked at it for a minute and more.
fn unscheduled() -> Box<Pod> {
    let json = r#"{"metadata":{"uid":"u","name":"exec-1","namespace":"runs","resourceVersion":"1",
        "creationTimestamp":"2023-11-14T22:13:20Z"},
        "spec":{"restartPolicy":"Never","containers":[{"name":"main"}]},"status":{"phase":"Pending"}}"#;
    let Decoded::Whole(pod) = decode(json) else { panic!("a pod") };
    Box::new(pod)
}

/// It was seen, and nothing is told yet.
fn seen() -> Rig {
    let mut rig = Rig::new();
    rig.rules.stall_graces = Graces::standard();
    rig.table.observe(0, unscheduled(), Instant::now(), Source::Watch);
    rig
}

/// A pod whose clock runs, as is committed.
fn waiting() -> Rig {
    let mut rig = seen();
    let formed = rig.form();
    assert_eq!(formed.ticks.iter().map(|(_, uid)| uid).collect::<Vec<_>>(), [&uid()]);
    rig.keep(&formed.batch);
    rig.table.committed(formed.in_flight);
    rig
}

#[test]
fn a_clock_that_runs_down_is_looked_at() {
    let mut rig = waiting();
    rig.table.tick(&uid());
    rig.commit_all();
    assert_eq!(rig.story(), ["execution_stalled"]);
}

#[test]
fn a_clock_that_was_stopped_costs_no_decision() {
    let mut rig = waiting();
    rig.see(2);
    rig.commit_all();
    assert_eq!(rig.story(), STORY[..2], "it got on");
    rig.table.tick(&uid());
    assert!(!rig.table.has_ready());
}

#[test]
fn a_clock_that_runs_down_while_its_pod_is_being_told_is_looked_at_after_that() {
    let mut rig = seen();
    let formed = rig.form();
    rig.table.tick(&uid());
    rig.keep(&formed.batch);
    rig.table.committed(formed.in_flight);
    rig.commit_all();
    assert_eq!(rig.story(), ["execution_stalled"]);
}

#[test]
fn a_clock_whose_winding_came_to_nothing_is_wound_again() {
    let mut rig = seen();
    let formed = rig.form();
    rig.table.aborted(formed.in_flight);
    rig.table.tick(&uid());
    let formed = rig.form();
    assert_eq!(formed.ticks.len(), 1);
}
