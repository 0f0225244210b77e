//! attacks.md, rows 1 to 14: names, links, sizes, destinations.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

mod bundle_support;

use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bundle_support::*;
use pouch_core::bundle::*;
use pouch_statement::Stage;

fn same(text: String) -> String {
    text
}

/// A forged bundle whose archive is right for `content` while the index says `lines`.
fn forged(world: &World, content: &[(&str, Option<&[u8]>)], lines: &[String]) -> Carried {
    world.forge(ContentKind::Tar, &archive_of(content), lines, same)
}

// attacks.md 1, 8: the whole bundle is refused before a byte is written.
#[test]
fn attack_1_paths_that_leave_are_refused() {
    let world = World::new();
    let long = "x".repeat(256);
    let deep = vec!["d"; 257].join("/");
    let bad = [
        "../x",
        "/x",
        "C:\\x",
        "C:",
        "\\\\host\\share",
        "a\\..\\b",
        "a/../../x",
        "..",
        ".",
        "",
        "a//b",
        "a/",
        "nul\0byte",
        &long,
        &deep,
    ];
    for path in bad {
        let lines = [file_line("a", b""), file_line(path, b"")];
        let error = world.refused(&forged(&world, &[("a", Some(b"")), ("b", Some(b""))], &lines));
        assert!(matches!(error, OpenError::Index(IndexError::Path { entry: 2, .. })), "{path:?}: {error}");
        assert_eq!(error.stage(), Some(Stage::Index));
    }
    // Bytes that are no UTF-8.
    let text = world.forge(ContentKind::Tar, &archive_of(&[("b", Some(b""))]), &[file_line("b", b"")], same);
    let mut bytes = text.index_text().into_bytes();
    let at = bytes.windows(3).position(|w| w == b"\"b\"").unwrap() + 1;
    bytes[at] = 0xff;
    let layout = text.manifest.body().layout().unwrap();
    let carried = world.carry(text.key, text.parts, ContentKind::Tar, layout, &bytes);
    assert!(matches!(world.refused(&carried), OpenError::Index(IndexError::Line { line: 2, .. })));
}

// attacks.md 2: hidden files land inside the fresh folder only, and the list is there before anything is accepted.
#[test]
fn attack_2_hidden_files_stay_inside_the_fresh_folder() {
    let (world, home) = (World::new(), tempfile::tempdir().unwrap());
    let content: [(&str, Option<&[u8]>); 2] = [(".ssh", None), (".ssh/authorized_keys", Some(b"evil"))];
    let carried = forged(&world, &content, &[folder_line(".ssh"), file_line(".ssh/authorized_keys", b"evil")]);
    let shown: Vec<String> = world.open(&carried).unwrap().entries().iter().map(|e| e.path.to_string()).collect();
    assert_eq!(shown, [".ssh", ".ssh/authorized_keys"]);
    std::fs::create_dir(home.path().join(".ssh")).unwrap();
    world.receive_into(&carried, &home.path().join("in")).unwrap();
    assert_eq!(std::fs::read_dir(home.path().join(".ssh")).unwrap().count(), 0);
    assert_eq!(snapshot(&home.path().join("in")).into_keys().collect::<Vec<_>>(), shown);
}

// attacks.md 2: a name in the destination that is not in the signed set is noticed.
#[test]
fn attack_2_names_equal_the_signed_set() {
    let (world, home) = (World::new(), tempfile::tempdir().unwrap());
    let content: [(&str, Option<&[u8]>); 2] = [("d", None), ("d/f", Some(b"x"))];
    let carried = forged(&world, &content, &[folder_line("d"), file_line("d/f", b"x")]);
    for planted in ["extra", "d/extra"] {
        let staging = Staging::new(&home.path().join("in")).unwrap();
        let private = staging.private_path();
        let receiver = world.open(&carried).unwrap().receive(staging).unwrap();
        receiver.accept(0, &carried.parts[0]).unwrap();
        std::fs::write(private.join(planted), "not sent").unwrap();
        let error = receiver.finish().err().unwrap();
        assert!(matches!(error, OpenError::Sink(SinkError::Stage(StageError::Names { .. }))), "{error}");
        assert_eq!(std::fs::read_dir(home.path()).unwrap().count(), 0);
    }
}

// attacks.md 3: a header that is not the derived one, whatever it says: a link, a device, another name, mode or owner.
#[test]
fn attack_3_a_header_that_differs_is_refused() {
    let world = World::new();
    let good = archive_of(&[("a", Some(b"abc"))]);
    let entries = [file_line("a", b"abc")];
    assert!(world.open(&world.forge(ContentKind::Tar, &good, &entries, same)).is_ok());
    let repaired = |mut block: Vec<u8>| {
        block[148..156].copy_from_slice(b"        ");
        let sum: u32 = block[..512].iter().map(|b| u32::from(*b)).sum();
        block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        block
    };
    for kind in b"1234567xgLKS\0" {
        let mut content = good.clone();
        content[156] = *kind;
        content[157..168].copy_from_slice(b"/etc/passwd");
        let error = world.refused(&world.forge(ContentKind::Tar, &repaired(content), &entries, same));
        assert!(matches!(error, OpenError::Content(ContentError::Header { .. })), "{error}");
        assert_eq!(error.stage(), Some(Stage::Content));
    }
    // Every byte of the header counts, and so does every byte of filling and padding.
    for at in (0..512).chain([515, 600, 1023, 1024, 1500, 2047]) {
        let mut content = good.clone();
        content[at] ^= 0x20;
        let error = world.refused(&world.forge(ContentKind::Tar, &content, &entries, same));
        assert!(matches!(error, OpenError::Content(_)), "byte {at}: {error}");
    }
    let mut content = good.clone();
    content[513] ^= 1;
    let error = world.refused(&world.forge(ContentKind::Tar, &content, &entries, same));
    assert!(matches!(error, OpenError::Content(ContentError::Digest { .. })), "{error}");
}

// attacks.md 4: a folder in staging is swapped for a link to the outside, again and again, while files are written.
#[test]
fn attack_4_a_folder_swapped_for_a_link_while_extracting() {
    let (world, home) = (World::new(), tempfile::tempdir().unwrap());
    let source = home.path().join("source");
    for folder in 0..20 {
        std::fs::create_dir_all(source.join(format!("d/{folder:02}"))).unwrap();
        for file in 0..3 {
            std::fs::write(source.join(format!("d/{folder:02}/{file}")), "inside").unwrap();
        }
        // Sorts between the folder and what is in it, so that the way to both is walked again.
        std::fs::write(source.join(format!("d/{folder:02}.txt")), "inside").unwrap();
    }
    let carried = world.seal_paths(std::slice::from_ref(&source));
    let place = home.path().join("place");
    std::fs::create_dir(&place).unwrap();
    // Into one the folders of the bundle could be made, in the other its files have folders waiting for them.
    let outside = [home.path().join("outside"), home.path().join("outside with folders")];
    std::fs::create_dir(&outside[0]).unwrap();
    for folder in 0..20 {
        std::fs::create_dir_all(outside[1].join(format!("{folder:02}"))).unwrap();
    }
    let (mut published, mut refused) = (0, 0);
    for round in 0..300 {
        let into = place.join(format!("in{round}"));
        let staging = Staging::new(&into).unwrap();
        let target = staging.private_path().join("d");
        let stop = Arc::new(AtomicBool::new(false));
        let swapper = std::thread::spawn({
            let (stop, outside, target) = (stop.clone(), outside[round % 2].clone(), target.clone());
            let aside = home.path().join("aside");
            move || {
                while !stop.load(Ordering::Relaxed) {
                    if std::fs::rename(&target, &aside).is_ok() {
                        let _ = symlink(&outside, &target);
                        std::thread::yield_now();
                        let _ = std::fs::remove_file(&target);
                        let _ = std::fs::rename(&aside, &target);
                    }
                }
                let _ = std::fs::remove_dir_all(&aside);
            }
        });
        match world.receive(&carried, staging).and_then(|s| Ok(s.publish().map_err(SinkError::from)?)) {
            Ok(_) => published += 1,
            Err(error) => {
                assert!(matches!(error, OpenError::Sink(_)), "{error}");
                assert!(!into.exists());
                refused += 1;
            }
        }
        stop.store(true, Ordering::Relaxed);
        swapper.join().unwrap();
        let found = outside.each_ref().map(|o| snapshot(o).len());
        assert_eq!(found, [0, 20], "round {round}: something was written outside");
        let _ = std::fs::remove_dir_all(&into);
    }
    assert!(refused > 0, "the race never took place: {published} published");
}

// attacks.md 5: whatever stands at the destination stays, also when it appears at the last moment.
#[test]
fn attack_5_nothing_is_overwritten() {
    let (world, home) = (World::new(), tempfile::tempdir().unwrap());
    let carried = world.seal_stream(b"x");
    let into = home.path().join("in");
    let plant: [fn(&Path); 4] = [
        |p| std::fs::write(p, "mine").unwrap(),
        |p| std::fs::create_dir(p).unwrap(),
        |p| symlink("nowhere", p).unwrap(),
        |p| {
            std::fs::create_dir(p).unwrap();
            std::fs::write(p.join("stream"), "mine").unwrap();
        },
    ];
    for plant in plant {
        plant(&into);
        assert!(matches!(Staging::new(&into), Err(StageError::Exists { .. })));
        clear(&into);

        let staged = world.receive(&carried, Staging::new(&into).unwrap()).unwrap();
        plant(&into);
        let before = std::fs::symlink_metadata(&into).unwrap().ino();
        assert!(matches!(staged.publish(), Err(StageError::Exists { .. })));
        assert_eq!(std::fs::symlink_metadata(&into).unwrap().ino(), before);
        // What was received is cleared away, what was there stays.
        assert_eq!(std::fs::read_dir(home.path()).unwrap().count(), 1);
        if let Ok(mine) = std::fs::read(into.join("stream")) {
            assert_eq!(mine, b"mine");
        }
        clear(&into);
    }
    for nowhere in ["/", "..", "a/.."] {
        assert!(matches!(Staging::new(Path::new(nowhere)), Err(StageError::NoName { .. })));
    }
}

fn clear(path: &Path) {
    if std::fs::symlink_metadata(path).unwrap().is_dir() {
        std::fs::remove_dir_all(path).unwrap();
    } else {
        std::fs::remove_file(path).unwrap();
    }
}

// attacks.md 5: the private folder itself replaced by somebody else's before the rename.
#[test]
fn attack_5_a_replaced_private_folder_is_not_published() {
    let (world, home) = (World::new(), tempfile::tempdir().unwrap());
    let into = home.path().join("in");
    let staging = Staging::new(&into).unwrap();
    let private = staging.private_path();
    let staged = world.receive(&world.seal_stream(b"x"), staging).unwrap();
    std::fs::rename(&private, home.path().join("moved")).unwrap();
    std::fs::create_dir(&private).unwrap();
    std::fs::write(private.join("stream"), "not theirs").unwrap();
    assert!(matches!(staged.publish(), Err(StageError::Replaced)));
    assert!(!into.exists());
    // Only our own is cleared; what somebody else put there is theirs.
    assert!(private.join("stream").exists());
    assert_eq!(std::fs::read_dir(home.path().join("moved")).unwrap().count(), 0);
}

// attacks.md 6: two entries with one name, a file that is also a folder, an entry without its folder, disorder.
#[test]
fn attack_6_duplicate_and_contradictory_names_are_refused() {
    let world = World::new();
    let (a, b): (&[u8], &[u8]) = (b"", b"");
    let content: [(&str, Option<&[u8]>); 2] = [("a", Some(a)), ("b", Some(b))];
    let twice = forged(&world, &content, &[file_line("a", a), file_line("a", b)]);
    assert!(matches!(world.refused(&twice), OpenError::Index(IndexError::Order { .. })));
    let both = forged(&world, &content, &[file_line("a", a), folder_line("a")]);
    assert!(matches!(world.refused(&both), OpenError::Index(IndexError::Order { .. })));
    let disorder = forged(&world, &content, &[file_line("b", b), file_line("a", a)]);
    assert!(matches!(world.refused(&disorder), OpenError::Index(IndexError::Order { .. })));
    let beneath = forged(&world, &content, &[file_line("a", a), file_line("a/b", b)]);
    assert!(matches!(world.refused(&beneath), OpenError::Index(IndexError::NoFolder { .. })));
    let orphan = forged(&world, &content, &[file_line("a", a), file_line("d/b", b)]);
    assert!(matches!(world.refused(&orphan), OpenError::Index(IndexError::NoFolder { .. })));
}

// attacks.md 6: a file system that holds two names as one makes the second creation fail; here somebody does.
#[test]
fn attack_6_names_that_the_file_system_cannot_hold_apart_are_refused() {
    let (world, home) = (World::new(), tempfile::tempdir().unwrap());
    for (line, bytes) in [(file_line("name", b"x"), Some(&b"x"[..])), (folder_line("name"), None)] {
        let carried = forged(&world, &[("name", bytes)], &[line]);
        let staging = Staging::new(&home.path().join("in")).unwrap();
        std::fs::write(staging.private_path().join("name"), "the other").unwrap();
        let error = world.receive(&carried, staging).err().unwrap();
        assert!(matches!(error, OpenError::Sink(SinkError::Stage(StageError::Collision { .. }))), "{error}");
        assert_eq!(error.stage(), None);
        assert_eq!(std::fs::read_dir(home.path()).unwrap().count(), 0);
    }
}

// attacks.md 10: of the mode only the executable bit travels.
#[test]
fn attack_10_setuid_and_odd_modes_do_not_travel() {
    let (world, home) = (World::new(), tempfile::tempdir().unwrap());
    let source = home.path().join("source");
    std::fs::create_dir(&source).unwrap();
    for (name, mode) in [("setuid", 0o4755), ("open", 0o666), ("closed", 0o600), ("sticky", 0o1744)] {
        std::fs::write(source.join(name), name).unwrap();
        std::fs::set_permissions(source.join(name), std::fs::Permissions::from_mode(mode)).unwrap();
    }
    std::fs::create_dir(source.join("shared")).unwrap();
    std::fs::set_permissions(source.join("shared"), std::fs::Permissions::from_mode(0o3777)).unwrap();
    let into = home.path().join("in");
    world.receive_into(&world.seal_paths(&[source]), &into).unwrap();
    let umask = umask();
    let mode = |name: &str| std::fs::metadata(into.join(name)).unwrap().permissions().mode() & 0o7777;
    for name in ["setuid", "sticky", "shared", ""] {
        assert_eq!(mode(name), 0o777 & !umask, "{name}");
    }
    for name in ["open", "closed"] {
        assert_eq!(mode(name), 0o666 & !umask, "{name}");
    }
}

fn umask() -> u32 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|l| l.strip_prefix("Umask:")).unwrap();
    u32::from_str_radix(line.trim(), 8).unwrap()
}

// attacks.md 11: caps hold before anything is allocated or parsed.
#[test]
fn attack_11_caps_before_allocation() {
    let world = World::new();
    let edit = |from: &'static str, to: &'static str| move |text: String| text.replacen(from, to, 1);
    let content = archive_of(&[("a", Some(b""))]);
    let entries = [file_line("a", b"")];
    let many = world.forge(ContentKind::Tar, &content, &entries, edit("\"entries\":1", "\"entries\":10000000"));
    let error = world.refused(&many);
    assert!(matches!(error, OpenError::Index(IndexError::TooManyEntries { entries: 10_000_000 })), "{error}");
    // As many as may be, and none of them there: nothing is reserved for them.
    let claimed = world.forge(ContentKind::Tar, &content, &entries, edit("\"entries\":1", "\"entries\":2000000"));
    assert!(matches!(world.refused(&claimed), OpenError::Index(IndexError::Line { .. })));
    let parts = world.forge(ContentKind::Tar, &content, &entries, edit("\"parts\":1", "\"parts\":4294967295"));
    assert!(matches!(world.refused(&parts), OpenError::Index(IndexError::Sizes { .. })));
    // A line without an end.
    let long = world.forge(ContentKind::Tar, &content, &entries, |text| {
        text.replace("\"path\":\"a\"", &format!("\"path\":\"{}\"", "a".repeat(100_000)))
    });
    assert!(matches!(world.refused(&long), OpenError::Index(IndexError::Line { line: 2, .. })));
    // A manifest that signs for a larger index than any.
    let honest = world.seal_stream(b"x");
    let mut manifest = honest.manifest.body().clone();
    manifest.index_size = MAX_INDEX + 1;
    assert!(matches!(manifest.sign(&world.ada.signs), Err(ManifestError::Sizes { .. })));
    assert!(matches!(Index::decode(&vec![b'{'; MAX_INDEX as usize + 1]), Err(IndexError::TooLong)));
    // An envelope longer than any is not even opened.
    let error = open_envelope(&vec![b'a'; MAX_ENVELOPE as usize + 1], &world.bo.age).err().unwrap();
    assert!(matches!(error, EnvelopeError::TooLong { .. }));
}

// attacks.md 13: lengths that disagree, wherever they stand.
#[test]
fn attack_13_lengths_that_disagree_are_refused() {
    let world = World::new();
    let content = archive_of(&[("a", Some(b"abc"))]);
    let entries = [file_line("a", b"abc")];
    let sealed = format!("\"sealed_size\":{}", sealed_size(4096));
    let edits: [(&str, String); 9] = [
        ("\"content_size\":2048", "\"content_size\":2560".into()),
        ("\"padded_size\":4096", "\"padded_size\":8192".into()),
        ("\"entries\":1", "\"entries\":0".into()),
        ("\"parts\":1", "\"parts\":2".into()),
        ("\"parts\":1", "\"parts\":0".into()),
        ("\"size\":3", "\"size\":600".into()),
        ("\"part\":0", "\"part\":1".into()),
        ("\"size\":4096", "\"size\":4095".into()),
        (&sealed, format!("\"sealed_size\":{}", sealed_size(4096) + 1)),
    ];
    for (from, to) in edits {
        let edited = world.forge(ContentKind::Tar, &content, &entries, |text| {
            assert!(text.contains(from), "{from} in {text}");
            text.replacen(from, &to, 1)
        });
        let error = world.refused(&edited);
        assert!(matches!(error, OpenError::Index(_)), "{from} -> {to}: {error}");
    }
    // The size of a file shifted within the same blocks: caught by header and digest.
    let shifted = world.forge(ContentKind::Tar, &content, &entries, |t| t.replacen("\"size\":3", "\"size\":4", 1));
    assert!(matches!(world.refused(&shifted), OpenError::Content(ContentError::Header { .. })));
    // Index and manifest disagree on what the content is.
    let honest = world.seal_stream(b"x");
    let mut manifest = honest.manifest.body().clone();
    manifest.content = ContentKind::Tar;
    let signed = manifest.sign(&world.ada.signs).unwrap();
    let envelope = seal_envelope(&signed, &honest.key, &world.bo.age.recipient()).unwrap();
    assert!(matches!(world.refused(&Carried { envelope, ..honest }), OpenError::IndexContent));
}

// attacks.md 14: absurd sizes cost nothing; they do not fit and are refused.
#[test]
fn attack_14_absurd_sizes_do_not_allocate() {
    let world = World::new();
    let content = archive_of(&[("a", Some(b""))]);
    for size in [u64::MAX, u64::MAX - 511, 1 << 63, 1 << 43] {
        let line = file_line("a", b"").replace("\"size\":0", &format!("\"size\":{size}"));
        let error = world.refused(&world.forge(ContentKind::Tar, &content, std::slice::from_ref(&line), same));
        assert!(matches!(error, OpenError::Index(_)), "{error}");
        let error = world.refused(&world.forge(ContentKind::Stream, b"", &[line], same));
        assert!(matches!(error, OpenError::Index(_)), "{error}");
    }
    // A sparse file is read as what it says it is.
    let home = tempfile::tempdir().unwrap();
    std::fs::File::create(home.path().join("sparse")).unwrap().set_len(1 << 42).unwrap();
    std::fs::File::create(home.path().join("sparse too")).unwrap().set_len(1 << 43).unwrap();
    let scan = Scan::new(&[home.path().to_owned()], ScanOptions::default());
    assert!(matches!(scan, Err(SourceError::TooLarge(_))));
}
