//! Hands on the Lease.

use anyhow::Result;
use k8s_openapi::api::coordination::v1::Lease;
use kube::{
    Api,
    api::{DeleteParams, Patch, PatchParams},
};
use serde_json::{Value, json};

use crate::crew::Crew;

/// In how many ways the Lease is edited.
pub(crate) const EDITS: usize = 7;

fn leases(crew: &Crew) -> Api<Lease> {
    Api::namespaced(crew.cluster.client(), crew.cluster.namespace())
}

/// Who held it notices, or finds it made anew by another: somebody leads in the end.
pub(super) async fn delete(crew: &mut Crew) -> Result<String> {
    let (_, holder) = crew.leader().await?;
    leases(crew).delete(&crew.lease, &DeleteParams::default()).await?;
    crew.leader().await?;
    Ok(format!("held by {holder}"))
}

/// As somebody does who wants to help.
pub(super) async fn edit(crew: &mut Crew) -> Result<String> {
    let (_, holder) = crew.leader().await?;
    let edits: [(&str, Value); EDITS] = [
        ("another holder", json!({ "holderIdentity": "somebody", "leaseDurationSeconds": 2 })),
        ("no holder", json!({ "holderIdentity": null })),
        ("no duration and no times", json!({ "leaseDurationSeconds": null, "renewTime": null, "acquireTime": null })),
        ("renewed a year ahead", json!({ "renewTime": "2099-01-01T00:00:00.000000Z" })),
        ("as many changes of hands as there can be", json!({ "leaseTransitions": i32::MAX })),
        ("no count of them", json!({ "leaseTransitions": null, "holderIdentity": "" })),
        ("a holder for a day", json!({ "holderIdentity": "somebody", "leaseDurationSeconds": 86_400 })),
    ];
    let (name, spec) = &edits[crew.decks.edits.deal(&mut crew.random)];
    crew.strikes_now();
    let patch = Patch::Merge(json!({ "spec": spec }));
    leases(crew).patch(&crew.lease, &PatchParams::default(), &patch).await?;
    crew.leader().await?;
    Ok(format!("{name}, while {holder} held it"))
}
