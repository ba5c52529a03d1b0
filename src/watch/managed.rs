//! An object's text without `metadata.managedFields`: who wrote which field when, by far the most of many objects, and of
//! nobody's interest here. The JSON decoder passes over each of its hundreds of keys one by one.

use memchr::{memchr2, memchr3, memmem};

/// As the API server writes it: last in `metadata`. With white space, or as the first field, it is left to the decoder.
const FIELD: &[u8] = b",\"managedFields\":[";

/// The text without it; none where there is none, or it has no end. What is left is valid JSON where the whole was, and
/// says the same but for this one array: in valid JSON these characters are a key with an array, since the quotation
/// marks of texts are escaped.
pub(super) fn without(text: &str) -> Option<String> {
    let from = memmem::find(text.as_bytes(), FIELD)?;
    let to = end_of_array(text.as_bytes(), from + FIELD.len())?;
    let mut rest = String::with_capacity(text.len() - (to - from));
    rest.push_str(&text[..from]);
    rest.push_str(&text[to..]);
    Some(rest)
}

/// Where an array ends (behind its bracket) whose first bracket stands before `at`. Braces need not be counted: in valid
/// JSON the brackets alone nest as well.
fn end_of_array(text: &[u8], mut at: usize) -> Option<usize> {
    let mut open = 1;
    while open > 0 {
        at += memchr3(b'"', b'[', b']', text.get(at..)?)?;
        match text[at] {
            b'"' => at = end_of_text(text, at + 1)?,
            b'[' => (open, at) = (open + 1, at + 1),
            _ => (open, at) = (open - 1, at + 1),
        }
    }
    Some(at)
}

/// Where a text ends (behind its quotation mark) that begins at `at`.
fn end_of_text(text: &[u8], mut at: usize) -> Option<usize> {
    loop {
        at += memchr2(b'"', b'\\', text.get(at..)?)?;
        if text[at] == b'"' {
            return Some(at + 1);
        }
        at += 2;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;

    /// What is left, read; null where nothing was left out.
    fn left(text: &str) -> Value {
        without(text).map_or(Value::Null, |rest| serde_json::from_str(&rest).expect(&rest))
    }

    #[test]
    fn the_array_goes_and_nothing_else() {
        let tricky =
            r#"{"a":{"b":[1],"managedFields":[{"m":"]},\"","k:{\"x\":\"]\"}":{"[":[[],["\\"]]}}],"c":[2]},"d":"]"}"#;
        assert_eq!(left(tricky), json!({ "a": { "b": [1], "c": [2] }, "d": "]" }));
        // Within a text it is no field.
        let text = serde_json::to_string(&json!({ "a": r#"1,"managedFields":[2]"#, "b": 3 })).expect("JSON");
        for same in [text.as_str(), "", "{}", r#"{"managedFields":[]}"#, r#"{"a":1, "managedFields":[1]}"#] {
            assert_eq!(without(same), None, "{same}");
        }
        for cut in [r#"{"a":1,"managedFields":["#, r#"{"a":1,"managedFields":[["x]"]"#, r#"{"a":1,"managedFields":["\"#]
        {
            assert_eq!(without(cut), None, "{cut}: it has no end");
        }
    }

    #[test]
    fn every_recorded_pod_says_the_same_without_it() {
        let life = include_str!("../../tests/fixtures/life.jsonl");
        let mut shorter = 0;
        for line in life.lines() {
            let mut whole: Value = serde_json::from_str(line).expect("JSON");
            let Some(rest) = without(line) else { continue };
            shorter += line.len() - rest.len();
            let metadata = whole.pointer_mut("/object/metadata");
            metadata.and_then(Value::as_object_mut).expect("metadata").remove("managedFields");
            assert_eq!(serde_json::from_str::<Value>(&rest).expect("JSON"), whole);
        }
        assert!(shorter > life.len() / 5, "{shorter} of {} bytes", life.len());
    }

    proptest! {
        #[test]
        fn any_text_gives_an_answer(head in ".*", tail in ".*") {
            if let Some(rest) = without(&format!("{head},\"managedFields\":[{tail}")) {
                prop_assert!(rest.starts_with(&head) || head.contains("managedFields"));
            }
        }
    }
}
