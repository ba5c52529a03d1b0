//! Between kube-leader-election and the API server: closes what that crate leaves open.
//!
//! ```text
//!  crate ── GET ────▶ answered here, from what the election decided on: expired, ours, or absent
//!        ── PATCH ──▶ + resourceVersion of that decision, + where the holder is reached ──▶ API server (409: not ours)
//!        ── POST ───▶ + where the holder is reached ─────────────────────────────────────▶ API server (409: not ours)
//! ```
//! By itself the crate PATCHes without a resourceVersion, so that two standbys can both believe that they won; judges
//! expiry by wall clocks; and fails for ever on a null holderIdentity. INV-12: a write to a Lease succeeds only on the
//! version that it was decided on.

use std::{
    future::Future,
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll},
};

use http::{Method, Request, Response, StatusCode};
use k8s_openapi::api::coordination::v1::Lease;
use kube::{Client, client::Body, core::Status};
use serde_json::{Value, json};
use tower::Service;

use super::record::{self, Version};

/// What the next write rests on.
#[derive(Debug, Clone, Default)]
pub(super) struct Decided {
    /// The Lease as the crate is to see it; `None`: absent.
    pub(super) presented: Option<Lease>,
    /// The version that the write must still find.
    pub(super) version: Option<Version>,
    /// Who writes.
    pub(super) me: String,
    /// Where the others reach us.
    pub(super) address: Option<String>,
    /// The installation of which it is a member Lease, if it is one.
    pub(super) installation: Option<String>,
}

/// Shared by the guard and the one who decides.
pub(super) type Slot = Arc<Mutex<Decided>>;

/// A client of the API server that writes one Lease as decided.
#[derive(Clone)]
pub(super) struct Guard {
    inner: Client,
    decided: Slot,
}

type Answer = Result<Response<Body>, tower::BoxError>;

impl Guard {
    pub(super) fn new(inner: Client, decided: Slot) -> Self {
        Self { inner, decided }
    }
}

impl Service<Request<Body>> for Guard {
    type Response = Response<Body>;
    type Error = tower::BoxError;
    type Future = Pin<Box<dyn Future<Output = Answer> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let decided = self.decided.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if request.method() == Method::GET {
            return Box::pin(std::future::ready(present(&decided)));
        }
        let inner = self.inner.clone();
        Box::pin(async move {
            let (head, body) = request.into_parts();
            let body = body.collect_bytes().await?;
            let body = guarded(&body, &decided, head.method == Method::PATCH)?;
            let mut head = head;
            head.uri = managed_by_one(&head.uri)?;
            head.headers.remove(http::header::CONTENT_LENGTH);
            Ok(inner.send(Request::from_parts(head, Body::from(body))).await?)
        })
    }
}

/// The answer to the crate's GET.
fn present(decided: &Decided) -> Answer {
    let (code, body) = match &decided.presented {
        Some(lease) => (StatusCode::OK, serde_json::to_vec(lease)?),
        None => {
            let status = Status { code: 404, reason: "NotFound".into(), ..Status::failure("no Lease", "NotFound") };
            (StatusCode::NOT_FOUND, serde_json::to_vec(&status)?)
        }
    };
    Ok(Response::builder().status(code).header("content-type", "application/json").body(Body::from(body))?)
}

/// A write's body with its guard. A POST has none but its name: there must be no Lease.
fn guarded(body: &[u8], decided: &Decided, patch: bool) -> Result<Vec<u8>, tower::BoxError> {
    let mut body: Value = serde_json::from_slice(body)?;
    let metadata = body.get_mut("metadata").and_then(Value::as_object_mut).ok_or("a Lease without metadata")?;
    if patch {
        let version = decided.version.ok_or("INV-12: a write to a Lease without the version it was decided on")?;
        metadata.insert("resourceVersion".into(), json!(version.0.to_string()));
    }
    let annotations = record::annotations(&decided.me, decided.address.as_deref());
    let annotations: serde_json::Map<String, Value> = annotations
        .into_iter()
        .filter(|(_, value)| patch || value.is_some())
        .map(|(key, value)| (key.to_owned(), json!(value)))
        .collect();
    metadata.insert("annotations".into(), Value::Object(annotations));
    if let Some(installation) = &decided.installation {
        metadata.insert("labels".into(), json!({ record::INSTALLATION: installation }));
    }
    Ok(serde_json::to_vec(&body)?)
}

/// The crate names itself by our identity as field manager: one more for each start of a process, all of which the API
/// server would keep in managedFields.
fn managed_by_one(uri: &http::Uri) -> Result<http::Uri, tower::BoxError> {
    Ok(format!("{}?fieldManager=pod-monitor", uri.path()).parse()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decided(version: Option<u64>, address: Option<&str>) -> Decided {
        let (version, address) = (version.map(Version), address.map(str::to_owned));
        Decided { presented: None, version, me: "me".into(), address, installation: None }
    }

    #[test]
    fn a_patch_carries_the_version_it_was_decided_on() {
        let body = br#"{"metadata":{"name":"l"},"spec":{"renewTime":"t"}}"#;
        let sent: Value =
            serde_json::from_slice(&guarded(body, &decided(Some(7), Some("a:1")), true).expect("guarded"))
                .expect("JSON");
        assert_eq!(sent["metadata"]["resourceVersion"], "7");
        assert_eq!(sent["metadata"]["annotations"], json!({ record::ADDRESS: "a:1", record::INSTANCE: "me" }));
        assert_eq!(sent["spec"]["renewTime"], "t");
        assert!(guarded(body, &decided(None, None), true).is_err(), "INV-12");
    }

    #[test]
    fn a_member_lease_is_labelled_by_each_write() {
        let decided = Decided { installation: Some("runs".into()), ..decided(Some(7), None) };
        for patch in [true, false] {
            let sent = guarded(br#"{"metadata":{"name":"l"}}"#, &decided, patch).expect("guarded");
            let sent: Value = serde_json::from_slice(&sent).expect("JSON");
            assert_eq!(sent["metadata"]["labels"], json!({ record::INSTALLATION: "runs" }));
        }
    }

    #[test]
    fn without_an_address_that_of_an_earlier_holder_is_removed() {
        let body = br#"{"metadata":{"name":"l"}}"#;
        let sent = |patch| -> Value {
            serde_json::from_slice(&guarded(body, &decided(Some(7), None), patch).expect("guarded")).expect("JSON")
        };
        assert_eq!(sent(true)["metadata"]["annotations"], json!({ record::ADDRESS: null, record::INSTANCE: "me" }));
        assert_eq!(sent(false)["metadata"]["annotations"], json!({ record::INSTANCE: "me" }), "a new one has no nulls");
    }
}
