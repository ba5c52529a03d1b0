//! `pod-monitor reshard` on real topics and real Leases: what is copied, what is refused, and a death at every step.

use std::{
    collections::BTreeMap,
    process::{Command, Output, Stdio},
    time::{Duration, Instant},
};

use k8s_openapi::api::coordination::v1::Lease;
use kube::{Api, Client, Config, api::PostParams};
use pod_monitor::{
    leadership::tenure::{ShardId, Tenure},
    lifecycle::tracked::Tracked,
    ports::{Journal, Journals},
    publish::{
        Batch, Position,
        error::{Class, OpenError},
        generation::{Inherited, changelog_topic},
        identity::Identity,
        journal::{KafkaJournal, KafkaJournals},
        settings::Settings,
        topics,
    },
    sharding::ranges::Shards,
    watch::pod::{PodUid, ResourceVersion},
};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use crate::{bench::changelog, support::*};

pub(crate) const NAMESPACE: &str = "default";
const PODS: u32 = 300;
/// Steps at which the command can be made to die, and whether the new generation is the truth after that.
const STEPS: [(&str, bool); 8] = [
    ("reshard-taken", false),
    ("reshard-fenced", false),
    ("reshard-read", false),
    ("reshard-chunk-sent", false),
    ("reshard-chunk", false),
    ("reshard-copied", false),
    ("reshard-switch-sent", false),
    ("reshard-switched", true),
];

/// One generation of an installation.
pub(crate) struct Generation {
    pub(crate) settings: Settings,
    topics: topics::Topics,
}

impl Generation {
    pub(crate) async fn of(base: &Identity, generation: u32, shards: u32, shard_by: &str) -> Self {
        let identity = Identity { generation, shards, shard_by: shard_by.into(), ..base.clone() };
        let settings = settings_of(identity);
        let topics = topics::prepare(&settings, true).await.unwrap();
        Self { settings, topics }
    }

    fn shards(&self) -> Shards {
        let identity = self.settings.identity();
        let by = pod_monitor::lifecycle::rules::ShardBy::of(&identity.shard_by).unwrap();
        Shards { count: identity.shards.try_into().unwrap(), by }
    }

    pub(crate) fn journals(&self) -> KafkaJournals {
        KafkaJournals::start(self.settings.clone(), &self.topics).unwrap()
    }

    /// A holder of each shard, which has told this of each pod.
    pub(crate) async fn told(&self, records: &[(PodUid, Option<Tracked>)]) -> Vec<KafkaJournal> {
        let (journals, mut held) = (self.journals(), Vec::new());
        for shard in self.shards().all() {
            let of =
                |(uid, _): &&(PodUid, Option<Tracked>)| self.shards().of(uid, &number_of(uid).to_string()) == shard;
            let records: Vec<_> = records.iter().filter(of).cloned().collect();
            let started = Instant::now();
            // On a busy machine a producer that was thrown away may fence once more: a worker tries again, too.
            held.push(loop {
                match tell(&journals, shard, records.clone()).await {
                    Some(journal) => break journal,
                    None => assert!(started.elapsed() < 2 * LIMIT, "shard {shard} cannot be told of"),
                }
            });
        }
        held
    }
}

async fn tell(
    journals: &KafkaJournals,
    shard: ShardId,
    records: Vec<(PodUid, Option<Tracked>)>,
) -> Option<KafkaJournal> {
    let tenure = Tenure::unconditional(shard, "teller", CancellationToken::new());
    let (mut journal, restored) = match journals.open(&tenure).await {
        Ok(opened) => opened,
        Err(error) if error.class() == Class::Fatal => panic!("{error:?}"),
        Err(_) => return None,
    };
    let streams = [("default".to_owned(), ResourceVersion(1000 + u64::from(shard.0)))].into();
    let position = Position { term: restored.next_term(), holder: "teller".into(), streams };
    let batch = Batch { events: vec![], records, position: Some(position) };
    match journal.commit(batch).await {
        Ok(()) => Some(journal),
        Err(error) if error.class() == Class::Fatal => panic!("{error:?}"),
        Err(_) => None,
    }
}

fn number_of(uid: &PodUid) -> u32 {
    uid.0.rsplit('-').next().unwrap().parse().unwrap()
}

pub(crate) fn installed(name: &str) -> Identity {
    Identity { lease_namespace: NAMESPACE.into(), ..identity(&unique(name), 1) }
}

fn command(base: &Identity, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_pod-monitor"));
    let (events, changelog) = (format!("{}.events", base.lease_name), format!("{}.changelog", base.lease_name));
    command.args(["reshard", "--kafka", &servers(), "--events-topic", &events, "--changelog-topic", &changelog]);
    command.args(["--lease-name", &base.lease_name, "--lease-namespace", NAMESPACE, "--cluster-id", &base.cluster_id]);
    command.args(["--lease-duration", "4s", "--renew-deadline", "3s", "--retry-period", "300ms"]);
    command.args(["--output", "json", "--records-max", "50"]).args(arguments);
    command.env("POD_MONITOR_CREATE_TOPICS", "true");
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// Exit code, what it says, its errors.
fn ended(Output { status, stdout, stderr }: Output) -> (Option<i32>, Value, String) {
    let said = serde_json::from_slice(&stdout).unwrap_or(Value::Null);
    (status.code(), said, String::from_utf8(stderr).unwrap())
}

async fn reshard(base: &Identity, arguments: &[&str]) -> (Option<i32>, Value, String) {
    let mut command = command(base, arguments);
    ended(tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap())
}

pub(crate) fn newest(topic: &str) -> Vec<BTreeMap<String, Vec<u8>>> {
    changelog::newest(&servers(), topic)
}

fn pods(partitions: &[BTreeMap<String, Vec<u8>>]) -> BTreeMap<String, Vec<u8>> {
    let all = partitions.iter().flatten().filter(|(key, _)| key.starts_with("pod/"));
    let mut found = BTreeMap::new();
    for (key, value) in all {
        assert_eq!(found.insert(key.clone(), value.clone()), None, "{key} stands in two shards");
    }
    found
}

/// Every record of the old topic stands in the new one, byte by byte, at its place, and nothing else does.
fn is_moved(old: &Generation, new: &Generation) -> usize {
    let (before, after) = (newest(old.settings.changelog_topic()), newest(new.settings.changelog_topic()));
    let (told, moved) = (pods(&before), pods(&after));
    let differs = |key: &&String| told.get(*key) != moved.get(*key);
    let differing: Vec<&String> = told.keys().chain(moved.keys()).filter(differs).collect();
    assert!(differing.is_empty(), "{differing:?} differ");
    for (shard, records) in (0..).map(ShardId).zip(&after) {
        for (key, value) in records.iter().filter(|(key, _)| key.starts_with("pod/")) {
            let uid = PodUid(key.trim_start_matches("pod/").into());
            let tracked = serde_json::from_slice::<Tracked>(value);
            let execution = tracked.map_or_else(|_| String::new(), |tracked| tracked.execution_id.to_string());
            assert_eq!(new.shards().of(&uid, &execution), shard, "{key}");
        }
        let meta = |key: &str| serde_json::from_slice::<Value>(&records[key]).unwrap();
        let identity: Identity = serde_json::from_value(meta("meta/identity")).unwrap();
        assert_eq!(&identity, new.settings.identity());
        assert_eq!(meta("meta/position")["streams"], json!({ "default": 1000 }), "the lowest of all");
    }
    let moved = json!({ "generation": new.settings.identity().generation, "shards": after.len(),
        "shard_by": new.settings.identity().shard_by, "topic": new.settings.changelog_topic() });
    for records in &before {
        assert_eq!(serde_json::from_slice::<Value>(&records["meta/moved"]).unwrap(), moved);
    }
    pods(&after).len()
}

pub(crate) fn some_pods(numbers: std::ops::Range<u32>) -> Vec<(PodUid, Option<Tracked>)> {
    numbers.map(|n| (uid(n), Some(tracked(n)))).collect()
}

/// Writes past the journal, as a later release might: to the shard of this pod.
fn plant(generation: &Generation, number: u32, value: &str) {
    let ShardId(shard) = generation.shards().of(&uid(number), "");
    let (topic, key) = (generation.settings.changelog_topic(), format!("pod/{}", uid(number).0));
    changelog::plant(&servers(), topic, i32::try_from(shard).unwrap(), &key, value);
}

#[tokio::test(flavor = "multi_thread")]
async fn records_go_where_they_belong_and_back_again() {
    let base = installed("reshard-way");
    let first = Generation::of(&base, 1, 1, "uid").await;
    drop(first.told(&some_pods(0..PODS)).await);
    drop(first.told(&[(uid(7), None), (uid(8), None)]).await);
    let kept =
        serde_json::to_string(&json!({ "format": 1, "oldest_reader": 1, "resource_version": 7, "namespace": "ns",
        "pod_name": "p", "execution_id": "e", "later_field": { "kept": [1, 2.50] } }));
    plant(&first, 1000, &kept.unwrap().replace("2.5", "2.50"));
    plant(&first, 1001, "no json");
    let (code, said, errors) = reshard(&base, &["--shards", "4", "--dry-run"]).await;
    assert_eq!((code, &said["state"], &said["pods_before"]), (Some(0), &json!("planned"), &json!([PODS])), "{errors}");
    assert!(pods(&newest(first.settings.changelog_topic())).len() == PODS as usize, "untouched");

    let (code, said, errors) = reshard(&base, &["--shards", "4"]).await;
    assert_eq!((code, &said["state"], &said["unreadable"]), (Some(0), &json!("switched"), &json!(1)), "{errors}");
    assert_eq!(said["flags"], "--shards 4 --generation 2");
    assert_eq!(said["written"], PODS, "two are forgotten, two were planted");
    let second = Generation::of(&base, 2, 4, "uid").await;
    assert_eq!(is_moved(&first, &second), PODS as usize);
    let (code, said, _) = reshard(&base, &["--shards", "4"]).await;
    assert_eq!((code, &said["state"]), (Some(0), &json!("already")));
    let (code, _, errors) = reshard(&base, &["--shards", "5"]).await;
    assert!(code == Some(2) && errors.contains("start") && errors.contains("--shards 4 --generation 2"), "{errors}");

    let (code, said, errors) = reshard(&base, &["--shards", "2", "--generation", "2"]).await;
    assert_eq!((code, &said["flags"]), (Some(0), &json!("--shards 2 --generation 3")), "{errors}");
    let third = Generation::of(&base, 3, 2, "uid").await;
    assert_eq!(is_moved(&second, &third), PODS as usize);

    let by_execution = ["--shards", "3", "--generation", "3", "--shard-by", "execution"];
    let (code, _, errors) = reshard(&base, &by_execution).await;
    let key = format!("pod/{}", uid(1001).0);
    assert!(code == Some(2) && errors.contains(&key) && errors.contains("--shard-by uid"), "{errors}");
    plant(&third, 1001, &serde_json::to_string(&tracked(1001)).unwrap());
    let (code, said, errors) = reshard(&base, &by_execution).await;
    assert_eq!((code, &said["flags"]), (Some(0), &json!("--shards 3 --shard-by execution --generation 4")), "{errors}");
    let fourth = Generation::of(&base, 4, 3, "execution").await;
    assert_eq!(is_moved(&third, &fourth), PODS as usize);
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_at_any_step_and_run_again_it_ends_alike() {
    // Two at a time: each waits for Leases of the dead, and uses the machine little.
    for steps in STEPS.chunks(2) {
        let dies: Vec<_> = steps.iter().map(|(step, switched)| tokio::spawn(killed_at(step, *switched))).collect();
        for died in dies {
            died.await.unwrap();
        }
    }
}

async fn killed_at(step: &'static str, switched: bool) {
    let base = installed(step);
    let first = Generation::of(&base, 1, 2, "uid").await;
    drop(first.told(&some_pods(0..PODS)).await);
    let mut command = command(&base, &["--shards", "3"]);
    command.env("POD_MONITOR_DIE_AT", step);
    let output = tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap();
    let (code, _, errors) = ended(output);
    assert!(code.is_none() && errors.contains(&format!("dying at {step}")), "{step}: {code:?} {errors}");
    let moved = newest(first.settings.changelog_topic()).iter().all(|records| records.contains_key("meta/moved"));
    assert_eq!(moved, switched, "{step}");
    if !switched {
        // The replicas of the old generation go on: they tell more, meet others, and forget some.
        let mut changes = some_pods(PODS..PODS + 50);
        changes.extend((0..50).map(|n| (uid(n), None)));
        changes.extend((50..100).map(|n| (uid(n), Some(Tracked { sequence: 9, ..tracked(n) }))));
        drop(first.told(&changes).await);
    }
    let (code, said, errors) = reshard(&base, &["--shards", "3"]).await;
    let state = if switched { "already" } else { "switched" };
    assert_eq!((code, &said["state"]), (Some(0), &json!(state)), "{step}: {errors}");
    let second = Generation::of(&base, 2, 3, "uid").await;
    assert_eq!(is_moved(&first, &second), PODS as usize, "{step}");
}

#[tokio::test(flavor = "multi_thread")]
async fn old_leaders_are_fenced_and_replicas_of_another_generation_are_refused() {
    let base = installed("reshard-old");
    let first = Generation::of(&base, 1, 2, "uid").await;
    let mut old = first.told(&some_pods(0..20)).await;
    let standby = first.journals();
    // Started too early: nobody has made the generation.
    let early = Generation::of(&base, 2, 3, "uid").await.journals();
    let refused = |error: OpenError| match error {
        OpenError::Identity { source, .. } => source.to_string(),
        other => panic!("{other:?}"),
    };
    let error = taken_over(&early, &tenure("early")).await.err().unwrap();
    assert!(refused(error).contains("`pod-monitor reshard` has not ended yet"));
    let (code, _, errors) = reshard(&base, &["--shards", "3"]).await;
    assert_eq!(code, Some(0), "{errors}");
    for journal in &mut old {
        let woken = journal.commit(Batch { records: some_pods(1..2), ..Batch::default() }).await;
        assert!(woken.is_err(), "a leader that was frozen until now tells nothing any more");
    }
    let second = Generation::of(&base, 2, 3, "uid").await;
    is_moved(&first, &second);
    // A standby of the old generation learns it by its tail, and whoever takes over by what he restores.
    let started = Instant::now();
    let learned = loop {
        match standby.readiness(ShardId(1)) {
            Err(error) => break refused(error),
            Ok(_) => assert!(started.elapsed() < LIMIT, "the standby does not learn where the truth is"),
        }
        tokio::task::yield_now().await;
    };
    let taken = refused(taken_over(&first.journals(), &tenure("late")).await.err().unwrap());
    for said in [learned, taken] {
        assert!(
            said.contains("resharded to generation 2 with 3 shards: start with --shards 3 --generation 2"),
            "{said}"
        );
    }
    // Other values beside the right generation.
    let by = Generation::of(&base, 2, 3, "execution").await;
    assert!(refused(taken_over(&by.journals(), &tenure("by")).await.err().unwrap()).contains("shard-by"));
    for (generation, shards, part) in [
        (1, 3, "generation 2, which has 3, begins with a finished"),
        (2, 4, "it has 3 partitions, but there are 4 shards"),
        (3, 3, "start with --shards 3 --generation 2, or run `pod-monitor reshard` first"),
    ] {
        let settings = settings_of(Identity { generation, shards, ..base.clone() });
        let said = topics::ensure(&settings, true).await.unwrap_err().to_string();
        assert!(said.contains(part), "{said}");
    }
    goes_on(&second).await;
}

/// Everything is known, with the old shards' positions, and told on from there.
async fn goes_on(second: &Generation) {
    let journals = second.journals();
    let mut pods = 0;
    for shard in second.shards().all() {
        let tenure = Tenure::unconditional(shard, "new", CancellationToken::new());
        let (mut journal, restored) = taken_over(&journals, &tenure).await.unwrap();
        pods += restored.told.len();
        assert!(restored.next_term() >= 2 && restored.moved.is_none());
        let streams = restored.position.unwrap().streams;
        assert_eq!(streams["default"], ResourceVersion(1000));
        let inherited: Inherited = restored.inherited.unwrap();
        assert_eq!(inherited.furthest(), ResourceVersion(1001));
        // Once it is passed it is of no use, and is forgotten.
        for (version, kept) in [(1000, true), (1001, false)] {
            let streams = [("default".to_owned(), ResourceVersion(version))].into();
            let position = Position { term: 2, holder: "new".into(), streams };
            let batch = Batch { position: Some(position), ..Batch::default() };
            while journal.commit(batch.clone()).await.is_err() {
                (journal, _) = taken_over(&journals, &tenure).await.unwrap();
            }
            let shard = usize::try_from(shard.0).unwrap();
            let visible = || newest(second.settings.changelog_topic())[shard].clone();
            let (started, reached) = (Instant::now(), json!(version));
            let records = loop {
                let records = visible();
                let position: Value = serde_json::from_slice(&records["meta/position"]).unwrap();
                if position["streams"]["default"] == reached && position["holder"] == "new" {
                    break records;
                }
                assert!(started.elapsed() < LIMIT, "{position}");
            };
            assert_eq!(records.contains_key("meta/inherited"), kept, "{version}");
        }
    }
    assert_eq!(pods, 20);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_shard_that_is_led_is_not_touched() {
    let base = installed("reshard-led");
    let first = Generation::of(&base, 1, 2, "uid").await;
    drop(first.told(&some_pods(0..5)).await);
    let client = Client::try_from(Config::infer().await.unwrap()).unwrap();
    let leases: Api<Lease> = Api::namespaced(client, NAMESPACE);
    let name = format!("{}-1", base.lease_name);
    let lease =
        json!({ "metadata": { "name": name }, "spec": { "holderIdentity": "pod-x", "leaseDurationSeconds": 1 } });
    leases.create(&PostParams::default(), &serde_json::from_value(lease).unwrap()).await.unwrap();
    let stop = CancellationToken::new();
    let renewing = {
        let (leases, name, stop) = (leases.clone(), name.clone(), stop.clone());
        tokio::spawn(async move {
            let mut turns = tokio::time::interval(Duration::from_millis(100));
            while stop.run_until_cancelled(turns.tick()).await.is_some() {
                let mut lease = leases.get(&name).await.unwrap();
                let turn = lease.metadata.annotations.get_or_insert_default().entry("turn".into()).or_default();
                turn.push('x');
                leases.replace(&name, &PostParams::default(), &lease).await.unwrap();
            }
        })
    };
    let (code, _, errors) = reshard(&base, &["--shards", "3"]).await;
    assert_eq!(code, Some(2), "{errors}");
    assert!(errors.contains("shard 1 is led by pod-x") && errors.contains("kubectl --namespace default"), "{errors}");
    let free = leases.get(&format!("{}-0", base.lease_name)).await.unwrap();
    assert_eq!(free.spec.unwrap().holder_identity.as_deref(), Some(""), "what it took it let go");
    // It dies: after a lease duration of silence it is taken.
    stop.cancel();
    renewing.await.unwrap();
    let (code, said, errors) = reshard(&base, &["--shards", "3"]).await;
    assert_eq!((code, &said["state"]), (Some(0), &json!("switched")), "{errors}");
    is_moved(&first, &Generation::of(&base, 2, 3, "uid").await);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_resharded_is_refused_in_words() {
    let base = installed("reshard-words");
    let (code, _, errors) = reshard(&base, &["--shards", "3"]).await;
    let topic = changelog_topic(&format!("{}.changelog", base.lease_name), 1);
    assert!(code == Some(2) && errors.contains(&format!("topic {topic} is not there")), "{errors}");
    let first = Generation::of(&base, 1, 1, "uid").await;
    let (code, _, errors) = reshard(&base, &["--shards", "3"]).await;
    assert!(code == Some(2) && errors.contains("Start the replicas with --shards 3 at once"), "{errors}");
    drop(first.told(&some_pods(0..3)).await);
    let (code, _, errors) = reshard(&base, &["--shards", "1"]).await;
    assert!(code == Some(2) && errors.contains("there are 1 shards by uid already"), "{errors}");
    let (code, _, errors) = reshard(&Identity { cluster_id: "other".into(), ..base.clone() }, &["--shards", "3"]).await;
    assert!(code == Some(2) && errors.contains("is not ours to reshard: cluster-id"), "{errors}");
    let (code, _, errors) = reshard(&base, &["--shards", "3", "--create-topics=false"]).await;
    assert!(code == Some(2) && errors.contains(&format!("topic {topic}.g2 does not exist")), "{errors}");
    // Left over by a try with another number.
    Generation::of(&base, 2, 5, "uid").await;
    let (code, _, errors) = reshard(&base, &["--shards", "3"]).await;
    let delete = format!("--delete --topic {topic}.g2");
    assert!(code == Some(2) && errors.contains("made by an earlier try") && errors.contains(&delete), "{errors}");
}
