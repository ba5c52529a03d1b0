//! The replay rig: a small HTTP server on loopback that answers LISTs and watches of pods out of the recorded life, as fast
//! as they are read, or at a given pace. The monitor's own client and worker read from it; no API server is in the way.
//!
//! ```text
//!   GET /api/v1/pods?limit&continue ─▶ pages          GET ...?watch=true ─▶ chunks of lines, then bookmarks
//! ```
//! One thread a connection; a text is written into a buffer and sent, nothing is kept.

use std::{
    io::{BufRead as _, BufReader, Write as _},
    net::{SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use anyhow::Result;

use crate::pods::{LIFE_LINES, LIST_VERSION, Life};

/// Sent at once where nothing paces it.
const CHUNK_BYTES: usize = 256 << 10;
/// Pods that live at the same time where nothing paces it: their lines come by turns, as a busy watch would bring them.
const ALIVE: usize = 500;

/// What the server has.
pub(crate) struct Script {
    pub(crate) life: Life,
    /// Pods that a LIST shows, in the state of this line.
    pub(crate) listed: usize,
    pub(crate) line: usize,
    /// Pods whose lives the watch tells, and the number of the first of them.
    pub(crate) lives: usize,
    pub(crate) first: usize,
    /// Lives that begin in a second, and how long each line waits for the next; `None`: as fast as they are read.
    pub(crate) pace: Option<Pace>,
}

/// How fast lives are told.
#[derive(Clone, Copy)]
pub(crate) struct Pace {
    pub(crate) per_second: usize,
    pub(crate) between_lines: Duration,
}

impl Script {
    /// When the line of a life is due, from the beginning of the watch.
    pub(crate) fn due(pace: Pace, n: usize, line: usize) -> Duration {
        Duration::from_secs_f64(n as f64 / pace.per_second as f64) + pace.between_lines * line as u32
    }
}

/// The running server. Its threads end with the process or when their peer goes away.
pub(crate) struct Rig {
    pub(crate) address: SocketAddr,
    /// When the first watch was opened.
    pub(crate) begun: Arc<std::sync::OnceLock<Instant>>,
    stop: Arc<AtomicBool>,
}

impl Drop for Rig {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        // Wakes the one that waits for a connection.
        drop(TcpStream::connect(self.address));
    }
}

impl Rig {
    pub(crate) fn start(script: Script) -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let address = listener.local_addr()?;
        let (begun, stop) = (Arc::new(std::sync::OnceLock::new()), Arc::new(AtomicBool::new(false)));
        let (script, ended, beginning) = (Arc::new(script), Arc::clone(&stop), Arc::clone(&begun));
        thread::Builder::new().name("rig".into()).spawn(move || {
            for connection in listener.incoming() {
                if ended.load(Ordering::Relaxed) {
                    return;
                }
                let Ok(connection) = connection else { return };
                let (script, begun, ended) = (Arc::clone(&script), Arc::clone(&beginning), Arc::clone(&ended));
                let serve = move || drop(serve(connection, &script, &begun, &ended));
                drop(thread::Builder::new().name("rig-connection".into()).spawn(serve));
            }
        })?;
        Ok(Self { address, begun, stop })
    }
}

/// Answers until the peer goes away.
fn serve(
    connection: TcpStream,
    script: &Script,
    begun: &std::sync::OnceLock<Instant>,
    stop: &AtomicBool,
) -> Result<()> {
    connection.set_nodelay(true)?;
    let mut out = connection.try_clone()?;
    let mut lines = BufReader::new(connection).lines();
    loop {
        let Some(request) = lines.next() else { return Ok(()) };
        let request = request?;
        // GETs alone come here: no body follows.
        while !lines.next().transpose()?.unwrap_or_default().is_empty() {}
        let url = request.split(' ').nth(1).unwrap_or_default();
        let parameter = |name: &str| {
            let query = url.split_once('?').map_or("", |(_, query)| query);
            query.split('&').find_map(|pair| pair.strip_prefix(name)?.strip_prefix('='))
        };
        if parameter("watch").is_some() {
            let first = begun.set(Instant::now()).is_ok();
            let began = *begun.get_or_init(Instant::now);
            return watch(&mut out, script, began, first, stop);
        }
        let body = match parameter("fieldSelector") {
            Some(_) => script.life.page(script.line, 0..0, None),
            None => {
                let from: usize = parameter("continue").and_then(|from| from.parse().ok()).unwrap_or(0);
                let limit = parameter("limit").and_then(|limit| limit.parse().ok()).unwrap_or(script.listed);
                let to = (from + limit).min(script.listed);
                script.life.page(script.line, from..to, (to < script.listed).then_some(to))
            }
        };
        let head = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: ";
        write!(out, "{head}{}\r\n\r\n{body}", body.len())?;
    }
}

fn chunk(out: &mut TcpStream, text: &str) -> Result<()> {
    write!(out, "{:x}\r\n", text.len())?;
    out.write_all(text.as_bytes())?;
    out.write_all(b"\r\n")?;
    Ok(())
}

fn watch(out: &mut TcpStream, script: &Script, began: Instant, tells: bool, stop: &AtomicBool) -> Result<()> {
    out.write_all(b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ntransfer-encoding: chunked\r\n\r\n")?;
    let mut version = LIST_VERSION;
    if tells {
        match script.pace {
            None => flood(out, script, &mut version)?,
            Some(pace) => paced(out, script, pace, began, &mut version)?,
        }
    }
    while !stop.load(Ordering::Relaxed) {
        version += 1;
        let object = format!("{{\"kind\":\"Pod\",\"metadata\":{{\"resourceVersion\":\"{version}\"}}}}");
        chunk(out, &format!("{{\"type\":\"BOOKMARK\",\"object\":{object}}}\n"))?;
        thread::sleep(Duration::from_millis(100));
    }
    out.write_all(b"0\r\n\r\n")?;
    Ok(())
}

/// As fast as it is read.
fn flood(out: &mut TcpStream, script: &Script, version: &mut u64) -> Result<()> {
    let mut text = String::with_capacity(CHUNK_BYTES + 8192);
    for first in (0..script.lives).step_by(ALIVE) {
        for line in 0..LIFE_LINES {
            for n in first..(first + ALIVE).min(script.lives) {
                *version += 1;
                script.life.line(&mut text, line, script.first + n, *version);
                if text.len() >= CHUNK_BYTES {
                    chunk(out, &text)?;
                    text.clear();
                }
            }
        }
    }
    if text.is_empty() { Ok(()) } else { chunk(out, &text) }
}

/// Each line when it is due.
fn paced(out: &mut TcpStream, script: &Script, pace: Pace, began: Instant, version: &mut u64) -> Result<()> {
    let mut next = [0; LIFE_LINES];
    let mut text = String::with_capacity(CHUNK_BYTES);
    while next[LIFE_LINES - 1] < script.lives {
        let now = began.elapsed();
        for (line, next) in next.iter_mut().enumerate() {
            while *next < script.lives && Script::due(pace, *next, line) <= now {
                *version += 1;
                script.life.line(&mut text, line, script.first + *next, *version);
                *next += 1;
            }
        }
        if !text.is_empty() {
            chunk(out, &text)?;
            text.clear();
        }
        thread::sleep(Duration::from_micros(500));
    }
    Ok(())
}
