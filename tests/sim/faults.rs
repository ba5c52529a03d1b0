//! What goes wrong, when, and for how long: drawn from the seed. Ends with everything mended.

use std::{sync::Arc, time::Duration};

use serde_json::json;

use crate::{
    cluster::Cluster,
    random::Random,
    world::{
        after,
        api::merge,
        etcd::{SHARD_LEASES, Which},
        process::Process,
        wire::{Link, To, Way},
    },
};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fault {
    Crash,
    /// Of every two replicas one, at once.
    CrashHalf,
    Stop,
    /// Asked to end, and not started again for a while.
    Leave,
    Freeze,
    Cut,
    Slow,
    Refuse,
    Compact,
    CutWatches,
    DeleteLease,
    EditLease,
    /// Those by which the replicas know one another.
    DeleteMember,
    EditMember,
    WrongNotice,
}

const ALL: [Fault; 15] = [
    Fault::Crash,
    Fault::CrashHalf,
    Fault::Stop,
    Fault::Leave,
    Fault::Freeze,
    Fault::Cut,
    Fault::Slow,
    Fault::Refuse,
    Fault::Compact,
    Fault::CutWatches,
    Fault::DeleteLease,
    Fault::EditLease,
    Fault::DeleteMember,
    Fault::EditMember,
    Fault::WrongNotice,
];

/// Lets things go wrong until `ends`.
pub async fn run(cluster: Arc<Cluster>, mut random: Random, lasts: Duration) {
    // Some seeds know only a few kinds, so that these meet often.
    let kinds: Vec<Fault> = match random.below(3) {
        0 => ALL.to_vec(),
        _ => (0..3).map(|_| random.pick(&ALL)).collect(),
    };
    let pause_max = random.pick(&[500, 2000, 6000]);
    let began = cluster.world.began.elapsed();
    loop {
        after(random.ms(50, pause_max)).await;
        let passed = cluster.world.began.elapsed() - began;
        if passed >= lasts {
            return;
        }
        let fault = random.pick(&kinds);
        let left = (lasts - passed).as_millis() as u64;
        cause(&cluster, fault, &mut random, left);
    }
}

/// Mostly a leader: that is where it hurts.
fn victim(cluster: &Cluster, random: &mut Random) -> Option<(usize, Arc<Process>)> {
    let living = cluster.living();
    let holders: Vec<String> = cluster.world.etcd().holders().into_values().collect();
    let holder = holders.get(random.below(holders.len() as u64) as usize);
    let leader = living.iter().find(|(_, process)| Some(&process.identity) == holder);
    match leader {
        Some(leader) if random.percent(60) => Some(leader.clone()),
        _ if living.is_empty() => None,
        _ => Some(living[random.below(living.len() as u64) as usize].clone()),
    }
}

fn cause(cluster: &Arc<Cluster>, fault: Fault, random: &mut Random, left_ms: u64) {
    let Some((slot, process)) = victim(cluster, random) else { return };
    let who = process.identity.as_str();
    // Longer than any lease at times; over before the world is mended.
    let longest = random.pick(&[300, 3000, 12_000]);
    let lasts = random.ms(20, longest).min(Duration::from_millis(left_ms));
    cluster.world.note("fault", format_args!("{fault:?} {who} {} ms", lasts.as_millis()));
    match fault {
        Fault::Crash => cluster.crash(slot),
        Fault::CrashHalf => crash_half(cluster, random),
        Fault::Stop => cluster.stop(slot),
        Fault::Leave => cluster.leave(slot, lasts),
        Fault::Freeze => {
            process.freeze(true);
            cluster.spawn(async move {
                after(lasts).await;
                process.freeze(false);
            });
        }
        Fault::Cut => {
            let lost = random.pick(&[Way::Hole, Way::Hole, Way::Reset]);
            let (requests, answers) = random.pick(&[(lost, Way::Open), (Way::Open, lost), (lost, lost)]);
            impair(cluster, &process, random, lasts, |link| (link.requests, link.answers) = (requests, answers));
        }
        Fault::Slow => {
            let slow_ms = random.pick(&[50, 500, 4000]);
            impair(cluster, &process, random, lasts, |link| link.slow_ms = slow_ms);
        }
        Fault::Refuse => {
            let percent = random.pick(&[20, 60, 100]);
            impair(cluster, &process, random, lasts, |link| link.refused_percent = percent);
        }
        Fault::Compact => {
            let mut etcd = cluster.world.etcd();
            let back = random.below(20);
            let version = etcd.version - back;
            etcd.compact(version);
        }
        Fault::CutWatches => {
            for (_, process) in cluster.living() {
                let lasts = random.ms(1, 100).min(lasts);
                impair(cluster, &process, random, lasts, |link| link.answers = Way::Reset);
            }
        }
        Fault::DeleteLease => delete(cluster, Some(any_shard(cluster, random))),
        Fault::EditLease => edit(cluster, Some(any_shard(cluster, random)), random),
        Fault::DeleteMember => delete(cluster, any_member(cluster, random)),
        Fault::EditMember => edit(cluster, any_member(cluster, random), random),
        Fault::WrongNotice => {
            cluster.world.observed().excuse(0..cluster.world.generation().shards.get());
            for (_, other) in cluster.living() {
                other.hear_a_rumour(who);
            }
        }
    }
}

/// Changes one of the two links, and mends it later.
fn impair(
    cluster: &Cluster,
    process: &Arc<Process>,
    random: &mut Random,
    lasts: Duration,
    change: impl FnOnce(&mut Link),
) {
    let to = random.pick(&[To::Cluster, To::Kafka]);
    change(&mut process.link(to));
    let process = Arc::clone(process);
    cluster.spawn(async move {
        after(lasts).await;
        *process.link(to) = Link::default();
    });
}

fn crash_half(cluster: &Cluster, random: &mut Random) {
    let mut living = cluster.living();
    for _ in 0..living.len() / 2 {
        let (slot, _) = living.swap_remove(random.below(living.len() as u64) as usize);
        cluster.crash(slot);
    }
}

/// The name of a shard's Lease, to be tampered with.
fn any_shard(cluster: &Cluster, random: &mut Random) -> String {
    let shard = random.below(u64::from(cluster.world.generation().shards.get())) as u32;
    cluster.world.observed().excuse([shard]);
    format!("{SHARD_LEASES}{shard}")
}

/// The name of a member Lease.
fn any_member(cluster: &Cluster, random: &mut Random) -> Option<String> {
    let etcd = cluster.world.etcd();
    let members: Vec<&String> = etcd.leases.objects.keys().filter(|name| name.contains("-member-")).collect();
    members.get(random.below(members.len() as u64) as usize).map(|name| (*name).clone())
}

fn delete(cluster: &Cluster, lease: Option<String>) {
    let _ = lease.and_then(|name| cluster.world.etcd().remove(Which::Leases, &name));
}

/// By hand: somebody else's name, no name, odd numbers, a note, no label.
fn edit(cluster: &Cluster, lease: Option<String>, random: &mut Random) {
    let edits = [
        json!({ "spec": { "holderIdentity": "somebody" } }),
        json!({ "spec": { "holderIdentity": null } }),
        json!({ "spec": { "holderIdentity": "", "leaseDurationSeconds": 1 } }),
        json!({ "spec": { "leaseDurationSeconds": null, "leaseTransitions": null, "renewTime": null } }),
        json!({ "metadata": { "annotations": { "note": "seen" } } }),
        json!({ "metadata": { "labels": null } }),
    ];
    let edit = &edits[random.below(edits.len() as u64) as usize];
    let mut etcd = cluster.world.etcd();
    let Some(lease) = lease.and_then(|name| etcd.leases.objects.get(&name).cloned()) else { return };
    let mut value = (*lease.value).clone();
    merge(&mut value, edit);
    etcd.put(Which::Leases, &lease.name, value);
}
