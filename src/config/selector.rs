//! Label selectors as kubectl takes them: `a=b,c!=d,e in (x,y),f notin (z),!g,h,i>3`.
//!
//! The API server would refuse a wrong selector too, but only after the roll-out and with each request anew; here it
//! is refused at start, with the offending place. Promises: pure, never panics; the normalised text selects the same
//! pods and is the same however the parts were ordered (it is part of the installation's identity).

use std::{collections::BTreeSet, fmt};

use super::names;

/// Longest selector in bytes: it travels in the query of each request.
pub const BYTES_MAX: usize = 4096;

/// A label selector that parses.
#[derive(Clone, PartialEq, Eq)]
pub struct Selector {
    requirements: Vec<Requirement>,
    text: String,
}

/// One comma-separated part of a selector.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Requirement {
    /// Label key.
    pub key: String,
    /// What is asked of the label's value.
    pub operator: Operator,
}

/// What is asked of a label's value.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Operator {
    /// `key`
    Exists,
    /// `!key`
    Absent,
    /// `key=value`
    Equals(String),
    /// `key!=value`
    Differs(String),
    /// `key in (a,b)`
    In(BTreeSet<String>),
    /// `key notin (a,b)`
    NotIn(BTreeSet<String>),
    /// `key>1`
    Greater(i64),
    /// `key<1`
    Less(i64),
}

/// Why a text is no selector, and where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Error {
    text: String,
    /// Byte offset of the offending place.
    at: usize,
    why: String,
}

impl Selector {
    /// The selector in one fixed order and spelling.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Its parts, sorted, none twice.
    pub fn requirements(&self) -> &[Requirement] {
        &self.requirements
    }
}

impl std::str::FromStr for Selector {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let mut parser = Parser { text, at: 0 };
        if text.len() > BYTES_MAX {
            return Err(parser.error_at(BYTES_MAX, format!("is longer than {BYTES_MAX} bytes")));
        }
        let mut requirements = vec![parser.requirement()?];
        while parser.take(",") {
            requirements.push(parser.requirement()?);
        }
        if parser.peek().is_some() {
            return Err(parser.error("expected ',' or the end"));
        }
        requirements.sort();
        requirements.dedup();
        let text = requirements.iter().map(ToString::to_string).collect::<Vec<_>>().join(",");
        Ok(Self { requirements, text })
    }
}

/// Reads from left to right; `at` always lies on a character boundary.
struct Parser<'a> {
    text: &'a str,
    at: usize,
}

impl<'a> Parser<'a> {
    fn requirement(&mut self) -> Result<Requirement, Error> {
        let absent = self.take("!");
        let key = self.key()?.to_owned();
        let operator = if absent { Operator::Absent } else { self.operator()? };
        Ok(Requirement { key, operator })
    }

    fn operator(&mut self) -> Result<Operator, Error> {
        if self.take("==") || self.take("=") {
            return Ok(Operator::Equals(self.value()?.to_owned()));
        }
        if self.take("!=") {
            return Ok(Operator::Differs(self.value()?.to_owned()));
        }
        if self.take(">") {
            return Ok(Operator::Greater(self.integer()?));
        }
        if self.take("<") {
            return Ok(Operator::Less(self.integer()?));
        }
        if matches!(self.peek(), None | Some(',')) {
            return Ok(Operator::Exists);
        }
        let start = self.at;
        match self.word() {
            "in" => Ok(Operator::In(self.values()?)),
            "notin" => Ok(Operator::NotIn(self.values()?)),
            _ => Err(self.error_at(start, "expected one of = == != in notin > < or ','".to_owned())),
        }
    }

    fn key(&mut self) -> Result<&'a str, Error> {
        self.skip_space();
        let start = self.at;
        let key = self.word();
        if key.is_empty() {
            return Err(self.error_at(start, "expected a label key".to_owned()));
        }
        names::label_key(key).map_err(|why| self.error_at(start, why))?;
        Ok(key)
    }

    /// A value; empty is legal, as in `a=`.
    fn value(&mut self) -> Result<&'a str, Error> {
        self.skip_space();
        let start = self.at;
        let value = self.word();
        names::label_value(value).map_err(|why| self.error_at(start, why))?;
        Ok(value)
    }

    fn values(&mut self) -> Result<BTreeSet<String>, Error> {
        if !self.take("(") {
            return Err(self.error("expected '(' and a list of values, as in (x,y)"));
        }
        if self.peek() == Some(')') {
            return Err(self.error("expected at least one value"));
        }
        let mut values = BTreeSet::from([self.value()?.to_owned()]);
        while self.take(",") {
            values.insert(self.value()?.to_owned());
        }
        if self.take(")") { Ok(values) } else { Err(self.error("expected ',' or ')'")) }
    }

    fn integer(&mut self) -> Result<i64, Error> {
        self.skip_space();
        let start = self.at;
        self.word().parse().map_err(|_| self.error_at(start, "expected a whole number".to_owned()))
    }

    /// Up to the next space or symbol; may be empty.
    fn word(&mut self) -> &'a str {
        self.skip_space();
        let rest = &self.text[self.at..];
        let end = rest.find(|c: char| is_space(c) || "=!(),><".contains(c)).unwrap_or(rest.len());
        self.at += end;
        &rest[..end]
    }

    fn take(&mut self, symbol: &str) -> bool {
        self.skip_space();
        let found = self.text[self.at..].starts_with(symbol);
        if found {
            self.at += symbol.len();
        }
        found
    }

    fn peek(&mut self) -> Option<char> {
        self.skip_space();
        self.text[self.at..].chars().next()
    }

    fn skip_space(&mut self) {
        let rest = &self.text[self.at..];
        self.at += rest.len() - rest.trim_start_matches(is_space).len();
    }

    fn error(&mut self, why: &str) -> Error {
        self.skip_space();
        self.error_at(self.at, why.to_owned())
    }

    fn error_at(&self, at: usize, why: String) -> Error {
        Error { text: self.text.to_owned(), at, why }
    }
}

/// What Kubernetes' own lexer takes for white space.
fn is_space(c: char) -> bool {
    matches!(c, ' ' | '\t' | '\r' | '\n')
}

impl fmt::Display for Requirement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let key = &self.key;
        let list = |values: &BTreeSet<String>| values.iter().map(String::as_str).collect::<Vec<_>>().join(",");
        match &self.operator {
            Operator::Exists => write!(f, "{key}"),
            Operator::Absent => write!(f, "!{key}"),
            Operator::Equals(value) => write!(f, "{key}={value}"),
            Operator::Differs(value) => write!(f, "{key}!={value}"),
            Operator::In(values) => write!(f, "{key} in ({})", list(values)),
            Operator::NotIn(values) => write!(f, "{key} notin ({})", list(values)),
            Operator::Greater(bound) => write!(f, "{key}>{bound}"),
            Operator::Less(bound) => write!(f, "{key}<{bound}"),
        }
    }
}

impl fmt::Display for Selector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl fmt::Debug for Selector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.text)
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // A selector may come from a file: nothing of it may steer the terminal.
        let shown = |text: &str| text.chars().map(|c| if c.is_control() { '?' } else { c }).collect::<String>();
        let (before, after) = self.text.split_at(self.at);
        // A very long text is shown only around the place.
        let head: String = before.chars().rev().take(60).collect::<Vec<_>>().into_iter().rev().collect();
        let tail: String = after.chars().take(40).collect();
        writeln!(f, "{}", self.why)?;
        writeln!(f, "    {}{}", shown(&head), shown(&tail))?;
        writeln!(f, "    {}^", " ".repeat(head.chars().count()))?;
        write!(f, "  write it as kubectl takes it, for instance app=executor,tier!=system,pool in (a,b),!paused")
    }
}

impl std::error::Error for Error {}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn selectors_are_normalised() {
        let cases = [
            ("a=b", "a=b"),
            ("a==b", "a=b"),
            (" a = b , c != d ", "a=b,c!=d"),
            ("e in (y, x,x)", "e in (x,y)"),
            ("f notin (z)", "f notin (z)"),
            ("!g", "!g"),
            ("! g", "!g"),
            ("h", "h"),
            ("z=1,a=1,z=1", "a=1,z=1"),
            ("a=", "a="),
            ("a in (,x)", "a in (,x)"),
            ("in in (in)", "in in (in)"),
            ("notin", "notin"),
            ("app.kubernetes.io/name=executor", "app.kubernetes.io/name=executor"),
            ("i>3,i<9", "i>3,i<9"),
            ("i>-3", "i>-3"),
        ];
        for (text, expected) in cases {
            let selector: Selector = text.parse().unwrap_or_else(|error| panic!("{text}: {error}"));
            assert_eq!(selector.as_str(), expected, "{text}");
            assert_eq!(selector.as_str().parse(), Ok(selector.clone()), "{text} again");
        }
    }

    #[test]
    fn the_caret_stands_under_the_offending_place() {
        let long = "a".repeat(64);
        let long_value = format!("k={long}");
        let cases = [
            ("", 0, "label key"),
            ("a=b,", 4, "label key"),
            (",a", 0, "label key"),
            ("a=b c=d", 4, "','"),
            ("a=b,c in x", 9, "'('"),
            ("a in ()", 6, "at least one"),
            ("a in (x", 7, "')'"),
            ("a in (x y)", 8, "')'"),
            ("a b", 2, "notin"),
            ("-a=b", 0, "letter or digit"),
            ("a=b_", 2, "letter or digit"),
            ("/a=b", 0, "prefix"),
            ("A_B/c", 0, "prefix"),
            ("a>x", 2, "whole number"),
            ("a=ä", 2, "letter or digit"),
            (long_value.as_str(), 2, "63"),
        ];
        for (text, at, why) in cases {
            let error = text.parse::<Selector>().expect_err(text);
            assert_eq!(error.at, at, "{text}: {error}");
            assert!(error.why.contains(why), "{text}: {error}");
            let shown = error.to_string();
            let caret = shown.lines().find(|line| line.trim() == "^").expect("a caret");
            assert_eq!(caret.len(), 4 + at + 1, "{shown}");
        }
    }

    #[test]
    fn errors_cannot_steer_the_terminal() {
        let error = "a=\u{1b}[2J".parse::<Selector>().expect_err("not a value").to_string();
        assert!(!error.contains('\u{1b}'), "{error:?}");
    }

    proptest! {
        #[test]
        fn no_text_panics_the_parser(text in "(?s).{0,40}") {
            if let Err(error) = text.parse::<Selector>() {
                prop_assert!(error.to_string().contains('^'));
            }
        }

        #[test]
        fn near_selectors_do_not_panic_and_normalise_once(text in "[a-c=!(),<> \\tinotä/.-]{0,24}") {
            if let Ok(selector) = text.parse::<Selector>() {
                let again: Selector = selector.as_str().parse().expect("the normalised text parses");
                prop_assert_eq!(again, selector);
            }
        }
    }
}
