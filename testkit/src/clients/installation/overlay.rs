//! An overlay in the shape of deploy/kustomize/overlays/example. JSON is YAML, too.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::Result;
use serde_json::{Value, json};

use crate::stack::Endpoints;

/// Where the keys of [`Plan::kafka_secret`] are files.
pub const KAFKA_SECRETS: &str = "/etc/pod-monitor-kafka";

/// The finalizer of [`Plan::finalizer`], as components/finalizer names it.
pub const FINALIZER: &str = "pod-monitor/captured";
/// Where the file of [`Plan::rules`] is.
const RULES: &str = "/etc/pod-monitor/rules.yaml";

/// What the Roles of an installation grant.
#[derive(Debug, Clone, PartialEq)]
pub enum Rights {
    /// As shipped.
    All,
    /// The rules of the watched namespace's Role are these instead.
    Watched(Value),
    /// The ClusterRole has no rules.
    NoClusterId,
    /// The Role of its own namespace has no rules.
    NoLeases,
}

/// What is to be installed.
#[derive(Debug, Clone)]
pub struct Plan {
    /// Of the monitor's namespace, of the label `app` of the pods that it watches, of its Lease and topics.
    pub name: String,
    /// What it may do.
    pub rights: Rights,
    /// How many replicas, where not as shipped.
    pub replicas: Option<usize>,
    /// A Secret of its namespace, mounted for Kafka as deploy/README.md says. It must be there first.
    pub kafka_secret: Option<String>,
    /// Pods get [`FINALIZER`] as they are created, and are let go once their end is told: components/finalizer and
    /// components/rights-finalizer.
    pub finalizer: bool,
    /// What the file of rules says, beside config.yaml in the ConfigMap.
    pub rules: Option<Value>,
    /// Keys of config.yaml beside those that every installation needs.
    pub settings: Value,
}

impl Plan {
    /// As shipped.
    pub fn new(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            rights: Rights::All,
            replicas: None,
            kafka_secret: None,
            finalizer: false,
            rules: None,
            settings: json!({}),
        }
    }

    /// The watched namespace.
    pub fn watched(&self) -> String {
        format!("{}-watched", self.name)
    }

    fn config(&self, endpoints: &Endpoints) -> Value {
        let name = &self.name;
        let mut config = json!({
            "selector": format!("app={name}"), "namespace": [self.watched()], "kafka": endpoints.kafka,
            "create-topics": true, "lease-name": name, "log-format": "json",
            "events-topic": format!("{name}.events"), "changelog-topic": format!("{name}.changelog"),
        });
        if self.finalizer {
            config["finalizer"] = FINALIZER.into();
        }
        if self.rules.is_some() {
            config["rules"] = RULES.into();
        }
        for (key, value) in self.settings.as_object().into_iter().flatten() {
            config[key] = value.clone();
        }
        config
    }

    /// Patches of what belongs to the monitor itself.
    fn patches(&self) -> Vec<Value> {
        // Of the whole cluster, so their names must be this installation's own.
        let role = format!("pod-monitor-cluster-id-{}", self.name);
        let rename = replace("/metadata/name", &json!(role));
        let mut patches = vec![
            json!({ "target": { "kind": "ClusterRole.*" }, "options": { "allowNameChange": true }, "patch": rename }),
        ];
        let emptied = match self.rights {
            Rights::NoClusterId => Some("ClusterRole"),
            Rights::NoLeases => Some("Role"),
            Rights::All | Rights::Watched(_) => None,
        };
        patches.extend(emptied.map(|kind| patch(kind, "/rules", &json!([]))));
        if self.rights != Rights::NoLeases {
            patches.push(patch("Role", "/rules/1/resourceNames", &json!([format!("{}-0", self.name)])));
        }
        if let Some(secret) = &self.kafka_secret {
            let volume = json!({ "name": "kafka", "secret": { "secretName": secret } });
            let mount = json!({ "name": "kafka", "mountPath": KAFKA_SECRETS, "readOnly": true });
            patches.push(json!({ "target": { "kind": "Deployment" }, "patch": json!([
                { "op": "add", "path": "/spec/template/spec/volumes/-", "value": volume },
                { "op": "add", "path": "/spec/template/spec/containers/0/volumeMounts/-", "value": mount },
            ]).to_string() }));
        }
        patches.extend(self.replicas.map(|count| patch("Deployment", "/spec/replicas", &json!(count))));
        patches
    }

    /// Patches of the policy that puts the finalizer on: for this installation's pods and no others.
    fn policy(&self) -> [Value; 3] {
        let rename = replace("/metadata/name", &json!(format!("pod-monitor-finalizer-{}", self.name)));
        let labels = json!({ "matchLabels": { "app": self.name } });
        let namespaces = "/spec/matchResources/namespaceSelector/matchExpressions/0/values";
        [
            json!({
                "target": { "kind": "MutatingAdmissionPolicy.*" }, "options": { "allowNameChange": true }, "patch": rename,
            }),
            patch("MutatingAdmissionPolicyBinding", "/spec/matchResources/objectSelector", &labels),
            patch("MutatingAdmissionPolicyBinding", namespaces, &json!([self.watched()])),
        ]
    }
}

/// Writes the overlay into `dir`, on the bases in `deploy`.
pub(super) fn write(dir: &Path, deploy: &Path, plan: &Plan, endpoints: &Endpoints) -> Result<()> {
    fs::create_dir_all(dir.join("monitor"))?;
    fs::create_dir_all(dir.join("watched"))?;
    let write = |file: &str, value: Value| fs::write(dir.join(file), value.to_string());
    write("namespace.yaml", restricted_namespace(&plan.name))?;
    write("monitor/config.yaml", plan.config(endpoints))?;
    let mut files = vec!["config.yaml"];
    if let Some(rules) = &plan.rules {
        write("monitor/rules.yaml", rules.clone())?;
        files.push("rules.yaml");
    }
    let component = |part: &str, name: &str| {
        let wanted = plan.finalizer.then(|| relative(&dir.join(part), &deploy.join("components").join(name)));
        wanted.transpose().map(Vec::from_iter)
    };
    write(
        "kustomization.yaml",
        json!({
            "resources": ["namespace.yaml", "monitor", "watched"],
            "components": component("", "finalizer")?,
            "patches": if plan.finalizer { plan.policy().to_vec() } else { Vec::new() },
        }),
    )?;
    write(
        "monitor/kustomization.yaml",
        json!({
            "namespace": plan.name,
            "resources": [relative(&dir.join("monitor"), &deploy.join("base"))?],
            "configMapGenerator": [{ "name": "pod-monitor", "behavior": "replace", "files": files }],
            "patches": plan.patches(),
        }),
    )?;
    let mut patches = vec![patch("RoleBinding", "/subjects/0/namespace", &json!(plan.name))];
    if let Rights::Watched(rules) = &plan.rights {
        patches.push(patch("Role", "/rules", rules));
    }
    write(
        "watched/kustomization.yaml",
        json!({
            "namespace": plan.watched(),
            "resources": [relative(&dir.join("watched"), &deploy.join("watched"))?],
            "components": component("watched", "rights-finalizer")?,
            "patches": patches,
        }),
    )?;
    Ok(())
}

fn patch(kind: &str, path: &str, value: &Value) -> Value {
    json!({ "target": { "kind": kind }, "patch": replace(path, value) })
}

fn replace(path: &str, value: &Value) -> String {
    json!([{ "op": "replace", "path": path, "value": value }]).to_string()
}

/// A namespace that admits only pods of Pod Security `restricted`, and says what it would not.
pub fn restricted_namespace(name: &str) -> Value {
    let labels = json!({
        "pod-security.kubernetes.io/enforce": "restricted",
        "pod-security.kubernetes.io/warn": "restricted",
        "pod-security.kubernetes.io/audit": "restricted",
    });
    json!({ "apiVersion": "v1", "kind": "Namespace", "metadata": { "name": name, "labels": labels } })
}

/// The way from a directory to another; kustomize takes no absolute paths.
///
/// # Errors
/// When one of them is not there.
pub fn relative(from: &Path, to: &Path) -> Result<PathBuf> {
    let (from, to) = (fs::canonicalize(from)?, fs::canonicalize(to)?);
    let up: PathBuf = from.components().skip(1).map(|_| "..").collect();
    Ok(up.join(to.strip_prefix("/")?))
}
