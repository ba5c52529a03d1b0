//! How a transaction's worth of decisions is formed from what waits.

use jiff::Timestamp;

use super::{
    super::{
        executions::Found,
        steps::{Due, chain, size},
    },
    BATCH_BYTES_MAX, BATCH_PODS_MAX, Drift, Formed, Move, TOMBSTONES_MAX, Table,
    gone::{Fate, GonePod},
    index,
};
use crate::{
    lifecycle::{rules::Rules, tracked::Kept},
    watch::pod::{PodUid, ResourceVersion},
};

impl Table {
    /// Decides what waits, up to one transaction's worth. `listing`: per stream, where a LIST is under way, the version above
    /// which its snapshot may still show pods that are gone since.
    pub fn form(&mut self, now: Timestamp, rules: &Rules, listing: &[Option<ResourceVersion>]) -> Formed {
        let mut formed = Formed::default();
        let mut bytes = 0;
        while formed.in_flight.moves.len() < BATCH_PODS_MAX && bytes < BATCH_BYTES_MAX {
            let Some(uid) = self.ready.pop_front() else { break };
            bytes += self.decide(uid, now, rules, &mut formed);
        }
        self.rewrite(&mut formed);
        self.tombstones(listing, now, rules, &mut formed);
        formed.in_flight.positions = self.streams.iter().map(|s| (s.era(), s.after_commit())).collect();
        formed
    }

    fn decide(&mut self, uid: PodUid, now: Timestamp, rules: &Rules, formed: &mut Formed) -> usize {
        let mut bytes = self.siblings_first(&uid, now, rules, formed);
        let Some(slot) = self.slots.get_mut(&uid) else { return bytes };
        if !slot.runnable() {
            slot.queued = false;
            return bytes;
        }
        let earlier = match self.earlier(&uid, rules) {
            Found::Earlier(earlier) => earlier,
            // Its observations coalesce meanwhile, and hold the position.
            Found::ToWait => return bytes,
        };
        let Some(slot) = self.slots.get_mut(&uid) else { return bytes };
        slot.queued = false;
        let (pending, captured, tick) = (slot.pending.take(), slot.captured.take(), std::mem::take(&mut slot.tick));
        bytes += captured.as_deref().map_or(0, size);
        let had_capture = captured.is_some();
        let due = Due { captured: captured.as_deref(), pending: pending.as_deref(), tick, earlier: earlier.as_ref() };
        let told = slot.tracked.as_ref().map(Kept::unpack);
        let decision = chain(&uid, told.as_ref(), &due, now, rules);
        let stream = &mut self.streams[slot.stream as usize];
        if let Some(until) = decision.settle_until {
            slot.settling = pending.as_ref().and_then(|p| p.pod.clone());
            formed.settle.push((until, uid.clone()));
        }
        if let Some(at) = decision.tick_at.filter(|at| slot.tick_at.as_deref() != Some(at)) {
            slot.tick_at = Some(Box::new(at));
            formed.ticks.push((at, uid.clone()));
        }
        let Some(tracked) = decision.tracked else {
            // INV-1: an observation is done when it is committed or needed nothing.
            if let Some(holds) = pending.and_then(|p| p.holds) {
                stream.settled(holds);
            }
            self.captures_held -= usize::from(had_capture);
            if slot.tracked.is_none() {
                self.slots.remove(&uid);
            }
            return bytes;
        };
        slot.busy = true;
        if let Some(pending) = &pending {
            pending.holds.inspect(|holds| stream.taken(*holds));
            formed.oldest = Some(formed.oldest.map_or(pending.arrived, |o| o.min(pending.arrived)));
            if pending.listed && !decision.events.is_empty() {
                let drift = match (&pending.gone, &slot.tracked) {
                    (Some(_), _) => Drift::Vanished,
                    (None, None) => Drift::Missed,
                    (None, Some(_)) => Drift::Behind,
                };
                formed.drift.push((format!("{}/{}", tracked.namespace, tracked.pod_name), drift));
            }
        }
        if let Some(odd) = decision.odd {
            formed.odd.push((format!("{}/{}", tracked.namespace, tracked.pod_name), odd));
        }
        if let Some(earlier) = tracked.earlier_end.as_deref().filter(|_| slot.tracked.is_none()) {
            let pod = format!("{}/{}", tracked.namespace, tracked.pod_name);
            formed.claims.push((pod, tracked.execution_id.clone(), earlier.clone()));
        }
        let (end, is_told) = (tracked.ended(&uid), tracked.end.is_some());
        self.ready.extend(self.executions.note(&uid, &tracked.execution_id, end, is_told));
        formed.batch.events.extend(decision.events);
        let kept = Kept::from(&tracked);
        formed.batch.records.push((uid.clone(), Some(tracked)));
        let tracked = kept;
        formed.in_flight.moves.push(Move { uid, pending, captured, tracked, capture: decision.capture, tick });
        bytes
    }

    /// What comes first where this pod is to be told of for the first time.
    fn earlier(&mut self, uid: &PodUid, rules: &Rules) -> Found {
        let new = self.slots.get(uid).filter(|slot| slot.tracked.is_none());
        let Some(pod) = new.and_then(|slot| slot.pending.as_ref()?.pod.as_deref()) else { return Found::Earlier(None) };
        self.executions.look(pod, rules, |other| self.slots.get(other)?.tracked.as_ref()?.ended(other))
    }

    /// A pod that is told of for the first time may come after the end of another one of its execution, which waits here
    /// for its turn. No transaction is under way: whoever waits can be decided now.
    fn siblings_first(&mut self, uid: &PodUid, now: Timestamp, rules: &Rules, formed: &mut Formed) -> usize {
        let Some(slot) = self.slots.get(uid).filter(|slot| slot.tracked.is_none()) else { return 0 };
        let Some(pod) = slot.pending.as_ref().and_then(|pending| pending.pod.as_deref()) else { return 0 };
        let mut bytes = 0;
        for sibling in self.executions.siblings(pod, rules) {
            if self.slots.get(&sibling).is_some_and(|slot| slot.queued && slot.tracked.is_some()) {
                bytes += self.decide(sibling, now, rules, formed);
            }
        }
        bytes
    }

    fn rewrite(&mut self, formed: &mut Formed) {
        let idle = |uid: &&PodUid| self.slots.get(*uid).is_none_or(|s| !s.busy);
        formed.in_flight.rewrites = self.rewrites.iter().filter(idle).take(TOMBSTONES_MAX).cloned().collect();
        for uid in &formed.in_flight.rewrites {
            self.rewrites.remove(uid);
            let tracked = self.slots.get(uid).and_then(|s| s.tracked.as_ref().map(Kept::unpack));
            formed.batch.records.extend(tracked.map(|tracked| (uid.clone(), Some(tracked))));
        }
    }

    fn tombstones(&mut self, listing: &[Option<ResourceVersion>], now: Timestamp, rules: &Rules, formed: &mut Formed) {
        // INV-7: a pod that is gone is forgotten only once the position has passed its going, in an earlier
        // transaction or this one: a successor's watch begins behind it.
        // None: they are remembered for longer than time goes back.
        let until = now.checked_sub(rules.remember_ended).ok();
        until.inspect(|until| self.gone.fall_due(*until));
        let fate = |gone: &GonePod| {
            let slot = self.slots.get(&gone.uid).filter(|slot| slot.stream == gone.stream);
            slot.map_or(Fate::Unknown, |slot| slot.fate(gone.version, until))
        };
        for (number, stream) in self.streams.iter().enumerate() {
            let room = TOMBSTONES_MAX - formed.in_flight.tombstones.len();
            let listed = listing.get(number).copied().flatten();
            let until = listed.map_or(stream.after_commit(), |listed| listed.min(stream.after_commit()));
            formed.in_flight.tombstones.extend(self.gone.over(index(number), until, room, fate));
        }
        formed.batch.records.extend(formed.in_flight.tombstones.iter().map(|uid| (uid.clone(), None)));
    }
}
