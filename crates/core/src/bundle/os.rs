//! Folders as open handles: every system call of the bundle code, in one place (Linux).
//!
//! Names below a handle are single components or checked paths, and no symbolic link is ever followed on the way,
//! so whoever swaps a folder for a link while we work gains nothing (attacks.md 4).

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::fs::{
    AtFlags, CWD, Dir, FileType, FlockOperation, Mode, OFlags, RenameFlags, ResolveFlags, Timespec, Timestamps,
};
use rustix::io::Errno;
use rustix::path::Arg;

/// Permissions of what is not verified or not public: the owner's alone, under any umask (attacks.md 60).
pub(super) const PRIVATE_FILE: u32 = 0o600;
pub(super) const PRIVATE_FOLDER: u32 = 0o700;
/// Folders within folders that clearing away goes down into; more than a bundle can hold.
const MAX_CLEAR_DEPTH: usize = 2 * super::path::MAX_DEPTH;

/// What a name stands for, and what tells whether it is still the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Seen {
    pub(super) kind: FileType,
    pub(super) mode: u32,
    pub(super) size: u64,
    /// Seconds and nanoseconds.
    pub(super) mtime: (i64, u64),
    /// Device and inode.
    pub(super) node: (u64, u64),
    /// The id of the user whose it is.
    pub(super) owner: u32,
    /// Names that it has.
    pub(super) links: u64,
}

impl Seen {
    #[expect(clippy::unnecessary_cast, clippy::useless_conversion, reason = "the types differ between architectures")]
    fn of(stat: &rustix::fs::Stat) -> Self {
        Self {
            kind: FileType::from_raw_mode(stat.st_mode),
            mode: u32::from(stat.st_mode) & 0o7777,
            size: stat.st_size as u64,
            mtime: (stat.st_mtime as i64, stat.st_mtime_nsec as u64),
            node: (stat.st_dev as u64, stat.st_ino as u64),
            owner: u32::from(stat.st_uid),
            links: stat.st_nlink as u64,
        }
    }

    /// What an open file is now.
    pub(super) fn file(file: &File) -> io::Result<Self> {
        Ok(Self::of(&rustix::fs::fstat(file)?))
    }

    /// What a path leads to; the caller's own path, so links in its folders are followed.
    pub(super) fn path(path: &Path, follow: bool) -> io::Result<Self> {
        Ok(Self::of(&rustix::fs::statat(CWD, path, stat_flags(follow))?))
    }
}

fn stat_flags(follow: bool) -> AtFlags {
    if follow { AtFlags::empty() } else { AtFlags::SYMLINK_NOFOLLOW }
}

/// An open folder.
#[derive(Debug)]
pub(super) struct Folder(OwnedFd);

const FOLDER_FLAGS: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::CLOEXEC).union(OFlags::NOCTTY);

impl Folder {
    /// Opens a folder by the caller's own path, links followed.
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        Ok(Self(rustix::fs::openat(CWD, path, FOLDER_FLAGS, Mode::empty())?))
    }

    /// Opens the folder `path` beneath this one. Components are separated by `/`, none is `.` or `..`.
    pub(super) fn descend(&self, path: &str) -> io::Result<Self> {
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
        match rustix::fs::openat2(&self.0, path, FOLDER_FLAGS, Mode::empty(), resolve) {
            Ok(fd) => Ok(Self(fd)),
            // Kernels before 5.6, sandboxes that do not know the call, and paths longer than one call takes.
            Err(Errno::NOSYS | Errno::PERM | Errno::NAMETOOLONG) => self.descend_by_steps(path),
            Err(error) => Err(error.into()),
        }
    }

    fn descend_by_steps(&self, path: &str) -> io::Result<Self> {
        let mut components = path.split('/');
        let mut folder = self.step(components.next().unwrap_or_default())?;
        for component in components {
            folder = folder.step(component)?;
        }
        Ok(folder)
    }

    fn step(&self, name: &str) -> io::Result<Self> {
        if matches!(name, "" | "." | "..") {
            return Err(Errno::INVAL.into());
        }
        Ok(Self(rustix::fs::openat(&self.0, name, FOLDER_FLAGS | OFlags::NOFOLLOW, Mode::empty())?))
    }

    /// Opens a file to read. Never waits: a FIFO that took the file's place is opened, and cannot be read at an offset.
    pub(super) fn open_file(&self, name: &str, follow: bool) -> io::Result<File> {
        let mut flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC | OFlags::NOCTTY;
        if !follow {
            flags |= OFlags::NOFOLLOW;
        }
        Ok(rustix::fs::openat(&self.0, name, flags, Mode::empty())?.into())
    }

    /// Follows links to a folder; only for a source that the caller wants dereferenced.
    pub(super) fn follow(&self, path: &str) -> io::Result<Self> {
        Ok(Self(rustix::fs::openat(&self.0, path, FOLDER_FLAGS, Mode::empty())?))
    }

    /// What this folder is now.
    pub(super) fn seen(&self) -> io::Result<Seen> {
        Ok(Seen::of(&rustix::fs::fstat(&self.0)?))
    }

    /// What `name` in this folder stands for.
    pub(super) fn stat(&self, name: impl Arg, follow: bool) -> io::Result<Seen> {
        Ok(Seen::of(&rustix::fs::statat(&self.0, name, stat_flags(follow))?))
    }

    /// Whether there is anything called `name`, be it a link to nowhere.
    pub(super) fn has(&self, name: impl Arg) -> io::Result<bool> {
        match self.stat(name, false) {
            Ok(_) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// The names in this folder as bytes, without `.` and `..`, in no order.
    pub(super) fn names(&self) -> io::Result<Vec<Vec<u8>>> {
        let mut names = Vec::new();
        for entry in Dir::read_from(&self.0)? {
            let entry = entry?;
            let name = entry.file_name().to_bytes();
            if name != b"." && name != b".." {
                names.push(name.to_vec());
            }
        }
        Ok(names)
    }

    /// The names in this folder of which `wanted` says so, as text; at most `most`.
    pub(super) fn names_like(&self, most: usize, wanted: impl Fn(&str) -> bool) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in Dir::read_from(&self.0)? {
            let entry = entry?;
            if let Ok(name) = entry.file_name().to_str()
                && wanted(name)
            {
                names.push(name.to_owned());
                if names.len() == most {
                    break;
                }
            }
        }
        Ok(names)
    }

    /// Opens whatever is called `name`, but no link, and never waits.
    pub(super) fn open_any(&self, name: &str) -> io::Result<OwnedFd> {
        let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NOCTTY;
        Ok(rustix::fs::openat(&self.0, name, flags, Mode::empty())?)
    }

    /// Makes a file that was not there, with these permissions as far as the umask leaves them. The handle can write in any
    /// case.
    pub(super) fn create_new(&self, name: &str, mode: u32) -> io::Result<File> {
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        Ok(rustix::fs::openat(&self.0, name, flags, Mode::from_raw_mode(mode))?.into())
    }

    /// Makes a file that was not there, readable by the owner alone.
    pub(super) fn create_file(&self, name: &str) -> io::Result<File> {
        let file = self.create_new(name, PRIVATE_FILE)?;
        // A umask can only have taken permissions away; give the owner theirs.
        rustix::fs::fchmod(&file, Mode::from_raw_mode(PRIVATE_FILE))?;
        Ok(file)
    }

    /// Makes a file that was not there, readable by the owner alone, to be written at its end.
    pub(super) fn create_appending(&self, name: &str) -> io::Result<File> {
        self.create_file(name)?;
        self.open_appending(name)
    }

    /// Opens a file of this user's to be read, and written at its end.
    pub(super) fn open_appending(&self, name: &str) -> io::Result<File> {
        self.open_own(name, OFlags::RDWR | OFlags::APPEND)
    }

    /// Opens a file of this user's to be written.
    pub(super) fn open_writing(&self, name: &str) -> io::Result<File> {
        self.open_own(name, OFlags::WRONLY)
    }

    fn open_own(&self, name: &str, flags: OFlags) -> io::Result<File> {
        let flags = flags | OFlags::NONBLOCK | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NOCTTY;
        let file: File = rustix::fs::openat(&self.0, name, flags, Mode::empty())?.into();
        let seen = Seen::file(&file)?;
        // Under another name somebody could change it later.
        let ours = seen.kind == FileType::RegularFile && seen.owner == me() && seen.links == 1;
        if ours { Ok(file) } else { Err(Errno::PERM.into()) }
    }

    /// Bytes that this user may still write to the file system of this folder.
    pub(super) fn free(&self) -> io::Result<u64> {
        let stat = rustix::fs::fstatvfs(&self.0)?;
        Ok(stat.f_bavail.saturating_mul(stat.f_frsize))
    }

    /// Removes whatever is called `name`, and if it is a folder all that is in it.
    pub(super) fn remove_any(&self, name: &[u8]) -> io::Result<()> {
        self.remove(name, MAX_CLEAR_DEPTH)
    }

    /// Makes a folder that was not there, accessible to the owner alone, and opens it.
    pub(super) fn create_folder(&self, name: &str) -> io::Result<Self> {
        rustix::fs::mkdirat(&self.0, name, Mode::from_raw_mode(PRIVATE_FOLDER))?;
        // Under a umask that takes the owner's own permissions away the folder could not be opened below.
        let flags = AtFlags::empty();
        let folder = match self.step(name) {
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                rustix::fs::chmodat(&self.0, name, Mode::from_raw_mode(PRIVATE_FOLDER), flags)?;
                self.step(name)?
            }
            other => other?,
        };
        folder.set_mode(PRIVATE_FOLDER)?;
        Ok(folder)
    }

    /// Opens the folder `name` again, accessible to the owner alone; anything else of this name makes way for one.
    pub(super) fn private_again(&self, name: &str) -> io::Result<Self> {
        if let Ok(folder) = self.step(name) {
            folder.set_mode(PRIVATE_FOLDER)?;
            return Ok(folder);
        }
        self.remove_any(name.as_bytes())?;
        self.create_folder(name)
    }

    /// Sets permissions.
    pub(super) fn set_mode(&self, mode: u32) -> io::Result<()> {
        Ok(rustix::fs::fchmod(&self.0, Mode::from_raw_mode(mode))?)
    }

    /// Sets the time of the last change.
    pub(super) fn set_mtime(&self, seconds: i64) -> io::Result<()> {
        Ok(rustix::fs::futimens(&self.0, &modified(seconds))?)
    }

    /// Makes everything written so far to the file system of this folder durable.
    pub(super) fn sync_file_system(&self) -> io::Result<()> {
        Ok(rustix::fs::syncfs(&self.0)?)
    }

    /// Makes the names in this folder durable.
    pub(super) fn sync(&self) -> io::Result<()> {
        Ok(rustix::fs::fsync(&self.0)?)
    }

    /// Renames within this folder, and never replaces anything.
    pub(super) fn rename_new(&self, from: impl Arg, to: impl Arg) -> Result<(), RenameError> {
        rustix::fs::renameat_with(&self.0, from, &self.0, to, RenameFlags::NOREPLACE).map_err(|error| match error {
            Errno::EXIST | Errno::NOTEMPTY => RenameError::Exists,
            Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP => RenameError::Unsupported,
            other => RenameError::Io(other.into()),
        })
    }

    /// Removes a file.
    pub(super) fn remove_file(&self, name: impl Arg) -> io::Result<()> {
        Ok(rustix::fs::unlinkat(&self.0, name, AtFlags::empty())?)
    }

    /// Removes all that is in this folder, wherever its name has gone; links are removed, never followed.
    pub(super) fn clear_all(&self) -> io::Result<()> {
        self.clear(MAX_CLEAR_DEPTH)
    }

    /// Removes the folder `name`, which must be empty.
    pub(super) fn remove_empty(&self, name: impl Arg) -> io::Result<()> {
        Ok(rustix::fs::unlinkat(&self.0, name, AtFlags::REMOVEDIR)?)
    }

    fn clear(&self, depth: usize) -> io::Result<()> {
        self.names()?.iter().try_for_each(|name| self.remove(name, depth))
    }

    fn remove(&self, name: &[u8], depth: usize) -> io::Result<()> {
        match rustix::fs::unlinkat(&self.0, name, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => {}
            Err(Errno::ISDIR | Errno::PERM) if depth > 0 => {
                let flags = FOLDER_FLAGS | OFlags::NOFOLLOW;
                let below = Self(rustix::fs::openat(&self.0, name, flags, Mode::empty())?);
                below.clear(depth - 1)?;
                rustix::fs::unlinkat(&self.0, name, AtFlags::REMOVEDIR)?;
            }
            Err(error) => return Err(error.into()),
        }
        Ok(())
    }
}

impl From<OwnedFd> for Folder {
    fn from(open: OwnedFd) -> Self {
        Self(open)
    }
}

impl AsFd for Folder {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// What came of the wish to have a file or folder for oneself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Claim {
    /// It is this handle's until the last copy of the handle is closed, by a kill too (flock(2)).
    Held,
    /// Another process has it.
    Taken,
    /// The file system cannot say.
    Unknown,
}

/// Claims what is open, without waiting.
pub(super) fn claim(open: impl AsFd) -> Claim {
    match rustix::fs::flock(open, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Claim::Held,
        Err(Errno::WOULDBLOCK) => Claim::Taken,
        Err(_) => Claim::Unknown,
    }
}

/// What is open.
pub(super) fn seen(open: impl AsFd) -> io::Result<Seen> {
    Ok(Seen::of(&rustix::fs::fstat(open)?))
}

/// The user that this process acts as.
pub(super) fn me() -> u32 {
    rustix::process::geteuid().as_raw()
}

/// Sets a file's permissions.
pub(super) fn set_file_mode(file: &File, mode: u32) -> io::Result<()> {
    Ok(rustix::fs::fchmod(file, Mode::from_raw_mode(mode))?)
}

/// Sets a file's time of last change.
pub(super) fn set_file_time(file: &File, mtime: i64) -> io::Result<()> {
    Ok(rustix::fs::futimens(file, &modified(mtime))?)
}

fn modified(seconds: i64) -> Timestamps {
    Timestamps {
        last_access: Timespec { tv_sec: 0, tv_nsec: rustix::fs::UTIME_OMIT },
        last_modification: Timespec { tv_sec: seconds, tv_nsec: 0 },
    }
}

/// Why a rename that replaces nothing did not happen.
#[derive(Debug)]
pub(super) enum RenameError {
    /// The name is taken.
    Exists,
    /// The file system cannot rename without replacing.
    Unsupported,
    /// Something else.
    Io(io::Error),
}

/// The umask, read and not set: setting it to read it, the classic way, is a race between threads. If it cannot be
/// read the strictest sensible one holds.
pub(super) fn umask() -> u32 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|l| l.strip_prefix("Umask:"));
    line.and_then(|mask| u32::from_str_radix(mask.trim(), 8).ok()).unwrap_or(0o077)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use std::os::unix::fs::symlink;

    // attacks.md 4: no link is followed beneath a handle, with openat2 and without.
    #[test]
    fn attack_4_links_beneath_a_handle_are_not_followed() {
        let home = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(home.path().join("in/a/b")).unwrap();
        std::fs::create_dir(home.path().join("out")).unwrap();
        symlink(home.path().join("out"), home.path().join("in/link")).unwrap();
        symlink("../../out", home.path().join("in/a/up")).unwrap();
        let folder = Folder::open(&home.path().join("in")).unwrap();
        for descend in [Folder::descend, Folder::descend_by_steps] {
            assert!(descend(&folder, "a/b").is_ok());
            for bad in ["link", "a/up", "a/up/x", "..", "a/../..", "/tmp", ""] {
                assert!(descend(&folder, bad).is_err(), "{bad}");
            }
        }
        assert!(folder.open_file("link", false).is_err());
        assert!(folder.create_file("link").is_err());
    }

    #[test]
    fn clearing_removes_links_and_not_what_they_lead_to() {
        let home = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(home.path().join("gone/a/b/c")).unwrap();
        std::fs::write(home.path().join("kept"), "x").unwrap();
        symlink(home.path(), home.path().join("gone/a/link")).unwrap();
        Folder::open(&home.path().join("gone")).unwrap().clear_all().unwrap();
        Folder::open(home.path()).unwrap().remove_empty("gone").unwrap();
        assert!(home.path().join("kept").exists());
        assert!(!home.path().join("gone").exists());
    }
}
