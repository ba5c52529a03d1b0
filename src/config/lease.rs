//! The three durations of a Lease, checked against one another before anybody relies on them. Pure.

use std::time::Duration;

use super::duration::format;

/// How a Lease is held and contended for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Times {
    lease_duration: Duration,
    renew_deadline: Duration,
    retry_period: Duration,
}

impl Times {
    /// Checks that lease_duration > renew_deadline > 1.2 x retry_period > 0; else says which one to change.
    pub fn new(lease_duration: Duration, renew_deadline: Duration, retry_period: Duration) -> Result<Self, String> {
        if retry_period.is_zero() {
            return Err("retry-period must be longer than 0s".to_owned());
        }
        if lease_duration <= renew_deadline {
            // Otherwise a standby may start before the holder has stopped.
            return Err(format!(
                "lease-duration ({}) must be longer than renew-deadline ({}): raise the first or lower the second",
                format(lease_duration),
                format(renew_deadline)
            ));
        }
        // 1.2: a retry comes with up to 20 % jitter, and one retry has to fit (client-go's rule).
        if renew_deadline * 5 <= retry_period * 6 {
            return Err(format!(
                "renew-deadline ({}) must be longer than 1.2 x retry-period ({}): raise the first or lower the second",
                format(renew_deadline),
                format(retry_period)
            ));
        }
        Ok(Self { lease_duration, renew_deadline, retry_period })
    }

    /// How long a Lease counts as held after its last change was seen.
    pub fn lease_duration(&self) -> Duration {
        self.lease_duration
    }

    /// How long after asking the holder stops when no answer came.
    pub fn renew_deadline(&self) -> Duration {
        self.renew_deadline
    }

    /// Between two tries.
    pub fn retry_period(&self) -> Duration {
        self.retry_period
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lease_durations_are_checked_against_one_another() {
        let cases = [
            ((5_000, 3_000, 1_000), None),
            ((3_001, 3_000, 2_499), None),
            ((3_000, 3_000, 1_000), Some("lease-duration")),
            ((5_000, 1_200, 1_000), Some("renew-deadline")),
            ((5_000, 1_201, 1_000), None),
            ((5_000, 3_000, 0), Some("retry-period")),
        ];
        for ((lease, renew, retry), wrong) in cases {
            let times =
                Times::new(Duration::from_millis(lease), Duration::from_millis(renew), Duration::from_millis(retry));
            match (times, wrong) {
                (Ok(_), None) => {}
                (Err(message), Some(key)) => assert!(message.starts_with(key), "{message}"),
                (result, wrong) => panic!("{lease} {renew} {retry}: {result:?}, expected {wrong:?}"),
            }
        }
    }
}
