//! Short histories, told one operation after the other.

use crate::check::{Verdict, check};
use crate::class::Class;
use crate::content::{Content, RecordId};
use crate::header::{Cleanup, Header, Topic};
use crate::history::History;
use crate::operation::{
    Action, LogId, OffsetAnswer, OffsetQuery, Operation, Outcome, Place, Poll, ReadRecord, Refusal,
    RefusalKind, SentRecord,
};

pub(crate) const LOG: LogId = LogId { topic: 0, partition: 0 };
pub(crate) const PRODUCER: u32 = 1;
pub(crate) const READER: u32 = 2;
pub(crate) const ADMIN: u32 = 3;
pub(crate) const FINAL: u32 = 4;
pub(crate) const KEY: u32 = 5;

/// A history in the making: operations one after the other, each 10 ms long, 10 ms apart.
#[derive(Clone)]
pub(crate) struct Story {
    pub(crate) history: History,
    pub(crate) clock_ms: u64,
}

pub(crate) fn id(counter: u32) -> RecordId {
    RecordId { producer: PRODUCER, counter }
}

/// A record's timestamp tells its counter.
pub(crate) fn stamp(counter: u32) -> i64 {
    1_000 + i64::from(counter)
}

pub(crate) fn sent(counter: u32) -> SentRecord {
    let timestamp_ms = stamp(counter);
    SentRecord {
        log: LOG,
        id: id(counter),
        key: KEY,
        is_tombstone: false,
        bytes: 100,
        timestamp_ms,
        acked: None,
    }
}

pub(crate) fn acked(counter: u32, offset: u64) -> SentRecord {
    SentRecord { acked: Some(Place { partition: 0, offset }), ..sent(counter) }
}

pub(crate) fn read(offset: u64, counter: u32) -> ReadRecord {
    let content = Content::Record { id: id(counter), key: KEY, is_tombstone: false };
    ReadRecord { offset, timestamp_ms: stamp(counter), content }
}

pub(crate) fn poll(position: Option<u64>, records: &[(u64, u32)]) -> Poll {
    let records: Vec<ReadRecord> = records.iter().map(|(offset, counter)| read(*offset, *counter)).collect();
    Poll { log: LOG, position, high_watermark: None, records }
}

pub(crate) fn doubt() -> Outcome {
    Outcome::Info(Refusal::new(RefusalKind::Timeout, "time ran out"))
}

pub(crate) fn refused(kind: RefusalKind) -> Outcome {
    Outcome::Fail(Refusal::new(kind, "refused"))
}

impl Story {
    pub(crate) fn new(topic: Topic) -> Story {
        let header = Header { in_order: true, patient: true, topics: vec![topic], ..Header::default() };
        Story { history: History::new(header), clock_ms: 1_000 }
    }

    pub(crate) fn plain() -> Story {
        Story::new(Topic { partitions: 1, ..Topic::default() })
    }

    pub(crate) fn compacted() -> Story {
        Story::new(Topic { partitions: 1, cleanup: Cleanup::Compact, ..Topic::default() })
    }

    pub(crate) fn after(mut self, ms: u64) -> Story {
        self.clock_ms += ms;
        self
    }

    pub(crate) fn then(mut self, process: u32, outcome: Outcome, action: Action) -> Story {
        let invoked_ns = self.clock_ms * 1_000_000;
        self.clock_ms += 20;
        self.history.operations.push(Operation {
            process,
            invoked_ns,
            completed_ns: Some(invoked_ns + 10_000_000),
            outcome,
            is_final: process == FINAL,
            action,
        });
        self
    }

    pub(crate) fn ok(self, process: u32, action: Action) -> Story {
        self.then(process, Outcome::Ok, action)
    }

    pub(crate) fn acked(self, counter: u32, offset: u64) -> Story {
        self.ok(PRODUCER, Action::Send(vec![acked(counter, offset)]))
    }

    pub(crate) fn tombstone(self, counter: u32, offset: u64) -> Story {
        self.ok(PRODUCER, Action::Send(vec![SentRecord { is_tombstone: true, ..acked(counter, offset) }]))
    }

    pub(crate) fn sent(self, counter: u32, outcome: Outcome) -> Story {
        self.then(PRODUCER, outcome, Action::Send(vec![sent(counter)]))
    }

    pub(crate) fn polled(self, process: u32, position: Option<u64>, records: &[(u64, u32)]) -> Story {
        self.ok(process, Action::Poll(vec![poll(position, records)]))
    }

    pub(crate) fn told(self, process: u32, query: OffsetQuery, offset: u64) -> Story {
        let answer = Some(OffsetAnswer { offset, timestamp_ms: None });
        self.ok(process, Action::ListOffsets { log: LOG, query, answer })
    }

    pub(crate) fn deleted_before(self, before_offset: u64) -> Story {
        self.ok(ADMIN, Action::DeleteRecords { log: LOG, before_offset, log_start: Some(before_offset) })
    }

    /// The final reading and the end.
    pub(crate) fn end(self, start: u64, end: u64, records: &[(u64, u32)]) -> Story {
        let story = self.told(FINAL, OffsetQuery::Earliest, start).told(FINAL, OffsetQuery::Latest, end);
        let story = if records.is_empty() { story } else { story.polled(FINAL, None, records) };
        story.ok(FINAL, Action::Rest)
    }

    pub(crate) fn verdict(&self) -> Verdict {
        let text: Vec<String> = self.history.lines().collect();
        let again = History::read(text.join("\n").as_bytes()).expect("what was written is read");
        assert_eq!(again, self.history);
        check(&again)
    }

    pub(crate) fn classes(&self) -> Vec<Class> {
        self.verdict().classes()
    }

    pub(crate) fn expect(&self, classes: &[Class]) {
        let verdict = self.verdict();
        assert_eq!(verdict.classes(), classes, "{:#?}", verdict.violations);
    }
}

/// Three records, the second sent again after a crash and so there twice; a reader, a question.
pub(crate) fn sound() -> Story {
    Story::plain()
        .acked(0, 0)
        .polled(READER, None, &[(0, 0)])
        .told(ADMIN, OffsetQuery::Latest, 1)
        .ok(ADMIN, Action::Crash)
        .acked(1, 2)
        .polled(READER, Some(1), &[(1, 1), (2, 1)])
        .acked(2, 3)
        .polled(READER, Some(3), &[(3, 2)])
}

pub(crate) const ALL: [(u64, u32); 4] = [(0, 0), (1, 1), (2, 1), (3, 2)];
