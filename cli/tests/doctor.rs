//! A machine is examined: every check has its line, nothing is left behind, and wrong input is named.

#![allow(clippy::disallowed_methods, clippy::disallowed_types, reason = "stories run real processes")]

mod common;

use std::path::Path;
use std::process::Output;

use common::{corrente, lines, refused, scratch};
use serde_json::Value;

/// Checks of the machine, then those of each data directory.
const OF_THE_MACHINE: [&str; 10] = [
    "kernel",
    "io-uring",
    "locked-memory",
    "open-files",
    "somaxconn",
    "cpus",
    "cpu-governor",
    "clock-source",
    "transparent-huge-pages",
    "swap",
];
const OF_A_DATA_DIR: [&str; 7] =
    ["data-dir", "file-system", "free-space", "drive", "io-scheduler", "direct-io", "flush-latency"];

fn examine(dirs: &[&Path], output: &str) -> Output {
    let mut command = corrente(["doctor", "-o", output]);
    dirs.iter().for_each(|dir| {
        command.arg("--data-dir").arg(dir);
    });
    command.output().unwrap()
}

#[test]
fn every_check_has_its_line_and_nothing_is_left_behind() {
    let home = scratch();
    let missing = home.path().join("missing/deeper");
    let output = examine(&[home.path(), &missing], "json");
    let checks: Value = serde_json::from_slice(&output.stdout).expect("one JSON value");
    let checks = checks.as_array().unwrap();

    let names: Vec<&str> = checks.iter().map(|check| check["name"].as_str().unwrap()).collect();
    let expected: Vec<&str> = OF_THE_MACHINE.into_iter().chain(OF_A_DATA_DIR).chain(OF_A_DATA_DIR).collect();
    assert_eq!(names, expected);
    for (n, check) in checks.iter().enumerate() {
        let dir = match n.checked_sub(OF_THE_MACHINE.len()) {
            None => Value::Null,
            Some(n) if n < OF_A_DATA_DIR.len() => home.path().to_str().into(),
            Some(_) => missing.to_str().into(),
        };
        assert_eq!(check["data_dir"], dir, "{check}");
        assert!(check["found"].as_str().is_some_and(|found| !found.is_empty()), "{check}");
        let verdict = check["verdict"].as_str().unwrap();
        assert!(["ok", "warn", "fail"].contains(&verdict), "{check}");
        assert_eq!(check["mend"].is_string(), verdict != "ok", "{check}");
    }
    let looked_at = checks[OF_THE_MACHINE.len() + OF_A_DATA_DIR.len()]["found"].as_str().unwrap();
    let existing = std::fs::canonicalize(home.path()).unwrap();
    assert_eq!(looked_at, format!("does not exist yet: looked at {}", existing.display()));

    let failed = checks.iter().any(|check| check["verdict"] == "fail");
    assert_eq!(output.status.code(), Some(i32::from(failed)));
    assert_eq!(std::fs::read_dir(home.path()).unwrap().count(), 0, "looking left something behind");
}

#[test]
fn lines_and_tables_tell_the_same() {
    let home = scratch();
    let output = examine(&[home.path()], "jsonl");
    let count = OF_THE_MACHINE.len() + OF_A_DATA_DIR.len();
    let names: Vec<String> = lines(&output.stdout)
        .iter()
        .map(|line| serde_json::from_slice::<Value>(line).expect("a JSON object a line"))
        .map(|check| check["name"].as_str().unwrap().to_owned())
        .collect();
    assert_eq!(names.len(), count);

    let table = String::from_utf8(examine(&[home.path()], "table").stdout).unwrap();
    for name in names {
        assert!(
            table.lines().any(|line| line.starts_with(&format!(" {name} "))),
            "{name} is not in\n{table}"
        );
    }
    assert!(table.contains(&format!("\n\n{count} checks: ")), "{table}");
}

#[test]
fn a_file_is_no_data_directory() {
    let home = scratch();
    let file = home.path().join("file");
    std::fs::write(&file, "").unwrap();
    for named in [file.clone(), file.join("data")] {
        let error = refused(corrente(["doctor", "--data-dir"]).arg(&named));
        let expected =
            format!("error: --data-dir {}: {} is not a directory", named.display(), file.display());
        assert_eq!(error, expected);
    }
}
