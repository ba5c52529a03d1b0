use jiff::Timestamp;
use uuid::Uuid;

use super::*;
use crate::{
    lifecycle::event::{Captured, ErrorType, Failure, Logs, Ruled, Verdict},
    watch::pod::PodUid,
};

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second).expect("a time")
}

fn event(name: &str, body: Body) -> Event {
    Event {
        event_id: Uuid::new_v5(&Uuid::NAMESPACE_OID, name.as_bytes()),
        timestamp: at(9),
        observed_at: at(9),
        execution_id: name.into(),
        user_id: None,
        pod_name: format!("exec-{name}").into(),
        namespace: "executions".into(),
        pod_uid: PodUid(format!("uid-{name}").into()),
        node_name: None,
        sequence: 3,
        owner: None,
        earlier_end: None,
        parent: None,
        body,
    }
}

fn ended(name: &str, outcome: Outcome, failure: Option<Failure>, status: LogsStatus) -> Event {
    let verdict = Verdict {
        outcome,
        exit_code: Some(if failure.is_some() { 3 } else { 0 }),
        failure,
        started_at: Some(at(4)),
        finished_at: Some(at(9)),
        at: at(9),
        containers: Vec::new(),
        container: "main".into(),
        restart_count: 0,
        failed_init: None,
        termination_message: None,
    };
    let captured = Captured { logs: Logs { status, ..Logs::default() }, ..Captured::default() };
    event(name, Body::Ended(Box::new(Ended { verdict, captured })))
}

fn failure(cause: Cause, ruled: Option<&str>, attempt_started: bool) -> Failure {
    let ruled = ruled.map(|cause| Box::new(Ruled { rule: "r".into(), cause: Some(cause.into()), category: None }));
    let (error_type, message, hint) = (ErrorType::SystemError, None, None);
    Failure { error_type, cause, message, hint, retryable: false, attempt_started, timeout_seconds: None, ruled }
}

#[test]
fn ends_are_counted_and_the_last_are_remembered_newest_first() {
    let ruled = failure(Cause::ExitCode, Some("no_licence"), true);
    let never_ran = failure(Cause::Image, None, false);
    let events = [
        event("a", Body::Scheduled),
        ended("b", Outcome::Completed, None, LogsStatus::Complete),
        ended("c", Outcome::Failed, Some(ruled), LogsStatus::Partial),
        ended("d", Outcome::Failed, Some(never_ran), LogsStatus::Unavailable),
        ended("e", Outcome::TimedOut, Some(failure(Cause::Deadline, None, true)), LogsStatus::Truncated),
    ];
    let mut shown = Shown::default();
    Ends::of(&events, 4).unwrap().show(&[Cause::ExitCode, Cause::Image, Cause::Deadline], &mut shown);
    assert_eq!((shown.ends.completed, shown.ends.failed, shown.ends.timeout), (1, 2, 1));
    assert_eq!(shown.missing.output, 1, "of what never ran nothing is missing, and what was cut is no loss");
    let causes: Vec<_> = shown.ends.causes.iter().map(|(cause, number)| (*cause, *number)).collect();
    assert_eq!(causes, [("deadline", 1), ("exit_code", 1), ("image", 1)]);
    let rows = shown.executions.iter().map(|e| (e.number, &*e.execution_id, e.verdict, e.cause.as_deref()));
    let expected = [
        (4, "e", "timeout", Some("deadline")),
        (3, "d", "failed", Some("image")),
        (2, "c", "failed", Some("no_licence")),
        (1, "b", "completed", None),
    ];
    assert_eq!(rows.collect::<Vec<_>>(), expected);
    let one = &shown.executions[3];
    assert_eq!((one.shard, &*one.pod_name, &*one.pod_uid, &*one.namespace), (4, "exec-b", "uid-b", "executions"));
    assert_eq!((one.exit_code, one.duration_seconds, one.logs), (Some(0), Some(5.0), "complete"));
}

#[test]
fn however_many_end_only_the_last_few_are_remembered() {
    let mut shown = Shown::default();
    for batch in 0..5_u32 {
        let end = |n: u32| ended(&format!("{batch}-{n}"), Outcome::Completed, None, LogsStatus::Complete);
        let events: Vec<_> = (0..[1000, 3, 49, 50, 7][batch as usize]).map(end).collect();
        let ends = Ends::of(&events, 0).unwrap();
        assert!(ends.last.len() <= EXECUTIONS_MAX);
        ends.show(&[], &mut shown);
        assert!(shown.executions.len() <= EXECUTIONS_MAX);
    }
    assert_eq!(shown.ends.completed, 1109);
    let numbers: Vec<u64> = shown.executions.iter().map(|e| e.number).collect();
    assert_eq!(numbers, (1060..=1109).rev().collect::<Vec<_>>());
    assert_eq!(&*shown.executions[0].execution_id, "4-6");
    assert!(Ends::of(&[event("a", Body::Scheduled)], 0).is_none(), "nothing to lock the board for");
}
