//! The requests that are made, and how answers are judged.

use std::sync::{Arc, Mutex};

use axum::{Router, http::Uri, response::IntoResponse};
use tokio::{net::TcpListener, task::JoinSet};

use super::*;

#[test]
fn names_cannot_leave_their_place_in_the_path() {
    let (run, part) = (Run::Latest, Part::Whole);
    let request =
        LogRequest { namespace: "a/b", pod_name: "x?y", container: "c&d e", stream: Stream::Stderr, run, part };
    assert_eq!(log_path(&request), "/api/v1/namespaces/a%2Fb/pods/x%3Fy/log?container=c%26d%20e&stream=Stderr");
    let request = LogRequest { namespace: "ns", pod_name: "p.1", container: "main", stream: Stream::All, run, part };
    assert_eq!(log_path(&request), "/api/v1/namespaces/ns/pods/p.1/log?container=main");
    let request = LogRequest { run: Run::Previous, part: Part::LastLineFollowed, ..request };
    let expected = "/api/v1/namespaces/ns/pods/p.1/log?container=main&follow=true&tailLines=1&previous=true";
    assert_eq!(log_path(&request), expected);
}

#[test]
fn a_kubelets_failure_is_told_from_output() {
    let cases: [(&[u8], bool); 7] = [
        (b"unable to retrieve container logs for containerd://0123abc", true),
        (b"unable to retrieve container logs for containerd://0123abc\n", true),
        (b"failed to try resolving symlinks in path \"/var/log/x\": lstat /var/log/x: no such file", true),
        (b"unable to retrieve container logs for containerd://0123abc\nand more\n", false),
        (b"grep: unable to retrieve container logs for containerd://0123abc", false),
        (b"unable to retrieve container logs for ", false),
        (b"", false),
    ];
    for (body, expected) in cases {
        assert_eq!(is_kubelet_failure(body), expected, "{}", String::from_utf8_lossy(body));
    }
}

#[test]
fn every_status_has_a_class_and_a_reason() {
    for (status, class, expected) in [
        (404, Class::Gone, reason::POD_GONE),
        (204, Class::Gone, reason::CONTAINER_NOT_STARTED),
        (400, Class::Refused, reason::CONTAINER_NOT_STARTED),
        (403, Class::Refused, reason::FORBIDDEN),
        (500, Class::Transient, reason::NODE_UNREACHABLE),
        (504, Class::Transient, reason::NODE_UNREACHABLE),
        (429, Class::Transient, reason::READ_ERROR),
        (422, Class::Refused, reason::READ_ERROR),
    ] {
        let status = StatusCode::from_u16(status).expect("a status");
        let error = Error::Status { status, what: LOG };
        assert_eq!((error.class(), error.reason()), (class, expected), "{status}");
        assert!(reason::ALL.contains(&error.reason()));
    }
    let forbidden = Error::Status { status: StatusCode::FORBIDDEN, what: LOG };
    assert!(forbidden.to_string().contains("verb `get` on `pods/log`"), "{forbidden}");
}

/// An API server on the loopback that knows one pod, and the paths it was asked for.
async fn api_server(tasks: &mut JoinSet<()>) -> (KubeLogs, Arc<Mutex<Vec<String>>>) {
    let asked = Arc::new(Mutex::new(Vec::new()));
    let seen = Arc::clone(&asked);
    let app = Router::new().fallback(move |uri: Uri| {
        seen.lock().expect("not poisoned").push(uri.to_string());
        async move {
            match uri.path() {
                "/api/v1/namespaces/ns/pods/here/log" => (StatusCode::OK, "line\n").into_response(),
                "/api/v1/namespaces/ns/pods/here" => {
                    let statuses = r#"[{"name":"other","restartCount":9},{"name":"main","restartCount":2}]"#;
                    format!(r#"{{"metadata":{{"uid":"u-1","name":"p","namespace":"ns"}},"status":{{"containerStatuses":{statuses}}}}}"#)
                        .into_response()
                }
                "/api/v1/namespaces/ns/pods/cut/log" => {
                    let chunks = [Ok(Bytes::from_static(b"beginning")), Err("broken")];
                    // Flushed on its own, or hyper drops the connection before the first chunk is out.
                    let chunks = futures::stream::iter(chunks).then(|chunk| async {
                        tokio::task::yield_now().await;
                        chunk
                    });
                    axum::body::Body::from_stream(chunks).into_response()
                }
                "/api/v1/namespaces/ns/pods/away/log" => (StatusCode::SERVICE_UNAVAILABLE, "secret").into_response(),
                _ => StatusCode::NOT_FOUND.into_response(),
            }
        }
    });
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("an address");
    tasks.spawn(async move { axum::serve(listener, app).await.expect("serves until dropped") });
    let config = kube::Config::new(format!("http://{address}").parse().expect("a URI"));
    (KubeLogs::new(config).expect("a client"), asked)
}

fn log_of(pod_name: &str) -> LogRequest<'_> {
    let (run, part) = (Run::Latest, Part::Whole);
    LogRequest { namespace: "ns", pod_name, container: "main", stream: Stream::Stdout, run, part }
}

async fn read_all(logs: &KubeLogs, pod_name: &str) -> (Vec<u8>, Option<Error>) {
    let mut chunks = match logs.read(&log_of(pod_name)).await {
        Ok(chunks) => chunks,
        Err(error) => return (Vec::new(), Some(error)),
    };
    let mut all = Vec::new();
    while let Some(chunk) = chunks.next().await {
        match chunk {
            Ok(bytes) => all.extend_from_slice(&bytes),
            Err(error) => return (all, Some(error)),
        }
    }
    (all, None)
}

#[tokio::test]
async fn logs_and_uids_are_read_over_http() {
    let mut tasks = JoinSet::new();
    let (logs, asked) = api_server(&mut tasks).await;
    let (output, error) = read_all(&logs, "here").await;
    assert!(output == b"line\n" && error.is_none(), "{error:?}");
    let holder = Holder { uid: PodUid("u-1".into()), restart_count: Some(2) };
    assert_eq!(logs.holder("ns", "here", "main").await.expect("answered"), Some(holder));
    assert_eq!(logs.holder("ns", "gone", "main").await.expect("answered"), None);
    assert_eq!(
        asked.lock().expect("not poisoned").as_slice(),
        [
            "/api/v1/namespaces/ns/pods/here/log?container=main&stream=Stdout",
            "/api/v1/namespaces/ns/pods/here",
            "/api/v1/namespaces/ns/pods/gone"
        ]
    );
}

#[tokio::test]
async fn failures_are_told_once_and_without_their_text() {
    let mut tasks = JoinSet::new();
    let (logs, asked) = api_server(&mut tasks).await;
    let (_, error) = read_all(&logs, "away").await;
    let error = error.expect("503 is a failure");
    assert_eq!((error.class(), error.reason()), (Class::Transient, reason::NODE_UNREACHABLE));
    assert!(!format!("{error} {error:?}").contains("secret"));
    assert_eq!(asked.lock().expect("not poisoned").len(), 1, "kube's own retries are off");

    let (output, error) = read_all(&logs, "cut").await;
    assert_eq!(output, b"beginning");
    assert_eq!(error.map(|error| error.class()), Some(Class::Transient));
}
