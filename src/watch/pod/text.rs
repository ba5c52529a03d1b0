//! Texts of a pod, bounded: an API server that keeps its own rules sends none that these bounds touch.
//!
//! A name that no object can have is unreadable, and with it the object that it names. What people read is cut.

use std::{collections::BTreeMap, fmt};

use compact_str::CompactString;
use serde::{
    Deserialize, Deserializer,
    de::{Error, MapAccess, Visitor},
};

use super::PodUid;

/// Longest name of anything, in bytes: a DNS subdomain.
pub const NAME_BYTES_MAX: usize = 253;
/// Longest reason that is kept, in bytes: one word.
const REASON_BYTES_MAX: usize = 253;
/// Longest message that is kept, in bytes: what a kubelet keeps of a termination message, and the most that user rules
/// search.
pub const MESSAGE_BYTES_MAX: usize = 4096;

/// Looks at a text where it stands and gives what is made of it; absent and null are the empty one. A `Cow` would copy it
/// first, which is a quarter of all that reading a pod allocates.
pub(super) fn read<'de, D, T, F>(d: D, make: F) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    F: FnOnce(&str) -> Result<T, Odd>,
{
    d.deserialize_option(Read(make))
}

/// A text that no object can have.
pub(super) struct Odd {
    bytes: usize,
}

impl fmt::Display for Odd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a name of {} bytes, or with control characters", self.bytes)
    }
}

struct Read<F>(F);

impl<'de, T, F: FnOnce(&str) -> Result<T, Odd>> Visitor<'de> for Read<F> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a text")
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<T, E> {
        (self.0)(text).map_err(E::custom)
    }

    fn visit_none<E: Error>(self) -> Result<T, E> {
        self.visit_str("")
    }

    fn visit_unit<E: Error>(self) -> Result<T, E> {
        self.visit_str("")
    }

    fn visit_some<D: Deserializer<'de>>(self, d: D) -> Result<T, D::Error> {
        d.deserialize_str(self)
    }
}

/// Absent, null and empty are the same.
pub(super) fn name<'de, D: Deserializer<'de>>(d: D) -> Result<CompactString, D::Error> {
    read(d, |text| Ok(checked(text)?.into()))
}

pub(super) fn uid<'de, D: Deserializer<'de>>(d: D) -> Result<PodUid, D::Error> {
    read(d, |text| Ok(PodUid(checked(text)?.into())))
}

/// Absent, null and empty are the same.
pub(super) fn name_or_none<'de, D: Deserializer<'de>>(d: D) -> Result<Option<CompactString>, D::Error> {
    read(d, |text| Ok(Some(checked(text)?).filter(|text| !text.is_empty()).map(Into::into)))
}

/// Texts by key; a key without a value is no key.
pub(super) fn map<'de, D: Deserializer<'de>>(d: D) -> Result<BTreeMap<CompactString, CompactString>, D::Error> {
    d.deserialize_option(Map)
}

/// What is read of labels and annotations are names. A longer text, like the whole pod that kubectl notes down, is none, and
/// is cut to one that is still too long.
struct Value(CompactString);

impl<'de> Deserialize<'de> for Value {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        read(d, |text| Ok(Self(text[..text.ceil_char_boundary(NAME_BYTES_MAX + 1)].into())))
    }
}

struct Map;

impl<'de> Visitor<'de> for Map {
    type Value = BTreeMap<CompactString, CompactString>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a map of texts")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut texts = BTreeMap::new();
        while let Some((key, text)) = map.next_entry::<CompactString, Option<Value>>()? {
            match text {
                Some(Value(text)) => drop(texts.insert(key, text)),
                None => drop(texts.remove(&key)),
            }
        }
        Ok(texts)
    }

    fn visit_none<E>(self) -> Result<Self::Value, E> {
        Ok(BTreeMap::new())
    }

    fn visit_unit<E>(self) -> Result<Self::Value, E> {
        Ok(BTreeMap::new())
    }

    fn visit_some<D: Deserializer<'de>>(self, d: D) -> Result<Self::Value, D::Error> {
        d.deserialize_map(self)
    }
}

fn checked(text: &str) -> Result<&str, Odd> {
    let is_odd = text.len() > NAME_BYTES_MAX || text.chars().any(char::is_control);
    if is_odd { Err(Odd { bytes: text.len() }) } else { Ok(text) }
}

pub(super) fn reason<'de, D: Deserializer<'de>>(d: D) -> Result<Option<CompactString>, D::Error> {
    cut(d, REASON_BYTES_MAX)
}

pub(super) fn message<'de, D: Deserializer<'de>>(d: D) -> Result<Option<Box<str>>, D::Error> {
    cut(d, MESSAGE_BYTES_MAX)
}

/// Absent, null and empty are the same.
fn cut<'de, D: Deserializer<'de>, T: for<'a> From<&'a str>>(d: D, bytes_max: usize) -> Result<Option<T>, D::Error> {
    read(d, |text| Ok((!text.is_empty()).then(|| text[..text.floor_char_boundary(bytes_max)].into())))
}

#[cfg(test)]
mod tests {
    use super::{super::decode, *};
    use crate::watch::pod::{Decoded, Pod};

    fn read(name: &str, reason: &str, message: &str) -> Result<Pod, String> {
        let text = serde_json::json!({
            "metadata": { "uid": "u", "name": name, "namespace": "n" },
            "status": { "reason": reason, "message": message, "containerStatuses": [{ "name": "main" }, { "name": name }] }
        });
        match decode(&text.to_string()) {
            Decoded::Whole(pod) => Ok(pod),
            Decoded::Partly { lost, .. } => Err(lost.join(" ")),
            Decoded::Unreadable { error, .. } => Err(error),
        }
    }

    #[test]
    fn a_name_that_no_object_can_have_makes_it_unreadable() {
        assert!(read(&"n".repeat(NAME_BYTES_MAX), "", "").is_ok());
        for name in ["", "a\u{0}", "\u{1b}[2J", &"n".repeat(NAME_BYTES_MAX + 1)] {
            assert!(read(name, "", "").is_err(), "{name:?}");
        }
        let nameless =
            r#"{"metadata":{"uid":"u","name":"p","namespace":"n"},"status":{"containerStatuses":[{"name":"a"},{}]}}"#;
        let Decoded::Partly { pod, lost } = decode(nameless) else { panic!("a status has no name") };
        assert_eq!((pod.status.container_statuses.len(), lost), (1, vec!["status.containerStatuses"]));
    }

    #[test]
    fn an_annotation_that_is_no_name_is_cut_and_still_none() {
        let long = "a".repeat(NAME_BYTES_MAX);
        for (text, bytes) in
            [(long.clone(), 253), (format!("{long}a"), 254), (format!("{long}💩"), 257), (format!("{long}{long}"), 254)]
        {
            let pod = serde_json::json!({
                "metadata": { "uid": "u", "name": "p", "namespace": "n", "annotations": { "a": text, "b": null } }
            });
            let Decoded::Whole(pod) = decode(&pod.to_string()) else { panic!("a pod") };
            let read: Vec<_> = pod.metadata.annotations.iter().map(|(key, text)| (&**key, text.len())).collect();
            assert_eq!(read, [("a", bytes)]);
        }
    }

    #[test]
    fn what_people_read_is_cut_between_characters_and_absent_where_empty() {
        let long = "💩".repeat(MESSAGE_BYTES_MAX);
        let status = read("p", &format!("a{long}"), &format!("a{long}")).expect("a pod").status;
        assert_eq!(status.reason.as_deref().map(str::len), Some(253));
        assert_eq!(status.message.as_deref().map(str::len), Some(4093));
        let status = read("p", "", "").expect("a pod").status;
        assert_eq!((status.reason, status.message), (None, None));
    }
}
