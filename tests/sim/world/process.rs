//! A process: it can be killed (nothing of it runs on), frozen (nothing of it runs until it thaws), and cut off.

use std::{
    collections::BTreeSet,
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
    /// Whom it was told to be dead, rightly or not.
    obituaries: Mutex<BTreeSet<Box<str>>>,
    obituary: Notify,
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

    pub fn hear_of_death(&self, who: &str) {
        lock(&self.obituaries).insert(who.into());
        self.obituary.notify_waiters();
    }

    /// Returns when it was told that `who` is dead: once each time.
    pub async fn heard_of_death(&self, who: &str) {
        until(&self.obituary, || lock(&self.obituaries).remove(who)).await;
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
