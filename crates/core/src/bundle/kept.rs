//! Parts that were sealed before, for the same bundle, and are where they go already. They are passed over: read and hashed
//! like all content, for the index needs that, but not sealed again.
//!
//! Whether the content of a part is what it was is told by a digest under a random key, which says nothing to who has not
//! the key: the content may be short.

use std::collections::BTreeMap;

use pouch_statement::Blake3Digest;
use zeroize::{Zeroize, ZeroizeOnDrop};

/// The key of the digests of one bundle's content. Wiped when dropped.
#[derive(Zeroize, ZeroizeOnDrop)]
pub struct DigestKey([u8; 32]);

/// What a keyed digest is over, so that no two kinds can be taken for each other.
#[derive(Clone, Copy)]
pub(super) enum Over {
    /// The list of files.
    List,
    /// The files and headers in a part.
    Files,
    /// The bytes of a part.
    Bytes,
}

impl DigestKey {
    /// From 32 random bytes.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// For the sender's own sealed state.
    #[must_use]
    pub const fn expose_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// A digest of anything else under this key. What `pouch` computes over content cannot come out.
    #[must_use]
    pub fn digest(&self, bytes: &[u8]) -> Blake3Digest {
        let mut hasher = blake3::Hasher::new_keyed(&self.0);
        hasher.update(b"other\n").update(bytes);
        digest(&hasher)
    }

    pub(super) fn hasher(&self, over: Over) -> Box<blake3::Hasher> {
        let mut hasher = Box::new(blake3::Hasher::new_keyed(&self.0));
        hasher.update(match over {
            Over::List => b"list \n",
            Over::Files => b"files\n",
            Over::Bytes => b"bytes\n",
        });
        hasher
    }
}

pub(super) fn digest(hasher: &blake3::Hasher) -> Blake3Digest {
    Blake3Digest::from_bytes(*hasher.finalize().as_bytes())
}

/// What is known of a part that was sealed before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeptPart {
    /// The keyed digest of its content, as [`SealedPart::content`](super::SealedPart::content) told it.
    pub content: Blake3Digest,
    /// Bytes of the age file.
    pub sealed_size: u64,
    /// Digest of the age file.
    pub sealed_blake3: Blake3Digest,
}

/// The parts that need not be sealed again.
pub struct Kept {
    pub(super) key: DigestKey,
    parts: BTreeMap<u32, KeptPart>,
}

impl Kept {
    /// None yet.
    #[must_use]
    pub const fn new(key: DigestKey) -> Self {
        Self { key, parts: BTreeMap::new() }
    }

    /// This part is where it goes; of two with one number the later counts.
    pub fn insert(&mut self, number: u32, part: KeptPart) {
        self.parts.insert(number, part);
    }

    /// What is known of a part, if it can be one with so many bytes of content.
    pub(super) fn part(&self, number: u32, size: u64) -> Option<&KeptPart> {
        self.parts.get(&number).filter(|part| crate::age::sealed_len(size) == Some(part.sealed_size))
    }
}
