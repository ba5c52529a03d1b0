//! The death notice: a standby keeps one connection open to the holder, and the holder's kernel closes it when the
//! process dies, however it dies.
//!
//! ```text
//!   connect ─▶ POST /instance ─▶ "instance: <identity>\n", and then nothing, as long as it lives
//!              "lag=0\nkafka=1 peer=<us> rules=<hash>\n" every second: whether and how we would get on in its place
//!      closed ─▶ connect again ─▶ refused, or another identity: dead
//!                              ─▶ the same identity: it lives, the connection was cut
//!                              ─▶ no answer: silence, not death; the Lease runs out by itself
//! ```
//! By a refusal only a holder whose connection once stood can be declared dead: a firewall that refuses from the start is
//! not death. Another identity is proof by itself: a container that was restarted answers at its dead self's address.
//! A wrong notice costs a change of hands, never correctness (the fence).

use std::{
    collections::BTreeMap,
    io,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use futures::{
    FutureExt as _,
    future::{BoxFuture, WeakShared},
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::{MissedTickBehavior, interval, sleep, timeout},
};

use super::{elector::Attend, peers::Peers};

/// The path that names the instance.
pub const PATH: &str = "/instance";
/// How long a connection and its first answer may take.
const ANSWER_MAX: Duration = Duration::from_secs(1);
/// Between two reports of ours.
const REPORT_INTERVAL: Duration = Duration::from_secs(1);
/// Between two tries to reach a holder that does not answer.
const PAUSE: Duration = Duration::from_millis(500);
/// Between two connections to a holder that lives: something on the way cuts them.
const PAUSE_ALIVE: Duration = Duration::from_millis(100);
/// A dying process's connections are closed one after the other, its listening socket perhaps later than ours: it is
/// asked again so often without that pause.
const DYING_LOOKS: u32 = 50;
/// Between these.
const PAUSE_DYING: Duration = Duration::from_millis(2);
/// Longest answer that is read before the identity must have come.
const ANSWER_BYTES_MAX: usize = 4096;

/// Who attends the holder.
#[derive(Debug, Clone)]
pub struct Attendant {
    /// Our identity.
    pub me: Box<str>,
    /// What we say of ourselves.
    pub peers: Peers,
}

/// Attends holders over the network.
pub fn by_connection(us: Attendant) -> Attend {
    Arc::new(move |address, identity| {
        let us = us.clone();
        Box::pin(async move { of(&address, &identity, &us).await })
    })
}

/// One connection to each holder, however many of its Leases are watched. It ends with the last of those who attend.
pub fn shared(attend: Attend) -> Attend {
    type UnderWay = BTreeMap<(Box<str>, Box<str>), WeakShared<BoxFuture<'static, ()>>>;
    let under_way: Mutex<UnderWay> = Mutex::default();
    Arc::new(move |address, identity| {
        let mut under_way = under_way.lock().unwrap_or_else(PoisonError::into_inner);
        // What was dropped by all, or came long ago.
        under_way.retain(|_, notice| notice.upgrade().is_some_and(|notice| notice.peek().is_none()));
        let key = (address.clone(), identity.clone());
        let known = under_way.get(&key).and_then(WeakShared::upgrade);
        let notice = known.unwrap_or_else(|| {
            let notice = attend(address, identity).shared();
            under_way.extend(notice.downgrade().map(|weak| (key, weak)));
            notice
        });
        notice.boxed()
    })
}

/// Returns when the instance `identity` at `address` is dead. Cancel by dropping.
pub async fn of(address: &str, identity: &str, us: &Attendant) {
    let mut stood = false;
    loop {
        match attend(address, identity, us, &mut stood).await {
            Outcome::Dead => return,
            Outcome::Cut => sleep(PAUSE_ALIVE).await,
            Outcome::Silent => sleep(PAUSE).await,
        }
    }
}

#[derive(Debug, PartialEq)]
enum Outcome {
    /// Nobody, or somebody else, listens where it did.
    Dead,
    /// The connection stood and was closed.
    Cut,
    /// Nothing is known.
    Silent,
}

/// One connection, from its opening to its end.
async fn attend(address: &str, identity: &str, us: &Attendant, stood: &mut bool) -> Outcome {
    let mut stream = match timeout(ANSWER_MAX, TcpStream::connect(address)).await {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) if error.kind() == io::ErrorKind::ConnectionRefused && *stood => return Outcome::Dead,
        Ok(Err(_)) | Err(_) => return Outcome::Silent,
    };
    match timeout(ANSWER_MAX, ask(&mut stream, address)).await {
        Ok(Ok(answered)) if answered == identity => *stood = true,
        Ok(Ok(_)) => return Outcome::Dead,
        // Closed before it answered: it is starting or ending. Refused next, if it was ending.
        Ok(Err(_)) if *stood => return Outcome::Cut,
        Ok(Err(_)) | Err(_) => return Outcome::Silent,
    }
    keep(stream, us).await;
    // At once: the answer to this one is the notice.
    for _ in 0..DYING_LOOKS {
        match look_again(address, identity).await {
            Some(outcome) => return outcome,
            None => sleep(PAUSE_DYING).await,
        }
    }
    Outcome::Cut
}

/// Who listens after the connection was closed; `None`: we were taken in, and the connection ended before an answer.
async fn look_again(address: &str, identity: &str) -> Option<Outcome> {
    let mut stream = match timeout(ANSWER_MAX, TcpStream::connect(address)).await {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) if error.kind() == io::ErrorKind::ConnectionRefused => return Some(Outcome::Dead),
        Ok(Err(_)) | Err(_) => return Some(Outcome::Silent),
    };
    match timeout(ANSWER_MAX, ask(&mut stream, address)).await {
        Ok(Ok(answered)) if answered != identity => Some(Outcome::Dead),
        Ok(Err(_)) => None,
        Ok(Ok(_)) | Err(_) => Some(Outcome::Cut),
    }
}

/// Reports until the connection ends.
async fn keep(mut stream: TcpStream, us: &Attendant) {
    let (mut read, mut write) = stream.split();
    let ended = async {
        let mut rest = [0; 64];
        // Whatever else it says, only the end of the connection matters.
        while let Ok(1..) = read.read(&mut rest).await {}
    };
    let reporting = async {
        let mut reports = interval(REPORT_INTERVAL);
        reports.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            reports.tick().await;
            let line = us.peers.report(&us.me, tokio::time::Instant::now());
            let chunk = format!("{:x}\r\n{line}\r\n", line.len());
            if write.write_all(chunk.as_bytes()).await.is_err() {
                return;
            }
        }
    };
    tokio::select! {
        () = ended => {}
        () = reporting => {}
    }
}

/// Asks who listens; the connection stays open.
async fn ask(stream: &mut TcpStream, address: &str) -> io::Result<String> {
    stream.set_nodelay(true)?;
    let request = format!("POST {PATH} HTTP/1.1\r\nhost: {address}\r\ntransfer-encoding: chunked\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut read = Vec::with_capacity(512);
    loop {
        if let Some(identity) = identity(&read) {
            return Ok(identity);
        }
        if read.len() > ANSWER_BYTES_MAX {
            return Err(io::Error::other("no identity in the answer"));
        }
        if stream.read_buf(&mut read).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    }
}

/// The identity in an answer, once it is whole: the line `instance: <identity>` of its body, in whatever chunks.
fn identity(answer: &[u8]) -> Option<String> {
    const MARK: &[u8] = b"instance: ";
    let at = answer.windows(MARK.len()).position(|window| window == MARK)? + MARK.len();
    let end = answer[at..].iter().position(|byte| *byte == b'\n')?;
    Some(String::from_utf8_lossy(&answer[at..at + end]).into_owned())
}

/// What the holder answers first.
pub fn line(identity: &str) -> String {
    format!("instance: {identity}\n")
}

#[cfg(test)]
#[path = "notice_tests.rs"]
mod tests;
