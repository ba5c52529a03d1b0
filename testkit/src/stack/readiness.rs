//! Looking until something is so: a state, a limit, and an error that shows why not.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use super::state::Endpoints;

/// How long between two looks.
const PAUSE: Duration = Duration::from_millis(25);
/// How long one look over the network may take.
const LOOK_MAX: Duration = Duration::from_secs(2);

/// Looks until `look` finds something. An `Err` ends the waiting at once.
pub fn until<T>(what: &str, limit: Duration, mut look: impl FnMut() -> Result<Option<T>>) -> Result<T> {
    let started = Instant::now();
    loop {
        if let Some(found) = look().with_context(|| format!("waiting for {what}"))? {
            return Ok(found);
        }
        if started.elapsed() >= limit {
            bail!("{what}: not within {} s", limit.as_secs());
        }
        std::thread::sleep(PAUSE);
    }
}

/// Whether something listens.
pub(crate) fn listens(address: &str) -> Result<bool> {
    Ok(connect(address)?.is_some())
}

/// Whether a Kafka broker answers a request (ApiVersions, which needs no client library).
pub fn kafka_answers(address: &str) -> Result<bool> {
    // Length, api_key 18, api_version 0, correlation id 1, no client id.
    const REQUEST: [u8; 14] = [0, 0, 0, 10, 0, 18, 0, 0, 0, 0, 0, 1, 0xff, 0xff];
    let Some(mut stream) = connect(address)? else {
        return Ok(false);
    };
    stream.set_read_timeout(Some(LOOK_MAX))?;
    // Length, correlation id, error code.
    let mut answer = [0_u8; 10];
    if stream.write_all(&REQUEST).is_err() || stream.read_exact(&mut answer).is_err() {
        return Ok(false);
    }
    Ok(answer[4..10] == [0, 0, 0, 1, 0, 0])
}

/// Whether the API server says that it is ready.
pub fn api_server_answers(endpoints: &Endpoints) -> Result<bool> {
    let output = endpoints
        .kubectl()
        .args(["get", "--raw", "/readyz", "--request-timeout=2s"])
        .output()
        .context("run kubectl")?;
    Ok(output.status.success())
}

fn connect(address: &str) -> Result<Option<TcpStream>> {
    let address: SocketAddr = address.parse().with_context(|| format!("address {address}"))?;
    Ok(TcpStream::connect_timeout(&address, LOOK_MAX).ok())
}
