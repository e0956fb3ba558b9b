//! Where each leader epoch began in a log: what lets two replicas find the point at which they part.
//!
//! Owns the list of (epoch, first offset) of one log. It follows from the log's batch headers and is only a
//! cache of them. Never truncates a log itself: it says where (KIP-101, KIP-279).

use corrente_protocol::ids::{LeaderEpoch, Offset};

/// One leader epoch and the offset of its first record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EpochStart {
    /// The epoch.
    pub epoch: LeaderEpoch,
    /// The first offset that it wrote, or will write.
    pub start: Offset,
}

/// An epoch and the offset one past its last record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EpochEnd {
    /// The largest epoch in the log that is not above the one asked for.
    pub epoch: LeaderEpoch,
    /// Where it ends, exclusive.
    pub end: Offset,
}

/// The epochs of one log, oldest first. Epochs and starts both grow strictly.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LeaderEpochs {
    entries: Vec<EpochStart>,
}

impl LeaderEpochs {
    /// No epoch yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// The epochs, oldest first.
    pub fn entries(&self) -> &[EpochStart] {
        &self.entries
    }

    /// The newest epoch.
    pub fn latest(&self) -> Option<EpochStart> {
        self.entries.last().copied()
    }

    /// Notes that `epoch` writes from `start` on. The newest epoch again changes nothing.
    ///
    /// # Panics
    ///
    /// If `epoch` or `start` goes back.
    pub fn append(&mut self, epoch: LeaderEpoch, start: Offset) {
        if let Some(latest) = self.latest() {
            if latest.epoch == epoch {
                assert!(latest.start <= start, "epoch {epoch} began at {}, not at {start}", latest.start);
                return;
            }
            assert!(latest.epoch < epoch, "leader epoch goes from {} to {epoch}", latest.epoch);
            assert!(
                latest.start <= start,
                "epoch {epoch} begins at {start}, before epoch {} at {}",
                latest.epoch,
                latest.start
            );
        }
        // An epoch that wrote nothing leaves no trace: no record proves that it was.
        while self.latest().is_some_and(|latest| latest.start == start) {
            self.entries.pop();
        }
        self.entries.push(EpochStart { epoch, start });
        self.invariants();
    }

    /// Forgets what lies at or beyond `end`: the log was cut there.
    pub fn truncate_to(&mut self, end: Offset) {
        self.entries.retain(|entry| entry.start < end);
    }

    /// Forgets what lies below `start`: the log begins there now.
    pub fn truncate_before(&mut self, start: Offset) {
        let below = self.entries.partition_point(|entry| entry.start <= start);
        if below == 0 {
            return;
        }
        self.entries.drain(..below - 1);
        self.entries[0].start = start;
        self.invariants();
    }

    /// Which epoch wrote, or will write, the record at `offset`.
    pub fn epoch_at(&self, offset: Offset) -> Option<LeaderEpoch> {
        let below = self.entries.partition_point(|entry| entry.start <= offset);
        Some(self.entries.get(below.checked_sub(1)?)?.epoch)
    }

    /// Where `epoch` ends in this log, whose end is `log_end`.
    ///
    /// `None` for an epoch newer than all of the log, and for an empty cache: this log cannot tell. For an
    /// epoch that is missing in between, the answer is the nearest older one; for one older than all, an end
    /// at the first offset that is known.
    pub fn end_offset_for(&self, epoch: LeaderEpoch, log_end: Offset) -> Option<EpochEnd> {
        let latest = self.latest()?;
        assert!(
            latest.start <= log_end,
            "epoch {} begins at {}, beyond the log end {log_end}",
            latest.epoch,
            latest.start
        );
        if latest.epoch == epoch {
            return Some(EpochEnd { epoch, end: log_end });
        }
        let not_above = self.entries.partition_point(|entry| entry.epoch <= epoch);
        let next = self.entries.get(not_above)?;
        let found = match not_above.checked_sub(1) {
            Some(floor) => self.entries[floor].epoch,
            None => epoch,
        };
        Some(EpochEnd { epoch: found, end: next.start })
    }

    /// Panics, with both numbers, if the list does not grow.
    pub fn invariants(&self) {
        for pair in self.entries.windows(2) {
            let (older, newer) = (pair[0], pair[1]);
            assert!(older.epoch < newer.epoch, "epoch {} stands before {}", older.epoch, newer.epoch);
            assert!(older.start < newer.start, "epoch start {} stands before {}", older.start, newer.start);
        }
    }
}
