//! `--stall-grace CAUSE=DURATION`: how long each kind of stall may last before it is told.

use std::time::Duration;

use jiff::SignedDuration;

use super::duration;
use crate::lifecycle::{event::Cause, stall::Graces};

/// One value of the flag.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StallGrace {
    cause: Cause,
    /// `None`: never told.
    grace: Option<Duration>,
}

/// Reads one value; the error says which causes there are.
pub(super) fn parse(text: &str) -> Result<StallGrace, String> {
    let Some((name, grace)) = text.split_once('=') else {
        return Err(format!(
            "'{}' is not CAUSE=DURATION: write for instance unschedulable=2m or gated=off",
            text.escape_debug()
        ));
    };
    let known = || Graces::DEFAULTS.iter().map(|(cause, _)| cause.as_str());
    let cause = Graces::DEFAULTS.iter().map(|(cause, _)| *cause).find(|cause| cause.as_str() == name);
    let cause = cause.ok_or_else(|| {
        let known = known().collect::<Vec<_>>().join(", ");
        format!("'{}' is not the cause of a stall: write one of {known}", name.escape_debug())
    })?;
    let grace = match grace {
        "off" => None,
        grace => Some(duration::parse(grace).map_err(|error| format!("{error}, or off"))?),
    };
    Ok(StallGrace { cause, grace })
}

/// The defaults, with what the user says otherwise; of two values for one cause the later holds.
pub(super) fn graces(values: &[StallGrace]) -> Graces {
    let mut graces = Graces::standard();
    for StallGrace { cause, grace } in values {
        graces.set(*cause, grace.map(|grace| SignedDuration::try_from(grace).unwrap_or(SignedDuration::MAX)));
    }
    graces
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn graces_are_set_one_by_one_and_the_rest_keeps_its_defaults() {
        let values = ["image=2m", "gated=off", "image=5s"].map(|text| parse(text).expect(text));
        let graces = graces(&values);
        let of = |cause| graces.of(cause).map(|grace| grace.as_secs());
        assert_eq!((of(Cause::Image), of(Cause::Gated), of(Cause::Unschedulable)), (Some(5), None, Some(60)));
    }

    #[test]
    fn what_is_no_grace_is_told_with_what_would_be_one() {
        let cases = [("image", "unschedulable=2m"), ("oom_killed=5s", "unschedulable, gated"), ("image=5", "or off")];
        for (text, expected) in cases {
            let error = parse(text).expect_err(text);
            assert!(error.contains(expected), "{text}: {error}");
        }
    }
}
