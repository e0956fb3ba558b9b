//! A recording on disk: the events as one JSON line each, and beside them the bytes that were written.
//!
//! The recorder appends and holds nothing in memory; a reader gets the events in whole and the bytes as it asks.

use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, BufWriter, Write};
use std::os::unix::fs::FileExt;
use std::path::Path;

use crate::clock::now_ns;
use crate::event::{Event, Stamped};

const EVENTS: &str = "events.jsonl";
const PAYLOADS: &str = "payloads";

/// Appends to a recording.
#[derive(Debug)]
pub struct Recorder {
    events: BufWriter<File>,
    payloads: BufWriter<File>,
    payload_end: u64,
    next_id: u64,
    /// Events written so far.
    count: u64,
}

impl Recorder {
    /// Begins a recording in `dir`, which is made if it is missing; an older one there is replaced.
    pub fn create(dir: &Path) -> io::Result<Recorder> {
        fs::create_dir_all(dir)?;
        Ok(Recorder {
            events: BufWriter::new(File::create(dir.join(EVENTS))?),
            payloads: BufWriter::with_capacity(1 << 20, File::create(dir.join(PAYLOADS))?),
            payload_end: 0,
            next_id: 0,
            count: 0,
        })
    }

    /// A write was received; returns its id.
    pub fn write_received(&mut self, offset: u64, data: &[u8]) -> io::Result<u64> {
        let payload = if is_zero(data) {
            None
        } else {
            self.payloads.write_all(data)?;
            let position = self.payload_end;
            self.payload_end += data.len() as u64;
            Some(position)
        };
        let id = self.take_id();
        self.append(Event::Write { id, offset, len: data.len() as u64, payload })?;
        Ok(id)
    }

    /// A write is done.
    pub fn write_done(&mut self, id: u64) -> io::Result<()> {
        self.append(Event::Wrote { id })
    }

    /// A flush was received; returns its id.
    pub fn flush_received(&mut self) -> io::Result<u64> {
        let id = self.take_id();
        self.append(Event::Flush { id })?;
        Ok(id)
    }

    /// A flush is done.
    pub fn flush_done(&mut self, id: u64) -> io::Result<()> {
        self.append(Event::Flushed { id })
    }

    /// Events recorded so far.
    pub fn count(&self) -> u64 {
        self.count
    }

    /// Gives all of it to the file system.
    pub fn finish(mut self) -> io::Result<()> {
        self.payloads.flush()?;
        self.events.flush()
    }

    fn take_id(&mut self) -> u64 {
        self.next_id += 1;
        self.next_id - 1
    }

    fn append(&mut self, event: Event) -> io::Result<()> {
        serde_json::to_writer(&mut self.events, &Stamped { at_ns: now_ns(), event })?;
        self.events.write_all(b"\n")?;
        self.count += 1;
        Ok(())
    }
}

fn is_zero(data: &[u8]) -> bool {
    data.iter().all(|byte| *byte == 0)
}

/// A finished recording, for reading.
#[derive(Debug)]
pub struct Recording {
    /// Everything that happened, in order.
    pub events: Vec<Stamped>,
    payloads: File,
}

impl Recording {
    /// Opens the recording in `dir`.
    pub fn open(dir: &Path) -> io::Result<Recording> {
        let lines = BufReader::new(File::open(dir.join(EVENTS))?).lines();
        let parse = |line: io::Result<String>| -> io::Result<Stamped> { Ok(serde_json::from_str(&line?)?) };
        let events: Vec<Stamped> = lines.map(parse).collect::<io::Result<_>>()?;
        if let Some(pair) = events.windows(2).find(|pair| pair[1].at_ns < pair[0].at_ns) {
            let message = format!("an event at {} ns behind one at {} ns", pair[1].at_ns, pair[0].at_ns);
            return Err(io::Error::new(io::ErrorKind::InvalidData, message));
        }
        Ok(Recording { events, payloads: File::open(dir.join(PAYLOADS))? })
    }

    /// Reads the bytes that begin at `position`.
    pub fn read_payload(&self, into: &mut [u8], position: u64) -> io::Result<()> {
        self.payloads.read_exact_at(into, position)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_recorded_is_read() {
        let dir = tempfile::tempdir().unwrap();
        let mut recorder = Recorder::create(dir.path()).unwrap();
        let first = recorder.write_received(4096, b"one").unwrap();
        let zeros = recorder.write_received(0, &[0; 512]).unwrap();
        recorder.write_done(first).unwrap();
        let flush = recorder.flush_received().unwrap();
        let second = recorder.write_received(9, b"two!").unwrap();
        recorder.flush_done(flush).unwrap();
        assert_eq!(recorder.count(), 6);
        recorder.finish().unwrap();

        let recording = Recording::open(dir.path()).unwrap();
        let events: Vec<Event> = recording.events.iter().map(|stamped| stamped.event).collect();
        let expected = [
            Event::Write { id: first, offset: 4096, len: 3, payload: Some(0) },
            Event::Write { id: zeros, offset: 0, len: 512, payload: None },
            Event::Wrote { id: first },
            Event::Flush { id: flush },
            Event::Write { id: second, offset: 9, len: 4, payload: Some(3) },
            Event::Flushed { id: flush },
        ];
        assert_eq!(events, expected);
        let mut bytes = [0; 4];
        recording.read_payload(&mut bytes, 3).unwrap();
        assert_eq!(&bytes, b"two!");
    }

    #[test]
    fn a_recording_out_of_order_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        Recorder::create(dir.path()).unwrap().finish().unwrap();
        let lines = "{\"at_ns\":5,\"wrote\":{\"id\":0}}\n{\"at_ns\":4,\"wrote\":{\"id\":1}}\n";
        fs::write(dir.path().join(EVENTS), lines).unwrap();
        let error = Recording::open(dir.path()).unwrap_err();
        assert_eq!(error.to_string(), "an event at 4 ns behind one at 5 ns");
    }
}
