//! How far the watch streams have been worked through. Pure.
//!
//! The position of a stream is the highest resourceVersion such that every observation up to it is committed or needed
//! nothing: where a successor's watch may begin. It never goes back (tombstones rest on it, INV-7).

use std::collections::BTreeMap;

use crate::watch::pod::ResourceVersion;

/// One watch stream's progress.
#[derive(Debug, Default)]
pub struct Stream {
    /// Name in positions: the namespace, or "" for all.
    pub name: String,
    /// The newest version that the watch has delivered.
    seen: ResourceVersion,
    /// Observations that are neither committed nor part of an open transaction, with how many there are of each
    /// version: that of a LIST can be the same as that of an event, and each holds the position by itself.
    open: BTreeMap<ResourceVersion, usize>,
    /// Observations in the open transaction.
    in_flight: Vec<ResourceVersion>,
    /// The position in the changelog.
    committed: ResourceVersion,
    /// Counts the resets of the cluster's store: versions of an earlier era mean nothing any more.
    era: u32,
    /// The position of the era before, while records may still stand in the changelog with versions of that.
    before_reset: Option<ResourceVersion>,
}

impl Stream {
    /// A stream that begins at `from` (what the changelog holds), or nowhere yet.
    pub fn new(name: &str, from: Option<ResourceVersion>) -> Self {
        let from = from.unwrap_or_default();
        Self { name: name.into(), seen: from, committed: from, ..Self::default() }
    }

    /// The newest version that the watch has delivered.
    pub fn seen(&self) -> ResourceVersion {
        self.seen
    }

    /// The position in the changelog.
    pub fn committed(&self) -> ResourceVersion {
        self.committed
    }

    /// How often the cluster's store was reset.
    pub fn era(&self) -> u32 {
        self.era
    }

    /// The watch has delivered everything up to here.
    pub fn progress(&mut self, version: ResourceVersion) {
        self.seen = self.seen.max(version);
    }

    /// An observation is waiting to be worked through.
    pub fn opened(&mut self, version: ResourceVersion) {
        *self.open.entry(version).or_default() += 1;
    }

    /// It needed nothing.
    pub fn settled(&mut self, version: ResourceVersion) {
        if let Some(count) = self.open.get_mut(&version) {
            *count -= 1;
            if *count == 0 {
                self.open.remove(&version);
            }
        }
    }

    /// It becomes part of the open transaction.
    pub fn taken(&mut self, version: ResourceVersion) {
        self.settled(version);
        self.in_flight.push(version);
    }

    /// The position that is true once the open transaction is committed.
    pub fn after_commit(&self) -> ResourceVersion {
        let below =
            self.open.first_key_value().map_or(self.seen, |(first, _)| ResourceVersion(first.0.saturating_sub(1)));
        below.min(self.seen).max(self.committed)
    }

    /// The open transaction is committed, with this position.
    pub fn commit(&mut self, position: ResourceVersion) {
        self.in_flight.clear();
        self.committed = self.committed.max(position);
    }

    /// The open transaction came to nothing: its observations are open again.
    pub fn abort(&mut self) {
        for version in std::mem::take(&mut self.in_flight) {
            self.opened(version);
        }
    }

    /// The cluster's store was reset: versions begin anew, below what we had seen. Nothing of the new ones is in the
    /// changelog yet.
    pub fn reset(&mut self, version: ResourceVersion) {
        let (name, era) = (std::mem::take(&mut self.name), self.era + 1);
        let known = Some(self.committed).filter(|committed| *committed > ResourceVersion::default());
        let before_reset = self.before_reset.max(known);
        *self = Self { name, seen: version, era, before_reset, ..Self::default() };
    }

    /// No record of the era before stands in the changelog any more.
    pub fn forget_reset(&mut self) {
        self.before_reset = None;
    }

    /// The changelog's word of how far this was worked through.
    pub fn reached(&mut self, position: ResourceVersion) {
        // Ours, of the era before: it counts other versions.
        if self.before_reset != Some(position) {
            self.commit(position);
        }
    }

    /// What is to stand in the changelog. Who dies while records of the era before are left leaves that era's position
    /// too: by it the successor finds the reset again, instead of taking what these pods show for stale.
    fn told(&self, all_rewritten: bool) -> ResourceVersion {
        self.before_reset.filter(|_| !all_rewritten).unwrap_or_else(|| self.after_commit())
    }
}

/// All streams' positions, for the changelog. A stream that was never listed has none: version 0 is no place to watch from.
/// `all_rewritten`: with what is committed beside them, no record of before a reset is left.
pub fn positions(streams: &[Stream], all_rewritten: bool) -> BTreeMap<String, ResourceVersion> {
    let known = streams.iter().map(|s| (s.name.clone(), s.told(all_rewritten)));
    known.filter(|(_, position)| *position > ResourceVersion::default()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rv(v: u64) -> ResourceVersion {
        ResourceVersion(v)
    }

    #[test]
    fn position_stays_below_what_is_not_committed() {
        let mut s = Stream::new("", Some(rv(10)));
        s.progress(rv(15));
        s.opened(rv(12));
        s.opened(rv(15));
        assert_eq!(s.after_commit(), rv(11));
        s.taken(rv(12));
        assert_eq!(s.after_commit(), rv(14), "what the open transaction holds is committed with it");
        s.abort();
        assert_eq!(s.after_commit(), rv(11), "an aborted transaction gives its observations back");
        s.taken(rv(12));
        s.commit(rv(14));
        s.settled(rv(15));
        assert_eq!((s.after_commit(), s.committed()), (rv(15), rv(14)));
    }

    #[test]
    fn a_stream_that_was_never_listed_has_no_position() {
        let streams = [Stream::new("a", Some(rv(7))), Stream::new("b", None)];
        assert_eq!(positions(&streams, true), BTreeMap::from([("a".to_owned(), rv(7))]));
    }

    #[test]
    fn two_observations_of_one_version_hold_the_position_each_by_itself() {
        let mut s = Stream::new("", Some(rv(10)));
        s.progress(rv(15));
        s.opened(rv(12));
        s.opened(rv(12));
        s.settled(rv(12));
        assert_eq!(s.after_commit(), rv(11));
        s.settled(rv(12));
        assert_eq!(s.after_commit(), rv(15));
    }

    #[test]
    fn until_all_records_are_rewritten_the_position_is_that_of_before_the_reset() {
        let mut s = Stream::new("a", Some(rv(20)));
        s.reset(rv(3));
        s.progress(rv(4));
        let told = |s: &Stream, all| positions(std::slice::from_ref(s), all)["a"];
        assert_eq!((told(&s, false), told(&s, true)), (rv(20), rv(4)));
        s.reached(rv(20));
        assert_eq!(s.committed(), rv(0), "that it stands there says nothing of this era");
        s.reset(rv(2));
        assert_eq!(told(&s, false), rv(20), "reset once more");
        s.reached(rv(2));
        s.forget_reset();
        assert_eq!((told(&s, false), s.committed()), (rv(2), rv(2)));
    }

    #[test]
    fn position_never_goes_back() {
        let mut s = Stream::new("", Some(rv(20)));
        s.opened(rv(5));
        assert_eq!(s.after_commit(), rv(20), "a LIST shows an object that did not change for long");
        s.reset(rv(3));
        assert_eq!((s.after_commit(), s.seen()), (rv(3), rv(3)), "only a reset store takes it back");
        assert!(s.after_commit() > s.committed(), "which the changelog has to hear of, also when there is no news");
    }
}
