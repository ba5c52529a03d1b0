//! Captures what a container printed, within a deadline, whatever the servers do.
//!
//! ```text
//!  permit of the node ─▶ permit of all ─▶ read stdout, stderr (or both at once) ─▶ still this pod's name? ─▶ Captured
//!                            ▲                     │ transient
//!                            └────── back-off ─────┘
//! ```
//! Promises: [`Capturer::capture`] never fails and ends at the deadline; what was read until then is told as `partial`;
//! a node that hangs delays only captures from itself. Output reaches no log, span or error.

use std::{
    hash::{DefaultHasher, Hash, Hasher},
    sync::Arc,
    time::Duration,
};

use futures::StreamExt;
use tokio::{
    sync::Semaphore,
    time::{Instant, sleep, timeout_at},
};
use tracing::{Instrument, debug, info_span};

use super::{
    Limits, Report, Target,
    limits::Keeper,
    nodes::{Node, Nodes, Split, SplitMemory},
    reason,
    report::Reader,
    streams::{Class, Error, KUBELET_FAILURE_BYTES_MAX, LogRequest, LogSource, Stream, is_kubelet_failure},
};
use crate::lifecycle::event::Captured;

/// Reads of one capture at most; with the back-off between them longer than any sensible deadline.
const ATTEMPTS_MAX: u32 = 50;
/// Reads in which a frame may still be incomplete: the container runtime may flush its end after the container ended.
const FRAME_ATTEMPTS_MAX: u32 = 4;
const BACKOFF_MIN: Duration = Duration::from_millis(100);
const BACKOFF_MAX: Duration = Duration::from_secs(2);
/// Kept of the deadline for the check whose output it was: this part of it, and at most this long.
const CHECK_SHARE: u32 = 10;
const CHECK_MAX: Duration = Duration::from_secs(2);
/// No deadline is later than this, so that no sum of times can overflow.
const PATIENCE_MAX: Duration = Duration::from_secs(24 * 60 * 60);

/// Captures output. Clones share their permits and what they learnt of the servers.
pub struct Capturer<S> {
    shared: Arc<Shared<S>>,
}

impl<S> Clone for Capturer<S> {
    fn clone(&self) -> Self {
        Self { shared: Arc::clone(&self.shared) }
    }
}

struct Shared<S> {
    source: S,
    limits: Limits,
    permits: Semaphore,
    nodes: Nodes,
    /// What the API server says of split streams; a kubelet may say otherwise.
    split: SplitMemory,
}

/// One read of the output, as far as it got.
struct Attempt {
    main: Reader,
    stderr: Option<Keeper>,
    /// The beginning of the output, in which a kubelet may say that it has none.
    beginning: Vec<u8>,
}

impl Attempt {
    fn new(report: Report, limits: &Limits) -> Self {
        Self { main: Reader::new(report, limits.log_bytes_max), stderr: None, beginning: Vec::new() }
    }

    fn read_bytes(&self) -> u64 {
        self.main.total() + self.stderr.as_ref().map_or(0, Keeper::total)
    }

    fn push(&mut self, stream: Stream, bytes: &[u8], limits: &Limits) {
        if stream == Stream::Stderr {
            return self.stderr.get_or_insert_with(|| Keeper::new(limits.log_bytes_max)).push(bytes);
        }
        let left = (KUBELET_FAILURE_BYTES_MAX + 1).saturating_sub(self.beginning.len());
        self.beginning.extend_from_slice(&bytes[..bytes.len().min(left)]);
        self.main.push(bytes);
    }
}

/// The furthest read so far, and why it is not all. Lives outside the futures that the deadline may drop.
struct Progress {
    best: Option<Attempt>,
    current: Option<Attempt>,
}

impl Progress {
    fn begin(&mut self, report: Report, limits: &Limits) -> &mut Attempt {
        self.settle();
        self.current.insert(Attempt::new(report, limits))
    }

    /// Keeps the better one of the current and the best attempt.
    fn settle(&mut self) {
        if let Some(current) = self.current.take()
            // The deadline may fall between a kubelet's failure and the end of its answer.
            && !is_kubelet_failure(&current.beginning)
            && self.best.as_ref().is_none_or(|best| current.read_bytes() >= best.read_bytes())
        {
            self.best = Some(current);
        }
    }

    fn forget(&mut self) {
        (self.best, self.current) = (None, None);
    }
}

/// Why a read ended without all of the output.
enum Stop {
    /// The server failed.
    Failed(Error),
    /// The kubelet said that it has no log.
    LogGone,
}

impl From<Error> for Stop {
    fn from(error: Error) -> Self {
        Self::Failed(error)
    }
}

impl<S: LogSource> Capturer<S> {
    /// A capturer of what `source` reads.
    pub fn new(source: S, limits: Limits) -> Self {
        let shared = Shared {
            source,
            limits,
            permits: Semaphore::new(limits.captures_max.clamp(1, Semaphore::MAX_PERMITS)),
            nodes: Nodes::new(limits.captures_per_node_max.min(Semaphore::MAX_PERMITS)),
            split: SplitMemory::new(),
        };
        Self { shared: Arc::new(shared) }
    }

    /// Captures what the container printed. Never fails, ends within the capture deadline counted from now.
    pub async fn capture(&self, target: &Target, report: Report) -> Captured {
        self.capture_asked_at(target, report, Instant::now()).await
    }

    /// The same, with the deadline counted from when it was asked for: it may have waited for its turn.
    pub async fn capture_asked_at(&self, target: &Target, report: Report, asked_at: Instant) -> Captured {
        let span = info_span!(
            "capture",
            pod_uid = %target.uid,
            namespace = %target.namespace,
            pod = %target.pod_name,
            container = %target.container,
            node = target.node_name.as_deref().unwrap_or_default(),
        );
        self.shared.capture(target, report, asked_at).instrument(span).await
    }
}

impl<S: LogSource> Shared<S> {
    async fn capture(&self, target: &Target, report: Report, asked_at: Instant) -> Captured {
        let limits = &self.limits;
        let deadline = asked_at + limits.capture_deadline.min(PATIENCE_MAX);
        let patience = deadline.saturating_duration_since(Instant::now());
        let read_until = deadline - (patience / CHECK_SHARE).min(CHECK_MAX);
        let mut progress = Progress { best: None, current: None };
        let mut failure = match timeout_at(read_until, self.read_with_retries(target, report, &mut progress)).await {
            Ok(failure) => failure,
            Err(_) => Some(reason::DEADLINE),
        };
        progress.settle();
        if progress.best.as_ref().is_some_and(|best| best.read_bytes() > 0) || failure.is_none() {
            match timeout_at(deadline, self.check_uid(target)).await {
                Ok(Checked::Same) => {}
                Ok(Checked::Replaced) => {
                    // It may be another user's output: all of it goes.
                    progress.forget();
                    failure = Some(reason::POD_REPLACED);
                }
                Ok(Checked::Unknown) | Err(_) => failure = failure.or(Some(reason::UNVERIFIED)),
            }
        }
        if let Some(reason) = failure {
            debug!(reason, "output not captured whole");
        }
        finish(progress, report, limits, target, failure)
    }

    /// Reads until all is there, nothing more can be had, or the caller's deadline drops it. Says what went wrong.
    async fn read_with_retries(
        &self,
        target: &Target,
        report: Report,
        progress: &mut Progress,
    ) -> Option<&'static str> {
        // The node's permit comes first: a hung node then holds at most its own share of the global permits, and those
        // who wait for it hold none.
        let node = self.nodes.get(target.node_name.as_deref());
        let _node_permit = node.permits.acquire().await.expect("the semaphore is never closed");
        let mut attempt = 0;
        loop {
            attempt += 1;
            let read = {
                // Given back before each back-off: sleeping needs no permit.
                let _permit = self.permits.acquire().await.expect("the semaphore is never closed");
                self.read(target, report, &node, progress).await
            };
            match read {
                Ok(()) => {
                    // A whole read beats a longer one that broke: the log may have been rotated between them.
                    progress.best = None;
                    let flushing = progress.current.as_ref().is_some_and(|current| current.main.frame_incomplete());
                    if !flushing || attempt >= FRAME_ATTEMPTS_MAX {
                        return None;
                    }
                }
                Err(Stop::LogGone) => {
                    // What was read is the kubelet's text, not output.
                    progress.current = None;
                    return Some(reason::LOG_GONE);
                }
                Err(Stop::Failed(error)) => {
                    debug!(%error, attempt, "reading a log failed");
                    if error.class() != Class::Transient || attempt >= ATTEMPTS_MAX {
                        return Some(error.reason());
                    }
                }
            }
            sleep(backoff(target, attempt)).await;
        }
    }

    /// One read of everything: split into two streams where the servers can, else both in one.
    async fn read(&self, target: &Target, report: Report, node: &Node, progress: &mut Progress) -> Result<(), Stop> {
        if self.split.get() == Split::Missing || node.split.get() == Split::Missing {
            return self.read_stream(target, Stream::All, progress.begin(report, &self.limits)).await;
        }
        match self.read_split(target, node, progress.begin(report, &self.limits)).await {
            Ok(true) => return Ok(()),
            Ok(false) => {}
            // The API server does not know the parameter or its gate is off.
            Err(Stop::Failed(error)) if error.status() == Some(http::StatusCode::UNPROCESSABLE_ENTITY) => {
                self.split.set(Split::Missing);
            }
            // The kubelet's gate is off, or there is no log at all: reading both in one tells.
            Err(Stop::Failed(error)) if error.status() == Some(http::StatusCode::BAD_REQUEST) => {
                let read = self.read_stream(target, Stream::All, progress.begin(report, &self.limits)).await;
                if read.is_ok() {
                    node.split.set(Split::Missing);
                }
                return read;
            }
            Err(stop) => return Err(stop),
        }
        self.read_again_as_one(target, report, node, progress).await
    }

    /// Reads both streams in one, after a read of two that may have held everything twice: the lengths tell.
    async fn read_again_as_one(
        &self,
        target: &Target,
        report: Report,
        node: &Node,
        progress: &mut Progress,
    ) -> Result<(), Stop> {
        // Aside until it is known to be no copy: if this read fails, nothing must be told twice.
        let mut split = progress.current.take();
        let stderr = split.as_mut().and_then(|split| split.stderr.take());
        let split_bytes = split.as_ref().map(|split| split.main.total());
        progress.current = split;
        let attempt = progress.begin(report, &self.limits);
        self.read_stream(target, Stream::All, attempt).await?;
        let one_bytes = attempt.main.total();
        if self.split.get() == Split::Missing {
            return Ok(());
        }
        if Some(one_bytes) == split_bytes {
            node.split.set(Split::Missing);
            return Ok(());
        }
        // Both together are longer than each of them: they are two streams.
        node.split.set(Split::Works);
        if let Some(mut split) = progress.best.take().filter(|best| Some(best.main.total()) == split_bytes) {
            split.stderr = stderr;
            progress.current = Some(split);
        }
        Ok(())
    }

    /// Reads standard output and standard error. `false`: they are equally long, so perhaps each is everything, since
    /// servers before 1.32 ignore the parameter.
    async fn read_split(&self, target: &Target, node: &Node, attempt: &mut Attempt) -> Result<bool, Stop> {
        self.read_stream(target, Stream::Stdout, attempt).await?;
        if attempt.main.has_stderr() && node.split.get() == Split::Works {
            return Ok(true);
        }
        attempt.stderr = Some(Keeper::new(self.limits.log_bytes_max));
        self.read_stream(target, Stream::Stderr, attempt).await?;
        let (stdout, stderr) = (attempt.main.total(), attempt.stderr.as_ref().map_or(0, Keeper::total));
        if stdout != stderr {
            node.split.set(Split::Works);
        }
        Ok(stdout != stderr || stdout == 0 || node.split.get() == Split::Works)
    }

    async fn read_stream(&self, target: &Target, stream: Stream, attempt: &mut Attempt) -> Result<(), Stop> {
        let request = LogRequest {
            namespace: &target.namespace,
            pod_name: &target.pod_name,
            container: &target.container,
            stream,
        };
        let mut chunks = self.source.read(&request).await?;
        while let Some(chunk) = chunks.next().await {
            attempt.push(stream, &chunk?, &self.limits);
        }
        if stream != Stream::Stderr && is_kubelet_failure(&attempt.beginning) {
            return Err(Stop::LogGone);
        }
        Ok(())
    }

    /// Whose name it was while we read: names are given again, UIDs are not, so a UID that still stands proves it.
    async fn check_uid(&self, target: &Target) -> Checked {
        for attempt in 1..=ATTEMPTS_MAX {
            match self.source.current_uid(&target.namespace, &target.pod_name).await {
                // No pod has the name: nobody has taken it.
                Ok(None) => return Checked::Same,
                Ok(Some(uid)) if uid == target.uid => return Checked::Same,
                Ok(Some(_)) => return Checked::Replaced,
                Err(error) if error.class() == Class::Transient => {
                    debug!(%error, attempt, "asking for the uid failed");
                }
                Err(error) => {
                    debug!(%error, attempt, "asking for the uid was refused");
                    return Checked::Unknown;
                }
            }
            sleep(backoff(target, attempt)).await;
        }
        Checked::Unknown
    }
}

enum Checked {
    Same,
    Replaced,
    Unknown,
}

fn finish(
    progress: Progress,
    report: Report,
    limits: &Limits,
    target: &Target,
    failure: Option<&'static str>,
) -> Captured {
    let attempt = progress.best.unwrap_or_else(|| Attempt::new(report, limits));
    let read_bytes = attempt.read_bytes();
    let mut printed = attempt.main.finish(target.termination_message.as_deref());
    if printed.stderr.is_none() {
        printed.stderr = attempt.stderr.map(Keeper::finish);
    }
    printed.captured(limits.log_bytes_max, limits.encoded_bytes_max, failure, read_bytes)
}

/// Doubles, and differs from pod to pod, so that captures which failed together do not come back together.
fn backoff(target: &Target, attempt: u32) -> Duration {
    let full = BACKOFF_MIN.saturating_mul(1 << attempt.saturating_sub(1).min(8)).min(BACKOFF_MAX);
    let mut hasher = DefaultHasher::new();
    (&target.uid, attempt).hash(&mut hasher);
    full / 2 + full / 2 * u32::try_from(hasher.finish() % 256).unwrap_or_default() / 256
}

#[cfg(test)]
#[path = "capture_tests.rs"]
mod tests;
