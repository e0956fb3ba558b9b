//! Gives what removed files held back to the drive, a little at a time.
//!
//! A file system that tells its drive of freed blocks at once (ext4 mounted with `discard`) keeps the drive from
//! everything else meanwhile: 64 MiB took 10 ms where this was measured, and appends waited as long for their flush. So
//! a file that has lost its name is held open and shortened step by step. A crash ends that, and the blocks are free.
//!
//! The loss of the name is durable before the first step: else a crash could bring the name back, for a file that is
//! shorter than what stood there.

use std::cell::Cell;
use std::io;
use std::rc::Rc;
use std::time::Duration;

use corrente_runtime::executor::{Queue, spawn_in};
use corrente_runtime::file::File;
use corrente_runtime::sync::Budget;
use corrente_runtime::timer::sleep;

use crate::drives::Drive;

/// What is given back in one step.
const STEP_BYTES: u64 = 1 << 20;

/// Between two steps: so they take a tenth of the drive's time, where each takes half a millisecond.
const PAUSE: Duration = Duration::from_millis(5);

/// Files that may wait for their turn, each with its descriptor; further ones go in one step.
const WAITING_MAX: usize = 256;

/// The files that one shard gives back to one drive, one after the other.
#[derive(Debug)]
pub(crate) struct Releases {
    turn: Budget,
    waiting: Cell<usize>,
}

impl Releases {
    pub(crate) fn new() -> Releases {
        Releases { turn: Budget::new(1), waiting: Cell::new(0) }
    }
}

impl Drive {
    /// Takes over a file of `len` bytes, of which no directory of a log holds the name any more, durably; cuts it down
    /// to `kept`, and then does what is to be done `after`. Readers that still have it open meet its end.
    pub(crate) fn release(self: &Rc<Self>, file: File, len: u64, kept: u64, after: impl FnOnce() + 'static) {
        let drive = self.clone();
        let waiting = &self.releases.waiting;
        waiting.set(waiting.get() + 1);
        let at_once = waiting.get() > WAITING_MAX;
        spawn_in(Queue::Background, async move {
            let turn = drive.releases.turn.acquire(1).await;
            let shortened = drive.shorten(&file, len, kept, at_once).await;
            drive.releases.waiting.set(drive.releases.waiting.get() - 1);
            drop(turn);
            match shortened {
                Ok(()) => after(),
                Err(error) => {
                    tracing::warn!(%error, "a removed file could not be cut down; it is not used again")
                }
            }
        })
        .detach();
    }

    async fn shorten(&self, file: &File, mut len: u64, kept: u64, at_once: bool) -> io::Result<()> {
        while len > kept {
            // Who waits for room waits for more than a flush.
            let step_bytes = if at_once || !self.take_if_plenty(0) { u64::MAX } else { STEP_BYTES };
            len = len.saturating_sub(step_bytes).max(kept);
            file.set_len(len).await?;
            if len > kept {
                sleep(PAUSE).await;
            }
        }
        Ok(())
    }
}
