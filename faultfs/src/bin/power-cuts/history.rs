//! What the clients of a recorded run did and were told, on the clock that the disk's recorder uses, as JSON lines.

use std::fs::File;
use std::io::{BufRead, BufReader, BufWriter, Write};
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use anyhow::{Context, Result};
use corrente_faultfs::clock::now_ns;
use serde::{Deserialize, Serialize};

use crate::content::{Log, RecordId};

/// One thing that a client did or was told.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Deed {
    /// A topic is about to be asked for.
    TopicAsked { topic: u32, name: String, partitions: u32 },
    /// It was made, with this id.
    TopicMade { topic: u32, id: String },
    /// It is about to be deleted.
    DeleteAsked { topic: u32 },
    /// It was deleted.
    Deleted { topic: u32 },
    /// A record is about to be handed to the producer.
    Sent { record: RecordId, log: Log },
    /// It was acknowledged at this offset.
    Acked { record: RecordId, offset: u64 },
    /// It was refused, for sure and for good.
    Refused { record: RecordId },
    /// A reader was given it.
    Seen { record: RecordId, log: Log, offset: u64 },
    /// A reader was given what nobody would send, or was refused.
    Trouble { what: String },
}

/// A deed and its time.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct Stamped {
    /// By the recorder's clock; never smaller than that of the deed before. What was about to be done is stamped
    /// before, what was told is stamped after.
    pub at_ns: u64,
    #[serde(flatten)]
    pub deed: Deed,
}

/// Appends to a history, from any thread.
pub struct Writer(Mutex<BufWriter<File>>);

impl Writer {
    pub fn create(path: &Path) -> Result<Writer> {
        let file = File::create(path).with_context(|| format!("creating {}", path.display()))?;
        Ok(Writer(Mutex::new(BufWriter::new(file))))
    }

    /// # Panics
    /// If the file takes no more: a history with a hole would prove anything.
    pub fn note(&self, deed: Deed) {
        let mut file = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let line = Stamped { at_ns: now_ns(), deed };
        serde_json::to_writer(&mut *file, &line).expect("the history takes another line");
        file.write_all(b"\n").expect("the history takes another line");
    }

    /// Gives all of it to the file system.
    pub fn flush(&self) -> Result<()> {
        Ok(self.0.lock().unwrap_or_else(PoisonError::into_inner).flush()?)
    }
}

/// Reads a history up to a moment.
pub fn read(path: &Path, until_ns: u64) -> Result<Vec<Stamped>> {
    let file = File::open(path).with_context(|| format!("opening {}", path.display()))?;
    let mut deeds = Vec::new();
    for line in BufReader::new(file).lines() {
        let stamped: Stamped =
            serde_json::from_str(&line?).with_context(|| format!("reading {}", path.display()))?;
        if stamped.at_ns > until_ns {
            break;
        }
        deeds.push(stamped);
    }
    Ok(deeds)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_noted_is_read_up_to_a_moment() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("history.jsonl");
        let writer = Writer::create(&path).unwrap();
        let deeds = [
            Deed::TopicAsked { topic: 0, name: "orders".into(), partitions: 3 },
            Deed::Sent { record: RecordId(1, 2), log: Log(0, 1) },
            Deed::Acked { record: RecordId(1, 2), offset: 9 },
        ];
        deeds.iter().for_each(|deed| writer.note(deed.clone()));
        writer.flush().unwrap();
        let read_back = read(&path, u64::MAX).unwrap();
        assert_eq!(read_back.iter().map(|stamped| stamped.deed.clone()).collect::<Vec<_>>(), deeds);
        assert_eq!(read(&path, read_back[0].at_ns - 1).unwrap(), []);
        assert_eq!(read(&path, read_back[1].at_ns).unwrap().first(), read_back.first());
    }
}
