//! What happens to a replica that runs as a pod of the Deployment.

use anyhow::Result;
use testkit::clients::until;

use crate::crew::{Crew, LIMIT};

/// A pod of the Deployment is made the leader, and deleted as `kubectl delete --force` does: the object is gone at once, while
/// its process runs on until the kubelet has heard of it. Its successor must fence it.
pub(super) async fn force_delete(crew: &mut Crew) -> Result<String> {
    crew.installed.scale(1).await?;
    let pod = crew.installed.settled(1).await?.remove(0).name;
    crew.kill_all().await?;
    let leads = async || Ok((crew.installed.leader("").await? == pod).then_some(()));
    until(LIMIT, "the pod leads", leads).await?;
    crew.restart_all()?;
    crew.replicas.ready(LIMIT).await?;
    crew.strikes_now();
    crew.installed.delete(&pod, true).await?;
    let next = crew.installed.leader(&pod).await?;
    // The Deployment has made another, which may lead meanwhile.
    crew.installed.scale(0).await?;
    crew.installed.settled(0).await?;
    crew.leader().await?;
    Ok(format!("{pod}, followed by {next}"))
}
