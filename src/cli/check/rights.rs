//! Which rights a monitor with these settings needs, as deploy/README.md has them, and whether they are granted.

use std::{collections::BTreeSet, fmt, time::Duration};

use futures::{StreamExt as _, stream};
use k8s_openapi::api::authorization::v1::{ResourceAttributes, SelfSubjectAccessReview, SelfSubjectAccessReviewSpec};
use kube::{Api, Client, api::PostParams};
use tokio::time::timeout;

use super::finding::Finding;
use crate::{
    cli::chain,
    config::{Config, Namespaces},
    sharding::members::MEMBERS_MAX,
};

/// How long one question may take.
const ASK_MAX: Duration = Duration::from_secs(10);
/// Questions at the same time.
const AT_ONCE: usize = 16;
const CHECK: &str = "rights";

/// Verbs on one kind of object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Want {
    group: &'static str,
    resource: &'static str,
    subresource: &'static str,
    /// `None`: of all namespaces.
    namespace: Option<String>,
    /// These objects; empty: any.
    names: Vec<String>,
    verbs: Vec<&'static str>,
    /// What does not work without.
    why: &'static str,
}

impl Want {
    fn of(namespace: Option<&str>, resource: &'static str, verbs: &[&'static str], why: &'static str) -> Self {
        let (resource, subresource) = resource.split_once('/').unwrap_or((resource, ""));
        let group = match resource {
            "jobs" => "batch",
            "leases" => "coordination.k8s.io",
            _ => "",
        };
        let namespace = namespace.map(str::to_owned);
        Self { group, resource, subresource, namespace, names: Vec::new(), verbs: verbs.to_vec(), why }
    }

    fn named(self, names: impl IntoIterator<Item = String>) -> Self {
        Self { names: names.into_iter().collect(), ..self }
    }

    fn object(&self) -> String {
        let subresource = if self.subresource.is_empty() { String::new() } else { format!("/{}", self.subresource) };
        format!("{}{subresource}", self.resource)
    }

    /// The command that grants these verbs on these names.
    fn grant(&self, verbs: &BTreeSet<&str>, names: &BTreeSet<&str>) -> String {
        let verbs: Vec<&str> = self.verbs.iter().copied().filter(|verb| verbs.contains(verb)).collect();
        let is_role = self.namespace.is_some();
        let group = if self.group.is_empty() { String::new() } else { format!(".{}", self.group) };
        let names: String = names.iter().map(|name| format!(" --resource-name={name}")).collect();
        let place = self.namespace.as_ref().map(|namespace| format!(" --namespace {namespace}")).unwrap_or_default();
        let kind = if is_role { "role" } else { "clusterrole" };
        let called = format!("pod-monitor-{}-{}", self.object().replace('/', "-"), verbs.join("-"));
        let (object, verbs) = (self.object(), verbs.join(","));
        // The group stands behind the resource, before its subresource; only resources without one have a group here.
        format!(
            "kubectl create {kind} {called} --verb={verbs} --resource={object}{group}{names}{place}, and bind it to its ServiceAccount"
        )
    }

    fn reviews(&self) -> Vec<(&'static str, Option<&str>)> {
        let names: Vec<Option<&str>> = match self.names.is_empty() {
            true => vec![None],
            false => self.names.iter().map(|name| Some(name.as_str())).collect(),
        };
        names.iter().flat_map(|name| self.verbs.iter().map(|verb| (*verb, *name))).collect()
    }
}

impl fmt::Display for Want {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.names.as_slice() {
            [] => {}
            [name] => write!(f, "{} ", format_args!("{}/{name}", self.object()))?,
            [first, .., last] => write!(f, "{}/{first} to {last} ", self.object())?,
        }
        if self.names.is_empty() {
            write!(f, "{} ", self.object())?;
        }
        match &self.namespace {
            Some(namespace) => write!(f, "in namespace {namespace}"),
            None if self.resource == "namespaces" => f.write_str("of the cluster"),
            None => f.write_str("in all namespaces"),
        }
    }
}

/// What a monitor with these settings needs. `elects`: it takes part in an election.
pub(super) fn wanted(config: &Config) -> Vec<Want> {
    let mut wanted = Vec::new();
    let namespaces: Vec<Option<&str>> = match &config.namespaces {
        Namespaces::All => vec![None],
        Namespaces::Named(names) => names.iter().map(|name| Some(name.as_str())).collect(),
    };
    for namespace in namespaces {
        wanted.push(Want::of(namespace, "pods", &["get", "list", "watch"], "nothing is told"));
        wanted.push(Want::of(namespace, "pods/log", &["get"], "ends are told without their output"));
        if config.kubernetes_events {
            let why = "failures are told without their kubernetes_events (or set --kubernetes-events=false)";
            wanted.push(Want::of(namespace, "events", &["list"], why));
        }
        wanted.push(Want::of(namespace, "jobs", &["get"], "an end by a Job's deadline is told as a deletion"));
        if config.cleanup.finalizer.is_some() {
            wanted.push(Want::of(namespace, "pods", &["patch"], "--finalizer stays on pods that have ended"));
        }
        if config.cleanup.delete_finished.is_some() {
            wanted.push(Want::of(namespace, "pods", &["delete"], "--delete-finished deletes nothing"));
        }
    }
    if config.cluster_id.is_none() {
        let want = Want::of(None, "namespaces", &["get"], "it ends at its start (or set --cluster-id)");
        wanted.push(want.named(["kube-system".to_owned()]));
    }
    if config.lease_times.is_some() {
        wanted.extend(leases(config));
    }
    wanted
}

fn leases(config: &Config) -> Vec<Want> {
    let of = |verbs: &[&'static str]| Want::of(Some(&config.lease_namespace), "leases", verbs, "nobody leads");
    let name = &config.lease_name;
    let own = (0..config.shards.get()).map(|shard| format!("{name}-{shard}"));
    let mut wanted = vec![of(&["create"]), of(&["list", "watch", "patch"]).named(own)];
    if config.shards.get() > 1 {
        wanted.push(of(&["patch"]).named((0..MEMBERS_MAX).map(|slot| format!("{name}-member-{slot}"))));
        wanted.push(of(&["list", "watch"]));
    }
    wanted
}

/// Asks the API server for each of them.
pub(super) async fn check(client: &Client, wanted: Vec<Want>) -> Vec<Finding> {
    stream::iter(wanted).map(|want| one(client, want)).buffered(AT_ONCE).collect().await
}

async fn one(client: &Client, want: Want) -> Finding {
    let mut answers = Vec::new();
    for (verb, name) in want.reviews() {
        match may(client, &want, verb, name).await {
            Ok(true) => {}
            Ok(false) => answers.push((verb, name)),
            // A monitor needs these answers' server as well.
            Err(why) => {
                let mend = "see whether the API server is well (kubectl get --raw '/readyz?verbose'), and run it again";
                return Finding::failed(CHECK, format!("{want}: not known: {why}")).mend(mend);
            }
        }
    }
    judged(&want, &answers)
}

fn judged(want: &Want, missing: &[(&'static str, Option<&str>)]) -> Finding {
    if missing.is_empty() {
        return Finding::ok(CHECK, format!("{want}: {}", want.verbs.join(", ")));
    }
    let verbs: BTreeSet<&str> = missing.iter().map(|(verb, _)| *verb).collect();
    let names: BTreeSet<&str> = missing.iter().filter_map(|(_, name)| *name).collect();
    let shown: Vec<&str> = want.verbs.iter().copied().filter(|verb| verbs.contains(verb)).collect();
    let said = format!("{want}: may not {}: {}", shown.join(", "), want.why);
    Finding::failed(CHECK, said).mend(want.grant(&verbs, &names))
}

async fn may(client: &Client, want: &Want, verb: &str, name: Option<&str>) -> Result<bool, String> {
    let some = |text: &str| Some(text.to_owned()).filter(|text| !text.is_empty());
    let attributes = ResourceAttributes {
        group: some(want.group),
        resource: some(want.resource),
        subresource: some(want.subresource),
        namespace: want.namespace.clone(),
        name: name.map(str::to_owned),
        verb: some(verb),
        ..ResourceAttributes::default()
    };
    let review = SelfSubjectAccessReview {
        spec: SelfSubjectAccessReviewSpec { resource_attributes: Some(attributes), ..Default::default() },
        ..Default::default()
    };
    let reviews: Api<SelfSubjectAccessReview> = Api::all(client.clone());
    match timeout(ASK_MAX, reviews.create(&PostParams::default(), &review)).await {
        Err(_) => Err(format!("no answer within {ASK_MAX:?}")),
        Ok(Err(error)) => Err(chain(&error)),
        Ok(Ok(answer)) => Ok(answer.status.is_some_and(|status| status.allowed)),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;
    use crate::config::{self, Surroundings};

    fn config(flags: &[&str]) -> Config {
        let arguments = ["pod-monitor", "run", "--selector", "a"].iter().chain(flags).map(Into::into);
        match crate::cli::parse(arguments, &|_| None, &Surroundings::default()) {
            Ok(crate::cli::Command::Run(config)) => *config,
            Ok(_) => unreachable!("it is run"),
            Err(config::Error::Clap(error)) => panic!("{error}"),
            Err(error) => panic!("{error}"),
        }
    }

    fn shown(flags: &[&str]) -> Vec<String> {
        wanted(&config(flags)).iter().map(|want| format!("{want}: {}", want.verbs.join(" "))).collect()
    }

    #[test]
    fn what_is_needed_follows_from_the_settings() {
        let usual = [
            "pods in namespace default: get list watch",
            "pods/log in namespace default: get",
            "events in namespace default: list",
            "jobs in namespace default: get",
            "namespaces/kube-system of the cluster: get",
            "leases in namespace default: create",
            "leases/pod-monitor-0 in namespace default: list watch patch",
        ];
        assert_eq!(shown(&["--kafka", "k:1"]), usual);
        let few = shown(&["--sink", "stdout", "--kubernetes-events=false", "--cluster-id", "c", "--all-namespaces"]);
        assert_eq!(
            few,
            [
                "pods in all namespaces: get list watch",
                "pods/log in all namespaces: get",
                "jobs in all namespaces: get"
            ]
        );
        let many = shown(&["--kafka", "k:1", "--shards", "4", "--finalizer", "a/b", "--delete-finished", "1m"]);
        for needed in [
            "pods in namespace default: patch",
            "pods in namespace default: delete",
            "leases/pod-monitor-0 to pod-monitor-3 in namespace default: list watch patch",
            "leases/pod-monitor-member-0 to pod-monitor-member-15 in namespace default: patch",
            "leases in namespace default: list watch",
        ] {
            assert!(many.iter().any(|want| want == needed), "{needed} is not in {many:?}");
        }
    }

    #[test]
    fn what_is_missing_is_named_with_the_command_that_grants_it() {
        let want = Want::of(Some("runs"), "pods", &["get", "list", "watch"], "nothing is told");
        let line = judged(&want, &[("watch", None), ("list", None)]).line(crate::cli::screen::Paint::none());
        assert_eq!(
            line,
            "FAIL  rights         pods in namespace runs: may not list, watch: nothing is told; to mend it: kubectl create role \
             pod-monitor-pods-list-watch --verb=list,watch --resource=pods --namespace runs, and bind it to its ServiceAccount"
        );
        let want =
            Want::of(Some("m"), "leases", &["patch"], "nobody leads").named(["l-0".to_owned(), "l-1".to_owned()]);
        let mend = judged(&want, &[("patch", Some("l-1"))]).mend.unwrap();
        assert!(mend.contains("--resource=leases.coordination.k8s.io --resource-name=l-1 --namespace m"), "{mend}");
        let want = Want::of(None, "pods/log", &["get"], "x");
        let mend = judged(&want, &[("get", None)]).mend.unwrap();
        assert!(
            mend.starts_with("kubectl create clusterrole pod-monitor-pods-log-get --verb=get --resource=pods/log, "),
            "{mend}"
        );
    }
}
