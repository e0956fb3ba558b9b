//! Rules about Rust code: the seam to the machine, and what finished code looks like.

use crate::finding::Finding;
use crate::source::{RustSource, has_word, lines_with_word};

/// Rooms in which clock, disk, network, threads and chance come from `corrente-runtime` alone.
const HELD_ROOMS: [&str; 6] = ["protocol", "storage", "replication", "broker", "history", "sim"];
/// The same for the part of the SDK that the simulator drives.
const HELD_DIRECTORY: &str = "client/src/core/";

/// What a held room may not name: a path, or a path and one of the names below it. `Duration` and addresses are
/// plain data and stay free.
const MACHINE: [(&str, &[&str]); 5] = [
    ("std::fs", &[]),
    ("std::thread", &[]),
    ("std::process", &["Command", "abort", "exit", "id"]),
    ("std::time", &["Instant", "SystemTime", "UNIX_EPOCH"]),
    ("std::net", &["TcpStream", "TcpListener", "UdpSocket", "ToSocketAddrs"]),
];

/// A longer file is more than one concept. Test items at the foot of a file are not counted.
const SHIPPED_LINES_MAX: usize = 700;

/// Rooms whose crates are libraries: what they have to say is a value or a log event.
const LIBRARIES: [&str; 8] =
    ["protocol", "runtime", "storage", "replication", "broker", "client", "loadgen", "history"];

pub fn check_seam(source: &RustSource) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut find = |line: usize, advice: String| findings.push(Finding::new(&source.path, line, advice));
    let room = source.room();
    if room != "runtime" {
        for word in ["unsafe", "glommio", "io_uring"] {
            lines_with_word(&source.code, word).for_each(|line| {
                find(line, format!("`{word}` lives in runtime/ alone: give the runtime what is missing"))
            });
        }
    }
    let held = HELD_ROOMS.contains(&room) || source.path.starts_with(HELD_DIRECTORY);
    if held && !source.is_program() {
        for (line, path) in standard_paths(&source.shipped) {
            if let Some(advice) = refuse(&path) {
                find(line, advice);
            }
        }
    }
    findings
}

fn refuse(path: &str) -> Option<String> {
    let (of, names) = MACHINE.iter().find(|(of, _)| path == *of || path.starts_with(&format!("{of}::")))?;
    let below = path[of.len()..].trim_start_matches("::").split("::").next().unwrap_or_default();
    // The bare module (or all of it) lets everything below it in by a shorter name.
    let refused = names.is_empty() || below.is_empty() || below == "*" || names.contains(&below);
    refused.then(|| format!("`{path}` goes around the simulator: use corrente_runtime"))
}

pub fn check_shape(source: &RustSource) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut find = |line: usize, advice: &str| findings.push(Finding::new(&source.path, line, advice));
    for (needle, advice) in [
        ("todo!", "finish it, or leave it out"),
        ("unimplemented!", "finish it, or leave it out"),
        ("dbg!", "a trace of debugging: remove it"),
    ] {
        lines_with_macro(&source.code, needle).for_each(|line| find(line, advice));
    }
    if LIBRARIES.contains(&source.room()) && !source.is_program() {
        for needle in ["println!", "print!", "eprintln!", "eprint!"] {
            lines_with_macro(&source.shipped, needle).for_each(|line| {
                find(line, "a library does not print: return a value or emit a tracing event")
            });
        }
    }
    if source.path.contains("/src/") && !source.is_test() && !source.text.starts_with("//!") {
        find(1, "open with `//!`: what this module owns, and what it never does");
    }
    let lines = source.shipped_lines();
    if lines > SHIPPED_LINES_MAX {
        find(
            SHIPPED_LINES_MAX,
            &format!("{lines} lines without tests, at most {SHIPPED_LINES_MAX}: one concept a file"),
        );
    }
    for line in exemptions_without_reason(source) {
        find(line, "every exemption carries its reason: `reason = \"…\"`, or a comment above");
    }
    findings
}

/// Lines of `#[allow(…)]` and `#![allow(…)]`, perhaps over several lines, that nobody explains.
fn exemptions_without_reason(source: &RustSource) -> Vec<usize> {
    let text: Vec<&str> = source.text.lines().collect();
    let code: Vec<&str> = source.code.lines().collect();
    let explained = |index: usize| {
        let length = code[index..].iter().position(|line| line.contains(")]")).map_or(1, |last| last + 1);
        let attribute = index..index + length;
        code[attribute.clone()].iter().any(|line| line.contains("reason ="))
            || text[attribute].iter().any(|line| line.contains("// "))
            || (index > 0 && is_plain_comment(text[index - 1]))
    };
    (0..code.len())
        .filter(|index| code[*index].contains("#[allow(") || code[*index].contains("#![allow("))
        .filter(|index| !explained(*index))
        .map(|index| index + 1)
        .collect()
}

/// A remark to the next reader, not documentation of the item below.
fn is_plain_comment(line: &str) -> bool {
    let line = line.trim_start();
    line.starts_with("//") && !line.starts_with("///") && !line.starts_with("//!")
}

fn lines_with_macro<'a>(code: &'a str, needle: &'a str) -> impl Iterator<Item = usize> + 'a {
    let name = needle.trim_end_matches('!');
    code.lines()
        .enumerate()
        .filter(move |(_, line)| line.contains(needle) && has_word(line, name))
        .filter(move |(_, line)| {
            line.match_indices(needle).any(|(at, _)| !line[..at].ends_with(identifier_part))
        })
        .map(|(index, _)| index + 1)
}

fn identifier_part(character: char) -> bool {
    character.is_alphanumeric() || character == '_'
}

/// Every path from `std` (or `core`, or `alloc`'s siblings in a `use` group) in the code, with its line from 1:
/// `std::{fs, time::{Duration, Instant}}` yields `std::fs`, `std::time::Duration` and `std::time::Instant`.
fn standard_paths(code: &str) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    for (start, _) in code.match_indices("std::") {
        if code[..start].ends_with(|c: char| identifier_part(c)) {
            continue;
        }
        let mut tree = PathTree { code, at: start, found: &mut found };
        tree.read(String::new());
    }
    found
}

/// Reads one path or use-tree, from `at` on.
struct PathTree<'a> {
    code: &'a str,
    at: usize,
    found: &'a mut Vec<(usize, String)>,
}

impl PathTree<'_> {
    fn read(&mut self, mut path: String) {
        loop {
            self.skip_blanks();
            let line = self.code[..self.at].matches('\n').count() + 1;
            if self.take("{") {
                while !self.take("}") && self.at < self.code.len() {
                    let before = self.at;
                    self.read(path.clone());
                    self.skip_blanks();
                    self.take(",");
                    self.skip_blanks();
                    if self.at == before {
                        return;
                    }
                }
                return;
            }
            let name = self.name();
            if name != "self" && !name.is_empty() {
                path = if path.is_empty() { name } else { format!("{path}::{name}") };
            }
            if !self.take("::") {
                self.skip_alias();
                self.found.push((line, path));
                return;
            }
        }
    }

    fn name(&mut self) -> String {
        let rest = &self.code[self.at..];
        let length =
            if rest.starts_with('*') { 1 } else { rest.find(|c| !identifier_part(c)).unwrap_or(rest.len()) };
        self.at += length;
        rest[..length].to_owned()
    }

    fn skip_alias(&mut self) {
        self.skip_blanks();
        if self.code[self.at..].starts_with("as ") {
            self.at += "as ".len();
            self.skip_blanks();
            self.name();
        }
    }

    fn skip_blanks(&mut self) {
        let rest = &self.code[self.at..];
        self.at += rest.len() - rest.trim_start().len();
    }

    fn take(&mut self, token: &str) -> bool {
        let taken = self.code[self.at..].starts_with(token);
        self.at += if taken { token.len() } else { 0 };
        taken
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::finding::displayed;

    fn seam(path: &str, text: &str) -> Vec<String> {
        displayed(check_seam(&RustSource::new(path, text)))
    }

    fn shape(path: &str, text: &str) -> Vec<String> {
        displayed(check_shape(&RustSource::new(path, text)))
    }

    const NONE: [String; 0] = [];

    #[test]
    fn unsafe_is_found_outside_the_runtime() {
        let text = "//! Head.\n\nfn f() { unsafe { g() } }\n";
        let expected =
            "storage/src/log.rs:3: `unsafe` lives in runtime/ alone: give the runtime what is missing";
        assert_eq!(seam("storage/src/log.rs", text), [expected]);
        assert_eq!(seam("runtime/src/buffer.rs", text), NONE);
        assert_eq!(seam("storage/src/log.rs", "// unsafe\nlet unsafe_code = \"unsafe\";"), NONE);
    }

    #[test]
    fn the_machine_is_found_by_every_way_of_naming_it() {
        for text in [
            "use std::fs;",
            "use std::fs::File;",
            "use std::time::Instant;",
            "use std::time::{Duration, Instant};",
            "use std::{\n    collections::BTreeMap,\n    time::{self, Duration},\n};",
            "use std::time;",
            "use std::time::*;",
            "use ::std::net::{SocketAddr, TcpStream};",
            "use std::time::Instant as Clock;",
            "fn f() { std::thread::spawn(g); }",
            "let now = std::time::SystemTime::now();",
        ] {
            assert_eq!(seam("broker/src/node.rs", text).len(), 1, "{text}");
            assert_eq!(seam("client/src/core/retry.rs", text).len(), 1, "{text}");
            assert_eq!(seam("client/src/transport.rs", text), NONE, "{text}");
            assert_eq!(seam("runtime/src/driver/uring/file.rs", text), NONE, "{text}");
        }
        let nested = "use std::{\n    fmt,\n    fs,\n};";
        assert_eq!(
            seam("broker/src/node.rs", nested),
            ["broker/src/node.rs:3: `std::fs` goes around the simulator: use corrente_runtime"]
        );
    }

    #[test]
    fn plain_data_is_free_and_so_are_tests() {
        for text in [
            "use std::time::Duration;",
            "use std::net::{IpAddr, SocketAddr};",
            "use std::{fmt, time::Duration, net::SocketAddr};",
            "use std::process::ExitCode;",
            "#[cfg(test)]\nmod tests {\n    use std::fs;\n}",
            "std::thread_local! { static A: u8 = 0; }",
        ] {
            assert_eq!(seam("storage/src/log.rs", text), NONE, "{text}");
        }
        for path in ["storage/tests/recovery.rs", "storage/examples/measure.rs", "sim/src/bin/sim.rs"] {
            assert_eq!(seam(path, "use std::fs;"), NONE, "{path}");
        }
    }

    #[test]
    fn unfinished_code_is_found() {
        let text = "//! Head.\nfn f() {\n    todo!()\n}\nfn g() { dbg!(1); }\n";
        assert_eq!(
            shape("storage/src/log.rs", text),
            [
                "storage/src/log.rs:3: finish it, or leave it out",
                "storage/src/log.rs:5: a trace of debugging: remove it"
            ]
        );
        assert_eq!(shape("storage/src/log.rs", "//! Head.\n// todo!()\nfn not_todo() {}\n"), NONE);
    }

    #[test]
    fn a_library_that_prints_is_found() {
        let text = "//! Head.\nfn f() { println!(\"x\"); }\n#[cfg(test)]\nmod tests { fn f() { println!(\"x\"); } }\n";
        let found = shape("client/src/lib.rs", text);
        assert_eq!(found.len(), 1, "{found:?}");
        assert!(found[0].starts_with("client/src/lib.rs:2: a library does not print"), "{found:?}");
        assert_eq!(shape("cli/src/main.rs", text), NONE);
        assert_eq!(shape("client/src/lib.rs", "//! Head.\nfn f() { my_println!(1); }\n"), NONE);
    }

    #[test]
    fn a_module_without_a_head_is_found() {
        assert!(shape("storage/src/log.rs", "use x;\n")[0].contains("open with `//!`"));
        assert_eq!(shape("storage/tests/story.rs", "use x;\n"), NONE);
    }

    #[test]
    fn a_file_is_too_long_without_its_tests() {
        let code = "fn f() {}\n".repeat(SHIPPED_LINES_MAX - 1);
        let tests = format!("#[cfg(test)]\nmod tests {{\n{}}}\n", "    fn f() {}\n".repeat(100));
        assert_eq!(shape("storage/src/log.rs", &format!("//! Head.\n{code}{tests}")), NONE);
        let one_more = format!("//! Head.\n{code}// A comment counts.\n{tests}");
        assert!(shape("storage/src/log.rs", &one_more)[0].contains("701 lines without tests"));
    }

    #[test]
    fn an_exemption_without_a_reason_is_found() {
        let bare = "//! Head.\n#[allow(dead_code)]\nfn f() {}\n";
        assert!(shape("storage/src/log.rs", bare)[0].contains("carries its reason"));
        for text in [
            "//! Head.\n#[allow(dead_code, reason = \"r\")]\nfn f() {}\n",
            "//! Head.\n#![allow(\n    dead_code,\n    reason = \"r\"\n)]\n",
            "//! Head.\n// The wire wants it so.\n#[allow(dead_code)]\nfn f() {}\n",
        ] {
            assert_eq!(shape("storage/src/log.rs", text), NONE, "{text}");
        }
    }
}
