//! Age files of one X25519 recipient, chunk by chunk, over one buffer: content is put where its ciphertext will stand,
//! and sealed there; or it is opened into room for one chunk. Neither direction holds a part twice.

use std::ops::Range;

use zeroize::Zeroize;

use super::aead::TAG_LEN;
use super::error::{Error, Result};
use super::keys::{Identity, Recipient};
use super::part::PART_OVERHEAD;
use super::recipient::{Opener, Sealer, open_header, start};
use super::stream::{CHUNK_LEN, SEALED_CHUNK_LEN, payload_len};

/// Seals `len` bytes of content as a complete age file in `sealed`, with a fresh file key.
///
/// `fill` is given the room of one chunk after the other and must write all of it; what stands there already stays
/// until then, so that content may also be put there before ([`rooms`]). `done` sees the bytes of the file in order when
/// they are final, up to the end in stretches of whole [`CHUNK_LEN`]s from its beginning, which a tree of digests likes best.
/// Memory is kept for the next file.
///
/// # Errors
///
/// No random bytes, or what `fill` says. `sealed` is wiped and empty then.
pub(crate) fn seal_filled<E: From<Error>>(
    recipient: &Recipient,
    len: u64,
    sealed: &mut Vec<u8>,
    fill: impl FnMut(&mut [u8]) -> std::result::Result<(), E>,
    done: impl FnMut(&[u8]),
) -> std::result::Result<(), E> {
    let result = try_seal(recipient, len, sealed, fill, done);
    if result.is_err() {
        sealed.zeroize();
    }
    result
}

fn try_seal<E: From<Error>>(
    recipient: &Recipient,
    len: u64,
    sealed: &mut Vec<u8>,
    mut fill: impl FnMut(&mut [u8]) -> std::result::Result<(), E>,
    mut done: impl FnMut(&[u8]),
) -> std::result::Result<(), E> {
    let (header, key) = start(&Sealer::from(recipient))?;
    make_room(sealed, len)?;
    sealed.get_mut(..header.len()).ok_or(Error::Library)?.copy_from_slice(&header);
    let (mut start, mut told) = (header.len(), 0);
    for number in 0.. {
        let end = sealed.len().min(start + SEALED_CHUNK_LEN);
        let last = end == sealed.len();
        let chunk = sealed.get_mut(start..end).ok_or(Error::Library)?;
        let room = chunk.len().checked_sub(TAG_LEN).and_then(|len| chunk.get_mut(..len)).ok_or(Error::Library)?;
        fill(room)?;
        key.seal_in_place(number, last, chunk)?;
        let whole = if last { end } else { end - end % CHUNK_LEN };
        done(sealed.get(told..whole).ok_or(Error::Library)?);
        if last {
            break;
        }
        (start, told) = (end, whole);
    }
    Ok(())
}

/// Gives `sealed` the length of the file around `len` bytes of content, at most once with new memory. What stood there
/// stays.
pub(crate) fn make_room(sealed: &mut Vec<u8>, len: u64) -> Result<()> {
    let total = payload_len(len).and_then(|payload| payload.checked_add(PART_OVERHEAD));
    let total = total.and_then(|total| usize::try_from(total).ok()).ok_or(Error::Length { len })?;
    if sealed.is_empty() && sealed.capacity() < total {
        // Zeros that the system gives are written once, not twice.
        *sealed = vec![0; total];
    }
    sealed.reserve_exact(total.saturating_sub(sealed.len()));
    sealed.resize(total, 0);
    Ok(())
}

/// Where the chunks of content stand in a file that [`make_room`] made room for.
pub(crate) fn rooms(sealed: &mut [u8]) -> impl Iterator<Item = &mut [u8]> {
    let chunks = sealed.get_mut(PART_OVERHEAD as usize..).unwrap_or_default();
    chunks.chunks_mut(SEALED_CHUNK_LEN).filter_map(|chunk| {
        let len = chunk.len().checked_sub(TAG_LEN)?;
        chunk.get_mut(..len)
    })
}

/// Opens a complete binary age file and gives `each` the chunks with a number in `wanted`, in order, through `room`, which
/// keeps its memory of one chunk. What is given is authentic; the file as a whole is good only when this returns and all
/// chunks were wanted.
///
/// # Errors
///
/// Everything that [`open_part`](super::open_part) reports, and what `each` says.
pub(crate) fn open_chunks<E: From<Error>>(
    identity: &Identity,
    mut sealed: &[u8],
    wanted: Range<u64>,
    room: &mut Vec<u8>,
    mut each: impl FnMut(&[u8]) -> std::result::Result<(), E>,
) -> std::result::Result<(), E> {
    let key = open_header(&Opener::from(identity), &mut sealed)?;
    room.resize(CHUNK_LEN, 0);
    for number in 0.. {
        let (chunk, rest) = sealed.split_at(sealed.len().min(SEALED_CHUNK_LEN));
        if wanted.contains(&number) {
            let opened = key.open(number, rest.is_empty(), chunk, room).map_err(Error::from)?;
            opened.ends(rest.is_empty()).map_err(Error::from)?;
            each(room.get(..opened.len).ok_or(Error::Library)?)?;
        }
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
    use super::super::{open_part, seal_to_vec, sealed_len};
    use super::*;

    #[test]
    fn sealed_in_place_it_is_the_same_file() {
        let identity = Identity::generate_x25519();
        let mut sealed = vec![0x77; 5];
        for len in [0, 1, CHUNK_LEN - 1, CHUNK_LEN, CHUNK_LEN + 1, 3 * CHUNK_LEN] {
            let content: Vec<u8> = (0..len).map(|i| (i % 251) as u8).collect();
            let (mut left, mut seen) = (content.as_slice(), Vec::new());
            let fill = |room: &mut [u8]| -> Result<()> {
                let (now, rest) = left.split_at(room.len());
                room.copy_from_slice(now);
                left = rest;
                Ok(())
            };
            seal_filled(&identity.recipient(), len as u64, &mut sealed, fill, |b| seen.extend_from_slice(b)).unwrap();
            assert!(left.is_empty());
            assert_eq!(seen, sealed);
            assert_eq!(sealed_len(len as u64), Some(sealed.len() as u64));
            let mut plain = Vec::new();
            open_part(&identity, &sealed, &mut plain).unwrap();
            assert_eq!(plain, content);
            // The same with what was put there before.
            make_room(&mut sealed, len as u64).unwrap();
            rooms(&mut sealed).zip(content.chunks(CHUNK_LEN)).for_each(|(room, now)| room.copy_from_slice(now));
            let stays = |_: &mut [u8]| -> Result<()> { Ok(()) };
            seal_filled(&identity.recipient(), len as u64, &mut sealed, stays, |_| ()).unwrap();
            let (mut room, mut plain) = (Vec::new(), Vec::new());
            let each = |bytes: &[u8]| -> Result<()> {
                plain.extend_from_slice(bytes);
                Ok(())
            };
            open_chunks(&identity, &sealed, 0..u64::MAX, &mut room, each).unwrap();
            assert_eq!(plain, content);
        }
    }

    // No plaintext stays in a buffer that the caller takes for a sealed one.
    #[test]
    fn a_failure_wipes_the_buffer() {
        let recipient = Identity::generate_x25519().recipient();
        let mut sealed = Vec::new();
        let mut chunks = 0;
        let fill = |room: &mut [u8]| {
            room.fill(0x55);
            chunks += 1;
            if chunks == 2 { Err(Error::Random) } else { Ok(()) }
        };
        assert!(seal_filled(&recipient, 3 * CHUNK_LEN as u64, &mut sealed, fill, |_| ()).is_err());
        assert!(sealed.is_empty());
    }

    // attacks.md 17, 19: cut or lengthened files are refused as by `open_part`, and what came before was authentic.
    #[test]
    fn attack_17_and_19_cut_and_lengthened_files() {
        let identity = Identity::generate_x25519();
        let content = vec![3; 2 * CHUNK_LEN + 9];
        let sealed = seal_to_vec(&identity.recipient(), &content).unwrap();
        let open = |sealed: &[u8]| {
            let mut seen = 0;
            let each = |bytes: &[u8]| -> Result<()> {
                assert_eq!(Some(bytes), content.get(seen..seen + bytes.len()));
                seen += bytes.len();
                Ok(())
            };
            open_chunks(&identity, sealed, 0..u64::MAX, &mut Vec::new(), each).err()
        };
        assert!(open(&sealed).is_none());
        let front = PART_OVERHEAD as usize;
        for border in [front, front + SEALED_CHUNK_LEN, front + 2 * SEALED_CHUNK_LEN, sealed.len() - 1] {
            for len in [border - 1, border, border + 1].into_iter().filter(|len| *len < sealed.len()) {
                assert!(open(sealed.get(..len).unwrap()).is_some(), "{len}");
            }
        }
        assert!(open(&[sealed.as_slice(), &[0; 1]].concat()).is_some());
        assert!(open(&[sealed.as_slice(), &sealed].concat()).is_some());
    }
}
