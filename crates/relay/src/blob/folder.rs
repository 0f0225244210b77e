//! Blobs in a local folder, one file each.
//!
//! System calls of a put, in this order (asserted by a test over `strace`, and on a simulated disk that loses what was
//! not synced):
//!
//! | call | makes |
//! | --- | --- |
//! | `open(staging/N, O_CREAT\|O_EXCL)`, `write…` | a file that nobody reads |
//! | `fsync` of the file | its bytes durable |
//! | `rename(staging/N → blobs/a/b/N)` | the blob visible, and whole |
//! | `fsync(blobs/a/b)` | its name durable; one for all who wait ([`GroupSync`]) |
//!
//! and only then the ledger's commit and the answer.

use std::io;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, ready};
use std::time::{SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use futures_util::Stream;
use pouch_statement::Timestamp;
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;

use super::group::GroupSync;
use super::stride::{Stride, Strides};
use super::{
    Announced, BlobFuture, BlobName, BlobStore, BlobStream, ID, Listed, Page, ReceiveError, StoreError, StoreId,
    Unfinished, first_batch, next_batch,
};
use crate::body::Upload;
use crate::disk::{Disk, DiskFile};

const FOLDER: &str = "blobs";
const STAGING: &str = "staging";
/// Disk calls at once: bounds the threads that wait for the disk.
const PARALLEL: usize = 32;
/// Of a file that is read whole.
const MAX_SMALL: u64 = 4 << 10;
const HEX: &str = "0123456789abcdef";

/// Where blocking steps run.
pub(super) enum Steps {
    /// On threads of their own, a bounded number at once.
    Threads(Semaphore),
    /// In place: a simulated disk does not block, and tests of it are the same each time.
    #[cfg(test)]
    InPlace,
}

impl Steps {
    pub(super) fn threads() -> Self {
        Self::Threads(Semaphore::new(PARALLEL))
    }

    pub(super) async fn run<T: Send + 'static>(
        &self,
        step: impl FnOnce() -> io::Result<T> + Send + 'static,
    ) -> io::Result<T> {
        match self {
            Self::Threads(parallel) => {
                let _permit = parallel.acquire().await.map_err(io::Error::other)?;
                tokio::task::spawn_blocking(step).await.map_err(io::Error::other)?
            }
            #[cfg(test)]
            Self::InPlace => {
                tokio::task::yield_now().await;
                step()
            }
        }
    }
}

/// The folder of blobs. Its owner holds the data folder's lock.
pub(super) struct Folder {
    data: Arc<Path>,
    disk: Disk,
    steps: Arc<Steps>,
    /// One for each folder, by a name's first byte.
    syncs: Vec<Arc<GroupSync>>,
    /// Bytes that must stay free, for the ledger above all.
    reserve: u64,
    /// Announced bytes of the uploads under way.
    coming: Arc<AtomicU64>,
    strides: Strides,
}

/// A file being written, moved from one blocking step to the next.
struct Sink {
    disk: Disk,
    path: PathBuf,
    file: Box<dyn DiskFile>,
    announced: Announced,
}

impl Sink {
    fn create(disk: Disk, path: PathBuf, announced: Announced) -> io::Result<Self> {
        let file = disk.create(&path)?;
        Ok(Self { disk, path, file, announced })
    }

    fn append(mut self, batch: &[Bytes]) -> Result<Self, ReceiveError> {
        for bytes in batch {
            self.announced.take(bytes)?;
            self.disk.write(&*self.file, &self.path, bytes)?;
        }
        Ok(self)
    }

    /// Durable bytes, then the name.
    fn publish(self, target: &Path) -> Result<(), ReceiveError> {
        self.announced.check()?;
        self.disk.sync_file(&*self.file, &self.path)?;
        self.disk.rename(&self.path, target)?;
        Ok(())
    }
}

/// Room that an upload has announced and still needs: what is written is no longer among the free bytes. Given back when
/// dropped.
struct Room {
    coming: Arc<AtomicU64>,
    length: u64,
}

impl Room {
    /// So many bytes have gone to the disk.
    fn written(&mut self, bytes: u64) {
        let bytes = bytes.min(self.length);
        self.length -= bytes;
        self.coming.fetch_sub(bytes, Ordering::SeqCst);
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        self.coming.fetch_sub(self.length, Ordering::SeqCst);
    }
}

fn length(batch: &[Bytes]) -> u64 {
    batch.iter().map(|bytes| bytes.len() as u64).sum()
}

impl Folder {
    /// Makes the folders that are missing, so that no put has to.
    pub(super) fn open(data: &Path, disk: Disk, reserve: u64) -> io::Result<Self> {
        Self::open_with(data, disk, reserve, Steps::threads())
    }

    pub(super) fn open_with(data: &Path, disk: Disk, reserve: u64, steps: Steps) -> io::Result<Self> {
        let root = data.join(FOLDER);
        disk.make_folder(&data.join(STAGING))?;
        disk.make_folder(&root)?;
        let steps = Arc::new(steps);
        let mut syncs = Vec::with_capacity(256);
        for a in HEX.chars() {
            let first = root.join(a.to_string());
            disk.make_folder(&first)?;
            for b in HEX.chars() {
                let second = first.join(b.to_string());
                disk.make_folder(&second)?;
                syncs.push(GroupSync::new(disk.clone(), Arc::clone(&steps), second));
            }
            // Also when nothing was missing: a start before this one may have died between making and syncing.
            disk.sync_folder(&first)?;
        }
        disk.sync_folder(&root)?;
        disk.sync_folder(data)?;
        Ok(Self { data: data.into(), disk, steps, syncs, reserve, coming: Arc::default(), strides: Strides::new() })
    }

    fn staging(&self, name: BlobName) -> PathBuf {
        self.data.join(STAGING).join(name.text())
    }

    /// `blobs/a/b`
    fn folder(&self, first: u8) -> PathBuf {
        let mut path = self.data.join(FOLDER);
        path.push(format!("{:x}", first >> 4));
        path.push(format!("{:x}", first & 15));
        path
    }

    /// `blobs/a/b/ab…`
    fn path(&self, name: BlobName) -> PathBuf {
        self.folder(name.first()).join(name.text())
    }

    async fn step<T: Send + 'static>(
        &self,
        step: impl FnOnce() -> io::Result<T> + Send + 'static,
    ) -> Result<T, StoreError> {
        Ok(self.steps.run(step).await?)
    }

    /// A step of an upload, which can also find that the body is not the announced one.
    async fn upload_step<T: Send + 'static>(
        &self,
        step: impl FnOnce() -> Result<T, ReceiveError> + Send + 'static,
    ) -> Result<T, ReceiveError> {
        self.steps.run(move || Ok(step())).await?
    }

    /// Refuses an upload that would leave less than the reserve once it and all others under way are there.
    async fn take_room(&self, length: u64) -> Result<Room, ReceiveError> {
        let before = self.coming.fetch_add(length, Ordering::SeqCst);
        let room = Room { coming: Arc::clone(&self.coming), length };
        let (disk, data) = (self.disk.clone(), Arc::clone(&self.data));
        let free = self.step(move || disk.room(&data)).await?;
        let needed = before.saturating_add(length).saturating_add(self.reserve);
        if free < needed {
            let text = format!("{free} bytes are free, {needed} are needed with the reserve and uploads under way");
            return Err(StoreError::Full(text).into());
        }
        Ok(room)
    }

    /// Hashing and writing of one batch overlap with reading the next.
    async fn stream_in(&self, name: BlobName, body: &Upload, announced: Announced) -> Result<(), ReceiveError> {
        let (disk, path, target) = (self.disk.clone(), self.staging(name), self.path(name));
        let stride = self.strides.take(announced.length);
        let size = usize::try_from(stride.bytes()).unwrap_or(usize::MAX);
        let mut batch = first_batch(body, size).await?;
        let mut room = self.take_room(announced.length).await?;
        if length(&batch) >= announced.length {
            // All of it: one step instead of three.
            if body.next().await?.is_some() {
                return Err(ReceiveError::Digest);
            }
            self.upload_step(move || Sink::create(disk, path, announced)?.append(&batch)?.publish(&target)).await?;
        } else {
            let mut sink = self.upload_step(move || Ok(Sink::create(disk, path, announced)?)).await?;
            while !batch.is_empty() {
                let bytes = length(&batch);
                let written = self.upload_step(move || sink.append(&batch));
                let (written, next) = tokio::join!(written, next_batch(body, size));
                sink = written?;
                room.written(bytes);
                batch = next?;
            }
            self.upload_step(move || sink.publish(&target)).await?;
        }
        match self.syncs.get(usize::from(name.first())) {
            Some(folder) => Ok(folder.sync().await?),
            None => Err(io::Error::other("a folder is missing").into()),
        }
    }

    /// Deletes whatever there is of a name. Staging first: an upload that has not yet renamed then cannot any more.
    async fn remove_files(&self, name: BlobName) -> Result<(), StoreError> {
        let (disk, staging, path) = (self.disk.clone(), self.staging(name), self.path(name));
        self.step(move || disk.remove(&staging).and(disk.remove(&path))).await
    }
}

impl BlobStore for Folder {
    fn receive<'a>(
        &'a self,
        name: BlobName,
        body: &'a Upload,
        announced: Announced,
    ) -> BlobFuture<'a, (), ReceiveError> {
        Box::pin(async move {
            let outcome = self.stream_in(name, body, announced).await;
            if outcome.is_err()
                && let Err(error) = self.remove_files(name).await
            {
                tracing::warn!(%error, "what is left of an upload cannot be deleted");
            }
            outcome
        })
    }

    fn read(&self, name: BlobName, offset: u64, length: u64) -> BlobFuture<'_, BlobStream> {
        Box::pin(async move {
            let (disk, path) = (self.disk.clone(), self.path(name));
            let file = self.step(move || disk.open(&path)).await?;
            let (disk, steps) = (self.disk.clone(), Arc::clone(&self.steps));
            let stride = self.strides.take(length);
            let mut reading = Reading { disk, steps, file: file.into(), offset, unread: length, stride, chunk: None };
            reading.read_on();
            Ok(Box::pin(reading) as BlobStream)
        })
    }

    fn remove(&self, name: BlobName) -> BlobFuture<'_, ()> {
        Box::pin(self.remove_files(name))
    }

    /// A page is a folder.
    fn list(&self, after: Option<String>) -> BlobFuture<'_, Page> {
        Box::pin(async move {
            let first = match after {
                None => 0,
                Some(mark) => mark.parse::<u8>().map_err(|_| StoreError::Broken("no such page".to_owned()))?,
            };
            let (disk, folder) = (self.disk.clone(), self.folder(first));
            let blobs = self.step(move || list_folder(&disk, &folder)).await?;
            Ok(Page { blobs, next: first.checked_add(1).map(|next| next.to_string()) })
        })
    }

    fn unfinished(&self) -> BlobFuture<'_, Vec<Unfinished>> {
        Box::pin(async move {
            let (disk, staging) = (self.disk.clone(), self.data.join(STAGING));
            let staged = self.step(move || list_folder(&disk, &staging)).await?;
            let unfinished = |l: Listed| Unfinished { name: l.name, begun: l.modified, upload: String::new() };
            Ok(staged.into_iter().map(unfinished).collect())
        })
    }

    fn discard<'a>(&'a self, unfinished: &'a Unfinished) -> BlobFuture<'a, ()> {
        Box::pin(async move {
            let (disk, staging) = (self.disk.clone(), self.staging(unfinished.name));
            self.step(move || disk.remove(&staging)).await
        })
    }

    fn id(&self) -> BlobFuture<'_, Option<StoreId>> {
        Box::pin(async move {
            let (disk, path) = (self.disk.clone(), self.data.join(FOLDER).join(ID));
            let bytes = self.step(move || read_small(&disk, &path)).await?;
            bytes.map(|bytes| StoreId::read(&bytes)).transpose()
        })
    }

    fn set_id(&self, id: StoreId) -> BlobFuture<'_, ()> {
        Box::pin(async move {
            // Under the name of a blob, so that what a crash leaves of it is collected like one.
            let staged = BlobName::random().map_err(|error| StoreError::Broken(error.to_string()))?;
            let (disk, staged, root) = (self.disk.clone(), self.staging(staged), self.data.join(FOLDER));
            self.step(move || {
                disk.write_new(&staged, id.line().as_bytes())?;
                disk.rename(&staged, &root.join(ID))?;
                disk.sync_folder(&root)
            })
            .await
        })
    }

    fn is_mine(&self) -> bool {
        true
    }
}

/// The content of a file, if there is one; of a long one its beginning.
fn read_small(disk: &Disk, path: &Path) -> io::Result<Option<Vec<u8>>> {
    let Some(facts) = disk.look(path)? else { return Ok(None) };
    let mut bytes = vec![0; facts.length.min(MAX_SMALL) as usize];
    let file = disk.open(path)?;
    disk.read_at(&*file, &mut bytes, 0)?;
    Ok(Some(bytes))
}

/// The blobs in one folder. What does not read as a name was not made by the relay, and is left alone.
fn list_folder(disk: &Disk, folder: &Path) -> io::Result<Vec<Listed>> {
    let mut blobs = Vec::new();
    for path in disk.list(folder)? {
        let name = path.file_name().and_then(|name| name.to_str()).and_then(BlobName::parse);
        // A file may go while its folder is listed.
        if let Some(name) = name
            && let Some(facts) = disk.look(&path)?
        {
            blobs.push(Listed { name, length: facts.length, modified: timestamp(facts.modified) });
        }
    }
    Ok(blobs)
}

fn timestamp(time: SystemTime) -> Timestamp {
    let seconds = time.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    Timestamp::from_unix(seconds).unwrap_or(Timestamp::EPOCH)
}

/// A piece of a file; the next chunk is read while the client takes the present one.
struct Reading {
    disk: Disk,
    steps: Arc<Steps>,
    file: Arc<dyn DiskFile>,
    offset: u64,
    /// Not yet asked of the disk.
    unread: u64,
    stride: Stride,
    chunk: Option<JoinHandle<io::Result<Bytes>>>,
}

impl Reading {
    fn read_on(&mut self) {
        if self.unread == 0 {
            return;
        }
        let length = self.unread.min(self.stride.bytes());
        let (disk, steps, file, offset) =
            (self.disk.clone(), Arc::clone(&self.steps), Arc::clone(&self.file), self.offset);
        self.chunk = Some(tokio::spawn(async move {
            let read = move || {
                let mut bytes = vec![0u8; length as usize];
                disk.read_at(&*file, &mut bytes, offset)?;
                Ok(bytes.into())
            };
            steps.run(read).await
        }));
        self.offset += length;
        self.unread -= length;
    }
}

impl Stream for Reading {
    type Item = io::Result<Bytes>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let Some(chunk) = self.chunk.as_mut() else {
            return Poll::Ready(None);
        };
        let outcome = ready!(Pin::new(chunk).poll(cx)).map_err(io::Error::other).and_then(|read| read);
        self.chunk = None;
        if outcome.is_ok() {
            self.read_on();
        }
        Poll::Ready(Some(outcome))
    }
}

#[cfg(test)]
mod tests;
