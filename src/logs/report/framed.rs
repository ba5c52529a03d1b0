//! Length-framed streams: `STDOUT <bytes>\n<bytes of it>`, then `STDERR <bytes>\n<bytes of it>`.
//!
//! The lengths alone say where a stream ends, so nothing that a program prints can forge a border. One newline after each
//! frame is let pass: container runtimes end an unfinished last line with one. Anything else that follows a frame is
//! kept as standard output and makes the frames [`FrameState::Broken`]: nothing is dropped in silence.

use crate::logs::limits::{Keeper, Kept};

/// Digits of the largest length: fewer than a u64 can hold.
const LENGTH_DIGITS_MAX: usize = 19;

/// The longest header, in bytes.
const HEADER_BYTES_MAX: usize = STDOUT.len() + LENGTH_DIGITS_MAX + 1;

const STDOUT: &[u8] = b"STDOUT ";
const STDERR: &[u8] = b"STDERR ";

/// How far the frames of an output are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FrameState {
    /// Both frames, and nothing besides.
    Complete,
    /// Bytes or a frame are missing at the end: the container runtime may not have written all of it yet.
    Incomplete,
    /// Something that is no frame follows the first one.
    Broken,
    /// It does not begin like a frame, where one was promised.
    Missing,
}

enum At {
    /// In the header of the stream, of which these bytes are there.
    Header { stream: Stream, seen: Vec<u8>, newline_passed: bool },
    /// In the bytes of the stream.
    Body { stream: Stream, left: u64 },
    /// After both frames.
    End { newline_passed: bool },
    /// In something that is no frame.
    Broken,
    /// It does not begin like a frame at all.
    NotFramed,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Stream {
    Stdout,
    Stderr,
}

/// What a header is, as far as it is there.
enum Header {
    Partial,
    Length(u64),
    No,
}

/// The state machine of framed output; any chunking gives the same result.
pub(super) struct Frames {
    at: At,
    stdout: Keeper,
    stderr: Option<Keeper>,
    stream_bytes_max: usize,
}

impl Frames {
    pub(super) fn new(stream_bytes_max: usize) -> Self {
        let at = At::Header { stream: Stream::Stdout, seen: Vec::new(), newline_passed: true };
        Self { at, stdout: Keeper::new(stream_bytes_max), stderr: None, stream_bytes_max }
    }

    /// Whether the output begins like a frame; `None` while too little of it is there.
    pub(super) fn begun(&self) -> Option<bool> {
        match self.at {
            At::Header { stream: Stream::Stdout, .. } => None,
            At::NotFramed => Some(false),
            At::Header { .. } | At::Body { .. } | At::End { .. } | At::Broken => Some(true),
        }
    }

    pub(super) fn state(&self) -> FrameState {
        match self.at {
            At::End { .. } => FrameState::Complete,
            At::Header { .. } | At::Body { .. } => FrameState::Incomplete,
            At::Broken | At::NotFramed => FrameState::Broken,
        }
    }

    pub(super) fn has_stderr(&self) -> bool {
        self.stderr.is_some()
    }

    pub(super) fn capacity(&self) -> usize {
        self.stdout.capacity() + self.stderr.as_ref().map_or(0, Keeper::capacity)
    }

    pub(super) fn push(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            match &mut self.at {
                At::Header { .. } => {
                    self.push_header(bytes[0]);
                    bytes = &bytes[1..];
                }
                At::Body { stream, left } => {
                    let taken = usize::try_from(*left).map_or(bytes.len(), |left| left.min(bytes.len()));
                    let keeper = match stream {
                        Stream::Stdout => &mut self.stdout,
                        Stream::Stderr => self.stderr.get_or_insert_with(|| Keeper::new(self.stream_bytes_max)),
                    };
                    keeper.push(&bytes[..taken]);
                    *left -= taken as u64;
                    let (stream, left) = (*stream, *left);
                    bytes = &bytes[taken..];
                    self.enter(stream, left);
                }
                At::End { newline_passed: newline_passed @ false } if bytes[0] == b'\n' => {
                    *newline_passed = true;
                    bytes = &bytes[1..];
                }
                At::End { .. } => self.at = At::Broken,
                At::Broken => {
                    self.stdout.push(bytes);
                    return;
                }
                At::NotFramed => return,
            }
        }
    }

    fn push_header(&mut self, byte: u8) {
        let At::Header { stream, seen, newline_passed } = &mut self.at else { return };
        if byte == b'\n' && seen.is_empty() && !*newline_passed {
            *newline_passed = true;
            return;
        }
        seen.push(byte);
        let stream = *stream;
        match (header(stream, seen), stream) {
            (Header::Partial, _) => {}
            (Header::Length(length), Stream::Stdout) => self.enter(stream, length),
            (Header::Length(length), Stream::Stderr) => {
                self.stderr = Some(Keeper::new(self.stream_bytes_max));
                self.enter(stream, length);
            }
            (Header::No, Stream::Stdout) => self.at = At::NotFramed,
            (Header::No, Stream::Stderr) => {
                self.stdout.push(seen);
                self.at = At::Broken;
            }
        }
    }

    /// Goes on in the bytes of a stream, of which `left` are still to come.
    fn enter(&mut self, stream: Stream, left: u64) {
        self.at = match (left, stream) {
            (1.., _) => At::Body { stream, left },
            (0, Stream::Stdout) => At::Header { stream: Stream::Stderr, seen: Vec::new(), newline_passed: false },
            (0, Stream::Stderr) => At::End { newline_passed: false },
        };
    }

    /// Standard output, standard error where its frame was begun, and how it ended.
    pub(super) fn finish(mut self) -> (Kept, Option<Kept>, FrameState) {
        let state = self.state();
        if let At::Header { stream: Stream::Stderr, seen, .. } = &self.at {
            // Half a header: told as what it is.
            self.stdout.push(seen);
        }
        (self.stdout.finish(), self.stderr.map(Keeper::finish), state)
    }
}

fn header(stream: Stream, seen: &[u8]) -> Header {
    let word = match stream {
        Stream::Stdout => STDOUT,
        Stream::Stderr => STDERR,
    };
    let Some(digits) = seen.strip_prefix(word) else {
        return if word.starts_with(seen) { Header::Partial } else { Header::No };
    };
    match digits.split_last() {
        None => Header::Partial,
        Some((b'\n', digits)) if !digits.is_empty() => {
            let length = std::str::from_utf8(digits).ok().and_then(|digits| digits.parse().ok());
            length.map_or(Header::No, Header::Length)
        }
        Some((b'0'..=b'9', _)) if seen.len() < HEADER_BYTES_MAX => Header::Partial,
        Some(_) => Header::No,
    }
}
