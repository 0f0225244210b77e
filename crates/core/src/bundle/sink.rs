//! Where verified content goes: a folder ([`super::Staging`]), a writer, or memory.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::ops::Range;
use std::sync::{Mutex, PoisonError};

use pouch_statement::Blake3Digest;
use zeroize::Zeroizing;

use super::chosen::Chosen;
use super::index::{Entry, Index};
use super::resume::Had;
use super::stage::StageError;

/// A writer gets nothing until so many bytes have come, or all of them (docs/design, `--stdout`).
pub const HELD_BYTES: usize = 32 << 20;
/// The longest secret that is received into memory.
pub const MAX_IN_MEMORY: u64 = 1 << 20;

/// Why content could not be taken; the content itself may be good.
#[derive(Debug, thiserror::Error)]
pub enum SinkError {
    /// A writer and memory take one file, not a tree.
    #[error("the bundle holds {entries} entries, and only one file can go there")]
    NotOneFile {
        /// Files and folders in the bundle.
        entries: usize,
    },
    /// More than [`MAX_IN_MEMORY`].
    #[error("{size} bytes are too many for memory, at most {MAX_IN_MEMORY} fit")]
    TooLarge {
        /// Bytes of the file.
        size: u64,
    },
    /// The writer failed.
    #[error("cannot write: {0}")]
    Write(#[source] io::Error),
    /// There is not enough memory to decompress.
    #[error("there is not enough memory to decompress")]
    Memory,
    /// The folder failed.
    #[error(transparent)]
    Stage(#[from] StageError),
}

/// Takes the files of a bundle, part by part, or of compressed content frame by frame. They come on several threads and in
/// any order, so a file that lies in several of them comes in pieces. Dropped before [`Sink::finish`], it leaves nothing
/// behind.
pub trait Sink: Send + Sync {
    /// What it has become when all is verified.
    type Done;
    /// What takes the pieces of one part or frame.
    type Part<'a>: SinkPart
    where
        Self: 'a;
    /// How many parts or frames may come before one that is missing, because they have to be kept until it is there.
    const AHEAD: u32;

    /// What is coming: of all entries in the index those that are chosen. Says what of it is here already.
    ///
    /// # Errors
    /// When this sink cannot hold it.
    fn begin(&mut self, index: &Index, chosen: &Chosen) -> Result<Had, SinkError>;
    /// Takes part `number`, of compressed content frame `number`. Dropped before [`SinkPart::done`], the bundle is given
    /// up.
    fn part(&self, number: u32) -> Self::Part<'_>;
    /// Every byte that was wanted of the bundle was good.
    ///
    /// # Errors
    /// When what was taken cannot be completed.
    fn finish(self, index: &Index, chosen: &Chosen) -> Result<Self::Done, SinkError>;
}

/// Takes the files, or pieces of files, that lie in one part or frame, in order.
pub trait SinkPart {
    /// The bytes `share` of file `number` follow, which is all of an empty file.
    ///
    /// # Errors
    /// When it cannot be made.
    fn begin_file(&mut self, number: usize, entry: &Entry, share: Range<u64>) -> Result<(), SinkError>;
    /// Bytes of the file begun last, from its byte `at` on. They are what the sender sealed; the file as a whole is not
    /// verified.
    ///
    /// # Errors
    /// When they cannot be written.
    fn bytes(&mut self, at: u64, bytes: &[u8]) -> Result<(), SinkError>;
    /// The file begun last is complete, with what other parts brought of it, and has its digest.
    ///
    /// # Errors
    /// When it cannot be completed.
    fn end_file(&mut self, number: usize, entry: &Entry) -> Result<(), SinkError>;
    /// Everything in it was good. `pieces` says which bytes it brought of files that lie in several.
    ///
    /// # Errors
    /// When held bytes cannot be written.
    fn done(self, pieces: &Blake3Digest) -> Result<(), SinkError>;
}

/// The one file of a bundle that holds nothing else, or of which nothing else is wanted; its number and its size.
fn only_file(index: &Index, chosen: &Chosen) -> Result<(usize, u64), SinkError> {
    let entries = if chosen.is_all() { index.entries().len() } else { chosen.files(index).count() };
    match chosen.files(index).next() {
        Some((number, file)) if entries == 1 => Ok((number, file.size())),
        _ => Err(SinkError::NotOneFile { entries }),
    }
}

/// One file into a writer, for standard output. Up to [`HELD_BYTES`] nothing is written before everything is verified;
/// beyond, a prefix of verified parts is, and only the return of `finish` tells whether it was the whole.
pub struct Released<W>(Mutex<Out<W>>);

struct Out<W> {
    to: W,
    /// Number of the part that is written next.
    next: u32,
    /// Good parts that wait for one before them.
    early: BTreeMap<u32, Zeroizing<Vec<u8>>>,
    /// Good parts in order that are not written yet, and their bytes.
    held: Vec<Zeroizing<Vec<u8>>>,
    held_bytes: usize,
    releasing: bool,
}

impl<W: Write> Released<W> {
    /// Into `to`.
    #[must_use]
    pub fn new(to: W) -> Self {
        Self(Mutex::new(Out { to, next: 0, early: BTreeMap::new(), held: Vec::new(), held_bytes: 0, releasing: false }))
    }
}

impl<W: Write> Out<W> {
    fn take(&mut self, number: u32, bytes: Zeroizing<Vec<u8>>) -> Result<(), SinkError> {
        self.early.insert(number, bytes);
        while let Some(bytes) = self.early.remove(&self.next) {
            self.held_bytes += bytes.len();
            self.held.push(bytes);
            self.next += 1;
        }
        self.releasing |= self.held_bytes > HELD_BYTES;
        if self.releasing { self.release() } else { Ok(()) }
    }

    fn release(&mut self) -> Result<(), SinkError> {
        for bytes in self.held.drain(..) {
            self.to.write_all(&bytes).map_err(SinkError::Write)?;
        }
        Ok(())
    }
}

impl<W: Write + Send> Sink for Released<W> {
    type Done = W;
    type Part<'a>
        = ReleasedPart<'a, W>
    where
        W: 'a;
    const AHEAD: u32 = 8;

    fn begin(&mut self, index: &Index, chosen: &Chosen) -> Result<Had, SinkError> {
        only_file(index, chosen)?;
        let first = chosen.stretches(index).iter().position(|needed| *needed);
        self.0.get_mut().unwrap_or_else(PoisonError::into_inner).next = first.unwrap_or(0) as u32;
        Ok(Had::default())
    }
    fn part(&self, number: u32) -> ReleasedPart<'_, W> {
        ReleasedPart { to: &self.0, number, bytes: Zeroizing::new(Vec::new()) }
    }
    fn finish(self, _: &Index, _: &Chosen) -> Result<W, SinkError> {
        let mut out = self.0.into_inner().unwrap_or_else(PoisonError::into_inner);
        out.release()?;
        out.to.flush().map_err(SinkError::Write)?;
        Ok(out.to)
    }
}

/// A part on its way to a writer.
pub struct ReleasedPart<'a, W> {
    to: &'a Mutex<Out<W>>,
    number: u32,
    bytes: Zeroizing<Vec<u8>>,
}

impl<W: Write> SinkPart for ReleasedPart<'_, W> {
    fn begin_file(&mut self, _: usize, _: &Entry, share: Range<u64>) -> Result<(), SinkError> {
        // At once, so that growing leaves no copies behind; it is no more than the part has.
        self.bytes.reserve_exact((share.end - share.start) as usize);
        Ok(())
    }
    fn bytes(&mut self, _: u64, bytes: &[u8]) -> Result<(), SinkError> {
        self.bytes.extend_from_slice(bytes);
        Ok(())
    }
    fn end_file(&mut self, _: usize, _: &Entry) -> Result<(), SinkError> {
        Ok(())
    }
    fn done(self, _: &Blake3Digest) -> Result<(), SinkError> {
        self.to.lock().unwrap_or_else(PoisonError::into_inner).take(self.number, self.bytes)
    }
}

/// One short file into memory that is wiped when dropped, for credentials.
#[derive(Default)]
pub struct InMemory(Mutex<Zeroizing<Vec<u8>>>);

impl InMemory {
    /// Empty.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }
}

impl Sink for InMemory {
    type Done = Zeroizing<Vec<u8>>;
    type Part<'a> = InMemoryPart<'a>;
    // It is so short that it lies in two parts, or frames, at most.
    const AHEAD: u32 = u32::MAX;

    fn begin(&mut self, index: &Index, chosen: &Chosen) -> Result<Had, SinkError> {
        let (_, size) = only_file(index, chosen)?;
        if size > MAX_IN_MEMORY {
            return Err(SinkError::TooLarge { size });
        }
        // At once, so that growing leaves no copies behind; the cap holds, so a size that lies costs little.
        let bytes = self.0.get_mut().unwrap_or_else(PoisonError::into_inner);
        bytes.reserve_exact(size as usize);
        bytes.resize(size as usize, 0);
        Ok(Had::default())
    }
    fn part(&self, _: u32) -> InMemoryPart<'_> {
        InMemoryPart(&self.0)
    }
    fn finish(self, _: &Index, _: &Chosen) -> Result<Self::Done, SinkError> {
        Ok(self.0.into_inner().unwrap_or_else(PoisonError::into_inner))
    }
}

/// A part on its way to memory.
pub struct InMemoryPart<'a>(&'a Mutex<Zeroizing<Vec<u8>>>);

impl SinkPart for InMemoryPart<'_> {
    fn begin_file(&mut self, _: usize, _: &Entry, _: Range<u64>) -> Result<(), SinkError> {
        Ok(())
    }
    fn bytes(&mut self, at: u64, bytes: &[u8]) -> Result<(), SinkError> {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let at = at as usize;
        // It was held against the index's size, for which there is room.
        if let Some(room) = all.get_mut(at..at + bytes.len()) {
            room.copy_from_slice(bytes);
        }
        Ok(())
    }
    fn end_file(&mut self, _: usize, _: &Entry) -> Result<(), SinkError> {
        Ok(())
    }
    fn done(self, _: &Blake3Digest) -> Result<(), SinkError> {
        Ok(())
    }
}
