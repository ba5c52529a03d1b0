//! A TCP proxy on loopback that can be opened later: a server that is not there yet.

use std::{
    io::copy,
    net::{Shutdown, SocketAddr, TcpListener, TcpStream},
    thread,
};

use anyhow::{Context, Result};
use kube::config::Kubeconfig;
use testkit::stack::Endpoints;

/// An address where nothing listens yet.
#[derive(Debug)]
pub(crate) struct Proxy {
    /// Where it will listen.
    pub(crate) address: SocketAddr,
}

impl Proxy {
    /// Chooses a port and leaves it closed.
    pub(crate) fn closed() -> Result<Self> {
        Ok(Self { address: TcpListener::bind("127.0.0.1:0")?.local_addr()? })
    }

    /// Listens from now on and passes everything on to `target`, until the process ends.
    pub(crate) fn open(&self, target: &str) -> Result<()> {
        let listener = TcpListener::bind(self.address).context("open the proxy")?;
        let target = target.to_owned();
        thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                if let Ok(server) = TcpStream::connect(&target) {
                    pass(&client, &server);
                    pass(&server, &client);
                }
            }
        });
        Ok(())
    }

    /// A kubeconfig by which the stack's API server is reached through here, as a file of this name.
    pub(crate) fn kubeconfig(&self, endpoints: &Endpoints, name: &str) -> Result<String> {
        let mut config = Kubeconfig::read_from(&endpoints.kubeconfig)?;
        for cluster in config.clusters.iter_mut().filter_map(|c| c.cluster.as_mut()) {
            cluster.server = Some(format!("https://{}", self.address));
            cluster.tls_server_name = Some(endpoints.address.clone());
        }
        write(endpoints, name, &config)
    }
}

/// A kubeconfig with this token instead of the administrator's, as a file of this name.
pub(crate) fn kubeconfig_with_token(endpoints: &Endpoints, name: &str, token: &str) -> Result<String> {
    let mut config = Kubeconfig::read_from(&endpoints.kubeconfig)?;
    for user in config.auth_infos.iter_mut().filter_map(|u| u.auth_info.as_mut()) {
        user.token = Some(token.to_owned().into());
    }
    write(endpoints, name, &config)
}

pub(super) fn write(endpoints: &Endpoints, name: &str, config: &Kubeconfig) -> Result<String> {
    let path = endpoints.run_dir.join(format!("{name}.kubeconfig"));
    // Read back with the token in clear: kube hides secrets in Debug, not in its serialisation.
    std::fs::write(&path, serde_json::to_vec(config)?)?;
    Ok(path.display().to_string())
}

fn pass(from: &TcpStream, to: &TcpStream) {
    let (Ok(mut from), Ok(mut to)) = (from.try_clone(), to.try_clone()) else { return };
    thread::spawn(move || {
        // Either end closing is the normal end of a connection.
        drop(copy(&mut from, &mut to));
        drop(to.shutdown(Shutdown::Write));
    });
}
