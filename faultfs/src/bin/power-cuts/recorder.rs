//! The history of a run in the making, on the clock that the disk's recorder uses.

use std::fs::File;
use std::io::{BufReader, BufWriter, Write};
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result};
use corrente_faultfs::clock::now_ns;
use corrente_history::{Action, Begun, Header, History, Operation, Outcome, Recording};

/// Writes down what clients do and are told, from any thread.
pub struct Recorder {
    state: Mutex<Recording>,
    epoch_ms: i64,
}

impl Recorder {
    /// An empty history. `run` is the command that repeats the campaign.
    pub fn new(run: String) -> Result<Recorder> {
        let wall = SystemTime::now().duration_since(UNIX_EPOCH).context("a clock before 1970")?;
        let epoch_ms = i64::try_from(wall.as_millis())? - i64::try_from(now_ns() / 1_000_000)?;
        let header = Header { run, epoch_ms, idempotent: true, in_order: true, ..Header::default() };
        Ok(Recorder { state: Mutex::new(Recording::new(History::new(header))), epoch_ms })
    }

    /// The wall clock by the recorder's, in ms since 1970.
    pub fn wall_ms(&self) -> i64 {
        self.epoch_ms.saturating_add(i64::try_from(now_ns() / 1_000_000).unwrap_or(i64::MAX))
    }

    /// An operation is about to begin.
    pub fn begin(&self, process: u32, action: Action) -> Begun {
        self.state().begin(now_ns(), process, false, action)
    }

    /// It is over; `answer` puts what was answered into the action.
    pub fn complete(&self, begun: Begun, outcome: Outcome, answer: impl FnOnce(&mut Action)) {
        // The clock is read under the lock, so that the history is in its order.
        let mut state = self.state();
        let _ = state.complete(now_ns(), begun, outcome, answer);
    }

    /// Something is over that may have looked at the broker since `invoked_ns`.
    pub fn note(&self, process: u32, invoked_ns: u64, outcome: Outcome, action: Action) {
        let mut state = self.state();
        let completed_ns = Some(now_ns());
        let operation = Operation { process, invoked_ns, completed_ns, outcome, is_final: false, action };
        let _ = state.note(operation);
    }

    /// Writes the history down; whatever is open was never answered. All clients must have ended.
    pub fn finish(&self, path: &Path) -> Result<()> {
        let history = std::mem::take(&mut *self.state()).finish();
        let mut file =
            BufWriter::new(File::create(path).with_context(|| format!("creating {}", path.display()))?);
        for line in history.lines() {
            writeln!(file, "{line}")?;
        }
        Ok(file.flush()?)
    }

    fn state(&self) -> MutexGuard<'_, Recording> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Reads a history that was written down.
pub fn read(path: &Path) -> Result<History> {
    let file = File::open(path).with_context(|| format!("opening {}", path.display()))?;
    History::read(BufReader::new(file)).with_context(|| format!("reading {}", path.display()))
}
