//! Is it ready, is it alive: answered by the components themselves.
//!
//! ```text
//!   component ──ok / not yet, why──▶ Health ──▶ /readyz   (every component is ok)
//!   loop      ──beat──────────────▶        ──▶ /livez    (no loop is overdue)
//! ```
//!
//! Promises: neither answer is a constant (without components the process is not ready); each change of a component is
//! logged once, and each of its reasons once per outage; ages are measured on the monotonic clock.

use std::{
    borrow::Cow,
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, MutexGuard},
    time::{Duration, Instant},
};

/// Reasons of one component that are logged until it is ok again.
const REASONS_MAX: usize = 16;

/// What a component is called.
pub type Name = Cow<'static, str>;

/// What all components say. Clones share it.
#[derive(Debug, Clone, Default)]
pub struct Health(Arc<Mutex<Inner>>);

#[derive(Debug, Default)]
struct Inner {
    components: BTreeMap<Name, State>,
    /// Since when each of those that wait has not been ok.
    waiting: BTreeMap<Name, Instant>,
    /// Reasons that were logged since the component last was ok.
    logged: BTreeMap<Name, BTreeSet<String>>,
    beats: BTreeMap<u64, Beat>,
    next_beat: u64,
}

/// How a component is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum State {
    /// Does its part.
    Ok,
    /// Does not yet, or no longer.
    Waiting {
        /// For people.
        why: String,
    },
}

#[derive(Debug)]
struct Beat {
    name: &'static str,
    age_max: Duration,
    last: Instant,
}

/// A component's voice.
#[derive(Debug, Clone)]
pub struct Component {
    health: Health,
    name: Name,
}

/// A loop's sign of life; dropping it says that the loop ended on purpose.
#[derive(Debug)]
pub struct Heartbeat {
    health: Health,
    key: u64,
}

/// A loop that has not turned for too long.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stuck {
    /// The loop.
    pub name: &'static str,
    /// Since its last sign.
    pub age: Duration,
    /// What was allowed.
    pub age_max: Duration,
}

impl Health {
    /// The voice of the component `name`, which waits until it says otherwise. A known name gives the same component.
    pub fn component(&self, name: impl Into<Name>) -> Component {
        let name = name.into();
        let mut inner = self.inner();
        let Inner { components, waiting, .. } = &mut *inner;
        components.entry(name.clone()).or_insert_with(|| {
            waiting.insert(name.clone(), crate::clock::monotonic());
            State::Waiting { why: "has not started".to_owned() }
        });
        drop(inner);
        Component { health: self.clone(), name }
    }

    /// Registers a loop that promises to call [`Heartbeat::beat`] at least every `age_max`.
    pub fn heartbeat(&self, name: &'static str, age_max: Duration) -> Heartbeat {
        let mut inner = self.inner();
        let key = inner.next_beat;
        inner.next_beat += 1;
        inner.beats.insert(key, Beat { name, age_max, last: crate::clock::monotonic() });
        Heartbeat { health: self.clone(), key }
    }

    /// All components with their states, by name.
    pub fn components(&self) -> Vec<(Name, State)> {
        self.inner().components.iter().map(|(name, state)| (name.clone(), state.clone())).collect()
    }

    /// For how long each component that waits has not been ok at `now`, whatever its reasons were.
    pub fn waits(&self, now: Instant) -> BTreeMap<Name, Duration> {
        let inner = self.inner();
        inner.waiting.iter().map(|(name, since)| (name.clone(), now.saturating_duration_since(*since))).collect()
    }

    /// Whether there are components and all of them are ok.
    pub fn is_ready(&self) -> bool {
        let inner = self.inner();
        !inner.components.is_empty() && inner.components.values().all(|state| *state == State::Ok)
    }

    /// Names of the loops that promise signs of life.
    pub fn heartbeats(&self) -> Vec<&'static str> {
        self.inner().beats.values().map(|beat| beat.name).collect()
    }

    /// Loops that are overdue at `now`.
    pub fn stuck(&self, now: Instant) -> Vec<Stuck> {
        let overdue = |beat: &Beat| {
            let age = now.saturating_duration_since(beat.last);
            (age > beat.age_max).then_some(Stuck { name: beat.name, age, age_max: beat.age_max })
        };
        self.inner().beats.values().filter_map(overdue).collect()
    }

    /// A panic while the lock was held left nothing half-done: each change is one assignment.
    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

impl Component {
    /// It does its part.
    pub fn ok(&self) {
        if self.set(State::Ok) {
            tracing::info!(component = &*self.name, "component is ok");
        }
    }

    /// It does not, for this reason.
    pub fn not_yet(&self, why: impl Into<String>) {
        let why = why.into();
        if self.set(State::Waiting { why: why.clone() }) {
            tracing::warn!(component = &*self.name, why, "component is not ready");
        }
    }

    /// Whether that is a change worth a line: a reason for waiting is one when it is heard for the first time since the
    /// component last was ok. Several calls that fail in turns, each for its own reason, would else fill the log.
    fn set(&self, state: State) -> bool {
        let mut inner = self.health.inner();
        let before = inner.components.insert(self.name.clone(), state.clone());
        if state == State::Ok {
            inner.waiting.remove(&self.name);
        } else {
            inner.waiting.entry(self.name.clone()).or_insert_with(crate::clock::monotonic);
        }
        let logged = inner.logged.entry(self.name.clone()).or_default();
        match state {
            State::Ok => {
                logged.clear();
                before != Some(State::Ok)
            }
            State::Waiting { why } => logged.len() < REASONS_MAX && logged.insert(why),
        }
    }
}

impl Heartbeat {
    /// The loop turned.
    pub fn beat(&self) {
        if let Some(beat) = self.health.inner().beats.get_mut(&self.key) {
            beat.last = crate::clock::monotonic();
        }
    }
}

impl Drop for Heartbeat {
    fn drop(&mut self) {
        self.health.inner().beats.remove(&self.key);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn readiness_is_what_all_components_say() {
        let health = Health::default();
        assert!(!health.is_ready(), "nobody has said anything");
        let kafka = health.component("kafka");
        let watch = health.component("watch");
        kafka.ok();
        assert!(!health.is_ready(), "watch has not started");
        watch.ok();
        assert!(health.is_ready());
        kafka.not_yet("no broker answers");
        assert!(!health.is_ready());
        let waiting = State::Waiting { why: "no broker answers".to_owned() };
        assert_eq!(health.components(), [("kafka".into(), waiting), ("watch".into(), State::Ok)]);
        assert!(health.component("kafka").set(State::Ok), "the same component again");
        assert!(health.is_ready());
    }

    #[test]
    fn only_changes_are_worth_a_line() {
        let component = Health::default().component("kafka");
        let waiting = |why: &str| State::Waiting { why: why.to_owned() };
        assert!(component.set(waiting("a")));
        assert!(!component.set(waiting("a")));
        assert!(component.set(waiting("b")));
        assert!(!component.set(waiting("a")), "two calls that fail in turns are one outage");
        assert!(component.set(State::Ok));
        assert!(!component.set(State::Ok));
        assert!(component.set(waiting("a")), "another outage");
        let lines = (0..100).filter(|reason| component.set(waiting(&reason.to_string()))).count();
        assert_eq!(lines, REASONS_MAX - 1, "a reason that differs each time does not fill the log");
    }

    #[test]
    fn a_component_waits_from_its_first_reason_until_it_is_ok() {
        let health = Health::default();
        let kafka = health.component("kafka");
        let begun = health.inner().waiting["kafka"];
        kafka.not_yet("a");
        health.component("kafka").not_yet("b");
        let later = begun + Duration::from_secs(61);
        assert_eq!(health.waits(later), [("kafka".into(), Duration::from_secs(61))].into());
        kafka.ok();
        assert_eq!(health.waits(later), BTreeMap::new());
        kafka.not_yet("a");
        assert!(health.inner().waiting["kafka"] >= begun);
    }

    #[test]
    fn a_loop_is_stuck_when_its_beat_is_overdue_and_only_then() {
        let health = Health::default();
        let beat = health.heartbeat("watch", Duration::from_secs(5));
        let last = health.inner().beats[&0].last;
        assert_eq!(health.stuck(last + Duration::from_secs(5)), []);
        let late = last + Duration::from_millis(5_001);
        let stuck = Stuck { name: "watch", age: Duration::from_millis(5_001), age_max: Duration::from_secs(5) };
        assert_eq!(health.stuck(late), [stuck]);
        beat.beat();
        assert!(health.inner().beats[&0].last >= last);
        drop(beat);
        assert_eq!(health.stuck(late), [], "a loop that ended is not stuck");
    }
}
