//! Sealing and opening on several threads: the same content as on one, whatever the order in which parts come.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

mod bundle_support;

use std::io::Cursor;
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;

use bundle_support::*;
use pouch_core::bundle::*;
use proptest::prelude::*;

/// Seals on so many threads; the parts by number.
fn seal_on(threads: usize, content: Content) -> Result<(Vec<Vec<u8>>, SealedBundle), SealError> {
    let sealer = Sealer::new(content)?;
    let parts = Mutex::new(Vec::new());
    let errors: Vec<SealError> = thread::scope(|scope| {
        let work = || {
            let mut part = SealedPart::default();
            while sealer.next_part(&mut part)? {
                parts.lock().unwrap().push((part.number, part.sealed.clone()));
            }
            Ok(())
        };
        let threads: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
        threads.into_iter().filter_map(|t| t.join().unwrap().err()).collect()
    });
    // One thread has the reason, the others that there is one.
    let (real, echo): (Vec<_>, Vec<_>) = errors.into_iter().partition(|e| !matches!(e, SealError::Unfinished));
    assert!(real.len() <= 1 && (echo.is_empty() || real.len() == 1), "{real:?} {echo:?}");
    if let Some(error) = real.into_iter().next() {
        assert!(matches!(sealer.next_part(&mut SealedPart::default()), Err(SealError::Unfinished)));
        assert!(matches!(sealer.finish(), Err(SealError::Unfinished)));
        return Err(error);
    }
    let mut parts = parts.into_inner().unwrap();
    parts.sort();
    assert!(parts.iter().enumerate().all(|(at, (number, _))| at == *number as usize));
    Ok((parts.into_iter().map(|(_, sealed)| sealed).collect(), sealer.finish()?))
}

/// Opens on so many threads, the parts in this order.
fn open_on<S: Sink>(
    threads: usize,
    opening: Opening,
    carried: &Carried,
    order: &[u32],
    sink: S,
) -> Result<S::Done, OpenError> {
    let receiver = opening.receive(sink)?;
    let next = AtomicU32::new(0);
    let errors: Vec<OpenError> = thread::scope(|scope| {
        let work = || {
            while let Some(number) = order.get(next.fetch_add(1, Ordering::Relaxed) as usize) {
                receiver.accept(*number, &carried.parts[*number as usize])?;
            }
            Ok(())
        };
        let threads: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
        threads.into_iter().filter_map(|t| t.join().unwrap().err()).collect()
    });
    match errors.into_iter().find(|error| !matches!(error, OpenError::Stopped)) {
        Some(error) => Err(error),
        None => receiver.finish(),
    }
}

/// Many small files, some in folders, and two that lie in several parts.
fn plant_mixed(root: &Path, large: &[usize]) {
    for folder in 0..12 {
        let folder = root.join(format!("small/{folder:02}"));
        std::fs::create_dir_all(&folder).unwrap();
        for file in 0..40usize {
            let size = file * 97 % 5000;
            std::fs::write(folder.join(format!("{file:03}")), vec![file as u8; size]).unwrap();
        }
    }
    for (number, size) in large.iter().enumerate() {
        let bytes: Vec<u8> = (0..*size).map(|i| (i * 31 % 251) as u8 ^ number as u8).collect();
        std::fs::write(root.join(format!("{number} large")), bytes).unwrap();
    }
}

#[test]
fn whole_bundles_on_several_threads() {
    let (world, home) = (World::new(), tempfile::tempdir().unwrap());
    let bytes: Vec<u8> = (0..12 * PART + 5).map(|i| (i * 11 % 251) as u8).collect();
    for count in [1, 2, 6] {
        let reader = Box::new(Cursor::new(bytes.clone()));
        let sealer = Sealer::new(Content::Stream { name: "s".parse().unwrap(), mtime: 1, reader }).unwrap();
        let mut parts = Vec::new();
        let deliver = |part: &mut SealedPart| {
            assert_eq!(part.number as usize, parts.len());
            parts.push(std::mem::take(&mut part.sealed));
            Ok::<_, SealError>(())
        };
        sealer.seal_all(threads(count), deliver).unwrap();
        let carried = world.carried(parts, sealer.finish().unwrap());
        let fetch = |number: u32, out: &mut Vec<u8>| {
            out.clone_from(&carried.parts[number as usize]);
            Ok::<_, OpenError>(true)
        };
        let receiver = world.open(&carried).unwrap().receive(Released::new(Vec::new())).unwrap();
        receiver.accept_all(threads(count), fetch).unwrap();
        assert!(receiver.finish().unwrap() == bytes);

        // Given up half way: no error, and no bundle.
        let staging = Staging::new(&home.path().join("in")).unwrap();
        let receiver = world.open(&carried).unwrap().receive(staging).unwrap();
        let some = |number: u32, out: &mut Vec<u8>| if number < 4 { fetch(number, out) } else { Ok(false) };
        receiver.accept_all(threads(count), some).unwrap();
        assert_eq!(receiver.due(), 4);
        assert!(matches!(receiver.finish().err(), Some(OpenError::PartsMissing { missing: 9 })));

        // The error of one part is the error of all; it comes out once, and the folder is gone.
        let staging = Staging::new(&home.path().join("in")).unwrap();
        let receiver = world.open(&carried).unwrap().receive(staging).unwrap();
        let damaged = |number: u32, out: &mut Vec<u8>| {
            fetch(number, out)?;
            if number == 5 {
                out[777] ^= 1;
            }
            Ok::<_, OpenError>(true)
        };
        let error = receiver.accept_all(threads(count), damaged).unwrap_err();
        assert!(matches!(error, OpenError::PartDigest { number: 5 }), "{error}");
        drop(receiver);
        assert_eq!(std::fs::read_dir(home.path()).unwrap().count(), 0);
    }
}

#[test]
fn errors_of_either_end_stop_all_threads() {
    for count in [1, 2, 6] {
        let stream = |left| {
            let reader = Box::new(Breaks { left, panics: false });
            Sealer::new(Content::Stream { name: "s".parse().unwrap(), mtime: 0, reader }).unwrap()
        };
        let mut delivered = 0;
        let sealer = stream(3 * PART + 10);
        let all = sealer.seal_all(threads(count), |_| {
            delivered += 1;
            Ok::<_, SealError>(())
        });
        assert!(matches!(all, Err(SealError::Stream(_))) && delivered <= 3, "{all:?}");
        let again = sealer.seal_all(threads(count), |_| Ok::<_, SealError>(()));
        assert!(matches!(again, Err(SealError::Unfinished)), "{again:?}");
        // What takes the parts fails: nothing is delivered behind it.
        let (sealer, mut delivered) = (stream(100 * PART), 0);
        let all = sealer.seal_all(threads(count), |_| {
            delivered += 1;
            if delivered == 2 { Err(SealError::Stream(std::io::ErrorKind::StorageFull.into())) } else { Ok(()) }
        });
        assert!(matches!(&all, Err(SealError::Stream(e)) if e.kind() == std::io::ErrorKind::StorageFull), "{all:?}");
        assert_eq!(delivered, 2);
        assert!(matches!(sealer.finish(), Err(SealError::Unfinished)));
    }
}

#[test]
fn any_number_of_threads_seals_the_same_content() {
    let (world, home) = (World::new(), tempfile::tempdir().unwrap());
    let source = home.path().join("source");
    plant_mixed(&source, &[3 * PART + 777, PART, 1]);
    let one = world.seal_paths(std::slice::from_ref(&source));
    let (content, index) = (one.content(), one.index_text());
    let entries = |index: &str| index.lines().filter(|l| l.contains("path")).map(str::to_owned).collect::<Vec<_>>();
    for threads in [1, 2, 3, 8] {
        let (parts, sealed) = seal_on(threads, Content::Tree(scan(&source))).unwrap();
        let several = world.carried(parts, sealed);
        assert!(several.content() == content, "{threads} threads");
        assert_eq!(entries(&several.index_text()), entries(&index));
        // A file key is drawn for each part, each time.
        assert!(several.parts.iter().zip(&one.parts).all(|(a, b)| a[..200] != b[..200]));
    }
}

#[test]
fn a_stream_is_read_in_order_by_any_number_of_threads() {
    let world = World::new();
    for length in [0, 1, PART - 1, PART, PART + 1, 3 * PART + 5] {
        let bytes: Vec<u8> = (0..length).map(|i| (i * 7 % 253) as u8).collect();
        for threads in [1, 4] {
            let reader = Box::new(Cursor::new(bytes.clone()));
            let content = Content::Stream { name: "s".parse().unwrap(), mtime: 1, reader };
            let (parts, sealed) = seal_on(threads, content).unwrap();
            let carried = world.carried(parts, sealed);
            assert!(world.receive(&carried, Released::new(Vec::new())).unwrap() == bytes, "{length} on {threads}");
        }
    }
}

#[test]
fn an_error_or_a_panic_ends_all_threads_once() {
    let stream = |panics| Content::Stream {
        name: "s".parse().unwrap(),
        mtime: 0,
        reader: Box::new(Breaks { left: 2 * PART + 10, panics }),
    };
    for threads in [1, 2, 5] {
        let error = seal_on(threads, stream(false)).err().unwrap();
        assert!(matches!(&error, SealError::Stream(e) if e.kind() == std::io::ErrorKind::TimedOut), "{error}");
        let sealer = Sealer::new(stream(true)).unwrap();
        let outcomes: Vec<_> = thread::scope(|scope| {
            let work = || {
                let mut part = SealedPart::default();
                while sealer.next_part(&mut part)? {}
                Ok::<_, SealError>(())
            };
            let threads: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
            threads.into_iter().map(|t| t.join()).collect()
        });
        assert_eq!(outcomes.iter().filter(|outcome| outcome.is_err()).count(), 1, "one panic");
        assert!(outcomes.into_iter().flatten().all(|outcome| matches!(outcome, Err(SealError::Unfinished))));
        assert!(matches!(sealer.finish(), Err(SealError::Unfinished)));
    }
}

// attacks.md 15: whichever thread reads it, a source that changed is an error, and the only one.
#[test]
fn attack_15_a_change_is_met_by_one_of_several_threads() {
    let home = tempfile::tempdir().unwrap();
    for round in 0..3 {
        let source = home.path().join(round.to_string());
        plant_mixed(&source, &[4 * PART]);
        let listed = scan(&source);
        match round {
            0 => set_mtime(&source.join("0 large"), 5),
            1 => std::fs::write(source.join("small/03/007"), "longer than it was").unwrap(),
            _ => set_mtime(&source.join("small/05"), 5),
        }
        let error = seal_on(4, Content::Tree(listed)).err().unwrap();
        assert!(matches!(error, SealError::Source(SourceError::Changed { .. })), "{error}");
    }
}

#[test]
fn a_writer_gets_its_bytes_in_order_whatever_the_order_of_parts() {
    let world = World::new();
    let bytes: Vec<u8> = (0..6 * PART + 99).map(|i| (i * 13 % 251) as u8).collect();
    let carried = world.seal_stream(&bytes);
    let order: Vec<u32> = (0..carried.parts.len() as u32).rev().collect();
    let out = open_on(1, world.open(&carried).unwrap(), &carried, &order, Released::new(Vec::new())).unwrap();
    assert!(out == bytes);
    let order: Vec<u32> = (0..carried.parts.len() as u32).collect();
    let out = open_on(4, world.open(&carried).unwrap(), &carried, &order, Released::new(Vec::new())).unwrap();
    assert!(out == bytes);
}

// attacks.md 64: parts that come early are kept, but not without bound, and never written before those in front.
#[test]
fn attack_64_early_parts_are_bounded_and_wait() {
    let world = World::new();
    let carried = world.seal_stream(&vec![9; 11 * PART]);
    let mut out = Vec::new();
    let receiver = world.open(&carried).unwrap().receive(Released::new(&mut out)).unwrap();
    let ahead = <Released<&mut Vec<u8>> as Sink>::AHEAD;
    assert!(receiver.has_room_for(ahead) && !receiver.has_room_for(ahead + 1));
    let too_far = receiver.accept(ahead + 1, &carried.parts[ahead as usize + 1]).unwrap_err();
    assert!(matches!(too_far, OpenError::PartOrder { wanted: 0, .. }), "{too_far}");
    for number in 1..=ahead {
        receiver.accept(number, &carried.parts[number as usize]).unwrap();
    }
    assert_eq!(receiver.due(), 0);
    drop(receiver);
    assert!(out.is_empty());
}

// attacks.md 18: a part is taken once, also when two threads bring it at the same time.
#[test]
fn attack_18_a_part_is_taken_once() {
    let (world, home) = (World::new(), tempfile::tempdir().unwrap());
    let carried = world.seal_stream(&vec![1; 2 * PART]);
    let staging = Staging::new(&home.path().join("in")).unwrap();
    let receiver = world.open(&carried).unwrap().receive(staging).unwrap();
    let outcomes: Vec<_> = thread::scope(|scope| {
        let threads: Vec<_> = (0..8)
            .map(|n| {
                scope.spawn({
                    let (receiver, carried) = (&receiver, &carried);
                    move || receiver.accept(n % 2, &carried.parts[n as usize % 2])
                })
            })
            .collect();
        threads.into_iter().map(|t| t.join().unwrap()).collect()
    });
    assert_eq!(outcomes.iter().filter(|outcome| outcome.is_ok()).count(), 2);
    assert!(outcomes.into_iter().filter_map(Result::err).all(|e| matches!(e, OpenError::PartOrder { .. })));
    receiver.finish().unwrap().publish().unwrap();
    assert_eq!(std::fs::read(home.path().join("in/stream")).unwrap(), vec![1; 2 * PART]);
}

// attacks.md 13, 18: a file over several parts whose digest is another, found by whichever thread brings its last piece.
#[test]
fn attack_18_a_wrong_digest_over_several_parts() {
    let world = World::new();
    let bytes = vec![3; 3 * PART + 1];
    let wrong = file_line("s", &bytes).replace(&blake3_of(&bytes), &blake3_of(b""));
    let carried = world.forge(ContentKind::Stream, &bytes, &[wrong], |t| t);
    for (threads, order) in [(1, [0, 1, 2, 3]), (1, [3, 1, 0, 2]), (4, [0, 1, 2, 3])] {
        let home = tempfile::tempdir().unwrap();
        let staging = Staging::new(&home.path().join("in")).unwrap();
        let error = open_on(threads, world.open(&carried).unwrap(), &carried, &order, staging).err().unwrap();
        assert!(matches!(error, OpenError::Content(ContentError::Digest { .. })), "{error}");
        assert_eq!(std::fs::read_dir(home.path()).unwrap().count(), 0);
    }
}

#[test]
fn a_long_index_is_written_in_order() {
    let entry = |number: u64| Entry {
        path: format!("{number:06}").parse().unwrap(),
        mtime: number as i64,
        kind: EntryKind::File {
            size: 0,
            executable: number.is_multiple_of(3),
            blake3: blake3_of(b"").parse().unwrap(),
        },
    };
    for count in [0, 1, 4095, 4096, 4097, 9001] {
        let entries: Vec<Entry> = (0..count).map(entry).collect();
        let layout = Layout::of(count * 512 + 1024).unwrap();
        let parts = (0..layout.parts()).map(|number| {
            let size = layout.part_size(number).unwrap();
            PartSpec { size, sealed_size: sealed_size(size), sealed_blake3: blake3_of(b"x").parse().unwrap() }
        });
        let index = Index::new(ContentKind::Tar, entries, parts.collect()).unwrap();
        let text = index.encode().unwrap();
        assert_eq!(Index::decode(&text).unwrap(), index);
        let lines = String::from_utf8(text).unwrap();
        let numbers: Vec<_> = lines.lines().filter_map(|line| line.strip_prefix("{\"path\":\"")?.get(..6)).collect();
        assert_eq!(numbers, (0..count).map(|number| format!("{number:06}")).collect::<Vec<_>>());
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 8, failure_persistence: None, ..ProptestConfig::default() })]

    // Any thread count and any order of parts give the same tree; any flipped bit or cut in any part is refused.
    #[test]
    fn any_threads_and_any_order_give_the_same_tree(
        sizes in proptest::collection::vec(0usize..PART + PART / 2, 1..3),
        sealers in 1usize..5,
        openers in 1usize..5,
        shuffle in proptest::collection::vec(any::<u64>(), 12),
        damage: (u64, u64, bool),
    ) {
        let (world, home) = (World::new(), tempfile::tempdir().unwrap());
        let source = home.path().join("source");
        plant_mixed(&source, &sizes);
        let (parts, sealed) = seal_on(sealers, Content::Tree(scan(&source))).unwrap();
        let mut carried = world.carried(parts, sealed);
        let mut order: Vec<u32> = (0..carried.parts.len() as u32).collect();
        order.sort_by_key(|number| shuffle[*number as usize % shuffle.len()]);
        let (place, into) = (home.path().join("place"), home.path().join("place/in"));
        std::fs::create_dir(&place).unwrap();
        let staging = Staging::new(&into).unwrap();
        open_on(openers, world.open(&carried).unwrap(), &carried, &order, staging).unwrap().publish().unwrap();
        prop_assert_eq!(snapshot(&source), snapshot(&into));
        std::fs::remove_dir_all(&into).unwrap();

        let (part, at, cut) = damage;
        let part = part as usize % carried.parts.len();
        let at = at as usize % carried.parts[part].len();
        if cut {
            carried.parts[part].truncate(at);
        } else {
            carried.parts[part][at] ^= 1 << (at % 8);
        }
        let staging = Staging::new(&into).unwrap();
        let error = open_on(openers, world.open(&carried).unwrap(), &carried, &order, staging).err().unwrap();
        prop_assert!(matches!(error, OpenError::PartDigest { .. } | OpenError::PartSize { .. }), "{}", error);
        prop_assert_eq!(std::fs::read_dir(&place).unwrap().count(), 0);
    }
}

/// The last entries end where a part does, or just around it, and are empty: each is made once.
#[test]
fn empty_files_at_the_end_of_a_part_are_made_once() {
    let (world, home) = (World::new(), tempfile::tempdir().unwrap());
    for (number, blocks) in (0..8).chain([16, 17]).enumerate() {
        for empty in 0..3 {
            let source = home.path().join(format!("{number}-{empty}"));
            std::fs::create_dir(&source).unwrap();
            std::fs::write(source.join("a"), vec![7; PART - blocks * 512]).unwrap();
            for name in ["b", "c"].iter().take(empty) {
                std::fs::write(source.join(name), "").unwrap();
            }
            let (parts, sealed) = seal_on(2, Content::Tree(scan(&source))).unwrap();
            let carried = world.carried(parts, sealed);
            let order: Vec<u32> = (0..carried.parts.len() as u32).collect();
            let opening = world.open(&carried).unwrap();
            let staging = Staging::new(&home.path().join(format!("in {number}-{empty}"))).unwrap();
            let published = open_on(2, opening, &carried, &order, staging).unwrap().publish().unwrap();
            assert!(snapshot(&published) == snapshot(&source), "{blocks} blocks, {empty} empty");
        }
    }
}
