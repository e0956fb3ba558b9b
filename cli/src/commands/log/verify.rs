//! `corrente log verify`: reads everything and says what is damaged.

use std::process::ExitCode;

use anyhow::Result;
use clap::Args;
use corrente_broker::offline::{self, DirReport, Finding, FindingKind, LogReport, Told};
use serde::Serialize;

use super::{Offsets, TargetArgs};
use crate::output::{Output, one_line, table};

/// Damage was found.
const DAMAGED: u8 = 1;
/// Something could not be looked at.
const UNREADABLE: u8 = 2;

/// Read every byte of the logs of a broker that does not run, and say what is damaged.
///
/// Changes nothing. Exits with 0 if all is sound, 1 if anything is damaged, 2 if something could not be looked at.
#[derive(Debug, Args)]
pub struct VerifyArgs {
    #[command(flatten)]
    target: TargetArgs,
}

/// A log or a data directory as it is printed.
#[derive(Debug, Serialize)]
struct Verified {
    kind: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    log: Option<String>,
    path: String,
    state: State,
    #[serde(skip_serializing_if = "Option::is_none")]
    content: Option<Content>,
    findings: Vec<Found>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum State {
    Ok,
    Damaged,
    Unreadable,
}

/// What a log holds. Ends are exclusive.
#[derive(Debug, Serialize)]
struct Content {
    segments: usize,
    bytes: u64,
    records: u64,
    log_start_offset: u64,
    end_offset: u64,
}

/// Something that was found, as it is printed.
#[derive(Debug, Serialize)]
pub(super) struct Found {
    kind: &'static str,
    file: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    position: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    lost: Option<Offsets>,
    what: String,
}

pub async fn run(output: Output, args: &VerifyArgs) -> ExitCode {
    match verify(output, args).await {
        Ok(code) => code,
        Err(error) if crate::output::reader_left(&error) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {}", one_line(&format!("{error:#}")));
            ExitCode::from(UNREADABLE)
        }
    }
}

async fn verify(output: Output, args: &VerifyArgs) -> Result<ExitCode> {
    let mut running = offline::verify(args.target.target()?)?;
    let mut verified = Vec::new();
    while let Some(told) = running.next().await? {
        verified.extend(Verified::new(told));
    }
    match output {
        Output::Table => println!("{}", text(&verified)),
        Output::Json | Output::Jsonl => output.list(&[], &verified, |_| Vec::new())?,
    }
    let any = |state| verified.iter().any(|verified| verified.state == state);
    Ok(match (any(State::Unreadable), any(State::Damaged)) {
        (true, _) => ExitCode::from(UNREADABLE),
        (false, true) => ExitCode::from(DAMAGED),
        (false, false) => ExitCode::SUCCESS,
    })
}

impl Verified {
    /// A data directory is worth a line only if something is to be said of it.
    fn new(told: Told) -> Option<Verified> {
        match told {
            Told::Dir(dir) => (!dir.findings.is_empty()).then(|| Verified::of_dir(dir)),
            Told::Log(report) => Some(Verified::of_log(report)),
            Told::Unreadable(log, error) => Some(Verified {
                kind: "log",
                log: Some(log.id.to_string()),
                path: log.dir.display().to_string(),
                state: State::Unreadable,
                content: None,
                findings: Vec::new(),
                error: Some(error.to_string()),
            }),
        }
    }

    fn of_dir(dir: DirReport) -> Verified {
        Verified {
            kind: "data directory",
            log: None,
            path: dir.dir.display().to_string(),
            state: State::of(&dir.findings),
            content: None,
            findings: dir.findings.into_iter().map(Found::new).collect(),
            error: None,
        }
    }

    fn of_log(report: LogReport) -> Verified {
        Verified {
            kind: "log",
            log: Some(report.id.to_string()),
            path: report.dir.display().to_string(),
            state: State::of(&report.findings),
            content: Some(Content {
                segments: report.segments,
                bytes: report.bytes,
                records: report.records,
                log_start_offset: report.log_start_offset.0,
                end_offset: report.end_offset.0,
            }),
            findings: report.findings.into_iter().map(Found::new).collect(),
            error: None,
        }
    }

    fn row(&self) -> Vec<String> {
        let content = self.content.as_ref();
        let number =
            |pick: fn(&Content) -> u64| content.map(pick).map_or_else(String::new, |n| n.to_string());
        vec![
            self.log.clone().unwrap_or_else(|| self.path.clone()),
            self.state.name().to_owned(),
            number(|content| content.segments as u64),
            number(|content| content.records),
            number(|content| content.log_start_offset),
            number(|content| content.end_offset),
            number(|content| content.bytes),
        ]
    }
}

impl State {
    fn of(findings: &[Finding]) -> State {
        match findings.iter().any(|finding| finding.kind == FindingKind::Damage) {
            true => State::Damaged,
            false => State::Ok,
        }
    }

    fn name(self) -> &'static str {
        match self {
            State::Ok => "ok",
            State::Damaged => "damaged",
            State::Unreadable => "unreadable",
        }
    }
}

impl Found {
    pub(super) fn new(finding: Finding) -> Found {
        let Finding { kind, file, position, lost, what } = finding;
        let kind = match kind {
            FindingKind::Note => "note",
            FindingKind::TornTail => "torn tail",
            FindingKind::Damage => "damage",
        };
        let lost = lost.map(|lost| Offsets { start: lost.start.0, end: lost.end.0 });
        Found { kind, file, position, lost, what }
    }
}

fn text(verified: &[Verified]) -> String {
    let header = ["LOG", "STATE", "SEGMENTS", "RECORDS", "START", "END", "BYTES"];
    let mut parts = vec![table(&header, verified.iter().map(Verified::row))];
    for of in verified.iter().filter(|of| !of.findings.is_empty() || of.error.is_some()) {
        let rows = of.findings.iter().map(|found| {
            let position = found.position.map_or_else(String::new, |position| position.to_string());
            let lost = found.lost.map_or_else(String::new, Offsets::text);
            vec![found.kind.to_owned(), found.file.clone(), position, lost, found.what.clone()]
        });
        let what = of.error.clone().unwrap_or_else(|| table(&["", "FILE", "POSITION", "LOST", "WHAT"], rows));
        parts.push(format!("{}\n{what}", of.path));
    }
    parts.push(summary(verified));
    parts.join("\n\n")
}

fn summary(verified: &[Verified]) -> String {
    let logs = || verified.iter().filter(|of| of.log.is_some());
    let damaged = verified.iter().filter(|of| of.state == State::Damaged).count();
    let unreadable = verified.iter().filter(|of| of.state == State::Unreadable).count();
    let lost: u64 =
        logs().flat_map(|of| &of.findings).filter_map(|found| found.lost).map(Offsets::count).sum();
    let (logs, bytes) = (
        logs().count(),
        logs().filter_map(|of| of.content.as_ref()).map(|content| content.bytes).sum::<u64>(),
    );
    if damaged + unreadable == 0 {
        return format!("{logs} logs, {bytes} bytes: all sound");
    }
    format!(
        "{logs} logs, {bytes} bytes: {damaged} damaged, {unreadable} could not be read, {lost} offsets lost"
    )
}
