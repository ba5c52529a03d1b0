//! Rules of the user (`--rules`): what a failure is called and what is to be done about it. Ordered, the first match wins.
//!
//! ```text
//!  verdict ──▶ UserRules::ruling: which rules match this pod ──▶ Ruling, in the changelog beside the verdict
//!                    (those that wait for Kubernetes Events stand before the first that needs none)
//!  capture ──▶ Ruling::settle: the first whose Event was captured, else the last one ──▶ what is told
//! ```
//! Promises: never the event type, and never of an execution that completed; whoever finishes the job, with whatever rules
//! of its own, settles the same ruling. Total: texts, patterns and counts are bounded, and the patterns' time is linear in
//! the text. Pure. Reading the file is `config/rules_file.rs`'s business.

use regex::{Regex, RegexBuilder};
use serde::{Deserialize, Serialize, Serializer};
use uuid::Uuid;

use super::{
    container,
    event::{Cause, Failure, KubernetesEvent, Ruled, Verdict},
};
use crate::watch::pod::{Condition, ContainerStatus, Pod, Terminated};

/// Most rules of a file.
pub const RULES_MAX: usize = 128;
/// Most rules of a file that ask for a Kubernetes Event: each may stand in a pod's changelog record.
pub const EVENT_RULES_MAX: usize = 16;
/// Longest pattern, in characters.
pub const PATTERN_CHARS_MAX: usize = 512;
/// Largest compiled pattern, in bytes.
const PATTERN_BYTES_MAX: usize = 256 << 10;
/// How much of a text is searched, in bytes: what a kubelet keeps of a termination message.
pub const TEXT_BYTES_MAX: usize = 4096;
/// Most conditions of a pod that are looked at.
const CONDITIONS_MAX: usize = 32;
/// Names the hashes of rules among UUIDv5.
const HASH_SPACE: Uuid = Uuid::from_u128(0x7c0e_5f0b_6b0d_4f6e_9a55_0d5a_54b8_7f11);

/// A compiled pattern: found anywhere in a text unless it is anchored.
#[derive(Debug, Clone)]
pub struct Pattern(Regex);

impl Pattern {
    /// Compiles it.
    ///
    /// # Errors
    /// What is wrong with it, in one line.
    pub fn new(text: &str) -> Result<Self, String> {
        if text.chars().count() > PATTERN_CHARS_MAX {
            return Err(format!("is longer than {PATTERN_CHARS_MAX} characters: make it shorter"));
        }
        let limit = PATTERN_BYTES_MAX;
        match RegexBuilder::new(text).size_limit(limit).dfa_size_limit(limit).nest_limit(32).build() {
            Ok(regex) => Ok(Self(regex)),
            Err(regex::Error::CompiledTooBig(_)) => {
                Err(format!("takes more than {limit} bytes once compiled: use smaller repetitions"))
            }
            Err(error) => {
                let said = error.to_string();
                let last = said.lines().last().unwrap_or_default().trim();
                Err(format!("is no regular expression: {}", last.strip_prefix("error: ").unwrap_or(last)))
            }
        }
    }

    /// Whether it is found whatever the text: `.*` for instance.
    pub fn is_anything(&self) -> bool {
        self.0.is_match("") && self.0.is_match("\u{2603}7")
    }

    /// Whether it is found in the text's first [`TEXT_BYTES_MAX`].
    fn finds(&self, text: &str) -> bool {
        self.0.is_match(&text[..text.floor_char_boundary(TEXT_BYTES_MAX)])
    }
}

impl PartialEq for Pattern {
    fn eq(&self, other: &Self) -> bool {
        self.0.as_str() == other.0.as_str()
    }
}

impl Serialize for Pattern {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.0.as_str())
    }
}

/// One rule.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Rule {
    /// Its name, told as `rule`.
    pub name: Box<str>,
    /// What it asks for.
    pub asks: Match,
    /// What it says then.
    pub says: Says,
}

/// What a rule asks for: everything that it names must hold; of a list, one is enough. Naming nothing: every failure.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Match {
    /// A condition of the pod.
    pub condition: Option<ConditionMatch>,
    /// The built-in cause.
    pub causes: Vec<Cause>,
    /// The pod's reason, or the container's.
    pub reasons: Vec<Box<str>>,
    /// The container's exit code.
    pub exit_codes: Vec<ExitCodes>,
    /// Which container this is about, and that it failed; `None`: the main container.
    pub container: Option<Box<str>>,
    /// In the container's termination message.
    pub termination_message: Option<Pattern>,
    /// In what Kubernetes says of the pod.
    pub message: Option<Pattern>,
    /// A captured Kubernetes Event.
    pub event: Option<EventMatch>,
}

/// A condition of the pod.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ConditionMatch {
    /// `type`
    pub kind: Box<str>,
    /// `status`
    pub status: Box<str>,
    /// `reason`; empty: any.
    pub reasons: Vec<Box<str>>,
}

/// Exit codes from one to another, both included.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExitCodes {
    /// The lowest.
    pub from: i32,
    /// The highest.
    pub to: i32,
}

/// One Kubernetes Event about the pod, of those that its end tells.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct EventMatch {
    /// `reason`; empty: any.
    pub reasons: Vec<Box<str>>,
    /// In its message.
    pub message: Option<Pattern>,
}

/// What a rule says of a failure; what it leaves out stays as it was.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Says {
    /// A name of the user's own for the cause.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cause: Option<Box<str>>,
    /// What the user files such failures under.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub category: Option<Box<str>>,
    /// What to do about it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hint: Option<Box<str>>,
    /// Whether another try may succeed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retryable: Option<bool>,
}

/// The rules of a file, in its order.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct UserRules {
    rules: Vec<Rule>,
    hash: Option<Box<str>>,
}

impl UserRules {
    /// These, of which no more than [`RULES_MAX`] and [`EVENT_RULES_MAX`] count.
    pub fn new(mut rules: Vec<Rule>) -> Self {
        rules.truncate(RULES_MAX);
        // Of what they mean, not of how that is written: comments and the order of keys are no difference.
        let meaning = serde_json::to_vec(&rules).expect("rules are texts and numbers");
        let hash = Uuid::new_v5(&HASH_SPACE, &meaning).simple().to_string();
        let hash = (!rules.is_empty()).then(|| hash[..16].into());
        Self { rules, hash }
    }

    /// The same for the same rules, in whatever process; `None`: there are none.
    pub fn hash(&self) -> Option<&str> {
        self.hash.as_deref()
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.rules.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.rules.is_empty()
    }

    /// Which rules have a say in this end; `None`: nobody asked them. `pod`: absent where nobody saw the end.
    pub fn ruling(&self, verdict: &Verdict, pod: Option<&Pod>) -> Option<Box<Ruling>> {
        let (hash, failure) = (self.hash.clone()?, verdict.failure.as_ref()?);
        let facts = Facts { failure, pod, main: &verdict.container };
        let mut candidates = Vec::new();
        let mut waiting = 0;
        for rule in self.rules.iter().filter(|rule| facts.fit(&rule.asks)) {
            let event = rule.asks.event.as_ref().map(|event| EventWords {
                reasons: event.reasons.clone(),
                message: event.message.as_ref().map(|pattern| pattern.0.as_str().into()),
            });
            let last = event.is_none();
            if !last && waiting == EVENT_RULES_MAX {
                continue;
            }
            waiting += usize::from(!last);
            candidates.push(Candidate { rule: rule.name.clone(), event, says: rule.says.clone() });
            if last {
                break;
            }
        }
        Some(Box::new(Ruling { rules_hash: hash, candidates }))
    }
}

/// What the rules made of an end whose capture is under way: all that whoever finishes the job needs to know of them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ruling {
    /// [`UserRules::hash`] of the rules that were asked.
    pub rules_hash: Box<str>,
    /// Rules that match but for a Kubernetes Event, in their order, and after them the first that matches without one.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub candidates: Vec<Candidate>,
}

/// A rule that may decide.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Candidate {
    /// Its name.
    pub rule: Box<str>,
    /// The Kubernetes Event that it waits for; `None`: it waits for nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub event: Option<EventWords>,
    /// What it says.
    pub says: Says,
}

/// An [`EventMatch`] as the changelog keeps it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EventWords {
    /// `reason`; empty: any.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub reasons: Vec<Box<str>>,
    /// The pattern of its message.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<Box<str>>,
}

impl Ruling {
    /// Has the first rule speak that these Kubernetes Events let decide.
    pub fn settle(self, failure: &mut Failure, events: &[KubernetesEvent]) {
        let decides = |c: &Candidate| c.event.as_ref().is_none_or(|asked| asked.is_among(events));
        let Some(Candidate { rule, says, .. }) = self.candidates.into_iter().find(decides) else { return };
        failure.hint = says.hint.or(failure.hint.take());
        failure.retryable = says.retryable.unwrap_or(failure.retryable);
        failure.ruled = Some(Box::new(Ruled { rule, cause: says.cause, category: says.category }));
    }
}

impl EventWords {
    fn is_among(&self, events: &[KubernetesEvent]) -> bool {
        let by_reason = |e: &&KubernetesEvent| one_of(&self.reasons, Some(&e.reason));
        let mut of_reason = events.iter().filter(by_reason).peekable();
        let Some(text) = self.message.as_deref().filter(|_| of_reason.peek().is_some()) else {
            return of_reason.peek().is_some();
        };
        // Compiled here, once an end: it may come from the rules of another replica, of another release even.
        let Ok(pattern) = Pattern::new(text) else { return false };
        of_reason.any(|e| e.message.as_deref().is_some_and(|said| pattern.finds(said)))
    }
}

/// Empty: any, even none.
fn one_of(known: &[Box<str>], reason: Option<&str>) -> bool {
    known.is_empty() || reason.is_some_and(|reason| known.iter().any(|known| **known == *reason))
}

/// What is known of an end.
struct Facts<'a> {
    failure: &'a Failure,
    pod: Option<&'a Pod>,
    main: &'a str,
}

/// What is known of one container.
#[derive(Default)]
struct Subject<'a> {
    ended: Option<&'a Terminated>,
    waits: Option<&'a str>,
}

impl<'a> Facts<'a> {
    fn fit(&self, asks: &Match) -> bool {
        let subject = self.subject(asks.container.as_deref().unwrap_or(self.main));
        // Named, and nothing asked of its exit code: that it failed is the point.
        let by_name = asks.container.is_none() || !asks.exit_codes.is_empty() || subject.failed();
        by_name
            && (asks.causes.is_empty() || asks.causes.contains(&self.failure.cause))
            && asks.condition.as_ref().is_none_or(|asked| self.conditions().any(|c| asked.is(c)))
            && (asks.reasons.is_empty() || self.reasons(&subject).any(|reason| one_of(&asks.reasons, Some(reason))))
            && (asks.exit_codes.is_empty()
                || subject.exit_code().is_some_and(|code| asks.exit_codes.iter().any(|range| range.holds(code))))
            && asks.termination_message.as_ref().is_none_or(|pattern| {
                subject.ended.and_then(|t| t.message.as_deref()).is_some_and(|said| pattern.finds(said))
            })
            && asks.message.as_ref().is_none_or(|pattern| self.messages().any(|said| pattern.finds(said)))
    }

    fn subject(&self, name: &str) -> Subject<'a> {
        let statuses = self.pod.into_iter().flat_map(|pod| {
            let status = &pod.status;
            status.container_statuses.iter().chain(&status.init_container_statuses)
        });
        statuses.into_iter().find(|status| *status.name == *name).map_or_else(Subject::default, Subject::of)
    }

    fn conditions(&self) -> impl Iterator<Item = &'a Condition> {
        self.pod.into_iter().flat_map(|pod| &pod.status.conditions).take(CONDITIONS_MAX)
    }

    fn reasons(&self, subject: &Subject<'a>) -> impl Iterator<Item = &'a str> {
        let of_pod = self.pod.and_then(|pod| pod.status.reason.as_deref());
        let of_container = subject.ended.and_then(|t| t.reason.as_deref());
        [of_pod, of_container, subject.waits].into_iter().flatten()
    }

    /// What Kubernetes says, and what is told of it; a program's own words are in the termination message.
    fn messages(&self) -> impl Iterator<Item = &str> {
        let of_pod = self.pod.and_then(|pod| pod.status.message.as_deref());
        let statuses = self.pod.into_iter().flat_map(|pod| {
            let status = &pod.status;
            status.container_statuses.iter().chain(&status.init_container_statuses)
        });
        let waiting = statuses.filter_map(|s| s.state.waiting.as_ref()?.message.as_deref()).take(CONDITIONS_MAX);
        let conditions = self.conditions().filter_map(|c| c.message.as_deref());
        of_pod.into_iter().chain(self.failure.message.as_deref()).chain(conditions).chain(waiting)
    }
}

impl<'a> Subject<'a> {
    fn of(status: &'a ContainerStatus) -> Self {
        let ended = status.state.terminated.as_ref().or(status.last_state.terminated.as_ref());
        Self { ended, waits: status.state.waiting.as_ref().and_then(|waiting| waiting.reason.as_deref()) }
    }

    fn exit_code(&self) -> Option<i32> {
        self.ended.filter(|t| container::process_exited(t)).map(|t| t.exit_code)
    }

    fn failed(&self) -> bool {
        self.ended.is_some_and(|t| t.exit_code != 0 || !container::process_exited(t))
    }
}

impl ConditionMatch {
    fn is(&self, condition: &Condition) -> bool {
        condition.kind == self.kind
            && condition.status == self.status
            && one_of(&self.reasons, condition.reason.as_deref())
    }
}

impl ExitCodes {
    fn holds(self, code: i32) -> bool {
        (self.from..=self.to).contains(&code)
    }
}

impl Match {
    /// Whether every end that `other` matches is matched by this, so that a rule with `other` after it is never asked.
    pub fn covers(&self, other: &Self) -> bool {
        let about_container =
            !self.exit_codes.is_empty() || !self.reasons.is_empty() || self.termination_message.is_some();
        let same_container = self.container == other.container || (self.container.is_none() && !about_container);
        same_container
            // `container` by itself asks for a failure, which a list of exit codes does not.
            && (self.container.is_none() || !self.exit_codes.is_empty() || other.exit_codes.is_empty())
            && within(&self.causes, &other.causes)
            && within(&self.reasons, &other.reasons)
            && (self.exit_codes.is_empty() || ExitCodes::all_within(&other.exit_codes, &self.exit_codes))
            && self.condition.as_ref().is_none_or(|c| other.condition.as_ref().is_some_and(|o| c.covers(o)))
            && (self.termination_message.is_none() || self.termination_message == other.termination_message)
            && (self.message.is_none() || self.message == other.message)
            && self.event.as_ref().is_none_or(|e| other.event.as_ref().is_some_and(|o| e.covers(o)))
    }
}

impl ConditionMatch {
    fn covers(&self, other: &Self) -> bool {
        self.kind == other.kind && self.status == other.status && within(&self.reasons, &other.reasons)
    }
}

impl EventMatch {
    fn covers(&self, other: &Self) -> bool {
        within(&self.reasons, &other.reasons) && (self.message.is_none() || self.message == other.message)
    }
}

impl ExitCodes {
    /// Whether each of these is inside one of those.
    fn all_within(these: &[Self], those: &[Self]) -> bool {
        !these.is_empty()
            && these.iter().all(|this| those.iter().any(|that| that.from <= this.from && this.to <= that.to))
    }
}

/// Whether a list of alternatives leaves nothing out that the other lets through; empty: everything.
fn within<T: PartialEq>(wide: &[T], narrow: &[T]) -> bool {
    wide.is_empty() || (!narrow.is_empty() && narrow.iter().all(|one| wide.contains(one)))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
#[path = "user_rules_tests.rs"]
mod tests;
