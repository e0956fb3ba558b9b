//! One direction of a simulated stream: bytes sent, bytes that arrived, in order.

use bytes::BytesMut;
use std::{collections::VecDeque, task::Waker};

/// What travels at one go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Segment {
    Bytes(usize),
    /// No more will come.
    End,
}

/// Bytes on their way to one end, and those waiting there to be read.
///
/// Invariant: `bytes` holds the `arrived` bytes first, then those of `segments`.
#[derive(Debug, Default)]
pub(crate) struct Pipe {
    bytes: VecDeque<u8>,
    arrived: usize,
    segments: VecDeque<Segment>,
    /// Nothing sent later arrives before this.
    pub(crate) last_arrival_ns: u64,
    /// Segments whose time came while the way was blocked.
    pub(crate) held: u32,
    sent_end: bool,
    ended: bool,
    pub(crate) reader: Option<Waker>,
    pub(crate) writer: Option<Waker>,
}

impl Pipe {
    /// How much more the writer may send.
    pub(crate) fn room(&self, buffer_bytes: usize) -> usize {
        buffer_bytes.saturating_sub(self.bytes.len())
    }

    /// Appends bytes; [`Pipe::send`] then cuts them into segments.
    pub(crate) fn fill(&mut self, bytes: &[u8]) {
        self.bytes.extend(bytes);
    }

    /// Sends the next `len` bytes filled in as one segment.
    pub(crate) fn send(&mut self, len: usize) {
        debug_assert!(!self.sent_end, "sent {len} bytes behind the end");
        self.segments.push_back(Segment::Bytes(len));
    }

    /// Sends the end, once; returns whether it was not sent before.
    pub(crate) fn send_end(&mut self) -> bool {
        if !self.sent_end {
            self.segments.push_back(Segment::End);
        }
        !std::mem::replace(&mut self.sent_end, true)
    }

    pub(crate) fn sent_end(&self) -> bool {
        self.sent_end
    }

    /// The next segment arrives.
    pub(crate) fn arrive(&mut self) {
        match self.segments.pop_front() {
            Some(Segment::Bytes(len)) => self.arrived += len,
            Some(Segment::End) => self.ended = true,
            None => {}
        }
        debug_assert!(self.arrived <= self.bytes.len(), "{} of {} arrived", self.arrived, self.bytes.len());
    }

    /// Moves arrived bytes into the spare capacity of `into`.
    pub(crate) fn take(&mut self, into: &mut BytesMut) -> usize {
        let len = self.arrived.min(into.capacity() - into.len());
        let (front, back) = self.bytes.as_slices();
        let from_front = front.len().min(len);
        into.extend_from_slice(&front[..from_front]);
        into.extend_from_slice(&back[..len - from_front]);
        self.bytes.drain(..len);
        self.arrived -= len;
        len
    }

    pub(crate) fn has_arrived(&self) -> bool {
        self.arrived > 0
    }

    /// Whether everything was read and no more will come.
    pub(crate) fn is_finished(&self) -> bool {
        self.ended && self.arrived == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_readable_once_their_segment_arrived_and_keep_their_order() {
        let mut pipe = Pipe::default();
        pipe.fill(b"abcdef");
        pipe.send(2);
        pipe.send(4);
        assert!(pipe.send_end() && !pipe.send_end());
        let mut into = BytesMut::with_capacity(64);
        assert_eq!(pipe.take(&mut into), 0);
        pipe.arrive();
        assert_eq!((pipe.take(&mut into), &into[..]), (2, &b"ab"[..]));
        pipe.arrive();
        pipe.arrive();
        assert!(!pipe.is_finished());
        assert_eq!((pipe.take(&mut into), &into[..]), (4, &b"abcdef"[..]));
        assert!(pipe.is_finished());
        assert_eq!(pipe.room(10), 10);
    }

    #[test]
    fn a_read_takes_no_more_than_the_spare_capacity() {
        let mut pipe = Pipe::default();
        pipe.fill(&[7; 100]);
        pipe.send(100);
        pipe.arrive();
        let mut into = BytesMut::with_capacity(40);
        assert_eq!(pipe.take(&mut into), 40);
        assert_eq!(into.capacity(), 40);
        assert_eq!(pipe.room(100), 40);
    }
}
