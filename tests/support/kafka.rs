//! A broker that a test may break: killed, restarted, paused.
#![allow(dead_code, reason = "no suite uses all of it")]

use std::{net::TcpListener, sync::OnceLock, time::Duration};

use anyhow::{Context, Result};
use testkit::stack::{Component, Endpoints, Options, Profile, Signal, Stack};
use tokio::{
    sync::{Mutex, MutexGuard},
    task::spawn_blocking,
    time::timeout,
};

/// Where clients that go through a relay reach the broker, beside its usual port.
const RELAYED_PORT: u16 = 9192;

/// A broker of the tests' own, which they take in turns. It ends with this process.
pub(crate) struct Kafka {
    own: &'static Own,
    _turn: MutexGuard<'static, ()>,
}

struct Own {
    stack: Stack,
    /// Where clients of the second listener are told to come.
    relay: TcpListener,
}

impl Own {
    fn boot() -> Result<Self> {
        let stack = Stack::boot(Options::new(Profile::Kafka))?;
        let relay = TcpListener::bind("127.0.0.1:0").context("bind the relay's port")?;
        let file = stack.endpoints().run_dir.join("kafka.properties");
        let text = std::fs::read_to_string(&file).context("read the broker's properties")?;
        let lines = text.lines().map(|line| match line.split('=').next() {
            Some("listeners") => format!("{line},RELAYED://{}:{RELAYED_PORT}\n", stack.endpoints().address),
            Some("advertised.listeners") => match relay.local_addr() {
                Ok(address) => format!("{line},RELAYED://{address}\n"),
                Err(error) => panic!("the relay has no address: {error}"),
            },
            Some("listener.security.protocol.map") => format!("{line},RELAYED:PLAINTEXT\n"),
            _ => format!("{line}\n"),
        });
        // A broker that was killed is let in again only when its last session is over.
        let text = lines.collect::<String>() + "broker.session.timeout.ms=3000\nbroker.heartbeat.interval.ms=500\n";
        std::fs::write(&file, text).context("write the broker's properties")?;
        stack.restart(Component::Kafka)?;
        Ok(Self { stack, relay })
    }
}

impl Kafka {
    /// Boots it if it is not up yet, and waits for its turn.
    pub(crate) async fn take() -> Result<Self> {
        static TURN: Mutex<()> = Mutex::const_new(());
        static OWN: OnceLock<Own> = OnceLock::new();
        let turn = TURN.lock().await;
        let own = spawn_blocking(|| OWN.get_or_init(|| Own::boot().expect("boot a broker"))).await?;
        Ok(Self { own, _turn: turn })
    }

    /// Clients that come here belong to [`Kafka::relayed`]; who takes them in is the test's business.
    pub(crate) fn relay(&self) -> &'static TcpListener {
        &self.own.relay
    }

    /// The broker's second listener.
    pub(crate) fn relayed(&self) -> String {
        format!("{}:{RELAYED_PORT}", self.endpoints().address)
    }

    /// Where it is reached.
    pub(crate) fn endpoints(&self) -> &'static Endpoints {
        self.own.stack.endpoints()
    }

    /// SIGKILL, and its end.
    pub(crate) async fn kill(&self) -> Result<()> {
        let stack = &self.own.stack;
        spawn_blocking(|| stack.kill(Component::Kafka, Signal::KILL)).await?
    }

    /// Starts it anew on the same data, and waits until it answers.
    pub(crate) async fn restart(&self) -> Result<()> {
        let stack = &self.own.stack;
        spawn_blocking(|| stack.restart(Component::Kafka)).await?
    }

    /// SIGSTOP: connections stay open and nothing answers.
    pub(crate) async fn pause(&self) -> Result<()> {
        let stack = &self.own.stack;
        spawn_blocking(|| stack.pause(Component::Kafka)).await?
    }

    /// SIGCONT.
    pub(crate) async fn resume(&self) -> Result<()> {
        let stack = &self.own.stack;
        spawn_blocking(|| stack.resume(Component::Kafka)).await?
    }

    /// Stands still for this long.
    pub(crate) async fn pause_for(&self, duration: Duration) -> Result<()> {
        self.pause().await?;
        lasts(duration).await;
        self.resume().await
    }
}

/// How long a fault lasts, or when it begins.
pub(crate) async fn lasts(duration: Duration) {
    // Nothing else ends it.
    drop(timeout(duration, std::future::pending::<()>()).await);
}
