//! Of a container's variables only one: most pods have dozens, and each watch event brings them all again.

use std::{borrow::Cow, fmt};

use serde::{
    Deserialize, Deserializer,
    de::{IgnoredAny, MapAccess, SeqAccess, Visitor},
};

use crate::lifecycle::trace;

/// Longer values than a trace context has with room for later versions are none.
const VALUE_BYTES_MAX: usize = 256;

/// The value of `TRACEPARENT` in a list of variables; what is no such list has none.
pub(super) fn traceparent<'de, D: Deserializer<'de>>(d: D) -> Result<Option<Box<str>>, D::Error> {
    d.deserialize_any(Variables)
}

struct Variables;

/// `valueFrom` is the kubelet's to resolve: such a value is not known here.
#[derive(Deserialize, Default)]
#[serde(default)]
struct Variable<'a> {
    #[serde(borrow)]
    name: Text<'a>,
    #[serde(borrow)]
    value: Text<'a>,
}

/// A text, borrowed where it can be; `None` for whatever else stands there.
#[derive(Default)]
struct Text<'a>(Option<Cow<'a, str>>);

impl<'de: 'a, 'a> Deserialize<'de> for Text<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Texts).map(Self)
    }
}

/// Serde's `untagged` would copy each value of each variable first.
struct Texts;

impl<'de> Visitor<'de> for Texts {
    type Value = Option<Cow<'de, str>>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a text")
    }

    fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Self::Value, E> {
        Ok(Some(text.into()))
    }

    fn visit_str<E>(self, text: &str) -> Result<Self::Value, E> {
        Ok(Some(text.to_owned().into()))
    }

    fn visit_bool<E>(self, _: bool) -> Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_i64<E>(self, _: i64) -> Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_u64<E>(self, _: u64) -> Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_f64<E>(self, _: f64) -> Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_unit<E>(self) -> Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, items: A) -> Result<Self::Value, A::Error> {
        IgnoredAny.visit_seq(items).map(|_| None)
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Self::Value, A::Error> {
        IgnoredAny.visit_map(map).map(|_| None)
    }
}

impl<'de> Visitor<'de> for Variables {
    type Value = Option<Box<str>>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list of variables")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Self::Value, A::Error> {
        let mut found = None;
        while let Some(Variable { name, value }) = items.next_element()? {
            let (Text(Some(name)), Text(Some(value))) = (name, value) else { continue };
            if name == trace::VARIABLE && value.len() <= VALUE_BYTES_MAX {
                found = Some(value.into());
            }
        }
        Ok(found)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
        Ok(None)
    }

    fn visit_unit<E>(self) -> Result<Self::Value, E> {
        Ok(None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::watch::pod::Container;

    #[test]
    fn the_variable_is_found_among_others_and_odd_ones_cost_nothing() {
        let long = "x".repeat(VALUE_BYTES_MAX + 1);
        let found = |env: &str| {
            let container = format!("{{\"name\":\"main\",\"env\":{env}}}");
            let container: Container = serde_json::from_str(&container).expect(env);
            assert_eq!(&*container.name, "main");
            container.traceparent
        };
        let other = r#"{"name":"HOME","value":"/"},{"name":"KEY","valueFrom":{"secretKeyRef":{"name":"a","key":"b"}}}"#;
        assert_eq!(
            found(&format!(r#"[{other},{{"name":"TRACEPARENT","value":"00-\u0061"}}]"#)).as_deref(),
            Some("00-a")
        );
        assert_eq!(found(&format!("[{other}]")), None);
        assert_eq!(found(&format!(r#"[{{"name":"TRACEPARENT","value":"{long}"}}]"#)), None);
        for odd in [
            "null",
            "{\"a\":1}",
            "[]",
            "[{\"name\":7,\"value\":null}]",
            "[{\"name\":true,\"value\":{\"a\":[-1]}}]",
            "[{\"name\":[0.5]}]",
            "[{}]",
            r#"[{"name":"TRACEPARENT"}]"#,
        ] {
            assert_eq!(found(odd), None, "{odd}");
        }
    }
}
