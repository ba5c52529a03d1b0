//! A way to a server that is not there yet, over testkit's proxy, and kubeconfigs for tests.

use std::net::{SocketAddr, TcpListener};

use anyhow::Result;
use kube::config::Kubeconfig;
use testkit::{
    clients::proxy::{self, kubeconfig_through},
    stack::Endpoints,
};

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
        proxy::Proxy::open(self.address, target).map(drop)
    }

    /// A kubeconfig by which the stack's API server is reached through here, as a file of this name.
    pub(crate) fn kubeconfig(&self, endpoints: &Endpoints, name: &str) -> Result<String> {
        kubeconfig_through(self.address, endpoints, name)
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
