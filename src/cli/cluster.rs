//! The cluster, as commands reach it: by the kubeconfig, or from within a pod, as `run` does.

/// Why there is no way to it.
#[derive(Debug, thiserror::Error)]
#[error("find the cluster: run inside a pod with a ServiceAccount, or set KUBECONFIG: {0}")]
pub(super) struct Unknown(String);

/// A client without retries: the caller's limits decide how long a call may take. `user`: as whom it asks, if not as
/// whoever the kubeconfig names.
pub(super) async fn connect(user: Option<&str>) -> Result<(kube::Config, kube::Client), Unknown> {
    let mut config = kube::Config::infer().await.map_err(|error| Unknown(error.to_string()))?;
    config.default_retry = false;
    if let Some(user) = user {
        config.auth_info.impersonate = Some(user.to_owned());
    }
    let client = kube::Client::try_from(config.clone()).map_err(|error| Unknown(error.to_string()))?;
    Ok((config, client))
}
