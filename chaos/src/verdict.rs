//! What is wrong with the history, by testkit's checker; and whether that checker finds faults that are planted into this
//! very history. Shares no code with the monitor.

use anyhow::{Result, ensure};
use serde_json::json;
use testkit::clients::{
    history::Record,
    lives::{self, Life},
};

use crate::timeline::{Strike, Timeline};

/// Before and after a fault that hides what happens: watches are opened anew.
const HIDDEN_AROUND: f64 = 3.0;

/// So many pods may be missed in any run.
const UNSEEN_ALWAYS: usize = 3;

/// What the history is worth.
#[derive(Debug, Default)]
pub(crate) struct Verdict {
    /// Everything that is wrong; empty for a good one.
    pub(crate) faults: Vec<String>,
    /// Pods that ended and were deleted while the API server may have been unable to tell of it.
    pub(crate) hidden: usize,
    /// Of them, those of which the monitor says that nobody saw it.
    pub(crate) unseen: usize,
    /// Pods of whose output the node itself has kept less than they printed: told as the node has it.
    pub(crate) lost_by_node: usize,
    /// Faults that were planted into copies of it, each of which was found.
    pub(crate) planted: usize,
}

/// Judges.
///
/// # Errors
/// When the checker misses a planted fault: then its silence means nothing.
pub(crate) fn judge(lives: &[Life], records: &[Record], timeline: &Timeline) -> Result<Verdict> {
    let strikes = timeline.strikes.borrow();
    let hidden = |life: &Life| {
        let (ended, deleted) = (timeline.place(life.ending.0), life.ending.1.map(|at| timeline.place(at)));
        deleted.is_some_and(|deleted| strikes.iter().any(|strike| hides(strike, ended, deleted)))
    };
    let (mut expected, mut may_be, mut unseen) = (lives.to_vec(), 0, 0);
    for life in expected.iter_mut().filter(|life| hidden(life)) {
        may_be += 1;
        unseen += usize::from(lives::told_unseen(life, records));
    }
    let planted = plant_each(&expected, records)?;
    let mut faults = lives::faults(&expected, records);
    // A few are the API server's doing; who no longer resumes his watch would see none of them.
    if unseen > UNSEEN_ALWAYS && unseen * 2 > may_be {
        faults.push(format!("unseen: {unseen} of {may_be} pods that some could have missed"));
    }
    Ok(Verdict { faults, hidden: may_be, unseen, planted, lost_by_node: 0 })
}

/// Whether a pod that ended and was deleted then may have passed everybody by.
fn hides(strike: &Strike, ended: f64, deleted: f64) -> bool {
    strike.kind.hides() && ended < strike.settled + HIDDEN_AROUND && deleted > strike.at - HIDDEN_AROUND
}

type Plant = fn(&mut Vec<Record>, usize);

/// A fault in a copy of the history, near its middle; how many were planted.
fn plant_each(lives: &[Life], records: &[Record]) -> Result<usize> {
    let plants: [(&str, Plant); 5] = [
        ("lost", |records, at| drop(records.remove(at))),
        ("doubled", |records, at| records.push(records[at].clone())),
        ("out of order", |records, at| {
            let pod = records[at].text("pod_uid").to_owned();
            let other = records.iter().position(|r| r.text("pod_uid") == pod && r.offset != records[at].offset);
            if let Some(other) = other {
                records.swap(at, other);
            }
        }),
        ("torn", |records, at| records[at].value["timestamp"] = json!(null)),
        ("unexpected", |records, at| records[at].value["pod_uid"] = json!("nobody")),
    ];
    ensure!(records.len() > 10, "too few events to plant faults among");
    for (name, plant) in plants {
        let (mut damaged, clean) = (records.to_vec(), lives::faults(lives, records));
        plant(&mut damaged, records.len() / 2);
        let found = lives::faults(lives, &damaged);
        let new = |fault: &&String| fault.starts_with(name) && !clean.contains(fault);
        ensure!(found.iter().any(|fault| new(&fault)), "the checker does not see a planted fault: {name}");
    }
    Ok(plants.len())
}
