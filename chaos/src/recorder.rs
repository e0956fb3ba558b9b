//! The history of a run in the making: in memory, and line by line in a file.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use corrente_client::{Error, ErrorKind};
use corrente_history::{Action, Begun, Header, History, Operation, Outcome, Recording, Refusal, RefusalKind};

/// Writes down what happens. Clones write into the same history.
#[derive(Clone)]
pub struct Recorder(Arc<Inner>);

struct Inner {
    began: Instant,
    epoch_ms: i64,
    state: Mutex<State>,
}

struct State {
    recording: Recording,
    file: BufWriter<File>,
    /// The first line that could not be written.
    failure: Option<io::Error>,
    processes: u32,
}

impl Recorder {
    /// Begins a history in this file, which is replaced.
    ///
    /// # Errors
    /// If the file cannot be written.
    pub fn create(path: &Path, header: Header) -> io::Result<Recorder> {
        let epoch = SystemTime::now().duration_since(UNIX_EPOCH).map_err(io::Error::other)?;
        let epoch_ms = i64::try_from(epoch.as_millis()).map_err(io::Error::other)?;
        let history = History::new(Header { epoch_ms, ..header });
        let mut file = BufWriter::new(File::create(path)?);
        writeln!(file, "{}", history.header.line())?;
        let state = State { recording: Recording::new(history), file, failure: None, processes: 0 };
        Ok(Recorder(Arc::new(Inner { began: Instant::now(), epoch_ms, state: Mutex::new(state) })))
    }

    /// The clock of the history.
    pub fn now_ns(&self) -> u64 {
        u64::try_from(self.0.began.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }

    /// The wall clock by that clock, in ms since 1970: it does not jump.
    pub fn wall_ms(&self) -> i64 {
        let since = i64::try_from(self.now_ns() / 1_000_000).unwrap_or(i64::MAX);
        self.0.epoch_ms.saturating_add(since)
    }

    /// A process that nobody else is.
    pub fn process(&self) -> u32 {
        let mut state = self.state();
        state.processes += 1;
        state.processes
    }

    /// Notes that an operation begins.
    pub fn begin(&self, process: u32, action: Action) -> Begun {
        self.begin_as(process, false, action)
    }

    /// Notes that an operation of the final reading begins.
    pub fn begin_final(&self, process: u32, action: Action) -> Begun {
        self.begin_as(process, true, action)
    }

    fn begin_as(&self, process: u32, is_final: bool, action: Action) -> Begun {
        // The clock is read under the lock, so that the file is in its order.
        let mut state = self.state();
        state.recording.begin(self.now_ns(), process, is_final, action)
    }

    /// Notes what came of it; `answer` puts what was answered into the action.
    pub fn complete(&self, begun: Begun, outcome: Outcome, answer: impl FnOnce(&mut Action)) {
        let state = &mut *self.state();
        let line = state.recording.complete(self.now_ns(), begun, outcome, answer).line();
        state.write(&line);
    }

    /// Notes an operation that is over now and may have looked at the broker since `invoked_ns`.
    pub fn note(&self, process: u32, invoked_ns: u64, is_final: bool, outcome: Outcome, action: Action) {
        let state = &mut *self.state();
        let completed_ns = Some(self.now_ns());
        let operation = Operation { process, invoked_ns, completed_ns, outcome, is_final, action };
        let line = state.recording.note(operation).line();
        state.write(&line);
    }

    /// Ends the history: whatever is open has no answer.
    ///
    /// # Errors
    /// If any line could not be written.
    pub fn finish(self) -> io::Result<History> {
        let state = &mut *self.state();
        let over = state.recording.history().operations.len();
        let history = std::mem::take(&mut state.recording).finish();
        history.operations[over..].iter().for_each(|operation| state.write(&operation.line()));
        state.failure.take().map_or(Ok(()), Err)?;
        state.file.flush()?;
        Ok(history)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn write(&mut self, line: &str) {
        if let Err(error) = writeln!(self.file, "{line}") {
            self.failure.get_or_insert(error);
        }
    }
}

/// What an error of the SDK says of an operation.
pub fn outcome_of(error: &Error) -> Outcome {
    let kind = match error.kind() {
        ErrorKind::TopicNotFound => RefusalKind::UnknownTopic,
        ErrorKind::TopicAlreadyExists => RefusalKind::TopicExists,
        ErrorKind::OffsetOutOfRange => RefusalKind::OutOfRange,
        ErrorKind::Timeout => RefusalKind::Timeout,
        _ => RefusalKind::Other,
    };
    let refusal = Refusal::new(kind, error.to_string());
    if error.maybe_applied() { Outcome::Info(refusal) } else { Outcome::Fail(refusal) }
}
