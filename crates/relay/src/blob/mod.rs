//! Blobs: immutable bytes under unique names that are never reused. The trait and its contract; what every store needs
//! for keeping it. The stores are [`folder`] and [`s3`].

mod admission;
mod folder;
mod group;
mod s3;
mod stride;
#[cfg(test)]
pub(crate) mod tests;

use std::fmt::{self, Write as _};
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::Stream;
use pouch_statement::Timestamp;
use sha2::Digest as _;

use crate::body::{BodyError, Upload};
use crate::config::{BlobConfig, Config};
use crate::disk::Disk;

pub use s3::S3Error;
pub(crate) use s3::SINGLE;

/// The first line of every age file (C2SP, age, "Header").
pub(crate) const AGE: &[u8] = b"age-encryption.org/v1\n";

/// What the calls of a store return.
pub(crate) type BlobFuture<'a, T, E = StoreError> = Pin<Box<dyn Future<Output = Result<T, E>> + Send + 'a>>;
/// The bytes of a blob on their way out: as many as were asked for, or an error.
pub(crate) type BlobStream = Pin<Box<dyn Stream<Item = io::Result<Bytes>> + Send>>;
/// A store, shared.
pub(crate) type Blobs = Arc<dyn BlobStore>;

/// Where blobs are kept. The contract, on which the ledger and the order *pending row → blob → ledger commit → answer*
/// rest:
///
/// - **Names.** A name is 128 random bits and is received at most once, by one caller; no store checks that, and none
///   needs a conditional request for it. What is under a name never changes.
/// - **Durability.** [`BlobStore::receive`] returns `Ok` when bytes and name are on stable storage and the bytes are the
///   announced ones in length and digest. Whatever was received can from then on be read from every process that has
///   the store, until it is removed.
/// - **All or nothing.** A blob is there only whole. When `receive` fails nothing is left; when its process dies,
///   at most a blob whose name is in no committed row, or an unfinished upload that [`BlobStore::unfinished`] lists.
/// - **Removing** may be repeated, and comes at any time: whoever has begun to read goes on or gets an error, never
///   other bytes. That a name is gone need not be durable: one that comes back is in no row, and is removed as an orphan.
/// - **Concurrency.** Every call may run at the same time as any other, also from other processes where the store
///   is for several. A `receive` that is overtaken by the `remove` of its name may succeed after it; its name is then in no
///   row, and the blob an orphan.
/// - **Bounds.** Memory for each call is bounded, whatever the length; calls that wait for another machine end within
///   a bounded time.
/// - **Whose it is.** The id that [`BlobStore::set_id`] gives it lies beside the blobs, so that who copies or restores them has
///   it with them, and is none of them: it is neither listed nor removed.
pub(crate) trait BlobStore: Send + Sync {
    /// Streams a body into a durable blob. The body is refused before anything is stored when it does not begin as an
    /// age file (attacks.md 56).
    fn receive<'a>(
        &'a self,
        name: BlobName,
        body: &'a Upload,
        announced: Announced,
    ) -> BlobFuture<'a, (), ReceiveError>;

    /// Opens a blob and reads exactly `length` bytes at `offset`; the caller knows that it has as many.
    fn read(&self, name: BlobName, offset: u64, length: u64) -> BlobFuture<'_, BlobStream>;

    /// Deletes a blob, and what there is of an upload of it where the store can tell; that there is none is no error.
    fn remove(&self, name: BlobName) -> BlobFuture<'_, ()>;

    /// One page of all blobs, in the store's own order; the first one, or the one after a page's mark. What is stored
    /// or removed meanwhile may be in it or not, everything else is.
    fn list(&self, after: Option<String>) -> BlobFuture<'_, Page>;

    /// Uploads that were begun and are neither finished nor given up: under way, or left by a process that died.
    fn unfinished(&self) -> BlobFuture<'_, Vec<Unfinished>>;

    /// Gives one of them up; that it is gone already is no error.
    fn discard<'a>(&'a self, unfinished: &'a Unfinished) -> BlobFuture<'a, ()>;

    /// The id that it was given last, if it has one.
    fn id(&self) -> BlobFuture<'_, Option<StoreId>>;

    /// Gives it an id in place of any that it has; durable like a blob when this returns `Ok`.
    fn set_id(&self, id: StoreId) -> BlobFuture<'_, ()>;

    /// Whether nobody but this process can use the store.
    fn is_mine(&self) -> bool;
}

/// Opens the store that the configuration names.
///
/// # Errors
/// When it cannot be used, found out by using it.
pub(crate) async fn open(config: &Config, disk: Disk) -> Result<Blobs, BlobsOpenError> {
    Ok(match &config.blobs {
        BlobConfig::Folder => {
            let folder = folder::Folder::open(&config.data, disk, config.disk_reserve_bytes);
            Arc::new(folder.map_err(BlobsOpenError::Folder)?)
        }
        BlobConfig::S3(s3) => Arc::new(s3::S3::open(s3).await?),
    })
}

/// Why there are no blobs.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BlobsOpenError {
    #[error(transparent)]
    Folder(io::Error),
    #[error(transparent)]
    S3(#[from] S3Error),
}

/// A blob's unique name: 128 random bits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
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

    /// The first byte, by which blobs are spread over folders.
    fn first(self) -> u8 {
        let [first, ..] = self.0;
        first
    }

    fn text(&self) -> String {
        hex(&self.0)
    }

    fn parse(text: &str) -> Option<Self> {
        parse_hex(text).map(Self)
    }
}

/// The name of the file or object with a store's id, beside the blobs: no blob's name.
const ID: &str = "store";

/// What tells a store from others: 128 random bits, from the ledger that its blobs are of.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct StoreId([u8; 16]);

impl StoreId {
    pub(crate) fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(bytes)
    }

    /// What stands in the file: a line.
    fn line(self) -> String {
        format!("{self}\n")
    }

    fn read(bytes: &[u8]) -> Result<Self, StoreError> {
        let line = std::str::from_utf8(bytes).ok().and_then(|text| text.strip_suffix('\n'));
        let id = line.and_then(parse_hex).map(Self);
        id.ok_or_else(|| StoreError::Broken(format!("`{ID}` beside the blobs holds no id of a store")))
    }
}

impl fmt::Display for StoreId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex(&self.0))
    }
}

fn hex(bytes: &[u8; 16]) -> String {
    bytes.iter().fold(String::with_capacity(32), |mut out, byte| {
        let _ = write!(out, "{byte:02x}");
        out
    })
}

/// What [`hex`] writes, and no other spelling of it.
fn parse_hex(text: &str) -> Option<[u8; 16]> {
    let bytes = u128::from_str_radix(text, 16).ok()?.to_be_bytes();
    (hex(&bytes) == text).then_some(bytes)
}

/// A stored blob, as a listing shows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Listed {
    pub(crate) name: BlobName,
    pub(crate) length: u64,
    /// When it was stored, by the store's clock.
    pub(crate) modified: Timestamp,
}

/// Some blobs, and how to get the next ones.
#[derive(Debug, Default)]
pub(crate) struct Page {
    pub(crate) blobs: Vec<Listed>,
    /// `None`: this was the last page.
    pub(crate) next: Option<String>,
}

/// An upload that was begun.
#[derive(Debug)]
pub(crate) struct Unfinished {
    pub(crate) name: BlobName,
    pub(crate) begun: Timestamp,
    /// What the store knows it by, if its name does not do.
    upload: String,
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
}

/// What a body was announced as, and how much of it came.
pub(crate) struct Announced {
    length: u64,
    digest: [u8; 32],
    hasher: Hasher,
    taken: u64,
    /// Whose it is, where accounts share what there is.
    account: i64,
}

impl Announced {
    pub(crate) fn new(length: u64, hasher: Hasher, digest: [u8; 32]) -> Self {
        Self { length, digest, hasher, taken: 0, account: 0 }
    }

    pub(crate) fn by(self, account: i64) -> Self {
        Self { account, ..self }
    }

    /// How many bytes are missing.
    fn missing(&self) -> u64 {
        self.length - self.taken
    }

    /// Counts and digests the next bytes.
    pub(crate) fn take(&mut self, bytes: &[u8]) -> Result<(), ReceiveError> {
        if bytes.len() as u64 > self.missing() {
            return Err(ReceiveError::Digest);
        }
        self.taken += bytes.len() as u64;
        match &mut self.hasher {
            Hasher::Blake3(hash) => {
                hash.update(bytes);
            }
            Hasher::Sha256(hash) => hash.update(bytes),
        }
        Ok(())
    }

    /// Whether all came and it is what was announced.
    pub(crate) fn check(self) -> Result<(), ReceiveError> {
        let digest: [u8; 32] = match self.hasher {
            Hasher::Blake3(hash) => *hash.finalize().as_bytes(),
            Hasher::Sha256(hash) => hash.finalize().into(),
        };
        if self.taken == self.length && digest == self.digest { Ok(()) } else { Err(ReceiveError::Digest) }
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
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl From<io::Error> for ReceiveError {
    fn from(error: io::Error) -> Self {
        Self::Store(error.into())
    }
}

/// Why a store did not do what it was asked for.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StoreError {
    /// No blob of that name.
    #[error("there is no such blob: {0}")]
    NotFound(String),
    /// No room.
    #[error("no room: {0}")]
    Full(String),
    /// Not at the moment: the store cannot be reached, or has more to do than it takes at once.
    #[error("{0}")]
    Unavailable(String),
    /// Anything else.
    #[error("{0}")]
    Broken(String),
}

impl From<io::Error> for StoreError {
    fn from(error: io::Error) -> Self {
        let text = format!("disk: {error}");
        match error.kind() {
            io::ErrorKind::NotFound => Self::NotFound(text),
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Self::Full(text),
            _ => Self::Broken(text),
        }
    }
}

/// Frames up to about `size` bytes; empty at the end of the body.
async fn next_batch(body: &Upload, size: usize) -> Result<Vec<Bytes>, BodyError> {
    let mut batch = Vec::new();
    let mut length = 0;
    while length < size {
        let Some(bytes) = body.next().await? else {
            break;
        };
        length += bytes.len();
        batch.push(bytes);
    }
    Ok(batch)
}

/// The beginning of a body: at least the first line of an age file, or it is not one.
async fn first_batch(body: &Upload, size: usize) -> Result<Vec<Bytes>, ReceiveError> {
    let batch = next_batch(body, size.max(AGE.len())).await?;
    if batch.iter().flatten().take(AGE.len()).eq(AGE) { Ok(batch) } else { Err(ReceiveError::NotAge) }
}
