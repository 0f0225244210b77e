//! attacks.md, rows 17, 18, 19, 28, 31: cut, flipped, swapped, spliced, lengthened, garbage.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

mod bundle_support;

use std::io::Cursor;

use bundle_support::*;
use pouch_core::bundle::*;
use pouch_statement::Stage;
use proptest::prelude::*;

// attacks.md 17: each object, and the whole file, cut at every byte.
#[test]
fn attack_17_truncation_at_every_byte() {
    let (world, home) = (World::new(), tempfile::tempdir().unwrap());
    let carried = small(&world);
    for length in 0..carried.envelope.len() {
        assert!(open_envelope(&carried.envelope[..length], &world.bo.age).is_err(), "{length}");
    }
    for length in 0..carried.index.len() {
        let opened = open_envelope(&carried.envelope, &world.bo.age).unwrap().verify(&world.expected()).unwrap();
        let error = opened.open_index(&carried.index[..length]).err().unwrap();
        assert!(matches!(error, OpenError::SealedIndexSize { .. }), "{length}");
    }
    let staging = Staging::new(&home.path().join("in")).unwrap();
    let receiver = world.open(&carried).unwrap().receive(staging).unwrap();
    for length in 0..carried.parts[0].len() {
        let error = receiver.accept(0, &carried.parts[0][..length]).unwrap_err();
        assert!(matches!(error, OpenError::PartSize { .. }), "{length}");
        assert_eq!(error.stage(), Some(Stage::Part));
    }
    assert!(matches!(receiver.finish().err(), Some(OpenError::PartsMissing { missing: 1 })));
    assert_eq!(std::fs::read_dir(home.path()).unwrap().count(), 0);

    carried.write_pouch(&home.path().join("x.pouch"));
    let whole = std::fs::read(home.path().join("x.pouch")).unwrap();
    assert!(PouchFile::open(Cursor::new(&whole)).is_ok());
    for length in 0..whole.len() {
        assert!(PouchFile::open(Cursor::new(&whole[..length])).is_err(), "{length}");
    }
}

// attacks.md 17: of several parts, the last ones missing or cut, at and around every chunk border of one.
#[test]
fn attack_17_truncation_of_a_larger_bundle() {
    let (world, home) = (World::new(), tempfile::tempdir().unwrap());
    let carried = world.seal_stream(&vec![5; FIRST_PART_SIZE as usize + 300_000]);
    assert_eq!(carried.parts.len(), 2);
    let staging = Staging::new(&home.path().join("in")).unwrap();
    let receiver = world.open(&carried).unwrap().receive(staging).unwrap();
    receiver.accept(0, &carried.parts[0]).unwrap();
    let last = &carried.parts[1];
    for border in (184..last.len()).step_by(65_552) {
        for length in [border - 1, border, border + 1] {
            assert!(receiver.accept(1, &last[..length]).is_err());
        }
    }
    assert!(matches!(receiver.finish().err(), Some(OpenError::PartsMissing { missing: 1 })));
    assert_eq!(std::fs::read_dir(home.path()).unwrap().count(), 0);
}

fn flip(bytes: &[u8], bit: usize) -> Vec<u8> {
    let mut changed = bytes.to_vec();
    changed[bit / 8] ^= 1 << (bit % 8);
    changed
}

// attacks.md 18: every single bit of the envelope.
#[test]
fn attack_18_every_bit_of_the_envelope() {
    let world = World::new();
    let envelope = small(&world).envelope;
    for bit in 0..envelope.len() * 8 {
        assert!(open_envelope(&flip(&envelope, bit), &world.bo.age).is_err(), "bit {bit}");
    }
}

// attacks.md 18: every single bit of index and part.
#[test]
fn attack_18_every_bit_of_index_and_part() {
    let (world, home) = (World::new(), tempfile::tempdir().unwrap());
    let carried = small(&world);
    for bit in 0..carried.index.len() * 8 {
        // What is compared is the digest, so a bit in each byte and all bits of some tell as much as all of them.
        if bit % 8 == (bit / 8) % 8 || bit < 1024 {
            let opened = open_envelope(&carried.envelope, &world.bo.age).unwrap().verify(&world.expected()).unwrap();
            let error = opened.open_index(&flip(&carried.index, bit)).err().unwrap();
            assert!(matches!(error, OpenError::SealedIndexDigest), "bit {bit}");
        }
    }
    let staging = Staging::new(&home.path().join("in")).unwrap();
    let receiver = world.open(&carried).unwrap().receive(staging).unwrap();
    for bit in 0..carried.parts[0].len() * 8 {
        let error = receiver.accept(0, &flip(&carried.parts[0], bit)).unwrap_err();
        assert!(matches!(error, OpenError::PartDigest { number: 0 }), "bit {bit}");
    }
    // A part fetched again after all that is still taken.
    receiver.accept(0, &carried.parts[0]).unwrap();
    receiver.finish().unwrap().publish().unwrap();
}

// attacks.md 18: every single bit of a .pouch file is either refused or gives an object that is not the sealed one.
#[test]
fn attack_18_every_bit_of_a_pouch_file() {
    let (world, home) = (World::new(), tempfile::tempdir().unwrap());
    let carried = small(&world);
    carried.write_pouch(&home.path().join("x.pouch"));
    let whole = std::fs::read(home.path().join("x.pouch")).unwrap();
    let bundle = carried.manifest.body().bundle;
    let mut part = Vec::new();
    for bit in 0..whole.len() * 8 {
        let Ok(mut file) = PouchFile::open(Cursor::new(flip(&whole, bit))) else { continue };
        file.part(0, &mut part).unwrap();
        let same = file.bundle() == bundle
            && part == carried.parts[0]
            && file.index().unwrap() == carried.index
            && file.envelope().unwrap() == carried.envelope;
        assert!(!same, "bit {bit} changed nothing");
    }
}

// attacks.md 18, 31: parts swapped, repeated, or from another bundle; objects of two bundles mixed.
#[test]
fn attack_18_and_31_swapped_repeated_and_spliced_objects() {
    let world = World::new();
    let bytes = vec![9; 2 * FIRST_PART_SIZE as usize];
    let (carried, other) = (world.seal_stream(&bytes), world.seal_stream(&bytes));
    let (one, two) = (carried.parts[0].clone(), carried.parts[1].clone());
    for parts in [
        vec![two.clone(), one.clone()],
        vec![one.clone(), one.clone()],
        vec![other.parts[0].clone(), two.clone()],
        vec![one.clone(), other.parts[1].clone()],
    ] {
        let mixed = Carried { parts, ..world_copy(&carried) };
        assert!(matches!(world.refused(&mixed), OpenError::PartDigest { .. }));
    }
    let missing = Carried { parts: vec![one.clone()], ..world_copy(&carried) };
    assert!(matches!(world.refused(&missing), OpenError::PartsMissing { missing: 1 }));
    let more = Carried { parts: vec![one, two.clone(), two], ..world_copy(&carried) };
    assert!(matches!(world.refused(&more), OpenError::PartOrder { found: 2, .. }));
    let index = Carried { index: other.index.clone(), ..world_copy(&carried) };
    assert!(matches!(world.refused(&index), OpenError::SealedIndexDigest));
    let envelope = Carried { envelope: other.envelope.clone(), ..world_copy(&carried) };
    assert!(matches!(world.refused(&envelope), OpenError::SealedIndexDigest));

    let opened = open_envelope(&other.envelope, &world.bo.age).unwrap();
    let wanted = carried.manifest.body().bundle;
    let error = opened.verify(&Expected { bundle: Some(wanted), ..world.expected() }).err().unwrap();
    assert!(matches!(error, EnvelopeError::OtherBundle { .. }));
}

// attacks.md 19: something behind an object, or two of them in a row.
#[test]
fn attack_19_trailing_data() {
    let (world, home) = (World::new(), tempfile::tempdir().unwrap());
    let carried = small(&world);
    for tail in [vec![0], vec![0; 16], carried.envelope.clone()] {
        let longer = [carried.envelope.clone(), tail.clone()].concat();
        assert!(open_envelope(&longer, &world.bo.age).is_err());
        let index = [carried.index.clone(), tail.clone()].concat();
        assert!(matches!(world.refused(&Carried { index, ..world_copy(&carried) }), OpenError::SealedIndexSize { .. }));
        let parts = vec![[carried.parts[0].clone(), tail.clone()].concat()];
        assert!(matches!(world.refused(&Carried { parts, ..world_copy(&carried) }), OpenError::PartSize { .. }));
    }
    carried.write_pouch(&home.path().join("x.pouch"));
    let whole = std::fs::read(home.path().join("x.pouch")).unwrap();
    for tail in [vec![0], vec![0; 512], whole.clone()] {
        let longer = [whole.clone(), tail.clone()].concat();
        let error = PouchFile::open(Cursor::new(longer)).err().unwrap();
        assert!(matches!(error, FileError::Trailing { bytes } if bytes == tail.len() as u64), "{error}");
    }
    // Plaintext that goes on behind the objects: a longer padding than the padded length, or not zeros.
    let opened = objects(&[
        ("manifest", carried.manifest.bytes()),
        ("manifest.sig", carried.manifest.signature().as_bytes()),
        ("bundle.key", format!("{}\n", carried.key.expose_secret_string().as_str()).as_bytes()),
    ]);
    assert!(open_envelope(&envelope_of(&world, &opened), &world.bo.age).is_ok());
    for wrong in [[opened.clone(), vec![0; 512]].concat(), opened[..opened.len() - 1].to_vec(), {
        let mut changed = opened.clone();
        *changed.last_mut().unwrap() = 1;
        changed
    }] {
        let error = open_envelope(&envelope_of(&world, &wrong), &world.bo.age).err().unwrap();
        assert!(matches!(error, EnvelopeError::Object(_)), "{error}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, failure_persistence: None, ..ProptestConfig::default() })]

    // attacks.md 28: whatever the bytes, the answer is an error and never a panic or a success.
    #[test]
    fn attack_28_garbage_never_verifies(bytes in proptest::collection::vec(any::<u8>(), 0..6000)) {
        let world = World::new();
        prop_assert!(Index::decode(&bytes).is_err());
        prop_assert!(open_envelope(&bytes, &world.bo.age).is_err());
        prop_assert!(open_envelope(&envelope_of(&world, &bytes), &world.bo.age).is_err());
        prop_assert!(open_receipt(&envelope_of(&world, &bytes), &world.bo.age).is_err());
        prop_assert!(PouchFile::open(Cursor::new(&bytes)).is_err());
    }

    // attacks.md 28: nor do changes in the middle of something well-formed.
    #[test]
    fn attack_28_mutated_index_never_verifies_as_another(at in 0usize..900, byte: u8) {
        let world = World::new();
        let content = archive_of(&[("a", Some(b"x")), ("d", None), ("d/e", Some(b"y"))]);
        let entries = [file_line("a", b"x"), folder_line("d"), file_line("d/e", b"y")];
        let text = world.forge(ContentKind::Tar, &content, &entries, |t| t).index_text();
        let mut bytes = text.clone().into_bytes();
        if let Some(place) = bytes.get_mut(at) {
            *place = byte;
        }
        if let Ok(index) = Index::decode(&bytes) {
            // What is read is exactly what was there.
            prop_assert_eq!(index.encode().unwrap(), bytes);
        }
    }
}
