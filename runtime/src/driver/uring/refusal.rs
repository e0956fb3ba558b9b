//! Why shards cannot start here, found out before they try and told in one line.

use std::io;

use glommio::{GlommioError, ReactorErrorKind};
use io_uring::IoUring;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::executor::{ExecutorsConfig, StartError};

/// What an executor insists on, whatever it then locks.
const MEMLOCK_PER_PROCESS: u64 = 512 * 1024;

/// How many rings of an executor lock its I/O memory.
const RINGS_WITH_MEMORY: u64 = 3;

/// Fails for what can be known in advance. Raises the soft memlock limit to the hard one, which every
/// process may do.
pub(super) fn preflight(config: &ExecutorsConfig) -> Result<(), StartError> {
    if config.shards == 0 {
        return Err(StartError::NoShards);
    }
    raise_memlock();
    if memlock_limit() < MEMLOCK_PER_PROCESS {
        return Err(memlock_too_low(config));
    }
    let probe = match config.refuse_io_uring {
        true => Err(io::Error::from_raw_os_error(libc::ENOSYS)),
        false => IoUring::new(2).map(drop),
    };
    probe.map_err(|error| from_ring(config, 0, &error))
}

fn raise_memlock() {
    let Rlimit { maximum, .. } = getrlimit(Resource::Memlock);
    // Refused only where nothing would change.
    let _ = setrlimit(Resource::Memlock, Rlimit { current: maximum, maximum });
}

/// In bytes.
fn memlock_limit() -> u64 {
    getrlimit(Resource::Memlock).current.unwrap_or(u64::MAX)
}

fn memlock_too_low(config: &ExecutorsConfig) -> StartError {
    let io_memory = u64::try_from(config.io_memory).unwrap_or(u64::MAX);
    let per_shard = io_memory.saturating_mul(RINGS_WITH_MEMORY);
    let needed = MEMLOCK_PER_PROCESS.saturating_add(per_shard.saturating_mul(config.shards.into()));
    StartError::MemlockTooLow {
        limit_kib: memlock_limit() / 1024,
        needed_kib: needed.div_ceil(1024),
        shards: config.shards,
    }
}

/// What it means that a ring could not be made.
pub(super) fn from_ring(config: &ExecutorsConfig, shard: u16, error: &io::Error) -> StartError {
    match error.raw_os_error() {
        Some(libc::ENOMEM) => memlock_too_low(config),
        Some(libc::ENOSYS) => StartError::IoUringRefused {
            reason: "it does not know the call; Linux 5.19 or newer is needed, built with io_uring"
                .to_owned(),
        },
        Some(libc::EPERM | libc::EACCES) => StartError::IoUringRefused { reason: forbidden() },
        _ => StartError::Shard { shard, reason: format!("no ring: {error}") },
    }
}

fn forbidden() -> String {
    const SWITCH: &str = "/proc/sys/kernel/io_uring_disabled";
    match std::fs::read_to_string(SWITCH).as_deref().map(str::trim) {
        Ok("0") | Err(_) => "a filter forbids it (seccomp, as containers have); allow io_uring_setup, \
             io_uring_enter and io_uring_register"
            .to_owned(),
        Ok(value) => format!("{SWITCH} is {value}; set it to 0"),
    }
}

/// What it means that an executor could not be made.
pub(super) fn from_executor(config: &ExecutorsConfig, shard: u16, error: GlommioError<()>) -> StartError {
    match error {
        GlommioError::IoError(error) => from_ring(config, shard, &error),
        GlommioError::ReactorError(ReactorErrorKind::MemLockLimit(..)) => memlock_too_low(config),
        error => StartError::Shard { shard, reason: error.to_string() },
    }
}
