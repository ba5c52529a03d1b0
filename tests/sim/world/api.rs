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
    World, after,
    etcd::Which,
    watching::Watching,
    wire::{Broken, Wire},
};
use crate::plants::Plant;

/// What the server answers.
pub enum Answer {
    /// Status code and body.
    Whole(u16, String),
    Watch {
        which: Which,
        from: u64,
        seconds: u64,
        expired: bool,
    },
}

/// One process's connection to the API server.
#[derive(Clone)]
pub struct ApiServer(pub Wire);

impl Service<Request<Body>> for ApiServer {
    type Response = Response<AnswerBody>;
    type Error = Broken;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Broken>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Broken>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let wire = self.0.clone();
        Box::pin(async move {
            let (head, body) = request.into_parts();
            let body = body.collect_bytes().await.map_err(|_| Broken)?;
            let asked = Asked {
                method: head.method,
                path: head.uri.path().to_owned(),
                query: head.uri.query().unwrap_or_default().to_owned(),
                body: serde_json::from_slice(&body).unwrap_or_default(),
            };
            let at = wire.clone();
            let answer = wire.call(move || asked.answer(&at)).await?;
            let (code, body) = match answer {
                Answer::Whole(code, text) => (code, AnswerBody::from(text)),
                Answer::Watch { which, from, seconds, expired } => {
                    (200, AnswerBody::from_stream(Watching::new(wire, which, from, seconds, expired).lines()))
                }
            };
            let answer = Response::builder().status(code).header("content-type", "application/json").body(body);
            Ok(answer.expect("a legal answer"))
        })
    }
}

struct Asked {
    method: Method,
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

    fn parameter(&self, name: &str) -> Option<&str> {
        self.query.split('&').find_map(|pair| pair.strip_prefix(name)?.strip_prefix('='))
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
            (&Method::GET, ["apis", "coordination.k8s.io", "v1", "namespaces", _, "leases"]) => {
                list_leases(&wire.world)
            }
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
                observed.expired(&wire.process.identity, from);
            } else {
                observed.watches(&wire.process.identity);
            }
        }
        // Both happen: an HTTP 410, and a 200 with an ERROR in the stream.
        if expired && wire.world.draw(|random| random.percent(50)) {
            return status(410, "Expired", "too old resource version");
        }
        Answer::Watch { which, from, seconds, expired }
    }

    fn list_pods(&self, wire: &Wire) -> Answer {
        let world = &wire.world;
        let mut etcd = world.etcd();
        let (version, mut items) = match self.number("continue") {
            Some(token) => match etcd.pages.remove(&token) {
                Some(page) => page,
                None => return status(410, "Expired", "the continue token is too old"),
            },
            None if world.planted(Plant::StaleList) && !etcd.stale.is_empty() => (etcd.version, etcd.stale.clone()),
            None => (etcd.version, etcd.selected()),
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
            world.observed().listed(&wire.process.identity, version);
        }
        let metadata = json!({ "resourceVersion": version.to_string(), "continue": next });
        Answer::Whole(200, format!("{{\"metadata\":{metadata},\"items\":[{}]}}", items.join(",")))
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
        let mut value = known.value.clone();
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
        wire.world.note(&wire.process.identity, format_args!("{} lease: {holder} at {version}", self.method));
    }
}

fn get(world: &World, which: Which, name: &str) -> Answer {
    match world.etcd().kind(which).objects.get(name) {
        Some(object) => Answer::Whole(200, object.text.to_string()),
        None => status(404, "NotFound", "no such object"),
    }
}

fn list_leases(world: &World) -> Answer {
    let etcd = world.etcd();
    let items: Vec<&str> = etcd.leases.objects.values().map(|object| &*object.text).collect();
    let metadata = json!({ "resourceVersion": etcd.version.to_string() });
    let kind = r#""kind":"LeaseList","apiVersion":"coordination.k8s.io/v1""#;
    Answer::Whole(200, format!("{{{kind},\"metadata\":{metadata},\"items\":[{}]}}", items.join(",")))
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
        let stale = world.etcd().selected();
        after(std::time::Duration::from_secs(3)).await;
        world.etcd().stale = stale;
    }
}
