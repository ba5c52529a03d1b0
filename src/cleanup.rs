//! What is done to a pod once its end has been told: its finalizer is taken off, and it is deleted, where that is wanted.
//!
//! Promises: only the pod of this UID is touched, whoever has its name now; only our finalizer is taken off, whoever
//! changes the list meanwhile; doing it twice does no harm. When it may be done is the worker's business.

use std::time::Duration;

use crate::watch::{
    api::{Error, Pods},
    pod::{Decoded, Metadata, PodUid},
};

/// Tries of one release: each that fails lost a race against another change of the pod's finalizers.
const RACES_MAX: u32 = 8;

/// What is to be done to pods whose end was told.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Settings {
    /// `--finalizer`: the finalizer that pods carry until their end has been told.
    pub finalizer: Option<Box<str>>,
    /// `--finalizer-deadline`: it is taken off this long after the deletion was due, told or not.
    pub finalizer_deadline: Duration,
    /// `--delete-finished`: pods are deleted this long after their end was told.
    pub delete_finished: Option<Duration>,
}

impl Settings {
    /// Whether anything is to be done at all.
    pub fn is_wanted(&self) -> bool {
        self.finalizer.is_some() || self.delete_finished.is_some()
    }

    /// Where our finalizer stands among a pod's.
    pub fn position(&self, metadata: &Metadata) -> Option<usize> {
        let ours = self.finalizer.as_deref()?;
        metadata.finalizers.iter().position(|f| **f == *ours)
    }
}

/// What came of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Done {
    /// By us, now.
    Done,
    /// There was nothing to do: the pod is gone, or no longer carries our finalizer.
    Needless,
}

/// Takes our finalizer off. `at`: where it stood in the list when the pod was last seen.
///
/// # Errors
/// As the API server says; `Refused` with 409 where others keep changing the list.
pub async fn release(
    pods: &Pods,
    (namespace, name): (&str, &str),
    uid: &PodUid,
    finalizer: &str,
    at: usize,
) -> Result<Done, Error> {
    let mut at = at;
    for _ in 0..RACES_MAX {
        match pods.patch(namespace, name, without(uid, finalizer, at)).await {
            Ok(Some(())) => return Ok(Done::Done),
            Ok(None) => return Ok(Done::Needless),
            // A test failed: another pod has the name, or the finalizer stands elsewhere.
            Err(Error::Refused { code: 409 | 422, .. }) => {}
            Err(error) => return Err(error),
        }
        let Some(Decoded::Whole(pod) | Decoded::Partly { pod, .. }) = pods.get(namespace, name).await? else {
            return Ok(Done::Needless);
        };
        let Some(found) = pod.metadata.finalizers.iter().position(|f| **f == *finalizer) else {
            return Ok(Done::Needless);
        };
        if pod.metadata.uid != *uid {
            return Ok(Done::Needless);
        }
        at = found;
    }
    Err(Error::Refused { verb: "patch", code: 409, message: format!("the finalizers of {name} keep changing") })
}

/// The patch that takes one finalizer off, and does nothing to any other pod or finalizer.
fn without(uid: &PodUid, finalizer: &str, at: usize) -> Vec<u8> {
    let path = format!("/metadata/finalizers/{at}");
    serde_json::json!([
        { "op": "test", "path": "/metadata/uid", "value": uid },
        { "op": "test", "path": path, "value": finalizer },
        { "op": "remove", "path": path },
    ])
    .to_string()
    .into_bytes()
}
