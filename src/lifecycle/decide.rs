//! `step`: what is to be told, given what has been told and what was just seen. The heart of the monitor.
//!
//! Pure, total, deterministic: no I/O, no clock, no randomness, cannot fail. A pod first seen in a late state yields the
//! earlier events too, with the times that its status holds, so that the set of events is a function of the pod's
//! history and not of our luck. Laws (tests/laws.rs): telling twice adds nothing; stop anywhere, restore, same story;
//! drop any middle observation, same end; an older observation changes nothing; at most one end; same input, same
//! bytes; no pod panics it.

use jiff::{SignedDuration, Timestamp};

use super::{
    cause::{self, Judged, LastSeen, OwnerEnd, OwnerSays},
    container::{self, main_container},
    event::{self, Body, Captured, EarlierEnd, Ended, Event, Outcome, Owner, Verdict},
    identity::{self, OddId, Slot},
    rules::Rules,
    stall::{self, Clock, Stalled},
    trace::TraceParent,
    tracked::{End, FORMAT, STALLS_MAX, Told, Tracked},
    user_rules::Ruling,
    wanted::{self, Wanted},
};
use crate::{
    logs::reason,
    watch::pod::{Pod, PodUid, ResourceVersion},
};

/// What was seen of a pod.
#[derive(Debug, Clone, PartialEq)]
pub enum Input<'a> {
    /// A watch event or a line of a LIST showed it. The same one may come again with a later `now`.
    Observed {
        /// The pod.
        pod: &'a Pod,
        /// How another pod of its execution ended, where one did; matters when this one is first seen.
        earlier: Option<&'a EarlierEnd>,
        /// Our wall clock.
        now: Timestamp,
    },
    /// Time has passed: a clock may have run down.
    Tick {
        /// Our wall clock.
        now: Timestamp,
    },
    /// The capture that the verdict asked for has ended.
    Captured {
        /// Its result.
        captured: Captured,
        /// Our wall clock.
        now: Timestamp,
    },
    /// The pod exists and is no longer selected.
    Left {
        /// resourceVersion of the leaving: of the DELETED event, or of the LIST that lacks it.
        version: ResourceVersion,
    },
    /// The Pod object is gone.
    Gone {
        /// Its last state, where a DELETED event carried it.
        last: Option<&'a Pod>,
        /// False: found missing by a LIST.
        observed: bool,
        /// What was followed of its output while it was being deleted.
        followed: Option<Captured>,
        /// resourceVersion of the going: of the DELETED event, or of the LIST that lacks it.
        version: ResourceVersion,
        /// Our wall clock.
        now: Timestamp,
    },
}

/// What follows from an input.
#[derive(Debug, Default, PartialEq)]
pub struct Decision {
    /// To be told, in this order.
    pub events: Vec<Event>,
    /// To be remembered in the same transaction; `None`: as it was.
    pub tracked: Option<Tracked>,
    /// To be captured once this is committed.
    pub capture: Option<Wanted>,
    /// To be observed again at this time, if nothing newer comes before.
    pub settle_until: Option<Timestamp>,
    /// A clock runs: a [`Input::Tick`] is due at this time.
    pub tick_at: Option<Timestamp>,
    /// The pod's ids are not what its maker meant; only set when the pod is first seen.
    pub odd: Option<OddId>,
}

/// Decides. `told` is what has been committed of this pod, `None` for one that was never seen.
pub fn step(uid: &PodUid, told: Option<&Tracked>, input: Input<'_>, rules: &Rules) -> Decision {
    // INV-6: once gone, a pod tells nothing more; a replayed watch shows it again.
    if told.is_some_and(|t| t.gone.is_some()) {
        return Decision::default();
    }
    match (told, input) {
        (told, Input::Observed { pod, earlier, now }) => observed(uid, told, pod, earlier, (now, now), rules),
        (Some(told), Input::Tick { now }) => tick(uid, told, now, rules),
        (Some(told), Input::Captured { captured, now }) => self::captured(uid, told, captured, now, rules),
        // Of a pod that was never told of: nothing asked for it.
        (None, Input::Captured { .. } | Input::Tick { .. }) => Decision::default(),
        (told, Input::Left { version }) => {
            Decision { tracked: told.and_then(|t| left(t, version)), ..Decision::default() }
        }
        (told, Input::Gone { last, observed, followed, version, now }) => {
            // Nothing better comes: an open settle grace is over, or the exit code that was seen would be lost.
            let seen = last.map(|pod| self::observed(uid, told, pod, None, (now, cause::LAST_WORD), rules));
            gone(uid, told, seen, last, Going { observed, followed, version, now }, rules)
        }
    }
}

/// `judged_at` is `now`, but for whether a settle grace has passed.
fn observed(
    uid: &PodUid,
    told: Option<&Tracked>,
    pod: &Pod,
    earlier: Option<&EarlierEnd>,
    (now, judged_at): (Timestamp, Timestamp),
    rules: &Rules,
) -> Decision {
    // INV-5: an older observation than the one a decision rests on changes nothing.
    if told.is_some_and(|t| pod.metadata.resource_version < t.resource_version) {
        return Decision::default();
    }
    let mut odd = None;
    let before = told.cloned().unwrap_or_else(|| first_seen(pod, earlier, rules, &mut odd));
    let mut teller = Teller { uid, tracked: before, events: Vec::new(), now, rules };
    let mut capture = None;
    let mut settle_until = None;
    teller.note(pod);
    let judged = if teller.over() { Judged::Open } else { teller.judge(pod, judged_at) };
    let over = teller.over() || matches!(judged, Judged::Ended(_));
    let clock = if over { None } else { stall::clock(pod, rules) };
    if !over {
        teller.resumed(pod, clock.as_ref());
    }
    teller.scheduled(pod);
    teller.running(pod);
    match judged {
        Judged::Open => {}
        Judged::Settling { until } => {
            settle_until = Some(until);
            teller.keep(pod);
        }
        Judged::Ended(mut verdict) => {
            verdict.restart_count = attempt(pod, rules);
            if let Some(seen) = teller.tracked.seen_end.take() {
                cause::recall(&mut verdict, &seen);
            }
            capture = teller.verdict(verdict, pod);
        }
    }
    let tick_at = teller.wind(clock);
    let Teller { mut tracked, events, .. } = teller;
    // Only what changed is written: most watch events change nothing that is told.
    let changed = told != Some(&tracked);
    tracked.resource_version = pod.metadata.resource_version;
    Decision { events, tracked: changed.then_some(tracked), capture, settle_until, tick_at, odd }
}

/// Which attempt a verdict over this pod is about: where the container runs again, the end that is known is of the one
/// before, and so is the output to be captured.
fn attempt(pod: &Pod, rules: &Rules) -> u32 {
    let main = main_container(pod, rules);
    let ended_before = main.status.is_some_and(|status| status.last_state.terminated.is_some());
    let runs_again = main.ended().is_none() && main.runs() && ended_before;
    main.restart_count().saturating_sub(u32::from(runs_again))
}

/// A clock may have run down. INV-16: only this tells a stall, never an observation: what a watch replays after a take-over
/// may be long past.
fn tick(uid: &PodUid, told: &Tracked, now: Timestamp, rules: &Rules) -> Decision {
    // No writer leaves a clock beside an end; a record that has both is damaged, and an end is final all the same.
    let over = told.left || told.end.is_some() || told.verdict.is_some();
    let Some(clock) = told.clock.as_deref().filter(|_| !over) else { return Decision::default() };
    if now < clock.due {
        return Decision { tick_at: Some(clock.due), ..Decision::default() };
    }
    let mut teller = Teller { uid, tracked: told.clone(), events: Vec::new(), now, rules };
    if let Some(clock) = teller.tracked.clock.take() {
        teller.stalled(*clock);
    }
    Decision { events: teller.events, tracked: Some(teller.tracked), ..Decision::default() }
}

fn first_seen(pod: &Pod, earlier: Option<&EarlierEnd>, rules: &Rules, odd: &mut Option<OddId>) -> Tracked {
    let ids = identity::ids(&pod.metadata, &rules.ids);
    *odd = ids.odd;
    let made = pod.metadata.creation_timestamp;
    let earlier = earlier.filter(|e| e.pod_uid != pod.metadata.uid && made.is_some_and(|made| e.timestamp <= made));
    Tracked {
        format: FORMAT,
        oldest_reader: FORMAT,
        resource_version: pod.metadata.resource_version,
        namespace: pod.metadata.namespace.as_str().into(),
        pod_name: pod.metadata.name.as_str().into(),
        execution_id: ids.execution_id,
        user_id: ids.user_id,
        owner: Owner::of(&pod.metadata).map(Box::new),
        earlier_end: earlier.cloned().map(Box::new),
        parent: TraceParent::of(pod),
        node_name: None,
        sequence: 0,
        told: Told::default(),
        waiting: None,
        clock: None,
        stalls: Vec::new(),
        deletion_timestamp: None,
        seen_end: None,
        verdict: None,
        ruling: None,
        owner_rulings: Vec::new(),
        end: None,
        gone: None,
        left: false,
        unknown: serde_json::Map::new(),
    }
}

fn captured(uid: &PodUid, told: &Tracked, captured: Captured, now: Timestamp, rules: &Rules) -> Decision {
    let mut teller = Teller { uid, tracked: told.clone(), events: Vec::new(), now, rules };
    let Some(verdict) = teller.tracked.verdict.take() else { return Decision::default() };
    teller.end(*verdict, captured);
    Decision { events: teller.events, tracked: Some(teller.tracked), ..Decision::default() }
}

/// The record stays until the pod is gone: forgotten, it would tell its events anew when it returns.
fn left(told: &Tracked, version: ResourceVersion) -> Option<Tracked> {
    // INV-5: it may have returned since.
    let news = !told.left && version >= told.resource_version;
    news.then(|| Tracked { left: true, resource_version: version, ..told.clone() })
}

struct Going {
    observed: bool,
    followed: Option<Captured>,
    version: ResourceVersion,
    now: Timestamp,
}

fn gone(
    uid: &PodUid,
    told: Option<&Tracked>,
    seen: Option<Decision>,
    last: Option<&Pod>,
    mut going: Going,
    rules: &Rules,
) -> Decision {
    let Decision { events, tracked, odd, .. } = seen.unwrap_or_default();
    // Never seen, and gone without a last state: nothing is known that could be told.
    let Some(tracked) = tracked.or_else(|| told.cloned()) else { return Decision::default() };
    let mut teller = Teller { uid, tracked, events, now: going.now, rules };
    let at = last.and_then(|p| p.metadata.deletion_timestamp).or(teller.tracked.deletion_timestamp);
    let at = at.unwrap_or(going.now);
    let output = going.followed.take().unwrap_or_else(|| Captured::unavailable(reason::POD_GONE));
    if let Some(verdict) = teller.tracked.verdict.take() {
        // Its capture did not come in time: the logs went with the pod.
        teller.end(*verdict, output);
    } else if teller.tracked.end.is_none() && !teller.tracked.left {
        let deleting = teller.tracked.deletion_timestamp.is_some();
        let seen = teller.last_seen(teller.tracked.told.running, deleting);
        let mut verdict = teller.tracked.seen_end.take().unwrap_or_else(|| cause::vanished(seen, at));
        if let Some(says) = output.owner_says {
            cause::explain_by_owner(&mut verdict, says);
        }
        teller.tracked.ruling = rules.user.ruling(&verdict, None);
        teller.end(*verdict, output);
    }
    // How it went outside the selection is nobody's news.
    if !teller.tracked.left {
        teller.terminated(last, at, &going);
    }
    teller.tracked.gone = Some(going.version);
    Decision { events: teller.events, tracked: Some(teller.tracked), odd, ..Decision::default() }
}

/// Collects the events of one step and keeps the record of what has been told in step with them.
struct Teller<'a> {
    uid: &'a PodUid,
    tracked: Tracked,
    events: Vec<Event>,
    now: Timestamp,
    rules: &'a Rules,
}

impl Teller<'_> {
    fn tell(&mut self, slot: Slot, timestamp: Timestamp, body: Body) {
        let t = &mut self.tracked;
        t.sequence += 1;
        self.events.push(Event {
            event_id: identity::event_id(&self.rules.cluster_id, self.uid, 0, slot),
            timestamp,
            observed_at: self.now,
            execution_id: t.execution_id.clone(),
            user_id: t.user_id.clone(),
            pod_name: t.pod_name.clone(),
            namespace: t.namespace.clone(),
            pod_uid: self.uid.clone(),
            node_name: t.node_name.clone(),
            owner: t.owner.clone(),
            earlier_end: t.earlier_end.clone(),
            sequence: t.sequence,
            parent: t.parent,
            body,
        });
    }

    /// Facts to remember for later decisions.
    fn note(&mut self, pod: &Pod) {
        let t = &mut self.tracked;
        t.left = false;
        let node = pod.spec.node_name.as_deref().filter(|n| !n.is_empty() && Some(*n) != t.node_name.as_deref());
        node.inspect(|node| t.node_name = Some((*node).into()));
        t.deletion_timestamp = pod.metadata.deletion_timestamp.or(t.deletion_timestamp);
        if !t.told.running && t.end.is_none() {
            // While it goes away the kubelet rewrites the waiting reasons: the earlier ones say why it never started.
            t.waiting = cause::waiting_cause(pod).or(t.waiting);
        }
    }

    /// What this status says about the end. A pod that only finalizers hold (one of them is perhaps ours) will not say
    /// more than it does: whoever runs containers is done with it. Its last words may still be on their way.
    fn judge(&self, pod: &Pod, now: Timestamp) -> Judged {
        let judged = cause::judge(pod, now, self.rules);
        let due = pod.metadata.deletion_timestamp.filter(|_| pod.metadata.held_by_finalizers());
        let (Some(due), Judged::Open) = (due, &judged) else { return judged };
        let bound = self.tracked.node_name.is_some();
        let until = due.checked_add(if bound { self.rules.settle_grace } else { SignedDuration::ZERO }).unwrap_or(due);
        if now < until {
            return Judged::Settling { until };
        }
        let main = main_container(pod, self.rules);
        let started = self.tracked.told.running || main.started_at().is_some();
        let mut verdict = cause::vanished(self.last_seen(started, true), due);
        if started {
            // It may still be there to be asked what it printed.
            (verdict.container, verdict.restart_count) = (main.name.into(), main.restart_count());
        }
        Judged::Ended(verdict)
    }

    fn last_seen(&self, attempt_started: bool, deleting: bool) -> LastSeen {
        let t = &self.tracked;
        LastSeen { waiting: t.waiting, attempt_started, deleting, node_lost: t.node_lost() }
    }

    /// Remembers how the main container ended, although its pod is not over yet.
    fn keep(&mut self, pod: &Pod) {
        if let Judged::Ended(mut seen) = cause::judge(pod, cause::LAST_WORD, self.rules) {
            seen.restart_count = attempt(pod, self.rules);
            self.tracked.seen_end = seen.exit_code.is_some().then_some(seen);
        }
    }

    fn scheduled(&mut self, pod: &Pod) {
        // Ends are final: nothing that comes before may be told after one.
        let bound = pod.status.conditions.iter().find(|c| &*c.kind == "PodScheduled" && &*c.status == "True");
        // A pod whose node cannot be read is on one all the same; told later, it would come after the running.
        let placed = self.tracked.node_name.is_some()
            || bound.is_some()
            || main_container(pod, self.rules).told_running().is_some();
        if self.tracked.told.scheduled || !placed || self.over() {
            return;
        }
        self.tracked.told.scheduled = true;
        let at = bound.and_then(|c| c.last_transition_time).or(pod.status.start_time);
        self.tell(Slot::Scheduled, at.or(pod.metadata.creation_timestamp).unwrap_or(self.now), Body::Scheduled);
    }

    fn running(&mut self, pod: &Pod) {
        if self.tracked.told.running || self.over() {
            return;
        }
        let Some(at) = main_container(pod, self.rules).told_running() else { return };
        self.tracked.told.running = true;
        self.tracked.waiting = None;
        self.tell(Slot::Running, at, Body::Running { container_statuses: container::summaries(pod) });
    }

    /// Tells that the last stall is over, where this status shows another trouble or none.
    fn resumed(&mut self, pod: &Pod, clock: Option<&Clock>) {
        let Some(stalled) = self.tracked.stalled() else { return };
        if clock.is_some_and(|clock| clock.cause == stalled.cause) {
            return;
        }
        self.tracked.stalls.last_mut().expect("it is stalled").resumed = true;
        let at = Some(cause::last_change(pod)).max(main_container(pod, self.rules).started_at());
        let at = at.filter(|at| *at >= stalled.since).unwrap_or(self.now);
        let body = Body::Resumed { cause: stalled.cause, stalled_since: stalled.since };
        self.tell(Slot::Resumed(stalled.cause, stalled.since), at, body);
    }

    /// Lets this clock run from now on, or the one that does already; says when it runs down.
    fn wind(&mut self, clock: Option<Clock>) -> Option<Timestamp> {
        let t = &mut self.tracked;
        let told = |c: &Clock| t.stalls.iter().any(|s| s.cause == c.cause && (!s.resumed || s.since == c.since));
        let Some(clock) = clock.filter(|c| !told(c) && t.stalls.len() < STALLS_MAX) else {
            t.clock = None;
            return None;
        };
        let due = clock.due;
        // What is said of the same trouble changes with each look at it: its first words stay, or each would be written.
        let same = |old: &Clock| (old.cause, old.since, old.due) == (clock.cause, clock.since, clock.due);
        if !t.clock.as_deref().is_some_and(same) {
            t.clock = Some(Box::new(clock));
        }
        Some(due)
    }

    fn stalled(&mut self, clock: Clock) {
        let Clock { cause, since, due, message } = clock;
        self.tracked.stalls.push(Stalled { cause, since, resumed: false });
        self.tell(Slot::Stalled(cause, since), due, Body::Stalled { cause, message, since });
    }

    fn over(&self) -> bool {
        self.tracked.end.is_some() || self.tracked.verdict.is_some()
    }

    /// Remembers a verdict and says what is to be asked for it.
    fn verdict(&mut self, mut verdict: Box<Verdict>, pod: &Pod) -> Option<Wanted> {
        let ran = self.tracked.told.running || verdict.outcome == Outcome::Completed;
        if let Some(failure) = &mut verdict.failure {
            failure.attempt_started |= self.tracked.told.running;
        }
        if !ran || verdict.container.is_empty() {
            cause::explain_by_waiting(&mut verdict, self.tracked.waiting);
        }
        // INV-3: verdict before capture. Whoever finishes the job tells this verdict.
        self.tracked.ruling = self.rules.user.ruling(&verdict, Some(pod));
        self.tracked.owner_rulings = self.owner_rulings(&verdict, pod);
        self.tracked.verdict = Some(verdict);
        wanted::outstanding(self.uid, &self.tracked)
    }

    /// What the rules of the user make of each verdict that the owner may turn this one into: the pod is here now.
    fn owner_rulings(&self, verdict: &Verdict, pod: &Pod) -> Vec<(OwnerEnd, Box<Ruling>)> {
        let asks = self.tracked.owner.as_ref().is_some_and(|owner| cause::may_know_better(owner, verdict));
        let ends = [OwnerEnd::DeadlineExceeded { seconds: None }, OwnerEnd::Failed, OwnerEnd::Suspended];
        let ruling = |end: OwnerEnd| {
            let mut verdict = verdict.clone();
            cause::explain_by_owner(&mut verdict, OwnerSays { end, since: None });
            Some((end, self.rules.user.ruling(&verdict, Some(pod))?))
        };
        ends.into_iter().filter(|_| asks).filter_map(ruling).collect()
    }

    fn end(&mut self, mut verdict: Verdict, mut captured: Captured) {
        captured.logs.container = verdict.failed_init.as_ref().map(|(name, _)| name.clone());
        let rulings = std::mem::take(&mut self.tracked.owner_rulings);
        if let Some(says) = captured.owner_says
            && cause::explain_by_owner(&mut verdict, says)
        {
            let same = |(end, _): &(OwnerEnd, _)| std::mem::discriminant(end) == std::mem::discriminant(&says.end);
            self.tracked.ruling =
                rulings.into_iter().find(same).map(|(_, ruling)| ruling).or(self.tracked.ruling.take());
        }
        match (self.tracked.ruling.take(), &mut verdict.failure) {
            (Some(ruling), Some(failure)) => ruling.settle(failure, &captured.kubernetes_events),
            (_, Some(_)) => {}
            // What was reported of a success is no news.
            (_, None) => captured.kubernetes_events.clear(),
        }
        let cause = verdict.failure.as_ref().map(|f| f.cause);
        let (event_type, at) = (Some(verdict.outcome.event_type()), verdict.at);
        let end = End { exit_code: verdict.exit_code, cause, event_type, at: Some(at), told_at: Some(self.now) };
        self.tracked.end = Some(end);
        (self.tracked.waiting, self.tracked.clock) = (None, None);
        self.tell(Slot::End, at, Body::Ended(Box::new(Ended { verdict, captured })));
    }

    fn terminated(&mut self, last: Option<&Pod>, at: Timestamp, going: &Going) {
        let end = self.tracked.end;
        let reason = last.and_then(|p| p.status.reason.as_deref());
        let body = Body::Terminated {
            exit_code: end.and_then(|e| e.exit_code),
            reason: reason.or_else(|| end?.cause.map(|c| c.as_str())).map(Into::into),
            message: last.and_then(|p| p.status.message.as_ref()).map(|m| event::bounded(m)),
            observed: going.observed,
        };
        self.tell(Slot::Gone, at, body);
    }
}

#[cfg(test)]
#[path = "seen_tests.rs"]
mod tests;
