//! Directories and names on a simulated disk: as they are, and as a crash would leave them.
//!
//! Every change of names is live at once and durable once one of its directories was synced; what is
//! neither is a list in the order of the changes. Draws nothing: whoever crashes the disk says which survive.

use super::image::FileData;
use std::{
    cell::RefCell,
    collections::BTreeMap,
    io,
    path::{Component, Path, PathBuf},
    rc::Rc,
};

/// A file, whatever it is called.
pub(crate) struct FileNode {
    pub(crate) id: u64,
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

/// See the module head.
pub(crate) struct Tree {
    root: Rc<DirNode>,
    /// Changes of names that are not durable, in the order they were made.
    changes: Vec<NameChange>,
    /// Files and directories made so far.
    nodes: u64,
}

impl Default for Tree {
    fn default() -> Self {
        Self {
            root: Rc::new(DirNode { id: 0, live: RefCell::default(), durable: RefCell::default() }),
            changes: Vec::new(),
            nodes: 0,
        }
    }
}

impl Tree {
    fn next_node(&mut self) -> u64 {
        self.nodes += 1;
        self.nodes
    }

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
        let file = Rc::new(FileNode { id: self.next_node(), data: RefCell::default() });
        self.change(NameChange::Set(place, Entry::File(file.clone())));
        file
    }

    pub(crate) fn create_dir(&mut self, path: &Path) -> io::Result<()> {
        match self.lookup(path) {
            Ok(Entry::Dir(_)) => Ok(()),
            Ok(Entry::File(_)) => Err(io::ErrorKind::NotADirectory.into()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let place = self.place(path)?;
                let id = self.next_node();
                let dir = DirNode { id, live: RefCell::default(), durable: RefCell::default() };
                self.change(NameChange::Set(place, Entry::Dir(Rc::new(dir))));
                Ok(())
            }
            Err(error) => Err(error),
        }
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

    pub(crate) fn link(&mut self, from: &Path, to: &Path) -> io::Result<()> {
        let entry = self.lookup(from)?;
        let to = self.place(to)?;
        match (&entry, to.dir.get(&to.name)) {
            (Entry::File(_), None) => {}
            (Entry::Dir(_), _) => return Err(io::ErrorKind::PermissionDenied.into()),
            (Entry::File(_), Some(_)) => return Err(io::ErrorKind::AlreadyExists.into()),
        }
        self.change(NameChange::Set(to, entry));
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

    pub(crate) fn remove_dir(&mut self, path: &Path) -> io::Result<()> {
        let dir = self.lookup_dir(path)?;
        if !dir.live.borrow().is_empty() {
            return Err(io::ErrorKind::DirectoryNotEmpty.into());
        }
        let place = self.place(path)?;
        self.change(NameChange::Unset(place));
        Ok(())
    }

    fn change(&mut self, change: NameChange) {
        drop(change.apply(Side::Live));
        self.changes.push(change);
    }

    /// Makes durable those changes of names in `dir` that `flushed` says.
    pub(crate) fn sync_dir(&mut self, dir: &DirNode, mut flushed: impl FnMut() -> bool) {
        let of_dir = |change: &mut NameChange| change.touches(dir.id) && flushed();
        let touching: Vec<_> = self.changes.extract_if(.., of_dir).collect();
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

    /// The power fails: `keeps` says of each change that is not durable, in order, whether it survives.
    pub(crate) fn crash(&mut self, mut keeps: impl FnMut() -> bool) {
        for change in self.changes.drain(..) {
            if keeps() {
                drop(change.apply(Side::Durable));
            }
        }
        revert(&self.root);
    }

    /// The lengths of all files at a path or below it.
    pub(crate) fn bytes_below(&self, path: &Path) -> u64 {
        self.files_below(path).iter().map(|(_, file)| file.data.borrow().len()).sum()
    }

    /// Every file at a path or below it with its own path, in the order of names.
    pub(crate) fn files_below(&self, path: &Path) -> Vec<(PathBuf, Rc<FileNode>)> {
        let mut files = Vec::new();
        match self.lookup(path) {
            Ok(Entry::Dir(dir)) => collect(path, &dir, &mut files),
            Ok(Entry::File(file)) => files.push((path.to_owned(), file)),
            Err(_) => {}
        }
        files
    }
}

/// Makes the durable names below `dir` the live ones.
fn revert(dir: &DirNode) {
    let names = dir.durable.borrow().clone();
    for entry in names.values() {
        if let Entry::Dir(child) = entry {
            revert(child);
        }
    }
    *dir.live.borrow_mut() = names;
}

fn collect(path: &Path, dir: &DirNode, files: &mut Vec<(PathBuf, Rc<FileNode>)>) {
    for (name, entry) in dir.live.borrow().iter() {
        let path = path.join(name);
        match entry {
            Entry::Dir(child) => collect(&path, child, files),
            Entry::File(file) => files.push((path, file.clone())),
        }
    }
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
