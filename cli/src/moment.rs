//! Points in time as people write them, and as they are shown to them.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::units::parse_duration;

const NS_PER_MS: i128 = 1_000_000;

/// `@` and a moment: `@1764064800000` (milliseconds since 1970), `@2025-11-25T10:00:00Z`, `@-15m` (a quarter of an hour
/// ago). In milliseconds since 1970; `None` if it does not begin with `@`.
pub fn parse_at(text: &str) -> Option<Result<i64, String>> {
    text.strip_prefix('@').map(|moment| parse(moment, now()))
}

fn now() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}

/// `now` counts from 1970.
fn parse(text: &str, now: Duration) -> Result<i64, String> {
    if let Some(ago) = text.strip_prefix('-') {
        return parse_ago(ago, now);
    }
    if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) {
        return text.parse().map_err(|_| format!("'@{text}' is too far in the future"));
    }
    let date = OffsetDateTime::parse(text, &Rfc3339).map_err(|_| {
        format!(
            "'@{text}' is no time: use milliseconds since 1970, 2025-11-25T10:00:00Z, or -15m for a while ago"
        )
    })?;
    i64::try_from(date.unix_timestamp_nanos().div_euclid(NS_PER_MS)).map_err(|error| error.to_string())
}

fn parse_ago(ago: &str, now: Duration) -> Result<i64, String> {
    if ago.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.') {
        return Err(format!("'@-{ago}' needs a unit: ms, s, m, h or d"));
    }
    let ago = parse_duration(ago).map_err(|error| format!("'@-{ago}': {error}"))?;
    let before_1970 = || format!("{} s ago was before 1970", ago.as_secs());
    let then = now.checked_sub(ago).ok_or_else(before_1970)?;
    i64::try_from(then.as_millis()).map_err(|error| error.to_string())
}

/// RFC 3339 in UTC, or the milliseconds where the calendar does not reach.
pub fn show(ms: i64) -> String {
    let date = OffsetDateTime::from_unix_timestamp_nanos(i128::from(ms) * NS_PER_MS);
    date.ok().and_then(|date| date.format(&Rfc3339).ok()).unwrap_or_else(|| format!("{ms} ms"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const NOW: Duration = Duration::from_secs(1_764_064_800);

    #[test]
    fn every_way_of_writing_a_moment() {
        for (text, ms) in [
            ("0", 0),
            ("1764064800000", 1_764_064_800_000),
            ("2025-11-25T10:00:00Z", 1_764_064_800_000),
            ("2025-11-25T11:00:00.25+01:00", 1_764_064_800_250),
            ("1969-12-31T23:59:59.9999Z", -1),
            ("2024-02-29T00:00:00Z", 1_709_164_800_000),
            ("-15m", 1_764_063_900_000),
            ("-1.5h", 1_764_059_400_000),
            ("-250ms", 1_764_064_799_750),
            ("-7d", 1_763_460_000_000),
        ] {
            assert_eq!(parse(text, NOW), Ok(ms), "{text}");
        }
        assert_eq!(parse_at("17"), None);
        assert_eq!(parse_at("@17"), Some(Ok(17)));
    }

    #[test]
    fn mistakes_are_told_with_what_would_be_right() {
        for (text, wanted) in [
            ("", "'@' is no time: use milliseconds since 1970"),
            ("yesterday", "'@yesterday' is no time"),
            ("2025-11-25", "2025-11-25T10:00:00Z"),
            ("2025-02-29T00:00:00Z", "is no time"),
            ("-15", "'@-15' needs a unit: ms, s, m, h or d"),
            ("-", "needs a unit"),
            ("-15 fortnights", "unknown unit 'fortnights'"),
            ("-900000h", "before 1970"),
            ("99999999999999999999", "too far"),
            ("+5m", "is no time"),
        ] {
            let error = parse(text, NOW).unwrap_err();
            assert!(error.contains(wanted), "{text}: {error}");
        }
    }

    #[test]
    fn moments_are_shown_as_dates_as_far_as_the_calendar_goes() {
        assert_eq!(show(1_764_064_800_250), "2025-11-25T10:00:00.25Z");
        assert_eq!(show(-1), "1969-12-31T23:59:59.999Z");
        assert_eq!(show(i64::MAX), "9223372036854775807 ms");
    }

    proptest! {
        #[test]
        fn what_is_shown_is_understood(ms in -60_000_000_000_000_i64..200_000_000_000_000) {
            prop_assert_eq!(parse(&show(ms), NOW), Ok(ms));
        }

        #[test]
        fn nothing_written_panics(text in "[-+0-9TZ:.dhms ]{0,30}") {
            let _ = parse(&text, NOW);
        }
    }
}
