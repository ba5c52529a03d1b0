//! SIGTERM and SIGINT: the first asks to stop, the second ends at once.

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;

use super::EXIT_FAILED;

/// Both signals, from the moment of [`Signals::install`] on.
#[derive(Debug)]
pub struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    /// Takes the signals over from the system, whose default is to kill the process. Needs the async runtime.
    pub fn install() -> std::io::Result<Self> {
        Ok(Self { terminate: signal(SignalKind::terminate())?, interrupt: signal(SignalKind::interrupt())? })
    }

    /// Cancels `stop` at the first signal and ends the process with 1 at the second. Run it beside the work; it never
    /// returns by itself.
    pub async fn run(mut self, stop: CancellationToken) {
        let name = self.next().await;
        tracing::info!(signal = name, "asked to stop; a second signal ends at once");
        stop.cancel();
        let name = self.next().await;
        tracing::warn!(signal = name, "second signal: ending at once");
        std::process::exit(i32::from(EXIT_FAILED));
    }

    async fn next(&mut self) -> &'static str {
        tokio::select! {
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "SIGINT",
        }
    }
}
