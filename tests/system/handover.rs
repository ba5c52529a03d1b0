//! Three replicas, a churn of real pods, and the leader killed, stopped, frozen and cut off, again and again: nothing is
//! lost, doubled or out of order.

use std::{
    cell::Cell,
    collections::BTreeMap,
    path::Path,
    time::{Duration, Instant},
};

use testkit::{
    clients::{
        cluster::Cluster,
        fault::Random,
        lives::{complete, faults, live},
        monitor::Launch,
        replicas::{Fault, Replicas},
        until,
    },
    stack::Endpoints,
};

/// At the same time: the faults need the machine, too.
const AT_ONCE: usize = 6;
/// Short ones, so that a frozen leader does not take the whole test's time.
const LEASE_DURATION: Duration = Duration::from_secs(2);
const LEASE: [&str; 6] = ["--lease-duration", "2s", "--renew-deadline", "1200ms", "--retry-period", "300ms"];
/// How often each is done: 60 changes of hands.
const FAULTS: [(Fault, usize); 5] =
    [(Fault::Kill, 24), (Fault::Terminate, 24), (Fault::Freeze, 4), (Fault::CutApi, 4), (Fault::CutKafka, 4)];
/// Between two of them, at most: some hit a leader that has only just taken over.
const PAUSE_MAX: Duration = Duration::from_millis(800);
const LIMIT: Duration = Duration::from_secs(30);

#[tokio::test(flavor = "multi_thread")]
async fn sixty_changes_of_hands_lose_nothing_and_double_nothing() {
    let endpoints = Endpoints::from_env().unwrap();
    let app = format!("handover-{}", std::process::id());
    let cluster = Cluster::connect(&endpoints, &app).await.unwrap();
    cluster.ready_for_pods().await.unwrap();
    let launch = Launch::new(Path::new(env!("CARGO_BIN_EXE_pod-monitor")), &endpoints, &app, &app).with(&LEASE);
    let mut replicas = Replicas::start_cuttable(&launch, &endpoints, &cluster).unwrap();
    replicas.ready(LIMIT).await.unwrap();
    replicas.leader("").await.unwrap();

    let mut random = Random::from_variable("HANDOVER_SEED").unwrap();
    let order = shuffled(&mut random);
    let (over, begun) = (Cell::new(false), Instant::now());
    let changes = async {
        let mut took: BTreeMap<Fault, Vec<Duration>> = BTreeMap::new();
        for (number, fault) in order.iter().enumerate() {
            random.pause(PAUSE_MAX).await;
            let begun = Instant::now();
            if let Err(error) = replicas.change_hands(*fault, LEASE_DURATION).await {
                over.set(true);
                panic!("change {number}: {error:#}");
            }
            took.entry(*fault).or_default().push(begun.elapsed());
        }
        over.set(true);
        took
    };
    let pods = (0..).take_while(|_| !over.get());
    let (took, truth) = tokio::join!(changes, live(&cluster, &app, pods, AT_ONCE));
    let truth = truth.unwrap();
    println!("{} pods lived within {:?}; until all were ready again:", truth.len(), begun.elapsed());
    for (fault, took) in &took {
        println!("  {fault:?} {} times, {:?} at most", took.len(), took.iter().max().unwrap());
    }
    assert!(truth.len() >= 40, "only {} pods: the test would show little", truth.len());

    let history = complete(&endpoints, &format!("{app}.events"), &truth).await.unwrap();
    let wrong = faults(&truth, &history);
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    by_the_fast_ways(&replicas);
    measured(&mut replicas).await;
    // A second opinion, while three replicas go on.
    println!("{}", launch.verify().unwrap());
    replicas.stop(LIMIT).await.unwrap();
    cluster.remove_namespace().await.unwrap();
}

/// Most killed leaders are noticed by their closed connection, and all stopped ones release: only the rest may be found by
/// their silence. Who is killed while nobody attends it yet (its standbys have only just begun) is found so, too.
fn by_the_fast_ways(replicas: &Replicas) {
    let count = |message: &str, why: &str| {
        let lines = replicas.said(message).unwrap();
        lines.iter().filter(|line| line["why"] == why).count()
    };
    let taken = ["Dead", "Released", "Silent"].map(|why| count("lease acquired", why));
    let gave_up = count("tenure ended", "GaveUp(Kafka)");
    println!("Leases taken from the dead, released, silent: {taken:?}; given up for want of Kafka: {gave_up}");
    assert!(taken[0] >= 20, "24 were killed, {} were noticed by their death", taken[0]);
    assert!(taken[1] >= 24, "24 were stopped, {} Leases were taken released", taken[1]);
    assert!(gave_up >= 3, "4 were cut off from Kafka, {gave_up} gave up");
}

/// The metrics of a change of hands have values, not only names.
async fn measured(replicas: &mut Replicas) {
    replicas.ready(LIMIT).await.unwrap();
    let (leader, _) = replicas.leader("").await.unwrap();
    let of_leader = |series: &str| replicas.all()[leader].running.as_ref().unwrap().metric(series).unwrap();
    assert_eq!(replicas.sum("pod_monitor_role{role=\"live\"}"), 1.0);
    assert!(of_leader("pod_monitor_term") >= 60.0, "{}", of_leader("pod_monitor_term"));
    // Each replica counts from its last start: the leader has taken over since.
    for leg in ["acquired", "fenced", "barrier", "restored", "watching", "reconciled", "first_commit"] {
        let series = format!("pod_monitor_takeover_duration_seconds_count{{leg=\"{leg}\"}}");
        assert!(of_leader(&series) >= 1.0, "{series}");
    }
    assert!(of_leader("pod_monitor_takeover_gap_seconds_count") >= 1.0);
    assert!(of_leader("pod_monitor_takeover_gap_seconds_sum") > 0.0);
    let settled = async || {
        let standbys = (0..replicas.all().len()).filter(|index| *index != leader);
        let lag = |index: usize| replicas.all()[index].running.as_ref()?.metric("pod_monitor_standby_lag_records").ok();
        Ok((standbys.filter_map(lag).filter(|lag| *lag <= 2.0).count() == 2).then_some(()))
    };
    until(LIMIT, "both standbys have read what there is", settled).await.unwrap();
    let standing_by = async || Ok((of_leader("pod_monitor_standbys") == 2.0).then_some(()));
    until(LIMIT, "both standbys say so", standing_by).await.unwrap();
}

/// All faults, in an order that the seed decides.
fn shuffled(random: &mut Random) -> Vec<Fault> {
    let mut faults: Vec<Fault> = FAULTS.iter().flat_map(|(fault, times)| vec![*fault; *times]).collect();
    for last in (1..faults.len()).rev() {
        let other = random.number() % (last as u64 + 1);
        faults.swap(last, usize::try_from(other).unwrap());
    }
    faults
}
