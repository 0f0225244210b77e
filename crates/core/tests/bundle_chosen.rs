//! Some entries of a bundle: those and no others arrive, out of no more parts than hold them.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

mod bundle_support;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use bundle_support::compressed::{noise, seal_on, text, tree};
use bundle_support::*;
use pouch_core::bundle::*;

/// Paths with their content; folders end in `/`.
type Tree = BTreeMap<String, Vec<u8>>;

fn sample(into: &Path) -> Tree {
    let mut tree = Tree::new();
    let mut put = |path: &str, bytes: Vec<u8>| drop(tree.insert(path.to_owned(), bytes));
    put("a/", vec![]);
    put("a/large", noise(1, PART + 700_000));
    put("a/small", b"small".to_vec());
    put("a/sub/", vec![]);
    put("a/sub/empty", vec![]);
    put("a/sub/text", text(3 << 20));
    put("ab", b"beside a, not in it".to_vec());
    put("nothing/", vec![]);
    put("z", noise(2, 2 * PART));
    for (path, bytes) in &tree {
        match path.strip_suffix('/') {
            Some(folder) => fs::create_dir_all(into.join(folder)).unwrap(),
            None => fs::write(into.join(path), bytes).unwrap(),
        }
    }
    tree
}

fn read(folder: &Path, below: &str, into: &mut Tree) {
    for entry in fs::read_dir(folder).unwrap() {
        let entry = entry.unwrap();
        let path = format!("{below}{}", entry.file_name().to_str().unwrap());
        if entry.path().is_dir() {
            let folder = format!("{path}/");
            read(&entry.path(), &folder, into);
            into.insert(folder, vec![]);
        } else {
            into.insert(path, fs::read(entry.path()).unwrap());
        }
    }
}

/// Receives these paths on so many threads; what arrived, and which parts were fetched.
fn take(world: &World, carried: &Carried, paths: &[&str], count: usize) -> (Tree, Vec<u32>) {
    let home = tempfile::tempdir().unwrap();
    let opening = world.open(carried).unwrap();
    let chosen = Chosen::at(opening.index(), paths).unwrap();
    let receiver = opening.receive_chosen(chosen, Staging::new(&home.path().join("in")).unwrap()).unwrap();
    let (missing, mut fetched) = (receiver.missing(), Vec::new());
    receiver
        .accept_all(threads(count), |number, out: &mut Vec<u8>| {
            fetched.push(number);
            out.clone_from(&carried.parts[number as usize]);
            Ok::<_, OpenError>(true)
        })
        .unwrap();
    assert_eq!(missing, fetched);
    let into = receiver.finish().unwrap().publish().unwrap();
    assert_eq!(fs::read_dir(home.path()).unwrap().count(), 1);
    let mut tree = Tree::new();
    read(&into, "", &mut tree);
    (tree, fetched)
}

/// What `paths` mean, by hand.
fn wanted(all: &Tree, paths: &[&str]) -> Tree {
    let fits = |path: &str| {
        paths.iter().any(|wanted| {
            let beneath = path.strip_prefix(wanted).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
            let around = path.ends_with('/') && wanted.starts_with(path);
            beneath || around
        })
    };
    all.iter().filter(|(path, _)| fits(path)).map(|(path, bytes)| (path.clone(), bytes.clone())).collect()
}

#[test]
fn what_is_chosen_arrives_and_nothing_else() {
    let source = tempfile::tempdir().unwrap();
    let all = sample(source.path());
    let world = World::new();
    let plain = world.seal_paths(&[source.path().to_owned()]);
    let packed = seal_on(&world, 2, tree(source.path())).unwrap();
    assert_eq!(plain.parts.len(), 4);
    let cases: [&[&str]; 10] = [
        &["a/small"],
        &["a/large"],
        &["a/sub/empty"],
        &["a/sub/text", "ab"],
        &["a"],
        &["nothing"],
        &["z"],
        &["z", "a/large"],
        &["a/sub", "a/sub/empty"],
        &["a", "ab", "nothing", "z"],
    ];
    for paths in cases {
        for count in [1, 4] {
            let (arrived, fetched) = take(&world, &plain, paths, count);
            assert!(arrived == wanted(&all, paths), "{paths:?}: {:?}", arrived.keys());
            let again = take(&world, &packed, paths, count).0;
            assert!(again == arrived, "{paths:?}: {:?}", again.keys());
            // No part that holds none of it.
            let opening = world.open(&plain).unwrap();
            let holding: BTreeSet<u32> = arrived
                .iter()
                .filter(|(path, bytes)| !path.ends_with('/') && !bytes.is_empty())
                .flat_map(|(path, _)| opening.file(path).unwrap().parts())
                .collect();
            let empty = arrived.iter().filter(|(path, bytes)| !path.ends_with('/') && bytes.is_empty()).count();
            assert!(fetched.len() <= holding.len() + empty, "{paths:?}: {fetched:?}");
            assert!(holding.iter().all(|part| fetched.contains(part)), "{paths:?}: {fetched:?}");
        }
    }
    assert_eq!(take(&world, &plain, &["nothing"], 1).1, [0; 0]);
    assert_eq!(take(&world, &plain, &["a/small"], 1).1, [1]);
}

#[test]
fn paths_are_whole_and_their_slashes_do_not_matter() {
    let source = tempfile::tempdir().unwrap();
    sample(source.path());
    let world = World::new();
    let index = world.open(&world.seal_paths(&[source.path().to_owned()])).unwrap();
    let index = index.index();
    assert_eq!(Chosen::at(index, &["a/sub"]), Chosen::at(index, &["./a/sub/"]));
    for path in ["", "/", ".", "..", "a/su", "A", "a//small", "/a", "a/small/x", "b"] {
        assert_eq!(Chosen::at(index, &["a", path]).unwrap_err(), NoEntry { path: path.into() });
    }
    // Every entry is not the whole: padding is no entry.
    assert!(!Chosen::at(index, &["a", "ab", "nothing", "z"]).unwrap().is_all() && Chosen::all().is_all());
}

#[test]
fn a_writer_and_memory_take_one_chosen_file() {
    let source = tempfile::tempdir().unwrap();
    let all = sample(source.path());
    // Small, and across the border of two parts.
    let head = all["a/large"].len() as u64 + all["a/small"].len() as u64;
    assert!(head > PART as u64);
    let world = World::new();
    for carried in [world.seal_paths(&[source.path().to_owned()]), seal_on(&world, 2, tree(source.path())).unwrap()] {
        for path in ["a/large", "a/small", "a/sub/empty", "z"] {
            let opening = world.open(&carried).unwrap();
            let chosen = Chosen::at(opening.index(), &[path]).unwrap();
            let receiver = opening.receive_chosen(chosen, Released::new(Vec::new())).unwrap();
            receiver
                .accept_all(threads(3), |number, out: &mut Vec<u8>| {
                    out.clone_from(&carried.parts[number as usize]);
                    Ok::<_, OpenError>(true)
                })
                .unwrap();
            assert!(receiver.finish().unwrap() == all[path], "{path}");
        }
        let opening = world.open(&carried).unwrap();
        let chosen = Chosen::at(opening.index(), &["a/sub"]).unwrap();
        let error = opening.receive_chosen(chosen, Released::new(Vec::new())).err().unwrap();
        assert!(matches!(error, OpenError::Sink(SinkError::NotOneFile { entries: 2 })), "{error}");
    }
}

#[test]
fn memory_takes_a_file_across_two_parts_in_any_order() {
    let source = tempfile::tempdir().unwrap();
    fs::write(source.path().join("a"), noise(3, PART - 5000)).unwrap();
    let secret = noise(4, 20_000);
    fs::write(source.path().join("b"), &secret).unwrap();
    let world = World::new();
    let carried = world.seal_paths(&[source.path().to_owned()]);
    for order in [[0, 1], [1, 0]] {
        let opening = world.open(&carried).unwrap();
        let chosen = Chosen::at(opening.index(), &["b"]).unwrap();
        let receiver = opening.receive_chosen(chosen, InMemory::new()).unwrap();
        assert_eq!(receiver.missing(), [0, 1]);
        for number in order {
            receiver.accept(number, &carried.parts[number as usize]).unwrap();
        }
        assert_eq!(*receiver.finish().unwrap(), secret);
    }
}

// What is not chosen is not taken for good: a damaged byte of it shows only in what holds what is.
#[test]
fn a_changed_byte_of_what_is_chosen_is_refused() {
    let source = tempfile::tempdir().unwrap();
    sample(source.path());
    let world = World::new();
    let mut carried = world.seal_paths(&[source.path().to_owned()]);
    let middle = carried.parts[1].len() / 2;
    carried.parts[1][middle] ^= 1;
    let home = tempfile::tempdir().unwrap();
    let opening = world.open(&carried).unwrap();
    let chosen = Chosen::at(opening.index(), &["a/small"]).unwrap();
    let receiver = opening.receive_chosen(chosen, Staging::new(&home.path().join("in")).unwrap()).unwrap();
    assert!(matches!(receiver.accept(1, &carried.parts[1]), Err(OpenError::PartDigest { number: 1 })));
    // And no part that is not needed is taken.
    assert!(matches!(receiver.accept(3, &carried.parts[3]), Err(OpenError::PartOrder { found: 3, wanted: 1 })));
    assert!(matches!(receiver.finish(), Err(OpenError::PartsMissing { missing: 1 })));
}
