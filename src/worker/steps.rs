//! The steps that one pod is due, as one decision. Pure.

use jiff::Timestamp;

use super::pending::Pending;
use crate::{
    lifecycle::{
        decide::{Decision, Input, step},
        event::{Captured, EarlierEnd},
        rules::Rules,
        tracked::Tracked,
    },
    watch::pod::PodUid,
};

/// What one slot is due.
pub(super) struct Due<'a> {
    pub(super) captured: Option<&'a Captured>,
    pub(super) pending: Option<&'a Pending>,
    /// A clock may have run down.
    pub(super) tick: bool,
    /// Another pod of the same execution that has ended.
    pub(super) earlier: Option<&'a EarlierEnd>,
}

/// The steps that one slot is due: its capture, then its newest state, then its going; a clock is looked at last, by what
/// is known then. Their events are told in one transaction, their last record is what is remembered.
pub(super) fn chain(uid: &PodUid, told: Option<&Tracked>, due: &Due<'_>, now: Timestamp, rules: &Rules) -> Decision {
    let Due { captured, pending, tick, earlier } = *due;
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
        Some(Pending { pod: Some(pod), .. }) => step(uid, between, Input::Observed { pod, earlier, now }, rules),
        _ => Decision::default(),
    };
    let tracked = second.tracked.or(first.tracked);
    let left = pending.filter(|p| p.gone.is_none()).and_then(|p| p.left);
    let left = left.map(|version| step(uid, tracked.as_ref().or(told), Input::Left { version }, rules));
    let tracked = left.and_then(|l| l.tracked).or(tracked);
    let third = match tracked.as_ref().or(told).filter(|_| tick) {
        Some(tracked) => step(uid, Some(tracked), Input::Tick { now }, rules),
        None => Decision::default(),
    };
    let mut events = first.events;
    events.extend(second.events);
    events.extend(third.events);
    Decision { events, tracked: third.tracked.or(tracked), tick_at: third.tick_at.or(second.tick_at), ..second }
}

/// Bytes of captured output.
pub(super) fn size(captured: &Captured) -> usize {
    captured.stdout.as_ref().map_or(0, String::len) + captured.stderr.as_ref().map_or(0, String::len)
}
