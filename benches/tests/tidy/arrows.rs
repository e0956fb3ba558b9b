//! The arrows of the house: which room may depend on which, and who may name the machine's own crates.

use crate::finding::Finding;

/// `docs/ARCHITECTURE.md` draws this table; what is not in it does not exist. Rooms by the names of their directories.
const ARROWS: [(&str, &[&str]); 12] = [
    ("protocol", &[]),
    ("runtime", &[]),
    ("storage", &["protocol", "runtime"]),
    ("replication", &["protocol"]),
    ("broker", &["storage", "replication", "protocol", "runtime"]),
    ("client", &["protocol"]),
    ("loadgen", &["client", "protocol"]),
    ("cli", &["broker", "client", "loadgen"]),
    ("history", &[]),
    ("chaos", &["client", "history"]),
    ("sim", &["broker", "client", "runtime", "protocol", "history"]),
    ("faultfs", &["chaos", "client", "history"]),
];

/// What only a test may reach: hostile bytes and golden frames are built with the protocol's own codec.
const ARROWS_OF_TESTS: [(&str, &[&str]); 1] = [("cli", &["protocol"])];

/// Measures whatever there is to measure, so every arrow starts here and none ends.
const MEASURING_ROOM: &str = "benches";

/// Crates that one room alone names, and why.
const OWNED: [(&str, &str, &str); 4] = [
    ("glommio", "runtime", "the executor is behind the seam"),
    ("io-uring", "runtime", "the ring is behind the seam"),
    ("prost", "replication", "metadata records are the only prost messages"),
    ("fuser", "faultfs", "the kernel mounts no file system of the product's"),
];

/// Rooms that shards or the simulator run: tokio and its reactor have no place there.
const WITHOUT_TOKIO: [&str; 7] =
    ["protocol", "runtime", "storage", "replication", "broker", "history", "sim"];

/// One dependency of a manifest.
struct Dependency<'a> {
    line: usize,
    name: &'a str,
    of_tests: bool,
    by_workspace: bool,
}

pub fn check_manifest(path: &str, text: &str) -> Vec<Finding> {
    let room = path.trim_end_matches("/Cargo.toml");
    let mut findings: Vec<Finding> = dependencies(text)
        .into_iter()
        .flat_map(|dependency| check_dependency(path, room, &dependency))
        .collect();
    if !text.contains("[lints]\nworkspace = true") {
        findings.push(Finding::new(
            path,
            1,
            "lints live once, at the root: add `[lints]` with `workspace = true`",
        ));
    }
    findings
}

fn check_dependency(path: &str, room: &str, dependency: &Dependency<'_>) -> Vec<Finding> {
    let Dependency { line, name, of_tests, by_workspace } = *dependency;
    let mut findings = Vec::new();
    if !by_workspace {
        findings.push(Finding::new(
            path,
            line,
            format!(
                "versions live once, at the root: list `{name}` there and write `{name}.workspace = true`"
            ),
        ));
    }
    if let Some(target) = name.strip_prefix("corrente-")
        && !allowed(room, target, of_tests)
    {
        findings.push(Finding::new(
            path,
            line,
            format!("no arrow leads from {room} to {target}: move the code to a room that may see both"),
        ));
    }
    if let Some((_, owner, reason)) = OWNED.iter().find(|(owned, owner, _)| *owned == name && *owner != room)
    {
        findings.push(Finding::new(
            path,
            line,
            format!("only {owner}/ names {name}: {reason}; go through {owner}"),
        ));
    }
    if name == "tokio" && WITHOUT_TOKIO.contains(&room) {
        findings.push(Finding::new(path, line, format!("{room} runs on corrente-runtime: drop tokio")));
    }
    findings
}

fn allowed(room: &str, target: &str, of_tests: bool) -> bool {
    let drawn = |table: &[(&str, &[&str])]| {
        table.iter().any(|(from, targets)| *from == room && targets.contains(&target))
    };
    room == MEASURING_ROOM || drawn(&ARROWS) || (of_tests && drawn(&ARROWS_OF_TESTS))
}

/// Reads the manifest's dependency tables: `name = …`, `name.workspace = true` and `[dependencies.name]`.
fn dependencies(text: &str) -> Vec<Dependency<'_>> {
    let mut found: Vec<Dependency<'_>> = Vec::new();
    let mut table = "";
    for (index, line) in text.lines().enumerate() {
        let line = line.split('#').next().unwrap_or_default().trim();
        let of_tests = table.contains("dev-dependencies");
        if let Some(header) = line.strip_prefix('[') {
            table = header.trim_end_matches(']');
            if let Some((_, name)) = table.rsplit_once("dependencies.") {
                let of_tests = table.contains("dev-dependencies");
                found.push(Dependency { line: index + 1, name, of_tests, by_workspace: false });
            }
        } else if table.ends_with("dependencies")
            && let Some((key, value)) = line.split_once('=')
        {
            let (name, field) = key.trim().split_once('.').unwrap_or((key.trim(), ""));
            let by_workspace = field == "workspace" || value.contains("workspace = true");
            found.push(Dependency { line: index + 1, name, of_tests, by_workspace });
        } else if table.contains("dependencies.")
            && line == "workspace = true"
            && let Some(last) = found.last_mut()
        {
            last.by_workspace = true;
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::finding::displayed;

    const LINTS: &str = "\n[lints]\nworkspace = true\n";

    fn findings(room: &str, manifest: &str) -> Vec<String> {
        displayed(check_manifest(&format!("{room}/Cargo.toml"), &format!("{manifest}{LINTS}")))
    }

    #[test]
    fn a_drawn_arrow_passes() {
        let manifest =
            "[package]\nname = \"corrente-storage\"\n\n[dependencies]\ncorrente-protocol.workspace = true\n";
        assert_eq!(findings("storage", manifest), Vec::<String>::new());
    }

    #[test]
    fn an_arrow_that_is_not_drawn_is_found() {
        let manifest = "[dependencies]\nbytes.workspace = true\ncorrente-storage.workspace = true\n";
        let expected = "replication/Cargo.toml:3: no arrow leads from replication to storage: \
                        move the code to a room that may see both";
        assert_eq!(findings("replication", manifest), [expected]);
    }

    #[test]
    fn a_test_is_held_to_the_arrows_too_but_for_those_drawn_for_tests() {
        let of_tests = "[dev-dependencies]\ncorrente-protocol.workspace = true\n";
        assert_eq!(findings("cli", of_tests), Vec::<String>::new());
        assert_eq!(findings("cli", "[dependencies]\ncorrente-protocol.workspace = true\n").len(), 1);
        assert_eq!(findings("protocol", "[dev-dependencies]\ncorrente-runtime.workspace = true\n").len(), 1);
    }

    #[test]
    fn every_way_of_writing_a_dependency_is_read() {
        for manifest in [
            "[dependencies]\ncorrente-broker = { workspace = true }\n",
            "[target.'cfg(unix)'.dependencies]\ncorrente-broker.workspace = true\n",
            "[dependencies.corrente-broker]\nworkspace = true\n",
            "[build-dependencies]\ncorrente-broker.workspace = true # for the build\n",
        ] {
            let found = findings("client", manifest);
            assert_eq!(found.len(), 1, "{manifest}: {found:?}");
            assert!(found[0].contains("no arrow leads from client to broker"), "{found:?}");
        }
    }

    #[test]
    fn a_crate_of_another_room_is_found() {
        assert!(
            findings("storage", "[dependencies]\nio-uring.workspace = true\n")[0]
                .contains("only runtime/ names")
        );
        assert!(findings("broker", "[dependencies]\ntokio.workspace = true\n")[0].contains("drop tokio"));
        assert_eq!(findings("client", "[dependencies]\ntokio.workspace = true\n"), Vec::<String>::new());
    }

    #[test]
    fn a_version_or_a_lint_of_its_own_is_found() {
        assert!(findings("broker", "[dependencies]\nbytes = \"1\"\n")[0].contains("versions live once"));
        let without_lints = displayed(check_manifest("broker/Cargo.toml", "[package]\n"));
        assert!(without_lints[0].contains("lints live once"), "{without_lints:?}");
    }
}
