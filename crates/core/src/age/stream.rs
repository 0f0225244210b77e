//! The payload (C2SP age, "Payload"): its key, its nonces, and the arithmetic of its chunks.
//!
//! A payload key has no state: any chunk can be sealed or opened by its number alone.

use age_core::format::FileKey;
use age_core::secrecy::ExposeSecret;
use hkdf::Hkdf;
use sha2::Sha256;
use zeroize::Zeroizing;

use super::aead::{Aead, KEY_LEN, NONCE_LEN, TAG_LEN};
use super::error::{Error, Result};

/// Plaintext bytes in every chunk but the last (C2SP age, "Payload").
pub const CHUNK_LEN: usize = 64 * 1024;
/// Bytes of a full chunk in the file: plaintext and tag.
pub(super) const SEALED_CHUNK_LEN: usize = CHUNK_LEN + TAG_LEN;
/// Length of the nonce between header and payload, from which the payload key comes, in bytes.
pub(super) const PAYLOAD_NONCE_LEN: usize = 16;

/// HKDF info of the payload key.
const PAYLOAD_KEY_INFO: &[u8] = b"payload";

/// Which rule of STREAM a payload breaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PayloadError {
    /// The input ends where more must follow: between two chunks, or within a tag.
    #[error("the file is cut short")]
    Truncated,
    /// A chunk's tag is wrong: altered, from elsewhere, or (for the last one read) cut short.
    #[error("chunk {chunk} is not authentic: altered or cut short")]
    NotAuthentic {
        /// Number of the chunk, from 0; it begins at plaintext byte `chunk` × 65,536.
        chunk: u64,
    },
    /// A last chunk without content after others, which no writer may make.
    #[error("the last chunk is empty")]
    EmptyLastChunk,
    /// Something follows the last chunk.
    #[error("data follows the last chunk")]
    TrailingData,
}

/// Bytes of the payload's chunks for `plain_len` bytes of plaintext; `None` beyond `u64`.
///
/// There is always at least one chunk, and only then may it be empty.
pub(super) fn payload_len(plain_len: u64) -> Option<u64> {
    let chunks = plain_len.div_ceil(CHUNK_LEN as u64).max(1);
    plain_len.checked_add(chunks.checked_mul(TAG_LEN as u64)?)
}

/// Bytes of plaintext in a payload of `payload_len` bytes; `None` for a length that no payload has.
pub(super) fn payload_plain_len(payload_len: u64) -> Option<u64> {
    let chunks = payload_len.div_ceil(SEALED_CHUNK_LEN as u64);
    let plain = payload_len.checked_sub(chunks.checked_mul(TAG_LEN as u64)?)?;
    // An only chunk may be empty, a later one must hold something.
    (self::payload_len(plain) == Some(payload_len)).then_some(plain)
}

/// The nonce of one chunk: its number in 11 bytes, big-endian, then 1 for the last chunk and 0 for others.
fn chunk_nonce(chunk: u64, last: bool) -> [u8; NONCE_LEN] {
    let [a, b, c, d, e, f, g, h] = chunk.to_be_bytes();
    [0, 0, 0, a, b, c, d, e, f, g, h, u8::from(last)]
}

/// The key of one payload.
pub(super) struct PayloadKey(Aead);

impl PayloadKey {
    /// HKDF-SHA-256(ikm = file key, salt = nonce, info = "payload").
    pub(super) fn derive(file_key: &FileKey, nonce: &[u8; PAYLOAD_NONCE_LEN]) -> Result<Self> {
        let mut key = Zeroizing::new([0; KEY_LEN]);
        Hkdf::<Sha256>::new(Some(nonce), file_key.expose_secret())
            .expand(PAYLOAD_KEY_INFO, key.as_mut())
            .map_err(|_| Error::Library)?;
        Ok(Self(Aead::new(&key)?))
    }

    /// Seals `plain` as chunk number `chunk` into `sealed`, [`TAG_LEN`] bytes longer.
    pub(super) fn seal(&self, chunk: u64, last: bool, plain: &[u8], sealed: &mut [u8]) -> Result<()> {
        self.0.seal(chunk_nonce(chunk, last), plain, sealed)
    }

    /// Seals all but the last [`TAG_LEN`] bytes of `buffer` as chunk number `chunk`; the tag goes there.
    pub(super) fn seal_in_place(&self, chunk: u64, last: bool, buffer: &mut [u8]) -> Result<()> {
        self.0.seal_in_place(chunk_nonce(chunk, last), buffer)
    }

    /// Opens chunk number `chunk` into the front of `plain`, which holds [`CHUNK_LEN`] bytes or just enough.
    ///
    /// `sealed` is a whole chunk, or all that was left of the input. Which of the two flags vouches for a
    /// full chunk says whether it is the last; `expect_last` only says which to try first. What it finds is
    /// authentic in either case: whether something may follow is for the caller to compare.
    pub(super) fn open(
        &self,
        chunk: u64,
        expect_last: bool,
        sealed: &[u8],
        plain: &mut [u8],
    ) -> Result<Opened, PayloadError> {
        let len = sealed.len().checked_sub(TAG_LEN).ok_or(PayloadError::Truncated)?;
        let wrong = PayloadError::NotAuthentic { chunk };
        let plain = plain.get_mut(..len).ok_or(wrong)?;
        // Only the last chunk may be short.
        let flags: &[bool] = match (sealed.len() == SEALED_CHUNK_LEN, expect_last) {
            (true, true) => &[true, false],
            (true, false) => &[false, true],
            (false, _) => &[true],
        };
        let last = flags.iter().copied().find(|last| self.0.open(chunk_nonce(chunk, *last), sealed, plain));
        match last {
            None => Err(wrong),
            Some(true) if len == 0 && chunk > 0 => Err(PayloadError::EmptyLastChunk),
            Some(last) => Ok(Opened { len, last }),
        }
    }
}

/// What [`PayloadKey::open`] found.
pub(super) struct Opened {
    /// Bytes of plaintext.
    pub(super) len: usize,
    /// Whether the chunk is marked as the last.
    pub(super) last: bool,
}

impl Opened {
    /// Holds the chunk's mark against what was found behind it: `end` says that nothing was.
    pub(super) fn ends(&self, end: bool) -> Result<(), PayloadError> {
        match (self.last, end) {
            (true, false) => Err(PayloadError::TrailingData),
            (false, true) => Err(PayloadError::Truncated),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn lengths_at_the_chunk_borders() {
        let chunk = CHUNK_LEN as u64;
        for (plain, payload) in [
            (0, 16),
            (1, 17),
            (chunk - 1, chunk + 15),
            (chunk, chunk + 16),
            (chunk + 1, chunk + 33),
            (2 * chunk, 2 * chunk + 32),
            (8 * 1024 * 1024, 8 * 1024 * 1024 + 128 * 16),
        ] {
            assert_eq!(payload_len(plain), Some(payload));
            assert_eq!(payload_plain_len(payload), Some(plain));
        }
    }

    // attacks.md 14
    #[test]
    fn impossible_lengths() {
        assert_eq!(payload_len(u64::MAX), None);
        for impossible in [0, 15, CHUNK_LEN as u64 + 17, CHUNK_LEN as u64 + 32] {
            assert_eq!(payload_plain_len(impossible), None, "{impossible}");
        }
        assert!(payload_plain_len(u64::MAX).is_some());
    }

    #[test]
    fn nonces_count_big_endian_and_flag_the_last() {
        assert_eq!(chunk_nonce(0, false), [0; 12]);
        assert_eq!(chunk_nonce(0x0102, true), [0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 2, 1]);
        assert_eq!(chunk_nonce(u64::MAX, false), [0, 0, 0, 255, 255, 255, 255, 255, 255, 255, 255, 0]);
    }
}
