//! One event of each type, for the examples: everything that the type can have is there. Pure.

use jiff::{SignedDuration, Timestamp};
use uuid::Uuid;

use crate::{
    lifecycle::event::{
        Body, Captured, Cause, ContainerEnd, ContainerSummary, Ended, ErrorType, Event, EventType, Failure,
        KubernetesEvent, Logs, LogsStatus, Outcome, Owner, ResourceUsage, Ruled, Verdict,
    },
    publish::record::Service,
    watch::pod::PodUid,
};

pub(super) const CLUSTER: &str = "0b0e7b3c-6d0e-4b8e-8d7e-2f4ad9a1c001";
pub(super) const TRACEPARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

const UID: &str = "8c7f3b1e-5a5d-4a55-9d3b-0d7c2f6f8a11";

pub(super) fn service() -> Service {
    Service { name: "pod-monitor".into(), version: "0.1.0".into(), environment: Some("production".into()) }
}

/// Seconds after the pod was made.
fn at(seconds: i64) -> Timestamp {
    // 2026-01-02T03:04:05Z
    let made = Timestamp::constant(1_767_323_045, 0);
    made.checked_add(SignedDuration::from_secs(seconds)).unwrap_or(made)
}

pub(super) fn event(event_type: EventType) -> Event {
    let (sequence, seconds, body) = match event_type {
        EventType::PodScheduled => (1, 1, Body::Scheduled),
        EventType::ExecutionRunning => (2, 4, running()),
        EventType::ExecutionStalled => (2, 62, stalled()),
        EventType::ExecutionResumed => (3, 90, Body::Resumed { cause: Cause::Image, stalled_since: at(2) }),
        EventType::ExecutionCompleted => (3, 9, ended(Outcome::Completed, Some(0), None)),
        EventType::ExecutionFailed => (3, 9, ended(Outcome::Failed, Some(3), Some(failure(Cause::ExitCode)))),
        EventType::ExecutionTimeout => (3, 60, ended(Outcome::TimedOut, None, Some(failure(Cause::Deadline)))),
        EventType::PodTerminated => (4, 70, terminated()),
    };
    let uid = PodUid(UID.into());
    let owner =
        Owner { kind: "Job".into(), name: "report-17".into(), uid: "5f4c7d7e-8a39-4c5f-8e0a-9d1b8b8f2c22".into() };
    Event {
        event_id: Uuid::new_v5(&Uuid::NAMESPACE_OID, event_type.as_str().as_bytes()),
        timestamp: at(seconds),
        observed_at: at(seconds),
        execution_id: "17".into(),
        user_id: Some("42".into()),
        pod_name: "exec-17-x7k2p".into(),
        namespace: "executions".into(),
        pod_uid: uid,
        node_name: Some("node-1".into()),
        sequence,
        owner: Some(Box::new(owner)),
        earlier_end: None,
        parent: None,
        body,
    }
}

fn running() -> Body {
    let summary = ContainerSummary { name: "main".into(), ready: true, restart_count: 0, state: "running" };
    Body::Running { container_statuses: vec![summary] }
}

fn stalled() -> Body {
    let message = Some(r#"Back-off pulling image "registry.example/report:17""#.into());
    Body::Stalled { cause: Cause::Image, message, since: at(2) }
}

fn terminated() -> Body {
    Body::Terminated { exit_code: Some(0), reason: None, message: None, observed: true }
}

fn failure(cause: Cause) -> Failure {
    let by_deadline = cause == Cause::Deadline;
    let deadline_hint = "raise activeDeadlineSeconds, or make the execution quicker";
    let (error_type, retryable) = cause.usual_end().unwrap_or((ErrorType::SystemError, true));
    let rule = Ruled { rule: "no-input".into(), cause: Some("input_missing".into()), category: Some("user".into()) };
    Failure {
        error_type,
        cause,
        message: Some(if by_deadline { "DeadlineExceeded" } else { "the program ended with exit code 3" }.into()),
        hint: Some(if by_deadline { deadline_hint } else { "upload the input first" }.into()),
        retryable,
        attempt_started: true,
        timeout_seconds: by_deadline.then_some(60),
        ruled: (error_type == ErrorType::ScriptError).then(|| Box::new(rule)),
    }
}

fn ended(outcome: Outcome, exit_code: Option<i32>, failure: Option<Failure>) -> Body {
    let failed = failure.is_some();
    let (stdout, stderr) = ("report written\n", if failed { "cannot open input.csv\n" } else { "" });
    let bytes = |text: &str| Some(text.len() as u64);
    let usage = ResourceUsage {
        execution_time_wall_seconds: Some(4.8),
        cpu_time_jiffies: Some(312),
        clk_tck_hertz: Some(100),
        peak_memory_kb: Some(48_212),
    };
    let reported = KubernetesEvent {
        kind: "Warning".into(),
        reason: "BackOff".into(),
        message: Some("Back-off restarting failed container main".into()),
        count: 2,
        last_seen: Some(at(8)),
    };
    let container = ContainerEnd { name: "main".into(), exit_code, reason: None, restart_count: 0 };
    let verdict = Verdict {
        failed_init: None,
        outcome,
        exit_code,
        failure,
        started_at: Some(at(4)),
        finished_at: Some(at(9)),
        at: at(9),
        containers: vec![container],
        container: "main".into(),
        restart_count: 0,
        termination_message: None,
    };
    let captured = Captured {
        stdout: Some(stdout.into()),
        stderr: Some(stderr.into()),
        resource_usage: Some(usage),
        claimed_exit_code: exit_code.map(i64::from),
        logs: Logs {
            container: None,
            status: LogsStatus::Complete,
            reason: None,
            stdout_bytes: bytes(stdout),
            stderr_bytes: bytes(stderr),
        },
        owner_says: None,
        kubernetes_events: if failed { vec![reported] } else { Vec::new() },
    };
    Body::Ended(Box::new(Ended { verdict, captured }))
}
