//! Rules about any text we write: lines that fit, no stray blanks, scripts that stop at the first fault.

use crate::finding::Finding;

/// In characters; a line that is long because of one address or hash is let be.
const COLUMNS_MAX: usize = 120;

/// Files whose lines are held to `COLUMNS_MAX`; prose in Markdown wraps as its author likes.
fn is_code(path: &str) -> bool {
    path.ends_with(".rs") || path.starts_with("scripts/") || path.starts_with(".ci/")
}

/// Files that somebody else lays out.
fn is_ours(path: &str) -> bool {
    !path.ends_with(".lock") && path != "LICENSE"
}

pub fn check(path: &str, text: &str) -> Vec<Finding> {
    if !is_ours(path) {
        return Vec::new();
    }
    let mut findings = Vec::new();
    for (index, line) in text.lines().enumerate() {
        let mut find = |advice: String| findings.push(Finding::new(path, index + 1, advice));
        if line.contains('\t') {
            find("a tab: indent with spaces".to_owned());
        }
        if line.ends_with(char::is_whitespace) {
            find("blanks at the end of the line: remove them".to_owned());
        }
        let columns = line.chars().count();
        if is_code(path) && columns > COLUMNS_MAX && !line.contains("://") {
            find(format!("{columns} columns, at most {COLUMNS_MAX}: break the line"));
        }
    }
    if !text.is_empty() && !text.ends_with('\n') {
        findings.push(Finding::new(path, text.lines().count(), "end the last line"));
    }
    findings
}

/// `scripts/NAME` is run, `scripts/NAME.sh` is sourced.
pub fn check_script(path: &str, text: &str, executable: bool) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut find = |advice: &str| findings.push(Finding::new(path, 1, advice));
    if path.ends_with(".sh") {
        if executable {
            find("a sourced script is not executable: chmod -x, or drop the .sh");
        }
        return findings;
    }
    if !text.starts_with("#!/usr/bin/env bash\n") {
        find("open with `#!/usr/bin/env bash`");
    }
    if !text.contains("\nset -euo pipefail\n") {
        find("add `set -euo pipefail`: a script stops at the first fault");
    }
    if !executable {
        find("not executable: chmod +x");
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::finding::displayed;

    #[test]
    fn stray_blanks_and_long_lines_are_found() {
        let text = format!("\tx\ny \n{}\n{}\n", "z".repeat(COLUMNS_MAX), "z".repeat(COLUMNS_MAX + 1));
        assert_eq!(
            displayed(check("a.rs", &text)),
            [
                "a.rs:1: a tab: indent with spaces",
                "a.rs:2: blanks at the end of the line: remove them",
                "a.rs:4: 121 columns, at most 120: break the line",
            ]
        );
        assert_eq!(displayed(check("a.md", "x")), ["a.md:1: end the last line"]);
        assert_eq!(
            displayed(check("a.md", &format!("{}\n", "word ".repeat(40).trim_end()))),
            Vec::<String>::new()
        );
        assert_eq!(displayed(check("Cargo.lock", "\t")), Vec::<String>::new());
    }

    #[test]
    fn columns_are_characters_not_bytes() {
        assert_eq!(displayed(check("a.rs", &format!("{}\n", "é".repeat(COLUMNS_MAX)))), Vec::<String>::new());
    }

    #[test]
    fn careless_scripts_are_found() {
        let careful = "#!/usr/bin/env bash\n# Why.\nset -euo pipefail\n";
        assert_eq!(displayed(check_script("scripts/x", careful, true)), Vec::<String>::new());
        assert_eq!(check_script("scripts/x", careful, false).len(), 1);
        assert_eq!(check_script("scripts/x", "#!/bin/sh\n", true).len(), 2);
        assert_eq!(check_script("scripts/x.sh", "", true).len(), 1);
    }
}
