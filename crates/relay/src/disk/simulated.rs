//! A disk in memory that can lose its power: what was not synced is then gone, or there, or there in part, as its
//! seed decides. It promises no more than POSIX does: of the bytes and names since the last sync any may be lost, in any
//! order, and the name of a file is no part of its sync.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::UNIX_EPOCH;

use super::{Calls, Disk, DiskFile, FileFacts};

const EIO: i32 = 5;
const ENOSPC: i32 = 28;

/// Random numbers that a seed determines.
pub(crate) struct Random(blake3::OutputReader);

impl Random {
    pub(crate) fn new(seed: u64, what: &str) -> Self {
        Self(blake3::Hasher::new().update(&seed.to_le_bytes()).update(what.as_bytes()).finalize_xof())
    }

    /// 0 up to `limit`, without it.
    pub(crate) fn below(&mut self, limit: u64) -> u64 {
        let mut bytes = [0; 8];
        self.0.fill(&mut bytes);
        u64::from_le_bytes(bytes) % limit.max(1)
    }

    pub(crate) fn bytes(&mut self, length: usize) -> Vec<u8> {
        let mut bytes = vec![0; length];
        self.0.fill(&mut bytes);
        bytes
    }
}

/// Which syncs say that all is well and do nothing.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Lies {
    None,
    Files,
    Folders,
}

#[derive(Clone, Copy)]
enum Entry {
    File(usize),
    Folder,
}

#[derive(Default)]
struct Folder {
    now: BTreeMap<OsString, Entry>,
    durable: BTreeMap<OsString, Entry>,
    /// Names made (or gone: `None`) since the last sync.
    since: Vec<(OsString, Option<Entry>)>,
}

impl Folder {
    fn change(&mut self, name: OsString, entry: Option<Entry>) {
        match entry {
            Some(entry) => self.now.insert(name.clone(), entry),
            None => self.now.remove(&name),
        };
        self.since.push((name, entry));
    }
}

#[derive(Default)]
struct Inode {
    now: Vec<u8>,
    durable: Vec<u8>,
    /// Where the writes since the last sync began and ended.
    since: Vec<(usize, usize)>,
}

struct State {
    random: Random,
    lies: Lies,
    inodes: Vec<Inode>,
    folders: BTreeMap<PathBuf, Folder>,
    calls: u64,
    /// The call at which the power goes.
    off_at: u64,
    /// One call in so many fails; 0 for none.
    faults: u64,
}

/// The disk; its clones are the same one.
#[derive(Clone)]
pub(crate) struct SimulatedDisk(Arc<Mutex<State>>);

impl SimulatedDisk {
    /// An empty one with a durable folder `root`.
    pub(crate) fn new(root: &Path, seed: u64, lies: Lies) -> Self {
        let folders = BTreeMap::from([(root.to_owned(), Folder::default())]);
        Self::with(folders, Vec::new(), Random::new(seed, "disk"), lies)
    }

    fn with(folders: BTreeMap<PathBuf, Folder>, inodes: Vec<Inode>, random: Random, lies: Lies) -> Self {
        let state = State { random, lies, inodes, folders, calls: 0, off_at: u64::MAX, faults: 0 };
        Self(Arc::new(Mutex::new(state)))
    }

    /// As the relay uses it.
    pub(crate) fn disk(&self) -> Disk {
        Disk { calls: Arc::new(self.clone()), hook: None }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Calls so far.
    pub(crate) fn calls(&self) -> u64 {
        self.state().calls
    }

    /// The power goes at this call; every later one fails, too.
    pub(crate) fn off_at(&self, call: u64) {
        self.state().off_at = call;
    }

    /// From now on one call in so many fails with EIO or ENOSPC.
    pub(crate) fn faults(&self, one_in: u64) {
        self.state().faults = one_in;
    }

    /// The disk as the next start finds it.
    pub(crate) fn after_power_loss(&self) -> Self {
        let mut state = self.state();
        let state = &mut *state;
        let mut fate = Fate::new(&mut state.random);
        let inodes = state.inodes.iter().map(|inode| fate.file(&mut state.random, inode)).collect();
        let mut folders: BTreeMap<PathBuf, Folder> = BTreeMap::new();
        for (path, folder) in &state.folders {
            // Parents come first. What lies in a folder whose own name was lost is lost.
            let parent = path.parent().and_then(|parent| folders.get(parent));
            let named = path.file_name().zip(parent).is_some_and(|(name, parent)| parent.now.contains_key(name));
            if named || folders.is_empty() {
                fate = Fate::new(&mut state.random);
                folders.insert(path.clone(), fate.folder(&mut state.random, folder));
            }
        }
        let random = Random::new(state.random.below(u64::MAX), "after");
        Self::with(folders, inodes, random, state.lies)
    }
}

/// How much of what was not synced survives.
#[derive(Clone, Copy)]
enum Fate {
    Nothing,
    Everything,
    Beginning(u64),
    Any,
}

impl Fate {
    fn new(random: &mut Random) -> Self {
        match random.below(4) {
            0 => Self::Nothing,
            1 => Self::Everything,
            2 => Self::Beginning(random.below(4)),
            _ => Self::Any,
        }
    }

    fn keeps(self, random: &mut Random, number: usize) -> bool {
        match self {
            Self::Nothing => false,
            Self::Everything => true,
            Self::Beginning(count) => (number as u64) < count,
            Self::Any => random.below(2) == 0,
        }
    }

    fn file(&mut self, random: &mut Random, inode: &Inode) -> Inode {
        *self = Self::new(random);
        let mut bytes = inode.durable.clone();
        for (number, (begin, end)) in inode.since.iter().enumerate() {
            if !self.keeps(random, number) {
                continue;
            }
            // Now and then only the first blocks of it; what was skipped before it reads as zeros.
            let cut = if random.below(4) == 0 { random.below((end - begin) as u64 + 1) as usize } else { end - begin };
            let end = begin + cut;
            if bytes.len() < end {
                bytes.resize(end, 0);
            }
            if let (Some(to), Some(from)) = (bytes.get_mut(*begin..end), inode.now.get(*begin..end)) {
                to.copy_from_slice(from);
            }
        }
        Inode { now: bytes.clone(), durable: bytes, since: Vec::new() }
    }

    fn folder(self, random: &mut Random, folder: &Folder) -> Folder {
        let mut names = folder.durable.clone();
        for (number, (name, entry)) in folder.since.iter().enumerate() {
            if self.keeps(random, number) {
                match entry {
                    Some(entry) => names.insert(name.clone(), *entry),
                    None => names.remove(name),
                };
            }
        }
        Folder { now: names.clone(), durable: names, since: Vec::new() }
    }
}

fn missing() -> io::Error {
    io::ErrorKind::NotFound.into()
}

fn split(path: &Path) -> io::Result<(&Path, OsString)> {
    path.parent().zip(path.file_name()).map(|(folder, name)| (folder, name.to_owned())).ok_or_else(missing)
}

impl State {
    /// Counts a call; an error when the power is gone, or this is one of the faults.
    fn call(&mut self, may_fail: bool) -> io::Result<()> {
        self.calls += 1;
        if self.calls > self.off_at {
            return Err(io::Error::other("the power is gone"));
        }
        if may_fail && self.faults > 0 && self.random.below(self.faults) == 0 {
            let errno = if self.random.below(2) == 0 { EIO } else { ENOSPC };
            return Err(io::Error::from_raw_os_error(errno));
        }
        Ok(())
    }

    fn folder(&mut self, path: &Path) -> io::Result<&mut Folder> {
        self.folders.get_mut(path).ok_or_else(missing)
    }

    fn inode(&mut self, number: usize) -> io::Result<&mut Inode> {
        self.inodes.get_mut(number).ok_or_else(missing)
    }

    fn find(&mut self, path: &Path) -> io::Result<usize> {
        let (folder, name) = split(path)?;
        match self.folder(folder)?.now.get(&name) {
            Some(Entry::File(inode)) => Ok(*inode),
            _ => Err(missing()),
        }
    }
}

struct SimulatedFile(SimulatedDisk, usize);

impl DiskFile for SimulatedFile {
    fn write(&self, bytes: &[u8]) -> io::Result<usize> {
        let mut state = self.0.state();
        state.call(true)?;
        // A short write now and then.
        let short = state.random.below(3) == 0;
        let count = if short { 1 + state.random.below(bytes.len() as u64) as usize } else { bytes.len() };
        let inode = state.inode(self.1)?;
        let begin = inode.now.len();
        inode.now.extend(bytes.iter().take(count));
        let end = inode.now.len();
        inode.since.push((begin, end));
        Ok(end - begin)
    }

    fn sync(&self) -> io::Result<()> {
        let mut state = self.0.state();
        let (outcome, lies) = (state.call(true), state.lies);
        let inode = state.inode(self.1)?;
        if outcome.is_ok() && lies != Lies::Files {
            inode.durable = inode.now.clone();
            inode.since.clear();
        } else if outcome.as_ref().is_err_and(|error| error.raw_os_error().is_some()) {
            // After a failed fsync Linux forgets what it could not write, and the next one succeeds.
            inode.since.clear();
        }
        outcome
    }

    fn read_at(&self, bytes: &mut [u8], offset: u64) -> io::Result<usize> {
        let mut state = self.0.state();
        state.call(false)?;
        let rest = state.inode(self.1)?.now.get(offset as usize..).unwrap_or_default();
        let count = rest.len().min(bytes.len());
        for (to, from) in bytes.iter_mut().zip(rest) {
            *to = *from;
        }
        Ok(count)
    }
}

impl Calls for SimulatedDisk {
    fn create(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        let mut state = self.state();
        state.call(true)?;
        let (folder, name) = split(path)?;
        let inode = state.inodes.len();
        let folder = state.folder(folder)?;
        if folder.now.contains_key(&name) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        folder.change(name, Some(Entry::File(inode)));
        state.inodes.push(Inode::default());
        Ok(Box::new(SimulatedFile(self.clone(), inode)))
    }

    fn open(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        let mut state = self.state();
        state.call(false)?;
        let inode = state.find(path)?;
        Ok(Box::new(SimulatedFile(self.clone(), inode)))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut state = self.state();
        state.call(true)?;
        let inode = state.find(from)?;
        let ((from, old), (to, new)) = (split(from)?, split(to)?);
        state.folder(to)?.change(new, Some(Entry::File(inode)));
        state.folder(from)?.change(old, None);
        Ok(())
    }

    fn sync_folder(&self, path: &Path) -> io::Result<()> {
        let mut state = self.state();
        state.call(true)?;
        let lies = state.lies;
        let folder = state.folder(path)?;
        if lies != Lies::Folders {
            folder.durable = folder.now.clone();
            folder.since.clear();
        }
        Ok(())
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        let mut state = self.state();
        state.call(true)?;
        state.find(path)?;
        let (folder, name) = split(path)?;
        state.folder(folder)?.change(name, None);
        Ok(())
    }

    fn list(&self, path: &Path) -> io::Result<Vec<PathBuf>> {
        let mut state = self.state();
        state.call(false)?;
        Ok(state.folder(path)?.now.keys().map(|name| path.join(name)).collect())
    }

    fn look(&self, path: &Path) -> io::Result<FileFacts> {
        let mut state = self.state();
        state.call(false)?;
        let inode = state.find(path)?;
        Ok(FileFacts { length: state.inode(inode)?.now.len() as u64, modified: UNIX_EPOCH })
    }

    fn make_folder(&self, path: &Path) -> io::Result<()> {
        let mut state = self.state();
        state.call(false)?;
        let (parent, name) = split(path)?;
        let parent = state.folder(parent)?;
        if !parent.now.contains_key(&name) {
            parent.change(name, Some(Entry::Folder));
            state.folders.insert(path.to_owned(), Folder::default());
        }
        Ok(())
    }

    fn room(&self, _: &Path) -> io::Result<u64> {
        self.state().call(false)?;
        Ok(u64::MAX)
    }
}
