//! A process: it can be killed (nothing of it runs on), frozen (nothing of it runs until it thaws), and cut off.

use std::{
    collections::{BTreeMap, BTreeSet},
    future::{Future, poll_fn},
    pin::{Pin, pin},
    sync::{
        Mutex, MutexGuard,
        atomic::{AtomicBool, Ordering},
    },
    task::Poll,
};

use tokio::sync::Notify;

use super::{
    lock, until,
    wire::{Link, To},
};

pub struct Process {
    /// Unique per start.
    pub identity: String,
    /// Its wall clock is ahead by this.
    pub skew_ms: i64,
    to_cluster: Mutex<Link>,
    to_kafka: Mutex<Link>,
    dead: AtomicBool,
    frozen: AtomicBool,
    thaws: Notify,
    obituaries: Mutex<Obituaries>,
    obituary: Notify,
}

/// Whom it was told to be dead.
#[derive(Default)]
struct Obituaries {
    /// Rightly: whoever asks later is told so, too, since another answers at the address.
    dead: BTreeSet<Box<str>>,
    /// Wrongly, how often: only those hear it who attend just then.
    rumours: BTreeMap<Box<str>, u32>,
}

impl Obituaries {
    fn rumours(&self, who: &str) -> u32 {
        self.rumours.get(who).copied().unwrap_or_default()
    }
}

impl Process {
    pub fn new(identity: String, skew_ms: i64) -> Self {
        Self {
            identity,
            skew_ms,
            to_cluster: Mutex::default(),
            to_kafka: Mutex::default(),
            dead: AtomicBool::new(false),
            frozen: AtomicBool::new(false),
            thaws: Notify::new(),
            obituaries: Mutex::default(),
            obituary: Notify::new(),
        }
    }

    pub fn link(&self, to: To) -> MutexGuard<'_, Link> {
        match to {
            To::Cluster => lock(&self.to_cluster),
            To::Kafka => lock(&self.to_kafka),
        }
    }

    pub fn is_dead(&self) -> bool {
        self.dead.load(Ordering::Relaxed)
    }

    pub fn die(&self) {
        self.dead.store(true, Ordering::Relaxed);
        self.freeze(false);
    }

    pub fn freeze(&self, frozen: bool) {
        self.frozen.store(frozen, Ordering::Relaxed);
        self.thaws.notify_waiters();
    }

    pub fn is_frozen(&self) -> bool {
        self.frozen.load(Ordering::Relaxed)
    }

    /// Returns at once where it is not frozen.
    pub async fn thawed(&self) {
        until(&self.thaws, || !self.is_frozen()).await;
    }

    /// Both ways to both servers are as they should be.
    pub fn heal(&self) {
        *self.link(To::Cluster) = Link::default();
        *self.link(To::Kafka) = Link::default();
        self.freeze(false);
    }

    /// Of one that is dead.
    pub fn hear_of_death(&self, who: &str) {
        lock(&self.obituaries).dead.insert(who.into());
        self.obituary.notify_waiters();
    }

    /// Of one that lives.
    pub fn hear_a_rumour(&self, who: &str) {
        *lock(&self.obituaries).rumours.entry(who.into()).or_default() += 1;
        self.obituary.notify_waiters();
    }

    /// Returns when it was told that `who` is dead: all who attend it hear of it.
    pub async fn heard_of_death(&self, who: &str) {
        let known = lock(&self.obituaries).rumours(who);
        let heard = || {
            let obituaries = lock(&self.obituaries);
            obituaries.dead.contains(who) || obituaries.rumours(who) > known
        };
        until(&self.obituary, heard).await;
    }
}

/// Runs `inner` only while the process is not frozen: a frozen one does not notice that time passes.
pub async fn freezable<T>(process: &Process, inner: impl Future<Output = T>) -> T {
    let mut inner = pin!(inner);
    let mut thaw: Option<Pin<Box<dyn Future<Output = ()> + Send + '_>>> = None;
    poll_fn(|cx| {
        if process.is_frozen() {
            let thaw = thaw.get_or_insert_with(|| Box::pin(process.thawed()));
            if thaw.as_mut().poll(cx).is_pending() {
                return Poll::Pending;
            }
        }
        thaw = None;
        inner.as_mut().poll(cx)
    })
    .await
}
