//! One read of the output, as far as it got, and the best of several. Output never reaches `Debug`.

use super::{
    Limits, Report, Target,
    limits::Keeper,
    report::Reader,
    streams::{KUBELET_FAILURE_BYTES_MAX, Stream, is_kubelet_failure},
};
use crate::lifecycle::event::Captured;

/// Of the end of a stream, kept to be compared with its last line, in bytes.
const END_BYTES_MAX: usize = 1024;

/// One read of the output, as far as it got.
pub(super) struct Attempt {
    pub(super) main: Reader,
    pub(super) stderr: Option<Keeper>,
    /// Standard error is there and was not asked for, since a report has one.
    pub(super) stderr_passed_over: bool,
    /// The beginning of the output, in which a kubelet may say that it has none.
    beginning: Vec<u8>,
    main_end: End,
    stderr_end: End,
}

impl Attempt {
    pub(super) fn new(report: Report, limits: &Limits) -> Self {
        Self::with(Reader::new(report, limits.log_bytes_max))
    }

    /// One of many that are held for long: report lines are bounded more tightly.
    pub(super) fn lean(report: Report, limits: &Limits) -> Self {
        Self::with(Reader::lean(report, limits.log_bytes_max))
    }

    /// For a line that is only compared.
    pub(super) fn line() -> Self {
        Self::with(Reader::new(Report::Raw, 0))
    }

    fn with(main: Reader) -> Self {
        let (main_end, stderr_end) = (End::default(), End::default());
        Self { main, stderr: None, stderr_passed_over: false, beginning: Vec::new(), main_end, stderr_end }
    }

    pub(super) fn read_bytes(&self) -> u64 {
        self.main.total() + self.stderr.as_ref().map_or(0, Keeper::total)
    }

    pub(super) fn push(&mut self, stream: Stream, bytes: &[u8], limits: &Limits) {
        if stream == Stream::Stderr {
            self.stderr_end.push(bytes);
            return self.stderr.get_or_insert_with(|| Keeper::new(limits.log_bytes_max)).push(bytes);
        }
        let left = (KUBELET_FAILURE_BYTES_MAX + 1).saturating_sub(self.beginning.len());
        self.beginning.extend_from_slice(&bytes[..bytes.len().min(left)]);
        self.main_end.push(bytes);
        self.main.push(bytes);
    }

    /// Whether all of it is a text in which a kubelet says that it has no log.
    pub(super) fn is_kubelet_failure(&self) -> bool {
        is_kubelet_failure(&self.beginning)
    }

    /// The same, with what is still to be pushed: the first bytes alone may be too few to tell.
    pub(super) fn is_kubelet_failure_with(&self, rest: &[u8]) -> bool {
        is_kubelet_failure(&[&self.beginning, rest].concat())
    }

    /// Whether this ends where the log does, as far as its last line tells.
    pub(super) fn ends_with(&self, line: &Self) -> bool {
        let line = &line.main_end;
        let is_end = self.main_end.ends_with(line) || self.stderr_end.ends_with(line);
        // No line, although there is output: then that answer is the one that broke.
        line.total == 0 || is_end || self.stderr_passed_over
    }

    /// Whether both streams are equally long and end alike: perhaps each is everything.
    pub(super) fn looks_doubled(&self) -> bool {
        self.main_end.total > 0
            && self.main_end.total == self.stderr_end.total
            && self.main_end.ends_with(&self.stderr_end)
    }

    /// What it says. `failure` is why it is not all there, where it is not.
    pub(super) fn finish(self, limits: &Limits, target: &Target, failure: Option<&'static str>) -> Captured {
        let read_bytes = self.read_bytes();
        let mut printed = self.main.finish(target.termination_message.as_deref());
        if printed.stderr.is_none() {
            printed.stderr = self.stderr.map(Keeper::finish);
        }
        printed.captured(limits.log_bytes_max, limits.encoded_bytes_max, failure, read_bytes)
    }
}

/// The last bytes of a stream.
#[derive(Default)]
struct End {
    bytes: Vec<u8>,
    total: u64,
}

impl End {
    fn push(&mut self, bytes: &[u8]) {
        self.total = self.total.saturating_add(bytes.len() as u64);
        self.bytes.extend_from_slice(&bytes[bytes.len().saturating_sub(END_BYTES_MAX)..]);
        self.bytes.drain(..self.bytes.len().saturating_sub(END_BYTES_MAX));
    }

    fn ends_with(&self, line: &Self) -> bool {
        // As much of the line as is kept stands at the end of what is kept of this.
        self.total >= line.total && self.bytes.ends_with(&line.bytes)
    }
}

/// The furthest read so far. Lives outside the futures that the deadline may drop.
#[derive(Default)]
pub(super) struct Progress {
    pub(super) best: Option<Attempt>,
    pub(super) current: Option<Attempt>,
}

impl Progress {
    pub(super) fn begin(&mut self, attempt: Attempt) -> &mut Attempt {
        self.settle();
        self.current.insert(attempt)
    }

    /// Keeps the better one of the current and the best attempt.
    pub(super) fn settle(&mut self) {
        if let Some(current) = self.current.take()
            // The deadline may fall between a kubelet's failure and the end of its answer.
            && !current.is_kubelet_failure()
            && self.best.as_ref().is_none_or(|best| current.read_bytes() >= best.read_bytes())
        {
            self.best = Some(current);
        }
    }

    pub(super) fn forget(&mut self) {
        *self = Self::default();
    }

    /// Bytes of the furthest read, once settled.
    pub(super) fn best_bytes(&self) -> u64 {
        self.best.as_ref().map_or(0, Attempt::read_bytes)
    }
}
