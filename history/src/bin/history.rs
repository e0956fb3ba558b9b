//! Judges a history that lies in a file, and says what it breaks.
#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "a program that reads one file, on no shard"
)]

use std::fs::File;
use std::io::BufReader;
use std::process::ExitCode;

use corrente_history::{Class, History, Verdict, check};

const USAGE: &str = "usage: history check FILE [--all]

  --all   every finding, not the first ten of a class";

/// Findings printed of one class.
const SHOWN: usize = 10;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let (file, shown) = match arguments[..] {
        ["check", file] => (file, SHOWN),
        ["check", file, "--all"] | ["check", "--all", file] => (file, usize::MAX),
        _ => {
            eprintln!("{USAGE}");
            return ExitCode::from(2);
        }
    };
    match read(file) {
        Ok(history) => {
            let verdict = check(&history);
            print(&verdict, shown);
            if verdict.is_sound() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
        }
        Err(error) => {
            eprintln!("error: {file}: {error}");
            ExitCode::from(2)
        }
    }
}

fn read(file: &str) -> Result<History, String> {
    let lines = File::open(file).map_err(|error| error.to_string())?;
    History::read(BufReader::new(lines)).map_err(|error| error.to_string())
}

fn print(verdict: &Verdict, shown: usize) {
    let judged = &verdict.judged;
    println!(
        "{} operations: {} records sent, {} acknowledged, {} read meanwhile, {} there in the end ({} of them copies), \
         {} rightly removed, {} crashes",
        judged.operations,
        judged.sent,
        judged.acked,
        judged.read_during,
        judged.final_records,
        judged.duplicates,
        judged.removed,
        judged.crashes
    );
    for class in Class::ALL {
        let of_class = || verdict.violations.iter().filter(|violation| violation.class == class);
        of_class().take(shown).for_each(|violation| println!("{violation}"));
        let more = of_class().count().saturating_sub(shown);
        if more > 0 {
            println!("{class:?}: {more} more");
        }
    }
    match verdict.violations.len() {
        0 => println!("sound: no promise is broken"),
        count => println!("BROKEN: {count} findings of {} classes", verdict.classes().len()),
    }
}
