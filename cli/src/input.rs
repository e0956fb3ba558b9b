//! Lines of bytes from stdin or a file, in blocks, with bounded memory.
//!
//! A line ends at `\n`, which is not part of it; a carriage return before it is. Nothing else is interpreted: invalid
//! UTF-8 passes, empty lines are lines, and a last line without an end is one too.

use std::io::{self, Read};

use bytes::{Bytes, BytesMut};
use thiserror::Error;

/// How much is read at once.
const BLOCK_BYTES: usize = 256 * 1024;

/// Splits a reader into lines.
#[derive(Debug)]
pub struct Lines<R> {
    input: R,
    /// Bytes read and not handed out: at most one line without its end, after each call.
    rest: BytesMut,
    next_line: u64,
    line_bytes_max: usize,
    ended: bool,
}

/// Some lines in order; slices of one block that was read.
#[derive(Debug, PartialEq, Eq)]
pub struct Block {
    /// The number of the first line, from 1.
    pub first_line: u64,
    /// At least one line.
    pub lines: Vec<Bytes>,
    /// Bytes of input these lines took, ends included.
    pub input_bytes: u64,
}

/// Why reading ended early.
#[derive(Debug, Error)]
pub enum InputError {
    #[error("line {line} is longer than {limit} bytes, the most a record may hold")]
    LineTooLong { line: u64, limit: usize },
    #[error("line {line}: {what}")]
    Malformed { line: u64, what: String },
    #[error("reading the input after line {line}: {error}")]
    Io { line: u64, error: io::Error },
}

impl<R: Read> Lines<R> {
    /// Lines of `input` of at most `line_bytes_max` bytes each.
    pub fn new(input: R, line_bytes_max: usize) -> Lines<R> {
        Lines { input, rest: BytesMut::new(), next_line: 1, line_bytes_max, ended: false }
    }

    /// The lines that are complete by now, waiting for at least one; `None` at the end of the input.
    ///
    /// Lines before one that is too long are handed out first.
    pub fn next_block(&mut self) -> Result<Option<Block>, InputError> {
        loop {
            if self.rest.len() > self.line_bytes_max {
                return Err(InputError::LineTooLong { line: self.next_line, limit: self.line_bytes_max });
            }
            if self.ended {
                return Ok(self.last_line());
            }
            let known = self.rest.len();
            self.read_more()?;
            if let Some(end) = self.rest[known..].iter().rposition(|byte| *byte == b'\n') {
                let whole = self.rest.split_to(known + end + 1).freeze();
                return self.split(&whole).map(Some);
            }
        }
    }

    fn read_more(&mut self) -> Result<(), InputError> {
        let known = self.rest.len();
        self.rest.resize(known + BLOCK_BYTES, 0);
        let read = loop {
            match self.input.read(&mut self.rest[known..]) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                other => break other,
            }
        };
        self.rest.truncate(known + *read.as_ref().unwrap_or(&0));
        let read = read.map_err(|error| InputError::Io { line: self.next_line - 1, error })?;
        self.ended = read == 0;
        Ok(())
    }

    fn last_line(&mut self) -> Option<Block> {
        if self.rest.is_empty() {
            return None;
        }
        let line = self.rest.split().freeze();
        let block = Block { first_line: self.next_line, input_bytes: line.len() as u64, lines: vec![line] };
        self.next_line += 1;
        Some(block)
    }

    /// `whole` ends with a line's end.
    fn split(&mut self, whole: &Bytes) -> Result<Block, InputError> {
        let first_line = self.next_line;
        let mut lines = Vec::new();
        let mut begin = 0;
        while begin < whole.len() {
            let length =
                whole[begin..].iter().position(|byte| *byte == b'\n').expect("ends with a line's end");
            if length > self.line_bytes_max {
                // Put back: the lines before it go first, the next call refuses this one.
                let mut rest = BytesMut::from(&whole[begin..]);
                rest.unsplit(std::mem::take(&mut self.rest));
                self.rest = rest;
                break;
            }
            lines.push(whole.slice(begin..begin + length));
            begin += length + 1;
        }
        if lines.is_empty() {
            return Err(InputError::LineTooLong { line: first_line, limit: self.line_bytes_max });
        }
        self.next_line += lines.len() as u64;
        Ok(Block { first_line, lines, input_bytes: begin as u64 })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    type AllLines = Vec<Vec<u8>>;

    /// All lines, or those before the error and its text.
    fn read_all(input: impl Read, limit: usize) -> Result<AllLines, (AllLines, String)> {
        let mut lines = Lines::new(input, limit);
        let mut all = Vec::new();
        loop {
            match lines.next_block() {
                Ok(Some(block)) => {
                    assert_eq!(block.first_line, all.len() as u64 + 1);
                    all.extend(block.lines.iter().map(|line| line.to_vec()));
                }
                Ok(None) => return Ok(all),
                Err(error) => return Err((all, error.to_string())),
            }
        }
    }

    #[test]
    fn bytes_pass_unchanged() {
        let lines = read_all(&b"a\r\n\n\xff\xfe\x00\nlast"[..], 100).unwrap();
        assert_eq!(lines, [&b"a\r"[..], b"", b"\xff\xfe\x00", b"last"]);
        assert_eq!(read_all(&b"a\n"[..], 100).unwrap(), [b"a"]);
        assert!(read_all(&b""[..], 100).unwrap().is_empty());
    }

    #[test]
    fn a_line_too_long_is_named_after_those_before_it() {
        let refusal = "line 3 is longer than 5 bytes, the most a record may hold".to_owned();
        let before = vec![b"12345".to_vec(), b"b".to_vec()];
        assert_eq!(read_all(&b"12345\nb\n123456\nc\n"[..], 5), Err((before.clone(), refusal.clone())));
        assert_eq!(read_all(&b"12345\nb\n123456"[..], 5), Err((before, refusal)));
    }

    #[test]
    fn a_line_that_never_ends_is_refused_in_bounded_memory() {
        let endless = io::repeat(b'x');
        let (lines, error) = read_all(endless, 1_000_000).unwrap_err();
        assert!(lines.is_empty());
        assert!(error.starts_with("line 1 is longer than 1000000 bytes"), "{error}");
    }

    /// Hands out a few bytes at a time.
    struct Trickle<'a>(&'a [u8], usize);

    impl Read for Trickle<'_> {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            let count = self.1.min(self.0.len()).min(buffer.len());
            buffer[..count].copy_from_slice(&self.0[..count]);
            self.0 = &self.0[count..];
            Ok(count)
        }
    }

    proptest! {
        #[test]
        fn however_the_bytes_arrive_the_lines_are_the_same(
            bytes in prop::collection::vec(prop_oneof![Just(b'\n'), any::<u8>()], 0..300),
            step in 1usize..20,
        ) {
            let mut expected: Vec<Vec<u8>> = bytes.split(|byte| *byte == b'\n').map(<[u8]>::to_vec).collect();
            if expected.last().is_some_and(Vec::is_empty) {
                expected.pop();
            }
            prop_assert_eq!(read_all(Trickle(&bytes, step), 1_000).unwrap(), expected.clone());
            prop_assert_eq!(read_all(&bytes[..], 1_000).unwrap(), expected);
        }
    }
}
