//! One thing to mend: where it is, and what to do.

use std::fmt;

/// Displayed as `file:line: what is wrong; what to do`, which editors jump to.
#[derive(Debug, PartialEq, Eq)]
pub struct Finding {
    path: String,
    line: usize,
    advice: String,
}

impl Finding {
    /// `line` counts from 1.
    pub fn new(path: &str, line: usize, advice: impl Into<String>) -> Self {
        Self { path: path.to_owned(), line, advice: advice.into() }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: {}", self.path, self.line, self.advice)
    }
}

/// What the unit tests of the rules compare: the findings as a reader sees them.
#[cfg(test)]
pub fn displayed(findings: Vec<Finding>) -> Vec<String> {
    findings.iter().map(Finding::to_string).collect()
}
