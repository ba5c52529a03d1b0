//! The API server as this service uses it: LIST, WATCH and GET of pods, raw bytes in and slim pods out.
//!
//! Own client, without the retries that kube adds (they would outlast our own limits). Every call has a time limit; the
//! body of a watch has one per line, so that a half-open connection is found.

use std::time::Duration;

use futures::AsyncBufRead;
use http::Request;
use kube::{Client, core::Status};

use super::{
    frame::{Page, read_page},
    lines::Watch,
    pod::{Decoded, PodUid, ResourceVersion, decode},
    traffic::Traffic,
    url::percent,
};
use crate::sharding::ranges::Share;

/// How long the server keeps one watch open: short, since resuming is cheap and each end proves that it lives.
pub(super) const WATCH_SECONDS: u64 = 15;
/// For the answer's head, and for whole answers of GET.
const ANSWER_MAX: Duration = Duration::from_secs(10);
/// For the store's version: lines of a watch wait for it.
const VERSION_MAX: Duration = Duration::from_secs(2);
/// For one page of a LIST.
const PAGE_MAX: Duration = Duration::from_secs(60);
/// Pods per page: bounds the peak of memory, 1000 pods of 6 KB are 6 MB, and as much again
/// when they are read.
pub const PAGE_PODS: u32 = 1000;
/// The parameter by which a server is asked for one shard (KEP-5866).
const SHARD_SELECTOR: &str = "shardSelector";

/// Why the API server could not be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No answer: refused, reset, name not found, TLS.
    #[error("{verb} pods: the API server{} cannot be reached", at(.server))]
    Unreachable {
        /// What was asked.
        verb: &'static str,
        /// Its address, where it is known.
        server: std::sync::Arc<str>,
        /// The client's error.
        #[source]
        source: Box<kube::Error>,
    },
    /// An answer did not come in time.
    #[error("{verb} pods: no answer within {limit:?}")]
    Timeout {
        /// What was asked.
        verb: &'static str,
        /// The limit.
        limit: Duration,
    },
    /// 401 or 403.
    #[error("{verb} pods{}: the API server refuses ({said}). Grant it: {}, and bind it to this ServiceAccount", place(.namespace), grant(.verb, .namespace))]
    Forbidden {
        /// The RBAC verb that is missing.
        verb: &'static str,
        /// The namespace; `None` for all.
        namespace: Option<String>,
        /// The server's words.
        said: String,
    },
    /// 401 or 403 to the question for the cluster's name.
    #[error(
        "get namespace kube-system: the API server refuses ({said}). Set --cluster-id, or grant it: kubectl create clusterrole pod-monitor-cluster-id --verb=get --resource=namespaces --resource-name=kube-system, and bind it to this ServiceAccount"
    )]
    Nameless {
        /// The server's words.
        said: String,
    },
    /// 410: the resourceVersion is compacted away.
    #[error("{verb} pods: the resourceVersion is too old")]
    Expired {
        /// What was asked.
        verb: &'static str,
    },
    /// Any other refusal.
    #[error("{verb} pods: the API server answers {code}: {message}")]
    Refused {
        /// What was asked.
        verb: &'static str,
        /// HTTP status code.
        code: u16,
        /// The Status' message.
        message: String,
    },
    /// The connection broke within the body.
    #[error("{verb} pods: the connection broke")]
    Broken {
        /// What was asked.
        verb: &'static str,
        /// The I/O error.
        #[source]
        source: std::io::Error,
    },
    /// The answer is no list of pods.
    #[error("{verb} pods: unreadable answer: {why}")]
    Unreadable {
        /// What was asked.
        verb: &'static str,
        /// What is wrong with it.
        why: String,
    },
}

fn place(namespace: &Option<String>) -> String {
    namespace.as_ref().map(|n| format!(" --namespace {n}")).unwrap_or_default()
}

fn at(server: &str) -> String {
    if server.is_empty() { String::new() } else { format!(" at {server}") }
}

/// A role holds in one namespace, a cluster role in all.
fn grant(verb: &str, namespace: &Option<String>) -> String {
    let kind = if namespace.is_some() { "role" } else { "clusterrole" };
    let place = place(namespace);
    match verb {
        // What only some settings need: a role beside the one that is there.
        "patch" | "delete" => format!("kubectl create {kind} pod-monitor-{verb} --verb={verb} --resource=pods{place}"),
        _ => format!("kubectl create {kind} pod-monitor --verb=get,list,watch --resource=pods,pods/log{place}"),
    }
}

/// Which pods: one watch stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Scope {
    /// One namespace; `None` for all.
    pub namespace: Option<String>,
    /// Label selector as the API takes it.
    pub selector: String,
    /// Which of these pods.
    pub share: Share,
}

impl Scope {
    /// The stream's name in positions: the namespace, or "" for all.
    pub fn stream(&self) -> &str {
        self.namespace.as_deref().unwrap_or("")
    }

    /// Anything in a namespace, asked for by name.
    fn anything(namespace: String) -> Self {
        Self { namespace: Some(namespace), selector: String::new(), share: Share::whole() }
    }

    fn path(&self) -> String {
        match &self.namespace {
            Some(namespace) => format!("/api/v1/namespaces/{namespace}/pods"),
            None => "/api/v1/pods".into(),
        }
    }

    fn url(&self, parameters: &[(&str, &str)]) -> String {
        let mut url = format!("{}?labelSelector={}", self.path(), percent(&self.selector));
        for (key, value) in parameters {
            url.push_str(&format!("&{key}={}", percent(value)));
        }
        url
    }
}

/// The API server's pods.
#[derive(Clone)]
pub struct Pods {
    client: Client,
    server: std::sync::Arc<str>,
    who: std::sync::Arc<str>,
    traffic: Traffic,
}

impl std::fmt::Debug for Pods {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Pods")
    }
}

impl Pods {
    /// Over a client without retries.
    pub fn new(client: Client) -> Self {
        Self { client, server: "".into(), who: "".into(), traffic: Traffic::default() }
    }

    /// Names the server's address in errors.
    #[must_use]
    pub fn at(self, server: &str) -> Self {
        Self { server: server.into(), ..self }
    }

    /// Names the replica that asks, so that several do not try again in step.
    #[must_use]
    pub fn by(self, who: &str) -> Self {
        Self { who: who.into(), ..self }
    }

    /// With counts of its own.
    #[must_use]
    pub fn counted_apart(&self) -> Self {
        Self { traffic: Traffic::default(), ..self.clone() }
    }

    /// What came over its watches.
    pub fn traffic(&self) -> &Traffic {
        &self.traffic
    }

    /// The replica that asks.
    pub fn who(&self) -> &str {
        &self.who
    }

    /// One page of a consistent LIST (no resourceVersion asked for: never older than when it was asked).
    ///
    /// # Errors
    /// As [`Error`] says; `Expired` means the LIST is to be begun anew.
    pub async fn list_page(&self, scope: &Scope, next: Option<&str>) -> Result<Page, Error> {
        let limit = PAGE_PODS.to_string();
        let shard = self.selector(scope);
        let mut parameters = vec![("limit", limit.as_str())];
        parameters.extend(next.map(|token| ("continue", token)));
        parameters.extend(shard.as_deref().map(|shard| (SHARD_SELECTOR, shard)));
        let text = within("list", PAGE_MAX, self.client.request_text(get(&scope.url(&parameters)))).await?;
        let text = text.map_err(|e| self.declined(shard.is_some(), self.refused("list", scope, e)))?;
        let page = read_page(&text).map_err(|why| Error::Unreadable { verb: "list", why })?;
        // Only an answer that says so leaves anything out: a server that does not know the parameter ignores it.
        match (&page.shard, &shard) {
            (Some(told), asked) if asked.as_ref() != Some(told) => {
                let why = format!("it is of the shard {told}, asked was for {}", asked.as_deref().unwrap_or("all"));
                // What such a server leaves out is not known: from now on it is to send all.
                if self.traffic.decline() {
                    tracing::warn!(why, "the API server is asked for the pods of all shards from now on");
                }
                return Err(Error::Unreadable { verb: "list", why });
            }
            (told, _) => self.traffic.server_side(told.is_some()),
        }
        Ok(page)
    }

    /// What the server is asked to leave the others out by.
    fn selector(&self, scope: &Scope) -> Option<String> {
        scope.share.selector().filter(|_| !self.traffic.is_declined())
    }

    /// INV-18: whether a pod that the server sent belongs to the shard; counted, if it does not. One without readable metadata is
    /// everybody's: it is only counted and logged.
    pub fn is_ours(&self, scope: &Scope, decoded: &Decoded) -> bool {
        let ours = decoded.metadata().is_none_or(|metadata| scope.share.holds(metadata));
        if !ours {
            self.traffic.foreign();
        }
        ours
    }

    /// A server that refuses the question is not asked it again: everything is left out on our side.
    fn declined(&self, asked: bool, error: Error) -> Error {
        if let Error::Refused { code: 400..=500, message, .. } = &error
            && asked
            && message.to_lowercase().contains("shard")
            && self.traffic.decline()
        {
            tracing::warn!(message, "the API server takes no shardSelector: it sends the pods of all shards");
        }
        error
    }

    /// The version that a consistent read has now: never lower than one that was seen before, unless the cluster's store
    /// was reset. Asks for no pod, which costs the server one look-up.
    ///
    /// # Errors
    /// As [`Error`] says.
    pub async fn version(&self, scope: &Scope) -> Result<ResourceVersion, Error> {
        let namespace = scope.namespace.clone().unwrap_or_else(|| "default".into());
        let none = Scope::anything(namespace);
        let url = none.url(&[("fieldSelector", "metadata.name=none"), ("limit", "1")]);
        let text = within("list", VERSION_MAX, self.client.request_text(get(&url))).await?;
        let page = read_page(&text.map_err(|e| self.refused("list", scope, e))?);
        page.map(|page| page.version).map_err(|why| Error::Unreadable { verb: "list", why })
    }

    /// Opens a watch that begins right after `from`.
    ///
    /// # Errors
    /// As [`Error`] says; `Expired` means that only a LIST helps.
    pub async fn watch(
        &self,
        scope: &Scope,
        from: ResourceVersion,
    ) -> Result<Watch<impl AsyncBufRead + Unpin + use<>>, Error> {
        let (from, seconds) = (from.to_string(), WATCH_SECONDS.to_string());
        let shard = self.selector(scope);
        let mut parameters = vec![
            ("watch", "true"),
            ("resourceVersion", from.as_str()),
            ("allowWatchBookmarks", "true"),
            ("timeoutSeconds", seconds.as_str()),
        ];
        parameters.extend(shard.as_deref().map(|shard| (SHARD_SELECTOR, shard)));
        let url = scope.url(&parameters);
        let lines = within("watch", ANSWER_MAX, self.client.request_stream(get(&url))).await?;
        let lines = lines.map_err(|e| self.declined(shard.is_some(), self.refused("watch", scope, e)))?;
        Ok(Watch::new(lines, self.traffic.clone()))
    }

    /// The pod of that name, or `None` if there is none.
    ///
    /// # Errors
    /// As [`Error`] says.
    pub async fn get(&self, namespace: &str, name: &str) -> Result<Option<Decoded>, Error> {
        let scope = Scope::anything(namespace.into());
        let url = format!("{}/{}", scope.path(), percent(name));
        match within("get", ANSWER_MAX, self.client.request_text(get(&url))).await? {
            Ok(text) => Ok(Some(decode(&text))),
            Err(kube::Error::Api(status)) if status.code == 404 => Ok(None),
            Err(error) => Err(self.refused("get", &scope, error)),
        }
    }

    /// Patches a pod by JSON Patch (RFC 6902), whose `test` operations guard it. `None`: there is no pod of that name.
    ///
    /// # Errors
    /// As [`Error`] says; a `test` that fails is `Refused` with 422.
    pub async fn patch(&self, namespace: &str, name: &str, patch: Vec<u8>) -> Result<Option<()>, Error> {
        let request = |url: &str| {
            let patch =
                Request::patch(url).header(http::header::CONTENT_TYPE, "application/json-patch+json").body(patch);
            patch.expect("the URL is made of percent-encoded parts")
        };
        self.write("patch", namespace, name, request).await
    }

    /// Deletes the pod of that name and UID. `None`: there is none.
    ///
    /// # Errors
    /// As [`Error`] says.
    pub async fn delete(&self, namespace: &str, name: &str, uid: &PodUid) -> Result<Option<()>, Error> {
        let options = serde_json::json!({ "preconditions": { "uid": uid } }).to_string().into_bytes();
        let request = |url: &str| {
            let delete = Request::delete(url).header(http::header::CONTENT_TYPE, "application/json").body(options);
            delete.expect("the URL is made of percent-encoded parts")
        };
        match self.write("delete", namespace, name, request).await {
            // Another pod has the name.
            Err(Error::Refused { code: 409, .. }) => Ok(None),
            other => other,
        }
    }

    async fn write(
        &self,
        verb: &'static str,
        namespace: &str,
        name: &str,
        request: impl FnOnce(&str) -> Request<Vec<u8>>,
    ) -> Result<Option<()>, Error> {
        let scope = Scope::anything(namespace.into());
        let url = format!("{}/{}", scope.path(), percent(name));
        match within(verb, ANSWER_MAX, self.client.request_text(request(&url))).await? {
            Ok(_) => Ok(Some(())),
            Err(kube::Error::Api(status)) if status.code == 404 => Ok(None),
            Err(error) => Err(self.refused(verb, &scope, error)),
        }
    }

    fn refused(&self, verb: &'static str, scope: &Scope, error: kube::Error) -> Error {
        match error {
            kube::Error::Api(status) => by_status(verb, scope, *status),
            source => Error::Unreachable { verb, server: self.server.clone(), source: Box::new(source) },
        }
    }

    /// The UID of namespace kube-system, which names the cluster.
    ///
    /// # Errors
    /// As [`Error`] says.
    pub async fn cluster_uid(&self) -> Result<String, Error> {
        let scope = Scope::anything("kube-system".into());
        let text = within("get", ANSWER_MAX, self.client.request_text(get("/api/v1/namespaces/kube-system"))).await?;
        let text = text.map_err(|error| match self.refused("get", &scope, error) {
            Error::Forbidden { said, .. } => Error::Nameless { said },
            other => other,
        });
        uid_of(&text?).ok_or_else(|| Error::Unreadable { verb: "get", why: "namespace kube-system has no uid".into() })
    }
}

/// `metadata.uid` of any object.
fn uid_of(object: &str) -> Option<String> {
    let object: serde_json::Value = serde_json::from_str(object).ok()?;
    object["metadata"]["uid"].as_str().filter(|uid| !uid.is_empty()).map(str::to_owned)
}

fn get(url: &str) -> Request<Vec<u8>> {
    Request::get(url).body(Vec::new()).expect("the URL is made of percent-encoded parts")
}

pub(super) async fn within<T>(verb: &'static str, limit: Duration, call: impl Future<Output = T>) -> Result<T, Error> {
    tokio::time::timeout(limit, call).await.map_err(|_| Error::Timeout { verb, limit })
}

fn by_status(verb: &'static str, scope: &Scope, status: Status) -> Error {
    match status.code {
        401 | 403 => Error::Forbidden { verb, namespace: scope.namespace.clone(), said: status.message },
        410 => Error::Expired { verb },
        code => Error::Refused { verb, code, message: status.message },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_selector_is_percent_encoded() {
        let scope = Scope { selector: "app in (a,b),!x".into(), ..Scope::anything("runs".into()) };
        let url = scope.url(&[("limit", "5")]);
        assert_eq!(url, "/api/v1/namespaces/runs/pods?labelSelector=app%20in%20%28a%2Cb%29%2C%21x&limit=5");
    }

    #[test]
    fn the_uid_of_what_is_no_pod_is_read() {
        let namespace = r#"{"kind":"Namespace","metadata":{"name":"kube-system","uid":"u-1"}}"#;
        assert_eq!(uid_of(namespace).as_deref(), Some("u-1"));
        assert!(uid_of("{}").is_none() && uid_of(r#"{"metadata":{"uid":""}}"#).is_none() && uid_of("<html>").is_none());
    }

    #[test]
    fn a_refusal_names_the_verb_and_the_mend() {
        let scope = Scope::anything("runs".into());
        let status = Status { code: 403, message: "nope".into(), ..Status::default() };
        let text = by_status("watch", &scope, status).to_string();
        assert!(text.contains("watch pods") && text.contains("--verb=get,list,watch"), "{text}");
        assert!(text.contains("create role ") && text.contains("--namespace runs"), "{text}");
        let status = Status { code: 403, message: "nope".into(), ..Status::default() };
        let text = by_status("list", &Scope { namespace: None, ..scope }, status).to_string();
        assert!(text.contains("create clusterrole ") && !text.contains("--namespace"), "{text}");
    }
}
