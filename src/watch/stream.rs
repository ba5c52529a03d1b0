//! Keeps one watch alive for ever and tells the worker what it says, in order.
//!
//! ```text
//!   start at P ─▶ WATCH from P ─▶ lines ─▶ Notice ─▶ worker
//!        ▲            │ ends, breaks, silent: again from the last version (milliseconds, then back-off to 2 s)
//!        └─ next P ◀──┘ 410: Notice::Expired, then wait until the worker has LISTed and says from where
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
    pod::{Decoded, Pod, ResourceVersion},
};

/// Notices that may wait for the worker.
pub const NOTICES_MAX: usize = 1024;
const BACKOFF_FIRST: Duration = Duration::from_millis(10);
const BACKOFF_MAX: Duration = Duration::from_secs(2);

/// What a stream tells the worker.
#[derive(Debug)]
pub struct Notice {
    /// Index of the stream.
    pub stream: usize,
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
    Odd {
        /// `namespace/name` where known.
        name: Option<String>,
        /// Which parts are lost, or why nothing could be read.
        lost: String,
    },
    /// The resourceVersion is too old: the stream waits for a new one.
    Expired,
    /// The watch is open.
    Open,
    /// The watch ended or could not be opened; it is tried again.
    Down(Down),
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
    stream: usize,
    mut starts: mpsc::Receiver<ResourceVersion>,
    out: mpsc::Sender<Notice>,
) {
    let teller = Teller { stream, out };
    while let Some(from) = starts.recv().await {
        if follow(&pods, &scope, from, &teller).await.is_none() {
            return;
        }
    }
}

struct Teller {
    stream: usize,
    out: mpsc::Sender<Notice>,
}

impl Teller {
    /// `None`: the worker is gone.
    async fn tell(&self, kind: NoticeKind) -> Option<()> {
        self.out.send(Notice { stream: self.stream, kind }).await.ok()
    }
}

/// Watches from `from` on, over as many connections as it takes, until the version is too old.
async fn follow(pods: &Pods, scope: &Scope, mut from: ResourceVersion, teller: &Teller) -> Option<()> {
    let mut backoff = Backoff::of((pods.who(), scope.stream()));
    loop {
        let down = match pods.watch(scope, from).await {
            Ok(mut watch) => {
                teller.tell(NoticeKind::Open).await?;
                loop {
                    match watch.next().await {
                        Ok(Some(frame)) => match take(frame, &mut from, teller).await? {
                            Taken::Went => backoff.reset(),
                            Taken::Expired => return teller.tell(NoticeKind::Expired).await,
                            Taken::Down(down) => break down,
                        },
                        Ok(None) => break Down::Ended,
                        Err(error) => break Down::Failed(error),
                    }
                }
            }
            Err(Error::Expired { .. }) => return teller.tell(NoticeKind::Expired).await,
            Err(error) => Down::Failed(error),
        };
        let again_at_once = matches!(down, Down::Ended) && backoff.is_fresh();
        teller.tell(NoticeKind::Down(down)).await?;
        // The first try after an orderly end costs nothing; a server that ends watches at once is not to be hammered.
        let pause = backoff.pause();
        if !again_at_once {
            sleep(pause).await;
        }
    }
}

enum Taken {
    Went,
    Expired,
    Down(Down),
}

async fn take(frame: Frame, from: &mut ResourceVersion, teller: &Teller) -> Option<Taken> {
    match frame {
        Frame::Applied(decoded) => {
            if let Some(pod) = readable(decoded, teller).await? {
                *from = pod.metadata.resource_version.max(*from);
                teller.tell(NoticeKind::Applied { pod, arrived: Instant::now() }).await?;
            }
        }
        Frame::Deleted(decoded) => {
            if let Some(pod) = readable(decoded, teller).await? {
                *from = pod.metadata.resource_version.max(*from);
                teller.tell(NoticeKind::Deleted { pod, arrived: Instant::now() }).await?;
            }
        }
        Frame::Bookmark(version) => {
            *from = version.max(*from);
            teller.tell(NoticeKind::Progress(version)).await?;
        }
        Frame::Expired => return Some(Taken::Expired),
        Frame::Error { code, message } => return Some(Taken::Down(Down::Refused { code, message })),
        Frame::Garbled(why) => return Some(Taken::Down(Down::Garbled(why))),
    }
    Some(Taken::Went)
}

/// What can be told of a decoded pod; odd ones are reported beside. Outer `None`: the worker is gone.
async fn readable(decoded: Decoded, teller: &Teller) -> Option<Option<Box<Pod>>> {
    match decoded {
        Decoded::Whole(pod) => Some(Some(Box::new(pod))),
        Decoded::Partly { pod, lost } => {
            let name = Some(format!("{}/{}", pod.metadata.namespace, pod.metadata.name));
            teller.tell(NoticeKind::Odd { name, lost: lost.join(", ") }).await?;
            Some(Some(Box::new(pod)))
        }
        Decoded::Unreadable { name, error } => {
            teller.tell(NoticeKind::Odd { name, lost: error }).await?;
            Some(None)
        }
    }
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
    }
}
