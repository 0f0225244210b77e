//! What was piped in, kept until it is delivered: it cannot be read again from where it came from, but from here.
//!
//! One file each, `spools/ID`: an age file to myself, written to its end before anything is sent. Which transfer it belongs
//! to says the first line of `transfers/BUNDLE`, and it goes with that. The signed plan there has its length and digest, so
//! that nobody else can put something in its place.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use pouch_core::age::{self, DecryptReader, Recipient};
use pouch_core::bundle::{Content, EntryPath};
use pouch_statement::{BundleId, Sha256Digest};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use zeroize::Zeroizing;

use crate::error::{Error, Result};
use crate::home::{self, Home};
use crate::identity::Identity;
use crate::party::Party;
use crate::transfer;
use crate::watch::Watch;

const FOLDER: &str = "spools";
/// Bytes read from the pipe at once.
const PIECE: usize = 256 << 10;
/// Bytes that are left to others, unless it is a small disk: of that one part in [`SHARE`].
const RESERVE: u64 = 1 << 30;
const SHARE: u64 = 20;

/// A stream that is kept.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Spool {
    /// The file's name.
    pub(crate) id: BundleId,
    /// What the stream is called at the recipient's.
    name: String,
    /// The time that stands for its last change, in seconds since 1970.
    mtime: i64,
    /// Bytes of the stream.
    pub(crate) size: u64,
    sha256: Sha256Digest,
}

fn path(home: &Home, id: BundleId) -> PathBuf {
    home.state(FOLDER).join(id.to_string())
}

/// A spool that no transfer has yet: it goes when this is dropped.
pub(crate) struct Fresh {
    path: PathBuf,
    /// Locked, so that nobody clears it away.
    _file: File,
    kept: bool,
}

impl Fresh {
    /// A transfer has it now.
    pub(crate) fn keep(mut self) {
        self.kept = true;
    }
}

impl Drop for Fresh {
    fn drop(&mut self) {
        if !self.kept {
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

/// Reads a stream to its end, and keeps it sealed and durable.
///
/// # Errors
/// The stream, or the disk, which it would fill: nothing is kept then.
pub(crate) async fn fill(party: &Party, content: Content, watch: Arc<dyn Watch>) -> Result<(Spool, Fresh)> {
    let Content::Stream { name, mtime, reader } = content else { return Err(Error::Worker) };
    let id = BundleId::random()?;
    let (path, file) = create(party, id)?;
    let fresh =
        Fresh { path: path.clone(), _file: file.try_clone().map_err(Error::file("write", &path))?, kept: false };
    let to = party.recipient().clone();
    watch.stage("keeping", None);
    // On a thread of its own: input that does not come must not keep an interruption from clearing the file away.
    let worker = tokio::task::spawn_blocking(move || copy(reader, &file, &to, watch.as_ref(), &path));
    let (size, sha256) = worker.await.map_err(|_| Error::Worker)??;
    Ok((Spool { id, name: name.as_str().to_owned(), mtime, size, sha256 }, fresh))
}

fn create(party: &Party, id: BundleId) -> Result<(PathBuf, File)> {
    home::private_folder(&party.home.state(FOLDER))?;
    let path = path(&party.home, id);
    // Nobody finds it before it is locked.
    let _lock = party.home.lock()?;
    let file = OpenOptions::new()
        .create_new(true)
        .read(true)
        .write(true)
        .mode(0o600)
        .open(&path)
        .map_err(Error::file("write", &path))?;
    file.lock_shared().map_err(Error::file("lock", &path))?;
    Ok((path, file))
}

fn copy(
    mut reader: Box<dyn Read + Send>,
    file: &File,
    to: &Recipient,
    watch: &dyn Watch,
    path: &Path,
) -> Result<(u64, Sha256Digest)> {
    let mut sealing = age::encrypt(to, io::BufWriter::with_capacity(PIECE, file))?;
    let (mut room, mut size, mut hash) = (Zeroizing::new(vec![0; PIECE]), 0, Sha256::new());
    loop {
        if size > 0 {
            leave_room(file, path)?;
        }
        let read = match reader.read(&mut room) {
            Ok(0) => break,
            Ok(read) => read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(pouch_core::bundle::SealError::Stream(error).into()),
        };
        let bytes = room.get(..read).unwrap_or_default();
        hash.update(bytes);
        sealing.write_all(bytes).map_err(Error::file("write", path))?;
        size += read as u64;
        watch.advance(read as u64);
    }
    let written = sealing.finish().and_then(|buffer| buffer.into_inner().map_err(io::IntoInnerError::into_error));
    let folder = || File::open(path.parent().unwrap_or(path))?.sync_all();
    written.and_then(File::sync_data).and_then(|()| folder()).map_err(Error::file("write", path))?;
    Ok((size, Sha256Digest::from_bytes(hash.finalize().into())))
}

/// What is piped in may have no end: an error where no more is free than what is left to others.
fn leave_room(file: &File, path: &Path) -> Result<()> {
    let disk = rustix::fs::fstatvfs(file).map_err(|error| Error::file("write", path)(error.into()))?;
    let of = |blocks: u64| blocks.saturating_mul(disk.f_frsize);
    let (free, reserve) = (of(disk.f_bavail), RESERVE.min(of(disk.f_blocks) / SHARE));
    if free < reserve { Err(Error::NoRoomToKeep { free, reserve }) } else { Ok(()) }
}

impl Spool {
    /// The stream, from its beginning. As long as it is read nobody clears it away.
    ///
    /// # Errors
    /// The file is not there, or not sealed to me.
    pub(crate) fn content(&self, party: &Party, identity: &Identity) -> Result<Content> {
        let path = path(&party.home, self.id);
        let name = self.name.parse::<EntryPath>().map_err(|_| Error::Worker)?;
        let open = || File::open(&path).and_then(|file| file.lock_shared().map(|()| file));
        let inner = match identity.first(|key, _| age::decrypt(key, open()?)) {
            Err(age::Error::Io(error)) => return Err(Error::file("read", &path)(error)),
            opened => opened?,
        };
        let reader = Kept { inner, left: self.size, hash: Sha256::new(), digest: self.sha256 };
        Ok(Content::Stream { name, mtime: self.mtime, reader: Box::new(reader) })
    }

    /// What tells this stream from others.
    pub(crate) fn digest(&self) -> &Sha256Digest {
        &self.sha256
    }
}

/// A kept stream as it is read. It ends well only if it is what was piped in.
struct Kept {
    inner: DecryptReader<File>,
    /// Bytes that have not come.
    left: u64,
    hash: Sha256,
    digest: Sha256Digest,
}

impl Read for Kept {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let read = self.inner.read(into)?;
        let other = || io::Error::new(io::ErrorKind::InvalidData, "what was kept of it is not what was piped in");
        self.left = self.left.checked_sub(read as u64).ok_or_else(other)?;
        self.hash.update(into.get(..read).unwrap_or_default());
        let ends = read == 0 && !into.is_empty();
        let whole = || self.left == 0 && Sha256Digest::from_bytes(self.hash.clone().finalize().into()) == self.digest;
        if ends && !whole() { Err(other()) } else { Ok(read) }
    }
}

/// Whether the file is there.
pub(crate) fn is_there(home: &Home, id: BundleId) -> bool {
    path(home, id).is_file()
}

/// Removes one.
pub(crate) fn remove(home: &Home, id: BundleId) -> Result<()> {
    Ok(home::remove(&path(home, id))?)
}

/// Removes those that no transfer has and nobody writes: what a kill left.
///
/// # Errors
/// The file system.
pub(crate) fn clear(party: &Party) -> Result<()> {
    let _lock = party.home.lock()?;
    let all = home::bundles(&party.home.state(FOLDER), "")?;
    if all.is_empty() {
        return Ok(());
    }
    let Some(had) = transfer::spools(&party.home)? else { return Ok(()) };
    for id in all.into_iter().filter(|id| !had.contains(id)) {
        if let Some(_locked) = transfer::take(&path(&party.home, id))? {
            remove(&party.home, id)?;
        }
    }
    Ok(())
}
