//! A record as one line of JSON, exact in both directions.
//!
//! Keys, values and header values are strings where their bytes are UTF-8 and `{"base64": "..."}` where they are not;
//! null is null. An absent field is null, and an absent timestamp the time of sending.

use std::io::{self, Write};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use corrente_client::Record;
use serde::{Deserialize, Serialize};

use crate::row::Row;

/// What `produce` reads.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Input {
    key: Option<Octets>,
    value: Option<Octets>,
    #[serde(default)]
    headers: Vec<InputHeader>,
    timestamp: Option<i64>,
    partition: Option<u32>,
    /// As printed by `consume`; a record gets a new one.
    #[serde(rename = "offset")]
    _offset: Option<u64>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct InputHeader {
    key: String,
    value: Option<Octets>,
}

/// Bytes that came as text or as base64.
#[derive(Debug, Deserialize)]
#[serde(untagged, expecting = "expected a string, null or {\"base64\": \"...\"}")]
enum Octets {
    Text(String),
    Base64(Base64),
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Base64 {
    base64: String,
}

/// What `consume` prints.
#[derive(Serialize)]
struct Output<'a> {
    key: Option<Printed<'a>>,
    value: Option<Printed<'a>>,
    headers: Vec<OutputHeader<'a>>,
    timestamp: i64,
    partition: u32,
    offset: u64,
}

#[derive(Serialize)]
struct OutputHeader<'a> {
    key: &'a str,
    value: Option<Printed<'a>>,
}

#[derive(Serialize)]
#[serde(untagged)]
enum Printed<'a> {
    Text(&'a str),
    Base64 { base64: String },
}

/// Reads one line. The error says what is wrong with it, without the line's number.
pub fn parse(line: &[u8]) -> Result<Record, String> {
    let input: Input = serde_json::from_slice(line).map_err(|error| error.to_string())?;
    let mut record = match (decode(input.key)?, decode(input.value)?) {
        (Some(key), Some(value)) => Record::value(value).key(key),
        (Some(key), None) => Record::tombstone(key),
        (None, Some(value)) => Record::value(value),
        (None, None) => Record::default(),
    };
    for header in input.headers {
        record = match decode(header.value)? {
            Some(value) => record.header(header.key, value),
            None => record.null_header(header.key),
        };
    }
    if let Some(timestamp) = input.timestamp {
        record = record.timestamp_ms(timestamp);
    }
    if let Some(partition) = input.partition {
        record = record.partition(partition);
    }
    Ok(record)
}

fn decode(octets: Option<Octets>) -> Result<Option<Bytes>, String> {
    match octets {
        None => Ok(None),
        Some(Octets::Text(text)) => Ok(Some(Bytes::from(text))),
        Some(Octets::Base64(Base64 { base64 })) => match STANDARD.decode(&base64) {
            Ok(bytes) => Ok(Some(Bytes::from(bytes))),
            Err(error) => Err(format!("invalid base64: {error}")),
        },
    }
}

/// Writes one record and the end of its line.
pub fn write(row: &Row<'_>, out: &mut impl Write) -> io::Result<()> {
    let output = Output {
        key: row.key.map(printed),
        value: row.value.map(printed),
        headers: row
            .headers
            .iter()
            .map(|header| OutputHeader { key: &header.key, value: header.value.as_deref().map(printed) })
            .collect(),
        timestamp: row.timestamp_ms,
        partition: row.partition,
        offset: row.offset,
    };
    serde_json::to_writer(&mut *out, &output)?;
    out.write_all(b"\n")
}

fn printed(bytes: &[u8]) -> Printed<'_> {
    match std::str::from_utf8(bytes) {
        Ok(text) => Printed::Text(text),
        Err(_) => Printed::Base64 { base64: STANDARD.encode(bytes) },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use corrente_client::Header;
    use proptest::prelude::*;

    #[test]
    fn nulls_text_and_bytes_are_told_apart() {
        let row = Row {
            key: None,
            value: Some(b"\xff\x00"),
            headers: &[Header { key: "h".to_owned(), value: Some(Bytes::new()) }],
            timestamp_ms: 1,
            partition: 2,
            offset: 3,
        };
        let mut out = Vec::new();
        write(&row, &mut out).unwrap();
        let text = String::from_utf8(out).unwrap();
        let expected = [
            r#"{"key":null,"value":{"base64":"/wA="},"headers":[{"key":"h","value":""}],"#,
            r#""timestamp":1,"partition":2,"offset":3}"#,
            "\n",
        ];
        assert_eq!(text, expected.concat());
    }

    #[test]
    fn what_is_absent_is_null() {
        assert_eq!(parse(b"{}").unwrap(), Record::default());
        assert_eq!(parse(br#"{"key":"k"}"#).unwrap(), Record::tombstone("k"));
    }

    #[test]
    fn mistakes_are_named() {
        let error = |line: &str| parse(line.as_bytes()).unwrap_err();
        assert!(error(r#"{"valu": "x"}"#).contains("unknown field `valu`"));
        assert!(
            error(r#"{"value": 7}"#).contains("expected a string, null or"),
            "{}",
            error(r#"{"value": 7}"#)
        );
        assert!(error(r#"{"value": {"base64": "%"}}"#).contains("invalid base64"));
        assert!(error("plain text").contains("expected"));
    }

    fn octets() -> impl Strategy<Value = Option<Vec<u8>>> {
        prop_oneof![
            Just(None),
            any::<Vec<u8>>().prop_map(Some),
            any::<String>().prop_map(|text| Some(text.into_bytes())),
        ]
    }

    proptest! {
        #[test]
        fn printing_and_reading_gives_the_record_back(
            key in octets(),
            value in octets(),
            headers in prop::collection::vec((any::<String>(), octets()), 0..4),
            timestamp_ms in any::<i64>(),
            partition in any::<u32>(),
        ) {
            let headers: Vec<Header> = headers
                .into_iter()
                .map(|(key, value)| Header { key, value: value.map(Bytes::from) })
                .collect();
            let row = Row {
                key: key.as_deref(),
                value: value.as_deref(),
                headers: &headers,
                timestamp_ms,
                partition,
                offset: 7,
            };
            let mut line = Vec::new();
            write(&row, &mut line).unwrap();
            prop_assert_eq!(line.iter().filter(|byte| **byte == b'\n').count(), 1);

            let mut expected = Record::default();
            if let Some(value) = value.clone() {
                expected = Record::value(value);
            }
            if let Some(key) = key.clone() {
                expected = expected.key(key);
            }
            for header in &headers {
                expected = match &header.value {
                    Some(value) => expected.header(header.key.clone(), value.clone()),
                    None => expected.null_header(header.key.clone()),
                };
            }
            prop_assert_eq!(parse(&line).unwrap(), expected.timestamp_ms(timestamp_ms).partition(partition));
        }
    }
}
