//! attacks.md, rows 8, 9 and 15: sources that are not what they seem, or change.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

mod bundle_support;

use std::os::unix::fs::symlink;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

use bundle_support::*;
use pouch_core::bundle::*;

/// Something to do to a source, and what it is called in a failure.
type Named = (&'static str, fn(&Path));

fn same(text: String) -> String {
    text
}

fn scan(path: &Path) -> Result<Scan, SourceError> {
    Scan::new(&[path.to_owned()], ScanOptions::default())
}

fn fifo(path: &Path) {
    let mode = rustix::fs::Mode::from_raw_mode(0o600);
    rustix::fs::mknodat(rustix::fs::CWD, path, rustix::fs::FileType::Fifo, mode, 0).unwrap();
}

// attacks.md 15: what is neither file nor folder is an error, or left out when asked.
#[test]
fn attack_15_links_pipes_and_sockets_in_the_source() {
    let home = tempfile::tempdir().unwrap();
    let make: [Named; 3] = [
        ("named pipe", fifo),
        ("socket", |p| drop(UnixListener::bind(p).unwrap())),
        ("symbolic link", |p| symlink("/etc/passwd", p).unwrap()),
    ];
    for (number, (what, make)) in make.iter().enumerate() {
        let source = home.path().join(number.to_string());
        std::fs::create_dir(&source).unwrap();
        std::fs::write(source.join("good"), "x").unwrap();
        make(&source.join("bad"));
        match scan(&source) {
            Err(SourceError::Special { path, what: found }) => {
                assert_eq!((path, found), (source.join("bad"), *what));
            }
            other => panic!("{what}: {other:?}"),
        }
        // Named directly as well.
        assert!(matches!(scan(&source.join("bad")), Err(SourceError::Special { .. })));
        let options = ScanOptions { skip_special: true, ..ScanOptions::default() };
        let skipping = Scan::new(std::slice::from_ref(&source), options).unwrap();
        assert_eq!(skipping.skipped(), [source.join("bad")]);
        assert_eq!(skipping.items().len(), 1);
    }
}

// attacks.md 15: followed links are sent as what they lead to, and a loop of links is noticed.
#[test]
fn attack_15_dereferenced_links() {
    let (world, home) = (World::new(), tempfile::tempdir().unwrap());
    let options = ScanOptions { dereference: true, ..ScanOptions::default() };
    let (source, elsewhere) = (home.path().join("source"), home.path().join("elsewhere"));
    std::fs::create_dir_all(elsewhere.join("d")).unwrap();
    std::fs::create_dir(&source).unwrap();
    std::fs::write(elsewhere.join("d/f"), "linked").unwrap();
    symlink(elsewhere.join("d"), source.join("folder")).unwrap();
    symlink(elsewhere.join("d/f"), source.join("file")).unwrap();
    let carried = world.seal(Content::Tree(Scan::new(std::slice::from_ref(&source), options).unwrap()));
    let into = home.path().join("in");
    world.receive_into(&carried, &into).unwrap();
    assert_eq!(std::fs::read(into.join("folder/f")).unwrap(), b"linked");
    assert!(std::fs::symlink_metadata(into.join("file")).unwrap().is_file());
    symlink("..", elsewhere.join("d/up")).unwrap();
    assert!(matches!(Scan::new(&[source], options), Err(SourceError::Loop { .. })));
}

/// Scans a folder with a file in it, changes something, and seals.
fn sealed_after(change: impl Fn(&Path)) -> Result<(), SealError> {
    let home = tempfile::tempdir().unwrap();
    let source = home.path().join("source");
    std::fs::create_dir(&source).unwrap();
    std::fs::write(source.join("f"), "unchanged").unwrap();
    let scan = scan(&source).unwrap();
    change(&source);
    let sealer = Sealer::new(Content::Tree(scan))?;
    while sealer.next_part(&mut SealedPart::default())? {}
    sealer.finish().map(|_| ())
}

// attacks.md 15: a source that changes between the list and the end is an error, never a silent mix.
#[test]
fn attack_15_a_source_that_changed_is_an_error() {
    assert!(sealed_after(|_| {}).is_ok());
    let changes: [Named; 9] = [
        ("longer", |p| std::fs::write(p.join("f"), "unchanged, or not").unwrap()),
        ("shorter", |p| std::fs::write(p.join("f"), "un").unwrap()),
        ("same length, touched", |p| set_mtime(&p.join("f"), 1_000)),
        ("another inode", |p| {
            let meta = std::fs::metadata(p.join("f")).unwrap();
            std::fs::write(p.join("g"), "unchanged").unwrap();
            std::fs::File::open(p.join("g")).unwrap().set_modified(meta.modified().unwrap()).unwrap();
            std::fs::rename(p.join("g"), p.join("f")).unwrap();
        }),
        ("gone", |p| std::fs::remove_file(p.join("f")).unwrap()),
        ("a link now", |p| {
            std::fs::remove_file(p.join("f")).unwrap();
            symlink("/etc/hostname", p.join("f")).unwrap();
        }),
        ("a pipe now", |p| {
            std::fs::remove_file(p.join("f")).unwrap();
            fifo(&p.join("f"));
        }),
        ("executable now", |p| make_executable(&p.join("f"))),
        ("a folder now", |p| {
            std::fs::remove_file(p.join("f")).unwrap();
            std::fs::create_dir(p.join("f")).unwrap();
        }),
    ];
    for (what, change) in changes {
        let error = sealed_after(change).unwrap_err();
        assert!(
            matches!(error, SealError::Source(SourceError::Changed { .. } | SourceError::Io { .. })),
            "{what}: {error}"
        );
    }
}

// attacks.md 15: a file that holds more than it says, as in /proc.
#[test]
fn attack_15_a_file_with_a_size_that_lies() {
    let scan = scan(Path::new("/proc/version")).unwrap();
    assert_eq!(scan.bytes(), 0);
    let error = Sealer::new(Content::Tree(scan)).unwrap().next_part(&mut SealedPart::default()).unwrap_err();
    assert!(matches!(error, SealError::Source(SourceError::Changed { .. })), "{error}");
}

// attacks.md 15: while its parts are being read, and in the folders around.
#[test]
fn attack_15_a_source_that_changes_while_it_is_read() {
    let home = tempfile::tempdir().unwrap();
    let size = FIRST_PART_SIZE as usize + 1000;
    let changes: [Named; 4] = [
        ("grows", |p| {
            use std::io::Write as _;
            std::fs::OpenOptions::new().append(true).open(p.join("d/f")).unwrap().write_all(b"more").unwrap();
        }),
        ("shrinks", |p| {
            std::fs::OpenOptions::new().write(true).open(p.join("d/f")).unwrap().set_len(FIRST_PART_SIZE).unwrap();
        }),
        ("is touched", |p| set_mtime(&p.join("d/f"), 1)),
        ("a file is added", |p| {
            std::fs::write(p.join("d/new"), "").unwrap();
            set_mtime(&p.join("d"), 1);
        }),
    ];
    for (number, (what, change)) in changes.into_iter().enumerate() {
        let source = home.path().join(number.to_string());
        std::fs::create_dir_all(source.join("d")).unwrap();
        std::fs::write(source.join("d/f"), vec![1; size]).unwrap();
        let sealer = Sealer::new(Content::Tree(scan(&source).unwrap())).unwrap();
        let mut part = SealedPart::default();
        assert!(sealer.next_part(&mut part).unwrap());
        change(&source);
        let error = sealer.next_part(&mut part).and_then(|_| sealer.next_part(&mut part)).unwrap_err();
        assert!(matches!(error, SealError::Source(SourceError::Changed { .. })), "{what}: {error}");
        // It stays failed: nothing can be finished or continued.
        assert!(matches!(sealer.next_part(&mut part), Err(SealError::Unfinished)));
        assert!(matches!(sealer.finish(), Err(SealError::Unfinished)));
    }
}

// attacks.md 8, 15: names that a bundle cannot carry stop the sender already.
#[test]
fn attack_8_names_that_cannot_be_sent() {
    use std::os::unix::ffi::OsStrExt as _;
    let home = tempfile::tempdir().unwrap();
    for (number, name) in [&b"back\\slash"[..], b"C:", b"not utf-8 \xff"].into_iter().enumerate() {
        let source = home.path().join(number.to_string());
        std::fs::create_dir(&source).unwrap();
        std::fs::write(source.join(std::ffi::OsStr::from_bytes(name)), "").unwrap();
        let error = scan(&source).unwrap_err();
        assert!(matches!(error, SourceError::Path { .. } | SourceError::NotUtf8 { .. }), "{error}");
    }
    assert!(matches!(
        Scan::new(&[PathBuf::from(".."), home.path().to_owned()], ScanOptions::default()),
        Err(SourceError::NoName { .. })
    ));
}

// attacks.md 9: no error carries a name as it came.
#[test]
fn attack_9_errors_show_names_escaped() {
    let (world, home) = (World::new(), tempfile::tempdir().unwrap());
    let evil = "\u{1b}[2J\u{202e}evil";
    let lines = [file_line(evil, b""), file_line(evil, b"")];
    let twice = world.forge(ContentKind::Tar, &archive_of(&[(evil, Some(b"")), ("x", Some(b""))]), &lines, same);
    symlink("x", home.path().join(evil)).unwrap();
    let errors = [world.refused(&twice).to_string(), scan(home.path()).unwrap_err().to_string()];
    for error in errors {
        assert!(error.contains("evil") && !error.contains(['\u{1b}', '\u{202e}']), "{error:?}");
    }
}
