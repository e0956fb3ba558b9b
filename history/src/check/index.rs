//! A history made ready for questions: who sent what, what stands where, what was known when.

use std::collections::BTreeMap;

use super::Findings;
use super::log::{LastTold, Log, Observation, StartTold, Witness};
use super::sends::{Send, Sends};
use super::topic_life::TopicLife;
use crate::class::Class;
use crate::content::Content;
use crate::history::History;
use crate::line;
use crate::operation::{Action, LogId, OffsetQuery, Operation, Outcome, Poll, ReadRecord};

/// The index of a history.
pub(crate) struct Index<'a> {
    pub(crate) history: &'a History,
    pub(crate) sends: Sends<'a>,
    pub(crate) topics: BTreeMap<u32, TopicLife<'a>>,
    pub(crate) logs: BTreeMap<LogId, Log>,
    /// When the last operation was over.
    pub(crate) over_ns: u64,
    /// Whether the run says that it came to its end in good order, its final reading done.
    pub(crate) came_to_rest: bool,
}

impl<'a> Index<'a> {
    pub(crate) fn build(history: &'a History, findings: &mut Findings) -> Index<'a> {
        let sends = Sends::of(history);
        if let Some((first, second)) = sends.ambiguous() {
            let (id, first, second) = (first.record.id, first.operation, second.operation);
            panic!("record {id} was sent twice, in lines {} and {}", line_of(first), line_of(second));
        }
        findings.judged.sent = sends.len() as u64;
        findings.judged.operations = history.operations.len() as u64;
        let mut index = Index {
            topics: TopicLife::all_of(history),
            logs: BTreeMap::new(),
            over_ns: history
                .operations
                .iter()
                .filter_map(|operation| operation.completed_ns)
                .max()
                .unwrap_or(0),
            came_to_rest: history
                .operations
                .iter()
                .any(|operation| operation.action == Action::Rest && operation.is_ok()),
            sends,
            history,
        };
        for (number, operation) in (0..).zip(&history.operations) {
            index.take(number, operation, findings);
        }
        for (send, Send { record, by, .. }) in index.sends.iter() {
            if matches!(by.outcome, Outcome::Info(_)) {
                index.logs.entry(record.log).or_default().in_doubt.push(send);
            }
        }
        index.logs.values_mut().for_each(Log::settle);
        index
    }

    fn take(&mut self, number: u32, operation: &Operation, findings: &mut Findings) {
        match &operation.action {
            Action::Send(records) => {
                for record in records {
                    let Some(place) = record.acked else { continue };
                    findings.judged.acked += 1;
                    let send = self.sends.find(record.id).expect("indexed before");
                    let log = self.log(LogId { topic: record.log.topic, partition: place.partition });
                    let (offset, over_ns) = (place.offset, operation.over_ns());
                    let timestamp_ms = record.timestamp_ms;
                    let by = Witness::Ack;
                    log.observations.push(Observation { offset, send, operation: number, by, timestamp_ms });
                    log.ends.see(over_ns, offset.saturating_add(1), number);
                    log.acked_ends.see(over_ns, offset.saturating_add(1), number);
                }
            }
            Action::Poll(polls) => {
                polls.iter().for_each(|poll| self.take_poll(number, operation, poll, findings));
            }
            Action::ListOffsets { log, query, answer: Some(answer) } => {
                self.take_answer(number, operation, *log, *query, answer.offset);
            }
            Action::DeleteRecords { log, before_offset, log_start } if !operation.has_failed() => {
                let log = self.log(*log);
                log.deletions.see(operation.invoked_ns, *before_offset, number);
                if let Some(start) = *log_start {
                    let (invoked_ns, over_ns) = (operation.invoked_ns, operation.over_ns());
                    log.starts.see(over_ns, start, number);
                    log.starts_told.push(StartTold { invoked_ns, over_ns, start, operation: number });
                }
            }
            Action::Crash => findings.judged.crashes += 1,
            Action::DeleteRecords { .. }
            | Action::ListOffsets { .. }
            | Action::CreateTopic(_)
            | Action::AlterTopic(_)
            | Action::DeleteTopic { .. }
            | Action::Rest => {}
        }
    }

    fn take_poll(&mut self, number: u32, operation: &Operation, poll: &Poll, findings: &mut Findings) {
        let by = if operation.is_final { Witness::FinalReader } else { Witness::Reader };
        for record in &poll.records {
            if by == Witness::Reader {
                findings.judged.read_during += 1;
            }
            if let Some(send) = self.identify(number, operation, poll.log, record, findings) {
                let ReadRecord { offset, timestamp_ms, .. } = *record;
                let observation = Observation { offset, send, operation: number, by, timestamp_ms };
                self.log(poll.log).observations.push(observation);
            }
        }
        let over_ns = operation.over_ns();
        let log = self.log(poll.log);
        let after = poll.records.iter().map(|record| record.offset.saturating_add(1)).max();
        if let Some(after) = after {
            log.ends.see(over_ns, after, number);
        }
        if let Some(end) = poll.high_watermark {
            log.ends.see(over_ns, end, number);
        }
        if operation.is_final {
            log.last.reached = log.last.reached.max(after).max(poll.position);
        }
    }

    /// Which of the records sent this is; none and a finding, if it is none of them.
    fn identify(
        &self,
        number: u32,
        operation: &Operation,
        log: LogId,
        found: &ReadRecord,
        findings: &mut Findings,
    ) -> Option<u32> {
        let mut phantom = |what: String| {
            let detail = format!("{} was given {what} at {log}/{}", self.name(number), found.offset);
            findings.report_of(log, Class::Phantom, detail);
        };
        let (id, key, is_tombstone) = match &found.content {
            Content::Corrupt(what) => {
                phantom(what.clone());
                return None;
            }
            Content::Record { id, key, is_tombstone } => (*id, *key, *is_tombstone),
        };
        let Some(index) = self.sends.find(id) else {
            phantom(format!("record {id}, which was not sent,"));
            return None;
        };
        let send = self.sends.get(index);
        let by = || self.name(send.operation);
        if send.record.log.topic != log.topic {
            phantom(format!("record {id}, sent to {} by {},", send.record.log, by()));
            return None;
        }
        if operation.over_ns() < send.by.invoked_ns {
            phantom(format!("record {id} before it was sent by {}", by()));
        }
        if send.record.key != key {
            phantom(format!("record {id} with key {key}, sent with key {} by {}", send.record.key, by()));
        }
        if send.record.is_tombstone != is_tombstone {
            let which = |is_tombstone| if is_tombstone { "a tombstone" } else { "a value" };
            let (found, sent) = (which(is_tombstone), which(send.record.is_tombstone));
            phantom(format!("record {id} as {found}, sent as {sent} by {}", by()));
        }
        // Where the broker stamps records, each copy has a time of its own, and only one of them is known beforehand.
        let is_known = || {
            let stamps = self.topics.get(&log.topic).is_some_and(|life| life.terms().stamps);
            !stamps || send.record.acked.is_some_and(|place| place.offset == found.offset)
        };
        if send.record.timestamp_ms != found.timestamp_ms && is_known() {
            let (found, sent) = (found.timestamp_ms, send.record.timestamp_ms);
            let by = by();
            phantom(format!("record {id} with timestamp {found}, sent or acknowledged with {sent} by {by}"));
        }
        Some(index)
    }

    fn take_answer(
        &mut self,
        number: u32,
        operation: &Operation,
        log: LogId,
        query: OffsetQuery,
        offset: u64,
    ) {
        let (invoked_ns, over_ns) = (operation.invoked_ns, operation.over_ns());
        let is_final = operation.is_final;
        let told = LastTold { invoked_ns, offset, operation: number };
        let log = self.log(log);
        match query {
            OffsetQuery::Earliest => {
                log.starts.see(over_ns, offset, number);
                log.starts_told.push(StartTold { invoked_ns, over_ns, start: offset, operation: number });
                if is_final {
                    log.last.start = log.last.start.max(Some(told));
                }
            }
            OffsetQuery::Latest => {
                log.ends.see(over_ns, offset, number);
                if is_final {
                    log.last.end = log.last.end.max(Some(told));
                }
            }
            OffsetQuery::Timestamp(_) | OffsetQuery::MaxTimestamp => {}
        }
    }

    fn log(&mut self, id: LogId) -> &mut Log {
        self.logs.entry(id).or_default()
    }

    /// How an operation is called in what is said about it.
    pub(crate) fn name(&self, number: u32) -> String {
        let operation = &self.history.operations[number as usize];
        let f = line::name(&operation.action);
        format!("line {} ({f} of process {})", line_of(number), operation.process)
    }

    /// The wall clock at a moment of the run, in ms since 1970.
    pub(crate) fn wall_ms(&self, moment_ns: u64) -> i64 {
        let since = i64::try_from(moment_ns / 1_000_000).unwrap_or(i64::MAX);
        self.history.header.epoch_ms.saturating_add(since)
    }
}

/// The line of an operation in the file: they begin behind the header.
fn line_of(number: u32) -> u64 {
    u64::from(number) + 2
}
