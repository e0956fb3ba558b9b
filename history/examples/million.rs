//! Judges a sound history of a million operations, read from its lines, and says how long it takes.
#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "a measurement over the clock of the machine"
)]

use std::time::Instant;

use corrente_history::model::{ModelSettings, sound_history};
use corrente_history::{History, check};

fn main() {
    let settings = ModelSettings { operations: 1_000_000, idempotent: false, gives_up: true, removes: true };
    let history = sound_history(1, settings);
    let lines: Vec<String> = history.lines().collect();
    let text = lines.join("\n");
    println!("{} operations, {} bytes", history.operations.len(), text.len());
    drop((history, lines));

    let began = Instant::now();
    let history = History::read(text.as_bytes()).expect("what was written is read");
    let read = began.elapsed();
    let verdict = check(&history);
    let all = began.elapsed();
    assert!(verdict.is_sound(), "{:?}", verdict.violations.first());
    println!("{:?}", verdict.judged);
    println!("read in {:.2} s, checked in {:.2} s: {:.2} s", secs(read), secs(all - read), secs(all));
}

fn secs(time: std::time::Duration) -> f64 {
    time.as_secs_f64()
}
