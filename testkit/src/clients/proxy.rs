//! A TCP proxy whose two directions can be cut or slowed by themselves: connections stay open and no byte passes, as
//! behind a firewall that drops packets. It can also break every connection, or die like the server behind it.

use std::{
    collections::HashMap,
    io::{Read, Write},
    net::{Shutdown, SocketAddr, TcpListener, TcpStream, ToSocketAddrs},
    sync::{
        Arc, Condvar, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};

use anyhow::{Context, Result};
use kube::config::Kubeconfig;

use crate::stack::Endpoints;

/// One way to a server. Lives until the process ends.
#[derive(Debug, Clone)]
pub struct Proxy {
    /// Where it listens.
    pub address: SocketAddr,
    link: Arc<Link>,
}

/// Which bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Direction {
    /// From the client to the server: requests.
    There,
    /// From the server to the client: answers.
    Back,
}

/// How bytes pass.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Passage {
    /// At once.
    #[default]
    Open,
    /// Each piece this much later than the one before it.
    Slow(Duration),
    /// Not at all, until it is open again.
    Cut,
}

/// The link behind it.
#[derive(Debug, Default)]
struct Link {
    there: Way,
    back: Way,
    dead: AtomicBool,
    /// Both ends of every connection that stands.
    ends: Mutex<HashMap<u64, [TcpStream; 2]>>,
}

#[derive(Debug, Default)]
struct Way {
    passage: Mutex<Passage>,
    changed: Condvar,
}

impl Way {
    fn set(&self, passage: Passage) {
        *self.passage.lock().unwrap_or_else(PoisonError::into_inner) = passage;
        self.changed.notify_all();
    }

    /// Holds up a piece as the passage says.
    fn pass(&self) {
        let passage = self.passage.lock().unwrap_or_else(PoisonError::into_inner);
        let cut = |passage: &mut Passage| *passage == Passage::Cut;
        let passage = self.changed.wait_while(passage, cut).unwrap_or_else(PoisonError::into_inner);
        if let Passage::Slow(pause) = *passage {
            let slow = |passage: &mut Passage| *passage == Passage::Slow(pause);
            drop(self.changed.wait_timeout_while(passage, pause, slow).unwrap_or_else(PoisonError::into_inner));
        }
    }
}

impl Link {
    fn way(&self, direction: Direction) -> &Way {
        match direction {
            Direction::There => &self.there,
            Direction::Back => &self.back,
        }
    }
}

impl Proxy {
    /// Listens at `at` (port 0: a free one) and passes everything on to `target`.
    ///
    /// # Errors
    /// When the address cannot be had.
    pub fn open(at: impl ToSocketAddrs, target: &str) -> Result<Self> {
        let listener = TcpListener::bind(at).context("open a proxy")?;
        let (address, link) = (listener.local_addr()?, Arc::new(Link::default()));
        let (behind, target) = (Arc::clone(&link), target.to_owned());
        thread::Builder::new().name("proxy".into()).spawn(move || {
            for (number, client) in (0..).zip(listener.incoming()) {
                if behind.dead.load(Ordering::SeqCst) {
                    return;
                }
                // A client that was gone before it was taken in, or too many open files for a moment.
                let Ok(client) = client else { continue };
                connect(number, client, target.clone(), Arc::clone(&behind));
            }
        })?;
        Ok(Self { address, link })
    }

    /// As [`kubeconfig_through`] this proxy.
    ///
    /// # Errors
    /// When the stack's own cannot be read or the file not be written.
    pub fn kubeconfig(&self, endpoints: &Endpoints, name: &str) -> Result<String> {
        kubeconfig_through(self.address, endpoints, name)
    }

    /// From now on bytes pass like this in one direction; what waited goes on when it is open.
    pub fn set(&self, direction: Direction, passage: Passage) {
        self.link.way(direction).set(passage);
    }

    /// From now on nothing passes, in either direction; connections stay open, and new ones are taken.
    pub fn cut(&self) {
        self.set(Direction::There, Passage::Cut);
        self.set(Direction::Back, Passage::Cut);
    }

    /// From now on everything passes again, also what waited.
    pub fn heal(&self) {
        self.set(Direction::There, Passage::Open);
        self.set(Direction::Back, Passage::Open);
    }

    /// Breaks every connection that there is; new ones are taken. How many there were.
    pub fn reset(&self) -> usize {
        let ends = std::mem::take(&mut *self.link.ends.lock().unwrap_or_else(PoisonError::into_inner));
        // One that is closed already is as good.
        ends.values().flatten().for_each(|end| drop(end.shutdown(Shutdown::Both)));
        ends.len()
    }

    /// Closes all connections and refuses new ones, for good: as if the server's process had died.
    ///
    /// # Errors
    /// When it does not stop listening.
    pub fn die(&self) -> Result<()> {
        self.link.dead.store(true, Ordering::SeqCst);
        // Wakes the thread that listens, which then lets go of the address.
        drop(TcpStream::connect(self.address).context("wake the proxy")?);
        self.reset();
        Ok(())
    }
}

/// A kubeconfig by which the stack's API server is reached at this address, as a file of this name; gives its path.
///
/// # Errors
/// When the stack's own cannot be read or the file not be written.
pub fn kubeconfig_through(address: SocketAddr, endpoints: &Endpoints, name: &str) -> Result<String> {
    let mut config = Kubeconfig::read_from(&endpoints.kubeconfig)?;
    for cluster in config.clusters.iter_mut().filter_map(|c| c.cluster.as_mut()) {
        cluster.server = Some(format!("https://{address}"));
        cluster.tls_server_name = Some(endpoints.address.clone());
    }
    let path = endpoints.run_dir.join(format!("{name}.kubeconfig"));
    std::fs::write(&path, serde_json::to_vec(&config)?)?;
    Ok(path.display().to_string())
}

/// A connection on threads of its own: a cut link holds them up.
fn connect(number: u64, client: TcpStream, target: String, link: Arc<Link>) {
    thread::spawn(move || {
        link.there.pass();
        // A server that is not there is seen by the client as a connection that ends.
        let Ok(server) = TcpStream::connect(&target) else { return };
        // Small requests must leave at once, as they do without us.
        if client.set_nodelay(true).and_then(|()| server.set_nodelay(true)).is_err() {
            return;
        }
        let (Ok(client_too), Ok(server_too)) = (client.try_clone(), server.try_clone()) else { return };
        if let (Ok(client), Ok(server)) = (client.try_clone(), server.try_clone()) {
            link.ends.lock().unwrap_or_else(PoisonError::into_inner).insert(number, [client, server]);
        }
        let back = Arc::clone(&link);
        thread::spawn(move || copy(server_too, client_too, &back.back));
        copy(client, server, &link.there);
        link.ends.lock().unwrap_or_else(PoisonError::into_inner).remove(&number);
    });
}

fn copy(mut from: TcpStream, mut to: TcpStream, way: &Way) {
    let mut bytes = [0; 16 * 1024];
    // Either end closing is the normal end of a connection.
    while let Ok(count @ 1..) = from.read(&mut bytes) {
        way.pass();
        if to.write_all(&bytes[..count]).is_err() {
            break;
        }
    }
    way.pass();
    // The other direction ends by itself where its end is closed.
    drop(to.shutdown(Shutdown::Both));
    drop(from.shutdown(Shutdown::Both));
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A proxy, a client at it, and what came out behind it.
    fn open() -> (Proxy, TcpStream, TcpStream) {
        let server = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let target = server.local_addr().expect("bound").to_string();
        let proxy = Proxy::open("127.0.0.1:0", &target).expect("a proxy");
        let client = TcpStream::connect(proxy.address).expect("it listens");
        let (behind, _) = server.accept().expect("passed on");
        (proxy, client, behind)
    }

    #[test]
    fn one_direction_is_cut_or_slow_by_itself_and_a_reset_ends_both() {
        let (proxy, mut client, mut behind) = open();
        let mut byte = [0];
        proxy.set(Direction::Back, Passage::Cut);
        client.write_all(b"a").expect("open");
        behind.read_exact(&mut byte).expect("requests pass");
        behind.write_all(b"b").expect("open");
        client.set_read_timeout(Some(Duration::from_millis(300))).expect("set");
        assert!(client.read_exact(&mut byte).is_err(), "answers do not");
        proxy.set(Direction::Back, Passage::Slow(Duration::from_millis(200)));
        client.set_read_timeout(Some(Duration::from_secs(10))).expect("set");
        client.read_exact(&mut byte).expect("late, but it comes");
        proxy.reset();
        assert_eq!(client.read(&mut byte).expect("an end"), 0);
    }

    #[test]
    fn a_cut_proxy_passes_nothing_until_it_is_healed() {
        let (proxy, mut client, mut behind) = open();
        let mut byte = [0];
        client.write_all(b"a").expect("open");
        behind.read_exact(&mut byte).expect("passed on");
        proxy.cut();
        client.write_all(b"b").expect("still open");
        behind.set_read_timeout(Some(Duration::from_millis(300))).expect("set");
        assert!(behind.read_exact(&mut byte).is_err(), "cut");
        proxy.heal();
        behind.set_read_timeout(Some(Duration::from_secs(10))).expect("set");
        behind.read_exact(&mut byte).expect("what waited comes");
        assert_eq!(byte, *b"b");
    }
}
