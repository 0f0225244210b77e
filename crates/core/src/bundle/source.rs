//! What a sender gives: files and folders, walked and listed before anything is sealed.

use std::io;
use std::path::{Path, PathBuf};

use pouch_statement::Escaped;
use rustix::fs::FileType;

use super::archive::{Item, ItemKind, archive_size};
use super::index::MAX_ENTRIES;
use super::layout::{Layout, LayoutError};
use super::os::{Folder, Seen};
use super::path::{EntryPath, Hazard, PathError, hazards};

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
    root: usize,
}

impl Found {
    pub(super) fn item(&self) -> Item<'_> {
        Item { path: &self.path, mtime: self.seen.mtime.0, kind: self.kind }
    }
}

/// A folder that entries are read from, by the same path as in the bundle.
#[derive(Debug)]
struct Root {
    folder: Folder,
    shown: PathBuf,
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
        let mut walk = Walk { options, roots: Vec::new(), found: Vec::new(), skipped: Vec::new(), open: Vec::new() };
        match paths {
            [] => return Err(SourceError::Nothing),
            [one] if walk.is_folder(one)? => walk.add_content_of(one)?,
            several => {
                for path in several {
                    walk.add_named(path)?;
                }
            }
        }
        walk.run()?;
        let Walk { roots, mut found, skipped, .. } = walk;
        found.sort_by(|a, b| a.path.cmp(&b.path));
        if let Some([twice, _]) = found.array_windows().find(|[a, b]| a.path == b.path) {
            return Err(SourceError::SameName { name: twice.path.clone() });
        }
        let size = archive_size(found.iter().map(Found::item));
        let layout = Layout::of(size.unwrap_or(u64::MAX))?;
        Ok(Self { roots, found, skipped, layout, options })
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

    pub(super) fn found(&self, number: usize) -> Option<&Found> {
        self.found.get(number)
    }

    /// Opens a file of the list; it must still be what was listed.
    pub(super) fn open(&self, found: &Found) -> Result<std::fs::File, SourceError> {
        let shown = self.place(found);
        let root = self.roots.get(found.root).ok_or(SourceError::Nothing)?;
        let at = io_at(&shown);
        let follow = self.options.dereference;
        let file = match found.path.parent() {
            _ if follow => root.folder.open_file(found.path.as_str(), true),
            None => root.folder.open_file(found.path.name(), false),
            Some(parent) => root.folder.descend(parent).and_then(|folder| folder.open_file(found.path.name(), false)),
        };
        let file = file.map_err(at)?;
        self.unchanged(found, &file)?;
        Ok(file)
    }

    /// Compares an open file with what was listed: its node, size and time of last change.
    pub(super) fn unchanged(&self, found: &Found, file: &std::fs::File) -> Result<(), SourceError> {
        let path = self.place(found);
        if Seen::file(file).map_err(io_at(&path))? == found.seen { Ok(()) } else { Err(SourceError::Changed { path }) }
    }

    /// Compares all folders with what was listed: a name that came or went shows in their time of last change.
    pub(super) fn folders_unchanged(&self) -> Result<(), SourceError> {
        for found in self.found.iter().filter(|f| f.kind == ItemKind::Folder) {
            let path = self.place(found);
            let root = self.roots.get(found.root).ok_or(SourceError::Nothing)?;
            let folder = if self.options.dereference {
                root.folder.follow(found.path.as_str())
            } else {
                root.folder.descend(found.path.as_str())
            };
            match folder.and_then(|f| f.seen()) {
                Ok(seen) if seen == found.seen => {}
                Ok(_) => return Err(SourceError::Changed { path }),
                Err(error) => return Err(SourceError::Io { path, error }),
            }
        }
        Ok(())
    }

    /// Where a listed entry is, for errors.
    pub(super) fn place(&self, found: &Found) -> PathBuf {
        self.roots.get(found.root).map(|r| r.shown.join(found.path.as_str())).unwrap_or_default()
    }
}

/// A folder still to be listed.
struct Open {
    root: usize,
    /// `None` for the root itself.
    path: Option<EntryPath>,
    /// Nodes of the folders around it, to notice a loop of links.
    around: Vec<(u64, u64)>,
}

struct Walk {
    options: ScanOptions,
    roots: Vec<Root>,
    found: Vec<Found>,
    skipped: Vec<PathBuf>,
    open: Vec<Open>,
}

impl Walk {
    fn is_folder(&self, path: &Path) -> Result<bool, SourceError> {
        let seen = Seen::path(path, self.options.dereference).map_err(io_at(path))?;
        Ok(seen.kind == FileType::Directory)
    }

    fn add_content_of(&mut self, path: &Path) -> Result<(), SourceError> {
        let folder = Folder::open(path).map_err(io_at(path))?;
        self.roots.push(Root { folder, shown: path.to_owned() });
        self.open.push(Open { root: 0, path: None, around: Vec::new() });
        Ok(())
    }

    fn add_named(&mut self, path: &Path) -> Result<(), SourceError> {
        let name = path.file_name().ok_or_else(|| SourceError::NoName { path: path.to_owned() })?;
        let name = name.to_str().ok_or_else(|| SourceError::NotUtf8 { path: path.to_owned() })?;
        let entry = name.parse().map_err(|reason| SourceError::Path { path: path.to_owned(), reason })?;
        let parent = match path.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent,
            _ => Path::new("."),
        };
        let shown = path.parent().map(Path::to_owned).unwrap_or_default();
        // Arguments mostly stand side by side: one handle for each folder, not for each argument.
        let root = match self.roots.iter().position(|root| root.shown == shown) {
            Some(root) => root,
            None => {
                let folder = Folder::open(parent).map_err(io_at(parent))?;
                self.roots.push(Root { folder, shown });
                self.roots.len() - 1
            }
        };
        let folder = &self.roots.get(root).ok_or(SourceError::Nothing)?.folder;
        let seen = folder.stat(name, self.options.dereference).map_err(io_at(path))?;
        self.add(root, entry, seen, &[])
    }

    fn run(&mut self) -> Result<(), SourceError> {
        while let Some(open) = self.open.pop() {
            self.list(&open)?;
        }
        Ok(())
    }

    /// Lists one folder and queues the folders in it.
    fn list(&mut self, open: &Open) -> Result<(), SourceError> {
        let root = self.roots.get(open.root).ok_or(SourceError::Nothing)?;
        let place = open.path.as_ref().map_or_else(|| root.shown.clone(), |p| root.shown.join(p.as_str()));
        let below;
        let folder = match &open.path {
            None => &root.folder,
            Some(path) => {
                let opened = if self.options.dereference {
                    root.folder.follow(path.as_str())
                } else {
                    root.folder.descend(path.as_str())
                };
                below = opened.map_err(io_at(&place))?;
                &below
            }
        };
        let mut around = Vec::new();
        if self.options.dereference {
            let node = folder.seen().map_err(io_at(&place))?.node;
            if open.around.contains(&node) {
                return Err(SourceError::Loop { path: place });
            }
            around.clone_from(&open.around);
            around.push(node);
        }
        let mut listed = Vec::new();
        for name in folder.names().map_err(io_at(&place))? {
            let name = String::from_utf8(name).map_err(|e| SourceError::NotUtf8 {
                path: place.join(String::from_utf8_lossy(e.as_bytes()).as_ref()),
            })?;
            let path = match &open.path {
                Some(parent) => parent.join(&name),
                None => name.parse(),
            };
            let path = path.map_err(|reason| SourceError::Path { path: place.join(&name), reason })?;
            let seen = folder.stat(&name, self.options.dereference).map_err(io_at(&place.join(&name)))?;
            listed.push((path, seen));
        }
        for (path, seen) in listed {
            self.add(open.root, path, seen, &around)?;
        }
        Ok(())
    }

    fn add(&mut self, root: usize, path: EntryPath, seen: Seen, around: &[(u64, u64)]) -> Result<(), SourceError> {
        if self.found.len() as u64 >= MAX_ENTRIES {
            return Err(SourceError::TooMany);
        }
        let kind = match special(seen.kind) {
            None if seen.kind == FileType::Directory => {
                self.open.push(Open { root, path: Some(path.clone()), around: around.to_vec() });
                ItemKind::Folder
            }
            None => ItemKind::File { size: seen.size, executable: seen.mode & 0o100 != 0 },
            Some(what) => {
                let place = self.roots.get(root).map(|r| r.shown.join(path.as_str())).unwrap_or_default();
                if !self.options.skip_special {
                    return Err(SourceError::Special { path: place, what });
                }
                self.skipped.push(place);
                return Ok(());
            }
        };
        self.found.push(Found { path, kind, seen, root });
        Ok(())
    }
}

/// What a bundle does not carry, by the name people use for it.
fn special(kind: FileType) -> Option<&'static str> {
    match kind {
        FileType::RegularFile | FileType::Directory => None,
        FileType::Symlink => Some("symbolic link"),
        FileType::Fifo => Some("named pipe"),
        FileType::Socket => Some("socket"),
        _ => Some("device"),
    }
}
