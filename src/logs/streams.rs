//! Where output is read from: the port [`LogSource`], and its implementation over the API server's `pods/log`.
//!
//! Promises: no retries of its own (the capture has a deadline and decides), no output in errors. What the servers do,
//! as read in the sources of Kubernetes 1.36:
//! - `stream=Stdout|Stderr` with the gate `PodLogsQuerySplitStreams` off: the API server answers 422; a kubelet with its
//!   gate off behind an API server with it on answers 400; servers before 1.32 ignore the parameter and send everything.
//! - A kubelet that cannot find the log has often sent its 200 already; then the body says so ([`is_kubelet_failure`]).
//! - A kubelet that fails in the midst of a log appends what went wrong to the output ([`kubelet_failure_at_end`]).
//! - An API server that loses the kubelet in the midst of a log ends its own answer as if that were all
//!   (`StreamObject` passes over the error of its copy): a clean end proves nothing, the last line does.
//! - Only the current file of a log is served: what was rotated away is neither there nor mentioned.
//! - A pod that was never bound answers 204.

use std::future::Future;

use bytes::Bytes;
use futures::{StreamExt, TryStreamExt, stream::BoxStream};
use http::{Request, StatusCode, header};
use kube::client::Body;

use super::reason;
use crate::watch::{
    pod::{Decoded, PodUid, decode},
    url::percent,
};

/// A body that is one of the kubelet's failures is at most this long, in bytes (paths have at most 4096).
pub const KUBELET_FAILURE_BYTES_MAX: usize = 8192;

/// The largest pod, in bytes: what etcd takes (1.5 MiB), with room for JSON.
const POD_BYTES_MAX: usize = 4 << 20;

/// Begins what a kubelet appends to a log that it follows when the container is removed under it.
const KUBELET_NOT_FOUND: &[u8] = b"rpc error: code = NotFound desc = an error occurred when try to find container \"";
const KUBELET_NOT_FOUND_END: &[u8] = b"\": not found";
/// Characters of a container's id, at most.
const CONTAINER_ID_MAX: usize = 128;
/// What is appended is at most this long, in bytes.
pub const KUBELET_APPENDS_MAX: usize = KUBELET_NOT_FOUND.len() + CONTAINER_ID_MAX + KUBELET_NOT_FOUND_END.len();

/// How the kubelet's failures begin. It sends them without a newline, output mostly ends with one.
const KUBELET_FAILURES: [&[u8]; 3] = [
    b"unable to retrieve container logs for ",
    b"failed to try resolving symlinks in path ",
    b"failed to open log file ",
];

/// Which of a container's streams to read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Stream {
    /// Both, interleaved as they were written.
    All,
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

/// Which run of a container: it may have been restarted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Run {
    /// The one that runs, or ended last.
    Latest,
    /// The one before.
    Previous,
}

/// How much of a log to read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Part {
    /// All that is there.
    Whole,
    /// The last line of both streams.
    LastLine,
    /// All that is there, and what is written until the container ends.
    Followed,
    /// The last line of both streams, and what is written until the container ends.
    LastLineFollowed,
}

/// What to read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LogRequest<'a> {
    /// Namespace.
    pub namespace: &'a str,
    /// Pod name.
    pub pod_name: &'a str,
    /// Container name.
    pub container: &'a str,
    /// Which stream.
    pub stream: Stream,
    /// Which run.
    pub run: Run,
    /// How much.
    pub part: Part,
}

/// Whose name it is, and how often its container was restarted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Holder {
    /// UID of the pod.
    pub uid: PodUid,
    /// `restartCount` of the container; `None` where the status does not say.
    pub restart_count: Option<u32>,
}

/// Output as it comes in.
pub type Chunks = BoxStream<'static, Result<Bytes, Error>>;

/// Reads logs by name, and says whose name it is.
pub trait LogSource: Send + Sync + 'static {
    /// Reads a log. Fails with what the server answered; the stream fails if the connection breaks in its midst.
    fn read(&self, request: &LogRequest<'_>) -> impl Future<Output = Result<Chunks, Error>> + Send;

    /// The pod that has this name now; `None` if no pod has.
    fn holder(
        &self,
        namespace: &str,
        name: &str,
        container: &str,
    ) -> impl Future<Output = Result<Option<Holder>, Error>> + Send;
}

/// Why logs could not be read. Holds no output.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The server answered with another status than 200.
    #[error("the server answered {status} to a request for {what}{}", hint(*.status, .what))]
    Status {
        /// HTTP status.
        status: StatusCode,
        /// The resource, as roles name it.
        what: &'static str,
    },
    /// A name does not make a request.
    #[error("build a request for {what}")]
    Build {
        /// The resource.
        what: &'static str,
        /// Why.
        #[source]
        source: http::Error,
    },
    /// No answer: connection, TLS or authentication failed.
    #[error("send a request for {what}")]
    Send {
        /// The resource.
        what: &'static str,
        /// Why.
        #[source]
        source: Box<kube::Error>,
    },
    /// The connection broke in the midst of an answer.
    #[error("read the body of {what}")]
    Body {
        /// The resource.
        what: &'static str,
        /// Why.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The answer to a request for a pod is none.
    #[error("read a pod")]
    Pod,
}

fn hint(status: StatusCode, what: &str) -> String {
    match status {
        StatusCode::FORBIDDEN | StatusCode::UNAUTHORIZED => format!(": the role lacks the verb `get` on `{what}`"),
        _ => String::new(),
    }
}

/// What the caller may do about an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Class {
    /// Try again.
    Transient,
    /// What was asked for is not there.
    Gone,
    /// Asking again gives the same answer.
    Refused,
}

impl Error {
    /// The HTTP status, where the server answered.
    pub fn status(&self) -> Option<StatusCode> {
        match self {
            Self::Status { status, .. } => Some(*status),
            Self::Build { .. } | Self::Send { .. } | Self::Body { .. } | Self::Pod => None,
        }
    }

    /// What the caller may do.
    pub fn class(&self) -> Class {
        match self {
            Self::Status { status, .. } => match status.as_u16() {
                404 | 204 => Class::Gone,
                408 | 429 | 500.. => Class::Transient,
                _ => Class::Refused,
            },
            Self::Send { .. } | Self::Body { .. } => Class::Transient,
            Self::Build { .. } | Self::Pod => Class::Refused,
        }
    }

    /// The word of `logs.reason` for it.
    pub fn reason(&self) -> &'static str {
        match self.status().map(|status| status.as_u16()) {
            Some(404) => reason::POD_GONE,
            Some(204 | 400) => reason::CONTAINER_NOT_STARTED,
            Some(401 | 403) => reason::FORBIDDEN,
            Some(408 | 500..) => reason::NODE_UNREACHABLE,
            Some(_) | None => reason::READ_ERROR,
        }
    }
}

/// Whether this is a whole body in which a kubelet says that it has no log, rather than output. A log that merely
/// contains such a text is output.
pub fn is_kubelet_failure(body: &[u8]) -> bool {
    let line = body.strip_suffix(b"\n").unwrap_or(body);
    body.len() <= KUBELET_FAILURE_BYTES_MAX
        && !line.contains(&b'\n')
        && KUBELET_FAILURES.iter().any(|failure| line.len() > failure.len() && line.starts_with(failure))
}

/// Where what a kubelet appended to the end of a followed log begins, if it did. It adds no newline, and is told from
/// output that ends with the same words by nothing: what ends so is never called complete.
pub fn kubelet_failure_at_end(end: &[u8]) -> Option<usize> {
    let ended = end.strip_suffix(KUBELET_NOT_FOUND_END)?;
    let at = ended.windows(KUBELET_NOT_FOUND.len()).rposition(|window| window == KUBELET_NOT_FOUND)?;
    let id = &ended[at + KUBELET_NOT_FOUND.len()..];
    (!id.is_empty() && id.len() <= CONTAINER_ID_MAX && id.iter().all(u8::is_ascii_alphanumeric)).then_some(at)
}

/// Reads logs through an API server.
#[derive(Clone)]
pub struct KubeLogs {
    client: kube::Client,
}

impl KubeLogs {
    /// A reader with a client of its own, without kube's retries: they may wait longer than a capture has. Fails if the
    /// configuration makes no client.
    pub fn new(mut config: kube::Config) -> Result<Self, Error> {
        config.default_retry = false;
        let client =
            kube::Client::try_from(config).map_err(|source| Error::Send { what: LOG, source: Box::new(source) })?;
        Ok(Self { client })
    }

    async fn get(&self, what: &'static str, path: &str, accept: &str) -> Result<Chunks, Error> {
        let request = Request::get(path)
            .header(header::ACCEPT, accept)
            .body(Body::empty())
            .map_err(|source| Error::Build { what, source })?;
        let response =
            self.client.send(request).await.map_err(|source| Error::Send { what, source: Box::new(source) })?;
        if response.status() != StatusCode::OK {
            // The error's text is dropped: a kubelet may put anything into it.
            return Err(Error::Status { status: response.status(), what });
        }
        // kube's body has no stream of its own; axum's wrapper is the one we already have.
        let body = axum::body::Body::new(response.into_body()).into_data_stream();
        Ok(body.map_err(move |source| Error::Body { what, source: source.into_inner() }).boxed())
    }
}

const LOG: &str = "pods/log";
const POD: &str = "pods";

impl LogSource for KubeLogs {
    async fn read(&self, request: &LogRequest<'_>) -> Result<Chunks, Error> {
        self.get(LOG, &log_path(request), "*/*").await
    }

    async fn holder(&self, namespace: &str, name: &str, container: &str) -> Result<Option<Holder>, Error> {
        let mut chunks = match self.get(POD, &pod_path(namespace, name), "application/json").await {
            Ok(chunks) => chunks,
            Err(Error::Status { status: StatusCode::NOT_FOUND, .. }) => return Ok(None),
            Err(error) => return Err(error),
        };
        let mut body = Vec::new();
        while let Some(chunk) = chunks.next().await {
            body.extend_from_slice(&chunk?);
            if body.len() > POD_BYTES_MAX {
                return Err(Error::Pod);
            }
        }
        let (Decoded::Whole(pod) | Decoded::Partly { pod, .. }) = decode(&String::from_utf8_lossy(&body)) else {
            return Err(Error::Pod);
        };
        let statuses = pod.status.container_statuses.iter().chain(&pod.status.init_container_statuses);
        let status = statuses.into_iter().find(|status| *status.name == *container);
        Ok(Some(Holder { uid: pod.metadata.uid, restart_count: status.map(|status| status.restart_count) }))
    }
}

fn pod_path(namespace: &str, name: &str) -> String {
    format!("/api/v1/namespaces/{}/pods/{}", percent(namespace), percent(name))
}

fn log_path(request: &LogRequest<'_>) -> String {
    let stream = match request.stream {
        // The default, and the only value that a server without the gate takes is none.
        Stream::All => "",
        Stream::Stdout => "&stream=Stdout",
        Stream::Stderr => "&stream=Stderr",
    };
    let part = match request.part {
        Part::Whole => "",
        Part::LastLine => "&tailLines=1",
        Part::Followed => "&follow=true",
        Part::LastLineFollowed => "&follow=true&tailLines=1",
    };
    let run = match request.run {
        Run::Latest => "",
        Run::Previous => "&previous=true",
    };
    let (pod, container) = (pod_path(request.namespace, request.pod_name), percent(request.container));
    format!("{pod}/log?container={container}{stream}{part}{run}")
}

#[cfg(test)]
#[path = "streams_tests.rs"]
mod tests;
