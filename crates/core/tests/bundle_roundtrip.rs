//! What goes in comes out, byte for byte, here and with stock tar.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

mod bundle_support;

use std::io::Cursor;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Command;

use bundle_support::*;
use pouch_core::bundle::*;
use proptest::prelude::*;

#[test]
fn a_folder_arrives_as_it_was_and_its_content_stands_at_the_top() {
    let (world, home) = (World::new(), tempfile::tempdir().unwrap());
    let (source, into) = (home.path().join("source"), home.path().join("b7k2"));
    sample_tree(&source);
    let carried = world.seal_paths(std::slice::from_ref(&source));
    assert_eq!(world.receive_into(&carried, &into).unwrap(), into);
    assert_eq!(snapshot(&source), snapshot(&into));
    // Nothing else: no staging folder is left beside.
    assert_eq!(std::fs::read_dir(home.path()).unwrap().count(), 2);
}

#[test]
fn one_file_and_several_paths_stand_under_their_own_names() {
    let (world, home) = (World::new(), tempfile::tempdir().unwrap());
    let source = home.path().join("source");
    sample_tree(&source);
    let names = |carried: &Carried| {
        let opening = world.open(carried).unwrap();
        opening.entries().iter().map(|e| e.path.as_str().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(names(&world.seal_paths(&[source.join("a.txt")])), ["a.txt"]);
    let several = world.seal_paths(&[source.join("folder"), source.join("a.txt")]);
    assert_eq!(names(&several)[..3], ["a.txt", "folder", "folder/deeper"]);
    let into = home.path().join("in");
    world.receive_into(&several, &into).unwrap();
    assert_eq!(snapshot(&into.join("folder")), snapshot(&source.join("folder")));

    let twice = [source.join("a.txt"), source.join("folder/../a.txt")];
    assert!(matches!(Scan::new(&twice, ScanOptions::default()), Err(SourceError::SameName { .. })));
    assert!(matches!(Scan::new(&[], ScanOptions::default()), Err(SourceError::Nothing)));
}

#[test]
fn an_empty_folder_is_an_empty_bundle() {
    let (world, home) = (World::new(), tempfile::tempdir().unwrap());
    std::fs::create_dir(home.path().join("none")).unwrap();
    let carried = world.seal_paths(&[home.path().join("none")]);
    assert_eq!(world.open(&carried).unwrap().entries(), []);
    assert_eq!(carried.content(), vec![0; 4096]);
    world.receive_into(&carried, &home.path().join("in")).unwrap();
    assert_eq!(std::fs::read_dir(home.path().join("in")).unwrap().count(), 0);
}

#[test]
fn the_scan_counts_before_anything_is_sealed() {
    let home = tempfile::tempdir().unwrap();
    std::fs::write(home.path().join("a"), vec![1; 1000]).unwrap();
    std::fs::write(home.path().join("A"), vec![1; 24]).unwrap();
    let scan = Scan::new(&[home.path().to_owned()], ScanOptions::default()).unwrap();
    assert_eq!((scan.items().len(), scan.bytes()), (2, 1024));
    assert_eq!(scan.layout().content_size(), 512 + 512 + 512 + 1024 + 1024);
    assert_eq!(scan.hazards().len(), 1);
    assert_eq!(scan.layout().parts(), 1);
    let sealer = Sealer::new(Content::Tree(scan)).unwrap();
    while sealer.next_part(&mut SealedPart::default()).unwrap() {}
    assert_eq!(sealer.progress(), Progress { bytes: 1024, entries: 2 });
}

// Several parts; files begin and end anywhere in them.
#[test]
fn content_over_several_parts() {
    let (world, home) = (World::new(), tempfile::tempdir().unwrap());
    let source = home.path().join("source");
    std::fs::create_dir(&source).unwrap();
    let part = FIRST_PART_SIZE as usize;
    let noise: Vec<u8> = (0..part + 12_345).map(|i| (i * 31 % 251) as u8).collect();
    // The first file ends exactly at the border of the first part.
    std::fs::write(source.join("1"), &noise[..part - 512]).unwrap();
    std::fs::write(source.join("2"), &noise).unwrap();
    std::fs::write(source.join("3"), "end").unwrap();
    let carried = world.seal_paths(std::slice::from_ref(&source));
    assert_eq!(carried.parts.len(), 3);
    world.receive_into(&carried, &home.path().join("in")).unwrap();
    assert_eq!(snapshot(&source), snapshot(&home.path().join("in")));
}

#[test]
fn streams_of_lengths_around_every_border() {
    let world = World::new();
    let part = FIRST_PART_SIZE as usize;
    for length in [0, 1, 4095, 4096, 4097, part - 1, part, part + 1, 2 * part] {
        let bytes: Vec<u8> = (0..length).map(|i| (i % 253) as u8).collect();
        let carried = world.seal_stream(&bytes);
        let body = carried.manifest.body();
        assert_eq!(body.content, ContentKind::Stream);
        assert_eq!(body.content_size, length as u64);
        assert_eq!(body.padded_size, padded(length as u64).unwrap());
        assert_eq!(carried.parts.len() as u32, body.parts);
        assert_eq!(world.receive(&carried, Released::new(Vec::new())).unwrap(), bytes, "{length}");
        let home = tempfile::tempdir().unwrap();
        world.receive_into(&carried, &home.path().join("in")).unwrap();
        assert_eq!(std::fs::read(home.path().join("in/stream")).unwrap(), bytes);
        assert_eq!(snapshot(&home.path().join("in"))["stream"].2, 7);
    }
}

#[test]
fn memory_takes_one_short_file() {
    let world = World::new();
    let secret = world.receive(&world.seal_stream(b"hunter2"), InMemory::new()).unwrap();
    assert_eq!(secret.as_slice(), b"hunter2");
    let long = world.seal_stream(&vec![1; MAX_IN_MEMORY as usize + 1]);
    let error = world.receive(&long, InMemory::new()).unwrap_err();
    assert!(matches!(error, OpenError::Sink(SinkError::TooLarge { .. })));
    assert_eq!(error.stage(), None);
    let home = tempfile::tempdir().unwrap();
    sample_tree(home.path());
    let tree = world.seal_paths(&[home.path().to_owned()]);
    assert!(matches!(world.receive(&tree, InMemory::new()), Err(OpenError::Sink(SinkError::NotOneFile { .. }))));
}

/// The content with stock tools: `tar -xi`, and what `receive` makes of it, are the same tree.
fn compare_with_tar(source: &Path) {
    let (world, home) = (World::new(), tempfile::tempdir().unwrap());
    let carried = world.seal_paths(&[source.to_owned()]);
    let (archive, out) = (home.path().join("content.tar"), home.path().join("out"));
    std::fs::write(&archive, carried.content()).unwrap();
    std::fs::create_dir(&out).unwrap();
    let run = |arguments: &[&str]| {
        let output = Command::new("tar")
            .args(arguments)
            .arg("--warning=no-timestamp")
            .arg("-f")
            .arg(&archive)
            .arg("-C")
            .arg(&out)
            .output()
            .unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        assert!(output.stderr.is_empty(), "{}", String::from_utf8_lossy(&output.stderr));
        output.stdout
    };
    let listed = run(&["-ti", "--quoting-style=escape"]);
    assert_eq!(listed.iter().filter(|b| **b == b'\n').count(), snapshot(source).len());
    run(&["-xip"]);
    assert_eq!(snapshot(source), snapshot(&out));
}

#[test]
fn stock_tar_reads_the_content() {
    let home = tempfile::tempdir().unwrap();
    sample_tree(home.path());
    compare_with_tar(home.path());
}

#[test]
fn a_pouch_file_carries_the_same_bundle() {
    let (world, home) = (World::new(), tempfile::tempdir().unwrap());
    let source = home.path().join("source");
    sample_tree(&source);
    let carried = world.seal_paths(std::slice::from_ref(&source));
    let path = home.path().join("x.pouch");
    carried.write_pouch(&path);
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);

    let mut file = PouchFile::open(std::fs::File::open(&path).unwrap()).unwrap();
    assert_eq!(file.bundle(), carried.manifest.body().bundle);
    assert_eq!(file.parts(), 1);
    let mut part = Vec::new();
    file.part(0, &mut part).unwrap();
    assert_eq!(part, carried.parts[0]);
    assert_eq!(file.index().unwrap(), carried.index);
    assert_eq!(file.envelope().unwrap(), carried.envelope);
    assert!(matches!(file.part(1, &mut part), Err(FileError::NoPart { number: 1 })));

    // Stock tar lists it too, and nothing is ever overwritten.
    let listed = Command::new("tar").arg("-tf").arg(&path).output().unwrap();
    assert_eq!(listed.stdout, b"pouch.bundle.v1\npart.00000\nindex\nenvelope\n");
    let again = PouchWriter::create(&path, carried.manifest.body().bundle);
    assert!(matches!(again, Err(FileError::Place(StageError::Exists { .. }))));
    let unfinished = PouchWriter::create(&home.path().join("y.pouch"), carried.manifest.body().bundle).unwrap();
    drop(unfinished);
    assert_eq!(std::fs::read_dir(home.path()).unwrap().count(), 2);
}

#[test]
fn a_receipt_comes_back_sealed_and_its_commitment_fits() {
    use pouch_statement::{Outcome, Receipt, Signed};
    let world = World::new();
    let manifest = world.seal_stream(b"x").manifest;
    let receipt = Receipt {
        bundle: manifest.body().bundle,
        manifest_sha256: manifest.digest(),
        sender: world.ada.card,
        recipient: world.bo.card,
        outcome: Outcome::Verified,
        stage: None,
        created: now(),
    };
    let signed = Signed::sign(receipt, &world.bo.signs).unwrap();
    let (sealed, commitment) = seal_receipt(&signed, &world.ada.age.recipient()).unwrap();
    let (detached, again) = open_receipt(&sealed, &world.ada.age).unwrap();
    assert_eq!((detached, again), (signed.detached(), commitment));
    let (other, salted) = seal_receipt(&signed, &world.ada.age.recipient()).unwrap();
    assert_ne!((&other, salted), (&sealed, commitment), "a fresh salt each time");
    assert!(open_receipt(&sealed, &world.bo.age).is_err());
    for length in 0..sealed.len() {
        assert!(open_receipt(&sealed[..length], &world.ada.age).is_err());
    }
    for at in 0..sealed.len() {
        let mut changed = sealed.clone();
        changed[at] ^= 1 << (at % 8);
        assert!(open_receipt(&changed, &world.ada.age).is_err(), "byte {at}");
    }
}

/// Folders and files by path; `None` is a folder.
type Tree = Vec<(Vec<String>, Option<(Vec<u8>, bool)>, i64)>;

fn trees() -> impl Strategy<Value = Tree> {
    let component = prop_oneof![
        4 => "[a-c]{1,2}",
        1 => "[ -.0-\\[\\]-~é東\u{301}]{1,40}",
        1 => "[x-z]{90,120}",
    ]
    .prop_filter("not a name", |name| name.parse::<EntryPath>().is_ok());
    let file = proptest::option::weighted(0.7, (proptest::collection::vec(any::<u8>(), 0..3000), any::<bool>()));
    proptest::collection::vec((proptest::collection::vec(component, 1..5), file, -1000i64..9_000_000_000), 0..12)
}

fn plant(root: &Path, tree: &Tree) {
    std::fs::create_dir(root).unwrap();
    for (components, file, mtime) in tree {
        let path = root.join(components.join("/"));
        // Paths may contradict each other (a file where a folder is needed): then the later one does not exist.
        if path.exists() || std::fs::create_dir_all(path.parent().unwrap()).is_err() {
            continue;
        }
        match file {
            None => std::fs::create_dir(&path).unwrap(),
            Some((bytes, executable)) => {
                std::fs::write(&path, bytes).unwrap();
                if *executable {
                    make_executable(&path);
                }
                set_mtime(&path, *mtime);
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_tree_makes_the_round_trip(tree in trees()) {
        let (world, home) = (World::new(), tempfile::tempdir().unwrap());
        let source = home.path().join("source");
        plant(&source, &tree);
        let carried = world.seal_paths(std::slice::from_ref(&source));
        world.receive_into(&carried, &home.path().join("in")).unwrap();
        prop_assert_eq!(snapshot(&source), snapshot(&home.path().join("in")));
        // The index that was read is the one that was written.
        let opening = world.open(&carried).unwrap();
        prop_assert_eq!(opening.index().encode().unwrap(), carried.index_text().into_bytes());
        // Each file lies where the index says.
        let content = carried.content();
        for entry in opening.entries().iter().filter(|e| e.kind != EntryKind::Folder) {
            let place = opening.index().locate(entry.path.as_str()).unwrap();
            let bytes = &content[place.start as usize..place.end as usize];
            prop_assert_eq!(bytes, std::fs::read(source.join(entry.path.as_str())).unwrap());
        }
        compare_with_tar(&source);
    }

    #[test]
    fn any_stream_makes_the_round_trip(bytes in proptest::collection::vec(any::<u8>(), 0..20_000)) {
        let world = World::new();
        let reader = Box::new(Cursor::new(bytes.clone()));
        let carried = world.seal(Content::Stream { name: "s".parse().unwrap(), mtime: -1, reader });
        prop_assert_eq!(world.receive(&carried, Released::new(Vec::new())).unwrap(), bytes);
    }
}
