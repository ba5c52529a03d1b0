//! A relay between Kafka clients and a broker that knows where one request ends and the next begins, so that a fault
//! can happen at an exact moment: when the next commit is on its way to the broker.

use std::{
    io::{Read, Write},
    net::{Shutdown, TcpListener, TcpStream},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    thread,
};

use tokio::sync::oneshot;

/// The request by which a client ends a transaction (EndTxn).
const END_TXN: i16 = 26;

/// What becomes of a request that was held.
pub(crate) enum Fate {
    /// It goes on to the broker.
    PassedOn,
    /// Its connection breaks before the broker has it.
    CutBefore,
    /// The broker has answered it, and the connection breaks before the client has the answer.
    CutAfter,
}

/// The next commit, or what becomes of it.
pub(crate) struct Held {
    arrived: oneshot::Receiver<()>,
    fate: oneshot::Sender<Fate>,
}

impl Held {
    /// Waits until the commit has reached the relay. It stays there until it meets its fate.
    pub(crate) async fn arrived(&mut self) {
        (&mut self.arrived).await.unwrap();
    }

    pub(crate) fn meets(self, fate: Fate) {
        assert!(self.fate.send(fate).is_ok(), "the relay waits for it");
    }
}

struct Trap {
    arrived: oneshot::Sender<()>,
    fate: oneshot::Receiver<Fate>,
}

/// Passes on everything, until the process ends.
pub(crate) struct Relay {
    trap: Arc<Mutex<Option<Trap>>>,
}

impl Relay {
    /// Between this listener's clients and the broker.
    pub(crate) fn open(listener: &'static TcpListener, broker: String) -> Self {
        let trap = Arc::<Mutex<Option<Trap>>>::default();
        let relay = Self { trap: Arc::clone(&trap) };
        thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                let Ok(server) = TcpStream::connect(&broker) else { continue };
                // Commits are small requests, which must not wait for more.
                client.set_nodelay(true).and_then(|()| server.set_nodelay(true)).unwrap();
                let lost = Arc::new(AtomicBool::new(false));
                let (back, forth) = ((server.try_clone().unwrap(), client.try_clone().unwrap()), (client, server));
                let (answers_lost, trap) = (Arc::clone(&lost), Arc::clone(&trap));
                thread::spawn(move || answers(back.0, back.1, &answers_lost));
                thread::spawn(move || requests(forth.0, forth.1, &lost, &trap));
            }
        });
        relay
    }

    /// Holds the next commit.
    pub(crate) fn hold(&self) -> Held {
        let (arrived_in, arrived) = oneshot::channel();
        let (fate, fate_out) = oneshot::channel();
        *self.trap.lock().unwrap() = Some(Trap { arrived: arrived_in, fate: fate_out });
        Held { arrived, fate }
    }
}

fn requests(mut client: TcpStream, mut server: TcpStream, lost: &AtomicBool, trap: &Mutex<Option<Trap>>) {
    while let Ok(request) = request(&mut client) {
        let held = if key(&request) == END_TXN { trap.lock().unwrap().take() } else { None };
        if let Some(trap) = held {
            trap.arrived.send(()).unwrap();
            match trap.fate.blocking_recv().unwrap() {
                Fate::PassedOn => {}
                Fate::CutBefore => break,
                Fate::CutAfter => lost.store(true, Ordering::SeqCst),
            }
        }
        if server.write_all(&request).is_err() {
            break;
        }
    }
    cut(&client, &server);
}

/// One request whole: its length, and as many bytes.
fn request(client: &mut TcpStream) -> std::io::Result<Vec<u8>> {
    let mut request = vec![0; 4];
    client.read_exact(&mut request)?;
    let length = u32::from_be_bytes([request[0], request[1], request[2], request[3]]) as usize;
    request.resize(4 + length, 0);
    client.read_exact(&mut request[4..])?;
    Ok(request)
}

fn key(request: &[u8]) -> i16 {
    i16::from_be_bytes([request[4], request[5]])
}

fn answers(mut server: TcpStream, mut client: TcpStream, lost: &AtomicBool) {
    let mut bytes = vec![0; 64 << 10];
    while let Ok(read @ 1..) = server.read(&mut bytes) {
        if lost.load(Ordering::SeqCst) || client.write_all(&bytes[..read]).is_err() {
            break;
        }
    }
    cut(&client, &server);
}

fn cut(client: &TcpStream, server: &TcpStream) {
    // Either may be gone already: cutting is what was wanted.
    drop(client.shutdown(Shutdown::Both));
    drop(server.shutdown(Shutdown::Both));
}
