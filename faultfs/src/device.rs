//! The disk itself: an image, perhaps a recorder, and faults. Knows nothing of how it is reached.
//!
//! Every operation has two halves, so that many can be under way: it is received, in the order in which the kernel
//! sent it, and later done. Doing and recording are one step under one lock, and come before the answer. So whoever has
//! seen an answer can rely on its event standing before the present end of the recording, and a flush received
//! after it covers it.

use std::io;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rustix::io::Errno;
use serde::{Deserialize, Serialize};

use crate::fault::{Effect, Faults, Operation};
use crate::image::Image;
use crate::recording::Recorder;

/// See the module.
#[derive(Debug)]
pub struct Device {
    len: u64,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    image: Image,
    recorder: Option<Recorder>,
    /// The first failure of image or recorder: nothing is done from then on, a recording with a hole proves nothing.
    broken: Option<io::Error>,
    faults: Faults,
    counts: Counts,
}

/// Operations received so far, and faults that struck.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
pub struct Counts {
    /// Reads.
    pub reads: u64,
    /// Writes.
    pub writes: u64,
    /// Flushes.
    pub flushes: u64,
    /// Faults.
    pub faults: u64,
}

/// A read that was received.
#[derive(Debug)]
pub struct PendingRead {
    offset: u64,
    len: usize,
    effect: Option<Effect>,
    /// How long it should wait before it is done.
    pub delay: Duration,
}

/// A write that was received.
#[derive(Debug)]
pub struct PendingWrite {
    /// Where it goes in truth.
    offset: u64,
    data: Vec<u8>,
    fate: Fate,
    /// How long it should wait before it is done.
    pub delay: Duration,
}

/// A flush that was received.
#[derive(Debug)]
pub struct PendingFlush {
    fate: Fate,
    /// How long it should wait before it is done.
    pub delay: Duration,
}

#[derive(Clone, Copy, Debug)]
enum Fate {
    /// Done, under this id in the recording if there is one.
    Done(Option<u64>),
    /// Not done, and answered as done.
    Lost,
    Refused(Errno),
}

impl Device {
    /// A disk with the content of `image`.
    pub fn new(image: Image, recorder: Option<Recorder>, faults: Faults) -> Device {
        let len = image.len();
        let state = State { image, recorder, broken: None, faults, counts: Counts::default() };
        Device { len, state: Mutex::new(state) }
    }

    /// Its size in bytes.
    pub fn len(&self) -> u64 {
        self.len
    }

    /// Whether it holds nothing.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Runs `change` on the faults in force.
    pub fn with_faults<T>(&self, change: impl FnOnce(&mut Faults) -> T) -> T {
        change(&mut self.state().faults)
    }

    /// What it has done so far.
    pub fn counts(&self) -> Counts {
        let state = self.state();
        Counts { faults: state.faults.fired(), ..state.counts }
    }

    /// Ends the recording, which is whole if this succeeds; the disk goes on without. Returns how many events it has.
    pub fn stop_recording(&self) -> io::Result<u64> {
        let mut state = self.state();
        let recorder = state.recorder.take();
        if let Some(error) = state.broken.take() {
            return Err(error);
        }
        let Some(recorder) = recorder else { return Ok(0) };
        let count = recorder.count();
        recorder.finish().map(|()| count)
    }

    /// Receives a read. What lies beyond the end is cut off.
    pub fn receive_read(&self, offset: u64, len: u32) -> PendingRead {
        let offset = offset.min(self.len);
        let len = u64::from(len).min(self.len - offset);
        let mut state = self.state();
        state.counts.reads += 1;
        let decision = state.faults.decide(Operation::Read, &(offset..offset + len));
        let len = usize::try_from(len).unwrap_or_default();
        PendingRead { offset, len, effect: decision.effect, delay: decision.delay }
    }

    /// Does a read.
    pub fn read(&self, pending: PendingRead) -> Result<Vec<u8>, Errno> {
        let PendingRead { offset, len, effect, .. } = pending;
        let mut data = vec![0; len];
        let mut state = self.state();
        let from = match effect {
            Some(Effect::Eio) => return Err(Errno::IO),
            Some(Effect::Misdirect(by)) => self.misdirected(offset, len as u64, by),
            _ => offset,
        };
        state.image.read_at(&mut data, from).map_err(|_| Errno::IO)?;
        if effect == Some(Effect::FlipBit) {
            flip_bit(&mut data, &mut state.faults);
        }
        Ok(data)
    }

    /// Receives a write. From now on parts of it may outlive a power cut.
    pub fn receive_write(&self, offset: u64, data: &[u8]) -> PendingWrite {
        let mut data = data.to_vec();
        let end = offset.saturating_add(data.len() as u64);
        let mut state = self.state();
        state.counts.writes += 1;
        let decision = state.faults.decide(Operation::Write, &(offset..end));
        let mut offset = offset;
        let refused = match decision.effect {
            Some(Effect::Eio) => Some(Errno::IO),
            Some(Effect::Enospc) => Some(Errno::NOSPC),
            Some(Effect::FlipBit) => {
                flip_bit(&mut data, &mut state.faults);
                None
            }
            Some(Effect::Misdirect(by)) => {
                offset = self.misdirected(offset, data.len() as u64, by);
                None
            }
            Some(Effect::Lose) | None => None,
        };
        let fate = if end > self.len {
            Fate::Refused(Errno::NOSPC)
        } else if let Some(errno) = refused {
            Fate::Refused(errno)
        } else if decision.effect == Some(Effect::Lose) {
            Fate::Lost
        } else {
            state.record(|recorder| recorder.write_received(offset, &data))
        };
        PendingWrite { offset, data, fate, delay: decision.delay }
    }

    /// Does a write; returns how many bytes were taken.
    pub fn write(&self, pending: PendingWrite) -> Result<u32, Errno> {
        let PendingWrite { offset, data, fate, .. } = pending;
        let taken = u32::try_from(data.len()).map_err(|_| Errno::INVAL)?;
        let id = match fate {
            Fate::Refused(errno) => return Err(errno),
            Fate::Lost => return Ok(taken),
            Fate::Done(id) => id,
        };
        self.state().finish(id, |state| state.image.write_at(&data, offset), Recorder::write_done)?;
        Ok(taken)
    }

    /// Receives a flush: it covers the writes that are done by now.
    pub fn receive_flush(&self) -> PendingFlush {
        let mut state = self.state();
        state.counts.flushes += 1;
        let decision = state.faults.decide(Operation::Flush, &(0..self.len));
        let fate = match decision.effect {
            Some(Effect::Lose) => Fate::Lost,
            Some(_) => Fate::Refused(Errno::IO),
            None => state.record(Recorder::flush_received),
        };
        PendingFlush { fate, delay: decision.delay }
    }

    /// Does a flush. The image itself stays in memory: only the recording decides what a power cut leaves.
    pub fn flush(&self, pending: PendingFlush) -> Result<(), Errno> {
        match pending.fate {
            Fate::Refused(errno) => Err(errno),
            Fate::Lost => Ok(()),
            Fate::Done(id) => self.state().finish(id, |_| Ok(()), Recorder::flush_done),
        }
    }

    /// Where an operation goes that misses its place by `by` bytes.
    fn misdirected(&self, offset: u64, len: u64, by: u64) -> u64 {
        let last = self.len.saturating_sub(len);
        offset.saturating_add(by % self.len.max(1)) % (last + 1)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Records that something was received.
    fn record(&mut self, received: impl FnOnce(&mut Recorder) -> io::Result<u64>) -> Fate {
        if self.broken.is_some() {
            return Fate::Refused(Errno::IO);
        }
        match self.recorder.as_mut().map(received).transpose() {
            Ok(id) => Fate::Done(id),
            Err(error) => {
                self.broken = Some(error);
                Fate::Refused(Errno::IO)
            }
        }
    }

    /// Does something and records that it is done.
    fn finish(
        &mut self,
        id: Option<u64>,
        act: impl FnOnce(&mut State) -> io::Result<()>,
        done: impl FnOnce(&mut Recorder, u64) -> io::Result<()>,
    ) -> Result<(), Errno> {
        if self.broken.is_some() {
            return Err(Errno::IO);
        }
        let recorded = act(self).and_then(|()| match (self.recorder.as_mut(), id) {
            (Some(recorder), Some(id)) => done(recorder, id),
            _ => Ok(()),
        });
        recorded.map_err(|error| {
            self.broken = Some(error);
            Errno::IO
        })
    }
}

fn flip_bit(data: &mut [u8], faults: &mut Faults) {
    if data.is_empty() {
        return;
    }
    let bit = faults.below(data.len() as u64 * 8);
    let byte = usize::try_from(bit / 8).unwrap_or_default();
    data[byte] ^= 1 << (bit % 8);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::Event;
    use crate::fault::{Rule, When};
    use crate::recording::Recording;
    use tempfile::TempDir;

    const LEN: u64 = 1 << 20;

    fn device(dir: &TempDir, rules: &[(Operation, Effect, When)]) -> Device {
        let mut faults = Faults::none(5);
        for (on, effect, when) in rules {
            faults.add(Rule { on: *on, effect: *effect, when: *when, range: None }).unwrap();
        }
        let image = Image::create(&dir.path().join("image"), LEN).unwrap();
        Device::new(image, Some(Recorder::create(dir.path()).unwrap()), faults)
    }

    fn write(device: &Device, offset: u64, data: &[u8]) -> Result<u32, Errno> {
        device.write(device.receive_write(offset, data))
    }

    fn read(device: &Device, offset: u64, len: u32) -> Result<Vec<u8>, Errno> {
        device.read(device.receive_read(offset, len))
    }

    fn events(dir: &TempDir, device: &Device) -> Vec<Event> {
        device.stop_recording().unwrap();
        let recording = Recording::open(dir.path()).unwrap();
        recording.events.into_iter().map(|stamped| stamped.event).collect()
    }

    #[test]
    fn halves_are_recorded_where_they_happen() {
        let dir = tempfile::tempdir().unwrap();
        let device = device(&dir, &[]);
        let first = device.receive_write(0, b"first");
        let flush = device.receive_flush();
        device.write(first).unwrap();
        device.flush(flush).unwrap();
        assert_eq!(read(&device, 0, 5).unwrap(), b"first");
        let expected = [
            Event::Write { id: 0, offset: 0, len: 5, payload: Some(0) },
            Event::Flush { id: 1 },
            Event::Wrote { id: 0 },
            Event::Flushed { id: 1 },
        ];
        assert_eq!(events(&dir, &device), expected);
    }

    #[test]
    fn what_is_refused_or_lost_is_not_done_and_not_recorded() {
        let dir = tempfile::tempdir().unwrap();
        let rules = [
            (Operation::Write, Effect::Eio, When::Nth(1)),
            (Operation::Write, Effect::Enospc, When::Nth(2)),
            (Operation::Write, Effect::Lose, When::Nth(3)),
            (Operation::Flush, Effect::Eio, When::Nth(1)),
            (Operation::Flush, Effect::Lose, When::Nth(2)),
            (Operation::Read, Effect::Eio, When::Nth(1)),
        ];
        let device = device(&dir, &rules);
        assert_eq!(write(&device, 0, b"x"), Err(Errno::IO));
        assert_eq!(write(&device, 0, b"x"), Err(Errno::NOSPC));
        assert_eq!(write(&device, 0, b"x"), Ok(1));
        assert_eq!(device.flush(device.receive_flush()), Err(Errno::IO));
        assert_eq!(device.flush(device.receive_flush()), Ok(()));
        assert_eq!(read(&device, 0, 1), Err(Errno::IO));
        assert_eq!(read(&device, 0, 1), Ok(vec![0]));
        assert_eq!(device.counts(), Counts { reads: 2, writes: 3, flushes: 2, faults: 6 });
        assert_eq!(events(&dir, &device), []);
    }

    #[test]
    fn a_flipped_bit_and_a_misdirected_write_are_what_the_disk_holds() {
        let dir = tempfile::tempdir().unwrap();
        let rules = [
            (Operation::Write, Effect::FlipBit, When::Nth(1)),
            (Operation::Write, Effect::Misdirect(4096), When::Nth(2)),
            (Operation::Read, Effect::FlipBit, When::Nth(2)),
        ];
        let device = device(&dir, &rules);
        write(&device, 0, &[0; 512]).unwrap();
        let ones = |data: &[u8]| data.iter().map(|byte| byte.count_ones()).sum::<u32>();
        assert_eq!(ones(&read(&device, 0, 512).unwrap()), 1);
        write(&device, 8192, b"here").unwrap();
        let misread = read(&device, 0, 512).unwrap();
        assert_ne!(misread, read(&device, 0, 512).unwrap());
        assert_eq!(read(&device, 12_288, 4).unwrap(), b"here");
        assert_eq!(read(&device, 8192, 4).unwrap(), [0; 4]);
        assert!(matches!(events(&dir, &device)[2], Event::Write { offset: 12_288, len: 4, .. }));
    }

    #[test]
    fn beyond_the_end_nothing_is_written_and_nothing_read() {
        let dir = tempfile::tempdir().unwrap();
        let device = device(&dir, &[]);
        assert_eq!(write(&device, LEN - 1, b"xy"), Err(Errno::NOSPC));
        assert_eq!(write(&device, u64::MAX, b"xy"), Err(Errno::NOSPC));
        assert_eq!(read(&device, LEN - 1, 4096).unwrap(), [0]);
        assert!(read(&device, u64::MAX, 4096).unwrap().is_empty());
    }
}
