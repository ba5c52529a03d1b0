//! The YAML file of `--rules`: what the user says of failures. docs/rules.md explains it to users.
//!
//! Promises: what it takes has an effect; each refusal is one message with the file, the line, and a caret below the
//! place. Total: any text gives rules or a refusal.

use std::{collections::BTreeMap, fs::File, io::Read as _, path::Path};

use super::{
    Error,
    file::distance,
    names,
    rules_tree::{self, Node, Place, Value, Wrong},
};
use crate::lifecycle::{
    event::Cause,
    user_rules::{
        ConditionMatch, EVENT_RULES_MAX, EventMatch, ExitCodes, Match, Pattern, RULES_MAX, Rule, Says, UserRules,
    },
};

/// Largest file, in bytes.
const FILE_BYTES_MAX: u64 = 256 << 10;
/// Longest list of alternatives.
const LIST_MAX: usize = 64;
/// Longest hint, in characters.
const HINT_CHARS_MAX: usize = 1024;
/// Longest name, cause or category, in characters.
const NAME_CHARS_MAX: usize = 63;

const RULE_KEYS: [&str; 6] = ["name", "match", "cause", "category", "hint", "retryable"];
const MATCH_KEYS: [&str; 8] =
    ["condition", "cause", "reason", "exit-codes", "container", "termination-message", "message", "event"];

/// Reads the file.
pub(super) fn read(path: &Path) -> Result<UserRules, Error> {
    let mut text = String::new();
    let file = File::open(path).and_then(|file| file.take(FILE_BYTES_MAX + 1).read_to_string(&mut text));
    file.map_err(|source| Error::Unreadable {
        key: "rules",
        path: path.to_owned(),
        source,
        mend: "name a readable file of rules with --rules or POD_MONITOR_RULES",
    })?;
    parse(path, &text)
}

/// Reads the rules in `text`; `path` is named where it is wrong.
///
/// # Errors
/// With the line of the first thing that is wrong.
pub fn parse(path: &Path, text: &str) -> Result<UserRules, Error> {
    let refused = |wrong: Wrong| Error::Yaml { path: path.to_owned(), line: wrong.at.line, why: wrong.shown(text) };
    if text.len() as u64 > FILE_BYTES_MAX {
        let why = format!("the file is larger than {FILE_BYTES_MAX} bytes: rules are few and short");
        return Err(Error::Yaml { path: path.to_owned(), line: 1, why });
    }
    let tree = rules_tree::read(text).map_err(refused)?;
    rules(&tree).map(UserRules::new).map_err(refused)
}

/// A rule with the places that later ones are compared with.
struct Placed {
    rule: Rule,
    name_at: Place,
    match_at: Place,
}

fn rules(tree: &Node) -> Result<Vec<Rule>, Wrong> {
    let fields = fields(tree, "the file", &["rules"])?;
    let Some(list) = fields.get("rules") else {
        return Err(Wrong::new(tree.at, "rules is missing: write 'rules:' and below it one '- name: ...' a rule"));
    };
    let nodes = many(list, "rules")?;
    if nodes.len() > RULES_MAX {
        return Err(Wrong::new(nodes[RULES_MAX].at, format!("more than {RULES_MAX} rules: leave some out")));
    }
    let mut placed: Vec<Placed> = Vec::with_capacity(nodes.len());
    for (n, node) in nodes.iter().enumerate() {
        let next = rule(node, &format!("rules[{n}]"))?;
        let name = &next.rule.name;
        if let Some(twin) = placed.iter().find(|earlier| earlier.rule.name == *name) {
            let why = format!("{name} is the name of the rule on line {} already: give it another", twin.name_at.line);
            return Err(Wrong::new(next.name_at, why));
        }
        if let Some(earlier) = placed.iter().find(|earlier| earlier.rule.asks.covers(&next.rule.asks)) {
            let why = format!(
                "rule {name} is never asked: rule {} on line {} matches everything that it matches: put it before that \
                 one, or leave it out",
                earlier.rule.name, earlier.name_at.line
            );
            return Err(Wrong::new(next.match_at, why));
        }
        placed.push(next);
        if placed.iter().filter(|placed| placed.rule.asks.event.is_some()).count() > EVENT_RULES_MAX {
            return Err(Wrong::new(
                node.at,
                format!("more than {EVENT_RULES_MAX} rules ask for an event: leave some out"),
            ));
        }
    }
    Ok(placed.into_iter().map(|placed| placed.rule).collect())
}

fn rule(node: &Node, what: &str) -> Result<Placed, Wrong> {
    let fields = fields(node, what, &RULE_KEYS)?;
    let missing = |key: &str, mend: &str| Wrong::new(node.at, format!("{what}: {key} is missing: {mend}"));
    let name_node = fields.get("name").ok_or_else(|| missing("name", "events tell it as the rule that decided"))?;
    let name = word(name_node, &format!("{what}.name"), "._-")?;
    let asks = fields
        .get("match")
        .ok_or_else(|| missing("match", "say which failures it is about, or write 'match: any' for all"))?;
    let text = |key: &str| fields.get(key).map(|node| (node, format!("{what}.{key}")));
    let says = Says {
        cause: text("cause").map(|(node, what)| cause_name(node, &what)).transpose()?,
        category: text("category").map(|(node, what)| word(node, &what, "._-/")).transpose()?,
        hint: text("hint").map(|(node, what)| scalar(node, &what, HINT_CHARS_MAX).map(Into::into)).transpose()?,
        retryable: text("retryable").map(|(node, what)| flag(node, &what)).transpose()?,
    };
    if says == Says::default() {
        let why = format!("{what}: says nothing: give it at least one of cause, category, hint, retryable");
        return Err(Wrong::new(node.at, why));
    }
    let rule = Rule { name, asks: matches(asks, &format!("{what}.match"))?, says };
    Ok(Placed { rule, name_at: name_node.at, match_at: asks.at })
}

fn matches(node: &Node, what: &str) -> Result<Match, Wrong> {
    match &node.value {
        Value::Scalar(text) if text == "any" => return Ok(Match::default()),
        Value::Null => return Err(empty(node, what, &MATCH_KEYS)),
        Value::Map(fields) if fields.is_empty() => return Err(empty(node, what, &MATCH_KEYS)),
        _ => {}
    }
    let fields = fields(node, what, &MATCH_KEYS)?;
    let at = |key: &str| fields.get(key).map(|node| (*node, format!("{what}.{key}")));
    let codes = if fields.contains_key("container") { exit_codes } else { failing_exit_codes };
    Ok(Match {
        condition: at("condition").map(|(node, what)| condition(node, &what)).transpose()?,
        causes: at("cause").map(|(node, what)| each(node, &what, known_cause)).transpose()?.unwrap_or_default(),
        reasons: at("reason").map(|(node, what)| each(node, &what, short)).transpose()?.unwrap_or_default(),
        exit_codes: at("exit-codes").map(|(node, what)| each(node, &what, codes)).transpose()?.unwrap_or_default(),
        container: at("container").map(|(node, what)| container(node, &what)).transpose()?,
        termination_message: at("termination-message").map(|(node, what)| pattern(node, &what)).transpose()?,
        message: at("message").map(|(node, what)| pattern(node, &what)).transpose()?,
        event: at("event").map(|(node, what)| event(node, &what)).transpose()?,
    })
}

fn empty(node: &Node, what: &str, keys: &[&str]) -> Wrong {
    let any = if keys.len() == MATCH_KEYS.len() { "; for every failure write 'match: any'" } else { "" };
    Wrong::new(node.at, format!("{what}: asks for nothing: give it at least one of {}{any}", keys.join(", ")))
}

fn condition(node: &Node, what: &str) -> Result<ConditionMatch, Wrong> {
    let fields = fields(node, what, &["type", "status", "reason"])?;
    let kind = fields.get("type").ok_or_else(|| {
        Wrong::new(node.at, format!("{what}: type is missing: write for instance {{type: DisruptionTarget}}"))
    })?;
    let status = fields.get("status").map(|node| {
        let status = short(node, &format!("{what}.status"))?;
        // YAML reads True as the flag.
        match status.to_ascii_lowercase().as_str() {
            "true" => Ok("True".into()),
            "false" => Ok("False".into()),
            "unknown" => Ok("Unknown".into()),
            _ => Err(Wrong::new(node.at, format!("{what}.status: write True, False or Unknown"))),
        }
    });
    let reasons = fields.get("reason").map(|node| each(node, &format!("{what}.reason"), short)).transpose()?;
    Ok(ConditionMatch {
        kind: short(kind, &format!("{what}.type"))?,
        status: status.transpose()?.unwrap_or_else(|| "True".into()),
        reasons: reasons.unwrap_or_default(),
    })
}

fn event(node: &Node, what: &str) -> Result<EventMatch, Wrong> {
    let keys = ["reason", "message"];
    if matches!(&node.value, Value::Null) || matches!(&node.value, Value::Map(fields) if fields.is_empty()) {
        return Err(empty(node, what, &keys));
    }
    let fields = fields(node, what, &keys)?;
    let reasons = fields.get("reason").map(|node| each(node, &format!("{what}.reason"), short)).transpose()?;
    let message = fields.get("message").map(|node| pattern(node, &format!("{what}.message"))).transpose()?;
    Ok(EventMatch { reasons: reasons.unwrap_or_default(), message })
}

fn known_cause(node: &Node, what: &str) -> Result<Cause, Wrong> {
    let text = scalar(node, what, NAME_CHARS_MAX)?;
    let wrong = |mend: String| Wrong::new(node.at, format!("{what}: '{}' {mend}", text.escape_debug()));
    let found = Cause::ALL.into_iter().find(|cause| cause.as_str() == text);
    let is_end = |cause: &Cause| cause.usual_end().is_some();
    match found {
        Some(cause) if is_end(&cause) => Ok(cause),
        Some(_) => Err(wrong("is only ever the cause of a stall, and rules are asked about failures".into())),
        None => {
            let known: Vec<&str> = Cause::ALL.iter().filter(|cause| is_end(cause)).map(|c| c.as_str()).collect();
            Err(wrong(format!("is not one of {}", known.join(", "))))
        }
    }
}

fn exit_codes(node: &Node, what: &str) -> Result<ExitCodes, Wrong> {
    let text = scalar(node, what, NAME_CHARS_MAX)?;
    // The first sign may be a minus.
    let (from, to) = match text.char_indices().skip(1).find(|(_, c)| *c == '-') {
        Some((at, _)) => (&text[..at], &text[at + 1..]),
        None => (text, text),
    };
    let wrong = |mend: &str| Wrong::new(node.at, format!("{what}: '{}' {mend}", text.escape_debug()));
    match (from.trim().parse(), to.trim().parse()) {
        (Ok(from), Ok(to)) if from <= to => Ok(ExitCodes { from, to }),
        (Ok(from), Ok(to)) => Err(wrong(&format!("is an empty range: write {to}-{from}"))),
        // As Windows itself shows its large ones.
        _ => match text.trim().parse::<u32>() {
            Ok(code) => Err(wrong(&format!("is {} for Kubernetes: write that", code.cast_signed()))),
            Err(_) => Err(wrong("is no exit code: write for instance [42, 100-110]")),
        },
    }
}

/// Of the main container: who ends with 0 has not failed.
fn failing_exit_codes(node: &Node, what: &str) -> Result<ExitCodes, Wrong> {
    let codes = exit_codes(node, what)?;
    if (codes.from, codes.to) == (0, 0) {
        let why = format!("{what}: 0 of the main container is no failure: leave it out, or name another container");
        return Err(Wrong::new(node.at, why));
    }
    Ok(codes)
}

fn container(node: &Node, what: &str) -> Result<Box<str>, Wrong> {
    let name = scalar(node, what, NAME_CHARS_MAX)?;
    names::dns_label(name).map_err(|why| Wrong::new(node.at, format!("{what}: {why}")))?;
    Ok(name.into())
}

fn cause_name(node: &Node, what: &str) -> Result<Box<str>, Wrong> {
    let name = scalar(node, what, NAME_CHARS_MAX)?;
    let legal = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
    if name.starts_with(|c: char| c.is_ascii_lowercase()) && name.chars().all(legal) {
        return Ok(name.into());
    }
    Err(Wrong::new(node.at, format!("{what}: write lower-case letters, digits and _, beginning with a letter")))
}

/// A name in lower-case letters and digits, with these signs between them.
fn word(node: &Node, what: &str, signs: &str) -> Result<Box<str>, Wrong> {
    let name = scalar(node, what, NAME_CHARS_MAX)?;
    let alphanumeric = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    if name.starts_with(alphanumeric) && name.chars().all(|c| alphanumeric(c) || signs.contains(c)) {
        return Ok(name.into());
    }
    let signs: Vec<String> = signs.chars().map(String::from).collect();
    let signs = signs.join(" ");
    let why = format!("{what}: write lower-case letters, digits and {signs}, beginning with a letter or digit");
    Err(Wrong::new(node.at, why))
}

fn pattern(node: &Node, what: &str) -> Result<Pattern, Wrong> {
    let text = scalar(node, what, usize::MAX)?;
    let pattern = Pattern::new(text).map_err(|why| Wrong::new(node.at, format!("{what}: {why}")))?;
    if pattern.is_anything() {
        let why = format!("{what}: is found in every text, even in none: leave it out, or say what must be there");
        return Err(Wrong::new(node.at, why));
    }
    Ok(pattern)
}

fn flag(node: &Node, what: &str) -> Result<bool, Wrong> {
    match scalar(node, what, NAME_CHARS_MAX)? {
        "true" => Ok(true),
        "false" => Ok(false),
        _ => Err(Wrong::new(node.at, format!("{what}: write true or false"))),
    }
}

fn short(node: &Node, what: &str) -> Result<Box<str>, Wrong> {
    scalar(node, what, 253).map(Into::into)
}

/// One value, not empty, without line breaks and the like.
fn scalar<'a>(node: &'a Node, what: &str, chars_max: usize) -> Result<&'a str, Wrong> {
    let Value::Scalar(text) = &node.value else {
        return Err(Wrong::new(node.at, format!("{what}: takes one value, with quotes where it looks like more")));
    };
    match text {
        _ if text.trim().is_empty() => Err(Wrong::new(node.at, format!("{what}: is empty"))),
        _ if text.trim_end().chars().any(char::is_control) => {
            Err(Wrong::new(node.at, format!("{what}: has to stand on one line, without tabs and the like")))
        }
        _ if text.chars().count() > chars_max => {
            Err(Wrong::new(node.at, format!("{what}: is longer than {chars_max} characters")))
        }
        text => Ok(text.trim_end()),
    }
}

/// A list that is not empty.
fn many<'a>(node: &'a Node, what: &str) -> Result<&'a [Node], Wrong> {
    match &node.value {
        Value::List(list) if !list.is_empty() => Ok(list),
        Value::List(_) | Value::Null => Err(Wrong::new(node.at, format!("{what}: is empty"))),
        Value::Scalar(_) | Value::Map(_) => Err(Wrong::new(node.at, format!("{what}: takes a list"))),
    }
}

/// One value, or a list of them.
fn each<T>(node: &Node, what: &str, one: fn(&Node, &str) -> Result<T, Wrong>) -> Result<Vec<T>, Wrong> {
    if matches!(node.value, Value::Scalar(_)) {
        return Ok(vec![one(node, what)?]);
    }
    let list = many(node, what)?;
    if let Some(node) = list.get(LIST_MAX) {
        return Err(Wrong::new(node.at, format!("{what}: has more than {LIST_MAX} values")));
    }
    list.iter().enumerate().map(|(n, node)| one(node, &format!("{what}[{n}]"))).collect()
}

/// The fields of a map that may have these keys.
fn fields<'a>(node: &'a Node, what: &str, keys: &[&str]) -> Result<BTreeMap<&'a str, &'a Node>, Wrong> {
    let Value::Map(fields) = &node.value else {
        return Err(Wrong::new(node.at, format!("{what}: takes 'key: value', with the keys {}", keys.join(", "))));
    };
    let unknown = |key: &str| match keys.iter().min_by_key(|known| distance(key, known)) {
        Some(near) if distance(key, near) <= 3 => format!("is not a key: did you mean {near}?"),
        _ => format!("is not a key: there are {}", keys.join(", ")),
    };
    if let Some(field) = fields.iter().find(|field| !keys.contains(&field.key.as_str())) {
        let why = format!("{what}: {} {}", field.key.escape_debug(), unknown(&field.key));
        return Err(Wrong::new(field.at, why));
    }
    Ok(fields.iter().map(|field| (field.key.as_str(), &field.value)).collect())
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
#[path = "rules_file_tests.rs"]
mod tests;
