//! A TCP proxy that can be cut: connections stay open and no byte passes, as behind a firewall that drops packets.

use std::{
    io::{Read, Write},
    net::{Shutdown, SocketAddr, TcpListener, TcpStream, ToSocketAddrs},
    sync::{
        Arc, Condvar, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread,
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

/// The link behind it.
#[derive(Debug, Default)]
struct Link {
    cut: Mutex<bool>,
    healed: Condvar,
    dead: AtomicBool,
    /// Both ends of every connection.
    ends: Mutex<Vec<TcpStream>>,
}

impl Link {
    /// Waits while the link is cut.
    fn pass(&self) {
        let cut = self.cut.lock().unwrap_or_else(PoisonError::into_inner);
        drop(self.healed.wait_while(cut, |cut| *cut).unwrap_or_else(PoisonError::into_inner));
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
            for client in listener.incoming().map_while(Result::ok) {
                if behind.dead.load(Ordering::SeqCst) {
                    return;
                }
                connect(client, target.clone(), Arc::clone(&behind));
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

    /// From now on nothing passes, in either direction; connections stay open, and new ones are taken.
    pub fn cut(&self) {
        *self.link.cut.lock().unwrap_or_else(PoisonError::into_inner) = true;
    }

    /// Closes all connections and refuses new ones, for good: as if the server's process had died.
    ///
    /// # Errors
    /// When it does not stop listening.
    pub fn die(&self) -> Result<()> {
        self.link.dead.store(true, Ordering::SeqCst);
        // Wakes the thread that listens, which then lets go of the address.
        drop(TcpStream::connect(self.address).context("wake the proxy")?);
        for end in self.link.ends.lock().unwrap_or_else(PoisonError::into_inner).drain(..) {
            // One that is closed already is as good.
            drop(end.shutdown(Shutdown::Both));
        }
        Ok(())
    }

    /// From now on everything passes again, also what waited.
    pub fn heal(&self) {
        *self.link.cut.lock().unwrap_or_else(PoisonError::into_inner) = false;
        self.link.healed.notify_all();
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
fn connect(client: TcpStream, target: String, link: Arc<Link>) {
    thread::spawn(move || {
        link.pass();
        // A server that is not there is seen by the client as a connection that ends.
        let Ok(server) = TcpStream::connect(&target) else { return };
        // Small requests must leave at once, as they do without us.
        if client.set_nodelay(true).and_then(|()| server.set_nodelay(true)).is_err() {
            return;
        }
        let (Ok(client_too), Ok(server_too)) = (client.try_clone(), server.try_clone()) else { return };
        if let (Ok(client), Ok(server)) = (client.try_clone(), server.try_clone()) {
            link.ends.lock().unwrap_or_else(PoisonError::into_inner).extend([client, server]);
        }
        let back = Arc::clone(&link);
        thread::spawn(move || copy(server_too, client_too, &back));
        copy(client, server, &link);
    });
}

fn copy(mut from: TcpStream, mut to: TcpStream, link: &Link) {
    let mut bytes = [0; 16 * 1024];
    // Either end closing is the normal end of a connection.
    while let Ok(count @ 1..) = from.read(&mut bytes) {
        link.pass();
        if to.write_all(&bytes[..count]).is_err() {
            break;
        }
    }
    link.pass();
    // The other direction ends by itself where its end is closed.
    drop(to.shutdown(Shutdown::Both));
    drop(from.shutdown(Shutdown::Both));
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_cut_proxy_passes_nothing_until_it_is_healed() {
        let server = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let target = server.local_addr().expect("bound").to_string();
        let proxy = Proxy::open("127.0.0.1:0", &target).expect("a proxy");
        let mut client = TcpStream::connect(proxy.address).expect("it listens");
        let (mut behind, _) = server.accept().expect("passed on");
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
