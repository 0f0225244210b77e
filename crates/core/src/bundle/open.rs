//! Opening: index, then parts, each checked before it is decrypted; the types force the order.

use std::ops::Range;
use std::sync::{Mutex, MutexGuard, PoisonError, RwLock};

use pouch_statement::{Blake3Digest, Sha256Digest, Signed, Stage};
use zeroize::Zeroizing;

use super::check::{CheckError, Checker, ContentError};
use super::chosen::Chosen;
use super::envelope::{EnvelopeError, Verified};
use super::index::{Entry, EntryKind, Index, IndexError, PartSpec};
use super::manifest::Manifest;
use super::padding::{is_zero, padded};
use super::sink::{Sink, SinkError};
use super::unpack::{PARTS_AHEAD, PartFrames};
use crate::age::{self, Identity, open_chunks, open_part};

/// All chunks of a part.
const WHOLE: Range<u64> = 0..u64::MAX;

/// Why a bundle was refused, or could not be taken.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The envelope or the manifest in it.
    #[error(transparent)]
    Envelope(#[from] EnvelopeError),
    /// The sealed index has another size than the manifest signs.
    #[error("the sealed index has {found} bytes, the manifest says {signed}")]
    SealedIndexSize {
        /// Bytes found.
        found: u64,
        /// Bytes signed.
        signed: u64,
    },
    /// The sealed index has another digest than the manifest signs.
    #[error("the sealed index is not the one that the manifest names")]
    SealedIndexDigest,
    /// The sealed index does not open.
    #[error("the index does not open: {0}")]
    SealedIndex(#[source] age::Error),
    /// The plain index is not the one that the manifest signs, or its padding is not zero.
    #[error("what is in the sealed index is not what the manifest names")]
    IndexDigest,
    /// The index breaks a rule.
    #[error(transparent)]
    Index(#[from] IndexError),
    /// Manifest and index disagree on the content.
    #[error("manifest and index do not agree on the content")]
    IndexContent,
    /// A part that the bundle does not have, that came before, or that is too far ahead of the one that is due.
    #[error("part {found} came, part {wanted} was due")]
    PartOrder {
        /// The number that came.
        found: u32,
        /// The number that was due.
        wanted: u32,
    },
    /// A sealed part has another size than the index says.
    #[error("sealed part {number} has {found} bytes, the index says {wanted}")]
    PartSize {
        /// Its number.
        number: u32,
        /// Bytes found.
        found: u64,
        /// Bytes in the index.
        wanted: u64,
    },
    /// A sealed part has another digest than the index says; it was not decrypted.
    #[error("sealed part {number} is not the one that the index names")]
    PartDigest {
        /// Its number.
        number: u32,
    },
    /// A sealed part does not open, or holds another length than the index says.
    #[error("part {number} does not open: {error}")]
    Part {
        /// Its number.
        number: u32,
        /// What is wrong with the age file.
        #[source]
        error: age::Error,
    },
    /// Finished before the last part.
    #[error("{missing} parts are missing")]
    PartsMissing {
        /// How many.
        missing: u32,
    },
    /// The content is not what the index says.
    #[error(transparent)]
    Content(ContentError),
    /// Where the content goes failed; the bundle itself may be good.
    #[error(transparent)]
    Sink(#[from] SinkError),
    /// Continued after an error.
    #[error("receiving stopped at an error before")]
    Stopped,
}

impl OpenError {
    /// At which stage the bundle failed, for the receipt. `None` where no receipt is signed: before the manifest is
    /// verified, and where the fault is on this side.
    #[must_use]
    pub fn stage(&self) -> Option<Stage> {
        match self {
            Self::SealedIndexSize { .. }
            | Self::SealedIndexDigest
            | Self::SealedIndex(_)
            | Self::IndexDigest
            | Self::Index(_)
            | Self::IndexContent => Some(Stage::Index),
            Self::PartSize { .. } | Self::PartDigest { .. } | Self::Part { .. } => Some(Stage::Part),
            Self::Content(_) => Some(Stage::Content),
            Self::Envelope(_) | Self::PartOrder { .. } | Self::PartsMissing { .. } | Self::Sink(_) | Self::Stopped => {
                None
            }
        }
    }
}

impl From<CheckError> for OpenError {
    fn from(error: CheckError) -> Self {
        match error {
            CheckError::Content(error) => Self::Content(error),
            CheckError::Sink(error) => Self::Sink(error),
            // Of a part, which is given its number where that is known.
            CheckError::Age(error) => Self::Part { number: 0, error },
            CheckError::Stopped => Self::Stopped,
        }
    }
}

impl Verified {
    /// Opens the index: signed size and digest of the sealed bytes before anything is decrypted, then the plain
    /// ones, then every rule.
    ///
    /// # Errors
    /// Those of stage [`Stage::Index`].
    pub fn open_index(self, sealed: &[u8]) -> Result<Opening, OpenError> {
        let manifest = self.manifest.body();
        let found = sealed.len() as u64;
        if found != manifest.sealed_index_size {
            return Err(OpenError::SealedIndexSize { found, signed: manifest.sealed_index_size });
        }
        if Sha256Digest::of(sealed) != manifest.sealed_index_sha256 {
            return Err(OpenError::SealedIndexDigest);
        }
        let mut plain = Zeroizing::new(Vec::new());
        open_part(&self.key, sealed, &mut plain).map_err(OpenError::SealedIndex)?;
        if padded(manifest.index_size) != Some(plain.len() as u64) {
            return Err(OpenError::IndexDigest);
        }
        let size = usize::try_from(manifest.index_size).unwrap_or(usize::MAX);
        let (bytes, zeros) = plain.split_at_checked(size).ok_or(OpenError::IndexDigest)?;
        if !is_zero(zeros) || Sha256Digest::of(bytes) != manifest.index_sha256 {
            return Err(OpenError::IndexDigest);
        }
        let index = Index::decode(bytes)?;
        // The manifest's own sizes were held against its layout, so these are all of them.
        if index.content() != manifest.content || index.layout().content_size() != manifest.content_size {
            return Err(OpenError::IndexContent);
        }
        Ok(Opening { manifest: self.manifest, key: self.key, index })
    }
}

/// A verified manifest with its verified index: what the bundle holds, before any of it is fetched.
pub struct Opening {
    manifest: Signed<Manifest>,
    key: Identity,
    index: Index,
}

impl Opening {
    /// What the sender signed.
    #[must_use]
    pub fn manifest(&self) -> &Signed<Manifest> {
        &self.manifest
    }

    /// Entries, parts and lengths.
    #[must_use]
    pub fn index(&self) -> &Index {
        &self.index
    }

    /// The entries, for a list to show: paths show themselves escaped.
    #[must_use]
    pub fn entries(&self) -> &[Entry] {
        self.index.entries()
    }

    /// Number of files and of the bytes in them.
    #[must_use]
    pub fn files(&self) -> (u64, u64) {
        let files = self.entries().iter().filter(|e| e.kind != EntryKind::Folder);
        files.fold((0, 0), |(count, bytes), e| (count + 1, bytes + e.size()))
    }

    /// Sizes and digest of part `number`; `None` if there is no such part.
    #[must_use]
    pub fn part_spec(&self, number: u32) -> Option<&PartSpec> {
        self.index.parts().get(number as usize)
    }

    /// Holds a sealed part against the index: size and digest. Only then it may be decrypted.
    pub(super) fn check_sealed(&self, number: u32, sealed: &[u8]) -> Result<&PartSpec, OpenError> {
        let parts = self.manifest.body().parts;
        let spec = self.part_spec(number).ok_or(OpenError::PartOrder { found: number, wanted: parts })?;
        let found = sealed.len() as u64;
        if found != spec.sealed_size {
            return Err(OpenError::PartSize { number, found, wanted: spec.sealed_size });
        }
        if Blake3Digest::from_bytes(*blake3::hash(sealed).as_bytes()) != spec.sealed_blake3 {
            return Err(OpenError::PartDigest { number });
        }
        Ok(spec)
    }

    /// Checks a sealed part, opens the chunks of it that are in `wanted`, and gives `each` their content in order.
    pub(super) fn open_part(
        &self,
        number: u32,
        sealed: &[u8],
        wanted: Range<u64>,
        mut each: impl FnMut(&[u8]) -> Result<(), CheckError>,
    ) -> Result<(), OpenError> {
        let spec = self.check_sealed(number, sealed)?;
        let whole = wanted == WHOLE;
        let (mut room, mut len) = (Zeroizing::new(Vec::new()), 0);
        let counted = |bytes: &[u8]| {
            len += bytes.len() as u64;
            each(bytes)
        };
        open_chunks(&self.key, sealed, wanted, &mut room, counted).map_err(|error| match error {
            CheckError::Age(error) => OpenError::Part { number, error },
            other => other.into(),
        })?;
        if whole && len != spec.size {
            return Err(OpenError::Part { number, error: age::Error::Length { len } });
        }
        Ok(())
    }

    /// Begins to receive into `sink`.
    ///
    /// # Errors
    /// When the sink cannot hold what is in the index.
    pub fn receive<S: Sink>(self, sink: S) -> Result<Receiver<S>, OpenError> {
        self.receive_chosen(Chosen::all(), sink)
    }

    /// Begins to receive some of the entries, made for this index, into `sink`: only the parts that hold them have to come
    /// ([`Receiver::missing`]).
    ///
    /// # Errors
    /// When the sink cannot hold them.
    pub fn receive_chosen<S: Sink>(self, chosen: Chosen, sink: S) -> Result<Receiver<S>, OpenError> {
        let checker = Checker::new(&self.index, chosen, sink)?;
        let turn = |needed: bool| if needed { Turn::Missing } else { Turn::Done };
        let parts = checker.needed_parts(&self.index).into_iter().map(turn).collect();
        let mut turns = Turns { parts, due: 0, stopped: false };
        turns.advance();
        Ok(Receiver { opening: self, checker: RwLock::new(Some(checker)), turns: Mutex::new(turns) })
    }
}

/// Takes sealed parts, on several threads at once and in any order, and gives their verified content to a sink.
pub struct Receiver<S: Sink> {
    opening: Opening,
    /// Gone after an error, and with it whatever the sink had begun.
    checker: RwLock<Option<Checker<S>>>,
    turns: Mutex<Turns>,
}

struct Turns {
    parts: Vec<Turn>,
    /// Number of the first part that is not done.
    due: u32,
    stopped: bool,
}

impl Turns {
    fn advance(&mut self) {
        while self.parts.get(self.due as usize) == Some(&Turn::Done) {
            self.due += 1;
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Turn {
    Missing,
    /// A thread is at it.
    Taken,
    Done,
}

/// The right to a part. Not settled, because a thread panics, it ends the receiving.
struct Claim<'a, S: Sink> {
    receiver: &'a Receiver<S>,
    number: u32,
}

impl<S: Sink> Claim<'_, S> {
    /// Says how it went with the part, but for a fatal error.
    fn settle(self, turn: Turn) {
        let mut turns = self.receiver.turns();
        if let Some(part) = turns.parts.get_mut(self.number as usize) {
            *part = turn;
        }
        turns.advance();
        drop(turns);
        std::mem::forget(self);
    }
}

impl<S: Sink> Drop for Claim<'_, S> {
    fn drop(&mut self) {
        self.receiver.turns().stopped = true;
        // Waits for the threads that are within a part; they look whether they may go on.
        *self.receiver.checker.write().unwrap_or_else(PoisonError::into_inner) = None;
    }
}

impl<S: Sink> Receiver<S> {
    fn turns(&self) -> MutexGuard<'_, Turns> {
        self.turns.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What is being received.
    #[must_use]
    pub fn opening(&self) -> &Opening {
        &self.opening
    }

    /// Whether an error ended the receiving.
    pub(super) fn is_stopped(&self) -> bool {
        self.turns().stopped
    }

    /// Bytes of files that a receiving which was cut off had left, and which hold.
    #[must_use]
    pub fn had(&self) -> u64 {
        let checker = self.checker.read().unwrap_or_else(PoisonError::into_inner);
        checker.as_ref().map_or(0, Checker::had)
    }

    /// Numbers of the parts that have to come and have not.
    #[must_use]
    pub fn missing(&self) -> Vec<u32> {
        let turns = self.turns();
        (0..).zip(&turns.parts).filter(|(_, turn)| **turn != Turn::Done).map(|(number, _)| number).collect()
    }

    /// Number of the first part that has to come and has not; the number of parts once all have.
    #[must_use]
    pub fn due(&self) -> u32 {
        self.turns().due
    }

    /// Whether part `number` may be given to [`Receiver::accept`] now. A folder takes parts in any order; a writer keeps
    /// those that come early, and so takes none that is far ahead of the one that is due ([`Sink::AHEAD`]). So does
    /// everybody with compressed content, for its frames lie across parts.
    #[must_use]
    pub fn has_room_for(&self, number: u32) -> bool {
        number <= self.last_near()
    }

    /// The last part that may come now. Takes the lock of the turns, and then the checker's and the one of its frames, so it is
    /// asked for with none of these held. [`Receiver::accept_all`] asks with a lock of its own, which nobody takes within them.
    fn last_near(&self) -> u32 {
        let due = self.due();
        let Some(frames) = self.opening.index.frames() else { return due.saturating_add(S::AHEAD) };
        // A part that came whole may have frames in it that wait for one in front of them, and must not pile up.
        let checker = self.checker.read().unwrap_or_else(PoisonError::into_inner);
        let layout = self.opening.index.layout();
        let frame = checker.as_ref().map_or(due, |checker| checker.unpacking().due_part(frames, layout));
        due.min(frame).saturating_add(S::AHEAD.min(PARTS_AHEAD))
    }

    /// Takes a sealed part. May be called on several threads at once.
    ///
    /// # Errors
    /// Those of the stages [`Stage::Part`] and [`Stage::Content`], and those of the sink. A part of wrong size or digest,
    /// one that came before or that is too far ahead ([`Receiver::has_room_for`]) changes nothing, so it can be fetched
    /// again; any other error ends the receiving, and the sink is dropped at once.
    pub fn accept(&self, number: u32, sealed: &[u8]) -> Result<(), OpenError> {
        let claim = self.claim(number)?;
        let outcome = self.take(number, sealed);
        match outcome {
            Ok(()) => claim.settle(Turn::Done),
            Err(OpenError::PartSize { .. } | OpenError::PartDigest { .. }) => claim.settle(Turn::Missing),
            // One thread has the reason, the others that there is one.
            Err(_) if self.turns().stopped => return Err(OpenError::Stopped),
            Err(_) => drop(claim),
        }
        outcome
    }

    fn claim(&self, number: u32) -> Result<Claim<'_, S>, OpenError> {
        let near = number <= self.last_near();
        let mut turns = self.turns();
        if turns.stopped {
            return Err(OpenError::Stopped);
        }
        let wanted = turns.due;
        match turns.parts.get_mut(number as usize) {
            Some(turn) if *turn == Turn::Missing && near => *turn = Turn::Taken,
            _ => return Err(OpenError::PartOrder { found: number, wanted }),
        }
        Ok(Claim { receiver: self, number })
    }

    fn take(&self, number: u32, sealed: &[u8]) -> Result<(), OpenError> {
        let checker = self.checker.read().unwrap_or_else(PoisonError::into_inner);
        let checker = checker.as_ref().ok_or(OpenError::Stopped)?;
        let go_on = || if self.turns().stopped { Err(CheckError::Stopped) } else { Ok(()) };
        let index = &self.opening.index;
        match index.frames() {
            None => {
                let mut part = checker.part(index, number);
                self.opening.open_part(number, sealed, WHOLE, |bytes| {
                    go_on()?;
                    part.feed(bytes)
                })?;
                Ok(part.finish()?)
            }
            Some(frames) => {
                let mut part = PartFrames::new(checker, index, frames, number, go_on);
                self.opening.open_part(number, sealed, WHOLE, |bytes| {
                    go_on()?;
                    part.feed(bytes)
                })?;
                Ok(part.finish()?)
            }
        }
    }

    /// Completes the sink: for a folder, what is left is [`super::Staged::publish`].
    ///
    /// # Errors
    /// Parts that did not come, and those of the sink.
    pub fn finish(self) -> Result<S::Done, OpenError> {
        let missing = self.missing().len() as u32;
        if missing > 0 {
            return Err(OpenError::PartsMissing { missing });
        }
        let checker = self.checker.into_inner().unwrap_or_else(PoisonError::into_inner).ok_or(OpenError::Stopped)?;
        let frames = self.opening.index.frames();
        if frames.is_some_and(|frames| !checker.unpacking().is_complete(frames)) {
            return Err(OpenError::Content(ContentError::Length));
        }
        Ok(checker.finish(&self.opening.index)?)
    }
}
