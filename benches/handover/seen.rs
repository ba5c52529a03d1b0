//! What a separate read_committed consumer sees, and when.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use anyhow::Result;
use testkit::clients::{history::History, until};
use tokio::task::JoinSet;

use crate::field::lock;

/// Nothing new for so long is quiet.
const QUIET: Duration = Duration::from_millis(400);
/// Events closer together were one transaction: one visible moment.
const MOMENT: Duration = Duration::from_millis(1);

/// Visible moments before the fault by which a stream is steady.
const STEADY_MIN: usize = 10;

/// One visible event that a status write led to.
#[derive(Debug, Clone)]
pub(crate) struct Arrival {
    pub(crate) at: Instant,
    pub(crate) uid: String,
}

/// The arrivals of one topic, from the opening on.
pub(crate) struct Seen {
    arrivals: Arc<Mutex<(Instant, Vec<Arrival>)>>,
    _reading: JoinSet<()>,
}

impl Seen {
    pub(crate) fn open(kafka: &str, topic: &str) -> Result<Self> {
        let mut reading = JoinSet::new();
        let arrivals = Arc::new(Mutex::new((Instant::now(), Vec::new())));
        let (mut from, into) = (History::from_now(kafka, &[topic])?.arrivals()?, Arc::clone(&arrivals));
        reading.spawn(async move {
            while let Some((at, record)) = from.recv().await {
                let mut into = lock(&into);
                into.0 = at;
                // Of the baselines; ours tells more of a pod than this.
                let status = record.event_type() == "status" && record.text("phase") == "Running";
                if record.event_type() == "execution_running" || status {
                    into.1.push(Arrival { at, uid: record.text("pod_uid").to_owned() });
                }
            }
        });
        Ok(Self { arrivals, _reading: reading })
    }

    pub(crate) fn clear(&self) {
        lock(&self.arrivals).1.clear();
    }

    pub(crate) fn all(&self) -> Vec<Arrival> {
        lock(&self.arrivals).1.clone()
    }

    /// Waits until nothing arrives any more.
    pub(crate) async fn quiet(&self, limit: Duration) -> Result<()> {
        let began = Instant::now();
        let look = async || Ok((lock(&self.arrivals).0.max(began).elapsed() > QUIET).then_some(()));
        until(limit, "the events topic is quiet", look).await
    }

    /// Waits for the first event of one of these writes that arrived.
    pub(crate) async fn first_of(&self, limit: Duration, wanted: impl Fn(&Arrival) -> bool) -> Result<Instant> {
        let look = async || Ok(lock(&self.arrivals).1.iter().find(|arrival| wanted(arrival)).map(|a| a.at));
        until(limit, "a new event", look).await
    }

    /// Waits until there is one of each; gives how many are missing after that time, and how many came again.
    pub(crate) async fn complete(&self, written: &HashMap<String, Instant>, limit: Duration) -> (usize, usize) {
        let missing = |arrivals: &[Arrival]| {
            let seen: std::collections::HashSet<&str> = arrivals.iter().map(|a| a.uid.as_str()).collect();
            written.keys().filter(|uid| !seen.contains(uid.as_str())).count()
        };
        let look = async || {
            if missing(&lock(&self.arrivals).1) > 0 {
                return Ok(None);
            }
            Ok(Some(()))
        };
        // Out of time is what is counted below.
        drop(until(limit, "every status is told", look).await);
        let arrivals = self.all();
        let mut times: HashMap<&str, usize> = HashMap::new();
        arrivals.iter().for_each(|arrival| *times.entry(&arrival.uid).or_default() += 1);
        (missing(&arrivals), times.values().map(|n| n - 1).sum())
    }
}

/// Distances between visible moments, each with the moment that ended it.
fn distances(arrivals: &[Arrival]) -> Vec<(Instant, Duration)> {
    let pairs = arrivals.windows(2).map(|pair| (pair[1].at, pair[1].at - pair[0].at));
    pairs.filter(|(_, distance)| *distance > MOMENT).collect()
}

/// What a fault did to the stream of events.
pub(crate) struct Gap {
    /// The largest distance between visible events around the fault.
    pub(crate) largest: Duration,
    /// When it ended.
    pub(crate) ended: Instant,
    /// The usual distance before the fault.
    pub(crate) steady: Duration,
}

/// The gap between a fault and the first event of a status that was written after it; `None` where no stream came before.
pub(crate) fn gap(arrivals: &[Arrival], fault: Instant, first: Instant) -> Option<Gap> {
    let distances = distances(arrivals);
    let mut steady: Vec<Duration> = distances.iter().filter(|(at, _)| *at < fault).map(|d| d.1).collect();
    if steady.len() < STEADY_MIN {
        return None;
    }
    steady.sort_unstable();
    let around = distances.iter().filter(|(at, distance)| *at >= fault && *at - *distance <= first);
    let (ended, largest) = around.max_by_key(|(_, distance)| *distance)?;
    Some(Gap { largest: *largest, ended: *ended, steady: steady[steady.len() / 2] })
}
