//! Content on the recipient's side: each byte is a derived header, a file's byte, or a zero, and is checked as such.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::{Mutex, PoisonError};

use pouch_statement::Blake3Digest;

use super::archive;
use super::chosen::Chosen;
use super::index::{EntryKind, Index};
use super::layout::part_start;
use super::padding::is_zero;
use super::path::EntryPath;
use super::plan::{Piece, Walk};
use super::resume::Had;
use super::sink::{Sink, SinkError, SinkPart};
use super::spread::{PieceHasher, Spread};
use super::unpack::Unpacking;
use super::zstd::FrameError;
use crate::age;

/// Where the content is not what the index says.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
pub enum ContentError {
    /// The archive's header of an entry is not the derived one (attacks.md 3).
    #[error("the header of {path:?} in the archive is not the one that the index gives")]
    Header {
        /// The entry.
        path: EntryPath,
    },
    /// A file's bytes have another digest.
    #[error("the bytes of {path:?} do not have the digest in the index")]
    Digest {
        /// The entry.
        path: EntryPath,
    },
    /// A byte between or behind the entries is not zero, or what is behind the frames is not what must be.
    #[error("the padding of the content is not what it must be")]
    Padding,
    /// A frame of compressed content is not what the index says (attacks.md 12).
    #[error("frame {number} of the compressed content is refused: {reason}")]
    Frame {
        /// Its number, from 0.
        number: u64,
        /// What is wrong with it.
        reason: FrameError,
    },
    /// More or less content than the index says; parts of the right size cannot add up to this.
    #[error("the content has another length than the index says")]
    Length,
}

/// Why a part was not taken.
pub(super) enum CheckError {
    /// The content is wrong.
    Content(ContentError),
    /// What takes it failed.
    Sink(SinkError),
    /// The age file is wrong.
    Age(age::Error),
    /// Another part was wrong.
    Stopped,
}

impl From<ContentError> for CheckError {
    fn from(error: ContentError) -> Self {
        Self::Content(error)
    }
}

impl From<SinkError> for CheckError {
    fn from(error: SinkError) -> Self {
        Self::Sink(error)
    }
}

impl From<age::Error> for CheckError {
    fn from(error: age::Error) -> Self {
        Self::Age(error)
    }
}

/// What is common to all stretches: where content goes, and the files that lie in several of them.
pub(super) struct Checker<S> {
    sink: S,
    chosen: Chosen,
    /// Which stretches are to be checked; of the others nothing is taken.
    needed: Vec<bool>,
    /// Bytes of files that were there before.
    had: u64,
    spreads: Mutex<HashMap<usize, Spread>>,
    /// Of compressed content.
    unpacking: Unpacking,
}

impl<S: Sink> Checker<S> {
    /// `sink` hears at once what is coming, and may refuse.
    pub(super) fn new(index: &Index, chosen: Chosen, mut sink: S) -> Result<Self, SinkError> {
        let mut had: Had = sink.begin(index, &chosen)?;
        let needed: Vec<bool> =
            chosen.stretches(index).into_iter().enumerate().map(|(n, needed)| needed && !had.has(n)).collect();
        let (unpacking, spreads) = (Unpacking::of(&needed), Mutex::new(had.spreads(index)));
        Ok(Self { sink, chosen, needed, had: had.bytes(), spreads, unpacking })
    }

    /// Bytes of files that were there before.
    pub(super) fn had(&self) -> u64 {
        self.had
    }

    /// Whether stretch `number` is to be checked.
    pub(super) fn needs(&self, number: usize) -> bool {
        self.needed.get(number).copied().unwrap_or(false)
    }

    /// Which parts have to come: those in which such a stretch lies.
    pub(super) fn needed_parts(&self, index: &Index) -> Vec<bool> {
        let mut parts = vec![false; index.parts().len()];
        for number in (0..self.needed.len()).filter(|number| self.needs(*number)) {
            let holding = index.parts_of(number);
            parts.get_mut(holding.start as usize..holding.end as usize).unwrap_or_default().fill(true);
        }
        parts
    }

    /// The frames of compressed content.
    pub(super) fn unpacking(&self) -> &Unpacking {
        &self.unpacking
    }

    /// Stands in front of part `number` of content that is not compressed.
    pub(super) fn part<'a>(&'a self, index: &'a Index, number: u32) -> StretchCheck<'a, S> {
        let (at, size) = (part_start(number), index.layout().part_size(number).unwrap_or(0));
        self.stretch(index, number, at..at + size)
    }

    /// Stands in front of a stretch of content: a part, or a frame. They know nothing of each other, so each thread can
    /// check another.
    pub(super) fn stretch<'a>(&'a self, index: &'a Index, number: u32, bytes: Range<u64>) -> StretchCheck<'a, S> {
        StretchCheck {
            index,
            chosen: &self.chosen,
            spreads: &self.spreads,
            walk: index.plan().walk(bytes.start, bytes.end),
            sink: self.sink.part(number),
            header: (None, Vec::new()),
            body: None,
            pieces: blake3::Hasher::new(),
        }
    }

    /// The sink, once every part was there.
    pub(super) fn finish(self, index: &Index) -> Result<S::Done, SinkError> {
        self.sink.finish(index, &self.chosen)
    }
}

/// The state of reading one stretch.
pub(super) struct StretchCheck<'a, S: Sink + 'a> {
    index: &'a Index,
    chosen: &'a Chosen,
    spreads: &'a Mutex<HashMap<usize, Spread>>,
    walk: Walk<'a>,
    sink: S::Part<'a>,
    /// The header that must stand next, and whose it is.
    header: (Option<usize>, Vec<u8>),
    body: Option<(usize, Hash)>,
    /// Says which bytes the stretch has of files that lie in several.
    pieces: blake3::Hasher,
}

enum Hash {
    Whole(Box<blake3::Hasher>),
    Piece(Box<PieceHasher>),
}

impl<S: Sink> StretchCheck<'_, S> {
    /// Takes the next bytes of the stretch. They are authentic, for the digest of their sealed part was checked.
    pub(super) fn feed(&mut self, mut bytes: &[u8]) -> Result<(), CheckError> {
        while !bytes.is_empty() {
            let piece = self.piece(bytes.len()).ok_or(ContentError::Length)?;
            bytes = self.take(piece, bytes)?;
        }
        Ok(())
    }

    /// Looks at what has no bytes, and completes the stretch.
    pub(super) fn finish(mut self) -> Result<(), CheckError> {
        if self.walk.left() > 0 {
            return Err(ContentError::Length.into());
        }
        while let Some(piece) = self.piece(0) {
            self.take(piece, &[])?;
        }
        Ok(self.sink.done(&Blake3Digest::from_bytes(*self.pieces.finalize().as_bytes()))?)
    }

    fn piece(&mut self, room: usize) -> Option<Piece> {
        let entries = self.index.entries();
        self.walk.next(room, |number| match entries.get(number)?.kind {
            EntryKind::Folder => None,
            EntryKind::File { size, .. } => Some(size),
        })
    }

    /// Checks the piece in front of `bytes`, and gives what is behind it.
    fn take<'b>(&mut self, piece: Piece, bytes: &'b [u8]) -> Result<&'b [u8], CheckError> {
        let (Piece::Header { len, .. } | Piece::Body { len, .. } | Piece::Zeros { len }) = piece;
        let (now, rest) = bytes.split_at_checked(len).ok_or(ContentError::Length)?;
        match piece {
            Piece::Header { entry: number, from, len, .. } => {
                let entry = self.index.entries().get(number).ok_or(ContentError::Length)?;
                if self.header.0 != Some(number) {
                    self.header.1.clear();
                    archive::header(&entry.item(), &mut self.header.1);
                    self.header.0 = Some(number);
                }
                if self.header.1.get(from..from + len) != Some(now) {
                    return Err(ContentError::Header { path: entry.path.clone() }.into());
                }
            }
            Piece::Body { entry, from, till, .. } => self.body(entry, from, till, now)?,
            Piece::Zeros { .. } if is_zero(now) => {}
            Piece::Zeros { .. } => return Err(ContentError::Padding.into()),
        }
        Ok(rest)
    }

    /// Takes bytes of a file, of which the stretch has those up to `till`.
    fn body(&mut self, number: usize, from: u64, till: u64, bytes: &[u8]) -> Result<(), CheckError> {
        let entry = self.index.entries().get(number).ok_or(ContentError::Length)?;
        let EntryKind::File { size, blake3, .. } = entry.kind else { return Err(ContentError::Length.into()) };
        if !self.chosen.has(number) {
            return Ok(());
        }
        let end = from + bytes.len() as u64;
        let mut hash = match self.body.take() {
            Some((open, hash)) if open == number => hash,
            _ => {
                self.sink.begin_file(number, entry, from..till)?;
                if (from, till) == (0, size) {
                    Hash::Whole(Box::new(blake3::Hasher::new()))
                } else {
                    Hash::Piece(Box::new(PieceHasher::new(size, from, till)))
                }
            }
        };
        match &mut hash {
            // All of the file is here: it is hashed at once, below.
            Hash::Whole(_) if (from, end) == (0, till) => {}
            Hash::Whole(hasher) => {
                hasher.update(bytes);
            }
            Hash::Piece(hasher) => hasher.update(bytes),
        }
        self.sink.bytes(from, bytes)?;
        if end < till {
            self.body = Some((number, hash));
            return Ok(());
        }
        let found = match hash {
            Hash::Whole(_) if from == 0 => Some(Blake3Digest::from_bytes(*blake3::hash(bytes).as_bytes())),
            Hash::Whole(hasher) => Some(Blake3Digest::from_bytes(*hasher.finalize().as_bytes())),
            Hash::Piece(hasher) => {
                let mut spreads = self.spreads.lock().unwrap_or_else(PoisonError::into_inner);
                let spread = spreads.entry(number).or_insert_with(|| Spread::new(size));
                let piece = hasher.finish();
                piece.commit(number, &blake3, &mut self.pieces);
                let found = spread.add(piece);
                if found.is_some() {
                    spreads.remove(&number);
                }
                found
            }
        };
        match found {
            // Other stretches have the rest of it; the last one of them ends the file.
            None => Ok(()),
            Some(found) if found == blake3 => Ok(self.sink.end_file(number, entry)?),
            Some(_) => Err(ContentError::Digest { path: entry.path.clone() }.into()),
        }
    }
}
