//! A history as text: one JSON object a line, and how a line becomes an operation.
//!
//! Fields are flat, so that a line reads like a sentence and is parsed in one pass; what belongs to which kind of
//! operation is checked here, by name. Unknown fields and kinds are refused: they belong to a later version.

use std::borrow::Cow;
use std::fmt;

use serde::de::{Deserializer, Error as _, SeqAccess, Visitor};
use serde::ser::{SerializeSeq, Serializer};
use serde::{Deserialize, Serialize};

use crate::content::{Content, RecordId};
use crate::header::Topic;
use crate::operation::{
    Action, LogId, OffsetAnswer, OffsetQuery, Operation, Outcome, Place, Poll, ReadRecord, Refusal,
    RefusalKind, SentRecord,
};

/// Every field a line of any kind may have.
#[derive(Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct Line<'a> {
    process: u32,
    #[serde(borrow)]
    f: Cow<'a, str>,
    t_invoke: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    t_complete: Option<u64>,
    r#type: Kind,
    #[serde(default, rename = "final", skip_serializing_if = "std::ops::Not::not")]
    is_final: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    records: Option<Vec<SentLine>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    polls: Option<Vec<PollLine>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    topic: Option<u32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    partition: Option<u32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    query: Option<OffsetQuery>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    before: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    offset: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    timestamp: Option<i64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    facts: Option<Topic>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    error: Option<RefusalKind>,
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    detail: Option<Cow<'a, str>>,
}

#[derive(Clone, Copy, Deserialize, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
enum Kind {
    Ok,
    Info,
    Fail,
}

#[derive(Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct SentLine {
    topic: u32,
    partition: u32,
    /// Producer and counter.
    id: (u32, u32),
    key: u32,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    tombstone: bool,
    bytes: u32,
    timestamp: i64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    offset: Option<u64>,
    /// Where the acknowledgement names another partition than the key leads to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    acked_partition: Option<u32>,
}

#[derive(Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct PollLine {
    topic: u32,
    partition: u32,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    position: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    high_watermark: Option<u64>,
    records: Vec<ReadRecord>,
}

/// The text of an operation, without the end of the line.
pub(crate) fn write(operation: &Operation) -> String {
    let mut line = Line {
        process: operation.process,
        f: Cow::Borrowed(name(&operation.action)),
        t_invoke: operation.invoked_ns,
        t_complete: operation.completed_ns,
        r#type: Kind::Ok,
        is_final: operation.is_final,
        records: None,
        polls: None,
        topic: None,
        partition: None,
        query: None,
        before: None,
        offset: None,
        timestamp: None,
        facts: None,
        error: None,
        detail: None,
    };
    if let Some(refusal) = operation.refusal() {
        line.r#type = if operation.has_failed() { Kind::Fail } else { Kind::Info };
        line.error = Some(refusal.kind);
        line.detail = Some(Cow::Borrowed(&refusal.detail));
    }
    match &operation.action {
        Action::Send(records) => line.records = Some(records.iter().map(SentLine::of).collect()),
        Action::Poll(polls) => line.polls = Some(polls.iter().map(PollLine::of).collect()),
        Action::ListOffsets { log, query, answer } => {
            (line.topic, line.partition) = (Some(log.topic), Some(log.partition));
            line.query = Some(*query);
            line.offset = answer.map(|answer| answer.offset);
            line.timestamp = answer.and_then(|answer| answer.timestamp_ms);
        }
        Action::DeleteRecords { log, before_offset, log_start } => {
            (line.topic, line.partition) = (Some(log.topic), Some(log.partition));
            (line.before, line.offset) = (Some(*before_offset), *log_start);
        }
        Action::CreateTopic(facts) | Action::AlterTopic(facts) => line.facts = Some(facts.clone()),
        Action::DeleteTopic { topic } => line.topic = Some(*topic),
        Action::Crash | Action::Rest => {}
    }
    serde_json::to_string(&line).expect("numbers and text are JSON")
}

/// Parses one line. What is wrong with it is said without the parser's own count of lines, which is always 1.
pub(crate) fn parse<'a, T: Deserialize<'a>>(line: &'a str) -> Result<T, String> {
    let text = line.trim_end_matches(['\n', '\r']);
    serde_json::from_str(text).map_err(|error| error.to_string().replace(" at line 1 column ", " at column "))
}

/// Reads an operation back, or says what is wrong with the line.
pub(crate) fn read(text: &str) -> Result<Operation, String> {
    let mut line: Line<'_> = parse(text)?;
    let outcome = read_outcome(&mut line)?;
    if line.t_complete.is_some_and(|complete| complete < line.t_invoke) {
        let complete = line.t_complete.unwrap_or_default();
        return Err(format!("completed at {complete}, before it was invoked at {}", line.t_invoke));
    }
    if line.t_complete.is_none() && line.r#type != Kind::Info {
        return Err("an operation without t_complete is of type info".to_owned());
    }
    let action = read_action(&mut line, outcome == Outcome::Ok)?;
    let unused: [(&str, bool); 8] = [
        ("records", line.records.is_some()),
        ("polls", line.polls.is_some()),
        ("topic", line.topic.is_some()),
        ("partition", line.partition.is_some()),
        ("query", line.query.is_some()),
        ("before", line.before.is_some()),
        ("offset", line.offset.is_some() || line.timestamp.is_some()),
        ("facts", line.facts.is_some()),
    ];
    if let Some((field, _)) = unused.iter().find(|(_, is_there)| *is_there) {
        return Err(format!("`{field}` does not belong to {}", line.f));
    }
    Ok(Operation {
        process: line.process,
        invoked_ns: line.t_invoke,
        completed_ns: line.t_complete,
        outcome,
        is_final: line.is_final,
        action,
    })
}

fn read_outcome(line: &mut Line<'_>) -> Result<Outcome, String> {
    let refusal = Refusal {
        kind: line.error.unwrap_or_default(),
        detail: line.detail.take().map(Cow::into_owned).unwrap_or_default(),
    };
    match line.r#type {
        Kind::Ok if line.error.is_some() || !refusal.detail.is_empty() => {
            Err("an operation of type ok has no `error` and no `detail`".to_owned())
        }
        Kind::Ok => Ok(Outcome::Ok),
        Kind::Info => Ok(Outcome::Info(refusal)),
        Kind::Fail => Ok(Outcome::Fail(refusal)),
    }
}

/// Takes what belongs to the kind of operation out of the line.
fn read_action(line: &mut Line<'_>, is_ok: bool) -> Result<Action, String> {
    let f = line.f.clone();
    let missing = |field: &str| format!("{f} lacks `{field}`");
    match &*f {
        "send" => {
            let records = line.records.take().ok_or_else(|| missing("records"))?;
            let records: Vec<SentRecord> = records.into_iter().map(SentLine::into_record).collect();
            match records.iter().find(|record| record.acked.is_some() != is_ok) {
                Some(record) if is_ok => {
                    Err(format!("record {} was acknowledged without `offset`", record.id))
                }
                Some(record) => Err(format!("record {} has an `offset` and was not acknowledged", record.id)),
                None => Ok(Action::Send(records)),
            }
        }
        "poll" => {
            let polls = line.polls.take().ok_or_else(|| missing("polls"))?;
            Ok(Action::Poll(polls.into_iter().map(PollLine::into_poll).collect()))
        }
        "list_offsets" => {
            let log = take_log(line)?;
            let query = line.query.take().ok_or_else(|| missing("query"))?;
            let timestamp_ms = line.timestamp.take();
            let answer = line.offset.take().map(|offset| OffsetAnswer { offset, timestamp_ms });
            if answer.is_some() != is_ok {
                return Err(missing("offset, or has one without an answer"));
            }
            Ok(Action::ListOffsets { log, query, answer })
        }
        "delete_records" => {
            let log = take_log(line)?;
            let before_offset = line.before.take().ok_or_else(|| missing("before"))?;
            Ok(Action::DeleteRecords { log, before_offset, log_start: line.offset.take() })
        }
        "create_topic" => Ok(Action::CreateTopic(line.facts.take().ok_or_else(|| missing("facts"))?)),
        "alter_topic" => Ok(Action::AlterTopic(line.facts.take().ok_or_else(|| missing("facts"))?)),
        "delete_topic" => {
            Ok(Action::DeleteTopic { topic: line.topic.take().ok_or_else(|| missing("topic"))? })
        }
        "crash" => Ok(Action::Crash),
        "rest" => Ok(Action::Rest),
        other => Err(format!("this version knows no operation `{other}`")),
    }
}

fn take_log(line: &mut Line<'_>) -> Result<LogId, String> {
    match (line.topic.take(), line.partition.take()) {
        (Some(topic), Some(partition)) => Ok(LogId { topic, partition }),
        _ => Err(format!("{} lacks `topic` or `partition`", line.f)),
    }
}

/// How an operation is called in the file, and in what is said about it.
pub(crate) fn name(action: &Action) -> &'static str {
    match action {
        Action::Send(_) => "send",
        Action::Poll(_) => "poll",
        Action::ListOffsets { .. } => "list_offsets",
        Action::DeleteRecords { .. } => "delete_records",
        Action::CreateTopic(_) => "create_topic",
        Action::AlterTopic(_) => "alter_topic",
        Action::DeleteTopic { .. } => "delete_topic",
        Action::Crash => "crash",
        Action::Rest => "rest",
    }
}

impl SentLine {
    fn of(record: &SentRecord) -> SentLine {
        let elsewhere = record.acked.filter(|place| place.partition != record.log.partition);
        SentLine {
            topic: record.log.topic,
            partition: record.log.partition,
            id: (record.id.producer, record.id.counter),
            key: record.key,
            tombstone: record.is_tombstone,
            bytes: record.bytes,
            timestamp: record.timestamp_ms,
            offset: record.acked.map(|place| place.offset),
            acked_partition: elsewhere.map(|place| place.partition),
        }
    }

    fn into_record(self) -> SentRecord {
        let partition = self.acked_partition.unwrap_or(self.partition);
        SentRecord {
            log: LogId { topic: self.topic, partition: self.partition },
            id: RecordId { producer: self.id.0, counter: self.id.1 },
            key: self.key,
            is_tombstone: self.tombstone,
            bytes: self.bytes,
            timestamp_ms: self.timestamp,
            acked: self.offset.map(|offset| Place { partition, offset }),
        }
    }
}

impl PollLine {
    fn of(poll: &Poll) -> PollLine {
        PollLine {
            topic: poll.log.topic,
            partition: poll.log.partition,
            position: poll.position,
            high_watermark: poll.high_watermark,
            records: poll.records.clone(),
        }
    }

    fn into_poll(self) -> Poll {
        Poll {
            log: LogId { topic: self.topic, partition: self.partition },
            position: self.position,
            high_watermark: self.high_watermark,
            records: self.records,
        }
    }
}

/// `[offset, timestamp, producer, counter, key]`, a tombstone with `true` behind it; or, damaged,
/// `[offset, timestamp, "what is wrong"]`.
impl Serialize for ReadRecord {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut list = serializer.serialize_seq(None)?;
        list.serialize_element(&self.offset)?;
        list.serialize_element(&self.timestamp_ms)?;
        match &self.content {
            Content::Corrupt(what) => list.serialize_element(what)?,
            Content::Record { id, key, is_tombstone } => {
                list.serialize_element(&id.producer)?;
                list.serialize_element(&id.counter)?;
                list.serialize_element(key)?;
                if *is_tombstone {
                    list.serialize_element(&true)?;
                }
            }
        }
        list.end()
    }
}

impl<'de> Deserialize<'de> for ReadRecord {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<ReadRecord, D::Error> {
        struct List;

        impl<'de> Visitor<'de> for List {
            type Value = ReadRecord;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("[offset, timestamp, producer, counter, key] or [offset, timestamp, \"damage\"]")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<ReadRecord, A::Error> {
                let short = |len| A::Error::invalid_length(len, &List);
                let offset = list.next_element()?.ok_or_else(|| short(0))?;
                let timestamp_ms = list.next_element()?.ok_or_else(|| short(1))?;
                let content = match list.next_element()?.ok_or_else(|| short(2))? {
                    NumberOrText::Text(what) => Content::Corrupt(what),
                    NumberOrText::Number(producer) => {
                        let counter = list.next_element()?.ok_or_else(|| short(3))?;
                        let key = list.next_element()?.ok_or_else(|| short(4))?;
                        let is_tombstone = list.next_element()?.unwrap_or(false);
                        Content::Record { id: RecordId { producer, counter }, key, is_tombstone }
                    }
                };
                Ok(ReadRecord { offset, timestamp_ms, content })
            }
        }

        deserializer.deserialize_seq(List)
    }
}

enum NumberOrText {
    Number(u32),
    Text(String),
}

impl<'de> Deserialize<'de> for NumberOrText {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<NumberOrText, D::Error> {
        struct Either;

        impl Visitor<'_> for Either {
            type Value = NumberOrText;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a producer's number, or what is wrong with the record")
            }

            fn visit_u64<E: serde::de::Error>(self, number: u64) -> Result<NumberOrText, E> {
                u32::try_from(number)
                    .map(NumberOrText::Number)
                    .map_err(|_| E::custom(format!("producer {number} is over {}", u32::MAX)))
            }

            fn visit_str<E: serde::de::Error>(self, what: &str) -> Result<NumberOrText, E> {
                Ok(NumberOrText::Text(what.to_owned()))
            }
        }

        deserializer.deserialize_any(Either)
    }
}
