//! The user's properties, which may change while we run: secrets are rotated in the files that they stand in.
//!
//! ```text
//!   files ──refresh──▶ changed? checked? ──▶ candidate ──one client with it──▶ Kafka lets it in ──prove──▶ current
//!                                                                                                            │
//!                         journals and tails of an older generation are renewed, new clients are made of it ◀┘
//! ```
//! Promises: what is in use stays in use until Kafka has let its successor in, so that a file that changes before the
//! broker does harms nobody; what cannot be read or used is complained of once and changes nothing.

use std::{
    collections::BTreeMap,
    hash::{DefaultHasher, Hash as _, Hasher as _},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

/// Properties by name; secrets in the clear.
pub(super) type Properties = BTreeMap<String, String>;

/// Reads the properties from where they stand. The error names what is wrong, without any value.
pub type Reread = Arc<dyn Fn() -> Result<BTreeMap<String, String>, String> + Send + Sync>;

/// The properties as they are now. Clones share them.
#[derive(Clone)]
pub(super) struct Rotation {
    /// `None`: they never change.
    reread: Option<Reread>,
    state: Arc<Mutex<State>>,
}

struct State {
    /// What clients are made of.
    current: Version,
    /// What the files say, while Kafka has not let it in.
    candidate: Option<Version>,
    /// How often they changed.
    changes: u64,
    /// What was complained of last.
    complaint: Option<String>,
}

/// The properties at one time.
#[derive(Clone)]
pub(super) struct Version {
    pub(super) properties: Arc<Properties>,
    pub(super) generation: u64,
    fingerprint: u64,
}

/// What came of looking at the files.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Looked {
    /// Nothing is new.
    Same,
    /// They changed; names of all properties.
    Changed(Vec<String>),
    /// They cannot be used as they stand there, for a reason that was not told yet.
    Unusable(String),
}

impl Rotation {
    pub(super) fn new(properties: Properties) -> Self {
        let fingerprint = fingerprint(&properties);
        let current = Version { properties: Arc::new(properties), generation: 0, fingerprint };
        let state = State { current, candidate: None, changes: 0, complaint: None };
        Self { reread: None, state: Arc::new(Mutex::new(state)) }
    }

    pub(super) fn rereading(self, reread: Reread) -> Self {
        Self { reread: Some(reread), ..self }
    }

    pub(super) fn properties(&self) -> Arc<Properties> {
        Arc::clone(&self.state().current.properties)
    }

    pub(super) fn generation(&self) -> u64 {
        self.state().current.generation
    }

    pub(super) fn candidate(&self) -> Option<Version> {
        self.state().candidate.clone()
    }

    /// Kafka let in a client of the candidate of this generation.
    pub(super) fn prove(&self, generation: u64) {
        let mut state = self.state();
        if let Some(proven) = state.candidate.take_if(|candidate| candidate.generation == generation) {
            state.current = proven;
        }
    }

    /// Looks at the files; `check` says whether what they hold could be used.
    pub(super) fn refresh(&self, check: impl FnOnce(&Properties) -> Result<(), String>) -> Looked {
        let Some(reread) = &self.reread else { return Looked::Same };
        // Reading and checking take their time, and clients are made meanwhile.
        let read = reread().map(|properties| (fingerprint(&properties), properties));
        let is_known = |new| {
            let state = self.state();
            new == state.candidate.as_ref().unwrap_or(&state.current).fingerprint
        };
        let checked = match read {
            Ok((new, _)) if is_known(new) => {
                self.state().complaint = None;
                return Looked::Same;
            }
            Ok((new, properties)) => check(&properties).map(|()| (new, properties)),
            Err(why) => Err(why),
        };
        let mut state = self.state();
        match checked {
            Ok((fingerprint, properties)) => {
                let names = properties.keys().cloned().collect();
                state.complaint = None;
                state.changes += 1;
                let new = Version { properties: Arc::new(properties), generation: state.changes, fingerprint };
                // Back to what is in use: there is nothing to be let in.
                state.candidate = (fingerprint != state.current.fingerprint).then_some(new);
                Looked::Changed(names)
            }
            Err(why) if state.complaint.as_ref() == Some(&why) => Looked::Same,
            Err(why) => {
                state.complaint = Some(why.clone());
                Looked::Unusable(why)
            }
        }
    }

    /// A panic while the lock was held left nothing half-done: each change is one assignment.
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Differs when a value does, or what stands in a file that librdkafka reads itself (`ssl.key.location` and the like).
fn fingerprint(properties: &Properties) -> u64 {
    let mut hasher = DefaultHasher::new();
    properties.hash(&mut hasher);
    for (_, path) in properties.iter().filter(|(name, _)| name.ends_with(".location")) {
        // A directory of authorities, or a file that is not there: librdkafka says so when a client is made.
        std::fs::read(path).ok().hash(&mut hasher);
    }
    hasher.finish()
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    type Says = Arc<Mutex<Result<Properties, String>>>;

    fn properties(entries: &[(&str, &str)]) -> Properties {
        entries.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    fn rotation(start: Properties) -> (Rotation, Says) {
        let says = Arc::new(Mutex::new(Ok(start.clone())));
        let file = Arc::clone(&says);
        (Rotation::new(start).rereading(Arc::new(move || file.lock().unwrap().clone())), says)
    }

    fn password(rotation: &Rotation) -> String {
        rotation.properties().get("sasl.password").unwrap().clone()
    }

    #[test]
    fn what_is_in_use_stays_in_use_until_kafka_let_its_successor_in() {
        let (rotation, says) = rotation(properties(&[("sasl.password", "old")]));
        assert_eq!(rotation.refresh(|_| Ok(())), Looked::Same);
        *says.lock().unwrap() = Ok(properties(&[("sasl.password", "new")]));
        assert_eq!(rotation.refresh(|_| Ok(())), Looked::Changed(vec!["sasl.password".into()]));
        assert_eq!(rotation.refresh(|_| Ok(())), Looked::Same, "told once");
        let candidate = rotation.candidate().unwrap();
        assert_eq!((password(&rotation).as_str(), candidate.properties["sasl.password"].as_str()), ("old", "new"));
        rotation.prove(candidate.generation + 1);
        assert_eq!((password(&rotation).as_str(), rotation.generation()), ("old", 0), "that was another one");
        rotation.prove(candidate.generation);
        assert_eq!((password(&rotation).as_str(), rotation.generation()), ("new", 1));
        assert!(rotation.candidate().is_none());
    }

    #[test]
    fn a_change_that_is_taken_back_leaves_nothing_to_be_let_in() {
        let (rotation, says) = rotation(properties(&[("sasl.password", "old")]));
        *says.lock().unwrap() = Ok(properties(&[("sasl.password", "wrong")]));
        rotation.refresh(|_| Ok(()));
        *says.lock().unwrap() = Ok(properties(&[("sasl.password", "old")]));
        assert_eq!(rotation.refresh(|_| Ok(())), Looked::Changed(vec!["sasl.password".into()]));
        assert!(rotation.candidate().is_none());
        assert_eq!((password(&rotation).as_str(), rotation.generation()), ("old", 0));
    }

    #[test]
    fn what_cannot_be_used_changes_nothing_and_is_complained_of_once() {
        let (rotation, says) = rotation(properties(&[("a", "1")]));
        *says.lock().unwrap() = Err("cannot read".into());
        assert_eq!(rotation.refresh(|_| Ok(())), Looked::Unusable("cannot read".into()));
        assert_eq!(rotation.refresh(|_| Ok(())), Looked::Same);
        *says.lock().unwrap() = Ok(properties(&[("a", "2")]));
        assert_eq!(rotation.refresh(|_| Err("refused".into())), Looked::Unusable("refused".into()));
        assert_eq!(*rotation.properties(), properties(&[("a", "1")]));
        assert_eq!(rotation.generation(), 0);
        *says.lock().unwrap() = Ok(properties(&[("a", "1")]));
        assert_eq!(rotation.refresh(|_| Ok(())), Looked::Same);
        *says.lock().unwrap() = Err("cannot read".into());
        assert_eq!(rotation.refresh(|_| Ok(())), Looked::Unusable("cannot read".into()), "another outage");
    }

    #[test]
    fn a_file_that_librdkafka_reads_itself_is_looked_into() {
        let path = std::env::temp_dir().join(format!("pod-monitor-rotation-{}", std::process::id()));
        std::fs::write(&path, "one").unwrap();
        let (rotation, _) = rotation(properties(&[("ssl.key.location", path.to_str().unwrap())]));
        assert_eq!(rotation.refresh(|_| Ok(())), Looked::Same);
        std::fs::write(&path, "two").unwrap();
        assert_eq!(rotation.refresh(|_| Ok(())), Looked::Changed(vec!["ssl.key.location".into()]));
        std::fs::remove_file(path).unwrap();
    }
}
