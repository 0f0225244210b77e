//! Compressed bundles: the same files come out, whatever the threads.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

mod bundle_support;

use std::io::Read;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bundle_support::compressed::*;
use bundle_support::*;
use pouch_core::bundle::*;
use proptest::prelude::*;

#[test]
fn streams_at_the_borders_of_frames() {
    let world = World::new();
    for length in [0, 1, 4096, FRAME - 1, FRAME, FRAME + 1, 2 * FRAME, 5 * FRAME + 77] {
        for bytes in [noise(1, length), text(length)] {
            let carried = seal_on(&world, 2, stream(&bytes)).unwrap();
            let opening = world.open(&carried).unwrap();
            let frames = opening.index().frames().unwrap();
            assert_eq!(frames.raw_size(), length as u64);
            assert_eq!(frames.sizes().len(), length.div_ceil(FRAME).max(1));
            assert!(written(&world, 2, &carried) == bytes, "{length}");
            let content = carried.content();
            assert_eq!(content.len() as u64, padded(carried.manifest.body().content_size).unwrap());
            // What is in the parts, padding and all, is what stock tools decompress.
            let mut whole = vec![0; length + 1];
            let size = zstd_safe::decompress(&mut whole[..], &content).unwrap();
            assert!(whole[..size] == bytes[..], "{length}");
        }
    }
}

#[test]
fn a_tree_with_a_bit_of_everything() {
    let (world, home) = (World::new(), tempfile::tempdir().unwrap());
    let source = home.path().join("source");
    std::fs::create_dir(&source).unwrap();
    sample_tree(&source);
    // Over frames and over parts; and behind it, files that are empty.
    std::fs::write(source.join("folder/noise"), noise(2, 2 * PART + 70_001)).unwrap();
    std::fs::write(source.join("folder/text"), text(3 * FRAME)).unwrap();
    std::fs::write(source.join("zz"), "").unwrap();
    for count in [1, 3] {
        let carried = seal_on(&world, count, tree(&source)).unwrap();
        assert!(carried.parts.len() > 2);
        let into = home.path().join(format!("in {count}"));
        open_on(&world, count, &carried, Staging::new(&into).unwrap()).unwrap().publish().unwrap();
        assert_eq!(snapshot(&into), snapshot(&source));
        // A receiver that takes them one after the other.
        let into = home.path().join(format!("one by one {count}"));
        world.receive_into(&carried, &into).unwrap();
        assert_eq!(snapshot(&into), snapshot(&source));
    }
    // Not compressed it is longer, and says nothing of frames.
    let plain = world.seal(tree(&source));
    let packed = seal_on(&world, 1, tree(&source)).unwrap();
    assert!(packed.manifest.body().content_size + 10_000_000 < plain.manifest.body().content_size);
    assert!(world.open(&plain).unwrap().index().compression().is_none() && !plain.index_text().contains("frame"));
}

#[test]
fn the_same_content_gives_the_same_frames() {
    let (world, home) = (World::new(), tempfile::tempdir().unwrap());
    std::fs::write(home.path().join("a"), [text(3 * FRAME), noise(3, 2 * FRAME), text(99)].concat()).unwrap();
    std::fs::write(home.path().join("b"), text(2 * FRAME)).unwrap();
    let one = seal_on(&world, 1, tree(home.path())).unwrap();
    let lines = |carried: &Carried| {
        let text = carried.index_text();
        text.lines().filter(|l| !l.contains("sealed")).map(str::to_owned).collect::<Vec<_>>()
    };
    for count in [1, 2, 5] {
        let again = seal_on(&world, count, tree(home.path())).unwrap();
        assert!(again.content() == one.content(), "{count} threads");
        assert_eq!(lines(&again), lines(&one));
        // A file key is drawn for each part, each time.
        assert!(again.parts.iter().zip(&one.parts).all(|(a, b)| a[..200] != b[..200]));
    }
}

#[test]
fn what_does_not_compress_hardly_grows() {
    let world = World::new();
    let bytes = noise(4, 3 * FRAME + 5);
    let carried = seal_on(&world, 1, stream(&bytes)).unwrap();
    let grown = carried.manifest.body().content_size - bytes.len() as u64;
    // Three bytes for each block of 128 KiB, and the headers.
    assert!(grown < 500, "{grown}");
}

#[test]
fn what_a_part_covers_adds_up() {
    let bytes = [noise(5, 3 * FRAME), text(9 * FRAME), noise(6, FRAME / 2)].concat();
    let sealer = Sealer::compressing(stream(&bytes), ZSTD).unwrap();
    let (mut part, mut covered) = (SealedPart::default(), 0);
    while sealer.next_part(&mut part).unwrap() {
        covered += part.covers;
    }
    assert_eq!(covered, bytes.len() as u64);
    assert_eq!(sealer.progress(), Progress { bytes: bytes.len() as u64, entries: 1 });
}

// Of a bundle of many parts only those come that hold the frames of the file.
#[test]
fn one_file_from_its_own_parts() {
    let (world, home) = (World::new(), tempfile::tempdir().unwrap());
    let files = [
        ("a", noise(7, 3 * PART)),
        ("b", text(FRAME + 3)),
        ("c", Vec::new()),
        ("d", noise(8, PART + 1)),
        ("e", b"short".to_vec()),
        ("f", [text(40 << 20), noise(9, 100)].concat()),
    ];
    for (name, bytes) in &files {
        std::fs::write(home.path().join(name), bytes).unwrap();
    }
    let carried = seal_on(&world, 2, tree(home.path())).unwrap();
    assert!(carried.parts.len() >= 5);
    let opening = world.open(&carried).unwrap();
    let mut fetched_for_small = 0;
    for (name, bytes) in &files {
        let file = opening.file(name).unwrap();
        let mut fetched = Vec::new();
        let out = file.extract(Vec::new(), |number, sealed| {
            fetched.push(number);
            sealed.clone_from(&carried.parts[number as usize]);
            Ok::<_, OpenError>(())
        });
        assert!(out.unwrap() == *bytes, "{name}");
        assert_eq!(fetched, file.parts().collect::<Vec<_>>());
        assert!(fetched.len() < carried.parts.len(), "{name}");
        assert_eq!(fetched.is_empty(), bytes.is_empty());
        if bytes.len() < 10 {
            fetched_for_small += fetched.len();
        }
    }
    assert!(fetched_for_small <= 2);
    // A damaged part gives nothing of it.
    let file = opening.file("d").unwrap();
    let mut out = Vec::new();
    let error = file.extract(&mut out, |number, sealed| {
        sealed.clone_from(&carried.parts[number as usize]);
        sealed[5000] ^= 1;
        Ok::<_, OpenError>(())
    });
    assert!(matches!(error.unwrap_err(), OpenError::PartDigest { .. }));
    assert!(out.is_empty());
}

// Frames lie across parts, so parts may come early, but not without bound.
#[test]
fn parts_in_another_order() {
    let world = World::new();
    let bytes = noise(10, 11 * PART + 5);
    let carried = seal_on(&world, 2, stream(&bytes)).unwrap();
    let home = tempfile::tempdir().unwrap();
    let receiver = world.open(&carried).unwrap().receive(Staging::new(&home.path().join("in")).unwrap()).unwrap();
    assert!(receiver.has_room_for(8) && !receiver.has_room_for(9));
    let error = receiver.accept(9, &carried.parts[9]).unwrap_err();
    assert!(matches!(error, OpenError::PartOrder { found: 9, wanted: 0 }), "{error}");
    for number in [3, 1, 2, 0, 11, 8, 9, 10, 7, 6, 5, 4] {
        receiver.accept(number, &carried.parts[number as usize]).unwrap();
    }
    receiver.finish().unwrap().publish().unwrap();
    assert!(std::fs::read(home.path().join("in/stream")).unwrap() == bytes);
    // A writer gets nothing before the first, and then all in order.
    let mut out = Vec::new();
    let receiver = world.open(&carried).unwrap().receive(Released::new(&mut out)).unwrap();
    for number in [2, 1, 3, 4, 0, 5, 6, 7, 8, 10, 9, 11] {
        receiver.accept(number, &carried.parts[number as usize]).unwrap();
    }
    receiver.finish().unwrap();
    assert!(out == bytes);
    // One that is missing is told.
    let receiver = world.open(&carried).unwrap().receive(Released::new(Vec::new())).unwrap();
    for number in [0, 2] {
        receiver.accept(number, &carried.parts[number as usize]).unwrap();
    }
    assert!(matches!(receiver.finish().err(), Some(OpenError::PartsMissing { .. })));
}

// What compresses well comes out of few parts: all threads are at its frames, and a writer still gets them in order.
#[test]
fn many_frames_out_of_one_part() {
    let world = World::new();
    let bytes = text(60 * FRAME + 9);
    let carried = seal_on(&world, 3, stream(&bytes)).unwrap();
    assert_eq!(carried.parts.len(), 1);
    for count in [1, 4] {
        assert!(written(&world, count, &carried) == bytes);
    }
}

#[test]
fn an_error_or_a_panic_ends_all_threads() {
    let breaks = |panics| {
        let reader = Box::new(Breaks { left: 5 * FRAME + 10, panics });
        Content::Stream { name: "s".parse().unwrap(), mtime: 0, reader }
    };
    let world = World::new();
    for count in [1, 2, 5] {
        let error = seal_on(&world, count, breaks(false)).err().unwrap();
        assert!(matches!(&error, SealError::Stream(e) if e.kind() == std::io::ErrorKind::TimedOut), "{error}");
        let panic = std::panic::catch_unwind(|| seal_on(&World::new(), count, breaks(true)).map(|_| ()));
        assert!(panic.is_err());
    }
    // Not sealed to the end, there is no bundle.
    let sealer = Sealer::compressing(stream(&noise(1, 3 * PART)), ZSTD).unwrap();
    assert!(sealer.next_part(&mut SealedPart::default()).unwrap());
    assert!(matches!(sealer.finish(), Err(SealError::Unfinished)));
}

// attacks.md 15
#[test]
fn attack_15_a_source_that_changes() {
    let home = tempfile::tempdir().unwrap();
    for round in 0..3 {
        let source = home.path().join(round.to_string());
        std::fs::create_dir_all(source.join("sub")).unwrap();
        std::fs::write(source.join("sub/a"), text(3 * FRAME)).unwrap();
        std::fs::write(source.join("sub/b"), noise(1, 3 * FRAME)).unwrap();
        let content = tree(&source);
        match round {
            0 => set_mtime(&source.join("sub/a"), 5),
            1 => std::fs::write(source.join("sub/b"), "shorter than it was").unwrap(),
            _ => set_mtime(&source.join("sub"), 5),
        }
        let error = seal_on(&World::new(), 3, content).err().unwrap();
        assert!(matches!(error, SealError::Source(SourceError::Changed { .. })), "{error}");
    }
}

/// Very many, and counted.
struct Zeros(Arc<AtomicU64>);

const MANY: u64 = 8 << 30;

impl Read for Zeros {
    fn read(&mut self, out: &mut [u8]) -> std::io::Result<usize> {
        out.fill(0);
        let before = self.0.fetch_add(out.len() as u64, Ordering::Relaxed);
        Ok(if before < MANY { out.len() } else { 0 })
    }
}

// Whoever takes the parts and cannot, or panics, ends the making of more: input that compresses to next to nothing fills no
// other part for a long time.
#[test]
fn a_failed_delivery_ends_the_reading() {
    for panics in [false, true] {
        let read = Arc::new(AtomicU64::new(0));
        let input = std::io::Cursor::new(noise(9, PART + 1000)).chain(Zeros(read.clone()));
        let content = Content::Stream { name: "stream".parse().unwrap(), mtime: 0, reader: Box::new(input) };
        let sealer = Sealer::compressing(content, ZSTD).unwrap();
        let failed = catch_unwind(AssertUnwindSafe(|| {
            sealer.seal_all(threads(3), |_| {
                assert!(!panics, "delivery");
                Err::<(), _>(SealError::Unfinished)
            })
        }));
        assert_eq!(failed.is_err(), panics);
        assert!(failed.is_err() || failed.unwrap().is_err());
        assert!(read.load(Ordering::Relaxed) < MANY);
    }
}

#[test]
fn a_secret_into_memory() {
    let world = World::new();
    for length in [0, 1, MAX_IN_MEMORY as usize] {
        let carried = seal_on(&world, 1, stream(&noise(3, length))).unwrap();
        let out = open_on(&world, 1, &carried, InMemory::new()).unwrap();
        assert!(*out == noise(3, length));
    }
    // More than memory takes is refused by what is signed, before anything comes.
    let carried = seal_on(&world, 1, stream(&text(MAX_IN_MEMORY as usize + 1))).unwrap();
    let error = world.open(&carried).unwrap().receive(InMemory::new()).err().unwrap();
    assert!(matches!(error, OpenError::Sink(SinkError::TooLarge { .. })));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 10, failure_persistence: None, ..ProptestConfig::default() })]

    // Any content, any threads on either side; any flipped bit or cut in any part is refused.
    #[test]
    fn any_content_and_any_threads(
        pieces in proptest::collection::vec((any::<bool>(), 0usize..7 << 20), 0..5),
        sealers in 1usize..5,
        openers in 1usize..5,
        damage: (u64, u64, bool),
    ) {
        let (world, home) = (World::new(), tempfile::tempdir().unwrap());
        let source = home.path().join("source");
        std::fs::create_dir(&source).unwrap();
        let mut all = Vec::new();
        for (number, (compresses, len)) in pieces.iter().enumerate() {
            let bytes = if *compresses { text(*len) } else { noise(number as u64, *len) };
            std::fs::write(source.join(number.to_string()), &bytes).unwrap();
            all.extend_from_slice(&bytes);
        }
        let carried = seal_on(&world, sealers, stream(&all)).unwrap();
        prop_assert!(written(&world, openers, &carried) == all);

        let mut carried = seal_on(&world, sealers, tree(&source)).unwrap();
        let (place, into) = (home.path().join("place"), home.path().join("place/in"));
        std::fs::create_dir(&place).unwrap();
        open_on(&world, openers, &carried, Staging::new(&into).unwrap()).unwrap().publish().unwrap();
        prop_assert!(snapshot(&source) == snapshot(&into));
        std::fs::remove_dir_all(&into).unwrap();

        let (part, at, cut) = damage;
        let part = part as usize % carried.parts.len();
        let at = at as usize % carried.parts[part].len();
        if cut {
            carried.parts[part].truncate(at);
        } else {
            carried.parts[part][at] ^= 1 << (at % 8);
        }
        let error = open_on(&world, openers, &carried, Staging::new(&into).unwrap()).err().unwrap();
        prop_assert!(matches!(error, OpenError::PartDigest { .. } | OpenError::PartSize { .. }), "{}", error);
        prop_assert_eq!(std::fs::read_dir(&place).unwrap().count(), 0);
    }
}
