//! A broker that does not come up is told with its own last words.
#![allow(clippy::disallowed_methods, clippy::disallowed_types, reason = "a test over a process of its own")]

use corrente_chaos::broker::{Addresses, Home};

#[tokio::test]
async fn a_program_that_ends_instead_of_serving() {
    let directory = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a directory");
    let home =
        Home { binary: "/bin/ls".into(), directory: directory.path().to_owned(), settings: Vec::new() };
    let anywhere = Addresses { native: "127.0.0.1:0".to_owned(), kafka: "127.0.0.1:0".to_owned() };
    let error =
        home.start(&anywhere, 1).expect("ls is there").ready().await.err().expect("ls serves nothing");
    let error = error.to_string();
    assert!(error.starts_with("the broker ended with exit status: 2 while starting: "), "{error}");
    assert!(error.contains("--placement"), "its last words are missing: {error}");
}
