//! What the repository holds for fuzzing, and whether anything is missing there.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// Crates whose decoders are fuzzed.
const ROOMS: [&str; 6] = ["protocol", "storage", "replication", "broker", "client", "sim"];

/// Files that decode and have no entry of their own, and whose entry reaches them.
const REACHED_BY_OTHERS: [(&str, &str); 5] = [
    ("protocol/src/compression/lz4.rs", "codec_lz4"),
    ("protocol/src/compression/snappy.rs", "codec_snappy"),
    ("protocol/src/record/decode.rs", "record"),
    ("protocol/src/record_batch/header.rs", "batch_header"),
    ("storage/src/reader.rs", "extent"),
];

/// Every file below `fuzz/seeds`: target, name, path.
pub fn seed_files(root: &Path) -> Vec<(String, String, PathBuf)> {
    let mut files = Vec::new();
    for target in names_in(&root.join("fuzz/seeds")) {
        for name in names_in(&root.join("fuzz/seeds").join(&target)) {
            let path = root.join("fuzz/seeds").join(&target).join(&name);
            files.push((target.clone(), name, path));
        }
    }
    files
}

/// Entries, files of targets, programs of the manifest and directories of seeds are the same.
pub fn check_targets(root: &Path, entries: &[&str]) -> Vec<String> {
    let entries: BTreeSet<String> = entries.iter().map(|name| (*name).to_owned()).collect();
    let files = names_in(&root.join("fuzz/fuzz_targets"));
    let files = files.iter().map(|name| name.trim_end_matches(".rs").to_owned());
    let manifest = read(&root.join("fuzz/Cargo.toml"));
    let programs = manifest.lines().filter_map(|line| line.strip_prefix("path = \"fuzz_targets/"));
    let programs = programs.map(|name| name.trim_end_matches(".rs\"").to_owned());
    let seeds = seed_files(root).into_iter().map(|(target, ..)| target);
    let mut faults = Vec::new();
    faults.extend(differences("fuzz/fuzz_targets", &entries, files.collect()));
    faults.extend(differences("fuzz/Cargo.toml", &entries, programs.collect()));
    faults.extend(differences("fuzz/seeds", &entries, seeds.collect()));
    for name in &entries {
        let path = root.join("fuzz/fuzz_targets").join(format!("{name}.rs"));
        if path.exists() && !read(&path).contains(&format!("::fuzz::{name}")) {
            faults.push(format!("fuzz/fuzz_targets/{name}.rs does not run the entry {name}"));
        }
    }
    faults
}

/// Every file that decodes has an entry, and every entry is listed under the name of its target.
pub fn check_decoders(root: &Path, entries: &[&str]) -> Vec<String> {
    let sources: Vec<(String, String)> =
        ROOMS.iter().flat_map(|room| sources(&root.join(room).join("src"), &format!("{room}/src"))).collect();
    check_sources(&sources, entries)
}

fn check_sources(sources: &[(String, String)], entries: &[&str]) -> Vec<String> {
    let is_list = |text: &str| text.contains("ENTRIES: &[Entry]");
    let lists: Vec<&str> =
        sources.iter().map(|(_, text)| text.as_str()).filter(|text| is_list(text)).collect();
    let mut faults = Vec::new();
    for (path, text) in sources {
        let shipped = text.split("#[cfg(test)]").next().unwrap_or_default();
        let decodes = shipped.contains("fn decode(") || shipped.contains("fn decompress(");
        let excused = REACHED_BY_OTHERS.iter().any(|(file, entry)| file == path && entries.contains(entry));
        if decodes && !excused && !shipped.contains("pub fn fuzz_") {
            faults.push(format!("{path} decodes and has no `pub fn fuzz_…`: write its entry"));
        }
        for name in words_after(shipped, "pub fn fuzz_") {
            if !lists.iter().any(|list| words_after(list, "fuzz_").any(|listed| listed == name)) {
                faults.push(format!("{path}: fuzz_{name} is on no list of entries"));
            }
        }
        if is_list(text) {
            let uses = shipped.lines().map(str::trim).filter(|line| line.starts_with("pub use "));
            let named =
                uses.flat_map(|line| words_after(line, " as ")).filter(|name| !entries.contains(name));
            faults.extend(named.map(|name| format!("{path}: {name} is not among the entries")));
        }
    }
    faults
}

/// The identifiers that stand behind `before`.
fn words_after<'a>(text: &'a str, before: &'a str) -> impl Iterator<Item = &'a str> {
    text.split(before).skip(1).map(|rest| {
        let end = rest.find(|character: char| !character.is_ascii_alphanumeric() && character != '_');
        &rest[..end.unwrap_or(rest.len())]
    })
}

fn differences(place: &str, wanted: &BTreeSet<String>, found: BTreeSet<String>) -> Vec<String> {
    let missing = wanted.difference(&found).map(|name| format!("{place} lacks {name}"));
    let strange = found.difference(wanted).map(|name| format!("{place} has {name}, which is no entry"));
    missing.chain(strange).collect()
}

fn sources(directory: &Path, name: &str) -> Vec<(String, String)> {
    let mut found = Vec::new();
    for entry in names_in(directory) {
        let (path, name) = (directory.join(&entry), format!("{name}/{entry}"));
        if path.is_dir() {
            found.extend(sources(&path, &name));
        } else {
            found.push((name, read(&path)));
        }
    }
    found
}

fn names_in(directory: &Path) -> Vec<String> {
    let entries = fs::read_dir(directory).unwrap_or_else(|error| panic!("{}: {error}", directory.display()));
    let names = entries.map(|entry| entry.expect("a directory entry").file_name());
    let mut names: Vec<String> = names.map(|name| name.into_string().expect("a name in UTF-8")).collect();
    names.sort();
    names
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn faults(sources: &[(&str, &str)]) -> Vec<String> {
        let sources: Vec<(String, String)> =
            sources.iter().map(|(path, text)| ((*path).to_owned(), (*text).to_owned())).collect();
        check_sources(&sources, &["frame"])
    }

    const LIST: (&str, &str) = (
        "protocol/src/fuzz.rs",
        "pub use crate::frame::fuzz_frame as frame;\nconst ENTRIES: &[Entry] = &[];",
    );
    const FRAME: (&str, &str) = ("protocol/src/frame.rs", "fn decode() {}\npub fn fuzz_frame(b: &[u8]) {}");

    #[test]
    fn a_decoder_without_an_entry_is_found() {
        assert_eq!(faults(&[LIST, FRAME]), Vec::<String>::new());
        let bare = ("protocol/src/hello.rs", "fn decode() {}\n#[cfg(test)]\npub fn fuzz_frame() {}");
        let expected = "protocol/src/hello.rs decodes and has no `pub fn fuzz_…`: write its entry";
        assert_eq!(faults(&[LIST, FRAME, bare]), [expected]);
    }

    #[test]
    fn an_entry_that_is_not_listed_is_found() {
        let lost = ("protocol/src/hello.rs", "fn decode() {}\npub fn fuzz_hello(b: &[u8]) {}");
        assert_eq!(
            faults(&[LIST, FRAME, lost]),
            ["protocol/src/hello.rs: fuzz_hello is on no list of entries"]
        );
        let list = (LIST.0, "pub use crate::hello::fuzz_hello as hello;\nconst ENTRIES: &[Entry] = &[];");
        assert_eq!(faults(&[list, lost]), ["protocol/src/fuzz.rs: hello is not among the entries"]);
    }
}
