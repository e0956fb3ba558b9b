//! The disk of one simulated node: directories and files in memory, and what a crash does to them.
//!
//! Every operation takes a drawn time and happens when it completes, also if nobody waits any more.
//! [`submit`] is the one door: later faults (errors, a full disk, rot) belong there. Names become
//! durable by `sync_dir`, content by flushes; a crash draws for each change that is neither.

use super::{
    context::Context,
    image::{Fate, FileData, WriteFate},
    trace::Mark,
    world::{Event, WorldState},
};
use crate::file::Space;
use std::{
    cell::RefCell,
    collections::{BTreeMap, BTreeSet},
    future::Future,
    io,
    path::{Component, Path},
    pin::Pin,
    rc::Rc,
    task::{Poll, Waker},
};

/// What a disk holds.
const CAPACITY_BYTES: u64 = 1 << 40;

/// A file, whatever it is called.
pub(crate) struct FileNode {
    id: u64,
    pub(crate) data: RefCell<FileData>,
}

/// A directory: its names as they are, and as a crash would leave them if it lost every change.
pub(crate) struct DirNode {
    id: u64,
    live: RefCell<Names>,
    durable: RefCell<Names>,
}

type Names = BTreeMap<String, Entry>;

#[derive(Clone)]
pub(crate) enum Entry {
    File(Rc<FileNode>),
    Dir(Rc<DirNode>),
}

impl DirNode {
    fn names(&self, side: Side) -> &RefCell<Names> {
        match side {
            Side::Live => &self.live,
            Side::Durable => &self.durable,
        }
    }

    pub(crate) fn get(&self, name: &str) -> Option<Entry> {
        self.live.borrow().get(name).cloned()
    }

    /// What it holds now, by name.
    pub(crate) fn list(&self) -> Vec<(String, Entry)> {
        self.live.borrow().iter().map(|(name, entry)| (name.clone(), entry.clone())).collect()
    }
}

#[derive(Clone, Copy)]
enum Side {
    Live,
    Durable,
}

/// A name in a directory.
#[derive(Clone)]
pub(crate) struct Place {
    pub(crate) dir: Rc<DirNode>,
    pub(crate) name: String,
}

/// A change of names, made at one stroke or not at all.
enum NameChange {
    Set(Place, Entry),
    Unset(Place),
    Move { from: Place, to: Place, entry: Entry },
}

impl NameChange {
    /// Returns what a removal removed.
    fn apply(&self, side: Side) -> Option<Entry> {
        match self {
            Self::Set(place, entry) => set(side, place, entry),
            Self::Unset(place) => return place.dir.names(side).borrow_mut().remove(&place.name),
            Self::Move { from, to, entry } => {
                from.dir.names(side).borrow_mut().remove(&from.name);
                set(side, to, entry);
            }
        }
        None
    }

    fn touches(&self, dir: u64) -> bool {
        match self {
            Self::Set(place, _) | Self::Unset(place) => place.dir.id == dir,
            Self::Move { from, to, .. } => from.dir.id == dir || to.dir.id == dir,
        }
    }
}

fn set(side: Side, place: &Place, entry: &Entry) {
    place.dir.names(side).borrow_mut().insert(place.name.clone(), entry.clone());
}

/// What crashes have done to a disk, in writes and in changes of names.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DiskCounters {
    /// Crashes so far.
    pub crashes: u64,
    /// Unflushed writes that survived whole.
    pub writes_kept: u64,
    /// Unflushed writes of which some sectors survived.
    pub writes_torn: u64,
    /// Unflushed writes that left nothing.
    pub writes_lost: u64,
    /// Unsynced names, renames, removals and lengths that survived.
    pub changes_kept: u64,
    /// Unsynced names, renames, removals and lengths that did not.
    pub changes_lost: u64,
}

/// See the module head.
pub(crate) struct Disk {
    root: Rc<DirNode>,
    /// Changes of names that are not durable, in the order they were made.
    changes: Vec<NameChange>,
    /// Counts nodes of the tree, operations and completions: each number is given once.
    numbers: u64,
    locked: BTreeSet<u64>,
    /// When the last operation of each executor completes.
    quiet_at_ns: BTreeMap<u32, u64>,
    ignores_flush: bool,
    counters: DiskCounters,
}

impl Default for Disk {
    fn default() -> Self {
        Self {
            root: Rc::new(DirNode { id: 0, live: RefCell::default(), durable: RefCell::default() }),
            changes: Vec::new(),
            numbers: 0,
            locked: BTreeSet::new(),
            quiet_at_ns: BTreeMap::new(),
            ignores_flush: false,
            counters: DiskCounters::default(),
        }
    }
}

impl Disk {
    pub(crate) fn ignore_flush(&mut self, ignore: bool) {
        self.ignores_flush = ignore;
    }

    pub(crate) fn counters(&self) -> DiskCounters {
        self.counters
    }

    pub(crate) fn quiet_at_ns(&self, executor: u32) -> u64 {
        self.quiet_at_ns.get(&executor).copied().unwrap_or(0)
    }

    /// A number larger than all before: it orders completions and names operations.
    pub(crate) fn next_number(&mut self) -> u64 {
        self.numbers += 1;
        self.numbers
    }

    // Names.

    /// What `path` names. Relative paths begin at the root.
    pub(crate) fn lookup(&self, path: &Path) -> io::Result<Entry> {
        let mut at = Entry::Dir(self.root.clone());
        for name in parts(path)? {
            let Entry::Dir(dir) = at else { return Err(io::ErrorKind::NotADirectory.into()) };
            at = dir.get(name).ok_or(io::ErrorKind::NotFound)?;
        }
        Ok(at)
    }

    pub(crate) fn lookup_dir(&self, path: &Path) -> io::Result<Rc<DirNode>> {
        match self.lookup(path)? {
            Entry::Dir(dir) => Ok(dir),
            Entry::File(_) => Err(io::ErrorKind::NotADirectory.into()),
        }
    }

    /// The directory and name of `path`, whether or not anything is there.
    pub(crate) fn place(&self, path: &Path) -> io::Result<Place> {
        let name = parts(path)?.pop().ok_or(io::ErrorKind::InvalidInput)?.to_owned();
        let dir = self.lookup_dir(path.parent().unwrap_or(Path::new("")))?;
        Ok(Place { dir, name })
    }

    pub(crate) fn create_file(&mut self, place: Place) -> Rc<FileNode> {
        let file = Rc::new(FileNode { id: self.next_number(), data: RefCell::default() });
        self.change(NameChange::Set(place, Entry::File(file.clone())));
        file
    }

    pub(crate) fn create_dir_all(&mut self, path: &Path) -> io::Result<()> {
        let mut at = self.root.clone();
        for name in parts(path)? {
            at = match at.get(name) {
                Some(Entry::Dir(dir)) => dir,
                Some(Entry::File(_)) => return Err(io::ErrorKind::NotADirectory.into()),
                None => {
                    let dir = Rc::new(DirNode {
                        id: self.next_number(),
                        live: RefCell::default(),
                        durable: RefCell::default(),
                    });
                    let place = Place { dir: at.clone(), name: name.to_owned() };
                    self.change(NameChange::Set(place, Entry::Dir(dir.clone())));
                    self.sync_dir(&at);
                    dir
                }
            };
        }
        Ok(())
    }

    pub(crate) fn rename(&mut self, from: &Path, to: &Path) -> io::Result<()> {
        let entry = self.lookup(from)?;
        let (from, to) = (self.place(from)?, self.place(to)?);
        match (&entry, to.dir.get(&to.name)) {
            (_, None) | (Entry::File(_), Some(Entry::File(_))) => {}
            (Entry::File(_), Some(Entry::Dir(_))) => return Err(io::ErrorKind::IsADirectory.into()),
            (Entry::Dir(_), Some(Entry::File(_))) => return Err(io::ErrorKind::NotADirectory.into()),
            (Entry::Dir(_), Some(Entry::Dir(dir))) if dir.live.borrow().is_empty() => {}
            (Entry::Dir(_), Some(Entry::Dir(_))) => return Err(io::ErrorKind::DirectoryNotEmpty.into()),
        }
        self.change(NameChange::Move { from, to, entry });
        Ok(())
    }

    pub(crate) fn remove_file(&mut self, path: &Path) -> io::Result<()> {
        match self.lookup(path)? {
            Entry::Dir(_) => Err(io::ErrorKind::IsADirectory.into()),
            Entry::File(_) => {
                let place = self.place(path)?;
                self.change(NameChange::Unset(place));
                Ok(())
            }
        }
    }

    pub(crate) fn remove_dir_all(&mut self, path: &Path) -> io::Result<()> {
        let dir = self.lookup_dir(path)?;
        let place = self.place(path)?;
        self.empty(&dir);
        self.change(NameChange::Unset(place));
        Ok(())
    }

    fn empty(&mut self, dir: &Rc<DirNode>) {
        for (name, entry) in dir.list() {
            if let Entry::Dir(child) = &entry {
                self.empty(child);
            }
            self.change(NameChange::Unset(Place { dir: dir.clone(), name }));
        }
    }

    fn change(&mut self, change: NameChange) {
        drop(change.apply(Side::Live));
        self.changes.push(change);
    }

    pub(crate) fn sync_dir(&mut self, dir: &DirNode) {
        if self.ignores_flush {
            return;
        }
        let touching: Vec<_> = self.changes.extract_if(.., |change| change.touches(dir.id)).collect();
        for change in touching {
            if let Some(Entry::Dir(gone)) = change.apply(Side::Durable) {
                self.forget_changes_below(&gone);
            }
        }
    }

    /// A directory that is gone for good takes what was pending in it along.
    fn forget_changes_below(&mut self, dir: &DirNode) {
        self.changes.retain(|change| matches!(change, NameChange::Move { .. }) || !change.touches(dir.id));
        for entry in dir.durable.borrow().values() {
            if let Entry::Dir(child) = entry {
                self.forget_changes_below(child);
            }
        }
    }

    // Space.

    /// A file takes as much as it is long.
    pub(crate) fn space(&self) -> Space {
        let available_bytes = CAPACITY_BYTES.saturating_sub(bytes_below(&self.root));
        Space { total_bytes: CAPACITY_BYTES, available_bytes }
    }

    // Content.

    /// Ends a write that was begun under the number `operation`.
    pub(crate) fn complete_write(&mut self, file: &FileNode, operation: u64, durable: bool) {
        let completed = self.next_number();
        file.data.borrow_mut().complete_write(operation, completed, durable && !self.ignores_flush);
    }

    pub(crate) fn set_len(&mut self, file: &FileNode, len: u64) {
        let completed = self.next_number();
        file.data.borrow_mut().set_len(completed, len);
    }

    /// Makes durable what completed before the flush was submitted under the number `operation`.
    pub(crate) fn flush(&mut self, file: &FileNode, operation: u64) {
        if !self.ignores_flush {
            file.data.borrow_mut().flush(operation);
        }
    }

    // Locks.

    /// Takes the lock of a file; None if somebody holds it.
    pub(crate) fn lock(&mut self, file: &FileNode) -> Option<u64> {
        self.locked.insert(file.id).then_some(file.id)
    }

    pub(crate) fn unlock(&mut self, lock: u64) {
        self.locked.remove(&lock);
    }

    // Crashes.

    /// The power fails. Afterwards names and content are what the platter holds.
    pub(crate) fn crash(&mut self, world: &WorldState) {
        let keep_chance = world.config.crash.keep_chance.unwrap_or_else(|| draw_keep_chance(world));
        let mut draw = CrashDraw { world, keep_chance, counters: &mut self.counters };
        draw.counters.crashes += 1;
        for change in self.changes.drain(..) {
            if draw.keeps_change() {
                drop(change.apply(Side::Durable));
            }
        }
        settle(&self.root, &mut draw);
        self.locked.clear();
        self.quiet_at_ns.clear();
        world.note(Mark::DiskCrash, self.counters.writes_kept, self.counters.writes_lost);
    }
}

/// One crash in four loses all that is pending, one in four keeps all, the others something between.
fn draw_keep_chance(world: &WorldState) -> f64 {
    match world.draw_below(4) {
        0 => 0.0,
        1 => 1.0,
        _ => world.draw_below(1_000) as f64 / 1_000.0,
    }
}

/// Makes the durable names and contents below `dir` the live ones.
fn settle(dir: &DirNode, draw: &mut CrashDraw<'_>) {
    let names = dir.durable.borrow().clone();
    for entry in names.values() {
        match entry {
            Entry::Dir(child) => settle(child, draw),
            Entry::File(file) => file.data.borrow_mut().crash(draw),
        }
    }
    *dir.live.borrow_mut() = names;
}

/// The draws of one crash.
struct CrashDraw<'a> {
    world: &'a WorldState,
    keep_chance: f64,
    counters: &'a mut DiskCounters,
}

impl CrashDraw<'_> {
    fn keeps_change(&mut self) -> bool {
        let kept = self.world.chance(self.keep_chance);
        self.count_changes(u64::from(kept), u64::from(!kept));
        kept
    }

    fn count_changes(&mut self, kept: u64, lost: u64) {
        self.counters.changes_kept += kept;
        self.counters.changes_lost += lost;
    }

    /// At least one sector is lost and at least one kept; half of the tears are clean cuts.
    fn tear(&mut self, sectors: usize) -> Vec<bool> {
        let cut = 1 + self.world.draw_below(sectors as u64 - 1) as usize;
        if self.world.chance(0.5) {
            return (0..sectors).map(|sector| sector < cut).collect();
        }
        let mut kept: Vec<bool> = (0..sectors).map(|_| self.world.chance(0.5)).collect();
        kept[cut - 1] = true;
        kept[cut] = false;
        kept
    }
}

impl Fate for CrashDraw<'_> {
    fn of_write(&mut self, sectors: usize) -> WriteFate {
        if !self.world.chance(self.keep_chance) {
            self.counters.writes_lost += 1;
            return WriteFate::Lost;
        }
        if sectors > 1 && self.world.chance(self.world.config.crash.tear_chance) {
            self.counters.writes_torn += 1;
            return WriteFate::Torn(self.tear(sectors));
        }
        self.counters.writes_kept += 1;
        WriteFate::Kept
    }

    fn surviving_prefix(&mut self, changes: usize) -> usize {
        let kept = (0..changes).take_while(|_| self.world.chance(self.keep_chance)).count();
        self.count_changes(kept as u64, (changes - kept) as u64);
        kept
    }

    fn shuffle<T>(&mut self, items: &mut [T]) {
        self.world.shuffle(items);
    }
}

/// The lengths of all files below `dir`.
fn bytes_below(dir: &DirNode) -> u64 {
    let live = dir.live.borrow();
    let bytes = live.values().map(|entry| match entry {
        Entry::Dir(child) => bytes_below(child),
        Entry::File(file) => file.data.borrow().len(),
    });
    bytes.sum()
}

/// The names along a path, from the root.
fn parts(path: &Path) -> io::Result<Vec<&str>> {
    let mut names = Vec::new();
    for component in path.components() {
        match component {
            Component::Normal(name) => names.push(name.to_str().ok_or(io::ErrorKind::InvalidFilename)?),
            Component::ParentDir => drop(names.pop()),
            Component::CurDir | Component::RootDir | Component::Prefix(_) => {}
        }
    }
    Ok(names)
}

/// Starts an operation that completes after `delay_ns`; `apply` then makes it happen. `fingerprint`
/// stands for it in the trace. The operation goes on if the future is dropped, and dies with the node.
pub(crate) fn submit<T: 'static>(
    context: &Context,
    delay_ns: u64,
    fingerprint: u64,
    apply: impl FnOnce(&mut Disk) -> io::Result<T> + 'static,
) -> Operation<T> {
    let Context { world, life, executor, .. } = context;
    let outcome = Rc::new(RefCell::new(Outcome { result: None, waiter: None }));
    if !world.is_alive(*life) {
        outcome.borrow_mut().result = Some(Err(io::Error::other("the node of this file has crashed")));
        return Operation { outcome };
    }
    world.note(Mark::DiskSubmit, life.node as u64, fingerprint);
    let at_ns = world.now_ns().saturating_add(delay_ns);
    {
        let mut nodes = world.nodes.borrow_mut();
        let quiet_at_ns = nodes[life.node].disk.quiet_at_ns.entry(*executor).or_default();
        *quiet_at_ns = at_ns.max(*quiet_at_ns);
    }
    // The closure keeps the outcome alive until the disk is no longer borrowed: its drop may call back.
    let completed = outcome.clone();
    let mut apply = Some(apply);
    let complete = Box::new(move |disk: &mut Disk| {
        let result = apply.take()?(disk);
        let mut outcome = completed.borrow_mut();
        outcome.result = Some(result);
        outcome.waiter.take()
    });
    world.schedule(at_ns, Event::Disk(*life, complete));
    Operation { outcome }
}

struct Outcome<T> {
    result: Option<io::Result<T>>,
    waiter: Option<Waker>,
}

/// Resolves when the operation has completed.
pub(crate) struct Operation<T> {
    outcome: Rc<RefCell<Outcome<T>>>,
}

impl<T> Future for Operation<T> {
    type Output = io::Result<T>;

    fn poll(self: Pin<&mut Self>, cx: &mut std::task::Context<'_>) -> Poll<Self::Output> {
        let mut outcome = self.outcome.borrow_mut();
        if let Some(result) = outcome.result.take() {
            return Poll::Ready(result);
        }
        let outdated = outcome.waiter.replace(cx.waker().clone());
        drop(outcome);
        drop(outdated);
        Poll::Pending
    }
}
