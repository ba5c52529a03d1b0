//! Which replica is to lead which shard. Pure, and the same in every replica that sees the same.
//!
//! ```text
//!   members that live, holders of the Leases ──▶ plan ──▶ heirs: who takes each shard that nobody leads, at once
//!                                                     └──▶ gift:  one shard that its leader gives away
//! ```
//! Sticky: a shard moves only when its leader is gone, or to even out. Replicas that see different things at one moment
//! may plan differently: the Lease decides then, and the next look mends the balance. Promises, where all see the same:
//! a replica ends with at most ceil(shards / members); one shard moves at a time; nothing moves once it is even.

use std::collections::{BTreeMap, BTreeSet};

use crate::leadership::tenure::ShardId;

/// Identity of a replica.
pub type Member = Box<str>;

/// A shard as its Lease shows it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Seen {
    /// Who leads it; `None`: nobody, or that is not known yet.
    pub holder: Option<Member>,
    /// Who led it before. Where nobody leads it now, that one gave it away or goes, and is not the next one.
    pub last: Option<Member>,
}

/// What is to happen.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Plan {
    /// Who takes a shard that no living member leads.
    pub heirs: BTreeMap<ShardId, Member>,
    /// Which shard its leader gives away, so that the members come out even.
    pub gift: Option<(Member, ShardId)>,
}

/// Plans by what is seen: `shards[k]` is shard k.
pub fn plan(live: &BTreeSet<Member>, shards: &[Seen]) -> Plan {
    let mut loads: BTreeMap<&Member, usize> = live.iter().map(|member| (member, 0)).collect();
    let mut ownerless = Vec::new();
    for (index, seen) in shards.iter().enumerate() {
        match seen.holder.as_ref().and_then(|holder| loads.get_mut(holder)) {
            Some(load) => *load += 1,
            None => ownerless.push(index),
        }
    }
    if ownerless.is_empty() {
        return Plan { heirs: BTreeMap::new(), gift: gift(&loads, shards) };
    }
    let mut heirs = BTreeMap::new();
    for index in ownerless {
        // Whoever let it go, not whoever led it before one that died.
        let seen = &shards[index];
        let last = seen.last.as_ref().filter(|_| seen.holder.is_none() && live.len() > 1);
        let able = loads.iter_mut().filter(|(member, _)| Some(**member) != last);
        // The least busy; of these the first by name.
        if let Some((member, load)) = able.min_by_key(|(_, load)| **load) {
            *load += 1;
            heirs.insert(shard(index), Member::clone(member));
        }
    }
    Plan { heirs, gift: None }
}

/// From the busiest to the least busy, where that makes them more even. Never while a shard has no leader.
fn gift(loads: &BTreeMap<&Member, usize>, shards: &[Seen]) -> Option<(Member, ShardId)> {
    let least = loads.values().min()?;
    // Of equally busy ones the first by name.
    let (giver, most) = loads.iter().rev().max_by_key(|(_, load)| **load)?;
    // From ceil to floor nothing is gained: it would only go back and forth.
    if most - least < 2 {
        return None;
    }
    let held = shards.iter().rposition(|seen| seen.holder.as_ref() == Some(*giver))?;
    Some((Member::clone(giver), shard(held)))
}

fn shard(index: usize) -> ShardId {
    ShardId(u32::try_from(index).expect("shards are counted in u32"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn members(names: &str) -> BTreeSet<Member> {
        names.split_whitespace().map(Member::from).collect()
    }

    /// `a b - b`: shard 0 is led by a, shard 2 by nobody; `-a`: by nobody, after a.
    fn shards(holders: &str) -> Vec<Seen> {
        let seen = |word: &str| match word.strip_prefix('-') {
            Some("") => Seen::default(),
            Some(last) => Seen { holder: None, last: Some(last.into()) },
            None => Seen { holder: Some(word.into()), last: None },
        };
        holders.split_whitespace().map(seen).collect()
    }

    fn heirs(plan: &Plan) -> String {
        let heirs: Vec<String> = plan.heirs.iter().map(|(shard, heir)| format!("{shard}:{heir}")).collect();
        heirs.join(" ")
    }

    #[test]
    fn what_nobody_leads_goes_to_the_least_busy_at_once() {
        for (live, seen, wanted) in [
            ("a", "-", "0:a"),
            ("a", "-a", "0:a"),
            ("a b", "- -", "0:a 1:b"),
            ("a b c", "a a b b c c - -", "6:a 7:b"),
            // c died: its shards are shared by those that are left.
            ("a b", "a a b b c c c c", "4:a 5:b 6:a 7:b"),
            // a gave 0 away or is going: it is not the next one.
            ("a b", "-a b", "0:b"),
            ("", "-", ""),
        ] {
            let plan = plan(&members(live), &shards(seen));
            assert_eq!((heirs(&plan).as_str(), &plan.gift), (wanted, &None), "{live}: {seen}");
        }
    }

    #[test]
    fn the_busiest_gives_one_away_where_that_evens_out_and_only_then() {
        for (live, seen, wanted) in [
            ("a b", "a a", Some(("a", 1))),
            ("a b", "a b", None),
            ("a b", "a", None),
            ("a b c", "a a b b", Some(("a", 1))),
            ("a b c", "a b b c", None),
            ("a b c", "a a a b b b c c", None),
            // Not while one is on its way.
            ("a b", "a a a -a", None),
        ] {
            let plan = plan(&members(live), &shards(seen));
            let wanted = wanted.map(|(giver, shard)| (giver.into(), ShardId(shard)));
            assert_eq!(plan.gift, wanted, "{live}: {seen}");
        }
    }

    /// Carries a plan out, as replicas that see the same do. Gives the number of moves of shards that had a leader.
    fn settle(live: &BTreeSet<Member>, shards: &mut [Seen]) -> usize {
        let mut moves = 0;
        loop {
            let plan = plan(live, shards);
            for (shard, heir) in &plan.heirs {
                let seen = &mut shards[usize::try_from(shard.0).expect("it fits")];
                *seen = Seen { last: seen.holder.take(), holder: Some(heir.clone()) };
            }
            let Some((giver, shard)) = &plan.gift else {
                if plan.heirs.is_empty() {
                    return moves;
                }
                continue;
            };
            moves += 1;
            assert!(moves < 1000, "back and forth: {shards:?}");
            shards[usize::try_from(shard.0).expect("it fits")] = Seen { holder: None, last: Some(giver.clone()) };
        }
    }

    proptest::proptest! {
        /// Members come and go in any order: each time everything is led, evenly, and nothing moved needlessly.
        #[test]
        fn all_is_led_evenly_and_little_moves(count in 1_usize..20, changes in proptest::collection::vec((0_u8..6, proptest::bool::ANY), 1..30)) {
            let mut live = BTreeSet::from([Member::from("m0")]);
            let mut shards = vec![Seen::default(); count];
            settle(&live, &mut shards);
            for (member, comes) in changes {
                let member = Member::from(format!("m{member}"));
                let before = shards.clone();
                if comes { live.insert(member.clone()); } else if live.len() > 1 { live.remove(&member); }
                let moves = settle(&live, &mut shards);
                let loads: Vec<usize> = live.iter().map(|m| shards.iter().filter(|s| s.holder.as_ref() == Some(m)).count()).collect();
                let (most, least) = (loads.iter().max().copied().unwrap_or(0), loads.iter().min().copied().unwrap_or(0));
                proptest::prop_assert_eq!(loads.iter().sum::<usize>(), count);
                proptest::prop_assert!(most <= count.div_ceil(live.len()) && most - least <= 1, "{:?}", loads);
                // Only as many as the newcomer needs, and none when somebody went.
                proptest::prop_assert!(moves <= count.div_ceil(live.len()), "{} moves", moves);
                if !comes {
                    let stayed = before.iter().zip(&shards).filter(|(b, _)| b.holder.as_ref().is_some_and(|h| live.contains(h)));
                    proptest::prop_assert_eq!(stayed.filter(|(b, a)| b.holder != a.holder).count(), 0);
                }
                let plan = plan(&live, &shards);
                proptest::prop_assert_eq!(plan, Plan::default(), "nothing moves once it is even");
            }
        }
    }
}
