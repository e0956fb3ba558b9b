//! What a check comes to.

use serde::Serialize;

/// How much what was found hurts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    Ok,
    /// A broker runs, but slower or less surely than it could.
    Warn,
    /// A broker does not start, or does not keep what it promises.
    Fail,
}

/// One line of the doctor's. There is something to mend exactly if the verdict is not `ok`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Check {
    pub name: &'static str,
    /// Which data directory it is of, as it was named; the machine's own checks are of none.
    #[serde(skip_serializing_if = "Option::is_none")]
    data_dir: Option<String>,
    pub verdict: Verdict,
    pub found: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    mend: Option<String>,
}

impl Check {
    pub fn ok(name: &'static str, found: impl Into<String>) -> Check {
        Check { name, data_dir: None, verdict: Verdict::Ok, found: found.into(), mend: None }
    }

    pub fn warn(name: &'static str, found: impl Into<String>, mend: impl Into<String>) -> Check {
        Check { verdict: Verdict::Warn, mend: Some(mend.into()), ..Check::ok(name, found) }
    }

    pub fn fail(name: &'static str, found: impl Into<String>, mend: impl Into<String>) -> Check {
        Check { verdict: Verdict::Fail, mend: Some(mend.into()), ..Check::ok(name, found) }
    }

    /// The same, said of a data directory.
    pub fn of(self, data_dir: impl Into<String>) -> Check {
        Check { data_dir: Some(data_dir.into()), ..self }
    }

    pub fn row(&self) -> Vec<String> {
        let name = match &self.data_dir {
            Some(dir) => format!("{} {dir}", self.name),
            None => self.name.to_owned(),
        };
        let mend = self.mend.clone().unwrap_or_default();
        vec![name, self.verdict.name().to_owned(), self.found.clone(), mend]
    }
}

impl Verdict {
    fn name(self) -> &'static str {
        match self {
            Verdict::Ok => "ok",
            Verdict::Warn => "warn",
            Verdict::Fail => "fail",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_absent_is_left_out_of_json() {
        let json = |check: &Check| serde_json::to_string(check).unwrap();
        assert_eq!(json(&Check::ok("a", "b")), r#"{"name":"a","verdict":"ok","found":"b"}"#);
        assert_eq!(
            json(&Check::fail("a", "b", "c").of("d")),
            r#"{"name":"a","data_dir":"d","verdict":"fail","found":"b","mend":"c"}"#
        );
    }
}
