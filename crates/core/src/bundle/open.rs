//! Opening: index, then parts, each checked before it is decrypted; the types force the order.

use pouch_statement::{Blake3Digest, Sha256Digest, Signed, Stage};
use zeroize::Zeroizing;

use super::check::{CheckError, Checker, ContentError};
use super::envelope::{EnvelopeError, Verified};
use super::index::{Entry, EntryKind, Index, IndexError, PartSpec};
use super::manifest::Manifest;
use super::padding::{is_zero, padded};
use super::sink::{Sink, SinkError};
use crate::age::{self, Identity, open_part};

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
    /// A part that the bundle does not have, or not the one whose turn it is.
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

    /// Checks a sealed part against the index, and only then decrypts it. Needs no order: parts may be checked and
    /// opened on all cores.
    fn open_part(&self, number: u32, sealed: &[u8], plain: &mut Vec<u8>) -> Result<(), OpenError> {
        let parts = self.manifest.body().parts;
        let spec = self.part_spec(number).ok_or(OpenError::PartOrder { found: number, wanted: parts })?;
        let found = sealed.len() as u64;
        if found != spec.sealed_size {
            return Err(OpenError::PartSize { number, found, wanted: spec.sealed_size });
        }
        if Blake3Digest::from_bytes(*blake3::hash(sealed).as_bytes()) != spec.sealed_blake3 {
            return Err(OpenError::PartDigest { number });
        }
        open_part(&self.key, sealed, plain).map_err(|error| OpenError::Part { number, error })?;
        let len = plain.len() as u64;
        if len != spec.size {
            return Err(OpenError::Part { number, error: age::Error::Length { len } });
        }
        Ok(())
    }

    /// Begins to receive into `sink`.
    ///
    /// # Errors
    /// When the sink cannot hold what is in the index.
    pub fn receive<S: Sink>(self, sink: S) -> Result<Receiver<S>, OpenError> {
        let checker = Checker::new(&self.index, sink)?;
        Ok(Receiver { opening: self, checker: Some(checker), next: 0, plain: Zeroizing::new(Vec::new()) })
    }
}

/// Takes sealed parts in order, and gives their verified content to a sink.
pub struct Receiver<S: Sink> {
    opening: Opening,
    /// Gone after an error, and with it whatever the sink had begun.
    checker: Option<Checker<S>>,
    next: u32,
    plain: Zeroizing<Vec<u8>>,
}

impl<S: Sink> Receiver<S> {
    /// What is being received.
    #[must_use]
    pub fn opening(&self) -> &Opening {
        &self.opening
    }

    /// Number of the part that is due; the number of parts once all have come.
    #[must_use]
    pub fn due(&self) -> u32 {
        self.next
    }

    /// Takes the sealed part that is due.
    ///
    /// # Errors
    /// Those of the stages [`Stage::Part`] and [`Stage::Content`], and those of the sink. A part of wrong number, size
    /// or digest changes nothing, so it can be fetched again; any other error ends the receiving, and the sink is
    /// dropped at once.
    pub fn accept(&mut self, number: u32, sealed: &[u8]) -> Result<(), OpenError> {
        let mut checker = self.checker.take().ok_or(OpenError::Stopped)?;
        let outcome = self.check(number, sealed, &mut checker);
        let again = matches!(
            outcome,
            Ok(()) | Err(OpenError::PartOrder { .. } | OpenError::PartSize { .. } | OpenError::PartDigest { .. })
        );
        if again {
            self.checker = Some(checker);
        }
        outcome
    }

    fn check(&mut self, number: u32, sealed: &[u8], checker: &mut Checker<S>) -> Result<(), OpenError> {
        if number != self.next {
            return Err(OpenError::PartOrder { found: number, wanted: self.next });
        }
        self.opening.open_part(number, sealed, &mut self.plain)?;
        checker.feed(&self.opening.index, &self.plain)?;
        checker.part_done()?;
        self.next += 1;
        Ok(())
    }

    /// Completes the sink: for a folder, what is left is [`super::Staged::publish`].
    ///
    /// # Errors
    /// Parts that did not come, and those of the sink.
    pub fn finish(self) -> Result<S::Done, OpenError> {
        let missing = self.opening.manifest.body().parts - self.next;
        if missing > 0 {
            return Err(OpenError::PartsMissing { missing });
        }
        let checker = self.checker.ok_or(OpenError::Stopped)?;
        Ok(checker.finish(&self.opening.index)?)
    }
}
