//! Follows the log of a container whose pod is being deleted: 1-3 s after it ends, the node has no log any more.
//!
//! ```text
//!  deletionTimestamp ─▶ permits ─▶ stdout, stderr with follow=true ─▶ this pod's name? ─▶ ... ─▶ end ─▶ does it still run?
//!                                       ▲                                                              │ yes: it was cut
//!                                       └──────────────────────── back-off ────────────────────────────┘
//! ```
//! Promises: what was followed can be taken at any time, and says whether it is all; at most [`FOLLOWS_MAX`] are held,
//! of a node [`FOLLOWS_PER_NODE_MAX`], each bounded like a capture with report lines of at most twice the kept bytes.
//! They have permits of their own: neither do ordinary captures wait for them nor they for ordinary captures.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use futures::StreamExt;
use http::StatusCode;
use tokio::{
    sync::{OwnedSemaphorePermit, watch},
    time::{sleep, timeout},
};
use tracing::debug;

use super::{
    Limits, Report, Target,
    attempt::{Attempt, Progress},
    capture::{Checked, Shared, Stop, backoff},
    nodes::{Node, Split},
    read::request,
    reason,
    streams::{
        Class, Error, KUBELET_APPENDS_MAX, LogSource, Part, Run, Stream, is_kubelet_failure, kubelet_failure_at_end,
    },
};

/// Followed at the same time, or followed and not told yet.
pub const FOLLOWS_MAX: usize = 256;
/// Of them, of one node: a kubelet runs 110 pods by default, and all of them are deleted where it is drained.
pub const FOLLOWS_PER_NODE_MAX: usize = 128;
/// Requests of one follower; between them at most two seconds.
const ATTEMPTS_MAX: u32 = 1000;
/// The last line of a container that has ended is sent within this: a kubelet looks each second whether it has.
const STILL_RUNS: Duration = Duration::from_millis(1500);

/// One log that is followed.
pub struct Follow {
    target: Target,
    report: Report,
    limits: Limits,
    state: Mutex<State>,
    ended: watch::Sender<bool>,
}

#[derive(Default)]
struct State {
    progress: Progress,
    /// The last bytes of standard output and error, until it is known that no kubelet appended them.
    held: [Vec<u8>; 2],
    /// Held as long as the bytes are.
    permits: Vec<OwnedSemaphorePermit>,
    /// The server sends, and what it sends is this pod's.
    is_open: bool,
    /// All of it was read.
    is_whole: bool,
    /// Nothing of it may be told.
    lost: Option<&'static str>,
}

/// What was followed.
pub(super) enum Taken {
    /// All that the container printed.
    Whole(Attempt),
    /// What it printed until some moment.
    Until(Attempt),
    /// Nothing, and why, where that is known.
    Nothing(Option<&'static str>),
}

impl Follow {
    /// Nothing yet.
    pub fn new(target: Target, report: Report, limits: Limits) -> Self {
        Self { target, report, limits, state: Mutex::default(), ended: watch::Sender::new(false) }
    }

    /// Whose.
    pub fn target(&self) -> &Target {
        &self.target
    }

    /// Waits until nothing more comes.
    pub async fn ended(&self) {
        // The sender lives as long as this.
        let _ = self.ended.subscribe().wait_for(|ended| *ended).await;
    }

    /// Whether what it will have read is certain to be all that can be had: until it is open, others had better try too.
    pub(super) fn is_open(&self) -> bool {
        self.state().is_open
    }

    /// Whether nothing more comes.
    pub fn is_ended(&self) -> bool {
        *self.ended.borrow()
    }

    /// What was read until now; the next one gets nothing.
    pub(super) fn take(&self) -> Taken {
        let mut state = self.state();
        state.release(0, &self.limits);
        state.progress.settle();
        match (state.progress.best.take(), state.lost) {
            (_, Some(why)) => Taken::Nothing(Some(why)),
            (Some(attempt), None) if state.is_whole => Taken::Whole(attempt),
            (Some(attempt), None) if attempt.read_bytes() > 0 => Taken::Until(attempt),
            _ => Taken::Nothing(None),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Every state of it is a valid one, so that of a task that panicked is too.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn begin(&self) {
        let mut state = self.state();
        state.release(0, &self.limits);
        state.progress.begin(Attempt::lean(self.report, &self.limits));
        state.is_open = false;
    }

    fn push(&self, stream: Stream, bytes: &[u8]) {
        let mut state = self.state();
        state.held[usize::from(stream == Stream::Stderr)].extend_from_slice(bytes);
        state.release(KUBELET_APPENDS_MAX, &self.limits);
    }

    /// An answer ended by itself: takes away what a kubelet appended. Whether it did.
    fn cut_failure(&self) -> bool {
        let mut state = self.state();
        let mut cut = false;
        for held in &mut state.held {
            if let Some(at) = kubelet_failure_at_end(held) {
                held.truncate(at);
                cut = true;
            }
        }
        state.release(0, &self.limits);
        cut
    }

    /// Whether all that came is a kubelet's word that it has no log: then none of it is output.
    fn drop_failure(&self) -> bool {
        let mut state = self.state();
        let Some(current) = &state.progress.current else { return false };
        if current.main.total() == 0 && is_kubelet_failure(&state.held[0]) {
            state.held[0].clear();
            return true;
        }
        if current.is_kubelet_failure_with(&state.held[0]) {
            // A longer one, of which not all is held: as long as it is one it is never settled for output.
            state.release(0, &self.limits);
        }
        state.progress.current.as_ref().is_some_and(Attempt::is_kubelet_failure)
    }

    /// Whether what was read last ends where the log does. `None`: nobody says.
    fn is_whole(&self, last: &Last) -> Option<bool> {
        let state = self.state();
        let current = state.progress.current.as_ref()?;
        match last {
            Last::Line(line) => Some(current.ends_with(line)),
            Last::Gone if current.read_bytes() > 0 => Some(true),
            // That there was no output is only believed where somebody says so.
            Last::Gone | Last::Unknown => None,
        }
    }

    /// Both streams are the same, byte for byte as far as is kept: a server that cannot split them sent all of it twice.
    fn merge_doubled(&self, node: &Node) {
        let mut state = self.state();
        let Some(current) = &mut state.progress.current else { return };
        match (node.split.get(), current.looks_doubled()) {
            (Split::Unknown, true) => current.stderr = None,
            (Split::Unknown, false) if current.read_bytes() > 0 => node.split.set(Split::Works),
            _ => {}
        }
    }

    fn end(&self, is_whole: bool, lost: Option<&'static str>) {
        let mut state = self.state();
        (state.is_whole, state.lost) = (is_whole, lost);
        drop(state);
        self.ended.send_replace(true);
    }
}

impl State {
    /// Hands on all but the last bytes that are held.
    fn release(&mut self, keep: usize, limits: &Limits) {
        for (index, stream) in [Stream::Stdout, Stream::Stderr].into_iter().enumerate() {
            let held = &mut self.held[index];
            let ripe = held.len().saturating_sub(keep);
            if let Some(current) = self.progress.current.as_mut().filter(|_| ripe > 0) {
                current.push(stream, &held[..ripe], limits);
            }
            held.drain(..ripe);
        }
    }
}

impl<S: LogSource> Shared<S> {
    pub(super) async fn follow(&self, follow: &Follow) {
        let node = self.nodes.get(follow.target.node_name.as_deref());
        // The node's first, as for captures: a hung node then holds at most its own share of all.
        let of_node = Arc::clone(&node.follows).acquire_owned().await.expect("the semaphore is never closed");
        let of_all = Arc::clone(&self.follows).acquire_owned().await.expect("the semaphore is never closed");
        follow.state().permits.extend([of_node, of_all]);
        for attempt in 1..=ATTEMPTS_MAX {
            match self.follow_once(follow, &node).await {
                Ok(last) => {
                    let appended = follow.cut_failure();
                    follow.merge_doubled(&node);
                    match follow.is_whole(&last) {
                        // What a kubelet appended can be forged: nobody then says that this is all.
                        Some(true) => return follow.end(!appended, None),
                        Some(false) => debug!(attempt, "a log that is followed broke off"),
                        None => return follow.end(false, None),
                    }
                }
                Err(Broken::StillRuns) => debug!(attempt, "a log that is followed broke off"),
                Err(Broken::Lost(why)) => return follow.end(false, Some(why)),
                Err(Broken::Stop(Stop::LogGone)) => return follow.end(false, None),
                Err(Broken::Stop(Stop::Failed(error))) => {
                    debug!(%error, attempt, "following a log failed");
                    if error.class() != Class::Transient {
                        return follow.end(false, None);
                    }
                }
            }
            sleep(backoff(&follow.target, attempt)).await;
        }
        follow.end(false, None);
    }

    /// Follows until the answer ends.
    async fn follow_once(&self, follow: &Follow, node: &Node) -> Result<Last, Broken> {
        follow.begin();
        if self.split.get() != Split::Missing && node.split.get() != Split::Missing {
            let (main, stderr) = (self.follow_main(follow, Stream::Stdout), self.follow_stderr(follow));
            match futures::future::try_join(main, stderr).await {
                Ok((last, ())) => return Ok(last),
                // The gate is off; whose, the next capture finds out.
                Err(Broken::Stop(Stop::Failed(error))) if refuses_to_split(&error) => {}
                Err(broken) => return Err(broken),
            }
            follow.begin();
        }
        self.follow_main(follow, Stream::All).await
    }

    async fn follow_main(&self, follow: &Follow, stream: Stream) -> Result<Last, Broken> {
        let of = (&follow.target, Run::Latest);
        let mut chunks = self.source.read(&request(of, stream, Part::Followed)).await?;
        // The server looked the name up before this: if it is still this pod's, it was then.
        match self.check(&follow.target, Run::Latest).await {
            Checked::Same => {}
            Checked::Restarted => return Err(Broken::Lost(reason::ATTEMPT_GONE)),
            Checked::Lost(why) => return Err(Broken::Lost(why)),
            Checked::Unknown => return Err(Broken::Lost(reason::UNVERIFIED)),
        }
        debug!("a log is followed");
        follow.state().is_open = true;
        while let Some(chunk) = chunks.next().await {
            follow.push(stream, &chunk?);
        }
        if follow.drop_failure() {
            return Err(Broken::Stop(Stop::LogGone));
        }
        self.last(follow).await
    }

    /// A kubelet answers only with the first byte of standard error, or at the end; where it then finds the container
    /// removed, with 400.
    async fn follow_stderr(&self, follow: &Follow) -> Result<(), Broken> {
        let asked = tokio::time::Instant::now();
        let of = (&follow.target, Run::Latest);
        let mut chunks = match self.source.read(&request(of, Stream::Stderr, Part::Followed)).await {
            Ok(chunks) => chunks,
            Err(error) if refuses_to_split(&error) && asked.elapsed() > STILL_RUNS => return Ok(()),
            Err(error) => return Err(error.into()),
        };
        while let Some(chunk) = chunks.next().await {
            follow.push(Stream::Stderr, &chunk?);
        }
        Ok(())
    }

    /// What the kubelet says after a log that was followed has come to its end. Asked at once: who only asks when the
    /// container has ended may find a log that was cut off long before and is gone by then.
    async fn last(&self, follow: &Follow) -> Result<Last, Broken> {
        let line = self.read_last_line(&follow.target, Run::Latest, Part::LastLineFollowed);
        match timeout(STILL_RUNS, line).await {
            Err(_) => Err(Broken::StillRuns),
            Ok(Ok(line)) if line.is_kubelet_failure() => Ok(Last::Gone),
            Ok(Ok(line)) => Ok(Last::Line(Box::new(line))),
            Ok(Err(Stop::Failed(error))) if error.class() == Class::Transient => Ok(Last::Unknown),
            Ok(Err(_)) => Ok(Last::Gone),
        }
    }
}

/// How the log of a container that has ended ends.
enum Last {
    /// With this line.
    Line(Box<Attempt>),
    /// It went within the moment since; only those of containers that have ended do.
    Gone,
    /// Nobody says.
    Unknown,
}

/// Why following ended without all of it.
enum Broken {
    Stop(Stop),
    /// The answer ended and the container has not.
    StillRuns,
    /// Nothing of it may be told.
    Lost(&'static str),
}

impl From<Error> for Broken {
    fn from(error: Error) -> Self {
        Self::Stop(Stop::Failed(error))
    }
}

fn refuses_to_split(error: &Error) -> bool {
    matches!(error.status(), Some(StatusCode::BAD_REQUEST | StatusCode::UNPROCESSABLE_ENTITY))
}

#[cfg(test)]
#[path = "follow_tests.rs"]
mod tests;
