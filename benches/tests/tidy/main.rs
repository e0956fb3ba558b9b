//! Our own taste, kept by a test: what clippy and rustfmt cannot know about this house.
//!
//! Each rule is a function from text to findings, proved beside itself on planted faults; this file walks the
//! repository and hands every file to the rules that apply to it. A finding names file and line and says what to do.

#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "the test reads the repository as it lies on disk"
)]

mod arrows;
mod code;
mod docs;
mod finding;
mod source;
mod text;
mod words;

use std::fs;
use std::path::{Path, PathBuf};

use finding::Finding;
use source::RustSource;

/// What git does not hold, bytes that are golden because they never change, and patches.
const NOT_OURS: [&str; 8] =
    [".git", "target", "corrente-data", "golden", "corpus", "seeds", "planted", "proptest-regressions"];

/// A workspace of its own, with its own versions and lints; it tries whatever there is, so every arrow may start there.
const OUTSIDE: &str = "fuzz/Cargo.toml";

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("benches/ lies in the repository").to_path_buf()
}

/// Every file of the repository: its path from the root, in order, and its text where it is text.
fn files() -> Vec<(String, String)> {
    let root = root();
    let mut found = Vec::new();
    let mut directories = vec![root.clone()];
    while let Some(directory) = directories.pop() {
        for entry in
            fs::read_dir(&directory).unwrap_or_else(|error| panic!("read {}: {error}", directory.display()))
        {
            let path = entry.expect("a directory entry").path();
            let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            if NOT_OURS.contains(&name) {
                continue;
            }
            if path.is_dir() {
                directories.push(path);
            } else if let Ok(text) = fs::read_to_string(&path) {
                let relative = path.strip_prefix(&root).expect("below the root");
                found.push((relative.to_string_lossy().into_owned(), text));
            }
        }
    }
    found.sort();
    assert!(found.len() > 20, "only {} files found below {}", found.len(), root.display());
    found
}

fn rust_sources() -> Vec<RustSource> {
    files()
        .into_iter()
        .filter(|(path, _)| path.ends_with(".rs"))
        .map(|(path, text)| RustSource::new(&path, &text))
        .collect()
}

/// One line per finding, all of them at once, so that one run is enough to mend everything.
fn report(findings: Vec<Finding>) {
    let lines: Vec<String> = findings.iter().map(Finding::to_string).collect();
    assert!(lines.is_empty(), "{} findings:\n{}\n", lines.len(), lines.join("\n"));
}

#[test]
fn arrows_of_the_house() {
    report(
        files()
            .iter()
            .filter(|(path, _)| path.ends_with("Cargo.toml") && path.contains('/') && path != OUTSIDE)
            .flat_map(|(path, text)| arrows::check_manifest(path, text))
            .collect(),
    );
}

#[test]
fn only_the_runtime_touches_the_machine() {
    report(rust_sources().iter().flat_map(code::check_seam).collect());
}

#[test]
fn code_is_finished_and_reads_well() {
    report(rust_sources().iter().flat_map(code::check_shape).collect());
}

#[test]
fn text_is_clean() {
    report(files().iter().flat_map(|(path, text)| text::check(path, text)).collect());
}

#[test]
fn scripts_stop_at_the_first_fault() {
    use std::os::unix::fs::PermissionsExt;
    let executable = |path: &str| {
        let mode = fs::metadata(root().join(path)).expect("a file just listed").permissions().mode();
        mode & 0o111 != 0
    };
    report(
        files()
            .iter()
            .filter(|(path, _)| path.starts_with("scripts/") || path == ".ci/run")
            // What a script reads.
            .filter(|(path, _)| !path.ends_with(".list"))
            .flat_map(|(path, text)| text::check_script(path, text, executable(path)))
            .collect(),
    );
}

#[test]
fn one_word_one_meaning() {
    report(files().iter().flat_map(|(path, text)| words::check(path, text)).collect());
}

#[test]
fn documents_are_on_the_map_and_their_links_lead_somewhere() {
    let files = files();
    let mut findings = docs::check_map(&files);
    findings.extend(docs::check_links(&files, |path| root().join(path).exists()));
    report(findings);
}
