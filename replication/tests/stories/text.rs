//! Tests as text: a table of commands with the output each must give.
//!
//! A case is one command line, a line of four dashes, the expected output, and an empty line. Lines that
//! begin with `#` are remarks. State carries over from case to case within a table.

/// Runs every command of `table` and compares. On a difference it prints the whole table as it came out, so
/// that a wanted change is one paste.
pub fn check(name: &str, table: &str, mut run: impl FnMut(&str) -> String) {
    let mut actual = String::new();
    let mut first_difference = None;
    for case in table.split("\n\n").map(str::trim).filter(|case| !case.is_empty()) {
        let (head, expected) = case.split_once("\n----").unwrap_or((case, ""));
        let Some(command) = head.lines().find(|line| !line.starts_with('#')) else {
            actual += &format!("{head}\n\n");
            continue;
        };
        let output = run(command);
        if output.trim() != expected.trim() && first_difference.is_none() {
            first_difference = Some(command.to_owned());
        }
        actual += &format!("{head}\n----\n{}\n\n", output.trim());
    }
    if let Some(command) = first_difference {
        panic!("testdata/{name} differs first at `{command}`; it came out as\n\n{actual}");
    }
}

/// The words of a command line after its first.
pub fn arguments(command: &str) -> Vec<&str> {
    command.split_whitespace().skip(1).collect()
}

/// The value of `key=value` among the words of a command line.
pub fn named<'a>(command: &'a str, key: &str) -> Option<&'a str> {
    command.split_whitespace().find_map(|word| word.strip_prefix(key)?.strip_prefix('='))
}

/// A number, or the test is written wrong.
pub fn number<N: std::str::FromStr>(text: &str) -> N {
    text.parse().unwrap_or_else(|_| panic!("{text:?} is no number"))
}
