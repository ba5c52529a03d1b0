//! Where the parts are put together into the running monitor.

use tokio_util::sync::CancellationToken;

use crate::{
    cli::signals::Signals,
    clock,
    config::{Config, Sink},
    http::{self, Board, Health, Server, status::Shown},
    telemetry::Telemetry,
};

/// Why the monitor cannot go on (exit code 1).
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// HTTP.
    #[error(transparent)]
    Http(#[from] http::Error),
    /// The system does not let us handle signals.
    #[error("take over SIGTERM and SIGINT")]
    Signals(#[source] std::io::Error),
}

/// Runs everything until SIGTERM or SIGINT.
pub async fn run(config: Config, telemetry: &Telemetry, health: Health) -> Result<(), Error> {
    let stop = CancellationToken::new();
    // Before anything else: from here on a signal is a wish, not a kill.
    let signals = tokio::spawn(Signals::install().map_err(Error::Signals)?.run(stop.clone()));
    let board = Board::new(Shown {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        identity: config.identity.clone(),
        started_at: Some(clock::now()),
        selector: config.selector.as_str().to_owned(),
        sink: match &config.sink {
            Sink::Kafka(kafka) => format!("kafka {} topic {}", kafka.bootstrap_servers, kafka.events_topic),
            Sink::Stdout => "stdout".to_owned(),
        },
        shards: Vec::new(),
    });
    let server = Server::bind(config.listen, health, telemetry.metrics().clone(), board).await?;
    let ended = server.run(stop).await;
    // It waits for a second signal only; with the work done there is nothing left to cut short.
    signals.abort();
    Ok(ended?)
}
