//! What is kept of a pod that is over, or about to be: times of eight bytes, where they have room in them.

use jiff::Timestamp;

use super::End;
use crate::{
    lifecycle::event::{Cause, EventType},
    watch::pod::ResourceVersion,
};

/// Nanoseconds since 1970, to the years 1677 to 2262.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Moment(i64);

impl Moment {
    const NONE: Self = Self(i64::MIN);

    /// `None`: it has no room.
    fn of(time: Option<Timestamp>) -> Option<Self> {
        let Some(time) = time else { return Some(Self::NONE) };
        i64::try_from(time.as_nanosecond()).ok().map(Self).filter(|moment| *moment != Self::NONE)
    }

    fn time(self) -> Option<Timestamp> {
        (self != Self::NONE).then(|| Timestamp::from_nanosecond(self.0.into()).expect("it was one"))
    }
}

/// `deletion_timestamp`, `end` and `gone` of a record.
pub(super) type Parts = (Option<Timestamp>, Option<End>, Option<ResourceVersion>);

/// The same, packed.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Late {
    deletion: Moment,
    at: Moment,
    told_at: Moment,
    gone: ResourceVersion,
    exit_code: i32,
    cause: Option<Cause>,
    event_type: Option<EventType>,
    is_gone: bool,
    has_end: bool,
    has_exit_code: bool,
}

impl Late {
    /// `None`: a time has no room here.
    pub(super) fn of((deletion, end, gone): Parts) -> Option<Self> {
        let has_end = end.is_some();
        let none = End { exit_code: None, cause: None, event_type: None, at: None, told_at: None };
        // Each field by its name: a new one does not compile until it is kept.
        let End { exit_code, cause, event_type, at, told_at } = end.unwrap_or(none);
        Some(Self {
            deletion: Moment::of(deletion)?,
            at: Moment::of(at)?,
            told_at: Moment::of(told_at)?,
            gone: gone.unwrap_or_default(),
            exit_code: exit_code.unwrap_or_default(),
            cause,
            event_type,
            is_gone: gone.is_some(),
            has_end,
            has_exit_code: exit_code.is_some(),
        })
    }

    pub(super) fn parts(&self) -> Parts {
        (self.deletion.time(), self.end(), self.gone())
    }

    pub(super) fn end(&self) -> Option<End> {
        let Self { cause, event_type, .. } = *self;
        let exit_code = self.has_exit_code.then_some(self.exit_code);
        self.has_end.then(|| End { exit_code, cause, event_type, at: self.at.time(), told_at: self.told_at.time() })
    }

    pub(super) fn gone(&self) -> Option<ResourceVersion> {
        self.is_gone.then_some(self.gone)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn time() -> impl Strategy<Value = Option<Timestamp>> {
        // Mostly of times that have room, else hardly any three of them do.
        let second = prop_oneof![9 => -9_000_000_000_i64..9_000_000_000, 1 => -377_705_023_201_i64..=253_402_207_200];
        let time = (second, 0..1_000_000_000_i32)
            .prop_map(|(second, nanosecond)| Timestamp::new(second, nanosecond).expect("a time"));
        prop::option::of(time)
    }

    proptest! {
        #[test]
        fn what_has_room_comes_back_and_what_has_none_says_so(
            deletion in time(),
            at in time(),
            told_at in time(),
            exit_code in prop::option::of(any::<i32>()),
            gone in prop::option::of(any::<u64>()),
            has_end in any::<bool>(),
        ) {
            let (cause, event_type) = (Some(Cause::NodeLost), Some(EventType::ExecutionFailed));
            let end = has_end.then_some(End { exit_code, cause, event_type, at, told_at });
            let parts = (deletion, end, gone.map(ResourceVersion));
            let times = [deletion, end.and_then(|end| end.at), end.and_then(|end| end.told_at)];
            let fits = times.iter().flatten().all(|time| i64::try_from(time.as_nanosecond()).is_ok());
            match Late::of(parts) {
                Some(late) => prop_assert_eq!(late.parts(), parts),
                None => prop_assert!(!fits),
            }
        }
    }

    #[test]
    fn it_is_small() {
        assert!(size_of::<Late>() <= 48, "{} bytes", size_of::<Late>());
        let now = Timestamp::from_second(1_700_000_000).ok();
        assert!(Late::of((now, None, None)).is_some(), "times of our days have room");
    }
}
