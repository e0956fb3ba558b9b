//! Looks at the logs of a node that is down: reads every byte, and changes none.
//!
//! What a start must not take the time for: a start reads what is newest, this reads all. Both judge by the same rules.

pub(crate) mod batches;
mod dump;
pub(crate) mod judge;
pub(crate) mod log_facts;
mod offline_dirs;
mod report;
pub(crate) mod segment_bytes;
mod walk;

pub use dump::{Dump, DumpRange, Dumped};
pub use offline_dirs::{Beside, DirReport, OfflineDirs, OfflineLog};
pub use report::{Finding, FindingKind, InspectError, LogReport};

use log_facts::LogFacts;

/// Reads all of a log and says what is wrong with it.
pub async fn verify(log: &OfflineLog) -> Result<LogReport, InspectError> {
    Ok(LogFacts::gather(log).await?.report())
}
