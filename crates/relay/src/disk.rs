//! Every system call on the data folder, in one place: what S3 or another operating system replaces, and where tests
//! let calls fail ([`DiskHook`]).

use std::fs::{DirBuilder, File, OpenOptions, Permissions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, FileExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// What is about to be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum DiskOp {
    /// A new file.
    Create,
    /// Bytes into it.
    Write,
    /// Its bytes to stable storage.
    SyncFile,
    /// Its name.
    Rename,
    /// The name to stable storage.
    SyncFolder,
    /// Open for reading.
    Open,
    /// Bytes from it.
    Read,
    /// Delete.
    Remove,
    /// Names in a folder.
    List,
    /// A new folder.
    MakeFolder,
}

/// Called before each call; an error is returned in its place. For tests of faults.
pub type DiskHook = Arc<dyn Fn(DiskOp, &Path) -> io::Result<()> + Send + Sync>;

/// The one way to the disk.
#[derive(Clone, Default)]
pub(crate) struct Disk {
    hook: Option<DiskHook>,
}

/// Read and write for the owner alone, whatever the umask (attacks.md 60).
const PRIVATE_FILE: u32 = 0o600;
const PRIVATE_FOLDER: u32 = 0o700;
/// `NFS_SUPER_MAGIC`, `SMB_SUPER_MAGIC`, `CIFS_SUPER_MAGIC`, `SMB2_SUPER_MAGIC` (statfs(2)): SQLite's locks and fsync cannot be trusted there.
const NETWORK: [u64; 4] = [0x6969, 0x517b, 0xff53_4d42, 0xfe53_4d42];

impl Disk {
    pub(crate) fn new(hook: Option<DiskHook>) -> Self {
        Self { hook }
    }

    fn before(&self, op: DiskOp, path: &Path) -> io::Result<()> {
        self.hook.as_ref().map_or(Ok(()), |hook| hook(op, path))
    }

    /// A new private file; an error if the name exists.
    pub(crate) fn create(&self, path: &Path) -> io::Result<File> {
        self.before(DiskOp::Create, path)?;
        let file = OpenOptions::new().write(true).create_new(true).mode(PRIVATE_FILE).open(path)?;
        file.set_permissions(Permissions::from_mode(PRIVATE_FILE))?;
        Ok(file)
    }

    pub(crate) fn write(&self, file: &mut File, path: &Path, bytes: &[u8]) -> io::Result<()> {
        self.before(DiskOp::Write, path)?;
        file.write_all(bytes)
    }

    pub(crate) fn sync_file(&self, file: &File, path: &Path) -> io::Result<()> {
        self.before(DiskOp::SyncFile, path)?;
        file.sync_all()
    }

    pub(crate) fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.before(DiskOp::Rename, to)?;
        std::fs::rename(from, to)
    }

    pub(crate) fn sync_folder(&self, path: &Path) -> io::Result<()> {
        self.before(DiskOp::SyncFolder, path)?;
        File::open(path)?.sync_all()
    }

    pub(crate) fn open(&self, path: &Path) -> io::Result<File> {
        self.before(DiskOp::Open, path)?;
        File::open(path)
    }

    pub(crate) fn read_at(&self, file: &File, bytes: &mut [u8], offset: u64) -> io::Result<()> {
        self.before(DiskOp::Read, Path::new(""))?;
        file.read_exact_at(bytes, offset)
    }

    /// Deletes a file; that there is none is no error.
    pub(crate) fn remove(&self, path: &Path) -> io::Result<()> {
        self.before(DiskOp::Remove, path)?;
        match std::fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    /// The files in a folder.
    pub(crate) fn list(&self, path: &Path) -> io::Result<Vec<PathBuf>> {
        self.before(DiskOp::List, path)?;
        std::fs::read_dir(path)?.map(|entry| entry.map(|e| e.path())).collect()
    }

    /// A private folder, also where one is already.
    pub(crate) fn make_folder(&self, path: &Path) -> io::Result<()> {
        self.before(DiskOp::MakeFolder, path)?;
        match DirBuilder::new().mode(PRIVATE_FOLDER).create(path) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists && path.is_dir() => Ok(()),
            Err(error) => Err(error),
            Ok(()) => std::fs::set_permissions(path, Permissions::from_mode(PRIVATE_FOLDER)),
        }
    }

    /// A small private file, durable when this returns: bytes, name.
    pub(crate) fn write_new(&self, path: &Path, bytes: &[u8]) -> io::Result<()> {
        let mut file = self.create(path)?;
        self.write(&mut file, path, bytes)?;
        self.sync_file(&file, path)?;
        path.parent().map_or(Ok(()), |folder| self.sync_folder(folder))
    }
}

/// Holds a folder for one process; released when dropped, also by the kernel when the process dies.
pub(crate) struct FolderLock(#[expect(dead_code, reason = "held, not read")] File);

/// Takes the lock file `path`; `None` if another process has it.
pub(crate) fn lock(path: &Path) -> io::Result<Option<FolderLock>> {
    let file = OpenOptions::new().write(true).create(true).truncate(false).mode(PRIVATE_FILE).open(path)?;
    match rustix::fs::flock(&file, rustix::fs::FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(Some(FolderLock(file))),
        Err(rustix::io::Errno::WOULDBLOCK) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// Whether a folder lies on a network file system.
pub(crate) fn is_on_network(path: &Path) -> io::Result<bool> {
    let kind = rustix::fs::statfs(path)?.f_type as u64 & 0xffff_ffff;
    Ok(NETWORK.contains(&kind))
}
