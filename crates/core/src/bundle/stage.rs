//! Staging: a private folder beside the destination, where content waits until all of it is verified, and the one
//! rename that publishes it.

use std::collections::HashMap;
use std::ffi::OsString;
use std::fs::File;
use std::io;
use std::ops::{Deref, Range};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use pouch_statement::{Escaped, RandomError};

use super::chosen::Chosen;
use super::index::{Entry, EntryKind, Index};
use super::litter::{self, MakeError};
use super::os::{self, Folder, RenameError};
use super::path::EntryPath;
use super::sink::{Sink, SinkError, SinkPart};

/// Why content could not be staged or published. None of these is the sender's doing.
#[derive(Debug, thiserror::Error)]
pub enum StageError {
    /// A destination like `.` or `/`, which cannot be made.
    #[error("{} cannot be a new folder", shown(path))]
    NoName {
        /// The destination.
        path: PathBuf,
    },
    /// Something is there already, or appeared meanwhile (attacks.md 5).
    #[error("{} exists, and nothing is ever overwritten", shown(path))]
    Exists {
        /// The destination.
        path: PathBuf,
    },
    /// The file system holds two names of the bundle as one (attacks.md 6).
    #[error("{path:?} cannot be told apart from another name of the bundle on this file system")]
    Collision {
        /// The second of the two.
        path: EntryPath,
    },
    /// The file system stored other names than it was given, or somebody else put something there.
    #[error("the names in folder `{}` of the bundle are not stored as they were written", Escaped(folder))]
    Names {
        /// The folder in the bundle; empty for the top.
        folder: String,
    },
    /// Somebody put something else in the place of the staging folder.
    #[error("the folder being received was replaced by somebody else")]
    Replaced,
    /// The file system cannot rename without replacing, so publishing could overwrite.
    #[error("the file system of {} cannot publish without overwriting (renameat2, RENAME_NOREPLACE)", shown(path))]
    NoSafeRename {
        /// The destination.
        path: PathBuf,
    },
    /// Writing an entry failed.
    #[error("cannot write {path:?}: {error}")]
    Entry {
        /// The entry.
        path: EntryPath,
        /// What the operating system said.
        #[source]
        error: io::Error,
    },
    /// Something else failed on the disk.
    #[error("cannot {what} {}: {error}", shown(path))]
    Io {
        /// What was tried, in our words.
        what: &'static str,
        /// Where.
        path: PathBuf,
        /// What the operating system said.
        #[source]
        error: io::Error,
    },
    /// The operating system gave no random bytes.
    #[error(transparent)]
    Random(#[from] RandomError),
}

pub(super) fn shown(path: &Path) -> String {
    Escaped(&path.to_string_lossy()).to_string()
}

/// The folder that holds `path`, opened and cleared of what killed processes left, and the last component.
pub(super) fn place(path: &Path) -> Result<(Folder, OsString), StageError> {
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
    if folder.has(name).map_err(|error| StageError::Io { what: "look at", path: path.to_owned(), error })? {
        return Err(StageError::Exists { path: path.to_owned() });
    }
    litter::clear(&folder);
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
/// umask; the folder around all stays 0700 until it is published, so nobody else gets at any of it (attacks.md 60). Dropped before [`Staged::publish`], it clears the folder away.
pub struct Staging {
    destination: PathBuf,
    parent: Folder,
    name: OsString,
    private: String,
    root: Folder,
    /// Files that lie in several parts, until they are complete.
    shared: Mutex<HashMap<usize, Arc<File>>>,
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
        let (parent, name) = place(destination)?;
        let (private, root) = private_folder(&parent, destination)?;
        let destination = destination.to_owned();
        let umask = os::umask();
        let shared = Mutex::default();
        Ok(Self { destination, parent, name, private, root, shared, umask, published: false })
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
        let names = self.root.names().map_err(self.io("list what was received into"))?;
        if same_names(names, top) { Ok(()) } else { Err(StageError::Names { folder: String::new() }) }
    }
}

/// Whether a folder holds exactly the names that the bundle has there.
fn same_names(mut found: Vec<Vec<u8>>, wanted: Option<Vec<&[u8]>>) -> bool {
    let mut wanted = wanted.unwrap_or_default();
    found.sort_unstable();
    wanted.sort_unstable();
    found == wanted
}

/// The folder that a thread wrote to last, so that its path is walked once for all that is in it.
#[derive(Default)]
struct Here(Option<(String, Folder)>);

impl Here {
    /// The open folder that `path` stands in.
    fn folder<'a>(&'a mut self, root: &'a Folder, path: &EntryPath) -> io::Result<&'a Folder> {
        let Some(parent) = path.parent() else { return Ok(root) };
        let here = match self.0.take() {
            Some(here) if here.0 == parent => here,
            _ => (parent.to_owned(), root.descend(parent)?),
        };
        Ok(&self.0.insert(here).1)
    }
}

impl Sink for Staging {
    type Done = Staged;
    type Part<'a> = StagingPart<'a>;
    const AHEAD: u32 = u32::MAX;

    /// Makes all folders, so that the parts find them in whatever order they come.
    fn begin(&mut self, index: &Index, chosen: &Chosen) -> Result<(), SinkError> {
        let mut here = Here::default();
        for (_, entry) in chosen.entries(index).filter(|(_, entry)| entry.kind == EntryKind::Folder) {
            let made = here.folder(&self.root, &entry.path).and_then(|folder| folder.create_folder(entry.path.name()));
            let folder = made.map_err(|error| entry_error(entry, error))?;
            here.0 = Some((entry.path.as_str().to_owned(), folder));
        }
        Ok(())
    }

    fn part(&self, _: u32) -> StagingPart<'_> {
        StagingPart { staging: self, here: Here::default(), file: None }
    }

    fn finish(self, index: &Index, chosen: &Chosen) -> Result<Staged, SinkError> {
        self.finish_folders(index, chosen)?;
        // One call for all files; a call for each would cost a disk's turn for each.
        self.root.sync_file_system().map_err(self.io("make durable"))?;
        Ok(Staged(self))
    }
}

/// A part on its way into the private folder.
pub struct StagingPart<'a> {
    staging: &'a Staging,
    here: Here,
    file: Option<Written>,
}

/// The file that is being written.
enum Written {
    /// By this part alone.
    Whole(File),
    /// By several parts.
    Shared(Arc<File>),
}

impl Deref for Written {
    type Target = File;

    fn deref(&self) -> &File {
        match self {
            Self::Whole(file) => file,
            Self::Shared(file) => file,
        }
    }
}

/// The permissions of a file, without what the umask takes away.
fn mode(executable: bool) -> u32 {
    if executable { 0o777 } else { 0o666 }
}

impl StagingPart<'_> {
    fn create(&mut self, entry: &Entry, make: impl Fn(&Folder, &str) -> io::Result<File>) -> Result<File, StageError> {
        let folder = self.here.folder(&self.staging.root, &entry.path);
        folder.and_then(|folder| make(folder, entry.path.name())).map_err(|error| entry_error(entry, error))
    }
}

impl SinkPart for StagingPart<'_> {
    fn begin_file(&mut self, number: usize, entry: &Entry, share: Range<u64>) -> Result<(), SinkError> {
        if share.end - share.start == entry.size() {
            // With its permissions from the start, which saves a call for each: the private folder keeps others out. Less the
            // umask also here, for where the folder has a default ACL the system does not look at it (acl(5)).
            let EntryKind::File { executable, .. } = entry.kind else { return Ok(()) };
            let mode = mode(executable) & !self.staging.umask;
            let file = self.create(entry, |folder, name| folder.create_new(name, mode))?;
            self.file = Some(Written::Whole(file));
            return Ok(());
        }
        // The first part that comes makes it, the others find it open: its name is not looked up again.
        let mut shared = self.staging.shared.lock().unwrap_or_else(PoisonError::into_inner);
        let file = match shared.get(&number) {
            Some(file) => file.clone(),
            None => {
                let file = Arc::new(self.create(entry, Folder::create_file)?);
                shared.insert(number, file.clone());
                file
            }
        };
        self.file = Some(Written::Shared(file));
        Ok(())
    }

    fn bytes(&mut self, at: u64, bytes: &[u8]) -> Result<(), SinkError> {
        match &self.file {
            Some(file) => Ok(file.write_all_at(bytes, at).map_err(self.staging.io("write into"))?),
            None => Err(StageError::Replaced.into()),
        }
    }

    fn end_file(&mut self, number: usize, entry: &Entry) -> Result<(), SinkError> {
        let EntryKind::File { executable, .. } = entry.kind else { return Ok(()) };
        let Some(file) = self.file.take() else { return Ok(()) };
        let set = |done: io::Result<()>| done.map_err(|error| entry_error(entry, error));
        // Now, while the handle is open.
        if let Written::Shared(file) = &file {
            set(os::set_file_mode(file, mode(executable) & !self.staging.umask))?;
            self.staging.shared.lock().unwrap_or_else(PoisonError::into_inner).remove(&number);
        }
        set(os::set_file_time(&file, entry.mtime))?;
        Ok(())
    }

    fn done(self) -> Result<(), SinkError> {
        Ok(())
    }
}

fn entry_error(entry: &Entry, error: io::Error) -> StageError {
    let path = entry.path.clone();
    if error.kind() == io::ErrorKind::AlreadyExists {
        StageError::Collision { path }
    } else {
        StageError::Entry { path, error }
    }
}

impl Drop for Staging {
    fn drop(&mut self) {
        if self.published {
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
        staging.root.set_mode(0o777 & !staging.umask).map_err(staging.io("publish"))?;
        staging.root.sync().map_err(staging.io("make durable"))?;
        rename(&staging.parent, &staging.private, &staging.name, &staging.destination)?;
        staging.published = true;
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
