//! The changelog's records: keys and values, both ways. Pure.
//!
//! | key | value |
//! | --- | --- |
//! | `pod/<uid>` | [`Tracked`]; a tombstone once the pod may be forgotten |
//! | `meta/identity` | [`Identity`] |
//! | `meta/position` | [`Position`] |
//! | `meta/barrier` | [`Barrier`] |
//! | `meta/moved` | [`Moved`]: another generation's changelog is the truth |
//! | `meta/inherited` | [`Inherited`]; a tombstone once it is of no use |
//!
//! The barrier is a key of its own, not a position: it is written before anything is read, so its writer cannot know
//! the term yet. The first position that the new holder commits carries the next term.
//!
//! Promises: what is written satisfies what is asserted after reading (asserts in pairs); any bytes decode to a value,
//! never to a panic. A record of a later release that this one must not act on is [`Unreadable`].

use serde::{Deserialize, Serialize, de::DeserializeOwned};

use super::{
    Position,
    generation::{Inherited, Moved},
    identity::Identity,
    sound::{check, check_uid},
};
use crate::{
    lifecycle::tracked::{FORMAT, Tracked},
    watch::pod::PodUid,
};

/// Key of [`Identity`].
pub const IDENTITY: &str = "meta/identity";
/// Key of [`Position`].
pub const POSITION: &str = "meta/position";
/// Key of [`Barrier`].
pub const BARRIER: &str = "meta/barrier";
/// Key of [`Moved`].
pub const MOVED: &str = "meta/moved";
/// Key of [`Inherited`].
pub const INHERITED: &str = "meta/inherited";
/// What keys of pods begin with.
pub const POD: &str = "pod/";

/// What a new holder writes right after fencing: everything before it is final.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Barrier {
    /// Unique per fence.
    pub nonce: String,
    /// Who fenced: unique per process start.
    pub holder: String,
}

/// One record of the changelog, read.
#[derive(Debug, Clone, PartialEq)]
pub enum Entry {
    /// What has been told of a pod; `None` is a tombstone.
    Pod(PodUid, Option<Box<Tracked>>),
    /// Whose changelog this is.
    Identity(Identity),
    /// How far the watch streams have been worked through.
    Position(Position),
    /// Everything before this is final.
    Barrier(Barrier),
    /// This changelog is the truth no more.
    Moved(Moved),
    /// How far the shards of earlier generations had come; `None` is a tombstone.
    Inherited(Option<Inherited>),
    /// Not a record that this release can act on.
    Unreadable(Unreadable),
}

/// A record that was not understood. A fact to tell and to count, not a reason to stop reading.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("changelog record {key}: {reason}")]
pub struct Unreadable {
    /// The record's key, as far as it is text.
    pub key: String,
    /// What is wrong with it.
    pub reason: Reason,
}

impl Unreadable {
    /// Whose record it is, if it is one of a pod.
    pub fn pod(&self) -> Option<PodUid> {
        pod_of_key(&self.key)
    }
}

/// Why a record was not understood.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Reason {
    /// Written by a later release for later releases.
    #[error("needs a reader of format {oldest_reader}, this is {FORMAT}")]
    TooNew {
        /// The oldest format that may act on it.
        oldest_reader: u16,
    },
    /// No key that this release knows.
    #[error("unknown key")]
    Key,
    /// The value is not JSON of the right shape.
    #[error("value cannot be read: {0}")]
    Value(String),
    /// The value breaks a rule that every writer keeps.
    #[error("value breaks a rule: {0}")]
    Rule(&'static str),
}

/// Key of a pod's record.
pub fn pod_key(uid: &PodUid) -> String {
    [POD, &uid.0].concat()
}

/// Whose record it is, if it is one of a pod.
pub fn pod_of_key(key: &str) -> Option<PodUid> {
    key.strip_prefix(POD).map(|uid| PodUid(uid.into()))
}

/// Appends the JSON of one pod's record, or says which rule it breaks.
pub fn write_tracked(into: &mut Vec<u8>, uid: &PodUid, tracked: &Tracked) -> Result<(), Unreadable> {
    let refused = |reason| Unreadable { key: pod_key(uid), reason };
    check_uid(uid).and_then(|()| check(tracked)).map_err(|rule| refused(Reason::Rule(rule)))?;
    serde_json::to_writer(into, tracked).map_err(|error| refused(Reason::Value(error.to_string())))
}

/// Reads one record.
pub fn decode(key: Option<&[u8]>, value: Option<&[u8]>) -> Entry {
    let Some(key) = key.and_then(|key| std::str::from_utf8(key).ok()) else {
        let key = String::from_utf8_lossy(key.unwrap_or_default()).into_owned();
        return Entry::Unreadable(Unreadable { key, reason: Reason::Key });
    };
    decode_value(key, value).unwrap_or_else(|reason| Entry::Unreadable(Unreadable { key: key.to_owned(), reason }))
}

fn decode_value(key: &str, value: Option<&[u8]>) -> Result<Entry, Reason> {
    match (key, key.strip_prefix(POD)) {
        (_, Some(uid)) => {
            let uid = PodUid(uid.into());
            check_uid(&uid).map_err(Reason::Rule)?;
            match value {
                Some(value) => Ok(Entry::Pod(uid, Some(tracked(value)?))),
                None => Ok(Entry::Pod(uid, None)),
            }
        }
        (IDENTITY, _) => Ok(Entry::Identity(json(value)?)),
        (POSITION, _) => Ok(Entry::Position(json(value)?)),
        (BARRIER, _) => Ok(Entry::Barrier(json(value)?)),
        (MOVED, _) => Ok(Entry::Moved(json(value)?)),
        (INHERITED, _) => Ok(Entry::Inherited(value.map(|value| json(Some(value))).transpose()?)),
        _ => Err(Reason::Key),
    }
}

fn json<T: DeserializeOwned>(value: Option<&[u8]>) -> Result<T, Reason> {
    let value = value.ok_or(Reason::Rule("a tombstone on a meta key"))?;
    serde_json::from_slice(value).map_err(|error| Reason::Value(error.to_string()))
}

fn tracked(value: &[u8]) -> Result<Box<Tracked>, Reason> {
    match serde_json::from_slice::<Tracked>(value) {
        Ok(tracked) if tracked.oldest_reader > FORMAT => Err(Reason::TooNew { oldest_reader: tracked.oldest_reader }),
        Ok(tracked) => check(&tracked).map(|()| Box::new(tracked)).map_err(Reason::Rule),
        // A later release may have changed the shape of fields too: then only its format number can be read.
        Err(error) => match serde_json::from_slice::<FormatOnly>(value) {
            Ok(FormatOnly { oldest_reader }) if oldest_reader > FORMAT => Err(Reason::TooNew { oldest_reader }),
            _ => Err(Reason::Value(error.to_string())),
        },
    }
}

#[derive(Deserialize)]
struct FormatOnly {
    oldest_reader: u16,
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;
    use crate::watch::pod::ResourceVersion;

    fn sample() -> Tracked {
        let text = r#"{"format":1,"oldest_reader":1,"resource_version":7,"namespace":"ns","pod_name":"exec-1",
            "execution_id":"1","sequence":2,"told":{"scheduled":true},"later_field":{"a":1}}"#;
        serde_json::from_str(text).unwrap()
    }

    fn uid() -> PodUid {
        PodUid("u-1".into())
    }

    #[test]
    fn record_of_a_pod_survives_the_way_out_and_back_with_unknown_fields() {
        let mut bytes = Vec::new();
        write_tracked(&mut bytes, &uid(), &sample()).unwrap();
        let entry = decode(Some(pod_key(&uid()).as_bytes()), Some(&bytes));
        assert_eq!(entry, Entry::Pod(uid(), Some(Box::new(sample()))));
        assert!(String::from_utf8(bytes).unwrap().contains("later_field"));
        assert_eq!(decode(Some(b"pod/u-1"), None), Entry::Pod(uid(), None));
    }

    #[test]
    fn record_of_a_later_release_is_a_fact_and_not_a_panic() {
        let reason = |key: &[u8], value: Option<&[u8]>| match decode(Some(key), value) {
            Entry::Unreadable(unreadable) => unreadable.reason,
            other => panic!("{other:?}"),
        };
        let mut late = Tracked { format: FORMAT + 1, oldest_reader: FORMAT + 1, ..sample() };
        let bytes = serde_json::to_vec(&late).unwrap();
        assert_eq!(reason(b"pod/u", Some(&bytes)), Reason::TooNew { oldest_reader: FORMAT + 1 });
        let reshaped = br#"{"format":2,"oldest_reader":2,"resource_version":{"x":1}}"#;
        assert_eq!(reason(b"pod/u", Some(reshaped)), Reason::TooNew { oldest_reader: 2 });
        late.oldest_reader = FORMAT;
        let bytes = serde_json::to_vec(&late).unwrap();
        assert!(matches!(decode(Some(b"pod/u"), Some(&bytes)), Entry::Pod(_, Some(_))), "may be acted on");
        assert!(matches!(reason(b"pod/u", Some(b"{")), Reason::Value(_)));
        assert_eq!(reason(b"pod/", Some(b"{}")), Reason::Rule("uid is empty"));
        assert_eq!(reason(b"meta/later", Some(b"{}")), Reason::Key);
        assert_eq!(reason(b"\xff", None), Reason::Key);
        assert!(matches!(reason(b"meta/position", None), Reason::Rule(_)));
        assert!(matches!(reason(b"meta/moved", None), Reason::Rule(_)), "nothing moves back");
        assert_eq!(decode(Some(b"meta/inherited"), None), Entry::Inherited(None), "it is of no use any more");
        let nameless = Tracked { execution_id: "".into(), ..sample() };
        assert_eq!(
            reason(b"pod/u", Some(&serde_json::to_vec(&nameless).unwrap())),
            Reason::Rule("execution_id is empty")
        );
    }

    #[test]
    fn record_that_no_reader_would_take_is_not_written() {
        for broken in [
            Tracked { format: 0, ..sample() },
            Tracked { oldest_reader: 9, ..sample() },
            Tracked { execution_id: "".into(), ..sample() },
            Tracked { pod_name: "".into(), ..sample() },
        ] {
            assert!(write_tracked(&mut Vec::new(), &uid(), &broken).is_err(), "{broken:?}");
        }
        let fine = Tracked { resource_version: ResourceVersion(1), ..sample() };
        assert!(write_tracked(&mut Vec::new(), &PodUid::default(), &fine).is_err(), "no uid");
    }

    proptest::proptest! {
        #[test]
        fn no_bytes_panic_the_reader(key: Vec<u8>, value: Option<Vec<u8>>, pick in 0usize..7) {
            let known = [
                &b"pod/u"[..],
                b"meta/identity",
                b"meta/position",
                b"meta/barrier",
                b"meta/moved",
                b"meta/inherited",
                &key,
            ];
            decode(Some(known[pick]), value.as_deref());
        }
    }
}
