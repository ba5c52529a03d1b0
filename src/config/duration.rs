//! Durations as people write them in flags: `300ms`, `5s`, `2m`, `1h`, `1m30s`.
//!
//! Promises: pure, never panics, and what [`format`] writes [`parse`] reads back to the same value.

use std::time::Duration;

/// Longest duration taken; far above any sensible setting, far below what arithmetic with instants bears.
pub const MAX: Duration = Duration::from_secs(365 * 24 * 3600);

/// Units from large to small, in milliseconds. `ms` stands before `m` and `s` where texts are compared.
const UNITS: [(&str, u64); 4] = [("h", 3_600_000), ("m", 60_000), ("s", 1_000), ("ms", 1)];

/// Why a text is no duration.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// Not of the form number, unit, ...
    #[error("'{0}' is not a duration: write whole numbers with a unit, for instance 300ms, 5s, 2m, 1h or 1m30s")]
    Form(String),
    /// A number without its unit.
    #[error("'{0}' lacks its unit: write for instance {0}s for seconds or {0}ms for milliseconds")]
    Unit(String),
    /// More than [`MAX`].
    #[error("'{0}' is too long: at most 365 days (8760h)")]
    TooLong(String),
}

/// Reads a duration. Units stand in falling order, each at most once.
pub fn parse(text: &str) -> Result<Duration, Error> {
    let form = || Error::Form(text.escape_debug().to_string());
    if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(Error::Unit(text.to_owned()));
    }
    let too_long = || Error::TooLong(text.to_owned());
    let (mut rest, mut millis, mut units) = (text, 0_u64, &UNITS[..]);
    while !rest.is_empty() {
        let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
        let letters = rest[digits..].bytes().take_while(u8::is_ascii_alphabetic).count();
        let (number, unit) = (&rest[..digits], &rest[digits..digits + letters]);
        let place = units.iter().position(|(name, _)| *name == unit).ok_or_else(form)?;
        if number.is_empty() {
            return Err(form());
        }
        // Only digits, so the one thing that can go wrong is the size.
        let count: u64 = number.parse().map_err(|_| too_long())?;
        millis = count.checked_mul(units[place].1).and_then(|add| millis.checked_add(add)).ok_or_else(too_long)?;
        units = &units[place + 1..];
        rest = &rest[digits + letters..];
    }
    let duration = Duration::from_millis(millis);
    match (text.is_empty(), duration <= MAX) {
        (true, _) => Err(form()),
        (_, false) => Err(too_long()),
        (false, true) => Ok(duration),
    }
}

/// Writes a duration so that [`parse`] reads it back (whole milliseconds).
pub fn format(duration: Duration) -> String {
    let mut rest = u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    let mut text = String::new();
    for (unit, millis) in UNITS {
        if rest >= millis {
            text.push_str(&format!("{}{unit}", rest / millis));
            rest %= millis;
        }
    }
    if text.is_empty() { "0s".to_owned() } else { text }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn durations_are_read_as_written() {
        let cases = [
            ("5s", 5_000),
            ("300ms", 300),
            ("2m", 120_000),
            ("1h", 3_600_000),
            ("1m30s", 90_000),
            ("1h5ms", 3_600_005),
            ("0s", 0),
            ("8760h", 31_536_000_000),
        ];
        for (text, millis) in cases {
            assert_eq!(parse(text), Ok(Duration::from_millis(millis)), "{text}");
        }
    }

    #[test]
    fn what_is_no_duration_is_told_with_examples() {
        let cases = [
            ("", "300ms"),
            ("5", "5s"),
            ("5x", "300ms"),
            ("s", "300ms"),
            ("-5s", "300ms"),
            ("1.5s", "300ms"),
            ("5 s", "300ms"),
            ("5s1m", "300ms"),
            ("5s5s", "300ms"),
            ("5\u{1b}[31ms", "u{1b}"),
            ("٥s", "300ms"),
            ("8761h", "365 days"),
            ("99999999999999999999h", "365 days"),
            ("9999999999999999h", "365 days"),
        ];
        for (text, expected) in cases {
            let error = parse(text).expect_err(text).to_string();
            assert!(error.contains(expected), "{text}: {error}");
        }
    }

    proptest! {
        #[test]
        fn no_text_panics_the_parser(text in "\\PC*") {
            if let Ok(duration) = parse(&text) {
                prop_assert_eq!(parse(&format(duration)), Ok(duration));
            }
        }

        #[test]
        fn written_durations_are_read_back(millis in 0_u64..31_536_000_000) {
            let duration = Duration::from_millis(millis);
            prop_assert_eq!(parse(&format(duration)), Ok(duration));
        }
    }
}
