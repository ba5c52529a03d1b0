//! What replicas say of themselves: `/api/status` at the addresses that they advertise.

use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    task::JoinSet,
    time::timeout,
};

/// How long a replica may take. Addresses of pods lead nowhere from outside the cluster, in silence.
const ANSWER_MAX: Duration = Duration::from_secs(2);
/// Longest answer: 128 shards, each with its last hand-overs, are some 600 KB, and twice that where names are as long as
/// they may be; the ended executions are some 50 KB more.
const ANSWER_BYTES_MAX: u64 = 4 << 20;

/// What a replica was asked, and what became of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Asked {
    pub(super) address: String,
    pub(super) said: Result<Reply, String>,
}

/// Its answer, as far as it is shown. Other releases may leave out what they do not know.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(default)]
pub(super) struct Reply {
    pub(super) identity: String,
    pub(super) version: String,
    pub(super) ready: bool,
    pub(super) live: bool,
    pub(super) checks: Vec<Check>,
    pub(super) shards: Vec<Shard>,
    pub(super) members: Vec<Member>,
}

/// A replica that it knows of.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(default)]
pub(super) struct Member {
    pub(super) identity: String,
    /// Whether it could lead, as it said itself to the one who was asked.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) able: Option<bool>,
    /// Records that it has not read, as it said itself to the one who was asked.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) lag_records: Option<u64>,
}

/// One of its parts.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(default)]
pub(super) struct Check {
    pub(super) name: String,
    pub(super) ok: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) why: Option<String>,
}

/// What it does for a shard.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(default)]
pub(super) struct Shard {
    pub(super) shard: u32,
    pub(super) role: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) term: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) tracked_pods: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) lag_records: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) since: Option<Timestamp>,
}

/// Asks all of them at once.
pub(super) async fn ask(addresses: Vec<String>) -> Vec<Asked> {
    let mut asking = JoinSet::new();
    for address in addresses {
        asking.spawn(async move {
            let said = match timeout(ANSWER_MAX, get(&address)).await {
                Ok(said) => said,
                Err(_) => Err(format!("no answer within {ANSWER_MAX:?}")),
            };
            Asked { address, said }
        });
    }
    let mut asked = asking.join_all().await;
    asked.sort_by(|a, b| a.address.cmp(&b.address));
    asked
}

async fn get(address: &str) -> Result<Reply, String> {
    let failed = |error: std::io::Error| error.to_string();
    let mut stream = TcpStream::connect(address).await.map_err(failed)?;
    // By 1.0 the answer ends with the connection, and is not cut into chunks.
    let request = format!("GET /api/status HTTP/1.0\r\nhost: {address}\r\n\r\n");
    stream.write_all(request.as_bytes()).await.map_err(failed)?;
    let mut answer = Vec::new();
    stream.take(ANSWER_BYTES_MAX).read_to_end(&mut answer).await.map_err(failed)?;
    read(&String::from_utf8_lossy(&answer))
}

fn read(answer: &str) -> Result<Reply, String> {
    let odd = || "answers, but not as a pod-monitor does".to_owned();
    let (head, body) = answer.split_once("\r\n\r\n").ok_or_else(odd)?;
    if head.split(' ').nth(1) != Some("200") {
        return Err(odd());
    }
    serde_json::from_str(body).map_err(|_| odd())
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_read_and_another_programs_is_not() {
        let body =
            r#"{"identity":"a","ready":true,"live":true,"later":1,"shards":[{"shard":0,"role":"live","term":7}]}"#;
        let reply = read(&format!("HTTP/1.0 200 OK\r\ncontent-type: application/json\r\n\r\n{body}")).unwrap();
        assert_eq!((reply.identity.as_str(), reply.shards[0].term, reply.ready), ("a", Some(7), true));
        for odd in ["", "HTTP/1.0 404 Not Found\r\n\r\n{}", "HTTP/1.0 200 OK\r\n\r\nhello", "SSH-2.0"] {
            assert!(read(odd).is_err(), "{odd}");
        }
    }

    #[tokio::test]
    async fn who_cannot_be_reached_is_said_and_no_error() {
        let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
        let asked = ask(vec![closed.clone()]).await;
        assert_eq!(asked[0].address, closed);
        assert!(asked[0].said.as_ref().unwrap_err().contains("refused"), "{asked:?}");
    }
}
