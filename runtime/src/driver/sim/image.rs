//! The content of one simulated file: what reads see, what a crash would leave, and the difference.
//!
//! The difference is a list of completed changes in order of completion, plus the writes in flight.
//! A flush moves changes to the durable image; a crash draws what becomes of each. Writes are judged
//! sector by sector, length changes as a journal would keep them: up to some point, in order.

use bytes::Bytes;
use std::{collections::BTreeMap, ops::Range};

/// What a disk writes at one stroke.
pub(crate) const SECTOR: usize = 512;
/// What an image keeps together.
const PAGE: usize = 4096;

static ZEROS: [u8; 1 << 20] = [0; 1 << 20];

/// A copy that lets go of the writer's memory; zeros, which prewritten files are full of, cost none.
pub(crate) fn own_copy(data: &[u8]) -> Bytes {
    if data.len() <= ZEROS.len() && *data == ZEROS[..data.len()] {
        Bytes::from_static(&ZEROS[..data.len()])
    } else {
        Bytes::copy_from_slice(data)
    }
}

/// Bytes and a length. Pages that are not there are zeros; none lies wholly beyond the length, and what
/// lies beyond it in the last page is zero.
#[derive(Clone, Debug, Default)]
struct Image {
    pages: BTreeMap<u64, Bytes>,
    len: u64,
}

impl Image {
    fn read(&self, offset: u64, into: &mut [u8]) {
        into.fill(0);
        if into.is_empty() {
            return;
        }
        let end = offset + into.len() as u64;
        for (&number, page) in self.pages.range(offset / PAGE as u64..end.div_ceil(PAGE as u64)) {
            let page_at = number * PAGE as u64;
            let from = offset.max(page_at);
            let to = end.min(page_at + PAGE as u64);
            let source = &page[(from - page_at) as usize..(to - page_at) as usize];
            into[(from - offset) as usize..(to - offset) as usize].copy_from_slice(source);
        }
    }

    /// Puts bytes in place, as far as the length reaches.
    fn write(&mut self, offset: u64, data: &Bytes) {
        let end = self.len.min(offset + data.len() as u64);
        let mut at = offset;
        while at < end {
            let number = at / PAGE as u64;
            let in_page = (at % PAGE as u64) as usize;
            let take = (PAGE - in_page).min((end - at) as usize);
            let start = (at - offset) as usize;
            self.write_page(number, in_page, data.slice(start..start + take));
            at += take as u64;
        }
    }

    fn write_page(&mut self, number: u64, in_page: usize, data: Bytes) {
        let page = if data.len() == PAGE {
            data
        } else {
            let mut page = vec![0; PAGE];
            if let Some(old) = self.pages.get(&number) {
                page.copy_from_slice(old);
            }
            page[in_page..in_page + data.len()].copy_from_slice(&data);
            Bytes::from(page)
        };
        if *page == ZEROS[..PAGE] {
            self.pages.remove(&number);
        } else {
            self.pages.insert(number, page);
        }
    }

    fn set_len(&mut self, len: u64) {
        if len < self.len {
            let whole_pages = len / PAGE as u64;
            let cut = (len % PAGE as u64) as usize;
            let mut beyond = self.pages.split_off(&whole_pages);
            if cut > 0
                && let Some(last) = beyond.remove(&whole_pages)
            {
                self.write_page(whole_pages, 0, last.slice(..cut));
                // The page was split off above, so its rest is zero now.
            }
        }
        self.len = len;
    }
}

/// One completed change that is not durable yet.
#[derive(Debug)]
enum Change {
    Len(u64),
    Write { offset: u64, data: Bytes },
}

impl Change {
    fn overlaps(&self, range: &Range<u64>) -> bool {
        match self {
            Self::Len(_) => false,
            Self::Write { offset, data } => *offset < range.end && range.start < offset + data.len() as u64,
        }
    }
}

/// A write the file system has taken and not yet answered.
#[derive(Debug)]
struct InFlight {
    operation: u64,
    offset: u64,
    data: Bytes,
}

/// What a crash does with one write.
pub(crate) enum WriteFate {
    Kept,
    Lost,
    /// Which of its sectors are kept.
    Torn(Vec<bool>),
}

impl WriteFate {
    /// What is left of a write, piece by piece.
    pub(crate) fn pieces(&self, offset: u64, data: &Bytes) -> Vec<(u64, Bytes)> {
        match self {
            Self::Lost => Vec::new(),
            Self::Kept => vec![(offset, data.clone())],
            Self::Torn(sectors) => {
                let kept = sectors.iter().enumerate().filter(|&(_, &kept)| kept);
                kept.map(|(number, _)| {
                    let start = number * SECTOR;
                    (offset + start as u64, data.slice(start..data.len().min(start + SECTOR)))
                })
                .collect()
            }
        }
    }
}

/// What a flush that failed has done with one change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FlushFate {
    /// It is durable.
    Durable,
    /// A later flush may still make it so.
    Pending,
    /// It is gone, and no later flush brings it back.
    GivenUp,
}

/// Chance, as a crash asks it.
pub(crate) trait Fate {
    fn of_write(&mut self, sectors: usize) -> WriteFate;
    /// How many of `changes` length changes, from the first, survive.
    fn surviving_prefix(&mut self, changes: usize) -> usize;
    fn shuffle<T>(&mut self, items: &mut [T]);
}

/// See the module head.
#[derive(Debug, Default)]
pub(crate) struct FileData {
    live: Image,
    durable: Image,
    /// In order of completion.
    pending: Vec<(u64, Change)>,
    in_flight: Vec<InFlight>,
    /// Of each page that was ever written, its last write.
    last_writes: BTreeMap<u64, LastWrite>,
}

/// What is remembered of the last write to a page.
#[derive(Debug)]
struct LastWrite {
    at_ns: u64,
    /// What the page held before.
    before: Bytes,
}

impl FileData {
    pub(crate) fn len(&self) -> u64 {
        self.live.len
    }

    /// Reads as far as the file goes; returns how much that was.
    pub(crate) fn read(&self, offset: u64, into: &mut [u8]) -> usize {
        let there = self.live.len.saturating_sub(offset).min(into.len() as u64) as usize;
        self.live.read(offset, &mut into[..there]);
        there
    }

    /// Reads, from within one page, what was there before the page was last written.
    pub(crate) fn read_before(&self, offset: u64, into: &mut [u8]) {
        if let Some(write) = self.last_writes.get(&(offset / PAGE as u64)) {
            let start = (offset % PAGE as u64) as usize;
            into.copy_from_slice(&write.before[start..start + into.len()]);
        }
    }

    /// Where the pages begin that hold anything durable and were not written since then.
    pub(crate) fn at_rest_since(&self, at_ns: u64) -> Vec<u64> {
        let at_rest = |number: &u64| self.last_writes.get(number).is_none_or(|write| write.at_ns <= at_ns);
        self.durable
            .pages
            .keys()
            .filter(|number| at_rest(number))
            .map(|number| number * PAGE as u64)
            .collect()
    }

    /// Changes the page that begins at `offset`, on the platter and for whoever reads it.
    pub(crate) fn rot(&mut self, offset: u64, change: impl FnOnce(&mut [u8])) {
        let number = offset / PAGE as u64;
        let mut page = vec![0; PAGE];
        self.durable.read(offset, &mut page);
        let seen_as_is = self.live.pages.get(&number) == self.durable.pages.get(&number);
        change(&mut page);
        let page = Bytes::from(page);
        self.durable.write(offset, &page);
        if seen_as_is {
            self.live.write(offset, &page);
        }
    }

    pub(crate) fn begin_write(&mut self, operation: u64, offset: u64, data: Bytes) {
        self.in_flight.push(InFlight { operation, offset, data });
    }

    /// Takes back a write that [`FileData::begin_write`] began: its place and its bytes.
    pub(crate) fn end_write(&mut self, operation: u64) -> (u64, Bytes) {
        let place = self.in_flight.iter().position(|write| write.operation == operation);
        let InFlight { offset, data, .. } = self.in_flight.swap_remove(place.expect("the write was begun"));
        (offset, data)
    }

    /// Puts bytes in place, at completion number `completed` and that time. None at all leave the file as it is.
    pub(crate) fn write(&mut self, completed: u64, at_ns: u64, offset: u64, data: Bytes, durable: bool) {
        if data.is_empty() {
            return;
        }
        let end = offset + data.len() as u64;
        if end > self.live.len {
            self.set_len(completed, end);
        }
        for number in offset / PAGE as u64..end.div_ceil(PAGE as u64) {
            let before = self.live.pages.get(&number).cloned();
            let before = before.unwrap_or_else(|| Bytes::from_static(&ZEROS[..PAGE]));
            self.last_writes.insert(number, LastWrite { at_ns, before });
        }
        self.live.write(offset, &data);
        if durable {
            self.commit_lens();
            self.forget_pending(offset..end);
            self.durable.write(offset, &data);
        } else {
            self.pending.push((completed, Change::Write { offset, data }));
        }
    }

    pub(crate) fn set_len(&mut self, completed: u64, len: u64) {
        if len < self.live.len {
            self.forget_pending(len..u64::MAX);
        }
        self.live.set_len(len);
        self.pending.push((completed, Change::Len(len)));
    }

    /// Makes durable what completed before completion number `end`.
    pub(crate) fn flush(&mut self, end: u64) {
        let covered = self.pending.partition_point(|(completed, _)| *completed < end);
        for (_, change) in self.pending.drain(..covered) {
            match change {
                Change::Len(len) => self.durable.set_len(len),
                Change::Write { offset, data } => self.durable.write(offset, &data),
            }
        }
    }

    /// Fails to make durable what completed before completion number `end`. Lengths stay pending at worst.
    pub(crate) fn fail_flush(&mut self, end: u64, mut fate: impl FnMut() -> FlushFate) {
        let mut lens_are_durable = true;
        for (completed, change) in std::mem::take(&mut self.pending) {
            let fate = if completed < end { fate() } else { FlushFate::Pending };
            match change {
                Change::Len(len) if fate == FlushFate::Durable && lens_are_durable => {
                    self.durable.set_len(len)
                }
                Change::Len(len) => {
                    lens_are_durable = false;
                    self.pending.push((completed, Change::Len(len)));
                }
                Change::Write { offset, data } => {
                    let range = offset..offset + data.len() as u64;
                    let within = range.end <= self.durable.len;
                    match fate {
                        FlushFate::Durable if within => {
                            self.forget_pending(range);
                            self.durable.write(offset, &data);
                        }
                        FlushFate::GivenUp => self.forget_pending(range),
                        FlushFate::Durable | FlushFate::Pending => {
                            self.pending.push((completed, Change::Write { offset, data }));
                        }
                    }
                }
            }
        }
        // What was given up is seen no more.
        self.live = self.durable.clone();
        for (_, change) in &self.pending {
            match change {
                Change::Len(len) => self.live.set_len(*len),
                Change::Write { offset, data } => self.live.write(*offset, data),
            }
        }
    }

    /// A durable write commits the metadata that leads to it, and so all of the file's.
    fn commit_lens(&mut self) {
        let durable = &mut self.durable;
        self.pending.retain(|(_, change)| match change {
            Change::Len(len) => {
                durable.set_len(*len);
                false
            }
            Change::Write { .. } => true,
        });
    }

    /// Takes out of the pending writes what lies in `range`: it was overwritten for good, or cut off.
    fn forget_pending(&mut self, range: Range<u64>) {
        if !self.pending.iter().any(|(_, change)| change.overlaps(&range)) {
            return;
        }
        let mut rest = Vec::with_capacity(self.pending.len() + 1);
        for (completed, change) in self.pending.drain(..) {
            match change {
                Change::Write { offset, data } if offset < range.end => {
                    let front_len = range.start.saturating_sub(offset).min(data.len() as u64) as usize;
                    let back_at = (range.end - offset).min(data.len() as u64) as usize;
                    let back = (offset + back_at as u64, data.slice(back_at..));
                    for (offset, data) in [(offset, data.slice(..front_len)), back] {
                        if !data.is_empty() {
                            rest.push((completed, Change::Write { offset, data }));
                        }
                    }
                }
                untouched => rest.push((completed, untouched)),
            }
        }
        self.pending = rest;
    }

    /// The power fails: `fate` decides what of the undurable is there afterwards.
    pub(crate) fn crash(&mut self, fate: &mut impl Fate) {
        let mut lens = Vec::new();
        let mut writes: Vec<(u64, Bytes)> = Vec::new();
        for (_, change) in self.pending.drain(..) {
            match change {
                Change::Len(len) => lens.push(len),
                Change::Write { offset, data } => writes.push((offset, data)),
            }
        }
        writes.extend(self.in_flight.drain(..).map(|write| (write.offset, write.data)));
        let surviving = fate.surviving_prefix(lens.len());
        lens[..surviving].iter().for_each(|&len| self.durable.set_len(len));
        fate.shuffle(&mut writes);
        for (offset, data) in writes {
            for (at, piece) in fate.of_write(data.len().div_ceil(SECTOR)).pieces(offset, &data) {
                self.durable.write(at, &piece);
            }
        }
        self.live = self.durable.clone();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The same answer to every question.
    struct Always(WriteFate, usize);

    impl Fate for Always {
        fn of_write(&mut self, _: usize) -> WriteFate {
            match &self.0 {
                WriteFate::Kept => WriteFate::Kept,
                WriteFate::Lost => WriteFate::Lost,
                WriteFate::Torn(sectors) => WriteFate::Torn(sectors.clone()),
            }
        }

        fn surviving_prefix(&mut self, changes: usize) -> usize {
            changes.min(self.1)
        }

        fn shuffle<T>(&mut self, _: &mut [T]) {}
    }

    fn write(file: &mut FileData, completed: u64, offset: u64, byte: u8, len: usize, durable: bool) {
        file.write(completed, completed, offset, own_copy(&vec![byte; len]), durable);
    }

    fn content(file: &FileData) -> Vec<u8> {
        let mut bytes = vec![9; file.len() as usize];
        assert_eq!(file.read(0, &mut bytes), bytes.len());
        bytes
    }

    #[test]
    fn a_flush_covers_what_completed_before_it_and_nothing_else() {
        let mut file = FileData::default();
        write(&mut file, 1, 0, 1, 4096, false);
        write(&mut file, 2, 4096, 2, 4096, false);
        file.flush(2);
        file.crash(&mut Always(WriteFate::Lost, usize::MAX));
        assert_eq!(content(&file), [vec![1; 4096], vec![0; 4096]].concat());
    }

    #[test]
    fn a_durable_write_survives_an_older_pending_one_in_its_place() {
        let mut file = FileData::default();
        write(&mut file, 1, 0, 1, 3 * 4096, false);
        write(&mut file, 2, 4096, 2, 4096, true);
        file.crash(&mut Always(WriteFate::Kept, usize::MAX));
        assert_eq!(content(&file), [vec![1; 4096], vec![2; 4096], vec![1; 4096]].concat());
    }

    #[test]
    fn a_durable_write_commits_length_changes_made_before_it() {
        let mut file = FileData::default();
        write(&mut file, 1, 0, 1, 3 * 4096, true);
        file.set_len(2, 0);
        write(&mut file, 3, 0, 2, 4096, true);
        file.crash(&mut Always(WriteFate::Lost, 0));
        assert_eq!(content(&file), vec![2; 4096]);
    }

    #[test]
    fn an_unflushed_length_is_lost_with_what_lies_beyond_it() {
        let mut file = FileData::default();
        write(&mut file, 1, 0, 1, 4096, true);
        write(&mut file, 2, 4096, 2, 4096, false);
        file.crash(&mut Always(WriteFate::Kept, 0));
        assert_eq!(content(&file), vec![1; 4096]);
    }

    #[test]
    fn a_torn_write_keeps_single_sectors() {
        let mut file = FileData::default();
        write(&mut file, 1, 0, 1, 4096, true);
        write(&mut file, 2, 0, 2, 4096, false);
        let sectors = vec![true, false, false, true, false, false, false, true];
        file.crash(&mut Always(WriteFate::Torn(sectors.clone()), usize::MAX));
        let expected: Vec<u8> =
            sectors.iter().flat_map(|&kept| vec![if kept { 2 } else { 1 }; SECTOR]).collect();
        assert_eq!(content(&file), expected);
    }

    #[test]
    fn a_write_in_flight_may_be_found_after_the_crash() {
        let mut file = FileData::default();
        write(&mut file, 1, 0, 1, 4096, true);
        file.begin_write(2, 0, own_copy(&[2; 4096]));
        assert_eq!(content(&file), vec![1; 4096]);
        file.crash(&mut Always(WriteFate::Kept, usize::MAX));
        assert_eq!(content(&file), vec![2; 4096]);
    }

    #[test]
    fn lengths_within_a_page_cut_and_zero() {
        let mut file = FileData::default();
        write(&mut file, 1, 0, 1, 5000, false);
        file.set_len(2, 4500);
        file.set_len(3, 5000);
        assert_eq!(content(&file), [vec![1; 4500], vec![0; 500]].concat());
        file.flush(4);
        file.crash(&mut Always(WriteFate::Lost, 0));
        assert_eq!(content(&file), [vec![1; 4500], vec![0; 500]].concat());
    }
}
