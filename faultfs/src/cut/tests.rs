use super::*;
use crate::recording::Recorder;
use tempfile::TempDir;

const LEN: u64 = 1 << 20;
const BLOCK: u64 = 4096;

/// A recording under construction: blocks by number, written with one byte throughout.
struct Story {
    dir: TempDir,
    recorder: Recorder,
}

impl Story {
    fn new() -> Story {
        let dir = tempfile::tempdir().unwrap();
        let recorder = Recorder::create(&dir.path().join("recording")).unwrap();
        Story { dir, recorder }
    }

    fn receive(&mut self, block: u64, byte: u8) -> u64 {
        self.recorder.write_received(block * BLOCK, &[byte; BLOCK as usize]).unwrap()
    }

    fn write(&mut self, block: u64, byte: u8) {
        let id = self.receive(block, byte);
        self.recorder.write_done(id).unwrap();
    }

    fn flush(&mut self) {
        let id = self.recorder.flush_received().unwrap();
        self.recorder.flush_done(id).unwrap();
    }

    fn end(self) -> Told {
        self.recorder.finish().unwrap();
        let recording = Recording::open(&self.dir.path().join("recording")).unwrap();
        Told { dir: self.dir, recording }
    }
}

/// The same, finished.
struct Told {
    dir: TempDir,
    recording: Recording,
}

impl Told {
    /// Blocks 0..8 after a cut behind `event` events: their byte, or nothing where a block is not uniform.
    fn cut(&self, event: usize, mode: Mode, seed: u64) -> ([Option<u8>; 8], Fates) {
        let base = Image::create(&self.dir.path().join("base"), LEN).unwrap();
        let mut replayer = Replayer::new(&self.recording, base);
        replayer.advance(event).unwrap();
        let (image, fates) = replayer.cut(mode, seed, &self.dir.path().join("cut")).unwrap();
        let blocks = std::array::from_fn(|block| {
            let mut content = vec![0; BLOCK as usize];
            image.read_at(&mut content, block as u64 * BLOCK).unwrap();
            content.iter().all(|byte| *byte == content[0]).then_some(content[0])
        });
        (blocks, fates)
    }

    fn at_end(&self, mode: Mode, seed: u64) -> ([Option<u8>; 8], Fates) {
        self.cut(self.recording.events.len(), mode, seed)
    }
}

fn blocks(bytes: [u8; 8]) -> [Option<u8>; 8] {
    bytes.map(Some)
}

#[test]
fn a_flush_covers_what_was_done_before_it_was_received() {
    let mut story = Story::new();
    story.write(0, 1);
    let under_way = story.receive(1, 2);
    let flush = story.recorder.flush_received().unwrap();
    story.recorder.write_done(under_way).unwrap();
    story.write(2, 3);
    story.recorder.flush_done(flush).unwrap();
    let told = story.end();
    let (lost, fates) = told.at_end(Mode::AllLost, 0);
    assert_eq!(lost, blocks([1, 0, 0, 0, 0, 0, 0, 0]));
    assert_eq!(fates, Fates { pending: 2, dropped: 2, ..Fates::default() });
    let (kept, fates) = told.at_end(Mode::AllKept, 0);
    assert_eq!(kept, blocks([1, 2, 3, 0, 0, 0, 0, 0]));
    assert_eq!(fates, Fates { pending: 2, ..Fates::default() });
}

#[test]
fn a_flush_that_is_not_done_covers_nothing() {
    let mut story = Story::new();
    story.write(0, 1);
    story.recorder.flush_received().unwrap();
    let told = story.end();
    assert_eq!(told.at_end(Mode::AllLost, 0).0, blocks([0; 8]));
}

#[test]
fn a_write_that_was_only_received_may_be_there() {
    let mut story = Story::new();
    story.receive(3, 7);
    let told = story.end();
    assert_eq!(told.at_end(Mode::AllKept, 0).0, blocks([0, 0, 0, 7, 0, 0, 0, 0]));
    assert_eq!(told.at_end(Mode::AllLost, 0).0, blocks([0; 8]));
}

#[test]
fn a_cut_knows_nothing_of_what_came_later() {
    let mut story = Story::new();
    story.write(0, 1);
    story.write(0, 2);
    story.flush();
    let told = story.end();
    let first = |event| told.cut(event, Mode::AllKept, 0).0[0];
    let expected = [0, 1, 1, 2, 2, 2, 2].map(Some);
    assert_eq!(std::array::from_fn::<_, 7, _>(first), expected);
    assert_eq!(told.cut(5, Mode::AllLost, 0).0[0], Some(0));
    assert_eq!(told.cut(6, Mode::AllLost, 0).0[0], Some(2));
}

#[test]
fn covered_writes_land_in_the_order_they_were_done() {
    let mut story = Story::new();
    let late = story.receive(0, 1);
    story.write(0, 2);
    story.recorder.write_done(late).unwrap();
    story.flush();
    assert_eq!(story.end().at_end(Mode::AllLost, 0).0[0], Some(1));
}

#[test]
fn zeros_are_written_too() {
    let mut story = Story::new();
    story.write(0, 5);
    story.flush();
    story.write(0, 0);
    let told = story.end();
    assert_eq!(told.at_end(Mode::AllLost, 0).0[0], Some(5));
    assert_eq!(told.at_end(Mode::AllKept, 0).0[0], Some(0));
}

#[test]
fn of_the_last_only_the_last_survives() {
    let mut story = Story::new();
    story.write(0, 1);
    story.write(1, 2);
    story.write(2, 3);
    let told = story.end();
    for seed in 0..50 {
        let (found, fates) = told.at_end(Mode::LastOnly, seed);
        assert_eq!(found[..2], [Some(0), Some(0)]);
        assert_eq!((fates.dropped, fates.overtook), (2, 1));
        assert_eq!(fates.torn == 0, found[2] == Some(3), "seed {seed}");
    }
}

#[test]
fn subsets_reach_every_state_and_count_what_they_did() {
    let mut story = Story::new();
    for block in 0..3 {
        story.write(block, 9);
    }
    let told = story.end();
    let mut states = std::collections::BTreeSet::new();
    let mut all = Fates::default();
    for seed in 0..1_000 {
        let (found, fates) = told.at_end(Mode::Subset, seed);
        let absent = found.iter().take(3).filter(|byte| **byte == Some(0)).count() as u64;
        let torn = found.iter().filter(|byte| byte.is_none()).count() as u64;
        assert_eq!((fates.dropped, fates.torn), (absent, torn), "seed {seed}");
        states.insert(found[..3].to_vec());
        all.add(fates);
    }
    // Each of the three blocks is there, absent or torn, in every combination.
    assert_eq!(states.len(), 27);
    assert_eq!(all.pending, 3_000);
    assert!(all.overtook > 200, "{all:?}");
}

#[test]
fn shuffling_lets_an_older_write_win_over_a_newer_one() {
    let mut story = Story::new();
    story.write(0, 1);
    story.write(0, 2);
    let told = story.end();
    let found = |mode| (0..200).map(|seed| told.at_end(mode, seed).0[0]).collect::<Vec<_>>();
    for expected in [Some(0), Some(1), Some(2), None] {
        assert!(found(Mode::Shuffled).contains(&expected), "{expected:?} never came");
    }
    let newest_kept_in_order = told.at_end(Mode::AllKept, 0).0[0];
    assert_eq!(newest_kept_in_order, Some(2));
}

#[test]
fn what_is_covered_is_never_undone() {
    let mut story = Story::new();
    story.write(0, 1);
    story.flush();
    story.write(1, 2);
    let told = story.end();
    for mode in MODES {
        for seed in 0..20 {
            assert_eq!(told.at_end(mode, seed).0[0], Some(1), "{mode} {seed}");
        }
    }
}

#[test]
fn the_same_seed_cuts_the_same() {
    let mut story = Story::new();
    for block in 0..8 {
        story.write(block, 1);
    }
    let told = story.end();
    for seed in 0..50 {
        assert_eq!(told.at_end(Mode::Shuffled, seed), told.at_end(Mode::Shuffled, seed));
    }
    let different = (0..50).map(|seed| told.at_end(Mode::Shuffled, seed).0);
    assert!(different.collect::<std::collections::BTreeSet<_>>().len() > 10);
}

#[test]
fn a_torn_write_is_neither_whole_nor_absent() {
    let mut chance = fastrand::Rng::with_seed(3);
    for len in [513, 1024, 4096, 65_536, 70_000] {
        for _ in 0..300 {
            let parts = torn(len, &mut chance);
            let kept: u64 = parts.iter().map(|part| part.end - part.start).sum();
            assert!(kept > 0 && kept < len, "{kept} of {len}");
            let aligned = |part: &std::ops::Range<u64>| {
                part.start.is_multiple_of(SECTOR) && (part.end.is_multiple_of(SECTOR) || part.end == len)
            };
            assert!(parts.iter().all(aligned), "{parts:?}");
        }
    }
}

#[test]
fn modes_have_names() {
    for mode in MODES {
        assert_eq!(mode.to_string().parse(), Ok(mode));
    }
    let error = "half".parse::<Mode>().unwrap_err();
    assert_eq!(error, "unknown mode 'half'; known are all-lost, all-kept, subset, shuffled, last-only");
}

#[test]
fn pending_writes_are_counted_as_they_are_cut() {
    let mut story = Story::new();
    let late = story.receive(0, 1);
    story.write(1, 1);
    let flush = story.recorder.flush_received().unwrap();
    story.write(2, 1);
    story.recorder.write_done(late).unwrap();
    story.recorder.flush_done(flush).unwrap();
    story.flush();
    let told = story.end();
    let counts = pending_counts(&told.recording.events);
    assert_eq!(counts, [0, 1, 2, 2, 2, 3, 3, 3, 2, 2, 0]);
    for (event, count) in counts.into_iter().enumerate() {
        assert_eq!(told.cut(event, Mode::AllLost, 0).1.pending, count, "behind {event}");
    }
}

#[test]
fn a_damaged_recording_is_an_error() {
    let mut story = Story::new();
    story.recorder.flush_done(7).unwrap();
    let told = story.end();
    let base = Image::create(&told.dir.path().join("base"), LEN).unwrap();
    let error = Replayer::new(&told.recording, base).advance(1).unwrap_err();
    assert_eq!(error.to_string(), "the recording is damaged: a flush done, never received");
}
