//! Sealing: content in, sealed parts out on as many threads as ask for them, and at the end the index and the bundle
//! key.

mod finish;
mod part;

use std::collections::HashMap;
use std::io;
use std::sync::{Mutex, MutexGuard, PoisonError};

use pouch_statement::Blake3Digest;
use zeroize::{Zeroize as _, Zeroizing};

use super::cut::{Content, StreamCut, StreamError, Told, TreePart};
use super::frames::{Compression, FRAME_SIZE, Frames};
use super::index::{Index, IndexError, PartSpec};
use super::kept::{self, Kept, KeptPart, Over};
use super::layout::{LayoutError, part_start};
use super::manifest::Summary;
use super::pack::{Packing, Step};
use super::path::EntryPath;
use super::source::{Scan, SourceError};
use super::spread::Spread;
use crate::age::{self, Identity, Recipient};

pub use self::part::SealedPart;

/// Bytes of a part that is passed over, in memory at once.
const READ_AT_ONCE: usize = 256 << 10;

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
    /// Files are not what they were when this part was sealed before.
    #[error("part {number} was sealed before with other content")]
    Differs {
        /// The part.
        number: u32,
    },
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
    /// Of a sealing that can be continued.
    kept: Option<Kept>,
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
        Self::make(content, compression, Identity::generate_x25519(), None)
    }

    /// As [`Sealer::compressing`], so that it can be continued: with a bundle key that the caller has kept, and tells for
    /// each part the keyed digest of its content. What is kept of an earlier sealing of the same content with this key is
    /// read and not sealed again.
    ///
    /// If the content of a kept part is another one now, that is [`SealError::Differs`] for files as they are. A part that is
    /// compressed, or of a stream, is sealed again: another version of zstd may give other bytes.
    ///
    /// # Errors
    /// As [`Sealer::new`].
    pub fn continuing(
        content: Content,
        compression: Option<Compression>,
        key: Identity,
        kept: Kept,
    ) -> Result<Self, SealError> {
        Self::make(content, compression, key, Some(kept))
    }

    fn make(
        content: Content,
        compression: Option<Compression>,
        key: Identity,
        kept: Option<Kept>,
    ) -> Result<Self, SealError> {
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
        let recipient = key.recipient();
        Ok(Self { source, packing, kept, key, recipient, state: Mutex::new(state) })
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
        if let Some(kept) = &self.kept {
            part = part.digesting(&kept.key);
        }
        let told = match self.kept(number, size) {
            Some(kept) => {
                let told = read_through(part, size)?;
                if told.content != Some(kept.content) {
                    return Err(SealError::Differs { number });
                }
                out.keep(number, size, kept);
                told
            }
            None => {
                self.seal(number, size, out, |room| Ok(part.fill(room)?))?;
                let told = part.finish()?;
                out.content = told.content;
                told
            }
        };
        self.note_of_tree(scan, told, layout.parts().into())?;
        self.note_part(out)
    }

    /// What is known of a part that was sealed before.
    fn kept(&self, number: u32, size: u64) -> Option<&KeptPart> {
        self.kept.as_ref().and_then(|kept| kept.part(number, size))
    }

    /// The keyed digest of the bytes that `tell` gives, if it is wanted.
    fn content(&self, tell: impl FnOnce(&mut blake3::Hasher)) -> Option<Blake3Digest> {
        self.kept.as_ref().map(|kept| {
            let mut hasher = kept.key.hasher(Over::Bytes);
            tell(&mut hasher);
            kept::digest(&hasher)
        })
    }

    /// Passes over a part that was sealed before with this content, or seals what `fill` gives.
    fn keep_or_seal(
        &self,
        number: u32,
        size: u64,
        content: Option<Blake3Digest>,
        out: &mut SealedPart,
        fill: impl FnMut(&mut [u8]) -> Result<(), SealError>,
    ) -> Result<(), SealError> {
        match self.kept(number, size).filter(|kept| content == Some(kept.content)) {
            Some(kept) => out.keep(number, size, kept),
            None => self.seal(number, size, out, fill)?,
        }
        out.content = content;
        Ok(())
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
        let content = self.content(|hasher| {
            for room in age::rooms(&mut out.sealed) {
                hasher.update(room);
            }
        });
        self.keep_or_seal(number, size, content, out, |_| Ok(()))?;
        if out.is_kept() {
            // The content stood there.
            out.sealed.zeroize();
        }
        self.note(Told { bytes, ..Told::default() }, |_| 0)?;
        self.note_part(out)
    }

    /// Makes frames until there is a part to seal.
    fn next_of_frames(&self, packing: &Packing, out: &mut SealedPart) -> Result<bool, SealError> {
        loop {
            match packing.next()?.ok_or(SealError::Unfinished)? {
                Step::Frame(number) => self.pack(packing, number)?,
                Step::Part(mut cut) => {
                    let content = self.content(|hasher| cut.tell(hasher));
                    self.keep_or_seal(cut.number, cut.size, content, out, |room| {
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
        (out.plain_size, out.covers, out.sealed_size) = (size, size, out.sealed.len() as u64);
        out.content = None;
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

/// Reads a part without sealing it.
fn read_through(mut part: TreePart<'_>, size: u64) -> Result<Told, SealError> {
    let mut room = Zeroizing::new(vec![0; usize::try_from(size).unwrap_or(usize::MAX).min(READ_AT_ONCE)]);
    let mut left = size;
    while left > 0 {
        let now = usize::try_from(left).unwrap_or(usize::MAX).min(room.len());
        part.fill(room.get_mut(..now).unwrap_or_default())?;
        left -= now as u64;
    }
    Ok(part.finish()?)
}
