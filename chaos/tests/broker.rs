//! A broker that does not come up is told with its own last words.
#![allow(clippy::disallowed_methods, clippy::disallowed_types, reason = "a test over a process of its own")]

use corrente_chaos::broker::Home;

#[tokio::test]
async fn a_program_that_ends_instead_of_serving() {
    let directory = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a directory");
    let home =
        Home { binary: "/bin/ls".into(), directory: directory.path().to_owned(), settings: Vec::new() };
    let error =
        home.start("127.0.0.1:0", 1).expect("ls is there").ready().await.err().expect("ls serves nothing");
    let error = error.to_string();
    assert!(error.starts_with("the broker ended with exit status: 2 while starting: "), "{error}");
    assert!(error.contains("--placement"), "its last words are missing: {error}");
}
