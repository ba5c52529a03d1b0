//! The three durations of a Lease, checked against one another before anybody relies on them. Pure.

use std::time::Duration;

use super::{Error, args::LeaseArgs, duration::format};
use crate::leadership::election::Times;

/// The durations of these flags.
pub(super) fn of(args: &LeaseArgs) -> Result<Times, Error> {
    times(args.lease_duration, args.renew_deadline, args.retry_period).map_err(|why| Error::Conflict { why })
}

/// Checks that lease_duration > renew_deadline > 1.2 x retry_period > 0; else says which one to change.
pub fn times(lease_duration: Duration, renew_deadline: Duration, retry_period: Duration) -> Result<Times, String> {
    if retry_period.is_zero() {
        return Err("retry-period must be longer than 0s".to_owned());
    }
    if lease_duration.is_zero() || lease_duration.subsec_nanos() > 0 {
        return Err(format!("lease-duration ({}) must be whole seconds, as a Lease has them", format(lease_duration)));
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
    Ok(Times { lease_duration, renew_deadline, retry_period })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lease_durations_are_checked_against_one_another() {
        let cases = [
            ((5_000, 3_000, 1_000), None),
            ((4_000, 3_000, 2_499), None),
            ((3_500, 3_000, 1_000), Some("lease-duration")),
            ((3_000, 3_000, 1_000), Some("lease-duration")),
            ((5_000, 1_200, 1_000), Some("renew-deadline")),
            ((5_000, 1_201, 1_000), None),
            ((5_000, 3_000, 0), Some("retry-period")),
        ];
        for ((lease, renew, retry), wrong) in cases {
            let times =
                super::times(Duration::from_millis(lease), Duration::from_millis(renew), Duration::from_millis(retry));
            match (times, wrong) {
                (Ok(_), None) => {}
                (Err(message), Some(key)) => assert!(message.starts_with(key), "{message}"),
                (result, wrong) => panic!("{lease} {renew} {retry}: {result:?}, expected {wrong:?}"),
            }
        }
    }
}
