//! A [`Tracked`] as it is kept in memory, by the hundred thousand: everything of it, and little else.
//!
//! ```text
//!   Tracked ── Kept::from ──▶ Kept: numbers and flags, one allocation for all texts, boxes for what few pods have
//!       ▲                      │
//!       └────── unpack ◀───────┘
//! ```
//! Promises: what is unpacked equals what was packed, whatever it holds. The changelog's format is [`Tracked`]'s; nothing
//! here is ever written.

use super::{
    End, FORMAT, Told, Tracked,
    late::{Late, Parts},
};
use crate::{
    lifecycle::{
        cause::OwnerEnd,
        event::{Cause, EarlierEnd, Owner, Verdict},
        stall::{Clock, Stalled},
        trace::TraceParent,
        user_rules::Ruling,
    },
    watch::pod::{PodUid, ResourceVersion},
};

/// What has been told of one pod, packed.
#[derive(Debug, Clone, PartialEq)]
pub struct Kept {
    /// As in [`Tracked`].
    pub resource_version: ResourceVersion,
    /// Each with its length before it: namespace, pod name, execution id; user id, node name, parent and owner where
    /// there are.
    texts: Box<[u8]>,
    late: Option<Box<Late>>,
    rare: Option<Box<Rare>>,
    sequence: u32,
    waiting: Option<Cause>,
    told: Told,
    left: bool,
    has: Has,
}

/// Which of the optional texts are there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Has {
    user_id: bool,
    node_name: bool,
    parent: bool,
    owner: bool,
}

/// What few pods have at any time.
#[derive(Debug, Clone, PartialEq)]
struct Rare {
    format: u16,
    oldest_reader: u16,
    earlier_end: Option<Box<EarlierEnd>>,
    clock: Option<Box<Clock>>,
    stalls: Vec<Stalled>,
    seen_end: Option<Box<Verdict>>,
    verdict: Option<Box<Verdict>>,
    ruling: Option<Box<Ruling>>,
    owner_rulings: Vec<(OwnerEnd, Box<Ruling>)>,
    unknown: serde_json::Map<String, serde_json::Value>,
    /// Where a time of it has no room in [`Late`]: nobody's clock is so wrong.
    late: Option<Box<Parts>>,
}

impl Default for Rare {
    fn default() -> Self {
        Self {
            format: FORMAT,
            oldest_reader: FORMAT,
            earlier_end: None,
            clock: None,
            stalls: Vec::new(),
            seen_end: None,
            verdict: None,
            ruling: None,
            owner_rulings: Vec::new(),
            unknown: serde_json::Map::new(),
            late: None,
        }
    }
}

/// Lengths from here on take four bytes more.
const LONG: u8 = u8::MAX;

fn push(texts: &mut Vec<u8>, text: &str) {
    match u8::try_from(text.len()) {
        Ok(length) if length < LONG => texts.push(length),
        _ => {
            texts.push(LONG);
            let length = u32::try_from(text.len()).expect("no record is as large");
            texts.extend_from_slice(&length.to_le_bytes());
        }
    }
    texts.extend_from_slice(text.as_bytes());
}

/// Takes the next text off.
fn pop<'a>(texts: &mut &'a [u8]) -> &'a str {
    let all: &'a [u8] = texts;
    let (length, from) = match all[0] {
        LONG => (u32::from_le_bytes([all[1], all[2], all[3], all[4]]) as usize, 5),
        short => (usize::from(short), 1),
    };
    *texts = &all[from + length..];
    std::str::from_utf8(&all[from..from + length]).expect("a text was packed")
}

impl From<Tracked> for Kept {
    fn from(tracked: Tracked) -> Self {
        Self::from(&tracked)
    }
}

impl From<&Tracked> for Kept {
    fn from(tracked: &Tracked) -> Self {
        // Each field by its name: a new one does not compile until it is kept.
        let Tracked {
            format,
            oldest_reader,
            resource_version,
            namespace,
            pod_name,
            execution_id,
            user_id,
            owner,
            earlier_end,
            parent,
            node_name,
            sequence,
            told,
            waiting,
            clock,
            stalls,
            deletion_timestamp,
            seen_end,
            verdict,
            ruling,
            owner_rulings,
            end,
            gone,
            left,
            unknown,
        } = tracked;
        let owner_texts = owner.as_deref().map(|Owner { kind, name, uid }| [kind, name, uid]);
        let parent_text = parent.as_ref().map(|parent| parent.to_string().into());
        let optional = [user_id.as_ref(), node_name.as_ref(), parent_text.as_ref()];
        let texts = || [namespace, pod_name, execution_id].into_iter().chain(optional.into_iter().flatten());
        let texts = || texts().chain(owner_texts.iter().flatten().copied());
        let mut packed = Vec::with_capacity(texts().map(|text| text.len() + 1).sum());
        texts().for_each(|text| push(&mut packed, text));
        let parts = (*deletion_timestamp, *end, *gone);
        let late = if parts == Parts::default() { None } else { Some(Late::of(parts)) };
        let rare = Rare {
            format: *format,
            oldest_reader: *oldest_reader,
            earlier_end: earlier_end.clone(),
            clock: clock.clone(),
            stalls: stalls.clone(),
            seen_end: seen_end.clone(),
            verdict: verdict.clone(),
            ruling: ruling.clone(),
            owner_rulings: owner_rulings.clone(),
            unknown: unknown.clone(),
            late: (late == Some(None)).then(|| Box::new(parts)),
        };
        Self {
            resource_version: *resource_version,
            texts: packed.into(),
            late: late.flatten().map(Box::new),
            rare: (rare != Rare::default()).then(|| Box::new(rare)),
            sequence: *sequence,
            waiting: *waiting,
            told: *told,
            left: *left,
            has: Has {
                user_id: user_id.is_some(),
                node_name: node_name.is_some(),
                parent: parent.is_some(),
                owner: owner.is_some(),
            },
        }
    }
}

impl Kept {
    /// As it was told.
    pub fn unpack(&self) -> Tracked {
        let mut rest = &*self.texts;
        let mut text = || -> Box<str> { pop(&mut rest).into() };
        let (namespace, pod_name, execution_id) = (text(), text(), text());
        let user_id = self.has.user_id.then(&mut text);
        let node_name = self.has.node_name.then(&mut text);
        let parent = self.has.parent.then(&mut text).and_then(|text| TraceParent::parse(&text));
        let owner = self.has.owner.then(|| Box::new(Owner { kind: text(), name: text(), uid: text() }));
        let (deletion_timestamp, end, gone) = self.late();
        let rare = self.rare.as_deref().cloned().unwrap_or_default();
        Tracked {
            format: rare.format,
            oldest_reader: rare.oldest_reader,
            resource_version: self.resource_version,
            namespace,
            pod_name,
            execution_id,
            user_id,
            owner,
            earlier_end: rare.earlier_end,
            parent,
            node_name,
            sequence: self.sequence,
            told: self.told,
            waiting: self.waiting,
            clock: rare.clock,
            stalls: rare.stalls,
            deletion_timestamp,
            seen_end: rare.seen_end,
            verdict: rare.verdict,
            ruling: rare.ruling,
            owner_rulings: rare.owner_rulings,
            end,
            gone,
            left: self.left,
            unknown: rare.unknown,
        }
    }

    /// `namespace`
    pub fn namespace(&self) -> &str {
        pop(&mut &*self.texts)
    }

    /// `execution_id`
    pub fn execution_id(&self) -> &str {
        let mut rest = &*self.texts;
        for _before in 0..2 {
            pop(&mut rest);
        }
        pop(&mut rest)
    }

    fn late(&self) -> Parts {
        self.late.as_ref().map_or_else(|| self.odd_late(), |late| late.parts())
    }

    /// Where [`Late`] had no room for it; else as nothing is.
    fn odd_late(&self) -> Parts {
        self.rare.as_ref().and_then(|rare| rare.late.as_deref()).copied().unwrap_or_default()
    }

    /// `end`
    pub fn end(&self) -> Option<End> {
        self.late.as_ref().map_or_else(|| self.odd_late().1, |late| late.end())
    }

    /// `gone`
    pub fn gone(&self) -> Option<ResourceVersion> {
        self.late.as_ref().map_or_else(|| self.odd_late().2, |late| late.gone())
    }

    /// `left`
    pub fn left(&self) -> bool {
        self.left
    }

    /// `verdict`
    pub fn verdict(&self) -> Option<&Verdict> {
        self.rare.as_ref()?.verdict.as_deref()
    }

    /// Whether a clock runs.
    pub fn has_clock(&self) -> bool {
        self.rare.as_ref().is_some_and(|rare| rare.clock.is_some())
    }

    /// As [`Tracked::stalled`].
    pub fn stalled(&self) -> Option<Stalled> {
        self.rare.as_ref()?.stalls.last().copied().filter(|s| !s.resumed)
    }

    /// As [`Tracked::ended`].
    pub fn ended(&self, uid: &PodUid) -> Option<EarlierEnd> {
        super::ended(uid, self.end().as_ref(), self.verdict())
    }
}

#[cfg(test)]
#[path = "kept_tests.rs"]
mod tests;
