//! The API server as a service behind a real `kube::Client`. What it does not know it refuses loudly: 404.

use std::{
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use axum::body::Body as AnswerBody;
use http::{Method, Request, Response};
use kube::client::Body;
use serde_json::{Value, json};
use tower::Service;

use super::{
    Filters, World, after,
    etcd::{Object, Which},
    selection::{MEMBERS_OF, Selection, decoded},
    watching::{Opened, Watching},
    wire::{Broken, Wire},
};
use crate::{oracle::Range, plants::Plant};

/// What the server answers.
pub enum Answer {
    /// Status code and body.
    Whole(u16, String),
    Watch(Opened),
}

/// One process's connection to the API server, in one shard's use.
#[derive(Clone)]
pub struct ApiServer {
    pub wire: Wire,
    pub range: Range,
}

impl Service<Request<Body>> for ApiServer {
    type Response = Response<AnswerBody>;
    type Error = Broken;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Broken>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Broken>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let (wire, range) = (self.wire.clone(), self.range);
        Box::pin(async move {
            let (head, body) = request.into_parts();
            let body = body.collect_bytes().await.map_err(|_| Broken)?;
            let asked = Asked {
                method: head.method,
                range,
                path: head.uri.path().to_owned(),
                query: head.uri.query().unwrap_or_default().to_owned(),
                body: serde_json::from_slice(&body).unwrap_or_default(),
            };
            let at = wire.clone();
            let answer = wire.call(move || asked.answer(&at)).await?;
            let (code, body) = match answer {
                Answer::Whole(code, text) => (code, AnswerBody::from(text)),
                Answer::Watch(opened) => (200, AnswerBody::from_stream(Watching::new(wire, range, opened).lines())),
            };
            let answer = Response::builder().status(code).header("content-type", "application/json").body(body);
            Ok(answer.expect("a legal answer"))
        })
    }
}

struct Asked {
    method: Method,
    /// Who asks: the real server knows no such thing.
    range: Range,
    path: String,
    query: String,
    body: Value,
}

impl Asked {
    fn answer(self, wire: &Wire) -> Answer {
        if wire.refused() {
            let code = wire.world.draw(|random| random.pick(&[429, 500, 503]));
            return status(code, "InternalError", "the server is in trouble");
        }
        let answer = self.carry_out(wire);
        if self.parameter("limit").is_some() {
            let version = wire.world.etcd().version;
            wire.world.note(&wire.process.identity, format_args!("LIST at {version}"));
        }
        if let Answer::Whole(code @ 400.., _) = &answer {
            wire.world.note(&wire.process.identity, format_args!("{} {} is answered {code}", self.method, self.path));
        }
        answer
    }

    fn parameter(&self, name: &str) -> Option<String> {
        self.query.split('&').find_map(|pair| pair.strip_prefix(name)?.strip_prefix('=').map(decoded))
    }

    /// What is asked for; the second: the shardSelector that is honoured.
    fn selection(&self, which: Which, wire: &Wire) -> Result<(Selection, Option<String>), Answer> {
        let refused = |what: &str| status(400, "BadRequest", what);
        if let Some(field) = self.parameter("fieldSelector") {
            let name = field.strip_prefix("metadata.name=").ok_or_else(|| refused("field label not supported"))?;
            return Ok((Selection::Named(name.to_owned()), None));
        }
        let known = match which {
            Which::Pods => "app=exec".to_owned(),
            Which::Leases => format!("{MEMBERS_OF}=pod-monitor"),
        };
        if self.parameter("labelSelector").is_none_or(|label| label != known) {
            return Err(refused("the simulated server knows no such selection"));
        }
        let Some(asked) = self.parameter("shardSelector") else { return Ok((Selection::Labelled, None)) };
        match wire.world.filters() {
            Filters::Ignores => Ok((Selection::Labelled, None)),
            Filters::Refuses => Err(refused("shardSelector: the feature gate ShardedListAndWatch is not enabled")),
            Filters::Honours => match Selection::of_shard(&asked) {
                Some(selection) => Ok((selection, Some(asked))),
                None => Err(refused("shardSelector: cannot be read")),
            },
        }
    }

    fn number(&self, name: &str) -> Option<u64> {
        self.parameter(name)?.parse().ok()
    }

    fn carry_out(&self, wire: &Wire) -> Answer {
        let parts: Vec<&str> = self.path.trim_start_matches('/').split('/').collect();
        let watch = self.parameter("watch").is_some_and(|watch| watch == "true" || watch == "1");
        match (&self.method, parts.as_slice()) {
            (&Method::GET, ["api", "v1", "pods"]) if watch => self.watch(wire, Which::Pods),
            (&Method::GET, ["api", "v1", "pods"]) => self.list_pods(wire),
            // The question for the store's version selects no pod.
            (&Method::GET, ["api", "v1", "namespaces", _, "pods"]) if self.parameter("fieldSelector").is_some() => {
                let version = wire.world.etcd().version.to_string();
                Answer::Whole(200, json!({ "metadata": { "resourceVersion": version }, "items": [] }).to_string())
            }
            (&Method::GET, ["api", "v1", "namespaces", _, "pods", name]) => get(&wire.world, Which::Pods, name),
            (&Method::GET, ["api", "v1", "namespaces", "kube-system"]) => {
                Answer::Whole(200, json!({ "metadata": { "name": "kube-system", "uid": "cluster" } }).to_string())
            }
            (&Method::GET, ["apis", "coordination.k8s.io", "v1", "namespaces", _, "leases"]) if watch => {
                self.watch(wire, Which::Leases)
            }
            (&Method::GET, ["apis", "coordination.k8s.io", "v1", "namespaces", _, "leases"]) => self.list_leases(wire),
            (&Method::POST, ["apis", "coordination.k8s.io", "v1", "namespaces", _, "leases"]) => self.create(wire),
            (&Method::GET, ["apis", "coordination.k8s.io", "v1", "namespaces", _, "leases", name]) => {
                get(&wire.world, Which::Leases, name)
            }
            (&Method::PATCH, ["apis", "coordination.k8s.io", "v1", "namespaces", _, "leases", name]) => {
                self.patch(wire, name)
            }
            _ => status(404, "NotFound", "the simulated server knows no such path"),
        }
    }

    fn watch(&self, wire: &Wire, which: Which) -> Answer {
        // A watch without a version begins with synthetic events: nobody here asks for one.
        let Some(from) = self.number("resourceVersion").filter(|from| *from > 0) else {
            return status(400, "BadRequest", "a watch must name a resourceVersion here");
        };
        let selection = match self.selection(which, wire) {
            Ok((selection, _)) => selection,
            Err(refusal) => return refusal,
        };
        let seconds = self.number("timeoutSeconds").unwrap_or(1800);
        let etcd = wire.world.etcd();
        if from > etcd.version {
            return status(504, "Timeout", "Too large resource version");
        }
        let expired = from < etcd.kind(which).compacted;
        drop(etcd);
        if which == Which::Pods {
            let mut observed = wire.world.observed();
            if expired {
                observed.expired(&wire.process.identity, self.range, from);
            } else {
                observed.watches(&wire.process.identity, self.range);
            }
        }
        // Both happen: an HTTP 410, and a 200 with an ERROR in the stream.
        if expired && wire.world.draw(|random| random.percent(50)) {
            return status(410, "Expired", "too old resource version");
        }
        Answer::Watch(Opened { which, selection, from, seconds, expired })
    }

    fn list_pods(&self, wire: &Wire) -> Answer {
        let world = &wire.world;
        let (selection, honoured) = match self.selection(Which::Pods, wire) {
            Ok(selected) => selected,
            Err(refusal) => return refusal,
        };
        let mut etcd = world.etcd();
        // Each page is cut down by the server that answers it: in a rolling update these are several.
        let (version, mut items) = match self.number("continue") {
            Some(token) => match etcd.pages.remove(&token) {
                Some(page) => page,
                None => return status(410, "Expired", "the continue token is too old"),
            },
            None if world.planted(Plant::StaleList) && !etcd.stale.is_empty() => (etcd.version, etcd.stale.clone()),
            None => (etcd.version, etcd.labelled()),
        };
        // A server may give fewer than asked for, as long as it says how to go on.
        let limit = self.number("limit").map_or(usize::MAX, |limit| limit as usize).min(world.setting.page_pods);
        let rest = items.split_off(items.len().min(limit));
        let next = if rest.is_empty() {
            String::new()
        } else {
            etcd.tokens += 1;
            let token = etcd.tokens;
            etcd.pages.insert(token, (version, rest));
            token.to_string()
        };
        drop(etcd);
        if next.is_empty() {
            world.observed().listed(&wire.process.identity, self.range, version);
        }
        items.retain(|pod| selection.takes(pod));
        let mut metadata = json!({ "resourceVersion": version.to_string(), "continue": next });
        if let Some(selector) = honoured {
            metadata["shardInfo"] = json!({ "selector": selector });
        }
        whole("PodList", "v1", &metadata, &items)
    }

    fn list_leases(&self, wire: &Wire) -> Answer {
        let selection = match self.selection(Which::Leases, wire) {
            Ok((selection, _)) => selection,
            Err(refusal) => return refusal,
        };
        let etcd = wire.world.etcd();
        let items: Vec<Object> = etcd.leases.objects.values().filter(|o| selection.takes(o)).cloned().collect();
        let metadata = json!({ "resourceVersion": etcd.version.to_string() });
        whole("LeaseList", "coordination.k8s.io/v1", &metadata, &items)
    }

    fn create(&self, wire: &Wire) -> Answer {
        let mut etcd = wire.world.etcd();
        let Some(name) = self.body["metadata"]["name"].as_str() else {
            return status(422, "Invalid", "metadata.name is required");
        };
        if etcd.leases.objects.contains_key(name) {
            return status(409, "AlreadyExists", "the Lease exists already");
        }
        let made = etcd.put(Which::Leases, name, self.body.clone());
        drop(etcd);
        self.noted(wire, &made.value);
        Answer::Whole(201, made.text.to_string())
    }

    fn patch(&self, wire: &Wire, name: &str) -> Answer {
        let mut etcd = wire.world.etcd();
        let Some(known) = etcd.leases.objects.get(name) else {
            return status(404, "NotFound", "no such Lease");
        };
        let decided_on = self.body["metadata"]["resourceVersion"].as_str();
        // Planted: without a version every write succeeds, as on the real server.
        let decided_on = decided_on.filter(|_| !wire.world.planted(Plant::PatchWithoutVersion));
        if decided_on.is_some_and(|version| version != known.version.to_string()) {
            return status(409, "Conflict", "the object has been modified");
        }
        let mut value = (*known.value).clone();
        merge(&mut value, &self.body);
        if value["spec"]["leaseDurationSeconds"].as_i64().is_some_and(|seconds| seconds <= 0) {
            return status(422, "Invalid", "leaseDurationSeconds must be greater than 0");
        }
        let made = etcd.put(Which::Leases, name, value);
        drop(etcd);
        self.noted(wire, &made.value);
        Answer::Whole(200, made.text.to_string())
    }

    fn noted(&self, wire: &Wire, lease: &Value) {
        let (holder, version) = (&lease["spec"]["holderIdentity"], &lease["metadata"]["resourceVersion"]);
        let name = lease["metadata"]["name"].as_str().and_then(|name| name.strip_prefix("pod-monitor-")).unwrap_or("?");
        wire.world.note(&wire.process.identity, format_args!("{} lease {name}: {holder} at {version}", self.method));
    }
}

fn get(world: &World, which: Which, name: &str) -> Answer {
    match world.etcd().kind(which).objects.get(name) {
        Some(object) => Answer::Whole(200, object.text.to_string()),
        None => status(404, "NotFound", "no such object"),
    }
}

fn whole(kind: &str, version: &str, metadata: &Value, items: &[Object]) -> Answer {
    let items: Vec<&str> = items.iter().map(|object| &*object.text).collect();
    let head = format!("\"kind\":\"{kind}\",\"apiVersion\":\"{version}\"");
    Answer::Whole(200, format!("{{{head},\"metadata\":{metadata},\"items\":[{}]}}", items.join(",")))
}

pub fn status(code: u16, reason: &str, message: &str) -> Answer {
    let status = json!({ "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
        "code": code, "reason": reason, "message": message });
    Answer::Whole(code, status.to_string())
}

/// RFC 7386.
pub fn merge(into: &mut Value, patch: &Value) {
    let Value::Object(patch) = patch else {
        *into = patch.clone();
        return;
    };
    if !into.is_object() {
        *into = json!({});
    }
    for (key, value) in patch {
        if value.is_null() {
            into.as_object_mut().expect("an object since just now").remove(key);
        } else {
            merge(&mut into[key], value);
        }
    }
}

/// Keeps an older state of the pods at hand, for the planted stale LIST.
pub async fn keep_stale(world: Arc<World>) {
    loop {
        let stale = world.etcd().labelled();
        after(std::time::Duration::from_secs(3)).await;
        world.etcd().stale = stale;
    }
}
