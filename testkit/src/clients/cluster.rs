//! The stack's Kubernetes, as tests act on it.

use std::time::Duration;

use anyhow::{Context, Result};
use http::Request;
use k8s_openapi::api::core::v1::{Namespace, Node, Pod, ServiceAccount};
use kube::{
    Api, Client, Config,
    api::{DeleteParams, ListParams, Patch, PatchParams, PostParams},
    config::{KubeConfigOptions, Kubeconfig},
};
use serde_json::{Value, json};

use super::until;
use crate::stack::Endpoints;

/// An administrator's client of one namespace of the stack.
#[derive(Clone)]
pub struct Cluster {
    client: Client,
    namespace: String,
}

impl Cluster {
    /// Connects, and makes the namespace if it is not there.
    ///
    /// # Errors
    /// When the API server does not answer.
    pub async fn connect(endpoints: &Endpoints, namespace: &str) -> Result<Self> {
        let kubeconfig = Kubeconfig::read_from(&endpoints.kubeconfig).context("read the stack's kubeconfig")?;
        let config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await?;
        let cluster = Self { client: Client::try_from(config)?, namespace: namespace.to_owned() };
        cluster.ensure_namespace().await?;
        Ok(cluster)
    }

    async fn ensure_namespace(&self) -> Result<()> {
        let namespaces: Api<Namespace> = Api::all(self.client.clone());
        let object: Namespace = serde_json::from_value(json!({ "metadata": { "name": self.namespace } }))?;
        match namespaces.create(&PostParams::default(), &object).await {
            Ok(_) => {}
            Err(kube::Error::Api(status)) if status.code == 409 => {}
            Err(error) => return Err(error).context("create the test's namespace"),
        }
        // A pod is refused until there is this account. The controller makes it a moment later; a stack without
        // controllers never does.
        let accounts: Api<ServiceAccount> = Api::namespaced(self.client.clone(), &self.namespace);
        let account: ServiceAccount = serde_json::from_value(json!({ "metadata": { "name": "default" } }))?;
        match accounts.create(&PostParams::default(), &account).await {
            Ok(_) => Ok(()),
            Err(kube::Error::Api(status)) if status.code == 409 => Ok(()),
            Err(error) => Err(error).context("create the namespace's default ServiceAccount"),
        }
    }

    /// Waits until pods can be made here: the controller has made the namespace's default ServiceAccount.
    ///
    /// # Errors
    /// When that takes too long.
    pub async fn ready_for_pods(&self) -> Result<()> {
        let accounts: Api<ServiceAccount> = Api::namespaced(self.client.clone(), &self.namespace);
        let look = async || Ok(accounts.get_opt("default").await?);
        until(Duration::from_secs(20), "the namespace's default ServiceAccount", look).await?;
        Ok(())
    }

    /// The client itself.
    pub fn client(&self) -> Client {
        self.client.clone()
    }

    /// The namespace that this acts in.
    pub fn namespace(&self) -> &str {
        &self.namespace
    }

    fn pods(&self) -> Api<Pod> {
        Api::namespaced(self.client.clone(), &self.namespace)
    }

    /// Makes a node, with the status that it is given.
    ///
    /// # Errors
    /// When the API server refuses it.
    pub async fn node(&self, node: Value) -> Result<()> {
        let node: Node = serde_json::from_value(node).context("a node")?;
        Api::<Node>::all(self.client.clone()).create(&PostParams::default(), &node).await.context("create a node")?;
        Ok(())
    }

    /// Takes a node away.
    ///
    /// # Errors
    /// When the API server refuses that.
    pub async fn remove_node(&self, name: &str) -> Result<()> {
        let nodes = Api::<Node>::all(self.client.clone());
        nodes.delete(name, &DeleteParams::default()).await.context("delete a node")?;
        Ok(())
    }

    /// Creates a pod and gives its UID.
    ///
    /// # Errors
    /// When the API server refuses it.
    pub async fn create(&self, pod: Value) -> Result<String> {
        let pod: Pod = serde_json::from_value(pod).context("a pod")?;
        let created = self.pods().create(&PostParams::default(), &pod).await.context("create a pod")?;
        created.metadata.uid.context("the API server gives every pod a UID")
    }

    /// Creates an object of another kind: the path of its API group and version, its plural, the object.
    ///
    /// # Errors
    /// When the API server refuses it.
    pub async fn post(&self, api: &str, plural: &str, object: Value) -> Result<Value> {
        let request = Request::post(format!("{api}/namespaces/{}/{plural}", self.namespace))
            .header("content-type", "application/json")
            .body(serde_json::to_vec(&object)?)?;
        self.client.request(request).await.with_context(|| format!("create one of {plural}"))
    }

    /// The pod as JSON, if there is one.
    ///
    /// # Errors
    /// When the API server does not answer.
    pub async fn pod(&self, name: &str) -> Result<Option<Value>> {
        let request = format!("/api/v1/namespaces/{}/pods/{name}", self.namespace);
        let request = Request::get(request).body(Vec::new())?;
        match self.client.request::<Value>(request).await {
            Ok(pod) => Ok(Some(pod)),
            Err(kube::Error::Api(status)) if status.code == 404 => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// What the node has of a pod's log, of one stream (`Stdout`, `Stderr`).
    ///
    /// # Errors
    /// When the API server or the kubelet does not answer.
    pub async fn log(&self, name: &str, stream: &str) -> Result<String> {
        let request = format!("/api/v1/namespaces/{}/pods/{name}/log?stream={stream}", self.namespace);
        Ok(self.client.request_text(Request::get(request).body(Vec::new())?).await?)
    }

    /// Names of all pods here.
    ///
    /// # Errors
    /// When the API server does not answer.
    pub async fn names(&self) -> Result<Vec<String>> {
        let pods = self.pods().list(&ListParams::default()).await?;
        Ok(pods.items.into_iter().filter_map(|p| p.metadata.name).collect())
    }

    /// Deletes a pod; `grace_s` `None` for the pod's own grace period, 0 for a forced one.
    ///
    /// # Errors
    /// When the API server does not answer; a pod that is gone is no error.
    pub async fn delete(&self, name: &str, grace_s: Option<u32>) -> Result<()> {
        let parameters = DeleteParams { grace_period_seconds: grace_s, ..DeleteParams::default() };
        match self.pods().delete(name, &parameters).await {
            Ok(_) => Ok(()),
            Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
            Err(error) => Err(error).context("delete a pod"),
        }
    }

    /// Writes a pod's status, as a kubelet would (for stacks without one, or pods without a node).
    ///
    /// # Errors
    /// When the API server refuses it.
    pub async fn patch_status(&self, name: &str, status: Value) -> Result<()> {
        let patch = Patch::Merge(json!({ "status": status }));
        self.pods().patch_status(name, &PatchParams::default(), &patch).await.context("patch a pod's status")?;
        Ok(())
    }

    /// Merges a patch into a pod's metadata, labels for instance.
    ///
    /// # Errors
    /// When the API server refuses it.
    pub async fn patch(&self, name: &str, patch: Value) -> Result<()> {
        let patch = Patch::Merge(patch);
        self.pods().patch(name, &PatchParams::default(), &patch).await.context("patch a pod")?;
        Ok(())
    }

    /// Binds a pod to a node, as a scheduler would.
    ///
    /// # Errors
    /// When the API server refuses it.
    pub async fn bind(&self, name: &str, node: &str) -> Result<()> {
        let path = format!("/api/v1/namespaces/{}/pods/{name}/binding", self.namespace);
        let body = json!({ "apiVersion": "v1", "kind": "Binding", "metadata": { "name": name },
            "target": { "apiVersion": "v1", "kind": "Node", "name": node } });
        let request =
            Request::post(path).header("content-type", "application/json").body(serde_json::to_vec(&body)?)?;
        self.client.request::<Value>(request).await.context("bind a pod")?;
        Ok(())
    }

    /// Waits until the pod's phase is one of these.
    ///
    /// # Errors
    /// When that takes longer than `limit`.
    pub async fn wait_phase(&self, name: &str, phases: &[&str], limit: Duration) -> Result<Value> {
        let look = async || {
            let pod = self.pod(name).await?;
            Ok(pod.filter(|p| p["status"]["phase"].as_str().is_some_and(|phase| phases.contains(&phase))))
        };
        until(limit, &format!("pod {name} is {phases:?}"), look).await
    }

    /// Waits until there is no pod of this name.
    ///
    /// # Errors
    /// When that takes longer than `limit`.
    pub async fn wait_gone(&self, name: &str, limit: Duration) -> Result<()> {
        let look = async || Ok(self.pod(name).await?.is_none().then_some(()));
        until(limit, &format!("pod {name} is gone"), look).await
    }

    /// Removes the namespace with everything in it, without waiting for the end of it.
    ///
    /// # Errors
    /// When the API server does not answer.
    pub async fn remove_namespace(&self) -> Result<()> {
        let namespaces: Api<Namespace> = Api::all(self.client.clone());
        namespaces.delete(&self.namespace, &DeleteParams::default()).await?;
        Ok(())
    }
}

/// An execution pod of busybox that runs a shell script once: name `exec-<id>`, labels `app` and `execution-id`.
pub fn execution(app: &str, id: &str, script: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": { "name": format!("exec-{id}"), "labels": { "app": app, "execution-id": id } },
        "spec": {
            "restartPolicy": "Never", "terminationGracePeriodSeconds": 1, "automountServiceAccountToken": false,
            "enableServiceLinks": false,
            "containers": [{
                "name": "main", "image": "localhost/busybox:1", "imagePullPolicy": "IfNotPresent",
                "command": ["sh", "-c", script],
            }],
        },
    })
}
