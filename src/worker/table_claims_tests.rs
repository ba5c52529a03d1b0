//! Pods that claim an execution which another pod has ended.

use super::*;
use crate::lifecycle::rules::ShardBy;

/// A pod of execution `1` that was made at this second and ended at that one.
fn attempt(uid: &str, version: u64, made: i64, ended: Option<i64>) -> Box<Pod> {
    let at = |second: i64| Timestamp::from_second(1_700_000_000 + second).expect("a time");
    let mut pod = pod(if ended.is_some() { 3 } else { 1 });
    pod.metadata.uid = PodUid(uid.into());
    pod.metadata.resource_version = ResourceVersion(version);
    pod.metadata.creation_timestamp = Some(at(made));
    for status in &mut pod.status.container_statuses {
        let ended = ended.map(at);
        status.state.terminated.iter_mut().for_each(|t| (t.started_at, t.finished_at) = (ended, ended));
    }
    pod
}

#[test]
fn a_pod_that_claims_a_finished_execution_is_found_out_in_the_same_transaction_and_later() {
    for committed_between in [true, false] {
        let mut rig = Rig::new();
        rig.table.observe(0, attempt("u", 10, 0, Some(5)), Instant::now(), Source::Watch);
        if committed_between {
            rig.commit_all();
        }
        rig.table.observe(0, attempt("v", 11, 6, None), Instant::now(), Source::Watch);
        rig.table.observe(0, attempt("w", 12, 4, None), Instant::now(), Source::Watch);
        let formed = rig.form();
        let claims: Vec<_> = formed.claims.iter().map(|(_, execution, e)| (&**execution, &*e.pod_uid.0)).collect();
        assert_eq!(claims, [("1", "u")], "v came after the end of u, w before it");
        let told = |uid: &str| formed.batch.events.iter().find(|e| &*e.pod_uid.0 == uid).expect("an event");
        assert_eq!(told("v").earlier_end.as_ref().map(|e| e.event_type.as_str()), Some("execution_completed"));
        assert_eq!(told("w").earlier_end, None);
    }
}

fn types(formed: &Formed, uid: &str) -> Vec<&'static str> {
    let of_pod = formed.batch.events.iter().filter(|e| &*e.pod_uid.0 == uid);
    of_pod.map(|e| e.body.event_type().as_str()).collect()
}

/// A pod whose end waits for its output, and another one of its execution, made later.
fn retried(shard_by: ShardBy) -> Rig {
    let mut rig = Rig::new();
    rig.rules.shard_by = shard_by;
    rig.table.streams[0] = Stream::new("runs", Some(ResourceVersion(9)));
    rig.table.observe(0, attempt("u", 10, 0, Some(5)), Instant::now(), Source::Watch);
    let formed = rig.form();
    let wanted = rig.table.committed(formed.in_flight);
    assert_eq!(wanted.len(), 1, "its output is to be read");
    rig.table.observe(0, attempt("v", 11, 6, None), Instant::now(), Source::Watch);
    rig
}

#[test]
fn sharded_by_uid_nobody_waits_for_another_pod() {
    let mut rig = retried(ShardBy::Uid);
    assert_eq!(types(&rig.form(), "v"), ["pod_scheduled"]);
}

#[test]
fn sharded_by_execution_a_pod_waits_for_the_end_that_came_before_it_was_made() {
    let mut rig = retried(ShardBy::Execution);
    assert!(types(&rig.form(), "v").is_empty());
    // Neither news of it nor of others changes that; made before that end, nobody waits.
    rig.table.observe(0, attempt("v", 12, 6, Some(8)), Instant::now(), Source::Watch);
    rig.table.observe(0, attempt("w", 13, 4, None), Instant::now(), Source::Watch);
    let formed = rig.form();
    assert!(types(&formed, "v").is_empty() && types(&formed, "w").len() == 1);
    assert!(!rig.table.has_ready(), "it waits without being asked again and again");
    rig.table.committed(formed.in_flight);
    rig.table.streams[0].progress(ResourceVersion(20));
    assert_eq!(rig.table.streams[0].after_commit(), ResourceVersion(10), "it holds the position");

    // The end came to nothing, and again: it is still to be told first.
    rig.table.captured(&PodUid("u".into()), Captured::default());
    let formed = rig.form();
    rig.table.aborted(formed.in_flight);
    let formed = rig.form();
    let order: Vec<&str> = formed.batch.events.iter().map(|e| &*e.pod_uid.0).collect();
    assert_eq!(order, ["u", "v", "v"], "the end, and then in the same transaction who waited for it");
    rig.table.committed(formed.in_flight);
    rig.table.captured(&PodUid("v".into()), Captured::default());
    assert_eq!(types(&rig.form(), "v"), ["execution_completed"]);
}

#[test]
fn an_execution_keeps_its_order_across_a_restore() {
    let mut rig = retried(ShardBy::Execution);
    let told: ByUid<Tracked> = [PodUid("u".into())]
        .into_iter()
        .filter_map(|uid| Some((uid.clone(), rig.table.tracked(&uid)?.clone())))
        .collect();
    let wanted = rig.table.restore(told, HashSet::new());
    assert_eq!(wanted.len(), 1);
    assert!(types(&rig.form(), "v").is_empty(), "its end is still to be told");
    rig.table.captured(&PodUid("u".into()), Captured::default());
    let formed = rig.form();
    let order: Vec<&str> = formed.batch.events.iter().map(|e| &*e.pod_uid.0).collect();
    assert_eq!(order, ["u", "v"]);
}

#[test]
fn an_end_that_came_to_nothing_is_still_to_be_told_first() {
    let mut rig = Rig::new();
    rig.rules.shard_by = ShardBy::Execution;
    rig.table.observe(0, attempt("u", 10, 0, Some(5)), Instant::now(), Source::Watch);
    let formed = rig.form();
    rig.table.committed(formed.in_flight);
    rig.table.captured(&PodUid("u".into()), Captured::default());
    let formed = rig.form();
    assert_eq!(types(&formed, "u"), ["execution_completed"]);
    // Queued while that is on its way, and so before what is given back.
    rig.table.observe(0, attempt("v", 11, 6, None), Instant::now(), Source::Watch);
    rig.table.aborted(formed.in_flight);
    let formed = rig.form();
    let order: Vec<&str> = formed.batch.events.iter().map(|e| &*e.pod_uid.0).collect();
    assert_eq!(order, ["u", "v"]);
}

#[test]
fn an_end_that_waits_for_its_turn_comes_before_a_pod_that_was_made_after_it() {
    for shard_by in [ShardBy::Uid, ShardBy::Execution] {
        let mut rig = Rig::new();
        rig.rules.shard_by = shard_by;
        // Its running is on its way; its end and another pod arrive meanwhile, and that one is queued first.
        rig.table.observe(0, attempt("u", 10, 0, None), Instant::now(), Source::Watch);
        let formed = rig.form();
        rig.table.observe(0, attempt("u", 11, 0, Some(5)), Instant::now(), Source::Watch);
        rig.table.observe(0, attempt("v", 12, 6, None), Instant::now(), Source::Watch);
        rig.table.committed(formed.in_flight);
        let formed = rig.form();
        let claims: Vec<_> = formed.claims.iter().map(|(_, _, earlier)| &*earlier.pod_uid.0).collect();
        let found = if shard_by == ShardBy::Uid { vec!["u"] } else { Vec::new() };
        assert_eq!(claims, found, "{shard_by:?}: who comes after says so, or waits");
        assert_eq!(types(&formed, "v").is_empty(), shard_by == ShardBy::Execution);
    }
}

#[test]
fn after_a_restore_pods_are_looked_at_in_the_order_in_which_they_were_made() {
    for _ in 0..20 {
        let mut rig = Rig::new();
        rig.table.observe(0, attempt("v", 12, 6, None), Instant::now(), Source::List);
        rig.table.observe(0, attempt("u", 11, 0, Some(5)), Instant::now(), Source::List);
        rig.table.restore(ByUid::<Tracked>::default(), HashSet::new());
        assert_eq!(rig.form().claims.len(), 1, "v says that u had ended");
    }
}

#[test]
fn who_is_set_aside_keeps_nobody_waiting() {
    let mut rig = Rig::new();
    rig.rules.shard_by = ShardBy::Execution;
    // Seen with its end for the first time: nothing of it is in the changelog.
    rig.table.observe(0, attempt("u", 10, 0, Some(5)), Instant::now(), Source::Watch);
    rig.table.observe(0, attempt("v", 11, 6, None), Instant::now(), Source::Watch);
    let formed = rig.form();
    assert!(types(&formed, "v").is_empty());
    rig.table.aborted(formed.in_flight);
    rig.table.set_aside(&PodUid("u".into()));
    assert_eq!(types(&rig.form(), "v"), ["pod_scheduled"]);
    assert_eq!(rig.table.captures_held(), 0);
}

#[test]
fn an_id_that_all_pods_bear_costs_no_more_than_its_bound() {
    let mut rig = Rig::new();
    for n in 0..500 {
        rig.table.observe(0, attempt(&format!("u-{n}"), 10 + n, 0, Some(5)), Instant::now(), Source::Watch);
    }
    rig.commit_all();
    rig.table.observe(0, attempt("v", 1000, 6, None), Instant::now(), Source::Watch);
    assert_eq!(rig.form().claims.len(), 1);
}

#[test]
fn how_a_pod_ended_stands_in_its_record_alone_once_that_is_committed() {
    let mut rig = Rig::new();
    rig.table.observe(0, attempt("u", 10, 0, Some(5)), Instant::now(), Source::Watch);
    rig.commit_all();
    let known = format!("{:?}", rig.table.executions);
    assert!(known.contains("Over(") && !known.contains("Decided"), "{known}");
    // It is asked there, also beside others of its execution, and after a restore.
    rig.table.observe(0, attempt("v", 11, 6, Some(7)), Instant::now(), Source::Watch);
    rig.commit_all();
    assert!(!format!("{:?}", rig.table.executions).contains("Decided"));
    let told: ByUid<Tracked> = ["u", "v"]
        .map(|uid| PodUid(uid.into()))
        .into_iter()
        .filter_map(|uid| Some((uid.clone(), rig.table.tracked(&uid)?)))
        .collect();
    rig.table.restore(told, HashSet::new());
    assert!(!format!("{:?}", rig.table.executions).contains("Decided"));
    rig.table.observe(0, attempt("w", 12, 8, None), Instant::now(), Source::Watch);
    let claims: Vec<_> = rig.form().claims.iter().map(|(.., earlier)| earlier.pod_uid.to_string()).collect();
    assert_eq!(claims, ["v"], "the last of the two ends");
}
