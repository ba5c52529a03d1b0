//! Pods by the hundred thousand: the life of one pod as a real API server told it (tests/fixtures/life.jsonl), with names,
//! UIDs, execution ids and versions of its own for each. Written on the way: nothing of it is kept.

use std::fmt::Write as _;

use anyhow::{Context, Result};

const LIFE: &str = include_str!("../../tests/fixtures/life.jsonl");
/// Lines of a life, of which the last is its DELETED.
pub(crate) const LIFE_LINES: usize = 9;
/// The lines by which its container runs, by which it has ended, and the first by which the pod is over.
pub(crate) const RUNNING: usize = 4;
pub(crate) const ENDED: usize = 5;
pub(crate) const FINISHED: usize = 6;
/// Where its LIST is: above every version of a pod that is in it.
pub(crate) const LIST_VERSION: u64 = 10_000_000;

/// What differs from pod to pod.
const TOKENS: [&str; 4] = ["@@NAME@@", "@@UID@@", "@@ID@@", "@@VERSION@@"];

/// A text with places to fill in.
pub(crate) struct Template {
    /// Each with the token behind it.
    pieces: Vec<(String, Option<usize>)>,
}

impl Template {
    fn of(text: &str) -> Self {
        let mut pieces = Vec::new();
        let mut rest = text;
        loop {
            let next = TOKENS.iter().enumerate().filter_map(|(n, token)| Some((rest.find(token)?, n))).min();
            let Some((at, token)) = next else { break };
            pieces.push((rest[..at].to_owned(), Some(token)));
            rest = &rest[at + TOKENS[token].len()..];
        }
        pieces.push((rest.to_owned(), None));
        Self { pieces }
    }

    /// Appends the text of pod `n` at a version.
    pub(crate) fn write(&self, into: &mut String, n: usize, version: u64) {
        for (text, token) in &self.pieces {
            into.push_str(text);
            // Writing to a String cannot fail.
            let _ = match token {
                Some(0) => write!(into, "exec-{n:08}"),
                Some(1) => write!(into, "{}", uid(n)),
                Some(2) => write!(into, "run-{n:08}"),
                Some(_) => write!(into, "{version}"),
                None => Ok(()),
            };
        }
    }
}

/// As an API server makes them up: spread over all values.
pub(crate) fn uid(n: usize) -> String {
    let mixed = (n as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    format!(
        "{:08x}-{:04x}-4{:03x}-8{:03x}-{:012x}",
        mixed >> 32,
        (mixed >> 16) & 0xffff,
        mixed & 0xfff,
        (mixed >> 4) & 0xfff,
        n
    )
}

/// The lines of a life, each a watch event.
pub(crate) struct Life {
    lines: Vec<Template>,
    objects: Vec<Template>,
}

impl Life {
    pub(crate) fn recorded() -> Result<Self> {
        let mut lines = Vec::new();
        for line in LIFE.lines() {
            let parsed: serde_json::Value = serde_json::from_str(line)?;
            let text = |field: &str| parsed["object"]["metadata"][field].as_str().context("a recorded pod has it");
            let version = format!("\"resourceVersion\":\"{}\"", text("resourceVersion")?);
            let mut marked = line.replace(text("uid")?, TOKENS[1]).replace(text("name")?, TOKENS[0]);
            marked = marked.replace(&version, &format!("\"resourceVersion\":\"{}\"", TOKENS[3]));
            marked = marked.replace("\"execution-id\":\"fixture\"", &format!("\"execution-id\":\"{}\"", TOKENS[2]));
            lines.push(marked.trim_end().to_owned());
        }
        anyhow::ensure!(lines.len() == LIFE_LINES, "the recorded life has {} lines", lines.len());
        let object = |line: &String| {
            let from = line.find("\"object\":").context("a watch event has an object")? + "\"object\":".len();
            Ok(Template::of(&line[from..line.len() - 1]))
        };
        let objects = lines.iter().map(object).collect::<Result<_>>()?;
        Ok(Self { lines: lines.iter().map(|line| Template::of(line)).collect(), objects })
    }

    /// Appends one line of the life of pod `n`, with its newline.
    pub(crate) fn line(&self, into: &mut String, line: usize, n: usize, version: u64) {
        self.lines[line].write(into, n, version);
        into.push('\n');
    }

    /// One page of a LIST of pods in the state of this line; pod `n` has version `n + 1`.
    pub(crate) fn page(&self, line: usize, pods: std::ops::Range<usize>, next: Option<usize>) -> String {
        let token = next.map(|next| format!(",\"continue\":\"{next}\"")).unwrap_or_default();
        let mut page = String::with_capacity(pods.len() * 7000);
        let _ = write!(
            page,
            "{{\"kind\":\"PodList\",\"apiVersion\":\"v1\",\"metadata\":{{\"resourceVersion\":\"{LIST_VERSION}\"{token}}},\"items\":["
        );
        for n in pods.clone() {
            if n > pods.start {
                page.push(',');
            }
            self.objects[line].write(&mut page, n, n as u64 + 1);
        }
        page.push_str("]}");
        page
    }

    /// The object of a line by itself.
    pub(crate) fn object(&self, line: usize, n: usize) -> String {
        let mut text = String::new();
        self.objects[line].write(&mut text, n, n as u64 + 1);
        text
    }
}

/// The changelog record of a pod, made once and filled in for each.
pub(crate) struct Record(Template);

impl Record {
    /// Of a record that tells of pod `n` of the life, at version `n + 1`.
    pub(crate) fn of(json: &str, n: usize) -> Self {
        let version = format!("\"resource_version\":{},", n + 1);
        let marked = json
            .replace(&uid(n), TOKENS[1])
            .replace(&format!("exec-{n:08}"), TOKENS[0])
            .replace(&format!("run-{n:08}"), TOKENS[2])
            .replace(&version, &format!("\"resource_version\":{},", TOKENS[3]));
        Self(Template::of(&marked))
    }

    pub(crate) fn write(&self, into: &mut String, n: usize) {
        self.0.write(into, n, n as u64 + 1);
    }
}
