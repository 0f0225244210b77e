//! Sealing: content in, sealed parts out on as many threads as ask for them, and at the end the index and the bundle
//! key.

use std::collections::HashMap;
use std::io;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;

use pouch_statement::{Blake3Digest, Sha256Digest};
use zeroize::{Zeroize as _, Zeroizing};

use super::archive::ItemKind;
use super::cut::{Content, StreamCut, StreamError, Told, TreePart};
use super::frames::{Compression, FRAME_SIZE, Frames};
use super::index::{ContentKind, Entry, EntryKind, Index, IndexError, PartSpec};
use super::layout::{LayoutError, part_start};
use super::manifest::Summary;
use super::pack::{Packing, Step};
use super::padding::padded;
use super::path::EntryPath;
use super::source::{Found, Scan, SourceError};
use super::spread::Spread;
use crate::age::{self, Identity, Recipient, seal_part};

/// Why sealing stopped. Nothing that was sealed before is of use then.
#[derive(Debug, thiserror::Error)]
pub enum SealError {
    /// The files cannot be read, or changed.
    #[error(transparent)]
    Source(#[from] SourceError),
    /// The stream cannot be read.
    #[error("cannot read the input: {0}")]
    Stream(#[source] io::Error),
    /// More content than a bundle can hold.
    #[error(transparent)]
    Layout(#[from] LayoutError),
    /// The entries cannot be put into an index.
    #[error(transparent)]
    Index(#[from] IndexError),
    /// Encryption failed.
    #[error("cannot seal: {0}")]
    Age(#[from] age::Error),
    /// Compression failed.
    #[error("cannot compress: {0}")]
    Compression(&'static str),
    /// Finished before the last part, or continued after an error.
    #[error("the bundle was not sealed to its end")]
    Unfinished,
}

impl From<StreamError> for SealError {
    fn from(error: StreamError) -> Self {
        match error {
            StreamError::Io(error) => Self::Stream(error),
            StreamError::Layout(error) => Self::Layout(error),
            StreamError::Age(error) => Self::Age(error),
            StreamError::Broken => Self::Unfinished,
        }
    }
}

/// One sealed part. Made once and filled again and again, so that its memory is reused.
#[derive(Clone)]
pub struct SealedPart {
    /// Its number, from 0.
    pub number: u32,
    /// Bytes of padded content in it.
    pub plain_size: u64,
    /// Bytes of content, before compression, that are sealed with it: those of the frames that end in it. Of content that
    /// is not compressed, as `plain_size`.
    pub covers: u64,
    /// The age file.
    pub sealed: Vec<u8>,
    /// Digest of the age file; zeros before the first use.
    pub blake3: Blake3Digest,
}

impl Default for SealedPart {
    fn default() -> Self {
        Self { number: 0, plain_size: 0, covers: 0, sealed: Vec::new(), blake3: Blake3Digest::from_bytes([0; 32]) }
    }
}

impl SealedPart {
    /// What the index says of it.
    #[must_use]
    pub fn spec(&self) -> PartSpec {
        let sealed_size = self.sealed.len() as u64;
        PartSpec { size: self.plain_size, sealed_size, sealed_blake3: self.blake3 }
    }
}

/// How far sealing is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// Bytes of files or of the stream that were read.
    pub bytes: u64,
    /// Entries that are done.
    pub entries: u64,
}

/// A bundle in the making. [`Sealer::next_part`] may be called on several threads at once; each holds the one part that
/// it seals, in the memory of its [`SealedPart`], whatever the size of the whole. With compression there are also the part
/// that fills up, at most 16 frames that wait for one in front of them, and for each thread the frame that it makes.
///
/// Every part gets a fresh file key, also when the same content is sealed again, so no key ever meets two
/// plaintexts (attacks.md 33).
pub struct Sealer {
    source: Source,
    /// With compression.
    packing: Option<Packing>,
    key: Identity,
    recipient: Recipient,
    state: Mutex<State>,
}

enum Source {
    Tree(Box<Scan>),
    Stream { name: EntryPath, mtime: i64, cut: Box<Mutex<StreamCut>> },
}

#[derive(Default)]
struct State {
    /// Number of the next part of a tree.
    next: u32,
    /// Nobody gets a part any more.
    failed: bool,
    /// The stream was seen to have no further part.
    closed: bool,
    /// Parts, or frames, of a tree that were read.
    read: u32,
    parts: Vec<Option<PartSpec>>,
    digests: Vec<Option<Blake3Digest>>,
    /// Files that lie in several parts.
    spreads: HashMap<usize, Spread>,
    progress: Progress,
}

/// What sealing leaves behind the parts.
pub struct SealedBundle {
    /// Entries and parts.
    pub index: Index,
    /// The index as it is carried: padded, one age file.
    pub sealed_index: Vec<u8>,
    /// The sizes and digests that each recipient's manifest signs.
    pub summary: Summary,
    /// The bundle key E. Secret in both halves: it stands in envelopes, and sealed to the sender, nowhere else.
    pub key: Identity,
}

/// Ends the sealing for everybody if a thread panics.
struct Attempt<'a>(&'a Sealer);

impl Drop for Attempt<'_> {
    fn drop(&mut self) {
        self.0.fail();
    }
}

impl Sealer {
    /// Begins a bundle with a fresh bundle key.
    ///
    /// # Errors
    /// [`IndexError::NotAStream`] for a stream whose name has several components.
    pub fn new(content: Content) -> Result<Self, SealError> {
        Self::compressing(content, None)
    }

    /// As [`Sealer::new`], with compression if asked for. How well the content compresses shows in the size of the bundle,
    /// up to its padding (docs/threat-model.md).
    ///
    /// # Errors
    /// As [`Sealer::new`].
    pub fn compressing(content: Content, compression: Option<Compression>) -> Result<Self, SealError> {
        let source = match content {
            Content::Stream { name, .. } if name.parent().is_some() => return Err(IndexError::NotAStream.into()),
            Content::Stream { name, mtime, reader } => {
                Source::Stream { name, mtime, cut: Box::new(Mutex::new(StreamCut::new(reader))) }
            }
            Content::Tree(scan) => Source::Tree(Box::new(scan)),
        };
        let state = match &source {
            Source::Tree(scan) => State { digests: vec![None; scan.items().len()], ..State::default() },
            Source::Stream { .. } => State::default(),
        };
        let frames = match &source {
            Source::Tree(scan) => Some(Frames::count(scan.layout().content_size()) as usize),
            Source::Stream { .. } => None,
        };
        let packing = compression.map(|Compression::Zstd| Packing::new(frames));
        let key = Identity::generate_x25519();
        let recipient = key.recipient();
        Ok(Self { source, packing, key, recipient, state: Mutex::new(state) })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // A thread that panics marks the sealing as failed; what it leaves is not used.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Nobody goes on; whether that was so before.
    pub(super) fn fail(&self) -> bool {
        let before = std::mem::replace(&mut self.state().failed, true);
        if let Some(packing) = &self.packing {
            packing.fail();
        }
        before
    }

    /// Whether an error ended the sealing.
    pub(super) fn is_failed(&self) -> bool {
        self.state().failed
    }

    /// The bundle key, for the sender's own sealed state while parts are still on their way.
    #[must_use]
    pub fn bundle_key(&self) -> &Identity {
        &self.key
    }

    /// How much was read.
    #[must_use]
    pub fn progress(&self) -> Progress {
        self.state().progress
    }

    /// Seals the next part into `out`. `false` behind the last one; `out` is as it was then. Called on several threads,
    /// each gets another part; numbers are given out in order, and parts may be ready in another.
    ///
    /// # Errors
    /// A source that cannot be read or changed, too much content, or no random bytes. Nothing can follow an error: the
    /// thread that met it has it, the others get [`SealError::Unfinished`].
    pub fn next_part(&self, out: &mut SealedPart) -> Result<bool, SealError> {
        let attempt = Attempt(self);
        let sealed = match (&self.packing, &self.source) {
            (Some(packing), _) => self.next_of_frames(packing, out),
            (None, Source::Tree(scan)) => self.next_of_tree(scan, out),
            (None, Source::Stream { cut, .. }) => self.next_of_stream(cut, out),
        };
        std::mem::forget(attempt);
        sealed.map_err(|error| match error {
            SealError::Unfinished => error,
            _ if self.fail() => SealError::Unfinished,
            _ => error,
        })
    }

    fn next_of_tree(&self, scan: &Scan, out: &mut SealedPart) -> Result<bool, SealError> {
        let layout = scan.layout();
        let number = {
            let mut state = self.state();
            if state.failed {
                return Err(SealError::Unfinished);
            }
            if state.next == layout.parts() {
                return Ok(false);
            }
            state.next += 1;
            state.next - 1
        };
        let (at, size) = (part_start(number), layout.part_size(number).unwrap_or(0));
        let mut part = TreePart::new(scan, at, at + size);
        self.seal(number, size, out, |room| Ok(part.fill(room)?))?;
        self.note_of_tree(scan, part.finish()?, layout.parts().into())?;
        self.note_part(out)
    }

    fn next_of_stream(&self, cut: &Mutex<StreamCut>, out: &mut SealedPart) -> Result<bool, SealError> {
        let mut reading = cut.lock().unwrap_or_else(PoisonError::into_inner);
        if self.state().failed {
            return Err(SealError::Unfinished);
        }
        let next = reading.next(&mut out.sealed).inspect_err(|_| out.sealed.zeroize())?;
        drop(reading);
        let Some((number, size, bytes)) = next else {
            let mut state = self.state();
            state.closed = true;
            state.progress.entries = 1;
            return Ok(false);
        };
        self.seal(number, size, out, |_| Ok(()))?;
        self.note(Told { bytes, ..Told::default() }, |_| 0)?;
        self.note_part(out)
    }

    /// Makes frames until there is a part to seal.
    fn next_of_frames(&self, packing: &Packing, out: &mut SealedPart) -> Result<bool, SealError> {
        loop {
            match packing.next()?.ok_or(SealError::Unfinished)? {
                Step::Frame(number) => self.pack(packing, number)?,
                Step::Part(mut cut) => {
                    self.seal(cut.number, cut.size, out, |room| {
                        cut.fill(room);
                        Ok(())
                    })?;
                    out.covers = cut.raw;
                    return self.note_part(out);
                }
                Step::End => {
                    let mut state = self.state();
                    if matches!(self.source, Source::Stream { .. }) {
                        state.closed = true;
                        state.progress.entries = 1;
                    }
                    return Ok(false);
                }
            }
        }
    }

    /// Makes the frame `number` of a tree, or the next one of a stream.
    fn pack(&self, packing: &Packing, number: usize) -> Result<(), SealError> {
        let mut packer = packing.packer().map_err(SealError::Compression)?;
        let (number, len, total) = match &self.source {
            Source::Tree(scan) => {
                let size = scan.layout().content_size();
                let raw = Frames::new(size).raw(number).ok_or(SealError::Unfinished)?;
                let len = raw.end - raw.start;
                let mut frame = TreePart::new(scan, raw.start, raw.end);
                frame.fill(packer.room(len))?;
                self.note_of_tree(scan, frame.finish()?, Frames::count(size))?;
                (number, len, None)
            }
            Source::Stream { cut, .. } => {
                let mut reading = cut.lock().unwrap_or_else(PoisonError::into_inner);
                if self.state().failed {
                    return Err(SealError::Unfinished);
                }
                let next = reading.next_frame(packer.room(FRAME_SIZE))?;
                let (count, ended) = reading.count();
                drop(reading);
                let Some((number, read)) = next else {
                    packing.spare(packer);
                    packing.ended(count as usize);
                    return Ok(());
                };
                self.note(Told { bytes: read as u64, ..Told::default() }, |_| 0)?;
                (number as usize, read as u64, ended.then_some(count as usize))
            }
        };
        packing.put(number, packer.pack(len as usize).map_err(SealError::Compression)?, len, total)?;
        packing.spare(packer);
        Ok(())
    }

    /// Seals what `fill` gives as part `number`.
    fn seal(
        &self,
        number: u32,
        size: u64,
        out: &mut SealedPart,
        fill: impl FnMut(&mut [u8]) -> Result<(), SealError>,
    ) -> Result<(), SealError> {
        let mut hasher = blake3::Hasher::new();
        let done = |bytes: &[u8]| {
            hasher.update(bytes);
        };
        age::seal_filled(&self.recipient, size, &mut out.sealed, fill, done)?;
        out.number = number;
        (out.plain_size, out.covers) = (size, size);
        out.blake3 = Blake3Digest::from_bytes(*hasher.finalize().as_bytes());
        Ok(())
    }

    /// Writes down what one of `total` stretches of a tree told.
    fn note_of_tree(&self, scan: &Scan, told: Told, total: u64) -> Result<(), SealError> {
        let last = {
            let mut state = self.state();
            state.read += 1;
            u64::from(state.read) == total
        };
        if last {
            scan.folders_unchanged()?;
        }
        self.note(told, |number| scan.found(number).map_or(0, |found| found.kind.size()))
    }

    /// Writes down what was read.
    fn note(&self, told: Told, size: impl Fn(usize) -> u64) -> Result<(), SealError> {
        let mut state = self.state();
        if state.failed {
            return Err(SealError::Unfinished);
        }
        for (number, piece) in told.pieces {
            let spread = state.spreads.entry(number).or_insert_with(|| Spread::new(size(number)));
            if let Some(digest) = spread.add(piece) {
                state.spreads.remove(&number);
                put(&mut state.digests, number, digest);
            }
        }
        for (number, digest) in told.whole {
            put(&mut state.digests, number, digest);
        }
        state.progress.bytes += told.bytes;
        state.progress.entries += told.entries;
        Ok(())
    }

    /// Writes down a part that is sealed.
    fn note_part(&self, out: &SealedPart) -> Result<bool, SealError> {
        let mut state = self.state();
        if state.failed {
            return Err(SealError::Unfinished);
        }
        put(&mut state.parts, out.number as usize, out.spec());
        Ok(true)
    }

    /// Makes and seals the index.
    ///
    /// # Errors
    /// [`SealError::Unfinished`] before every part was sealed and, of a stream, [`Sealer::next_part`] gave `false`; an
    /// index that is too long.
    pub fn finish(self) -> Result<SealedBundle, SealError> {
        let state = self.state.into_inner().unwrap_or_else(PoisonError::into_inner);
        let parts: Option<Vec<_>> = state.parts.into_iter().collect();
        let parts = parts.filter(|_| !state.failed).ok_or(SealError::Unfinished)?;
        let frames = match self.packing {
            Some(packing) => Some(packing.into_sizes().ok_or(SealError::Unfinished)?),
            None => None,
        };
        let (content, entries) = match self.source {
            Source::Tree(scan) if frames.is_some() || parts.len() as u64 == u64::from(scan.layout().parts()) => {
                (ContentKind::Tar, entries(*scan, state.digests)?)
            }
            Source::Stream { name, mtime, cut } if state.closed => {
                let cut = cut.into_inner().unwrap_or_else(PoisonError::into_inner);
                let (size, blake3) = cut.told().ok_or(SealError::Unfinished)?;
                let kind = EntryKind::File { size, executable: false, blake3 };
                (ContentKind::Stream, vec![Entry { path: name, mtime, kind }])
            }
            _ => return Err(SealError::Unfinished),
        };
        let index = match frames {
            Some(frames) => Index::compressed(content, entries, &frames, parts)?,
            None => Index::new(content, entries, parts)?,
        };
        let mut plain = Zeroizing::new(index.encode()?);
        let index_size = plain.len() as u64;
        let end = padded(index_size).ok_or(IndexError::TooLong)?;
        plain.resize(end as usize, 0);
        let (signed, _) = plain.split_at(index_size as usize);
        let (index_sha256, sealed_index) = thread::scope(|scope| {
            let digest = scope.spawn(|| Sha256Digest::of(signed));
            let mut sealed = Vec::new();
            let made = seal_part(&self.recipient, &plain, &mut sealed);
            let digest = digest.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
            made.map(|()| (digest, sealed))
        })?;
        let summary = Summary {
            content,
            layout: *index.layout(),
            index_size,
            index_sha256,
            sealed_index_size: sealed_index.len() as u64,
            sealed_index_sha256: Sha256Digest::of(&sealed_index),
        };
        Ok(SealedBundle { index, sealed_index, summary, key: self.key })
    }
}

/// Puts `value` at `number`, which may lie behind the end.
fn put<T: Clone>(list: &mut Vec<Option<T>>, number: usize, value: T) {
    if list.len() <= number {
        list.resize(number + 1, None);
    }
    if let Some(place) = list.get_mut(number) {
        *place = Some(value);
    }
}

/// The entries of a scan with the digests of its files.
fn entries(scan: Scan, digests: Vec<Option<Blake3Digest>>) -> Result<Vec<Entry>, SealError> {
    let entry = |(found, digest): (Found, Option<Blake3Digest>)| {
        let mtime = found.item().mtime;
        let kind = match (found.kind, digest) {
            (ItemKind::Folder, _) => EntryKind::Folder,
            (ItemKind::File { size, executable }, Some(blake3)) => EntryKind::File { size, executable, blake3 },
            (ItemKind::File { .. }, None) => return Err(SealError::Unfinished),
        };
        Ok(Entry { path: found.path, mtime, kind })
    };
    scan.into_found().zip(digests).map(entry).collect()
}
