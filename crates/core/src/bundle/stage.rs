//! Staging: a private folder beside the destination, where content waits until all of it is verified, and the one
//! rename that publishes it.

mod error;
mod part;

use std::collections::{BTreeSet, HashMap};
use std::ffi::OsString;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use pouch_statement::{BundleId, Timestamp};

pub use self::error::StageError;
use self::error::entry_error;
pub use self::part::StagingPart;
pub(super) use self::part::{Here, apply};
use super::chosen::Chosen;
use super::index::{EntryKind, Index};
use super::litter::{self, MakeError};
use super::os::{self, Folder, RenameError};
use super::resume::{self, Had, Keep, Record};
use super::sink::{Sink, SinkError};

/// The folder that holds `path`, which must not exist, opened and cleared of what killed processes left; and the last
/// component.
pub(super) fn place(path: &Path, now: Option<Timestamp>) -> Result<(Folder, OsString), StageError> {
    let (folder, name) = around(path)?;
    if folder.has(&name).map_err(|error| StageError::Io { what: "look at", path: path.to_owned(), error })? {
        return Err(StageError::Exists { path: path.to_owned() });
    }
    litter::clear(&folder, now);
    Ok((folder, name))
}

/// The folder that holds `path`, and the last component.
fn around(path: &Path) -> Result<(Folder, OsString), StageError> {
    let name = path.file_name().ok_or_else(|| StageError::NoName { path: path.to_owned() })?;
    let parent = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    let folder = Folder::open(parent).map_err(|error| StageError::Io {
        what: "open the folder",
        path: parent.to_owned(),
        error,
    })?;
    Ok((folder, name.to_owned()))
}

/// A private folder, made and claimed; see [`litter::make`].
fn private_folder(parent: &Folder, destination: &Path) -> Result<(String, Folder), StageError> {
    litter::make(|name| parent.create_folder(name), parent).map_err(|error| match error {
        MakeError::Random(error) => StageError::Random(error),
        MakeError::Io(error) => {
            StageError::Io { what: "make a private folder beside", path: destination.to_owned(), error }
        }
    })
}

/// Takes a bundle into a private folder beside `destination`, on the same file system.
///
/// Its folders, and files that several parts make, are 0700 and 0600 while anything about them is unverified, whatever the
/// umask; the folder around all stays 0700 until it is published, so nobody else gets at any of it (attacks.md 60). Dropped
/// before [`Staged::publish`], it clears the folder away, unless it is to be gone on with.
pub struct Staging {
    destination: PathBuf,
    parent: Folder,
    name: OsString,
    private: String,
    root: Folder,
    /// Files that lie in several parts, until they are complete.
    shared: Mutex<HashMap<usize, Arc<Mutex<File>>>>,
    /// What to go on with when this is cut off, if it may be.
    record: Option<Record>,
    /// Files of which something was there before.
    had: BTreeSet<usize>,
    umask: u32,
    published: bool,
}

impl Staging {
    /// Makes the private folder, and clears away those beside it that killed processes of this user left. The destination
    /// must not exist; the folder around it must.
    ///
    /// # Errors
    /// [`StageError::Exists`] and whatever the disk refuses.
    pub fn new(destination: &Path) -> Result<Self, StageError> {
        let (parent, name) = place(destination, None)?;
        let (private, root) = private_folder(&parent, destination)?;
        Ok(Self::of(destination, parent, name, private, root, None))
    }

    /// As [`Staging::new`], but what is verified stays when it is dropped, or the process is killed, and the next one for
    /// the same goes on with it. Where the file system or another process does not allow that, it is as
    /// [`Staging::new`].
    ///
    /// # Errors
    /// [`StageError::Exists`] and whatever the disk refuses.
    pub fn resumable(destination: &Path, keep: &Keep) -> Result<Self, StageError> {
        let io = |what| {
            let path = destination.to_owned();
            move |error| StageError::Io { what, path, error }
        };
        let (parent, name) = place(destination, Some(keep.now))?;
        let private = litter::name_of(resume::folder_id(keep.bundle, &keep.paths));
        let taken = litter::take_up(&parent, &private).map_err(io("make a private folder beside"))?;
        let Some(root) = taken else {
            let (private, root) = private_folder(&parent, destination)?;
            return Ok(Self::of(destination, parent, name, private, root, None));
        };
        let record = Record::open(&root, &private, keep).map_err(io("make a private folder beside"))?;
        Ok(Self::of(destination, parent, name, private, root, Some(record)))
    }

    fn of(
        destination: &Path,
        parent: Folder,
        name: OsString,
        private: String,
        root: Folder,
        record: Option<Record>,
    ) -> Self {
        Self {
            destination: destination.to_owned(),
            parent,
            name,
            private,
            root,
            shared: Mutex::default(),
            record,
            had: BTreeSet::new(),
            umask: os::umask(),
            published: false,
        }
    }

    /// Where something is kept that [`Staging::resumable`] would go on with; `None` if nothing is.
    #[must_use]
    pub fn kept(destination: &Path, bundle: BundleId, paths: &[String]) -> Option<PathBuf> {
        let private = litter::name_of(resume::folder_id(bundle, paths));
        let (parent, _) = around(destination).ok()?;
        let folder = litter::find(&parent, &private).ok()??;
        resume::expires(&folder, &private).map(|_| destination.with_file_name(&private))
    }

    /// Clears that away, unless a process is at it.
    ///
    /// # Errors
    /// Whatever the disk refuses.
    pub fn discard(destination: &Path, bundle: BundleId, paths: &[String]) -> Result<(), StageError> {
        let private = litter::name_of(resume::folder_id(bundle, paths));
        let (parent, _) = around(destination)?;
        litter::discard(&parent, &private).map_err(|error| StageError::Io {
            what: "clear away what was begun of",
            path: destination.to_owned(),
            error,
        })
    }

    /// Whether there is something to go on with.
    #[must_use]
    pub fn goes_on(&self) -> bool {
        self.record.as_ref().is_some_and(Record::is_worth_it)
    }

    /// The private folder, for tests and for telling a person where leftovers of a crash lie.
    #[must_use]
    pub fn private_path(&self) -> PathBuf {
        self.destination.with_file_name(&self.private)
    }

    fn io(&self, what: &'static str) -> impl FnOnce(io::Error) -> StageError {
        let path = self.destination.clone();
        move |error| StageError::Io { what, path, error }
    }

    /// Gives folders their times and permissions, deepest first, and checks that names were stored as written.
    fn finish_folders(&self, index: &Index, chosen: &Chosen) -> Result<(), StageError> {
        let mut children: HashMap<&str, Vec<&[u8]>> = HashMap::new();
        for (_, entry) in chosen.entries(index) {
            children.entry(entry.path.parent().unwrap_or_default()).or_default().push(entry.path.name().as_bytes());
        }
        for (_, entry) in chosen.entries(index).rev().filter(|(_, e)| e.kind == EntryKind::Folder) {
            let at = |error| StageError::Entry { path: entry.path.clone(), error };
            let folder = self.root.descend(entry.path.as_str()).map_err(at)?;
            let names = folder.names().map_err(at)?;
            if !same_names(names, children.remove(entry.path.as_str())) {
                return Err(StageError::Names { folder: entry.path.as_str().to_owned() });
            }
            folder.set_mtime(entry.mtime).map_err(at)?;
            folder.set_mode(0o777 & !self.umask).map_err(at)?;
        }
        let top = children.remove("");
        let mut names = self.root.names().map_err(self.io("list what was received into"))?;
        if self.record.is_some() {
            names.retain(|name| name != self.private.as_bytes());
        }
        if same_names(names, top) { Ok(()) } else { Err(StageError::Names { folder: String::new() }) }
    }
}

impl Staging {
    /// Makes all folders, so that the parts find them in whatever order they come.
    fn make_folders(&self, index: &Index, chosen: &Chosen) -> Result<(), StageError> {
        let again = self.record.as_ref().is_some_and(Record::was_there);
        let mut here = Here::default();
        for (_, entry) in chosen.entries(index).filter(|(_, entry)| entry.kind == EntryKind::Folder) {
            let name = entry.path.name();
            let made = here.folder(&self.root, &entry.path).and_then(|folder| match folder.create_folder(name) {
                Err(error) if again && error.kind() == io::ErrorKind::AlreadyExists => folder.private_again(name),
                other => other,
            });
            let folder = made.map_err(|error| entry_error(entry, error))?;
            here.enter(&entry.path, folder);
        }
        Ok(())
    }

    /// Removes what stands in the private folder and is not in `had`, nor a folder of the bundle's.
    fn tidy(&self, index: &Index, chosen: &Chosen, had: &BTreeSet<usize>) -> io::Result<()> {
        let mut wanted: HashMap<&str, BTreeSet<&[u8]>> =
            HashMap::from([("", BTreeSet::from([self.private.as_bytes()]))]);
        for (number, entry) in chosen.entries(index) {
            let around = wanted.entry(entry.path.parent().unwrap_or_default()).or_default();
            if entry.kind == EntryKind::Folder || had.contains(&number) {
                around.insert(entry.path.name().as_bytes());
            }
            if entry.kind == EntryKind::Folder {
                wanted.entry(entry.path.as_str()).or_default();
            }
        }
        for (path, names) in wanted {
            let below = if path.is_empty() { None } else { Some(self.root.descend(path)) };
            let folder = match &below {
                None => &self.root,
                Some(Ok(folder)) => folder,
                // Not made yet, or something else in its place, which goes when it is made.
                Some(Err(_)) => continue,
            };
            for name in folder.names()? {
                if !names.contains(name.as_slice()) {
                    folder.remove_any(&name)?;
                }
            }
        }
        Ok(())
    }

    /// Whether there is room for all files, of which so many bytes are there.
    fn check_room(&self, index: &Index, chosen: &Chosen, had: u64) -> Result<(), StageError> {
        let all = chosen.files(index).fold(0_u64, |sum, (_, entry)| sum.saturating_add(entry.size()));
        let needed = all.saturating_sub(had);
        // Where the file system cannot say, writing tells.
        match self.parent.free() {
            Ok(free) if free < needed => Err(StageError::NoRoom { path: self.destination.clone(), needed, free }),
            _ => Ok(()),
        }
    }
}

/// Whether a folder holds exactly the names that the bundle has there.
fn same_names(mut found: Vec<Vec<u8>>, wanted: Option<Vec<&[u8]>>) -> bool {
    let mut wanted = wanted.unwrap_or_default();
    found.sort_unstable();
    wanted.sort_unstable();
    found == wanted
}

impl Sink for Staging {
    type Done = Staged;
    type Part<'a> = StagingPart<'a>;
    const AHEAD: u32 = u32::MAX;

    fn begin(&mut self, index: &Index, chosen: &Chosen) -> Result<Had, SinkError> {
        let mut had = Had::default();
        if let Some(record) = self.record.as_ref().filter(|record| record.was_there()) {
            had = resume::look(&self.root, record, index, chosen, self.umask);
            let files = had.take_files();
            self.tidy(index, chosen, &files).map_err(self.io("go on with what is there of"))?;
            self.had = files;
        }
        self.make_folders(index, chosen)?;
        self.check_room(index, chosen, had.bytes())?;
        Ok(had)
    }

    fn part(&self, number: u32) -> StagingPart<'_> {
        StagingPart::new(self, number)
    }

    fn finish(self, index: &Index, chosen: &Chosen) -> Result<Staged, SinkError> {
        self.finish_folders(index, chosen)?;
        // One call for all files; a call for each would cost a disk's turn for each.
        self.root.sync_file_system().map_err(self.io("make durable"))?;
        Ok(Staged(self))
    }
}

impl Drop for Staging {
    fn drop(&mut self) {
        if self.published || self.goes_on() {
            return;
        }
        // By our own handle, so that nothing of anybody else's is ever removed. Failing, it leaves a hidden folder.
        let cleared = self.root.clear_all().and_then(|()| self.root.seen());
        let named = self.parent.stat(self.private.as_str(), false);
        if let (Ok(ours), Ok(named)) = (cleared, named)
            && ours.node == named.node
        {
            let _ = self.parent.remove_empty(self.private.as_str());
        }
    }
}

/// A bundle that is complete, verified and durable, and not yet at its destination.
pub struct Staged(Staging);

impl Staged {
    /// Renames the private folder to the destination, which must still not exist, and makes that durable.
    ///
    /// # Errors
    /// [`StageError::Exists`] when something appeared there; the private folder is cleared away then.
    pub fn publish(mut self) -> Result<PathBuf, StageError> {
        let staging = &mut self.0;
        let ours = staging.root.seen().map_err(staging.io("publish"))?.node;
        let named = staging.parent.stat(staging.private.as_str(), false).map_err(staging.io("publish"))?;
        if named.node != ours {
            return Err(StageError::Replaced);
        }
        // Without its record nothing goes on from here: what fails now is cleared away.
        if staging.record.take().is_some() {
            staging.root.remove_file(staging.private.as_str()).map_err(staging.io("publish"))?;
        }
        staging.root.sync().map_err(staging.io("make durable"))?;
        rename(&staging.parent, &staging.private, &staging.name, &staging.destination)?;
        staging.published = true;
        // Only now, so that whatever is left hidden is for its owner alone.
        staging.root.set_mode(0o777 & !staging.umask).map_err(staging.io("publish"))?;
        // Between the look and the rename somebody may have been quick; then it is not ours that stands there.
        let there = staging.parent.stat(staging.name.as_os_str(), false).map_err(staging.io("publish"))?;
        if there.node != ours {
            return Err(StageError::Replaced);
        }
        staging.parent.sync().map_err(staging.io("make durable"))?;
        Ok(staging.destination.clone())
    }
}

/// Publishes `private` as `name` in one step that replaces nothing.
pub(super) fn rename(parent: &Folder, private: &str, name: &OsString, shown: &Path) -> Result<(), StageError> {
    let path = shown.to_owned();
    parent.rename_new(private, name.as_os_str()).map_err(|error| match error {
        RenameError::Exists => StageError::Exists { path },
        RenameError::Unsupported => StageError::NoSafeRename { path },
        RenameError::Io(error) => StageError::Io { what: "publish", path, error },
    })
}
