//! A broker that keeps every promise, as a model, and clients that write down what they see of it: sound histories by
//! construction, to see that the checker lets them pass.
//!
//! Everything has its effect at one moment; operations begin some time before it and are answered some time after, so
//! that they overlap. Attempts get lost or lose their answer, the broker goes down, records are removed on demand, by
//! age, by size and by compaction, topics come and go. Equal seeds give equal histories.

mod log;

use std::collections::BTreeMap;

use fastrand::Rng;

use crate::content::{Content, RecordId};
use crate::header::{Cleanup, Header, Topic};
use crate::history::History;
use crate::operation::{
    Action, LogId, OffsetAnswer, OffsetQuery, Operation, Outcome, Place, Poll, ReadRecord, Refusal,
    RefusalKind, SentRecord,
};
use log::{Kept, ModelLog};

/// What a model run is like.
#[derive(Clone, Copy, Debug)]
pub struct ModelSettings {
    /// About how many operations there are.
    pub operations: usize,
    /// Whether the broker drops what is sent again.
    pub idempotent: bool,
    /// Whether clients give up now and then, and leave it open what came of their operation.
    pub gives_up: bool,
    /// Whether records are ever removed, and topics deleted.
    pub removes: bool,
}

/// Wall clock of a model run at its beginning, in ms since 1970.
const EPOCH_MS: i64 = 1_000_000;
const PRODUCERS: u32 = 4;
const READERS: u32 = 4;
const ADMINISTRATOR: u32 = 100;
const FINAL_READER: u32 = 101;
/// The longest way to or from the broker.
const WAY_NS_MAX: u64 = 3_000_000;

/// Makes the history of a run.
pub fn sound_history(seed: u64, settings: ModelSettings) -> History {
    let mut model = Model::new(seed, settings);
    while model.history.operations.len() < settings.operations {
        model.step();
    }
    model.end();
    model.history
}

struct Model {
    rng: Rng,
    settings: ModelSettings,
    history: History,
    /// The present moment: all effects before it have happened.
    now_ns: u64,
    topics: BTreeMap<u32, Topic>,
    next_topic: u32,
    logs: BTreeMap<LogId, ModelLog>,
    producers: Vec<ModelProducer>,
    readers: BTreeMap<u32, ModelReader>,
    administrator_ns: u64,
    next_reader: u32,
}

#[derive(Default)]
struct ModelProducer {
    counter: u32,
    /// When it sent last.
    invoked_ns: u64,
    /// A record whose answer was lost, and that is sent again before anything else.
    again: Option<(SentRecord, u64)>,
}

struct ModelReader {
    log: LogId,
    position: Option<u64>,
    /// When its last poll was answered.
    answered_ns: u64,
}

impl Model {
    fn new(seed: u64, settings: ModelSettings) -> Model {
        let header = Header {
            run: format!("model, seed {seed}"),
            epoch_ms: EPOCH_MS,
            idempotent: settings.idempotent,
            in_order: true,
            patient: !settings.gives_up,
            ..Header::default()
        };
        let mut model = Model {
            rng: Rng::with_seed(seed),
            settings,
            history: History::new(header),
            now_ns: 1,
            topics: BTreeMap::new(),
            next_topic: 0,
            logs: BTreeMap::new(),
            producers: (0..PRODUCERS).map(|_| ModelProducer::default()).collect(),
            readers: BTreeMap::new(),
            administrator_ns: 0,
            next_reader: PRODUCERS,
        };
        for _ in 0..3 {
            model.create_topic();
        }
        for _ in 0..READERS {
            model.new_reader();
        }
        model
    }

    fn step(&mut self) {
        self.now_ns += self.rng.u64(1..2_000_000);
        match self.rng.u32(..1_000) {
            0..550 => self.send(),
            550..850 => self.poll(),
            850..940 => self.list_offsets(),
            940..960 => self.delete_records(),
            960..985 => self.remove(),
            985..990 => self.alter_topic(),
            990..994 if self.is_due() => self.create_topic(),
            994..996 if self.is_due() => self.delete_topic(),
            996..998 => self.refuse(),
            998.. => self.crash(),
            _ => {}
        }
    }

    /// Topics come and go as often in a long run as in a short one, so that some of them grow large.
    fn is_due(&mut self) -> bool {
        self.rng.usize(..self.settings.operations.max(1)) < 3_000
    }

    // What clients write down.

    /// When an operation began that has its effect now, of a process that was free since `free_ns`.
    fn invoked_ns(&mut self, free_ns: u64) -> u64 {
        let earliest = self.now_ns.saturating_sub(WAY_NS_MAX).max(free_ns);
        self.rng.u64(earliest.min(self.now_ns)..=self.now_ns)
    }

    fn note(&mut self, process: u32, invoked_ns: u64, outcome: Outcome, action: Action) -> u64 {
        let completed_ns = self.now_ns + self.rng.u64(1..WAY_NS_MAX);
        self.history.operations.push(Operation {
            process,
            invoked_ns,
            completed_ns: Some(completed_ns),
            outcome,
            is_final: process == FINAL_READER,
            action,
        });
        completed_ns
    }

    /// Notes what the administrator did. He does one thing after the other.
    fn administer(&mut self, outcome: Outcome, action: Action) {
        let free_ns = self.administrator_ns;
        // Later than his last answer, if that is still on its way.
        self.now_ns = self.now_ns.max(free_ns);
        let invoked_ns = self.invoked_ns(free_ns);
        self.administrator_ns = self.note(ADMINISTRATOR, invoked_ns, outcome, action);
    }

    /// Whether a client gives up this time.
    fn gives_up(&mut self) -> bool {
        self.settings.gives_up && self.rng.u8(..30) == 0
    }

    // Producers.

    fn send(&mut self) {
        let number = self.rng.usize(..self.producers.len());
        let again = self.producers[number].again.take();
        let is_first = again.is_none();
        let Some((record, invoked_ns)) = again.or_else(|| self.draw_record(number)) else { return };
        let process = number as u32;
        let Some(log) = self.logs.get_mut(&record.log) else {
            // The topic was deleted meanwhile, perhaps after an attempt whose answer was lost.
            let refusal = Refusal::new(RefusalKind::UnknownTopic, "no such topic");
            let outcome = if is_first { Outcome::Fail(refusal) } else { Outcome::Info(refusal) };
            self.note(process, invoked_ns, outcome, Action::Send(vec![record]));
            return;
        };
        let chance = self.rng.u8(..20);
        // The request was lost on its way, or the broker lost it unflushed.
        let is_applied = chance > 0;
        let now_ms = wall_ms(self.now_ns);
        let stands_at = log.find(record.id).filter(|_| self.settings.idempotent);
        let offset =
            match (is_applied, stands_at) {
                (false, _) => None,
                (true, Some(offset)) => Some(offset),
                (true, None) => {
                    let (key, is_tombstone, timestamp_ms) =
                        (record.key, record.is_tombstone, record.timestamp_ms);
                    let sent_ms = wall_ms(invoked_ns);
                    let bytes = u64::from(record.bytes);
                    Some(log.append(
                        Kept { id: record.id, key, is_tombstone, timestamp_ms, sent_ms, bytes },
                        now_ms,
                    ))
                }
            };
        let Some(offset) = offset.filter(|_| chance > 1) else {
            if self.gives_up() {
                let outcome = Outcome::Info(Refusal::new(RefusalKind::Timeout, "time ran out"));
                self.note(process, invoked_ns, outcome, Action::Send(vec![record]));
            } else {
                self.producers[number].again = Some((record, invoked_ns));
            }
            return;
        };
        let acked = Some(Place { partition: record.log.partition, offset });
        self.note(process, invoked_ns, Outcome::Ok, Action::Send(vec![SentRecord { acked, ..record }]));
    }

    fn draw_record(&mut self, number: usize) -> Option<(SentRecord, u64)> {
        let log = self.any_log()?;
        let facts = &self.topics[&log.topic];
        let (compacts, partitions) = (facts.cleanup.compacts(), facts.partitions);
        let invoked_ns = self.invoked_ns(self.producers[number].invoked_ns);
        let producer = &mut self.producers[number];
        producer.invoked_ns = invoked_ns;
        let id = RecordId { producer: number as u32, counter: producer.counter };
        producer.counter += 1;
        let rng = &mut self.rng;
        // Keys lead to one partition.
        let key = rng.u32(..20) * partitions + log.partition;
        let record = SentRecord {
            log,
            id,
            key,
            is_tombstone: compacts && rng.u8(..8) == 0,
            bytes: rng.u32(..2_000),
            timestamp_ms: wall_ms(invoked_ns) - rng.i64(0..50),
            acked: None,
        };
        Some((record, invoked_ns))
    }

    // Readers.

    fn new_reader(&mut self) {
        let Some(log) = self.any_log() else { return };
        let process = self.next_reader;
        self.next_reader += 1;
        // Final reader and administrator have numbers of their own.
        if self.next_reader == ADMINISTRATOR {
            self.next_reader = FINAL_READER + 1;
        }
        let answered_ns = self.now_ns;
        self.readers.insert(process, ModelReader { log, position: None, answered_ns });
    }

    fn poll(&mut self) {
        let readers: Vec<u32> = self.readers.keys().copied().collect();
        let Some(&process) = readers.get(self.rng.usize(..readers.len().max(1))) else {
            return self.new_reader();
        };
        let reader = &self.readers[&process];
        let (log, position, free_ns) = (reader.log, reader.position, reader.answered_ns);
        if free_ns > self.now_ns {
            return;
        }
        let invoked_ns = self.invoked_ns(free_ns);
        let most = self.rng.usize(1..60);
        match self.read(log, position, most) {
            Ok(poll) => {
                let after = poll.records.last().map(|record| record.offset + 1).or(position);
                let answered_ns = self.note(process, invoked_ns, Outcome::Ok, Action::Poll(vec![poll]));
                let reader = self.readers.get_mut(&process).expect("found before");
                (reader.position, reader.answered_ns) = (after, answered_ns);
                if self.rng.u8(..40) > 0 {
                    return;
                }
            }
            Err(kind) => {
                let poll = Poll { log, position, ..Poll::default() };
                let outcome = Outcome::Fail(Refusal::new(kind, "not there"));
                self.note(process, invoked_ns, outcome, Action::Poll(vec![poll]));
            }
        }
        self.readers.remove(&process);
        self.new_reader();
    }

    fn read(&mut self, id: LogId, position: Option<u64>, most: usize) -> Result<Poll, RefusalKind> {
        let log = self.logs.get(&id).ok_or(RefusalKind::UnknownTopic)?;
        let from = position.unwrap_or(log.start);
        if from < log.start {
            return Err(RefusalKind::OutOfRange);
        }
        let records = log.records.range(from..).take(most).map(|(offset, kept)| ReadRecord {
            offset: *offset,
            timestamp_ms: kept.timestamp_ms,
            content: Content::Record { id: kept.id, key: kept.key, is_tombstone: kept.is_tombstone },
        });
        Ok(Poll { log: id, position, high_watermark: Some(log.end), records: records.collect() })
    }

    // The administrator.

    fn list_offsets(&mut self) {
        let Some(id) = self.any_log() else { return };
        let asked_ms = wall_ms(self.now_ns) - self.rng.i64(-100..20_000);
        let query = match self.rng.u8(..5) {
            0 => OffsetQuery::Earliest,
            1 => OffsetQuery::Timestamp(asked_ms),
            2 => OffsetQuery::MaxTimestamp,
            _ => OffsetQuery::Latest,
        };
        let answer = self.logs[&id].answer(query);
        self.administer(Outcome::Ok, Action::ListOffsets { log: id, query, answer: Some(answer) });
    }

    fn delete_records(&mut self) {
        let Some(log) = self.any_log().filter(|_| self.settings.removes) else { return };
        let (start, end) = (self.logs[&log].start, self.logs[&log].end);
        let before_offset = match self.rng.u8(..10) {
            0 => end + self.rng.u64(1..10),
            1 => self.rng.u64(0..=start),
            _ => self.rng.u64(start..=end.min(start + 30)),
        };
        if before_offset > end {
            let outcome = Outcome::Fail(Refusal::new(RefusalKind::OutOfRange, "beyond the end"));
            return self.administer(outcome, Action::DeleteRecords { log, before_offset, log_start: None });
        }
        let gives_up = self.gives_up();
        if !gives_up || self.rng.bool() {
            self.logs.get_mut(&log).expect("found before").start_at(before_offset);
        }
        let outcome = match gives_up {
            true => Outcome::Info(Refusal::new(RefusalKind::Timeout, "time ran out")),
            false => Outcome::Ok,
        };
        let log_start = Some(self.logs[&log].start).filter(|_| !gives_up);
        self.administer(outcome, Action::DeleteRecords { log, before_offset, log_start });
    }

    fn create_topic(&mut self) {
        if self.topics.len() >= 5 {
            return;
        }
        let topic = self.next_topic;
        self.next_topic += 1;
        let rng = &mut self.rng;
        let removes = self.settings.removes;
        let cleanup = match rng.u8(..4) {
            0 if removes => Cleanup::Compact,
            1 if removes => Cleanup::CompactAndDelete,
            _ => Cleanup::Delete,
        };
        let facts = Topic {
            topic,
            name: format!("topic {}", topic % 7),
            partitions: rng.u32(1..4),
            cleanup,
            retention_ms: (removes && rng.bool()).then(|| rng.u64(1..20_000)),
            retention_bytes: (removes && rng.u8(..4) == 0).then(|| rng.u64(1..100_000)),
            delete_retention_ms: rng.u64(0..5_000),
            ..Topic::default()
        };
        if self.topics.values().any(|other| other.name == facts.name) {
            let outcome = Outcome::Fail(Refusal::new(RefusalKind::TopicExists, "it exists"));
            return self.administer(outcome, Action::CreateTopic(facts));
        }
        self.administer(Outcome::Ok, Action::CreateTopic(facts.clone()));
        // Nobody knows of it before.
        self.now_ns = self.now_ns.max(self.administrator_ns) + 1;
        for partition in 0..facts.partitions {
            self.logs.insert(LogId { topic, partition }, ModelLog::default());
        }
        self.topics.insert(topic, facts);
    }

    /// A topic is kept for shorter, or longer.
    fn alter_topic(&mut self) {
        let Some(log) = self.any_log().filter(|_| self.settings.removes) else { return };
        let retention_ms = Some(self.rng.u64(1..30_000));
        let facts = Topic { retention_ms, ..self.topics[&log.topic].clone() };
        self.topics.insert(log.topic, facts.clone());
        self.administer(Outcome::Ok, Action::AlterTopic(facts));
    }

    fn delete_topic(&mut self) {
        if self.topics.len() < 2 || !self.settings.removes {
            return;
        }
        let Some(LogId { topic, .. }) = self.any_log() else { return };
        self.topics.remove(&topic);
        self.logs.retain(|log, _| log.topic != topic);
        self.administer(Outcome::Ok, Action::DeleteTopic { topic });
    }

    /// Something is asked of a topic that is no more.
    fn refuse(&mut self) {
        let gone = (0..self.next_topic).find(|topic| !self.topics.contains_key(topic));
        let Some(topic) = gone else { return };
        let log = LogId { topic, partition: 0 };
        let outcome = Outcome::Fail(Refusal::new(RefusalKind::UnknownTopic, "no such topic"));
        self.administer(outcome, Action::ListOffsets { log, query: OffsetQuery::Latest, answer: None });
    }

    // The broker.

    /// Records go that need not be kept.
    fn remove(&mut self) {
        let Some(id) = self.any_log().filter(|_| self.settings.removes) else { return };
        let facts = &self.topics[&id.topic];
        let log = self.logs.get_mut(&id).expect("a log of the model");
        let now_ms = wall_ms(self.now_ns);
        if facts.cleanup.deletes() {
            log.expire(facts, now_ms);
        }
        if facts.cleanup.compacts() {
            log.compact(facts, now_ms, &mut self.rng);
        }
    }

    fn crash(&mut self) {
        let down_ns = self.now_ns;
        self.now_ns += self.rng.u64(1..50_000_000);
        self.history.operations.push(Operation {
            process: ADMINISTRATOR + 2_000,
            invoked_ns: down_ns,
            completed_ns: Some(self.now_ns),
            outcome: Outcome::Ok,
            is_final: false,
            action: Action::Crash,
        });
    }

    fn any_log(&mut self) -> Option<LogId> {
        let logs: Vec<LogId> = self.logs.keys().copied().collect();
        (!logs.is_empty()).then(|| logs[self.rng.usize(..logs.len())])
    }

    /// Everything sent is answered, everything kept is read.
    fn end(&mut self) {
        while self.producers.iter().any(|producer| producer.again.is_some()) {
            self.now_ns += 1_000_000;
            let waiting = self.producers.iter().position(|producer| producer.again.is_some());
            let Some((record, invoked_ns)) = waiting.and_then(|number| self.producers[number].again.take())
            else {
                break;
            };
            self.settle(record, invoked_ns);
        }
        // Whatever is still on its way has arrived.
        self.now_ns = self.now_ns.max(self.administrator_ns) + WAY_NS_MAX;
        for log in self.logs.keys().copied().collect::<Vec<_>>() {
            for query in [OffsetQuery::Earliest, OffsetQuery::Latest] {
                self.now_ns += WAY_NS_MAX;
                let (now_ns, answer) = (self.now_ns, Some(self.logs[&log].answer(query)));
                self.note(FINAL_READER, now_ns, Outcome::Ok, Action::ListOffsets { log, query, answer });
            }
            let mut position = None;
            loop {
                self.now_ns += WAY_NS_MAX;
                let now_ns = self.now_ns;
                let poll = self.read(log, position, 100).expect("nothing is removed any more");
                let last = poll.records.last().map(|record| record.offset + 1);
                self.note(FINAL_READER, now_ns, Outcome::Ok, Action::Poll(vec![poll]));
                let Some(next) = last else { break };
                position = Some(next);
            }
        }
        self.now_ns += WAY_NS_MAX;
        let now_ns = self.now_ns;
        self.note(FINAL_READER, now_ns, Outcome::Ok, Action::Rest);
    }

    /// The last attempt of a record succeeds.
    fn settle(&mut self, record: SentRecord, invoked_ns: u64) {
        let process = record.id.producer;
        let Some(log) = self.logs.get_mut(&record.log) else {
            let outcome = Outcome::Info(Refusal::new(RefusalKind::UnknownTopic, "no such topic"));
            self.note(process, invoked_ns, outcome, Action::Send(vec![record]));
            return;
        };
        let stands_at = log.find(record.id).filter(|_| self.settings.idempotent);
        let kept = Kept {
            id: record.id,
            key: record.key,
            is_tombstone: record.is_tombstone,
            timestamp_ms: record.timestamp_ms,
            sent_ms: wall_ms(invoked_ns),
            bytes: u64::from(record.bytes),
        };
        let offset = stands_at.unwrap_or_else(|| log.append(kept, wall_ms(self.now_ns)));
        let acked = Some(Place { partition: record.log.partition, offset });
        self.note(process, invoked_ns, Outcome::Ok, Action::Send(vec![SentRecord { acked, ..record }]));
    }
}

/// The wall clock at a moment of the run.
fn wall_ms(moment_ns: u64) -> i64 {
    EPOCH_MS + i64::try_from(moment_ns / 1_000_000).expect("a model run is short")
}

/// An answer without a time.
fn bare(offset: u64) -> OffsetAnswer {
    OffsetAnswer { offset, timestamp_ms: None }
}
