//! Reads OpenMetrics text: names, labels and values of its samples. Types, units, help and exemplars are passed over.

/// The samples of one scrape.
#[derive(Debug, Default, PartialEq)]
pub struct Samples(Vec<Sample>);

#[derive(Debug, PartialEq)]
struct Sample {
    name: String,
    labels: Vec<(String, String)>,
    value: f64,
}

impl Samples {
    /// Reads a whole text; none if its end is missing. A line that is no sample is nobody's figure and passed over.
    pub fn parse(text: &str) -> Option<Samples> {
        let lines = text.trim_end().strip_suffix("# EOF")?.lines();
        Some(Samples(lines.filter(|line| !line.starts_with('#')).filter_map(sample).collect()))
    }

    /// The value of the sample that has this label, or of the one that has none.
    pub fn value(&self, name: &str, label: Option<(&str, &str)>) -> Option<f64> {
        let sample = self.named(name).find(|sample| match label {
            Some((label, value)) => sample.label(label) == Some(value),
            None => sample.labels.is_empty(),
        });
        sample.map(|sample| sample.value)
    }

    /// What the samples of this name have at a label, in their order.
    pub fn labels<'a>(&'a self, name: &'a str, label: &'a str) -> impl Iterator<Item = &'a str> {
        self.named(name).filter_map(move |sample| sample.label(label))
    }

    /// The buckets of a histogram: the upper bound of each, and how many are not above it.
    pub fn buckets(&self, name: &str) -> Vec<(f64, f64)> {
        let name = format!("{name}_bucket");
        let bucket = |sample: &Sample| Some((sample.label("le")?.parse().ok()?, sample.value));
        self.named(&name).filter_map(bucket).collect()
    }

    fn named(&self, name: &str) -> impl Iterator<Item = &Sample> {
        self.0.iter().filter(move |sample| sample.name == name)
    }
}

impl Sample {
    fn label(&self, name: &str) -> Option<&str> {
        self.labels.iter().find(|(label, _)| label == name).map(|(_, value)| value.as_str())
    }
}

/// `name{label="value",…} value …`
fn sample(line: &str) -> Option<Sample> {
    let end = line.find(['{', ' '])?;
    let (name, rest) = line.split_at(end);
    let (labels, rest) = match rest.strip_prefix('{') {
        Some(rest) => labels(rest)?,
        None => (Vec::new(), rest),
    };
    let value = rest.split_whitespace().next()?.parse().ok()?;
    Some(Sample { name: name.to_owned(), labels, value })
}

/// Labels up to and with their closing brace, and what follows it.
fn labels(mut text: &str) -> Option<(Vec<(String, String)>, &str)> {
    let mut labels = Vec::new();
    loop {
        if let Some(rest) = text.strip_prefix('}') {
            return Some((labels, rest));
        }
        let (name, rest) = text.split_once("=\"")?;
        let (value, rest) = quoted(rest)?;
        labels.push((name.to_owned(), value));
        text = rest.strip_prefix(',').unwrap_or(rest);
    }
}

/// A value up to its closing quote, and what follows that.
fn quoted(text: &str) -> Option<(String, &str)> {
    let mut value = String::new();
    let mut chars = text.char_indices();
    while let Some((at, char)) = chars.next() {
        match char {
            '"' => return Some((value, &text[at + 1..])),
            '\\' => match chars.next()?.1 {
                'n' => value.push('\n'),
                escaped => value.push(escaped),
            },
            char => value.push(char),
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_are_found_by_name_and_label() {
        let text = "# HELP a What it is.\n# TYPE a counter\na_total{shard=\"0\"} 17\na_total{shard=\"1\"} 2e3\n\
                    b 1 1700000000\nc{path=\"/x \\\"y\\\" \\\\ z\",kind=\"d,}\"} 0.5 # {} 1\n\
                    h_bucket{le=\"0.25\"} 1\nh_bucket{le=\"+Inf\"} 3\n# EOF\n";
        let samples = Samples::parse(text).unwrap();
        assert_eq!(samples.value("a_total", Some(("shard", "1"))), Some(2_000.0));
        assert_eq!(samples.value("a_total", Some(("shard", "2"))), None);
        assert_eq!(samples.value("a_total", None), None);
        assert_eq!(samples.value("b", None), Some(1.0));
        assert_eq!(samples.value("c", Some(("path", "/x \"y\" \\ z"))), Some(0.5));
        assert_eq!(samples.value("c", Some(("kind", "d,}"))), Some(0.5));
        assert_eq!(samples.labels("a_total", "shard").collect::<Vec<_>>(), ["0", "1"]);
        assert_eq!(samples.buckets("h"), [(0.25, 1.0), (f64::INFINITY, 3.0)]);
    }

    #[test]
    fn what_is_no_sample_is_passed_over_and_a_text_without_its_end_is_refused() {
        let text = "a\na{\na{b}\na{b=\"\na{b=\"c\\\na{b=\"c\"}\na{b=\"c\"} many\n\n{} 1\nd 1\n# EOF";
        assert_eq!(Samples::parse(text).unwrap().value("d", None), Some(1.0));
        assert_eq!(Samples::parse(text).unwrap().value("a", Some(("b", "c"))), None);
        assert_eq!(Samples::parse("a 1\n"), None);
        assert_eq!(Samples::parse(""), None);
    }
}
