//! A sealed part on its way out.

use pouch_statement::Blake3Digest;

use crate::bundle::index::PartSpec;
use crate::bundle::kept::KeptPart;

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
    /// The age file. Empty if it was sealed before and is passed over.
    pub sealed: Vec<u8>,
    /// Bytes of the age file, wherever it is.
    pub sealed_size: u64,
    /// Digest of the age file; zeros before the first use.
    pub blake3: Blake3Digest,
    /// Keyed digest of the content, for a [`KeptPart`]; only of a sealing that can be continued.
    pub content: Option<Blake3Digest>,
}

impl Default for SealedPart {
    fn default() -> Self {
        let blake3 = Blake3Digest::from_bytes([0; 32]);
        Self { number: 0, plain_size: 0, covers: 0, sealed: Vec::new(), sealed_size: 0, blake3, content: None }
    }
}

impl SealedPart {
    /// What the index says of it.
    #[must_use]
    pub fn spec(&self) -> PartSpec {
        PartSpec { size: self.plain_size, sealed_size: self.sealed_size, sealed_blake3: self.blake3 }
    }

    /// Whether it was sealed before, and is not here.
    #[must_use]
    pub fn is_kept(&self) -> bool {
        self.sealed.is_empty()
    }

    /// Makes it the part that was sealed before.
    pub(super) fn keep(&mut self, number: u32, size: u64, kept: &KeptPart) {
        self.sealed.clear();
        (self.number, self.plain_size, self.covers) = (number, size, size);
        (self.sealed_size, self.blake3, self.content) = (kept.sealed_size, kept.sealed_blake3, Some(kept.content));
    }
}
