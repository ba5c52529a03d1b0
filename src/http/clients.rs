//! How many may be connected, and for how long without a word.
//!
//! ```text
//!   TcpListener ──▶ a place left? ──────yes──▶ Client: ends when nothing moved for SILENCE_MAX
//!                     └─no─▶ the quietest of this address, or of all, is ended ──▶ its place
//! ```
//! Promises: at most [`ALL_MAX`] connections, of one address at most [`EACH_MAX`]. Who comes is let in, always: probes,
//! scrapes and the other replicas too, also where somebody holds all the connections that he can get, from their address or
//! from others. A connection gives its place back when it ends.

use std::{
    collections::BTreeMap,
    io,
    net::{IpAddr, SocketAddr},
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, ready},
    time::Duration,
};

use axum::serve::Listener;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpListener, TcpStream},
    time::{Instant, Sleep, sleep},
};
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};

/// Connections at the same time.
pub const ALL_MAX: usize = 512;
/// Connections of one address at the same time: more than the pages that may listen, since a proxy has one address for all.
pub(super) const EACH_MAX: usize = 64;
/// Longest time in which nothing is read and nothing is written: twice the pause of a slow scraper.
pub(super) const SILENCE_MAX: Duration = Duration::from_secs(120);
/// Between two lines of log about connections that were ended for others.
const SAY_EVERY: Duration = Duration::from_secs(60);

/// A listener with so many places.
#[derive(Debug)]
pub(super) struct Clients {
    listener: TcpListener,
    places: Places,
    said: Option<Instant>,
}

impl Clients {
    pub(super) fn of(listener: TcpListener) -> Self {
        Self { listener, places: Places::default(), said: None }
    }

    fn say(&mut self, ended: IpAddr, now: Instant) {
        if self.said.is_none_or(|said| now.saturating_duration_since(said) >= SAY_EVERY) {
            self.said = Some(now);
            tracing::warn!(
                address = %ended,
                all_max = ALL_MAX,
                each_max = EACH_MAX,
                "too many HTTP connections: one of this address was ended for another; keep strangers out by the NetworkPolicy"
            );
        }
    }
}

impl Listener for Clients {
    type Io = Client;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Client, SocketAddr) {
        let (stream, from) = Listener::accept(&mut self.listener).await;
        let now = Instant::now();
        let (place, ended) = self.places.take(from.ip(), now);
        ended.into_iter().for_each(|ended| self.say(ended, now));
        let over = Box::pin(sleep(SILENCE_MAX));
        let ended = Box::pin(place.end.clone().cancelled_owned());
        (Client { stream, place, over, ended }, from)
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }
}

/// Who is connected. Clones share it.
#[derive(Debug, Clone, Default)]
struct Places(Arc<Mutex<Taken>>);

#[derive(Debug, Default)]
struct Taken {
    next: u64,
    seats: BTreeMap<u64, Seat>,
}

/// One connection, as it is compared with others.
#[derive(Debug)]
struct Seat {
    address: IpAddr,
    /// When something was read or written.
    moved: Instant,
    end: CancellationToken,
}

impl Places {
    fn lock(&self) -> MutexGuard<'_, Taken> {
        // Whole after every line that changes it.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A place; and whose connection was ended for it, if any was.
    fn take(&self, address: IpAddr, now: Instant) -> (Place, Option<IpAddr>) {
        let mut taken = self.lock();
        let of_this = taken.seats.values().filter(|seat| seat.address == address).count();
        let others_too = of_this < EACH_MAX;
        let full = !others_too || taken.seats.len() >= ALL_MAX;
        let may_end = taken.seats.iter().filter(|(_, seat)| full && (others_too || seat.address == address));
        let quietest = may_end.min_by_key(|(_, seat)| seat.moved).map(|(number, _)| *number);
        let ended = quietest.and_then(|number| taken.seats.remove(&number));
        let (number, end) = (taken.next, CancellationToken::new());
        taken.next += 1;
        taken.seats.insert(number, Seat { address, moved: now, end: end.clone() });
        let ended = ended.map(|seat| {
            seat.end.cancel();
            seat.address
        });
        (Place { number, end, places: self.clone() }, ended)
    }
}

/// A place that is taken, until it is dropped or given to another.
#[derive(Debug)]
struct Place {
    number: u64,
    end: CancellationToken,
    places: Places,
}

impl Place {
    /// Whether it is still ours.
    fn moved(&self, now: Instant) -> bool {
        let mut taken = self.places.lock();
        let seat = taken.seats.get_mut(&self.number);
        seat.map(|seat| seat.moved = now).is_some()
    }

    /// When something moved last; `None`: the place was given to another.
    fn since(&self) -> Option<Instant> {
        self.places.lock().seats.get(&self.number).map(|seat| seat.moved)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.places.lock().seats.remove(&self.number);
    }
}

/// One connection.
#[derive(Debug)]
pub(super) struct Client {
    stream: TcpStream,
    place: Place,
    /// Not set anew for each byte, but when it is over and something moved meanwhile.
    over: Pin<Box<Sleep>>,
    ended: Pin<Box<WaitForCancellationFutureOwned>>,
}

impl Client {
    /// What becomes of a look at the stream: something moved, or it waits, but not for ever.
    fn bounds<T>(&mut self, looked: Poll<io::Result<T>>, context: &mut Context<'_>) -> Poll<io::Result<T>> {
        let ended = || Poll::Ready(Err(io::ErrorKind::ConnectionAborted.into()));
        if looked.is_ready() {
            // Of a page that is only written to nothing ever waits.
            return if self.place.moved(Instant::now()) { looked } else { ended() };
        }
        if self.ended.as_mut().poll(context).is_ready() {
            return ended();
        }
        loop {
            ready!(self.over.as_mut().poll(context));
            let end = self.place.since().map(|moved| moved + SILENCE_MAX);
            match end.filter(|end| *end > Instant::now()) {
                Some(end) => self.over.as_mut().reset(end),
                None => return Poll::Ready(Err(io::ErrorKind::TimedOut.into())),
            }
        }
    }
}

impl AsyncRead for Client {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let looked = Pin::new(&mut self.stream).poll_read(context, buffer);
        self.bounds(looked, context)
    }
}

impl AsyncWrite for Client {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let looked = Pin::new(&mut self.stream).poll_write(context, bytes);
        self.bounds(looked, context)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let looked = Pin::new(&mut self.stream).poll_write_vectored(context, parts);
        self.bounds(looked, context)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_bounded_in_all_and_of_each_address_and_the_quietest_makes_room() {
        let (places, begun) = (Places::default(), Instant::now());
        let address = |last: u16| {
            let [high, low] = last.to_be_bytes();
            IpAddr::from([10, 0, high, low])
        };
        let after = |ms: usize| begun + Duration::from_millis(ms as u64);
        let take = |last: u16, ms| places.take(address(last), after(ms));
        let mut of_one: Vec<Place> = (0..EACH_MAX)
            .map(|n| {
                let (place, ended) = take(0, n);
                assert_eq!(ended, None);
                place
            })
            .collect();
        // The first said something, so that the second is the quietest of them.
        assert!(of_one[0].moved(after(1000)));
        let (one_more, ended) = take(0, 1000);
        assert_eq!(ended, Some(address(0)), "one address has enough");
        let is_ended = |place: &Place| place.end.is_cancelled();
        assert_eq!(of_one.iter().position(is_ended), Some(1));
        assert_eq!(of_one.iter().filter(|place| is_ended(place)).count(), 1);
        assert!(!of_one.remove(1).moved(after(1000)), "its place is another's");
        let mut others = Vec::new();
        let ended = (1..).find_map(|last| {
            let (place, ended) = take(last, 2000);
            others.push(place);
            ended
        });
        assert_eq!((ended, places.lock().seats.len()), (Some(address(0)), ALL_MAX), "there are enough of all");
        drop((of_one, one_more, others));
        assert!(places.lock().seats.is_empty(), "nothing is kept of who left");
    }
}
