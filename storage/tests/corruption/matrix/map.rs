//! What lies where in the files of a sound data directory, told from docs/FORMAT.md alone: this file shares no line
//! with the code it is held against.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::Range;
use std::path::{Path, PathBuf};

use corrente_protocol::ids::TopicId;

use super::image::Image;

const BLOCK: usize = 4096;
const ALIGN: usize = 64;
const EXTENT_HEADER: usize = 64;
const BATCH_HEADER: usize = 61;
const SEGMENT_HEADER: usize = 192;
const INDEX_HEADER: usize = 64;
const CHECKPOINT_HEADER: usize = 48;
const FRAME_HEADER: usize = 64;
const ENTRY: usize = 128;

/// What kind of file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// A segment that was appended to.
    Segment,
    /// A segment that compaction made.
    Rewritten,
    /// A segment of the metadata log.
    Metadata,
    Index,
    /// The one of a pair of checkpoint files that is written.
    Checkpoint,
    /// The older one.
    OlderCheckpoint,
    /// Producer states: without them the logs are read.
    Producers,
    LogStart,
    Identity,
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Kind::Segment => "segment",
            Kind::Rewritten => "rewritten",
            Kind::Metadata => "metadata",
            Kind::Index => "index",
            Kind::Checkpoint => "checkpoint",
            Kind::OlderCheckpoint => "checkpoint, older",
            Kind::Producers => "producers",
            Kind::LogStart => "log start",
            Kind::Identity => "identity",
        })
    }
}

/// What part of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Part {
    /// What begins the file.
    Header,
    ExtentHeader,
    BatchHeader,
    /// Records of an extent, points of an index.
    Body,
    Frame,
    Entry,
    /// Zeros that are not looked at.
    Padding,
    /// What lies behind the end: space ahead, or an earlier life of the file.
    Behind,
    /// More than one of these.
    Whole,
}

impl Part {
    /// Whether a start or a read of a segment relies on it.
    pub fn is_looked_at(self) -> bool {
        !matches!(self, Part::Padding | Part::Behind)
    }
}

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Part::Header => "header",
            Part::ExtentHeader => "extent header",
            Part::BatchHeader => "batch header",
            Part::Body => "body",
            Part::Frame => "frame",
            Part::Entry => "entry",
            Part::Padding => "padding",
            Part::Behind => "behind the end",
            Part::Whole => "",
        })
    }
}

/// A part of a file, from here to there.
#[derive(Clone, Debug)]
pub struct Stretch {
    pub part: Part,
    pub range: Range<usize>,
}

/// One extent of a segment.
#[derive(Clone, Debug)]
pub struct Extent {
    pub path: PathBuf,
    /// Header and body, without the padding behind.
    pub range: Range<usize>,
    /// The offsets it stands for.
    pub offsets: Range<u64>,
}

/// One file.
#[derive(Clone, Debug)]
pub struct MappedFile {
    pub kind: Kind,
    /// Without a gap, in order.
    pub stretches: Vec<Stretch>,
    /// The extents, if it is a segment, in order.
    pub extents: Vec<Extent>,
}

/// Every file.
#[derive(Clone, Debug, Default)]
pub struct Map {
    pub files: BTreeMap<PathBuf, MappedFile>,
}

impl Map {
    /// Draws the map of a sound directory.
    pub fn draw(image: &Image) -> Map {
        let mut files = BTreeMap::new();
        for (path, content) in &image.files {
            files.insert(path.clone(), draw_file(path, content));
        }
        let mut map = Map { files };
        map.tell_older_checkpoints(image);
        map
    }

    /// The extents of the log that lies in a directory, in order.
    pub fn extents_of(&self, dir: &Path) -> Vec<&Extent> {
        let files = self.files.iter().filter(|(path, _)| path.parent() == Some(dir));
        files.flat_map(|(_, file)| &file.extents).collect()
    }

    /// The part of a file that a byte lies in.
    pub fn part(&self, path: &Path, at: usize) -> Part {
        let stretches = &self.files[path].stretches;
        let found = stretches.iter().find(|stretch| stretch.range.contains(&at));
        found.map_or(Part::Behind, |stretch| stretch.part)
    }

    fn tell_older_checkpoints(&mut self, image: &Image) {
        let last_sequence =
            |path: &Path| checkpoint_frames(&image.files[path]).last().map(|frame| frame.sequence);
        let checkpoints = self.files.iter().filter(|(_, file)| file.kind == Kind::Checkpoint);
        let paths: Vec<PathBuf> = checkpoints.map(|(path, _)| path.clone()).collect();
        let newest = paths.iter().max_by_key(|path| last_sequence(path)).cloned();
        for path in paths.iter().filter(|path| Some(*path) != newest.as_ref()) {
            self.files.get_mut(path).expect("one of them").kind = Kind::OlderCheckpoint;
        }
    }
}

fn draw_file(path: &Path, content: &[u8]) -> MappedFile {
    let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    let (kind, mut parts, extents) = match name.rsplit_once('.').map_or(name, |(_, ending)| ending) {
        "seg" => draw_segment(path, content),
        "idx" => (Kind::Index, draw_index(content), Vec::new()),
        "a" | "b" => (Kind::Checkpoint, draw_checkpoint(content), Vec::new()),
        "producers" => (Kind::Producers, vec![(Part::Body, 0..content.len())], Vec::new()),
        "start" => (Kind::LogStart, vec![(Part::Header, 0..content.len())], Vec::new()),
        "identity" => (Kind::Identity, vec![(Part::Header, 0..content.len())], Vec::new()),
        _ => panic!("{} is no file of a data directory", path.display()),
    };
    let drawn = parts.last().map_or(0, |(_, range)| range.end);
    parts.push((Part::Behind, drawn..content.len()));
    let mut at = 0;
    for (part, range) in &parts {
        assert_eq!(range.start, at, "a gap before {part} in {}", path.display());
        at = range.end;
    }
    let stretches = parts.into_iter().filter(|(_, range)| !range.is_empty());
    let stretches = stretches.map(|(part, range)| Stretch { part, range }).collect();
    MappedFile { kind, stretches, extents }
}

type Parts = Vec<(Part, Range<usize>)>;

fn draw_segment(path: &Path, content: &[u8]) -> (Kind, Parts, Vec<Extent>) {
    assert_eq!(&content[..8], b"CORRSEGM", "{}", path.display());
    let rewritten_to = (u16_at(content, 10) != 0).then(|| usize_at(content, 104));
    let mut parts = vec![(Part::Header, 0..SEGMENT_HEADER), (Part::Padding, SEGMENT_HEADER..BLOCK)];
    let mut extents: Vec<Extent> = Vec::new();
    let mut at = BLOCK;
    let mut next = u64_at(content, 32);
    // An extent of an earlier life begins at another offset.
    while content.get(at..at + 4) == Some(b"CEXT")
        && u64_at(content, at + 16) == next
        && rewritten_to.is_none_or(|end| at < end)
    {
        let body = at + EXTENT_HEADER;
        let body_end = body + usize::try_from(u32_at(content, at + 8)).expect("64 bits");
        parts.push((Part::ExtentHeader, at..body));
        draw_batches(content, body..body_end, &mut parts);
        let end = body_end.next_multiple_of(ALIGN);
        parts.push((Part::Padding, body_end..end));
        let to = u64_at(content, at + 24);
        extents.push(Extent { path: path.to_owned(), range: at..body_end, offsets: next..to });
        (at, next) = (end, to);
    }
    let kind = match rewritten_to {
        _ if TopicId(content[16..32].try_into().expect("16 bytes")) == TopicId::METADATA => Kind::Metadata,
        Some(_) => Kind::Rewritten,
        None => Kind::Segment,
    };
    (kind, parts, extents)
}

fn draw_batches(content: &[u8], body: Range<usize>, parts: &mut Parts) {
    let mut at = body.start;
    while at < body.end {
        let length: [u8; 4] = content[at + 8..at + 12].try_into().expect("4 bytes");
        let end = at + 12 + usize::try_from(u32::from_be_bytes(length)).expect("64 bits");
        parts.push((Part::BatchHeader, at..at + BATCH_HEADER));
        parts.push((Part::Body, at + BATCH_HEADER..end));
        at = end;
    }
    assert_eq!(at, body.end, "batches fill their extent");
}

fn draw_index(content: &[u8]) -> Parts {
    let end = INDEX_HEADER + usize_at(content, 32);
    vec![
        (Part::Header, 0..INDEX_HEADER),
        (Part::Body, INDEX_HEADER..end),
        (Part::Padding, end..content.len()),
    ]
}

fn draw_checkpoint(content: &[u8]) -> Parts {
    let mut parts = vec![(Part::Header, 0..CHECKPOINT_HEADER), (Part::Padding, CHECKPOINT_HEADER..BLOCK)];
    for frame in checkpoint_frames(content) {
        let entries = frame.at + FRAME_HEADER;
        let end = entries + frame.count * ENTRY;
        parts.push((Part::Frame, frame.at..entries));
        parts.push((Part::Entry, entries..end));
        parts.push((Part::Padding, end..end.next_multiple_of(BLOCK)));
    }
    parts
}

struct Frame {
    at: usize,
    count: usize,
    sequence: u64,
}

fn checkpoint_frames(content: &[u8]) -> Vec<Frame> {
    let mut frames = Vec::new();
    let mut at = BLOCK;
    while content.get(at..at + 4) == Some(b"CKFR") {
        let count = usize::try_from(u32_at(content, at + 4)).expect("64 bits");
        frames.push(Frame { at, count, sequence: u64_at(content, at + 8) });
        at = (at + FRAME_HEADER + count * ENTRY).next_multiple_of(BLOCK);
    }
    frames
}

fn u16_at(bytes: &[u8], at: usize) -> u16 {
    u16::from_le_bytes(bytes[at..at + 2].try_into().expect("2 bytes"))
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().expect("4 bytes"))
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().expect("8 bytes"))
}

fn usize_at(bytes: &[u8], at: usize) -> usize {
    usize::try_from(u64_at(bytes, at)).expect("64 bits")
}
