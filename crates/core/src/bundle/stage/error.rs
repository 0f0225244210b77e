//! Why content could not be staged or published.

use std::io;
use std::path::{Path, PathBuf};

use pouch_statement::{Escaped, RandomError};

use crate::bundle::index::Entry;
use crate::bundle::path::EntryPath;

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
    /// The disk does not have room for what is still missing.
    #[error("{needed} more bytes are needed for {}, and the disk has {free} free", shown(path))]
    NoRoom {
        /// The destination.
        path: PathBuf,
        /// Bytes of files that are not there.
        needed: u64,
        /// Bytes that are free.
        free: u64,
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

fn shown(path: &Path) -> String {
    Escaped(&path.to_string_lossy()).to_string()
}

pub(super) fn entry_error(entry: &Entry, error: io::Error) -> StageError {
    let path = entry.path.clone();
    if error.kind() == io::ErrorKind::AlreadyExists {
        StageError::Collision { path }
    } else {
        StageError::Entry { path, error }
    }
}
