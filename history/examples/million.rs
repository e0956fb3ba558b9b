//! Judges sound histories of a million operations, read from their lines, and says how long it takes.
#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "a measurement over the clock of the machine"
)]

use std::time::Instant;

use corrente_history::model::{ModelSettings, sound_history};
use corrente_history::{History, Judged, check};

fn main() {
    let all = ModelSettings { operations: 1_000_000, idempotent: false, gives_up: true, removes: true };
    for (what, settings) in
        [("nothing is removed", ModelSettings { removes: false, ..all }), ("records are removed", all)]
    {
        println!("{what}");
        judge(settings);
    }
}

fn judge(settings: ModelSettings) {
    let history = sound_history(1, settings);
    let operations = history.operations.len();
    let lines: Vec<String> = history.lines().collect();
    let text = lines.join("\n");
    drop((history, lines));

    let (began, cpu_began) = (Instant::now(), cpu_seconds());
    let history = History::read(text.as_bytes()).expect("what was written is read");
    let read = began.elapsed().as_secs_f64();
    let verdict = check(&history);
    let (all, cpu) = (began.elapsed().as_secs_f64(), cpu_seconds() - cpu_began);
    assert!(verdict.is_sound(), "{:?}", verdict.violations.first());
    let Judged { sent, read_during, final_records, removed, .. } = verdict.judged;
    println!("  {operations} operations in {} bytes: {sent} records sent, {read_during} read,", text.len());
    println!("  {final_records} there in the end, {removed} rightly removed");
    println!("  read in {read:.2} s, checked in {:.2} s: {all:.2} s, {cpu:.2} s of it on a CPU", all - read);
}

/// What this thread has had of a CPU: the rest of the time others had it.
fn cpu_seconds() -> f64 {
    let statistics = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    let nanos: f64 = statistics.split(' ').next().and_then(|field| field.parse().ok()).unwrap_or(0.0);
    nanos / 1e9
}
