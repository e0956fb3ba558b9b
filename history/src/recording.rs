//! A history in the making: operations begin, and later are over.
//!
//! Whoever records brings the clock. Operations stand in the history in the order in which they were over; those that
//! never were come last.

use std::collections::BTreeMap;

use crate::history::History;
use crate::operation::{Action, Operation, Outcome, Refusal, RefusalKind};

/// See the module.
#[derive(Clone, Debug, Default)]
pub struct Recording {
    history: History,
    /// Operations that are not over, by the number of their beginning.
    open: BTreeMap<u64, Operation>,
    begun: u64,
}

/// An operation that was begun.
#[derive(Debug)]
#[must_use = "an operation that is not completed counts as never answered"]
pub struct Begun(u64);

impl Recording {
    /// Goes on with this history.
    pub fn new(history: History) -> Recording {
        Recording { history, ..Recording::default() }
    }

    /// An operation begins now. `is_final`: it is part of the final reading.
    pub fn begin(&mut self, now_ns: u64, process: u32, is_final: bool, action: Action) -> Begun {
        let outcome = Outcome::Info(Refusal::new(RefusalKind::Other, "no answer"));
        let operation =
            Operation { process, invoked_ns: now_ns, completed_ns: None, outcome, is_final, action };
        self.begun += 1;
        self.open.insert(self.begun, operation);
        Begun(self.begun)
    }

    /// It is over now; `answer` puts what was answered into the action.
    ///
    /// # Panics
    /// If it was begun in another recording.
    pub fn complete(
        &mut self,
        now_ns: u64,
        begun: Begun,
        outcome: Outcome,
        answer: impl FnOnce(&mut Action),
    ) -> &Operation {
        let mut operation = self.open.remove(&begun.0).expect("what was begun here is open");
        operation.completed_ns = Some(now_ns);
        operation.outcome = outcome;
        answer(&mut operation.action);
        self.note(operation)
    }

    /// Adds an operation that is over.
    pub fn note(&mut self, operation: Operation) -> &Operation {
        self.history.operations.push(operation);
        self.history.operations.last().expect("just added")
    }

    /// What has happened so far.
    pub fn history(&self) -> &History {
        &self.history
    }

    /// Facts that became known only now.
    pub fn history_mut(&mut self) -> &mut History {
        &mut self.history
    }

    /// The whole history: whatever is open was never answered.
    pub fn finish(mut self) -> History {
        self.history.operations.extend(self.open.into_values());
        self.history
    }
}
