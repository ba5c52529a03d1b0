//! Captures what a container printed, within a deadline, whatever the servers do.
//!
//! ```text
//!  followed? ─no─▶ permit of the node ─▶ permit of all ─▶ read ─▶ the last line? ─▶ this pod's name, this attempt? ─▶ Captured
//!      │ all of it                            ▲               │ transient, cut short │ restarted: previous=true
//!      ▼                                      └── back-off ───┴──────────────────────┘
//!   Captured
//! ```
//! Promises: [`Capturer::capture`] never fails and ends at the deadline; what was read until then is told as `partial`;
//! a node that hangs delays only captures from itself; a clean end of an answer is believed only if the log's last line
//! stands there, and "no output" only when asked twice. Output reaches no log, span or error. How one read goes is
//! `read.rs`'s business, what is followed while a pod is deleted `follow.rs`'s.

use std::{
    hash::{DefaultHasher, Hash, Hasher},
    sync::Arc,
    time::Duration,
};

use tokio::{
    sync::Semaphore,
    time::{Instant, sleep, timeout, timeout_at},
};
use tracing::{Instrument, Span, debug, info_span};

use super::{
    Limits, Report, Target,
    attempt::{Attempt, Progress},
    follow::{Follow, Taken},
    nodes::{Nodes, SplitMemory},
    reason,
    streams::{Class, Error, LogSource, Part, Run},
};
use crate::lifecycle::event::Captured;

/// Reads of one capture at most; with the back-off between them longer than any sensible deadline.
const ATTEMPTS_MAX: u32 = 50;
/// Reads in which a frame may still be incomplete: the container runtime may flush its end after the container ended.
const FRAME_ATTEMPTS_MAX: u32 = 4;
/// Reads that may end before the log does.
const CUT_ATTEMPTS_MAX: u32 = 4;
/// Longest wait for the end of a log that is followed, once its container has ended: a kubelet looks each second.
const FOLLOW_END_MAX: Duration = Duration::from_secs(3);
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

pub(super) struct Shared<S> {
    pub(super) source: S,
    pub(super) limits: Limits,
    permits: Semaphore,
    /// For what is followed: ordinary captures never make that wait.
    pub(super) follows: Arc<Semaphore>,
    pub(super) nodes: Nodes,
    /// What the API server says of split streams; a kubelet may say otherwise.
    pub(super) split: SplitMemory,
}

/// Why a read ended without all of the output.
pub(super) enum Stop {
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

/// What the last line of a log says of a read of it.
enum Confirmed {
    Whole,
    CutShort,
}

impl<S: LogSource> Capturer<S> {
    /// A capturer of what `source` reads.
    pub fn new(source: S, limits: Limits) -> Self {
        let shared = Shared {
            source,
            limits,
            permits: Semaphore::new(limits.captures_max.clamp(1, Semaphore::MAX_PERMITS)),
            follows: Arc::new(Semaphore::new(super::follow::FOLLOWS_MAX)),
            nodes: Nodes::new(limits.captures_per_node_max.min(Semaphore::MAX_PERMITS)),
            split: SplitMemory::new(),
        };
        Self { shared: Arc::new(shared) }
    }

    /// Captures what the container printed. Never fails, ends within the capture deadline counted from now.
    pub async fn capture(&self, target: &Target, report: Report) -> Captured {
        self.capture_asked_at(target, report, Instant::now(), None).await
    }

    /// The same, with the deadline counted from when it was asked for: it may have waited for its turn. What was followed
    /// is used where it is all of it, or all that can be had.
    pub async fn capture_asked_at(
        &self,
        target: &Target,
        report: Report,
        asked_at: Instant,
        followed: Option<&Follow>,
    ) -> Captured {
        self.shared.capture(target, report, asked_at, followed).instrument(span("capture", target)).await
    }

    /// What was followed of a pod that is gone: nothing else can be had of it.
    pub async fn capture_gone(&self, target: &Target, followed: &Follow) -> Captured {
        // In time or not: what came by then is all there is.
        let _ = timeout(FOLLOW_END_MAX, followed.ended()).await;
        self.taken(target, followed)
    }

    /// What was followed until now, without waiting for anything.
    pub fn taken(&self, target: &Target, followed: &Follow) -> Captured {
        let limits = &self.shared.limits;
        match followed.take() {
            Taken::Whole(attempt) => attempt.finish(limits, target, None),
            Taken::Until(attempt) => attempt.finish(limits, target, Some(reason::FOLLOWED)),
            Taken::Nothing(why) => nothing(limits, target, why.unwrap_or(reason::POD_GONE)),
        }
    }

    /// Follows a log until its container has ended, into `follow`. Waits for its permits first.
    pub async fn follow(&self, follow: &Follow) {
        self.shared.follow(follow).instrument(span("follow", follow.target())).await;
    }

    /// Bounds of this capturer.
    pub fn limits(&self) -> &Limits {
        &self.shared.limits
    }
}

fn span(name: &'static str, target: &Target) -> Span {
    let Target { uid, namespace, pod_name, container, .. } = target;
    let node = target.node_name.as_deref().unwrap_or_default();
    match name {
        "follow" => info_span!("follow", pod_uid = %uid, %namespace, pod = %pod_name, %container, node),
        _ => info_span!("capture", pod_uid = %uid, %namespace, pod = %pod_name, %container, node),
    }
}

fn nothing(limits: &Limits, target: &Target, why: &'static str) -> Captured {
    // Numbers of the termination message count in any format that has them.
    Attempt::new(Report::Auto, limits).finish(limits, target, Some(why))
}

impl<S: LogSource> Shared<S> {
    async fn capture(&self, target: &Target, report: Report, asked_at: Instant, followed: Option<&Follow>) -> Captured {
        let limits = &self.limits;
        let deadline = asked_at + limits.capture_deadline.min(PATIENCE_MAX);
        let mut until = None;
        // One that is not open yet may come too late, and the node forgets soon: then both are tried.
        if let Some(followed) = followed.filter(|followed| followed.is_open() || followed.is_ended()) {
            match self.end_of(followed, deadline).await {
                Taken::Whole(attempt) if !attempt.main.gave_up_a_line() => return attempt.finish(limits, target, None),
                // A lean reader may have taken a very long report for output.
                Taken::Whole(attempt) | Taken::Until(attempt) => until = Some(attempt),
                Taken::Nothing(_) => {}
            }
        }
        let mut progress = Progress::default();
        let failure = self.read_and_check(target, report, deadline, &mut progress).await;
        if let Some(reason) = failure {
            debug!(reason, "output not captured whole");
        }
        if let Some(followed) = followed.filter(|_| failure.is_some() && until.is_none()) {
            match self.end_of(followed, deadline).await {
                Taken::Whole(attempt) => return attempt.finish(limits, target, None),
                Taken::Until(attempt) => until = Some(attempt),
                Taken::Nothing(_) => {}
            }
        }
        // More than a whole read of what the node still has: its beginning was rotated away.
        match until.filter(|until| until.read_bytes() > progress.best_bytes()) {
            Some(until) if failure.is_none() => until.finish(limits, target, Some(reason::ROTATED)),
            Some(until) => until.finish(limits, target, Some(reason::FOLLOWED)),
            None => {
                let attempt = progress.best.unwrap_or_else(|| Attempt::new(report, limits));
                attempt.finish(limits, target, failure)
            }
        }
    }

    /// What was followed, once nothing more comes, or does for too long.
    async fn end_of(&self, followed: &Follow, deadline: Instant) -> Taken {
        let _ = timeout_at(deadline.min(Instant::now() + FOLLOW_END_MAX), followed.ended()).await;
        followed.take()
    }

    /// Reads the right attempt of the right pod. Says what went wrong.
    async fn read_and_check(
        &self,
        target: &Target,
        report: Report,
        deadline: Instant,
        progress: &mut Progress,
    ) -> Option<&'static str> {
        let patience = deadline.saturating_duration_since(Instant::now());
        let read_until = deadline - (patience / CHECK_SHARE).min(CHECK_MAX);
        let mut run = Run::Latest;
        loop {
            let failure = match timeout_at(read_until, self.read_with_retries(target, run, report, progress)).await {
                Ok(failure) => failure,
                Err(_) => Some(reason::DEADLINE),
            };
            progress.settle();
            if progress.best_bytes() == 0 && failure.is_some() {
                return failure;
            }
            match timeout_at(deadline, self.check(target, run)).await {
                Ok(Checked::Same) => return failure,
                // INV-3: the verdict is over one attempt; what a later one prints is not its output.
                Ok(Checked::Restarted) => {
                    progress.forget();
                    run = Run::Previous;
                }
                Ok(Checked::Lost(reason)) => {
                    // It may be another user's output: all of it goes.
                    progress.forget();
                    return Some(reason);
                }
                Ok(Checked::Unknown) | Err(_) => return failure.or(Some(reason::UNVERIFIED)),
            }
        }
    }

    /// Reads until all is there, nothing more can be had, or the caller's deadline drops it. Says what went wrong.
    async fn read_with_retries(
        &self,
        target: &Target,
        run: Run,
        report: Report,
        progress: &mut Progress,
    ) -> Option<&'static str> {
        // The node's permit comes first: a hung node then holds at most its own share of the global permits, and those
        // who wait for it hold none.
        let node = self.nodes.get(target.node_name.as_deref());
        let _node_permit = node.permits.acquire().await.expect("the semaphore is never closed");
        let (mut attempt, mut cut_short) = (0, 0);
        loop {
            attempt += 1;
            let read = {
                // Given back before each back-off: sleeping needs no permit.
                let _permit = self.permits.acquire().await.expect("the semaphore is never closed");
                self.read(target, run, report, &node, progress).await
            };
            let confirmed = match read {
                Ok(()) => self.confirm(target, run, progress).await,
                Err(stop) => Err(stop),
            };
            match confirmed {
                Ok(Confirmed::CutShort) => {
                    debug!(attempt, "a log's answer ended before the log did");
                    cut_short += 1;
                    if cut_short >= CUT_ATTEMPTS_MAX {
                        return Some(reason::CUT_SHORT);
                    }
                }
                Ok(Confirmed::Whole) => {
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

    /// Whether what was read ends where the log does. A clean end of an answer says nothing: the API server ends its own
    /// in the same way when it loses the kubelet, and a runtime may write the last lines after it has told of the end.
    async fn confirm(&self, target: &Target, run: Run, progress: &Progress) -> Result<Confirmed, Stop> {
        let Some(current) = &progress.current else { return Ok(Confirmed::Whole) };
        let is_empty = current.read_bytes() == 0;
        if is_empty {
            // Time for a runtime that has yet to write: "no output" is believed only if it is still so then.
            sleep(backoff(target, 1)).await;
        }
        let line = {
            let _permit = self.permits.acquire().await.expect("the semaphore is never closed");
            self.read_last_line(target, run, Part::LastLine).await
        };
        match line {
            Ok(line) if current.ends_with(&line) => Ok(Confirmed::Whole),
            Ok(line) if line.is_kubelet_failure() => Err(Stop::LogGone),
            Ok(_) => Ok(Confirmed::CutShort),
            Err(stop) => Err(stop),
        }
        // Output that nobody can confirm is output; that there is none, nobody has said.
        .or_else(|stop| if is_empty { Err(stop) } else { Ok(Confirmed::Whole) })
    }

    /// Whose name it was while we read, and which attempt: names are given again, UIDs are not, and restarts only count
    /// up. So what still stands now stood while we read.
    pub(super) async fn check(&self, target: &Target, run: Run) -> Checked {
        for attempt in 1..=ATTEMPTS_MAX {
            match self.source.holder(&target.namespace, &target.pod_name, &target.container).await {
                // No pod has the name: nobody has taken it.
                Ok(None) => return Checked::Same,
                Ok(Some(holder)) if holder.uid != target.uid => return Checked::Lost(reason::POD_REPLACED),
                Ok(Some(holder)) => {
                    let since = holder.restart_count.map_or(0, |now| now.saturating_sub(target.restart_count));
                    return match (since, run) {
                        (0, _) | (1, Run::Previous) => Checked::Same,
                        (1, Run::Latest) => Checked::Restarted,
                        _ => Checked::Lost(reason::ATTEMPT_GONE),
                    };
                }
                Err(error) if error.class() == Class::Transient => {
                    debug!(%error, attempt, "asking for the pod failed");
                }
                Err(error) => {
                    debug!(%error, attempt, "asking for the pod was refused");
                    return Checked::Unknown;
                }
            }
            sleep(backoff(target, attempt)).await;
        }
        Checked::Unknown
    }
}

pub(super) enum Checked {
    /// It was this pod's name, and this attempt.
    Same,
    /// The container was restarted once since: the attempt is the one before.
    Restarted,
    /// It was not, or nobody has it any more.
    Lost(&'static str),
    /// Nobody says.
    Unknown,
}

/// Doubles, and differs from pod to pod, so that captures which failed together do not come back together.
pub(super) fn backoff(target: &Target, attempt: u32) -> Duration {
    let full = BACKOFF_MIN.saturating_mul(1 << attempt.saturating_sub(1).min(8)).min(BACKOFF_MAX);
    let mut hasher = DefaultHasher::new();
    (&target.uid, attempt).hash(&mut hasher);
    full / 2 + full / 2 * u32::try_from(hasher.finish() % 256).unwrap_or_default() / 256
}

#[cfg(test)]
#[path = "capture_tests.rs"]
pub(super) mod tests;
