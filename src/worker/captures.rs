//! Captures that wait and captures under way: bounded altogether and per node, and none later than its deadline.
//!
//! Beside them the logs that are followed, of pods that are deleted while they run. Their captures wait for no turn: what
//! they hold is bounded by the followers' own limits, and what they still need the node soon has no more.
//!
//! What else is known of a failure (`evidence/`) is asked for beside its capture; of a pod that is gone, or that never ran,
//! nothing else is. The deadline counts from when the capture was asked for. What waits behind a hung node ends in time, told as
//! unavailable; what waits for another node is begun past it.

use std::{
    collections::{HashMap, VecDeque},
    sync::Arc,
    time::Duration,
};

use tokio::{
    task::{AbortHandle, JoinError, JoinSet},
    time::Instant,
};

use crate::{
    evidence::{Evidence, Found},
    lifecycle::{
        event::{Captured, LogsStatus},
        wanted::{ToFollow, Wanted},
    },
    logs::{
        Report, Target,
        capture::Capturer,
        follow::{FOLLOWS_MAX, FOLLOWS_PER_NODE_MAX, Follow},
        reason,
        streams::LogSource,
    },
    telemetry::metrics::{CaptureStatus, Metrics},
    watch::pod::{ByUid, PodUid},
};

/// Captures under way or waiting for their commit: bounds the bytes held while Kafka is away.
const OUTSTANDING_MAX: usize = 128;
/// Of them, of one node.
const OUTSTANDING_PER_NODE_MAX: usize = 16;
/// Ends at the same time of which only what others know is asked, or of which all that could be read was followed.
const WORDS_MAX: usize = 32;
/// How far into the queue to look for one of a node that has room.
const LOOK_AHEAD_MAX: usize = 1024;

type Node = Option<Box<str>>;

/// What is under way.
enum Kind {
    /// A log of this node is read.
    Reading(Node),
    /// Others are asked.
    Asking,
}

/// The captures of one worker.
pub(super) struct Captures<S> {
    capturer: Capturer<S>,
    evidence: Evidence,
    report: Report,
    metrics: Metrics,
    deadline: Duration,
    /// Logs to be read.
    queue: VecDeque<(Wanted, Instant)>,
    /// Nothing is to be read of these: no node holds them up.
    words: VecDeque<(Wanted, Instant)>,
    running: JoinSet<(PodUid, Kind, Captured)>,
    per_node: HashMap<Node, usize>,
    reading: usize,
    asking: usize,
    following: JoinSet<()>,
    /// What is followed, by pod; what its capture has taken stays until that ends.
    follows: ByUid<Followed>,
}

/// A log that is followed, and its follower, which ends with this.
struct Followed {
    follow: Arc<Follow>,
    follower: AbortHandle,
}

impl Drop for Followed {
    fn drop(&mut self) {
        self.follower.abort();
    }
}

impl<S: LogSource> Captures<S> {
    pub(super) fn new(
        capturer: Capturer<S>,
        evidence: Evidence,
        report: Report,
        metrics: Metrics,
        deadline: Duration,
    ) -> Self {
        Self {
            capturer,
            evidence,
            report,
            metrics,
            deadline,
            queue: VecDeque::new(),
            words: VecDeque::new(),
            running: JoinSet::new(),
            per_node: HashMap::new(),
            reading: 0,
            asking: 0,
            following: JoinSet::new(),
            follows: ByUid::default(),
        }
    }

    /// Follows a log from now on; does nothing where this attempt of it is followed, or where it can wait and too many are.
    pub(super) fn follow(&mut self, ToFollow { target, deleting }: ToFollow) {
        let known = self.follows.get(&target.uid).map(|followed| followed.follow.target().restart_count);
        if known.is_some_and(|restart_count| restart_count >= target.restart_count) {
            return;
        }
        let of_node = |followed: &&Followed| followed.follow.target().node_name == target.node_name;
        let is_full = self.follows.len() >= FOLLOWS_MAX / 2
            || self.follows.values().filter(of_node).count() >= FOLLOWS_PER_NODE_MAX / 2;
        if is_full && !deleting {
            return;
        }
        let uid = target.uid.clone();
        let follow = Arc::new(Follow::new(target, self.report, *self.capturer.limits()));
        let (capturer, into) = (self.capturer.clone(), Arc::clone(&follow));
        let follower = self.following.spawn(async move { capturer.follow(&into).await });
        self.follows.insert(uid, Followed { follow, follower });
    }

    /// What is followed of this attempt.
    fn followed(&self, target: &Target) -> Option<Arc<Follow>> {
        let follow = &self.follows.get(&target.uid)?.follow;
        let of = |t: &Target| (t.container.clone(), t.restart_count);
        (of(follow.target()) == of(target)).then(|| Arc::clone(follow))
    }

    /// The pod is gone: asks for what was followed of it, and for what others know of how it went, where that is wanted.
    /// False: there is nobody to ask. What was followed stays where it is bounded until there is room for it.
    pub(super) fn ask_gone(&mut self, wanted: Option<Wanted>) -> bool {
        let of_use = |w: &Wanted| self.follows.contains_key(&w.target.uid) || self.evidence.is_wanted(w);
        let asked = wanted.filter(of_use).map(|wanted| self.words.push_back((wanted, Instant::now())));
        asked.is_some()
    }

    /// What was followed to the end of its container and waits for its capture: what a successor may not find any more.
    pub(super) fn take_ended(&mut self, wanted_of: impl Fn(&PodUid) -> Option<Wanted>) -> Vec<(Wanted, Captured)> {
        let ended = self.follows.values().filter(|followed| followed.follow.is_ended());
        let wanted = ended.filter_map(|followed| wanted_of(&followed.follow.target().uid));
        let of_verdict = |wanted: Wanted| {
            let follow = self.followed(&wanted.target)?;
            let captured = self.capturer.taken(&wanted.target, &follow);
            (captured.logs.status != LogsStatus::Unavailable).then_some((wanted, captured))
        };
        wanted.filter_map(of_verdict).collect()
    }

    /// The same, with what others know of them: their verdicts rest on it.
    pub(super) async fn explained(&self, ended: Vec<(Wanted, Captured)>) -> Vec<(PodUid, Captured)> {
        let explained = ended.into_iter().map(async |(wanted, captured)| {
            let found = self.evidence.of(&wanted).await;
            (wanted.target.uid, with(captured, found))
        });
        futures::future::join_all(explained).await
    }

    /// Asks for these; the deadline counts from now.
    pub(super) fn ask(&mut self, wanted: Vec<Wanted>) {
        let now = Instant::now();
        for wanted in wanted {
            match self.followed(&wanted.target) {
                _ if wanted.no_log.is_some() => self.words.push_back((wanted, now)),
                Some(follow) => self.read(wanted, now, Some(follow)),
                None => self.queue.push_back((wanted, now)),
            }
        }
    }

    fn read(&mut self, wanted: Wanted, asked_at: Instant, follow: Option<Arc<Follow>>) {
        let (capturer, target, node) = (self.capturer.clone(), wanted.target.clone(), wanted.target.node_name.clone());
        let report = if wanted.is_init { Report::Raw } else { self.report };
        *self.per_node.entry(node.clone()).or_default() += 1;
        self.reading += 1;
        let capture = async move { capturer.capture_asked_at(&target, report, asked_at, follow.as_deref()).await };
        self.spawn(wanted, Kind::Reading(node), Some(capture));
    }

    /// Asks what others know, and takes what was followed, if anything was.
    fn ask_others(&mut self, wanted: Wanted) {
        let follow = self.follows.get(&wanted.target.uid).map(|followed| Arc::clone(&followed.follow));
        let capturer = self.capturer.clone();
        let capture = follow.map(|follow| async move { capturer.capture_gone(follow.target(), &follow).await });
        self.asking += 1;
        self.spawn(wanted, Kind::Asking, capture);
    }

    /// `capture`: what gives the output, where there is any.
    fn spawn(&mut self, wanted: Wanted, kind: Kind, capture: Option<impl Future<Output = Captured> + Send + 'static>) {
        let (metrics, evidence) = (self.metrics.clone(), self.evidence.clone());
        self.running.spawn(async move {
            let capture = async {
                let begun = Instant::now();
                let captured = capture?.await;
                metrics.capture_ended(status(captured.logs.status), begun.elapsed());
                Some(captured)
            };
            let (captured, found) = tokio::join!(capture, evidence.of(&wanted));
            let no_log = || Captured::unavailable(wanted.no_log.unwrap_or(reason::POD_GONE));
            let captured = with(captured.unwrap_or_else(no_log), found);
            (wanted.target.uid, kind, captured)
        });
    }

    /// Begins what there is room for; `held` of those that ended still wait for their commit.
    pub(super) fn begin(&mut self, held: usize) {
        while self.asking < WORDS_MAX {
            // Bytes that were followed are counted there until there is room for them here.
            let has_bytes = |(w, _): &(Wanted, Instant)| self.follows.contains_key(&w.target.uid);
            let is_full = self.reading + held >= OUTSTANDING_MAX;
            let Some((wanted, _)) = self.words.pop_front_if(|first| !is_full || !has_bytes(first)) else { break };
            self.ask_others(wanted);
        }
        while self.reading + held < OUTSTANDING_MAX {
            let room = |(wanted, _): &(Wanted, Instant)| {
                self.per_node.get(&wanted.target.node_name).copied().unwrap_or(0) < OUTSTANDING_PER_NODE_MAX
            };
            let Some(at) = self.queue.iter().take(LOOK_AHEAD_MAX).position(room) else { return };
            let Some((wanted, asked_at)) = self.queue.remove(at) else { return };
            self.read(wanted, asked_at, None);
        }
    }

    /// The next capture that has ended; `None` when none is under way. Cancelling loses nothing.
    pub(super) async fn next(&mut self) -> Option<Result<(PodUid, Captured), JoinError>> {
        let ended = loop {
            tokio::select! {
                biased;
                Some(ended) = self.running.join_next() => break ended,
                Some(followed) = self.following.join_next() => match followed {
                    Err(error) if !error.is_cancelled() => return Some(Err(error)),
                    // What it followed waits for its capture; or nobody wants it any more.
                    _ => {}
                },
                else => return None,
            }
        };
        Some(ended.map(|(uid, kind, captured)| {
            match kind {
                Kind::Asking => self.asking -= 1,
                Kind::Reading(node) => {
                    self.reading -= 1;
                    if let Some(count) = self.per_node.get_mut(&node) {
                        *count -= 1;
                        if *count == 0 {
                            self.per_node.remove(&node);
                        }
                    }
                }
            }
            self.follows.remove(&uid);
            (uid, captured)
        }))
    }

    /// Those that waited until their deadline: no end is held back for longer. Of who waited for a node others are still
    /// asked.
    pub(super) fn overdue(&mut self) -> Vec<(PodUid, Captured)> {
        let (deadline, mut overdue) = (self.deadline, Vec::new());
        let is_over = |(_, asked): &mut (Wanted, Instant)| asked.elapsed() >= deadline;
        // Asked for in this order, so the oldest stand in front. What was followed waits for room, and is not lost.
        let has_bytes = |(w, _): &(Wanted, Instant)| self.follows.contains_key(&w.target.uid);
        while let Some((wanted, _)) = self.words.pop_front_if(|first| is_over(first) && !has_bytes(first)) {
            let no_log = wanted.no_log.unwrap_or(reason::POD_GONE);
            overdue.push((wanted.target.uid, Captured::unavailable(no_log)));
        }
        while let Some((wanted, asked)) = self.queue.pop_front_if(is_over) {
            self.metrics.capture_ended(CaptureStatus::Unavailable, asked.elapsed());
            if self.evidence.is_wanted(&wanted) {
                self.words.push_back((Wanted { no_log: Some(reason::DEADLINE), ..wanted }, Instant::now()));
            } else {
                overdue.push((wanted.target.uid, Captured::unavailable(reason::DEADLINE)));
            }
        }
        overdue
    }
}

fn with(captured: Captured, Found { events: kubernetes_events, owner_says }: Found) -> Captured {
    Captured { kubernetes_events, owner_says, ..captured }
}

fn status(status: LogsStatus) -> CaptureStatus {
    match status {
        LogsStatus::Complete => CaptureStatus::Complete,
        LogsStatus::Truncated => CaptureStatus::Truncated,
        LogsStatus::Partial => CaptureStatus::Partial,
        LogsStatus::Unavailable => CaptureStatus::Unavailable,
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::timeout;

    use super::*;
    use crate::logs::{
        Limits,
        streams::{Chunks, Error, Holder, LogRequest},
    };

    /// A source whose nodes never answer, but for pods called `good`.
    struct Hung;

    impl LogSource for Hung {
        async fn read(&self, request: &LogRequest<'_>) -> Result<Chunks, Error> {
            if request.pod_name != "good" {
                std::future::pending::<()>().await;
            }
            Ok(Box::pin(futures::stream::empty()))
        }

        async fn holder(&self, _: &str, _: &str, _: &str) -> Result<Option<Holder>, Error> {
            Ok(None)
        }
    }

    fn wanted(n: usize, node: &str, pod_name: &str) -> Wanted {
        Wanted { target: target(n, node, pod_name), no_log: None, is_init: false, failed: true, job: None }
    }

    fn target(n: usize, node: &str, pod_name: &str) -> Target {
        Target {
            uid: PodUid(n.to_string().into()),
            namespace: "runs".into(),
            pod_name: pod_name.into(),
            node_name: Some(node.into()),
            container: "main".into(),
            restart_count: 0,
            termination_message: None,
        }
    }

    fn captures(deadline: Duration) -> Captures<Hung> {
        let limits = Limits {
            log_bytes_max: 1024,
            encoded_bytes_max: 4096,
            capture_deadline: deadline,
            captures_max: 32,
            captures_per_node_max: 8,
        };
        Captures::new(Capturer::new(Hung, limits), Evidence::none(), Report::Raw, Metrics::new(), deadline)
    }

    #[tokio::test(start_paused = true)]
    async fn a_capture_that_waited_for_its_turn_has_only_the_rest_of_its_time() {
        let deadline = Duration::from_secs(30);
        let mut captures = captures(deadline);
        let asked_at = Instant::now();
        captures.ask(vec![wanted(0, "hung", "bad")]);
        // No room until now: what is held for Kafka leaves none.
        captures.begin(OUTSTANDING_MAX);
        tokio::time::advance(Duration::from_secs(20)).await;
        captures.begin(0);
        let (_, captured) = captures.next().await.expect("one is under way").expect("it does not panic");
        assert_eq!(captured.logs.reason.as_deref(), Some(reason::DEADLINE));
        assert!(asked_at.elapsed() <= deadline, "told after {:?}", asked_at.elapsed());
    }

    #[tokio::test(start_paused = true)]
    async fn a_hung_node_holds_back_neither_other_nodes_nor_its_own_ends_beyond_the_deadline() {
        let deadline = Duration::from_secs(30);
        let mut captures = captures(deadline);
        captures.ask((0..500).map(|n| wanted(n, "hung", "bad")).collect());
        captures.ask(vec![wanted(500, "healthy", "good")]);
        let begun = Instant::now();
        captures.begin(0);
        let (first, captured) = captures.next().await.expect("one is under way").expect("it does not panic");
        assert_eq!((&*first.0, captured.logs.status), ("500", LogsStatus::Complete));
        assert!(begun.elapsed() < Duration::from_secs(1), "the healthy node did not wait");
        tokio::time::advance(deadline).await;
        let overdue = captures.overdue();
        assert_eq!(overdue.len(), 500 - OUTSTANDING_PER_NODE_MAX, "all that waited end at the deadline");
        assert_eq!(overdue[0].1.logs.reason.as_deref(), Some(reason::DEADLINE));
    }

    #[tokio::test(start_paused = true)]
    async fn what_was_followed_to_its_end_is_there_for_a_release_and_waits_for_no_turn() {
        let deadline = Duration::from_secs(30);
        let mut captures = captures(deadline);
        captures.follow(ToFollow { target: target(0, "hung", "good"), deleting: true });
        captures.follow(ToFollow { target: target(1, "hung", "bad"), deleting: true });
        assert!(timeout(Duration::from_secs(5), captures.next()).await.is_err(), "nothing is captured yet");
        // One has ended and the other has not.
        let verdict =
            |uid: &PodUid| Some(wanted(uid.0.parse().ok()?, "hung", if &*uid.0 == "0" { "good" } else { "bad" }));
        let ended = captures.take_ended(verdict);
        let ended = captures.explained(ended).await;
        assert_eq!(
            ended.iter().map(|(uid, captured)| (&*uid.0, captured.logs.status)).collect::<Vec<_>>(),
            [("0", LogsStatus::Complete)]
        );
        // The node's turns are all taken.
        captures.ask((10..10 + OUTSTANDING_PER_NODE_MAX + 5).map(|n| wanted(n, "hung", "bad")).collect());
        captures.begin(0);
        captures.follow(ToFollow { target: target(2, "hung", "good"), deleting: true });
        assert!(timeout(Duration::from_secs(5), captures.next()).await.is_err());
        captures.ask(vec![wanted(2, "hung", "good")]);
        let (uid, captured) = captures.next().await.expect("one is under way").expect("it does not panic");
        assert_eq!((&*uid.0, captured.logs.status), ("2", LogsStatus::Complete));
        // Gone without a verdict: what came until now.
        let gone = |n: usize| Some(Wanted { no_log: Some(reason::POD_GONE), ..wanted(n, "hung", "bad") });
        assert!(captures.ask_gone(gone(1)) && !captures.ask_gone(gone(2)) && !captures.ask_gone(None));
        // No room for its bytes yet: they stay where they are counted, for as long as it takes.
        captures.begin(OUTSTANDING_MAX);
        tokio::time::advance(deadline * 2).await;
        assert!(captures.follows.contains_key(&PodUid("1".into())));
        captures.overdue();
        captures.begin(0);
        let told = loop {
            let (uid, captured) = captures.next().await.expect("one is under way").expect("it does not panic");
            if &*uid.0 == "1" {
                break captured;
            }
        };
        assert_eq!(told.logs.status, LogsStatus::Unavailable, "nothing had come of it");
    }

    #[tokio::test(start_paused = true)]
    async fn logs_that_can_wait_leave_half_of_the_room_to_those_that_cannot() {
        let mut captures = captures(Duration::from_secs(30));
        let mut follow = |n: usize, node: &str, deleting: bool| {
            captures.follow(ToFollow { target: target(n, node, "bad"), deleting });
            captures.follows.contains_key(&PodUid(n.to_string().into()))
        };
        let running = |n: usize| format!("node-{}", n % 3);
        let of_one_node = (0..1000).filter(|n| follow(*n, "node", false)).count();
        assert_eq!(of_one_node, FOLLOWS_PER_NODE_MAX / 2);
        let of_others = (1000..2000).filter(|n| follow(*n, &running(*n), false)).count();
        assert_eq!(of_one_node + of_others, FOLLOWS_MAX / 2);
        assert!(follow(2000, "node", true), "it cannot wait");
        // One that could not be followed while it ran is when it is deleted.
        assert!(!follow(2001, "other", false) && follow(2001, "other", true));
    }
}
