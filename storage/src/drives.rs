//! The data directories as one shard sees them: how much room each has above its reserve, and whether it has failed.
//!
//! The reserve is what appends leave alone, so that there is room for deleting: metadata, log starts, checkpoints.
//! Room is looked up from the file system now and then and counted down in between. Whoever would be refused has it
//! looked up first, so appends go on as soon as there is room again.

use std::cell::{Cell, RefCell};
use std::io;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use corrente_runtime::executor::{Queue, spawn_in};
use corrente_runtime::file::{self, Space};
use corrente_runtime::sync::Budget;
use corrente_runtime::timer::{self, Instant};

use crate::error::{AtPath, PathError};
use crate::release::Releases;

/// The reserve where none is set: this, or a twentieth of the file system where that is less.
const RESERVE_DEFAULT: u64 = 1 << 30;
/// What a look found is believed for so long.
const FRESH: Duration = Duration::from_secs(1);
/// Whoever is refused has room looked up again only if the last look is older than this.
const STALE: Duration = Duration::from_millis(100);
/// Once this part of the room has been taken, it is looked up again: others write to the same drive.
const PART_TAKEN: u64 = 16;

/// What is known of a data directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DriveState {
    /// The data directory.
    pub path: PathBuf,
    /// Its file system, as last looked at; none if it could not be.
    pub space: Option<Space>,
    /// What appends leave alone, in bytes.
    pub reserve_bytes: u64,
    /// Whether appends are refused for want of room.
    pub refuses_appends: bool,
    /// Why nothing new is put there, if a write to it has failed.
    pub failed: Option<Arc<str>>,
}

/// The drive has too little room for an append.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Full {
    pub(crate) dir: Arc<str>,
    pub(crate) available: u64,
    pub(crate) reserve: u64,
}

/// One data directory.
#[derive(Debug)]
pub(crate) struct Drive {
    path: PathBuf,
    reserve_set: Option<u64>,
    /// What was found when it was last looked at, and when; none before the first time.
    seen: Cell<Option<(Space, Instant)>>,
    /// Bytes that appends and space made ready have taken since.
    taken: Cell<u64>,
    /// The length of the append that was refused last; 0 once there is room for it.
    refused: Cell<u64>,
    /// Held by the one who looks.
    looking: Budget,
    failed: RefCell<Option<Arc<str>>>,
    /// What is removed from it.
    pub(crate) releases: Releases,
}

impl Drive {
    pub(crate) fn new(path: PathBuf, reserve_set: Option<u64>) -> Rc<Drive> {
        Rc::new(Drive {
            path,
            reserve_set,
            seen: Cell::new(None),
            taken: Cell::new(0),
            refused: Cell::new(0),
            looking: Budget::new(1),
            failed: RefCell::new(None),
            releases: Releases::new(),
        })
    }

    /// The data directory.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Takes room for `len` bytes, which nobody gives back: the next look counts them.
    pub(crate) async fn take(self: &Rc<Self>, len: u64) -> Result<(), Full> {
        if !self.has_room(len) {
            self.look_again(STALE).await;
            if !self.has_room(len) {
                return Err(self.full());
            }
        }
        self.taken.set(self.taken.get() + len);
        if self.should_look() {
            let drive = self.clone();
            spawn_in(Queue::Background, async move { drive.look_again(FRESH / 2).await }).detach();
        }
        Ok(())
    }

    /// Takes note that an append was refused. The operator is told of the first, and when there is room again.
    pub(crate) fn note_refusal(&self, len: u64) {
        if self.refused.replace(len) == 0 && self.seen.get().is_some() {
            let Full { dir, available, reserve } = self.full();
            tracing::warn!(%dir, available, reserve, "the drive is down to its reserve: appends are refused");
        }
    }

    /// Takes room if there is plenty of it: for what only saves time.
    pub(crate) fn take_if_plenty(&self, len: u64) -> bool {
        let plenty = self.seen.get().is_some() && self.room() > len + 2 * self.reserve();
        if plenty {
            self.taken.set(self.taken.get() + len);
        }
        plenty
    }

    /// Whether an append could be made, by a fresh look.
    pub(crate) async fn is_open(&self) -> bool {
        self.look_again(STALE).await;
        self.failed.borrow().is_none() && self.has_room(1)
    }

    /// Bytes above the reserve, by the last look; all there could be before the first one.
    fn room(&self) -> u64 {
        let available = self.seen.get().map_or(u64::MAX, |(space, _)| space.available_bytes);
        available.saturating_sub(self.taken.get()).saturating_sub(self.reserve())
    }

    fn has_room(&self, len: u64) -> bool {
        self.seen.get().is_some() && self.room() >= len
    }

    fn should_look(&self) -> bool {
        let Some((_, at)) = self.seen.get() else { return true };
        timer::now() - at >= FRESH || self.taken.get() >= self.room() / PART_TAKEN
    }

    fn reserve(&self) -> u64 {
        let total = self.seen.get().map_or(0, |(space, _)| space.total_bytes);
        self.reserve_set.unwrap_or(RESERVE_DEFAULT.min(total / 20))
    }

    /// Looks unless somebody else has since `older_than` ago. A file system that does not answer keeps what was known.
    async fn look_again(&self, older_than: Duration) {
        let _turn = self.looking.acquire(1).await;
        if self.seen.get().is_some_and(|(_, at)| timer::now() - at < older_than) {
            return;
        }
        if let Err(error) = self.look().await {
            tracing::warn!(dir = %self.path.display(), %error, "the room of the drive could not be looked up");
        }
    }

    /// Looks, unless that was done just now. A failed drive is left alone: it may never answer.
    pub(crate) async fn look_lately(&self) {
        if !self.has_failed() {
            self.look_again(FRESH).await;
        }
    }

    /// Looks now.
    pub(crate) async fn look(&self) -> Result<(), PathError> {
        let space = file::space(&self.path).await.at(&self.path)?;
        self.seen.set(Some((space, timer::now())));
        self.taken.set(0);
        if self.refused.get() > 0 && self.has_room(self.refused.get()) {
            self.refused.set(0);
            tracing::info!(dir = %self.path.display(), "the drive has room again: appends go on");
        }
        Ok(())
    }

    /// Nothing new is put here from now on.
    pub(crate) fn fail(&self, reason: &str) {
        self.failed.borrow_mut().get_or_insert_with(|| {
            tracing::error!(dir = %self.path.display(), reason, "the drive has failed: nothing new is put there");
            Arc::from(reason)
        });
    }

    /// Takes an error to heart that tells of a failed drive.
    pub(crate) fn learn_from(&self, error: &io::Error) {
        if tells_of_a_failed_drive(error) {
            self.fail(&error.to_string());
        }
    }

    pub(crate) fn has_failed(&self) -> bool {
        self.failed.borrow().is_some()
    }

    pub(crate) fn state(&self) -> DriveState {
        DriveState {
            path: self.path.clone(),
            space: self.seen.get().map(|(space, _)| space),
            reserve_bytes: self.reserve(),
            refuses_appends: self.refused.get() > 0,
            failed: self.failed.borrow().clone(),
        }
    }

    pub(crate) fn full(&self) -> Full {
        let available = self.seen.get().map_or(0, |(space, _)| space.available_bytes);
        let available = available.saturating_sub(self.taken.get());
        Full { dir: self.path.to_string_lossy().into(), available, reserve: self.reserve() }
    }
}

/// Whether the drive itself is the trouble, and not a name, a right, the room, or what this process may have.
pub(crate) fn tells_of_a_failed_drive(error: &io::Error) -> bool {
    /// EIO, ENXIO, ENODEV, EROFS, ETIMEDOUT, EREMOTEIO, ENODATA, EBADMSG, EUCLEAN, ESHUTDOWN.
    const OF_THE_DRIVE: [i32; 10] = [5, 6, 19, 30, 110, 121, 61, 74, 117, 108];
    match error.raw_os_error() {
        Some(code) => OF_THE_DRIVE.contains(&code),
        None => matches!(error.kind(), io::ErrorKind::ReadOnlyFilesystem | io::ErrorKind::TimedOut),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_drive_s_error_is_told_from_ours() {
        assert!(tells_of_a_failed_drive(&io::Error::from_raw_os_error(5)));
        assert!(tells_of_a_failed_drive(&io::ErrorKind::ReadOnlyFilesystem.into()));
        for ours in [2, 13, 17, 24, 28] {
            assert!(!tells_of_a_failed_drive(&io::Error::from_raw_os_error(ours)), "{ours}");
        }
    }
}
