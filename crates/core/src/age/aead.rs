//! The one AEAD of the module: ChaCha20-Poly1305 (RFC 8439), by aws-lc.
//!
//! Nothing else here names the library, so that another one can take its place by measurement.

use aws_lc_rs::aead::{Aad, CHACHA20_POLY1305, LessSafeKey, Nonce, UnboundKey};

use super::error::{Error, Result};

/// Length of a key, in bytes.
pub(super) const KEY_LEN: usize = 32;
/// Length of a nonce, in bytes.
pub(super) const NONCE_LEN: usize = 12;
/// Length of the tag that every chunk carries, in bytes.
pub const TAG_LEN: usize = 16;

/// A ChaCha20-Poly1305 key; always with empty associated data. The library wipes the key when it is dropped.
///
/// The caller answers for the nonces: one of them must never meet two plaintexts under one key.
pub(super) struct Aead(LessSafeKey);

impl Aead {
    pub(super) fn new(key: &[u8; KEY_LEN]) -> Result<Self> {
        let key = UnboundKey::new(&CHACHA20_POLY1305, key).map_err(|_| Error::Library)?;
        Ok(Self(LessSafeKey::new(key)))
    }

    /// Seals `plain` into `sealed`, which must be exactly [`TAG_LEN`] bytes longer.
    pub(super) fn seal(&self, nonce: [u8; NONCE_LEN], plain: &[u8], sealed: &mut [u8]) -> Result<()> {
        let (body, tag) = sealed.split_at_mut_checked(plain.len()).ok_or(Error::Library)?;
        self.0
            .seal_out_of_place_scatter(Nonce::assume_unique_for_key(nonce), Aad::empty(), plain, body, &[], tag)
            .map_err(|_| Error::Library)
    }

    /// Seals all of `buffer` but its last [`TAG_LEN`] bytes, and puts the tag there.
    pub(super) fn seal_in_place(&self, nonce: [u8; NONCE_LEN], buffer: &mut [u8]) -> Result<()> {
        let (body, tag) = buffer.split_last_chunk_mut::<TAG_LEN>().ok_or(Error::Library)?;
        let made = self
            .0
            .seal_in_place_separate_tag(Nonce::assume_unique_for_key(nonce), Aad::empty(), body)
            .map_err(|_| Error::Library)?;
        tag.copy_from_slice(made.as_ref());
        Ok(())
    }

    /// Opens `sealed` into `plain`, which must be exactly [`TAG_LEN`] bytes shorter.
    ///
    /// Says whether the tag is right. If it is not, `plain` holds nothing of the plaintext, and `sealed` is
    /// as it was, so that it can be tried with another nonce.
    pub(super) fn open(&self, nonce: [u8; NONCE_LEN], sealed: &[u8], plain: &mut [u8]) -> bool {
        let Some((body, tag)) = sealed.split_last_chunk::<TAG_LEN>() else {
            return false;
        };
        let nonce = Nonce::assume_unique_for_key(nonce);
        let opened = self.0.open_separate_gather(nonce, Aad::empty(), body, tag, plain).is_ok();
        if !opened {
            plain.fill(0);
        }
        opened
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing)]
mod tests {
    use super::*;

    // RFC 8439, 2.8.2 needs associated data; this is age's own use of it: the other library is the check.
    #[test]
    fn agrees_with_the_other_library() {
        let plain = b"0123456789abcdef";
        let theirs = age_core::primitives::aead_encrypt(&[7; 32], plain);
        let aead = Aead::new(&[7; 32]).unwrap();
        let mut ours = [0; 32];
        aead.seal([0; 12], plain, &mut ours).unwrap();
        assert_eq!(ours[..], theirs);
        let mut in_place = *b"0123456789abcdef................";
        aead.seal_in_place([0; 12], &mut in_place).unwrap();
        assert_eq!(in_place, ours);
    }

    #[test]
    fn a_wrong_tag_leaves_no_plaintext() {
        let aead = Aead::new(&[1; 32]).unwrap();
        let mut sealed = [0; 16 + 64];
        aead.seal([0; 12], &[0x55; 64], &mut sealed).unwrap();
        let mut plain = [9; 64];
        assert!(!aead.open([1; 12], &sealed, &mut plain));
        assert_eq!(plain, [0; 64]);
        assert!(aead.open([0; 12], &sealed, &mut plain));
        assert_eq!(plain, [0x55; 64]);
        assert!(!aead.open([0; 12], &sealed[..15], &mut plain));
    }

    #[test]
    fn lengths_that_disagree_are_refused() {
        let aead = Aead::new(&[1; 32]).unwrap();
        assert!(aead.seal([0; 12], &[0; 8], &mut [0; 23]).is_err());
        assert!(aead.seal([0; 12], &[0; 8], &mut [0; 25]).is_err());
        assert!(aead.seal_in_place([0; 12], &mut [0; 15]).is_err());
    }
}
