//! librdkafka properties given by users. Values may be secrets: Debug and Display never show those, and no error
//! message quotes a value.

use std::{collections::BTreeMap, fmt};

/// Parts of property names whose values are never shown.
const SECRET_PARTS: [&str; 7] = ["password", "secret", "key", "token", "jaas", "credential", "oauthbearer.config"];

/// Properties that the delivery promise rests on: the monitor sets them itself.
pub const REFUSED: [&str; 20] = [
    "acks",
    "allow.auto.create.topics",
    "auto.offset.reset",
    "delivery.timeout.ms",
    "enable.auto.commit",
    "enable.auto.offset.store",
    "enable.gapless.guarantee",
    "enable.idempotence",
    "group.id",
    "group.instance.id",
    "isolation.level",
    "max.in.flight",
    "max.in.flight.requests.per.connection",
    "message.send.max.retries",
    "message.timeout.ms",
    "partitioner",
    "request.required.acks",
    "retries",
    "transaction.timeout.ms",
    "transactional.id",
];

/// Properties that have a flag of their own.
const BOOTSTRAP: [&str; 2] = ["bootstrap.servers", "metadata.broker.list"];

/// librdkafka properties by name.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Properties(BTreeMap<String, String>);

impl Properties {
    /// Adds one `name=value`. The error names the property, never the value.
    pub fn add(&mut self, entry: &str) -> Result<(), String> {
        let Some((name, value)) = entry.split_once('=') else {
            return Err("an entry has no '=': write name=value, for instance security.protocol=ssl".to_owned());
        };
        let (name, value) = (name.trim(), value.trim());
        if name.is_empty() || !name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte)) {
            // What stands before '=' may be a slice of a secret with a '=' in it, so it is not quoted either.
            return Err("an entry's name is not made of letters, digits, '.', '_' and '-': write name=value".to_owned());
        }
        if REFUSED.contains(&name) {
            return Err(format!("{name} is set by the monitor, since exactly-once delivery rests on it: leave it out"));
        }
        if BOOTSTRAP.contains(&name) {
            return Err(format!("{name} has its own key: use kafka (--kafka, POD_MONITOR_KAFKA)"));
        }
        self.0.insert(name.to_owned(), value.to_owned());
        Ok(())
    }

    /// Reads `name=value` lines; blank ones and those that begin with `#` are skipped. The error begins with the line.
    pub fn parse_lines(text: &str) -> Result<Self, (usize, String)> {
        let mut properties = Self::default();
        for (index, line) in text.lines().enumerate() {
            let line = line.trim();
            if !line.is_empty() && !line.starts_with('#') {
                properties.add(line).map_err(|why| (index + 1, why))?;
            }
        }
        Ok(properties)
    }

    /// Name and value of each, secrets in the clear: for the Kafka client only.
    pub fn iter_with_secrets(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(name, value)| (name.as_str(), value.as_str()))
    }

    /// The same as a map.
    pub fn to_map_with_secrets(&self) -> BTreeMap<String, String> {
        self.0.clone()
    }

    /// With each value replaced by what `of` makes of it.
    pub fn try_map<E>(self, of: impl Fn(&str, &str) -> Result<String, E>) -> Result<Self, E> {
        let mapped = self.0.into_iter().map(|(name, value)| of(&name, &value).map(|value| (name, value)));
        mapped.collect::<Result<_, _>>().map(Self)
    }

    /// Takes over everything of `other`, which wins.
    pub fn extend(&mut self, other: Self) {
        self.0.extend(other.0);
    }
}

/// Splits the variable POD_MONITOR_KAFKA_CONFIG: at newlines where there are any, else at commas. So a value that
/// contains a comma needs the form with newlines (one at the end is enough).
pub fn split_variable(text: &str) -> Vec<String> {
    let separator = if text.contains('\n') { '\n' } else { ',' };
    text.split(separator).map(str::trim).filter(|entry| !entry.is_empty()).map(str::to_owned).collect()
}

fn is_secret(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    SECRET_PARTS.iter().any(|part| name.contains(part))
}

impl fmt::Display for Properties {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, (name, value)) in self.0.iter().enumerate() {
            let comma = if index == 0 { "" } else { ", " };
            write!(f, "{comma}{name}={}", if is_secret(name) { "***" } else { value })?;
        }
        Ok(())
    }
}

impl fmt::Debug for Properties {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{{{self}}}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_never_shown() {
        let mut properties = Properties::default();
        for name in
            ["sasl.password", "client.SECRET", "ssl.key.pem", "oauth.token", "sasl.jaas.config", "x.credentials"]
        {
            properties.add(&format!("{name}=hunter2=")).expect(name);
        }
        properties.add("security.protocol=ssl").expect("a property");
        let shown = format!("{properties} {properties:?}");
        assert!(!shown.contains("hunter2"), "{shown}");
        assert!(shown.contains("security.protocol=ssl") && shown.contains("sasl.password=***"), "{shown}");
        assert!(properties.iter_with_secrets().any(|entry| entry == ("sasl.password", "hunter2=")));
    }

    #[test]
    fn refused_and_malformed_entries_are_named_without_their_values() {
        let cases = [
            ("hunter2", "no '='"),
            ("=hunter2", "name=value"),
            ("hunter2 and=more", "name=value"),
            ("transactional.id=hunter2", "transactional.id"),
            ("acks=hunter2", "acks"),
            ("bootstrap.servers=hunter2", "--kafka"),
        ];
        for (entry, expected) in cases {
            let error = Properties::default().add(entry).expect_err(entry);
            assert!(error.contains(expected) && !error.contains("hunter2"), "{entry}: {error}");
        }
    }

    #[test]
    fn files_and_variables_are_split_alike() {
        let lines = Properties::parse_lines("# secrets\n\na.b = c\nd=e,f\n").expect("lines");
        assert_eq!(lines.iter_with_secrets().collect::<Vec<_>>(), [("a.b", "c"), ("d", "e,f")]);
        assert_eq!(Properties::parse_lines("a=b\nnonsense\n").map_err(|(line, _)| line), Err(2));
        assert_eq!(split_variable("a=b,c=d"), ["a=b", "c=d"]);
        assert_eq!(split_variable("a=b,c\n"), ["a=b,c"]);
        assert_eq!(split_variable(""), Vec::<String>::new());
    }
}
