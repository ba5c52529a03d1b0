//! What changes on the status page, as server-sent events: `GET /api/live`.
//!
//! ```text
//!   Board, Health ──every 250 ms, while somebody listens──▶ parts ──those that differ──▶ watch ──▶ each listener
//! ```
//! Promises: parts are rendered once for all listeners, and not at all when nobody listens; a slow listener misses states
//! between and never the newest; there are at most [`LISTENERS_MAX`], and each ends at stop.

use std::{convert::Infallible, sync::Arc, time::Duration};

use axum::body::Body;
use bytes::Bytes;
use futures::stream;
use serde_json::{Map, Value, json};
use tokio::{
    sync::{Notify, OwnedSemaphorePermit, Semaphore, watch},
    time::{Instant, MissedTickBehavior, interval, sleep_until},
};
use tokio_util::sync::CancellationToken;

use super::{page::Part, status::Status};

/// Listeners at the same time: pages that are open somewhere.
pub(super) const LISTENERS_MAX: usize = 32;
/// Between two looks at what is shown.
const LOOK_EVERY: Duration = Duration::from_millis(250);
/// Longest silence towards a listener, so that a connection that died is told from one that has no news.
const BEAT_EVERY: Duration = Duration::from_secs(2);
/// What a browser is told to wait before it connects again, in milliseconds.
const RETRY_MS: u32 = 1000;

/// What listeners are told. Clones share it.
#[derive(Debug, Clone)]
pub(super) struct Live(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    frame: watch::Sender<Frame>,
    places: Arc<Semaphore>,
    /// Somebody came.
    came: Notify,
}

/// The newest state of every part, and in which turn each became so. Empty while nobody listens.
#[derive(Debug, Clone, Default)]
struct Frame {
    turn: u64,
    parts: Arc<Vec<(u64, Part)>>,
}

impl Frame {
    /// The next one; `None` where nothing changed.
    fn next(&self, parts: Vec<Part>) -> Option<Self> {
        let turn = self.turn + 1;
        let place = |(index, part): (usize, Part)| match self.parts.get(index) {
            Some((since, known)) if *known == part => (*since, part),
            _ => (turn, part),
        };
        let parts: Vec<(u64, Part)> = parts.into_iter().enumerate().map(place).collect();
        parts.iter().any(|(since, _)| *since == turn).then(|| Self { turn, parts: Arc::new(parts) })
    }

    /// Those that are newer than this turn.
    fn since(&self, turn: u64) -> Map<String, Value> {
        let newer = self.parts.iter().filter(|(since, _)| *since > turn);
        newer.map(|(_, (id, html))| ((*id).to_owned(), Value::from(html.as_str()))).collect()
    }
}

impl Default for Live {
    fn default() -> Self {
        let places = Arc::new(Semaphore::new(LISTENERS_MAX));
        Self(Arc::new(Inner { frame: watch::Sender::new(Frame::default()), places, came: Notify::new() }))
    }
}

impl Live {
    /// Looks again and again while somebody listens. Cancel by dropping.
    pub(super) async fn run(&self, status: impl Fn() -> Status, render: fn(&Status) -> Vec<Part>) -> Infallible {
        let mut looks = interval(LOOK_EVERY);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            if self.0.frame.receiver_count() == 0 {
                // Whoever comes next is not to see what was true for the last one.
                self.0.frame.send_replace(Frame::default());
                self.0.came.notified().await;
                looks.reset_immediately();
            }
            looks.tick().await;
            let next = self.0.frame.borrow().next(render(&status()));
            if let Some(next) = next {
                self.0.frame.send_replace(next);
            }
        }
    }

    /// What one listener reads, until `stop`; `None`: there are enough.
    pub(super) fn listen(&self, stop: CancellationToken) -> Option<Body> {
        let place = Arc::clone(&self.0.places).try_acquire_owned().ok()?;
        let frames = self.0.frame.subscribe();
        self.0.came.notify_one();
        let listener = Listener { frames, turn: 0, begun: false, stop, _place: place };
        Some(Body::from_stream(stream::unfold(listener, Listener::next)))
    }
}

struct Listener {
    frames: watch::Receiver<Frame>,
    /// What it was told last.
    turn: u64,
    begun: bool,
    stop: CancellationToken,
    _place: OwnedSemaphorePermit,
}

impl Listener {
    async fn next(mut self) -> Option<(Result<Bytes, Infallible>, Self)> {
        if !self.begun {
            self.begun = true;
            return Some((Ok(Bytes::from(format!("retry: {RETRY_MS}\n\n"))), self));
        }
        let beat_at = Instant::now() + BEAT_EVERY;
        let (turn, stop) = (self.turn, self.stop.clone());
        let event = tokio::select! {
            biased;
            () = stop.cancelled() => return None,
            frame = self.frames.wait_for(|frame| frame.turn != turn && !frame.parts.is_empty()) => {
                // Its sender goes with the server.
                let frame = frame.ok()?;
                let parts = frame.since(turn);
                self.turn = frame.turn;
                event("parts", json!({ "at": now_ms(), "parts": parts }))
            }
            () = sleep_until(beat_at) => event("beat", json!({ "at": now_ms() })),
        };
        Some((Ok(event), self))
    }
}

/// JSON has no line breaks of its own: one line of data.
fn event(name: &str, data: Value) -> Bytes {
    Bytes::from(format!("event: {name}\ndata: {data}\n\n"))
}

fn now_ms() -> i64 {
    crate::clock::now().as_millisecond()
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use futures::StreamExt as _;

    use super::*;
    use crate::http::status::Shown;

    /// What is shown, and how often it was rendered.
    static RENDERED: AtomicUsize = AtomicUsize::new(0);

    fn parts(status: &Status) -> Vec<Part> {
        RENDERED.fetch_add(1, Ordering::SeqCst);
        vec![("fixed", "<p>\n</p>".to_owned()), ("changes", status.shown.version.clone())]
    }

    fn rendered() -> usize {
        RENDERED.load(Ordering::SeqCst)
    }

    struct Page {
        body: axum::body::BodyDataStream,
    }

    impl Page {
        fn open(live: &Live, stop: &CancellationToken) -> Option<Self> {
            Some(Self { body: live.listen(stop.clone())?.into_data_stream() })
        }

        async fn next(&mut self) -> Option<String> {
            let bytes = self.body.next().await?.expect("it cannot fail");
            Some(String::from_utf8(bytes.to_vec()).expect("UTF-8"))
        }

        /// The next news: parts by id, `None` for a beat.
        async fn news(&mut self) -> Option<Value> {
            let text = self.next().await.expect("it goes on");
            let (event, data) = text.split_once('\n').expect("two lines");
            let data =
                data.strip_prefix("data: ").and_then(|data| data.strip_suffix("\n\n")).expect("one line of data");
            let data: Value = serde_json::from_str(data).expect("JSON");
            assert!(data["at"].is_i64(), "{data}");
            (event == "event: parts").then(|| data["parts"].clone())
        }
    }

    /// One test: what is counted is counted for all.
    #[tokio::test(start_paused = true)]
    async fn parts_are_rendered_once_for_all_who_listen_and_only_while_somebody_does() {
        let board = crate::http::Board::new(Shown { version: "1".to_owned(), ..Shown::default() });
        let (live, stop) = (Live::default(), CancellationToken::new());
        let health = crate::http::Health::default();
        let mut runs = tokio::task::JoinSet::new();
        let (looks, shown) = (live.clone(), board.clone());
        runs.spawn(async move {
            let status = || shown.status(&health, Vec::new(), crate::clock::monotonic());
            looks.run(status, parts).await
        });
        tokio::time::advance(Duration::from_secs(60)).await;
        assert_eq!(rendered(), 0, "nobody listens");

        let mut pages: Vec<Page> = (0..LISTENERS_MAX).map(|_| Page::open(&live, &stop).expect("a place")).collect();
        assert!(Page::open(&live, &stop).is_none(), "there are enough");
        for page in &mut pages {
            assert_eq!(page.next().await.as_deref(), Some("retry: 1000\n\n"));
            assert_eq!(page.news().await, Some(json!({ "fixed": "<p>\n</p>", "changes": "1" })), "all of it first");
        }
        board.update(|shown| shown.version = "2".to_owned());
        let before = rendered();
        for page in &mut pages {
            assert_eq!(page.news().await, Some(json!({ "changes": "2" })), "then only what changed");
        }
        assert!(rendered() - before <= 2, "{} times for {LISTENERS_MAX} pages", rendered() - before);
        let quiet = Instant::now();
        assert_eq!(pages[0].news().await, None, "a sign of life");
        assert_eq!(quiet.elapsed(), BEAT_EVERY);

        // One that reads nothing for a while gets the newest, and nothing between.
        for version in ["3", "4", "5"] {
            board.update(|shown| shown.version = version.to_owned());
            tokio::time::sleep(4 * LOOK_EVERY).await;
        }
        assert_eq!(pages[1].news().await, Some(json!({ "changes": "5" })));

        pages.truncate(1);
        let mut again = Page::open(&live, &stop).expect("places are given back");
        again.next().await;
        assert_eq!(again.news().await, Some(json!({ "fixed": "<p>\n</p>", "changes": "5" })));
        stop.cancel();
        assert_eq!(again.next().await, None, "it ends at stop");
        drop((pages, again));
        tokio::time::sleep(LOOK_EVERY).await;
        let idle = rendered();
        tokio::time::sleep(Duration::from_secs(60)).await;
        assert_eq!(rendered(), idle, "nobody listens any more");
    }
}
