//! Receiving that was cut off goes on: nothing that holds is fetched again, nothing that does not hold is published.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

mod bundle_support;

use std::fs;
use std::io::{Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};

use bundle_support::compressed::{noise, seal_on, text, tree};
use bundle_support::*;
use pouch_core::bundle::*;
use proptest::prelude::*;

struct Case {
    world: World,
    carried: Carried,
    source: tempfile::TempDir,
    home: tempfile::TempDir,
}

impl Case {
    /// Five parts: files within them, across them and larger than them, and folders.
    fn new(compressed: bool) -> Self {
        let source = tempfile::tempdir().unwrap();
        let put = |path: &str, bytes: Vec<u8>| {
            fs::create_dir_all(source.path().join(path).parent().unwrap()).unwrap();
            fs::write(source.path().join(path), bytes).unwrap();
        };
        put("a/across", noise(1, PART + 700_000));
        put("a/small", b"small".to_vec());
        put("a/sub/empty", vec![]);
        put("a/sub/text", text(3 << 20));
        put("run", noise(2, 100_000));
        fs::set_permissions(source.path().join("run"), fs::Permissions::from_mode(0o755)).unwrap();
        put("z/large", noise(3, 2 * PART));
        put("z/last", b"last".to_vec());
        fs::create_dir(source.path().join("nothing")).unwrap();
        let world = World::new();
        let carried = if compressed {
            seal_on(&world, 2, tree(source.path())).unwrap()
        } else {
            world.seal_paths(&[source.path().to_owned()])
        };
        assert!(carried.parts.len() >= 4);
        Self { world, carried, source, home: tempfile::tempdir().unwrap() }
    }

    fn keep(&self) -> Keep {
        let manifest = self.carried.manifest.body();
        let (bundle, index) = (manifest.bundle, manifest.sealed_index_sha256);
        Keep { bundle, index, paths: vec![], expires: manifest.expires, now: now() }
    }

    fn destination(&self) -> PathBuf {
        self.home.path().join("in")
    }

    fn begin(&self) -> Receiver<Staging> {
        let staging = Staging::resumable(&self.destination(), &self.keep()).unwrap();
        self.world.open(&self.carried).unwrap().receive(staging).unwrap()
    }

    fn accept(&self, receiver: &Receiver<Staging>, numbers: &[u32]) {
        for number in numbers {
            receiver.accept(*number, &self.carried.parts[*number as usize]).unwrap();
        }
    }

    /// Takes these parts and is cut off; where that is kept.
    fn cut(&self, numbers: &[u32]) -> PathBuf {
        let receiver = self.begin();
        self.accept(&receiver, numbers);
        drop(receiver);
        Staging::kept(&self.destination(), self.keep().bundle, &[]).unwrap()
    }

    /// Goes on to the end, and compares; the parts that had to come.
    fn go_on(&self) -> Vec<u32> {
        let receiver = self.begin();
        let missing = receiver.missing();
        self.accept(&receiver, &missing);
        receiver.finish().unwrap().publish().unwrap();
        assert_eq!(snapshot(&self.destination()), snapshot(self.source.path()));
        let left: Vec<_> = fs::read_dir(self.home.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
        assert_eq!(left, ["in"]);
        fs::remove_dir_all(self.destination()).unwrap();
        missing
    }
}

#[test]
fn what_came_does_not_come_again() {
    let case = Case::new(false);
    for had in [&[0][..], &[1], &[3], &[2, 0], &[0, 1, 2], &[3, 1], &[0, 1, 2, 3]] {
        case.cut(had);
        let missing = case.go_on();
        let wanted: Vec<u32> = (0..4).filter(|number| !had.contains(number)).collect();
        assert_eq!(missing, wanted, "{had:?}");
    }
    // In several goes.
    case.cut(&[2]);
    case.cut(&[0]);
    assert_eq!(case.begin().missing(), [1, 3]);
    assert_eq!(case.go_on(), [1, 3]);
    // Before anything came, nothing stays.
    drop(case.begin());
    assert_eq!(fs::read_dir(case.home.path()).unwrap().count(), 0);
}

#[test]
fn frames_that_came_do_not_come_again() {
    let case = Case::new(true);
    let all: Vec<u32> = (0..case.carried.parts.len() as u32).collect();
    let last = all.len() as u32 - 1;
    case.cut(&all[..2]);
    // The frame across the border of parts 1 and 2 was not whole, and part 1 has to come for it.
    assert_eq!(case.go_on(), all[1..]);
    // All but the end is there; what is missing is the padding's part, unless a frame ends in it.
    case.cut(&all);
    assert_eq!(case.go_on(), [0; 0]);
    case.cut(&all[..last as usize]);
    let missing = case.go_on();
    assert!(missing.len() <= 2 && missing.contains(&last), "{missing:?}");
}

/// Flips a byte.
fn flip(path: &Path, at: u64) {
    let bytes = fs::read(path).unwrap();
    let mut file = fs::OpenOptions::new().write(true).open(path).unwrap();
    file.seek(SeekFrom::Start(at)).unwrap();
    file.write_all(&[bytes[at as usize] ^ 1]).unwrap();
}

// Whoever can write in the staging folder can change it between the two; nothing of that is taken for good.
#[test]
fn what_was_changed_meanwhile_is_found_and_fetched_again() {
    type Change = (&'static str, fn(&Path), &'static [u32]);
    let changes: [Change; 16] = [
        ("a byte of a small file", |at| flip(&at.join("a/small"), 2), &[1]),
        ("a byte of a file across parts", |at| flip(&at.join("a/across"), 70_000), &[0]),
        ("another one", |at| flip(&at.join("a/across"), PART as u64 + 5000), &[1]),
        ("of a large one", |at| flip(&at.join("z/large"), PART as u64), &[2]),
        ("a file that is gone", |at| fs::remove_file(at.join("run")).unwrap(), &[1]),
        ("a file across parts that is gone", |at| fs::remove_file(at.join("a/across")).unwrap(), &[0, 1]),
        ("a file that is longer", |at| fs::write(at.join("a/sub/empty"), "x").unwrap(), &[1]),
        ("a shorter one", |at| fs::write(at.join("a/sub/text"), "x").unwrap(), &[1]),
        (
            "a longer one across parts",
            |at| {
                let file = fs::OpenOptions::new().append(true).open(at.join("a/across")).unwrap();
                (&file).write_all(b"more").unwrap();
            },
            &[0, 1],
        ),
        (
            "a link in the place of a file",
            |at| {
                fs::rename(at.join("a/small"), at.join("elsewhere")).unwrap();
                symlink("../elsewhere", at.join("a/small")).unwrap();
            },
            &[1],
        ),
        (
            "a link in the place of a folder",
            |at| {
                fs::rename(at.join("a"), at.join("b")).unwrap();
                symlink("b", at.join("a")).unwrap();
            },
            &[0, 1],
        ),
        (
            "more files and folders",
            |at| {
                fs::create_dir_all(at.join("nothing/more/of/it")).unwrap();
                fs::write(at.join("nothing/more/file"), "x").unwrap();
                symlink("/", at.join("root")).unwrap();
            },
            &[],
        ),
        ("a folder that is gone", |at| fs::remove_dir_all(at.join("a/sub")).unwrap(), &[1]),
        (
            "other permissions and times",
            |at| {
                fs::set_permissions(at.join("run"), fs::Permissions::from_mode(0o600)).unwrap();
                fs::File::open(at.join("a/small")).unwrap().set_modified(std::time::SystemTime::now()).unwrap();
                fs::set_permissions(at.join("a"), fs::Permissions::from_mode(0o500)).unwrap();
            },
            &[],
        ),
        (
            "half a line of the record",
            |at| {
                let record = at.join(at.file_name().unwrap());
                let text = fs::read_to_string(&record).unwrap();
                fs::write(&record, &text[..text.len() - 10]).unwrap();
            },
            &[2],
        ),
        ("a record that is none", |at| fs::write(at.join(at.file_name().unwrap()), "x\n").unwrap(), &[0, 1, 2]),
    ];
    let case = Case::new(false);
    for (what, change, again) in changes {
        let kept = case.cut(&[0, 1, 2]);
        change(&kept);
        assert_eq!(case.go_on(), [again, &[3]].concat(), "{what}");
    }
}

// What another receive noted of other content counts nothing here, so that it is never held against the sender.
#[test]
fn a_record_that_lies_is_found_out() {
    let case = Case::new(false);
    let kept = case.cut(&[0, 1, 2]);
    // What would be noted of other content in the place of a part: taken from a bundle that has it.
    let record = kept.join(kept.file_name().unwrap());
    let noted = fs::read_to_string(&record).unwrap();
    let other = Case::new(false);
    flip(&other.source.path().join("a/across"), 70_000);
    let other = Case { carried: other.world.seal_paths(&[other.source.path().to_owned()]), ..other };
    let theirs = other.cut(&[0]);
    let lie = fs::read_to_string(theirs.join(theirs.file_name().unwrap())).unwrap();
    let lie = lie.lines().find(|line| line.starts_with("0 ")).unwrap().to_owned();
    assert!(!noted.contains(&lie));
    fs::write(&record, format!("{noted}{lie}\n")).unwrap();
    flip(&kept.join("a/across"), 70_000);
    // What was noted is of a file with another digest: that stretch does not count, and those that are right do.
    assert_eq!(case.go_on(), [0, 3]);
}

#[test]
fn other_content_paths_and_times_begin_anew() {
    let case = Case::new(false);
    case.cut(&[0, 1]);
    // Some paths only have a place of their own.
    let paths = vec!["z".to_owned()];
    assert_eq!(Staging::kept(&case.destination(), case.keep().bundle, &paths), None);
    let staging = Staging::resumable(&case.destination(), &Keep { paths: paths.clone(), ..case.keep() }).unwrap();
    let opening = case.world.open(&case.carried).unwrap();
    let chosen = Chosen::at(opening.index(), &paths).unwrap();
    let receiver = opening.receive_chosen(chosen, staging).unwrap();
    assert_eq!(receiver.missing(), [1, 2, 3]);
    case.accept(&receiver, &[2]);
    drop(receiver);
    assert_eq!(fs::read_dir(case.home.path()).unwrap().count(), 2);
    // A content of another digest does not go on with what is there.
    let index = pouch_statement::Sha256Digest::of(b"other");
    drop(Staging::resumable(&case.destination(), &Keep { index, ..case.keep() }).unwrap());
    assert_eq!(Staging::kept(&case.destination(), case.keep().bundle, &[]), None);
    // Who looks there when it has expired clears it away.
    case.cut(&[0, 1]);
    let later = Keep { bundle: pouch_statement::BundleId::random().unwrap(), now: case.keep().expires, ..case.keep() };
    drop(Staging::resumable(&case.destination(), &later).unwrap());
    assert_eq!(fs::read_dir(case.home.path()).unwrap().count(), 0);
    // And whoever says so.
    case.cut(&[0, 1]);
    Staging::discard(&case.destination(), case.keep().bundle, &[]).unwrap();
    assert_eq!(fs::read_dir(case.home.path()).unwrap().count(), 0);
    assert_eq!(case.go_on(), [0, 1, 2, 3]);
}

#[test]
fn two_at_once_do_not_share_a_folder() {
    let case = Case::new(false);
    case.cut(&[0]);
    let first = case.begin();
    assert_eq!(first.missing(), [1, 2, 3]);
    Staging::discard(&case.destination(), case.keep().bundle, &[]).unwrap();
    let second = case.begin();
    assert_eq!(second.missing(), [0, 1, 2, 3]);
    case.accept(&second, &[0, 1]);
    // The second has nothing to go on with.
    drop(second);
    assert_eq!(fs::read_dir(case.home.path()).unwrap().count(), 1);
    case.accept(&first, &[1, 2, 3]);
    first.finish().unwrap().publish().unwrap();
    assert_eq!(snapshot(&case.destination()), snapshot(case.source.path()));
}

#[test]
fn a_disk_without_room_is_told_before_anything_comes() {
    let world = World::new();
    let size = 6_u64 << 40;
    let digest = "00".repeat(32).parse().unwrap();
    let entry = Entry {
        path: "huge".parse().unwrap(),
        mtime: 0,
        kind: EntryKind::File { size, executable: false, blake3: digest },
    };
    let layout = Layout::of(size).unwrap();
    let parts = (0..layout.parts())
        .map(|number| {
            let size = layout.part_size(number).unwrap();
            PartSpec { size, sealed_size: pouch_core::age::sealed_len(size).unwrap(), sealed_blake3: digest }
        })
        .collect();
    let index = Index::new(ContentKind::Stream, vec![entry], parts).unwrap().encode().unwrap();
    let key = pouch_core::age::Identity::generate_x25519();
    let carried = world.carry(key, vec![], ContentKind::Stream, layout, &index);
    let home = tempfile::tempdir().unwrap();
    let staging = Staging::new(&home.path().join("in")).unwrap();
    match world.open(&carried).unwrap().receive(staging).err().unwrap() {
        OpenError::Sink(SinkError::Stage(StageError::NoRoom { needed, free, .. })) => {
            assert!(needed == size && free < size, "{needed} {free}");
        }
        error => panic!("{error}"),
    }
    assert_eq!(fs::read_dir(home.path()).unwrap().count(), 0);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, failure_persistence: None, ..ProptestConfig::default() })]

    // Cut anywhere, any times, with any byte changed in between: the end is the same.
    #[test]
    fn any_cuts_and_changes_end_the_same(
        compressed: bool,
        rounds in proptest::collection::vec((0u32..16, proptest::option::of((0usize..7, 0u64..20_000_000))), 1..4),
    ) {
        let case = Case::new(compressed);
        let names = ["a/across", "a/small", "a/sub/text", "run", "z/large", "z/last", "a/sub/empty"];
        for (mask, change) in rounds {
            let receiver = case.begin();
            for number in receiver.missing().into_iter().filter(|number| mask & 1 << number != 0) {
                case.accept(&receiver, &[number]);
            }
            drop(receiver);
            if let (Some(kept), Some((name, at))) = (Staging::kept(&case.destination(), case.keep().bundle, &[]), change) {
                let path = kept.join(names[name]);
                let length = fs::metadata(&path).map_or(0, |data| data.len());
                if length > 0 {
                    flip(&path, at % length);
                }
            }
        }
        case.go_on();
    }
}
