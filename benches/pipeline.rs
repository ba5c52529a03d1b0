//! Measures `decode + decide + encode` of watch events on one core, beside kube's typed decode of the same bytes:
//! `cargo bench --bench pipeline`. No server is needed.
//!
//! The input is the life of one pod as a real API server told it (tests/fixtures/life.jsonl: 9 lines of 6 KB),
//! multiplied by giving each copy a UID of its own. Rounds of both are interleaved; medians are printed.

#![allow(clippy::unwrap_used, clippy::disallowed_methods, reason = "a measuring program")]

use std::{collections::HashMap, hint::black_box, time::Instant};

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::Pod as TypedPod;
use kube::core::WatchEvent;
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
        pod::{Decoded, PodUid},
    },
};

const LIFE: &str = include_str!("../tests/fixtures/life.jsonl");
/// Copies of the life per round.
const PODS: usize = 2_000;
const ROUNDS: usize = 9;

struct Setting {
    rules: Rules,
    service: Service,
    now: Timestamp,
}

fn main() {
    let lines = lines();
    let bytes: usize = lines.iter().map(String::len).sum();
    let setting = Setting {
        rules: Rules {
            cluster_id: "0b0e7b3c-6d0e-4b8e-8d7e-2f4ad9a1c001".into(),
            ids: IdSources::default(),
            settle_grace: SignedDuration::from_secs(10),
            ..Rules::default()
        },
        service: Service { name: "pod-monitor".into(), version: "0".into(), environment: Some("bench".into()) },
        now: "2026-11-23T15:49:08Z".parse().unwrap(),
    };
    println!("{} watch events of {} bytes on average, {ROUNDS} rounds", lines.len(), bytes / lines.len());
    let (mut whole, mut slim, mut typed) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        whole.push(rate(&lines, |lines| pipeline(lines, &setting)));
        slim.push(rate(&lines, |lines| lines.iter().for_each(|line| drop(black_box(read_frame(line))))));
        typed.push(rate(&lines, |lines| {
            lines.iter().for_each(|line| drop(black_box(serde_json::from_str::<WatchEvent<TypedPod>>(line).unwrap())));
        }));
    }
    let (whole, slim, typed) = (median(whole), median(slim), median(typed));
    println!("decode + decide + encode       {whole:>9.0} events/s");
    println!("slim decode alone              {slim:>9.0} events/s");
    println!("kube's typed decode alone      {typed:>9.0} events/s");
    println!("whole pipeline / typed decode  {:>9.2}", whole / typed);
}

/// Every life of a round, interleaved as a busy watch would bring them.
fn lines() -> Vec<String> {
    let life: Vec<&str> = LIFE.lines().collect();
    let first: serde_json::Value = serde_json::from_str(life[0]).unwrap();
    let uid = first["object"]["metadata"]["uid"].as_str().unwrap();
    let copies = |line: &&str| {
        (0..PODS).map(|n| line.replace(uid, &format!("{n:08}-aaaa-4bbb-8ccc-ddddeeeeffff"))).collect::<Vec<_>>()
    };
    life.iter().flat_map(copies).collect()
}

fn rate(lines: &[String], run: impl FnOnce(&[String])) -> f64 {
    let begun = Instant::now();
    run(lines);
    lines.len() as f64 / begun.elapsed().as_secs_f64()
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// What the worker does with each line, without the parts that wait: read, decide, remember, write the event.
fn pipeline(lines: &[String], setting: &Setting) {
    let mut told: HashMap<PodUid, Tracked> = HashMap::with_capacity(PODS);
    let mut events = 0;
    let mut out = Vec::with_capacity(4096);
    for line in lines {
        let (pod, gone) = match read_frame(line) {
            Frame::Applied(Decoded::Whole(pod)) => (pod, false),
            Frame::Deleted(Decoded::Whole(pod)) => (pod, true),
            other => panic!("{other:?}"),
        };
        let (uid, now) = (pod.metadata.uid.clone(), setting.now);
        let version = pod.metadata.resource_version;
        let input = match gone {
            true => Input::Gone { last: Some(&pod), observed: true, followed: None, version, now },
            false => Input::Observed { pod: &pod, earlier: None, now },
        };
        let mut decision = step(&uid, told.get(&uid), input, &setting.rules);
        loop {
            let Decision { events: new, tracked, capture, .. } = decision;
            for event in &new {
                out.clear();
                write_value(&mut out, event, &setting.service).unwrap();
                black_box(&out);
            }
            events += new.len();
            if let Some(tracked) = tracked {
                told.insert(uid.clone(), tracked);
            }
            if capture.is_none() {
                break;
            }
            let captured =
                Captured { stdout: Some("hello\n".into()), stderr: Some("oops\n".into()), ..Captured::default() };
            decision = step(&uid, told.get(&uid), Input::Captured { captured, now }, &setting.rules);
        }
    }
    assert_eq!(events, PODS * 4, "each life tells four events");
}
