//! One take-over, leg by leg: from the moment when the Lease could be had until the first commit, as one trace and as
//! durations. Whoever does a leg says that it is reached; nobody decides anything by it.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tokio::time::Instant;
use tracing::{Span, info_span};

use super::{election::Why, tenure::ShardId};
use crate::failpoint;

/// A leg, named by what is reached at its end. Each counts from the beginning of the take-over.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Leg {
    /// The Lease is ours.
    Acquired,
    /// Older producers are refused.
    Fenced,
    /// The barrier is committed.
    Barrier,
    /// Everything that was told is known.
    Restored,
    /// The watches are open.
    Watching,
    /// Everything was listed and compared.
    Reconciled,
    /// A transaction of ours is committed.
    FirstCommit,
}

impl Leg {
    /// Its name in metrics, and among the steps of `failpoint.rs`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Acquired => "acquired",
            Self::Fenced => "fenced",
            Self::Barrier => "barrier",
            Self::Restored => "restored",
            Self::Watching => "watching",
            Self::Reconciled => "reconciled",
            Self::FirstCommit => "first_commit",
        }
    }
}

/// A take-over under way. Clones are the same one.
#[derive(Debug, Clone)]
pub struct TakeOver(Arc<Mutex<Inner>>);

#[derive(Debug)]
struct Inner {
    why: Why,
    /// How long the last holder had given no sign by then.
    silence: Duration,
    begun: Instant,
    legs: Vec<(Leg, Duration)>,
    /// Spans of the legs that nobody else measures, until they are reached.
    open: Vec<(Leg, Span)>,
    /// Ends with the take-over, not with the tenure.
    span: Option<Span>,
}

/// A take-over that is over.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// Why the Lease was taken.
    pub why: Why,
    /// How long the last holder had given no sign by the beginning.
    pub silence: Duration,
    /// When each leg was reached, in this order.
    pub legs: Vec<(Leg, Duration)>,
}

impl TakeOver {
    /// Begins: the Lease can be had, and is being taken. `silence`: how long its last holder has given no sign.
    pub fn begin(shard: ShardId, holder: &str, why: Why, silence: Duration) -> Self {
        let span = info_span!("take over", %shard, holder, ?why);
        // What noticing took lies before it, and is no time of ours.
        drop(info_span!(parent: &span, "noticed", ?why, silence_ms = millis(silence)));
        let begun = Instant::now();
        Self(Arc::new(Mutex::new(Inner { why, silence, begun, legs: vec![], open: vec![], span: Some(span) })))
    }

    /// The parent of the legs' spans; none where it is over.
    pub fn span(&self) -> Span {
        self.inner().span.clone().unwrap_or_else(Span::none)
    }

    /// This leg is reached; said again, it says nothing.
    pub fn reached(&self, leg: Leg) {
        failpoint::reached(leg.as_str());
        let mut inner = self.inner();
        let Some(span) = inner.span.clone() else { return };
        if inner.legs.iter().any(|(known, _)| *known == leg) {
            return;
        }
        let took = inner.begun.elapsed();
        inner.legs.push((leg, took));
        inner.open.retain(|(awaited, _)| *awaited != leg);
        if leg == Leg::Restored {
            // Both begin here, beside one another.
            inner.open.push((Leg::Reconciled, info_span!(parent: &span, "reconcile")));
            inner.open.push((Leg::FirstCommit, info_span!(parent: &span, "first commit")));
        }
    }

    /// The whole of it, once, when it has been reconciled and committed.
    pub fn finish(&self) -> Option<Report> {
        let mut inner = self.inner();
        let over =
            [Leg::Reconciled, Leg::FirstCommit].iter().all(|leg| inner.legs.iter().any(|(known, _)| known == leg));
        inner.span.take_if(|_| over)?;
        Some(Report { why: inner.why, silence: inner.silence, legs: std::mem::take(&mut inner.legs) })
    }

    fn inner(&self) -> std::sync::MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Report {
    /// From the last sign of the holder until its successor's first commit: of events, or of the position where there is
    /// nothing to tell.
    pub fn gap(&self) -> Duration {
        let told = self.legs.iter().find(|(leg, _)| *leg == Leg::FirstCommit);
        self.silence + told.map(|(_, took)| *took).unwrap_or_default()
    }

    /// When a leg was reached, in milliseconds from the beginning; `None` if it was not.
    pub fn ms(&self, leg: Leg) -> Option<f64> {
        let reached = self.legs.iter().find(|(known, _)| *known == leg);
        reached.map(|(_, took)| millis(*took))
    }

    /// [`Report::gap`] in milliseconds.
    pub fn gap_ms(&self) -> f64 {
        millis(self.gap())
    }
}

/// To a tenth of a millisecond.
fn millis(took: Duration) -> f64 {
    (took.as_secs_f64() * 10_000.0).round() / 10.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_take_over_is_reported_once_when_it_is_over() {
        let take_over = TakeOver::begin(ShardId(0), "me", Why::Dead, Duration::from_secs(5));
        let ms = Duration::from_millis;
        take_over.reached(Leg::Acquired);
        tokio::time::advance(ms(5)).await;
        take_over.reached(Leg::FirstCommit);
        assert_eq!(take_over.finish(), None, "not reconciled yet");
        tokio::time::advance(ms(5)).await;
        take_over.reached(Leg::Reconciled);
        take_over.reached(Leg::FirstCommit);
        let report = take_over.finish().expect("it is over");
        let legs = [(Leg::Acquired, ms(0)), (Leg::FirstCommit, ms(5)), (Leg::Reconciled, ms(10))];
        assert_eq!(report, Report { why: Why::Dead, silence: Duration::from_secs(5), legs: legs.to_vec() });
        assert_eq!(report.gap(), Duration::from_secs(5) + ms(5), "the first commit came before the comparison's end");
        assert_eq!((report.ms(Leg::Reconciled), report.ms(Leg::Fenced)), (Some(10.0), None));
        take_over.reached(Leg::Fenced);
        assert_eq!(take_over.finish(), None, "once");
    }
}
