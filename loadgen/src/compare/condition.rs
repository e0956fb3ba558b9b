//! What makes a comparison fail: `p99>+5%`, `records/s<-3%`.

use std::fmt;
use std::str::FromStr;

use super::metric::Metric;

/// A bound on the change of one figure.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Condition {
    /// Which figure.
    pub metric: Metric,
    /// Whether it is a greater change that fails.
    above: bool,
    /// The bound, in percent of A's median.
    percent: f64,
}

impl Condition {
    /// Whether a change, as a part of A's median, is past the bound.
    pub fn holds(&self, change: f64) -> bool {
        if self.above { change * 100.0 > self.percent } else { change * 100.0 < self.percent }
    }
}

impl fmt::Display for Condition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Condition { metric, above, percent } = self;
        write!(f, "{metric}{}{percent:+}%", if *above { '>' } else { '<' })
    }
}

impl FromStr for Condition {
    type Err = String;

    fn from_str(text: &str) -> Result<Condition, String> {
        let form = || format!("'{text}' is not of the form FIGURE>+N% or FIGURE<-N%");
        let at = text.find(['<', '>']).ok_or_else(form)?;
        let (name, bound) = text.split_at(at);
        let percent = bound[1..].trim().strip_suffix('%').ok_or_else(form)?;
        let percent: f64 = percent.parse().map_err(|_| form())?;
        if !percent.is_finite() {
            return Err(form());
        }
        Ok(Condition { metric: name.trim().parse()?, above: bound.starts_with('>'), percent })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn conditions_are_read_and_held() {
        let slower: Condition = "p99>+5%".parse().unwrap();
        assert_eq!((slower.holds(0.06), slower.holds(0.05)), (true, false));
        let less: Condition = "records/s < -3%".parse().unwrap();
        assert_eq!((less.holds(-0.04), less.holds(-0.02)), (true, false));
        assert_eq!(
            (slower.to_string(), less.to_string()),
            ("p99>+5%".to_owned(), "records/s<-3%".to_owned())
        );
    }

    #[test]
    fn what_is_no_condition_is_told_how_to_be_one() {
        for text in ["", "p99", "p99>5", "p99>five%", "p99>NaN%", "p99=5%"] {
            assert!(text.parse::<Condition>().unwrap_err().contains("of the form"), "{text}");
        }
        assert!("p42>+1%".parse::<Condition>().unwrap_err().contains("use one of p50"));
    }
}
