//! The steps, with a death before or after each of them.

use std::num::NonZeroU32;

use super::*;
use crate::{
    leadership::tenure::ShardId,
    lifecycle::rules::ShardBy,
    publish::{Position, changelog, identity::FORMAT},
    sharding::ranges::Shards,
    watch::pod::{PodUid, ResourceVersion},
};

/// What outlives a death.
#[derive(Clone, Default)]
struct World {
    old: Vec<Held>,
    new: Vec<Held>,
}

/// Books that are there for so many calls.
struct Mortal<'a> {
    world: &'a mut World,
    calls_left: usize,
    /// Dies after the effect of its last call, not before it.
    late: bool,
    calls: Vec<&'static str>,
}

#[derive(Debug, thiserror::Error)]
#[error("dead at {0}")]
struct Dead(&'static str);

impl Mortal<'_> {
    fn call<T>(&mut self, what: &'static str, effect: impl FnOnce(&mut World) -> T) -> Result<T, Dead> {
        self.calls.push(what);
        if self.calls_left == 0 {
            if self.late {
                effect(self.world);
            }
            return Err(Dead(what));
        }
        self.calls_left -= 1;
        Ok(effect(self.world))
    }
}

impl Books for Mortal<'_> {
    type Error = Dead;

    async fn read_old(&mut self) -> Result<Vec<Held>, Dead> {
        self.call("old", |world| world.old.clone())
    }

    async fn read_new(&mut self) -> Result<Vec<Held>, Dead> {
        self.call("new", |world| world.new.clone())
    }

    async fn prepare(&mut self, _: &Identity, new: &Identity) -> Result<(), Dead> {
        let shards = usize::try_from(new.shards).unwrap();
        self.call("prepare", |world| world.new.resize(shards, Held::default()))
    }

    async fn take(&mut self, _: u32) -> Result<(), Dead> {
        self.call("take", |_| ())
    }

    async fn fence(&mut self) -> Result<(), Dead> {
        self.call("fence", |_| ())
    }

    fn go_on(&mut self) -> Result<(), Dead> {
        Ok(())
    }

    async fn write(&mut self, writes: &[Write<'_>]) -> Result<(), Dead> {
        let write = |world: &mut World| {
            for write in writes {
                let shard = &mut world.new[usize::try_from(write.shard.0).unwrap()];
                shard.take(0, Some(write.key.as_bytes()), write.value);
            }
        };
        self.call("write", write)
    }

    async fn switch(&mut self, switch: &Switch) -> Result<(), Dead> {
        self.call("switch", |world| {
            world.old.iter_mut().for_each(|held| held.moved = Some(switch.moved.clone()));
            for held in &mut world.new {
                held.identity = Some(switch.identity.clone());
                held.position = Some(switch.position.clone());
                held.inherited.clone_from(&switch.inherited);
            }
        })
    }
}

const FROM: Shards = Shards { count: NonZeroU32::MIN.saturating_add(1), by: ShardBy::Uid };

fn identity() -> Identity {
    Identity {
        cluster_id: "c".into(),
        lease_namespace: "ns".into(),
        lease_name: "pod-monitor".into(),
        generation: 1,
        shards: FROM.count.get(),
        shard_by: FROM.by.as_str().into(),
        selector: "app=x".into(),
        namespaces: vec![],
        format: FORMAT,
    }
}

fn wish() -> Wish {
    Wish {
        ours: identity(),
        base: "log".into(),
        count: NonZeroU32::new(3).unwrap(),
        by: None,
        from: None,
        holder: "me".into(),
    }
}

/// The old generation goes on: the record of this pod changes, or is forgotten.
fn tell(world: &mut World, number: u32, sequence: Option<u32>) {
    let uid = PodUid(format!("u{number}").into());
    let record = serde_json::json!({ "format": 1, "oldest_reader": 1, "resource_version": 7, "namespace": "ns",
        "pod_name": "p", "execution_id": "e", "sequence": sequence });
    let value = sequence.map(|_| record.to_string().into_bytes());
    let ShardId(shard) = FROM.of(&uid, "");
    let held = &mut world.old[usize::try_from(shard).unwrap()];
    held.take(0, Some(changelog::pod_key(&uid).as_bytes()), value.as_deref());
}

fn world() -> World {
    let streams = [(String::new(), ResourceVersion(5))].into();
    let position = Position { term: 1, holder: "h".into(), streams };
    let held = Held { identity: Some(identity()), position: Some(position), ..Held::default() };
    let mut world = World { old: vec![held; 2], new: vec![] };
    (0..40).for_each(|number| tell(&mut world, number, Some(1)));
    world
}

/// Runs until it is done or dead.
async fn go(world: &mut World, calls_left: usize, late: bool) -> (Result<Outcome, Error<Dead>>, Vec<&'static str>) {
    let mut books = Mortal { world, calls_left, late, calls: vec![] };
    let outcome = run(&mut books, &wish(), 7, &|_| ()).await;
    (outcome, books.calls)
}

/// The new generation holds what the old one did, and is the truth.
fn is_moved(world: &World) {
    let plan = wish().plan(&identity(), &world.old).unwrap();
    assert_eq!(plan.differences(&world.new), vec![]);
    assert!(world.old.iter().all(|held| held.moved.as_ref() == Some(&wish().moved(&identity()))));
    assert!(world.new.iter().all(|held| held.identity.as_ref().is_some_and(|identity| identity.generation == 2)));
}

#[tokio::test]
async fn dead_before_or_after_any_call_and_begun_anew_it_ends_alike() {
    let mut whole = world();
    let (outcome, calls) = go(&mut whole, usize::MAX, false).await;
    assert!(matches!(outcome, Ok(Outcome::Switched(Summary { written: 40, .. }))), "{outcome:?}");
    is_moved(&whole);
    assert!(calls.iter().filter(|call| **call == "write").count() > 3, "{calls:?}");
    for (at, call) in calls.iter().enumerate() {
        for late in [false, true] {
            let mut world = world();
            let (outcome, _) = go(&mut world, at, late).await;
            assert!(matches!(outcome, Err(Error::Books(Dead(_)))), "{at}: {outcome:?}");
            let switched = world.old[0].moved.is_some();
            assert_eq!(switched, late && *call == "switch", "nothing but the switch makes it the truth");
            if !switched {
                // Replicas of the old generation have been at work since: told more, forgotten some, met others.
                (0..10).for_each(|number| tell(&mut world, number, Some(2)));
                (10..20).for_each(|number| tell(&mut world, number, None));
                (50..60).for_each(|number| tell(&mut world, number, Some(1)));
            }
            // It dies once more.
            drop(go(&mut world, at / 2, late).await);
            let (outcome, _) = go(&mut world, usize::MAX, false).await;
            let already = matches!(outcome, Ok(Outcome::Already(_)));
            assert!(outcome.is_ok() && already == switched, "{at}: {outcome:?}");
            is_moved(&world);
        }
    }
}

#[tokio::test]
async fn a_changelog_that_is_done_is_not_touched() {
    let mut world = world();
    drop(go(&mut world, usize::MAX, false).await);
    let (outcome, calls) = go(&mut world, usize::MAX, false).await;
    assert!(matches!(outcome, Ok(Outcome::Already(_))), "{outcome:?}");
    assert_eq!(calls, ["old"], "replicas of the new generation may be at work");
    let mut books = Mortal { world: &mut world, calls_left: usize::MAX, late: false, calls: vec![] };
    assert!(matches!(survey(&mut books, &wish()).await, Ok(Outcome::Already(_))));
}

#[tokio::test]
async fn a_new_changelog_that_somebody_uses_is_refused() {
    let mut world = world();
    let used = Held { identity: Some(Identity { generation: 2, shards: 3, ..identity() }), ..Held::default() };
    world.new = vec![used, Held::default(), Held::default()];
    let (outcome, calls) = go(&mut world, usize::MAX, false).await;
    assert!(matches!(outcome, Err(Error::Refused(Refusal::InUse { .. }))), "{outcome:?}");
    assert!(!calls.contains(&"write"), "{calls:?}");
}

#[tokio::test]
async fn a_survey_changes_nothing() {
    let mut world = world();
    let mut books = Mortal { world: &mut world, calls_left: usize::MAX, late: false, calls: vec![] };
    let Ok(Outcome::Switched(summary)) = survey(&mut books, &wish()).await else { panic!("it is to be done") };
    assert_eq!(books.calls, ["old"]);
    assert_eq!((summary.from.iter().sum::<usize>(), summary.to.iter().sum::<usize>()), (40, 40));
    assert_eq!((summary.from.len(), summary.to.len()), (2, 3));
}
