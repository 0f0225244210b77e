//! What a sender gives: files and folders, walked and listed before anything is sealed.

use std::io;
use std::path::{Path, PathBuf};

use pouch_statement::{Blake3Digest, Escaped};

use super::archive::{Item, ItemKind};
use super::index::{ContentKind, MAX_ENTRIES};
use super::kept::{self, DigestKey, Over};
use super::layout::{Layout, LayoutError};
use super::os::{Folder, Seen};
use super::path::{EntryPath, Hazard, PathError, hazards};
use super::plan::Plan;
use super::walk::{Listed, Walk};

/// Why the source cannot be sent.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    /// No path was given.
    #[error("there is nothing to send")]
    Nothing,
    /// An argument like `..` or `/` beside others, or a file without a name.
    #[error("{} has no name of its own to be sent under", shown(path))]
    NoName {
        /// The argument.
        path: PathBuf,
    },
    /// Two arguments with the same last component.
    #[error("two of the paths are called {name:?}")]
    SameName {
        /// The name that both have.
        name: EntryPath,
    },
    /// A link, FIFO, socket or device.
    #[error("{} is a {what}, and only files and folders are sent", shown(path))]
    Special {
        /// Where.
        path: PathBuf,
        /// What it is, in our words.
        what: &'static str,
    },
    /// A name that is no UTF-8.
    #[error("the name {} is not UTF-8", shown(path))]
    NotUtf8 {
        /// Where.
        path: PathBuf,
    },
    /// A name that a bundle cannot carry.
    #[error("{} cannot be sent: {reason}", shown(path))]
    Path {
        /// Where.
        path: PathBuf,
        /// What is wrong with the name.
        reason: PathError,
    },
    /// The source is not what it was when it was listed.
    #[error("{} changed while it was being read", shown(path))]
    Changed {
        /// Where.
        path: PathBuf,
    },
    /// A folder that holds itself, through a link that was followed.
    #[error("{} leads back to a folder that it lies in", shown(path))]
    Loop {
        /// Where.
        path: PathBuf,
    },
    /// More entries than a bundle holds.
    #[error("more than {MAX_ENTRIES} files and folders do not fit into one bundle")]
    TooMany,
    /// More content than a bundle holds.
    #[error(transparent)]
    TooLarge(#[from] LayoutError),
    /// Reading failed.
    #[error("cannot read {}: {error}", shown(path))]
    Io {
        /// Where.
        path: PathBuf,
        /// What the operating system said.
        #[source]
        error: io::Error,
    },
}

fn shown(path: &Path) -> String {
    Escaped(&path.to_string_lossy()).to_string()
}

pub(super) fn io_at(path: &Path) -> impl FnOnce(io::Error) -> SourceError {
    let path = path.to_owned();
    move |error| SourceError::Io { path, error }
}

/// What to do with what is neither file nor folder. By default it is an error (attacks.md 15).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ScanOptions {
    /// Follow symbolic links and send what they lead to.
    pub dereference: bool,
    /// Leave out links (unless followed), FIFOs, sockets and devices.
    pub skip_special: bool,
}

/// A file or folder that will be sent.
#[derive(Debug)]
pub(super) struct Found {
    pub(super) path: EntryPath,
    pub(super) kind: ItemKind,
    /// What it was when it was listed.
    pub(super) seen: Seen,
    /// Which of the scan's roots it lies in.
    pub(super) root: usize,
}

impl Found {
    pub(super) fn item(&self) -> Item<'_> {
        Item { path: &self.path, mtime: self.seen.mtime.0, kind: self.kind }
    }
}

/// A folder that entries are read from, by the same path as in the bundle.
#[derive(Debug)]
pub(super) struct Root {
    pub(super) folder: Folder,
    pub(super) shown: PathBuf,
}

/// The folder that a thread read from last, so that its path is walked once for all that is in it.
#[derive(Default)]
pub(super) struct Here(Option<(usize, String, Folder)>);

impl Here {
    /// The folder of `found`, which lies in the folder `parent` of the bundle. No link is followed on the way.
    fn folder(&mut self, root: &Root, found: &Found, parent: &str) -> io::Result<&Folder> {
        let here = match self.0.take() {
            Some(here) if here.0 == found.root && here.1 == parent => here,
            _ => (found.root, parent.to_owned(), root.folder.descend(parent)?),
        };
        Ok(&self.0.insert(here).2)
    }
}

/// The list of what will be sent, with sizes, made before sealing begins.
///
/// Exactly one folder as argument: its content stands at the top of the bundle. Otherwise each argument is a
/// top entry under its own last component, and two with one name are an error.
#[derive(Debug)]
pub struct Scan {
    roots: Vec<Root>,
    found: Vec<Found>,
    skipped: Vec<PathBuf>,
    plan: Plan,
    layout: Layout,
    options: ScanOptions,
}

impl Scan {
    /// Walks the given paths. Folders on the way to an argument may be links; below it links are followed only with
    /// [`ScanOptions::dereference`].
    ///
    /// # Errors
    /// Whatever cannot be sent, see [`SourceError`].
    pub fn new(paths: &[PathBuf], options: ScanOptions) -> Result<Self, SourceError> {
        let mut walk = Walk::new(options);
        match paths {
            [] => return Err(SourceError::Nothing),
            [one] if walk.is_folder(one)? => walk.add_content_of(one)?,
            several => {
                for path in several {
                    walk.add_named(path)?;
                }
            }
        }
        let (roots, Listed { mut found, mut skipped, .. }) = walk.run()?;
        // Folders were listed in any order, each in that of the bundle.
        found.sort_by(|a, b| a.path.cmp(&b.path));
        skipped.sort();
        if let Some([twice, _]) = found.array_windows().find(|[a, b]| a.path == b.path) {
            return Err(SourceError::SameName { name: twice.path.clone() });
        }
        let mut plan = Plan::new(ContentKind::Tar);
        let fits = found.iter().try_for_each(|found| plan.push(&found.item()));
        let layout = Layout::of(fits.map_or(u64::MAX, |()| plan.content_size()))?;
        Ok(Self { roots, found, skipped, plan, layout, options })
    }

    /// What will be sent, in the order of the bundle.
    pub fn items(&self) -> impl ExactSizeIterator<Item = Item<'_>> {
        self.found.iter().map(Found::item)
    }

    /// Bytes in all files.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.found.iter().map(|f| f.kind.size()).sum()
    }

    /// Lengths of content, padding and parts, as they will be.
    #[must_use]
    pub fn layout(&self) -> &Layout {
        &self.layout
    }

    /// What was left out, with [`ScanOptions::skip_special`]. Show it escaped.
    #[must_use]
    pub fn skipped(&self) -> &[PathBuf] {
        &self.skipped
    }

    /// Names that may mean something else on the recipient's system.
    #[must_use]
    pub fn hazards(&self) -> Vec<Hazard> {
        hazards(self.found.iter().map(|f| &f.path))
    }

    /// A digest of the list under `key`: names, kinds, sizes, permissions, and times of last change to the nanosecond. Another
    /// one means that something else would be sent.
    #[must_use]
    pub fn digest(&self, key: &DigestKey) -> Blake3Digest {
        let mut hasher = key.hasher(Over::List);
        for Found { path, kind, seen, .. } in &self.found {
            let (kind, size) = match *kind {
                ItemKind::Folder => (b'd', 0),
                ItemKind::File { size, executable: false } => (b'f', size),
                ItemKind::File { size, executable: true } => (b'x', size),
            };
            let (seconds, nanoseconds) = seen.mtime;
            hasher.update(&(path.as_str().len() as u64).to_le_bytes()).update(path.as_str().as_bytes()).update(&[kind]);
            hasher.update(&size.to_le_bytes()).update(&seconds.to_le_bytes()).update(&nanoseconds.to_le_bytes());
        }
        kept::digest(&hasher)
    }

    pub(super) fn found(&self, number: usize) -> Option<&Found> {
        self.found.get(number)
    }

    /// The list itself, when nothing has to be read any more.
    pub(super) fn into_found(self) -> impl ExactSizeIterator<Item = Found> {
        self.found.into_iter()
    }

    /// Where each entry lies in the content.
    pub(super) fn plan(&self) -> &Plan {
        &self.plan
    }

    /// Opens a file of the list. What is there now may be something else: [`Scan::unchanged`] tells once it was read.
    pub(super) fn open(&self, found: &Found, here: &mut Here) -> Result<std::fs::File, SourceError> {
        let root = self.roots.get(found.root).ok_or(SourceError::Nothing)?;
        let follow = self.options.dereference;
        let file = match found.path.parent() {
            _ if follow => root.folder.open_file(found.path.as_str(), true),
            None => root.folder.open_file(found.path.name(), false),
            Some(parent) => {
                here.folder(root, found, parent).and_then(|folder| folder.open_file(found.path.name(), false))
            }
        };
        let file = file.map_err(|error| io_at(&self.place(found))(error))?;
        if follow {
            // A link may lead to a device by now, and reading that may have an effect.
            self.unchanged(found, &file)?;
        }
        Ok(file)
    }

    /// Compares an open file with what was listed: its node, size and time of last change.
    pub(super) fn unchanged(&self, found: &Found, file: &std::fs::File) -> Result<(), SourceError> {
        match Seen::file(file) {
            Ok(seen) if seen == found.seen => Ok(()),
            Ok(_) => Err(SourceError::Changed { path: self.place(found) }),
            Err(error) => Err(SourceError::Io { path: self.place(found), error }),
        }
    }

    /// Compares all folders with what was listed: a name that came or went shows in their time of last change.
    pub(super) fn folders_unchanged(&self) -> Result<(), SourceError> {
        for found in self.found.iter().filter(|f| f.kind == ItemKind::Folder) {
            let root = self.roots.get(found.root).ok_or(SourceError::Nothing)?;
            let folder = if self.options.dereference {
                root.folder.follow(found.path.as_str())
            } else {
                root.folder.descend(found.path.as_str())
            };
            match folder.and_then(|f| f.seen()) {
                Ok(seen) if seen == found.seen => {}
                Ok(_) => return Err(SourceError::Changed { path: self.place(found) }),
                Err(error) => return Err(SourceError::Io { path: self.place(found), error }),
            }
        }
        Ok(())
    }

    /// Where a listed entry is, for errors.
    pub(super) fn place(&self, found: &Found) -> PathBuf {
        self.roots.get(found.root).map(|r| r.shown.join(found.path.as_str())).unwrap_or_default()
    }
}
