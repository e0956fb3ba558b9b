//! Figures as a page spells them.

use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

/// Microseconds in the unit that suits them, with three digits that count: `1.23 ms`.
pub fn latency(us: f64) -> String {
    let (value, unit) = match us {
        us if us >= 999_500.0 => (us / 1e6, "s"),
        us if us >= 999.5 => (us / 1e3, "ms"),
        0.0 => return "0".to_owned(),
        us => (us, "µs"),
    };
    format!("{}\u{a0}{unit}", three_digits(value))
}

/// A latency that may be missing.
pub fn latency_or_none(us: Option<f64>) -> String {
    us.map_or_else(none, latency)
}

/// What stands where there is no figure.
pub fn none() -> String {
    "–".to_owned()
}

/// `1,234,567`.
pub fn count(count: u64) -> String {
    let digits = count.to_string();
    let mut grouped = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    grouped
}

/// A rate for an axis: `2.5k`, `10M`.
pub fn short(value: f64) -> String {
    let (value, unit) = match value {
        value if value >= 999.5e6 => (value / 1e9, "G"),
        value if value >= 999.5e3 => (value / 1e6, "M"),
        value if value >= 999.5 => (value / 1e3, "k"),
        value => (value, ""),
    };
    format!("{}{unit}", three_digits(value))
}

/// With three digits that count, or whole where it has more.
pub fn number(value: f64) -> String {
    if value < 100.0 { three_digits(value) } else { count(value.round() as u64) }
}

/// Memory: `1.95 GiB`.
pub fn memory(bytes: u64) -> String {
    let mebibytes = bytes as f64 / f64::from(1 << 20);
    if mebibytes < 1_024.0 {
        format!("{} MiB", three_digits(mebibytes))
    } else {
        format!("{} GiB", three_digits(mebibytes / 1_024.0))
    }
}

/// A quantile in percent, with as many digits as tell it from 100: `99.9`, `99.975`.
pub fn percentile(quantile: f64) -> String {
    let nines = -(1.0 - quantile).max(1e-12).log10();
    trimmed(quantile * 100.0, nines.max(0.0).ceil() as usize)
}

/// RFC 3339 in UTC, or the milliseconds where the calendar does not reach.
pub fn moment(ms: u64) -> String {
    let date = OffsetDateTime::from_unix_timestamp((ms / 1_000).try_into().unwrap_or(i64::MAX));
    date.ok().and_then(|date| date.format(&Rfc3339).ok()).unwrap_or_else(|| format!("{ms} ms"))
}

fn three_digits(value: f64) -> String {
    let decimals = match value.abs() {
        value if value >= 99.95 => 0,
        value if value >= 9.995 => 1,
        value if value >= 0.9995 => 2,
        _ => 3,
    };
    trimmed(value, decimals)
}

/// Without zeros at the end that say nothing.
fn trimmed(value: f64, decimals: usize) -> String {
    let text = format!("{value:.decimals$}");
    if decimals == 0 {
        return text;
    }
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn latencies_choose_their_unit() {
        for (us, text) in [
            (0.0, "0"),
            (0.25, "0.25 µs"),
            (9.996, "10 µs"),
            (200.0, "200 µs"),
            (999.6, "1 ms"),
            (1_234.0, "1.23 ms"),
            (45_670.0, "45.7 ms"),
            (999_600.0, "1 s"),
            (3_600e6, "3600 s"),
        ] {
            assert_eq!(latency(us).replace('\u{a0}', " "), text, "{us}");
        }
        assert_eq!(latency_or_none(None), "–");
    }

    #[test]
    fn counts_and_numbers() {
        assert_eq!([0, 999, 1_000, 1_234_567].map(count), ["0", "999", "1,000", "1,234,567"]);
        assert_eq!([0.0, 500.0, 2_500.0, 1e6, 2e9].map(short), ["0", "500", "2.5k", "1M", "2G"]);
        assert_eq!([0.0, 0.5, 12.34, 4_999.7].map(number), ["0", "0.5", "12.3", "5,000"]);
        assert_eq!([100 << 20, 3 << 29].map(memory), ["100 MiB", "1.5 GiB"]);
    }

    #[test]
    fn percentiles_have_the_digits_they_need() {
        let quantiles = [0.0, 0.5, 0.9, 0.99, 0.999, 0.9999, 0.75, 0.99975, 1.0];
        let texts = ["0", "50", "90", "99", "99.9", "99.99", "75", "99.975", "100"];
        assert_eq!(quantiles.map(percentile), texts);
    }

    #[test]
    fn moments_are_dates() {
        assert_eq!(moment(1_764_064_800_250), "2025-11-25T10:00:00Z");
        assert_eq!(moment(u64::MAX), "18446744073709551615 ms");
    }
}
