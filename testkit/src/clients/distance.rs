//! A server that is some way off: each byte comes out so much later than it went in, however many are on their way, as
//! behind a network. Nothing is lost, and nothing is throttled as long as the machine keeps up.

use std::{
    io::{Read, Write},
    net::{Shutdown, SocketAddr, TcpListener, TcpStream, ToSocketAddrs},
    sync::mpsc::{Receiver, SyncSender, sync_channel},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};

/// Pieces on their way in one direction of a connection: who sends more of them waits.
const PIECES_MAX: usize = 4096;
const PIECE_BYTES: usize = 64 << 10;

/// When it is due, and what.
type Piece = (Instant, Vec<u8>);

/// Listens at `at` (port 0: a free one) and passes everything on to `target` and back, each way this much later. Lives until
/// the process ends; gives where it listens.
///
/// # Errors
/// When the address cannot be had.
pub fn open(at: impl ToSocketAddrs, target: &str, one_way: Duration) -> Result<SocketAddr> {
    let listener = TcpListener::bind(at).context("listen for connections to a server that is some way off")?;
    let (address, target) = (listener.local_addr()?, target.to_owned());
    thread::Builder::new().name("distance".into()).spawn(move || {
        // A client that was gone before it was taken in, or too many open files for a moment.
        for client in listener.incoming().flatten() {
            // A server that is not there is seen by the client as a connection that ends.
            drop(connect(&client, &target, one_way));
        }
    })?;
    Ok(address)
}

fn connect(client: &TcpStream, target: &str, one_way: Duration) -> Result<()> {
    let server = TcpStream::connect(target)?;
    for (from, to) in [(client, &server), (&server, client)] {
        to.set_nodelay(true)?;
        let (pieces_in, pieces) = sync_channel(PIECES_MAX);
        let (from, to) = (from.try_clone()?, to.try_clone()?);
        thread::Builder::new().name("distance-in".into()).spawn(move || take(from, &pieces_in, one_way))?;
        thread::Builder::new().name("distance-out".into()).spawn(move || give(to, &pieces))?;
    }
    Ok(())
}

fn take(mut from: TcpStream, pieces: &SyncSender<Piece>, one_way: Duration) {
    let mut bytes = vec![0; PIECE_BYTES];
    // Either end closing is the normal end of a connection.
    while let Ok(count @ 1..) = from.read(&mut bytes) {
        if pieces.send((Instant::now() + one_way, bytes[..count].to_vec())).is_err() {
            break;
        }
    }
}

fn give(mut to: TcpStream, pieces: &Receiver<Piece>) {
    for (due, bytes) in pieces {
        thread::sleep(due.saturating_duration_since(Instant::now()));
        if to.write_all(&bytes).is_err() {
            break;
        }
    }
    // What is on its way back still comes.
    drop(to.shutdown(Shutdown::Write));
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE_WAY: Duration = Duration::from_millis(100);
    const BYTES: usize = 50;

    /// A client of a server that sends back whatever comes.
    fn client_of_echo() -> TcpStream {
        let server = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let target = server.local_addr().expect("bound").to_string();
        thread::spawn(move || {
            let (mut behind, _) = server.accept().expect("passed on");
            let mut bytes = [0; BYTES];
            while let Ok(count @ 1..) = behind.read(&mut bytes) {
                behind.write_all(&bytes[..count]).expect("open");
            }
        });
        let client =
            TcpStream::connect(open("127.0.0.1:0", &target, ONE_WAY).expect("it listens")).expect("it listens");
        client.set_nodelay(true).expect("set");
        client.set_read_timeout(Some(Duration::from_secs(30))).expect("set");
        client
    }

    #[test]
    fn an_answer_takes_both_ways_and_those_on_their_way_do_not_wait_for_one_another() {
        let mut client = client_of_echo();
        let mut answers = client.try_clone().expect("the same connection");
        let begun = Instant::now();
        let sent = thread::spawn(move || {
            for byte in 0..BYTES {
                client.write_all(&[byte as u8]).expect("open");
                thread::sleep(Duration::from_millis(1));
            }
        });
        let mut got = [0; BYTES];
        answers.read_exact(&mut got[..1]).expect("an answer");
        assert!(begun.elapsed() >= 2 * ONE_WAY, "{:?}", begun.elapsed());
        answers.read_exact(&mut got[1..]).expect("answers");
        sent.join().expect("all sent");
        assert!(got.iter().enumerate().all(|(n, byte)| n == usize::from(*byte)), "in order: {got:?}");
        // One after the other would be ten seconds.
        assert!(begun.elapsed() < ONE_WAY * BYTES as u32, "{:?}", begun.elapsed());
    }

    #[test]
    fn an_end_comes_late_too_and_behind_all_answers() {
        let mut client = client_of_echo();
        client.write_all(b"a").expect("open");
        client.shutdown(Shutdown::Write).expect("open");
        let (begun, mut all) = (Instant::now(), Vec::new());
        client.read_to_end(&mut all).expect("an end");
        assert_eq!(all, b"a", "what was asked before the end is answered");
        assert!(begun.elapsed() >= 2 * ONE_WAY, "{:?}", begun.elapsed());
    }
}
