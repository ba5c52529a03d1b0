//! Laws of the plan, and what is refused.

use std::num::NonZeroU32;

use proptest::prelude::*;

use super::*;
use crate::{
    publish::identity::FORMAT,
    watch::pod::{PodUid, ResourceVersion},
};

fn shards(count: u32, by: ShardBy) -> Shards {
    Shards { count: NonZeroU32::new(count).unwrap(), by }
}

fn identity(shards: u32, by: ShardBy) -> Identity {
    Identity {
        cluster_id: "c".into(),
        lease_namespace: "ns".into(),
        lease_name: "pod-monitor".into(),
        generation: 1,
        shards,
        shard_by: by.as_str().into(),
        selector: "app=x".into(),
        namespaces: vec!["default".into()],
        format: FORMAT,
    }
}

fn wish(to: Shards) -> Wish {
    let (ours, base, holder) = (identity(0, ShardBy::Uid), "log".into(), "me".into());
    Wish { ours, base, count: to.count, by: Some(to.by), from: None, holder }
}

fn record(execution: &str, sequence: u32) -> Vec<u8> {
    serde_json::to_vec(&serde_json::json!({ "format": 1, "oldest_reader": 1, "resource_version": 7, "namespace": "ns",
        "pod_name": "p", "execution_id": execution, "sequence": sequence, "later": { "kept": true } }))
    .unwrap()
}

/// What a shard's changelog holds after these records and its own of itself.
fn held(identity: &Identity, position: &[(&str, u64)], records: &[(&str, Option<&[u8]>)]) -> Held {
    let mut held = Held::default();
    let streams = position.iter().map(|(name, version)| ((*name).to_owned(), ResourceVersion(*version)));
    let position = Position { term: 3, holder: "h".into(), streams: streams.collect() };
    held.take(0, Some(changelog::IDENTITY.as_bytes()), Some(&serde_json::to_vec(identity).unwrap()));
    held.take(1, Some(changelog::POSITION.as_bytes()), Some(&serde_json::to_vec(&position).unwrap()));
    for (offset, (key, value)) in (2..).zip(records) {
        held.take(offset, Some(key.as_bytes()), *value);
    }
    held
}

/// One pod's record, tombstone or garbage: number, execution, told, kind.
type Draw = (u8, u8, u8, u8);

/// Old shards in which each record stands where it belongs.
fn drawn(from: Shards, draws: &[Draw]) -> Vec<Held> {
    let mut old: Vec<Held> = (0..from.count.get())
        .map(|k| held(&identity(from.count.get(), from.by), &[("", 10 + u64::from(k))], &[]))
        .collect();
    for (offset, (number, execution, sequence, kind)) in (2..).zip(draws) {
        let (key, execution) = (format!("pod/u{number}"), format!("e{execution}"));
        let shard = from.of(&PodUid(format!("u{number}").into()), &execution).0 as usize;
        let value = match kind % 8 {
            0 => None,
            1 => Some(b"no json".to_vec()),
            _ => Some(record(&execution, u32::from(*sequence))),
        };
        old[shard].take(offset, Some(key.as_bytes()), value.as_deref());
    }
    old
}

fn written(new: &mut [Held], writes: &[Write<'_>]) {
    for write in writes {
        new[write.shard.0 as usize].take(0, Some(write.key.as_bytes()), write.value);
    }
}

fn values(new: &[Held]) -> Vec<BTreeMap<String, Vec<u8>>> {
    let of = |held: &Held| held.pods.iter().map(|(key, raw)| (key.clone(), raw.value.clone())).collect();
    new.iter().map(of).collect()
}

proptest! {
    #[test]
    fn each_record_stands_once_at_its_place_however_often_it_was_stopped(
        draws: Vec<Draw>, before: Vec<Draw>, from in 1u32..6, to in 1u32..6, by_execution: bool,
        stops in proptest::collection::vec(0usize..20, 0..4), records_max in 1usize..9, bytes_max in 1usize..2000,
    ) {
        let by = if by_execution { ShardBy::Execution } else { ShardBy::Uid };
        let readable: Vec<Draw> =
            draws.iter().map(|(n, e, s, kind)| (*n, *e, *s, if by_execution && kind % 8 == 1 { 2 } else { *kind })).collect();
        let old = drawn(shards(from, ShardBy::Uid), &readable);
        let wish = wish(shards(to, by));
        let found = identity(from, ShardBy::Uid);
        let plan = wish.plan(&found, &old).unwrap();
        prop_assert_eq!(plan.doubled, 0);

        // An earlier try left something behind, which may be anything.
        let mut new: Vec<Held> = drawn(shards(to, ShardBy::Uid), &before);
        for stop in stops {
            let at = new.clone();
            let writes = plan.differences(&at);
            written(&mut new, &writes[..stop.min(writes.len())]);
        }
        let at = new.clone();
        let writes = plan.differences(&at);
        let goes: Vec<_> = chunks(&writes, records_max, bytes_max).collect();
        prop_assert_eq!(goes.concat(), writes.clone());
        for go in goes {
            let bytes: usize = go.iter().map(|w| w.key.len() + w.value.map_or(0, <[u8]>::len)).sum();
            prop_assert!(go.len() == 1 || (go.len() <= records_max && bytes <= bytes_max));
            written(&mut new, go);
        }
        prop_assert_eq!(plan.differences(&new), vec![], "nothing is left to do");

        let all: BTreeMap<String, Vec<u8>> = values(&old).into_iter().flatten().collect();
        let moved = values(&new);
        prop_assert_eq!(moved.iter().map(BTreeMap::len).sum::<usize>(), all.len(), "none twice");
        for (shard, records) in moved.iter().enumerate() {
            for (key, value) in records {
                prop_assert_eq!(all.get(key), Some(value), "byte by byte");
                let execution = new[shard].pods[key].about.as_ref().map_or("", |about| &*about.execution_id);
                let place = wish.to(&found).of(&changelog::pod_of_key(key).unwrap(), execution);
                prop_assert_eq!(place.0 as usize, shard);
            }
        }
    }

    #[test]
    fn position_is_the_lowest_and_what_was_passed_is_inherited(
        reached in proptest::collection::vec((1u64..50, proptest::option::of(1u64..50)), 1..5), uid: u16, version in 1u64..60,
    ) {
        let from = shards(u32::try_from(reached.len()).unwrap(), ShardBy::Uid);
        let old: Vec<Held> = reached.iter().map(|(a, b)| {
            let mut streams = vec![("a", *a)];
            streams.extend(b.map(|b| ("b", b)));
            held(&identity(from.count.get(), from.by), &streams, &[])
        }).collect();
        let wish = wish(shards(7, ShardBy::Execution));
        let switch = wish.switch(&identity(from.count.get(), from.by), &old);
        let lowest = reached.iter().map(|(a, _)| *a).min().map(ResourceVersion);
        prop_assert_eq!(switch.position.streams.get("a").copied(), lowest);
        let everywhere = reached.iter().map(|(_, b)| *b).collect::<Option<Vec<u64>>>();
        let lowest_b = everywhere.and_then(|all| all.into_iter().min()).map(ResourceVersion);
        prop_assert_eq!(switch.position.streams.get("b").copied(), lowest_b, "only where every shard has it");
        prop_assert_eq!(switch.position.term, 3);
        // What the watch will bring again: beyond the new position, and worked through by the pod's old shard.
        let uid = PodUid(uid.to_string().into());
        let shard = from.of(&uid, "").0 as usize;
        let again = lowest.is_some_and(|lowest| ResourceVersion(version) > lowest);
        let inherited = switch.inherited.unwrap_or_default();
        let covered = inherited.covers(&uid, "whatever", "a", ResourceVersion(version));
        if again {
            prop_assert_eq!(covered, version <= reached[shard].0);
        }
    }
}

#[test]
fn who_remembers_more_of_a_pod_is_believed() {
    let (little, much) = (record("e", 1), record("e", 4));
    for order in [[&little, &much], [&much, &little]] {
        let of = |value: &[u8]| held(&identity(2, ShardBy::Execution), &[], &[("pod/u", Some(value))]);
        let old: Vec<Held> = order.iter().map(|value| of(value)).collect();
        let plan = wish(shards(1, ShardBy::Uid));
        let plan = plan.plan(&identity(2, ShardBy::Execution), &old).unwrap();
        assert_eq!((plan.doubled, plan.wanted[0]["pod/u"]), (1, much.as_slice()));
    }
}

#[test]
fn what_an_earlier_generation_passed_on_is_passed_on_again_while_it_counts() {
    let earlier = Former {
        shards: shards(2, ShardBy::Uid),
        positions: [10, 90].map(|v| BTreeMap::from([(String::new(), ResourceVersion(v))])).to_vec(),
    };
    let of = |position: u64, inherits: bool| {
        let mut held = held(&identity(2, ShardBy::Uid), &[("", position)], &[]);
        held.inherited = inherits.then(|| Inherited { generations: vec![earlier.clone()] });
        held
    };
    let kept = |old: [Held; 2]| {
        let switch = wish(shards(4, ShardBy::Uid)).switch(&identity(2, ShardBy::Uid), &old);
        switch.inherited.map(|inherited| inherited.generations.contains(&earlier))
    };
    assert_eq!(kept([of(10, true), of(10, true)]), Some(true), "nobody has run in between");
    assert_eq!(kept([of(95, false), of(10, true)]), Some(true), "one has passed it");
    assert_eq!(kept([of(5, false), of(10, true)]), Some(false), "one dropped it for a reset of the store");
    assert_eq!(kept([of(95, false), of(95, false)]), None, "all are beyond, and alike");
}

#[test]
fn another_selection_in_one_shard_leaves_no_position() {
    let other = Identity { selector: "app=y".into(), ..identity(2, ShardBy::Uid) };
    let old = [held(&identity(2, ShardBy::Uid), &[("", 5)], &[]), held(&other, &[("", 9)], &[])];
    let switch = wish(shards(1, ShardBy::Uid)).switch(&identity(2, ShardBy::Uid), &old);
    assert!(switch.position.streams.is_empty());
}

#[test]
fn what_must_not_be_resharded_is_refused_with_its_reason() {
    let one = || held(&identity(1, ShardBy::Uid), &[("", 5)], &[]);
    let to = |count| wish(shards(count, ShardBy::Uid));
    let said = |wish: &Wish, old: &[Held]| wish.standing(old).unwrap_err().to_string();
    let found = identity(1, ShardBy::Uid);
    let moved = Held { moved: Some(to(4).moved(&found)), ..one() };
    assert_eq!(to(4).standing(&[one()]), Ok(Standing::Due(identity(1, ShardBy::Uid))));
    assert_eq!(to(4).standing(std::slice::from_ref(&moved)), Ok(Standing::Done(to(4).moved(&found))));
    let kept = Wish { by: None, ..to(4) };
    assert_eq!(kept.standing(std::slice::from_ref(&moved)), Ok(Standing::Done(to(4).moved(&found))));
    assert_eq!(kept.to(&identity(2, ShardBy::Execution)).by, ShardBy::Execution, "as it is");
    let other = said(&to(5), &[moved]);
    assert!(other.contains("--shards 4 --generation 2") && other.contains("reshard --generation 2"), "{other}");
    assert!(said(&to(1), &[one()]).contains("there are 1 shards by uid already"));
    assert!(said(&to(4), &[Held::default()]).contains("Start the replicas with --shards 4 at once"));
    assert!(said(&Wish { from: Some(3), ..to(4) }, &[one()]).contains("from-shards is 3, but topic log has 1"));
    let foreign = Wish { ours: Identity { cluster_id: "d".into(), ..to(4).ours }, ..to(4) };
    assert!(said(&foreign, &[one()]).contains("cluster-id"), "{}", said(&foreign, &[one()]));
    let torn = [one(), one()];
    assert!(said(&to(4), &torn).contains("shards is \"2\" here"), "two partitions, and the record says one");
    let mut later = one();
    later.take(9, Some(b"meta/later"), Some(b"{}"));
    assert!(said(&to(4), &[later]).contains("record meta/later of shard 0"));
    let unknown = Identity { shard_by: "node".into(), ..identity(1, ShardBy::Uid) };
    let unknown = said(&to(4), &[held(&unknown, &[], &[])]);
    assert!(unknown.contains("record meta/identity of shard 0 cannot be read") && unknown.contains("shard-by"));
    let garbage = held(&identity(1, ShardBy::Uid), &[], &[("pod/u", Some(b"no json"))]);
    let by_execution = wish(shards(2, ShardBy::Execution));
    let refused = by_execution.plan(&found, std::slice::from_ref(&garbage)).unwrap_err().to_string();
    assert!(refused.contains("record pod/u of shard 0") && refused.contains("--shard-by uid"), "{refused}");
    assert_eq!(to(2).plan(&found, &[garbage]).unwrap().unreadable, 1);
}
