//! Any content in any pieces, with ourselves and with the `age` crate's own payload reader and writer.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use std::io::{self, Read, Write};
use std::iter;

use age::secrecy::SecretString;
use pouch_core::age::{
    ArmorWriter, CHUNK_LEN, Encoding, Identity, Opener, Passphrase, Sealer, decrypt, decrypt_encoded, encrypt,
    open_part, seal_to_vec,
};
use proptest::prelude::*;
use zeroize::Zeroizing;

const SIZES: [usize; 9] =
    [0, 1, 100, CHUNK_LEN - 1, CHUNK_LEN, CHUNK_LEN + 1, 2 * CHUNK_LEN, 2 * CHUNK_LEN + 7, 5 * CHUNK_LEN];

fn content(len: usize) -> Vec<u8> {
    (0..len).map(|i| (i ^ (i >> 8) ^ (i >> 16)) as u8).collect()
}

fn theirs(identity: &Identity) -> age::x25519::Identity {
    identity.expose_secret_string().parse().unwrap()
}

fn seal<'a>(to: impl Into<Sealer<'a>>, plain: &[u8]) -> Vec<u8> {
    let mut writer = encrypt(to, Vec::new()).unwrap();
    writer.write_all(plain).unwrap();
    writer.finish().unwrap()
}

fn open<'a>(with: impl Into<Opener<'a>>, file: &[u8]) -> Vec<u8> {
    let mut plain = Vec::new();
    decrypt(with, file).unwrap().read_to_end(&mut plain).unwrap();
    plain
}

fn open_theirs(identity: &dyn age::Identity, file: &[u8]) -> Vec<u8> {
    let mut plain = Vec::new();
    let decryptor = age::Decryptor::new_buffered(age::armor::ArmoredReader::new(file)).unwrap();
    decryptor.decrypt(iter::once(identity)).unwrap().read_to_end(&mut plain).unwrap();
    plain
}

#[test]
fn the_age_crate_opens_what_we_seal() {
    let identity = Identity::generate_x25519();
    for len in SIZES {
        let plain = content(len);
        assert_eq!(open_theirs(&theirs(&identity), &seal(&identity.recipient(), &plain)), plain);
        assert_eq!(open_theirs(&theirs(&identity), &seal_to_vec(&identity.recipient(), &plain).unwrap()), plain);

        let mut writer = encrypt(&identity.recipient(), ArmorWriter::new(Vec::new())).unwrap();
        writer.write_all(&plain).unwrap();
        let text = writer.finish().unwrap().finish().unwrap();
        assert!(text.is_ascii());
        assert_eq!(open_theirs(&theirs(&identity), &text), plain);
        assert_eq!(open(&identity, &text), plain);
    }
}

#[test]
fn we_open_what_the_age_crate_seals() {
    let identity = Identity::generate_x25519();
    for len in SIZES {
        let plain = content(len);
        for format in [age::armor::Format::Binary, age::armor::Format::AsciiArmor] {
            let binary = matches!(format, age::armor::Format::Binary);
            let armor = age::armor::ArmoredWriter::wrap_output(Vec::new(), format).unwrap();
            let recipient = theirs(&identity).to_public();
            let encryptor = age::Encryptor::with_recipients(iter::once(&recipient as _)).unwrap();
            let mut writer = encryptor.wrap_output(armor).unwrap();
            writer.write_all(&plain).unwrap();
            let file = writer.finish().unwrap().finish().unwrap();
            assert_eq!(open(&identity, &file), plain);
            let mut part = Vec::new();
            assert_eq!(open_part(&identity, &file, &mut part).is_ok(), binary);
            assert_eq!(decrypt_encoded(&identity, file.as_slice(), Encoding::Binary).is_ok(), binary);
            assert_eq!(decrypt_encoded(&identity, file.as_slice(), Encoding::Armor).is_ok(), !binary);
        }
    }
}

#[test]
fn passphrases_in_both_directions() {
    let ours = Passphrase::new(Zeroizing::new("correct horse".to_owned())).with_work_factor(10).unwrap();
    let theirs = age::scrypt::Identity::new(SecretString::from("correct horse"));
    assert_eq!(open_theirs(&theirs, &seal(&ours, b"content")), b"content");

    let mut recipient = age::scrypt::Recipient::new(SecretString::from("correct horse"));
    recipient.set_work_factor(10);
    let encryptor = age::Encryptor::with_recipients(iter::once(&recipient as _)).unwrap();
    let mut writer = encryptor.wrap_output(Vec::new()).unwrap();
    writer.write_all(b"content").unwrap();
    assert_eq!(open(&ours, &writer.finish().unwrap()), b"content");
}

/// Gives and takes as many bytes at a time as the list says, around and around.
struct InPieces<'a, T> {
    inner: T,
    pieces: iter::Cycle<iter::Copied<std::slice::Iter<'a, usize>>>,
}

impl<'a, T> InPieces<'a, T> {
    fn new(inner: T, pieces: &'a [usize]) -> Self {
        Self { inner, pieces: pieces.iter().copied().cycle() }
    }
}

impl<R: Read> Read for InPieces<'_, R> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let len = self.pieces.next().unwrap().min(out.len());
        self.inner.read(&mut out[..len])
    }
}

impl<W: Write> Write for InPieces<'_, W> {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        let len = self.pieces.next().unwrap().min(data.len());
        self.inner.write(&data[..len])
    }
    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_size_in_any_pieces(
        len in prop_oneof![0..300usize, 0..4 * CHUNK_LEN, prop::sample::select(SIZES.to_vec())],
        writes in prop::collection::vec(prop_oneof![1..50usize, 1000..3 * CHUNK_LEN, Just(CHUNK_LEN)], 1..6),
        outputs in prop::collection::vec(1..2 * CHUNK_LEN, 1..6),
        inputs in prop::collection::vec(1..2 * CHUNK_LEN, 1..6),
        reads in prop::collection::vec(prop_oneof![1..50usize, 1000..3 * CHUNK_LEN], 1..6),
        armored: bool,
    ) {
        let identity = Identity::generate_x25519();
        let plain = content(len);
        let output = InPieces::new(Vec::new(), &outputs);
        let file = if armored {
            let writer = encrypt(&identity.recipient(), ArmorWriter::new(output)).unwrap();
            let mut writer = InPieces::new(writer, &writes);
            writer.write_all(&plain).unwrap();
            writer.inner.finish().unwrap().finish().unwrap().inner
        } else {
            let mut writer = InPieces::new(encrypt(&identity.recipient(), output).unwrap(), &writes);
            writer.write_all(&plain).unwrap();
            writer.inner.finish().unwrap().inner
        };
        let reader = decrypt(&identity, InPieces::new(file.as_slice(), &inputs)).unwrap();
        let mut again = Vec::new();
        InPieces::new(reader, &reads).read_to_end(&mut again).unwrap();
        prop_assert!(again == plain);
    }
}
