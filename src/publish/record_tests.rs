use uuid::Uuid;

use super::*;
use crate::{
    lifecycle::event::{
        Captured, Cause, ContainerEnd, ContainerSummary, EarlierEnd, Ended, ErrorType, Failure, KubernetesEvent, Logs,
        LogsStatus, Outcome, Owner, ResourceUsage, Ruled, Verdict,
    },
    watch::pod::PodUid,
};

/// What every event of these tests begins with, up to the fields of its kind.
const HEAD: &str = concat!(
    r#""event_version":"1.0","timestamp":"2026-01-02T03:04:05Z","aggregate_id":"7","execution_id":"7","#,
    r#""metadata":{"service_name":"pod-monitor","service_version":"0.1.0","user_id":"u","environment":"test"},"#,
    r#""pod_name":"exec-7","namespace":"ns","pod_uid":"p-7","node_name":"node-1","#,
    r#""observed_at":"2026-01-02T03:04:05.678Z","sequence":3"#,
);

fn event(body: Body) -> Event {
    Event {
        event_id: Uuid::nil(),
        timestamp: "2026-01-02T03:04:05Z".parse().unwrap(),
        observed_at: "2026-01-02T03:04:05.678Z".parse().unwrap(),
        execution_id: "7".into(),
        user_id: Some("u".into()),
        pod_name: "exec-7".into(),
        namespace: "ns".into(),
        pod_uid: PodUid("p-7".into()),
        node_name: Some("node-1".into()),
        sequence: 3,
        owner: None,
        earlier_end: None,
        parent: None,
        body,
    }
}

fn service() -> Service {
    Service { name: "pod-monitor".into(), version: "0.1.0".into(), environment: Some("test".into()) }
}

fn verdict(outcome: Outcome, exit_code: Option<i32>) -> Verdict {
    Verdict {
        failed_init: None,
        outcome,
        exit_code,
        failure: None,
        started_at: None,
        finished_at: None,
        at: "2026-01-02T03:04:05Z".parse().unwrap(),
        containers: vec![],
        container: "main".into(),
        restart_count: 0,
        termination_message: None,
    }
}

fn failure(cause: Cause) -> Failure {
    Failure {
        error_type: ErrorType::ScriptError,
        cause,
        message: Some("it said \"no\"".into()),
        hint: None,
        retryable: false,
        attempt_started: true,
        timeout_seconds: None,
        ruled: None,
    }
}

fn ended(verdict: Verdict, captured: Captured) -> Body {
    Body::Ended(Box::new(Ended { verdict, captured }))
}

fn completed() -> Body {
    let verdict = Verdict {
        started_at: Some("2026-01-02T03:04:00Z".parse().unwrap()),
        finished_at: Some("2026-01-02T03:04:05Z".parse().unwrap()),
        containers: vec![ContainerEnd { name: "main".into(), exit_code: Some(0), reason: None, restart_count: 0 }],
        ..verdict(Outcome::Completed, Some(0))
    };
    let captured = Captured {
        stdout: Some("a\n".into()),
        stderr: Some(String::new()),
        resource_usage: Some(ResourceUsage { peak_memory_kb: Some(9), ..ResourceUsage::default() }),
        claimed_exit_code: Some(0),
        logs: Logs {
            container: None,
            status: LogsStatus::Complete,
            reason: None,
            stdout_bytes: Some(2),
            stderr_bytes: Some(0),
        },
        kubernetes_events: vec![],
        owner_says: None,
    };
    ended(verdict, captured)
}

/// The value of the record, which fits the published schema, as every record of every test does.
fn value(event: &Event) -> String {
    let text = String::from_utf8(encode(event, &service(), "c", None).unwrap().value).unwrap();
    testkit::clients::shape::check_event(&serde_json::from_str(&text).unwrap()).unwrap();
    text
}

#[test]
fn each_event_type_has_these_bytes() {
    let failed = Verdict { failure: Some(failure(Cause::ExitCode)), ..verdict(Outcome::Failed, Some(2)) };
    let conflict = Captured { claimed_exit_code: Some(0), ..Captured::default() };
    let timeout = Failure { timeout_seconds: Some(60), hint: Some("ask for more".into()), ..failure(Cause::Deadline) };
    let timed_out = Verdict { failure: Some(timeout), ..verdict(Outcome::TimedOut, None) };
    let summary = ContainerSummary { name: "main".into(), ready: true, restart_count: 1, state: "running" };
    let cases = [
        (Body::Scheduled, "pod_scheduled", ""),
        (
            Body::Running { container_statuses: vec![summary] },
            "execution_running",
            r#","container_statuses":[{"name":"main","ready":true,"restart_count":1,"state":"running"}]"#,
        ),
        (
            completed(),
            "execution_completed",
            concat!(
                r#","exit_code":0,"stdout":"a\n","stderr":"","resource_usage":{"peak_memory_kb":9},"#,
                r#""logs":{"status":"complete","stdout_bytes":2,"stderr_bytes":0},"#,
                r#""started_at":"2026-01-02T03:04:00Z","finished_at":"2026-01-02T03:04:05Z","#,
                r#""containers":[{"name":"main","exit_code":0,"restart_count":0}]"#,
            ),
        ),
        (
            ended(failed, conflict),
            "execution_failed",
            concat!(
                r#","exit_code":2,"logs":{"status":"unavailable"},"claims_conflict":true,"#,
                r#""error_type":"script_error","cause":"exit_code","message":"it said \"no\"","#,
                r#""retryable":false,"attempt_started":true"#,
            ),
        ),
        (
            ended(timed_out, Captured::default()),
            "execution_timeout",
            concat!(
                r#","logs":{"status":"unavailable"},"error_type":"script_error","cause":"deadline","#,
                r#""message":"it said \"no\"","hint":"ask for more","retryable":false,"attempt_started":true,"#,
                r#""timeout_seconds":60"#,
            ),
        ),
        (
            Body::Terminated { exit_code: None, reason: None, message: None, observed: false },
            "pod_terminated",
            r#","observed":false"#,
        ),
        (
            Body::Terminated {
                exit_code: Some(0),
                reason: Some("r".into()),
                message: Some("m".into()),
                observed: true,
            },
            "pod_terminated",
            r#","exit_code":0,"reason":"r","message":"m","observed":true"#,
        ),
    ];
    for (body, event_type, rest) in cases {
        let id = Uuid::nil();
        let expected = format!(r#"{{"event_id":"{id}","event_type":"{event_type}",{HEAD}{rest}}}"#);
        assert_eq!(value(&event(body)), expected);
    }
}

#[test]
fn stalls_and_what_is_known_besides_have_these_bytes() {
    let at = |text: &str| text.parse().unwrap();
    let cases = [
        (
            Body::Stalled { cause: Cause::Image, message: Some("m".into()), since: at("2026-01-02T03:04:01Z") },
            "execution_stalled",
            r#","cause":"image","message":"m","since":"2026-01-02T03:04:01Z""#,
        ),
        (
            Body::Stalled { cause: Cause::NodeLost, message: None, since: at("2026-01-02T03:04:01Z") },
            "execution_stalled",
            r#","cause":"node_lost","since":"2026-01-02T03:04:01Z""#,
        ),
        (
            Body::Resumed { cause: Cause::Image, stalled_since: at("2026-01-02T03:04:01Z") },
            "execution_resumed",
            r#","cause":"image","stalled_since":"2026-01-02T03:04:01Z""#,
        ),
    ];
    for (body, event_type, rest) in cases {
        let id = Uuid::nil();
        let expected = format!(r#"{{"event_id":"{id}","event_type":"{event_type}",{HEAD}{rest}}}"#);
        assert_eq!(value(&event(body)), expected);
    }
    let owned = Event {
        owner: Some(Box::new(Owner { kind: "Job".into(), name: "j".into(), uid: "j-1".into() })),
        earlier_end: Some(Box::new(EarlierEnd {
            pod_uid: PodUid("p-6".into()),
            event_type: EventType::ExecutionFailed,
            timestamp: at("2026-01-02T03:00:00Z"),
        })),
        ..event(Body::Scheduled)
    };
    let expected = concat!(
        r#""sequence":3,"owner":{"kind":"Job","name":"j","uid":"j-1"},"#,
        r#""earlier_end":{"pod_uid":"p-6","event_type":"execution_failed","timestamp":"2026-01-02T03:00:00Z"}}"#,
    );
    assert!(value(&owned).ends_with(expected), "{}", value(&owned));
}

#[test]
fn end_tells_what_kubernetes_reported_and_what_a_rule_said() {
    let kubernetes_events = vec![
        KubernetesEvent {
            kind: "Warning".into(),
            reason: "BackOff".into(),
            message: Some("again".into()),
            count: 3,
            last_seen: Some("2026-01-02T03:04:04Z".parse().unwrap()),
        },
        KubernetesEvent { kind: "Normal".into(), reason: "Killing".into(), message: None, count: 1, last_seen: None },
    ];
    let ruled = |cause: Option<&str>, category: Option<&str>| Verdict {
        failure: Some(Failure {
            ruled: Some(Box::new(Ruled {
                rule: "no-gpu".into(),
                cause: cause.map(Into::into),
                category: category.map(Into::into),
            })),
            ..failure(Cause::ExitCode)
        }),
        ..verdict(Outcome::Failed, Some(2))
    };
    let text = value(&event(ended(
        ruled(Some("gpu_missing"), Some("infra")),
        Captured { kubernetes_events, ..Captured::default() },
    )));
    let reported = concat!(
        r#""logs":{"status":"unavailable"},"#,
        r#""kubernetes_events":[{"type":"Warning","reason":"BackOff","message":"again","count":3,"#,
        r#""last_seen":"2026-01-02T03:04:04Z"},{"type":"Normal","reason":"Killing","count":1}],"error_type""#,
    );
    assert!(text.contains(reported), "{text}");
    assert!(text.contains(r#""cause":"gpu_missing""#), "{text}");
    assert!(text.ends_with(r#""attempt_started":true,"rule":"no-gpu","category":"infra"}"#), "{text}");
    let text = value(&event(ended(ruled(None, None), Captured::default())));
    assert!(text.contains(r#""cause":"exit_code""#) && text.ends_with(r#","rule":"no-gpu"}"#), "{text}");
}

#[test]
fn field_without_a_value_is_absent_and_never_null() {
    let event = Event { user_id: None, node_name: None, ..event(Body::Scheduled) };
    let service = Service { environment: None, ..service() };
    let text = String::from_utf8(encode(&event, &service, "c", None).unwrap().value).unwrap();
    for absent in ["null", "user_id", "node_name", "environment"] {
        assert!(!text.contains(absent), "{absent} in {text}");
    }
}

#[test]
fn claims_conflict_is_told_only_where_claim_and_verdict_differ() {
    let cases = [(None, Some(0), false), (Some(0), Some(0), false), (Some(1), Some(0), true), (Some(0), None, true)];
    for (claimed_exit_code, exit_code, expected) in cases {
        let captured = Captured { claimed_exit_code, ..Captured::default() };
        let text = value(&event(ended(verdict(Outcome::Completed, exit_code), captured)));
        assert_eq!(text.contains(r#""claims_conflict":true"#), expected, "{claimed_exit_code:?} {exit_code:?}");
        assert_eq!(text.contains("claims_conflict"), expected);
    }
}

#[test]
fn number_that_json_cannot_say_is_an_error_and_not_a_null() {
    let usage = ResourceUsage { execution_time_wall_seconds: Some(f64::NAN), ..ResourceUsage::default() };
    let captured = Captured { resource_usage: Some(usage), ..Captured::default() };
    let event = event(ended(verdict(Outcome::Completed, Some(0)), captured));
    assert!(encode(&event, &service(), "c", None).is_err());
}

#[test]
fn headers_are_cloudevents_in_binary_mode() {
    let event = event(completed());
    let record = encode(&event, &service(), "cluster", Some("00-a-b-01")).unwrap();
    let headers: Vec<_> = record.headers.iter().map(|(key, value)| (*key, &**value)).collect();
    let expected = [
        ("ce_specversion", "1.0"),
        ("ce_id", "00000000-0000-0000-0000-000000000000"),
        ("ce_type", "dev.pod-monitor.execution_completed.v1"),
        ("ce_source", "/kubernetes/cluster/ns"),
        ("ce_subject", "7"),
        ("ce_time", "2026-01-02T03:04:05Z"),
        ("content-type", "application/json"),
        ("traceparent", "00-a-b-01"),
    ];
    assert_eq!(headers, expected);
    assert_eq!(record.key, "7");
    assert_eq!(encode(&event, &service(), "c", None).unwrap().headers.len(), 7);
}

#[test]
fn type_of_each_event_is_its_name_in_the_header() {
    for event_type in EventType::ALL {
        assert_eq!(ce_type(event_type), format!("dev.pod-monitor.{event_type}.v1"));
        assert_eq!(topic("e.{event_type}", event_type), format!("e.{event_type}"));
        assert_eq!(EventType::ALL[event_type as usize], event_type, "ALL is in the order of the variants");
    }
    assert_eq!(topic("events", EventType::PodScheduled), "events");
}

/// Run with `--release --nocapture` for the number; the bound only guards against the absurd.
#[test]
fn encoding_is_quick() {
    let (event, service, mut buffer) = (event(completed()), service(), Vec::with_capacity(4096));
    let (rounds, started) = (20_000, crate::clock::monotonic());
    for _ in 0..rounds {
        buffer.clear();
        write_value(&mut buffer, &event, &service).unwrap();
        std::hint::black_box((&buffer, headers(&event, "c", None)));
    }
    let each = started.elapsed() / rounds;
    println!("encode: {each:?} an event of {} bytes", buffer.len());
    assert!(each.as_micros() < 200, "{each:?}");
}
