//! Pods that were told as gone and are no tombstones yet: first those that are remembered for some time after their end, in
//! the order of these ends, then those whose time is over. Pure.
//!
//! A busy platform has hundreds of thousands that are remembered, and each transaction asks which are due: only those are
//! looked at. Nobody takes out what changed meanwhile; whoever asks says of each what became of it.

use std::collections::BTreeSet;

use jiff::Timestamp;

use crate::{
    lifecycle::tracked::Kept,
    watch::pod::{PodUid, ResourceVersion},
};

/// One that is gone.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct GonePod {
    pub(super) stream: u32,
    /// Of its going.
    pub(super) version: ResourceVersion,
    pub(super) uid: PodUid,
}

/// What became of one that is due.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fate {
    /// It can become a tombstone.
    Over,
    /// Something of it is still under way.
    Waits,
    /// It ended at this time, and is to be remembered a while.
    Remembered(Timestamp),
    /// It is known no more, or not as gone with this version.
    Unknown,
}

/// All of them.
#[derive(Debug, Default)]
pub(super) struct GonePods {
    /// By when they ended.
    remembered: BTreeSet<(Timestamp, GonePod)>,
    /// Remembered no more.
    due: BTreeSet<GonePod>,
}

impl GonePods {
    fn insert(&mut self, gone: GonePod, ended: Option<Timestamp>) {
        match ended {
            Some(ended) => drop(self.remembered.insert((ended, gone))),
            None => drop(self.due.insert(gone)),
        }
    }

    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.remembered.len() + self.due.len()
    }

    /// Forgets all.
    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }

    /// Those that ended until then are due.
    pub(super) fn fall_due(&mut self, until: Timestamp) {
        while self.remembered.first().is_some_and(|(ended, _)| *ended <= until) {
            self.due.extend(self.remembered.pop_first().map(|(_, gone)| gone));
        }
    }

    /// Up to `max` of a stream that are due and whose going is at most this version; they stay here until `judge` does not know
    /// them any more.
    pub(super) fn over(
        &mut self,
        stream: u32,
        until: ResourceVersion,
        max: usize,
        judge: impl Fn(&GonePod) -> Fate,
    ) -> Vec<PodUid> {
        let first = GonePod { stream, version: ResourceVersion::default(), uid: PodUid::default() };
        let (mut over, mut changed) = (Vec::new(), Vec::new());
        for gone in self.due.range(first..).take_while(|gone| gone.stream == stream && gone.version <= until) {
            if over.len() == max {
                break;
            }
            match judge(gone) {
                Fate::Over => over.push(gone.uid.clone()),
                Fate::Waits => {}
                Fate::Remembered(at) => changed.push((gone.clone(), Some(at))),
                Fate::Unknown => changed.push((gone.clone(), None)),
            }
        }
        for (gone, ended) in changed {
            self.due.remove(&gone);
            if ended.is_some() {
                self.insert(gone, ended);
            }
        }
        over
    }
}

impl Extend<(GonePod, Option<Timestamp>)> for GonePods {
    fn extend<T: IntoIterator<Item = (GonePod, Option<Timestamp>)>>(&mut self, pods: T) {
        pods.into_iter().for_each(|(gone, ended)| self.insert(gone, ended));
    }
}

/// When it ended, as far as that is remembered: when it was told, where that is known. A node's clock may be years ahead.
pub(super) fn remembered_from(tracked: &Kept) -> Option<Timestamp> {
    tracked.end().and_then(|end| end.told_at.or(end.at))
}

/// The pod of a record, and when it ended if it ever did; `None`: it was not told as gone.
pub(super) fn of(stream: u32, uid: &PodUid, tracked: &Kept) -> Option<(GonePod, Option<Timestamp>)> {
    let gone = GonePod { stream, version: tracked.gone()?, uid: uid.clone() };
    Some((gone, remembered_from(tracked)))
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).expect("a time")
    }

    fn gone(n: u64) -> GonePod {
        GonePod { stream: 0, version: ResourceVersion(n), uid: PodUid(format!("u-{n}").into()) }
    }

    fn uids(numbers: impl IntoIterator<Item = u64>) -> Vec<PodUid> {
        numbers.into_iter().map(|n| gone(n).uid).collect()
    }

    #[test]
    fn only_those_that_are_due_are_looked_at() {
        let mut pods = GonePods::default();
        for n in 0..10_000 {
            pods.insert(gone(n), Some(at(n as i64)));
        }
        pods.fall_due(at(2));
        let looked_at = Cell::new(0);
        let over = pods.over(0, ResourceVersion(99_999), 2000, |_| {
            looked_at.set(looked_at.get() + 1);
            Fate::Over
        });
        assert_eq!((over, looked_at.get()), (uids(0..=2), 3));
    }

    #[test]
    fn one_is_due_when_it_is_remembered_no_more_and_the_position_has_passed_its_going() {
        let mut pods = GonePods::default();
        pods.insert(gone(5), Some(at(0)));
        pods.insert(gone(6), None);
        let over = |pods: &mut GonePods, ended, until| {
            pods.fall_due(at(ended));
            pods.over(0, ResourceVersion(until), 2000, |_| Fate::Over)
        };
        assert_eq!(over(&mut pods, -1, 9), uids([6]), "the other one is remembered");
        assert_eq!(over(&mut pods, 0, 4), []);
        assert_eq!(over(&mut pods, 0, 5), uids([5]));
        assert_eq!(over(&mut pods, 0, 9), uids([5, 6]), "until they are known no more");
        assert_eq!(pods.over(0, ResourceVersion(9), 1, |_| Fate::Over), uids([5]));
        assert_eq!(pods.over(1, ResourceVersion(9), 2000, |_| Fate::Over), [], "of another stream");
    }

    #[test]
    fn what_became_of_one_that_is_due_is_taken_in() {
        let mut pods = GonePods::default();
        for n in 1..=4 {
            pods.insert(gone(n), None);
        }
        let judge = |gone: &GonePod| match gone.version.0 {
            1 => Fate::Waits,
            2 => Fate::Unknown,
            3 => Fate::Remembered(at(1000)),
            _ => Fate::Over,
        };
        assert_eq!(pods.over(0, ResourceVersion(9), 2000, judge), uids([4]));
        assert_eq!(pods.over(0, ResourceVersion(9), 2000, |_| Fate::Over), uids([1, 4]));
        pods.fall_due(at(1000));
        assert_eq!(pods.over(0, ResourceVersion(9), 2000, |_| Fate::Over), uids([1, 3, 4]));
    }
}
