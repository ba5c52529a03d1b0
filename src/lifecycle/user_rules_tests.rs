//! What rules match, who has the last word, and that no pod panics them.

use jiff::{SignedDuration, Timestamp};
use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::{
    lifecycle::{
        decide::{Input, step},
        event::{Body, Captured, Ended, Event, EventType},
        explain::explain,
        rules::Rules,
        tracked::Tracked,
    },
    watch::pod::{Decoded, PodUid, ResourceVersion, decode},
};

const STARTED: &str = "2026-11-25T10:00:00Z";
const ENDED: &str = "2026-11-25T10:01:00Z";

fn late() -> Timestamp {
    "2026-11-25T11:00:00Z".parse().unwrap()
}

fn terminated(exit_code: i32, reason: &str, message: &str) -> Value {
    let times = json!({ "startedAt": STARTED, "finishedAt": ENDED });
    let mut end = json!({ "exitCode": exit_code, "reason": reason, "message": message });
    end.as_object_mut().unwrap().extend(times.as_object().unwrap().clone());
    json!({ "terminated": end })
}

/// A failed pod of `main` and `side`.
fn failed_pod(main: Value, side: Value) -> Value {
    json!({
        "metadata": { "name": "p", "namespace": "n", "uid": "u", "resourceVersion": "7", "creationTimestamp": STARTED },
        "spec": { "nodeName": "n1", "restartPolicy": "Never", "containers": [{ "name": "main" }, { "name": "side" }] },
        "status": {
            "phase": "Failed", "message": "node was low on disk", "startTime": STARTED,
            "conditions": [{ "type": "Ready", "status": "False", "reason": "PodFailed", "message": "not ready" }],
            "containerStatuses": [{ "name": "main", "state": main }, { "name": "side", "state": side }],
        },
    })
}

fn pod(value: &Value) -> Pod {
    match decode(&value.to_string()) {
        Decoded::Whole(pod) => pod,
        other => panic!("{other:?}"),
    }
}

fn rule(name: &str, asks: Match) -> Rule {
    let says = Says { cause: Some(format!("of_{name}").into()), ..Says::default() };
    Rule { name: name.into(), asks, says }
}

fn with(rules: Vec<Rule>) -> Rules {
    let settle_grace = SignedDuration::from_secs(10);
    Rules { settle_grace, user: UserRules::new(rules).into(), ..Rules::default() }
}

fn pattern(text: &str) -> Option<Pattern> {
    Some(Pattern::new(text).unwrap())
}

fn codes(from: i32, to: i32) -> Vec<ExitCodes> {
    vec![ExitCodes { from, to }]
}

fn condition(kind: &str, status: &str, reasons: &[&str]) -> Option<ConditionMatch> {
    let reasons = reasons.iter().map(|r| (*r).into()).collect();
    Some(ConditionMatch { kind: kind.into(), status: status.into(), reasons })
}

fn event(reason: &str, message: &str) -> KubernetesEvent {
    let (kind, message) = ("Warning".into(), Some(message.into()));
    KubernetesEvent { kind, reason: reason.into(), message, count: 1, last_seen: None }
}

/// Who decided of this pod by these rules.
fn decider(rules: Vec<Rule>, pod: &Pod) -> Option<String> {
    let told = explain(pod, None, late(), &with(rules));
    told.verdict?.failure?.ruled.map(|ruled| ruled.rule.into())
}

#[test]
fn a_rule_matches_what_it_names_and_nothing_else() {
    let none = Match::default();
    let any = || Match::default();
    let pod = pod(&failed_pod(terminated(42, "Error", "GPU 3 lost"), terminated(0, "Completed", "")));
    let reasons = |r: &str| vec![r.into()];
    let yes = [
        ("anything", none.clone()),
        ("exit code", Match { exit_codes: codes(42, 42), ..any() }),
        ("range", Match { exit_codes: codes(40, 50), ..any() }),
        ("reason", Match { reasons: reasons("Error"), ..any() }),
        ("termination message", Match { termination_message: pattern(r"GPU \d"), ..any() }),
        ("pod's message", Match { message: pattern("low on disk$"), ..any() }),
        ("condition's message", Match { message: pattern("^not ready"), ..any() }),
        ("told message", Match { message: pattern("exit code 42"), ..any() }),
        ("condition", Match { condition: condition("Ready", "False", &["PodFailed", "x"]), ..any() }),
        ("condition of any reason", Match { condition: condition("Ready", "False", &[]), ..any() }),
        ("cause", Match { causes: vec![Cause::Init, Cause::ExitCode], ..any() }),
        ("main by name", Match { container: Some("main".into()), ..any() }),
        ("side's exit code", Match { container: Some("side".into()), exit_codes: codes(0, 0), ..any() }),
    ];
    for (name, asks) in yes {
        assert_eq!(decider(vec![rule("r", asks)], &pod).as_deref(), Some("r"), "{name}");
    }
    let no = [
        ("exit code", Match { exit_codes: codes(43, 255), ..any() }),
        ("another container's exit code", Match { exit_codes: codes(0, 0), ..any() }),
        ("part of a reason", Match { reasons: reasons("Err"), ..any() }),
        ("another container's reason", Match { reasons: reasons("Completed"), ..any() }),
        ("termination message", Match { termination_message: pattern("low on disk"), ..any() }),
        ("message", Match { message: pattern("GPU"), ..any() }),
        ("condition's status", Match { condition: condition("Ready", "True", &[]), ..any() }),
        ("condition's reason", Match { condition: condition("Ready", "False", &["x"]), ..any() }),
        ("cause", Match { causes: vec![Cause::OomKilled], ..any() }),
        ("container that ended well", Match { container: Some("side".into()), ..any() }),
        ("container that is not there", Match { container: Some("none".into()), ..any() }),
        ("one of two", Match { exit_codes: codes(42, 42), message: pattern("absent"), ..any() }),
    ];
    for (name, asks) in no {
        assert_eq!(decider(vec![rule("r", asks)], &pod), None, "{name}");
    }
}

#[test]
fn the_first_match_decides_alone_and_completed_executions_ask_nobody() {
    let failed = pod(&failed_pod(terminated(42, "Error", ""), json!({})));
    let rules = || {
        let mut all = rule("all", Match::default());
        all.says.hint = Some("look".into());
        vec![
            rule("no", Match { exit_codes: codes(1, 1), ..Match::default() }),
            rule("yes", Match { exit_codes: codes(42, 42), ..Match::default() }),
            all,
        ]
    };
    let told = explain(&failed, None, late(), &with(rules()));
    let failure = told.verdict.unwrap().failure.unwrap();
    assert_eq!((failure.cause_name(), failure.cause, &failure.hint), ("of_yes", Cause::ExitCode, &None));
    let completed = pod(&failed_pod(terminated(0, "Completed", ""), terminated(1, "Error", "")));
    let told = explain(&completed, None, late(), &with(rules()));
    assert_eq!(told.verdict.unwrap().failure, None);
}

#[test]
fn rules_say_what_they_say_and_leave_the_rest() {
    let mut oom = rule("oom", Match { causes: vec![Cause::OomKilled], ..Match::default() });
    oom.says = Says { retryable: Some(true), category: Some("memory".into()), ..Says::default() };
    let killed = pod(&failed_pod(terminated(137, "OOMKilled", ""), json!({})));
    let plain = explain(&killed, None, late(), &with(vec![])).verdict.unwrap().failure.unwrap();
    let ruled = explain(&killed, None, late(), &with(vec![oom])).verdict.unwrap().failure.unwrap();
    assert_eq!(ruled.cause_name(), "oom_killed");
    assert!(ruled.hint.is_some() && ruled.hint == plain.hint && ruled.retryable && !plain.retryable);
    assert_eq!(ruled.ruled.unwrap().category.as_deref(), Some("memory"));
}

fn event_rules() -> Vec<Rule> {
    let asked = |reason: &str, message| Some(EventMatch { reasons: vec![reason.into()], message });
    let mut fallback = rule("fallback", Match::default());
    fallback.says.hint = Some("the fallback's".into());
    vec![
        rule("probe", Match { event: asked("Unhealthy", pattern("liveness")), ..Match::default() }),
        rule("other-code", Match { event: asked("BackOff", None), exit_codes: codes(1, 1), ..Match::default() }),
        rule("backoff", Match { event: asked("BackOff", None), ..Match::default() }),
        fallback,
        rule("after", Match { event: asked("Late", None), ..Match::default() }),
    ]
}

/// The rule, cause and hint of the end that is told when a capture ends with these events, by a replica with `finisher`.
fn finished(told: &Tracked, uid: &PodUid, events: Vec<KubernetesEvent>, finisher: &Rules) -> (String, Option<String>) {
    let captured = Captured { kubernetes_events: events, ..Captured::default() };
    let decision = step(uid, Some(told), Input::Captured { captured, now: late() }, finisher);
    assert_eq!(decision.tracked.unwrap().ruling, None, "what was told is not to be told again");
    let Body::Ended(ended) = decision.events.into_iter().next().unwrap().body else { panic!("no end") };
    let Ended { verdict, .. } = *ended;
    assert_eq!(verdict.outcome.event_type(), EventType::ExecutionFailed);
    let failure = verdict.failure.unwrap();
    (failure.ruled.unwrap().rule.into(), failure.hint.map(Into::into))
}

#[test]
fn whoever_finishes_the_job_tells_what_the_first_one_ruled() {
    let pod = pod(&failed_pod(terminated(42, "Error", ""), json!({})));
    let uid = pod.metadata.uid.clone();
    let own = with(event_rules());
    let seen = step(&uid, None, Input::Observed { pod: &pod, earlier: None, now: late() }, &own);
    // As the changelog hands it over.
    let json = serde_json::to_string(&seen.tracked.unwrap()).unwrap();
    let told: Tracked = serde_json::from_str(&json).unwrap();
    let ruling = told.ruling.as_deref().unwrap();
    assert_eq!(Some(&*ruling.rules_hash), own.user.hash());
    let names: Vec<&str> = ruling.candidates.iter().map(|c| &*c.rule).collect();
    assert_eq!(names, ["probe", "backoff", "fallback"], "none after the first that needs no Event");
    let other = with(vec![rule("other", Match::default())]);
    for finisher in [&own, &other, &with(vec![])] {
        let fallback = ("fallback".to_owned(), Some("the fallback's".to_owned()));
        assert_eq!(finished(&told, &uid, vec![], finisher), fallback);
        assert_eq!(finished(&told, &uid, vec![event("Unhealthy", "readiness probe failed")], finisher), fallback);
        let both = vec![event("BackOff", "again"), event("Unhealthy", "liveness probe failed")];
        assert_eq!(finished(&told, &uid, both, finisher), ("probe".to_owned(), None));
        assert_eq!(finished(&told, &uid, vec![event("BackOff", "")], finisher), ("backoff".to_owned(), None));
    }
}

#[test]
fn ends_that_nobody_saw_and_pods_that_never_ran_are_ruled_too() {
    let rules = with(vec![
        rule("lost", Match { causes: vec![Cause::Lost], message: pattern("vanished while"), ..Match::default() }),
        rule("image", Match { reasons: vec!["ErrImageNeverPull".into()], ..Match::default() }),
    ]);
    let mut running = failed_pod(json!({ "running": { "startedAt": STARTED } }), json!({}));
    running["status"]["phase"] = "Running".into();
    let running = pod(&running);
    let uid = running.metadata.uid.clone();
    let seen = step(&uid, None, Input::Observed { pod: &running, earlier: None, now: late() }, &rules).tracked;
    let going = Input::Gone { last: None, observed: false, followed: None, version: ResourceVersion(9), now: late() };
    let gone = step(&uid, seen.as_ref(), going, &rules);
    let rule_of = |event: &Event| match &event.body {
        Body::Ended(ended) => ended.verdict.failure.as_ref().and_then(|f| f.ruled.as_ref()).map(|r| r.rule.to_string()),
        _ => None,
    };
    assert_eq!(gone.events.iter().find_map(rule_of).as_deref(), Some("lost"));
    let waits = json!({ "waiting": { "reason": "ErrImageNeverPull", "message": "not present" } });
    let never_ran = pod(&failed_pod(waits, json!({})));
    let told = explain(&never_ran, None, late(), &rules);
    assert_eq!(told.events.iter().find_map(rule_of).as_deref(), Some("image"));
}

#[test]
fn the_hash_is_of_what_the_rules_mean_and_of_their_order() {
    let (a, b) = (rule("a", Match::default()), rule("b", Match { exit_codes: codes(1, 2), ..Match::default() }));
    let hash = |rules: Vec<Rule>| UserRules::new(rules).hash().map(str::to_owned);
    assert_eq!(hash(vec![]), None);
    assert_eq!(hash(vec![b.clone(), a.clone()]).unwrap(), "32b980b01eeb5aa9", "it must be the same in every release");
    assert_ne!(hash(vec![b.clone(), a.clone()]), hash(vec![a, b]));
}

#[test]
fn a_rule_covers_another_only_where_it_leaves_nothing_out() {
    let base = || Match::default();
    let in_main = Match { exit_codes: codes(1, 9), ..base() };
    let in_side = Match { container: Some("side".into()), ..in_main.clone() };
    let side = Match { container: Some("side".into()), ..base() };
    let narrow = Match { exit_codes: codes(2, 3), message: pattern("x"), ..base() };
    let causes = |causes: &[Cause]| Match { causes: causes.to_vec(), ..base() };
    let event = |message| Match { event: Some(EventMatch { reasons: vec![], message }), ..base() };
    let conditions = |reasons: &[&str]| Match { condition: condition("Ready", "True", reasons), ..base() };
    let cases = [
        (&base(), &in_side, true),
        (&in_main, &base(), false),
        (&in_main, &in_main.clone(), true),
        (&in_main, &narrow, true),
        (&narrow, &in_main, false),
        (&in_main, &in_side, false),
        (&in_side, &in_main, false),
        (&side, &in_side, false),
        (&in_side, &side, false),
        (&side, &Match { message: pattern("x"), ..side.clone() }, true),
        (&causes(&[Cause::Lost, Cause::Init]), &causes(&[Cause::Init]), true),
        (&causes(&[Cause::Init]), &causes(&[Cause::Lost, Cause::Init]), false),
        (&event(None), &event(pattern("x")), true),
        (&event(pattern("x")), &event(None), false),
        (&event(None), &base(), false),
        (&conditions(&[]), &conditions(&["a"]), true),
        (&conditions(&["a"]), &conditions(&[]), false),
    ];
    for (n, (wide, narrow, expected)) in cases.into_iter().enumerate() {
        assert_eq!(wide.covers(narrow), expected, "case {n}: {wide:?} {narrow:?}");
    }
}

#[test]
fn patterns_are_bounded_and_hard_ones_take_no_exponential_time() {
    assert!(Pattern::new(&"a".repeat(PATTERN_CHARS_MAX + 1)).unwrap_err().contains("longer than"));
    assert!(Pattern::new(r"(\w{100}){100}").unwrap_err().contains("bytes once compiled"));
    assert!(Pattern::new("(a").unwrap_err().starts_with("is no regular expression: unclosed group"));
    assert!(Pattern::new(&"(".repeat(200)).is_err());
    let evil = Pattern::new("^(a+)+$").unwrap();
    assert!(!evil.finds(&("a".repeat(100_000) + "!")) || TEXT_BYTES_MAX < 100_000);
    // Beyond the bound nothing is seen, and the bound never cuts a character.
    let text = "ä".repeat(TEXT_BYTES_MAX) + "end";
    assert!(!Pattern::new("end").unwrap().finds(&text));
    assert!(Pattern::new("(?i)GPU \\d+").unwrap().finds("gpu 7"));
}

proptest! {
    /// Whatever stands in a changelog record and in a pod.
    #[test]
    fn no_pod_and_no_ruling_panics_them(
        text in "(?s).{0,40}", reason in ".{0,10}", code: i32, from: i32, to: i32, phase in 0..4_usize,
    ) {
        let container = ["main", "side", "none"][phase % 3];
        let asks = Match {
            exit_codes: codes(from, to), container: Some(container.into()), message: pattern("a|b"),
            reasons: vec![reason.clone().into()], termination_message: pattern("."), ..Match::default()
        };
        let asked = Some(EventMatch { reasons: vec![], message: pattern("x") });
        let rules = with(vec![rule("e", Match { event: asked, ..Match::default() }), rule("r", asks), rule("all", Match::default())]);
        let mut value = failed_pod(terminated(code, &reason, &text), json!({ "waiting": { "message": text } }));
        value["status"]["phase"] = ["Failed", "Running", "Pending", "Succeeded"][phase].into();
        value["status"]["reason"] = reason.clone().into();
        explain(&pod(&value), None, late(), &rules);
        let words = EventWords { reasons: vec![reason.into()], message: Some(text.into()) };
        words.is_among(&[event("r", "m")]);
    }
}
