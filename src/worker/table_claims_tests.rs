//! Pods that claim an execution which another pod has ended.

use super::*;

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
