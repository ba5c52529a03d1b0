//! Which fault comes next: each kind once in each of its ways, in an order that the seed decides, then by weight. Pure.

use testkit::clients::fault::Random;

use crate::kind::Kind;

/// Faults in their order, without end.
#[derive(Debug)]
pub(crate) struct Schedule {
    /// Still to come once.
    first: Vec<Kind>,
    /// By weight.
    then: Vec<Kind>,
}

impl Schedule {
    /// Of these kinds.
    pub(crate) fn new(kinds: &[Kind], random: &mut Random) -> Self {
        let mut first: Vec<Kind> = kinds.iter().flat_map(|kind| vec![*kind; kind.ways()]).collect();
        shuffle(&mut first, random);
        let weighted: Vec<Kind> = kinds.iter().flat_map(|kind| vec![*kind; kind.weight()]).collect();
        // Only heavy ones were asked for: then they come again and again.
        let then = if weighted.is_empty() { kinds.to_vec() } else { weighted };
        Self { first, then }
    }

    /// The next one.
    pub(crate) fn next(&mut self, random: &mut Random) -> Kind {
        self.first.pop().unwrap_or_else(|| self.then[below(random, self.then.len())])
    }

    /// Whether each kind has come once in each of its ways.
    pub(crate) fn came_round(&self) -> bool {
        self.first.is_empty()
    }
}

/// Things that are dealt in a random order, none again before all have been.
#[derive(Debug)]
pub(crate) struct Deck<T> {
    all: Vec<T>,
    left: Vec<T>,
}

impl<T: Clone> Deck<T> {
    /// Of these; not empty.
    pub(crate) fn new(all: impl IntoIterator<Item = T>) -> Self {
        Self { all: all.into_iter().collect(), left: Vec::new() }
    }

    /// The next one.
    pub(crate) fn deal(&mut self, random: &mut Random) -> T {
        if self.left.is_empty() {
            self.left.clone_from(&self.all);
            shuffle(&mut self.left, random);
        }
        self.left.pop().expect("a deck has a card")
    }
}

fn shuffle<T>(cards: &mut [T], random: &mut Random) {
    for last in (1..cards.len()).rev() {
        cards.swap(last, below(random, last + 1));
    }
}

/// A number below `limit`, which is not 0.
fn below(random: &mut Random, limit: usize) -> usize {
    usize::try_from(random.number() % limit as u64).expect("below a usize")
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use clap::ValueEnum as _;

    use super::*;

    #[test]
    fn each_kind_comes_once_before_any_comes_again() {
        let (kinds, mut random) = (Kind::value_variants(), Random::new(7));
        let mut schedule = Schedule::new(kinds, &mut random);
        let ways: usize = kinds.iter().map(|kind| kind.ways()).sum();
        let first: Vec<Kind> = (0..ways).map(|_| schedule.next(&mut random)).collect();
        assert!(first.iter().collect::<BTreeSet<_>>().len() == kinds.len() && schedule.came_round());
        assert_eq!(first.iter().filter(|kind| **kind == Kind::CutApi).count(), Kind::CutApi.ways());
        let kills = (0..1000).filter(|_| schedule.next(&mut random) == Kind::Kill).count();
        assert!((300..800).contains(&kills), "mostly leaders are killed: {kills} of 1000");
        let again = |seed| {
            let mut random = Random::new(seed);
            let mut schedule = Schedule::new(kinds, &mut random);
            (0..50).map(|_| schedule.next(&mut random)).collect::<Vec<_>>()
        };
        assert!(again(3) == again(3) && again(3) != again(4), "the seed decides");
    }

    #[test]
    fn a_deck_deals_all_before_any_again() {
        let (mut deck, mut random) = (Deck::new(0..5), Random::new(9));
        for _ in 0..3 {
            assert_eq!((0..5).map(|_| deck.deal(&mut random)).collect::<BTreeSet<_>>().len(), 5);
        }
    }

    #[test]
    fn a_heavy_kind_alone_comes_again_and_again() {
        let mut random = Random::new(1);
        let mut schedule = Schedule::new(&[Kind::Compact], &mut random);
        assert_eq!((0..3).map(|_| schedule.next(&mut random)).collect::<Vec<_>>(), [Kind::Compact; 3]);
    }
}
