//! The table without I/O: a commit, an abort and a restore at every point leave the same story.

use std::collections::HashSet;

use jiff::{SignedDuration, Timestamp};
use tokio::time::Instant;

use super::*;
use crate::{
    lifecycle::{
        event::{Body, Event},
        identity::IdSources,
        rules::Rules,
        tracked::Tracked,
    },
    watch::pod::{Decoded, decode},
};

fn rules() -> Rules {
    let settle_grace = SignedDuration::from_secs(10);
    Rules { cluster_id: "c".into(), ids: IdSources::default(), settle_grace, ..Rules::default() }
}

fn now() -> Timestamp {
    Timestamp::from_second(1_700_000_100).expect("a time")
}

fn uid() -> PodUid {
    PodUid("u".into())
}

/// A pod at this version: 1 pending, 2 running, 3 succeeded.
fn pod(version: u64) -> Box<Pod> {
    let at = "2023-11-14T22:13:20Z";
    let state = match version {
        1 => String::new(),
        2 => format!(r#"{{"running":{{"startedAt":"{at}"}}}}"#),
        _ => {
            format!(r#"{{"terminated":{{"exitCode":0,"reason":"Completed","startedAt":"{at}","finishedAt":"{at}"}}}}"#)
        }
    };
    let statuses = if state.is_empty() { "[]".into() } else { format!(r#"[{{"name":"main","state":{state}}}]"#) };
    let phase = ["Pending", "Running", "Succeeded"][version as usize - 1];
    let json = format!(
        r#"{{"metadata":{{"uid":"u","name":"exec-1","namespace":"runs","resourceVersion":"{version}"}},
        "spec":{{"nodeName":"n","restartPolicy":"Never","containers":[{{"name":"main"}}]}},
        "status":{{"phase":"{phase}","containerStatuses":{statuses}}}}}"#
    );
    match decode(&json) {
        Decoded::Whole(pod) => Box::new(pod),
        other => panic!("{other:?}"),
    }
}

/// A monitor whose journal is a list, with a Kafka that does as it is told.
struct Rig {
    table: Table,
    told: ByUid<Tracked>,
    events: Vec<Event>,
    /// A LIST is under way that was asked for at this version.
    listing: Option<ResourceVersion>,
    rules: Rules,
}

impl Rig {
    fn new() -> Self {
        let table = Table::new(vec![Stream::new("runs", None)]);
        Self { table, told: ByUid::default(), events: Vec::new(), listing: None, rules: rules() }
    }

    fn form(&mut self) -> Formed {
        self.table.form(now(), &self.rules, &[self.listing])
    }

    fn keep(&mut self, batch: &Batch) {
        self.events.extend(batch.events.iter().cloned());
        for (uid, tracked) in &batch.records {
            match tracked {
                Some(tracked) => drop(self.told.insert(uid.clone(), tracked.clone())),
                None => drop(self.told.remove(uid)),
            }
        }
    }

    /// Commits until nothing is ready; captures succeed at once.
    fn commit_all(&mut self) {
        while self.table.has_ready() {
            let formed = self.form();
            self.keep(&formed.batch);
            for target in self.table.committed(formed.in_flight) {
                self.table.capturing(&target.target.uid);
                self.table.captured(&target.target.uid, Captured::default());
            }
        }
    }

    fn see(&mut self, version: u64) {
        self.table.observe(0, pod(version), Instant::now(), Source::Watch);
        self.table.streams[0].progress(ResourceVersion(version));
    }

    fn lose(&mut self, version: u64) {
        let gone =
            Gone { observed: true, version: ResourceVersion(version), as_of: ResourceVersion(version), listed: false };
        self.table.gone(0, &uid(), Some(pod(3)), gone, Instant::now());
        self.table.streams[0].progress(ResourceVersion(version));
    }

    fn story(&self) -> Vec<&'static str> {
        self.events.iter().map(|e| e.body.event_type().as_str()).collect()
    }
}

const STORY: [&str; 4] = ["pod_scheduled", "execution_running", "execution_completed", "pod_terminated"];

fn whole_life(rig: &mut Rig) {
    for version in 1..=3 {
        rig.see(version);
        rig.commit_all();
    }
    rig.lose(4);
    rig.commit_all();
}

#[test]
fn a_pod_is_told_once_and_then_forgotten() {
    let mut rig = Rig::new();
    whole_life(&mut rig);
    assert_eq!(rig.story(), STORY);
    assert!(rig.told[&uid()].gone.is_some(), "told as gone first: an unknown commit must stay recognisable");
    let formed = rig.form();
    assert_eq!(formed.batch.records, [(uid(), None)], "then a tombstone, once the position has passed");
    rig.keep(&formed.batch);
    rig.table.committed(formed.in_flight);
    assert!(rig.table.is_empty() && rig.told.is_empty());
}

#[test]
fn no_tombstone_while_a_list_is_under_way() {
    let mut rig = Rig::new();
    whole_life(&mut rig);
    rig.listing = Some(ResourceVersion::default());
    assert_eq!(rig.form().batch.records, [], "the snapshot may still show the pod");
    rig.see(3);
    rig.commit_all();
    assert_eq!(rig.story(), STORY, "and showing it tells nothing anew");
}

#[test]
fn no_tombstone_before_the_position_has_passed() {
    let mut rig = Rig::new();
    // Another pod's observation is not committed yet.
    rig.table.streams[0].opened(ResourceVersion(0));
    whole_life(&mut rig);
    assert_eq!(rig.form().batch.records, [], "a successor's watch would show the pod again");
}

#[test]
fn an_unknown_commit_at_any_point_leaves_the_same_story() {
    // At each of the commits of a life: it happened, or it did not, and nobody says which.
    for (failing, happened) in (0..5).flat_map(|n| [(n, false), (n, true)]) {
        let mut rig = Rig::new();
        let mut commits = 0;
        for version in 1..=4 {
            if version == 4 {
                rig.lose(4)
            } else {
                rig.see(version)
            }
            while rig.table.has_ready() {
                let formed = rig.form();
                let unknown = commits == failing;
                commits += 1;
                if !unknown || happened {
                    rig.keep(&formed.batch);
                }
                let wanted = if unknown {
                    rig.table.aborted(formed.in_flight);
                    rig.table.restore(rig.told.clone(), HashSet::new())
                } else {
                    rig.table.committed(formed.in_flight)
                };
                for target in wanted {
                    rig.table.capturing(&target.target.uid);
                    rig.table.captured(&target.target.uid, Captured::default());
                }
            }
        }
        assert_eq!(rig.story(), STORY, "commit {failing} unknown, happened: {happened}");
        assert_eq!(rig.table.captures_held(), 0);
        assert_eq!(rig.table.streams[0].after_commit(), ResourceVersion(4), "nothing holds the position back");
    }
}

#[test]
fn what_is_newer_waits_beside_what_is_in_flight_and_survives_an_abort() {
    let mut rig = Rig::new();
    rig.see(1);
    let formed = rig.form();
    rig.see(2);
    rig.lose(4);
    assert!(!rig.table.has_ready(), "one decision in flight per pod");
    assert_eq!(rig.table.streams[0].after_commit(), ResourceVersion(1), "position stays below what waits");
    rig.table.aborted(formed.in_flight);
    assert_eq!(rig.table.streams[0].after_commit(), ResourceVersion(0), "and below what was aborted");
    rig.commit_all();
    assert_eq!(rig.story(), STORY);
}

#[test]
fn the_going_waits_for_the_capture() {
    let mut rig = Rig::new();
    rig.see(3);
    let formed = rig.form();
    rig.keep(&formed.batch);
    let targets = rig.table.committed(formed.in_flight);
    assert_eq!(targets.len(), 1);
    rig.table.capturing(&uid());
    rig.lose(4);
    assert!(!rig.table.has_ready());
    let captured = Captured { stdout: Some("out".into()), ..Captured::default() };
    rig.table.captured(&uid(), captured);
    rig.commit_all();
    assert_eq!(rig.story(), STORY);
    let Body::Ended(ended) = &rig.events[2].body else { panic!("not an end") };
    assert_eq!(ended.captured.stdout.as_deref(), Some("out"));
}

#[test]
fn a_restored_verdict_asks_for_its_capture_again() {
    let mut rig = Rig::new();
    rig.see(3);
    let formed = rig.form();
    rig.keep(&formed.batch);
    // Dies here: the verdict is committed, the capture never began.
    let mut next = Rig { told: rig.told.clone(), events: rig.events.clone(), ..Rig::new() };
    let wanted = next.table.restore(rig.told, HashSet::new());
    assert_eq!(wanted.len(), 1);
    next.table.capturing(&uid());
    next.table.captured(&uid(), Captured::default());
    next.commit_all();
    assert_eq!(next.story(), STORY[..3]);
}

#[test]
fn a_pod_that_left_the_selection_tells_nothing_until_it_returns() {
    let mut rig = Rig::new();
    rig.see(2);
    rig.commit_all();
    assert!(rig.table.left(&uid(), ResourceVersion(2), Instant::now()));
    rig.commit_all();
    assert!(rig.told[&uid()].left && rig.story() == STORY[..2]);
    assert!(!rig.table.left(&uid(), ResourceVersion(2), Instant::now()), "said once");
    rig.see(3);
    rig.commit_all();
    assert_eq!(rig.story(), STORY[..3], "its story goes on where it stopped");
}

#[test]
fn a_going_holds_the_position_also_beside_what_holds_nothing() {
    let mut rig = Rig::new();
    rig.table.observe(0, pod(3), Instant::now(), Source::List);
    rig.table.streams[0].progress(ResourceVersion(3));
    assert_eq!(rig.table.streams[0].after_commit(), ResourceVersion(3), "a LIST shows it again");
    rig.lose(4);
    assert_eq!(rig.table.streams[0].after_commit(), ResourceVersion(3), "nobody shows its going again");
}

#[test]
fn a_going_that_was_seen_stays_one_that_was_seen() {
    let mut rig = Rig::new();
    rig.lose(4);
    let missing = Gone { observed: false, version: ResourceVersion(9), as_of: ResourceVersion(9), listed: true };
    rig.table.gone(0, &uid(), None, missing, Instant::now());
    rig.commit_all();
    let Body::Terminated { observed, .. } = rig.events[3].body else { panic!("not a going") };
    assert!(observed);
}

/// A DELETED is judged by a GET, which takes its time and may be ahead of the watch.
#[test]
fn a_going_that_a_get_finds_before_the_watch_tells_the_newest_state() {
    let going = Gone { observed: true, version: ResourceVersion(2), as_of: ResourceVersion(5), listed: false };
    for seen_first in [false, true] {
        let mut rig = Rig::new();
        rig.see(1);
        rig.commit_all();
        if seen_first {
            rig.see(3);
        }
        rig.table.gone(0, &uid(), Some(pod(2)), going, Instant::now());
        if !seen_first {
            rig.see(3);
        }
        rig.commit_all();
        assert_eq!(rig.story(), STORY, "seen first: {seen_first}");
    }
}

#[test]
fn a_going_that_a_get_found_is_remembered_until_the_watch_has_come_so_far() {
    let mut rig = Rig::new();
    rig.see(1);
    let going = Gone { observed: true, version: ResourceVersion(2), as_of: ResourceVersion(5), listed: false };
    rig.table.gone(0, &uid(), Some(pod(2)), going, Instant::now());
    rig.commit_all();
    let told = rig.story();
    rig.see(3);
    rig.commit_all();
    assert_eq!(rig.form().batch.records, [], "the watch may bring more of it");
    assert_eq!(rig.story(), told, "INV-6: and that is told no more");
    rig.table.streams[0].progress(ResourceVersion(5));
    assert_eq!(rig.form().batch.records, [(uid(), None)]);
}

#[test]
fn the_position_stays_at_what_an_unknown_commit_reached() {
    let mut rig = Rig::new();
    rig.see(1);
    let formed = rig.form();
    let position = Position { streams: rig.table.positions(), ..Position::default() };
    rig.keep(&formed.batch);
    rig.table.aborted(formed.in_flight);
    assert_eq!(rig.table.positions().get("runs"), None, "nobody knows yet");
    rig.table.reached(Some(&position));
    rig.table.restore(rig.told.clone(), HashSet::new());
    assert_eq!(rig.table.positions()["runs"], ResourceVersion(1), "INV-7");
}

#[test]
fn nothing_is_told_of_a_pod_whose_record_cannot_be_read() {
    let mut rig = Rig::new();
    rig.table.restore(ByUid::<Tracked>::default(), HashSet::from([uid()]));
    whole_life(&mut rig);
    assert!(rig.story().is_empty() && rig.told.is_empty());
}

#[test]
fn a_namespace_that_is_no_longer_watched_is_left_alone() {
    let mut rig = Rig::new();
    rig.see(2);
    rig.commit_all();
    let mut next = Table::new(vec![Stream::new("elsewhere", None)]);
    next.restore(rig.told, HashSet::new());
    assert!(next.is_empty() && !next.has_ready());
}

/// The pod in this state at another version.
fn pod_at(state: u64, version: u64) -> Box<Pod> {
    let mut pod = pod(state);
    pod.metadata.resource_version = ResourceVersion(version);
    pod
}

#[test]
fn a_store_reset_in_the_middle_of_anything_makes_nothing_stale() {
    type Middle = fn(&mut Rig);
    let cases: [(&str, Middle); 4] = [
        ("waiting to be decided", |_| {}),
        ("committed", |rig| rig.commit_all()),
        ("in flight, then committed", |rig| {
            let formed = rig.form();
            reset(rig);
            rig.keep(&formed.batch);
            rig.table.committed(formed.in_flight);
        }),
        ("in flight, then aborted", |rig| {
            let formed = rig.form();
            reset(rig);
            rig.table.aborted(formed.in_flight);
            rig.table.restore(rig.told.clone(), HashSet::new());
        }),
    ];
    for (name, middle) in cases {
        let mut rig = Rig::new();
        rig.table.observe(0, pod_at(2, 200), Instant::now(), Source::Watch);
        rig.table.streams[0].progress(ResourceVersion(200));
        middle(&mut rig);
        if rig.table.streams[0].era() == 0 {
            reset(&mut rig);
        }
        rig.table.observe(0, pod_at(3, 101), Instant::now(), Source::Watch);
        rig.table.streams[0].progress(ResourceVersion(101));
        rig.commit_all();
        assert_eq!(rig.story(), STORY[..3], "{name}");
        assert_eq!(rig.table.streams[0].after_commit(), ResourceVersion(101), "{name}: the position of the new store");
        assert_eq!(rig.told[&uid()].resource_version, ResourceVersion(101), "{name}");
    }
}

/// As the worker does it.
fn reset(rig: &mut Rig) {
    rig.table.streams[0].reset(ResourceVersion(100));
    rig.table.forget_versions(0);
}

#[test]
fn a_record_read_again_after_a_reset_is_not_taken_for_newer() {
    let mut rig = Rig::new();
    rig.table.observe(0, pod_at(2, 200), Instant::now(), Source::Watch);
    rig.commit_all();
    reset(&mut rig);
    let formed = rig.form();
    // Nobody knows whether it was committed; it was not.
    rig.table.aborted(formed.in_flight);
    rig.table.restore(rig.told.clone(), HashSet::new());
    rig.table.observe(0, pod_at(3, 101), Instant::now(), Source::Watch);
    rig.commit_all();
    assert_eq!(rig.story(), STORY[..3]);
}

#[test]
fn a_record_in_flight_during_a_reset_is_written_anew() {
    let mut rig = Rig::new();
    rig.table.observe(0, pod_at(2, 200), Instant::now(), Source::Watch);
    let formed = rig.form();
    reset(&mut rig);
    rig.keep(&formed.batch);
    rig.table.committed(formed.in_flight);
    assert_eq!(rig.told[&uid()].resource_version, ResourceVersion(200));
    rig.commit_all();
    assert_eq!(
        rig.told[&uid()].resource_version,
        ResourceVersion(0),
        "a restart would take all that follows for stale"
    );
}

#[test]
fn a_consistent_list_with_a_pod_older_than_its_record_is_of_another_store() {
    let mut rig = Rig::new();
    rig.table.observe(0, pod_at(2, 200), Instant::now(), Source::Watch);
    rig.commit_all();
    let cases = [
        ("the same", 200, 200, false),
        ("newer", 210, 205, false),
        ("older, by a LIST that is older too", 199, 150, false),
        ("older, by a newer LIST", 200, 150, true),
        ("its version cannot be read", 200, 0, false),
    ];
    for (name, list, version, expected) in cases {
        let listed = Decoded::Whole(*pod_at(2, version));
        assert_eq!(rig.table.contradicts(ResourceVersion(list), &listed), expected, "{name}");
    }
}

#[path = "table_claims_tests.rs"]
mod claims;
#[path = "table_clock_tests.rs"]
mod clock;
#[path = "table_followed_tests.rs"]
mod followed;
#[path = "table_gone_tests.rs"]
mod gone;
#[path = "table_reset_tests.rs"]
mod reset;

#[test]
fn no_further_page_is_taken_while_many_wait() {
    let mut rig = Rig::new();
    for n in 0..READY_MAX {
        assert!(rig.table.has_room(READY_MAX), "{n} wait");
        let mut pod = pod(1);
        pod.metadata.uid = PodUid(format!("u-{n}").into());
        rig.table.observe(0, pod, Instant::now(), Source::List);
    }
    assert!(!rig.table.has_room(READY_MAX));
    let formed = rig.form();
    assert_eq!(formed.batch.events.len(), BATCH_PODS_MAX);
    assert!(rig.table.has_room(READY_MAX), "what is on its way waits no more");
}
