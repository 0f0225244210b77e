//! Files that were cut, altered, rearranged or extended: each is refused, and only a true prefix is released.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use std::io::{self, Read, Write};

use pouch_core::age::{
    CHUNK_LEN, Error, HeaderError, Identity, Kind, MAX_HEADER_LEN, MAX_HEADER_LINE_LEN, MAX_STANZAS, PART_OVERHEAD,
    Passphrase, PayloadError, TAG_LEN, decrypt, encrypt, open_part, seal_to_vec,
};
use zeroize::Zeroizing;

const SEALED_CHUNK_LEN: usize = CHUNK_LEN + TAG_LEN;
const FIRST_CHUNK: usize = PART_OVERHEAD as usize;

/// A file of chunks that all differ, its identity, and its content.
struct Sample {
    identity: Identity,
    plain: Vec<u8>,
    file: Vec<u8>,
}

impl Sample {
    fn new(len: usize) -> Self {
        let identity = Identity::generate_x25519();
        let plain: Vec<u8> = (0..len).map(|i| (i ^ (i >> 8) ^ (i >> 16)) as u8).collect();
        let file = seal_to_vec(&identity.recipient(), &plain).unwrap();
        Self { identity, plain, file }
    }

    fn chunks(&self) -> (Vec<u8>, Vec<Vec<u8>>) {
        let (start, payload) = self.file.split_at(FIRST_CHUNK);
        (start.to_vec(), payload.chunks(SEALED_CHUNK_LEN).map(<[u8]>::to_vec).collect())
    }

    /// Opens the file both ways; the verdicts must agree, and what the reader released be a prefix.
    fn refused(&self, file: &[u8]) -> Error {
        let mut released = Vec::new();
        let result = decrypt(&self.identity, file).and_then(|mut reader| Ok(reader.read_to_end(&mut released)?));
        let by_reader = result.unwrap_err();
        assert!(self.plain.starts_with(&released));
        let mut part = vec![1];
        let in_memory = open_part(&self.identity, file, &mut part).unwrap_err();
        assert!(part.is_empty());
        assert_eq!(by_reader.kind(), in_memory.kind());
        by_reader
    }
}

fn payload(error: Error) -> PayloadError {
    match error {
        Error::PayloadFailure(error) => error,
        other => unreachable!("{other}"),
    }
}

// attacks.md 17
#[test]
fn a_small_file_cut_at_every_byte() {
    for len in [0, 1, 100] {
        let sample = Sample::new(len);
        for cut in 0..sample.file.len() {
            let kind = sample.refused(&sample.file[..cut]).kind();
            let expected = if cut < FIRST_CHUNK { Kind::HeaderFailure } else { Kind::PayloadFailure };
            assert_eq!(kind, expected, "{cut}");
        }
    }
}

// attacks.md 17
#[test]
fn a_larger_file_cut_at_every_chunk_border() {
    for len in [3 * CHUNK_LEN, 3 * CHUNK_LEN + 50] {
        let sample = Sample::new(len);
        for border in (FIRST_CHUNK..sample.file.len()).step_by(SEALED_CHUNK_LEN) {
            assert_eq!(payload(sample.refused(&sample.file[..border])), PayloadError::Truncated);
            for near in [border - 1, border + 1, border + TAG_LEN - 1, border + TAG_LEN, border + TAG_LEN + 1] {
                let near = near.min(sample.file.len() - 1);
                sample.refused(&sample.file[..near]);
            }
        }
        sample.refused(&sample.file[..sample.file.len() - 1]);
    }
}

// attacks.md 18
#[test]
fn every_single_bit_flipped() {
    let sample = Sample::new(40);
    let mut file = sample.file.clone();
    for at in 0..file.len() {
        for bit in 0..8 {
            file[at] ^= 1 << bit;
            sample.refused(&file);
            file[at] ^= 1 << bit;
        }
    }
    assert_eq!(file, sample.file);
}

// attacks.md 18
#[test]
fn a_bit_flipped_in_every_chunk_is_located() {
    let sample = Sample::new(3 * CHUNK_LEN + 9);
    for (chunk, start) in (FIRST_CHUNK..sample.file.len()).step_by(SEALED_CHUNK_LEN).enumerate() {
        let mut file = sample.file.clone();
        file[start + 5] ^= 0x80;
        assert_eq!(payload(sample.refused(&file)), PayloadError::NotAuthentic { chunk: chunk as u64 });
    }
}

// attacks.md 18
#[test]
fn chunks_swapped_repeated_dropped_and_spliced() {
    let sample = Sample::new(4 * CHUNK_LEN);
    let (start, chunks) = sample.chunks();
    let build = |order: &[usize]| {
        let mut file = start.clone();
        order.iter().for_each(|chunk| file.extend_from_slice(&chunks[*chunk]));
        file
    };
    assert_eq!(build(&[0, 1, 2, 3]), sample.file);
    for order in [
        &[1, 0, 2, 3][..],
        &[0, 2, 1, 3],
        &[0, 1, 3, 2],
        &[0, 0, 1, 2, 3],
        &[0, 1, 1, 2, 3],
        &[0, 1, 3],
        &[1, 2, 3],
        &[3],
    ] {
        sample.refused(&build(order));
    }

    // The same content for the same recipient, in a file of its own.
    let other = seal_to_vec(&sample.identity.recipient(), &sample.plain).unwrap();
    for chunk in 0..4 {
        let range = FIRST_CHUNK + chunk * SEALED_CHUNK_LEN..FIRST_CHUNK + (chunk + 1) * SEALED_CHUNK_LEN;
        let mut file = sample.file.clone();
        file[range.clone()].copy_from_slice(&other[range]);
        assert_eq!(payload(sample.refused(&file)), PayloadError::NotAuthentic { chunk: chunk as u64 });
    }
    // One's header before the other's payload, and one's header before the other's nonce and payload.
    for border in [FIRST_CHUNK, FIRST_CHUNK - 16] {
        let file = [&sample.file[..border], &other[border..]].concat();
        assert_eq!(payload(sample.refused(&file)), PayloadError::NotAuthentic { chunk: 0 });
    }
}

// attacks.md 19
#[test]
fn data_after_the_end() {
    for len in [0, 10, CHUNK_LEN - 1, CHUNK_LEN, 2 * CHUNK_LEN] {
        let sample = Sample::new(len);
        for extra in [1, 16, 17, SEALED_CHUNK_LEN] {
            let file = [sample.file.clone(), vec![0; extra]].concat();
            let error = payload(sample.refused(&file));
            // After a full last chunk it is clear what happened.
            assert_eq!(
                error == PayloadError::TrailingData,
                len > 0 && len.is_multiple_of(CHUNK_LEN),
                "{len} {extra} {error}"
            );
        }
        sample.refused(&[sample.file.clone(), sample.file.clone()].concat());
    }
}

// attacks.md 19: made with the file key, as a co-recipient could
#[test]
fn an_empty_chunk_after_others() {
    use age_core::format::FileKey;
    use age_core::secrecy::ExposeSecret;
    use aws_lc_rs::aead::{Aad, CHACHA20_POLY1305, LessSafeKey, Nonce, UnboundKey};

    let sample = Sample::new(CHUNK_LEN);
    let (start, _) = sample.chunks();
    let theirs: age::x25519::Identity = sample.identity.expose_secret_string().parse().unwrap();
    let text = std::str::from_utf8(&start[..FIRST_CHUNK - 16]).unwrap();
    let lines: Vec<&str> = text.lines().collect();
    let stanza = age_core::format::Stanza {
        tag: "X25519".to_owned(),
        args: vec![lines[1].rsplit_once(' ').unwrap().1.to_owned()],
        body: base64::Engine::decode(&base64::prelude::BASE64_STANDARD_NO_PAD, lines[2]).unwrap(),
    };
    let file_key: FileKey = age::Identity::unwrap_stanza(&theirs, &stanza).unwrap().unwrap();
    let mut key = [0; 32];
    let nonce = &start[FIRST_CHUNK - 16..];
    hkdf::Hkdf::<sha2::Sha256>::new(Some(nonce), file_key.expose_secret()).expand(b"payload", &mut key).unwrap();
    let key = LessSafeKey::new(UnboundKey::new(&CHACHA20_POLY1305, &key).unwrap());
    let seal = |number: u8, last: u8, plain: &[u8]| {
        let mut chunk = plain.to_vec();
        let nonce = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, number, last];
        key.seal_in_place_append_tag(Nonce::assume_unique_for_key(nonce), Aad::empty(), &mut chunk).unwrap();
        chunk
    };

    assert_eq!([start.clone(), seal(0, 1, &sample.plain)].concat(), sample.file);
    let file = [start.clone(), seal(0, 0, &sample.plain), seal(1, 1, b"")].concat();
    assert_eq!(payload(sample.refused(&file)), PayloadError::EmptyLastChunk);
    // Short chunks only at the end, and one last chunk only.
    sample.refused(&[start.clone(), seal(0, 0, &sample.plain[..9]), seal(1, 1, b"x")].concat());
    let file = [start, seal(0, 1, &sample.plain), seal(1, 1, b"x")].concat();
    assert_eq!(payload(sample.refused(&file)), PayloadError::TrailingData);
}

#[test]
fn a_failure_is_repeated_and_the_prefix_is_not() {
    let sample = Sample::new(2 * CHUNK_LEN);
    let cut = &sample.file[..FIRST_CHUNK + SEALED_CHUNK_LEN];
    let mut reader = decrypt(&sample.identity, cut).unwrap();
    io::copy(&mut reader, &mut io::sink()).unwrap_err();
    for _ in 0..3 {
        let error = reader.read(&mut [0; 10]).unwrap_err();
        assert_eq!(payload(Error::from(error)), PayloadError::Truncated);
    }
}

/// Gives `pattern` again and again, without end, and counts what was taken.
struct Endless<'a> {
    pattern: &'a [u8],
    given: usize,
}

impl Read for Endless<'_> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let rest = &self.pattern[self.given % self.pattern.len()..];
        let len = rest.len().min(out.len());
        out[..len].copy_from_slice(&rest[..len]);
        self.given += len;
        Ok(len)
    }
}

// attacks.md 21
#[test]
fn headers_without_end_are_cut_off() {
    let identity = Identity::generate();
    let body_line = [b"A".repeat(64), b"\n".to_vec()].concat();
    let cases = [
        (&b"-> X25519 a\n\n"[..], HeaderError::TooManyStanzas { limit: MAX_STANZAS }, MAX_STANZAS * 20),
        (&b"x"[..], HeaderError::LongLine { line: 2, limit: MAX_HEADER_LINE_LEN }, MAX_HEADER_LINE_LEN),
        (&b"-> a a a a a a a a a a\n"[..], HeaderError::Malformed { line: 3 }, 0),
        (&body_line[..], HeaderError::Malformed { line: 2 }, 0),
    ];
    for (pattern, expected, most) in cases {
        let mut endless = Endless { pattern, given: 0 };
        let error = decrypt(&identity, b"age-encryption.org/v1\n".chain(&mut endless)).err().unwrap();
        assert!(matches!(error, Error::HeaderFailure(found) if found == expected), "{error}");
        assert!(endless.given <= most + 8192, "{}", endless.given);
    }

    let mut endless = Endless { pattern: &body_line, given: 0 };
    let start = b"age-encryption.org/v1\n-> X25519 a\n";
    let error = decrypt(&identity, start.chain(&mut endless)).err().unwrap();
    assert!(matches!(error, Error::HeaderFailure(HeaderError::TooLong { limit: MAX_HEADER_LEN })));
    assert!(endless.given <= MAX_HEADER_LEN + 8192);

    let mut zeros = Endless { pattern: &[0], given: 0 };
    let error = decrypt(&identity, &mut zeros).err().unwrap();
    assert_eq!(error.kind(), Kind::HeaderFailure);
    assert!(zeros.given <= MAX_HEADER_LINE_LEN + 8192);
}

// attacks.md 20, 38
#[test]
fn a_wrong_passphrase_and_a_wrong_key() {
    let passphrase = |text: &str| Passphrase::new(Zeroizing::new(text.to_owned())).with_work_factor(3).unwrap();
    let mut writer = encrypt(&passphrase("right"), Vec::new()).unwrap();
    writer.write_all(b"content").unwrap();
    let file = writer.finish().unwrap();
    assert!(decrypt(&passphrase("right"), file.as_slice()).is_ok());
    assert!(matches!(decrypt(&passphrase("wrong"), file.as_slice()), Err(Error::NoMatch)));
    let identity = Identity::generate();
    assert!(matches!(decrypt(&identity, file.as_slice()), Err(Error::PassphraseNeeded)));
    let sealed = seal_to_vec(&identity.recipient(), b"x").unwrap();
    assert!(matches!(decrypt(&passphrase("right"), sealed.as_slice()), Err(Error::IdentityNeeded)));
    let strict = passphrase("right").with_max_work_factor(2);
    assert!(matches!(decrypt(&strict, file.as_slice()), Err(Error::ExcessiveWork { log_n: 3, max_log_n: 2 })));
}
