//! Where verified content goes: a folder ([`super::Staging`]), a writer, or memory.

use std::io::{self, Write};

use zeroize::Zeroizing;

use super::index::{Entry, EntryKind, Index};
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
    /// The folder failed.
    #[error(transparent)]
    Stage(#[from] StageError),
}

/// Takes the entries of a bundle in order. Dropped before [`Sink::finish`], it leaves nothing behind.
pub trait Sink {
    /// What it has become when all is verified.
    type Done;

    /// What is coming.
    ///
    /// # Errors
    /// When this sink cannot hold it.
    fn begin(&mut self, index: &Index) -> Result<(), SinkError>;
    /// A folder.
    ///
    /// # Errors
    /// When it cannot be made.
    fn folder(&mut self, entry: &Entry) -> Result<(), SinkError>;
    /// A file; its bytes follow.
    ///
    /// # Errors
    /// When it cannot be made.
    fn begin_file(&mut self, entry: &Entry) -> Result<(), SinkError>;
    /// Bytes of the file begun last. Their part is verified, the file as a whole is not.
    ///
    /// # Errors
    /// When they cannot be written.
    fn bytes(&mut self, bytes: &[u8]) -> Result<(), SinkError>;
    /// The file begun last is complete and has its digest.
    ///
    /// # Errors
    /// When it cannot be completed.
    fn end_file(&mut self, entry: &Entry) -> Result<(), SinkError>;
    /// Everything in a part was good.
    ///
    /// # Errors
    /// When held bytes cannot be written.
    fn part_done(&mut self) -> Result<(), SinkError> {
        Ok(())
    }
    /// Every byte of the bundle was good.
    ///
    /// # Errors
    /// When what was taken cannot be completed.
    fn finish(self, index: &Index) -> Result<Self::Done, SinkError>;
}

/// The size of the one file in a bundle that holds nothing else.
fn only_file(index: &Index) -> Result<u64, SinkError> {
    match index.entries() {
        [Entry { kind: EntryKind::File { size, .. }, .. }] => Ok(*size),
        entries => Err(SinkError::NotOneFile { entries: entries.len() }),
    }
}

/// One file into a writer, for standard output. Up to [`HELD_BYTES`] nothing is written before everything is verified;
/// beyond, a prefix of verified parts is, and only the return of `finish` tells whether it was the whole.
pub struct Released<W> {
    to: W,
    held: Zeroizing<Vec<u8>>,
    releasing: bool,
}

impl<W: Write> Released<W> {
    /// Into `to`.
    #[must_use]
    pub fn new(to: W) -> Self {
        Self { to, held: Zeroizing::new(Vec::new()), releasing: false }
    }

    fn release(&mut self) -> Result<(), SinkError> {
        self.to.write_all(&self.held).map_err(SinkError::Write)?;
        self.held.clear();
        Ok(())
    }
}

impl<W: Write> Sink for Released<W> {
    type Done = W;

    fn begin(&mut self, index: &Index) -> Result<(), SinkError> {
        let size = only_file(index)?;
        // A short secret leaves no copies behind by growing; the cap holds, so a size that lies costs little.
        self.held.reserve_exact(size.min(MAX_IN_MEMORY) as usize);
        Ok(())
    }
    fn folder(&mut self, _: &Entry) -> Result<(), SinkError> {
        Ok(())
    }
    fn begin_file(&mut self, _: &Entry) -> Result<(), SinkError> {
        Ok(())
    }
    fn bytes(&mut self, bytes: &[u8]) -> Result<(), SinkError> {
        self.held.extend_from_slice(bytes);
        Ok(())
    }
    fn end_file(&mut self, _: &Entry) -> Result<(), SinkError> {
        Ok(())
    }
    fn part_done(&mut self) -> Result<(), SinkError> {
        self.releasing |= self.held.len() > HELD_BYTES;
        if self.releasing { self.release() } else { Ok(()) }
    }
    fn finish(mut self, _: &Index) -> Result<W, SinkError> {
        self.release()?;
        self.to.flush().map_err(SinkError::Write)?;
        Ok(self.to)
    }
}

/// One short file into memory that is wiped when dropped, for credentials.
#[derive(Default)]
pub struct InMemory {
    bytes: Zeroizing<Vec<u8>>,
}

impl InMemory {
    /// Empty.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }
}

impl Sink for InMemory {
    type Done = Zeroizing<Vec<u8>>;

    fn begin(&mut self, index: &Index) -> Result<(), SinkError> {
        let size = only_file(index)?;
        if size > MAX_IN_MEMORY {
            return Err(SinkError::TooLarge { size });
        }
        // At once, so that growing leaves no copies behind; the cap holds, so a size that lies costs little.
        self.bytes.reserve_exact(size as usize);
        Ok(())
    }
    fn folder(&mut self, _: &Entry) -> Result<(), SinkError> {
        Ok(())
    }
    fn begin_file(&mut self, _: &Entry) -> Result<(), SinkError> {
        Ok(())
    }
    fn bytes(&mut self, bytes: &[u8]) -> Result<(), SinkError> {
        self.bytes.extend_from_slice(bytes);
        Ok(())
    }
    fn end_file(&mut self, _: &Entry) -> Result<(), SinkError> {
        Ok(())
    }
    fn finish(self, _: &Index) -> Result<Self::Done, SinkError> {
        Ok(self.bytes)
    }
}
