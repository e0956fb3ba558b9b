//! Format strings of `consume`: text with `%` directives and `\` escapes.

use std::io::{self, Write};
use std::str::FromStr;

use thiserror::Error;

use crate::row::Row;

/// A parsed format string.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Format {
    parts: Vec<Part>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Part {
    Literal(Vec<u8>),
    Key,
    Value,
    Headers,
    Offset,
    Partition,
    Timestamp,
}

/// What is wrong with a format string. Positions count characters from 1.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum FormatError {
    #[error("unknown directive '%{directive}' at {position}: known are %k %v %h %o %p %t and %%")]
    UnknownDirective { directive: char, position: usize },
    #[error("unknown escape '\\{escape}' at {position}: known are \\n \\t \\r \\0 \\\\ and \\xHH")]
    UnknownEscape { escape: char, position: usize },
    #[error("'\\x' at {position} is not followed by two hexadecimal digits")]
    NotHexadecimal { position: usize },
    #[error("the format ends within '{0}'")]
    Unfinished(char),
}

impl FromStr for Format {
    type Err = FormatError;

    fn from_str(text: &str) -> Result<Format, FormatError> {
        let mut parts = Vec::new();
        let mut literal = Vec::new();
        let mut chars = text.chars().zip(1..);
        while let Some((c, position)) = chars.next() {
            match c {
                '%' => match directive(chars.next().map(|(c, _)| c), position)? {
                    Some(part) => {
                        flush(&mut literal, &mut parts);
                        parts.push(part);
                    }
                    None => literal.push(b'%'),
                },
                '\\' => literal.push(escape(&mut chars, position)?),
                plain => literal.extend_from_slice(plain.encode_utf8(&mut [0; 4]).as_bytes()),
            }
        }
        flush(&mut literal, &mut parts);
        Ok(Format { parts })
    }
}

/// `None` is the percent sign itself.
fn directive(c: Option<char>, position: usize) -> Result<Option<Part>, FormatError> {
    match c {
        Some('k') => Ok(Some(Part::Key)),
        Some('v') => Ok(Some(Part::Value)),
        Some('h') => Ok(Some(Part::Headers)),
        Some('o') => Ok(Some(Part::Offset)),
        Some('p') => Ok(Some(Part::Partition)),
        Some('t') => Ok(Some(Part::Timestamp)),
        Some('%') => Ok(None),
        Some(directive) => Err(FormatError::UnknownDirective { directive, position }),
        None => Err(FormatError::Unfinished('%')),
    }
}

fn escape(chars: &mut impl Iterator<Item = (char, usize)>, position: usize) -> Result<u8, FormatError> {
    let mut next = || chars.next().map(|(c, _)| c);
    match next() {
        Some('n') => Ok(b'\n'),
        Some('t') => Ok(b'\t'),
        Some('r') => Ok(b'\r'),
        Some('0') => Ok(0),
        Some('\\') => Ok(b'\\'),
        Some('x') => {
            let mut digit = || next().and_then(|c| c.to_digit(16)).and_then(|digit| u8::try_from(digit).ok());
            match (digit(), digit()) {
                (Some(high), Some(low)) => Ok(high << 4 | low),
                _ => Err(FormatError::NotHexadecimal { position }),
            }
        }
        Some(escape) => Err(FormatError::UnknownEscape { escape, position }),
        None => Err(FormatError::Unfinished('\\')),
    }
}

fn flush(literal: &mut Vec<u8>, parts: &mut Vec<Part>) {
    if !literal.is_empty() {
        parts.push(Part::Literal(std::mem::take(literal)));
    }
}

impl Format {
    /// Writes one record. Null prints as nothing; headers as `key=value,key=value`.
    pub fn write(&self, row: &Row<'_>, out: &mut impl Write) -> io::Result<()> {
        for part in &self.parts {
            match part {
                Part::Literal(bytes) => out.write_all(bytes)?,
                Part::Key => out.write_all(row.key.unwrap_or_default())?,
                Part::Value => out.write_all(row.value.unwrap_or_default())?,
                Part::Headers => write_headers(row, out)?,
                Part::Offset => write!(out, "{}", row.offset)?,
                Part::Partition => write!(out, "{}", row.partition)?,
                Part::Timestamp => write!(out, "{}", row.timestamp_ms)?,
            }
        }
        Ok(())
    }
}

fn write_headers(row: &Row<'_>, out: &mut impl Write) -> io::Result<()> {
    for (i, header) in row.headers.iter().enumerate() {
        if i > 0 {
            out.write_all(b",")?;
        }
        out.write_all(header.key.as_bytes())?;
        if let Some(value) = &header.value {
            out.write_all(b"=")?;
            out.write_all(value)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;
    use corrente_client::Header;

    fn print(format: &str) -> Vec<u8> {
        let headers = [
            Header { key: "a".to_owned(), value: Some(Bytes::from_static(b"1")) },
            Header { key: "b".to_owned(), value: None },
        ];
        let row = Row {
            key: None,
            value: Some(b"v\xff"),
            headers: &headers,
            timestamp_ms: -5,
            partition: 3,
            offset: 17,
        };
        let mut out = Vec::new();
        format.parse::<Format>().unwrap().write(&row, &mut out).unwrap();
        out
    }

    #[test]
    fn directives_escapes_and_text() {
        assert_eq!(print("%k %v\\n"), b" v\xff\n");
        assert_eq!(print("%p:%o@%t [%h]"), b"3:17@-5 [a=1,b]");
        assert_eq!(print("100%%\\t\\\\\\x41\\xfFé"), b"100%\t\\A\xff\xc3\xa9");
        assert_eq!(print(""), b"");
    }

    #[test]
    fn mistakes_are_named_with_their_place() {
        let error = |format: &str| format.parse::<Format>().unwrap_err().to_string();
        assert_eq!(error("%k %q"), "unknown directive '%q' at 4: known are %k %v %h %o %p %t and %%");
        assert_eq!(error("a\\q"), "unknown escape '\\q' at 2: known are \\n \\t \\r \\0 \\\\ and \\xHH");
        assert_eq!(error("\\x4g"), "'\\x' at 1 is not followed by two hexadecimal digits");
        assert_eq!(error("50%"), "the format ends within '%'");
        assert_eq!(error("\\"), "the format ends within '\\'");
    }
}
