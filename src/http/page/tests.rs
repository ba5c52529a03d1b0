use std::collections::VecDeque;

use base64::{Engine as _, prelude::BASE64_STANDARD};
use sha2::{Digest as _, Sha256};

use super::*;
use crate::http::status::{
    Check, EXECUTIONS_MAX, Ends, Execution, HAND_OVERS_MAX, HandOver, Measured, Member, Missing, Reached, ShardStatus,
    Shown,
};

/// Of the whole page with eight shards and fifty executions.
const PAGE_BYTES_MAX: usize = 30_000;
const EVIL: &str = "<script>alert('x')</script>\"><img src=x onerror=y>&\u{1b}\u{202e}";

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(1_767_323_045 + second).expect("a time")
}

fn status(shown: Shown) -> Status {
    let members = vec![Member { identity: shown.identity.clone(), this: true, ..Member::default() }];
    Status { at: at(0), shown, ready: true, live: true, checks: vec![], stuck: vec![], members }
}

fn shard(role: &'static str, holder: Option<&str>) -> ShardStatus {
    ShardStatus { role, holder: holder.map(str::to_owned), ..ShardStatus::default() }
}

fn of(shards: Vec<ShardStatus>) -> Status {
    status(Shown { identity: "me".into(), shards, ..Shown::default() })
}

fn part(status: &Status, id: &str) -> String {
    parts(status).into_iter().find(|(known, _)| *known == id).expect("a part").1
}

fn waiting(name: &'static str, ms: u64) -> Check {
    Check { name: name.into(), ok: false, why: Some("no".into()), waits_ms: Some(ms) }
}

fn hand_over(second: i64, holder: &str, from: &str) -> HandOver {
    let legs = [("acquired", 8.1), ("fenced", 40.2), ("barrier", 52.9), ("restored", 53.4), ("watching", 55.0)];
    let legs = legs.into_iter().chain([("reconciled", 71.4), ("first_commit", 92.3)]);
    let legs = legs.map(|(leg, ms)| Reached { leg, ms }).collect();
    let measured = Measured { term: 12, why: "dead", gap_ms: 105.3, silence_ms: 13.0, legs };
    HandOver { at: at(second), holder: holder.into(), from: Some(from.into()), measured: Some(measured) }
}

/// As long as names are in earnest.
fn crowded() -> Status {
    let replica = |n: u32| format!("pod-monitor-55786b7987-8mhp{n}_cee0b9d6");
    let one = |number: u32| ShardStatus {
        shard: number,
        role: if number == 0 { "live" } else { "standby" },
        holder: Some(replica(number % 3)),
        term: Some(117),
        tracked_pods: Some(12_345),
        lag_records: (number > 0).then_some(3),
        waiting_pods: (number == 0).then_some(12),
        since: Some(at(-90_000)),
        hand_overs: (0..HAND_OVERS_MAX as i64).map(|n| hand_over(-n, &replica(0), &replica(1))).collect(),
        ..ShardStatus::default()
    };
    let execution = |number: u64| Execution {
        number,
        at: at(-7),
        namespace: "executions".into(),
        pod_name: format!("exec-8c7f3b1e-5a5d-4a55-9d3b-0d7c2f6f8{number:03}").into(),
        execution_id: format!("8c7f3b1e-5a5d-4a55-9d3b-0d7c2f6f8{number:03}").into(),
        verdict: ["completed", "failed", "timeout"][number as usize % 3],
        cause: Some("oom_killed".into()),
        exit_code: Some(137),
        duration_seconds: Some(4.8),
        logs: "complete",
        ..Execution::default()
    };
    let checks = ["kafka", "kubernetes", "lease"].into_iter().flat_map(|name| {
        (0..8).map(move |shard| Check {
            name: format!("{name}/{shard}").into(),
            ok: shard != 3,
            why: None,
            waits_ms: None,
        })
    });
    let causes = [("exit_code", 3), ("oom_killed", 2)].into();
    let shown = Shown {
        version: "0.1.0".into(),
        identity: replica(0),
        started_at: Some(at(-100_000)),
        selector: "app=executor".into(),
        sink: "kafka kafka.kafka.svc:9092 topic pod-monitor.events".into(),
        shards: (0..8).map(one).collect(),
        elects: true,
        ends: Ends { completed: 12_345, failed: 678, timeout: 9, causes },
        executions: (0..EXECUTIONS_MAX as u64).map(execution).collect(),
        ..Shown::default()
    };
    let member =
        |n| Member { identity: replica(n), this: n == 0, holds: vec![n, n + 3], able: Some(true), lag_records: None };
    Status { checks: checks.collect(), members: (0..3).map(member).collect(), ..status(shown) }
}

#[test]
fn a_replica_that_could_not_follow_at_once_says_how_far_behind_it_is() {
    let of = |lag_records| {
        let member = Member { identity: "b".into(), able: Some(true), lag_records, ..Member::default() };
        part(&Status { members: vec![member], ..status(Shown::default()) }, "replicas")
    };
    assert!(of(Some(1200)).contains("yes</span>, 1200 records behind"), "{}", of(Some(1200)));
    assert!(of(Some(1)).contains(", 1 record behind") && !of(Some(0)).contains("behind"));
}

#[test]
fn the_page_is_small_also_when_it_is_full() {
    let page = render(&crowded());
    assert!(page.len() < PAGE_BYTES_MAX, "{} bytes", page.len());
    for seen in ["exec-8c7f3b1e-5a5d-4a55-9d3b-0d7c2f6f8049", "<tr id=\"s7\">", "gap 105 ms", "oom_killed <b>2</b>"] {
        assert!(page.contains(seen), "no {seen} in {page}");
    }
}

#[test]
fn the_browser_is_told_the_digests_of_our_style_and_our_script() {
    for (text, said) in [(STYLE, STYLE_SHA256), (SCRIPT, SCRIPT_SHA256)] {
        assert!(!text.contains("</"), "it would end its own element");
        assert_eq!(
            BASE64_STANDARD.encode(Sha256::digest(text.as_bytes())),
            said,
            "of a file that begins with {:.40}",
            text
        );
    }
    let (page, policy) = (render(&crowded()), policy());
    assert!(page.contains(&format!("<style>{STYLE}</style>")) && page.contains(&format!("<script>{SCRIPT}</script>")));
    assert!(policy.starts_with("default-src 'none'; ") && !policy.contains("unsafe"), "{policy}");
    let foreign = ["http://", "https://", "//", "style=", "onclick", "url(", "@import"];
    let outside = page.replace(SCRIPT, "");
    let found = foreign.iter().find(|word| outside.contains(**word));
    assert_eq!(found, None, "nothing is loaded, and nothing is styled or run where the policy forbids it");
}

#[test]
fn a_shard_without_a_leader_and_one_with_two_stand_out() {
    let page = |one| part(&of(vec![one]), "shards");
    assert!(page(shard("standby", None)).contains("<td class=\"name bad\">\u{2717} nobody</td>"));
    assert!(page(shard("live", Some("other"))).contains("bad\">\u{2717} other, and this replica acts too</td>"));
    for fine in [shard("standby", Some("other")), shard("live", Some("me")), shard("draining", Some("other"))] {
        assert!(!page(fine).contains("bad"));
    }
}

#[test]
fn the_verdict_is_what_weighs_most_and_its_words_are_no_colours() {
    let leads = || of(vec![shard("live", Some("me"))]);
    let with = |change: fn(&mut Status)| {
        let mut status = leads();
        change(&mut status);
        part(&status, "verdict")
    };
    let waits = |s: &mut Status| s.checks = vec![waiting("kafka", 60_000)];
    let cut = |s: &mut Status| {
        s.shown.elects = true;
        s.members.push(Member { identity: "b".into(), able: Some(false), ..Member::default() });
    };
    let warm = |s: &mut Status| {
        s.shown.elects = true;
        s.members.push(Member { identity: "b".into(), able: Some(false), ..Member::default() });
        s.members.push(Member { identity: "c".into(), able: Some(true), ..Member::default() });
    };
    let cases: [(&str, String, &str, &str); 12] = [
        ("leads", with(|_| {}), "Good", "The shard is led by this replica."),
        (
            "stands by",
            part(&of(vec![shard("standby", Some("b"))]), "verdict"),
            "Good, as far as seen from here",
            "stands by",
        ),
        ("free", with(|s| s.shown.shards[0] = shard("standby", None)), "Bad", "Nobody leads shard 0."),
        ("two", with(|s| s.shown.shards[0].holder = Some("b".into())), "Bad", "this replica acts too"),
        ("drains", with(|s| s.shown.shards[0] = shard("draining", Some("b"))), "Look", "this replica is draining."),
        ("stuck", with(|s| (s.live, s.stuck) = (false, vec!["worker"])), "Bad", "does not turn: worker"),
        ("lost", with(|s| s.shown.missing.pods = 1), "Bad", "Of 1 pod nothing more is told"),
        ("slow", with(|s| s.shown.shards[0].kafka_waits_ms = Some(4000)), "Look", "Kafka does not answer"),
        ("waits", with(waits), "Look", "not ready: kafka: no."),
        ("alone", with(|s| s.shown.elects = true), "Look", "Nobody stands by"),
        ("cut off", with(cut), "Look", "Nobody could take over: no standby reaches Kafka"),
        ("one is warm", with(warm), "Good", "The shard is led by this replica."),
    ];
    for (name, html, word, sentence) in cases {
        assert!(html.contains(&format!("{word}</b>")) && html.contains(sentence), "{name}: {html}");
    }
}

#[test]
fn what_should_be_over_soon_weighs_more_once_it_lasts() {
    let with = |change: &dyn Fn(&mut Status)| {
        let mut status = of(vec![shard("live", Some("me"))]);
        change(&mut status);
        verdict::judge(&status)
    };
    let kafka = |ms: u64| with(&|s| s.shown.shards[0].kafka_waits_ms = Some(ms));
    assert_eq!(kafka(60_000).0, verdict::Level::Look);
    assert_eq!(kafka(60_001), (verdict::Level::Bad, kafka(600_000).1), "said once, and not with each second");
    let hands = |seconds: i64| {
        with(&|s| {
            let changing_since = Some(at(-seconds));
            s.shown.shards[0] = ShardStatus { changing_since, ..shard("reconciling", Some("me")) };
        })
    };
    assert_eq!(
        [hands(-5).0, hands(60).0, hands(61).0],
        [verdict::Level::Look, verdict::Level::Look, verdict::Level::Bad]
    );
    let check = |ms: u64| with(&|s| s.checks = vec![waiting("lease", 3), waiting("kafka", ms)]);
    assert!(check(60_000).0 == verdict::Level::Look && check(2).1.contains("lease"));
    assert_eq!(check(61_000), (verdict::Level::Bad, check(99_000).1));
    assert!(check(61_000).1.contains("for more than a minute: kafka: no."));
    let drift = |seconds: i64| with(&|s| (s.shown.missing.drift, s.shown.missing.drift_at) = (1, Some(at(-seconds))));
    assert_eq!([drift(1799).0, drift(1800).0], [verdict::Level::Look, verdict::Level::Good], "it was told long since");
}

#[test]
fn a_standby_says_nothing_of_what_it_cannot_know() {
    let mut standby = of(vec![shard("standby", Some("<b")), shard("standby", Some("a")), shard("standby", Some("a"))]);
    let numbers = part(&standby, "numbers");
    assert_eq!(numbers.matches("<b>–</b> <small>known by whoever leads: ask &lt;b, a</small>").count(), 2, "{numbers}");
    let said = part(&standby, "verdict");
    assert!(said.contains("All 3 shards are led; this replica stands by and knows of their Leases only."), "{said}");
    standby.shown.missing.output = 1;
    standby.shown.ends.failed = 1;
    let numbers = part(&standby, "numbers");
    assert!(numbers.contains("<b>1</b> <small>executions, told by this replica"), "{numbers}");
    assert!(numbers.contains("while this replica led; what is now: known by whoever leads: ask"), "{numbers}");
    standby.shown.missing.output = 0;
    standby.shown.shards[1] = shard("live", Some("me"));
    assert!(part(&standby, "numbers").contains("<b>0</b> <small>what this replica told was whole, and in time<"));
    let leader = of(vec![shard("live", Some("me"))]);
    assert!(part(&leader, "numbers").contains("<b>0</b> <small>everything was told whole, and in time<"));
    let lost = part(&of(vec![shard("standby", None)]), "numbers");
    assert!(lost.contains("<small>known by whoever leads<"), "{lost}");
}

#[test]
fn words_that_are_read_aloud_do_not_change_with_every_number() {
    let mut busy = crowded();
    let before = part(&busy, "verdict");
    busy.shown.shards[0].waiting_pods = Some(900);
    busy.shown.shards[1].lag_records = Some(7);
    busy.shown.ends.completed += 1;
    assert_eq!(part(&busy, "verdict"), before);
    assert_ne!(part(&busy, "numbers"), part(&crowded(), "numbers"));
}

#[test]
fn a_hand_over_is_drawn_as_wide_as_its_parts_and_said_in_words() {
    let mut one = shard("live", Some("me"));
    one.hand_overs = VecDeque::from([
        HandOver { at: at(-1), holder: "b".into(), from: Some("me".into()), measured: None },
        hand_over(-2, "me", "a"),
    ]);
    let html = part(&of(vec![one]), "hand-overs");
    assert!(
        html.contains("its legs are on that replica&#39;s page") || html.contains("on that replica's page"),
        "{html}"
    );
    for words in
        ["<b>gap 105 ms</b>, the one before died", "from <span class=\"name\">a</span>", "Term 12", "fence 32 ms"]
    {
        assert!(html.contains(words), "no {words} in {html}");
    }
    let paths: Vec<&str> = html.split("<path ").skip(1).collect();
    // 105.3 ms are 1000 units, of which a hairline takes two.
    assert!(paths[0].starts_with("class=\"l0\" d=\"M0 5h121\""), "{paths:?}");
    assert!(paths[1].starts_with("class=\"l1\" d=\"M123 5h75"), "{paths:?}");
    assert_eq!(paths.len(), 8);
    assert!(part(&of(vec![]), "hand-overs").contains("No shard changed hands"));
}

#[test]
fn a_take_over_that_was_given_up_is_not_under_way() {
    let said = |role, holder, newest: &str| {
        let mut one = shard(role, Some(holder));
        let open = |second, holder: &str| HandOver { at: at(second), holder: holder.into(), ..HandOver::default() };
        one.hand_overs = VecDeque::from([open(-1, newest), open(-9, "me")]);
        part(&of(vec![one]), "hand-overs")
    };
    let begun = said("reconciling", "me", "me");
    assert_eq!((begun.matches(": under way").count(), begun.matches(": given up").count()), (1, 1), "{begun}");
    for over in [said("standby", "me", "me"), said("reconciling", "b", "me"), said("live", "me", "b")] {
        assert!(!over.contains("under way") && over.contains(": given up before its first commit"), "{over}");
    }
}

#[test]
fn hand_overs_of_many_shards_are_bounded_and_the_newest_come_first() {
    let html = part(&crowded(), "hand-overs");
    assert_eq!(html.matches("<details").count(), 8);
    let newest = format!("<details id=\"h0-{}\"", at(0).as_millisecond());
    assert!(html.contains("32 older ones") && html.find("<details") == html.find(&newest), "{html}");
}

#[test]
fn a_day_is_named_only_where_it_is_not_this_one() {
    assert_eq!(time(at(-1), at(0), ""), "<time datetime=\"2026-01-02T03:04:04Z\">03:04:04</time>");
    assert!(time(at(-86_400), at(0), "age").ends_with("class=\"age\">2026-01-01 03:04:05</time>"));
}

#[test]
fn numbers_are_for_people() {
    assert_eq!([took(3.21), took(104.6), took(4512.0)], ["3.2 ms", "105 ms", "4.51 s"]);
    assert_eq!([count(1, "pod", "pods"), count(0, "pod", "pods")], ["1 pod", "0 pods"]);
}

#[test]
fn foreign_text_stays_text_wherever_it_stands() {
    let evil = || EVIL.to_owned();
    let mut one = ShardStatus { holder: Some(evil()), ..shard("live", None) };
    one.hand_overs = VecDeque::from([
        HandOver { at: at(-1), holder: evil(), from: Some(evil()), measured: None },
        hand_over(-2, EVIL, EVIL),
    ]);
    let execution = Execution {
        namespace: EVIL.into(),
        pod_name: EVIL.into(),
        execution_id: EVIL.into(),
        cause: Some(EVIL.into()),
        verdict: "failed",
        ..Execution::default()
    };
    let shown = Shown {
        identity: evil(),
        version: evil(),
        selector: evil(),
        sink: evil(),
        shards: vec![one],
        executions: VecDeque::from([execution]),
        missing: Missing { output: 1, drift: 1, drift_at: Some(at(0)), pods: 1 },
        ..Shown::default()
    };
    let members = vec![Member { identity: evil(), ..Member::default() }];
    let check = |ok| Check { name: EVIL.into(), ok, why: Some(evil()), waits_ms: None };
    let mut status = Status { checks: vec![check(false), check(true)], members, ..status(shown) };
    for _ in 0..2 {
        let page = render(&status).replace(&format!("<script>{SCRIPT}</script>"), "");
        assert!(!page.contains("<script") && !page.contains("<img") && !page.contains("onerror=y>"), "{page}");
        assert!(!page.contains('\u{1b}') && !page.contains('\u{202e}'), "{page}");
        assert!(page.contains("&lt;img src=x onerror=y&gt;&amp;U+001BU+202E"), "{page}");
        // The verdict quotes the check that waits, once nothing weighs more.
        (status.shown.missing, status.shown.shards) = (Missing::default(), vec![]);
    }
}
