//! What happened when: strikes, who held the Lease, when events became visible. Times are seconds since the beginning.

use std::{
    cell::RefCell,
    time::{Duration, Instant},
};

use anyhow::Result;
use k8s_openapi::api::coordination::v1::Lease;
use kube::Api;
use testkit::clients::history::{History, Record};
use tokio::sync::mpsc;

use crate::{crew::LIMIT, kind::Kind};

/// Between two looks at the Lease.
const LOOK_EVERY: Duration = Duration::from_millis(25);
/// A look that takes longer did not see anything.
const LOOK_MAX: Duration = Duration::from_secs(1);

/// One fault.
#[derive(Debug, Clone)]
pub(crate) struct Strike {
    pub(crate) kind: Kind,
    /// What it did in particular.
    pub(crate) note: String,
    pub(crate) at: f64,
    /// When somebody led again, or still led.
    pub(crate) led: f64,
    /// When all replicas were ready again.
    pub(crate) settled: f64,
}

/// A clock and what was noted by it.
#[derive(Debug)]
pub(crate) struct Timeline {
    begun: Instant,
    pub(crate) strikes: RefCell<Vec<Strike>>,
    /// From when on who held the Lease; empty: nobody.
    pub(crate) holders: RefCell<Vec<(f64, String)>>,
    /// When each event became visible.
    pub(crate) arrivals: RefCell<Vec<f64>>,
    /// The reader of the events topic gave up: silences are not known from here on.
    pub(crate) deaf_since: RefCell<Option<f64>>,
}

impl Timeline {
    pub(crate) fn begin() -> Self {
        Self {
            begun: Instant::now(),
            strikes: RefCell::default(),
            holders: RefCell::default(),
            arrivals: RefCell::default(),
            deaf_since: RefCell::default(),
        }
    }

    pub(crate) fn now(&self) -> f64 {
        self.begun.elapsed().as_secs_f64()
    }

    /// Where a moment stands on it.
    pub(crate) fn place(&self, moment: Instant) -> f64 {
        moment.saturating_duration_since(self.begun).as_secs_f64()
    }

    /// Looks at the Lease until it is dropped.
    pub(crate) async fn watch_holders(&self, leases: Api<Lease>, lease: &str) {
        loop {
            // An API server that does not answer says nothing about who holds it.
            if let Ok(Ok(found)) = tokio::time::timeout(LOOK_MAX, leases.get_opt(lease)).await {
                let holder = found.and_then(|lease| lease.spec?.holder_identity).unwrap_or_default();
                let mut holders = self.holders.borrow_mut();
                if holders.last().is_none_or(|(_, last)| *last != holder) {
                    holders.push((self.now(), holder));
                }
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    /// Notes arrivals until it is dropped.
    pub(crate) async fn watch_events(&self, mut arrivals: mpsc::Receiver<(Instant, Record)>) {
        while let Some((at, _)) = arrivals.recv().await {
            self.arrivals.borrow_mut().push(self.place(at));
        }
        // It has said why; the verdict rests on another reader.
        *self.deaf_since.borrow_mut() = Some(self.now());
        std::future::pending().await
    }

    /// The longest time around a strike in which nothing became visible; `None` where too little came to tell.
    pub(crate) fn silence(&self, strike: &Strike) -> Option<f64> {
        let heard = self.deaf_since.borrow().is_none_or(|deaf| deaf > strike.led);
        silence(&self.arrivals.borrow(), strike.at, strike.led).filter(|_| heard)
    }
}

/// The largest distance between two arrivals that reaches into this time.
fn silence(arrivals: &[f64], from: f64, to: f64) -> Option<f64> {
    let pairs = arrivals.windows(2).filter(|pair| pair[1] > from && pair[0] < to);
    pairs.map(|pair| pair[1] - pair[0]).reduce(f64::max)
}

/// A reader of the events topic from now on, as arrivals. The topic is made by the first leader.
pub(crate) async fn arrivals(kafka: &str, topic: &str) -> Result<mpsc::Receiver<(Instant, Record)>> {
    let look = async || Ok(History::from_now(kafka, &[topic]).ok());
    testkit::clients::until(LIMIT, "the events topic is there", look).await?.arrivals()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_silence_is_that_around_the_strike() {
        let arrivals = [0.0, 1.0, 1.1, 4.0, 4.1, 9.0];
        assert_eq!(silence(&arrivals, 1.05, 4.05), Some(4.0 - 1.1));
        assert_eq!(silence(&arrivals, 0.2, 0.3), Some(1.0));
        assert_eq!(silence(&arrivals, 9.5, 9.9), None, "nothing came after it");
    }
}
