//! A proxy before the stack's API server that tampers with what it says: lines rewritten or cut, requests refused,
//! watches that fall silent with their connection open.
//!
//! ```text
//!  monitor ─http─▶ refuse? ─▶ API server ─▶ line by line: rewrite? cut? ─▶ monitor
//!                  (each request is noted)   └─ hush: open watches say nothing more, close: they end
//! ```
//! It runs on a thread of its own, so that a test which blocks does not hold it up, and ends when dropped.

use std::{
    net::{SocketAddr, TcpListener},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    thread::{self, JoinHandle},
    time::Duration,
};

use anyhow::{Context, Result};
use axum::{
    Router,
    body::{Body, Bytes, to_bytes},
    extract::{Request, State},
    response::Response,
};
use futures::{
    Stream, StreamExt,
    future::pending,
    stream::{BoxStream, unfold},
};
use http::{StatusCode, Uri, header::CONTENT_TYPE};
use kube::{
    Client, Config,
    config::{KubeConfigOptions, Kubeconfig},
};
use serde_json::json;
use testkit::{clients::until, stack::Endpoints};
use tokio::{
    runtime::{Builder, Runtime},
    sync::{oneshot, watch},
    time::Instant,
};

use super::{LIMIT, proxy::write};

/// What a request asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A watch of pods.
    Watch,
    /// A LIST of pods.
    List,
    /// The LIST of no pod at all that asks for the store's version.
    Version,
    /// Anything else.
    Other,
}

impl Kind {
    fn of(uri: &Uri) -> Self {
        let query = uri.query().unwrap_or_default();
        match query {
            _ if !uri.path().ends_with("/pods") => Self::Other,
            query if query.contains("watch=true") => Self::Watch,
            query if query.contains("fieldSelector=") => Self::Version,
            _ => Self::List,
        }
    }
}

/// What is to be sent instead of one line of a watch, or of the one line of a LIST; `None`: that line. After a text
/// without a line end the answer ends.
type Rewrite = Box<dyn FnMut(Kind, &str) -> Option<String> + Send>;

#[derive(Default)]
struct Orders {
    rewrite: Option<Rewrite>,
    refuse: Option<(Vec<Kind>, StatusCode)>,
    requests: Vec<(Kind, Instant)>,
}

/// Watches are numbered in the order of their opening.
#[derive(Debug, Clone, Copy, Default)]
struct Switch {
    opened: u64,
    silent_to: u64,
    closed_to: u64,
}

#[derive(Default)]
struct Shared {
    orders: Mutex<Orders>,
    switch: watch::Sender<Switch>,
}

impl Shared {
    fn orders(&self) -> MutexGuard<'_, Orders> {
        self.orders.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn rewritten(&self, kind: Kind, line: String) -> String {
        let instead = self.orders().rewrite.as_mut().and_then(|rewrite| rewrite(kind, &line));
        instead.unwrap_or(line)
    }
}

/// The proxy.
pub(crate) struct Tamper {
    address: SocketAddr,
    shared: Arc<Shared>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Tamper {
    /// Before the API server of this stack. Passes everything on until told otherwise.
    pub(crate) async fn before(endpoints: &Endpoints) -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        listener.set_nonblocking(true)?;
        let address = listener.local_addr()?;
        let (shared, kubeconfig) = (Arc::new(Shared::default()), Kubeconfig::read_from(&endpoints.kubeconfig)?);
        let (stop, stopped) = oneshot::channel();
        let (begun, begins) = oneshot::channel();
        let (runtime, state) = (Builder::new_current_thread().enable_all().build()?, Arc::clone(&shared));
        let thread = thread::spawn(move || serve(&runtime, listener, kubeconfig, state, begun, stopped));
        begins.await.context("the proxy ended")??;
        Ok(Self { address, shared, stop: Some(stop), thread: Some(thread) })
    }

    /// A kubeconfig by which the API server is reached through here, as a file of this name.
    pub(crate) fn kubeconfig(&self, endpoints: &Endpoints, name: &str) -> Result<String> {
        let mut config = Kubeconfig::read_from(&endpoints.kubeconfig)?;
        for cluster in config.clusters.iter_mut().filter_map(|c| c.cluster.as_mut()) {
            cluster.server = Some(format!("http://{}", self.address));
        }
        write(endpoints, name, &config)
    }

    /// From now on lines are what this makes of them.
    pub(crate) fn rewrite(&self, rewrite: impl FnMut(Kind, &str) -> Option<String> + Send + 'static) {
        self.shared.orders().rewrite = Some(Box::new(rewrite));
    }

    /// From now on requests of these kinds are answered by this code.
    pub(crate) fn refuse(&self, kinds: &[Kind], code: StatusCode) {
        self.shared.orders().refuse = Some((kinds.to_vec(), code));
    }

    /// Passes everything on again; what has fallen silent stays so.
    pub(crate) fn behave(&self) {
        let mut orders = self.shared.orders();
        (orders.rewrite, orders.refuse) = (None, None);
    }

    /// Watches that are open now say nothing more, with their connections open.
    pub(crate) fn hush(&self) {
        self.shared.switch.send_modify(|s| s.silent_to = s.opened);
    }

    /// Watches that are open now end.
    pub(crate) fn close(&self) {
        self.shared.switch.send_modify(|s| s.closed_to = s.opened);
    }

    /// How many requests of this kind came so far.
    pub(crate) fn count(&self, kind: Kind) -> usize {
        self.shared.orders().requests.iter().filter(|(k, _)| *k == kind).count()
    }

    /// Waits for so many more requests of this kind, from now on; gives the time between the first and the last of them.
    pub(crate) async fn span(&self, kind: Kind, requests: usize) -> Result<Duration> {
        let from = self.shared.orders().requests.len();
        let look = async || {
            let orders = self.shared.orders();
            let mut times = orders.requests[from..].iter().filter(|(k, _)| *k == kind).map(|(_, at)| *at);
            let first = times.next();
            let last = times.nth(requests.saturating_sub(2));
            Ok(first.zip(last).map(|(first, last)| last.duration_since(first)))
        };
        until(LIMIT, &format!("{requests} requests of kind {kind:?}"), look).await
    }
}

impl Drop for Tamper {
    fn drop(&mut self) {
        drop(self.stop.take());
        // It only ends by panicking where a test's own function does, which then has failed anyway.
        drop(self.thread.take().map(JoinHandle::join));
    }
}

fn serve(
    runtime: &Runtime,
    listener: TcpListener,
    kubeconfig: Kubeconfig,
    shared: Arc<Shared>,
    begun: oneshot::Sender<Result<()>>,
    stopped: oneshot::Receiver<()>,
) {
    runtime.block_on(async {
        let begin = async {
            let config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await?;
            Ok((Client::try_from(config)?, tokio::net::TcpListener::from_std(listener)?))
        };
        let (client, listener) = match begin.await {
            Ok(ready) => ready,
            Err(error) => return drop(begun.send(Err(error))),
        };
        let router = Router::new().fallback(answer).with_state((shared, client));
        drop(begun.send(Ok(())));
        tokio::select! {
            served = async { axum::serve(listener, router).await } => drop(served),
            _ = stopped => {}
        }
    });
}

async fn answer(State((shared, client)): State<(Arc<Shared>, Client)>, request: Request) -> Response {
    let kind = Kind::of(request.uri());
    let refused = {
        let mut orders = shared.orders();
        orders.requests.push((kind, Instant::now()));
        orders.refuse.as_ref().filter(|(kinds, _)| kinds.contains(&kind)).map(|(_, code)| *code)
    };
    if let Some(code) = refused {
        let status = json!({ "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
            "message": "tampered with", "code": code.as_u16() });
        return plain(code, Body::from(status.to_string()));
    }
    let (head, body) = request.into_parts();
    let mut asked = Request::builder().method(head.method).uri(head.uri);
    if let Some(kind) = head.headers.get(CONTENT_TYPE) {
        asked = asked.header(CONTENT_TYPE, kind);
    }
    let body = to_bytes(body, usize::MAX).await.unwrap_or_default();
    match client.send(asked.body(kube::client::Body::from(body)).unwrap()).await {
        Ok(answer) => {
            let (head, body) = answer.into_parts();
            plain(head.status, passed_on(shared, kind, Body::new(body)).await)
        }
        Err(error) => plain(StatusCode::BAD_GATEWAY, Body::from(error.to_string())),
    }
}

fn plain(code: StatusCode, body: Body) -> Response {
    Response::builder().status(code).header(CONTENT_TYPE, "application/json").body(body).unwrap()
}

async fn passed_on(shared: Arc<Shared>, kind: Kind, body: Body) -> Body {
    match kind {
        Kind::Watch => return Body::from_stream(Lines::of(shared, body)),
        // Leases, for instance: nothing that this tampers with.
        Kind::Other => return body,
        Kind::List | Kind::Version => {}
    }
    match to_bytes(body, usize::MAX).await {
        Ok(whole) => Body::from(shared.rewritten(kind, String::from_utf8_lossy(&whole).into_owned())),
        Err(error) => Body::from(error.to_string()),
    }
}

/// The lines of one watch.
struct Lines {
    shared: Arc<Shared>,
    body: BoxStream<'static, Result<Bytes, axum::Error>>,
    switch: watch::Receiver<Switch>,
    number: u64,
    buffer: Vec<u8>,
    over: bool,
}

impl Lines {
    fn of(shared: Arc<Shared>, body: Body) -> impl Stream<Item = Result<String, axum::Error>> + Send + 'static {
        let switch = shared.switch.subscribe();
        shared.switch.send_modify(|s| s.opened += 1);
        let number = shared.switch.borrow().opened;
        let body = body.into_data_stream().boxed();
        unfold(Self { shared, body, switch, number, buffer: Vec::new(), over: false }, Self::next)
    }

    async fn next(mut self) -> Option<(Result<String, axum::Error>, Self)> {
        loop {
            let switch = *self.switch.borrow_and_update();
            if self.number <= switch.silent_to {
                pending::<()>().await;
            }
            if self.over || self.number <= switch.closed_to {
                return None;
            }
            if let Some(end) = self.buffer.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = self.buffer.drain(..=end).collect();
                let line = self.shared.rewritten(Kind::Watch, String::from_utf8_lossy(&line).into_owned());
                self.over = !line.ends_with('\n');
                return Some((Ok(line), self));
            }
            tokio::select! {
                chunk = self.body.next() => match chunk {
                    Some(Ok(chunk)) => self.buffer.extend_from_slice(&chunk),
                    Some(Err(error)) => return Some((Err(error), self)),
                    // Looked at once more: it may have been hushed meanwhile.
                    None if self.buffer.is_empty() => self.over = true,
                    None => self.buffer.push(b'\n'),
                },
                changed = self.switch.changed() => changed.expect("the sender is in `shared`"),
            }
        }
    }
}
