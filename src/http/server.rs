//! Routes and the server's life.

use std::{convert::Infallible, net::SocketAddr, sync::Arc, time::Duration};

use axum::{
    Router,
    body::Body,
    extract::{RawQuery, State as Shared},
    http::{HeaderName, StatusCode, header},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use bytes::Bytes;
use futures::{FutureExt as _, StreamExt as _, future, stream};
use tokio::{net::TcpListener, time::Instant};
use tokio_util::sync::CancellationToken;

use super::{
    clients::Clients,
    health::{Health, Name, State},
    live::Live,
    page,
    status::{Board, Status},
};
use crate::{
    leadership::{notice, peers::Peers},
    telemetry::{Metrics, metrics},
};

/// How long open requests may take to end once the process was asked to stop.
const DRAIN_MAX: Duration = Duration::from_secs(2);

/// How much of one report is read.
const REPORT_BYTES_MAX: usize = 1024;

/// Why there is no HTTP.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The address cannot be had.
    #[error("cannot listen on {address} ({}): {mend}", source.kind())]
    Bind {
        /// What --listen says.
        address: SocketAddr,
        /// What to do.
        mend: &'static str,
        /// What the system says.
        source: std::io::Error,
    },
    /// The server ended by itself.
    #[error("the HTTP server ended")]
    Serve(#[source] std::io::Error),
}

/// What the routes read.
#[derive(Debug, Clone)]
struct Sources {
    health: Health,
    metrics: Metrics,
    board: Board,
    /// Who answers [`notice::PATH`].
    identity: Arc<str>,
    /// What the other replicas say on their connections.
    peers: Peers,
    /// What open pages are told.
    live: Live,
    /// When these connections end.
    stop: CancellationToken,
}

impl Sources {
    fn status(&self) -> Status {
        self.board.status(&self.health, self.peers.heard_of(Instant::now()), crate::clock::monotonic())
    }
}

/// A server that is bound: connections queue from here on, answers come from [`Server::run`].
#[derive(Debug)]
pub struct Server {
    listener: TcpListener,
    address: SocketAddr,
    sources: Sources,
}

impl Server {
    /// Binds the address; port 0 takes a free one.
    pub async fn bind(
        address: SocketAddr,
        health: Health,
        metrics: Metrics,
        board: Board,
        peers: Peers,
    ) -> Result<Self, Error> {
        let refused = |source: std::io::Error| {
            let mend = match source.kind() {
                std::io::ErrorKind::AddrInUse => "another program uses it: end that one or choose another --listen",
                std::io::ErrorKind::PermissionDenied => "not allowed: choose a port from 1024 on with --listen",
                std::io::ErrorKind::AddrNotAvailable => "this machine does not have that address: change --listen",
                _ => "change --listen",
            };
            Error::Bind { address, mend, source }
        };
        let listener = TcpListener::bind(address).await.map_err(refused)?;
        let address = listener.local_addr().map_err(refused)?;
        tracing::info!(%address, "serving HTTP");
        let (identity, live, stop) = (board.identity().into(), Live::default(), CancellationToken::new());
        Ok(Self { listener, address, sources: Sources { health, metrics, board, identity, peers, live, stop } })
    }

    /// Where it really listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Answers requests until `stop`, then lets open ones end for two seconds.
    pub async fn run(self, stop: CancellationToken) -> Result<(), Error> {
        let sources = Sources { stop: stop.clone(), ..self.sources };
        let (live, shown) = (sources.live.clone(), sources.clone());
        let looks = live.run(|| shown.status(), page::parts);
        let serve = axum::serve(Clients::of(self.listener), routes(sources))
            .with_graceful_shutdown(stop.clone().cancelled_owned());
        let late = async {
            stop.cancelled().await;
            // A client that keeps its connection busy must not keep the process.
            tokio::time::sleep(DRAIN_MAX).await;
        };
        tokio::select! {
            ended = serve.into_future() => ended.map_err(Error::Serve),
            () = late => Ok(()),
            never = looks => match never {},
        }
    }
}

fn routes(sources: Sources) -> Router {
    Router::new()
        .route("/", get(status_page))
        .route("/livez", get(livez))
        .route("/readyz", get(readyz))
        .route("/metrics", get(metrics_text))
        .route("/api/status", get(status_json))
        .route("/api/live", get(live))
        .route(notice::PATH, post(instance))
        .with_state(sources)
}

/// Who this is, and then nothing as long as it lives: the other replicas watch the end of this answer, and report what
/// they reach in the body of their request.
async fn instance(Shared(sources): Shared<Sources>, reports: Body) -> Response {
    let line = Bytes::from(notice::line(&sources.identity));
    let first = stream::once(future::ready(Ok::<_, Infallible>(line)));
    let (peers, mut reports) = (sources.peers, reports.into_data_stream());
    let listen = async move {
        while let Some(Ok(report)) = reports.next().await {
            let report = String::from_utf8_lossy(&report[..report.len().min(REPORT_BYTES_MAX)]);
            peers.heard(&report, Instant::now());
        }
    };
    let until_stop = sources.stop.run_until_cancelled_owned(listen).map(|_| Ok(Bytes::new()));
    let body = Body::from_stream(first.chain(stream::once(until_stop)));
    (content("text/plain; charset=utf-8"), body).into_response()
}

type Headers = [(HeaderName, &'static str); 2];

/// Nothing here may be kept by caches on the way.
fn content(kind: &'static str) -> Headers {
    [(header::CONTENT_TYPE, kind), (header::CACHE_CONTROL, "no-store")]
}

fn text(code: StatusCode, text: String) -> Response {
    (code, content("text/plain; charset=utf-8"), text).into_response()
}

async fn livez(Shared(sources): Shared<Sources>) -> Response {
    let stuck = sources.health.stuck(crate::clock::monotonic());
    if stuck.is_empty() {
        return text(StatusCode::OK, "ok\n".to_owned());
    }
    let line = |stuck: &super::health::Stuck| {
        format!("[-]{}: no sign of life for {:.1?}, at most {:.1?}\n", stuck.name, stuck.age, stuck.age_max)
    };
    text(StatusCode::INTERNAL_SERVER_ERROR, stuck.iter().map(line).collect())
}

async fn readyz(Shared(sources): Shared<Sources>, RawQuery(query): RawQuery) -> Response {
    let ready = sources.health.is_ready();
    let asked = |part: &str| part == "verbose" || part.starts_with("verbose=");
    let verbose = query.is_some_and(|query| query.split('&').any(asked));
    if ready && !verbose {
        return text(StatusCode::OK, "ok\n".to_owned());
    }
    let components = sources.health.components();
    let line = |(name, state): &(Name, State)| match state {
        State::Ok => format!("[+]{name} ok\n"),
        State::Waiting { why } => format!("[-]{name}: {}\n", why.escape_debug()),
    };
    let mut lines: String = components.iter().map(line).collect();
    if components.is_empty() {
        lines.push_str("[-]start: no component has started yet\n");
    }
    lines.push_str(if ready { "ready\n" } else { "not ready\n" });
    text(if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE }, lines)
}

async fn metrics_text(Shared(sources): Shared<Sources>) -> Response {
    match sources.metrics.text() {
        Ok(text) => (content(metrics::CONTENT_TYPE), text).into_response(),
        Err(error) => {
            tracing::error!(%error, "metrics cannot be written");
            text(StatusCode::INTERNAL_SERVER_ERROR, "metrics cannot be written\n".to_owned())
        }
    }
}

async fn status_json(Shared(sources): Shared<Sources>) -> Response {
    match serde_json::to_string_pretty(&sources.status()) {
        Ok(json) => (content("application/json"), json + "\n").into_response(),
        Err(error) => {
            tracing::error!(%error, "status cannot be written");
            text(StatusCode::INTERNAL_SERVER_ERROR, "status cannot be written\n".to_owned())
        }
    }
}

async fn status_page(Shared(sources): Shared<Sources>) -> Response {
    // Belt and braces beside the escaping: no script but ours may run on this page.
    let guards = [
        (header::CONTENT_SECURITY_POLICY, page::policy()),
        (header::REFERRER_POLICY, "no-referrer".to_owned()),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff".to_owned()),
    ];
    (content("text/html; charset=utf-8"), guards, page::render(&sources.status())).into_response()
}

/// News for a page that is open, for as long as it is.
async fn live(Shared(sources): Shared<Sources>) -> Response {
    let Some(body) = sources.live.listen(sources.stop) else {
        let again = [(header::RETRY_AFTER, "5")];
        return (again, text(StatusCode::SERVICE_UNAVAILABLE, "enough pages listen already\n".to_owned()))
            .into_response();
    };
    // A proxy that collects what it passes on would hold the news back.
    let at_once = [(HeaderName::from_static("x-accel-buffering"), "no")];
    (content("text/event-stream"), at_once, body).into_response()
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;
    use crate::http::status::Shown;

    async fn get(address: SocketAddr, path: &str) -> (u16, String) {
        let mut stream = tokio::net::TcpStream::connect(address).await.expect("the server listens");
        let request = format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.expect("the server reads");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.expect("the server answers");
        let code = answer.split(' ').nth(1).and_then(|code| code.parse().ok()).expect("a status line");
        (code, answer)
    }

    #[allow(clippy::disallowed_methods, reason = "each test awaits the handle, or its runtime ends the task")]
    async fn serve(health: &Health) -> (SocketAddr, CancellationToken, tokio::task::JoinHandle<Result<(), Error>>) {
        let board = Board::new(Shown { identity: "me_1".to_owned(), ..Shown::default() });
        let any = "127.0.0.1:0".parse().expect("an address");
        let server =
            Server::bind(any, health.clone(), Metrics::new(), board, Peers::default()).await.expect("a free port");
        let (address, stop) = (server.address(), CancellationToken::new());
        (address, stop.clone(), tokio::spawn(server.run(stop)))
    }

    #[tokio::test]
    async fn answers_follow_the_components() {
        let health = Health::default();
        let (address, stop, task) = serve(&health).await;
        let (code, answer) = get(address, "/readyz").await;
        assert!(code == 503 && answer.contains("[-]start"), "{answer}");
        health.component("kafka").not_yet("no broker\nanswers");
        health.component("watch").ok();
        let (code, answer) = get(address, "/readyz?verbose").await;
        assert!(code == 503 && answer.contains("[-]kafka: no broker\\nanswers\n[+]watch ok\n"), "{answer}");
        let (_, page) = get(address, "/").await;
        assert!(page.contains("not ready") && page.contains("me_1") && page.contains("script-src 'sha256-"), "{page}");
        health.component("kafka").ok();
        assert_eq!(get(address, "/readyz").await.0, 200);
        let (code, answer) = get(address, "/readyz?verbose").await;
        assert!(code == 200 && answer.contains("[+]kafka ok\n[+]watch ok\nready\n"), "{answer}");
        assert_eq!(get(address, "/livez").await.0, 200);
        let beat = health.heartbeat("watch-loop", Duration::ZERO);
        let (code, answer) = get(address, "/livez").await;
        assert!(code == 500 && answer.contains("[-]watch-loop"), "{answer}");
        drop(beat);
        assert_eq!(get(address, "/livez").await.0, 200);
        let (_, answer) = get(address, "/metrics").await;
        assert!(
            answer.contains("pod_monitor_tracked_pods{shard=\"0\"} 0") && answer.contains("openmetrics-text"),
            "{answer}"
        );
        let (_, answer) = get(address, "/api/status").await;
        let json = answer.split("\r\n\r\n").nth(1).expect("a body");
        let status: serde_json::Value = serde_json::from_str(json).expect("JSON");
        assert_eq!((&status["identity"], &status["ready"]), (&"me_1".into(), &true.into()), "{status}");
        assert_eq!(get(address, "/nowhere").await.0, 404);
        stop.cancel();
        task.await.expect("no panic").expect("a clean end");
    }

    #[tokio::test]
    async fn an_open_page_hears_what_changes_until_the_server_stops() {
        let health = Health::default();
        let (address, stop, task) = serve(&health).await;
        let mut page = tokio::net::TcpStream::connect(address).await.expect("the server listens");
        page.write_all(b"GET /api/live HTTP/1.1\r\nhost: x\r\n\r\n").await.expect("the server reads");
        let mut heard = Vec::new();
        while !String::from_utf8_lossy(&heard).contains("No component has started yet") {
            assert!(page.read_buf(&mut heard).await.expect("news come") > 0, "{}", String::from_utf8_lossy(&heard));
        }
        let head = String::from_utf8_lossy(&heard).to_lowercase();
        for said in ["200 ok", "content-type: text/event-stream", "cache-control: no-store", "x-accel-buffering: no"] {
            assert!(head.contains(said), "no {said} in {head}");
        }
        health.component("kafka").not_yet("no broker answers");
        while !String::from_utf8_lossy(&heard).contains("kafka: no broker answers") {
            assert!(page.read_buf(&mut heard).await.expect("news come") > 0, "{}", String::from_utf8_lossy(&heard));
        }
        stop.cancel();
        let ended = tokio::time::timeout(Duration::from_secs(1), page.read_to_end(&mut heard)).await;
        ended.expect("the stream ends with the server").expect("cleanly");
        assert!(heard.ends_with(b"0\r\n\r\n"), "{}", String::from_utf8_lossy(&heard));
        task.await.expect("no panic").expect("a clean end");
    }

    #[tokio::test]
    async fn one_page_too_many_is_told_to_come_back() {
        let (address, stop, task) = serve(&Health::default()).await;
        let mut pages = Vec::new();
        for _ in 0..super::super::live::LISTENERS_MAX {
            let mut page = tokio::net::TcpStream::connect(address).await.expect("the server listens");
            page.write_all(b"GET /api/live HTTP/1.1\r\nhost: x\r\n\r\n").await.expect("the server reads");
            assert_eq!(page.read_u8().await.expect("an answer"), b'H');
            pages.push(page);
        }
        let refused = tokio::time::timeout(Duration::from_secs(5), get(address, "/api/live")).await;
        let (code, answer) = refused.expect("an answer that ends");
        assert!(code == 503 && answer.to_lowercase().contains("retry-after: 5"), "{answer}");
        assert_eq!(get(address, "/").await.0, 200, "the page itself is there for everybody");
        stop.cancel();
        task.await.expect("no panic").expect("a clean end");
    }

    /// Half a request, from an address of this machine.
    async fn half_a_request(address: SocketAddr, from: [u8; 4]) -> tokio::net::TcpStream {
        let socket = tokio::net::TcpSocket::new_v4().expect("a socket");
        socket.bind((from, 0).into()).expect("an address of this machine");
        let mut stream = socket.connect(address).await.expect("the server listens");
        stream.write_all(b"GET /livez HTTP/1.1\r\n").await.expect("the server reads");
        stream
    }

    #[tokio::test]
    async fn who_takes_all_places_that_he_can_get_keeps_nobody_out() {
        let (address, stop, task) = serve(&Health::default()).await;
        let (stranger, rest) = ([127, 0, 0, 7], b"host: x\r\nconnection: close\r\n\r\n");
        let mut taken = Vec::new();
        for _ in 0..super::super::clients::EACH_MAX {
            taken.push(half_a_request(address, stranger).await);
        }
        assert_eq!(get(address, "/livez").await.0, 200, "others are answered");
        let mut one_more = half_a_request(address, stranger).await;
        one_more.write_all(rest).await.expect("the server reads");
        assert_eq!(one_more.read_u8().await.expect("and of the same address, too"), b'H');
        let mut answered = 0;
        for mut half in taken {
            // The one that was ended may say so here, too.
            answered += usize::from(half.write_all(rest).await.is_ok() && half.read_u8().await.is_ok());
        }
        assert_eq!(answered, super::super::clients::EACH_MAX - 1, "one made room");
        stop.cancel();
        task.await.expect("no panic").expect("a clean end");
    }

    #[tokio::test]
    async fn a_page_that_says_too_much_makes_room_like_others() {
        let (address, stop, task) = serve(&Health::default()).await;
        let mut page = tokio::net::TcpStream::connect(address).await.expect("the server listens");
        // One byte too many: the server does not read on while it answers, so that it only ever writes.
        page.write_all(b"GET /api/live HTTP/1.1\r\nhost: x\r\n\r\nX").await.expect("the server reads");
        assert_eq!(page.read_u8().await.expect("an answer"), b'H');
        let (mut others, mut heard) = (Vec::new(), Vec::new());
        let ends = async { while page.read_buf(&mut heard).await.is_ok_and(|read| read > 0) {} };
        let come = async {
            // It moves now and then, with news and with beats, and the quietest is another then: some rounds of all places.
            for _ in 0..4 * super::super::clients::EACH_MAX {
                others.push(half_a_request(address, [127, 0, 0, 1]).await);
            }
        };
        let both = tokio::time::timeout(Duration::from_secs(10), async { tokio::join!(ends, come) }).await;
        both.expect("it makes room");
        stop.cancel();
        task.await.expect("no panic").expect("a clean end");
    }

    #[tokio::test(start_paused = true)]
    async fn who_says_nothing_is_let_go_and_an_open_page_is_not() {
        let (address, stop, task) = serve(&Health::default()).await;
        let mut page = tokio::net::TcpStream::connect(address).await.expect("the server listens");
        page.write_all(b"GET /api/live HTTP/1.1\r\nhost: x\r\n\r\n").await.expect("the server reads");
        let mut silent = half_a_request(address, [127, 0, 0, 1]).await;
        let begun = Instant::now();
        let limit = super::super::clients::SILENCE_MAX;
        let ended = tokio::time::timeout(2 * limit, silent.read_u8());
        let hears = async {
            let mut heard = Vec::new();
            while page.read_buf(&mut heard).await.expect("the page stays open") > 0 {
                heard.clear();
            }
        };
        tokio::select! {
            ended = ended => drop(ended.expect("it is let go").expect_err("not answered")),
            () = hears => panic!("the page was closed"),
        }
        let took = begun.elapsed();
        assert!(took >= limit, "let go after {took:?}");
        let three_times = tokio::time::sleep(3 * limit);
        tokio::pin!(three_times);
        let mut heard = Vec::new();
        loop {
            tokio::select! {
                read = page.read_buf(&mut heard) => assert!(read.expect("open") > 0, "the page was closed"),
                () = &mut three_times => break,
            }
        }
        stop.cancel();
        task.await.expect("no panic").expect("a clean end");
    }

    #[tokio::test]
    async fn a_busy_connection_does_not_keep_the_process() {
        let (address, stop, task) = serve(&Health::default()).await;
        let mut stream = tokio::net::TcpStream::connect(address).await.expect("the server listens");
        stream.write_all(b"GET / HTTP/1.1\r\n").await.expect("half a request");
        // Answered only after the server took the connection above over.
        assert_eq!(get(address, "/livez").await.0, 200);
        stop.cancel();
        let limit = DRAIN_MAX + Duration::from_secs(5);
        tokio::time::timeout(limit, task).await.expect("in time").expect("no panic").expect("a clean end");
    }

    #[tokio::test]
    async fn an_address_in_use_is_told_with_its_mend() {
        let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = taken.local_addr().expect("bound");
        let board = Board::new(Shown::default());
        let error = Server::bind(address, Health::default(), Metrics::new(), board, Peers::default())
            .await
            .expect_err("in use");
        let message = error.to_string();
        assert!(message.contains(&address.to_string()) && message.contains("--listen"), "{message}");
    }
}
