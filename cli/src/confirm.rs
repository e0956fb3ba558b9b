//! The question before something is destroyed.

use std::io::{self, IsTerminal, Write};

/// Whether there is somebody to ask: a terminal, and no `--yes` that answered already.
pub fn is_due(yes: bool) -> bool {
    !yes && io::stdin().is_terminal()
}

/// Asks on the terminal; says what did not happen where the answer is no.
pub fn ask(question: &str, otherwise: &str) -> io::Result<bool> {
    eprint!("{question} [y/N] ");
    io::stderr().flush()?;
    let mut answer = String::new();
    io::stdin().read_line(&mut answer)?;
    let agreed = matches!(answer.trim(), "y" | "Y" | "yes");
    if !agreed {
        eprintln!("{otherwise}");
    }
    Ok(agreed)
}
