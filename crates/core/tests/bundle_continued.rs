//! A sealing that is continued: parts that were sealed before are passed over if their content still is the same, the bundle
//! opens to the same content whatever was kept, and no file key is used twice (attacks.md 33).
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

mod bundle_support;
#[path = "../../../tests/src/file_key.rs"]
mod file_key;

use std::collections::{BTreeMap, BTreeSet};
use std::io::Cursor;
use std::path::Path;
use std::sync::Mutex;

use bundle_support::*;
use file_key::file_key;
use pouch_core::age::Identity;
use pouch_core::bundle::*;
use proptest::prelude::*;

/// Where sealed parts are, by number, and what their sender keeps of each.
type There = BTreeMap<u32, (Vec<u8>, KeptPart)>;

/// What a sender keeps from one sealing to the next.
struct Sender {
    world: World,
    key: String,
    digests: [u8; 32],
    compression: Option<Compression>,
}

impl Sender {
    fn new(compression: Option<Compression>) -> Self {
        let key = Identity::generate_x25519().expose_secret_string().to_string();
        Self { world: World::new(), key, digests: [7; 32], compression }
    }

    fn key(&self) -> Identity {
        self.key.parse().unwrap()
    }

    /// Seals, passing over what is there; gives all that is there then, the numbers that were sealed, and the bundle.
    fn seal(&self, content: Content, there: &There) -> Result<(There, Vec<u32>, SealedBundle), SealError> {
        let mut kept = Kept::new(DigestKey::from_bytes(self.digests));
        there.iter().for_each(|(number, (_, part))| kept.insert(*number, *part));
        let sealer = Sealer::continuing(content, self.compression, self.key(), kept)?;
        let state = Mutex::new((There::new(), Vec::new()));
        sealer.seal_all(threads(3), |part| {
            let known =
                KeptPart { content: part.content.unwrap(), sealed_size: part.sealed_size, sealed_blake3: part.blake3 };
            let (all, sealed) = &mut *state.lock().unwrap();
            let bytes = if part.is_kept() {
                there[&part.number].0.clone()
            } else {
                sealed.push(part.number);
                std::mem::take(&mut part.sealed)
            };
            assert_eq!(part.sealed_size, bytes.len() as u64);
            all.insert(part.number, (bytes, known));
            Ok::<_, SealError>(())
        })?;
        let (all, sealed) = state.into_inner().unwrap();
        Ok((all, sealed, sealer.finish()?))
    }

    /// Opens what is there.
    fn open(&self, there: &There, bundle: SealedBundle, into: &Path) {
        let parts = there.values().map(|(bytes, _)| bytes.clone()).collect();
        let carried = self.world.carried(parts, bundle);
        let receiver = self.world.open(&carried).unwrap().receive(Staging::new(into).unwrap()).unwrap();
        carried.parts.iter().zip(0..).for_each(|(part, number)| receiver.accept(number, part).unwrap());
        receiver.finish().unwrap().publish().unwrap();
    }

    fn file_key(&self, sealed: &[u8]) -> Vec<u8> {
        file_key(&self.key, sealed)
    }
}

fn plant(root: &Path, size: usize) {
    std::fs::create_dir_all(root.join("a/b")).unwrap();
    for number in 0..30usize {
        std::fs::write(root.join(format!("a/b/{number:02}")), vec![number as u8; number * 311]).unwrap();
    }
    let bytes: Vec<u8> = (0..size).map(|i| (i * 31 % 251) as u8 ^ (i >> 9) as u8).collect();
    std::fs::write(root.join("large"), bytes).unwrap();
    std::fs::write(root.join("z"), b"the last one").unwrap();
}

fn tree(root: &Path) -> Content {
    Content::Tree(scan(root))
}

/// The bytes of a file changed in place, with its time as it was.
fn change(file: &Path, at: usize) {
    let before = std::fs::metadata(file).unwrap().modified().unwrap();
    let mut bytes = std::fs::read(file).unwrap();
    bytes[at] ^= 1;
    std::fs::write(file, bytes).unwrap();
    std::fs::File::options().write(true).open(file).unwrap().set_modified(before).unwrap();
}

#[test]
fn attack_33_any_kept_subset_gives_the_same_content_and_no_file_key_twice() {
    let home = tempfile::tempdir().unwrap();
    let source = home.path().join("source");
    plant(&source, 3 * PART + 12_345);
    for compression in [None, Some(Compression::Zstd)] {
        let sender = Sender::new(compression);
        let (all, sealed, _) = sender.seal(tree(&source), &There::new()).unwrap();
        assert_eq!(sealed.len(), all.len());
        let mut left: Vec<Vec<u8>> = all.values().map(|(bytes, _)| bytes.clone()).collect();
        let count = all.len() as u32;
        for subset in 0..1u32 << count {
            let there: There =
                all.iter().filter(|(n, _)| (subset >> **n) & 1 == 1).map(|(n, p)| (*n, p.clone())).collect();
            let (now, sealed, bundle) = sender.seal(tree(&source), &there).unwrap();
            let expected: Vec<u32> = (0..count).filter(|n| (subset >> n) & 1 == 0).collect();
            assert_eq!(sealed, expected, "{subset:b}");
            assert!(now.iter().all(|(n, (_, part))| part.content == all[n].1.content));
            left.extend(sealed.iter().map(|n| now[n].0.clone()));
            let into = home.path().join(format!("{subset}-{}", compression.is_some()));
            sender.open(&now, bundle, &into);
            assert_eq!(std::fs::read(into.join("large")).unwrap(), std::fs::read(source.join("large")).unwrap());
            assert_eq!(std::fs::read(into.join("a/b/17")).unwrap(), std::fs::read(source.join("a/b/17")).unwrap());
        }
        let keys: BTreeSet<Vec<u8>> = left.iter().map(|sealed| sender.file_key(sealed)).collect();
        assert_eq!(keys.len(), left.len());
    }
}

#[test]
fn a_changed_byte_is_noticed_in_the_part_that_holds_it() {
    let home = tempfile::tempdir().unwrap();
    let source = home.path().join("source");
    plant(&source, 3 * PART);
    let sender = Sender::new(None);
    let (all, ..) = sender.seal(tree(&source), &There::new()).unwrap();
    for (file, at) in [("a/b/05", 3), ("large", PART + 77), ("large", 3 * PART - 1), ("z", 0)] {
        change(&source.join(file), at);
        let error = sender.seal(tree(&source), &all).err();
        assert!(matches!(error, Some(SealError::Differs { .. })), "{file} {at}: {error:?}");
        // Without the part that holds it the others are as they were.
        let Some(SealError::Differs { number }) = error else { unreachable!() };
        let mut there = all.clone();
        there.remove(&number);
        let (now, sealed, _) = sender.seal(tree(&source), &there).unwrap();
        assert_eq!(sealed, [number]);
        assert_ne!(now[&number].1.content, all[&number].1.content);
        change(&source.join(file), at);
    }
    assert!(sender.seal(tree(&source), &all).unwrap().1.is_empty());
}

// Times and permissions stand in headers: a part of the content, and of its digest. So do names.
#[test]
fn a_changed_list_is_noticed() {
    use std::os::unix::fs::PermissionsExt as _;
    let home = tempfile::tempdir().unwrap();
    let source = home.path().join("source");
    plant(&source, 1000);
    let (sender, key) = (Sender::new(None), DigestKey::from_bytes([7; 32]));
    let (all, ..) = sender.seal(tree(&source), &There::new()).unwrap();
    let before = scan(&source).digest(&key);
    assert_eq!(scan(&source).digest(&key), before);
    assert_ne!(scan(&source).digest(&DigestKey::from_bytes([8; 32])), before);
    let file = source.join("z");
    let (mode, time) = (|m| std::fs::Permissions::from_mode(m), std::fs::metadata(&file).unwrap().modified().unwrap());
    let at = |time| std::fs::File::options().write(true).open(&file).unwrap().set_modified(time).unwrap();
    let differs = || {
        assert_ne!(scan(&source).digest(&key), before);
        matches!(sender.seal(tree(&source), &all), Err(SealError::Differs { number: 0 }))
    };
    std::fs::set_permissions(&file, mode(0o755)).unwrap();
    assert!(differs());
    std::fs::set_permissions(&file, mode(0o644)).unwrap();
    at(time + std::time::Duration::from_secs(1));
    assert!(differs());
    // Less than a second is in no header, but the list knows.
    let nanosecond = std::time::Duration::from_nanos(1);
    at(time + nanosecond);
    assert_ne!(scan(&source).digest(&key), before);
    at(time);
    assert_eq!(scan(&source).digest(&key), before);
    // Files and folders have the same time as before, but another name.
    let folder = std::fs::metadata(&source).unwrap().modified().unwrap();
    std::fs::rename(&file, source.join("y")).unwrap();
    std::fs::File::open(&source).unwrap().set_modified(folder).unwrap();
    assert!(differs());
}

#[test]
fn a_stream_that_can_be_read_again() {
    let home = tempfile::tempdir().unwrap();
    for compression in [None, Some(Compression::Zstd)] {
        let sender = Sender::new(compression);
        let mut bytes: Vec<u8> = (0..2 * PART + 99).map(|i| ((i * 7919) >> 5) as u8).collect();
        let stream = |bytes: &[u8]| Content::Stream {
            name: "s".parse().unwrap(),
            mtime: 1,
            reader: Box::new(Cursor::new(bytes.to_vec())),
        };
        let (all, ..) = sender.seal(stream(&bytes), &There::new()).unwrap();
        let (_, sealed, _) = sender.seal(stream(&bytes), &all).unwrap();
        assert!(sealed.is_empty());
        // What differs is sealed again, and the bundle is of what came now.
        bytes[5] ^= 0x10;
        let (now, sealed, bundle) = sender.seal(stream(&bytes), &all).unwrap();
        assert!(sealed.contains(&0) && (compression.is_some() || sealed == [0]), "{sealed:?}");
        assert_ne!(sender.file_key(&now[&0].0), sender.file_key(&all[&0].0));
        let into = home.path().join(format!("{}", compression.is_some()));
        sender.open(&now, bundle, &into);
        assert!(std::fs::read(into.join("s")).unwrap() == bytes);
    }
}

// A part that cannot be one of this content, whatever its digest says.
#[test]
fn a_kept_part_of_another_length_is_sealed_again() {
    let home = tempfile::tempdir().unwrap();
    plant(home.path(), 100);
    let sender = Sender::new(None);
    let (mut all, ..) = sender.seal(tree(home.path()), &There::new()).unwrap();
    all.get_mut(&0).unwrap().1.sealed_size -= 1;
    assert_eq!(sender.seal(tree(home.path()), &all).unwrap().1, [0]);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 12, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn one_changed_byte_anywhere_is_never_passed_over(at in 0usize..2 * PART + 100) {
        let home = tempfile::tempdir().unwrap();
        let source = home.path().join("s");
        std::fs::create_dir(&source).unwrap();
        std::fs::write(source.join("f"), vec![3; 2 * PART + 100]).unwrap();
        let sender = Sender::new(None);
        let (all, ..) = sender.seal(tree(&source), &There::new()).unwrap();
        change(&source.join("f"), at);
        let error = sender.seal(tree(&source), &all).err();
        prop_assert!(matches!(error, Some(SealError::Differs { .. })), "{error:?}");
    }
}
