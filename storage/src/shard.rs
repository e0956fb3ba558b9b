//! What the logs of one shard share: settings, the tail ring, read-ahead, the checkpoint.
//!
//! Owns no log; logs hold it, it holds none but those with an open file, and those weakly.

use std::cell::{Cell, OnceCell, RefCell};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::rc::{Rc, Weak};
use std::time::Duration;

use bytes::Bytes;
use corrente_protocol::ids::ShardId;
use corrente_runtime::buffer::AlignedBuf;
use corrente_runtime::executor::{Queue, spawn_in};
use corrente_runtime::timer;

use crate::checkpointer::Checkpointer;
use crate::drives::Drive;
use crate::log::{LogId, LogInner};
use crate::pool::Pool;
use crate::producer_snapshots::ProducerSnapshots;
use crate::read_ahead::ReadAhead;
use crate::tail_ring::TailRing;
use crate::writer;

/// Zeros are written ahead in pieces of this size, so that a data write never waits long behind one.
const ZEROS: usize = 128 * 1024;

/// How one shard keeps its logs. Build with [`StorageConfig::new`].
#[derive(Debug, Clone)]
pub struct StorageConfig {
    /// The data directories of the node, as the layout was opened with; checkpoints lie in the first.
    pub data_dirs: Vec<PathBuf>,
    /// Which shard this is.
    pub shard: ShardId,
    /// Which start of the node this is, from the layout.
    pub generation: u64,
    /// A segment that has reached this size is followed by a new one; the last window may pass it.
    pub segment_bytes: u64,
    /// How many bytes of batches gather while a write is in flight.
    pub window_bytes_max: usize,
    /// The largest single append; it may be larger than a window and is then one by itself.
    pub append_bytes_max: usize,
    /// Memory for the newest windows of all logs.
    pub tail_ring_bytes: usize,
    /// Memory for what catch-up reads have fetched and will want next.
    pub read_ahead_bytes: usize,
    /// The longest time between a flush and the checkpoint that knows of it.
    pub checkpoint_interval: Duration,
    /// Bytes flushed after which a checkpoint is written sooner: about what a recovery scans at most.
    pub checkpoint_bytes: u64,
    /// After this long without an append a log gives up its file and the space ahead.
    pub idle_after: Duration,
    /// Bytes of removed segments kept to be taken into use again.
    pub pool_bytes_max: u64,
    /// How often every log is looked at for what it no longer keeps, or should compact.
    pub upkeep_interval: Duration,
    /// Memory for the keys of the one log that is being compacted.
    pub compaction_bytes: usize,
    /// What is left alone of each data directory's file system: appends are refused rather than take it. By default
    /// 1 GiB, or a twentieth of it where that is less.
    pub reserve_bytes: Option<u64>,
    /// Data directories that could not be used at the start, by their places: nothing is put there.
    pub failed_dirs: Vec<usize>,
}

impl StorageConfig {
    /// The usual settings.
    pub fn new(data_dirs: Vec<PathBuf>, shard: ShardId, generation: u64) -> Self {
        Self {
            data_dirs,
            shard,
            generation,
            segment_bytes: 1024 * 1024 * 1024,
            window_bytes_max: 1024 * 1024,
            append_bytes_max: 16 * 1024 * 1024,
            tail_ring_bytes: 256 * 1024 * 1024,
            read_ahead_bytes: 64 * 1024 * 1024,
            checkpoint_interval: Duration::from_millis(80),
            checkpoint_bytes: 256 * 1024 * 1024,
            idle_after: Duration::from_secs(10),
            pool_bytes_max: 256 * 1024 * 1024,
            upkeep_interval: Duration::from_secs(30),
            compaction_bytes: 32 * 1024 * 1024,
            reserve_bytes: None,
            failed_dirs: Vec::new(),
        }
    }

    /// The most bytes one extent's body can have: a window or a single append.
    pub(crate) fn extent_bytes_max(&self) -> usize {
        self.append_bytes_max.max(self.window_bytes_max)
    }
}

pub(crate) struct Shard {
    pub(crate) config: StorageConfig,
    pub(crate) tail: RefCell<TailRing>,
    pub(crate) read_ahead: ReadAhead,
    pub(crate) pool: Rc<Pool>,
    /// One for each data directory, in their order.
    pub(crate) drives: Vec<Rc<Drive>>,
    pub(crate) checkpointer: Checkpointer,
    pub(crate) producers: ProducerSnapshots,
    /// Logs whose active file is open.
    awake: RefCell<BTreeMap<LogId, Weak<LogInner>>>,
    sweeping: Cell<bool>,
    zeros: OnceCell<Bytes>,
}

impl Shard {
    pub(crate) fn new(config: StorageConfig) -> Rc<Shard> {
        Rc::new(Shard {
            tail: RefCell::new(TailRing::new(config.tail_ring_bytes)),
            read_ahead: ReadAhead::new(config.read_ahead_bytes),
            pool: Rc::new(Pool::new(config.pool_bytes_max)),
            drives: drives(&config),
            checkpointer: Checkpointer::new(&config),
            producers: ProducerSnapshots::new(&config),
            awake: RefCell::new(BTreeMap::new()),
            sweeping: Cell::new(false),
            zeros: OnceCell::new(),
            config,
        })
    }

    /// The drive that a path lies on.
    pub(crate) fn drive_of(&self, path: &Path) -> &Rc<Drive> {
        let around = self.drives.iter().filter(|drive| path.starts_with(drive.path()));
        // One data directory may lie in another.
        around.max_by_key(|drive| drive.path().as_os_str().len()).expect("a log lies in a data directory")
    }

    /// Zeros to write ahead, shared by all logs.
    pub(crate) fn zeros(&self) -> Bytes {
        self.zeros.get_or_init(|| AlignedBuf::zeroed(ZEROS).freeze()).clone()
    }

    /// Takes note of a log whose file was opened, so that it is sent to rest once it has no traffic.
    pub(crate) fn woke(self: &Rc<Self>, log: &Rc<LogInner>) {
        self.awake.borrow_mut().insert(log.id, Rc::downgrade(log));
        self.sweep_later();
    }

    /// Takes note that files are open for reading, so that they are closed once nobody reads.
    pub(crate) fn read_from_disk(self: &Rc<Self>) {
        self.sweep_later();
    }

    fn sweep_later(self: &Rc<Self>) {
        if !self.sweeping.replace(true) {
            spawn_in(Queue::Background, sweep(Rc::downgrade(self), self.config.idle_after / 2)).detach();
        }
    }

    /// Sends every log to rest that has been without traffic; says whether any is left awake.
    fn rest_idle_logs(&self) -> bool {
        let now = timer::now();
        let mut awake = self.awake.borrow_mut();
        awake.retain(|_, log| {
            let Some(log) = log.upgrade() else { return false };
            let idle = now - log.state.borrow().touched >= self.config.idle_after;
            if idle {
                writer::start_resting(log.clone());
            }
            // A log that would not rest, since it writes, stays; one that rests will be noted again.
            log.state.borrow().active.is_some() || log.state.borrow().writing
        });
        !awake.is_empty()
    }
}

fn drives(config: &StorageConfig) -> Vec<Rc<Drive>> {
    let drives: Vec<Rc<Drive>> =
        config.data_dirs.iter().map(|dir| Drive::new(dir.clone(), config.reserve_bytes)).collect();
    for failed in &config.failed_dirs {
        drives[*failed].fail("it could not be used at the start");
    }
    drives
}

/// Runs while any file is open.
async fn sweep(shard: Weak<Shard>, every: Duration) {
    loop {
        timer::sleep(every).await;
        let Some(shard) = shard.upgrade() else { return };
        let logs_awake = shard.rest_idle_logs();
        let files_open = shard.read_ahead.rest(shard.config.idle_after);
        if !logs_awake && !files_open {
            shard.sweeping.set(false);
            return;
        }
    }
}
