//! Keeps one watch alive for ever and tells the worker what it says, in order.
//!
//! ```text
//!   start at P ─▶ WATCH from P ─▶ lines ─▶ Notice ─▶ worker
//!        ▲            │ ends, breaks, silent: again from the last version (milliseconds, then back-off to 2 s)
//!        └─ next P ◀──┘ 410, or a line that stays unreadable: Notice::Expired, then wait until the worker has LISTed
//!                       and says from where
//! ```
//! It never stops reading for Kafka or logs: the worker always takes notices and coalesces by pod.

use std::{
    hash::{DefaultHasher, Hash, Hasher as _},
    time::Duration,
};

use tokio::{
    sync::mpsc,
    time::{Instant, sleep},
};

use super::{
    api::{Error, Pods, Scope},
    frame::Frame,
    pod::{Decoded, Odd, Pod, ResourceVersion},
};

/// Notices that may wait for the worker.
pub const NOTICES_MAX: usize = 1024;
const BACKOFF_FIRST: Duration = Duration::from_millis(10);
const BACKOFF_MAX: Duration = Duration::from_secs(2);
/// Unreadable lines in a row, without any progress, after which the server is taken to repeat them for ever.
const GARBLED_MAX: u32 = 3;

/// What a stream tells the worker.
#[derive(Debug)]
pub struct Notice {
    /// Index of the stream.
    pub stream: usize,
    /// Which of its watches: one whose store was reset is replaced, and not listened to any more.
    pub era: u32,
    /// What it says.
    pub kind: NoticeKind,
}

/// What a stream says.
#[derive(Debug)]
pub enum NoticeKind {
    /// A pod as it is now.
    Applied {
        /// The pod.
        pod: Box<Pod>,
        /// When its line was read.
        arrived: Instant,
    },
    /// A pod that is gone from the selection, with its last state.
    Deleted {
        /// The pod.
        pod: Box<Pod>,
        /// When its line was read.
        arrived: Instant,
    },
    /// Everything up to here has been sent.
    Progress(ResourceVersion),
    /// A pod that could not be read whole: counted and logged; told as far as possible by its own notice.
    Odd(Odd),
    /// The resourceVersion is of no use any more: the stream waits for a new one.
    Expired(Expiry),
    /// The watch is open.
    Open,
    /// The watch ended or could not be opened; it is tried again.
    Down(Down),
}

/// Why no watch can go on from a resourceVersion.
#[derive(Debug)]
pub enum Expiry {
    /// 410: the server does not keep that far back.
    TooOld,
    /// What comes next cannot be read, however often it is asked for.
    Garbled(String),
    /// The server's store has not come so far: it was reset, and a watch would be silent until it has.
    Ahead,
}

/// Why a watch is not open.
#[derive(Debug)]
pub enum Down {
    /// The server ended it, as it does after its time.
    Ended,
    /// A line that is no watch event.
    Garbled(String),
    /// An ERROR event.
    Refused {
        /// HTTP-like code.
        code: u16,
        /// The server's words.
        message: String,
    },
    /// It failed.
    Failed(Error),
}

/// Runs until the worker stops listening. `starts` says from where: at first, and after each [`NoticeKind::Expired`].
pub async fn run(
    pods: Pods,
    scope: Scope,
    (stream, era): (usize, u32),
    mut starts: mpsc::Receiver<ResourceVersion>,
    out: mpsc::Sender<Notice>,
) {
    let teller = Teller { stream, era, out };
    let mut trouble = Trouble::of((pods.who(), scope.stream()));
    while let Some(from) = starts.recv().await {
        let Some(expiry) = follow(&pods, &scope, from, &teller, &mut trouble).await else { return };
        // Each asks for a LIST of everything: a server on whose LISTs no watch can follow is not to be hammered.
        sleep(trouble.positions.pause_unless_fresh()).await;
        if teller.tell(NoticeKind::Expired(expiry)).await.is_none() {
            return;
        }
    }
}

/// What keeps a stream from getting on. Pure.
#[derive(Debug)]
struct Trouble {
    /// Between two connections.
    connections: Backoff,
    /// Between two positions that were of no use.
    positions: Backoff,
    /// Unreadable lines since the last progress.
    garbled: u32,
}

impl Trouble {
    fn of(who: impl Hash) -> Self {
        let salt = hash(who);
        Self { connections: Backoff::of((salt, 0)), positions: Backoff::of((salt, 1)), garbled: 0 }
    }

    /// A line was understood; it may have brought the position forward.
    fn went(&mut self, forward: bool) {
        self.connections.reset();
        if forward {
            self.positions.reset();
            self.garbled = 0;
        }
    }

    /// A line was not understood. Whether that has been tried often enough.
    fn garbled(&mut self) -> bool {
        self.garbled += 1;
        let enough = self.garbled >= GARBLED_MAX;
        self.garbled %= GARBLED_MAX;
        enough
    }
}

struct Teller {
    stream: usize,
    era: u32,
    out: mpsc::Sender<Notice>,
}

impl Teller {
    /// `None`: the worker is gone.
    async fn tell(&self, kind: NoticeKind) -> Option<()> {
        self.out.send(Notice { stream: self.stream, era: self.era, kind }).await.ok()
    }
}

/// Watches from `from` on, over as many connections as it takes, until that leads nowhere. `None`: the worker is gone.
async fn follow(
    pods: &Pods,
    scope: &Scope,
    mut from: ResourceVersion,
    teller: &Teller,
    trouble: &mut Trouble,
) -> Option<Expiry> {
    let mut in_doubt = false;
    loop {
        let begun = from;
        let down = match pods.watch(scope, from).await {
            Ok(_) if in_doubt && is_ahead(pods, scope, from).await => return Some(Expiry::Ahead),
            Ok(mut watch) => {
                teller.tell(NoticeKind::Open).await?;
                loop {
                    let before = from;
                    match watch.next().await {
                        Ok(Some(frame)) => match take(pods, scope, frame, &mut from, teller).await? {
                            Taken::Went => trouble.went(from > before),
                            Taken::Expired => return Some(Expiry::TooOld),
                            Taken::Down(Down::Garbled(why)) if trouble.garbled() => return Some(Expiry::Garbled(why)),
                            Taken::Down(down) => break down,
                        },
                        Ok(None) => break Down::Ended,
                        Err(error) => break Down::Failed(error),
                    }
                }
            }
            Err(Error::Expired { .. }) => return Some(Expiry::TooOld),
            Err(error) => Down::Failed(error),
        };
        in_doubt = from == begun || !matches!(down, Down::Ended);
        // The first try after an orderly end costs nothing; a server that ends watches at once is not to be hammered.
        let pause = match down {
            Down::Ended => trouble.connections.pause_unless_fresh(),
            _ => trouble.connections.pause(),
        };
        teller.tell(NoticeKind::Down(down)).await?;
        sleep(pause).await;
    }
}

/// Whether the store is proved to be behind what was seen of it. A watch from there opens and says nothing at all.
async fn is_ahead(pods: &Pods, scope: &Scope, from: ResourceVersion) -> bool {
    // No answer proves nothing, and the watch may work all the same: the next one without progress asks again.
    pods.version(scope).await.is_ok_and(|version| version < from)
}

enum Taken {
    Went,
    Expired,
    Down(Down),
}

type AsNotice = fn(Box<Pod>, Instant) -> NoticeKind;

/// Outer `None`: the worker is gone.
async fn take(pods: &Pods, scope: &Scope, frame: Frame, from: &mut ResourceVersion, teller: &Teller) -> Option<Taken> {
    let arrived = Instant::now();
    let (decoded, as_notice): (Decoded, AsNotice) = match frame {
        Frame::Applied(decoded) => (decoded, |pod, arrived| NoticeKind::Applied { pod, arrived }),
        Frame::Deleted(decoded) => (decoded, |pod, arrived| NoticeKind::Deleted { pod, arrived }),
        Frame::Bookmark(version) => {
            *from = version.max(*from);
            teller.tell(NoticeKind::Progress(version)).await?;
            return Some(Taken::Went);
        }
        Frame::Expired => return Some(Taken::Expired),
        Frame::Error { code, message } => return Some(Taken::Down(Down::Refused { code, message })),
        Frame::Garbled(why) => return Some(Taken::Down(Down::Garbled(why))),
    };
    if !pods.is_ours(scope, &decoded) {
        // Of no interest, but seen: the watch goes on from behind it. Bookmarks say how far it is.
        *from = decoded.metadata().map_or(*from, |metadata| metadata.resource_version.max(*from));
        return Some(Taken::Went);
    }
    let (pod, odd) = decoded.split();
    if let Some(odd) = odd {
        teller.tell(NoticeKind::Odd(odd)).await?;
    }
    if let Some(pod) = pod {
        *from = pod.metadata.resource_version.max(*from);
        teller.tell(as_notice(pod, arrived)).await?;
    }
    Some(Taken::Went)
}

/// 10 ms, doubled to 2 s, each less up to a quarter so that replicas do not fall into step.
#[derive(Debug)]
pub struct Backoff {
    salt: u64,
    tries: u32,
}

impl Backoff {
    /// Of one who pauses. Two of them pause differently; the same one always alike, so that a simulated run replays.
    pub fn of(who: impl Hash) -> Self {
        Self { salt: hash(who), tries: 0 }
    }

    /// It worked: the next pause is the first.
    pub fn reset(&mut self) {
        self.tries = 0;
    }

    /// No pause was asked for since the last success.
    pub fn is_fresh(&self) -> bool {
        self.tries == 0
    }

    /// The next pause, but none before the first try.
    pub fn pause_unless_fresh(&mut self) -> Duration {
        let fresh = self.is_fresh();
        let pause = self.pause();
        if fresh { Duration::ZERO } else { pause }
    }

    /// The next pause.
    pub fn pause(&mut self) -> Duration {
        let full = BACKOFF_FIRST.saturating_mul(1 << self.tries.min(8)).min(BACKOFF_MAX);
        self.tries = self.tries.saturating_add(1);
        full - full.mul_f64((hash((self.salt, self.tries)) % 256) as f64 / 1024.0)
    }
}

fn hash(value: impl Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    value.hash(&mut hasher);
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn backoff_starts_in_milliseconds_and_ends_at_two_seconds() {
        let pauses = |who: &str| -> Vec<Duration> {
            let mut backoff = Backoff::of(who);
            (0..12).map(|_| backoff.pause()).collect()
        };
        assert_eq!(pauses("me"), pauses("me"));
        assert_ne!(pauses("me"), pauses("another"), "replicas do not fall into step");
        let mut backoff = Backoff::of("me");
        assert!(backoff.is_fresh());
        let pauses: Vec<Duration> = (0..12).map(|_| backoff.pause()).collect();
        assert!(pauses[0] <= BACKOFF_FIRST && pauses[0] >= BACKOFF_FIRST.mul_f64(0.75));
        assert!(pauses[11] <= BACKOFF_MAX && pauses[11] >= BACKOFF_MAX.mul_f64(0.75));
        assert!(!backoff.is_fresh());
        backoff.reset();
        assert_eq!(backoff.pause(), pauses[0]);
        let mut backoff = Backoff::of("me");
        assert_eq!(backoff.pause_unless_fresh(), Duration::ZERO);
        assert!(backoff.pause_unless_fresh() >= BACKOFF_FIRST);
    }

    #[test]
    fn a_position_is_given_up_after_garbled_lines_in_a_row_without_progress() {
        let mut trouble = Trouble::of("me");
        let tries = |trouble: &mut Trouble| (0..7).map(|_| trouble.garbled()).collect::<Vec<bool>>();
        assert_eq!(tries(&mut trouble), [false, false, true, false, false, true, false], "and once more after a LIST");
        trouble.went(false);
        assert!(!trouble.garbled() && trouble.garbled(), "a line that repeats what is known is no progress");
        assert!(!trouble.garbled() && !trouble.garbled());
        trouble.went(true);
        assert!(!trouble.garbled() && !trouble.garbled() && trouble.garbled(), "progress begins the count anew");
    }

    #[test]
    fn only_progress_ends_the_pauses_between_useless_positions() {
        let mut trouble = Trouble::of("me");
        trouble.positions.pause();
        trouble.went(false);
        assert!(!trouble.positions.is_fresh());
        trouble.went(true);
        assert!(trouble.positions.is_fresh());
    }
}
