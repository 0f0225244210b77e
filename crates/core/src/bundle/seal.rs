//! Sealing: content in, sealed parts out one at a time, and at the end the index and the bundle key.

use std::io;

use pouch_statement::{Blake3Digest, Sha256Digest};
use zeroize::Zeroizing;

use super::cut::{Content, Cutter};
use super::index::{Index, IndexError, PartSpec};
use super::layout::{Layout, LayoutError};
use super::manifest::Summary;
use super::padding::padded;
use super::source::SourceError;
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
    /// Finished before the last part, or continued after an error.
    #[error("the bundle was not sealed to its end")]
    Unfinished,
}

/// One sealed part. Made once and filled again and again, so that its memory is reused.
#[derive(Clone)]
pub struct SealedPart {
    /// Its number, from 0.
    pub number: u32,
    /// Bytes of padded content in it.
    pub plain_size: u64,
    /// The age file.
    pub sealed: Vec<u8>,
    /// Digest of the age file; zeros before the first use.
    pub blake3: Blake3Digest,
}

impl Default for SealedPart {
    fn default() -> Self {
        Self { number: 0, plain_size: 0, sealed: Vec::new(), blake3: Blake3Digest::from_bytes([0; 32]) }
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

/// A bundle in the making. Holds one part of plaintext, whatever the size of the whole.
///
/// Every part gets a fresh file key, also when the same content is sealed again, so no key ever meets two
/// plaintexts (attacks.md 33).
pub struct Sealer {
    cutter: Cutter,
    key: Identity,
    recipient: Recipient,
    plain: Zeroizing<Vec<u8>>,
    parts: Vec<PartSpec>,
    state: State,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Parts,
    Done,
    Failed,
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

impl Sealer {
    /// Begins a bundle with a fresh bundle key.
    ///
    /// # Errors
    /// [`IndexError::NotAStream`] for a stream whose name has several components.
    pub fn new(content: Content) -> Result<Self, SealError> {
        if let Content::Stream { name, .. } = &content
            && name.parent().is_some()
        {
            return Err(IndexError::NotAStream.into());
        }
        let key = Identity::generate_x25519();
        let recipient = key.recipient();
        let plain = Zeroizing::new(Vec::new());
        Ok(Self { cutter: Cutter::new(content), key, recipient, plain, parts: Vec::new(), state: State::Parts })
    }

    /// The bundle key, for the sender's own sealed state while parts are still on their way.
    #[must_use]
    pub fn bundle_key(&self) -> &Identity {
        &self.key
    }

    /// Lengths of the whole, if they are known before the end: with files, not with a stream.
    #[must_use]
    pub fn planned(&self) -> Option<&Layout> {
        self.cutter.planned()
    }

    /// How much was read.
    #[must_use]
    pub fn progress(&self) -> Progress {
        let (bytes, entries) = self.cutter.progress();
        Progress { bytes, entries }
    }

    /// Seals the next part into `out`. `false` behind the last one; `out` is as it was then.
    ///
    /// # Errors
    /// A source that cannot be read or changed, too much content, or no random bytes. Nothing can follow an error.
    pub fn next_part(&mut self, out: &mut SealedPart) -> Result<bool, SealError> {
        match self.state {
            State::Done => return Ok(false),
            State::Failed => return Err(SealError::Unfinished),
            State::Parts => self.state = State::Failed,
        }
        let number = self.cutter.next(&mut self.plain)?;
        let Some(number) = number else {
            self.state = State::Done;
            return Ok(false);
        };
        seal_part(&self.recipient, &self.plain, &mut out.sealed)?;
        out.number = number;
        out.plain_size = self.plain.len() as u64;
        out.blake3 = Blake3Digest::from_bytes(*blake3::hash(&out.sealed).as_bytes());
        self.parts.push(out.spec());
        self.state = State::Parts;
        Ok(true)
    }

    /// Makes and seals the index.
    ///
    /// # Errors
    /// [`SealError::Unfinished`] before [`Sealer::next_part`] gave `false`; an index that is too long.
    pub fn finish(self) -> Result<SealedBundle, SealError> {
        if self.state != State::Done {
            return Err(SealError::Unfinished);
        }
        let (content, entries) = self.cutter.finish();
        let index = Index::new(content, entries, self.parts)?;
        let mut plain = Zeroizing::new(index.encode()?);
        let index_size = plain.len() as u64;
        let index_sha256 = Sha256Digest::of(&plain);
        let end = padded(index_size).ok_or(IndexError::TooLong)?;
        plain.resize(end as usize, 0);
        let mut sealed_index = Vec::new();
        seal_part(&self.recipient, &plain, &mut sealed_index)?;
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
