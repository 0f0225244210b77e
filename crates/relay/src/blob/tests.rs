//! The contract of [`BlobStore`], tested against each store: the folder, and S3 where `POUCH_CEPH` names a running gateway
//! (tests/services/ceph).
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

use std::collections::BTreeMap;
use std::time::Duration;

use axum::body::Body;
use futures_util::StreamExt as _;
use futures_util::future::join_all;
use pouch_services::Ceph;

use super::*;
use crate::config::S3Config;

pub(super) fn announced(bytes: &[u8]) -> Announced {
    Announced::new(bytes.len() as u64, Hasher::blake3(), *blake3::hash(bytes).as_bytes())
}

pub(super) fn body(frames: impl Stream<Item = io::Result<Bytes>> + Send + 'static) -> Upload {
    Upload::new(Body::from_stream(frames), Duration::from_secs(20))
}

/// A body that comes in pieces.
pub(super) fn frames(bytes: &[u8], size: usize) -> Upload {
    let frames: Vec<_> = bytes.chunks(size).map(|piece| Ok(Bytes::copy_from_slice(piece))).collect();
    body(futures_util::stream::iter(frames))
}

pub(super) async fn collect(mut stream: BlobStream) -> io::Result<Vec<u8>> {
    let mut all = Vec::new();
    while let Some(bytes) = stream.next().await {
        all.extend_from_slice(&bytes?);
    }
    Ok(all)
}

/// An age file, as far as the relay can tell.
pub(crate) fn content(seed: u8, length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    blake3::Hasher::new().update(&[seed]).finalize_xof().fill(&mut bytes);
    bytes[..AGE.len()].copy_from_slice(AGE);
    bytes
}

/// The bucket under a prefix of its own, with the key in a file of `folder`.
pub(super) fn s3_config(ceph: &Ceph, folder: &std::path::Path) -> S3Config {
    let prefix = BlobName::random().unwrap().text();
    match Config::parse(&ceph.config(&prefix, &folder.join("secret"))).unwrap().blobs {
        BlobConfig::S3(s3) => s3,
        BlobConfig::Folder => unreachable!(),
    }
}

pub(crate) fn data_folder() -> (tempfile::TempDir, Blobs) {
    let data = tempfile::tempdir().unwrap();
    let folder = folder::Folder::open(data.path(), Disk::default(), 0).unwrap();
    (data, Arc::new(folder))
}

pub(crate) async fn bucket() -> Option<(tempfile::TempDir, Blobs)> {
    let ceph = Ceph::shared()?;
    let folder = tempfile::tempdir().unwrap();
    let s3 = s3::S3::open(&s3_config(&ceph, folder.path())).await.unwrap();
    Some((folder, Arc::new(s3)))
}

/// Stores these bytes under that name.
pub(crate) async fn put_as(store: &Blobs, name: BlobName, bytes: &[u8]) {
    store.receive(name, &frames(bytes, 60_000), announced(bytes)).await.unwrap();
}

async fn put(store: &Blobs, bytes: &[u8]) -> BlobName {
    let name = BlobName::random().unwrap();
    put_as(store, name, bytes).await;
    name
}

async fn all(store: &Blobs) -> BTreeMap<[u8; 16], Listed> {
    let mut all = BTreeMap::new();
    let mut next = None;
    loop {
        let page = store.list(next).await.unwrap();
        for blob in page.blobs {
            assert!(all.insert(*blob.name.as_bytes(), blob).is_none(), "listed twice");
        }
        match page.next {
            Some(mark) => next = Some(mark),
            None => return all,
        }
    }
}

/// Below, at and above every limit at which a store changes what it does.
fn lengths() -> Vec<usize> {
    let single = SINGLE as usize;
    vec![
        AGE.len(),
        AGE.len() + 1,
        4096,
        (128 << 10) - 1,
        128 << 10,
        (128 << 10) + 1,
        single,
        single + 1,
        (24 << 20) + 5,
    ]
}

async fn what_is_stored_is_read(store: Blobs) {
    for length in lengths() {
        let bytes = content(length as u8, length);
        let name = BlobName::random().unwrap();
        // The index comes with the other digest.
        use sha2::Digest as _;
        let announced = Announced::new(length as u64, Hasher::sha256(), sha2::Sha256::digest(&bytes).into());
        store.receive(name, &frames(&bytes, 1 << 20), announced).await.unwrap();
        let last = length as u64 - 1;
        for (offset, count) in [(0, length as u64), (0, 1), (last, 1), (last / 2, last / 3 + 1)] {
            let read = collect(store.read(name, offset, count).await.unwrap()).await.unwrap();
            assert!(read == bytes[offset as usize..][..count as usize], "{length}: {count} at {offset}");
        }
        assert_eq!(all(&store).await[name.as_bytes()].length, length as u64);
    }
    assert!(store.unfinished().await.unwrap().is_empty());
}

async fn what_fails_leaves_nothing(store: Blobs) {
    // On S3 these are one request, and an upload in pieces that fails in the second and in the last one.
    for length in [3000, (8 << 20) + 100, (24 << 20) + 5] {
        let bytes = content(1, length);
        let mut other = bytes.clone();
        other[length - 1] ^= 1;
        let short = &bytes[..length - 1];
        let long = [&bytes, &[0; 1][..]].concat();
        let broken = {
            let pieces: Vec<_> = short.chunks(1 << 20).map(|piece| Ok(Bytes::copy_from_slice(piece))).collect();
            let end = futures_util::stream::iter([Err(io::Error::other("the client went away"))]);
            body(futures_util::stream::iter(pieces).chain(end))
        };
        let cases = [
            ("digest", frames(&other, 1 << 20)),
            ("short", frames(short, 1 << 20)),
            ("long", frames(&long, 1 << 20)),
            ("broken", broken),
            ("not age", frames(&bytes[1..], 1)),
            ("nothing", frames(&[], 1)),
            ("less than the first line", frames(&AGE[..AGE.len() - 1], 1)),
        ];
        for (what, body) in cases {
            // Byte by byte is only for the beginning.
            let name = BlobName::random().unwrap();
            let error = store.receive(name, &body, announced(&bytes)).await.unwrap_err();
            let expected = match what {
                "broken" => matches!(error, ReceiveError::Body(BodyError::Broken)),
                "not age" | "nothing" | "less than the first line" => matches!(error, ReceiveError::NotAge),
                _ => matches!(error, ReceiveError::Digest),
            };
            assert!(expected, "{what} {length}: {error:?}");
            assert!(matches!(store.read(name, 0, 1).await, Err(StoreError::NotFound(_))), "{what}");
        }
    }
    assert!(all(&store).await.is_empty());
    assert!(store.unfinished().await.unwrap().is_empty());
}

async fn removing_may_be_repeated(store: Blobs) {
    let bytes = content(2, 3 << 20);
    let (gone, kept) = (put(&store, &bytes).await, put(&store, &bytes).await);
    let mut reading = store.read(gone, 0, bytes.len() as u64).await.unwrap();
    let first = reading.next().await.unwrap().unwrap();
    for _ in 0..2 {
        store.remove(gone).await.unwrap();
        assert!(matches!(store.read(gone, 0, 1).await, Err(StoreError::NotFound(_))));
    }
    // Whoever had begun gets the rest or an error.
    if let Ok(rest) = collect(reading).await {
        assert!([&first, &rest[..]].concat() == bytes);
    }
    store.remove(BlobName::random().unwrap()).await.unwrap();
    assert_eq!(all(&store).await.into_keys().collect::<Vec<_>>(), [*kept.as_bytes()]);
}

async fn every_blob_is_listed_once(store: Blobs) {
    // More than a page of S3.
    let count = 1100u32;
    let mut names = BTreeMap::new();
    for group in (0..count).collect::<Vec<_>>().chunks(50) {
        let puts = group.iter().map(|n| {
            let store = &store;
            async move {
                let bytes = content(3, AGE.len() + *n as usize);
                (*put(store, &bytes).await.as_bytes(), bytes.len() as u64)
            }
        });
        names.extend(join_all(puts).await);
    }
    let listed = all(&store).await;
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
    assert!(listed.values().all(|blob| now.abs_diff(blob.modified.unix()) < 600));
    let lengths: BTreeMap<_, _> = listed.into_iter().map(|(name, blob)| (name, blob.length)).collect();
    assert_eq!(lengths, names);
}

async fn many_at_once(store: Blobs) {
    let puts = (0..40u8).map(|n| {
        let store = &store;
        async move {
            let bytes = content(n, if n % 10 == 0 { 17 << 20 } else { 1000 + 10_000 * usize::from(n) });
            let name = put(store, &bytes).await;
            // Read your writes, at once, by whoever asks.
            assert!(collect(store.read(name, 0, bytes.len() as u64).await.unwrap()).await.unwrap() == bytes);
            if n % 4 == 1 {
                store.remove(name).await.unwrap();
                return None;
            }
            Some(*name.as_bytes())
        }
    });
    let mut left: Vec<_> = join_all(puts).await.into_iter().flatten().collect();
    left.sort_unstable();
    assert_eq!(all(&store).await.into_keys().collect::<Vec<_>>(), left);
}

async fn an_upload_under_way_is_seen_only_as_such(store: Blobs) {
    let bytes = content(4, (24 << 20) + 5);
    let (send, frames) = tokio::sync::mpsc::channel::<Bytes>(1);
    let frames =
        futures_util::stream::unfold(frames, |mut frames| async { frames.recv().await.map(|f| (Ok(f), frames)) });
    let body = body(frames);
    let name = BlobName::random().unwrap();
    let announced = announced(&bytes);
    let receiver = Arc::clone(&store);
    let receiving = tokio::spawn(async move { receiver.receive(name, &body, announced).await });
    let half = bytes.len() / 2;
    for piece in bytes[..half].chunks(1 << 20) {
        send.send(Bytes::copy_from_slice(piece)).await.unwrap();
    }
    let mut unfinished = Vec::new();
    for _ in 0..100 {
        unfinished = store.unfinished().await.unwrap();
        if !unfinished.is_empty() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(unfinished.iter().map(|u| u.name).collect::<Vec<_>>(), [name]);
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
    assert!(now.abs_diff(unfinished[0].begun.unix()) < 600);
    assert!(matches!(store.read(name, 0, 1).await, Err(StoreError::NotFound(_))));
    assert!(all(&store).await.is_empty());
    for _ in 0..2 {
        store.discard(&unfinished[0]).await.unwrap();
    }
    assert!(store.unfinished().await.unwrap().is_empty());
    for piece in bytes[half..].chunks(1 << 20) {
        if send.send(Bytes::copy_from_slice(piece)).await.is_err() {
            break;
        }
    }
    drop(send);
    assert!(matches!(receiving.await.unwrap(), Err(ReceiveError::Store(_))), "it was given up under its hands");
    assert!(all(&store).await.is_empty());
}

async fn an_id_is_beside_the_blobs(store: Blobs) {
    assert_eq!(store.id().await.unwrap(), None);
    let name = put(&store, &content(5, 100)).await;
    for byte in [1, 2] {
        let id = StoreId::from_bytes([byte; 16]);
        store.set_id(id).await.unwrap();
        assert_eq!(store.id().await.unwrap(), Some(id));
    }
    assert_eq!(all(&store).await.into_keys().collect::<Vec<_>>(), [*name.as_bytes()]);
    assert!(store.unfinished().await.unwrap().is_empty());
}

/// Each test against each store.
macro_rules! conformance {
    ($($test:ident)*) => {
        mod folder_keeps_the_contract {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $test() {
                let (_folder, store) = super::data_folder();
                super::$test(store).await;
            })*
        }

        mod s3_keeps_the_contract {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $test() {
                if let Some((_folder, store)) = super::bucket().await {
                    super::$test(store).await;
                }
            })*
        }
    };
}

conformance! {
    what_is_stored_is_read
    what_fails_leaves_nothing
    removing_may_be_repeated
    every_blob_is_listed_once
    many_at_once
    an_upload_under_way_is_seen_only_as_such
    an_id_is_beside_the_blobs
}

#[test]
fn an_id_is_a_line_of_32_digits() {
    let id = StoreId::from_bytes([0xa0; 16]);
    assert_eq!(id.line(), format!("{}\n", "a0".repeat(16)));
    assert_eq!(StoreId::read(id.line().as_bytes()).unwrap(), id);
    for bad in [String::new(), "\n".to_owned(), id.to_string(), id.line().to_uppercase(), format!("{}\n", id.line())] {
        let error = StoreId::read(bad.as_bytes()).unwrap_err().to_string();
        assert!(error.contains("`store`"), "{bad:?}: {error}");
    }
}

// attacks.md 39 and 41: names come from the operating system's random bytes, never from a request.
#[test]
fn names_have_one_spelling() {
    let name = BlobName::random().unwrap();
    assert_eq!(BlobName::parse(&name.text()), Some(name));
    for bad in ["", "..", "+1", &name.text().to_uppercase(), &format!("{}0", name.text())] {
        assert!(BlobName::parse(bad).is_none() || bad == name.text(), "{bad}");
    }
}
