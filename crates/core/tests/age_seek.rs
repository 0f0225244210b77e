//! Random access: every range is the one of the content, and none is given of a file that is not whole.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use std::io::{self, Cursor, Read, Seek, SeekFrom};

use pouch_core::age::{
    ArmorWriter, CHUNK_LEN, Error, HeaderError, Identity, PayloadError, decrypt_seekable, seal_to_vec,
};
use proptest::prelude::*;

fn content(len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    blake3::Hasher::new().finalize_xof().fill(&mut bytes);
    bytes
}

fn sealed(identity: &Identity, plain: &[u8]) -> Vec<u8> {
    seal_to_vec(&identity.recipient(), plain).unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_cursor_over_the_content_does_the_same(
        chunks in 0_usize..4,
        more in -1_isize..2,
        before in 0_usize..100,
        steps in proptest::collection::vec((0_u8..3, -70_000_i64..70_000, 0_usize..70_000), 1..12),
    ) {
        let identity = Identity::generate();
        let plain = content((chunks * CHUNK_LEN).saturating_add_signed(more));
        let mut file = Cursor::new([vec![7; before], sealed(&identity, &plain)].concat());
        file.set_position(before as u64);
        let mut reader = decrypt_seekable(&identity, file).unwrap();
        prop_assert_eq!(reader.len(), plain.len() as u64);
        let mut model = Cursor::new(plain.as_slice());
        for (whence, by, len) in steps {
            let to = match whence {
                0 => SeekFrom::Start(by.unsigned_abs()),
                1 => SeekFrom::Current(by),
                _ => SeekFrom::End(by),
            };
            prop_assert_eq!(reader.seek(to).ok(), model.seek(to).ok());
            let (mut ours, mut theirs) = (Vec::new(), Vec::new());
            reader.by_ref().take(len as u64).read_to_end(&mut ours).unwrap();
            model.by_ref().take(len as u64).read_to_end(&mut theirs).unwrap();
            prop_assert!(ours == theirs);
        }
    }
}

/// Remembers which bytes of the file were asked for.
struct Watched {
    file: Cursor<Vec<u8>>,
    read: Vec<(u64, usize)>,
}

impl Read for &mut Watched {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let at = self.file.position();
        let len = self.file.read(out)?;
        self.read.push((at, len));
        Ok(len)
    }
}

impl Seek for &mut Watched {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        self.file.seek(to)
    }
}

#[test]
fn the_rest_is_not_read() {
    let identity = Identity::generate();
    let plain = content(100 * CHUNK_LEN);
    let mut watched = Watched { file: Cursor::new(sealed(&identity, &plain)), read: Vec::new() };
    let mut reader = decrypt_seekable(&identity, &mut watched).unwrap();
    let at = 40 * CHUNK_LEN - 10;
    reader.seek(SeekFrom::Start(at as u64)).unwrap();
    let mut range = [0; 20];
    reader.read_exact(&mut range).unwrap();
    assert_eq!(range, plain[at..at + 20]);
    drop(reader);
    let bytes: usize = watched.read.iter().map(|(_, len)| len).sum();
    assert!(bytes < 4 * CHUNK_LEN, "{bytes} bytes were read");
}

// attacks.md 17: the length that the file has says nothing before its last chunk is verified.
#[test]
fn attack_17_a_file_that_was_cut_is_refused_before_any_range_of_it() {
    let identity = Identity::generate();
    let file = sealed(&identity, &content(3 * CHUNK_LEN + 100));
    let header = file.len() - (3 * CHUNK_LEN + 100 + 4 * 16);
    for cut in (header..file.len()).step_by(997).chain((1..4).map(|chunk| header + chunk * (CHUNK_LEN + 16))) {
        let error = decrypt_seekable(&identity, Cursor::new(&file[..cut])).err().unwrap();
        assert!(
            matches!(error, Error::PayloadFailure(PayloadError::Truncated | PayloadError::NotAuthentic { .. })),
            "{cut}: {error}"
        );
    }
    let longer = [file.as_slice(), &[0; 50]].concat();
    assert!(decrypt_seekable(&identity, Cursor::new(longer)).is_err());
}

// attacks.md 18: chunks out of their places, and a last chunk in the middle.
#[test]
fn attack_18_chunks_out_of_place_are_refused_where_they_are_read() {
    let identity = Identity::generate();
    let file = sealed(&identity, &content(4 * CHUNK_LEN));
    let sealed_chunk = CHUNK_LEN + 16;
    let header = file.len() - 4 * sealed_chunk;
    let mut swapped = file.clone();
    let (a, b) = (file[header..header + sealed_chunk].to_vec(), file[header + sealed_chunk..][..sealed_chunk].to_vec());
    swapped[header..header + sealed_chunk].copy_from_slice(&b);
    swapped[header + sealed_chunk..][..sealed_chunk].copy_from_slice(&a);
    let mut reader = decrypt_seekable(&identity, Cursor::new(swapped)).unwrap();
    assert!(reader.read(&mut [0; 10]).is_err());
    reader.seek(SeekFrom::Start(CHUNK_LEN as u64)).unwrap();
    assert!(reader.read(&mut [0; 10]).is_err());
    // The others are where they belong, and a failure spoils nothing.
    reader.seek(SeekFrom::Start(2 * CHUNK_LEN as u64)).unwrap();
    let mut third = vec![0; CHUNK_LEN];
    reader.read_exact(&mut third).unwrap();
    assert_eq!(third, content(4 * CHUNK_LEN)[2 * CHUNK_LEN..3 * CHUNK_LEN]);
}

#[test]
fn armor_is_refused() {
    let identity = Identity::generate();
    let mut armor = ArmorWriter::new(Vec::new());
    io::Write::write_all(&mut armor, &sealed(&identity, b"text")).unwrap();
    let error = decrypt_seekable(&identity, Cursor::new(armor.finish().unwrap())).err().unwrap();
    assert!(matches!(error, Error::HeaderFailure(HeaderError::NotAge)));
}
