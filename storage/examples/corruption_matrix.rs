//! Tries every case of the corruption matrix on directories of four kinds, and says what came of them.
//!
//! `scripts/corruption-matrix`; with `--directory NAME --case N` one case alone, with all that was told.
#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "cases are tried on threads, and one that hangs is found by the time on the wall"
)]

#[path = "../tests/corruption/matrix/mod.rs"]
mod matrix;

use std::process::ExitCode;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use matrix::cases::{self, Case};
use matrix::grown::{Files, Grown, Left, grow};
use matrix::judge::{Judged, Verdict};
use matrix::tally::Tally;
use matrix::trial::try_case;

const USAGE: &str = "usage: corruption_matrix [--seed S] [--some N] [--directory NAME [--case N]]

  --seed S           what directories hold and which places are drawn, 1 unless told
  --some N           at most N cases of each row of the table, all unless told
  --directory NAME   one of fresh-closed, fresh-cut, recycled-closed, recycled-cut; all unless told
  --case N           this case alone";

/// Cases tried at the same time.
const WORKERS: usize = 2;
/// A case that takes longer hangs.
const PATIENCE: Duration = Duration::from_secs(60);
/// Cases between two signs of life.
const PROGRESS_EVERY: usize = 5000;
/// Wrong cases that are printed of one directory.
const WRONG_SHOWN: usize = 20;

const DIRECTORIES: [(Files, Left); 4] = [
    (Files::Fresh, Left::Closed),
    (Files::Fresh, Left::Cut),
    (Files::Recycled, Left::Closed),
    (Files::Recycled, Left::Cut),
];

struct Options {
    seed: u64,
    some: Option<usize>,
    directory: Option<String>,
    case: Option<u64>,
}

fn main() -> ExitCode {
    let options = match parse(std::env::args().skip(1)) {
        Ok(options) => options,
        Err(message) => {
            eprintln!("{message}\n{USAGE}");
            return ExitCode::from(2);
        }
    };
    let began = Instant::now();
    let mut totals = Totals::default();
    for (files, left) in DIRECTORIES {
        let name = format!("{files:?}-{left:?}").to_lowercase();
        if options.directory.as_ref().is_some_and(|wanted| *wanted != name) {
            continue;
        }
        let grown = Arc::new(grow(options.seed, files, left));
        let cases = cases::all(&grown, options.seed);
        if let Some(number) = options.case {
            return examine(&grown, cases, number);
        }
        let cases = match options.some {
            Some(count) => cases::some(cases, count, options.seed),
            None => cases,
        };
        let tally = try_all(&grown, &cases);
        println!("{name}, seed {}: {} cases\n{tally}", options.seed, tally.cases());
        print_wrong(&grown, &tally);
        totals.add(&tally);
    }
    println!("wall time {:.0} s", began.elapsed().as_secs_f64());
    println!("seed {}, {totals}", options.seed);
    if totals.wrong == 0 && totals.cases > 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn parse(mut arguments: impl Iterator<Item = String>) -> Result<Options, String> {
    let mut options = Options { seed: 1, some: None, directory: None, case: None };
    while let Some(argument) = arguments.next() {
        let value = arguments.next().ok_or(format!("{argument} needs a value, or is not known"))?;
        let number = || value.parse::<u64>().map_err(|_| format!("{argument} needs a number, not '{value}'"));
        match argument.as_str() {
            "--seed" => options.seed = number()?,
            "--some" => options.some = Some(usize::try_from(number()?).unwrap_or(usize::MAX)),
            "--directory" => options.directory = Some(value),
            "--case" => options.case = Some(number()?),
            other => return Err(format!("unknown argument '{other}'")),
        }
    }
    let known =
        |name: &String| DIRECTORIES.iter().any(|(f, l)| *name == format!("{f:?}-{l:?}").to_lowercase());
    match (&options.directory, options.case) {
        (Some(name), _) if !known(name) => Err(format!("no directory '{name}'")),
        (None, Some(_)) => Err("a case is one of a directory: --directory".to_owned()),
        _ => Ok(options),
    }
}

/// Sums over directories.
#[derive(Default)]
struct Totals {
    cases: u64,
    harmless: u64,
    told: u64,
    window: u64,
    wrong: u64,
}

impl Totals {
    fn add(&mut self, tally: &Tally) {
        self.cases += tally.cases();
        self.harmless += tally.count(&Verdict::Harmless);
        self.window += tally.count(&Verdict::Window);
        self.wrong += tally.count(&Verdict::Wrong(String::new()));
        self.told += [Verdict::Refused, Verdict::Quarantined, Verdict::NotOpened]
            .iter()
            .map(|v| tally.count(v))
            .sum::<u64>();
    }
}

impl std::fmt::Display for Totals {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Totals { cases, harmless, told, window, wrong } = self;
        write!(f, "{cases} cases: {harmless} harmless, {told} told, {window} in the window, {wrong} wrong")
    }
}

/// One case, with all there is to say.
fn examine(grown: &Arc<Grown>, cases: Vec<Case>, number: u64) -> ExitCode {
    let Some(case) = cases.into_iter().find(|case| case.number == number) else {
        eprintln!("no case {number}");
        return ExitCode::from(2);
    };
    println!("{} {} {}: {}", case.file, case.part, case.kind, case.damage);
    let judged = try_case(grown, &case);
    println!("{}, {} records are hidden", judged.verdict, judged.hidden);
    judged.told.iter().for_each(|line| println!("  {line}"));
    if judged.is_wrong() { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}

fn try_all(grown: &Arc<Grown>, cases: &[Case]) -> Tally {
    let next = AtomicUsize::new(0);
    let under_way = Mutex::new([None; WORKERS]);
    let (outcomes, inbox) = mpsc::channel::<(usize, Judged)>();
    let mut tally = Tally::default();
    thread::scope(|scope| {
        for worker in 0..WORKERS {
            let (outcomes, next, under_way) = (outcomes.clone(), &next, &under_way);
            scope.spawn(move || {
                loop {
                    let at = next.fetch_add(1, Ordering::Relaxed);
                    let Some(case) = cases.get(at) else { return };
                    under_way.lock().expect("nobody panics while holding it")[worker] =
                        Some((at, Instant::now()));
                    let judged = try_case(grown, case);
                    if outcomes.send((at, judged)).is_err() {
                        return;
                    }
                }
            });
        }
        drop(outcomes);
        let mut done = 0;
        loop {
            match inbox.recv_timeout(Duration::from_secs(1)) {
                Ok((at, judged)) => {
                    tally.add(&cases[at], &judged);
                    done += 1;
                    if done % PROGRESS_EVERY == 0 {
                        eprintln!("{done} of {} cases, {} wrong", cases.len(), tally.wrong.len());
                    }
                }
                Err(mpsc::RecvTimeoutError::Disconnected) => return,
                Err(mpsc::RecvTimeoutError::Timeout) => {}
            }
            for (at, began) in under_way.lock().expect("nobody panics while holding it").iter().flatten() {
                if *at < cases.len() && began.elapsed() > PATIENCE {
                    give_up(grown, &cases[*at], &tally);
                }
            }
        }
    });
    tally
}

fn print_wrong(grown: &Grown, tally: &Tally) {
    for (number, what) in tally.wrong.iter().take(WRONG_SHOWN) {
        println!(
            "WRONG {what}\n  again with: --directory {} --case {number}, and the same --seed",
            grown.name
        );
    }
}

/// A case that hangs cannot be ended; the program can.
fn give_up(grown: &Grown, case: &Case, tally: &Tally) -> ! {
    println!("{tally}");
    print_wrong(grown, tally);
    println!("WRONG hangs: {}, {} {}: {}", grown.name, case.file, case.part, case.damage);
    println!("  again with: --directory {} --case {}", grown.name, case.number);
    std::process::exit(1);
}
