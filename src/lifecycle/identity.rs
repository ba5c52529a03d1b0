//! Who an execution is, and what its events are called: pure derivations from the pod, the same for every replica.

use std::borrow::Cow;

use jiff::Timestamp;
use serde::Serialize;
use uuid::Uuid;

use super::event::Cause;
use crate::watch::pod::{Metadata, PodUid};

/// Where execution and user ids come from (`--execution-label`, `--execution-annotation`, `--execution-name-prefix`,
/// `--user-label`), tried in this order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IdSources {
    /// Label with the execution id.
    pub execution_label: String,
    /// Annotation with the execution id.
    pub execution_annotation: String,
    /// What is left of the pod's name after this prefix.
    pub execution_name_prefix: String,
    /// Label with the user id.
    pub user_label: String,
}

impl Default for IdSources {
    fn default() -> Self {
        Self {
            execution_label: "execution-id".into(),
            execution_annotation: "execution-id".into(),
            execution_name_prefix: "exec-".into(),
            user_label: "user-id".into(),
        }
    }
}

/// The ids of one pod.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ids {
    /// The execution id; the pod UID where none is given or the given one is illegal.
    pub execution_id: Box<str>,
    /// The user id, where a legal one is given.
    pub user_id: Option<Box<str>>,
    /// What was wrong, for counting and one warning.
    pub odd: Option<OddId>,
}

/// Why an id is not the one that the pod's maker meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OddId {
    /// No source gave an execution id.
    ExecutionAbsent,
    /// The execution id is not a legal label value of at most 253 characters.
    ExecutionIllegal,
    /// The user id is not legal; it is left out.
    UserIllegal,
}

/// Longest id, in characters.
pub const ID_CHARS_MAX: usize = 253;

/// Finds the ids of a pod.
pub fn ids(metadata: &Metadata, sources: &IdSources) -> Ids {
    let given = given(metadata, sources).map(|(id, _)| id);
    let user = metadata.labels.get(sources.user_label.as_str());
    let user_id = user.filter(|id| legal(id)).map(|id| id.as_str().into());
    let (execution_id, odd) = match given {
        None => (&*metadata.uid.0, Some(OddId::ExecutionAbsent)),
        Some(id) if !legal(id) => (&*metadata.uid.0, Some(OddId::ExecutionIllegal)),
        Some(id) if user.is_some() && user_id.is_none() => (id, Some(OddId::UserIllegal)),
        Some(id) => (id, None),
    };
    Ids { execution_id: execution_id.into(), user_id, odd }
}

/// Where an execution id stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Source {
    /// `--execution-label`
    Label,
    /// `--execution-annotation`
    Annotation,
    /// `--execution-name-prefix`
    Name,
    /// Nowhere, or what stands there is not legal: the pod's UID stands in.
    Uid,
}

/// Where the execution id comes from that [`ids`] finds.
pub fn source(metadata: &Metadata, sources: &IdSources) -> Source {
    given(metadata, sources).filter(|(id, _)| legal(id)).map_or(Source::Uid, |(_, source)| source)
}

/// The first execution id that is given, legal or not.
fn given<'a>(metadata: &'a Metadata, sources: &IdSources) -> Option<(&'a str, Source)> {
    let label = metadata.labels.get(sources.execution_label.as_str()).map(|id| (&**id, Source::Label));
    let annotation = || Some((&**metadata.annotations.get(sources.execution_annotation.as_str())?, Source::Annotation));
    let name = || Some((name_id(&metadata.name, &sources.execution_name_prefix)?, Source::Name));
    label.or_else(annotation).or_else(name)
}

fn name_id<'a>(name: &'a str, prefix: &str) -> Option<&'a str> {
    // An empty prefix would make every pod's name an execution id.
    if prefix.is_empty() { None } else { name.strip_prefix(prefix).filter(|rest| !rest.is_empty()) }
}

/// A legal label value, but up to 253 characters: ids end up in keys, headers and log lines.
fn legal(id: &str) -> bool {
    let inner = |b: &u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
    let bytes = id.as_bytes();
    let ends = |b: Option<&u8>| b.is_some_and(u8::is_ascii_alphanumeric);
    bytes.len() <= ID_CHARS_MAX && ends(bytes.first()) && ends(bytes.last()) && bytes.iter().all(inner)
}

/// Which of a pod's events: never the verdict, so that replicas with different rules tell the same id.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Slot {
    /// `pod_scheduled`
    Scheduled,
    /// `execution_running`
    Running,
    /// `execution_stalled`: by its cause, and since when
    Stalled(Cause, Timestamp),
    /// `execution_resumed`: of that stall
    Resumed(Cause, Timestamp),
    /// `execution_completed`, `execution_failed` or `execution_timeout`
    End,
    /// `pod_terminated`
    Gone,
}

impl Slot {
    fn name(self) -> Cow<'static, str> {
        match self {
            Self::Scheduled => "scheduled".into(),
            Self::Running => "running".into(),
            Self::Stalled(cause, since) => format!("stalled:{}:{since}", cause.as_str()).into(),
            Self::Resumed(cause, since) => format!("resumed:{}:{since}", cause.as_str()).into(),
            Self::End => "end".into(),
            Self::Gone => "gone".into(),
        }
    }
}

/// The namespace of our UUIDv5 ids: UUIDv5(DNS, "pod-monitor.dev"). Changing it would tell every event anew.
const NAMESPACE: Uuid =
    Uuid::from_bytes([0xf6, 0x66, 0x49, 0xe4, 0xf9, 0xaa, 0x5f, 0x7a, 0xbe, 0xa1, 0xf7, 0x1c, 0x76, 0x25, 0x16, 0x80]);

/// The id of an event: a function of what happened to which pod, never of who saw it.
///
/// `restart_count` tells attempts of one pod apart; events that happen once per pod have 0.
pub fn event_id(cluster_id: &str, pod: &PodUid, restart_count: u32, slot: Slot) -> Uuid {
    Uuid::new_v5(&NAMESPACE, format!("{cluster_id}/{pod}/{restart_count}/{}", slot.name()).as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod(name: &str, label: Option<&str>, annotation: Option<&str>, user: Option<&str>) -> Metadata {
        let mut m = Metadata { uid: PodUid("u-1".into()), name: name.into(), ..Metadata::default() };
        let mut put = |key: &str, value: Option<&str>| {
            if let Some(value) = value {
                m.labels.insert(key.into(), value.into());
            }
        };
        put("execution-id", label);
        put("user-id", user);
        if let Some(value) = annotation {
            m.annotations.insert("execution-id".into(), value.into());
        }
        m
    }

    #[test]
    fn ids_come_from_label_then_annotation_then_name() {
        let long = "a".repeat(ID_CHARS_MAX + 1);
        let cases = [
            ("label wins", pod("exec-n", Some("l"), Some("a"), Some("me")), "l", Some("me"), None),
            ("annotation next", pod("exec-n", None, Some("a"), None), "a", None, None),
            ("name last", pod("exec-n", None, None, None), "n", None, None),
            ("nothing", pod("job-7", None, None, None), "u-1", None, Some(OddId::ExecutionAbsent)),
            ("prefix only", pod("exec-", None, None, None), "u-1", None, Some(OddId::ExecutionAbsent)),
            ("illegal sign", pod("p", None, Some("a b"), None), "u-1", None, Some(OddId::ExecutionIllegal)),
            ("escape sequence", pod("p", None, Some("a\u{1b}[2J"), None), "u-1", None, Some(OddId::ExecutionIllegal)),
            ("too long", pod("p", None, Some(&long), None), "u-1", None, Some(OddId::ExecutionIllegal)),
            ("bad edge", pod("p", Some("-a"), None, None), "u-1", None, Some(OddId::ExecutionIllegal)),
            ("bad user", pod("p", Some("e"), None, Some("x/y")), "e", None, Some(OddId::UserIllegal)),
        ];
        for (name, metadata, execution, user, odd) in cases {
            let found = ids(&metadata, &IdSources::default());
            assert_eq!((&*found.execution_id, found.user_id.as_deref(), found.odd), (execution, user, odd), "{name}");
        }
    }

    #[test]
    fn event_ids_never_change() {
        // Golden: a change here makes every consumer see old events as new ones.
        let id = event_id("c", &PodUid("p".into()), 0, Slot::End);
        assert_eq!(id.to_string(), GOLDEN);
        assert_ne!(id, event_id("c", &PodUid("p".into()), 0, Slot::Gone));
        assert_ne!(id, event_id("c", &PodUid("p".into()), 1, Slot::End));
        assert_ne!(id, event_id("d", &PodUid("p".into()), 0, Slot::End));
    }

    const GOLDEN: &str = "1716d78d-fceb-5732-ad68-23f8287e2c80";
}
