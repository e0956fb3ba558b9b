//! Rules about documents: each is on the map, and their links lead somewhere.

use crate::finding::Finding;

const MAP: &str = "docs/ARCHITECTURE.md";
const ENTRANCE: &str = "README.md";

/// Every file below docs/ is named by the map or the entrance, by its own name or by its directory's.
pub fn check_map(files: &[(String, String)]) -> Vec<Finding> {
    let text_of =
        |wanted: &str| files.iter().find(|(path, _)| path == wanted).map_or("", |(_, text)| text.as_str());
    let (map, entrance) = (text_of(MAP), text_of(ENTRANCE));
    if map.is_empty() && entrance.is_empty() {
        return Vec::new();
    }
    let is_named = |path: &str| {
        let below = path.trim_start_matches("docs/");
        let directory = below.rsplit_once('/').map(|(directory, _)| format!("{directory}/"));
        [map, entrance]
            .iter()
            .any(|text| text.contains(below) || directory.as_ref().is_some_and(|d| text.contains(d)))
    };
    files
        .iter()
        .map(|(path, _)| path)
        .filter(|path| path.starts_with("docs/") && *path != MAP && !is_named(path))
        .map(|path| Finding::new(path, 1, format!("no way leads here: name it in {MAP} or {ENTRANCE}")))
        .collect()
}

/// Relative links of Markdown files, taken from the file's own directory.
pub fn check_links(files: &[(String, String)], exists: impl Fn(&str) -> bool) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (path, text) in files.iter().filter(|(path, _)| path.ends_with(".md")) {
        let directory = path.rsplit_once('/').map_or("", |(directory, _)| directory);
        for (index, line) in text.lines().enumerate() {
            for target in link_targets(line) {
                let file = target.split('#').next().unwrap_or_default();
                let resolved =
                    if directory.is_empty() { file.to_owned() } else { format!("{directory}/{file}") };
                if !file.is_empty() && !target.contains("://") && !exists(&resolved) {
                    findings.push(Finding::new(
                        path,
                        index + 1,
                        format!("nothing is at {target}: mend the link"),
                    ));
                }
            }
        }
    }
    findings
}

fn link_targets(line: &str) -> impl Iterator<Item = &str> {
    line.split("](").skip(1).filter_map(|rest| rest.split_once(')')).map(|(target, _)| target)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::finding::displayed;

    fn files(list: &[(&str, &str)]) -> Vec<(String, String)> {
        list.iter().map(|(path, text)| ((*path).to_owned(), (*text).to_owned())).collect()
    }

    #[test]
    fn a_document_that_nothing_names_is_found() {
        let list = files(&[
            ("README.md", "see docs/FORMAT.md"),
            ("docs/ARCHITECTURE.md", "decisions: docs/adr/"),
            ("docs/FORMAT.md", ""),
            ("docs/LOST.md", ""),
            ("docs/adr/0001-runtime.md", ""),
        ]);
        assert_eq!(
            displayed(check_map(&list)),
            ["docs/LOST.md:1: no way leads here: name it in docs/ARCHITECTURE.md or README.md"]
        );
        assert_eq!(displayed(check_map(&files(&[("docs/FORMAT.md", "")]))), Vec::<String>::new());
    }

    #[test]
    fn a_broken_link_is_found() {
        let list = files(&[
            ("docs/A.md", "\n[b](B.md#part) [c](C.md) [there](https://example.org/x)"),
            ("README.md", "[a](docs/A.md) [part](#part)"),
        ]);
        let exists = |path: &str| ["docs/A.md", "docs/B.md"].contains(&path);
        assert_eq!(displayed(check_links(&list, exists)), ["docs/A.md:2: nothing is at C.md: mend the link"]);
    }
}
