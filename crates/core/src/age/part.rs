//! Whole age files in memory, for one recipient: the parts and the index of a bundle.

use super::aead::TAG_LEN;
use super::error::{Error, Result};
use super::header::X25519_HEADER_LEN;
use super::keys::{Identity, Recipient};
use super::recipient::{Opener, Sealer, open_header, open_sole_header, start};
use super::stream::{CHUNK_LEN, PAYLOAD_NONCE_LEN, PayloadKey, SEALED_CHUNK_LEN, payload_len, payload_plain_len};

/// Bytes in front of the payload's first chunk in a file for one X25519 recipient: header and nonce.
pub const PART_OVERHEAD: u64 = (X25519_HEADER_LEN + PAYLOAD_NONCE_LEN) as u64;

/// Length in bytes of the binary file for one X25519 recipient with `plain_len` bytes of content; `None`
/// beyond `u64`.
pub fn sealed_len(plain_len: u64) -> Option<u64> {
    payload_len(plain_len)?.checked_add(PART_OVERHEAD)
}

/// Length in bytes of the content of a binary file of `sealed_len` bytes for one X25519 recipient; `None` for
/// a length that no such file has.
pub fn plain_len(sealed_len: u64) -> Option<u64> {
    payload_plain_len(sealed_len.checked_sub(PART_OVERHEAD)?)
}

/// Seals `plain` for `recipient` with a fresh file key, as a new vector. See [`seal_part`].
///
/// # Errors
///
/// No random bytes.
pub fn seal_to_vec(recipient: &Recipient, plain: &[u8]) -> Result<Vec<u8>> {
    let mut sealed = Vec::new();
    seal_part(recipient, plain, &mut sealed)?;
    Ok(sealed)
}

/// Seals `plain` for `recipient` with a fresh file key, as a complete binary age file in `sealed`.
///
/// What `sealed` held is discarded; its memory grows at most once, to the exact size, and is kept for the
/// next part.
///
/// # Errors
///
/// No random bytes. `sealed` is empty then.
pub fn seal_part(recipient: &Recipient, plain: &[u8], sealed: &mut Vec<u8>) -> Result<()> {
    let result = try_seal_part(recipient, plain, sealed);
    if result.is_err() {
        sealed.clear();
    }
    result
}

fn try_seal_part(recipient: &Recipient, mut plain: &[u8], sealed: &mut Vec<u8>) -> Result<()> {
    sealed.clear();
    let (header, key) = start(&Sealer::from(recipient))?;
    let len = plain.len() as u64;
    let total = payload_len(len).and_then(|payload| usize::try_from(payload).ok()).ok_or(Error::Length { len })?;
    sealed.reserve_exact(header.len() + total);
    sealed.extend_from_slice(&header);
    for number in 0.. {
        let (chunk, rest) = plain.split_at(plain.len().min(CHUNK_LEN));
        let start = sealed.len();
        sealed.resize(start + chunk.len() + TAG_LEN, 0);
        let room = sealed.get_mut(start..).ok_or(Error::Library)?;
        key.seal(number, rest.is_empty(), chunk, room)?;
        if rest.is_empty() {
            break;
        }
        plain = rest;
    }
    Ok(())
}

/// Opens a complete binary age file into `plain`, whose memory grows at most once and is kept for the next.
///
/// Armor is refused here: it would give one part many encodings.
///
/// # Errors
///
/// Everything that [`decrypt`](super::decrypt) and its reader report. `plain` is empty then, whatever part of
/// the content was authentic.
pub fn open_part(identity: &Identity, sealed: &[u8], plain: &mut Vec<u8>) -> Result<()> {
    open_with(|input| open_header(&Opener::from(identity), input), sealed, plain)
}

/// As [`open_part`], but only if the file is sealed for `identity` and for nobody else: the header has one stanza, of
/// the kind that this identity opens.
///
/// # Errors
///
/// [`HeaderError::NotSole`](super::HeaderError::NotSole) for any stanza beside it, whoever it may be for;
/// [`Error::NoMatch`] if the one stanza is of another kind; and what [`open_part`] reports.
pub fn open_sole(identity: &Identity, sealed: &[u8], plain: &mut Vec<u8>) -> Result<()> {
    open_with(|input| open_sole_header(identity, input), sealed, plain)
}

fn open_with(
    open_header: impl FnOnce(&mut &[u8]) -> Result<PayloadKey>,
    sealed: &[u8],
    plain: &mut Vec<u8>,
) -> Result<()> {
    let result = try_open_with(open_header, sealed, plain);
    if result.is_err() {
        plain.clear();
    }
    result
}

fn try_open_with(
    open_header: impl FnOnce(&mut &[u8]) -> Result<PayloadKey>,
    mut sealed: &[u8],
    plain: &mut Vec<u8>,
) -> Result<()> {
    plain.clear();
    let key = open_header(&mut sealed)?;
    // More than the plaintext by the tags at most, so a length that lies cannot ask for more than it sent.
    plain.reserve_exact(payload_plain_len(sealed.len() as u64).map_or(sealed.len(), |len| len as usize));
    for number in 0.. {
        let (chunk, rest) = sealed.split_at(sealed.len().min(SEALED_CHUNK_LEN));
        let start = plain.len();
        plain.resize(start + chunk.len().saturating_sub(TAG_LEN), 0);
        let room = plain.get_mut(start..).ok_or(Error::Library)?;
        let opened = key.open(number, rest.is_empty(), chunk, room)?;
        opened.ends(rest.is_empty())?;
        if rest.is_empty() {
            break;
        }
        sealed = rest;
    }
    Ok(())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::super::stream::PayloadError;
    use super::*;

    #[test]
    fn lengths_are_exact() {
        let identity = Identity::generate_x25519();
        let (mut sealed, mut plain) = (Vec::new(), Vec::new());
        for len in [0, 1, CHUNK_LEN - 1, CHUNK_LEN, CHUNK_LEN + 1, 3 * CHUNK_LEN] {
            let content = vec![0xa5; len];
            seal_part(&identity.recipient(), &content, &mut sealed).unwrap();
            assert_eq!(sealed_len(len as u64), Some(sealed.len() as u64));
            assert_eq!(plain_len(sealed.len() as u64), Some(len as u64));
            open_part(&identity, &sealed, &mut plain).unwrap();
            assert_eq!(plain, content);
            assert_eq!(seal_to_vec(&identity.recipient(), &content).unwrap().capacity(), sealed.len());
        }
        assert_eq!(sealed_len(u64::MAX - 100), None);
        assert_eq!(plain_len(PART_OVERHEAD), None);
    }

    #[test]
    fn buffers_are_reused() {
        let identity = Identity::generate();
        let (mut sealed, mut plain) = (Vec::new(), Vec::new());
        let content = vec![1; 5 * CHUNK_LEN];
        seal_part(&identity.recipient(), &content, &mut sealed).unwrap();
        open_part(&identity, &sealed, &mut plain).unwrap();
        let memory = (sealed.as_ptr(), plain.as_ptr());
        for _ in 0..3 {
            seal_part(&identity.recipient(), &content, &mut sealed).unwrap();
            open_part(&identity, &sealed, &mut plain).unwrap();
            assert_eq!(memory, (sealed.as_ptr(), plain.as_ptr()));
        }
    }

    #[test]
    fn a_failure_releases_nothing() {
        let identity = Identity::generate();
        let mut sealed = seal_to_vec(&identity.recipient(), &vec![1; 2 * CHUNK_LEN]).unwrap();
        *sealed.last_mut().unwrap() ^= 1;
        let mut plain = b"what was here before".to_vec();
        let error = open_part(&identity, &sealed, &mut plain).unwrap_err();
        assert!(matches!(error, Error::PayloadFailure(PayloadError::NotAuthentic { chunk: 1 })));
        assert!(plain.is_empty());
    }
}
