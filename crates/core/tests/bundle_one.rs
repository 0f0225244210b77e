//! One file of a bundle without the others.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

mod bundle_support;

use bundle_support::*;
use pouch_core::bundle::*;

/// Extracts a file and tells which parts were fetched.
fn extract(opening: &Opening, carried: &Carried, path: &str, to: &mut Vec<u8>) -> Result<Vec<u32>, OpenError> {
    let mut fetched = Vec::new();
    opening.file(path).unwrap().extract(to, |number, sealed| {
        fetched.push(number);
        sealed.clone_from(&carried.parts[number as usize]);
        Ok::<_, OpenError>(())
    })?;
    Ok(fetched)
}

#[test]
fn every_file_comes_out_of_its_own_parts() {
    let (world, home) = (World::new(), tempfile::tempdir().unwrap());
    sample_tree(home.path());
    let noise: Vec<u8> = (0..2 * PART + 70_000).map(|i| (i * 31 % 251) as u8).collect();
    std::fs::write(home.path().join("folder/large"), &noise).unwrap();
    std::fs::write(home.path().join("folder/larger"), &noise[3..PART]).unwrap();
    let carried = world.seal_paths(&[home.path().to_owned()]);
    let opening = world.open(&carried).unwrap();
    let mut files = 0;
    for (path, (folder, _, _, bytes)) in snapshot(home.path()) {
        if folder {
            assert!(opening.file(&path).is_none());
            continue;
        }
        let mut out = Vec::new();
        let fetched = extract(&opening, &carried, &path, &mut out).unwrap();
        assert!(out == bytes, "{path}");
        let wanted = opening.file(&path).unwrap().parts();
        assert_eq!(fetched, wanted.clone().collect::<Vec<_>>(), "{path}");
        // The parts are those in which its bytes lie, and no others.
        let place = opening.index().locate(&path).unwrap();
        assert_eq!(wanted.is_empty(), bytes.is_empty());
        for part in wanted {
            let (start, end) = (u64::from(part) * FIRST_PART_SIZE, u64::from(part + 1) * FIRST_PART_SIZE);
            assert!(place.start < end && place.end > start, "{path} and part {part}");
        }
        files += 1;
    }
    assert_eq!(files, 11);
    assert!(opening.file("nowhere").is_none() && opening.file("").is_none());
}

#[test]
fn one_stream_is_one_file() {
    let world = World::new();
    for length in [0, 5, PART, 2 * PART + 1] {
        let bytes: Vec<u8> = (0..length).map(|i| (i % 253) as u8).collect();
        let carried = world.seal_stream(&bytes);
        let mut out = Vec::new();
        extract(&world.open(&carried).unwrap(), &carried, "stream", &mut out).unwrap();
        assert!(out == bytes, "{length}");
    }
}

// attacks.md 18: a part that is damaged, cut, or another one gives nothing of the file.
#[test]
fn attack_18_a_damaged_part_gives_nothing() {
    let world = World::new();
    let bytes = vec![5; 2 * PART];
    let mut carried = world.seal_stream(&bytes);
    let opening = world.open(&carried).unwrap();
    let good = carried.parts[1].clone();
    let refused = |carried: &Carried| {
        let mut out = Vec::new();
        let error = extract(&opening, carried, "stream", &mut out).unwrap_err();
        assert!(out.is_empty());
        error
    };
    for at in [0, 190, good.len() / 2, good.len() - 1] {
        carried.parts[1][at] ^= 4;
        assert!(matches!(refused(&carried), OpenError::PartDigest { number: 1 }));
        carried.parts[1][at] ^= 4;
    }
    carried.parts[1].pop();
    assert!(matches!(refused(&carried), OpenError::PartSize { number: 1, .. }));
    carried.parts[1] = carried.parts[0].clone();
    assert!(matches!(refused(&carried), OpenError::PartDigest { number: 1 }));
}

// attacks.md 13, 64: bytes that do not have the digest in the index are not given out, up to 32 MiB not even in part.
#[test]
fn attack_64_a_wrong_digest_gives_nothing() {
    let world = World::new();
    let content = archive_of(&[("a", Some(b"good")), ("b", Some(b"evil"))]);
    let lines = [file_line("a", b"good"), file_line("b", b"evil").replace(&blake3_of(b"evil"), &blake3_of(b"fine"))];
    let carried = world.forge(ContentKind::Tar, &content, &lines, |text| text);
    let opening = world.open(&carried).unwrap();
    let mut out = Vec::new();
    let error = extract(&opening, &carried, "b", &mut out).unwrap_err();
    assert!(matches!(error, OpenError::Content(ContentError::Digest { .. })), "{error}");
    assert!(out.is_empty());
    extract(&opening, &carried, "a", &mut out).unwrap();
    assert_eq!(out, b"good");

    let bytes = vec![3; HELD_BYTES + 2 * PART];
    let wrong = file_line("s", &bytes).replace(&blake3_of(&bytes), &blake3_of(b""));
    let carried = world.forge(ContentKind::Stream, &bytes, &[wrong], |text| text);
    let mut out = Vec::new();
    let error = extract(&world.open(&carried).unwrap(), &carried, "s", &mut out).unwrap_err();
    assert!(matches!(error, OpenError::Content(ContentError::Digest { .. })), "{error}");
    assert_eq!(out.len(), HELD_BYTES + PART, "the last part is held back");
}
