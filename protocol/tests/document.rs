//! `docs/PROTOCOL.md` says what the code says: every error code, and the examples byte for byte.

#![allow(clippy::disallowed_methods, reason = "reads a document, on no shard")]

use std::path::Path;

use corrente_protocol::{ApiKey, ErrorCode};

fn read(path: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

#[test]
fn every_error_code_is_described() {
    let document = read("../docs/PROTOCOL.md");
    for code in ErrorCode::ALL {
        let retry = if code.is_retryable() { "yes" } else { "no" };
        let row = format!("| {} | {} | {retry} | {} |\n", code.code(), code.name(), code.meaning());
        assert!(document.contains(&row), "the document has no row\n{row}");
    }
}

#[test]
fn every_api_is_described() {
    let document = read("../docs/PROTOCOL.md");
    for api in ApiKey::ALL {
        let heading = format!("### {} ({})\n", api.name(), api.code());
        assert!(document.contains(&heading), "the document has no section\n{heading}");
    }
}

#[test]
fn the_examples_are_the_golden_files() {
    let document = read("../docs/PROTOCOL.md");
    for name in ["hello.client", "frame.produce.request", "frame.produce.response"] {
        let dump = read(&format!("golden/{name}.hex"));
        assert!(document.contains(&dump), "the document does not show {name}");
    }
}
