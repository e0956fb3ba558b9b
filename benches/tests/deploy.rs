//! The example configuration says what is true: every setting is there, and at its default.

#![allow(clippy::disallowed_methods, reason = "the test reads the repository as it lies on disk")]

use std::path::{Path, PathBuf};

use corrente_broker::{Config, ConfigFile, Overrides};

fn example() -> ConfigFile {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/corrente.toml");
    let text = std::fs::read_to_string(&path).expect("the example configuration");
    ConfigFile { path, text }
}

/// A setting is a line `#key = value`; prose after `# ` stays a comment.
fn with_every_setting_taken(file: &ConfigFile) -> ConfigFile {
    let taken = |line: &str| match line.strip_prefix('#') {
        Some(setting) if setting.starts_with(|first: char| first.is_ascii_lowercase()) => setting.to_owned(),
        _ => line.to_owned(),
    };
    let lines: Vec<String> = file.text.lines().map(taken).collect();
    ConfigFile { path: PathBuf::from("every setting"), text: lines.join("\n") }
}

fn load(file: &ConfigFile) -> Config {
    Config::load(Some(file), &Overrides::default()).expect("a configuration the broker takes")
}

#[test]
fn as_it_stands_it_changes_nothing() {
    assert_eq!(load(&example()), Config::default());
}

#[test]
fn every_setting_stands_there_at_its_default() {
    let every_setting = with_every_setting_taken(&example());
    assert_eq!(load(&every_setting), Config::default());
    let settings =
        every_setting.text.lines().filter(|line| line.contains(" = ") && !line.starts_with('#')).count();
    let known = serde_json::to_value(Config::default()).expect("plain data");
    let known: usize = known
        .as_object()
        .expect("sections")
        .values()
        .map(|section| section.as_object().expect("keys").len())
        .sum();
    assert_eq!(settings, known, "a setting is missing in deploy/corrente.toml");
}
