//! Every pod of the shard: what has been told of it, and what waits to be decided. Pure; the worker's loop owns it.
//!
//! One decision is in flight per pod; the newest observation and a gone flag wait beside it (a newer observation
//! replaces an older one: late states yield the earlier events too). Nothing is dropped before its commit.

mod forming;
mod gone;
mod known;
mod reset;

use std::collections::{BTreeSet, HashSet, VecDeque};

use jiff::Timestamp;
use tokio::time::Instant;

use self::gone::{Fate, GonePods};
use super::{
    executions::Executions,
    pending::{Gone, Pending, Source, merge},
    position::{self, Stream},
};
use crate::{
    lifecycle::{
        event::{Captured, EarlierEnd, LogsStatus},
        identity::OddId,
        tracked::Kept,
        wanted::{self, Wanted},
    },
    logs::reason,
    publish::{Batch, Position},
    watch::pod::{ByUid, Pod, PodUid, ResourceVersion},
};

/// Pods per transaction: full batches are as fast as no transaction at all.
pub const BATCH_PODS_MAX: usize = 1000;
/// Captured bytes per transaction, so that a burst of large outputs is spread over several.
pub const BATCH_BYTES_MAX: usize = 8 << 20;
/// While so many pods wait to be decided, a LIST brings no further page of them.
pub const READY_MAX: usize = 2 * BATCH_PODS_MAX;
/// Tombstones per transaction.
const TOMBSTONES_MAX: usize = 2000;

/// One pod.
#[derive(Debug, Default)]
struct Slot {
    stream: u32,
    tracked: Option<Kept>,
    /// Boxed like the rest of what few pods have at any time: most only stand here.
    pending: Option<Box<Pending>>,
    captured: Option<Box<Captured>>,
    capturing: bool,
    busy: bool,
    queued: bool,
    /// Kept for a look at the same state when its settle grace is over.
    settling: Option<Box<Pod>>,
    /// When its clock is to be looked at, where that was asked for.
    tick_at: Option<Box<Timestamp>>,
    /// Its clock is to be looked at.
    tick: bool,
}

/// What a batch will do to its pods once it is committed.
#[derive(Debug, Default)]
pub struct InFlight {
    moves: Vec<Move>,
    tombstones: Vec<PodUid>,
    rewrites: Vec<PodUid>,
    /// Per stream: its era, and its position once this is committed.
    positions: Vec<(u32, ResourceVersion)>,
}

#[derive(Debug)]
struct Move {
    uid: PodUid,
    pending: Option<Box<Pending>>,
    captured: Option<Box<Captured>>,
    tracked: Kept,
    capture: Option<Wanted>,
    tick: bool,
}

/// What the worker is to do besides committing.
#[derive(Debug, Default)]
pub struct Formed {
    /// To be committed; empty where nothing is to be told.
    pub batch: Batch,
    /// To be given back with the verdict on the batch.
    pub in_flight: InFlight,
    /// Pods to be looked at again later.
    pub settle: Vec<(Timestamp, PodUid)>,
    /// Pods whose clock is to be looked at later.
    pub ticks: Vec<(Timestamp, PodUid)>,
    /// Pods that claim an execution which had ended: (pod, execution, who had ended it).
    pub claims: Vec<(String, Box<str>, EarlierEnd)>,
    /// Ids that are not what the pod's maker meant: (pod, what).
    pub odd: Vec<(String, OddId)>,
    /// What only a periodic LIST brought to light: (pod, what).
    pub drift: Vec<(String, Drift)>,
    /// When the oldest observation in it was read.
    pub oldest: Option<Instant>,
}

impl InFlight {
    /// Whether it buries as many pods as one transaction may.
    pub fn is_full_of_tombstones(&self) -> bool {
        self.tombstones.len() >= TOMBSTONES_MAX
    }

    /// The pods of which something is told or remembered.
    pub fn pods(&self) -> Vec<PodUid> {
        self.moves.iter().map(|m| m.uid.clone()).collect()
    }
}

/// A difference that a periodic LIST found; in a healthy system there is none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Drift {
    /// A pod that the watch had not told of.
    Missed,
    /// A pod that is further than the watch had told.
    Behind,
    /// A pod that went unseen.
    Vanished,
}

/// All pods of a shard.
#[derive(Debug)]
pub struct Table {
    slots: ByUid<Slot>,
    ready: VecDeque<PodUid>,
    /// Told as gone and not yet tombstones.
    gone: GonePods,
    /// Captures whose end is not committed yet: their bytes are held here.
    captures_held: usize,
    /// Pods whose changelog record cannot be read.
    unreadable: HashSet<PodUid>,
    /// Which pods of which execution have ended.
    executions: Executions,
    /// Records to be written anew although nothing is told.
    rewrites: BTreeSet<PodUid>,
    /// Progress of each watch stream.
    pub streams: Vec<Stream>,
}

impl Table {
    /// An empty table over these streams.
    pub fn new(streams: Vec<Stream>) -> Self {
        Self {
            slots: ByUid::default(),
            ready: VecDeque::new(),
            gone: GonePods::default(),
            captures_held: 0,
            unreadable: HashSet::new(),
            executions: Executions::default(),
            rewrites: BTreeSet::new(),
            streams,
        }
    }

    /// How many pods are known.
    pub fn len(&self) -> usize {
        self.slots.len()
    }

    /// Whether no pod is known.
    pub fn is_empty(&self) -> bool {
        self.slots.is_empty()
    }

    /// How many pods wait to be decided.
    pub fn waiting(&self) -> usize {
        self.ready.len()
    }

    /// Whether fewer than these wait to be decided.
    pub fn has_room(&self, ready_max: usize) -> bool {
        self.ready.len() < ready_max
    }

    /// Whether a pod waits to be decided.
    pub fn has_ready(&self) -> bool {
        !self.ready.is_empty() || !self.rewrites.is_empty()
    }

    /// The changelog says how far the streams were worked through, also by a commit whose answer we never had.
    pub fn reached(&mut self, position: Option<&Position>) {
        for stream in &mut self.streams {
            if let Some(reached) = position.and_then(|position| position.streams.get(&stream.name)) {
                // INV-7: tombstones rest on it.
                stream.reached(*reached);
            }
        }
    }

    /// Makes what the changelog holds the truth about what has been told, and gives the captures that it still wants.
    /// Observations and captures that wait stay.
    /// Nothing more is told of `unreadable` pods: a later release wrote of them, or their story would be told anew.
    pub fn restore<T: Into<Kept>>(&mut self, told: ByUid<T>, unreadable: HashSet<PodUid>) -> Vec<Wanted> {
        for uid in &unreadable {
            self.remove(uid);
        }
        self.unreadable = unreadable;
        self.executions = Executions::default();
        for (uid, slot) in &mut self.slots {
            slot.tracked = None;
            if told.contains_key(uid) {
                continue;
            }
            // Its tombstone was committed: a going without a last state that waits for it has been told.
            if let Some(pending) = slot.pending.take_if(|p| p.pod.is_none()) {
                pending.holds.inspect(|holds| self.streams[slot.stream as usize].settled(*holds));
            }
        }
        self.gone.clear();
        self.slots.reserve(told.len().saturating_sub(self.slots.len()));
        for (uid, tracked) in told {
            let mut tracked: Kept = tracked.into();
            if self.rewrites.contains(&uid) {
                tracked.resource_version = ResourceVersion::default();
            }
            // A namespace that is no longer watched: its records wait in the changelog until it is again.
            let Some(stream) = self.stream_of(tracked.namespace()) else { continue };
            self.gone.extend(gone::of(index(stream), &uid, &tracked));
            // Everything is looked at anew: nobody waits yet.
            let (end, told) = (tracked.ended(&uid), tracked.end().is_some());
            self.executions.note(&uid, tracked.execution_id(), end, told);
            if told {
                self.executions.recorded(&uid, tracked.execution_id());
            }
            let slot = self.slots.entry(uid).or_default();
            slot.stream = index(stream);
            slot.tracked = Some(tracked);
        }
        self.slots.retain(|_, s| s.tracked.is_some() || s.pending.is_some());
        self.captures_held = self.slots.values().filter(|s| s.captured.is_some()).count();
        self.requeue_all();
        let wanted = self.slots.iter().filter(|(_, s)| !s.capturing && s.captured.is_none());
        // Few have a verdict that waits, and only those need be unpacked.
        let decided =
            wanted.filter_map(|(uid, s)| s.tracked.as_ref().filter(|t| t.verdict().is_some()).map(|t| (uid, t)));
        decided.filter_map(|(uid, tracked)| wanted::outstanding(uid, &tracked.unpack())).collect()
    }

    /// Nothing more is told of this pod, until everything is looked at anew.
    pub fn set_aside(&mut self, uid: &PodUid) {
        self.remove(uid);
        self.ready.extend(self.executions.forget_untold(uid));
        self.unreadable.insert(uid.clone());
    }

    fn stream_of(&self, namespace: &str) -> Option<usize> {
        self.streams.iter().position(|s| s.name.is_empty() || s.name == namespace)
    }

    /// Forgets a pod, and that anything of it holds the position.
    fn remove(&mut self, uid: &PodUid) {
        let removed = self.slots.remove(uid);
        self.captures_held -= usize::from(removed.as_ref().is_some_and(|slot| slot.captured.is_some()));
        if let Some(tracked) = removed.as_ref().and_then(|s| s.tracked.as_ref()) {
            self.ready.extend(self.executions.forget(uid, tracked.execution_id()));
        }
        if let Some(slot) = removed
            && let Some(holds) = slot.pending.and_then(|p| p.holds)
        {
            self.streams[slot.stream as usize].settled(holds);
        }
    }

    fn requeue_all(&mut self) {
        self.ready.clear();
        for (uid, slot) in &mut self.slots {
            slot.busy = false;
            slot.queued = slot.runnable();
            if slot.queued {
                self.ready.push_back(uid.clone());
            }
        }
        // As they were made, so that of two pods of one execution the earlier one comes first.
        let made = |uid: &PodUid| self.slots.get(uid)?.pending.as_ref()?.pod.as_ref()?.metadata.creation_timestamp;
        self.ready.make_contiguous().sort_by_cached_key(made);
    }

    /// Takes in a state of a pod.
    pub fn observe(&mut self, stream: usize, pod: Box<Pod>, arrived: Instant, source: Source) {
        let version = pod.metadata.resource_version;
        let uid = pod.metadata.uid.clone();
        if self.unreadable.contains(&uid) {
            return;
        }
        let slot = self.slots.entry(uid.clone()).or_default();
        slot.stream = index(stream);
        let settling = slot.settling.take();
        let pending = slot.pending.get_or_insert_with(|| Box::new(Pending::new(arrived)));
        if pending.is_newer(version) {
            return;
        }
        // A settle grace that ends just now is not something that the watch missed, nor is what is being told.
        pending.listed = source == Source::Comparison && settling.is_none() && !slot.busy;
        (pending.pod, pending.arrived, pending.left) = (Some(pod), arrived, None);
        if source == Source::Watch {
            pending.hold(version, &mut self.streams[stream]);
        }
        self.enqueue(&uid);
    }

    /// Takes in that a pod is gone, with its last state where a DELETED event carried it.
    pub fn gone(&mut self, stream: usize, uid: &PodUid, last: Option<Box<Pod>>, gone: Gone, arrived: Instant) {
        if self.unreadable.contains(uid) {
            return;
        }
        let slot = self.slots.entry(uid.clone()).or_default();
        slot.stream = index(stream);
        // A state whose settle grace is open knows the exit code: better than no last state.
        let last = last.or(slot.settling.take());
        let pending = slot.pending.get_or_insert_with(|| Box::new(Pending::new(arrived)));
        // Who saw it go knows more than a LIST that lacks it.
        if pending.gone.is_none_or(|known| !known.observed) {
            // Judged by a GET, it may have left, returned and ended since that last state.
            let states = last.into_iter().chain(pending.pod.take());
            pending.pod = states.max_by_key(|pod| pod.metadata.resource_version);
            (pending.gone, pending.arrived, pending.listed) = (Some(gone), arrived, gone.listed);
        }
        pending.hold(gone.version, &mut self.streams[stream]);
        self.enqueue(uid);
    }

    /// Takes in the result of a capture.
    pub fn captured(&mut self, uid: &PodUid, captured: Captured) {
        if let Some(slot) = self.slots.get_mut(uid) {
            slot.capturing = false;
            self.captures_held += usize::from(slot.captured.is_none());
            slot.captured = Some(Box::new(captured));
            self.enqueue(uid);
        }
    }

    /// How many captures wait here for their commit.
    pub fn captures_held(&self) -> usize {
        self.captures_held
    }

    /// The broker takes no record as large as this pod's: its output is left out, so that the others get through.
    /// False: there was no output to leave out.
    pub fn shrink(&mut self, uid: &PodUid) -> bool {
        let captured = self.slots.get_mut(uid).and_then(|s| s.captured.as_mut());
        let captured = captured.filter(|c| c.stdout.is_some() || c.stderr.is_some());
        let helps = captured.is_some();
        if let Some(captured) = captured {
            (captured.stdout, captured.stderr) = (None, None);
            captured.logs.status = LogsStatus::Unavailable;
            captured.logs.reason = Some(reason::RECORD_TOO_LARGE.into());
        }
        helps
    }

    /// A capture of this pod has begun: its going waits for it.
    pub fn capturing(&mut self, uid: &PodUid) {
        if let Some(slot) = self.slots.get_mut(uid) {
            slot.capturing = true;
        }
    }

    /// Whether a capture of this pod is under way.
    pub fn is_capturing(&self, uid: &PodUid) -> bool {
        self.slots.get(uid).is_some_and(|slot| slot.capturing)
    }

    /// A settle grace is over: the same state is looked at again.
    pub fn settle(&mut self, uid: &PodUid, arrived: Instant) {
        let Some(slot) = self.slots.get_mut(uid) else { return };
        if let (None, Some(pod)) = (&slot.pending, slot.settling.take()) {
            slot.pending = Some(Box::new(Pending { pod: Some(pod), ..Pending::new(arrived) }));
            self.enqueue(uid);
        }
    }

    /// A clock may have run down; most were stopped long before. What is in flight may be about to wind one.
    pub fn tick(&mut self, uid: &PodUid) {
        let Some(slot) = self.slots.get_mut(uid) else { return };
        slot.tick_at = None;
        if slot.busy || slot.tracked.as_ref().is_some_and(Kept::has_clock) {
            slot.tick = true;
            self.enqueue(uid);
        }
    }

    /// The pod left the selection without going: nothing is told until it returns. Whether that is news.
    pub fn left(&mut self, uid: &PodUid, version: ResourceVersion, arrived: Instant) -> bool {
        let news = |s: &&mut Slot| s.tracked.as_ref().is_none_or(|t| !t.left());
        let Some(slot) = self.slots.get_mut(uid).filter(news) else { return false };
        slot.pending.get_or_insert_with(|| Box::new(Pending::new(arrived))).left = Some(version);
        self.enqueue(uid);
        true
    }

    fn enqueue(&mut self, uid: &PodUid) {
        let Some(slot) = self.slots.get_mut(uid) else { return };
        if !slot.queued && slot.runnable() {
            slot.queued = true;
            self.ready.push_back(uid.clone());
        }
    }

    /// Positions once the batch that was formed last is committed, for the changelog.
    pub fn positions(&self) -> std::collections::BTreeMap<String, ResourceVersion> {
        position::positions(&self.streams, self.rewrites.is_empty())
    }

    /// The batch is committed. Gives the captures to begin.
    pub fn committed(&mut self, in_flight: InFlight) -> Vec<Wanted> {
        let InFlight { moves, tombstones, positions, rewrites: _ } = in_flight;
        for (stream, (era, position)) in self.streams.iter_mut().zip(&positions) {
            if stream.era() == *era {
                stream.commit(*position);
            }
        }
        if self.rewrites.is_empty() {
            self.streams.iter_mut().for_each(Stream::forget_reset);
        }
        for uid in &tombstones {
            self.remove(uid);
        }
        let mut captures = Vec::new();
        for Move { uid, mut tracked, capture, captured, .. } in moves {
            self.captures_held -= usize::from(captured.is_some());
            let Some(slot) = self.slots.get_mut(&uid) else { continue };
            slot.busy = false;
            let stream = slot.stream as usize;
            if self.streams[stream].era() != positions[stream].0 {
                tracked.resource_version = ResourceVersion::default();
            }
            self.gone.extend(gone::of(slot.stream, &uid, &tracked));
            if tracked.end().is_some() {
                self.executions.recorded(&uid, tracked.execution_id());
            }
            slot.tracked = Some(tracked);
            // Of one that went meanwhile, what was followed is here or on its way; the node has nothing any more.
            captures.extend(capture.filter(|_| !slot.capturing && slot.captured.is_none()));
            self.enqueue(&uid);
        }
        captures
    }

    /// The batch came to nothing, or nobody knows: what it rested on waits again. What newer observations brought
    /// meanwhile wins.
    pub fn aborted(&mut self, in_flight: InFlight) {
        for stream in &mut self.streams {
            stream.abort();
        }
        self.rewrites.extend(in_flight.rewrites);
        for Move { uid, mut pending, captured, tick, tracked, .. } in in_flight.moves {
            let Some(slot) = self.slots.get_mut(&uid) else { continue };
            slot.busy = false;
            if slot.tracked.as_ref().is_none_or(|told| told.end().is_none()) {
                self.executions.untold(&uid, tracked.execution_id());
            }
            slot.tick |= tick;
            let stream = slot.stream as usize;
            if self.streams[stream].era() != in_flight.positions[stream].0 {
                pending.iter_mut().for_each(|pending| pending.forget_versions());
            }
            slot.captured = slot.captured.take().or(captured);
            slot.pending = merge(pending, slot.pending.take(), &mut self.streams[stream]);
            self.enqueue(&uid);
        }
    }
}

impl Slot {
    /// The going of a pod waits for its capture; nothing else does.
    fn runnable(&self) -> bool {
        let goes = self.pending.as_ref().is_some_and(|p| p.gone.is_some());
        if self.busy || (goes && self.capturing) {
            return false;
        }
        self.pending.is_some() || self.captured.is_some() || self.tick
    }

    /// Of a pod that was told as gone with this version, where ends until then are not remembered any more.
    fn fate(&self, version: ResourceVersion, until: Option<Timestamp>) -> Fate {
        let Some(tracked) = self.tracked.as_ref().filter(|t| t.gone() == Some(version)) else { return Fate::Unknown };
        let end = gone::remembered_from(tracked);
        match end.filter(|end| until.is_none_or(|until| *end > until)) {
            Some(end) => Fate::Remembered(end),
            None if self.busy || self.pending.is_some() || self.captured.is_some() || self.capturing => Fate::Waits,
            None => Fate::Over,
        }
    }
}

/// Streams are namespaces of one configuration: there are few.
fn index(stream: usize) -> u32 {
    u32::try_from(stream).expect("a configuration names fewer namespaces")
}

#[cfg(test)]
#[path = "table_tests.rs"]
mod tests;
