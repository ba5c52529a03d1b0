//! A cluster whose store was reset, as the changelog remembers it.

use super::*;

#[test]
fn a_reset_store_is_remembered_in_the_changelog() {
    let mut rig = Rig::new();
    rig.see(2);
    rig.commit_all();
    assert_eq!(rig.told[&uid()].resource_version, ResourceVersion(2));
    rig.table.streams[0].reset(ResourceVersion(1));
    rig.table.forget_versions(0);
    rig.commit_all();
    assert_eq!(
        rig.told[&uid()].resource_version,
        ResourceVersion(0),
        "else a restart takes all that follows for stale"
    );
    assert_eq!(rig.story(), STORY[..2]);
}

#[test]
fn a_reset_store_is_found_again_until_every_record_is_rewritten() {
    let mut rig = Rig::new();
    for n in 0..=TOMBSTONES_MAX {
        let mut pod = pod(1);
        pod.metadata.uid = PodUid(format!("u-{n}").into());
        rig.table.observe(0, pod, Instant::now(), Source::List);
    }
    rig.table.streams[0].progress(ResourceVersion(9));
    rig.commit_all();
    let formed = rig.form();
    rig.table.committed(formed.in_flight);
    rig.table.streams[0].commit(ResourceVersion(9));
    rig.table.streams[0].reset(ResourceVersion(5));
    rig.table.forget_versions(0);
    let first = rig.form();
    assert_eq!(first.batch.records.len(), TOMBSTONES_MAX);
    assert_eq!(
        rig.table.positions()["runs"],
        ResourceVersion(9),
        "a successor's LIST is older: it finds the reset, too"
    );
    rig.table.committed(first.in_flight);
    let last = rig.form();
    assert_eq!((last.batch.records.len(), rig.table.positions()["runs"]), (1, ResourceVersion(5)));
    rig.table.aborted(last.in_flight);
    assert_eq!(rig.table.positions()["runs"], ResourceVersion(9), "it came to nothing");
    let last = rig.form();
    rig.table.committed(last.in_flight);
    assert_eq!(rig.table.positions()["runs"], ResourceVersion(5));
}
