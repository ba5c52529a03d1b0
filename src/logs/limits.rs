//! Bounds of captured output: the head-and-tail [`Keeper`] and the cut to a size in UTF-8 and as JSON.
//!
//! ```text
//!  bytes ──push──▶ Keeper (at most cap bytes: head + ring of the tail) ──finish──▶ Kept ──fit──▶ text, mark in the middle
//! ```
//! Promises: a keeper never holds more than its cap, whatever is pushed; a cut text is a prefix of the decoded original,
//! the mark, and a suffix of it; it exceeds neither of its two limits. Pure: no clock, no I/O. Output never reaches
//! `Debug`.

use std::fmt;

/// Quotes around a JSON string, in bytes.
const QUOTES_BYTES: usize = 2;

/// The largest UTF-8 sequence has this many bytes after its first.
const CONTINUATIONS_MAX: usize = 3;

/// Keeps the first and the last bytes of a stream and counts all of them.
pub struct Keeper {
    cap: usize,
    head: Vec<u8>,
    /// Ring: once full, `tail_start` is where its oldest byte stands.
    tail: Vec<u8>,
    tail_start: usize,
    total: u64,
}

impl fmt::Debug for Keeper {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Keeper").field("cap", &self.cap).field("total", &self.total).finish_non_exhaustive()
    }
}

impl Keeper {
    /// A keeper of at most `bytes_max` bytes: half for the head, half for the tail. Allocates as it fills.
    pub fn new(bytes_max: usize) -> Self {
        Self { cap: bytes_max, head: Vec::new(), tail: Vec::new(), tail_start: 0, total: 0 }
    }

    /// Takes the next bytes of the stream.
    pub fn push(&mut self, bytes: &[u8]) {
        self.total = self.total.saturating_add(bytes.len() as u64);
        let head_max = self.cap - self.cap / 2;
        let (first, rest) = bytes.split_at(bytes.len().min(head_max - self.head.len()));
        append(&mut self.head, first, head_max);
        self.push_tail(rest);
    }

    fn push_tail(&mut self, bytes: &[u8]) {
        let tail_max = self.cap / 2;
        // Of a chunk larger than the ring only the end can stay.
        let bytes = &bytes[bytes.len().saturating_sub(tail_max)..];
        let (fill, over) = bytes.split_at(bytes.len().min(tail_max - self.tail.len()));
        append(&mut self.tail, fill, tail_max);
        if over.is_empty() {
            return;
        }
        let (to_end, to_start) = over.split_at(over.len().min(tail_max - self.tail_start));
        self.tail[self.tail_start..self.tail_start + to_end.len()].copy_from_slice(to_end);
        self.tail[..to_start.len()].copy_from_slice(to_start);
        self.tail_start = (self.tail_start + over.len()) % tail_max;
    }

    /// Bytes pushed so far.
    pub fn total(&self) -> u64 {
        self.total
    }

    /// Bytes allocated; never more than the cap.
    pub fn capacity(&self) -> usize {
        self.head.capacity() + self.tail.capacity()
    }

    /// The end of the stream.
    pub fn finish(self) -> Kept {
        let Self { head, mut tail, tail_start, total, .. } = self;
        tail.rotate_left(tail_start);
        if head.len() as u64 + tail.len() as u64 == total {
            let mut whole = head;
            whole.append(&mut tail);
            return Kept { head: whole, tail: Vec::new(), total };
        }
        Kept { head, tail, total }
    }
}

/// Appends without the doubling of `Vec` going beyond `bytes_max`.
fn append(to: &mut Vec<u8>, bytes: &[u8], bytes_max: usize) {
    let needed = to.len() + bytes.len();
    if needed > to.capacity() {
        let wanted = (to.capacity() * 2).clamp(needed, bytes_max.max(needed));
        to.reserve_exact(wanted - to.len());
    }
    to.extend_from_slice(bytes);
}

/// What a [`Keeper`] kept. Whole streams stand in `head` alone.
pub struct Kept {
    head: Vec<u8>,
    tail: Vec<u8>,
    total: u64,
}

impl fmt::Debug for Kept {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Kept").field("total", &self.total).finish_non_exhaustive()
    }
}

impl Kept {
    /// Size of the stream before any cut, in bytes.
    pub fn total(&self) -> u64 {
        self.total
    }

    /// Bytes allocated, for tests of the bound.
    pub fn capacity(&self) -> usize {
        self.head.capacity() + self.tail.capacity()
    }

    fn whole(&self) -> bool {
        self.head.len() as u64 == self.total
    }
}

/// A stream that fits its limits.
#[derive(Clone, PartialEq, Eq)]
pub struct Fitted {
    /// The stream, or its head, the mark and its tail.
    pub text: String,
    /// Its size as a JSON string, with quotes, in bytes.
    pub encoded_bytes: usize,
    /// Whether something is missing.
    pub cut: bool,
}

impl fmt::Debug for Fitted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Fitted").field("encoded_bytes", &self.encoded_bytes).field("cut", &self.cut).finish()
    }
}

/// Fits both streams: each into `text_bytes_max` bytes of UTF-8, both together into `encoded_bytes_max` bytes as JSON
/// strings (of which two empty strings need 4). Standard error is short and says why something failed, so its share is
/// protected: up to half of the whole, and all that standard output leaves.
pub fn fit_both(
    stdout: Option<&Kept>,
    stderr: Option<&Kept>,
    text_bytes_max: usize,
    encoded_bytes_max: usize,
) -> (Option<Fitted>, Option<Fitted>) {
    let fit_one = |kept: Option<&Kept>, max: usize| kept.map(|kept| fit(kept, text_bytes_max, max));
    let size = |fitted: &Option<Fitted>| fitted.as_ref().map_or(0, |fitted| fitted.encoded_bytes);
    let out = fit_one(stdout, usize::MAX);
    let err = fit_one(stderr, usize::MAX);
    if size(&out).saturating_add(size(&err)) <= encoded_bytes_max {
        return (out, err);
    }
    let left = encoded_bytes_max.saturating_sub(size(&out));
    let err = fit_one(stderr, left.max(encoded_bytes_max / 2));
    let out = fit_one(stdout, encoded_bytes_max.saturating_sub(size(&err)));
    (out, err)
}

/// Fits one stream into both limits, in bytes. Where not even the mark has room, the text is empty.
pub fn fit(kept: &Kept, text_bytes_max: usize, encoded_bytes_max: usize) -> Fitted {
    let (head, tail) = decode(kept);
    if kept.whole() && head.len() <= text_bytes_max {
        let encoded_bytes = encoded_len(&head);
        if encoded_bytes <= encoded_bytes_max {
            return Fitted { text: head, encoded_bytes, cut: false };
        }
    }
    // The number in the mark is at most the total, so this one is at least as long as the real one.
    let mark_max = mark(kept.total);
    let (Some(text_left), Some(encoded_left)) =
        (text_bytes_max.checked_sub(mark_max.len()), encoded_bytes_max.checked_sub(encoded_len(&mark_max)))
    else {
        return Fitted { text: String::new(), encoded_bytes: QUOTES_BYTES, cut: true };
    };
    let (front, back) = if kept.whole() {
        let (front, cost) = take_front(&head, Cost { text: text_left.div_ceil(2), encoded: encoded_left.div_ceil(2) });
        let rest = &head[front.len()..];
        (front, take_back(rest, Cost { text: text_left - cost.text, encoded: encoded_left - cost.encoded }).0)
    } else {
        share(&head, &tail, Cost { text: text_left, encoded: encoded_left })
    };
    let cut_bytes = kept.total - raw_len(kept, &head, &tail, front.len(), back.len());
    let text = [front, &mark(cut_bytes), back].concat();
    let encoded_bytes = encoded_len(&text);
    Fitted { text, encoded_bytes, cut: true }
}

/// Shares the room between a head and a tail with a gap between them: half each, and to the head what the tail leaves.
fn share<'a>(head: &'a str, tail: &'a str, left: Cost) -> (&'a str, &'a str) {
    let half = Cost { text: left.text.div_ceil(2), encoded: left.encoded.div_ceil(2) };
    let (_, front_cost) = take_front(head, half);
    let (back, back_cost) = take_back(tail, left.minus(front_cost));
    let (front, _) = take_front(head, left.minus(back_cost));
    (front, back)
}

/// How large something is, in both measures.
#[derive(Clone, Copy, Default)]
struct Cost {
    text: usize,
    encoded: usize,
}

impl Cost {
    fn minus(self, other: Self) -> Self {
        Self { text: self.text - other.text, encoded: self.encoded - other.encoded }
    }

    /// This and one character more, if that still fits.
    fn plus(self, c: char, max: Self) -> Option<Self> {
        let sum = Self { text: self.text + c.len_utf8(), encoded: self.encoded + encoded_char_len(c) };
        (sum.text <= max.text && sum.encoded <= max.encoded).then_some(sum)
    }
}

fn take_front(text: &str, max: Cost) -> (&str, Cost) {
    let mut cost = Cost::default();
    for c in text.chars() {
        let Some(sum) = cost.plus(c, max) else { break };
        cost = sum;
    }
    (&text[..cost.text], cost)
}

fn take_back(text: &str, max: Cost) -> (&str, Cost) {
    let mut cost = Cost::default();
    for c in text.chars().rev() {
        let Some(sum) = cost.plus(c, max) else { break };
        cost = sum;
    }
    (&text[text.len() - cost.text..], cost)
}

/// Head and tail as text: invalid UTF-8 becomes U+FFFD, characters that the gap tore are left out.
fn decode(kept: &Kept) -> (String, String) {
    if kept.whole() {
        return (String::from_utf8_lossy(&kept.head).into_owned(), String::new());
    }
    let head = &kept.head[..kept.head.len() - torn_end_len(&kept.head)];
    let tail = &kept.tail[torn_start_len(&kept.tail)..];
    (String::from_utf8_lossy(head).into_owned(), String::from_utf8_lossy(tail).into_owned())
}

/// Bytes at the end that begin a character which does not end there.
fn torn_end_len(bytes: &[u8]) -> usize {
    for back in 1..=CONTINUATIONS_MAX.min(bytes.len()) {
        let byte = bytes[bytes.len() - back];
        let len = match byte {
            0x00..=0x7f => return 0,
            0x80..=0xbf => continue,
            0xc0..=0xdf => 2,
            0xe0..=0xef => 3,
            0xf0..=0xff => 4,
        };
        return if len > back { back } else { 0 };
    }
    0
}

/// Bytes at the start that may belong to a character begun before them. A fourth one cannot: it is invalid anyway.
fn torn_start_len(bytes: &[u8]) -> usize {
    bytes.iter().take(CONTINUATIONS_MAX).take_while(|byte| matches!(byte, 0x80..=0xbf)).count()
}

/// How many bytes of the stream the first `front` bytes of the head's text and the last `back` of the tail's stand for.
fn raw_len(kept: &Kept, head: &str, tail: &str, front: usize, back: usize) -> u64 {
    if kept.whole() {
        let before_back = raw_prefix_len(&kept.head, head.len() - back);
        return (raw_prefix_len(&kept.head, front) + kept.head.len() - before_back) as u64;
    }
    let raw_tail = &kept.tail[torn_start_len(&kept.tail)..];
    (raw_prefix_len(&kept.head, front) + raw_tail.len() - raw_prefix_len(raw_tail, tail.len() - back)) as u64
}

/// How many of these bytes decode to the first `text_len` bytes of their text.
fn raw_prefix_len(bytes: &[u8], text_len: usize) -> usize {
    let (mut raw, mut text) = (0, 0);
    for chunk in bytes.utf8_chunks() {
        let valid = chunk.valid().len();
        if text + valid >= text_len {
            return raw + text_len - text;
        }
        raw += valid + chunk.invalid().len();
        text += valid + char::REPLACEMENT_CHARACTER.len_utf8();
    }
    raw
}

/// What stands where something was cut.
fn mark(cut_bytes: u64) -> String {
    format!("\n[... {cut_bytes} bytes cut ...]\n")
}

/// Size of a text as a JSON string, with its quotes, as serde_json writes it.
pub fn encoded_len(text: &str) -> usize {
    QUOTES_BYTES + text.bytes().map(encoded_byte_len).sum::<usize>()
}

fn encoded_char_len(c: char) -> usize {
    match u8::try_from(c) {
        Ok(byte) if byte.is_ascii() => encoded_byte_len(byte),
        _ => c.len_utf8(),
    }
}

fn encoded_byte_len(byte: u8) -> usize {
    match byte {
        b'"' | b'\\' | b'\n' | b'\r' | b'\t' | 0x08 | 0x0c => 2,
        0x00..=0x1f => 6,
        _ => 1,
    }
}

#[cfg(test)]
#[path = "limits_tests.rs"]
mod tests;
