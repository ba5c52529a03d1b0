//! The life of one pod as the worker leads it, without I/O: each decision is checked and then remembered.

use std::{collections::HashSet, sync::Arc};

use jiff::{SignedDuration, Timestamp};
use pod_monitor::{
    lifecycle::{
        decide::{Decision, Input, step},
        event::{Body, Captured, EarlierEnd, Event},
        rules::Rules,
        stall::Graces,
        tracked::{STALLS_MAX, Tracked},
        user_rules::UserRules,
        wanted::{Wanted, outstanding, to_follow},
    },
    publish::record::REST_BYTES_MAX,
    watch::pod::{Pod, PodUid, ResourceVersion},
};

use super::told;

/// The settings of every target, with these rules of the user.
pub(super) fn rules(user: Arc<UserRules>) -> Rules {
    let settle_grace = SignedDuration::from_secs(10);
    Rules { cluster_id: told::CLUSTER.into(), settle_grace, stall_graces: Graces::standard(), user, ..Rules::default() }
}

/// Later than anything that a pod may wait for.
pub(super) fn late() -> Timestamp {
    "9000-01-01T00:00:00Z".parse().unwrap()
}

/// One pod.
pub(super) struct Life {
    pub(super) uid: PodUid,
    pub(super) told: Option<Tracked>,
    pub(super) events: Vec<Event>,
    /// Of its changelog record, in bytes.
    record_bytes_max: usize,
    capture: Option<Wanted>,
    ids: HashSet<uuid::Uuid>,
    sequence: u32,
    ended: bool,
}

impl Life {
    /// One that was never seen.
    pub(super) fn new(uid: PodUid) -> Self {
        Self {
            uid,
            told: None,
            events: Vec::new(),
            record_bytes_max: REST_BYTES_MAX,
            capture: None,
            ids: HashSet::new(),
            sequence: 0,
            ended: false,
        }
    }

    /// One whose record may be that large: rules of the user stand in it.
    pub(super) fn with_record_of(uid: PodUid, record_bytes_max: usize) -> Self {
        Self { record_bytes_max, ..Self::new(uid) }
    }

    /// One that a successor finds in the changelog.
    pub(super) fn restored(uid: PodUid, told: Tracked, record_bytes_max: usize) -> Self {
        let capture = outstanding(&uid, &told);
        let (sequence, ended) = (told.sequence, told.end.is_some());
        Self { told: Some(told), capture, sequence, ended, ..Self::with_record_of(uid, record_bytes_max) }
    }

    /// Shows it. Looks again, as a LIST does, and at what is older, as a stale one does: neither may say anything.
    pub(super) fn see(&mut self, pod: &Pod, earlier: Option<&EarlierEnd>, now: Timestamp, rules: &Rules) {
        self.feed(Input::Observed { pod, earlier, now }, rules);
        let again = step(&self.uid, self.told.as_ref(), Input::Observed { pod, earlier, now }, rules);
        assert!(again.events.is_empty() && again.tracked.is_none(), "told twice: {again:?}");
        let older = ResourceVersion(self.told.as_ref().map_or(0, |t| t.resource_version.0).saturating_sub(1));
        if self.told.as_ref().is_some_and(|t| older < t.resource_version) {
            let mut stale = pod.clone();
            stale.metadata.resource_version = older;
            let input = Input::Observed { pod: &stale, earlier: None, now };
            let decision = step(&self.uid, self.told.as_ref(), input, rules);
            assert_eq!(decision, Decision::default(), "INV-5: an older observation changes nothing");
        }
        if let Some(follow) = to_follow(self.told.as_ref(), pod, rules) {
            assert_eq!(follow.target.uid, pod.metadata.uid);
        }
    }

    /// Whether a verdict waits for what the container printed.
    pub(super) fn is_capturing(&self) -> bool {
        self.capture.is_some()
    }

    /// Decides, checks, remembers.
    pub(super) fn feed(&mut self, input: Input<'_>, rules: &Rules) {
        let decision = step(&self.uid, self.told.as_ref(), input.clone(), rules);
        assert_eq!(decision, step(&self.uid, self.told.as_ref(), input, rules), "the same input decides the same");
        let was_gone = self.told.as_ref().is_some_and(|t| t.gone.is_some());
        assert!(!was_gone || decision == Decision::default(), "INV-6: a pod that is gone tells {decision:?}");
        let Decision { events, tracked, capture, .. } = decision;
        assert!(events.is_empty() || tracked.is_some(), "told and not remembered");
        for event in events {
            self.check(&event);
            self.events.push(event);
        }
        if let Some(tracked) = tracked {
            assert_eq!(tracked.sequence, self.sequence, "the record counts what was told");
            assert!(tracked.stalls.len() <= STALLS_MAX);
            let bytes = told::record_bytes(&self.uid, &tracked);
            assert!(bytes <= self.record_bytes_max, "a record of {bytes} bytes");
            self.told = Some(told::remembered(&self.uid, &tracked));
        }
        let verdict = self.told.as_ref().is_some_and(|t| t.verdict.is_some());
        assert!(!(verdict && self.ended), "a verdict after the end");
        self.capture = capture.or(self.capture.take()).filter(|_| verdict);
    }

    fn check(&mut self, event: &Event) {
        assert_eq!(event.sequence, self.sequence + 1, "a gap in the sequence");
        self.sequence = event.sequence;
        assert!(self.ids.insert(event.event_id), "two events with one id: {event:?}");
        assert_eq!(event.pod_uid, self.uid);
        match &event.body {
            Body::Ended(_) => {
                assert!(!self.ended, "a second end");
                self.ended = true;
            }
            Body::Scheduled | Body::Running { .. } => assert!(!self.ended, "{event:?} after the end"),
            Body::Stalled { .. } | Body::Resumed { .. } => assert!(!self.ended, "a stall after the end"),
            Body::Terminated { .. } => {}
        }
        told::check(event);
    }

    /// Its object is gone, whatever it waited for: then its story must be whole.
    pub(super) fn lose(&mut self, last: Option<&Pod>, now: Timestamp, rules: &Rules) {
        let version = last.map(|pod| pod.metadata.resource_version);
        let version = version.or(self.told.as_ref().map(|t| t.resource_version)).unwrap_or_default();
        self.feed(Input::Gone { last, observed: last.is_some(), followed: None, version, now }, rules);
        let Some(tracked) = &self.told else { return };
        assert!(tracked.gone.is_some(), "gone, and not remembered as that");
        if tracked.left {
            return;
        }
        assert!(self.ended, "gone without an end");
        if let Some(last) = self.events.last() {
            assert!(matches!(last.body, Body::Terminated { .. }), "the last word is {last:?}");
        }
    }

    /// The capture that its verdict waits for has ended.
    pub(super) fn captured(&mut self, captured: Captured, now: Timestamp, rules: &Rules) {
        self.feed(Input::Captured { captured, now }, rules);
    }
}
