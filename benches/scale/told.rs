//! What has been told of the recorded pod, as the monitor's own core says it.

use anyhow::{Context, Result, bail, ensure};
use jiff::{SignedDuration, Timestamp};
use pod_monitor::{
    lifecycle::{
        decide::{Decision, Input, step},
        event::Captured,
        identity::IdSources,
        rules::Rules,
        tracked::Tracked,
    },
    publish::{changelog::write_tracked, record::Service},
    watch::pod::{Decoded, PodUid, ResourceVersion, decode},
};

use crate::pods::{FINISHED, LIST_VERSION, Life, Record};

pub(crate) fn rules() -> Rules {
    Rules {
        cluster_id: "0b0e7b3c-6d0e-4b8e-8d7e-2f4ad9a1c001".into(),
        ids: IdSources::default(),
        settle_grace: SignedDuration::from_secs(10),
        ..Rules::default()
    }
}

pub(crate) fn service() -> Service {
    Service { name: "pod-monitor".into(), version: "0".into(), environment: Some("bench".into()) }
}

/// A moment after the recorded life.
pub(crate) fn now() -> Timestamp {
    Timestamp::from_second(1_796_000_000).unwrap_or_default()
}

/// Everything that the state of this line gives to tell has been told.
pub(crate) fn tracked(life: &Life, line: usize, n: usize) -> Result<(PodUid, Tracked)> {
    let Decoded::Whole(pod) = decode(&life.object(line, n)) else { bail!("the recorded pod cannot be read") };
    let (rules, now, uid) = (rules(), now(), pod.metadata.uid.clone());
    let mut decision = step(&uid, None, Input::Observed { pod: &pod, earlier: None, now }, &rules);
    loop {
        let Decision { tracked, capture, .. } = decision;
        let tracked = tracked.context("something was told")?;
        if capture.is_none() {
            return Ok((uid, tracked));
        }
        let captured = Captured { stdout: Some("hello\n".into()), ..Captured::default() };
        decision = step(&uid, Some(&tracked), Input::Captured { captured, now }, &rules);
    }
}

/// Its changelog record, for any number of pods.
pub(crate) fn record(life: &Life, line: usize) -> Result<Record> {
    let (uid, tracked) = tracked(life, line, 0)?;
    written(&uid, &tracked)
}

/// The record of one that is gone, for any number of pods.
pub(crate) fn record_of_gone(life: &Life) -> Result<Record> {
    let (uid, tracked) = tracked(life, FINISHED, 0)?;
    let version = ResourceVersion(LIST_VERSION - 1);
    let gone = Input::Gone { last: None, observed: true, followed: None, version, now: now() };
    let tracked = step(&uid, Some(&tracked), gone, &rules()).tracked.context("its going is told")?;
    ensure!(tracked.end.is_some() && tracked.gone == Some(version), "it ended and is gone");
    written(&uid, &tracked)
}

fn written(uid: &PodUid, tracked: &Tracked) -> Result<Record> {
    let mut bytes = Vec::new();
    write_tracked(&mut bytes, uid, tracked)?;
    Ok(Record::of(std::str::from_utf8(&bytes)?, 0))
}
