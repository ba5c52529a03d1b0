//! Records of the changelog: read, written, read again, restored, and acted on as a successor does.
//!
//! Pairs of lines: a key and a value; an empty value is a tombstone.

use std::sync::Arc;

use pod_monitor::{
    lifecycle::{
        decide::Input,
        event::{Captured, Logs, LogsStatus},
        tracked::Tracked,
    },
    logs::reason,
    publish::{
        changelog::{self, Entry},
        restore::Restored,
    },
    watch::pod::{Decoded, Pod, PodUid, ResourceVersion, decode},
};
use serde::{Serialize, de::DeserializeOwned};

use super::{
    life::{self, Life, late},
    recordings, told,
};

/// Most records that count.
const RECORDS_MAX: usize = 16;

pub(super) fn run(data: &[u8]) {
    let lines: Vec<&[u8]> = data.split(|byte| *byte == b'\n').collect();
    let mut entries = Vec::new();
    for pair in lines.chunks(2).take(RECORDS_MAX) {
        let value = pair.get(1).copied().filter(|value| !value.is_empty());
        let entry = changelog::decode(Some(pair[0]), value);
        assert_eq!(entry, changelog::decode(Some(pair[0]), value), "the same bytes are the same record");
        survives(&entry);
        if let Entry::Pod(uid, Some(tracked)) = &entry {
            acted_on(uid, tracked, value.map_or(0, <[u8]>::len));
        }
        entries.push(entry);
    }
    restored(entries);
}

/// Decoded, encoded, decoded: the same.
fn survives(entry: &Entry) {
    match entry {
        Entry::Pod(uid, Some(tracked)) => {
            let read = told::remembered(uid, tracked);
            assert_eq!(read, **tracked);
        }
        Entry::Identity(identity) => same(identity),
        Entry::Position(position) => same(position),
        Entry::Barrier(barrier) => same(barrier),
        Entry::Moved(moved) => same(moved),
        Entry::Inherited(Some(inherited)) => same(inherited),
        Entry::Pod(_, None) | Entry::Inherited(None) => {}
        Entry::Unreadable(unreadable) => assert!(!unreadable.to_string().is_empty()),
    }
}

fn same<T: Serialize + DeserializeOwned + PartialEq + std::fmt::Debug>(value: &T) {
    let bytes = serde_json::to_vec(value).expect("what was read can be written");
    assert_eq!(*value, serde_json::from_slice::<T>(&bytes).expect("what was written can be read"));
}

/// The newest record of each key counts, and an unreadable one is no older record.
fn restored(entries: Vec<Entry>) {
    let mut newest = std::collections::BTreeMap::new();
    for entry in &entries {
        match entry {
            Entry::Pod(uid, tracked) => drop(newest.insert(uid.clone(), tracked.as_deref().cloned())),
            Entry::Unreadable(unreadable) => drop(unreadable.pod().and_then(|uid| newest.insert(uid, None))),
            Entry::Identity(_) | Entry::Position(_) | Entry::Barrier(_) | Entry::Moved(_) | Entry::Inherited(_) => {}
        }
    }
    let restored = Restored::of(entries);
    assert!(restored.next_term() > 0);
    newest.retain(|_, tracked| tracked.is_some());
    assert_eq!(restored.told.len(), newest.len());
    for (uid, tracked) in newest {
        assert_eq!(restored.told.get(&uid).map(|kept| kept.unpack()), tracked);
    }
}

/// What a successor does with the record: sees the pod, hears of its capture, of time, of its going.
fn acted_on(uid: &PodUid, tracked: &Tracked, record_bytes: usize) {
    let rules = life::rules(Arc::default());
    // What it holds already it may go on to hold.
    let room = told::record_bytes(uid, tracked).max(record_bytes) + pod_monitor::publish::record::REST_BYTES_MAX;
    let restored = || Life::restored(uid.clone(), tracked.clone(), room);
    let mut gone_at_once = restored();
    gone_at_once.lose(None, late(), &rules);
    let mut pod = sample();
    pod.metadata.uid = uid.clone();
    let mut life = restored();
    life.feed(Input::Tick { now: late() }, &rules);
    if life.is_capturing() {
        life.captured(captured(), late(), &rules);
    }
    for version in [0, tracked.resource_version.0, u64::MAX] {
        pod.metadata.resource_version = ResourceVersion(version);
        life.see(&pod, None, late(), &rules);
        life.feed(Input::Left { version: ResourceVersion(version) }, &rules);
        life.feed(Input::Tick { now: late() }, &rules);
        life.see(&pod, None, late(), &rules);
    }
    if life.is_capturing() {
        life.captured(captured(), late(), &rules);
    }
    life.lose(Some(&pod), late(), &rules);
}

fn captured() -> Captured {
    let logs = Logs { status: LogsStatus::Unavailable, reason: Some(reason::POD_GONE.into()), ..Logs::default() };
    Captured { logs, ..Captured::default() }
}

/// A pod that failed.
fn sample() -> Pod {
    let text = r#"{"metadata":{"uid":"u","name":"exec-1","namespace":"runs","resourceVersion":"7","creationTimestamp":"2026-11-25T10:00:00Z"},
        "spec":{"nodeName":"node-1","restartPolicy":"Never","containers":[{"name":"main"}]},
        "status":{"phase":"Failed","startTime":"2026-11-25T10:00:01Z","containerStatuses":[{"name":"main","restartCount":0,
        "state":{"terminated":{"exitCode":3,"reason":"Error","startedAt":"2026-11-25T10:00:02Z","finishedAt":"2026-11-25T10:00:09Z"}}}]}}"#;
    match decode(text) {
        Decoded::Whole(pod) => pod,
        other => panic!("{other:?}"),
    }
}

pub(super) fn seeds() -> Vec<Vec<u8>> {
    let meta = [
        "meta/identity\n{\"cluster_id\":\"c\",\"lease_namespace\":\"ns\",\"lease_name\":\"pod-monitor\",\"generation\":1,\"shards\":2,\"shard_by\":\"uid\",\"selector\":\"app=x\",\"namespaces\":[\"default\"],\"format\":1}",
        "meta/position\n{\"term\":4,\"holder\":\"pod-monitor-1_a\",\"streams\":{\"\":100,\"runs\":7}}",
        "meta/barrier\n{\"nonce\":\"n\",\"holder\":\"h\"}",
        "pod/gone\n",
        "pod/later\n{\"format\":2,\"oldest_reader\":2,\"resource_version\":{\"x\":1}}",
    ];
    let mut seeds = vec![meta.join("\n").into_bytes()];
    seeds.extend(meta.map(|record| record.as_bytes().to_vec()));
    let rules = life::rules(Arc::default());
    for recording in recordings::all() {
        // What is remembered after each of its lines: as many records as a changelog would have of it.
        let mut records = Vec::new();
        let mut life: Option<Life> = None;
        for line in recording.lines() {
            let Ok(value) = serde_json::from_str::<serde_json::Value>(line) else { continue };
            let (Some(pod), _) = decode(&value["object"].to_string()).split() else { continue };
            let uid = pod.metadata.uid.clone();
            let now = value["at"].as_str().and_then(|at| at.parse().ok()).unwrap_or_else(late);
            let life = life.get_or_insert_with(|| Life::new(uid.clone()));
            if life.uid != uid {
                continue;
            }
            life.feed(Input::Observed { pod: &pod, earlier: None, now }, &rules);
            let Some(told) = &life.told else { continue };
            let mut bytes = Vec::new();
            changelog::write_tracked(&mut bytes, &uid, told).expect("what is decided can be remembered");
            records.push(format!("{}\n{}", changelog::pod_key(&uid), String::from_utf8(bytes).unwrap()));
        }
        records.dedup();
        seeds.push(records.join("\n").into_bytes());
        // The last one among others, as a tail reads it.
        let Some(last) = records.pop() else { continue };
        let other = meta[seeds.len() % meta.len()];
        seeds.push([other, &last, meta[1]].join("\n").into_bytes());
    }
    seeds
}
