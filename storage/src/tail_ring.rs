//! The newest windows of every log of the shard, as the very buffers they were written from.
//!
//! Owns their memory up to a bound and lets the oldest flushed window of the shard go first; a window not
//! yet flushed is never let go, so the bound may be passed by one window for each log being written. Never
//! reads a file.

use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;
use corrente_protocol::ids::{Offset, TopicPartition};

/// Record batches back to back, as one extent holds them.
#[derive(Debug, Clone)]
pub(crate) struct Stretch {
    pub(crate) base_offset: Offset,
    pub(crate) end_offset: Offset,
    pub(crate) batches: Bytes,
}

#[derive(Debug)]
struct Held {
    stretch: Stretch,
    /// Bytes of memory it keeps alive.
    cost: usize,
    flushed: bool,
}

/// Invariants: `used` is the sum of all costs; `order` names each window once, those of one log in the
/// order of their offsets; the windows of one log follow each other without a gap.
#[derive(Debug)]
pub(crate) struct TailRing {
    bytes_max: usize,
    used: usize,
    order: VecDeque<TopicPartition>,
    logs: BTreeMap<TopicPartition, VecDeque<Held>>,
}

impl TailRing {
    pub(crate) fn new(bytes_max: usize) -> Self {
        Self { bytes_max, used: 0, order: VecDeque::new(), logs: BTreeMap::new() }
    }

    /// Bytes of memory held.
    pub(crate) fn used(&self) -> usize {
        self.used
    }

    /// Takes in a window that is about to be written.
    pub(crate) fn push(&mut self, log: TopicPartition, stretch: Stretch, cost: usize) {
        let windows = self.logs.entry(log).or_default();
        if let Some(last) = windows.back() {
            assert_eq!(last.stretch.end_offset, stretch.base_offset, "a gap in the tail of {log}");
        }
        windows.push_back(Held { stretch, cost, flushed: false });
        self.order.push_back(log);
        self.used += cost;
        self.shrink();
    }

    /// Every window of the log that ends at or below `flushed` may be let go from now on.
    pub(crate) fn flushed(&mut self, log: TopicPartition, flushed: Offset) {
        let Some(windows) = self.logs.get_mut(&log) else { return };
        for held in windows.iter_mut().rev().take_while(|held| !held.flushed) {
            held.flushed = held.stretch.end_offset <= flushed;
        }
        self.shrink();
    }

    /// The window that holds `from` and those after it, oldest first; empty if the ring no longer has it.
    pub(crate) fn since(&self, log: TopicPartition, from: Offset) -> impl Iterator<Item = &Stretch> {
        let windows = self
            .logs
            .get(&log)
            .filter(|windows| windows.front().is_some_and(|oldest| oldest.stretch.base_offset <= from));
        let at = windows.map_or(0, |w| w.partition_point(|held| held.stretch.end_offset <= from));
        windows.into_iter().flat_map(move |windows| windows.range(at..)).map(|held| &held.stretch)
    }

    /// Forgets every window of a log.
    pub(crate) fn forget(&mut self, log: TopicPartition) {
        let Some(windows) = self.logs.remove(&log) else { return };
        self.used -= windows.iter().map(|held| held.cost).sum::<usize>();
        self.order.retain(|held| *held != log);
    }

    /// Lets the windows of a log go that end at or below `end`: files say something else there by now.
    pub(crate) fn let_go_below(&mut self, log: TopicPartition, end: Offset) {
        let Some(windows) = self.logs.get_mut(&log) else { return };
        let mut left = windows.partition_point(|held| held.stretch.end_offset <= end);
        self.used -= windows.drain(..left).map(|held| held.cost).sum::<usize>();
        if windows.is_empty() {
            self.logs.remove(&log);
        }
        self.order.retain(|held| {
            let goes = *held == log && left > 0;
            left -= usize::from(goes);
            !goes
        });
    }

    /// Lets the oldest flushed windows go until the bound is met. A window that is not flushed moves to the
    /// end: it is the newest of its log, so the order within the log stays.
    fn shrink(&mut self) {
        for _ in 0..self.order.len() {
            if self.used <= self.bytes_max {
                return;
            }
            let log = self.order.pop_front().expect("as many as were counted");
            let windows = self.logs.get_mut(&log).expect("ordered windows are held");
            let oldest = windows.front().expect("ordered windows are held");
            if !oldest.flushed {
                self.order.push_back(log);
                continue;
            }
            self.used -= oldest.cost;
            windows.pop_front();
            if windows.is_empty() {
                self.logs.remove(&log);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use corrente_protocol::ids::{PartitionIndex, TopicId};

    use super::*;

    fn log(n: u32) -> TopicPartition {
        TopicPartition { topic: TopicId([1; 16]), partition: PartitionIndex(n) }
    }

    fn stretch(base: u64) -> Stretch {
        Stretch {
            base_offset: Offset(base),
            end_offset: Offset(base + 1),
            batches: Bytes::from_static(b"batch"),
        }
    }

    fn bases(ring: &TailRing, log: TopicPartition, from: u64) -> Vec<u64> {
        ring.since(log, Offset(from)).map(|stretch| stretch.base_offset.0).collect()
    }

    #[test]
    fn the_oldest_window_of_the_shard_goes_first() {
        let mut ring = TailRing::new(30);
        for n in 0..2 {
            for partition in 0..2 {
                ring.push(log(partition), stretch(n), 10);
                ring.flushed(log(partition), Offset(n + 1));
            }
        }
        assert_eq!(ring.used(), 30);
        assert_eq!(bases(&ring, log(0), 0), [] as [u64; 0]);
        assert_eq!(bases(&ring, log(0), 1), [1]);
        assert_eq!(bases(&ring, log(1), 0), [0, 1]);
        assert_eq!(bases(&ring, log(1), 2), [] as [u64; 0]);
    }

    #[test]
    fn what_is_not_flushed_stays_even_beyond_the_bound() {
        let mut ring = TailRing::new(10);
        for partition in 0..5 {
            ring.push(log(partition), stretch(0), 10);
        }
        assert_eq!(ring.used(), 50);
        for partition in 0..5 {
            ring.flushed(log(partition), Offset(1));
        }
        assert_eq!(ring.used(), 10);
    }

    #[test]
    fn what_was_replaced_goes_and_the_rest_stays_in_order() {
        let mut ring = TailRing::new(30);
        for n in 0..3 {
            ring.push(log(0), stretch(n), 5);
            ring.push(log(1), stretch(n), 5);
        }
        ring.flushed(log(0), Offset(3));
        ring.flushed(log(1), Offset(3));
        ring.let_go_below(log(0), Offset(2));
        assert_eq!(ring.used(), 20);
        assert_eq!(bases(&ring, log(0), 1), [] as [u64; 0]);
        assert_eq!(bases(&ring, log(0), 2), [2]);
        assert_eq!(bases(&ring, log(1), 0), [0, 1, 2]);
        ring.let_go_below(log(0), Offset(9));
        ring.push(log(1), stretch(3), 20);
        ring.flushed(log(1), Offset(4));
        assert_eq!((ring.used(), bases(&ring, log(1), 2)), (30, vec![2, 3]));
    }

    #[test]
    fn a_forgotten_log_gives_its_memory_back() {
        let mut ring = TailRing::new(100);
        ring.push(log(0), stretch(0), 10);
        ring.push(log(1), stretch(0), 10);
        ring.forget(log(0));
        assert_eq!(ring.used(), 10);
        assert_eq!(bases(&ring, log(0), 0), [] as [u64; 0]);
        assert_eq!(bases(&ring, log(1), 0), [0]);
    }
}
