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

    use chacha20poly1305::aead::{AeadInOut, KeyInit};
    use chacha20poly1305::{ChaCha20Poly1305, Tag};
    use proptest::prelude::*;

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        // The two libraries that were measured against each other (docs/decisions/0008) hold each other to account.
        #[test]
        fn agrees_with_the_other_library(
            key in any::<[u8; KEY_LEN]>(),
            nonce in any::<[u8; NONCE_LEN]>(),
            plain in proptest::collection::vec(any::<u8>(), 0..3000),
            flip in any::<prop::sample::Index>(),
        ) {
            let theirs = ChaCha20Poly1305::new(&key.into());
            let ours = Aead::new(&key).unwrap();
            let mut expected = plain.clone();
            let tag = theirs.encrypt_inout_detached(&nonce.into(), b"", expected.as_mut_slice().into()).unwrap();
            expected.extend_from_slice(&tag);

            let mut sealed = vec![0; plain.len() + TAG_LEN];
            ours.seal(nonce, &plain, &mut sealed).unwrap();
            prop_assert_eq!(&sealed, &expected);
            let mut in_place = plain.clone();
            in_place.resize(plain.len() + TAG_LEN, 0xaa);
            ours.seal_in_place(nonce, &mut in_place).unwrap();
            prop_assert_eq!(&in_place, &expected);

            let mut opened = vec![0; plain.len()];
            prop_assert!(ours.open(nonce, &expected, &mut opened));
            prop_assert_eq!(&opened, &plain);

            // And both refuse the same.
            let at = flip.index(sealed.len());
            sealed[at] ^= 0x80;
            prop_assert!(!ours.open(nonce, &sealed, &mut opened));
            let (body, tag) = sealed.split_at_mut(plain.len());
            let tag = Tag::try_from(&tag[..]).unwrap();
            prop_assert!(theirs.decrypt_inout_detached(&nonce.into(), b"", body.into(), &tag).is_err());
        }
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
