//! What executors print, read while it streams in: a JSON report line, length-framed streams, or raw output.
//!
//! ```text
//!                 ┌─▶ frames: header, n bytes into a keeper, header, ...   (begins like a frame: the others end)
//!  bytes ──push───┼─▶ lines:  the last line that is a JSON report
//!                 └─▶ raw:    head and tail of everything
//!                                        finish ──▶ Printed
//! ```
//! Promises: total (any bytes give a result), the same result however the bytes are chunked, memory bounded by a few
//! keepers and [`REPORT_LINE_BYTES_MAX`]. What a report says is a claim: user code can print a report as well as the
//! executor can, so the caller trusts the kubelet first. Pure: no clock, no I/O. Output never reaches `Debug`.

mod framed;
mod json;
mod numbers;

use crate::{
    lifecycle::event::{Captured, Logs, LogsStatus, ResourceUsage},
    logs::{
        Report,
        limits::{Fitted, Keeper, Kept, fit_both},
        reason,
    },
};

pub use framed::FrameState;
pub use json::REPORT_LINE_BYTES_MAX;

/// Reads one stream of output, in chunks of any size.
pub struct Reader {
    report: Report,
    raw: Option<Keeper>,
    frames: Option<framed::Frames>,
    lines: Option<json::Lines>,
    stream_bytes_max: usize,
    total: u64,
}

impl Reader {
    /// A reader that looks for `report` and keeps `stream_bytes_max` bytes per stream.
    pub fn new(report: Report, stream_bytes_max: usize) -> Self {
        Self::with(report, stream_bytes_max, REPORT_LINE_BYTES_MAX)
    }

    /// One of many: a line of more than twice what is kept is no report to it, and [`Reader::gave_up_a_line`] says so.
    pub fn lean(report: Report, stream_bytes_max: usize) -> Self {
        Self::with(report, stream_bytes_max, stream_bytes_max.saturating_mul(2).min(REPORT_LINE_BYTES_MAX))
    }

    fn with(report: Report, stream_bytes_max: usize, line_bytes_max: usize) -> Self {
        let frames = matches!(report, Report::Auto | Report::Framed).then(|| framed::Frames::new(stream_bytes_max));
        let lines =
            matches!(report, Report::Auto | Report::Json).then(|| json::Lines::new(stream_bytes_max, line_bytes_max));
        Self { report, raw: Some(Keeper::new(stream_bytes_max)), frames, lines, stream_bytes_max, total: 0 }
    }

    /// Takes the next bytes.
    pub fn push(&mut self, bytes: &[u8]) {
        self.total = self.total.saturating_add(bytes.len() as u64);
        if let Some(frames) = &mut self.frames {
            frames.push(bytes);
            match frames.begun() {
                // It begins like a frame: from here on only the lengths say where something ends.
                Some(true) => (self.raw, self.lines) = (None, None),
                Some(false) => self.frames = None,
                None => {}
            }
        }
        if let Some(raw) = &mut self.raw {
            raw.push(bytes);
        }
        if let Some(lines) = &mut self.lines {
            lines.push(bytes);
        }
    }

    /// Bytes pushed so far.
    pub fn total(&self) -> u64 {
        self.total
    }

    /// Bytes allocated for output, for tests of the bound.
    pub fn capacity(&self) -> usize {
        self.raw.as_ref().map_or(0, Keeper::capacity)
            + self.frames.as_ref().map_or(0, framed::Frames::capacity)
            + self.lines.as_ref().map_or(0, json::Lines::capacity)
    }

    /// The end of the stream: what it said. `termination_message` is where framed reports put their numbers.
    pub fn finish(self, termination_message: Option<&str>) -> Printed {
        let message = termination_message.unwrap_or_default();
        let framed = self.frames.filter(|frames| frames.begun() == Some(true));
        // A termination message may be the end of a user's log (FallbackToLogsOnError), so in `auto` its numbers count
        // only beside frames, or where there is no output that could say otherwise.
        let with_numbers = match self.report {
            Report::Framed => true,
            Report::Auto => framed.is_some() || self.total == 0,
            Report::Json | Report::Raw => false,
        };
        let (claimed_exit_code, usage) =
            if with_numbers { numbers::from_termination_message(message) } else { (None, None) };
        if let Some(frames) = framed {
            let (stdout, stderr, frame) = frames.finish();
            return Printed { stdout: Some(stdout), stderr, claimed_exit_code, usage, frame: Some(frame) };
        }
        if let Some(claim) = self.lines.and_then(json::Lines::finish) {
            return Printed {
                stdout: claim.stdout,
                stderr: claim.stderr,
                claimed_exit_code: claim.exit_code,
                usage: claim.usage,
                frame: None,
            };
        }
        let raw = self.raw.unwrap_or_else(|| Keeper::new(self.stream_bytes_max));
        // Who promised frames prints them first: the beginning is missing, or all of it.
        let frame = (self.report == Report::Framed).then_some(FrameState::Missing);
        Printed { stdout: Some(raw.finish()), stderr: None, claimed_exit_code, usage, frame }
    }

    /// Whether a line that began like a report was too long to be looked at.
    pub fn gave_up_a_line(&self) -> bool {
        self.lines.as_ref().is_some_and(json::Lines::gave_up)
    }

    /// Whether a report with a standard error of its own is certain, so that no other is needed.
    pub fn has_stderr(&self) -> bool {
        self.frames.as_ref().is_some_and(framed::Frames::has_stderr)
            || self.lines.as_ref().is_some_and(json::Lines::has_stderr)
    }

    /// Whether the output begins with frames that are not all there (yet).
    pub fn frame_incomplete(&self) -> bool {
        self.frames
            .as_ref()
            .is_some_and(|frames| frames.begun() == Some(true) && frames.state() == FrameState::Incomplete)
    }
}

/// What a container printed, as it claims. Whole streams before they are fitted into a record.
pub struct Printed {
    /// Standard output; absent where a report has none.
    pub stdout: Option<Kept>,
    /// Standard error; absent where nothing tells the streams apart.
    pub stderr: Option<Kept>,
    /// The exit code that the report claims.
    pub claimed_exit_code: Option<i64>,
    /// The numbers that the report claims.
    pub usage: Option<ResourceUsage>,
    /// How the frames ended, where there are frames.
    pub frame: Option<FrameState>,
}

impl Printed {
    /// Fits it into a record. `failure` is why the output was not read to its end, where it was not; `read_bytes` is how
    /// much of it was read, which tells `partial` from `unavailable`.
    pub fn captured(
        self,
        text_bytes_max: usize,
        encoded_bytes_max: usize,
        failure: Option<&'static str>,
        read_bytes: u64,
    ) -> Captured {
        let (claimed_exit_code, resource_usage) = (self.claimed_exit_code, self.usage);
        if let (Some(reason), 0) = (failure, read_bytes) {
            let logs = Logs { reason: Some(reason.into()), ..Logs::default() };
            return Captured { resource_usage, claimed_exit_code, logs, ..Captured::default() };
        }
        let (stdout, stderr) = fit_both(self.stdout.as_ref(), self.stderr.as_ref(), text_bytes_max, encoded_bytes_max);
        let broken = match self.frame {
            Some(FrameState::Incomplete) => Some(reason::FRAME_INCOMPLETE),
            Some(FrameState::Broken) => Some(reason::FRAME_BROKEN),
            Some(FrameState::Missing) => Some(reason::FRAME_MISSING),
            Some(FrameState::Complete) | None => None,
        };
        let is_cut = |fitted: &Option<Fitted>| fitted.as_ref().is_some_and(|fitted| fitted.cut);
        let why = failure.or(broken);
        let status = match why {
            Some(_) => LogsStatus::Partial,
            None if is_cut(&stdout) || is_cut(&stderr) => LogsStatus::Truncated,
            None => LogsStatus::Complete,
        };
        let logs = Logs {
            container: None,
            status,
            reason: why.map(Into::into),
            stdout_bytes: self.stdout.as_ref().map(Kept::total),
            stderr_bytes: self.stderr.as_ref().map(Kept::total),
        };
        Captured {
            stdout: stdout.map(|fitted| fitted.text),
            stderr: stderr.map(|fitted| fitted.text),
            resource_usage,
            claimed_exit_code,
            logs,
            ..Captured::default()
        }
    }
}

#[cfg(test)]
mod tests;
