//! Results for people and for scripts: a table, JSON, or a JSON object a line.

use std::io::{self, Write};

use clap::ValueEnum;
use comfy_table::{Table, presets};
use serde::Serialize;

/// How results are printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Output {
    /// For people.
    Table,
    /// One JSON value on several lines.
    Json,
    /// One JSON object a line.
    Jsonl,
}

impl Output {
    /// Prints several things: as rows, as one array, or as an object a line.
    pub fn list<T: Serialize>(
        self,
        header: &[&str],
        items: &[T],
        row: impl Fn(&T) -> Vec<String>,
    ) -> io::Result<()> {
        let mut out = io::stdout().lock();
        match self {
            Output::Table => writeln!(out, "{}", table(header, items.iter().map(row))),
            Output::Json => writeln!(out, "{}", serde_json::to_string_pretty(items)?),
            Output::Jsonl => {
                items.iter().try_for_each(|item| writeln!(out, "{}", serde_json::to_string(item)?))
            }
        }
    }

    /// Prints one thing: as a text of its own, or as an object.
    pub fn one<T: Serialize>(self, item: &T, text: impl FnOnce(&T) -> String) -> io::Result<()> {
        let mut out = io::stdout().lock();
        match self {
            Output::Table => writeln!(out, "{}", text(item)),
            Output::Json => writeln!(out, "{}", serde_json::to_string_pretty(item)?),
            Output::Jsonl => writeln!(out, "{}", serde_json::to_string(item)?),
        }
    }
}

/// A plain table with a header.
pub fn table(header: &[&str], rows: impl Iterator<Item = Vec<String>>) -> String {
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    table.set_header(header.to_vec());
    for row in rows {
        table.add_row(row);
    }
    table.trim_fmt()
}

/// Whether the error only says that whoever read our output has seen enough, as `head` does.
pub fn reader_left(error: &anyhow::Error) -> bool {
    let broken = |error: &io::Error| error.kind() == io::ErrorKind::BrokenPipe;
    error.chain().filter_map(|cause| cause.downcast_ref()).any(broken)
}

/// An error is one line, whatever it is made of.
pub fn one_line(text: &str) -> String {
    text.split(['\n', '\r']).map(str::trim).filter(|part| !part.is_empty()).collect::<Vec<_>>().join("; ")
}

/// Has what the SDK warns of while it tries to deliver records told on stderr, a line each.
pub fn tell_of_retries() {
    let lines = tracing_subscriber::fmt().without_time().with_target(false).with_ansi(false);
    lines.with_env_filter("corrente_client::core::produce=warn").with_writer(io::stderr).init();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_and_single_lines() {
        let text = table(&["NAME", "PARTITIONS"], [vec!["orders".to_owned(), "8".to_owned()]].into_iter());
        assert!(text.contains("NAME") && text.contains("orders"), "{text}");
        assert_eq!(one_line("a\n  b\r\n\nc"), "a; b; c");
    }
}
