//! What a watch event may allocate on its way through the monitor: a regression limit, the same on every machine.
//!
//! The life of one pod as a real API server told it; allocations are counted on this thread alone, so that nothing else
//! that the process does is in them.

#![allow(clippy::unwrap_used, reason = "a test may stop at the first surprise")]

use jiff::SignedDuration;
use pod_monitor::{
    lifecycle::{
        decide::{Decision, Input, step},
        event::Captured,
        identity::IdSources,
        rules::Rules,
        tracked::Tracked,
    },
    publish::record::{Service, write_value},
    watch::{
        frame::{Frame, read_frame},
        pod::{Decoded, Pod},
    },
};
use testkit::counting::{self, Counting};

#[global_allocator]
static ALLOCATOR: Counting = Counting;

const LIFE: &str = include_str!("fixtures/life.jsonl");

/// Of reading the nine events of a life, on average; kube's typed decode takes 277 for one.
const DECODE_MAX: f64 = 20.0;
/// Of all that is done with them: reading, deciding, and writing its four events.
const WHOLE_MAX: f64 = 35.5;

fn rules() -> Rules {
    let settle_grace = SignedDuration::from_secs(10);
    Rules { cluster_id: "c".into(), ids: IdSources::default(), settle_grace, ..Rules::default() }
}

/// Counts what `work` allocates.
fn counted<T>(work: impl FnOnce() -> T) -> (u64, T) {
    counting::start();
    let before = counting::made();
    let done = work();
    (counting::made() - before, done)
}

fn read(line: &str) -> (Box<Pod>, bool) {
    match read_frame(line) {
        Frame::Applied(Decoded::Whole(pod)) => (Box::new(pod), false),
        Frame::Deleted(Decoded::Whole(pod)) => (Box::new(pod), true),
        other => panic!("{other:?}"),
    }
}

/// One event through decide and encode; how many events were told.
fn tell(
    pod: &Pod,
    gone: bool,
    told: &mut Option<Tracked>,
    rules: &Rules,
    service: &Service,
    out: &mut Vec<u8>,
) -> usize {
    let now = "2026-11-23T15:49:08Z".parse().unwrap();
    let uid = pod.metadata.uid.clone();
    let version = pod.metadata.resource_version;
    let input = match gone {
        true => Input::Gone { last: Some(pod), observed: true, followed: None, version, now },
        false => Input::Observed { pod, earlier: None, now },
    };
    let mut decision = step(&uid, told.as_ref(), input, rules);
    let mut events = 0;
    loop {
        let Decision { events: new, tracked, capture, .. } = decision;
        events += new.len();
        for event in &new {
            out.clear();
            write_value(out, event, service).unwrap();
        }
        *told = tracked.or(told.take());
        if capture.is_none() {
            return events;
        }
        let captured = Captured { stdout: Some("hello\n".into()), ..Captured::default() };
        decision = step(&uid, told.as_ref(), Input::Captured { captured, now }, rules);
    }
}

#[test]
fn a_watch_event_allocates_no_more_than_it_did() {
    let (rules, mut out) = (rules(), Vec::with_capacity(64 << 10));
    let service = Service { name: "pod-monitor".into(), version: "0".into(), environment: None };
    // Once before: what is made at the first use alone is not counted.
    for line in LIFE.lines() {
        let (pod, gone) = read(line);
        tell(&pod, gone, &mut None, &rules, &service, &mut out);
    }
    let (mut decode, mut whole, mut events, mut told) = (0, 0, 0, None);
    for line in LIFE.lines() {
        let (reading, (pod, gone)) = counted(|| read(line));
        let (telling, new) = counted(|| tell(&pod, gone, &mut told, &rules, &service, &mut out));
        println!("{reading:>4} + {telling:>4} allocations, {new} events");
        (decode, whole, events) = (decode + reading, whole + reading + telling, events + new);
    }
    assert_eq!(events, 4, "a life tells four events");
    let lines = LIFE.lines().count() as f64;
    let (decode, whole) = (decode as f64 / lines, whole as f64 / lines);
    println!("per watch event: {decode:.1} to decode, {whole:.1} altogether");
    assert!(decode <= DECODE_MAX, "decoding allocates {decode:.1} times per event, the limit is {DECODE_MAX}");
    assert!(whole <= WHOLE_MAX, "a watch event allocates {whole:.1} times, the limit is {WHOLE_MAX}");
}
