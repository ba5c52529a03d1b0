//! The rules of names that Kubernetes and Kafka have. Pure; each function says what is wrong in words for people.

/// Placeholder in `--events-topic`: one topic per event type.
pub const EVENT_TYPE: &str = "{event_type}";

/// A label or annotation key: `name` or `prefix/name`.
pub fn label_key(key: &str) -> Result<(), String> {
    let name = match key.split_once('/') {
        None => key,
        Some((prefix, name)) => {
            dns_subdomain(prefix).map_err(|why| format!("the prefix before '/' {why}"))?;
            name
        }
    };
    qualified(name, "a label key")
        .and_then(|()| if name.is_empty() { Err("the key is empty".to_owned()) } else { Ok(()) })
}

/// A label value; may be empty.
pub fn label_value(value: &str) -> Result<(), String> {
    qualified(value, "a label value")
}

fn qualified(text: &str, what: &str) -> Result<(), String> {
    if text.len() > 63 {
        return Err(format!("{what} has at most 63 characters"));
    }
    let edge = |byte: Option<u8>| byte.is_none_or(|byte| byte.is_ascii_alphanumeric());
    let inner = text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte));
    if inner && edge(text.bytes().next()) && edge(text.bytes().next_back()) {
        return Ok(());
    }
    Err(format!("{what} consists of letters, digits, '-', '_' and '.', and begins and ends with a letter or digit"))
}

/// A DNS subdomain: names of Leases, prefixes of label keys.
pub fn dns_subdomain(text: &str) -> Result<(), String> {
    if text.is_empty() || text.len() > 253 || !text.split('.').all(is_dns_label) {
        return Err(
            "has to be lower-case letters, digits, '-' and '.', at most 253 characters, for instance pod-monitor"
                .to_owned(),
        );
    }
    Ok(())
}

/// A DNS label: names of namespaces and containers.
pub fn dns_label(text: &str) -> Result<(), String> {
    if text.len() > 63 || !is_dns_label(text) {
        return Err(
            "has to be lower-case letters, digits and '-', at most 63 characters, for instance executions".to_owned()
        );
    }
    Ok(())
}

fn is_dns_label(label: &str) -> bool {
    let edge = |byte: Option<u8>| byte.is_some_and(|byte| byte != b'-');
    label.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-')
        && edge(label.bytes().next())
        && edge(label.bytes().next_back())
}

/// A Kafka topic, without placeholders.
pub fn topic(name: &str) -> Result<(), String> {
    let legal = name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte));
    if !legal || name.is_empty() || name.len() > 249 || name == "." || name == ".." {
        return Err("a topic has 1 to 249 letters, digits, '.', '_' or '-'".to_owned());
    }
    Ok(())
}

/// A Kafka topic that may contain [`EVENT_TYPE`].
pub fn topic_pattern(pattern: &str) -> Result<(), String> {
    // The longest event type stands in, so that the length holds for all of them.
    topic(&pattern.replace(EVENT_TYPE, "execution_completed"))
        .map_err(|why| format!("{why}; the only placeholder is {EVENT_TYPE}"))
}

/// An id that ends up in transactional ids and Lease records: printable, without spaces.
pub fn id(text: &str) -> Result<(), String> {
    if text.is_empty() || text.len() > 128 || !text.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err("has to be 1 to 128 printable ASCII characters without spaces".to_owned());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    type Rule = fn(&str) -> Result<(), String>;

    #[test]
    fn names_follow_the_rules_of_their_owners() {
        let cases: [(&str, Rule, &[&str], &[&str]); 6] = [
            ("label key", label_key, &["a", "a.b/c_d", "execution-id"], &["", "a/", "/a", "a/b/c", "-a", "A/b"]),
            ("label value", label_value, &["", "a", "A.b_c-1"], &["-", "a b", "ä", ".a"]),
            ("namespace", dns_label, &["a", "a-1"], &["", "A", "-a", "a-", "a.b"]),
            ("lease", dns_subdomain, &["a.b", "pod-monitor"], &["", "a..b", "A"]),
            ("topic", topic_pattern, &["a.b", "x.{event_type}"], &["", "a b", "{other}", "..", "a/b"]),
            ("id", id, &["a", "pod-1_x"], &["", "a b", "\u{1b}"]),
        ];
        for (what, rule, good, bad) in cases {
            for text in good {
                assert_eq!(rule(text), Ok(()), "{what} {text}");
            }
            for text in bad {
                assert!(rule(text).is_err(), "{what} '{text}'");
            }
        }
    }
}
