//! Counts, sizes, durations and lists of CPUs as people write them.

use std::time::Duration;

/// `1000`, `1_000`, `10k`, `1.5M`, `2G`: powers of ten.
pub fn parse_count(text: &str) -> Result<u64, String> {
    let (number, suffix) = split_number(text);
    let unit = match suffix {
        "" => 1,
        "k" | "K" => 1_000,
        "M" => 1_000_000,
        "G" => 1_000_000_000,
        _ => return Err(format!("unknown unit '{suffix}': use k, M or G")),
    };
    scaled(number, unit)
}

/// `256`, `1KiB`, `4MiB` (powers of two), `1kB`, `1MB` (powers of ten).
pub fn parse_bytes(text: &str) -> Result<usize, String> {
    let (number, suffix) = split_number(text);
    let unit = match suffix {
        "" | "B" => 1,
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        "kB" => 1_000,
        "MB" => 1_000_000,
        "GB" => 1_000_000_000,
        _ => return Err(format!("unknown unit '{suffix}': use B, KiB, MiB, GiB, kB, MB or GB")),
    };
    scaled(number, unit)
        .and_then(|bytes| usize::try_from(bytes).map_err(|_| format!("'{text}' is too large")))
}

/// `30s`, `500ms`, `2m`, `1h`, `7d`; a plain number is seconds.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    let (number, suffix) = split_number(text);
    let unit_ns = match suffix {
        "ns" => 1,
        "us" | "µs" => 1_000,
        "ms" => 1_000_000,
        "" | "s" => 1_000_000_000,
        "m" | "min" => 60 * 1_000_000_000,
        "h" => 3_600 * 1_000_000_000,
        "d" => 24 * 3_600 * 1_000_000_000,
        _ => return Err(format!("unknown unit '{suffix}': use ms, s, m, h or d")),
    };
    scaled(number, unit_ns).map(Duration::from_nanos)
}

/// `5%` or `0.05`: a part of a whole, from 0 to 1.
pub fn parse_share(text: &str) -> Result<f64, String> {
    let (number, unit) = match text.strip_suffix('%') {
        Some(percent) => (percent, 100.0),
        None => (text, 1.0),
    };
    match number.trim().parse::<f64>().map(|value| value / unit) {
        Ok(share) if (0.0..=1.0).contains(&share) => Ok(share),
        Ok(_) => Err(format!("'{text}' is not between 0% and 100%")),
        Err(_) => Err(format!("'{text}' is not a share such as 5%")),
    }
}

/// `0`, `0,2`, `0-3,8`: CPU numbers in the order given.
pub fn parse_cpus(text: &str) -> Result<CpuList, String> {
    let mut cpus = Vec::new();
    for part in text.split(',') {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let cpu = |text: &str| {
            text.trim().parse::<u16>().map(usize::from).map_err(|_| format!("'{text}' is not a cpu number"))
        };
        let (first, last) = (cpu(first)?, cpu(last)?);
        if first > last {
            return Err(format!("the range {first}-{last} runs backwards"));
        }
        cpus.extend(first..=last);
    }
    Ok(CpuList(cpus))
}

/// A list that is one argument.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CpuList(pub Vec<usize>);

/// `key=value`; the value may be empty and may hold further `=`.
pub fn parse_pair(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        _ => Err(format!("'{text}' is not KEY=VALUE")),
    }
}

fn split_number(text: &str) -> (&str, &str) {
    let end = text.find(|c: char| !(c.is_ascii_digit() || c == '.' || c == '_')).unwrap_or(text.len());
    let (number, suffix) = text.split_at(end);
    (number, suffix.trim())
}

/// `number` × `unit`, exact for whole numbers.
fn scaled(number: &str, unit: u64) -> Result<u64, String> {
    let digits = number.replace('_', "");
    if let Ok(whole) = digits.parse::<u64>() {
        return whole.checked_mul(unit).ok_or_else(|| format!("'{number}' is too large"));
    }
    match digits.parse::<f64>() {
        // Checked to fit: up to 2^53 a double holds every whole number.
        Ok(value) if value * unit as f64 <= 9e15 => Ok((value * unit as f64).round() as u64),
        Ok(_) => Err(format!("'{number}' is too large")),
        Err(_) => Err(format!("'{number}' is not a number")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts() {
        assert_eq!(parse_count("1_000"), Ok(1_000));
        assert_eq!(parse_count("1.5M"), Ok(1_500_000));
        assert_eq!(parse_count("18446744073709551615"), Ok(u64::MAX));
        assert!(parse_count("18446744073709551615k").is_err());
        assert!(parse_count("-1").is_err());
        assert!(parse_count("").is_err());
        assert!(parse_count("3 apples").unwrap_err().contains("apples"));
    }

    #[test]
    fn sizes_and_durations() {
        assert_eq!(parse_bytes("1KiB"), Ok(1_024));
        assert_eq!(parse_bytes("1kB"), Ok(1_000));
        assert_eq!(parse_duration("1.5s"), Ok(Duration::from_millis(1_500)));
        assert_eq!(parse_duration("250ms"), Ok(Duration::from_millis(250)));
        assert_eq!(parse_duration("2m"), Ok(Duration::from_secs(120)));
        assert_eq!(parse_duration("1d"), Ok(Duration::from_secs(86_400)));
        assert!(parse_duration("1 fortnight").is_err());
        assert!(parse_duration("1.2.3s").is_err());
    }

    #[test]
    fn shares() {
        assert_eq!(parse_share("5%"), Ok(0.05));
        assert_eq!(parse_share("0.05"), Ok(0.05));
        assert!(parse_share("101%").unwrap_err().contains("between"));
        assert!(parse_share("%").is_err());
    }

    #[test]
    fn cpu_lists() {
        assert_eq!(parse_cpus("0-2,5"), Ok(CpuList(vec![0, 1, 2, 5])));
        assert_eq!(parse_cpus("3"), Ok(CpuList(vec![3])));
        assert!(parse_cpus("2-0").is_err());
        assert!(parse_cpus("").is_err());
        assert!(parse_cpus("0,,1").is_err());
    }

    #[test]
    fn pairs() {
        assert_eq!(parse_pair("a=b=c"), Ok(("a".to_owned(), "b=c".to_owned())));
        assert_eq!(parse_pair("a="), Ok(("a".to_owned(), String::new())));
        assert!(parse_pair("=b").is_err());
        assert!(parse_pair("ab").is_err());
    }
}
