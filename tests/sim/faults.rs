//! What goes wrong, when, and for how long: drawn from the seed. Ends with everything mended.

use std::{sync::Arc, time::Duration};

use serde_json::json;

use crate::{
    random::Random,
    run::Cluster,
    world::{
        after,
        api::merge,
        etcd::Which,
        process::Process,
        wire::{Link, To, Way},
    },
};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fault {
    Crash,
    Stop,
    Freeze,
    Cut,
    Slow,
    Refuse,
    Compact,
    CutWatches,
    DeleteLease,
    EditLease,
    WrongNotice,
}

const ALL: [Fault; 11] = [
    Fault::Crash,
    Fault::Stop,
    Fault::Freeze,
    Fault::Cut,
    Fault::Slow,
    Fault::Refuse,
    Fault::Compact,
    Fault::CutWatches,
    Fault::DeleteLease,
    Fault::EditLease,
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

/// Mostly the leader: that is where it hurts.
fn victim(cluster: &Cluster, random: &mut Random) -> Option<(usize, Arc<Process>)> {
    let living = cluster.living();
    let holder = cluster.world.etcd().holder();
    let leader = living.iter().find(|(_, process)| Some(&process.identity) == holder.as_ref());
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
        Fault::Crash => cluster.crash(slot, random),
        Fault::Stop => cluster.stop(slot),
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
        Fault::DeleteLease => {
            cluster.world.observed().permits_excused = true;
            let _ = cluster.world.etcd().remove(Which::Leases, "pod-monitor-0");
        }
        Fault::EditLease => edit_lease(cluster, random),
        Fault::WrongNotice => {
            cluster.world.observed().permits_excused = true;
            for (_, other) in cluster.living() {
                other.hear_of_death(who);
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

/// By hand: somebody else's name, no name, odd numbers, a note.
fn edit_lease(cluster: &Cluster, random: &mut Random) {
    let edits = [
        json!({ "spec": { "holderIdentity": "somebody" } }),
        json!({ "spec": { "holderIdentity": null } }),
        json!({ "spec": { "holderIdentity": "", "leaseDurationSeconds": 1 } }),
        json!({ "spec": { "leaseDurationSeconds": null, "leaseTransitions": null, "renewTime": null } }),
        json!({ "metadata": { "annotations": { "note": "seen" } } }),
    ];
    let edit = &edits[random.below(edits.len() as u64) as usize];
    cluster.world.observed().permits_excused = true;
    let mut etcd = cluster.world.etcd();
    if let Some(lease) = etcd.leases.objects.get("pod-monitor-0") {
        let mut value = lease.value.clone();
        merge(&mut value, edit);
        etcd.put(Which::Leases, "pod-monitor-0", value);
    }
}
