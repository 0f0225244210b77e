//! Blobs in a local folder: immutable files under unique names that are never reused.
//!
//! Contract, for the ledger's side of it:
//! - [`Blobs::receive`] returns `Ok` when bytes and name are on stable storage and the bytes are what was announced;
//!   otherwise no file is left (unless the process dies, and then the name is in the ledger as pending, or nowhere);
//! - a file exists at its final name only whole;
//! - [`Blobs::remove`] may be repeated; a file that is being read stays readable for that reader.
//!
//! Syscalls of a put: `open(staging/N, O_CREAT|O_EXCL)`, `write…`, `fsync`, `rename(→ blobs/a/b/N)`,
//! `fsync(blobs/a/b)`.

use std::fmt::Write as _;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use sha2::Digest as _;
use tokio::sync::Semaphore;

use crate::body::{BodyError, Upload};
use crate::disk::Disk;

const FOLDER: &str = "blobs";
const STAGING: &str = "staging";
/// The first line of every age file (C2SP, age, "Header").
pub(crate) const AGE: &[u8] = b"age-encryption.org/v1\n";
/// Bytes that are hashed and written in one go. Two such batches for each upload are in memory.
const BATCH: usize = 128 << 10;
/// Disk calls at once: bounds the threads that wait for the disk.
const PARALLEL: usize = 32;
const HEX: &str = "0123456789abcdef";

/// A blob's unique name: 128 random bits.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct BlobName([u8; 16]);

impl BlobName {
    pub(crate) fn random() -> Result<Self, pouch_statement::RandomError> {
        pouch_statement::random().map(Self)
    }

    pub(crate) fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(bytes)
    }

    pub(crate) fn as_bytes(&self) -> &[u8; 16] {
        &self.0
    }

    fn text(&self) -> String {
        self.0.iter().fold(String::with_capacity(32), |mut out, byte| {
            let _ = write!(out, "{byte:02x}");
            out
        })
    }

    fn parse(text: &str) -> Option<Self> {
        let value = u128::from_str_radix(text, 16).ok()?;
        let name = Self(value.to_be_bytes());
        (name.text() == text).then_some(name)
    }
}

/// Which digest a blob was announced with.
pub(crate) enum Hasher {
    /// A part's.
    Blake3(Box<blake3::Hasher>),
    /// The index's.
    Sha256(sha2::Sha256),
}

impl Hasher {
    pub(crate) fn blake3() -> Self {
        Self::Blake3(Box::default())
    }

    pub(crate) fn sha256() -> Self {
        Self::Sha256(sha2::Sha256::new())
    }

    fn update(&mut self, bytes: &[u8]) {
        match self {
            Self::Blake3(hash) => {
                hash.update(bytes);
            }
            Self::Sha256(hash) => hash.update(bytes),
        }
    }

    fn finish(self) -> [u8; 32] {
        match self {
            Self::Blake3(hash) => *hash.finalize().as_bytes(),
            Self::Sha256(hash) => hash.finalize().into(),
        }
    }
}

/// Why an upload left nothing behind.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ReceiveError {
    /// The body ended, stalled or broke.
    #[error(transparent)]
    Body(#[from] BodyError),
    /// Not the announced length or digest.
    #[error("the body is not what was announced")]
    Digest,
    /// Does not begin as an age file (attacks.md 56).
    #[error("not an age file")]
    NotAge,
    /// The disk.
    #[error("disk: {0}")]
    Disk(#[from] io::Error),
}

/// The folder of blobs.
#[derive(Clone)]
pub(crate) struct Blobs {
    data: Arc<Path>,
    disk: Disk,
    parallel: Arc<Semaphore>,
}

/// A file being written, moved from one blocking step to the next.
struct Sink {
    disk: Disk,
    path: PathBuf,
    file: File,
    hasher: Hasher,
}

impl Sink {
    fn append(mut self, batch: &[Bytes]) -> io::Result<Self> {
        for bytes in batch {
            self.hasher.update(bytes);
            self.disk.write(&mut self.file, &self.path, bytes)?;
        }
        Ok(self)
    }
}

impl Blobs {
    /// Makes the folders that are missing, so that no put has to.
    pub(crate) fn open(data: &Path, disk: Disk) -> io::Result<Self> {
        let root = data.join(FOLDER);
        // The last one of the loop below: if it is there, all are.
        if !root.join("f").join("f").is_dir() {
            disk.make_folder(&data.join(STAGING))?;
            disk.make_folder(&root)?;
            for a in HEX.chars() {
                let first = root.join(a.to_string());
                disk.make_folder(&first)?;
                for b in HEX.chars() {
                    disk.make_folder(&first.join(b.to_string()))?;
                }
                disk.sync_folder(&first)?;
            }
            disk.sync_folder(&root)?;
            disk.sync_folder(data)?;
        }
        Ok(Self { data: data.into(), disk, parallel: Arc::new(Semaphore::new(PARALLEL)) })
    }

    fn staging(&self, name: BlobName) -> PathBuf {
        self.data.join(STAGING).join(name.text())
    }

    /// `blobs/a/b/ab…`
    fn path(&self, name: BlobName) -> PathBuf {
        let text = name.text();
        let mut path = self.data.join(FOLDER);
        for c in text.chars().take(2) {
            path.push(c.to_string());
        }
        path.push(text);
        path
    }

    /// Runs a blocking step on its own thread, a bounded number at once.
    async fn blocking<T: Send + 'static>(
        &self,
        step: impl FnOnce() -> io::Result<T> + Send + 'static,
    ) -> io::Result<T> {
        let _permit = self.parallel.acquire().await.map_err(io::Error::other)?;
        tokio::task::spawn_blocking(step).await.map_err(io::Error::other)?
    }

    /// Streams a body of exactly `length` bytes with this digest into a durable blob. Hashing and writing of one
    /// batch overlap with reading the next.
    pub(crate) async fn receive(
        &self,
        name: BlobName,
        body: &Upload,
        length: u64,
        hasher: Hasher,
        digest: [u8; 32],
    ) -> Result<(), ReceiveError> {
        let outcome = self.stream_in(name, body, length, hasher, digest).await;
        if outcome.is_err()
            && let Err(error) = self.remove(name).await
        {
            tracing::warn!(%error, "what is left of an upload cannot be deleted");
        }
        outcome
    }

    async fn stream_in(
        &self,
        name: BlobName,
        body: &Upload,
        length: u64,
        hasher: Hasher,
        digest: [u8; 32],
    ) -> Result<(), ReceiveError> {
        let (disk, path) = (self.disk.clone(), self.staging(name));
        let mut batch = next_batch(body).await?;
        if !batch.iter().flatten().take(AGE.len()).eq(AGE) {
            return Err(ReceiveError::NotAge);
        }
        let mut sink = self.blocking(move || disk.create(&path).map(|file| Sink { disk, path, file, hasher })).await?;
        let mut received = 0u64;
        while !batch.is_empty() {
            received += batch.iter().map(|bytes| bytes.len() as u64).sum::<u64>();
            if received > length {
                return Err(ReceiveError::Digest);
            }
            let (written, next) = tokio::join!(self.blocking(move || sink.append(&batch)), next_batch(body));
            sink = written?;
            batch = next?;
        }
        if received != length {
            return Err(ReceiveError::Digest);
        }
        let target = self.path(name);
        self.blocking(move || publish(sink, &target, digest)).await?.then_some(()).ok_or(ReceiveError::Digest)
    }

    /// Opens a blob for reading.
    pub(crate) async fn open_blob(&self, name: BlobName) -> io::Result<Arc<File>> {
        let (disk, path) = (self.disk.clone(), self.path(name));
        self.blocking(move || disk.open(&path).map(Arc::new)).await
    }

    /// Reads exactly `length` bytes at `offset`.
    pub(crate) async fn read(&self, file: Arc<File>, offset: u64, length: usize) -> io::Result<Bytes> {
        let disk = self.disk.clone();
        self.blocking(move || {
            let mut bytes = vec![0u8; length];
            disk.read_at(&file, &mut bytes, offset)?;
            Ok(bytes.into())
        })
        .await
    }

    /// Deletes whatever there is of a name. Staging first: an upload that has not yet renamed then cannot any more.
    pub(crate) async fn remove(&self, name: BlobName) -> io::Result<()> {
        let (disk, staging, path) = (self.disk.clone(), self.staging(name), self.path(name));
        self.blocking(move || disk.remove(&staging).and(disk.remove(&path))).await
    }

    /// At start, with the folder locked: deletes all staging files, and lists the names of all blobs.
    pub(crate) async fn clean_and_list(&self) -> io::Result<Vec<BlobName>> {
        let (disk, data) = (self.disk.clone(), Arc::clone(&self.data));
        self.blocking(move || {
            for path in disk.list(&data.join(STAGING))? {
                disk.remove(&path)?;
            }
            let mut names = Vec::new();
            for first in disk.list(&data.join(FOLDER))? {
                for folder in disk.list(&first)? {
                    let files = disk.list(&folder)?;
                    // What does not read as a name was not made by the relay, and is left alone.
                    names.extend(files.iter().filter_map(|path| BlobName::parse(path.file_name()?.to_str()?)));
                }
            }
            Ok(names)
        })
        .await
    }
}

/// Durable bytes, then the name, then the durable name; `false` if the digest is another one.
fn publish(sink: Sink, target: &Path, digest: [u8; 32]) -> io::Result<bool> {
    let Sink { disk, path, file, hasher } = sink;
    if hasher.finish() != digest {
        return Ok(false);
    }
    disk.sync_file(&file, &path)?;
    disk.rename(&path, target)?;
    disk.sync_folder(target.parent().unwrap_or(target))?;
    Ok(true)
}

/// Frames up to about [`BATCH`] bytes; empty at the end of the body.
async fn next_batch(body: &Upload) -> Result<Vec<Bytes>, BodyError> {
    let mut batch = Vec::new();
    let mut length = 0;
    while length < BATCH {
        let Some(bytes) = body.next().await? else {
            break;
        };
        length += bytes.len();
        batch.push(bytes);
    }
    Ok(batch)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    // attacks.md 39 and 41: names come from the operating system's random bytes, never from a request.
    #[test]
    fn names_have_one_spelling() {
        let name = BlobName::random().unwrap();
        assert_eq!(BlobName::parse(&name.text()), Some(name));
        for bad in ["", "..", "+1", &name.text().to_uppercase(), &format!("{}0", name.text())] {
            assert!(BlobName::parse(bad).is_none() || bad == name.text(), "{bad}");
        }
    }
}
