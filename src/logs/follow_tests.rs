//! Logs that are followed, from a scripted source under virtual time.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use bytes::Bytes;
use futures::stream;
use tokio::time::Instant;

use super::super::capture::tests::{LIMITS, target};
use super::*;
use crate::{
    lifecycle::event::{Captured, LogsStatus},
    logs::{
        capture::Capturer,
        streams::{Chunks, Holder, LogRequest},
    },
    watch::pod::PodUid,
};

/// A kubelet with one pod, whose container prints `before` and, after five seconds, `after`, and ends.
struct Kubelet {
    ends_at: Instant,
    before: &'static [u8],
    after: &'static [u8],
    /// The first follow is cut off in its midst, as if that were the end.
    cuts: AtomicBool,
    /// Its log is gone as soon as the container has ended, but for who follows it.
    forgets: bool,
    appends: &'static [u8],
    restarts: AtomicU32,
    uid: &'static str,
    follows: AtomicU32,
}

impl Default for Kubelet {
    fn default() -> Self {
        Self {
            ends_at: Instant::now() + Duration::from_secs(5),
            before: b"before\n",
            after: b"after\n",
            cuts: AtomicBool::new(false),
            forgets: true,
            appends: b"",
            restarts: AtomicU32::new(0),
            uid: "uid",
            follows: AtomicU32::new(0),
        }
    }
}

const GONE: &[u8] = b"unable to retrieve container logs for containerd://0123";
const APPENDED: &[u8] =
    b"rpc error: code = NotFound desc = an error occurred when try to find container \"0123abc\": not found";

impl LogSource for Arc<Kubelet> {
    async fn read(&self, request: &LogRequest<'_>) -> Result<Chunks, Error> {
        let ended = Instant::now() >= self.ends_at;
        if ended && self.forgets {
            return Ok(stream::iter([Ok(Bytes::from_static(GONE))]).boxed());
        }
        if request.stream == Stream::Stderr {
            if request.part == Part::Followed {
                tokio::time::sleep_until(self.ends_at).await;
            }
            return Ok(stream::empty().boxed());
        }
        let last = if ended { self.after } else { self.before };
        let first = match request.part {
            Part::LastLine | Part::LastLineFollowed => last,
            Part::Whole | Part::Followed => self.before,
        };
        let follows = matches!(request.part, Part::Followed | Part::LastLineFollowed);
        if request.part == Part::Followed {
            self.follows.fetch_add(1, Ordering::SeqCst);
            if self.cuts.swap(false, Ordering::SeqCst) {
                return Ok(stream::iter([Ok(Bytes::from_static(first))]).boxed());
            }
        }
        let (ends_at, appends) = (self.ends_at, self.appends);
        let rest =
            if ended && request.part != Part::Followed && request.part != Part::Whole { b"" } else { self.after };
        let rest = async move {
            if follows {
                tokio::time::sleep_until(ends_at).await;
            }
            Ok(Bytes::from([rest, appends].concat()))
        };
        let all = stream::iter([Ok(Bytes::from_static(first))]);
        Ok(if follows || ended { all.chain(stream::once(rest)).boxed() } else { all.boxed() })
    }

    async fn holder(&self, _: &str, _: &str, _: &str) -> Result<Option<Holder>, Error> {
        let restart_count = Some(self.restarts.load(Ordering::SeqCst));
        Ok(Some(Holder { uid: PodUid(self.uid.into()), restart_count }))
    }
}

fn told(captured: &Captured) -> (Option<&str>, LogsStatus, Option<&str>) {
    (captured.stdout.as_deref(), captured.logs.status, captured.logs.reason.as_deref())
}

/// Follows until the container has ended and captures then.
async fn followed(kubelet: &Arc<Kubelet>) -> Captured {
    let capturer = Capturer::new(Arc::clone(kubelet), LIMITS);
    let follow = Arc::new(Follow::new(target("pod", "node"), Report::Auto, LIMITS));
    let (follower, into) = (capturer.clone(), Arc::clone(&follow));
    let mut tasks = tokio::task::JoinSet::new();
    tasks.spawn(async move { follower.follow(&into).await });
    tokio::time::sleep_until(kubelet.ends_at + Duration::from_millis(100)).await;
    capturer.capture_asked_at(&target("pod", "node"), Report::Auto, Instant::now(), Some(&follow)).await
}

#[tokio::test(start_paused = true)]
async fn what_was_followed_to_the_end_is_all() {
    for forgets in [true, false] {
        let kubelet = Arc::new(Kubelet { forgets, ..Kubelet::default() });
        let captured = followed(&kubelet).await;
        assert_eq!(told(&captured), (Some("before\nafter\n"), LogsStatus::Complete, None), "forgets: {forgets}");
        assert_eq!(kubelet.follows.load(Ordering::SeqCst), 1);
    }
}

#[tokio::test(start_paused = true)]
async fn a_follow_that_is_cut_while_the_container_runs_begins_anew() {
    let kubelet = Arc::new(Kubelet { cuts: AtomicBool::new(true), ..Kubelet::default() });
    let captured = followed(&kubelet).await;
    assert_eq!(told(&captured), (Some("before\nafter\n"), LogsStatus::Complete, None));
    assert_eq!(kubelet.follows.load(Ordering::SeqCst), 2);
}

#[tokio::test(start_paused = true)]
async fn what_a_kubelet_appends_is_no_output_and_nothing_is_called_complete_then() {
    let kubelet = Arc::new(Kubelet { appends: APPENDED, ..Kubelet::default() });
    let captured = followed(&kubelet).await;
    assert_eq!(told(&captured), (Some("before\nafter\n"), LogsStatus::Partial, Some(reason::FOLLOWED)));
}

#[tokio::test(start_paused = true)]
async fn nothing_of_another_pod_or_attempt_is_followed() {
    for (uid, restarts, expected) in [("other", 0, reason::POD_REPLACED), ("uid", 1, reason::ATTEMPT_GONE)] {
        let kubelet = Arc::new(Kubelet { uid, restarts: AtomicU32::new(restarts), ..Kubelet::default() });
        let capturer = Capturer::new(Arc::clone(&kubelet), LIMITS);
        let follow = Follow::new(target("pod", "node"), Report::Auto, LIMITS);
        capturer.follow(&follow).await;
        assert_eq!(
            told(&capturer.taken(&target("pod", "node"), &follow)),
            (None, LogsStatus::Unavailable, Some(expected))
        );
    }
}

#[tokio::test(start_paused = true)]
async fn what_was_followed_so_far_can_be_had_at_any_time() {
    let kubelet = Arc::new(Kubelet::default());
    let capturer = Capturer::new(Arc::clone(&kubelet), LIMITS);
    let follow = Follow::new(target("pod", "node"), Report::Auto, LIMITS);
    assert!(timeout(Duration::from_secs(1), capturer.follow(&follow)).await.is_err(), "it runs");
    let captured = capturer.capture_gone(&target("pod", "node"), &follow).await;
    assert_eq!(told(&captured), (Some("before\n"), LogsStatus::Partial, Some(reason::FOLLOWED)));
}

#[tokio::test(start_paused = true)]
async fn more_followed_than_the_node_still_has_was_rotated_away() {
    let kubelet = Arc::new(Kubelet { forgets: false, ..Kubelet::default() });
    let capturer = Capturer::new(Arc::clone(&kubelet), LIMITS);
    let follow = Follow::new(target("pod", "node"), Report::Auto, LIMITS);
    follow.begin();
    follow.push(Stream::Stdout, b"long before that\nbefore\n");
    follow.end(false, None);
    tokio::time::sleep_until(kubelet.ends_at).await;
    let captured = capturer.capture_asked_at(&target("pod", "node"), Report::Auto, Instant::now(), Some(&follow)).await;
    let expected = (Some("long before that\nbefore\n"), LogsStatus::Partial, Some(reason::ROTATED));
    assert_eq!(told(&captured), expected);
}

#[tokio::test(start_paused = true)]
async fn followers_are_bounded_by_node_and_wait_for_no_capture() {
    let kubelet = Arc::new(Kubelet { ends_at: Instant::now() + Duration::from_secs(3600), ..Kubelet::default() });
    let capturer = Capturer::new(Arc::clone(&kubelet), LIMITS);
    let follows: Vec<_> = (0..FOLLOWS_PER_NODE_MAX + 5)
        .map(|_| Arc::new(Follow::new(target("pod", "node"), Report::Raw, LIMITS)))
        .collect();
    let mut tasks = tokio::task::JoinSet::new();
    for follow in &follows {
        let (capturer, follow) = (capturer.clone(), Arc::clone(follow));
        tasks.spawn(async move { capturer.follow(&follow).await });
    }
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(kubelet.follows.load(Ordering::SeqCst) as usize, FOLLOWS_PER_NODE_MAX);
    let captured = capturer.capture(&target("pod", "node"), Report::Raw).await;
    assert_eq!(told(&captured), (Some("before\n"), LogsStatus::Complete, None), "captures have permits of their own");
}

#[test]
fn what_a_kubelet_appends_is_found_only_at_the_very_end() {
    let with = |before: &[u8], after: &[u8]| kubelet_failure_at_end(&[before, APPENDED, after].concat());
    assert_eq!(with(b"", b""), Some(0));
    assert_eq!(with(b"out\n", b""), Some(4));
    assert_eq!(with(b"out\n", b"\n"), None);
    assert_eq!(with(APPENDED, b""), Some(APPENDED.len()));
    assert_eq!(kubelet_failure_at_end(b"\": not found"), None);
    assert!(APPENDED.len() <= KUBELET_APPENDS_MAX);
}
