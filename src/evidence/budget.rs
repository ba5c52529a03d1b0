//! How much of the API server's time questions may take: what they took lately, and no more than a share of the time that
//! passes. Pure.

use std::time::Duration;

use jiff::SignedDuration;
use tokio::time::Instant;

/// What may be spent at once, after a quiet time.
const BURST: SignedDuration = SignedDuration::from_secs(2);
/// Of the time that passes, this part may be spent in the long run.
const SHARE: i32 = 5;

/// Time that may be spent.
#[derive(Debug, Clone, Copy)]
pub struct Budget {
    /// Below zero: the last question took more than there was.
    left: SignedDuration,
    at: Instant,
}

impl Budget {
    /// Nothing was spent yet.
    pub fn full(now: Instant) -> Self {
        Self { left: BURST, at: now }
    }

    /// Whether one more question may be asked: what it costs is known only afterwards.
    pub fn has_some(&mut self, now: Instant) -> bool {
        let earned = signed(now.saturating_duration_since(self.at)) / SHARE;
        (self.left, self.at) = (self.left.saturating_add(earned).min(BURST), now);
        self.left.is_positive()
    }

    /// A question took so long.
    pub fn spend(&mut self, took: Duration, now: Instant) {
        self.has_some(now);
        self.left = self.left.saturating_sub(signed(took));
    }
}

fn signed(duration: Duration) -> SignedDuration {
    duration.try_into().unwrap_or(SignedDuration::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn in_the_long_run_only_a_share_of_the_time_is_spent() {
        let begun = Instant::now();
        let cheap = Duration::from_millis(2);
        let costly = Duration::from_millis(400);
        for (took, asked_min, asked_max) in [(cheap, 1990, 2000), (costly, 54, 56)] {
            let mut budget = Budget::full(begun);
            // Twenty failures a second for 100 s.
            let asked = (0..2000)
                .filter(|n| {
                    let now = begun + Duration::from_millis(50) * *n;
                    let may = budget.has_some(now);
                    if may {
                        budget.spend(took, now);
                    }
                    may
                })
                .count();
            assert!((asked_min..=asked_max).contains(&asked), "{asked} questions of {took:?}");
        }
    }
}
