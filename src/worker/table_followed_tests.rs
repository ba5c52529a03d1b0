//! Pods that went while their output was followed.

use super::*;

#[test]
fn a_going_waits_for_what_was_followed_and_tells_it() {
    // With a last state that brings the verdict, and without one.
    for last in [Some(pod(3)), None] {
        let mut rig = Rig::new();
        rig.see(1);
        rig.see(2);
        rig.commit_all();
        let (version, captured) = (ResourceVersion(4), Some("followed".to_owned()));
        let gone = Gone { observed: true, version, as_of: version, listed: false };
        rig.table.gone(0, &uid(), last, gone, Instant::now());
        rig.table.capturing(&uid());
        rig.commit_all();
        assert_eq!(rig.story(), STORY[..2], "its output is on its way");
        rig.table.captured(&uid(), Captured { stdout: captured.clone(), ..Captured::default() });
        rig.commit_all();
        let Body::Ended(ended) = &rig.events[2].body else { panic!("{:?}", rig.story()) };
        assert_eq!((&ended.captured.stdout, rig.events.len()), (&captured, 4));
        assert_eq!(rig.table.captures_held(), 0);
    }
}

#[test]
fn what_was_followed_is_not_asked_for_again_when_the_verdict_is_committed() {
    for is_here in [false, true] {
        let mut rig = Rig::new();
        rig.see(1);
        rig.see(3);
        let formed = rig.form();
        rig.keep(&formed.batch);
        // It goes while its verdict is on its way.
        let (version, stdout) = (ResourceVersion(4), Some("followed".to_owned()));
        let gone = Gone { observed: true, version, as_of: version, listed: false };
        rig.table.gone(0, &uid(), Some(pod(3)), gone, Instant::now());
        rig.table.capturing(&uid());
        let followed = Captured { stdout, ..Captured::default() };
        if is_here {
            rig.table.captured(&uid(), followed.clone());
        }
        assert_eq!(rig.table.committed(formed.in_flight), [], "is here: {is_here}");
        rig.table.captured(&uid(), followed.clone());
        rig.commit_all();
        let Body::Ended(ended) = &rig.events[2].body else { panic!("{:?}", rig.story()) };
        assert_eq!((&ended.captured, rig.story()), (&followed, STORY.to_vec()));
    }
}
