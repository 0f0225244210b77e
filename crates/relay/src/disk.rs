//! Every system call on the data folder, in one place: what another operating system replaces, where tests let calls
//! fail ([`DiskHook`]), and what a simulated disk stands in for ([`Calls`]).

#[cfg(test)]
pub(crate) mod simulated;

use std::fs::{DirBuilder, File, OpenOptions, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

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
    /// Length and time of a file.
    Look,
    /// A new folder.
    MakeFolder,
    /// How much room is left.
    Room,
}

/// Called before each call; an error is returned in its place. For tests of faults.
pub type DiskHook = Arc<dyn Fn(DiskOp, &Path) -> io::Result<()> + Send + Sync>;

/// What a file is like.
#[derive(Clone, Copy, Debug)]
pub(crate) struct FileFacts {
    pub(crate) length: u64,
    pub(crate) modified: SystemTime,
}

/// An open file.
pub(crate) trait DiskFile: Send + Sync {
    /// Appends some of `bytes`, at least one of them; how many.
    fn write(&self, bytes: &[u8]) -> io::Result<usize>;
    /// All bytes written so far to stable storage.
    fn sync(&self) -> io::Result<()>;
    /// Reads some bytes at `offset`; 0 at the end.
    fn read_at(&self, bytes: &mut [u8], offset: u64) -> io::Result<usize>;
}

/// The calls themselves, each one system call or nearly so. Nothing is durable before its sync: bytes not before
/// [`DiskFile::sync`], names (also that they are gone) not before [`Calls::sync_folder`].
pub(crate) trait Calls: Send + Sync {
    /// A new private file, open for writing; an error if the name exists.
    fn create(&self, path: &Path) -> io::Result<Box<dyn DiskFile>>;
    fn open(&self, path: &Path) -> io::Result<Box<dyn DiskFile>>;
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;
    fn sync_folder(&self, path: &Path) -> io::Result<()>;
    fn remove(&self, path: &Path) -> io::Result<()>;
    fn list(&self, path: &Path) -> io::Result<Vec<PathBuf>>;
    fn look(&self, path: &Path) -> io::Result<FileFacts>;
    /// A private folder, also where one is already.
    fn make_folder(&self, path: &Path) -> io::Result<()>;
    /// Bytes that unprivileged processes can still write on the file system of `path`.
    fn room(&self, path: &Path) -> io::Result<u64>;
}

/// Read and write for the owner alone, whatever the umask (attacks.md 60).
const PRIVATE_FILE: u32 = 0o600;
const PRIVATE_FOLDER: u32 = 0o700;
/// `NFS_SUPER_MAGIC`, `SMB_SUPER_MAGIC`, `CIFS_SUPER_MAGIC`, `SMB2_SUPER_MAGIC` (statfs(2)): SQLite's locks and fsync cannot be
/// trusted there.
const NETWORK: [u64; 4] = [0x6969, 0x517b, 0xff53_4d42, 0xfe53_4d42];

impl DiskFile for File {
    fn write(&self, bytes: &[u8]) -> io::Result<usize> {
        let mut file = self;
        io::Write::write(&mut file, bytes)
    }

    fn sync(&self) -> io::Result<()> {
        self.sync_all()
    }

    fn read_at(&self, bytes: &mut [u8], offset: u64) -> io::Result<usize> {
        std::os::unix::fs::FileExt::read_at(self, bytes, offset)
    }
}

/// The machine's own disk.
struct Machine;

impl Calls for Machine {
    fn create(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        let file = OpenOptions::new().write(true).create_new(true).mode(PRIVATE_FILE).open(path)?;
        file.set_permissions(Permissions::from_mode(PRIVATE_FILE))?;
        Ok(Box::new(file))
    }

    fn open(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        Ok(Box::new(File::open(path)?))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        std::fs::rename(from, to)
    }

    fn sync_folder(&self, path: &Path) -> io::Result<()> {
        File::open(path)?.sync_all()
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        std::fs::remove_file(path)
    }

    fn list(&self, path: &Path) -> io::Result<Vec<PathBuf>> {
        std::fs::read_dir(path)?.map(|entry| entry.map(|e| e.path())).collect()
    }

    fn look(&self, path: &Path) -> io::Result<FileFacts> {
        let facts = std::fs::symlink_metadata(path)?;
        Ok(FileFacts { length: facts.len(), modified: facts.modified()? })
    }

    fn make_folder(&self, path: &Path) -> io::Result<()> {
        match DirBuilder::new().mode(PRIVATE_FOLDER).create(path) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists && path.is_dir() => Ok(()),
            Err(error) => Err(error),
            Ok(()) => std::fs::set_permissions(path, Permissions::from_mode(PRIVATE_FOLDER)),
        }
    }

    fn room(&self, path: &Path) -> io::Result<u64> {
        space(path).map(|space| space.free)
    }
}

/// What a file system has.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Space {
    /// Bytes that unprivileged processes can still write.
    pub(crate) free: u64,
    /// Nobody can.
    pub(crate) read_only: bool,
}

/// What the file system of `path` has.
pub(crate) fn space(path: &Path) -> io::Result<Space> {
    let facts = rustix::fs::statvfs(path)?;
    Ok(Space {
        free: facts.f_bavail.saturating_mul(facts.f_frsize),
        read_only: facts.f_flag.contains(rustix::fs::StatVfsMountFlags::RDONLY),
    })
}

/// The one way to the disk.
#[derive(Clone)]
pub(crate) struct Disk {
    calls: Arc<dyn Calls>,
    hook: Option<DiskHook>,
}

impl Default for Disk {
    fn default() -> Self {
        Self::new(None)
    }
}

impl Disk {
    pub(crate) fn new(hook: Option<DiskHook>) -> Self {
        Self { calls: Arc::new(Machine), hook }
    }

    fn before(&self, op: DiskOp, path: &Path) -> io::Result<()> {
        self.hook.as_ref().map_or(Ok(()), |hook| hook(op, path))
    }

    /// A new private file; an error if the name exists.
    pub(crate) fn create(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        self.before(DiskOp::Create, path)?;
        self.calls.create(path)
    }

    /// All of `bytes`, at the end of the file.
    pub(crate) fn write(&self, file: &dyn DiskFile, path: &Path, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            self.before(DiskOp::Write, path)?;
            let written = match file.write(bytes) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(written) => written,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(error),
            };
            bytes = bytes.get(written..).unwrap_or_default();
        }
        Ok(())
    }

    pub(crate) fn sync_file(&self, file: &dyn DiskFile, path: &Path) -> io::Result<()> {
        self.before(DiskOp::SyncFile, path)?;
        file.sync()
    }

    pub(crate) fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.before(DiskOp::Rename, to)?;
        self.calls.rename(from, to)
    }

    pub(crate) fn sync_folder(&self, path: &Path) -> io::Result<()> {
        self.before(DiskOp::SyncFolder, path)?;
        self.calls.sync_folder(path)
    }

    pub(crate) fn open(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        self.before(DiskOp::Open, path)?;
        self.calls.open(path)
    }

    /// Fills `bytes` from `offset`; an error if the file ends before.
    pub(crate) fn read_at(&self, file: &dyn DiskFile, bytes: &mut [u8], offset: u64) -> io::Result<()> {
        self.before(DiskOp::Read, Path::new(""))?;
        let mut done = 0;
        while let Some(rest) = bytes.get_mut(done..).filter(|rest| !rest.is_empty()) {
            match file.read_at(rest, offset + done as u64) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(read) => done += read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Deletes a file; that there is none is no error.
    pub(crate) fn remove(&self, path: &Path) -> io::Result<()> {
        self.before(DiskOp::Remove, path)?;
        match self.calls.remove(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    /// What is in a folder.
    pub(crate) fn list(&self, path: &Path) -> io::Result<Vec<PathBuf>> {
        self.before(DiskOp::List, path)?;
        self.calls.list(path)
    }

    /// Length and time of a file; `None` if there is none.
    pub(crate) fn look(&self, path: &Path) -> io::Result<Option<FileFacts>> {
        self.before(DiskOp::Look, path)?;
        match self.calls.look(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            facts => facts.map(Some),
        }
    }

    /// A private folder, also where one is already.
    pub(crate) fn make_folder(&self, path: &Path) -> io::Result<()> {
        self.before(DiskOp::MakeFolder, path)?;
        self.calls.make_folder(path)
    }

    /// Bytes that can still be written on the file system of `path`.
    pub(crate) fn room(&self, path: &Path) -> io::Result<u64> {
        self.before(DiskOp::Room, path)?;
        self.calls.room(path)
    }

    /// A small private file, durable when this returns: bytes, name.
    pub(crate) fn write_new(&self, path: &Path, bytes: &[u8]) -> io::Result<()> {
        let file = self.create(path)?;
        self.write(&*file, path, bytes)?;
        self.sync_file(&*file, path)?;
        path.parent().map_or(Ok(()), |folder| self.sync_folder(folder))
    }
}

/// Holds a folder for one process; released when dropped, also by the kernel when the process dies.
pub(crate) struct FolderLock(File);

impl Drop for FolderLock {
    fn drop(&mut self) {
        // Not left to the closing of the file: a child process has it too, from its fork until it runs its program.
        let _ = rustix::fs::flock(&self.0, rustix::fs::FlockOperation::Unlock);
    }
}

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
