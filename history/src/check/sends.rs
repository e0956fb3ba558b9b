//! Every record that was sent, found by its id.

use std::collections::BTreeMap;

use crate::content::RecordId;
use crate::history::History;
use crate::operation::{Action, Operation, SentRecord};

/// A record that was sent, and the operation that did it.
#[derive(Clone, Copy)]
pub(crate) struct Send<'a> {
    pub(crate) record: &'a SentRecord,
    pub(crate) by: &'a Operation,
    pub(crate) operation: u32,
}

/// All of them, by id. An index into them names one in few bytes.
pub(crate) struct Sends<'a> {
    all: Vec<Send<'a>>,
    /// For each producer where its records begin and end.
    of_producer: BTreeMap<u32, (usize, usize)>,
}

impl<'a> Sends<'a> {
    pub(crate) fn of(history: &'a History) -> Sends<'a> {
        let mut all: Vec<Send<'a>> = Vec::new();
        for (operation, by) in (0..).zip(&history.operations) {
            if let Action::Send(records) = &by.action {
                all.extend(records.iter().map(|record| Send { record, by, operation }));
            }
        }
        all.sort_unstable_by_key(|send| (send.record.id, send.operation));
        let mut of_producer: BTreeMap<u32, (usize, usize)> = BTreeMap::new();
        for (index, send) in all.iter().enumerate() {
            let range = of_producer.entry(send.record.id.producer).or_insert((index, index));
            range.1 = index + 1;
        }
        Sends { all, of_producer }
    }

    /// Two operations that sent the same record, if there are any.
    pub(crate) fn ambiguous(&self) -> Option<(Send<'a>, Send<'a>)> {
        let pair = self.all.windows(2).find(|pair| pair[0].record.id == pair[1].record.id)?;
        Some((pair[0], pair[1]))
    }

    pub(crate) fn find(&self, id: RecordId) -> Option<u32> {
        let (start, end) = *self.of_producer.get(&id.producer)?;
        let range = &self.all[start..end];
        // Counters usually have no gaps: then the place follows from the number.
        let guess = id.counter.checked_sub(range[0].record.id.counter)? as usize;
        let within = match range.get(guess) {
            Some(send) if send.record.id == id => guess,
            _ => range.binary_search_by_key(&id, |send| send.record.id).ok()?,
        };
        u32::try_from(start + within).ok()
    }

    pub(crate) fn get(&self, index: u32) -> Send<'a> {
        self.all[index as usize]
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (u32, Send<'a>)> + '_ {
        (0..).zip(self.all.iter().copied())
    }

    pub(crate) fn len(&self) -> usize {
        self.all.len()
    }
}
