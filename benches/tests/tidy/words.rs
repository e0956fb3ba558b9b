//! One word, one meaning: synonyms that would make two things of one.

use crate::finding::Finding;
use crate::source::has_word;

/// What is not written, and what is written instead.
const WORDS: [(&str, &str); 13] = [
    ("hwm", "high watermark"),
    ("hw_mark", "high watermark"),
    ("leo", "log end offset"),
    ("lso", "last stable offset"),
    ("message_set", "record batch"),
    ("messageset", "record batch"),
    ("topic_and_partition", "topic partition"),
    ("slave", "follower"),
    ("whitelist", "allow list"),
    ("blacklist", "deny list"),
    ("utilize", "use"),
    ("fixme", "an issue, or the repair"),
    ("xxx", "an issue, or the repair"),
];

/// The list itself, and what others wrote.
const EXEMPT: [&str; 4] = ["benches/tests/tidy/words.rs", "Cargo.lock", "LICENSE", "deny.toml"];

pub fn check(path: &str, text: &str) -> Vec<Finding> {
    if EXEMPT.contains(&path) {
        return Vec::new();
    }
    let mut findings = Vec::new();
    for (index, line) in text.lines().enumerate() {
        let lower = line.to_ascii_lowercase();
        for (word, instead) in WORDS {
            if has_word(&lower, word) {
                findings.push(Finding::new(path, index + 1, format!("not `{word}`: {instead}")));
            }
        }
        if line.contains("/work/") {
            findings.push(Finding::new(path, index + 1, "a path of one machine: write it from the root"));
        }
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::finding::displayed;

    #[test]
    fn synonyms_are_found_as_whole_words() {
        assert_eq!(
            displayed(check("a.rs", "let x = 1;\nlet hwm = x; // the HWM\n")),
            ["a.rs:2: not `hwm`: high watermark"]
        );
        assert_eq!(displayed(check("a.md", "galileo, xxxl, leopard\n")), Vec::<String>::new());
        assert_eq!(check("a.md", "see /work/x\n").len(), 1);
    }
}
