//! The steps that one pod is due, as one decision. Pure.

use jiff::Timestamp;

use super::pending::Pending;
use crate::{
    lifecycle::{
        decide::{Decision, Input, step},
        event::Captured,
        rules::Rules,
        tracked::Tracked,
    },
    watch::pod::PodUid,
};

/// The steps that one slot is due: its capture, then its newest state, then its going. Their events are told in one
/// transaction, their last record is what is remembered.
pub(super) fn chain(
    uid: &PodUid,
    told: Option<&Tracked>,
    pending: Option<&Pending>,
    captured: Option<&Captured>,
    now: Timestamp,
    rules: &Rules,
) -> Decision {
    let first = match captured {
        Some(captured) => step(uid, told, Input::Captured { captured: captured.clone(), now }, rules),
        None => Decision::default(),
    };
    // Followed while it was being deleted, and no verdict had asked for it: its going may bring one.
    let followed = captured.filter(|_| first.tracked.is_none());
    let between = first.tracked.as_ref().or(told);
    let second = match pending {
        Some(Pending { pod: last, gone: Some(gone), .. }) => {
            let (observed, version) = (gone.observed, gone.as_of);
            step(
                uid,
                between,
                Input::Gone { last: last.as_deref(), observed, followed: followed.cloned(), version, now },
                rules,
            )
        }
        Some(Pending { pod: Some(pod), .. }) => step(uid, between, Input::Observed { pod, now }, rules),
        _ => Decision::default(),
    };
    let tracked = second.tracked.or(first.tracked);
    let left = pending.filter(|p| p.gone.is_none()).and_then(|p| p.left);
    let left = left.map(|version| step(uid, tracked.as_ref().or(told), Input::Left { version }, rules));
    let mut events = first.events;
    events.extend(second.events);
    Decision { events, tracked: left.and_then(|l| l.tracked).or(tracked), ..second }
}

/// Bytes of captured output.
pub(super) fn size(captured: &Captured) -> usize {
    captured.stdout.as_ref().map_or(0, String::len) + captured.stderr.as_ref().map_or(0, String::len)
}
