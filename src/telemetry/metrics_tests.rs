//! The names of the metrics, and whose counts are whose.

use super::*;

fn text(metrics: &Metrics) -> String {
    metrics.text().expect("metrics can be written")
}

fn assert_series(metrics: &Metrics, expected: &[&str]) {
    let text = text(metrics);
    for series in expected {
        assert!(text.lines().any(|line| line == *series), "{series} is not in\n{text}");
    }
}

#[test]
fn metrics_have_their_promised_names_from_the_start() {
    let metrics = Metrics::new();
    let promised = [
        "pod_monitor_events_total{shard=\"0\",event_type=\"pod_scheduled\"} 0",
        "pod_monitor_failures_total{shard=\"0\",cause=\"oom_killed\"} 0",
        "pod_monitor_stalled_executions{shard=\"0\",cause=\"unschedulable\"} 0",
        "pod_monitor_claims_total{shard=\"0\",event_type=\"execution_failed\"} 0",
        "pod_monitor_cleanups_total{shard=\"0\",deed=\"release\",result=\"done\"} 0",
        "pod_monitor_transactions_total{shard=\"0\",verdict=\"committed\"} 0",
        "pod_monitor_transaction_duration_seconds_bucket{le=\"0.005\",shard=\"0\"} 0",
        "pod_monitor_captures_total{shard=\"0\",status=\"complete\"} 0",
        "pod_monitor_capture_duration_seconds_count{shard=\"0\"} 0",
        "pod_monitor_evidence_reads_total{shard=\"0\",witness=\"events\",result=\"ok\"} 0",
        "pod_monitor_tracked_pods{shard=\"0\"} 0",
        "pod_monitor_remembered_pods{shard=\"0\"} 0",
        "pod_monitor_restored_pods{shard=\"0\"} 0",
        "pod_monitor_watch_restarts_total{shard=\"0\",reason=\"expired\"} 0",
        "pod_monitor_watch_events_total{shard=\"0\",kind=\"bookmark\"} 0",
        "pod_monitor_watch_bytes_total{shard=\"0\"} 0",
        "pod_monitor_lists_total{shard=\"0\",result=\"ok\"} 0",
        "pod_monitor_unreadable_pods_total{shard=\"0\",part=\"status\"} 0",
        "pod_monitor_foreign_pods_total{shard=\"0\"} 0",
        "pod_monitor_server_side_sharding{shard=\"0\"} 0",
        "pod_monitor_missing_ids_total{shard=\"0\",id=\"execution\"} 0",
        "pod_monitor_reconcile_drift_total{shard=\"0\",kind=\"vanished\"} 0",
        "pod_monitor_reconcile_runs_total{shard=\"0\"} 0",
        "pod_monitor_observed_to_committed_seconds_sum{shard=\"0\"} 0.0",
        "pod_monitor_fences_total{shard=\"0\",result=\"ok\"} 0",
        "pod_monitor_leases_taken_total{shard=\"0\",reason=\"dead\"} 0",
        "pod_monitor_tenures_ended_total{shard=\"0\",reason=\"stop\"} 0",
        "pod_monitor_shards_given_away_total{shard=\"0\"} 0",
        "pod_monitor_role{shard=\"0\",role=\"live\"} 0",
        "pod_monitor_term{shard=\"0\"} 0",
        "pod_monitor_shard_holder_seen{shard=\"0\"} 0",
        "pod_monitor_standbys{shard=\"0\"} 0",
        "pod_monitor_standbys_with_other_rules{shard=\"0\"} 0",
        "pod_monitor_standby_lag_records{shard=\"0\"} 0",
        "pod_monitor_takeover_gap_seconds_count{shard=\"0\"} 0",
        "pod_monitor_shards 0",
        "pod_monitor_members 0",
        "pod_monitor_shards_held 0",
        "pod_monitor_otlp_export_failures_total{signal=\"logs\"} 0",
        concat!("pod_monitor_build_info{version=\"", env!("CARGO_PKG_VERSION"), "\"} 1"),
    ];
    assert_series(&metrics, &promised);
    assert!(text(&metrics).ends_with("# EOF\n"));
}

#[test]
fn what_is_counted_is_told() {
    let metrics = Metrics::new();
    let clone = metrics.clone();
    clone.events_committed(EventType::PodTerminated, 3);
    clone.failure_committed(Cause::NodeLost);
    clone.transaction_ended(Verdict::Fenced, Duration::from_millis(4));
    clone.capture_ended(CaptureStatus::Partial, Duration::from_secs(60));
    clone.set_tracked_pods(7);
    clone.drifted(Drift::Behind);
    for took in [3.0, 0.25] {
        clone.taken_over(Leg::Fenced, Duration::from_secs_f64(took));
        clone.gap(Duration::from_secs_f64(2.0 * took));
    }
    let told = [
        "pod_monitor_events_total{shard=\"0\",event_type=\"pod_terminated\"} 3",
        "pod_monitor_failures_total{shard=\"0\",cause=\"node_lost\"} 1",
        "pod_monitor_transactions_total{shard=\"0\",verdict=\"fenced\"} 1",
        "pod_monitor_transaction_duration_seconds_bucket{le=\"0.0025\",shard=\"0\"} 0",
        "pod_monitor_transaction_duration_seconds_bucket{le=\"0.005\",shard=\"0\"} 1",
        "pod_monitor_capture_duration_seconds_bucket{le=\"30.0\",shard=\"0\"} 0",
        "pod_monitor_capture_duration_seconds_bucket{le=\"+Inf\",shard=\"0\"} 1",
        "pod_monitor_tracked_pods{shard=\"0\"} 7",
        "pod_monitor_reconcile_drift_total{shard=\"0\",kind=\"behind\"} 1",
        "pod_monitor_takeover_duration_seconds_sum{shard=\"0\",leg=\"fenced\"} 3.25",
        "pod_monitor_last_takeover_seconds{shard=\"0\",leg=\"fenced\"} 0.25",
        "pod_monitor_last_takeover_gap_seconds{shard=\"0\"} 0.5",
    ];
    assert_series(&metrics, &told);
}

#[test]
fn each_shard_has_counts_of_its_own_and_the_process_has_one() {
    let metrics = Metrics::new();
    assert!(!text(&metrics).contains("shard=\"2\""), "there is no shard 2 yet");
    let second = metrics.of_shard(ShardId(2));
    metrics.set_tracked_pods(3);
    second.set_tracked_pods(5);
    second.set_role(Role::Live);
    second.otlp_export_failed(Signal::Traces);
    metrics.otlp_export_failed(Signal::Traces);
    let told = [
        "pod_monitor_tracked_pods{shard=\"0\"} 3",
        "pod_monitor_tracked_pods{shard=\"2\"} 5",
        "pod_monitor_role{shard=\"0\",role=\"live\"} 0",
        "pod_monitor_role{shard=\"2\",role=\"live\"} 1",
        "pod_monitor_events_total{shard=\"2\",event_type=\"pod_scheduled\"} 0",
        "pod_monitor_otlp_export_failures_total{signal=\"traces\"} 2",
    ];
    assert_series(&metrics, &told);
    assert_eq!(text(&metrics).matches("# TYPE pod_monitor_tracked_pods ").count(), 1, "a family stands there once");
}

#[test]
fn a_shard_that_is_asked_for_again_goes_on_counting() {
    let metrics = Metrics::new();
    metrics.of_shard(ShardId(1)).reconciled();
    metrics.of_shard(ShardId(1)).reconciled();
    assert_series(&metrics, &["pod_monitor_reconcile_runs_total{shard=\"1\"} 2"]);
}

/// Names and labels of a shard's series, without their values.
fn series_of(metrics: &Metrics, shard: u32) -> Vec<String> {
    let label = format!("shard=\"{shard}\"");
    let text = text(metrics);
    let of = text.lines().filter(|line| !line.starts_with('#') && line.contains(&label));
    let mut found: Vec<String> =
        of.map(|line| line.replace(&label, "").rsplit_once(' ').unwrap_or_default().0.into()).collect();
    found.sort();
    found
}

#[test]
fn every_shard_has_the_same_series_from_the_start() {
    let metrics = Metrics::new();
    metrics.of_shard(ShardId(1)).set_tracked_pods(1);
    let first = series_of(&metrics, 0);
    assert_eq!(first, series_of(&metrics, 1));
    // Of the bound that the module promises: so many times the shards.
    assert!((150..250).contains(&first.len()), "{} series for each shard", first.len());
}

#[test]
fn shards_and_their_owners_are_told() {
    let metrics = Metrics::new();
    let shard = metrics.of_shard(ShardId(3));
    metrics.set_shards(4);
    metrics.set_members(3);
    metrics.set_shards_held(2);
    shard.set_holder_seen(true);
    shard.given_away();
    shard.foreign_pods(1);
    shard.watched_bytes(1200);
    shard.watched_bytes(34);
    shard.set_server_side(true);
    let told = [
        "pod_monitor_shards 4",
        "pod_monitor_members 3",
        "pod_monitor_shards_held 2",
        "pod_monitor_shard_holder_seen{shard=\"3\"} 1",
        "pod_monitor_shard_holder_seen{shard=\"0\"} 0",
        "pod_monitor_shards_given_away_total{shard=\"3\"} 1",
        "pod_monitor_foreign_pods_total{shard=\"3\"} 1",
        "pod_monitor_watch_bytes_total{shard=\"3\"} 1234",
        "pod_monitor_server_side_sharding{shard=\"3\"} 1",
    ];
    assert_series(&metrics, &told);
    shard.set_holder_seen(false);
    shard.set_server_side(false);
    let taken_back =
        ["pod_monitor_shard_holder_seen{shard=\"3\"} 0", "pod_monitor_server_side_sharding{shard=\"3\"} 0"];
    assert_series(&metrics, &taken_back);
}

#[test]
fn what_a_watch_delivers_counts_by_its_kind_and_shard() {
    let metrics = Metrics::new();
    let other = metrics.of_shard(ShardId(1));
    for (times, kind) in WatchEvent::ALL.iter().enumerate() {
        (0..=times).for_each(|_| metrics.clone().watch_delivered(*kind));
    }
    other.watch_delivered(WatchEvent::Deleted);
    let text = other.text().expect("encodes");
    for series in [
        "{shard=\"0\",kind=\"applied\"} 1",
        "{shard=\"0\",kind=\"deleted\"} 2",
        "{shard=\"0\",kind=\"bookmark\"} 3",
        "{shard=\"1\",kind=\"deleted\"} 1",
        "{shard=\"1\",kind=\"applied\"} 0",
    ] {
        assert!(text.contains(&format!("pod_monitor_watch_events_total{series}\n")), "{series}: {text}");
    }
}
