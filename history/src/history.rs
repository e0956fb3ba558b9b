//! A whole history: its header and its operations, in the order of the file.

use std::io::{self, BufRead};

use thiserror::Error;

use crate::check::Sends;
use crate::content::RecordId;
use crate::header::{Header, VERSION};
use crate::line;
use crate::operation::{LogId, Operation};

/// A poll of some ten thousand records is far below.
const LINE_BYTES_MAX: u64 = 16 << 20;

/// What clients did and saw in one run.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct History {
    /// Facts of the run.
    pub header: Header,
    /// The operations. Any order is good; a process that polls has its polls in the order they were made.
    pub operations: Vec<Operation>,
}

/// Why a file is no history.
#[derive(Debug, Error)]
pub enum ReadError {
    /// It could not be read.
    #[error("line {line}: {error}")]
    Io {
        /// The line, from 1.
        line: usize,
        /// Why.
        error: io::Error,
    },
    /// There is no first line.
    #[error("line 1: an empty file has no header")]
    Empty,
    /// The first line is of another version.
    #[error("line 1: a history of version {found}, this program reads version {VERSION}")]
    Version {
        /// What stands there.
        found: u32,
    },
    /// A line is longer than any operation.
    #[error("line {line}: over {LINE_BYTES_MAX} bytes")]
    TooLong {
        /// The line, from 1.
        line: usize,
    },
    /// A record was sent twice: ids name one record.
    #[error("line {line}: record {id} was sent before, in line {before}")]
    SentTwice {
        /// The line, from 1.
        line: usize,
        /// The line that sent it first.
        before: usize,
        /// The record.
        id: RecordId,
    },
    /// A line is no header, or no operation.
    #[error("line {line}: {what}")]
    Line {
        /// The line, from 1.
        line: usize,
        /// What is wrong with it.
        what: String,
    },
}

impl History {
    /// An empty history of this run.
    pub fn new(header: Header) -> History {
        History { header: Header { version: VERSION, ..header }, operations: Vec::new() }
    }

    /// Reads a file.
    ///
    /// # Errors
    /// For the first line that is not what it should be.
    pub fn read(mut lines: impl BufRead) -> Result<History, ReadError> {
        let mut text = String::new();
        let mut number = 0;
        let mut history = None;
        loop {
            text.clear();
            number += 1;
            let read = io::Read::take(&mut lines, LINE_BYTES_MAX).read_line(&mut text);
            match read.map_err(|error| ReadError::Io { line: number, error })? as u64 {
                0 => {
                    let history: History = history.ok_or(ReadError::Empty)?;
                    return history.expect_distinct().map(|()| history);
                }
                LINE_BYTES_MAX => return Err(ReadError::TooLong { line: number }),
                _ => {}
            }
            let wrong = |what| ReadError::Line { line: number, what };
            match &mut history {
                None => history = Some(History::new(read_header(&text)?)),
                Some(History { operations, .. }) => operations.push(line::read(&text).map_err(wrong)?),
            }
        }
    }

    /// What is left when all that is about some logs is taken out. What is about several stays if any of them does.
    pub fn without(&self, is_out: impl Fn(LogId) -> bool) -> History {
        let stays = |operation: &&Operation| {
            let logs = operation.action.logs();
            logs.is_empty() || !logs.into_iter().all(&is_out)
        };
        History {
            header: self.header.clone(),
            operations: self.operations.iter().filter(stays).cloned().collect(),
        }
    }

    /// Every record has an id of its own.
    fn expect_distinct(&self) -> Result<(), ReadError> {
        let Some((first, second)) = Sends::of(self).ambiguous() else { return Ok(()) };
        let [before, line] = [first, second].map(|send| send.operation as usize + 2);
        Err(ReadError::SentTwice { line, before, id: first.record.id })
    }

    /// Its lines, without their ends.
    pub fn lines(&self) -> impl Iterator<Item = String> {
        std::iter::once(self.header.line()).chain(self.operations.iter().map(Operation::line))
    }
}

impl Header {
    /// The first line of a file, without its end.
    pub fn line(&self) -> String {
        let header = Header { version: VERSION, ..self.clone() };
        serde_json::to_string(&header).expect("numbers and text are JSON")
    }
}

impl Operation {
    /// Its line in a file, without its end.
    pub fn line(&self) -> String {
        line::write(self)
    }
}

fn read_header(text: &str) -> Result<Header, ReadError> {
    /// The version comes first: fields of a later one are not known.
    #[derive(serde::Deserialize)]
    struct Version {
        history: u32,
    }

    let wrong = |what| ReadError::Line { line: 1, what };
    let Version { history: found } = line::parse(text).map_err(wrong)?;
    if found != VERSION {
        return Err(ReadError::Version { found });
    }
    line::parse(text).map_err(wrong)
}
