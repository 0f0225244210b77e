//! The vectors in `tests/vectors/`: what a second implementation is checked against, and what pins the formats here.
//!
//! `POUCH_WRITE_VECTORS=1 cargo test -p pouch-core --test bundle_vectors` writes those that are missing. A vector that
//! is there is never written again: from 0.1.0 on a new format gets a new file.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

mod bundle_support;

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use bundle_support::*;
use pouch_core::bundle::*;
use pouch_statement::{Fingerprint, Sha256Digest, Timestamp};
use serde_json::{Value, json};

fn folder(name: &str) -> PathBuf {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/vectors")).join(name)
}

/// The vector's text; written first when it is missing and that was asked for.
fn vector(path: PathBuf, make: impl FnOnce() -> String) -> String {
    if !path.exists() && std::env::var_os("POUCH_WRITE_VECTORS").is_some() {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, make()).unwrap();
    }
    std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

fn lines(values: impl IntoIterator<Item = Value>) -> String {
    values.into_iter().map(|v| format!("{v}\n")).collect()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        write!(text, "{byte:02x}").unwrap();
        text
    })
}

/// Path, mtime and kind of entries at the borders of the header's rules.
fn borderline_entries() -> Vec<(String, i64, ItemKind)> {
    let file = |size| ItemKind::File { size, executable: false };
    vec![
        ("a".into(), 0, ItemKind::Folder),
        ("a/b".into(), 1_700_000_000, file(5)),
        ("a/run".into(), 1_700_000_000, ItemKind::File { size: 511, executable: true }),
        ("n".repeat(100), 1, file(0)),
        ("n".repeat(100), 1, ItemKind::Folder),
        (format!("{}/m", "n".repeat(99)), 1, file(1)),
        ("tilde~ and space".into(), 1, file(1)),
        ("delete\u{7f}".into(), 1, file(1)),
        ("é".into(), 1, ItemKind::Folder),
        ("max".into(), 8_589_934_591, file(8_589_934_591)),
        ("over".into(), 8_589_934_592, file(8_589_934_592)),
        ("before".into(), -1, file(1)),
        (format!("all/{}", "東".repeat(60)), -9_000_000_000, file(9_000_000_000)),
        ("p".repeat(84), 2, file(2)),
        ("é".repeat(42) + "x", 2, file(2)),
    ]
}

fn header_line((path, mtime, kind): &(String, i64, ItemKind)) -> Value {
    let mut bytes = Vec::new();
    header(&Item { path: &path.parse().unwrap(), mtime: *mtime, kind: *kind }, &mut bytes);
    match kind {
        ItemKind::Folder => json!({"path": path, "mtime": mtime, "kind": "folder", "header": hex(&bytes)}),
        ItemKind::File { size, executable } => json!({
            "path": path, "mtime": mtime, "kind": "file", "size": size, "executable": executable, "header": hex(&bytes)
        }),
    }
}

#[test]
fn headers_are_those_of_the_vectors() {
    let entries = borderline_entries();
    let text = vector(folder("archive/headers.jsonl"), || lines(entries.iter().map(header_line)));
    assert_eq!(text.lines().count(), entries.len());
    for (line, entry) in text.lines().zip(&entries) {
        assert_eq!(serde_json::from_str::<Value>(line).unwrap(), header_line(entry));
    }
}

fn sizes() -> Vec<u64> {
    let part = FIRST_PART_SIZE;
    let mut sizes = vec![
        0,
        1,
        4095,
        4096,
        4097,
        4352,
        4353,
        5000,
        8191,
        8192,
        8193,
        9000,
        65_535,
        65_536,
        65_537,
        100_000,
        1_000_000,
        part - 1,
        part,
        part + 1,
        2 * part,
        100_000_000,
        1_000_000_000,
        4096 * part,
        4096 * part + 1,
        100_000_000_000,
    ];
    sizes.extend([1_000_000_000_000, 1 << 42, (1 << 42) + 1, 7_000_000_000_000]);
    sizes
}

fn layout_line(size: &u64) -> Value {
    let layout = Layout::of(*size).unwrap();
    let last = layout.parts() - 1;
    json!({
        "content_size": size, "padded_size": padded(*size), "parts": layout.parts(), "last_part_size": layout.part_size(last)
    })
}

#[test]
fn padding_and_parts_are_those_of_the_vectors() {
    let sizes = sizes();
    let text = vector(folder("archive/padding.jsonl"), || lines(sizes.iter().map(layout_line)));
    assert_eq!(text.lines().count(), sizes.len());
    for (line, size) in text.lines().zip(&sizes) {
        assert_eq!(serde_json::from_str::<Value>(line).unwrap(), layout_line(size));
    }
}

/// A tree that is the same wherever it is made.
fn plant(root: &Path) {
    std::fs::create_dir_all(root.join("data/leer")).unwrap();
    std::fs::write(root.join("README"), "one small tree\n").unwrap();
    std::fs::write(root.join("data.csv"), "sorts between\n").unwrap();
    std::fs::write(root.join("data/żółw.bin"), vec![0xa5; 600]).unwrap();
    std::fs::write(root.join("data").join("l".repeat(120)), "").unwrap();
    std::fs::write(root.join("data/run"), "#!/bin/sh\n").unwrap();
    make_executable(&root.join("data/run"));
    set_mtime(&root.join("README"), 1_700_000_000);
    set_mtime(&root.join("data.csv"), -1);
    set_mtime(&root.join("data/żółw.bin"), 1_700_000_001);
    set_mtime(&root.join("data").join("l".repeat(120)), 0);
    set_mtime(&root.join("data/run"), 1_700_000_002);
    set_mtime(&root.join("data/leer"), 1_700_000_003);
    set_mtime(&root.join("data"), 1_700_000_004);
}

#[test]
fn the_archive_of_a_tree_is_that_of_the_vector() {
    let (world, home) = (World::new(), tempfile::tempdir().unwrap());
    let source = home.path().join("source");
    plant(&source);
    let carried = world.seal_paths(&[source]);
    let mut content = carried.content();
    content.truncate(carried.manifest.body().content_size as usize);
    let entries =
        carried.index_text().lines().skip(1).filter(|l| l.starts_with("{\"path\"")).collect::<Vec<_>>().join("\n");
    let text = vector(folder("archive/tree.index-entries.jsonl"), || format!("{entries}\n"));
    assert_eq!(text.trim_end(), entries);
    let digest =
        vector(folder("archive/tree.sha256"), || format!("{}  {} bytes\n", Sha256Digest::of(&content), content.len()));
    assert_eq!(digest, format!("{}  {} bytes\n", Sha256Digest::of(&content), content.len()));
}

/// Makes a bundle with fresh keys: once.
fn write_bundle(name: &str, path: &Path) -> String {
    let (world, home) = (World::new(), tempfile::tempdir().unwrap());
    let source = home.path().join("source");
    plant_for(name, &source);
    let scan = Scan::new(&[source], ScanOptions::default()).unwrap();
    let compression = (name == "zstd").then_some(Compression::Zstd);
    let sealer = Sealer::compressing(Content::Tree(scan), compression).unwrap();
    let (mut part, terms) = (SealedPart::default(), world.terms());
    let mut writer = PouchWriter::create(path, terms.bundle).unwrap();
    while sealer.next_part(&mut part).unwrap() {
        writer.add_part(part.number, &part.sealed).unwrap();
    }
    let sealed = sealer.finish().unwrap();
    let terms = Terms { expires: Timestamp::from_unix(253_402_300_799).unwrap(), ..terms };
    let manifest = Manifest::new(terms, &sealed.summary).sign(&world.ada.signs).unwrap();
    let envelope = seal_envelope(&manifest, &sealed.key, &world.bo.age.recipient()).unwrap();
    writer.finish(&sealed.sealed_index, &envelope).unwrap();
    let value = json!({
        "recipient_identity": world.bo.age.expose_secret_string().as_str(),
        "recipient": world.bo.card,
        "sender": world.ada.card,
        "sender_key": world.ada.signs.public(),
        "bundle": manifest.body().bundle,
        "manifest": String::from_utf8(manifest.bytes().to_vec()).unwrap(),
        "manifest_sha256": manifest.digest(),
        "opened_at": now(),
    });
    format!("{value:#}\n")
}

/// What the bundle of this name holds.
fn plant_for(name: &str, root: &Path) {
    plant(root);
    if name == "zstd" {
        // Three frames.
        let rows: String = (0..900_000).map(|row| format!("{:09}\n", row / 7)).collect();
        std::fs::write(root.join("rows"), rows).unwrap();
        set_mtime(&root.join("rows"), 1_700_000_005);
    }
}

// These files must open for as long as version 1 is read.
#[test]
fn the_sealed_bundles_of_the_vectors_open() {
    // The first for a classic recipient, the others for a hybrid one; the last one is compressed.
    for name in ["v1", "hybrid", "zstd"] {
        opens(name);
    }
}

fn opens(name: &str) {
    let path = folder(&format!("bundle/{name}.pouch"));
    let text = vector(folder(&format!("bundle/{name}.json")), || write_bundle(name, &path));
    let value: Value = serde_json::from_str(&text).unwrap();
    let member = |name: &str| value[name].as_str().unwrap();
    let (me, sender): (Fingerprint, Fingerprint) =
        (member("recipient").parse().unwrap(), member("sender").parse().unwrap());

    let mut file = PouchFile::open(std::fs::File::open(&path).unwrap()).unwrap();
    assert_eq!(file.bundle().to_string(), member("bundle"));
    let opened = open_envelope(&file.envelope().unwrap(), &member("recipient_identity").parse().unwrap()).unwrap();
    let expected = Expected {
        me: &me,
        sender: &sender,
        sender_key: &member("sender_key").parse().unwrap(),
        bundle: Some(file.bundle()),
        now: Timestamp::from_unix(value["opened_at"].as_u64().unwrap()).unwrap(),
    };
    let verified = opened.verify(&expected).unwrap();
    assert_eq!(verified.manifest().bytes(), member("manifest").as_bytes());
    assert_eq!(verified.manifest().digest().to_string(), member("manifest_sha256"));
    let opening = verified.open_index(&file.index().unwrap()).unwrap();
    assert_eq!(opening.index().frames().map(|frames| frames.sizes().len()), (name == "zstd").then_some(3));
    // As a text: frames are new lines of an index.
    if name == "zstd" {
        let text = String::from_utf8(opening.index().encode().unwrap()).unwrap();
        assert_eq!(vector(folder("bundle/zstd.index.jsonl"), || text.clone()), text);
    }
    let home = tempfile::tempdir().unwrap();
    let receiver = opening.receive(Staging::new(&home.path().join("in")).unwrap()).unwrap();
    let mut sealed = Vec::new();
    for number in 0..file.parts() {
        file.part(number, &mut sealed).unwrap();
        receiver.accept(number, &sealed).unwrap();
    }
    receiver.finish().unwrap().publish().unwrap();
    plant_for(name, &home.path().join("wanted"));
    assert_eq!(snapshot(&home.path().join("in")), snapshot(&home.path().join("wanted")));
}
