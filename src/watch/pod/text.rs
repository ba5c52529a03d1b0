//! Texts of a pod, bounded: an API server that keeps its own rules sends none that these bounds touch.
//!
//! A name that no object can have is unreadable, and with it the object that it names. What people read is cut.

use std::borrow::Cow;

use serde::{Deserialize, Deserializer};

use super::PodUid;

/// Longest name of anything, in bytes: a DNS subdomain.
pub const NAME_BYTES_MAX: usize = 253;
/// Longest reason that is kept, in bytes: one word.
const REASON_BYTES_MAX: usize = 253;
/// Longest message that is kept, in bytes: what a kubelet keeps of a termination message, and the most that user rules
/// search.
pub const MESSAGE_BYTES_MAX: usize = 4096;

/// Absent, null and empty are the same.
pub(super) fn name<'de, D: Deserializer<'de>>(d: D) -> Result<Box<str>, D::Error> {
    checked(&Option::<Cow<'de, str>>::deserialize(d)?.unwrap_or_default())
}

pub(super) fn uid<'de, D: Deserializer<'de>>(d: D) -> Result<PodUid, D::Error> {
    name(d).map(PodUid)
}

/// Absent, null and empty are the same.
pub(super) fn name_or_none<'de, D: Deserializer<'de>>(d: D) -> Result<Option<Box<str>>, D::Error> {
    let text = Option::<Cow<'de, str>>::deserialize(d)?;
    text.filter(|text| !text.is_empty()).map(|text| checked(&text)).transpose()
}

fn checked<E: serde::de::Error>(text: &str) -> Result<Box<str>, E> {
    if text.len() > NAME_BYTES_MAX || text.chars().any(char::is_control) {
        return Err(E::custom(format_args!("a name of {} bytes, or with control characters", text.len())));
    }
    Ok(text.into())
}

pub(super) fn reason<'de, D: Deserializer<'de>>(d: D) -> Result<Option<Box<str>>, D::Error> {
    cut(d, REASON_BYTES_MAX)
}

pub(super) fn message<'de, D: Deserializer<'de>>(d: D) -> Result<Option<Box<str>>, D::Error> {
    cut(d, MESSAGE_BYTES_MAX)
}

/// Absent, null and empty are the same.
fn cut<'de, D: Deserializer<'de>>(d: D, bytes_max: usize) -> Result<Option<Box<str>>, D::Error> {
    let text = Option::<Cow<'de, str>>::deserialize(d)?;
    Ok(text.filter(|text| !text.is_empty()).map(|text| text[..text.floor_char_boundary(bytes_max)].into()))
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
    fn what_people_read_is_cut_between_characters_and_absent_where_empty() {
        let long = "💩".repeat(MESSAGE_BYTES_MAX);
        let status = read("p", &format!("a{long}"), &format!("a{long}")).expect("a pod").status;
        let bytes = |text: &Option<Box<str>>| text.as_deref().map(str::len);
        assert_eq!((bytes(&status.reason), bytes(&status.message)), (Some(253), Some(4093)));
        let status = read("p", "", "").expect("a pod").status;
        assert_eq!((status.reason, status.message), (None, None));
    }
}
