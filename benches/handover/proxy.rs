//! A TCP proxy on loopback that can fall silent: connections stay open, and nothing comes through until it is mended.

use std::{
    io::{Read as _, Write as _},
    net::{Shutdown, SocketAddr, TcpListener, TcpStream},
    path::Path,
    sync::{Arc, Condvar, Mutex},
    thread,
};

use anyhow::{Context, Result};
use kube::config::Kubeconfig;
use testkit::stack::Endpoints;

use crate::field::lock;

type Silent = Arc<(Mutex<bool>, Condvar)>;

/// Runs until the process ends.
pub(crate) struct Proxy {
    address: SocketAddr,
    silent: Silent,
}

impl Proxy {
    /// Passes everything on to the API server.
    pub(crate) fn open(endpoints: &Endpoints) -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").context("open a proxy")?;
        let address = listener.local_addr()?;
        let silent = Silent::default();
        let (target, gate) = (endpoints.api_server.trim_start_matches("https://").to_owned(), Arc::clone(&silent));
        thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                wait(&gate);
                if let Ok(server) = TcpStream::connect(&target) {
                    pass(&client, &server, &gate);
                    pass(&server, &client, &gate);
                }
            }
        });
        Ok(Self { address, silent })
    }

    pub(crate) fn cut(&self) {
        *lock(&self.silent.0) = true;
    }

    pub(crate) fn mend(&self) {
        *lock(&self.silent.0) = false;
        self.silent.1.notify_all();
    }

    /// A kubeconfig by which the API server is reached through here.
    pub(crate) fn kubeconfig(&self, endpoints: &Endpoints, file: &Path) -> Result<()> {
        let mut config = Kubeconfig::read_from(&endpoints.kubeconfig)?;
        for cluster in config.clusters.iter_mut().filter_map(|c| c.cluster.as_mut()) {
            cluster.server = Some(format!("https://{}", self.address));
            cluster.tls_server_name = Some(endpoints.address.clone());
        }
        std::fs::write(file, serde_json::to_vec(&config)?).context("write the proxy's kubeconfig")
    }
}

fn wait(silent: &Silent) {
    let mut is_silent = lock(&silent.0);
    while *is_silent {
        is_silent = silent.1.wait(is_silent).unwrap_or_else(std::sync::PoisonError::into_inner);
    }
}

fn pass(from: &TcpStream, to: &TcpStream, silent: &Silent) {
    let (Ok(mut from), Ok(mut to)) = (from.try_clone(), to.try_clone()) else { return };
    // A connection that closes meanwhile says so itself.
    drop(to.set_nodelay(true));
    let silent = Arc::clone(silent);
    thread::spawn(move || {
        let mut buffer = vec![0; 64 << 10];
        while let Ok(read @ 1..) = from.read(&mut buffer) {
            wait(&silent);
            if to.write_all(&buffer[..read]).is_err() {
                break;
            }
        }
        wait(&silent);
        // Either end closing is the normal end of a connection.
        drop(to.shutdown(Shutdown::Write));
    });
}
